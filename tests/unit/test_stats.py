"""`stats` explains where space and memory go, who reads, for how long, and what that pins.

Every byte of the file is counted once, whatever was done to it; an old reader is named with its
process, its age lies between the bounds, and the bytes that it pins are used again when it ends.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child, damage
from vecdb.storage import space, times

HOLDER = """
import sys, vecdb
with vecdb.open(sys.argv[1]) as db:
    with db.snapshot() as snap:
        print(len(snap["c"]), flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.vecdb"


def told(db: vecdb.Database) -> Any:
    return db.stats()


def adds_up(db: vecdb.Database) -> bool:
    """Whether every byte is counted, and every byte of a collection among those of the file."""
    found = told(db)
    whole, parts = dict(found["space"]), [c["space"] for c in found["collections"].values()]
    of_collections = {p: sum(part.get(p, 0) for part in parts) for p in whole}
    shared = {"meta", "embeddings", "searches", "tree", "engine", "free", "rest"}
    return (
        sum(whole.values()) == found["file_bytes"]
        and min(whole.values()) >= 0
        and all(of_collections[p] == whole[p] for p in whole if p not in shared)
    )


def fill(db: vecdb.Database, rng: random.Random, deeds: int) -> None:
    c = db.get_or_create_collection("c", dim=8, metric="l2")
    for _ in range(deeds):
        first, count = rng.randrange(2000), rng.choice((1, 10, 300))
        ids = range(first, first + count)
        texts = ["t" * rng.choice((3, 5000)) for _ in ids]  # some are too long for a leaf
        rows = damage.whole(np.random.default_rng(first), count, 8)
        c.upsert(ids, rows, metadata=[{"n": i, "s": "x" * (i % 90)} for i in ids], texts=texts)
        c.delete(where=vecdb.F.n < rng.randrange(400))


def test_every_byte_is_counted_once_after_whatever_was_done(path: Path) -> None:
    rng = random.Random(5)
    with vecdb.open(path, durability="none") as db:
        assert adds_up(db)
        for turn in range(12):
            fill(db, rng, 3)
            if turn % 4 == 3:
                db.optimize()
            if turn == 6:
                db.create_collection("said", encoder="hashing:16").add(texts=["one", "two"])
            if turn == 9:
                db.compact()
            assert adds_up(db), told(db)["space"]
            assert told(db)["space"]["rest"] <= 8 * 4096, "pages that the engine itself has lost"
        with db.transaction():
            db["c"].add("open", np.ones(8))
            assert adds_up(db)
    damage.build(path.with_name("all.vecdb"), damage.SMALL)
    with vecdb.open(path.with_name("all.vecdb"), mode="r") as db:
        assert adds_up(db)
    print("12 turns of 3 upserts and deletes, seed 5: every byte counted once")


def test_a_byte_that_is_not_counted_is_noticed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: long values forgotten, which leaves bytes that nothing explains."""
    with vecdb.open(path, durability="none") as db:
        fill(db, random.Random(5), 5)
        assert told(db)["space"]["rest"] <= 8 * 4096
        monkeypatch.setattr(space, "_outside", lambda *_: 0)
        assert told(db)["space"]["rest"] > 8 * 4096


def test_the_oldest_reader_is_named_with_what_it_pins(path: Path) -> None:
    rng = random.Random(6)
    with vecdb.open(path, durability="none", upkeep=False) as db:
        fill(db, rng, 10)
        assert told(db)["oldest_reader"] is None and told(db)["readers"] == 0
        began = time.time()
        holder = child.start(HOLDER, path)
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        first = told(db)["oldest_reader"]
        assert (first["pid"], first["commits"], first["pinned_bytes"]) == (holder.pid, 0, 0)
        commit = told(db)["commit"]
        fill(db, rng, 20)
        with db.snapshot():  # a younger one
            mine = told(db)
        found = mine["oldest_reader"]
        assert mine["readers"] == 2 and found["pid"] == holder.pid
        assert found["commits"] == mine["commit"] - commit
        assert 0 <= found["at_least_seconds"] <= time.time() - began
        assert found["at_most_seconds"] is not None
        pinned = found["pinned_bytes"]
        assert 0 < pinned <= mine["space"]["free"]
        child.end(holder)
        after = told(db)
        assert after["oldest_reader"] is None and after["space"]["free"] >= pinned
        size = after["file_bytes"]
        for n in range(60):
            db["c"].upsert(n, np.ones(8))
        grown = told(db)["file_bytes"] - size
        assert grown == 0, "what was pinned is used before the file grows"
        print(f"{found['commits']} commits, seed 6: {pinned:,} bytes pinned, all of them free after the reader ended; "
              f"60 commits later the file has grown by {grown}")  # fmt: skip


def test_a_killed_reader_pins_nothing(path: Path) -> None:
    with vecdb.open(path, durability="none", upkeep=False) as db:
        fill(db, random.Random(7), 5)
        holder = child.start(HOLDER, path)
        assert holder.stdout is not None
        holder.stdout.readline()
        assert told(db)["readers"] == 1
        holder.kill()
        holder.communicate()
        assert told(db)["oldest_reader"] is None and told(db)["readers"] == 0


def test_a_collection_tells_of_its_slots_log_and_memory(path: Path) -> None:
    with vecdb.open(path, durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=100, metric="l2", M=8)
        for n in range(5):
            c.add(range(40 * n, 40 * n + 40), damage.whole(np.random.default_rng(n), 40, 100))
        c.delete(range(10))
        found = c.stats()
        assert (found["slots"], found["live_slots"], found["dead_slots"]) == (200, 190, 10)
        assert found["unfolded_commits"] == 6
        memory = found["vectors"]["vector"]["memory"]
        links = (2 * 200 + 7) * 8
        assert memory == {"links": 4 * links + links // 8, "codes": 200 * 128, "private_vectors": 256 * 400}
        assert found["memory"]["live_rows"] > 0
        c.optimize()
        assert c.stats()["unfolded_commits"] == 0
        with db.snapshot() as snap:
            assert snap["c"].stats()["space"] is None and snap["c"].stats()["slots"] == 200


# --- ages ------------------------------------------------------------------------------------------------


def history(rng: random.Random, commits: int) -> list[tuple[int, float]]:
    """Transactions and their times: bursts and pauses, up to years."""
    now, found = 1_700_000_000.0, []
    for number in range(1, commits):
        now += rng.choice((0.01, 0.5, 3, 3, 60, 4000, 90_000, 1_000_000))
        found.append((number, now))
    return found


def kept_of(commits: list[tuple[int, float]]) -> list[times.Entry]:
    """What the record holds after these commits, as `note` keeps it."""
    kept: list[times.Entry] = []
    for number, now in commits:
        if not kept or int(now) - kept[-1][1] >= times.EVERY:
            kept = times.thinned([*kept, (number, int(now))])
    return kept


def wrong_ages(commits: list[tuple[int, float]], kept: list[times.Entry]) -> tuple[int, int]:
    """Readers whose age is outside of its bounds, and those whose bounds say too little."""
    wrong = loose = 0
    now = commits[-1][1] + 5
    for at in range(len(commits) - 1):
        seen, began = commits[at]
        latest = commits[at + 1][1]
        least, most = times.age(kept, seen, now)
        wrong += least > now - began or (most is not None and most < now - latest)
        pause = latest - began  # in which the reader began, nobody knows when
        loose += most is not None and most - least > (now - latest) + pause + 10
    return wrong, loose


def test_an_age_lies_between_its_bounds_which_are_close() -> None:
    rng, readers = random.Random(8), 0
    for _ in range(60):
        commits = history(rng, rng.choice((3, 40, 400)))
        kept = kept_of(commits)
        assert len(kept) <= times.KEPT and kept == sorted(kept)
        assert wrong_ages(commits, kept) == (0, 0)
        readers += len(commits)
    print(f"60 histories of commits over years, {readers:,} readers, seed 8: ages out of bounds 0")


def test_times_that_are_thrown_away_too_early_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: only the first and the last time are kept."""
    monkeypatch.setattr(times, "thinned", lambda entries: [entries[0], entries[-1]])
    commits = history(random.Random(8), 200)
    assert wrong_ages(commits, kept_of(commits))[1] > 50


def test_a_copy_begins_without_times_and_a_clock_may_go_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = path.with_name("copy.vecdb")
    with vecdb.open(path) as db:
        fill(db, random.Random(9), 2)
        db.backup(copy)
    with damage.read(copy) as txn:
        assert times.read(txn) == []
    with damage.read(path) as txn:
        assert times.read(txn)
    plain = time.time
    for shift in (100_000, -100_000, 50):
        monkeypatch.setattr(time, "time", lambda s=shift: plain() + s)  # type: ignore[misc]
        with vecdb.open(copy, upkeep=False) as db, db.snapshot():
            db["c"].add(f"at {shift}", np.ones(8))
            found = told(db)["oldest_reader"]
            assert found["pid"] == os.getpid() and found["at_least_seconds"] >= 0
            assert db.check() == []
