"""The writer that gets killed: commits one after the other, and acknowledges each on a pipe.

Two ways to do it wrong serve as controls: "early" acknowledges before the commit, "split" commits
each call by itself.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import vecdb
from tests.deeds import apply, calls, perform
from tests.wording import hurried


def main() -> None:
    """Read the orders from stdin, then write until killed."""
    path, seed, n, model, durability, way, rich = pickle.load(sys.stdin.buffer)
    if rich:
        hurried()
    db = vecdb.open(path, durability=durability)
    rows, log = db["rows"], db["log"]
    os.write(1, b"ready\n")
    rng = random.Random(f"{seed}-{n}-way")
    while True:
        n += 1
        todo = calls(seed, n, model)
        if way == "early":
            os.write(1, b"%d\n" % n)
        together: AbstractContextManager[Any] = nullcontext()
        if way != "split":
            together = db.transaction()
        with together:
            for call in todo:
                perform(call, rows, rich)
            log.add(n)
        if way != "early":
            os.write(1, b"%d\n" % n)
        for call in todo:
            apply(call, model)
        if rng.random() < 0.02:
            db.optimize()
