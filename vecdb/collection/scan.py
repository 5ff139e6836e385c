"""How does a user go through rows one after another? scan, and iteration.

A scan reads page by page and holds no transaction between pages. Where it stands is a place in
the order (vecdb/cursor.py), so that it goes on rightly whatever was written meanwhile.

Invariants:
  P4  each page is of one commit; in id order no row comes twice, and none is left out that was
      there all the time. Under `order_by` that holds of rows whose value of the field stays: one
      that is changed meanwhile stands where its new value puts it;
  P5  a page costs what it shows: the id map is walked where most rows match, and matches are
      sorted where few do; value keys are walked from the place on.

Rejected: one transaction for the whole scan. While it lives, no page of the file that a write
frees can be used again; whoever wants one commit takes a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import nsmallest
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb import cursor
from vecdb.collection.handle import Handle, Where, refuse
from vecdb.cursor import Place
from vecdb.index import order
from vecdb.index.order import Rows, Value, Walk
from vecdb.query.filter import Filter
from vecdb.storage import codec, keys, rows
from vecdb.types import Id, Record

PAGE_ROWS: Final = 512  # rows that one transaction reads
FIRST_PAGE: Final = 64  # the first page is small, and each one twice the one before
FEW: Final = 256  # so many matches are read and sorted instead of walking a field's values


class _Scan(NamedTuple):
    """What a scan was asked for, validated."""

    where: Filter | None
    order: str | None
    descending: bool
    with_vectors: bool


class _Reading(NamedTuple):
    """One page's snapshot."""

    txn: Any
    view: Any
    lookup: Any  # reads rows from the map, where that is possible
    wanted: BitMap  # the rows of the scan


class ScanVerbs(Handle):
    """The verbs that go through rows."""

    __slots__ = ()

    def scan(
        self,
        where: Where | None = None,
        *,
        order_by: str | None = None,
        descending: bool = False,
        after: Record | str | None = None,
        limit: int | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Record]:
        """Go through the rows that satisfy a filter, at most `limit` of them, a page at a time.

        Order: ids (ints by value, then strings by UTF-8 bytes), or with `order_by` the values of a
        metadata field: bools, numbers, NaN, strings, datetimes; rows without such a value last;
        ties by id, ascending. `descending` reverses the values, or without `order_by` the ids.
        `after`: a Record of such a scan, or its `.cursor`: go on behind it. `.vector` is None
        unless `with_vectors`. No transaction is held between pages: without a snapshot each row
        that is there all the time comes exactly once, whatever is written meanwhile (under
        `order_by`, unless its value of that field is changed). A page costs what it shows.
        Raises InvalidArgument, FilterError.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b", "c"], metadata=[{"year": 2001}, {"year": 1999}, {}])
        >>> [record.id for record in c.scan(order_by="year")]
        ['b', 'a', 'c']
        >>> first = next(c.scan(F.year > 1990, limit=1))
        >>> [record.id for record in c.scan(F.year > 1990, after=first.cursor)]
        ['b']
        """
        if order_by is not None and (not isinstance(order_by, str) or not order_by):
            refuse(f"order_by={order_by!r:.60}: give the name of a metadata field")
        if not isinstance(descending, bool) or not isinstance(with_vectors, bool):
            refuse("descending and with_vectors are True or False")
        if limit is not None and (
            isinstance(limit, bool) or not hasattr(limit, "__index__") or limit.__index__() < 0
        ):
            refuse(f"limit={limit!r:.40}: give a number of rows from 0, or None for all")
        if order_by is not None:
            self._need_values(order_by, "order_by", "scan() without it and sort the records")
        chosen = None if where is None else self._filter(where)
        asked = _Scan(chosen, order_by, descending, with_vectors)
        place = None if after is None else self._place_of(after, asked)
        return self._pages(asked, place, None if limit is None else limit.__index__())

    def __iter__(self) -> Iterator[Record]:
        """Every row in id order (ints, then strings), with vectors, read a page at a time."""
        return self.scan(with_vectors=True)

    # --- pages ---------------------------------------------------------------------------

    def _pages(self, asked: _Scan, place: Place | None, left: int | None) -> Iterator[Record]:
        size = FIRST_PAGE
        while left is None or left > 0:
            count = size if left is None else min(size, left)
            page = self._page(asked, place, count)
            yield from page
            if len(page) < count:
                return
            place = _place(page[-1])
            left = None if left is None else left - count
            size = min(2 * size, PAGE_ROWS)

    def _page(self, asked: _Scan, place: Place | None, count: int) -> list[Record]:
        with self._reading() as (txn, view):
            matches = None if asked.where is None else self._matches(txn, view)(asked.where)
            wanted = view.live if matches is None else matches
            reading = _Reading(txn, view, self._lookup(txn, view), wanted)
            if asked.order is None:
                after = None if place is None else place.id
                found = self._in_id_order(reading, wanted, after, count, asked.descending)
                page = self._records(reading, found, asked.with_vectors)
                return [self._at(each, None, asked) for each in page] if asked.descending else page
            if len(wanted) <= FEW:
                return self._sorted_page(reading, asked, place, count)
            return self._walked_page(reading, asked, place, count)

    def _sorted_page(
        self, reading: _Reading, asked: _Scan, place: Place | None, count: int
    ) -> list[Record]:
        """By reading every match."""
        assert asked.order is not None
        found = self._records(reading, list(reading.wanted), asked.with_vectors)
        placed = [(record, order.value_of(record.metadata, asked.order)) for record in found]
        placed.sort(key=lambda entry: _id_rank(entry[0].id))
        valued = [(record, value) for record, value in placed if value is not None]
        valued.sort(key=lambda entry: order.rank(entry[1]), reverse=asked.descending)
        in_order: list[tuple[Record, Value | None]] = [
            *valued, *(entry for entry in placed if entry[1] is None)
        ]  # fmt: skip
        page = (entry for entry in in_order if place is None or _is_behind(*entry, place))
        return [self._at(record, value, asked) for record, value in islice(page, count)]

    def _walked_page(
        self, reading: _Reading, asked: _Scan, place: Place | None, count: int
    ) -> list[Record]:
        """By the field's value keys."""
        page: list[Record] = []
        for value, group in self._groups(reading, asked, place):
            after = place.id if place is not None and _value(place) == value else None
            found = self._in_id_order(reading, group, after, count - len(page))
            records = self._records(reading, found, asked.with_vectors)
            page += [self._at(record, value, asked) for record in records]
            if len(page) >= count:
                break
        return page

    def _groups(
        self, reading: _Reading, asked: _Scan, place: Place | None
    ) -> Iterator[tuple[Value | None, Rows]]:
        """The rows by value, from the place's value on."""
        txn, view, _, wanted = reading
        field = asked.order
        assert field is not None
        fieldid = view.names.get(field)
        if fieldid is None:
            yield None, wanted
            return

        def value(rid: int) -> Value | None:
            packed = rows.get(txn, self._cid, rid).metadata
            return order.value_of(codec.unpack_metadata(packed) if packed else {}, field)

        image = self._follower().attributes
        walk = Walk(fieldid, image.reader(txn), view.tail, wanted, value)
        after = None if place is None else _value(place)
        if place is None or after is not None:
            yield from walk.groups(after, asked.descending)
        yield None, walk.rest()

    def _at(self, record: Record, value: Value | None, asked: _Scan) -> Record:
        """The record with its place in the order."""
        key, text = (None, None) if value is None else value
        record.place = Place(self._cid, record.id, asked.order, asked.descending, key, text)
        return record

    # --- ids in order --------------------------------------------------------------------

    def _in_id_order(
        self, reading: _Reading, chosen: Rows, after: Id | None, count: int, backwards: bool = False
    ) -> list[int]:
        """The first `count` of some rows in id order, those behind `after` only."""
        size, live = len(chosen), reading.view.state.live
        if size == 1 and after is None:
            return list(chosen)
        if min(count, size) * live < 2 * size * size:  # ids that a walk passes, rows that a sort reads
            walked = self._walk_ids(reading, chosen, after, count, backwards)
            if walked is not None:
                return walked
        rids = list(chosen)
        found = self._ids(reading, rids)
        ranked = list(zip(map(_id_rank, found), rids, strict=True))
        if after is not None:
            least = _id_rank(after)
            ranked = [each for each in ranked if (each[0] < least if backwards else each[0] > least)]
        if backwards:
            return [rid for _, rid in sorted(ranked, reverse=True)[:count]]
        return [rid for _, rid in nsmallest(count, ranked)]

    def _walk_ids(
        self, reading: _Reading, chosen: Rows, after: Id | None, count: int, backwards: bool
    ) -> list[int] | None:
        """By going through the id map; None: behind `after` there are too few to find them so."""
        cid = self._cid
        everything = chosen is reading.view.live
        cursor = reading.txn.cursor()
        start = None if after is None else keys.row_id(cid, after)
        if not _seek(cursor, keys.prefix(keys.IDS, cid), start, backwards):
            return []
        entries = cursor.iterprev() if backwards else cursor.iternext()
        if 4 * len(chosen) >= reading.view.state.live:
            return rows.rids_in(entries, cid, None if everything else chosen, count)
        found = rows.rids_in(islice(entries, 4 * len(chosen)), cid, chosen, count)
        return found if len(found) == count or next(entries, None) is None else None

    def _ids(self, reading: _Reading, rids: list[int]) -> list[Id]:
        if reading.lookup is not None:
            quick: list[Id] | None = reading.lookup.ids(np.array(rids, np.uint32))
            if quick is not None:
                return quick
        return rows.read_many(reading.txn.get, self._cid, rids)[0]

    def _records(self, reading: _Reading, rids: list[int], with_vectors: bool) -> list[Record]:
        if reading.lookup is not None:
            quick: list[Record] | None = reading.lookup.rows(rids, with_vectors)
            if quick is not None:
                return quick
        found = [
            self._record(reading.txn, reading.view.schema, rid, with_vector=with_vectors) for rid in rids
        ]
        return [record for record in found if record is not None]

    # --- places --------------------------------------------------------------------------

    def _place_of(self, after: Any, asked: _Scan) -> Place:
        """The place of `after=`: a cursor's, a record's, or where its metadata puts a record."""
        if isinstance(after, str):
            try:
                place = cursor.from_text(after)
            except ValueError as error:
                refuse(f"after={after!r:.60}: {error}; give a Record of a scan, or its .cursor")
            return self._fitting(place, asked)
        if not isinstance(after, Record):
            refuse(f"after is a {type(after).__name__}; give a Record of a scan, or its .cursor")
        made = after.place
        if isinstance(made, Place) and self._misfit(made, asked) is None:
            return made
        keys.row_id(self._cid, after.id)
        value = None if asked.order is None else order.value_of(after.metadata, asked.order)
        key, text = (None, None) if value is None else value
        return Place(self._cid, after.id, asked.order, asked.descending, key, text)

    def _fitting(self, place: Place, asked: _Scan) -> Place:
        problem = self._misfit(place, asked)
        if problem is not None:
            refuse(f"after: this cursor is of {problem}; scan as it was made, or leave it out")
        return place

    def _misfit(self, place: Place, asked: _Scan) -> str | None:
        """What a place is of, when it is not of this scan's order."""
        if place.cid != self._cid:
            return "another collection"
        if place.order != asked.order:
            return "the order of ids" if place.order is None else f"order_by={place.order!r:.60}"
        if place.descending != asked.descending:
            return f"descending={place.descending}"
        try:
            keys.row_id(self._cid, place.id)
            if place.key is not None:
                order.section_of(place.key)
        except ValueError:  # InvalidArgument is one
            return "no row that this collection can hold"
        return None


def _place(record: Record) -> Place:
    place = record.place
    assert place is not None
    return Place(place, record.id) if isinstance(place, int) else place


def _value(place: Place) -> Value | None:
    return None if place.key is None else Value(place.key, place.text)


def _id_rank(id: Id) -> tuple[bool, Any]:
    """What sorts as ids do: code points of text are in the order of its UTF-8 bytes."""
    return type(id) is str, id


def _is_behind(record: Record, value: Value | None, place: Place) -> bool:
    """Whether a row with this value comes after a place in its order."""
    at = _value(place)
    if value == at:
        return _id_rank(record.id) > _id_rank(place.id)
    if value is None or at is None:
        return value is None
    here, there = order.rank(value), order.rank(at)
    return here < there if place.descending else here > there


def _seek(cursor: Any, prefix: bytes, after: bytes | None, backwards: bool) -> bool:
    """Put a cursor on the first id behind `after`, or on the first of all."""
    if not backwards:
        return bool(cursor.set_range(prefix if after is None else after + b"\x00"))
    if cursor.set_range(keys.after(prefix) if after is None else after):
        return bool(cursor.prev())
    return bool(cursor.last())
