"""What do queries by vectors stand on? A vector field at a place: examples become vectors, rows distances.

Invariants:
  V1  a row that is given as an example is found by its id in the search's own snapshot;
  V2  distances of given rows are those of the stored vectors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from pyroaring import BitMap

from vecdb import execute
from vecdb.errors import InvalidArgument, NotFound
from vecdb.index.view import Cut
from vecdb.query.filter import Filter
from vecdb.query.nodes import And
from vecdb.query.numbers import Numbers
from vecdb.query.values import ById
from vecdb.ranking.base import Place, Ranked
from vecdb.storage import keys, rows, vectors
from vecdb.storage.rows import PLAIN
from vecdb.types import score_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.ranking.base import Distances, Rids, Scores

LITTLE = sys.byteorder == "little"
EVERY = And(())  # the filter that leaves all rows


def some(where: Filter | None) -> Filter:
    """A filter, where one is needed: that some rows are allowed is what counts."""
    return EVERY if where is None else where


def array_of(value: Any) -> npt.NDArray[Any]:
    """The array that a query keeps as a value."""
    if isinstance(value, Numbers):
        if LITTLE:
            return np.frombuffer(value.data, value.dtype).reshape(value.shape)
        found = np.frombuffer(value.data, np.dtype(value.dtype).newbyteorder("<"))
        return found.reshape(value.shape).astype(found.dtype.newbyteorder("="), copy=False)
    return np.asarray(value)


class VectorField:
    """One vector field at a place, without some rows."""

    def __init__(self, place: Place, using: str | None, examples: Iterable[Any]) -> None:
        verbs = place.verbs
        self.place = place
        text = any(self._is_text(place, each) for each in examples)
        self.name, self.declared = verbs._searched(place.view.schema, using, "" if text else None)
        self.without = BitMap()  # rows that are examples
        self._context: execute.Context | None = None
        self._origin: execute.Origin | None = None  # of the last search

    def _is_text(self, place: Place, example: Any) -> bool:
        return isinstance(example, str) and self._rid(place, example) is None

    @staticmethod
    def _rid(place: Place, id: Any) -> int | None:
        cid = place.verbs._cid
        try:
            return rows.rid_of(place.txn, keys.row_id(cid, id))
        except InvalidArgument:
            return None  # too long for an id, or empty

    # --- examples ----------------------------------------------------------------------------

    def vector(self, example: Any, *, ids: bool = True) -> npt.NDArray[np.float32]:
        """An example as a float32 vector; a row that is one is left out of what is found.

        `ids`: a str is the id of a row where there is one.
        """
        if isinstance(example, ById):
            return self._stored(example.id)
        if isinstance(example, str):
            if ids and self._rid(self.place, example) is not None:
                return self._stored(example)
            found: npt.NDArray[np.float32] = self.place.verbs._query(example, self.declared)[0]
            return found
        made: npt.NDArray[np.float32] = self.place.verbs._query(array_of(example), self.declared)[0]
        return made

    def _stored(self, id: Any) -> npt.NDArray[np.float32]:
        place, verbs = self.place, self.place.verbs
        rid = self._rid(place, id)
        if rid is None:
            raise NotFound(f"there is no row {id!r:.80} in collection {verbs.name!r} to be an example")
        row = rows.get(place.txn, verbs._cid, rid)
        if self.declared.member not in row.fields:
            raise InvalidArgument(f"row {id!r:.80} has no vector in field {self.name!r} to be an example")
        self.without.add(rid)
        stored = verbs._stored(place.txn, place.view.schema, self.declared, rid, row)
        return vectors.as_query(stored.tobytes(), self.declared.dim, self.declared.dtype)

    # --- rows --------------------------------------------------------------------------------

    @property
    def context(self) -> execute.Context:
        """Where a search in the field runs; made when all examples are known."""
        if self._context is None:
            place = self.place
            allowed, cut = place.allowed, place.cut
            if self.without:
                allowed = place.live - self.without
                cut = Cut(allowed, place.view.slots)
            where = None if allowed is None else some(place.where)
            self._context = place.verbs._context(
                place.txn, place.view, self.name, self.declared, where,
                None if where is None else lambda _: allowed, cut,
            )  # fmt: skip
        return self._context

    def rows(self) -> BitMap:
        """The matches: rows that the filter leaves with a vector in the field."""
        held = self.context.held
        place = self.place
        found = place.live - self.without if self.without else place.live
        if held is not None:
            return found & held.rids
        limit = min(place.view.slots, PLAIN)
        if not found or found.max() < limit:
            return found
        found = found.copy()
        found.remove_range(limit, 1 << 32)
        return found

    def matching(self) -> int:
        """How many there are."""
        place, held = self.place, self.context.held
        if self.without or (held is not None and place.allowed is not None):
            return len(self.rows())
        if place.allowed is None:
            return self.ranked()
        return int(place.allowed.range_cardinality(0, min(place.view.slots, PLAIN)))

    def ranked(self) -> int:
        """Live rows with a vector in the field."""
        return self.context.ranked

    def nearest(self, query: Any, reach: int) -> Ranked:
        """The nearest matches, within the radius if there is one."""
        (slots, raw), self._origin = execute.told_ranking(self.context, query, self.request(reach))
        distances = np.frombuffer(raw, np.float32)
        return Ranked(np.array(slots, np.uint32), self.scored(distances), distances)

    def request(self, reach: int | None) -> execute.Request:
        """The search's options for so many rows."""
        asked = self.place.request
        where = None if self.context.matches is None else some(asked.where)
        return execute.Request(reach, where, asked.recall, asked.ef, asked.exact, asked.radius)

    def distances(self, query: Any, rids: Rids) -> Distances:
        """Distances of rows, in order; NaN for a row without a vector in the field."""
        graph, slots = self.context.field.graph, self.place.view.slots
        found = np.full(len(rids), np.nan, np.float32)
        held = self.context.held
        usable = rids < slots
        if held is not None:
            usable &= np.fromiter((rid in held.rids for rid in rids.tolist()), np.bool_, len(rids))
        chosen = np.ascontiguousarray(rids[usable])
        if not len(chosen):
            return found
        if hasattr(graph, "distances"):
            found[usable] = np.frombuffer(graph.distances(query, chosen), np.float32)
            return found
        order = np.argsort(chosen, kind="stable")
        ascending = np.ascontiguousarray(chosen[order])
        listed, raw = graph.scan(query, len(chosen), ascending, n_visible=slots, exact=True)
        at = np.searchsorted(ascending, np.array(listed, np.uint32))
        placed = np.full(len(chosen), np.nan, np.float32)
        placed[order[at]] = np.frombuffer(raw, np.float32)
        found[usable] = placed
        return found

    def scored(self, distances: Distances) -> Scores:
        """Scores of distances, float64."""
        return score_of(self.declared.metric, self.declared.dim, distances).astype(np.float64)

    def origin(self, reach: int | None) -> execute.Origin:
        """What tells how the nearest were found, or would be."""
        if self._origin is None:
            self._origin = execute.origin(self.context, self.request(reach))
        return self._origin

    def lacks(self, rid: int) -> str | None:
        """Why a row is no match."""
        if rid in self.without:
            return "is an example of the query itself, which is left out"
        if rid in self.rows():
            return None
        return f"has no vector in field {self.name!r}" if len(self.place.view.schema.vectors) > 1 else (
            "has no vector"
        )
