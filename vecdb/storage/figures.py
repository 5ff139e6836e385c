"""What can be told of an open file: sizes, space, readers, and what the oldest of them pins?

Everything is as of one commit, whose reader is held meanwhile (space.py, S1). Readers that ended without
saying so are taken out of the engine's table first: they pin nothing any more.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from vecdb.storage import engine, header, space, times
from vecdb.storage.counted import plain
from vecdb.storage.engine import LMDB_ERRORS, end, readers
from vecdb.storage.keys import META_KEY
from vecdb.storage.space import Space

if TYPE_CHECKING:
    from vecdb.storage.engine import Txn
    from vecdb.storage.shared import Shared

TRIES: Final = 20  # beginnings of a transaction whose header others' commits have not replaced yet


def figures(shared: Shared) -> tuple[dict[str, Any], Space | None]:
    """Sizes, readers and settings as of the last commit, and where the space goes."""
    txn, found = _begin(shared)  # held to the end: nobody closes what is asked
    try:
        walked = _walk(shared, found)
        return _said(shared, txn, walked), walked
    finally:
        end(txn)


def space_of(shared: Shared) -> Space | None:
    """Where the space of the last commit goes; None where its pages cannot be followed."""
    txn, found = _begin(shared)
    try:
        return _walk(shared, found)
    finally:
        end(txn)


def _begin(shared: Shared) -> tuple[Txn, header.Header | None]:
    """A reader and the header of its commit, which the next commit but one writes over."""
    for _ in range(TRIES):
        txn = shared.begin_again(False)
        try:
            for found in header.read_headers(shared.fd, txn.stat()["psize"]):
                if found.txnid == plain(txn).id():
                    return txn, found
        except BaseException:
            end(txn)
            raise
        end(txn)
    return shared.begin_again(False), None


def _walk(shared: Shared, found: header.Header | None) -> Space | None:
    try:
        return None if found is None else space.walk(shared.fd, found)
    except space.Unsound:
        return None


def _said(shared: Shared, txn: Txn, walked: Space | None) -> dict[str, Any]:
    found, stat, said = shared.decode(txn.get(META_KEY)), txn.stat(), shared.lmdb.info()
    others = _others(shared, txn)
    return {
        "path": shared.name,
        "file_bytes": os.fstat(shared.fd).st_size,
        "used_bytes": stat["psize"]
        * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]),
        "space": None if walked is None else walked.by_purpose(),
        "page_bytes": stat["psize"],
        "pages": said["last_pgno"] + 1,
        "records": stat["entries"],
        "depth": stat["depth"],
        "map_bytes": shared.map_size,
        "max_size": shared.max_size,
        "commit": found.commit,
        "format": found.format,
        "readers": len(others),
        "oldest_reader": _oldest(others, txn, walked),
        "max_readers": said["max_readers"],
        "durability": shared.durability,
        "engine": engine.VERSION,
    }


def _others(shared: Shared, txn: Txn) -> list[tuple[int, int]]:
    """(process, transaction) of every reader of any process but this one's transaction."""
    if shared.immutable:
        return []
    try:
        shared.lmdb.reader_check()
    except LMDB_ERRORS:
        pass
    found = readers(shared.lmdb)
    mine = (os.getpid(), txn.id())
    if mine in found:
        found.remove(mine)
    return found


def _oldest(
    others: list[tuple[int, int]], txn: Txn, walked: Space | None
) -> dict[str, Any] | None:
    """The reader whose snapshot is the oldest, and what it keeps from being used again."""
    if not others:
        return None
    pid, seen = min(others, key=lambda reader: reader[1])
    least, most = times.age(times.read(txn), seen, time.time())
    return {
        "pid": pid,
        "commits": max(0, txn.id() - seen),
        "at_least_seconds": least,
        "at_most_seconds": most,
        "pinned_bytes": None if walked is None else walked.pinned(seen, txn.id()),
    }
