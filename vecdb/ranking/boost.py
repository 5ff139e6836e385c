"""What do boosts add to a score? Decay and Field, over rows' metadata.

    Decay    weight · 0.5 ** (distance / scale): numbers, times (seconds), places (km)
    Field    weight · value, or weight · log(1 + value)

A boosted ranking is right for all matches whose score alone could matter: rows are taken in the order of
their own scores until what the rest could gain at most would not bring them among the best. A Field has
no bound; then, and beyond MOST rows, the search goes by the best MOST, unless it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from vecdb.query.boosts import Boost, Decay, Field
from vecdb.query.geo import distance_km
from vecdb.query.source import flat
from vecdb.ranking.base import Ranked, Ranker

if TYPE_CHECKING:
    from vecdb.ranking.base import Rids, Scores

FIRST: Final = 5  # times what is wanted, of the best by their own scores
LEAST: Final = 100
MOST: Final = 4_096
WORTH: Final = 1e36  # that one boost adds at most, so that scores are finite in float32


def boosted(ranker: Ranker, boosts: tuple[Boost, ...], reach: int) -> tuple[Ranked, Scores]:
    """The best `reach` by score and boosts, and what the boosts added to each."""
    matching, now = ranker.matching(), datetime.now(UTC)
    most = most_gained(boosts)
    limit = matching if ranker.place.request.complete else min(matching, max(MOST, FIRST * reach))
    depth = min(limit, max(LEAST, FIRST * reach))
    while True:
        found = ranker.best(depth)
        gained = gains(ranker, found.rids, boosts, now)
        scores = found.scores + gained
        order = np.lexsort((np.arange(len(scores)), -scores))[:reach]
        if depth >= limit or _settled(found, scores[order], reach, most):
            break
        depth = min(limit, 4 * depth)
    distances = None if found.distances is None else found.distances[order]
    return Ranked(found.rids[order], scores[order], distances), gained[order]


def _settled(found: Ranked, best: Scores, reach: int, most: float) -> bool:
    """Whether no row beyond what was found can be among the best."""
    if len(best) < reach:
        return False
    last = float(found.scores[-1])  # -inf: of rows without a score, which no boost brings up
    return last == -math.inf or last + most <= best[-1]


def most_gained(boosts: tuple[Boost, ...]) -> float:
    """What boosts can add to a score at most."""
    return sum(max(0.0, each.weight) if isinstance(each, Decay) else math.inf for each in boosts)


def gains(ranker: Ranker, rids: Rids, boosts: tuple[Boost, ...], now: datetime) -> Scores:
    """What the boosts add to each row's score."""
    parse = ranker.place.verbs._parse
    found = np.zeros(len(rids))
    for at, payload in enumerate(ranker.place.payloads(rids)):
        fields = flat(parse(payload).metadata)
        found[at] = sum(max(-WORTH, min(WORTH, gain(boost, fields, now))) for boost in boosts)
    return found


def gain(boost: Boost, fields: Mapping[str, Any], now: datetime) -> float:
    """What one boost adds to a row with these (flattened) fields."""
    value = fields.get(cast("Any", boost).field)
    if isinstance(boost, Decay):
        distance = _distance(value, now if boost.origin == "now" else boost.origin)
        return 0.0 if distance is None else boost.weight * 0.5 ** (distance / boost.scale)
    assert isinstance(boost, Field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    number = _float(value)
    if not math.isfinite(number):
        return 0.0
    if boost.transform == "log1p":
        number = math.log1p(max(0.0, number))
    return boost.weight * number


def _distance(value: Any, origin: Any) -> float | None:
    """How far a value is from the origin; None where they cannot be compared."""
    if isinstance(origin, datetime):
        return abs((value - origin).total_seconds()) if isinstance(value, datetime) else None
    if isinstance(origin, tuple):
        return _km(value, origin)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    found = abs(_float(value) - _float(origin))
    return None if math.isnan(found) else found


def _km(value: Any, origin: tuple[float, float]) -> float | None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in value):
        return None
    latitude, longitude = map(float, value)
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None
    return distance_km((latitude, longitude), origin)


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
