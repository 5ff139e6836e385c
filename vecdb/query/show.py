"""How is a filter written down: as Python, as text, and as plain data?

Invariants:
  W1  evaluating a filter's repr (with F, datetime, as_filter at hand) gives an equal filter, and
      so does parsing its str;
  W2  dict notation made here holds only what JSON has: a datetime is {"$datetime": iso text},
      NaN and the infinities are {"$float": name};
  W3  a field whose name starts with "$" is written {"$field": [name, operators]}, since a bare
      key of that look is an operator.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from keyword import iskeyword
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from vecdb.query import words
from vecdb.query.operand import Scalar

if TYPE_CHECKING:
    from vecdb.query.nodes import Filter

NAMES: Final = {
    "==": "$eq",
    "!=": "$ne",
    "<": "$lt",
    "<=": "$lte",
    ">": "$gt",
    ">=": "$gte",
}
METHODS: Final = (
    "exists",
    "is_null",
    "isin",
    "between",
    "contains",
    "contains_any",
    "contains_all",
    "startswith",
    "like",
    "within",
    "matches",
)  # of a field: F.a.exists is not nested
_SHORT: Final = 120


def clause(field: str, name: str, argument: Any) -> dict[str, Any]:
    """Return one clause in dict notation."""
    if field.startswith("$"):
        return {"$field": [field, {name: argument}]}
    return {field: {name: argument}}


def plain(value: Scalar) -> Any:
    """Return an operand as JSON can hold it (W2)."""
    if isinstance(value, datetime):
        return {"$datetime": _iso(value)}
    if isinstance(value, float) and not isfinite(value):
        return {"$float": repr(value)}
    return value


def field(name: str) -> str:
    """Return a field as Python writes it: F.year, F.a.b or F['any name']."""
    first, *rest = name.split(".")
    if _attribute(first) and all(_attribute(part) and part not in METHODS for part in rest):
        return f"F.{name}"
    return f"F[{name!r}]"


def value(value: Scalar) -> str:
    """Return an operand as Python writes it."""
    if isinstance(value, float) and not isfinite(value):
        return f"float({repr(value)!r})"
    if isinstance(value, datetime):
        return _moment(value)
    return repr(value)


def literal(value: Scalar) -> str:
    """Return an operand as text notation writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return words.quoted(value, "'")
    if isinstance(value, datetime):
        return f"datetime {words.quoted(_iso(value), chr(39))}"
    return repr(value)


def literals(values: Iterable[Scalar]) -> str:
    """Return operands as text notation writes a list."""
    return f"({', '.join(map(literal, values))})"


def nested(filter: Filter) -> str:
    """Return a part as it stands inside a combination."""
    text = repr(filter)
    return text if text.endswith(")") and _is_call(filter) else f"({text})"


def short(filter: Filter) -> str:
    """Return a filter for a message."""
    text = repr(filter)
    return text if len(text) <= _SHORT else text[: _SHORT - 3] + "..."


def _is_call(filter: Filter) -> bool:
    """Whether a filter's repr is one method call or its complement, which needs no brackets."""
    return type(filter).__name__ not in ("Compare", "And", "Or")


def _attribute(part: str) -> bool:
    return (
        part.isascii()
        and part.isidentifier()
        and not iskeyword(part)
        and not part.startswith("_")
    )


def _moment(moment: datetime) -> str:
    """datetime's own repr names the module, and zones of other makers may not evaluate."""
    return f"datetime.fromisoformat({_iso(moment)!r})"


def _iso(moment: datetime) -> str:
    offset = moment.utcoffset() or timedelta(0)
    return moment.replace(tzinfo=None).isoformat() + _zone(offset)


def _zone(offset: timedelta) -> str:
    sign = "-" if offset < timedelta(0) else "+"
    clock = str((datetime(1, 1, 1) + abs(offset)).time())
    return sign + (clock[:5] if clock.endswith(":00") else clock)
