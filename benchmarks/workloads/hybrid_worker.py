"""One database of the hybrid workload in a process of its own, obeying lines of JSON on standard input.

    {"do": "build"}                                 -> {"seconds", "megabytes"}
    {"do": "load"}                                  -> {"version"}
    {"do": "tune", "filter", "target"}              -> {"effort", "recall"}: the least effort that reaches it
    {"do": "agree", "filter"}                       -> {"overlap", "text_hits"}
    {"do": "measure", "filter", "first", "count"}   -> {"hybrid": [us, ...], "near": ..., "text": ...}
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: searches are measured on one thread

import numpy as np  # noqa: E402

from workloads.hybrid_data import Data, K, load  # noqa: E402
from workloads.hybrid_engines import ENGINES, Engine, fused  # noqa: E402

SAMPLE = 200  # queries that efforts are chosen by


def main() -> None:
    """Answer one line of standard output for each line of standard input."""
    name, n_queries, limit, path, threads = sys.argv[1:6]
    data = load(int(n_queries), int(limit) or None)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints must not be taken for an answer
    worker = Hybrid(name, data, Path(path), int(threads))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(worker, order.pop("do"))(**order)
        print(json.dumps(answer), file=answers, flush=True)


class Hybrid:
    """An engine and what it is asked."""

    def __init__(self, name: str, data: Data, path: Path, threads: int) -> None:
        self.engine: Engine = ENGINES[name]()
        self.data, self.path, self.threads = data, path, threads
        self.efforts: dict[str, float] = {}

    def build(self) -> dict[str, Any]:
        began = time.perf_counter()
        self.engine.build(self.data, self.path, self.threads)
        seconds = time.perf_counter() - began
        paths = [self.path, *self.path.rglob("*")] if self.path.is_dir() else [self.path]
        return {"seconds": seconds, "megabytes": sum(p.stat().st_blocks for p in paths) * 512 / 1e6}

    def load(self) -> dict[str, Any]:
        self.engine.load(self.path, self.data.filters)
        try:
            return {"version": metadata.version(self.engine.package)}
        except metadata.PackageNotFoundError:
            return {"version": "this revision"}

    def tune(self, filter: str, target: float) -> dict[str, Any]:
        queries, recall = self.data.queries[:SAMPLE], 0.0
        for effort in self.engine.efforts:
            self.engine.effort(effort)
            found = [self.engine.near(query, filter) for query in queries]
            recall = float(np.mean([self.data.recall(filter, *each) for each in enumerate(found)]))
            if recall >= target:
                break
        self.efforts[filter] = effort
        return {"effort": effort, "recall": recall}

    def agree(self, filter: str) -> dict[str, Any]:
        """How many of the ten are those of exact vector ranks and own text ranks, ties counted."""
        data, engine = self.data, self.engine
        engine.effort(self.efforts[filter])
        best, _ = data.best(filter)
        shares, hits = [], []
        for at, query in enumerate(data.queries[:SAMPLE]):
            words = engine.text(data.words[at], filter)
            right = fused([best[at].tolist(), words])
            least = sorted(right.values(), reverse=True)[:K][-1] - 1e-9
            found = engine.hybrid(query, data.words[at], filter)
            assert len(found) == K == len(set(found))
            shares.append(sum(right.get(row, 0.0) >= least for row in found) / K)
            hits.append(len(words))
        return {"overlap": float(np.mean(shares)), "text_hits": float(np.mean(hits))}

    def measure(self, filter: str, first: int, count: int) -> dict[str, Any]:
        """A fused query, its parts for other queries, and so on: none has been asked a moment before."""
        engine, data = self.engine, self.data
        engine.effort(self.efforts[filter])
        n = len(data.queries)

        def asked(nth: int) -> list[Any]:
            start = first + nth * count
            return [(data.queries[at % n], data.words[at % n]) for at in range(start, start + count)]

        for query, words in asked(3)[:20]:
            engine.hybrid(query, words, filter)
        found: dict[str, list[float]] = {"hybrid": [], "near": [], "text": []}
        clock = time.perf_counter
        for one, other, third in zip(asked(0), asked(1), asked(2), strict=True):
            start = clock()
            engine.hybrid(*one, filter)
            fused_ = clock()
            engine.near(other[0], filter)
            near = clock()
            engine.text(third[1], filter)
            text = clock()
            for what, took in zip(found, (fused_ - start, near - fused_, text - near), strict=True):
                found[what].append(took * 1e6)
        return found


if __name__ == "__main__":
    main()
