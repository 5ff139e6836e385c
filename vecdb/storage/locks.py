"""Who may write, and who is there?

Writers queue twice: threads of one process in a `WriteQueue` (first come, first served), then
processes on the sidecar file "<data>-writer". LMDB's own write mutex is taken last and is then
always free; it knows neither a timeout nor the holder's name, which is why it is not enough.

The sidecar holds two short lines of text and carries three byte-range locks:
    line 1   pid of the last writer                      (what Busy names)
    line 2   identity of the data file last seen sound   (what makes another file "foreign")
    PRESENCE shared while a process has the database open; exclusive = alone (compaction)
    WRITER   exclusive while a process writes
    TURN     exclusive while a process waits for WRITER: whoever has just written cannot take
             WRITER again before the one that waits, so no process starves

Invariants:
  L1  the data file's "-lock" belongs to LMDB: it is never opened, closed or deleted here
      (closing any descriptor on it would drop LMDB's locks for the whole process);
  L2  the locks belong to the open file (OFD), so nothing else that this process does with the
      sidecar drops them; a killed process loses them at once;
  L3  a forked child shares its parent's open file: it closes its descriptor (`abandon`) and
      never unlocks, which would unlock for the parent;
  L4  the sidecar is never deleted: two processes would lock two different files.

Rejected: flock (one lock a file, and no byte ranges), a pid file that is created and deleted
(stale after a kill), waiting inside the kernel (no timeout without signals).
Where there are no OFD locks (macOS), POSIX record locks serve: the same ranges, but closing any
other descriptor of the sidecar in this process would drop them.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable

from vecdb.errors import Busy, InvalidArgument, ReadOnly, VecdbError
from vecdb.storage import place

PRESENCE, WRITER, TURN = 1 << 20, (1 << 20) + 1, (1 << 20) + 2

_FIRST_NAP = 0.0001  # a small durable commit takes 0.0005 s
_LONGEST_NAP = 0.005
_PID_BYTES = 20
_IDENTITY_BYTES = 100
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux
_OFD_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)


class WriteQueue:
    """A lock for the threads of one process: fair, with a timeout, and with a known holder."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._held = False
        self.owner: int | None = None  # thread identity of the holder

    def acquire(self, timeout: float) -> bool:
        """Wait for the lock; False when `timeout` seconds were not enough."""
        if self.owner == threading.get_ident():
            raise InvalidArgument(
                "this thread is inside a write transaction of this database already; "
                "commit or abort it first"
            )
        with self._mutex:
            if not self._held:
                self._held = True
                self.owner = threading.get_ident()
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        return self._wait(gate, timeout)

    def release(self) -> None:
        """Hand the lock to the thread that has waited longest."""
        with self._mutex:
            self.owner = None
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False

    def _wait(self, gate: threading.Lock, timeout: float) -> bool:
        got = False
        try:
            got = gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
        finally:
            if not got:  # timed out or interrupted
                got = self._withdraw(gate)
        if got:
            self.owner = threading.get_ident()
        return got

    def _withdraw(self, gate: threading.Lock) -> bool:
        """Leave the queue; True when the lock was handed over in the last moment."""
        with self._mutex:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return False
        return True


class Sidecar:
    """The "-writer" file of one database, open in this process."""

    def __init__(self, path: str, mode: int = 0o644) -> None:
        self.path = path
        self._sharing = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        except OSError as error:
            if error.errno in place.FULL_ERRNOS:
                raise place.failed(f"the lock file {path} cannot be made", error) from None
            raise ReadOnly(
                f"the lock file {path} cannot be opened for writing ({error.strerror}); "
                "make its folder writable, or open a file that nobody writes with "
                "mode='r', immutable=True"
            ) from None

    def share(self, timeout: float) -> None:
        """Note that this process has the database open; Busy while another is alone with it."""
        if not self._poll(lambda: self._set(PRESENCE, fcntl.LOCK_SH), timeout):
            raise self._busy("is being compacted or repaired")
        self._sharing = True

    def alone(self, timeout: float) -> None:
        """Make this process the only one that has the database open; Busy while others have."""
        if not self._poll(lambda: self._set(PRESENCE, fcntl.LOCK_EX), timeout):
            others = self.others()
            named = f" ({', '.join(map(str, others))})" if others else ""
            raise Busy(
                f"{self._data} is open in another process{named}; close it there and try again",
                owner_pid=others[0] if others else None,
            )

    def others(self) -> list[int]:
        """The other processes that have the sidecar open, as far as the system lets us see.

        The kernel does not say who holds a lock of an open file, so open files are looked through:
        some milliseconds, paid only for the message of an error.
        """
        try:
            mine = os.fstat(self._fd)
            pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        except OSError:
            return []
        return [pid for pid in sorted(pids) if pid != os.getpid() and _has_open(pid, mine)]

    def not_alone(self) -> None:
        """Let other processes open the database again."""
        self._set(PRESENCE, fcntl.LOCK_SH if self._sharing else fcntl.LOCK_UN)

    def lock_writer(self, timeout: float) -> None:
        """Take the writer lock among processes; Busy, naming the holder, after `timeout`."""
        if not self._set(TURN, fcntl.LOCK_EX) or not self._set(WRITER, fcntl.LOCK_EX):
            self._wait_for_writer(timeout)
        self._set(TURN, fcntl.LOCK_UN)
        self._write(b"%-19d\n" % os.getpid(), 0)

    def unlock_writer(self) -> None:
        """Give the writer lock back."""
        self._set(WRITER, fcntl.LOCK_UN)

    def owner_pid(self) -> int | None:
        """Return the process that last took the writer lock, if the file says so."""
        try:
            return int(os.pread(self._fd, _PID_BYTES, 0)) or None
        except (OSError, ValueError):
            return None

    def identity(self) -> str:
        """Return what `remember` noted last, "" when nothing."""
        return _identity(self._fd)

    def remember(self, identity: str) -> None:
        """Note the data file's identity; call it under the writer lock."""
        self._write(identity.encode("ascii").ljust(_IDENTITY_BYTES - 1) + b"\n", _PID_BYTES)

    def close(self) -> None:
        """Drop all locks and the descriptor."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    abandon = close  # in a forked child closing drops nothing: the parent's descriptor remains

    @property
    def _data(self) -> str:
        return self.path.removesuffix("-writer")

    def _wait_for_writer(self, timeout: float) -> None:
        start = time.monotonic()
        try:
            if self._poll(lambda: self._set(TURN, fcntl.LOCK_EX), timeout):
                left = max(0.0, timeout - (time.monotonic() - start))
                if self._poll(lambda: self._set(WRITER, fcntl.LOCK_EX), left):
                    return
        except BaseException:
            self._set(TURN, fcntl.LOCK_UN)
            raise
        self._set(TURN, fcntl.LOCK_UN)
        raise self._busy(f"is being written; waited {timeout:g} s for that to end")

    def _busy(self, what: str) -> Busy:
        pid = self.owner_pid()
        by = f" by process {pid}" if pid else ""
        return Busy(
            f"{self._data}{by} {what}: wait for it, or open with a longer timeout=",
            owner_pid=pid,
        )

    def _set(self, offset: int, kind: int) -> bool:
        """Set one lock without waiting; False when another holds what is in its way."""
        try:
            if _OFD_SETLK is None:
                fcntl.lockf(self._fd, kind | fcntl.LOCK_NB, 1, offset)
            else:
                wanted = _FLOCK.pack(_KINDS[kind], os.SEEK_SET, offset, 1, 0)
                fcntl.fcntl(self._fd, _OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise VecdbError(
                f"{self.path} cannot be locked ({error.strerror}): the file system lacks file "
                "locks; keep the database on a local disk"
            ) from None
        return True

    def _write(self, line: bytes, offset: int) -> None:
        try:
            os.pwrite(self._fd, line, offset)
        except OSError:
            pass  # a full disk: Busy names nobody, or the next open verifies once more

    @staticmethod
    def _poll(attempt: Callable[[], bool], timeout: float) -> bool:
        end = time.monotonic() + timeout
        nap = _FIRST_NAP
        while not attempt():
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(nap, left))
            nap = min(nap * 1.5, _LONGEST_NAP)
        return True


def _has_open(pid: int, file: os.stat_result) -> bool:
    try:
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):
            try:
                if os.path.samestat(os.stat(f"{folder}/{name}"), file):
                    return True
            except OSError:
                continue  # closed meanwhile, or no file
    except OSError:
        pass  # ended meanwhile, or another user's
    return False


def remembered(path: str) -> str:
    """Return the identity in a sidecar that is not open in this process, "" when none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return _identity(fd)
    finally:
        os.close(fd)


def _identity(fd: int) -> str:
    try:
        line = os.pread(fd, _IDENTITY_BYTES, _PID_BYTES)
    except OSError:
        return ""
    return line.decode("ascii", "replace").strip()


_KINDS = {
    fcntl.LOCK_SH: fcntl.F_RDLCK,
    fcntl.LOCK_EX: fcntl.F_WRLCK,
    fcntl.LOCK_UN: fcntl.F_UNLCK,
}
