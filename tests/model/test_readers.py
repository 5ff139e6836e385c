"""One writer and eight readers, threads and processes mixed: every read is right for one commit.

The writer follows a recipe (tests/recipe.py) over two collections: it adds, replaces, patches, moves
and deletes rows, by ids, by filters and by whole clusters, in commits of 1 to 200 rows and at times of
all there are, aborts others, optimizes. The readers (tests/beside.py) know the recipe, so each of
their reads is compared with a model at the commit that it showed: rows, counts, scans, facets, exact
searches with brute force, default and filtered ones row by row with their recall summed, in snapshots
that are kept while the writer goes on as well. Rows are plain or rich: with full text, sparse and many vectors,
which are asked by words, MaxSim and fusions (tests/riches.py).

The harness is tested too: a writer that commits a step in two parts must be noticed, and readers that
take their commit from one snapshot and their rows from another, or show the past for the present.
Counts and seed are printed with `-s`; VECDB_READERS_SEED repeats the writer's choices, and
VECDB_READERS_SECONDS sets the length of the long run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child, recipe
from tests.beside import Board, Tally, together
from tests.reads import row_is, shown
from tests.recipe import CLOCK, KINDS, World
from tests.wording import hurried

READERS = "from tests.beside import main; main()"
HERE = ["here 1", "here 2", "here 3"]  # threads of the writer's process
THERE: list[tuple[dict[str, Any], list[str]]] = [  # processes: how they open, and their threads
    ({"mode": "r"}, ["there 1"]),
    ({"upkeep": False, "durability": "relaxed"}, ["there 2", "there 3"]),
    ({"durability": "relaxed"}, ["there 4", "there 5"]),
]
SWITCH_S = 0.0001  # else each lock that the writer leaves costs it several times five milliseconds
LAST_REPORT_S = 60
LEAST_STEPS = 12
PAUSE_S = 0.03  # of readers in the writer's process: they hold the interpreter, and it shall write


@dataclass
class Written:
    """What the writer did."""

    steps: int = 0
    rows: int = 0
    aborted: int = 0
    optimized: int = 0
    deeds: Counter[str] = field(default_factory=Counter)


class Writer:
    """Follows the recipe for some time; `way` "split" commits some steps in two parts."""

    def __init__(self, db: vecdb.Database, board: Board, seed: int, way: str, rich: bool) -> None:
        self.db, self.board, self.seed, self.way, self.rich = db, board, seed, way, rich
        self.rng = random.Random(seed)  # what is no part of the recipe
        self.world = recipe.empty(rich)
        self.did = Written()

    def write_until(self, end: float) -> None:
        """At least some steps, however slow the machine is."""
        while time.monotonic() < end or self.did.steps < LEAST_STEPS:
            self.write()
            chance = self.rng.random()
            if chance < 0.03:
                self.abort()
            elif chance < 0.035:
                self.optimize()
            if chance > 0.5:  # quick succession, then a while of another length
                time.sleep(self.rng.random() * 0.03)

    def write(self) -> None:
        deeds, after = recipe.step(self.seed, self.world)
        n = after[0].step
        self.board[Board.BEGUN] = n
        if self.way == "split" and len(deeds) > 1:
            with self.db.transaction():
                self.perform(deeds.pop(0), n)
            time.sleep(0.01)
        with self.db.transaction():
            for deed in deeds:
                self.perform(deed, n)
            for kind in KINDS:
                self.db[kind.name].update(CLOCK, metadata={"clock": n})
        self.board[Board.COMMITTED] = n
        self.world = after
        self.did.steps += 1

    def perform(self, deed: recipe.Deed, n: int) -> None:
        recipe.perform(deed, n, self.db[KINDS[deed.kind].name], self.rich)
        self.did.deeds[deed.verb] += 1
        self.did.rows += len(deed.numbers)

    def abort(self) -> None:
        """The deeds of another run's step, which nobody may ever see."""
        deeds, _ = recipe.step(self.seed + 1, self.world)
        try:
            with self.db.transaction():
                for deed in deeds:
                    recipe.perform(deed, 10**9, self.db[KINDS[deed.kind].name], self.rich)
                for kind in KINDS:
                    self.db[kind.name].update(CLOCK, metadata={"clock": 10**9})
                raise InterruptedError
        except InterruptedError:
            self.did.aborted += 1

    def optimize(self) -> None:
        self.db[self.rng.choice(KINDS).name].optimize()
        self.did.optimized += 1


@dataclass
class Run:
    """What a run has shown."""

    seed: int
    seconds: float
    tally: Tally
    did: Written
    problems: list[str]

    def __str__(self) -> str:
        tally, did = self.tally, self.did
        recalls = {name: f"{tally.found[name] / asked:.4f}" for name, asked in tally.asked.items() if asked}
        return (
            f"{len(HERE) + sum(len(names) for _, names in THERE)} readers beside a writer, {self.seconds:.0f} s, "
            f"seed {self.seed}: {tally.reads.total():,} reads compared, differences {len(tally.wrong)}\n"
            f"  reads: {dict(tally.reads.most_common())}\n"
            f"  shown by: {dict(tally.where)}; {tally.between:,} while a commit came; "
            f"{tally.clocks:,} looks at the clock besides\n"
            f"  writer: {did.steps:,} commits, {did.rows:,} rows by id, {dict(did.deeds)}, "
            f"{did.aborted} aborted, {did.optimized} optimized\n"
            f"  recall@10 {tally.recall():.4f}, by kind {recalls}"
        )


def run(
    folder: Path, seconds: float, reader_way: str = "right", writer_way: str = "right", rich: bool = False
) -> Run:
    """Readers in place, then the writer; then everything is looked at once more."""
    seed = int(os.environ.get("VECDB_READERS_SEED", time.time_ns() % 1_000_000))
    path, board = str(folder / "r.vecdb"), Board(folder / "board")
    recipe.create(path, rich)
    children = [start(path, folder, seed, reader_way, rich, *how) for how in THERE]
    tally, switching = Tally(), sys.getswitchinterval()
    with vecdb.open(path, durability="relaxed") as db:
        sys.setswitchinterval(SWITCH_S)
        readers = together(db, board, seed, HERE, reader_way, PAUSE_S, rich)
        threads = [threading.Thread(target=reader.run, daemon=True) for reader in readers]
        writer = Writer(db, board, seed, writer_way, rich)
        try:
            for thread in threads:
                thread.start()
            for process in children:
                assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            begun = time.monotonic()
            writer.write_until(begun + seconds)
            took = time.monotonic() - begun
        finally:
            board[Board.STOP] = 1
            sys.setswitchinterval(switching)
        for thread, reader in zip(threads, readers, strict=True):
            thread.join()
            tally.add(reader.tally)
        for process in children:
            tally.add(Tally.parse(child.end(process, LAST_REPORT_S)))
        problems = [str(problem) for problem in db.check()] if writer_way == "right" else []
        problems += differences(db, writer.world)
    return Run(seed, took, tally, writer.did, problems)


def start(
    path: str, folder: Path, seed: int, way: str, rich: bool, options: dict[str, Any], names: list[str]
) -> subprocess.Popen[bytes]:
    return child.start(READERS, path, folder / "board", seed, way, rich, json.dumps(options), *names)


def differences(db: vecdb.Database, world: World) -> list[str]:
    """Every row at the end."""
    wrong = []
    for table in world:
        rows = {record.id: shown(record) for record in db[table.kind.name]}
        if len(rows) != table.live.sum() + 1:
            wrong.append(f"{len(rows)} rows in {table.kind.name!r}")
        for number, id in enumerate(table.kind.ids):
            if not row_is(rows.get(id), number, table):
                wrong.append(f"{id!r} is {rows.get(id)}")
    return wrong


def assert_sound(run: Run) -> None:
    print(run)
    assert not run.tally.wrong, run.tally.wrong[:5]
    assert not run.problems, run.problems[:5]
    assert run.tally.recall() >= 0.95, run
    for name in ("alone", "snapshot", "kept snapshot"):
        assert run.tally.where[name], f"no read {name}"


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_every_read_beside_a_writer_is_right_for_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rich: bool
) -> None:
    if rich:
        hurried(monkeypatch.setattr)
    assert_sound(run(tmp_path, 7, rich=rich))


@pytest.mark.slow
@pytest.mark.timeout(6000)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_a_million_reads_beside_a_writer_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rich: bool
) -> None:
    if rich:
        hurried(monkeypatch.setattr)
    assert_sound(run(tmp_path, float(os.environ.get("VECDB_READERS_SECONDS", "600")), rich=rich))


def test_control_a_writer_that_commits_a_step_in_two_parts_is_noticed(tmp_path: Path) -> None:
    found = run(tmp_path, 3, writer_way="split")
    print(f"control, split steps: {len(found.tally.wrong)} differences in {found.tally.reads.total():,} reads")
    assert found.tally.wrong, "the readers do not notice a commit that is half there"


@pytest.mark.parametrize("way", ["two snapshots", "kept"])
def test_control_a_reader_that_mixes_commits_is_noticed(tmp_path: Path, way: str) -> None:
    found = run(tmp_path, 2, reader_way=way)
    print(f"control, readers {way!r}: {len(found.tally.wrong)} differences")
    assert found.tally.wrong, "the readers do not notice that their step and their rows differ"


def test_worlds_are_the_same_for_whoever_follows_the_recipe() -> None:
    """What all of it rests on: the recipe is a function of its seed."""
    one, other = recipe.empty(), recipe.empty()
    most = [0, 0]
    for _ in range(300):
        (_, one), (_, other) = recipe.step(5, one), recipe.step(5, other)
        most = [max(before, int(table.live.sum())) for before, table in zip(most, one, strict=True)]
    for a, b in zip(one, other, strict=True):
        assert (a.live == b.live).all() and (a.version == b.version).all()
        assert np.array_equal(a.vectors, b.vectors)
    assert sum(most) <= sum(kind.most for kind in KINDS) <= 2900
