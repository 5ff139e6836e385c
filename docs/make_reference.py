"""Makes docs/reference.md of the docstrings of all public names.

    python docs/make_reference.py            # writes the file
    python docs/make_reference.py --check    # exit code 1 where it is not what this would write

What a name does is said once, at its definition; this only arranges it. tests/rules/test_reference.py
holds the file to that. Signatures come from the source as it was written (annotations are text
there), so that the page is the same under every version of Python.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout, whatever is installed

import vecdb
from vecdb import encoders, errors, query, repair, tables
from vecdb import reports as reports_of
from vecdb.adapting.adapter import Adapter
from vecdb.adapting.report import AdapterReport, Change
from vecdb.adapting.tuning_report import FineTuning
from vecdb.analysis.clusters import Clusters
from vecdb.analysis.histogram import Histogram
from vecdb.analysis.predict import Prediction
from vecdb.diagnosis import Diagnosis, Finding
from vecdb.evaluation.advice import Advice, Option
from vecdb.evaluation.report import Evaluation, System
from vecdb.evaluation.shorter import Shorter
from vecdb.evaluation.significance import Comparison, Estimate
from vecdb.evaluation.verdict import Pair
from vecdb.facets import Facets
from vecdb.query import build
from vecdb.reports import plots
from vecdb.snapshot import Snapshot, SnapshotCollection
from vecdb.standing.log import LogEntry, SearchLog
from vecdb.standing.replay import Replayed, ReplayReport
from vecdb.standing.saved import SavedSearch, Searches
from vecdb.standing.watch import Watch, WatchBatch

QUERIES = (
    "Near", "Like", "Context", "Text", "Sparse", "Late", "Fuse", "Rerank", "Decay", "Field", "Query",
)  # fmt: skip

PAGE: Final = Path(__file__).with_name("reference.md")
WIDTH: Final = 96
INTRODUCTION: Final = """\
# Reference

Every public name, from its docstring: `docs/make_reference.py` writes this page. The guide begins at
[start.md](start.md); the command line is in [cli.md](cli.md), limits are in [limits.md](limits.md).
Every class of error is under [Errors](#errors). Shapes: `n` rows, `d` dimensions, `k` results, `b`
queries.
"""

# By heading: a sentence, and what stands there: names of `vecdb`, or pairs of name and object.
Entry = tuple[str, Any]


def sections() -> Iterator[tuple[str, str, list[Entry]]]:
    """The page in the order of use; tests/rules/test_reference.py: no public name is left out."""
    yield "Open and repair", "", of_vecdb("open", "repair", "from_hnswlib")
    yield "Databases", "", [*of_vecdb("Database"), ("Snapshot", Snapshot)]
    yield "Declarations", "", of_vecdb(
        "Vector", "SparseVector", "FullText", "Indexed", "Partition", "Unindexed", "Geo"
    )
    yield "Collections", "", of_vecdb("Collection")
    yield (
        "Collections of a snapshot",
        "The verbs of a collection that read and search; those that write raise ReadOnly.",
        [("SnapshotCollection", SnapshotCollection)],
    )
    yield "Results", "", [*of_vecdb("Record", "Hit", "Hits", "Group", "Explanation", "Plan",
                                      "PreparedSearch", "Problem"), ("Facets", Facets),
                          ("Histogram", Histogram), ("Clusters", Clusters),
                          ("Prediction", Prediction)]  # fmt: skip
    yield "Kept searches", "", [("Searches", Searches), ("SavedSearch", SavedSearch), ("Watch", Watch),
                                ("WatchBatch", WatchBatch), ("SearchLog", SearchLog),
                                ("LogEntry", LogEntry),
                                ("ReplayReport", ReplayReport), ("Replayed", Replayed)]  # fmt: skip
    yield "Evaluation", "How to read it is in [choosing.md](choosing.md).", [
        *of_vecdb("evaluate"), ("Evaluation", Evaluation), ("System", System), ("Estimate", Estimate),
        ("Comparison", Comparison), ("Pair", Pair),
    ]  # fmt: skip
    yield "Diagnosis", "How to read it is in [diagnosing.md](diagnosing.md).", [
        *of_vecdb("diagnose"), ("Diagnosis", Diagnosis), ("Finding", Finding),
    ]  # fmt: skip
    yield (
        "Adapters",
        "The guide is [adapting.md](adapting.md).",
        [
            *of_vecdb("fit_adapter"), ("Adapter", Adapter), ("AdapterReport", AdapterReport),
            ("Change", Change),
        ],
    )
    yield (
        "Cheaper vectors",
        "[judging.md](judging.md) shows them at work.",
        [*of_vecdb("advise"), ("Advice", Advice), ("Option", Option), ("Shorter", Shorter)],
    )
    yield (
        "Reports",
        "`vecdb.reports`; [judging.md](judging.md#reports) makes one.",
        [(f"reports.{name}", getattr(reports_of, name)) for name in reports_of.__all__]
        + [(f"reports.plots.{name}", getattr(plots, name))
           for name in ("intervals", "histogram", "curve", "points")],
    )  # fmt: skip
    yield (
        "Filters",
        "`vecdb.F` gives fields: `F.year`, `F[\"any name\"]`, `F.a.b`. Comparisons and the methods "
        "below make filters, which `&`, `|` and `~` combine. [filters.md](filters.md) has all three "
        "notations.",
        [("query.build.Field", build.Field), ("query.Filter", query.Filter),
         ("query.parse", query.parse), ("query.from_dict", query.from_dict),
         ("query.from_json", query.from_json)],
    )  # fmt: skip
    yield (
        "Queries",
        "`vecdb.query`; each is an immutable value, alone or inside another one, and is given to "
        "`search` and its kin. [queries.md](queries.md) shows them at work.",
        [("ById", vecdb.ById), *((f"query.{name}", getattr(query, name)) for name in QUERIES)],
    )
    yield (
        "Encoders",
        "`vecdb.encoders`; [encoders.md](encoders.md) says when to use which.",
        [(f"encoders.{name}", getattr(encoders, name)) for name in encoders.__all__],
    )
    yield (
        "Fine-tuning",
        "[encoders.md](encoders.md#fine-tuning) shows it at work.",
        [*of_vecdb("fine_tune"), ("FineTuning", FineTuning)],
    )
    yield (
        "Tables and files",
        "`Collection.add_table` and `.to_arrow`, and `vecdb.tables` for files.",
        [(f"tables.{name}", getattr(tables, name)) for name in tables.__all__],
    )
    yield (
        "Errors",
        "`vecdb.errors`, one tree under `VecdbError`: misuse, environment, damage. A message names "
        "the object, the limit and the remedy.",
        [(f"errors.{name}", getattr(errors, name)) for name in by_kind(errors.__all__)],
    )
    yield "What repair tells", "", reports()


def of_vecdb(*names: str) -> list[Entry]:
    return [(name, getattr(vecdb, name)) for name in names]


def by_kind(names: list[str]) -> list[str]:
    """Errors in the order of their definition: the base, misuse, environment, damage."""
    source = inspect.getsource(errors)
    return sorted(names, key=lambda name: source.index(f"class {name}("))


def reports() -> list[Entry]:
    module = sys.modules[repair.__module__]
    return [(f"repair.{name}", getattr(module, name)) for name in ("Report", "Saved", "Lost")]


CONSTANTS: Final = {
    "F": "gives fields for filters, see [Filters](#filters)",
    "REMOVE": "as a value in `update(metadata=...)`: take this key away",
    "FORMAT_VERSION": "the number of the file format that this version writes; vecdb/FORMAT.md",
    "__version__": "the version of the package, a str",
    "VecdbError": "the base of all errors, see [Errors](#errors)",
    "encoders": "what turns texts into vectors, see [Encoders](#encoders)",
    "errors": "all classes of errors, see [Errors](#errors)",
}


# --- what an entry looks like --------------------------------------------------------------------


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, contents()]
    for heading, sentence, entries in sections():
        parts.append(f"## {heading}\n" + (f"\n{wrapped(sentence)}\n" if sentence else ""))
        parts += [entry(name, thing) for name, thing in entries]
    parts.append("## Other names\n\n" + "".join(f"- `vecdb.{n}`: {w}.\n" for n, w in CONSTANTS.items()))
    return "\n".join(parts)


def contents() -> str:
    lines = [
        f"- [{heading}](#{heading.lower().replace(' ', '-')}): {', '.join(f'`{n}`' for n, _ in entries)}"
        for heading, _, entries in sections()
    ]
    return "\n".join([*lines, "- [Other names](#other-names)", ""])


def entry(name: str, thing: Any) -> str:
    """A function, or a class with what it offers."""
    parts = [f"### {name}\n", described(name.rpartition(".")[2], thing, name)]
    if inspect.isclass(thing):
        for each, member in members(thing):
            parts.append(f"#### {name.rpartition('.')[2]}.{each}\n")
            parts.append(described(each, member, f"{thing.__name__}.{each}"))
    return "\n".join(parts)


def described(name: str, thing: Any, where: str) -> str:
    doc = inspect.getdoc(thing)
    assert doc, f"{where} has no docstring"
    prose, example = divided(doc)
    written = signature(name, thing)
    parts = [f"```python\n{written}\n```\n"] if written else []
    parts += [plain(prose.strip()) + "\n"] if prose.strip() else []
    parts += [f"```pycon\n{example.rstrip()}\n```\n"] if example else []
    return "\n".join(parts)


def plain(prose: str) -> str:
    """What looks like markup outside of code, as text."""
    parts = prose.split("`")
    parts[::2] = [re.sub(r"<(?=\w)", "&lt;", part) for part in parts[::2]]
    return "`".join(parts)


def divided(doc: str) -> tuple[str, str]:
    """The sentences of a docstring, and its example."""
    at = doc.find(">>>")
    prose, example = (doc, "") if at < 0 else (doc[:at], doc[at:])
    return prose, re.sub(r" *# doctest: .*", "", example)


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties in the order of their definition, a base's after its own."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("vecdb") or cls.__name__ == "SnapshotCollection":
            continue
        for name, member in vars(base).items():
            hidden = name.startswith("_") and (cls, name) != (vecdb.PreparedSearch, "__call__")
            kind = inspect.isfunction(member) or isinstance(member, property)
            if hidden or not kind or name in seen or issubclass(cls, Exception):
                continue
            seen.add(name)
            yield name, member


def signature(name: str, thing: Any) -> str:
    """How it is called, as it is written in the source, one argument a line where it is long."""
    if isinstance(thing, property) or (inspect.isclass(thing) and not constructible(thing)):
        return ""
    parameters = list(inspect.signature(thing).parameters.values())
    if not inspect.isclass(thing) and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    shown, starred = [], False
    for at, each in enumerate(parameters):
        if each.kind is each.KEYWORD_ONLY and not starred:
            shown.append("*")
            starred = True
        shown.append(argument(each))
        after = parameters[at + 1].kind if at + 1 < len(parameters) else None
        if each.kind is each.POSITIONAL_ONLY and after is not each.POSITIONAL_ONLY:
            shown.append("/")
    gives = getattr(thing, "__annotations__", {}).get("return")
    if gives is not None and hasattr(thing, "__wrapped__"):  # made by contextmanager
        gives = gives.replace("Iterator[", "AbstractContextManager[")
    arrow = f" -> {gives}" if gives not in (None, "None") and not inspect.isclass(thing) else ""
    name = name.removeprefix("__call__") or "prepared"
    line = f"{name}({', '.join(shown)}){arrow}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n" + "".join(f"    {each},\n" for each in shown) + f"){arrow}"


def argument(parameter: inspect.Parameter) -> str:
    written = parameter.name
    if parameter.annotation is not parameter.empty:
        written += f": {parameter.annotation}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        spaced = " = " if parameter.annotation is not parameter.empty else "="
        written += spaced + (default if len(default) < 40 else "...")
    return written


def constructible(cls: type) -> bool:
    """Whether users call the class; the others are made by verbs."""
    return cls in (
        vecdb.Vector, vecdb.SparseVector, vecdb.FullText, vecdb.Indexed, vecdb.Partition, vecdb.Unindexed,
        encoders.Card,
    )  # fmt: skip


def wrapped(text: str) -> str:
    import textwrap

    return textwrap.fill(text, WIDTH)


if __name__ == "__main__":
    made = page()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == made else f"{PAGE} is not up to date")
    PAGE.write_text(made, encoding="utf-8")
