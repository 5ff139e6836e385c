"""How is a value written in JSON that JSON has no word for? The rule of JSON lines and of CSV cells.

    a datetime        {"$datetime": "2020-01-01T00:00:00+00:00"}
    NaN, infinity     {"$float": "nan"}, {"$float": "inf"}, {"$float": "-inf"}
    a dict that looks like one of these, or like this one
                      {"$literal": {...}}

Invariants:
  K1  read(write(value)) equals value and has its types, for everything that metadata can hold;
  K2  what is no mark is left as it is: {"$date": 1} from elsewhere is a dict.

Rejected: bare NaN, which other readers of JSON refuse; it is understood when read.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, Final

__all__ = ["dumps", "loads", "parsed", "unmarked"]

_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_MARKS: Final = ("$datetime", "$float", "$literal")


def dumps(value: Any) -> str:
    """A metadata value as JSON on one line.

    >>> dumps({"a": float("inf")})
    '{"a": {"$float": "inf"}}'
    """
    return json.dumps(_marked(value), ensure_ascii=False, allow_nan=False)


def loads(text: str) -> Any:
    """The value that `dumps` was given; ValueError says what is wrong.

    >>> loads('{"a": {"$float": "inf"}}')
    {'a': inf}
    """
    return unmarked(parsed(text))


def _marked(value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if kind is list:
        return [_marked(item) for item in value]
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    found = {key: _marked(item) for key, item in value.items()}
    if len(found) == 1 and next(iter(found)) in _MARKS:
        return {"$literal": found}
    return found


def unmarked(value: Any) -> Any:
    """Parsed JSON with its marks understood, from the outside in: what $literal holds is none."""
    kind = type(value)
    if kind is list:
        marks = any(type(item) is dict for item in value)
        return [unmarked(item) for item in value] if marks else value
    if kind is not dict:
        return value
    if len(value) == 1:
        key, inner = next(iter(value.items()))
        if key == "$datetime":
            return _moment(inner)
        if key == "$float":
            if not isinstance(inner, str) or inner not in _FLOATS:
                raise ValueError(f"$float is one of {', '.join(_FLOATS)}, not {inner!r:.40}")
            return _FLOATS[inner]
        if key == "$literal":
            if not isinstance(inner, dict):
                raise ValueError(f"$literal holds an object, not a {type(inner).__name__}")
            return {name: unmarked(item) for name, item in inner.items()}
    return {name: unmarked(item) for name, item in value.items()}


def _moment(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError(f"$datetime is an ISO 8601 date and time, not {text!r:.40}") from None


def parsed(text: str) -> Any:
    """JSON as it stands; ValueError too for a key that is there twice and for nesting too deep."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return found
