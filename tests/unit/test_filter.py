"""Filters: what they mean on one row, how they are written, what they refuse and how."""

from __future__ import annotations

import copy
import enum
import json
import pickle
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from vecdb.errors import FilterError
from vecdb.query import F, Filter, as_filter, from_dict, from_json
from vecdb.query.build import Field
from vecdb.query.nodes import Not

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
NAN = float("nan")

ROW = {
    "year": 1999,
    "lang": "en",
    "ok": True,
    "none": None,
    "nan": NAN,
    "inf": float("inf"),
    "zero": -0.0,
    "big": 2**53 + 1,
    "when": NOON,
    "tags": ["a", "b"],
    "empty": "",
    "a": {"b": 5, "c": {"d": "x"}},
    "x.y": 7,
    "any name": 1,
}


# --- meaning -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        F.year == 1999,
        F.year == 1999.0,
        F.year != 2000,
        F.year < 2000,
        F.year <= 1999,
        F.year > 1998.5,
        F.year >= 1999,
        F.year.between(1999, 1999),
        F.year < float("inf"),
        F.year < 10**400,
        F.year > -(10**400),
        F.inf > 10**400,
        F.zero == 0,
        F.big == 2**53 + 1,
        F.big != float(2**53),
        F.big > float(2**53),
        F.lang == "en",
        F.lang < "fr",
        F.lang > "eN",
        F.lang.isin(["de", "en"]),
        F.lang.isin({"en"}),
        F.ok == True,  # noqa: E712
        F.ok != False,  # noqa: E712
        F.when == NOON.astimezone(timezone(timedelta(hours=9))),
        F.when == NOON.astimezone(ZoneInfo("Asia/Kolkata")),
        F.when > NOON - timedelta(microseconds=1),
        F.when.between(NOON, NOON),
        F.empty == "",
        F.empty.exists(),
        F.tags.exists(),
        F.nan.exists(),
        F.a.exists(),
        F.a.b == 5,
        F["a.b"] == 5,
        F["a"]["c"].d == "x",
        F.x.y == 7,
        F["any name"] == 1,
        F.none.is_null(),
        F.missing.is_null(),
        ~F.none.exists(),
        ~(F.missing == 1),
        ~(F.year == 1),
        ~F.lang.isin([]),
        (F.year == 1999) & (F.lang == "en"),
        (F.year == 1) | (F.lang == "en"),
        as_filter({}),
    ],
    ids=repr,
)
def test_holds(where: Filter) -> None:
    assert where.matches(ROW)
    assert not (~where).matches(ROW)


@pytest.mark.parametrize(
    "where",
    [
        F.missing != 1,
        F.none != 1,
        F.none == 0,
        F.tags == "a",
        F.tags != "a",
        F.tags > "",
        F.a == 5,
        F.a != 5,
        F.ok == 1,
        F.ok != 1,
        F.year == True,  # noqa: E712
        F.year != True,  # noqa: E712
        F.ok > 0,
        F.year == "1999",
        F.year != "1999",
        F.lang > 1,
        F.nan == NAN,
        F.nan != NAN,
        F.nan != 1,
        F.nan < 1,
        F.nan >= 1,
        F.year != NAN,
        F.year < NAN,
        F.nan.isin([NAN]),
        F.big == float(2**53),
        F.year.isin([]),
        F.year.isin(["1999", True]),
        F.year.between(2000, 1990),
        F.year.between("a", 3000),
        F.when == "2020-01-01T12:00:00Z",
        F.lang == NOON,
        F.x == 7,
        F.nan.is_null(),
        F.empty.is_null(),
    ],
    ids=repr,
)
def test_does_not_hold(where: Filter) -> None:
    assert not where.matches(ROW)
    assert (~where).matches(ROW)


def test_strings_compare_by_code_point() -> None:
    assert (F.s > "\uffff").matches({"s": "\U00010000"})
    assert (F.s < "a").matches({"s": "Z"})


# --- operands ----------------------------------------------------------------------------


def test_numpy_scalars_are_taken_as_python_values() -> None:
    for value, plain in [
        (np.int64(5), 5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(1.5), 1.5),
        (np.float64(2.5), 2.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(7), 7),
    ]:
        made: Any = F.x == value
        assert type(made.value) is type(plain) and made.value == plain
    assert (np.int64(5) == F.x) == (F.x == 5)
    assert (np.float64(5) < F.x) == (F.x > 5)
    assert F.x.isin(np.array([1, 2])) == F.x.isin([1, 2])


def test_subclasses_become_exact_types() -> None:
    class Color(enum.IntEnum):
        RED = 3

    class Name(enum.StrEnum):
        A = "a"

    class Day(datetime):
        pass

    for value, kind in [
        (Color.RED, int),
        (Name.A, str),
        (Day(2020, 1, 1, tzinfo=UTC), datetime),
    ]:
        made: Any = F.x == value
        assert type(made.value) is kind and made.value == value


@pytest.mark.parametrize("symbol", ["==", "!=", "<", ">=", "isin", "between"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "is_null"),
        (datetime(2020, 1, 1), "time zone"),
        (date(2020, 1, 1), "datetime with a time zone"),
        (np.datetime64("2020-01-01"), "time zone"),
        (np.timedelta64(1, "s"), "time zone"),
        (b"x", "bytes"),
        (Decimal(1), "Decimal"),
        (1j, "complex"),
        (np.longdouble(1), "longdouble"),
        ({"a": 1}, "dict"),
        (object(), "object"),
        pytest.param(1 << 20_000, "bits", id="huge"),
        ([[1]], "list"),
    ],
)
def test_operands_that_are_refused(symbol: str, value: Any, says: str) -> None:
    with pytest.raises(FilterError, match="'x'") as caught:
        apply(symbol, value)
    assert says in str(caught.value)


@pytest.mark.parametrize("symbol", ["==", "!="])
@pytest.mark.parametrize("value", [["a"], (1, 2), {1}, np.array([1, 2]), []])
def test_a_list_under_equality_points_to_contains_all(symbol: str, value: Any) -> None:
    with pytest.raises(FilterError, match="contains_all"):
        apply(symbol, value)


@pytest.mark.parametrize("symbol", ["<", "<=", ">", ">=", "between"])
@pytest.mark.parametrize("value", [True, np.bool_(False)])
def test_bools_have_no_order(symbol: str, value: Any) -> None:
    with pytest.raises(FilterError, match="no order"):
        apply(symbol, value)


def apply(symbol: str, value: Any) -> Filter:
    if symbol == "isin":
        return F.x.isin([value])
    if symbol == "between":
        return F.x.between(value, value)
    made: Filter = {
        "==": lambda: F.x == value,
        "!=": lambda: F.x != value,
        "<": lambda: F.x < value,
        "<=": lambda: F.x <= value,
        ">": lambda: F.x > value,
        ">=": lambda: F.x >= value,
    }[symbol]()
    return made


@pytest.mark.parametrize("values", ["abc", b"abc", {"a": 1}, 5, None])
def test_isin_takes_a_list(values: Any) -> None:
    with pytest.raises(FilterError, match="a list of values"):
        F.x.isin(values)


# --- what Python would misread -----------------------------------------------------------


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: bool(F.x == 1),
        lambda: (F.x == 1) and (F.y == 2),
        lambda: not (F.x == 1),
        lambda: 1 < F.x < 5,
        lambda: F.x and F.y,
        lambda: "a" in F.tags,
        lambda: F.x in ["a"],
        lambda: list(F.x),
        lambda: list(F),
        lambda: "x" in F,
        lambda: F.x == 1 & F.y == 2,
        lambda: (F.x == 1) & F.y == 2,
        lambda: (F.x == 1) | {"y": 2},
        lambda: (F.x == 1) & True,
        lambda: True | (F.x == 1),
        lambda: ~F.x,
        lambda: F.x.starts_with("a"),
        lambda: F.x(),
        lambda: F.x == F.y,
        lambda: F.x == (F.y == 1),
        lambda: F[1],
        lambda: F.x[0],
        lambda: {F.x: 1},
        lambda: setattr(F.x, "year", 5),
    ],
)
def test_misuse_is_a_filter_error(misuse: Any) -> None:
    with pytest.raises(FilterError):
        misuse()


def test_fields_stay_out_of_the_way_of_tools() -> None:
    assert not hasattr(F.x, "__len__")
    assert not hasattr(F, "_repr_html_")
    assert repr(F) == "F" and repr(F.a["b c"]) == "F['a.b c']"
    assert repr(F["exists"]) == "F.exists" and repr(F["a.exists"]) == "F['a.exists']"
    assert isinstance(copy.deepcopy(F.x), Field)
    assert (pickle.loads(pickle.dumps(F.x)) == 1) == (F.x == 1)


# --- filters are values ------------------------------------------------------------------


def test_equality_keeps_kinds_apart() -> None:
    assert (F.x == 1) == (F.x == 1.0)
    assert hash(F.x == 1) == hash(F.x == 1.0)
    assert (F.x == 1) != (F.x == True)  # noqa: E712
    assert (F.x == 1) != (F.x == "1")
    assert (F.x == NAN) == (F.x == NAN)
    assert F.x.isin([1]) != F.x.isin([True])
    assert (F.x == 1) != (F.y == 1)
    assert (F.x == 1) != 1
    assert len({F.x == 1, F.x == 1.0, F.x == True}) == 2  # noqa: E712


def test_filters_are_immutable_and_travel() -> None:
    where: Any = (F.x == NOON) & ~F.y.isin(["a"]) | F.z.between(1, 2)
    with pytest.raises(AttributeError):
        where.parts = ()
    assert pickle.loads(pickle.dumps(where)) == where
    assert copy.deepcopy(where) == where
    assert where.fields() == {"x", "y", "z"}


def test_repr_reads_well() -> None:
    where = (
        (F.year >= 1990)
        & ~F.lang.isin(["en", "fr"])
        & ((F.a.b == "x") | F["any name"].exists())
    )
    assert repr(where) == (
        "(F.year >= 1990) & ~F.lang.isin(['en', 'fr']) & "
        "((F.a.b == 'x') | F['any name'].exists())"
    )
    assert repr(F.x == NAN) == "F.x == float('nan')"


@pytest.mark.parametrize(
    "where",
    [
        F.x == NOON,
        F.x
        == datetime(2020, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30, seconds=-7))),
        F.x == NAN,
        F.x < float("-inf"),
        F.x == 10**30,
        F["$x"] == 1,
        ~F["$and"].exists(),
        F["a b"].is_null() & (F["class"] == "x") & (F[""] == 0) & (F["_a"] == 1),
        ~((F.a == 1) | ~(F.b == 2)),
        F.x.isin([1, 1.5, "a", True, NOON, NAN]),
        F.x.isin([]),
        as_filter({}),
        ~as_filter({}),
        F.x == "é\U0001f600\x00\"'\\",
    ],
    ids=repr,
)
def test_json_and_repr_give_the_same_filter(where: Filter) -> None:
    text = where.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert from_json(text) == where
    assert from_json(text).to_json() == text
    scope = {"F": F, "datetime": datetime, "as_filter": as_filter}
    assert eval(repr(where), scope) == where


# --- dict notation -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ({"year": 1999}, F.year == 1999),
        ({"year": {"$eq": 1999}}, F.year == 1999),
        ({"year": {"$ne": 1}}, F.year != 1),
        ({"year": {"$gte": 1990, "$lt": 2000}}, (F.year >= 1990) & (F.year < 2000)),
        ({"year": {"$gt": 1}, "lang": "en"}, (F.year > 1) & (F.lang == "en")),
        ({"year": {"$lte": 1}}, F.year <= 1),
        ({"year": {"$between": [1, 2]}}, F.year.between(1, 2)),
        ({"lang": {"$in": ["en", "fr"]}}, F.lang.isin(["en", "fr"])),
        ({"lang": {"$nin": ["en"]}}, ~F.lang.isin(["en"])),
        ({"x": {"$exists": True}}, F.x.exists()),
        ({"x": {"$exists": False}}, F.x.is_null()),
        ({"x": {"$null": True}}, F.x.is_null()),
        ({"x": {"$null": False}}, F.x.exists()),
        ({"$and": [{"a": 1}, {"b": 2}]}, (F.a == 1) & (F.b == 2)),
        ({"$or": [{"a": 1}, {"b": 2}]}, (F.a == 1) | (F.b == 2)),
        ({"$not": {"a": 1}}, ~(F.a == 1)),
        ({"$or": [{"a": 1}], "c": 3}, (F.a == 1) & (F.c == 3)),
        ({"a.b": 1}, F.a.b == 1),
        ({"t": {"$datetime": "2020-01-01T12:00Z"}}, F.t == NOON),
        ({"t": {"$gte": {"$datetime": "2020-01-01T12:00Z"}}}, F.t >= NOON),
        ({"t": {"$in": [{"$datetime": "2020-01-01T12:00Z"}]}}, F.t.isin([NOON])),
        ({"x": {"$gt": {"$float": "-inf"}}}, F.x > float("-inf")),
        ({"$field": ["$x", {"$gt": 1}]}, F["$x"] > 1),
        ({"x": np.float32(2)}, F.x == 2),
    ],
    ids=str,
)
def test_dict_notation(written: dict[str, Any], means: Filter) -> None:
    assert as_filter(written) == means
    assert as_filter(means) is means


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"x": {"$gtt": 1}}, "known: $eq"),
        ({"x": {"b": 1}}, "'x.b'"),
        ({"x": {}}, "no operator"),
        ({"x": {1: 2}}, "operator"),
        ({"$nor": []}, "known: $and"),
        ({"$and": []}, "at least one"),
        ({"$or": {"a": 1}}, "list"),
        ({"$or": [1]}, "dict notation"),
        ({"$not": [{"a": 1}]}, "dict notation"),
        ({1: 2}, "named by a str"),
        ({"x": None}, "is_null"),
        ({"x": [1]}, "contains_all"),
        ({"x": {"$in": 5}}, "a list of values"),
        ({"x": {"$in": "ab"}}, "a list of values"),
        ({"x": {"$between": [1]}}, "[low, high]"),
        ({"x": {"$exists": 1}}, "true or false"),
        ({"x": {"$lt": True}}, "no order"),
        ({"x": {"$datetime": "2020-01-01"}}, "time zone"),
        ({"x": {"$datetime": "soon"}}, "$datetime"),
        ({"x": {"$datetime": 5}}, "$datetime"),
        ({"x": {"$float": "one"}}, "$float"),
        ({"$field": "x"}, "$field"),
    ],
    ids=str,
)
def test_dict_notation_that_is_refused(written: dict[Any, Any], says: str) -> None:
    with pytest.raises(FilterError) as caught:
        from_dict(written)
    assert says in str(caught.value)


@pytest.mark.parametrize("where", ["year >> 1", 5, None, [], [("a", 1)], F.x, F, b"x"])
def test_what_is_no_filter_is_refused(where: Any) -> None:
    with pytest.raises(FilterError):
        as_filter(where)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"filter": 1}', '{"filter": {}, "x": 1}', "[" * 100_000, "1" * 5000],
)
def test_json_that_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(FilterError):
        from_json(text)


# --- limits ------------------------------------------------------------------------------


def test_depth_is_limited_without_recursion() -> None:
    nested: dict[str, Any] = {"x": 1}
    for at in range(100_000):
        nested = {"$not": nested} if at % 2 else {"$or": [nested, {"y": 1}]}
    with pytest.raises(FilterError, match="64 levels"):
        from_dict(nested)
    while nested:  # take it apart: Python frees deep dicts by recursion of its own
        nested = nested.get("$not") or nested.get("$or", [{}])[0]

    where: Filter = F.x == 1
    with pytest.raises(FilterError, match="64 levels"):
        for at in range(100):
            where = Not(where) if at % 2 else where | (F.y == 1)
    assert where.depth == 64
    assert from_json(where.to_json()) == where
    assert where.matches({"x": 1}) in (True, False)
    hash(where)


def test_a_deep_operand_is_refused_without_recursion() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for misuse in (lambda: F.x == deep, lambda: from_dict({"x": {"$exists": deep}})):
        with pytest.raises(FilterError):
            misuse()
    while deep:
        deep = deep[0]


def test_clauses_are_limited() -> None:
    where: Filter = F.x == 0
    for value in range(1, 1000):
        where = where | (F.x == value)
    assert where.clauses == 1000 and where.depth == 2
    with pytest.raises(FilterError, match="1,000 clauses.*isin"):
        where | (F.x == 1000)
    with pytest.raises(FilterError, match="1,000 clauses"):
        from_dict({f"f{at}": 1 for at in range(1001)})
    with pytest.raises(FilterError, match="1,000"):
        from_dict({"$or": [{"x": 1}] * 1001})


def test_alternatives_are_limited() -> None:
    assert F.x.isin(range(10_000)).matches({"x": 9_999})
    with pytest.raises(FilterError, match="10,000"):
        F.x.isin(range(10_001))
    with pytest.raises(FilterError, match="10,000"):
        F.x.isin(iter(int, 1))
