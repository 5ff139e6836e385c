"""A killed writer loses nothing that it acknowledged and leaves nothing half done.

A child writes and acknowledges each commit through a pipe; it is killed with SIGKILL at a random
moment, while it opens, writes, commits, folds or checkpoints. Then the file must hold exactly the
model after the last acknowledged commit, or after the one that was under way: every row, its
metadata, its vector, counts, exact and default searches, and `check()`. Rows are plain or rich: with
full text, a sparse vector and many vectors, which are compared and searched as well (tests/riches.py).

The harness is tested too: a writer that acknowledges before it commits must be seen to lose rows,
and one that commits in parts must be seen to leave halves. Figures and seed are printed with `-s`;
VECDB_KILL_SEED repeats a run's choices, VECDB_KILL9_CYCLES sets the long run's length.
"""

from __future__ import annotations

import os
import pickle
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import vecdb
from tests import child
from tests.deeds import Model, apply, calls, compare, create, searched

CYCLES_PER_FILE = 20  # then a new file, with other options
WRITER = "from tests.faults.killed_writer import main; main()"


@dataclass
class Tally:
    """What a run of cycles has shown."""

    seed: int
    cycles: int = 0
    acks: int = 0
    lost: int = 0
    torn: int = 0
    landed: int = 0  # commits that were under way when the kill came, and are there
    merging: int = 0  # kills that left a merge of full text under way
    asked: int = 0
    found: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        recall = self.found / max(1, self.asked)
        return (
            f"kill -9: {self.cycles} cycles, {self.acks} acknowledged commits, lost {self.lost}, "
            f"torn {self.torn}, wrong {len(self.wrong)}, unacknowledged but whole {self.landed}, "
            f"merges of full text under way {self.merging}, "
            f"recall@10 of default search {recall:.4f}, seed {self.seed}"
        )


class Run:
    """One file after the other, one killed writer after the other."""

    def __init__(self, folder: Path, way: str, rich: bool = False) -> None:
        self.folder = folder
        self.way = way
        self.rich = rich
        self.tally = Tally(int(os.environ.get("VECDB_KILL_SEED", time.time_ns() % 1_000_000)))
        self.rng = random.Random(self.tally.seed)
        self.db: vecdb.Database | None = None

    def cycles(self, count: int) -> Tally:
        """Kill `count` writers; a control stops at the first thing found."""
        for cycle in range(count):
            if cycle % CYCLES_PER_FILE == 0:
                self.new_file(cycle)
            elif self.rng.random() < 0.5:
                self.close()  # the next look opens the file; otherwise the open handle follows
            acked = self.killed()
            self.tally.cycles += 1
            self.tally.acks += acked - self.n
            self.db = self.db or vecdb.open(self.path)
            self.judge(self.db, acked)
            if self.way != "right" and self.tally.lost + self.tally.torn:
                break
        self.close()
        return self.tally

    def new_file(self, number: int) -> None:
        self.close()
        self.path = str(self.folder / f"{number}.vecdb")
        self.model: Model = {}
        self.n = 0  # the commit that the model stands at
        metric, dtype = self.rng.choice(["l2", "cosine", "dot"]), self.rng.choice(["f32", "f16"])
        create(self.path, metric, dtype, self.rich)

    def close(self) -> None:
        if self.db is not None:
            self.db.close()
            self.db = None

    def killed(self) -> int:
        """Start a writer, kill it, and return the last commit that it acknowledged."""
        rng = self.rng
        durability = rng.choice(["full", "relaxed"])
        writer = child.start(WRITER)
        assert writer.stdin is not None and writer.stdout is not None
        orders = (self.path, self.tally.seed, self.n, self.model, durability, self.way, self.rich)
        writer.stdin.write(pickle.dumps(orders))
        writer.stdin.close()
        said = b""
        if rng.random() < 0.9:
            said = writer.stdout.readline()
            assert said == b"ready\n", "the writer could not open the file"
            for _ in range(rng.choice((1, 2, 3, 4))):  # however slow the machine is
                said += writer.stdout.readline()
            time.sleep(rng.choice([0.01, 0.1, 0.4]) * rng.random())
        else:
            time.sleep(0.5 * rng.random())  # while it starts and opens
        assert writer.poll() is None, "the writer ended by itself; its own error is printed above"
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read()
        writer.wait()
        writer.stdout.close()
        numbers = [int(line) for line in said.split() if line != b"ready"]
        return max([self.n, *numbers])

    def judge(self, db: vecdb.Database, acked: int) -> None:
        """Move the model on to where the file stands, and compare them."""
        tally = self.tally
        with db.transaction():
            pass  # a commit that was killed between its last write and its announcement to readers
            # is announced by the next writer (LMDB's own recovery); from then on it is there
        numbers = [int(record.id) for record in db["log"]]
        reached = max(numbers, default=0)
        tally.torn += numbers != list(range(1, reached + 1))
        tally.lost += max(0, acked - reached)
        tally.landed += reached - acked == 1
        if not self.n <= reached <= acked + 1:
            tally.wrong.append(f"the file stands at commit {reached}; acknowledged were {acked}")
        for number in range(self.n + 1, reached + 1):
            for call in calls(tally.seed, number, self.model):
                apply(call, self.model)
        self.n = reached
        if self.rich:
            with db["rows"]._reading() as (_, view):
                tally.merging += view.state.text.merge is not None
        differences = compare(db["rows"], self.model, self.rich)
        tally.torn += bool(differences)
        tally.wrong += differences
        tally.wrong += [str(problem) for problem in db.check()]
        if not differences:
            asked, found, wrong = searched(db["rows"], self.model, self.rng, self.rich)
            tally.asked += asked
            tally.found += found
            tally.wrong += wrong


def assert_sound(tally: Tally) -> None:
    print(tally)
    assert not tally.wrong, tally.wrong[:10]
    assert (tally.lost, tally.torn) == (0, 0), tally
    assert tally.acks > tally.cycles, "so few commits were acknowledged that nothing was shown"
    assert tally.found >= 0.95 * tally.asked, tally


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_no_acknowledged_commit_is_lost_and_none_is_half_there(tmp_path: Path, rich: bool) -> None:
    assert_sound(Run(tmp_path, "right", rich).cycles(10))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_two_hundred_kills_lose_nothing(tmp_path: Path, rich: bool) -> None:
    tally = Run(tmp_path, "right", rich).cycles(int(os.environ.get("VECDB_KILL9_CYCLES", "200")))
    assert_sound(tally)
    assert tally.merging or not rich, "no kill left a merge of full text to those who come after"


def test_control_a_writer_that_acknowledges_early_is_seen_to_lose_rows(tmp_path: Path) -> None:
    tally = Run(tmp_path, "early").cycles(60)
    print("control, acknowledged early:", tally)
    assert tally.lost > 0, "the harness does not notice lost commits"


def test_control_a_writer_that_commits_in_parts_is_seen_to_leave_halves(tmp_path: Path) -> None:
    tally = Run(tmp_path, "split").cycles(60)
    print("control, committed in parts:", tally)
    assert tally.torn > 0, "the harness does not notice torn commits"
