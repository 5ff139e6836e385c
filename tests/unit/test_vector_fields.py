"""Vector fields that come and go while others look: this process's threads, and other processes.

What a call was checked against may be another declaration when its turn to write comes; searches,
prepared ones and snapshots are older than a field, or outlive it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.errors import InvalidArgument, NotFound, SchemaError

V = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]


def encoder(asked: list[str]) -> Any:
    def encode(texts: list[str]) -> Any:
        asked.extend(texts)
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    return vecdb.encoders.function(encode, name="told", dim=2)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "f.vecdb", durability="none", upkeep=False) as made:
        c = made.create_collection("c", vectors={"a": vecdb.Vector(2), "b": vecdb.Vector(2)})
        c.add([0, 1, 2], {"a": V, "b": V}, metadata=[{"n": i} for i in range(3)])
        yield made


# --- threads ----------------------------------------------------------------------------------


def while_writing(db: vecdb.Database, change: Callable[[], Any], call: Callable[[], Any]) -> Any:
    """What `call` of another thread comes to, that was checked before `change` was committed."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(call())
        except vecdb.VecdbError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    with db.transaction():
        change()
        thread.start()
        thread.join(0.3)  # it has checked its arguments, and waits for its turn
        assert thread.is_alive()
    thread.join()
    return found[0]


@pytest.mark.parametrize("change", ["add", "drop"])
def test_a_field_that_a_write_does_not_name_is_no_reason_to_fail(
    db: vecdb.Database, change: str
) -> None:
    c = db["c"]
    changes = {
        "add": lambda: c.add_vector("late", vecdb.Vector(3)),
        "drop": lambda: c.drop_vector("b"),
    }
    assert while_writing(db, changes[change], lambda: c.add("x", {"a": V[0]})) == ["x"]
    assert list(c["x"].vectors) == ["a"]
    assert db.check() == []


def test_other_verbs_do_not_mind_either(db: vecdb.Database) -> None:
    c = db["c"]
    calls: list[Callable[[], Any]] = [
        lambda: c.upsert(0, {"a": V[1]}),
        lambda: c.update(1, vectors={"a": V[2]}, metadata={"n": 5}),
        lambda: c.update(where=F.n == 5, metadata={"m": 1}),
        lambda: c.delete(2),
    ]
    for at, call in enumerate(calls):
        found = while_writing(db, lambda at=at: c.add_vector(f"late{at}", vecdb.Vector(3)), call)
        assert not isinstance(found, Exception), found
    assert [r.id for r in c] == [0, 1] and c[1].metadata == {"n": 5, "m": 1}
    assert list(c[1].vectors) == ["a", "b"] and db.check() == []


def test_a_write_that_names_a_field_that_went_is_refused_whole(db: vecdb.Database) -> None:
    c = db["c"]

    def replaced() -> None:
        c.drop_vector("b")
        c.add_vector("b", vecdb.Vector(2))

    found = while_writing(db, replaced, lambda: c.add("x", {"b": V[0]}))
    assert isinstance(found, SchemaError) and "meanwhile" in str(found)
    encoded = vecdb.Vector(encoder=encoder([]))
    found = while_writing(
        db, lambda: c.add_vector("late", encoded), lambda: c.add("y", {"a": V[0]}, texts="t")
    )
    assert isinstance(found, SchemaError), "its text would have to be encoded"
    assert len(c) == 3 and db.check() == []


def test_threads_add_and_drop_fields_while_others_search_and_write(db: vecdb.Database) -> None:
    c, done, wrong = db["c"], threading.Event(), []

    def guarded(step: Callable[[int], None]) -> Callable[[], None]:
        def run() -> None:
            at = 0
            while not done.is_set():
                try:
                    step(at)
                except (NotFound, SchemaError, InvalidArgument) as error:
                    if "late" not in str(error) and "meanwhile" not in str(error):
                        wrong.append(error)
                except BaseException as error:
                    wrong.append(error)
                at += 1

        return run

    def write(at: int) -> None:
        c.upsert(at % 3, {"a": V[at % 3], "b": V[(at + 1) % 3]}, metadata={"n": at % 3})

    def search(at: int) -> None:
        assert len(c.search(V[0], 3, using="a", where=F.n >= 0)) == 3
        assert len(c.search(np.ones(3), 3, using="late")) <= 3

    def snapshot(at: int) -> None:
        with db.snapshot() as snap:
            found = [len(snap["c"].search(V[0], 5, using=name)) for name in ("a", "b")]
            assert found == [3, 3] and [r.id for r in snap["c"].scan(with_vectors=True)] == [0, 1, 2]

    threads = [threading.Thread(target=guarded(step)) for step in (write, search, search, snapshot)]
    for thread in threads:
        thread.start()
    for at in range(60):
        if at % 2:
            c.drop_vector("late")
        else:
            c.add_vector("late", vecdb.Vector(3))
            c.update(0, vectors={"late": [1, 2, 3]})
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert db.check() == []


# --- other processes --------------------------------------------------------------------------


def elsewhere(db: vecdb.Database, code: str) -> None:
    """Run code in another process, with the collection `c` of the same file."""
    head = "import sys, vecdb\ndb = vecdb.open(sys.argv[1], durability='none')\nc = db['c']\n"
    subprocess.run(
        [sys.executable, "-c", f"{head}{code}\ndb.close()", db._env.path], check=True, timeout=60
    )


def test_fields_that_another_process_drops_and_adds_are_followed(db: vecdb.Database) -> None:
    c = db["c"]
    prepared = {name: c.prepare(2, using=name) for name in ("a", "b")}
    query = np.array([1.0, 0.1], np.float32)
    before = {name: each(query).ids for name, each in prepared.items()}
    for each in prepared.values():
        each(query)  # made ready
    scan = iter(c.scan(with_vectors=True))
    with db.snapshot() as snap:
        old = snap["c"]
        elsewhere(db, "c.drop_vector('b'); c.add_vector('late', vecdb.Vector(1, metric='l2'))")
        elsewhere(db, "c.update([0, 1], vectors={'late': [[5], [7]]})")
        assert list(c.schema.vectors) == ["a", "late"]
        assert prepared["a"](query).ids == before["a"]
        for call in (prepared["b"], lambda q: c.search(q, using="b")):
            with pytest.raises(InvalidArgument, match=r"'b'.*'a', 'late'"):
                call(query)
        assert c.search([6.5], using="late").ids == [1, 0]
        assert old.search(query, 2, using="b").ids == before["b"]
        assert set(old[0].vectors) == {"a", "b"} and "late" not in old.schema.vectors
        assert old.vectors([1], "b").shape == (1, 2)
        assert [set(r.vectors) for r in scan][-1] <= {"a", "b", "late"}
        with pytest.raises(InvalidArgument, match="'late'"):
            old.search([1], using="late")
    assert db.check() == []


def test_a_field_of_the_same_name_is_another_field(db: vecdb.Database) -> None:
    c = db["c"]
    c.search(V[0], using="b")
    prepared = c.prepare(3, using="b")
    prepared(np.array(V[0], np.float32))
    elsewhere(db, "c.drop_vector('b'); c.add_vector('b', vecdb.Vector(2)); c.update(2, vectors={'b': [1, 0]})")
    assert c.search(V[0], using="b").ids == prepared(np.array(V[0], np.float32)).ids == [2]
    assert c.explain(using="b").matches == 1 and db.check() == []


def test_a_lookup_of_before_sees_what_another_process_wrote(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "g.vecdb", durability="none") as db:
        c = db.create_collection("c", dim=2)
        c.add(list(range(50)), np.ones((50, 2)), metadata=[{"n": 0}] * 50)
        for step in range(1, 4):
            assert c.get(7) == c.get(7) and c.get([7])[0] == c[7]  # by way of a lookup
            elsewhere(db, f"c.upsert(7, [{step}, 1], metadata={{'n': {step}}}, texts='t' * 9000)")
            found = c.get(7)
            assert found is not None and found.metadata == {"n": step}
            assert found.vector is not None and found.vector.tolist() == [step, 1]
            elsewhere(db, "c.delete(8) if 8 in c else c.add(8, [1, 1])")
            assert (c.get(8) is None) == (step % 2 == 1)


def test_a_handle_is_closed_in_another_thread_while_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "g.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("c", dim=2).add(list(range(50)), np.ones((50, 2)))
    for _ in range(20):
        db = vecdb.open(path, mode="r")
        c = db["c"]
        closer = threading.Timer(0.005, db.close)
        closer.start()
        with pytest.raises(vecdb.errors.Closed):
            while True:
                assert c.get(7) is not None
        closer.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_reads_every_field(db: vecdb.Database) -> None:
    c = db["c"]
    prepared, query = c.prepare(2, using="b"), np.array([1.0, 0.1], np.float32)
    expected = prepared(query).ids
    snap = db.snapshot()
    child = os.fork()
    if child == 0:
        ok = prepared(query).ids == expected and c.get(1) is not None
        c.add_vector("late", vecdb.Vector(1, metric="l2"))
        c.update(1, vectors={"late": [3]})
        try:
            len(snap["c"])
        except vecdb.errors.Closed:
            os._exit(0 if ok else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert c.search([1], using="late").ids == [1] and len(snap["c"]) == 3
    snap.close()
    assert db.check() == []


DROPS = """
import sys, vecdb
with vecdb.open(sys.argv[1]) as db:
    db["c"].drop_vector("b")
"""


def test_another_process_drops_a_field_whose_blocks_were_just_written(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "f.vecdb", upkeep=False) as db:
        c = db.create_collection("c", vectors={"a": vecdb.Vector(2), "b": vecdb.Vector(2048)})
        c.add(list(range(40)), {"a": np.ones((40, 2)), "b": np.ones((40, 2048))})  # blocks of 16
        subprocess.run([sys.executable, "-c", DROPS, tmp_path / "f.vecdb"], check=True)
        assert c.get(3).vectors["a"].tolist() == [1, 1] and len(c.search([1, 1], 40)) == 40
        c.add(40, {"a": [1, 0]})
        assert c.search([1, 0], 1)[0].id == 40 and db.check() == []


# --- encoders ---------------------------------------------------------------------------------


def test_an_aborted_drop_leaves_the_encoder_at_hand(db: vecdb.Database) -> None:
    asked: list[str] = []
    c = db["c"]
    c.add_vector("told", vecdb.Vector(encoder=encoder(asked), source="s"))
    with pytest.raises(ZeroDivisionError), db.transaction():
        c.drop_vector("told")
        raise ZeroDivisionError
    c.update(0, metadata={"s": "text"})
    assert asked == ["text"] and "told" in c[0].vectors


def test_a_vector_goes_with_its_text_and_with_nothing_else(db: vecdb.Database) -> None:
    asked: list[str] = []
    c = db["c"]
    c.add_vector("told", vecdb.Vector(encoder=encoder(asked), source="s.t"))
    c.update(0, metadata={"s.t": "flat"})
    c.update(1, metadata={"s": {"t": "nested"}})
    c.update(2, vectors={"told": [7, 7]})
    c.update([0, 1, 2], metadata={"s": {"u": 1}})  # touches the text of row 1 alone
    assert ["told" in r.vectors for r in c] == [True, False, True]
    c.update(where={}, metadata={"s": {"u": 2}})
    assert ["told" in r.vectors for r in c] == [True, False, True]
    c.update(0, metadata={"s.t": vecdb.REMOVE})
    assert asked == ["flat", "nested"] and ["told" in r.vectors for r in c] == [False, False, True]


# --- bits -------------------------------------------------------------------------------------


def test_a_query_of_bits_is_checked_however_often_it_was_asked() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=9, dtype="b1")
        c.add(["a", "b"], np.eye(2, 9))
        prepared = c.prepare()
        for _ in range(3):
            for ask in (c.search, prepared):
                assert ask(np.eye(1, 9, dtype=np.float32)[0]).distances.tolist() == [0, 2]
                for wrong in (np.full(9, 0.5, np.float32), np.full(9, 2, np.float32)):
                    with pytest.raises(InvalidArgument, match="0 or 1"):
                        ask(wrong)
