"""Processes that queue to write, for tests of the order in which they are served.

`Polling` is how it was before there were places: a process that waits takes one byte, TURN, and all
others poll for that with naps that grow, so that a newcomer looks most often. It is the control.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

from vecdb.errors import Busy
from vecdb.storage.env import Env
from vecdb.storage.locks import WRITER, Sidecar

TURN = (1 << 20) + 2


class Polling(Sidecar):
    """The order before: whoever looks first."""

    def lock_writer(self, timeout: float) -> None:
        if not self._set(TURN, fcntl.F_WRLCK) or not self._set(WRITER, fcntl.F_WRLCK):
            self.queued()
            end = time.monotonic() + timeout
            got = self._poll(lambda: self._set(TURN, fcntl.F_WRLCK), timeout) and self._poll(
                lambda: self._set(WRITER, fcntl.F_WRLCK), max(0.0, end - time.monotonic())
            )
            if not got:
                self._set(TURN, fcntl.F_UNLCK)
                raise self._busy("is being written")
        self._set(TURN, fcntl.F_UNLCK)
        self._write(b"%-19d\n" % os.getpid(), 0)

    def queued(self) -> None:
        """Called when a wait has begun."""


class Watched(Sidecar):
    """As it is, and it says when a wait has begun."""

    def _draw(self) -> int:
        place = super()._draw()
        self.queued()
        return place

    def queued(self) -> None:
        """Called when a place has been drawn."""


KINDS = {"places": Watched, "polling": Polling}


class Forked:
    """A child of this process that runs `work` and nothing else; its lines come through a pipe."""

    def __init__(self, work: Callable[[], object]) -> None:
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.dup2(write, 1)
                work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write)
        self._out = os.fdopen(read)

    def line(self) -> str:
        """What it says next."""
        return self._out.readline().strip()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> str:
        """Wait for its end; what it still had to say."""
        rest = self._out.read()
        self._out.close()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0, f"the child ended with {status}"
        return rest

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._out.close()


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def visit(path: str, name: str, timeout: float, kind: str = "places") -> None:
    """Wait once, say when, and write one's name."""

    class Said(KINDS[kind]):  # type: ignore[misc]
        def queued(self) -> None:
            say("queued")

    side = Said(path)
    side.share(1)
    try:
        side.lock_writer(timeout)
    except Busy as busy:
        say(f"busy with {busy.owner_pid}")
        return
    names = os.open(path + ".served", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(names, name.encode())
    side.unlock_writer()
    say("served")


def regular(path: str, kind: str, times: int, seed: str) -> None:
    """Commit in a tight loop; say of each wait how many commits came between place and turn."""
    rng = random.Random(seed)
    env = Env.open(path, durability="none", timeout=120)
    seen: list[int] = []

    class Counted(KINDS[kind]):  # type: ignore[misc]
        def queued(self) -> None:
            seen[:] = [last_commit(env)]

    shared: Any = env._shared
    shared.sidecar.__class__ = Counted
    between = []
    for _ in range(times):
        seen.clear()
        wt = env.begin_write()
        between += [wt.last - at for at in seen]
        time.sleep(rng.choice([0, 0, 0.0005, 0.002]))
        env.commit(wt)
    env.close()
    say(" ".join(map(str, between)))


def increment(path: str, times: int, take: str = "places") -> None:
    """Add one to a number in a file, many times, under the lock, or under none."""
    side = KINDS.get(take, Watched)(path)
    side.share(1)
    file = os.open(path + ".number", os.O_RDWR)
    for _ in range(times):
        if take != "none":
            side.lock_writer(60)
        number = int(os.pread(file, 20, 0))
        os.sched_yield()
        os.pwrite(file, b"%-20d" % (number + 1), 0)
        side.unlock_writer()


def last_commit(env: Env) -> int:
    txn = env.begin_read()
    try:
        return env.commit_number(txn)
    finally:
        txn.abort()
