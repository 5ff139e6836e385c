"""How is a query written down, and read again?

    {"query": {"type": "Fuse", "queries": [{"type": "Near", "x": "gpu"}, ...], "depth": 50}, "version": 1}

What is as it is without being given is left out. An unknown type, field or version is an error that
names it: a file made by a later version is refused, not misread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from vecdb.errors import FilterError
from vecdb.query import filter as filters
from vecdb.query.boosts import Boost, Decay, Field
from vecdb.query.nodes import Filter
from vecdb.query.numbers import Numbers, from_plain
from vecdb.query.objects import (
    MAX_DEPTH,
    MAX_PARTS,
    Context,
    Fuse,
    Late,
    Like,
    Near,
    Query,
    Rerank,
    Sparse,
    Text,
)
from vecdb.query.values import ById, Frozen, Value, refuse

VERSION: Final = 1
MAX_JSON_CHARS: Final = 1 << 22
_QUERIES: Final[dict[str, type[Query]]] = {
    kind.__name__: kind for kind in (Near, Like, Context, Text, Sparse, Late, Fuse, Rerank)
}
_BOOSTS: Final[dict[str, type[Boost]]] = {kind.__name__: kind for kind in (Decay, Field)}


def to_json(query: Query) -> str:
    """The query as JSON text."""
    return json.dumps({"query": plain(query), "version": VERSION}, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """A query, a boost or what is inside of one, as JSON can hold it."""
    if isinstance(value, ById):
        return {"id": value.id}
    if isinstance(value, Numbers):
        return value.to_plain()
    if isinstance(value, Value):
        usual = value._usual()
        fields = zip(value._names, value._fields(), strict=True)
        kept = {name: plain(each) for name, each in fields if name not in usual or each != usual[name]}
        return {"type": type(value).__name__, **kept}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if value is None or isinstance(value, str | int | float):
        return value
    refuse(
        f"a query with a callable inside ({getattr(value, '__name__', type(value).__name__)!r:.60}) cannot "
        "be written down: code is not stored; rerank by a query instead"
    )


def from_json(text: str) -> Filter | Query:
    """Return the filter or the query that `to_json` wrote down.

    InvalidArgument, or FilterError for a filter, when it is anything else, naming the field or the version
    that is not known.

    >>> from vecdb import F
    >>> from vecdb.query import Near, Text, from_json
    >>> from_json((F.year >= 1990).to_json())
    F.year >= 1990
    >>> from_json((Near("gpu") + Text("cuda")).to_json())
    Fuse(Near('gpu'), Text('cuda'))
    """
    if not isinstance(text, str) or len(text) > MAX_JSON_CHARS:
        raise FilterError(f"from_json takes a str of at most {MAX_JSON_CHARS:,} characters, made by to_json")
    if '"query"' not in text:
        return filters.from_json(text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FilterError(f"this is no JSON: {error}", offset=getattr(error, "pos", None)) from None
    if isinstance(found, dict) and "query" in found:
        return from_found(found)
    return filters.from_json(text)


def from_found(found: Mapping[str, Any]) -> Query:
    """The query in a decoded JSON object."""
    for key in found:
        if key not in ("query", "version"):
            refuse(f"from_json: unknown key {key!r:.60} beside the query")
    version = found.get("version")
    if type(version) is not int or version != VERSION:
        refuse(f"from_json: version {version!r:.40} of a query; this vecdb reads version {VERSION}")
    return query_of(found["query"])


def query_of(found: Any) -> Query:
    """The query that `plain` made so."""
    _check_depth(found)
    return _query(found)


def boost_of(found: Any) -> Boost:
    """The boost that `plain` made so."""
    _check_depth(found)
    name, given = _typed(found, _BOOSTS, "a boost")
    if name == "Decay":
        origin = given.get("origin")
        if isinstance(origin, dict):
            given["origin"] = _datetime(origin)
    found_boost: Boost = _made(_BOOSTS[name], given)
    return found_boost


def _check_depth(found: Any) -> None:
    """Refuse what is nested too deeply before descending."""
    level: list[Any] = [found] if isinstance(found, dict | list) else []
    depth, parts = 0, 0
    while level:
        depth, parts = depth + 1, parts + len(level)
        if depth > 4 * MAX_DEPTH or parts > 64 * MAX_PARTS:
            refuse(f"from_json: the query is nested deeper than {MAX_DEPTH} levels, or has too many parts")
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict) or (isinstance(inner, list) and _nests(inner))
        ]


def _nests(items: list[Any]) -> bool:
    return any(isinstance(each, dict | list) for each in items[:MAX_PARTS])


def _query(found: Any) -> Query:
    name, given = _typed(found, _QUERIES, "a query")
    read = _READERS.get(name)
    if read is not None:
        read(given)
    if name == "Fuse":
        made: Query = _made(Fuse, given, *given.pop("queries", []))
    else:
        made = _made(_QUERIES[name], given)
    return made


def _typed(found: Any, known: Mapping[str, Any], what: str) -> tuple[str, dict[str, Any]]:
    """The type's name, and the fields that are given."""
    if not isinstance(found, dict):
        refuse(f"from_json: a {type(found).__name__} where {what} belongs")
    name = found.get("type")
    if not isinstance(name, str) or name not in known:
        refuse(f"from_json: unknown type {name!r:.60} of {what}; known: {', '.join(known)}")
    given = {key: value for key, value in found.items() if key != "type"}
    for key in given:
        if key not in known[name]._names:
            refuse(f"from_json: unknown field {key!r:.60} in {name}; known: {', '.join(known[name]._names)}")
    return name, given


def _made(kind: Any, given: dict[str, Any], *listed: Any) -> Any:
    try:
        return kind(*listed, **given)
    except TypeError as error:
        refuse(f"from_json: {kind.__name__}: {error}")


def _example(where: str, value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"id"}:
            return ById(value["id"])
        return from_plain(where, value, (1,))
    return from_plain(where, value, (1,)) if isinstance(value, list) else value


def _examples(where: str, values: Any) -> Any:
    if not isinstance(values, list):
        refuse(f"from_json: {where} is no list")
    return [_example(where, each) for each in values]


def _near(given: dict[str, Any]) -> None:
    if "x" in given:
        given["x"] = _example("Near: x", given["x"])


def _like(given: dict[str, Any]) -> None:
    for name in ("positive", "negative"):
        if name in given:
            given[name] = _examples(f"Like: {name}", given[name])


def _context(given: dict[str, Any]) -> None:
    pairs = given.get("pairs")
    if not isinstance(pairs, list):
        refuse("from_json: Context: pairs is no list")
    given["pairs"] = [_examples(f"Context: pair {at}", pair) for at, pair in enumerate(pairs)]


def _text(given: dict[str, Any]) -> None:
    if "weights" in given:
        given["weights"] = _mapping("Text: weights", given["weights"])


def _sparse(given: dict[str, Any]) -> None:
    given["weights"] = _mapping("Sparse: weights", given.get("weights"))


def _late(given: dict[str, Any]) -> None:
    if "matrix" in given:
        given["matrix"] = from_plain("Late: matrix", given["matrix"], (2,))


def _fuse(given: dict[str, Any]) -> None:
    queries = given.get("queries")
    if not isinstance(queries, list):
        refuse("from_json: Fuse: queries is no list")
    given["queries"] = [_query(each) for each in queries]


def _rerank(given: dict[str, Any]) -> None:
    for name in ("query", "by"):
        if name in given:
            given[name] = _query(given[name])


def _mapping(where: str, entries: Any) -> dict[Any, Any]:
    if not isinstance(entries, list):
        refuse(f"from_json: {where} is no list of [name, weight]")
    found: dict[Any, Any] = {}
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str | int):
            refuse(f"from_json: {where}: {entry!r:.60} is no [name, weight]")
        found[entry[0]] = entry[1]
    return found


def _datetime(found: dict[str, Any]) -> datetime:
    text = found.get("datetime")
    try:
        if found.keys() == {"datetime"} and isinstance(text, str):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    refuse(f"from_json: Decay: origin {found!r:.60} is no time")


_READERS: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "Near": _near, "Like": _like, "Context": _context, "Text": _text, "Sparse": _sparse, "Late": _late,
    "Fuse": _fuse, "Rerank": _rerank,
}  # fmt: skip

__all__ = ["VERSION", "Frozen", "boost_of", "from_found", "from_json", "plain", "query_of", "to_json"]
