"""What do hits know of the query that found them? Plans, explanations, highlights.

Users keep hits for as long as they like: what is kept here are names, numbers and small arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from vecdb.ranking.base import Place, Ranked, Ranker
from vecdb.types import Explanation, Plan, Record, shorten

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vecdb.ranking.base import Rids


class Told(NamedTuple):
    """What one query inside found."""

    query: Any
    ranked: Ranked | None
    parts: list[Told]

    def explain(self, rid: int) -> Explanation:
        """Where a row stands in it."""
        parts = tuple(part.explain(rid) for part in self.parts)
        name = self._name()
        at = _where(self.ranked, rid)
        if at is None or self.ranked is None:
            return Explanation(name, None, float("nan"), parts=parts)
        distances = self.ranked.distances
        far = float("nan") if distances is None else float(distances[at])
        return Explanation(name, at + 1, float(self.ranked.scores[at]), far, parts=parts)


    def named(self) -> Told:
        """The same with its query's name alone: a callable inside cannot be pickled."""
        return Told(self._name(), self.ranked, [each.named() for each in self.parts])

    def _name(self) -> str:
        return self.query if isinstance(self.query, str) else shorten(repr(self.query), 100)


def _where(ranked: Ranked | None, rid: int) -> int | None:
    if ranked is None:
        return None
    found = (ranked.rids == rid).nonzero()[0]
    return int(found[0]) if len(found) else None


def told(ranker: Ranker, ranked: Ranked | None) -> Told:
    """What a ranker found, part by part."""
    found: list[Ranked] = getattr(ranker, "found", [])
    parts = ranker.parts
    known = [*found, *[None] * (len(parts) - len(found))]
    return Told(ranker.query, ranked, [told(p, r) for p, r in zip(parts, known, strict=True)])


def sketched(place: Place, ranker: Ranker, shape: Any, *, count: bool = False) -> Callable[[], Plan]:
    """What makes the plan of a query at a place when somebody looks at it."""
    request, rows, sketch = place.request, place.view.state.live, ranker.sketch(count=count)
    return lambda: replace(
        sketch(), k=request.k, rows=rows, offset=request.offset, radius=request.radius,
        filter=None if request.where is None else str(request.where), shape=str(shape),
        wanted="exact" if request.complete else f"recall {request.recall:g}",
    )  # fmt: skip


def _known(plan: Plan) -> Plan:
    return plan


class Composed:
    """What hits of a query object know (types.Source)."""

    __slots__ = (
        "_gained", "_highlighter", "_offset", "_parse", "_plan", "_rids", "_stored", "_told", "given_scores",
        "sizes",
    )  # fmt: skip

    metric = ""
    dim = 0

    def __init__(
        self,
        plan: Callable[[], Plan],
        told: Told | None,
        rids: Rids,
        scores: npt.NDArray[np.float32],
        sizes: list[tuple[Any, int]] | None,
        gained: dict[int, float],
        highlighter: Callable[[Record], list[Any]] | None,
        parse: Callable[[bytes], Record],
        stored: list[Any] | None,
        offset: int,
    ) -> None:
        self._plan, self._told, self._rids, self.given_scores = plan, told, rids, scores
        self.sizes, self._gained, self._highlighter = sizes, gained, highlighter
        self._parse, self._stored, self._offset = parse, stored, offset

    def __reduce__(self) -> tuple[Any, ...]:
        told = None if self._told is None else self._told.named()
        return Composed, (
            partial(_known, self._plan()), told, self._rids, self.given_scores, self.sizes, self._gained,
            self._highlighter, self._parse, self._stored, self._offset,
        )  # fmt: skip

    def record(self, at: int, payload: bytes) -> Record:
        """The row of hit `at`."""
        record = self._parse(payload)
        if self._stored is not None and self._stored[at] is not None:
            name, vector = self._stored[at]
            record.vectors = {name: vector}
        return record

    def highlights(self, at: int, record: Record) -> list[Any]:
        """The snippets of hit `at` with the words that a Text matched."""
        return [] if self._highlighter is None else self._highlighter(record)

    def explain(self, at: int, score: float, distance: float) -> Explanation:
        """What made the score of hit `at`."""
        rid = int(self._rids[at])
        gained = self._gained.get(rid, 0.0)
        if self._told is None:
            return Explanation("", self._offset + at + 1, score, distance, gained)
        found = self._told.explain(rid)
        rank = self._offset + at + 1 if self.sizes is None else at + 1
        return replace(found, rank=rank, score=score, distance=distance, boost=gained)

    def plan(
        self, computed: int = 0, search_ns: int = 0, total_ns: int = 0, fallback: bool = False,
        filter_ns: int = 0,
    ) -> Plan:  # fmt: skip
        """What ran."""
        return replace(
            self._plan(), distances=computed, search_us=search_ns / 1000, total_us=total_ns / 1000,
            filter_us=filter_ns / 1000, fallback=fallback,
        )  # fmt: skip
