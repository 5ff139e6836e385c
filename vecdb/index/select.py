"""Which live rows satisfy a filter, as of a snapshot?

    (the filter over the images, for rows that the tail has not touched)
  | (the filter over the tail, for rows that it has)

evaluated once for the whole expression, so that one rule serves every operator, `not` included.

Invariants:
  E1  the result equals `Filter.matches` asked of every live row (tests/model);
  E2  strings that share 200 bytes with a long operand are decided by the rows themselves, one
      row per distinct value;
  E3  what a value key does not tell is asked of rows: long strings (E2) and pairs of numbers,
      whose order and repetition the elements of a list do not keep;
  E4  fields declared Unindexed are answered by the rows themselves, those that the other clauses
      leave (query/declared.py);
  E5  trigrams say which rows may have a run of characters: what they leave is asked whether it
      has, unless the run is one trigram and all that is asked for;
  E6  bitmaps that postings hand out are never changed here;
  E7  words are asked of full text once for images and tail together: it knows what is touched.

Rejected: patching every posting with the tail, then evaluating once. An operation per clause
instead of two per filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any, Final, Protocol

from pyroaring import BitMap

from vecdb.errors import Corrupt, FilterError
from vecdb.fields import NOTHING, Declared
from vecdb.index import valuekey
from vecdb.index.changes import flat
from vecdb.index.tail import Tail
from vecdb.query.declared import with_asking
from vecdb.query.filter import Filter
from vecdb.query.source import Inside

Scalar = bool | int | float | str | datetime
Worded = Callable[[str, str], BitMap]
RowMetadata = Callable[[int], Mapping[str, Any]]

_NONE: Final = BitMap()
_FEW: Final = 256  # rows: some 10 ms of reading, whatever the number of values
_VALUES_A_ROW: Final = 6  # values that are looked at in the time of reading a row
_SAMPLE: Final = 16  # rows that tell whether a field's strings are long
Range = tuple[float, float]  # both ends included


class Postings(Protocol):
    """Rows by value: an image through a transaction, or a tail."""

    def get(self, fieldid: int, key: bytes) -> BitMap: ...
    def many(self, fieldid: int, wanted: Sequence[bytes]) -> BitMap: ...
    def union(self, fieldid: int, start: bytes, stop: bytes) -> BitMap: ...
    def range(self, fieldid: int, start: bytes, stop: bytes) -> list[tuple[bytes, BitMap]]: ...
    def chosen(
        self, fieldid: int, start: bytes, stop: bytes, holds: Callable[[bytes], bool]
    ) -> BitMap: ...


class Image(Protocol):
    """Whatever gives postings as of a transaction."""

    def reader(self, txn: Any) -> Postings: ...


def evaluate(
    where: Filter,
    image: Image,
    tail: Tail,
    txn: Any,
    live: BitMap,
    field_ids: Mapping[str, int],
    row_metadata: RowMetadata,
    declared: Declared = NOTHING,
    worded: Worded | None = None,
) -> BitMap:
    """Return the rows of `live` that satisfy a filter: a bitmap of the caller's own.

    `tail` ends where the transaction's snapshot does (a writer's: with its pending changes);
    `live` are the live rows there; `row_metadata(rid)` reads a row there: see E3; `worded(field, words)`
    gives the rows that have these words there: see E7.
    """
    if declared.skips_some:
        where = with_asking(where, declared.skips)
    touched = tail.touched
    settled = live - touched if touched else live
    trigrams = declared.substring
    source = _Source(image.reader(txn), settled, field_ids, row_metadata, trigrams, worded=worded)
    found: BitMap = where.select(source) & settled
    pending = live & touched
    if pending:
        recent = _Source(tail, pending, field_ids, row_metadata, trigrams, worded=worded)
        found |= where.select(recent) & pending
    return found


class _Source:
    """Sets of rows by clause (query/source.py), from postings."""

    def __init__(
        self,
        postings: Postings,
        universe: BitMap,
        field_ids: Mapping[str, int],
        row_metadata: RowMetadata,
        trigrams: Set[str],
        few: bool = False,
        worded: Worded | None = None,
    ) -> None:
        self._worded = worded
        self._trigrams = trigrams  # fields that have them
        self._few = few  # asking these rows is cheaper than asking a field's values
        self._postings = postings
        self._universe = universe
        self._ids = field_ids
        self._row_metadata = row_metadata

    def everything(self) -> BitMap:
        return self._universe

    def present(self, field: str) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None:
            return _NONE
        return self._postings.union(fieldid, valuekey.FIRST_KIND, valuekey.AFTER_BOOLS)

    def equal(self, field: str, value: Scalar) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None or value != value:
            return _NONE
        return self._postings.get(fieldid, valuekey.key_of(value))

    def unequal(self, field: str, value: Scalar) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None or value != value:
            return _NONE
        if isinstance(value, bool):
            return self._postings.get(fieldid, valuekey.key_of(not value))
        key = valuekey.key_of(value)
        kind = self._postings.get(fieldid, valuekey.KIND_OF_TAG[key[0]])
        return kind - self._postings.get(fieldid, key)

    def ordered(self, field: str, symbol: str, value: Scalar) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None or value != value:
            return _NONE
        key = valuekey.key_of(value)
        found = self._postings.union(fieldid, *valuekey.interval(symbol, key))
        if valuekey.is_long(key) and isinstance(value, str):
            return found | self._alike(field, fieldid, symbol, value, key)
        return found

    def between(self, field: str, low: Scalar, high: Scalar) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None or low != low or high != high:
            return _NONE
        first, last = valuekey.key_of(low), valuekey.key_of(high)
        if first[0] != last[0]:
            return _NONE
        if valuekey.is_long(first) or valuekey.is_long(last):
            return self.ordered(field, ">=", low) & self.ordered(field, "<=", high)
        return self._postings.union(fieldid, first, last + b"\x00")

    def among(self, field: str, values: Sequence[Scalar]) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None:
            return _NONE
        wanted = {valuekey.key_of(value) for value in values if value == value}
        return self._postings.many(fieldid, sorted(wanted))

    def lists(self, field: str) -> BitMap:
        fieldid = self._ids.get(field)
        return _NONE if fieldid is None else self._postings.get(fieldid, valuekey.LIST)

    def listing(self, field: str, values: Sequence[Scalar]) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None:
            return _NONE
        wanted = {valuekey.element_key(value) for value in values if value == value}
        return self._postings.many(fieldid, sorted(wanted))

    def strings(
        self,
        field: str,
        prefix: str,
        holds: Callable[[str], bool] | None,
        inside: Inside | None = None,
    ) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None:
            return _NONE
        if holds is not None and inside is not None and field in self._trigrams:
            found = self._with_runs(field, fieldid, holds, inside)
            if found is not None:
                return found
        start, stop = valuekey.starting_with(prefix)
        if holds is not None and self._few:
            found = self._universe & self._postings.union(fieldid, start, stop)
            return BitMap([rid for rid in found if self._passes(rid, field, holds)])
        if holds is not None:
            return self._postings.chosen(
                fieldid, start, stop, self._asking(field, fieldid, holds)
            )
        if len(start) <= valuekey.MAX_STRING:
            return self._postings.union(fieldid, start, stop)
        starts = self._asking(field, fieldid, lambda text: text.startswith(prefix))
        return self._postings.chosen(fieldid, start, stop, starts)

    def pairs(
        self,
        field: str,
        first: Range,
        second: tuple[Range, ...],
        holds: Callable[[Any], bool],
    ) -> BitMap:
        fieldid = self._ids.get(field)
        if fieldid is None:
            return _NONE
        found = self._universe & self._in_range(fieldid, first)
        if found:
            found &= BitMap.union(*(self._in_range(fieldid, each) for each in second))
        return BitMap([rid for rid in found if holds(self._stored(rid, field))])

    def asked(self, holds: Callable[[Mapping[str, Any]], bool]) -> BitMap:
        return BitMap([rid for rid in self._universe if holds(self._row_metadata(rid))])

    def limited(self, rows: BitMap) -> _Source:
        left = self._universe & rows
        few = len(left) <= _FEW
        return _Source(
            self._postings, left, self._ids, self._row_metadata, self._trigrams, few, self._worded
        )

    def worded(self, field: str, wanted: str) -> BitMap:
        if self._worded is None:
            raise FilterError(f"matches on {field!r:.60}: there is no full text here")
        return self._worded(field, wanted) & self._universe

    def _with_runs(
        self, field: str, fieldid: int, holds: Callable[[str], bool], inside: Inside
    ) -> BitMap | None:
        """Rows whose string passes `holds`, by trigrams; None where those are no help."""
        wanted = {valuekey.trigram_key(t) for run in inside.runs for t in valuekey.trigrams(run)}
        if not wanted:
            return None
        found = self._universe
        for key in wanted:
            found = found & self._postings.get(fieldid, key)
            if not found:
                return found
        if inside.inner is not None and len(inside.inner) == valuekey.TRIGRAM:
            return found
        if len(found) > _FEW and self._values_are_cheaper(field, fieldid, found):
            return None
        return BitMap([rid for rid in found if self._passes(rid, field, holds)])

    def _values_are_cheaper(self, field: str, fieldid: int, rows: BitMap) -> bool:
        """Whether looking at a field's values takes less than reading these rows.

        Not so where the rows' strings are long: then a value is no more than a hint at its row.
        """
        if len(rows) * _VALUES_A_ROW < len(self._postings.get(fieldid, valuekey.STRINGS)):
            return False
        sample = [rows[at * len(rows) // _SAMPLE] for at in range(_SAMPLE)]
        long = sum(self._passes(rid, field, _is_long) for rid in sample)
        return long * 4 < _SAMPLE

    def _in_range(self, fieldid: int, bounds: Range) -> BitMap:
        return self._postings.union(fieldid, *valuekey.elements_between(*bounds))

    def _asking(
        self, field: str, fieldid: int, holds: Callable[[str], bool]
    ) -> Callable[[bytes], bool]:
        """The same question asked of a value key, of a row where the key is not all (E2)."""

        def of_key(key: bytes) -> bool:
            if not valuekey.is_long(key):
                return holds(_string_of(key))
            here = self._postings.get(fieldid, key) & self._universe
            if not here:
                return False
            return self._passes(here.min(), field, holds)

        return of_key

    def _alike(self, field: str, fieldid: int, symbol: str, value: str, key: bytes) -> BitMap:
        """Decide strings that share 200 bytes with a long operand by asking rows (E2)."""
        found = BitMap()
        for other, rows in self._postings.range(fieldid, *valuekey.same_prefix(key)):
            here = rows & self._universe
            if not here:
                continue
            if other == key:
                holds = symbol in ("<=", ">=")
            else:
                stored = self._stored(here.min(), field)
                holds = isinstance(stored, str) and (stored < value) == (symbol in ("<", "<="))
            if holds:
                found |= rows
        return found

    def _passes(self, rid: int, field: str, holds: Callable[[str], bool]) -> bool:
        """Whether a row's own value is a string that passes."""
        stored = self._stored(rid, field)
        return isinstance(stored, str) and holds(stored)

    def _stored(self, rid: int, field: str) -> Any:
        """A row's own value of a field."""
        for name, value in flat(self._row_metadata(rid)):
            if name == field:
                return value
        return None


def _is_long(text: str) -> bool:
    return valuekey.is_long(valuekey.string_key(text))


def _string_of(key: bytes) -> str:
    try:
        return valuekey.string_of(key)
    except ValueError as error:
        raise Corrupt(
            f"attributes: a value key cannot be read ({error}); run db.check(), which names it, "
            "then restore a backup",
            code="A1",
            where="attributes",
            detail=str(error),
        ) from None
