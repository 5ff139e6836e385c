"""What does full text cost while it is written, and what does a search take, beside SQLite's FTS5?

In one round: the texts of the data set in commits of 1,000 rows into a collection without full text, into
one with, and into an FTS5 table, in a file and in memory; what full text adds is the difference of the
first two. Then words of the corpus are searched in both (any word counts, ten best), as they were written
and after `optimize`. Then durable inserts of one row with a vector, without full text and with it on two
fields, taking turns. Ratios are of one round; the medians over rounds are reported.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workloads.data import SHARED

COMMIT = 1_000  # rows
SINGLE, SINGLE_BASE, DIM = 600, 2_000, 384
QUERIES, WORDS, K = 200, 3, 10
ADDED_AT_MOST, SINGLE_AT_MOST = 1.0, 1.3


def measure(name: str, rounds: int, limit: int | None) -> dict[str, Any]:
    """Medians over rounds; `name`: a data set whose metadata has a `text`."""
    texts = _texts(name, limit)
    asked = _queries(texts)
    found = [_round(texts, asked) for _ in range(rounds)]
    merged = {key: statistics.median(each[key] for each in found) for key in found[0]}
    merged |= {"rows": len(texts), "text_bytes": sum(len(text.encode()) for text in texts)}
    print(
        f"full text adds {merged['added_s']:.2f} s to {merged['without_s']:.2f} s; FTS5 takes "
        f"{merged['fts5_memory_s']:.2f} s in memory, {merged['fts5_file_s']:.2f} s in a file: "
        f"{merged['added_of_fts5']:.2f} of the former (at most {ADDED_AT_MOST})"
    )
    print(
        f"a search takes {merged['search_ms']:.3f} ms as written, {merged['search_optimized_ms']:.3f} ms in "
        f"one segment, FTS5 {merged['fts5_search_ms']:.3f} ms; the first after 100 rows changed "
        f"{merged['follow_ms']:.2f} ms"
    )
    print(f"durable insert, two fields: {merged['single']:.3f} of one without; at most {SINGLE_AT_MOST}")
    return merged


def _texts(name: str, limit: int | None) -> list[str]:
    with gzip.open(SHARED / name / "metadata.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = [json.loads(line).get("text") for line in lines]
    return [text for text in found if text][:limit]


def _queries(texts: Sequence[str]) -> list[str]:
    """Words that some rows have, and not most."""
    counted = Counter(word for text in texts[::7] for word in set(re.findall(r"[a-z]{3,}", text.lower())))
    middling = sorted(word for word, n in counted.items() if 5 <= n <= len(texts) // 40)
    rng = random.Random(11)
    return [" ".join(rng.sample(middling, WORDS)) for _ in range(QUERIES)]


def _round(texts: list[str], asked: list[str]) -> dict[str, float]:
    import vecdb
    from vecdb.query import Text

    with tempfile.TemporaryDirectory() as folder:
        plain_s, db = _filled(Path(folder) / "plain", texts, False)
        db.close()
        full_s, db = _filled(Path(folder) / "full", texts, True)
        c = db["rows"]
        memory_s, sqlite = _fts5(":memory:", texts)
        file_s, other = _fts5(str(Path(folder) / "fts5"), texts)
        other.close()
        found = {
            "without_s": plain_s, "with_s": full_s, "added_s": full_s - plain_s, "fts5_memory_s": memory_s,
            "fts5_file_s": file_s, "added_of_fts5": (full_s - plain_s) / memory_s,
            "added_of_fts5_file": (full_s - plain_s) / file_s,
            "search_ms": _ms(lambda query: c.search(Text(query), K).ids, asked),
        }  # fmt: skip
        with vecdb.open(Path(folder) / "full", durability="none", upkeep=False) as reader:
            rows, took = reader["rows"], []
            rows.search(Text(asked[0]))
            for first in range(0, 1_000, 100):
                changed = [text + " more" for text in texts[first : first + 100]]
                c.upsert(range(first, first + 100), texts=changed)
                rows.get(0)
                took.append(_ms(lambda query: rows.search(Text(query), K).ids, asked[:1]))
            found["follow_ms"] = statistics.median(took)
        c.optimize()
        found["search_optimized_ms"] = _ms(lambda query: c.search(Text(query), K).ids, asked)
        db.close()
        sql = "select rowid from t where t match ? order by rank limit ?"
        found["fts5_search_ms"] = _ms(
            lambda query: sqlite.execute(sql, (query.replace(" ", " OR "), K)).fetchall(), asked
        )
        found["single"] = _single(Path(folder), texts)
    return found


def _filled(path: Path, texts: list[str], fulltext: bool) -> tuple[float, Any]:
    import vecdb

    db = vecdb.open(path, durability="none", upkeep=False)
    c = db.create_collection("rows", dim=2, fulltext=fulltext)
    started = time.perf_counter()
    for first in range(0, len(texts), COMMIT):
        some = texts[first : first + COMMIT]
        c.add(range(first, first + len(some)), texts=some)
    return time.perf_counter() - started, db


def _fts5(path: str, texts: list[str]) -> tuple[float, sqlite3.Connection]:
    db = sqlite3.connect(path)
    db.execute("pragma synchronous = off")
    db.execute("create virtual table t using fts5(text)")
    started = time.perf_counter()
    for first in range(0, len(texts), COMMIT):
        some = texts[first : first + COMMIT]
        with db:
            db.executemany("insert into t(rowid, text) values (?, ?)", enumerate(some, first + 1))
    return time.perf_counter() - started, db


def _ms(search: Callable[[str], Any], asked: Sequence[str]) -> float:
    taken = []
    for query in asked:
        started = time.perf_counter()
        search(query)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


def _single(folder: Path, texts: list[str]) -> float:
    """The median time of a durable insert with full text on two fields, over that of one without."""
    import vecdb

    vectors = np.random.default_rng(1).standard_normal((SINGLE_BASE + SINGLE, DIM)).astype(np.float32)
    texts = [texts[at % len(texts)] for at in range(SINGLE_BASE + SINGLE)]
    handles, taken = [], ([], [])  # type: ignore[var-annotated]
    for name, fulltext in (("single", None), ("single words", ["text", "title"])):
        db = vecdb.open(folder / name, upkeep=False)
        c = db.create_collection("rows", dim=DIM, fulltext=fulltext)
        c.add(
            range(SINGLE_BASE), vectors[:SINGLE_BASE], texts=texts[:SINGLE_BASE],
            metadata=[{"title": text[:40]} for text in texts[:SINGLE_BASE]],
        )  # fmt: skip
        handles.append((db, c))
    for at in range(SINGLE_BASE, SINGLE_BASE + SINGLE):
        for which in (0, 1) if at % 2 else (1, 0):
            started = time.perf_counter()
            handles[which][1].add(at, vectors[at], texts=texts[at], metadata={"title": texts[at][:40]})
            taken[which].append(time.perf_counter() - started)
    for db, _ in handles:
        db.close()
    return statistics.median(taken[1]) / statistics.median(taken[0])
