"""Where on an axis does a number stand, and which numbers are written on it?

Steps are 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990).

Invariants (tests/unit/test_reports.py):
  S1  every value that `usable` lets through stands between the ends of the axis;
  S2  there are two to ten ticks, each at its place to a tenth of a pixel, no two of which read alike.

Rejected: logarithmic axes. What is drawn here is between 0 and 1, or counts of the same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

LARGEST: Final = 1e150  # what is beyond is left out: differences of such numbers overflow


def usable(value: Any) -> bool:
    """Whether a value can be drawn: a finite number, at most LARGEST.

    >>> usable(1), usable(float("nan")), usable(None), usable("1")
    (True, False, False, False)
    """
    try:
        return not isinstance(value, str | bytes) and abs(float(value)) <= LARGEST
    except (TypeError, ValueError, OverflowError):
        return False


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high` that lies between the pixels `start` and `end`, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    step: float

    def at(self, value: float) -> float:
        """Where a number stands, in pixels."""
        return self.start + (self.end - self.start) * ((value - self.low) / (self.high - self.low))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The places and labels of the ticks."""
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [(self.at(n * self.step), self.label(n * self.step)) for n in range(first, last + 1)]

    def label(self, value: float) -> str:
        """A number on this axis, with as many decimals as its step has."""
        most = max(abs(self.low), abs(self.high))
        if most >= 1e7 or self.step < 1e-6:
            digits = max(0, math.floor(math.log10(most)) - math.floor(math.log10(self.step)))
            return f"{value:.{min(digits, 15)}e}".replace("-", "−") if value else "0"
        places = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return f"{value + 0.0:,.{places}f}".replace("-", "−")


def scale(values: Iterable[float], start: float, end: float, *, tight: bool = False, most: int = 6) -> Scale:
    """The axis on which all of `values` stand, its ends on ticks, or `tight` around the values.

    Without values it goes from 0 to 1; where all are equal, around the one.

    >>> [word for _, word in scale([0.31, 0.52], 0, 100).ticks]
    ['0.30', '0.35', '0.40', '0.45', '0.50', '0.55']
    >>> [word for _, word in scale([7.0], 0, 100).ticks]
    ['6.0', '6.5', '7.0', '7.5', '8.0']
    """
    found = [float(value) for value in values]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, 1e-290):
        reach = 0.1 * size if 0 < size < 1 and size > 1e-280 else 1.0 if size < 1e9 else 0.1 * size
        low, high = low - reach, high + reach
    step = _step((high - low) / most)
    if not tight:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    return Scale(low, high, start, end, step)


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= least * (1 - 1e-9))
