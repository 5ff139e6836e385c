"""How do rows become a Parquet file, and back? As Arrow batches, through pyarrow (extra `arrow`).

Invariants:
  Q1  writing holds BATCH rows in memory: types are learnt in a first pass, rows written in a
      second;
  Q2  what Parquet cannot hold (a struct without a key, a column of two types) is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any, Final, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.tables.arrow import Columns, arrow

BATCH: Final = 4_096


def write(rows: Iterable[dict[str, Any]], out: IO[bytes], columns: Columns) -> None:
    """Write flat rows of columns that are known already."""
    pa = arrow()
    import pyarrow.parquet

    schema = columns.schema()
    for field in schema:
        _writable(pa, field.type, field.name)
    listed = iter(rows)
    with pyarrow.parquet.ParquetWriter(out, schema) as writer:
        while batch := list(islice(listed, BATCH)):
            columns.check(batch)
            writer.write_table(columns.table(batch))


def _writable(pa: Any, kind: Any, path: str) -> None:
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            raise InvalidArgument(
                f"column {path!r} holds only empty dicts, which Parquet cannot hold; export JSON lines"
            )
        for field in kind:
            _writable(pa, field.type, f"{path}.{field.name}")


def opened(path: str) -> Any:
    """A pyarrow ParquetFile; InvalidArgument when it is none."""
    arrow()
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        _refuse(f"{path} cannot be read as Parquet: {error}")


def read(path: str) -> Iterator[Any]:
    """The record batches of a file."""
    import pyarrow

    with opened(path) as file:
        try:
            yield from file.iter_batches(BATCH)
        except (pyarrow.ArrowException, OSError) as error:
            _refuse(f"{path}: {error}")


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
