"""How does a table become rows of a collection? By batches, each one commit.

Invariants:
  L1  a batch is written whole or not at all, and the batches before it stay: the error says how
      many rows those are, in its text and as `.committed`;
  L2  what is refused does not depend on `batch_size`: an id that appears twice is AlreadyExists
      under "error" in one batch as across two;
  L3  with "skip", rows that exist are left out before their texts are encoded.

A row lacks what its cells lack: rows with a vector and rows without, with a text and without,
may be mixed; a batch of several such kinds is one transaction of several writes.

Rejected: one commit for the whole table. A load of hours would be lost to its last row, and
would keep every other writer waiting; who wants all or nothing has `transaction` and `add`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.errors import AlreadyExists, InvalidArgument, VecdbError
from vecdb.tables.capsule import refuse
from vecdb.tables.sources import Matrix, Piece, pieces, total_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.collection import Collection
    from vecdb.database import Database

CONFLICTS: Final = ("error", "replace", "skip")
MAX_BATCH: Final = 1_000_000
RACES: Final = 100  # times that another process may be quicker before a batch gives up

Progress = Callable[[int, int | None], object]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; `vectors` maps fields to columns, `fields` are the collection's."""

    id: str | None
    text: str | None
    vectors: dict[str, str]
    optional: bool  # whether the vector column may be missing: an encoder makes them
    fields: dict[str, str]  # name -> dtype

    @property
    def taken(self) -> set[str]:
        """The columns that are not metadata."""
        return {name for name in (self.id, self.text, *self.vectors.values()) if name is not None}


@dataclass(slots=True)
class Batch:
    """Rows of one commit: row `numbers[i]` of the table is entry i of everything."""

    numbers: list[int]
    ids: list[Any] | None
    texts: list[Any] | None
    vectors: dict[str, Matrix]
    metadata: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, chosen: Sequence[int]) -> Batch:
        """Some of the rows."""
        at = np.asarray(chosen, np.intp)
        return Batch(
            [self.numbers[i] for i in chosen],
            None if self.ids is None else [self.ids[i] for i in chosen],
            None if self.texts is None else [self.texts[i] for i in chosen],
            {
                field: (array[at], None if present is None else present[at])
                for field, (array, present) in self.vectors.items()
            },
            [self.metadata[i] for i in chosen],
        )


def add_table(
    collection: Collection,
    db: Database,
    table: Any,
    *,
    id: str | None = "id",
    vector: str | Mapping[str, str] | None = "vector",
    text: str | None = None,
    on_conflict: str = "error",
    batch_size: int = 1000,
    progress: bool | Progress = False,
    cancel: Any = None,
) -> int:
    """Write a table's rows and return how many were written; see `Collection.add_table`."""
    columns = _columns(collection, id, vector, text)
    if on_conflict not in CONFLICTS:
        refuse(f"on_conflict={on_conflict!r}: choose one of {', '.join(CONFLICTS)}")
    size = batch_size
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_BATCH:
        refuse(f"batch_size={batch_size!r}: give an int from 1 to {MAX_BATCH:,}")
    stopped = _stopper(cancel)
    written = 0
    writer = _Writer(collection, db, on_conflict)
    with _reporter(progress) as report:
        total = total_of(table)
        try:
            for batch in _batches(pieces(table), columns, size):
                if stopped():
                    break
                written += writer.write(batch)
                report(batch.numbers[-1] + 1, total)
        except VecdbError as error:
            error.args = (f"{_message(error)}; {_committed(written)}", *error.args[1:])
            error.committed = written
            raise
        except Exception as error:  # the producer's own, an encoder's, a callback's
            error.add_note(f"add_table: {_committed(written)}")
            raise
    return written


def _committed(written: int) -> str:
    if not written:
        return "nothing was written"
    return f"{written:,} rows of the table were committed before and stay"


def _message(error: VecdbError) -> str:
    return str(error).removesuffix("; nothing was written")


# --- arguments ---------------------------------------------------------------------------


def _columns(collection: Collection, id: Any, vector: Any, text: Any) -> Columns:
    for name, value in (("id", id), ("text", text)):
        if value is not None and not isinstance(value, str):
            refuse(f"{name}={value!r:.60}: give the name of a column, or None")
    fields = vector_fields(collection)
    encoded = text is not None and any(
        each.encoder is not None for each in collection.schema.vectors.values()
    )
    if vector is None:
        chosen: dict[str, str] = {}
    elif isinstance(vector, str):
        if len(fields) > 1:
            refuse(
                f"vector={vector!r}: collection {collection.name!r} has the vector fields "
                f"{_listed(fields)}; say which column is which: vector={{field: column}}"
            )
        chosen = {next(iter(fields)): vector} if fields else {}
    elif isinstance(vector, Mapping):
        chosen = dict(vector)
        for field, column in chosen.items():
            if field not in fields or not isinstance(column, str):
                refuse(
                    f"vector={{{field!r}: {column!r}}}: a vector field and the name of its column; "
                    f"collection {collection.name!r} has the fields {_listed(fields)}"
                )
    else:
        refuse(f"vector={vector!r:.60}: give the name of a column, {{field: column}}, or None")
    used = [name for name in (id, text, *chosen.values()) if name is not None]
    for name in used:
        if used.count(name) > 1:
            refuse(f"column {name!r} is asked for twice among id=, vector= and text=")
    return Columns(id, text, chosen, encoded and vector == "vector", fields)


def vector_fields(collection: Collection) -> dict[str, str]:
    """The collection's vector fields and the dtype that each is stored in."""
    return {name: each.dtype for name, each in collection.schema.vectors.items()}


def _stopper(cancel: Any) -> Callable[[], bool]:
    if cancel is None:
        return lambda: False
    asked = getattr(cancel, "is_set", cancel)
    if not callable(asked):
        refuse(f"cancel is a callable or a threading.Event, not a {type(cancel).__name__}")
    return lambda: bool(asked())


@contextmanager
def _reporter(progress: Any) -> Iterator[Progress]:
    """What is called after each batch: the user's callable, a bar on a terminal, or nothing."""
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool):
        refuse(f"progress is True, False or a callable (done, total), not {progress!r:.60}")
    if not progress or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield lambda done, total: None
        return
    shown = (TextColumn("add_table"), BarColumn(), MofNCompleteColumn())
    with Bar(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- from pieces to batches --------------------------------------------------------------


def _batches(table: Iterator[Piece], columns: Columns, size: int) -> Iterator[Batch]:
    """Batches of `size` rows, wherever the pieces end."""
    kept: list[Batch] = []
    room = size
    row = 0
    for piece in table:
        _check_names(piece, columns, row)
        first = 0
        while first < piece.rows:
            last = min(piece.rows, first + room)
            kept.append(_read(piece, columns, first, last, row + first))
            room -= last - first
            first = last
            if not room:
                yield _merged(kept)
                kept, room = [], size
        row += piece.rows
    if kept:
        yield _merged(kept)


def _check_names(piece: Piece, columns: Columns, row: int) -> None:
    """Every column that was asked for is there; later pieces may lack what is optional."""
    if not piece.rows:
        return
    asked: list[tuple[str, str | None]] = [("id", columns.id)]
    if not row:
        asked.append(("text", columns.text))
        if not columns.optional:
            asked += [("vector", name) for name in columns.vectors.values()]
    for argument, name in asked:
        if name is not None and name not in piece.names:
            remedy = {
                "id": "id=None makes ids up",
                "text": "text=None is for rows without",
                "vector": "vector=None is for rows without, or for texts that an encoder takes",
            }[argument]
            refuse(
                f"there is no {argument} column {name!r}; there are {_listed(piece.names)}; {remedy}"
            )


def _listed(names: Any) -> str:
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return ", ".join(listed[:20]) + more if listed else "none"


def _read(piece: Piece, columns: Columns, first: int, last: int, row: int) -> Batch:
    """Rows of a piece; `row` is the number in the table of its row `first`."""
    names = [name for name in piece.names if name not in columns.taken]
    ids = None if columns.id is None else piece.column(columns.id, first, last)
    for at, id in enumerate(ids or ()):
        if type(id) is not str and type(id) is not int:
            ids[at] = _id(id, row + at, columns.id)  # type: ignore[index]
    has_texts = columns.text is not None and columns.text in piece.names
    texts = piece.column(columns.text, first, last) if has_texts else None  # type: ignore[arg-type]
    vectors = {
        field: _fitting(piece.matrix(name, first, last, row), columns.fields[field])
        for field, name in columns.vectors.items()
        if name in piece.names
    }
    return Batch(
        list(range(row, row + last - first)), ids, texts, vectors,
        piece.metadata(names, first, last),
    )  # fmt: skip


def _id(id: Any, row: int, column: str | None) -> str | int:
    if isinstance(id, np.integer):
        return int(id)
    if isinstance(id, str):
        return str(id)
    if isinstance(id, int) and not isinstance(id, bool):
        return int(id)
    what = "no id" if id is None else f"{id!r:.60}, a {type(id).__name__}"
    refuse(f"row {row} has {what} in column {column!r}; an id is a str or an int")


def _fitting(matrix: Matrix, dtype: str) -> Matrix:
    """Whole numbers as the int8 that a field of codes takes, where they all fit."""
    array, present = matrix
    if dtype == "i8" and array.dtype.kind in "iu" and array.dtype != np.int8 and array.size:
        if array.min() >= -128 and array.max() <= 127:
            return array.astype(np.int8), present
    return matrix


def _merged(parts: list[Batch]) -> Batch:
    """Several as one."""
    if len(parts) == 1:
        return parts[0]
    fields = {field for part in parts for field in part.vectors}
    whole = Batch([], None if parts[0].ids is None else [], None, {}, [])
    if any(part.texts is not None for part in parts):
        whole.texts = []
    for part in parts:
        whole.numbers += part.numbers
        whole.metadata += part.metadata
        if whole.ids is not None:
            whole.ids += part.ids or []
        if whole.texts is not None:
            whole.texts += part.texts or [None] * len(part)
    for field in sorted(fields):
        whole.vectors[field] = _stacked(field, parts)
    return whole


def _stacked(field: str, parts: list[Batch]) -> Matrix:
    arrays: list[npt.NDArray[Any]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    size: int | None = None
    first = 0
    for part in parts:
        array, present = part.vectors.get(
            field, (np.zeros((len(part), 0)), np.zeros(len(part), bool))
        )
        there = np.ones(len(part), np.bool_) if present is None else present
        if there.any():
            if size is not None and array.shape[1] != size:
                refuse(
                    f"vectors of field {field!r}: row {part.numbers[int(np.argmax(there))]} has "
                    f"{array.shape[1]} numbers, row {first} has {size}"
                )
            if size is None:
                size, first = array.shape[1], part.numbers[int(np.argmax(there))]
        arrays.append(array)
        masks.append(there)
    width = size or 0
    fitted = [a if a.shape[1] == width else np.zeros((len(a), width), np.float32) for a in arrays]
    return np.concatenate(fitted), np.concatenate(masks)


# --- writing -----------------------------------------------------------------------------


class _Writer:
    """Writes batches to a collection and remembers nothing: what exists is asked of the file."""

    def __init__(self, collection: Collection, db: Database, on_conflict: str) -> None:
        self._collection = collection
        self._db = db
        self._on_conflict = on_conflict

    def write(self, batch: Batch) -> int:
        """Commit a batch and return how many rows it wrote."""
        if batch.ids is None:
            self._insert(batch)
            return len(batch)
        if self._on_conflict == "error":
            self._refuse_twice(batch)
            return self._new(batch)
        last_wins = self._on_conflict == "replace"
        order = range(len(batch)) if last_wins else range(len(batch) - 1, -1, -1)
        chosen = sorted({batch.ids[at]: at for at in order}.values())
        if len(chosen) < len(batch):
            batch = batch.part(chosen)
        if last_wins:
            self._insert(batch, replace=True)
            return len(batch)
        return self._missing(batch)

    def _new(self, batch: Batch) -> int:
        try:
            self._insert(batch)
        except AlreadyExists:
            there = self._collection._present(batch.ids)
            if True not in there:  # deleted since: say what the write said
                raise
            at = there.index(True)
            raise AlreadyExists(
                f"table: row {batch.numbers[at]}: id {batch.ids[at]!r} exists in collection "  # type: ignore[index]
                f"{self._collection.name!r}; on_conflict='replace' replaces such rows, 'skip' "
                "leaves them"
            ) from None
        return len(batch)

    def _missing(self, batch: Batch) -> int:
        """Write the rows whose ids are not there; another process may be adding some meanwhile."""
        for attempt in range(RACES):
            there = self._collection._present(batch.ids)
            if any(there):
                batch = batch.part([at for at, is_there in enumerate(there) if not is_there])
            if not len(batch):
                return 0
            try:
                self._insert(batch)
                return len(batch)
            except AlreadyExists:
                if attempt == RACES - 1:
                    raise
        return 0

    def _refuse_twice(self, batch: Batch) -> None:
        assert batch.ids is not None
        seen: dict[Any, int] = {}
        for id, number in zip(batch.ids, batch.numbers, strict=True):
            before = seen.setdefault(id, number)
            if before != number:
                raise AlreadyExists(
                    f"table: row {number}: id {id!r} is that of row {before} too; "
                    "on_conflict='replace' keeps the last of them, 'skip' the first"
                )

    def _insert(self, batch: Batch, *, replace: bool = False) -> None:
        """One commit, with as many writes as there are kinds of rows."""
        groups = _groups(batch)
        if len(groups) == 1:
            self._put(batch, groups[0][0], replace)
            return
        with self._db.transaction():
            for has, chosen in groups:
                self._put(batch.part(chosen), has, replace)

    def _put(self, batch: Batch, has: tuple[bool, ...], replace: bool) -> None:
        texts = batch.texts if has[0] else None
        given = {
            field: array
            for (field, (array, _)), there in zip(batch.vectors.items(), has[1:], strict=True)
            if there
        }
        only = list(vector_fields(self._collection)) == list(given)
        vectors = next(iter(given.values())) if only else given or None
        try:
            if replace:
                self._collection.upsert(batch.ids, vectors, metadata=batch.metadata, texts=texts)
            else:
                self._collection.add(batch.ids, vectors, metadata=batch.metadata, texts=texts)
        except InvalidArgument as error:
            error.args = (_renumbered(str(error), batch.numbers),)
            raise


def _groups(batch: Batch) -> list[tuple[tuple[bool, ...], list[int]]]:
    """Rows by what they have: a text, a vector in each field."""
    n = len(batch)
    texts = [False] * n if batch.texts is None else [text is not None for text in batch.texts]
    columns = [texts] + [
        [True] * n if present is None else present.tolist() for _, present in batch.vectors.values()
    ]
    found: dict[tuple[bool, ...], list[int]] = {}
    for at, has in enumerate(zip(*columns, strict=True)):
        found.setdefault(has, []).append(at)
    return list(found.items())


def _renumbered(message: str, numbers: list[int]) -> str:
    """A refusal of `add` with the row's number in the table for that in the call."""
    found = re.match(r"((?:[a-z_]+(?: [a-z]+)?: )?)row (\d+)\b", message)
    if found is None or int(found[2]) >= len(numbers):
        return f"table: rows {numbers[0]} to {numbers[-1]}: {message}"
    return f"table: {found[1]}row {numbers[int(found[2])]}{message[found.end() :]}"
