"""The driver's side of processes that do deeds: who is there, what did they say, who is in the midst of what?

A `Process` is one running tests/hand.py. It keeps the answers of its threads apart, and the model's
memory of what it holds: snapshots by number, each with the state that it must show, and for each thread
what its open transaction sees or which write of it waits for another's.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from tests import child
from tests.foresight import State
from tests.hand import Answer, Deed

HAND = "from tests.hand import main; main()"
THREADS = 2
PATIENCE_S = 120  # for one answer


class Difference(AssertionError):
    """The database and the model differ."""


@dataclass(eq=False)
class Thread:
    """One thread of a process: what it is in the midst of."""

    process: Process
    number: int
    inside: State | None = None  # what its open transaction sees
    waiting: Deed | None = None  # a write that waits for another's transaction

    def __str__(self) -> str:
        return f"{self.process.name}.{self.number}"


@dataclass(eq=False)
class Process:
    """One process of hands, and what it holds."""

    name: str
    path: str
    way: str
    options: dict[str, Any]
    threads: list[Thread] = field(default_factory=list)
    snapshots: dict[int, State] = field(default_factory=dict)
    answers: deque[tuple[int, Answer]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.threads = [Thread(self, number) for number in range(THREADS)]
        options = pickle.dumps(self.options).hex()
        self.running = child.start(HAND, self.path, options, self.way, THREADS)
        assert self.running.stdin is not None and self.running.stdout is not None
        self.pipe_in = Connection(os.dup(self.running.stdin.fileno()), readable=False)
        self.pipe_out = Connection(os.dup(self.running.stdout.fileno()), writable=False)
        self.running.stdin.close()
        self.running.stdout.close()

    @property
    def pid(self) -> int:
        return self.running.pid

    @property
    def reads_only(self) -> bool:
        return self.options.get("mode") == "r"

    def tell(self, thread: Thread, deed: Deed) -> None:
        self.pipe_in.send((thread.number, deed))

    def answer(self, thread: Thread) -> Answer:
        """The next answer of one thread; those of others are kept."""
        for at, (number, answer) in enumerate(self.answers):
            if number == thread.number:
                del self.answers[at]
                return answer
        end = time.monotonic() + PATIENCE_S
        while self.pipe_out.poll(max(0, end - time.monotonic())):
            number, answer = self.pipe_out.recv()
            if number == thread.number:
                return answer
            self.answers.append((number, answer))
        self.running.send_signal(signal.SIGABRT)  # it says on stderr where its threads are
        raise Difference(f"{thread} does not answer")

    def busy(self) -> bool:
        return any(thread.inside is not None or thread.waiting for thread in self.threads)

    def kill(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> None:
        self.pipe_in.close()
        self.running.wait(PATIENCE_S)
        self.pipe_out.close()
