"""Several processes on one file: each sees every commit, whole, and loses none.

Readers in other processes are told only the number of a commit; what they must see they work out
for themselves (tests/deeds.py). Counts are printed with `-s`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child
from tests.deeds import DIM, Model, apply, calls, commit, create, searched
from tests.model.test_threads import together
from tests.wording import hurried
from vecdb import F

SIZES = (1, 1, 2, 5, 20, 60)
SEED = 7

# A reader: told "n", it applies commit n to its dict and compares; answers with what is wrong.
READER = """
import json, os, random, sys, vecdb
from tests.deeds import apply, calls, compare, searched
path, mode, seed, sizes, rich = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4]), "rich" in sys.argv
db = vecdb.open(path, mode=mode)
rows, model, at, rng = db["rows"], {}, 0, random.Random(1)
print("ready", flush=True)
for line in sys.stdin:
    n = int(line)
    for number in range(at + 1, n + 1):
        for call in calls(seed, number, model, sizes):
            apply(call, model)
    at = n
    asked, found, wrong = searched(rows, model, rng, rich)
    if [record.id for record in db["log"]][-1:] != [n]:
        wrong.append("the second collection stands elsewhere")
    if n % 20 == 0:
        wrong += compare(rows, model, rich)
    print(json.dumps([asked, found, wrong[:5]]), flush=True)
if db.check():
    sys.exit(f"check: {db.check()}")
db.close()
"""

COUNTER = """
import sys, vecdb
path, name, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
db = vecdb.open(path, durability="relaxed")
c = db["c"]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(times):
    with db.transaction():
        value = c["counter"].metadata["value"]
        c.update("counter", metadata={"value": value + 1})
        c.add(f"{name}-{turn}", [value + 1, 1], metadata={"by": name, "value": value + 1})
db.close()
"""

HOLDER = """
import os, sys, time, vecdb
db = vecdb.open(sys.argv[1])
c = db["c"]
tx = db.transaction()
tx.__enter__()
c.update(where={}, metadata={"ghost": True})
c.delete("a")
c.upsert("b", [5, 5], metadata={"ghost": True})
c.add("ghost", [1, 1], metadata={"ghost": True})
db.create_collection("ghosts", dim=2)
assert c.count({"ghost": True}) == len(c) and c.search([1, 1], 1).ids == ["ghost"]
print("held", flush=True)
sys.stdin.readline()
raise SystemExit(0)
"""


def ask(process: subprocess.Popen[bytes], line: object) -> bytes:
    """Send a line to a child and return its answer."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()
    return process.stdout.readline()


def said(process: subprocess.Popen[bytes]) -> bytes:
    """The next line that a child prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def started(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A child that has said its first line."""
    process = child.start(code, *arguments)
    first = said(process)
    assert first in (b"ready", b"held"), f"the child said {first!r}; its error is printed above"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "p.vecdb")


@pytest.fixture
def small(path: str) -> Iterator[tuple[vecdb.Database, vecdb.Collection]]:
    """A collection "c" of four rows."""
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", dim=2, metric="l2")
        c.add(["a", "b", "c", 4], [[1, 0], [0, 1], [2, 2], [3, 0]],
              metadata=[{"year": y} for y in (1, 2, 3, 4)])  # fmt: skip
        yield db, c


def everything(c: vecdb.Collection) -> Any:
    """All that one can see of a small collection."""
    records = [(r.id, r.metadata, None if r.vector is None else r.vector.tolist()) for r in c]
    hits = c.search([1, 1], 10)
    near = c.search([1, 1], 10, where=F.year >= 2)
    return (
        records, len(c), c.count(F.year >= 2), c.count({"ghost": True}), hits.ids,
        hits.distances.tolist(), [h.metadata for h in hits], near.ids, near.distances.tolist(),
    )  # fmt: skip


# --- readers beside a writer ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rw", "r"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_reader_in_another_process_sees_each_commit_on_its_next_search(
    path: str, mode: str, metric: str
) -> None:
    follow_commits(path, mode, metric, 150)


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_a_reader_sees_words_sparse_and_many_vectors_of_each_commit(
    path: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the writer folds and merges full text in nearly every commit (tests/riches.py)."""
    hurried(monkeypatch.setattr)
    follow_commits(path, mode, "l2", 60, rich=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["rw", "r"])
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_a_reader_follows_thousands_of_commits(
    path: str, mode: str, rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rich:
        hurried(monkeypatch.setattr)
    follow_commits(path, mode, "l2", 1000 if rich else 3000, rich)


def follow_commits(path: str, mode: str, metric: str, commits: int, rich: bool = False) -> None:
    create(path, metric, rich=rich)
    how = ["rich"] if rich else []
    reader = started(READER, path, mode, SEED, SIZES, *how)
    model: Model = {}
    rng = random.Random(0)
    asked = found = looks = 0
    with vecdb.open(path, durability="relaxed", upkeep=not rich) as db:
        for n in range(1, commits + 1):
            commit(db, SEED, n, model, SIZES, rich)
            if rng.random() < 0.05:
                db.optimize()
            if n % 50 and rng.random() < 0.3:
                continue  # then the reader follows several commits at once
            more, hit, wrong = json.loads(ask(reader, n))
            assert not wrong, f"after commit {n}: {wrong}"
            asked, found, looks = asked + more, found + hit, looks + 1
        late = started(READER, path, mode, SEED, SIZES, *how)  # opens what the other has followed
        assert json.loads(ask(late, commits))[2] == []
        child.end(late)
        child.end(reader)
        assert db.check() == []
    print(f"reader {mode!r}: {looks} looks at {commits} commits, 0 differences, "
          f"default recall@10 {found / asked:.4f}")  # fmt: skip
    assert found >= 0.95 * asked


def test_a_reading_handle_answers_exactly_like_the_writer(path: str) -> None:
    """Approximate hits too: both hold the same graph, whoever built or followed it."""
    create(path)
    code = """
import json, sys, numpy as np, vecdb
from vecdb import F
db = vecdb.open(sys.argv[1], mode="r")
print("ready", flush=True)
for line in sys.stdin:
    out = []
    for q in np.random.default_rng(int(line)).normal(size=(20, 24)):
        for where in (None, F.share < 0.5):
            hits = db["rows"].search(q, 10, where=where, ef=24)
            out.append([hits.ids, [float(d) for d in hits.distances]])
    print(json.dumps(out), flush=True)
try:
    db["rows"].add("x", np.ones(24))
except vecdb.errors.ReadOnly as error:
    assert "mode" in str(error)
else:
    sys.exit("mode r wrote")
"""
    reader = started(code, path)
    model: Model = {}
    compared = 0
    with vecdb.open(path, durability="relaxed") as db:
        for n in range(1, 61):
            commit(db, SEED, n, model, (5, 100, 300))
            theirs = json.loads(ask(reader, n))
            mine = []
            for q in np.random.default_rng(n).normal(size=(20, DIM)):
                for where in (None, F.share < 0.5):
                    hits = db["rows"].search(q, 10, where=where, ef=24)
                    mine.append([hits.ids, [float(d) for d in hits.distances]])
            compared += len(mine)
            assert theirs == mine, f"after commit {n}"
        print(f"mode r: {compared} approximate searches over {len(model)} rows, 0 differences")
    child.end(reader)


# --- writers beside writers ------------------------------------------------------------------------


def test_writers_in_several_processes_lose_no_increment(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2, metric="l2")
        c.add("counter", metadata={"value": 0})
        names, times = ["x", "y", "z"], 60
        writers = [started(COUNTER, path, name, times) for name in names]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
        seen = []
        while any(writer.poll() is None for writer in writers):
            seen.append((c["counter"].metadata["value"], len(c)))
            time.sleep(0.002)
        for writer in writers:
            child.end(writer)
        total = len(names) * times
        assert seen == sorted(seen), "a reader saw time go backwards"
        assert c["counter"].metadata["value"] == total == c.count(F.by.exists())
        assert sorted(r.metadata["value"] for r in c if r.id != "counter") == [*range(1, total + 1)]
        for name in names:
            assert c.count(F.by == name) == times
        assert [int(h.distance) for h in c.search([0, 1], total, exact=True)] == [*range(1, total + 1)]
        assert db.check() == []
        print(f"{len(names)} writers: {total} increments, 0 lost; looked {len(seen)} times")


def test_busy_names_the_holders_process_after_the_timeout(
    small: tuple[vecdb.Database, vecdb.Collection], path: str
) -> None:
    db, c = small
    before = everything(c)
    holder = started(HOLDER, path)
    code = """
import sys, time, vecdb
db = vecdb.open(sys.argv[1], timeout=0.3)
begun = time.monotonic()
try:
    db["c"].delete("b")
except vecdb.errors.Busy as busy:
    print(busy.owner_pid, time.monotonic() - begun, str(busy).replace(chr(10), " "))
"""
    try:
        pid, waited, message = child.end(child.start(code, path)).decode().split(" ", 2)
        assert int(pid) == holder.pid and str(holder.pid) in message and "timeout" in message
        assert 0.25 < float(waited) < 5
        assert everything(c) == before, "reads go on beside a writer, and see none of it"
    finally:
        kill(holder)
    c.update("b", metadata={"year": 7})
    assert c["b"].metadata == {"year": 7}


# --- no trace -----------------------------------------------------------------------------------


def test_an_aborted_transaction_leaves_no_trace_in_any_process(path: str) -> None:
    create(path)
    reader = started(READER, path, "rw", SEED, SIZES)
    model: Model = {}
    with vecdb.open(path, durability="relaxed", upkeep=False) as db:
        n = 0
        for turn in range(25):
            n += 1
            commit(db, SEED, n, model, SIZES)
            before = list(model)
            graph = db["rows"].stats()
            with pytest.raises(ZeroDivisionError), db.transaction():
                ghost: Model = dict(model)
                for number in (10_000 + turn, 20_000 + turn):
                    todo = calls(SEED, number, ghost, (1, 20, 300))
                    for call in todo:
                        perform_ghost(call, db)
                        apply(call, ghost)
                db["log"].add(f"ghost {turn}")
                db.create_collection("ghosts", dim=2).add("g", [1, 2])
                db.rename_collection("log", "gone")
                assert len(db["rows"]) == len(ghost)
                assert searched(db["rows"], ghost, random.Random(turn)).wrong == []
                raise ZeroDivisionError
            assert db.collections() == ["log", "rows"] and list(model) == before
            assert db["rows"].stats() == graph
            assert searched(db["rows"], model, random.Random(turn)).wrong == []
            assert json.loads(ask(reader, n))[2] == []
        assert db.check() == []
    child.end(reader)


def perform_ghost(call: Any, db: vecdb.Database) -> None:
    from tests.deeds import perform

    perform(call, db["rows"])


def test_names_of_fields_whose_rows_came_and_went_are_known_to_all(path: str) -> None:
    """A field's number is its place among the names: who misses one counts all later ones wrongly."""
    with vecdb.open(path, durability="relaxed") as db, vecdb.open(path, durability="relaxed") as other:
        c, theirs = db.create_collection("c", dim=2), other["c"]
        assert theirs.count(F.p == 1) == 0
        with db.transaction():
            c.add("x", [1, 0], metadata={"p": 1})
            c.delete("x")
        theirs.add("y", [1, 0], metadata={"p": 1})
        c.add("z", [0, 1], metadata={"q": 2, "p": 1})
        for each in (c, theirs):
            assert each.count(F.p == 1) == 2 and each.count(F.q == 2) == 1
            assert each.search([1, 0], where=F.p == 1).ids == ["y", "z"]
        assert db.check() == []


def test_a_killed_transaction_leaves_no_trace_in_any_process(
    small: tuple[vecdb.Database, vecdb.Collection], path: str
) -> None:
    db, c = small
    before = everything(c)
    stands = c.stats()
    for _ in range(3):
        kill(started(HOLDER, path))
        assert everything(c) == before and c.stats() == stands
        assert db.collections() == ["c"]
        assert db.check() == []
        code = "import sys, vecdb; c = vecdb.open(sys.argv[1])['c']; print(len(c), c.count({'ghost': True}))"
        assert child.end(child.start(code, path)) == b"4 0\n"
    begun = time.monotonic()
    c.add("after", [9, 9])
    assert time.monotonic() - begun < 5, "the dead holder's lock is still held"
    assert c.search([9, 9], 1).ids == ["after"] and db.check() == []


def test_leaving_by_exit_inside_a_transaction_leaves_no_trace(
    small: tuple[vecdb.Database, vecdb.Collection], path: str
) -> None:
    db, c = small
    before = everything(c)
    holder = started(HOLDER, path)
    holder.communicate(b"exit\n", timeout=30)
    assert everything(c) == before and db.check() == []


# --- fork, spawn, pickle --------------------------------------------------------------------------


def in_fork(work: Callable[[], object]) -> Any:
    """What `work` returns in a forked child; its exception's text where it raises."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                answer: tuple[bool, Any] = (True, work())
            except BaseException as error:
                answer = (False, f"{type(error).__name__}: {error}")
            os.write(write, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert said, "the forked child died"
    fine, answer_ = pickle.loads(said)
    assert fine, answer_
    return answer_


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reopens_by_itself_and_the_parent_is_unharmed(
    small: tuple[vecdb.Database, vecdb.Collection],
) -> None:
    db, c = small
    before = everything(c)

    def work() -> Any:
        assert everything(c) == before
        c.add("from the child", [7, 7], metadata={"year": 70})
        with db.transaction():
            c.delete("a")
            c.update("b", metadata={"year": 20})
        return everything(c)

    after = in_fork(work)
    assert everything(c) == after and "from the child" in c and "a" not in c
    c.add("from the parent", [8, 8])
    assert in_fork(lambda: "from the parent" in c) is True
    assert c.search([8, 8], 1).ids == ["from the parent"] and db.check() == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_inside_a_transaction_harms_neither(
    small: tuple[vecdb.Database, vecdb.Collection],
) -> None:
    db, c = small
    before = everything(c)
    with db.transaction():
        c.add("new", [7, 7], metadata={"year": 70})
        seen = in_fork(lambda: everything(c))
        assert seen == before, "a child sees the last commit, not its parent's transaction"
        c.add("newer", [8, 8])
    assert {"new", "newer"} <= {r.id for r in c} and db.check() == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forks_beside_busy_threads_neither_hang_nor_harm(path: str) -> None:
    create(path)
    model: Model = {}
    stop = threading.Event()
    with vecdb.open(path, durability="relaxed") as db:
        for n in range(1, 31):
            commit(db, SEED, n, model, (5, 60))
        rows = db["rows"]

        def search() -> None:
            while not stop.is_set():
                rows.search(np.ones(DIM), 5)

        def write() -> None:
            while not stop.is_set():
                db["log"].upsert("beat", metadata={"x": 1})

        def fork() -> None:
            try:
                for _ in range(15):
                    count = in_fork(lambda: (len(rows), len(rows.search(np.ones(DIM), 5))))
                    assert count == (len(model), 5)
            finally:
                stop.set()

        together(search, write, fork)
        assert db.check() == []


def _in_pool(arguments: tuple[vecdb.Database, vecdb.Collection, int]) -> tuple[int, list[Any]]:
    db, c, number = arguments
    c.add(f"pool-{number}", [number, number], metadata={"year": 1000 + number})
    return os.getpid(), db["c"].search([number, number], 1).ids


def test_a_spawned_child_takes_a_pickled_database(
    small: tuple[vecdb.Database, vecdb.Collection],
) -> None:
    db, c = small
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        answers = pool.map(_in_pool, [(db, c, number) for number in range(100, 106)])
    assert [ids for _, ids in answers] == [[f"pool-{number}"] for number in range(100, 106)]
    assert c.count(F.year >= 1000) == 6 and db.check() == []
