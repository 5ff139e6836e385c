"""Every kind of query under random filters, in every state of a collection: hits match, never too few, scores
those of the reference, groups exact.

States: fresh, after 30 % deletes and changes with the log unfolded, and folded (`optimize`). The reference is
tests/riches.py: BM25, dot products, MaxSim and fusions in plain Python and numpy.
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import riches as rich
from vecdb import F

SEED = int(os.environ.get("VECDB_SEED", "0")) or int.from_bytes(os.urandom(3), "big")
FILTERS = int(os.environ.get("VECDB_FILTERS", "12"))
ROWS, DIM = 1_500, 4
STATES = ("fresh", "unfolded", "folded")
Rows = dict[Any, tuple[Any, rich.Extra, dict[str, Any]]]


def some_row(rng: random.Random, key: str) -> tuple[Any, rich.Extra, dict[str, Any]]:
    vector = [3.0, *(float(rng.randrange(-30, 31)) for _ in range(DIM - 1))]
    extra = rich.extra_of(key)
    meta = {"a": rng.randrange(10), "tags": rng.sample("uvwxyz", rng.randrange(4)), "doc": f"d{rng.randrange(30)}"}
    if rng.random() < 0.7:
        meta["n"] = rng.uniform(-5, 5)
    return vector, extra, rich.with_title(meta, extra)


def put(c: vecdb.Collection, rows: Rows, new: Rows) -> None:
    c.upsert(
        list(new),
        {
            "vector": [vector for vector, _, _ in new.values()],
            "sparse": [extra.sparse for _, extra, _ in new.values()],
            "many": [extra.many for _, extra, _ in new.values()],
        },
        metadata=[meta for _, _, meta in new.values()], texts=[extra.text for _, extra, _ in new.values()],
    )  # fmt: skip
    rows.update(new)


@pytest.fixture(scope="module", params=STATES)
def world(request: pytest.FixtureRequest) -> tuple[vecdb.Collection, Rows, random.Random]:
    rng = random.Random(f"{SEED} {request.param}")
    db = vecdb.open(upkeep=False)
    c = db.create_collection("c", **rich.declared(vecdb.Vector(DIM, metric="l2")))
    rows: Rows = {}
    for start in range(0, ROWS, 300):
        put(c, rows, {i: some_row(rng, f"k{i}") for i in range(start, start + 300)})
    if request.param != "fresh":
        gone = rng.sample(list(rows), ROWS * 3 // 10)
        c.delete(gone)
        for id in gone:
            del rows[id]
        put(c, rows, {f"new {i}": some_row(rng, f"n{i}") for i in range(100)})
        put(c, rows, {id: some_row(rng, f"again {id}") for id in rng.sample(list(rows), 100)})
    if request.param == "folded":
        c.optimize()
    return c, rows, rng


def some_filter(rng: random.Random) -> Any:
    one = [
        lambda: F.a == rng.randrange(11), lambda: F.a < rng.randrange(11), lambda: F.n > rng.uniform(-5, 5),
        lambda: F.n.between(-1, rng.uniform(-1, 5)), lambda: F.tags.contains(rng.choice("uvwxyz")),
        lambda: F.doc.isin(rng.sample([f"d{i}" for i in range(30)], 5)), lambda: F.title.exists(),
        lambda: F.doc.startswith(f"d{rng.randrange(3)}"), lambda: ~(F.a == rng.randrange(10)),
    ]  # fmt: skip
    made = rng.choice(one)()
    if rng.random() < 0.3:
        made = made & rng.choice(one)()
    return made | rng.choice(one)() if rng.random() < 0.2 else made


def test_hits_are_those_of_the_reference_under_any_filter(world: Any) -> None:
    c, rows, rng = world
    judge = rich.World({id: (np.array(v), extra) for id, (v, extra, _) in rows.items()}, "l2")
    asked = found = queries = 0
    for _ in range(FILTERS):
        where = None if rng.random() < 0.1 else some_filter(rng)
        allowed = {id for id, (_, _, meta) in rows.items() if where is None or where.matches(meta)}
        for kind in ("text", "sparse", "late", "near", "fuse"):
            spec = rich.some_spec(rng, DIM)
            while spec[0] != kind and kind != "near":
                spec = rich.some_spec(rng, DIM)
            if kind == "near":
                spec = ("near", [3.0, *(float(rng.randrange(-30, 31)) for _ in range(DIM - 1))])
            exact, k = rng.random() < 0.5, rng.choice((1, 10, 10, 10, None))
            hits = c.search(rich.query_of(spec), k, where=where, exact=exact)
            if kind == "near" and not exact:
                own = judge.scores(spec, allowed)
                best = sorted(own.values(), reverse=True)[: len(hits)]
                assert len(hits) == (len(own) if k is None else min(k, len(own)))
                asked += len(best)
                found += sum(own[id] >= best[-1] - 1e-5 for id in hits.ids)
            else:
                problem, more, true = judge.judge(spec, k, exact, hits.ids, hits.scores.tolist(), allowed)
                assert not problem, f"seed {SEED}, where={where!r}, k={k}, exact={exact}: {problem}"
                asked, found = asked + more, found + true
            queries += 1
    print(f"seed {SEED}: {queries} queries, {FILTERS} filters, recall {found / max(1, asked):.4f}")
    assert found >= 0.95 * asked


def test_groups_facets_and_pages_fit_the_ranking(world: Any) -> None:
    c, rows, rng = world
    for _ in range(FILTERS):
        where = None if rng.random() < 0.2 else some_filter(rng)
        spec = rich.some_spec(rng, DIM, fuses=False)
        query = rich.query_of(spec)
        every = c.search(query, None, where=where, exact=True)
        k, offset, size = rng.randrange(1, 20), rng.randrange(10), rng.randrange(1, 4)
        page = c.search(query, k, where=where, offset=offset, exact=True)
        assert page.ids == every.ids[offset : offset + k], spec
        groups: dict[str, list[Any]] = {}
        for id in every.ids:
            groups.setdefault(rows[id][2]["doc"], []).append(id)
        hits = c.search(query, k, where=where, group_by="doc", group_size=size, exact=True)
        assert [(g.value, [h.id for h in g.hits]) for g in hits.groups] == [
            (value, ids[:size]) for value, ids in list(groups.items())[:k]
        ], spec
        counted = c.facets("doc", where, query=query, limit=None)
        assert {value: len(ids) for value, ids in groups.items()} == dict(counted.items())
        plain = c.prepare(k, where=where, exact=True)(query)
        assert plain.ids == every.ids[:k]
