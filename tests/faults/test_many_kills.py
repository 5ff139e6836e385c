"""Several processes on one file, and any of them may be killed: no commit is lost, none is half there.

Three to five processes with random options work on one file: writers commit, abort and optimise,
readers hold snapshots. In each cycle one of them is killed with SIGKILL, aimed at what it says that it
does (opens, waits for the writer lock, writes, commits, holds a snapshot), and another takes its place.
Between these two every survivor answers at once, writers commit at once, and when all stand still
everybody answers again. All answers are compared with a dict that is replayed from (seed, serial). Rows are
plain or rich: with full text, a sparse vector and many vectors, which all of them search (tests/riches.py).

What is counted: acknowledged commits that are not in the file, or are another's (lost); a log with
holes, or rows that are not those of the last serial (torn); wrong answers; waits that hit a timeout.
The controls acknowledge before the commit, and commit in parts. VECDB_KILL_SEED repeats a run's choices,
VECDB_KILL_CYCLES sets its length.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.deeds import Model
from tests.faults.killed_worker import Kind, Way, compare, create, look, replay
from tests.nursery import Nursery, Sprout

CYCLES_PER_FILE = 25  # then a new file, of another kind
PATIENCE = 60.0  # seconds; a process that says nothing for so long hangs
AIM = 1.0  # seconds that a kill waits for what it is aimed at
WRITING = ("waiting", "inside", "committing", "ack", "anything")
READING = ("snapshot", "snapshot", "anything")


@dataclass
class Tally:
    """What a run of cycles has shown."""

    seed: int
    cycles: int = 0
    acks: int = 0
    lost: int = 0
    torn: int = 0
    landed: int = 0  # commits that nobody acknowledged and that are there, whole
    answers: int = 0
    asked: int = 0
    found: int = 0
    busy: int = 0
    longest: float = 0.0  # seconds that a writer waited for the lock, of those who were asked
    killed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        recall = self.found / max(1, self.asked)
        while_ = ", ".join(f"{count} {what}" for what, count in sorted(self.killed.items()))
        return (
            f"kills of any of several processes: {self.cycles} cycles ({while_}), {self.acks} "
            f"acknowledged commits, lost {self.lost}, torn {self.torn}, wrong {len(self.wrong)}, "
            f"unacknowledged but whole {self.landed}; {self.answers} answers of survivors, recall@10 "
            f"{recall:.4f}; waits that hit the timeout {self.busy}, longest wait for the lock "
            f"{self.longest:.3f} s; seed {self.seed}"
        )


@dataclass
class Worker:
    """One of the processes, as the judge sees it."""

    way: Way
    sprout: Sprout


class Run:
    """One file after the other; on each, one kill after the other."""

    def __init__(self, folder: Path, nursery: Nursery, how: str = "right", rich: bool = False) -> None:
        self.folder = folder
        self.rich = rich
        self.nursery = nursery
        self.how = how
        self.tally = Tally(int(os.environ.get("VECDB_KILL_SEED", time.time_ns() % 1_000_000)))
        self.rng = random.Random(self.tally.seed)
        self.workers: list[Worker] = []
        self.db: vecdb.Database | None = None
        self.started = 0

    def cycles(self, count: int) -> Tally:
        """Kill so many; a control stops at the first thing found."""
        try:
            for cycle in range(count):
                if cycle % CYCLES_PER_FILE == 0:
                    self.end_file()
                    self.new_file(cycle)
                self.cycle()
                self.tally.cycles += 1
                if self.how != "right" and self.tally.lost + self.tally.torn:
                    return self.tally
            self.end_file()
            return self.tally
        finally:
            self.close()
            for worker in self.workers:
                worker.sprout.kill()
                self.nursery.wait(worker.sprout)

    # --- files -----------------------------------------------------------------------------------

    def new_file(self, number: int) -> None:
        rng = self.rng
        self.path = str(self.folder / f"{number}.vecdb")
        dtype, metric = rng.choice(["f32", "f16", "i8"]), rng.choice(["l2", "cosine", "dot"])
        self.kind = Kind(metric, dtype, rng.random() < 0.4 and not self.rich, self.rich)
        self.model: Model = {}
        self.n = 0  # the commit that the model stands at
        self.acked: dict[int, int] = {}  # serial → the process that acknowledged it
        create(self.path, self.kind)
        for _ in range(rng.randint(3, 5)):
            self.start()

    def end_file(self) -> None:
        """All end by themselves; what they leave is sound, and nobody's lock is left."""
        if not self.workers:
            return
        for worker in self.workers:
            worker.sprout.line.put("stop")
        for worker in self.workers:
            self.until_end(worker)
            status = self.nursery.wait(worker.sprout)
            if status:
                self.tally.wrong.append(f"process {worker.way} ended with {status}")
        self.workers = []
        self.judge()
        self.close()
        with vecdb.open(self.path, timeout=0) as db:
            self.tally.wrong += [str(problem) for problem in db.check()]
            db.compact()
            self.tally.wrong += compare(db["rows"], self.model, self.kind)
        os.unlink(self.path)

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None

    # --- one cycle -------------------------------------------------------------------------------

    def cycle(self) -> None:
        victim = self.rng.choice([w for w in self.workers if w.way.writes or self.how == "right"])
        self.kill(victim)
        self.answers("at once")
        self.answers("settled")
        if self.rng.random() < 0.3:
            self.close()  # the next look opens the file; otherwise the open handle follows
        self.judge()
        if self.how != "right" and self.tally.lost + self.tally.torn:
            return
        for worker in self.workers:
            worker.sprout.line.put("go")
        self.start()

    def start(self) -> None:
        """Another process, with options of its own; two writers at least, one in a control."""
        rng = self.rng
        writers = sum(worker.way.writes for worker in self.workers)
        writes = rng.random() < 0.5 if writers >= 2 else True
        if self.how != "right":
            writes = not writers
        self.started += 1
        way = Way(
            self.started, writes, "rw" if writes else rng.choice(["rw", "r"]),
            rng.choice(["full", "relaxed"]), rng.random() < 0.5, rng.choice([1, 2]),
            rng.choice([10.0, 30.0]), self.how,
        )  # fmt: skip
        orders = (self.path, self.kind, way, self.tally.seed, self.n, self.model)
        sprout = self.nursery.start("tests.faults.killed_worker:main", *orders)
        self.workers.append(Worker(way, sprout))

    def kill(self, victim: Worker) -> None:
        """Kill it while it does what it is aimed at, and hear what it said to the last."""
        rng = self.rng
        aim = rng.choice(WRITING if victim.way.writes else READING)
        if self.how != "right":
            aim = {"early": "ack", "split": "half"}[self.how]
        elif rng.random() < 0.1:
            aim = "opening"
            self.workers.remove(victim)
            victim.sprout.line.put("stop")
            self.until_end(victim)
            self.nursery.wait(victim.sprout)
            self.start()  # the newest is the one that is killed
            victim = self.workers[-1]
        while self.heard(victim, 0):
            pass  # old news
        until = time.monotonic() + (0 if aim == "anything" else AIM)
        doing = ""
        while doing != aim and (left := until - time.monotonic()) > 0:
            doing = self.heard(victim, left)
        time.sleep(rng.choice([0, 0.0003, 0.001, 0.005]) * rng.random())
        victim.sprout.kill()
        self.until_end(victim)
        self.workers.remove(victim)
        status = self.nursery.wait(victim.sprout)
        if status != -9:
            self.tally.wrong.append(f"process {victim.way} ended by itself, with {status}")
        self.tally.killed[doing or "anything"] += 1

    def heard(self, worker: Worker, timeout: float) -> str:
        """The next thing that a process says within so long, noted; "" for nothing."""
        if not select.select([worker.sprout.line.end], [], [], timeout)[0]:
            return ""
        return self.noted(worker, worker.sprout.line.get(PATIENCE))

    def until_end(self, worker: Worker) -> None:
        try:
            while True:
                self.noted(worker, worker.sprout.line.get(PATIENCE))
        except EOFError:
            pass

    def noted(self, worker: Worker, said: tuple[Any, ...]) -> str:
        what, *rest = said
        tally = self.tally
        if what == "ack":
            (n,) = rest
            tally.acks += 1
            tally.lost += n in self.acked  # two processes say that it is theirs
            self.acked[n] = worker.way.number
        elif what == "busy":
            tally.busy += 1
            tally.wrong.append(f"process {worker.way} hit its timeout: {rest[0]}")
        elif what == "wrong":
            tally.wrong += rest[0]
        elif what == "answer":
            _, asked, found, wrong, waited = rest
            tally.answers += 1
            tally.asked += asked
            tally.found += found
            tally.wrong += wrong
            tally.longest = max(tally.longest, waited)
        return str(what)

    # --- answers ---------------------------------------------------------------------------------

    def answers(self, order: str) -> None:
        """Every survivor answers: the first time at once, while the others may still write."""
        for worker in self.workers:
            worker.sprout.line.put(order)
        for worker in self.workers:
            said = ""
            while said != "answer":
                try:
                    said = self.noted(worker, worker.sprout.line.get(PATIENCE))
                except TimeoutError:
                    raise AssertionError(f"process {worker.way} hangs; {self.tally}") from None

    def judge(self) -> None:
        """Move the model on to where the file stands, and compare them; nobody writes meanwhile."""
        tally = self.tally
        self.db = self.db or vecdb.open(self.path)
        with self.db.transaction():
            pass  # announces a commit that was killed between its last write and its announcement
        made = {int(record.id): record.metadata["by"] for record in self.db["log"]}
        reached = max(made, default=0)
        tally.torn += sorted(made) != [*range(1, reached + 1)]
        tally.lost += sum(made.get(n) != number for n, number in self.acked.items())
        tally.landed += sum(n not in self.acked for n in made if n > self.n)
        replay(tally.seed, self.model, self.n, reached)
        self.n = max(self.n, reached)
        self.acked.clear()
        differences = compare(self.db["rows"], self.model, self.kind)
        tally.torn += bool(differences)
        tally.wrong += differences
        if not differences:
            tally.wrong += look(self.db["rows"], self.model, self.kind, self.rng).wrong


def assert_sound(tally: Tally) -> None:
    print(tally)
    assert not tally.wrong, tally.wrong[:10]
    assert (tally.lost, tally.torn, tally.busy) == (0, 0, 0), tally
    assert tally.acks > tally.cycles, "so few commits were acknowledged that nothing was shown"
    assert tally.found >= 0.95 * tally.asked, tally


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_whoever_is_killed_the_others_go_on_with_every_commit(
    tmp_path: Path, nursery: Nursery, rich: bool
) -> None:
    assert_sound(Run(tmp_path, nursery, rich=rich).cycles(12))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_a_thousand_kills_lose_nothing(tmp_path: Path, nursery: Nursery, rich: bool) -> None:
    assert_sound(Run(tmp_path, nursery, rich=rich).cycles(int(os.environ.get("VECDB_KILL_CYCLES", "1000"))))


@pytest.mark.parametrize("killed", [True, False])
def test_a_killed_readers_snapshot_holds_no_pages(
    tmp_path: Path, nursery: Nursery, killed: bool
) -> None:
    """The control is a reader that lives: the file must grow beside it."""
    path = str(tmp_path / "held.vecdb")
    with vecdb.open(path, durability="relaxed", upkeep=False) as db:
        c = db.create_collection("c", dim=8)

        def replaced(commits: int) -> int:
            for n in range(commits):
                c.upsert(n % 50, [1.0 + n % 7] * 8, metadata={"n": n})
            return os.stat(path).st_size

        replaced(300)
        reader = nursery.start("tests.faults.killed_worker:hold_a_snapshot", path)
        assert reader.line.get(PATIENCE) == "held"
        if killed:
            reader.kill()
            assert nursery.wait(reader) == -9
        before, after = replaced(20), replaced(400)
        print(f"{'killed' if killed else 'living'} reader: {before:,} bytes, then {after:,}")
        assert (after < 4 * before) == killed
        assert db.stats()["readers"] == (0 if killed else 1)
        if not killed:
            reader.kill()
            nursery.wait(reader)


def test_control_an_early_acknowledgement_is_seen_as_lost(tmp_path: Path, nursery: Nursery) -> None:
    tally = Run(tmp_path, nursery, "early").cycles(100)
    print("control, acknowledged early:", tally)
    assert tally.lost > 0, "the harness does not notice lost commits"


def test_control_a_commit_in_parts_is_seen_as_torn(tmp_path: Path, nursery: Nursery) -> None:
    tally = Run(tmp_path, nursery, "split").cycles(100)
    print("control, committed in parts:", tally)
    assert tally.torn > 0, "the harness does not notice torn commits"
