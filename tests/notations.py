"""Random filters in three notations, and what each of them must mean, written a second time.

A filter is drawn as plain tuples ("spec"). `as_f`, `as_text` and `as_dict` write it in the three
notations; `truth` decides it for one row from the specification alone: exact fractions for
numbers, lists of code points for strings, a table for patterns, vectors for distances. Nothing
here is taken from vecdb.query, so that the two can disagree.
"""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

from vecdb.query import F, Filter, as_filter

Spec = tuple[Any, ...]

LONG = "x" * 199 + "é"
NAN = float("nan")
MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))

NUMBERS = [
    0, -0.0, 0.0, 1, 1.0, -1, 2, 1.5, 2**53, 2**53 + 1, float(2**53), -(2**53) - 1, 2**63 - 1,
    -(2**63), float(2**63), 1e300, 5e-324, float("inf"), float("-inf"), 0.1, NAN,
]  # fmt: skip
HUGE = [10**400, -(10**400), 2**64, 2**63, -(2**63) - 1]  # operands only: rows hold 64 bits
STRINGS = [
    "", "a", "A", "aa", "ab", "b", "aba", "abab", "it's", 'say "x"', "50%", "a_b", "a\\b", "é",
    "e\u0301", "\U0001f600", "\U0001f600a", "\uffff", "\x00", "line\nbreak", "1", "true", "null",
    "ΑΒΓ", "x" * 200, "x" * 201, LONG, LONG + "a", LONG + "ab", "x" * 400, LONG + "\U0001f600",
]  # fmt: skip
MOMENTS = [
    MOMENT,
    MOMENT.astimezone(INDIA),
    MOMENT + timedelta(microseconds=1),
    MOMENT - timedelta(days=9000),
]
PLACES = [
    [48.14, 11.58], [48, 12], [0, 0], [0.0, -0.0], [90, 0], [-90, 77.5], [0, 180], [0, -180],
    [10.5, 179.9], [10.5, -179.9], [89.9, -100], [-45.25, 45.25], [11.58, 48.14], [50, 50],
]  # fmt: skip
NO_PLACES = [[91, 0], [0, 181], [1], [1, 2, 3], [True, 1], ["1", 2], [NAN, 0], [0, 2**60], []]
PATTERNS = [
    "", "%", "_", "%%", "a", "a%", "%a", "%a%", "a_", "_b%", "%b_", "a%b%", "%ab%ab%", "a\\%",
    "50\\%", "a\\_b", "a\\\\b", "\\a%", "__", "%\U0001f600%", "x%", "x" * 200 + "%", LONG + "_",
    LONG + "%", "x" * 199 + "_%", "%é_", "%\n%", "\x00", "_" * 201 + "%", "ab_b", "%'%", '%"%',
]  # fmt: skip
FIELDS = ["n", "s", "b", "d", "mix", "tags", "at", "in", "in.n", "in.deep.s", "any name", "no",
          "or", 'q"q', "été", "datetime", "a.b-c"]  # fmt: skip


# --- drawing rows and filters --------------------------------------------------------------


def scalar(rng: random.Random) -> Any:
    """A value that a row may hold, None and NaN included."""
    pools: list[list[Any]] = [NUMBERS, STRINGS, [True, False], MOMENTS, [None, NAN], [3, 4, 5]]
    return rng.choice(rng.choice(pools))


def row(rng: random.Random) -> dict[str, Any]:
    """Metadata in which any field may be missing, None, of any type, nested or a list."""
    typical: dict[str, Any] = {
        "n": lambda: rng.choice(NUMBERS),
        "s": lambda: rng.choice(STRINGS),
        "b": lambda: rng.choice([True, False, 0, 1]),
        "d": lambda: rng.choice(MOMENTS),
        "mix": lambda: scalar(rng),
        "tags": lambda: [scalar(rng) for _ in range(rng.choice([0, 1, 2, 5]))],
        "at": lambda: rng.choice(PLACES + NO_PLACES),
        "in": lambda: {"n": rng.choice(NUMBERS), "deep": {"s": rng.choice(STRINGS)}},
        "any name": lambda: rng.choice([scalar(rng), {}]),
        "or": lambda: rng.choice(NUMBERS),
        'q"q': lambda: rng.choice(STRINGS),
        "été": lambda: rng.choice(STRINGS),
        "datetime": lambda: rng.choice(MOMENTS),
        "a.b-c": lambda: scalar(rng),
    }
    made: dict[str, Any] = {}
    for name, draw in typical.items():
        chance = rng.random()
        if chance < 0.65:
            made[name] = draw()
        elif chance < 0.8:
            other = rng.choice(["tags", "at", "mix", "in"])
            if not (name == "in" and other == "in"):
                made[name] = typical[other]()
    if "in" not in made and rng.random() < 0.5:
        made["in.n"] = rng.choice(NUMBERS)
    return made


def value(rng: random.Random, ordered: bool = False) -> Any:
    """An operand."""
    while True:
        drawn = scalar(rng) if rng.random() < 0.93 else rng.choice(HUGE)
        if drawn is not None and not (ordered and isinstance(drawn, bool)):
            return drawn


def values(rng: random.Random) -> list[Any]:
    return [value(rng) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 6]))]


def clause(rng: random.Random) -> Spec:
    field = rng.choice(FIELDS)
    kind = rng.randrange(15)
    if kind < 2:
        return ("compare", field, rng.choice(["==", "!="]), value(rng))
    if kind < 4:
        return ("compare", field, rng.choice(["<", "<=", ">", ">="]), value(rng, True))
    if kind == 4:
        pool: list[Any] = rng.choice([NUMBERS + HUGE, STRINGS, MOMENTS, NUMBERS + STRINGS])
        return ("between", field, rng.choice(pool), rng.choice(pool))
    if kind == 5:
        return ("in", field, values(rng))
    if kind in (6, 7):
        field = rng.choice([field, "tags", "at"])
        return ("contains", field, value(rng))
    if kind == 8:
        field = rng.choice([field, "tags", "at"])
        return (rng.choice(["contains any", "contains all"]), field, values(rng))
    if kind == 9:
        text = rng.choice([*STRINGS, LONG + "a", "x" * 200 + "x"])
        return ("startswith", field, text[: rng.choice([0, 1, 2, 200, 201, 999])])
    if kind in (10, 11):
        return ("like", rng.choice([field, "s", "mix"]), pattern(rng))
    if kind == 12:
        anywhere = (rng.uniform(-90, 90), rng.uniform(-180, 180))
        lat, lon = rng.choice([rng.choice(PLACES), anywhere])
        km = rng.choice([0, 0.5, 30, 112, 1000.25, 5000, 10_007, 19_000, 20_100, 1e6])
        return ("within", rng.choice([field, "at", "at"]), lat, lon, km)
    return ("exists" if kind == 13 else "null", field)


def pattern(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(PATTERNS)
    pieces = ["%", "_", "a", "b", "x", "\\%", "\\_", "\\\\", "é"]
    return "".join(rng.choices(pieces, k=rng.randrange(7)))


def spec(rng: random.Random, depth: int = 0) -> Spec:
    if depth == 3 or rng.random() < 0.45:
        return ("true",) if rng.random() < 0.02 else clause(rng)
    kind = rng.choice(["and", "or", "not"])
    if kind == "not":
        return ("not", spec(rng, depth + 1))
    return (kind, [spec(rng, depth + 1) for _ in range(rng.choice([2, 2, 3]))])


# --- three notations -----------------------------------------------------------------------


def as_f(s: Spec) -> Filter:
    """The filter as Python writes it."""
    if s[0] == "true":
        return as_filter({})
    if s[0] == "not":
        return ~as_f(s[1])
    if s[0] in ("and", "or"):
        first, *rest = map(as_f, s[1])
        for part in rest:
            first = first & part if s[0] == "and" else first | part
        return first
    field: Any = F[s[1]]
    args = s[2:]
    if s[0] == "compare":
        symbol, other = args
        made: dict[str, Any] = {
            "==": field.__eq__, "!=": field.__ne__, "<": field.__lt__,
            "<=": field.__le__, ">": field.__gt__, ">=": field.__ge__,
        }  # fmt: skip
        result: Filter = made[symbol](other)
        return result
    method = {"in": "isin", "null": "is_null"}.get(s[0], s[0].replace(" ", "_"))
    result = getattr(field, method)(*args)
    return result


def as_text(s: Spec, rng: random.Random) -> str:
    """The filter as text, in one of the ways that people write it."""

    def case(word: str) -> str:
        return rng.choice([word, word, word.upper(), word.title()])

    def part(inner: Spec) -> str:
        text = as_text(inner, rng)
        return f"({text})" if inner[0] in ("and", "or") or rng.random() < 0.1 else text

    space = rng.choice([" ", " ", "  ", "\n", "\t"])
    if s[0] == "true":
        return case("true")
    if s[0] == "not":
        inner = s[1]
        if inner[0] in ("in", "like", "between") and rng.random() < 0.5:
            return as_text(inner, rng).replace(name(inner[1]), f"{name(inner[1])} {case('not')}", 1)
        return f"{case('not')} {part(inner)}"
    if s[0] in ("and", "or"):
        return f"{space}{case(s[0])}{space}".join(map(part, s[1]))
    field, args = name(s[1]), s[2:]
    if s[0] == "compare":
        sign = rng.choice({"==": ["==", "="], "!=": ["!=", "<>"]}.get(args[0], [args[0]]))
        tight = rng.choice([" ", ""])
        return f"{field}{tight}{sign}{tight}{literal(args[1], case)}"
    if s[0] == "between":
        low, high = (literal(one, case) for one in args)
        return f"{field} {case('between')} {low}{space}{case('and')}{space}{high}"
    if s[0] in ("in", "contains any", "contains all"):
        listed = rng.choice([", ", ","]).join(literal(one, case) for one in args[0])
        return f"{field} {case(s[0])} ({listed})"
    if s[0] == "within":
        return f"{case('within')}({field}, {', '.join(repr(one) for one in args)})"
    if s[0] == "exists":
        return rng.choice([f"{field} {case('exists')}", f"{field} {case('is not null')}"])
    if s[0] == "null":
        return f"{field} {case('is')}{space}{case('null')}"
    return f"{field} {case(s[0])} {literal(args[0], case)}"


def name(field: str) -> str:
    parts = field.split(".")
    if all(part.isidentifier() for part in parts) and parts[0] not in ("or", "in"):
        return field
    return '"' + field.replace('"', '""') + '"'


def literal(one: Any, case: Any = str) -> str:
    if isinstance(one, bool):
        return str(case(str(one).lower()))
    if isinstance(one, str):
        return "'" + one.replace("'", "''") + "'"
    if isinstance(one, datetime):
        return f"{case('datetime')} '{one.isoformat()}'"
    return repr(one)


def as_dict(s: Spec) -> dict[str, Any]:
    """The filter as a dict."""
    if s[0] == "true":
        return {}
    if s[0] == "not":
        return {"$not": as_dict(s[1])}
    if s[0] in ("and", "or"):
        return {f"${s[0]}": [as_dict(part) for part in s[1]]}
    if s[0] == "compare":
        names = {"==": "$eq", "!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
        return {s[1]: {names[s[2]]: plain(s[3])}}
    if s[0] in ("exists", "null"):
        return {s[1]: {f"${s[0]}": True}}
    first, _, rest = s[0].partition(" ")
    operator = f"${first}{rest.title()}"
    if s[0] in ("between", "within"):
        return {s[1]: {operator: [plain(one) for one in s[2:]]}}
    argument = [plain(one) for one in s[2]] if isinstance(s[2], list) else plain(s[2])
    return {s[1]: {operator: argument}}


def plain(one: Any) -> Any:
    if isinstance(one, datetime):
        return {"$datetime": one.isoformat()}
    if isinstance(one, float) and not math.isfinite(one):
        return {"$float": repr(one)}
    return one


# --- the reference -------------------------------------------------------------------------


def truth(s: Spec, metadata: dict[str, Any]) -> bool:
    """Whether a row satisfies a filter, by the letter of the specification."""
    if s[0] == "true":
        return True
    if s[0] == "not":
        return not truth(s[1], metadata)
    if s[0] == "and":
        return all(truth(part, metadata) for part in s[1])
    if s[0] == "or":
        return any(truth(part, metadata) for part in s[1])
    stored, args = lookup(metadata, s[1]), s[2:]
    if s[0] == "exists":
        return stored is not None
    if s[0] == "null":
        return stored is None
    if s[0] == "compare":
        return relation(stored, args[0], args[1])
    if s[0] == "between":
        return relation(stored, ">=", args[0]) and relation(stored, "<=", args[1])
    if s[0] == "in":
        return any(relation(stored, "==", one) for one in args[0])
    if s[0] == "startswith":
        return isinstance(stored, str) and list(stored)[: len(args[0])] == list(args[0])
    if s[0] == "like":
        return isinstance(stored, str) and table(args[0], stored)
    if s[0] == "within":
        return near(stored, *args)
    if not isinstance(stored, list):
        return False
    if s[0] == "contains":
        return any(relation(each, "==", args[0]) for each in stored)
    has = [any(relation(each, "==", one) for each in stored) for one in args[0]]
    return (True in has) if s[0] == "contains any" else (False not in has)


def lookup(mapping: Any, path: str) -> Any:
    """The value under a dotted name: each dot may be a step inwards or part of a key."""
    if not isinstance(mapping, dict):
        return None
    if path in mapping:
        return mapping[path]
    for at, character in enumerate(path):
        if character == "." and path[:at] in mapping:
            found = lookup(mapping[path[:at]], path[at + 1 :])
            if found is not None:
                return found
    return None


def relation(stored: Any, symbol: str, other: Any) -> bool:
    a, b = comparable(stored), comparable(other)
    if a is None or b is None or a[0] != b[0]:
        return False
    order = (a[1] > b[1]) - (a[1] < b[1])
    holds = {"==": order == 0, "!=": order != 0, "<": order < 0, ">": order > 0}
    return holds[symbol] if symbol in holds else order == 0 or holds[symbol[0]]


def comparable(one: Any) -> tuple[str, Any] | None:
    """(kind, something that orders as the values of this kind do)."""
    if isinstance(one, bool):
        return "bool", int(one)
    if isinstance(one, float) and math.isnan(one):
        return None
    if isinstance(one, float) and math.isinf(one):
        return "number", (1 if one > 0 else -1, Fraction(0))
    if isinstance(one, int | float):
        return "number", (0, Fraction(one))
    if isinstance(one, str):
        return "string", [ord(each) for each in one]
    if isinstance(one, datetime):
        since = one.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
        return "datetime", (since.days, since.seconds, since.microseconds)
    return None


def table(pattern: str, text: str) -> bool:
    """Whether a pattern matches, by the set of places in the text that each step may reach."""
    reached, at = {0}, 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "%":
            reached = set(range(min(reached), len(text) + 1)) if reached else reached
        elif sign == "_":
            reached = {place + 1 for place in reached if place < len(text)}
        else:
            if sign == "\\":
                at += 1
                sign = pattern[at]
            reached = {place + 1 for place in reached if text[place : place + 1] == sign}
        at += 1
    return len(text) in reached


def near(stored: Any, lat: float, lon: float, km: float) -> bool:
    """The angle between two vectors to the surface of a sphere."""
    if not isinstance(stored, list) or len(stored) != 2:
        return False
    if any(type(one) not in (int, float) or math.isnan(one) for one in stored):
        return False
    if abs(stored[0]) > 90 or abs(stored[1]) > 180:
        return False
    a, b = vector(lat, lon), vector(*stored)
    cross = (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )
    angle = math.atan2(math.hypot(*cross), sum(x * y for x, y in zip(a, b, strict=True)))
    return 6371.0088 * angle <= km + 1e-9  # a micrometre: one place may have several names


def vector(lat: float, lon: float) -> tuple[float, float, float]:
    up, around = math.radians(lat), math.radians(lon)
    return math.cos(up) * math.cos(around), math.cos(up) * math.sin(around), math.sin(up)
