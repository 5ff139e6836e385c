"""The processes that get killed: writers, readers, and what they answer when another one was killed.

All of them work on one file. Whoever has the writer lock looks at how far the file has come, and makes
the next commit: what that holds is a function of (seed, serial, model), so each process can replay what
the others did and compare every answer with its own dict. Each says what it is about to do, so that the
kill can be aimed, and acknowledges each commit, to a process that outlives it.

Two ways to do it wrong serve as controls: "early" acknowledges before the commit, "split" commits each
call by itself.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np

import vecdb
from tests import deeds, riches
from tests.deeds import BUCKETS, DIM, Call, Model, apply, calls, distances, metadata_of, world_of
from tests.nursery import Line
from tests.wording import hurried
from vecdb import F

SIZES = (1, 1, 1, 2, 5, 20)
MANY = 600  # rows; then a commit takes a quarter of them away
OTHER_DIM = 8


class Kind(NamedTuple):
    """What the rows of one file are."""

    metric: str
    dtype: str
    several: bool  # a second vector field, "other", made from the first
    rich: bool = False  # full text, sparse and many vectors (tests/riches.py); then not several


class Way(NamedTuple):
    """How one process works."""

    number: int  # no two processes of a run have the same
    writes: bool
    mode: str
    durability: str
    upkeep: bool
    threads: int
    timeout: float
    how: str = "right"


class Look(NamedTuple):
    """What a round of searches has shown."""

    asked: int
    found: int
    wrong: list[str]


# --- deeds on rows of any kind ---------------------------------------------------------------------


def create(path: str, kind: Kind) -> None:
    """An empty database for a run."""
    declared = {"vector": vecdb.Vector(DIM, metric=kind.metric, dtype=kind.dtype)}
    if kind.several:
        declared["other"] = vecdb.Vector(OTHER_DIM, metric="l2", dtype="f16")
    more = riches.declared(declared["vector"], kind.metric) if kind.rich else {"vectors": declared}
    with vecdb.open(path) as db:
        db.create_collection("rows", **more)
        db.create_collection("log", dim=2)


def todo(seed: int, n: int, model: Model) -> list[Call]:
    """The calls of commit `n`; the file never grows for long."""
    if len(model) > MANY:
        chosen = random.Random(f"{seed}-{n}").sample(range(BUCKETS), BUCKETS // 4)
        return [Call("drop", [], None, None, bucket) for bucket in chosen]
    return calls(seed, n, model, SIZES)


def vectors_of(call: Call, kind: Kind) -> Any:
    """A call's vectors as the collection takes them."""
    if call.vectors is None:
        return None
    first = call.vectors.astype(np.int8) if kind.dtype == "i8" else call.vectors
    return {"vector": first, "other": other_of(call.vectors)} if kind.several else first


def other_of(vectors: Any) -> Any:
    """The second vectors of rows: the first, shorter and turned around."""
    return -np.asarray(vectors)[..., OTHER_DIM - 1 :: -1]


def perform(call: Call, rows: vecdb.Collection, kind: Kind) -> None:
    """Do it to the database."""
    deeds.perform(call._replace(vectors=vectors_of(call, kind)), rows, kind.rich)


def replay(seed: int, model: Model, at: int, n: int) -> None:
    """Take the model from commit `at` to commit `n`."""
    for number in range(at + 1, n + 1):
        for call in todo(seed, number, model):
            apply(call, model)


def compare(rows: Any, model: Model, kind: Kind) -> list[str]:
    """Row by row: how the file differs from what it should hold."""
    if kind.rich:
        return deeds.compare(rows, model, rich=True)
    wrong = []
    left = dict(model)
    for record in rows:
        expected = left.pop(record.id, None)
        if expected is None:
            wrong.append(f"{record.id!r} should not be there")
            continue
        vector, metadata = expected
        if record.metadata != metadata:
            wrong.append(f"{record.id!r} holds {record.metadata}, not {metadata}")
        pairs = [("vector", vector)]
        if kind.several:
            pairs.append(("other", None if vector is None else other_of(vector)))
        for name, right in pairs:
            stored = record.vectors.get(name) if kind.several else record.vector
            if (stored is None) != (right is None) or (
                right is not None and not np.array_equal(stored, right)
            ):
                wrong.append(f"{record.id!r} has another vector in {name!r}")
    return wrong + [f"{id!r} is missing" for id in left]


def look(rows: Any, model: Model, kind: Kind, rng: random.Random) -> Look:
    """Counts, exact and default searches of a few filters, compared with the dict."""
    wrong: list[str] = []
    asked = found = 0
    if len(rows) != len(model):
        wrong.append(f"len is {len(rows)}, not {len(model)}")
    newest = max((row["token"] for _, row in model.values()), default=0)
    bucket, limit = rng.randrange(BUCKETS), rng.random()
    choices: list[tuple[Any, Callable[[dict[str, Any]], bool]]] = [
        (None, lambda row: True),
        (F.token == newest, lambda row: row["token"] == newest),
        (F.bucket == bucket, lambda row: row["bucket"] == bucket),
        ((F.share < limit) & (F.tag != "a"), lambda row: row["share"] < limit and row["tag"] != "a"),
    ]
    name = rng.choice(["vector", "other"]) if kind.several else "vector"
    metric = kind.metric if name == "vector" else "l2"
    for where, matches in [choices[0], *rng.sample(choices[1:], 1)]:
        chosen = {id: vector for id, (vector, row) in model.items() if matches(row)}
        if rows.count(where) != len(chosen):
            wrong.append(f"count({where!r}) is {rows.count(where)}, not {len(chosen)}")
        ids = {id for id, vector in chosen.items() if vector is not None}
        made = [vector for vector in chosen.values() if vector is not None]
        vectors = np.array(made, np.float32).reshape(-1, DIM)
        vectors = vectors if name == "vector" else other_of(vectors)
        query = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 20, vectors.shape[1])
        truth = np.sort(distances(metric, vectors, query.astype(np.float32)))[:10]
        exact = rows.search(query, 10, where=where, exact=True, using=name)
        usual = rows.search(query, 10, where=where, using=name)
        for hits in (exact, usual):
            if len(hits) != len(truth) or not set(hits.ids) <= ids:
                wrong.append(f"search of {name!r} where {where!r}: {hits.ids}")
            elif any(hit.metadata != metadata_of(model[hit.id][1], kind.rich) for hit in hits):
                wrong.append(f"search where {where!r}: a hit has another row's metadata")
        if len(exact) == len(truth) and not np.allclose(exact.distances, truth, 1e-3, 1e-3):
            wrong.append(f"exact search where {where!r}: {exact.distances} instead of {truth}")
        asked += len(truth)
        found += len(set(exact.ids) & set(usual.ids))
    if kind.rich:
        more, true, problems = riches.looked(rows, world_of(model, kind.metric), rng, DIM, 2)
        return Look(asked + more, found + true, wrong + problems)
    return Look(asked, found, wrong)


# --- the process -------------------------------------------------------------------------------------


def main(line: Line, path: str, kind: Kind, way: Way, seed: int, at: int, model: Model) -> None:
    """Work until killed, or told to end."""
    if kind.rich and way.number % 2:  # these fold and merge all the time, the others as usual
        hurried()
    line.put(("opening",))
    db = vecdb.open(
        path, mode=way.mode, durability=way.durability, timeout=way.timeout, upkeep=way.upkeep,
        threads=way.threads,
    )  # fmt: skip
    try:
        Worker(line, db, kind, way, seed, at, model).run()
    except EOFError:
        pass  # the judge has ended: nobody asks any more


class Worker:
    """A writer or a reader with its own model of what the file holds."""

    def __init__(
        self, line: Line, db: vecdb.Database, kind: Kind, way: Way, seed: int, at: int, model: Model
    ) -> None:
        self.line = line
        self.db = db
        self.rows = db["rows"]
        self.log = db["log"]
        self.kind = kind
        self.way = way
        self.seed = seed
        self.at = at
        self.model = model
        self.rng = random.Random(f"{seed}-{way.number}")
        self.waited = 0.0

    def run(self) -> None:
        """Work; stand still from a question on, until told to go on."""
        self.line.put(("ready",))
        still = False
        while True:
            order = self.line.get() if still or self.asked() else None
            if order == "stop":
                self.db.close()
                return
            if order == "go":
                still = False
            elif order is not None:
                still = True
                self.line.put(("answer", *self.answer(order)))
            elif self.way.writes:
                self.write()
            else:
                self.read()

    def asked(self) -> bool:
        return bool(select.select([self.line.end], [], [], 0)[0])

    def say(self, *what: object) -> None:
        self.line.put(what)

    # --- work ------------------------------------------------------------------------------------

    def write(self) -> None:
        rng = self.rng
        time.sleep(rng.choice([0, 0.005, 0.02]) * rng.random())
        try:
            if rng.random() < 0.03:
                self.say("optimizing")
                self.db.optimize()
            elif rng.random() < 0.1:
                self.abandon()
            else:
                self.commit()
        except vecdb.errors.Busy as busy:
            self.say("busy", str(busy))

    def commit(self) -> None:
        """The file's next commit, acknowledged."""
        how = self.way.how
        together: AbstractContextManager[Any] = nullcontext()
        if how != "split":
            together = self.db.transaction()
        self.say("waiting")
        begun = time.monotonic()
        with together:
            self.waited = time.monotonic() - begun
            self.say("inside")
            n = self.caught_up(len(self.log)) + 1
            deeds = todo(self.seed, n, self.model)
            for call in deeds:
                perform(call, self.rows, self.kind)
                if how == "split":
                    self.say("half")
            if how == "right" and self.rng.random() < 0.2:
                time.sleep(0.01 * self.rng.random())  # so that others wait
            self.log.add(n, metadata={"by": self.way.number})
            if how == "early":
                self.say("ack", n)
            self.say("committing")
        if how != "early":
            self.say("ack", n)

    def abandon(self) -> None:
        """Write and take it back."""
        self.say("waiting")
        try:
            with self.db.transaction():
                self.say("inside")
                for call in todo(self.seed, self.caught_up(len(self.log)) + 1, self.model):
                    perform(call, self.rows, self.kind)
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass

    def read(self) -> None:
        """The same answers twice within a snapshot, whatever was written between."""
        time.sleep(0.02 * self.rng.random())
        with self.db.snapshot() as snap:
            self.say("snapshot")
            self.caught_up(len(snap["log"]))
            wrong = look(snap["rows"], self.model, self.kind, self.rng).wrong
            time.sleep(self.rng.choice([0, 0.01, 0.05]) * self.rng.random())
            wrong += look(snap["rows"], self.model, self.kind, self.rng).wrong
            if self.rng.random() < 0.1:
                wrong += compare(snap["rows"], self.model, self.kind)
        if wrong:
            self.say("wrong", [f"in a snapshot: {each}" for each in wrong[:5]])

    def caught_up(self, n: int) -> int:
        """The serial of the last commit, which the model is taken to."""
        replay(self.seed, self.model, self.at, n)
        self.at = max(self.at, n)
        return n

    # --- answers ---------------------------------------------------------------------------------

    def answer(self, order: str) -> tuple[int, int, int, list[str], float]:
        """For "at once" others may write meanwhile; for "settled" nobody does."""
        self.waited = 0.0
        if order == "at once":
            with self.db.snapshot() as snap:
                n = self.caught_up(len(snap["log"]))
                seen = look(snap["rows"], self.model, self.kind, self.rng)
            if self.way.writes and self.way.how == "right":
                try:
                    self.commit()
                except vecdb.errors.Busy as busy:
                    self.say("busy", str(busy))
        else:
            n = self.caught_up(len(self.log))
            seen = look(self.rows, self.model, self.kind, self.rng)
        return n, seen.asked, seen.found, [f"{order}: {each}" for each in seen.wrong], self.waited


def hold_a_snapshot(line: Line, path: str) -> None:
    """Until it is killed."""
    with vecdb.open(path, mode="r") as db, db.snapshot() as snap:
        len(snap["c"])
        line.put("held")
        with suppress(EOFError):
            line.get()
