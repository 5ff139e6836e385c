"""Which linear maps follow from the vectors by one decomposition, with nothing to iterate?

    principal     the directions in which the vectors vary most, the others dropped
    whitening     every direction given the same spread, or part of the way there (Su et al., Whitening
                  Sentence Representations for Better Semantics and Faster Retrieval, 2021); with the mean
                  taken away or not
    discriminant  directions weighed by how much more rows differ that do not belong together than those
                  that do: KISSME (Köstinger et al., CVPR 2012), which is the likelihood ratio of two
                  Gaussians and, by its eigenvectors, Fisher's discriminant (Ioffe, ECCV 2006)

All shrink the covariance towards a multiple of the identity first (Ledoit and Wolf, 2004, with shares that
the validation part chooses among): with fewer rows than dimensions it would say nothing otherwise.

Invariants (checked by tests/unit/test_fit_adapter.py):
  C1  whitening of strength 0 is the identity, and of strength 1 without shrinkage gives the identity as the
      covariance of what it was made of;
  C2  a direction in which those that belong together differ as much as any others has weight 0.

Rejected: whitening by the differences of those that belong together (RCA: Bar-Hillel et al., 2003). It never
drops a direction, so what is noise everywhere is made as loud as the rest: on turned and shifted pictures it
is worse than the pixels, where the discriminant finds three times as many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Doubles = npt.NDArray[np.float64]

KEPT: Final = 0.95  # of the second moment, in the principal directions
MOST_RANK: Final = 256
LEAST_RANK: Final = 64
SAMPLE: Final = 20_000  # rows that moments are made of


class Start(NamedTuple):
    """A map (x - mean) @ matrix, by its name; matrix (d, r), mean (d,) or None."""

    name: str
    matrix: Floats
    mean: Floats | None = None

    def __call__(self, rows: Floats) -> Floats:
        """Images (n, r)."""
        found: Floats = np.asarray(rows if self.mean is None else rows - self.mean, np.float32) @ self.matrix
        return found


def principal(documents: Floats) -> Floats:
    """An orthonormal basis (d, r) of the directions that hold KEPT of the second moment; d <= MOST_RANK: all.

    Costs n d^2 + d^3.
    """
    d = documents.shape[1]
    if d <= MOST_RANK:
        return np.eye(d, dtype=np.float32)
    values, vectors = np.linalg.eigh(_moment(documents))
    order = np.argsort(-values, kind="stable")
    shares = np.cumsum(np.clip(values[order], 0, None))
    rank = int(np.searchsorted(shares, KEPT * shares[-1])) + 1 if shares[-1] > 0 else LEAST_RANK
    rank = min(d, MOST_RANK, max(LEAST_RANK, rank))
    return np.ascontiguousarray(vectors[:, order[:rank]], np.float32)


def whitening(documents: Floats, strength: float, *, shrink: float, centred: bool) -> Start:
    """The map that gives `strength` (0 to 1) of an equal spread to every direction of `documents` (n, d)."""
    mean = documents.mean(axis=0, dtype=np.float64).astype(np.float32) if centred else None
    rows = documents if mean is None else documents - mean
    values, vectors = np.linalg.eigh(_shrunk(_moment(rows), shrink))
    matrix = (vectors * _safe(values) ** (-strength / 2)) @ vectors.T
    name = f"whitening {strength:g}" + (", centred" if centred else "")
    return Start(name, scaled(matrix), mean)


def discriminant(within: Doubles, total: Doubles, shrink: float, power: float) -> Start | None:
    """The map that weighs directions by (total / within - 1) ** power; None where none tells anything apart.

    `within` (d, d): the covariance of those that belong together about their middle, `total` of all. With
    power 1/2 its distances are KISSME's; smaller powers weigh more evenly, larger ones drop more.
    """
    size = float(np.trace(total)) / len(total)
    if not size > 0:
        return None
    values, vectors = np.linalg.eigh(_shrunk(total, shrink))
    sphere = vectors * _safe(values) ** -0.5
    # `within` is shrunk by what `total` is: what is added is no difference between the two
    added = shrink * size * np.eye(len(total))
    ratios, turned = np.linalg.eigh(sphere.T @ (within + added) @ sphere)
    gains = np.clip(1 / np.clip(ratios, 1e-6, 1) - 1, 0, None)
    if not gains.any():
        return None
    matrix = (sphere @ turned) * gains**power
    return Start(f"discriminant, shrunk {shrink:g}, power {power:g}", scaled(matrix))


def spread_of_pairs(one: Floats, other: Floats) -> tuple[Doubles, Doubles]:
    """(within, total) of pairs of rows that belong together."""
    middle = (one.mean(axis=0, dtype=np.float64) + other.mean(axis=0, dtype=np.float64)) / 2
    a, b = one - middle, other - middle
    difference = a - b
    within = difference.T @ difference / (2 * len(a))
    return within.astype(np.float64), ((a.T @ a + b.T @ b) / (2 * len(a))).astype(np.float64)


def spread_of_classes(rows: Floats, labels: npt.NDArray[np.intp]) -> tuple[Doubles, Doubles]:
    """(within, total) of rows with labels."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, codes, rows)
    inner = rows - (sums / counts[:, None])[codes]
    outer = rows - rows.mean(axis=0, dtype=np.float64)
    return inner.T @ inner / len(rows), outer.T @ outer / len(rows)


def scaled(matrix: npt.NDArray[Any]) -> Floats:
    """A matrix of the size that an identity of its rank has."""
    size = float(np.sqrt(np.square(matrix).sum() / min(matrix.shape)))
    return np.ascontiguousarray(matrix / (size if size > 0 else 1.0), np.float32)


def _moment(rows: Floats) -> Doubles:
    """The second moment (d, d) of at most SAMPLE rows, evenly taken."""
    some = rows[:: -(-len(rows) // SAMPLE)] if len(rows) > SAMPLE else rows
    return (some.T @ some / max(1, len(some))).astype(np.float64)


def _shrunk(moment: Doubles, share: float) -> Doubles:
    size = float(np.trace(moment)) / len(moment)
    return moment + share * size * np.eye(len(moment))


def _safe(values: Doubles) -> Doubles:
    """Eigenvalues that can be divided by."""
    largest = float(values[-1])
    return np.maximum(values, largest * 1e-9 if largest > 0 else 1.0)
