"""How do rows go to a file and come from one? JSON lines, CSV and Parquet, by the file's suffix.

    db["papers"].add_table(vecdb.tables.read("papers.jsonl"))
    vecdb.tables.write(db["papers"], "papers.parquet")

Invariants:
  W1  a file is whole or not there: it is written beside its name and renamed when done, and a
      file that exists is not replaced;
  W2  reading and writing hold some rows in memory, never all: CSV and Parquet, which need their
      columns first, go over the rows twice;
  W3  a metadata key that has the name of another column is refused, before anything is renamed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from vecdb.errors import AlreadyExists, Full, InvalidArgument, NotFound
from vecdb.tables import delimited, jsonl, parquet
from vecdb.tables.arrow import Columns, row_of

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.snapshot import SnapshotCollection

SUFFIXES: Final = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
FORMATS: Final = ("jsonl", "csv", "parquet")
PEEKED: Final = 1_000  # rows whose keys are the columns of a file without a header

Target = str | os.PathLike[str] | IO[bytes]


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format that is asked for, or that the suffix says.

    >>> format_of("papers.jsonl"), format_of("papers.data", "csv")
    ('jsonl', 'csv')
    """
    if format is None:
        found = SUFFIXES.get(Path(path).suffix.lower())
        if found is None:
            _refuse(
                f"{os.fspath(path)!r} ends in none of {', '.join(SUFFIXES)}; say format= "
                f"{', '.join(FORMATS)}"
            )
        return found
    if format not in FORMATS:
        _refuse(f"format={format!r}: choose one of {', '.join(FORMATS)}")
    return format


# --- in ----------------------------------------------------------------------------------


class TableFile:
    """A file of rows, read anew by each iteration; what `add_table` takes. Made by `read`."""

    def __init__(self, path: str, format: str, strings: bool, vectors: tuple[str, ...]) -> None:
        self.path = path
        self.format = format
        self._strings = strings
        self._vectors = vectors

    def __repr__(self) -> str:
        return f"TableFile({self.path!r}, {self.format!r})"

    def __iter__(self) -> Iterator[Any]:
        """The rows as dicts, or record batches of a Parquet file."""
        if self.format == "parquet":
            yield from parquet.read(self.path)
            return
        with self._lines() as lines:
            if self.format == "jsonl":
                yield from jsonl.read(lines, self.path)
            else:
                yield from delimited.read(
                    lines, self.path, strings=self._strings, vectors=self._vectors
                )

    @property
    def rows(self) -> int | None:
        """How many rows there are, where the file says so beforehand."""
        if self.format != "parquet":
            return None
        with parquet.opened(self.path) as file:
            return int(file.metadata.num_rows)

    @property
    def columns(self) -> list[str]:
        """The names of the columns; of JSON lines, the keys of the first thousand rows."""
        if self.format == "parquet":
            with parquet.opened(self.path) as file:
                return list(file.schema_arrow.names)
        if self.format == "csv":
            with self._lines() as lines:
                return delimited.columns(lines, self.path)
        return list(dict.fromkeys(key for row in islice(self, PEEKED) for key in row))

    def dim(self, column: str) -> int | None:
        """The length of the first vector of a column; None where the first thousand rows have none."""
        for item in islice(self, 1 if self.format == "parquet" else PEEKED):
            cells = [item.get(column)] if isinstance(item, dict) else _cells(item, column)
            for value in cells:
                if isinstance(value, list) and value:
                    return len(value)
        return None

    @contextmanager
    def _lines(self) -> Iterator[IO[str]]:
        try:
            lines = open(
                self.path, encoding="utf-8-sig", newline="" if self.format == "csv" else "\n"
            )
        except FileNotFoundError:
            raise NotFound(f"there is no file {self.path!r}") from None
        except OSError as error:
            _refuse(f"{self.path!r} cannot be read: {error.strerror}")
        with lines:
            yield lines


def _cells(batch: Any, column: str) -> list[Any]:
    found: list[Any] = batch.column(column).to_pylist() if column in batch.schema.names else []
    return found


def read(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    strings: bool = False,
    vectors: tuple[str, ...] = ("vector",),
) -> TableFile:
    """Return a file's rows for `add_table`, read as they are asked for.

    `format`: "jsonl", "csv" or "parquet" (extra `arrow`), default by the suffix. `strings`: keep
    the cells of a CSV file as text, but for the columns named by `vectors`. Errors while reading
    are InvalidArgument and name file, line and column.

    >>> import vecdb
    >>> from vecdb import tables
    >>> with open("few.csv", "w") as file:
    ...     _ = file.write("id,year,name\\n1,1999,Ada\\n2,,007\\n")
    >>> list(tables.read("few.csv"))
    [{'id': 1, 'year': 1999, 'name': 'Ada'}, {'id': 2, 'name': '007'}]
    """
    name = os.fspath(path)
    chosen = format_of(path, format)
    if not os.path.exists(name):
        raise NotFound(f"there is no file {name!r}")
    return TableFile(name, chosen, strings, tuple(vectors))


# --- out ---------------------------------------------------------------------------------


def write(
    collection: Collection | SnapshotCollection,
    to: Target,
    *,
    where: Any = None,
    format: str | None = None,
    vectors: bool = True,
    id: str = "id",
    text: str | None = "text",
    progress: Callable[[int, int | None], object] | None = None,
) -> int:
    """Write a collection's rows, or those that satisfy a filter, to a new file; return how many.

    `to`: a path, or an open binary file (then `format` is needed). `format`: "jsonl" and "csv",
    which lose nothing, or "parquet" (extra `arrow`; columns of one type each, None as missing),
    default by the suffix. `id` and `text` name the columns of ids and texts; `text=None` leaves
    texts out.
    AlreadyExists when there is such a file; InvalidArgument names what the format cannot hold.
    Memory: some rows. All are of one commit if `collection` is a snapshot's, as in
    `with db.snapshot() as snap: tables.write(snap["papers"], ...)`.

    >>> import vecdb
    >>> from vecdb import tables
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {}])
    >>> tables.write(c, "c.jsonl"), open("c.jsonl").readline()
    (2, '{"id": "a", "vector": [1,0], "year": 1999}\\n')
    """
    is_path = isinstance(to, str | os.PathLike)
    if not is_path and format is None:
        _refuse(f"format=None: an open file has no suffix; choose one of {', '.join(FORMATS)}")
    chosen = format_of(to if isinstance(to, str | os.PathLike) else "", format)
    fields = list(collection.schema.vectors) if vectors else []
    if id == text or {id, text} & set(fields):
        _refuse(f"id={id!r}, text={text!r}: two columns would have one name")

    def rows() -> Iterator[dict[str, Any]]:
        for record in collection.scan(where, with_vectors=vectors):
            yield row_of(record, fields, id=id, text=text)

    total = None if progress is None else collection.count(where)
    count = _Counted(progress, total)
    if isinstance(to, str | os.PathLike):
        with _new_file(os.fspath(to)) as out:
            _write(rows, out, chosen, count, (id, text or "", *fields))
    else:
        _write(rows, to, chosen, count, (id, text or "", *fields))
    return count.done


def _write(
    rows: Callable[[], Iterator[dict[str, Any]]],
    out: IO[bytes],
    format: str,
    count: _Counted,
    first: tuple[str, ...],
) -> None:
    if format == "jsonl":
        with _text(out) as lines:
            jsonl.write(count(rows()), lines)
    elif format == "csv":
        names = dict.fromkeys(name for row in rows() for name in row)
        ahead = [name for name in first if name in names]
        with _text(out) as lines:
            delimited.write(
                count(rows()),
                lines,
                ahead + [name for name in names if name not in ahead] or first[:1],
            )
    else:
        columns = Columns.of(rows())
        columns.first(first)
        parquet.write(count(rows()), out, columns)


class _Counted:
    """Passes rows on, counts them, and reports now and then."""

    def __init__(
        self, progress: Callable[[int, int | None], object] | None, total: int | None
    ) -> None:
        self.done = 0
        self._progress = progress
        self._total = total

    def __call__(self, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for row in rows:
            yield row
            self.done += 1
            if self._progress is not None and self.done % PEEKED == 0:
                self._progress(self.done, self._total)
        if self._progress is not None:
            self._progress(self.done, self._total)


@contextmanager
def _text(out: IO[bytes]) -> Iterator[IO[str]]:
    """A binary file as UTF-8 text, left open."""
    import io

    lines = io.TextIOWrapper(out, encoding="utf-8", newline="\n")
    try:
        yield lines
    finally:
        lines.detach()


@contextmanager
def _new_file(path: str) -> Iterator[IO[bytes]]:
    """A file beside `path` that takes its name when all went well."""
    if os.path.lexists(path):
        raise AlreadyExists(f"{path!r} exists; choose another name, or delete it first")
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "xb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        _named(part, path)
    except FileExistsError:
        raise AlreadyExists(f"{path!r} exists; choose another name, or delete it first") from None
    except FileNotFoundError:
        raise NotFound(f"there is no folder for {path!r}") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Full(f"no room on the disk for {path!r}; nothing of it is kept") from None
        _refuse(f"{path!r} cannot be written: {error.strerror or error}")
    finally:
        if os.path.lexists(part):
            os.unlink(part)


def _named(part: str, path: str) -> None:
    """Give the finished file its name, unless another has taken it; where links are, atomically."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError from None
        os.rename(part, path)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
