"""What of a collection's indexes can be loaded where not all of it can?

The rows are the truth and every index follows from them. So a damaged index is no reason to refuse
what does not need it: `view` gives a view of the usual kind whose sound parts answer, and whose
damaged ones raise, when they are asked, the error that loading them ended with. Live rows, and the
state where that is lost, come from the rows then; a graph without its links still ranks every row.

Invariants:
  P1  what such a view answers is right: it never stands a guess in for a part;
  P2  it is asked for only after the usual way has failed with the damage of an index, and is kept for
      one commit, out of the way of the views that are followed;
  P3  damage to rows, ids or vectors is no index's: it is raised as it is.

Rejected: to answer searches by a scan where the graph is damaged. Nobody would learn of the damage, and
a search of a millisecond would take a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, cast
from weakref import WeakKeyDictionary

from pyroaring import BitMap

from vecdb.errors import Corrupt
from vecdb.index import attributes, follow, seats
from vecdb.index.changes import decode_changes
from vecdb.index.columns import columns_of
from vecdb.index.loading import Loading
from vecdb.index.tail import Tail
from vecdb.index.view import Graphed, View, live_mask
from vecdb.storage import keys, log, rows, schema, state, vectors
from vecdb.storage.log import RowsPart
from vecdb.storage.rows import PLAIN, Row, is_of_index
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.state import State

_DEAD: Final = 8  # the flag in a row's record
_FLAGS: Final = 8  # where it lies in the payload


class Damaged:
    """Stands for a part that could not be loaded: whatever is asked of it raises why."""

    def __init__(self, error: Corrupt) -> None:
        self._error = error

    def _refuse(self, *_: object) -> NoReturn:
        error = self._error
        raise Corrupt(str(error), code=error.code, where=error.where, detail=error.detail)

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()

    __iter__ = __len__ = __getitem__ = __contains__ = __and__ = __bool__ = _refuse


class Searchless(Damaged):
    """A graph that must not be walked: it ranks by the stored vectors, and copies nothing else."""

    def __init__(self, graph: Any, error: Corrupt) -> None:
        super().__init__(error)
        self._graph = graph
        self.vector = graph.vector
        self.has_vector = graph.has_vector
        self.distances = graph.distances

    def scan(self, query: Any, k: int, slots: Any = None, **how: Any) -> Any:
        """As the graph's own, always by the stored vectors: the codes' scale may be lost."""
        return self._graph.scan(query, k, slots, **{**how, "exact": True})


class _Unlinked(Loading):
    """Loads a graph's vectors and leaves its links."""

    def _load_chunks(self, graph: Any) -> None:
        pass

    def apply(self, graph: Any, commit: int, record: Any) -> None:
        pass


@dataclass(slots=True)
class Broken:
    """Which parts of a collection's indexes are damaged, and the first error of each."""

    state: Corrupt | None = None
    live: Corrupt | None = None
    metadata: Corrupt | None = None  # names, tail, leaves, postings
    graphs: dict[int, Corrupt] = field(default_factory=dict)
    efforts: dict[int, Corrupt] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.state or self.live or self.metadata or self.graphs or self.efforts)


def view(follower: follow.Follower, txn: Any, commit: int, error: Corrupt) -> View:
    """What can be read of a commit whose view could not be had for this error."""
    if not is_of_index(error):
        raise error
    found = known(follower, commit)
    if found is None:
        found, broken = load(txn, follower.cid, commit, follower.threads)
        for number, problem in broken.efforts.items():
            each = found.vectors[number]
            if not isinstance(each.graph, Damaged):  # how wide to walk it is not known
                found.vectors[number] = each._replace(graph=Searchless(each.graph, problem))
        _KNOWN[follower] = found
    return found


def known(follower: follow.Follower, commit: int) -> View | None:
    """The view that was made for a commit before."""
    found = _KNOWN.get(follower)
    return found if found is not None and found.commit == commit else None


_KNOWN: WeakKeyDictionary[follow.Follower, View] = WeakKeyDictionary()


def load(
    txn: Any, cid: int, commit: int, threads: int, *, graphs: bool = True
) -> tuple[View, Broken]:
    """A view of what can be loaded, and what could not; without `graphs` those are not looked at."""
    broken = Broken()
    declared = schema.read(txn, cid)
    try:
        now = state.read(txn, cid)
        if set(now.vectors) != {n for n, each in declared.by_number.items() if each.graphed}:
            raise rows.damaged("S1", keys.state(cid), "it tells of other vector fields")
        if (now.text is not None) != columns_of(declared).any:
            raise rows.damaged("S1", keys.state(cid), "it does not tell of the full text that is declared")
    except Corrupt as error:
        broken.state = error
        now = state_of_rows(txn, cid, declared, commit)
    live, tail, names = _of_rows(txn, cid, now, commit, broken)
    fields = {}
    for number in now.vectors:
        field_ = declared.by_number[number]
        loading = Loading(txn, cid, declared, field_, threads)
        graph = _graph(loading, now, commit, broken) if graphs else None
        effort = None
        try:
            effort = follow.read_effort(txn, cid, number)
        except Corrupt as error:
            broken.efforts[number] = error
        fields[number] = Graphed(field_, graph, effort)
    mask = live_mask(live, now.slots)
    words = {} if broken.state is None else {"words": Damaged(broken.state)}
    return View(commit, declared, now, live, mask, tail, names, fields, words=words), broken


def _of_rows(
    txn: Any, cid: int, now: State, commit: int, broken: Broken
) -> tuple[BitMap, Tail, dict[str, int]]:
    """Live rows, tail and names."""
    tail, names = Tail(now.rows_to), cast(Any, None)
    changes = []
    try:
        names = follow.read_names(txn, cid)
        for at, _, payload in log.read(txn, cid, now.rows_to, commit, only=log.ROWS):
            change = RowsPart.unpack(payload, cid, at)
            changes.append(change)
            if change.attributes is not None:
                tail.advance(at, _decoded(cid, at, change.attributes))
        if broken.state is not None:
            raise broken.state
    except Corrupt as error:
        broken.metadata = broken.live = error
        tail, names = cast(Any, Damaged(error)), cast(Any, Damaged(error))
    try:
        if broken.live is not None:
            raise broken.live
        live = attributes.load_live(txn, cid)
    except Corrupt as error:
        broken.live = error
        return live_rows(txn, cid), tail, names
    for change in changes:
        live.update(change.born)
        live.difference_update(BitMap(change.died))
    return live, tail, names


def _decoded(cid: int, commit: int, encoded: Any) -> Any:
    try:
        return decode_changes(encoded)
    except Corrupt as error:
        raise rows.damaged("A3", keys.log(cid, commit, log.ROWS), error.detail) from None


def _graph(loading: Loading, now: State, commit: int, broken: Broken) -> Any:
    number = loading.declared.number
    try:
        if broken.state is not None:
            raise broken.state
        return loading.load(now, commit)
    except Corrupt as error:
        if not is_of_index(error):
            return Damaged(error)
        broken.graphs[number] = error
    bare = _Unlinked(loading.txn, loading.cid, loading.schema, loading.declared, loading.threads)
    try:
        return Searchless(bare.load(now, 0), broken.graphs[number])  # 0: without the log
    except Corrupt as error:
        return Damaged(error)


# --- from the rows ---------------------------------------------------------------------------------


def scan(txn: Any, cid: int) -> Iterator[tuple[int, Row]]:
    """Every record of a row; `Corrupt` when one cannot be trusted."""
    for rid, key, record in _records(txn, cid):
        payload = rows.open_record(keys.ROWS, key, record)
        try:
            yield rid, rows.decode(payload)
        except ValueError as error:
            raise rows.damaged("R2", key, str(error)) from None


def live_rows(txn: Any, cid: int) -> BitMap:
    """The rows that are not dead; a damaged record counts as live, so that reading it says so."""
    live = BitMap()
    for rid, key, record in _records(txn, cid):
        try:
            payload = rows.open_record(keys.ROWS, key, record)
        except Corrupt:
            live.add(rid)
            continue
        if len(payload) <= _FLAGS or not payload[_FLAGS] & _DEAD:
            live.add(rid)
    return live


def state_of_rows(txn: Any, cid: int, declared: Schema, commit: int) -> State:
    """What a lost state must have said of rows and slots; the marks of logs and images are `commit`."""
    graphed = {number: each for number, each in declared.by_number.items() if each.graphed}
    now = state.new(commit, graphed, text=columns_of(declared).any)
    slots = max((_handed_out(txn, cid, declared, each) for each in graphed.values()), default=0)
    for hidden in declared.hidden.values():
        now.vectors[hidden.field.number].held = _held_in_blocks(txn, cid, declared, hidden.field, slots)
    counting = Counting(declared, now)
    last = plain = 0
    for rid, row in scan(txn, cid):
        if rid >= PLAIN:
            plain = rid - PLAIN + 1
        else:
            last = rid + 1
        if not row.dead:
            now.live += 1
            now.seated += rid < PLAIN
            counting.row(rid, row)
    now.plain = plain
    now.reused_last = commit  # for all that is known: who keeps something by slots looks again
    now.slots = max(last, slots)
    return now


class Counting:
    """Counts live rows' vectors into a state."""

    def __init__(self, declared: Schema, now: State) -> None:
        self._now = now
        self._by_member = declared.by_member

    def row(self, rid: int, row: Row) -> None:
        """Count one row's."""
        for each in (each for number in row.fields for each in self._by_member.get(number, ())):
            mine = self._now.vectors.get(each.number)
            if mine is not None and seats.has(each, mine, rid, row.fields):
                mine.ranked += 1
                mine.slots = rid + 1


def _held_in_blocks(txn: Any, cid: int, declared: Schema, each: VectorField, slots: int) -> bytes:
    """Which slots have a vector in a hidden field, by its blocks and the rows' records.

    A slot that was handed out again, and whose block still has the vector of its former row, is counted out:
    another field's vector travels in its row's record although that field's block is written too.
    """
    layout, found = declared.layout(each), BitMap()
    written = {
        number: declared.layout(other).inline_from(slots)
        for number, other in declared.by_number.items()
        if other.graphed
    }
    for rid, row in scan(txn, cid):
        if rid >= PLAIN:
            break
        if row.dead:
            continue
        if each.number in row.inline:
            found.add(rid)
        elif rid < written[each.number] and not any(rid < written.get(n, 0) for n in row.inline):
            block = vectors.get_block(txn, cid, layout, rid // layout.block_rows)
            if block is not None and block.has(rid % layout.block_rows):
                found.add(rid)
    return bytes(found.serialize())


def _handed_out(txn: Any, cid: int, declared: Schema, field_: VectorField) -> int:
    """The slots that a field's written blocks tell of."""
    prefix = keys.prefix(keys.VECTORS, cid) + bytes((field_.number,))
    cursor = txn.cursor()
    if not cursor.set_range(keys.after(prefix)):
        found = cursor.last()
    else:
        found = cursor.prev()
    key = bytes(cursor.key()) if found else b""
    if not key.startswith(prefix) or not keys.well_formed(key):
        return 0
    block = int.from_bytes(key[len(prefix) :], "big")
    return (block + 1) * declared.layout(field_).block_rows


def _records(txn: Any, cid: int) -> Iterator[tuple[int, bytes, Any]]:
    prefix = keys.prefix(keys.ROWS, cid)
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    while found:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            return
        if keys.well_formed(key):
            yield int.from_bytes(key[len(prefix) :], "big"), key, cursor.value()
        found = cursor.next()
