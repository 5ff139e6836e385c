"""Readers beside a writer: at which step did I read, and was the answer that step's?

A `Reader` is one thread. It knows the recipe (tests/recipe.py), the file and the board, a few numbers
that writer and readers share through a mapped file: the step that the writer has begun, and the last
one that it knows to be committed. Each answer must be right for one step, and that step

  R1  not older than what was committed before the read began: a commit is seen by the next read of
      every thread and process;
  R2  not newer than what was begun when it ended, and never older than what this thread saw before;
  R3  the same one for all that is asked of one snapshot, in both collections.

How a reader learns the step: in a snapshot from its clocks; for a read by itself from the clock before
and after it. Where these differ the answer must be right for one of the steps from the one to the other.

Two ways to do it wrong serve as controls: "two snapshots" takes the clock from one snapshot and the
rows from a later one, "kept" answers from a snapshot as if it were the present.
"""

from __future__ import annotations

import json
import mmap
import random
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vecdb
from tests import recipe
from tests.reads import Ask, Judge, Verdict, clock_is, prepared, scan_all, shown, some_way
from tests.recipe import CLOCK, KINDS, World

KEPT_AT_ONCE = 2
MOST_WRONG = 20  # what a thread reports before it ends


class Board:
    """What the writer tells all readers: numbers in a mapped file, each written by one process."""

    BEGUN, COMMITTED, STOP = range(3)

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("q")

    def __getitem__(self, at: int) -> int:
        return self._numbers[at]

    def __setitem__(self, at: int, number: int) -> None:
        self._numbers[at] = number


class History:
    """The worlds of a run, worked out once for all threads of a process.

    A thread may still ask for any step from the last one that it asked for; older ones are dropped.
    """

    def __init__(self, seed: int, threads: list[str], rich: bool = False) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._asked = dict.fromkeys(threads, 0)
        self._worlds = {0: recipe.empty(rich)}
        self._newest = 0

    def at(self, n: int, thread: str, since: int | None = None) -> World:
        """The world of step n; `since`: the oldest that this thread may still ask for."""
        with self._lock:
            while self._newest < n:
                _, world = recipe.step(self._seed, self._worlds[self._newest])
                self._newest += 1
                self._worlds[self._newest] = world
            found = self._worlds[n]
            self._asked[thread] = n if since is None else since
            for old in range(min(self._worlds), min(self._asked.values())):
                del self._worlds[old]
            return found

    def left(self, thread: str) -> None:
        """That thread asks no more."""
        with self._lock:
            del self._asked[thread]


@dataclass
class Tally:
    """What readers have seen."""

    reads: Counter[str] = field(default_factory=Counter)
    where: Counter[str] = field(default_factory=Counter)  # alone, or in which snapshot
    clocks: int = 0  # looked at only to learn the step; not counted as reads
    between: int = 0  # reads during which a commit came: right for one of several steps
    asked: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name in ("reads", "where", "asked", "found"):
            getattr(self, name).update(getattr(other, name))
        self.clocks += other.clocks
        self.between += other.between
        self.wrong += other.wrong

    def recall(self) -> float:
        return self.found.total() / max(1, self.asked.total())

    @staticmethod
    def parse(line: bytes) -> Tally:
        said = json.loads(line)
        counters = {name: Counter(said.pop(name)) for name in ("reads", "where", "asked", "found")}
        return Tally(**said, **counters)


class Reader:
    """One thread that reads until the board says stop."""

    def __init__(
        self, name: str, db: vecdb.Database, board: Board, history: History, seed: int, way: str, pause: float
    ) -> None:
        self.pause = pause
        self.name, self.db, self.board, self.history, self.way = name, db, board, history, way
        self.rng = random.Random(f"{seed}-{name}")
        self.tally = Tally()
        self.seen = 0  # the newest step that this thread has seen
        self.kept: list[tuple[Any, World, float]] = []
        self.ready = {kind.name: prepared(db[kind.name]) for kind in KINDS}

    def run(self) -> None:
        try:
            while not self.board[Board.STOP] and len(self.tally.wrong) < MOST_WRONG:
                self.turn()
                time.sleep(self.pause)
        except Exception as error:
            self.wrong("error", "".join(traceback.format_exception(error)[-4:]))
        finally:
            for snapshot, _, _ in self.kept:
                snapshot.close()
            self.history.left(self.name)

    def turn(self) -> None:
        """Some reads: by themselves, in a new snapshot, or in one that was kept."""
        if self.way == "kept":
            self.from_a_kept_snapshot_as_if_now()
        elif self.way == "two snapshots" or self.rng.random() < 0.1:
            self.in_a_snapshot(self.rng.choice((2, 10)))
        elif self.rng.random() < 0.1:
            self.in_a_kept_snapshot(5)
        else:
            self.alone(20)

    # --- reads by themselves -----------------------------------------------------------------

    def alone(self, times: int) -> None:
        """Each is one call; the clock after one is the clock before the next."""
        at = self.rng.randrange(len(KINDS))
        c = self.db[KINDS[at].name]
        world = self.look(c, at)
        for _ in range(times):
            if world is None:
                return
            name, ask = self.some_way(at, world[at].kind.rich)
            judge = ask(self.rng, c, world[at])
            after = self.look(c, at, since=world[at].step)
            if after is not None:
                self.judge_between(name, judge, at, world, after)
            world = after

    def some_way(self, at: int, rich: bool) -> tuple[str, Ask]:
        if self.rng.random() < 0.15:
            ready = self.ready[KINDS[at].name]
            name = self.rng.choice(list(ready))
            return name, ready[name]
        return some_way(self.rng, rich)

    def look(self, c: Any, at: int, since: int | None = None) -> World | None:
        """The world of the clock that a collection shows now (R1, R2)."""
        floor = self.floor()
        row = c.get(CLOCK)
        self.tally.clocks += 1
        return self.world_of(row, at, floor, self.board[Board.BEGUN], since)

    def floor(self) -> int:
        """The oldest step that a read which begins now may show."""
        return max(self.board[Board.COMMITTED], self.seen)

    def world_of(
        self, row: Any, at: int, floor: int, ceiling: int, since: int | None = None
    ) -> World | None:
        clock = None if row is None else shown(row)
        n = -1 if clock is None else clock.metadata["clock"]
        if not floor <= n <= ceiling:
            self.wrong("clock", f"step {n} was shown; it had to be from {floor} to {ceiling}")
            return None
        self.seen = max(self.seen, n)
        world = self.history.at(n, self.name, since)
        if not clock_is(clock, world[at]):
            self.wrong("clock", f"{clock}")
        return world

    def judge_between(self, name: str, judge: Judge, at: int, before: World, after: World) -> None:
        first, last = before[at].step, after[at].step
        verdict = judge(after[at])
        if first < last:
            self.tally.between += 1
            for n in range(last - 1, first - 1, -1):
                if not verdict.wrong:
                    break
                verdict = judge(self.history.at(n, self.name, since=first)[at])
        self.count(name, "alone", verdict, f"steps {first} to {last}")

    # --- reads in snapshots ------------------------------------------------------------------

    def in_a_snapshot(self, times: int) -> None:
        floor = self.floor()
        with self.db.snapshot() as snapshot:
            world = self.world_in(snapshot, floor)
            if self.way == "two snapshots":
                time.sleep(0.01)
                with self.db.snapshot() as later:
                    self.ask_all(later, world, times, "snapshot")
            else:
                self.ask_all(snapshot, world, times, "snapshot")

    def in_a_kept_snapshot(self, times: int) -> None:
        """Asked again and again while the writer goes on."""
        if len(self.kept) < KEPT_AT_ONCE:
            floor = self.floor()
            snapshot = self.db.snapshot()
            world = self.world_in(snapshot, floor)
            if world is None:
                snapshot.close()
                return
            self.kept.append((snapshot, world, time.monotonic() + self.rng.choice((0.05, 0.3, 2))))
        at = self.rng.randrange(len(self.kept))
        snapshot, world, until = self.kept[at]
        self.ask_all(snapshot, world, times, "kept snapshot")
        if time.monotonic() > until:
            snapshot.close()
            del self.kept[at]

    def world_in(self, snapshot: Any, floor: int) -> World | None:
        """The world that a new snapshot shows, by the clocks of both collections (R3)."""
        rows = [snapshot[kind.name].get(CLOCK) for kind in KINDS]
        self.tally.clocks += len(rows)
        ceiling = self.board[Board.BEGUN]
        worlds = [self.world_of(row, at, floor, ceiling) for at, row in enumerate(rows)]
        if None not in worlds and worlds[0] is not worlds[1]:
            self.wrong("clock", f"the clocks of one snapshot differ: {[shown(row) for row in rows]}")
        return worlds[0]

    def ask_all(self, snapshot: Any, world: World | None, times: int, where: str) -> None:
        if world is None:
            return
        for _ in range(times):
            at = self.rng.randrange(len(KINDS))
            rich = world[at].kind.rich
            name, ask = some_way(self.rng, rich) if self.rng.random() < 0.98 else ("scan all", scan_all)
            verdict = ask(self.rng, snapshot[KINDS[at].name], world[at])(world[at])
            self.count(name, where, verdict, f"step {world[at].step}")

    def from_a_kept_snapshot_as_if_now(self) -> None:
        """The control "kept": an answer that was right a moment ago."""
        with self.db.snapshot() as snapshot:
            for _ in range(10):
                time.sleep(0.01)
                self.look(snapshot[KINDS[0].name], 0)

    # --- the tally -----------------------------------------------------------------------------

    def count(self, name: str, where: str, verdict: Verdict, when: str) -> None:
        tally = self.tally
        tally.reads[name] += 1
        tally.where[where] += 1
        tally.asked[name] += verdict.asked
        tally.found[name] += verdict.found
        if verdict.wrong:
            self.wrong(name, f"{where}, {when}: {verdict.wrong}")

    def wrong(self, name: str, what: str) -> None:
        self.tally.wrong.append(f"{self.name}: {name}, {what}")


def together(
    db: vecdb.Database, board: Board, seed: int, names: list[str], way: str, pause: float = 0.0,
    rich: bool = False,
) -> list[Reader]:  # fmt: skip
    """Readers of one process, not started yet; `pause`: how long each rests between its turns."""
    history = History(seed, names, rich)
    return [Reader(name, db, board, history, seed, way, pause) for name in names]


def main() -> None:
    """A process of readers: `path board seed way rich options name...`; says its tally at the end."""
    path, board_path, seed, way, rich, options, *names = sys.argv[1:]
    with vecdb.open(path, **json.loads(options)) as db:
        readers = together(db, Board(Path(board_path)), int(seed), names, way, rich=rich == "True")
        threads = [threading.Thread(target=reader.run) for reader in readers]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        tally = Tally()
        for thread, reader in zip(threads, readers, strict=True):
            thread.join()
            tally.add(reader.tally)
    print(json.dumps(vars(tally)), flush=True)
