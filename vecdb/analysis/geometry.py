"""How do distances between stored vectors become products of matrices?

A product by BLAS gives all distances of two blocks of rows at 0.01 ns a number; one by one they take
ten times that. What it gives is rounded otherwise than a search's distances, so who compares with a
limit looks again at what lies near it (`near`, `exact`).

    floats      stored vectors as float32: of length 1 under cosine, bits as -1 and 1, else as they are
    Move        rows to where products of them are precise
    Near        which pairs of two blocks are within a distance: surely, or perhaps
    exact       distances of pairs in float64

Invariants:
  G1  a pair that `exact` puts within the limit is among those that `Near` finds, and a pair that
      `Near` is sure of is within it;
  G2  exact(x, x) is 0 under cosine, l2 and hamming.

Rejected: float64 products. Twice the time, to decide what one pair in a thousand needs.
"""

from __future__ import annotations

from math import frexp
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.intp]

_ROUNDING: Final = 2.0**-24  # of a float32
_TOLERANCE: Final = 1e-12  # of a float64 sum


class Geometry(NamedTuple):
    """The metric of a vector field, and how its vectors are stored."""

    metric: str
    dtype: str
    dim: int

    @property
    def slack(self) -> float:
        """Bound of the error of a float32 dot product, as a share of both lengths.

        BLAS adds in blocks, so that errors grow with far less than the number of terms.
        """
        return _ROUNDING * (16 + self.dim / 8)

    def queries(self, stored: npt.NDArray[Any]) -> Floats:
        """Stored vectors as a search takes them: (n, d) float32."""
        if self.dtype == "b1":
            stored = np.unpackbits(stored, axis=1, count=self.dim)
        return np.ascontiguousarray(stored, np.float32)

    def floats(self, stored: npt.NDArray[Any]) -> Floats:
        """Stored vectors as float32 (n, d) whose products tell their distances."""
        found = self.queries(stored)
        if self.metric == "hamming":
            return found * 2 - 1
        if self.metric == "cosine":
            lengths = np.sqrt(squares(found))
            return np.asarray(found / lengths[:, None], np.float32)
        return found

    def exact(self, one: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Distances of pairs of stored vectors, row by row, in float64."""
        a, b = (self.queries(each).astype(np.float64) for each in (one, other))
        if self.metric == "hamming":
            return np.asarray((a != b).sum(axis=1), np.float64)
        if self.metric == "l2":
            difference = a - b
            return np.sqrt(_dots(difference, difference))
        if self.metric == "dot":
            return -_dots(a, b)
        return 1 - _dots(a, b) / np.sqrt(_dots(a, a) * _dots(b, b))

    def within(
        self, one: npt.NDArray[Any], other: npt.NDArray[Any], limit: float
    ) -> npt.NDArray[np.bool_]:
        """Which pairs of stored vectors are within a distance."""
        return self.exact(one, other) <= limit + _TOLERANCE * max(1.0, abs(limit))

    def doubtful(self, found: Floats, query_squares: npt.NDArray[Any], limit: float) -> Any:
        """How far from the limit the distances of a search are too near to it to be compared."""
        if self.metric == "hamming":
            return np.zeros(len(found))
        if self.metric == "dot":
            return 4 * self.slack * (query_squares + np.abs(found))
        return np.full(len(found), 2 * self.slack * (1 if self.metric == "cosine" else abs(limit)))


class Near:
    """Which pairs of float32 vectors are within a distance, block by block."""

    def __init__(self, geometry: Geometry, others: Floats, limit: float) -> None:
        self._geometry = geometry
        self._move = Move.of(others, geometry.metric)
        self._limit = limit * self._move.scale ** (2 if geometry.metric == "dot" else 1)
        self._others = self._move(others)
        self._squares = squares(self._others)

    def pairs(self, some: Floats, first: int) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        """Pairs (row of `some`, row of the others from `first` on), and which are surely within."""
        geometry, limit = self._geometry, self._limit
        mine, theirs = self._move(some), self._others[first:]
        products = mine @ theirs.T
        own, their = squares(mine), self._squares[first:]
        slack = geometry.slack
        if geometry.metric == "l2":
            # |a-b|^2 = |a|^2 + |b|^2 - 2ab <= limit^2, each square loosened by its error
            products -= (their * (0.5 - slack)).astype(np.float32)
            border = own * (0.5 - slack) - (limit * limit / 2 * (1 + slack) if limit >= 0 else -np.inf)
        elif geometry.metric == "hamming":
            border = np.full(len(mine), geometry.dim - 2 * limit - 0.5)
        elif geometry.metric == "cosine":
            border = np.full(len(mine), 1 - limit - 2 * slack)
        else:
            furthest = np.sqrt(float(their.max(initial=0)))
            border = -limit - slack * (np.sqrt(own) * furthest + abs(limit))
        with np.errstate(over="ignore"):  # a limit beyond all distances
            least = border.astype(np.float32)[:, None]
        at = np.flatnonzero(products >= least)
        i, j = np.divmod(at, max(1, len(theirs)))
        found = products.ravel()[at]
        return i, j + first, self._sure(found, border[i], own[i], their[j])

    def _sure(self, found: Floats, border: Any, own: Any, their: Any) -> npt.NDArray[np.bool_]:
        """Which are so far inside that no rounding can have brought them there."""
        slack, metric = self._geometry.slack, self._geometry.metric
        if metric == "hamming":
            return np.ones(len(found), np.bool_)
        if metric == "cosine":
            return np.asarray(found > border + 5 * slack)
        if metric == "l2":
            return np.asarray(found > border + 4 * slack * (own + their + self._limit**2))
        lengths = np.sqrt(own * self._squares.max())
        return np.asarray(found > border + 4 * slack * (lengths + abs(self._limit)))


class Move(NamedTuple):
    """Moves rows to where float32 products of them round little, overflow or vanish not at all.

    Under l2 the middle of the rows comes to 0; by a power of two, the largest number to about 1. The
    order of distances stays.
    """

    centre: Floats
    scale: float

    @staticmethod
    def of(rows: Floats, metric: str) -> Move:
        """What suits some rows, and others that lie where they lie."""
        centre, scale = np.zeros(rows.shape[1], np.float32), 1.0
        if metric in ("l2", "dot") and len(rows):
            if metric == "l2":
                centre = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
            largest = max(abs(float(rows.max() - centre.min())), abs(float(rows.min() - centre.max())))
            scale = 2.0 ** -frexp(largest)[1]
        return Move(centre, scale)

    def __call__(self, rows: Floats) -> Floats:
        """Rows moved, as a copy; as they are where nothing moves."""
        if self.scale == 1 and not self.centre.any():
            return rows
        small = rows * np.float64(self.scale) - self.centre * np.float64(self.scale)
        return np.asarray(small, np.float32)

    def back(self, rows: Floats) -> Floats:
        """Where rows that were moved came from."""
        return np.asarray(rows / np.float64(self.scale) + self.centre, np.float32)


def squares(some: Floats) -> npt.NDArray[np.float64]:
    """The squared length of each vector."""
    return np.asarray(np.einsum("ij,ij->i", some, some, dtype=np.float64))


def _dots(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", a, b))
