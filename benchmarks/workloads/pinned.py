"""By how much does a file grow while a reader that was stopped holds an old snapshot?

A process opens a snapshot, searches in it and is stopped (SIGSTOP). Another process commits 1,000
times: the file may grow by the pages dirtied meanwhile, which are printed beside the bytes that users
gave. Then the reader goes on and ends, and 1,000 more commits find room in what it pinned. Commits of
one row and of 100.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from workloads import filled
from workloads.data import Data
from workloads.filled import Other, verdict

COMMITS = 1_000
SIZES = (1, 100)
TIMES_LOGICAL = 20.0  # pages dirtied beside the logical bytes, at one row a commit
PAGE = os.sysconf("SC_PAGE_SIZE")


def measure(name: str, limit: int | None, threads: int) -> dict[str, Any]:
    """Growth by rows a commit."""
    data = filled.load(name, 1, limit)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            path = Path(folder) / f"vecdb-{size}"
            filled.fill(path, data, threads)
            found[f"{size} rows a commit"] = _pinned(path, name, data, size, limit)
    return found


def _pinned(path: Path, name: str, data: Data, size: int, limit: int | None) -> dict[str, Any]:
    options = {"durability": "none", "upkeep": False, "limit": limit}
    with Other(path, name, **options) as writer:
        writer.order("pace", rows=size, every_s=0, commits=100)  # from a fresh file to a lived-in one
        with Other(path, name, mode="r", durability="none", limit=limit) as reader:
            reader.order("hold")
            os.kill(reader.pid, signal.SIGSTOP)
            try:
                during = _committed(writer, path, size)
            finally:
                os.kill(reader.pid, signal.SIGCONT)
            reader.order("free")
        after = _committed(writer, path, size)
    logical = _bytes_a_row(data) * size * COMMITS / PAGE
    found = {
        "pages_dirtied": during["dirtied"], "pages_grown": during["grown"],
        "pages_grown_after": after["grown"], "pages_dirtied_after": after["dirtied"],
        "logical_pages": logical,
    }  # fmt: skip
    print(
        f"{COMMITS} commits of {size}: {during['dirtied']:,.0f} pages dirtied, "
        f"{logical:,.0f} pages of logical bytes, the file has {os.stat(path).st_size / PAGE:,.0f}"
    )
    verdict("  pages grown meanwhile, of those dirtied", during["grown"] / during["dirtied"], 1.0)
    verdict("  pages grown in 1,000 commits after", after["grown"], 0.0)
    if size == 1:
        verdict("  pages dirtied, times the logical bytes", during["dirtied"] / logical, TIMES_LOGICAL)
    return found


def _committed(writer: Other, path: Path, size: int) -> dict[str, float]:
    """What 1,000 commits dirty, and what the file grows by, in pages."""
    length, written = os.stat(path).st_size, writer.order("dirtied")["bytes"]
    writer.order("pace", rows=size, every_s=0, commits=COMMITS)
    return {
        "dirtied": (writer.order("dirtied")["bytes"] - written) / PAGE,
        "grown": (os.stat(path).st_size - length) / PAGE,
    }


def _bytes_a_row(data: Data) -> float:
    """An id of eight bytes, the vector and the packed metadata, on average."""
    some = data.metadata[:1000]
    return 8 + data.base[0].nbytes + float(np.mean([len(msgpack.packb(row)) for row in some]))
