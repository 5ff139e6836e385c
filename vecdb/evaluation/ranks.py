"""Which documents stand first, in which order, by exact scores?

Invariants:
  E8  every document has a score: nothing is approximate, and nothing is left out;
  E9  equal scores stand in the order of the documents, wherever the cut falls. Equal vectors need not have
      equal scores: a matrix product in float32 may round otherwise at another place, in the last digit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_CELLS: Final = 1 << 24  # scores at a time: 64 MiB

Floats = npt.NDArray[Any]


def nearest(queries: Floats, documents: Floats, metric: str, k: int | None) -> list[npt.NDArray[np.int64]]:
    """Positions of the `k` nearest documents of each query (all: None), nearest first.

    One matrix product, O(queries · documents · d), in float32 as searches rank, for l2 in float64, where it
    is a difference of squares. A zero vector, which has no direction, has the cosine 0 with everything.
    """
    found: list[npt.NDArray[np.int64]] = []
    for scores in _scores(queries, documents, metric):
        found += [best(row, k) for row in scores]
    return found


def best(scores: Any, k: int | None) -> npt.NDArray[np.int64]:
    """Positions of the `k` highest scores, highest first, equal ones by position (E9)."""
    if k is None or k >= len(scores):
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    there = np.flatnonzero(scores >= least)
    return there[np.argsort(-scores[there], kind="stable")[:k]]


def _scores(queries: Floats, documents: Floats, metric: str) -> Iterator[Floats]:
    if metric == "cosine":
        queries, documents = _directions(queries), _directions(documents)
    rows = max(1, _CELLS // len(documents))
    squares: Any = None
    if metric == "l2":
        queries, documents = np.asarray(queries, np.float64), np.asarray(documents, np.float64)
        squares = np.einsum("ij,ij->i", documents, documents)
    for start in range(0, len(queries), rows):
        with np.errstate(over="ignore"):  # a dot product of two long vectors is infinite, and the highest
            products = queries[start : start + rows] @ documents.T
        yield products if squares is None else 2 * products - squares


def _directions(vectors: Floats) -> Floats:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return np.where(lengths == 0, np.float32(0), vectors / np.where(lengths == 0, np.float32(1), lengths))
