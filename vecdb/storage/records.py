"""How does a record reach the file?

Every record but the first (`meta`) is sealed: a head with its kind and a checksum over key and
payload, then the payload. It takes the pages that its length asks for, and no more.
"""

from __future__ import annotations

from typing import Any, Final

from vecdb import _core

_IN_LEAF: Final = 1_900  # bytes of a record that surely lies in a leaf, and not in pages of its own


def put(txn: Any, key: bytes, payload: Any) -> None:
    """Seal a payload and write it under its key, whose first byte is its kind."""
    write(txn, key, _core.seal(key[0], key, payload))


def write(txn: Any, key: bytes, record: Any) -> None:
    """Write a sealed record whose pages shrink with it.

    LMDB leaves a long value that becomes shorter within one transaction its run of pages, and takes a
    file with such a run for a damaged one. So a longer one that was there goes first.
    """
    if len(record) > _IN_LEAF:
        txn.delete(key)
    else:
        old = txn.get(key)
        if old is not None and len(old) > _IN_LEAF:
            txn.delete(key)
    txn.put(key, record)
