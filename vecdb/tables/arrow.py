"""Which Arrow table holds these rows? Types are read off the values; nothing is guessed or lost.

    str, bool, int, float   string, bool, int64, double
    datetime                timestamp[us, UTC]: the instant, not the offset
    list                    list of the elements' type
    dict                    struct of all keys that appear; a key that a row lacks is null
    numpy array (d,)        fixed_size_list[d] of its dtype
    numpy array (m, d)      list of those: a field of many vectors a row
    a sparse vector         list of structs {token, weight}: all tokens of a column str, or all int
    None, missing           null

Invariants:
  X1  a column of two types is refused, with its name, both types and the first row of the second;
      only ints among floats become floats, and only where each is within 2**53, thus exact;
  X2  reading a table back (`add_table`) gives equal rows, but for None, which reads as missing.

`Columns` takes rows one by one, so that a file is written in two passes of constant memory.

Rejected: a column's own offset as its zone. polars knows no "+02:00" and would read nothing.
Rejected: letting pyarrow infer. It refuses ints among floats or not by their order, and its message
for a mixed column names neither column nor row.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.types import Record

if TYPE_CHECKING:
    import pyarrow as pa

_NAMES = {
    "bool": "a bool", "int": "an int", "float": "a float", "str": "a str",
    "datetime": "a datetime", "list": "a list", "dict": "a dict", "vector": "an array",
    "vectors": "an array of arrays",
}  # fmt: skip


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Return rows as an Arrow table, one column per key in order of appearance.

    Values: what metadata holds, and numpy arrays of shape (d,) or (m, d). InvalidArgument for a
    column of two types (rows counted from 0), and where pyarrow is not installed. Memory: the table.

    >>> table_of([{"id": "a", "n": 1}, {"id": "b"}]).to_pylist()
    [{'id': 'a', 'n': 1}, {'id': 'b', 'n': None}]
    """
    return Columns.of(rows).table(rows)


def collection_table(records: Iterable[Record], fields: Iterable[str]) -> pa.Table:
    """Records with these vector fields as a table; `text` is a column only if a row has one."""
    arrow()
    kept, names = list(records), list(fields)
    text = "text" if any(record.text is not None for record in kept) else None
    rows = [row_of(record, names, text=text) for record in kept]
    columns = Columns.of(rows)
    columns.first(("id", "text", *names))
    return columns.table(rows)


def row_of(
    record: Record, fields: Iterable[str], *, id: str = "id", text: str | None = "text"
) -> dict[str, Any]:
    """A record as one flat dict: id, text, vectors of the fields, then metadata; no name twice."""
    row: dict[str, Any] = {id: record.id}
    if text is not None and record.text is not None:
        row[text] = record.text
    row.update((field, _cell(record.vectors[field])) for field in fields if field in record.vectors)
    reserved = {id, text, *fields}
    for key, value in record.metadata.items():
        if key in reserved:
            _refuse(
                f"row {record.id!r}: the metadata key {key!r} has the name of the column for its "
                f"{'id' if key == id else 'text' if key == text else 'vectors'}; rename the key, "
                "or, for a file, the column"
            )
        row[key] = value
    return row


def _cell(vector: Any) -> Any:
    """A vector as a cell: a sparse one is a list, as its tokens are values and no names of columns."""
    if not isinstance(vector, dict):
        return vector
    return [{"token": token, "weight": weight} for token, weight in vector.items()]


# --- types from values -------------------------------------------------------------------


class Columns:
    """What the columns of some rows are, learnt row by row."""

    def __init__(self) -> None:
        self.known: dict[str, _Column] = {}

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Columns:
        """The columns of these rows."""
        columns = cls()
        for row, values in enumerate(rows):
            columns.note(values, row)
        return columns

    def note(self, values: dict[str, Any], row: int) -> None:
        """Learn one row; InvalidArgument when it contradicts those before."""
        for name, value in values.items():
            column = self.known.get(name)
            if column is None:
                column = self.known[name] = _Column(name)
            column.note(value, row)

    def first(self, names: Iterable[str]) -> None:
        """Put these columns before the others."""
        ahead = {name: self.known[name] for name in names if name in self.known}
        self.known = {**ahead, **self.known}

    def check(self, rows: list[dict[str, Any]]) -> None:
        """Refuse rows of other columns than those that are known: written since they were read."""
        for row in rows:
            for name in row:
                if name not in self.known:
                    _refuse(f"the key {name!r} came while the file was being written; export again")

    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows noted so far."""
        pa = arrow()
        return pa.schema([(name, column.type(pa)) for name, column in self.known.items()])

    def table(self, rows: list[dict[str, Any]]) -> pa.Table:
        """Rows that were noted, as a table of these columns."""
        pa = arrow()
        arrays = [
            column.array(pa, [row.get(name) for row in rows]) for name, column in self.known.items()
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema())


class _Column:
    """One column's type so far."""

    __slots__ = ("dtype", "fields", "first", "inexact", "items", "kind", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self.kind: str | None = None
        self.first = 0  # the row of the first value
        self.inexact: tuple[int, int] | None = (
            None  # the first int beyond floats: row, value
        )
        self.items: _Column | None = None  # of a list
        self.fields: dict[str, _Column] = {}  # of a dict
        self.dtype: np.dtype[Any] | None = None  # of arrays
        self.size = 0

    def note(self, value: Any, row: int) -> None:
        """Learn one value."""
        if value is None:
            return
        kind = kind_of(value)
        if kind is None:
            _refuse(
                f"column {self.path!r}: row {row} has a {type(value).__name__}, which no column holds"
            )
        if self.kind is None:
            self.kind, self.first = kind, row
            self._begin(value)
        elif kind != self.kind:
            self._join(kind, row)
        if kind == "int" and self.inexact is None and not _exact(value):
            self.inexact = (row, int(value))
        if self.kind == "float" and self.inexact is not None:
            _refuse(
                f"column {self.path!r}: row {self.inexact[0]} has {self.inexact[1]}, an int beyond "
                f"2**53, and the column has floats; store one kind, or strings"
            )
        self._inside(value, row)

    def _begin(self, value: Any) -> None:
        if self.kind in ("vector", "vectors"):
            self.dtype, self.size = value.dtype, value.shape[-1]
        elif self.kind == "list":
            self.items = _Column(f"{self.path}[]")

    def _join(self, kind: str, row: int) -> None:
        if {kind, self.kind} == {"int", "float"}:
            self.kind = "float"
            return
        _refuse(
            f"column {self.path!r}: row {row} has {_NAMES[kind]}, row {self.first} "
            f"{_NAMES[self.kind or 'str']}; an Arrow column is of one type: choose rows with where=, "
            "or export JSON lines, which hold both"
        )

    def _inside(self, value: Any, row: int) -> None:
        if self.dtype is not None and (value.dtype, value.shape[-1]) != (self.dtype, self.size):
            _refuse(
                f"column {self.path!r}: row {row} has {value.shape[-1]} numbers of {value.dtype}, row "
                f"{self.first} {self.size} of {self.dtype}"
            )
        elif self.kind == "list" and self.items is not None:
            for item in value:
                self.items.note(item, row)
        elif self.kind == "dict":
            for name, inner in value.items():
                if name not in self.fields:
                    self.fields[name] = _Column(f"{self.path}.{name}")
                self.fields[name].note(inner, row)

    def type(self, pa: Any) -> Any:
        """The Arrow type."""
        if self.kind == "datetime":
            return pa.timestamp("us", "UTC")
        if self.kind == "list" and self.items is not None:
            return pa.list_(self.items.type(pa))
        if self.kind == "dict":
            return pa.struct([(name, field.type(pa)) for name, field in self.fields.items()])
        if self.dtype is not None:
            vector = pa.list_(pa.from_numpy_dtype(self.dtype), self.size)
            return vector if self.kind == "vector" else pa.list_(vector)
        plain = {
            "bool": pa.bool_, "int": pa.int64, "float": pa.float64, "str": pa.string, None: pa.null,
        }  # fmt: skip
        return plain[self.kind]()

    def array(self, pa: Any, values: list[Any]) -> Any:
        """Values as an array of the type."""
        if self.dtype is None:
            return pa.array(values, self.type(pa), from_pandas=False)
        absent = np.array([value is None for value in values], np.bool_)
        if self.kind == "vectors":
            return self._many(pa, values, absent)
        filled = np.zeros((len(values), self.size), self.dtype)
        if not absent.all():
            filled[~absent] = [value for value in values if value is not None]
        return pa.FixedSizeListArray.from_arrays(
            pa.array(filled.reshape(-1)), type=self.type(pa), mask=pa.array(absent)
        )

    def _many(self, pa: Any, values: list[Any], absent: Any) -> Any:
        there = [value for value in values if value is not None]
        flat = np.concatenate(there) if there else np.empty((0, self.size), self.dtype)
        lengths = [0 if value is None else len(value) for value in values]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        inner = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), self.size)
        return pa.ListArray.from_arrays(offsets, inner, mask=pa.array(absent)).cast(self.type(pa))


def kind_of(value: Any) -> str | None:
    """What a value is to a table; None for what no row holds."""
    if isinstance(value, np.ndarray):
        return {1: "vector", 2: "vectors"}.get(value.ndim)
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int"
    if isinstance(value, float | np.floating):
        return "float"
    if isinstance(value, str):
        return "str"
    if isinstance(value, datetime):
        return "datetime"
    if isinstance(value, list | tuple):
        return "list"
    return "dict" if isinstance(value, dict) else None


def _exact(value: int) -> bool:
    """Whether a float surely equals this int: beyond 2**53 Arrow converts none."""
    return -(1 << 53) <= value <= 1 << 53


def arrow() -> Any:
    """pyarrow, or InvalidArgument that says how to get it."""
    try:
        import pyarrow
    except ImportError:
        _refuse(
            "an Arrow table needs pyarrow, not installed here: pip install 'vecdb-engine[arrow]'"
        )
    return pyarrow


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
