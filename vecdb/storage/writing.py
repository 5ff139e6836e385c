"""How does a write transaction begin, commit, and settle whether it happened?

Invariants:
  W1  a transaction begins and ends on one thread (LMDB's mutex belongs to it), under this
      process's turn and the writer lock; ending it in any way gives both back;
  W2  every commit writes the meta record: commit number + 1 and a new nonce. When a commit
      fails, the nonce settles whether it landed: in a new snapshot, or in the raw file when
      LMDB refuses new transactions after a failed write of its own header;
  W3  the mark of a clean close is no commit: number and nonce stay;
  W4  a transaction inherited through fork is the parent's: in the child it can neither be
      committed nor does ending it touch anything;
  W5  what killed readers held is free from the next transaction on: LMDB by itself would keep the
      pages of their snapshots for as long as any process has the file open (0.1 us; 1 us while other
      processes read).

Rejected: comparing LMDB's transaction ids to settle a commit. An aborted id is used again.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from vecdb.errors import Closed, InvalidArgument, VecdbError
from vecdb.storage import meta, opening, place, times
from vecdb.storage.engine import LMDB_ERRORS, end, readers
from vecdb.storage.keys import META_KEY
from vecdb.storage.meta import Meta
from vecdb.storage.shared import Shared

if TYPE_CHECKING:
    from vecdb.storage.engine import Txn


class WriteTxn:
    """One write transaction; `Env.begin_write` makes it, the same thread ends it."""

    __slots__ = (
        "commit_number",
        "ended",
        "epoch",
        "last",
        "meta",
        "meta_changes",
        "shared",
        "thread",
        "txn",
    )

    def __init__(self, shared: Shared, txn: Txn, found: Meta) -> None:
        self.shared = shared
        self.txn = txn
        self.meta = found  # as of the commit before
        self.last = found.commit
        self.commit_number = found.commit + 1
        self.meta_changes: dict[str, int] = {}
        self.thread = threading.get_ident()
        self.epoch = shared.epoch
        self.ended = False

    @property
    def inherited(self) -> bool:
        """Whether it is the parent's, and this process a forked child (W4)."""
        return self.epoch != self.shared.epoch

    @property
    def txn_id(self) -> int:
        """LMDB's id of this transaction: for entries that `due` is asked about, only."""
        return self.txn.id()

    def reader_floor(self) -> int:
        """Return the least LMDB id that any reader, of any process, may still see.

        0 when the reader table cannot be read: then nothing is due.
        """
        env = self.shared.lmdb
        try:
            env.reader_check()
            found = readers(env)
        except (ValueError, *LMDB_ERRORS):
            return 0
        return min((id for _, id in found), default=self.txn.id() - 1)

    def due(self, txn_id: int, floor: int) -> bool:
        """May what the commit with LMDB id `txn_id` took away be reused, given `reader_floor`?

        An id above the last committed one is from before the file was copied: due as well.
        """
        return floor > 0 and (txn_id <= floor or txn_id > self.txn.id() - 1)


def begin(shared: Shared, timeout: float) -> WriteTxn:
    """Wait for the turn to write, and begin."""
    shared.take_turn(timeout)
    try:
        txn = shared.begin_again(True)
        try:
            with suppress(*LMDB_ERRORS):
                shared.lmdb.reader_check()
            return WriteTxn(shared, txn, shared.decode(txn.get(META_KEY)))
        except BaseException:
            end(txn)
            raise
    except BaseException:
        shared.end_turn()
        raise


def commit(wt: WriteTxn) -> int:
    """Commit with the next meta record; return its number, or raise when it did not land."""
    _must_own(wt)
    shared = wt.shared
    try:
        found = meta.next_meta(wt.meta, wt.meta_changes)
        record = meta.encode(found)
        shared.wrote = True
        shared.unsynced = shared.durability == "none"
        try:
            _note_time(wt)
            wt.txn.put(META_KEY, record)
            wt.txn.commit()
        except LMDB_ERRORS as error:
            if not _landed(shared, found.nonce):
                raise shared.translated(error) from None
        shared.seen = (record, found)
        return found.commit
    finally:
        abort(wt)


def _note_time(wt: WriteTxn) -> None:
    """Let the file tell later when this commit was made: once a second."""
    now, shared = time.time(), wt.shared
    if not 0 < shared.note_at - now <= times.EVERY:
        times.note(wt.txn, now)
        shared.note_at = now + times.EVERY


def abort(wt: WriteTxn) -> None:
    """Drop what has not been committed, and let the next writer write."""
    if wt.ended:
        return
    if wt.inherited:
        wt.ended = True
        return
    _must_own(wt)
    wt.ended = True
    try:
        end(wt.txn)
    finally:
        wt.shared.end_turn()


def mark_clean(shared: Shared) -> None:
    """Note in the file that all of it is on the disk, if the writer lock can be had at once."""
    if not shared.wrote or shared.unsynced or shared.place.private or shared.lmdb is None:
        return
    try:
        wt = begin(shared, 0.0)
    except VecdbError:
        return
    try:
        clean = meta.as_clean(wt.meta)
        if shared.sidecar is not None:
            name = place.identity(shared.place.data, clean.generation, clean.nonce)
            shared.sidecar.remember(name)
        wt.txn.put(META_KEY, meta.encode(clean))
        wt.txn.commit()
        if shared.durability != "full":
            shared.lmdb.sync(True)
        shared.wrote = False
    except (OSError, *LMDB_ERRORS):
        pass  # without the mark the next open may check the file once more
    finally:
        abort(wt)


def _must_own(wt: WriteTxn) -> None:
    """Raise unless this thread may end the transaction."""
    name = wt.shared.name
    if wt.ended or wt.inherited:
        raise Closed(f"{name}: the transaction has ended, or belongs to the parent process")
    if wt.thread != threading.get_ident():
        raise InvalidArgument(f"{name}: a write transaction ends on the thread that began it")


def _landed(shared: Shared, nonce: bytes) -> bool:
    """Did the commit with this nonce happen? The writer lock is still held."""
    try:
        txn = shared.lmdb.begin()
        try:
            return shared.decode(txn.get(META_KEY)).nonce == nonce
        finally:
            txn.abort()
    except (VecdbError, *LMDB_ERRORS):
        pass
    try:
        seen = opening.look_into(shared.fd, shared.name)
    except VecdbError:
        return False
    return seen is not None and seen.meta is not None and seen.meta.nonce == nonce
