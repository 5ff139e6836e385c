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

from vecdb.options import Durability

if TYPE_CHECKING:
    Engine = lmdb.Environment
    Txn = lmdb.Transaction[memoryview]

LMDB_ERRORS = (lmdb.Error,)

MAP_SIZE = 1 << 40
LEAST_MAP = 1 << 24
LOCK_BYTES = 1 << 16  # of the "-lock" file: head of 192 bytes and a slot of 64 per reader
MAX_READERS = (LOCK_BYTES - 192) // 64 + 1
VERSION = ".".join(map(str, lmdb.version(lib_version=0)))

_PAGE = 65536  # a multiple of every system's page size
_forks = 0


def open_engine(
    data: str,
    *,
    durability: Durability,
    writable: bool,
    locked: bool,
    max_size: int | None,
) -> tuple[Engine, int]:
    """Open LMDB on a data file with the largest map that can be had; return it and its size.

    Raises LMDB's errors, and OSError when there is no room for the reader table.
    """
    if locked:
        _reserve(data + "-lock")
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


def _reserve(lock: str) -> None:
    """Give the reader table its place on the disk before LMDB maps it.

    LMDB makes a sparse file: on a full disk the first touch of one of its pages would kill the
    process (SIGBUS, measured). This process does not have the file open, so that closing it
    drops no lock.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(fd).st_blocks * 512 < LOCK_BYTES:
            os.posix_fallocate(fd, 0, LOCK_BYTES)
    finally:
        os.close(fd)


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
