"""What is looked at: rows that were drawn, their texts and vectors, judged queries, labels, the encoder.

A diagnosis costs what its sample costs. `n` rows lie here, the first `drawn` of them at random from
`total`, the others because a judgement names them; so shares and shapes are taken of the first, and
rankings of all.

Invariants (tests/unit/test_diagnosis.py):
  S1  the same file, seed and sample give the same subject;
  S2  vectors are finite float32; bits are -1 and 1; `units` have length 1, or 0 where the vector has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis.words import Words

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.encoders.base import Card, Encoder
    from vecdb.types import Id

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]

SHAPE_ROWS: Final = 2000  # that shapes are taken of: figures depend on how many rows are looked at


@dataclass(slots=True)
class Queries:
    """m queries: what is searched for, and which rows are relevant to it."""

    names: list[Any]
    texts: list[str] | None
    vectors: Floats  # (m, d)
    grades: list[dict[int, float]]  # {row of the subject: grade above 0} of each
    unknown: int = 0  # judgements of rows that are not there
    judgements: int = 0  # in all, with a grade above 0
    missing: list[Any] = field(default_factory=list)  # examples of unknown ids

    @property
    def judged(self) -> list[int]:
        """The queries that have a relevant row here."""
        return [at for at, grades in enumerate(self.grades) if grades]


@dataclass
class Subject:
    """What is looked at."""

    name: str
    ids: list[Id]
    vectors: Floats  # (n, d)
    texts: list[str | None] | None
    total: int
    drawn: int
    metric: str
    dtype: str = "f32"
    encoder: Encoder | None = None
    card: Card | None = None
    queries: Queries | None = None
    labels: list[Any] | None = None  # of the first `drawn` rows, None where there is none
    label_field: str | None = None
    metadata: list[Mapping[str, Any]] | None = None  # of the first `drawn` rows
    without_vector: int = 0  # rows that have none
    collection: Any = None
    using: str | None = None
    changed: str | None = None  # why the encoder at hand is not the one that made the vectors
    seed: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (which checks, why)

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return int(self.vectors.shape[1])

    @property
    def angular(self) -> bool:
        """Whether the direction from the origin means something."""
        return self.metric in ("cosine", "dot")

    @property
    def has_texts(self) -> bool:
        """Whether there are words to look at."""
        return self.texts is not None and any(self.texts)

    def skip(self, what: str, why: str) -> None:
        """Note that checks are left out."""
        self.left_out.append((what, why))

    def left_out_of(self, what: str) -> bool:
        """Whether checks are noted as left out already."""
        return any(name == what for name, _ in self.left_out)

    def rng(self, what: int) -> np.random.Generator:
        """Random numbers for one purpose, the same whatever else was asked."""
        return np.random.default_rng([self.seed, what])

    @cached_property
    def units(self) -> Floats:
        """The vectors with length 1; a zero vector stays."""
        units: Floats = unit(self.vectors)
        return units

    @cached_property
    def shape_rows(self) -> Ints:
        """The rows that shapes are taken of: drawn ones, not zero, each vector once (S2).

        Equal vectors are told of as such; here they would be neighbours at distance 0, and hide all else.
        """
        rows = np.flatnonzero(self.vectors[: self.drawn].any(axis=1))
        _, first = np.unique(self.vectors[rows], axis=0, return_index=True)
        return rows[np.sort(first)][:SHAPE_ROWS]

    @cached_property
    def cloud(self) -> npt.NDArray[np.float64]:
        """Those rows as their metric sees them: of length 1 under cosine. Distances are Euclidean ones."""
        rows = self.shape_rows
        some = self.units[rows] if self.metric == "cosine" else self.vectors[rows]
        return some.astype(np.float64)

    @cached_property
    def spread(self) -> npt.NDArray[np.float64]:
        """Squared distances between them (m, m), infinite to themselves."""
        return squared_distances(self.cloud)

    @cached_property
    def plain_texts(self) -> list[str]:
        """The texts of all rows, "" where there is none."""
        return [text or "" for text in self.texts or []]

    @cached_property
    def words(self) -> Words:
        """The words of all rows here."""
        return Words(self.plain_texts)

    def scores(self, query: Any) -> Floats:
        """How near all rows are to one query vector, larger is nearer: (n,)."""
        if self.metric == "cosine":
            return np.asarray(self.units @ unit(query[None])[0], np.float32)
        if self.metric == "l2":
            return np.asarray(-np.sqrt(np.square(self.vectors - query).sum(axis=1)), np.float32)
        return np.asarray(self.vectors @ query, np.float32)  # dot, and hamming of -1 and 1

    @cached_property
    def query_scores(self) -> Floats:
        """The scores of all rows for the judged queries: (judged, n)."""
        assert self.queries is not None
        judged = self.queries.judged
        found = np.empty((len(judged), len(self.ids)), np.float32)
        for row, at in enumerate(judged):
            found[row] = self.scores(self.queries.vectors[at])
        return found

    @cached_property
    def word_scores(self) -> Floats | None:
        """BM25 scores of all rows for the judged queries; None without texts on both sides."""
        queries = self.queries
        if queries is None or queries.texts is None or not self.has_texts:
            return None
        judged = queries.judged
        found = np.empty((len(judged), len(self.ids)), np.float32)
        for row, at in enumerate(judged):
            found[row] = self.words.scores(queries.texts[at])
        return found


def unit(vectors: Any) -> Any:
    """Vectors with length 1; zero ones stay."""
    vectors = np.asarray(vectors, np.float32)
    largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
    scaled = vectors / np.where(largest > 0, largest, 1)  # no square of it overflows or vanishes
    lengths = np.sqrt(np.square(scaled).sum(axis=1, keepdims=True))
    return scaled / np.where(lengths > 0, lengths, 1)


def squared_distances(some: Any) -> npt.NDArray[np.float64]:
    """Squared Euclidean distances between rows, infinite to themselves."""
    centred = some - some.mean(axis=0) if len(some) else some
    squares = np.square(centred).sum(axis=1)
    found = squares[:, None] + squares[None] - 2 * (centred @ centred.T)
    np.maximum(found, 0, out=found)
    np.fill_diagonal(found, np.inf)
    return np.asarray(found)


def nearest(distances: npt.NDArray[np.float64], k: int) -> Ints:
    """The k nearest of each row, in order: (m, k); fewer where there are fewer rows."""
    k = min(k, max(0, len(distances) - 1))
    if k == 0:
        return np.empty((len(distances), 0), np.int64)
    part = np.argpartition(distances, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(distances, part, axis=1), axis=1, kind="stable")
    return np.asarray(np.take_along_axis(part, order, axis=1), np.int64)


def draw(total: int, wanted: int, rng: np.random.Generator) -> Ints:
    """Which of `total` are drawn, at random and in random order; all where no more are there."""
    if total <= wanted:
        return np.asarray(rng.permutation(total), np.int64)
    return np.asarray(rng.choice(total, wanted, replace=False), np.int64)


def shares(of: Sequence[Any]) -> dict[Any, float]:
    """How large a share each value has, the largest first."""
    from collections import Counter

    counts = Counter(of)
    return {value: count / len(of) for value, count in counts.most_common()}
