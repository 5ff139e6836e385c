"""facets: what is counted and how it is shown. Random rows are in model/test_reading.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import vecdb
from vecdb import F
from vecdb.errors import FilterError, InvalidArgument
from vecdb.facets import Facets

MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
EAST = MOMENT.astimezone(timezone(timedelta(hours=9)))
LONG = "x" * 300


@pytest.fixture
def c() -> vecdb.Collection:
    return vecdb.open().create_collection("c", dim=2)


def put(c: vecdb.Collection, *values: Any) -> None:
    c.add([*range(len(c), len(c) + len(values))], metadata=[{"v": value} for value in values])


def test_values_in_falling_count_ties_in_the_order_of_values(c: vecdb.Collection) -> None:
    put(c, "b", "a", "b", 2, MOMENT, True, False, 1, float("inf"), "b", 2, LONG + "b", LONG + "a")
    for _ in range(2):
        found = c.facets("v")
        assert list(found.items()) == [
            ("b", 3), (2, 2), (False, 1), (True, 1), (1, 1), (float("inf"), 1), ("a", 1),
            (LONG + "a", 1), (LONG + "b", 1), (MOMENT, 1),
        ]  # fmt: skip
        assert (found.field, found.matches, found.missing, found.distinct) == ("v", 13, 0, 10)
        c.optimize()


def test_true_and_1_are_two_values_and_1_and_1_0_are_one(c: vecdb.Collection) -> None:
    put(c, True, 1, 1.0, 1, False, 0.0, 0, -0.0)
    found = c.facets("v")
    assert [(repr(value), count) for value, count in found.items()] == [
        ("0.0", 3), ("1", 3), ("False", 1), ("True", 1),
    ]  # fmt: skip
    assert (found[True], found[1], found[1.0], found[False], found[0]) == (1, 3, 3, 1, 3)
    assert True in found and 2 not in found and "1" not in found and [] not in found
    with pytest.raises(KeyError):
        found[[1]]


def test_nan_none_and_datetimes(c: vecdb.Collection) -> None:
    put(c, float("nan"), float("nan"), None, [None, float("nan")], MOMENT, EAST)
    found = c.facets("v")
    assert found[float("nan")] == 3 and found[MOMENT] == 2 == found[EAST] and found[None] == 1
    assert found.missing == 1  # None by itself; as an element it is one of the values
    assert [value.tzinfo for value in found if isinstance(value, datetime)] == [UTC]


def test_lists_count_for_each_of_their_values_once(c: vecdb.Collection) -> None:
    put(c, ["a", "b", "a"], "a", [], ["b", True, 1], {"a": 1}, None)
    c.add("without")
    found = c.facets("v")
    assert {repr(value): count for value, count in found.items()} == {
        "'a'": 2, "'b'": 2, "True": 1, "1": 1,
    }  # fmt: skip
    assert (found.matches, found.missing) == (7, 4)
    assert c.facets("v.a")[1] == 1


def test_a_filter_a_limit_and_an_unknown_field(c: vecdb.Collection) -> None:
    c.add([*range(100)], metadata=[{"v": id % 10, "w": id % 4} for id in range(100)])
    found = c.facets("v", F.w == 1, limit=2)
    assert list(found.items()) == [(1, 5), (3, 5)] and (found.matches, found.distinct) == (25, 5)
    assert len(c.facets("v")) == 10 == len(c.facets("v", limit=None))
    none = c.facets("absent", {"w": 1})
    assert (list(none), none.matches, none.missing, none.distinct) == ([], 25, 25, 0)
    assert repr(none) == "Facets of 'absent': 0 values in 25 rows, 25 without"


def test_inside_a_transaction_its_own_writes_are_counted(c: vecdb.Collection) -> None:
    put(c, "a", "a", "b")
    c.optimize()
    with pytest.raises(ZeroDivisionError), c._db.transaction():
        c.update(0, metadata={"v": "b"})
        c.delete(1)
        c.add(["x", "y"], metadata=[{"v": "new"}] * 2)
        assert list(c.facets("v").items()) == [("b", 2), ("new", 2)]
        raise ZeroDivisionError
    assert list(c.facets("v").items()) == [("a", 2), ("b", 1)]


def test_facets_are_a_mapping_of_values() -> None:
    found = Facets("v", [(True, 2), (1, 1)], matches=3, missing=0, distinct=2)
    assert found == Facets("w", [(True, 2), (1, 1)], matches=9, missing=1, distinct=2)
    assert found != {True: 2} and found != {1: 2} and found != [True, 1]
    assert Facets("v", [("a", 1)], matches=1, missing=0, distinct=1) == {"a": 1}
    assert list(found.keys()) == [True, 1] and list(found.values()) == [2, 1] and found.get(2) is None
    with pytest.raises(TypeError):
        hash(found)


def test_it_reads_well_and_is_safe_as_html(c: vecdb.Collection) -> None:
    put(c, *["<b>x</b>"] * 1200, "&", None)
    found = c.facets("v", limit=1)
    assert repr(found).splitlines() == [
        "Facets of 'v': 2 values, the first 1 of them in 1,202 rows, 1 without",
        "  1,200  '<b>x</b>'",
    ]
    html = found._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in html and "<b>" not in html and "1,200" in html


@pytest.mark.parametrize(
    "how, error, words",
    [
        ({"field": ""}, InvalidArgument, "field"),
        ({"field": 1}, InvalidArgument, "field"),
        ({"field": "v", "limit": 0}, InvalidArgument, "limit"),
        ({"field": "v", "limit": "5"}, InvalidArgument, "limit"),
        ({"field": "v", "where": 1}, FilterError, "where="),
    ],
)
def test_wrong_arguments(
    c: vecdb.Collection, how: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        c.facets(**how)
