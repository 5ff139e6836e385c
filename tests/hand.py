"""A process that does to a database what it is told, in several threads, and says what came of it.

Deeds come through stdin as (thread, deed), answers go through stdout as (thread, answer), pickled. A
deed is a tuple of plain values (tests/foresight.py says which there are and what must come of them);
an answer is ("ok", value) or ("error", class name, process that Busy names). Each thread does its
deeds in order; threads of one process share two handles, one that waits long for others' writes and
one that does not, and all snapshots.

Processes whose way is "hurried" fold and merge full text all the time.
Two ways to do it wrong serve as controls: "drops" says now and then that it wrote what it did not,
"stale" answers now and then from a snapshot that was taken a while ago.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import random
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import vecdb
from tests import riches
from tests.wording import hurried

PATIENT, IMPATIENT = 0, 1
TIMEOUTS = (60.0, 0.02)
Deed = tuple[Any, ...]
Answer = tuple[Any, ...]
FORGETS_EVERY = 8  # of the controls


class Hand:
    """What the threads of the process share."""

    def __init__(self, path: str, options: dict[str, Any], way: str) -> None:
        self.path, self.way = path, way
        self.rng = random.Random(1)
        self.handles: list[vecdb.Database] = []
        self.snapshots: dict[int, vecdb.Snapshot] = {}
        self.local = threading.local()
        self.opened: list[Any] = []  # nothing is ended by being collected, in a child least of all
        self.old: Any = None
        self.open(options)

    def open(self, options: dict[str, Any]) -> None:
        self.handles = [vecdb.open(self.path, timeout=timeout, **options) for timeout in TIMEOUTS]

    def answer(self, deed: Deed) -> Answer:
        try:
            return "ok", self.do(*deed)
        except vecdb.errors.VecdbError as error:
            return "error", type(error).__name__, getattr(error, "owner_pid", None)
        except BaseException as error:
            return "error", repr(error), None

    def do(self, verb: str, on: Any, *given: Any) -> Any:
        """`on`: the handle, or a snapshot as ("snapshot", number)."""
        if isinstance(on, tuple):
            return READ[verb](self.snapshots[on[1]], *given)
        db = self.handles[on]
        if verb in READ:
            return READ[verb](self.shown_by(db), *given)
        if verb in WRITE:
            if self.way == "drops" and verb == "upsert" and self.rng.randrange(FORGETS_EVERY) == 0:
                return given[1]
            return WRITE[verb](db, *given)
        return getattr(self, verb)(db, *given)

    def shown_by(self, db: vecdb.Database) -> Any:
        if self.way != "stale" or getattr(self.local, "open", None) is not None:
            return db
        if self.old is None or self.rng.randrange(FORGETS_EVERY) == 0:
            self.old = db.snapshot()
        return self.old

    # --- what is not one call of the API --------------------------------------------------------

    def begin(self, db: vecdb.Database) -> None:
        opened = db.transaction()
        opened.__enter__()
        self.opened = [*self.opened[-10:], opened]
        self.local.open = opened

    def commit(self, db: vecdb.Database) -> None:
        opened, self.local.open = self.local.open, None
        opened.__exit__(None, None, None)

    def abort(self, db: vecdb.Database) -> None:
        opened, self.local.open = self.local.open, None
        try:
            opened.__exit__(InterruptedError, InterruptedError(), None)
        except InterruptedError:
            pass

    def snapshot(self, db: vecdb.Database, number: int) -> None:
        self.snapshots[number] = db.snapshot()

    def end_snapshot(self, db: vecdb.Database, number: int) -> None:
        self.snapshots.pop(number).close()

    def reopen(self, db: vecdb.Database, options: dict[str, Any]) -> None:
        for each in self.handles:
            each.close()
        self.old = None
        self.open(options)

    def check(self, db: vecdb.Database) -> list[str]:
        return [str(problem) for problem in db.check()]

    def fork(self, db: vecdb.Database, deeds: list[Deed]) -> list[Answer]:
        """The answers of a child that inherits all of this, and ends without any ceremony."""
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                self.local.open = None
                content = pickle.dumps([self.answer(deed) for deed in deeds])
                with os.fdopen(theirs, "wb") as pipe:
                    pipe.write(content)
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            content = pipe.read()
        os.waitpid(child, 0)
        return pickle.loads(content) if content else [("error", "the child died", None)]


# --- verbs that read, of a database or a snapshot ------------------------------------------------------


def _row(record: Any) -> Any:
    dense, many = record.vectors.get("vector"), record.vectors.get("many")
    return (
        record.id, record.metadata, None if dense is None else dense.tolist(), record.text,
        record.vectors.get("sparse"), None if many is None else many.tolist(),
    )  # fmt: skip


def _get(shown: Any, name: str, ids: Any) -> Any:
    if not isinstance(ids, list):
        record = shown[name].get(ids)
        return [None if record is None else _row(record)]
    return [None if record is None else _row(record) for record in shown[name].get(ids)]


def _scan(shown: Any, name: str, where: Any, by: Any, descending: bool, limit: Any) -> Any:
    found = shown[name].scan(where, order_by=by, descending=descending, limit=limit, with_vectors=True)
    return [_row(record) for record in found]


def _search(shown: Any, name: str, query: Any, k: int, how: dict[str, Any]) -> Any:
    hits = shown[name].search(query, k, **how)
    return hits.ids, hits.distances.tolist(), [hit.metadata for hit in hits]


def _ask(shown: Any, name: str, spec: Any, k: int | None, how: dict[str, Any]) -> Any:
    hits = shown[name].search(riches.query_of(spec), k, **how)
    return hits.ids, hits.scores.tolist(), [hit.metadata for hit in hits]


def _create(db: Any, name: str, dim: int, metric: str, rich: bool) -> str:
    if rich:
        more = riches.declared(vecdb.Vector(dim, metric=metric), metric)
        return db.create_collection(name, **more).name
    return db.create_collection(name, dim=dim, metric=metric).name


def _add_field(db: Any, name: str, field: str, metric: str) -> None:
    many = vecdb.Vector(riches.MANY_DIM, metric=metric, multi=True)
    db[name].add_vector(field, many if field == "many" else vecdb.SparseVector())


READ: dict[str, Any] = {
    "get": _get,
    "scan": _scan,
    "search": _search,
    "ask": _ask,
    "len": lambda shown, name: len(shown[name]),
    "count": lambda shown, name, where: shown[name].count(where),
    "facets": lambda shown, name, field, where: list(shown[name].facets(field, where).items()),
    "collections": lambda shown: shown.collections(),
}

WRITE: dict[str, Any] = {
    "add": lambda db, name, ids, vectors, rows, texts=None: db[name].add(
        ids, vectors, metadata=rows, texts=texts
    ),
    "upsert": lambda db, name, ids, vectors, rows, texts=None: db[name].upsert(
        ids, vectors, metadata=rows, texts=texts
    ),
    "update": lambda db, name, ids, vectors, rows, texts=None: db[name].update(
        ids, vectors=vectors, metadata=rows, texts=texts
    ),
    "update where": lambda db, name, where, patch: db[name].update(where=where, metadata=patch),
    "delete": lambda db, name, ids: db[name].delete(ids),
    "delete where": lambda db, name, where: db[name].delete(where=where),
    "create": _create,
    "add field": _add_field,
    "drop field": lambda db, name, field, metric: db[name].drop_vector(field),
    "drop": lambda db, name: db.drop_collection(name),
    "rename": lambda db, name, new: db.rename_collection(name, new),
    "optimize": lambda db, name: db[name].optimize(),
}


# --- the process -------------------------------------------------------------------------------------------


def main() -> None:
    """`path options way threads`: until stdin ends."""
    faulthandler.enable()
    path, options, way, threads = sys.argv[1:]
    if way == "hurried":
        hurried()
    told, say = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints does not break the answers
    hand, saying = Hand(path, pickle.loads(bytes.fromhex(options)), way), threading.Lock()
    todo: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(int(threads))]

    def work(number: int) -> None:
        while (deed := todo[number].get()) is not None:
            answer = hand.answer(deed)
            with saying:
                say.send((number, answer))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(todo))]
    for worker in workers:
        worker.start()
    try:
        while True:
            number, deed = told.recv()
            todo[number].put(deed)
    except EOFError:
        for each in todo:
            each.put(None)
    for worker in workers:
        worker.join()
    for db in hand.handles:
        db.close()
