"""Are the searches that are kept in the file as they should be? Saved ones, watchers, and the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vecdb.check.subject import problem_of
from vecdb.errors import Corrupt, InvalidArgument
from vecdb.storage import keys, searchlog
from vecdb.storage import searches as stored
from vecdb.types import Problem


def searches(txn: Any, commit: int) -> Iterator[Problem]:
    """D1 and D2."""
    numbers: dict[int, str] = {}
    unread = False
    for key, record in stored.entries(txn):
        where = keys.describe(key)
        try:
            found = stored.unpack(key, record)
        except InvalidArgument:  # a later version's: not damaged
            unread = True
            continue
        except Corrupt as error:
            unread = True
            yield problem_of(error, "D1", where)
            continue
        if found.number in numbers:
            yield Problem("D1", where, f"it has the number of {numbers[found.number]}")
        numbers[found.number] = where
    for key, record in stored.watchers(txn):
        where = keys.describe(key)
        try:
            place = stored.position_in(key, record)
        except Corrupt as error:
            yield problem_of(error, "D2", where)
            continue
        if stored.watched(key)[0] not in numbers and not unread:
            yield Problem("D2", where, "its saved search is not there")
        if place[0] > commit:
            yield Problem("D2", where, f"it is at commit {place[0]}, beyond the last one")


def log(txn: Any, secret: bytes | None, cids: set[int]) -> Iterator[Problem]:
    """J1 and J2."""
    try:
        logging = searchlog.read(txn)
    except Corrupt as error:
        yield problem_of(error, "J1", keys.describe(keys.LOGGING_KEY))
        return
    for cid in sorted(cids):
        size = 0
        for part in (searchlog.SEARCHES, searchlog.CHOICES):
            for key, record in searchlog.stretches(txn, cid, part):
                size += searchlog.size_of(len(record))
                if keys.search_log_position(key)[1] >= logging.sequence:
                    yield Problem("J1", keys.describe(key), "its number has not been given out yet")
                try:
                    searchlog.entries_in(key, record, secret)
                except Corrupt as error:
                    yield problem_of(error, "J1", keys.describe(key))
        kept = logging.collections.get(cid, searchlog.Kept(0))
        if size != kept.bytes or size > kept.max_bytes:
            detail = f"it counts {kept.bytes} bytes of at most {kept.max_bytes}; there are {size}"
            yield Problem("J2", f"search log/{cid}", detail)
