"""How do results look to people? Rows of text as a plain table, and as HTML for notebooks.

Everything that comes from rows is escaped here: a stored text is never markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

MAX_CHARS: Final = 200  # of a cell


def text_table(rows: Sequence[Sequence[str]], *, numbers: int = 0) -> list[str]:
    """Lines of cells in columns, the first `numbers` of them aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if at < numbers else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def html_table(
    headers: Iterable[str], rows: Iterable[Iterable[str]], *, caption: str = ""
) -> str:
    """An HTML table, every cell escaped and cut to MAX_CHARS."""
    head = "".join(f"<th>{_cell(name)}</th>" for name in headers)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(c)}</td>' for c in row)}</tr>" for row in rows)
    title = f"<caption>{_cell(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    from html import escape

    return escape(text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…")
