"""The arithmetic of k-means: which centroids, how many of them, and whose row is which?

Rows are float32 (n, d). `spherical`: rows and centroids have length 1 and the nearest is the one of
largest dot product (Dhillon and Modha, 2001); else the one at the least Euclidean distance. One step
(Lloyd, 1982) is a product of matrices for the labels and another for the sums, by BLAS.

    seeds       greedy k-means++ (Arthur and Vassilvitskii, 2007) on a sample: drawn by squared distance
                to the seeds so far, of a few drawn the one that leaves the least
    train       steps until labels or the sum of squared distances hardly change
    nearest     the label of each row, and how close it is
    best_k      the k at which rows that were not trained on have the best mean silhouette

Invariants:
  K1  the same rows and seed give the same centroids;
  K2  no two centroids are equal, and each is the nearest of at least one row that it was trained on:
      where rows have fewer than k different vectors, there are fewer.

The silhouette is the simplified one (Hruschka et al., 2006): b the distance to the second nearest
centroid, a to the nearest, (b - a) / b. Rejected: the elbow of the sum of squares, which everybody
sees elsewhere; the whole silhouette, which compares each row with each.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt, log
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int32]
    Sums = npt.NDArray[np.float64]
    Draw = np.random.Generator

STEPS: Final = 40
SETTLED: Final = 1e-4  # a step that lessens the sum of squares by less than this share is the last
PLUS_PLUS: Final = 1024  # clusters that are seeded so; more are seeded by rows drawn at random
SEEDING_ROWS: Final = 4096  # seeds are chosen among so many rows, all of whose distances are known
BLOCK: Final = 1 << 22  # distances that are worked out at once
SUMMED: Final = 4096  # rows that are added up at once
TRIAL_ROWS: Final = 4096  # rows that tell the best k, half to train on and half to try
TRIAL_STEPS: Final = 8
DENSE_TO: Final = 12  # every k up to this is tried, then each a quarter larger than the one before
AROUND: Final = 6  # and so many between the neighbours of the best


def seeds(rows: Floats, k: int, draw: Draw) -> Floats:
    """At most `k` different rows to begin with; the first of them are seeds for fewer clusters."""
    if k > PLUS_PLUS:
        return _different(rows[draw.permutation(len(rows))[:k]])
    if len(rows) > SEEDING_ROWS:
        rows = rows[np.sort(draw.choice(len(rows), SEEDING_ROWS, replace=False))]
    squared = _squared_distances(rows)
    chosen = [int(draw.integers(len(rows)))]
    left = squared[chosen[0]]
    tries = 2 + int(log(max(k, 1)))
    while len(chosen) < k:
        sums = np.cumsum(left, dtype=np.float64)
        if not sums[-1] > 0:
            break
        drawn = np.searchsorted(sums, draw.random(tries) * sums[-1], side="right")
        drawn = np.minimum(drawn, len(rows) - 1)
        after = np.minimum(squared[drawn], left)
        best = int(np.argmin(after.sum(axis=1, dtype=np.float64)))
        chosen.append(int(drawn[best]))
        left = after[best]
    return _different(rows[chosen])


def _squared_distances(rows: Floats) -> Floats:
    """(n, n): what rounding makes of the distance between equal rows is 0 again."""
    lengths = np.einsum("ij,ij->i", rows, rows)
    sums = lengths[:, None] + lengths
    found = sums - 2 * (rows @ rows.T)
    found[found < 1e-5 * sums] = 0
    return np.asarray(found)


def _different(rows: Floats) -> Floats:
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]


def nearest(rows: Floats, centroids: Floats, spherical: bool) -> tuple[Labels, Floats]:
    """The nearest centroid of each row, the first of equals, and how close it is: larger is closer.

    Closeness is the dot product, or of Euclidean distances what (|x|^2 - distance^2) / 2 is.
    """
    labels, closeness = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    turned, halves = np.ascontiguousarray(centroids.T), _halves(centroids, spherical)
    step = max(1, BLOCK // max(1, len(centroids)))
    for at in range(0, len(rows), step):
        close = rows[at : at + step] @ turned
        close -= halves
        found = close.argmax(axis=1)
        labels[at : at + step] = found
        closeness[at : at + step] = close[np.arange(len(close)), found]
    return labels, closeness


def _halves(centroids: Floats, spherical: bool) -> Floats:
    """What is taken from dot products so that the largest is the nearest."""
    if spherical:
        return np.zeros(len(centroids), np.float32)
    return np.asarray(np.einsum("ij,ij->i", centroids, centroids) / 2, np.float32)


def train(
    rows: Floats,
    centroids: Floats,
    spherical: bool,
    steps: int = STEPS,
    step_done: Callable[[int], bool] = lambda step: False,
) -> tuple[Floats, bool]:
    """Centroids after steps until they settle, and whether they did; `step_done` may end it."""
    lengths = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    sums, counted = np.zeros(centroids.shape), np.full(len(rows), -1, np.int32)
    before = np.inf
    for step in range(steps):
        labels, closeness = nearest(rows, centroids, spherical)
        left = lengths - 2 * float(closeness.sum(dtype=np.float64))
        if before - left < SETTLED * abs(left) or np.array_equal(labels, counted):
            return _used(centroids, labels), True
        before = left
        _count(sums, rows, counted, labels)
        counted = labels
        centroids = _means(sums, rows, labels, closeness, centroids, spherical)
        if step_done(step + 1):
            break
    labels, _ = nearest(rows, centroids, spherical)
    return _used(centroids, labels), False


def _count(sums: Sums, rows: Floats, counted: Labels, labels: Labels) -> None:
    """Make the sums of clusters those of new labels, at the cost of the rows that have changed."""
    changed = np.flatnonzero(counted != labels)
    if 2 * len(changed) > len(rows) or counted[0] < 0:
        sums[:] = 0
        _add(sums, rows, labels)
        return
    moved = rows[changed]
    _add(sums, moved, labels[changed])
    _add(sums, -moved, counted[changed])


def _add(sums: Sums, rows: Floats, labels: Labels) -> None:
    """Add rows to their clusters' sums: float32 within a block, float64 over blocks."""
    for at in range(0, len(rows), SUMMED):
        some, those = rows[at : at + SUMMED], labels[at : at + SUMMED]
        order = np.argsort(those, kind="stable")
        known, first = np.unique(those[order], return_index=True)
        sums[known] += np.add.reduceat(some[order], first, axis=0)


def _means(
    sums: Sums,
    rows: Floats,
    labels: Labels,
    closeness: Floats,
    centroids: Floats,
    spherical: bool,
) -> Floats:
    """Each cluster's mean; one without rows goes to a row that is far from its centroid."""
    counts = np.bincount(labels, minlength=len(centroids))
    means = sums / np.maximum(counts, 1)[:, None]
    if spherical:
        sizes = np.sqrt(np.einsum("ij,ij->i", means, means))
        pointless = sizes <= 1e-6  # rows that cancel each other out have no direction in common
        means[pointless], sizes[pointless] = centroids[pointless], 1
        means /= sizes[:, None]
    found = means.astype(np.float32)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        worst = closeness if spherical else closeness - np.einsum("ij,ij->i", rows, rows) / 2
        found[empty] = rows[np.argsort(worst, kind="stable")[: len(empty)]]
    return found


def _used(centroids: Floats, labels: Labels) -> Floats:
    return centroids[np.bincount(labels, minlength=len(centroids)) > 0]


# --- how many ---------------------------------------------------------------------------------


def best_k(
    rows: Floats, most: int, spherical: bool, draw: Draw, tried: Callable[[], bool] = lambda: False
) -> int:
    """The k from 2 to `most` with the best silhouette; 1 where there are no two different rows.

    `rows`: a sample, in random order. `tried` is called after each k, and may end it.
    """
    fit, held = rows[::2], rows[1::2]
    most = min(most, len(fit))
    if most < 2 or not len(held):
        return max(1, most)
    begun, scores = seeds(fit, min(most, PLUS_PLUS), draw), dict[int, float]()
    most = min(most, len(begun))
    if most < 2:
        return 1

    def trial(k: int) -> bool:
        centroids, _ = train(fit, begun[:k], spherical, TRIAL_STEPS)
        scores[k] = _silhouette(held, centroids, spherical) if len(centroids) > 1 else -1.0
        return tried()

    ladder = _ladder(most)
    for k in ladder:
        if trial(k):
            break
    best = max(scores, key=lambda k: (scores[k], -k))
    at = ladder.index(best)
    low, high = ladder[max(0, at - 1)], ladder[min(len(ladder) - 1, at + 1)]
    for k in sorted({*np.linspace(low, high, AROUND + 2).astype(int).tolist()} - scores.keys()):
        if trial(k):
            break
    best = max(scores, key=lambda k: (scores[k], -k))
    return best if scores[best] > -1 else 1


def _ladder(most: int) -> list[int]:
    """The k that are tried at first."""
    found = list(range(2, min(most, DENSE_TO) + 1))
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, found[-1] * 5 // 4)))
    return found


def _silhouette(rows: Floats, centroids: Floats, spherical: bool) -> float:
    """The mean simplified silhouette of rows."""
    close = rows @ centroids.T - _halves(centroids, spherical)
    best = np.partition(close, -2, axis=1)[:, -2:]
    if spherical:
        b, a = np.maximum(1 - best, 0).T
    else:
        lengths = np.einsum("ij,ij->i", rows, rows)
        b, a = np.sqrt(np.maximum(lengths[:, None] - 2 * best, 0)).T
    return float(np.mean(np.where(b > 0, (b - a) / np.where(b > 0, b, 1), 0)))


def most_clusters(n: int) -> int:
    """The largest k that `best_k` is asked about: the square root of the rows."""
    return max(1, isqrt(n))
