"""How many of some rows have each value of a field?

Counted from postings, image and tail: no row is read. A value as a field and the same value as
an element of a list are one value here, and a row counts once for each value that it has.

Invariants:
  C1  the counts are those of going through the rows one by one (tests/model/test_reading.py);
  C2  values are told apart as a filter tells them: by their keys (valuekey.py, K2).
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from heapq import nsmallest
from typing import Any, Final

from pyroaring import BitMap

from vecdb.index import order, valuekey
from vecdb.index.attributes import Reader
from vecdb.index.changes import flat
from vecdb.index.tail import Tail

Scalar = bool | int | float | str | datetime | None
Metadata = Callable[[int], Mapping[str, Any]]

_ELEMENT: Final = valuekey.ELEMENT
# where value keys lie: of fields, then of elements of lists, which may be None
_RANGES: Final = [
    *((start, stop) for start, stop in order.SECTIONS),
    *(
        (bytes((start[0] | _ELEMENT,)) + start[1:], bytes((stop[0] | _ELEMENT,)) + stop[1:])
        for start, stop in (*order.SECTIONS, (valuekey.NULL, valuekey.NULL + b"\x00"))
    ),
]
_SIMPLE: Final = {
    valuekey.FALSE: False, valuekey.TRUE: True, valuekey.NULL: None, valuekey.NAN: float("nan")
}  # fmt: skip


class Counting:
    """The values of one field in the rows of a bitmap, as of one snapshot."""

    def __init__(
        self, field: str, fieldid: int, reader: Reader, tail: Tail, chosen: BitMap, metadata: Metadata
    ) -> None:
        self._field = field
        self._fieldid = fieldid
        self._reader = reader
        self._tail = tail
        self._pending = chosen & tail.touched
        self._settled = chosen - self._pending if self._pending else chosen
        self._metadata = metadata
        self.counts: defaultdict[bytes, int] = defaultdict(int)  # value key -> rows
        self._valued: list[BitMap] = []
        for start, stop in _RANGES:
            self._count_image(start, stop)
            self._count_tail(start, stop)

    def valued(self) -> int:
        """How many rows have any value."""
        return len(BitMap.union(BitMap(), *self._valued))

    def top(self, limit: int | None) -> list[tuple[Scalar, int]]:
        """The most frequent values with their counts, ties in the order of values."""
        texts = self._texts_of_ties()

        def rank(key: bytes) -> tuple[int, int, bytes, str]:
            count = -self.counts[key]
            if key == valuekey.NULL:
                return count, len(order.SECTIONS), key, ""
            return (count, *order.rank(order.Value(key, texts.get(key))))

        wanted = len(self.counts) if limit is None else limit
        return [(self._shown(key), self.counts[key]) for key in nsmallest(wanted, self.counts, rank)]

    # --- counting ------------------------------------------------------------------------

    def _count_image(self, start: bytes, stop: bytes) -> None:
        reader, fieldid, chosen, counts = self._reader, self._fieldid, self._settled, self.counts
        for leaf, first, end in reader.runs(fieldid, start, stop):
            found = reader.rows_of(fieldid, leaf, first, end)
            whole = found.issubset(chosen)
            if not whole:
                found = found & chosen
            if not found:
                continue
            self._valued.append(found)
            inline = array("I")
            inline.frombytes(leaf.inline(first, end))
            at = 0
            for position in range(first, end):
                inside = count = leaf.counts[position]
                if not inside:
                    rows = reader.rows(fieldid, leaf, position)
                    count = len(rows) if whole else rows.intersection_cardinality(chosen)
                elif not whole:
                    count = sum(rid in chosen for rid in inline[at : at + inside])
                at += inside
                if count:
                    counts[_plain(leaf.keys[position])] += count

    def _count_tail(self, start: bytes, stop: bytes) -> None:
        if not self._pending:
            return
        for key in self._tail.keys(self._fieldid, start, stop):
            found = self._tail.get(self._fieldid, key) & self._pending
            if found:
                self._valued.append(found)
                self.counts[_plain(key)] += len(found)

    # --- values --------------------------------------------------------------------------

    def _texts_of_ties(self) -> dict[bytes, str]:
        """The strings that their keys do not order: long ones, alike at first and in number."""
        alike: defaultdict[tuple[int, bytes], list[bytes]] = defaultdict(list)
        for key, count in self.counts.items():
            if valuekey.is_long(key):
                alike[count, valuekey.same_prefix(key)[0]].append(key)
        return {
            key: str(self._stored(key)) for tied in alike.values() if len(tied) > 1 for key in tied
        }

    def _shown(self, key: bytes) -> Scalar:
        """The value of a key, as the first row has it where rows may spell it differently."""
        if key in _SIMPLE:
            return _SIMPLE[key]
        if key.startswith(valuekey.STRING_TAG) and not valuekey.is_long(key):
            return valuekey.string_of(key)
        return self._stored(key)

    def _stored(self, key: bytes) -> Scalar:
        """A value as the first row that has it holds it."""
        listed = bytes((key[0] | _ELEMENT,)) + key[1:]
        found = [
            rows & chosen
            for source, chosen in ((self._reader, self._settled), (self._tail, self._pending))
            for rows in (source.get(self._fieldid, key), source.get(self._fieldid, listed))
        ]
        metadata = self._metadata(BitMap.union(*found).min())
        for name, value in flat(metadata):
            if name == self._field:
                values = value if isinstance(value, list) else [value]
                for each in values:
                    if not isinstance(each, dict) and valuekey.key_of(each) == key:
                        shown: Scalar = each
                        return shown
        raise order.misplaced(self._field)


def _plain(key: bytes) -> bytes:
    """The key of an element as that of a value by itself."""
    return key if key[0] < _ELEMENT else bytes((key[0] & ~_ELEMENT,)) + key[1:]
