"""`collection.evaluate` measures what searches give, splits the loss, and takes judgements from three sources."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.evaluation.metrics import parse
from vecdb.query import ById, Fuse, Near, Rerank, Text

SEED = 5
DIM = 16


@pytest.fixture
def papers() -> Any:
    """600 rows around 12 centres; ids of both kinds; some rows without vectors, some without labels."""
    with vecdb.open() as db:
        c = db.create_collection("papers", vectors={"v": vecdb.Vector(DIM), "w": vecdb.Vector(4)}, fulltext=True)
        rng = np.random.default_rng(SEED)
        centres = rng.normal(size=(12, DIM))
        of = rng.integers(0, 12, 600)
        vectors = centres[of] + 0.8 * rng.normal(size=(600, DIM))
        ids = [i if i % 2 else f"r{i}" for i in range(600)]
        c.add(
            ids, {"v": [None if i % 50 == 7 else v for i, v in enumerate(vectors)], "w": rng.normal(size=(600, 4))},
            texts=[f"word{o} word{o + 1} row" for o in of],
            metadata=[{"of": int(o), "even": bool(i % 2 == 0), "tags": [f"t{o}", f"u{o % 3}"]} if i % 40 else {} for i, o in enumerate(of)],
        )  # fmt: skip
        yield c


def judged(c: Any, count: int = 30) -> tuple[dict[Any, Any], dict[Any, Any]]:
    rng = np.random.default_rng(SEED)
    queries = {f"q{i}": rng.normal(size=DIM) for i in range(count)}
    return queries, {q: {hit.id: int(rng.integers(0, 4)) for hit in c.search(v, 40, using="v", exact=True)} for q, v in queries.items()}


def test_figures_are_those_of_the_searches(papers: Any) -> None:
    queries, qrels = judged(papers)
    report = papers.evaluate(queries, qrels, using="v", metrics=["ndcg@10", "recall@20"])
    found = report["search"]
    for q, vector in queries.items():
        assert found.rankings[q] == papers.search(vector, 20, using="v").ids
        for metric in map(parse, report.metrics):
            running, exact = (papers.search(vector, metric.k, using="v", exact=exact).ids for exact in (False, True))
            assert found[metric.name].per_query[q] == metric.of(running, qrels[q])
            assert found.exact[metric.name].per_query[q] == metric.of(exact, qrels[q])
    for metric in report.metrics:
        lost = found.loss[metric]
        assert lost.difference == pytest.approx(found.exact[metric].mean - found[metric].mean) and lost.low <= lost.difference <= lost.high
    assert report.documents == 600 and "'papers' as it runs" in str(report) and max(map(len, str(report).splitlines())) <= 100


def test_a_metric_is_of_a_search_for_as_many_hits_whatever_is_asked_beside() -> None:
    """The first 10 of a search for 100 are those of a better search than the one for 10 that users make."""
    rng = np.random.default_rng(SEED)
    with vecdb.open() as db:
        c = db.create_collection("c", dim=24, fulltext=True, M=4, ef_construction=16)
        c.add(range(6000), rng.normal(size=(6000, 24)), texts=[f"w{i % 50} v{i % 31}" for i in range(6000)])
        queries = dict(enumerate(rng.normal(size=(30, 24))))
        qrels = {q: dict.fromkeys(c.search(v, 10, exact=True).ids, 1) for q, v in queries.items()}
        ways = {"near": Near, "both": lambda vector: Near(vector) + Text("w3")}
        alone = c.evaluate(queries, qrels, searches=ways, metrics=["recall@10"], recall=0.5)
        among = c.evaluate(queries, qrels, searches=ways, metrics=["recall@100", "recall@10", "mrr"], recall=0.5)
        for name in ways:
            assert among[name]["recall@10"].per_query == alone[name]["recall@10"].per_query
            assert among[name].exact["recall@10"].per_query == alone[name].exact["recall@10"].per_query
        for q, vector in queries.items():
            found = set(c.search(vector, 10, recall=0.5).ids)
            assert alone["near"]["recall@10"].per_query[q] == len(found & set(qrels[q])) / 10
        lost = alone["near"].loss["recall@10"].difference
        print(f"recall@10 lost of a search for 10: {lost:.3f}; seed {SEED}")
        assert lost > 0.05


def test_a_poor_index_is_told_from_a_poor_model() -> None:
    """An approximation that loses is seen as the index's loss; ranked exactly, it is the model's alone."""
    with vecdb.open() as db:
        c = db.create_collection("c", 64, M=4, ef_construction=8)
        rng = np.random.default_rng(SEED)
        vectors = rng.normal(size=(4_000, 64)).astype(np.float32)
        c.add(range(4_000), vectors)
        queries = dict(enumerate(rng.normal(size=(60, 64)).astype(np.float32)))
        qrels = {q: dict.fromkeys(c.search(v, 10, exact=True).ids, 1) for q, v in queries.items()}
        poor = c.evaluate(queries, qrels, metrics=["recall@10"], recall=0.05)
        exact = c.evaluate(queries, qrels, metrics=["recall@10"], recall=1.0)
    lost = poor["search"].loss["recall@10"]
    print(poor)
    assert poor["search"].exact["recall@10"].mean == 1 and lost.low > 0 and lost.p_value < 0.01
    assert "search: the index loses 0." in poor.verdict and "may be chance" not in poor.verdict
    assert exact["search"].loss["recall@10"].differing == 0 and "loses nothing" in exact.verdict
    ready = json.loads(poor.to_json())["systems"][0]
    assert ready["lost_by_the_index"]["recall@10"]["difference"] == pytest.approx(lost.difference)
    assert "Model and index" in poor.to_html() and "recall@10 lost by the index" in poor.to_pandas()


def test_ways_of_searching_are_compared(papers: Any) -> None:
    queries = {f"q{i}": f"word{i}" for i in range(12)}
    qrels = {f"q{i}": {r.id: 1 for r in papers.scan(F.of == i)} for i in range(12)}
    some = {f"q{i}": next(r.vectors["v"] for r in papers.scan(F.of == i, with_vectors=True) if "v" in r.vectors) for i in range(12)}
    by_text = {text: some[q] for q, text in queries.items()}
    ways = {
        "words": Text, "vectors": lambda text: Near(by_text[text], using="v"),
        "both": lambda text: Near(by_text[text], using="v") + Text(text),
        "weighted": lambda text: Fuse(Near(by_text[text], using="v"), Text(text), method="relative", weights=[0.2, 1]),
    }  # fmt: skip
    report = papers.evaluate(queries, qrels, searches=ways, metrics=["precision@10", "map@50"])
    print(report)
    assert list(report) == list(ways) and len(report.pairs) == 6
    for q, text in queries.items():
        assert report["both"].rankings[q] == papers.search(Near(by_text[text], using="v") + Text(text), 50).ids
    plain = papers.evaluate({q: Text(text) for q, text in queries.items()}, qrels, metrics=["precision@10", "map@50"])
    assert plain["search"]["map@50"].per_query == report["words"]["map@50"].per_query


def test_labels_are_judgements_and_rows_are_queries(papers: Any) -> None:
    report = papers.evaluate(labels="of", using="v", metrics=["precision@10", "recall@100", "map"], sample=80)
    found = report["search"]
    assert len(report.queries) == 80 and all(isinstance(q, Near) for q in report.queries.values())
    for query in report.queries:
        row = papers[query]
        assert row.vectors["v"] is not None and query not in found.rankings[query]
        same = {r.id: 1 for r in papers.scan(F.of == row.metadata["of"]) if r.id != query}
        assert found["map"].per_query[query] == pytest.approx(parse("map").of(found.rankings[query], same))
        expected = papers.search(Near(ById(query), "v"), 10).ids
        assert found["precision@10"].per_query[query] == pytest.approx(sum(id in same for id in expected) / 10)
    again = papers.evaluate(labels="of", using="v", metrics=["precision@10"], sample=80)
    other = papers.evaluate(labels="of", using="v", metrics=["precision@10"], sample=80, seed=1)
    assert list(again.queries) == list(report.queries) != list(other.queries)
    whole = papers.evaluate(labels="of", using="v", metrics=["precision@10"], sample=10_000)
    assert len(whole.queries) == sum("of" in r.metadata and r.vectors.get("v") is not None for r in papers)
    words = papers.evaluate({"r2": Text("word1 word2"), 3: Text("row")}, labels="of", metrics=["precision@10"])
    assert list(words.queries) == ["r2", 3] and "r2" not in words["search"].rankings["r2"]


def test_labels_that_are_lists_and_true_is_not_one(papers: Any) -> None:
    report = papers.evaluate(labels="tags", using="v", metrics=["recall@1000"], where=F.even == True, sample=20)  # noqa: E712
    for query in report.queries:
        tags = set(papers[query].metadata["tags"])
        same = {r.id: 1 for r in papers.scan(F.even == True) if r.id != query and tags & set(r.metadata["tags"])}  # noqa: E712
        assert report["search"]["recall@1000"].per_query[query] == pytest.approx(parse("recall@1000").of(report["search"].rankings[query], same))
    with vecdb.open() as db:
        c = db.create_collection("c", 2, metric="l2")
        c.add([1, 2, 3, 4], [[0, 0], [0, 1], [0, 2], [0, 3]], metadata=[{"x": 1}, {"x": True}, {"x": 1.0}, {"x": {"y": 1}}])
        found = c.evaluate(labels="x", metrics=["recall@3"])["search"]["recall@3"].per_query
        assert found == {1: 1.0, 2: 0.0, 3: 1.0} and c.evaluate(labels="x.y", metrics="mrr").hopeless == 1


def test_choices_of_the_log_are_judgements(papers: Any) -> None:
    db = papers._db
    queries, _ = judged(papers, 8)
    db.search_log.start(papers)
    chosen = {}
    for at, vector in enumerate(queries.values()):
        hits = papers.search(vector, 10, using="v", where=F.even == bool(at % 2))
        papers.feedback(hits, hits.ids[at % 4])
        chosen[at] = (hits.ids, hits.ids[at % 4])
    papers.search(Text("word1"))
    report = papers.evaluate(feedback=True, metrics=["mrr@10", "hit@1"])
    assert len(list(db.search_log)) == 9, "nothing of it is logged"
    assert list(report["search"]["mrr@10"].per_query.values()) == [1 / (at % 4 + 1) for at in range(8)]
    assert list(report["search"].rankings.values()) == [ids for ids, _ in chosen.values()]
    assert "nothing" in " ".join(report.notes)
    papers.delete(chosen[0][1])
    assert papers.evaluate(feedback=True).unjudged == 1
    ways = {"as logged": lambda asked: Near(asked, using="v"), "other field": lambda asked: Near(np.ones(4), using="w")}
    both = papers.evaluate(feedback=True, searches=ways, metrics=["mrr@10"])
    assert both["as logged"]["mrr@10"].mean > both["other field"]["mrr@10"].mean
    with_where = papers.evaluate(feedback=True, where=F.even == True, metrics=["mrr@10"])  # noqa: E712
    assert len(with_where.queries) == 4
    papers.delete(where={})
    with pytest.raises(InvalidArgument, match="none of the chosen rows"):
        papers.evaluate(feedback=True)


def test_a_logged_search_is_run_with_its_groups_and_its_field(papers: Any) -> None:
    """What was shown is shown again: groups take away rows, and a query object may leave its field to `using`."""
    papers._db.search_log.start(papers)
    vector = np.random.default_rng(SEED).normal(size=DIM)
    for hits in (papers.search(vector, 6, using="v", group_by="of"), papers.search(Near(vector), 6, using="v")):
        papers.feedback(hits, hits.ids[4])
    report = papers.evaluate(feedback=True, metrics=["mrr@6"])
    assert list(report["search"]["mrr@6"].per_query.values()) == [0.2, 0.2]
    ways = {"near": Near, "plain": lambda asked: asked, "other": lambda asked: Near(np.ones(4), using="w")}
    queries, qrels = judged(papers, 5)
    found = papers.evaluate(queries, qrels, searches=ways, using="v", metrics=["ndcg@10"])
    assert found["near"].rankings == found["plain"].rankings != found["other"].rankings


def test_with_a_filter_only_what_could_be_found_counts(papers: Any) -> None:
    queries, qrels = judged(papers)
    where = F.of < 4
    report = papers.evaluate(queries, qrels, using="v", where=where, metrics=["recall@600"])
    inside = {r.id for r in papers.scan(where)}
    assert report.documents == len(inside) and all(set(ids) <= inside for ids in report["search"].rankings.values())
    assert all(value in (0, 1) for value in report["search"]["recall@600"].per_query.values())
    assert report.unjudged == sum(not set(each) & inside for each in qrels.values())


def test_all_of_it_is_of_one_commit(papers: Any) -> None:
    queries, qrels = judged(papers)
    stop = threading.Event()

    def writing() -> None:
        at = 0
        while not stop.is_set():
            at += 1
            papers.upsert([f"new{at % 50}"], {"v": [list(queries.values())[at % 30]], "w": None})
            papers.delete([f"new{(at + 25) % 50}"])

    thread = threading.Thread(target=writing)
    thread.start()
    try:
        for _ in range(3):
            report = papers.evaluate(queries, qrels, using="v", metrics=["mrr@10"], recall=1.0)
            assert report["search"].loss["mrr@10"].differing == 0
    finally:
        stop.set()
        thread.join()


def test_a_file_that_is_only_read(papers: Any, tmp_path: Path) -> None:
    papers._db.backup(tmp_path / "p.vecdb")
    queries, qrels = judged(papers)
    with vecdb.open(tmp_path / "p.vecdb", mode="r") as db:
        assert db["papers"].evaluate(queries, qrels, using="v")["search"]["ndcg@10"].mean > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "no source of judgements"), ({"qrels": {"q": {1: 1}}, "labels": "of"}, "more than one source"), ({"feedback": 3}, "feedback is True"),
        ({"qrels": {"q": {1: 1}}, "feedback": True}, "more than one"), ({"feedback": True}, "queries: with feedback=True"),
        ({"qrels": {"q": {1: 1}}, "queries": None}, "queries is"), ({"qrels": {"q": {"1": 1}}}, "though 1 is"), ({"qrels": {"z": {1: 1}}}, "no judgement"),
        ({"qrels": {"q": {1: 1}}, "queries": {"q": "text"}}, "text"), ({"qrels": {"q": {1: 1}}, "queries": {"q": np.ones(3)}}, "query 'q': "),
        ({"qrels": {"q": {1: 1}}, "queries": {"q": np.ones((2, DIM))}}, "several queries"), ({"qrels": {"q": {1: 1}}, "queries": {"q": None}}, r"queries\['q'\] is a NoneType: give a text"),
        ({"qrels": {"q": {1: 1}}, "where": "of >"}, "of >|offset|expected"), ({"qrels": {"q": {1: 1}}, "where": "of = 77"}, "no judged row"),
        ({"qrels": {"q": {1: 1}}, "using": "zz"}, "using='zz'"), ({"qrels": {"q": {1: 1}}, "recall": 2}, "recall=2"),
        ({"qrels": {"q": {1: 1}}, "searches": {}}, "searches is"), ({"qrels": {"q": {1: 1}}, "searches": {"a": 3}}, "give a callable"),
        ({"qrels": {"q": {1: 1}}, "searches": {"a": lambda q: 1 / 0}}, r"searches\['a'\] failed on query 'q': ZeroDivisionError"),
        ({"qrels": {"q": {1: 1}}, "searches": {"a": lambda q: None}}, r"searches\['a'\], query 'q': it made a NoneType: give a text"), ({"qrels": {"q": {1: 1}}, "searches": {3: Text}}, "called 3"),
        ({"labels": "zz", "queries": None}, "no row of collection 'papers' has a value"), ({"labels": 3, "queries": None}, "name of a metadata field"),
        ({"labels": "of"}, "'q' is no row"), ({"labels": "of", "queries": {"r0": np.ones(DIM)}}, "none of these rows"),
        ({"labels": "of", "queries": None}, "using"), ({"labels": "of", "queries": None, "using": "v", "sample": 0}, "sample=0"),
        ({"qrels": {"q": {1: 1}}, "metrics": "nonsense"}, "not known"), ({"qrels": {"q": {1: 1}}, "metrics": "recall@500000"}, "at most 100,000 hits"),
        ({"labels": "of", "queries": None, "metrics": "ndcg@100000"}, "at most 99,999 hits"),
        ({"labels": "of", "queries": None, "where": "of = 77"}, "no row of collection 'papers' that satisfies where has a value"),
        ({"qrels": {"q": {1: 1}}, "searches": {"a": lambda q: Rerank(Near(q, using="v"), by=lambda _, hits: 1 / 0)}}, r"searches\['a'\], query 'q' failed: ZeroDivisionError"),
    ],
)  # fmt: skip
def test_misuse_is_named(papers: Any, given: Any, says: str) -> None:
    arguments = {"queries": {"q": np.ones(DIM)}, "using": None if "searches" in given or given.get("labels") else "v", **given}
    with pytest.raises(VecdbError, match=says):
        papers.evaluate(arguments.pop("queries"), arguments.pop("qrels", None), **arguments)
    if not given.get("feedback"):
        with pytest.raises(InvalidArgument, match="searches of collection 'papers' are logged|0 searches"):
            papers.evaluate(feedback=True)


def test_inside_a_transaction_it_is_refused_by_name(papers: Any) -> None:
    queries, qrels = judged(papers, 3)
    with papers._db.transaction(), pytest.raises(InvalidArgument, match="evaluate inside a transaction"):
        papers.evaluate(queries, qrels, using="v")
