"""Yesterday's searches against another model: what is told is what that model would have answered."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.adapting.adapter import Adapter
from vecdb.errors import EncoderMismatch, InvalidArgument
from vecdb.query import Fuse, Like, Near, Rerank, Text

SEED = 4
WORDS = "gpu kernel memory soup winter printer cable fast slow cold cloud shard".split()


def made(n: int = 80, path: Any = None, **options: Any) -> tuple[vecdb.Database, vecdb.Collection]:
    rng = np.random.default_rng(SEED)
    db = vecdb.open(path)
    c = db.create_collection("c", encoder="hashing", fulltext=True, fields={"n": int, "t": vecdb.Unindexed}, **options)
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(n)]
    c.add([f"d{i}" for i in range(n)], texts=texts, metadata=[{"n": i, "t": i} for i in range(n)])
    db.search_log.start(c)
    return db, c


def turned(dim: int, metric: str = "cosine", seed: int = 0, **options: Any) -> Adapter:
    """A random map, which changes rankings."""
    return Adapter(np.random.default_rng(seed).normal(size=(dim, dim // 2)), metric=metric, **options)


QUERIES: list[tuple[Any, dict[str, Any]]] = [
    ("gpu kernel", {}), ("cold soup", {"where": F.n < 30}), (Near("printer cable"), {}), (Text("winter"), {}),
    (Near("gpu") + Text("memory"), {"where": F.n > 10}), (Like(positive=["d3"], negative=["fast"]), {}),
    (Fuse(Near("slow"), Near(vecdb.ById("d5")), weights=[2, 1]), {}), (Rerank(Text("gpu soup"), by=Near("soup")), {}),
    ("fast", {"offset": 3}), ("cloud", {"group_by": "n"}), ("shard", {"where": F.text.matches("shard")}),
    ("memory", {"recall": 0.5}), ("printer", {"diversity": 0.4}), ("cable", {"ef": 20}),
]  # fmt: skip


def answers_of(other: vecdb.Collection, query: Any, options: dict[str, Any]) -> Any:
    kept = {name: value for name, value in options.items() if name not in ("recall", "ef")}
    return other.search(query, 7, exact=True, **kept).ids


def test_another_encoder_answers_as_a_collection_made_with_it() -> None:
    db, c = made()
    for query, options in QUERIES:
        hits = c.search(query, 7, **options)
        c.feedback(hits, hits.ids[:1])
    before = (len(c), c.stats()["rows"] if "rows" in c.stats() else None)
    report = c.replay(encoder="hashing:64")
    assert report.failed == [] and len(report.searches) == len(QUERIES), report
    other = vecdb.open().create_collection("c", encoder="hashing:64", fulltext=True)
    ids = [f"d{i}" for i in range(len(c))]
    rows = c.get(ids)
    other.add(ids, texts=[row.text for row in rows], metadata=[row.metadata for row in rows])
    for each, (query, options) in zip(report.searches, QUERIES, strict=True):
        assert each.after == answers_of(other, query, options), query
    assert not report.same and "by encoder 'hashing:64'" in str(report) and set(report.metrics) == {"mrr", "hit rate", "ndcg"}
    assert before[0] == len(c) and len(list(db.search_log)) == len(QUERIES), "a replay is not logged"
    assert c.schema.dim == 512 and db.check() == []


def test_the_same_encoder_answers_as_it_did() -> None:
    _, c = made()
    for query, options in QUERIES:
        c.search(query, 7, exact=True, **{k: v for k, v in options.items() if k not in ("recall", "ef")})
    report = c.replay(encoder="hashing")
    assert report.same and report.overlap == 1


def test_an_adapter_answers_as_a_collection_of_mapped_vectors() -> None:
    _, c = made()
    adapter = turned(512)
    rng = np.random.default_rng(1)
    queries = [*QUERIES, (rng.normal(size=512).astype(np.float32), {}), (Near(rng.normal(size=512).tolist()), {})]
    for query, options in queries:
        c.search(query, 7, **options)
    report = c.replay(adapter=adapter)
    assert report.failed == [] and f"by adapter {adapter.fingerprint[:8]}" in str(report)
    base = vecdb.encoders.get("hashing")
    mapped = vecdb.encoders.function(
        lambda texts: adapter(base.encode_documents(texts)), queries=lambda texts: adapter(base.encode_queries(texts)),
        name="mapped", dim=256,
    )  # fmt: skip
    other = vecdb.open().create_collection("c", encoder=mapped, fulltext=True)
    ids = [f"d{i}" for i in range(len(c))]
    rows = c.get(ids)
    other.add(ids, texts=[row.text for row in rows], metadata=[row.metadata for row in rows])
    for each, (query, options) in zip(report.searches, queries, strict=True):
        if isinstance(query, np.ndarray):
            query = adapter(query)
        elif isinstance(query, Near) and isinstance(query.x, tuple):
            query = Near(adapter(np.float32(query.x)))
        assert each.after == answers_of(other, query, options), query
    both = c.replay(encoder="hashing", adapter=adapter)
    assert [each.after for each in both.searches] == [e.after for e in report.searches][: len(both.searches)]
    assert len(both.failed) == 2 and "hashing" in both.by and "adapter" in both.by


def test_after_an_adapter_was_applied_replay_says_the_same_as_it_foretold() -> None:
    _, c = made()
    for query, options in QUERIES:
        c.search(query, 7, **options)
    adapter = turned(512, encoder_fingerprint=c.schema.fingerprint)
    foretold = [each.after for each in c.replay(adapter=adapter).searches]
    c.apply_adapter(adapter, force=True)
    assert [answers_of(c, query, options) for query, options in QUERIES] == foretold
    second = turned(256, seed=1)
    told = c.replay(adapter=second)
    assert len(told.searches) == 2 * len(QUERIES) and told.failed == []
    c.drop_previous_vectors()
    with pytest.raises(EncoderMismatch, match="learned on vectors with fingerprint"):
        c.replay(adapter=turned(256, encoder_fingerprint=c.schema.fingerprint))


def test_a_plain_vector_and_a_radius_are_told_with_the_reason() -> None:
    _, c = made()
    c.search(np.ones(512, np.float32), 3)
    c.search("gpu", 3, radius=0.9)
    c.search(Near([1.0] * 512) + Text("gpu"), 3)
    c.search("gpu", 3)
    report = c.replay(encoder="hashing:64")
    assert len(report.searches) == 1 and len(report.failed) == 3 and not report.same
    assert [why for _, why in report.failed].count("a plain vector was searched for, which another encoder cannot make anew") == 2
    assert any("radius=0.9" in why for _, why in report.failed)
    assert "1 search run again, 3 could not be, by encoder 'hashing:64'" in str(report)


def test_where_is_another_and_entries_are_chosen() -> None:
    _, c = made()
    for query, options in QUERIES[:4]:
        c.search(query, 7, **options)
    entries = list(c._db.search_log)[1:3]
    report = c.replay(entries, encoder="hashing:64", where=F.n == 3)
    assert len(report.searches) == 2 and all(each.after in (["d3"], []) for each in report.searches)


def test_rows_without_a_text_cannot_be_found_by_another_encoder() -> None:
    _, c = made(20)
    c.add("bare", np.ones(512, np.float32))
    c.add("empty", np.ones(512, np.float32), texts="")
    c.search("gpu", 50)
    base = vecdb.encoders.get("hashing:64")

    def none_of_nothing(texts: list[str]) -> Any:
        return [vector if text else vector * 0 for text, vector in zip(texts, base.encode_documents(texts), strict=True)]

    report = c.replay(encoder=vecdb.encoders.function(none_of_nothing, name="strict", dim=64))
    assert report.left_out == 2 and "no vector of it: 2 rows, which" in str(report)
    assert len(report.searches[0].after) == 20
    assert c.replay(adapter=turned(512)).left_out == 0


def test_the_field_that_is_meant_and_the_others() -> None:
    db = vecdb.open()
    c = db.create_collection("c", vectors={
        "title": vecdb.Vector(encoder="hashing", source="title"), "picture": vecdb.Vector(4, metric="l2"),
        "bits": vecdb.Vector(8, dtype="b1"), "many": vecdb.Vector(3, multi=True), "terms": vecdb.SparseVector(),
    })  # fmt: skip
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(30, 4)).astype(np.float32)
    c.add(list(range(30)), {
        "picture": pictures, "bits": rng.integers(0, 2, (30, 8)).astype(bool),
        "many": [rng.normal(size=(2, 3)) for _ in range(30)], "terms": [{"a": float(i)} for i in range(30)],
    }, metadata=[{"title": f"{WORDS[i % 12]} {WORDS[i % 7]}"} for i in range(30)])  # fmt: skip
    db.search_log.start(c)
    c.search("gpu", 5)
    c.search(pictures[3], 5, using="picture")
    c.search(Near("gpu", using="title") + Near(pictures[2], using="picture"), 5)
    c.search(vecdb.query.Sparse({"a": 1.0}, using="terms"), 5)
    c.search(vecdb.query.Late(np.eye(3), using="many"), 5)
    report = c.replay(encoder="hashing:32")
    assert report.failed == [] and len(report.searches) == 5
    assert [each.same for each in report.searches][1] and [each.same for each in report.searches][3:] == [True, True]
    flipped = Adapter(np.diag([-1.0, 1, 1, 1]), metric="l2")
    report = c.replay(adapter=flipped, using="picture")
    assert report.failed == [] and report.searches[1].same, "an isometry changes no ranking"
    stretched = Adapter(np.diag([9.0, 1, 1, 0.1]), metric="l2", using="picture")
    report = c.replay(adapter=stretched)
    order = np.argsort(np.square((pictures - pictures[3]) * [9, 1, 1, 0.1]).sum(axis=1))
    assert report.searches[1].after == order[:5].tolist() and report.searches[0].same
    for options, words in (
        ({"adapter": flipped}, "several vector fields"), ({"encoder": "hashing", "using": "bits"}, "bits"),
        ({"encoder": "hashing", "using": "many"}, "one dense vector a row"), ({"encoder": "hashing", "using": "x"}, "using='x'"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=words):
            c.replay(**options)


def test_fields_beside_it_that_have_adapters_answer_as_they_do() -> None:
    """Queries of another field are given as they were before its adapter, of a dimension of its own."""
    rng = np.random.default_rng(SEED)
    for width in (12, 5):
        db = vecdb.open()
        fields = {"a": vecdb.Vector(encoder="hashing:32"), "p": vecdb.Vector(12), "e": vecdb.Vector(encoder="hashing:64")}
        c = db.create_collection("c", vectors=fields)
        x = rng.normal(size=(60, 12)).astype(np.float32)
        c.add(range(60), {"p": x}, texts=[" ".join(rng.choice(WORDS, 5)) for _ in range(60)])
        c.apply_adapter(Adapter(rng.normal(size=(12, width)), metric="cosine"), using="p", force=True)
        space = c.schema.vectors["e"].space
        c.apply_adapter(Adapter(rng.normal(size=(64, width)), metric="cosine", encoder_fingerprint=space), using="e", force=True)
        db.search_log.start(c)
        for query in (x[3], Near(x[3] + x[4], "p"), Like([x[3], 7], [x[5]], using="p"), Near(x[8], "p") + Near(vecdb.ById(2), "p")):
            c.search(query, 6, using="p", exact=True)
        c.search("cold soup", 6, using="e", exact=True)
        report = c.replay(encoder="hashing:16", using="a")
        assert report.same and len(report.searches) == 5, report


def test_what_an_encoder_raises_is_told() -> None:
    db, c = made(20)
    hits = c.search("gpu", 3)
    function = vecdb.encoders.function
    with pytest.raises(InvalidArgument, match=r"encoder 'broken' failed on rows 0 to 19 of 20: ZeroDivisionError"):
        c.replay(encoder=function(lambda texts: 1 / 0, name="broken", dim=3))
    half = function(lambda texts: np.ones((len(texts), 3)), queries=lambda texts: 1 / 0, name="half", dim=3)
    report = c.replay(encoder=half)
    assert [why for _, why in report.failed] == ["ZeroDivisionError: division by zero"] and len(hits) == 3


def test_embeddings_are_cached_in_the_file(tmp_path: Path) -> None:
    calls: list[int] = []

    def lengths(texts: list[str]) -> Any:
        calls.append(len(texts))
        return np.array([[len(text), text.count("g") + 1, 1.0] for text in texts], np.float32)

    encoder = vecdb.encoders.function(lengths, name="lengths", dim=3)
    db, c = made(path=tmp_path / "x.vecdb")
    c.search("gpu kernel", 5)
    first = c.replay(encoder=encoder)
    documents = sum(calls)
    second = c.replay(encoder=encoder)
    assert sum(calls) == documents + 1, "only the query is encoded again"
    assert [each.after for each in first.searches] == [each.after for each in second.searches]
    db.close()
    with vecdb.open(tmp_path / "x.vecdb", mode="r") as db:
        calls.clear()
        report = db["c"].replay(encoder=encoder)
        assert [each.after for each in report.searches] == [each.after for each in first.searches]
        assert sum(calls) >= 1 and db.check() == []


def test_it_can_be_watched_and_stopped() -> None:
    _, c = made(1_200)
    c.search("gpu", 5)
    seen: list[Any] = []
    c.replay(encoder="hashing:64", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (1_200, 1_200) and len(seen) == 3
    report = c.replay(encoder="hashing:64", cancel=lambda: True)
    assert report.searches == [] and [why for _, why in report.failed] == ["cancelled"]


def test_the_report_is_a_page_and_json() -> None:
    _, c = made()
    for query, options in QUERIES:
        hits = c.search(query, 7, **options)
        c.feedback(hits, hits.ids[:2])
    c.search(np.ones(512, np.float32), 3)
    c.search('<script>alert("x")</script> gpu', 3)
    report = c.replay(encoder="hashing:64")
    html = report.to_html()
    assert "<script>" not in html and html.count("<svg") == 1 and "What could not be run" in html and "ndcg" in html
    said = json.loads(report.to_json())
    assert len(said["searches"]) == len(QUERIES) + 1 and len(said["failed"]) == 1 and said["by"] == "encoder 'hashing:64'"
    assert math.isclose(said["metrics"]["mrr"]["now"], report.metrics["mrr"][1])
    changes = report.changes()
    for name, (then, now) in report.metrics.items():
        assert math.isclose(changes[name].difference, now - then, abs_tol=1e-12), name
        assert changes[name].low <= changes[name].difference <= changes[name].high
        assert f"{now - then:+.3f} [" in str(report) and said["metrics"][name]["change"]["p_value"] == changes[name].p_value
    empty = c.replay([], encoder="hashing:64")
    assert "0 searches run again" in str(empty) and json.loads(empty.to_json())["overlap"] is None and empty.to_html()
    assert c.replay().to_html().count("Logged searches run again") >= 2


MISUSES: list[tuple[dict[str, Any], str]] = [
    ({"encoder": "nobody"}, "nobody"),
    ({"encoder": 5}, "encoder"),
    ({"adapter": 5}, "adapter is a int; give what vecdb.fit_adapter returned"),
    ({"adapter": turned(8)}, "the adapter takes 8 dimensions; field 'vector' has 512"),
    ({"adapter": turned(512, "l2")}, "the adapter is for metric 'l2'; field 'vector' has 'cosine'"),
    ({"adapter": turned(512), "encoder": "hashing:64"}, "takes 512 dimensions; encoder 'hashing:64' has 64"),
    ({"encoder": "hashing", "recall": 0.9}, "recall=0.9: another model's answers are exact"),
    ({"encoder": "hashing", "using": "x"}, "using='x'"),
    ({"using": "vector"}, "using='vector': goes with encoder="),
    ({"encoder": "hashing", "entries": [1]}, "entries"),
    ({"encoder": "hashing", "entries": np.array(1)}, "entries: give those of db.search_log, not a ndarray"),
    ({"encoder": "hashing", "where": "n >"}, "n >|offset|expect"),
    ({"encoder": "hashing", "progress": 5}, "progress"),
    ({"encoder": "hashing", "cancel": 5}, "cancel"),
]


@pytest.mark.parametrize("options, words", MISUSES, ids=[words[:30] for _, words in MISUSES])
def test_misuse(options: dict[str, Any], words: str) -> None:
    db, c = made(5)
    c.search("gpu")
    with pytest.raises((InvalidArgument, vecdb.errors.FilterError, vecdb.errors.NotFound), match=words):
        c.replay(**options)
    with db.transaction(), pytest.raises(InvalidArgument, match="transaction"):
        c.replay(encoder="hashing")
