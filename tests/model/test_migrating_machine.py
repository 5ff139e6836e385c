"""Vectors become others while rows come, change and go: a dict and brute force say what is right.

Three ways to look for a difference. A Hypothesis machine takes steps of migrations, ends, undoes and drops
them between writes of every kind, with snapshots held and files opened again. Random lives do the same for
longer, with blocks of few rows, so that slots are handed out again while vectors stand behind others. And a
process beside has the file open and answers the same questions.

After each step: every row's vectors, exact search (equal to brute force), default search (never short, each
hit at its distance), filters, snapshots, a follower's and a fresh open's graphs link for link, and check().
The controls break one rule each, and must be noticed. VECDB_MIGRATING_LIVES and VECDB_MACHINE_EXAMPLES set
the lengths.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.migrating import Reader, Recipe, World, hurried
from tests.nursery import Nursery
from vecdb.collection import write
from vecdb.errors import VecdbError
from vecdb.index import loading
from vecdb.index.writing import Writing

STEPS: Counter[str] = Counter()
some_ids = st.lists(st.integers(0, 11), min_size=1, max_size=5, unique=True)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch)


class Machine(RuleBasedStateMachine):
    """One world; every rule is a deed of it (tests/migrating.py)."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.patched = pytest.MonkeyPatch()
        hurried(self.patched)
        self.folder = tempfile.TemporaryDirectory()

    @initialize(
        seed=st.integers(0, 1 << 16), texts=st.booleans(), metric=st.sampled_from(["cosine", "l2", "dot"]),
        dtype=st.sampled_from(["f32", "f16"]), dim=st.sampled_from([5, 700]), rows=some_ids,
    )  # fmt: skip
    def begin(self, seed: int, texts: bool, metric: str, dtype: str, dim: int, rows: list[int]) -> None:
        self.world = World(
            Path(self.folder.name) / "m.vecdb", seed, texts=texts, dim=dim, ids=12,
            metric="cosine" if texts else metric, dtype=dtype,
        )  # fmt: skip
        self.world.upsert(rows)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            STEPS.update(self.world.counts)
            self.world.close()
        self.folder.cleanup()
        self.patched.undo()

    @rule(ids=some_ids, textless=st.booleans())
    def upsert(self, ids: list[int], textless: bool) -> None:
        self.world.upsert(ids, textless=textless)

    @rule(id=st.integers(0, 11), what=st.sampled_from(["vector", "text", "other", "n"]))
    def update(self, id: int, what: str) -> None:
        self.world.update(id, what)

    @rule(ids=some_ids)
    def delete(self, ids: list[int]) -> None:
        self.world.delete(ids)

    @rule(limit=st.integers(0, 20))
    def delete_where(self, limit: int) -> None:
        self.world.delete_where(limit)

    @rule()
    def abort(self) -> None:
        self.world.abort()

    @rule(steps=st.sampled_from([0, 1, 1, 2, None]))
    def migrate(self, steps: int | None) -> None:
        self.world.migrate(steps)

    @rule()
    def roll_back(self) -> None:
        self.world.roll_back()

    @rule()
    def drop_previous(self) -> None:
        self.world.drop_previous()

    @rule(rebuild=st.booleans())
    def optimize(self, rebuild: bool) -> None:
        self.world.optimize(rebuild)

    @rule()
    def take_snapshot(self) -> None:
        self.world.take_snapshot()

    @rule()
    def end_snapshot(self) -> None:
        self.world.end_snapshot()

    @rule()
    def reopen(self) -> None:
        self.world.reopen()

    @rule()
    def lose_state(self) -> None:
        self.world.lose_state()

    @invariant()
    def judge(self) -> None:
        if hasattr(self, "world"):
            self.world.judge()


Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("VECDB_MACHINE_EXAMPLES", "20")),
    stateful_step_count=25,
    derandomize="VECDB_MACHINE_EXAMPLES" not in os.environ,  # a short run is the same every time, long ones are not
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase


def test_every_rule_was_reached() -> None:
    """The control: a machine that never switches proves nothing."""
    print("steps:", dict(STEPS))
    names = ["upsert", "delete", "steps", "switched", "snapshot", "reopen"]
    if int(os.environ.get("VECDB_MACHINE_EXAMPLES", "0")) >= 100:
        names += ["update vector", "update text", "rolled back", "abandoned", "dropped", "refused: kept",
                  "refused: no text", "rebuilt", "state lost"]  # fmt: skip
    for name in names:
        assert STEPS[name] > 0, f"{name} was never reached"


# --- random lives ------------------------------------------------------------------------------------


def options(seed: int) -> dict[str, Any]:
    """What a life is about: every third one has slots in blocks of 32 rows, and long-lived rows."""
    rng, texts = random.Random(seed), seed % 2 == 1
    return {
        "texts": texts, "dim": rng.choice([6, 64, 700]), "dtype": rng.choice(["f32", "f32", "f16"]),
        "metric": "cosine" if texts else rng.choice(["cosine", "l2", "dot"]), "ids": rng.choice([12, 40, 150]),
    }  # fmt: skip


def lives(folder: Path, seeds: range, deeds: int, nursery: Nursery | None = None) -> Iterator[World]:
    """Random lives, each judged after every deed; AssertionError says which differs, and after what."""
    for seed in seeds:
        world = World(folder / f"{seed}.vecdb", seed, **options(seed))
        done: list[str] = []
        sprout = None
        if nursery is not None:
            sprout = nursery.start("tests.migrating:read_beside", world.path, world.dim)
            world.reader = Reader(sprout)
        try:
            for _ in range(deeds):
                done.append(world.some_deed())
                world.judge()
        except Exception as error:
            raise AssertionError(f"life {seed}, after {len(done)} deeds, the last {done[-8:]}: {error!r}") from error
        finally:
            reused = world.db._follower(world.c._cid).newest()
            world.counts["lives with slots handed out again"] += reused is not None and reused.state.reused_last > 0
            world.close()
            if nursery is not None and sprout is not None:
                nursery.wait(sprout)
        yield world


def assert_right(folder: Path, seeds: range, deeds: int, nursery: Nursery | None = None) -> Counter[str]:
    counts: Counter[str] = Counter()
    for world in lives(folder, seeds, deeds, nursery):
        counts.update(world.counts)
    recall = counts["found"] / max(1, counts["asked"])
    print(
        f"{len(seeds)} lives of {deeds} deeds, seeds {seeds.start} to {seeds.stop - 1}: differences 0, recall of "
        f"{counts['asked']:,} hits {recall:.4f}; {dict(counts)}"
    )
    return counts


def test_vectors_change_while_rows_come_and_go(tmp_path: Path) -> None:
    counts = assert_right(tmp_path, range(3), 40)
    assert counts["switched"] > 2 and counts["lives with slots handed out again"] > 0


def test_a_process_beside_sees_the_same(tmp_path: Path) -> None:
    with Nursery() as nursery:
        counts = assert_right(tmp_path, range(50, 52), 25, nursery)
    assert counts["asked beside"] == 50 and counts["switched"] > 0


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_many_lives(tmp_path: Path) -> None:
    many = int(os.environ.get("VECDB_MIGRATING_LIVES", "60"))
    counts = assert_right(tmp_path, range(1000, 1000 + many), 200)
    assert counts["lives with slots handed out again"] > many / 3
    with Nursery() as nursery:
        assert_right(tmp_path, range(2000, 2000 + many // 4), 100, nursery)


# --- slots that are handed out again -------------------------------------------------------------------


def churned(path: Path, seed: int, commits: int = 60, losing: bool = False) -> World:
    """Most rows are replaced many times while vectors are on their way, and again while older ones are kept."""
    world = World(path, seed, texts=seed % 2 == 1, dim=700, ids=64, metric="cosine")
    world.upsert(list(range(world.ids)))
    for number in range(commits):
        world.upsert(world.rng.sample(range(world.ids), 6))
        if world.next is None or number % 9 == 0:
            world.migrate(1)
        if world.previous is not None:
            world.drop_previous()
        if number % 10 == 0:
            world.judge()
        if losing and number % 25 == 24:
            world.lose_state()
            world.judge()
    world.migrate(None)
    world.judge()
    for number in range(commits):
        world.upsert(world.rng.sample(range(world.ids), 6))
        if number % 10 == 0:
            world.judge()
    if losing:
        world.lose_state()
        world.judge()
    world.roll_back()
    world.judge()
    world.counts["slots"] = world.db._follower(world.c._cid).newest().state.slots
    world.close()
    return world


@pytest.mark.parametrize(("seed", "losing"), [(0, False), (1, True)], ids=["given", "texts, state lost"])
def test_slots_are_handed_out_again_while_vectors_stand_behind(tmp_path: Path, seed: int, losing: bool) -> None:
    world = churned(tmp_path / "c.vecdb", seed, losing=losing)
    print(f"784 rows came in {world.counts['slots']} slots, seed {seed}: {dict(world.counts)}")
    assert world.counts["slots"] < 400


# --- controls ----------------------------------------------------------------------------------------


def noticed(what: str, deed: Callable[[], object]) -> None:
    with pytest.raises((AssertionError, VecdbError)) as found:
        deed()
    print(f"control, {what}: {found.value!r:.200}")


def test_control_slots_that_keep_their_former_rows_vectors_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Writing._note_held

    def keeps(self: Writing) -> None:
        born, self.born = self.born, set()
        plain(self)
        self.born = born

    monkeypatch.setattr(Writing, "_note_held", keeps)
    noticed("rows in slots of others keep what stood behind those", lambda: churned(tmp_path / "c.vecdb", 0))


def test_control_vectors_of_texts_that_changed_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_stale", lambda *_: set())
    with closing(World(tmp_path / "c.vecdb", 2, texts=True)) as world:

        def change() -> None:
            world.upsert(list(range(world.ids)))
            world.next = Recipe(world.encoders[1], dim=world.encoders[1].dim)
            world.migrate(3)
            for id in range(world.ids):
                world.update(id, "text")
            world.migrate(None)
            world.judge()

        noticed("texts change and vectors behind stay", change)


def test_control_followers_that_miss_new_vectors_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = loading.Loading.follow

    def forgetful(self: Any, graph: Any, links: Any, before: int, now: Any, mine: Any, again: Any) -> None:
        plain(self, graph, links, before, now, mine, again._replace(blocks={}))

    monkeypatch.setattr(loading.Loading, "follow", forgetful)
    noticed("followers take no notice of blocks written anew", lambda: [*lives(tmp_path, range(20), 60)])
