"""The search log says what was searched, within its bounds, and forgets when it is told to."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child
from vecdb import F
from vecdb.adapting.adapter import Adapter
from vecdb.errors import InvalidArgument, NotFound, ReadOnly
from vecdb.query import Near, Text
from vecdb.storage import searchlog, veil

SEED = time.time_ns() % 1_000_000
DIM = 8


def made(path: Any = None, **options: Any) -> tuple[vecdb.Database, vecdb.Collection]:
    db = vecdb.open(path, **{"durability": "relaxed", **options})
    c = db.create_collection("c", dim=DIM)
    c.add(range(300), np.random.default_rng(1).normal(size=(300, DIM)), metadata=[{"n": i % 10} for i in range(300)])
    return db, c


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "l.vecdb")


def queries(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


@pytest.mark.parametrize("upkeep", [True, False])
def test_every_kind_of_search_is_logged_as_it_was_asked(path: str, upkeep: bool) -> None:
    db, c = made(path, upkeep=upkeep)
    db.search_log.start(c)
    q = queries(8)
    hits = [
        c.search(q[0]), c.search(q[0]), c.search(q[1].tolist(), 3, where=F.n > 4, exact=True),
        c.search(q[2], k=None, radius=0.5, where={"n": 1}), c.search(q[3], 5, offset=2, recall=0.5, using="vector"),
        c.search(q[4], np.int64(4), ef=np.int32(50), with_vectors=True), *c.search(q[5:7], 2),
        c.prepare(3, where=F.n == 2)(q[7]),
    ]  # fmt: skip
    before = time.time()
    found = list(db.search_log)
    asked = [0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert [entry.query for entry in found] == [Near([float(x) for x in q[at]], "vector" if at == 3 else None) for at in asked]
    assert [entry.shown for entry in found] == [each.ids for each in hits]
    assert [entry.k for entry in found] == [10, 10, 3, None, 5, 4, 2, 2, 3]
    assert [entry.where for entry in found] == [None, None, F.n > 4, F.n == 1, None, None, None, None, F.n == 2]
    assert [entry.options for entry in found] == [
        {}, {}, {"exact": True}, {"radius": 0.5}, {"using": "vector", "recall": 0.5, "offset": 2}, {"ef": 50}, {}, {}, {},
    ]  # fmt: skip
    assert all(entry.collection == "c" and entry.chosen == [] for entry in found)
    assert all(abs(entry.time.timestamp() - before) < 60 for entry in found)
    assert len({entry.id for entry in found}) == len(found)
    assert "LogEntry(" in repr(found[0]) and db.check() == []
    db.close()
    with vecdb.open(path) as again:
        assert [entry.shown for entry in again.search_log] == [entry.shown for entry in found]


def test_texts_are_logged_as_texts() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", encoder="hashing")
        c.add(["a", "b"], texts=["red green", "blue"])
        db.search_log.start(c)
        c.search("red")
        c.search(["blue", "grün"], 1)
        assert [entry.query for entry in db.search_log] == [Near("red"), Near("blue"), Near("grün")]
        assert c.replay().same


def test_query_objects_and_shapes_are_logged(path: str) -> None:
    from vecdb.query import Decay, Field, Fuse, Like

    db, c = made(path)
    db.search_log.start(c)
    q = queries(3)
    boosts = [Field("n", 0.1), Decay("n", 3, 2.0)]
    asked: list[tuple[Any, dict[str, Any]]] = [
        (Near(q[0]), {}), (Near(q[0]) + Near(q[1]), {"diversity": 0.3}),
        (Fuse(Near(q[0]), Like([1, 2], [3]), method="relative"), {"group_by": "n", "group_size": 2}),
        (Near(vecdb.ById(5)), {"boost": boosts}), (Like([7]), {"where": F.n < 5, "exact": True}),
    ]  # fmt: skip
    shown = [c.search(query, 4, **options).ids for query, options in asked]
    shown += [hits.ids for hits in c.search([Near(q[2]), Like([8])], 4)]
    shown.append(c.prepare(4, diversity=0.5)(q[1]).ids)
    asked += [(Near(q[2]), {}), (Like([8]), {}), (Near(q[1]), {"diversity": 0.5})]
    found = list(db.search_log)
    assert [entry.query for entry in found] == [query for query, _ in asked]
    assert [entry.shown for entry in found] == shown
    assert [{**entry.options, **({} if entry.where is None else {"where": entry.where})} for entry in found] == [o for _, o in asked]
    assert c.replay().same and db.check() == [] and db.search_log.to_arrow().num_rows == len(found)
    db.close()


def test_what_is_not_logged() -> None:
    db, c = made()
    other = db.create_collection("other", dim=DIM)
    c.search(queries(1)[0])
    db.search_log.start(c)
    other.search(queries(1)[0])
    with db.transaction():
        c.search(queries(1)[0])
    with db.snapshot() as snap:
        snap["c"].search(queries(1)[0])
    c.explain(queries(1)[0])
    c.why_not(queries(1)[0], 1)
    assert list(db.search_log) == []
    db.search_log.stop(c)
    c.search(queries(1)[0])
    assert list(db.search_log) == [] and repr(db.search_log) == "SearchLog(logs nothing)"
    db.search_log.start(c)
    c.search(queries(1)[0])
    db.search_log.stop()
    assert len(list(db.search_log)) == 1 and len(list(db.search_log.entries(other))) == 0
    db.close()


def test_every_process_logs_and_one_that_only_reads_does_not(path: str) -> None:
    db, c = made(path)
    code = """if True:
        import sys, vecdb
        with vecdb.open(sys.argv[1], mode=sys.argv[2]) as db:
            for i in range(20):
                db["c"].search([float(i)] + [1.0] * 7, i + 1)
            db.search_log.stop() if sys.argv[2] == "rw" else None
        """
    db.search_log.start(c)
    child.end(child.start(code, path, "r"))
    assert list(db.search_log) == []
    child.end(child.start(code, path, "rw"))
    assert [entry.k for entry in db.search_log] == list(range(1, 21))
    c.search([1.0] * 8)
    assert len(list(db.search_log)) == 20, "the other process has stopped it for all"
    with vecdb.open(path, mode="r", durability="relaxed") as reader:
        assert len(list(reader.search_log)) == 20 and reader.search_log.to_arrow().num_rows == 20
        for call in (lambda: reader.search_log.start(reader["c"]), reader.search_log.stop, reader.search_log.clear):
            with pytest.raises(ReadOnly):
                call()
    db.close()


def test_it_is_written_without_being_asked(path: str) -> None:
    db, c = made(path)
    db.search_log.start(c)
    c.search(queries(1)[0])
    end = time.monotonic() + 20
    with vecdb.open(path, mode="r", durability="relaxed") as reader:
        while not list(reader.search_log) and time.monotonic() < end:
            time.sleep(0.05)
        assert len(list(reader.search_log)) == 1
    names = [thread.name for thread in threading.enumerate()]
    assert "vecdb search log" in names
    db.close()
    assert "vecdb search log" not in [thread.name for thread in threading.enumerate()]


def test_own_commits_take_it_along_and_aborted_ones_give_it_back(path: str) -> None:
    db, c = made(path, upkeep=False)
    db.search_log.start(c)
    for q in queries(300):
        c.search(q)
    commit = db._commit_number()
    with pytest.raises(ZeroDivisionError), db.transaction():
        c.add("no")
        db._queue.write(db._local.batch)
        1 / 0  # noqa: B018
    assert len(db._queue) == 300
    c.add("yes")
    assert len(db._queue) == 0 and db._commit_number() == commit + 1
    assert len(list(db.search_log)) == 300 and db.check() == []
    db.close()


def test_what_does_not_fit_the_queue_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.standing import queue

    db, c = made()
    db.search_log.start(c)
    monkeypatch.setattr(queue, "MOST_BYTES", 9 * (queue.OWN + 4 * DIM + 160) + 1)
    for q in queries(25):
        c.search(q)
    assert db.stats()["search_log"]["dropped"] == 15 and db.stats()["search_log"]["waiting"] == 10
    assert len(list(db.search_log)) == 10
    assert db.stats()["search_log"]["collections"]["c"]["on"]
    db.close()


@pytest.mark.parametrize("limit", [1 << 16, 1 << 18])
def test_the_limit_holds_over_ten_times_its_volume(path: str, limit: int) -> None:
    db, c = made(path, upkeep=False, durability="none")
    db.search_log.start(c, max_bytes=limit)
    rng = random.Random(SEED)
    written = commits = 0
    sizes = []
    while written < 10 * limit:
        for _ in range(rng.choice((1, 5, 100))):
            hits = c.search(rng.random() + queries(1)[0], rng.choice((1, 10, 200)))
            written += 60 + 4 * DIM + 3 * len(hits)
        db._queue.flush(1)
        if rng.random() < 0.3:
            c.feedback(hits, hits.ids[0])
        commits += 1
        log = db.stats()["search_log"]["collections"]["c"]
        assert log["bytes"] <= limit
        sizes.append(os.path.getsize(path))
    assert db.stats()["space"]["search_log"] <= 1.3 * limit + (1 << 16)
    assert sizes[-1] - sizes[len(sizes) // 4] <= 2 * limit
    found = [entry.id for entry in db.search_log]
    assert found and db.check() == []
    c.search(queries(1)[0])
    assert [entry.id for entry in db.search_log][: len(found) // 2] != [] and list(db.search_log)[-1].k == 10
    db.search_log.start(c, max_bytes=1 << 16)
    db.close()


MARKER = "zebra crossing"


def test_nothing_is_left_of_what_was_erased(path: str) -> None:
    """Neither text nor key, with readers that pin old pages, after commits of all kinds, and after a copy."""
    db = vecdb.open(path)
    c = db.create_collection("c", encoder="hashing")
    c.add(range(50), texts=[f"text {i}" for i in range(50)])
    db.search_log.start(c)
    with db.snapshot() as snap:
        for round in range(5):
            for i in range(40):
                hits = c.search(f"{MARKER} {i}", 5)
            c.feedback(hits, hits.ids[1])
            c.update(round, metadata={"n": round})
            db._queue.flush(1)
        vectors = c.search(f"{MARKER} 1")
        key = db._env.veil_key()
        assert key is not None and key in Path(path).read_bytes()
        assert len(list(db.search_log)) == 201
        db.search_log.clear()
        assert list(db.search_log) == [] and snap["c"].search("text 1").ids == c.search("text 1").ids
        raw = Path(path).read_bytes()
        assert MARKER.encode() not in raw and key not in raw and key[:8] not in raw
    assert db.check() == [] and len(list(db.search_log)) == 1
    with pytest.raises(InvalidArgument):
        c.feedback(vectors, "nobody")
    c.search("after that", 3)
    db.compact()
    assert [entry.query for entry in db.search_log] == [Near("text 1"), Near("after that")]
    db.close()
    with vecdb.open(path) as again:
        assert len(list(again.search_log)) == 2 and again.check() == []


def test_no_plain_text_is_in_the_file_at_any_time(path: str) -> None:
    db = vecdb.open(path, durability="none")
    c = db.create_collection("c", encoder="hashing")
    c.add("a", texts="something")
    db.search_log.start(c)
    for i in range(200):
        c.search(f"{MARKER} {i}" * 20)
        if i % 20 == 0:
            db._queue.flush(1)
            assert MARKER.encode() not in Path(path).read_bytes()
    db.close()
    assert MARKER.encode() not in Path(path).read_bytes()


def test_what_waits_elsewhere_does_not_come_back_after_it_was_erased(path: str) -> None:
    db, c = made(path, upkeep=False)
    db.search_log.start(c)
    with vecdb.open(path, upkeep=False, durability="relaxed") as other:
        other["c"].search(queries(1)[0])
        assert len(other._queue) == 1
        db.search_log.clear()
        assert list(other.search_log) == [] and len(other._queue) == 0
        other["c"].search(queries(1)[0])
        assert len(list(other.search_log)) == 1
    db.close()


def test_an_erasure_that_was_killed_half_way_has_erased(path: str) -> None:
    db, c = made(path, upkeep=False)
    db.search_log.start(c)
    c.search(queries(1)[0])
    assert len(list(db.search_log)) == 1
    with pytest.raises(ZeroDivisionError), db._batch():
        db._env.renew_veil()
        1 / 0  # noqa: B018
    assert list(db.search_log) == [] and db.check() == []
    c.search(queries(1)[0])
    assert len(list(db.search_log)) == 1
    db.close()


def test_a_copy_carries_the_log(path: str, tmp_path: Path) -> None:
    db, c = made(path)
    db.search_log.start(c)
    c.feedback(c.search(queries(1)[0]), c.search(queries(1)[0]).ids[:2])
    db.backup(tmp_path / "copy.vecdb")
    private, d = made()
    private.search_log.start(d)
    d.search(queries(1)[0])
    list(private.search_log)
    private.backup(tmp_path / "private.vecdb")
    private.close()
    db.close()
    with vecdb.open(tmp_path / "copy.vecdb") as copy, vecdb.open(tmp_path / "private.vecdb") as other:
        assert [len(entry.chosen) for entry in copy.search_log] in ([2, 0], [2, 0]) and copy.check() == []
        assert len(list(other.search_log)) == 1
        copy.search_log.clear()


def test_a_dropped_collection_takes_its_log_along(path: str) -> None:
    db, c = made(path)
    d = db.create_collection("d", dim=DIM)
    db.search_log.start(c)
    db.search_log.start(d)
    c.search(queries(1)[0])
    d.search(queries(1)[0])
    list(db.search_log)
    c.search(queries(1)[0])
    db.rename_collection("d", "e")
    db.drop_collection("c")
    assert [entry.collection for entry in db.search_log] == ["e"] and db.check() == []
    with pytest.raises(NotFound):
        db.search_log.start(c)
    db.search_log.stop()
    db.search_log.start(d, max_bytes=1 << 20)
    db.search_log.clear()
    assert db.check() == []
    db.close()


# --- choices and replays -------------------------------------------------------------------------


def test_feedback_is_durable_when_it_returns(path: str) -> None:
    """Also where the search itself was not written yet: both are, in one commit."""
    db, _ = made(path)
    db.close()
    code = """if True:
        import os, signal, sys, vecdb
        db = vecdb.open(sys.argv[1], upkeep=False)
        c = db["c"]
        db.search_log.start(c)
        hits = c.search([1.0] * 8)
        c.feedback(hits, hits.ids[3])
        c.feedback(hits, chosen=hits.ids[:2] + hits.ids[3:4])
        os.kill(os.getpid(), signal.SIGKILL)
        """
    process = child.start(code, path)
    assert process.wait(60) == -signal.SIGKILL
    with vecdb.open(path) as db:
        (entry,) = db.search_log
        assert entry.chosen == [entry.shown[3], *entry.shown[:2]] and db.check() == []


MISUSES: list[tuple[Any, str]] = [
    (lambda db, c: db.search_log.start("c"), "give a collection"),
    (lambda db, c: db.search_log.start(c, max_bytes=1000), "max_bytes=1000: give an int from 65,536"),
    (lambda db, c: db.search_log.start(c, max_bytes=1e9), "max_bytes"),
    (lambda db, c: db.search_log.stop("c"), "give a collection"),
    (lambda db, c: c.feedback([1], 1), "hits: give the Hits of a search, not a list"),
    (lambda db, c: c.feedback(c.search([1] * DIM), "nobody"), "id 'nobody' is not among the hits"),
    (lambda db, c: c.feedback(c.search([1] * DIM), []), "chosen: 0 ids"),
    (lambda db, c: c.feedback(c.search([1] * DIM), 1.5), "chosen"),
    (lambda db, c: c.feedback(hits_of(c), hits_of(c).ids[0]), "was not logged.*search_log.start"),
    (lambda db, c: c.replay([1]), "entries"),
    (lambda db, c: c.replay(recall=2), "recall=2"),
    (lambda db, c: c.replay(where="n >"), "n >|offset|expect"),
]


def hits_of(c: vecdb.Collection) -> vecdb.Hits:
    return c.search([1] * DIM, 3)


@pytest.mark.parametrize("call, words", MISUSES, ids=[words for _, words in MISUSES])
def test_misuse(call: Any, words: str) -> None:
    db, c = made()
    with pytest.raises((InvalidArgument, vecdb.errors.FilterError), match=words):
        call(db, c)
    assert list(db.search_log) == [] and repr(db.search_log) == "SearchLog(logs nothing)"
    with db.transaction(), pytest.raises(InvalidArgument, match="search_log.clear inside a transaction"):
        db.search_log.clear()
    db.close()


def test_a_replay_without_changes_equals_the_log(path: str) -> None:
    db, c = made(path)
    rng = np.random.default_rng(SEED)
    c.add([f"x{i}" for i in range(3000)], rng.normal(size=(3000, DIM)), metadata=[{"n": i} for i in range(3000)])
    db.search_log.start(c)
    where = [None, F.n < 40, F.n.between(100, 1500), F.n == -1]
    for i, q in enumerate(queries(200, SEED)):
        hits = c.search(q, [1, 10, 50][i % 3], where=where[i % 4], offset=i % 2, recall=[0.5, 0.9, 0.99][i % 3])
        if i % 5 == 0 and len(hits):
            c.feedback(hits, hits.ids[i % len(hits)])
    report = c.replay()
    assert report.same and report.overlap == 1 and len(report.searches) == 200 and not report.failed
    assert all(before == after for before, after in report.metrics.values()) and len(report.metrics) == 3
    db.close()
    with vecdb.open(path) as db:
        report = db["c"].replay()
        assert report.same, str(report)
        assert len(list(db.search_log)) == 200, "a replay is not logged"
        assert len(report.to_pandas()) == 200 and "as then        200 (100 %)" in str(report)


def test_what_a_replay_tells_against_a_plain_reference(path: str) -> None:
    db, c = made(path)
    db.search_log.start(c)
    for i, q in enumerate(queries(40, 3)):
        hits = c.search(q, 8, exact=True)
        if i % 2:
            c.feedback(hits, hits.ids[i % 8 : i % 8 + 2])
    c.delete(list(range(0, 300, 7)))
    c.add([f"new{i}" for i in range(60)], np.random.default_rng(4).normal(size=(60, DIM)))
    report = c.replay()
    ranks: list[tuple[float, float]] = []
    for each in report.searches:
        now = c.search(each.entry.asked, 8, exact=True).ids
        assert each.after == now and each.before == each.entry.shown
        assert each.overlap == len(set(now) & set(each.before)) / 8
        assert set(each.new) == set(now) - set(each.before) and set(each.lost) == set(each.before) - set(now)
        assert each.moved == {
            id: (each.before.index(id) + 1, now.index(id) + 1)
            for id in set(now) & set(each.before) if each.before.index(id) != now.index(id)
        }  # fmt: skip
        if each.entry.chosen:
            first = [[ids.index(id) for id in each.entry.chosen if id in ids] for ids in (each.before, now)]
            ranks.append((1 / (1 + min(first[0])), 1 / (1 + min(first[1])) if first[1] else 0.0))
    assert np.allclose(report.metrics["mrr"], np.mean(ranks, axis=0))
    assert report.metrics["hit rate"][0] == 1 and not report.same and "what moved most" in str(report)
    narrowed = c.replay(where=F.n == 3, recall=1.0)
    assert all(id in {r.id for r in c.scan(F.n == 3)} for each in narrowed.searches for id in each.after)
    db.close()


def test_a_search_that_cannot_be_run_any_more_is_told(path: str) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("c", vectors={"a": vecdb.Vector(2), "b": vecdb.Vector(2)})
        c.add("x", {"a": [[1, 0]], "b": [[1, 0]]})
        db.search_log.start(c)
        c.search([1, 0], using="a")
        c.search([1, 0], using="b")
        c.drop_vector("b")
        report = c.replay()
        assert len(report.searches) == 1 and len(report.failed) == 1 and "'b'" in report.failed[0][1]
        assert not report.same and "could not be run" in str(report)


def test_the_mask_is_the_cipher_of_rfc_8439() -> None:
    from vecdb import _core

    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    key, nonce = bytes(range(32)), bytes.fromhex("000000000000004a00000000")
    found = _core.chacha20(key, nonce, bytes(64) + text)[64:]  # the RFC's example begins with block 1
    assert found.hex().startswith("6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b")
    assert found.hex().endswith("5af90bbf74a35be6b40b8eedf2785e42874d")
    for n in (0, 1, 63, 511, 512, 513, 5000):
        content = np.random.default_rng(n).bytes(n)
        assert veil.unmask(key, veil.mask(key, content)) == content
        assert veil.unmask(key[::-1], veil.mask(key, content)) is None
    for wrong in ((key[1:], nonce), (key, nonce[1:])):
        with pytest.raises(ValueError):
            _core.chacha20(*wrong, b"")


def test_as_a_table() -> None:
    pytest.importorskip("pyarrow")
    db, c = made()
    db.search_log.start(c)
    hits = c.search(queries(1)[0], 2, where=F.n == 3, exact=True)
    c.feedback(hits, hits.ids[0])
    table = db.search_log.to_arrow()
    row = table.to_pylist()[0]
    assert (row["collection"], row["where"], row["k"], row["options"]) == ("c", "n == 3", 2, '{"exact": true}')
    assert (row["shown"], row["chosen"]) == (hits.ids, hits.ids[:1])
    c.add("text", queries(1)[0])
    c.search(queries(1)[0], 2)
    assert db.search_log.to_arrow().to_pylist()[1]["shown"][0] == '"text"'
    db.close()


# --- damage --------------------------------------------------------------------------------------


def test_damage_is_named(path: str) -> None:
    from vecdb.storage import keys, records

    db, c = made(path, upkeep=False)
    db.search_log.start(c)
    c.search(queries(1)[0])
    list(db.search_log)
    with db._batch() as batch:
        logging = searchlog.read(batch.txn)
        key = db._env.veil_key()
        assert key is not None
        records.put(batch.txn, keys.search_log(c._cid, 0, logging.sequence + 5), veil.mask(key, b"\xc1"))
        batch.changed = True
    codes = [each.code for each in db.check()]
    assert sorted(codes) == ["J1", "J1", "J2"]
    with pytest.raises(vecdb.errors.Corrupt, match="J1"):
        list(db.search_log)
    db.search_log.clear()
    assert db.check() == [] and list(db.search_log) == []
    with db._batch() as batch:
        records.put(batch.txn, keys.LOGGING_KEY, b"\xc1")
        batch.change_logging()
    assert [each.code for each in db.check()] == ["J1"]
    assert len(c.search(queries(1)[0])) == 10, "a search goes on"
    db.close()


def test_a_key_that_is_damaged_is_no_key(path: str) -> None:
    db, c = made(path)
    db.search_log.start(c)
    c.search(queries(1)[0])
    assert len(list(db.search_log)) == 1
    with open(path, "r+b") as file:
        file.seek(veil.OFFSET + 20)
        file.write(b"x")
    assert db._env.veil_key() is None and list(db.search_log) == [] and db.check() == []
    c.search(queries(1)[0])
    assert len(list(db.search_log)) == 1
    db.close()


def test_what_cannot_be_written_down_takes_nothing_else_with_it(path: str) -> None:
    db, c = made(path)
    db.search_log.start(c)
    first = c.search(queries(1)[0], 3, where=F.n < 2**70)  # an int that the log's bytes cannot hold
    c.search(queries(1)[0], 4)
    c.add(1000, queries(1)[0])
    assert [entry.k for entry in db.search_log] == [4] and len(first) == 3
    assert db.stats()["search_log"]["dropped"] == 1
    c.search(queries(1)[0], 5, where=F.n < 2**70)
    time.sleep(1.2)  # the thread's turn
    c.search(queries(1)[0], 6)
    assert [entry.k for entry in db.search_log] == [4, 6]
    db.close()
    with vecdb.open(path) as again:
        assert 1000 in again["c"] and again.check() == []


def test_options_that_are_equal_to_python_alone_are_kept_apart() -> None:
    db, c = made()
    db.search_log.start(c)
    for value in (1, True):
        c.search(queries(1)[0], 1, where=F.n == value)
    assert [str(entry.where) for entry in db.search_log] == ["n == 1", "n == true"]


@pytest.mark.parametrize("entries", [5, [1], "ab", object()])
def test_replay_takes_entries_of_the_log(entries: Any) -> None:
    _, c = made()
    with pytest.raises(InvalidArgument, match="entries"):
        c.replay(entries)


def test_long_query_objects_are_counted_in_memory_and_in_the_file(path: str) -> None:
    db = vecdb.open(path, durability="relaxed")
    c = db.create_collection("t", dim=2, fulltext=True)
    c.add(1, [1, 0], texts="gpu")
    db.search_log.start(c, max_bytes=1 << 16)
    for _ in range(200):
        c.search(Text("gpu " + "x" * 1_000))
    found = list(db.search_log)
    assert 10 < len(found) < 200 and found[-1].query == Text("gpu " + "x" * 1_000)
    other = vecdb.open(path, durability="relaxed")
    with other.transaction():  # nobody can write meanwhile
        other["t"].add(2, [0, 1])
        db["t"].search([1.0, 0.0])

        def searching() -> None:
            for _ in range(80):
                c.search(Text("gpu " + "x" * ((1 << 20) - 4)))
                c.search(Near([1.0, 0.0]))

        thread = threading.Thread(target=searching)
        thread.start()
        thread.join()
    assert db.stats()["search_log"]["dropped"] > 0
    list(db.search_log)  # what waits is written: there is room again
    c.search([1.0, 0.0])
    assert list(db.search_log)[-1].query == Near([1.0, 0.0])
    assert db.stats()["search_log"]["collections"]["t"]["bytes"] <= 1 << 16


def test_texts_that_no_query_object_can_have_are_not_logged() -> None:
    def lengths(texts: list[str]) -> Any:
        return np.array([[len(text) + 1, 1.0] for text in texts], np.float32)

    db = vecdb.open()
    c = db.create_collection("c", encoder=vecdb.encoders.function(lengths, name="lengths", dim=2))
    c.add(1, texts="a")
    db.search_log.start(c)
    for text in ("a", "x" * (1 << 20), "x" * (1 << 20) + "x", "\ud800", "b"):
        assert c.search(text).ids == [1]
    assert [entry.query for entry in db.search_log] == [Near("a"), Near("x" * (1 << 20)), Near("b")]
    assert db.stats()["search_log"]["dropped"] == 2


def test_feedback_is_the_collections_that_was_searched() -> None:
    db, c = made()
    other = db.create_collection("other", dim=DIM)
    other.add(range(300), queries(300))
    db.search_log.start(c)
    db.search_log.start(other)
    hits = c.search(queries(1)[0])
    with pytest.raises(InvalidArgument, match="another collection"):
        other.feedback(hits, hits.ids[0])
    assert [entry.chosen for entry in db.search_log] == [[]]
    db.rename_collection("c", "d")
    db["d"].feedback(hits, hits.ids[0])
    assert [entry.chosen for entry in db.search_log] == [hits.ids[:1]]


@pytest.mark.parametrize("dim_out", [DIM, 3])
def test_vectors_are_logged_as_they_were_given_before_any_adapter(path: str, dim_out: int) -> None:
    db, c = made(path)
    c.apply_adapter(Adapter(np.random.default_rng(7).normal(size=(DIM, dim_out)), metric="cosine"), force=True)
    db.search_log.start(c)
    q = queries(7)
    prepared = c.prepare(3)
    c.search(q[0]), c.search(q[0].tolist()), c.search(q[0]), c.search(q[1:3]), c.search(Near(q[3])), c.search(q[4], 2, exact=True)
    prepared(q[5]), prepared(q[5].astype(np.float64)), prepared(q[5:7])
    found = list(db.search_log)
    asked = [0, 0, 0, 1, 2, 3, 4, 5, 5, 5, 6]
    for entry, at in zip(found, asked, strict=True):
        x = entry.query.x
        assert np.array_equal(np.asarray(x if isinstance(x, list | tuple) else np.frombuffer(x.data, x.dtype), np.float32), q[at])
    assert c.replay().same
    c.feedback(c.search(q[0]), chosen=c.search(q[0]).ids[0])
    assert c.evaluate(feedback=True, metrics=["mrr"])["search"]["mrr"].mean == 1.0
