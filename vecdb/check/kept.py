"""Are the searches that are kept in the file as they should be? Saved ones, and their watchers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vecdb.check.subject import problem_of
from vecdb.errors import Corrupt, InvalidArgument
from vecdb.storage import keys
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
