"""Which values can a filter compare with, and how do two values compare?

Invariants:
  O1  an operand is an exact bool, int, float, str or datetime with a zone; everything else is a
      FilterError that says what to write instead;
  O2  values compare within one kind only: bool, number, string, datetime. Between kinds, and
      with NaN, every comparison is false, != too;
  O3  int and float compare by exact value, strings by code point, datetimes by their instant.

This module is half of the reference semantics (the other half is `Filter.matches`): written
with Python's own comparisons, so that the index's byte order has something else to agree with.

Rejected: coercion ("1990" to 1990, 1 to True). It makes a filter's meaning depend on data.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta, timezone
from itertools import islice
from typing import Any, Final, NoReturn, cast

from vecdb.errors import FilterError
from vecdb.query.like import MAX_PATTERN, Pattern

Scalar = bool | int | float | str | datetime
Place = tuple[float, float, float]  # latitude, longitude, km

MAX_ALTERNATIVES: Final = 10_000
MAX_WANTED: Final = 65_536  # characters of words
MAX_KM: Final = 1e6
MAX_INT_BITS: Final = 10_000  # below what Python refuses to print
ORDERINGS: Final = ("<", "<=", ">", ">=")
OPERATORS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


# --- the semantics -----------------------------------------------------------------------


def kind_of(value: object) -> str | None:
    """Return "bool", "number", "string" or "datetime"; None for what no comparison holds of."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number" if value == value else None
    if isinstance(value, str):
        return "string"
    if isinstance(value, datetime):
        return "datetime"
    return None


def compare(symbol: str, value: object, operand: Scalar) -> bool:
    """Return whether a stored value stands in this relation to an operand (O2, O3)."""
    kind = kind_of(operand)
    if kind is None or kind_of(value) != kind:
        return False
    return OPERATORS[symbol](_comparable(value), _comparable(operand))


def identity(operand: Scalar) -> tuple[str, Any]:
    """Return what makes operands the same to every filter: True and 1 differ, 1 and 1.0 not."""
    return (kind_of(operand) or "nan", _comparable(operand) if operand == operand else None)


def instant(moment: datetime) -> int:
    """Return a zoned datetime's microseconds since 1970 in UTC."""
    offset = moment.utcoffset() or timedelta(0)
    return (moment.replace(tzinfo=None) - _EPOCH) // _MICROSECOND - offset // _MICROSECOND


def _comparable(value: Any) -> Any:
    return instant(value) if isinstance(value, datetime) else value


# --- what may be an operand --------------------------------------------------------------


def scalar(value: object, symbol: str, field: str) -> Scalar:
    """Return an operand in its exact Python type; FilterError when it cannot be one (O1)."""
    value = _from_numpy(value, symbol, field)
    kind = type(value)
    if kind is str or kind is float:
        return cast("str | float", value)
    if isinstance(value, bool):
        if symbol in ORDERINGS or symbol == "between":
            _refuse(field, symbol, "bools have no order; use == True or == False")
        return value
    if isinstance(value, int):
        return _integer(value, symbol, field)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, datetime):
        return _moment(value, symbol, field)
    _refuse(field, symbol, _remedy(value, symbol))


def alternatives(values: object, symbol: str, field: str) -> tuple[Scalar, ...]:
    """Return the operands of an operator that takes many; FilterError beyond 10,000 of them."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        _refuse(field, symbol, f"a list of values is needed, not {shown(values)}")
    listed = list(islice(values, MAX_ALTERNATIVES + 1))
    if len(listed) > MAX_ALTERNATIVES:
        _refuse(
            field,
            symbol,
            f"more than {MAX_ALTERNATIVES:,} values; store a field that groups the rows, "
            "or ask in parts",
        )
    return tuple(scalar(value, symbol, field) for value in listed)


def text(value: object, symbol: str, field: str) -> str:
    """Return the operand of an operator on strings."""
    value = _from_numpy(value, symbol, field)
    if isinstance(value, str):
        return str.__str__(value)
    _refuse(field, symbol, f"a str is needed, not {shown(value)}")


def pattern(value: object, field: str) -> str:
    """Return the operand of like; FilterError when it cannot be understood."""
    found = text(value, "like", field)
    if len(found) > MAX_PATTERN:
        _refuse(field, "like", f"a pattern has at most {MAX_PATTERN:,} characters")
    try:
        Pattern(found)
    except ValueError as error:
        _refuse(field, "like", str(error))
    return found


def wanted(value: object, field: str) -> str:
    """Return the words of matches."""
    found = text(value, "matches", field)
    if len(found) > MAX_WANTED:
        _refuse(field, "matches", f"{len(found):,} characters of words; the limit is {MAX_WANTED:,}")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        _refuse(field, "matches", f"a lone surrogate at position {error.start}; it is no text")
    return found


def place(latitude: object, longitude: object, km: object, field: str) -> Place:
    """Return the operands of within."""
    return (
        _degrees("latitude", latitude, 90, field),
        _degrees("longitude", longitude, 180, field),
        _measure("km", km, 0, MAX_KM, field),
    )


def _degrees(name: str, value: object, most: int, field: str) -> float:
    return _measure(name, value, -most, most, field)


def _measure(name: str, value: object, least: float, most: float, field: str) -> float:
    value = _from_numpy(value, "within", field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(field, "within", f"{name} is a number, not {shown(value)}")
    if not least <= value <= most:
        _refuse(
            field,
            "within",
            f"{name} {value!s:.40} is not between {least:,} and {most:,}; "
            "the order is latitude, longitude, km",
        )
    return float(value)


def _integer(value: int, symbol: str, field: str) -> int:
    if value.bit_length() > MAX_INT_BITS:
        _refuse(
            field,
            symbol,
            f"an int of {value.bit_length():,} bits; the limit is {MAX_INT_BITS:,}, and "
            "stored ints have 64",
        )
    return int.__int__(value)


def _moment(value: datetime, symbol: str, field: str) -> datetime:
    offset = value.utcoffset()
    if not isinstance(offset, timedelta):  # None, or what a missing date of another library has
        _refuse(
            field,
            symbol,
            f"the datetime {value!s} has no time zone; say which one it is in: "
            "value.replace(tzinfo=timezone.utc)",
        )
    if type(value) is datetime:
        return value
    year, month, day, hour, minute, second = value.timetuple()[:6]
    return datetime(year, month, day, hour, minute, second, value.microsecond, timezone(offset))


def _from_numpy(value: object, symbol: str, field: str) -> object:
    """numpy scalars and 0-d arrays become Python's, without importing numpy."""
    kind = type(value)
    if kind.__module__ != "numpy" or getattr(value, "ndim", None) != 0:
        return value
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        _refuse(field, symbol, f"a {kind.__name__} has no time zone; use a datetime with one")
    plain: object = value.item()  # type: ignore[attr-defined]
    if type(plain).__module__ == "numpy":  # longdouble gives itself
        _refuse(field, symbol, f"a numpy {kind.__name__} is no value that rows can hold")
    return plain


def _remedy(value: object, symbol: str) -> str:
    """The part of the message that says what to write instead."""
    if value is None:
        return (
            "None is not compared with; use .is_null() for missing or None, "
            ".exists() for its opposite"
        )
    if _is_list(value):
        if symbol in ("==", "!="):
            return (
                "a list is not compared as a whole; contains_all([...]) says that the row's "
                "list has all of these, isin([...]) that the row's value is one of them"
            )
        if symbol.startswith("contains"):
            return (
                "a list has no lists in it; contains_any([...]) and contains_all([...]) "
                "ask for several elements"
            )
        return "a list is not a value to compare with; use isin([...]) for alternatives"
    if isinstance(value, date):
        return f"{value!r} is a day, not an instant; use a datetime with a time zone"
    return (
        f"{shown(value)} is no value that rows can hold; "
        "use a str, int, float, bool or datetime with a time zone"
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset) or bool(getattr(value, "ndim", 0))


def shown(value: object) -> str:
    """Return a value for a message: its type and the beginning of its repr."""
    try:
        text = repr(value)
    except Exception:  # an operand's own repr must not decide which error is seen
        text = "..."
    return f"the {type(value).__name__} {text[:60]}"


def _refuse(field: str, symbol: str, why: str) -> NoReturn:
    raise FilterError(f"filter on {field!r}, {symbol}: {why}")
