"""Queries as values: immutable, comparable, written down; what is wrong with one is said when it is made."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import ById, F
from vecdb.errors import FilterError, InvalidArgument, NotFound, VecdbError
from vecdb.query import (
    Context,
    Decay,
    Field,
    Fuse,
    Late,
    Like,
    Near,
    Query,
    Rerank,
    Sparse,
    Text,
    from_json,
)
from vecdb.query.written import boost_of, plain

QUERIES: list[Query] = [
    Near([1.0, 2.0]), Near([1, 2]), Near(np.array([1, 2], np.float32)), Near(np.array([1, 2], np.float64)),
    Near("a text", using="plot"), Near(ById(1)), Near(ById("1")), Near(np.array([1, 0, 1], bool)),
    Near(np.array([0.1, 1e-8], np.float16)),
    Like([1, "a", ById("b")], [[0.5, 0.25]]), Like([], [3], strategy="best"), Like("a", using="x"),
    Context([(1, 2), ("a", [1.0, 2.0])]), Text("gpu"), Text('+a -b "c d" e*', fields=["x", "y"], weights={"x": 2}),
    Sparse({"a": 1, 3: -0.5}), Sparse({"3": 1}), Sparse({3: 1}), Late(np.eye(2)), Late([[1, 0], [0, 1]], using="t"),
    Near("a") + Text("b"), Fuse(Near("a"), Text("b"), method="relative", weights=[1, 0.5], depth=7),
    Fuse(Fuse(Near("a")), method="weighted"), Rerank(Text("a"), by=Near("b"), depth=9),
    Rerank(Rerank(Near("a") + Text("b"), by=Sparse({"q": 1})), by=Late([[1.5]])),
]  # fmt: skip
BOOSTS = [
    Decay("year", 2000, 5), Decay("at", "now", timedelta(days=3), weight=-0.5), Field("likes", 0.1, "log1p"),
    Decay("at", datetime(2026, 1, 1, tzinfo=UTC), 60.5), Decay("place", (48.1, 11.5), 10), Field("n", 2),
]  # fmt: skip


def test_queries_are_values() -> None:
    for at, query in enumerate(QUERIES):
        for other_at, other in enumerate(QUERIES):
            assert (query == other) == (at == other_at), (query, other)
        assert hash(query) == hash(copy.deepcopy(query)) and copy.deepcopy(query) == query
        assert pickle.loads(pickle.dumps(query)) == query
        with pytest.raises(AttributeError, match="never changes"):
            query.using = "x"  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            del query.using  # type: ignore[attr-defined]
    assert len({*QUERIES, *QUERIES}) == len(QUERIES)


@pytest.mark.parametrize("query", QUERIES, ids=repr)
def test_a_query_survives_json(query: Query) -> None:
    text = query.to_json()
    assert from_json(text) == query and hash(from_json(text)) == hash(query)
    assert from_json(json.dumps(json.loads(text))) == query
    assert from_json(text).to_json() == text


@pytest.mark.parametrize("boost", BOOSTS, ids=repr)
def test_a_boost_survives_json(boost: Any) -> None:
    assert boost_of(json.loads(json.dumps(plain(boost)))) == boost
    assert eval(repr(boost), {"Decay": Decay, "Field": Field, "datetime": __import__("datetime")}) == boost


def test_an_array_that_changes_does_not_change_the_query() -> None:
    array = np.ones(3, np.float32)
    query = Near(array)
    array[0] = 9
    assert query == Near(np.ones(3, np.float32))


def test_plus_is_reciprocal_rank_fusion_of_all() -> None:
    a, b, c = Near("a"), Text("b"), Sparse({"c": 1})
    assert a + b + c == Fuse(a, b, c) == Fuse(a, b, c, method="rrf")
    assert Fuse(a, b, depth=5) + c == Fuse(Fuse(a, b, depth=5), c)
    with pytest.raises(TypeError):
        a + 1  # type: ignore[operator]


WRONG: list[tuple[Any, str]] = [
    (lambda: Near(None), "Near: x"), (lambda: Near(3), "vecdb.ById"), (lambda: Near([[1, 2]]), "Near: x"),
    (lambda: Near([1, "a"]), "item 1"), (lambda: Near(["a"]), "item 0"), (lambda: Near(np.array([1j])), "complex"),
    (lambda: Near([1.0], using=3), "using"), (lambda: Near("\ud800"), "surrogate"), (lambda: Near(np.eye(2)), "shape"),
    (lambda: Like(), "example"), (lambda: Like([], [1]), "positive is empty"), (lambda: Like([1], strategy="x"), "best"),
    (lambda: Like([None]), "item 0"), (lambda: Context([]), "pairs"), (lambda: Context([(1,)]), "pair 0"),
    (lambda: Context("ab"), "pairs"), (lambda: Text(3), "str"), (lambda: Text("a", fields=[]), "fields"),
    (lambda: Text("a", weights={"t": float("nan")}), "finite"), (lambda: Text("a", weights={"t": -1}), "factors"),
    (lambda: Text("a" * 2_000_000), "limit"), (lambda: Sparse({}), "empty"), (lambda: Sparse({"a": float("inf")}), "finite"),
    (lambda: Sparse({True: 1}), "bool"), (lambda: Sparse({None: 1}), "None"), (lambda: Sparse([1]), "dict"),
    (lambda: Late([1, 2]), "matrix"), (lambda: Late("a"), "matrix"), (lambda: Fuse(), "queries"),
    (lambda: Fuse("a"), "part 0"), (lambda: Fuse(Near("a"), method="x"), "rrf"), (lambda: Fuse(Near("a"), weights=[1, 2]), "2 weights"),
    (lambda: Fuse(Near("a"), weights=[float("nan")]), "part 0"), (lambda: Fuse(Near("a"), depth=0), "depth"),
    (lambda: Rerank("a", by=Near("b")), "query"), (lambda: Rerank(Near("a"), by=3), "callable"),
    (lambda: Rerank(Near("a"), by=Near("b"), depth=True), "depth"), (lambda: ById(1.5), "float"), (lambda: ById(True), "bool"),
    (lambda: Decay("", 1, 1), "field"), (lambda: Decay("a", 1, 0), "above 0"), (lambda: Decay("a", "then", 1), "now"),
    (lambda: Decay("a", datetime(2026, 1, 1), 1), "zone"), (lambda: Decay("a", (91, 0), 1), "latitude"),
    (lambda: Decay("a", True, 1), "bool"), (lambda: Decay("a", 1, 1, weight=float("nan")), "weight"),
    (lambda: Field("a", "b"), "weight"), (lambda: Field("a", 1, transform="sqrt"), "log1p"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "said"), WRONG)
def test_what_is_wrong_is_named(make: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        make()


def test_depth_and_parts_are_limited() -> None:
    query: Query = Near("a")
    with pytest.raises(InvalidArgument, match="nested deeper than 16"):
        for _ in range(100):
            query = Fuse(query)
    with pytest.raises(InvalidArgument, match="256 parts"):
        Fuse(*[Near("a")] * 300)


# --- JSON that nobody wrote ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"query": {"type": "Near", "x": "a"}, "version": 2}', "version 2"),
        ('{"query": {"type": "Near", "x": "a"}}', "version None"),
        ('{"query": {"type": "Near", "x": "a", "colour": 1}, "version": 1}', "'colour'"),
        ('{"query": {"type": "Far", "x": "a"}, "version": 1}', "'Far'"),
        ('{"query": {"type": "Near", "x": "a"}, "version": 1, "more": 1}', "'more'"),
        ('{"query": {"type": "Near"}, "version": 1}', "Near"),
        ('{"query": [1], "version": 1}', "list"),
        ('{"query": {"type": "Near", "x": {"numbers": "AAAA", "dtype": "float32", "shape": [2]}}, "version": 1}', "fit"),
        ('{"query": {"type": "Near", "x": {"numbers": "!!", "dtype": "float32", "shape": [1]}}, "version": 1}', "fit"),
        ('{"query": {"type": "Near", "x": {"numbers": "", "dtype": "object", "shape": [0]}}, "version": 1}', "object"),
        ('{"query": {"type": "Fuse", "queries": [{"type": "Fuse"}]}, "version": 1}', "queries"),
        ('{"query": {"type": "Sparse", "weights": [["a", NaN]]}, "version": 1}', "finite"),
    ],
)
def test_json_that_is_not_understood_is_named(text: str, said: str) -> None:
    with pytest.raises((InvalidArgument, FilterError), match=said):
        from_json(text)


def test_every_prefix_of_valid_json_is_an_error_and_quick() -> None:
    deep: Query = Near(np.arange(40, dtype=np.float32))
    for _ in range(14):
        deep = Fuse(deep, Text("some words"))
    text = deep.to_json()
    started = perf_counter()
    for end in range(len(text)):
        with pytest.raises(VecdbError):
            from_json(text[:end])
    print(f"{len(text)} prefixes in {perf_counter() - started:.2f} s")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"query":' * 100_000, '{"query": {"type": "Fuse", "queries": [' * 5_000,
        '{"query": ' + "[" * 500_000 + "]" * 500_000 + ', "version": 1}', '"query"' * 600_000,
        '{"query": {"type": "Like", "positive": [' + ",".join(["1"] * 500_000) + ']}, "version": 1}',
        '{"query": {"type": "Fuse", "queries": [' + ",".join(['{"type": "Near", "x": "a"}'] * 50_000) + ']}, "version": 1}',
    ],
    ids=["lists", "objects", "fusions", "balanced", "long", "examples", "parts"],
)  # fmt: skip
def test_hostile_json_is_an_error_within_bounds(text: str) -> None:
    tracemalloc.start()
    with pytest.raises(VecdbError):
        from_json(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 << 20


# --- asked -----------------------------------------------------------------------------------


@pytest.fixture
def c() -> vecdb.Collection:
    c = vecdb.open().create_collection("c", vectors={"a": vecdb.Vector(2), "b": vecdb.Vector(3, metric="l2")})
    c.add(
        [1, 2, 3, "four"],
        {"a": [[1, 0], [0, 1], [1, 1], None], "b": [[1, 0, 0], None, [0, 0, 1], [0, 1, 0]]},
        metadata=[{"g": "x"}, {"g": "y"}, {"g": "x"}, {}],
    )
    return c


def test_a_query_says_its_field_or_takes_that_of_the_search(c: vecdb.Collection) -> None:
    assert c.search(Near([1, 0], using="a"), k=1).ids == c.search(Near([1, 0]), k=1, using="a").ids == [1]
    both = Near([1, 0], using="a") + Near([0, 1, 0], using="b")
    assert set(c.search(both).ids) == {1, 2, 3, "four"}
    with pytest.raises(InvalidArgument, match="several vector fields"):
        c.search(Near([1, 0]))
    with pytest.raises(InvalidArgument, match="'z'"):
        c.search(Near([1, 0], using="z"))
    with pytest.raises(InvalidArgument, match="'z'"):
        c.search(both, using="z")


def test_examples_must_be_there_and_have_a_vector(c: vecdb.Collection) -> None:
    with pytest.raises(NotFound, match="99"):
        c.search(Near(ById(99), using="a"))
    with pytest.raises(InvalidArgument, match="'four'.*'a'"):
        c.search(Like([1], ["four"], using="a"))
    with pytest.raises(InvalidArgument, match="no encoder"):
        c.search(Like(["five"], using="a"))
    with pytest.raises(InvalidArgument, match="cancel"):
        c.search(Like([[0.5, 0.0], [-0.5, 0.0]], using="a"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group_by": ""}, "group_by"), ({"group_by": 3}, "group_by"), ({"group_size": 2}, "without group_by"),
        ({"group_by": "g", "group_size": 0}, "group_size"), ({"group_by": "g", "group_size": True}, "group_size"),
        ({"diversity": 1.5}, "diversity"), ({"diversity": float("nan")}, "diversity"), ({"diversity": "a"}, "diversity"),
        ({"diversity": 0.5, "group_by": "g"}, "one of the two"), ({"diversity": 0.5, "k": None}, "k=None"),
        ({"boost": 3}, "boost"), ({"boost": ["a"]}, "item 0"), ({"boost": "ab"}, "boost"),
    ],
)  # fmt: skip
def test_a_shape_that_cannot_be_is_refused(c: vecdb.Collection, options: dict[str, Any], said: str) -> None:
    for query in ([1.0, 0.0], Near([1.0, 0.0])):
        for verb in (c.search, c.explain):
            with pytest.raises(InvalidArgument, match=said):
                verb(query, using="a", **options)
    with pytest.raises(InvalidArgument, match=said):
        c.prepare(using="a", **options)


def test_a_plain_search_takes_shapes(c: vecdb.Collection) -> None:
    hits = c.search([1, 0], 2, using="a", group_by="g")
    assert [group.value for group in hits.groups] == ["x", "y"] and hits.ids == [1, 2]
    with pytest.raises(InvalidArgument, match="without group_by"):
        _ = c.search([1, 0], using="a").groups
    assert c.search([1, 0], 3, using="a", diversity=0).ids == c.search([1, 0], 3, using="a").ids
    boosted = c.search([1, 0], 1, using="a", boost=Field("missing", 5))
    assert boosted.ids == [1] and boosted[0].explain().boost == 0


def test_batches_of_queries(c: vecdb.Collection) -> None:
    found = c.search([Near([1, 0], using="a"), Near([0, 0, 1], using="b")], 1)
    assert [hits.ids for hits in found] == [[1], [3]]
    found = c.search([[1, 0], [0, 1]], 1, using="a", group_by="g")
    assert [hits.groups[0].value for hits in found] == ["x", "y"]


def test_a_callable_ranks_anew_and_is_checked(c: vecdb.Collection) -> None:
    seen: list[Any] = []

    def by(query: Any, hits: Any) -> Any:
        seen.append((query, [hit.id for hit in hits]))
        return [hit.id for hit in hits]

    query = Rerank(Near([1, 0], using="a"), by=by)
    assert c.search(query, 2).ids == [3, 2] and seen == [(query.query, [1, 3, 2])]
    assert c.search(query, 2).scores.tolist() == [3, 2]
    with pytest.raises(InvalidArgument, match="callable"):
        query.to_json()
    for wrong in ([1], "abc", [1, 2, float("nan")], None):
        with pytest.raises(InvalidArgument, match="Rerank"):
            c.search(Rerank(Near([1, 0], using="a"), by=lambda q, h, wrong=wrong: wrong))


def test_radius_needs_distances(c: vecdb.Collection) -> None:
    assert c.search(Near([1, 0], using="a"), None, radius=0.5).ids == [1, 3]
    with pytest.raises(InvalidArgument, match="radius"):
        c.search(Context([(1, 2)], using="a"), radius=0.5)
    with pytest.raises(InvalidArgument, match="radius=-1"):
        c.search(Near([1, 0], using="a"), radius=-1)


def test_facets_of_a_query(c: vecdb.Collection) -> None:
    assert dict(c.facets("g", query=Near([1, 0], using="a"), radius=0.5)) == {"x": 2}
    assert dict(c.facets("g", F.g == "y", query=Near([1, 0], using="a"))) == {"y": 1}
    with pytest.raises(InvalidArgument, match="go with query"):
        c.facets("g", using="a")


def test_a_prepared_search_takes_query_objects(c: vecdb.Collection) -> None:
    prepared = c.prepare(2, where=F.g.exists(), group_by="g")
    assert [g.value for g in prepared(Near([1, 0], using="a")).groups] == ["x", "y"]
    assert pickle.loads(pickle.dumps(prepared._request)) == prepared._request
    with pytest.raises(InvalidArgument, match="several vector fields"):
        prepared([1, 0])


def test_hits_of_a_query_print_and_explain(c: vecdb.Collection) -> None:
    hits = c.search(Near([1, 0], using="a") + Near([1, 0, 0], using="b"), 3)
    assert "fuse, rrf" in repr(hits) and np.isnan(hits.distances).all()
    told = hits[0].explain()
    assert told.rank == 1 and [part.rank for part in told.parts] == [1, 1]
    assert "rank 1" in str(told) and "Near" in str(told)
    assert hits.to_pandas()["id"].tolist() == hits.ids
    plan = c.explain(Near([1, 0], using="a") + Near([1, 0, 0], using="b"), 3)
    assert plan.matches == 4 and [part.matches for part in plan.parts] == [3, 3]
    assert c.search([1, 0], using="a")[1].explain().rank == 2


def test_vectors_come_with_hits(c: vecdb.Collection) -> None:
    hits = c.search(Near([1, 0], using="a") + Near([0, 1, 0], using="b"), with_vectors=True)
    assert {hit.id: None if hit.vector is None else hit.vector.tolist() for hit in hits} == {
        1: [1, 0], 2: [0, 1], 3: [1, 1], "four": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: Near([1.0, float("nan")]), lambda: Near([float("inf")]), lambda: Near([2**64, 1]),
        lambda: Near([10**400]), lambda: Near(Late(np.eye(2)).matrix), lambda: Late(Near(np.ones(3)).x),
        lambda: Context([{1, 2}]), lambda: Context([{1: 2, 3: 4}]), lambda: Context([np.array(3)]),
        lambda: Context([b"ab"]), lambda: Like(b"ab"), lambda: Like({"a": 1}),
        lambda: Fuse(Near("a"), weights=np.array(1.0)), lambda: Fuse(Near("a"), weights={1.0}),
        lambda: Fuse(Near("a"), weights={1.0: 2}), lambda: Fuse(Near("a"), weights=[1e31]),
        lambda: Text("a", weights={"x": 1e31}), lambda: Field("n", -1e31), lambda: Decay("n", 1, 1, weight=1e31),
        lambda: Sparse({2**63: 1.0}), lambda: Near(ById("\ud800")), lambda: from_json('{"query": 1, "version": 1}'),
        lambda: from_json('{"query": null, "version": 1}'), lambda: from_json('{"query": "a", "version": 1}'),
        lambda: from_json('{"query": {"type": "Near", "x": [NaN]}, "version": 1}'),
        lambda: from_json('{"query": {"type": "Near", "x": [1e999]}, "version": 1}'),
    ],
)  # fmt: skip
def test_what_could_not_be_written_down_or_counted_is_refused(make: Any) -> None:
    with pytest.raises(InvalidArgument):
        make()


def words(n: int = 40) -> vecdb.Collection:
    c = vecdb.open().create_collection("c", dim=2, fulltext=True)
    c.add(
        range(n), [[1.0, i] for i in range(n)], texts=["gpu" + " kernel" * (i % 2) + " cuda" * (i % 3) for i in range(n)],
        metadata=[{"n": i * 1e306} for i in range(n)],
    )  # fmt: skip
    return c


@pytest.mark.parametrize("method", ["rrf", "weighted", "relative"])
@pytest.mark.parametrize("weights", [[1, 1], [0, 1]])
def test_rows_that_a_rerank_has_no_score_for_get_nothing_of_a_fusion(method: str, weights: list[float]) -> None:
    c = words()
    half = Rerank(Text("gpu"), by=Text("kernel"))
    hits = c.search(Fuse(half, Text("cuda"), method=method, weights=weights), 40)
    assert len(hits) == 40 and np.isfinite(hits.scores).all()
    if method == "relative":
        by, own = c.search(Text("kernel"), 40), c.search(Text("cuda"), 40)

        def scaled(found: Any) -> dict[Any, float]:
            scores = found.scores.astype(np.float64)
            span = float(np.ptp(scores))
            return dict(zip(found.ids, (scores - scores.min()) / span if span else np.ones(len(scores)), strict=True))

        first, second = scaled(by), scaled(own)
        want = [weights[0] * first.get(i, 0) + weights[1] * second.get(i, 0) for i in hits.ids]
        np.testing.assert_allclose(hits.scores, want, atol=1e-5)


def test_scores_stay_finite_whatever_the_weights(recwarn: Any) -> None:
    c = words()
    huge = Fuse(Text("gpu"), Text("cuda"), method="weighted", weights=[1e30, -1e30])
    for _ in range(5):
        huge = Fuse(huge, huge, method="weighted", weights=[1e30, 1e30])
    boosts = [Field("n", 1e30), Field("n", -1e30), Field("n", 1e30)]
    for query in (huge, Text("gpu", weights={"text": 1e30}), Near([1, 1])):
        hits = c.search(query, 40, boost=boosts)
        assert len(hits) == 40 and np.isfinite(hits.scores).all()
    with pytest.raises(InvalidArgument, match="limit is 64"):
        c.search(Near([1, 1]), boost=[Field("n", 1)] * 65)
    with pytest.raises(InvalidArgument, match="no scores"):
        c.search(Rerank(Text("gpu"), by=lambda query, hits: [10**400] * len(hits)))
    assert not recwarn.list


def test_what_is_made_of_queries_shows_the_words_of_them_all() -> None:
    from vecdb.query import Fuse, Near, Rerank, Text

    c = vecdb.open().create_collection("c", dim=2, fulltext=["text", "title"])
    c.add(["a", "b"], [[1, 0], [0, 1]], texts=["a fast kernel", "slow"], metadata=[{"title": "Fast"}, {}])
    fast, kernel = Text("fast"), Text("kernel", fields=["text"])

    def lit(query: Any) -> dict[Any, list[str]]:
        return {hit.id: [each.marked("[", "]") for each in hit.highlights] for hit in c.search(query)}

    alone = ["a [fast] kernel", "[Fast]"]
    assert lit(fast)["a"] == alone
    assert lit(Near([1, 0]) + fast) == {"a": alone, "b": []}
    assert lit(Fuse(fast, Near([1, 0]) + kernel, fast))["a"] == [*alone, "a fast [kernel]"]
    assert lit(Rerank(fast, by=Near([1, 0])))["a"] == alone
    assert lit(Rerank(Near([1, 0]), by=lambda query, hits: [1.0] * len(hits))) == {"a": [], "b": []}


@pytest.mark.parametrize("names", [("sp",), ("many",), ("sp", "many"), ("v", "sp"), ("v", "w", "many")])
def test_query_objects_are_prepared_whatever_vectors_there_are(names: tuple[str, ...]) -> None:
    known = {
        "sp": vecdb.SparseVector(), "many": vecdb.Vector(2, multi=True), "v": vecdb.Vector(2), "w": vecdb.Vector(2),
    }  # fmt: skip
    given = {"sp": [{"a": 1.0}, {"a": 2.0}], "many": [[[1, 0]], [[0, 1]]], "v": [[1, 0], [0, 1]], "w": [[1, 0], [0, 1]]}
    c = vecdb.open().create_collection("c", vectors={name: known[name] for name in names}, fulltext=True)
    c.add([1, 2], {name: given[name] for name in names}, texts=["gpu", "gpu kernel"])
    for using in (None, *names):
        for query in (Text("gpu"), Sparse({"a": 1}), Late([[0, 1]]), Near([0, 1]), [0, 1]):

            def outcome(search: Any, query: Any = query) -> Any:
                try:
                    return search(query).ids
                except InvalidArgument as error:
                    return str(error)

            wanted = outcome(lambda query, using=using: c.search(query, 2, using=using))
            assert outcome(lambda query, using=using: c.prepare(2, using=using)(query)) == wanted, (using, query)
