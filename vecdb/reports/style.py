"""How does a report look: on a light screen, on a dark one, on paper?

Every rule is under `.vecdb-report`, so that a report inside another page changes nothing else there. Colours
are variables, set three times: light, dark, print. The series' are Okabe and Ito's (2008), which people tell
apart whatever colours they see, darker on light ground and lighter on dark so that each has a contrast of
3 : 1 or more against it.
"""

from __future__ import annotations

from typing import Final

_LIGHT: Final = (
    "--ground:#fff;--ink:#1c2126;--soft:#5b6670;--line:#d9dee3;--band:#f3f5f7;--key:#0b5cad;"
    "--c0:#848d95;--c1:#0072b2;--c2:#d55e00;--c3:#00875a;--c4:#b0448a;"
    "--c5:#8a6d00;--c6:#2a8fc7;--c7:#7a4fc4;--c8:#4d5963"
)
_DARK: Final = (
    "--ground:#14181c;--ink:#e4e8eb;--soft:#9fabb5;--line:#333c44;--band:#1e242a;--key:#6db3f2;"
    "--c0:#7d8891;--c1:#56b4e9;--c2:#f08a3c;--c3:#3ac292;--c4:#dd86bb;"
    "--c5:#e0c341;--c6:#8ecdf0;--c7:#b297ec;--c8:#c3ccd3"
)
_PAPER: Final = _LIGHT.replace("#1c2126", "#000").replace("#5b6670", "#444").replace("#0b5cad", "#000")
_FONT: Final = 'system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif'
_CODE: Final = 'ui-monospace,"DejaVu Sans Mono",monospace'

# Selectors that begin a line stand under .vecdb-report.
_RULES: Final = f"""
h1|font-size:1.75rem;line-height:1.2;margin:0 0 .25rem
h2|font-size:1.2rem;line-height:1.3;margin:2.5rem 0 .75rem
.subtitle|color:var(--soft);margin:0
p|margin:.6rem 0;white-space:pre-line;max-width:44rem
p.strong|font-weight:600;border-left:4px solid var(--key);padding:.6rem .9rem
p.strong|background:var(--band);margin:1rem 0
nav ol|margin:1.25rem 0 0;padding-left:1.4rem;color:var(--soft)
a|color:var(--key)
.wide|overflow-x:auto
table|border-collapse:collapse;margin:1rem 0;font-size:.9rem;min-width:50%;font-variant-numeric:tabular-nums
caption|caption-side:top;text-align:left;color:var(--soft);padding:0 0 .4rem
th,td|padding:.35rem .75rem;text-align:left;vertical-align:top;max-width:28rem
th,td|border-bottom:1px solid var(--line);overflow-wrap:break-word
th|border-bottom:2px solid var(--line);font-weight:600;white-space:nowrap
.number|text-align:right;white-space:nowrap
td.nothing|color:var(--soft);text-align:center
pre|background:var(--band);padding:.8rem 1rem;overflow-x:auto;font:.85rem/1.5 {_CODE};border-radius:4px
figure|margin:1.25rem 0
figcaption|color:var(--soft);font-size:.9rem;margin-top:.3rem
svg.plot|display:block;width:100%;min-width:38rem;height:auto;overflow:visible
svg text|font:12px {_FONT};fill:var(--ink);font-variant-numeric:tabular-nums
svg .tick,svg .name,svg .nothing,svg .marked|fill:var(--soft)
svg .axis|stroke:var(--soft)
svg .grid|stroke:var(--line);stroke-width:.75
svg .frame|fill:none;stroke:var(--line)
svg .mark|stroke:var(--c2);stroke-width:1.5;stroke-dasharray:5 4
svg .whisker|fill:none;stroke:var(--c1);stroke-width:1.75
svg .mean|fill:var(--c1);stroke:var(--ground);stroke-width:1.25
"""
_SERIES: Final = "".join(f"\nsvg .s{n}|stroke:var(--c{n});fill:var(--c{n})" for n in range(9))
_SHAPES: Final = """
svg .line|fill:none;stroke-width:2
svg .area|fill-opacity:.2;stroke-width:1.5
svg .band|fill-opacity:.16;stroke:none
svg .dot|stroke:none;fill-opacity:.8
"""
_PRINTED: Final = """
h2|break-after:avoid
figure,tr,pre|break-inside:avoid
.wide,pre|overflow:visible
pre|white-space:pre-wrap
thead|display:table-header-group
svg.plot|min-width:0
nav|display:none
"""


def _under(rules: str) -> str:
    lines = [line.partition("|") for line in rules.strip().splitlines()]
    found = []
    for names, _, says in lines:
        selectors = ",".join(f".vecdb-report {name}" for name in names.split(","))
        found.append(f"{selectors}{{{says}}}")
    return "\n".join(found)


STYLE: Final = f"""
.vecdb-report{{{_LIGHT};background:var(--ground);color:var(--ink);font:16px/1.5 {_FONT};
max-width:54rem;margin:0 auto;padding:2rem 1.25rem 4rem;overflow-wrap:anywhere}}
{_under(_RULES + _SERIES + _SHAPES)}
@media (prefers-color-scheme:dark){{.vecdb-report{{{_DARK}}}}}
@media print{{.vecdb-report{{{_PAPER};font-size:10pt;max-width:none;padding:0;print-color-adjust:exact}}
{_under(_PRINTED)}}}
"""
PAGE_STYLE: Final = """
body{margin:0;background:#fff}
@media (prefers-color-scheme:dark){body{background:#14181c}}
@media print{body{background:#fff}@page{margin:18mm 16mm}}
"""
