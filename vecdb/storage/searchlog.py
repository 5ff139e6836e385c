"""Which searches were made, what did they show, and what was chosen of it? The log's records.

    73 cid 0 sequence   a stretch of searches, masked (veil.py): msgpack list of columns
                        [ids, unix times, queries, their options' places in the next, options, ids shown]
    73 cid 1 sequence   a stretch of choices, masked: msgpack list of [id, unix time, ids chosen]
    74                  msgpack map: version; sequence, the next one; cleared, the unix time when all was
                        erased, 0.0 for never; collections: by number
                        [max_bytes, bytes of its stretches, whether its searches are logged]

A query is a vector's bytes (float32), a text, or the plain data of a query object (query/written.py);
options are those of `search` that are not as they are without being given, a filter as its dict.

Invariants (checked by vecdb/check/):
  J1  stretches can be read, and those of this file's key hold what they should; one of another key has
      been erased, and is no loss;
  J2  a collection's stretches take at most its `max_bytes`, and are counted rightly: the oldest go first.

Rejected: a record for each search (four times the bytes, and trimming would cost as much as logging), and
choices inside of what was shown (a stretch would be written anew for each).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vecdb.errors import Corrupt
from vecdb.storage import codec, keys, records, rows, veil
from vecdb.storage.meta import FRAME

SEARCHES, CHOICES = 0, 1
VERSION: Final = 1
LEAST_BYTES: Final = 1 << 16  # that a log may be limited to
_IN_LEAF: Final = 1_900  # bytes of a record that lies in a leaf; a longer one takes pages of its own
_PAGE: Final = 4_096
_PAGE_HEAD: Final = 16
_NODE: Final = 24  # bytes of a leaf that a record takes beside its own


@dataclass(slots=True)
class Kept:
    """One collection's log."""

    max_bytes: int
    bytes: int = 0
    on: bool = True


@dataclass(slots=True)
class Logging:
    """What is logged, of all collections."""

    sequence: int = 0
    collections: dict[int, Kept] = field(default_factory=dict)
    cleared: float = 0.0

    def logged(self) -> frozenset[int]:
        """The numbers of the collections whose searches are logged."""
        return frozenset(cid for cid, kept in self.collections.items() if kept.on)


def read(txn: Any) -> Logging:
    """What is logged; Corrupt where the record of it is damaged."""
    record = txn.get(keys.LOGGING_KEY)
    if record is None:
        return Logging()
    found = rows.unpack_record(keys.LOGGING, keys.LOGGING_KEY, record, code="J1")
    try:
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']!r:.40}; this vecdb reads version {VERSION}")
        kept = {cid: Kept(*each) for cid, each in found["collections"].items()}
        numbers = [found["sequence"], *kept, *(n for k in kept.values() for n in (k.max_bytes, k.bytes))]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a number in it is none")
        return Logging(found["sequence"], kept, float(found["cleared"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise rows.damaged("J1", keys.LOGGING_KEY, str(error)) from None


def logged(txn: Any) -> frozenset[int]:
    """The collections whose searches are logged; none where nothing can tell."""
    try:
        return read(txn).logged()
    except Corrupt:
        return frozenset()


def write(txn: Any, logging: Logging) -> None:
    """Store what is logged."""
    kept = {cid: [k.max_bytes, k.bytes, k.on] for cid, k in logging.collections.items()}
    packed = {
        "version": VERSION, "sequence": logging.sequence, "cleared": logging.cleared, "collections": kept,
    }  # fmt: skip
    records.put(txn, keys.LOGGING_KEY, codec.pack(packed))


def append(txn: Any, logging: Logging, cid: int, part: int, content: bytes, key: bytes) -> None:
    """Write a stretch of packed entries, and take away the oldest that are too many (J2)."""
    place = keys.search_log(cid, part, logging.sequence)
    payload = veil.mask(key, content)
    records.put(txn, place, payload)
    logging.sequence += 1
    kept = logging.collections[cid]
    kept.bytes += size_of(len(payload) + FRAME)
    while kept.bytes > kept.max_bytes:
        oldest = _oldest(txn, cid)
        if oldest is None:
            kept.bytes = 0
            return
        kept.bytes = max(0, kept.bytes - size_of(len(txn.get(oldest))))
        txn.delete(oldest)


def size_of(length: int) -> int:
    """The bytes of the file that a record of so many takes."""
    if length <= _IN_LEAF:
        return length + _NODE
    return -(-(_PAGE_HEAD + length) // _PAGE) * _PAGE


def stretches(txn: Any, cid: int, part: int) -> Iterator[tuple[bytes, Any]]:
    """Every record of one part of a collection's log, the oldest first: (key, record).

    One whose key is spelled as none is left out; `check` names it (F2).
    """
    prefix = keys.search_log(cid, part, 0)[:6]
    cursor = txn.cursor()
    more = cursor.set_range(prefix)
    while more:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        if keys.well_formed(key):
            yield key, cursor.value()
        more = cursor.next()


def entries_in(key: bytes, record: Any, secret: bytes | None) -> list[Any]:
    """The entries of a stretch; none where it was erased. Corrupt."""
    payload = open_stretch(key, record)
    content = None if secret is None else veil.unmask(secret, payload)
    if content is None:
        return []
    try:
        found = codec.unpack(content)
    except Corrupt as error:
        raise rows.damaged("J1", key, error.detail) from None
    try:
        if key[5] == SEARCHES:
            ids, times, queries, places, options, shown = found
            said = [options[place] for place in places]
            return list(zip(ids, times, queries, said, shown, strict=True))
        return [(id, at, chosen) for id, at, chosen in found]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise rows.damaged("J1", key, f"no entries: {error}") from None


def open_stretch(key: bytes, record: Any) -> memoryview:
    """The masked payload of a stretch; Corrupt."""
    return rows.open_record(keys.SEARCH_LOG, key, record, code="J1")


def packed(entries: Sequence[tuple[int, float, Any, int, Sequence[Any]]], options: list[Any]) -> bytes:
    """A stretch of searches: (id, unix time, query, the place of its options, ids shown)."""
    ids, times, queries, places, shown = zip(*entries, strict=True)
    return codec.pack([ids, times, queries, places, options, shown])


def clear(txn: Any, logging: Logging, cid: int) -> None:
    """Take all stretches of a collection away."""
    prefix = keys.prefix(keys.SEARCH_LOG, cid)
    cursor = txn.cursor()
    more = cursor.set_range(prefix)
    while more and bytes(cursor.key()).startswith(prefix):
        more = cursor.delete()
    logging.collections[cid].bytes = 0


def _oldest(txn: Any, cid: int) -> bytes | None:
    firsts = [next(stretches(txn, cid, part), None) for part in (SEARCHES, CHOICES)]
    found = [each[0] for each in firsts if each is not None]
    return min(found, key=lambda key: keys.search_log_position(key)[1], default=None)
