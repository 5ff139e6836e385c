"""Processes that live for a moment: open a file, look whether it is right, write a little, go.

Everybody can work out what the file must hold. Commit n adds row n to the collection "log", which
names the ids that it put and dropped; what a row holds is a function of its id and of the number of
the commit that put it. So a process that has just started, and a parent long after, compare every
row and every search with brute force over the log, at any commit.

`visit` is one such life; `serve` forks one for every line of its input, from a process that has
imported vecdb and opened nothing, because a started Python costs half a second. Each word of a life
is a line on standard output: "<name> <word> ...". Two ways to do it wrong serve as controls: "early"
acknowledges a commit before it begins, "split" writes rows and log in commits of their own; a third,
"stay", acknowledges, and then keeps a snapshot or the writer lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

import vecdb
from tests import riches
from vecdb import F

DIM, BUCKETS = 8, 7
Model = dict[str, int]  # the commit that put each row
Entry = dict[str, Any]  # a row of the log


# --- what the file must hold --------------------------------------------------------------------


def create(path: str, rich: bool = False) -> None:
    """An empty file; `rich`: rows have full text, sparse and many vectors too (tests/riches.py)."""
    with vecdb.open(path) as db:
        if rich:
            db.create_collection("rows", **riches.declared(vecdb.Vector(DIM, metric="l2"), "l2"))
        else:
            db.create_collection("rows", dim=DIM, metric="l2")
        db.create_collection("log", dim=2)
        db.create_collection("lines", dim=DIM, metric="l2")  # of the command line


def vector(id: str, n: int) -> list[int]:
    """Small whole numbers: distances are exact."""
    return list(np.frombuffer(hashlib.blake2b(f"{id} {n}".encode(), digest_size=DIM).digest(), np.int8))


def metadata(id: str, n: int, rich: bool = False) -> dict[str, Any]:
    found = {
        "n": n, "bucket": sum(id.encode()) % BUCKETS, "sum": hashlib.blake2b(f"{id}/{n}".encode()).hexdigest()[:16],
    }  # fmt: skip
    return riches.with_title(found, riches.extra_of(f"{id} {n}")) if rich else found


def is_rich(rows: Any) -> bool:
    return len(rows.schema.vectors) > 1


def world_of(model: Model) -> riches.World:
    return riches.World({id: (vector(id, n), riches.extra_of(f"{id} {n}")) for id, n in model.items()}, "l2", "l2")


def entries(log: Any) -> list[Entry]:
    """The log's rows; their ids are 1, 2, 3 and so on, or a commit has been lost."""
    found = list(log)
    assert [record.id for record in found] == [*range(1, len(found) + 1)], "the log has holes"
    return [record.metadata for record in found]


def apply(model: Model, n: int, entry: Entry) -> None:
    for id in entry["drops"]:
        del model[id]
    model.update(dict.fromkeys(entry["puts"], n))


def model_at(log: list[Entry], n: int) -> Model:
    model: Model = {}
    for at, entry in enumerate(log[:n], 1):
        apply(model, at, entry)
    return model


def differences(rows: Any, model: Model) -> list[str]:
    """Row by row, and rows that lack."""
    wrong, left, rich = [], dict(model), is_rich(rows)
    for record in rows:
        n = left.pop(record.id, None)
        if n is None:
            wrong.append(f"{record.id} should not be there")
        elif record.metadata != metadata(record.id, n, rich) or record.vectors["vector"].tolist() != vector(record.id, n):
            wrong.append(f"{record.id} is not as commit {n} put it: {record.metadata}")
    if rich:
        wrong += riches.differences(rows, {id: riches.extra_of(f"{id} {n}") for id, n in model.items()})
    return wrong + [f"{id} of commit {n} is missing" for id, n in left.items()]


def ranked(model: Model, query: Any, bucket: int | None = None) -> list[tuple[float, str]]:
    """Brute force: distances and ids, nearest first."""
    ids = [id for id, n in model.items() if bucket is None or metadata(id, n)["bucket"] == bucket]
    vectors = np.array([vector(id, model[id]) for id in ids], float).reshape(-1, DIM)
    return sorted(zip(np.linalg.norm(vectors - np.asarray(query, float), axis=1).tolist(), ids, strict=True))


# --- one life ------------------------------------------------------------------------------------


class Life:
    """One process of a run."""

    def __init__(self, path: str, name: str, seed: str, way: str = "right") -> None:
        self.name, self.way = name, way
        self.rng = random.Random(f"{seed}-{name}")
        self.writes = self.rng.random() < 0.85 or way == "stay"
        durability = self.rng.choice(["none", "relaxed", "relaxed", "full"])
        self.db = vecdb.open(
            path, mode="rw" if self.writes else "r", durability=durability,
            timeout=120, upkeep=self.rng.random() < 0.8,
        )  # fmt: skip
        self.say("open")

    def run(self) -> None:
        model = self.look()
        for nth in range(1, 1 + self.rng.choice([1, 1, 2, 3]) * self.writes):
            self.write(nth, model)
        if self.rng.random() < 0.6:
            self.look()
        if self.way == "stay":
            self.stay()
        if self.rng.random() < 0.7:
            self.db.close()
        self.say("leaves")  # without closing, the others

    def look(self) -> Model:
        """Compare all that one commit shows with brute force over its log."""
        rng, wrong = self.rng, []
        query, bucket = [rng.randrange(-128, 128) for _ in range(DIM)], rng.randrange(BUCKETS)
        asked = found = 0
        with self.db.snapshot() as snap:
            rows, log = snap["rows"], entries(snap["log"])
            model = model_at(log, len(log))
            wrong += differences(rows, model)
            for chosen in (None, bucket):
                where = None if chosen is None else F.bucket == chosen
                truth = ranked(model, query, chosen)
                if rows.count(where) != len(truth):
                    wrong.append(f"count is {rows.count(where)}, not {len(truth)}")
                exact, default = (rows.search(query, 10, where=where, exact=way) for way in (True, False))
                wanted = [distance for distance, _ in truth[:10]]
                if len(exact) != len(wanted) or not np.allclose(exact.distances, wanted, rtol=1e-4):
                    wrong.append(f"exact search: {exact.distances.tolist()}, not {wanted}")
                right = {id: distance for distance, id in truth}
                for hits in (exact, default):
                    if len(hits) != len(wanted) or any(hit.id not in right for hit in hits):
                        wrong.append(f"{hits.ids} of {len(truth)} matches is not right")
                    elif any(abs(hit.distance - right[hit.id]) > 1e-2 or hit.metadata["n"] != model[hit.id] for hit in hits):
                        wrong.append("a hit has another row's distance or metadata")
                asked, found = asked + len(wanted), found + len({*exact.ids} & {*default.ids})
            rich = is_rich(rows)
            if rich:
                more, true, problems = riches.looked(rows, world_of(model), rng, DIM, 4)
                asked, found, wrong = asked + more, found + true, wrong + problems
        for hit in self.db["rows"].search(query, 5):  # the last commit, whichever it is by now
            n = hit.metadata["n"]
            if hit.metadata != metadata(hit.id, n, rich) or n < model.get(hit.id, 0):
                wrong.append(f"{hit.id} came with {hit.metadata}")
        self.say(f"looked {asked} {found}")
        for problem in wrong[:5]:
            self.say(f"wrong {problem}")
        return model

    def write(self, nth: int, known: Model) -> None:
        """Commit one to three rows, and the log's row that names them."""
        rng, rows, log = self.rng, self.db["rows"], self.db["log"]
        if self.way == "early":
            self.say(f"ack {len(log) + 1} {nth}")
        self.say("before")
        together: AbstractContextManager[Any] = nullcontext() if self.way == "split" else self.db.transaction()
        with together:
            n = len(log) + 1
            old = [id for id in rng.sample(sorted(known), min(4, len(known))) if id in rows]
            drops = [old.pop() for _ in range(rng.choice([0, 0, 1])) if old]
            new = [f"{self.name}-{nth}-{at}" for at in range(rng.choice([1, 2]))]
            puts = new + old[: rng.choice([0, 1])]
            vectors, given, texts = [vector(id, n) for id in puts], [metadata(id, n) for id in puts], None
            if is_rich(rows):
                vectors, given, texts = riches.given([f"{id} {n}" for id in puts], given, vectors, False)
            rows.upsert(puts, vectors, metadata=given, texts=texts)
            rows.delete(drops)
            self.say("inside")
            if rng.random() < 0.3:
                time.sleep(0.01 * rng.random())  # so that some are killed just here
            log.add(n, metadata={"by": self.name, "nth": nth, "puts": puts, "drops": drops})
            got = rows.get(puts)
            assert all(record and record.metadata["n"] == n for record in got), "own writes are not seen"
        if self.way != "early":
            self.say(f"ack {n} {nth}")

    def stay(self) -> None:
        """Keep what a process that ends must not leave: a snapshot's slot, or the writer lock."""
        with self.db.snapshot() if self.name == "reader" else self.db.transaction():
            self.say("stays")
            time.sleep(60)

    def say(self, words: str) -> None:
        os.write(1, f"{self.name} {words}\n".encode())


def visit() -> None:
    """The life of a process of its own: path, name, seed, way."""
    Life(*sys.argv[1:]).run()


# --- forked lives --------------------------------------------------------------------------------


def serve() -> None:
    """Fork a life for each line [path, name, seed, way]; end the one of a line "kill <name>"."""
    alive: dict[int, str] = {}
    text, open_ = b"", True
    while open_ or alive:
        if open_ and select.select([0], [], [], 0.003)[0]:
            got = os.read(0, 65536)
            open_, text = bool(got), text + got
        *lines, text = text.split(b"\n")
        for line in lines:
            if line.startswith(b"kill "):
                _kill(line[5:].decode(), alive)
            else:
                _fork(json.loads(line), alive)
        _bury(alive)


def _fork(orders: list[str], alive: dict[int, str]) -> None:
    pid = os.fork()
    if pid:
        alive[pid] = orders[1]
        return
    status = 1
    try:
        os.close(0)
        Life(*orders).run()
        status = 0
    except BaseException:
        if orders[3] == "right":  # controls stumble over each other
            traceback.print_exc()
    finally:
        os._exit(status)


def _kill(name: str, alive: dict[int, str]) -> None:
    """A child that has not been waited for keeps its number: nobody else can be hit."""
    for pid, known in alive.items():
        if known == name:
            os.kill(pid, signal.SIGKILL)


def _bury(alive: dict[int, str]) -> None:
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        os.write(1, f"{alive.pop(pid)} ended {os.waitstatus_to_exitcode(status)}\n".encode())
