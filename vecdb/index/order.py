"""In what order do rows stand by the values of a field, from a place on?

    bools, numbers, NaN, strings, datetimes; then rows without any of these, all alike

A walk goes through the value keys of image and tail together and gives each value's rows, a
group a value, as they are asked for: a page costs what it shows, not what the field has.

Invariants:
  O1  groups come in the order of the values, or backwards with `descending`; rows that have no
      comparable value (missing, None, a list, a dict) are the last group either way;
  O2  the groups are disjoint, and together they are the rows asked for: a row has one value;
  O3  `rank` orders single values exactly as the walk does;
  O4  strings that share the 200 bytes of a long key are put in order by the rows' own values, one
      row a value (valuekey.py, K1).

Rejected: sorting the matches by their metadata. Every page would read every match.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple

from pyroaring import BitMap

from vecdb.errors import Corrupt
from vecdb.index import valuekey
from vecdb.index.attributes import Reader
from vecdb.index.changes import flat
from vecdb.index.tail import Tail

Rows = list[int] | BitMap
Entry = tuple[bytes, Rows]

# the ranges of value keys, in the order of their values
SECTIONS: Final = (
    (valuekey.FALSE, valuekey.AFTER_BOOLS),
    (valuekey.NUMBER_TAG, b"\x11"),
    (valuekey.NAN, valuekey.NAN + b"\x00"),
    (valuekey.STRING_TAG, b"\x31"),
)
_VALUED: Final = sorted(
    (
        valuekey.FALSE, valuekey.TRUE, valuekey.NUMBERS, valuekey.NAN, valuekey.STRINGS,
        valuekey.DATETIMES,
    )
)  # fmt: skip


class Value(NamedTuple):
    """One value in the order: its key, and the whole string where the key does not hold it."""

    key: bytes
    text: str | None = None


class Group(NamedTuple):
    """The rows of one value; of none of the comparable ones where that is None."""

    value: Value | None
    rows: Rows


def value_of(metadata: Mapping[str, Any], field: str) -> Value | None:
    """The value that a row has in the order of a field; None: it has none that compares."""
    for name, value in flat(metadata):
        if name == field:
            return _value(value)
    return None


def _value(value: Any) -> Value | None:
    if not isinstance(value, bool | int | float | str | datetime):
        return None
    key = valuekey.key_of(value)
    return Value(key, value if isinstance(value, str) and valuekey.is_long(key) else None)


def rank(value: Value) -> tuple[int, bytes, str]:
    """What sorts as the values do."""
    key, text = value
    if text is not None:
        return section_of(key), valuekey.same_prefix(key)[0], text
    return section_of(key), key, ""


def section_of(key: bytes) -> int:
    """The number of the section that a value key lies in; ValueError when it lies in none."""
    for number, (start, stop) in enumerate(SECTIONS):
        if start <= key < stop:
            return number
    raise ValueError("no value that can be compared has this key")


def misplaced(where: str) -> Corrupt:
    """The error for a row that a posting names and that has not its value."""
    return Corrupt(
        f"{where}: a row is listed under a value that it has not; run db.check(), which names it, "
        "then restore a backup",
        code="A3",
        where=where,
        detail="a posting names a row without its value",
    )


class Walk:
    """The rows of a bitmap by the values of one field, as of one snapshot.

    `reader` is the walk's own; `metadata(rid)` reads a row (O4).
    """

    def __init__(
        self,
        fieldid: int,
        reader: Reader,
        tail: Tail,
        wanted: BitMap,
        value: Callable[[int], Value | None],
    ) -> None:
        self._fieldid = fieldid
        self._reader = reader
        self._tail = tail
        self._pending = wanted & tail.touched
        self._settled = wanted - self._pending if self._pending else wanted
        self._value = value

    def groups(self, after: Value | None, descending: bool) -> Iterator[Group]:
        """The groups from the one of `after` on, that one included, without the last (O1)."""
        sections = SECTIONS[::-1] if descending else SECTIONS
        first = None if after is None else sections.index(SECTIONS[section_of(after.key)])
        for start, stop in sections[first or 0 :]:
            if after is not None:
                start, stop = _from(start, stop, after, descending)
            entries = self._merged(start, stop, descending)
            for prefix, alike in groupby(entries, _prefix_of_long):
                if prefix is None:
                    for key, rows in alike:
                        yield Group(Value(key), rows)
                else:
                    yield from self._long(alike, after, descending)
            after = None

    def rest(self) -> BitMap:
        """The rows that no group has."""
        found = self._settled - self._reader.many(self._fieldid, _VALUED)
        if self._pending:
            found |= self._pending - self._tail.many(self._fieldid, _VALUED)
        return found

    # --- value keys with their rows ------------------------------------------------------

    def _merged(self, start: bytes, stop: bytes, descending: bool) -> Iterator[Entry]:
        """Image and tail together."""
        settled = self._of_image(start, stop, descending)
        if not self._pending:
            yield from settled
            return
        other = next(settled, None)
        for key, rows in self._of_tail(start, stop, descending):
            while other is not None and (other[0] > key if descending else other[0] < key):
                yield other
                other = next(settled, None)
            if other is not None and other[0] == key:
                yield key, BitMap(other[1]) | BitMap(rows)
                other = next(settled, None)
            else:
                yield key, rows
        while other is not None:
            yield other
            other = next(settled, None)

    def _of_image(self, start: bytes, stop: bytes, descending: bool) -> Iterator[Entry]:
        wanted, fieldid, reader = self._settled, self._fieldid, self._reader
        for leaf, first, end in reader.runs(fieldid, start, stop, backwards=descending):
            if not wanted.intersect(reader.rows_of(fieldid, leaf, first, end)):
                continue
            inline = array("I")
            inline.frombytes(leaf.inline(first, end))
            at = len(inline) if descending else 0
            for position in range(end - 1, first - 1, -1) if descending else range(first, end):
                count = leaf.counts[position]
                rows: Rows
                if count:
                    at -= count if descending else 0
                    rows = [rid for rid in inline[at : at + count] if rid in wanted]
                    at += 0 if descending else count
                else:
                    rows = reader.rows(fieldid, leaf, position) & wanted
                if rows:
                    yield leaf.keys[position], rows

    def _of_tail(self, start: bytes, stop: bytes, descending: bool) -> Iterator[Entry]:
        found = self._tail.keys(self._fieldid, start, stop)
        for key in reversed(found) if descending else found:
            rows = self._tail.get(self._fieldid, key) & self._pending
            if rows:
                yield key, rows

    def _long(
        self, alike: Iterable[Entry], after: Value | None, descending: bool
    ) -> Iterator[Group]:
        """Groups of long strings that share their first bytes (O4)."""
        found: list[tuple[str, bytes, Rows]] = []
        for key, rows in alike:
            value = self._value(next(iter(rows)))
            if value is None or value.text is None:
                raise misplaced("attributes")
            found.append((value.text, key, rows))
        found.sort(key=lambda entry: entry[0], reverse=descending)
        limit = None if after is None else after.text
        for text, key, rows in found:
            if limit is None or (text <= limit if descending else text >= limit):
                yield Group(Value(key, text), rows)


def _from(start: bytes, stop: bytes, after: Value, descending: bool) -> tuple[bytes, bytes]:
    """The part of a section from a value on; of long strings all that share its first bytes."""
    low, high = after.key, after.key + b"\x00"
    if after.text is not None:
        low, high = valuekey.same_prefix(after.key)
    return (start, high) if descending else (low, stop)


def _prefix_of_long(entry: Entry) -> bytes | None:
    key = entry[0]
    return valuekey.same_prefix(key)[0] if valuekey.is_long(key) else None
