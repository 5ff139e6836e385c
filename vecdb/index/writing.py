"""What does one transaction change in one collection, and how does that become a commit?

A `Writing` collects a transaction's changes to one collection. Rows and ids go straight into the
LMDB write transaction; links go into the graph's overlay; touched rows' states are kept until
`finish`, which writes the redo log (or, for a transaction that is worth more than its log, the
images), takes a slice of upkeep in proportion, and stores the collection's new state. After the
commit, `publish` applies the same log to this process's graph and view.

Invariants (isolation rule 3 of the design):
  B1  before the commit nothing changes that a reader of this process can reach: new slots are
      linked by nobody, changed rows live in the overlay;
  B2  an abort leaves no trace: the overlay is dropped, slot numbers are handed out again;
  B3  the log's tail is bounded: every commit folds in proportion to what it logs.

Rejected: upkeep in a background thread only. A process that commits and exits would never fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.index import attributes, effort, measure
from vecdb.index.changes import RowChange, encode_changes, state_of
from vecdb.index.follow import CHUNK_HEADER, Follower, write_effort, write_names
from vecdb.index.view import View, live_mask
from vecdb.query.filter import Filter
from vecdb.storage import codec, keys, log, rows, state, vectors
from vecdb.storage.log import RowsPart
from vecdb.storage.rows import PLAIN, Row

if TYPE_CHECKING:
    import numpy.typing as npt

DIRECT_ROWS: Final = 8192  # a transaction that touches more folds its attributes at once
DIRECT_LINKS: Final = 256 << 10  # a link log below this is never replaced by image chunks
FOLD_EVERY: Final = 2048  # touched rows after which every field has been folded once
ROUND_PACE: Final = 3  # bytes of image rewritten per byte of link log
LAYERS: Final = (0, 1)


@dataclass(slots=True)
class NewRow:
    """A row to insert; `key` is keys.row_id(cid, id), `metadata` is packed."""

    key: bytes
    text: bytes | None
    metadata: bytes
    state: Any


class Writing:
    """The pending changes of one transaction to one collection."""

    def __init__(self, follower: Follower, txn: Any, last: int, commit: int) -> None:
        self.follower = follower
        self.cid = follower.cid
        self.txn = txn
        self.commit = commit
        self.base = follower.at(txn, last)
        self.state = self.base.state.copy()
        self.names = dict(self.base.names)
        self.live = self.base.live.copy()
        self.born: set[int] = set()
        self.died: set[int] = set()
        self.touched: dict[int, list[Any]] = {}  # rid -> [first old state, last new state]
        self._graph: Any = None  # _core.Writer, once a vector is inserted
        self._view: View | None = None
        self.changes_made = 0  # grows with every change: tells a failed call that did something
        self._published: tuple[bytes | None, RowsPart, effort.Effort | None, bool] | None = None

    # --- changes -------------------------------------------------------------------------

    def insert(self, new: list[NewRow], given: npt.NDArray[Any] | None) -> None:
        """Insert rows whose ids are free; `given` (n, dim) of the stored dtype, or no vectors."""
        self._change()
        if given is None:
            first = self.state.plain
            self.state.plain += len(new)
            self._put_rows(new, PLAIN + first, None, 0)
            return
        first = self.state.slots
        if self._graph is None:
            self._graph = self.base.graph.begin()
        self._graph.insert(first, given, self.follower.threads)
        self.state.slots = first + len(new)
        self.state.ranked += len(new)
        full = self.state.slots // self.follower.block_rows * self.follower.block_rows
        self._put_rows(new, first, given, full)
        self._write_full_blocks(first, given)

    def remove(self, key: bytes, rid: int, row: Row, *, keep_id: bool = False) -> None:
        """Take a live row away. Its vector stays: a dead slot is routable until it is unlinked."""
        self._change()
        if row.has_vector:
            self.state.ranked -= 1
        if row.inline is None:
            rows.delete(self.txn, self.cid, rid)
        else:
            grave = Row(self.commit, b"", None, b"", True, row.inline, True)
            rows.put(self.txn, self.cid, rid, grave)
        if not keep_id:
            self.txn.delete(key)
        self.state.live -= 1
        self.live.discard(rid)
        if rid in self.born:
            self.born.discard(rid)
        else:
            self.died.add(rid)
        self._touch(rid, self.state_of_row(row), None)

    def rewrite(self, rid: int, old: Row, text: bytes | None, metadata: bytes, new: Any) -> None:
        """Give a row other metadata or text; `new` is its indexed state. No graph is touched."""
        self._change()
        before = self.state_of_row(old)
        row = old._replace(changed=self.commit, text=text, metadata=metadata)
        rows.put(self.txn, self.cid, rid, row)
        self._touch(rid, before, new)

    def state_of(self, metadata: dict[str, Any]) -> Any:
        """The indexed state of cleaned metadata; new field names get their ids."""
        return state_of(metadata, self.names, self.follower.declared)

    def state_of_row(self, row: Row) -> Any:
        """The indexed state of a stored row."""
        return self.state_of(codec.unpack_metadata(row.metadata) if row.metadata else {})

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return self.changes_made > 0

    def _change(self) -> None:
        self.changes_made += 1
        self._view = None

    def _put_rows(
        self, new: list[NewRow], first: int, given: npt.NDArray[Any] | None, full: int
    ) -> None:
        txn, cid, commit = self.txn, self.cid, self.commit
        for at, item in enumerate(new):
            rid = first + at
            inline = given[at].tobytes() if given is not None and rid >= full else None
            row = Row(
                commit, item.key[5:], item.text, item.metadata, given is not None, inline, False
            )
            rows.put_rid(txn, item.key, rid)
            rows.put(txn, cid, rid, row)
            self.touched[rid] = [None, item.state]
        rids = range(first, first + len(new))
        self.state.live += len(new)
        self.live.update(rids)
        self.born.update(rids)

    def _write_full_blocks(self, first: int, given: npt.NDArray[Any]) -> None:
        """Write the blocks whose last slot has just been handed out."""
        count = self.follower.block_rows
        dtype = self.follower.schema.dtype
        for block in range(first // count, self.state.slots // count):
            start = block * count
            earlier = [self._settle(slot) for slot in range(start, max(start, first))]
            rest = given[max(start - first, 0) : start + count - first]
            whole = np.concatenate([np.array(earlier), rest]) if earlier else rest
            vectors.put_block(self.txn, self.cid, block, start, whole, dtype)

    def _settle(self, slot: int) -> npt.NDArray[Any]:
        """The inline vector of an earlier row, taken out of its record."""
        row = rows.get(self.txn, self.cid, slot)
        if row.inline is None:
            raise rows.damaged("V3", keys.row(self.cid, slot), "its inline vector is missing")
        if row.dead:
            rows.delete(self.txn, self.cid, slot)
        else:
            rows.put(self.txn, self.cid, slot, row._replace(inline=None))
        return np.frombuffer(row.inline, vectors.DTYPES[self.follower.schema.dtype])

    def _touch(self, rid: int, before: Any, after: Any) -> None:
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
            self._view = View(
                self.commit, self.state, self._graph or self.base.graph, self.live, mask,
                tail, self.names, self.base.effort,
            )  # fmt: skip
        return self._view

    def matches(self, where: Filter) -> BitMap:
        """The rows that satisfy a filter, as the transaction sees them."""
        return self.follower.evaluate(self.txn, self.view(), where)

    # --- the commit ------------------------------------------------------------------------

    def finish(self) -> None:
        """Write log, images, upkeep and state into the transaction."""
        changes = self._changes()
        part = self._rows_part(changes)
        measured = self._measure()
        folded = len(changes) > DIRECT_ROWS
        if folded:
            self._fold_everything(changes)
        else:
            if changes:
                log.put(self.txn, self.cid, self.commit, log.ROWS, part.pack())
                self.state.rows_last = self.commit
            self._fold_slice(len(changes))
        links = self._graph.changes() if self._graph is not None else None
        if links is not None:
            self._store_links(links)
        if measured is not None:
            write_effort(self.txn, self.cid, measured)
        if part.names:
            write_names(self.txn, self.cid, self.names)
        log.cut(self.txn, self.cid, self.state)
        state.write(self.txn, self.cid, self.state)
        self._published = (links, part, measured or self.base.effort, folded)

    def publish(self) -> None:
        """After the commit: this process's graph and view follow."""
        assert self._published is not None
        links, part, effort_now, folded = self._published
        self.follower.advance(self.commit, self.state, links, part, effort_now, folded=folded)

    def rollback(self) -> None:
        """Drop the overlay."""
        if self._graph is not None:
            self._graph.rollback()
            self._graph = None

    def _changes(self) -> list[RowChange]:
        return [
            RowChange(rid, before, after)
            for rid, (before, after) in self.touched.items()
            if before is not None or after is not None
        ]

    def _rows_part(self, changes: list[RowChange]) -> RowsPart:
        known = len(self.base.names)
        return RowsPart(
            sorted(self.born),
            sorted(self.died),
            list(self.names)[known:],
            encode_changes(changes),
        )

    # --- upkeep: attributes ------------------------------------------------------------------

    def _fold_everything(self, changes: list[RowChange]) -> None:
        """Fold what came before and this transaction's own changes."""
        tail = self.base.tail.copy()
        tail.advance(self.commit, changes)
        self.state.fields_to += [self.commit] * (len(self.names) - len(self.state.fields_to))
        for fieldid in range(len(self.names)):
            self.follower.attributes.fold_field(self.txn, fieldid, tail)
        self._fold_live(self.born, self.died)
        self.state.fields_to = [self.commit] * len(self.names)
        self.state.live_to = self.commit
        self.state.fold_credit = 0
        self.state.rows_cut = log.drop(
            self.txn, self.cid, log.ROWS, self.state.rows_cut, self.commit
        )

    def _fold_slice(self, touched: int) -> None:
        """Fold some fields up to the previous commit, in turn, in proportion to what was logged."""
        before = self.commit_before
        now = self.state
        known = len(self.base.names)
        now.fields_to += [before] * (len(self.names) - len(now.fields_to))
        images = known + 1  # the fields, then the bitmap of live rows
        now.fold_credit += touched * images
        while now.fold_credit >= FOLD_EVERY:
            now.fold_credit -= FOLD_EVERY
            self._fold_image(now.fold_next % images, known, before)
            now.fold_next = (now.fold_next + 1) % images

    def _fold_image(self, image: int, known: int, upto: int) -> None:
        if image < known:
            if self.state.fields_to[image] < upto:
                self.follower.attributes.fold_field(self.txn, image, self.base.tail)
                self.state.fields_to[image] = upto
        elif self.state.live_to < upto:
            self._fold_live((), ())
            self.state.live_to = upto

    def _fold_live(self, born: Any, died: Any) -> None:
        live = self.base.live.copy()
        live.update(BitMap(born))
        live.difference_update(BitMap(died))
        attributes.store_live(self.txn, self.cid, live)

    @property
    def commit_before(self) -> int:
        """The commit that this transaction started from."""
        return self.base.commit

    # --- upkeep: links ------------------------------------------------------------------------

    def _store_links(self, record: bytes) -> None:
        now = self.state
        now.scale = list(self._graph.scale or ()) or None
        image_bytes = sum(
            self._graph.n_chunks(layer) for layer in LAYERS
        ) * self._chunk_bytes()
        if len(record) >= DIRECT_LINKS and 2 * len(record) > image_bytes:
            self._write_image(self._graph, self.commit)
            now.links_cut = log.drop(self.txn, self.cid, log.LINKS, now.links_cut, self.commit)
            return
        log.put(self.txn, self.cid, self.commit, log.LINKS, record)
        now.links_last = self.commit
        self._checkpoint_slice(len(record))

    def _chunk_bytes(self) -> int:
        return int(self._graph.chunk_rows) * 8 * self.follower.schema.M

    def _write_image(self, source: Any, commit: int) -> None:
        """Write every chunk: the image then holds this commit, and no older log is needed."""
        for layer in LAYERS:
            for chunk in range(source.n_chunks(layer)):
                self._put_chunk(source, layer, chunk, commit)
        now = self.state
        now.links_to = now.round_from = commit
        now.round_chunk = now.round_credit = 0

    def _checkpoint_slice(self, logged: int) -> None:
        """Rewrite some chunks in turn, as of the previous commit, paced by the log's volume."""
        now, graph = self.state, self.base.graph
        now.round_credit += ROUND_PACE * logged
        while now.round_credit >= self._chunk_bytes() and graph.n_slots:
            now.round_credit -= self._chunk_bytes()
            self._next_chunk()

    def _next_chunk(self) -> None:
        """Write the chunk whose turn it is; a finished round moves the watermark."""
        now, graph = self.state, self.base.graph
        if now.round_chunk == 0:
            now.round_from = self.base.commit
        total = [graph.n_chunks(layer) for layer in LAYERS]
        layer = 0 if now.round_chunk < total[0] else 1
        chunk = now.round_chunk - (total[0] if layer else 0)
        self._put_chunk(graph, layer, chunk, self.base.commit)
        now.round_chunk += 1
        if now.round_chunk >= sum(total):
            now.links_to, now.round_chunk = now.round_from, 0

    def _put_chunk(self, source: Any, layer: int, chunk: int, commit: int) -> None:
        key = keys.links(self.cid, 0, layer, chunk)
        head = commit.to_bytes(8, "little") + bytes((layer,)) + bytes(CHUNK_HEADER - 9)
        self.txn.put(key, _core.seal(keys.LINKS, key, head + source.chunk(layer, chunk)))

    # --- effort --------------------------------------------------------------------------------

    def _measure(self) -> effort.Effort | None:
        """The effort after this commit's share of a measurement; None when it has none."""
        known, ranked = self.base.effort, self.state.ranked
        due = effort.samples_due(known, ranked)
        if not due:
            return None
        view = self.view()
        dtype = vectors.DTYPES[self.follower.schema.dtype]

        def vector(slot: int) -> Any:
            return np.frombuffer(view.graph.vector(slot), dtype).astype(np.float32)

        def metadata(rid: int) -> dict[str, Any]:
            return codec.unpack_metadata(rows.get(self.txn, self.cid, rid).metadata or b"\x80")

        pending = effort.Measured() if known is None else known.pending
        more = measure.take(
            measure.Sampled(
                view.graph, view.live, ranked, view.slots, view.mask, vector, metadata, self.matches,
                self.follower.declared.skips,
            ),
            due, pending, self.commit,
        )  # fmt: skip
        if known is None:
            return effort.Effort(ranked, more)
        return known.with_more(more, ranked)

    # --- folding on its own: optimize, and when idle -----------------------------------------

    def fold_for(self, seconds: float) -> None:
        """Fold what is unfolded for about so long, an image or a chunk at a time."""
        until = perf_counter() + seconds
        now, known = self.state, len(self.base.names)
        if not now.unfolded:
            return
        self._change()
        now.fields_to += [self.base.commit] * (known - len(now.fields_to))
        for image in range(known + 1):
            done = now.live_to if image == known else now.fields_to[image]
            if done < now.rows_last:
                self._fold_image(image, known, self.base.commit)
                if perf_counter() > until:
                    return
        while now.links_last > now.links_to and perf_counter() < until:
            self._next_chunk()

    def fold_now(self) -> None:
        """Fold every image up to the previous commit (`optimize`)."""
        self._change()
        known = len(self.base.names)
        for image in range(known + 1):
            self._fold_image(image, known, self.base.commit)
        if self.base.graph.n_slots:
            self._write_image(self.base.graph, self.base.commit)
