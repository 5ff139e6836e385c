"""Which vectors, and what are the right answers?

`debian` (62,666 x 384, cosine) and `fashion` (60,000 x 784, l2) come from `../shared/data`, a
folder beside the project's; `made` is drawn at random here, in clusters, and needs nothing.

Truth is exact, by a full scan in float32. A found row counts if it is no further than the tenth
right one: among equal rows no engine can know which ones the scan happened to list.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
K = 10
TIE = 1e-5  # relative: two float32 distances closer than this are equal

Array = npt.NDArray[np.float32]


@dataclass
class Data:
    """Base vectors in insertion order, queries, metadata, distance of the k-th answer."""

    name: str
    metric: str  # "cosine" (vectors are normalised here) or "l2"
    base: Array
    queries: Array
    metadata: list[dict[str, Any]] = field(default_factory=list)
    kth: Array = field(default_factory=lambda: np.empty(0, np.float32))

    def distances(self, query: int, rows: Sequence[int]) -> Array:
        """Return the exact distances of rows to a query: squared l2, for both metrics."""
        return np.square(self.base[list(rows)] - self.queries[query]).sum(axis=1)

    def recall(self, found: Sequence[Sequence[int]]) -> float:
        """Return the share of the right answers that `found`, a list a query, holds."""
        hits = 0
        for query, rows in enumerate(found):
            assert len(set(rows)) == len(rows) <= K
            limit = self.kth[query] * (1 + TIE) + 1e-6
            hits += int((self.distances(query, rows) <= limit).sum())
        return hits / (K * len(found))


def names() -> list[str]:
    """Return the data sets that can be had here."""
    return [name for name in ("debian", "fashion") if (SHARED / name).is_dir()] or ["made"]


def load(name: str, n_queries: int = 1000, limit: int | None = None) -> Data:
    """Return a data set, shuffled alike every time, with its truth."""
    base, queries, metadata, metric = {"debian": _debian, "fashion": _fashion, "made": _made}[
        name
    ]()
    order = np.random.default_rng(7).permutation(len(base))[:limit]
    base, queries = base[order].astype(np.float32), queries[:n_queries].astype(np.float32)
    if metric == "cosine":
        base /= np.linalg.norm(base, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    data = Data(name, metric, base, queries, [metadata[i] for i in order] if metadata else [])
    data.kth = _kth(base, queries)
    return data


def _kth(base: Array, queries: Array) -> Array:
    squares = np.square(base).sum(axis=1)
    found = np.empty(len(queries), np.float32)
    for first in range(0, len(queries), 200):
        part = queries[first : first + 200]
        near = np.argpartition(squares - 2 * (part @ base.T), K, axis=1)[:, : K + 1]
        for row, candidates in enumerate(near):  # once more without cancellation
            exact = np.square(base[candidates] - part[row]).sum(axis=1)
            found[first + row] = np.partition(exact, K - 1)[K - 1]
    return found


def _debian() -> tuple[Any, Any, list[dict[str, Any]], str]:
    folder = SHARED / "debian"
    with gzip.open(folder / "metadata.jsonl.gz", "rt", encoding="utf-8") as lines:
        metadata = [json.loads(line) for line in lines]
    for row in metadata:
        del row["text"]
    vectors = np.load(folder / "vectors.f16.npy").astype(np.float32)
    return vectors, np.load(folder / "queries.npy"), metadata, "cosine"


def _fashion() -> tuple[Any, Any, list[dict[str, Any]], str]:
    with np.load(SHARED / "fashion" / "fashion.npz") as file:
        base, queries = file["base"], file["queries"]
        labels = file["labels"] if "labels" in file else None
    metadata = [] if labels is None else [{"label": int(label)} for label in labels]
    return base, queries, metadata if len(metadata) == len(base) else [], "l2"


def _made() -> tuple[Any, Any, list[dict[str, Any]], str]:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(200, 128))
    vectors = centres[rng.integers(0, 200, 21_000)] + 0.7 * rng.normal(size=(21_000, 128))
    metadata = [{"number": i, "parity": "even" if i % 2 == 0 else "odd"} for i in range(20_000)]
    return vectors[:20_000], vectors[20_000:], metadata, "l2"
