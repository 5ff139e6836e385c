"""Metrics are trec_eval's, to the last digits, on real judgements and on made ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import data
from vecdb.encoders import get
from vecdb.errors import InvalidArgument
from vecdb.evaluation.metrics import Metric, deepest, parse, parse_all

NAMES = [
    "ndcg@1", "ndcg@10", "ndcg@100", "ndcg", "recall@1", "recall@10", "recall@100", "mrr@1", "mrr@10", "mrr",
    "map@10", "map@100", "map", "precision@1", "precision@5", "precision@1000", "hit_rate@1", "hit_rate@10",
]  # fmt: skip
THEIRS = {"ndcg": "nDCG", "recall": "R", "mrr": "RR", "map": "AP", "precision": "P", "hit_rate": "Success"}


def by_published(names: list[str], qrels: dict[str, dict[str, int]], rankings: dict[str, list[str]]) -> Any:
    """{metric: {query: figure}} of ir-measures (trec_eval's own code underneath)."""
    ir_measures = pytest.importorskip("ir_measures")
    measures = {}
    for name in names:
        metric = parse(name)
        theirs = THEIRS[metric.kind] + ("" if metric.k is None else f"@{metric.k}")
        measures[name] = ir_measures.parse_measure(theirs)
    run = {q: {d: float(len(ranked) - at) for at, d in enumerate(ranked)} for q, ranked in rankings.items()}
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    names_of = {str(measure): name for name, measure in measures.items()}
    for each in ir_measures.iter_calc(list(measures.values()), qrels, run):
        found[names_of[str(each.measure)]][each.query_id] = each.value
    return found


@data.needs_data()
@pytest.mark.parametrize("name", ["cranfield", "cisi"])
@pytest.mark.parametrize("depth", [5, 100, 2_000])
def test_all_metrics_agree_with_trec_eval_on_real_judgements(name: str, depth: int) -> None:
    documents, queries, qrels = data.judged(name)
    ids = list(documents)
    encoder = get("hashing")
    similar = encoder.encode_queries([queries[q] for q in qrels]) @ encoder.encode_documents(list(documents.values())).T
    rankings = {q: [ids[at] for at in np.argsort(-row, kind="stable")[:depth]] for q, row in zip(qrels, similar, strict=True)}
    theirs = by_published(NAMES, qrels, rankings)
    worst = 0.0
    for metric in NAMES:
        ours = {q: parse(metric).of(rankings[q], qrels[q]) for q in qrels}
        assert ours.keys() == theirs[metric].keys()
        worst = max(worst, *(abs(ours[q] - theirs[metric][q]) for q in qrels))
    print(f"{name}, {depth} ranks: {len(NAMES)} metrics of {len(qrels)} queries, largest difference {worst:.1e}")
    assert worst < 1e-9


@settings(max_examples=150, deadline=None)
@given(
    grades=st.dictionaries(st.sampled_from("abcdefghij"), st.integers(0, 5), min_size=1),
    ranking=st.permutations("abcdefghijklm").flatmap(lambda p: st.integers(1, 13).map(lambda n: list(p[:n]))),
)
def test_all_metrics_agree_with_trec_eval_whatever_is_judged(grades: dict[str, int], ranking: list[str]) -> None:
    """Nothing relevant, few documents ranked, unjudged ones between. (Grades below 0 crash the published code.)"""
    theirs = by_published(NAMES, {"q": grades}, {"q": ranking})
    for name in NAMES:
        assert parse(name).of(ranking, grades) == pytest.approx(theirs[name]["q"], abs=1e-12), name


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_is_from_0_to_1(name: str) -> None:
    metric = parse(name)
    grades: dict[Any, float] = {1: 1, "1": 3, "b": 0, "c": -4, "d": 0.5}
    assert metric.of([], grades) == 0 and metric.of(["x"], {}) == 0 and metric.of([1], {1: 0}) == 0
    best = metric.of(["1", 1, "d", "b"], grades)
    assert 0 < best <= 1 and (metric.kind in ("recall", "precision") or metric.k == 1 or best == pytest.approx(1) or metric.kind == "map")
    assert metric.of(["b", "c", "x"], grades) == 0
    unjudged = {1: 1, "1": 3, "d": 0.5}
    assert metric.of(["b", "1", "c", 1], grades) == metric.of(["b", "1", "c", 1], unjudged), "below 0 is as unjudged"


def test_ids_of_both_kinds_are_apart() -> None:
    assert parse("hit@1").of([1], {"1": 1}) == 0 and parse("hit@1").of(["1"], {"1": 1}) == 1


@pytest.mark.parametrize("grade", [1, 1e-300, 1e308, 10**300, True])
def test_grades_of_any_size(grade: float) -> None:
    figure = parse("ndcg@10").of(["x", "a", "b"], {"a": grade, "b": grade, "c": grade})
    assert figure == pytest.approx(parse("ndcg@10").of(["x", "a", "b"], {"a": 1, "b": 1, "c": 1})) and math.isfinite(figure)


def test_a_document_ranked_twice_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'a' stands a second time at rank 3"):
        parse("recall@10").of(["a", "b", "a"], {"a": 1})
    assert parse("recall@2").of(["a", "b", "a"], {"a": 1}) == 1


@pytest.mark.parametrize(
    ("written", "name"),
    [("P@5", "precision@5"), (" nDCG@10 ", "ndcg@10"), ("hit@3", "hit_rate@3"), ("MAP", "map"), ("mrr@07", "mrr@7")],
)
def test_names_are_read_as_people_write_them(written: str, name: str) -> None:
    assert parse(written).name == name and str(parse(name)) == name and parse(parse(name)) == parse(written)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ndgc@10", "not known"), ("", "not known"), ("recall", "recall@10"), ("p", "precision@10"), ("ndcg@0", "1 to"),
        ("ndcg@-1", "1 to"), ("ndcg@", "1 to"), ("ndcg@1.5", "1 to"), ("ndcg@10000000", "1 to"), ("ndcg@٣", "1 to"),
        (10, "name"), (None, "name"), ("ndcg@10@10", "1 to"),
    ],
)  # fmt: skip
def test_what_is_no_metric_is_refused_by_name(name: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        parse(name)


@pytest.mark.parametrize("names", [[], ["ndcg@10", "NDCG@10"], 5, None, ["ndcg@10", 3]])
def test_lists_of_metrics(names: Any) -> None:
    with pytest.raises(InvalidArgument, match="metric"):
        parse_all(names)
    assert parse_all("map") == [Metric("map", None)] and deepest(parse_all(["ndcg@5", "p@7"])) == 7
    assert deepest(parse_all(["map", "p@7"])) is None
