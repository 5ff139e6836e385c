"""Filters as text: what is read, what is refused and where, and that nothing else can happen."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import notations
from vecdb.errors import FilterError
from vecdb.query import F, Filter, as_filter, from_json, parse
from vecdb.query.like import Pattern

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("year == 1999", F.year == 1999),
        ("year=1999", F.year == 1999),
        ("year <> 1", F.year != 1),
        ("year>=-1.5e3", F.year >= -1500.0),
        ("x < .5 and x > 5.", (F.x < 0.5) & (F.x > 5.0)),
        ("x > -inf or x == NaN", (F.x > float("-inf")) | (F.x == NAN)),
        ("x == 9007199254740993", F.x == 2**53 + 1),
        ("year between 1 and 2 and z = 3", F.year.between(1, 2) & (F.z == 3)),
        ("lang in ('en','fr')", F.lang.isin(["en", "fr"])),
        ("lang NOT IN ('en')", ~F.lang.isin(["en"])),
        ("lang in ()", F.lang.isin([])),
        ("tags contains 'x'", F.tags.contains("x")),
        ("tags not contains 'x'", ~F.tags.contains("x")),
        ("tags contains any ('x', 1)", F.tags.contains_any(["x", 1])),
        ("tags contains all ('x', true)", F.tags.contains_all(["x", True])),
        ("name startswith 'a'", F.name.startswith("a")),
        (r"name like 'a%\_'", F.name.like(r"a%\_")),
        ("name not like '%'", ~F.name.like("%")),
        ("x exists", F.x.exists()),
        ("x is null", F.x.is_null()),
        ("x is not null", F.x.exists()),
        ("not x exists", ~F.x.exists()),
        ("within(place, 48.1, -11.5, 20)", F.place.within(48.1, -11.5, 20)),
        ("x == 'it''s'", F.x == "it's"),
        ('"any name" == 1', F["any name"] == 1),
        ('"a ""b""" == 1', F['a "b"'] == 1),
        ('a."b c".d = true', F["a.b c.d"] == True),  # noqa: E712
        ("a.in = 1", F["a.in"] == 1),
        ("datetime > datetime '2020-01-01T12:00Z'", F["datetime"] > NOON),
        ("d = datetime '2020-01-01T14:00+02:00'", F.d == NOON),
        ("any = 1 and all = 2", (F["any"] == 1) & (F["all"] == 2)),
        ("within = 1 or matches exists", (F["within"] == 1) | F["matches"].exists()),
        ("a = 1 or b = 2 and c = 3", (F.a == 1) | ((F.b == 2) & (F.c == 3))),
        ("(a = 1 or b = 2) and c = 3", ((F.a == 1) | (F.b == 2)) & (F.c == 3)),
        ("not a = 1 and b = 2", ~(F.a == 1) & (F.b == 2)),
        ("not not a = 1", F.a == 1),
        ("not (a = 1 and b = 2)", ~((F.a == 1) & (F.b == 2))),
        ("true", as_filter({})),
        ("false", ~as_filter({})),
        ("été = 'ü' and 名前 = '\U0001f600'", (F["été"] == "ü") & (F["名前"] == "\U0001f600")),
        ("\n a\t=\r\n1 ", F.a == 1),
    ],
)
def test_text_notation(text: str, means: Filter) -> None:
    assert parse(text) == means
    assert as_filter(text) == means
    assert parse(str(means)) == means


@pytest.mark.parametrize(
    ("text", "offset", "says"),
    [
        ("", 0, "{}"),
        ("  ", 2, "{}"),
        ("year", 4, "operator"),
        ("year ==", 7, "value"),
        ("year == en", 8, "'en'"),
        ('lang == "en"', 8, "'en'"),
        ("x = 'abc", 4, "closed"),
        ('"abc = 1', 0, "closed"),
        ("a = 1 & b = 2", 6, "write and"),
        ("a = 1 && b = 2", 6, "write and"),
        ("a = 1 | b = 2", 6, "write or"),
        ("!a = 1", 0, "write not"),
        ("a === 1", 2, "write =="),
        ("a => 1", 2, "write >="),
        ("a in [1]", 5, "( )"),
        ("a = 1 adn b = 2", 6, "did you mean and"),
        ("year betwen 1 and 2", 5, "did you mean between"),
        ("name starts_with 'a'", 5, "did you mean startswith"),
        ("any name = 1", 4, '"any name"'),
        ("1999 == year", 0, "field comes first"),
        ("'year' == 1", 0, "double quotes"),
        ("in = 1", 0, '"in"'),
        ("F.year > 1", 0, "without F"),
        ("x = null", 4, "is null"),
        ("x is 5", 5, "null"),
        ("x in 5", 5, "brackets"),
        ("x in (1 2)", 8, "commas"),
        ("x in (1,)", 8, "value"),
        ("x between 1", 11, "between 1 and 2"),
        ("x not 5", 6, "after not"),
        ("x < 1 < 2", 6, "chained"),
        ("(x = 1", 6, "character 0"),
        ("x = 1)", 5, "closes nothing"),
        ("d > 2020-01-01", 8, "datetime '"),
        ("d > datetime '2020-01-01'", 4, "time zone"),
        ("d > datetime 'soon'", 13, "datetime"),
        ("d > datetime 5", 13, "datetime '"),
        ("x > true", 4, "no order"),
        ("x between true and false", 10, "no order"),
        ("name like 5", 10, "str"),
        (r"name like 'a\'", 10, "escapes nothing"),
        ("name startswith 1", 16, "str"),
        ("within(p, 91, 0, 1)", 0, "latitude"),
        ("within(p, 0, 181, 1)", 0, "longitude"),
        ("within(p, 0, 0, -1)", 0, "km"),
        ("within(p, 0, 0, 'x')", 0, "km is a number"),
        ("within(p, 0, 0)", 14, "km is missing"),
        ("within(p, 0, 0, 1, 2)", 17, "no more"),
        ("matches(text)", 12, "words are missing"),
        ("matches(text, 'a', 'b')", 17, "no more"),
        ("matches(text, 5)", 14, "str"),
        ("matches('text', 'a')", 8, "the field comes first"),
        ("any(x)", 0, "no function"),
        ("foo(x)", 3, "within(field"),
        ("x = 1_000", 5, "number"),
        ("x = 1e999", 4, "inf"),
        ("x = " + "9" * 5000, 4, "digits"),
        ("x = #", 4, "'#'"),
        ("a.1 = 1", 2, "double quotes"),
        ("a..b = 1", 2, "double quotes"),
    ],
)
def test_text_that_is_refused(text: str, offset: int, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert caught.value.offset == offset, str(caught.value)
    assert says in str(caught.value)
    assert f"character {offset}" in str(caught.value)


def test_str_is_text_and_repr_is_python() -> None:
    where = ((F.year >= 1990) & ~F.lang.isin(["en"])) | ~(F["a b"].c == "it's") | F.x.is_null()
    assert str(where) == (
        "(year >= 1990 and lang not in ('en')) or not (\"a b.c\" == 'it''s') or x is null"
    )
    assert eval(repr(where), {"F": F}) == parse(where.to_string()) == where


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "F", "F.x", "F.in", "AND", "nuLL", "within", "inf", "x y",
             '"', '""', "'", "1", "a.1", "$x", "ſ", "é", "\n", "a-b", "datetime"]
)  # fmt: skip
def test_every_name_survives(name: str) -> None:
    for where in (F[name] == 1, ~F[name].like("a"), F[name].within(1, 2, 3), F[name].exists()):
        assert parse(str(where)) == where
        assert from_json(where.to_json()) == where
        assert eval(repr(where), {"F": F}) == where


@pytest.mark.parametrize(
    "value",
    [0, -0.0, 1e16, 1e-7, -1.5, float("inf"), float("-inf"), NAN, 2**3000, -(10**400), True, "",
     "'", "''", "\\", "\x00", "\ud800", "\n", NOON,
     NOON.astimezone(timezone(timedelta(hours=-3, minutes=-30, seconds=-7))),
     datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))],
    ids=repr,
)  # fmt: skip
def test_every_value_survives(value: Any) -> None:
    for where in (F.x == value, F.x.isin([value, value]), F.x.contains_any([1, value])):
        again = parse(str(where))
        assert again == where and hash(again) == hash(where)
        assert from_json(where.to_json()) == where


# --- limits ------------------------------------------------------------------------------


def test_brackets_are_counted_not_recursed() -> None:
    assert parse("(" * 64 + "x = 1" + ")" * 64) == (F.x == 1)
    for deep in ("(" * 65 + "x = 1" + ")" * 65, "(" * 500_000, "not (" * 100_000):
        with pytest.raises(FilterError, match="64 levels") as caught:
            parse(deep)
        assert caught.value.offset in (64, 64 * 5 + 4)
    assert parse("not " * 100_001 + "x = 1") == ~(F.x == 1)


def test_the_deepest_filter_survives() -> None:
    where: Filter = F.x == 1
    for at in range(62):
        where = ~where if at % 3 == 0 else where | (F.y == 1) if at % 3 == 1 else where & (F.z == 1)
    assert where.depth == 63
    assert parse(str(where)) == where


def test_terms_and_length_are_limited() -> None:
    text = " or ".join(["x = 1"] * 1000)
    assert parse(text).clauses == 1000
    with pytest.raises(FilterError, match="1,000 clauses") as caught:
        parse(text + " or x = 2")
    assert caught.value.offset == len(text) + 4
    assert parse(f"x in ({', '.join(map(str, range(10_000)))})").matches({"x": 9_999})
    with pytest.raises(FilterError, match="10,000") as caught:
        parse("x in (" + "1," * 10_001)
    assert caught.value.offset == 6 + 20_000
    with pytest.raises(FilterError, match="1,048,576") as caught:
        parse("x = '" + "a" * (1 << 20) + "'")
    assert caught.value.offset == 1 << 20


def test_long_patterns_are_refused_and_no_pattern_runs_wild() -> None:
    with pytest.raises(FilterError, match="1,000"):
        F.x.like("a" * 1001)
    started = time.perf_counter()
    assert not F.x.like("%a" * 400 + "%b").matches({"x": "a" * 100_000})
    assert not F.x.like("%a_" * 300 + "%b").matches({"x": "a" * 100_000})
    print(f"two patterns with hundreds of runs: {time.perf_counter() - started:.3f} s")


# --- like, against a table ------------------------------------------------------------------


@given(st.text("ab_%\\é", max_size=8), st.text("ab_%\\é", max_size=8))
def test_patterns_agree_with_a_table(pattern: str, text: str) -> None:
    try:
        ready = Pattern(pattern)
    except ValueError:
        assert (len(pattern) - len(pattern.rstrip("\\"))) % 2
        return
    matches = notations.table(pattern, text)
    assert ready.matches(text) == matches
    if ready.exact:
        assert matches == (text == ready.literal)
    if ready.decided:
        assert matches == text.startswith(ready.literal)
    assert not matches or text.startswith(ready.literal)


# --- operands of the newer operators -----------------------------------------------------


@pytest.mark.parametrize(
    ("misuse", "says"),
    [
        (lambda: F.x.contains(None), "is_null"),
        (lambda: F.x.contains(["a"]), "contains_any"),
        (lambda: F.x.contains(datetime(2020, 1, 1)), "time zone"),
        (lambda: F.x.contains_any("ab"), "list of values"),
        (lambda: F.x.contains_all([None]), "is_null"),
        (lambda: F.x.contains_all(range(10_001)), "10,000"),
        (lambda: F.x.startswith(5), "str"),
        (lambda: F.x.startswith(None), "str"),
        (lambda: F.x.like("\\"), "escapes nothing"),
        (lambda: F.x.like(b"a"), "str"),
        (lambda: F.x.within(NAN, 0, 1), "latitude"),
        (lambda: F.x.within(True, 0, 1), "latitude"),
        (lambda: F.x.within(0, 10**400, 1), "longitude"),
        (lambda: F.x.within(0, 0, float("inf")), "km"),
        (lambda: as_filter({"x": {"$within": [1, 2]}}), "[latitude"),
        (lambda: as_filter({"x": {"$containsany": ["a"]}}), "$containsAny"),
        (lambda: as_filter({"x": {"$matches": 5}}), "str"),
        (lambda: as_filter({"x": {"$match": "a"}}), "did you mean $matches"),
        (lambda: as_filter({"x": {"$like": ["a"]}}), "str"),
        (lambda: F.x.matches(b"a"), "str"),
        (lambda: F.x.matches("a" * 65_537), "65,536"),
        (lambda: F.x.matches("\ud800"), "surrogate"),
        (lambda: F.x.matches("a").matches({"x": "a"}), "collection"),
        (lambda: F.x.starts_with("a"), "did you mean startswith"),
        (lambda: parse(5), "str"),  # type: ignore[arg-type]
    ],
)
def test_operands_that_are_refused(misuse: Any, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        misuse()
    assert says in str(caught.value)


def test_places_near_poles_and_the_date_line() -> None:
    row = {"at": [89.9, 10], "fiji": [-17, 179.9], "tuple": (1, 2)}
    assert F["at"].within(89.9, -170, 23).matches(row)
    assert not F["at"].within(89.9, -170, 22).matches(row)
    assert F.fiji.within(-17, -179.9, 22).matches(row)
    assert F["tuple"].within(1, 2, 0).matches(row)
    for one, other in [((0, 180), [0, -180]), ((90, 0), [90, 77]), ((-90, -180), [-90, 13.5])]:
        assert F.p.within(*one, 0).matches({"p": other})
    assert F.place.within(52.52, 13.405, 505).matches({"place": [48.137, 11.575]})  # Berlin, Munich
    assert not F.place.within(52.52, 13.405, 503).matches({"place": [48.137, 11.575]})


# --- fuzz --------------------------------------------------------------------------------

PIECES = [
    "and", "or", "not", "in", "between", "is", "null", "like", "contains", "any", "all",
    "exists", "startswith", "true", "false", "datetime", "within", "matches", "inf", "nan",
    "(", ")", ",", "'", '"', "''", "=", "==", "!=", "<", ">=", "<>", "&", "|", "~", "!", "x",
    "a.b", "F.x", "'a'", '"b c"', "1", "-1.5", "1e5", ".", "2020-01-01",
    "'2020-01-01T00:00Z'", " ", "\n", "\x00", "\ud800", "é", "²", "٣", "\U0001f600", "\\",
    "%", "_", "[", "]", "{", "}", "$", "#", ";", "--", "/*", "`",
]  # fmt: skip


def fuzz(seed: int, count: int) -> tuple[int, int]:
    rng = random.Random(seed)
    good = 0
    for _ in range(count):
        kind = rng.randrange(3)
        if kind == 0:
            text = rng.choice(["", " "]).join(rng.choices(PIECES, k=rng.randrange(14)))
        elif kind == 1:
            text = "".join(chr(rng.choice([rng.randrange(128), rng.randrange(0x110000)]))
                           for _ in range(rng.randrange(20)))  # fmt: skip
        else:  # a good text with an accident
            text = notations.as_text(notations.spec(rng), rng)
            at, end = sorted(rng.choices(range(len(text) + 1), k=2))
            text = text[:at] + rng.choice(["", *PIECES]) + text[min(end, at + 3) :]
        try:
            where = parse(text)
        except FilterError as error:
            assert error.offset is not None and 0 <= error.offset <= len(text), text
        else:
            good += 1
            assert parse(str(where)) == where, text
    return count, good


@pytest.mark.parametrize("seed", range(3))
def test_no_text_breaks_the_parser(seed: int) -> None:
    count, good = fuzz(seed, 2_000)
    print(f"seed {seed}: {count} texts, {good} of them filters")
    assert 0 < good < count


@pytest.mark.slow
def test_a_great_many_texts() -> None:
    count, good = fuzz(7, 300_000)
    print(f"seed 7: {count} texts, {good} of them filters")
