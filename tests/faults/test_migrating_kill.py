"""Whoever gives rows other vectors may be killed at any moment: called again, it goes on; nothing is lost.

One process applies an adapter, or encodes rows anew, rolls back or drops what was before, and is killed with
SIGKILL again and again, at steps and between them; another writes and searches all the while (its answers must
be those of the vectors before, or of those after, never of some of each), and a third checks the file. A
migration that was killed is called again until it is done. The controls switch too early, and skip rows: both
must be noticed. VECDB_KILL_SEED repeats a run's choices, VECDB_MIGRATING_KILLS sets the long run's length.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import vecdb
from tests.migrating import FIELD
from tests.nursery import Nursery, Sprout

DIM = 24
PATIENCE = 120.0
STEP = 16  # rows of a step: some thirty of them


@dataclass
class Tally:
    """What a run has shown."""

    seed: int
    kills: int = 0
    midway: int = 0  # kills that left rows of both kinds
    done: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    looks: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.midway} of them with rows of both kinds; done {dict(self.done)} in calls "
            f"{dict(self.calls)}; beside them {self.commits} commits and {self.looks} looks: wrong {len(self.wrong)}; "
            f"seed {self.seed}"
        )


class Run:
    """One file: a process that uses it, and migrations that are killed."""

    def __init__(self, nursery: Nursery, path: Path, seed: int, verb: str, way: str = "right") -> None:
        self.nursery, self.path, self.verb, self.way = nursery, str(path), verb, way
        self.rng = random.Random(seed)
        self.tally = Tally(seed)
        self.adapter = seed
        self.user = nursery.start(
            "tests.faults.killed_migrator:use", self.path, seed, verb == "reembed", DIM
        )
        assert self.user.line.get(PATIENCE) == ("ready",)
        self.db = vecdb.open(self.path)

    def go(self, rounds: int, most: int = 10) -> Tally:
        """So many migrations, each killed up to `most` times."""
        for _ in range(rounds):
            self.adapter += 1
            self.ask("adapter", self.adapter)
            expected = [0]
            self.until_done(self.verb, most)
            self.ask("look")
            if self.tally.wrong:
                break
            expected.append(1)
            if self.rng.random() < 0.7 or self.verb == "reembed":
                self.until_done("roll back", most)
                expected.append(0)
            seen = self.ask("look")
            if self.way == "right" and seen[-len(expected):] != expected:
                self.tally.wrong.append(f"vectors were seen in the order {seen}, not {expected}")
            if self.tally.wrong or expected[-1]:
                break  # an adapter that stays: the user's dict knows one at a time
        self.stop()
        return self.tally

    def until_done(self, verb: str, most: int) -> None:
        kills = 0
        while not self.killed(verb, kill=kills < most):
            kills += 1
            self.tally.kills += 1
            self.look(verb)
        self.tally.done[verb] += 1
        self.look(verb)

    def killed(self, verb: str, *, kill: bool) -> bool:
        """Call a verb and kill it on its way; whether it came to its end."""
        self.tally.calls[verb] += 1
        sprout = self.nursery.start(
            "tests.faults.killed_migrator:migrate", self.path, verb, self.adapter, DIM, self.way, STEP
        )
        steps = self.rng.choice([0, 1, 2, 5, 9]) if kill else 1 << 30
        ended = self.wait(sprout, steps)
        if not ended and kill:
            time.sleep(self.rng.choice([0, 0.001, 0.01]) * self.rng.random())
            sprout.kill()
        status = self.nursery.wait(sprout)
        if ended:
            assert status == 0
        return ended

    def wait(self, sprout: Sprout, steps: int) -> bool:
        """Until so many steps were told of; whether it was done before."""
        while steps >= 0:
            try:
                said = sprout.line.get(PATIENCE)
            except EOFError:
                raise AssertionError("the migration ended by itself; its own error is printed above") from None
            if said == ("done",):
                return True
            steps -= said[0] in ("step", "ready")
        return False

    def look(self, verb: str) -> None:
        """The file is whole, whoever has been killed."""
        if self.rng.random() < 0.3:
            self.db.close()
            self.db = vecdb.open(self.path)
        problems = self.db.check()
        if problems:
            self.tally.wrong.append(f"check after {verb}: {[str(each) for each in problems[:3]]}")
            return
        figures = self.db["c"].stats()["vectors"][FIELD]
        if "next" in figures:
            self.tally.midway += 0 < figures["next"]["rows"] < figures["rows"]

    def ask(self, *order: object) -> list[int]:
        self.user.line.put(order)
        _, seen, self.tally.commits, self.tally.looks, wrong = self.user.line.get(PATIENCE)
        self.tally.wrong += [each for each in wrong if each not in self.tally.wrong]
        return list(seen)

    def stop(self) -> None:
        self.ask("stop")
        assert self.nursery.wait(self.user) == 0
        problems = self.db.check()
        self.tally.wrong += [str(each) for each in problems[:3]]
        self.db.close()


def seeded() -> int:
    return int(os.environ.get("VECDB_KILL_SEED", time.time_ns() % 1_000_000))


@pytest.mark.parametrize("verb", ["apply", "reembed"])
def test_a_killed_migration_goes_on(tmp_path: Path, verb: str) -> None:
    with Nursery() as nursery:
        tally = Run(nursery, tmp_path / "k.vecdb", seeded(), verb).go(1, most=4)
    print(f"{verb}: {tally}")
    assert tally.wrong == [] and tally.done[verb] == 1


@pytest.mark.slow
@pytest.mark.timeout(6000)
@pytest.mark.parametrize("verb", ["apply", "reembed"])
def test_many_kills(tmp_path: Path, verb: str) -> None:
    seed, kills, runs = seeded(), int(os.environ.get("VECDB_MIGRATING_KILLS", "100")), 0
    together = Tally(seed)
    with Nursery() as nursery:
        while together.kills < kills:
            tally = Run(nursery, tmp_path / f"{runs}.vecdb", seed + 1000 * runs, verb).go(3)
            assert tally.wrong == [], (tally.seed, tally.wrong)
            together.kills += tally.kills
            together.midway += tally.midway
            together.done += tally.done
            together.calls += tally.calls
            together.commits += tally.commits
            together.looks += tally.looks
            runs += 1
    print(f"{verb}, {runs} files: {together}")
    assert together.midway > kills / 4


@pytest.mark.parametrize("way", ["early", "skips"])
def test_control_what_is_done_wrong_is_noticed(tmp_path: Path, way: str) -> None:
    with Nursery() as nursery:
        tally = Run(nursery, tmp_path / "k.vecdb", 7, "apply", way).go(1, most=1)
    print(f"control, {way}: {tally.wrong[:1]!r:.300}")
    assert tally.wrong, f"nobody noticed a migration that {way}"
