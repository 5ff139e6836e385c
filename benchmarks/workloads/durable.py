"""What does a small durable commit cost beside a bare one of the same bytes?

Single inserts, upserts of a known row with another vector, updates of metadata alone, and deletes,
of rows with eight metadata fields; each followed by a bare LMDB commit of the same id, vector and
payload into a file beside it on the same disk (TMPDIR says which). The graph, the log and upkeep are
counted. The same commits with durability "none" tell what share of a commit is the wait for the disk;
pages are counted by the system, as bytes that the process has written to files.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import msgpack
import numpy as np

from workloads import filled
from workloads.data import Data
from workloads.filled import verdict
from workloads.writer import dirtied, opened_bare

COMMITS = 300  # of each kind and durability, a round
TIMES, AIM = 2.0, 1.7
PAGE = os.sysconf("SC_PAGE_SIZE")
Call = Callable[[], Any]


def measure(name: str, rounds: int, limit: int | None, threads: int) -> dict[str, Any]:
    """Medians by kind of commit, ours and bare, with and without the disk."""
    data = filled.load(name, 1, limit)
    filled.set_aside()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vecdb"
        filled.fill(path, data, threads)
        found = {
            durability: _commits(path, Path(folder) / f"bare-{durability}", data, durability, rounds)
            for durability in ("full", "none")
        }
    return {"rows": len(data.base), "kinds": _summary(found)}


def _commits(
    path: Path, bare_path: Path, data: Data, durability: str, rounds: int
) -> dict[str, dict[str, list[float]]]:
    import vecdb

    found: dict[str, dict[str, list[float]]] = {}
    bare = opened_bare(bare_path, data, sync=durability == "full")
    with vecdb.open(path, durability=durability, upkeep=False) as db, bare:
        for kind, ours, theirs in _deeds(db["rows"], bare, data, rounds):
            times = found.setdefault(kind, {"ours": [], "bare": [], "pages": [], "bare_pages": []})
            for what, do in (("", ours), ("bare_", theirs)):
                before = dirtied()
                began = perf_counter()
                do()
                times[what.rstrip("_") or "ours"].append((perf_counter() - began) * 1e3)
                times[f"{what}pages"].append((dirtied() - before) / PAGE)
    return found


def _deeds(rows: Any, bare: Any, data: Data, rounds: int) -> Iterator[tuple[str, Call, Call]]:
    """(kind, our commit, the bare one): kinds in turn, on rows at random."""
    rng = np.random.default_rng(3)
    n = len(data.base)
    new: list[int] = []
    for turn in range(rounds * COMMITS):
        number, fresh = int(rng.integers(n)), n * 20 + turn
        one, other = filled.mixed(rng, data.base, 2)
        fields, patch = (data.metadata[at] for at in rng.integers(0, n, 2).tolist())
        new.append(fresh)
        gone = new.pop(int(rng.integers(len(new))))
        add = partial(rows.add, fresh, one, metadata=fields)
        yield "insert", add, partial(_put, bare, fresh, one, fields)
        upsert = partial(rows.upsert, number, other, metadata=fields)
        yield "upsert", upsert, partial(_put, bare, number, other, fields)
        update = partial(rows.update, number, metadata=patch)
        yield "metadata only", update, partial(_put, bare, number, other, patch)
        yield "delete", partial(rows.delete, gone), partial(_delete, bare, gone)


def _put(bare: Any, number: int, vector: Any, fields: dict[str, Any]) -> None:
    with bare.begin(write=True) as txn:
        txn.put(number.to_bytes(8, "big"), vector.tobytes() + msgpack.packb(fields))


def _delete(bare: Any, number: int) -> None:
    with bare.begin(write=True) as txn:
        txn.delete(number.to_bytes(8, "big"))


def _summary(found: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind, durable in found["full"].items():
        quick = found["none"][kind]
        ours, bare = statistics.median(durable["ours"]), statistics.median(durable["bare"])
        mine, theirs = statistics.median(quick["ours"]), statistics.median(quick["bare"])
        pages, bare_pages = (statistics.mean(durable[key]) for key in ("pages", "bare_pages"))
        figures[kind] = {
            "ms": ours, "bare_ms": bare, "times_bare": ours / bare,
            "without_sync_ms": mine, "bare_without_sync_ms": theirs,
            "share_of_sync": 1 - mine / ours, "bare_share_of_sync": 1 - theirs / bare,
            "pages": pages, "bare_pages": bare_pages,
            "p99_ms": float(np.percentile(durable["ours"], 99)),
            "bare_p99_ms": float(np.percentile(durable["bare"], 99)),
        }  # fmt: skip
        verdict(f"{kind}: {ours:.2f} ms, times a bare commit of {bare:.2f} ms", ours / bare, TIMES)
        print(
            f"{'':<8}without the sync {mine:.2f} ms and {theirs:.2f} ms: the sync is "
            f"{100 * (1 - mine / ours):.0f} % of ours, {100 * (1 - theirs / bare):.0f} % of a bare one; "
            f"pages {pages:.1f} and {bare_pages:.1f} (the aim is {AIM} times)"
        )
    return figures
