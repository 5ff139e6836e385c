"""Which rows did the commits after a certain one change?

A row's record says which commit changed it last. In a collection that somebody watches, this is also an
indexed fact about the row like those of its metadata, under a name that no metadata can have: so the rows
that commits changed are found in the order of the commits, at a cost in proportion to them, and logged,
folded, followed and rebuilt as everything else is. Elsewhere nothing is kept.

The schema's `tracked` holds the numbers of the commits that turned this on and off, in turn.

Invariants:
  N1  a live row's indexed state names the commit that changed it exactly if tracking was on for that
      commit: the row's record and the schema say it, so that an old state can be derived at any time;
  N2  the commit that turns tracking on is not tracked itself, and the one that turns it off is.

Rejected: a log of changes of its own (it would be cut when the slowest watcher has read it, which may be
never), and a record for each change (a page more in every commit).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

import numpy as np

from vecdb.index import valuekey
from vecdb.index.changes import Pair
from vecdb.index.order import Value, Walk
from vecdb.index.seats import RESERVED
from vecdb.storage import keys
from vecdb.storage.meta import FRAME

NAME: Final = RESERVED + "changed"
MOST_TURNS: Final = 200  # of tracking, on and off; then it stays on
_HEAD: Final = Struct("<QB")
_DEAD: Final = 8  # storage/rows.py


def marks(tracked: tuple[int, ...], changed: int, names: dict[str, int]) -> tuple[Pair, ...]:
    """What the indexed state of a row says of the commit that changed it last (N1)."""
    if not tracked or not bisect_left(tracked, changed) % 2:
        return ()
    return ((names.setdefault(NAME, len(names)), valuekey.key_of(changed)),)


def is_on(tracked: tuple[int, ...]) -> bool:
    """Whether changes are tracked now."""
    return len(tracked) % 2 == 1


def since(tracked: tuple[int, ...]) -> int:
    """The commit after which every change can be found, up to now."""
    return tracked[-1]


def changed_after(view: Any, reader: Any, wanted: Any, commit: int, rid: int) -> Iterator[int]:
    """The rids of `wanted` that commits after `commit` changed, or that one and above `rid`.

    In the order of commits, then of rids; `commit` is not before `since`. `reader` is this walk's own.
    """
    fieldid = view.names.get(NAME)
    if fieldid is None:
        return
    first = valuekey.key_of(commit)
    walk = Walk(fieldid, reader, view.tail, wanted, lambda _: None)
    for value, found in walk.groups(Value(first), False):
        rids = sorted(found)
        yield from rids[bisect_left(rids, rid + 1) :] if value and value.key == first else rids


def written_between(txn: Any, cid: int, after: tuple[int, int], upto: int) -> tuple[Any, Any]:
    """Commits and rids (uint64, uint32), in order, of the live rows with (commit, rid) behind `after`
    and a commit of at most `upto`: by reading every row's record.
    """
    changed, rids = [], []
    prefix = keys.prefix(keys.ROWS, cid)
    cursor = txn.cursor()
    more = cursor.set_range(prefix)
    while more:
        key, record = cursor.item()
        if bytes(key[:5]) != prefix:
            break
        commit, flags = _HEAD.unpack_from(record, FRAME)
        if after[0] <= commit <= upto and not flags & _DEAD:
            rid = int.from_bytes(key[5:], "big")
            if (commit, rid) > after:
                changed.append(commit)
                rids.append(rid)
        more = cursor.next()
    commits, found = np.array(changed, np.uint64), np.array(rids, np.uint32)
    order = np.lexsort((found, commits))
    return commits[order], found[order]
