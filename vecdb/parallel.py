"""How are calls that leave the interpreter's lock made side by side?

    mapped(work, items, threads)    [work(item) for item in items], on some threads

The core has threads of its own for what it loops over itself; this is for loops of ours.

Invariants:
  1  results are in the order of the items, and the first exception is raised, as in a loop;
  2  no thread outlives a call, however it ends: what they read may go away after it, and a fork finds
     nothing half done.

Rejected: a pool that is kept. Its threads do not exist in a forked child, and what is made parallel
here takes a millisecond at least, of which starting the threads is a tenth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


def mapped(work: Callable[[Any], Result], items: Sequence[Any], threads: int) -> list[Result]:
    """The results of `work` for each item; this thread works too."""
    threads = min(threads, len(items))
    if threads <= 1:
        return [work(item) for item in items]
    results: dict[int, Result] = {}
    failed: dict[int, BaseException] = {}
    numbers = count()  # handing out the next is one step of the interpreter

    def take() -> None:
        while not failed and (at := next(numbers)) < len(items):
            try:
                results[at] = work(items[at])
            except BaseException as error:
                failed[at] = error

    others = [Thread(target=take, daemon=True) for _ in range(threads - 1)]
    started = []
    for other in others:
        try:
            other.start()
        except RuntimeError:  # no more threads to be had: slower, not wrong
            break
        started.append(other)
    take()
    for other in started:
        while other.is_alive():
            try:
                other.join()
            except BaseException as error:  # an interrupt: what the others read must outlive them
                failed.setdefault(len(items), error)
    if failed:
        raise failed[min(failed)]
    return [results[at] for at in range(len(items))]
