"""A snapshot answers everything as of its commit, whatever is done meanwhile."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.errors import Closed, InvalidArgument, NotFound, ReadOnly

ROWS = 1500


@pytest.fixture(params=["memory", "file"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "s.vecdb" if request.param == "file" else None
    with vecdb.open(path, durability="none", upkeep=False) as db:
        rng = np.random.default_rng(3)
        c = db.create_collection("c", vectors={"a": vecdb.Vector(16), "b": vecdb.Vector(4, metric="l2")})
        given = {"a": rng.normal(size=(ROWS, 16)), "b": [None if i % 3 else rng.normal(size=4) for i in range(ROWS)]}
        c.add(range(ROWS), given, metadata=[{"n": i % 10, "tag": ["x", "y"][i % 2]} for i in range(ROWS)])
        db.create_collection("gone", dim=2).add("only", [1, 0])
        yield db


def everything(c: Any) -> Any:
    query = np.random.default_rng(9).normal(size=16)
    return (
        [(r.id, r.metadata, {n: v.tolist() for n, v in r.vectors.items()}) for r in c],
        len(c), c.count(F.n < 4), dict(c.facets("n").items()),
        [r.id for r in c.scan(F.tag == "x", order_by="n", descending=True)],
        c.search(query, 10, using="a").ids, c.search(query, 10, using="a", where=F.n == 3).ids,
        c.search(query[:4], 10, using="b", exact=True).ids, c.search(query[:4], 5, using="b", where=F.tag == "y").ids,
        c.get([3, "new"]), 7 in c, c["7" if "7" in c else 7].id, c.schema.vectors.keys(),
        c.explain(query, using="a", where=F.n == 3).matches,
    )  # fmt: skip


def churn(db: vecdb.Database) -> None:
    """Everything that can change."""
    c = db["c"]
    rng = np.random.default_rng(4)
    for n in range(4):
        c.upsert(range(n * 50, n * 50 + 400), {"a": rng.normal(size=(400, 16))}, metadata=[{"n": n}] * 400)
        c.delete(where=F.n == 5 + n)
        c.add([f"new-{n}-{i}" for i in range(300)], {"b": rng.normal(size=(300, 4))})
    c.optimize()
    c.add_vector("later", vecdb.Vector(3))
    c.drop_vector("b")
    db.rename_collection("c", "d")
    db.drop_collection("gone")


def test_everything_stays_as_it_was(db: vecdb.Database) -> None:
    before = everything(db["c"])
    with db.snapshot() as snap, db.snapshot() as unused:
        assert everything(snap["c"]) == before
        churn(db)
        assert everything(snap["c"]) == before
        assert snap.collections() == ["c", "gone"] and "gone" in snap and list(snap) == ["c", "gone"]
        assert snap["gone"].get("only").vector.tolist() == [1, 0]
        assert everything(unused["c"]) == before, "asked for the first time after all that"
        assert unused["gone"].search([1, 0]).ids == ["only"]
    assert db.collections() == ["d"] and db.check() == []


def test_a_snapshot_of_an_older_commit_beside_a_newer_one(db: vecdb.Database) -> None:
    with db.snapshot() as old:
        db["c"].delete(range(100))
        with db.snapshot() as new:
            db["c"].delete(range(100, 200))
            for _ in range(2):
                assert (len(old["c"]), len(new["c"]), len(db["c"])) == (ROWS, ROWS - 100, ROWS - 200)
                assert (5 in old["c"], 5 in new["c"], 105 in new["c"], 105 in db["c"]) == (True, False, True, False)


def test_it_reads_only(db: vecdb.Database) -> None:
    with db.snapshot() as snap:
        c: Any = snap["c"]
        for verb in ("add", "upsert", "update", "delete", "add_table", "optimize", "add_vector", "drop_vector"):
            with pytest.raises(ReadOnly, match=verb):
                getattr(c, verb)
        with pytest.raises(AttributeError):
            _ = c.nonsense
        with pytest.raises(NotFound, match="'nope'.*'c'"):
            _ = snap["nope"]
        with pytest.raises(Closed):
            pickle.dumps(snap)
        with pytest.raises(Closed):
            pickle.dumps(c)
        assert "commit" in repr(snap) and "rows" in repr(c)
    with db.transaction(), pytest.raises(InvalidArgument, match="transaction"):
        db.snapshot()


def test_after_its_end_it_answers_nothing(db: vecdb.Database) -> None:
    snap = db.snapshot()
    c = snap["c"]
    assert len(c) == ROWS
    snap.close()
    snap.close()
    for ask in (lambda: len(c), lambda: c.get(1), lambda: c.search(np.ones(16), using="a"), lambda: next(iter(c))):
        with pytest.raises(Closed, match="ended"):
            ask()


def test_closing_the_database_ends_it(tmp_path: Path) -> None:
    db = vecdb.open(tmp_path / "s.vecdb")
    db.create_collection("c", dim=2)
    snap = db.snapshot()
    db.close()
    with pytest.raises(Closed):
        len(snap["c"])
    snap.close()


def test_it_sees_nothing_of_a_transaction_that_is_open(db: vecdb.Database) -> None:
    with db.snapshot() as snap, db.transaction():
        db["c"].delete(range(10))
        assert (len(snap["c"]), len(db["c"])) == (ROWS, ROWS - 10)
        assert snap["c"].count(F.n == 3) == ROWS // 10
        assert 3 in snap["c"] and 3 not in db["c"]


def test_threads_share_it(db: vecdb.Database) -> None:
    with db.snapshot() as snap:
        before = everything(snap["c"])
        wrong: list[Any] = []

        def read() -> None:
            for _ in range(3):
                if everything(snap["c"]) != before:
                    wrong.append("differs")

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for n in range(20):
            db["c"].upsert([n], {"a": np.ones(16)})
        for thread in threads:
            thread.join()
        assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_in_a_forked_child_it_is_refused_and_its_end_touches_nothing(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "s.vecdb") as db:
        db.create_collection("c", dim=2).add("a", [1, 0])
        with db.snapshot() as snap:
            assert len(snap["c"]) == 1
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    try:
                        len(snap["c"])
                    except Closed:
                        snap.close()
                        code = 0 if len(db["c"]) == 1 else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            db["c"].add("b", [0, 1])
            assert (len(snap["c"]), len(db["c"])) == (1, 2)
