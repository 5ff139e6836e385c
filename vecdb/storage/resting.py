"""Which slots may a reader still look at, although their rows are gone or they left the graphs?

A slot that has died may be taken out of the graphs only when no reader, in any process, is older than
its death; one that was taken out may be handed out again only when none is older than that (rule 5 of
the design). So each commit that lets slots die or vacates them enters them here, with LMDB's id of its
transaction, and a later writer takes entries out that are due.

Invariants (checked by vecdb/check/):
  Q1  a slot is in one entry at most, and is not live;
  Q2  `State.resting` is how many there are.

LMDB's ids are compared here and nowhere else (storage/writing.py: reader_floor, due). Several commits
share an entry, with the id of the last, so that a reader that stays for long does not make it many.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.storage import keys, records, rows

SHARED: Final = 128  # slots up to which an entry takes those of the next commit
_ID: Final = Struct("<Q")


class Entry(NamedTuple):
    """Slots that rest since the commit with an LMDB id."""

    key: bytes
    id: int
    slots: npt.NDArray[np.uint32]


def read(txn: Any, cid: int) -> Iterator[Entry]:
    """Every entry, the oldest first."""
    end = keys.state(cid)
    cursor = txn.cursor()
    found = cursor.set_range(keys.resting(cid, 0))
    while found:
        key = bytes(cursor.key())
        if key >= end:
            return
        yield _entry(key, cursor.value())
        found = cursor.next()


def put(txn: Any, cid: int, commit: int, id: int, slots: npt.NDArray[np.uint32]) -> None:
    """Enter slots that died or were vacated in the transaction with this LMDB id."""
    last = _last(txn, cid)
    if last is not None and len(last.slots) + len(slots) <= SHARED:
        slots = np.concatenate((last.slots, slots))
        txn.delete(last.key)
    key = keys.resting(cid, commit)
    records.put(txn, key, _ID.pack(id) + slots.astype("<u4").tobytes())


def _last(txn: Any, cid: int) -> Entry | None:
    cursor = txn.cursor()
    if not cursor.set_range(keys.state(cid)) or not cursor.prev():
        return None
    key = bytes(cursor.key())
    return _entry(key, cursor.value()) if key >= keys.resting(cid, 0) else None


def _entry(key: bytes, record: Any) -> Entry:
    payload = rows.open_record(keys.LOG, key, record, code="Q1")
    if len(payload) < _ID.size or len(payload) % 4:
        raise rows.damaged("Q1", key, f"{len(payload)} bytes are no id and slots")
    slots = np.frombuffer(payload[_ID.size :], "<u4").copy()
    return Entry(key, _ID.unpack_from(payload)[0], slots)
