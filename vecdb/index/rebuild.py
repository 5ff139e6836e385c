"""How are damaged indexes built again from the rows?

`Rebuilding` is a `Writing` that changes no row. It takes away the records of what is damaged (images,
log, effort), makes them anew from the rows and their stored vectors, and leaves what is sound as it is,
in the transaction that it is given. Rows keep their numbers. A graph that was built again has another
number, so that every process that follows takes it for what it is: a new one, loaded from its image.

Invariants:
  R1  afterwards no record is left of what was damaged, and every mark says that its image is whole;
  R2  nobody mixes two graphs: the number of a new one is that of its commit, which no other has;
  R3  damage to rows, ids or vectors ends it, with nothing written.

Costs what inserting the rows again would (graphs) or a pass over the rows and their metadata.
Rejected: to mend what can be read but contradicts the rows without being asked. Answers before may have
been wrong, and after it `check` could not tell; `rebuild=True` says that somebody knows.
Rejected: mending the damaged record alone. What a lost log record said is in no other index, and the
links of a lost chunk are in no other chunk; a pass over the rows gives all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb.errors import Corrupt
from vecdb.fields import declared as declared_fields
from vecdb.index import attributes, loading, parts, seats, segments
from vecdb.index.changes import RowChange, state_of
from vecdb.index.columns import columns_of
from vecdb.index.follow import Follower, write_effort, write_names
from vecdb.index.sweeping import condemned_in
from vecdb.index.tail import Tail
from vecdb.index.texts import TextIndex
from vecdb.index.view import Graphed, View, live_mask
from vecdb.index.writing import ADOPTED_SAMPLES, Writing
from vecdb.storage import codec, keys, log, resting, rows, state, vectors
from vecdb.storage.rows import PLAIN
from vecdb.storage.schema import Schema
from vecdb.storage.state import State

if TYPE_CHECKING:
    from vecdb.storage.writing import WriteTxn

AT_ONCE: Final = 1 << 14  # vectors that are read and linked at a time


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to build again."""

    state: bool = False
    metadata: bool = False  # live rows, names, leaves, postings and their log
    texts: bool = False  # segments of full text
    graphs: frozenset[int] = frozenset()
    efforts: frozenset[int] = frozenset()
    slots: bool = False  # which ones rest or are condemned

    def __bool__(self) -> bool:
        whole = self.state or self.metadata or self.texts or self.slots
        return whole or bool(self.graphs or self.efforts)

    @property
    def steps(self) -> int:
        """What `progress` counts: the metadata, full text, and each graph; 0 for nothing at all."""
        return max(self.metadata + self.texts + len(self.graphs), bool(self))


def damaged(txn: Any, follower: Follower, commit: int, error: Corrupt | None) -> Wanted:
    """What of a collection must be built again; `error`: what loading ended with.

    Without an error this process has the graphs, as they should be, and only the rest is looked at.
    """
    cid = follower.cid
    view, broken = parts.load(txn, cid, commit, follower.threads, graphs=error is not None)
    if broken.state is not None:
        return everything(view.vectors, texts=columns_of(view.schema).any)
    metadata = broken.live is not None or broken.metadata is not None or not _readable(txn, cid, view)
    graphs = frozenset(broken.graphs)
    mine = follower.newest()
    if error is None and mine is not None:
        known = mine.vectors.items()
        graphs |= {number for number, each in known if _strays(txn, cid, number, each.graph)}
    slots = not _slots_readable(txn, cid, view)
    texts = columns_of(view.schema).any and (metadata or not _texts_readable(txn, cid, view))
    return Wanted(False, metadata, texts, graphs, graphs | frozenset(broken.efforts), slots)


def _texts_readable(txn: Any, cid: int, view: View) -> bool:
    """Whether every segment can be read to its end, and was made by the analysis at hand."""
    index, now = TextIndex(cid), view.state.text
    columns = columns_of(view.schema)
    if columns.missing:
        return True  # nobody here could build it
    if now is None or columns.outdated:
        return False
    try:
        opened = [index.segment(txn, each) for each in now.segments]
        for said, each in zip(now.segments, opened, strict=True):
            deque(each.postings(segments.loader(txn, cid, [said.number])), 0)
        if now.merge is not None:
            load = segments.loader(txn, cid, [now.merge.number])
            deque(load(0, list(range(now.merge.chunks))), 0)
    except (Corrupt, ValueError):
        return False
    return True


def _slots_readable(txn: Any, cid: int, view: View) -> bool:
    """Whether the records of resting and of condemned slots can be read."""
    key = keys.condemned(cid)
    record = txn.get(key)
    if (record is None) != (not view.state.condemned):
        return False
    try:
        deque(resting.read(txn, cid), 0)
        if record is not None:
            condemned_in(key, record)
    except Corrupt:
        return False
    return True


def _readable(txn: Any, cid: int, view: View) -> bool:
    """Whether every posting can be read; what contradicts the rows is for `check` to tell."""
    reader = attributes.AttributeImage(cid).reader(txn)
    try:
        for fieldid in range(len(view.names)):
            reader.range(fieldid, b"", attributes.END)
    except Corrupt:
        return False
    return True


def _strays(txn: Any, cid: int, number: int, graph: Any) -> bool:
    """Whether the image has chunks that the graph has not: a checkpoint writes over none of them."""
    prefix = keys.prefix(keys.LINKS, cid) + bytes((number,))
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    while found:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return False
        layer = key[6] if keys.well_formed(key) else -1
        if layer not in loading.LAYERS or int.from_bytes(key[7:], "big") >= graph.n_chunks(layer):
            return True
        found = cursor.next()
    return False


def everything(numbers: Iterable[int], *, texts: bool) -> Wanted:
    """All that follows from the rows; `texts`: full text too."""
    every = frozenset(numbers)
    return Wanted(True, True, texts, every, every, True)


class Rebuilding(Writing):
    """A transaction's share in one collection, when it builds indexes again."""

    def __init__(self, known: Follower, wt: WriteTxn, wanted: Wanted) -> None:
        self._known = known  # the process's own, which forgets what it has
        self._wanted = wanted
        base = _base(wt.txn, known, wt.last, wanted)
        aside = Follower(known.cid, lambda: -1, known.threads)
        aside.lock = known.lock  # held from the commit until it is published
        aside._show(base)
        super().__init__(aside, wt)
        self._samples = ADOPTED_SAMPLES

    def run(self, report: Callable[[int, None], object], done: int) -> None:
        """Build what is wanted, telling after each step how many are done, with those before."""
        self._change()
        if self._wanted.metadata:
            self._build_metadata()
            done += 1
            report(done, None)
        if self._wanted.texts:
            self._build_texts()
            done += 1
            report(done, None)
        for number in sorted(self._wanted.graphs):
            self._build_graph(number)
            done += 1
            report(done, None)
        for number in sorted(self._wanted.efforts):
            self._build_effort(number)

    def finish(self) -> None:
        """Write the state: everything else is written already."""
        if self._wanted.graphs or self._wanted.slots:
            self._rest_anew()
        state.write(self.txn, self.cid, self.state)

    def _rest_anew(self) -> None:
        """Dead slots are in no graph that was built again; no round is under way any more."""
        now, gone = self.state, BitMap(range(self.state.slots)) - self.live
        _delete_range(self.txn, keys.condemned(self.cid)[:6])
        _delete_range(self.txn, keys.resting(self.cid, 0)[:6])
        self._vacant = self._absent(gone)
        now.condemned, now.resting, now.vacant = 0, len(gone), len(self._vacant)
        if gone:
            slots = np.array(gone, np.uint32)
            resting.put(self.txn, self.cid, self.commit, self.wt.txn_id, slots)

    def publish(self) -> None:
        """After the commit: this process loads what is new, as every other does."""
        self.rollback()
        self._known.forget()

    # --- metadata ------------------------------------------------------------------------

    def _build_metadata(self) -> None:
        for kind in (keys.ATTRIBUTES, keys.POSTINGS, keys.LIVE, keys.FIELDS):
            _delete_range(self.txn, keys.prefix(kind, self.cid))
        self._delete_log(log.ROWS)
        tail = Tail(self.commit)
        tail.advance(self.commit, list(self._indexed()))
        image = attributes.AttributeImage(self.cid)
        for fieldid in range(len(self.names)):
            image.fold_field(self.txn, fieldid, tail)
        attributes.store_live(self.txn, self.cid, self.live)
        if self.names:
            write_names(self.txn, self.cid, self.names)
        now = self.state
        now.fields_to = [self.commit] * len(self.names)
        now.live_to = now.rows_cut = self.commit
        now.rows_last = min(now.rows_last, self.commit)
        now.fold_anew()

    def _indexed(self) -> Iterator[RowChange]:
        """The indexed state of every live row."""
        metadata = declared_fields(self.schema.fields)
        for rid, row in parts.scan(self.txn, self.cid):
            if row.dead:
                continue
            said = codec.unpack_metadata(row.metadata) if row.metadata else {}
            indexed = self._columns.mark(row.text, said, self.names)
            indexed += state_of(said, self.names, metadata)
            indexed += seats.lacking(rid, row.fields, self._stated, self.names)
            indexed += self._marks(row.changed)
            if indexed:
                yield RowChange(rid, None, indexed)

    # --- full text -------------------------------------------------------------------------

    def _build_texts(self) -> None:
        for kind in (keys.SEGMENTS, keys.TERMS):
            _delete_range(self.txn, keys.prefix(kind, self.cid))
        self._columns = columns_of(self.schema)
        self.state.text = now = state.TextState()
        found, sparse = BitMap(), set(self._columns.sparse)
        for rid, row in parts.scan(self.txn, self.cid):
            if not row.dead:
                said = codec.unpack_metadata(row.metadata) if row.metadata else {}
                if self._columns.has_any(row.text, said) or not sparse.isdisjoint(row.fields):
                    found.add(rid)
        self._fold(now, found, BitMap(), BitMap(), self.commit)

    # --- graphs --------------------------------------------------------------------------

    def _build_graph(self, number: int) -> None:
        mine, declared = self.state.vectors[number], self._fields[number].declared
        graph = loading.empty(self.schema, declared)
        self._fields[number] = Graphed(declared, graph, None)
        writer = self._writers[number] = graph.begin()
        for slots, array in self._vectors(number):
            first = int(slots[0])
            if int(slots[-1]) - first + 1 == len(slots):
                writer.insert(first, array, self.follower.threads)
            else:
                writer.insert_at(slots, array, self.follower.threads)
        _delete_range(self.txn, keys.prefix(keys.LINKS, self.cid) + bytes((number,)))
        self._delete_log(keys.log_links(number))
        self._write_image(number, writer, self.commit)
        mine.slots = writer.n_slots
        mine.scale = list(writer.scale or ()) or None
        mine.links_cut = self.commit
        mine.links_last = min(mine.links_last, self.commit)
        mine.graph = self.commit  # R2

    def _vectors(self, number: int) -> Iterator[tuple[Any, Any]]:
        """The stored vectors of live rows in a field, some slots at a time."""
        declared = self._fields[number].declared
        layout, mine = self._layouts[number], self.state.vectors[number]
        slots = np.array(
            [
                rid
                for rid, row in _seated(self.txn, self.cid)
                if seats.has(declared, mine, rid, row.fields)
            ],
            np.uint32,
        )
        for first in range(0, len(slots), AT_ONCE):
            some = np.ascontiguousarray(slots[first : first + AT_ONCE])
            yield some, vectors.read(self.txn, self.cid, layout, some)

    def _build_effort(self, number: int) -> None:
        self.txn.delete(keys.effort(self.cid, number))
        self._fields[number] = self._fields[number]._replace(effort=None)
        self._view = None
        measured = self._measure(number)
        if measured is not None:
            write_effort(self.txn, self.cid, number, measured)

    def _delete_log(self, part: int) -> None:
        """Take one part of the log away, and what is no key of the log."""
        cursor, end = self.txn.cursor(), keys.condemned(self.cid)
        found = cursor.set_range(keys.prefix(keys.LOG, self.cid))
        while found:
            key = bytes(cursor.key())
            if key >= end:
                return
            mine = not keys.well_formed(key) or keys.log_position(key)[1] == part
            found = cursor.delete() if mine else cursor.next()


def _base(txn: Any, known: Follower, last: int, wanted: Wanted) -> View:
    """The view that a rebuild starts from: rows as they are, and the indexes that stay."""
    mine = known.newest()
    whole = mine is not None and mine.commit == last and not wanted.graphs
    view, broken = parts.load(txn, known.cid, last, known.threads, graphs=not whole)
    for error in _untrusted(view):
        raise error
    now, live, tail, names = view.state.copy(), view.live, view.tail, view.names
    if wanted.metadata or wanted.state:
        live = BitMap(rid for rid, row in parts.scan(txn, known.cid) if not row.dead)
        _count(txn, known.cid, view.schema, now)
        if wanted.state:
            _find_loose(txn, known.cid, view, now)
    if wanted.metadata:
        tail = Tail(last)
        names = {} if broken.metadata is not None else dict(names)
    fields = view.vectors if not whole or mine is None else mine.vectors
    return View(last, view.schema, now, live, live_mask(live, now.slots), tail, names, fields)


def _untrusted(view: View) -> Iterator[Corrupt]:
    """Damage that is no index's (R3)."""
    for each in view.vectors.values():
        if isinstance(each.graph, parts.Damaged) and not rows.is_of_index(each.graph._error):
            yield each.graph._error


def _count(txn: Any, cid: int, schema_: Schema, now: State) -> None:
    """Write what the rows say into the state's counts; no number that was handed out is forgotten."""
    now.live = now.seated = 0
    before = {number: each.slots for number, each in now.vectors.items()}
    for each in now.vectors.values():
        each.ranked = 0
    counting = parts.Counting(schema_, now)
    for rid, row in parts.scan(txn, cid):
        if row.dead:
            continue
        now.live += 1
        now.seated += rid < PLAIN
        counting.row(rid, row)
    for number, each in now.vectors.items():
        each.slots = max(each.slots, before[number])


def _find_loose(txn: Any, cid: int, view: View, now: State) -> None:
    """The slots whose vectors travel in records although their blocks are written: the rows tell."""
    layouts = [view.schema.layout(each.declared) for each in view.vectors.values()]
    loose = [
        rid
        for rid, row in parts.scan(txn, cid)
        if rid < PLAIN
        for layout in layouts
        if layout.number in row.inline and rid < layout.inline_from(now.slots)
    ]
    if loose:
        size = max(layout.block_rows for layout in layouts)
        now.loose_from, now.loose_to = min(loose) // size * size, (max(loose) // size + 1) * size


def _seated(txn: Any, cid: int) -> Iterator[tuple[int, rows.Row]]:
    """Live rows with a slot."""
    for rid, row in parts.scan(txn, cid):
        if rid >= PLAIN:
            return
        if not row.dead:
            yield rid, row


def _delete_range(txn: Any, prefix: bytes) -> None:
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    while found and bytes(cursor.key()).startswith(prefix):
        found = cursor.delete()
