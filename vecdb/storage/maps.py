"""Which maps do a collection's vectors go through? One record a map.

    62 cid digest   the map as it wrote itself (adapting/adapter.py, adapting/bridge.py);
                    digest: 16 bytes of BLAKE2b over the fingerprint by which the catalog names it

Invariants (checked by vecdb/check/):
  X1  every map that the catalog names is there, and its own fingerprint is the one by which it is named;
      no other is there.

Rejected: the map inside the catalog record. A map has megabytes, and the catalog is read whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from vecdb.storage import keys, records, rows
from vecdb.storage.schema import Schema


def key_of(cid: int, fingerprint: str) -> bytes:
    """The key of a map."""
    return keys.map_of(cid, blake2b(fingerprint.encode(), digest_size=keys.DIGEST).digest())


def put(txn: Any, cid: int, fingerprint: str, raw: bytes) -> None:
    """Write a map."""
    records.put(txn, key_of(cid, fingerprint), raw)


def get(txn: Any, cid: int, fingerprint: str) -> bytes:
    """A map's bytes, verified; Corrupt where it is missing or damaged."""
    key = key_of(cid, fingerprint)
    record = txn.get(key)
    if record is None:
        raise rows.damaged("X1", key, "the map of vectors is missing")
    return bytes(rows.open_record(keys.MAPS, key, record, code="X1"))


def named(schema: Schema) -> list[tuple[str, bool]]:
    """The maps that a declaration names, and which of them are bridges."""
    found = {each: False for field in schema.by_number.values() for each in field.adapters}
    found |= {each.bridge: True for each in schema.hidden.values() if each.bridge is not None}
    return list(found.items())


def sweep(txn: Any, cid: int, schema: Schema) -> None:
    """Take the maps away that a declaration does not name."""
    kept = {key_of(cid, fingerprint) for fingerprint, _ in named(schema)}
    for key in list(keys_of(txn, cid)):
        if key not in kept:
            txn.delete(key)


def keys_of(txn: Any, cid: int) -> Iterable[bytes]:
    """The keys of all maps of a collection."""
    prefix = keys.prefix(keys.MAPS, cid)
    cursor = txn.cursor()
    more = cursor.set_range(prefix)
    while more and bytes(cursor.key()).startswith(prefix):
        yield bytes(cursor.key())
        more = cursor.next()
