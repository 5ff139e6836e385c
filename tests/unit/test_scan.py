"""scan: order, cursors, pages, and what is refused. Random rows are in model/test_reading.py."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.collection import scan
from vecdb.errors import Closed, FilterError, InvalidArgument, NotFound
from vecdb.storage.env import Env

LONG = "x" * 200
IN_ORDER: list[Any] = [
    False, True, float("-inf"), -1, 0.5, 2**53, 2**53 + 1, float("inf"), float("nan"),
    "", "A", "a", LONG, LONG + "a", LONG + "b", "é", "\uffff", "\U0001f600",
    datetime(1970, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC),
]  # fmt: skip
WITHOUT: list[Any] = [None, [1], [], {"b": 1}]


@pytest.fixture
def c() -> vecdb.Collection:
    return vecdb.open().create_collection("c", dim=2)


def ids(found: Any) -> list[Any]:
    return [record.id for record in found]


# --- order ---------------------------------------------------------------------------------


def test_ids_are_in_order_ints_first_then_strings_by_their_bytes(c: vecdb.Collection) -> None:
    made: list[Any] = [-(2**63), -1, 0, 7, 2**63 - 1, "", "0", "Z", "a", "\uffff", "\U0001f600"]
    made.remove("")
    c.add(made[::-1])
    assert ids(c.scan()) == made == ids(c)
    assert ids(c.scan(descending=True)) == made[::-1]
    assert ids(c.scan(after=next(c.scan(descending=True)))) == []


@pytest.mark.parametrize("few", [0, 256])
def test_values_of_all_kinds_are_in_one_order(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(scan, "FEW", few)
    n = len(IN_ORDER)
    c.add([*range(n)][::-1], metadata=[{"v": v} for v in IN_ORDER[::-1]])
    c.add(["z", "none", "empty", "dict", "list"], metadata=[{}, *({"v": v} for v in WITHOUT)])
    rest = ["dict", "empty", "list", "none", "z"]
    for _ in range(2):
        assert ids(c.scan(order_by="v")) == [*range(n), *rest]
        assert ids(c.scan(order_by="v", descending=True)) == [*range(n)[::-1], *rest]
        assert ids(c.scan(order_by="v.b", limit=1)) == ["list"]
        assert ids(c.scan(order_by="absent")) == [*range(n), *rest]
        c.optimize()


@pytest.mark.parametrize("few", [0, 256])
def test_equal_values_are_in_the_order_of_ids_in_both_directions(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(scan, "FEW", few)
    c.add(["b", 2, 1, "a"], metadata=[{"v": 1}, {"v": 1.0}, {"v": 0}, {"v": -0.0}])
    assert ids(c.scan(order_by="v")) == [1, "a", 2, "b"]
    assert ids(c.scan(order_by="v", descending=True)) == [2, "b", 1, "a"]


# --- what a record of a scan is ------------------------------------------------------------


def test_records_are_whole_and_bring_vectors_only_when_asked(c: vecdb.Collection) -> None:
    c.add(["a", "b"], [[1, 2], [3, 4]], texts=["one", "two"], metadata=[{"n": 1}, {}])
    for how in ({}, {"order_by": "n"}, {"where": F.n == 1}):
        first = next(c.scan(**how))
        assert (first.id, first.text, first.metadata, first.vector) == ("a", "one", {"n": 1}, None)
        whole = next(c.scan(with_vectors=True, **how))
        assert whole == c["a"] and np.array_equal(whole.vector, [1, 2])
    with c._db.transaction():
        c.update("b", vectors=[5, 6])
        assert [r.vector.tolist() for r in c.scan(with_vectors=True)] == [[1, 2], [5, 6]]
        assert [r.vector for r in c.scan()] == [None, None]


def test_limit_counts_rows(c: vecdb.Collection) -> None:
    c.add([*range(1500)])
    for limit in (0, 1, 63, 64, 65, 600, 1500, 9999, np.int64(5)):
        assert ids(c.scan(limit=limit)) == [*range(min(1500, int(limit)))]


# --- cursors -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [None, "v", "w"])
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("few", [0, 256])
def test_a_cursor_goes_on_behind_its_row_whatever_became_of_it(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch, order: str | None, descending: bool, few: int
) -> None:
    monkeypatch.setattr(scan, "FEW", few)
    c.add([*range(20)], metadata=[{"v": i // 3, "w": f"{LONG}{i % 4}"} for i in range(20)])
    how: dict[str, Any] = {"order_by": order, "descending": descending}
    records = list(c.scan(**how))
    for at, record in enumerate(records):
        rest = ids(records[at + 1 :])
        kept = pickle.loads(pickle.dumps(record))
        assert kept.cursor == record.cursor and kept == record
        assert ids(c.scan(after=record, **how)) == rest == ids(c.scan(after=kept.cursor, **how))
        assert ids(c.scan(after=c.get(record.id), **how)) == rest
    c.delete(records[7].id)
    c.update(records[8].id, metadata={"other": 1})
    assert ids(c.scan(after=records[7].cursor, **how)) == ids(records[8:])


def test_the_cursor_of_a_got_record_goes_on_in_id_order(c: vecdb.Collection) -> None:
    c.add([1, 2, "a"], [[1, 0]] * 3)
    assert ids(c.scan(after=c[1].cursor)) == [2, "a"] == ids(c.scan(after=c.get([1])[0]))
    assert c.search([1, 0])[0]._record.cursor is None
    assert set(c["a"].cursor or "") <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_cursor_of_something_else_is_refused_by_what_it_is_of(c: vecdb.Collection) -> None:
    c.add([1, 2], metadata=[{"v": 1}, {"v": 2}])
    other = c._db.create_collection("other", dim=2)
    other.add([1], metadata=[{"v": 1}])
    plain, ordered = next(c.scan()).cursor, next(c.scan(order_by="v")).cursor
    down = next(c.scan(order_by="v", descending=True)).cursor
    for after, how, words in [
        (ordered, {}, "order_by='v'"),
        (plain, {"order_by": "v"}, "the order of ids"),
        (ordered, {"order_by": "w"}, "order_by='v'"),
        (down, {"order_by": "v"}, "descending=True"),
        (next(other.scan()).cursor, {}, "another collection"),
    ]:
        with pytest.raises(InvalidArgument, match=f"after: this cursor is of {words}"):
            c.scan(after=after, **how)
    assert ids(c.scan(order_by="v", after=next(other.scan()))) == [2]  # a record has metadata to go by


def test_garbage_is_no_cursor(c: vecdb.Collection) -> None:
    c.add([1, 2], metadata=[{"v": 1}, {}])
    good = next(c.scan(order_by="v")).cursor
    assert good is not None
    damaged = [good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :] for at in range(len(good))]
    for after in ["", "a", "x" * 50, good[:-1], good + "AAAA", good + "=", "é", "\ud800", *damaged]:
        with pytest.raises(InvalidArgument, match="after="):
            c.scan(order_by="v", after=after)
    for odd in (1, b"x", None.__class__, ["a"], c.search):
        with pytest.raises(InvalidArgument, match="after is a"):
            c.scan(after=odd)  # type: ignore[arg-type]


def test_a_forged_cursor_is_an_error_or_a_place_and_never_more(c: vecdb.Collection) -> None:
    from vecdb.cursor import Place

    c.add([1, 2], metadata=[{"v": 1}, {}])
    wild: list[Place] = [
        Place(c._cid, 2**70, "v"), Place(c._cid, "", "v"), Place(c._cid, "\ud800", "v"),
        Place(c._cid, 1, "v", False, b"\x90"), Place(c._cid, 1, "v", False, b"\xff" * 300),
        Place(c._cid, 1, None, False, b"\x10"), Place(c._cid, 1, "v", False, None, "t"),
        Place(c._cid, 1, "v", False, b"\x20a", "t"), Place(c._cid, 1, "v", False, b"\x20" * 600),
    ]  # fmt: skip
    for place in wild:
        for order in ("v", None):
            try:
                assert len(list(c.scan(order_by=order, after=place.to_text()))) <= 2
            except InvalidArgument as error:
                assert "after" in str(error)


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "how, error, words",
    [
        ({"order_by": 5}, InvalidArgument, "order_by"),
        ({"order_by": ""}, InvalidArgument, "order_by"),
        ({"limit": -1}, InvalidArgument, "limit"),
        ({"limit": 1.5}, InvalidArgument, "limit"),
        ({"limit": True}, InvalidArgument, "limit"),
        ({"descending": 1}, InvalidArgument, "descending"),
        ({"with_vectors": None}, InvalidArgument, "with_vectors"),
        ({"where": 5}, FilterError, "where="),
        ({"where": "x =="}, FilterError, "x =="),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(
    c: vecdb.Collection, how: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        c.scan(**how)


def test_a_scan_of_a_closed_database_or_dropped_collection_says_so() -> None:
    db = vecdb.open()
    c, d = db.create_collection("c", dim=2), db.create_collection("d", dim=2)
    for each in (c, d):
        each.add([*range(200)])
    begun, other = c.scan(), d.scan()
    next(begun), next(other)
    db.drop_collection("d")
    with pytest.raises(NotFound, match="dropped"):
        list(other)
    db.close()
    with pytest.raises(Closed):
        list(begun)


# --- between pages -------------------------------------------------------------------------


def test_no_transaction_is_held_between_pages(c: vecdb.Collection) -> None:
    c.add([*range(300)])
    begun = [c.scan(), c.scan(order_by="x"), c.scan(F.x.is_null())]
    for each in begun:
        next(each)
    env: Env = c._db._env
    assert env.info()["readers"] == [] or not env.info()["readers"]
    with c._db.transaction():
        c.delete(where={})
    assert [len(list(each)) for each in begun] == [63, 63, 63]  # what had been read


def test_rows_that_are_there_all_the_time_come_exactly_once(c: vecdb.Collection) -> None:
    """Writes between pages: new vectors, other metadata, rows before and behind the place."""
    stay = [*range(0, 3000, 3)]
    c.add([*range(3000)], [[1, 1]] * 3000, metadata=[{"v": id % 7} for id in range(3000)])
    for how in ({}, {"order_by": "v"}, {"order_by": "v", "descending": True}, {"where": F.v >= 0}):
        seen: list[Any] = []
        for at, record in enumerate(c.scan(**how)):
            seen.append(record.id)
            if at % 50 == 0:
                c.upsert([at + 1, 5000 + at], [[at, 2]] * 2, metadata=[{"v": (at + 1) % 7}, {"v": 3}])
                c.update(stay[at % len(stay)], vectors=[at, 3], metadata={"other": at})
                c.delete([at + 2] if (at + 2) % 3 else [])
            if at == 500:
                c.optimize()
        assert len(seen) == len(set(seen)) and set(stay) <= set(seen)


def test_scans_in_threads_do_not_disturb_each_other(c: vecdb.Collection) -> None:
    c.add([*range(2000)], metadata=[{"v": -id} for id in range(2000)])
    wrong: list[Any] = []

    def go() -> None:
        for _ in range(3):
            if ids(c.scan(order_by="v")) != [*range(2000)][::-1] or ids(c.scan()) != [*range(2000)]:
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- cost ----------------------------------------------------------------------------------


def test_a_page_costs_what_it_shows(c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows read by all pages together stay near the number of rows shown."""
    n, looked = 4000, [0]
    c.add([*range(n)], metadata=[{"v": id * 7919 % n, "half": id % 2, "rare": id % 100} for id in range(n)])
    c.optimize()

    def paged(**how: Any) -> float:
        """Id entries and rows looked at for each row shown, in pages of 50."""
        looked[0] = shown = 0
        after: Any = None
        while True:
            page = list(c.scan(after=after, limit=50, **how))
            shown += len(page)
            if len(page) < 50:
                return looked[0] / shown
            after = page[-1]

    from vecdb.storage import rows

    real_ids, real_rows = rows.rids_in, rows.read_many

    def counting_ids(entries: Any, *rest: Any) -> Any:
        return real_ids((looked.__setitem__(0, looked[0] + 1) or entry for entry in entries), *rest)

    def counting_rows(get: Any, cid: int, rids: Any) -> Any:
        looked[0] += len(rids)
        return real_rows(get, cid, rids)

    monkeypatch.setattr(rows, "rids_in", counting_ids)
    monkeypatch.setattr(rows, "read_many", counting_rows)
    monkeypatch.setattr(scan, "FEW", 0)
    assert paged() <= 1.1 and paged(order_by="v") <= 0.1
    assert paged(order_by="half") <= 3 and paged(where=F.half == 1) <= 3
    assert paged(where=F.rare == 1) <= 2 and paged(order_by="rare") <= 5


# --- snapshots and declared fields -----------------------------------------------------------


@pytest.mark.parametrize("few", [0, 256])
def test_in_a_snapshot_everything_is_as_it_was(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(scan, "FEW", few)
    c.add([*range(700)], [[1, id] for id in range(700)], metadata=[{"v": id % 9} for id in range(700)])
    ways: list[dict[str, Any]] = [
        {}, {"descending": True}, {"order_by": "v"}, {"order_by": "v", "descending": True}, {"where": F.v == 3},
    ]  # fmt: skip
    before = [[(r.id, r.metadata) for r in c.scan(**how)] for how in ways]
    counts = dict(c.facets("v"))
    with c._db.snapshot() as snap:
        old = snap["c"]
        begun = [old.scan(**how) for how in ways]
        for each in begun:
            next(each)
        c.update([*range(0, 700, 2)], metadata={"v": -1})
        c.delete([*range(3, 700, 9)])
        c.upsert([*range(1, 700, 10)], [[9, 9]] * 70)
        c.optimize()
        for how, rows, one in zip(ways, before, begun, strict=True):
            assert [(r.id, r.metadata) for r in old.scan(**how)] == rows
            assert [r.id for r in one] == [id for id, _ in rows][1:]
            middle = list(old.scan(limit=300, **how))[-1]
            assert [r.id for r in old.scan(after=middle, **how)] == [id for id, _ in rows][300:]
        assert dict(old.facets("v")) == counts != dict(c.facets("v"))
        assert [r.vector.tolist() for r in old.scan(with_vectors=True)] == [[1, id] for id in range(700)]
        assert old.get(3).vector.tolist() == [1, 3] and c.get(3) is None
        with c._db.transaction():
            c.update(5, metadata={"v": 100}, vectors=[7, 7])
            assert old.get(5).vector.tolist() == [1, 5] and c.get(5).vector.tolist() == [7, 7]
            assert old.get(5).metadata == {"v": 5} and next(old.scan(after=old.get(4))).metadata == {"v": 5}
    with pytest.raises(Closed):
        list(old.scan())


def test_a_field_without_an_index_has_no_order_to_walk() -> None:
    c = vecdb.open().create_collection("c", dim=2, fields={"body": vecdb.Unindexed})
    c.add(["a", "b"], metadata=[{"body": "long", "v": 2}, {"body": {"part": 1}, "v": 1}])
    for field in ("body", "body.part"):
        with pytest.raises(InvalidArgument, match=f"order_by: field '{field}' is declared Unindexed"):
            c.scan(order_by=field)
        with pytest.raises(InvalidArgument, match=f"facets: field '{field}' is declared Unindexed"):
            c.facets(field)
    assert ids(c.scan({"body": "long"}, order_by="v")) == ["a"] and ids(c.scan(order_by="v")) == ["b", "a"]


def test_trigrams_of_a_substring_index_are_no_values() -> None:
    field = vecdb.Indexed(str, substring=True)
    c = vecdb.open().create_collection("c", dim=2, fields={"v": field})
    c.add(["a", "b"], metadata=[{"v": "zebra"}, {"v": "antelope"}])
    for _ in range(2):
        assert ids(c.scan(order_by="v")) == ["b", "a"]
        assert list(c.facets("v").items()) == [("antelope", 1), ("zebra", 1)]
        c.optimize()
