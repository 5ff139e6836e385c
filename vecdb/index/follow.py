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
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from pyroaring import BitMap

from vecdb.fields import declared as declared_fields
from vecdb.index import attributes, seats, wording
from vecdb.index.changes import Batch, decode_changes
from vecdb.index.columns import need_words
from vecdb.index.effort import ALWAYS, BANDS, WIDTHS, Effort, Measured
from vecdb.index.loading import Again, Loading
from vecdb.index.tail import Tail
from vecdb.index.texts import TextIndex
from vecdb.index.view import Graphed, Held, View, live_mask, next_mask
from vecdb.query.filter import Filter
from vecdb.storage import codec, keys, log, records, rows, schema, state
from vecdb.storage.log import RowsPart
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.state import State

CACHED_FILTERS = 64
MAX_READY = 64
READY_BYTES = 16 << 20
TRIM_ABOVE = 4096  # touched rows in memory


class Follower:
    """The graphs and the newest view of one collection in this process."""

    def __init__(self, cid: int, epoch: Callable[[], int], threads: int) -> None:
        self.cid = cid
        self.threads = threads
        self.attributes = attributes.AttributeImage(cid)
        self.texts = TextIndex(cid)
        self.lock = threading.RLock()  # held while following, and from a commit to its publishing
        self._epoch_now = epoch
        self._epoch = -1
        self._view: View | None = None
        self._unattached = False
        self._moved: dict[int, set[int]] = {}  # blocks by field that own commits wrote anew
        self.vacant: tuple[int, BitMap] | None = None  # as of a commit (sweeping.py)
        self.condemned: tuple[int, BitMap] | None = None  # of the round that a commit began
        self._filters: dict[tuple[int, Filter], BitMap] = {}
        self.kept: dict[int, Any] = {}  # what rankers keep between searches, by vector field
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
                self._moved, self.vacant, self.condemned = {}, None, None
                self._epoch = self._epoch_now()
                self.attributes = attributes.AttributeImage(self.cid)
                self.texts = TextIndex(self.cid)
            view = self._view
            if view is None:
                view = self._load(txn, commit)
                self._show(view)
            elif view.commit > commit:
                return self._past(txn, commit, view)
            if self._unattached:
                self._attach(txn, commit, view)
            if view.commit < commit:
                view = self._follow(txn, commit, view)
                self._show(view)
            return view

    def _attach(self, txn: Any, commit: int, view: View) -> None:
        """Look at the blocks that own commits have written, in the map."""
        then = view.state if commit == view.commit else state.read(txn, self.cid)
        for number, each in view.vectors.items():
            if number not in then.vectors:
                continue  # dropped by somebody since, and its blocks with it
            loading = self._loading(txn, view.schema, each.declared)
            loading.attach_blocks(each.graph, self._moved.get(number, ()), view.state)
            loading.attach_full(each.graph, view.state)
        self._moved = {}
        self._unattached = False

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

        def worded(field: str, wanted: str) -> BitMap:
            need_words(view.schema, field)
            return wording.matching(self.texts.at(txn, view), txn, field, wanted)

        return attributes.evaluate(
            where, self.attributes, view.tail, txn, view.live, view.names, row_metadata,
            declared_fields(view.schema.fields), worded,
        )  # fmt: skip

    def holders(self, txn: Any, view: View, declared: VectorField) -> Held | None:
        """The rows of a view that have a vector in a field; None when all with a slot do."""
        return seats.holders(view, declared, lambda where: self.evaluate(txn, view, where))

    def advance(self, after: View, links: dict[int, bytes], part: RowsPart, *, folded: bool) -> None:
        """Apply this process's own commit with the code that followers use.

        `after` carries the commit, its schema, state and vector fields; what is derived from the log is
        derived here. `folded`: the commit wrote its attributes into the image, so the tail starts anew.
        """
        with self.lock:
            view = self._view
            assert view is not None
            if folded:
                view = replace(view, tail=Tail(after.commit))
                part = replace(part, attributes=None)
                self._filters.clear()
            for number, record in links.items():
                after.vectors[number].graph.apply(record)
            view = replace(view, schema=after.schema, vectors=after.vectors)
            self._show(self._after(view, after.commit, after.state, part))
            for number, block in part.rewritten:
                self._moved.setdefault(number, set()).add(block)
            self._unattached = True

    def newest(self) -> View | None:
        """The newest view in memory, if any."""
        return self._view

    def forget(self) -> None:
        """Drop what is in memory: the next search loads it from the file."""
        with self.lock:
            self._show(None)
            self._filters.clear()
            self.texts.forget()

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
        if self.kept:
            numbers = () if view is None else view.schema.by_number
            for number in [n for n in self.kept if n not in numbers]:
                self.kept.pop(number, None)

    # --- following -----------------------------------------------------------------------

    def _follow(self, txn: Any, commit: int, view: View) -> View:
        now = state.read(txn, self.cid)
        links: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        parts = []
        for at, part, payload in log.read(txn, self.cid, view.commit, commit):
            if part == log.ROWS:
                parts.append((at, RowsPart.unpack(payload, self.cid, at)))
            else:
                links[part].append((at, payload))
        declared = schema.read(txn, self.cid)
        again = _again((part for _, part in parts), view.slots)
        fields = self._follow_graphs(txn, commit, view, now, declared, links, again, bool(parts))
        if now.rows_cut > view.commit:
            return self._load_rows(txn, now, commit, declared, fields)
        view = replace(view, schema=declared, vectors=fields)
        for at, rows_part in parts:
            view = self._after(view, at, now, rows_part)
        return self._after(view, commit, now, RowsPart())

    def _follow_graphs(
        self,
        txn: Any,
        commit: int,
        view: View,
        now: State,
        declared: Schema,
        links: dict[int, list[tuple[int, Any]]],
        again: Again,
        measured: bool,
    ) -> dict[int, Graphed]:
        """Each field's graph at the commit: followed, or loaded where that cannot be (F2)."""
        fields = {}
        for number, mine in now.vectors.items():
            loading = self._loading(txn, declared, _declared(declared, number, self.cid))
            known = view.vectors.get(number)
            before = view.state.vectors.get(number)
            if (
                known is None or before is None
                or mine.links_cut > view.commit or mine.graph != before.graph
                or (now.rows_cut > view.commit and now.reused_last > view.commit)
            ):  # fmt: skip
                graph = loading.load(now, commit)
            else:
                graph = known.graph
                loading.follow(
                    graph, links[keys.log_links(number)], view.slots, now, mine, again
                )
            effort = read_effort(txn, self.cid, number) if known is None or measured else known.effort
            fields[number] = Graphed(loading.declared, graph, effort)
        return fields

    def _after(self, view: View, commit: int, new: State, part: RowsPart) -> View:
        """The view one commit later."""
        live, mask, names = view.live, view.mask, view.names
        if part.born or part.died:
            live = live.copy()
            live.update(part.born)
            live.difference_update(BitMap(part.died))
        if mask is not None or new.seated != new.slots:
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
        return View(commit, view.schema, new, live, mask, tail, names, view.vectors)

    def _decoded(self, commit: int, encoded: Any) -> Batch:
        return decode_changes(encoded, keys.log(self.cid, commit, log.ROWS))

    # --- loading -------------------------------------------------------------------------

    def _load(self, txn: Any, commit: int) -> View:
        now, declared = state.read(txn, self.cid), schema.read(txn, self.cid)
        return self._load_rows(txn, now, commit, declared, self._load_graphs(txn, now, commit, declared))

    def _past(self, txn: Any, commit: int, newest: View) -> View:
        """A view of a commit that the tail has left behind, from the transaction's own log."""
        then, declared = state.read(txn, self.cid), schema.read(txn, self.cid)
        fields = self._load_graphs(txn, then, commit, declared, newest)
        return self._load_rows(txn, then, commit, declared, fields)

    def _load_graphs(
        self, txn: Any, now: State, commit: int, declared: Schema, newest: View | None = None
    ) -> dict[int, Graphed]:
        """Each field's graph: the newest view's where that is the same graph, or its own."""
        fields = {}
        for number, mine in now.vectors.items():
            field = _declared(declared, number, self.cid)
            known = None if newest is None else newest.vectors.get(number)
            if newest is not None and known and newest.ranked(number).graph == mine.graph:
                graph = known.graph
            else:
                graph = self._loading(txn, declared, field).load(now, commit)
            fields[number] = Graphed(field, graph, read_effort(txn, self.cid, number))
        return fields

    def _load_rows(
        self, txn: Any, now: State, commit: int, declared: Schema, fields: dict[int, Graphed]
    ) -> View:
        live = attributes.load_live(txn, self.cid)
        tail = Tail(now.rows_to)
        for at, _, payload in log.read(txn, self.cid, now.rows_to, commit, only=log.ROWS):
            change = RowsPart.unpack(payload, self.cid, at)
            live.update(change.born)
            live.difference_update(BitMap(change.died))
            if change.attributes is not None:
                tail.advance(at, self._decoded(at, change.attributes))
        return View(
            commit, declared, now, live, live_mask(live, now.slots), tail,
            read_names(txn, self.cid), fields,
        )  # fmt: skip

    def _loading(self, txn: Any, schema: Schema, declared: VectorField) -> Loading:
        return Loading(txn, self.cid, schema, declared, self.threads)


def _again(parts: Iterable[RowsPart], slots: int) -> Again:
    """What the log says was handed out or written again."""
    born: set[int] = set()
    blocks: dict[int, set[int]] = {}
    for part in parts:
        born.update(rid for rid in part.born if rid < slots)
        for number, block in part.rewritten:
            blocks.setdefault(number, set()).add(block)
    return Again(sorted(born), blocks)


def _declared(declared: Schema, number: int, cid: int) -> VectorField:
    found = declared.by_number.get(number)
    if found is None:
        raise rows.damaged("C1", keys.catalog(cid), f"vector field {number} is not declared")
    return found


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
    records.put(txn, key, codec.pack(list(names)))


def read_effort(txn: Any, cid: int, number: int) -> Effort | None:
    """What `recall=` rests on in a vector field, None while nothing was measured."""
    key = keys.effort(cid, number)
    record = txn.get(key)
    if record is None:
        return None
    packed = rows.unpack_record(keys.EFFORT, key, record, code="E1")
    try:
        effort = Effort.unpack(packed)
    except (ValueError, TypeError) as error:
        raise rows.damaged("E1", key, str(error)) from None
    counts = type(effort.inserted) is int and effort.rows >= 1
    if not (counts and _adds_up(effort.done) and _adds_up(effort.pending)):
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


def write_effort(txn: Any, cid: int, number: int, effort: Effort) -> None:
    """Store what was measured."""
    key = keys.effort(cid, number)
    records.put(txn, key, codec.pack(effort.pack()))
