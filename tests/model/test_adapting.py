"""What fit_adapter gains on real data, measured on queries and rows that it never saw.

The quick tier fits each kind once on a part of the data; `-m slow -n 0 -s` prints the figures.
"""

from __future__ import annotations

import importlib.util
import json
import time
from functools import cache
from typing import Any

import numpy as np
import pytest
from data import ROOT, debian, needs_data

import vecdb
from vecdb.evaluation.metrics import parse
from vecdb.evaluation.significance import compare

pytestmark = needs_data()

needs_wordllama = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("wordllama", "tokenizers", "safetensors")),
    reason="the extra `text` is not installed",
)
NDCG = parse("ndcg@10")


# --- judged queries ------------------------------------------------------------------------------


@cache
def texts(name: str) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """(documents, queries, grades) of a test collection."""
    folder = ROOT / name
    documents = [json.loads(line) for line in (folder / "docs.jsonl").open(encoding="utf-8")]
    queries = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    grades: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades.setdefault(query, {})[document] = int(grade)
    bodies = {each["id"]: each["text"] or each["title"] or " " for each in documents}
    return bodies, {each["id"]: each["text"] for each in queries if each["id"] in grades}, grades


def library(name: str, encoder: str) -> vecdb.Collection:
    bodies, _, _ = texts(name)
    c = vecdb.open().create_collection(name, encoder=encoder)
    c.add(list(bodies), texts=list(bodies.values()))
    return c


def halves(name: str, seed: int) -> tuple[list[str], list[str]]:
    keys = sorted(texts(name)[1])
    order = np.random.default_rng(seed).permutation(len(keys))
    half = len(keys) // 2
    return [keys[at] for at in order[:half]], [keys[at] for at in order[half:]]


def judged(name: str, keys: list[str]) -> list[tuple[str, str]]:
    _, queries, grades = texts(name)
    return [(queries[key], id) for key in keys for id in grades[key]]


def quality(c: vecdb.Collection, name: str, keys: list[str], adapter: Any = None) -> dict[str, float]:
    """nDCG@10 of each query by the vectors as they are, or mapped."""
    _, queries, grades = texts(name)
    ids = [record.id for record in c]
    asked = vecdb.encoders.get(c.schema.encoder).encode_queries([queries[key] for key in keys])
    rows = c.vectors(ids)
    if adapter is not None:
        asked, rows = adapter(asked), adapter(rows)
    order = np.argsort(-(asked @ rows.T), axis=1, kind="stable")[:, :10]
    return {
        key: NDCG.of([ids[row] for row in best], grades[key])
        for key, best in zip(keys, order.tolist(), strict=True)
    }


@needs_wordllama
def test_half_of_the_judged_queries_improve_the_other_half() -> None:
    """The small encoder, one split; and what is applied is what was measured."""
    c = library("cranfield", "wordllama:64")
    learned, others = halves("cranfield", 0)
    adapter = vecdb.fit_adapter(c, pairs=judged("cranfield", learned))
    before, after = quality(c, "cranfield", others), quality(c, "cranfield", others, adapter)
    gain = np.mean(list(after.values())) - np.mean(list(before.values()))
    print(f"cranfield, wordllama:64, seed 0: {gain:+.4f}; {adapter.report.changes[0]}")
    assert adapter.helps and gain > 0.02
    c.apply_adapter(adapter)
    _, queries, grades = texts("cranfield")
    found = c.search([queries[key] for key in others], 10, exact=True)
    for key, hits in zip(others, found, strict=True):
        assert NDCG.of(hits.ids, grades[key]) == pytest.approx(after[key], abs=0.02)


@pytest.mark.slow
@needs_wordllama
@pytest.mark.parametrize("name", ["cranfield", "cisi"])
def test_half_of_the_judged_queries_improve_the_other_half_ten_times(name: str) -> None:
    c = library(name, "wordllama")
    gains: list[float] = []
    differences: dict[str, list[float]] = {}
    helps = 0
    for seed in range(10):
        learned, others = halves(name, seed)
        began = time.perf_counter()
        adapter = vecdb.fit_adapter(c, pairs=judged(name, learned), seed=seed)
        seconds = time.perf_counter() - began
        before, after = quality(c, name, others), quality(c, name, others, adapter)
        for key in others:
            differences.setdefault(key, []).append(after[key] - before[key])
        gains.append(float(np.mean(list(after.values())) - np.mean(list(before.values()))))
        helps += adapter.helps
        report = adapter.report
        print(
            f"{name} seed {seed}: {np.mean(list(before.values())):.4f} -> {np.mean(list(after.values())):.4f}, "
            f"{gains[-1]:+.4f} in {seconds:.1f} s; {report.method}; held out {report.changes[0]}"
        )
    means = [float(np.mean(each)) for each in differences.values()]
    sure = compare(means, [0.0] * len(means))
    print(f"{name}: mean of 10 splits {np.mean(gains):+.4f}, helps {helps}; by query {sure}")
    assert np.mean(gains) >= 0.035 and sure.low > 0 and sure.p_value < 0.01


# --- pictures ------------------------------------------------------------------------------------


@cache
def pictures() -> tuple[np.ndarray, np.ndarray]:
    with np.load(ROOT / "fashion" / "fashion.npz") as file:
        return file["base"], file["labels"]


def turned(images: np.ndarray, rng: np.random.Generator, degrees: float, pixels: float) -> np.ndarray:
    """Pictures (n, 784) turned and shifted by random amounts, read bilinearly."""
    n = len(images)
    angle = np.deg2rad(rng.uniform(-degrees, degrees, n))[:, None, None]
    right, down = (rng.uniform(-pixels, pixels, n)[:, None, None] for _ in range(2))
    y, x = np.meshgrid(np.arange(28) - 13.5, np.arange(28) - 13.5, indexing="ij")
    column = np.cos(angle) * x + np.sin(angle) * y - right + 13.5
    row = -np.sin(angle) * x + np.cos(angle) * y - down + 13.5
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    square = np.pad(images.reshape(n, 28, 28).astype(np.float32), ((0, 0), (20, 20), (20, 20)))
    found, which = np.zeros((n, 28, 28)), np.arange(n)[:, None, None]
    for one in (0, 1):
        for other in (0, 1):
            weight = np.abs(1 - one - (row - top)) * np.abs(1 - other - (column - left))
            found += weight * square[which, top + one + 20, left + other + 20]
    return found.reshape(n, 784).astype(np.float32)


def first_is_itself(asked: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """Of each query whether the row of its number is nearest."""
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        similar = asked @ rows.T
    else:
        similar = 2 * asked @ rows.T - np.square(rows).sum(axis=1)
    return similar.argmax(axis=1) == np.arange(len(asked))


def same_item(metric: str, items: int, others: int, seed: int, degrees: float = 20, pixels: float = 2) -> tuple[np.ndarray, np.ndarray, Any]:
    """(right before, right after) of as many held-out items among all rows, and the adapter."""
    rng = np.random.default_rng(seed)
    base, _ = pictures()
    rows = base[rng.permutation(len(base))[: 2 * items + others]].astype(np.float32)
    asked = turned(rows[: 2 * items], rng, degrees, pixels)
    c = vecdb.open(durability="none").create_collection("items", dim=784, metric=metric)
    c.add(list(range(len(rows))), rows)
    adapter = vecdb.fit_adapter(c, pairs=[(asked[at], at) for at in range(items, 2 * items)], seed=seed)
    unseen = asked[:items]
    return first_is_itself(unseen, rows, metric), first_is_itself(adapter(unseen), adapter(rows), metric), adapter


def same_kind(metric: str, labelled: int, measured: int, seed: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """(precision before, after) of the 10 nearest of unlabelled rows among themselves, and the adapter."""
    rng = np.random.default_rng(seed)
    base, labels = pictures()
    some = rng.permutation(len(base))[: labelled + measured]
    rows, kinds = base[some].astype(np.float32), labels[some]
    c = vecdb.open(durability="none").create_collection("items", dim=784, metric=metric)
    metadata = [{"kind": int(kind)} if at < labelled else {} for at, kind in enumerate(kinds)]
    c.add(list(range(len(rows))), rows, metadata=metadata)
    adapter = vecdb.fit_adapter(c, labels="kind", seed=seed)
    unseen = rows[labelled:]
    found = [nearest_agree(each, kinds[labelled:], metric, 1_000) for each in (unseen, adapter(unseen))]
    return found[0], found[1], adapter


def nearest_agree(rows: np.ndarray, kinds: np.ndarray, metric: str, asked: int) -> np.ndarray:
    """Of the first `asked` rows the share of their 10 nearest that are of their kind."""
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = []
    halves_of_squares = np.square(rows).sum(axis=1) / 2 if metric == "l2" else 0
    for at in range(0, asked, 100):
        similar = rows[at : at + 100] @ rows.T - halves_of_squares
        similar[np.arange(len(similar)), np.arange(at, at + len(similar))] = -np.inf
        best = np.argpartition(-similar, 10, axis=1)[:, :10]
        found.append((kinds[best] == kinds[at : at + 100, None]).mean(axis=1))
    return np.concatenate(found)[:asked]


def test_pairs_find_the_same_item_however_it_is_turned() -> None:
    before, after, adapter = same_item("l2", 250, 300, seed=0)
    print(f"fashion, 250 pairs: {before.mean():.3f} -> {after.mean():.3f}; {adapter.report.changes[0]}")
    assert adapter.helps and after.mean() > 1.2 * before.mean()


def test_labels_bring_a_kind_together() -> None:
    before, after, adapter = same_kind("l2", 800, 2_000, seed=0)
    print(f"fashion, 800 labels: {before.mean():.4f} -> {after.mean():.4f}; {adapter.report.changes[0]}")
    assert adapter.helps and after.mean() > before.mean() + 0.015


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize(("degrees", "pixels"), [(20, 2), (45, 3)])
def test_pairs_find_the_same_item_among_5_000(metric: str, degrees: float, pixels: float) -> None:
    for seed in range(3):
        began = time.perf_counter()
        before, after, adapter = same_item(metric, 1_000, 3_000, seed, degrees, pixels)
        sure = compare(after.astype(float).tolist(), before.astype(float).tolist())
        print(
            f"fashion {metric}, 1,000 pairs turned by up to {degrees} degrees and {pixels} pixels, seed {seed}: "
            f"recall@1 of 1,000 other items among 5,000 {before.mean():.3f} -> {after.mean():.3f}, {sure}; "
            f"{adapter.report.method}; {time.perf_counter() - began:.1f} s"
        )
        assert adapter.helps and after.mean() >= 1.2 * before.mean() and sure.low > 0


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_2_000_labels_bring_a_kind_together(metric: str) -> None:
    gains = []
    for seed in range(5):
        began = time.perf_counter()
        before, after, adapter = same_kind(metric, 2_000, 5_000, seed)
        sure = compare(after.tolist(), before.tolist())
        gains.append(sure.difference)
        print(
            f"fashion {metric}, 2,000 labels, seed {seed}: precision@10 of 1,000 among 5,000 other rows "
            f"{before.mean():.4f} -> {after.mean():.4f}, {sure}; {adapter.report.method}; "
            f"held out {adapter.report.changes[0]}; {time.perf_counter() - began:.1f} s"
        )
        assert adapter.helps and sure.low > 0
    print(f"fashion {metric}: mean of 5 seeds {np.mean(gains):+.4f}")
    assert np.mean(gains) >= 0.02


@pytest.mark.slow
def test_5_000_labels_among_all_of_debian() -> None:
    vectors, rows, _ = debian()
    sections = np.unique([row["section"] for row in rows], return_inverse=True)[1]
    c = vecdb.open(durability="none").create_collection("debian", dim=384)
    metadata = [{"section": row["section"]} if at < 5_000 else {} for at, row in enumerate(rows)]
    c.add([row["id"] for row in rows], vectors, metadata=metadata)
    began = time.perf_counter()
    adapter = vecdb.fit_adapter(c, labels="section")
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    mapped = adapter(vectors)
    mapping = time.perf_counter() - began
    unseen, kinds = slice(5_000, None), sections[5_000:]
    before, after = (nearest_agree(each[unseen], kinds, "cosine", 1_000) for each in (vectors, mapped))
    sure = compare(after.tolist(), before.tolist())
    print(
        f"debian, 5,000 sections: precision@10 of 1,000 among {len(kinds):,} other rows {before.mean():.4f} -> "
        f"{after.mean():.4f}, {sure}; {adapter.report.method}; held out {adapter.report.changes[0]}; fitted in "
        f"{seconds:.1f} s, 62,666 rows mapped in {mapping:.1f} s"
    )
    assert adapter.helps and sure.low > 0


# --- no gain -------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_wordllama
def test_shuffled_judgements_are_refused() -> None:
    """Of each kind some seeds: how often does an adapter claim to help that cannot?"""
    alarms: dict[str, list[float]] = {}
    base, labels = pictures()
    for name, seeds in (("cranfield", 10), ("cisi", 10)):
        c = library(name, "wordllama:64")
        _, queries, grades = texts(name)
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            keys = sorted(queries)
            other = dict(zip(keys, rng.permutation(keys), strict=True))
            pairs = [(queries[other[key]], id) for key in keys for id in grades[key]]
            adapter = vecdb.fit_adapter(c, pairs=pairs, seed=seed)
            alarms.setdefault(f"{name}, pairs", []).append(float(adapter.helps))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = base[rng.permutation(len(base))[:1_000]].astype(np.float32)
        c = vecdb.open(durability="none").create_collection("items", dim=784, metric="l2")
        c.add(list(range(1_000)), rows, metadata=[{"kind": int(rng.choice(labels))} for _ in rows])
        asked = turned(rows[:300], rng, 20, 2)
        adapter = vecdb.fit_adapter(c, labels="kind", seed=seed)
        alarms.setdefault("fashion, labels", []).append(float(adapter.helps))
        shuffled = rng.permutation(300).tolist()
        adapter = vecdb.fit_adapter(c, pairs=[(asked[at], shuffled[at]) for at in range(300)], seed=seed)
        alarms.setdefault("fashion, pairs", []).append(float(adapter.helps))
    for kind, found in alarms.items():
        print(f"shuffled {kind}: helps {int(sum(found))} of {len(found)}")
    whole = sum(map(sum, alarms.values()))
    assert whole <= 0.1 * sum(map(len, alarms.values()))
