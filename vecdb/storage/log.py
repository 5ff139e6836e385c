"""The redo log: what did each commit change, so that every index can follow?

A commit that touches a collection writes a few adjacent records, in the rows' transaction:

    links   of each vector field the link entries that changed (opaque here; `Graph.apply`)
    ROWS    rids that came alive and that died, and the touched rows' indexed states; a slot that was
            handed out again and whose row is gone by the same commit is in both

Live bitmap, attributes and graph on disk are images, folded from the log in batches. Each image
has a watermark; readers ignore records at or below it, and upkeep takes them away a few per commit,
so that no commit pays for a whole round.

Invariants (checked by vecdb/check/):
  L1  replay is last-event-wins: applying records that an image already contains changes nothing;
  L2  a part that is absent above its watermark means that the commit did not touch that part.

Rejected: one log for all collections. Its records lie closer, but a collection's follower would
read through everybody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from vecdb.errors import Corrupt
from vecdb.storage import codec, keys, records, rows
from vecdb.storage.state import State

ROWS: Final = keys.LOG_ROWS
CUT_PER_COMMIT: Final = 256  # obsolete records looked at per commit and part


@dataclass(slots=True)
class RowsPart:
    """The rows part of one commit's log."""

    born: list[int] = field(default_factory=list)  # rids that came alive
    died: list[int] = field(default_factory=list)  # rids that died
    names: list[str] = field(default_factory=list)  # metadata fields first seen here
    attributes: Any = None  # index/attributes.py: encode_changes
    rewritten: list[list[int]] = field(default_factory=list)  # [vector field, block of vectors]

    def pack(self) -> bytes:
        """The record's payload."""
        born = np.array(self.born, "<u4").tobytes()
        died = np.array(self.died, "<u4").tobytes()
        return codec.pack([born, died, self.names, self.attributes, self.rewritten])

    @staticmethod
    def unpack(payload: bytes | memoryview, cid: int, commit: int) -> RowsPart:
        """The part in the verified payload of a collection's commit; Corrupt when it is none."""
        try:
            born, died, names, attributes, *more = codec.unpack(payload)
            if not all(type(name) is str for name in names):
                raise TypeError("a field's name is no text")
            return RowsPart(
                np.frombuffer(born, "<u4").tolist(),
                np.frombuffer(died, "<u4").tolist(),
                names,
                attributes,
                [[int(number), int(block)] for number, block in (more[0] if more else ())],
            )
        except (ValueError, TypeError) as error:
            raise rows.damaged("L2", keys.log(cid, commit, ROWS), str(error)) from None
        except Corrupt as error:
            raise rows.damaged("L2", keys.log(cid, commit, ROWS), error.detail) from None


def put(txn: Any, cid: int, commit: int, part: int, payload: bytes) -> None:
    """Write one part of a commit's log."""
    key = keys.log(cid, commit, part)
    records.put(txn, key, payload)


def read(
    txn: Any, cid: int, after: int, to: int, only: int | None = None
) -> Iterator[tuple[int, int, memoryview]]:
    """The log of commits in (after, to], in order: (commit, part, payload); `only`: of one part."""
    if after >= to:
        return
    end = keys.condemned(cid)
    cursor = txn.cursor()
    found = cursor.set_range(keys.log(cid, after + 1, 0))
    while found:
        key = bytes(cursor.key())
        if key >= end:
            return
        commit, part = _position(key)
        if commit > to:
            return
        if only is None or part == only:
            yield commit, part, rows.open_record(keys.LOG, key, cursor.value(), code="L2")
        found = cursor.next()


def _position(key: bytes) -> tuple[int, int]:
    if not keys.well_formed(key):
        raise rows.damaged("L2", key, "no key of the log is spelled like this")
    return keys.log_position(key)


def cut(txn: Any, cid: int, state: State) -> None:
    """Take away some records that every image has passed, and note in `state` how far it got."""
    for number, each in state.vectors.items():
        part = keys.log_links(number)
        each.links_cut = _cut_part(txn, cid, part, each.links_cut, each.links_to)
    state.rows_cut = _cut_part(txn, cid, ROWS, state.rows_cut, state.rows_to)


def drop(txn: Any, cid: int, part: int, done: int, commit: int) -> int:
    """Take away all of a part's records: this commit wrote its image and logs nothing."""
    while done < commit:
        done = _cut_part(txn, cid, part, done, commit)
    return commit


def _cut_part(txn: Any, cid: int, part: int, done: int, limit: int) -> int:
    if done >= limit:
        return done
    end = keys.condemned(cid)
    cursor = txn.cursor()
    found = cursor.set_range(keys.log(cid, done + 1, 0))
    for _ in range(CUT_PER_COMMIT):
        if not found:
            return limit
        key = bytes(cursor.key())
        if key >= end:
            return limit
        commit, found_part = _position(key)
        if commit > limit:
            return limit
        if found_part == part:
            found = cursor.delete()  # the cursor then stands on the next record
        else:
            found = cursor.next()
        done = commit if found_part >= part else max(done, commit - 1)
    return done
