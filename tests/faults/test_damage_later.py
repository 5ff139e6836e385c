"""Damage that comes after a search was made ready: the ready way sees it, and the long way names it.

A ready search (_core/prepared.pxi) reads rows straight from the map, without LMDB. A bit of a row's
record is flipped in the file beneath the open database, wherever the record lies, and put back.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import damage
from vecdb import F
from vecdb.index.follow import Follower
from vecdb.storage import keys

SEED, CASES = 20, 60
SEARCHES: list[dict[str, Any]] = [
    {}, {"exact": True}, {"where": F.n < 100}, {"where": F.n < 100, "exact": True}, {"ef": 50},
]  # fmt: skip


class Watched:
    """A ready search that counts how often it answers, and how often it does not."""

    def __init__(self, search: Any, counts: Counter[str]) -> None:
        self._search, self._counts = search, counts

    def answer(self, query: Any) -> Any:
        hits = self._search.answer(query)
        self._counts["answered" if hits is not None else "left to the long way"] += 1
        return hits


def places(raw: bytes, record: bytes) -> list[int]:
    """Where a record lies, copies of earlier trees too."""
    found, at = [], raw.find(record)
    while at >= 0:
        found.append(at)
        at = raw.find(record, at + 1)
    return found


def flip(fd: int, at: int) -> None:
    os.pwrite(fd, bytes((os.pread(fd, 1, at)[0] ^ 4,)), at)


@pytest.mark.parametrize("mode", ["r", "rw"])
def test_a_row_damaged_after_its_search_was_made_ready_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    path, rng, counts = tmp_path / "later.vecdb", random.Random(SEED), Counter[str]()
    texts = ["short", "x" * 1500, "y" * 9000]  # in a leaf, barely in one, on pages of its own
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", dim=16, metric="l2")
        rows = damage.whole(np.random.default_rng(SEED), 300, 16)
        metadata = [{"n": i} for i in range(300)]
        c.add([*range(300)], rows, metadata=metadata, texts=[texts[i % 3] for i in range(300)])
    with damage.read(path) as txn:
        records = {rid: bytes(txn.get(keys.row(1, rid))) for rid in range(300)}
    plain = Follower.ready

    def watched(self: Follower, key: Any) -> Any:
        search = plain(self, key)
        return None if search is None else Watched(search, counts)

    monkeypatch.setattr(Follower, "ready", watched)
    fd = os.open(path, os.O_RDWR)
    with vecdb.open(path, mode=mode, upkeep=False) as db:
        c = db["c"]

        def answer(query: Any, how: dict[str, Any]) -> Any:
            hits = c.search(query, 5, **how)
            return [(h.id, h.text, h.metadata["n"], h.distance) for h in hits]

        for _ in range(CASES):
            query, how = rows[rng.randrange(100)] + np.float32(0.5), rng.choice(SEARCHES)
            sound = answer(query, how)
            assert answer(query, how) == sound
            rid = rng.choice(sound)[0]  # ids are row numbers here
            where = keys.describe(keys.row(1, rid))
            inside = rng.randrange(len(records[rid]))
            found = [at + inside for at in places(path.read_bytes(), records[rid])]
            assert found, where
            for at in found:
                flip(fd, at)
            for _ in range(2):
                with pytest.raises(vecdb.errors.Corrupt, match=where) as caught:
                    answer(query, how)
                assert "backup" in str(caught.value)
            for at in found:
                flip(fd, at)
            assert answer(query, how) == sound, "once it is whole again, so is the answer"
    os.close(fd)
    print(f"damage after a search was made ready: {CASES} rows, seed {SEED}: {dict(counts)}; "
          "silently wrong 0", file=sys.stderr)  # fmt: skip
    assert counts["left to the long way"] == 2 * CASES, "each damaged row was met by a ready search"
    assert counts["answered"] >= 2 * CASES
