"""How do changes reach a field's leaves?

Changes come sorted by value key; those of one leaf are applied together, and the leaf is
written once: split when it has become too large, joined with the next when little is left.

Invariants:
  D1  only what differs is written: a fold that was done before writes nothing;
  D2  every leaf stays in order, and its bound stays what it was, except where leaves are split
      (new bounds below the old one) or joined (the lower bound goes away);
  D3  a posting lies outside its leaf exactly while the leaf names its chunks.

Rejected: merging small leaves in a pass of their own. A leaf that shrinks is at hand here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, Final, Protocol

from pyroaring import BitMap

from vecdb.index import posting
from vecdb.index.leaf import Builder, Chunks, Leaf, bitmap, posting_of
from vecdb.storage import keys, records

END: Final = b"\xff"  # bound of a field's last leaf: above every value key
MAX_INSIDE: Final = 1_024  # bytes of a serialised posting that stay in the leaf
BACK_INSIDE: Final = 256  # rows down to which an outside posting comes back
SMALL: Final = 1_500  # bytes below which a leaf joins the next one

Change = tuple[bytes, BitMap, BitMap]  # value key, rows to put in, rows to take out


class Leaves(Protocol):
    """What a fold reads: implemented by attributes.Reader."""

    def leaf(self, fieldid: int, key: bytes) -> tuple[bytes, Leaf | None]: ...
    def chunk(self, fieldid: int, key: bytes, entry: list[Any]) -> BitMap: ...


def fold(
    reader: Leaves,
    txn: Any,
    cid: int,
    fieldid: int,
    changes: list[Change],
    first: int = 0,
    limit: int | None = None,
) -> tuple[int, bytes]:
    """Apply changes, sorted by value key, to one field of a collection, from the `first` on.

    Stops after `limit` leaves. Returns how many there were, and the value key of the next change.
    """
    return _Fold(reader, txn, cid, fieldid).apply(changes, first, limit)


class _Fold:
    """Applies sorted changes to one field, leaf by leaf."""

    def __init__(self, reader: Leaves, txn: Any, cid: int, fieldid: int) -> None:
        self._reader = reader
        self._txn = txn
        self._cid = cid
        self._fieldid = fieldid

    def apply(self, changes: list[Change], first: int, limit: int | None) -> tuple[int, bytes]:
        """Group the changes by leaf and write each leaf once."""
        values = [key for key, _, _ in changes]
        at, leaves = first, 0
        while at < len(changes) and leaves != limit:
            bound, leaf = self._reader.leaf(self._fieldid, values[at])
            end = bisect_right(values, bound, at)
            builder = self._merged(leaf, changes[at:end])
            if builder is not None:
                self._write(bound, leaf, builder)
            at, leaves = end, leaves + 1
        return leaves, values[at] if at < len(values) else b""

    def _merged(self, leaf: Leaf | None, changes: list[Change]) -> Builder | None:
        """The leaf with the changes; None when it has them already."""
        builder = Builder()
        changed = False
        done = 0
        for key, put, out in changes:
            at = -1
            if leaf is not None:
                next_ = bisect_left(leaf.keys, key, done)
                builder.run(leaf, done, next_)
                done = next_
                if done < len(leaf.keys) and leaf.keys[done] == key:
                    at, done = done, done + 1
            changed |= self._entry(builder, leaf, at, key, put, out)
        if leaf is not None:
            builder.run(leaf, done, len(leaf.keys))
        return builder if changed else None

    def _entry(
        self, builder: Builder, leaf: Leaf | None, at: int, key: bytes, put: BitMap, out: BitMap
    ) -> bool:
        """One value key, changed; whether that made a difference."""
        if leaf is None or at < 0:
            self._place(builder, key, put)
            return bool(put)
        other = leaf.other(at)
        if isinstance(other, list):
            chunks = self._outside(key, other, put, out)
            if sum(entry[1] for entry in chunks) > BACK_INSIDE:
                builder.add_other(key, chunks)
            else:
                self._bring_back(builder, key, chunks)
            return chunks != other
        before = bitmap(leaf.inline(at, at + 1)) if other is None else posting_of(other)
        rows = (before - out) | put
        if rows == before:
            builder.run(leaf, at, at + 1)
            return False
        self._place(builder, key, rows)
        return True

    def _place(self, builder: Builder, key: bytes, rows: BitMap) -> None:
        """A posting inside its leaf, or outside when it is long."""
        if len(rows) > BACK_INSIDE and len(rows.serialize()) > MAX_INSIDE:
            builder.add_other(key, self._outside(key, [], rows, BitMap()))
        else:
            builder.add(key, rows)

    def _outside(self, key: bytes, chunks: Chunks, put: BitMap, out: BitMap) -> Chunks:
        """Change the chunks that are touched; what the leaf then names."""
        named = {entry[0]: entry for entry in chunks}
        putting, taking = posting.by_chunk(put), posting.by_chunk(out)
        for chunk in sorted(putting.keys() | taking.keys()):
            entry = named.get(chunk)
            before = self._reader.chunk(self._fieldid, key, entry) if entry else BitMap()
            rows = (before - taking.get(chunk, BitMap())) | putting.get(chunk, BitMap())
            if rows == before:
                continue
            place = keys.posting(self._cid, self._fieldid, key, chunk)
            if rows:
                named[chunk] = [chunk, len(rows), posting.write(self._txn, place, rows)]
            else:
                self._txn.delete(place)
                del named[chunk]
        return [named[chunk] for chunk in sorted(named)]

    def _bring_back(self, builder: Builder, key: bytes, chunks: Chunks) -> None:
        rows = BitMap()
        for entry in chunks:
            rows |= self._reader.chunk(self._fieldid, key, entry)
            self._txn.delete(keys.posting(self._cid, self._fieldid, key, entry[0]))
        builder.add(key, rows)

    def _write(self, bound: bytes, leaf: Leaf | None, builder: Builder) -> None:
        """Write what replaces a leaf; a small rest moves into the leaf that follows."""
        made = builder.leaves()
        if len(made) == 1 and bound != END and made[0].size < SMALL:
            next_bound, following = self._reader.leaf(self._fieldid, bound + b"\x00")
            if following is not None:
                builder.run(following, 0, len(following.keys))
                self._txn.delete(keys.attribute(self._cid, self._fieldid, bound))
                bound, leaf, made = next_bound, following, builder.leaves()
        if not made:
            if leaf is not None:
                self._txn.delete(keys.attribute(self._cid, self._fieldid, bound))
            return
        bounds = [each.keys[-1] for each in made[:-1]] + [bound]
        for each, its_bound in zip(made, bounds, strict=True):
            place = keys.attribute(self._cid, self._fieldid, its_bound)
            records.put(self._txn, place, each.encode())
