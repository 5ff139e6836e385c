"""A standing search gives each row that came to match, in the order of the commits, until it is acknowledged."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child
from vecdb import F
from vecdb.errors import InvalidArgument, NotFound, ReadOnly
from vecdb.index import tracking
from vecdb.standing import watch
from vecdb.storage import rows

SEED = time.time_ns() % 1_000_000


def ids(batches: Any, *, ack: bool = False) -> list[Any]:
    found: list[Any] = []
    for batch in batches:
        found += batch.ids
        if ack:
            batch.ack()
    return found


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "w.vecdb")


@pytest.mark.parametrize("number", range(6))
def test_random_changes_against_a_dict(path: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any changes, by two handles, with upkeep at any time, reopened, small batches: what a dict says."""
    rng = random.Random(SEED + number)
    print("seed", SEED + number)
    monkeypatch.setattr(watch, "BATCH_ROWS", rng.choice((1, 3, 1000)))
    fields: dict[str, Any] = {"vectors": {"a": vecdb.Vector(2), "b": vecdb.Vector(3, metric="l2")}} if number % 2 else {"dim": 2}
    db = vecdb.open(path, durability="relaxed", upkeep=False)
    c = db.create_collection("c", **fields)
    using = {"using": "a"} if number % 2 else {}
    changed: dict[int, tuple[int, dict[str, Any], bool]] = {}  # id -> commit, metadata, near

    def write() -> None:
        nonlocal changed
        after = dict(changed)
        commit = db._commit_number() + 1
        with db.transaction():
            for _ in range(rng.choice((1, 1, 2, 5))):
                some = rng.sample(range(60), rng.choice((1, 2, 8)))
                deed = rng.random()
                if deed < 0.2:
                    c.delete(some)
                    for id in some:
                        after.pop(id, None)
                elif deed < 0.5:
                    known = [id for id in some if id in after]
                    value = {"n": rng.randrange(4)}
                    c.update(known, metadata=value)
                    after.update({id: (commit, {**after[id][1], **value}, after[id][2]) for id in known})
                elif deed < 0.6:
                    value = {"n": rng.randrange(4)}
                    c.update(where=F.n == 1, metadata=value)
                    after.update({id: (commit, {**m, **value}, v) for id, (_, m, v) in after.items() if m["n"] == 1})
                else:
                    near = rng.random() < 0.5
                    value = {"n": rng.randrange(4)}
                    vector: Any = None if not near and rng.random() < 0.3 else [1, 0] if near else [-1, 0.1]
                    given = None if vector is None else [vector] * len(some)
                    c.upsert(some, {"a": given} if number % 2 and given else given, metadata=[value] * len(some))
                    after.update(dict.fromkeys(some, (commit, value, near)))
        changed = after

    def expected(after: int, scored: bool) -> list[int]:
        found = [(at, id) for id, (at, m, near) in changed.items() if at > after and m["n"] >= 2 and (near or not scored)]
        return [id for _, id in sorted(found, key=lambda each: each[0])]

    def same(got: list[int], wanted: list[int]) -> None:
        assert [(changed[id][0]) for id in got] == [changed[id][0] for id in wanted]
        assert sorted(got) == sorted(wanted)

    for _ in range(10):
        write()
    saved = db.searches.save("s", c, [1, 0], where=F.n >= 2, **using)
    watchers = {}  # name -> the commit up to which it has acknowledged, and whether it goes by score
    for step in range(60):
        if rng.random() < 0.7:
            write()
        if len(watchers) < 4 and rng.random() < 0.2:
            name, scored, start = f"w{step}", rng.random() < 0.5, rng.choice(("now", "beginning"))
            saved.watch(name, start=start)
            watchers[name] = (0 if start == "beginning" else db._commit_number(), scored)
        if watchers and rng.random() < 0.5:
            name = rng.choice(list(watchers))
            place, scored = watchers[name]
            found = saved.watch(name, min_score=0.5 if scored else None, block=False)
            commit = db._commit_number()
            batches = list(found)
            same([id for batch in batches for id in batch.ids], expected(place, scored))
            for batch in batches:
                assert [hit.metadata for hit in batch] == [changed[id][1] for id in batch.ids]
            if batches and rng.random() < 0.7:
                batches[-1].ack()
                watchers[name] = commit, scored
        if rng.random() < 0.1:
            c.optimize(rebuild=rng.random() < 0.3)
        if rng.random() < 0.1:
            db.close()
            db = vecdb.open(path, durability="relaxed", upkeep=False)
            c, saved = db["c"], db.searches["s"]
        if rng.random() < 0.05:
            db.compact()
        if rng.random() < 0.05:
            db.searches.delete("s")
            watchers.clear()
            saved = db.searches.save("s", c, [1, 0], where=F.n >= 2, **using)
    assert db.check() == []
    db.close()


def test_nobody_who_does_not_watch_pays(path: str) -> None:
    """No row says anything of its commit before there is a watcher, nor after the last one is gone."""
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", dim=2)
        c.add(1, [1, 0], metadata={"n": 1})
        saved = db.searches.save("s", c, [1, 0])

        def noted() -> list[int]:
            with c._reading() as (txn, view):
                reader = c._follower().attributes.reader(txn)
                found = tracking.changed_after(view, reader, view.live, 0, 0)
                return [rows.id_from(rows.get(txn, c._cid, rid).idkey) for rid in found]  # type: ignore[misc]

        assert noted() == [] and c.schema.tracked == ()
        saved.watch("me")
        c.add(2, [1, 0])
        c.update(1, metadata={"n": 2})
        assert noted() == [2, 1]
        db.searches.delete("s")
        c.add(3, [1, 0])
        c.upsert(2, [1, 0])
        assert noted() == [1] and db.check() == []
        again = db.searches.save("s", c, [1, 0])
        assert ids(again.watch("me", start="beginning", block=False)) == [1, 3, 2]
        c.optimize(rebuild=True)
        assert c.stats()["fields"] == ["n"] and db.check() == []


def test_a_watch_stays_in_proportion_to_what_was_changed(path: str) -> None:
    with vecdb.open(path, durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=2)
        saved = db.searches.save("s", c, [1, 0])
        saved.watch("me")
        c.add(range(20_000), metadata=[{"n": i} for i in range(20_000)])
        news = saved.watch("me", block=False)
        assert [len(batch) for batch in news] == [1000] * 20
        c.update(7, metadata={"n": -1})
        read: list[int] = []
        plain = rows.read_many
        rows.read_many = lambda get, cid, rids: (read.extend(rids), plain(get, cid, rids))[1]  # type: ignore[assignment, func-returns-value]
        try:
            assert ids(news, ack=True) == [7]
        finally:
            rows.read_many = plain
        assert len(read) == 1


def test_a_batch_is_hits(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2, metric="l2")
        news = db.searches.save("s", c, [0, 0]).watch("me", block=False)
        with db.transaction():
            c.add([2, 1], [[3, 4], [0, 1]], metadata=[{"a": 1}, {}], texts=["two", None])
            c.add("plain", metadata={"a": 2})
        (batch,) = news
        assert isinstance(batch, vecdb.Hits) and sorted(map(str, batch.ids)) == ["1", "2", "plain"]
        by_id = {hit.id: hit for hit in batch}
        assert (by_id[2].distance, by_id[2].text, by_id[2].metadata) == (5.0, "two", {"a": 1})
        assert np.isnan(by_id["plain"].distance) and np.isnan(by_id["plain"].score)
        assert batch.plan.strategy == "changes" and "changes" in repr(batch) and "<table" in batch._repr_html_()


def test_an_ack_covers_what_came_before_and_is_part_of_a_transaction(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2)
        done = db.create_collection("done", dim=2)
        saved = db.searches.save("s", c, [1, 0])
        news = saved.watch("me", block=False)
        c.add(1, [1, 0])
        first = next(news)
        c.add(2, [1, 0])
        second = next(news)
        with pytest.raises(ZeroDivisionError), db.transaction():
            done.add(second.ids)
            second.ack()
            1 / 0  # noqa: B018
        assert ids(saved.watch("me", block=False)) == [1, 2] and len(done) == 0
        with db.transaction():
            done.add(second.ids)
            second.ack()
        first.ack()  # nothing goes back
        assert ids(saved.watch("me", block=False)) == [] and len(done) == 1


def test_a_waiting_watch_wakes_for_another_process_and_ends_with_the_database(path: str) -> None:
    db = vecdb.open(path)
    c = db.create_collection("c", dim=2)
    news = db.searches.save("s", c, [1, 0], where=F.n == 1).watch("me")
    got: list[Any] = []

    def follow() -> None:
        for batch in news:
            got.extend(batch.ids)

    thread = threading.Thread(target=follow)
    thread.start()
    code = """if True:
        import sys, vecdb
        with vecdb.open(sys.argv[1]) as db:
            db["c"].add([1, 2, 3], metadata=[{"n": 1}, {"n": 0}, {"n": 1}])
        """
    child.end(child.start(code, path))
    end = time.monotonic() + 10
    while len(got) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert got == [1, 3]
    before = time.thread_time_ns(), time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before[1] < 0.1, "it waits without work"
    db.close()
    thread.join(10)
    assert not thread.is_alive()


def test_a_timeout_ends_the_wait_and_the_watch_goes_on(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2)
        news = db.searches.save("s", c, [1, 0]).watch("me", timeout=0.05)
        assert ids(news) == []
        c.add(1)
        assert ids(news) == [1]


def test_what_ends_a_watch(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2)
        saved = db.searches.save("s", c, [1, 0])
        news = saved.watch("me", block=False)
        c.add(1, [1, 0])
        batch = next(news)
        with db.transaction(), pytest.raises(InvalidArgument, match="inside a transaction"):
            next(news)
        with db.transaction(), pytest.raises(InvalidArgument, match="watch inside a transaction"):
            saved.watch("other")
        db.searches.delete("s")
        for call in (lambda: next(news), batch.ack, lambda: saved.watch("me")):
            with pytest.raises(NotFound, match="saved search 's' was deleted"):
                call()
        news = db.searches.save("s", c, [1, 0]).watch("me", block=False)
        db.drop_collection("c")
        with pytest.raises(NotFound, match="the collection of saved search 's' was dropped"):
            next(news)
        assert db.check() == []


def test_a_read_only_handle_watches_on_and_cannot_acknowledge(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2)
        db.searches.save("s", c, [1, 0]).watch("me")
        c.add(1, [1, 0])
        with vecdb.open(path, mode="r") as reader:
            news = reader.searches["s"].watch("me", block=False)
            batch = next(news)
            assert batch.ids == [1]
            with pytest.raises(ReadOnly):
                batch.ack()


def test_min_score_is_of_a_near_by_text_id_or_vector(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder="hashing")
        c.add("seed", texts="red green")
        near = vecdb.query.Near
        watches = {
            name: db.searches.save(name, c, query).watch("me", min_score=0.9, block=False)
            for name, query in [("t", "red green"), ("i", near(vecdb.ById("seed"))), ("v", c.vectors(["seed"])[0])]
        }
        c.add(["yes", "no"], texts=["green red", "blue"])
        for news in watches.values():
            assert ids(news) == ["yes"]
        with pytest.raises(InvalidArgument, match="min_score"):
            watch.check_min_score(_Other(db.searches["t"]), 0.5)  # type: ignore[arg-type]


class _Other:
    """A saved search with another kind of query."""

    def __init__(self, saved: Any) -> None:
        self.name, self.query = saved.name, vecdb.query.Text("words") + vecdb.query.Near("words")


def test_a_watcher_in_a_damaged_place_is_named(path: str) -> None:
    from vecdb.storage import keys, records, searches

    with vecdb.open(path) as db:
        c = db.create_collection("c", dim=2)
        saved = db.searches.save("s", c, [1, 0])
        saved.watch("me")
        with db._batch() as batch:
            searches.put_position(batch.txn, saved._number, "ahead", (1 << 40, 0))
            searches.put_position(batch.txn, saved._number ^ 1, "orphan", (0, 0))
            records.put(batch.txn, keys.watcher(saved._number, "short"), b"abc")
            batch.changed = True
        found = db.check()
        assert [each.code for each in found] == ["D2"] * 3
        assert {b"orphan".hex() in each.where for each in found} == {True, False}
        with pytest.raises(vecdb.errors.Corrupt, match="D2"):
            saved.watch("short")


def test_a_watch_goes_on_when_the_fields_vectors_become_others() -> None:
    """Its query goes through the adapters of the commit that it reads, a row's own vector through none twice."""
    import numpy as np

    from vecdb.adapting.adapter import Adapter

    db = vecdb.open()
    c = db.create_collection("c", dim=2)
    c.add(["a", "b"], [[1, 0], [0, 1]])
    plain = db.searches.save("plain", c, vecdb.query.Near([1, 0])).watch("w", min_score=0.9, timeout=0)
    by_id = db.searches.save("by id", c, vecdb.query.Near(vecdb.ById("a"))).watch("w", min_score=0.9, timeout=0)
    both = (plain, by_id)
    c.add("c", [1, 0.1])
    assert [[h.id for b in each for h in b] for each in both] == [["c"], ["c"]]
    c.apply_adapter(Adapter([[0, 1, 0], [1, 0, 0]], metric="cosine"), force=True)
    c.add(["d", "e"], [[0.1, 1], [1, 0.05]])
    assert [[h.id for b in each for h in b] for each in both] == [["e"], ["e"]]
    assert np.allclose(c.vectors("a"), [[0, 1, 0]])
    c.rollback_vectors()
    c.add("f", [1, 0.02])
    assert [[h.id for b in each for h in b] for each in both] == [["f"], ["f"]]
