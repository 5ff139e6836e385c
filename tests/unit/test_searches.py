"""Saved searches are values in the file: what was saved is what is read, by whomever and whenever."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child
from vecdb import F
from vecdb.errors import AlreadyExists, InvalidArgument, NotFound, ReadOnly
from vecdb.query import Field, Near
from vecdb.storage import keys, records


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "s.vecdb")
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", dim=3, metric="l2", fields={"at": datetime})
        rng = np.random.default_rng(1)
        c.add(range(50), rng.normal(size=(50, 3)), metadata=[{"n": i, "at": datetime(2000 + i, 1, 1, tzinfo=UTC)} for i in range(50)])
    return path


WHERE: list[Any] = [
    None, F.n >= 20, (F.n < 10) | F["odd name"].exists(), {"n": {"$in": [1, 2, 30]}}, "at >= '2010-01-01T00:00Z'",
]  # fmt: skip


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_what_was_saved_is_there_after_reopening(path: str, where: Any) -> None:
    query = np.random.default_rng(2).normal(size=3)
    with vecdb.open(path) as db:
        c = db["c"]
        saved = db.searches.save("mine", c, query, 7, where=where, exact=True, offset=1)
        before = saved.run().ids
        assert before == c.search(query, 7, where=where, exact=True, offset=1).ids
    with vecdb.open(path, mode="r") as db:
        again = db.searches["mine"]
        assert (again.name, again.k, again.query, again.options) == ("mine", 7, Near(query), {"exact": True, "offset": 1})
        assert again.collection == db["c"] and again.where == saved.where
        assert again.run().ids == before and again.explain().k == 7
        assert repr(again) == repr(saved) and not db.check()


def test_the_mapping(path: str) -> None:
    with vecdb.open(path) as db:
        c = db["c"]
        for name in ("b", "ä" * 100, "a", "x" * 255):
            db.searches.save(name, c, [0, 0, 1])
        assert db.searches.names() == sorted(("b", "ä" * 100, "a", "x" * 255), key=str.encode) == list(db.searches)
        assert "b" in db.searches and "c" not in db.searches and 3 not in db.searches and len(db.searches) == 4
        db.searches.delete("b")
        assert "b" not in db.searches
        with pytest.raises(NotFound, match="no saved search 'b'; there are: 'a'"):
            db.searches["b"]
        with pytest.raises(NotFound):
            db.searches.delete("b")


def test_any_query_object_and_shape_is_kept(path: str) -> None:
    from vecdb.query import Decay, Fuse, Like

    q = np.random.default_rng(4).normal(size=(2, 3))
    kept: list[tuple[Any, dict[str, Any]]] = [
        (Near(vecdb.ById(7)), {}), (Near(q[0]) + Near(q[1]), {"diversity": 0.4, "k": 5}),
        (Fuse(Like([1], [2]), Near(q[0]), weights=[2, 1], method="weighted"), {"group_by": "n", "group_size": 3}),
        (Near(q[0]), {"boost": [Decay("at", datetime(2010, 1, 1, tzinfo=UTC), 1e8)], "where": F.n > 3}),
    ]  # fmt: skip
    with vecdb.open(path) as db:
        before = [db.searches.save(f"s{i}", db["c"], query, **options).run().ids for i, (query, options) in enumerate(kept)]
    with vecdb.open(path) as db:
        for i, (query, options) in enumerate(kept):
            again = db.searches[f"s{i}"]
            assert again.query == query and again.run().ids == before[i]
            assert again.options == {name: value for name, value in options.items() if name not in ("k", "where")}


def test_a_name_is_taken_once_and_replaced_when_told(path: str) -> None:
    with vecdb.open(path) as db:
        c = db["c"]
        news = db.searches.save("mine", c, [0, 0, 1], where=F.n < 60).watch("me", block=False)
        with pytest.raises(AlreadyExists, match="replace=True"):
            db.searches.save("mine", c, [1, 0, 0])
        assert db.searches["mine"].query == Near([0, 0, 1])
        c.add([60, 61], metadata=[{"n": 60}, {"n": 59}])
        db.searches.save("mine", c, [1, 0, 0], where=F.n == 60, replace=True)
        assert [batch.ids for batch in news] == [[60]], "a running watch goes on under the new search"
        assert [b.ids for b in db.searches["mine"].watch("me", block=False)] == [[60]], "and a watcher where it was"
        other = db.create_collection("other", dim=3)
        db.searches.save("mine", other, [1, 0, 0], replace=True)
        with pytest.raises(NotFound, match="watcher 'me'"):
            next(news)
        assert db.check() == []


def test_the_collection_is_known_by_its_number(path: str) -> None:
    with vecdb.open(path) as db:
        saved = db.searches.save("mine", db["c"], [0, 0, 1], 3)
        found = saved.run().ids
        db.rename_collection("c", "d")
        db.create_collection("c", dim=3)
        assert db.searches["mine"].collection.name == "d" and saved.run().ids == found
        db.drop_collection("d")
        for call in (saved.run, saved.explain, lambda: saved.collection, lambda: saved.watch("me")):
            with pytest.raises(NotFound, match=r"the collection of saved search 'mine' was dropped"):
                call()
        assert "dropped" in repr(saved) and db.check() == []
        db.searches.delete("mine")
        assert db.searches.names() == []


def test_saving_is_part_of_the_transaction(path: str) -> None:
    with vecdb.open(path) as db, vecdb.open(path) as other:
        db.searches.save("old", db["c"], [0, 0, 1])
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.searches.save("mine", db["c"], [0, 0, 1])
            db.searches.delete("old")
            new = db.create_collection("new", dim=3)
            new.add("only", [1, 0, 0])
            assert db.searches.save("of new", new, [1, 0, 0]).run().ids == ["only"]
            assert db.searches.names() == ["mine", "of new"] and "old" not in db.searches
            assert other._commit_number() == db._commit_number()
            1 / 0  # noqa: B018
        assert db.searches.names() == ["old"] == other.searches.names()
        with db.transaction():
            db.searches.save("mine", db["c"], [0, 0, 1])
        assert other.searches.names() == ["mine", "old"]


def test_another_process_reads_it(path: str) -> None:
    with vecdb.open(path) as db:
        db.searches.save("mine", db["c"], [0, 0, 1], 3, where=F.n > 5)
        code = "import sys, vecdb; print(vecdb.open(sys.argv[1], mode='r').searches['mine'].run().ids)"
        assert child.end(child.start(code, path)).decode().strip() == str(db.searches["mine"].run().ids)


def test_it_goes_with_backup_compact_and_optimize(path: str, tmp_path: Path) -> None:
    with vecdb.open(path) as db:
        saved = db.searches.save("mine", db["c"], [0, 0, 1], where=F.n > 5)
        saved.watch("me")
        db["c"].add(77, metadata={"n": 77})
        db.backup(tmp_path / "copy.vecdb")
        db.compact()
        db.optimize(rebuild=True)
        with vecdb.open(tmp_path / "copy.vecdb") as copy:
            for each in (db, copy):
                again = each.searches["mine"]
                assert again.run().ids == saved.run().ids and each.check() == []
                assert [b.ids for b in again.watch("me", block=False)] == [[77]]


# --- what cannot be ------------------------------------------------------------------------------


def plant(db: vecdb.Database, name: str, change: Any) -> None:
    """Change the JSON of a saved search."""
    with db._batch() as batch:
        key = keys.search(name)
        found = json.loads(bytes(batch.txn.get(key))[12:])
        text = change(found)
        records.put(batch.txn, key, (json.dumps(found) if text is None else text).encode())
        batch.changed = True


def also(found: dict[str, Any], *path: str, **more: Any) -> None:
    for step in path:
        found = found[step]
    found.update(more)


PLANTED: list[tuple[Any, str, bool]] = [  # a change, what the error names, whether it is damage
    (lambda f: also(f, version=2), "version 2; this vecdb reads version 1", False),
    (lambda f: also(f, version=True), "version True", False),
    (lambda f: also(f, shine=3), "unknown field 'shine'", False),
    (lambda f: also(f, "query", shine=3), "unknown field 'shine' in Near", False),
    (lambda f: also(f, "query", type="Nearer"), "unknown type 'Nearer'", False),
    (lambda f: also(f, "options", shine=3), "unknown option 'shine'", False),
    (lambda f: also(f, where={"$shine": []}), r"\$shine", False),
    (lambda f: also(f, where=[1]), "filter is a list", False),
    (lambda f: also(f, query=None), "a NoneType where a query belongs", False),
    (lambda f: f.pop("k") and None, "it has no 'k'", True),
    (lambda f: also(f, k="ten"), "a number in it is none", True),
    (lambda f: also(f, options=[]), "options are no JSON object", True),
    (lambda f: "[1, 2", "no JSON", True),
    (lambda f: "[" * 100_000, "no JSON", True),
    (lambda f: "[]", "no JSON object", True),
]


@pytest.mark.parametrize("change, words, damage", PLANTED, ids=[words for _, words, _ in PLANTED])
def test_what_is_not_known_is_an_error_that_names_it(path: str, change: Any, words: str, damage: bool) -> None:
    with vecdb.open(path) as db:
        db.searches.save("mine", db["c"], [0, 0, 1])
        plant(db, "mine", change)
        with pytest.raises(vecdb.errors.Corrupt if damage else InvalidArgument, match=words) as caught:
            db.searches["mine"]
        assert "mine" in str(caught.value) or damage
        assert [each.code for each in db.check()] == (["D1"] if damage else [])
        db.searches.save("mine", db["c"], [0, 0, 1], replace=True)  # as if it were not there
        assert db.searches["mine"].k == 10
        db.searches.delete("mine")


MISUSES: list[tuple[Any, str]] = [
    (lambda db, c: db.searches.save("", c, [1, 0, 0]), "name=''"),
    (lambda db, c: db.searches.save(3, c, [1, 0, 0]), "name=3"),
    (lambda db, c: db.searches.save("x" * 256, c, [1, 0, 0]), "256 UTF-8 bytes; the limit is 255"),
    (lambda db, c: db.searches.save("\ud800", c, [1, 0, 0]), "not valid Unicode"),
    (lambda db, c: db.searches.save("x", "c", [1, 0, 0]), "collection: give a collection"),
    (lambda db, c: db.searches.save("x", vecdb.open().create_collection("c", dim=3), [1, 0, 0]), "of this database"),
    (lambda db, c: db.searches.save("x", c, [1, 0]), "3"),
    (lambda db, c: db.searches.save("x", c, "a text"), "no encoder"),
    (lambda db, c: db.searches.save("x", c, None), "Near: x"),
    (lambda db, c: db.searches.save("x", c, [1, 0, 0], k=0), "k=0"),
    (lambda db, c: db.searches.save("x", c, [1, 0, 0], where="n >"), "n >|offset|expected"),
    (lambda db, c: db.searches.save("x", c, [1, 0, 0], shine=1), "unknown option 'shine'"),
    (lambda db, c: db.searches.save("x", c, [1, 0, 0], radius=float("nan")), "radius"),
    (lambda db, c: db.searches.save("x", c, [1, 0, 0], ef=len), "cannot be written down"),
    (lambda db, c: db.searches.save("x", c, [1, 0, 0], replace=1), "replace=1"),
    (lambda db, c: db.searches["right"].watch(""), "watcher=''"),
    (lambda db, c: db.searches["right"].watch("w", start="soon"), "start='soon'.*now, beginning"),
    (lambda db, c: db.searches["right"].watch("w", min_score="a"), "min_score='a'"),
    (lambda db, c: db.searches["right"].watch("w", min_score=float("nan")), "min_score=nan"),
    (lambda db, c: db.searches["right"].watch("w", block=1), "block=1"),
    (lambda db, c: db.searches["right"].watch("w", timeout=-1), "timeout=-1"),
]


@pytest.mark.parametrize("call, words", MISUSES, ids=[words for _, words in MISUSES])
def test_misuse_is_an_error_that_says_what_is_wrong_and_changes_nothing(path: str, call: Any, words: str) -> None:
    with vecdb.open(path) as db:
        db.searches.save("right", db["c"], [0, 0, 1])
        before = db._commit_number()
        with pytest.raises((InvalidArgument, vecdb.errors.FilterError), match=words):
            call(db, db["c"])
        assert db._commit_number() == before and db.searches.names() == ["right"]


def test_a_read_only_handle_reads(path: str) -> None:
    with vecdb.open(path) as db:
        db.searches.save("mine", db["c"], [0, 0, 1])
    with vecdb.open(path, mode="r") as db:
        assert len(db.searches["mine"].run()) == 10
        for call in (
            lambda: db.searches.save("x", db["c"], [0, 0, 1]), lambda: db.searches.delete("mine"),
            lambda: db.searches["mine"].watch("me"),
        ):  # fmt: skip
            with pytest.raises(ReadOnly):
                call()


def test_a_closed_database_says_so() -> None:
    db = vecdb.open()
    db.close()
    with pytest.raises(vecdb.errors.Closed):
        _ = db.searches


def test_options_are_kept_as_search_takes_them() -> None:
    db = vecdb.open()
    c = db.create_collection("c", dim=2)
    c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"n": 1}, {"n": 5}])
    given = {"boost": Field("n", 1.0), "recall": np.float32(0.5), "offset": np.int64(0), "ef": np.int32(20)}
    saved = db.searches.save("s", c, [1, 0], k=np.int64(2), **given)
    assert saved.run().ids == c.search([1, 0], 2, **given).ids == ["b", "a"]
    assert db.searches["s"] == saved and saved.options["boost"] == [Field("n", 1.0)]
