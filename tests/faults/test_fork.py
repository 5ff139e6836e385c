"""A process may be forked in any state: child and parent both go on rightly, or are refused by name.

Every combination of what the parent is in the middle of, how the child comes to be, what the child does
and how it ends, and what becomes of the parent (forking.py). After each: what both saw and wrote is
right, nobody hangs, the parent's snapshot shows its commit although fifty commits have used pages
again, a fresh process writes without waiting, `compact` is alone, `check` finds nothing.

The control is a child that ends what it has inherited below the API: its parent must be seen to lose
its place in the reader table. The number of combinations is printed with `-s`.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest

from tests.faults.forked_rows import LIMIT, Case, Rows
from tests.faults.forking_states import HOLDING, STATES
from tests.nursery import Line, Nursery, Sprout

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs fork and pidfd_open")

DEEDS = (
    "nothing", "read", "write", "transact", "snapshot", "batch", "inherited_things", "unwind",
    "unwind_by_error", "close", "drop", "grandchild",
)  # fmt: skip
GIVEN = ("read", "write", "transact", "snapshot", "batch", "close")  # to a handle that was pickled
LEAVES = ("_exit", "sys.exit", "return", "raise")
FATES = ("goes on", "killed", "exits")
MODULE = "tests.faults.forking"
MEMORY = "/dev/shm"


def combinations() -> list[Case]:
    """Every state, deed and fate of the parent; where the ways to end differ less, they take turns."""
    found, ends = [], LEAVES[:3]
    for at, (state, deed, fate) in enumerate(product(STATES, DEEDS, FATES)):
        every = LEAVES if deed in ("nothing", "write") else (LEAVES[at % 4], LEAVES[(at + 2) % 4])
        found += [Case(state, "os.fork", deed, leave, fate) for leave in every]
        found.append(Case(state, "fork", deed, ends[at % 3], fate))
    for at, (state, way, fate) in enumerate(product(STATES, ["forkserver", "spawn"], FATES)):
        if state != "in memory":  # which cannot be pickled
            found.append(Case(state, way, GIVEN[at % len(GIVEN)], ends[at % 3], fate))
    return found


@dataclass
class Tally:
    """What a run has shown."""

    tried: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ways = ", ".join(f"{count} by {way}" for way, count in self.tried.items())
        refused = ", ".join(f"{name} {count}" for name, count in sorted(self.refused.items()))
        return (
            f"fork: {self.tried.total()} combinations ({ways}), wrong {len(self.wrong)}; "
            f"refused by name: {refused or 'none'}"
        )


class Trial:
    """One combination: who is told what, when."""

    def __init__(self, nursery: Nursery, folder: str, case: Case, tally: Tally) -> None:
        self.nursery = nursery
        self.path = os.path.join(folder, "f.vecdb")
        self.address = os.path.join(folder, "door")
        self.case = case
        self.tally = tally
        self.memory = case.state == "in memory"
        self.rows: Rows = {}
        self.wrong: list[str] = []
        self.sprouts: list[Sprout] = []

    def run(self) -> list[str]:
        """What was wrong."""
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(self.address)
            door.listen()
            door.settimeout(LIMIT)
            try:
                self.play(door)
            except (TimeoutError, EOFError) as error:
                self.wrong.append(f"somebody hangs or died: {error!r}")
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.parent.pid, signal.SIGKILL)
            finally:
                for sprout in self.sprouts:
                    sprout.kill()
                    self.nursery.wait(sprout)
        return self.wrong

    def play(self, door: socket.socket) -> None:
        parent = self.parent = self.start("parent", self.path, self.address, self.case)
        holder = None
        if not self.memory:
            parent.line.get(LIMIT)
            holder = self.hold() if self.case.state == "waiting" else None
            parent.line.put("enter")
        child = Line(door.accept()[0])
        life = os.pidfd_open(child.get(LIMIT)[1])
        try:
            _, self.rows = parent.line.get(LIMIT)
            self.before_the_child(parent, holder)
            if self.case.fate == "killed" and not self.memory:
                self.beside()
            self.child(child, life)
            if self.case.fate == "goes on":
                parent.line.put(("go on", self.rows))
                self.done(parent)
        finally:
            os.close(life)
        if not self.memory:
            self.afterwards()

    # --- the parent ------------------------------------------------------------------------------

    def before_the_child(self, parent: Sprout, holder: Sprout | None) -> None:
        """What becomes of the parent, and of who had the lock, before the child acts."""
        if self.case.fate == "killed":
            parent.kill()
            self.ended(parent, -9)
        if holder is not None:
            self.let_go(holder)
            if self.case.fate != "killed":
                parent.line.put(("write", {**self.rows, "waited": 730}))
                _, self.rows = parent.line.get(LIMIT)
        if self.case.fate == "exits":
            parent.line.put(("end", self.rows))
            self.done(parent)

    def hold(self) -> Sprout:
        holder = self.start("holder", self.path)
        holder.line.get(LIMIT)
        return holder

    def let_go(self, holder: Sprout) -> None:
        holder.line.put("go")
        holder.line.get(LIMIT)
        self.ended(holder, 0)
        self.rows = {**self.rows, "holder": 740}

    def done(self, parent: Sprout) -> None:
        _, wrong, self.rows = parent.line.get(LIMIT)
        self.wrong += [f"parent: {each}" for each in wrong]
        self.ended(parent, 0)

    # --- the child -------------------------------------------------------------------------------

    def child(self, child: Line, life: int) -> None:
        """Let it act and end, and judge what it says."""
        child.put(self.rows)
        _, wrong, refused, self.rows = child.get(LIMIT)
        self.wrong += [f"child: {each}" for each in wrong]
        self.tally.refused.update(refused)
        allowed = {"Closed"} if self.memory else set()
        if self.case.state in HOLDING and self.case.fate == "goes on":
            allowed.add("Busy")
        if not {*refused} <= allowed:
            self.wrong.append(f"the child was refused: {refused}")
        if self.memory and self.case.deed not in ("nothing", "close") and not refused:
            self.wrong.append("the child used what is in its parent's memory")
        if self.case.leave != "_exit" or self.case.way != "os.fork":
            left = child.get(LIMIT)[1]
            if left != self.should_leave():
                self.wrong.append(f"the child left its blocks by {left!r}")
        child.close()
        if not select.select([life], [], [], LIMIT)[0]:
            self.wrong.append("the child does not end")

    def should_leave(self) -> str:
        """What the child's own stack ends with: leaving a parent's transaction is refused."""
        if self.case.way != "os.fork":
            return ""
        if self.case.leave == "return":
            ended = self.case.deed in ("unwind", "unwind_by_error")
            return "Closed" if self.case.state == "transaction" and not ended else ""
        return {"sys.exit": "SystemExit", "raise": "Planned"}[self.case.leave]

    # --- others ----------------------------------------------------------------------------------

    def beside(self) -> None:
        """The parent is dead and its child lives, idle: no lock of the parent's lives on."""
        other = self.start("writes_at_once", self.path, self.rows)
        wrong, self.rows = other.line.get(LIMIT)
        self.wrong += [f"beside the child: {each}" for each in wrong]
        self.ended(other, 0)
        if self.case.state == "opening":
            self.comes_after(self.path + "-2", {"elsewhere": 1})

    def afterwards(self) -> None:
        self.comes_after(self.path, self.rows)

    def comes_after(self, path: str, rows: Rows) -> None:
        after = self.start("compacts_at_once", path, rows)
        self.wrong += [f"afterwards: {each}" for each in after.line.get(LIMIT)]
        self.ended(after, 0)

    def start(self, function: str, *arguments: Any) -> Sprout:
        sprout = self.nursery.start(f"{MODULE}:{function}", *arguments)
        self.sprouts.append(sprout)
        return sprout

    def ended(self, sprout: Sprout, code: int) -> None:
        self.sprouts.remove(sprout)
        found = self.nursery.wait(sprout)
        if found != code:
            self.wrong.append(f"a process ended with {found}")


def tried(cases: list[Case], nursery: Nursery) -> Tally:
    """Try them one after the other, without a disk: no process is killed by a lack of power."""
    tally = Tally()
    for case in cases:
        with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
            wrong = Trial(nursery, folder, case, tally).run()
        tally.tried[case.way] += 1
        tally.wrong += [f"{case}: {each}" for each in wrong]
    print(tally)
    return tally


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


def test_a_fork_in_any_state_harms_nobody(nursery: Nursery) -> None:
    """Each state; what the child does, and what becomes of both, is drawn."""
    rng = random.Random(4)
    every = combinations()
    cases = [
        rng.choice([c for c in every if (c.state, c.way) == (state, "os.fork")]) for state in STATES
    ]
    cases += rng.sample([c for c in every if c.way == "fork"], 4)
    cases += rng.sample([c for c in every if c.way in ("forkserver", "spawn")], 1)
    assert tried(cases, nursery).wrong == []


def test_a_fork_in_any_state_leaves_full_text_sparse_and_many_vectors_right(nursery: Nursery) -> None:
    rng, every = random.Random(6), combinations()
    cases = [
        rng.choice([c for c in every if (c.state, c.way) == (state, "os.fork")]) for state in STATES
    ]
    assert tried([case._replace(rich=True) for case in cases], nursery).wrong == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_every_combination_of_states_ways_deeds_and_ends(nursery: Nursery, rich: bool) -> None:
    cases = [case._replace(rich=rich) for case in combinations()]
    random.Random(5).shuffle(cases)
    share = int(os.environ.get("VECDB_FORK_CASES", len(cases)))
    assert tried(cases[:share], nursery).wrong == []


@pytest.mark.parametrize("state", ["snapshot", "inside a read"])
def test_control_a_child_that_ends_its_parents_snapshot_is_noticed(nursery: Nursery, state: str) -> None:
    case = Case(state, "os.fork", "nothing", "_exit", "goes on", broken=True)
    tally = tried([case], nursery)
    assert any("reader table" in wrong for wrong in tally.wrong), tally.wrong
