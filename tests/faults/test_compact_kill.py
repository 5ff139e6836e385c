"""compact(): smaller, the same content, alone or not at all; a kill leaves the old file or the new.

A child deletes, compacts and says so, over and over, and is killed with SIGKILL at a random moment.
Then the file must open, hold exactly the rows, pass `check()`, and lie alone in its folder once it
has been compacted again. The control is a child that writes the smaller file in place: it must be
seen to lose the file.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests import child
from vecdb.errors import Busy, Closed, InvalidArgument, ReadOnly, VecdbError

ROWS, DIM = 1500, 32

COMPACTOR = """
import os, sys, time
import vecdb
path, way = sys.argv[1:]
print("ready", flush=True)
while True:
    with vecdb.open(path, upkeep=False) as db:
        c = db["c"]
        some = [*range(0, 1500, 3)]
        c.upsert(some, [c[i].vector for i in some], metadata=[{"n": i} for i in some], texts=["x" * 300] * 500)
        if way == "right":
            db.compact()
    if way == "in place":
        part = path + ".copy"
        if os.path.exists(part):
            os.unlink(part)
        with vecdb.open(path) as db:
            db.backup(part)
        with open(part, "rb") as source, open(path, "wb") as target:
            while piece := source.read(1 << 14):
                target.write(piece)
                target.flush()
                time.sleep(0.001)
        os.unlink(part)
    print("compacted", flush=True)
"""


def vectors() -> np.ndarray:
    return np.random.default_rng(4).integers(1, 50, (ROWS, DIM)).astype(np.float32)


def fill(path: str) -> None:
    with vecdb.open(path, durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=DIM, metric="l2")
        c.add([*range(ROWS)], vectors(), metadata=[{"n": i} for i in range(ROWS)], texts=["x" * 300] * ROWS)
        waste = db.create_collection("waste", dim=DIM)
        waste.add([*range(5000)], np.ones((5000, DIM)), texts=["y" * 900] * 5000)
        db.drop_collection("waste")


def wrong(path: str) -> list[str]:
    """What is not as it must be."""
    try:
        with vecdb.open(path) as db:
            found = [str(problem) for problem in db.check()[:5]]
            expected, c = vectors(), db["c"]
            if len(c) != ROWS or any(not np.array_equal(c[i].vector, expected[i]) for i in range(0, ROWS, 7)):
                found.append("other rows")
            if c.search(expected[5], 1).ids != [5] or c.count("n < 100") != 100:
                found.append("other answers")
            return found
    except VecdbError as error:
        return [str(error)]


def killed(path: str, way: str, cycles: int) -> list[str]:
    rng, found, moments, copies = random.Random(5), [], 0, 0
    kills = 0
    while kills < cycles:
        kills += 1
        compactor = child.start(COMPACTOR, path, way)
        assert compactor.stdout is not None
        assert compactor.stdout.readline() == b"ready\n"
        time.sleep(rng.random() * rng.choice((0.1, 0.4, 1.2)))
        assert compactor.poll() is None
        compactor.send_signal(signal.SIGKILL)
        said = compactor.stdout.read()
        moments += said.count(b"compacted")
        compactor.wait()
        copies += any(".part-" in name for name in os.listdir(os.path.dirname(path)))
        found += wrong(path)
        if found and way != "right":
            break
    print(f"compact, {way}: {kills} kills, {moments} compactions ended before one, "
          f"{copies} struck while a copy was made, wrong: {found[:3]}")
    return found


def assert_survives(tmp_path: Path, cycles: int) -> None:
    path = str(tmp_path / "c.vecdb")
    fill(path)
    assert killed(path, "right", cycles) == []
    with vecdb.open(path) as db:
        db.compact()
    assert sorted(os.listdir(tmp_path)) == ["c.vecdb", "c.vecdb-lock", "c.vecdb-writer"]
    assert wrong(path) == []


def test_a_killed_compact_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    assert_survives(tmp_path, 8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_killed_compacts(tmp_path: Path) -> None:
    assert_survives(tmp_path, 100)


def test_control_a_file_written_in_place_is_seen_to_be_lost(tmp_path: Path) -> None:
    path = str(tmp_path / "c.vecdb")
    fill(path)
    assert killed(path, "in place", 60), "the harness does not notice a lost file"


# --- what it does when nobody kills it ---------------------------------------------------------------


def test_compact_shrinks_the_file_and_every_handle_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "c.vecdb")
    fill(path)
    with vecdb.open(path) as db, vecdb.open(path) as other, vecdb.open(path, mode="r") as reader:
        expected = vectors()
        assert reader["c"].search(expected[3], 1).ids == [3]
        before, commit = os.path.getsize(path), db.stats()["commit"]
        db.compact()
        assert os.path.getsize(path) < before / 2 and db.stats()["commit"] == commit
        for handle in (db, other, reader):
            assert handle["c"].search(expected[3], 1).ids == [3] and handle.check() == []
        other["c"].add("new", expected[0] + 100)
        assert db["c"]["new"].vector is not None and reader["c"].count() == ROWS + 1
        (tmp_path / "c.vecdb.part-999999").write_bytes(b"left")
        db.compact()
        assert sorted(os.listdir(tmp_path)) == ["c.vecdb", "c.vecdb-lock", "c.vecdb-writer"]
        assert db.check() == []
    with vecdb.open(path, mode="r") as db:
        with pytest.raises(ReadOnly):
            db.compact()
    with pytest.raises(Closed):
        db.compact()


def test_compact_is_refused_where_others_are(tmp_path: Path) -> None:
    path = str(tmp_path / "c.vecdb")
    fill(path)
    holder = child.start("import sys, vecdb; db = vecdb.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()", path)
    assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
    with vecdb.open(path) as db:
        with pytest.raises(Busy, match=str(holder.pid)) as caught:
            db.compact()
        assert caught.value.owner_pid == holder.pid
        child.end(holder)
        with pytest.raises(InvalidArgument, match="inside a transaction"), db.transaction():
            db.compact()
        txn = db._env.begin_read()
        with pytest.raises(Busy, match="snapshots"):
            db.compact()
        txn.abort()
        db.compact()
        assert db.check() == []


COMER = """
import sys, numpy as np, vecdb
from tests.faults.test_compact_kill import ROWS, vectors
expected, opened = vectors(), 0
print("ready", flush=True)
while opened < int(sys.argv[2]):
    with vecdb.open(sys.argv[1], timeout=60) as db:
        opened += 1
        assert len(db["c"]) == ROWS and db["c"].search(expected[opened % ROWS], 1).ids == [opened % ROWS]
"""


def test_compact_between_processes_that_come_and_go(tmp_path: Path) -> None:
    """It is alone or Busy: nobody finds a file that is half the old one, or none."""
    path = str(tmp_path / "c.vecdb")
    fill(path)
    comers = [child.start(COMER, path, 60) for _ in range(2)]
    for each in comers:
        assert each.stdout is not None and each.stdout.readline() == b"ready\n"
    done = busy = 0
    while any(each.poll() is None for each in comers):
        with vecdb.open(path, timeout=60) as db:
            try:
                db.compact()
                done += 1
            except Busy:
                busy += 1
    for each in comers:
        child.end(each)
    assert wrong(path) == [] and done + busy > 0
    print(f"compact beside 120 openings by two processes: {done} times alone, {busy} times Busy, wrong 0")


def test_compact_in_memory_changes_nothing() -> None:
    with vecdb.open() as db:
        db.create_collection("c", dim=2).add("a", [1, 2])
        db.compact()
        assert db["c"]["a"].vector is not None
