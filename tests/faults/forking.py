"""The processes of test_fork.py: a parent in some state, a child that it makes, and who comes after.

A parent opens the file, enters a state (a snapshot is open, another thread writes, ...) and makes a
child. The judge then says when the child acts and what becomes of the parent. Each process compares all
that it sees with a dict of rows, and reports what was wrong, what was refused, and what it wrote.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tests.faults.forked_rows import (
    CHURN,
    DIM,
    LIMIT,
    ROWS,
    Case,
    K,
    Planned,
    Rows,
    look,
    make,
    near,
    nearest,
    put,
    vector,
    watch,
)  # fmt: skip
from tests.faults.forking_states import (
    HOLDING,
    IN_STATE,
    STATES,
    rest_of_scan,
    use_handles,
    use_prepared,
)
from tests.nursery import Line
from vecdb.storage import engine

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
            make(self.path, self.rows, rich=case.rich)
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
