"""A collection whose vectors become others while it is used, and the dict that it must equal.

The dict keeps of every row what its vector was made of (a vector as it was given, or a text), and of the
field which encoder and adapters make vectors of that: so whatever migrations begin, stop, end and are undone,
what each row's vector must be is worked out anew. Brute force over those says what a search must find.

`World` is driven by tests/model/test_migrating_machine.py and tests/faults/test_migrating_kill.py.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import vecdb
from tests import damage, deeds
from vecdb.adapting.adapter import Adapter
from vecdb.collection import steps
from vecdb.errors import InvalidArgument
from vecdb.index import sweeping
from vecdb.index.follow import Follower
from vecdb.storage import keys

FIELD = "v"  # the field that migrates
OTHER = "w"  # one that does not
OTHER_DIM = 3


def hashed(text: str, dim: int, name: str) -> Any:
    """A vector that a text has, whoever asks."""
    seed = int.from_bytes(blake2b(f"{name} {text}".encode(), digest_size=8).digest(), "big")
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


def encoder(name: str, dim: int, letters: int | None = None) -> Any:
    """An encoder that reads so many letters of a text, None: all of them."""
    return vecdb.encoders.function(
        lambda texts: np.stack([hashed(text[:letters], dim, name) for text in texts]), name=name, dim=dim
    )


def hurried(patch: Any) -> None:
    """Steps of a few rows, and rounds of upkeep that begin with few dead slots."""
    patch.setattr(steps, "FIRST_STEP", 3)
    patch.setattr(steps, "MOST_STEP", 6)
    patch.setattr(steps, "LAST_ROWS", 1)
    patch.setattr(sweeping, "LEAST", 8)


def encoders(dim: int) -> list[Any]:
    """Three, the first of which cannot tell texts apart that begin with the same letter; known by name."""
    made = [encoder(f"first {dim}", dim, 1), encoder(f"whole {dim}", dim + 3), encoder(f"two {dim}", dim - 1, 2)]
    for each in made:
        vecdb.encoders.register(each.name, lambda each=each: each)
    return made


@dataclass(frozen=True)
class Base:
    """What a row's vector was made of."""

    given: bytes | None  # a float32 vector
    text: str | None

    @staticmethod
    def of(vector: Any) -> Base:
        return Base(np.asarray(vector, np.float32).tobytes(), None)


@dataclass(frozen=True)
class Recipe:
    """What makes a vector of that."""

    encoder: Any
    adapters: tuple[Adapter, ...] = ()
    dim: int = 0  # of what is given

    def value(self, base: Base) -> Any:
        found = (
            np.frombuffer(base.given, np.float32)
            if base.given is not None
            else self.encoder.encode_documents([base.text])[0]
        )
        return self.images(found)

    def images(self, vector: Any) -> Any:
        for adapter in self.adapters:
            vector = adapter(vector)
        return vector


@dataclass(frozen=True)
class Known:
    """A row as it must be."""

    base: Base | None
    behind: Base | None  # in the vectors that were before; None: it has none there
    text: str | None
    n: int
    other: bytes | None = None


@dataclass(frozen=True)
class Was:
    """What a snapshot must show."""

    rows: dict[int, Known]
    recipe: Recipe


class Reader:
    """The collection as a process sees it that has the file open to read."""

    def __init__(self, sprout: Any) -> None:
        self.sprout = sprout

    def ask(self, verb: str, *arguments: Any, **named: Any) -> Any:
        self.sprout.line.put((verb, arguments, named))
        verdict, found = self.sprout.line.get(60)
        assert verdict == "answer", found
        return found

    def __len__(self) -> int:
        return int(self.ask("__len__"))

    def get(self, id: int) -> Any:
        return SimpleNamespace(**self.ask("get", id))

    def count(self, where: Any) -> int:
        return int(self.ask("count", where))

    def search(self, *arguments: Any, **named: Any) -> Any:
        return Found(*self.ask("search", *arguments, **named))


@dataclass(frozen=True)
class Found:
    """Hits, as they come through a pipe."""

    ids: list[int]
    distances: Any

    def __len__(self) -> int:
        return len(self.ids)


def read_beside(line: Any, path: str, dim: int) -> None:
    """The process of a `Reader`: answers until the other side ends."""
    encoders(dim)
    with vecdb.open(path, mode="r") as db:
        c = db["c"]
        while True:
            try:
                verb, arguments, named = line.get()
            except EOFError:
                return
            try:
                found = getattr(c, verb)(*arguments, **named)
                if verb == "get":
                    found = {"metadata": dict(found.metadata), "text": found.text, "vectors": dict(found.vectors)}
                elif verb == "search":
                    found = (found.ids, np.array(found.distances))
                line.put(("answer", found))
            except Exception as error:
                line.put(("error", f"{type(error).__name__}: {error}"))


class World:
    """The collection, the dict, and who looks beside."""

    def __init__(
        self, path: Path | str, seed: int, *, texts: bool, dim: int = 6, metric: str = "cosine",
        dtype: str = "f32", ids: int = 40, beside: bool = True, simple: bool = False,
    ) -> None:  # fmt: skip
        """`simple`: every row has a vector, made of its text where texts are encoded."""
        self.path, self.seed = str(path), seed
        self.rng, self.np_rng = random.Random(seed), np.random.default_rng(seed)
        self.texts, self.metric, self.dtype, self.dim, self.ids = texts, metric, dtype, dim, ids
        self.encoders = encoders(dim) if texts else []
        self.simple = simple
        self.loose = 6e-3 if dtype == "f16" else 2e-3
        self.db = vecdb.open(self.path, durability="none", upkeep=False)
        field = vecdb.Vector(None if texts else dim, metric=metric, dtype=dtype,
                             encoder=self.encoders[0] if texts else None)  # fmt: skip
        self.c = self.db.create_collection("c", vectors={FIELD: field, OTHER: vecdb.Vector(OTHER_DIM, metric="l2")})
        self.recipe = Recipe(self.encoders[0] if texts else None, dim=self.given_dim(0))
        self.next: Recipe | None = None
        self.previous: Recipe | None = None
        self.rows: dict[int, Known] = {}
        self.snapshots: list[tuple[Any, Was]] = []
        self.beside = Follower(self.c._cid, lambda: 0, 1) if beside else None
        self.reader: Reader | None = None  # a process beside
        self.counts: Counter[str] = Counter()
        self.number = 0

    def given_dim(self, encoder: int) -> int:
        return self.encoders[encoder].dim if self.texts else self.dim

    def close(self) -> None:
        for snapshot, _ in self.snapshots:
            snapshot.close()
        self.snapshots = []
        self.db.close()

    # --- deeds on rows -------------------------------------------------------------------------

    def some_vector(self, dim: int | None = None) -> Any:
        return self.np_rng.standard_normal(dim or self.recipe.dim).astype(np.float32)

    def some_text(self) -> str:
        return f"{self.rng.choice('abc')}{self.rng.choice('xyz')}{self.rng.randrange(30)}"

    def some_ids(self, rng: random.Random, most: int) -> list[int]:
        return rng.sample(range(self.ids), rng.randint(1, min(most, self.ids)))

    def upsert(self, ids: list[int], *, textless: bool = False) -> None:
        """Rows with a vector given, with a text, with both, or with none; some with the other field."""
        self.number += 1
        many = [self.some_row(textless) for _ in ids]
        together = self.rng.random() < 0.5
        groups = [list(range(len(ids)))] if not self.texts or together else [[i] for i in range(len(ids))]
        for group in groups:
            if self.texts and len(group) > 1:
                many = [replace(each, base=None if each.text is None else Base(None, each.text)) for each in many]
            chosen = [many[i] for i in group]
            vectors: dict[str, Any] = {}
            if any(each.base is not None and each.base.given is not None for each in chosen):
                vectors[FIELD] = [None if e.base is None or e.base.given is None
                                  else np.frombuffer(e.base.given, np.float32) for e in chosen]  # fmt: skip
            if any(each.other is not None for each in chosen):
                vectors[OTHER] = [None if e.other is None else np.frombuffer(e.other, np.float32) for e in chosen]
            texts = [each.text for each in chosen] if self.texts or self.rng.random() < 0.5 else None
            if texts is None:
                chosen = [replace(each, text=None) for each in chosen]
            self.c.upsert([ids[i] for i in group], vectors or None, texts=texts,
                          metadata=[{"n": e.n} for e in chosen])  # fmt: skip
            for i, each in zip(group, chosen, strict=True):
                self.rows[ids[i]] = self.after(self.rows.get(ids[i]), each)
        self.counts["upsert"] += 1

    def some_row(self, textless: bool) -> Known:
        text = self.some_text() if self.simple or self.rng.random() < 0.9 else None
        other = Base.of(self.some_vector(OTHER_DIM)).given if self.rng.random() < 0.4 else None
        base = None
        if self.texts:
            if not self.simple and self.rng.random() < 0.2 and (textless or text is not None):
                base = Base.of(self.some_vector())
            elif text is not None:
                base = Base(None, text)
        elif self.simple or self.rng.random() < 0.9:
            base = Base.of(self.some_vector())
        return Known(base, None, text, self.number, other)

    def after(self, before: Known | None, row: Known) -> Known:
        """A row that was written: what becomes of its vector in the field behind."""
        if self.previous is None or row.base is None:
            return replace(row, behind=None)
        if self.previous.encoder is self.recipe.encoder:
            return replace(row, behind=row.base)
        if before is not None and before.text == row.text and self.same(before.base, row.base):
            return replace(row, behind=before.behind)
        return replace(row, behind=None)

    def same(self, one: Base | None, two: Base | None) -> bool:
        if one is None or two is None:
            return one is two
        return bool((self.recipe.value(one) == self.recipe.value(two)).all())

    def update(self, id: int, what: str) -> None:
        before = self.rows.get(id)
        self.number += 1
        patch: dict[str, Any] = {"metadata": {"n": self.number}}
        row = None if before is None else replace(before, n=self.number)
        if what == "vector":
            vector = self.some_vector()
            patch["vectors"] = {FIELD: vector}
            row = row and replace(row, base=Base.of(vector))
        elif what == "text" and self.texts:
            text = self.some_text()
            patch["texts"] = text
            row = row and replace(row, text=text, base=Base(None, text))
        elif what == "other":
            vector = self.some_vector(OTHER_DIM)
            patch["vectors"] = {OTHER: vector}
            row = row and replace(row, other=Base.of(vector).given)
        if what == "text" and row is not None and row.text is None:
            return
        if what == "vector" and self.texts and row is not None and row.text is None:
            return  # it could not be encoded
        self.counts[f"update {what}"] += 1
        if before is None or row is None:
            try:
                self.c.update(id, **patch)
            except vecdb.errors.NotFound:
                return
            raise AssertionError("NotFound expected")
        assert self.c.update(id, **patch) == 1
        self.rows[id] = self.after(before, row) if what in ("vector", "text") else row

    def delete(self, ids: list[int]) -> None:
        self.counts["delete"] += 1
        known = [i for i in ids if i in self.rows]
        assert self.c.delete(ids) == len(known)
        for i in known:
            del self.rows[i]

    def delete_where(self, limit: int) -> None:
        self.counts["delete where"] += 1
        chosen = [i for i, row in self.rows.items() if row.n < limit]
        assert self.c.delete(where=f"n < {limit}") == len(chosen)
        for i in chosen:
            del self.rows[i]

    def abort(self) -> None:
        self.counts["abort"] += 1
        vectors = None if self.texts else {FIELD: np.stack([self.some_vector() for _ in range(9)])}
        try:
            with self.db.transaction():
                self.c.upsert(list(range(9)), vectors, texts=[self.some_text() for _ in range(9)])
                self.c.delete(list(range(4, 20)))
                raise KeyError
        except KeyError:
            pass

    # --- deeds of a migration ------------------------------------------------------------------

    def migrate(self, steps: int | None) -> None:
        """Begin a migration, or go on with it, for so many steps; None: to its end."""
        if self.previous is not None:
            self.refused()
            return
        going = self.next or self.some_recipe()
        if self.textless(going):
            self.counts["refused: no text"] += 1
            before = self.c.schema
            try:
                self.run(going, None)
            except InvalidArgument as error:
                assert "no text to encode" in str(error)
                if self.next is None:
                    assert self.c.schema == before
                return
            raise AssertionError("a row without a text was encoded")
        self.next = going
        self.counts["steps"] += 1
        self.run(going, steps)
        if FIELD in self.c.schema.hidden and self.c.schema.hidden[FIELD].role == "previous":
            self.switched()
        else:
            assert steps is not None

    def textless(self, going: Recipe) -> bool:
        if going.encoder is self.recipe.encoder:
            return False
        return any(row.base is not None and row.text is None for row in self.rows.values())

    def some_recipe(self) -> Recipe:
        if self.texts and self.rng.random() < 0.6:
            at = self.rng.choice([i for i, e in enumerate(self.encoders) if e is not self.recipe.encoder])
            return Recipe(self.encoders[at], dim=self.given_dim(at))
        declared = self.c.schema.vectors[FIELD]
        matrix = self.np_rng.standard_normal((declared.dim, max(2, declared.dim + self.rng.choice([-2, 0, 0, 3]))))
        mean = self.some_vector(declared.dim) / 5 if self.rng.random() < 0.3 else None
        made = Adapter(matrix / np.sqrt(declared.dim), metric=self.metric, mean=mean, encoder_fingerprint=declared.space)
        return replace(self.recipe, adapters=(*self.recipe.adapters, made))

    def run(self, going: Recipe, steps: int | None) -> None:
        left = [steps]

        def enough() -> bool:
            if left[0] is None:
                return False
            left[0] -= 1
            return left[0] < 0

        if going.encoder is self.recipe.encoder:
            self.c.apply_adapter(going.adapters[-1], using=FIELD, force=True, cancel=enough)
        else:
            self.c.reembed(going.encoder, using=FIELD, bridge=False, cancel=enough)

    def switched(self) -> None:
        assert self.next is not None
        self.counts["switched"] += 1
        was, self.recipe, self.next = self.recipe, self.next, None
        self.previous = was
        for i, row in self.rows.items():
            base = row.base
            if base is not None and was.encoder is not self.recipe.encoder:
                base = Base(None, row.text)
            self.rows[i] = replace(row, base=base, behind=row.base)

    def refused(self) -> None:
        """Another migration, while the vectors before the last one are kept."""
        self.counts["refused: kept"] += 1
        try:
            self.run(self.some_recipe(), None)
        except InvalidArgument as error:
            assert "drop_previous_vectors" in str(error)
            return
        raise AssertionError("a second set of previous vectors")

    def roll_back(self) -> None:
        if self.next is None and self.previous is None:
            try:
                self.c.rollback_vectors(FIELD)
            except InvalidArgument:
                return
            raise AssertionError("nothing to roll back")
        self.counts["rolled back" if self.previous else "abandoned"] += 1
        if self.previous is not None:
            lost = [row for row in self.rows.values() if row.base and row.behind is None and row.text is None]
            try:
                self.c.rollback_vectors(FIELD)
            except InvalidArgument as error:
                assert lost and "no text to encode" in str(error)
                return
            assert not lost
            for i, row in self.rows.items():
                base = row.base and (row.behind or Base(None, row.text))
                self.rows[i] = replace(row, base=base, behind=None)
            self.recipe, self.previous = self.previous, None
        else:
            self.c.rollback_vectors(FIELD)
            self.next = None

    def drop_previous(self) -> None:
        if self.previous is None:
            try:
                self.c.drop_previous_vectors(FIELD)
            except InvalidArgument:
                return
            raise AssertionError("nothing to drop")
        self.counts["dropped"] += 1
        self.c.drop_previous_vectors(FIELD)
        self.previous = None
        self.rows = {i: replace(row, behind=None) for i, row in self.rows.items()}

    # --- other deeds ---------------------------------------------------------------------------

    def optimize(self, rebuild: bool = False) -> None:
        self.counts["rebuilt" if rebuild else "optimized"] += 1
        self.c.optimize(rebuild=rebuild)

    def take_snapshot(self) -> None:
        if len(self.snapshots) < 2:
            self.counts["snapshot"] += 1
            self.snapshots.append((self.db.snapshot(), Was(dict(self.rows), self.recipe)))

    def end_snapshot(self) -> None:
        if self.snapshots:
            self.snapshots.pop(0)[0].close()

    def reopen(self) -> None:
        self.counts["reopen"] += 1
        self.close()
        self.db = vecdb.open(self.path, durability="none", upkeep=False)
        self.c = self.db["c"]
        if self.beside is not None:
            self.beside = Follower(self.c._cid, lambda: 0, 1)

    def lose_state(self) -> None:
        """The collection's state is gone, and is worked out from the rows."""
        self.counts["state lost"] += 1
        self.close()
        with damage.write(self.path) as txn:
            txn.delete(keys.state(self.c._cid))
        self.reopen()
        self.c.optimize()

    # --- verdicts ------------------------------------------------------------------------------

    def judge(self, check: bool = True) -> None:
        self.compare(self.c, Was(self.rows, self.recipe))
        for snapshot, was in self.snapshots:
            self.compare(snapshot["c"], was)
        if self.reader is not None:
            self.compare(self.reader, Was(self.rows, self.recipe))
            self.counts["asked beside"] += 1
        if self.beside is not None:
            self.follow()
        if check:
            problems = self.db.check()
            assert problems == [], [str(problem) for problem in problems[:5]]

    def compare(self, c: Any, was: Was) -> None:
        """A collection, or a snapshot's, against the dict and brute force."""
        assert len(c) == len(was.rows)
        held = {i: was.recipe.value(row.base) for i, row in was.rows.items() if row.base is not None}
        for i in self.rng.sample(list(was.rows), min(6, len(was.rows))):
            self.same_row(c.get(i), was.rows[i], held.get(i))
        assert c.count("n >= 0") == len(was.rows)
        limit = self.rng.randrange(self.number + 1)
        some = {i: v for i, v in held.items() if was.rows[i].n < limit}
        self.compare_search(c, was, held, None)
        self.compare_search(c, was, some, f"n < {limit}")
        other = {i: np.frombuffer(r.other, np.float32) for i, r in was.rows.items() if r.other is not None}
        hits = c.search(self.some_vector(OTHER_DIM), 50, using=OTHER)
        assert sorted(hits.ids) == sorted(other)[:50] or len(other) > 50

    def same_row(self, record: Any, row: Known, vector: Any) -> None:
        assert record is not None
        assert (record.metadata, record.text) == ({"n": row.n}, row.text), (record.metadata, record.text, row.n, row.text)
        found = dict(record.vectors)
        names = {FIELD: vector, OTHER: row.other}
        assert set(found) == {name for name, each in names.items() if each is not None}, (set(found), row)
        if vector is not None:
            assert self.alike(found[FIELD], vector), (found[FIELD][:4], vector[:4])
        if row.other is not None:
            assert found[OTHER].tobytes() == row.other

    def alike(self, one: Any, two: Any) -> bool:
        size = float(np.abs(two).max())
        return one.shape == two.shape and bool(np.abs(one - two).max() <= self.loose * max(size, 1e-3))

    def compare_search(self, c: Any, was: Was, held: dict[int, Any], where: Any) -> None:
        if self.texts and self.rng.random() < 0.5:
            query: Any = self.some_text()
            given = was.recipe.encoder.encode_queries([query])[0]
        else:
            query = given = self.some_vector(was.recipe.dim)
        mapped = was.recipe.images(given)
        ids = list(held)
        k = 8
        truth = np.sort(self.distances(held, ids, mapped))[:k]
        far = self.loose * (1 + np.abs(truth).max(initial=0))
        exact = c.search(query, k, where=where, exact=True, using=FIELD)
        assert len(exact) == len(truth), (len(exact), len(truth))
        assert np.allclose(exact.distances, truth, atol=far), (exact.distances, truth)
        hits = c.search(query, k, where=where, using=FIELD)
        assert len(hits) == len(truth) and set(hits.ids) <= set(ids) and len(set(hits.ids)) == len(hits)
        mine = self.distances(held, hits.ids, mapped)
        assert np.allclose(hits.distances, mine, atol=far), (hits.distances, mine)
        self.counts["asked"] += len(truth)
        self.counts["found"] += int((hits.distances <= truth[-1:] + far).sum()) if len(truth) else 0

    def distances(self, held: dict[int, Any], ids: list[int], query: Any) -> Any:
        if not ids:
            return np.empty(0)
        return deeds.distances(self.metric, np.stack([held[i] for i in ids]), query)

    def follow(self) -> None:
        """A follower beside has the writer's links, and so has a fresh open; codes of who is inside."""
        txn = self.db._env.begin_read()
        try:
            commit = self.db._env.commit_number(txn)
            mine = self.db._follower(self.c._cid).at(txn, commit)
            assert self.beside is not None
            followed = self.beside.at(txn, commit)
            fresh = Follower(self.c._cid, lambda: 0, 1).at(txn, commit)
            for number, each in mine.vectors.items():
                for name, other in (("follower", followed), ("fresh open", fresh)):
                    self.same_graph(f"{name}, field {number}", each.graph, other.vectors[number].graph)
        finally:
            txn.abort()

    def same_graph(self, which: str, mine: Any, other: Any) -> None:
        slots = np.arange(mine.n_slots, dtype=np.uint32)
        assert mine.n_slots == other.n_slots, which
        inside = np.flatnonzero(np.frombuffer(mine.absent(slots), np.uint8) == 0).tolist()
        for slot in inside:
            assert other.has_vector(slot), (which, slot)
            assert mine.vector(slot) == other.vector(slot), (which, slot)
            assert mine.codes(slot, 1) == other.codes(slot, 1), (which, slot)
        for layer in (0, 1):
            for chunk in range(mine.n_chunks(layer)):
                assert mine.chunk(layer, chunk) == other.chunk(layer, chunk), (which, layer, chunk)

    def whole(self, c: Any, was: Was) -> None:
        """Every row, and the searches."""
        records = {record.id: record for record in c}
        assert set(records) == set(was.rows), "rows are missing, or are too many"
        for i, row in was.rows.items():
            self.same_row(records[i], row, None if row.base is None else was.recipe.value(row.base))
        self.compare(c, was)

    # --- a random life -------------------------------------------------------------------------

    def some_deed(self) -> str:
        """One at random, of those that go on a life's way."""
        rng = self.rng
        deeds: list[tuple[str, float, Any]] = [
            ("upsert", 8, lambda: self.upsert(self.some_ids(rng, rng.choice([1, 4, 30])))),
            ("update", 5, lambda: self.update(rng.randrange(self.ids), rng.choice(["vector", "text", "other", "n"]))),
            ("delete", 4, lambda: self.delete(self.some_ids(rng, rng.choice([1, 4, 20])))),
            ("abort", 1, self.abort),
            ("step", 8, lambda: self.migrate(rng.choice([0, 1, 1, 2, 3]))),
            ("finish", 1, lambda: self.migrate(None)),
            ("roll back", 2, self.roll_back),
            ("drop previous", 3, self.drop_previous),
            ("optimize", 0.7, self.optimize),
            ("rebuild", 0.3, lambda: self.optimize(rebuild=True)),
            ("snapshot", 1, self.take_snapshot),
            ("end snapshot", 1, self.end_snapshot),
            ("reopen", 0.5, self.reopen),
            ("lose state", 0.5, self.lose_state),
        ]
        names = [name for name, _, _ in deeds]
        name = rng.choices(names, [weight for _, weight, _ in deeds])[0]
        next(deed for each, _, deed in deeds if each == name)()
        return name
