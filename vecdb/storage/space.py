"""Where does the space of a file go, and what does an old reader keep from being used again?

A walk over the pages of one commit, beneath the engine: branches and leaves are read, values outside of
their leaf are counted by the size that the leaf names. The second tree of the file, the engine's own,
lists the pages that are free, by the transaction that freed them: a page freed by transaction t may be
used again when no reader is older than t.

Invariants:
  S1  the pages of a commit, the free tree's too, stay as they are while a reader of that commit lives:
      the caller holds one from before the first look to after the last;
  S2  every byte of the file is counted once: by kind and collection, or as inner pages, the engine's
      own, free, or the rest: pages that nothing names (the engine loses one now and then);
  S3  nothing that is read here is trusted: where a page is not what its parent says, there is no answer.

Costs a read of each page of branches and leaves (about 15 us each), none of blocks of vectors and links.
A leaf that several owners share is divided by the sizes of records, its unused room goes to the largest.
Rejected: the sizes of records, summed. They say nothing of half-empty pages, which may be a third.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from vecdb.storage import keys
from vecdb.storage.header import BIG, BRANCH, HEADER, LEAF, NO_PAGE, NODE, PAGE, U16, U64, Header

PURPOSES: Final = {
    keys.ROWS: "rows", keys.IDS: "ids", keys.VECTORS: "vectors", keys.MANY: "vectors",
    keys.LINKS: "links", keys.EFFORT: "effort", keys.MAPS: "maps", keys.ATTRIBUTES: "attributes",
    keys.FIELDS: "attributes", keys.POSTINGS: "postings", keys.LIVE: "live", keys.LOG: "log",
    keys.SEGMENTS: "fulltext", keys.TERMS: "fulltext",
    keys.EMBEDDINGS: "embeddings", keys.CACHED: "embeddings", keys.CATALOG: "catalog",
    keys.SEARCHES: "searches", keys.WATCHERS: "searches", keys.LOGGING: "searches",
    keys.SEARCH_LOG: "search_log", keys.TIMES: "meta", keys.META: "meta",
}  # fmt: skip
OF_FILE: Final = ("tree", "engine", "free", "rest")
_NODE_AND_PLACE: Final = NODE.size + U16.size
MOST_LEVELS: Final = 32

Owner = tuple[int, int]  # kind of record, collection (0: the database)


class Unsound(ValueError):
    """A page is not what its parent says."""


@dataclass(slots=True)
class Space:
    """What the pages of one commit are used for, in bytes."""

    file: int
    page: int
    owners: Counter[Owner] = field(default_factory=Counter)
    tree: int = 0  # inner pages
    engine: int = 0  # the two first pages, and the tree that lists what is free
    freed: list[tuple[int, int]] = field(default_factory=list)  # (transaction, bytes), ascending

    @property
    def free(self) -> int:
        """Bytes of pages that hold nothing."""
        return sum(size for _, size in self.freed)

    def by_purpose(self) -> dict[str, int]:
        """Bytes of the whole file; they add up to its size."""
        found = dict.fromkeys(PURPOSES.values(), 0)
        for (kind, _), size in self.owners.items():
            found[PURPOSES.get(kind, "meta")] += size
        found |= {"tree": self.tree, "engine": self.engine, "free": self.free}
        return found | {"rest": self.file - sum(found.values())}

    def of_collection(self, cid: int) -> dict[str, int]:
        """Bytes of one collection's records."""
        found: Counter[str] = Counter()
        for (kind, owner), size in self.owners.items():
            if owner == cid:
                found[PURPOSES.get(kind, "meta")] += size
        return dict(sorted(found.items()))

    def pinned(self, reader: int, last: int) -> int:
        """Bytes that the oldest reader keeps from being used again.

        Without it everything could be that was freed before the last transaction.
        """
        return sum(size for number, size in self.freed if reader <= number < last)


def walk(fd: int, header: Header) -> Space:
    """What one commit's pages are used for (S1 is the caller's); Unsound."""
    found = Space(os.fstat(fd).st_size, header.page_size)
    try:
        for page, leaf in _pages(fd, header, header.root):
            if leaf:
                _count(page, header.page_size, found.owners)
            else:
                found.tree += header.page_size
        found.engine = 2 * header.page_size
        for page, leaf in _pages(fd, header, header.free_root):
            found.engine += header.page_size
            if leaf:
                found.engine += _list_freed(fd, page, header.page_size, found.freed)
    except (struct.error, OverflowError, OSError) as error:
        raise Unsound(str(error)) from None
    found.freed.sort()
    return found


def _pages(fd: int, header: Header, root: int) -> Iterator[tuple[bytes, bool]]:
    """The pages of a tree, and whether each is a leaf."""
    size = header.page_size
    waiting = [] if root == NO_PAGE else [(root, 0)]
    while waiting:
        number, level = waiting.pop()
        raw = os.pread(fd, size, number * size)
        said, _, flags, lower, _ = PAGE.unpack_from(raw)
        if said != number or len(raw) < size or not HEADER <= lower <= size or level > MOST_LEVELS:
            raise Unsound(f"page {number} is not what its parent says")
        leaf = bool(flags & LEAF)
        if not leaf and not flags & BRANCH:
            raise Unsound(f"page {number} is neither branch nor leaf")
        if not leaf:
            for at in _places(raw):
                low, high, top, _ = NODE.unpack_from(raw, at)
                waiting.append((low | high << 16 | top << 32, level + 1))
        yield raw, leaf


def _places(raw: bytes) -> tuple[int, ...]:
    count = (PAGE.unpack_from(raw)[3] - HEADER) // 2
    return struct.unpack_from(f"{count}H", raw, HEADER)


def _count(raw: bytes, size: int, owners: Counter[Owner]) -> None:
    """Divide a leaf among the owners of its records, and add what lies outside of it."""
    places = _places(raw)
    if not places:
        return
    owner = _owner_at(raw, places[0])
    if owner == _owner_at(raw, places[-1]):  # keys ascend: all of them are of one owner
        owners[owner] += size
        words, at = np.frombuffer(raw, np.uint16), np.array(places)
        for place in at[(words[at + 4 >> 1] & BIG) != 0].tolist():
            owners[owner] += _outside(raw, place, size)
        return
    mine: Counter[Owner] = Counter()
    for place in places:
        low, high, flags, key_size = NODE.unpack_from(raw, place)
        owner = _owner_at(raw, place)
        if flags & BIG:
            owners[owner] += _outside(raw, place, size)
        mine[owner] += _NODE_AND_PLACE + key_size + (U64.size if flags & BIG else low | high << 16)
    mine[mine.most_common(1)[0][0]] += size - mine.total()
    owners.update(mine)


def _outside(raw: bytes, at: int, size: int) -> int:
    """Bytes of the pages that a long value takes."""
    low, high, _, _ = NODE.unpack_from(raw, at)
    value: int = low | high << 16
    return -(-(HEADER + value) // size) * size


def _owner_at(raw: bytes, at: int) -> Owner:
    start = at + NODE.size
    key_size = NODE.unpack_from(raw, at)[3]
    return _owner(raw[start : start + min(key_size, 5)])


def _owner(start: bytes) -> Owner:
    kind = start[0] if start else 0
    named = len(start) == 5 and kind not in keys.OF_THE_DATABASE
    return kind, int.from_bytes(start[1:], "big") if named else 0


def _list_freed(fd: int, raw: bytes, size: int, freed: list[tuple[int, int]]) -> int:
    """Note what a leaf of the free tree lists; the bytes of its values that lie outside of it."""
    outside = 0
    for at in _places(raw):
        _, _, flags, key_size = NODE.unpack_from(raw, at)
        start = at + NODE.size
        number, count = U64.unpack_from(raw, start)[0], raw[start + key_size :]
        if flags & BIG:
            first = U64.unpack_from(count)[0]
            outside += _outside(raw, at, size)
            count = os.pread(fd, U64.size, first * size + HEADER)
        freed.append((number, U64.unpack_from(count)[0] * size))
    return outside
