"""Is the vector that a row says it has still there, and is it one?

The row's record, the block of its slot or its record of many vectors is read, whichever holds it, and
what is found is checked as if a user had given it: a checksum says that nothing has changed since it
was written, not that a vector was written.

Invariants (checked by tests/faults/test_repair.py and test_repair_fields.py):
  Y1  what `read` returns is of the stored dtype and shape of its field, finite, and usable with its
      metric; else it raises `VectorLost`, which says why;
  Y2  a block is read and verified once for the rows that follow each other in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.arrays import check_rows
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.storage import keys, vectors
from vecdb.storage.rows import PLAIN, Row
from vecdb.storage.salvage import Salvaged
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.vectors import Block, Layout

if TYPE_CHECKING:
    import numpy.typing as npt


SURELY_FINITE: Final = 1e38  # a squared length below is no overflow, however it was added up


class VectorLost(Exception):
    """The vector cannot be had; the message says why."""


class StoredVectors:
    """The vectors of one collection of a damaged file."""

    def __init__(self, found: Salvaged, cid: int, schema: Schema) -> None:
        self._found = found
        self._cid = cid
        self._layouts = {number: schema.layout(each) for number, each in schema.by_number.items()}
        self._blocks: dict[int, tuple[int, Block | str]] = {}  # field -> the last one, or its fault

    def read(self, declared: VectorField, rid: int, row: Row) -> npt.NDArray[Any]:
        """A row's vector (numbers,), or (m, numbers) in a field of many."""
        layout = self._layouts[declared.number]
        if declared.sparse:
            return self._many(layout, rid)
        if declared.multi:
            found = self._many(layout, rid)
            _check(found, declared)
            return found
        vector = self._one(layout, rid, row)
        _check(vector[None], declared)
        return vector

    def _one(self, layout: Layout, rid: int, row: Row) -> npt.NDArray[Any]:
        travelling = row.inline.get(layout.number)
        if travelling is not None:
            if len(travelling) != layout.stride:
                raise VectorLost(f"it has {len(travelling)} bytes; its field's have {layout.stride}")
            return np.frombuffer(travelling, layout.kind)
        if rid >= PLAIN:
            raise VectorLost("its row has no slot")
        number, within = divmod(rid, layout.block_rows)
        block = self._block(layout, number)
        if not block.has(within):
            raise VectorLost(f"block {number} of vectors has none in the row's place")
        start = vectors.DATA_OFFSET + within * layout.stride
        return np.frombuffer(block.record[start : start + layout.stride], layout.kind)

    def _block(self, layout: Layout, number: int) -> Block:
        known, block = self._blocks.get(layout.number, (-1, ""))
        if known != number:
            block = self._block_or_fault(layout, number)
            self._blocks[layout.number] = number, block
        if isinstance(block, str):
            raise VectorLost(f"block {number} of vectors: {block}")
        return block

    def _block_or_fault(self, layout: Layout, number: int) -> Block | str:
        try:
            block = vectors.get_block(self._found, self._cid, layout, number)
        except VecdbError as error:
            return said(error)
        key = keys.vector_block(self._cid, layout.number, number)
        return self._missing(key) if block is None else block

    def _many(self, layout: Layout, rid: int) -> npt.NDArray[Any]:
        key = keys.many_vectors(self._cid, layout.number, rid)
        if key not in self._found.places:
            raise VectorLost(f"the record of its vectors: {self._missing(key)}")
        try:
            return vectors.get_many(self._found, self._cid, layout, rid)
        except VecdbError as error:
            raise VectorLost(f"the record of its vectors: {said(error)}") from None

    def _missing(self, key: bytes) -> str:
        return self._found.bad.get(key, "it is missing")


def _check(stored: npt.NDArray[Any], declared: VectorField) -> None:
    """Raise unless vectors (n, numbers) are such as the field takes (Y1)."""
    if declared.dtype == "b1":
        spare = -declared.dim % 8
        if spare and (stored[:, -1] & ((1 << spare) - 1)).any():
            raise VectorLost(f"it has bits beyond dim {declared.dim}")
        return
    if len(stored) == 1 and 0 < _square(stored[0]) < SURELY_FINITE:
        return  # what is wrong with a vector shows in its squared length; `check_rows` says it
    try:
        check_rows("vector", stored, declared.metric)
    except InvalidArgument as error:
        raise VectorLost(str(error)) from None


def _square(vector: npt.NDArray[Any]) -> float:
    numbers = vector.astype(np.float32, copy=False)
    return float(numbers.dot(numbers))


def said(error: BaseException) -> str:
    """What an error says of the damage, without the advice."""
    return getattr(error, "detail", "") or str(error)
