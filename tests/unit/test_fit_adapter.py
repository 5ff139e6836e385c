"""fit_adapter: what it learns from, how, and what it refuses. Figures on real data: model/test_adapting.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import ById, errors
from vecdb.adapting import closed, fit, learning, measuring, mining, sources
from vecdb.adapting.contrastive import Lesson, loss, minimised, path
from vecdb.evaluation.metrics import parse

METRICS = ("cosine", "l2", "dot")


def noisy(n: int, d: int, seed: int, *, noise: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kind, documents, queries): half of the dimensions say which, half are noise, anew for the query."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, n)
    signal = rng.normal(size=(n, d // 2)) + 1.5 * np.eye(4, d // 2)[kind]
    documents = np.column_stack([signal, rng.normal(0, noise, (n, d - d // 2))])
    queries = np.column_stack([signal, rng.normal(0, noise, (n, d - d // 2))]) + rng.normal(0, 0.1, (n, d))
    return kind, documents.astype(np.float32), queries.astype(np.float32)


def collection(documents: np.ndarray, metric: str = "cosine", **more: Any) -> vecdb.Collection:
    """Documents under ids that mix ints and strings."""
    c = vecdb.open().create_collection("c", dim=documents.shape[1], metric=metric, **more)
    c.add(ids_of(len(documents)), documents)
    return c


def ids_of(n: int) -> list[Any]:
    return [at if at % 2 else f"d{at}" for at in range(n)]


def pairs_of(queries: np.ndarray, n: int) -> list[tuple[Any, Any]]:
    return list(zip(queries[:n], ids_of(n), strict=True))


# --- learning ------------------------------------------------------------------------------------


def lesson(metric: str, any_answer: bool, seed: int = 0) -> Lesson:
    rng = np.random.default_rng(seed)
    queries, documents = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(20, 5)).astype(np.float32)
    answers = rng.random((7, 20)) < 0.2
    answers[np.arange(7), rng.integers(0, 20, 7)] = True
    out = (rng.random((7, 20)) < 0.2) & ~answers
    return Lesson(queries, documents, answers, out, metric, any_answer, 0.5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("any_answer", [False, True])
def test_the_loss_is_its_formula_and_its_gradient_the_slope(metric: str, any_answer: bool) -> None:
    given = lesson(metric, any_answer)
    rng = np.random.default_rng(1)
    map = (np.eye(5) + rng.normal(size=(5, 5)) * 0.3).astype(np.float32)

    def plain(map: np.ndarray) -> float:
        a, b = given.queries.astype(np.float64) @ map, given.documents.astype(np.float64) @ map
        total = 0.0
        for at in range(len(a)):
            similar = b @ a[at]
            if metric == "cosine":
                similar = similar / np.linalg.norm(b, axis=1) / np.linalg.norm(a[at])
            elif metric == "l2":
                similar = -((b - a[at]) ** 2).sum(axis=1) / 2
            e = np.exp(similar / 0.5)
            right = e[given.answers[at]]
            others = e[~given.answers[at] & ~given.out[at]].sum()
            each = -np.log(right / (right + others)).mean()
            total += -np.log(right.sum() / (right.sum() + others)) if any_answer else each
        return total / len(a)

    value, gradient = loss(given, map)
    assert value == pytest.approx(plain(map.astype(np.float64)), rel=1e-4)
    for _ in range(10):
        i, j = rng.integers(0, 5, 2)
        step = np.zeros((5, 5))
        step[i, j] = 1e-4
        slope = (plain(map + step) - plain(map - step)) / 2e-4
        assert gradient[i, j] == pytest.approx(slope, rel=2e-2, abs=2e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_the_loss_never_rises_and_falls_with_the_pull(metric: str) -> None:
    given = lesson(metric, False)
    values: list[float] = []

    def cost(map: np.ndarray) -> tuple[float, np.ndarray]:
        return loss(given, map)

    at = np.eye(5, dtype=np.float32)
    for _ in range(5):
        values.append(cost(at)[0])
        at = minimised(cost, at, 3)
    assert values == sorted(values, reverse=True) and values[-1] < values[0]
    along = [loss(given, map)[0] for _, map in path(given)]
    assert all(one >= other - 1e-3 for one, other in zip(along, along[1:], strict=False))
    again = [map.tobytes() for _, map in path(given)]
    assert again == [map.tobytes() for _, map in path(given)]


def test_whitening_is_the_identity_at_0_and_whitens_at_1() -> None:
    rng = np.random.default_rng(2)
    rows = (rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)
    assert np.allclose(closed.whitening(rows, 0, shrink=0, centred=False).matrix, np.eye(6), atol=1e-5)
    start = closed.whitening(rows, 1, shrink=0, centred=True)
    spread = np.cov(start(rows).T, bias=True)
    assert np.allclose(spread / spread[0, 0], np.eye(6), atol=1e-2)


def test_the_discriminant_drops_what_tells_nothing() -> None:
    within = np.diag([1.0, 4.0, 0.1])
    total = np.diag([2.0, 4.0, 0.1])
    for power in (0.25, 0.5, 1.0):
        start = closed.discriminant(within, total, 0.0, power)
        assert start is not None
        weights = np.abs(start.matrix).sum(axis=1)
        assert weights[0] > 0.5 and weights[1] < 1e-3 and weights[2] < 1e-3
    assert closed.discriminant(total, total, 0.1, 0.5) is None
    assert closed.discriminant(np.zeros((2, 2)), np.zeros((2, 2)), 0.1, 0.5) is None


def test_principal_directions_hold_nearly_all() -> None:
    rng = np.random.default_rng(3)
    rows = (rng.normal(size=(800, 300)) * np.linspace(3, 0.01, 300)).astype(np.float32)
    basis = closed.principal(rows)
    assert basis.shape[0] == 300 and closed.LEAST_RANK <= basis.shape[1] <= closed.MOST_RANK
    assert np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-4)
    assert np.square(rows @ basis).sum() >= (closed.KEPT - 0.01) * np.square(rows).sum()
    assert np.array_equal(closed.principal(rows[:, :10]), np.eye(10))


# --- among which, and how good -------------------------------------------------------------------


def test_the_best_are_those_of_sorting() -> None:
    rng = np.random.default_rng(4)
    for n, k in ((1, 1), (7, 3), (7, 7), (300, 10)):
        similar = rng.integers(0, 5, (20, n)).astype(np.float32)  # full of ties
        expected = np.argsort(-similar, axis=1, kind="stable")[:, :k]
        assert np.array_equal(measuring.best(similar, k), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_rankings_and_figures_are_those_of_brute_force(metric: str) -> None:
    _, documents, queries = noisy(60, 8, 5)
    c = collection(documents, metric)
    given = [(ById(id), ids_of(60)[(at + 1) % 60]) for at, id in enumerate(ids_of(60)[:20])]
    given += pairs_of(queries, 30)
    task = sources.of_pairs(c, given, None, 0, name="pairs", seats=2)
    units = np.arange(len(task))
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(8, 8)).astype(np.float32)

    def map(rows: np.ndarray) -> np.ndarray:
        return sources.unit(rows @ matrix, metric)

    found = measuring.figures(task, units, map)
    a, b = map(task.queries).astype(np.float64), map(task.documents).astype(np.float64)
    for name in measuring.RANKED:
        kind, values = parse(name), []
        for unit in units:
            apart = ((b - a[unit]) ** 2).sum(axis=1) if metric == "l2" else -(b @ a[unit])
            order = [row for row in np.argsort(apart, kind="stable") if row != task.itself[unit]]
            values.append(kind.of(order[:100], dict.fromkeys(task.answers[unit].tolist(), 1)))
        assert np.allclose(found[name], values), name


def test_the_pool_of_a_large_collection_holds_every_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "POOL", 120)
    _, documents, queries = noisy(600, 8, 6)
    c = collection(documents, "l2")
    given = [*pairs_of(queries, 20), (ById("d100"), "d102"), (queries[0], 599)]
    task = sources.of_pairs(c, given, None, 0, name="pairs", seats=2)
    units = np.arange(len(task))
    pool = mining.pool(c, task, units, 3)
    assert np.array_equal(pool, np.unique(pool)) and 120 <= len(pool) < 300
    answers = np.concatenate(task.answers)
    assert np.isin(answers, pool).all()
    hard = c.search(queries[0], 3).ids
    assert np.isin([task.ids.index(id) for id in hard], pool).all()
    assert np.array_equal(pool, mining.pool(c, task, units, 3))
    assert not np.array_equal(pool, mining.pool(c, task, units, 4))


def test_what_nearly_equals_an_answer_is_left_out() -> None:
    rng = np.random.default_rng(7)
    documents = rng.normal(size=(40, 6)).astype(np.float32)
    documents[10] = documents[0] + 0.01
    documents[11] = documents[1]
    near = mining.near_answers(documents, [np.array([0]), np.array([1, 11]), np.array([2])], "l2")
    assert np.argwhere(near).tolist() == [[0, 10]]


@pytest.mark.parametrize("seed", range(3))
def test_no_map_is_judged_by_what_it_learned_from(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """H1, for few queries, held out in turn, and for many, held out once."""
    _, documents, queries = noisy(700, 8, seed)
    c = collection(documents)
    log: list[Any] = []

    def learn(papers: Any, task: Any, units: np.ndarray, seed: int) -> learning.Learned:
        log.append(set(units.tolist()))
        eye = np.eye(8, dtype=np.float32)
        return learning.Learned("spy", eye, None, None, (), len(units), 0)

    def figures(task: Any, units: np.ndarray, map: Any) -> dict[str, list[float]]:
        log.append(units.tolist())
        return {"ndcg@10": [0.0] * len(units)}

    monkeypatch.setattr(fit, "learn", learn)
    monkeypatch.setattr(fit.measuring, "figures", figures)
    for n, rounds in ((40, 5), (700, 1)):
        log.clear()
        vecdb.fit_adapter(c, pairs=pairs_of(queries, n), seed=seed)
        asked = []
        for number in range(rounds):
            learned, first, second = log[3 * number : 3 * number + 3]
            assert first == second and not learned & set(first) and len(learned) + len(first) == n
            asked += first
        if rounds > 1:
            assert sorted(asked) == list(range(n)) and log[-1] == set(range(n))
        else:
            assert len(asked) == 140 and len(log) == 3  # the adapter is the map that was measured


# --- the whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "dtype"), [("cosine", "f32"), ("l2", "f16"), ("dot", "f32"), ("cosine", "i8"), ("l2", "i8")]
)
def test_an_adapter_finds_the_half_that_tells(metric: str, dtype: str) -> None:
    _, documents, queries = noisy(300, 12, 11)
    if dtype == "i8":
        documents = np.clip(documents * 12, -127, 127).astype(np.int8)
        queries = queries * 12
    c = collection(documents, metric, dtype=dtype)
    adapter = vecdb.fit_adapter(c, pairs=pairs_of(queries, 150))
    change = adapter.report["ndcg@10"]
    assert adapter.helps and change.difference > 0.2 and change.low > 0.1
    assert adapter.metric == metric and adapter.dtype == dtype and (adapter.dim_in, adapter.dim) == (12, 12)
    assert adapter.collection == "c" and adapter.using == "vector" and adapter.encoder_fingerprint is None
    before, after = (
        np.mean(
            [first_of(query, rows, metric) == at for at, query in enumerate(asked, 150)]
        )
        for rows, asked in ((documents.astype(np.float32), queries[150:]), (adapter(documents), adapter(queries[150:])))
    )
    assert after > before + 0.1, (before, after)  # of queries that it never saw
    again = vecdb.adapting.adapter.Adapter.from_bytes(adapter.to_bytes())
    assert again.helps and str(again.report) == str(adapter.report)


def test_the_same_call_gives_the_same_adapter_and_writes_nothing() -> None:
    _, documents, queries = noisy(120, 8, 12)
    c = collection(documents)
    c._db.search_log.start(c)
    before = c._db.stats()["commit"] if "commit" in c._db.stats() else None
    one, other = (vecdb.fit_adapter(c, pairs=pairs_of(queries, 40), seed=5) for _ in range(2))
    assert one.fingerprint == other.fingerprint and one.report.changes == other.report.changes
    assert list(c._db.search_log) == []
    assert before is None or c._db.stats()["commit"] == before


def test_labels_and_their_kinds() -> None:
    kind, documents, _ = noisy(400, 12, 13)
    c = vecdb.open().create_collection("c", dim=12, metric="l2")
    names: list[Any] = [True, 1, "1", 2.5]  # four values, two of which Python calls equal
    label = [{"k": names[each]} for each in kind]
    label[3], label[4], label[5] = {}, {"k": None}, {"k": float("nan")}
    c.add(ids_of(400), documents, metadata=label)
    task = sources.of_labels(c, "k", None, 0)
    assert len(task) == 397 and task.labels is not None and len(set(task.labels.tolist())) == 4
    adapter = vecdb.fit_adapter(c, labels="k")
    assert adapter.helps and adapter.report.unit == "rows" and adapter.report.changes[0].metric == "precision@10"
    assert adapter.report["precision@10"].difference > 0.05


def test_triplets_say_which_is_nearer() -> None:
    _, documents, queries = noisy(200, 10, 14)
    c = collection(documents, "l2")
    ids = ids_of(200)
    rng = np.random.default_rng(0)
    given = [(queries[at], ids[at], ids[(at + int(rng.integers(1, 200))) % 200]) for at in range(100) for _ in range(8)]
    adapter = vecdb.fit_adapter(c, triplets=given)
    change = adapter.report["triplets in order"]
    assert change.after > change.before and adapter.helps


def test_feedback_is_what_was_chosen() -> None:
    _, documents, queries = noisy(150, 10, 15)
    c = collection(documents)
    with pytest.raises(errors.InvalidArgument, match="feedback: 0 different queries; the least"):
        vecdb.fit_adapter(c, feedback=True)
    c._db.search_log.start(c)
    ids = ids_of(150)
    for at in range(60):
        hits = c.search(queries[at], 150)
        c.feedback(hits, chosen=ids[at])
    c.feedback(c.search(vecdb.query.Near(ById("d0")), 150), chosen="d2")
    c.feedback(c.search(vecdb.query.Near(queries[70]) + vecdb.query.Near(queries[71]), 150), chosen="d4")
    c.delete("d10")
    adapter = vecdb.fit_adapter(c, feedback=True)
    assert adapter.helps and adapter.report.source == "feedback" and adapter.report.held_out == 60
    assert any("1 searches with a choice were no plain search" in note for note in adapter.report.notes)
    assert any("1 rows that were chosen or asked for are gone" in note for note in adapter.report.notes)
    c._db.search_log.stop()


def test_texts_rows_and_vectors_may_be_queries() -> None:
    words = ["apple", "pear", "plum", "fig", "lime", "kiwi", "date", "nut", "sloe", "quince"]
    c = vecdb.open().create_collection("c", encoder="hashing:64")
    ids = [f"{word}{number}" for word in words for number in range(4)]
    c.add(ids, texts=[f"{word} number {number} of many" for word in words for number in range(4)])
    given: list[Any] = [(f"a {word}", f"{word}{number}") for word in words for number in range(4)]
    given += [(ById(f"{word}0"), f"{word}1") for word in words]
    given += [(c.vectors([f"{word}3"])[0], f"{word}2") for word in words]
    task = sources.of_pairs(c, given, None, 0, name="pairs", seats=2)
    assert len(task) == 30 and [len(each) for each in task.answers] == [4] * 10 + [1] * 20
    assert (task.itself >= 0).sum() == 10
    adapter = vecdb.fit_adapter(c, pairs=given)
    assert adapter.encoder_fingerprint == c.schema.fingerprint
    assert adapter.report.held_out == 30


def test_one_of_several_fields() -> None:
    _, documents, queries = noisy(60, 6, 16)
    c = vecdb.open().create_collection(
        "c", vectors={"a": vecdb.Vector(6), "b": vecdb.Vector(4), "bits": vecdb.Vector(8, dtype="b1", metric="hamming"),
                      "many": vecdb.Vector(4, multi=True), "sparse": vecdb.SparseVector()},
    )  # fmt: skip
    some = [each if at != 7 else None for at, each in enumerate(documents)]
    c.add(ids_of(60), {"a": some, "b": documents[:, :4]})
    with pytest.raises(errors.InvalidArgument, match="using="):
        vecdb.fit_adapter(c, pairs=pairs_of(queries, 20))
    for name, what in (("bits", "stores bits"), ("many", "many vectors a row"), ("sparse", "sparse vectors")):
        with pytest.raises(errors.InvalidArgument, match=f"using='{name}'.*{what}"):
            vecdb.fit_adapter(c, pairs=pairs_of(queries, 20), using=name)
    with pytest.raises(errors.InvalidArgument, match=r"pairs\[7\]: row 7 has no vector"):
        vecdb.fit_adapter(c, pairs=pairs_of(queries, 20), using="a")
    adapter = vecdb.fit_adapter(c, pairs=pairs_of(queries[:, :4], 20), using="b")
    assert adapter.using == "b" and adapter.dim == 4


def test_an_adapter_on_a_field_that_has_one() -> None:
    _, documents, queries = noisy(200, 8, 17)
    c = collection(documents)
    first = vecdb.fit_adapter(c, pairs=pairs_of(queries, 60))
    c.apply_adapter(first, force=True)
    second = vecdb.fit_adapter(c, pairs=pairs_of(queries, 60))
    assert second.encoder_fingerprint is not None and first.fingerprint in second.encoder_fingerprint
    assert second.report["ndcg@10"].before == pytest.approx(
        vecdb.fit_adapter(c, pairs=[(query, id) for query, id in pairs_of(queries, 60)]).report["ndcg@10"].before
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["one dimension", "all alike", "few", "repeated"])
def test_odd_collections_are_no_trouble(metric: str, kind: str) -> None:
    """One dimension, all rows alike, fewer rows than dimensions, rows that repeat; one row answers all."""
    rng = np.random.default_rng(8)
    documents = {
        "one dimension": rng.uniform(1, 2, (40, 1)), "all alike": np.ones((30, 5)),
        "few": rng.normal(size=(12, 300)), "repeated": np.repeat(rng.normal(size=(3, 4)), 10, axis=0),
    }[kind].astype(np.float32)  # fmt: skip
    c = collection(documents, metric)
    asked = documents + 0.1 * rng.normal(size=documents.shape)
    for pairs in (pairs_of(asked, len(asked)), [(query, "d0") for query in asked]):
        adapter = vecdb.fit_adapter(c, pairs=pairs, holdout=0.5)
        found = adapter(documents)
        assert np.isfinite(found).all() and 0 <= adapter.report.changes[0].after <= 1
        assert metric != "cosine" or np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    c.update(where={}, metadata={"same": 1})
    with pytest.raises(errors.InvalidArgument, match=r"all \d+ rows have one value|the least is"):
        vecdb.fit_adapter(c, labels="same")


def first_of(query: np.ndarray, rows: np.ndarray, metric: str) -> int:
    """Which row a search would find first."""
    if metric == "l2":
        return int(((rows - query) ** 2).sum(axis=1).argmin())
    return int((rows @ query / (np.linalg.norm(rows, axis=1) if metric == "cosine" else 1)).argmax())


def pairs_that(at: int, item: Any) -> list[Any]:
    found: list[Any] = pairs_of(np.eye(4, dtype=np.float32)[np.arange(30) % 4] + np.arange(30)[:, None], 30)
    found[at] = item
    return found


V = [1.0, 2, 3, 4]


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({}, errors.InvalidArgument, "takes one of pairs=, triplets=, labels= and feedback=True; none is given"),
        ({"pairs": [], "labels": "k"}, errors.InvalidArgument, "pairs and labels is given"),
        ({"feedback": False}, errors.InvalidArgument, "none is given"),
        ({"feedback": 1}, errors.InvalidArgument, "feedback=1"),
        ({"pairs": []}, errors.InvalidArgument, "pairs: 0 different queries; the least .* is 10"),
        ({"pairs": [(V, "d0")] * 50}, errors.InvalidArgument, "pairs: 1 different queries"),
        ({"pairs": 5}, errors.InvalidArgument, "pairs is a int"),
        ({"pairs": {"a": "b"}}, errors.InvalidArgument, "pairs is a dict"),
        ({"pairs": "ab"}, errors.InvalidArgument, "pairs is a str"),
        ({"pairs": pairs_that(17, 5)}, errors.InvalidArgument, r"pairs\[17\] is a int"),
        ({"pairs": np.array(5)}, errors.InvalidArgument, "pairs is a ndarray"),
        ({"pairs": pairs_that(17, np.array(5))}, errors.InvalidArgument, r"pairs\[17\] is a ndarray"),
        ({"pairs": pairs_that(17, "ab")}, errors.InvalidArgument, r"pairs\[17\] is a str"),
        ({"pairs": pairs_that(17, (V, "d0", "d2"))}, errors.InvalidArgument, r"pairs\[17\] has 3 parts"),
        ({"pairs": pairs_that(17, (V, "nobody"))}, errors.NotFound, r"pairs\[17\]: collection 'c' has no row 'nobody'"),
        ({"pairs": pairs_that(17, (ById("nobody"), "d0"))}, errors.NotFound, r"pairs\[17\].*'nobody'"),
        ({"pairs": pairs_that(17, (ById("d0"), "d0"))}, errors.InvalidArgument, r"pairs\[17\]: row 'd0' .* to itself"),
        ({"pairs": pairs_that(17, (V, True))}, errors.InvalidArgument, r"pairs\[17\]: True is a bool"),
        ({"pairs": pairs_that(17, (V, 1.5))}, errors.InvalidArgument, r"pairs\[17\]: 1.5 is a float"),
        ({"pairs": pairs_that(17, ([1.0, 2], "d0"))}, errors.InvalidArgument, r"pairs\[17\]: query has shape \(2,\)"),
        ({"pairs": pairs_that(17, ([V, V], "d0"))}, errors.InvalidArgument, r"pairs\[17\]: query has shape \(2, 4\)"),
        ({"pairs": pairs_that(17, ([1, 2, 3, np.nan], "d0"))}, errors.InvalidArgument, r"pairs\[17\]: .*NaN"),
        ({"pairs": pairs_that(17, ([0, 0, 0, 0], "d0"))}, errors.InvalidArgument, r"pairs\[17\]: .*zero"),
        ({"pairs": pairs_that(17, (None, "d0"))}, errors.InvalidArgument, r"pairs\[17\]: "),
        ({"pairs": pairs_that(17, ("a text", "d0"))}, errors.InvalidArgument, r"pairs\[17\]: the query is a text, .* no encoder"),
        ({"triplets": [(V, "d0", "d2")] * 3 + [(V, "d0")]}, errors.InvalidArgument, r"triplets\[3\] has 2 parts"),
        ({"triplets": [(V, "d0", "d2"), (V, "d0", "d0")]}, errors.InvalidArgument, r"triplets\[1\]: id 'd0' is both"),
        ({"labels": 5}, errors.InvalidArgument, "labels=5"),
        ({"labels": ""}, errors.InvalidArgument, "labels=''"),
        ({"labels": "nowhere"}, errors.InvalidArgument, "labels='nowhere': 0 rows .* the least is 20"),
        ({"labels": "one"}, errors.InvalidArgument, "labels='one': all 40 rows have one value"),
        ({"labels": "each"}, errors.InvalidArgument, "labels='each': 0 rows .* of 40 with a value"),
        ({"labels": "list"}, errors.InvalidArgument, r"labels='list': row 1 has \[1\]"),
        ({"pairs": pairs_that(0, (V, "d0")), "holdout": 0}, errors.InvalidArgument, "holdout=0"),
        ({"pairs": pairs_that(0, (V, "d0")), "holdout": 1.0}, errors.InvalidArgument, "holdout=1.0"),
        ({"pairs": pairs_that(0, (V, "d0")), "holdout": "a"}, errors.InvalidArgument, "holdout='a'"),
        ({"pairs": pairs_that(0, (V, "d0")), "holdout": float("nan")}, errors.InvalidArgument, "holdout=nan"),
        ({"pairs": pairs_that(0, (V, "d0")), "seed": -1}, errors.InvalidArgument, "seed=-1"),
        ({"pairs": pairs_that(0, (V, "d0")), "seed": 1.5}, errors.InvalidArgument, "seed=1.5"),
        ({"pairs": pairs_that(0, (V, "d0")), "using": "other"}, errors.InvalidArgument, "using='other'"),
    ],
)  # fmt: skip
def test_misuse_is_named(given: dict[str, Any], kind: type[Exception], message: str) -> None:
    rng = np.random.default_rng(0)
    c = vecdb.open().create_collection("c", dim=4)
    data = [{"one": "a", "each": at, "list": [1]} for at in range(40)]
    c.add(ids_of(40), rng.normal(size=(40, 4)), metadata=data)
    with pytest.raises(kind, match=message):
        vecdb.fit_adapter(c, **given)


def test_the_first_bad_item_is_named_and_collections_alone_are_taken() -> None:
    c = collection(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    bad = pairs_that(5, (V, "nobody"))
    bad[3] = (V, "no one")
    with pytest.raises(errors.NotFound, match=r"pairs\[3\]"):
        vecdb.fit_adapter(c, pairs=bad)
    with pytest.raises(errors.InvalidArgument, match="papers is a str"):
        vecdb.fit_adapter("c", pairs=bad)  # type: ignore[arg-type]


def test_a_sample_stands_for_a_collection_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_NUMBERS", 100 * 8)
    _, documents, queries = noisy(500, 8, 18)
    c = collection(documents)
    task = sources.of_pairs(c, pairs_of(queries, 30), None, 0, name="pairs", seats=2)
    assert 70 <= len(task.documents) <= 140 and task.total == 500
    assert all(len(each) == 1 for each in task.answers) and "of 500 rows stand for all" in task.notes[0]
    again = sources.of_pairs(c, pairs_of(queries, 30), None, 0, name="pairs", seats=2)
    assert task.ids == again.ids


# --- what is no gain -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seeds", [5, pytest.param(100, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_shuffled_pairs_and_labels_are_refused(seeds: int) -> None:
    """A false alarm is about as frequent as the level of the test says."""
    alarms: dict[str, int] = {"pairs": 0, "labels": 0}
    gains = []
    for seed in range(seeds):
        kind, documents, queries = noisy(80, 6, 100 + seed)
        rng = np.random.default_rng(seed)
        c = vecdb.open().create_collection("c", dim=6)
        c.add(ids_of(80), documents, metadata=[{"k": int(each)} for each in rng.permutation(kind)])
        ids = [ids_of(80)[at] for at in rng.permutation(80)[:30]]
        for source in ({"pairs": list(zip(queries[:30], ids, strict=True))}, {"labels": "k"}):
            adapter = vecdb.fit_adapter(c, **source, seed=seed)
            alarms[next(iter(source))] += adapter.helps
            gains.append(adapter.report.changes[0].difference)
    print(f"shuffled, {seeds} seeds from 0: helps {alarms}, mean gain {np.mean(gains):+.4f}")
    assert sum(alarms.values()) <= max(2, 0.06 * 2 * seeds) and abs(np.mean(gains)) < 0.03
