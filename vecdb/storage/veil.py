"""How is what must be erasable kept in a file whose freed pages stay as they were?

LMDB never writes over a page in place: what was deleted stays in free pages until they are used again,
and pages are written with whatever their buffers held before. So the text of the search log is never
given to LMDB as it is: it goes in masked with a key, and to erase the log is to write another key over
that one. The key lies outside of LMDB's trees, in the unused part of the file's first page, which LMDB
writes once, when it makes the file:

    2048    8   "vecdbkey"
    2056    32  the key, random
    2088    16  BLAKE2b over the 40 bytes before

A masked payload is an 8-byte name of its key, a nonce of 12 random bytes, and the content under ChaCha20
(RFC 8439, from block 0). A nonce is used once: of 2^32 stretches of the log, each hours of searches, two
have the same one with a chance of 2^-33.

Invariants:
  V1  the key is on the disk before anything masked with it is committed;
  V2  only who holds the writer lock writes the key, in place and with an fsync: what was there is gone;
  V3  a copy that vecdb makes of a file carries its key; a database in memory has it in memory alone.

It hides nothing from who can read the file, and is not meant to.
Rejected: zeros over the free pages (buffers of this or another process may hold the text, and be written
behind the records of any later page), a compaction at every erasure (it must be alone), and the key in a
record (each copy of its leaf would have to be found).
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from vecdb import _core

if TYPE_CHECKING:
    from vecdb.storage.shared import Shared

OFFSET: Final = 2048
MAGIC: Final = b"vecdbkey"
KEY: Final = 32
NAME: Final = 8
NONCE: Final = 12
_DIGEST: Final = 16
SIZE: Final = len(MAGIC) + KEY + _DIGEST


def key_of(shared: Shared) -> bytes | None:
    """The file's key; None where there is none that can be trusted."""
    if shared.place.private:
        return shared.veil
    return key_in(shared.fd)


def key_in(fd: int) -> bytes | None:
    """The key in an open file."""
    try:
        found = os.pread(fd, SIZE, OFFSET)
    except OSError:
        return None
    if len(found) < SIZE or not found.startswith(MAGIC) or found[-_DIGEST:] != _digest(found[:-_DIGEST]):
        return None
    return found[len(MAGIC) : -_DIGEST]


def renew(shared: Shared) -> bytes:
    """Write another key over the file's, and return it; the caller holds the writer lock (V2). OSError."""
    key = os.urandom(KEY)
    if shared.place.private:
        shared.veil = key
    else:
        put_key(shared.place.data, key)
    return key


def put_key(path: str, key: bytes) -> None:
    """Write a key into a file, and bring it to the disk."""
    start = MAGIC + key
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, start + _digest(start), OFFSET)
        os.fsync(fd)
    finally:
        os.close(fd)


def carry(shared: Shared, copy: str) -> None:
    """Give a copy of the file its key (V3)."""
    key = key_of(shared)
    if key is not None:
        put_key(copy, key)


def mask(key: bytes, content: bytes) -> bytes:
    """The content, masked under a new nonce (2 us, and 2 us a KiB without the interpreter's lock)."""
    nonce = os.urandom(NONCE)
    return name_of(key) + nonce + _core.chacha20(key, nonce, content)


def unmask(key: bytes, payload: Any) -> bytes | None:
    """What was masked; None where it was with another key: it has been erased."""
    raw = bytes(payload)
    if len(raw) < NAME + NONCE or raw[:NAME] != name_of(key):
        return None
    return _core.chacha20(key, raw[NAME : NAME + NONCE], raw[NAME + NONCE :])


def name_of(key: bytes) -> bytes:
    """What tells keys apart, and says nothing of them."""
    return blake2b(key, digest_size=NAME, person=b"veil").digest()


def _digest(start: bytes) -> bytes:
    return blake2b(start, digest_size=_DIGEST).digest()
