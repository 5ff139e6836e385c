"""How is a database file opened, read, written and closed?

    env = Env.open("library.vecdb")
    txn = env.begin_read()               # an LMDB transaction; end it with txn.abort()
    wt = env.begin_write()               # wt.txn.put(...), wt.meta_changes["next_cid"] = 2
    env.commit(wt)                       # or env.abort(wt)

Handles on one file share one environment in a process (shared.py), because LMDB allows only
one; each keeps its own mode and timeout. The file is opened for writing whenever the user
may write it, so that a later handle can: a handle of mode "r" refuses writes by itself.

Invariants:
  H1  two handles on one path agree on durability, max_size and immutable, or the second is
      refused;
  H2  reading takes no lock: `begin_read` and `commit_number` are on the path of every search;
  H3  a handle from before a fork works in the child: it opens the file again at its first use.
      Transactions do not: their owner compares `epoch` and drops them without ending them.
"""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any

from vecdb import _core
from vecdb.errors import ReadOnly, VecdbError
from vecdb.options import Durability, Mode, Verify
from vecdb.storage import copies, engine, figures, opening, place, tree, veil, writing
from vecdb.storage.engine import LMDB_ERRORS
from vecdb.storage.keys import META_KEY
from vecdb.storage.meta import Meta
from vecdb.storage.process import Registry
from vecdb.storage.shared import PATIENCE, Shared
from vecdb.storage.writing import WriteTxn

if TYPE_CHECKING:
    from vecdb.storage.engine import Txn
    from vecdb.storage.space import Space
    from vecdb.storage.tree import Snapshot

__all__ = ["LMDB_ERRORS", "Env", "WriteTxn"]


class Env:
    """A handle on an open database file, shared freely between threads."""

    __slots__ = ("_shared", "_was", "mode", "timeout")

    def __init__(self, shared: Shared, mode: Mode, timeout: float) -> None:
        self._shared = shared
        self._was = shared
        self.mode = mode
        self.timeout = timeout

    @classmethod
    def open(
        cls,
        path: str | None = None,
        *,
        mode: Mode = "rw",
        durability: Durability = "full",
        timeout: float = 30.0,
        verify: Verify = "auto",
        immutable: bool = False,
        max_size: int | None = None,
    ) -> Env:
        """Open or create the file `path`, or a private one in memory, and return a handle.

        Costs about a millisecond, and a pass over the file when it must be checked first.
        Raises NotFound, AlreadyExists, InvalidArgument, ReadOnly, WrongFormat, Corrupt, Busy.
        """
        with _registry.lock:
            shared = _at(path, mode, durability, timeout, verify, immutable, max_size)
            shared.handles += 1
        return cls(shared, mode, timeout)

    # --- reading -------------------------------------------------------------------------

    def begin_read(self) -> Txn:
        """Begin a snapshot (0.3 us); end it with `.abort()`. Closed, TooManyReaders, Busy."""
        shared = self._shared
        begin = shared.begin
        try:
            txn: Txn = begin(None, None, False, True)
        except Exception:
            return shared.begin_again(False)
        if shared.begin is begin:
            return txn
        return shared.begin_again(False, txn)

    def commit_number(self, txn: Txn) -> int:
        """Return the number of the commit that a transaction sees (0.4 us)."""
        record = txn.get(META_KEY)
        shared = self._was
        seen = shared.seen
        if record is not None and bytes(record) == seen[0]:
            return seen[1].commit
        return shared.decode(record).commit

    def meta(self, txn: Txn) -> Meta:
        """Return the meta record that a transaction sees."""
        record = txn.get(META_KEY)
        seen = self._was.seen
        if record is not None and bytes(record) == seen[0]:
            return seen[1]
        return self._was.decode(record)

    def snapshot(self, txn: Txn) -> Snapshot | None:
        """Return what reads a read transaction's commit without the engine, if anything can."""
        return tree.at(self._was, txn)

    def unsound(self) -> list[str]:
        """Every violation of the file's structure, found without LMDB; the file may be in use.

        None of a database in memory, nor of a file that is no longer at its path.
        """
        where, fd = self._was.place, self._was.fd
        try:
            there = not where.private and os.path.samestat(os.stat(where.data), os.fstat(fd))
        except OSError:
            there = False
        return opening.unsound(where.data, engine.check_structure) if there else []

    # --- writing -------------------------------------------------------------------------

    def begin_write(self, timeout: float | None = None) -> WriteTxn:
        """Begin the one write transaction, waiting for its turn; Busy, ReadOnly, Closed.

        The thread that begins it must end it, with `commit` or `abort`.
        """
        if self.mode == "r":
            raise ReadOnly(
                f"{self.path} is open with mode='r'; open it with mode='rw' to write"
            )
        return writing.begin(self._shared, self.timeout if timeout is None else timeout)

    def commit(self, wt: WriteTxn) -> int:
        """Make a transaction durable as promised, and return its commit number.

        Raises Full or another error of vecdb's when it did not happen; then nothing of it did.
        """
        return writing.commit(wt)

    def abort(self, wt: WriteTxn) -> None:
        """Drop a transaction; harmless when it has ended already, and in a forked child."""
        writing.abort(wt)

    def sync(self) -> None:
        """Bring every commit so far to the disk, whatever the durability."""
        self._shared.sync()

    # --- the key of the search log ---------------------------------------------------------

    def veil_key(self) -> bytes | None:
        """Return the file's key (veil.py), None where there is none."""
        return veil.key_of(self._shared)

    def renew_veil(self) -> bytes:
        """Write another key over the file's; the caller has a write transaction open."""
        try:
            return veil.renew(self._shared)
        except OSError as error:
            raise place.failed(f"{self.path} cannot be written", error) from None

    # --- the file ------------------------------------------------------------------------

    def close(self) -> None:
        """Close this handle; the last one waits for transactions and closes the file."""
        shared, self._shared = self._shared, _CLOSED
        if shared is _CLOSED:
            return
        with _registry.lock:
            shared.handles -= 1
            if shared.handles:
                return
            writing.mark_clean(shared)
            if shared.close(PATIENCE):
                _registry.opened.pop(shared.place.data, None)

    def backup(self, dst: str) -> None:
        """Write a compacted copy of the last commit to a new file, while others write."""
        copies.backup(self._shared, dst)

    def compact(self) -> None:
        """Rewrite the file without its free pages; Busy unless nobody else has it open."""
        if self.mode == "r":
            raise ReadOnly(f"{self.path} is open with mode='r'; compacting writes")
        copies.compact(self._shared, self.timeout)

    def info(self) -> dict[str, Any]:
        """Return sizes, pages, readers and settings."""
        return self.figures()[0]

    def figures(self) -> tuple[dict[str, Any], Space | None]:
        """Return sizes, pages, readers and settings, and where the space goes."""
        return figures.figures(self._shared)

    def space(self) -> Space | None:
        """Return where the space of the last commit goes."""
        return figures.space_of(self._shared)

    def translated(self, error: BaseException) -> VecdbError:
        """Return the error of vecdb's that an error in LMDB_ERRORS stands for."""
        return self._was.translated(error)

    @property
    def closed(self) -> bool:
        return self._shared is _CLOSED

    @property
    def path(self) -> str:
        """The data file's real path; ":memory:" for a private one."""
        return self._was.name

    @property
    def durability(self) -> Durability:
        return self._was.durability

    @property
    def epoch(self) -> int:
        """Changes when addresses inside the map, and transactions from before, are void."""
        return self._was.epoch


# --- what this process has open ----------------------------------------------------------


def _at(
    path: str | None,
    mode: Mode,
    durability: Durability,
    timeout: float,
    verify: Verify,
    immutable: bool,
    max_size: int | None,
) -> Shared:
    """Return the environment of a path: the one that is open, or a new one."""
    if path is None:
        return _private(durability, max_size)
    where, exists = place.find(path, mode)
    found = _registry.opened.get(where.data)
    if found is not None:
        return found.join(mode, durability, immutable, max_size)
    shared = Shared(
        where,
        durability=durability,
        max_size=max_size,
        immutable=immutable,
        writable=not immutable and (not exists or os.access(where.data, os.W_OK)),
    )
    _registry.opening.add(shared)
    try:
        shared.settle(mode, verify, timeout)
        shared.start()
    except BaseException:
        shared.give_up()
        raise
    finally:
        _registry.opening.discard(shared)
    _registry.opened[where.data] = shared
    return shared


def _private(durability: Durability, max_size: int | None) -> Shared:
    shared = Shared(place.private(), durability=durability, max_size=max_size)
    try:
        shared.create()
    except BaseException:
        shared.give_up()
        raise
    finally:
        place.unlink(shared.place)
    _registry.opened[shared.place.data] = shared
    return shared


def _at_exit() -> None:
    """Mark what is still open as complete, so that the next open need not check it."""
    for shared in list(_registry.opened.values()):
        writing.mark_clean(shared)


def _forked() -> None:
    """In a child: neither the engine's record of open files nor the core's threads are its own."""
    engine.forked()
    _core.after_fork()


_registry: Registry[Shared] = Registry(before_others=_forked)
_CLOSED = Shared(place.Place(""))  # never opened: everything that it is asked raises Closed
atexit.register(_at_exit)
