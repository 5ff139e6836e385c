"""How does what a user passes as `where=` become a filter?

A filter is passed through; text is read by parse.py; dicts, and JSON that `to_json` made, are
read here.

    {"year": {"$gte": 1990, "$lt": 2000}, "lang": "en"}    several keys or operators: and
    {"$or": [{"a": 1}, {"$not": {"b": {"$in": [1, 2]}}}]}

Invariants:
  N1  the result is the same tree that `F` makes: all notations share meaning and limits;
  N2  depth is counted before descending: no input, however deep, meets Python's own limit;
  N3  what is not understood is a FilterError that says where, and lists what is known there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from vecdb.errors import FilterError
from vecdb.query import operand, show, words
from vecdb.query.clauses import (
    Between,
    Compare,
    Contains,
    Exists,
    How,
    In,
    IsNull,
    Like,
    Matches,
    StartsWith,
    Within,
)
from vecdb.query.nodes import (
    MAX_CLAUSES,
    MAX_DEPTH,
    And,
    Filter,
    Not,
    all_of,
    any_of,
)
from vecdb.query.parse import parse

__all__ = ["Filter", "as_filter", "from_dict", "from_json"]

MAX_JSON_CHARS: Final = 1 << 20
_COMPARISONS: Final = {name: symbol for symbol, name in show.NAMES.items()}


def as_filter(where: object) -> Filter:
    """Return a filter from a filter, a dict or text; FilterError for anything else."""
    if isinstance(where, Filter):
        return where
    if isinstance(where, Mapping):
        return from_dict(where)
    if isinstance(where, str):
        return parse(where)
    raise FilterError(
        "where= takes a filter such as F.year >= 1990, text such as 'year >= 1990', or a dict, "
        f"not {type(where).__name__}"
    )


def from_dict(where: Mapping[str, Any]) -> Filter:
    """Return the filter that dict notation describes; `{}` is every row.

    >>> from vecdb.query import from_dict
    >>> from_dict({"year": {"$gte": 1990, "$lt": 2000}, "lang": "en"})
    (F.year >= 1990) & (F.year < 2000) & (F.lang == 'en')
    """
    return _filter(where, 1)


def from_json(text: str) -> Filter:
    """Return what `to_json` wrote down; FilterError when it is anything else.

    >>> from vecdb import F
    >>> from vecdb.query import from_json
    >>> from_json((F.year >= 1990).to_json())
    F.year >= 1990
    """
    if not isinstance(text, str) or len(text) > MAX_JSON_CHARS:
        raise FilterError(
            f"from_json takes a str of at most {MAX_JSON_CHARS:,} characters, made by to_json"
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(
            f"this is no JSON: {error}", offset=getattr(error, "pos", None)
        ) from None
    if (
        isinstance(found, dict)
        and found.keys() == {"filter"}
        and isinstance(found["filter"], dict)
    ):
        return from_dict(found["filter"])
    raise FilterError('from_json expects {"filter": {...}}, as to_json makes it')


# --- combinations ------------------------------------------------------------------------


def _filter(where: Mapping[Any, Any], depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise FilterError(f"the filter is nested deeper than {MAX_DEPTH} levels; flatten it")
    if len(where) > MAX_CLAUSES:
        raise FilterError(f"the filter has more than {MAX_CLAUSES:,} clauses")
    parts = [_entry(key, value, depth) for key, value in where.items()]
    return all_of(parts) if parts else And(())


def _entry(key: object, value: object, depth: int) -> Filter:
    if not isinstance(key, str):
        raise FilterError(f"a field is named by a str, not by {operand.shown(key)}")
    if not key.startswith("$"):
        return _field(str.__str__(key), value)
    if key in ("$and", "$or"):
        combine = all_of if key == "$and" else any_of
        return combine([_filter(part, depth + 1) for part in _parts(key, value)])
    if key == "$not":
        return ~_filter(_dict(key, value), depth + 1)
    if key == "$field":
        return _escaped(value)
    raise FilterError(
        f"unknown operator {key!r} where a field or a combination belongs; known: $and, "
        "$or, $not, and $field for a field whose name starts with $"
    )


def _parts(key: str, value: object) -> list[Mapping[Any, Any]]:
    if not isinstance(value, list | tuple) or not value:
        raise FilterError(f"{key} takes a list of at least one filter; all rows is {{}}")
    if len(value) > MAX_CLAUSES:
        raise FilterError(
            f"{key} has {len(value):,} parts; the limit is {MAX_CLAUSES:,}: alternatives of "
            "one field belong in $in"
        )
    return [_dict(key, part) for part in value]


def _dict(key: str, value: object) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    raise FilterError(f"{key} combines filters in dict notation, not {type(value).__name__}")


def _escaped(value: object) -> Filter:
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str):
        return _field(value[0], value[1])
    raise FilterError("$field takes [name, operators], for names that start with $")


# --- operators on one field --------------------------------------------------------------


def _field(field: str, value: object) -> Filter:
    if not isinstance(value, Mapping) or _is_typed(value):
        return Compare(field, "==", operand.scalar(_typed(value, field), "==", field))
    if not value:
        raise FilterError(f"filter on {field!r}: an empty dict has no operator; {_known()}")
    return all_of([_operator(field, name, argument) for name, argument in value.items()])


def _operator(field: str, name: object, argument: object) -> Filter:
    symbol = _COMPARISONS.get(name) if isinstance(name, str) else None
    if symbol is not None:
        return Compare(field, symbol, operand.scalar(_typed(argument, field), symbol, field))
    make = _OPERATORS.get(name) if isinstance(name, str) else None
    if make is not None:
        return make(field, argument)
    if not isinstance(name, str):
        raise FilterError(
            f"filter on {field!r}: an operator is a str, not {operand.shown(name)}"
        )
    if name.startswith("$"):
        hint = words.meant(name, (*_COMPARISONS, *_OPERATORS))
    else:
        hint = f"; a field inside another is addressed as {field + '.' + name!r:.80}"
    raise FilterError(f"filter on {field!r}: unknown operator {name!r:.60}{hint}; {_known()}")


def _in(field: str, argument: object) -> Filter:
    return In(field, _several(field, "isin", argument))


def _several(field: str, symbol: str, argument: object) -> tuple[operand.Scalar, ...]:
    if isinstance(argument, list | tuple) and len(argument) <= operand.MAX_ALTERNATIVES:
        argument = [_typed(value, field) for value in argument]
    return operand.alternatives(argument, symbol, field)


def _not_in(field: str, argument: object) -> Filter:
    return Not(_in(field, argument))


def _between(field: str, argument: object) -> Filter:
    if not isinstance(argument, list | tuple) or len(argument) != 2:
        raise FilterError(f"filter on {field!r}: $between takes [low, high]")
    low, high = (operand.scalar(_typed(value, field), "between", field) for value in argument)
    return Between(field, low, high)


def _contains(field: str, argument: object) -> Filter:
    value = operand.scalar(_typed(argument, field), "contains", field)
    return Contains(field, "contains", (value,))


def _containing(how: How, symbol: str) -> Callable[[str, object], Filter]:
    return lambda field, argument: Contains(field, how, _several(field, symbol, argument))


def _startswith(field: str, argument: object) -> Filter:
    return StartsWith(field, operand.text(argument, "startswith", field))


def _like(field: str, argument: object) -> Filter:
    return Like(field, operand.pattern(argument, field))


def _within(field: str, argument: object) -> Filter:
    if not isinstance(argument, list | tuple) or len(argument) != 3:
        raise FilterError(f"filter on {field!r}: $within takes [latitude, longitude, km]")
    latitude, longitude, km = argument
    return Within(field, *operand.place(latitude, longitude, km, field))


def _matches(field: str, argument: object) -> Filter:
    return Matches(field, operand.wanted(argument, field))


def _exists(field: str, argument: object) -> Filter:
    return Exists(field) if _flag(field, "$exists", argument) else IsNull(field)


def _null(field: str, argument: object) -> Filter:
    return IsNull(field) if _flag(field, "$null", argument) else Exists(field)


def _flag(field: str, name: str, argument: object) -> bool:
    if isinstance(argument, bool):
        return argument
    raise FilterError(
        f"filter on {field!r}: {name} takes true or false, not {operand.shown(argument)}"
    )


_OPERATORS: Final[dict[str, Callable[[str, object], Filter]]] = {
    "$in": _in,
    "$nin": _not_in,
    "$between": _between,
    "$contains": _contains,
    "$containsAny": _containing("contains any", "contains_any"),
    "$containsAll": _containing("contains all", "contains_all"),
    "$startswith": _startswith,
    "$like": _like,
    "$within": _within,
    "$matches": _matches,
    "$exists": _exists,
    "$null": _null,
}


def _known() -> str:
    return f"known: {', '.join((*_COMPARISONS, *_OPERATORS))}"


# --- values that JSON has not ------------------------------------------------------------


def _is_typed(value: Mapping[Any, Any]) -> bool:
    return len(value) == 1 and ("$datetime" in value or "$float" in value)


def _typed(value: object, field: str) -> object:
    """Return the operand that {"$datetime": "..."} or {"$float": "nan"} stands for."""
    if not isinstance(value, Mapping) or not _is_typed(value):
        return value
    ((name, text),) = value.items()
    try:
        if name == "$datetime" and isinstance(text, str):
            return datetime.fromisoformat(text)
        if name == "$float" and text in ("nan", "inf", "-inf"):
            return float(text)
    except ValueError as error:
        raise FilterError(f"filter on {field!r}: {name}: {error}") from None
    raise FilterError(
        f'filter on {field!r}: {name} with {operand.shown(text)}: write {{"$datetime": '
        '"2020-01-01T00:00Z"} or {"$float": "nan" | "inf" | "-inf"}'
    )
