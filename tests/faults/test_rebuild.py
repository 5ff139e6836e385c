"""A damaged index is rebuilt from the rows: reads that do not need it go on, `optimize` is the remedy.

A case damages one record of an index, in a file whose images and logs hold everything
(tests/damage.py), and compares with what the sound file answered:

    finder     opens the damaged file: whatever needs the index is refused by name, the rest is right,
               `optimize()` builds it again, and everything is as it was, in `check()` too
    bystander  another process that had the collection open before, follows, and finds the same
    holder     one whose memory was whole, and which optimizes itself

The controls break the rebuild, and the comparison must notice.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child, damage
from tests.damage import keys_of, payload, put
from tests.planting import CID, Plant, chunk_of_posting, delete, flip
from tests.unit import test_check
from vecdb import F
from vecdb.errors import Corrupt
from vecdb.index import rebuild
from vecdb.storage import keys

FILTERS = [F.n < 400, F.tag == "a", F["in.deep"] >= 100, F.n.exists(), F.list.contains("x"), F.n == 7]
INDEX_CODES = {"W1", "A1", "A2", "A3", "E1", "G1", "G2", "G3", "G5", "L2", "Q1", "Q2", "Q3", "Q4", "S1", "S2"}
NOT_OF_ROWS = {"no trigrams"}  # changes a row as well


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rebuild") / "sound.vecdb"
    damage.build(path)
    return path


@pytest.fixture(scope="module")
def model(sound: Path) -> dict[str, Any]:
    with vecdb.open(sound, mode="r") as db:
        return everything(db)


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "d.vecdb"
    shutil.copyfile(sound, copy)
    return copy


# --- what is compared --------------------------------------------------------------------------------


def everything(db: vecdb.Database) -> dict[str, Any]:
    """What a database says, and what no rebuild may change: rows, filters, exact rankings."""
    return {name: of_rows(db[name]) | of_filters(db[name]) for name in db}


def of_rows(c: Any) -> dict[str, Any]:
    """What rests on rows, ids and vectors alone."""
    found: dict[str, Any] = {
        "len": len(c),
        "rows": [
            (r.id, r.text, r.metadata, sorted((n, v.tobytes()) for n, v in r.vectors.items())) for r in c
        ],
        "get": [r and r.id for r in c.get([0, 1, 7, 1299, "plain", "half-7", "nobody"])],
    }
    for using, declared in c.schema.vectors.items():
        if not declared.multi:
            for query in queries(declared.dim):
                hits = c.search(query, 20, using=using, exact=True)
                found[f"exact {using} {query[0]}"] = hits.ids, hits.distances.tobytes()
    return found


def of_filters(c: Any) -> dict[str, Any]:
    return {f"count {where}": c.count(where) for where in FILTERS} | {
        f"scan {where}": [r.id for r in c.scan(where, order_by="n")] for where in FILTERS
    }


def queries(dim: int) -> Any:
    return np.random.default_rng(7).normal(size=(3, dim)).astype(np.float32)


def recall(db: vecdb.Database) -> float:
    """The share of the ten nearest that walks find, over all fields."""
    shares = []
    for name in db:
        for using, declared in db[name].schema.vectors.items():
            if declared.multi:
                continue
            for query in queries(declared.dim):
                true = {*map(repr, db[name].search(query, 10, using=using, exact=True).ids)}
                got = {*map(repr, db[name].search(query, 10, using=using, ef=200).ids)}
                shares.append(len(true & got) / len(true) if true else 1.0)
    return sum(shares) / len(shares)


def digest(found: dict[str, Any]) -> str:
    return blake2b(repr(found).encode(), digest_size=8).hexdigest()


BYSTANDER = """
import sys
import vecdb
from tests.faults.test_rebuild import digest, everything, recall
with vecdb.open(sys.argv[1], upkeep=False) as db:
    held = db.snapshot()
    print(digest(everything(db)), digest({n: everything(held)[n] for n in db}), flush=True)
    for line in sys.stdin:
        print(digest(everything(db)), digest({n: everything(held)[n] for n in db}),
              len(db.check()), recall(db) > 0.95, flush=True)
        break
"""
PLANT = """
import pickle, sys
from tests import damage
from tests.faults.test_rebuild import DAMAGE
with damage.write(sys.argv[1]) as txn:
    DAMAGE[sys.argv[2]][0](txn)
"""


def newest_log(part: int) -> Plant:
    """A bit of the newest log record of a part."""

    def do(txn: Any) -> None:
        found = [k for k in keys_of(txn, keys.prefix(keys.LOG, CID)) if k[13] == part]
        flip(found[-1], 40)(txn)

    return do


def first_of(kind: int) -> Plant:
    return lambda txn: flip(keys_of(txn, keys.prefix(kind, CID))[0], 30)(txn)


def beyond(txn: Any) -> None:
    """Links of slots that were never handed out, soundly framed."""
    put(txn, keys.links(CID, 0, 0, 9), payload(txn, keys.links(CID, 0, 0, 0)))


# the damage, and what it takes away: the graph's walks, filters, everything but single rows
DAMAGE: dict[str, tuple[Plant, str]] = {
    "links": (flip(keys.links(CID, 0, 0, 1), 400), "walks"),
    "entry links": (flip(keys.links(CID, 0, 1, 0), 100), "walks"),
    "links beyond": (beyond, "walks"),
    "log of links": (newest_log(0), "walks"),
    "log of rows": (newest_log(1), "filters"),
    "live rows": (flip(keys.live(CID, 0), 40), ""),
    "leaf": (first_of(keys.ATTRIBUTES), "some filters"),
    "posting": (lambda txn: flip(chunk_of_posting(txn), 40)(txn), "some filters"),
    "lost posting": (lambda txn: txn.delete(chunk_of_posting(txn)), "some filters"),
    "names": (flip(keys.fields(CID), 20), "filters"),
    "effort": (flip(keys.effort(CID, 0), 20), "walks"),
    "state": (flip(keys.state(CID), 20), "walks and filters"),
    "lost state": (delete(keys.state(CID)), "walks and filters"),
}


FIRST = ("links", "log of rows", "leaf", "state")  # of the quick tier; the others are slow


def cases(names: Any, first: Any) -> list[Any]:
    return [pytest.param(name, marks=() if name in first else pytest.mark.slow) for name in names]


def plant(path: Path, name: str) -> None:
    """In another process: this one may have the file open."""
    child.end(child.start(PLANT, path, name))


def differences(db: vecdb.Database, model: dict[str, Any]) -> list[str]:
    found = everything(db)
    return [f"{name}: {what}" for name in model for what in model[name] if found[name][what] != model[name][what]]


# --- the promises ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases(DAMAGE, FIRST))
def test_whoever_finds_it_is_told_goes_on_and_mends_it(
    path: Path, model: dict[str, Any], name: str
) -> None:
    _, lost = DAMAGE[name]
    bystander = child.start(BYSTANDER, path)
    assert bystander.stdout is not None and bystander.stdin is not None
    expected = digest(model)
    assert bystander.stdout.readline().decode().split() == [expected, expected]
    plant(path, name)
    with vecdb.open(path, upkeep=False) as db:
        c = db["rows"]
        assert of_rows(c) == {what: model["rows"][what] for what in of_rows(c)}, "rows need no index"
        refused = [where for where in FILTERS if is_refused(lambda w=where: c.count(w))]  # type: ignore[misc]
        assert bool(refused) == ("filters" in lost) and (len(refused) < len(FILTERS)) == ("some" in lost or not refused)
        assert c.explain(None, 1, ef=8).strategy == "graph"
        assert is_refused(lambda: c.search(np.zeros(damage.DIM), 1, ef=8)) == ("walks" in lost)
        kept = {f"count {w}": c.count(w) for w in FILTERS if w not in refused}
        assert kept == {what: model["rows"][what] for what in kept}
        assert db.check() != []
        assert is_refused(lambda: c.add("new", np.ones(damage.DIM))) or "some" in lost
        if "some" in lost:  # whose other parts can be written to
            c.delete("new")
        c.optimize()
        assert db.check() == [] and differences(db, model) == [] and recall(db) > 0.95
        add_and_take(c)
        assert db.check() == [] and differences(db, model) == []
    bystander.stdin.write(b"now\n")
    bystander.stdin.flush()
    assert child.end(bystander).decode().split() == [expected, expected, "0", "True"]
    with vecdb.open(path, mode="r") as db:
        assert db.check() == [] and differences(db, model) == []


def is_refused(ask: Callable[[], Any]) -> bool:
    """Whether a call is refused by the error that names place and remedy."""
    try:
        ask()
    except Corrupt as error:
        assert error.where in str(error) and "optimize()" in str(error), error
        return True
    return False


def add_and_take(c: Any) -> None:
    """Rows come and go: what was built again can be written to."""
    rng = np.random.default_rng(3)
    for n in range(5):
        ids = [f"new-{n}-{i}" for i in range(30)]
        c.add(ids, damage.whole(rng, 30, damage.DIM), metadata=[damage.metadata(i) for i in range(30)])
        if n % 2:
            c.optimize()
        c.delete(ids)


def unreadable_round(txn: Any) -> None:
    test_check.change(txn, keys.state(CID), lambda state: {**state, "condemned": 1})
    test_check.put(txn, keys.condemned(CID), b"abc")


SLOTS: dict[str, Plant] = {
    "resting slots": lambda txn: test_check.put(txn, keys.resting(CID, 1 << 40), b"abc"),
    "condemned slots": unreadable_round,
}


@pytest.mark.parametrize("name", SLOTS)
def test_records_of_slots_refuse_a_delete_by_name_and_are_mended(
    path: Path, model: dict[str, Any], name: str
) -> None:
    with damage.write(path) as txn:
        SLOTS[name](txn)
    with vecdb.open(path, upkeep=False) as db:
        c = db["rows"]
        some = [record.id for record in c.scan(limit=3)]
        assert is_refused(lambda: c.delete(some)) and differences(db, model) == []
        c.optimize()
        assert db.check() == [] and differences(db, model) == []
        add_and_take(c)
        assert db.check() == [] and differences(db, model) == []


@pytest.mark.parametrize("name", cases(DAMAGE, FIRST))
def test_a_process_whose_memory_is_whole_mends_the_file(
    path: Path, model: dict[str, Any], name: str
) -> None:
    with vecdb.open(path, upkeep=False) as db:
        assert differences(db, model) == []
        plant(path, name)
        db.optimize()
        assert db.check() == [] and differences(db, model) == [] and recall(db) > 0.95
    with vecdb.open(path, mode="r") as db:
        assert db.check() == [] and differences(db, model) == []


PLANTS = {
    f"{code} {name}": plant for code, name, plant, *_ in test_check.PLANTS
    if code in INDEX_CODES and name not in NOT_OF_ROWS
}  # fmt: skip
FIRST_PLANTS = {name[:2]: name for name in reversed(PLANTS)}.values()  # one of each code


@pytest.mark.parametrize("name", cases(PLANTS, FIRST_PLANTS))
def test_what_check_finds_of_an_index_is_gone_after_a_rebuild(
    path: Path, model: dict[str, Any], name: str
) -> None:
    """Contradictions beneath right checksums: only `rebuild=True` looks at no index at all."""
    with damage.write(path) as txn:
        PLANTS[name](txn)
    with vecdb.open(path, upkeep=False, verify="never") as db:
        assert db.check() != []
        db["rows"].optimize(rebuild=True)
        assert db.check() == [] and differences(db, model) == []


def test_everything_at_once_again_and_again(path: Path, model: dict[str, Any]) -> None:
    rng = random.Random(11)
    rounds = int(os.environ.get("VECDB_REBUILDS", "2"))
    for _ in range(rounds):
        some = rng.sample(sorted(set(DAMAGE) - {"state", "lost posting"}), 4)
        with damage.write(path) as txn:
            for name in some:
                try:
                    DAMAGE[name][0](txn)
                except (IndexError, TypeError):
                    pass  # no such record now: folded
        with vecdb.open(path, upkeep=False) as db:
            db.optimize()
            assert db.check() == [] and differences(db, model) == [], some
            db["rows"].upsert(["late"], np.ones((1, damage.DIM)), metadata={"n": 1})
            db["rows"].delete("late")
    print(f"{rounds} rounds of four kinds of damage, seed 11: differences 0")


def test_damaged_rows_are_not_rebuilt_from(path: Path) -> None:
    with damage.write(path) as txn:
        flip(keys.vector_block(CID, 0, 1), 5000)(txn)
        flip(keys.links(CID, 0, 0, 1), 400)(txn)
    before = path.read_bytes()
    with vecdb.open(path, upkeep=False) as db:
        for how in ({}, {"rebuild": True}):
            with pytest.raises(Corrupt, match="repair") as caught:
                db["rows"].optimize(**how)
            assert caught.value.where == "vectors/1/0x0000000001"
        found = {p.code for p in db.check()}
    assert "F1" in found and len(before) == path.stat().st_size


def test_progress_and_cancel_count_what_is_built(path: Path) -> None:
    with vecdb.open(path, upkeep=False) as db:
        told: list[tuple[int, Any]] = []
        db["rows"].optimize(rebuild=True, progress=lambda done, total: told.append((done, total)))
        assert told == [(1, None), (2, None), (3, 4), (4, 4)]
        commit = db.stats()["commit"]
        db["rows"].optimize(rebuild=True, cancel=lambda: True)
        assert db.stats()["commit"] == commit


# --- the controls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["_build_metadata", "_build_graph"])
def test_a_rebuild_that_leaves_something_out_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with damage.write(path) as txn:
        for name in ("links", "leaf", "log of rows"):
            DAMAGE[name][0](txn)
    monkeypatch.setattr(rebuild.Rebuilding, what, lambda *_: None)
    with vecdb.open(path, upkeep=False) as db:
        with pytest.raises(Corrupt):
            db["rows"].optimize()
        assert db.check() != []


def test_a_rebuild_that_forgets_a_row_is_noticed(
    path: Path, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = rebuild.Rebuilding._indexed
    monkeypatch.setattr(rebuild.Rebuilding, "_indexed", lambda self: list(plain(self))[1:])
    with vecdb.open(path, upkeep=False) as db:
        db["rows"].optimize(rebuild=True)
        assert differences(db, model) != [] and db.check() != []
