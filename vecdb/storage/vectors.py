"""Stored vectors: here is my slot, where are its bytes?

LMDB rewrites a value whole, so a field's vectors are kept in blocks of `block_rows` consecutive slots
that are written once, when the last slot of the block has been handed out. Until then a vector
travels in its row's record. A block's payload is a sub-header of 36 bytes and the vectors, row by row,
in the stored dtype; with the 16 bytes of LMDB's page header and the 12 of the frame the vectors start
on a 64-byte boundary of the map, so that the graph ranks results from the map itself.

Rows may lack a field. A block some of whose rows do has zeros in their places and, after the vectors,
a bit for each row; a block all of whose rows do is its sub-header alone.

Fields of many vectors a row, and of sparse ones (sparse.py), have no slots and no blocks: a record a row.

Invariants (checked by vecdb/check/):
  V1  block b of a field exists exactly when all its slots have been handed out,
      (b + 1) * block_rows <= slots, and some of them when or after the field was added;
  V2  its sub-header names its first slot, its count, the dimension and the dtype of the field;
  V3  a row's vector is INLINE in its record while its block is not written, live or dead; after that
      the block's bits say that it is there. A slot that is handed out again, in a block that is
      written, has its vector INLINE until upkeep has filled the block (State.loose) and writes it
      anew: the record then comes before the block;
  V4  a row that has a field of many vectors has a record of them, of whole vectors; one that has a
      sparse field a record of those (V5 in sparse.py).

Rejected: one record a vector for ever. A scan would cost a tree descent a row, and opening too.
Rejected: no record for a block that nobody has a vector in. A lost block would go unnoticed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vecdb import _core
from vecdb.lazy import lazy
from vecdb.storage import keys, records, rows, sparse
from vecdb.storage.rows import Row

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.storage.schema import VectorField

SUBHEADER: Final = struct.Struct("<IIIHH20x")  # first slot, count, dim, dtype code, holes, padding
SPARSE: Final = "sparse"  # the kind of a field of sparse vectors
DATA_OFFSET: Final = 12 + SUBHEADER.size  # from the start of the record to the first vector
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "i8": np.dtype("i1"),
    "b1": np.dtype("u1"),  # eight bits a number, the first in the highest place
}
_DTYPE_CODES: Final = {"f32": 1, "f16": 2, "i8": 3, "b1": 4}
_FULL, _HOLES, _EMPTY = 0, 1, 2
_BLOCK_BYTES = 128 << 10  # a block is at most this large, and at most 1,024 rows


class Layout:
    """Where and how the vectors of one field lie."""

    def __init__(
        self, number: int, dim: int, dtype: str, first: int = 0, sole: bool = True, sparse: bool = False,
        member: int | None = None, partial: bool = False,
    ) -> None:  # fmt: skip
        self.number = number
        self.dim = dim
        self.dtype = dtype
        self.first = first  # rows below this slot have no vector in the field
        self.sparse = sparse
        self.sole = sole  # there never was another field: every row with a slot has a vector here
        self.member = number if member is None else member  # the number by which rows say that they have one
        self.partial = partial  # a hidden field: rows that say so may lack it (FieldState.held)

    @lazy
    def numbers(self) -> int:
        """Stored numbers of a vector."""
        return -(-self.dim // 8) if self.dtype == "b1" else self.dim

    @lazy
    def kind(self) -> np.dtype[Any]:
        """What they are."""
        return DTYPES[self.dtype]

    @lazy
    def stride(self) -> int:
        """Bytes of one stored vector; of sparse ones, which have none in common, 1."""
        return max(1, self.numbers * self.kind.itemsize)

    @lazy
    def block_rows(self) -> int:
        """Rows of a block: a power of two, at most 128 KiB of vectors and at most 1,024."""
        rows_that_fit = max(1, min(1024, _BLOCK_BYTES // self.stride))
        return 1 << (rows_that_fit.bit_length() - 1)

    @lazy
    def first_block(self) -> int:
        """The first block that is written at all."""
        return self.first // self.block_rows

    def full_blocks(self, slots: int) -> range:
        """The blocks that exist once so many slots have been handed out (V1)."""
        return range(self.first_block, max(self.first_block, slots // self.block_rows))

    def inline_from(self, slots: int) -> int:
        """The first slot whose vector is in its row's record."""
        return max(self.first, slots // self.block_rows * self.block_rows)


class Given(NamedTuple):
    """The vectors of new rows in one field, of the stored dtype."""

    rows: npt.NDArray[np.intp]  # positions of the rows that have one, ascending
    array: Any  # (len(rows), numbers); of many a list of (m, numbers), of sparse ones a list of bytes (n,)

    @staticmethod
    def of(array: npt.NDArray[Any]) -> Given:
        """Vectors of all rows."""
        return Given(np.arange(len(array)), array)

    def only(self, chosen: list[int]) -> Given:
        """Those of some rows, given by ascending positions, which are numbered anew."""
        wanted = np.asarray(chosen, np.intp)
        at = np.flatnonzero(np.isin(self.rows, wanted))
        places = np.searchsorted(wanted, self.rows[at])
        if isinstance(self.array, list):
            return Given(places, [self.array[i] for i in at.tolist()])
        return Given(places, np.ascontiguousarray(self.array[at]))

    def at(self, row: int) -> Any:
        """The vector of one row, None where it has none."""
        place = int(np.searchsorted(self.rows, row))
        if place == len(self.rows) or self.rows[place] != row:
            return None
        return self.array[place]


class Block(NamedTuple):
    """A block's record, verified: its vectors begin at DATA_OFFSET."""

    record: memoryview
    present: bytes | None  # a bit for each row; None: all of them have a vector
    empty: bool

    def has(self, within: int) -> bool:
        """Whether the row at this place of the block has a vector."""
        if self.empty or self.present is None:
            return not self.empty
        return bool(self.present[within >> 3] >> (within & 7) & 1)


def put_block(
    txn: Any,
    cid: int,
    layout: Layout,
    block: int,
    vectors: npt.NDArray[Any],
    present: npt.NDArray[np.bool_],
) -> None:
    """Write a full block: `vectors` (block_rows, numbers) of the stored dtype, zeros for holes."""
    key = keys.vector_block(cid, layout.number, block)
    holes = _FULL if present.all() else _HOLES if present.any() else _EMPTY
    head = SUBHEADER.pack(
        block * layout.block_rows, len(vectors), layout.dim, _DTYPE_CODES[layout.dtype], holes
    )
    parts: list[Any] = [head] if holes == _EMPTY else [head, np.ascontiguousarray(vectors).reshape(-1)]
    if holes == _HOLES:
        parts.append(np.packbits(present, bitorder="little"))
    records.write(txn, key, _core.seal_parts(keys.VECTORS, key, parts))


def nothing_of(layout: Layout) -> npt.NDArray[Any]:
    """The vectors of a block in which no row has one."""
    return np.zeros((layout.block_rows, layout.numbers), layout.kind)


def get_block(txn: Any, cid: int, layout: Layout, block: int) -> Block | None:
    """A block, verified; None when it is not written."""
    key = keys.vector_block(cid, layout.number, block)
    record = txn.get(key)
    if record is None:
        return None
    return verify_block(key, record, layout, block)


def verify_block(key: bytes, record: memoryview, layout: Layout, block: int) -> Block:
    """The block in a record, or `Corrupt` when its checksum, place or shape is wrong."""
    payload = rows.open_record(keys.VECTORS, key, record)
    count = layout.block_rows
    if len(payload) < SUBHEADER.size:
        raise rows.damaged("V2", key, f"{len(payload)} bytes are no block")
    *found, holes = SUBHEADER.unpack_from(payload)
    if found != [block * count, count, layout.dim, _DTYPE_CODES[layout.dtype]] or holes > _EMPTY:
        raise rows.damaged("V2", key, "its sub-header names another block or shape")
    data = 0 if holes == _EMPTY else count * layout.stride
    bits = -(-count // 8) if holes == _HOLES else 0
    expected = SUBHEADER.size + data + bits
    if len(payload) != expected:
        raise rows.damaged("V2", key, f"{len(payload)} bytes where {expected} belong")
    return Block(record, bytes(payload[-bits:]) if bits else None, holes == _EMPTY)


def shape_in(payload: memoryview) -> tuple[int, str] | None:
    """Dimension and dtype that a block's payload names; None where they cannot be."""
    if len(payload) < SUBHEADER.size:
        return None
    _, _, dim, code, _ = SUBHEADER.unpack_from(payload)
    dtypes = [dtype for dtype, number in _DTYPE_CODES.items() if number == code]
    return (dim, dtypes[0]) if dtypes and 1 <= dim <= 65_535 else None


def rows_of(block: Block | None, layout: Layout) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """A block's vectors and which of its rows have one, copies; of none: zeros."""
    count, numbers = layout.block_rows, layout.numbers
    if block is None or block.empty:
        return np.zeros((count, numbers), layout.kind), np.zeros(count, np.bool_)
    end = DATA_OFFSET + count * layout.stride
    whole = np.frombuffer(block.record[DATA_OFFSET:end], layout.kind).reshape(count, numbers).copy()
    if block.present is None:
        return whole, np.ones(count, np.bool_)
    bits = np.frombuffer(block.present, np.uint8)
    return whole, np.unpackbits(bits, count=count, bitorder="little").astype(np.bool_)


def scan_blocks(txn: Any, cid: int, layout: Layout) -> Iterator[tuple[int, Block]]:
    """Every written block of a field in order."""
    prefix = keys.prefix(keys.VECTORS, cid) + bytes((layout.number,))
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    while found:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        block = int.from_bytes(key[len(prefix) :], "big")
        yield block, verify_block(key, cursor.value(), layout, block)
        found = cursor.next()


def find(
    txn: Any, cid: int, layout: Layout, slots: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The vectors of slots, (n, numbers) of the stored dtype, and which of them there are: copies."""
    out = np.zeros((len(slots), layout.numbers), layout.kind)
    present = np.zeros(len(slots), np.bool_)
    count, size = layout.block_rows, layout.stride
    at_block, block = -1, None
    for at, slot in enumerate(slots.tolist()):
        if slot < layout.first:
            continue
        row = rows.find(txn, cid, slot)
        if row is not None and layout.number in row.inline:
            out[at], present[at] = inline_of(row, cid, layout, slot), True
            continue
        if slot // count != at_block:
            at_block = slot // count
            block = get_block(txn, cid, layout, at_block)
        if block is None:
            inline_of(row, cid, layout, slot)  # says so where it should have been there
        elif block.has(slot % count):
            start = DATA_OFFSET + (slot % count) * size
            out[at] = np.frombuffer(block.record[start : start + size], layout.kind)
            present[at] = True
    return out, present


def read(
    txn: Any, cid: int, layout: Layout, slots: npt.NDArray[np.uint32]
) -> npt.NDArray[Any]:
    """The vectors of slots that have one, (n, numbers) of the stored dtype: copies."""
    found, present = find(txn, cid, layout, slots)
    if not present.all():
        slot = int(slots[int(np.argmin(present))])
        raise rows.damaged("V3", keys.row(cid, slot), "its vector is in no block and not inline")
    return found


def _says(row: Row, layout: Layout) -> bool:
    """Whether a record says that it has a vector in a field; a dead row's names what travels in it alone."""
    return (layout.number if row.dead else layout.member) in row.fields


def inline_of(row: Row | None, cid: int, layout: Layout, slot: int) -> npt.NDArray[Any] | None:
    """The vector in the record of a row whose block is not written; None where it has none.

    No row at all: a dead one that had no vectors to keep, or a vacant slot.
    """
    found = None if row is None else row.inline.get(layout.number)
    if found is None:
        if row is not None and not layout.partial and (layout.sole or _says(row, layout)):
            raise rows.damaged("V3", keys.row(cid, slot), "its vector is in no block and not inline")
        return None
    if len(found) != layout.stride:
        raise rows.damaged("V3", keys.row(cid, slot), "its vector has another length")
    return np.frombuffer(found, layout.kind)


def shown(stored: npt.NDArray[Any], declared: VectorField) -> Any:
    """Stored vectors as a user reads them: bits as uint8 0 and 1, sparse ones as dicts, else as it is."""
    if declared.kind == SPARSE:
        return sparse.decode(stored)
    if declared.dtype != "b1":
        return stored
    return np.unpackbits(stored, axis=-1, count=declared.dim)


def as_query(stored: Any, dim: int, dtype: str) -> npt.NDArray[np.float32]:
    """A stored vector as a search takes it: float32 (dim,)."""
    numbers = np.frombuffer(stored, DTYPES[dtype])
    if dtype == "b1":
        numbers = np.unpackbits(numbers, count=dim)
    return numbers.astype(np.float32)


# --- fields of many vectors a row ----------------------------------------------------------------


def put_many(txn: Any, cid: int, layout: Layout, rid: int, given: npt.NDArray[Any]) -> None:
    """Write a row's vectors (m, numbers)."""
    key = keys.many_vectors(cid, layout.number, rid)
    records.put(txn, key, given.tobytes())


def delete_many(txn: Any, cid: int, number: int, rid: int) -> None:
    """Take a row's vectors away."""
    txn.delete(keys.many_vectors(cid, number, rid))


def get_many(txn: Any, cid: int, layout: Layout, rid: int) -> npt.NDArray[Any]:
    """A row's vectors (m, numbers), a copy; the bytes (n,) of a sparse one (storage/sparse.py)."""
    key = keys.many_vectors(cid, layout.number, rid)
    record = txn.get(key)
    if record is None:
        raise rows.damaged("V4", key, "the row's vectors are missing")
    return verify_many(key, record, layout)


def verify_many(key: bytes, record: Any, layout: Layout) -> npt.NDArray[Any]:
    """The same of a record, or `Corrupt` when its checksum or length is wrong."""
    payload = rows.open_record(keys.MANY, key, record, code="V4")
    if layout.sparse:
        try:
            sparse.verify(payload)
        except ValueError as error:
            raise rows.damaged("V5", key, str(error)) from None
        return np.frombuffer(bytes(payload), np.uint8)
    if len(payload) % layout.stride:
        raise rows.damaged("V4", key, f"{len(payload)} bytes are no whole vectors")
    found = np.frombuffer(bytes(payload), layout.kind)
    return found.reshape(-1, layout.numbers)
