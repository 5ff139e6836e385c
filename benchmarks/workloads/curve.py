"""Speed at a wanted recall, read off a sweep over efforts."""

from __future__ import annotations

import math
from collections.abc import Iterable


def at_recall(points: Iterable[tuple[float, float]], wanted: float) -> float | None:
    """Return queries a second at a recall, from (recall, queries a second); None out of reach.

    Between two points the logarithm of the speed is taken as linear in recall. Of the points
    that others beat in both respects nothing is kept.

    >>> round(at_recall([(0.9, 400.0), (1.0, 100.0)], 0.95))
    200
    """
    front: list[tuple[float, float]] = []
    for recall, qps in sorted(points, reverse=True):
        if not front or qps > front[-1][1]:
            front.append((recall, qps))
    if not front or front[0][0] < wanted:
        return None
    better = front[0]
    for worse in front[1:]:
        if worse[0] < wanted:
            share = (wanted - worse[0]) / (better[0] - worse[0])
            return math.exp(
                math.log(worse[1]) + share * (math.log(better[1]) - math.log(worse[1]))
            )
        better = worse
    return better[1]
