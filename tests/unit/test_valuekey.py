"""Value keys order as values do; values share one exactly when a filter calls them equal."""

from __future__ import annotations

import math
import operator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vecdb.errors import Corrupt, SchemaError
from vecdb.index import changes, valuekey
from vecdb.index.changes import RowChange, decode_changes, encode_changes, state_of
from vecdb.index.valuekey import interval, is_long, key_of, same_prefix
from vecdb.query import operand
from vecdb.storage import codec

NEW_YEAR = datetime(2020, 1, 1, tzinfo=UTC)
INT64 = st.integers(-(2**63), 2**63 - 1)
AROUND = st.sampled_from([2**53, 2**54, 2**62, 2**63, 10**18, 0]).flatmap(
    lambda middle: st.integers(-3000, 3000).map(lambda off: middle + off)
)
NUMBERS = st.one_of(
    INT64, AROUND, AROUND.map(operator.neg), st.floats(allow_nan=False), AROUND.map(float)
)
OPERANDS = st.one_of(NUMBERS, st.integers(), st.integers(-(10**400), 10**400))
STRINGS = st.one_of(
    st.text(max_size=6),
    st.text("ab\x00\U0001f600é", min_size=180, max_size=220),
    st.text("ab", max_size=3).map(lambda end: "x" * 200 + end),
)
MOMENTS = st.datetimes(
    timezones=st.integers(-1439, 1439).map(lambda m: timezone(timedelta(minutes=m)))
)


@given(NUMBERS, OPERANDS)
@example(2**63 - 1, float(2**63))
@example(-(2**63), -float(2**63))
@example(0.0, -0.0)
@example(math.inf, 10**400)
@example(-math.inf, -(10**400))
@example(1.7976931348623157e308, 10**400)
@example(-1.7976931348623157e308, -(10**400))
@example(2**53 + 1, float(2**53))
@example(5e-324, 0)
def test_numbers(stored: int | float, asked: int | float) -> None:
    assert_ordered(stored, asked)


@given(NUMBERS, NUMBERS)
def test_stored_numbers(left: int | float, right: int | float) -> None:
    assert_ordered(left, right)


@given(STRINGS, STRINGS)
@example("x" * 200, "x" * 201)
@example("x" * 200, "x" * 200)
@example("\ue000", "\U00010000")
@example("", "\x00")
def test_strings(left: str, right: str) -> None:
    one, other = key_of(left), key_of(right)
    assert (one == other) == (left == right)
    if not (is_long(one) and is_long(other) and one[:201] == other[:201]):
        assert_ordered(left, right)


@given(st.text(st.characters(), max_size=5), st.text(st.characters(), max_size=5))
def test_surrogates_in_operands_keep_their_order(left: str, right: str) -> None:
    assert_ordered(left, right)
    assert (key_of("\ud800") < key_of("\ue000")) and (key_of("\ud7ff") < key_of("\ud800"))


@given(MOMENTS, MOMENTS)
@example(datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
@example(
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
)
def test_moments(left: datetime, right: datetime) -> None:
    one, other = operand.instant(left), operand.instant(right)
    assert (key_of(left) < key_of(right)) == (one < other)
    assert (key_of(left) == key_of(right)) == (one == other)


def assert_ordered(left: Any, right: Any) -> None:
    one, other = key_of(left), key_of(right)
    assert (one < other) == (left < right)
    assert (one == other) == (left == right)


@given(st.one_of(NUMBERS, STRINGS, MOMENTS, st.booleans(), st.just(math.nan), st.none()))
def test_keys_are_short_and_below_the_end(value: Any) -> None:
    for key in (key_of(value), valuekey.element_key(value)):
        assert 1 < len(key) <= valuekey.MAX_KEY or key in (b"\x20", b"\xa0")
        assert key < b"\xff"


@given(
    st.sampled_from(["<", "<=", ">", ">="]),
    st.one_of(st.tuples(NUMBERS, OPERANDS), st.tuples(STRINGS, STRINGS)),
)
def test_intervals(symbol: str, pair: tuple[Any, Any]) -> None:
    stored, asked = map(key_of, pair)
    start, stop = interval(symbol, asked)
    if is_long(asked):
        first, last = same_prefix(asked)
        if first <= stored < last:
            assert not start <= stored < stop
            return
    assert (start <= stored < stop) == operand.compare(symbol, *pair)


def test_kinds_keep_to_their_intervals() -> None:
    values = [None, True, False, math.nan, 1, -1.5, math.inf, "", "z" * 300, datetime.now(UTC)]
    for asked in (0, "", "\U0010ffff" * 100, datetime.now(UTC)):
        for symbol in ("<", "<=", ">", ">="):
            start, stop = interval(symbol, key_of(asked))
            for value in values:
                if operand.kind_of(value) != operand.kind_of(asked):
                    assert not start <= key_of(value) < stop
                assert not start <= valuekey.element_key(value) < stop


def test_what_exists_is_one_range() -> None:
    heads = [valuekey.NUMBERS, valuekey.STRINGS, valuekey.DATETIMES, valuekey.LIST]
    heads += [valuekey.DICT, valuekey.NAN, valuekey.TRUE, valuekey.FALSE]
    for key in heads:
        assert valuekey.FIRST_KIND <= key < valuekey.AFTER_BOOLS
    assert not valuekey.FIRST_KIND <= valuekey.NULL
    assert key_of(-math.inf) > valuekey.AFTER_BOOLS


def test_equal_values_share_a_key_and_others_do_not() -> None:
    groups: list[list[Any]] = [
        [True], [False], [None], [math.nan, -math.nan], [1, 1.0], [0, 0.0, -0.0], ["1"], [""],
        [2**53, float(2**53)], [2**53 + 1], ["é"], ["e\u0301"],
        [NEW_YEAR, NEW_YEAR.astimezone(timezone(timedelta(hours=1)))],
    ]  # fmt: skip
    seen = [{key_of(value) for value in group} for group in groups]
    assert all(len(each) == 1 for each in seen)
    assert len(set.union(*seen)) == len(groups)


# --- states ------------------------------------------------------------------------------


def test_states_are_flat_and_name_new_fields() -> None:
    names: dict[str, int] = {"year": 0}
    state = state_of(
        {"year": 1, "a": {"b": {"c": "x"}, "e": {}}, "t": [1, True, 1, "y"]}, names
    )
    assert names == {"year": 0, "a": 1, "t": 2, "a.b": 3, "a.e": 4, "a.b.c": 5}
    assert set(state) == {
        (0, key_of(1)),
        (1, valuekey.DICT),
        (3, valuekey.DICT),
        (4, valuekey.DICT),
        (5, key_of("x")),
        (2, valuekey.LIST),
        (2, valuekey.element_key(1)),
        (2, valuekey.element_key(True)),
        (2, valuekey.element_key("y")),
    }
    assert len(state) == len(set(state))


@pytest.mark.parametrize(
    "metadata",
    [
        {"a.b": 1, "a": {"b": 2}},
        {"a": {"b": None}, "a.b": None},
        {"a": {"b.c": 1, "b": {"c": 2}}},
        {"a.b": {"c": 1}, "a": {"b.c": 2}},
        {"a.b": {"x": 1}, "a": {"b": {"y": 1}}},
    ],
)
def test_a_field_there_twice_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="there twice"):
        state_of(metadata, {})


def test_fields_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MAX_FIELDS", 2)
    names: dict[str, int] = {}
    state_of({"a": 1, "b": 2}, names)
    with pytest.raises(SchemaError, match="'c'"):
        state_of({"c": 1}, names)


# --- encoding ----------------------------------------------------------------------------


STATES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([key_of(v) for v in (1, "a", True, None)])),
    max_size=5, unique=True,
).map(tuple)  # fmt: skip
CHANGES = st.lists(
    st.builds(
        RowChange,
        st.sampled_from([0, 1, 2, 300, 70_000, 2**31, 2**32 - 1]),
        st.one_of(st.none(), STATES),
        st.one_of(st.none(), STATES),
    ),
    max_size=8,
)


@given(CHANGES)
def test_encoded_changes_come_back(made: list[RowChange]) -> None:
    encoded = encode_changes(made)
    direct = changes.batch_of(made)
    if encoded is None:
        assert not direct.touched
        return
    assert decode_changes(codec.unpack(codec.pack(encoded))) == direct


def test_many_rows_come_back() -> None:
    made = [
        RowChange(at * 7, None, ((0, key_of(at % 3)), (1, key_of(at)))) for at in range(70_000)
    ]
    encoded = encode_changes(made)
    assert encoded is not None
    assert decode_changes(encoded) == changes.batch_of(made)


@given(CHANGES.filter(lambda made: encode_changes(made) is not None), st.data())
def test_damaged_changes_are_corrupt_or_harmless(made: list[RowChange], data: Any) -> None:
    raw = bytearray(codec.pack(encode_changes(made)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        batch = decode_changes(codec.unpack(bytes(raw)))
        for fieldid in batch.fields():
            batch.field(fieldid)
    except Corrupt:
        pass
