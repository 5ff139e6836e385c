"""The states that a parent of test_fork.py is in when it makes its child, and how it goes on from there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import vecdb
from tests.faults.forked_rows import LIMIT, ROWS, K, Rows, end_of, look, make, near, nearest, put, vector
from vecdb.storage import opening


@contextlib.contextmanager
def idle(p: Parent) -> Iterator[None]:
    p.c.search(vector(1), K)
    yield

if TYPE_CHECKING:
    from tests.faults.forking import Parent


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
