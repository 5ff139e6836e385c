"""Full text in memory beside SQLite FTS5 and bm25s: seconds to index, milliseconds to search, agreement.

Times: each engine analyses for itself (FTS5 with `porter unicode61`), on one thread, taking turns
within a round; a search is one query a call, any word counts, the ten best. bm25s has no fast search
for one query a call, so it is compared for agreement only.

Agreement: all engines are given the same terms, ours, so that only the ranking differs; rows that tie
with the tenth count as right. FTS5 has another idf, ln((N - df + .5) / (df + .5)) and at least 1e-6,
which makes frequent words count less: `overlap_fts5_formula` is the share that FTS5 has in common with
its own formula in plain Python (small data sets only): where that is 1, the idf is all the difference.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
K = 10


def measure(name: str, rounds: int, n_queries: int, limit: int | None = None) -> dict[str, Any]:
    """The figures of one data set, with ratios to FTS5's within each round."""
    from vecdb._core import _text
    from vecdb.text import analysis

    texts = _texts(name)[:limit]
    queries = _queries(name, texts, n_queries)
    size = sum(len(text.encode()) for text in texts)
    found: dict[str, Any] = {"rows": len(texts), "bytes": size, "rounds": []}
    for _ in range(rounds):
        analyzer = analysis._of.__wrapped__("english", (), True).analyzer  # one that knows no word yet
        start = time.perf_counter()
        builder = _text.SegmentBuilder([analyzer])
        builder.add_many(np.arange(len(texts), dtype=np.uint32), [texts])
        segment = builder.finish()
        ours_s = time.perf_counter() - start
        view = _text.View([segment], [None])
        start = time.perf_counter()
        table = _fts5(texts, "porter unicode61")
        fts5_s = time.perf_counter() - start
        one = {"ours_index_s": ours_s, "fts5_index_s": fts5_s, "index_ratio": fts5_s / ours_s}
        for kind, asked in queries.items():
            mine = _times(partial(_search, view, analyzer), asked)
            theirs = _times(partial(_search_fts5, table), asked)
            one |= {
                f"{kind}_ours_ms": 1e3 * statistics.median(mine),
                f"{kind}_fts5_ms": 1e3 * statistics.median(theirs),
                f"{kind}_ours_p99_ms": 1e3 * sorted(mine)[len(mine) * 99 // 100],
                f"{kind}_ratio": sum(theirs) / sum(mine),
            }
        found["rounds"].append(one)
    for key in found["rounds"][0]:
        found[key] = statistics.median(one[key] for one in found["rounds"])
        print(f"{key:<24} {found[key]:10.3f}")
    found["stored_bytes"] = segment.postings_bytes + len(segment.header())
    found |= _agreement(texts, [text for asked in queries.values() for text in asked])
    return found


def _agreement(texts: list[str], queries: Sequence[str]) -> dict[str, float]:
    """The share of our ten best that others have among theirs, ties counted, all with the same terms."""
    from vecdb._core import _text
    from vecdb.text import analysis

    analyzer = analysis.analyzer("english")
    builder = _text.SegmentBuilder([analyzer])
    builder.add_many(np.arange(len(texts), dtype=np.uint32), [texts])
    view = _text.View([builder.finish()], [None])
    tokens = [[f"x{term.hex()}" for term, _ in analyzer.terms(text)] for text in texts]
    table = _fts5([" ".join(one) for one in tokens], "unicode61")
    others = {"fts5": lambda terms: _ask(table, terms)}
    formula = _plain(tokens) if len(texts) <= 5000 else None
    if formula:
        shares_of_formula = []
        for text in queries:
            terms = sorted({f"x{term.hex()}" for term, _ in analyzer.terms(text)})
            theirs = _ask(table, terms)
            if theirs:
                shares_of_formula.append(len(formula(terms) & set(theirs)) / len(theirs))
    try:
        others["bm25s"] = _bm25s(tokens)
    except ImportError:
        pass
    shares: dict[str, list[float]] = {other: [] for other in others}
    for text in queries:
        terms = sorted({f"x{term.hex()}" for term, _ in analyzer.terms(text)})
        if not terms:
            continue
        clauses = [(0, [(0, 1.0, 0, bytes.fromhex(term[1:]))]) for term in terms]
        rids, scores = view.search(clauses, K)
        n = min(K, len(rids) // 4)
        if not n:
            continue
        ours = set(np.frombuffer(rids, np.uint32).tolist())  # all that tie with the tenth
        for other, ask in others.items():
            shares[other].append(len(ours & set(ask(terms)[:n])) / n)
    result = {f"overlap_{other}": statistics.mean(share) for other, share in shares.items()}
    if formula:
        result["overlap_fts5_formula"] = statistics.mean(shares_of_formula)
    print("   ".join(f"{key} {value:.4f}" for key, value in result.items()))
    return result


def _bm25s(tokens: list[list[str]]) -> Callable[[list[str]], list[int]]:
    import bm25s

    vocabulary = {term: i for i, term in enumerate(sorted({term for one in tokens for term in one}))}
    made = bm25s.BM25(method="lucene", k1=1.2, b=0.75, dtype="float64")
    ids = [[vocabulary[term] for term in one] for one in tokens]
    made.index((ids, vocabulary), show_progress=False)

    def ask(terms: list[str]) -> list[int]:
        known = [vocabulary[term] for term in terms if term in vocabulary]
        scores = made.get_scores_from_ids(known)
        return [int(row) for row in np.argsort(-scores, kind="stable")[:K]]

    return ask


def _plain(tokens: list[list[str]]) -> Callable[[list[str]], set[int]]:
    """The ten best rows, and all that tie with the tenth, by FTS5's formula."""
    lists: dict[str, list[tuple[int, int]]] = {}
    for row, one in enumerate(tokens):
        for term, n in Counter(one).items():
            lists.setdefault(term, []).append((row, n))
    lengths = np.array([len(one) for one in tokens])
    norms = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())

    def ask(terms: list[str]) -> set[int]:
        scores = np.zeros(len(tokens))
        for term in terms:
            rows = np.array(lists.get(term, np.empty((0, 2))), int)
            odds = (len(tokens) - len(rows) + 0.5) / (len(rows) + 0.5)
            idf = math.log(odds) if odds > 1 else 0
            scores[rows[:, 0]] += max(idf, 1e-6) * rows[:, 1] * 2.2 / (rows[:, 1] + norms[rows[:, 0]])
        least = np.sort(scores)[-K:][0] - 1e-9
        return {int(row) for row in np.flatnonzero((scores > 0) & (scores >= least))}

    return ask


def _fts5(texts: Sequence[str], tokenize: str) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:")
    db.execute(f"create virtual table t using fts5(text, tokenize='{tokenize}')")
    with db:
        db.executemany("insert into t(rowid, text) values (?, ?)", enumerate(texts))
    return db


def _ask(table: sqlite3.Connection, words: Sequence[str]) -> list[int]:
    if not words:
        return []
    asked = " OR ".join(f'"{word}"' for word in words)
    rows = table.execute("select rowid from t where t match ? order by rank limit ?", (asked, K))
    return [rid for (rid,) in rows]


def _words(text: str) -> list[str]:
    return [word for word in "".join(c if c.isalnum() else " " for c in text).split() if word]


def _search(view: Any, analyzer: Any, text: str) -> Any:
    return view.search(_clauses(analyzer, text), K)


def _search_fts5(table: sqlite3.Connection, text: str) -> list[int]:
    return _ask(table, _words(text))


def _clauses(analyzer: Any, text: str) -> list[Any]:
    return [(0, [(0, 1.0, 0, term)]) for term in dict.fromkeys(t for t, _ in analyzer.terms(text))]


def _times(ask: Callable[[str], Any], queries: Sequence[str]) -> list[float]:
    out = []
    for text in queries:
        start = time.perf_counter()
        ask(text)
        out.append(time.perf_counter() - start)
    return out


def _texts(name: str) -> list[str]:
    if name == "debian":
        with gzip.open(SHARED / "debian" / "metadata.jsonl.gz", "rt") as lines:
            return [json.loads(line)["text"] for line in lines]
    with open(SHARED / name / "docs.jsonl", encoding="utf-8") as lines:
        return [" ".join(str(v) for k, v in json.loads(line).items() if k != "id") for line in lines]


def _queries(name: str, texts: list[str], n: int) -> dict[str, list[str]]:
    """Three words of a row, most of them rare as people's are, and questions of people."""
    rng = random.Random(1)
    three = []
    while len(three) < n:
        words = [word for word in _words(rng.choice(texts)) if len(word) > 3]
        if len(words) > 8:
            three.append(" ".join(rng.sample(words, 3)))
    path = SHARED / name / ("nl_queries.jsonl" if name == "debian" else "queries.jsonl")
    asked = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {"three_words": three, "questions": [one["text"] for one in asked][:n]}
