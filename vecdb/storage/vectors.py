"""Stored vectors: here is my slot, where are its bytes?

LMDB rewrites a value whole, so vectors are kept in blocks of `block_rows` consecutive slots that
are written once, when the last slot of the block has been handed out. Until then a vector travels
in its row's record. A block's payload is a sub-header of 36 bytes and the vectors, row by row, in
the stored dtype; with the 16 bytes of LMDB's page header and the 12 of the frame the vectors start
on a 64-byte boundary of the map, so that the graph ranks results from the map itself.

Invariants (checked by vecdb/check.py):
  V1  block b exists exactly when all its slots have been handed out, (b + 1) * block_rows <= slots;
  V2  its sub-header names its first slot, its count, the dimension and the dtype of the collection;
  V3  a slot without a written block has a row record with its vector INLINE, live or dead.

Rejected: one record a vector for ever. A scan would cost a tree descent a row, and opening too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb import _core
from vecdb.storage import keys, rows

if TYPE_CHECKING:
    import numpy.typing as npt

SUBHEADER: Final = struct.Struct("<IIIHH20x")  # first slot, count, dim, dtype code, zero, padding
DATA_OFFSET: Final = 12 + SUBHEADER.size  # from the start of the record to the first vector
DTYPES: Final[dict[str, np.dtype[Any]]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2")}
_DTYPE_CODES: Final = {"f32": 1, "f16": 2}
_BLOCK_BYTES = 128 << 10  # a block is at most this large, and at most 1,024 rows


def stride(dim: int, dtype: str) -> int:
    """Bytes of one stored vector."""
    return dim * DTYPES[dtype].itemsize


def block_rows(dim: int, dtype: str) -> int:
    """Rows of a block: a power of two, at most 128 KiB of vectors and at most 1,024."""
    rows_that_fit = max(1, min(1024, _BLOCK_BYTES // stride(dim, dtype)))
    return 1 << (rows_that_fit.bit_length() - 1)


def put_block(
    txn: Any, cid: int, block: int, first: int, vectors: npt.NDArray[Any], dtype: str
) -> None:
    """Write a full block: `vectors` (block_rows, dim) of the stored dtype."""
    count, dim = vectors.shape
    key = keys.vector_block(cid, 0, block)
    head = SUBHEADER.pack(first, count, dim, _DTYPE_CODES[dtype], 0)
    txn.put(key, _core.seal(keys.VECTORS, key, head + vectors.tobytes()))


def get_block(
    txn: Any, cid: int, block: int, count: int, dim: int, dtype: str
) -> memoryview | None:
    """The record of a block, verified, with its vectors at DATA_OFFSET; None when not written."""
    key = keys.vector_block(cid, 0, block)
    record = txn.get(key)
    if record is None:
        return None
    return verify_block(key, record, block, count, dim, dtype)


def verify_block(
    key: bytes, record: memoryview, block: int, count: int, dim: int, dtype: str
) -> memoryview:
    """The same record, or `Corrupt` when its checksum, place or shape is wrong."""
    payload = rows.open_record(keys.VECTORS, key, record)
    expected = SUBHEADER.size + count * stride(dim, dtype)
    if len(payload) != expected:
        raise rows.damaged("V2", key, f"{len(payload)} bytes where {expected} belong")
    found = SUBHEADER.unpack_from(payload)
    if found[:4] != (block * count, count, dim, _DTYPE_CODES[dtype]):
        raise rows.damaged("V2", key, "its sub-header names another block or shape")
    return record


def scan_blocks(
    txn: Any, cid: int, count: int, dim: int, dtype: str
) -> Iterator[tuple[int, memoryview]]:
    """Every written block in order: (block, record)."""
    prefix = keys.prefix(keys.VECTORS, cid) + b"\0"
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    while found:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        block = int.from_bytes(key[len(prefix) :], "big")
        yield block, verify_block(key, cursor.value(), block, count, dim, dtype)
        found = cursor.next()


def read(
    txn: Any, cid: int, slots: npt.NDArray[np.uint32], dim: int, dtype: str
) -> npt.NDArray[Any]:
    """The vectors of slots, in the stored dtype, shape (n, dim): copies."""
    count, size = block_rows(dim, dtype), stride(dim, dtype)
    out = np.empty((len(slots), dim), DTYPES[dtype])
    cache: dict[int, memoryview | None] = {}
    for at, slot in enumerate(slots.tolist()):
        block = slot // count
        if block not in cache:
            cache.clear()
            cache[block] = get_block(txn, cid, block, count, dim, dtype)
        record = cache[block]
        if record is None:
            inline = rows.get(txn, cid, slot).inline
            if inline is None or len(inline) != size:
                raise rows.damaged("V3", keys.row(cid, slot), "its vector is in no block and not inline")
            out[at] = np.frombuffer(inline, out.dtype)
        else:
            start = DATA_OFFSET + (slot % count) * size
            out[at] = np.frombuffer(record[start : start + size], out.dtype)
    return out
