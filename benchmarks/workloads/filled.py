"""Which collection do the workloads of live, durable and pinned start from, and who writes to it?

A file of all rows of a data set, ids 0 to n - 1, with eight metadata fields or none. `Other` is a
process that writes to it on order (writer.py). New vectors, of which a data set has no end, are
mixtures of two of its rows: they lie where its rows lie.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workloads import data as datasets
from workloads.data import Array, Data

COMMIT = 1_000
FIELDS = 8
LEFT_OUT = ("id", "architecture")  # of Debian's ten; the other sets are filled up to eight
FILTERED = {"debian": "section", "fashion": "label", "made": "parity"}


def load(name: str, queries: int, limit: int | None) -> Data:
    """A data set whose rows have eight metadata fields."""
    data = datasets.load(name, queries, limit)
    given = data.metadata or [{} for _ in data.base]
    data.metadata = [_eight(number, row) for number, row in enumerate(given)]
    return data


def _eight(number: int, row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key not in LEFT_OUT}
    for field in range(FIELDS - len(kept)):
        kept[f"made_{field}"] = number * (field + 1) % (10 ** (field + 1))
    return dict(list(kept.items())[:FIELDS])


def fill(path: Path, data: Data, threads: int, *, metadata: bool = True) -> None:
    """Make the file, complete on the disk and folded."""
    import vecdb

    with vecdb.open(path, durability="relaxed", threads=threads) as db:
        rows = db.create_collection("rows", len(data.base[0]), metric=data.metric)
        for first in range(0, len(data.base), COMMIT):
            end = min(first + COMMIT, len(data.base))
            given = data.metadata[first:end] if metadata else None
            rows.add(list(range(first, end)), data.base[first:end], metadata=given)
        db.optimize()


def mixed(rng: np.random.Generator, base: Array, n: int) -> Array:
    """New vectors among those of a data set."""
    one, other = rng.integers(0, len(base), (2, n))
    share = rng.uniform(0.5, 0.9, (n, 1)).astype(np.float32)
    return np.ascontiguousarray(share * base[one] + (1 - share) * base[other], np.float32)


class Other:
    """A process that obeys writer.py's orders; a context manager."""

    def __init__(self, path: Path, name: str, **options: Any) -> None:
        folder = Path(__file__).resolve().parents[1]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "workloads.writer", str(path), name, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        )  # fmt: skip
        self.answer()

    def begin(self, do: str, **details: Any) -> None:
        """Give an order; its answer is asked for later."""
        assert self._child.stdin is not None
        print(json.dumps({"do": do, **details}), file=self._child.stdin, flush=True)

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        """Give an order and wait for its answer."""
        self.begin(do, **details)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """What the process says to the order under way; RuntimeError when it has ended."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the other process ended with {self._child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def pid(self) -> int:
        return self._child.pid

    def __enter__(self) -> Other:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def set_aside() -> None:
    """Keep the garbage collector off the data set: a pass over its dicts would be timed (0.3 s)."""
    gc.collect()
    gc.freeze()


def verdict(what: str, found: float, most: float, unit: str = "") -> bool:
    """Print a figure beside its limit; whether it keeps it."""
    kept = found <= most
    print(f"{what:<64} {found:9.2f}{unit} (at most {most:g}{unit}){'' if kept else '  MISSED'}")
    return kept
