"""While a field is embedded anew, how does a query of the new model find rows that only the old one knows?

A bridge maps a query q of the new model into the old model's space (Drift-Adapter, Vejendla, EMNLP 2025), so
that the old graph answers: q @ M, with M learned on a sample of texts that both models encoded. With X the
sample by the new model, Y by the old and C = X'Y, M is one of

    procrustes   the orthogonal matrix nearest to C (Schönemann 1966), rectangular where dimensions differ
    ridge        (X'X + s)^-a C (Y'Y + s)^-b: a=1, b=0 is ridge regression of old on new, the query's way;
                 a=0, b=1 of new on old, the documents' way, as q·(Wd) = (W'q)·d; between them and beyond
                 are those that whiten both sides, as a regularised canonical correlation does (Vinod 1976)
    low-rank     either of them cut to the strongest of its singular values

`expected` says what a score by the old graph would be in the new space, so that rows of both kinds stand in
one ranking. Where the old model can still encode queries, `bridge(new, old)` is a mean of both, and that is
what should be asked: from 150 texts on it did not fall behind the old model in any measurement (from 50 to
100 it did, by up to .03 of nDCG@10), which a bridge alone does.

Invariants (checked by tests/unit/test_bridge.py):
  L1  a figure in `loss`, the choice of the map, and the calibration come from rows that the map in question
      did not learn from: of three parts each is judged by a map of the other two;
  L2  the same sample and seed give the same bytes, on one machine.

What was measured, wordllama to MiniLM, learned from 200 to 2,000 texts (nDCG@10 on Cranfield and CISI by
their judgements; agreement with the new model on 62,666 package descriptions):
  - The map is chosen by whether a text's image finds that text's own old vector (mean reciprocal rank). That
    picks within about .01 of the best nDCG@10, and in the large collection the best map or nearly. Agreement
    with the new model's neighbours among the held-out texts prefers maps that keep broad topics, as few texts
    differ in little else: up to .06 of nDCG@10 lost, and in the large collection two fifths of the agreement.
  - Nor does agreement, or a title that finds its text, say whether bridge or old model serves users better:
    the one is above the old model's where judged quality is below, the other below where it is above.
  - The weight of 1.5 for the old model's query: with 1 the small collections gain up to .02 more, and the
    large one falls behind the old model where only 200 texts were learned from; with 2 all gain less.
  - Calibration: alone by regression, which lets an uncertain row stand back; with the old model's query by
    equal spread, as such rows are nearly as well ranked as converted ones, and shrinking would bury them.
    Real queries as calibration in place of rows were no better.

Rejected: mapping the documents, which would write every row twice, and dividing by |Wd|, which no graph of
old vectors knows; scores standardised for every query, which needs the scores of all rows and was no better;
ranks in turn, which lose where the converted rows are not a random part; a residual network, for 500 texts.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vecdb.adapting.bridge_map import METRICS, Bridge, Loss, directed, images, refuse, rows_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]
    Line = tuple[float, float]  # slope and offset
    Fold = tuple["_Moments", Doubles, Doubles]  # of two parts; the third by both models

__all__ = ["Bridge", "Loss", "learn"]

LEAST_ROWS: Final = 30
K: Final = 10

_PARTS: Final = 3
_LEAST: Final = 0.01  # correlation that is supposed: unrelated models still give an order
_TINY: Final = float(np.finfo(np.float32).tiny)


class _Way(NamedTuple):
    """One map that is tried."""

    kind: str
    a: float = 0.0
    b: float = 0.0
    strength: float = 0.0  # of the mean eigenvalue
    share: float = 1.0  # of the singular values


_STRENGTHS: Final = {
    (1, 0): (0.1, 1), (0, 1): (0.1, 1), (0.5, 1): (0.3,), (0.75, 1): (0.3, 1),
    (0.75, 0.75): (0.1, 0.3, 1), (1, 1): (0.1, 0.3, 1),
}  # fmt: skip
_ROTATIONS: Final = (_Way("procrustes"), *(_Way("low-rank", share=share) for share in (0.5, 0.25)))
_ANGULAR: Final = (
    *_ROTATIONS,
    *(_Way("ridge", a, b, s) for (a, b), strengths in _STRENGTHS.items() for s in strengths),
    _Way("low-rank", 0.75, 0.75, 0.3, 0.5),
)
# Under l2 an image must lie where old vectors lie, and only the query's way leads there.
_PLACED: Final = (
    *_ROTATIONS,
    *(_Way("ridge", 1, 0, s) for s in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    _Way("low-rank", 1, 0, 0.1, 0.5),
)


def learn(
    new: Any, old: Any, *, queries: Any = None, old_queries: Any = None, metric: str = "cosine", seed: int = 0
) -> Bridge:
    """Learn a bridge from the same texts by both models: `new` (n, dim_in), `old` (n, dim), from 30 rows on.

    500 to 2,000 rows at random are enough; under 500 the map is much weaker. `queries` (m, dim_in): queries
    as they are asked, by the new model, and `old_queries` (m, dim) by the old; `loss` then says what they
    lose, not what the rows would that ask for each other. Costs 1 s for 2,000 rows of 384 dimensions.
    Raises InvalidArgument for shapes that do not fit and rows that cannot be used.

    >>> texts = np.random.default_rng(0).normal(size=(90, 6))
    >>> learn(texts, texts).loss.recall
    1.0
    """
    if metric not in METRICS:
        refuse(f"metric={metric!r:.40}: a bridge is for one of {', '.join(map(repr, METRICS))}")
    x, y = rows_of("new", new, metric), rows_of("old", old, metric)
    if len(x) != len(y) or len(x) < LEAST_ROWS:
        refuse(f"new has {len(x):,} rows, old {len(y):,}; give the same texts by both, {LEAST_ROWS} at least")
    asked = None if queries is None else rows_of("queries", queries, metric, x.shape[1])
    beside = None if old_queries is None else rows_of("old_queries", old_queries, metric, y.shape[1])
    if beside is not None and (asked is None or len(asked) != len(beside)):
        refuse("old_queries go with queries: give the same texts by both models")
    parts = np.array_split(np.random.default_rng(seed).permutation(len(x)), _PARTS)
    folds = []
    for part in parts:
        rest = np.setdiff1d(np.arange(len(x)), part)
        folds.append((_Moments(x[rest], y[rest], metric), x[part], y[part]))
    ways = _PLACED if metric == "l2" else _ANGULAR
    found = [float(np.mean([_finds_itself(way, *fold, metric) for fold in folds])) for way in ways]
    best = int(np.argmax(found))
    loss, line, mixed = _measured(ways[best], folds, asked, beside, metric, found[best])
    matrix, offset = _Moments(x, y, metric).map(ways[best])
    return Bridge(matrix, offset, metric=metric, kind=ways[best].kind, line=line, mixed=mixed, loss=loss)


class _Moments:
    """What all ways need of a sample, worked out once: second moments, in their eigenvectors."""

    def __init__(self, x: Doubles, y: Doubles, metric: str) -> None:
        centred = metric == "l2"
        self.x_mean, self.y_mean = (each.mean(axis=0) * centred for each in (x, y))
        x, y = x - self.x_mean, y - self.y_mean
        self.is_placed = centred
        self.x_values, self.x_axes = np.linalg.eigh(x.T @ x)
        self.y_values, self.y_axes = np.linalg.eigh(y.T @ y)
        self.cross = x.T @ y
        self.inner = self.x_axes.T @ self.cross @ self.y_axes

    @cached_property
    def svd(self) -> tuple[Doubles, Doubles, Doubles]:
        return np.linalg.svd(self.cross, full_matrices=False)

    def map(self, way: _Way) -> tuple[Doubles, Doubles]:
        """The matrix and the offset of one way."""
        keep = max(1, round(way.share * min(self.cross.shape)))
        if way.strength == 0:
            left, values, right = self.svd
            matrix = left[:, :keep] @ right[:keep]
            if self.is_placed:  # with the scale that fits best (Schönemann and Carroll 1970)
                matrix *= values[:keep].sum() / max(float(self.x_values.sum()), _TINY)
        else:
            x = _shrunk(self.x_values, way.strength, way.a, self.is_placed)
            y = _shrunk(self.y_values, way.strength, way.b, self.is_placed)
            core = x[:, None] * self.inner * y
            if way.share < 1:
                left, values, right = np.linalg.svd(core, full_matrices=False)
                core = (left[:, :keep] * values[:keep]) @ right[:keep]
            matrix = self.x_axes @ core @ self.y_axes.T
        return matrix, self.y_mean - self.x_mean @ matrix


def _shrunk(values: Doubles, strength: float, power: float, is_placed: bool) -> Doubles:
    """(eigenvalue + strength of the mean) to the power; in units of the mean where length says nothing."""
    mean = float(values.mean())
    mean = mean if mean > _TINY else 1.0  # a sample with nothing in it
    shrunk: Doubles = (np.maximum(values, 0) / mean + strength) ** -power
    return shrunk / mean**power if is_placed else shrunk


def _nearness(queries: Doubles, rows: Doubles, metric: str) -> Doubles:
    """Larger is nearer; a score, but under l2 the distance below 0."""
    near: Doubles = queries @ rows.T
    if metric == "l2":
        squares = (queries**2).sum(axis=1)[:, None] + (rows**2).sum(axis=1) - 2 * near
        near = -np.sqrt(np.maximum(squares, 0))
    return near


def _finds_itself(way: _Way, moments: _Moments, x: Doubles, y: Doubles, metric: str) -> float:
    """Mean reciprocal rank of a text's own old vector for its image, among the rows that were held out."""
    matrix, offset = moments.map(way)
    if metric == "l2":
        near = _nearness(images(x, matrix, offset, metric), y, metric)
    else:  # by direction; lengths are 1, so float32 overflows nowhere, and takes half the time
        singles = [each.astype(np.float32) for each in (directed(x), matrix / (np.abs(matrix).max() or 1))]
        near = directed(singles[0] @ singles[1]) @ directed(y).astype(np.float32).T
    return float(np.mean(1 / (1 + (near > np.diag(near)[:, None]).sum(axis=1))))


class _Asked(NamedTuple):
    """Nearness of queries to the rows that were held out: in the new space, and by what stands for it."""

    truth: Doubles
    alone: Doubles
    old: Doubles | None
    mixed: Doubles | None


def _ask(
    way: _Way, folds: list[Fold], metric: str, queries: Doubles | None, old: Doubles | None
) -> list[_Asked]:
    """Ask every part by a map of the other two (L1); without queries the rows ask for each other."""
    found = []
    for moments, x, y in folds:
        matrix, offset = moments.map(way)
        told, known = (x, y) if queries is None else (queries, old)
        near = [_nearness(told, x, metric), _nearness(images(told, matrix, offset, metric), y, metric)]
        if known is not None:
            mixed = images(told, matrix, offset, metric, known)
            near += [_nearness(known, y, metric), _nearness(mixed, y, metric)]
        if queries is None:
            near = [_others(each) for each in near]
        found.append(_Asked(*near, *[None] * (4 - len(near))))
    return found


def _others(near: Doubles) -> Doubles:
    """Without the diagonal: a row does not answer itself."""
    return near[~np.eye(len(near), dtype=bool)].reshape(len(near), -1)


def _measured(
    way: _Way, folds: list[Fold], queries: Doubles | None, old: Doubles | None, metric: str, itself: float
) -> tuple[Loss, Line, Line]:
    """What is lost, and the lines of `expected` (L1)."""
    rows = _ask(way, folds, metric, None, None)
    asked = rows if queries is None else _ask(way, folds, metric, queries, old)
    among = min(each.truth.shape[1] for each in asked)
    k = max(1, min(K, among // 4))
    alone, line = _line(rows, "alone", metric)
    mixed, mixed_line = _line(rows, "mixed", metric)
    is_whole = queries is None or old is not None
    loss = Loss(
        sum(len(y) for _, _, y in folds), 0 if queries is None else len(queries), k, among,
        _recall(asked, "alone", k), _recall(asked, "mixed", k) if is_whole else None,
        _recall(asked, "old", k) if is_whole else None, itself, alone, mixed,
    )  # fmt: skip
    return loss, line, mixed_line


def _recall(asked: list[_Asked], by: str, k: int) -> float:
    """The share of the new model's nearest k that are among the nearest k of another way."""
    shares = []
    for each in asked:
        best = np.argpartition(-each.truth, k - 1, axis=1)[:, :k]
        found = np.argpartition(-getattr(each, by), k - 1, axis=1)[:, :k]
        shares.append(float((best[:, :, None] == found[:, None, :]).any(axis=2).mean()))
    return float(np.mean(shares))


def _line(asked: list[_Asked], by: str, metric: str) -> tuple[float, Line]:
    """The correlation of scores (under l2 of distances) and the line from the one to the other."""
    sign = -1 if metric == "l2" else 1
    given = sign * np.concatenate([getattr(each, by).ravel() for each in asked])
    truth = sign * np.concatenate([each.truth.ravel() for each in asked])
    spreads = float(given.std()), float(truth.std())
    if min(spreads) <= _TINY:
        return 0.0, (1.0, float(truth.mean() - given.mean()))
    correlation = float(np.mean((given - given.mean()) / spreads[0] * ((truth - truth.mean()) / spreads[1])))
    slope = (max(correlation, _LEAST) if by == "alone" else 1) * spreads[1] / spreads[0]
    return correlation, (slope, float(truth.mean() - slope * given.mean()))
