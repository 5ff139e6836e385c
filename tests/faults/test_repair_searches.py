"""A repair saves the kept searches too: saved ones, their watchers and the log; what is lost is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import vecdb
from vecdb import F
from vecdb.storage import keys


def made(path: Path) -> tuple[list[int], list[list[int]]]:
    """A file with a dropped collection, searches, watchers and a log; what it shows."""
    with vecdb.open(path, upkeep=False) as db:
        db.create_collection("gone", dim=2)
        c = db.create_collection("c", dim=2)
        db.searches.save("of gone", db["gone"], [1, 0])
        db.drop_collection("gone")
        c.add(range(40), np.random.default_rng(1).normal(size=(40, 2)), metadata=[{"n": i} for i in range(40)])
        saved = db.searches.save("mine", c, [1, 0], 4, where=F.n > 5, exact=True)
        db.searches.save("other", c, [0, 1])
        saved.watch("me")
        c.update(7, metadata={"n": 8})
        db.search_log.start(c)
        c.feedback(c.search([0, 1], 3), c.search([0, 1], 3).ids[1])
        c.feedback(c.search([1, 1], 3), c.search([1, 1], 3).ids[:2])
        return saved.run().ids, [entry.chosen for entry in db.search_log]


def test_kept_searches_are_saved(tmp_path: Path) -> None:
    ids, chosen = made(tmp_path / "src.vecdb")
    report = vecdb.repair(tmp_path / "src.vecdb", tmp_path / "dst.vecdb")
    assert report.ok, str(report)
    assert any("'of gone' was left out" in note for note in report.notes)
    assert any("1 watchers of saved searches begin anew" in note for note in report.notes)
    with vecdb.open(tmp_path / "dst.vecdb") as db:
        assert [entry.chosen for entry in db.search_log] == chosen
        assert db.searches.names() == ["mine", "other"] and db.searches["mine"].run().ids == ids
        news = db.searches["mine"].watch("me", block=False)
        assert sorted(id for batch in news for id in batch.ids) == list(range(6, 40))
        assert db["c"].replay().same and "'c'" in repr(db.search_log)
        assert db.check() == []


def test_what_is_damaged_is_named_and_what_was_erased_stays_so(tmp_path: Path) -> None:
    made(tmp_path / "src.vecdb")
    with vecdb.open(tmp_path / "src.vecdb", upkeep=False) as db:
        with db._batch() as batch:
            record = bytearray(batch.txn.get(keys.search("other")))
            record[-3] ^= 1
            batch.txn.put(keys.search("other"), bytes(record))
            batch.changed = True
        with db._batch():
            db._env.renew_veil()  # as an erasure that was killed half way
    report = vecdb.repair(tmp_path / "src.vecdb", tmp_path / "dst.vecdb")
    assert [(each.kind, each.place) for each in report.lost] == [("search", "'other'")]
    with vecdb.open(tmp_path / "dst.vecdb") as db:
        assert db.searches.names() == ["mine"] and list(db.search_log) == [] and db.check() == []
