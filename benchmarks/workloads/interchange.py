"""What does it cost to take over an hnswlib index, beside writing its vectors and building its graph?

In one process, in turns: a bare LMDB commit of the same vectors, one record each and then in blocks
as vecdb keeps them, and `from_hnswlib` of the index's file into a new database file. Then recall at
equal ef on both sides, and of the index that `to_hnswlib` gives back.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import hnswlib
import lmdb
import numpy as np

import vecdb
from vecdb.storage.vectors import Layout
from workloads import data as datasets

EFS = (10, 20, 40, 80, 160)
SPACES = {"l2": "l2", "cosine": "cosine"}


def measure(name: str, queries: int, rounds: int, limit: int | None) -> dict[str, Any]:
    """Seconds and ratios, and recall@10 by ef."""
    data = datasets.load(name, queries, limit)
    vectors = np.ascontiguousarray(data.base, np.float32)
    index = hnswlib.Index(SPACES[data.metric], vectors.shape[1])
    index.init_index(len(vectors), M=16, ef_construction=200)
    rebuild = _seconds(lambda: index.add_items(vectors))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.bin"
        index.save_index(str(path))
        times: dict[str, list[float]] = {"bare": [], "bare in blocks": [], "from_hnswlib": []}
        for number in range(rounds):
            block = Layout(0, vectors.shape[1], "f32").block_rows
            times["bare"].append(_bare(Path(folder) / f"bare-{number}", vectors, 1))
            times["bare in blocks"].append(_bare(Path(folder) / f"blocks-{number}", vectors, block))
            made = Path(folder) / f"{number}.vecdb"
            with vecdb.open(made) as db:
                times["from_hnswlib"].append(
                    _seconds(lambda db=db: _taken(db, path, data.metric, vectors.shape[1]))
                )
        with vecdb.open(made) as db:
            recalls = _recalls(db["c"], index, data)
    medians = {what: statistics.median(each) for what, each in times.items()}
    found = {
        "rows": len(vectors), "seconds": medians, "rebuild_seconds": rebuild,
        "of_a_bare_commit": medians["from_hnswlib"] / medians["bare"],
        "of_a_bare_commit_in_blocks": medians["from_hnswlib"] / medians["bare in blocks"],
        "of_a_rebuild": medians["from_hnswlib"] / rebuild, "recall": recalls,
    }  # fmt: skip
    print(
        f"from_hnswlib {medians['from_hnswlib']:.2f} s: {found['of_a_bare_commit']:.2f} of a bare "
        f"commit ({found['of_a_bare_commit_in_blocks']:.2f} of one in blocks), "
        f"{found['of_a_rebuild']:.3f} of a rebuild"
    )
    for ef, (theirs, ours, back) in recalls.items():
        print(f"ef {ef:>4}: recall@10 {theirs:.4f} there, {ours:.4f} here, {back:.4f} back there")
    return found


def _taken(db: vecdb.Database, path: Path, metric: str, dim: int) -> None:
    vecdb.from_hnswlib(db, "c", path, metric=metric, dim=dim)


def _bare(path: Path, vectors: Any, rows: int) -> float:
    def write() -> None:
        engine = lmdb.open(str(path), subdir=False, map_size=1 << 34)
        with engine, engine.begin(write=True) as txn:
            for first in range(0, len(vectors), rows):
                txn.put(first.to_bytes(8, "big"), vectors[first : first + rows].tobytes())

    seconds = _seconds(write)
    path.unlink()
    return seconds


def _recalls(c: vecdb.Collection, index: Any, data: Any) -> dict[int, tuple[float, float, float]]:
    back, ids = c.to_hnswlib()
    found = {}
    for ef in EFS:
        index.set_ef(ef)
        back.set_ef(ef)
        theirs = index.knn_query(data.queries, 10)[0].tolist()
        ours = [hits.ids for hits in c.search(data.queries, 10, ef=ef)]
        again = [[ids[at] for at in row] for row in back.knn_query(data.queries, 10)[0].tolist()]
        found[ef] = (data.recall(theirs), data.recall(ours), data.recall(again))
    return found


def _seconds(do: Callable[[], Any]) -> float:
    started = perf_counter()
    do()
    return perf_counter() - started
