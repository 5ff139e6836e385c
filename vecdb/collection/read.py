"""How does a user read rows? get, count, len, in, stats.

Invariants:
  P3  a read outside a transaction sees one commit, a read inside sees the transaction's writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, overload
from weakref import ref

import numpy as np

from vecdb.arrays import nothing
from vecdb.collection.handle import LOOKUP, Handle, Where, refuse
from vecdb.errors import InvalidArgument, NotFound
from vecdb.index import footprint
from vecdb.index.parts import Damaged
from vecdb.index.seats import RESERVED
from vecdb.index.view import slots_of
from vecdb.ingest import given_ids
from vecdb.storage import rows
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.vectors import read, shown
from vecdb.types import Id, Record


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
        ready = self._quick()  # kept here, as looking for it takes as long as reading the row
        if ready is None or self._db._local.batch is not None:
            ready = self._ready(LOOKUP)
            self._quick = self._quick if ready is None else ref(ready)
        if ready is not None:
            record: Record | None = ready.get(ids)
            if record is not None:
                return record
        known, single = given_ids(ids, self._cid)
        with self._reading() as (txn, view):
            lookup = self._lookup(txn, view)
            found = [self._found(txn, view, lookup, key) for _, key in known]
        return found[0] if single else found

    def vectors(self, ids: Any, using: str | None = None) -> Any:
        """Return the stored vectors of rows: (n, d) of the field's dtype, in the order of the ids.

        Bits come as uint8 0 and 1; of a field of many vectors a list of (m, d), of a sparse one a list
        of dicts. `using`: the vector field, where there are several. Raises NotFound for an unknown id,
        InvalidArgument for a row without a vector in the field.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> c.vectors(["b", "a"]).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        """
        known, _ = given_ids(ids, self._cid)
        with self._reading() as (txn, view):
            declared = self._using(view.schema, using)
            found = [
                self._vector_of(txn, view.schema, declared, f"ids: row {at}: {id!r}", key)
                for at, (id, key) in enumerate(known)
            ]
        if not declared.graphed:
            return found
        return np.stack(found) if found else shown(nothing(declared), declared)

    def to_hnswlib(self, using: str | None = None) -> Any:
        """Return the rows as an `hnswlib.Index` and the list of their ids; labels are places in it.

        The graph is taken over: links between live rows as they are, links to deleted rows replaced by
        what lies behind them. Vectors as float32, under cosine of length 1, as hnswlib keeps them.
        `using`: the vector field, where there are several. Needs the extra `hnswlib`; costs a pass over
        the vectors and links. InvalidArgument for a metric that hnswlib has not.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> index, ids = c.to_hnswlib()
        >>> labels, _ = index.knn_query([[1, 0.1]], k=1); ids[labels[0][0]]
        'a'
        """
        from vecdb.interop.hnswlib import links_among, make

        with self._reading() as (txn, view):
            declared = self._using(view.schema, using, graph=True)
            if not declared.graphed:
                refuse(f"using={using!r}: a field with multi=True, or of sparse vectors, has no graph")
            held = self._holders(txn, view, declared)
            slots = np.ascontiguousarray(slots_of(view.live if held is None else held.rids, view.slots))
            stored = read(txn, self._cid, view.schema.layout(declared), slots)
            links = links_among(view.vectors[declared.number].graph, declared.M, slots)
            ids, _ = rows.read_many(txn.get, self._cid, slots.tolist())
        return make(declared, stored, links), ids

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

    def stats(self) -> dict[str, Any]:
        """Return counts, watermarks, and where the collection's space and memory go.

        In `vectors`, a field on its way to others has "next" with the `rows` that are done and what the
        `bridge` loses, one whose vectors became others "previous".
        `slots` is how many places in the graph were handed out: `live_slots` and `dead_slots`;
        `unfolded_commits` how many commits an image still lacks; `space` bytes of the file by what they
        hold, as of the last commit (not of a snapshot); `memory` bytes of this process: links, codes and
        private copies of vectors of each graph (`vectors`), bitmaps, rows of the log's tail, and what was
        made of fields of many vectors a row that were searched (`of_rankers`).
        Costs what `db.stats()` costs.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]]); _ = c.delete("a")
        >>> found = c.stats()
        >>> found["rows"], found["slots"], found["dead_slots"], found["unfolded_commits"]
        (1, 2, 1, 2)
        """
        return self._stats(self._space())

    # --- behind the verbs ----------------------------------------------------------------

    def _stats(self, space: Any) -> dict[str, Any]:
        with self._reading() as (txn, view):
            state = view.state
            return {
                "name": self.name,
                "rows": state.live,
                "slots": state.slots,
                "live_slots": state.seated,
                "dead_slots": state.slots - state.seated,
                "fields": _field_names(view.names),
                "commit": view.commit,
                "metadata_folded_to": state.rows_to,
                "unfolded_commits": footprint.unfolded(txn, self._cid, state),
                "space": None if space is None else space.of_collection(self._cid),
                "memory": footprint.of_view(view) | footprint.kept(self._follower()),
                "vectors": {
                    name: _field_stats(view, declared.number) | self._behind(view, name)
                    for name, declared in view.schema.vectors.items()
                    if declared.graphed
                },
            }

    def _behind(self, view: Any, name: str) -> dict[str, Any]:
        """What stands behind a field (migrating.py): "next" or "previous", with how far it has come."""
        hidden = view.schema.hidden.get(name)
        if hidden is None:
            return {}
        field = hidden.field
        found = _field_stats(view, field.number) | {"dim": field.dim, "encoder": field.encoder}
        if hidden.bridge is not None:
            found["bridge"] = asdict(self._bridge(hidden.bridge).loss)
        return {hidden.role: found}

    def _vector_of(
        self, txn: Any, schema: Schema, declared: VectorField, where: str, key: bytes
    ) -> Any:
        rid = rows.rid_of(txn, key)
        if rid is None:
            raise NotFound(f"{where} is no row of collection {self.name!r}")
        row = rows.get(txn, self._cid, rid)
        if declared.member not in row.fields:
            refuse(f"{where} has no vector in this field; get() tells which rows have one")
        return shown(self._stored(txn, schema, declared, rid, row), declared)

    def _found(self, txn: Any, view: Any, lookup: Any, key: bytes) -> Record | None:
        """The row of an id's key: from the map where that finds it, else as the engine says."""
        found: Record | None = None if lookup is None else lookup.by_key(key)
        if found is None:
            found = self._record(txn, view.schema, rows.rid_of(txn, key))
        return found


def _field_stats(view: Any, number: int) -> dict[str, Any]:
    mine, effort = view.state.vectors[number], view.vectors[number].measured
    return {
        "rows": mine.ranked,
        "links_folded_to": mine.links_to,
        "code_scale": mine.scale,
        "effort": dict(effort.table) if effort else {},
        "memory": footprint.of_field(view, number),
    }


def _field_names(names: Any) -> list[str]:
    """What users may filter by; nothing where the names are damaged."""
    return [] if isinstance(names, Damaged) else [n for n in names if not _is_hidden(n, names)]


def _is_hidden(name: str, names: Any) -> bool:
    """Whether a field is the engine's own, or only holds other fields."""
    return name.startswith(RESERVED) or any(other.startswith(name + ".") for other in names)
