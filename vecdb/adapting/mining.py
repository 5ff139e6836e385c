"""Among which documents is a query's answer to be found while a map is learned?

Of a small collection: all. Of a large one: every answer, what the collection's own index finds for each
query and is no answer (hard negatives: Xiong et al., ANCE, 2020), and others by chance, so that the map does
not only learn to tell near ones apart.

Not every document that is no answer is wrong: nobody judged most of them. What nearly equals an answer of the
query is left out (`near_answers`), and answers of the same query never stand against each other.

Invariants (checked by tests/unit/test_fit_adapter.py):
  N1  the pool holds every answer that is learned from, each row once, ascending;
  N2  the same seed gives the same pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.query.objects import Near
from vecdb.query.values import ById

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.adapting.sources import Task
    from vecdb.collection import Collection

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.intp]
    Bools = npt.NDArray[np.bool_]

POOL: Final = 4_000  # documents that are learned among, where answers are no more
MOST_ANSWERS: Final = 16  # of a query, in a large collection
HARD: Final = 30  # hits of each query
HARD_SHARE: Final = 0.75  # of the pool, at most
NEAR: Final = 0.02  # of the mean squared distance: as near is nearly equal
_BLOCK: Final = 1024


def pool(papers: Collection, task: Task, units: Ints, seed: int) -> Ints:
    """The rows of the documents among which the queries `units` learn, ascending."""
    n = len(task.documents)
    rng = np.random.default_rng([seed, 1])
    chosen: set[int] = set()
    for unit in units.tolist():
        for rows in (task.answers[unit], [] if task.wrong is None else task.wrong[unit]):
            if n > POOL and len(rows) > MOST_ANSWERS:
                rows = rng.choice(rows, MOST_ANSWERS, replace=False)
            chosen.update(map(int, rows))
    if task.wrong is not None:
        return np.array(sorted(chosen), np.intp)
    if n <= POOL:
        return np.arange(n, dtype=np.intp)
    answers = len(chosen)
    limit = max(answers, int(HARD_SHARE * POOL)) if answers < POOL else answers + POOL // 2
    for rank in _by_rank(papers, task, units):
        for row in rank:
            if len(chosen) >= limit:
                break
            chosen.add(row)
    wanted = max(POOL, len(chosen) + POOL // 8)
    for row in rng.permutation(n).tolist():
        if len(chosen) >= wanted:
            break
        chosen.add(row)
    return np.array(sorted(chosen), np.intp)


def _by_rank(papers: Collection, task: Task, units: Ints) -> list[list[int]]:
    """What the index finds, the first of every query first."""
    place = {id: at for at, id in enumerate(task.ids)}
    asked = [task.asked[unit] for unit in units.tolist()]
    kinds = (
        [each for each in asked if isinstance(each, str)],
        [Near(each, task.name) for each in asked if isinstance(each, ById)],
        [each for each in asked if not isinstance(each, str | ById)],
    )
    found: list[list[int]] = []
    with papers._db.snapshot() as snapshot:  # whose searches are not logged
        collection = snapshot[papers.name]
        for kind in kinds:
            for first in range(0, len(kind), _BLOCK):
                some: Any = kind[first : first + _BLOCK]
                using = None if isinstance(some[0], Near) else task.name
                hits = collection.search(some, HARD, using=using)
                found += [[place[id] for id in each.ids if id in place] for each in hits]
    return [[row[at] for row in found if at < len(row)] for at in range(HARD)]


def near_answers(documents: Floats, answers: Sequence[Ints], metric: str) -> Bools:
    """(q, n): which documents nearly equal an answer of the query and are none of its answers.

    `documents` as the metric sees them; `answers` by query, as rows of them. Costs n times the answers.
    """
    found = np.zeros((len(answers), len(documents)), np.bool_)
    known = np.unique(np.concatenate(answers)) if len(answers) else np.empty(0, np.intp)
    middle = documents.mean(axis=0, dtype=np.float64)
    limit = NEAR * 2 * float(np.square(documents - middle).sum(axis=1).mean())
    squares = np.square(documents).sum(axis=1)
    twins: dict[int, Ints] = {}
    for first in range(0, len(known), _BLOCK):
        some = known[first : first + _BLOCK]
        apart = squares[some][:, None] + squares - 2 * documents[some] @ documents.T
        for row, near in zip(some.tolist(), apart <= limit, strict=True):
            twins[row] = np.flatnonzero(near)
    for at, rows in enumerate(answers):
        for row in rows.tolist():
            found[at, twins[row]] = True
        found[at, rows] = False
    return found
