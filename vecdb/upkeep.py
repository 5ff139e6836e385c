"""Who folds what is left when nobody writes any more?

Every commit folds in proportion to what it logs, so that the log is bounded without any thread. What
remains after the last commit of a burst is folded here: a thread that lives only while there is
something to fold waits until the handle has been quiet for a while, tries the writer lock without
waiting for it, and takes slices of a few milliseconds, each a commit of its own. The next open then
replays little. `upkeep=False` turns it off; so do mode "r" and a database in memory.

Invariants:
  U1  the thread never waits for the writer lock, and never holds it for more than a slice;
  U2  it keeps no database alive and outlives no `close()`: closing waits for the slice under way;
  U3  an error ends the thread, never the program: the work is left for a later commit;
  U4  while others write it does nothing: their commits fold in proportion, and would wait for it.

Rejected: a permanent thread. Thousands of idle handles would each have one.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from vecdb.errors import VecdbError

if TYPE_CHECKING:
    from vecdb.database import Database

QUIET_S: Final = 0.5  # without a commit of this handle before the first slice
SLICE_S: Final = 0.005  # work in one commit
PAUSE_S: Final = 0.02  # between slices: others' writes go first


class Upkeep:
    """The idle thread of one database handle."""

    def __init__(self, db: Database) -> None:
        self._db = weakref.ref(db)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._last = 0.0
        self._seen: int | None = None  # the file's last commit, when this thread last looked

    def note_commit(self) -> None:
        """Remember that something may be left to fold."""
        self._last, self._seen = time.monotonic(), None  # a commit of one's own is no other's
        if self._thread is not None or self._stopped:
            return
        with self._lock:
            if self._thread is None and not self._stopped:
                thread = threading.Thread(target=self._run, name="vecdb upkeep", daemon=True)
                self._thread = thread
                thread.start()

    def stop(self) -> None:
        """End the thread and wait for the slice under way."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        try:
            while not self._stopped:
                quiet = time.monotonic() - self._last
                if quiet < QUIET_S:
                    self._wake.wait(QUIET_S - quiet + 0.001)
                    continue
                if self._others_write():
                    self._last = time.monotonic()
                    continue
                if not self._slice():
                    return
                self._wake.wait(PAUSE_S)
        finally:
            with self._lock:
                self._thread = None

    def _others_write(self) -> bool:
        """Whether another handle or process has committed since this one looked (U4)."""
        db = self._db()
        try:
            now = None if db is None else db._commit_number()
        except VecdbError:
            now = None
        seen, self._seen = self._seen, now
        return now is not None and seen is not None and now != seen

    def _slice(self) -> bool:
        """Do one slice; whether there may be more to do."""
        db = self._db()
        if db is None:
            return False
        try:
            more = db._fold_idle(SLICE_S)
            self._seen = db._commit_number()
            return more
        except VecdbError:
            return False
