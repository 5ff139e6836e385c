"""Slots of deleted rows are handed out again, and nobody sees another row for it.

Random lives of small collections in which most rows are replaced again and again, with rounds of upkeep
many times in each: after every commit the database equals a dict and brute force, snapshots that are
held show their rows, a second process's view (a follower that loads for itself or follows) has the same
links and codes, slots stay level, and `check()` is clean. The controls hand out too early.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import deeds
from vecdb.index import sweeping
from vecdb.index.follow import Follower
from vecdb.storage.writing import WriteTxn

COMMITS = 100


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds begin with few dead slots."""
    monkeypatch.setattr(sweeping, "LEAST", 8)


class Life:
    """One collection, the dict that it must equal, and a follower beside."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path, self.seed = str(path), seed
        self.rng, self.np_rng = random.Random(seed), np.random.default_rng(seed)
        self.ids = self.rng.choice([40, 150, 600])
        self.dim = self.rng.choice([4, 64, 700])
        self.metric = self.rng.choice(["l2", "cosine", "dot"])
        self.several = seed % 3 == 0
        self.every = (5, 13, 31)[seed % 3]  # commits between two looks of the follower beside
        self.db = vecdb.open(self.path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", dim=self.dim, metric=self.metric)
        if self.several:
            self.c.add_vector("x", vecdb.Vector(8, metric="l2"))
        self.model: dict[int, tuple[Any, int]] = {}
        self.snapshots: list[tuple[Any, dict[int, tuple[Any, int]]]] = []
        self.beside = Follower(self.c._cid, lambda: 0, 1)
        self.reused = self.rounds = self.most = 0
        self.wrong: list[str] = []

    def vectors(self, n: int) -> Any:
        return self.np_rng.standard_normal((n, self.dim)).astype(np.float32)

    def commit(self, number: int) -> None:
        rng = self.rng
        if rng.random() < 0.7 or len(self.model) < self.ids // 2:
            ids = rng.sample(range(self.ids), min(self.ids, rng.choice([1, 3, 20, 60])))
            given = self.vectors(len(ids))
            metadata = [{"n": number, "m": i % 5} for i in ids]
            self.c.upsert(ids, {"vector": given}, metadata=metadata)
            self.model.update((i, (v, number)) for i, v in zip(ids, given, strict=True))
            if self.several:
                self.c.update(ids[0], vectors={"x": [float(number)] * 8})
        elif rng.random() < 0.3:
            self.twice(number)
        elif rng.random() < 0.8:
            ids = [i for i in self.model if rng.random() < 0.2]
            self.c.delete(ids)
            for i in ids:
                del self.model[i]
        else:
            self.abort()
        if rng.random() < 0.1 and len(self.snapshots) < 2:
            self.snapshots.append((self.db.snapshot(), dict(self.model)))
        elif rng.random() < 0.1 and self.snapshots:
            self.snapshots.pop(0)[0].close()
        elif rng.random() < 0.05 and not self.snapshots:
            self.db.close()
            self.db = vecdb.open(self.path, durability="none", upkeep=False)
            self.c = self.db["c"]
            self.beside = Follower(self.c._cid, lambda: 0, 1)  # the map is another

    def abort(self) -> None:
        with pytest.raises(KeyError), self.db.transaction():
            self.c.upsert(list(range(20)), {"vector": self.vectors(20)})
            self.c.delete(list(range(5)))
            raise KeyError

    # --- verdicts ------------------------------------------------------------------------

    def judge(self) -> None:
        self.compare(self.c, self.model, "now")
        for snapshot, model in self.snapshots:
            self.compare(snapshot["c"], model, "in a snapshot")
        view = self.newest()
        self.rounds += view.state.condemned > 0
        self.reused = max(self.reused, view.state.reused_last)
        self.most = max(self.most, view.state.slots)

    def newest(self) -> Any:
        len(self.c.search(self.vectors(1)[0], 1, using="vector"))
        return self.db._followers[self.c._cid].newest()

    def compare(self, c: Any, model: dict[int, tuple[Any, int]], when: str) -> None:
        if len(c) != len(model):
            self.wrong.append(f"{when}: {len(c)} rows, not {len(model)}")
        if not model:
            return
        ids = list(model)
        stored = np.array([model[i][0] for i in ids])
        query = self.vectors(1)[0]
        truth = np.sort(deeds.distances(self.metric, stored, query))[:10]
        exact = c.search(query, 10, exact=True, using="vector")
        if not np.allclose(truth, exact.distances, atol=2e-3):
            self.wrong.append(f"{when}: an exact search found {exact.distances}, not {truth}")
        for hit in c.search(query, 10, ef=64, using="vector"):
            known = model.get(hit.id)
            if known is None:
                self.wrong.append(f"{when}: row {hit.id} was found, and is not there")
            elif abs(deeds.distances(self.metric, known[0][None], query)[0] - hit.distance) > 2e-3:
                self.wrong.append(f"{when}: row {hit.id} was found at another row's distance")
        for i in self.rng.sample(ids, min(5, len(ids))):
            record = c.get(i)
            found = record.vectors["vector"]
            if record.metadata["n"] != model[i][1] or not np.allclose(found, model[i][0]):
                self.wrong.append(f"{when}: row {i} has another's metadata or vector")

    def twice(self, number: int) -> None:
        """Rows that come and go, or come and are replaced, within one transaction."""
        ids = self.rng.sample(range(self.ids), min(self.ids, self.rng.choice([1, 5, 40])))
        with self.db.transaction():
            for _ in range(2):
                given = self.vectors(len(ids))
                self.c.upsert(ids, {"vector": given}, metadata=[{"n": number, "m": i % 5} for i in ids])
            self.model.update((i, (v, number)) for i, v in zip(ids, given, strict=True))
            if self.rng.random() < 0.6:
                self.c.delete(ids)
                for i in ids:
                    del self.model[i]

    def follow(self) -> None:
        """The follower beside has the writer's links and a fresh open's codes."""
        txn = self.db._env.begin_read()
        try:
            commit = self.db._env.commit_number(txn)
            mine, followed = self.newest(), self.beside.at(txn, commit)
            fresh = Follower(self.c._cid, lambda: 0, 1).at(txn, commit)
            for number, each in mine.vectors.items():
                for other in (followed, fresh):
                    self.same(each.graph, other.vectors[number].graph)
        finally:
            txn.abort()

    def same(self, mine: Any, other: Any) -> None:
        slots = np.arange(mine.n_slots, dtype=np.uint32)
        inside = np.frombuffer(mine.absent(slots), np.uint8) == 0
        codes = [np.frombuffer(g.codes(0, len(slots)), np.uint8).reshape(len(slots), -1) for g in (mine, other)]
        if not (codes[0][inside] == codes[1][inside]).all():
            self.wrong.append("a follower's codes differ")
        for layer in (0, 1):
            for chunk in range(mine.n_chunks(layer)):
                if mine.chunk(layer, chunk) != other.chunk(layer, chunk):
                    self.wrong.append(f"a follower's links differ: {layer}/{chunk}")

    def close(self) -> None:
        for snapshot, _ in self.snapshots:
            snapshot.close()
        self.db.close()


def live(path: Path, seed: int, commits: int) -> Life:
    """A whole life; it ends at the first commit after which something is wrong."""
    life = Life(path, seed)
    for number in range(commits):
        life.commit(number)
        if number % 5 == 4:
            life.judge()
        if number % life.every == 0:
            life.follow()
        if number % 25 == 24:
            life.wrong += [str(problem) for problem in life.db.check()]
        if life.wrong:
            break
    else:
        for snapshot, _ in life.snapshots:
            snapshot.close()
        life.snapshots = []
        life.wrong += [str(problem) for problem in life.db.check()]
    return life


def lives(folder: Path, seeds: range, commits: int) -> Iterator[Life]:
    for seed in seeds:
        life = live(folder / f"{seed}.vecdb", seed, commits)
        yield life
        life.close()


def assert_right(folder: Path, seeds: range, commits: int) -> None:
    rounds = reused = 0
    for life in lives(folder, seeds, commits):
        assert not life.wrong, (life.seed, life.wrong[:5])
        rounds += life.rounds
        reused += life.reused > 0
    print(
        f"{len(seeds)} lives of {commits} commits, seeds {seeds.start} to {seeds.stop - 1}: in a round "
        f"at {rounds} looks, slots handed out again in {reused} lives, differences 0"
    )
    assert rounds >= len(seeds) and reused > len(seeds) / 2


def test_rows_come_and_go_and_nobody_sees_another(tmp_path: Path) -> None:
    assert_right(tmp_path, range(4), COMMITS)


def test_a_slot_that_ceases_to_be_first_in_a_round_stays_until_the_next(tmp_path: Path) -> None:
    """In life 135 a graph's only entry node is dead, and one of a lower number comes in mid-round."""
    assert_right(tmp_path, range(135, 136), 150)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_lives(tmp_path: Path) -> None:
    assert_right(tmp_path, range(100, 100 + int(os.environ.get("VECDB_LIVES", "100"))), 200)


def test_control_slots_handed_out_under_readers_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WriteTxn, "due", lambda *_: True)
    wrong = [life.wrong for life in lives(tmp_path, range(1, 13), COMMITS) if life.wrong]
    print("control, readers are not waited for:", wrong[0][:1] if wrong else "nothing seen")
    assert wrong, "the harness does not notice slots that are handed out too early"


def test_control_a_block_that_moved_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.index import follow, loading

    def forgetful(parts: Any, slots: int) -> Any:
        return loading.Again([], {})

    monkeypatch.setattr(follow, "_again", forgetful)
    wrong = [life.wrong for life in lives(tmp_path, range(1, 13), COMMITS) if life.wrong]
    print("control, followers take no notice of reuse:", wrong[0][:1] if wrong else "nothing seen")
    assert wrong, "the harness does not notice followers that keep old vectors"


def test_slots_stay_level_while_rows_are_replaced(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "level.vecdb", durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=8)
        rng = np.random.default_rng(3)
        c.add(list(range(1000)), rng.standard_normal((1000, 8)))
        slots = []
        for _ in range(400):
            ids = rng.choice(1000, 20, replace=False).tolist()
            c.upsert(ids, rng.standard_normal((20, 8)))
            slots.append(c.stats()["slots"])
        print(f"1,000 rows replaced 8 times: {max(slots[:100])} slots, then {slots[-1]}")
        assert slots[-1] <= 1400 and db.check() == []


def test_slots_left_open_by_a_field_that_goes_keep_their_vectors(tmp_path: Path) -> None:
    """The blocks of the field that stays are smaller: what was open together is many of them."""
    rng = np.random.default_rng(7)

    def vectors(n: int) -> Any:
        return rng.standard_normal((n, 700)).astype(np.float32)

    with vecdb.open(tmp_path / "dropped.vecdb", durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=700)
        c.add_vector("x", vecdb.Vector(4))
        c.add(list(range(1100)), {"vector": vectors(1100)})
        for _ in range(300):
            ids = rng.choice(1100, 20, replace=False).tolist()
            c.upsert(ids, {"vector": vectors(20)})
            state = db._followers[c._cid].newest().state
            if state.loose:
                break
        assert len(state.loose) == 1024
        given = vectors(10)
        c.upsert(list(range(10)), {"vector": given})
        c.drop_vector("x")
        c.upsert(list(range(500, 900)), {"vector": vectors(400)})
    with vecdb.open(tmp_path / "dropped.vecdb") as db:
        hits = [db["c"].search(each, 1, exact=True, using="vector")[0] for each in given]
        print([(hit.id, hit.distance) for hit in hits])
        assert [hit.id for hit in hits] == list(range(10)) and max(hit.distance for hit in hits) < 1e-3
        assert db.check() == []


class Beside:
    """A small collection of which many slots are free, and a follower that has seen it."""

    def __init__(self, path: Path) -> None:
        self.rng = np.random.default_rng(5)
        self.db = vecdb.open(path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", dim=64)
        self.c.add(list(range(600)), self.vectors(600))
        for _ in range(60):
            self.c.upsert(self.some(40), self.vectors(40))
        self.beside = Follower(self.c._cid, lambda: 0, 1)
        self.differ()

    def vectors(self, n: int) -> Any:
        return self.rng.standard_normal((n, 64)).astype(np.float32)

    def some(self, n: int) -> list[int]:
        return self.rng.choice(600, n, replace=False).tolist()

    def differ(self) -> list[int]:
        """Slots in the graph whose vectors or codes the follower has otherwise."""
        txn = self.db._env.begin_read()
        try:
            commit = self.db._env.commit_number(txn)
            mine = self.db._followers[self.c._cid].at(txn, commit).vectors[0].graph
            other = self.beside.at(txn, commit).vectors[0].graph
            slots = np.arange(mine.n_slots, dtype=np.uint32)
            inside = np.flatnonzero(np.frombuffer(mine.absent(slots), np.uint8) == 0).tolist()
            return [
                slot
                for slot in inside
                if not other.has_vector(slot)
                or (mine.vector(slot), mine.codes(slot, 1)) != (other.vector(slot), other.codes(slot, 1))
            ]
        finally:
            txn.abort()


def test_a_follower_knows_rows_that_came_and_went_in_slots_of_others(tmp_path: Path) -> None:
    life = Beside(tmp_path / "brief.vecdb")
    before = life.db._followers[life.c._cid].newest().state.slots
    for _ in range(20):
        ids = life.some(15)
        with life.db.transaction():
            life.c.upsert(ids, life.vectors(15))
            life.c.upsert(ids, life.vectors(15))
        assert life.differ() == []
    assert life.db._followers[life.c._cid].newest().state.slots < before + 100
    assert life.db.check() == []
    life.db.close()


@pytest.mark.parametrize("count", [1, 40, 120])
def test_a_follower_knows_of_blocks_that_nothing_but_fleeting_rows_moved(
    tmp_path: Path, count: int
) -> None:
    life = Beside(tmp_path / "fleeting.vecdb")
    for number in range(12):
        with life.db.transaction():
            new = list(range(5000, 5000 + count))
            life.c.add(new, life.vectors(count))
            life.c.delete(new)
        assert life.differ() == []
        life.c.upsert(life.some(15), life.vectors(15))
        if number % 3 == 0:
            assert life.differ() == []
    assert life.db.check() == []
    life.db.close()


@pytest.mark.parametrize("first", ["deleted", "dropped"])
def test_slots_that_only_a_dropped_field_held_are_free_however_it_came(
    tmp_path: Path, first: str
) -> None:
    rng = np.random.default_rng(1)
    with vecdb.open(tmp_path / "free.vecdb", durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=8)
        c.add_vector("x", vecdb.Vector(8))
        c.add(list(range(100)), {"vector": rng.standard_normal((100, 8))})
        c.add(list(range(100, 200)), {"x": rng.standard_normal((100, 8))})
        for _ in range(30):
            ids = rng.choice(100, 20, replace=False).tolist()
            c.upsert(ids, {"vector": rng.standard_normal((20, 8))})
        with db.transaction():
            ids = list(range(40))
            c.upsert(ids, {"vector": rng.standard_normal((40, 8))})
            c.upsert(ids, {"vector": rng.standard_normal((40, 8)), "x": rng.standard_normal((40, 8))})
            c.add(list(range(300, 310)), {"x": rng.standard_normal((10, 8))})
            if first == "deleted":
                c.delete([*range(100, 150), *range(300, 310)])
            c.drop_vector("x")
            if first == "dropped":
                c.delete([*range(100, 150), *range(300, 310)])
        assert db.check() == []
        for _ in range(30):
            ids = rng.choice(100, 20, replace=False).tolist()
            c.upsert(ids, {"vector": rng.standard_normal((20, 8))})
        assert db.check() == []


def test_no_transaction_hands_out_a_slot_whose_row_it_takes_away(tmp_path: Path) -> None:
    """Rows whose only vectors were in a dropped field leave slots that are in no graph."""
    with vecdb.open(tmp_path / "own.vecdb", durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=2048)  # sixteen rows a block
        c.add_vector("x", vecdb.Vector(4))
        given = np.eye(3, 2048)
        c.add([1, 2, 3], {"x": np.eye(4)[:3]})
        c.drop_vector("x")
        snapshot = db.snapshot()
        c.upsert([1, 2, 3], {"vector": given})
        assert len(c) == 3 and [hit.id for hit in c.search(given[2], 1)] == [3]
        assert len(snapshot["c"]) == 3
        snapshot.close()
        assert db.check() == []
    with vecdb.open(tmp_path / "own.vecdb") as db:
        assert sorted(row.id for row in db["c"].scan()) == [1, 2, 3] and db.check() == []


def test_slots_of_a_block_that_one_transaction_moves_and_hands_out_keep_their_vectors(
    tmp_path: Path,
) -> None:
    """A field with larger blocks came: what was left open is closed, and opened again with its like."""
    rng = np.random.default_rng(2)
    with vecdb.open(tmp_path / "moved.vecdb", durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=64)  # 512 rows a block

        def put(ids: list[int]) -> None:
            given = rng.standard_normal((len(ids), 64)).astype(np.float32)
            c.upsert(ids, {"vector": given})
            kept.update(zip(ids, given, strict=True))

        def state() -> Any:
            return db._followers[c._cid].newest().state

        kept: dict[int, Any] = {}
        put(list(range(390)))
        while not state().loose or state().slots < 480:
            put(rng.choice(390, 7, replace=False).tolist())
        c.add_vector("x", vecdb.Vector(4))  # 1,024 rows a block
        fleeting = list(range(1000, 1100))
        c.add(fleeting, {"vector": rng.standard_normal((100, 64))})
        c.delete(fleeting)
        vacant = state().vacant
        for gone in range(300):
            c.delete([gone])
            del kept[gone]
            if not state().condemned and state().vacant > vacant + 90:
                break
        c.delete([gone + 1])
        del kept[gone + 1]
        assert state().loose == range(512) and c.schema.vectors["x"].first < 500
        with db.transaction():
            for i in (400, 401, 402, 403):
                put([i])
        for i, vector in kept.items():
            hit = c.search(vector, 1, exact=True, using="vector")[0]
            assert (hit.id, hit.distance < 1e-3) == (i, True)
        assert db.check() == []
