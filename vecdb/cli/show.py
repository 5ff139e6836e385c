"""How results look: tables for people, JSON for programs.

Invariants (checked by tests/cli/test_commands.py):
  1. What comes from a database is printed as it is, never interpreted: no markup, and control
     characters (a terminal would obey them) become spaces.
  2. JSON is valid for every value that metadata can hold: a datetime is {"$datetime": ...} as
     in filters, NaN and the infinities, which JSON lacks, are strings.
  3. Without a terminal there are neither colours nor progress bars, and lines stay whole.
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

    from vecdb import Hit, Hits, Record

__all__ = [
    "clean",
    "console",
    "fields",
    "hit_ready",
    "hits_table",
    "json_ready",
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
    """Print a table: numbers to the right; a terminal's width cuts the last column only."""
    from rich.cells import cell_len, set_cell_size

    listed = [list(row) for row in rows]
    cells = [list(map(clean, columns)), *([_cell(value) for value in row] for row in listed)]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(columns))]
    if out.is_terminal:
        room = out.width - sum(widths[:-1]) - len(GAP) * (len(columns) - 1)
        widths[-1] = min(widths[-1], max(room, NARROWEST))
    numeric = [
        all(isinstance(row[i], int | float) for row in listed) for i in range(len(columns))
    ]
    for row in cells:
        line = ""
        for text, width, right in zip(row, widths, numeric, strict=True):
            if cell_len(text) > width:
                text = set_cell_size(text, width - 1) + "…"
            blank = " " * (width - cell_len(text))
            line += GAP + (blank + text if right else text + blank)
        out.print(line.removeprefix(GAP).rstrip(), style="bold" if row is cells[0] else None)


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
    """Print hits as rank, score, id and the beginning of the text, or else the metadata."""
    rows = [(rank, f"{hit.score:.3f}", hit.id, _gist(hit)) for rank, hit in enumerate(hits, 1)]
    table(out, ("#", "score", "id", "text" if any(h.text for h in hits) else "metadata"), rows)


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
    """Return a hit as a dict for JSON."""
    return {"score": hit.score, "distance": hit.distance, **record_ready(hit)}


def record_ready(row: Hit | Record) -> dict[str, Any]:
    """Return a row as a dict for JSON."""
    return {"id": row.id, "metadata": row.metadata, "text": row.text}


def clean(text: str) -> str:
    """Return the text on one line, without anything that a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _gist(hit: Hit) -> str:
    if hit.text:
        return hit.text.removeprefix(f"{hit.id}: ")[:TEXT_WIDTH]
    return json.dumps(json_ready(hit.metadata), ensure_ascii=False)[:TEXT_WIDTH]


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else clean(str(value))


def _writable(value: Any) -> Any:
    """A lone surrogate cannot be written as UTF-8; it is replaced."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
