"""Sparse vectors: stored, read back, followed, searched by the dot product, all against plain dicts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
import vecdb.tables
from vecdb import F
from vecdb.errors import InvalidArgument
from vecdb.index import textfolding
from vecdb.query import Fuse, Late, Near, Sparse
from vecdb.storage import sparse

TOKENS: list[Any] = [*(f"w{i}" for i in range(12)), "é", "的", *range(-3, 9), 1 << 62]


def a_vector(rng: np.random.Generator, most: int = 6) -> dict[Any, float]:
    count = int(rng.integers(0, most + 1))
    chosen = rng.choice(len(TOKENS), count, replace=False)
    return {TOKENS[i]: float(np.float32(rng.integers(-8, 9) / 4 or 0.5)) for i in chosen}


def best(rows: dict[Any, dict[Any, float] | None], query: dict[Any, float]) -> dict[Any, float]:
    """Scores of the rows that have a vector."""
    return {
        id: sum(query[t] * w for t, w in row.items() if t in query)
        for id, row in rows.items()
        if row is not None
    }


def check_hits(hits: Any, wanted: dict[Any, float], k: int | None) -> None:
    size = len(wanted) if k is None else min(k, len(wanted))
    assert len(hits) == len(set(hits.ids)) == size, "never short"
    assert np.allclose(hits.scores, [wanted[id] for id in hits.ids], atol=1e-5)
    assert np.allclose(hits.scores, sorted(wanted.values(), reverse=True)[:size], atol=1e-5)
    assert np.allclose(hits.distances, -hits.scores)


def made(db: vecdb.Database, **more: Any) -> Any:
    return db.create_collection("c", vectors={"s": vecdb.SparseVector(), **more})


# --- a model ------------------------------------------------------------------------------------


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments are folded and merged all the time."""
    for name, value in {"FOLD_ROWS": 6, "LEAST": 256, "FAN": 3, "WORTH": 0, "SLICE": 1}.items():
        monkeypatch.setattr(textfolding, name, value)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_does_what_a_dict_does(tmp_path: Path, seed: int, dense: bool) -> None:
    rng = np.random.default_rng(seed)
    db = vecdb.open(tmp_path / "s.vecdb", durability="none")
    c = made(db, **({"d": vecdb.Vector(2)} if dense else {}))
    model: dict[int, dict[Any, float] | None] = {}
    groups: dict[int, int] = {}

    def vectors(chosen: list[Any]) -> Any:
        given: dict[str, Any] = {"s": chosen}
        if dense:
            given["d"] = [None if rng.random() < 0.3 else rng.standard_normal(2) for _ in chosen]
        return given

    def look(c: Any, model: dict[int, Any], groups: dict[int, int]) -> None:
        query = a_vector(rng) or {"w1": 1.0}
        k = int(rng.integers(1, 12))
        check_hits(c.search(Sparse(query, using="s"), k=k), best(model, query), k)
        check_hits(c.search(Sparse(query, using="s"), k=k, exact=True), best(model, query), k)
        some = {id: row for id, row in model.items() if groups[id] == 1}
        check_hits(c.search(Sparse(query, using="s"), k=k, where=F.g == 1), best(some, query), k)

    for step in range(60):
        chosen = sorted(set(rng.integers(0, 60, int(rng.integers(1, 8))).tolist()))
        rows = [None if rng.random() < 0.2 else a_vector(rng) for _ in chosen]
        verb = rng.integers(0, 6)
        old = None if rng.random() < 0.7 else (db.snapshot(), dict(model), dict(groups))
        if verb <= 2:
            group = [int(rng.integers(0, 3)) for _ in chosen]
            c.upsert(chosen, vectors(rows), metadata=[{"g": g} for g in group])
            model.update(zip(chosen, rows, strict=True))
            groups.update(zip(chosen, group, strict=True))
        elif verb == 3:
            there = [id for id in chosen if id in model]
            c.update(there, vectors={"s": [a_vector(rng) for _ in there]})
            model.update({id: c[id].vectors["s"] for id in there})
        elif verb == 4:
            c.delete(chosen)
            for id in chosen:
                model.pop(id, None)
        else:
            with pytest.raises(ZeroDivisionError), db.transaction():
                c.delete(chosen)
                _ = c.search(Sparse({"w1": 1}, using="s"))
                c.upsert(1000, {"s": {"w1": 5.0}})
                assert 1000 in c.search(Sparse({"w1": 1000}, using="s"), k=100).ids
                raise ZeroDivisionError
        look(c, model, groups)
        if old is not None:
            with old[0] as snap:
                look(snap["c"], old[1], old[2])
        if step % 20 == 19:
            assert db.check() == []
            c.optimize()
            look(c, model, groups)
    got = {record.id: record.vectors.get("s") for record in c.scan(with_vectors=True)}
    assert got == model
    db.close()
    with vecdb.open(tmp_path / "s.vecdb") as db:
        look(db["c"], model, groups)
        assert db.check() == []


@pytest.mark.usefixtures("eager")
def test_a_thousand_random_cases_equal_a_plain_reference() -> None:
    rng = np.random.default_rng(7)
    c = made(vecdb.open())
    rows = {i: a_vector(rng) if rng.random() < 0.9 else None for i in range(150)}
    c.add(list(rows), {"s": list(rows.values())}, metadata=[{"g": i % 4} for i in rows])
    gone = rng.choice(150, 45, replace=False).tolist()
    c.delete(gone)
    rows = {id: row for id, row in rows.items() if id not in gone}
    for case in range(1000):
        query = a_vector(rng) or {"w1": 1.0}
        k = int(rng.integers(1, 20))
        if case % 2:
            some = {id: row for id, row in rows.items() if id % 4 == case % 4}
            check_hits(c.search(Sparse(query), k, where=F.g == case % 4), best(some, query), k)
        else:
            check_hits(c.search(Sparse(query), k, exact=bool(case % 4)), best(rows, query), k)


def test_another_process_and_another_handle_see_it(tmp_path: Path) -> None:
    path = tmp_path / "s.vecdb"
    with vecdb.open(path) as db:
        c = made(db)
        c.add([1, 2], [{"a": 1.0, 5: 2.0}, {"a": 3.0}])
        code = (
            "import sys, vecdb\nfrom vecdb.query import Sparse\n"
            "c = vecdb.open(sys.argv[1])['c']\n"
            "assert c.search(Sparse({'a': 1})).ids == [2, 1]\n"
            "c.upsert(1, {'s': {'a': 9.0}}); c.upsert(3, {'s': {}})\n"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        assert c.search(Sparse({"a": 1})).ids == [1, 2, 3]
        with vecdb.open(path) as other:
            other["c"].delete(2)
            assert c.search(Sparse({"a": 1})).ids == [1, 3]


# --- values -------------------------------------------------------------------------------------


def test_what_is_stored_is_what_was_given_in_float32() -> None:
    c = made(vecdb.open())
    given = {"é": 0.1, "b": -2, 3: np.float64(1e-3), np.int64(-7): np.float16(0.5), "zero": 0.0, "tiny": 1e-60}
    c.add("x", {"s": given})
    wanted = {-7: 0.5, 3: float(np.float32(1e-3)), "b": -2.0, "é": float(np.float32(0.1))}
    assert c["x"].vectors["s"] == wanted and list(c["x"].vectors["s"]) == [-7, 3, "b", "é"]
    assert c.vectors("x", using="s") == [wanted] and c["x"].vector == wanted
    assert c["x"] == c["x"] and "1" not in c["x"].vectors["s"]
    c.add(vectors={"s": {"one": 1}})
    assert c.add(["y", "z"], [{}, None]) == ["y", "z"]
    assert c["y"].vectors == {"s": {}} and c["z"].vectors == {}
    assert set(c.search(Sparse({"q": 1}), k=None).ids) >= {"x", "y"}
    hit = c.search(Sparse({"b": -1}), k=1, with_vectors=True)[0]
    assert hit.id == "x" and hit.vector == wanted


def test_int_and_str_tokens_are_different() -> None:
    c = made(vecdb.open())
    c.add(["int", "str"], [{1: 1.0}, {"1": 2.0}])
    assert c.search(Sparse({1: 1})).scores.tolist() == [1, 0]
    assert c.search(Sparse({"1": 1})).scores.tolist() == [2, 0]


def test_a_field_comes_later_and_goes() -> None:
    db = vecdb.open()
    c = db.create_collection("c", dim=2)
    c.add(["a", "b"], [[1, 0], [0, 1]])
    c.add_vector("s", vecdb.SparseVector())
    assert len(c.search(Sparse({"t": 1}))) == 0
    c.update("b", vectors={"s": {"t": 2}})
    assert c.search(Sparse({"t": 1})).ids == ["b"] and db.check() == []
    assert c.search([0, 1], k=1, using="vector").ids == ["b"]
    both = c.search(Fuse(Near([1, 0], using="vector"), Sparse({"t": 1}, using="s")))
    assert set(both.ids) == {"a", "b"}
    assert c.why_not(Sparse({"t": 1}), "a").count("no sparse vector")
    c.drop_vector("s")
    assert db.check() == [] and c["b"].vectors.keys() == {"vector"}
    with pytest.raises(InvalidArgument, match="SparseVector"):
        c.search(Sparse({"t": 1}))


def test_radius_offset_groups_and_batches() -> None:
    c = made(vecdb.open())
    c.add(range(6), {"s": [{"t": i} for i in range(6)]}, metadata=[{"g": i % 2} for i in range(6)])
    assert c.search(Sparse({"t": 1}), k=2, offset=1).ids == [4, 3]
    assert c.search(Sparse({"t": 1}), k=None).ids == [5, 4, 3, 2, 1, 0]
    assert c.search(Sparse({"t": 1}), k=2, group_by="g").ids == [5, 4]
    lists = c.search([Sparse({"t": 1}), Sparse({"t": -1})], k=1)
    assert [hits.ids for hits in lists] == [[5], [0]]
    assert c.search(Sparse({"t": 1}), radius=-3).ids == [5, 4, 3]
    assert c.explain(Sparse({"t": 1})).matches == 6


# --- misuse -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([{"a": 1}, {"a": float("nan")}], "row 1: the weight of 'a' is nan"),
        ([{"a": 1}, {"a": 1e39}], "row 1: the weight of 'a' is 1e"),
        ([{"a": 1}, {"a": 10**400}], "row 1: the weight of 'a'"),
        ([{"a": 1}, {"a": "1"}], "row 1: the weight of 'a' is a str"),
        ([{"a": True}, {}], "row 0: the weight of 'a' is a bool"),
        ([{True: 1}, {}], "row 0: token True is a bool"),
        ([{1.5: 1}, {}], "row 0: token 1.5 is a float"),
        ([{1 << 63: 1}, {}], "does not fit 64 bits"),
        ([{"": 1}, {}], "row 0: token '' has 0 UTF-8 bytes"),
        ([{"x" * 255: 1}, {}], "has 255 UTF-8 bytes; give 1 to 254"),
        ([{"\ud800": 1}, {}], "not valid Unicode"),
        ([{}, [1, 2]], "row 1: a list; give a dict"),
        ([{}], "has 1 rows for 2 ids"),
        ({"a": 1}, "is a dict; give a list"),
        (np.ones((2, 3)), "row 0: a ndarray"),
        ([dict.fromkeys(range(100_001), 1), {}], "100,001 entries; the limit is 100,000"),
    ],
)
def test_bad_vectors_are_named_and_nothing_is_written(given: Any, said: str) -> None:
    c = made(vecdb.open())
    with pytest.raises(InvalidArgument) as caught:
        c.add(["x", "y"], {"s": given})
    assert said in str(caught.value) and len(c) == 0


def test_queries_that_do_not_fit_say_what_does() -> None:
    db = vecdb.open()
    c = made(db, t=vecdb.SparseVector(), d=vecdb.Vector(2))
    for query, said in [
        (Sparse({"a": 1}), "several fields of sparse vectors: give using=, one of 's', 't'"),
        (Sparse({"a": 1}, using="d"), "no field of sparse vectors"),
        (Sparse({"a": 1}, using="x"), "no such vector field"),
        (Sparse({"a": 1e300}, using="s"), "finite in float32"),
        (Near([1, 0], using="s"), "vecdb.query.Sparse"),
        (Late([[1, 0]]), "no vector field with multi=True"),
    ]:
        with pytest.raises(InvalidArgument) as caught:
            c.search(query)
        assert said in str(caught.value)


# --- bytes --------------------------------------------------------------------------------------


def test_every_spoilt_record_is_refused_or_sound() -> None:
    good = sparse.encode([(5, 1.0), (-1, 2.0)], [(b"b", 3.0), (b"a", 4.0)]).tobytes()
    assert sparse.decode(good) == {-1: 2.0, 5: 1.0, "a": 4.0, "b": 3.0}
    for at in range(len(good)):
        for value in (0, 1, 127, 128, 255):
            spoilt = good[:at] + bytes((value,)) + good[at + 1 :]
            try:
                sparse.verify(spoilt)
            except ValueError:
                continue
            assert len(sparse.decode(spoilt)) == 4
        with pytest.raises(ValueError):
            sparse.verify(good[:at])


def test_check_and_repair_know_the_records(tmp_path: Path) -> None:
    from vecdb.storage import keys, records

    path, saved = tmp_path / "s.vecdb", tmp_path / "r.vecdb"
    with vecdb.open(path) as db:
        c = made(db, d=vecdb.Vector(2))
        c.add([0, 1, 2], {"s": [{"t": i + 1.0} for i in range(3)], "d": [[1, 0]] * 3})
        with db._writing(c._cid) as writing:
            rid = next(iter(writing.live))
            records.put(writing.txn, keys.many_vectors(c._cid, 0, rid), b"no sparse vector at all")
            writing._change()
        assert {problem.code for problem in db.check()} == {"V5"}
        with pytest.raises(vecdb.errors.Corrupt):
            c.search(Sparse({"t": 1}))
    report = vecdb.repair(path, saved)
    assert [lost.vector_field for lost in report.lost] == ["s"]
    with vecdb.open(saved) as db:
        assert len(db["c"].search(Sparse({"t": 1}))) == 2 and len(db["c"]) == 3
        assert db.check() == []


# --- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_files_give_them_back(tmp_path: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    db = vecdb.open()
    c = made(db, t=vecdb.Vector(2, multi=True))
    rows = [{"a": 1.5, "b": -2.0}, None, {"c": 0.25}, {}]
    c.add(range(4), {"s": rows, "t": [[[1, 2]], [[1, 2], [3, 4]], None, [[5, 6]]]}, metadata=[{"n": 1}] * 4)
    file = tmp_path / f"rows.{suffix}"
    vecdb.tables.write(c, file)
    other = db.create_collection("d", vectors={"s": vecdb.SparseVector(), "t": vecdb.Vector(2, multi=True)})
    source = vecdb.tables.read(file, vectors=("s", "t"))
    assert other.add_table(source, vector={"s": "s", "t": "t"}) == 4
    assert [r.vectors.get("s") for r in other.scan(with_vectors=True)] == rows
    assert list(other.scan(with_vectors=True)) == list(c.scan(with_vectors=True))


def test_tables_of_dicts_and_lists() -> None:
    c = made(vecdb.open())
    given = [{"id": 1, "s": {"a": 1}}, {"id": 2, "s": [("b", 2)]}, {"id": 3, "s": None}, {"id": 4, "s": [["c", 3]]}]
    assert c.add_table(given, vector={"s": "s"}) == 4
    found = [r.vectors.get("s") for r in c.scan(with_vectors=True)]
    assert found == [{"a": 1.0}, {"b": 2.0}, None, {"c": 3.0}]
    for cell in (["a"], [("a", 1), ("a", 2)], 7, "a", [([], 1)]):
        with pytest.raises(InvalidArgument, match="row 0"):
            c.add_table([{"id": 9, "s": cell}], vector={"s": "s"})
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"id": [5, 6], "s": [[{"token": "x", "weight": 1.0}], None]})
    assert c.add_table(table, vector={"s": "s"}) == 2 and c[5].vectors["s"] == {"x": 1.0}
    assert c.to_arrow()["s"].to_pylist()[0] == [{"token": "a", "weight": 1.0}]
    c.add(10, {"s": {1: 1.0}})
    with pytest.raises(InvalidArgument, match="token"):
        c.to_arrow()
