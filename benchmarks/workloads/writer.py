"""A process that writes to a collection, obeying lines of JSON on standard input.

    {"do": "add", "rows": n}        -> {}   one commit of n new rows
    {"do": "fleeting", "rows": n}   -> {}   one commit of n new rows, and one that deletes them
    {"do": "pace", "rows", "every_s", "commits"}
        -> {"begun": [...], "ended": [...], "bare_s": [...]}   commits of upserts at random, half of
        new ids, half of known ones, the clock read before and after each (the system's, which all
        processes share); where `bare`, each is followed by a bare LMDB commit of the same bytes
    {"do": "hold"} / {"do": "free"} -> {}   a snapshot is begun, with a search in it / ended
    {"do": "dirtied"}               -> {"bytes"}: what this process has written to files so far

Options: those of vecdb.open, metadata (rows carry eight fields), bare (the path of an LMDB file).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import lmdb
import msgpack
import numpy as np

import vecdb
from workloads import filled
from workloads.data import Data

SEED = 5


class Writer:
    """The collection, and what is written to it."""

    def __init__(self, path: str, data: Data, options: dict[str, Any]) -> None:
        self._metadata = options.pop("metadata", True)
        bare = options.pop("bare", None)
        self._bare = None if bare is None else opened_bare(Path(bare), data)
        self._db = vecdb.open(path, **options)
        self._rows = self._db["rows"]
        self._data = data
        self._rng = np.random.default_rng(SEED)
        self._next = len(data.base) * 10
        self._snapshot: Any = None

    def add(self, rows: int) -> None:
        """One commit of new rows."""
        ids = self._new_ids(rows)
        self._rows.add(ids, self._vectors(rows), metadata=self._fields(rows))

    def fleeting(self, rows: int) -> None:
        """Rows that come and go between two looks of a reader."""
        ids = self._new_ids(rows)
        self._rows.add(ids, self._vectors(rows), metadata=self._fields(rows))
        self._rows.delete(ids)

    def pace(self, rows: int, every_s: float, commits: int) -> dict[str, list[float]]:
        """Commits at a pace, the clock's times of each, and bare commits of equal bytes between."""
        begun, ended, bare = [], [], []
        due = time.perf_counter()
        for _ in range(commits):
            due = max(due + every_s, time.perf_counter())
            ids, vectors = self._some_ids(rows), self._vectors(rows)
            fields = self._fields(rows)
            time.sleep(max(0.0, due - time.perf_counter()))
            begun.append(time.perf_counter())
            self._rows.upsert(ids, vectors, metadata=fields)
            ended.append(time.perf_counter())
            if self._bare is not None:
                bare.append(put_bare(self._bare, ids, vectors, fields))
        return {"begun": begun, "ended": ended, "bare_s": bare}

    def hold(self) -> None:
        self._snapshot = self._db.snapshot()
        self._snapshot["rows"].search(self._data.queries[0])

    def free(self) -> None:
        self._snapshot.close()

    def _new_ids(self, n: int) -> list[int]:
        self._next += n
        return list(range(self._next - n, self._next))

    def _some_ids(self, n: int) -> list[int]:
        if n == 1:
            return [int(self._rng.integers(len(self._data.base)))]
        known = self._rng.choice(len(self._data.base), n - n // 2, replace=False)
        return known.tolist() + self._new_ids(n // 2)

    def _vectors(self, n: int) -> Any:
        return filled.mixed(self._rng, self._data.base, n)

    def _fields(self, n: int) -> list[dict[str, Any]] | None:
        if not self._metadata:
            return None
        chosen = self._rng.integers(0, len(self._data.base), n).tolist()
        return [self._data.metadata[at] for at in chosen]


def opened_bare(path: Path, data: Data, *, sync: bool = True) -> Any:
    """An LMDB file of the data's ids, vectors and payloads: the floor under every commit."""
    env = lmdb.open(str(path), subdir=False, map_size=1 << 38, lib_version=0, sync=sync, metasync=sync)
    with env.begin(write=True) as txn:
        for number, (vector, row) in enumerate(zip(data.base, data.metadata, strict=True)):
            txn.put(number.to_bytes(8, "big"), vector.tobytes() + msgpack.packb(row))
    return env


def put_bare(env: Any, ids: list[int], vectors: Any, fields: list[dict[str, Any]] | None) -> float:
    """Seconds of one bare commit of rows."""
    given = fields or [{}] * len(ids)
    started = time.perf_counter()
    with env.begin(write=True) as txn:
        for number, vector, row in zip(ids, vectors, given, strict=True):
            txn.put(number.to_bytes(8, "big"), vector.tobytes() + msgpack.packb(row))
    return time.perf_counter() - started


def dirtied() -> int:
    """Bytes that this process has written to files so far; -1 where the system does not say."""
    try:
        with open("/proc/self/io", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))
    except (OSError, StopIteration):
        return -1


def main() -> None:
    """Answer one line of standard output for each line of standard input."""
    path, name, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    data = filled.load(name, 1, options.pop("limit", None))
    filled.set_aside()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    writer = Writer(path, data, options)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        do = order.pop("do")
        answer = {"bytes": dirtied()} if do == "dirtied" else getattr(writer, do)(**order)
        print(json.dumps(answer or {}), file=answers, flush=True)


if __name__ == "__main__":
    main()
