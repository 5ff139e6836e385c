"""One engine in a process of its own, obeying lines of JSON on standard input.

    {"do": "build"}                 -> {"seconds", "bytes", "peak_mb"}
    {"do": "load"}                  -> {"import_s", "load_s", "first_s", "rss_mb"}
    {"do": "measure", "effort": ef} -> {"qps", "recall", "p50_us", "p95_us", "p99_us"}
    {"do": "look"}                  -> {"first_s", "again_s"}: the same search twice

A process that loads has done nothing before: its `load` is what a starting program would see.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: searches are measured on one thread

import numpy as np  # noqa: E402

from workloads.data import Data, load  # noqa: E402
from workloads.engines import ENGINES, Engine  # noqa: E402

IMPORTS = {"vecdb": "vecdb", "hnswlib": "hnswlib", "faiss": "faiss", "usearch": "usearch.index"}


def main() -> None:
    """Answer one line of standard output for each line of standard input."""
    name, dataset, n_queries, limit, path, threads = sys.argv[1:7]
    data = load(dataset, int(n_queries), int(limit) or None)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints must not be taken for an answer
    engine = ENGINES[name]()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "build":
            answer = _build(engine, data, Path(path), int(threads))
        elif order["do"] == "load":
            answer = _load(name, engine, data, Path(path))
        elif order["do"] == "look":
            answer = _look(engine, data)
        else:
            answer = _measure(engine, data, order["effort"])
        print(json.dumps(answer), file=answers, flush=True)


def _build(engine: Engine, data: Data, path: Path, threads: int) -> dict[str, Any]:
    began = time.perf_counter()
    engine.build(data, path, threads)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": path.stat().st_blocks * 512, "peak_mb": _peak_mb()}


def _load(name: str, engine: Engine, data: Data, path: Path) -> dict[str, Any]:
    start = time.perf_counter()
    __import__(IMPORTS[name])
    imported = time.perf_counter()
    engine.load(data, path)
    loaded = time.perf_counter()
    engine.effort(64)
    engine.search(data.queries[0])
    first = time.perf_counter()
    return {
        "import_s": imported - start,
        "load_s": loaded - imported,
        "first_s": first - loaded,
        "rss_mb": _peak_mb(),
    }


def _look(engine: Engine, data: Data) -> dict[str, Any]:
    began = time.perf_counter()
    engine.search(data.queries[1])
    first = time.perf_counter()
    engine.search(data.queries[1])
    return {"first_s": first - began, "again_s": time.perf_counter() - first}


def _measure(engine: Engine, data: Data, effort: float) -> dict[str, Any]:
    engine.effort(effort)
    search, clock = engine.search, time.perf_counter
    for query in data.queries[:50]:
        search(query)
    found, ends = [], [clock()]
    for query in data.queries:
        found.append(search(query))
        ends.append(clock())
    took = np.diff(ends) * 1e6
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    return {
        "qps": len(found) / (ends[-1] - ends[0]),
        "recall": data.recall(found),
        "p50_us": p50,
        "p95_us": p95,
        "p99_us": p99,
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
