"""How does a search read rows without asking the engine for each of them?

LMDB hands out addresses inside its map of the file, and a reader's snapshot does not change while
its transaction lives. `at` finds, once per commit, the map's first address and the commit's tree
(`_core.Tree`, pages.h); lookups then cost a walk through pages that are in memory anyway, instead
of a call into the engine, three objects and a copy each.

Invariants:
  T1  the map is found in the system's own list of this process's mappings, by the address of a
      record that the engine handed out (inodes repeat from one file system to the next, and a
      forked child has inherited maps of the same file); where there is no such list, there is no
      tree, and the engine is asked;
  T2  a tree is used only inside a transaction of its commit, as the meta record's bytes show, or
      between two looks that find it the file's last (`Lookup.get`, _core/pages.h), and only while
      the environment that it was found in is open (`begin` is the same object).

Rejected: a map of our own. Twice the page tables, and growing it is the engine's business already.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb import _core
from vecdb.storage.keys import META_KEY

if TYPE_CHECKING:
    from vecdb.storage.shared import Shared


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a search needs to read one commit by itself."""

    tree: Any  # _core.Tree
    record: bytes  # the meta record
    shared: Shared  # its `begin` must still be this one
    begin: Any


def at(shared: Shared, txn: Any) -> Snapshot | None:
    """The snapshot of a read transaction's commit; None where the map cannot be read directly."""
    record = txn.get(META_KEY)
    known = shared.snapshot
    begin = shared.begin
    if known is not None and known.begin is begin and record == known.record:
        return known
    if record is None:
        return None
    base = _base(shared, record)
    if not base:
        return None
    try:
        tree = _core.Tree(base, _PAGE, os.fstat(shared.fd).st_size, record)
    except (OSError, ValueError):
        return None
    shared.snapshot = Snapshot(tree, bytes(record), shared, begin)
    return shared.snapshot


def lookup(snapshot: Snapshot, graph: Any, cid: int, make: Any, decode: Any, dtype: Any) -> Any:
    """What reads a collection's rows by their ids (`_core.Lookup`): `make` makes the records."""
    return _core.Lookup(
        graph, snapshot.tree, snapshot.shared, snapshot.begin, snapshot.record, cid,
        make, decode, dtype,
    )  # fmt: skip


def _base(shared: Shared, record: Any) -> int:
    """The first address of the engine's map; 0 when it is not found. Looked up once an epoch."""
    if shared.base is None or shared.base[0] != shared.epoch:
        address = int(np.frombuffer(record, np.uint8).ctypes.data)
        shared.base = (shared.epoch, _find(address))
    return shared.base[1]


def _find(address: int) -> int:
    try:
        with open("/proc/self/maps", encoding="ascii", errors="replace") as mappings:
            for line in mappings:
                fields = line.split(maxsplit=3)
                start, end = (int(part, 16) for part in fields[0].split("-"))
                if start <= address < end:  # a part of the map that begins so far into the file
                    return start - int(fields[2], 16)
    except (OSError, ValueError, IndexError):
        pass
    return 0


_PAGE = os.sysconf("SC_PAGE_SIZE")
