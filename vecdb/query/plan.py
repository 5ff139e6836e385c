"""Which way is the cheapest that still answers right? A pure function of counts.

The planner knows the exact number of matching rows before it chooses. It weighs

    exact scan       every match ranked by its stored vector: right by construction
    code scan        every match ranked by its 7-bit code, the best of them by stored vectors
    graph            the walk; with a filter ("filtered graph") matches go to a pool of their own

A filtered walk has a budget of distance computations worth about one scan of the matches. When it
is spent, or the walk returns fewer than min(k, matches) rows, a scan answers instead, so that no
filtered query costs more than about twice its cheapest exact answer and none comes up short.

Costs are nanoseconds from vecdb/_core/README.md; what matters are their ratios.
Rejected: a fixed share of matching rows as the border. It is right at one size of collection only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Strategy = Literal["nothing", "exact scan", "code scan", "graph", "filtered graph"]

WALK_FIXED_NS: Final = 4_000.0
HOP_NS: Final = 150.0
NEW_PER_HOP: Final = 14.0  # neighbours not seen before: 24 at small widths, 9 at large ones
CODE_NS: Final = 8.0  # per code, and per byte of it:
CODE_BYTE_NS: Final = 0.05
STORED_NS: Final = 12.0
STORED_BYTE_NS: Final = 0.10
SELECTIVITY_POWER: Final = -0.83  # visited nodes over the share that matches (research: Lucene)
ALWAYS_EXACT: Final = 256  # matches below this are ranked exactly without a thought


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run, and what it was chosen over."""

    strategy: Strategy
    estimated_us: float
    budget: int  # distance computations that a filtered walk may spend, 0 without a limit
    rejected: tuple[tuple[str, float], ...]
    scan_us: float = 0.0  # estimated time of a scan, also where a walk was chosen and may come up short


@dataclass(frozen=True, slots=True)
class Question:
    """The counts that a choice rests on."""

    k: int
    matches: int
    ranked: int  # live rows with a vector
    ef: int
    code_bytes: int
    stored_bytes: int
    exact: bool
    may_walk: bool = True  # False: nobody knows how wide, and no width was given
    distances: float | None = None  # that such a walk makes, where it was measured


def choose(q: Question) -> Choice:
    """The cheapest way to answer."""
    if q.matches == 0 or q.k == 0:
        return Choice("nothing", 0.0, 0, ())
    exact_us = scan_us(q.matches, STORED_NS, STORED_BYTE_NS, q.stored_bytes)
    if q.exact or q.matches <= max(ALWAYS_EXACT, q.k):
        return Choice("exact scan", exact_us, 0, (), exact_us)
    code_us = scan_us(q.matches, CODE_NS, CODE_BYTE_NS, q.code_bytes) + exact_us * (
        2 * q.k / q.matches
    )
    walk_us = walk_cost_us(q)
    walk: Strategy = "graph" if q.matches == q.ranked else "filtered graph"
    costs: dict[Strategy, float] = {"exact scan": exact_us, "code scan": code_us}
    if q.may_walk:
        costs[walk] = walk_us
    best = min(costs, key=costs.__getitem__)
    rejected = tuple((name, cost) for name, cost in costs.items() if name != best)
    per_distance_us = (CODE_NS + CODE_BYTE_NS * q.code_bytes + HOP_NS / NEW_PER_HOP) / 1000
    budget = int(code_us / per_distance_us) + 64 if best == "filtered graph" else 0
    return Choice(best, costs[best], budget, rejected, min(exact_us, code_us))


def walk_cost_us(q: Question) -> float:
    """Estimated time of the walk: what it was measured to compute, else a guess from the counts."""
    distances = q.distances
    if distances is None:
        distances = (q.ef + 4) * NEW_PER_HOP * (q.matches / q.ranked) ** SELECTIVITY_POWER
    rerank = (1.2 * q.k + 2) * (STORED_NS + STORED_BYTE_NS * q.stored_bytes)
    each = CODE_NS + CODE_BYTE_NS * q.code_bytes + HOP_NS / NEW_PER_HOP
    return (WALK_FIXED_NS + distances * each + rerank) / 1000


def scan_us(rows: int, each_ns: float, byte_ns: float, row_bytes: int) -> float:
    """Estimated time of ranking that many rows."""
    return rows * (each_ns + byte_ns * row_bytes) / 1000
