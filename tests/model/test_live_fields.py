"""Full text, sparse and many vectors, live: forked, pickled, copied, pinned, searched by many threads.

Commits are those of tests/deeds.py, of rich rows, while full text folds and merges in nearly every one of them;
what every query must find says tests/riches.py, of the commit that a handle or a snapshot shows. Seeds are
printed with `-s`; VECDB_LIVE_SEED repeats a run's choices.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests import child, deeds, riches
from tests.deeds import DIM, Model
from tests.wording import hurried
from vecdb.query import Fuse, Late, Near, Sparse, Text

SIZES = (1, 2, 5, 20, 70)
LIMIT_S = 60.0

LOOKER = """
import pickle, random, sys
from tests.deeds import compare, searched
handle, model = pickle.load(sys.stdin.buffer)
rows = handle if hasattr(handle, "search") else handle["rows"]
wrong = compare(rows, model, True) + searched(rows, model, random.Random(1), True).wrong
print(len(wrong), wrong[:3])
"""


class Life:
    """One file and its model."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = str(path)
        self.seed = int(os.environ.get("VECDB_LIVE_SEED", time.time_ns() % 1_000_000))
        print("seed", self.seed)
        self.rng = random.Random(self.seed)
        deeds.create(self.path, "l2", rich=True)
        self.db = vecdb.open(self.path, durability="relaxed", **options)
        self.model: Model = {}
        self.n = 0

    def commit(self, times: int = 1) -> None:
        for _ in range(times):
            self.n += 1
            deeds.commit(self.db, self.seed, self.n, self.model, SIZES, rich=True)

    def right(self, shown: Any = None, model: Model | None = None) -> None:
        """A handle, a snapshot or a copy of it shows a model."""
        rows = (self.db if shown is None else shown)["rows"]
        wrong = look(rows, self.model if model is None else model, self.rng)
        assert not wrong, wrong[:5]


def look(rows: Any, model: Model, rng: random.Random) -> list[str]:
    found = deeds.searched(rows, model, rng, rich=True)
    return deeds.compare(rows, model, rich=True) + found.wrong


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    hurried(monkeypatch.setattr)
    found = Life(tmp_path / "l.vecdb")
    found.commit(12)
    found.right()
    yield found
    found.db.close()


def in_fork(work: Callable[[], list[str]], limit: float = LIMIT_S) -> None:
    """A forked child finds nothing wrong, in time."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(int(limit))
            try:
                said = "; ".join(work()[:3]) or "right"
            except BaseException as error:
                said = repr(error)
            os.write(theirs, said.encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert said == "right", (said, status)


# --- fork and pickle ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_searches_writes_and_leaves_the_parent_as_it_was(life: Life) -> None:
    """What rankers keep in memory is inherited, and must not be believed."""
    snapshot, shown = life.db.snapshot(), dict(life.model)
    life.right(snapshot)

    def work() -> list[str]:
        wrong = look(life.db["rows"], life.model, random.Random(1))
        try:
            snapshot["rows"].search(Text("kernel"))
            wrong.append("an inherited snapshot answered")
        except vecdb.errors.Closed:
            pass
        life.commit(3)
        return wrong + look(life.db["rows"], life.model, random.Random(2))

    in_fork(work)
    for _ in range(3):  # what the child did
        life.n += 1
        for call in deeds.calls(life.seed, life.n, life.model, SIZES):
            deeds.apply(call, life.model)
    life.right()
    life.right(snapshot, shown)
    with life.db.transaction():
        before = dict(life.model)
        for call in deeds.calls(life.seed, life.n + 1, life.model, SIZES):
            deeds.perform(call, life.db["rows"], rich=True)
        in_fork(lambda: look(life.db["rows"], before, random.Random(3)))
        for call in deeds.calls(life.seed, life.n + 1, life.model, SIZES):
            deeds.apply(call, life.model)
        life.right()
    life.right()
    snapshot.close()
    assert life.db.check() == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_forked_while_threads_search_and_write_hang_nowhere(life: Life) -> None:
    """Some thread holds some lock at every fork; no child may wait for it."""
    stop, errors = threading.Event(), []
    queries = [
        Text("kernel driver"), Sparse({"a": 1.0, 2: 0.5}, using="sparse"), Late([[3, 1, 0, 2]], using="many"),
        Near([1.0] * DIM, using="vector") + Text("gpu* -slow"),
    ]  # fmt: skip
    rows = life.db["rows"]

    def search(at: int) -> None:
        while not stop.is_set():
            try:
                rows.search(queries[at], 10)
            except Exception as error:
                errors.append(error)

    def write() -> None:
        while not stop.is_set():
            try:
                rows.upsert([-1, -2], {"sparse": [{"a": 1.0}] * 2, "many": [[[1.0, 2, 3, 4]]] * 2}, texts=["gpu", "x"])
                rows.delete([-1, -2])
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=search, args=(at,)) for at in range(4)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()

    def work() -> list[str]:
        for query in queries:
            hits = rows.search(query, 10)
            if len(hits) != len(set(hits.ids)):
                return [f"{hits.ids}"]
        return []

    try:
        for _ in range(12):
            in_fork(work)
            time.sleep(0.02)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors, errors[:3]
    life.right()
    assert life.db.check() == []


def test_pickled_handles_and_queries_answer_elsewhere(life: Life) -> None:
    for handle in (life.db, life.db["rows"]):
        process = child.start(LOOKER)
        said, _ = process.communicate(pickle.dumps((handle, life.model)), timeout=LIMIT_S)
        assert said == b"0 []\n", said
    for _ in range(50):
        query = riches.query_of(riches.some_spec(life.rng, DIM))
        assert pickle.loads(pickle.dumps(query)) == query == vecdb.query.from_json(query.to_json())


# --- copies -----------------------------------------------------------------------------------------


def test_backup_compact_and_repair_keep_all_of_it(life: Life, tmp_path: Path) -> None:
    """Whether full text is folded, unfolded or in the middle of a merge."""
    for turn in range(3):
        life.commit(4)
        copy, saved = tmp_path / f"copy-{turn}", tmp_path / f"saved-{turn}"
        life.db.backup(copy)
        with vecdb.open(copy, upkeep=False) as other:
            assert other.check() == []
            life.right(other)
        report = vecdb.repair(copy, saved)
        assert not report.lost, report
        with vecdb.open(saved) as other:
            assert other.check() == []
            life.right(other)
        life.db.compact()
        life.right()
        if turn == 1:
            life.db["rows"].optimize()
    assert life.db.check() == []


def test_a_backup_while_others_commit_is_one_commit(life: Life, tmp_path: Path) -> None:
    """The copy says itself which commit it is."""
    models = {life.n: dict(life.model)}
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            life.commit()
            models[life.n] = dict(life.model)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(4):
            with vecdb.open(life.path, durability="relaxed") as other:
                other.backup(tmp_path / f"copy-{turn}")
            time.sleep(0.05)
    finally:
        stop.set()
        writer.join()
    for turn in range(4):
        with vecdb.open(tmp_path / f"copy-{turn}", mode="r") as copy:
            n = max(record.id for record in copy["log"])
            life.right(copy, models[n])
            assert copy.check() == []


# --- fields that go and come ---------------------------------------------------------------------------


def test_fields_go_and_come_back_empty_for_every_handle(life: Life) -> None:
    """A snapshot keeps what it showed; nobody sees the old vectors under the new field."""
    rows = life.db["rows"]
    other = vecdb.open(life.path, mode="r", durability="relaxed")
    life.right(other)
    for name, query in (("sparse", Sparse({"a": 1.0}, using="sparse")), ("many", Late([[1, 0, 0, 0]], using="many"))):
        snapshot = life.db.snapshot()
        rows.drop_vector(name)
        for handle in (life.db, other):
            with pytest.raises(vecdb.errors.InvalidArgument, match=name):
                handle["rows"].search(Fuse(Text("gpu"), query))
        assert life.db.check() == []
        declared = vecdb.SparseVector() if name == "sparse" else vecdb.Vector(4, metric="l2", multi=True)
        rows.add_vector(name, declared)
        for handle in (life.db, other):
            assert handle["rows"].search(query, None).ids == []
            assert handle["rows"].search(Text("kernel") + query, None).ids == rows.search(Text("kernel"), None).ids
        life.right(snapshot)
        snapshot.close()
        ids = list(life.model)
        extras = [riches.extra_of(deeds.key_of(life.model[id][1])) for id in ids]
        rows.update(ids, vectors={name: [getattr(extra, name) for extra in extras]})
        life.right()
        life.right(other)
        life.commit(2)
        life.right(other)
    other.close()
    assert life.db.check() == []


# --- pinned and followed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("upkeep", [True, False])
def test_a_snapshot_stays_what_it_was_across_folds_and_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upkeep: bool
) -> None:
    """In the writer's process, in a handle that reads only, and when the segments that it needs were replaced."""
    hurried(monkeypatch.setattr)
    life = Life(tmp_path / "l.vecdb", upkeep=upkeep)
    life.commit(10)
    reads = vecdb.open(life.path, mode="r", durability="relaxed")
    held = [(life.db.snapshot(), dict(life.model)), (reads.snapshot(), dict(life.model))]
    asked = False
    for turn in range(12):
        life.commit(3)
        if turn % 4 == 3:
            life.db["rows"].optimize()
        if turn == 5:
            held.append((life.db.snapshot(), dict(life.model)))
        if turn > 2:  # the first time only after much has been replaced
            asked = True
            for snapshot, model in held:
                life.right(snapshot, model)
        life.right(reads)
    assert asked
    for snapshot, _ in held:
        snapshot.close()
    reads.close()
    life.right()
    assert life.db.check() == []
    life.db.close()
    with vecdb.open(life.path, mode="r", durability="relaxed") as again:
        life.right(again)


def test_a_transaction_sees_its_own_and_an_abort_leaves_nothing(life: Life) -> None:
    for _ in range(6):
        before = dict(life.model)
        with pytest.raises(ZeroDivisionError), life.db.transaction():
            inside: Model = dict(life.model)
            for number in (10_000, 20_000):
                for call in deeds.calls(life.seed, number + life.n, inside, SIZES):
                    deeds.perform(call, life.db["rows"], rich=True)
                    deeds.apply(call, inside)
                life.right(model=inside)
            raise ZeroDivisionError
        assert life.model == before
        life.right()
        life.commit()
    assert life.db.check() == []


# --- many threads ------------------------------------------------------------------------------------------


def beside_a_writer(life: Life, commits: int) -> int:
    """Eight threads search while a writer commits; each answer is right for the commit that it shows."""
    models, worlds = {life.n: dict(life.model)}, {}
    stop, lock, wrong = threading.Event(), threading.Lock(), []
    asked = [0] * 8

    def world_of(n: int) -> Any:
        with lock:
            if n not in worlds:
                worlds[n] = deeds.world_of(models[n], "l2")
            return worlds[n]

    def search(at: int) -> None:
        rng = random.Random(f"{life.seed}-{at}")
        while not stop.is_set() and not wrong:
            try:
                with life.db.snapshot() as snapshot:
                    n = max(record.id for record in snapshot["log"])
                    _, _, found = riches.looked(snapshot["rows"], world_of(n), rng, DIM, 3)
                    wrong.extend(f"commit {n}: {each}" for each in found)
                    asked[at] += 3
                life.db["rows"].search(riches.query_of(riches.some_spec(rng, DIM)), 10)  # not in a snapshot
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=search, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(commits):
            life.n += 1
            calls = deeds.calls(life.seed, life.n, life.model, SIZES)
            after = dict(life.model)
            for call in calls:
                deeds.apply(call, after)
            models[life.n] = after  # before anybody can see it
            with life.db.transaction():
                for call in calls:
                    deeds.perform(call, life.db["rows"], rich=True)
                life.db["log"].add(life.n)
            life.model = dict(after)
            if turn % 10 == 9:
                life.db["rows"].optimize()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]
    return sum(asked)


def test_eight_threads_search_beside_a_writer(life: Life) -> None:
    asked = beside_a_writer(life, 12)
    print(f"8 threads: {asked} searches, each right for its commit")
    life.right()
    assert life.db.check() == []


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_eight_threads_search_beside_a_writer_for_long(life: Life) -> None:
    asked = beside_a_writer(life, int(os.environ.get("VECDB_LIVE_COMMITS", "300")))
    print(f"8 threads: {asked} searches, each right for its commit")
    life.right()
    assert life.db.check() == []


def test_control_a_row_with_anothers_riches_is_noticed(life: Life) -> None:
    """Without which all of this would prove nothing."""
    while all(vector is None for vector, _ in life.model.values()):
        life.commit()  # of few rows all may have none
    id = next(id for id, (vector, _) in life.model.items() if vector is not None)
    world = deeds.world_of(life.model, "l2")
    vector, extra = world.rows[id]
    for change in (
        {"text": "kernel " * 40}, {"sparse": {"a": 99.0, "b": 99.0, 0: 99.0, 1: 99.0, "c": 99.0}},
        {"many": [[9.0, 9, 9, 9], [-9.0, -9, -9, -9]]},
    ):  # fmt: skip
        wronged = riches.World({**world.rows, id: (vector, extra._replace(**change))}, "l2", "l2")
        _, _, wrong = riches.looked(life.db["rows"], wronged, random.Random(5), DIM, 60)
        assert wrong, change
