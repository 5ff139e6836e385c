"""How does a table become rows of a collection? By batches, each one commit.

Invariants:
  L1  a batch is written whole or not at all, and the batches before it stay: the error says how
      many rows those are, in its text and as `.committed`;
  L2  what is refused does not depend on `batch_size`: an id that appears twice is AlreadyExists
      under "error" in one batch as across two;
  L3  with "skip", rows that exist are left out before their texts are encoded.

A row lacks what its cells lack: rows with a vector in a field and rows without may be mixed; a batch
of several such kinds is one transaction of several writes, and texts of it are encoded inside.

Rejected: one commit for the whole table. A load of hours would be lost to its last row, and
would keep every other writer waiting; who wants all or nothing has `transaction` and `add`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from vecdb.errors import AlreadyExists, InvalidArgument, SchemaError, VecdbError
from vecdb.progress import Progress, reporter, stopper
from vecdb.tables.batches import Batch, Columns, batches_of, kinds_of, listed
from vecdb.tables.capsule import refuse
from vecdb.tables.sources import pieces, total_of

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database

CONFLICTS: Final = ("error", "replace", "skip")
MAX_BATCH: Final = 1_000_000
RACES: Final = 100  # times that another process may be quicker before a batch gives up



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
    stopped = stopper(cancel)
    written = 0
    writer = _Writer(collection, db, on_conflict)
    with reporter(progress, "add_table") as report:
        total = total_of(table)
        try:
            for batch in batches_of(pieces(table), columns, size):
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
    fields = collection.schema.vectors
    encoded = any(each.encoder and (each.source or text) for each in fields.values())
    optional = encoded and vector == "vector"
    if vector is None:
        chosen: dict[str, str] = {}
    elif isinstance(vector, str) and len(fields) == 1:
        chosen = {next(iter(fields)): vector}
    elif vector == "vector":  # not said: each field has the column of its name, if that is there
        chosen, optional = {field: field for field in fields}, True
    elif isinstance(vector, str):
        refuse(
            f"vector={vector!r}: collection {collection.name!r} has the vector fields "
            f"{listed(fields)}; say which column is which: vector={{field: column}}"
        )
    elif isinstance(vector, Mapping):
        chosen = dict(vector)
        for field, column in chosen.items():
            if field not in fields or not isinstance(column, str):
                refuse(
                    f"vector={{{field!r}: {column!r}}}: a vector field and the name of its column; "
                    f"collection {collection.name!r} has the fields {listed(fields)}"
                )
    else:
        refuse(f"vector={vector!r:.60}: give the name of a column, {{field: column}}, or None")
    used = [name for name in (id, text, *chosen.values()) if name is not None]
    for name in used:
        if used.count(name) > 1:
            refuse(f"column {name!r} is asked for twice among id=, vector= and text=")
    return Columns(id, text, chosen, optional, fields)


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
            there = self._present(batch)
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
            there = self._present(batch)
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
        groups = kinds_of(batch)
        if len(groups) == 1:
            self._put(batch, groups[0][0], replace)
            return
        with self._db.transaction():
            for has, chosen in groups:
                self._put(batch.part(chosen), has, replace)

    def _put(self, batch: Batch, has: tuple[bool, ...], replace: bool) -> None:
        """Rows of one kind, as one call; a field that they have no vectors in is not named."""
        vectors = {
            field: list(array) if array.dtype == object else array
            for (field, (array, _)), there in zip(batch.vectors.items(), has, strict=True)
            if there
        }
        write = self._collection.upsert if replace else self._collection.add
        with _renumbering(batch):
            write(batch.ids, vectors or None, metadata=batch.metadata, texts=batch.texts)

    def _present(self, batch: Batch) -> list[bool]:
        with _renumbering(batch):
            return self._collection._present(batch.ids)


@contextmanager
def _renumbering(batch: Batch) -> Iterator[None]:
    """Refusals inside name the row of the table, not that of the batch."""
    try:
        yield
    except (InvalidArgument, SchemaError) as error:
        error.args = (_renumbered(str(error), batch.numbers), *error.args[1:])
        raise


def _renumbered(message: str, numbers: list[int]) -> str:
    """A refusal of `add` with the row's number in the table for that in the call."""
    found = re.match(r"((?:[^:]*: )?)row (\d+)\b", message)
    if found is None or int(found[2]) >= len(numbers):
        return f"table: rows {numbers[0]} to {numbers[-1]}: {message}"
    return f"table: {found[1]}row {numbers[int(found[2])]}{message[found.end() :]}"
