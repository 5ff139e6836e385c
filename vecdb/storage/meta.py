"""What does the database say about itself as a whole?

The meta record is the last key of the tree, written by every commit in the leaf of that
commit's log. Payload (after the frame of 12 bytes), little-endian, 80 bytes:

    offset  size  content
    0       8     MAGIC
    8       4     format number
    12      4     flags: bit 0 = closed cleanly after this commit
    16      8     commit number (ours; LMDB's ids are never compared)
    24      16    nonce, random per commit: settles whether a commit that failed has landed
    40      8     generation, random per file: a copy or a compacted file gets another
    48      8     catalog version: grows when any schema changes
    56      4     next collection id
    60      4     zero
    64      16    boot id of the machine run that wrote it

Invariants:
  E1  magic and format number stay at these offsets in every format to come, so that an older
      version can always say what it found;
  E2  every commit changes commit number and nonce and clears the clean mark; setting the mark
      changes neither;
  E3  the record is never longer than a page: it can be found in the raw file (header.py).

Rejected: msgpack for this record. It is compared and read on every search, and it must stay
readable across formats.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from struct import Struct
from typing import NoReturn

from vecdb import _core
from vecdb.errors import Corrupt, WrongFormat
from vecdb.storage.keys import META, META_KEY

# 1: a collection had one vector field; 2: no slot was handed out again; 3: there was no full text; 4: no
# vectors stood behind others. All are read, and written as 5.
FORMAT_VERSION = 5
MAGIC = b"vecdb\r\n\x1a"  # a text-mode copy would damage it visibly
FRAME = 12  # bytes before the payload of every record

_CLEAN = 1
_CHANGED = frozenset(("catalog_version", "next_cid"))
_PAYLOAD = Struct("<8sIIQ16sQQII16s")
_PEEK = Struct("<8sI")


@dataclass(frozen=True, slots=True)
class Meta:
    """The meta record of one commit."""

    format: int
    commit: int
    nonce: bytes
    generation: int
    catalog_version: int
    next_cid: int
    clean: bool
    boot: bytes


def first_meta() -> Meta:
    """Return the record of a new, empty database."""
    return Meta(
        format=FORMAT_VERSION,
        commit=0,
        nonce=os.urandom(16),
        generation=new_generation(),
        catalog_version=0,
        next_cid=1,
        clean=False,
        boot=boot_id(),
    )


def next_meta(meta: Meta, changes: dict[str, int]) -> Meta:
    """Return the record of the commit after `meta`; changes: catalog_version, next_cid."""
    if not changes.keys() <= _CHANGED:
        raise TypeError(f"no commit changes {sorted(changes.keys() - _CHANGED)}")
    return Meta(
        format=FORMAT_VERSION,
        commit=meta.commit + 1,
        nonce=os.urandom(16),
        generation=meta.generation,
        catalog_version=changes.get("catalog_version", meta.catalog_version),
        next_cid=changes.get("next_cid", meta.next_cid),
        clean=False,
        boot=boot_id(),
    )


def as_clean(meta: Meta) -> Meta:
    """Return the record with the mark of a clean close; commit number and nonce stay."""
    return replace(meta, clean=True, boot=boot_id())


def as_copy(meta: Meta) -> Meta:
    """Return the record for a copy of the file: complete, and another generation."""
    return replace(meta, clean=True, boot=boot_id(), generation=new_generation())


def new_generation() -> int:
    """Return a random number that names a file; never 0."""
    return int.from_bytes(os.urandom(8), "little") | 1


def encode(meta: Meta) -> bytes:
    """Return the framed record."""
    payload = _PAYLOAD.pack(
        MAGIC,
        meta.format,
        _CLEAN if meta.clean else 0,
        meta.commit,
        meta.nonce,
        meta.generation,
        meta.catalog_version,
        meta.next_cid,
        0,
        meta.boot,
    )
    return bytes(_core.seal(META, META_KEY, payload))


def decode(record: bytes | memoryview | None, path: str) -> Meta:
    """Return the record's content.

    WrongFormat when it is missing, another program's, or of a newer format; Corrupt when its
    checksum fails. `path` names the file in the message.
    """
    if record is None:
        refuse_foreign(path)
    raw = bytes(record)
    if len(raw) < FRAME + _PEEK.size:
        refuse_foreign(path)
    magic, found = _PEEK.unpack_from(raw, FRAME)
    if magic == MAGIC and found > FORMAT_VERSION:
        refuse_newer(path, found)
    try:
        payload = _core.unseal(META, META_KEY, raw)
        if len(payload) != _PAYLOAD.size:
            raise ValueError(f"payload of {len(payload)} bytes instead of {_PAYLOAD.size}")
    except ValueError as error:
        if magic != MAGIC and raw[0] != META:
            refuse_foreign(path)
        raise Corrupt(
            f"{path}: the meta record is damaged ({error}); "
            "save what is sound with vecdb.repair(src, dst), or restore a backup",
            code="meta",
            where="meta",
            detail=str(error),
        ) from None
    magic, number, flags, commit, nonce, generation, catalog, cid, _, boot = _PAYLOAD.unpack(
        payload
    )
    if magic != MAGIC:
        refuse_foreign(path)
    return Meta(number, commit, nonce, generation, catalog, cid, bool(flags & _CLEAN), boot)


def refuse_foreign(path: str, what: str = "is no vecdb database") -> NoReturn:
    """Raise WrongFormat for a file that is not ours."""
    raise WrongFormat(
        f"{path} {what}; nothing in it was changed. Give the path of a vecdb file, "
        "or one that does not exist yet",
        found=None,
        supported=FORMAT_VERSION,
    )


def refuse_newer(path: str, found: int) -> NoReturn:
    """Raise WrongFormat for a file of a later vecdb."""
    raise WrongFormat(
        f"{path} has format {found}; this version of vecdb reads formats up to "
        f"{FORMAT_VERSION}: install a newer vecdb. Nothing in the file was changed",
        found=found,
        supported=FORMAT_VERSION,
    )


@cache
def boot_id() -> bytes:
    """Return 16 bytes that change when the machine restarts; zeros where they cannot be had."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return bytes.fromhex(file.read().decode("ascii").strip().replace("-", ""))[:16]
    except (OSError, ValueError):
        return UNKNOWN_BOOT


UNKNOWN_BOOT = bytes(16)


def stopped_uncleanly(meta: Meta) -> bool:
    """Was the machine stopped since the last commit, without a clean close before it?"""
    return not meta.clean and (meta.boot != boot_id() or meta.boot == UNKNOWN_BOOT)
