"""Several vector fields: whatever is done, each field answers as if it were a collection of its own.

The model is a dict of rows with their vectors by field, and brute force. Fields of every kind, rows
that lack some of them or all, fields that come and go, an encoder that reads a metadata field and is
asked no text twice, transactions that are thrown away, reopening, and a second process that follows.
Seed and counts are printed with `-s`.
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
from vecdb.errors import SchemaError

ASKED: list[str] = []  # the texts that the encoder was given


def told(text: str) -> Any:
    """What the encoder makes of a text."""
    return np.array([len(text), text.count("a") - 2, hash_of(text) % 9, 1], np.float32)


def hash_of(text: str) -> int:
    return sum(ord(letter) * at for at, letter in enumerate(text))


def encode(texts: list[str]) -> Any:
    ASKED.extend(texts)
    return np.array([told(text) for text in texts])


ENCODER = vecdb.encoders.function(encode, name="told", dim=4)
WORDS = ["banana", "ananas", "pear", "fig", "kiwi", "apple", "plum"]
FIELDS: dict[str, vecdb.Vector] = {
    "plot": vecdb.Vector(300, metric="l2"),
    "poster": vecdb.Vector(40, dtype="f16"),
    "tokens": vecdb.Vector(4, multi=True, metric="dot"),
    "small": vecdb.Vector(12, dtype="i8"),
    "steps": vecdb.Vector(7, dtype="i8", metric="l2"),
    "gains": vecdb.Vector(5, dtype="i8", metric="dot"),
    "bits": vecdb.Vector(13, dtype="b1"),
    "told": vecdb.Vector(encoder=ENCODER, source="s.t", metric="l2"),
}
LATER = [vecdb.Vector(8, metric="dot"), vecdb.Vector(70, dtype="b1"), vecdb.Vector(3, dtype="i8")]
DTYPES = {"f32": np.float32, "f16": np.float16, "i8": np.int8, "b1": np.uint8}
Model = dict[Any, dict[str, Any]]


class World:
    """A collection and its model, changed alike."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.rng = np.random.default_rng(seed)
        self.rows: Model = {}
        self.encoded: set[str] = set()  # texts whose embeddings were committed
        self.fields = dict(FIELDS)
        self.db = vecdb.open(path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", vectors=self.fields)
        self.counts: dict[str, int] = {}

    def vector(self, name: str) -> Any:
        """A random vector of a field, or none at all."""
        declared = self.fields[name]
        if self.rng.random() < 0.3:
            return None
        shape: Any = 4 if name == "told" else declared.dim
        if declared.dtype == "b1":
            return self.rng.integers(0, 2, shape).astype(np.uint8)
        if declared.multi:
            shape = (int(self.rng.integers(0, 4)), declared.dim)
        found = self.rng.integers(-20, 21, shape).astype(
            np.int8 if declared.dtype == "i8" else np.float32
        )
        if declared.metric in (None, "cosine"):
            found[..., 0] += 50
        return found

    def as_given(self, name: str, rows: list[Any]) -> Any:
        """The same vectors in one of the forms that users have them in."""
        form = int(self.rng.integers(4))
        if all(each is None for each in rows):
            return None if form else rows
        if self.fields[name].dtype == "b1" and form < 3:
            forms = (lambda bits: bits.astype(np.bool_), np.packbits, lambda bits: bits.tolist())
            return [None if each is None else forms[form](each) for each in rows]
        if self.fields[name].dtype != "i8" and not self.fields[name].multi and form == 0:
            return [None if each is None else each.tolist() for each in rows]
        if all(each is not None for each in rows) and not self.fields[name].multi:
            return np.stack(rows)
        return rows

    def some(self, n: int) -> list[Any]:
        """Ids, known ones more often than not."""
        pool = list(dict.fromkeys([*self.rows, *range(10_000, 10_000 + 3 * n)]))
        picked = self.rng.choice(len(pool), size=min(n, len(pool)), replace=False)
        return [pool[int(i)] for i in picked]

    def act(self) -> None:
        """One deed, in the collection and in the model."""
        deeds = [
            "upsert", "upsert", "update", "metadata", "delete", "where", "fields", "abort", "source",
            "source_where",
        ]  # fmt: skip
        name = deeds[int(self.rng.integers(len(deeds)))]
        self.counts[name] = self.counts.get(name, 0) + 1
        ASKED.clear()
        getattr(self, f"do_{name}")()
        assert not self.encoded & set(ASKED), "no text is encoded twice"
        if name != "abort":
            self.encoded |= set(ASKED)
            self.counts["encoded"] = len(self.encoded)

    def do_upsert(self) -> None:
        """Rows whole, by the hundred now and then, so that blocks fill."""
        ids = self.some(int(self.rng.choice([1, 3, 40, 400])))
        names = [name for name in self.fields if name != "told" or self.rng.random() < 0.4]
        given = {name: [self.vector(name) for _ in ids] for name in names}
        meta = [{"n": int(self.rng.integers(10))} | self.source() for _ in ids]
        self.c.upsert(ids, {n: self.as_given(n, v) for n, v in given.items()}, metadata=meta)
        for at, id in enumerate(ids):
            self.rows[id] = {"meta": meta[at]} | {n: v[at] for n, v in given.items() if v[at] is not None}
            if "told" not in given:
                self.tell(self.rows[id])

    def text(self) -> str:
        return f"{self.rng.choice(WORDS)} {self.rng.integers(300)}"

    def source(self) -> dict[str, Any]:
        """Metadata with a text for the encoder, in one of its two spellings, or with none."""
        text = self.text()
        found = ({"s": {"t": text}}, {"s.t": text}, {"s": {"u": 1}}, {"s": {"t": 5}}, {})
        return dict(found[int(self.rng.integers(5))])

    def tell(self, row: dict[str, Any]) -> None:
        """The model's row gets the vector of its text."""
        row.pop("told", None)
        text = text_of(row["meta"])
        if text is not None:
            row["told"] = told(text)

    def do_source(self) -> None:
        """Texts change, and vectors with them, unless one is given."""
        for id in [id for id in self.some(6) if id in self.rows]:
            row, patch = self.rows[id], self.source()
            if self.rng.random() < 0.3:
                patch = {"s": vecdb.REMOVE, "s.t": vecdb.REMOVE}
            after = patched(row["meta"], patch)
            if "s.t" in after and "t" in after.get("s", {}):
                with pytest.raises(SchemaError, match=r"s\.t"):  # both spellings
                    self.c.update(id, metadata=patch)
                ASKED.clear()  # as below
                continue
            given = self.vector("told") if self.rng.random() < 0.3 else None
            before = text_of(row["meta"])
            self.c.update(id, metadata=patch, vectors=None if given is None else {"told": given})
            row["meta"] = after
            if given is not None:
                row["told"] = given
            elif text_of(after) != before or text_of(patch) is not None:
                self.tell(row)

    def do_source_where(self) -> None:
        """One text for all that a filter finds."""
        n, patch = int(self.rng.integers(10)), {"s": {"t": self.text()}}
        chosen = [row for row in self.rows.values() if row["meta"].get("n") == n]
        if any("s.t" in row["meta"] for row in chosen):  # such a row would have both spellings
            with pytest.raises(SchemaError, match=r"s\.t"):
                self.c.update(where=F.n == n, metadata=patch)
            ASKED.clear()  # kept for the next commit, which reopening may forestall
            return
        assert self.c.update(where=F.n == n, metadata=patch) == len(chosen)
        for row in chosen:
            row["meta"] = patched(row["meta"], patch)
            self.tell(row)

    def do_update(self) -> None:
        """Vectors of one field; the others stay."""
        ids = [id for id in self.some(20) if id in self.rows]
        name = list(self.fields)[int(self.rng.integers(len(self.fields)))]
        given = [self.vector(name) for _ in ids]
        assert self.c.update(ids, vectors={name: self.as_given(name, given)}) == len(ids)
        for id, vector in zip(ids, given, strict=True):
            self.rows[id].pop(name, None)
            if vector is not None:
                self.rows[id][name] = vector

    def do_metadata(self) -> None:
        n = int(self.rng.integers(10))
        self.c.update(where=F.n == n, metadata={"n": n, "seen": True})
        for row in self.rows.values():
            if row["meta"].get("n") == n:
                row["meta"] = patched(row["meta"], {"seen": True})

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
            self.fields["later"] = LATER[int(self.rng.integers(len(LATER)))]
            self.c.add_vector("later", self.fields["later"])

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
                assert vector.dtype == DTYPES[self.fields[name].dtype]
                assert np.array_equal(vector, row[name].astype(vector.dtype)), (record.id, name)
                made += 1
        for name in self.fields:
            made += self.compare_stored(name)
        for name, declared in self.fields.items():
            if not declared.multi:
                made += self.compare_searches(name, declared)
        return made

    def compare_stored(self, name: str) -> int:
        """What `vectors` reads back of some rows, in their order."""
        ids = [id for id in self.some(5) if name in self.rows.get(id, ())]
        found = self.c.vectors(ids, name)
        assert len(found) == len(ids)
        for id, vector in zip(ids, found, strict=True):
            assert np.array_equal(vector, self.rows[id][name].astype(vector.dtype)), (id, name)
        if not self.fields[name].multi:
            assert found.dtype == DTYPES[self.fields[name].dtype] and found.ndim == 2
        return len(ids)

    def query(self, name: str) -> Any:
        declared = self.fields[name]
        if declared.dtype == "b1":
            return self.rng.integers(0, 2, declared.dim or 0).astype(np.float32)
        size = 4 if name == "told" else declared.dim or 0
        return self.rng.integers(-20, 21, size).astype(np.float32) + 0.5

    def compare_searches(self, name: str, declared: vecdb.Vector) -> int:
        query = self.query(name)
        asked = query
        if declared.dtype == "b1" and self.rng.random() < 0.5:
            asked = np.packbits(query.astype(np.bool_))
        for where in (None, F.n == int(self.rng.integers(10))):
            found = {
                id: row[name] for id, row in self.rows.items()
                if name in row and (where is None or where.matches(row["meta"]))
            }  # fmt: skip
            metric = "hamming" if declared.dtype == "b1" else declared.metric or "cosine"
            truth = sorted(distances(metric, query, list(found.values())))[:10]
            for how in ({"exact": True}, {}, {"ef": 200}, {"exact": True, "with_vectors": True}):
                hits = self.c.search(asked, 10, where=where, using=name, **how)
                assert len(hits) == len(truth) and set(hits.ids) <= set(found), (name, where, how)
                if "exact" in how:
                    assert np.allclose(hits.distances, truth, rtol=1e-3, atol=1e-3)
                    assert np.allclose(hits.scores, scores(metric, hits.distances, len(query)), atol=1e-6)
                    for hit in hits if "with_vectors" in how else ():
                        assert hit.vector.dtype == DTYPES[declared.dtype]
                        assert np.array_equal(hit.vector, found[hit.id].astype(hit.vector.dtype))
                else:
                    assert not len(truth) or hits.distances[0] >= truth[0] - 1e-2
            plan = self.c.explain(asked, 10, where=where, using=name)
            assert plan.matches == len(found)
        return 8

    def reopen(self) -> None:
        self.db.close()
        self.db = vecdb.open(self.path, durability="none", upkeep=False)
        self.c = self.db.get_or_create_collection("c", vectors=self.fields)


def distances(metric: str, query: Any, vectors: list[Any]) -> Any:
    if not vectors:
        return []
    table = np.array(vectors, np.float64)
    if metric == "hamming":
        return (table != query).sum(1)
    if metric == "l2":
        return np.sqrt(((table - query) ** 2).sum(1))
    dots = table @ query
    if metric == "dot":
        return -dots
    return 1 - dots / np.linalg.norm(table, axis=1) / np.linalg.norm(query)


def scores(metric: str, found: Any, dim: int) -> Any:
    """API.md: what a distance is as a score."""
    return {"cosine": 1 - found, "l2": 1 / (1 + found), "dot": -found, "hamming": 1 - found / dim}[metric]


def patched(meta: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in {**meta, **patch}.items() if v is not vecdb.REMOVE}


def text_of(meta: dict[str, Any]) -> str | None:
    """The text at `s.t`, in either spelling."""
    inner = meta.get("s")
    found = meta.get("s.t", inner.get("t") if isinstance(inner, dict) else None)
    return found if isinstance(found, str) else None


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
@pytest.mark.parametrize("seed", range(10, 22))
def test_each_field_answers_as_if_alone_for_long(tmp_path: Path, seed: int) -> None:
    print(seed, life(tmp_path / "v.vecdb", seed, 120))


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
                query = world.query(name)
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
