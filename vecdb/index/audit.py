"""Is the attribute image of a collection sound in itself? Every violation, not only the first.

Looks at structure alone (A1 and A2 of attributes.py); whether postings say what the rows say is
the caller's to compare.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any

from pyroaring import BitMap

from vecdb.errors import Corrupt
from vecdb.index import posting
from vecdb.index.leaf import STAMP, Leaf, bitmap, posting_of, stamp_of
from vecdb.index.valuekey import KIND_OF_TAG, MAX_KEY, STRING_TAG, is_long, string_of
from vecdb.storage import keys
from vecdb.storage.rows import open_record

Finding = tuple[str, str, str]  # code, where, detail


def problems(txn: Any, cid: int, moving: Mapping[int, BitMap]) -> Iterator[Finding]:
    """Yield what is wrong with the leaves and chunks of one collection.

    `moving`: by field the rows of which kinds and values may disagree, because a fold is under way.
    """
    named: set[bytes] = set()
    kinds: dict[tuple[int, bytes], BitMap] = {}
    last: tuple[bytes, bytes] = (b"", b"")  # field, value key
    for key, record in _records(txn, keys.prefix(keys.ATTRIBUTES, cid)):
        where = keys.describe(key)
        try:
            payload = open_record(keys.ATTRIBUTES, key, record, code="A1")
            leaf = Leaf.decode(payload)
        except Corrupt as error:
            yield "A1", where, error.detail
            continue
        except (ValueError, TypeError) as error:
            yield "A1", where, f"the leaf cannot be read: {error}"
            continue
        if stamp_of(bytes(payload[STAMP:])) != leaf.stamp:
            yield "A1", where, "the stamp is not that of the content"
        field, bound = key[:7], key[7:]
        for at, value in enumerate(leaf.keys):
            if not last < (field, value) or value > bound or not value or len(value) > MAX_KEY:
                yield "A1", where, f"value key {value.hex()} is out of order"
            if value[:1] == STRING_TAG and not is_long(value):
                yield from _unreadable(where, value)
            last = (field, value)
            rows = yield from _rows(txn, cid, field, leaf, at, named)
            if not rows:
                yield "A1", where, f"value key {value.hex()} has no rows"
            _note_kind(kinds, int.from_bytes(field[5:], "big"), value, rows)
    yield from _kinds(cid, kinds, moving)
    for key, _ in _records(txn, keys.prefix(keys.POSTINGS, cid)):
        if key not in named:
            yield "A2", keys.describe(key), "no leaf names this chunk"


def _unreadable(where: str, value: bytes) -> Iterator[Finding]:
    try:
        string_of(value)
    except ValueError as error:
        yield "A1", where, f"value key {value.hex()} is no string: {error}"


def _rows(
    txn: Any, cid: int, field: bytes, leaf: Leaf, at: int, named: set[bytes]
) -> Generator[Finding, None, BitMap]:
    """The rows of one value key, as the generator's value; notes the chunks that it names."""
    other = leaf.other(at)
    if other is None:
        return bitmap(leaf.inline(at, at + 1))
    if isinstance(other, bytes):
        try:
            return posting_of(other)
        except Corrupt as error:
            yield "A1", keys.describe(field + leaf.keys[at]), error.detail
            return BitMap()
    rows = BitMap()
    for chunk, count, stamp in other:
        key = keys.posting(cid, int.from_bytes(field[5:], "big"), leaf.keys[at], chunk)
        named.add(key)
        try:
            found = posting.read(txn, key, count, stamp)
        except Corrupt as error:
            yield "A2", keys.describe(key), error.detail
            continue
        if any(rid >> 16 != chunk for rid in (found.min(), found.max())):
            yield "A2", keys.describe(key), "rows of another chunk"
        rows |= found
    return rows


def _note_kind(
    kinds: dict[tuple[int, bytes], BitMap], fieldid: int, value: bytes, rows: BitMap
) -> None:
    """Gather the difference between a kind's posting and the union of its values."""
    kind = KIND_OF_TAG.get(value[0], value if value in KIND_OF_TAG.values() else None)
    if kind is not None:
        kinds[fieldid, kind] = kinds.get((fieldid, kind), BitMap()) ^ rows


def _kinds(
    cid: int, kinds: dict[tuple[int, bytes], BitMap], moving: Mapping[int, BitMap]
) -> Iterator[Finding]:
    for (fieldid, kind), gathered in kinds.items():
        rows = gathered - moving[fieldid] if fieldid in moving else gathered
        if rows:
            where = keys.describe(keys.attribute(cid, fieldid, kind))
            yield "A1", where, f"the kind's posting is wrong for {len(rows)} rows"


def _records(txn: Any, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    while found:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        yield key, cursor.value()
        found = cursor.next()
