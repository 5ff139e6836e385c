"""What search promises: k hits that match, ranked by the stored vectors, in every form of query."""

from __future__ import annotations

import array
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.deeds import distances
from vecdb import F, _core
from vecdb.errors import InvalidArgument

N, DIM = 3000, 20
RNG = np.random.default_rng(5)
DATA = RNG.normal(size=(N, DIM))
QUERIES = RNG.normal(size=(20, DIM))


@pytest.fixture(scope="module")
def db() -> Iterator[vecdb.Database]:
    with vecdb.open() as database:
        for metric in ("l2", "cosine", "dot"):
            for dtype in ("f32", "f16"):
                c = database.create_collection(f"{metric} {dtype}", DIM, metric=metric, dtype=dtype)
                c.add(range(N), DATA, metadata=[{"i": i, "even": i % 2 == 0} for i in range(N)])
        yield database
        assert database.check() == []


@pytest.fixture
def c(db: vecdb.Database) -> vecdb.Collection:
    return db["l2 f32"]


# --- ranking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("where", [None, F.i < 700, F.i < 40, F.i == 5])
def test_exact_search_is_numpys_ranking_of_the_stored_vectors(
    db: vecdb.Database, metric: str, dtype: str, where: Any
) -> None:
    c = db[f"{metric} {dtype}"]
    stored = DATA.astype({"f32": np.float32, "f16": np.float16}[dtype])
    chosen = np.array([i for i in range(N) if where is None or where.matches({"i": i})])
    for query in QUERIES:
        truth = distances(metric, stored[chosen], query.astype(np.float32))
        order = np.argsort(truth, kind="stable")[:10]
        hits = c.search(query, 10, where=where, exact=True)
        assert hits.ids == chosen[order].tolist()
        np.testing.assert_allclose(hits.distances, truth[order], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_default_search_finds_nearly_all_and_ranks_them_exactly(
    db: vecdb.Database, metric: str
) -> None:
    c = db[f"{metric} f32"]
    for where in (None, F.even == True, F.i < 300):  # noqa: E712
        near = 0
        for query in QUERIES:
            exact, hits = c.search(query, where=where, exact=True), c.search(query, where=where)
            true = dict(zip(c.search(query, N, where=where, exact=True).ids,
                            c.search(query, N, where=where, exact=True).distances, strict=True))  # fmt: skip
            assert len(hits) == 10 and np.all(np.diff(hits.distances) >= 0)
            np.testing.assert_allclose(hits.distances, [true[i] for i in hits.ids], rtol=1e-5, atol=1e-6)
            near += len(set(exact.ids) & set(hits.ids))
        assert near >= 0.95 * 10 * len(QUERIES)


def test_scores_are_larger_for_closer_as_the_metric_says(db: vecdb.Database) -> None:
    for metric, score in (("l2", lambda d: 1 / (1 + d)), ("cosine", lambda d: 1 - d), ("dot", lambda d: -d)):
        hits = db[f"{metric} f32"].search(QUERIES[0])
        assert hits.distances.dtype == hits.scores.dtype == np.float32
        assert hits.distances.shape == hits.scores.shape == (10,)
        np.testing.assert_allclose(hits.scores, score(hits.distances), rtol=1e-6)
        assert np.all(np.diff(hits.scores) <= 0)
        assert (hits[3].distance, hits[3].score) == (hits.distances[3], hits.scores[3])


def test_recall_one_is_exact(c: vecdb.Collection) -> None:
    for query in QUERIES:
        best = c.search(query, 10, recall=1.0)
        assert best.ids == c.search(query, 10, exact=True).ids
        assert best.plan.strategy == "exact scan"


def test_wider_walks_find_more(c: vecdb.Collection) -> None:
    truth = [set(c.search(q, exact=True).ids) for q in QUERIES]

    def found(**how: Any) -> int:
        return sum(len(t & set(c.search(q, **how).ids)) for t, q in zip(truth, QUERIES, strict=True))

    assert found(ef=10) <= found(ef=40) + 2 <= found(ef=400) + 4
    assert found(ef=400) >= 199 and found(recall=0.999) >= 198
    assert found(ef=1) > 0, "ef below k still gives k hits"
    assert all(len(c.search(q, 10, ef=1)) == 10 for q in QUERIES)


def test_ties_are_broken_alike_each_time() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2, metric="l2")
        c.add(range(500), np.ones((500, 2)))
        once = c.search([1, 1], 20, exact=True).ids
        assert once == c.search([1, 1], 20, exact=True).ids == [*range(20)]
        assert len(set(c.search([1, 1], 50).ids)) == 50


# --- how many ------------------------------------------------------------------------------------


def test_there_are_min_of_k_and_matches_hits_never_fewer(c: vecdb.Collection) -> None:
    for k in (1, 10, 299, 300, 301, 2999, 3000, 3001, 100_000):
        for matches in (0, 1, 2, 300, 3000):
            for how in ({}, {"exact": True}, {"ef": 8}):
                hits = c.search(QUERIES[0], k, where=F.i < matches, **how)
                assert len(hits) == min(k, matches) == len(set(hits.ids))
                assert all(i < matches for i in hits.ids)
        assert len(c.search(QUERIES[0], k)) == min(k, N)


def test_an_empty_collection_answers_with_nothing() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        for how in ({}, {"exact": True}, {"where": F.x == 1}, {"ef": 50}):
            hits = c.search([1, 0], **how)
            assert len(hits) == 0 and hits.ids == [] and list(hits) == []
            assert hits.distances.shape == (0,) and hits.scores.shape == (0,)
            assert "0" in repr(hits) and not hits
        assert [len(h) for h in c.search([[1, 0], [0, 1]])] == [0, 0]
        c.add("no vector", metadata={"x": 1})
        assert len(c.search([1, 0])) == 0 and len(c.search([1, 0], where=F.x == 1)) == 0


def test_rows_without_vectors_are_found_by_filters_only() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        for i in range(400):
            c.add(i, [1, i] if i % 2 else None, metadata={"i": i})
        assert c.count(F.i < 100) == 100
        assert sorted(c.search([1, 1], 400, where=F.i < 100).ids) == [*range(1, 100, 2)]
        assert sorted(c.search([1, 1], 400).ids) == [*range(1, 400, 2)]


# --- forms of the query ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"exact": True}, {"ef": 30}, {"where": F.i < 900}, {"where": F.i < 9}])
def test_a_batch_answers_like_its_single_queries(c: vecdb.Collection, how: dict[str, Any]) -> None:
    together = c.search(QUERIES, 7, **how)
    assert isinstance(together, list) and len(together) == len(QUERIES)
    for query, hits in zip(QUERIES, together, strict=True):
        alone = c.search(query, 7, **how)
        assert hits.ids == alone.ids and hits.distances.tolist() == alone.distances.tolist()
        assert [h.metadata for h in hits] == [h.metadata for h in alone]


def test_queries_may_be_lists_ints_or_any_float(c: vecdb.Collection) -> None:
    query = np.round(QUERIES[0] * 8)
    expected = c.search(query.astype(np.float32)).ids
    for form in (query, query.tolist(), query.astype(int), query.astype(np.float16),
                 query.astype(">f8"), tuple(query), np.repeat(query, 2)[::2]):  # fmt: skip
        assert c.search(form).ids == expected
    assert [h.ids for h in c.search([query.tolist()])] == [expected]
    assert c.search(np.empty((0, DIM))) == []
    frozen = query.astype(np.float32)
    frozen.setflags(write=False)
    assert c.search(frozen).ids == expected


def test_a_query_is_not_changed(db: vecdb.Database) -> None:
    query = QUERIES[0].astype(np.float32)
    before = query.copy()
    db["cosine f32"].search(query)
    assert np.array_equal(query, before)


# --- hits and plans -------------------------------------------------------------------------------


def test_hits_are_a_sequence_decoded_when_touched(c: vecdb.Collection) -> None:
    hits = c.search(QUERIES[0], 5)
    assert [h.id for h in hits] == hits.ids == [hits[i].id for i in range(5)]
    assert hits[-1].id == hits.ids[-1] and [h.id for h in hits[1:3]] == hits.ids[1:3]
    assert hits[0].metadata == {"i": hits.ids[0], "even": hits.ids[0] % 2 == 0}
    assert hits[0].vector is None and hits[0].text is None
    with pytest.raises(IndexError):
        hits[5]
    kept = [(h.id, h.metadata) for h in hits]
    assert kept[0][0] == hits.ids[0]


def test_hits_stay_what_they_were_when_rows_change_later() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add("a", [1, 0], metadata={"x": 1}, texts="old")
        hits = c.search([1, 0])
        c.upsert("a", [0, 1], metadata={"x": 2})
        db.drop_collection("c")
        assert (hits[0].metadata, hits[0].text) == ({"x": 1}, "old")


def test_kept_hits_hold_no_place_in_the_reader_table(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "d.vecdb") as db:
        c = db.create_collection("c", dim=2)
        c.add(["a", "b"], [[1, 0], [0, 1]])
        kept = [c.search([1, 0.5]) for _ in range(1200)]  # a list is never made ready
        kept += [c.search([1, 0.5], with_vectors=True) for _ in range(1200)]
        assert {tuple(hits.ids) for hits in kept} == {("a", "b")}
        assert db.stats()["readers"] == 0


def test_kept_hits_keep_neither_graph_nor_matches() -> None:
    import gc

    from pyroaring import BitMap

    with vecdb.open() as db:
        c = db.create_collection("c", dim=DIM, metric="l2")
        c.add(range(N), DATA, metadata=[{"i": i} for i in range(N)])
        hits = [c.search(QUERIES[0].tolist(), where=F.i < 2000), c.search(QUERIES[0])]
        hits += [c.search(QUERIES[0].astype(np.float32)) for _ in range(2)]
        seen, pending = set(), list(hits)
        while pending:
            one = pending.pop()
            if id(one) in seen or isinstance(one, type | type(gc) | FunctionType):
                continue
            seen.add(id(one))
            assert not isinstance(one, _core.Graph | BitMap) and not hasattr(one, "abort")
            assert not isinstance(one, np.ndarray) or one.size <= DIM
            pending += gc.get_referents(one)


def test_hits_can_be_pickled(c: vecdb.Collection) -> None:
    for how in ({}, {"where": F.even == True, "with_vectors": True}):  # noqa: E712
        for query in (QUERIES[3], QUERIES[3].astype(np.float32), QUERIES[3].astype(np.float32)):
            hits = c.search(query, 5, **how)  # type: ignore[arg-type]
            again = pickle.loads(pickle.dumps(hits))
            assert again.ids == hits.ids and again.plan == hits.plan
            assert [h.metadata for h in again] == [h.metadata for h in hits]
            assert np.array_equal(again.distances, hits.distances)


@pytest.mark.parametrize("exact", [[], [0], {}, 1, None])
def test_any_truth_value_serves_as_exact(c: vecdb.Collection, exact: Any) -> None:
    assert c.search(QUERIES[0], exact=exact).ids == c.search(QUERIES[0], exact=bool(exact)).ids


def test_a_query_answers_alike_in_every_form_the_first_time_and_later(c: vecdb.Collection) -> None:
    one = QUERIES[4].astype(np.float32)
    spread = np.zeros((DIM, 2), np.float32)
    spread[:, 0] = one
    forms: list[Any] = [
        one, one.astype(float), one.tolist(), tuple(one.tolist()), one.astype(">f4"), spread[:, 0],
        memoryview(one), array.array("f", one.tolist()), one.astype(np.longdouble),
    ]  # fmt: skip
    one.flags.writeable = False
    for how in ({}, {"where": F.i < 50}, {"where": F.i < 2500}, {"exact": True}, {"ef": 40}):
        wanted = c.search(one, 7, **how)  # type: ignore[arg-type]
        for _ in range(3):
            for query in forms:
                hits = c.search(query, 7, **how)
                assert hits.ids == wanted.ids
                assert hits.distances.tolist() == wanted.distances.tolist()


def test_a_query_that_is_too_long_is_refused_without_a_warning(c: vecdb.Collection) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="overflows"):
                c.search(np.full(DIM, 1e30, np.float32))


def test_with_vectors_brings_the_stored_ones(c: vecdb.Collection) -> None:
    for how in ({}, {"exact": True}, {"where": F.i < 5}):
        for hit in c.search(QUERIES[1], 10, with_vectors=True, **how):
            assert np.array_equal(hit.vector, DATA[hit.id].astype(np.float32))  # type: ignore[index,arg-type]
    for hits in c.search(QUERIES[:2], 3, with_vectors=True):
        assert [h.vector.shape for h in hits] == [(DIM,)] * 3
        assert [h.vector.dtype for h in hits] == [np.float32] * 3


def test_a_hits_repr_reads_well() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2, metric="l2")
        c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {}], texts=[None or "a text", "x " * 99])
        shown = repr(c.search([1, 0]))
        lines = shown.splitlines()
        assert lines[0].startswith("Hits(2") and "exact scan" in lines[0]
        assert "'a'" in lines[1] and "a text" in lines[1] and "1.0000" in lines[1]
        assert "'b'" in lines[2] and max(map(len, lines)) < 100
        assert repr(c.search([1, 0])[0]) == "Hit(id='a', score=1.0000, distance=0.0000)"


def test_the_plan_tells_what_ran(c: vecdb.Collection) -> None:
    plan = c.search(QUERIES[0], 5, where=F.i < 700).plan
    assert (plan.k, plan.matches, plan.rows, plan.collection) == (5, 700, N, "l2 f32")
    assert plan.total_us >= plan.search_us > 0 and plan.filter == "i < 700"
    assert 0.5 < plan.recall <= 1 and plan.distances > 0
    walked = c.search(QUERIES[0], 5, ef=50).plan
    assert walked.strategy == "graph" and walked.ef == 50 and 0 < walked.distances < N


def test_explain_says_what_search_does(c: vecdb.Collection) -> None:
    for where in (None, F.i < 1500, F.i < 700, F.i < 20, F.i == -1):
        for how in ({}, {"exact": True}, {"ef": 100}, {"recall": 0.5}):
            plan = c.explain(QUERIES[0], 10, where=where, **how)
            ran = c.search(QUERIES[0], 10, where=where, **how).plan
            assert (plan.strategy, plan.matches, plan.ef) == (ran.strategy, ran.matches, ran.ef)
            assert plan.matches == c.count(where)
    text = str(c.explain(QUERIES[0], 10, where=F.i < 1500))
    for part in ("'l2 f32'", "best 10", "i < 1500", "1,500 of 3,000 rows", "rejected", "us"):
        assert part in text, f"{part!r} is not in:\n{text}"
    assert "nothing" in str(c.explain(QUERIES[0], where=F.i == -1))
    assert c.explain(k=3).k == 3, "the query itself may be left out"
