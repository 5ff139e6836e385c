"""How are queries by vectors and examples answered? Near, Like, Context.

    Near                  the collection's own search: walk or scan, as the planner chooses
    Like, "average"       one search near the examples' combination
    Like, "best"          the rows near each positive example, scored exactly, until no other can be better
    Context, and Like     every match: most rows may have the same score, and no walk leads to the others
    without positives

Formulas: Qdrant's recommend and context queries (its source names `best_score` and `context`), with
squash(x) = (x / (1 + |x|) + 1) / 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from pyroaring import BitMap

from vecdb.errors import InvalidArgument
from vecdb.query.objects import Context, Like, Near, Query
from vecdb.ranking.base import Place, Ranked, Ranker
from vecdb.ranking.vectors import VectorField
from vecdb.types import Plan

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.ranking.base import Rids, Scores

FIRST_DEPTH: Final = 4  # times what is wanted, near each positive example


class NearRanker(Ranker):
    """Rows near one vector."""

    has_distances = True

    def __init__(self, place: Place, query: Query) -> None:
        super().__init__(place, query)
        near = cast("Near", query)
        self.field = VectorField(place, near.using or place.using, [near.x])
        self.vector = self.field.vector(near.x, ids=False)

    def matching(self) -> int:
        if self.place.request.radius is None:
            return self.field.matching()
        return len(self.rows())

    def rows(self) -> BitMap:
        found = self.field.rows()
        radius = self.place.request.radius
        if radius is None:
            return found
        rids = np.frombuffer(found.to_array(), np.uint32)
        near = self.field.distances(self.vector, rids) <= np.float32(radius)
        return BitMap(rids[near])

    def counted(self) -> int | None:
        return self.field.matching() if self.place.request.radius is None else None

    def best(self, reach: int) -> Ranked:
        return self.field.nearest(self.vector, reach)

    def scores(self, rids: Rids) -> Scores:
        return _inside(self.field, rids, self.field.scored(self.field.distances(self.vector, rids)))

    def lacks(self, rid: int) -> str | None:
        return self.field.lacks(rid)

    def sketch(self, *, count: bool = False) -> Callable[[], Plan]:
        origin, query = self.field.origin(self.place.request.k), self.query
        matches = self.matching() if count else self.counted()
        return lambda: replace(origin.plan(), query=repr(query), matches=matches)


class AverageRanker(NearRanker):
    """Rows near the examples' combination."""

    def __init__(self, place: Place, query: Query) -> None:
        Ranker.__init__(self, place, query)
        like = cast("Like", query)
        field = self.field = VectorField(place, like.using or place.using, (*like.positive, *like.negative))
        positive = self._mean(like.positive)
        made = positive if not like.negative else 2 * positive - self._mean(like.negative)
        found = made.astype(np.float32)
        if field.declared.metric == "cosine" and not np.any(found):
            raise InvalidArgument("Like: the positive and negative examples cancel each other out")
        self.vector = found

    def _mean(self, examples: tuple[object, ...]) -> npt.NDArray[np.float64]:
        listed = np.stack([self.field.vector(each) for each in examples]).astype(np.float64)
        if self.field.declared.metric == "cosine":
            listed /= np.linalg.norm(listed, axis=1, keepdims=True)
        return cast("npt.NDArray[np.float64]", listed.mean(axis=0))


class _Exact(Ranker, ABC):
    """Every match is scored: the ground of the others."""

    field: VectorField

    def matching(self) -> int:
        return self.field.matching()

    def counted(self) -> int | None:
        return self.field.matching()

    def rows(self) -> BitMap:
        return self.field.rows()

    def best(self, reach: int) -> Ranked:
        rids = np.frombuffer(self.rows().to_array(), np.uint32)
        return _top(rids, self.scores(rids), reach)

    def scores(self, rids: Rids) -> Scores:
        return _inside(self.field, rids, self._scored(rids))

    @abstractmethod
    def _scored(self, rids: Rids) -> Scores:
        """Scores of rows that have a vector in the field."""

    def lacks(self, rid: int) -> str | None:
        return self.field.lacks(rid)

    def strategy(self) -> str:
        return "exact scan"


class BestRanker(_Exact):
    """Rows by their nearest example."""

    def __init__(self, place: Place, query: Query) -> None:
        super().__init__(place, query)
        like = cast("Like", query)
        self.field = VectorField(place, like.using or place.using, (*like.positive, *like.negative))
        self.positive = [self.field.vector(each) for each in like.positive]
        self.negative = [self.field.vector(each) for each in like.negative]

    def best(self, reach: int) -> Ranked:
        matching, depth = self.matching(), FIRST_DEPTH * reach + 16
        if not self.positive or self.place.request.complete:
            return super().best(reach)
        while depth < matching:
            lists = [self.field.nearest(each, depth) for each in self.positive]
            rids = np.unique(np.concatenate([each.rids for each in lists]))
            found = _top(rids, self.scores(rids), reach)
            beyond = max(float(each.scores[-1]) for each in lists)  # what no other row surpasses
            if len(found.rids) == reach and found.scores[-1] >= _squash(np.array([beyond]))[0]:
                return found
            depth *= 4
        return super().best(reach)

    def _scored(self, rids: Rids) -> Scores:
        liked = self._likeness(self.positive, rids)
        disliked = self._likeness(self.negative, rids)
        return cast("Scores", np.where(liked > disliked, _squash(liked), -_squash(disliked)))

    def _likeness(self, examples: list[npt.NDArray[np.float32]], rids: Rids) -> Scores:
        found = np.full(len(rids), -np.inf)
        for each in examples:
            found = np.maximum(found, self.field.scored(self.field.distances(each, rids)))
        return found

    def strategy(self) -> str:
        return "nearest of each example" if self.positive else "exact scan"


class ContextRanker(_Exact):
    """Rows on the right side of pairs."""

    def __init__(self, place: Place, query: Query) -> None:
        super().__init__(place, query)
        context = cast("Context", query)
        examples = [each for pair in context.pairs for each in pair]
        self.field = VectorField(place, context.using or place.using, examples)
        self.pairs = [(self.field.vector(one), self.field.vector(other)) for one, other in context.pairs]

    def _scored(self, rids: Rids) -> Scores:
        found = np.zeros(len(rids))
        for positive, negative in self.pairs:
            liked = _squash(self.field.scored(self.field.distances(positive, rids)))
            disliked = _squash(self.field.scored(self.field.distances(negative, rids)))
            found += np.minimum(0.0, liked - disliked)
        return found


def like(place: Place, query: Query) -> Ranker:
    """The ranker of a Like."""
    average = cast("Like", query).strategy == "average"
    return AverageRanker(place, query) if average else BestRanker(place, query)


def _squash(x: Scores) -> Scores:
    """Any number to between 0 and 1, keeping the order."""
    with np.errstate(invalid="ignore"):
        return cast("Scores", np.where(np.isneginf(x), 0.0, (x / (1 + np.abs(x)) + 1) / 2))


def _top(rids: Rids, scores: Scores, reach: int) -> Ranked:
    """The best of scored rows, ties by row number."""
    if reach < len(rids):
        border = np.partition(scores, len(scores) - reach)[len(scores) - reach]
        kept = scores >= border
        rids, scores = rids[kept], scores[kept]
    order = np.lexsort((rids, -scores))[:reach]
    return Ranked(rids[order], scores[order])


def _inside(field: VectorField, rids: Rids, scores: Scores) -> Scores:
    """Scores, with NaN for rows that are no matches."""
    if len(rids) > 64:
        mine = np.frombuffer(field.rows().to_array(), np.uint32)
        outside = ~np.isin(rids, mine)
    else:
        rows = field.rows()
        outside = np.fromiter((rid not in rows for rid in rids.tolist()), np.bool_, len(rids))
    scores = scores.copy()
    scores[outside] = np.nan
    return scores
