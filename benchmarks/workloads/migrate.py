"""What does it take to give all rows of a field other vectors, and what do searches and writes feel of it?

An adapter is learned from rows labelled with their section (debian) or class (fashion), applied to all rows
while one thread searches and another writes, and rolled back. Searches and writes are timed alone before, in
the same process, and during.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from workloads import filled
from workloads.data import Data
from workloads.filled import FILTERED, verdict

LABELLED = 5_000
ALONE_S = 5.0
AT_MOST_S, ROLLBACK_S = 60.0, 1.0


def measure(name: str, queries: int, limit: int | None, threads: int) -> dict[str, Any]:
    """Seconds, and milliseconds of searches and writes."""
    import vecdb

    data = filled.load(name, queries, limit)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vecdb"
        filled.fill(path, data, threads)
        with vecdb.open(path, threads=threads) as db:
            rows = db["rows"]
            rng = np.random.default_rng(0)
            chosen = np.sort(rng.permutation(len(data.base))[:LABELLED]).tolist()
            rows.update(chosen, metadata=[{"label of": data.metadata[i][FILTERED[name]]} for i in chosen])
            began = time.perf_counter()
            adapter = vecdb.fit_adapter(rows, labels="label of")
            fitted = time.perf_counter() - began
            print(adapter.report)
            with _Load(rows, data) as alone:
                time.sleep(ALONE_S)
            steps: list[int] = []
            with _Load(rows, data) as during:
                began = time.perf_counter()
                rows.apply_adapter(adapter, force=True, progress=lambda done, total: steps.append(done))
                applied = time.perf_counter() - began
            began = time.perf_counter()
            rows.rollback_vectors()
            rolled = time.perf_counter() - began
            problems = len(db.check())
    verdict("fit, seconds", fitted, AT_MOST_S * 2, " s")
    verdict("apply, seconds", applied, AT_MOST_S, " s")
    verdict("rollback, seconds", rolled, ROLLBACK_S, " s")
    found = {
        "rows": len(data.base), "labelled": LABELLED, "fit_s": fitted, "apply_s": applied,
        "rollback_ms": rolled * 1e3, "commits": len(steps), "helps": adapter.helps, "problems": problems,
        "alone_ms": alone.figures(), "during_ms": during.figures(), "load": os.getloadavg()[0],
    }  # fmt: skip
    print(f"alone {found['alone_ms']}, during {found['during_ms']}, problems {problems}")
    return found


class _Load:
    """A thread that searches and one that writes, a hundred and twenty times a second, while `with` lasts."""

    def __init__(self, rows: Any, data: Data) -> None:
        self._rows, self._data = rows, data
        self._stop = threading.Event()
        self._taken: dict[str, list[float]] = {"search": [], "write": []}
        self._threads = [
            threading.Thread(target=self._go, args=each)
            for each in (("search", self._search, 0.01), ("write", self._write, 0.05))
        ]
        self._failed: list[BaseException] = []

    def _go(self, what: str, act: Any, pause_s: float) -> None:
        at = 0
        while not self._stop.wait(pause_s):
            began = time.perf_counter()
            try:
                act(at)
            except BaseException as error:
                self._failed.append(error)
                return
            self._taken[what].append(time.perf_counter() - began)
            at += 1

    def _search(self, at: int) -> None:
        assert len(self._rows.search(self._data.queries[at % len(self._data.queries)])) == 10

    def _write(self, at: int) -> None:
        self._rows.upsert(f"new {at % 50}", self._data.base[at])

    def __enter__(self) -> _Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]

    def figures(self) -> dict[str, Any]:
        """Counts, medians, 99th percentiles and maxima."""
        return {
            what: {
                "count": len(taken), "p50": float(np.percentile(taken, 50)) * 1e3,
                "p99": float(np.percentile(taken, 99)) * 1e3, "max": max(taken) * 1e3,
            }
            for what, taken in self._taken.items()
        }  # fmt: skip
