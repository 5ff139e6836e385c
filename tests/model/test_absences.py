"""why_not says the truth: 500 random cases of each reason, judged by what the search itself and a plain
reference say.

Every answer is read back: the reason by its words, the numbers in it against a ranking made here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.query import Fuse, Like, Near, Rerank, Text

SEED = int(os.environ.get("VECDB_SEED", "0")) or int.from_bytes(os.urandom(3), "big")
CASES = int(os.environ.get("VECDB_CASES", "8"))
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
DIM, ROWS = 6, 150


@pytest.fixture(scope="module")
def world() -> tuple[Any, dict[Any, tuple[Any, dict[str, Any], str | None]], np.random.Generator]:
    rng = np.random.default_rng(SEED)
    c = vecdb.open().create_collection("c", dim=DIM, metric="l2", fulltext=True)
    rows: dict[Any, tuple[Any, dict[str, Any], str | None]] = {}
    for i in range(ROWS):
        vector = rng.normal(size=DIM).astype(np.float32) if rng.random() < 0.8 else None
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(1, 6)))) if rng.random() < 0.85 else None
        meta: dict[str, Any] = {"a": int(rng.integers(5))}
        if rng.random() < 0.8:
            meta["doc"] = f"d{int(rng.integers(20))}"
        rows[i] = (vector, meta, text)
    ids = list(rows)
    c.add(
        ids, [rows[i][0] for i in ids], metadata=[rows[i][1] for i in ids], texts=[rows[i][2] for i in ids]
    )  # fmt: skip
    return c, rows, rng


def words_of(text: str | None) -> set[str]:
    return set((text or "").split())


def distances(rows: dict[Any, Any], q: Any, where: Any) -> list[tuple[float, Any]]:
    return sorted(
        (float(np.linalg.norm(v.astype(np.float64) - q)), i)
        for i, (v, meta, _) in rows.items()
        if v is not None and (where is None or where.matches(meta))
    )


def test_every_reason_is_right(world: Any) -> None:
    c, rows, rng = world
    seen: Counter[str] = Counter()
    wanted = [
        "absent", "filter", "no vector", "returned", "rank", "offset", "radius", "no words", "lacks a must",
        "has an excluded", "no part", "not put forward", "no group", "group full", "group not", "diversity",
        "example", "not anew",
    ]  # fmt: skip
    turns = 0
    while min(seen[name] for name in wanted) < CASES and turns < 400 * CASES:
        turns += 1
        _one(c, rows, rng, seen)
    print(f"seed {SEED}: {dict(seen)}")
    assert all(seen[name] >= CASES for name in wanted), seen


def _one(c: Any, rows: Any, rng: np.random.Generator, seen: Counter[str]) -> None:
    q = rng.normal(size=DIM).astype(np.float32)
    where = [None, None, F.a < 3, F.a == 1][int(rng.integers(4))]
    k, offset = int(rng.integers(1, 25)), int(rng.choice([0, 0, 3, 10]))
    id = int(rng.integers(ROWS)) if rng.random() < 0.97 else 10_000
    kind = str(rng.choice(["near", "text", "fuse", "group", "diverse", "like", "rerank"]))
    options: dict[str, Any] = {"where": where}
    text = " ".join(
        str(rng.choice(["", "", "+", "-"])) + str(w)
        for w in rng.choice(WORDS, size=int(rng.integers(1, 4)), replace=False)
    )
    if kind == "near":
        query: Any = Near(q)
        options["offset"] = offset
        if rng.random() < 0.4:
            options["radius"] = float(rng.uniform(1, 4))
    elif kind == "text":
        query = Text(text)
        options["offset"] = offset
    elif kind == "fuse":
        query = Fuse(Near(q), Text(text.replace("+", "").replace("-", "")), depth=k if rng.random() < 0.5 else None)
    elif kind == "group":
        query, options["group_by"], options["group_size"] = Near(q), "doc", int(rng.integers(1, 3))
    elif kind == "diverse":
        query, options["diversity"] = Near(q), float(rng.uniform(0.1, 1))
    elif kind == "like":
        query = Like([int(rng.choice([i for i in rows if rows[i][0] is not None]))], using="vector")
        if rng.random() < 0.3:
            id = query.positive[0].id
    else:
        query = Rerank(Near(q), by=Near(-q), depth=max(k, 20))
    said = c.why_not(query, id, k, **options)
    hits = c.search(query, k, **options)
    _judge(c, rows, seen, kind, query, q, id, k, options, said, hits)


def _judge(
    c: Any, rows: Any, seen: Counter[str], kind: str, query: Any, q: Any, id: Any, k: int,
    options: dict[str, Any], said: str, hits: Any,
) -> None:  # fmt: skip
    where, offset = options["where"], options.get("offset", 0)
    if id not in rows:
        assert "there is no row" in said
        seen["absent"] += 1
        return
    vector, meta, text = rows[id]
    if where is not None and not where.matches(meta):
        assert "excluded by the filter" in said and str(meta["a"]) in said
        seen["filter"] += 1
        return
    assert "filter" not in said
    if id in hits.ids:
        at = hits.ids.index(id)
        assert "is returned" in said and f"hit {at + 1}" in said, said
        if offset:
            assert f"rank {at + 1 + offset}" in said
        seen["returned"] += 1
        return
    assert "is returned" not in said, said
    if kind == "text":
        _judge_text(rows, seen, query, id, k, offset, said, c, where)
        return
    if kind == "like" and id == query.positive[0].id:
        assert "example" in said
        seen["example"] += 1
        return
    if kind == "fuse":
        _judge_fuse(rows, seen, query, id, k, said, where, q)
        return
    if vector is None:
        assert "has no vector" in said, said
        seen["no vector"] += 1
        return
    ranked = distances(rows, q if kind != "like" else rows[query.positive[0].id][0].astype(np.float64), where)
    if kind == "like":
        ranked = [pair for pair in ranked if pair[1] != query.positive[0].id]
    rank = [i for _, i in ranked].index(id) + 1
    radius = options.get("radius")
    if radius is not None and ranked[rank - 1][0] > radius:
        shown = re.search(r"at distance ([0-9.]+)", said)
        assert "beyond the radius" in said and shown, said
        assert abs(float(shown[1]) - ranked[rank - 1][0]) < 1e-4, said
        seen["radius"] += 1
        return
    if kind == "rerank":
        if rank > query.depth:
            assert f"not among the best {query.depth} that are ranked anew" in said and f"ranks it {rank} of" in said
            seen["not anew"] += 1
        else:
            assert f"of {min(query.depth, len(ranked))} matches" in said, said
            seen["rank"] += 1
        return
    if kind == "group":
        _judge_group(rows, seen, id, rank, ranked, options, said, hits)
        return
    matches = len(ranked) if radius is None else sum(d <= radius for d, _ in ranked)
    assert f"ranked {rank} of {matches} matches" in said, (said, rank, matches)
    if kind == "diverse":
        first = max(5 * k, 50)
        assert ("diversity chose others" if rank <= first else "diversity chooses among the best") in said, said
        seen["diversity"] += 1
    elif rank <= offset:
        assert "offset leaves out" in said
        seen["offset"] += 1
    else:
        assert f"the last of the {k} hits is at" in said, said
        assert rank > offset + k
        seen["rank"] += 1


def _judge_text(
    rows: Any, seen: Counter[str], query: Any, id: Any, k: int, offset: int, said: str, c: Any, where: Any
) -> None:
    asked = query.text.split()
    must = [w[1:] for w in asked if w[0] == "+"]
    never = [w[1:] for w in asked if w[0] == "-"]
    some = [w for w in asked if w[0] not in "+-"]
    have = words_of(rows[id][2])
    missing = [w for w in must if w not in have]
    unwanted = [w for w in never if w in have]
    if match := re.search(r"lacks the required word '(\w+)'", said):
        assert match[1] in missing, said
        seen["lacks a must"] += 1
    elif match := re.search(r"has the excluded word '(\w+)'", said):
        assert match[1] in unwanted, said
        seen["has an excluded"] += 1
    elif "none of the words" in said or "has no text" in said:
        assert not {*must, *some} & have, said
        seen["no words"] += 1
    else:
        assert not missing and not unwanted and {*must, *some} & have, said
        every = c.search(query, None, where=where, exact=True)
        rank = every.ids.index(id) + 1
        assert f"ranked {rank} of {len(every)} matches" in said, (said, rank)
        seen["offset" if rank <= offset else "rank"] += 1
        assert ("offset leaves out" in said) == (rank <= offset), said


def _judge_fuse(
    rows: Any, seen: Counter[str], query: Any, id: Any, k: int, said: str, where: Any, q: Any
) -> None:
    vector, _, text = rows[id]
    words = set(query.queries[1].text.split())
    if vector is None and not words & words_of(text):
        assert "is matched by no part" in said and "part 1" in said and "part 2" in said, said
        seen["no part"] += 1
    elif "not among the best" in said:
        depth = max(query.depth or max(5 * k, 100), k)
        assert f"not among the best {depth} of any part" in said, said
        if vector is not None:
            rank = [i for _, i in distances(rows, q, where)].index(id) + 1
            assert rank > depth and f"ranks it {rank} of" in said
        seen["not put forward"] += 1
    else:
        found = re.search(r"ranked (\d+) of (\d+) matches", said)
        assert found and int(found[1]) > k, said
        seen["rank"] += 1


def _judge_group(
    rows: Any, seen: Counter[str], id: Any, rank: int, ranked: Any, options: dict[str, Any], said: str, hits: Any
) -> None:
    assert f"ranked {rank} of {len(ranked)} matches" in said
    doc = rows[id][1].get("doc")
    if doc is None:
        assert "has no value in 'doc'" in said, said
        seen["no group"] += 1
    elif doc in {group.value for group in hits.groups}:
        before = [i for _, i in ranked[: rank - 1] if rows[i][1].get("doc") == doc]
        assert len(before) >= options["group_size"] and f"others of group {doc!r} are before it" in said, said
        seen["group full"] += 1
    else:
        assert f"group {doc!r} is not among the {len(hits.groups)} groups" in said, said
        seen["group not"] += 1
