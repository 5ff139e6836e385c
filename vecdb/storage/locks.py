"""Who may write, and who is there?

Writers queue twice, both times first come, first served: threads of one process in a
`WriteQueue`, then processes on the sidecar file "<data>-writer", where a process has one place
however many of its threads wait. LMDB's own write mutex is taken last and is then always free; it
knows neither a timeout nor the holder's name, which is why it is not enough.

The sidecar holds two short lines of text and carries these byte-range locks:
    line 1   pid of the last writer                      (what Busy names)
    line 2   identity of the data file last seen sound   (what makes another file "foreign")
    PRESENCE shared while a process has the database open; exclusive = alone (compaction)
    WRITER   exclusive while a process writes
    QUEUE+n  exclusive while a process waits for WRITER at place n. A newcomer locks the first byte
             behind every locked one, and takes WRITER when no byte before its own is locked:
             all that the queue is are locks, so whoever is killed has left it

Invariants:
  L1  the data file's "-lock" belongs to LMDB: it is never opened, closed or deleted here
      (closing any descriptor on it would drop LMDB's locks for the whole process);
  L2  the locks belong to the open file (OFD), so nothing else that this process does with the
      sidecar drops them; a killed process loses them at once;
  L3  a forked child shares its parent's open file: it closes its descriptor (`abandon`) and
      never unlocks, which would unlock for the parent;
  L4  the sidecar is never deleted: two processes would lock two different files;
  L5  who waits is overtaken only by processes that came before: one that has looked at the queue
      and found it empty, or a place free, may still take what it saw, once. A process that was
      stopped (Ctrl-Z) while it waits is passed over: it does not take what is free for a second;
  L6  at most one thread of a process is at WRITER and in the queue (`WriteQueue`, or the opening
      of the file): locks of one open file do not keep its own threads apart.

Rejected: flock (one lock a file, and no byte ranges), a pid file that is created and deleted
(stale after a kill), waiting inside the kernel (no timeout without signals), a counter of tickets
in the file (a write that a full disk refuses, and a lock around it that a stopped process keeps).
Where there are no OFD locks (macOS), POSIX record locks serve: the same ranges, but closing any
other descriptor of the sidecar in this process would drop them.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from vecdb.errors import Busy, Closed, InvalidArgument, ReadOnly, VecdbError
from vecdb.storage import place

PRESENCE, WRITER, QUEUE = 1 << 20, (1 << 20) + 1, 1 << 32

_FIRST_NAP = 0.00005  # a small durable commit takes 0.0005 s
_LONGEST_NAP = 0.005
_STOPPED = 200  # looks in a row, a second in all, at a free lock that those before do not take
_TO_THE_END = 0  # as a length
_PID_BYTES = 20
_IDENTITY_BYTES = 100
_LINUX = sys.platform.startswith("linux")
_FLOCK = struct.Struct("@hhqqi4x" if _LINUX else "@qqihh")  # struct flock of 64-bit systems
_SETLK: int = getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK)
_GETLK: int = getattr(fcntl, "F_OFD_GETLK", fcntl.F_GETLK)


def _flock(kind: int, start: int, length: int = 1) -> bytes:
    if _LINUX:
        return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)
    return _FLOCK.pack(start, length, 0, kind, os.SEEK_SET)


_TAKE, _GIVE_BACK = _flock(fcntl.F_WRLCK, WRITER), _flock(fcntl.F_UNLCK, WRITER)
_ANYBODY = _flock(fcntl.F_WRLCK, QUEUE, _TO_THE_END)


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
        if not self._poll(lambda: self._set(PRESENCE, fcntl.F_RDLCK), timeout):
            raise self._busy("is being compacted or repaired")
        self._sharing = True

    def alone(self, timeout: float) -> None:
        """Make this process the only one that has the database open; Busy while others have."""
        if not self._poll(lambda: self._set(PRESENCE, fcntl.F_WRLCK), timeout):
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
        self._set(PRESENCE, fcntl.F_RDLCK if self._sharing else fcntl.F_UNLCK)

    def lock_writer(self, timeout: float) -> None:
        """Take the writer lock among processes; Busy, naming the holder, after `timeout`."""
        try:
            if self._asked(_ANYBODY) or not self._did(_TAKE):
                self._wait_for_writer(timeout)
            self._write(b"%-19d\n" % os.getpid(), 0)
        except BaseException:  # interrupted, perhaps with the lock in hand
            self.unlock_writer()
            raise

    def unlock_writer(self) -> None:
        """Give the writer lock back."""
        self._did(_GIVE_BACK)

    def owner_pid(self) -> int | None:
        """Return the process that last took the writer lock, if the file says so."""
        try:
            return int(self._last_writer()) or None
        except ValueError:
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
        """Queue, and take WRITER when all places before one's own are free."""
        since = time.monotonic()
        end, writer, first, free = since + timeout, b"", QUEUE, 0
        try:
            place = self._draw() if timeout > 0 else 0
            while place:
                ahead = self._waiting(first, place)
                if not ahead and self._did(_TAKE):
                    return
                now = time.monotonic()
                if now >= end:
                    break
                free = free + 1 if ahead and not self._asked(_TAKE) else 0
                if free > _STOPPED:
                    first, free = self._foremost(first, ahead) + 1, 0
                if writer != self._last_writer():
                    writer, since = self._last_writer(), now
                time.sleep(min(end - now, _nap(now - since, place - ahead if ahead else 0)))
        finally:
            self._set(QUEUE, fcntl.F_UNLCK, _TO_THE_END)
        raise self._busy(f"is being written; waited {timeout:g} s for that to end")

    def _draw(self) -> int:
        """Lock the first byte behind all places that are taken, and return it."""
        place = QUEUE
        while True:
            taken = self._waiting(place)
            if taken:
                place = taken + 1
            elif self._set(place, fcntl.F_WRLCK):
                return place

    def _foremost(self, first: int, place: int) -> int:
        """The least place from `first` on at which a process waits, `place` being one."""
        while lower := self._waiting(first, place):
            place = lower
        return place

    def _waiting(self, start: int, end: int | None = None) -> int:
        """A place from `start` to before `end` at which another process waits; 0 when none is.

        Of several it is any.
        """
        if start == end:
            return 0
        return self._asked(_flock(fcntl.F_WRLCK, start, end - start if end else _TO_THE_END))

    def _busy(self, what: str) -> Busy:
        pid = self.owner_pid()
        by = f" by process {pid}" if pid else ""
        return Busy(
            f"{self._data}{by} {what}: wait for it, or open with a longer timeout=",
            owner_pid=pid,
        )

    def _set(self, start: int, kind: int, length: int = 1) -> bool:
        """Set one lock without waiting; False when another holds what is in its way."""
        return self._did(_flock(kind, start, length))

    def _did(self, lock: bytes) -> bool:
        try:
            fcntl.fcntl(self._fd, _SETLK, lock)
        except (BlockingIOError, PermissionError):
            return False
        except (OSError, ValueError) as error:
            raise self._unusable(error) from None
        return True

    def _asked(self, lock: bytes) -> int:
        """Where a lock begins that is in the way of this one; 0 when nothing is."""
        try:
            answer = fcntl.fcntl(self._fd, _GETLK, lock)
        except (OSError, ValueError) as error:
            raise self._unusable(error) from None
        return _in_the_way(answer)

    def _unusable(self, error: OSError | ValueError) -> VecdbError:
        if self._fd < 0:
            return Closed(f"{self._data} was closed by another thread of this process")
        return VecdbError(
            f"{self.path} cannot be locked ({getattr(error, 'strerror', error)}): the file system "
            "lacks file locks; keep the database on a local disk"
        )

    def _last_writer(self) -> bytes:
        try:
            return os.pread(self._fd, _PID_BYTES, 0)
        except OSError:
            return b""

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


def _nap(turn: float, places: int) -> float:
    """How long to sleep while the process that writes has written for `turn` seconds.

    An eighth of that, so that the lock never lies idle for long after a turn of any length, and
    longer for those with more places before them, so that many who wait cost no more than a few.
    """
    return min(_LONGEST_NAP, max(_FIRST_NAP, turn / 8) * (1 + places))


def _in_the_way(answer: bytes) -> int:
    """Where the lock begins that the system found in the way; 0 when it found none."""
    fields = _FLOCK.unpack(answer)
    kind, start = (fields[0], fields[2]) if _LINUX else (fields[3], fields[0])
    return 0 if kind == fcntl.F_UNLCK else int(start)


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
