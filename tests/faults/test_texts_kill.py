"""A writer that is killed with SIGKILL while it folds and merges segments leaves full text whole.

The file then says what the reference says after the last commit that landed, to a process that had it open
all along and to one that opens it; `check` finds nothing, and the next writer goes on with the merge.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

import vecdb
from tests import child
from tests.wording import LANGUAGE, Reference, apply, compare, deed

WRITER = "from tests.faults.killed_texts import main; main()"


def lives(path: Path, cycles: int, seed: int) -> tuple[int, int]:
    """(commits, merges that were under way at a kill) of so many killed writers."""
    rng = random.Random(seed)
    with vecdb.open(path, durability="relaxed") as db:
        fulltext = {"text": vecdb.FullText(language=LANGUAGE), "title": vecdb.FullText()}
        c = db.create_collection("words", dim=2, fulltext=fulltext)
        db.create_collection("log", dim=1)
        model = Reference(c.schema)
    held = vecdb.open(path, upkeep=False)
    number = merging = 0
    for _ in range(cycles):
        writer = child.start(WRITER, path, seed, number)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(rng.choice((1, 3, 20))):
            writer.stdout.readline()
        time.sleep(0.05 * rng.random())
        writer.send_signal(signal.SIGKILL)
        acked = [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        writer.stdout.close()
        with held.transaction():
            pass
        reached = max((int(r.id) for r in held["log"]), default=0)
        assert reached >= max([number, *acked])
        for each in range(number + 1, reached + 1):
            apply(model, deed(seed, each, sorted(model.rows)))
        number = reached
        compare(held["words"], model, rng, 3)
        with vecdb.open(path, mode="r") as fresh:
            compare(fresh["words"], model, rng, 2)
            assert fresh.check() == []
            with fresh["words"]._reading() as (_, view):
                merging += view.state.text.merge is not None
    held.close()
    return number, merging


def test_killed_while_folding_and_merging(tmp_path: Path) -> None:
    seed = int(os.environ.get("VECDB_KILL_SEED", time.time_ns() % 1_000_000))
    commits, merging = lives(tmp_path / "k.vecdb", 5, seed)
    print(f"5 kills, {commits} commits, {merging} with a merge under way, seed {seed}")


@pytest.mark.slow
def test_killed_often(tmp_path: Path) -> None:
    seed = int(os.environ.get("VECDB_KILL_SEED", time.time_ns() % 1_000_000))
    commits, merging = lives(tmp_path / "k.vecdb", 60, seed)
    print(f"60 kills, {commits} commits, {merging} with a merge under way, seed {seed}")
    assert merging > 0
