"""What does a transaction do to the vectors that stand behind a field's (schema.Hidden)?

They are made for rows that are there already, some at a commit, and take the field's place when no row lacks
one; afterwards the old ones stand there. The part of a `Writing` (writing.py) that fills and swaps them, and
keeps the state's note of who has one (FieldState.held).

Invariants (checked by vecdb/check/):
  B1  a row that `held` leaves out has no vector in the hidden field; a live one within it, which has a vector
      in the field in front, has;
  B2  a slot that is handed out again leaves `held`, unless its row comes with a vector for the hidden field;
  B3  a block of a hidden field exists when all its slots have been handed out, be it empty
      (storage/vectors.py, V1): the fill writes it anew, and names it to those who follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from pyroaring import BitMap

from vecdb.index import seats
from vecdb.index.follow import Follower
from vecdb.index.view import Graphed, View
from vecdb.storage import keys, rows, state, vectors
from vecdb.storage.rows import Row
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.state import State
from vecdb.storage.vectors import Layout, nothing_of

if TYPE_CHECKING:
    import numpy.typing as npt


class Behind:
    """What a `Writing` does with hidden vector fields."""

    follower: Follower
    cid: int
    txn: Any
    base: View
    state: State
    live: BitMap
    born: set[int]
    add_field: Callable[[Schema, VectorField], None]
    _brief: set[int]
    _fields: dict[int, Graphed]
    _layouts: dict[int, Layout]
    _linked: dict[int, BitMap]
    _filled: dict[int, BitMap]
    _rewritten: list[list[int]]
    _change: Callable[[], None]
    _link: Callable[[VectorField, npt.NDArray[np.int64], Any], None]

    def add_hidden(self, schema: Schema, declared: VectorField) -> None:
        """Go on with one more vector field behind another, which no row has yet. Costs a record a block."""
        self.add_field(schema, declared)
        self.state.vectors[declared.number].held = state.NOBODY
        layout = schema.layout(declared)
        none = np.zeros(layout.block_rows, np.bool_)
        for block in layout.full_blocks(self.state.slots):
            vectors.put_block(self.txn, self.cid, layout, block, nothing_of(layout), none)

    def lacking(self, declared: VectorField, beside: VectorField) -> BitMap:
        """The live rows with a vector in `beside` and none in a hidden field, as of the commit before."""
        rids = seats.rows_of(self.base, self.follower.holders(self.txn, self.base, beside))
        mine = self.state.vectors[declared.number]
        return rids - seats.held_in(mine.held) if mine.held is not None else rids

    def fill(self, declared: VectorField, rids: npt.NDArray[np.int64], array: npt.NDArray[Any]) -> None:
        """Give live rows, ascending, their vectors (n, numbers) in a hidden field; nothing else changes."""
        self._change()
        self._link(declared, rids, array)
        layout = self._layouts[declared.number]
        count, written = layout.block_rows, layout.inline_from(self.state.slots)
        blocks = rids // count
        for block in np.unique(blocks).tolist():
            chosen = blocks == block
            if (block + 1) * count <= written:
                old = vectors.get_block(self.txn, self.cid, layout, block)
                if old is None:
                    key = keys.vector_block(self.cid, layout.number, block)
                    raise rows.damaged("V1", key, "the block of vectors is missing")
                whole, present = vectors.rows_of(old, layout)
                places = rids[chosen] - block * count
                whole[places], present[places] = array[chosen], True
                vectors.put_block(self.txn, self.cid, layout, block, whole, present)
            else:
                for rid, vector in zip(rids[chosen].tolist(), array[chosen], strict=True):
                    self._let_travel(rid, declared.number, vector.tobytes())
            self._rewritten.append([declared.number, block])
        self._filled.setdefault(declared.number, BitMap()).update(
            BitMap(range(int(rids[0]), int(rids[-1]) + 1)) - self.live
        )

    def _let_travel(self, rid: int, number: int, vector: bytes) -> None:
        row = rows.get(self.txn, self.cid, rid)
        fields = tuple(sorted({*row.fields, number}))
        rows.put(self.txn, self.cid, rid, row._replace(fields=fields, inline={**row.inline, number: vector}))

    def swap(self, now_named: VectorField, now_hidden: VectorField) -> None:
        """Let a hidden field that lacks no row stand before the one that it stood behind."""
        self._change()
        every = BitMap(range(self.state.slots))
        every.run_optimize()
        self.state.vectors[now_named.number].held = None
        self.state.vectors[now_hidden.number].held = every.serialize()

    def has(self, declared: VectorField, rid: int, row: Row) -> bool:
        """Whether a live row has a vector in a field."""
        if declared.member not in row.fields:
            return False
        return declared.number not in self.state.vectors or self._held(declared, rid)

    def _held(self, declared: VectorField, rid: int) -> bool:
        """Whether a row that says so has a vector in a field with a graph."""
        held = self.state.vectors[declared.number].held
        if held is None or rid in self._linked.get(declared.number, ()):
            return True
        return rid in seats.held_in(held) and rid not in self.born and rid not in self._brief

    def _note_held(self) -> None:
        """Which rows have vectors in hidden fields, after this transaction."""
        for number, mine in self.state.vectors.items():
            if mine.held is None:
                continue
            linked = self._linked.get(number, BitMap())
            gone = BitMap(self.born.union(self._brief)) - linked
            before = seats.held_in(mine.held)
            after = (before - gone) | linked | self._filled.get(number, BitMap())
            if after != before:
                after.run_optimize()
                mine.held = after.serialize()

    def _may_be_in(self, layout: Layout, slot: int, row: Row) -> bool:
        """Whether what a block has of a live row's slot is that row's, and not of one before it."""
        if layout.member not in row.fields:
            return False
        return not layout.partial or self._held(self._fields[layout.number].declared, slot)
