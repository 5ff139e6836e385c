"""How results look: tables for people, JSON for programs.

Invariants (checked by tests/cli/test_commands.py):
  1. What comes from a database is printed as it is, never interpreted: no markup, and control
     characters (a terminal would obey them) become spaces.
  2. JSON is valid for every value that metadata can hold: a datetime is {"$datetime": ...} as
     in filters, NaN and the infinities, which JSON lacks, are strings.
  3. Without a terminal there are neither colours nor progress bars, and lines stay whole; on one the words
     that a text search matched stand out.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text as RichText

    from vecdb import Hit, Hits, Record
    from vecdb.types import Explanation

__all__ = [
    "clean",
    "console",
    "explanation_ready",
    "fields",
    "groups_table",
    "hit_ready",
    "hits_table",
    "json_ready",
    "lines",
    "print_json",
    "progress",
    "record_ready",
    "table",
]

NARROWEST = 20  # columns that the last column keeps on a narrow terminal
GAP = "  "
TEXT_WIDTH = 200  # characters of a text that are shown of a row; a terminal cuts further


def console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, markup=False, highlight=False, emoji=False, soft_wrap=True)


def progress(out: Console) -> Progress:
    """Return a progress bar that stays invisible where there is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=out,
        disable=not out.is_terminal,
        transient=True,
    )


def table(out: Console, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table: numbers to the right; a terminal's width cuts the last column only.

    A cell is a value, or text of rich's, made of what was cleaned.
    """
    listed = [list(row) for row in rows]
    cells = [[_cell(value) for value in row] for row in ([*map(clean, columns)], *listed)]
    widths = [max(row[i].cell_len for row in cells) for i in range(len(columns))]
    if out.is_terminal:
        room = out.width - sum(widths[:-1]) - len(GAP) * (len(columns) - 1)
        widths[-1] = min(widths[-1], max(room, NARROWEST))
    numeric = [
        all(isinstance(row[i], int | float) for row in listed) for i in range(len(columns))
    ]
    for row in cells:
        line = row[0].blank_copy()
        for cell, width, right in zip(row, widths, numeric, strict=True):
            cell.truncate(width, overflow="ellipsis")
            blank = " " * (width - cell.cell_len)
            line.append(GAP if line else "")
            for part in (blank, cell) if right else (cell, blank):
                line.append(part)
        line.rstrip()
        out.print(line, style="bold" if row is cells[0] else None)


def lines(out: Console, text: str, *, indent: str = "", style: str | None = None) -> None:
    """Print text line by line, each with the blanks that it begins with."""
    for line in text.splitlines():
        begins = line[: len(line) - len(line.lstrip(" "))]
        out.print(f"{indent}{begins}{clean(line)}", style=style)


def fields(out: Console, rows: Sequence[tuple[str, Any]]) -> None:
    """Print names and values one below the other, values in full."""
    width = max((len(clean(name)) for name, _ in rows), default=0)
    for name, value in rows:
        shown = value if isinstance(value, str) else json.dumps(json_ready(value))
        lines = [clean(line) for line in shown.splitlines()] or [""]
        out.print(f"{clean(name):<{width}}  {lines[0]}")
        for line in lines[1:]:
            out.print(f"{'':<{width}}  {line}")


def hits_table(out: Console, hits: Hits) -> None:
    """Print hits as rank, score, id and what the text says, or else the metadata."""
    rows = [(rank, f"{hit.score:.3f}", hit.id, _gist(hit)) for rank, hit in enumerate(hits, 1)]
    table(out, ("#", "score", "id", _says(hits)), rows)


def groups_table(out: Console, field: str, hits: Hits) -> None:
    """Print hits in their groups: a group's rank and value stand beside its first hit."""
    rows = [
        ("" if at else f"{rank:,}", "" if at else _value(group.value), f"{hit.score:.3f}", hit.id, _gist(hit))
        for rank, group in enumerate(hits.groups, 1)
        for at, hit in enumerate(group.hits)
    ]
    table(out, ("#", field, "score", "id", _says(hits)), rows)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(json_ready(value), ensure_ascii=False, indent=2))


def json_ready(value: Any) -> Any:
    """Return metadata, or anything made of it, in JSON's types."""
    if isinstance(value, dict):
        return {str(key): json_ready(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [json_ready(inner) for inner in value]
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int):
        return _writable(value)
    return str(value)


def hit_ready(hit: Hit) -> dict[str, Any]:
    """Return a hit as a dict for JSON; `distance` is null unless one vector query ranked."""
    return {
        "score": hit.score,
        "distance": _distance(hit.distance),
        **record_ready(hit),
        "parts": [_part_ready(part) for part in hit.explain().parts],
        "highlights": [
            {"field": each.field, "text": each.text, "start": each.start, "spans": each.spans}
            for each in hit.highlights
        ],
    }


def explanation_ready(told: Explanation) -> dict[str, Any]:
    """Return what made a score as a dict for JSON, parts inside."""
    parts = [explanation_ready(part) for part in told.parts]
    return {**_part_ready(told), "boost": told.boost, "parts": parts}


def record_ready(row: Hit | Record) -> dict[str, Any]:
    """Return a row as a dict for JSON."""
    return {"id": row.id, "metadata": row.metadata, "text": row.text}


def clean(text: str) -> str:
    """Return the text on one line, without anything that a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _says(hits: Hits) -> str:
    """The heading of what `_gist` shows."""
    return "text" if any(hit.text or hit.highlights for hit in hits) else "metadata"


def _gist(hit: Hit) -> RichText | str:
    """What a hit says: where the words were found, or the beginning of its text, or its metadata."""
    if hit.highlights:
        return _highlighted(hit)
    if hit.text:
        return hit.text.removeprefix(f"{hit.id}: ")[:TEXT_WIDTH]
    return json.dumps(json_ready(hit.metadata), ensure_ascii=False)[:TEXT_WIDTH]


def _highlighted(hit: Hit) -> RichText:
    """The snippets of a hit, one behind the other, the words that matched in bold."""
    from rich.text import Text

    shown = Text()
    for each in hit.highlights:
        if shown:
            shown.append(" … ")
        after = 0  # of the last character that was put down
        named = f"{hit.id}: "
        if each.start == 0 and each.text.startswith(named):
            after = len(named)
        for start, end in each.spans:
            if end > after:
                start = max(start, after)
                shown.append(_spaced(each.text[after:start])).append(_spaced(each.text[start:end]), "bold")
                after = end
        shown.append(_spaced(each.text[after:]))
        if len(shown) > TEXT_WIDTH:
            break
    shown.truncate(TEXT_WIDTH)
    return shown


def _spaced(text: str) -> str:
    """A piece of a line, clean, with a blank where it begins or ends with one."""
    inner = clean(text)
    if not inner:
        return " " if text else ""
    first, last = text[0], text[-1]
    before = " " if first.isspace() or not first.isprintable() else ""
    return before + inner + (" " if last.isspace() or not last.isprintable() else "")


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(json_ready(value), ensure_ascii=False)


def _part_ready(told: Explanation) -> dict[str, Any]:
    return {
        "query": told.query, "rank": told.rank, "score": None if told.rank is None else told.score,
        "distance": _distance(told.distance),
    }  # fmt: skip


def _distance(distance: float) -> float | None:
    return None if math.isnan(distance) else distance


def _cell(value: Any) -> RichText:
    from rich.text import Text

    if isinstance(value, Text):
        return value
    return Text(f"{value:,}" if isinstance(value, int) else clean(str(value)))


def _writable(value: Any) -> Any:
    """A lone surrogate cannot be written as UTF-8; it is replaced."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
