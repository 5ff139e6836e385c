"""Handles that travel: into forked, spawned and fork-served processes, through pickle, out of folders.

Whatever the way, the other process opens the same file for itself, at the last commit, and nothing
that the first one is about to write goes with it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests import child
from vecdb import F

METHODS = ["fork", "spawn", "forkserver"]
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "h.vecdb"


@pytest.fixture
def db(path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", dim=2, metric="l2")
        c.add([*range(50)], [[i, 0] for i in range(50)], metadata=[{"n": i} for i in range(50)])
        c.search([1, 0])  # the graph is in memory, and the search is ready
        c.search([1, 0])
        yield db


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def seen(c: vecdb.Collection) -> Any:
    return len(c), c.count(F.n >= 10), c.search([7, 0], 5).ids, c.search([7, 0], 3, where=F.n >= 10).ids


def work(c: vecdb.Collection, number: int) -> tuple[int, Any, Any]:
    """In another process: look, write, look."""
    before = seen(c)
    c.add(f"w{number}", [1000 + number, 0], metadata={"n": 1000 + number})
    return os.getpid(), before, c.search([1000 + number, 0], 1).ids


def in_process(pipe: Any, c: vecdb.Collection, number: int) -> None:
    pipe.send(work(c, number))
    pipe.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_process_started_with_an_open_handle_opens_for_itself(
    db: vecdb.Database, method: str
) -> None:
    c, context = db["c"], multiprocessing.get_context(method)
    before = seen(c)
    for number in range(2):
        here, there = context.Pipe()
        process = context.Process(target=in_process, args=(there, c, number))
        process.start()
        there.close()  # a child that dies is an EOFError, not a wait
        assert here.poll(60)
        pid, looked, found = here.recv()
        process.join(60)
        assert process.exitcode == 0 and pid != os.getpid()
        assert found == [f"w{number}"] and c.search([1000 + number, 0], 1).ids == found
        if number == 0:
            assert looked == before
    assert len(c) == 52 and db.check() == []


@pytest.mark.parametrize("method", METHODS)
def test_a_process_started_inside_a_transaction_sees_the_last_commit(
    db: vecdb.Database, method: str
) -> None:
    c, context = db["c"], multiprocessing.get_context(method)
    before = seen(c)
    here, there = context.Pipe()
    with db.transaction():
        c.delete([*range(20)])
        c.add("new", [7, 0])
        process = context.Process(target=look, args=(there, c))
        process.start()
        there.close()  # a child that dies is an EOFError, not a wait
        assert here.poll(60) and here.recv() == before
        process.join(60)
        assert process.exitcode == 0
        assert len(c) == 31 and c.search([7, 0], 1).ids == ["new"]
    assert len(c) == 31 and db.check() == []


def look(pipe: Any, c: vecdb.Collection) -> None:
    pipe.send(seen(c))


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_that_writes_loses_nothing(db: vecdb.Database, method: str) -> None:
    c = db["c"]
    with multiprocessing.get_context(method).Pool(2) as pool:
        answers = pool.starmap(work, [(c, number) for number in range(24)])
    assert [found for _, _, found in answers] == [[f"w{number}"] for number in range(24)]
    assert c.count(F.n >= 1000) == 24 and db.check() == []


# --- pickle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_pickled_handle_keeps_what_it_was_opened_with(
    db: vecdb.Database, path: Path, mode: str
) -> None:
    with vecdb.open(path, mode=mode, timeout=2.5, threads=1) as one:
        other, c = pickle.loads(pickle.dumps((one, one["c"])))
        with other:
            assert other.stats()["threads"] == 1 and f"{mode!r}" in repr(other)
            assert c == other["c"] and seen(c) == seen(db["c"])
            if mode == "r":
                with pytest.raises(vecdb.errors.ReadOnly):
                    c.add("x", [1, 1])


def test_a_handle_that_made_its_file_can_be_pickled(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "x.vecdb", mode="x") as db:
        db.create_collection("c", dim=2).add("a", [1, 0])
        with pickle.loads(pickle.dumps(db)) as other:
            assert other["c"].search([1, 0]).ids == ["a"]


def test_a_pickled_handle_finds_its_file_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with inside(tmp_path), vecdb.open("relative.vecdb") as db:
        db.create_collection("c", dim=2).add("a", [1, 0])
        content = pickle.dumps(db["c"])
        with inside(tmp_path / "elsewhere"):
            assert pickle.loads(content).search([1, 0]).ids == ["a"]
            code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).search([1, 0]).ids)"
            (tmp_path / "pickle").write_bytes(content)
            assert child.end(child.start(code, tmp_path / "pickle")) == b"['a']\n"
            assert os.listdir() == [], "nothing was made here"


def test_a_forked_child_finds_its_file_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with inside(tmp_path), vecdb.open("relative.vecdb") as db:
        c = db.create_collection("c", dim=2)
        c.add("a", [1, 0], metadata={"n": 10})
        here, there = multiprocessing.get_context("fork").Pipe()
        process = multiprocessing.get_context("fork").Process(
            target=look_from, args=(there, c, tmp_path / "elsewhere")
        )
        process.start()
        there.close()  # a child that dies is an EOFError, not a wait
        assert here.poll(60) and here.recv()[0] == 1
        process.join(60)
    assert os.listdir(tmp_path / "elsewhere") == []


def look_from(pipe: Any, c: vecdb.Collection, folder: Path) -> None:
    os.chdir(folder)
    pipe.send(seen(c))


def test_a_pickled_handle_makes_no_file(db: vecdb.Database, path: Path) -> None:
    content = pickle.dumps(db)
    db.close()
    moved = path.with_name("moved.vecdb")
    path.rename(moved)
    with pytest.raises(vecdb.errors.NotFound, match="not there"):
        pickle.loads(content)
    assert not path.exists()


def test_a_pickled_collection_is_that_one_whatever_its_name_is_now(db: vecdb.Database) -> None:
    content = pickle.dumps(db["c"])
    db.rename_collection("c", "d")
    db.create_collection("c", dim=3)
    assert pickle.loads(content).name == "d" and seen(pickle.loads(content)) == seen(db["d"])
    db.drop_collection("d")
    with pytest.raises(vecdb.errors.NotFound, match="'c' was dropped"):
        pickle.loads(content)


def test_what_cannot_be_pickled_says_so(db: vecdb.Database) -> None:
    c = db["c"]
    with vecdb.open() as memory:
        memory.create_collection("m", dim=2)
        for handle in (memory, memory["m"]):
            with pytest.raises(vecdb.errors.InvalidArgument, match="memory"):
                pickle.dumps(handle)
    db.close()
    for handle in (db, c):
        with pytest.raises(vecdb.errors.Closed):
            pickle.dumps(handle)
