"""How wide must the walk be for a wanted recall?

Nobody can say in general, so the collection measures itself: sampled rows are used as queries, with
the row itself left out of the walk, and their neighbours found at a ladder of widths are compared
with a scan. The table is kept in the file by the commit that measured it, so that every process,
also one that cannot write, answers alike.

Invariants:
  E1  the table is measured again when the collection has doubled or halved since;
  E2  a wanted recall that the table does not reach is answered by the widest measured width,
      widened in proportion, never by pretending.

The rows themselves make easier queries than strangers do (their neighbours link to each other), so
the choice aims above the target: a third of the allowed loss is kept in reserve.
Rejected: a fixed width. The same width gives .94 on one set and .99 on another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

WIDTHS: Final = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
SAMPLES: Final = 96
MEASURED_K: Final = 10
MIN_ROWS: Final = 1024  # below this every search may as well scan
WIDEST: Final = 4096
_RESERVE = 1 / 3


@dataclass(frozen=True, slots=True)
class Effort:
    """Measured recall@10 by width, and how many rows there were."""

    rows: int
    table: tuple[tuple[int, float], ...]

    def width(self, recall: float, k: int, rows: int) -> int:
        """The width expected to reach `recall` for the best `k` of `rows` rows."""
        aim = recall + (1 - recall) * _RESERVE
        width = self._width_at(aim)
        if rows > self.rows:
            width *= 1 + 0.15 * math.log2(rows / self.rows)
        return min(WIDEST, max(8, math.ceil(width * max(1.0, k / MEASURED_K))))

    def expected(self, width: int, k: int) -> float:
        """The recall that a width is expected to give."""
        per_ten = width / max(1.0, k / MEASURED_K)
        found = float(
            np.interp(
                math.log(max(per_ten, 1)),
                [math.log(w) for w, _ in self.table],
                [_loss(r) for _, r in self.table],
            )
        )
        return 1 - 10**-found

    def _width_at(self, aim: float) -> float:
        wanted = _loss(aim)
        previous: tuple[int, float] | None = None
        for width, recall in self.table:
            here = _loss(recall)
            if here >= wanted:
                if previous is None:
                    return width
                low, below = previous
                share = (wanted - below) / max(here - below, 1e-9)
                return low * (width / low) ** share
            previous = (width, here)
        last, reached = self.table[-1]
        return last * (1 + max(0.0, wanted - _loss(reached)) * 2)

    def pack(self) -> list[Any]:
        """What the file keeps."""
        return [self.rows, [list(entry) for entry in self.table]]

    @staticmethod
    def unpack(packed: Any) -> Effort:
        """The effort that `pack` described."""
        rows, table = packed
        return Effort(int(rows), tuple((int(w), float(r)) for w, r in table))


def _loss(recall: float) -> float:
    """Recall on the scale on which it grows evenly with the logarithm of the width."""
    return -math.log10(max(1 - recall, 1e-4))


def is_due(effort: Effort | None, ranked: int) -> bool:
    """Whether a collection of `ranked` rows with vectors wants a measurement."""
    if ranked < MIN_ROWS:
        return False
    return effort is None or ranked >= 2 * effort.rows or ranked * 2 <= effort.rows


def measure(
    graph: Any, slots: Any, vectors: Any, mask: bytes | None, visible: int, ranked: int
) -> Effort:
    """Measure on sampled rows: `slots` uint32 (s,), `vectors` float32 (s, d).

    Costs one scan and one walk per width for each sample.
    """
    found = dict.fromkeys(WIDTHS, 0.0)
    total = 0
    for slot, query in zip(slots.tolist(), vectors, strict=True):
        near, _ = graph.scan(
            query, MEASURED_K + 1, None, mask=mask, n_visible=visible, exact=False, rr=48
        )
        truth = set([s for s in near if s != slot][:MEASURED_K])
        total += len(truth)
        for width in WIDTHS:
            hits = graph.search(
                query, MEASURED_K, width, rerank(MEASURED_K), mask, visible, 0, slot
            )[0]
            found[width] += len(truth.intersection(hits))
            if width >= 64 and truth.issubset(hits):
                for wider in WIDTHS[WIDTHS.index(width) + 1 :]:
                    found[wider] += len(truth)
                break
    best = 0.0
    table = []
    for width in WIDTHS:
        best = max(best, found[width] / max(total, 1))
        table.append((width, round(best, 4)))
    return Effort(ranked, tuple(table))


def rerank(k: int) -> int:
    """How many of the walk's results are ranked by their stored vectors: a fifth more than k."""
    return k + max(2, -(-k // 5))
