"""Why is a row not among the hits of a query object?

The answers, the first that holds: it is returned; the query says nothing about it (no vector, none of the
words, ...); it lies beyond the radius; no part put it forward; it has no value to be grouped by, or
others of its group are before it; it stands before the offset or after the last hit; another one was
taken that is less like those taken before (diversity); or the search missed it.

Ranks are those of the same query with exact=True, every match ranked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from vecdb.ranking import diverse, group
from vecdb.ranking.base import Ranked
from vecdb.ranking.fuse import FuseRanker
from vecdb.ranking.near import NearRanker
from vecdb.ranking.rerank import RerankRanker
from vecdb.types import shorten

if TYPE_CHECKING:
    from vecdb.collection.composing import Run
    from vecdb.ranking.base import Ranker

SHOWN: Final = 60  # characters of a query


class Absence:
    """A row that was looked for among the hits of a query."""

    def __init__(self, run: Run, rid: int) -> None:
        self.run, self.rid = run, rid
        self.request = run.place.request

    def reason(self) -> str:
        """Why it is not among them, after "it"."""
        ranked, sizes = self.run.ranked()
        at = _at(ranked, self.rid)
        if at is not None:
            return self._returned(ranked, sizes, at)
        lacking = self._lacking()
        if lacking is not None:
            return lacking
        everything = self._exactly()
        rank = _at(everything, self.rid)
        if rank is None:
            return self._not_put_forward()
        standing = self._standing(everything, rank)
        if self.run.shape.group_by is not None:
            return self._group(everything, rank, ranked, sizes or [])
        if rank < self.request.offset:
            return f"is {standing}: among the first {self.request.offset:,}, which offset leaves out"
        if self.request.k is not None and rank >= self._reach():
            return f"is {standing}; {self._last(everything)}"
        if self.run.shape.diversity:
            return f"is {standing}, but diversity chose others, which are less like each other"
        return f"is missed by approximation: {standing}; exact=True finds it"

    def _returned(self, ranked: Ranked, sizes: object, at: int) -> str:
        place = f"hit {at + 1}" if sizes is not None else f"hit {at + 1 + self.request.offset}"
        if self.request.offset and sizes is None:
            place = f"hit {at + 1}, rank {at + 1 + self.request.offset},"
        return f"is returned: {place} of the search, score {ranked.scores[at]:.6g}"

    def _reach(self) -> int:
        k, offset = self.request.k, self.request.offset
        assert k is not None
        return diverse.candidates(k + offset) if self.run.shape.diversity else k + offset

    def _lacking(self) -> str | None:
        """Why the query says nothing about the row; for a fusion, why each part does not."""
        return _lacking(self.run.ranker, self.rid)

    def _exactly(self) -> Ranked:
        """Every match, ranked exactly, boosts added."""
        run = self.run
        place = run.place._replace(request=replace(self.request, exact=True))
        exact = self.exact = run.verbs._ranker(place, run.query)
        if isinstance(exact, FuseRanker | RerankRanker) and self.request.k is not None:
            exact.fixed = exact.depth(self._reach())  # as deep as the search itself went
        return run.rank(exact, exact.matching())

    def _standing(self, everything: Ranked, rank: int) -> str:
        far = "" if everything.distances is None else f", distance {everything.distances[rank]:.6g}"
        gained = self.run.gained.get(self.rid)
        boost = "" if gained is None else f" (boosts {gained:.6g})"
        score = everything.scores[rank]
        return f"ranked {rank + 1:,} of {len(everything.rids):,} matches, at score {score:.6g}{boost}{far}"

    def _last(self, everything: Ranked) -> str:
        at = min(self._reach(), len(everything.rids)) - 1
        if self.run.shape.diversity:
            return f"diversity chooses among the best {at + 1:,}"
        return f"the last of the {self.request.k:,} hits is at score {everything.scores[at]:.6g}"

    def _not_put_forward(self) -> str:
        """It matches, and is in no part's best."""
        ranker = self.exact
        if isinstance(ranker, FuseRanker):
            said = []
            for at, part in enumerate(ranker.parts):
                lacking = part.lacks(self.rid)
                said.append(f"part {at + 1}, {_name(part)}, {lacking or self._rank_in(part)}")
            return f"is not among the best {ranker.depth(1):,} of any part: {'; '.join(said)}"
        if isinstance(ranker, RerankRanker):
            depth = ranker.depth(1)
            first = ranker.first
            return f"is not among the best {depth:,} that are ranked anew: {self._rank_in(first)}"
        return "is among the matches, but was not ranked"

    def _rank_in(self, part: Ranker) -> str:
        found = part.best(part.matching())
        at = _at(found, self.rid)
        if at is None:
            return "does not put it forward"
        return f"ranks it {at + 1:,} of {len(found.rids):,}, at score {found.scores[at]:.6g}"

    def _group(self, everything: Ranked, rank: int, ranked: Ranked, sizes: list[tuple[object, int]]) -> str:
        field, size = self.run.shape.group_by, self.run.shape.group_size
        assert field is not None
        place = self.run.place
        payload = place.payloads(np.array([self.rid], np.uint32))[0]
        values = group.values_of(place.verbs._parse(payload).metadata, field)
        standing = self._standing(everything, rank)
        if not values:
            return f"has no value in {field!r}, by which hits are grouped; it is {standing}"
        shown = {group.key_of(value) for value, _ in sizes}
        mine = [value for value in values if group.key_of(value) in shown]
        if mine:
            return f"is {standing}, but {size:,} others of group {mine[0]!r} are before it"
        return f"is {standing}, and group {values[0]!r} is not among the {len(sizes):,} groups returned"


def _lacking(ranker: Ranker, rid: int) -> str | None:
    if isinstance(ranker, FuseRanker):
        said = [_lacking(part, rid) for part in ranker.parts]
        if any(each is None for each in said):
            return None
        if len(said) == 1:
            return said[0]
        told = [
            f"part {at + 1}, {_name(part)}: it {each}"
            for at, (part, each) in enumerate(zip(ranker.parts, said, strict=True))
        ]
        return f"is matched by no part; {'; '.join(told)}"
    if isinstance(ranker, RerankRanker):
        return _lacking(ranker.first, rid)
    found = ranker.lacks(rid)
    if found is None and isinstance(ranker, NearRanker) and rid not in ranker.rows():
        radius = ranker.place.request.radius
        distance = float(ranker.field.distances(ranker.vector, np.array([rid], np.uint32))[0])
        return f"lies beyond the radius {radius:.6g}: it is at distance {distance:.6g}"
    return found


def _name(ranker: Ranker) -> str:
    return shorten(repr(ranker.query), SHOWN)


def _at(ranked: Ranked, rid: int) -> int | None:
    found = np.flatnonzero(ranked.rids == rid)
    return int(found[0]) if len(found) else None
