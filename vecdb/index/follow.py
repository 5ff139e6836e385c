"""How does a process come to the commit that a transaction sees, at the cost of what changed?

One `Follower` per collection and process holds the graph and the newest `View`. `at(txn, commit)`
answers with the view of that commit: the newest one almost always, by following the redo log when
other processes (or this one) have committed since, by loading images when there is nothing yet or
the log has been cut, and from the transaction's own images and log when a snapshot is older.

Invariants (isolation rules 1, 2 and 4 of the design):
  F1  the graph stands at the newest view's commit or beyond, never behind a view that is handed out;
  F2  vectors and codes of new slots are in place before the links that lead to them;
  F3  one thread follows, the others that need that commit wait; a current view takes no lock;
  F4  after a fork, or when the map may have moved, everything is loaded again.

Rejected: replaying inserts. A search per insert; copying links costs a tenth of a microsecond.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.errors import Corrupt
from vecdb.fields import declared
from vecdb.index import attributes
from vecdb.index.changes import Batch, decode_changes
from vecdb.index.effort import ALWAYS, BANDS, WIDTHS, Effort, Measured
from vecdb.index.tail import Tail
from vecdb.index.view import View, live_mask, next_mask
from vecdb.query.filter import Filter
from vecdb.storage import codec, keys, log, rows, state, vectors
from vecdb.storage.log import RowsPart
from vecdb.storage.schema import Schema
from vecdb.storage.state import State

CACHED_FILTERS = 64
MAX_READY = 64
READY_BYTES = 16 << 20
TRIM_ABOVE = 4096  # touched rows in memory: trimming costs as much as what is left


class Follower:
    """The graph and the newest view of one collection in this process."""

    def __init__(self, cid: int, schema: Schema, epoch: Callable[[], int], threads: int) -> None:
        self.cid = cid
        self.schema = schema
        self.declared = declared(schema.fields)
        self.threads = threads
        self.block_rows = vectors.block_rows(schema.dim, schema.dtype)
        self.attributes = attributes.AttributeImage(cid)
        self.lock = threading.RLock()  # held while following, and from a commit to its publishing
        self._epoch_now = epoch
        self._epoch = -1
        self._view: View | None = None
        self._unattached = False
        self._filters: dict[tuple[int, Filter], BitMap] = {}
        self._ready: dict[Any, Any] = {}
        self._ready_bytes = 0

    def at(self, txn: Any, commit: int) -> View:
        """The view of a transaction's commit."""
        view = self._view
        if (
            view is not None
            and view.commit == commit
            and not self._unattached
            and self._epoch == self._epoch_now()
        ):
            return view
        with self.lock:
            if self._epoch != self._epoch_now():
                self._show(None)
                self._epoch = self._epoch_now()
                self.attributes = attributes.AttributeImage(self.cid)
            view = self._view
            if view is None:
                view = self._load(txn, commit)
                self._show(view)
            elif view.commit < commit:
                view = self._follow(txn, commit, view)
                self._show(view)
            elif view.commit > commit:
                return self._past(txn, commit, view)
            if self._unattached:
                self._attach_full_blocks(txn, view)
            return view

    def matches(self, txn: Any, view: View, where: Filter) -> BitMap:
        """The live rows of a view that satisfy a filter."""
        key = (view.commit, where)
        found = self._filters.get(key)
        if found is None:
            found = self.evaluate(txn, view, where)
            if len(self._filters) >= CACHED_FILTERS:
                self._filters.clear()
            self._filters[key] = found
        return found

    def evaluate(self, txn: Any, view: View, where: Filter) -> BitMap:
        """The same without a cache: for views that are not shared (transactions, checks)."""

        def row_metadata(rid: int) -> dict[str, Any]:
            return codec.unpack_metadata(rows.get(txn, self.cid, rid).metadata or b"\x80")

        return attributes.evaluate(
            where, self.attributes, view.tail, txn, view.live, view.names, row_metadata,
            self.declared,
        )  # fmt: skip

    def advance(
        self,
        commit: int,
        new: State,
        links: bytes | None,
        part: RowsPart,
        effort: Effort | None,
        *,
        folded: bool,
    ) -> None:
        """Apply this process's own commit with the code that followers use.

        `folded`: the commit wrote its attributes into the image, so the tail starts anew.
        """
        with self.lock:
            view = self._view
            assert view is not None
            if folded:
                view = replace(view, tail=Tail(commit))
                part = replace(part, attributes=None)
                self._filters.clear()
            if links is not None:
                view.graph.apply(links)
            self._show(self._after(view, commit, new, part, effort, view.names))
            self._unattached = True

    def newest(self) -> View | None:
        """The newest view in memory, if any."""
        return self._view

    def forget(self) -> None:
        """Drop what is in memory: the next search loads it from the file."""
        with self.lock:
            self._show(None)
            self._filters.clear()

    # --- searches made ready --------------------------------------------------------------

    def ready(self, key: Any) -> Any:
        """The search that was kept under a key for the newest view, None where there is none."""
        return self._ready.get(key)

    def keep_ready(self, key: Any, view: View, search: Any, held_bytes: int) -> None:
        """Keep a search for as long as its view is the newest one, within READY_BYTES.

        One that is kept too late is no danger: it looks whether its commit is still the last.
        """
        if view is not self._view:
            return
        before = self._ready.get(key)
        self._ready_bytes += held_bytes - (0 if before is None else before.held_bytes)
        if len(self._ready) >= MAX_READY or self._ready_bytes > READY_BYTES:
            self._ready, self._ready_bytes = {}, held_bytes
        self._ready[key] = search

    def _show(self, view: View | None) -> None:
        """Make a view the newest one."""
        self._view = view
        self._ready, self._ready_bytes = {}, 0

    # --- following -----------------------------------------------------------------------

    def _follow(self, txn: Any, commit: int, view: View) -> View:
        new = state.read(txn, self.cid)
        links, parts = [], []
        for at, part, payload in log.read(txn, self.cid, view.commit, commit):
            if part == log.LINKS:
                links.append((at, payload))
            else:
                parts.append((at, RowsPart.unpack(payload, self.cid, at)))
        graph = view.graph
        if new.links_cut > view.commit or new.graph != view.state.graph:
            graph = self._load_graph(txn, new, commit)
        else:
            self._follow_links(txn, graph, links, view.state.slots, new.slots)
        if new.rows_cut > view.commit:
            return self._load_rows(txn, new, commit, graph)
        view = replace(view, graph=graph)
        effort = read_effort(txn, self.cid) if parts else view.effort
        for at, rows_part in parts:
            view = self._after(view, at, new, rows_part, effort, view.names)
        return self._after(view, commit, new, RowsPart(), effort, view.names)

    def _follow_links(
        self, txn: Any, graph: Any, links: list[tuple[int, Any]], before: int, slots: int
    ) -> None:
        """Vectors and codes first, then the links that lead to them (F2)."""
        self._load_vectors(txn, graph, before, slots)
        self._attach_private(txn, graph, slots)
        for commit, record in links:
            self._apply(graph, commit, record)

    def _after(
        self,
        view: View,
        commit: int,
        new: State,
        part: RowsPart,
        effort: Effort | None,
        names: dict[str, int],
    ) -> View:
        """The view one commit later."""
        live, mask = view.live, view.mask
        if part.born or part.died:
            live = live.copy()
            live.update(part.born)
            live.difference_update(BitMap(part.died))
        if mask is not None or new.ranked != new.slots:
            mask = next_mask(mask, view.state.slots, new, part.born, part.died)
        if part.names:
            names = {**names, **{n: len(names) + i for i, n in enumerate(part.names)}}
        tail = view.tail
        if part.attributes is not None:
            tail = tail.copy()
            tail.advance(commit, self._decoded(commit, part.attributes))
            self._filters.clear()
            if len(tail) > TRIM_ABOVE:
                tail.trim(new.rows_to)
        return View(commit, new, view.graph, live, mask, tail, names, effort)

    def _decoded(self, commit: int, encoded: Any) -> Batch:
        try:
            return decode_changes(encoded)
        except Corrupt as error:
            key = keys.log(self.cid, commit, log.ROWS)
            raise rows.damaged("A3", key, error.detail) from None

    # --- loading -------------------------------------------------------------------------

    def _load(self, txn: Any, commit: int) -> View:
        now = state.read(txn, self.cid)
        return self._load_rows(txn, now, commit, self._load_graph(txn, now, commit))

    def _past(self, txn: Any, commit: int, newest: View) -> View:
        """A view of a commit that the tail has left behind, from the transaction's own log."""
        then = state.read(txn, self.cid)
        graph = newest.graph
        if then.graph != newest.state.graph:
            graph = self._load_graph(txn, then, commit)
        return self._load_rows(txn, then, commit, graph)

    def _load_rows(self, txn: Any, now: State, commit: int, graph: Any) -> View:
        live = attributes.load_live(txn, self.cid)
        tail = Tail(now.rows_to)
        for at, part, payload in log.read(txn, self.cid, now.rows_to, commit):
            if part == log.ROWS:
                change = RowsPart.unpack(payload, self.cid, at)
                live.update(change.born)
                live.difference_update(BitMap(change.died))
                if change.attributes is not None:
                    tail.advance(at, self._decoded(at, change.attributes))
        return View(
            commit, now, graph, live, live_mask(live, now.slots), tail,
            read_names(txn, self.cid), read_effort(txn, self.cid),
        )  # fmt: skip

    def _load_graph(self, txn: Any, now: State, commit: int) -> Any:
        schema = self.schema
        graph = _core.Graph(
            schema.dim, schema.metric, schema.dtype, schema.M, schema.ef_construction,
            self.block_rows,
        )  # fmt: skip
        if not now.slots:
            return graph
        self._attach_blocks(txn, graph, now.slots // self.block_rows)
        self._load_inline(txn, graph, 0, now.slots)
        lo, step = now.scale or (0.0, 1.0)
        graph.set_state(now.slots, lo, step)
        graph.encode(0, now.slots, self.threads)
        self._load_chunks(txn, graph)
        for at, part, payload in log.read(txn, self.cid, now.links_to, commit):
            if part == log.LINKS:
                self._apply(graph, at, payload)
        return graph

    def _attach_blocks(self, txn: Any, graph: Any, expected: int) -> None:
        """Every block, none missing: so that slots beyond what is stored reserve no memory."""
        schema, done = self.schema, 0
        for block, record in vectors.scan_blocks(
            txn, self.cid, self.block_rows, schema.dim, schema.dtype
        ):
            if done == expected:
                key = keys.vector_block(self.cid, 0, block)
                raise rows.damaged("V1", key, "this block is not full yet")
            if block != done:
                break
            graph.attach_block(block, record, vectors.DATA_OFFSET)
            done += 1
        if done < expected:
            raise self._missing(done)

    def _load_chunks(self, txn: Any, graph: Any) -> None:
        prefix = keys.prefix(keys.LINKS, self.cid)
        cursor = txn.cursor()
        found = cursor.set_range(prefix)
        while found:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            payload = rows.open_record(keys.LINKS, key, cursor.value(), code="G1")
            layer, chunk = key[6], int.from_bytes(key[7:], "big")
            if layer not in (0, 1) or chunk >= graph.n_chunks(layer):
                raise rows.damaged("G1", key, "links of slots that were never handed out")
            try:
                graph.load_chunk(layer, chunk, payload[CHUNK_HEADER:])
            except ValueError as error:
                raise rows.damaged("G1", key, str(error)) from None
            found = cursor.next()

    def _apply(self, graph: Any, commit: int, record: Any) -> None:
        try:
            graph.apply(record)
        except ValueError as error:
            raise rows.damaged("G1", keys.log(self.cid, commit, log.LINKS), str(error)) from None

    # --- vectors -------------------------------------------------------------------------

    def _load_vectors(self, txn: Any, graph: Any, first: int, end: int) -> None:
        """Vectors and codes of new slots, from blocks where they are written, else from rows."""
        if first >= end:
            return
        for block in range(first // self.block_rows, end // self.block_rows):
            self._attach(txn, graph, block)
        self._load_inline(txn, graph, first, end)
        graph.encode(first, end - first, self.threads)

    def _load_inline(self, txn: Any, graph: Any, first: int, end: int) -> None:
        pending = [
            slot
            for slot in range(max(first, end // self.block_rows * self.block_rows), end)
            if not graph.has_vector(slot)
        ]
        if pending:
            slots = np.array(pending, np.uint32)
            schema = self.schema
            graph.put_vectors(slots, vectors.read(txn, self.cid, slots, schema.dim, schema.dtype))

    def _attach_full_blocks(self, txn: Any, view: View) -> None:
        self._attach_private(txn, view.graph, view.state.slots)
        self._unattached = False

    def _attach_private(self, txn: Any, graph: Any, slots: int) -> None:
        """Let the map serve blocks that have been written since their vectors came."""
        for block in graph.private_blocks():
            if (block + 1) * self.block_rows <= slots:
                self._attach(txn, graph, block)

    def _attach(self, txn: Any, graph: Any, block: int) -> None:
        schema = self.schema
        record = vectors.get_block(
            txn, self.cid, block, self.block_rows, schema.dim, schema.dtype
        )
        if record is None:
            raise self._missing(block)
        graph.attach_block(block, record, vectors.DATA_OFFSET)

    def _missing(self, block: int) -> Corrupt:
        key = keys.vector_block(self.cid, 0, block)
        return rows.damaged("V1", key, "the block of vectors is missing")


CHUNK_HEADER = 36  # commit number u64, layer u8, padding: links start on a 64-byte boundary


def read_names(txn: Any, cid: int) -> dict[str, int]:
    """Metadata field names and their ids."""
    key = keys.fields(cid)
    record = txn.get(key)
    if record is None:
        return {}
    names = rows.unpack_record(keys.FIELDS, key, record, code="A1")
    if not isinstance(names, list) or not all(type(name) is str for name in names):
        raise rows.damaged("A1", key, "it is no list of names")
    return {name: fieldid for fieldid, name in enumerate(names)}


def write_names(txn: Any, cid: int, names: dict[str, int]) -> None:
    """Store the metadata field names."""
    key = keys.fields(cid)
    txn.put(key, _core.seal(keys.FIELDS, key, codec.pack(list(names))))


def read_effort(txn: Any, cid: int) -> Effort | None:
    """What `recall=` rests on, None while nothing was measured."""
    key = keys.effort(cid, 0)
    record = txn.get(key)
    if record is None:
        return None
    packed = rows.unpack_record(keys.EFFORT, key, record, code="E1")
    try:
        effort = Effort.unpack(packed)
    except (ValueError, TypeError) as error:
        raise rows.damaged("E1", key, str(error)) from None
    if effort.rows < 1 or not (_adds_up(effort.done) and _adds_up(effort.pending)):
        raise rows.damaged("E1", key, "its sums are no measurement's")
    return effort


def _adds_up(measured: Measured) -> bool:
    """Whether these are numbers of the right shape."""
    sums = (measured.plain, *measured.bands)
    return len(sums) == 1 + len(BANDS) and all(
        len(each.found) == len(WIDTHS)
        and len(each.distances) == ALWAYS
        and all(
            type(n) is int and n >= 0
            for n in (each.samples, each.wanted, *each.found, *each.distances)
        )
        for each in sums
    )


def write_effort(txn: Any, cid: int, effort: Effort) -> None:
    """Store what was measured."""
    key = keys.effort(cid, 0)
    txn.put(key, _core.seal(keys.EFFORT, key, codec.pack(effort.pack())))
