"""Do recall, speed, memory and file stay level while rows come and go without an end?

Three lives of a collection, each in a process of its own and never optimised by hand: `random`, in
which 300 % of the rows are replaced by upserts and deletes at random; `drift`, in which the rows of one
half of the sections give way to those of the other; `clusters`, in which whole sections are deleted.
Commits are of 100 rows. On the way recall@10 at default settings is taken against an exact search of
the same rows; at the end a fresh build of the rows that are there stands beside, in another process:
time of a query (in turns, as ratios), private memory, bytes of the file.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from workloads import filled
from workloads.data import Data

COMMIT, K = 100, 10
LIVES = ("random", "drift", "clusters")
LOOKS = 12  # at recall, on the way
QUERIES = 200
TURNS = 7
LEAST_RECALL, MOST = 0.95, 1.5
FRESH = "fresh"


def measure(name: str, limit: int | None, threads: int) -> dict[str, Any]:
    """All lives on one data set."""
    found = {}
    for life in LIVES:
        with tempfile.TemporaryDirectory() as folder:
            found[life] = _live(life, name, limit, threads, Path(folder))
        print(f"{life}: {json.dumps(found[life])}", flush=True)
    return found


def _live(life: str, name: str, limit: int | None, threads: int, folder: Path) -> dict[str, Any]:
    order = [str(folder), name, str(limit or 0), str(threads)]
    with _Child(life, *order) as lived:
        told = lived.ask("live")
        with _Child(FRESH, *order) as fresh:
            fresh.ask("live")
            ends = {"lived": lived.ask("end"), "fresh": fresh.ask("end")}
            times = {"lived": [], "fresh": []}
            for _ in range(TURNS):
                for which, child in (("lived", lived), ("fresh", fresh)):
                    times[which].append(child.ask("queries")["us"])
    us = {which: statistics.median(each) for which, each in times.items()}
    for which, each in ends.items():
        each["query_us"] = us[which]
    ratios = {
        key: ends["lived"][key] / ends["fresh"][key] for key in ("query_us", "private_mb", "file_mb")
    }
    reached = min(told["recall"]) >= LEAST_RECALL and max(ratios.values()) <= MOST
    verdict = "reached" if reached else "MISSED"
    return {**told, **ends, "ratios": ratios, "verdict": verdict}


class _Child:
    """One life in a process of its own; a context manager."""

    def __init__(self, *arguments: str) -> None:
        folder = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workloads.churn", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        )  # fmt: skip

    def ask(self, what: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(what, file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a child ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# --- in the child ------------------------------------------------------------------------


class _Life:
    """The collection, and which row of the data each id has now."""

    def __init__(self, life: str, folder: Path, name: str, limit: int, threads: int) -> None:
        self.data = filled.load(name, QUERIES, limit or None)
        self.life, self.folder, self.threads = life, folder, threads
        self.rng = np.random.default_rng(2026)
        self.known = folder / "rows.npz"
        self.recall: list[float] = []
        self.commits: list[float] = []

    def live(self) -> dict[str, Any]:
        """Fill, and live the life; what was seen on the way."""
        ids, vectors, rows = self._start()
        self._open(ids, vectors, rows)
        if self.life == FRESH:
            return {}
        self.alive = dict(zip(ids.tolist(), range(len(ids)), strict=True))
        self.vectors, self.rows = list(vectors), list(rows)
        began = time.perf_counter()
        getattr(self, "_" + self.life)()
        took = time.perf_counter() - began
        self._look()
        kept = list(self.alive)
        at = [self.alive[i] for i in kept]
        np.savez(self.known, ids=kept, vectors=np.array([self.vectors[a] for a in at]),
                 rows=[self.rows[a] for a in at])  # fmt: skip
        commits = np.array(self.commits) * 1e3
        return {
            "rows": len(kept),
            "commits": len(commits),
            "seconds": took,
            "commit_ms": {p: float(np.percentile(commits, p)) for p in (50, 90, 99, 99.9, 100)},
            "recall": self.recall,
        }

    def _start(self) -> tuple[Any, Any, Any]:
        data = self.data
        if self.life == FRESH:
            found = np.load(self.known)
            return found["ids"], found["vectors"], found["rows"]
        every = np.arange(len(data.base))
        if self.life == "drift":
            every = every[self._half()]
        return every, data.base[every], every

    def _half(self) -> Any:
        """Which rows are of the first half of the sections, by the sections' sizes alternately."""
        sections = np.array([row["section"] for row in self.data.metadata])
        names, counts = np.unique(sections, return_counts=True)
        ordered = names[np.argsort(-counts)]
        return np.isin(sections, ordered[::2])

    def _open(self, ids: Any, vectors: Any, rows: Any) -> None:
        import vecdb

        path = self.folder / f"{self.life}.vecdb"
        self.db = vecdb.open(path, durability="relaxed", threads=self.threads)
        self.c = self.db.create_collection("rows", vectors.shape[1], metric=self.data.metric)
        for first in range(0, len(ids), filled.COMMIT):
            end = first + filled.COMMIT
            given = [self.data.metadata[row] for row in rows[first:end].tolist()]
            self.c.add(ids[first:end].tolist(), vectors[first:end], metadata=given)
        self.path = path

    # --- lives ---------------------------------------------------------------------------

    def _random(self) -> None:
        """Nine in ten of a commit's rows are upserts, of any id; one in ten is a delete."""
        n = len(self.data.base)
        total = 3 * n // COMMIT
        for number in range(total):
            gone = self._some(COMMIT // 10)
            ids = self.rng.choice(n, COMMIT - COMMIT // 10, replace=False)
            ids = np.setdiff1d(ids, gone)
            absent = sorted(set(range(n)) - self.alive.keys() - set(gone.tolist()))[: COMMIT // 10]
            self._commit(gone, np.union1d(ids, absent).astype(np.int64))
            self._at(number, total)

    def _drift(self) -> None:
        """Rows of one half give way, one for one, to rows of the other, as far as these go."""
        half = self._half()
        gone = self.rng.permutation(np.flatnonzero(half))
        come = self.rng.permutation(np.flatnonzero(~half))
        step, total = COMMIT // 2, max(len(gone), len(come)) // (COMMIT // 2) + 1
        for number in range(total):
            out, new = gone[number * step :][:step], come[number * step :][:step]
            self._commit(out, new, self.data.base[new], new)
            self._at(number, total)

    def _clusters(self) -> None:
        """Five whole sections go, the largest but one, and every other from there on."""
        sections = np.array([row["section"] for row in self.data.metadata])
        names, counts = np.unique(sections, return_counts=True)
        for section in names[np.argsort(-counts)][1:10:2]:
            gone = np.flatnonzero(sections == section)
            for first in range(0, len(gone), COMMIT):
                self._commit(gone[first : first + COMMIT], np.empty(0, np.int64))
            self._look()
        time.sleep(5)  # what is left of the repair is done when it is quiet

    def _some(self, n: int) -> Any:
        return self.rng.choice(np.fromiter(self.alive, np.int64), n, replace=False)

    def _commit(self, gone: Any, ids: Any, vectors: Any = None, rows: Any = None) -> None:
        if vectors is None:
            vectors = filled.mixed(self.rng, self.data.base, len(ids))
            rows = self.rng.integers(0, len(self.data.base), len(ids))
        given = [self.data.metadata[row] for row in rows.tolist()]
        began = time.perf_counter()
        with self.db.transaction():
            if len(gone):
                self.c.delete(gone.tolist())
            if len(ids):
                self.c.upsert(ids.tolist(), vectors, metadata=given)
        self.commits.append(time.perf_counter() - began)
        for i in gone.tolist():
            del self.alive[i]
        for i, vector, row in zip(ids.tolist(), vectors, rows.tolist(), strict=True):
            self.alive[i] = len(self.vectors)
            self.vectors.append(vector)
            self.rows.append(row)

    def _at(self, number: int, total: int) -> None:
        if number % max(1, total // LOOKS) == 0:
            self._look()

    def _look(self) -> None:
        found = 0
        for query in self.data.queries:
            hits = {hit.id for hit in self.c.search(query, K)}
            found += len(hits & {hit.id for hit in self.c.search(query, K, exact=True)})
        self.recall.append(round(found / (K * len(self.data.queries)), 4))

    # --- figures -------------------------------------------------------------------------

    def end(self) -> dict[str, Any]:
        """The file and the memory, opened anew: what the life itself needed is not the database's."""
        import vecdb

        self.db.close()
        size = self.path.stat().st_size
        self.data = Data(**{**vars(self.data), "base": self.data.base[:1], "metadata": []})
        self.vectors, self.rows, self.alive = [], [], {}
        before = _private_mb()
        self.db = vecdb.open(self.path, threads=self.threads, upkeep=False)
        self.c = self.db["rows"]
        self.c.search(self.data.queries[0], K)
        stats = self.c.stats()
        return {
            "file_mb": size / 1e6,
            "private_mb": _private_mb() - before,
            "slots": stats.get("slots"),
            "rows": len(self.c),
        }

    def queries(self) -> dict[str, Any]:
        """Microseconds of a query at default settings, the median."""
        times = []
        for query in self.data.queries:
            began = time.perf_counter()
            _ = self.c.search(query, K).ids
            times.append(time.perf_counter() - began)
        return {"us": statistics.median(times) * 1e6}


def _private_mb() -> float:
    with open("/proc/self/smaps_rollup") as lines:
        found = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line}
    return int(found["Private_Dirty"]) / 1e3


def main() -> None:
    """Answer one line of standard output for each line of standard input."""
    life, folder, name, limit, threads = sys.argv[1:6]
    lived = _Life(life, Path(folder), name, int(limit), int(threads))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(getattr(lived, line.strip())()), file=answers, flush=True)


if __name__ == "__main__":
    main()
