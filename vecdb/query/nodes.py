"""What can a filter say, and what does it mean?

A filter is an immutable tree: clauses on one field (clauses.py), and combinations of filters
below. It means what `matches` says about one row: that is the reference. `select` is the same
meaning over sets of rows, for whoever can produce the set of one clause (`Source`, see
query/source.py); tests hold the two together.

Invariants:
  F1  equal filters select equal rows, and True, 1 and "1" are three different operands;
  F2  a tree is at most MAX_DEPTH deep and MAX_CLAUSES wide: checked where nodes are made, so
      that nothing that walks a tree can run out of stack;
  F3  `not` is the complement over live rows, so `~(F.x == 1)` holds of rows without x while
      `F.x != 1` does not;
  F4  neither a filter nor a field has a truth value: `and` typed for `&` is an error.

Rejected: SQL's three-valued logic. Its unknown is a third answer that users forget, and a
complement over live rows needs none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from vecdb.errors import FilterError
from vecdb.lazy import lazy
from vecdb.query import show
from vecdb.query.source import S, Source, flat

MAX_DEPTH: Final = 64
MAX_CLAUSES: Final = 1_000


class Filter:
    """A condition on a row's metadata; made with `F`, a dict or text, combined with `&`, `|`, `~`.

    Filters are values: hashable, comparable, and `to_json` writes them down. The repr is Python,
    str() is text notation.

    >>> from vecdb import F
    >>> where = (F.year >= 1990) & ~F.lang.isin(["en", "fr"])
    >>> where
    (F.year >= 1990) & ~F.lang.isin(['en', 'fr'])
    >>> print(where)
    year >= 1990 and lang not in ('en', 'fr')
    """

    depth = 1
    clauses = 1
    costly = 0  # 1: `select` looks at values or rows one by one, 2: at every row; best done last

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Return whether a row with this metadata satisfies the filter."""
        return self.holds(flat(metadata))

    def holds(self, fields: Mapping[str, Any]) -> bool:
        """`matches` on metadata that `flat` has flattened."""
        raise TypeError(f"{type(self).__name__} is no filter")

    def select(self, source: Source[S]) -> S:
        """Return the rows of `source` that satisfy the filter."""
        raise TypeError(f"{type(self).__name__} is no filter")

    def to_dict(self) -> dict[str, Any]:
        """Return the filter in dict notation, plain enough for JSON."""
        raise TypeError(f"{type(self).__name__} is no filter")

    def to_json(self) -> str:
        """Return the filter as JSON text, which `vecdb.query.from_json` reads."""
        return json.dumps({"filter": self.to_dict()}, ensure_ascii=False, allow_nan=False)

    def to_string(self) -> str:
        """Return the filter in text notation, which `vecdb.query.parse` reads."""
        raise TypeError(f"{type(self).__name__} is no filter")

    def denied(self) -> str:
        """Return the complement in text notation."""
        return f"not ({self.to_string()})"

    def fields(self) -> frozenset[str]:
        """Return the names of the fields that the filter looks at."""
        return self._fields

    @lazy
    def _fields(self) -> frozenset[str]:
        return frozenset(leaf.field for leaf in leaves(self))

    @lazy
    def identity(self) -> tuple[Any, ...]:
        """What equality and hash look at."""
        raise TypeError(f"{type(self).__name__} is no filter")

    def __str__(self) -> str:
        return self.to_string()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __and__(self, other: object) -> Filter:
        return all_of((self, _needed(other, "&")))

    def __or__(self, other: object) -> Filter:
        return any_of((self, _needed(other, "|")))

    def __rand__(self, other: object) -> Filter:
        return all_of((_needed(other, "&"), self))

    def __ror__(self, other: object) -> Filter:
        return any_of((_needed(other, "|"), self))

    def __invert__(self) -> Filter:
        return self.part if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        raise FilterError(
            f"the filter {show.short(self)} has no truth value of its own: combine filters "
            "with &, | and ~ (not and, or, not), and use .between(a, b) for a < F.x < b"
        )


class Clause(Filter):
    """A filter on one field."""

    field: str


# --- combinations ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Group(Filter):
    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _measure(self, self.parts)


class And(Group):
    """Every part holds; without parts, true of every row."""

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return all(part.holds(fields) for part in self.parts)

    def select(self, source: Source[S]) -> S:
        found: S | None = None
        for part in sorted(self.parts, key=lambda part: part.costly):
            if found is not None and part.costly:
                source = source.limited(found)
            if found is None:
                found = part.select(source)
            elif len(found) == 0:
                break
            elif isinstance(part, Not):
                found = found - part.part.select(source)
            else:
                found = found & part.select(source)
        return source.everything() if found is None else found

    def to_dict(self) -> dict[str, Any]:
        return {"$and": [part.to_dict() for part in self.parts]} if self.parts else {}

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("and", *(part.identity for part in self.parts))

    def to_string(self) -> str:
        return " and ".join(map(_bracketed, self.parts)) if self.parts else "true"

    def __repr__(self) -> str:
        return " & ".join(map(show.nested, self.parts)) if self.parts else "as_filter({})"


class Or(Group):
    """At least one part holds."""

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return any(part.holds(fields) for part in self.parts)

    def select(self, source: Source[S]) -> S:
        first, *rest = sorted(self.parts, key=lambda part: part.costly)
        found = first.select(source)
        for part in rest:
            if part.costly:  # the others' rows need not be asked; beyond the rest, nothing was
                others = source.everything() - found
                found = found | (part.select(source.limited(others)) & others)
            else:
                found = found | part.select(source)
        return found

    def to_dict(self) -> dict[str, Any]:
        return {"$or": [part.to_dict() for part in self.parts]}

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("or", *(part.identity for part in self.parts))

    def to_string(self) -> str:
        return " or ".join(map(_bracketed, self.parts))

    def __repr__(self) -> str:
        return " | ".join(map(show.nested, self.parts))


@dataclass(frozen=True, eq=False, repr=False)
class Not(Filter):
    """The part does not hold: the plain complement over live rows."""

    part: Filter

    def __post_init__(self) -> None:
        _measure(self, (self.part,))

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return not self.part.holds(fields)

    def select(self, source: Source[S]) -> S:
        return source.everything() - self.part.select(source)

    def to_dict(self) -> dict[str, Any]:
        return {"$not": self.part.to_dict()}

    @lazy
    def identity(self) -> tuple[Any, ...]:
        return ("not", self.part.identity)

    def to_string(self) -> str:
        return self.part.denied()

    def denied(self) -> str:
        return f"not ({self.to_string()})"

    def __repr__(self) -> str:
        return f"~{show.nested(self.part)}"


def all_of(parts: Iterable[Filter]) -> Filter:
    """Return the conjunction: nested ones are joined, a single part stands for itself."""
    joined = _joined(parts, And)
    return joined[0] if len(joined) == 1 else And(joined)


def any_of(parts: Iterable[Filter]) -> Filter:
    """Return the disjunction of at least one part."""
    joined = _joined(parts, Or)
    return joined[0] if len(joined) == 1 else Or(joined)


def leaves(filter: Filter) -> Iterable[Clause]:
    """Yield the clauses of a filter, from left to right."""
    pending = [filter]
    while pending:
        node = pending.pop()
        if isinstance(node, Group):
            pending.extend(reversed(node.parts))
        elif isinstance(node, Not):
            pending.append(node.part)
        elif isinstance(node, Clause):
            yield node


def _joined(parts: Iterable[Filter], kind: type[Group]) -> tuple[Filter, ...]:
    joined: list[Filter] = []
    for part in parts:
        if type(part) is kind and part.parts:
            joined.extend(part.parts)
        else:
            joined.append(part)
    return tuple(joined)


def _bracketed(part: Filter) -> str:
    """Return a part as text within a combination; precedence is not left to the reader."""
    text = part.to_string()
    return f"({text})" if isinstance(part, Group) and part.parts else text


def _measure(node: Filter, parts: tuple[Filter, ...]) -> None:
    """Set what a combination has of its parts; FilterError beyond the limits (F2)."""
    depth = 1 + max((part.depth for part in parts), default=0)
    clauses = sum(part.clauses for part in parts)
    if depth > MAX_DEPTH:
        raise FilterError(
            f"the filter is nested deeper than {MAX_DEPTH} levels; and-s within and-s and or-s "
            "within or-s do not count: write those side by side"
        )
    if clauses > MAX_CLAUSES:
        raise FilterError(
            f"the filter has more than {MAX_CLAUSES:,} clauses; alternatives of one field "
            "belong in isin([...])"
        )
    object.__setattr__(node, "depth", depth)
    object.__setattr__(node, "clauses", clauses)
    object.__setattr__(node, "costly", max((part.costly for part in parts), default=0))


def _needed(other: object, symbol: str) -> Filter:
    if isinstance(other, Filter):
        return other
    raise FilterError(
        f"{symbol} combines two filters, and one side is a {type(other).__name__}; it binds "
        f"tighter than comparisons: write (F.a == 1) {symbol} (F.b == 2)"
    )
