"""What does a filter mean in a collection whose fields were declared?

    bind         a string is read as a datetime where the field was declared to hold datetimes
    worded       clauses on full text learn what a word is there, and are refused elsewhere
    with_asking  what no index answers becomes a part that rows are asked for one by one

All are pure: a filter goes in and a filter comes out, the same object where nothing differs.

Invariants:
  D1  bound filters mean on every row what `F` would say with the datetime itself; operands of
      other kinds, and `startswith` and `like`, keep their meaning;
  D2  a filter with asking parts selects the rows that the filter without them would, were every
      field indexed; each asking part is as large as it can be, so that a row is read once for it.

Rejected: reading strings as datetimes in the three notations themselves. A filter is a value that
knows no collection, and `F.added > "2020"` is made before anybody can say what `added` holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from vecdb.errors import FilterError
from vecdb.query import operand
from vecdb.query.clauses import Between, Compare, Contains, In, Matches
from vecdb.query.nodes import Clause, Filter, Group, Not, leaves
from vecdb.query.operand import Scalar
from vecdb.query.source import S, Source

# --- words -------------------------------------------------------------------------------


def worded(where: Filter, bound: Callable[[Matches], Matches]) -> Filter:
    """Return the filter with every clause on full text as `bound` makes it; the same one without any."""
    if not any(isinstance(leaf, Matches) for leaf in leaves(where)):
        return where
    return _worded(where, bound)


def _worded(node: Filter, bound: Callable[[Matches], Matches]) -> Filter:
    if isinstance(node, Group):
        return type(node)(tuple(_worded(part, bound) for part in node.parts))
    if isinstance(node, Not):
        return Not(_worded(node.part, bound))
    return bound(node) if isinstance(node, Matches) else node


# --- strings that are datetimes ----------------------------------------------------------


def bind(where: Filter, datetimes: frozenset[str]) -> Filter:
    """Return the filter with strings read as datetimes on fields that hold them.

    `datetimes`: names of fields declared datetime or list[datetime]. FilterError for a string
    that is no datetime there, or one without a time zone.

    >>> from vecdb import F
    >>> from vecdb.query.declared import bind
    >>> bind(F.added >= "2020-01-01T00:00Z", frozenset({"added"}))
    F.added >= datetime.fromisoformat('2020-01-01T00:00:00+00:00')
    """
    if datetimes.isdisjoint(where.fields()):
        return where
    return _bound(where, datetimes)


def _bound(node: Filter, datetimes: frozenset[str]) -> Filter:
    if isinstance(node, Group):
        return type(node)(tuple(_bound(part, datetimes) for part in node.parts))
    if isinstance(node, Not):
        return Not(_bound(node.part, datetimes))
    if not isinstance(node, Clause) or node.field not in datetimes:
        return node
    if isinstance(node, Compare):
        return replace(node, value=_moment(node.value, node.symbol, node.field))
    if isinstance(node, Between):
        low, high = (_moment(end, "between", node.field) for end in (node.low, node.high))
        return replace(node, low=low, high=high)
    if isinstance(node, In | Contains):
        symbol = "in" if isinstance(node, In) else node.how
        values = tuple(_moment(value, symbol, node.field) for value in node.values)
        return replace(node, values=values)
    return node


def _moment(value: Scalar, symbol: str, field: str) -> Scalar:
    """The datetime that a string says; other operands as they are."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        raise FilterError(
            f"filter on {field!r}, {symbol}: {operand.shown(value)} is no datetime, and the field "
            "is declared to hold datetimes; write it as in '2020-01-01T00:00Z'"
        ) from None
    if moment.utcoffset() is None:
        raise FilterError(
            f"filter on {field!r}, {symbol}: {operand.shown(value)} has no time zone; say which "
            f"one it is in, as in {moment.isoformat() + 'Z'!r}"
        )
    return operand.scalar(moment, symbol, field)


# --- fields that rows are asked for ------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Asking(Filter):
    """A part that is answered by reading rows; only ever inside of an evaluation."""

    part: Filter
    costly = 2

    def holds(self, fields: Mapping[str, Any]) -> bool:
        return self.part.holds(fields)

    def select(self, source: Source[S]) -> S:
        return source.asked(self.part.matches)

    def __repr__(self) -> str:
        return repr(self.part)


def with_asking(where: Filter, unindexed: Callable[[str], bool]) -> Filter:
    """Return the filter with an `Asking` around each part that only looks at such fields (D2)."""
    node, asks = _split(where, unindexed)
    return Asking(node) if asks else node


def _split(node: Filter, unindexed: Callable[[str], bool]) -> tuple[Filter, bool]:
    """A part, rewritten inside, and whether all of it looks at such fields: then it is as it was."""
    if isinstance(node, Clause):
        return node, unindexed(node.field) and not isinstance(node, Matches)  # that has postings
    if isinstance(node, Not):
        inner, asks = _split(node.part, unindexed)
        return node if asks or inner is node.part else Not(inner), asks
    if not isinstance(node, Group) or not node.parts:
        return node, False
    split = [_split(part, unindexed) for part in node.parts]
    asking = tuple(part for part, asks in split if asks)
    if len(asking) == len(split):
        return node, True
    others = tuple(part for part, asks in split if not asks)
    if not asking:
        unchanged = all(new is old for new, old in zip(others, node.parts, strict=True))
        return node if unchanged else type(node)(others), False
    together = asking[0] if len(asking) == 1 else type(node)(asking)
    return type(node)((*others, Asking(together))), False
