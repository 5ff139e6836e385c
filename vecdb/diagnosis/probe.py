"""How much of what is wanted lies in the vectors, if they were only weighted otherwise?

A linear map of all vectors, fitted to judged pairs and measured on others. A first step stretches the
cloud's principal components towards equal widths, by a power that is chosen (Mu and Viswanath, 2018;
whitening is the power 1/2); then the map starts at the identity and learns by contrast, each query's
relevant rows against others (`adapting/contrastive.py`), held as near to its start as held-out training
queries ask for. What no map brings back is not in the vectors.

This is a measuring device of a second a fit, run dozens of times. A map to be applied is `fit_adapter`'s,
which mines negatives among all rows, tries other kinds of map, and reports what it gains.

Invariants (tests/unit/test_diagnosis_parts.py):
  P1  no query of the part that is measured is seen by a fit, nor by the choice of how it is done;
  P2  the same arrays and seed give the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from vecdb.adapting import contrastive
from vecdb.diagnosis.judged import ndcg
from vecdb.diagnosis.subject import unit

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

POWERS: Final = (0.0, 0.25, 0.5)
FLOOR: Final = 0.01  # of the widest component's variance: narrower ones are not stretched further
NEGATIVES: Final = 800  # rows that a fit contrasts with
WIDEST: Final = 512  # dimensions; more are brought to their first components
INNER: Final = 0.25  # of the training queries choose powers and steps

Grades = Sequence[Mapping[int, float]]


class Space(NamedTuple):
    """Queries (m, d), rows (n, d), and the relevant rows of each query."""

    queries: Floats
    rows: Floats
    grades: Grades
    any_answer: bool = False  # one relevant row near is as good as all, as of a label


class Choice(NamedTuple):
    """What a fit does: the power of the first step, and how many pulls of `contrastive.PULLS` it follows."""

    power: float
    pulls: int


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


def learned(space: Space, train: Sequence[int], pulls: int, rng: np.random.Generator) -> list[Floats]:
    """The maps (d, d) along the first pulls, the identity first: by contrast with some rows."""
    maps = [np.eye(space.rows.shape[1], dtype=np.float32)]
    if not pulls:
        return maps
    relevant = sorted({row for at in train for row in space.grades[at]})
    others = np.setdiff1d(np.arange(len(space.rows)), relevant)
    more = rng.permutation(others)[: max(0, NEGATIVES - len(relevant))]
    chosen = np.concatenate([np.array(relevant, np.int64), more])
    column = {row: at for at, row in enumerate(relevant)}
    answers = np.zeros((len(train), len(chosen)), np.bool_)
    for line, at in enumerate(train):
        answers[line, [column[row] for row in space.grades[at]]] = True
    lesson = contrastive.Lesson(
        space.queries[list(train)], space.rows[chosen], answers, np.zeros_like(answers), "cosine",
        space.any_answer,
    )  # fmt: skip
    return maps + [map_ for _, map_ in contrastive.path(lesson, contrastive.PULLS[:pulls])]


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
    """The power and pulls that suit held-out training queries best; ties by the smaller change (P1)."""
    inner = max(2, round(INNER * len(train)))
    held, rest = train[:inner], train[inner:]
    best, choice = -1.0, Choice(0.0, 0)
    for power, space in spaces.items():
        for pulls, map_ in enumerate(learned(space, rest, len(contrastive.PULLS), rng)):
            mean = float(quality(space, map_ if pulls else None, held).mean())
            if mean > best + 1e-9:
                best, choice = mean, Choice(power, pulls)
    return choice


def fitted(
    spaces: Mapping[float, Space], choice: Choice, train: Sequence[int], test: Sequence[int],
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:  # fmt: skip
    """nDCG@10 of the queries in `test`, after a fit to those in `train`."""
    space = spaces[choice.power]
    return quality(space, learned(space, train, choice.pulls, rng)[-1] if choice.pulls else None, test)
