"""What does a table look like from here, whoever made it? Pieces: names, rows, columns.

`pieces(table)` takes what `add_table` takes and yields `Piece`s, each some consecutive rows:

    ArrowPiece   an array of a PyCapsule stream (pyarrow, polars, duckdb, ...), no Arrow needed
    FramePiece   a pandas DataFrame, column by column
    DictPiece    rows that are dicts

Invariants:
  S1  a cell that is null (Arrow's null, pandas' NA, NaT, and NaN where it is no number) is None
      here and left out of metadata; a None inside a dict that the user wrote stays a None;
  S2  NaN in a column of floats is a number.

Rejected: pandas through its own Arrow stream. It needs pyarrow, and turns NaN into null.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from vecdb.tables import decode
from vecdb.tables.capsule import Node, Stream, from_array, refuse
from vecdb.tables.files import TableFile

if TYPE_CHECKING:
    import numpy.typing as npt

DICTS_AT_ONCE: Final = 1_000

Matrix = tuple["npt.NDArray[Any]", "npt.NDArray[np.bool_] | None"]


class Piece(Protocol):
    """Some consecutive rows of a table."""

    rows: int
    names: list[str]

    def column(self, name: str, first: int, last: int) -> list[Any]: ...
    def matrix(self, name: str, first: int, last: int, row: int) -> Matrix: ...
    def metadata(self, names: Sequence[str], first: int, last: int) -> list[dict[str, Any]]: ...


def pieces(table: Any) -> Iterator[Piece]:
    """The pieces of anything that `add_table` takes; InvalidArgument for what it does not."""
    if isinstance(table, str | bytes | Mapping) or hasattr(table, "__fspath__"):
        refuse(
            f"a {type(table).__name__} is no table; give an Arrow table or stream, a pandas or "
            "polars DataFrame, or an iterable of dicts (for a file: vecdb.tables.read(path))"
        )
    if _is_pandas(table):
        return _one(FramePiece(table))
    if hasattr(table, "__arrow_c_stream__"):
        return _streamed(table)
    if hasattr(table, "__arrow_c_array__"):
        return _one(ArrowPiece(from_array(table)))
    if not isinstance(table, Iterable):
        refuse(
            f"a {type(table).__name__} is no table; give an Arrow table or stream, a pandas or "
            "polars DataFrame, or an iterable of dicts"
        )
    header = table.columns if isinstance(table, TableFile) and table.format == "csv" else []
    return _iterated(iter(table), header)


def _one(piece: Piece) -> Iterator[Piece]:
    yield piece


def total_of(table: Any) -> int | None:
    """How many rows a table has, where that can be known beforehand."""
    try:
        found = len(table)
    except TypeError:
        return None
    if isinstance(table, list | tuple) and found and not isinstance(table[0], Mapping):
        try:
            return sum(map(len, table))  # batches
        except TypeError:
            return None
    return found


def _iterated(items: Iterator[Any], header: list[str]) -> Iterator[Piece]:
    """Dicts, or batches and tables one after the other; `header`: columns that may be empty."""
    row = 0
    while chunk := list(islice(items, 1)):
        head = chunk[0]
        if not isinstance(head, Mapping):
            if not (hasattr(head, "__arrow_c_array__") or hasattr(head, "__arrow_c_stream__")):
                refuse(f"row {row} is a {type(head).__name__}, not a dict")
            for piece in pieces(head):
                yield piece
                row += piece.rows
            continue
        chunk += islice(items, DICTS_AT_ONCE - 1)
        for at, item in enumerate(chunk):
            if not isinstance(item, Mapping):
                refuse(f"row {row + at} is a {type(item).__name__}, not a dict")
        yield DictPiece(chunk, header)
        row += len(chunk)


def _streamed(table: Any) -> Iterator[Piece]:
    stream = Stream(table)
    try:
        if not decode.is_table(stream.field):
            refuse("the Arrow stream gives single columns; give a table")
        for node in stream:
            yield ArrowPiece(node)
    finally:
        stream.close()


# --- Arrow -------------------------------------------------------------------------------


class ArrowPiece:
    """One array of structs, looked at where it lies."""

    def __init__(self, node: Node) -> None:
        if not decode.is_table(node.field):
            refuse("an Arrow array that is no record batch; give a table")
        self.rows = node.length
        self._start = node.offset
        self._columns = {child.field.name: child for child in node.children}
        self.names = decode.unique([child.field.name for child in node.children], "")
        present = decode.mask(node, 0, node.length, "")
        if present is not None:
            refuse(f"row {node.held.first + int(np.argmin(present))} is null as a whole")

    def column(self, name: str, first: int, last: int) -> list[Any]:
        return decode.values(self._columns[name], self._start + first, self._start + last, name)

    def matrix(self, name: str, first: int, last: int, row: int) -> Matrix:
        begin, end = self._start + first, self._start + last
        found = decode.matrix(self._columns[name], begin, end, name)
        return found or stacked(self.column(name, first, last), name, row)

    def metadata(self, names: Sequence[str], first: int, last: int) -> list[dict[str, Any]]:
        return _joined(self, names, first, last)


# --- pandas ------------------------------------------------------------------------------


def _is_pandas(table: Any) -> bool:
    module = sys.modules.get("pandas")
    return module is not None and isinstance(table, module.DataFrame)


class FramePiece:
    """A pandas DataFrame; a named index is a column too."""

    def __init__(self, frame: Any) -> None:
        if frame.index.name is not None and frame.index.name not in frame.columns:
            frame = frame.reset_index()
        for name in frame.columns:
            if not isinstance(name, str):
                refuse(f"the column {name!r} is named by a {type(name).__name__}; name it by a str")
        self.rows = len(frame)
        self.names = decode.unique(list(frame.columns), "")
        self._frame = frame

    def column(self, name: str, first: int, last: int) -> list[Any]:
        series = self._frame[name].iloc[first:last]
        kind = getattr(series.dtype, "kind", "O")
        if isinstance(series.dtype, np.dtype) and kind in "biuf":
            return series.to_numpy().tolist()  # type: ignore[no-any-return]
        missing = series.isna().to_numpy()
        if kind == "M":
            return _moments(series, missing, name, first)
        return [
            None if absent else _plain(value)
            for value, absent in zip(series.tolist(), missing.tolist(), strict=True)
        ]

    def matrix(self, name: str, first: int, last: int, row: int) -> Matrix:
        return stacked(self._frame[name].iloc[first:last].tolist(), name, row)

    def metadata(self, names: Sequence[str], first: int, last: int) -> list[dict[str, Any]]:
        return _joined(self, names, first, last)


def _moments(series: Any, missing: Any, name: str, first: int) -> list[Any]:
    if missing.all():
        return [None] * len(series)
    if series.dt.tz is None:
        refuse(
            f"column {name!r} is a timestamp without a time zone; say which one it is in with "
            "dt.tz_localize"
        )
    uneven = np.flatnonzero((series.dt.nanosecond.to_numpy() != 0) & ~missing)
    if len(uneven):
        refuse(
            f"column {name!r}: row {first + int(uneven[0])} has nanoseconds; rows keep "
            "microseconds: round the column first with dt.floor('us')"
        )
    return [
        None if absent else moment.to_pydatetime()
        for moment, absent in zip(series.tolist(), missing.tolist(), strict=True)
    ]


def _plain(value: Any) -> Any:
    """Arrays inside a cell as lists, as readers of files leave them there."""
    if isinstance(value, np.ndarray):
        return [_plain(inner) for inner in value.tolist()]
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    return value


# --- dicts -------------------------------------------------------------------------------


class DictPiece:
    """Rows that are dicts; the columns are those of the header and the keys of all rows."""

    def __init__(self, rows: list[Mapping[str, Any]], header: list[str]) -> None:
        self.rows = len(rows)
        self.names = list(dict.fromkeys([*header, *(key for row in rows for key in row)]))
        self._rows = rows

    def column(self, name: str, first: int, last: int) -> list[Any]:
        return [row.get(name) for row in self._rows[first:last]]

    def matrix(self, name: str, first: int, last: int, row: int) -> Matrix:
        return stacked(self.column(name, first, last), name, row)

    def metadata(self, names: Sequence[str], first: int, last: int) -> list[dict[str, Any]]:
        wanted = set(names)
        return [
            {key: value for key, value in row.items() if key in wanted}
            for row in self._rows[first:last]
        ]


# --- what they share ---------------------------------------------------------------------


def _joined(piece: Piece, names: Sequence[str], first: int, last: int) -> list[dict[str, Any]]:
    """Columns as one dict a row, without what is null."""
    found: list[dict[str, Any]] = [{} for _ in range(first, last)]
    for name in names:
        for row, value in zip(found, piece.column(name, first, last), strict=True):
            if value is not None:
                row[name] = value
    return found


def stacked(values: list[Any], name: str, row: int) -> Matrix:
    """One vector a value as (n, d), and which rows have one; `row` is the first one's number."""
    present = np.array([not _is_missing(value) for value in values], np.bool_)
    there = [value for value, is_there in zip(values, present, strict=True) if is_there]
    numbers = np.flatnonzero(present).tolist()
    size = -1
    for at, value in zip(numbers, there, strict=True):
        length = _length(value, f"vector column {name!r}: row {row + at}")
        if size not in (-1, length):
            first = row + numbers[0]
            refuse(
                f"vector column {name!r}: row {row + at} has {length} numbers, "
                f"row {first} has {size}"
            )
        size = length
    if not there:
        return np.zeros((len(values), 0)), present
    try:
        array = np.asarray(there)
    except (ValueError, TypeError):
        array = np.asarray(there, object)
    if array.dtype.kind not in "fiub" or array.ndim != 2:
        for at, value in zip(numbers, there, strict=True):
            if np.asarray(value).dtype.kind not in "fiub" or np.ndim(value) != 1:
                refuse(f"vector column {name!r}: row {row + at} is no list of real numbers")
        refuse(f"vector column {name!r} is no column of real numbers")
    if present.all():
        return array, None
    spread = np.zeros((len(values), size), array.dtype)
    spread[present] = array
    return spread, present


def _is_missing(value: Any) -> bool:
    """None, pandas' NA, and NaN in place of a list."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)


def _length(value: Any, place: str) -> int:
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__"):
        refuse(f"{place} holds a {type(value).__name__} where a vector belongs")
    return len(value)
