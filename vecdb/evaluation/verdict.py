"""Which system is best, which differences are real, and what would settle the rest? In plain words.

All pairs are compared by the first metric; p-values are corrected for their number by Holm's method, so that
one false "beats" among all sentences is as rare as 5 % says. A pair that is not decided is said with the
number of further judged queries at which a difference like the one seen would be found four times of five,
at the level that Holm's method asks of the first of the undecided.

A ± is half the width of the interval of that difference alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vecdb.evaluation.significance import (
    FLIPS,
    MOST_NEEDED,
    Comparison,
    Estimate,
    compare,
    holm,
    more_needed,
)
from vecdb.types import Id

CHANCE: Final = 0.05
MOST_SAID: Final = 12  # sentences on undecided pairs


@dataclass(frozen=True, slots=True)
class Pair:
    """Two systems by one metric, the better first: `.better`, `.worse`, `.compared`, `.p_adjusted`, `.more`.

    `more`: judged queries that would settle it; None where it is decided, or where none would within reason.
    """

    better: str
    worse: str
    compared: Comparison
    p_adjusted: float
    more: int | None

    @property
    def decided(self) -> bool:
        """Whether the difference is more than chance, all pairs considered."""
        return self.p_adjusted <= CHANCE

    def __str__(self) -> str:
        difference = said_difference(self.compared)
        said = f"{self.better} against {self.worse} ({difference}, p = {self.p_adjusted:.2g})"
        if self.decided:
            return said
        if self.more is not None:
            return f"{said}: {self.more:,} more judged queries would settle it"
        if not self.compared.differing:
            return f"{self.better} against {self.worse}: they are equal on every query"
        if self.compared.queries == 1:
            return f"{said}: one query decides nothing"
        return f"{said}: as good as equal; {MOST_NEEDED:,} more judged queries would not settle it"


def pairs_of(estimates: Mapping[str, Estimate], seed: int) -> list[Pair]:
    """All pairs of systems, the best first, with corrected p-values; systems by falling mean."""
    names = ranked(estimates)
    values = {name: _values(estimates[name].per_query, estimates[names[0]].per_query) for name in names}
    pairs = [(a, b) for at, a in enumerate(names) for b in names[at + 1 :]]
    flips = max(FLIPS, 40 * len(pairs))  # the smallest p-value stays below the level, corrected
    compared = [compare(values[a], values[b], seed=seed, flips=flips) for a, b in pairs]
    adjusted = holm([each.p_value for each in compared])
    open_pairs = sum(p > CHANCE for p in adjusted)
    found = []
    for (a, b), each, p in zip(pairs, compared, adjusted, strict=True):
        more = None
        if p > CHANCE:
            level = 1 - CHANCE / open_pairs
            more = more_needed(values[a], values[b], level=level, p_value=each.p_value)
        found.append(Pair(a, b, each, p, more))
    return found


def ranked(estimates: Mapping[str, Estimate]) -> list[str]:
    """Names by falling mean, equal ones as they were given."""
    return sorted(estimates, key=lambda name: -estimates[name].mean)


def verdict_of(metric: str, estimates: Mapping[str, Estimate], pairs: list[Pair]) -> str:
    """The verdict by one metric, a sentence a line."""
    names = ranked(estimates)
    best = estimates[names[0]]
    queries = len(best.per_query)
    lines = [f"Best by {metric} of {counted(queries, 'query')}: {names[0]}, {said(best)}."]
    if len(names) == 1:
        return f"{metric} of {counted(queries, 'query')}: {said(best)}."
    for name in names[:-1]:
        beaten = [each for each in pairs if each.better == name and each.decided]
        if beaten:
            told = ", ".join(f"{each.worse} by {said_difference(each.compared)}" for each in beaten)
            lines.append(f"{name} beats {told}.")
    undecided = [each for each in pairs if not each.decided]
    lines += [f"Not decided: {each}." for each in undecided[:MOST_SAID]]
    if len(undecided) > MOST_SAID:
        lines.append(f"Not decided: {len(undecided) - MOST_SAID:,} pairs more.")
    if len(pairs) > 1:
        lines.append(f"All {len(pairs):,} pairs are judged together, at the 5 % level (Holm).")
    return "\n".join(lines)


def said(estimate: Estimate) -> str:
    """A mean with its interval, which need not lie evenly around it."""
    return f"{estimate.mean:.3f}" if estimate.low != estimate.low else repr(estimate)


def said_difference(compared: Comparison) -> str:
    """A difference with half the width of its interval, with as many digits as it needs to be seen."""
    digits = 3 if abs(compared.difference) >= 0.0095 or not compared.difference else 4
    half = compared.half
    shown = f"{compared.difference:.{digits}f}"
    return shown if half != half else f"{shown} ± {half:.{digits}f}"


def counted(count: int, what: str) -> str:
    """A number of things."""
    plural = f"{what[:-1]}ies" if what.endswith("query") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"


def _values(own: Mapping[Id, float], order: Mapping[Id, float]) -> list[float]:
    return [own[query] for query in order]
