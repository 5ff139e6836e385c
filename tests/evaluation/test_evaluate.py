"""`vecdb.evaluate` ranks as an exact search of the user's own would, and says what follows from it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import data
from vecdb.encoders import Card, function
from vecdb.errors import InvalidArgument, NotFound, VecdbError
from vecdb.evaluation.metrics import parse
from vecdb.evaluation.significance import interval
from vecdb.evaluation.verdict import pairs_of, verdict_of
from vecdb.query import Near, Text

SEED = 11
WORDS = "sea whale ship captain road silk trade desert water fox red run home hunt net sail wind sand camel well".split()


def world(documents: int = 60, queries: int = 12, seed: int = SEED) -> tuple[Any, Any, Any]:
    """Texts of a few words each; grades by words in common."""
    rng = np.random.default_rng(seed)
    corpus = {(f"d{i}" if i % 3 else i): " ".join(rng.choice(WORDS, rng.integers(1, 9))) for i in range(documents)}
    asked = {(f"q{i}" if i % 2 else i): " ".join(rng.choice(WORDS, 2)) for i in range(queries)}
    qrels = {
        q: {d: len(set(text.split()) & set(words.split())) for d, words in corpus.items() if rng.random() < 0.5}
        for q, text in asked.items()
    }
    return corpus, asked, qrels


def vectors_of(texts: list[str], dim: int = 8) -> Any:
    """Sums of random vectors of words: as good as hashing, but of any length."""
    table = {w: np.random.default_rng(i).normal(size=dim) for i, w in enumerate(WORDS)}
    return np.array([np.sum([table[w] for w in text.split() if w in table] or [np.zeros(dim)], axis=0) for text in texts])


def encoder(name: str = "mine", metric: str = "cosine", **options: Any) -> Any:
    return function(vectors_of, name=name, dim=8, metric=metric, **options)


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_rankings_are_those_of_an_exact_search(metric: str) -> None:
    corpus, queries, qrels = world()
    mine = encoder(metric=metric)
    report = vecdb.evaluate([mine, "bm25", "hybrid:mine"], corpus, queries, qrels, metrics=["ndcg@7", "recall@20"])
    with vecdb.open() as db:
        c = db.create_collection("c", encoder=mine, fulltext=True)
        c.add(list(corpus), texts=list(corpus.values()))
        for q, text in queries.items():
            asked: list[tuple[str, Any]] = [("mine", text), ("bm25", Text(text)), ("hybrid:mine", Near(text) + Text(text))]
            for name, query in asked:
                hits = c.search(query, 20, exact=True)
                ours = report[name].rankings[q]
                assert len(ours) == len(hits)
                score = {hit.id: hit.score for hit in c.search(query, 60, exact=True)}
                assert [score[d] for d in ours] == pytest.approx(list(hits.scores), rel=1e-5, abs=1e-6), (name, q)
    for each in report.systems.values():
        for name in report.metrics:
            values = {q: parse(name).of(each.rankings[q], qrels[q]) for q in queries}
            assert each[name].per_query == values and each[name].mean == pytest.approx(np.mean(list(values.values())))


def test_ties_stand_in_the_order_of_the_documents_wherever_the_cut_falls() -> None:
    corpus = {i: "sea whale" if i % 2 else "silk road" for i in range(50, 0, -1)}
    report = vecdb.evaluate(encoder(), corpus, {1: "sea"}, {1: {3: 1}}, metrics=["mrr@10", "map"])
    assert report["mine"].rankings[1] == [i for i in corpus if i % 2] + [i for i in corpus if not i % 2]
    short = vecdb.evaluate(encoder(), corpus, {1: "sea"}, {1: {3: 1}}, metrics=["mrr@10"])
    assert short["mine"].rankings[1] == report["mine"].rankings[1][:10]


def test_costs_and_cards() -> None:
    corpus, queries, qrels = world()
    card = Card("a list of words", "English", "any", "none")
    report = vecdb.evaluate({"a": encoder(card=card), "words": "bm25", "both": "hybrid:a"}, corpus, queries, qrels)
    assert list(report) == ["a", "words", "both"] and len(report) == 3 and "a" in report and "b" not in report
    a, words, both = (report[name] for name in report)
    assert (a.kind, words.kind, both.kind) == ("encoder", "bm25", "hybrid")
    assert (a.dim, words.dim, both.dim) == (8, None, 8) and a.bytes_per_document == 32 and a.bytes_total == 32 * 60
    assert words.bytes_total and both.bytes_total == a.bytes_total + words.bytes_total
    for each in (a, words, both):
        assert each.documents_per_second and each.queries_per_second and each.documents_per_second > 0
    assert report.cards == {"a": card, "both": card} and "trained on a list of words" in str(report)


def test_a_collection_is_a_corpus() -> None:
    corpus, queries, qrels = world()
    with vecdb.open() as db:
        c = db.create_collection("c", encoder=encoder())
        c.add(list(corpus), texts=list(corpus.values()))
        c.add("no text", np.ones(8))
        whole = vecdb.evaluate(encoder(), c, queries, qrels)
        with db.snapshot() as snap:
            assert vecdb.evaluate(encoder(), snap["c"], queries, qrels)["mine"]["mrr@10"].mean == whole["mine"]["mrr@10"].mean
        with pytest.raises(InvalidArgument, match="'no text' of collection 'c' has no text"):
            vecdb.evaluate(encoder(), c, queries, {0: {"no text": 1}})
    assert whole.documents == 60 and whole.textless == 1 and "1 row without a text" in str(whole)
    plain = vecdb.evaluate(encoder(), corpus, queries, qrels)
    assert plain["mine"]["ndcg@10"].mean == pytest.approx(whole["mine"]["ndcg@10"].mean, abs=0.05)


def test_queries_without_judgements_are_left_out_and_counted() -> None:
    corpus, queries, qrels = world()
    qrels = {0: qrels[0], "q1": {}, 2: dict.fromkeys(qrels[2], 0)}
    report = vecdb.evaluate(encoder(), corpus, queries, qrels)
    assert list(report["mine"]["ndcg@10"].per_query) == [0, 2] == list(report.queries)
    assert report["mine"]["ndcg@10"].per_query[2] == 0 and (report.unjudged, report.hopeless) == (10, 1)
    assert "10 queries without judgements" in str(report) and "1 query without a relevant document" in str(report)


def test_odd_texts() -> None:
    """Empty ones, ones without words, operators, long ones: ranked or not, never an error."""
    corpus = {"a": "", "b": "sea", "c": "?!", "d": "sea " * 6_000, "e": "\ud800 x"}
    queries = {1: "", 2: "-sea", 3: '"sea', 4: "sea*", 5: "sea " * 6_000, 6: "?!"}
    qrels = {q: {"b": 1} for q in queries}
    corpus.pop("e")
    report = vecdb.evaluate([encoder(), "bm25", "hybrid:mine"], corpus, queries, qrels, metrics=["mrr", "hit@2"])
    assert report["bm25"]["mrr"].per_query[1] == 0 and report["bm25"].rankings[6] == []
    assert report["bm25"]["hit@2"].per_query[2] == 1, "words are words, not operators"
    assert report["mine"].rankings[1] == list(corpus), "no direction: all alike"


class Breaks:
    """An encoder that fails at its n-th call."""

    dim, metric, fingerprint, name = 8, "cosine", "x", "breaks"
    card = Card("nothing", "none", "none", "none")

    def __init__(self, at: int, how: Any) -> None:
        self.left, self.how = at, how

    def _made(self, texts: Any) -> Any:
        self.left -= 1
        if self.left:
            return vectors_of(list(texts))
        if isinstance(self.how, Exception):
            raise self.how
        return self.how

    encode_documents = encode_queries = _made


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("how", [ZeroDivisionError("oh"), RuntimeError(), None, np.full((9, 8), np.nan), "text", vecdb.errors.Busy("later")])
def test_an_encoder_that_fails_is_named(at: int, how: Any) -> None:
    corpus = dict.fromkeys(range(600), "sea")
    with pytest.raises(InvalidArgument, match="'breaks' failed on texts") as caught:
        vecdb.evaluate(["hashing", Breaks(at, how)], corpus, {1: "sea"}, {1: {1: 1}})
    if at == 4:
        assert "texts 512 to 599 of 600, each given as a document" in str(caught.value)


def odd(size: float = 1.0, **said: Any) -> Any:
    """An encoder that says something odd of itself, or makes vectors of an odd length."""
    made = {"name": "odd", "dim": 3, "metric": "cosine", "fingerprint": "f", "card": None, **said}
    made["encode_documents"] = made["encode_queries"] = lambda self, texts: np.full((len(texts), 3), size)
    return type("Odd", (), made)()


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
@pytest.mark.parametrize("size", [1e-30, 0.0, 1e18])
def test_vectors_of_extreme_lengths(metric: str, size: float) -> None:
    """Too short to have a direction, or so long that their products are infinite: ranked, in the order given."""
    report = vecdb.evaluate([odd(size, metric=metric), "hybrid:odd"], {"a": "sea", "b": "sea"}, {1: "sea"}, {1: {"a": 1}})
    assert report["odd"].rankings == report["hybrid:odd"].rankings == {1: ["a", "b"]} and "odd" in str(report)


GOOD = {"a": "sea", "b": "road"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"encoders": []}, "encoders is empty"), ({"encoders": 5}, "encoders is a list"), ({"encoders": None}, "encoders is a list"),
        ({"encoders": ["hashing", "hashing"]}, "'hashing' stands there twice"), ({"encoders": ["nonsense"]}, "no encoder 'nonsense'"),
        ({"encoders": [encoder(), encoder()]}, "'mine' stands there twice"), ({"encoders": [3]}, "item 0.*no encoder"),
        ({"encoders": {3: "hashing"}}, "called 3"), ({"encoders": {"a\nb": "hashing"}}, "control characters"), ({"seed": -1}, "seed=-1"),
        ({"seed": "a"}, "seed='a'"), ({"encoders": {"h": "hybrid:h"}}, "hybrid:<encoder>"), ({"encoders": {"h": "bm25", "g": "hybrid:h"}}, "hybrid:<encoder>"),
        ({"encoders": odd(dim="3")}, "dim='3'"), ({"encoders": odd(name=5)}, "called 5"), ({"encoders": odd(metric="hamming")}, "metric='hamming'"),
        ({"encoders": odd(dim=10**9)}, "dim=1000000000"), ({"encoders": odd(size=1e30)}, "'odd' failed on texts 0 to 0.*squared length"), ({"encoders": ["hybrid:"]}, "hybrid:<encoder>"),
        ({"encoders": ["hybrid:bm25"]}, "hybrid:<encoder>"), ({"encoders": ["hybrid:nonsense"]}, "no encoder 'nonsense'"),
        ({"encoders": [Breaks]}, "no encoder"), ({"corpus": {}}, "corpus is empty"), ({"corpus": [("a", "b")]}, "corpus is {id: text}"),
        ({"corpus": {"a": 3}}, r"corpus\['a'\] is a int"), ({"corpus": {None: "x"}}, "an id is"), ({"corpus": {True: "x"}}, "an id is"),
        ({"corpus": {1.5: "x"}}, "an id is"), ({"queries": {}}, "queries is empty"), ({"queries": ["sea"]}, "dict\\(enumerate"),
        ({"queries": {1: None}}, r"queries\[1\] is a NoneType"), ({"queries": "sea"}, "queries is"), ({"qrels": {}}, "it is empty"),
        ({"qrels": {2: {"a": 1}}}, "no judgement for any query"), ({"qrels": {"1": {"a": 1}}}, "though 1 is"),
        ({"qrels": {1: {"a": 1}, 2: {"a": 1}}}, r"query 2 is not among the queries \(1 such query\)"),
        ({"qrels": {1: {"zz": 1, "yy": 2}}}, r"document 'zz' is not in the corpus \(2 such judgements\)"),
        ({"qrels": {1: ["a"]}}, "give each a 1"), ({"qrels": [(1, "a", 1)]}, "qrels is {"), ({"qrels": {1: {"a": "3"}}}, "finite number"),
        ({"qrels": {1: {"a": float("nan")}}}, "finite number"), ({"qrels": {1: {"a": None}}}, "finite number"),
        ({"qrels": {1: {"a": 10**400}}}, "finite number"), ({"metrics": "ndgc"}, "not known"), ({"metrics": []}, "metrics is empty"),
        ({"language": "klingon", "encoders": "bm25"}, "klingon"),
        ({"language": "klingon", "encoders": Breaks(0, ValueError("never asked"))}, "klingon"), ({"corpus": {"a": "x\ud800"}}, r"corpus\['a'\] has a lone surrogate at position 1"),
        ({"queries": {1: "\ud800"}}, r"queries\[1\] has a lone surrogate"), ({"progress": 3}, "progress"), ({"encoders": encoder(metric="cosine"), "corpus": {"a": "sea"}}, None),
    ],
)  # fmt: skip
def test_misuse_is_named(given: Any, says: str | None) -> None:
    arguments: dict[str, Any] = {"encoders": "hashing", "corpus": GOOD, "queries": {1: "sea"}, "qrels": {1: {"a": 1}}}
    if says is None:
        vecdb.evaluate(**{**arguments, **given})
        return
    with pytest.raises(VecdbError, match=says):
        vecdb.evaluate(**{**arguments, **given})


def test_a_language_without_a_list_of_stop_words_has_its_stemmer() -> None:
    pytest.importorskip("snowballstemmer")
    report = vecdb.evaluate("bm25", {1: "kitaplar ve evler", 2: "deniz"}, {1: "kitap"}, {1: {1: 1}}, metrics="mrr", language="turkish")
    assert report["bm25"]["mrr"].mean == 1.0


def test_every_part_of_a_report() -> None:
    corpus, queries, qrels = world(200, 40)
    systems = {"a " + "very " * 20 + "long name": encoder(), "b": "hashing", "c": "bm25", "d": "hybrid:hashing"}
    report = vecdb.evaluate(systems, corpus, queries, qrels, metrics=["ndcg@10", "recall@100", "mrr@10", "map", "p@5", "hit@1"])
    shown = str(report)
    print(shown)
    assert max(map(len, shown.splitlines())) <= 100 and repr(report) == shown
    found = json.loads(report.to_json())
    assert [each["name"] for each in found["systems"]] == list(systems) and len(found["pairs"]) == 6
    assert len(found["systems"][0]["metrics"]["map"]["per_query"]) == 40 and found["verdict"] == report.verdict
    page = report.to_html()
    assert "<svg" in page and "<script" not in page and "ndcg@10" in page
    frame = report.to_pandas()
    assert frame.loc["c", "map"] == report["c"]["map"].mean and frame.shape == (4, 6 * 3 + 6)
    each = report.to_pandas(per_query=True)
    assert each[("c", "map")].to_dict() == report["c"]["map"].per_query
    compared = report.compare("b", "c", "MAP")
    assert compared.difference == pytest.approx(report["b"]["map"].mean - report["c"]["map"].mean)
    assert compared.low <= compared.difference <= compared.high
    apart = report.disagreements("b", "c", n=3)
    with pytest.raises(InvalidArgument, match="n=-1: give how many"):
        report.disagreements("b", "c", n=-1)
    with pytest.raises(InvalidArgument, match="a metric is a name"):
        report["b"][["mrr"]]
    assert len(apart) == 3 and apart[0][1] == queries[apart[0][0]] and abs(apart[0][2] - apart[0][3]) >= abs(apart[2][2] - apart[2][3])
    assert report.best == max(systems, key=lambda name: report[name]["ndcg@10"].mean)
    for call in (lambda: report["z"], lambda: report["b"]["map@3"], lambda: report.compare("b", "z"), lambda: report[["b"]]):
        with pytest.raises(NotFound, match="there are"):
            call()
    with pytest.raises(InvalidArgument, match="not known"):
        report["b"]["nonsense@3"]
    again = vecdb.evaluate(systems, corpus, queries, qrels, metrics=report.metrics)
    assert again.verdict == report.verdict and again["b"]["map"] == report["b"]["map"], "the same seed"


def estimates(**values: list[float]) -> Any:
    return {name: interval(dict(enumerate(each))) for name, each in values.items()}


def test_the_verdict_says_what_is_decided_and_what_would_settle_the_rest() -> None:
    rng = np.random.default_rng(SEED)
    base = rng.beta(1, 1, 60)
    a, b = np.clip(base + 0.1, 0, 1), base
    c = np.clip(base + rng.normal(0.01, 0.1, 60), 0, 1)
    found = estimates(worst=list(base * 0.5), a=list(a), b=list(b), c=list(c), same=list(b))
    pairs = pairs_of(found, 0)
    said = verdict_of("ndcg@10", found, pairs)
    print(said)
    lines = said.splitlines()
    assert lines[0].startswith("Best by ndcg@10 of 60 queries: a, ") and "beats c by" in lines[1] and "worst by" in lines[1]
    assert any(line.startswith("Not decided: c against b") and "more judged queries would settle it" in line for line in lines)
    assert any("they are equal on every query" in line for line in lines)
    for each in pairs:
        assert each.p_adjusted >= each.compared.p_value and (each.more is None or not each.decided)
    alone = verdict_of("mrr", estimates(a=[0.5, 1.0]), [])
    assert alone == "mrr of 2 queries: 0.750 [0.500, 1.000]."


def test_few_queries_and_extreme_figures() -> None:
    corpus, queries, qrels = world()
    one = vecdb.evaluate(["hashing", "bm25"], corpus, {0: queries[0]}, {0: qrels[0]}, metrics=["ndcg@10", "hit@5"])
    assert math.isnan(one["bm25"]["ndcg@10"].low) and one.compare("hashing", "bm25").p_value == 1
    assert "nan" not in str(one) and "Fewer than 25" in str(one) and json.loads(one.to_json()) and "<svg" in one.to_html()
    zeros = vecdb.evaluate(["hashing", "bm25"], corpus, queries, {q: dict.fromkeys(qrels[q], 0) for q in queries})
    assert zeros["bm25"]["ndcg@10"].mean == 0 and "equal on every query" in zeros.verdict and zeros.to_html()
    huge = vecdb.evaluate("hashing", corpus, queries, {q: {d: g * 1e300 for d, g in judged.items()} for q, judged in qrels.items()})
    plain = vecdb.evaluate("hashing", corpus, queries, qrels)
    assert huge["hashing"]["ndcg@10"].mean == pytest.approx(plain["hashing"]["ndcg@10"].mean)


def test_progress_counts_texts() -> None:
    corpus, queries, qrels = world()
    told: list[tuple[int, int]] = []
    vecdb.evaluate(["hashing", "bm25", "hybrid:hashing"], corpus, queries, qrels, progress=lambda *each: told.append(each))
    assert told == [(60, 72), (72, 72)], "an encoder that stands in two systems encodes once"


@data.needs_data()
def test_cranfield_agrees_with_published_code() -> None:
    """What a report says of real judgements is what ir-measures says of the same rankings."""
    ir_measures = pytest.importorskip("ir_measures")
    from ir_measures import RR, R, nDCG

    corpus, queries, qrels = data.judged("cranfield")
    report = vecdb.evaluate(["hashing", "bm25", "hybrid:hashing"], corpus, queries, qrels, metrics=["ndcg@10", "recall@100", "mrr@10"])
    print(report)
    for each in report.systems.values():
        run = {q: {d: -float(at) for at, d in enumerate(ranked)} for q, ranked in each.rankings.items()}
        theirs = ir_measures.calc_aggregate([nDCG @ 10, R @ 100, RR @ 10], qrels, run)
        ours = [each[name].mean for name in report.metrics]
        assert ours == pytest.approx([theirs[nDCG @ 10], theirs[R @ 100], theirs[RR @ 10]], abs=1e-9)
