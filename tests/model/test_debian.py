"""62,666 real rows: recall, filters, deletes, reopening, and ways of ingesting that agree.

Skipped where ../shared/data is not there. Figures are printed with `-s`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child
from tests.data import debian, needs_data, recall, split
from tests.packages import Packages
from vecdb import F
from vecdb.storage.env import Env

pytestmark = [needs_data(), pytest.mark.timeout(600)]
COMMIT = 1000
BANDS = {"50-100 %": 0.5, "10-50 %": 0.1, "1-10 %": 0.01, "0.1-1 %": 0.001, "< 0.1 %": 0}
QUERIES_A_FILTER = 4


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A database of all rows, added in durable commits of 1,000, and the seconds that it took."""
    path = tmp_path_factory.mktemp("debian") / "debian.vecdb"
    vectors, rows, _ = debian()
    parts = [split(row) for row in rows]
    started = time.perf_counter()
    with vecdb.open(path) as db:
        c = db.create_collection("packages", dim=384)
        for at in range(0, len(parts), COMMIT):
            some = parts[at : at + COMMIT]
            c.add(
                [i for i, _, _ in some],
                vectors[at : at + COMMIT],
                metadata=[m for _, _, m in some],
                texts=[t for _, t, _ in some],
            )
        took = time.perf_counter() - started
    print(f"\ningest: {len(parts)} rows in commits of {COMMIT}: {took:.1f} s")
    return path, took


def test_default_search_reaches_its_recall_and_survives_reopening(built: tuple[Path, float]) -> None:
    path, took = built
    _, _, queries = debian()
    script = (
        "import sys, time, json, numpy as np, vecdb\n"
        "q = np.load(sys.argv[2])\n"
        "t = time.perf_counter(); db = vecdb.open(sys.argv[1], mode=sys.argv[3]); c = db['packages']\n"
        "first = c.search(q[0]).ids; t = time.perf_counter() - t\n"
        "print(json.dumps([t, [c.search(x).ids for x in q]]))\n"
    )
    name = path.parent / "q.npy"
    np.save(name, queries)

    def in_new_process(mode: str) -> Any:
        out = subprocess.run(
            [sys.executable, "-c", script, str(path), str(name), mode],
            capture_output=True, check=True,
        )  # fmt: skip
        return json.loads(out.stdout)

    opened, found = in_new_process("rw")
    _, again = in_new_process("r")
    assert found == again
    with vecdb.open(path) as db:
        c = db["packages"]
        truth = [h.ids for h in c.search(queries, exact=True)]
        here = [c.search(q).ids for q in queries]
        assert here == found
    got = recall(found, truth)
    print(f"\ndefault recall@10 {got:.4f}; open + first search {opened * 1000:.0f} ms "
          f"= {100 * opened / took:.2f} % of the ingest")
    assert got >= 0.95


def test_exact_equals_brute_force(built: tuple[Path, float]) -> None:
    path, _ = built
    vectors, rows, queries = debian()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [row["id"] for row in rows]
    with vecdb.open(path) as db:
        for q in queries[:50]:
            truth = np.sort(1 - unit @ (q / np.linalg.norm(q)))[:10]
            hits = db["packages"].search(q, exact=True)
            assert np.allclose(hits.distances, truth, atol=2e-6)
            assert set(hits.ids) <= set(ids)


class Counted:
    """A read transaction, or a cursor of one, that adds up the bytes that it hands out."""

    def __init__(self, inner: Any, read: list[int]) -> None:
        self._inner = inner
        self._read = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def get(self, key: bytes) -> Any:
        return self._count(self._inner.get(key))

    def value(self) -> Any:
        return self._count(self._inner.value())

    def item(self) -> Any:
        key, value = self._inner.item()
        return key, self._count(value)

    def cursor(self) -> Counted:
        return Counted(self._inner.cursor(), self._read)

    def _count(self, value: Any) -> Any:
        if value is not None:
            self._read.append(len(value))
        return value


def test_following_a_commit_reads_little_of_what_opening_reads(
    built: tuple[Path, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits of 100 rows by another process, with deletes: bytes and records, not seconds."""
    path = tmp_path / "copy.vecdb"
    shutil.copyfile(built[0], path)
    _, _, queries = debian()
    read: list[int] = []
    begin = Env.begin_read
    monkeypatch.setattr(Env, "begin_read", lambda self: Counted(begin(self), read))
    writer = (
        "import sys, numpy as np, vecdb\n"
        "db = vecdb.open(sys.argv[1], upkeep=False); c = db['packages']; q = np.load(sys.argv[2])\n"
        "for n in map(int, sys.stdin):\n"
        "    ids = [f'new-{n}-{i}' for i in range(100)]\n"
        "    c.add(ids, q[n * 100 : n * 100 + 100], metadata=[{'n': n, 'section': 'libs'}] * 100)\n"
        "    print('added', flush=True)\n"
    )
    np.save(tmp_path / "q.npy", queries)
    with vecdb.open(path, mode="r") as db:
        c = db["packages"]

        def taken(question: Any) -> tuple[int, int, Any]:
            read.clear()
            answer = question()
            return sum(read), len(read), answer

        opening, records, _ = taken(lambda: c.search(queries[0], where=F.section == "libs"))
        before = c.count(F.section == "libs")
        other = child.start(writer, path, tmp_path / "q.npy")
        assert other.stdin is not None and other.stdout is not None
        shares = []
        for n in range(5):
            other.stdin.write(f"{n}\n".encode())
            other.stdin.flush()
            assert other.stdout.readline() == b"added\n"
            query = queries[n * 100 + 50]
            size, number, hits = taken(lambda q=query: c.search(q, 1, where=F.section == "libs"))
            assert hits.ids == [f"new-{n}-50"]
            assert c.count(F.section == "libs") == before + 100 * (n + 1)
            shares.append((size / opening, number))
            assert size < 0.1 * opening, f"{size} bytes of {opening}"
        child.end(other)
        db._followers[c._cid].forget()  # the control: loading again is what it must not cost
        again, _, _ = taken(lambda: c.search(queries[0], where=F.section == "libs"))
        assert again > 0.9 * opening
    print(f"\nopening {opening / 1e6:.1f} MB in {records} records; following 100 inserts: "
          + ", ".join(f"{100 * share:.2f} % in {number}" for share, number in shares))  # fmt: skip


@pytest.mark.parametrize("filters", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_random_filters(built: tuple[Path, float], filters: int) -> None:
    """Of up to five clauses over all fields: counted and ranked exactly, found by default, never short."""
    path, _ = built
    vectors, rows, queries = debian()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = {row["id"]: at for at, row in enumerate(rows)}
    packages, rng = Packages(rows), np.random.default_rng(7)
    bands: dict[str, list[float]] = {}
    strategies: Counter[str] = Counter()
    clauses: Counter[int] = Counter()
    ranked: dict[int, Any] = {}  # distances of all rows by query: a query serves several filters
    with vecdb.open(path) as db:
        c = db["packages"]
        for n in range(filters):
            where, holds, width = packages.random(rng)
            if n % 10 == 1:  # some that very few rows satisfy
                source = rows[int(rng.integers(len(rows)))]["source"]
                where, holds = where & (F.source == source), holds & (packages.words["source"] == source)
            clauses[where.clauses] += 1
            matching = int(holds.sum())
            assert c.count(where) == matching, where
            ranked = {at: known for at, known in ranked.items() if at >= n}
            for at in range(n, n + QUERIES_A_FILTER):
                q = queries[at % len(queries)]
                if at not in ranked:
                    ranked[at] = 1 - unit @ (q / np.linalg.norm(q))
                best = np.sort(ranked[at][holds])[:10]
                for hits in (c.search(q, where=where, exact=True), c.search(q, where=where)):
                    found = np.array([numbers[i] for i in hits.ids], int)
                    assert len(set(hits.ids)) == min(10, matching) and holds[found].all(), where
                    assert np.allclose(hits.distances, ranked[at][found], atol=2e-6), where
                    if hits.plan.wanted == "exact":
                        assert np.allclose(hits.distances, best, atol=2e-6), where
                strategies[hits.plan.strategy] += 1
                if matching:
                    band = next(name for name, least in BANDS.items() if matching >= least * len(rows))
                    near = int((hits.distances <= best[-1] + 2e-6).sum())
                    bands.setdefault(band, []).append(near / len(best))
    print(f"\n{filters} filters, seed 7, by clauses {sorted(clauses.items())}; {dict(strategies)}")
    for band, shares in sorted(bands.items()):
        print(f"  {band:10s} {len(shares):5d} searches, recall@10 {np.mean(shares):.4f}")
        assert np.mean(shares) >= 0.95, band
    assert len(bands) == len(BANDS)


@pytest.mark.parametrize("what", ["random", "section"])
def test_recall_after_deletes(built: tuple[Path, float], tmp_path: Path, what: str) -> None:
    path = tmp_path / "copy.vecdb"
    shutil.copy(built[0], path)
    _, rows, queries = debian()
    rng = np.random.default_rng(3)
    if what == "random":
        gone = {rows[int(i)]["id"] for i in rng.permutation(len(rows))[: len(rows) * 3 // 10]}
    else:
        gone = {row["id"] for row in rows if row["section"] == "libs"}
    with vecdb.open(path) as db:
        c = db["packages"]
        if what == "random":
            assert c.delete(sorted(gone)) == len(gone)
        else:
            assert c.delete(where=F.section == "libs") == len(gone)
        assert len(c) == c.count({}) == len(rows) - len(gone)
        truth = [h.ids for h in c.search(queries[:500], exact=True)]
        found = [c.search(q).ids for q in queries[:500]]
        assert not any(gone & set(ids) for ids in found)
        got = recall(found, truth)
        print(f"\nafter deleting {what} ({len(gone)} rows): recall@10 {got:.4f}")
        assert got >= 0.95


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(12_000, (20, 100, 12_000)), pytest.param(62_666, (1, 100, 62_666), marks=pytest.mark.slow)],
)
def test_commits_of_any_size_give_the_same_recall(
    tmp_path: Path, n: int, sizes: tuple[int, ...]
) -> None:
    vectors, rows, queries = debian()
    ids = [row["id"] for row in rows[:n]]
    efs = (10, 14, 20, 32, 48, 64, 96)
    found: dict[int, dict[int, float]] = {}
    for size in sizes:
        with vecdb.open(tmp_path / f"{size}.vecdb", durability="none") as db:
            c = db.create_collection("c", dim=384)
            for at in range(0, n, size):
                c.add(ids[at : at + size], vectors[at : min(at + size, n)])
            truth = [h.ids for h in c.search(queries[:400], exact=True)]
            found[size] = {
                ef: recall([c.search(q, ef=ef).ids for q in queries[:400]], truth) for ef in efs
            }
        print(f"\nrows {n}, commits of {size}: recall@10 by ef {found[size]}")
    for ef in efs:
        at = [found[size][ef] for size in found]
        assert max(at) - min(at) <= 0.01, ef
    least = found[sizes[-1]]
    assert any(r >= 0.95 for r in least.values()) and any(r >= 0.99 for r in least.values())
