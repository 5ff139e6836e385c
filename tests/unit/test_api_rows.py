"""What the verbs on rows promise: add, upsert, update, delete, get, count, len, in, iteration."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import REMOVE, F
from vecdb.errors import AlreadyExists, NotFound


@pytest.fixture
def db() -> Iterator[vecdb.Database]:
    with vecdb.open() as database:
        yield database
        assert database.check() == []


@pytest.fixture
def c(db: vecdb.Database) -> vecdb.Collection:
    return db.create_collection("c", dim=2, metric="l2")


# --- ids -----------------------------------------------------------------------------------


def test_ids_of_both_kinds_stand_side_by_side(c: vecdb.Collection) -> None:
    c.add([1, "1"], [[1, 0], [0, 1]], metadata=[{"kind": "int"}, {"kind": "str"}])
    assert c[1].metadata == {"kind": "int"} and c["1"].metadata == {"kind": "str"}
    assert c.search([0, 1], 1).ids == ["1"] and type(c.search([1, 0], 1).ids[0]) is int
    assert c.delete(1) == 1 and 1 not in c and "1" in c


def test_iteration_is_in_id_order_ints_by_value_then_strings_by_bytes(c: vecdb.Collection) -> None:
    ids = [3, -5, 0, 2**63 - 1, -(2**63), "b", "a", "ä", "B", "aa", "10", "9", "\x00", "𝄞", "\uffff"]
    random.Random(0).shuffle(ids)
    c.add(ids, np.ones((len(ids), 2)))
    numbers = sorted(i for i in ids if isinstance(i, int))
    names = sorted((i for i in ids if isinstance(i, str)), key=str.encode)
    assert [record.id for record in c] == [*numbers, *names]


def test_iteration_goes_through_more_than_a_page(c: vecdb.Collection) -> None:
    c.add(range(2000), np.ones((2000, 2)))
    assert [record.id for record in c] == [*range(2000)]


def test_generated_ids_are_unique_and_sort_by_their_birth(c: vecdb.Collection) -> None:
    made: list[Any] = []
    for _ in range(20):
        batch = c.add(vectors=np.ones((50, 2)))
        assert batch == sorted(batch) and all(type(i) is str for i in batch)
        if made:
            assert min(batch) > max(made), "a later call gives later ids"
        made += batch
        time.sleep(0.002)
    assert len(set(made)) == 1000 == len(c)
    assert [record.id for record in c] == made


def test_numpy_ids_become_pythons_own(c: vecdb.Collection) -> None:
    assert c.add(np.array([5, 6]), np.ones((2, 2))) == [5, 6]
    assert c.add(np.array(["x", "y"]), np.ones((2, 2))) == ["x", "y"]
    assert c.add([np.int32(7), np.str_("z")], np.ones((2, 2))) == [7, "z"]
    found = c.get([np.int64(5), np.str_("x")])
    assert [type(record.id) for record in found if record] == [int, str]
    assert np.uint8(6) in c and np.str_("y") in c


def test_in_answers_for_anything(c: vecdb.Collection) -> None:
    c.add("a", [1, 0])
    assert "a" in c
    for other in ("b", 1, 1.0, None, True, b"a", ("a",), ["a"], object(), "x" * 500, 2**70):
        assert other not in c


# --- add -------------------------------------------------------------------------------------


def test_add_takes_one_row_in_single_form(c: vecdb.Collection) -> None:
    assert c.add("a", [1, 0], metadata={"x": 1}, texts="one") == ["a"]
    assert c.add(2, np.array([[0, 1]])) == [2]
    assert c.add("only metadata", metadata={"x": 2}) == ["only metadata"]
    assert c.add("nothing at all") == ["nothing at all"]
    (made,) = c.add(vectors=[3, 3])
    assert len(c) == 5 and c[made].vector.tolist() == [3, 3]  # type: ignore[union-attr]
    assert (c["a"].text, c["a"].metadata) == ("one", {"x": 1})
    assert c["nothing at all"].vector is None and c["nothing at all"].metadata == {}


def test_add_is_all_or_nothing(c: vecdb.Collection) -> None:
    c.add("b", [1, 0], metadata={"x": 1})
    with pytest.raises(AlreadyExists):
        c.add(["a", "b", "c"], np.ones((3, 2)))
    assert [r.id for r in c] == ["b"] and c.search([1, 1]).ids == ["b"]


def test_empty_calls_touch_nothing(c: vecdb.Collection) -> None:
    c.add("a", [1, 0])
    commit = c.stats()["commit"]
    assert c.add([], []) == [] == c.upsert([], np.empty((0, 2)))
    assert c.update([], metadata={"x": 1}) == 0 == c.delete([])
    assert c.get([]) == []
    assert c.stats()["commit"] == commit and c["a"].metadata == {}


def test_what_went_in_comes_out(c: vecdb.Collection) -> None:
    moment = datetime(2024, 2, 29, 12, 30, 1, 5, timezone(timedelta(hours=5, minutes=30)))
    given = {
        "text": "ä\x00𝄞", "empty": "", "int": -(2**63), "float": 0.1, "whole": 2.0, "zero": -0.0,
        "inf": float("-inf"), "true": True, "none": None, "list": [1, "a", None, 2.5, False],
        "none of it": [], "when": moment, "nested": {"a": {"b": 1}, "c": {}}, "ä.ö": 1, "": "x",
        "numpy": np.float32(0.5), "tuple": (1, 2),
    }  # fmt: skip
    c.add("a", [1, 0], metadata=given)
    found = c["a"].metadata
    expected = {**given, "numpy": 0.5, "tuple": [1, 2]}
    assert found == expected and repr(found) == repr({**expected, "when": found["when"]})
    assert found["when"].utcoffset() == moment.utcoffset()
    assert type(found["whole"]) is float and type(found["true"]) is bool
    c.add("nan", metadata={"x": float("nan"), "utc": datetime(2020, 1, 1, tzinfo=UTC)})
    assert repr(c["nan"].metadata["x"]) == "nan"


def test_metadata_given_or_got_is_a_copy(c: vecdb.Collection) -> None:
    given = {"tags": ["a"], "in": {"x": 1}}
    c.add("a", [1, 0], metadata=given)
    given["tags"].append("b")  # type: ignore[attr-defined]
    found = c["a"].metadata
    found["tags"].append("c")
    found["more"] = 1
    assert c["a"].metadata == {"tags": ["a"], "in": {"x": 1}}


def test_vectors_keep_their_length_and_their_dtype(db: vecdb.Database) -> None:
    for dtype, kind in (("f32", np.float32), ("f16", np.float16)):
        c = db.create_collection(dtype, dim=3, metric="cosine", dtype=dtype)
        given = np.array([[3.0, 4.0, 0.1], [1e-3, 500.0, -7.25]])
        c.add(["a", "b"], given)
        stored = np.array([c[i].vector for i in ("a", "b")])
        assert stored.dtype == kind and np.array_equal(stored, given.astype(kind))


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1023, 1024, 1025, 3000])
def test_every_vector_is_the_one_that_was_given_in_and_out_of_blocks(
    c: vecdb.Collection, n: int
) -> None:
    given = np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32)
    for start in range(0, n, 700):
        part = given[start : start + 700]
        c.add([*range(start, start + len(part))], part)
    assert np.array_equal([record.vector for record in c], given)
    hits = c.search(given[n // 2], 1, exact=True, with_vectors=True)
    assert np.array_equal(hits[0].vector, given[n // 2])  # type: ignore[arg-type]


# --- upsert ----------------------------------------------------------------------------------


def test_upsert_inserts_or_replaces_whole_rows(c: vecdb.Collection) -> None:
    c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"x": 1, "y": 1}, {"x": 2}], texts=["t", "u"])
    assert c.upsert(["b", "new", "a"], [[5, 5], [6, 6], [1, 0]], metadata=[{"z": 1}, {}, {"x": 9}])
    assert c["a"].metadata == {"x": 9} and c["a"].text is None
    assert c["b"].metadata == {"z": 1} and c["b"].vector.tolist() == [5, 5]  # type: ignore[union-attr]
    assert len(c) == 3 and c.count(F.y.exists()) == 0 and c.count(F.x == 9) == 1
    assert c.search([0, 1], 3).ids == ["a", "b", "new"]


def test_upsert_without_vectors_removes_the_old_one(c: vecdb.Collection) -> None:
    c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"x": 1}] * 2)
    c.upsert("a", metadata={"x": 2})
    assert c["a"].vector is None and len(c) == 2 == c.count(F.x >= 1)
    assert c.search([1, 0]).ids == ["b"] and c.search([1, 0], where=F.x == 2).ids == []
    c.upsert("a", [2, 2])
    assert c.search([2, 2], 1).ids == ["a"] and c["a"].metadata == {}


# --- update ----------------------------------------------------------------------------------


def test_update_sets_top_level_keys_and_leaves_the_others(c: vecdb.Collection) -> None:
    c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"x": 1, "in": {"p": 1, "q": 2}}, {"x": 2}],
          texts=["t", "u"])  # fmt: skip
    assert c.update("a", metadata={"x": 5, "in": {"p": 3}, "new": [1]}) == 1
    assert c["a"].metadata == {"x": 5, "in": {"p": 3}, "new": [1]}
    assert c["a"].text == "t" and c["a"].vector.tolist() == [1, 0]  # type: ignore[union-attr]
    assert c["b"].metadata == {"x": 2}
    assert c.count(F["in.q"].exists()) == 0 and c.count(F["in.p"] == 3) == 1


def test_update_applies_one_dict_to_all_and_pairs_a_list(c: vecdb.Collection) -> None:
    c.add(["a", "b", "c"], np.ones((3, 2)), metadata=[{"x": i} for i in range(3)])
    assert c.update(["a", "b"], metadata={"y": 1}) == 2
    assert c.update(["c", "a"], metadata=[{"x": 30}, {"x": 10}]) == 2
    assert [r.metadata for r in c] == [{"x": 10, "y": 1}, {"x": 1, "y": 1}, {"x": 30}]


def test_update_takes_keys_away_with_remove(c: vecdb.Collection) -> None:
    c.add(["a", "b"], np.ones((2, 2)), metadata=[{"x": 1, "y": 2}, {"x": 1}])
    assert c.update(["a", "b"], metadata={"y": REMOVE, "never there": REMOVE}) == 2
    assert [r.metadata for r in c] == [{"x": 1}, {"x": 1}]
    assert c.update(["a", "b"], metadata=[{"x": REMOVE}, {"x": 7}]) == 2
    assert [r.metadata for r in c] == [{}, {"x": 7}]
    assert c.count(F.x.exists()) == 1 and c.count(F.y.is_null()) == 2
    assert c.update(where=F.x == 7, metadata={"x": REMOVE, "z": None}) == 1
    assert c["b"].metadata == {"z": None} and c.count(F.x.exists()) == 0


def test_update_by_filter_counts_the_rows_that_matched(c: vecdb.Collection) -> None:
    c.add(range(100), np.ones((100, 2)), metadata=[{"x": i} for i in range(100)])
    assert c.update(where=F.x < 10, metadata={"x": 1000}) == 10
    assert c.update(where=F.x < 10, metadata={"x": 0}) == 0
    assert c.count(F.x == 1000) == 10 and c.count({}) == 100
    assert c.update(where={}, metadata={"all": True}) == 100 == c.count(F.all == True)  # noqa: E712


def test_update_of_vectors_moves_the_row(c: vecdb.Collection) -> None:
    c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"x": 1}, {"x": 2}], texts=["t", "u"])
    assert c.update("a", vectors=[9, 9]) == 1
    assert c.search([9, 9], 1).ids == ["a"] and c.search([1, 0], 1).ids == ["b"]
    assert (c["a"].metadata, c["a"].text) == ({"x": 1}, "t")
    assert c.update(["b", "a"], vectors=[[5, 0], [9, 9]], metadata={"y": 1}, texts=["v", "w"]) == 2
    assert c.search([5, 0], 2).ids == ["b", "a"] and c["b"].text == "v"
    assert c.search([9, 9], 1, where=(F.y == 1) & (F.x == 1)).ids == ["a"] and len(c) == 2


def test_update_gives_a_vector_to_a_row_that_had_none(c: vecdb.Collection) -> None:
    c.add("a", metadata={"x": 1})
    assert c.search([1, 1]).ids == []
    assert c.update("a", vectors=[1, 1]) == 1
    assert c.search([1, 1], where=F.x == 1).ids == ["a"]


def test_update_of_an_unknown_id_changes_nothing(c: vecdb.Collection) -> None:
    c.add(["a", "b"], np.ones((2, 2)))
    with pytest.raises(NotFound):
        c.update(["a", "zz", "b"], vectors=np.zeros((3, 2)), metadata={"x": 1})
    assert [r.metadata for r in c] == [{}, {}] and c.count(F.x.exists()) == 0


# --- delete ----------------------------------------------------------------------------------


def test_delete_counts_what_was_there(c: vecdb.Collection) -> None:
    c.add(["a", "b", "c", "d", "e"], np.ones((5, 2)), metadata=[{"x": i} for i in range(5)])
    assert c.delete("a") == 1 and c.delete("a") == 0
    assert c.delete(["b", "zz", 7]) == 1
    assert c.delete(where=F.x == 2) == 1 and c.delete(where=F.x == 2) == 0
    assert [r.id for r in c] == ["d", "e"] == c.search([1, 1]).ids
    assert c.delete(where={}) == 2 and len(c) == 0 and c.search([1, 1]).ids == []
    c.add("a", [1, 1])
    assert c.search([1, 1]).ids == ["a"]


def test_a_deleted_id_can_come_back_with_another_row(c: vecdb.Collection) -> None:
    for turn in range(5):
        c.add("a", [turn, 1], metadata={"turn": turn})
        assert c.search([turn, 1], where=F.turn == turn).ids == ["a"]
        assert c.count(F.turn < turn) == 0
        assert c.delete("a") == 1
    assert len(c) == 0 and c.count(F.turn.exists()) == 0


# --- reading ---------------------------------------------------------------------------------


def test_get_answers_in_the_shape_of_the_question(c: vecdb.Collection) -> None:
    c.add(["a", 2], [[1, 0], [0, 1]], metadata=[{"x": 1}, {}])
    one = c.get("a")
    assert one is not None and one.id == "a" and one == c["a"] != c[2]
    assert c.get("zz") is None
    many = c.get([2, "zz", "a", 2])
    assert [r and r.id for r in many] == [2, None, "a", 2]
    assert "a" in repr(one) and "x" in repr(one)


def test_count_and_len_follow_every_write(c: vecdb.Collection) -> None:
    assert len(c) == c.count() == c.count({}) == c.count(F.x == 1) == 0
    c.add(range(10), np.ones((10, 2)), metadata=[{"x": i % 2} for i in range(10)])
    c.add("plain", metadata={"x": 1})
    assert len(c) == c.count() == 11 and c.count(F.x == 1) == 6 == c.count({"x": 1})
    c.delete([1, 3])
    c.update(where=F.x == 0, metadata={"x": 1})
    assert len(c) == 9 == c.count(F.x == 1)


def test_texts_without_an_encoder_are_kept(c: vecdb.Collection) -> None:
    c.add(["a", "b"], [[1, 0], [0, 1]], texts=["hello", ""])
    c.add("c", texts="no vector")
    assert [r.text for r in c] == ["hello", "", "no vector"]
    assert c.update("a", texts="changed") == 1
    assert c["a"].text == "changed" and c["a"].vector is not None
    assert c.search([1, 0], 1)[0].text == "changed"
    (made,) = c.add(texts="text alone")
    assert c[made].text == "text alone"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_collection_grows_past_its_first_measurement_whatever_metadata_its_rows_have(
    share: float,
) -> None:
    odd: list[dict[str, Any]] = [
        {"x": float("nan")}, {"x": 2**63 - 1}, {"x": True}, {"x": [1, "a", None]}, {"x": None},
        {"x": {"y": {}}}, {"x": "y" * 5000}, {"x": ""}, {"x": -float("inf")}, {"": 1}, {"x.y": 1},
        {"x": datetime(9999, 12, 31, tzinfo=UTC)},
    ]  # fmt: skip
    rng = random.Random(0)
    metadata = [rng.choice(odd) if rng.random() < share else {} for _ in range(3000)]
    data = np.random.default_rng(0).normal(size=(3000, 4))
    with vecdb.open() as db:
        c = db.create_collection("c", dim=4)
        c.add([f"plain {i}" for i in range(20)], metadata=metadata[-20:])
        for first in range(0, 3000, 500):
            c.add(range(first, first + 500), data[first : first + 500],
                  metadata=metadata[first : first + 500])  # fmt: skip
        assert c.stats()["vectors"]["vector"]["effort"] and len(c) == 3020
        for where in (F.x.exists(), F.x == True, F.x >= 0, ~(F.x == 1)):  # noqa: E712
            assert c.count(where) == sum(map(where.matches, metadata + metadata[-20:]))
        c.delete(range(2500))
        assert len(c) == 520 and db.check() == []


def test_a_long_row_that_becomes_shorter_in_its_transaction_leaves_a_sound_file(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "long.vecdb") as db:
        c = db.create_collection("c", dim=2)
        with db.transaction():
            c.add("a", [1, 0], metadata={"t": "x" * 7000})
            c.update("a", metadata={"t": "x" * 3000})
        assert db.check() == []
        record = c.get("a")
        assert record is not None and len(record.metadata["t"]) == 3000
