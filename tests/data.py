"""Real data for tests, where it lies beside the project; without it a test skips, saying so."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def needs_data() -> pytest.MarkDecorator:
    """Skips where ../shared/data is not beside the project."""
    return pytest.mark.skipif(not ROOT.is_dir(), reason=f"no data folder at {ROOT.name}/ beside")


@cache
def debian() -> tuple[Any, list[dict[str, Any]], Any]:
    """(vectors float32 (62666, 384), metadata, queries (1000, 384)), rows shuffled by seed 0."""
    folder = ROOT / "debian"
    vectors = np.load(folder / "vectors.f16.npy").astype(np.float32)
    with gzip.open(folder / "metadata.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    order = np.random.default_rng(0).permutation(len(rows))
    queries = np.load(folder / "queries.npy").astype(np.float32)
    return vectors[order], [rows[i] for i in order], queries


@cache
def judged(name: str) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, int]]]:
    """(documents, queries, qrels) of `cranfield` or `cisi`: {id: text}, {id: text}, {id: {id: grade}}.

    Texts stand as they are, without titles before them (Cranfield's begin with theirs).
    """
    folder = ROOT / name
    docs = [json.loads(line) for line in open(folder / "docs.jsonl", encoding="utf-8")]
    queries = [json.loads(line) for line in open(folder / "queries.jsonl", encoding="utf-8")]
    qrels: dict[str, dict[str, int]] = {}
    for line in open(folder / "qrels.tsv", encoding="utf-8").read().splitlines()[1:]:
        query, document, grade = line.split("\t")
        qrels.setdefault(query, {})[document] = int(grade)
    return {d["id"]: d["text"] for d in docs}, {q["id"]: q["text"] for q in queries}, qrels


def split(row: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """(id, text, metadata) of a Debian row."""
    rest = {key: value for key, value in row.items() if key not in ("id", "text")}
    return row["id"], row["text"], rest


def recall(found: list[list[Any]], truth: list[list[Any]]) -> float:
    """The share of the true answers that were found, over all queries."""
    hits = sum(len(set(f) & set(t)) for f, t in zip(found, truth, strict=True))
    return hits / max(1, sum(len(t) for t in truth))
