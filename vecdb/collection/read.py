"""How does a user read rows? get, count, len, in, iteration, stats.

Invariants:
  P3  a read outside a transaction sees one commit, a read inside sees the transaction's writes;
  P4  iteration sees each page of rows at one commit, in id order, and no row twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, overload

from vecdb.collection.handle import Handle, Where, refuse
from vecdb.errors import InvalidArgument, NotFound
from vecdb.index.seats import RESERVED
from vecdb.ingest import given_ids
from vecdb.storage import keys, rows
from vecdb.types import Id, Record

PAGE_ROWS: Final = 512  # rows that iteration reads in one transaction


class ReadVerbs(Handle):
    """The verbs that read rows."""

    __slots__ = ()

    @overload  # a str is a Sequence[str] to the type checker
    def get(self, ids: Id) -> Record | None: ...  # type: ignore[overload-overlap]
    @overload
    def get(self, ids: Sequence[Id]) -> list[Record | None]: ...
    def get(self, ids: Any) -> Record | None | list[Record | None]:
        """Return the row of an id, or a list for a list of ids; None where there is no such row.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0])
        >>> c.get(["a", "b"])[1] is None
        True
        """
        known, single = given_ids(ids, self._cid)
        with self._reading() as (txn, view):
            schema = view.schema
            found = [self._record(txn, schema, rows.rid_of(txn, key)) for _, key in known]
        return found[0] if single else found

    def __getitem__(self, id: Id) -> Record:
        known, single = given_ids(id, self._cid)
        if not single:
            refuse("collection[id] takes one id; use get for a list")
        found = self.get(known[0][0])
        if found is None:
            raise NotFound(f"no row {known[0][0]!r} in collection {self.name!r}")
        return found

    def __contains__(self, id: object) -> bool:
        try:
            known, single = given_ids(id, self._cid)
        except InvalidArgument:
            return False
        if not single:
            return False
        with self._reading() as (txn, _):
            return rows.rid_of(txn, known[0][1]) is not None

    def __len__(self) -> int:
        with self._reading() as (_, view):
            live: int = view.state.live
        return live

    def count(self, where: Where | None = None) -> int:
        """Return how many rows there are, or how many satisfy a filter; exact.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        >>> c.count(F.year > 2000)
        1
        """
        if where is None:
            return len(self)
        chosen = self._filter(where)
        with self._reading() as (txn, view):
            return len(self._matches(txn, view)(chosen))

    def __iter__(self) -> Iterator[Record]:
        """Every row in id order (ints, then strings), read a page at a time."""
        start = prefix = keys.prefix(keys.IDS, self._cid)
        while True:
            page, start = self._page(prefix, start)
            yield from page
            if not start:
                return

    def stats(self) -> dict[str, Any]:
        """Return counts and watermarks: rows, slots, dead slots, unfolded commits, effort.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.stats()["rows"]
        0
        """
        with self._reading() as (_, view):
            state = view.state
            return {
                "name": self.name,
                "rows": state.live,
                "slots": state.slots,
                "dead_slots": state.slots - state.seated,
                "fields": [n for n in view.names if not _is_hidden(n, view.names)],
                "commit": view.commit,
                "metadata_folded_to": state.rows_to,
                "vectors": {
                    name: _field_stats(view, declared.number)
                    for name, declared in view.schema.vectors.items()
                    if not declared.multi
                },
            }

    # --- behind the verbs ----------------------------------------------------------------

    def _page(self, prefix: bytes, start: bytes) -> tuple[list[Record], bytes]:
        """Up to PAGE_ROWS records from a key of the id map on, and where to go on (b"": the end)."""
        page: list[Record] = []
        with self._reading() as (txn, view):
            found: list[bytes] = []
            cursor = txn.cursor()
            more = cursor.set_range(start)
            while more and len(found) < PAGE_ROWS:
                key = bytes(cursor.key())
                if not key.startswith(prefix):
                    more = False
                    break
                found.append(key)
                more = cursor.next()
            for key in found:
                record = self._record(txn, view.schema, rows.rid_of(txn, key))
                if record is not None:
                    page.append(record)
        return page, found[-1] + b"\0" if more and found else b""


def _field_stats(view: Any, number: int) -> dict[str, Any]:
    mine, effort = view.state.vectors[number], view.vectors[number].effort
    return {
        "rows": mine.ranked,
        "links_folded_to": mine.links_to,
        "code_scale": mine.scale,
        "effort": dict(effort.table) if effort else {},
    }


def _is_hidden(name: str, names: Any) -> bool:
    """Whether a field is the engine's own, or only holds other fields."""
    return name.startswith(RESERVED) or any(other.startswith(name + ".") for other in names)
