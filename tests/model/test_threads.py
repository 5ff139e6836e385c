"""Several threads and handles of one process: each search sees one commit, whole, and none is lost.

Counts are printed with `-s`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "p.vecdb")


def together(*works: Callable[[], object]) -> None:
    """Run functions in threads; raise the first failure."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


def test_threads_of_one_process_lose_no_increment(path: str) -> None:
    with vecdb.open(path, durability="relaxed") as db:
        c = db.create_collection("c", dim=2)
        c.add("counter", metadata={"value": 0})

        def work() -> None:
            for _ in range(50):
                with db.transaction():
                    value = c["counter"].metadata["value"]
                    c.update("counter", metadata={"value": value + 1})

        together(*[work] * 4)
        assert c["counter"].metadata["value"] == 200
        assert c.count(F.value == 200) == 1 and db.check() == []


def test_busy_within_one_process_names_it_as_well(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "b.vecdb", timeout=0.2) as db:
        c = db.create_collection("c", dim=2)
        found: list[vecdb.errors.Busy] = []

        def write() -> None:
            try:
                c.add("b", [1, 0])
            except vecdb.errors.Busy as busy:
                found.append(busy)

        with db.transaction():
            c.add("a", [1, 0])
            together(write)
        assert len(found) == 1 and found[0].owner_pid == os.getpid()
        assert [r.id for r in c] == ["a"]


@pytest.mark.parametrize("upkeep", [True, False])
def test_each_search_beside_a_writing_thread_sees_exactly_one_commit(path: str, upkeep: bool) -> None:
    """Commit n gives 40 rows the token n and the vector base + n, and the filler some company."""
    searches_beside_a_writer(path, 150, upkeep)


@pytest.mark.slow
def test_searches_beside_a_writing_thread_for_long(path: str) -> None:
    searches_beside_a_writer(path, 3000, True)


def searches_beside_a_writer(path: str, commits: int, upkeep: bool) -> None:
    moving, filler = 40, 3000
    ids = [f"m{i}" for i in range(moving)]
    base = np.zeros((moving, 8), np.float32)
    base[:, 1] = np.arange(moving)
    rng = np.random.default_rng(0)
    done = threading.Event()
    looks: list[int] = []
    with vecdb.open(path, durability="relaxed", upkeep=upkeep) as db:
        c = db.create_collection("c", dim=8, metric="l2")
        c.add([*range(filler)], rng.normal(10_000, 500, (filler, 8)))

        def place(n: int) -> Any:
            moved = base.copy()
            moved[:, 0] = n
            return moved

        def metadata(n: int) -> list[dict[str, Any]]:
            return [{"token": n, "row": i} for i in range(moving)]

        c.add(ids, place(0), metadata=metadata(0))

        def write() -> None:
            try:
                for n in range(1, commits + 1):
                    with db.transaction():
                        c.upsert(ids, place(n), metadata=metadata(n))
                        c.add(filler + n, rng.normal(10_000, 500, 8))
                        if n % 5 == 0:
                            c.delete(n)
            finally:
                done.set()

        def judge(hits: Any) -> int:
            assert len(hits) == moving
            tokens = {hit.metadata["token"] for hit in hits}
            assert len(tokens) == 1, f"one search saw commits {tokens}"
            n = tokens.pop()
            assert sorted(hits.ids) == sorted(ids)
            expected = np.sort(np.linalg.norm(place(n), axis=1))
            np.testing.assert_allclose(hits.distances, expected, rtol=1e-5)
            for hit in hits:
                assert hit.id == f"m{hit.metadata['row']}"
            return int(n)

        def read(filtered: bool) -> None:
            last = count = 0
            while not done.is_set() or not count:
                where = F.row < moving if filtered else None
                n = judge(c.search(np.zeros(8), moving, where=where, ef=None if filtered else 128))
                assert n >= last, "a later search saw an earlier commit"
                assert c.count(F.token >= n) == moving and c.count(F.token < n) == 0
                last, count = n, count + 1
            looks.append(count)

        together(write, lambda: read(True), lambda: read(False))
        assert judge(c.search(np.zeros(8), moving, ef=128)) == commits
        assert db.check() == []
    print(f"threads: {commits} commits, {looks} looks, 0 mixed")


def test_two_handles_on_one_path_share_one_environment(path: str) -> None:
    with vecdb.open(path) as one, vecdb.open(path) as two:
        one.create_collection("c", dim=2).add("a", [1, 0])
        assert two["c"].search([1, 0], 1).ids == ["a"]
        two["c"].add("b", [0, 1])
        assert len(one["c"]) == 2
        one.close()
        assert len(two["c"]) == 2
