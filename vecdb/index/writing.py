"""What does one transaction change in one collection, and how does that become a commit?

A `Writing` collects a transaction's changes to one collection. Rows and ids go straight into the
LMDB write transaction; links go into the graph's overlay; touched rows' states are kept until
`finish`, which writes the redo log (or, for a transaction that is worth more than its log, the
images), takes a slice of upkeep in proportion, and stores the collection's new state. After the
commit, `publish` applies the same log to this process's graph and view.

Invariants (isolation rule 3 of the design):
  B1  before the commit nothing changes that a reader of this process can reach: new slots are
      linked by nobody, changed rows live in the overlay;
  B2  an abort leaves no trace: the overlay is dropped, slot numbers are handed out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb.errors import Corrupt
from vecdb.fields import declared as declared_fields
from vecdb.index import effort, loading, measure, seats, tracking, valuekey
from vecdb.index.behind import Behind
from vecdb.index.changes import RowChange, encode_changes, state_of
from vecdb.index.columns import Columns, columns_of
from vecdb.index.folding import Folding
from vecdb.index.follow import Follower, write_effort, write_names
from vecdb.index.sweeping import Sweeping
from vecdb.index.textfolding import TextFolding
from vecdb.index.texts import Own, usable
from vecdb.index.view import Graphed, View, live_mask
from vecdb.query.filter import Filter
from vecdb.storage import codec, keys, log, rows, state, vectors
from vecdb.storage.log import RowsPart
from vecdb.storage.rows import PLAIN, NewRow, Row
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.vectors import Block, Given, Layout

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.storage.writing import WriteTxn

TRUE: Final = valuekey.key_of(True)
ADOPTED_SAMPLES: Final = 24  # taken of a graph that was made elsewhere, in the commit that adopts it
DIRECT_ROWS: Final = 8192  # a transaction that touches more folds its attributes at once


class Writing(Folding, TextFolding, Sweeping, Behind):
    """The pending changes of one transaction to one collection."""

    def __init__(self, follower: Follower, wt: WriteTxn) -> None:
        self.follower = follower
        self.cid = follower.cid
        self.wt = wt
        self.txn = wt.txn
        self.commit = wt.commit_number
        self.base = follower.at(wt.txn, wt.last)
        self.state = self.base.state.copy()
        self.names = dict(self.base.names)
        self.live = self.base.live.copy()
        self.born: set[int] = set()
        self.died: set[int] = set()
        self.touched: dict[int, list[Any]] = {}  # rid -> [first old state, last new state]
        self._fields = dict(self.base.vectors)
        self.declare(self.base.schema)
        self._writers: dict[int, Any] = {}  # _core.Writer by field, once a vector is inserted
        self._view: View | None = None
        self._samples = effort.SAMPLES  # of a measurement, at most
        self._rewritten: list[list[int]] = []
        self._brief: set[int] = set()  # slots handed out again, whose rows are gone by now
        self._linked: dict[int, BitMap] = {}  # slots that came into a field's graph
        self._filled: dict[int, BitMap] = {}  # dead slots that nobody needs to look for in a hidden field
        self._text_size = 0  # bytes of texts that were written
        self._own = Own()
        self._begin_slots()
        self.changes_made = 0  # grows with every change: tells a failed call that did something
        self._published: tuple[View, dict[int, bytes], RowsPart, bool] | None = None

    def declare(self, schema: Schema) -> None:
        """Go on under this declaration; where fields of sparse vectors came or went, index words anew."""
        before: Columns | None = getattr(self, "_columns", None)
        self.schema = schema
        self._metadata = declared_fields(schema.fields)
        self._columns = columns_of(schema)
        by_number = schema.by_number
        self._layouts = {number: schema.layout(each) for number, each in by_number.items()}
        self._graphed = [each for each in by_number.values() if each.graphed]
        self._stated = seats.stated(schema)
        self._by_member = schema.by_member
        if before is not None and before.sparse != self._columns.sparse:
            self._index_anew()

    # --- changes -------------------------------------------------------------------------

    def insert(self, new: list[NewRow], given: Mapping[int, Given]) -> None:
        """Insert rows whose ids are free, with their vectors by field number."""
        self._check_analysis()
        self._change()
        seated = np.zeros(len(new), np.bool_)
        for declared in self._graphed:
            if declared.number in given:
                seated[given[declared.number].rows] = True
        rids = self._hand_out(seated)
        for declared in self._graphed:
            part = given.get(declared.number)
            if part is not None and len(part.rows):
                self._link(declared, rids[part.rows], part.array)
        self._put_rows(new, rids, given)
        for layout in self._layouts.values():
            if layout.number in self.state.vectors:
                self._write_blocks(layout, rids, given.get(layout.number))

    def adopt(
        self, declared: VectorField, new: list[NewRow | None], array: Any, links: Any
    ) -> None:
        """Fill an empty collection with rows in a graph that was made elsewhere.

        `array` (n, d) of the stored dtype and `links` (n, 2 M), slots or EMPTY; None for a row that is
        deleted and kept as a way to others. ValueError, with nothing changed, for links to no slot.
        """
        number, count = declared.number, len(new)
        writer = self._writer(number)
        writer.adopt(array, links, self.follower.threads)
        self._linked_in(number).update(BitMap(range(count)))
        self._change()
        rids = self._hand_out(np.ones(count, np.bool_))
        alive = np.array([each is not None for each in new], np.bool_)
        mine = self.state.vectors[number]
        mine.ranked, mine.slots, mine.inserted = int(alive.sum()), count, count
        self.state.seated = mine.ranked
        kept = [each for each in new if each is not None]
        theirs = array if len(kept) == count else array[alive]
        self._put_rows(kept, rids[alive], {number: Given.of(theirs)})
        self._bury(self._layouts[number], rids[~alive], array)
        self.buried.update(rids[~alive].tolist())
        self._write_blocks(self._layouts[number], rids, Given.of(array))
        self._samples = ADOPTED_SAMPLES

    def _bury(self, layout: Layout, dead: npt.NDArray[np.int64], array: Any) -> None:
        """Records of dead slots whose vectors travel in them."""
        for slot in dead[dead >= layout.inline_from(self.state.slots)].tolist():
            vector = {layout.number: array[slot].tobytes()}
            grave = Row(self.commit, b"", None, b"", (layout.number,), vector, True)
            rows.put(self.txn, self.cid, slot, grave)

    def remove(self, key: bytes, rid: int, row: Row) -> None:
        """Take a live row away. Its vectors stay: a dead slot is routable until it is unlinked."""
        self._change()
        graphed = False
        for declared in (each for number in row.fields for each in self._by_member.get(number, ())):
            mine = self.state.vectors.get(declared.number)
            graphed = graphed or mine is not None
            if mine is None:
                vectors.delete_many(self.txn, self.cid, declared.number, rid)
            elif self._held(declared, rid):
                mine.ranked -= 1
        if rid < PLAIN:
            self.state.seated -= 1
            self.buried.add(rid)
            if not graphed:
                self._vacancies().add(rid)  # it had vectors in fields that were dropped
                self.state.vacant += 1
        if not row.inline:
            rows.delete(self.txn, self.cid, rid)
        else:
            grave = Row(self.commit, b"", None, b"", tuple(row.inline), row.inline, True)
            rows.put(self.txn, self.cid, rid, grave)
        self.txn.delete(key)
        self.state.live -= 1
        self.live.discard(rid)
        if rid not in self.born:
            self.died.add(rid)
        else:
            self.born.discard(rid)
            if rid < self.base.slots:
                self._brief.add(rid)
        self._touch(rid, self.state_of_row(rid, row), None)

    def rewrite(self, rid: int, old: Row, text: bytes | None, metadata: bytes, new: Any) -> None:
        """Give a row other metadata or text; `new` is its indexed state. No graph is touched."""
        self._check_analysis()
        self._change()
        self._text_size += self._size_of(text, metadata)
        before = self.state_of_row(rid, old)
        row = old._replace(changed=self.commit, text=text, metadata=metadata)
        rows.put(self.txn, self.cid, rid, row)
        new += seats.lacking(rid, row.fields, self._stated, self.names)
        self._touch(rid, before, new + self._marks(row.changed))

    def state_of(self, metadata: dict[str, Any], text: bytes | None = None) -> Any:
        """The indexed state of cleaned metadata and of a text; new field names get their ids."""
        mark = self._columns.mark(text, metadata, self.names) if self._columns.any else ()
        if not metadata:
            return mark
        return mark + state_of(metadata, self.names, self._metadata)

    def state_of_row(self, rid: int, row: Row) -> Any:
        """The indexed state of a stored row."""
        found = self.state_of(codec.unpack_metadata(row.metadata) if row.metadata else {}, row.text)
        found += seats.lacking(rid, row.fields, self._stated, self.names)
        return found + self._marks(row.changed)

    def _marks(self, changed: int) -> Any:
        """What the indexed state of a row says of the commit that changed it last."""
        return tracking.marks(self.schema.tracked, changed, self.names)

    def add_field(self, schema: Schema, declared: VectorField) -> None:
        """Go on with one more vector field, which no row has yet."""
        self._change()
        if declared.graphed:
            self.state.vectors[declared.number] = state.new_field(self.commit_before)
            self._fields[declared.number] = Graphed(declared, loading.empty(schema, declared), None)

    def drop_field(self, number: int) -> None:
        """Go on without a vector field; its records are the caller's to take away."""
        self._change()
        writer = self._writers.pop(number, None)
        if writer is not None:
            writer.rollback()
        self.state.vectors.pop(number, None)
        self._fields.pop(number, None)
        gone = BitMap(range(self.state.slots)) - self.live
        self._vacant = self._absent(gone - BitMap.union(BitMap(), *map(self._linked_in, self._fields)))
        self.state.vacant = len(self._vacant)

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return self.changes_made > 0

    @property
    def next_slot(self) -> int:
        """The slot that the next row with a vector gets."""
        return self.state.slots

    def _change(self) -> None:
        self.changes_made += 1
        self._view = None

    def _hand_out(self, seated: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Numbers for new rows: slots for those with vectors, others beyond all slots."""
        count = int(seated.sum())
        rids = np.empty(len(seated), np.int64)
        again = self._reuse(count)
        self._fresh_from, fresh = self.state.slots, count - len(again)
        rids[seated] = np.concatenate((again, self.state.slots + np.arange(fresh)))
        rids[~seated] = PLAIN + self.state.plain + np.arange(len(seated) - count)
        self.state.slots += fresh
        self.state.plain += len(seated) - count
        self.state.seated += count
        return rids

    def _link(self, declared: VectorField, slots: npt.NDArray[np.int64], array: Any) -> None:
        """Insert vectors into the graph of their field."""
        number, first, count = declared.number, int(slots[0]), len(slots)
        writer = self._writer(number)
        if first >= writer.n_slots and int(slots[-1]) - first + 1 == count:
            writer.insert(first, array, self.follower.threads)
        else:
            writer.insert_at(slots.astype(np.uint32), array, self.follower.threads)
        self._linked_in(number).update(BitMap(slots.tolist()))
        mine = self.state.vectors[number]
        mine.ranked += count
        mine.inserted += count
        mine.slots = max(mine.slots, int(slots[-1]) + 1)

    def _linked_in(self, number: int) -> BitMap:
        """The slots that this transaction put into a field's graph."""
        return self._linked.setdefault(number, BitMap())

    def _put_rows(
        self,
        new: list[NewRow],
        rids: npt.NDArray[np.int64],
        given: Mapping[int, Given],
    ) -> None:
        """Ids and records; vectors travel in them where their blocks are not full (V3)."""
        if self.schema.is_plain:
            self._put_plain_rows(new, rids, given.get(0))
        else:
            self._put_rows_of_fields(new, rids, given)
        self.state.live += len(new)
        self.live.update(BitMap(rids.tolist()))
        self.born.update(rids.tolist())
        if self._columns.any:
            self._own.changed.update(rids.tolist())
            self._text_size += sum(self._size_of(item.text, item.metadata) for item in new)

    def _put_plain_rows(
        self, new: list[NewRow], rids: npt.NDArray[np.int64], part: Given | None
    ) -> None:
        """In a collection that has, and ever had, one vector field: nobody with a slot lacks it."""
        has = np.zeros(len(new), np.uint8)
        inline: list[bytes | None] = [None] * len(new)
        if part is not None:
            has[part.rows] = 1
            travelling = np.flatnonzero(self._travels(self._layouts[0], rids[part.rows]))
            for at in travelling.tolist():
                inline[int(part.rows[at])] = part.array[at].tobytes()
        rows.put_new(self.txn, self.cid, self.commit, rids, new, has, inline)
        marks = self._marks(self.commit)
        for item, rid in zip(new, rids.tolist(), strict=True):
            self.touched[rid] = [None, item.state + marks]

    def _put_rows_of_fields(
        self, new: list[NewRow], rids: npt.NDArray[np.int64], given: Mapping[int, Given]
    ) -> None:
        txn, cid, commit = self.txn, self.cid, self.commit
        marks = self._marks(commit)
        has: list[set[int]] = [set() for _ in new]
        inline: list[dict[int, bytes]] = [{} for _ in new]
        for number, part in sorted(given.items()):
            layout = self._layouts[number]
            travels = self._travels(layout, rids)
            for row, vector in zip(part.rows.tolist(), part.array, strict=True):
                has[row].add(layout.member)
                if number not in self.state.vectors:
                    vectors.put_many(txn, cid, layout, int(rids[row]), vector)
                    self._text_size += len(vector) if layout.sparse else 0
                elif travels[row]:
                    inline[row][number] = vector.tobytes()
                    has[row].add(number)
        for item, rid, fields, travelling in zip(new, rids.tolist(), has, inline, strict=True):
            row = Row(
                commit, item.key[5:], item.text, item.metadata, tuple(sorted(fields)), travelling, False
            )
            rows.put_rid(txn, item.key, rid)
            rows.put(txn, cid, rid, row)
            lacking = seats.lacking(rid, fields, self._stated, self.names)
            self.touched[rid] = [None, item.state + lacking + marks]

    def _travels(self, layout: Layout, rids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which rows' vectors go into their records: the blocks of the others are written now."""
        loose = self.state.loose
        within = (rids >= loose.start) & (rids < loose.stop)
        return within | (rids >= layout.inline_from(self.state.slots))

    def _write_blocks(
        self, layout: Layout, rids: npt.NDArray[np.int64], part: Given | None
    ) -> None:
        """Write the blocks of a field whose last slot, or last free slot, has just been handed out."""
        count, now = layout.block_rows, self.state
        array = part.array if part is not None else np.empty((0, layout.numbers), layout.kind)
        holders = rids[part.rows] if part is not None else np.empty(0, np.int64)
        full = range(max(self._fresh_from // count, layout.first_block), now.slots // count)
        for block in full:
            self._write_block(layout, block, rids, holders, array, None, True)
        for group in self._settled:
            for block in range(group.start // count, -(-group.stop // count)):
                if layout.first_block <= block < now.slots // count and block not in full:
                    old = vectors.get_block(self.txn, self.cid, layout, block)
                    if old is None:
                        key = keys.vector_block(self.cid, layout.number, block)
                        raise rows.damaged("V1", key, "the block of vectors is missing")
                    self._write_block(layout, block, rids, holders, array, old, group == self._was_loose)
                    self._rewritten.append([layout.number, block])

    def _write_block(
        self,
        layout: Layout,
        block: int,
        rids: npt.NDArray[np.int64],
        holders: npt.NDArray[np.int64],
        array: Any,
        old: Block | None,
        travelling: bool,
    ) -> None:
        """Write a block from its former self, rows' records if any travels there, and new vectors."""
        count, start = layout.block_rows, block * layout.block_rows
        low, high = np.searchsorted(holders, (start, start + count))
        if high - low == count:
            every = np.ones(count, np.bool_)
            vectors.put_block(self.txn, self.cid, layout, block, array[low:high], every)
            return
        whole, present = vectors.rows_of(old, layout)
        given = set(rids[(rids >= start) & (rids < start + count)].tolist())
        for slot in range(max(start, layout.first), start + count):
            if slot in given:
                present[slot - start] = False
                continue
            if not travelling:
                continue
            row = rows.find(self.txn, self.cid, slot)
            found = self._settle(layout, slot, row, old is not None)
            if row is not None and not row.dead and found is None and not self._may_be_in(layout, slot, row):
                present[slot - start] = False
            elif found is not None:
                whole[slot - start], present[slot - start] = found, True
        if old is not None:
            for slot in self._vacancies() & BitMap(range(start, start + count)):
                present[slot - start] = False
        places = holders[low:high] - start
        whole[places], present[places] = array[low:high], True
        whole[~present] = 0
        vectors.put_block(self.txn, self.cid, layout, block, whole, present)
        if travelling:
            rows.repack(self.txn, self.cid, start, start + count)

    def _settle(
        self, layout: Layout, slot: int, row: Row | None, written: bool
    ) -> npt.NDArray[Any] | None:
        """The inline vector of an earlier row, taken out of its record; None where it has none.

        `written`: its block was; then it may be there already.
        """
        if row is None and slot in self.live:
            row = rows.get(self.txn, self.cid, slot)  # says that it is missing
        if written and row is not None and layout.number not in row.inline:
            return None
        found = vectors.inline_of(row, self.cid, layout, slot)
        if row is None or found is None:
            return None
        rest = {number: each for number, each in row.inline.items() if number != layout.number}
        if not row.dead:
            rows.put(self.txn, self.cid, slot, row._replace(inline=rest))
        elif rest:
            rows.put(self.txn, self.cid, slot, row._replace(fields=tuple(rest), inline=rest))
        else:
            rows.delete(self.txn, self.cid, slot)
        return found

    def _check_analysis(self) -> None:
        """Refuse to write words that the analysis at hand would not index as the others were."""
        if self._columns.outdated:
            usable(self._columns, self.schema.name)

    def _size_of(self, text: bytes | None, metadata: bytes) -> int:
        """Bytes of a row that are to be analysed, at most."""
        return len(text or b"") + (len(metadata) if self._columns.of_metadata else 0)

    def _own_texts(self) -> BitMap:
        """The rows with a text, before or now, that this transaction touched."""
        marks = [(self.names[each], TRUE) for each in self._columns.marks if each in self.names]
        return BitMap(
            [
                rid
                for rid, (before, after) in self.touched.items()
                for mark in marks
                if (before and mark in before) or (after and mark in after)
            ]
        )

    def _touch(self, rid: int, before: Any, after: Any) -> None:
        if self._columns.any:
            self._own.note(rid)
        seen = self.touched.get(rid)
        if seen is None:
            self.touched[rid] = [before, after]
        else:
            seen[1] = after

    # --- reading inside the transaction ----------------------------------------------------

    def view(self) -> View:
        """What the transaction itself sees."""
        if self._view is None:
            tail = self.base.tail.copy()
            tail.advance(self.commit, self._changes())
            mask = live_mask(self.live, self.state.slots)
            fields = {
                number: each._replace(graph=self._writers.get(number, each.graph))
                for number, each in self._fields.items()
            }
            self._view = View(
                self.commit, self.schema, self.state, self.live, mask, tail, self.names, fields,
                words={"own": self._own, "base": self.base},
            )  # fmt: skip
        return self._view

    def matches(self, where: Filter) -> BitMap:
        """The rows that satisfy a filter, as the transaction sees them."""
        return self.follower.evaluate(self.txn, self.view(), where)

    # --- the commit ------------------------------------------------------------------------

    def finish(self) -> None:
        """Write log, images, upkeep and state into the transaction."""
        self._note_held()
        changes = self._changes()
        part = self._rows_part(changes)
        measured = {number: self._measure(number) for number in self._fields}
        touched = max(len(changes), len(self.born) + len(self.died))
        folded = touched > DIRECT_ROWS and not self._columns.outdated
        if folded:
            self._fold_everything(changes)
        else:
            # rows that came and went left names, which all must number alike, and vectors
            if touched or part.names or part.born or part.rewritten:
                log.put(self.txn, self.cid, self.commit, log.ROWS, part.pack())
                self.state.rows_last = self.commit
            self._fold_slice(touched)
        self._fold_texts(touched, self._text_size, directly=folded)
        self._upkeep_slots()
        links = self._links()
        for number, record in links.items():
            self._store_links(number, record)
        for number, found in measured.items():
            if found is not None:
                write_effort(self.txn, self.cid, number, found)
                self._fields[number] = self._fields[number]._replace(effort=found)
        if part.names:
            write_names(self.txn, self.cid, self.names)
        log.cut(self.txn, self.cid, self.state)
        state.write(self.txn, self.cid, self.state)
        after = replace(
            self.base, commit=self.commit, schema=self.schema, state=self.state,
            vectors=self._fields,
        )  # fmt: skip
        self._published = (after, links, part, folded)

    def _links(self) -> dict[int, bytes]:
        """The redo record of each graph that changed."""
        for number in [n for n, writer in self._writers.items() if not writer.changed]:
            self._writers.pop(number).rollback()
        return {number: writer.changes() for number, writer in self._writers.items()}

    def publish(self) -> None:
        """After the commit: this process's graphs and view follow."""
        assert self._published is not None
        after, links, part, folded = self._published
        self.follower.advance(after, links, part, folded=folded)
        self.follower.vacant = None if self._vacant is None else (self.commit, self._vacant)
        self.follower.texts.merging = self._at_hand

    def rollback(self) -> None:
        """Drop the overlays."""
        for writer in self._writers.values():
            writer.rollback()
        self._writers.clear()

    def _changes(self) -> list[RowChange]:
        return [
            RowChange(rid, before, after)
            for rid, (before, after) in self.touched.items()
            if before or after  # a row without indexed values is nowhere to be found by them
        ]

    def _rows_part(self, changes: list[RowChange]) -> RowsPart:
        known = len(self.base.names)
        return RowsPart(
            sorted(self._brief.union(self.born)),
            sorted(self._brief.union(self.died)),
            list(self.names)[known:],
            encode_changes(changes),
            self._rewritten,
        )

    # --- effort --------------------------------------------------------------------------------

    def _measure(self, number: int) -> effort.Effort | None:
        """A field's effort after this commit's share of a measurement; None when it has none."""
        field, _, known = self._fields[number]
        ranked, inserted = self.state.vectors[number].ranked, self.state.vectors[number].inserted
        changed = len(self.born) + len(self.died)
        due = min(self._samples, effort.samples_due(known, ranked, inserted, changed))
        if not due:
            return None
        view = self.view()
        graph = view.vectors[number].graph
        held = self.follower.holders(self.txn, view, field)
        live = view.live if held is None else held.rids
        mask = view.mask if held is None else held.mask

        def metadata(rid: int) -> dict[str, Any]:
            return codec.unpack_metadata(rows.get(self.txn, self.cid, rid).metadata or b"\x80")

        def matches(where: Filter) -> BitMap:
            return self.matches(where) if held is None else self.matches(where) & held.rids

        try:
            more = measure.take(
                measure.Sampled(
                    graph, live, ranked, view.slots, mask,
                    lambda slot: vectors.as_query(graph.vector(slot), field.dim, field.dtype),
                    metadata, matches, self._metadata.skips,
                ),
                due, effort.Measured() if known is None else known.pending, self.commit,
            )  # fmt: skip
        except Corrupt:  # a damaged index is no reason to refuse a write that does without it
            return None
        before = effort.Effort(ranked, effort.Measured()) if known is None else known
        return before.with_more(more, ranked, inserted, self._samples)
