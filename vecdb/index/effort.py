"""How wide must the walk be for a wanted recall, and what will it cost?

Nobody can say in general, so the collection measures itself (index/measure.py): sampled rows are
used as queries, without a filter and with filters drawn from its own metadata, and what a ladder
of widths finds is compared with a scan. The sums are kept in the file by the commit that took
them, so that every process, also one that cannot write, answers alike.

Invariants:
  E1  the first measurement begins at MIN_ROWS rows; another when the collection has doubled or halved
      since the last, or a third of the rows was replaced (the data may have drifted),
      spread over the commits of the next quarter. A commit takes at most one sample for every
      ROWS_A_SAMPLE rows that it adds or deletes: a small one never pays for a measurement;
  E2  a wanted recall that was not reached is answered by the widest measured width, widened in
      proportion, never by pretending;
  E3  a filter's width is that of its band of selectivity, and at least the unfiltered one;
  E5  the best k > 10 need a width that grows with the square root of k, and room for what is ranked by
      stored vectors. On debian recall .987 took 52 for ten, 150 for a hundred; .996 took 100 and 300;
      on smaller and easier sets less. The farther of many neighbours are found by more ways;
  E4  before its first measurement is complete nothing is known of a field (`view.Graphed.measured`).

The rows themselves make easier queries than strangers do (their neighbours link to each other), so
the choice aims above the target: a third of the allowed loss is kept in reserve. Under a filter it is
two thirds, for filters differ more than queries do. Where rows are replaced, the wider of the last two
measurements counts, for queries may be of other times than rows.
Rejected: a fixed width. The same width gives .94 on one set and .99 on another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

WIDTHS: Final = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
ALWAYS: Final = 7  # every sample is walked at the first ALWAYS widths: distances are known there
BANDS: Final = (0.5, 0.2, 0.08, 0.03, 0.01)  # least share of matching rows of each band
SAMPLES: Final = 96
ENOUGH: Final = 12  # samples that make a band's sums worth following
MEASURED_K: Final = 10
MIN_ROWS: Final = 1024  # below this every search may as well scan
ROWS_A_SAMPLE: Final = 20  # a sample takes as long as inserting some ten rows
WIDEST: Final = 4096
_TURNED: Final = 1 / 3  # of the rows were replaced
_SPREAD: Final = 0.25  # of the collection: a measurement is taken while it grows by this
_RESERVE: Final = 1 / 3
_RESERVE_FILTERED: Final = 2 / 3
_UNKNOWN: Final = 1.5  # how much wider a filtered walk is where no band was measured
_GROWTH: Final = 0.15  # share of the width that a doubling adds
_COST_POWER: Final = 0.7  # distances grow with the width to this power, beyond the ladder's start


@dataclass(frozen=True, slots=True)
class Sums:
    """What samples found, summed by width."""

    samples: int = 0
    wanted: int = 0  # neighbours that a scan found
    found: tuple[int, ...] = (0,) * len(WIDTHS)
    distances: tuple[int, ...] = (0,) * ALWAYS

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(
            self.samples + other.samples,
            self.wanted + other.wanted,
            tuple(a + b for a, b in zip(self.found, other.found, strict=True)),
            tuple(a + b for a, b in zip(self.distances, other.distances, strict=True)),
        )

    def table(self) -> tuple[tuple[int, float], ...]:
        """(width, recall@10), never falling."""
        best, rows = 0.0, []
        for width, found in zip(WIDTHS, self.found, strict=True):
            best = max(best, found / max(self.wanted, 1))
            rows.append((width, round(best, 4)))
        return tuple(rows)

    def cost(self, width: float) -> float:
        """Mean distance computations of a walk of that width."""
        known = WIDTHS[:ALWAYS]
        means = [d / max(self.samples, 1) for d in self.distances]
        if width <= known[-1]:
            return float(np.interp(width, known, means))
        return means[-1] * float((width / known[-1]) ** _COST_POWER)


@dataclass(frozen=True, slots=True)
class Measured:
    """Sums without a filter, and by band of selectivity."""

    plain: Sums = Sums()
    bands: tuple[Sums, ...] = (Sums(),) * len(BANDS)

    def plus(self, other: Measured) -> Measured:
        """Both together."""
        bands = tuple(a.plus(b) for a, b in zip(self.bands, other.bands, strict=True))
        return Measured(self.plain.plus(other.plain), bands)

    def band(self, share: float) -> Sums | None:
        """The sums of a share's band, or of the next wider band that has enough of them."""
        at = band_of(share)
        for sums in reversed(self.bands[: len(BANDS) if at is None else at + 1]):
            if sums.samples >= ENOUGH:
                return sums
        return None


@dataclass(frozen=True, slots=True)
class Effort:
    """A finished measurement at `rows` rows, none at first, and the one that is being taken."""

    rows: int
    done: Measured
    pending: Measured = Measured()
    inserted: int = 0  # vectors that the field had ever got when it was finished
    before: Sums = Sums()  # the measurement before, without a filter, where rows were replaced since

    @property
    def complete(self) -> bool:
        """Whether there is a finished measurement (E4)."""
        return self.done.plain.samples > 0

    @property
    def table(self) -> tuple[tuple[int, float], ...]:
        """Measured recall@10 by width, without a filter."""
        return self.done.plain.table()

    def width(self, recall: float, k: int, rows: int, share: float = 1.0) -> int:
        """The width expected to reach `recall` for the best `k`, `share` of `rows` rows matching."""
        aim = recall + (1 - recall) * _RESERVE
        width = _width_at(self.table, aim)
        if self.before.samples:
            width = max(width, _width_at(self.before.table(), aim))
        if share < 1:
            sums = self.done.band(share)
            if sums is None:
                width *= _UNKNOWN
            else:
                aim = recall + (1 - recall) * _RESERVE_FILTERED
                width = max(width, _width_at(sums.table(), aim))
        if rows > self.rows:
            width *= 1 + _GROWTH * math.log2(rows / self.rows)
        return min(WIDEST, max(8, rerank(k) if k > MEASURED_K else 0, math.ceil(width * _deeper(k))))

    def expected(self, width: int, k: int, share: float = 1.0) -> float:
        """The recall that a width is expected to give."""
        sums = (self.done.band(share) if share < 1 else None) or self.done.plain
        table = sums.table()
        per_ten = width / _deeper(k)
        found = float(
            np.interp(
                math.log(max(per_ten, 1)),
                [math.log(w) for w, _ in table],
                [_loss(r) for _, r in table],
            )
        )
        return 1 - 10**-found

    def cost(self, width: int, share: float = 1.0) -> float | None:
        """Distance computations that a walk is expected to make; None where it was not measured."""
        if share == 1:
            return self.done.plain.cost(width)
        at = band_of(share)
        if at is None or self.done.bands[at].samples < ENOUGH:
            return None
        return self.done.bands[at].cost(width)

    def with_more(
        self, more: Measured, ranked: int, inserted: int, enough: int = SAMPLES
    ) -> Effort:
        """After further samples; the pending measurement takes over once it has enough of them."""
        pending = self.pending.plus(more)
        if pending.plain.samples >= enough:
            replaced = self._replaced(ranked, inserted) >= _TURNED
            before = self.done.plain if self.complete and replaced else Sums()
            return Effort(ranked, pending, inserted=inserted, before=before)
        return Effort(self.rows, self.done, pending, self.inserted, self.before)

    def _replaced(self, ranked: int, inserted: int) -> float:
        """The share of the rows that was replaced since the last measurement."""
        replaced = inserted - self.inserted - max(0, ranked - self.rows)
        return replaced / max(ranked, self.rows, 1)

    def pack(self) -> list[Any]:
        """What the file keeps."""
        before = _pack(Measured(self.before))[:1]
        return [self.rows, _pack(self.done), _pack(self.pending), self.inserted, before]

    @staticmethod
    def unpack(packed: Any) -> Effort:
        """The effort that `pack` described."""
        rows, done, pending, *newer = packed  # files of format 2 end here
        inserted = int(newer[0]) if newer else 0
        before = _unpack(newer[1]).plain if len(newer) > 1 else Sums()
        return Effort(int(rows), _unpack(done), _unpack(pending), inserted, before)


def samples_due(effort: Effort | None, ranked: int, inserted: int, changed: int) -> int:
    """How many samples a commit is to take that changes so many rows and leaves `ranked` (E1)."""
    if ranked < MIN_ROWS or not changed:
        return 0
    taken = 0 if effort is None else effort.pending.plain.samples
    due = int(SAMPLES * _progress(effort, ranked, inserted)) - taken
    return max(0, min(due, max(1, changed // ROWS_A_SAMPLE)))


def _progress(effort: Effort | None, ranked: int, inserted: int) -> float:
    """The share of a measurement that is to be taken by now."""
    if effort is None or not effort.complete:
        return 1.0
    if ranked >= 2 * effort.rows:
        return min(1.0, (ranked - 2 * effort.rows) / (2 * effort.rows * _SPREAD))
    if 2 * ranked <= effort.rows:
        return min(1.0, (effort.rows / 2 - ranked) / (effort.rows / 2 * _SPREAD))
    return min(1.0, max(0.0, effort._replaced(ranked, inserted) - _TURNED) / _SPREAD)


def band_of(share: float) -> int | None:
    """Which band a share of matching rows falls into; None below the last."""
    for at, least in enumerate(BANDS):
        if share >= least:
            return at
    return None


def _deeper(k: int) -> float:
    """How much wider a walk for `k` must be than one for the best ten (E5)."""
    return math.sqrt(max(1.0, k / MEASURED_K))


def rerank(k: int) -> int:
    """How many of the walk's results are ranked by their stored vectors: a fifth more than k."""
    return k + max(2, -(-k // 5))


def _width_at(table: tuple[tuple[int, float], ...], aim: float) -> float:
    wanted = _loss(aim)
    previous: tuple[int, float] | None = None
    for width, recall in table:
        here = _loss(recall)
        if here >= wanted:
            if previous is None:
                return width
            low, below = previous
            share = (wanted - below) / max(here - below, 1e-9)
            return float(low * (width / low) ** share)
        previous = (width, here)
    last, reached = table[-1]
    return last * (1 + max(0.0, wanted - _loss(reached)) * 2)


def _loss(recall: float) -> float:
    """Recall on the scale on which it grows evenly with the logarithm of the width."""
    return -math.log10(max(1 - recall, 1e-4))


def _pack(measured: Measured) -> list[Any]:
    return [
        [s.samples, s.wanted, list(s.found), list(s.distances)]
        for s in (measured.plain, *measured.bands)
    ]


def _unpack(packed: Any) -> Measured:
    plain, *bands = (
        Sums(samples, wanted, tuple(found), tuple(distances))
        for samples, wanted, found, distances in packed
    )
    return Measured(plain, tuple(bands))
