"""How do whole tables come in and go out? add_table, to_arrow.

What a table is, and how its columns become rows, is vecdb/tables' business; it is imported when
first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vecdb.collection.handle import Handle, Where
from vecdb.collection.scan import ScanVerbs
from vecdb.ingest import given_ids
from vecdb.storage import rows

if TYPE_CHECKING:
    import threading

    import pyarrow as pa


class ArrowVerbs(ScanVerbs):
    """The verb that gives a table."""

    __slots__ = ()

    def to_arrow(self, where: Where | None = None) -> pa.Table:
        """Return the rows, or those that satisfy a filter, as an Arrow table (extra `arrow`).

        Columns: `id`; `text` if any row has one; the vectors of each field that has some, under its
        name, as fixed_size_list of the stored dtype (bits as 0 and 1; lists of those in a field with
        multi=True, of structs {token, weight} in a sparse one), null where a row has none; one for each
        top-level metadata key, with nested dicts as structs. Missing and None are both null. A key that
        has the name of another column, and a column of two types, are InvalidArgument; ints among floats
        become floats where exact. Memory: all rows.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {}])
        >>> c.to_arrow().column_names
        ['id', 'vector', 'year']
        """
        from vecdb.tables.arrow import collection_table

        return collection_table(self.scan(where, with_vectors=True), self.schema.vectors)


class TableVerbs(Handle):
    """The verb that takes tables."""

    __slots__ = ()

    def add_table(
        self,
        table: Any,
        *,
        id: str | None = "id",
        vector: str | Mapping[str, str] | None = "vector",
        text: str | None = None,
        on_conflict: str = "error",
        batch_size: int = 1000,
        progress: bool | Callable[[int, int | None], object] = False,
        cancel: Callable[[], bool] | threading.Event | None = None,
    ) -> int:
        """Write the rows of a table, batch by batch, and return how many were written.

        `table`: an Arrow table, batches or any object with `__arrow_c_stream__` (no Arrow library
        is needed here), a pandas or polars DataFrame, or an iterable of dicts. `id`, `vector` and
        `text` name its columns; `id=None` makes ids up, `vector=None` is for rows without vectors,
        `{field: column}` for several fields, each of which has the column of its name where nothing is
        said; the other columns become metadata; a null cell leaves
        its key out, a None in a dict stays. A row with a text and no vector is encoded where there is an
        encoder. `on_conflict`: "error", "replace" or "skip" rows whose ids exist.

        Each batch of `batch_size` rows is durable once written: InvalidArgument and AlreadyExists
        name the row of the table, and how many rows were committed before (`.committed` of the
        error). `progress`: True for a bar on a terminal, or a callable `(done, total)`, total None
        when unknown. `cancel`: a callable or a `threading.Event` that stops between two batches.
        Memory: one batch, beside the table. InvalidArgument inside a transaction.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.add_table([{"id": "a", "vector": [1, 0], "year": 1999}, {"id": "b", "vector": None}])
        2
        >>> c["a"].metadata, c["b"].vector
        ({'year': 1999}, None)
        """
        from vecdb.tables.load import add_table

        self._db._outside_transaction("add_table")
        return add_table(
            self, self._db, table, id=id, vector=vector, text=text,  # type: ignore[arg-type]
            on_conflict=on_conflict, batch_size=batch_size, progress=progress, cancel=cancel,
        )  # fmt: skip

    # --- behind the verbs ----------------------------------------------------------------

    def _present(self, ids: Any) -> list[bool]:
        """Which of the ids have rows."""
        known, _ = given_ids(ids, self._cid)
        with self._reading() as (txn, _):
            return [rows.rid_of(txn, key) is not None for _, key in known]
