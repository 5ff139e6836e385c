"""What do rankers share that score rows by a value of their own: many vectors, or a sparse one?

    _holding   the rows of the filter that have such a value
    _exact     the scores of some of them
    _ranked    the best, for who has a quicker way than to score all

Invariants:
  X1  with a radius the matches are the rows inside it, all scored exactly;
  X2  ties are settled by row number.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from pyroaring import BitMap

from vecdb.errors import InvalidArgument
from vecdb.ranking.base import Ranked, Ranker, nothing
from vecdb.storage import vectors

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.query.objects import Query
    from vecdb.ranking.base import Place, Rids, Scores
    from vecdb.storage.schema import Schema, VectorField


class ScoredRanker(Ranker):
    """One vector field without a graph, at a place."""

    has_distances = True
    what = ""  # a row's value, as in "has no ..."

    def __init__(self, place: Place, query: Query, name: str) -> None:
        super().__init__(place, query)
        schema = place.view.schema
        self.name = name
        self.declared: VectorField = schema.vectors[name]
        self.layout = schema.layout(self.declared)
        self.field = self  # whose metric says which radius can be
        self._cid: int = place.verbs._cid
        self._matching: BitMap | None = None
        self._inside: tuple[Rids, Scores] | None = None  # with a radius: what it leaves

    @abstractmethod
    def _holding(self) -> BitMap:
        """The rows of the filter that have a value."""

    @abstractmethod
    def _exact(self, rids: Rids) -> Scores:
        """The scores of rows that have one."""

    def _distances(self, scores: Scores) -> npt.NDArray[np.float32]:
        return (-scores).astype(np.float32)

    def _ranked(self, found: BitMap, reach: int) -> Ranked:
        """The best `reach` of matches."""
        rids = np.frombuffer(found.to_array(), np.uint32)
        return self._top(rids, self._exact(rids), reach)

    def rows(self) -> BitMap:
        if self._matching is None:
            found, radius = self._holding(), self.place.request.radius
            if radius is not None:
                rids = np.frombuffer(found.to_array(), np.uint32)
                scores = self._exact(rids)
                near = self._distances(scores) <= np.float32(radius)
                self._inside = rids[near], scores[near]
                found = BitMap(self._inside[0])
            self._matching = found
        return self._matching

    def lacks(self, rid: int) -> str | None:
        if rid in self.rows():
            return None
        if self._inside is not None and rid in self._holding():
            return "is farther away than the radius"
        return f"has no {self.what} in field {self.name!r}"

    def best(self, reach: int) -> Ranked:
        found = self.rows()
        reach = min(reach, len(found))
        if reach <= 0:
            return nothing(distances=True)
        if self._inside is not None:
            return self._top(*self._inside, reach)
        return self._ranked(found, reach)

    def _top(self, rids: Rids, scores: Scores, reach: int) -> Ranked:
        """The best of scored rows (X2)."""
        if reach < len(rids):
            kept = scores >= border(scores, reach)
            rids, scores = rids[kept], scores[kept]
        order = np.lexsort((rids, -scores))[:reach]
        return Ranked(rids[order], scores[order], self._distances(scores[order]))

    def scores(self, rids: Rids) -> Scores:
        mine = self.rows()
        there = np.fromiter((rid in mine for rid in rids.tolist()), np.bool_, len(rids))
        found = np.full(len(rids), np.nan)
        found[there] = self._exact(np.ascontiguousarray(rids[there]))
        return found

    def stored(self, rids: Rids) -> list[tuple[str, Any] | None]:
        """What rows have in the field, as users read it, with its name; None for a row without."""
        mine, txn = self._holding(), self.place.txn
        return [
            (self.name, vectors.shown(vectors.get_many(txn, self._cid, self.layout, rid), self.declared))
            if rid in mine else None
            for rid in rids.tolist()
        ]  # fmt: skip

    def _pending(self) -> Any:
        """The pending changes of the transaction that is searched in, if it is one."""
        batch = self.place.verbs._db._local.batch
        if batch is None or batch.txn is not self.place.txn:
            return None
        return batch.writing(self._cid)


def border(scores: Scores, reach: int) -> float:
    """The `reach`-th best of scores."""
    return float(np.partition(scores, len(scores) - reach)[len(scores) - reach])


def named(schema: Schema, using: str | None, query: str, kind: str, remedy: str, *, sparse: bool) -> str:
    """The name of the field that is meant: the only one of its kind, where none is named.

    `kind` and `remedy` are what messages say of such a field, and of how to declare one.
    """
    fitting = [
        name for name, each in schema.vectors.items() if (each.sparse if sparse else each.multi)
    ]
    listed = ", ".join(map(repr, fitting)) or "none"
    if using is None:
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            said = f"several fields {kind}: give using=, one of {listed}"
        else:
            said = f"no vector field {kind}; declare one: {remedy}"
        raise InvalidArgument(f"{query}: collection {schema.name!r} has {said}")
    if using not in schema.vectors:
        raise InvalidArgument(
            f"{query}: using={using!r:.60}: collection {schema.name!r} has no such vector field; those "
            f"{kind}: {listed}"
        )
    if using not in fitting:
        raise InvalidArgument(f"{query}: using={using!r:.60} is no field {kind}; there are: {listed}")
    return using
