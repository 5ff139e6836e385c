"""Which are the best k values of a field, with the best hits of each? group_by.

A group is as good as its best row. Rows are taken best first until k values have been seen, and then
the rows of those values that are still wanted. A list counts for each of its values; rows without the
field, or with None or a dict there, are in no group.

Invariants:
  G1  there are exactly k groups where so many exist among the matches;
  G2  each group has `group_size` hits, or all of its matches; hits are best first, groups by their first.

Rejected: reading so many hits and grouping what is there. The first document with long chapters would
leave room for nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb.query.clauses import Compare, Contains
from vecdb.query.source import flat
from vecdb.ranking.base import Ranked, Ranker

FIRST: Final = 3  # rows read for each hit that is wanted
LEAST: Final = 64
LOOKUP: Final = 16  # rows that are read in the time in which the rows of one value are looked up

Within = Callable[[BitMap], Ranker]  # the same query among some rows


class Gathered(NamedTuple):
    """One group: its value and its rows, best first."""

    value: Any
    ranked: Ranked


class _Seen:
    """A group while it is gathered: positions in the ranking."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.at: list[int] = []


def grouped(
    ranker: Ranker, field: str, groups: int, size: int, within: Within, rank: Callable[[Ranker, int], Ranked]
) -> list[Gathered]:
    """The best `groups` values of a field with `size` hits each; `rank(ranker, reach)` ranks."""
    matching = ranker.matching()
    depth = min(matching, max(LEAST, FIRST * groups * size))
    while True:
        found = rank(ranker, depth) if depth else None
        seen = _seen(ranker, found, field, groups) if found is not None else []
        done = depth >= matching
        full = len(seen) == groups
        if done or (full and (ranker.independent or all(len(each.at) >= size for each in seen))):
            break
        depth = min(matching, 4 * depth)
    if found is None:
        return []
    made = []
    for each in seen:
        if len(each.at) < size and not done:
            made.append(Gathered(each.value, _completed(ranker, field, each.value, size, within, rank)))
        else:
            at = np.array(each.at[:size], np.intp)
            distances = None if found.distances is None else found.distances[at]
            made.append(Gathered(each.value, Ranked(found.rids[at], found.scores[at], distances)))
    return made


def _seen(ranker: Ranker, found: Ranked, field: str, groups: int) -> list[_Seen]:
    """The first `groups` values in a ranking, each with the places of its rows."""
    parse, payloads = ranker.place.verbs._parse, ranker.place.payloads
    known: dict[Any, _Seen] = {}
    start, end = 0, len(found.rids)
    while start < end:
        stop = min(end, start + max(LEAST, 2 * groups))
        for at, payload in enumerate(payloads(found.rids[start:stop]), start):
            for value in values_of(parse(payload).metadata, field):
                key: Any = key_of(value)
                group = known.get(key)
                if group is None:
                    if len(known) >= groups:
                        continue
                    group = known[key] = _Seen(value)
                group.at.append(at)
        start = stop
        if len(known) >= groups and LOOKUP * groups < end - start:
            _find_rest(ranker, found.rids, start, field, known.values())
            break
    return list(known.values())


def _find_rest(ranker: Ranker, rids: Any, start: int, field: str, seen: Iterable[_Seen]) -> None:
    """Note the places from `start` on of the rows of known values: by the field's index, no row is read."""
    rest = rids[start:]
    for each in seen:
        of_value = np.array(_rows(ranker, field, each.value), np.uint32)
        each.at += (np.flatnonzero(np.isin(rest, of_value)) + start).tolist()


def _completed(
    ranker: Ranker, field: str, value: Any, size: int, within: Within, rank: Callable[[Ranker, int], Ranked]
) -> Ranked:
    """The best rows of one value, asked for among them alone."""
    some = within(_rows(ranker, field, value) & ranker.place.live)
    return rank(some, min(size, some.matching()))


def _rows(ranker: Ranker, field: str, value: Any) -> BitMap:
    """The rows that have a value, alone or in a list."""
    place = ranker.place
    if isinstance(value, float) and value != value:  # no comparison finds NaN
        return BitMap(
            rid for rid in ranker.rows()
            if any(each != each for each in values_of(_metadata(ranker, rid), field))
        )  # fmt: skip
    matches = place.verbs._matches(place.txn, place.view)
    found: BitMap = matches(Compare(field, "==", value)) | matches(Contains(field, "contains", (value,)))
    return found


def _metadata(ranker: Ranker, rid: int) -> Any:
    payload = ranker.place.payloads(np.array([rid], np.uint32))[0]
    return ranker.place.verbs._parse(payload).metadata


def values_of(metadata: Any, field: str) -> list[Any]:
    """The values that a row has in a field, each once."""
    value = flat(metadata).get(field)
    listed = value if isinstance(value, list) else [value]
    kept = [each for each in listed if each is not None and not isinstance(each, dict | list)]
    return list({key_of(each): each for each in kept}.values())


def key_of(value: Any) -> Any:
    """What makes two values one group: 1 and 1.0 are one, True is another, and so is each zone's time."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float) and value != value:
        return ("nan",)
    if isinstance(value, datetime):
        return ("datetime", value.timestamp())
    return (type(value).__name__ if isinstance(value, str) else "number", value)
