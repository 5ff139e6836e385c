"""How is a piece of a field's ordered dictionary, value key -> rows, laid out in a record?

    stamp   16 bytes  digest of what follows
    body    msgpack   [keys, counts, rids, others]
            keys      value keys, ascending
            counts    a byte per key: how many rids it has inline (1 to INLINE), 0: see others
            rids      the inline rids, u32 LE, ascending within a key, key after key
            others    for each zero in `counts`, in order: a serialised bitmap, or, when that
                      would be long, its chunks of 65,536 rids: [[chunk, rows, stamp], ...],
                      records of their own (index/posting.py)

Reading takes four C calls, whatever the number of keys; a run of keys is copied as slices.

Invariants:
  L1  keys ascend strictly and none is without rows;
  L2  the stamp names the content, chunks included: a leaf decoded once serves every transaction
      that finds this stamp, whatever commits or aborts lie between;
  L3  a leaf never changes: `merged` returns another one.

Rejected: a record per value. 60,000 distinct numbers are 60,000 keys and tree entries, and a
range would visit each. A sorted (value, rid) tree: the same, for rare values only.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate
from typing import Any, Final

from pyroaring import BitMap

from vecdb.errors import Corrupt
from vecdb.storage import codec

Chunks = list[list[Any]]  # [[chunk, rows, stamp], ...] of a posting that is kept outside
Other = bytes | Chunks
Load = Callable[[bytes, Chunks], BitMap]  # value key, chunks -> rows

INLINE: Final = 12  # rids; from here on a serialised bitmap is not longer
STAMP: Final = 16
MAX_BODY: Final = 8_000  # with header and stamp, two pages of the tree
FILL: Final = 5_600  # size of the pieces that a larger one is split into


class Leaf:
    """A decoded leaf: immutable, with bitmaps made when asked for."""

    __slots__ = (
        "_ends", "_found", "_union", "counts", "keys", "others", "rids", "size", "stamp",
        "weight",
    )  # fmt: skip

    def __init__(
        self, stamp: bytes, keys: list[bytes], counts: bytes, rids: bytes, others: list[Other]
    ) -> None:
        self.stamp = stamp
        self.keys = keys
        self.counts = counts
        self.rids = rids
        self.others = others
        self.weight = 64 * len(keys) + len(rids)  # bytes in memory, roughly
        self.size = 0  # of the record, set while building
        self._ends = list(accumulate(counts, initial=0))
        self._found: dict[int, BitMap] = {}
        self._union: BitMap | None = None

    @staticmethod
    def decode(payload: memoryview) -> Leaf:
        """The leaf in a verified payload; ValueError when it is none."""
        keys, counts, rids, others = codec.unpack(payload[STAMP:])
        if not (type(keys) is list and all(type(key) is bytes and key for key in keys)):
            raise ValueError("a leaf's value keys are not bytes")
        if type(counts) is not bytes or type(rids) is not bytes or type(others) is not list:
            raise ValueError("a leaf's parts are not of their kinds")
        if not all(type(other) is bytes or _names_chunks(other) for other in others):
            raise ValueError("a leaf's postings are neither bitmaps nor chunks")
        if len(counts) != len(keys) or counts.count(0) != len(others):
            raise ValueError("a leaf's counts do not fit its keys")
        if 4 * sum(counts) != len(rids):
            raise ValueError("a leaf's rids do not fit its counts")
        return Leaf(bytes(payload[:STAMP]), keys, counts, rids, others)

    def encode(self) -> bytes:
        """The payload of this leaf's record."""
        body = codec.pack([self.keys, self.counts, self.rids, self.others])
        return stamp_of(body) + body

    def find(self, key: bytes) -> int:
        """The position of a value key, -1 when it is not here."""
        at = bisect_left(self.keys, key)
        return at if at < len(self.keys) and self.keys[at] == key else -1

    def rows(self, at: int, load: Load) -> BitMap:
        """The rows of one key; not to be changed."""
        found = self._found.get(at)
        if found is None:
            other = self.other(at)
            if other is None:
                found = bitmap(self.inline(at, at + 1))
            elif isinstance(other, bytes):
                found = posting_of(other)
            else:
                found = load(self.keys[at], other)
                self.weight += 2 * len(found)
            self._found[at] = found
        return found

    def union(self, start: int, end: int, load: Load) -> BitMap:
        """The rows of a run of keys; not to be changed."""
        whole = start == 0 and end == len(self.keys)
        if whole and self._union is not None:
            return self._union
        found = bitmap(self.inline(start, end))
        large = [self.rows(at, load) for at in self._outside(start, end)]
        if large:
            found = BitMap.union(found, *large)
        if whole:
            self._union = found
        return found

    def chosen(
        self, start: int, end: int, holds: Callable[[bytes], bool], load: Load
    ) -> BitMap:
        """The rows of those keys of a run that pass `holds`."""
        inline: list[bytes] = []
        large: list[BitMap] = []
        for at in range(start, end):
            if holds(self.keys[at]):
                if self.counts[at]:
                    inline.append(self.inline(at, at + 1))
                else:
                    large.append(self.rows(at, load))
        return BitMap.union(bitmap(b"".join(inline)), *large)

    def inline(self, start: int, end: int) -> bytes:
        """The inline rids of a run of keys."""
        return self.rids[4 * self._ends[start] : 4 * self._ends[end]]

    def other(self, at: int) -> Other | None:
        """What stands for one key's rows when they are not inline."""
        if self.counts[at]:
            return None
        return self.others[self.counts.count(0, 0, at)]

    def others_of(self, start: int, end: int) -> list[Other]:
        """The same for a run of keys."""
        first = self.counts.count(0, 0, start)
        return self.others[first : first + self.counts.count(0, start, end)]

    def sizes(self) -> list[int]:
        """How many bytes each key takes in a record, a little overestimated."""
        sizes = [len(key) + 4 * n + 4 for key, n in zip(self.keys, self.counts, strict=True)]
        for at, other in zip(self._outside(0, len(sizes)), self.others, strict=True):
            sizes[at] += len(other) + 4 if isinstance(other, bytes) else 32 * len(other)
        return sizes

    def _outside(self, start: int, end: int) -> Iterator[int]:
        at = self.counts.find(0, start, end)
        while at >= 0:
            yield at
            at = self.counts.find(0, at + 1, end)


class Builder:
    """Makes leaves from runs of old ones and new entries, given in ascending order."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self._counts = bytearray()
        self._rids: list[bytes] = []
        self._others: list[Other] = []

    def run(self, leaf: Leaf, start: int, end: int) -> None:
        """Take over a run of keys unchanged."""
        if start < end:
            self.keys += leaf.keys[start:end]
            self._counts += leaf.counts[start:end]
            self._rids.append(leaf.inline(start, end))
            self._others += leaf.others_of(start, end)

    def add(self, key: bytes, rows: BitMap) -> None:
        """Add a key with its rows in the leaf; nothing when there are none."""
        count = len(rows)
        if count > INLINE:
            self.add_other(key, rows.serialize())
        elif count:
            self.keys.append(key)
            self._counts.append(count)
            self._rids.append(rows.to_array().tobytes())

    def add_other(self, key: bytes, other: Other) -> None:
        """Add a key whose rows are serialised, or kept outside."""
        self.keys.append(key)
        self._counts.append(0)
        self._others.append(other)

    def leaves(self) -> list[Leaf]:
        """What was gathered: no leaf, one, or several when it is too large for one."""
        if not self.keys:
            return []
        leaf = Leaf(b"", self.keys, bytes(self._counts), b"".join(self._rids), self._others)
        sizes = leaf.sizes()
        leaf.size = sum(sizes)
        return [leaf] if leaf.size <= MAX_BODY else list(_split(leaf, sizes))


def bitmap(rids: bytes) -> BitMap:
    """The bitmap of u32 rids."""
    numbers = array("I")
    numbers.frombytes(rids)
    return BitMap(numbers)


def deserialised(content: bytes) -> BitMap:
    """The bitmap of its serialised form; ValueError when it is none."""
    if not content:
        raise ValueError("no bitmap has no bytes")
    return BitMap.deserialize(content)


def posting_of(serialised: bytes) -> BitMap:
    """The rows of a posting that lies in its leaf; Corrupt when it cannot be read."""
    try:
        return deserialised(serialised)
    except ValueError as error:
        raise Corrupt(
            f"attributes: a posting in a leaf cannot be read ({error}); run db.check(), which "
            "names it, then restore a backup",
            code="A1",
            where="attributes",
            detail=str(error),
        ) from None


def stamp_of(content: bytes) -> bytes:
    """The name of a content."""
    return blake2b(content, digest_size=STAMP).digest()


def _names_chunks(other: Any) -> bool:
    """Whether this is a list of [chunk, rows, stamp]."""
    return type(other) is list and all(
        type(entry) is list and [type(part) for part in entry] == [int, int, bytes]
        and 0 <= entry[0] < 1 << 16 and entry[1] > 0
        for entry in other
    )  # fmt: skip


def _split(leaf: Leaf, sizes: list[int]) -> Iterator[Leaf]:
    """Pieces of about FILL bytes."""
    start, room = 0, FILL
    for at, size in enumerate(sizes):
        if size > room and at > start:
            yield _slice(leaf, start, at)
            start, room = at, FILL
        room -= size
    yield _slice(leaf, start, len(sizes))


def _slice(leaf: Leaf, start: int, end: int) -> Leaf:
    return Leaf(
        b"",
        leaf.keys[start:end],
        leaf.counts[start:end],
        leaf.inline(start, end),
        leaf.others_of(start, end),
    )
