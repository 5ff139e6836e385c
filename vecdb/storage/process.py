"""What does this process have open, and what becomes of it in a forked child?

LMDB allows a file to be open once per process, so what is open is kept here by real path. After
a fork the child must not use, end or close anything that it inherited (see env.py, V3): each
shared environment is told, and gives up what it holds without ending it.

Invariants:
  F1  the child's hook takes no lock, waits for nothing and does not raise: it runs inside
      fork();
  F2  `keep_forever` outlives everything: no destructor runs, at the child's exit neither;
  F3  opening and closing are serial within a process: `lock` is held meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Forkable(Protocol):
    """Something of a process that must be given up in a forked child."""

    def forked(self) -> None:
        """Give up what was inherited."""


T = TypeVar("T", bound=Forkable)


class Registry(Generic[T]):
    """What is open in this process, by real path."""

    def __init__(self, before_others: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.opened: dict[str, T] = {}
        self.opening: set[T] = set()  # by another thread, when this one forks: locks may be held
        self._before_others = before_others
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.lock = threading.RLock()
        self._before_others()
        for shared in [*self.opened.values(), *self.opening]:
            shared.forked()
        self.opening.clear()


def keep_forever(thing: object) -> None:
    """Make an object immortal: a reference that nobody will ever give back."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
