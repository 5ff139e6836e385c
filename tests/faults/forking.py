"""The processes of test_fork.py: a parent in some state, a child that it makes, and who comes after.

A parent opens the file, enters a state (a snapshot is open, another thread writes, ...) and makes a
child. The judge then says when the child acts and what becomes of the parent. Each process compares all
that it sees with a dict of rows, and reports what was wrong, what was refused, and what it wrote.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import vecdb
from tests.nursery import Line
from vecdb import F
from vecdb.storage import engine, opening

LIMIT = 30  # seconds after which a process shows where it hangs, and ends
ROWS, DIM, K = 90, 4, 5
CHURN = [*range(5000, 5003)]  # rows that the fifty commits rewrite
Rows = dict[Any, int]  # a row's id, and its place along the line around which all vectors lie


class Case(NamedTuple):
    """One combination."""

    state: str  # of the parent, when the child is made
    way: str  # in which the child is made: "os.fork", "fork", "forkserver", "spawn"
    deed: str  # of the child
    leave: str  # how the child ends: "_exit", "sys.exit", "return" through the stack, "raise"
    fate: str  # of the parent: "goes on", "killed" or "exits" before the child acts
    broken: bool = False  # a control: the child ends what it has inherited


class Planned(Exception):
    """What a child raises that is to be unwound."""


# --- what everybody does -----------------------------------------------------------------------------


@functools.cache
def vector(place: float) -> list[float]:
    """Somewhere near the place on a line: who are neighbours at 30 does not depend on rows at 900."""
    aside = [40 * math.sin(turn * place) for turn in (1.7, 2.3, 3.1)]
    return [float(np.float32(x)) for x in (place, *aside)]


def put(c: vecdb.Collection, rows: Rows) -> None:
    """Write rows at their places."""
    c.upsert([*rows], [vector(place) for place in rows.values()],
             metadata=[{"n": place} for place in rows.values()])  # fmt: skip


def look(source: Any, expected: Rows) -> list[str]:
    """How a database, or a snapshot, differs from the rows that it should show."""
    c = source["c"]
    seen = {record.id: record for record in c.scan(with_vectors=True)}
    wrong = []
    if {id: record.metadata["n"] for id, record in seen.items()} != expected:
        more, less = {*seen} - {*expected}, {*expected} - {*seen}
        wrong.append(f"rows that should not be there: {more}, missing: {less}, or other values")
    wrong += [f"{id!r} has another vector" for id, record in seen.items()
              if record.vector.tolist() != vector(record.metadata["n"])]  # fmt: skip
    if len(c) != len(expected) or c.count(F.n >= 60) != sum(n >= 60 for n in expected.values()):
        wrong.append(f"it counts {len(c)} and {c.count(F.n >= 60)} of {len(expected)} rows")
    for where, least in ((None, -1), (F.n >= 60, 60)):
        for place in (30.25, end_of(expected)):
            right = nearest({id: n for id, n in expected.items() if n >= least}, place)
            found = c.search(vector(place), K, where=where, exact=True).ids
            usual = c.search(vector(place), K, where=where).ids
            if found != right or not near(usual, right):
                wrong.append(f"search at {place} where {where!r}: {found}, {usual}, not {right}")
    return wrong


def end_of(rows: Rows) -> float:
    """Near the last row of the line: a query far from all rows would be a question of codes."""
    return max(rows.values()) + 0.25


def nearest(rows: Rows, place: float) -> list[Any]:
    """The true neighbours."""
    here = vector(place)
    return sorted(rows, key=lambda id: math.dist(vector(rows[id]), here))[:K]


def near(found: list[Any], right: list[Any]) -> bool:
    """Whether an approximate answer is one: it may miss a little."""
    return len(found) == len(right) and len({*found} & {*right}) >= len(right) - 2


def watch() -> None:
    """Show where this process hangs, if it does, and end it; a child asks anew."""
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    signal.alarm(LIMIT)


def make(path: str, rows: Rows, timeout: float = 20.0) -> None:
    """A file with some history."""
    with vecdb.open(path, durability="relaxed", upkeep=False, timeout=timeout) as db:
        c = db.create_collection("c", dim=DIM, metric="l2")
        put(c, rows)
        put(c, dict.fromkeys(CHURN, 0))
        c.delete(CHURN)


# --- the parent --------------------------------------------------------------------------------------


def parent(line: Line, path: str, address: str, case: Case) -> None:
    """A sprout of the nursery; a child that returns through the stack ends here as well."""
    os.setpgid(0, 0)  # so that nothing of a trial that failed outlives it
    watch()
    Parent(line, path, address, case).run()


class Parent:
    """A process in a state, its child, and what it still does afterwards."""

    def __init__(self, line: Line, path: str, address: str, case: Case) -> None:
        self.line = line
        self.path = path
        self.address = address
        self.case = case
        self.pid = os.getpid()
        self.rows: Rows = {id: id for id in range(ROWS)}  # committed
        self.wrong: list[str] = []
        self.forked = threading.Event()
        self.go = threading.Event()
        self.held: Any = None  # LMDB's transaction of a snapshot or a read
        self.snap: Any = None
        self.tx: Any = None
        self.kept: Any = None  # a scan, a prepared search, other handles
        self.child: Child | None = None  # in the child, where it was forked

    @property
    def here(self) -> bool:
        """Whether this is still the parent, and not a copy that unwinds."""
        return os.getpid() == self.pid

    def run(self) -> None:
        try:
            self.work()
        except Planned:
            self.left("Planned")
        except (EOFError, BrokenPipeError):
            pass  # the judge has ended: nobody asks any more
        except BaseException as error:
            self.left(type(error).__name__)
            if self.here:
                self.line.put(("done", [*self.wrong, f"it failed: {error!r}"], self.rows))
            elif not isinstance(error, vecdb.errors.Closed):
                raise
        else:
            self.left("")

    def left(self, how: str) -> None:
        if self.child is not None and not self.here:
            self.child.line.put(("left", how))

    def work(self) -> None:
        case = self.case
        memory = case.state == "in memory"
        if not memory:
            make(self.path, self.rows)
            self.line.put("made")
            self.line.get(LIMIT)
        busy = case.state in HOLDING and case.fate == "goes on"
        options = {"timeout": 0.1 if busy else 20.0, "upkeep": case.state == "upkeep"}
        if memory:
            options = {}
        path = None if memory else self.path
        with vecdb.open(path, threads=2, durability="relaxed", **options) as self.db:
            self.c = self.db.create_collection("c", dim=DIM, metric="l2") if memory else self.db["c"]
            if memory:
                put(self.c, self.rows)
            self.wrong += look(self.db, self.rows)
            with STATES[case.state](self):
                self.slots = self.own_slots()
                process = self.fork()
                if not self.here:
                    return
                self.forked.set()
                self.line.put(("forked", self.rows))
                self.order(process)
            if self.here:
                self.finish()

    # --- making the child --------------------------------------------------------------------------

    def fork(self) -> Any:
        """The child's process; in one that os.fork has made this acts and returns, or raises."""
        if self.case.way == "os.fork":
            pid = os.fork()
            if pid:
                return pid
            self.child = Child(self.address, self.case, self.db, self)
            self.child.act()
            leave(self.case.leave)
            return None
        context = multiprocessing.get_context(self.case.way)
        if self.case.way == "fork":
            process = context.Process(target=self.forked_by_multiprocessing)
        else:
            process = context.Process(target=elsewhere, args=(self.address, self.case, self.db))
        process.start()
        return process

    def forked_by_multiprocessing(self) -> None:
        self.child = Child(self.address, self.case, self.db, self)
        self.child.act()
        self.child.line.put(("left", ""))
        leave(self.case.leave)

    def own_slots(self) -> list[Any]:
        """What the reader table says of this process's snapshots."""
        return [slot for slot in engine.readers(self.db._env._shared.lmdb) if slot[0] == self.pid]

    # --- what becomes of it ------------------------------------------------------------------------

    def order(self, process: Any) -> None:
        """Still in the state: "end" before the child acts, or go on after it has ended."""
        order, rows = self.line.get(LIMIT)
        if order == "write":  # the thread that waits for another process's lock
            self.go.set()
            self.after_state(rows)
            self.line.put(("wrote", self.rows))
            order, rows = self.line.get(LIMIT)
        self.rows = rows
        if order == "go on":
            self.reap(process)
            missing = {*self.slots} - {*self.own_slots()}
            if missing and self.case.state not in ("searching", "upkeep"):  # whose slots come and go
                self.wrong.append(f"slots of the reader table are gone: {missing}")
            IN_STATE.get(self.case.state, lambda _: None)(self)
        self.go.set()

    def after_state(self, rows: Rows) -> None:
        self.rows = rows
        self.thread.join(LIMIT)

    def reap(self, process: Any) -> None:
        if isinstance(process, int):
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        else:
            process.join(LIMIT)
            code = process.exitcode
        if code != 0:
            self.wrong.append(f"the child ended with {code}")

    def finish(self) -> None:
        """Out of the state: everything is as it should be, and goes on."""
        self.wrong += look(self.db, self.rows)
        put(self.c, {"parent": 130})
        self.rows = {**self.rows, "parent": 130}
        self.wrong += look(self.db, self.rows)
        self.db.close()
        self.line.put(("done", self.wrong, self.rows))
        if self.case.way != "os.fork" and self.case.fate == "exits":
            os._exit(0)  # multiprocessing would wait for the child

    def fifty_commits(self) -> None:
        """So that pages which readers do not hold are used again."""
        for turn in range(50):
            rows = {id: 120 + id % 7 + turn for id in CHURN}
            put(self.c, rows)
        self.rows = {**self.rows, **rows}


def leave(how: str) -> None:
    """End a child: at once, by an exception that unwinds everything, or by returning."""
    if how == "_exit":
        os._exit(0)
    if how == "sys.exit":
        sys.exit(0)
    if how == "raise":
        raise Planned


# --- states: what the parent is in when it makes the child -------------------------------------------


@contextlib.contextmanager
def idle(p: Parent) -> Iterator[None]:
    p.c.search(vector(1), K)
    yield


@contextlib.contextmanager
def snapshot(p: Parent) -> Iterator[None]:
    with p.db.snapshot() as p.snap:
        p.wrong += look(p.snap, p.rows)
        p.shown, p.held = dict(p.rows), p.snap._txn
        yield


def snapshot_goes_on(p: Parent) -> None:
    p.wrong += look(p.snap, p.shown)
    p.fifty_commits()
    p.wrong += look(p.snap, p.shown)


@contextlib.contextmanager
def snapshot_in_use(p: Parent) -> Iterator[None]:
    """Another thread searches in the snapshot, and has its lock."""
    with snapshot(p), beside(p, lambda ready: _use(p, ready)):
        yield


def _use(p: Parent, ready: threading.Event) -> None:
    with p.snap._reading(p.c._cid):
        ready.set()
        p.forked.wait(LIMIT)


@contextlib.contextmanager
def inside_a_read(p: Parent) -> Iterator[None]:
    """A signal's handler, say, makes the child while its own thread reads."""
    with p.c._reading() as (p.kept, _):
        p.held, p.seen = p.kept, p.db._env.commit_number(p.kept)
        yield


def read_goes_on(p: Parent) -> None:
    p.fifty_commits()
    if p.db._env.commit_number(p.kept) != p.seen:
        p.wrong.append("the read transaction shows another commit")


@contextlib.contextmanager
def half_a_scan(p: Parent) -> Iterator[None]:
    p.kept = p.c.scan()
    p.first = {next(p.kept).id for _ in range(70)}
    yield


def rest_of_scan(p: Parent, rows: Rows) -> list[str]:
    rest = [record.id for record in p.kept]
    stayed = {*range(ROWS)} & {*rows}
    if (
        len(rest) != len({*rest})
        or p.first & {*rest}
        or not stayed <= p.first | {*rest} <= {*rows} | p.first
    ):
        return [f"the rest of a scan: {rest}"]
    return []


def scan_goes_on(p: Parent) -> None:
    p.wrong += rest_of_scan(p, p.rows)


@contextlib.contextmanager
def transaction(p: Parent) -> Iterator[None]:
    p.tx = p.db.transaction()
    with p.tx:
        p.mine = {"tx": 700, "tx2": 701}
        put(p.c, p.mine)
        p.c.delete([*range(10)])
        p.wrong += look(p.db, _changed(p))
        yield
        if p.here:
            p.rows = _changed(p)


def _changed(p: Parent) -> Rows:
    return {id: n for id, n in {**p.rows, **p.mine}.items() if id not in range(10)}


def transaction_goes_on(p: Parent) -> None:
    p.wrong += look(p.db, _changed(p))
    p.mine = {**p.mine, "tx3": 702}
    put(p.c, {"tx3": 702})
    p.wrong += look(p.db, _changed(p))


@contextlib.contextmanager
def another_thread_writes(p: Parent) -> Iterator[None]:
    with beside(p, lambda ready: _write(p, ready)):
        yield
        p.go.set()
        if p.here:
            p.thread.join(LIMIT)
            p.rows = {**p.rows, "other": 710}


def _write(p: Parent, ready: threading.Event) -> None:
    with p.db.transaction():
        put(p.c, {"other": 710})
        ready.set()
        p.go.wait(LIMIT)


@contextlib.contextmanager
def searching(p: Parent) -> Iterator[None]:
    """Another thread searches all the time, alone and on several threads of the core."""
    with beside(p, lambda ready: _search(p, ready)):
        yield
        p.go.set()


def _search(p: Parent, ready: threading.Event) -> None:
    right = nearest(p.rows, 30.25)
    while not p.go.is_set():
        found = [hits.ids for hits in p.c.search([vector(30.25)] * 40, K, ef=40)]
        found.append(p.c.search(vector(30.25), K).ids)
        if not all(near(ids, right) for ids in found):
            p.wrong.append(f"a search beside the fork: {found}")
        ready.set()


@contextlib.contextmanager
def upkeep(p: Parent) -> Iterator[None]:
    """The upkeep thread is inside a slice: it has the writer lock."""
    from vecdb import upkeep as module
    from vecdb.index.writing import Writing

    inside, fold = threading.Event(), Writing.fold_for

    def slowly(writing: Writing, seconds: float) -> None:
        if p.here:
            inside.set()
            p.forked.wait(LIMIT)
        fold(writing, seconds)

    Writing.fold_for = slowly  # type: ignore[method-assign]
    module.QUIET_S = 0.01  # type: ignore[misc]
    p.rows = {**p.rows, "kept up": 720}
    put(p.c, {"kept up": 720})
    if not inside.wait(LIMIT):
        p.wrong.append("no upkeep was to be seen")
    yield


@contextlib.contextmanager
def waiting(p: Parent) -> Iterator[None]:
    """Another thread waits for the writer lock, which another process has."""
    with beside(p, lambda ready: _wait(p, ready)):
        time.sleep(0.02)  # it has said so, and is about to wait
        yield
        if p.here and p.go.is_set():
            p.thread.join(LIMIT)


def _wait(p: Parent, ready: threading.Event) -> None:
    ready.set()
    put(p.c, {"waited": 730})


@contextlib.contextmanager
def prepared(p: Parent) -> Iterator[None]:
    p.kept = p.c.prepare(k=K)
    for _ in range(3):
        p.kept(vector(end_of(p.rows)))
        p.c.get(1)
    yield


def prepared_goes_on(p: Parent) -> None:
    p.wrong += use_prepared(p, p.rows)


def use_prepared(p: Parent, rows: Rows) -> list[str]:
    place = end_of(rows)
    found, right = p.kept(vector(place)).ids, nearest(rows, place)
    return [] if near(found, right) else [f"the prepared search: {found}, not {right}"]


@contextlib.contextmanager
def several_handles(p: Parent) -> Iterator[None]:
    make(p.path + "-2", {"elsewhere": 1})
    reader, other = vecdb.open(p.path, mode="r", durability="relaxed"), vecdb.open(p.path + "-2")
    with reader, other:
        p.kept = (reader, other)
        reader["c"].search(vector(1), K)
        yield


def handles_go_on(p: Parent) -> None:
    p.wrong += use_handles(p, p.rows)


def use_handles(p: Parent, rows: Rows) -> list[str]:
    reader, other = p.kept
    put(other["c"], {"elsewhere": 1})
    try:
        put(reader["c"], {"no": 1})
        wrong = ["a handle of mode r wrote"]
    except vecdb.errors.ReadOnly:
        wrong = []
    return wrong + look(reader, rows) + look(other, {"elsewhere": 1})


@contextlib.contextmanager
def opens(p: Parent) -> Iterator[None]:
    """Another thread is in the middle of opening another file, whose locks it has."""
    make(p.path + "-2", {"elsewhere": 1})
    with beside(p, lambda ready: _open(p, ready)):
        yield


def _open(p: Parent, ready: threading.Event) -> None:
    settle = opening.settle

    def slowly(*arguments: Any, **options: Any) -> None:
        ready.set()
        p.forked.wait(LIMIT)
        settle(*arguments, **options)

    opening.settle = slowly
    with vecdb.open(p.path + "-2") as other:
        opening.settle = settle
        p.wrong += look(other, {"elsewhere": 1})
        p.go.wait(LIMIT)


@contextlib.contextmanager
def beside(p: Parent, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """A thread that has said that it is where it should be."""
    ready = threading.Event()

    def run() -> None:
        try:
            work(ready)
        except BaseException as error:
            p.wrong.append(f"another thread of the parent: {error!r}")
            ready.set()

    p.thread = threading.Thread(target=run, daemon=True)
    p.thread.start()
    if not ready.wait(LIMIT):
        p.wrong.append("the other thread did not come so far")
    yield
    if p.here:
        p.go.set()
        p.thread.join(LIMIT)


STATES: dict[str, Callable[[Parent], Any]] = {
    "idle": idle,
    "snapshot": snapshot,
    "snapshot in use": snapshot_in_use,
    "inside a read": inside_a_read,
    "half a scan": half_a_scan,
    "transaction": transaction,
    "another thread writes": another_thread_writes,
    "searching": searching,
    "upkeep": upkeep,
    "waiting": waiting,
    "prepared": prepared,
    "several handles": several_handles,
    "opening": opens,
    "in memory": idle,
}
HOLDING = ("transaction", "another thread writes")  # the parent has the writer lock
IN_STATE: dict[str, Callable[[Parent], None]] = {
    "snapshot": snapshot_goes_on,
    "snapshot in use": snapshot_goes_on,
    "inside a read": read_goes_on,
    "half a scan": scan_goes_on,
    "transaction": transaction_goes_on,
    "prepared": prepared_goes_on,
    "several handles": handles_go_on,
}


# --- the child ---------------------------------------------------------------------------------------


def elsewhere(address: str, case: Case, db: vecdb.Database) -> None:
    """In a process that was spawned, or served by a fork server."""
    child = Child(address, case, db, None)
    child.act()
    child.line.put(("left", ""))
    leave(case.leave)


class Child:
    """What a child does with what it was given or has inherited."""

    def __init__(self, address: str, case: Case, db: vecdb.Database, inherited: Parent | None) -> None:
        watch()
        end = socket.socket(socket.AF_UNIX)
        end.connect(address)
        self.line = Line(end)
        self.case = case
        self.db = db
        self.inherited = inherited
        self.rows: Rows = {}
        self.wrong: list[str] = []
        self.refused: list[str] = []

    def act(self) -> None:
        """Wait for the word, do the deed, and report."""
        self.line.put(("born", os.getpid()))
        self.rows = self.line.get(LIMIT)
        try:
            if self.case.broken and self.inherited is not None:
                self.end_what_is_the_parents(self.inherited)
            getattr(self, self.case.deed)()
        except vecdb.errors.VecdbError as error:
            self.refused.append(type(error).__name__)
        except Exception as error:
            self.wrong.append(f"the child's deed: {error!r}")
        self.line.put(("report", self.wrong, self.refused, self.rows))

    def end_what_is_the_parents(self, p: Parent) -> None:
        """The control: below the API, what vecdb never does."""
        p.held.abort()

    def look(self) -> None:
        self.wrong += look(self.db, self.rows)

    def refuses(self, name: str, deed: Callable[[], Any]) -> None:
        """A deed that must be refused by name."""
        try:
            deed()
        except vecdb.errors.VecdbError as error:
            if type(error).__name__ != name:
                self.wrong.append(f"refused by {error!r} instead of {name}")
        else:
            self.wrong.append(f"not refused by {name}")

    # --- deeds -----------------------------------------------------------------------------------

    def nothing(self) -> None:
        """Only end."""

    def read(self) -> None:
        self.look()

    def write(self) -> None:
        rows = {"child": 910, "child too": 911}
        put(self.db["c"], rows)
        self.rows = {**self.rows, **rows}
        self.look()

    def transact(self) -> None:
        with self.db.transaction():
            put(self.db["c"], {"child": 910})
            self.db["c"].delete(50)
            self.wrong += look(self.db, self._transacted())
        self.rows = self._transacted()
        self.look()

    def _transacted(self) -> Rows:
        return {id: n for id, n in {**self.rows, "child": 910}.items() if id != 50}

    def snapshot(self) -> None:
        before = dict(self.rows)
        with self.db.snapshot() as snap:
            self.write()
            self.wrong += look(snap, before)

    def batch(self) -> None:
        """On several threads of the core, which are made anew."""
        right = nearest(self.rows, 30.25)
        rng = np.random.default_rng(0)
        for _ in range(3):
            found = self.db["c"].search([vector(30.25)] * 64, K, ef=40)
            self.wrong += [f"in a batch: {h.ids}" for h in found if not near(h.ids, right)]
        many = {id: 200 + id - 10_000 for id in range(10_000, 10_300)}
        put(self.db["c"], many)
        self.rows = {**self.rows, **many}
        self.db["c"].search(rng.normal(size=(64, DIM)), K)
        self.look()
        threads = len(os.listdir("/proc/self/task")) if Path("/proc/self/task").exists() else 2
        if threads < 2:
            self.wrong.append("the core has no threads of its own in this child")

    def inherited_things(self) -> None:
        """What the parent had in hand: refused by name, or right."""
        p = self.inherited
        if p is None or p.case.state in ("idle", "upkeep", "searching", "waiting", "opening"):
            return self.look()
        if p.snap is not None:
            self.refuses("Closed", lambda: len(p.snap["c"]))
            self.refuses("Closed", lambda: p.snap["c"].search(vector(1), K))
        elif p.case.state == "half a scan":
            self.wrong += rest_of_scan(p, self.rows)
        elif p.case.state == "prepared":
            self.write()
            self.wrong += use_prepared(p, self.rows)
        elif p.case.state == "several handles":
            self.wrong += use_handles(p, self.rows)
        self.look()

    def unwind(self) -> None:
        """End the parent's snapshot and transaction, as its `with` would."""
        p = self.inherited
        if p is not None and p.snap is not None:
            p.snap.__exit__(None, None, None)
            p.snap.close()
        if p is not None and p.tx is not None:
            self.refuses("Closed", lambda: p.tx.__exit__(None, None, None))
        self.look()

    def unwind_by_error(self) -> None:
        p = self.inherited
        if p is not None and p.snap is not None:
            p.snap.__exit__(Planned, Planned(), None)
        if p is not None and p.tx is not None:
            with contextlib.suppress(Planned):
                p.tx.__exit__(Planned, Planned(), None)
        self.look()

    def close(self) -> None:
        self.db.close()
        self.refuses("Closed", lambda: self.db["c"])
        self.db.close()

    def drop(self) -> None:
        """Let go of everything that was inherited, and have it collected."""
        if self.inherited is not None and self.inherited.tx is None:
            self.inherited.snap = self.inherited.kept = None
        gc.collect()
        self.look()

    def grandchild(self) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                watch()
                put(self.db["c"], {"grandchild": 920})
                code = 0 if look(self.db, {**self.rows, "grandchild": 920}) == [] else 2
            except vecdb.errors.Busy:
                code = 3
            except vecdb.errors.Closed:
                code = 4
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == 0:
            self.rows = {**self.rows, "grandchild": 920}
        elif code in (3, 4):
            self.refused.append({3: "Busy", 4: "Closed"}[code])
        else:
            self.wrong.append(f"the grandchild ended with {code}")
        self.look()


# --- other processes ----------------------------------------------------------------------------------


def holder(line: Line, path: str) -> None:
    """Has the writer lock until it is told to go on."""
    watch()
    with vecdb.open(path, durability="relaxed", upkeep=False) as db:
        with db.transaction():
            put(db["c"], {"holder": 740})
            line.put("held")
            line.get(LIMIT)
        line.put("let go")


def writes_at_once(line: Line, path: str, rows: Rows) -> None:
    """Beside a child that lives on: nobody has the lock."""
    watch()
    with vecdb.open(path, timeout=0.0, upkeep=False) as db:
        put(db["c"], {"beside": 750})
        line.put((look(db, {**rows, "beside": 750}), {**rows, "beside": 750}))


def compacts_at_once(line: Line, path: str, rows: Rows) -> None:
    """Who comes after all have ended: writes, is alone, and finds everything sound."""
    watch()
    wrong = []
    with vecdb.open(path, timeout=0.0, upkeep=False) as db:
        wrong += look(db, rows)
        put(db["c"], {"after": 760})
        db.compact()
        wrong += look(db, {**rows, "after": 760})
        wrong += [str(problem) for problem in db.check()]
    line.put(wrong)
