"""Which rows have this value, or one in this range? The image: postings by field, on disk.

A field's postings are one ordered dictionary, value key -> rows, cut into leaves. A leaf's key
in the tree is an upper bound of its value keys: one seek finds the leaf of any value. Long
postings lie in records of their own, one per 65,536 rids, named and stamped in the leaf.

    0x50 cid fieldid bound                   leaf (index/leaf.py); the last one's bound is END
    0x51 cid fieldid valuekey 0x00 chunk     chunk of a long posting (index/posting.py)

Invariants (`problems` checks them):
  A1  leaves are in order: every value key is at most its leaf's bound, above the one before;
  A2  every chunk that a leaf names exists with that stamp and count, and no other does;
  A3  a posting names the rows that had this value at the field's watermark, dead ones excluded;
  A4  the cache is keyed by content (leaf.py, L2) and is not filled by folds: what an aborted
      transaction wrote is never served.

Rejected: increments in a log of postings (replay twice and they are wrong); bitmaps of all
values as records (a field of distinct numbers would have as many records as rows).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import is_, itemgetter
from types import MappingProxyType
from typing import Any, Final

from pyroaring import BitMap

from vecdb.errors import Corrupt
from vecdb.index import audit, posting
from vecdb.index.changes import Batch, RowChange, decode_changes, encode_changes, state_of
from vecdb.index.fold import END, Change, fold
from vecdb.index.leaf import STAMP, Chunks, Leaf
from vecdb.index.posting import load_live, store_live
from vecdb.index.select import evaluate
from vecdb.index.tail import Tail
from vecdb.storage import keys
from vecdb.storage.rows import damaged, open_record

__all__ = [
    "END",
    "AttributeImage",
    "RowChange",
    "decode_changes",
    "encode_changes",
    "evaluate",
    "load_live",
    "state_of",
    "store_live",
]

_NONE: Final = BitMap()
CACHE_BYTES: Final = 64 << 20
ROWS_A_LEAF: Final = 100  # touched rows whose changes are worked out as quickly as a leaf is folded
_FRAME: Final = 12
NOTHING_MOVES: Final[Mapping[int, BitMap]] = MappingProxyType({})


class AttributeImage:
    """The attribute postings of one collection; shared by threads, holds no transaction."""

    def __init__(self, cid: int) -> None:
        self.cid = cid
        self._leaves: dict[bytes, Leaf] = {}  # by stamp
        self._weight = 0
        self._folding: tuple[int, tuple[Batch, ...], list[Change]] | None = None

    def reader(self, txn: Any) -> Reader:
        """Return what answers for this image as of a transaction."""
        return Reader(self, txn, remember=True)

    def posting(self, txn: Any, fieldid: int, key: bytes) -> BitMap:
        """Return the rows of one value key."""
        return self.reader(txn).get(fieldid, key)

    def fold_field(self, txn: Any, fieldid: int, tail: Tail, after: int = 0) -> None:
        """Bring one field up to the tail's commit; `after` is where it stands, if known.

        Writes only what differs: folding again, or onto a newer image, changes nothing.
        """
        changes = tail.field_changes(fieldid, after)
        fold(Reader(self, txn, remember=False), txn, self.cid, fieldid, changes)

    def fold_some(
        self, txn: Any, fieldid: int, tail: Tail, after: int, upto: int, start: bytes, limit: int
    ) -> tuple[int, bytes]:
        """The same up to a commit, from a value key on, at the cost of about `limit` leaves.

        Returns that cost, and the value key that comes next, b"" at the end. What there is to do is kept
        for the next part, while it stands on the same commits; the first part pays for it.
        """
        batches, known, cost = tail.batches(after, upto), self._folding, 0
        if known is None or known[0] != fieldid or not _same(known[1], batches):
            changes = tail.field_changes(fieldid, after, upto)
            known = self._folding = (fieldid, batches, changes)
            cost = sum(len(batch.touched) for batch in batches) // ROWS_A_LEAF
        first = bisect_left(known[2], start, key=itemgetter(0))
        reader = Reader(self, txn, remember=False)
        room = max(1, limit - cost)
        leaves, following = fold(reader, txn, self.cid, fieldid, known[2], first, room)
        return cost + leaves, following

    def problems(
        self, txn: Any, moving: Mapping[int, BitMap] = NOTHING_MOVES
    ) -> Iterator[tuple[str, str, str]]:
        """Yield (code, where, detail) of every violation in this image's structure.

        `moving`: by field the rows that a fold under way may have moved in part of the values alone.
        """
        return audit.problems(txn, self.cid, moving)

    def remember(self, leaf: Leaf) -> None:
        """Keep a decoded leaf, within CACHE_BYTES."""
        self._leaves[leaf.stamp] = leaf
        self.grew(leaf.weight)

    def grew(self, weight: int) -> None:
        """Count bytes that the leaves have come to hold; drop the older half when too many."""
        self._weight += weight
        if self._weight > CACHE_BYTES:
            known = self._leaves.copy()  # one step, so that other threads may go on adding
            kept = list(known.items())[len(known) // 2 :]
            self._leaves = dict(kept)
            self._weight = sum(each.weight for _, each in kept)

    def remembered(self, stamp: bytes) -> Leaf | None:
        """Return a decoded leaf by its content's name."""
        return self._leaves.get(stamp)


class Reader:
    """One image through one transaction and cursor, on one thread."""

    def __init__(self, image: AttributeImage, txn: Any, *, remember: bool) -> None:
        self._image = image
        self._remember = remember
        self._txn = txn
        self._cursor = txn.cursor()

    def get(self, fieldid: int, key: bytes) -> BitMap:
        """The rows of one value key; not to be changed."""
        _, leaf = self.leaf(fieldid, key)
        at = -1 if leaf is None else leaf.find(key)
        if leaf is None or at < 0:
            return _NONE
        return leaf.rows(at, self._loader(fieldid))

    def many(self, fieldid: int, wanted: Sequence[bytes]) -> BitMap:
        """The rows of any of these value keys, which ascend."""
        load = self._loader(fieldid)
        found: list[BitMap] = []
        bound, leaf = b"", None
        for key in wanted:
            if key > bound:
                bound, leaf = self.leaf(fieldid, key)
            at = -1 if leaf is None else leaf.find(key)
            if leaf is not None and at >= 0:
                found.append(leaf.rows(at, load))
        return BitMap.union(*found) if found else _NONE

    def union(self, fieldid: int, start: bytes, stop: bytes) -> BitMap:
        """The rows of every value key in [start, stop)."""
        load = self._loader(fieldid)
        found = [leaf.union(first, end, load) for leaf, first, end in self._runs(fieldid, start, stop)]
        return BitMap.union(*found) if found else _NONE

    def range(self, fieldid: int, start: bytes, stop: bytes) -> list[tuple[bytes, BitMap]]:
        """The value keys in [start, stop), each with its rows."""
        load = self._loader(fieldid)
        return [
            (leaf.keys[at], leaf.rows(at, load))
            for leaf, first, end in self._runs(fieldid, start, stop)
            for at in range(first, end)
        ]

    def chosen(self, fieldid: int, start: bytes, stop: bytes, holds: Callable[[bytes], bool]) -> BitMap:
        """The rows of those value keys in [start, stop) that pass `holds`."""
        load = self._loader(fieldid)
        found = [
            leaf.chosen(first, end, holds, load) for leaf, first, end in self._runs(fieldid, start, stop)
        ]
        return BitMap.union(*found) if found else _NONE

    def runs(
        self, fieldid: int, start: bytes, stop: bytes, *, backwards: bool = False
    ) -> Iterator[tuple[Leaf, int, int]]:
        """(leaf, first, end): where the keys in [start, stop) lie, leaf by leaf as they are asked for.

        This reader is not asked anything else meanwhile: there is one cursor.
        """
        return (self._runs_back if backwards else self._runs)(fieldid, start, stop)

    def rows(self, fieldid: int, leaf: Leaf, at: int) -> BitMap:
        """The rows of one key of a leaf; not to be changed."""
        return leaf.rows(at, self._loader(fieldid))

    def rows_of(self, fieldid: int, leaf: Leaf, first: int, end: int) -> BitMap:
        """The rows of a run of a leaf's keys; not to be changed."""
        return leaf.union(first, end, self._loader(fieldid))

    def leaf(self, fieldid: int, key: bytes) -> tuple[bytes, Leaf | None]:
        """The leaf that a value key belongs to, and its bound; (END, None) past the last."""
        prefix = keys.attribute(self._image.cid, fieldid)
        if not self._cursor.set_range(prefix + key):
            return END, None
        return self._here(prefix) or (END, None)

    def chunk(self, fieldid: int, key: bytes, entry: list[Any]) -> BitMap:
        """One chunk of an outside posting, as its leaf names it."""
        chunk, rows, stamp = entry
        place = keys.posting(self._image.cid, fieldid, key, chunk)
        return posting.read(self._txn, place, rows, stamp)

    def _runs(self, fieldid: int, start: bytes, stop: bytes) -> Iterator[tuple[Leaf, int, int]]:
        """(leaf, first, end): where the keys in [start, stop) lie."""
        prefix = keys.attribute(self._image.cid, fieldid)
        found = start < stop and self._cursor.set_range(prefix + start)
        first = True
        while found:
            place = self._here(prefix)
            if place is None:
                return
            bound, leaf = place
            begin = bisect_left(leaf.keys, start) if first else 0
            last = bound >= stop
            yield leaf, begin, bisect_left(leaf.keys, stop) if last else len(leaf.keys)
            if last:
                return
            first = False
            found = self._cursor.next()

    def _runs_back(self, fieldid: int, start: bytes, stop: bytes) -> Iterator[tuple[Leaf, int, int]]:
        """The same from the last leaf to the first."""
        prefix = keys.attribute(self._image.cid, fieldid)
        found = start < stop and self._cursor.set_range(prefix + stop)
        while found:
            place = self._here(prefix)
            if place is None or place[0] < start:
                return
            leaf = place[1]
            yield leaf, bisect_left(leaf.keys, start), bisect_left(leaf.keys, stop)
            found = self._cursor.prev()

    def _here(self, prefix: bytes) -> tuple[bytes, Leaf] | None:
        """The leaf under the cursor, when it belongs to this field."""
        view, record = self._cursor.item()
        key = bytes(view)
        if not key.startswith(prefix):
            return None
        leaf = self._image.remembered(bytes(record[_FRAME : _FRAME + STAMP]))
        if leaf is None:
            leaf = _decode(key, record)
            if self._remember:
                self._image.remember(leaf)
        return key[len(prefix) :], leaf

    def _loader(self, fieldid: int) -> Any:
        def load(key: bytes, chunks: Chunks) -> BitMap:
            parts = [self.chunk(fieldid, key, entry) for entry in chunks]
            self._image.grew(2 * sum(entry[1] for entry in chunks))
            return parts[0] if len(parts) == 1 else BitMap.union(*parts)

        return load


def _same(one: tuple[Batch, ...], other: tuple[Batch, ...]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))


def _decode(key: bytes, record: Any) -> Leaf:
    payload = open_record(keys.ATTRIBUTES, key, record, code="A1")
    try:
        return Leaf.decode(payload)
    except (ValueError, TypeError) as error:
        raise damaged("A1", key, str(error)) from None
    except Corrupt as error:
        raise damaged("A1", key, error.detail) from None
