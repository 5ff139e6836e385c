"""Full text under random lives of a collection says what a plain Python reference says, at every commit.

Rows come, change and go, in commits of their own and in transactions that are kept or dropped; folds and
merges happen at any time, for their thresholds are set so low that they always do; handles follow each
other, snapshots stay behind, files are opened again. After every few steps random queries and filters are
compared with tests/wording.py, in each of the handles, and `check` finds nothing.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.wording import LANGUAGE, Reference, compare, parts, sentence, title, written
from vecdb.index import textfolding, writing

LIVES = int(os.environ.get("VECDB_LIVES", "6"))
FULLTEXT: dict[str, Any] = {
    "text": vecdb.FullText(language=LANGUAGE), "title": vecdb.FullText(), "in.side": vecdb.FullText(),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds and merges all the time."""
    monkeypatch.setattr(textfolding, "FOLD_ROWS", 6)
    monkeypatch.setattr(textfolding, "PIECE_ROWS", 16)
    monkeypatch.setattr(textfolding, "LEAST", 256)
    monkeypatch.setattr(textfolding, "FAN", 3)
    monkeypatch.setattr(textfolding, "WORTH", 0)
    monkeypatch.setattr(textfolding, "SLICE", 1)
    monkeypatch.setattr(writing, "DIRECT_ROWS", 25)


class Life:
    """One collection, its reference, and who looks at it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.path = path
        self.db = vecdb.open(path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", dim=2, fulltext=FULLTEXT, fields={"title": vecdb.Unindexed})
        self.model = Reference(self.c.schema)
        self.other = vecdb.open(path, durability="none", upkeep=False)
        self.snapshots: list[tuple[Any, Reference]] = []

    def row(self) -> tuple[str | None, dict[str, Any]]:
        metadata = {"title": title(self.rng), "n": self.rng.randrange(5)}
        if self.rng.random() < 0.3:
            metadata["in.side" if self.rng.random() < 0.5 else "in"] = sentence(self.rng, 3)
        text = sentence(self.rng) if self.rng.random() < 0.8 else None
        return text, {k: v for k, v in metadata.items() if v is not None}

    def some(self, most: int) -> list[Any]:
        known = list(self.model.rows)
        return self.rng.sample(known, min(len(known), self.rng.randrange(1, most)))

    def write(self) -> None:
        rng, rows = self.rng, self.model.rows
        verb = rng.choice(("add", "add", "upsert", "update", "retext", "delete", "delete where", "many", "none"))
        if verb in ("add", "upsert", "many"):
            count = rng.randrange(26, 60) if verb == "many" else rng.randrange(1, 9)
            ids: list[Any] = [rng.choice((i, f"id {i}")) for i in rng.sample(range(200), count)]
            if verb == "add":
                ids = [id for id in ids if id not in rows]
            made = {id: self.row() for id in ids}
            vectors = [[1 + rng.random(), 1] for _ in ids] if rng.random() < 0.5 else None
            put = self.c.add if verb == "add" else self.c.upsert
            put(ids, vectors, texts=[t for t, _ in made.values()], metadata=[m for _, m in made.values()])
            rows.update(made)
        elif verb == "update":
            for id in self.some(6):
                new = title(rng)
                self.c.update(id, metadata={"title": vecdb.REMOVE if new is None else new})
                kept = {k: v for k, v in rows[id][1].items() if k != "title"}
                rows[id] = rows[id][0], kept | ({} if new is None else {"title": new})
        elif verb == "retext":
            ids = self.some(6)
            texts = [sentence(rng) for _ in ids]
            if ids:
                self.c.update(ids, texts=texts)
            rows.update({id: (text, rows[id][1]) for id, text in zip(ids, texts, strict=True)})
        elif verb == "delete":
            ids = self.some(9)
            assert self.c.delete(ids) == len(ids)
            for id in ids:
                del rows[id]
        elif verb == "delete where":
            wanted = [(" ", "word", "rare"), ("", "word", rng.choice(("gpu", "slow", "web")))]
            listed = [(sign.strip(), kind, word) for sign, kind, word in wanted]
            gone = self.model.matches(listed, "text")
            assert self.c.delete(where={"text": {"$matches": written(listed)}}) == len(gone)
            for id in gone:
                del rows[id]
        else:
            self.c.update(where={"n": 3}, metadata={"n": 4})
            rows.update({i: (t, {**m, "n": 4}) for i, (t, m) in rows.items() if m.get("n") == 3})

    def step(self) -> None:
        rng = self.rng
        what = rng.choice(("write",) * 8 + ("transaction", "abort", "optimize", "idle", "snapshot", "reopen", "rebuild"))
        if what == "write":
            self.write()
        elif what in ("transaction", "abort"):
            before = self.model.copy()
            try:
                with self.db.transaction():
                    for _ in range(rng.randrange(1, 5)):
                        self.write()
                        if rng.random() < 0.5:
                            compare(self.c, self.model, rng, 1)
                    if what == "abort":
                        raise RuntimeError
            except RuntimeError:
                self.model = before
        elif what == "optimize":
            self.c.optimize()
            assert len(self.segments()) <= 1
        elif what == "rebuild":
            self.c.optimize(rebuild=True)
        elif what == "idle":
            self.db._fold_idle(0.001)
        elif what == "snapshot":
            self.snapshots.append((self.db.snapshot(), self.model.copy()))
            if len(self.snapshots) > 2:
                self.snapshots.pop(0)[0].close()
        else:
            for snapshot, _ in self.snapshots:
                snapshot.close()
            self.snapshots = []
            self.db.close()
            self.db = vecdb.open(self.path, durability="none", upkeep=False)
            self.c = self.db["c"]

    def segments(self) -> list[Any]:
        with self.c._reading() as (_, view):
            return view.state.text.segments

    def look(self) -> None:
        compare(self.c, self.model, self.rng, 3)
        if self.rng.random() < 0.5:
            compare(self.other["c"], self.model, self.rng, 2)
        for snapshot, model in self.snapshots:
            compare(snapshot["c"], model, self.rng, 1)

    def end(self) -> None:
        for snapshot, _ in self.snapshots:
            snapshot.close()
        self.other.close()
        self.db.close()


@pytest.mark.parametrize("seed", range(LIVES))
def test_every_search_says_what_the_reference_says(small: None, tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path / "t.vecdb", seed)
    most = 0
    for turn in range(60):
        life.step()
        if turn % 3 == 0:
            life.look()
        most = max(most, len(life.segments()))
    life.look()
    assert life.db.check() == [] and most > 3
    life.end()
    print(f"seed {seed}: {len(life.model.rows)} rows, up to {most} segments")


def test_random_filters_mean_the_same_bound_to_a_row(tmp_path: Path) -> None:
    """`matches` of a row's own values, as why_not asks it, and of the index."""
    rng = random.Random(3)
    with vecdb.open(tmp_path / "t.vecdb", durability="none") as db:
        c = db.create_collection("c", dim=2, fulltext=FULLTEXT)
        made = [(sentence(rng), {"title": t} if (t := title(rng)) is not None else {}) for _ in range(80)]
        c.add(range(80), texts=[t for t, _ in made], metadata=[m for _, m in made])
        for _ in range(60):
            field = rng.choice(("text", "title"))
            where = c._filter({field: {"$matches": written(parts(rng, "  -"))}})
            holds = {i for i, (t, m) in enumerate(made) if where.matches({**m, "text": t})}
            assert holds == {r.id for r in c.scan(where)}, where
