"""How does a row become a line of CSV, and back? By one rule for every cell, which loses nothing.

The header names the columns. A cell is

    empty                               the row lacks this key
    a JSON number, true, false or null  that value: 1999, 0.5, 1e3
    a JSON list, object or string       that value, with the marks of marks.py for dates and NaN:
                                        ["a", "b"], {"$datetime": "2020-01-01T00:00:00+00:00"}
    anything else                       the text itself

A text that would be read as one of the first three is written as a JSON string: the text 1999 as
"1999" (in quotes, which CSV doubles), the empty text as "". So `001` and `1,5` stay texts. With
`strings=True` a file is read without the rule: every cell but those of the vectors is text, and an
empty one is missing.

Invariants:
  V1  a row reads back equal and of the same types, whatever the metadata;
  V2  reading holds one row in memory; an error names file, line and column.

Rejected: guessing a column's type from its first cells. The guess is wrong at row 10,001.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Final, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.tables import marks
from vecdb.tables.jsonl import cell as json_cell

LONGEST_CELL: Final = 64 << 20  # characters: above the limits of texts, vectors and metadata

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS: Final = {"true": True, "false": False, "null": None}


def write(rows: Iterable[dict[str, Any]], out: IO[str], columns: Sequence[str]) -> None:
    """Write a header and flat rows; InvalidArgument for a key that is no column."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    known = set(columns)
    for row in rows:
        for name in row:
            if name not in known:
                _refuse(f"the key {name!r} came while the file was being written; export again")
        writer.writerow([written(row[name]) if name in row else "" for name in columns])


def written(value: Any) -> str:
    """A value as a cell.

    >>> written(1999), written("1999"), written("a"), written("")
    ('1999', '"1999"', 'a', '""')
    """
    if isinstance(value, str) and not _is_json(value):
        return value
    return json_cell(value)


def understood(text: str) -> Any:
    """The value of a cell that is not empty; ValueError says what is wrong with a mark.

    >>> understood("1999"), understood('"1999"'), understood("001"), understood("[a")
    (1999, '1999', '001', '[a')
    """
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return marks.parsed(text)
    found = _structure(text)
    return text if found is None else marks.unmarked(found)


def _is_json(text: str) -> bool:
    """Whether the rule reads a cell as JSON, not as text."""
    if not text or text in _WORDS or _NUMBER.fullmatch(text):
        return True
    return _structure(text) is not None


def _structure(text: str) -> Any:
    """The list, object or string that a cell spells; None when it spells none."""
    if text[0] not in '[{"' or text[-1] not in ']}"':
        return None
    try:
        return marks.parsed(text)
    except ValueError:
        return None


def read(
    lines: IO[str], name: str, *, strings: bool = False, vectors: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """The rows of a file, after its header."""
    if csv.field_size_limit() < LONGEST_CELL:  # one limit for the process; it is only ever raised
        csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(lines, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
        except UnicodeDecodeError as error:
            _refuse(f"{name}: line {reader.line_num + 1} or soon after is no UTF-8: {error}")
        except csv.Error as error:
            _refuse(f"{name}: line {reader.line_num}: {error}")
        if cells is None:
            return
        if header is None:
            header = _header(cells, name)
        elif cells:
            yield _row(cells, header, name, reader.line_num, strings, vectors)


def columns(lines: IO[str], name: str) -> list[str]:
    """The header alone."""
    try:
        cells = next(csv.reader(lines, strict=True), None)
    except (UnicodeDecodeError, csv.Error) as error:
        _refuse(f"{name}: line 1: {error}")
    return [] if cells is None else _header(cells, name)


def _header(cells: list[str], name: str) -> list[str]:
    for column in cells:
        if cells.count(column) > 1:
            _refuse(f"{name}: line 1: two columns are named {column!r}; rename one")
    return cells


def _row(
    cells: list[str], header: list[str], name: str, line: int, strings: bool, vectors: Sequence[str]
) -> dict[str, Any]:
    if len(cells) != len(header):
        _refuse(f"{name}: line {line} has {len(cells)} cells, the header {len(header)}")
    row: dict[str, Any] = {}
    for column, text in zip(header, cells, strict=True):
        if not text:
            continue
        if strings and column not in vectors:
            row[column] = text
            continue
        try:
            row[column] = understood(text)
        except ValueError as error:
            _refuse(f"{name}: line {line}: column {column!r}: {error}")
    return row


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
