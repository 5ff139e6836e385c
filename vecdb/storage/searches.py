"""What was a search saved as, and how far have its watchers come?

    71 name             JSON: version, number, collection (its number), query, k, where, options
    72 number watcher   commit u64, rid u32: rows up to this one are acknowledged

Both are the database's. A search is JSON, so that a version that knows more fields can be told from one
that cannot be read; its `number` is random and stays when it is saved again under its name, so that its
watchers go on, and those of a deleted search are never another's.

Invariants (checked by vecdb/check/):
  D1  a saved search can be read, and no two have one number;
  D2  a watcher's search is there, and its commit is not beyond the last one.

Rejected: the collection's name in the record. A renamed collection is the same one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from struct import Struct
from typing import Any, Final, NamedTuple, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.storage import keys, records, rows

VERSION: Final = 1
WHOLE: Final = 0xFFFFFFFF  # in the place of a rid: all rows of the commit
_MEMBERS: Final = frozenset(("version", "number", "collection", "query", "k", "where", "options"))
_POSITION: Final = Struct("<QI")
_SEARCHES: Final = bytes((keys.SEARCHES,))
_WATCHERS: Final = bytes((keys.WATCHERS,))

Position = tuple[int, int]  # commit, rid: everything up to this row of this commit


class Stored(NamedTuple):
    """A saved search as the file holds it: plain data."""

    number: int
    cid: int
    query: Any
    k: int | None
    where: Any  # of a filter's dict, or None
    options: dict[str, Any]


def put(txn: Any, name: str, search: Stored) -> None:
    """Write a saved search."""
    packed = {
        "version": VERSION, "number": search.number, "collection": search.cid, "query": search.query,
        "k": search.k, "where": search.where, "options": search.options,
    }  # fmt: skip
    text = json.dumps(packed, ensure_ascii=False, allow_nan=False)
    records.put(txn, keys.search(name), text.encode("utf-8", "surrogatepass"))


def get(txn: Any, name: str) -> Stored | None:
    """A saved search; InvalidArgument naming what in it is not known, Corrupt where it is damaged."""
    key = keys.search(name)
    record = txn.get(key)
    return None if record is None else unpack(key, record)


def unpack(key: bytes, record: Any) -> Stored:
    """The search in a record."""
    payload = rows.open_record(keys.SEARCHES, key, record, code="D1")
    name = key[1:].decode()
    try:
        found = json.loads(bytes(payload).decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise rows.damaged("D1", key, f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise rows.damaged("D1", key, "no JSON object")
    version = found.get("version")
    if type(version) is not int or version != VERSION:
        _refuse(f"saved search {name!r} has version {version!r:.40}; this vecdb reads version {VERSION}")
    for member in found:
        if member not in _MEMBERS:
            _refuse(f"saved search {name!r} has an unknown field {member!r:.60}: a later vecdb made it")
    if missing := _MEMBERS - found.keys():
        raise rows.damaged("D1", key, f"it has no {min(missing)!r}")
    number, cid, k, options = (found[each] for each in ("number", "collection", "k", "options"))
    if not (_is_number(number, 64) and _is_number(cid, 32) and (k is None or _is_number(k, 32))):
        raise rows.damaged("D1", key, "a number in it is none")
    if not isinstance(options, dict):
        raise rows.damaged("D1", key, "its options are no JSON object")
    return Stored(number, cid, found["query"], k, found["where"], options)


def delete(txn: Any, name: str, number: int) -> None:
    """Take a saved search and its watchers away."""
    txn.delete(keys.search(name))
    for key, _ in list(_entries(txn, keys.watcher(number))):
        txn.delete(key)


def names(txn: Any) -> list[str]:
    """The names of the saved searches, by code point."""
    return [key[1:].decode() for key, _ in _entries(txn, _SEARCHES)]


def entries(txn: Any) -> Iterator[tuple[bytes, Any]]:
    """Every record of a saved search: (key, record)."""
    return _entries(txn, _SEARCHES)


# --- watchers ------------------------------------------------------------------------------------


def position(txn: Any, number: int, watcher: str) -> Position | None:
    """How far a watcher has come; None for one that is not there."""
    key = keys.watcher(number, watcher)
    record = txn.get(key)
    return None if record is None else position_in(key, record)


def position_in(key: bytes, record: Any) -> Position:
    """The position in a watcher's record; Corrupt where there is none."""
    payload = rows.open_record(keys.WATCHERS, key, record, code="D2")
    if len(payload) != _POSITION.size:
        raise rows.damaged("D2", key, f"{len(payload)} bytes where {_POSITION.size} belong")
    commit, rid = _POSITION.unpack(payload)
    return commit, rid


def put_position(txn: Any, number: int, watcher: str, position: Position) -> None:
    """Note how far a watcher has come."""
    records.put(txn, keys.watcher(number, watcher), _POSITION.pack(*position))


def watchers(txn: Any, number: int | None = None) -> Iterator[tuple[bytes, Any]]:
    """Every record of a watcher, or of those of one search: (key, record)."""
    return _entries(txn, _WATCHERS if number is None else keys.watcher(number))


def watched(key: bytes) -> tuple[int, str]:
    """The number of the search and the name of the watcher in a watcher's key."""
    return int.from_bytes(key[1:9], "big"), key[9:].decode()


def _entries(txn: Any, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
    cursor = txn.cursor()
    more = cursor.set_range(prefix)
    while more:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        yield key, cursor.value()
        more = cursor.next()


def _is_number(value: Any, bits: int) -> bool:
    return type(value) is int and 0 <= value < 1 << bits


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
