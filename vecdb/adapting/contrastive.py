"""How is a linear map learned that brings answers before all other documents, and stays near where it began?

For each query the similarities to the documents, over a temperature, are a softmax's logits (InfoNCE: van den
Oord et al., 2018). With answers A and others O of a query, the loss is

    each   mean over a in A of  -log e_a / (e_a + sum of e_o over O)     every answer is wanted: pairs
    any    -log (sum of e_a over A) / (sum over A and O)                 near ones suffice: labels, which is
                                                                         NCA (Goldberger et al., NIPS 2004)

plus pull / r * |W - I|^2. Similarity is what the metric ranks by: the cosine, the dot product, or minus half
the squared distance. Documents that are left out (`out`) count for nothing: the query itself, and what nearly
equals an answer. The whole is minimised by L-BFGS (Liu and Nocedal, 1989) along a path of falling pulls, each
beginning where the last one ended, so that a weaker pull is early stopping of a kind.

Invariants (checked by tests/unit/test_fit_adapter.py):
  L1  the gradient is that of the loss: finite differences agree, under every metric and loss;
  L2  the same input gives the same map; the loss never rises from one step to the next.

Rejected: Adam with in-batch negatives. It needs a rate and a number of steps for every size of data, and with
all documents at hand one product of matrices gives all negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Bools = npt.NDArray[np.bool_]

PULLS: Final = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
STEPS: Final = 8  # at each pull
TEMPERATURE: Final = 0.07
_BLOCK: Final = 512  # queries at once
_HISTORY: Final = 8
_SETTLED: Final = 1e-4  # of the loss: a step that gains less is the last
_FURTHEST: Final = 0.1  # of its own size, that the first step may move the map


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learned from: queries (q, r), documents (n, r), answers and what is left out (q, n).

    Every query has an answer, and no answer is left out.
    """

    queries: Floats
    documents: Floats
    answers: Bools
    out: Bools
    metric: str
    any_answer: bool = False
    temperature: float = TEMPERATURE


def path(lesson: Lesson, pulls: tuple[float, ...] = PULLS) -> Iterator[tuple[float, Floats]]:
    """Yield (pull, W (r, r)) along falling pulls."""
    rank = lesson.queries.shape[1]
    start = np.eye(rank, dtype=np.float32)
    found = start
    for pull in pulls:

        def cost(map: Floats, pull: float = pull) -> tuple[float, Floats]:
            value, gradient = loss(lesson, map)
            away = map - start
            value += pull / rank * float(np.square(away, dtype=np.float64).sum())
            return value, gradient + np.float32(2 * pull / rank) * away

        found = minimised(cost, found, STEPS)
        yield pull, found


def loss(lesson: Lesson, map: Floats) -> tuple[float, Floats]:
    """The mean loss of the queries under a map (r, r), and its gradient (r, r). Costs 6 (q n r + n r^2)."""
    b = lesson.documents @ map
    there = _Side(b, lesson.metric)
    moved = np.zeros_like(b)
    gradient = np.zeros_like(map)
    value = 0.0
    for at in range(0, len(lesson.queries), _BLOCK):
        some = slice(at, at + _BLOCK)
        here = _Side(lesson.queries[some] @ map, lesson.metric)
        cost, slope = _softmax(lesson, _similar(here, there), some)
        value += cost
        gradient += lesson.queries[some].T @ here.back(slope, there)
        moved += there.back(slope.T, here)
    gradient += lesson.documents.T @ moved
    return value / len(lesson.queries), gradient / np.float32(len(lesson.queries))


class _Side:
    """Images of one side, and how a slope in similarities becomes one in them."""

    def __init__(self, images: Floats, metric: str) -> None:
        self.metric = metric
        self.lengths = np.ones((len(images), 1), np.float32)
        if metric == "cosine":
            lengths = np.sqrt(np.square(images).sum(axis=1, keepdims=True))
            self.lengths = np.maximum(lengths, np.float32(1e-12))
        self.images = np.asarray(images / self.lengths, np.float32) if metric == "cosine" else images
        self.squares = np.square(images).sum(axis=1) if metric == "l2" else None

    def back(self, slope: Floats, other: _Side) -> Floats:
        """The slope in these images, of one in similarities (mine, theirs)."""
        found: Floats = slope @ other.images
        if self.metric == "l2":
            found -= slope.sum(axis=1, keepdims=True) * self.images
        elif self.metric == "cosine":
            found -= (found * self.images).sum(axis=1, keepdims=True) * self.images
            found /= self.lengths
        return found


def _similar(here: _Side, there: _Side) -> Floats:
    found: Floats = here.images @ there.images.T
    if here.squares is not None and there.squares is not None:
        found -= here.squares[:, None] / 2
        found -= there.squares / 2
    return found


def _softmax(lesson: Lesson, similar: Floats, some: slice) -> tuple[float, Floats]:
    """The summed loss of some queries, and its slope in their similarities."""
    answers, out = lesson.answers[some], lesson.out[some]
    similar /= np.float32(lesson.temperature)
    np.putmask(similar, out, -np.inf)
    similar -= similar.max(axis=1, keepdims=True)
    weights = np.exp(similar)
    if lesson.any_answer:
        right = np.where(answers, weights, 0)
        all_, rights = weights.sum(axis=1, keepdims=True), right.sum(axis=1, keepdims=True)
        all_, rights = np.maximum(all_, 1e-30), np.maximum(rights, 1e-30)
        slope = weights / all_ - right / rights
        return float(np.log(all_ / rights).sum()), np.asarray(slope / lesson.temperature, np.float32)
    # answers are few: what is made of them is made at their places alone
    row, column = np.nonzero(answers)
    counts = np.bincount(row, minlength=len(weights)).astype(np.float32)[row]
    right, near = weights[row, column], similar[row, column]
    weights[row, column] = 0
    beside = right + np.maximum(weights.sum(axis=1), 1e-30)[row]
    shares = 1 / (beside * counts)
    slope = weights * np.bincount(row, shares, len(weights)).astype(np.float32)[:, None]
    slope[row, column] = right * shares - 1 / counts
    slope /= np.float32(lesson.temperature)
    return float(((np.log(beside) - near) / counts).sum(dtype=np.float64)), slope


# --- L-BFGS ------------------------------------------------------------------------------------------


def minimised(cost: Callable[[Floats], tuple[float, Floats]], start: Floats, steps: int) -> Floats:
    """A map at which `cost` is lower, by at most `steps` steps of L-BFGS with backtracking."""
    at, (value, gradient) = start, cost(start)
    kept: list[tuple[Floats, Floats, float]] = []  # step, change of the gradient, 1 / their product
    for _ in range(steps):
        direction = _direction(gradient, kept)
        falls = _dot(direction, gradient)
        if not falls < 0:
            direction, kept, falls = -gradient, [], -_dot(gradient, gradient)
        if not falls < 0:
            break
        length = 1.0
        if not kept:
            length = min(1.0, _FURTHEST * float(np.sqrt(_dot(at, at) / -falls)))
        for _ in range(12):
            there = at + np.float32(length) * direction
            next_value, next_gradient = cost(there)
            if next_value <= value + 1e-4 * length * falls:
                break
            length *= 0.4
        else:
            break
        moved, changed = there - at, next_gradient - gradient
        curvature = _dot(moved, changed)
        if curvature > 1e-12:
            kept = [*kept[1 - _HISTORY :], (moved, changed, 1 / curvature)]
        small = value - next_value < _SETTLED * max(1.0, abs(value))
        at, value, gradient = there, next_value, next_gradient
        if small:
            break
    return at


def _direction(gradient: Floats, kept: list[Any]) -> Floats:
    """The two loops of L-BFGS."""
    found = -gradient
    shares = []
    for moved, changed, scale in reversed(kept):
        share = scale * _dot(moved, found)
        found = found - np.float32(share) * changed
        shares.append(share)
    if kept:
        moved, changed, scale = kept[-1]
        found = found * np.float32(1 / (scale * _dot(changed, changed)))
    for (moved, changed, scale), share in zip(kept, reversed(shares), strict=True):
        found = found + np.float32(share - scale * _dot(changed, found)) * moved
    return found


def _dot(one: Floats, other: Floats) -> float:
    return float(np.vdot(one, other))
