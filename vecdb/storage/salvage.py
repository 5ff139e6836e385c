"""Which records does a file hold that may be damaged anywhere?

`salvage` reads raw pages, never through the engine, which a broken page can kill. What it returns
can be asked like a transaction (`get`), so the modules that read records read these too.

How the records of the last commit are found, in this order:
    1. the tree of the newer meta page, as far as its pages are whole;
    2. where that tree has holes, leaf pages that no page leads to any more: pages in use are those
       that the list of free pages does not name, so such a leaf belongs to the last commit;
    3. where a meta page is broken, the tree that ends in the meta record with the highest commit
       number: every commit rewrites the pages on the way to that record, so it is one tree;
    4. where there is no tree, or the list of free pages is broken as well as most of the tree,
       every leaf page. Earlier versions of rows may be among them: what the tree leads to wins, then
       the highest commit number of a row, and the result is called `uncertain`.

Invariants (checked by tests/faults/test_repair.py):
  X1  no byte is believed: every number and size is checked against the page and the file before
      it is used, and a record counts only when its frame and its checksum are right;
  X2  nothing is written, and every page is read with bounds: a short file is only a smaller one,
      and one that others write to meanwhile gives other records, no other errors;
  X3  pages of earlier commits are used in case 4 only.

Rejected: leaf pages outside the tree when the list of free pages is broken and most of the tree is
not (rows that were deleted would come back; how many pages were not used is said), and mapping the
file (a truncated one would kill the process).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from vecdb import _core
from vecdb.errors import VecdbError
from vecdb.storage import header, keys, meta, schema, state
from vecdb.storage.header import (
    BIG,
    BRANCH,
    HEADER,
    LEAF,
    NO_PAGE,
    NODE,
    OVERFLOW,
    PAGE,
    U16,
    U64,
    Header,
)

PAGE_SIZES = (4096, 8192, 16384, 32768, 65536, 2048, 1024, 512)
MOST_ROOTS = 8  # candidates that are walked
SAMPLE = 4096  # pages looked at to guess the page size
WANTED = frozenset((
    keys.CATALOG, keys.IDS, keys.ROWS, keys.VECTORS, keys.MANY, keys.EMBEDDINGS, keys.LOG, keys.META,
    keys.SEARCHES, keys.WATCHERS, keys.SEARCH_LOG, keys.LOGGING, keys.MAPS,
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a page: a key with a child page, or with the place of a value."""

    key: bytes
    child: int
    offset: int = 0  # of the value, in the file
    size: int = 0


@dataclass(slots=True)
class Salvaged:
    """The sound records of a file, and the keys of those that are not."""

    fd: int
    page_size: int = 0
    places: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # key -> (offset, size)
    bad: dict[bytes, str] = field(default_factory=dict)  # key -> what is wrong with its record
    holes: int = 0  # pages of the tree that are broken
    entries: int = 0  # records that the last commit had, by the meta page
    uncertain: bool = False  # case 4: earlier versions may be among the records
    unused: int = 0  # leaves that may be the last commit's or older ones, and were not used
    beheaded: bool = False  # one meta page is broken: that of the last commit, perhaps
    behind: int = 0  # commits that were made after the one that could be reached

    def get(self, key: bytes) -> bytes | None:
        """The record of a key, as a transaction gives it; None where there is no sound one."""
        place = self.places.get(key)
        if place is None:
            return None
        return os.pread(self.fd, place[1], place[0])

    def keys_of(self, kind: int, cid: int | None = None) -> list[bytes]:
        """The keys of sound records of a kind, in order."""
        start = bytes((kind,)) if cid is None else keys.prefix(kind, cid)
        return sorted(key for key in self.places if key.startswith(start))

    def bad_keys(self, kind: int, cid: int) -> list[bytes]:
        """The keys of damaged records of a kind, in order."""
        return sorted(key for key in self.bad if key.startswith(keys.prefix(kind, cid)))


def salvage(fd: int) -> Salvaged:
    """Find every sound record of the last commit that can be found; costs a pass over the file."""
    found = Salvaged(fd, _page_size(fd))
    pages = _Pages(fd, found.page_size)
    headers = header.read_headers(fd, found.page_size)
    newest, root = _newest(pages, headers)
    if len(headers) < 2:
        found.beheaded = newest is not None
        commit, roots = _last_trees(pages)
        reached = -1 if newest is None else _commit(pages, newest.root)
        whole = [each for each in roots if _is_whole(pages, each)]
        if commit > reached and (whole or (roots and newest is None)):
            newest, root, found.beheaded = None, (whole or roots)[0], False
            found.uncertain = len(roots) > 1
        elif commit > reached >= 0:
            found.behind = commit - reached
    leaves, found.holes = _walk(pages, root)
    found.entries = newest.entries if newest is not None else 0
    taken = _take(found, pages, sorted(leaves), name_bad=True)
    if newest is None or found.holes or taken != newest.entries:
        _take_unreached(found, pages, newest, root, leaves, taken)
    for key in [key for key in found.bad if key in found.places]:
        del found.bad[key]
    return found


def _take_unreached(
    found: Salvaged,
    pages: _Pages,
    newest: Header | None,
    root: int,
    leaves: set[int],
    taken: int,
) -> None:
    """Cases 2 and 4: leaves that no sound page leads to."""
    free = None if newest is None else _free_pages(pages, newest, leaves)
    if newest is not None and free is not None:
        others = (n for n in pages.leaves(newest.last_page + 1) if n not in leaves and n not in free)
        _take(found, pages, others, name_bad=True)
        return
    if newest is None and root != NO_PAGE and _is_whole(pages, root):
        return
    others = (n for n in pages.leaves(pages.count) if n not in leaves)
    if taken * 2 < found.entries or newest is None:
        found.uncertain = True
        _take(found, pages, others, name_bad=False, known=frozenset(found.places))
    else:
        found.unused = sum(1 for _ in others)


# --- pages ---------------------------------------------------------------------------------------


class _Pages:
    """The pages of a file, read one at a time and trusted in nothing."""

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self.bytes = os.fstat(fd).st_size
        self.count = self.bytes // size

    def read(self, number: int, kind: int) -> bytes | None:
        """A page that says its own number and is of a kind; None where there is no such page."""
        if not 2 <= number < self.count:
            return None
        raw = os.pread(self.fd, self.size, number * self.size)
        if len(raw) < self.size:
            return None
        says, _, flags, lower, _ = PAGE.unpack_from(raw)
        if says != number or not flags & kind or not HEADER <= lower <= self.size:
            return None
        return raw

    def nodes(self, number: int, raw: bytes) -> Iterator[Entry]:
        """The entries of a leaf or branch page that lie inside it."""
        _, _, flags, lower, _ = PAGE.unpack_from(raw)
        for at in range(HEADER, lower - 1, 2):
            start = U16.unpack_from(raw, at)[0]
            if not lower <= start <= self.size - NODE.size:
                continue
            low, high, node_flags, key_size = NODE.unpack_from(raw, start)
            middle = start + NODE.size + key_size
            if middle > self.size:
                continue
            key, size = raw[start + NODE.size : middle], low | high << 16
            if flags & BRANCH:
                yield Entry(key, size | node_flags << 32)
            elif not node_flags & BIG:
                yield Entry(key, NO_PAGE, number * self.size + middle, min(size, self.size - middle))
            elif middle + U64.size <= self.size:
                first = U64.unpack_from(raw, middle)[0]
                yield Entry(key, NO_PAGE, *self._large(first, size))

    def last(self, number: int, kind: int) -> Entry | None:
        """The last entry of a page; None where there is none."""
        raw = self.read(number, kind)
        entries = [] if raw is None else list(self.nodes(number, raw))
        return entries[-1] if entries else None

    def _large(self, first: int, size: int) -> tuple[int, int]:
        """Where a value on pages of its own lies; of no size where those are not there."""
        if not 2 <= first < self.count:
            return 0, 0
        raw, offset = os.pread(self.fd, PAGE.size, first * self.size), first * self.size + HEADER
        if not _looks(raw, first, OVERFLOW) or offset + size > self.bytes:
            return 0, 0
        return offset, size

    def value(self, node: Entry) -> bytes:
        return os.pread(self.fd, node.size, node.offset)

    def leaves(self, end: int) -> Iterator[int]:
        """The numbers of the pages that look like leaves, the tree apart."""
        for number in range(2, min(end, self.count)):
            raw = os.pread(self.fd, PAGE.size, number * self.size)
            if _looks(raw, number, LEAF):
                yield number

    def branches(self) -> Iterator[int]:
        """The same of branches."""
        for number in range(2, self.count):
            raw = os.pread(self.fd, PAGE.size, number * self.size)
            if _looks(raw, number, BRANCH):
                yield number


def _looks(raw: bytes, number: int, kind: int) -> bool:
    if len(raw) < PAGE.size:
        return False
    says, _, flags, _, _ = PAGE.unpack(raw)
    return bool(says == number and flags & kind)


def _page_size(fd: int) -> int:
    """What the meta pages say; where neither can be read, what fits most pages."""
    for size in PAGE_SIZES:
        if header.read_headers(fd, size):
            return size
    end = os.fstat(fd).st_size

    def fitting(size: int) -> int:
        numbers = range(2, min(SAMPLE, end // size))
        heads = ((n, os.pread(fd, PAGE.size, n * size)) for n in numbers)
        return sum(_looks(raw, n, BRANCH | LEAF | OVERFLOW) for n, raw in heads)

    return max(PAGE_SIZES, key=lambda size: fitting(size) * size)


# --- which tree ----------------------------------------------------------------------------------


def _newest(pages: _Pages, headers: list[Header]) -> tuple[Header | None, int]:
    """The header of the last commit: by our commit number where both can say it."""
    if not headers:
        return None, NO_PAGE
    commits = {each.txnid: _commit(pages, each.root) for each in headers}
    known = min(commits.values()) >= 0  # two of one number: the later is the mark of a clean close
    best = max(headers, key=lambda each: (commits[each.txnid] if known else 0, each.txnid))
    return best, best.root


def _commit(pages: _Pages, root: int) -> int:
    """The commit number in the meta record that a tree ends with; -1 where it cannot be read."""
    number = root
    for _ in range(header.MAX_DEPTH):
        last = pages.last(number, BRANCH | LEAF)
        if last is None:
            return -1
        if last.child == NO_PAGE:
            return _commit_in(pages, last)
        number = last.child
    return -1


def _commit_in(pages: _Pages, node: Entry) -> int:
    if node.key != keys.META_KEY:
        return -1
    try:
        return meta.decode(pages.value(node), "").commit
    except VecdbError:
        return -1


def _last_trees(pages: _Pages) -> tuple[int, list[int]]:
    """The highest commit number on any leaf, and the roots of trees that end there.

    There is one, unless a free page of old names a page that has been used anew as its last.
    """
    commit, number = -1, NO_PAGE
    for each in pages.leaves(pages.count):
        raw = pages.read(each, LEAF)
        for node in pages.nodes(each, raw) if raw is not None else ():
            if node.key == keys.META_KEY and _commit_in(pages, node) > commit:
                commit, number = _commit_in(pages, node), each
    if number == NO_PAGE:
        return commit, []
    parents: dict[int, list[int]] = {}
    for each in pages.branches():
        last = pages.last(each, BRANCH)
        if last is not None:
            parents.setdefault(last.child, []).append(each)
    roots, waiting, seen = [], [number], {number}
    while waiting:
        each = waiting.pop()
        above = [page for page in parents.get(each, ()) if page not in seen]
        seen.update(above)
        waiting += above
        if each not in parents:
            roots.append(each)
    sizes = {each: len(_walk(pages, each)[0]) for each in roots[:MOST_ROOTS]}
    return commit, sorted(sizes, key=lambda each: sizes[each], reverse=True)


def _walk(pages: _Pages, root: int) -> tuple[set[int], int]:
    """The leaves that a root leads to, and how many pages on the way are broken."""
    leaves: set[int] = set()
    seen: set[int] = set()
    holes, waiting = 0, [] if root == NO_PAGE else [root]
    while waiting:
        number = waiting.pop()
        raw = pages.read(number, BRANCH | LEAF)
        if raw is None or number in seen:
            holes += 1
            continue
        seen.add(number)
        if PAGE.unpack_from(raw)[2] & LEAF:
            leaves.add(number)
            continue
        children = [node.child for node in pages.nodes(number, raw)]
        holes += (PAGE.unpack_from(raw)[3] - HEADER) // 2 - len(children)
        waiting += children
    return leaves, holes


def _is_whole(pages: _Pages, root: int) -> bool:
    """Whether a tree that ends in the meta record has no holes and begins where trees begin.

    What ends rightly may be a branch below a root that is broken; the first key is the catalog's.
    """
    leaves, holes = _walk(pages, root)
    found: list[bytes] = []
    for number in leaves:
        raw = pages.read(number, LEAF)
        found += [entry.key for entry in pages.nodes(number, raw or bytes(PAGE.size))]
    return bool(found) and not holes and min(found)[:1] == bytes((keys.CATALOG,))


def _free_pages(pages: _Pages, newest: Header, leaves: set[int]) -> set[int] | None:
    """Every page that is not in use, those of the list itself too; None where it is broken."""
    if newest.free_root == NO_PAGE:
        return set()
    own, holes = _walk(pages, newest.free_root)
    if holes or own & leaves:
        return None
    free = set(own)
    for number in own:
        raw = pages.read(number, LEAF)
        if raw is None:  # somebody has just written there
            return None
        for node in pages.nodes(number, raw):
            value = pages.value(node)
            if len(value) < U64.size:
                return None
            count = U64.unpack_from(value)[0]
            if len(node.key) != U64.size or len(value) != U64.size * (count + 1):
                return None
            listed = [U64.unpack_from(value, U64.size * (at + 1))[0] for at in range(count)]
            if any(not 2 <= page <= newest.last_page for page in listed):
                return None
            free.update(listed)
    return None if free & leaves else free


# --- records -------------------------------------------------------------------------------------


def _take(
    found: Salvaged,
    pages: _Pages,
    leaves: Iterable[int],
    *,
    name_bad: bool,
    known: frozenset[bytes] = frozenset(),
) -> int:
    """Note the sound records of leaves and, where it means something, the keys of the others."""
    entries = 0
    for number in leaves:
        raw = pages.read(number, LEAF)
        for node in pages.nodes(number, raw) if raw is not None else ():
            entries += 1
            key = node.key
            if not key or key[0] not in WANTED or key in known or not keys.well_formed(key):
                continue
            if key[0] == keys.LOG and key != keys.state(int.from_bytes(key[1:5], "big")):
                continue
            record = pages.value(node)
            try:
                payload = _core.unseal(key[0], key, record)
            except ValueError as error:
                if name_bad:
                    found.bad.setdefault(key, str(error))
                continue
            if key not in found.places or _later(found, key, payload):
                found.places[key] = (node.offset, node.size)
    return entries


def _later(found: Salvaged, key: bytes, payload: memoryview) -> bool:
    """Whether a second record of a key is of a later commit than the one that is known."""
    if not found.uncertain:
        return False
    try:
        before = _core.unseal(key[0], key, found.get(key) or b"")
    except ValueError:  # somebody has just written there
        return True
    if key[0] == keys.ROWS:  # `changed` is the first number of a row
        return bytes(payload[:8][::-1]) > bytes(before[:8][::-1])
    if key[0] == keys.LOG:
        return _stage(key, payload) > _stage(key, before)
    if key[0] == keys.META:  # the commit number
        return bytes(payload[16:24][::-1]) > bytes(before[16:24][::-1])
    if key[0] == keys.CATALOG:
        return _fields_so_far(key, payload) > _fields_so_far(key, before)
    return False


def _stage(key: bytes, payload: memoryview) -> int:
    """The last commit that a collection's state tells of; -1 where it cannot be read."""

    class One:
        def get(self, _: bytes) -> bytes:
            return bytes(_core.seal(key[0], key, payload))

    try:
        now = state.read(One(), int.from_bytes(key[1:5], "big"))
    except VecdbError:
        return -1
    return max([now.rows_last, *(each.links_last for each in now.vectors.values())])


def _fields_so_far(key: bytes, payload: memoryview) -> int:
    """How many vector fields a collection ever had, by its declaration; -1 where it is damaged."""
    try:
        return schema.unpack(key, _core.seal(key[0], key, payload)).next_number
    except VecdbError:
        return -1
