"""The state of a collection: how far its rows, its log and its images have come.

One small record per collection, written by every commit that touches it, in the same leaf of the
tree as the newest log records. It is what a reader needs in order to follow or to open:

    slots, plain     the next slot and the next rid of a row without a vector
    live, seated     live rows, and live rows with a slot
    live_to, fields_to   the watermark of the live bitmap's image and of each metadata field's
    fold_next, fold_credit   whose turn it is to be folded, and what is due of it
    fold_from, fold_at   up to which commit at least it is being folded, and the value key that comes
                 next, empty when it is not begun
    fold_rows, fold_wrote, fold_last   rows touched in this round of folds, leaves folded in it and in
                 the round before
    rows_cut, rows_last  log records of rows up to here are taken away; the last commit with one
    vacant           slots that are neither live nor in a graph
    resting          slots that are named in records of what died or was vacated lately
    condemned        the commit that began the round of upkeep under way, 0 when there is none
    sweep_field, sweep_phase, sweep_at   how far that round has come
    sweep_after      LMDB's id of a commit that every reader must see before it goes on, or 0
    loose_from, loose_to   the slots whose vectors may travel in rows' records although their blocks
                     are written: free ones among them are handed out first
    reused_last      the last commit that handed out a slot again
    vectors          by number, of each vector field that has a graph:
        ranked       live rows with a vector in the field
        slots        slots of its graph: one more than the last with a vector
        links_to     every chunk of the graph's image contains every change up to this commit
        round_from, round_chunk, round_credit   the checkpoint round that is under way
        links_cut, links_last   as for rows
        scale        lo and step of the vectors' codes, None before the first vector
        graph        number of the graph; a rebuilt graph has another one
        inserted     vectors that were ever inserted
        held         of a field that stands behind another (schema.Hidden): the rows that may have a vector
                     in it, a serialized bitmap; rows outside have none. Else None: rows say so themselves
    text             of a collection with full text or sparse vectors, else None:
        to           the segments contain every change up to this commit
        rows         rows touched since, whatever changed in them
        pending, size   rows with something to index among them, and the bytes of their records' texts
        credit       bytes of postings that are due to be merged
        segments     a list for each, oldest first: number, parts of the head, chunks, bytes of postings,
                     rows, and how many rows it makes dead in older ones, about
        merge        of the merge under way, else empty: place of the first segment, how many, number of
                     the output, its chunks and bytes so far, and where the merge goes on

Invariants (checked by vecdb/check/):
  S1  a log record of commit c is present, for each of its parts, while c is above that part's
      watermark, unless that commit did not touch the collection;
  S2  `live`, `seated` and `ranked` are the counts of the rows.

Rejected: the state inside the meta record. Collections would rewrite each other's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Final

from pyroaring import BitMap

from vecdb.storage import codec, keys, records, rows

NOBODY: Final = bytes(BitMap().serialize())  # of `held`: no row


@dataclass(slots=True)
class FieldState:
    """How far one vector field's graph has come."""

    ranked: int = 0
    slots: int = 0
    links_to: int = 0
    round_from: int = 0
    round_chunk: int = 0
    round_credit: int = 0
    links_cut: int = 0
    links_last: int = 0
    graph: int = 1
    scale: list[float] | None = None
    inserted: int = 0
    held: bytes | None = None

    def copy(self) -> FieldState:
        """An independent copy; a scale is replaced, never changed."""
        return FieldState(*self.values())

    def values(self) -> list[Any]:
        """What the file keeps, in the order of the fields."""
        return list(_FIELD_VALUES(self))


@dataclass(slots=True)
class Segment:
    """What the state says of one segment of full text; never changed."""

    number: int  # commit << 16 | place in it: never used again
    parts: int
    chunks: int
    size: int
    rows: int
    dead: int


@dataclass(slots=True)
class Merging:
    """A merge under way; never changed."""

    first: int
    count: int
    number: int
    chunks: int
    size: int
    progress: bytes


@dataclass(slots=True)
class TextState:
    """How far a collection's full text has come (index/texts.py)."""

    to: int = 0
    rows: int = 0
    pending: int = 0
    size: int = 0
    credit: int = 0
    segments: list[Segment] = field(default_factory=list)
    merge: Merging | None = None

    def copy(self) -> TextState:
        """An independent copy."""
        return TextState(
            self.to, self.rows, self.pending, self.size, self.credit, list(self.segments), self.merge
        )

    def pack(self) -> list[Any]:
        """What the file keeps."""
        listed = [list(_SEGMENT_VALUES(each)) for each in self.segments]
        merge = [] if self.merge is None else list(_MERGING_VALUES(self.merge))
        return [self.to, self.rows, self.pending, self.size, self.credit, listed, merge]

    @staticmethod
    def unpack(found: list[Any]) -> TextState:
        """What `pack` made."""
        to, rows_, pending, size, credit, listed, merge = found
        return TextState(
            to, rows_, pending, size, credit, [Segment(*each) for each in listed],
            Merging(*merge) if merge else None,
        )  # fmt: skip

    def is_plausible(self) -> bool:
        """Whether every value is of its kind and within its bounds."""
        numbers = [self.to, self.rows, self.pending, self.size, self.credit]
        for each in self.segments:
            numbers += _SEGMENT_VALUES(each)
        if self.merge is not None:
            *more, progress = _MERGING_VALUES(self.merge)
            numbers += more
            if not isinstance(progress, bytes):
                return False
            if self.merge.first + self.merge.count > len(self.segments) or self.merge.count < 1:
                return False
        return all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)


@dataclass(slots=True)
class State:
    """Mutable while a transaction builds the next one; a reader's copy is never changed."""

    slots: int = 0
    plain: int = 0
    live: int = 0
    seated: int = 0
    live_to: int = 0
    fields_to: list[int] = field(default_factory=list)
    fold_next: int = 0
    fold_credit: int = 0
    fold_from: int = 0
    fold_at: bytes = b""
    fold_rows: int = 0
    fold_wrote: int = 0
    fold_last: int = 0
    rows_cut: int = 0
    rows_last: int = 0
    vacant: int = 0
    resting: int = 0
    condemned: int = 0
    sweep_field: int = 0
    sweep_phase: int = 0
    sweep_at: int = 0
    sweep_after: int = 0
    loose_from: int = 0
    loose_to: int = 0
    reused_last: int = 0
    vectors: dict[int, FieldState] = field(default_factory=dict)
    text: TextState | None = None

    def copy(self) -> State:
        """An independent copy."""
        made = State(*_VALUES(self))
        made.fields_to = list(self.fields_to)
        made.vectors = {number: each.copy() for number, each in self.vectors.items()}
        made.text = None if self.text is None else self.text.copy()
        return made

    def fold_anew(self) -> None:
        """Begin a round of folds with the first field."""
        self.fold_next = self.fold_credit = self.fold_rows = self.fold_wrote = 0
        self.fold_at = b""

    @property
    def unfolded(self) -> bool:
        """Whether any image lacks a logged change, or segments are being merged."""
        return (
            self.rows_last > self.rows_to
            or any(each.links_last > each.links_to for each in self.vectors.values())
            or (self.text is not None and self.text.merge is not None)
        )

    @property
    def dead(self) -> int:
        """Slots of rows that are gone, still in a graph."""
        return self.slots - self.seated - self.vacant

    @property
    def loose(self) -> range:
        """Slots whose vectors may travel in their rows' records although their blocks are written."""
        return range(self.loose_from, self.loose_to)

    @property
    def rows_to(self) -> int:
        """The lowest watermark of the images that read the log's rows part."""
        images = [self.live_to, *self.fields_to]
        return min(images if self.text is None else [*images, self.text.to])


def new(last: int, numbers: Iterable[int], *, text: bool = False) -> State:
    """The state of a collection that is made after commit `last`; `text`: with full text."""
    return State(
        live_to=last, rows_cut=last, vectors={n: new_field(last) for n in numbers},
        text=TextState(to=last) if text else None,
    )  # fmt: skip


def new_field(last: int) -> FieldState:
    """The state of a vector field that is added after commit `last`."""
    return FieldState(links_to=last, links_cut=last)


_SEGMENT_VALUES: Final = attrgetter(*(f.name for f in fields(Segment)))
_MERGING_VALUES: Final = attrgetter(*(f.name for f in fields(Merging)))
_NUMBERS: Final = [f.name for f in fields(State) if f.type == "int"]
_NAMES: Final = [f.name for f in fields(State)]
_VALUES: Final = attrgetter(*_NAMES)
_FIELD_NAMES: Final = [f.name for f in fields(FieldState)]
_FIELD_VALUES: Final = attrgetter(*_FIELD_NAMES)
_FIELD_NUMBERS: Final = [f.name for f in fields(FieldState) if f.type == "int"]


def read(txn: Any, cid: int) -> State:
    """The state of a collection as of a transaction."""
    key = keys.state(cid)
    record = txn.get(key)
    if record is None:
        raise rows.damaged("S1", key, "the collection's state is missing")
    found = rows.unpack_record(keys.LOG, key, record, code="S1")
    try:
        state = _unpack(found)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise rows.damaged("S1", key, str(error)) from None
    if not _plausible(state):
        raise rows.damaged("S1", key, "it holds what no state can hold")
    return state


def _unpack(found: dict[str, Any]) -> State:
    if "ranked" in found:  # format 1: one vector field, its state not nested
        found["seated"] = found["ranked"]
        slots = found["slots"]
        inner = {
            each.name: found.pop(each.name)
            for each in fields(FieldState)
            if each.name in found and each.name != "slots"
        }
        return State(**found, vectors={0: FieldState(slots=slots, **inner)})
    vectors = found.pop("vectors")
    found.pop("fold_part", None)  # of versions before the first release
    text = found.pop("text", None)  # up to format 3: absent
    return State(
        **found, vectors={n: FieldState(*each) for n, each in vectors.items()},
        text=None if text is None else TextState.unpack(text),
    )  # fmt: skip


def _plausible(state: State) -> bool:
    """Whether every value is of its kind and within its bounds."""
    if not isinstance(state.fields_to, list) or not isinstance(state.fold_at, bytes):
        return False
    numbers = [getattr(state, name) for name in _NUMBERS]
    for number, each in state.vectors.items():
        numbers += [number, *(getattr(each, name) for name in _FIELD_NUMBERS)]
        if not _is_scale(each.scale) or not _is_held(each.held):
            return False
    if state.text is not None and not state.text.is_plausible():
        return False
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*numbers, *state.fields_to)):
        return False
    if state.loose_to > rows.PLAIN or state.vacant > state.slots or state.sweep_phase > 3:
        return False
    return max(state.slots, state.plain) <= rows.PLAIN and all(
        each.slots <= state.slots for each in state.vectors.values()
    )


def _is_held(held: Any) -> bool:
    if held is None:
        return True
    try:
        return isinstance(BitMap.deserialize(held), BitMap)
    except (TypeError, ValueError):
        return False


def _is_scale(scale: Any) -> bool:
    if scale is None:
        return True
    if not isinstance(scale, list) or [type(part) for part in scale] != [float, float]:
        return False
    return bool(abs(scale[0]) < 3e38 and 0 <= scale[1] < 1e38)  # as the graphs take it


def write(txn: Any, cid: int, state: State) -> None:
    """Store the state of a collection."""
    key = keys.state(cid)
    packed = dict(zip(_NAMES, _VALUES(state), strict=True))
    packed["vectors"] = {n: each.values() for n, each in state.vectors.items()}
    packed["text"] = None if state.text is None else state.text.pack()
    records.put(txn, key, codec.pack(packed))
