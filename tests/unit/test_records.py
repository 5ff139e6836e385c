"""A record takes the pages that its length asks for, however often one transaction rewrites it.

LMDB keeps a value's run of pages when the value becomes shorter within one transaction, and its
verifier, by which `check()` and every doubtful open judge the file, takes such a run for damage.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import vecdb
from vecdb.storage import keys, records
from vecdb.storage.env import Env

LENGTHS = (10, 1_800, 2_000, 3_000, 4_050, 5_000, 9_000, 30_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "r.vecdb"


def test_a_record_that_shrinks_within_a_transaction_leaves_a_sound_file(path: Path) -> None:
    with closing(Env.open(str(path))) as env:
        wt = env.begin_write()
        for at, first in enumerate(LENGTHS):
            for below, then in enumerate(LENGTHS):
                key = keys.row(1, at * len(LENGTHS) + below)
                records.put(wt.txn, key, b"a" * first)
                records.put(wt.txn, key, b"b" * then)
        env.commit(wt)
        assert env.unsound() == []


def test_without_that_care_the_file_is_taken_for_a_damaged_one(path: Path) -> None:
    with closing(Env.open(str(path))) as env:
        wt = env.begin_write()
        for length in (9_000, 10):
            wt.txn.put(keys.row(1, 1), b"a" * length)
        env.commit(wt)
        assert env.unsound()


@pytest.mark.parametrize("dim", [3, 40, 300])
def test_no_order_of_changes_in_one_transaction_leaves_an_unsound_file(path: Path, dim: int) -> None:
    rng = np.random.default_rng(dim)
    with vecdb.open(path, upkeep=False) as db:
        declared = {"v": vecdb.Vector(dim), "m": vecdb.Vector(dim, multi=True)}
        db.create_collection("c", vectors=declared)
        for _ in range(4):
            with db.transaction() as tx:
                t = tx["c"]
                for _ in range(12):
                    ids = rng.choice(200, int(rng.integers(1, 150)), replace=False).tolist()
                    deed = rng.integers(4)
                    if deed == 0:
                        t.delete(ids)
                        continue
                    size = int(rng.choice([1, 100, 5_000]))
                    given = {
                        "v": rng.normal(size=(len(ids), dim)),
                        "m": [rng.normal(size=(int(rng.integers(1, 9)), dim)) for _ in ids],
                    }
                    if deed == 1:
                        del given["v"]
                    t.upsert(ids, given, metadata=[{"s": "x" * size} for _ in ids])
            assert db.check() == []
