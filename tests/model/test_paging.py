"""Going through rows while another process writes: whoever stays is seen exactly once.

The writer inserts before and behind, deletes, replaces, changes vectors (and so the rows' places
in the graph) and metadata, in small and large commits. Rows whose number is a multiple of three
stay; all others may come and go.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child
from tests.data import debian, needs_data, split
from vecdb import F

WRITER = """
import random, sys, vecdb
path, n = sys.argv[1], int(sys.argv[2])
db = vecdb.open(path, durability="relaxed")
c, rng = db["c"], random.Random(5)
ids = [record.id for record in c.scan()]
stay, rest = ids[::3], [id for at, id in enumerate(ids) if at % 3]
print("ready", flush=True)
sys.stdin.readline()
for number in range(n):
    size = rng.choice([1, 3, 40])
    some, others = rng.sample(stay, size), rng.sample(rest, size)
    kept = c.get(some)
    what = number % 5
    if what == 0:
        c.update(some, vectors=[[rng.random(), 1, 0, 0]] * size)
    elif what == 1:
        c.update(some, metadata={"touched": number})
    elif what == 2:
        c.upsert(some, [[1, rng.random(), 0, 0]] * size, metadata=[r.metadata for r in kept])
    elif what == 3:
        c.delete(others)
    else:
        new = [f"{rng.choice('0amz~')}{number}-{at}" for at in range(size)] + others
        c.upsert(new, [[0, 0, 1, 1]] * len(new), metadata=[{"v": rng.randrange(50)}] * len(new))
    if number % 40 == 39:
        print(number, flush=True)
print("done", flush=True)
db.close()
"""


def pages(c: Any, size: int, **how: Any) -> list[Any]:
    """The ids in pages, each from the cursor of the one before."""
    found: list[Any] = []
    after = None
    while True:
        page = list(c.scan(after=after, limit=size, **how))
        found += [record.id for record in page]
        if len(page) < size:
            return found
        after = page[-1].cursor


def go_through(path: Path, commits: int, size: int) -> dict[str, int]:
    """Page while a child writes; returns what was done while it did."""
    figures = {"passes": 0, "rows": 0}
    ways: list[dict[str, Any]] = [
        {}, {"descending": True}, {"where": F.v >= 0}, {"order_by": "v"},
        {"order_by": "v", "descending": True, "where": F.v < 40},
    ]  # fmt: skip
    with vecdb.open(path) as db:
        c = db["c"]
        stay = [record.id for record in c.scan()][::3]
        staying = set(stay)  # the others' values change: by value they may come twice, or never
        value = {record.id: record.metadata["v"] for record in c.scan()}
        writer = child.start(WRITER, path, commits)
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == b"ready\n"
        with db.snapshot() as snap:
            before = sorted(value, key=str)
            writer.stdin.write(b"go\n")
            writer.stdin.flush()
            for number in range(10_000):
                running = writer.poll() is None
                how = ways[number % len(ways)]
                found = pages(c, size, **how)
                once = found if "order_by" not in how else [id for id in found if id in staying]
                assert len(set(once)) == len(once), "a row came twice"
                missing = {id for id in stay if "where" not in how or how["where"].matches({"v": value[id]})}
                missing -= set(found)
                assert not missing, f"{len(missing)} rows that stayed did not come, {how}"
                figures["passes"] += 1
                figures["rows"] += len(found)
                if not running and number >= len(ways):
                    break
            for how in ways:
                wanted = [id for id in before if "where" not in how or how["where"].matches({"v": value[id]})]
                shown = pages(snap["c"], size, **how)
                assert sorted(shown, key=str) == wanted, "a snapshot shows its rows, each once"
                assert [record.id for record in snap["c"].scan(**how)] == shown
        child.end(writer)
        assert db.check() == []
    return figures


def test_rows_that_stay_are_seen_exactly_once_whatever_another_process_writes(tmp_path: Path) -> None:
    path, rng = tmp_path / "file", random.Random(3)
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=4)
        ids = [*range(1500), *(f"{rng.choice('abz')}{at}" for at in range(1500))]
        c.add(ids, np.ones((3000, 4)), metadata=[{"v": at % 50} for at in range(3000)])
    figures = go_through(path, commits=120, size=170)
    print(f"paging beside a writer: {figures}, none missed, none twice")


@needs_data()
@pytest.mark.slow
def test_all_rows_of_debian_are_seen_exactly_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    rows = [split(row) for row in debian()[1]]
    sizes = [metadata["installed_size_kb"] for _, _, metadata in rows]
    with vecdb.open(path, durability="none") as db:
        c = db.create_collection("c", dim=4)
        vectors = np.random.default_rng(1).normal(size=(len(rows), 4))
        c.add([id for id, _, _ in rows], vectors, metadata=[{"v": size % 50} for size in sizes])
        db.sync()
    figures = go_through(path, commits=1500, size=1000)
    print(f"paging {len(rows):,} rows beside a writer: {figures}, none missed, none twice")


UPDATER = """
import sys, vecdb
path, n = sys.argv[1], int(sys.argv[2])
with vecdb.open(path, durability="relaxed") as db:
    c = db["c"]
    for number in range(1, n + 1):
        c.upsert(["a", number], [[number, number]] * 2, texts=[str(number)] * 2, metadata=[{"n": number}] * 2)
        if number % 7 == 0:
            c.delete([number - 3])
        if number % 50 == 0:
            print(number, flush=True)
"""


def test_a_row_that_another_process_replaces_is_read_whole_and_never_an_old_one(tmp_path: Path) -> None:
    """`get` takes no transaction while its commit is the last: it must see when it is not."""
    path = tmp_path / "file"
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2, metric="l2")
        c.add(["a", "still"], [[0, 0]] * 2, texts=["0"] * 2, metadata=[{"n": 0}] * 2)
        writer = child.start(UPDATER, path, 700)
        assert writer.stdout is not None
        seen, reads = 0, 0
        while writer.poll() is None:
            for _ in range(200):
                record, other = c.get("a"), c.get("still")
                assert record is not None and other is not None and other.metadata == {"n": 0}
                n = record.metadata["n"]
                assert record.text == str(n) and record.vector.tolist() == [n, n]
                assert n >= seen, "time went backwards"
                seen, reads = n, reads + 1
        child.end(writer)
        assert c["a"].metadata == {"n": 700} and c.get(4) is None and c[700].vector.tolist() == [700, 700]
        print(f"{reads} reads of a row beside 700 commits: none torn, none old")
