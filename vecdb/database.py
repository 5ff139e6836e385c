"""A database: one file, its collections, and the transactions that write to them.

`Database` joins the pieces: the environment (storage/env.py), one `Follower` per collection that
this process has touched, and at most one open `Batch` per thread. Handles are cheap and shared
freely between threads.

Invariants (the isolation rules of the design):
  D1  a search sees exactly one commit: the transaction it began;
  D2  a write holds the writer lock from its first look to its commit, and is published to this
      process before another thread of it can follow past that commit;
  D3  a thread with an open transaction reads and writes through it, whichever handle it uses;
  D4  after a fork nothing inherited is used: the child opens for itself.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, NoReturn

from vecdb import embedding
from vecdb.batch import Batch, Catalog, PerThread, Reading
from vecdb.catalog import Catalogued
from vecdb.errors import (
    Busy,
    Closed,
    InvalidArgument,
    NotFound,
    ReadOnly,
)
from vecdb.index import sweeping
from vecdb.index.follow import Follower
from vecdb.index.writing import Writing
from vecdb.options import Mode, OpenOptions, check_open, check_path
from vecdb.snapshot import Snapshot
from vecdb.standing.log import SearchLog
from vecdb.standing.queue import Queue
from vecdb.standing.saved import Searches
from vecdb.storage.env import LMDB_ERRORS, Env
from vecdb.storage.process import keep_forever
from vecdb.storage.schema import Schema
from vecdb.types import Problem
from vecdb.upkeep import Upkeep

_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    mode: str = "rw",
    durability: str = "full",
    timeout: float = 30.0,
    verify: str = "auto",
    immutable: bool = False,
    threads: int | None = None,
    max_size: int | None = None,
    upkeep: bool = True,
) -> Database:
    """Open a database file, or a private one in memory when no path is given.

    `mode`: "rw" creates, "r" never writes, "x" must not exist. `durability`: "full" survives power
    loss, "relaxed" a process kill, "none" only `sync()`. `timeout`: seconds that a write waits for
    another's. `verify`: "auto", "always" or "never" check the file's structure first; with "never"
    LMDB may end the process over broken pages. `immutable`: read-only media. `threads`: for batches
    and bulk inserts, default all cores. `max_size`: bytes the file may reach. `upkeep=False` leaves
    folding to commits alone.
    Raises InvalidArgument, NotFound, AlreadyExists, ReadOnly, Busy, WrongFormat, Corrupt.

    >>> import vecdb
    >>> with vecdb.open() as db:
    ...     db.collections()
    []
    """
    options = check_open(
        path, mode=mode, durability=durability, timeout=timeout, verify=verify,
        immutable=immutable, threads=threads, max_size=max_size, upkeep=upkeep,
    )  # fmt: skip
    return Database(options)


class Database(Catalogued):
    """An open database; made by `vecdb.open`, a context manager, shared between threads.

    `db[name]` is a collection, NotFound where there is none; iteration gives the names. After a fork
    the child opens by itself; pickling sends the path.

    >>> import vecdb
    >>> with vecdb.open() as db:
    ...     _ = db.create_collection("c", dim=2)
    ...     "c" in db, list(db), len(db["c"])
    (True, ['c'], 0)
    """

    def __init__(self, options: OpenOptions) -> None:
        self._options = options
        self._threads = options.threads or os.cpu_count() or 1
        self._env = Env.open(
            options.path, mode=options.mode, durability=options.durability,
            timeout=options.timeout, verify=options.verify, immutable=options.immutable,
            max_size=options.max_size,
        )  # fmt: skip
        self._closed = False
        self._probed: set[str] = set()  # fingerprints whose models were seen to be the same (embedding.py)
        self._encoders: dict[tuple[int, int], Any] = {}  # by collection and vector field
        self._maps: dict[str, Any] = {}  # adapters and bridges by fingerprint, which says all of them
        self._reset()
        _OPEN.add(self)

    def _forked(self) -> None:
        """In a child, inside fork(): keep what is the parent's from ever being ended (D4)."""
        keep_forever(self._local)
        for snapshot in list(self._snapshots):
            snapshot._forked()
        self._reset()

    def _reset(self) -> None:
        """What must be made anew after a fork."""
        self._lock = threading.RLock()
        self._local = PerThread()
        self._followers: dict[int, Follower] = {}
        self._catalog: Catalog = {}
        self._schemas: dict[int, Schema] = {}
        self._catalog_version = -1
        self._seen_commit = -1
        self._pid = os.getpid()
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        options = self._options
        keep = options.upkeep and options.mode != "r" and options.path is not None
        self._upkeep = Upkeep(self) if keep else None
        self._logged: dict[int, Callable[..., None]] | None = None
        self._queue = Queue(self, keep)

    # --- transactions --------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """Make all writes of the `with` block visible and durable together, or not at all.

        It belongs to its thread: every handle of this database used there joins it, and reads
        there see its writes. An exception aborts. InvalidArgument when nested.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> with db.transaction() as tx:
        ...     _ = tx["c"].add("a", [1, 0]); _ = c.add("b", [0, 1])
        >>> len(c)
        2
        """
        self._outside_transaction("transaction")
        with self._batch():
            yield self

    def snapshot(self) -> Snapshot:
        """Return what answers everything as of the last commit, whatever is written meanwhile.

        A context manager, with the collections by name: they read and search, and do not write. While
        it is open, the file keeps the pages that it shows. InvalidArgument inside a transaction.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> with db.snapshot() as snap:
        ...     _ = c.add("a", [1, 0])
        ...     len(snap["c"]), len(c)
        (0, 1)
        """
        self._outside_transaction("snapshot")
        made = Snapshot(self)
        self._snapshots.add(made)
        return made

    def sync(self) -> None:
        """Make every commit so far survive power loss, whatever the durability.

        >>> import vecdb
        >>> vecdb.open().sync()
        """
        self._usable()
        self._env.sync()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write a compacted, consistent copy to a new file while others go on writing.

        AlreadyExists when the file exists; InvalidArgument inside a transaction.

        >>> import tempfile, os, vecdb
        >>> db = vecdb.open(); _ = db.create_collection("c", dim=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     db.backup(os.path.join(folder, "copy.vecdb"))
        ...     with vecdb.open(os.path.join(folder, "copy.vecdb")) as copy:
        ...         copy.collections()
        ['c']
        """
        self._outside_transaction("backup")
        self._usable()
        text = check_path(path)
        if text is None:
            _refuse("path=None: backup needs the path of the file to write")
        self._env.backup(text)

    def compact(self) -> None:
        """Rewrite the file without its free pages, so that it shrinks; everything stays as it is.

        Costs a copy of what is in use, beside the file, and a rename: a kill leaves the old file or
        the new one. In memory nothing happens. Busy, naming who, when another process has the file
        open or a snapshot is open here; InvalidArgument inside a transaction, ReadOnly, Full.

        >>> import vecdb
        >>> db = vecdb.open(); db.compact()
        """
        self._outside_transaction("compact")
        self._env.compact()

    def optimize(self, *, rebuild: bool = False) -> None:
        """Fold pending work of every collection now; never required for right results.

        Indexes that cannot be read are built again from the rows; with `rebuild=True` all of them.

        >>> import vecdb
        >>> vecdb.open().optimize()
        """
        self._outside_transaction("optimize")
        for name in self.collections():
            self[name].optimize(rebuild=rebuild)

    def check(self) -> list[Problem]:
        """Read everything and return every violated invariant; an empty list means sound.

        Costs a pass over the file's pages and a decoding of every row, all in Python; others may
        write meanwhile.

        >>> import vecdb
        >>> vecdb.open().check()
        []
        """
        from vecdb.check import check_database

        self._outside_transaction("check")
        return check_database(self)

    def stats(self) -> dict[str, Any]:
        """Return where space and memory go, commit number, readers, and every collection's stats.

        `space`: bytes of the file by what they hold: records of each kind, the tree's inner pages, free
        pages; they add up to `file_bytes`. `oldest_reader`: the process whose snapshot is the oldest, by
        how many commits and for how long, at least and at most, and `pinned_bytes`, the free pages that
        cannot be used again before it ends. Reads every page of the file but those of long values: about
        15 us for each of `pages` that is not of vectors or links.

        >>> import vecdb
        >>> found = vecdb.open().stats()
        >>> found["collections"], sum(found["space"].values()) == found["file_bytes"]
        ({}, True)
        """
        self._usable()
        figures, space = self._env.figures()
        return {
            **figures,
            "threads": self._threads,
            "embedding_cache": asdict(embedding.cached(self)),
            "search_log": self.search_log._stats(),
            "collections": {name: self[name]._stats(space) for name in self.collections()},
        }

    @property
    def searches(self) -> Searches:
        """The saved searches, by name.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
        >>> _ = db.searches.save("right", c, [1, 0])
        >>> db.searches["right"].run().ids
        ['a']
        """
        self._usable()
        return Searches(self)

    @property
    def search_log(self) -> SearchLog:
        """The log of searches, which is kept of the collections that it is started for.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
        >>> db.search_log.start(c)
        >>> hits = c.search([1, 0])
        >>> [(entry.query, entry.shown) for entry in db.search_log]
        [(Near([1.0, 0.0]), ['a'])]
        """
        self._usable()
        return SearchLog(self)

    def clear_embedding_cache(self) -> int:
        """Take every cached embedding out of the file and return how many there were.

        Works in commits of 10,000 records, or inside the open transaction. ReadOnly, Busy.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", encoder="hashing")
        >>> _ = c.add(texts=["one", "two", "one"])
        >>> db.stats()["embedding_cache"]["count"], db.clear_embedding_cache()
        (2, 2)
        """
        return embedding.clear(self)

    def close(self) -> None:
        """Close this handle; other handles on the same file stay open. Closing twice is fine.

        >>> import vecdb
        >>> db = vecdb.open(); db.close(); db.close()
        """
        if self._closed or self._pid != os.getpid():
            self._closed = True
            return
        if self._local.batch is not None:
            _refuse("close() inside a transaction; leave the with block first")
        if self._upkeep is not None:
            self._upkeep.stop()
        self._queue.close()
        self._closed = True
        for snapshot in list(self._snapshots):
            snapshot.close()
        for follower in self._followers.values():
            follower.forget()
        self._followers.clear()
        self._env.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"mode {self._options.mode!r}"
        return f"Database({self._options.path or 'in memory'!r}, {state})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._options.path is None:
            _refuse("a database in memory cannot be pickled; use a file for other processes")
        self._usable()
        mode: Mode = "r" if self._options.mode == "r" else "rw"  # "x" was for making it
        return _unpickled, (replace(self._options, path=self._env.path, mode=mode),)

    # --- behind the verbs ----------------------------------------------------------------

    def _notes(self, cids: Iterable[int]) -> dict[int, Callable[..., None]] | None:
        """What notes the searches of collections that are logged; None where this handle notes none."""
        found = dict.fromkeys(cids, self._queue.note)
        return found if found and self._options.mode != "r" else None

    def _usable(self) -> None:
        if self._closed:
            raise Closed(f"database {self._options.path or 'in memory'} is closed; open it again")

    def _outside_transaction(self, verb: str) -> None:
        self._usable()
        if self._local.batch is not None:
            _refuse(f"{verb} inside a transaction is not possible; leave the with block first")

    def _follower(self, cid: int) -> Follower:
        found = self._followers.get(cid)
        if found is None:
            with self._lock:
                found = self._followers.get(cid)
                if found is None:
                    self._schema(cid)
                    found = Follower(cid, lambda: self._env.epoch, self._threads)
                    self._followers[cid] = found
        return found

    def _pending(self, cid: int) -> Writing | None:
        batch = self._local.batch
        return None if batch is None else batch.writing(cid)

    def _reading(self, cid: int) -> Reading:
        return Reading(self, cid)

    def _commit_number(self) -> int:
        """The number of the file's last commit."""
        self._usable()
        txn = self._env.begin_read()
        try:
            return self._env.commit_number(txn)
        finally:
            txn.abort()

    def _fold_idle(self, seconds: float) -> bool:
        """Fold for about so long if nobody writes; whether anything was done."""
        for cid, follower in list(self._followers.items()):
            view = follower.newest()
            if view is None or not (view.state.unfolded or sweeping.is_due(view.state)):
                continue
            try:
                with self._batch(timeout=0) as batch:
                    writing = batch.writing(cid)
                    writing.fold_for(seconds)
                    worked = writing.changed
            except Busy:
                worked = True
            if worked:
                return True
        return False

    @contextmanager
    def _writing(self, cid: int) -> Iterator[Writing]:
        with self._batch() as batch:
            self._schema(cid)
            writing = batch.writing(cid)
            before = writing.changes_made
            try:
                yield writing
            except BaseException:
                batch.broken = batch.broken or writing.changes_made != before
                raise

    def _needs_writing(self) -> None:
        """Refuse a handle that only reads."""
        if self._options.mode == "r":
            raise ReadOnly(f"{self._env.path} is open with mode='r'; open it with mode='rw' to write")

    @contextmanager
    def _batch(self, timeout: float | None = None) -> Iterator[Batch]:
        """The thread's open transaction, or one of its own around a single call."""
        self._usable()
        batch = self._local.batch
        if batch is not None:
            yield batch
            return
        self._needs_writing()
        batch = Batch(self, self._options.timeout if timeout is None else timeout)
        self._local.batch = batch
        try:
            yield batch
            batch.commit()
            if self._upkeep is not None and timeout is None:
                self._upkeep.note_commit()
        except BaseException as error:
            batch.abort()
            if isinstance(error, LMDB_ERRORS):
                raise self._env.translated(error) from error
            raise
        finally:
            self._local.batch = None

def _unpickled(options: OpenOptions) -> Database:
    """A handle of its own on the file of a pickled one, which must be there: nothing is made."""
    assert options.path is not None
    if not os.path.exists(options.path):
        raise NotFound(f"{options.path} is not there: a handle was pickled that had it open")
    return Database(options)


def _after_fork() -> None:
    for db in list(_OPEN):
        db._forked()


os.register_at_fork(after_in_child=_after_fork)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
