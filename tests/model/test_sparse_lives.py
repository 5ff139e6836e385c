"""Sparse vectors under random lives of a collection rank as a dot product in plain Python ranks them.

Beside `tests/model/test_texts.py`: the same segments, tail and folds hold both, and fields of sparse vectors
come and go while rows do.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.model.test_texts import small  # noqa: F401
from vecdb.query import Sparse, Text

LIVES = int(os.environ.get("VECDB_LIVES", "4"))
TOKENS: list[Any] = [*range(-3, 9), *"abcdefgh", "größe"]


def vector(rng: random.Random) -> dict[Any, float]:
    """Weights of both signs, exact in float32."""
    chosen = rng.sample(TOKENS, rng.randrange(1, 7))
    return {token: rng.choice((-2, -0.5, 0.25, 0.5, 1, 3)) for token in chosen}


class Life:
    def __init__(self, path: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.db = vecdb.open(path, durability="none", upkeep=False)
        self.other = vecdb.open(path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", vectors={"terms": vecdb.SparseVector()}, fulltext=["title"])
        self.fields = ["terms"]
        self.rows: dict[int, dict[str, dict[Any, float]]] = {}

    def step(self) -> None:
        rng = self.rng
        what = rng.choice(("put", "put", "put", "delete", "field", "optimize", "transaction", "idle", "rebuild"))
        if what == "put":
            ids = rng.sample(range(90), rng.choice((1, 4, 9, 40)))
            made = {id: {f: vector(rng) for f in self.fields if rng.random() < 0.7} for id in ids}
            given = {f: [made[id].get(f) for id in ids] for f in self.fields}
            self.c.upsert(ids, given, metadata=[{"title": f"row {id % 7}", "n": id % 5} for id in ids])
            self.rows.update(made)
        elif what == "delete":
            ids = rng.sample(sorted(self.rows), min(len(self.rows), 9))
            self.c.delete(ids)
            for id in ids:
                del self.rows[id]
        elif what == "field":
            if len(self.fields) > 1 and rng.random() < 0.5:
                gone = self.fields.pop()
                self.c.drop_vector(gone)
                for row in self.rows.values():
                    row.pop(gone, None)
            elif len(self.fields) < 4:
                self.fields.append(f"more {rng.random()}")
                self.c.add_vector(self.fields[-1], vecdb.SparseVector())
        elif what == "optimize":
            self.c.optimize()
        elif what == "rebuild":
            self.c.optimize(rebuild=True)
        elif what == "idle":
            self.db._fold_idle(0.001)
        else:
            kept = list(self.fields), {id: {f: dict(v) for f, v in row.items()} for id, row in self.rows.items()}
            try:
                with self.db.transaction():
                    for _ in range(3):
                        while (before := self.rng.getstate()) and self.peek() in ("optimize", "transaction", "idle", "rebuild"):
                            self.rng.random()
                        self.rng.setstate(before)
                        self.step()
                        self.look(self.c, 1)
                    if rng.random() < 0.4:
                        raise RuntimeError
            except RuntimeError:
                self.fields, self.rows = kept

    def peek(self) -> str:
        state = self.rng.getstate()
        found = self.rng.choice(("put", "put", "put", "delete", "field", "optimize", "transaction", "idle", "rebuild"))
        self.rng.setstate(state)
        return found

    def look(self, c: Any, times: int) -> None:
        rng = self.rng
        for _ in range(times):
            field, asked, k = rng.choice(self.fields), vector(rng), rng.choice((1, 5, 30, None))
            where = rng.choice((None, "n = 2", "n < 4", "matches(title, '3')", "matches(title, 'row -3')"))
            chosen = {
                id: sum(w * row[field][t] for t, w in asked.items() if t in row[field])
                for id, row in self.rows.items()
                if field in row and {
                    None: True, "n = 2": id % 5 == 2, "n < 4": id % 5 < 4, "matches(title, '3')": id % 7 == 3,
                    "matches(title, 'row -3')": id % 7 != 3,
                }[where]
            }  # fmt: skip
            for exact in (False, True):
                hits = c.search(Sparse(asked, using=field), k, where=where, exact=exact)
                assert hits.scores.tolist() == sorted(chosen.values(), reverse=True)[:k], (field, asked, where)
                assert [chosen[id] for id in hits.ids] == hits.scores.tolist()
        assert c.search(Text("3"), None).ids == sorted(id for id in self.rows if id % 7 == 3)


@pytest.mark.parametrize("seed", range(LIVES))
def test_every_ranking_is_the_references(small: None, tmp_path: Path, seed: int) -> None:  # noqa: F811
    life = Life(tmp_path / "s.vecdb", seed)
    for _ in range(60):
        life.step()
        life.look(life.c, 2)
        if life.rng.random() < 0.3:
            life.look(life.other["c"], 1)
    assert life.db.check() == []
    life.other.close()
    life.db.close()
    with vecdb.open(tmp_path / "s.vecdb", mode="r") as db:
        life.look(db["c"], 4)
        assert db.check() == []
