"""How is LMDB asked? (the only importer of lmdb)

Everything here is a plain function around one LMDB call, with its errors still LMDB's;
shared.py and env.py decide what to do about them, translate.py what they are called.

The map reserves 1 TiB of addresses, which cost nothing, or the largest half of that which
can be had; with `max_size` it reserves exactly that, which makes it the limit, to the page.

Rejected: `writemap` (loses the engine's hardening), resizing the map in place (a live reader is
killed by SIGBUS), a map that starts small and grows (a write transaction would have to be
repeated).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lmdb
import lmdb.verify
from lmdb import _envid

from vecdb.errors import Full
from vecdb.options import Durability

if TYPE_CHECKING:
    Engine = lmdb.Environment
    Txn = lmdb.Transaction[memoryview]

LMDB_ERRORS = (lmdb.Error,)

MAP_SIZE = 1 << 40
LEAST_MAP = 1 << 24
MAX_READERS = 1022  # LMDB's own table of 126 is soon full: a slot is 64 bytes
VERSION = ".".join(map(str, lmdb.version(lib_version=0)))

ROOM = 160 << 10  # the reader table and the first pages
_PAGE = 65536  # a multiple of every system's page size
_forks = 0


def _require_room(data: str) -> None:
    """Full when a new reader table cannot be allocated: touching its map would be a SIGBUS."""
    if os.path.exists(data + "-lock"):
        return
    folder = os.statvfs(os.path.dirname(data) or ".")
    free = folder.f_bavail * folder.f_frsize
    if free < ROOM:
        raise Full(
            f"{data} needs {ROOM:,} bytes to begin with, and the disk has {free:,} left; "
            "free some space",
            kind="disk",
        )


def open_engine(
    data: str,
    *,
    durability: Durability,
    writable: bool,
    locked: bool,
    max_size: int | None,
) -> tuple[Engine, int]:
    """Open LMDB on a data file with the largest map that can be had; return it and its size."""
    if locked:
        _require_room(data)
    size = _map_size(data, max_size)
    while True:
        try:
            with _own_files():
                return (
                    lmdb.open(
                        data,
                        map_size=size,
                        subdir=False,
                        lib_version=0,
                        max_dbs=0,
                        max_readers=MAX_READERS,
                        writemap=False,
                        readonly=not writable,
                        lock=locked,
                        sync=durability != "none",
                        metasync=durability == "full",
                    ),
                    size,
                )
        except lmdb.Error as error:
            smaller = size // 2
            if getattr(error, "code", 0) != errno.ENOMEM or smaller < _least(data):
                raise
            size = smaller


def readers(env: Engine) -> list[tuple[int, int]]:
    """Return (pid, LMDB id) of every reader with a snapshot; ValueError when unreadable."""
    rows = [line.split() for line in env.readers().splitlines()]
    if not rows or rows[0][:1] == ["(no"]:
        return []
    if rows[0] != ["pid", "thread", "txnid"]:
        raise ValueError("LMDB's reader table cannot be parsed")
    return [(int(pid), int(txn_id)) for pid, _, txn_id in rows[1:] if txn_id != "-"]


def end(txn: Any) -> None:
    """Abort a transaction that may have ended already."""
    try:
        txn.abort()
    except lmdb.Error:
        pass


def check_structure(data: str) -> list[str]:
    """Return every violation of the file's structure, found without the C engine."""
    try:
        verify: Any = lmdb.verify.verify
        return list(verify(data, subdir=False))
    except lmdb.verify.VerifyError as error:
        return [str(error)]


def readers_full(error: BaseException) -> bool:
    """Is the reader table full?"""
    return isinstance(error, lmdb.ReadersFullError)


def must_renew(error: BaseException) -> bool:
    """Must the environment be closed and opened again before it works?

    After a failed write of its own header (it refuses everything), and when another process has
    made the file longer than this one's map.
    """
    return isinstance(error, lmdb.PanicError | lmdb.MapResizedError)


def forked() -> None:
    """Note that this process is a child: its parent's files count as open (`_own_files`)."""
    global _forks
    _forks += 1


@contextmanager
def _own_files() -> Iterator[None]:
    """Let a forked child open what its parent has open.

    py-lmdb refuses to open a file twice in a process, and counts what a child has inherited,
    which the child can neither use nor close. In children its keys are marked, so that they
    differ from the inherited ones; in a process that was not forked nothing is touched.
    """
    if not _forks:
        yield
        return
    plain: Any = _envid.env_keys
    mark = os.getpid()
    _envid.env_keys = lambda *args: tuple((mark, key) for key in plain(*args))
    try:
        yield
    finally:
        _envid.env_keys = plain


def _map_size(data: str, max_size: int | None) -> int:
    if max_size is None:
        return MAP_SIZE
    whole = max(max_size, _file_size(data))  # a file beyond the limit can still be read
    return max(whole // _PAGE * _PAGE, -(-_file_size(data) // _PAGE) * _PAGE)


def _least(data: str) -> int:
    return max(LEAST_MAP, _file_size(data))


def _file_size(data: str) -> int:
    try:
        return os.stat(data).st_size
    except OSError:
        return 0
