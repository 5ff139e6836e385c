"""How long do duplicates, clusters and predictions of a whole collection take, and are they right?

Duplicates beside a full comparison by numpy, in the same round: the share of its pairs that are in one
group, and of its groups that are found whole. Clusters with k chosen and with a hundred: how much of
the rows' spread they explain, beside as many rows drawn at random as centroids. Predictions beside
votes counted by numpy over the exact neighbours. Seconds of processors are given beside those of the
clock: on a machine that others use, they tell what an idle one takes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workloads import filled
from workloads.data import Array, Data
from workloads.filled import FILTERED, verdict

AT_MOST_S, RECALL = 10.0, 0.99
BLOCK = 1024
DISTANCE = {"cosine": 0.05, "l2": 0.3}  # l2: times the typical distance of two rows
K = 10


def measure(name: str, queries: int, rounds: int, limit: int | None, threads: int) -> dict[str, Any]:
    """Seconds and shares, the median over rounds."""
    import vecdb

    data = filled.load(name, queries, limit)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vecdb"
        filled.fill(path, data, threads)
        filled.set_aside()
        with vecdb.open(path, mode="r", threads=threads) as db:
            rows = db["rows"]
            rows.search(data.queries[0])
            found = {
                "duplicates": _duplicates(rows, data, rounds),
                "clusters": {str(k): _clusters(rows, data, k, rounds) for k in (None, 100)},
                "predict": _predict(rows, data, FILTERED[name]),
                "load": os.getloadavg()[0],  # with more than a processor each, the clock tells of others
            }
    return found


def _taken(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    answer = work()
    return answer, time.perf_counter() - wall, time.process_time() - cpu


def _duplicates(rows: Any, data: Data, rounds: int) -> dict[str, Any]:
    limit = DISTANCE[data.metric]
    if data.metric == "l2":
        limit *= float(np.median(np.linalg.norm(data.base[:1000] - data.base[-1000:], axis=1)))
    ours, cpus, theirs = [], [], []
    for _ in range(rounds):
        groups, wall, cpu = _taken(lambda: rows.duplicates(limit))
        pairs, brute, _ = _taken(lambda: _pairs(data, limit))
        ours.append(wall)
        cpus.append(cpu)
        theirs.append(brute)
    group = {id: number for number, each in enumerate(groups) for id in each}
    together = sum(i in group and group[i] == group.get(j) for i, j in pairs.tolist())
    share = together / max(1, len(pairs))
    found = {
        "seconds": statistics.median(ours), "processor_s": statistics.median(cpus),
        "brute_force_s": statistics.median(theirs),
        "times_brute_force": statistics.median(b / o for b, o in zip(theirs, ours, strict=True)),
        "max_distance": limit, "groups": len(groups), "pairs": len(pairs), "pairs_found": share,
    }  # fmt: skip
    verdict("duplicates, seconds", found["seconds"], AT_MOST_S, " s")
    print(
        f"duplicates: {found['processor_s']:.1f} s of processors, {found['times_brute_force']:.1f} "
        f"times as fast as numpy; {len(groups):,} groups, {share:.4f} of {len(pairs):,} pairs"
        f"{'' if share >= RECALL else '  MISSED'}"
    )
    return found


def _pairs(data: Data, limit: float) -> Array:
    """All pairs within the limit, by products of blocks."""
    found, base = [], data.base  # under cosine of length 1
    squares = np.einsum("ij,ij->i", base, base)
    for at in range(0, len(base), BLOCK):
        close = base[at : at + BLOCK] @ base[at:].T
        if data.metric == "l2":
            close -= (squares[at : at + BLOCK, None] + squares[at:] - limit * limit) / 2
            i, j = np.nonzero(close >= 0)
        else:
            i, j = np.nonzero(close >= 1 - limit)
        found.append(np.stack([i + at, j + at], 1)[j > i])
    return np.concatenate(found)


def _clusters(rows: Any, data: Data, k: int | None, rounds: int) -> dict[str, Any]:
    taken = [_taken(lambda: rows.clusters(k)) for _ in range(rounds)]
    clusters = taken[-1][0]
    drawn = data.base[np.random.default_rng(0).permutation(len(data.base))[: clusters.k]]
    left, at_random = _left(data, clusters.centroids), _left(data, drawn)
    found = {
        "seconds": statistics.median(wall for _, wall, _ in taken),
        "processor_s": statistics.median(cpu for _, _, cpu in taken),
        "k": clusters.k, "converged": clusters.converged,
        "spread_left": left, "spread_left_at_random": at_random,
    }  # fmt: skip
    verdict(f"clusters, k={k}, seconds", found["seconds"], AT_MOST_S, " s")
    print(
        f"clusters: {found['processor_s']:.1f} s of processors, k={clusters.k}; {left:.3f} of the "
        f"spread is left, {at_random:.3f} around as many random rows"
    )
    return found


def _left(data: Data, centroids: Array) -> float:
    """The share of the squared distances to the one best centroid that is left to the nearest of many.

    Under cosine centroids are directions: those of means.
    """
    middle = data.base.mean(axis=0, keepdims=True)
    if data.metric == "cosine":
        middle /= np.linalg.norm(middle)
    return _squares(data.base, centroids) / _squares(data.base, middle)


def _squares(base: Array, centroids: Array) -> float:
    sums, halves = 0.0, np.einsum("ij,ij->i", centroids, centroids) / 2
    for at in range(0, len(base), BLOCK):
        some = base[at : at + BLOCK]
        closest = (some @ centroids.T - halves).max(axis=1)
        sums += float((np.einsum("ij,ij->i", some, some) - 2 * closest).sum(dtype=np.float64))
    return sums


def _predict(rows: Any, data: Data, field: str) -> dict[str, Any]:
    exact, _, _ = _taken(lambda: rows.predict(data.queries, field, K, exact=True))
    usual, wall, _ = _taken(lambda: rows.predict(data.queries, field, K))
    one, single, _ = _taken(lambda: [rows.predict(query, field, K) for query in data.queries])
    equal = same = 0
    for at, (right, other) in enumerate(zip(exact, usual, strict=True)):
        winner = _voted(data, data.queries[at], field)
        equal += right.value == winner
        same += other.value == winner
    n = len(data.queries)
    found = {
        "queries": n, "equal_to_numpy_exact": equal / n, "equal_to_numpy": same / n,
        "us_each_of_many": wall / n * 1e6, "us_single": single / n * 1e6,
    }  # fmt: skip
    print(f"predict {field}: {equal / n:.4f} equal to numpy's exactly, {same / n:.4f} by the graph; "
          f"{found['us_single']:.0f} us a query alone, {found['us_each_of_many']:.0f} among many")
    return found


def _voted(data: Data, query: Array, field: str) -> Any:
    if data.metric == "cosine":
        scores = data.base @ query / np.linalg.norm(query)
    else:
        scores = 1 / (1 + np.linalg.norm(data.base - query, axis=1))
    votes: dict[Any, float] = defaultdict(float)
    for at in np.argsort(-scores, kind="stable")[:K].tolist():
        votes[data.metadata[at][field]] += max(0.0, float(scores[at]))
    return max(votes, key=lambda value: votes[value])
