"""Which error of vecdb's does an error of LMDB's stand for?

Works on the names and codes of the exceptions, so that it needs no LMDB. Every message
names the file, what LMDB said, and the remedy. `limit` is the size of the map: the user's
`max_size`, or the address space that could be had.
"""

from __future__ import annotations

import errno

from vecdb.errors import (
    Closed,
    Corrupt,
    Full,
    ReadOnly,
    TooManyReaders,
    VecdbError,
    WrongFormat,
)
from vecdb.storage import place

_DAMAGE = ("CorruptedError", "PageNotFoundError", "BadChecksumError")
_FORMAT = ("InvalidError", "VersionMismatchError")
_TOO_MUCH = ("TxnFullError", "CursorFullError", "PageFullError")


def translated(error: BaseException, path: str, limit: int, chosen: bool) -> VecdbError:
    """Return our error; `chosen`: the limit is the user's max_size."""
    if isinstance(error, VecdbError):
        return error
    name = type(error).__name__
    code = getattr(error, "code", 0)
    what = f"{path}: {error}"
    if name == "MapFullError":
        return _map_full(path, limit, chosen)
    short = code == errno.EIO and place.out_of_room(path)
    if short or name == "DiskError" or code in place.FULL_ERRNOS:
        return Full(
            f"{path}: the disk has no room for this write ({error}); nothing of it was kept: "
            "free space and write again",
            kind="disk",
        )
    if name == "ReadersFullError":
        return TooManyReaders(
            f"{path}: every slot for a concurrent reader is taken by a living one; close "
            "snapshots, iterators or processes that are not needed"
        )
    if name in _DAMAGE:
        return Corrupt(
            f"{what}. The file is damaged: save what is sound with vecdb.repair(src, dst), or "
            "restore a backup",
            code="structure",
            where=path,
            detail=str(error),
        )
    if name in _FORMAT:
        return WrongFormat(f"{what}. Not a file that this version can open")
    if name == "ReadonlyError" or code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ReadOnly(f"{what}. Open it with mode='rw', and check the permissions")
    if name in _TOO_MUCH:
        return Full(f"{what}. One transaction changes too much: write in batches", kind="map")
    if code == errno.ENOMEM:
        return Full(f"{what}. Memory or address space is used up: free some", kind="map")
    if code == 0 and "closed" in str(error):
        return Closed(f"{path} is closed, or the transaction has ended")
    return VecdbError(f"{what}. Check the disk, then open the database again")


def _map_full(path: str, limit: int, chosen: bool) -> Full:
    if chosen:
        return Full(
            f"{path} would grow beyond max_size={limit:,} bytes; nothing of this write was "
            "kept: delete rows, call compact(), or open with a larger max_size",
            kind="map",
        )
    return Full(
        f"{path} would grow beyond the {limit:,} bytes of address space that this process "
        "could reserve; nothing of this write was kept: raise the limit (ulimit -v)",
        kind="map",
    )
