"""Rows of many vectors searched by MaxSim: the scores of a plain numpy reference, and the best of them found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb._core import _late
from vecdb.errors import InvalidArgument
from vecdb.query import Fuse, Late, Near
from vecdb.ranking import late as ranking

KINDS = [("cosine", "f32"), ("l2", "f32"), ("l2", "f16"), ("dot", "f32"), ("dot", "i8"), ("hamming", "b1")]
D = 12


def some(rng: np.random.Generator, m: int, dtype: str, d: int = D) -> Any:
    if dtype == "b1":
        return rng.integers(0, 2, (m, d)).astype(np.uint8)
    if dtype == "i8":
        return rng.integers(-90, 91, (m, d)).astype(np.int8)
    return rng.standard_normal((m, d)).astype(np.float16 if dtype == "f16" else np.float32)


def best(rows: dict[Any, Any], query: Any, metric: str) -> dict[Any, float]:
    """MaxSim of the rows that have vectors, in plain numpy."""
    q = np.asarray(query, np.float64)
    found = {}
    for id, row in rows.items():
        if row is None or not len(row):
            continue
        v = np.asarray(row, np.float64)
        if metric == "cosine":
            unit = v / np.linalg.norm(v, axis=1, keepdims=True)
            alike = unit @ (q / np.linalg.norm(q, axis=1, keepdims=True)).T
        elif metric == "dot":
            alike = v @ q.T
        elif metric == "l2":
            alike = -np.linalg.norm(v[:, None] - q[None], axis=2)
        else:
            alike = 1 - (v[:, None] != q[None]).sum(axis=2) / q.shape[1]
        found[id] = float(alike.max(axis=0).sum())
    return found


def distance_of(score: Any, metric: str, m: int, d: int = D) -> Any:
    return {"cosine": m - score, "hamming": (m - score) * d}.get(metric, -score)


def check_hits(hits: Any, wanted: dict[Any, float], k: int | None, query: Any, metric: str) -> None:
    size = len(wanted) if k is None else min(k, len(wanted))
    assert len(hits) == len(set(hits.ids)) == size, "never short"
    scores = np.array([wanted[id] for id in hits.ids])
    assert np.allclose(hits.scores, scores, rtol=1e-5, atol=1e-4)
    assert np.allclose(hits.distances, distance_of(scores, metric, len(query)), rtol=1e-5, atol=2e-4)
    assert np.allclose(hits.scores, sorted(wanted.values(), reverse=True)[:size], rtol=1e-5, atol=1e-4)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are used for few rows as for many."""
    monkeypatch.setattr(ranking, "LEAST_DEPTH", 8)
    monkeypatch.setattr(ranking, "FIRST_DEPTH", 1)
    monkeypatch.setattr(ranking, "FEW", 4)
    monkeypatch.setattr(ranking, "SURE_DEPTH", 1000)


def made(db: vecdb.Database, metric: str, dtype: str, d: int = D) -> Any:
    fields = {"t": vecdb.Vector(d, metric=metric, dtype=dtype, multi=True), "v": vecdb.Vector(2)}
    return db.create_collection("c", vectors=fields)


# --- a model ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(("metric", "dtype"), KINDS)
def test_it_does_what_a_list_of_arrays_does(tmp_path: Path, metric: str, dtype: str) -> None:
    rng = np.random.default_rng(5)
    db = vecdb.open(tmp_path / "t.vecdb", durability="none")
    c = made(db, metric, dtype)
    model: dict[int, Any] = {}
    groups: dict[int, int] = {}

    def row() -> Any:
        return None if rng.random() < 0.15 else some(rng, int(rng.integers(0, 5)), dtype)

    def look(c: Any, model: dict[int, Any], groups: dict[int, int]) -> None:
        query = some(rng, int(rng.integers(1, 20)), dtype)
        k = int(rng.integers(1, 12))
        check_hits(c.search(Late(query), k), best(model, query, metric), k, query, metric)
        check_hits(c.search(Late(query), k, exact=True), best(model, query, metric), k, query, metric)
        part = {id: row for id, row in model.items() if groups[id] == 1}
        check_hits(c.search(Late(query), k, where=F.g == 1), best(part, query, metric), k, query, metric)

    for step in range(80):
        chosen = sorted(set(rng.integers(0, 80, int(rng.integers(1, 12))).tolist()))
        rows = [row() for _ in chosen]
        verb = rng.integers(0, 7)
        old = None if rng.random() < 0.7 else (db.snapshot(), dict(model), dict(groups))
        if verb <= 2:
            group = [int(rng.integers(0, 3)) for _ in chosen]
            dense = [None if rng.random() < 0.5 else rng.standard_normal(2) for _ in chosen]
            c.upsert(chosen, {"t": rows, "v": dense}, metadata=[{"g": g} for g in group])
            model.update(zip(chosen, rows, strict=True))
            groups.update(zip(chosen, group, strict=True))
        elif verb == 3:
            there = [id for id in chosen if id in model]
            vectors = [some(rng, 3, dtype) for _ in there]
            c.update(there, vectors={"t": vectors})
            model.update(zip(there, vectors, strict=True))
        elif verb == 4:
            c.delete(chosen)
            for id in chosen:
                model.pop(id, None)
        elif verb == 5:
            there = [id for id in chosen if id in model]
            c.update(there, metadata={"n": step})
        else:
            with pytest.raises(ZeroDivisionError), db.transaction():
                c.delete(chosen)
                c.upsert([1000, 1001], {"t": [some(rng, 2, dtype), None]}, metadata=[{"g": 1}] * 2)
                inside = {id: row for id, row in model.items() if id not in chosen}
                inside[1000] = c[1000].vectors["t"]
                look(c, inside, {**groups, 1000: 1, 1001: 1})
                raise ZeroDivisionError
        if rng.random() < 0.7:
            look(c, model, groups)
        if old is not None:
            with old[0] as snap:
                look(snap["c"], old[1], old[2])
    assert db.check() == []
    look(c, model, groups)
    db.close()
    with vecdb.open(tmp_path / "t.vecdb") as db:
        look(db["c"], model, groups)
        look(db["c"], model, groups)


@pytest.mark.usefixtures("eager")
def test_a_thousand_random_cases_equal_a_plain_reference() -> None:
    rng = np.random.default_rng(11)
    for metric, dtype in KINDS:
        c = made(vecdb.open(), metric, dtype)
        rows = {i: some(rng, int(rng.integers(0, 6)), dtype) for i in range(120)}
        c.add(list(rows), {"t": list(rows.values())}, metadata=[{"g": i % 4} for i in rows])
        gone = rng.choice(120, 36, replace=False).tolist()
        c.delete(gone)
        rows = {id: row for id, row in rows.items() if id not in gone}
        for case in range(170):
            query = some(rng, int(rng.integers(1, 9)), dtype)
            k = int(rng.integers(1, 20))
            if case % 2:
                part = {id: row for id, row in rows.items() if id % 4 == case % 4}
                hits = c.search(Late(query, using="t"), k, where=F.g == case % 4)
                check_hits(hits, best(part, query, metric), k, query, metric)
            else:
                hits = c.search(Late(query, using="t"), k, exact=bool(case % 4))
                check_hits(hits, best(rows, query, metric), k, query, metric)


@pytest.mark.usefixtures("eager")
def test_slots_that_are_handed_out_again_are_other_rows() -> None:
    rng = np.random.default_rng(3)
    db = vecdb.open()
    c = made(db, "dot", "f32")
    model: dict[int, Any] = {}
    query = some(rng, 4, "f32")
    for step in range(40):
        ids = list(range(step * 20, step * 20 + 40))
        rows = [some(rng, 2, "f32") for _ in ids]
        c.upsert(ids, {"t": rows, "v": rng.standard_normal((40, 2))})
        model.update(zip(ids, rows, strict=True))
        gone = [id for id in model if id < step * 20]
        c.delete(gone)
        for id in gone:
            del model[id]
        check_hits(c.search(Late(query), 5), best(model, query, "dot"), 5, query, "dot")
    assert db.stats() and c.stats()["slots"] < 700, "slots were handed out again"


@pytest.mark.usefixtures("eager")
def test_large_transactions_leave_no_log_and_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.index import writing

    monkeypatch.setattr(writing, "DIRECT_ROWS", 10)
    rng = np.random.default_rng(4)
    c = made(vecdb.open(), "cosine", "f32")
    model: dict[int, Any] = {}
    query = some(rng, 4, "f32")
    for _ in range(12):
        ids = rng.choice(200, 30, replace=False).tolist()
        rows = [some(rng, 2, "f32") for _ in ids]
        c.upsert(ids, {"t": rows})
        model.update(zip(ids, rows, strict=True))
        check_hits(c.search(Late(query), 5), best(model, query, "cosine"), 5, query, "cosine")


def test_other_processes_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "t.vecdb"
    rng = np.random.default_rng(6)
    with vecdb.open(path) as db:
        c = made(db, "dot", "f32")
        rows = {i: some(rng, 3, "f32") for i in range(300)}
        c.add(list(rows), {"t": list(rows.values())})
        query = some(rng, 4, "f32")
        check_hits(c.search(Late(query), 5), best(rows, query, "dot"), 5, query, "dot")
        code = (
            "import sys, vecdb, numpy as np\nfrom vecdb.query import Late\n"
            "c = vecdb.open(sys.argv[1])['c']\n"
            "c.delete(list(range(0, 300, 2))); c.upsert([1, 999], {'t': [np.full((1, 12), 9.)] * 2})\n"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        rows = {id: row for id, row in rows.items() if id % 2}
        rows[1] = rows[999] = np.full((1, 12), 9.0)
        check_hits(c.search(Late(query), 5), best(rows, query, "dot"), 5, query, "dot")
        with vecdb.open(path) as other:
            check_hits(other["c"].search(Late(query), 5), best(rows, query, "dot"), 5, query, "dot")


# --- how good the first stage is ------------------------------------------------------------------


def a_collection(kind: str, rng: np.random.Generator, n: int, d: int) -> list[Any]:
    """Rows of 20 vectors: random ones, of clusters, or nearly the same."""
    if kind == "random":
        return list(rng.standard_normal((n, 20, d)).astype(np.float32))
    centres = rng.standard_normal((50, d))
    spread = 0.3 if kind == "clusters" else 0.003
    at = rng.integers(0, 50 if kind == "clusters" else 2, (n, 20))
    return list((centres[at] + spread * rng.standard_normal((n, 20, d))).astype(np.float32))


@pytest.mark.parametrize("kind", ["random", "clusters", "near copies"])
@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_recall_is_kept(metric: str, kind: str) -> None:
    rng = np.random.default_rng(8)
    c = made(vecdb.open(durability="none"), metric, "f32", 64)
    rows = a_collection(kind, rng, 1500, 64)
    c.add(range(1500), {"t": rows})
    found = []
    for _ in range(12):
        query = rows[int(rng.integers(0, 1500))][:8] + 0.1 * rng.standard_normal((8, 64))
        hits, exact = c.search(Late(query), 10), c.search(Late(query), 10, exact=True)
        assert hits.plan.strategy == "code scan" and exact.plan.strategy == "exact scan"
        found.append(len(set(hits.ids) & set(exact.ids)) / 10)
    assert np.mean(found) >= 0.95


def test_every_instruction_set_gives_the_same_scores() -> None:
    rng = np.random.default_rng(9)
    for d in (1, 3, 31, 32, 33, 100, 129):
        for metric in ("cosine", "l2", "dot"):
            x, query = some(rng, 57, "f32", d), some(rng, 19, "f32", d)
            codes, scales = np.empty((57, _late.stride(d)), np.uint8), np.empty(57, np.float32)
            squares = np.empty(57 if metric == "l2" else 0, np.float32)
            _late.encode(x, metric, codes, scales, squares)
            starts = np.array([0, 1, 8, 8, 57])
            asked = _late.Query(query, metric)
            wanted = best({0: x[:1], 1: x[1:8], 3: x[8:]}, query, metric)
            rows, out, exact = np.array([0, 1, 3]), np.empty(3), np.empty(3)
            asked.exact(x, starts, rows, exact)
            assert np.allclose(exact, [wanted[0], wanted[1], wanted[3]], rtol=1e-12)
            results = []
            for name in ("plain", "avx2", "vnni"):
                try:
                    _late.use(name)
                except ValueError:
                    continue
                asked.by_codes(codes, scales, squares, starts, rows, out)
                results.append(out.copy())
            _late.use("")
            assert all((each == results[0]).all() for each in results)
            assert np.allclose(results[0], exact, atol=0.03 * 19 * d**0.5)


def test_numbers_at_the_edges_are_scored() -> None:
    c = made(vecdb.open(), "dot", "f32", 3)
    c.add(["tiny", "huge", "zero"], {"t": [[[1e-40, 0, 0]], [[1e18, 0, 0]], [[0, 0, 0]]]})
    c.add(range(200), {"t": [[[1, i, 0]] for i in range(200)]})
    assert c.search(Late([[1, 0, 0]]), 1).ids == ["huge"]
    assert len(c.search(Late([[1e-40, 0, 0]]), 203)) == 203


# --- everything else ------------------------------------------------------------------------------


def test_shapes_parts_and_options() -> None:
    rng = np.random.default_rng(2)
    c = made(vecdb.open(), "l2", "f32", 2)
    rows = [[[float(i), 0.0]] for i in range(6)]
    c.add(range(6), {"t": rows, "v": rng.standard_normal((6, 2))}, metadata=[{"g": i % 2} for i in range(6)])
    query = Late([[0, 0], [1, 0]], using="t")
    assert c.search(query, 3).distances.tolist() == [1, 1, 3]
    assert c.search(query, None, radius=3).ids == [0, 1, 2]
    assert c.search(query, 2, offset=2).ids == [2, 3]
    assert c.search(query, 2, group_by="g").ids == [0, 1]
    assert len(c.search(Fuse(query, Near([1, 0], using="v")), 6)) == 6
    assert [hits.ids for hits in c.search([query, query], 1)] == [[0], [0]]
    hit = c.search(query, 1, with_vectors=True)[0]
    assert hit.vector.tolist() == [[0, 0]]
    c.add("none", {"v": [1, 1]})
    assert "no vectors in field 't'" in c.why_not(query, "none")
    assert c.explain(query).matches == 6


def test_memory_is_told_and_follows() -> None:
    c = made(vecdb.open(), "cosine", "f32", 32)
    rng = np.random.default_rng(1)
    assert c.stats()["memory"].get("of_rankers", 0) == 0
    c.add(range(200), {"t": [some(rng, 10, "f32", 32) for _ in range(200)]})
    c.search(Late(some(rng, 4, "f32", 32)))
    assert c.stats()["memory"]["of_rankers"] >= 200 * 10 * (32 + 4)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (np.ones((2, 3)), "matrix"),
        (np.ones((0, 2)), "m from 1"),
        ([[1.0, float("nan")]], "finite"),
        ([[0.0, 0.0]], "zero vector"),
        (np.ones((2000, 2)), "the limit is 1,024 vectors"),
        ([[1.0, 2.0], [1.0]], "matrix"),
    ],
)
def test_bad_queries_are_named(matrix: Any, said: str) -> None:
    c = made(vecdb.open(), "cosine", "f32", 2)
    c.add(["a"], {"t": [[[1, 0]]]})
    with pytest.raises(InvalidArgument) as caught:
        c.search(Late(matrix, using="t"))
    assert said in str(caught.value)
    for using, more in (("v", "no field with multi=True"), ("x", "no such vector field")):
        with pytest.raises(InvalidArgument, match=more):
            c.search(Late([[1, 0]], using=using))


def test_the_core_refuses_what_does_not_fit() -> None:
    query = _late.Query(np.ones((2, 4), np.float32), "dot")
    x, out = np.ones((3, 4), np.float32), np.empty(1)
    for starts, rows in ([[0, 4], [0]], [[0, 3], [1]], [[2, 1], [0]], [[0, 3], [-1]], [[-1, 3], [0]]):
        with pytest.raises(ValueError):
            query.exact(x, np.array(starts), np.array(rows), out)
    with pytest.raises(ValueError):
        query.exact(np.ones((3, 5), np.float32), np.array([0, 3]), np.array([0]), out)
    with pytest.raises(ValueError):
        _late.Query(np.ones((0, 4), np.float32), "dot")


def test_threads_search_while_others_write() -> None:
    """Late and Sparse hits are of one commit: every row carries the number of its write in both fields."""
    import threading

    from vecdb.query import Sparse

    db = vecdb.open(durability="none")
    fields = {"t": vecdb.Vector(2, metric="dot", multi=True), "s": vecdb.SparseVector(), "v": vecdb.Vector(2)}
    c = db.create_collection("c", vectors=fields)

    def put(step: int) -> None:
        ids = [(step * 7 + i) % 150 for i in range(20)]
        mine = {"t": [[[step + 1, 1]]] * 20, "s": [{"n": step + 1}] * 20, "v": [[1, 1]] * 20}
        c.upsert(ids, mine, metadata=[{"n": step + 1}] * 20)
        c.delete([(step * 11) % 150])

    for step in range(30):
        put(step)
    done, wrong = threading.Event(), []

    def search() -> None:
        while not done.is_set():
            try:
                for query in (Late([[1, 0]], using="t"), Sparse({"n": 1}, using="s")):
                    hits = c.search(query, 100)
                    assert [hit.metadata["n"] for hit in hits] == hits.scores.tolist()
                    assert hits.scores.tolist() == sorted(hits.scores.tolist(), reverse=True)
            except BaseException as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(30, 120):
        put(step)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    assert db.check() == []


def test_hostile_queries_are_answered_or_refused_in_no_time() -> None:
    from time import perf_counter

    from vecdb.query import Sparse

    rng = np.random.default_rng(0)
    fields = {"t": vecdb.Vector(64, multi=True), "s": vecdb.SparseVector()}
    c = vecdb.open().create_collection("c", vectors=fields)
    rows = [{f"w{j}": 1.0 for j in range(i, i + 5)} for i in range(300)]
    c.add(range(300), {"t": list(rng.standard_normal((300, 4, 64)).astype(np.float32)), "s": rows})
    for query in (
        Late(rng.standard_normal((1024, 64))), Sparse({f"w{i}": 1.0 for i in range(20_000)}),
        Sparse(dict.fromkeys(range(20_000), 1.0)), Sparse({"x" * 100_000: 1.0, 1 << 62: 2.0}),
    ):  # fmt: skip
        c.search(query)
        started = perf_counter()
        assert len(c.search(query, 10)) == 10
        assert perf_counter() - started < 5, "0.2 s on an idle machine"
