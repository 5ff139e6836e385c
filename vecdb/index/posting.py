"""How are large sets of rows stored? In chunks of 65,536 rids, a record each.

Used for postings that are too long for their leaf (0x51), and for the live rows (0x52). A
payload is a stamp, the digest of the rest, then a serialised bitmap (the portable roaring
format) of absolute rids, all of one chunk.

Invariants:
  P1  a chunk without rows has no record;
  P2  a chunk is written only when its rows changed.
"""

from __future__ import annotations

from array import array
from typing import Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb.index.leaf import STAMP, deserialised, stamp_of
from vecdb.storage import keys, records
from vecdb.storage.rows import damaged, open_record

_BITS: Final = 16
_NONE: Final = BitMap()


def by_chunk(rows: BitMap) -> dict[int, BitMap]:
    """Cut a set of rows into its chunks."""
    if not rows:
        return {}
    first, last = rows.min() >> _BITS, rows.max() >> _BITS
    if first == last:
        return {first: rows}
    rids = np.frombuffer(rows.to_array(), np.uint32)
    chunks = rids >> _BITS
    found, starts = np.unique(chunks, return_index=True)
    parts = np.split(rids, starts[1:])
    return {
        int(chunk): BitMap(array("I", part.tobytes()))
        for chunk, part in zip(found, parts, strict=True)
    }


def write(txn: Any, key: bytes, rows: BitMap) -> bytes:
    """Store one chunk under its key and return its stamp."""
    body = rows.serialize()
    stamp = stamp_of(body)
    records.put(txn, key, stamp + body)
    return stamp


def read(txn: Any, key: bytes, count: int | None = None, stamp: bytes | None = None) -> BitMap:
    """Return the chunk under a key; Corrupt when it is not the one that was expected."""
    record = txn.get(key)
    if record is None:
        raise damaged("A2", key, "the chunk is missing")
    payload = open_record(key[0], key, record, code="A2")
    if stamp is not None and payload[:STAMP] != stamp:
        raise damaged("A2", key, "not the chunk that its leaf names")
    try:
        rows = deserialised(bytes(payload[STAMP:]))
    except ValueError as error:
        raise damaged("A2", key, str(error)) from None
    if count is not None and len(rows) != count:
        raise damaged("A2", key, f"{len(rows)} rows where its leaf names {count}")
    return rows


def load_live(txn: Any, cid: int) -> BitMap:
    """Return the live rows of a collection as folded: a bitmap of the caller's own."""
    live = BitMap()
    for key in _live_keys(txn, cid):
        live |= read(txn, key)
    return live


def store_live(txn: Any, cid: int, live: BitMap) -> None:
    """Make these the live rows of a collection, writing the chunks that differ."""
    chunks = {keys.live(cid, chunk): rows for chunk, rows in by_chunk(live).items()}
    for key in _live_keys(txn, cid):
        if key not in chunks:
            txn.delete(key)
        elif read(txn, key) == chunks[key]:
            del chunks[key]
    for key, rows in chunks.items():
        write(txn, key, rows)


def _live_keys(txn: Any, cid: int) -> list[bytes]:
    prefix = keys.prefix(keys.LIVE, cid)
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    listed = []
    while found:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            break
        listed.append(key)
        found = cursor.next()
    return listed
