"""How do the handles of a process share one LMDB environment: opened, renewed, forked, closed?

`Env` handles (env.py) share it. Its attributes `begin` and `epoch` are the whole of its life:
    begin = LMDB's own function     open
    begin = stale                   not open now, opens at the next use (renewal, forked child)
    begin = gone                    closed

Invariants:
  V1  the map is never moved or closed under a transaction of this process: `begin` is taken
      away first, then the reader table shows when the last of ours has ended. A thread that
      had taken `begin` before finds it changed after its call, and drops what it got,
      untouched;
  V2  in a forked child nothing inherited is ended: ending an inherited transaction would
      free the parent's slot in the reader table, and its snapshot would show reused pages.
      The environment is made immortal, the sidecar's descriptor is closed (never unlocked),
      and the file is opened afresh at the first use; `epoch` changes, which tells owners of
      caches and transactions;
  V3  LMDB's errors leave translated, and a failed transaction leaves no lock behind.

Rejected: counting readers in Python wherever LMDB's table knows them (counted.py does it where
there is no table), and closing under live readers (py-lmdb would end them, and buffers that they gave
out would dangle).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vecdb.errors import Busy, Closed, InvalidArgument, NotFound, ReadOnly, VecdbError
from vecdb.options import Durability, Mode, Verify
from vecdb.storage import engine, meta, opening, place, translate
from vecdb.storage.counted import Account
from vecdb.storage.engine import LMDB_ERRORS, end, readers
from vecdb.storage.keys import META_KEY
from vecdb.storage.locks import Sidecar, WriteQueue
from vecdb.storage.meta import Meta
from vecdb.storage.place import Place
from vecdb.storage.process import keep_forever

if TYPE_CHECKING:
    from vecdb.storage.engine import Engine, Txn
    from vecdb.storage.tree import Snapshot

PATIENCE = 5.0  # seconds that closing and renewing wait for this process's own readers
NAP = 0.0005
TRIES = 5
NOTHING = meta.first_meta()


class Stale(Exception):
    """The environment is not open, but opens again at the next use."""


def stale(*args: object) -> Any:
    raise Stale


def gone(*args: object) -> Any:
    raise Closed("the database is closed; open it again with vecdb.open()")


class Shared:
    """The LMDB environment of one file in this process."""

    def __init__(
        self,
        where: Place,
        *,
        durability: Durability = "full",
        max_size: int | None = None,
        immutable: bool = False,
        writable: bool = True,
    ) -> None:
        self.place = where
        self.name = ":memory:" if where.private else where.data
        self.durability: Durability = durability
        self.max_size = max_size
        self.immutable = immutable
        self.writable = writable
        self.handles = 0
        self.epoch = 0
        self.wrote = False  # since the last clean mark
        self.unsynced = False  # commits of durability "none" since the last sync
        self.note_at = 0.0  # when the time of a commit is worth noting again (times.py)
        self.seen: tuple[bytes, Meta] = (b"", NOTHING)
        self.base: tuple[int, int] | None = None  # (epoch, address of the map), for tree.py
        self.snapshot: Snapshot | None = None  # the last one that tree.py found
        self.queue = WriteQueue()
        self.lock = threading.RLock()  # held while the environment is renewed
        self.sidecar: Sidecar | None = None
        self.fd = -1  # the data file, for looking at raw bytes and telling files apart
        self.map_size = 0
        self.lmdb: Any = None
        self.veil: bytes | None = None  # the key of a database in memory (veil.py)
        self.account: Account | None = None  # of an immutable file, which has no reader table
        self.begin: Any = gone

    # --- opening and closing -------------------------------------------------------------

    def join(
        self, mode: Mode, durability: Durability, immutable: bool, max_size: int | None
    ) -> Shared:
        """Accept one more handle, unless it asks for what the environment is not."""
        if mode == "x":
            raise InvalidArgument(
                f"{self.name} is open in this process; mode='x' makes a new file"
            )
        if self.lmdb is not None and not self.same_file():
            raise Busy(
                f"{self.name} was replaced while this process has the former file open; "
                "close it everywhere first"
            )
        for name, asked, given in (
            ("durability", durability, self.durability),
            ("immutable", immutable, self.immutable),
            ("max_size", max_size or self.max_size, self.max_size),
        ):
            if asked != given:
                raise InvalidArgument(
                    f"{self.name} is open in this process with {name}={given!r}; a second "
                    f"handle cannot have {asked!r}: use the same, or close the first"
                )
        if mode == "rw" and not self.writable:
            raise ReadOnly(
                f"{self.name} was opened when it could only be read; close that first"
            )
        if self.handles == 0:  # closed, but readers had not ended
            self.begin = self._entrance() if self.lmdb is not None else stale
        return self

    def settle(self, mode: Mode, verify: Verify, timeout: float) -> None:
        """Look at the file, check it, or create it: all that comes before the engine."""
        if self.immutable:
            opening.settle_immutable(self.place, verify, engine.check_structure)
            return
        self.sidecar = Sidecar(self.place.writer)
        self.sidecar.share(timeout)
        opening.settle(
            self.place,
            self.sidecar,
            mode=mode,
            verify=verify,
            timeout=timeout,
            check=engine.check_structure,
            create=self.create,
        )

    def create(self) -> Meta:
        """Make the data file with its first meta record."""
        self.start()
        found = meta.first_meta()
        try:
            with self.lmdb.begin(write=True) as txn:
                txn.put(META_KEY, meta.encode(found))
            self.lmdb.sync(True)
        except LMDB_ERRORS as error:
            raise self.translated(error) from None
        self.wrote = True
        return found

    def start(self) -> None:
        """Open the engine, unless it is open."""
        if self.lmdb is not None:
            return
        self.lmdb, self.map_size = self.opened()
        self.fd = os.open(self.place.data, os.O_RDONLY | os.O_CLOEXEC)
        self.begin = self._entrance()

    def _entrance(self) -> Any:
        """What begins transactions of the environment that is open."""
        if not self.immutable:
            return self.lmdb.begin
        if self.account is None:
            self.account = Account(self.lmdb)
        return self.account.begin

    def close(self, patience: float) -> bool:
        """Mark the file as cleanly closed and close it when this process's readers have ended.

        False when they have not: it stays open, out of reach, until the path is opened.
        """
        with self.lock:
            self.begin = gone
            if self.lmdb is not None and not self.readers_ended(patience):
                return False
            self.give_up()
            return True

    def give_up(self) -> None:
        """Close whatever is open."""
        self.begin = gone
        if self.lmdb is not None:
            self.lmdb.close()
            self.lmdb = self.account = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.sidecar is not None:
            self.sidecar.close()
            self.sidecar = None

    # --- transactions --------------------------------------------------------------------

    def begin_again(self, write: bool, void: Any = None) -> Txn:
        """Begin a transaction where the first try failed, or gave one that is void."""
        error: Exception | None = None
        for _ in range(TRIES):
            if void is not None:
                end(void)
            begin = self.begin
            try:
                void = begin(None, None, write, True)
            except Exception as problem:
                void, error = None, problem
                if self.begin is begin:
                    self.recover(problem)
                continue
            if self.begin is begin:
                txn: Txn = void
                return txn
        if isinstance(error, LMDB_ERRORS):
            raise self.translated(error)
        raise Busy(f"{self.name} is being reopened by this process all the time; try again")

    def recover(self, error: Exception) -> None:
        """Make another try to begin sensible, or raise."""
        if not isinstance(error, (Stale, *LMDB_ERRORS)):
            raise error
        with self.lock:
            if isinstance(error, Stale):
                if self.lmdb is None:
                    self.reopen()
            elif engine.readers_full(error):
                self.lmdb.reader_check()
            elif engine.must_renew(error):
                self.renew()
            else:
                raise self.translated(error) from None

    def take_turn(self, timeout: float) -> None:
        """Wait for this thread's turn to write, then this process's; Busy, ReadOnly, Closed."""
        if not self.writable:
            raise ReadOnly(
                f"{self.name} may only be read; check its permissions, open it again"
            )
        end_of_wait = time.monotonic() + timeout
        if not self.queue.acquire(timeout):
            raise Busy(
                f"{self.name} is being written by another thread of this process "
                f"({os.getpid()}); waited {timeout:g} s: let it end, or open with a longer "
                "timeout=",
                owner_pid=os.getpid(),
            )
        try:
            if self.begin is gone:
                gone()
            if self.begin is stale:
                self.recover(Stale())
            if self.sidecar is not None:
                self.sidecar.lock_writer(max(0.0, end_of_wait - time.monotonic()))
        except BaseException:  # interrupted, perhaps with the lock in hand
            self.end_turn()
            raise

    def end_turn(self) -> None:
        """Let the next writer write."""
        try:
            if self.sidecar is not None:
                self.sidecar.unlock_writer()
        finally:
            self.queue.release()

    def decode(self, record: Any) -> Meta:
        raw = b"" if record is None else bytes(record)
        found = meta.decode(raw or None, self.name)
        self.seen = (raw, found)
        return found

    def sync(self) -> None:
        """Bring every commit so far to the disk."""
        if self.begin is gone:
            gone()
        if self.writable and self.lmdb is not None:
            try:
                self.lmdb.sync(True)
            except LMDB_ERRORS as error:
                raise self.translated(error) from None
            self.unsynced = False

    # --- renewal, fork -------------------------------------------------------------------

    def readers_ended(self, patience: float) -> bool:
        """Wait for the readers of this process; `begin` must have been taken away before."""
        end = time.monotonic() + patience
        while True:
            try:
                if not self._own_readers():
                    return True
            except (ValueError, *LMDB_ERRORS):
                return False
            if time.monotonic() >= end:
                return False
            time.sleep(NAP)

    def _own_readers(self) -> int:
        if self.immutable:
            return 0 if self.account is None else len(self.account)
        return sum(pid == os.getpid() for pid, _ in readers(self.lmdb))

    def renew(self) -> None:
        """Close the engine and open it again: after a failed write, or with a larger map."""
        with self.paused(PATIENCE):
            pass

    @contextmanager
    def paused(self, patience: float) -> Iterator[None]:
        """Close the engine, let the caller work on the file, and open it again.

        Busy when this process's readers do not end within `patience` seconds.
        """
        with self.lock:
            before, self.begin = self.begin, stale
            if not self.readers_ended(patience):
                self.begin = before
                raise Busy(
                    f"{self.name} must be opened again by this process, but snapshots of it "
                    "are in use here: close them and try again",
                    owner_pid=os.getpid(),
                )
            self.lmdb.close()
            self.lmdb = self.account = None
            try:
                yield
            finally:
                self.reopen()

    def replaced(self) -> None:
        """Note that the data file's name leads to another file now, by this process's doing."""
        os.close(self.fd)
        self.fd = os.open(self.place.data, os.O_RDONLY | os.O_CLOEXEC)

    def opened(self) -> tuple[Engine, int]:
        try:
            return engine.open_engine(
                self.place.data,
                durability="none" if self.place.private else self.durability,
                writable=self.writable,
                locked=not self.immutable,
                max_size=self.max_size,
            )
        except LMDB_ERRORS as error:
            raise self.translated(error) from None
        except OSError as error:
            raise place.failed(f"{self.name} cannot be opened", error) from None

    def reopen(self) -> None:
        """Open the engine again, at the same file or not at all."""
        if self.place.private:
            raise Closed("a database in memory is private to the process that opened it")
        if not self.same_file():
            raise NotFound(
                f"{self.name} was deleted or replaced while it was open; open it anew"
            )
        if self.sidecar is None and not self.immutable:
            self.sidecar = Sidecar(self.place.writer)  # known before it locks: see `forked`
            try:
                self.sidecar.share(PATIENCE)
            except BaseException:
                self.sidecar.close()
                self.sidecar = None
                raise
        self.lmdb, self.map_size = self.opened()
        self.epoch += 1
        self.seen = (b"", NOTHING)
        self.begin = self._entrance()

    def same_file(self) -> bool:
        try:
            now, then = os.stat(self.place.data), os.fstat(self.fd)
        except OSError:
            return self.place.private
        return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)

    def forked(self) -> None:
        """In a child, inside fork(): give up what belongs to the parent, ending nothing."""
        if self.lmdb is not None:
            keep_forever(self.lmdb)
            self.lmdb = self.account = None
            self.begin = stale
        if self.sidecar is not None:
            self.sidecar.abandon()
            self.sidecar = None
        self.queue = WriteQueue()
        self.lock = threading.RLock()
        self.epoch += 1
        self.wrote = False
        self.seen = (b"", NOTHING)

    # --- what else handles ask -----------------------------------------------------------

    def translated(self, error: BaseException) -> VecdbError:
        return translate.translated(error, self.name, self.map_size, self.max_size is not None)
