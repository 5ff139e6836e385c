"""A reader that is stopped with a snapshot: the file grows by what is dirtied meanwhile, and no further.

Counted in pages: what the writer's process wrote (the system counts its bytes), and the file's length.
A process opens a snapshot and is stopped (SIGSTOP); after it has ended, as many commits again find room
in the pages that it held.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child

DIM, ROWS, SEED = 32, 1_000, 5
COMMITS = 60
LONG = int(os.environ.get("VECDB_PINNED_COMMITS", "1000"))
WRITTEN = Path("/proc/self/io")

pytestmark = pytest.mark.skipif(
    not WRITTEN.exists() or not hasattr(signal, "SIGSTOP"), reason="needs /proc/self/io and SIGSTOP"
)

READER = """
import sys, vecdb
db = vecdb.open(sys.argv[1], mode="r", durability="none")
with db.snapshot() as snap:
    snap["c"].search([1.0] * int(sys.argv[2]))
    print("held", flush=True)
    sys.stdin.readline()
    assert len(snap["c"]) == int(sys.argv[3]), len(snap["c"])
"""


class Life:
    """A collection that lives on, and what its commits cost in pages."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size, self.rng = path, size, np.random.default_rng(SEED)
        self.db = vecdb.open(path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", dim=DIM)
        self.page = self.db.stats()["page_bytes"]
        ids = list(range(ROWS))
        self.c.add(ids, self.rng.normal(size=(ROWS, DIM)), metadata=[self.fields() for _ in ids])

    def fields(self) -> dict[str, Any]:
        numbers = self.rng.integers(0, 1000, 8).tolist()
        return {f"f{at}": n if at % 2 else str(n) for at, n in enumerate(numbers)}

    def go_on(self, commits: int) -> tuple[float, float]:
        """Pages dirtied and pages that the file grew by."""
        length, written = os.stat(self.path).st_size, wrote()
        for _ in range(commits):
            ids = self.rng.choice(ROWS, self.size, replace=False).tolist()
            given = self.rng.normal(size=(self.size, DIM))
            self.c.upsert(ids, given, metadata=[self.fields() for _ in ids])
        return (wrote() - written) / self.page, (os.stat(self.path).st_size - length) / self.page


def wrote() -> int:
    """Bytes that this process has written to files."""
    lines = WRITTEN.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def pinned(path: Path, size: int, commits: int, *, ends: bool = True) -> dict[str, float]:
    """Growth while a stopped reader holds a snapshot, and after it has ended (or not)."""
    life = Life(path, size)
    life.go_on(commits)
    reader = child.start(READER, path, DIM, ROWS)
    assert reader.stdout is not None and reader.stdout.readline() == b"held\n"
    reader.send_signal(signal.SIGSTOP)
    try:
        dirtied, grown = life.go_on(commits)
        if not ends:
            _, after = life.go_on(commits)
    finally:
        reader.send_signal(signal.SIGCONT)
        child.end(reader)
    if ends:
        _, after = life.go_on(commits)
    assert life.db.check() == []
    life.db.close()
    found = {"dirtied": dirtied, "grown": grown, "grown after": after}
    print(f"\n{commits} commits of {size}, seed {SEED}: pages {found}")
    return found


@pytest.mark.parametrize("size", [1, 10])
def test_the_file_grows_by_what_is_dirtied_and_no_further(tmp_path: Path, size: int) -> None:
    found = pinned(tmp_path / "p.vecdb", size, COMMITS)
    assert found["grown"] <= found["dirtied"] and found["grown after"] == 0


def test_control_a_reader_that_does_not_end_makes_it_grow(tmp_path: Path) -> None:
    found = pinned(tmp_path / "p.vecdb", 1, COMMITS, ends=False)
    assert found["grown after"] > COMMITS


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [1, 100])
def test_the_same_for_long(tmp_path: Path, size: int) -> None:
    found = pinned(tmp_path / "p.vecdb", size, LONG)
    assert found["grown"] <= found["dirtied"] and found["grown after"] == 0
