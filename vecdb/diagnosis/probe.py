"""How much of what is wanted lies in the vectors, if they were only weighted otherwise?

A linear map of all vectors, fitted to judged pairs and measured on others. A first step stretches the
cloud's principal components towards equal widths, by a power that is chosen (Mu and Viswanath, 2018;
whitening is the power 1/2); then the map starts at the identity and learns by contrast, each query's
relevant rows against all others (the softmax loss of van den Oord et al., 2018), for as many steps as
held-out training queries ask for. What a map cannot bring back is not in the vectors.

This is a measuring device of a second a fit, run dozens of times. A map to be applied is `fit_adapter`'s,
which takes hard negatives, regularisation and a report.

Invariants (tests/unit/test_diagnosis_parts.py):
  P1  no query of the part that is measured is seen by a fit;
  P2  the same arrays and seed give the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vecdb.diagnosis.judged import ndcg
from vecdb.diagnosis.subject import unit

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

POWERS: Final = (0.0, 0.25, 0.5)
FLOOR: Final = 0.01  # of the widest component's variance: narrower ones are not stretched further
STEPS: Final = (0, 20, 40)
RATE: Final = 0.001
SHARPNESS: Final = 20.0
NEGATIVES: Final = 1000  # rows that a fit contrasts with
WIDEST: Final = 512  # dimensions; more are brought to their first components
INNER: Final = 0.25  # of the training queries choose powers and steps

Grades = Sequence[Mapping[int, float]]


class Space(NamedTuple):
    """Queries (m, d), rows (n, d), and the relevant rows of each query."""

    queries: Floats
    rows: Floats
    grades: Grades


class Choice(NamedTuple):
    """What a fit does: the power of the first step, and how many steps of learning."""

    power: float
    steps: int


def narrowed(space: Space) -> Space:
    """The space in at most `WIDEST` dimensions: its principal components, where it has more."""
    if space.rows.shape[1] <= WIDEST:
        return space
    mean = space.rows.mean(axis=0)
    _, _, axes = np.linalg.svd((space.rows - mean)[:4000], full_matrices=False)
    first = axes[:WIDEST].T.astype(np.float32)
    return space._replace(queries=(space.queries - mean) @ first, rows=(space.rows - mean) @ first)


def stretched(space: Space, power: float) -> Space:
    """The space with its components' widths brought nearer to each other; of length 1."""
    if not power:
        return space._replace(queries=unit(space.queries), rows=unit(space.rows))
    rows = unit(space.rows)
    mean = rows.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(rows.astype(np.float64), rowvar=False))
    scale = (values.clip(0) + FLOOR * max(float(values.max()), 1e-30)) ** -power
    map_ = (axes * scale).astype(np.float32)
    return space._replace(queries=unit((unit(space.queries) - mean) @ map_), rows=unit((rows - mean) @ map_))


def learned(space: Space, train: Sequence[int], steps: int, rng: np.random.Generator) -> list[Floats]:
    """The maps (d, d) after each of `STEPS` up to `steps`, by Adam (Kingma and Ba, 2015) over all pairs."""
    d = space.rows.shape[1]
    eye = np.eye(d, dtype=np.float32)
    relevant = sorted({row for at in train for row in space.grades[at]})
    others = np.setdiff1d(np.arange(len(space.rows)), relevant)
    more = rng.permutation(others)[: max(0, NEGATIVES - len(relevant))]
    chosen = np.concatenate([np.array(relevant, np.int64), more])
    column = {row: at for at, row in enumerate(relevant)}
    rows, queries = space.rows[chosen], space.queries[list(train)]
    wanted = np.zeros((len(train), len(chosen)), np.float32)
    for line, at in enumerate(train):
        wanted[line, [column[row] for row in space.grades[at]]] = 1
    wanted /= wanted.sum(axis=1, keepdims=True)
    w, m, v = eye.copy(), np.zeros_like(eye), np.zeros_like(eye)
    found = [w.copy()]
    for step in range(1, steps + 1):
        gradient = _gradient(w, queries, rows, wanted)
        m = 0.9 * m + 0.1 * gradient
        v = 0.99 * v + 0.01 * gradient * gradient
        w = w - RATE * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
        if step in STEPS:
            found.append(w.copy())
    return found


def _gradient(w: Floats, queries: Floats, rows: Floats, wanted: Floats) -> Any:
    """Of the mean cross entropy of each query's rows, by the map."""
    a, b = queries @ w, rows @ w
    la = np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
    lb = np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12)
    a, b = a / la, b / lb
    scores = SHARPNESS * (a @ b.T)
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    scores = (scores - wanted) * (SHARPNESS / len(queries))
    by_a, by_b = scores @ b, scores.T @ a
    by_a = (by_a - (by_a * a).sum(axis=1, keepdims=True) * a) / la
    by_b = (by_b - (by_b * b).sum(axis=1, keepdims=True) * b) / lb
    return queries.T @ by_a + rows.T @ by_b


def quality(space: Space, map_: Floats | None, these: Sequence[int]) -> npt.NDArray[np.float64]:
    """nDCG@10 of some queries, mapped."""
    queries, rows = space.queries[list(these)], space.rows
    if map_ is not None:
        queries, rows = unit(queries @ map_), unit(rows @ map_)
    scores = queries @ rows.T
    return np.array([ndcg(row, space.grades[at]) for row, at in zip(scores, these, strict=True)])


def choose(
    spaces: Mapping[float, Space], train: Sequence[int], rng: np.random.Generator
) -> Choice:
    """The power and steps that suit held-out training queries best; ties by the smaller change (P1)."""
    inner = max(2, round(INNER * len(train)))
    held, rest = train[:inner], train[inner:]
    best, choice = -1.0, Choice(0.0, 0)
    for power, space in spaces.items():
        for steps, map_ in zip(STEPS, learned(space, rest, STEPS[-1], rng), strict=True):
            mean = float(quality(space, map_ if steps else None, held).mean())
            if mean > best + 1e-9:
                best, choice = mean, Choice(power, steps)
    return choice


def fitted(
    spaces: Mapping[float, Space], choice: Choice, train: Sequence[int], test: Sequence[int],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """nDCG@10 of the queries in `test`, after a fit to those in `train`."""
    space = spaces[choice.power]
    map_ = learned(space, train, choice.steps, rng)[-1] if choice.steps else None
    return quality(space, map_, test)
