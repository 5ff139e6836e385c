"""backup() beside writers: each copy is exactly one commit, whole or not there.

Two processes write transactions of random calls over two collections, a third checkpoints and optimises,
and this one copies. Which calls transaction n makes is a function of the seed, of n and of the rows
there are (tests/deeds.py), and n stands in the file: so the model of a copy is known from the number
that it carries. A copy must open, be clean for `check`, and equal that model. Killed in the middle,
a backup leaves no file under the destination's name, or a whole one.

The controls: a file copied byte by byte beside the writers, and a backup that writes under the name that
it was given, must be noticed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import vecdb
from tests import child, deeds
from vecdb.errors import VecdbError

SEED = 77
SIZES = (1, 2, 20, 100)

WRITER = """
import random, sys, time
import vecdb
from tests import deeds
path, seed, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
pauses = random.Random(name)
with vecdb.open(path, durability="none", timeout=120) as db:
    print("ready", flush=True)
    model, done = {}, 0
    while True:
        with db.transaction():
            last = db["numbers"]["last"].metadata["n"]
            for n in range(done + 1, last + 1):  # what the other has done
                for call in deeds.calls(seed, n, model, (1, 2, 20, 100)):
                    deeds.apply(call, model)
            for call in deeds.calls(seed, last + 1, model, (1, 2, 20, 100)):
                deeds.perform(call, db["rows"])
                deeds.apply(call, model)
            db["numbers"].update("last", metadata={"n": last + 1})
            done = last + 1
        time.sleep(pauses.choice((0, 0, 0.002)))
"""
KEEPER = """
import sys, time
import vecdb
with vecdb.open(sys.argv[1], durability="none", timeout=120) as db:
    print("ready", flush=True)
    while True:
        db.optimize()
        time.sleep(0.02)
"""
COPIER = """
import os, sys
import vecdb
from vecdb.storage import copies
path, folder, way = sys.argv[1:]
if way == "in place":
    def straight(shared, dst):
        copies._copy(shared, dst)
    copies.backup = straight
with vecdb.open(path) as db:
    print("ready", flush=True)
    for n in range(1_000_000):
        db.backup(os.path.join(folder, f"{n}.vecdb"))
        print(n, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "b.vecdb"
    with vecdb.open(path, durability="none") as db:
        db.create_collection("rows", dim=deeds.DIM, metric="l2")
        db.create_collection("numbers", dim=2).add("last", metadata={"n": 0})
    return path


class Writers:
    """The processes that change the file, while the `with` block lasts."""

    def __init__(self, path: Path, *, keeper: bool = True) -> None:
        self._children = [child.start(WRITER, path, SEED, name) for name in "ab"]
        if keeper:
            self._children.append(child.start(KEEPER, path))

    def __enter__(self) -> None:
        for each in self._children:
            assert each.stdout is not None and each.stdout.readline() == b"ready\n"

    def __exit__(self, *_: object) -> None:
        ended = [each.poll() for each in self._children]
        for each in self._children:
            kill(each)
        assert ended == [None] * len(ended), "a writer ended by itself"


def kill(process: subprocess.Popen[bytes]) -> bytes:
    """End a process at once; what it had said."""
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    return said


class Models:
    """The rows after transaction n, for rising n."""

    def __init__(self) -> None:
        self._model: deeds.Model = {}
        self._at = 0

    def after(self, n: int) -> deeds.Model:
        assert n >= self._at, "copies are made one after the other"
        while self._at < n:
            self._at += 1
            for call in deeds.calls(SEED, self._at, self._model, SIZES):
                deeds.apply(call, self._model)
        return self._model


def wrong(copy: Path, models: Models) -> tuple[list[str], int]:
    """What is not as it must be in a copy, and the number of its transaction."""
    try:
        with vecdb.open(copy, mode="r", verify="always") as db:
            n = db["numbers"]["last"].metadata["n"]
            found = [str(problem) for problem in db.check()[:3]]
            found += deeds.compare(db["rows"], models.after(n))[:3]
            found += deeds.searched(db["rows"], models.after(n), random.Random(n)).wrong[:3]
            return found, n
    except VecdbError as error:
        return [f"{type(error).__name__}: {error}"], -1


def copied(path: Path, copies: int, how: Callable[[Path], object]) -> tuple[list[str], Counter[str]]:
    """Copy a file beside its writers, again and again."""
    models, found, counts = Models(), [], Counter[str]()
    numbers = set()
    with Writers(path):
        for at in range(copies):
            copy = path.with_name(f"copy-{at}.vecdb")
            how(copy)
            said, n = wrong(copy, models)
            found += said
            numbers.add(n)
            counts["copies"] += 1
            for name in ("", "-lock", "-writer"):
                path.with_name(copy.name + name).unlink(missing_ok=True)
            if found:
                break
    counts["transactions"], counts["different"] = max(numbers), len(numbers)
    return found, counts


def assert_copies(path: Path, copies: int) -> None:
    with vecdb.open(path, mode="r") as db:
        found, counts = copied(path, copies, db.backup)
    print(f"backup beside two writers and optimize: {dict(counts)}, seed {SEED}, wrong: {found[:3]}")
    assert found == [] and counts["different"] > copies / 2
    assert sorted(os.listdir(path.parent)) == ["b.vecdb", "b.vecdb-lock", "b.vecdb-writer"]


def test_each_copy_is_one_commit(path: Path) -> None:
    assert_copies(path, 6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_copies(path: Path) -> None:
    assert_copies(path, int(os.environ.get("VECDB_BACKUPS", "300")))


def test_a_file_that_is_copied_by_its_bytes_is_noticed(path: Path) -> None:
    """The control: pages from before and after commits, side by side."""

    def bytewise(copy: Path) -> None:
        with open(path, "rb") as source, open(copy, "wb") as target:
            while piece := source.read(1 << 12):
                target.write(piece)
                time.sleep(0.0005)

    found, counts = copied(path, 40, bytewise)
    print(f"copied by bytes: noticed after {counts['copies']} copies: {found[:1]}")
    assert found, "the harness does not notice a torn copy"


# --- killed in the middle ----------------------------------------------------------------------------------


def struck(path: Path, way: str, kills: int) -> tuple[list[str], Counter[str]]:
    """Kill a process that copies at random moments, and look at what lies under the destination's names."""
    rng, found, counts = random.Random(SEED), [], Counter[str]()
    models = Models()  # the copies of a later process are of later transactions
    with Writers(path, keeper=False):
        time.sleep(0.5)
        for _ in range(kills):
            folder = path.with_name("copies")
            folder.mkdir()
            copier = child.start(COPIER, path, folder, way)
            assert copier.stdout is not None and copier.stdout.readline() == b"ready\n"
            time.sleep(rng.random() * 0.3)
            said = len(kill(copier).split())
            names = sorted(os.listdir(folder))
            whole = sorted((n for n in names if n.endswith(".vecdb")), key=lambda n: int(n[:-6]))
            counts["copies acknowledged"] += said
            counts["copies there"] += len(whole)
            counts["struck while copying"] += any(".part-" in n for n in names)
            if len(whole) < said:
                found.append(f"{said} copies acknowledged, {whole} there")
            for name in whole[-2:]:
                found += wrong(folder / name, models)[0]
            shutil.rmtree(folder)
            counts["kills"] += 1
            if found:
                break
    return found, counts


def assert_killed(path: Path, kills: int) -> None:
    found, counts = struck(path, "right", kills)
    print(f"backup killed: {dict(counts)}, seed {SEED}, wrong: {found[:3]}")
    assert found == [] and counts["copies there"] > 0


def test_a_killed_backup_leaves_a_whole_copy_or_none(path: Path) -> None:
    assert_killed(path, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_killed_backups(path: Path) -> None:
    assert_killed(path, int(os.environ.get("VECDB_BACKUP_KILLS", "100")))


def test_a_backup_under_the_destinations_name_is_noticed(path: Path) -> None:
    """The control: what is there half is seen."""
    found, counts = struck(path, "in place", 60)
    print(f"written in place: noticed after {counts['kills'] + 1} kills: {found[:1]}")
    assert found, "the harness does not notice half a copy"
