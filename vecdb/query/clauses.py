"""What can a filter ask of one field?

Each clause says the same thing five times: about one row (`holds`, the reference), about sets of
rows (`select`), as plain data, as text and as Python. What makes two of them equal is `identity`.

Invariants:
  C1  operands have passed operand.py: nodes are made by build.py, filter.py and parse.py only;
  C2  the value of another kind than the clause asks for satisfies no clause but `exists`, and no
      clause but `is_null` is satisfied by a row without the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from vecdb.errors import FilterError
from vecdb.lazy import lazy
from vecdb.query import geo, operand, show, words
from vecdb.query.like import Pattern
from vecdb.query.nodes import Clause
from vecdb.query.operand import Scalar
from vecdb.query.source import S, Source

# --- the value as a whole ----------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Compare(Clause):
    """`F.x == v` and its five siblings."""

    field: str
    symbol: str
    value: Scalar

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return operand.compare(self.symbol, fields.get(self.field), self.value)

    def select(self, source: Source[S]) -> S:
        if self.symbol == "==":
            return source.equal(self.field, self.value)
        if self.symbol == "!=":
            return source.unequal(self.field, self.value)
        return source.ordered(self.field, self.symbol, self.value)

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, show.NAMES[self.symbol], show.plain(self.value))

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return (self.symbol, self.field, operand.identity(self.value))

    def to_string(self) -> str:
        return f"{words.name(self.field)} {self.symbol} {show.literal(self.value)}"

    def __repr__(self) -> str:
        return f"{show.field(self.field)} {self.symbol} {show.value(self.value)}"


class Infix(Clause):
    """A clause that text writes after its field, where `not` may stand between the two."""

    def infix(self) -> str:
        """Return what text notation writes after the field."""
        raise TypeError(f"{type(self).__name__} has no operand")

    def to_string(self) -> str:
        return f"{words.name(self.field)} {self.infix()}"

    def denied(self) -> str:
        return f"{words.name(self.field)} not {self.infix()}"


@dataclass(frozen=True, eq=False, repr=False)
class Between(Infix):
    """`F.x.between(low, high)`, both ends included."""

    field: str
    low: Scalar
    high: Scalar

    def holds(self, fields: Mapping[str, Any]) -> bool:
        value = fields.get(self.field)
        above = operand.compare(">=", value, self.low)
        return above and operand.compare("<=", value, self.high)

    def select(self, source: Source[S]) -> S:
        return source.between(self.field, self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        ends = [show.plain(self.low), show.plain(self.high)]
        return show.clause(self.field, "$between", ends)

    @lazy
    def identity(self) -> tuple[Any, ...]:
        low, high = operand.identity(self.low), operand.identity(self.high)
        return ("between", self.field, low, high)

    def infix(self) -> str:
        return f"between {show.literal(self.low)} and {show.literal(self.high)}"

    def __repr__(self) -> str:
        low, high = show.value(self.low), show.value(self.high)
        return f"{show.field(self.field)}.between({low}, {high})"


@dataclass(frozen=True, eq=False, repr=False)
class In(Infix):
    """`F.x.isin([...])`: equals one of them."""

    field: str
    values: tuple[Scalar, ...]

    def holds(self, fields: Mapping[str, Any]) -> bool:
        value = fields.get(self.field)
        return any(operand.compare("==", value, one) for one in self.values)

    def select(self, source: Source[S]) -> S:
        return source.among(self.field, self.values)

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, "$in", [show.plain(value) for value in self.values])

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("in", self.field, frozenset(map(operand.identity, self.values)))

    def infix(self) -> str:
        return f"in {show.literals(self.values)}"

    def __repr__(self) -> str:
        return f"{show.field(self.field)}.isin([{', '.join(map(show.value, self.values))}])"


@dataclass(frozen=True, eq=False, repr=False)
class Exists(Clause):
    """`F.x.exists()`: the field is there and not None."""

    field: str

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return fields.get(self.field) is not None

    def select(self, source: Source[S]) -> S:
        return source.present(self.field)

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, "$exists", True)

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("exists", self.field)

    def to_string(self) -> str:
        return f"{words.name(self.field)} exists"

    def __repr__(self) -> str:
        return f"{show.field(self.field)}.exists()"


@dataclass(frozen=True, eq=False, repr=False)
class IsNull(Clause):
    """`F.x.is_null()`: the field is missing or None."""

    field: str

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return fields.get(self.field) is None

    def select(self, source: Source[S]) -> S:
        return source.everything() - source.present(self.field)

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, "$null", True)

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("null", self.field)

    def to_string(self) -> str:
        return f"{words.name(self.field)} is null"

    def __repr__(self) -> str:
        return f"{show.field(self.field)}.is_null()"


# --- inside a value ----------------------------------------------------------------------

How = Literal["contains", "contains any", "contains all"]
_METHODS: Final[dict[How, tuple[str, str]]] = {
    "contains": ("contains", "$contains"),
    "contains any": ("contains_any", "$containsAny"),
    "contains all": ("contains_all", "$containsAll"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Contains(Infix):
    """`F.x.contains(v)`, `contains_any`, `contains_all`: which of these has the row's list?"""

    field: str
    how: How
    values: tuple[Scalar, ...]  # exactly one for "contains"

    def holds(self, fields: Mapping[str, Any]) -> bool:
        listed = fields.get(self.field)
        if not isinstance(listed, list | tuple):
            return False
        has = (
            any(operand.compare("==", each, value) for each in listed) for value in self.values
        )
        return any(has) if self.how == "contains any" else all(has)

    def select(self, source: Source[S]) -> S:
        if self.how != "contains all":
            return source.listing(self.field, self.values)
        found = source.lists(self.field)
        for value in self.values:
            if len(found) == 0:
                break
            found = found & source.listing(self.field, (value,))
        return found

    def to_dict(self) -> dict[str, Any]:
        plain: Any = [show.plain(value) for value in self.values]
        return show.clause(
            self.field, _METHODS[self.how][1], plain if self._several else plain[0]
        )

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return (self.how, self.field, frozenset(map(operand.identity, self.values)))

    def infix(self) -> str:
        listed = show.literals(self.values) if self._several else show.literal(self.values[0])
        return f"{self.how} {listed}"

    def __repr__(self) -> str:
        listed = ", ".join(map(show.value, self.values))
        listed = f"[{listed}]" if self._several else listed
        return f"{show.field(self.field)}.{_METHODS[self.how][0]}({listed})"

    @property
    def _several(self) -> bool:
        return self.how != "contains"


@dataclass(frozen=True, eq=False, repr=False)
class StartsWith(Infix):
    """`F.x.startswith(text)`: case-sensitive, code point by code point."""

    field: str
    prefix: str

    def holds(self, fields: Mapping[str, Any]) -> bool:
        value = fields.get(self.field)
        return isinstance(value, str) and value.startswith(self.prefix)

    def select(self, source: Source[S]) -> S:
        return source.strings(self.field, self.prefix, None)

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, "$startswith", self.prefix)

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("startswith", self.field, self.prefix)

    def infix(self) -> str:
        return f"startswith {show.literal(self.prefix)}"

    def __repr__(self) -> str:
        return f"{show.field(self.field)}.startswith({self.prefix!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Like(Infix):
    """`F.x.like(pattern)`: `%` any run, `_` one character, a backslash escapes."""

    field: str
    pattern: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "costly", int(not (self._ready.exact or self._ready.decided)))

    def holds(self, fields: Mapping[str, Any]) -> bool:
        value = fields.get(self.field)
        return isinstance(value, str) and self._ready.matches(value)

    def select(self, source: Source[S]) -> S:
        ready = self._ready
        if ready.exact:
            return source.equal(self.field, ready.literal)
        return source.strings(
            self.field, ready.literal, None if ready.decided else ready.matches, ready
        )

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, "$like", self.pattern)

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("like", self.field, self.pattern)

    @lazy
    def _ready(self) -> Pattern:
        return Pattern(self.pattern)

    def infix(self) -> str:
        return f"like {show.literal(self.pattern)}"

    def __repr__(self) -> str:
        return f"{show.field(self.field)}.like({self.pattern!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Within(Clause):
    """`F.x.within(lat, lon, km)`: a list [lat, lon] that lies at most so far away."""

    field: str
    latitude: float
    longitude: float
    km: float
    costly = 1

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return self._near(fields.get(self.field))

    def select(self, source: Source[S]) -> S:
        latitudes, longitudes = geo.box(self.latitude, self.longitude, self.km)
        return source.pairs(self.field, latitudes, longitudes, self._near)

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, "$within", list(self._numbers))

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("within", self.field, *self._numbers)

    def to_string(self) -> str:
        return f"within({words.name(self.field)}, {', '.join(map(repr, self._numbers))})"

    def __repr__(self) -> str:
        return f"{show.field(self.field)}.within({', '.join(map(repr, self._numbers))})"

    @property
    def _numbers(self) -> tuple[float, float, float]:
        return self.latitude, self.longitude, self.km

    def _near(self, value: Any) -> bool:
        place = geo.place_of(value)
        return place is not None and geo.near((self.latitude, self.longitude), place, self.km)


# --- words -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Matches(Clause):
    """`F.x.matches("words")`: a field with full text has every word, "phrase" and prefix*, no -word.

    What a word is depends on how the field was declared, so a row's metadata alone cannot tell: `holds`
    answers once a collection has bound the filter (query/declared.py), and is an error before.
    """

    field: str
    wanted: str
    bound: Callable[[Any], bool] | None = None  # asked of the field's value; no part of the clause

    def holds(self, fields: Mapping[str, Any]) -> bool:
        if self.bound is None:
            raise FilterError(
                f"{self!r} is asked of a collection, whose full text says what a word is: metadata alone "
                "cannot tell"
            )
        return self.bound(fields.get(self.field))

    def select(self, source: Source[S]) -> S:
        return source.worded(self.field, self.wanted)

    def to_dict(self) -> dict[str, Any]:
        return show.clause(self.field, "$matches", self.wanted)

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("matches", self.field, self.wanted)

    def to_string(self) -> str:
        return f"matches({words.name(self.field)}, {show.literal(self.wanted)})"

    def __repr__(self) -> str:
        return f"{show.field(self.field)}.matches({self.wanted!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Matches, (self.field, self.wanted)
