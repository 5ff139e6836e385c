"""Which rows changed since the images were folded, and how do they stand now?

The images on disk lag behind: the tail holds what the log says after them. A filter is answered
from the images for rows that the tail has not touched, and from the tail for those it has.

Invariants:
  T1  `get` and `range` speak of touched rows only, as of `commit`;
  T2  replay is last-event-wins: `field_changes` gives rows to take out and to put in, disjoint,
      so that folding twice, or onto an image that is already ahead, ends in the same image;
  T3  nothing that a copy can reach ever changes: `advance` and `trim` replace, so that `copy`
      is cheap and a copy is a snapshot;
  T4  a rid may die and be handed out again: order of commits decides.

Rejected: a map from rid to state. Filters would loop over rows, and a fold over their pairs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pyroaring import BitMap

from vecdb.index.changes import Batch, FieldBatch, RowChange, State, batch_of

_NONE: Final = BitMap()
_MERGE: Final = 64


class Tail:
    """The unfolded changes of one collection, up to one commit."""

    __slots__ = ("_batches", "_fields", "alive", "commit", "touched")

    def __init__(self, commit: int = 0) -> None:
        self.commit = commit
        self.touched = _NONE  # rows that changed
        self.alive = _NONE  # those of them that exist
        self._batches: tuple[tuple[int, Batch], ...] = ()
        self._fields: dict[int, _Column] = {}

    def __len__(self) -> int:
        return len(self.touched)

    def advance(self, commit: int, changes: Batch | Iterable[RowChange] | None) -> None:
        """Take in what one commit did; None or nothing only moves `commit`."""
        batch = changes if isinstance(changes, Batch) else batch_of(changes or ())
        self.commit = commit
        if not batch.touched:
            return
        self._batches = (*self._batches, (commit, batch))
        self._apply(batch)

    def copy(self) -> Tail:
        """Return an independent tail, at the cost of a few references."""
        other = Tail(self.commit)
        other.touched, other.alive = self.touched, self.alive
        other._batches, other._fields = self._batches, self._fields
        return other

    def trim(self, commit: int) -> None:
        """Forget commits up to this one, which every image now contains."""
        kept = tuple(entry for entry in self._batches if entry[0] > commit)
        if len(kept) == len(self._batches):
            return
        self._batches, self._fields = kept, {}
        self.touched = self.alive = _NONE
        for _, batch in kept:
            self._apply(batch)

    def live(self, live: BitMap) -> BitMap:
        """Return the live rows at `commit`, given those of the image."""
        return (live - self.touched) | self.alive

    def states(self, rid: int) -> State | None:
        """Return a touched row's state; None when it is dead or untouched. Slow."""
        for _, batch in reversed(self._batches):
            if rid not in batch.touched:
                continue
            if rid not in batch.alive:
                return None
            return tuple(
                (fieldid, key)
                for fieldid, one in batch.fields.items()
                for section in (one.came, one.kept)
                for key, rows in section.items()
                if rid in rows
            )
        return None

    # --- what filters ask -----------------------------------------------------------------

    def get(self, fieldid: int, key: bytes) -> BitMap:
        """Return the touched rows whose field has this value key."""
        column = self._fields.get(fieldid)
        return _NONE if column is None else column.get(key)

    def range(self, fieldid: int, start: bytes, stop: bytes) -> list[tuple[bytes, BitMap]]:
        """Return the value keys in [start, stop) with their touched rows, in no order."""
        column = self._fields.get(fieldid)
        return [] if column is None else column.range(start, stop)

    def keys(self, fieldid: int, start: bytes, stop: bytes) -> list[bytes]:
        """Return the value keys in [start, stop) that touched rows may have, ascending."""
        column = self._fields.get(fieldid)
        return [] if column is None else column.keys(start, stop)

    def many(self, fieldid: int, wanted: Sequence[bytes]) -> BitMap:
        """Return the touched rows whose field has any of these value keys."""
        return BitMap.union(_NONE, *(self.get(fieldid, key) for key in wanted))

    def union(self, fieldid: int, start: bytes, stop: bytes) -> BitMap:
        """Return the touched rows whose field has a value key in [start, stop)."""
        return BitMap.union(_NONE, *(rows for _, rows in self.range(fieldid, start, stop)))

    def chosen(
        self, fieldid: int, start: bytes, stop: bytes, holds: Callable[[bytes], bool]
    ) -> BitMap:
        """Return the touched rows with a value key in [start, stop) that passes `holds`."""
        listed = self.range(fieldid, start, stop)
        return BitMap.union(_NONE, *(rows for key, rows in listed if rows and holds(key)))

    # --- what folding asks ----------------------------------------------------------------

    def field_changes(self, fieldid: int, after: int = 0) -> list[tuple[bytes, BitMap, BitMap]]:
        """Return (value key, rows to put in, rows to take out) of commits beyond `after`."""
        put: dict[bytes, BitMap] = {}
        out: dict[bytes, BitMap] = {}
        for commit, batch in self._batches:
            one = batch.fields.get(fieldid)
            if one is None or commit <= after:
                continue
            for key, rows in one.gone.items():
                put[key] = put.get(key, _NONE) - rows
                out[key] = out.get(key, _NONE) | rows
            for key, rows in one.came.items():
                put[key] = put[key] | rows if key in put else rows
                if key in out:
                    out[key] = out[key] - rows
        return [
            (k, put.get(k, _NONE), out.get(k, _NONE)) for k in sorted(put.keys() | out.keys())
        ]

    def _apply(self, batch: Batch) -> None:
        fields = dict(self._fields)
        for fieldid, one in batch.fields.items():
            column = fields.get(fieldid)
            fields[fieldid] = (_Column({}, {}) if column is None else column).after(one)
        self._fields = fields
        self.touched = self.touched | batch.touched
        self.alive = (self.alive - batch.touched) | batch.alive


class _Column:
    """One field: value key -> touched rows, in a large shared dict and a small one.

    The small one is copied at every change and poured into the large one once it is worth it,
    so that a commit costs its own size however long the tail is.
    """

    __slots__ = ("_base", "_order", "_over", "_sorted")

    def __init__(self, base: dict[bytes, BitMap], over: dict[bytes, BitMap]) -> None:
        self._base = base
        self._over = over
        self._sorted: list[bytes] | None = None  # keys of _base, when a range has asked
        self._order: list[bytes] | None = None  # keys of both, when a walk has asked

    def get(self, key: bytes) -> BitMap:
        found = self._over.get(key)
        return self._base.get(key, _NONE) if found is None else found

    def range(self, start: bytes, stop: bytes) -> list[tuple[bytes, BitMap]]:
        base, over = self._base, self._over
        keys = _between(self._base_keys(), start, stop)
        found = [(key, base[key]) for key in keys if key not in over]
        found += [(key, rows) for key, rows in over.items() if start <= key < stop]
        return found

    def keys(self, start: bytes, stop: bytes) -> list[bytes]:
        if self._order is None:
            new = sorted(key for key in self._over if key not in self._base)
            self._order = sorted(self._base_keys() + new)  # two ascending runs: linear
        return _between(self._order, start, stop)

    def _base_keys(self) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self._base)
        return self._sorted

    def after(self, one: FieldBatch) -> _Column:
        base, over = self._base, self._over.copy()
        for key, rows in one.gone.items():
            over[key] = (over[key] if key in over else base.get(key, _NONE)) - rows
        for section in (one.came, one.kept):
            for key, rows in section.items():
                known = over[key] if key in over else base.get(key)
                over[key] = rows if known is None else known | rows
        if len(over) > _MERGE + len(base) // 4:
            return _Column({key: rows for key, rows in {**base, **over}.items() if rows}, {})
        column = _Column(base, over)
        column._sorted = self._sorted
        return column


def _between(ascending: list[bytes], start: bytes, stop: bytes) -> list[bytes]:
    return ascending[bisect_left(ascending, start) : bisect_left(ascending, stop)]
