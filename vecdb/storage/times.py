"""When was a commit made, roughly? So that the age of an old reader can be told.

The engine knows a reader by the last transaction that it sees, and keeps no time. One small record,
beside the meta record in a leaf that every commit writes anyway, holds pairs of a transaction's number
and a time, at most one a second, and fewer the longer ago: between two that are kept there is never
more time than has gone by since the later one. So an age is known within a factor of two.

    EE   up to KEPT entries, ascending: LMDB's transaction number u64, unix time in seconds u32

Invariants (checked by vecdb/check/):
  M2  the record holds whole entries, and numbers and times ascend.

This is the second place that keeps LMDB's numbers (isolation rule 5 is the first). They are compared
with those of readers of this very file alone; a copy begins without a record (copies.py), and numbers
above the last one, of a file that was put in place of another, are dropped.
Rejected: a time in each log record. A reader's commit may have been folded and cut long ago.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Any, Final

from vecdb import _core
from vecdb.storage import records
from vecdb.storage.keys import TIMES, TIMES_KEY

EVERY: Final = 1.0  # seconds between two entries, at least
KEPT: Final = 32  # entries: half a century, where the gaps double
_ENTRY: Final = Struct("<QI")
Entry = tuple[int, int]  # transaction, unix time


def note(txn: Any, now: float) -> None:
    """Remember the time of the transaction that is about to be committed."""
    record = txn.get(TIMES_KEY)
    try:
        known = [] if record is None else unpack(record)
    except ValueError:  # damaged: it is no loss to begin anew
        known = []
    last, second = int(txn.id()), int(now)
    before = [entry for entry in known if entry[0] < last and entry[1] <= second]
    if before and second - before[-1][1] < EVERY:
        return
    kept = thinned([*before, (last, second)])
    payload = b"".join(_ENTRY.pack(*entry) for entry in kept)
    records.put(txn, TIMES_KEY, payload)


def forget(txn: Any) -> None:
    """Take the record away: in a copy, whose transactions are numbered anew."""
    txn.delete(TIMES_KEY)


def read(txn: Any) -> list[Entry]:
    """The entries of a transaction's file; none where the record cannot be trusted."""
    record = txn.get(TIMES_KEY)
    try:
        return [] if record is None else unpack(record)
    except ValueError:
        return []


def unpack(record: Any) -> list[Entry]:
    """The entries in a record; ValueError when it holds none."""
    payload = _core.unseal(TIMES, TIMES_KEY, record)
    if len(payload) % _ENTRY.size:
        raise ValueError(f"{len(payload)} bytes are no whole entries")
    found: list[Entry] = list(_ENTRY.iter_unpack(payload))
    return found


def thinned(entries: list[Entry]) -> list[Entry]:
    """Without those that lie between two which are no further apart than the later one is old."""
    now = entries[-1][1]
    kept = [entries[-1]]  # from the newest back
    for at in range(len(entries) - 2, 0, -1):
        later, earlier = kept[-1][1], entries[at - 1][1]
        if later - earlier > now - later:
            kept.append(entries[at])
    kept += entries[:1] if len(entries) > 1 else []
    return kept[:KEPT][::-1]


def age(entries: Iterable[Entry], seen: int, now: float) -> tuple[float, float | None]:
    """How long ago a reader began whose last transaction is `seen`: at least, and at most if known.

    It began after `seen` was committed, and before the transaction that came next.
    """
    least, most = 0.0, None
    for number, second in entries:
        if number <= seen:
            most = max(0.0, now - second)
        else:
            least = max(0.0, now - second - EVERY)
            break
    return least, most
