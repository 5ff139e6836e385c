"""A standing search loses nothing, and gives nothing twice that was acknowledged, whoever is killed.

Two processes commit at random while a third watches, is killed with SIGKILL at random moments and started
again. Then every version of a row that stands at the end and matches must have been given out, and no
version in a batch whose `ack` returned may have been given out again. The harness is tested too: a watcher
that acknowledges before it has told what it got must be seen to lose rows, and one that never acknowledges
to get rows twice.

VECDB_WATCH_SEED repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import vecdb
from tests import child
from tests.faults import watching
from vecdb import F

WRITER = "from tests.faults.watching import write; write()"
WATCHER = "from tests.faults.watching import watch; watch()"
Version = tuple[int, int]  # id, its number


@dataclass
class Told:
    """What all watchers said, one after the other."""

    given: list[Version] = field(default_factory=list)
    acknowledged: set[Version] = field(default_factory=set)
    twice: list[Version] = field(default_factory=list)  # given again after they were acknowledged
    kills: int = 0
    acks: int = 0

    def take(self, said: bytes) -> None:
        """One watcher's lines; a batch and those before it are acknowledged by "ack"."""
        mine: set[Version] = set()
        for line in said.split(b"\n")[:-1]:  # the last may be half
            words = line.split()
            if words[:1] == [b"got"]:
                each = int(words[1]), int(words[2])
                self.given.append(each)
                self.twice += [each] if each in self.acknowledged else []
                mine.add(each)
            elif words == [b"ack"]:
                self.acks += 1
                self.acknowledged |= mine


def run(folder: Path, commits: int, kills: int, way: str = "right") -> tuple[Told, set[Version]]:
    """What the watchers said, and the versions that match at the end."""
    seed = int(os.environ.get("VECDB_WATCH_SEED", time.time_ns() % 1_000_000))
    rng = random.Random(seed)
    path = str(folder / "watched.vecdb")
    with vecdb.open(path) as db:
        rows = db.create_collection("rows", dim=2)
        db.searches.save("news", rows, [1, 0], where=F.m == 1).watch("app")
    told = Told()
    writers = [child.start(WRITER, path, seed, n, commits // 2) for n in range(2)]
    while told.kills < kills:
        watcher = child.start(WATCHER, path, rng.random(), way)
        assert watcher.stdout is not None
        said = watcher.stdout.readline()
        assert said == b"ready\n", "the watcher could not begin; its own error is printed above"
        time.sleep(0.6 * rng.random())
        assert watcher.poll() is None, "the watcher ended by itself; its own error is printed above"
        watcher.kill()
        told.take(said + watcher.stdout.read())
        watcher.wait()
        watcher.stdout.close()
        told.kills += 1
    made = [_written(writer) for writer in writers]
    last = child.start(WATCHER, path, 0, "drain")
    told.take(child.end(last))
    everything = {each for one in made for each in one}
    assert set(told.given) <= {(id, v) for id, v, m in everything if m}, "given out, and no match"
    with vecdb.open(path) as db:
        standing = {(row.id, row.metadata["v"]) for row in db["rows"] if watching.matches(row.metadata)}
        assert db.check() == []
    print(f"watch: seed {seed}, {commits} commits, {told.kills} kills, {len(told.given)} given, "
          f"{len(told.acknowledged)} acknowledged by {told.acks} acks, {len(standing)} stand")  # fmt: skip
    return told, standing


def _written(writer: subprocess.Popen[bytes]) -> list[tuple[int, int, int]]:
    out = child.end(writer, 120)
    return [(int(a), int(b), int(c)) for a, b, c in (line.split() for line in out.splitlines())]


def sound(told: Told, standing: set[Version]) -> None:
    assert standing <= set(told.given), sorted(standing - set(told.given))[:5]
    assert not told.twice, told.twice[:5]
    assert told.acks, "nothing was acknowledged, so that nothing was shown"


def test_each_row_comes_at_least_once_and_no_acknowledged_one_again(tmp_path: Path) -> None:
    sound(*run(tmp_path, commits=40, kills=3))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(5))
def test_a_hundred_commits_and_ten_kills(tmp_path: Path, number: int) -> None:
    sound(*run(tmp_path, commits=100, kills=10))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_control_a_watcher_that_acknowledges_early_is_seen_to_lose_rows(tmp_path: Path) -> None:
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        told, standing = run(folder, commits=100, kills=10, way="early")
        if standing - set(told.given):
            return
    raise AssertionError("the harness does not notice lost rows")


def test_control_a_watcher_that_never_acknowledges_gets_rows_twice(tmp_path: Path) -> None:
    told, standing = run(tmp_path, commits=40, kills=3, way="forgetful")
    assert standing <= set(told.given)
    assert len(told.given) > len(set(told.given)), "the harness does not notice rows that come twice"
