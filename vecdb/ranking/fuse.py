"""How is what several queries found put together? Fuse.

    rrf         sum of weight / (60 + rank): Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion" (2009)
    weighted    sum of weight · score
    relative    sum of weight · (score - worst) / (best - worst) over what the part found; all 1 where equal

Invariants:
  U1  each part gives its best `depth` rows, at least as many as are wanted: so a fusion is never short
      while any part has matches left;
  U2  ties are ranked by id: reciprocal ranks tie all the time, and row numbers are nobody's business.

Rejected: asking each part for the scores of rows that only others found. The published methods do not,
and a part's rank of such a row would cost a full ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from pyroaring import BitMap

from vecdb.query.objects import Fuse, Query
from vecdb.ranking.base import Place, Ranked, Ranker, nothing
from vecdb.ranking.text import by_id

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.ranking.base import Rids, Scores

RANK_CONSTANT: Final = 60
MOST: Final = 1e36  # that a part adds to a score, so that sums are finite in float32
LEAST_DEPTH: Final = 100
DEPTH_PER_HIT: Final = 5
KEPT_RANKS: Final = 1000  # what as many ranks are worth is remembered


class FuseRanker(Ranker):
    """Several rankers as one."""

    independent = False

    def __init__(self, place: Place, query: Query, parts: list[Ranker]) -> None:
        super().__init__(place, query)
        self._parts = parts
        self.fuse = cast("Fuse", query)
        self.found: list[Ranked] = []  # what each part gave, last
        self.has_distances = len(parts) == 1 and parts[0].has_distances
        self.fixed: int | None = None  # the depth, whatever is wanted
        self._all: Ranked | None = None

    @property
    def parts(self) -> list[Ranker]:
        return self._parts

    def rows(self) -> BitMap:
        return BitMap.union(BitMap(), *(each.rows() for each in self.parts))

    def best(self, reach: int) -> Ranked:
        self.found = [each.best(self.depth(reach)) for each in self.parts]
        return self._fused(reach)

    def depth(self, reach: int) -> int:
        """How many of each part's best count."""
        if self.fixed is not None:
            return self.fixed
        k = self.place.request.k
        usual = max(DEPTH_PER_HIT * (reach if k is None else k), LEAST_DEPTH)
        return max(self.fuse.depth or usual, reach)

    def scores(self, rids: Rids) -> Scores:
        if self._all is None:
            count = self.matching()
            self._all = self.best(count) if count else nothing()
        return self._all.scores_of(rids)

    def strategy(self) -> str:
        return f"fuse, {self.fuse.method}"

    def _fused(self, reach: int) -> Ranked:
        found = self.found
        if len(found) == 1 and found[0].distances is not None:
            score = self._worth(0)
            order = np.argsort(-score, kind="stable")[:reach]
            return Ranked(found[0].rids[order], score[order], found[0].distances[order])
        if not any(len(each.rids) for each in found):
            return nothing()
        first = found[0].rids.tolist()  # each row once (R1)
        worth: dict[int, float] = dict(zip(first, self._gains(0), strict=True))
        for at, each in enumerate(found[1:], 1):
            for rid, gained in zip(each.rids.tolist(), self._gains(at), strict=True):
                worth[rid] = worth.get(rid, 0.0) + gained
        return best_by_id(worth, reach, self.place.ids)

    def _gains(self, part: int) -> Sequence[float]:
        """The same as `_worth`; reciprocal ranks are the same every time."""
        n = len(self.found[part].rids)
        if self.fuse.method == "rrf" and self.fuse.weights is None and n <= KEPT_RANKS:
            return _reciprocals(n)
        gains: list[float] = self._worth(part).tolist()
        return gains

    def _worth(self, part: int) -> npt.NDArray[np.float64]:
        """What each row of a part's ranking gets for it."""
        ranked, method = self.found[part], self.fuse.method
        weight = 1.0 if self.fuse.weights is None else self.fuse.weights[part]
        if method == "rrf":
            return weight / (RANK_CONSTANT + np.arange(1, len(ranked.rids) + 1))
        scores = ranked.scores
        told = np.isfinite(scores)  # no rows that a Rerank's `by` does not match: they get nothing
        if not told.any():
            return np.zeros(len(scores))
        if method == "weighted":
            return np.clip(weight * np.where(told, scores, 0.0), -MOST, MOST)
        low, high = float(scores[told].min()), float(scores[told].max())
        scaled = np.ones(len(scores)) if high == low else (np.where(told, scores, low) - low) / (high - low)
        return weight * np.where(told, scaled, 0.0)


@lru_cache(maxsize=32)
def _reciprocals(n: int) -> Sequence[float]:
    """What the ranks from 1 on are worth: the doubles that numpy makes of them, too."""
    return [1.0 / (RANK_CONSTANT + rank) for rank in range(1, n + 1)]


def best_by_id(worth: dict[int, float], reach: int, ids: Any) -> Ranked:
    """The best `reach` rows by what they are worth, ties by id; `ids(rids)` gives the ids of rows.

    Plain Python: some two hundred rows are too few for numpy's calls to pay.
    """
    kept = list(worth.items())
    if reach < len(kept):
        border = sorted(worth.values(), reverse=True)[reach - 1]
        kept = [each for each in kept if each[1] >= border]
    kept.sort(key=_falling)
    rids, scores = np.array([rid for rid, _ in kept], np.uint32), np.array([score for _, score in kept])
    return Ranked(by_id(rids, scores, ids)[:reach], scores[:reach])


def _falling(entry: tuple[int, float]) -> float:
    return -entry[1]
