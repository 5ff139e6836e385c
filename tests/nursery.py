"""Many processes that start in milliseconds: forked from a Python that has imported and opened nothing.

A test asks the nursery to run a function of some module in a process of its own, with one end of a
socket; the other end is the test's. What ran is waited for by the nursery, so that a crash or a kill
shows in the status, and no process outlives the nursery's `close`.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import pickle
import signal
import socket
import struct
from dataclasses import dataclass
from typing import Any

from tests import child

LENGTH = struct.Struct("!I")


class Line:
    """One end of a socket that carries pickled objects, each whole."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def put(self, thing: object) -> None:
        content = pickle.dumps(thing)
        self.end.sendall(LENGTH.pack(len(content)) + content)

    def get(self, timeout: float | None = None) -> Any:
        """The next object; EOFError when the other side has ended, TimeoutError after so long."""
        self.end.settimeout(timeout)
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return pickle.loads(self._exactly(length))

    def close(self) -> None:
        self.end.close()

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            try:
                part = self.end.recv(count)
            except ConnectionResetError:  # killed with something unread
                part = b""
            if not part:
                raise EOFError("the other side has ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


@dataclass
class Sprout:
    """A process that the nursery has started."""

    pid: int
    line: Line

    def kill(self, sign: int = signal.SIGKILL) -> None:
        os.kill(self.pid, sign)


class Nursery:
    """The process that forks others; a context manager."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        code = "from tests.nursery import main; main()"
        self._process = child.start(code, stdin=its.fileno(), stdout=None)
        its.close()
        self._end = ours
        self._running: set[int] = set()

    def start(self, function: str, *arguments: object) -> Sprout:
        """Run "module:function" with a Line and arguments in a process of its own."""
        here, there = socket.socketpair()
        socket.send_fds(self._end, [LENGTH.pack(0)], [there.fileno()])
        there.close()
        orders = Line(self._end)
        orders.put(("start", function, arguments))
        pid = orders.get(60)
        self._running.add(pid)
        return Sprout(pid, Line(here))

    def wait(self, sprout: Sprout) -> int:
        """Wait for its end, however long it takes, and return its exit code, negative for a signal."""
        sprout.line.close()
        socket.send_fds(self._end, [LENGTH.pack(1)], [])
        orders = Line(self._end)
        orders.put(("wait", sprout.pid, ()))
        status: int = orders.get(120)
        self._running.discard(sprout.pid)
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End it, and what still runs."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)  # not waited for yet, so that the number is still its own
        self._end.close()
        self._process.wait(60)

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    """In the nursery: start and wait for processes until the test closes its end."""
    import tests.deeds  # noqa: F401  (imports vecdb and numpy, and opens nothing)

    end = socket.socket(fileno=os.dup(0))
    while True:
        head, given, _, _ = socket.recv_fds(end, LENGTH.size, 1)
        if not head:
            return
        verb, what, arguments = Line(end).get()
        if verb == "wait":
            Line(end).put(os.waitpid(what, 0)[1])
            continue
        pid = os.fork()
        if pid == 0:
            end.close()
            _run(what, Line(socket.socket(fileno=given[0])), arguments)
            return  # a process ends as any Python does, with its destructors
        os.close(given[0])
        Line(end).put(pid)


def _run(function: str, line: Line, arguments: tuple[Any, ...]) -> None:
    faulthandler.enable()
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(line, *arguments)
