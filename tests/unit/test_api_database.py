"""What a database promises: collections, transactions, memory, copies, pickles, figures."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.errors import AlreadyExists, Closed, InvalidArgument, NotFound

V = [[1.0, 0.0], [0.0, 1.0]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.vecdb"


@pytest.fixture(params=["file", "memory"])
def db(request: pytest.FixtureRequest, path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(path if request.param == "file" else None, upkeep=False) as database:
        yield database
        assert database.check() == []


def rows_of(c: vecdb.Collection) -> Any:
    return [(r.id, r.metadata, r.text, None if r.vector is None else r.vector.tolist()) for r in c]


# --- collections ---------------------------------------------------------------------------------


def test_collections_are_made_listed_renamed_and_dropped(db: vecdb.Database) -> None:
    assert db.collections() == [] == list(db) and "b" not in db
    b = db.create_collection("b", dim=2)
    a = db.create_collection("a", dim=3, metric="dot", dtype="f16", M=8, ef_construction=64)
    assert db.collections() == ["a", "b"] == list(db) and "b" in db and 5 not in db
    assert db["a"] == a != b and hash(db["a"]) == hash(a) and a.name == "a"
    schema = a.schema
    assert (schema.dim, schema.metric, schema.dtype, schema.M) == (3, "dot", "f16", 8)
    assert (schema.ef_construction, schema.encoder) == (64, None)
    assert (b.schema.metric, b.schema.dtype, b.schema.M) == ("cosine", "f32", 16)
    b.add("x", [1, 0], metadata={"x": 1})
    db.rename_collection("b", "c")
    assert db.collections() == ["a", "c"] and b.name == "c" and b == db["c"]
    assert rows_of(b) == [("x", {"x": 1}, None, [1, 0])] and b.search([1, 0]).ids == ["x"]
    db.drop_collection("c")
    assert db.collections() == ["a"] and "c" not in db
    again = db.create_collection("c", dim=2)
    assert len(again) == 0 and again != b and again.count(F.x == 1) == 0


def test_get_or_create_gives_the_one_that_is_there(db: vecdb.Database) -> None:
    c = db.get_or_create_collection("c", dim=2, metric="l2")
    c.add("a", [1, 0])
    same = db.get_or_create_collection("c", dim=2, metric="l2")
    assert same == c and len(same) == 1


def test_many_collections_stay_apart(db: vecdb.Database) -> None:
    made = [db.create_collection(f"c{i}", dim=2, metric="l2") for i in range(30)]
    for i, c in enumerate(made):
        c.add(["same id", i], [[i, 1], [i, 2]], metadata=[{"x": i}, {"y": i}])
    for i, c in enumerate(made):
        assert [r.id for r in c] == [i, "same id"]
        assert c.search([i, 1], 1)[0].metadata == {"x": i} and c.count(F.x == i) == 1
    for c in made[::2]:
        db.drop_collection(c.name)
    assert len(db.collections()) == 15
    assert all(c["same id"].metadata == {"x": i} for i, c in enumerate(made) if i % 2)


def test_names_may_be_any_text(db: vecdb.Database) -> None:
    for name in ("ä b/c", "𝄞", "x" * 255, "'", "$"):
        db.create_collection(name, dim=2).add("a", [1, 0])
        assert name in db and len(db[name]) == 1 and db[name].name == name
    assert repr(db["ä b/c"]).startswith("Collection('ä b/c', dim=2") and "1 row" in repr(db["$"])


# --- transactions ----------------------------------------------------------------------------------


def test_a_transaction_sees_its_own_writes_everywhere(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=2, metric="l2")
    c.add(["a", "b"], V, metadata=[{"x": 1}, {"x": 2}])
    other = db["c"]
    with db.transaction() as tx:
        assert tx["c"] == c
        c.add("new", [5, 5], metadata={"x": 3, "fresh": True}, texts="t")
        tx["c"].update("a", metadata={"x": 10})
        other.delete("b")
        for handle in (c, other, tx["c"]):
            assert [r.id for r in handle] == ["a", "new"] and len(handle) == 2
            assert handle.get("b") is None and "b" not in handle and handle["new"].text == "t"
            assert handle.count() == 2 and handle.count(F.x >= 3) == 2 and handle.count(F.x == 2) == 0
            assert handle.count(F.fresh == True) == 1  # noqa: E712
            assert handle.search([5, 5], 5).ids == ["new", "a"]
            assert handle.search([5, 5], 5, where=F.x == 10).ids == ["a"]
            assert handle.search([0, 1], 5, exact=True).ids == ["a", "new"]
            assert [h.ids for h in handle.search([[5, 5], [0, 1]], 1)] == [["new"], ["a"]]
            assert handle.search([5, 5], 1, with_vectors=True)[0].vector.tolist() == [5, 5]
            assert handle.explain([1, 1]).matches == 2 and handle.stats()["rows"] == 2
        c.upsert("new", [1, 1], metadata={"x": 4})
        assert c.search([1, 1], 1).ids == ["new"] and c.count(F.fresh.exists()) == 0
        c.delete("new")
        assert c.search([1, 1], 9).ids == ["a"]
        c.add("new", [7, 7])
    assert c.search([7, 7], 9).ids == ["new", "a"] and c["new"].metadata == {}
    assert rows_of(db["c"]) == rows_of(c)


def test_a_large_transaction_searches_its_own_graph(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=8, metric="l2")
    data = np.random.default_rng(0).normal(size=(4000, 8))
    c.add(range(2000), data[:2000], metadata=[{"x": i} for i in range(2000)])
    with db.transaction():
        c.add(range(2000, 4000), data[2000:], metadata=[{"x": i} for i in range(2000, 4000)])
        c.delete(range(0, 4000, 3))
        inside = [c.search(q, 5, ef=64).ids for q in data[:50]]
        right = [c.search(q, 5, exact=True).ids for q in data[:50]]
        filtered = [c.search(q, 5, where=F.x >= 1500, ef=64).ids for q in data[:50]]
    assert [c.search(q, 5, exact=True).ids for q in data[:50]] == right
    assert [c.search(q, 5, ef=64).ids for q in data[:50]] == inside
    assert [c.search(q, 5, where=F.x >= 1500, ef=64).ids for q in data[:50]] == filtered
    assert sum(len(set(a) & set(b)) for a, b in zip(inside, right, strict=True)) >= 237


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("added, deleted", [(1, 1), (2, 1), (3, 3), (400, 1), (400, 399), (9000, 1)])
def test_rows_that_come_and_go_within_a_transaction_are_never_found(
    path: Path, before: int, added: int, deleted: int
) -> None:
    data = np.random.default_rng(0).normal(size=(before + added, 4))
    with vecdb.open(path) as db, vecdb.open(path, mode="r") as other:
        c = db.create_collection("c", dim=4, metric="l2")
        c.add(range(before), data[:before])
        assert len(other["c"].search(data[0])) == before  # follows from here on
        with db.transaction():
            c.add(range(before, before + added), data[before:], metadata=[{"x": 1}] * added)
            c.delete(range(before, before + deleted))
        left = before + added - deleted
        for one in (c, other["c"]):
            for how in ({}, {"exact": True}, {"ef": 50}, {"where": ~(F.x == 2)}):
                for query in data[before : before + 20]:
                    found = one.search(query.astype(np.float32), 20, **how).ids  # type: ignore[arg-type]
                    assert len(found) == min(20, left)
                    assert not set(found) & set(range(before, before + deleted))
        c.add("later", data[0])
        assert len(c.search(data[0], 10_000)) == left + 1 == len(other["c"].search(data[0], 10_000))
        assert db.check() == []


def test_handles_on_an_aborted_collection_never_lead_to_another(db: vecdb.Database) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction():
        made = db.create_collection("a", dim=2)
        made.add("row", [1, 0])
        found = db["a"]
        raise ZeroDivisionError
    b = db.create_collection("b", dim=3)  # gets the number that "a" would have had
    for gone in (made, found):
        for use in (lambda c: len(c), lambda c: c.add("x", [1, 0, 0]), lambda c: c.search([1, 0, 0])):
            with pytest.raises(NotFound):
                use(gone)
    with db.transaction():
        kept = db.create_collection("kept", dim=2)
        kept.add("row", [1, 0])
    assert len(b) == 0 and kept.search([1, 0]).ids == ["row"]


def test_an_exception_aborts_all_of_it(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=2)
    d = db.create_collection("d", dim=2)
    c.add(["a", "b"], V, metadata=[{"x": 1}, {"x": 2}])
    before = rows_of(c), db.stats()["collections"]
    with pytest.raises(ZeroDivisionError), db.transaction():
        c.add(vectors=np.ones((300, 2)), metadata=[{"y": i} for i in range(300)])
        c.delete("a")
        c.update("b", metadata={"x": 9}, vectors=[3, 3])
        d.add("x", [1, 0])
        db.create_collection("e", dim=2).add("x", [1, 0])
        db.rename_collection("d", "dd")
        raise ZeroDivisionError
    assert (rows_of(c), db.stats()["collections"]) == before
    assert db.collections() == ["c", "d"] and len(d) == 0 and d.name == "d"
    assert c.search([1, 0], 5).ids == ["a", "b"] and c.count(F.y.exists()) == 0
    c.add("after", [1, 1])
    assert len(c) == 3


def test_two_collections_change_together(db: vecdb.Database) -> None:
    c, d = db.create_collection("c", dim=2), db.create_collection("d", dim=3)
    with db.transaction() as tx:
        tx["c"].add("a", [1, 0])
        tx["d"].add("a", [1, 0, 0])
        assert len(c) == len(d) == 1
    assert len(c) == len(d) == 1
    with pytest.raises(AlreadyExists), db.transaction():
        c.add("b", [1, 0])
        d.add("a", [1, 0, 0])
    assert len(c) == len(d) == 1


def test_collections_can_be_made_renamed_and_dropped_inside(db: vecdb.Database) -> None:
    db.create_collection("old", dim=2).add("a", [1, 0])
    db.create_collection("doomed", dim=2).add("a", [1, 0])
    with db.transaction() as tx:
        new = tx.create_collection("new", dim=2, metric="l2")
        new.add(["a", "b"], V, metadata=[{"x": 1}, {}])
        tx.rename_collection("old", "renamed")
        tx.drop_collection("doomed")
        assert tx.collections() == ["new", "renamed"]
        assert new.search([0, 1], 1).ids == ["b"] and new.count(F.x == 1) == 1
        assert tx["renamed"].name == "renamed" and len(tx["renamed"]) == 1
        with pytest.raises(NotFound):
            tx["doomed"]
        gone = tx.create_collection("gone", dim=2)
        gone.add("a", [1, 0])
        tx.drop_collection("gone")
        tx.create_collection("doomed", dim=3).add("b", [1, 0, 0])
    assert db.collections() == ["doomed", "new", "renamed"]
    assert db["doomed"].schema.dim == 3 and [r.id for r in db["doomed"]] == ["b"]
    assert new.search([0, 1], 1).ids == ["b"] and db["renamed"].search([1, 0]).ids == ["a"]


def test_a_failed_call_that_did_nothing_leaves_its_transaction_usable(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=2)
    with db.transaction():
        c.add("a", [1, 0])
        with pytest.raises(AlreadyExists):
            c.add(["b", "a"], V)
        with pytest.raises(InvalidArgument):
            c.add("b", [1, 0, 0])
        with pytest.raises(NotFound):
            c.update(["a", "zz"], metadata={"x": 1})
        c.add("c", [0, 1])
    assert [r.id for r in c] == ["a", "c"]


def test_an_empty_transaction_is_no_commit(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=2)
    commit = c.stats()["commit"]
    with db.transaction():
        assert len(c) == 0 and c.search([1, 0]).ids == []
    assert c.stats()["commit"] == commit


def test_another_thread_reads_the_last_commit_and_waits_to_write(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=2)
    c.add("a", [1, 0])
    seen: list[Any] = []
    reading, wrote = threading.Event(), threading.Event()

    def other() -> None:
        seen.append((len(c), c.search([0, 1], 5).ids, "b" in c))
        reading.set()
        c.add("from the other thread", [1, 1])
        wrote.set()

    thread = threading.Thread(target=other)
    with db.transaction():
        c.add("b", [0, 1])
        thread.start()
        assert reading.wait(30) and not wrote.wait(0.2)
    assert wrote.wait(30)
    thread.join()
    assert seen == [(1, ["a"], False)] and len(c) == 3


# --- handles, files, memory -------------------------------------------------------------------------


def test_what_was_written_is_there_in_the_next_process_or_opening(path: Path) -> None:
    data = np.random.default_rng(0).normal(size=(1500, 6)).astype(np.float32)
    with vecdb.open(str(path)) as db:
        c = db.create_collection("c", dim=6)
        for start in range(0, 1500, 100):
            part = range(start, start + 100)
            c.add(part, data[part], metadata=[{"x": i, "odd": i % 2} for i in part])
        c.delete(where=F.x < 50)
        hits = [(h.ids, h.distances.tolist()) for h in c.search(data[:30], 7)]
        filtered = c.search(data[0], 7, where=F.odd == 1).ids
        everything = rows_of(c)
    for mode in ("rw", "r"):
        with vecdb.open(path, mode=mode) as db:
            c = db["c"]
            assert [(h.ids, h.distances.tolist()) for h in c.search(data[:30], 7)] == hits
            assert c.search(data[0], 7, where=F.odd == 1).ids == filtered
            assert rows_of(c) == everything and db.check() == []
    with vecdb.open(path) as db:
        db.optimize()
        assert [(h.ids, h.distances.tolist()) for h in db["c"].search(data[:30], 7)] == hits
        assert db.check() == []
    with vecdb.open(path, verify="always") as db:
        assert db["c"].search(data[0], 7, where=F.odd == 1).ids == filtered


@pytest.mark.parametrize("durability", ["full", "relaxed", "none"])
def test_every_durability_keeps_what_was_closed(path: Path, durability: str) -> None:
    with vecdb.open(path, durability=durability) as db:
        c = db.create_collection("c", dim=2)
        c.add("a", [1, 0])
        db.sync()
    with vecdb.open(path, mode="r", immutable=True) as db:
        assert db["c"].search([1, 0]).ids == ["a"]


def test_an_immutable_file_can_be_backed_up(path: Path) -> None:
    with vecdb.open(path) as db:
        db.create_collection("c", dim=2).add("a", [1, 0])
    with vecdb.open(path, mode="r", immutable=True) as db:
        db.backup(path.with_name("copy.vecdb"))
    with vecdb.open(path.with_name("copy.vecdb")) as db:
        assert db["c"].get("a") is not None and db.check() == []


def test_figures_asked_while_another_thread_closes_are_closed_or_right(path: Path) -> None:
    with vecdb.open(path) as db:
        db.create_collection("c", dim=2)
    odd: list[BaseException] = []

    def ask(db: vecdb.Database) -> None:
        try:
            while True:
                assert db.stats()["records"] > 0
        except Closed:
            pass
        except BaseException as error:
            odd.append(error)

    for _ in range(60):
        db = vecdb.open(path)
        threads = [threading.Thread(target=ask, args=(db,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        db.close()
        for thread in threads:
            thread.join()
    assert odd == []


def test_mode_x_makes_a_new_file(path: Path) -> None:
    with vecdb.open(path, mode="x") as db:
        db.create_collection("c", dim=2)
    with pytest.raises(AlreadyExists):
        vecdb.open(path, mode="x")


def test_a_database_is_one_file_with_locks_beside_it(path: Path) -> None:
    with vecdb.open(path) as db:
        db.create_collection("c", dim=2)
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["d.vecdb", "d.vecdb-lock", "d.vecdb-writer"]
    path.with_name("d.vecdb-lock").unlink()
    path.with_name("d.vecdb-writer").unlink()
    with vecdb.open(path) as db:
        assert db.collections() == ["c"] and db.check() == []


def test_databases_in_memory_are_private_and_leave_nothing(tmp_path: Path) -> None:
    with vecdb.open() as one, vecdb.open() as two:
        one.create_collection("c", dim=2).add("a", [1, 0])
        assert two.collections() == []
        assert one["c"].search([1, 0]).ids == ["a"]
        assert "memory" in repr(one)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidArgument, match="memory"), vecdb.open() as db:
        pickle.dumps(db)


def test_closing_twice_is_fine_and_with_closes(path: Path) -> None:
    with vecdb.open(path) as db:
        assert "'rw'" in repr(db)
    db.close()
    assert "closed" in repr(db)


def test_pickling_sends_the_path(path: Path) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2)
        c.add("a", [1, 0], metadata={"x": 1})
        database, collection = pickle.loads(pickle.dumps((db, c)))
        with database:
            assert database["c"]["a"].metadata == {"x": 1} and collection.search([1, 0]).ids == ["a"]
            collection.add("b", [0, 1])
        assert len(c) == 2
    assert pickle.loads(pickle.dumps(vecdb.REMOVE)) is vecdb.REMOVE


def test_backup_is_a_whole_copy_that_lives_on_its_own(db: vecdb.Database, tmp_path: Path) -> None:
    c = db.create_collection("c", dim=2, metric="l2")
    c.add(range(500), np.random.default_rng(0).normal(size=(500, 2)), metadata=[{"x": i} for i in range(500)])
    c.delete(where=F.x < 100)
    target = tmp_path / "copy.vecdb"
    db.backup(target)
    c.add("later", [0, 0])
    with pytest.raises(AlreadyExists):
        db.backup(target)
    with vecdb.open(target) as copy:
        assert len(copy["c"]) == 400 == copy["c"].count(F.x >= 100) and "later" not in copy["c"]
        assert copy["c"].search([1, 1], 20).ids == [i for i in c.search([1, 1], 21).ids if i != "later"][:20]
        copy["c"].add("in the copy", [1, 1])
        assert copy.check() == []
    assert "in the copy" not in c


def test_stats_tell_what_there_is(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=2)
    c.add(["a", "b"], V, metadata=[{"x": 1, "in": {"y": 2}}, {}])
    c.add("plain", metadata={"x": 2})
    c.delete("a")
    found = c.stats()
    assert (found["name"], found["rows"], found["vectors"]["vector"]["rows"]) == ("c", 2, 1)
    assert (found["slots"], found["dead_slots"]) == (2, 1)
    assert sorted(found["fields"]) == ["in.y", "x"]
    whole = db.stats()
    assert whole["collections"]["c"] == found and whole["threads"] >= 1


def test_optimize_changes_no_answer(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=4, metric="l2")
    data = np.random.default_rng(0).normal(size=(1200, 4))
    for start in range(0, 1200, 150):
        c.add(range(start, start + 150), data[start : start + 150],
              metadata=[{"x": i % 7} for i in range(start, start + 150)])  # fmt: skip
    c.delete(where=F.x == 3)
    before = rows_of(c), [h.ids for h in c.search(data[:20])], c.count(F.x == 5)
    c.optimize()
    assert (rows_of(c), [h.ids for h in c.search(data[:20])], c.count(F.x == 5)) == before
    assert db.check() == []
    db.optimize()
    c.optimize()
    assert (rows_of(c), [h.ids for h in c.search(data[:20])], c.count(F.x == 5)) == before
    commits = c.stats()["commit"]
    assert c.stats()["vectors"]["vector"]["links_folded_to"] >= commits - 3


def test_versions_are_told() -> None:
    assert vecdb.__version__ and isinstance(vecdb.FORMAT_VERSION, int)


@pytest.mark.parametrize("immutable", [False, True])
def test_closing_waits_for_searches_of_other_threads(tmp_path: Path, immutable: bool) -> None:
    """The map goes away with the last handle: under a search that would end the process."""
    path = tmp_path / "a.vecdb"
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6000, 32)).astype(np.float32)
    with vecdb.open(path) as db:
        db.create_collection("c", dim=32).add(list(range(6000)), vectors)
    script = (
        "import sys, threading, time, numpy as np, vecdb\n"
        "q = np.random.default_rng(1).standard_normal((20, 32)).astype(np.float32)\n"
        "def run(c):\n"
        "    try:\n"
        "        while True:\n"
        "            for x in q: c.search(x); c.search(x, exact=True)\n"
        "    except vecdb.errors.Closed: pass\n"
        "for _ in range(25):\n"
        "    db = vecdb.open(sys.argv[1], mode='r', immutable=sys.argv[2] == 'True')\n"
        "    threads = [threading.Thread(target=run, args=(db['c'],)) for _ in range(3)]\n"
        "    for t in threads: t.start()\n"
        "    time.sleep(0.02); db.close()\n"
        "    for t in threads: t.join()\n"
        "print('sound')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(immutable)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "sound\n"), done.stderr


def test_optimize_says_how_far_it_is_and_stops_when_told(db: vecdb.Database) -> None:
    c = db.create_collection("c", vectors={"a": vecdb.Vector(2), "b": vecdb.Vector(3)})
    c.add(range(20), {"a": np.ones((20, 2)), "b": np.ones((20, 3))}, metadata=[{"x": i} for i in range(20)])
    seen: list[tuple[int, int | None]] = []
    c.optimize(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    commit = c.stats()["commit"]
    c.optimize(cancel=lambda: True)
    assert c.stats()["commit"] == commit and db.check() == []
    for wrong in ({"progress": 1}, {"cancel": 5}):
        with pytest.raises(InvalidArgument):
            c.optimize(**wrong)


def test_a_collection_renamed_beside_writes_is_called_so_at_once(db: vecdb.Database) -> None:
    c = db.create_collection("before", dim=2)
    with db.transaction():
        c.add("a", [1, 0])
        db.rename_collection("before", "after")
        assert c.search([1, 0]).plan.collection == "after"
    assert c.search([1, 0]).plan.collection == c.name == "after" and db.check() == []


def test_a_thread_in_an_older_transaction_brings_no_dropped_collection_back(db: vecdb.Database) -> None:
    """A search that began before the drop may learn of the catalog after everybody else has."""
    c = db.create_collection("c", dim=2)
    c.add("a", [1, 0])
    env = db._env
    older = env.begin_read()
    try:
        db.drop_collection("c")
        assert db.collections() == []
        with db._batch() as batch:  # as a writer does once it has the lock
            db._refresh(older, env.commit_number(older))
            assert batch.catalog == {} == db._catalog
    finally:
        older.abort()
    with pytest.raises(NotFound):
        c.delete("a")
