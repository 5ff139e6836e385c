"""Is this text's vector known already? The cache of embeddings, one record a text and encoder.

    70 digest   the float32 vector that the encoder made; digest: 16 bytes of BLAKE2b over the
                digest of the encoder's fingerprint, then the text in UTF-8
    EF          how many there are and the bytes of their vectors; beside the meta record, in a
                leaf that every commit writes anyway

The cache is the database's, not a collection's: two collections with one encoder share it, and a
dropped collection leaves it. It is a cache and never the truth: a record that cannot be trusted is
a miss, and is written over when the text has been encoded again.

Invariants (checked by vecdb/check/):
  E2  a cached embedding is a float32 vector of finite numbers;
  E3  the counts are those of the records.

Rejected: counting by a scan (a page for every three texts, at every `stats()`), and the text inside
the record (it would be stored twice; 16 bytes of digest tell texts apart).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb import _core
from vecdb.storage import keys, records
from vecdb.storage.meta import FRAME

if TYPE_CHECKING:
    import numpy.typing as npt

_COUNTS: Final = Struct("<QQ")
_PREFIX: Final = bytes((keys.EMBEDDINGS,))


@dataclass(frozen=True, slots=True)
class Cached:
    """What the cache holds."""

    count: int
    bytes: int  # of vectors, without keys and frames


def keys_of(fingerprint: str, texts: list[str]) -> list[bytes]:
    """The keys of texts under an encoder's fingerprint (about 1 us a short text)."""
    start = blake2b(digest_size=keys.DIGEST)
    start.update(blake2b(fingerprint.encode(), digest_size=keys.DIGEST).digest())
    found = []
    for text in texts:
        digest = start.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        found.append(_PREFIX + digest.digest())
    return found


def get(txn: Any, key: bytes, dim: int) -> npt.NDArray[np.float32] | None:
    """The cached vector, a copy; None where there is none that can be trusted."""
    record = txn.get(key)
    if record is None:
        return None
    try:
        vector = vector_in(key, record)
    except ValueError:
        return None
    return vector if len(vector) == dim else None


def vector_in(key: bytes, record: Any) -> npt.NDArray[np.float32]:
    """The vector of a record; ValueError says what is wrong with it."""
    payload = bytes(_core.unseal(keys.EMBEDDINGS, key, record))
    if not payload or len(payload) % 4:
        raise ValueError(f"{len(payload)} bytes are no float32 vector")
    vector = np.frombuffer(payload, "<f4")
    if not np.isfinite(vector).all():
        raise ValueError("a number that is not finite")
    return vector


def put(txn: Any, made: Mapping[bytes, bytes]) -> None:
    """Write vectors (float32, little-endian) under their keys, and count them."""
    before = counts(txn)
    count, size = before.count, before.bytes
    for key, vector in made.items():
        old = txn.get(key)
        if old is None:
            count += 1
        else:
            size -= len(old) - FRAME
        size += len(vector)
        records.put(txn, key, vector)
    _put_counts(txn, count, size)


def counts(txn: Any) -> Cached:
    """How much there is; counted anew where the record of it is damaged."""
    record = txn.get(keys.CACHED_KEY)
    if record is None:
        return Cached(0, 0)
    try:
        return counts_in(record)
    except ValueError:
        return count(txn)


def counts_in(record: Any) -> Cached:
    """What the record of the counts says; ValueError when it says nothing."""
    payload = _core.unseal(keys.CACHED, keys.CACHED_KEY, record)
    if len(payload) != _COUNTS.size:
        raise ValueError(f"{len(payload)} bytes where {_COUNTS.size} belong")
    return Cached(*_COUNTS.unpack(payload))


def count(txn: Any) -> Cached:
    """The same by a scan."""
    number = size = 0
    for _, record in entries(txn):
        number += 1
        size += len(record) - FRAME
    return Cached(number, size)


def entries(txn: Any) -> Iterator[tuple[bytes, Any]]:
    """Every record of the cache: (key, record)."""
    cursor = txn.cursor()
    more = cursor.set_range(_PREFIX)
    while more:
        key = bytes(cursor.key())
        if not key.startswith(_PREFIX):
            return
        yield key, cursor.value()
        more = cursor.next()


def clear(txn: Any, limit: int) -> int:
    """Take at most `limit` records away and return how many they were."""
    before = counts(txn)
    cursor = txn.cursor()
    more, removed, size = cursor.set_range(_PREFIX), 0, 0
    while more and removed < limit and bytes(cursor.key()).startswith(_PREFIX):
        removed += 1
        size += len(cursor.value()) - FRAME
        more = cursor.delete()
    if more and bytes(cursor.key()).startswith(_PREFIX):
        _put_counts(txn, max(0, before.count - removed), max(0, before.bytes - size))
    else:
        txn.delete(keys.CACHED_KEY)
    return removed


def _put_counts(txn: Any, count: int, size: int) -> None:
    payload = _COUNTS.pack(count, max(0, size))
    records.put(txn, keys.CACHED_KEY, payload)
