"""What can be told of a file without trusting it to the engine?

A damaged or truncated file kills the process inside LMDB (SIGBUS, assertion) instead of
raising, so the first look at a file reads bytes: the two meta pages, the file's size, and
the last record of the tree, which is vecdb's own meta record. Every offset is checked
before it is used.

LMDB 0.9 layout, native byte order, 64-bit:
    page      number u64, pad u16, flags u16, lower u16, upper u16; node offsets u16 from 16
    meta      (after the 16 bytes) magic u32, version u32, address u64, map size u64,
              two trees of 48 bytes, last page u64, transaction u64;
              the first tree's pad is the page size
    tree      pad u32, flags u16, depth u16, branch, leaf and overflow pages u64,
              entries u64, root u64
    node      lo u16, hi u16, flags u16, key size u16, key; then data, or for a branch
              the child page in lo, hi and flags

Invariants:
  H1  reading never changes the file and needs no lock: beside a live writer a page may be taken
      for reuse meanwhile, so a look that fails means "look again under the writer lock";
  H2  a file that is shorter than its last page is only a suspicion (large values freed inside
      one transaction leave it so): it asks for verification, it is no verdict;
  H3  nothing that the tree reaches may lie beyond the end of the file (`lost_values`).
"""

from __future__ import annotations

import os
import struct
import sys
from dataclasses import dataclass
from struct import Struct, error

LMDB_MAGIC = 0xBEEFC0DE
DATA_VERSION = 1  # LMDB 0.9; 1.0 writes 3, with a longer page header
MAX_DEPTH = 32
NO_PAGE = (1 << 64) - 1

_E = "<" if sys.byteorder == "little" else ">"
_META = Struct(_E + "IIQQ")
_TREE = Struct(_E + "IHHQQQQQ")
_TAIL = Struct(_E + "QQ")
PAGE = Struct(_E + "QHHHH")
NODE = Struct(_E + "HHHH")
U16 = Struct(_E + "H")
U64 = Struct(_E + "Q")
HEADER = 16
_META_BYTES = HEADER + _META.size + 2 * _TREE.size + _TAIL.size
BRANCH, LEAF, OVERFLOW, META_PAGE = 0x01, 0x02, 0x04, 0x08
BIG = 0x01


class NotLmdb(ValueError):
    """The bytes are not those of an LMDB 0.9 file; the message says what was found."""


class Unreadable(ValueError):
    """The last record could not be reached; the message says where the walk ended."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the newer meta page says, and the size that the file really has."""

    page_size: int
    last_page: int
    txnid: int
    root: int
    entries: int
    free_root: int
    file_size: int

    @property
    def short(self) -> bool:
        """Is the file shorter than its last page?"""
        return self.file_size < (self.last_page + 1) * self.page_size

    @property
    def unused(self) -> bool:
        """Did nobody ever commit anything here (a creation that was interrupted)?"""
        return self.txnid == 0 and self.root == NO_PAGE


def read_header(fd: int) -> Header:
    """Return the header of an open file; NotLmdb when it has none."""
    size = os.fstat(fd).st_size
    first = os.pread(fd, _META_BYTES, 0)
    if len(first) < _META_BYTES:
        raise NotLmdb(f"has only {size} bytes")
    page_size = _page_size(first)
    second = os.pread(fd, _META_BYTES, page_size)
    metas = [_meta(first, size, page_size)]
    if len(second) == _META_BYTES and _META.unpack_from(second, HEADER)[0] == LMDB_MAGIC:
        metas.append(_meta(second, size, page_size))
    return max(metas, key=lambda meta: meta.txnid)


def read_headers(fd: int, page_size: int) -> list[Header]:
    """Return what each of the two meta pages says, if it can be a meta page at all."""
    size, found = os.fstat(fd).st_size, []
    for number in (0, 1):
        raw = os.pread(fd, _META_BYTES, number * page_size)
        if len(raw) < _META_BYTES or not PAGE.unpack_from(raw)[2] & META_PAGE:
            continue
        try:
            if _page_size(raw) == page_size:
                found.append(_meta(raw, size, page_size))
        except NotLmdb:
            continue
    return found


def last_record(fd: int, header: Header) -> tuple[bytes, bytes]:
    """Return key and value of the tree's last record; Unreadable when the walk fails."""
    page = header.root
    if page == NO_PAGE:
        raise Unreadable("the tree is empty")
    try:
        for _ in range(MAX_DEPTH):
            raw = os.pread(fd, header.page_size, page * header.page_size)
            number, _, flags, lower, _ = PAGE.unpack_from(raw, 0)
            count = (lower - HEADER) // 2
            if number != page or count < 1 or len(raw) < header.page_size:
                raise Unreadable(f"page {page} is not what its parent says")
            at = U16.unpack_from(raw, HEADER + 2 * (count - 1))[0]
            low, high, node_flags, key_size = NODE.unpack_from(raw, at)
            start = at + NODE.size
            if flags & BRANCH:
                page = low | high << 16 | node_flags << 32
                continue
            size = low | high << 16
            if not flags & LEAF or node_flags & BIG or start + key_size + size > len(raw):
                raise Unreadable(f"page {page} holds no plain last record")
            middle = start + key_size
            return raw[start:middle], raw[middle : middle + size]
    except (error, OverflowError, OSError) as problem:
        raise Unreadable(f"page {page}: {problem}") from None
    raise Unreadable(f"the tree is deeper than {MAX_DEPTH} levels")


def lost_values(fd: int, header: Header) -> list[str]:
    """Return the large values that reach beyond the end of a short file, as findings.

    LMDB's own check reads the first page of a large value only, and the engine would be killed
    by the rest. The tree must have passed that check. Costs a pass over the leaves.
    """
    findings: list[str] = []
    pages = [page for page in (header.root, header.free_root) if page != NO_PAGE]
    end = header.file_size // header.page_size
    while pages:
        raw = os.pread(fd, header.page_size, pages.pop() * header.page_size)
        if len(raw) < header.page_size:
            return [*findings, "a page of the tree lies beyond the end of the file"]
        _, _, flags, lower, _ = PAGE.unpack_from(raw, 0)
        for at in struct.unpack_from(f"{_E}{(lower - HEADER) // 2}H", raw, HEADER):
            low, high, node_flags, key_size = NODE.unpack_from(raw, at)
            if flags & BRANCH:
                pages.append(low | high << 16 | node_flags << 32)
            elif node_flags & BIG:
                first = U64.unpack_from(raw, at + NODE.size + key_size)[0]
                size = HEADER + (low | high << 16)
                if first + -(-size // header.page_size) > end:
                    key = raw[at + NODE.size :][:key_size].hex()
                    findings.append(f"the value of key {key} lies beyond the end of the file")
    return findings


def _page_size(first: bytes) -> int:
    magic, version, _, _ = _META.unpack_from(first, HEADER)
    if magic != LMDB_MAGIC:
        if _META.unpack_from(first, 24)[0] == LMDB_MAGIC:
            raise NotLmdb("is a file of LMDB 1.0, which vecdb does not use")
        if magic == int.from_bytes(LMDB_MAGIC.to_bytes(4, "big"), "little"):
            raise NotLmdb("was written on a machine of the other byte order")
        raise NotLmdb("is no vecdb database")
    if version != DATA_VERSION:
        raise NotLmdb(f"is an LMDB file of data version {version}")
    page_size = int(_TREE.unpack_from(first, HEADER + _META.size)[0])
    if not 256 <= page_size <= 65536 or page_size & (page_size - 1):
        raise NotLmdb(f"names an impossible page size of {page_size}")
    return page_size


def _meta(raw: bytes, file_size: int, page_size: int) -> Header:
    free = _TREE.unpack_from(raw, HEADER + _META.size)
    main = _TREE.unpack_from(raw, HEADER + _META.size + _TREE.size)
    last_page, txnid = _TAIL.unpack_from(raw, HEADER + _META.size + 2 * _TREE.size)
    return Header(page_size, last_page, txnid, main[7], main[6], free[7], file_size)
