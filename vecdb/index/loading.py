"""How does one vector field's graph come into memory, and how does it go on from there?

A graph is loaded from the field's blocks of vectors, the vectors that still travel in rows' records,
the image of its links, and the redo log beyond the image. It goes on by new vectors, their codes, and
the log's links, in this order: what a link leads to is there before the link (follow.py, F2).

Invariants:
  L1  every block that should be there is (storage/vectors.py, V1): a missing one is damage, not a
      row of holes;
  L2  a slot without a vector in the field is never encoded and nothing links to it;
  L3  a block that was written anew is looked at in its new place before anything else is: its old pages
      may hold something else by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from vecdb import _core
from vecdb.errors import Corrupt
from vecdb.storage import keys, log, rows, vectors
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.state import FieldState, State
from vecdb.storage.vectors import Block

CHUNK_HEADER: Final = 36  # commit number u64, layer u8, padding: links start on a 64-byte boundary
LAYERS: Final = (0, 1)


class Again(NamedTuple):
    """What was handed out or written again between two commits."""

    slots: list[int]  # of rows that came alive in slots that others had
    blocks: Mapping[int, set[int]]  # by vector field


def empty(schema: Schema, declared: VectorField) -> Any:
    """A field's graph without a vector."""
    return _core.Graph(
        declared.dim, declared.metric, declared.dtype, declared.M, declared.ef_construction,
        schema.layout(declared).block_rows,
    )  # fmt: skip


class Loading:
    """One field's graph as a transaction's images and log describe it."""

    def __init__(
        self, txn: Any, cid: int, schema: Schema, declared: VectorField, threads: int
    ) -> None:
        self.txn = txn
        self.cid = cid
        self.schema = schema
        self.declared = declared
        self.layout = schema.layout(declared)
        self.threads = threads

    def load(self, now: State, commit: int) -> Any:
        """The graph at the transaction's commit."""
        graph = empty(self.schema, self.declared)
        mine = now.vectors[self.declared.number]
        if not mine.slots:
            self._expect_blocks(now.slots)
            return graph
        self._attach_all(graph, now.slots)
        self._load_inline(graph, 0, now.slots)
        written = self.layout.inline_from(now.slots)
        self._load_again(graph, range(now.loose_from, min(now.loose_to, written)), written)
        lo, step = mine.scale or (0.0, 1.0)
        graph.set_state(mine.slots, lo, step)
        graph.encode(0, mine.slots, self.threads)
        self._load_chunks(graph)
        part = keys.log_links(self.declared.number)
        for at, _, payload in log.read(self.txn, self.cid, mine.links_to, commit, only=part):
            self.apply(graph, at, payload)
        return graph

    def follow(
        self,
        graph: Any,
        links: Iterable[tuple[int, Any]],
        before: int,
        now: State,
        mine: FieldState,
        again: Again,
    ) -> None:
        """Take a graph from slot `before` to a later commit: vectors, codes, then links.

        Blocks come first: what has been handed out again since they were written lies in records.
        """
        count, written = self.layout.block_rows, self.layout.inline_from(now.slots)
        full = range(max(before // count, self.layout.first_block), now.slots // count)
        rewritten = again.blocks.get(self.layout.number, set())
        for block in sorted({*(each for each in rewritten if each < now.slots // count), *full}):
            self._attach(graph, block)
        anew = range(max(before, now.loose_from), min(now.loose_to, written))
        self._load_again(graph, [*again.slots, *anew], now.slots)
        if before < now.slots:
            self._load_inline(graph, before, now.slots)
            graph.encode(before, max(0, mine.slots - before), self.threads)
        self.attach_full(graph, now)
        for block in rewritten:  # rows that had no vector in the field may have one now
            start, stop = block * count, (block + 1) * count
            travelling = [slot for slot in range(start, stop) if slot >= written or slot in now.loose]
            self._load_again(graph, travelling, now.slots)
            graph.encode(start, count)
        for commit, record in links:
            self.apply(graph, commit, record)

    def attach_full(self, graph: Any, now: State) -> None:
        """Let the map serve blocks that have been written since their vectors came."""
        count, loose = self.layout.block_rows, now.loose
        for block in graph.private_blocks():
            is_loose = block * count < loose.stop and (block + 1) * count > loose.start
            if (block + 1) * count <= now.slots and not is_loose:
                self._attach(graph, block)

    def attach_blocks(self, graph: Any, blocks: Iterable[int], now: State) -> None:
        """Look at blocks that were written anew where they lie now, and at what came into them since."""
        count, loose = self.layout.block_rows, now.loose
        for block in blocks:
            start, stop = block * count, (block + 1) * count
            if stop <= now.slots:
                self._attach(graph, block)
                since = range(max(start, loose.start), min(stop, loose.stop))
                self._load_again(graph, since, now.slots)

    def apply(self, graph: Any, commit: int, record: Any) -> None:
        """Apply the links of a commit's log."""
        try:
            graph.apply(record)
        except ValueError as error:
            key = keys.log(self.cid, commit, keys.log_links(self.declared.number))
            raise rows.damaged("G1", key, str(error)) from None

    # --- vectors ---------------------------------------------------------------------------

    def _attach_all(self, graph: Any, slots: int) -> None:
        """Every block, none missing: so that slots beyond what is stored reserve no memory."""
        expected = self.layout.full_blocks(slots)
        done = expected.start
        for block, found in vectors.scan_blocks(self.txn, self.cid, self.layout):
            if done == expected.stop:
                key = keys.vector_block(self.cid, self.layout.number, block)
                raise rows.damaged("V1", key, "this block is not full yet")
            if block != done:
                break
            self._attach_found(graph, block, found)
            done += 1
        if done < expected.stop:
            raise self._missing(done)

    def _expect_blocks(self, slots: int) -> None:
        for block in self.layout.full_blocks(slots):
            if vectors.get_block(self.txn, self.cid, self.layout, block) is None:
                raise self._missing(block)

    def _attach(self, graph: Any, block: int) -> None:
        found = vectors.get_block(self.txn, self.cid, self.layout, block)
        if found is None:
            raise self._missing(block)
        self._attach_found(graph, block, found)

    def _attach_found(self, graph: Any, block: int, found: Block) -> None:
        if not found.empty:
            graph.attach_block(block, found.record, vectors.DATA_OFFSET, *_bits(found))

    def _load_inline(self, graph: Any, first: int, end: int) -> None:
        start = max(first, self.layout.inline_from(end))
        pending = [slot for slot in range(start, end) if not graph.has_vector(slot)]
        if not pending:
            return
        slots = np.array(pending, np.uint32)
        found, present = vectors.find(self.txn, self.cid, self.layout, slots)
        if present.any():
            graph.put_vectors(np.ascontiguousarray(slots[present]), np.ascontiguousarray(found[present]))

    def _load_again(self, graph: Any, slots: Iterable[int], end: int) -> None:
        """Vectors in records, of slots that had others: they come before those in blocks."""
        places, found = [], []
        for slot in slots:
            if self.layout.first <= slot < end:
                row = rows.find(self.txn, self.cid, slot)
                if row is not None and self.layout.number in row.inline:
                    places.append(slot)
                    found.append(vectors.inline_of(row, self.cid, self.layout, slot))
        if places:
            graph.put_vectors(np.array(places, np.uint32), np.ascontiguousarray(found), True)

    def _missing(self, block: int) -> Corrupt:
        key = keys.vector_block(self.cid, self.layout.number, block)
        return rows.damaged("V1", key, "the block of vectors is missing")

    # --- links -----------------------------------------------------------------------------

    def _load_chunks(self, graph: Any) -> None:
        prefix = keys.prefix(keys.LINKS, self.cid) + bytes((self.layout.number,))
        cursor = self.txn.cursor()
        found = cursor.set_range(prefix)
        while found:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            payload = rows.open_record(keys.LINKS, key, cursor.value(), code="G1")
            layer, chunk = key[6], int.from_bytes(key[7:], "big")
            if layer not in LAYERS or chunk >= graph.n_chunks(layer):
                raise rows.damaged("G1", key, "links of slots that were never handed out")
            try:
                graph.load_chunk(layer, chunk, payload[CHUNK_HEADER:])
            except ValueError as error:
                raise rows.damaged("G1", key, str(error)) from None
            found = cursor.next()


def _bits(found: Block) -> tuple[bytes, ...]:
    return () if found.present is None else (found.present,)
