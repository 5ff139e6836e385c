"""What the options of a search promise: how many, how far, after how many; in every way of asking."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.deeds import distances
from vecdb import F, parallel
from vecdb.errors import Closed, InvalidArgument, NotFound
from vecdb.index.follow import Follower

N, DIM = 3000, 20
RNG = np.random.default_rng(11)
DATA = RNG.normal(size=(N, DIM)).astype(np.float32)
QUERIES = RNG.normal(size=(12, DIM)).astype(np.float32)
METRICS = ("l2", "cosine", "dot")
INF = float("inf")


@pytest.fixture(scope="module")
def db() -> Iterator[vecdb.Database]:
    with vecdb.open() as database:
        for metric in METRICS:
            c = database.create_collection(metric, DIM, metric=metric)
            c.add(range(N), DATA, metadata=[{"i": i, "even": i % 2 == 0} for i in range(N)])
        yield database
        assert database.check() == []


@pytest.fixture
def c(db: vecdb.Database) -> vecdb.Collection:
    return db["l2"]


# --- how many, how far, after how many --------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("where", [None, F.i < 1700, F.i < 260, F.i < 30, F.i == -1])
def test_offset_radius_and_k_are_cuts_of_numpys_ranking(
    db: vecdb.Database, metric: str, where: Any
) -> None:
    c = db[metric]
    chosen = np.array([i for i in range(N) if where is None or where.matches({"i": i})], int)
    for query in QUERIES[:4]:
        truth = distances(metric, DATA[chosen], query)
        order = np.argsort(truth, kind="stable")
        for share in (None, 0.0, 0.01, 0.4, 1.0):
            at = None if share is None else int(share * (len(order) - 1))
            radius = None
            if at is not None and len(order):
                radius = float(truth[order[at]]) + 1e-4
                if metric != "dot":
                    radius = max(0.0, radius)
            inside = order if radius is None else order[truth[order] <= radius]
            for k in (1, 10, 400, None):
                for offset in (0, 7, 300, 5000):
                    hits = c.search(query, k, where=where, radius=radius, offset=offset, exact=True)
                    page = inside[offset : None if k is None else offset + k]
                    assert len(set(hits.ids)) == len(page)
                    theirs = truth[np.searchsorted(chosen, np.array(hits.ids, int))]
                    for found in (hits.distances, theirs):  # in order, near ties aside
                        np.testing.assert_allclose(found, truth[page], rtol=2e-5, atol=2e-6)


def test_without_a_radius_there_are_as_many_as_promised(c: vecdb.Collection) -> None:
    for matches in (0, 1, 40, 300, 2000, N):
        for k in (1, 10, 299, 3000, None):
            for offset in (0, 1, 39, 40, 250, 2999, 3000, 90_000):
                for how in ({}, {"ef": 8}, {"recall": 0.5}, {"exact": True}):
                    hits = c.search(QUERIES[0], k, where=F.i < matches, offset=offset, **how)
                    left = max(0, matches - offset)
                    assert len(hits) == (left if k is None else min(k, left)) == len(set(hits.ids))
                    assert len(hits.distances) == len(hits) and np.all(np.diff(hits.distances) >= 0)


@pytest.mark.parametrize("metric", METRICS)
def test_the_default_recall_holds_for_pages_and_within_a_radius(
    db: vecdb.Database, metric: str
) -> None:
    c = db[metric]
    for how in (
        {"offset": 10}, {"offset": 90}, {"offset": 200, "k": 20},
        {"where": F.i < 2000, "offset": 50}, {"recall": 0.99, "offset": 100},
    ):  # fmt: skip
        found = wanted = 0
        for query in QUERIES:
            true, hits = c.search(query, exact=True, **how), c.search(query, **how)  # type: ignore[arg-type]
            found += len(set(true.ids) & set(hits.ids))
            wanted += len(true)
        assert found >= how.get("recall", 0.95) * wanted, how  # type: ignore[operator]
    found = wanted = 0
    for query in QUERIES:
        radius = float(c.search(query, 1, offset=30, exact=True).distances[0])
        true, hits = c.search(query, 100, radius=radius, exact=True), c.search(query, 100, radius=radius)
        assert np.all(hits.distances <= np.float32(radius)) and len(true) == 31
        found += len(set(true.ids) & set(hits.ids))
        wanted += len(true)
    assert found >= 0.95 * wanted


def test_a_distance_as_it_was_read_is_within_itself(db: vecdb.Database) -> None:
    for metric in METRICS:
        for query in QUERIES:
            distances = db[metric].search(query, 50, exact=True).distances
            for at in (0, 7, 49):
                for radius in (float(distances[at]), distances[at], np.float64(distances[at])):
                    if metric == "dot" or radius >= 0:
                        hits = db[metric].search(query, None, radius=radius)
                        assert len(hits) >= at + 1 and hits.distances[-1] == distances[at]


def test_a_radius_is_rounded_as_distances_are() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=1, metric="l2")
        c.add(["a"], [[0.1]])
        assert len(c.search([0], radius=0.1)) == 1, "float32(0.1) is above 0.1"
        assert len(c.search([0], radius=0.0999999)) == 0
        assert len(c.search([0.1], radius=0)) == len(c.search([0.1], radius=-0.0)) == 1
        for far in (INF, 1e300, 10**400, np.float32(np.inf)):
            assert len(c.search([0], radius=far)) == 1


def test_under_dot_a_radius_may_be_negative_and_else_not(db: vecdb.Database) -> None:
    hits = db["dot"].search(QUERIES[0], None, radius=-3)
    assert len(hits) and np.all(hits.distances <= -3) and np.all(hits.scores >= 3)
    assert len(hits) == int((DATA @ QUERIES[0] >= 3).sum())
    assert len(db["dot"].search(QUERIES[0], None, radius=-1e300)) == 0
    for metric in ("l2", "cosine"):
        with pytest.raises(InvalidArgument, match="radius=-3: distances under metric="):
            db[metric].search(QUERIES[0], radius=-3)


def test_every_match_is_there_once_and_decoded_when_touched(c: vecdb.Collection) -> None:
    for how in ({}, {"ef": 8}, {"recall": 0.1}, {"exact": True}):
        hits = c.search(QUERIES[0], None, **how)
        assert sorted(hits.ids) == [*range(N)] and hits.plan.recall == 1 and hits.plan.k is None
        assert hits[N - 1].metadata == {"i": hits.ids[-1], "even": hits.ids[-1] % 2 == 0}
    assert len(hits[:20]) == 20 and f"{N - 10:,} more" in repr(hits)
    vectors = [h.vector for h in c.search(QUERIES[0], None, offset=N - 3, with_vectors=True)]
    assert np.array_equal(vectors, DATA[hits.ids[-3:]])


def test_numpy_scalars_are_numbers(c: vecdb.Collection) -> None:
    wanted = c.search(QUERIES[0], 5, recall=0.75, ef=40, radius=5, offset=2)
    for real in (np.float16, np.float32, np.float64, np.longdouble):
        hits = c.search(
            QUERIES[0], np.int8(5), recall=real(0.75), ef=np.uint16(40), radius=real(5), offset=np.int64(2)
        )
        assert hits.ids == wanted.ids and hits.plan.wanted == "ef 40"
    assert c.search(QUERIES[0], recall=np.float32(0.9)).plan.wanted == "recall 0.9"
    assert c.search(QUERIES[0], recall=np.int64(1)).plan.strategy == "exact scan"
    assert c.search(QUERIES[0], radius=np.uint8(3)).plan.radius == 3


# --- in every way of asking ----------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {}, {"offset": 3}, {"radius": 4.5}, {"radius": 4.6, "offset": 2}, {"k": None, "radius": 3.5},
    {"k": None, "where": F.i < 200}, {"where": F.i < 1500, "offset": 20, "radius": 6.0},
    {"where": F.i < 300, "radius": 5.5}, {"ef": 30, "offset": 5}, {"exact": True, "offset": 1},
    {"exact": True, "where": F.even == True, "radius": 4.0}, {"where": F.i == -1}, {"offset": 9000},  # noqa: E712
]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    return bool(one.ids == other.ids and one.distances.tobytes() == other.distances.tobytes())


@pytest.mark.parametrize("how", OPTIONS, ids=str)
def test_all_ways_of_asking_agree(c: vecdb.Collection, how: dict[str, Any]) -> None:
    prepared = c.prepare(**how)
    first = [c.search(q.tolist(), **how) for q in QUERIES]
    for _ in range(2):  # the second time by what the first left ready
        assert all(map(same, first, (c.search(q, **how) for q in QUERIES)))
        assert all(map(same, first, (prepared(q) for q in QUERIES)))
        assert all(map(same, first, (prepared(q.tolist()) for q in QUERIES)))
        assert all(map(same, first, (prepared(memoryview(q)) for q in QUERIES)))
    for together in (c.search(QUERIES, **how), prepared(QUERIES), c.search(QUERIES.tolist(), **how)):
        assert all(map(same, first, together)) and len(together) == len(QUERIES)
    for hits in (first[0], prepared(QUERIES[0]), *prepared(QUERIES)):
        plan, explained = hits.plan, c.explain(QUERIES[0], **how)
        for name in ("k", "offset", "radius", "wanted", "strategy", "matches", "filter", "ef", "recall"):
            assert getattr(plan, name) == getattr(explained, name) == getattr(prepared.explain(), name)
    assert [h.metadata for h in prepared(QUERIES[0])] == [h.metadata for h in first[0]]
    with_vectors = c.prepare(with_vectors=True, **how)
    for hit in with_vectors(QUERIES[1]):
        assert np.array_equal(hit.vector, DATA[hit.id])


@pytest.mark.parametrize("how", OPTIONS, ids=str)
def test_inside_a_transaction_and_a_snapshot_too(how: dict[str, Any]) -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", DIM, metric="l2")
        half = N // 2
        c.add(range(half), DATA[:half], metadata=[{"i": i, "even": i % 2 == 0} for i in range(half)])
        prepared = c.prepare(**how)
        exactly = {**how, "exact": True}
        before = [c.search(q, **exactly) for q in QUERIES]
        assert len(prepared(QUERIES)) == len(QUERIES)
        with db.snapshot() as snapshot:
            then = snapshot["c"].prepare(**exactly)
            with db.transaction():
                c.add(range(half, N), DATA[half:], metadata=[{"i": i, "even": i % 2 == 0} for i in range(half, N)])
                c.delete([0, 1, 2])
                inside = [prepared(q) for q in QUERIES]
                assert all(map(same, inside, (c.search(q, **how) for q in QUERIES)))
                assert all(map(same, inside, prepared(QUERIES)))
                assert not {0, 1, 2} & {i for hits in inside for i in hits.ids}
                exact = [c.search(q, **exactly) for q in QUERIES]
            assert all(map(same, exact, (c.search(q, **exactly) for q in QUERIES)))
            after = [prepared(q) for q in QUERIES]
            assert all(map(same, after, (c.search(q, **how) for q in QUERIES)))
            assert all(map(same, before, (then(q) for q in QUERIES)))
            assert all(map(same, before, (snapshot["c"].search(q, **exactly) for q in QUERIES)))
        assert any(before) == (not all(map(same, before, exact))), "the control: rows have changed"
        assert db.check() == []


# --- batches -----------------------------------------------------------------------------------


def test_a_batch_of_scans_is_spread_over_threads(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    mapped = parallel.mapped

    def counted(work: Callable[[Any], Any], items: Any, threads: int) -> Any:
        started.append(threads)
        return mapped(work, items, threads)

    monkeypatch.setattr(parallel, "mapped", counted)
    monkeypatch.setattr(c._db, "_threads", 3)
    many = np.concatenate([QUERIES] * 40)
    one = [c.search(q, exact=True) for q in QUERIES]
    assert all(map(same, one * 40, c.search(many, exact=True))) and started == [3]
    c.search(QUERIES[:2], where=F.i < 5)
    assert started == [3, 1], "two scans of five rows are not worth a thread"
    for how in ({"where": F.i < 290, "k": 30}, {"where": F.i < 1500, "recall": 0.5}, {"k": None}):
        one = [c.search(q, **how) for q in QUERIES]  # type: ignore[arg-type]
        assert all(map(same, one * 40, c.search(many, **how)))


def test_an_empty_batch_is_an_empty_list(c: vecdb.Collection) -> None:
    for how in ({}, {"exact": True}, {"k": None}, {"where": F.i < 5}, {"where": F.i == -1}):
        assert c.search(np.empty((0, DIM), np.float32), **how) == []  # type: ignore[arg-type]
        assert c.prepare(**how)(np.empty((0, DIM))) == []  # type: ignore[arg-type]


def test_mapped_keeps_the_order_and_the_first_error() -> None:
    for threads in (0, 1, 2, 7, 300):
        assert parallel.mapped(lambda x: x * x, range(100), threads) == [x * x for x in range(100)]
        assert parallel.mapped(lambda x: x, [], threads) == []
        before = threading.active_count()
        with pytest.raises(ZeroDivisionError):
            parallel.mapped(lambda x: 1 // (x - 5), range(100), threads)
        assert threading.active_count() == before
    seen: set[int] = set()
    gate = threading.Barrier(3, timeout=30)

    def meet(_: int) -> None:
        seen.add(threading.get_ident())
        gate.wait()

    parallel.mapped(meet, range(3), 3)
    assert len(seen) == 3 and threading.get_ident() in seen, "three at once, the caller among them"


def test_mapped_makes_do_with_the_threads_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "Thread", Refused)
    assert parallel.mapped(lambda x: -x, range(5), 4) == [0, -1, -2, -3, -4]


# --- prepared searches ----------------------------------------------------------------------------


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The filters that were evaluated."""
    seen: list[Any] = []
    evaluate = Follower.evaluate

    def counted(self: Any, txn: Any, view: Any, where: Any) -> Any:
        seen.append(where)
        return evaluate(self, txn, view, where)

    monkeypatch.setattr(Follower, "evaluate", counted)
    return seen


def small(db: vecdb.Database) -> vecdb.Collection:
    c = db.create_collection("c", DIM, metric="l2")
    c.add(range(1000), DATA[:1000], metadata=[{"i": i} for i in range(1000)])
    return c


def test_the_rows_of_its_filter_are_kept_until_data_change(evaluations: list[Any]) -> None:
    with vecdb.open() as db:
        c, other = small(db), db.create_collection("other", dim=2)
        where = (F.i < 700) & (F.i >= 20)
        prepared = c.prepare(where=where, k=7)
        for n in range(100):  # more filters than the collection remembers
            assert prepared(QUERIES[0]).ids == prepared(QUERIES)[0].ids
            assert prepared(QUERIES[0].tolist()).plan.matches == 680
            c.count(F.i < n)
            c.search(QUERIES[0], where=F.i > n)
        assert evaluations.count(where) == 1
        other.add("a", [1, 0], metadata={"i": 100})
        for _ in range(3):
            assert prepared(QUERIES[0]).plan.matches == prepared(QUERIES)[0].plan.matches == 680
        assert evaluations.count(where) == 1, "another collection's rows do not matter"
        for change, matches in (
            (lambda: c.add("new", DATA[0], metadata={"i": 30}), 681),
            (lambda: c.delete("new"), 680),
            (lambda: c.update(50, metadata={"i": 5}), 679),
            (lambda: c.upsert(51, DATA[51], metadata={"i": 1.5}), 678),
        ):
            change()
            done = evaluations.count(where)
            for _ in range(3):
                assert prepared(QUERIES[0]).plan.matches == prepared(QUERIES)[0].plan.matches == matches
            assert evaluations.count(where) <= done + 1


def test_it_follows_another_handles_commits(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "a.vecdb") as db:
        c = small(db)
        prepared = c.prepare(where="i >= 990", k=3)
        prepared(QUERIES[0])
        with vecdb.open(tmp_path / "a.vecdb") as again:
            again["c"].add("near", QUERIES[0], metadata={"i": 990})
            assert prepared(QUERIES[0]).ids[0] == "near"
            again["c"].delete("near")
            assert "near" not in prepared(QUERIES[0]).ids
            again.rename_collection("c", "d")
            assert repr(prepared).startswith("PreparedSearch('d', k=3") and len(prepared(QUERIES[0])) == 3
            again.drop_collection("d")
        with pytest.raises(NotFound):
            prepared(QUERIES[0])
    with pytest.raises(Closed):
        prepared(QUERIES[0])


def test_it_never_changes_and_says_what_it_is(c: vecdb.Collection) -> None:
    assert repr(c.prepare()) == "PreparedSearch('l2', k=10)"
    full = c.prepare(
        None, where="i < 5 and even == true", ef=9, exact=True, radius=0.1, offset=2, using="vector",
        with_vectors=True, recall=0.5,
    )  # fmt: skip
    assert repr(full) == (
        "PreparedSearch('l2', k=None, where=(F.i < 5) & (F.even == True), using='vector', recall=0.5, "
        "ef=9, exact=True, radius=0.1, offset=2, with_vectors=True)"
    )
    for name in ("k", "_request", "anything"):
        with pytest.raises(AttributeError, match="never changes"):
            setattr(full, name, 1)
    with pytest.raises(AttributeError):
        del full._request
    with pytest.raises(dataclasses.FrozenInstanceError):
        full._request.k = 5  # type: ignore[misc]


def test_a_prepared_search_can_be_pickled(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "a.vecdb") as db:
        prepared = small(db).prepare(where=F.i < 300, offset=3, radius=6)
        prepared(QUERIES[0])
        again = pickle.loads(pickle.dumps(prepared))
        assert repr(again) == repr(prepared) and same(again(QUERIES[0]), prepared(QUERIES[0]))


def test_threads_share_it_while_rows_change() -> None:
    with vecdb.open() as db:
        c = small(db)
        prepared = c.prepare(where=F.i < 400, k=400)
        wrong: list[Any] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                hits = prepared(QUERIES[0])
                if len(hits) not in (400, 399) or any(h.metadata["i"] >= 400 for h in hits[::50]):
                    wrong.append(hits.ids)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for n in range(30):
            c.update(n, metadata={"i": 400})
            c.update(n, metadata={"i": n})
        done.set()
        for thread in threads:
            thread.join()
        assert not wrong


def test_with_several_fields_it_needs_using_where_search_does() -> None:
    fields = {"a": vecdb.Vector(4, metric="l2"), "b": vecdb.Vector(3, metric="dot"),
              "t": vecdb.Vector(encoder="hashing")}  # fmt: skip
    with vecdb.open() as db:
        c = db.create_collection("c", vectors=fields)
        c.add([1, 2], {"a": np.eye(4)[:2], "b": np.eye(3)[:2]}, texts=["a dog", "a cat"])
        b = c.prepare(using="b", radius=-0.5)
        assert b([1, 0, 0]).ids == [1] and c.why_not([1, 0, 0], 2, using="b", radius=-0.5).startswith("2 lies beyond")
        assert c.prepare()("a cat").ids[0] == c.search("a cat").ids[0] == 2
        with pytest.raises(InvalidArgument, match="'a' are from|metric='l2'"):
            c.prepare(using="a", radius=-0.5)
        with pytest.raises(InvalidArgument, match="query"):
            c.prepare()([1, 0, 0, 0])
        c.drop_vector("b")
        with pytest.raises(InvalidArgument, match="using='b'"):
            b([1, 0, 0])


# --- explain -----------------------------------------------------------------------------------


def test_a_printed_plan_reads_well(c: vecdb.Collection) -> None:
    text = str(c.explain(QUERIES[0], 10, where=(F.i < 1500) & (F.even == True), offset=20, radius=3))  # noqa: E712
    lines = text.splitlines()
    assert lines[:3] == [
        "search 'l2' for the best 10, after the first 20, within distance 3, recall 0.95",
        "  where i < 1500 and even == true",
        "  750 of 3,000 rows match",
    ]
    assert " us" in lines[3] and lines[4].startswith("  rejected: ") and lines[4].count(" us") == 2
    walk = str(c.explain(QUERIES[0], ef=64)).splitlines()
    assert walk[0].endswith("the best 10, ef 64") and "graph: estimated" in walk[2]
    assert "ef 64, estimated recall" in walk[2]
    assert str(c.explain(k=None)).splitlines()[0] == "search 'l2' for every match, exact"
    assert c.explain(QUERIES[0], offset=9000).strategy == "nothing"
