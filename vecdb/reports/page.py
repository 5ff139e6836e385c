"""How do sections of prose, tables and plots become one page that opens anywhere and prints well?

One file: no script, no address, nothing loaded; its policy forbids both, should a text in it ever try.
Light or dark as the reader's system is, black on white on paper.

Invariants (tests/unit/test_reports.py):
  H1  whatever the texts hold, the page is well-formed and has the elements that its parts make, no more;
  H2  every table has a caption or stands under a heading, numbers stand to the right, and wide ones scroll
      by themselves, not the page;
  H3  ids on a page are distinct.

Rejected: a template engine (a dependency for one page); colours by `style` attributes, which neither the
dark nor the printed page could change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

from vecdb.reports.cells import CELL, clean, column, label
from vecdb.reports.drawing import Plot
from vecdb.reports.style import PAGE_STYLE, STYLE

MOST_ROWS: Final = 1_000  # of a table on a page
MOST_COLUMNS: Final = 60
HEADER: Final = 40  # letters of a column's name
PROSE: Final = 20_000  # characters
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


@dataclass(frozen=True, slots=True)
class Prose:
    """Words: an empty line begins a new paragraph. `strong`: the answer, set apart from the rest.

    >>> Prose("one\\n\\ntwo").text.count("\\n")
    2
    """

    text: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to be typed.

    >>> Code("papers.search('gpu')").text
    "papers.search('gpu')"
    """

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under the names of their columns; a page shows the first 1,000 rows.

    >>> len(Table(("name", "nDCG@10"), [("a", 0.5)], caption="Quality").rows)
    1
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under a title.

    >>> Section("Quality", [Prose("good")]).title
    'Quality'
    """

    title: str
    body: Sequence[Prose | Table | Plot | Code] = field(default_factory=list)


def page(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """Return a whole HTML page as text, which `.encode()` makes UTF-8 of.

    >>> page("Report", [Section("One", [Prose("<b>")])]).count("&lt;b&gt;")
    1
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(label(title, CELL))}</title><style>{STYLE}{PAGE_STYLE}</style></head>\n"
        f"<body>{_main(title, sections, subtitle, 'main')}</body></html>\n"
    )


def fragment(title: str, sections: Sequence[Section], *, subtitle: str = "") -> str:
    """Return the same for inside another page, as notebooks show it.

    >>> fragment("Report", []).startswith("<style>")
    True
    """
    return f"<style>{STYLE}</style>{_main(title, sections, subtitle, 'div')}"


def _main(title: str, sections: Sequence[Section], subtitle: str, tag: str) -> str:
    under = f'<p class="subtitle">{escape(clean(subtitle, PROSE))}</p>' if subtitle else ""
    contents = _contents(sections) if len(sections) > 3 and tag == "main" else ""
    parts = [_section(each, at) for at, each in enumerate(sections, 1)]
    head = f"<header><h1>{escape(label(title, CELL))}</h1>{under}</header>"
    return f'<{tag} class="vecdb-report">{head}{contents}{"".join(parts)}</{tag}>'


def _contents(sections: Sequence[Section]) -> str:
    names = [escape(label(each.title, 80)) for each in sections]
    listed = "".join(f'<li><a href="#s{at}">{name}</a></li>' for at, name in enumerate(names, 1))
    return f'<nav aria-label="Contents"><ol>{listed}</ol></nav>'


def _section(section: Section, number: int) -> str:
    body = "\n".join(_part(each, f"p{number}-{at}") for at, each in enumerate(section.body, 1))
    name = label(section.title, CELL)
    return f'\n<section id="s{number}"><h2>{escape(name)}</h2>\n{body}</section>'


def _part(part: Prose | Table | Plot | Code, name: str) -> str:
    if isinstance(part, Plot):
        note = f' <span class="note">{escape(clean(part.note, 500))}.</span>' if part.note else ""
        caption = f"<figcaption>{escape(label(part.title, CELL))}.{note}</figcaption>"
        return f'<figure><div class="wide">{part.svg(name)}</div>{caption}</figure>'
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Code):
        return f"<pre><code>{escape(clean(part.text, PROSE))}</code></pre>"
    kind = ' class="strong"' if part.strong else ""
    lines = [each.strip() for each in clean(part.text, PROSE).replace(" %", "\u00a0%").split("\n\n")]
    return "".join(f"<p{kind}>{escape(each)}</p>" for each in lines if each)


def _table(table: Table) -> str:
    names = list(table.columns)[:MOST_COLUMNS]
    shown = [list(row)[: len(names)] for row in table.rows[:MOST_ROWS]]
    columns = [column([row[at] if at < len(row) else None for row in shown]) for at in range(len(names))]
    kinds = [' class="number"' if numbers else "" for _, numbers in columns]
    head = "".join(
        f'<th scope="col"{kind}>{escape(label(name, HEADER))}</th>'
        for name, kind in zip(names, kinds, strict=True)
    )
    body = "\n".join(
        f"<tr>{''.join(f'<td{kinds[c]}>{escape(columns[c][0][r])}</td>' for c in range(len(names)))}</tr>"
        for r in range(len(shown))
    )
    if not shown:
        body = f'<tr><td class="nothing" colspan="{max(1, len(names))}">no rows</td></tr>'
    said = [label(table.caption, CELL)] if table.caption else []
    if len(table.rows) > len(shown):
        said.append(f"The first {len(shown):,} of {len(table.rows):,} rows")
    if len(table.columns) > len(names):
        said.append(f"The first {len(names):,} of {len(table.columns):,} columns")
    caption = f"<caption>{escape('. '.join(said))}</caption>" if said else ""
    inner = f"{caption}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>"
    return f'<div class="wide"><table>{inner}</table></div>'
