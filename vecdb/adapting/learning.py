"""Which map is the best that can be learned from these judgements, by a part of them that is kept aside?

    1. the vectors in their principal directions (closed.py), unless there are few dimensions anyway
    2. the maps that need no steps: none, principal directions, whitening, discriminant; each is made of two
       thirds of the judgements and judged by the rest
    3. from the plain vectors, and from the best of those maps, the contrastive path (contrastive.py)
    4. what was best, learned again from all the judgements given

The judgements given are the training part alone; what is held out is never seen here. With few judgements the
kept-aside part changes three times, and means decide.

Invariants (checked by tests/unit/test_fit_adapter.py):
  T1  the same task, units and seed give the same map;
  T2  the vectors as they are take part: what is not better on the part kept aside is not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from vecdb.adapting import closed, measuring, mining
from vecdb.adapting.contrastive import Lesson, path

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.adapting.sources import Task
    from vecdb.collection import Collection

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.intp]
    Bools = npt.NDArray[np.bool_]

IDENTITY: Final = "identity"
MOST_QUERIES: Final = 2_000  # that are learned from
MOST_ROWS: Final = 5_000  # with labels, that they are learned among
MANY: Final = 300  # judged queries from which on one split is enough
SPLITS: Final = 4
ASIDE: Final = 1 / 3
WHITENINGS: Final = ((0.25, False), (0.5, False))
CENTRED: Final = ((0.0, True), (0.5, True), (1.0, True))  # under cosine
SHRINK: Final = 0.01  # of whitening
DISCRIMINANTS: Final = ((0.1, 0.5), (1.0, 0.25), (1.0, 0.5), (1.0, 1.0))  # shrinkage, power
RANKS: Final = (8, 32)  # to which the difference from the identity is cut, where that costs nothing
PATIENCE: Final = 2  # pulls in a row that are no better

Maker = Callable[["Ground", "Ints"], "closed.Start | None"]


@dataclass(frozen=True, slots=True)
class Learned:
    """A map x -> (x - mean) @ matrix of vectors as they are stored (under cosine: of length 1).

    `low_rank`: (U, V) with matrix = I + U @ V. `scores`: what was tried, and how it did on the part aside.
    """

    name: str
    matrix: Floats
    mean: Floats | None
    low_rank: tuple[Floats, Floats] | None
    scores: tuple[tuple[str, float], ...]
    learned: int
    aside: int

    def __call__(self, rows: Floats, metric: str) -> Floats:
        """Images (n, d), under cosine of length 1."""
        if self.name == IDENTITY:
            return rows
        images: Floats = np.asarray(rows if self.mean is None else rows - self.mean, np.float32) @ self.matrix
        if metric == "cosine":
            lengths = np.sqrt(np.square(images, dtype=np.float64).sum(axis=1, keepdims=True))
            images = np.asarray(images / np.maximum(lengths, 1e-12), np.float32)
        return images


def learn(papers: Collection, task: Task, units: Ints, seed: int) -> Learned:
    """The best map that the judgements of `units` lead to."""
    ground = Ground.of(papers, task, units, seed)
    splits = list(_splits(len(ground), seed))
    scores: dict[str, float] = {IDENTITY: _mean(ground.plain(aside) for _, aside in splits)}
    makers = _makers(ground)
    for name, maker in makers.items():
        found = _judged(ground, splits, maker)
        if found is not None:
            scores[name] = found
    best = max(makers, key=lambda name: scores.get(name, -1.0))  # of equal ones the first
    begin = [_PLAIN] + ([best] if best != _PLAIN and scores.get(best, -1.0) > scores[IDENTITY] else [])
    paths = {name: _followed(ground, splits, makers[name]) for name in begin}
    for name, steps in paths.items():
        for pull, (score, _) in steps.items():
            scores[_named(name, pull)] = score
    chosen = max(scores, key=lambda name: scores[name])
    told = tuple(sorted(scores.items(), key=lambda each: -each[1]))
    aside = len(splits[0][1])
    count = (told, len(ground), aside)
    whole = np.arange(len(ground))
    known = {_named(name, pull): (name, pull) for name in paths for pull in paths[name]}
    base, pull = known.get(chosen, (chosen, 0.0))
    start = ground.sized(makers[base](ground, whole)) if base in makers else None
    if start is None:  # the identity, or what can be made of the parts and not of the whole
        eye = np.eye(task.queries.shape[1], dtype=np.float32)
        return Learned(IDENTITY, eye, None, None, *count)
    if chosen in makers:
        return _learned(ground, chosen, start, np.eye(ground.rank, dtype=np.float32), None, *count)
    lesson = ground.lesson(whole, start)
    pulls = tuple(each for each in paths[base] if each >= pull)
    *_, (_, map) = path(lesson, pulls)
    rank = None
    if base == _PLAIN and ground.rank == ground.basis.shape[0]:
        rank = _cheapest(ground, splits, paths[base][pull][1], scores[chosen])
    return _learned(ground, chosen, start, map, rank, *count)


_PLAIN: Final = "the vectors"


def _named(base: str, pull: float) -> str:
    return f"contrastive from {base}, pull {pull:g}"


class Ground:
    """What a map is learned from and judged by: the training part, in its principal directions."""

    def __init__(self, task: Task, basis: Floats, size: float) -> None:
        self.metric = task.field.metric
        self.basis = basis
        self.rank = basis.shape[1]
        self._size = np.float32(size)  # of the vectors; those here have size 1
        self.queries: Floats
        self.documents: Floats
        self.answers: Bools
        self.out: Bools
        self.own: Bools
        self.labels: Ints | None = None
        self.near = measuring.DEPTH  # as deep among rows with labels as the tenth is among all
        self.whole: tuple[Floats, Floats]  # queries and documents in all their dimensions
        self.pairs: tuple[Ints, Ints]
        self.only_given = task.wrong is not None

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def of(cls, papers: Collection, task: Task, units: Ints, seed: int) -> Ground:
        """The ground of some queries, or rows, of a task."""
        most = MOST_QUERIES if task.labels is None else MOST_ROWS
        units = np.sort(np.random.default_rng([seed, 2]).permutation(units)[:most])
        rows = units if task.labels is not None else mining.pool(papers, task, units, seed)
        documents = task.documents[rows]
        size = _size(documents, task.field.metric)
        found = cls(task, closed.principal(documents), size)
        found.whole = (task.queries[units] / found._size, documents / found._size)
        found.queries, found.documents = (each @ found.basis for each in found.whole)
        if task.labels is not None:
            found.labels = task.labels[units]
            found.near = max(1, round(measuring.DEPTH * len(units) / max(len(papers), len(units))))
            return found
        place = np.full(len(task.documents), -1, np.intp)
        place[rows] = np.arange(len(rows))
        shape = (len(units), len(rows))
        answers = [known[known >= 0] for known in (place[task.answers[unit]] for unit in units.tolist())]
        found.answers, found.own = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        for at, unit in enumerate(units.tolist()):
            found.answers[at, answers[at]] = True
            if task.itself[unit] >= 0 and place[task.itself[unit]] >= 0:
                found.own[at, place[task.itself[unit]]] = True
        if task.wrong is not None:
            found.out = ~found.answers
            for at, unit in enumerate(units.tolist()):
                found.out[at, place[task.wrong[unit]]] = False
            found.out[found.answers] = False
        else:
            found.out = found.own | mining.near_answers(found.whole[1], answers, found.metric)
            found.out[found.answers] = False
        one, other = np.nonzero(found.answers)
        found.pairs = one, other
        return found

    def sized(self, start: closed.Start | None) -> closed.Start | None:
        """The same map at the size at which images are as large as the vectors here, which is 1."""
        if start is None or self.metric == "cosine":
            return start
        size = _size(start(self.documents), self.metric)
        return start._replace(matrix=np.asarray(start.matrix / np.float32(size), np.float32))

    def lesson(self, units: Ints, start: closed.Start) -> Lesson:
        """What the contrastive path learns from."""
        if self.labels is None:
            queries, documents = start(self.queries[units]), start(self.documents)
            return Lesson(queries, documents, self.answers[units], self.out[units], self.metric)
        labels = self.labels[units]
        counts = np.bincount(labels)[labels]
        anchors = np.flatnonzero(counts > 1)
        anchors = anchors[:: -(-len(anchors) // MOST_QUERIES)] if len(anchors) else anchors
        images = start(self.documents[units])
        answers = labels[anchors][:, None] == labels
        out = anchors[:, None] == np.arange(len(units))
        return Lesson(images[anchors], images, answers & ~out, out, self.metric, any_answer=True)

    def plain(self, units: Ints) -> float:
        """The score of the vectors as they are."""
        return self._score(units, self.whole[0], self.whole[1])

    def score(self, units: Ints, start: closed.Start, map: Floats | None = None) -> float:
        """The mean figure of some queries: of rankings, of labels, or triplets in order.

        Of labels, rows that have none stand between those that have: the tenth neighbour of all is as far
        as perhaps the second here, and what is best for ten of the few need not be for ten of the many. So
        the precisions at both depths count alike.
        """
        move = start if map is None else start._replace(matrix=start.matrix @ map)
        return self._score(units, move(self.queries), move(self.documents))

    def _score(self, units: Ints, queries: Floats, documents: Floats) -> float:
        queries, documents = _directed(queries[units], self.metric), _directed(documents, self.metric)
        if self.labels is not None:
            found = measuring.ranked(queries, documents, units, self.metric, measuring.DEPTH)
            agree = self.labels[found] == self.labels[units][:, None]
            return float(agree.mean() + agree[:, : self.near].mean()) / 2
        similar = queries @ documents.T
        if self.metric == "l2":
            similar -= np.square(documents).sum(axis=1) / 2
        if self.only_given:
            return self._in_order(similar, units)
        similar[self.own[units]] = -np.inf
        return float(measuring.gains(similar, self.answers[units]).mean())

    def _in_order(self, similar: Floats, units: Ints) -> float:
        shares = []
        for at, unit in enumerate(units.tolist()):
            right = similar[at, self.answers[unit]]
            wrong = similar[at, ~self.answers[unit] & ~self.out[unit]]
            shares.append(float((right[:, None] > wrong).mean()) if wrong.size and right.size else 1.0)
        return _mean(iter(shares))

    def spread(self, units: Ints) -> tuple[closed.Doubles, closed.Doubles] | None:
        """(within, total) of what belongs together by the judgements of some queries."""
        if self.labels is not None:
            return closed.spread_of_classes(self.documents[units], self.labels[units])
        mine = np.isin(self.pairs[0], units)
        one, other = self.queries[self.pairs[0][mine]], self.documents[self.pairs[1][mine]]
        return closed.spread_of_pairs(one, other) if len(one) else None


# --- what is tried -----------------------------------------------------------------------------------


def _makers(ground: Ground) -> dict[str, Maker]:
    """The maps that need no steps, by name; the plain vectors first."""
    found: dict[str, Maker] = {
        _PLAIN: lambda ground, units: closed.Start(_PLAIN, np.eye(ground.rank, dtype=np.float32))
    }
    kinds = WHITENINGS + (CENTRED if ground.metric == "cosine" else ())
    for strength, centred in kinds:
        made = closed.whitening(ground.documents, strength, shrink=SHRINK, centred=centred)
        found[made.name] = lambda ground, units, made=made: made  # type: ignore[misc]
    for shrink, power in DISCRIMINANTS:

        def maker(
            ground: Ground, units: Ints, shrink: float = shrink, power: float = power
        ) -> closed.Start | None:
            spread = ground.spread(units)
            return None if spread is None else closed.discriminant(*spread, shrink, power)

        found[f"discriminant, shrunk {shrink:g}, power {power:g}"] = maker
    return found


def _judged(ground: Ground, splits: list[tuple[Ints, Ints]], maker: Maker) -> float | None:
    """The mean score of what a maker makes, None where it makes nothing."""
    found = []
    for learned, aside in splits:
        start = maker(ground, learned)
        if start is None:
            return None
        found.append(ground.score(aside, start))
    return _mean(iter(found))


def _followed(
    ground: Ground, splits: list[tuple[Ints, Ints]], maker: Maker
) -> dict[float, tuple[float, list[tuple[closed.Start, Floats]]]]:
    """Pull: the mean score over the splits, and the maps. All splits take a step before the next pull."""
    starts = [ground.sized(maker(ground, learned)) for learned, _ in splits]
    if any(start is None for start in starts):
        return {}
    made = [start for start in starts if start is not None]
    walks = [path(ground.lesson(learned, start)) for (learned, _), start in zip(splits, made, strict=True)]
    found: dict[float, tuple[float, list[tuple[closed.Start, Floats]]]] = {}
    best, patience = -1.0, PATIENCE
    for steps in zip(*walks, strict=True):
        maps = [map for _, map in steps]
        each = zip(splits, made, maps, strict=True)
        score = _mean(ground.score(aside, start, map) for (_, aside), start, map in each)
        found[steps[0][0]] = (score, list(zip(made, maps, strict=True)))
        patience = PATIENCE if score > best else patience - 1
        best = max(best, score)
        if not patience:
            break
    return found


def _cheapest(
    ground: Ground, splits: list[tuple[Ints, Ints]], maps: list[tuple[closed.Start, Floats]], score: float
) -> int | None:
    """The least rank of a difference from the identity that scores as well."""
    for rank in RANKS:
        if rank * 2 >= ground.rank:
            return None
        cut = [(start, _sum(*_factors(map, rank))) for start, map in maps]
        each = zip(splits, cut, strict=True)
        if _mean(ground.score(aside, start, map) for (_, aside), (start, map) in each) >= score:
            return rank
    return None


def _factors(map: Floats, rank: int) -> tuple[Floats, Floats]:
    """U (d, rank), V (rank, d) with map near I + U @ V."""
    left, sizes, right = np.linalg.svd(map - np.eye(len(map), dtype=np.float32))
    roots = np.sqrt(sizes[:rank])
    return np.ascontiguousarray(left[:, :rank] * roots), np.ascontiguousarray(roots[:, None] * right[:rank])


def _sum(one: Floats, other: Floats) -> Floats:
    return np.eye(len(one), dtype=np.float32) + one @ other


def _learned(
    ground: Ground, name: str, start: closed.Start, map: Floats, rank: int | None,
    scores: tuple[tuple[str, float], ...], learned: int, aside: int,
) -> Learned:  # fmt: skip
    """A map in the principal directions as one of the vectors as they are stored."""
    low_rank = None if rank is None else _factors(map, rank)
    if low_rank is not None:
        return Learned(f"{name}, rank {rank}", _sum(*low_rank), None, low_rank, scores, learned, aside)
    inner = start.matrix @ map
    if ground.metric != "cosine":  # images as large as the vectors were
        inner = np.asarray(inner / np.float32(_size(ground.documents @ inner, ground.metric)), np.float32)
    matrix = np.ascontiguousarray(ground.basis @ inner @ ground.basis.T, np.float32)
    mean = None if start.mean is None else ground.basis @ start.mean
    return Learned(name, matrix, mean, None, scores, learned, aside)


def _splits(n: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """(what is learned from, what is kept aside), ascending."""
    aside = max(1, round(n * ASIDE))
    for number in range(1 if n >= MANY else SPLITS):
        order = np.random.default_rng([seed, 3, number]).permutation(n)
        yield np.sort(order[aside:]), np.sort(order[:aside])


def _directed(rows: Floats, metric: str) -> Floats:
    if metric != "cosine":
        return rows
    lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(lengths, np.float32(1e-12)), np.float32)


def _size(documents: Floats, metric: str) -> float:
    """How large vectors are: similarities are measured in it, or a temperature would mean nothing."""
    if metric == "cosine" or not len(documents):
        return 1.0
    middle = documents.mean(axis=0, dtype=np.float64) if metric == "l2" else 0.0
    squares = float(np.square(documents - middle).sum(axis=1).mean())
    found = float(np.sqrt(2 * squares if metric == "l2" else squares))
    return found if found > 0 else 1.0


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else 0.0
