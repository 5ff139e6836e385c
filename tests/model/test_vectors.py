"""Several vector fields: whatever is done, each field answers as if it were a collection of its own.

The model is a dict of rows with their vectors by field, and brute force. Fields of every kind, rows
that lack some of them or all, fields that come and go, transactions that are thrown away, reopening,
and a second process that follows. Seed and counts are printed with `-s`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F

FIELDS: dict[str, vecdb.Vector] = {
    "plot": vecdb.Vector(300, metric="l2"),
    "poster": vecdb.Vector(40, dtype="f16"),
    "tokens": vecdb.Vector(4, multi=True, metric="dot"),
}
LATER = vecdb.Vector(8, metric="dot")
Model = dict[Any, dict[str, Any]]


class World:
    """A collection and its model, changed alike."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.rng = np.random.default_rng(seed)
        self.rows: Model = {}
        self.fields = dict(FIELDS)
        self.db = vecdb.open(path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", vectors=self.fields)
        self.counts: dict[str, int] = {}

    def vector(self, name: str) -> Any:
        """A random vector of a field, or none at all."""
        declared = self.fields[name]
        if self.rng.random() < 0.3:
            return None
        shape: Any = declared.dim
        if declared.multi:
            shape = (int(self.rng.integers(0, 4)), declared.dim)
        found = self.rng.integers(-20, 21, shape).astype(np.float32)
        if declared.metric in (None, "cosine"):
            found[..., 0] += 50
        return found

    def some(self, n: int) -> list[Any]:
        """Ids, known ones more often than not."""
        pool = list(dict.fromkeys([*self.rows, *range(10_000, 10_000 + 3 * n)]))
        picked = self.rng.choice(len(pool), size=min(n, len(pool)), replace=False)
        return [pool[int(i)] for i in picked]

    def act(self) -> None:
        """One deed, in the collection and in the model."""
        deeds = ["upsert", "upsert", "update", "metadata", "delete", "where", "fields", "abort"]
        name = deeds[int(self.rng.integers(len(deeds)))]
        self.counts[name] = self.counts.get(name, 0) + 1
        getattr(self, f"do_{name}")()

    def do_upsert(self) -> None:
        """Rows whole, by the hundred now and then, so that blocks fill."""
        ids = self.some(int(self.rng.choice([1, 3, 40, 400])))
        given = {name: [self.vector(name) for _ in ids] for name in self.fields}
        meta = [{"n": int(self.rng.integers(10))} for _ in ids]
        self.c.upsert(ids, given, metadata=meta)
        for at, id in enumerate(ids):
            self.rows[id] = {"meta": meta[at]} | {n: v[at] for n, v in given.items() if v[at] is not None}

    def do_update(self) -> None:
        """Vectors of one field; the others stay."""
        ids = [id for id in self.some(20) if id in self.rows]
        name = list(self.fields)[int(self.rng.integers(len(self.fields)))]
        given = [self.vector(name) for _ in ids]
        assert self.c.update(ids, vectors={name: given}) == len(ids)
        for id, vector in zip(ids, given, strict=True):
            self.rows[id].pop(name, None)
            if vector is not None:
                self.rows[id][name] = vector

    def do_metadata(self) -> None:
        n = int(self.rng.integers(10))
        self.c.update(where=F.n == n, metadata={"n": n, "seen": True})
        for row in self.rows.values():
            if row["meta"].get("n") == n:
                row["meta"] = {"n": n, "seen": True}

    def do_delete(self) -> None:
        ids = self.some(5)
        assert self.c.delete(ids) == sum(id in self.rows for id in ids)
        for id in ids:
            self.rows.pop(id, None)

    def do_where(self) -> None:
        n = int(self.rng.integers(10))
        gone = [id for id, row in self.rows.items() if row["meta"].get("n") == n][:10_000]
        if len(gone) < len(self.rows) / 2:
            assert self.c.delete(where=F.n == n) == len(gone)
            for id in gone:
                del self.rows[id]

    def do_fields(self) -> None:
        """A field comes, or goes."""
        if "later" in self.fields:
            self.c.drop_vector("later")
            del self.fields["later"]
            for row in self.rows.values():
                row.pop("later", None)
        else:
            self.c.add_vector("later", LATER)
            self.fields["later"] = LATER

    def do_abort(self) -> None:
        """A transaction that leaves no trace."""
        rows, fields = {id: dict(row) for id, row in self.rows.items()}, dict(self.fields)
        with pytest.raises(ZeroDivisionError), self.db.transaction():
            for _ in range(3):
                self.do_upsert()
                self.do_fields()
                self.do_delete()
            self.compare()
            raise ZeroDivisionError
        self.rows, self.fields = rows, fields

    def compare(self) -> int:
        """Every row, and searches of every field; how many comparisons were made."""
        assert len(self.c) == len(self.rows)
        made = 0
        for record in self.c:
            row = self.rows[record.id]
            assert record.metadata == row["meta"]
            assert set(record.vectors) == set(row) - {"meta"}, record.id
            for name, vector in record.vectors.items():
                assert np.array_equal(vector, row[name].astype(vector.dtype))
                made += 1
        for name, declared in self.fields.items():
            if not declared.multi:
                made += self.compare_searches(name, declared)
        return made

    def compare_searches(self, name: str, declared: vecdb.Vector) -> int:
        query = self.rng.integers(-20, 21, declared.dim or 0).astype(np.float32) + 0.5
        for where in (None, F.n == int(self.rng.integers(10))):
            found = {
                id: row[name] for id, row in self.rows.items()
                if name in row and (where is None or where.matches(row["meta"]))
            }  # fmt: skip
            truth = sorted(distances(declared.metric or "cosine", query, list(found.values())))[:10]
            for how in ({"exact": True}, {}, {"ef": 200}):
                hits = self.c.search(query, 10, where=where, using=name, **how)
                assert len(hits) == len(truth) and set(hits.ids) <= set(found), (name, where, how)
                if "exact" in how:
                    assert np.allclose(hits.distances, truth, rtol=1e-3, atol=1e-3)
                else:
                    assert not len(truth) or hits.distances[0] >= truth[0] - 1e-2
            plan = self.c.explain(query, 10, where=where, using=name)
            assert plan.matches == len(found)
        return 6

    def reopen(self) -> None:
        self.db.close()
        self.db = vecdb.open(self.path, durability="none", upkeep=False)
        self.c = self.db["c"]


def distances(metric: str, query: Any, vectors: list[Any]) -> Any:
    if not vectors:
        return []
    table = np.array(vectors, np.float64)
    if metric == "l2":
        return np.sqrt(((table - query) ** 2).sum(1))
    dots = table @ query
    if metric == "dot":
        return -dots
    return 1 - dots / np.linalg.norm(table, axis=1) / np.linalg.norm(query)


def life(path: Path, seed: int, steps: int) -> dict[str, int]:
    world = World(path, seed)
    made = 0
    for step in range(steps):
        world.act()
        if step % 4 == 3:
            made += world.compare()
        if step % 10 == 9:
            assert world.db.check() == []
            world.reopen()
            made += world.compare()
        if step % 15 == 14:
            world.c.optimize()
    assert world.db.check() == []
    world.db.close()
    return {"rows": len(world.rows), "comparisons": made, **world.counts}


@pytest.mark.parametrize("seed", [1, 2])
def test_each_field_answers_as_if_alone(tmp_path: Path, seed: int) -> None:
    print(seed, life(tmp_path / "v.vecdb", seed, 30))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 30))
def test_each_field_answers_as_if_alone_for_long(tmp_path: Path, seed: int) -> None:
    print(seed, life(tmp_path / "v.vecdb", seed, 150))


# --- another process ------------------------------------------------------------------------------

READER = """
import json
import sys

import numpy as np

import vecdb

with vecdb.open(sys.argv[1], mode="r") as db:
    for line in sys.stdin:
        order = json.loads(line)
        hits = db["c"].search(np.array(order["query"]), 10, using=order["using"], exact=order["exact"])
        problems = [str(p) for p in db.check()] if order["check"] else []
        print(json.dumps([hits.ids, [float(d) for d in hits.distances], problems]), flush=True)
"""


def test_another_process_follows_every_field(tmp_path: Path) -> None:
    world = World(tmp_path / "v.vecdb", 7)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(world.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as reader:  # fmt: skip
        assert reader.stdin and reader.stdout
        for step in range(24):
            world.act()
            for name, declared in world.fields.items():
                if declared.multi:
                    continue
                query = world.rng.integers(-20, 21, declared.dim or 0).astype(np.float32) + 0.5
                for exact in (True, False):
                    order = {"query": query.tolist(), "using": name, "exact": exact, "check": step % 8 == 7}
                    print(json.dumps(order), file=reader.stdin, flush=True)
                    ids, found, problems = json.loads(reader.stdout.readline())
                    mine = world.c.search(query, 10, using=name, exact=exact)
                    assert problems == []
                    assert np.allclose(found, mine.distances, atol=1e-4), (step, name, exact)
                    if not exact:
                        assert ids == mine.ids
        reader.stdin.close()
    world.db.close()
