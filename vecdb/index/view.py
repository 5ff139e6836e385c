"""What does one snapshot of a collection show?

A `View` is everything that a search at one commit needs besides the transaction itself: the live
rows, the mask of live slots, the tail of unfolded attribute changes, each vector field's graph. It is
derived from that commit's images and log alone, and but for the graphs it never changes.

Invariants:
  W1  a view of commit t names exactly the rows that a reader's own transaction at t names;
  W2  a graph may be ahead of the view, never behind: newer slots are outside `slots` or masked,
      and rows that died since are still routable and still found.

Rejected: birth and death commits per slot instead of a bitmap per commit. Sixteen bytes a row in
every process, and every visited node would compare two numbers instead of one bit.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.storage.rows import PLAIN
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.state import FieldState, State

if TYPE_CHECKING:
    from vecdb.index.effort import Effort
    from vecdb.index.tail import Tail

NO_SLOTS: Final = np.empty(0, np.uint32)


class Graphed(NamedTuple):
    """One vector field of a view."""

    declared: VectorField
    graph: Any  # _core.Graph, or the _core.Writer of a transaction
    effort: Effort | None

    @property
    def measured(self) -> Effort | None:
        """The effort, once a measurement of it is complete."""
        return self.effort if self.effort is not None and self.effort.complete else None


class Held(NamedTuple):
    """The rows that have a vector in a field which some rows lack."""

    rids: BitMap
    mask: bytes


@dataclass(frozen=True, slots=True)
class View:
    """One commit of one collection."""

    commit: int
    schema: Schema
    state: State
    live: BitMap
    mask: bytes | None  # live slots; None while every slot is live
    tail: Tail
    names: dict[str, int]  # metadata field -> field id
    vectors: dict[int, Graphed]
    held: dict[int, Held] = field(default_factory=dict)  # index/seats.py, when first asked for
    choices: dict[Any, Any] = field(default_factory=dict)  # execute.py's plans, by counts
    words: dict[str, Any] = field(default_factory=dict)  # index/texts.py, when first asked for

    @property
    def slots(self) -> int:
        """Slots handed out so far: what a search may see."""
        return self.state.slots

    def ranked(self, number: int) -> FieldState:
        """The counts of a vector field."""
        return self.state.vectors[number]


def array_of(rids: BitMap) -> Any:
    """The rids, ascending, as uint32."""
    return np.frombuffer(rids.to_array(), np.uint32)


def bitmap_of(rids: bytes) -> BitMap:
    """The rids that bytes hold as uint32; ten times as quick as from numpy's array."""
    listed = array("I")
    listed.frombytes(rids)
    return BitMap(listed)


def slots_of(rids: BitMap, slots: int) -> Any:
    """The rids that are slots of the graph, ascending, as uint32."""
    found = array_of(rids)
    return found[: np.searchsorted(found, min(slots, PLAIN))]


class Cut:
    """The rows of a filter in the forms that searches take, each made when first asked for."""

    __slots__ = ("_mask", "_plain", "_slots", "limit", "rids")

    def __init__(self, rids: BitMap, limit: int) -> None:
        self.rids = rids
        self.limit = limit  # slots handed out
        self._slots: Any = None
        self._plain: Any = None
        self._mask: bytes | None = None

    @property
    def slots(self) -> Any:
        """Those that are slots, ascending, as uint32."""
        if self._slots is None:
            found = array_of(self.rids)
            first = int(np.searchsorted(found, PLAIN)) if len(found) and found[-1] >= PLAIN else len(found)
            self._plain = found[first:]
            self._slots = found[:first]
            if first and self._slots[-1] >= self.limit:
                self._slots = self._slots[: np.searchsorted(self._slots, self.limit)]
        return self._slots

    @property
    def plain(self) -> Any:
        """Those that have no slot, ascending, as uint32."""
        assert self.slots is not None
        return self._plain

    @property
    def mask(self) -> bytes:
        """The bit set of those that are slots."""
        if self._mask is None:
            self._mask = _core.mask_of(self.slots, self.limit)
        return self._mask


def live_mask(live: BitMap, slots: int) -> bytes | None:
    """The bit set of the live slots; None while every slot is live."""
    mask = mask_of(live, slots)
    return None if _core.mask_count(mask) == slots else mask


def mask_of(rids: BitMap, slots: int) -> bytes:
    """The bit set of those rids that are slots."""
    return _core.mask_of(np.ascontiguousarray(slots_of(rids, slots)), slots)


def next_mask(mask: bytes | None, before: int, state: State, born: Any, died: Any) -> bytes | None:
    """The mask after a commit: `born` and `died` are rids; `before` is the old slot count.

    Slots that were handed out and died within one transaction are in neither list: the counts tell.
    """
    died_slots = as_slots(died)
    if state.seated == state.slots:
        return None
    if mask is None:
        mask = _core.mask_of(np.arange(before, dtype=np.uint32), before)
    return _core.mask_update(mask, state.slots, as_slots(born), died_slots)


def as_slots(rids: Any) -> Any:
    """The slots among a list of rids, as a uint32 array."""
    if not len(rids):
        return NO_SLOTS
    found = np.asarray(rids, np.uint32)
    return np.ascontiguousarray(found[found < PLAIN])
