"""Which rows changed since the images were folded, and how do they stand now?

The images on disk lag behind: the tail holds what the log says after them. A filter is answered
from the images for rows that the tail has not touched, and from the tail for those it has.

Invariants:
  T1  `get` and `range` speak of touched rows only, as of `commit`;
  T2  replay is last-event-wins: `field_changes` gives rows to take out and to put in, disjoint,
      so that folding twice, or onto an image that is already ahead, ends in the same image;
  T3  nothing that a copy can reach ever changes: `advance` and `trim` replace, so that `copy`
      is cheap and a copy is a snapshot;
  T4  a rid may die and be handed out again: order of commits decides;
  T5  a field's column is brought up to `commit` when it is asked for: what nobody filters by costs
      neither time nor memory beyond the log's bytes.

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
Change = tuple[bytes, BitMap, BitMap]


class Tail:
    """The unfolded changes of one collection, up to one commit."""

    __slots__ = ("_batches", "_columns", "alive", "commit", "touched")

    def __init__(self, commit: int = 0) -> None:
        self.commit = commit
        self.touched = _NONE  # rows that changed
        self.alive = _NONE  # those of them that exist
        self._batches: tuple[tuple[int, Batch], ...] = ()
        self._columns: dict[int, _Column] = {}  # those that were asked for, up to some commit

    def __len__(self) -> int:
        return len(self.touched)

    def advance(self, commit: int, changes: Batch | Iterable[RowChange] | None) -> None:
        """Take in what one commit did; None or nothing only moves `commit`."""
        batch = changes if isinstance(changes, Batch) else batch_of(changes or ())
        self.commit = commit
        if not batch.touched:
            return
        self._batches = (*self._batches, (commit, batch))
        self.touched = self.touched | batch.touched
        self.alive = (self.alive - batch.touched) | batch.alive

    def copy(self) -> Tail:
        """Return an independent tail, at the cost of a few references."""
        other = Tail(self.commit)
        other.touched, other.alive = self.touched, self.alive
        other._batches, other._columns = self._batches, self._columns.copy()
        return other

    def trim(self, commit: int) -> None:
        """Forget commits up to this one, which every image now contains, once they are the half.

        What is kept is gone through again, so that each commit pays for itself once.
        """
        kept = [entry for entry in self._batches if entry[0] > commit]
        if 2 * sum(len(batch.touched) for _, batch in kept) > len(self.touched):
            return
        rows: dict[int, bool] = {}
        for _, batch in kept:
            rows.update(batch.rows)
        self._batches, self._columns = tuple(kept), {}
        self.touched = BitMap(rows.keys())
        self.alive = BitMap([rid for rid, alive in rows.items() if alive])

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
                for fieldid in batch.fields()
                if (one := batch.field(fieldid)) is not None
                for section in (one.came, one.kept)
                for key, rows in section.items()
                if rid in rows
            )
        return None

    # --- what filters ask -----------------------------------------------------------------

    def get(self, fieldid: int, key: bytes) -> BitMap:
        """Return the touched rows whose field has this value key."""
        return self._column(fieldid).get(key)

    def range(self, fieldid: int, start: bytes, stop: bytes) -> list[tuple[bytes, BitMap]]:
        """Return the value keys in [start, stop) with their touched rows, in no order."""
        return self._column(fieldid).range(start, stop)

    def keys(self, fieldid: int, start: bytes, stop: bytes) -> list[bytes]:
        """Return the value keys in [start, stop) that touched rows may have, ascending."""
        return self._column(fieldid).keys(start, stop)

    def many(self, fieldid: int, wanted: Sequence[bytes]) -> BitMap:
        """Return the touched rows whose field has any of these value keys."""
        return BitMap.union(_NONE, *(self.get(fieldid, key) for key in wanted))

    def union(self, fieldid: int, start: bytes, stop: bytes) -> BitMap:
        """Return the touched rows whose field has a value key in [start, stop)."""
        return BitMap.union(_NONE, *(rows for _, rows in self.range(fieldid, start, stop)))

    def chosen(self, fieldid: int, start: bytes, stop: bytes, holds: Callable[[bytes], bool]) -> BitMap:
        """Return the touched rows with a value key in [start, stop) that passes `holds`."""
        listed = self.range(fieldid, start, stop)
        return BitMap.union(_NONE, *(rows for key, rows in listed if rows and holds(key)))

    # --- what folding asks ----------------------------------------------------------------

    def batches(self, after: int, upto: int) -> tuple[Batch, ...]:
        """What the commits beyond `after` did, up to one commit."""
        return tuple(batch for commit, batch in self._batches if after < commit <= upto)

    def field_changes(self, fieldid: int, after: int = 0, upto: int | None = None) -> list[Change]:
        """(value key, rows to put in, rows to take out) of the commits beyond `after`, sorted."""
        net: dict[bytes, tuple[BitMap, BitMap]] = {}
        for batch in self.batches(after, self.commit if upto is None else upto):
            one = batch.field(fieldid)
            if one is None:
                continue
            for key, rows in one.gone.items():
                known = net.get(key)
                net[key] = (_NONE, rows) if known is None else (known[0] - rows, known[1] | rows)
            for key, rows in one.came.items():
                known = net.get(key)
                net[key] = (rows, _NONE) if known is None else (known[0] | rows, known[1] - rows)
        return [(key, *net[key]) for key in sorted(net)]

    def _column(self, fieldid: int) -> _Column:
        """The column of a field at `commit` (T5). Threads that ask at once make the same."""
        column = self._columns.get(fieldid, _EMPTY)
        if column.commit < self.commit:
            at = len(self._batches)
            while at and self._batches[at - 1][0] > column.commit:
                at -= 1
            new = (batch.field(fieldid) for _, batch in self._batches[at:])
            column = column.after(self.commit, [one for one in new if one is not None])
            self._columns[fieldid] = column
        return column


class _Column:
    """One field: value key -> touched rows, in a large shared dict and a small one.

    The small one is copied at every change and poured into the large one once it is worth it,
    so that a commit costs its own size however long the tail is.
    """

    __slots__ = ("_base", "_order", "_over", "_sorted", "commit")

    def __init__(self, commit: int, base: dict[bytes, BitMap], over: dict[bytes, BitMap]) -> None:
        self.commit = commit  # all changes up to this one are in
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

    def after(self, commit: int, changes: list[FieldBatch]) -> _Column:
        """The column once these have happened."""
        if not changes:
            column = _Column(commit, self._base, self._over)
            column._sorted, column._order = self._sorted, self._order
            return column
        base, over = self._base, self._over.copy()
        for one in changes:
            for key, rows in one.gone.items():
                over[key] = (over[key] if key in over else base.get(key, _NONE)) - rows
            for section in (one.came, one.kept):
                for key, rows in section.items():
                    known = over[key] if key in over else base.get(key)
                    over[key] = rows if known is None else known | rows
        if len(over) > _MERGE + len(base) // 4:
            return _Column(commit, {key: rows for key, rows in {**base, **over}.items() if rows}, {})
        column = _Column(commit, base, over)
        column._sorted = self._sorted
        return column


_EMPTY: Final = _Column(-1, {}, {})


def _between(ascending: list[bytes], start: bytes, stop: bytes) -> list[bytes]:
    return ascending[bisect_left(ascending, start) : bisect_left(ascending, stop)]
