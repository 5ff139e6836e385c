"""Which documents come first under a map, and how good is that?

Rankings are exact: every query against every document, a block at a time, the query itself left out. Of pairs
and choices all documents of the collection are ranked; of labels all rows that have one; of triplets there is
nothing to rank, only two documents to compare.

Invariants (checked by tests/unit/test_fit_adapter.py):
  M1  figures are those of vecdb.evaluation.metrics on these rankings; ties stand in the order of rows.

Rejected: held-out rows of labels among themselves alone. With a fifth of the rows a query's tenth neighbour
is as far as its fiftieth of all, where other maps are best: on Fashion-MNIST the map chosen so gained 8
points there and none among all rows. That its label is not known to the map is what makes a row a fair query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

from vecdb.evaluation.metrics import parse

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.adapting.sources import Task

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.intp]
    Bools = npt.NDArray[np.bool_]

RANKED: Final = ("ndcg@10", "map@100", "recall@1", "recall@10")
LABELLED: Final = ("precision@10", "precision@1")
TRIPLETS: Final = ("triplets in order",)
DECIDING: Final = 2  # of RANKED, from the first on; of the others the first alone
MOST_MEASURED: Final = 2_000  # held-out queries or rows that are asked
MOST_AMONG: Final = 20_000  # rows with labels that they are asked among
DEPTH: Final = 10  # of labels
DEEP: Final = 100  # of rankings
_NUMBERS: Final = 1 << 24  # of a block of similarities

Map = Callable[["Floats"], "Floats"]


def metrics_of(task: Task) -> tuple[str, ...]:
    """The names of the figures, the decisive one first."""
    if task.wrong is not None:
        return TRIPLETS
    return RANKED if task.labels is None else LABELLED


def figures(task: Task, units: Ints, map: Map) -> dict[str, list[float]]:
    """What each metric says of each of `units`, under a map of vectors; at most MOST_MEASURED of them."""
    asked = units[:MOST_MEASURED]
    metric = task.field.metric
    if task.wrong is not None:
        return {TRIPLETS[0]: _in_order(task, asked, map)}
    among, itself = np.arange(len(task.documents)), task.itself[asked]
    if task.labels is not None and len(among) > MOST_AMONG:
        others = np.setdiff1d(among, asked)
        step = -(-len(others) // (MOST_AMONG - len(asked)))
        among = np.sort(np.concatenate([asked, others[::step]]))
        itself = np.searchsorted(among, asked)
    documents = map(task.documents[among])
    depth = DEPTH if task.labels is not None else DEEP
    found = among[ranked(map(task.queries[asked]), documents, itself, metric, depth)]
    kinds = [parse(name) for name in metrics_of(task)]
    values: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    for unit, rows in zip(asked.tolist(), found.tolist(), strict=True):
        if task.labels is None:
            grades = dict.fromkeys(task.answers[unit].tolist(), 1)
        else:
            grades = {row: 1 for row in rows if task.labels[row] == task.labels[unit]}
        for kind in kinds:
            values[kind.name].append(kind.of(rows, grades))
    return values


def ranked(queries: Floats, documents: Floats, itself: Ints, metric: str, k: int) -> Ints:
    """The rows of the best `k` documents of each query (q, k), best first; fewer where there are fewer."""
    k = min(k, len(documents) - int((itself >= 0).any()))
    found = np.empty((len(queries), k), np.intp)
    squares = np.square(documents).sum(axis=1) / 2 if metric == "l2" else None
    step = max(1, _NUMBERS // max(1, len(documents)))
    for at in range(0, len(queries), step):
        similar = queries[at : at + step] @ documents.T
        if squares is not None:
            similar -= squares
        own = itself[at : at + step]
        has = np.flatnonzero(own >= 0)
        similar[has, own[has]] = -np.inf
        found[at : at + step] = best(similar, k)
    return found


def best(similar: Floats, k: int) -> Ints:
    """The places of the `k` largest of each row, largest first, ties by place."""
    if k < similar.shape[1]:
        # the k-th largest is the limit; all above it, and of those that equal it the first
        limit = np.partition(similar, similar.shape[1] - k, axis=1)[:, similar.shape[1] - k]
        found = np.empty((len(similar), k), np.intp)
        for at, row in enumerate(similar):
            some = np.flatnonzero(row >= limit[at])
            found[at] = some[np.argsort(-row[some], kind="stable")[:k]]
        return found
    return np.argsort(-similar, axis=1, kind="stable")[:, :k]


def gains(similar: Floats, answers: Bools) -> npt.NDArray[np.float64]:
    """The mean of nDCG@10 and nDCG@100 of each row of similarities, where some documents are answers.

    The first is what users see; the second counts many more answers of a query, and so tells maps apart that
    differ by less than the chance in the first.
    """
    order = best(similar, min(DEEP, similar.shape[1]))
    hits = np.take_along_axis(answers, order, axis=1)
    counts = answers.sum(axis=1)
    found = np.zeros(len(similar))
    for depth in (DEPTH, DEEP):
        discounts = 1 / np.log2(np.arange(2, min(depth, order.shape[1]) + 2))
        got = (hits[:, : len(discounts)] * discounts).sum(axis=1)
        found += got / np.cumsum(discounts)[np.clip(counts, 1, len(discounts)) - 1] / 2
    return found


def _in_order(task: Task, units: Ints, map: Map) -> list[float]:
    """Of each query the share of its pairs of rows that stand as they should."""
    assert task.wrong is not None
    images = map(task.documents)
    queries = map(task.queries[units])
    found = []
    for query, unit in zip(queries, units.tolist(), strict=True):
        right = _of_one(query, images[task.answers[unit]], task.field.metric)
        wrong = _of_one(query, images[task.wrong[unit]], task.field.metric)
        found.append(float((right[:, None] > wrong).mean()))
    return found


def _of_one(query: Floats, documents: Floats, metric: str) -> Floats:
    similar: Floats = documents @ query
    return similar - np.square(documents).sum(axis=1) / 2 if metric == "l2" else similar
