"""How is what a query found put in another order? Rerank.

Invariants:
  K1  the rows are the best `depth` of the query (at least as many as are wanted), whatever `by` says of
      them; rows that `by` does not match come last, in the order in which they were found;
  K2  what a callable returns is checked before it is used: a score for each hit, none of them NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pyroaring import BitMap

from vecdb.errors import InvalidArgument
from vecdb.query.objects import Near, Query, Rerank, Text
from vecdb.ranking.base import Place, Ranked, Ranker

if TYPE_CHECKING:
    from collections.abc import Callable

    from vecdb.ranking.base import Rids, Scores


class RerankRanker(Ranker):
    """One ranker's rows in another one's order, or a callable's."""

    independent = False

    def __init__(
        self, place: Place, query: Query, first: Ranker, by: Ranker | None,
        shown: Callable[[Ranked], Any],
    ) -> None:  # fmt: skip
        super().__init__(place, query)
        self.rerank = cast("Rerank", query)
        self.first, self.by = first, by
        self._shown = shown  # ranked rows as Hits
        self.found: list[Ranked] = []  # what the query gave, then in the order of `by`
        self.fixed: int | None = None  # the depth, whatever is wanted
        self.has_distances = by is not None and by.has_distances

    @property
    def parts(self) -> list[Ranker]:
        return [self.first] if self.by is None else [self.first, self.by]

    def matching(self) -> int:
        return self.first.matching()

    def rows(self) -> BitMap:
        return self.first.rows()

    def best(self, reach: int) -> Ranked:
        first = self.first.best(self.depth(reach))
        scores = self._scores(first)
        order = np.argsort(-scores, kind="stable")
        ranked = Ranked(first.rids[order], scores[order])
        self.found = [first] if self.by is None else [first, ranked]
        return ranked.cut(0, reach)

    def depth(self, reach: int) -> int:
        """How many of the query's best are ranked anew."""
        return max(self.rerank.depth, reach) if self.fixed is None else self.fixed

    def scores(self, rids: Rids) -> Scores:
        return self.best(max(1, self.matching())).scores_of(rids)

    def lacks(self, rid: int) -> str | None:
        return self.first.lacks(rid)

    def strategy(self) -> str:
        return f"rerank the best {self.rerank.depth:,}"

    def _scores(self, first: Ranked) -> Scores:
        if self.by is not None:
            found = self.by.scores(first.rids)
            return cast("Scores", np.where(np.isnan(found), -np.inf, found))
        if not len(first.rids):
            return np.empty(0)
        given = cast("Callable[..., Any]", self.rerank.by)(asked(self.rerank.query), self._shown(first))
        return _checked(given, len(first.rids))


def asked(query: Query) -> Any:
    """What a callable is told that was searched for: the query's text, where it has one."""
    level = [query]
    while level:
        for each in level:
            if isinstance(each, Text):
                return each.text
            if isinstance(each, Near) and isinstance(each.x, str):
                return each.x
        level = [part for each in level for part in each.parts]
    return query


def _checked(given: Any, n: int) -> Scores:
    try:
        scores = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument(f"Rerank: what the callable returned are no scores: {error}") from None
    if scores.shape != (n,):
        raise InvalidArgument(
            f"Rerank: the callable returned scores of shape {scores.shape} for {n} hits; return one for each"
        )
    if np.isnan(scores).any():
        raise InvalidArgument(f"Rerank: the callable's score {int(np.isnan(scores).argmax())} is NaN")
    return scores
