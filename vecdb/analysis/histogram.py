"""How are the values of a field spread? The answer to `papers.histogram`.

The least and the largest value are the ends of a walk through the field's value keys (index/order.py);
each bin is a range of keys, which a filter counts. No row is read.

Invariants:
  E1  .counts.sum() + .nonfinite + .missing is the number of rows counted over, `.matches`;
  E2  a value is in the bin whose lower edge is at most it and whose upper edge is above it, the
      largest in the last bin, by exact comparison: an int beyond 2**53 too, and a microsecond;
  E3  edges of numbers are numpy.histogram_bin_edges', widened to the doubles around ints that are
      none; edges of datetimes are datetimes in UTC.

Rejected: counting each value by itself and adding up. A field of distinct numbers has as many as rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import nextafter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb.errors import InvalidArgument
from vecdb.index import valuekey
from vecdb.index.attributes import Reader
from vecdb.index.order import Value, Walk
from vecdb.index.tail import Tail
from vecdb.query.clauses import Between, Compare
from vecdb.query.filter import Filter
from vecdb.shown import html_table, text_table

if TYPE_CHECKING:
    import numpy.typing as npt

MOST: Final = 10_000
CALENDAR: Final = ("day", "month", "year")
BAR: Final = 40  # characters of the longest
SHOWN: Final = 60
LARGEST: Final = 1.7976931348623157e308
INFINITY: Final = float("inf")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Histogram:
    """Counts of values in bins: `.edges`, `.counts`, `.missing`, `.nonfinite`, `.matches`, `.field`.

    `.counts` int64 (bins,); `.edges` has one more: float64 (bins + 1,), or for datetimes a list of
    datetimes in UTC. `.missing`: rows with another kind of value or none; `.nonfinite`: with NaN or
    infinity; `.matches`: all rows that were counted over. Without any value there are no bins.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> _ = c.add([1, 2, 3, 4], metadata=[{"n": 0}, {"n": 1}, {"n": 4}, {"n": "four"}])
    >>> c.histogram("n", bins=2)
    Histogram of 'n': 3 rows in 2 bins, 1 without
      [0, 2)  2  ########################################
      [2, 4]  1  ####################
    """

    __slots__ = ("by", "counts", "edges", "field", "matches", "missing", "nonfinite")

    def __init__(
        self,
        field: str,
        by: str | None,
        edges: npt.NDArray[np.float64] | list[datetime],
        counts: npt.NDArray[np.int64],
        *,
        matches: int,
        nonfinite: int,
    ) -> None:
        self.field = field
        self.by = by
        self.edges = edges
        self.counts = counts
        self.matches = matches
        self.nonfinite = nonfinite
        self.missing = matches - nonfinite - int(counts.sum())

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with the columns from, to and count, a row a bin.

        InvalidArgument where pandas (extra `pandas`) is not installed.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add([1, 2], metadata=[{"n": 0}, {"n": 1}])
        >>> c.histogram("n", bins=2).to_pandas()["count"].tolist()
        [1, 1]
        """
        from vecdb.frames import frame

        edges = list(self.edges)
        return frame({"from": edges[:-1], "to": edges[1:], "count": self.counts.tolist()})

    def __repr__(self) -> str:
        rows, most = self._rows(SHOWN), max(1, int(self.counts.max(initial=0)))
        bars = [
            (name, count, "#" * round(BAR * int(n) / most))
            for (name, count), n in zip(rows, self.counts.tolist(), strict=False)
        ]
        more = [f"  ... {len(self.counts) - SHOWN:,} more"] if len(self.counts) > SHOWN else []
        return "\n".join([self._title(), *(text_table(bars) if bars else []), *more])

    def _repr_html_(self) -> str:
        return html_table((self.field, "rows"), self._rows(1000), caption=self._title())

    def _title(self) -> str:
        by = f" by {self.by}" if self.by else ""
        odd = f", {self.nonfinite:,} NaN or infinite" if self.nonfinite else ""
        bins = f"{len(self.counts):,} bin{'' if len(self.counts) == 1 else 's'}"
        return (
            f"Histogram of {self.field!r}{by}: {int(self.counts.sum()):,} rows in {bins}{odd}, "
            f"{self.missing:,} without"
        )

    def _rows(self, most: int) -> list[tuple[str, str]]:
        shown = list(self.edges[: most + 1])
        counts, last = self.counts[:most].tolist(), len(self.counts) - 1
        width = max((len(f"{count:,}") for count in counts), default=0)
        return [
            (self._bin(shown[at], shown[at + 1], at == last), f"{count:,}".rjust(width))
            for at, count in enumerate(counts)
        ]

    def _bin(self, low: Any, high: Any, is_last: bool) -> str:
        if self.by:
            return str(low.isoformat()[: {"day": 10, "month": 7, "year": 4}[self.by]])
        if isinstance(low, datetime):
            low, high = (each.isoformat(" ", "seconds")[:19] for each in (low, high))
        else:
            low, high = f"{low:.6g}", f"{high:.6g}"
        return f"[{low}, {high}{']' if is_last else ')'}"


def checked_bins(bins: Any) -> int | str:
    """`bins=`, or InvalidArgument."""
    if isinstance(bins, str) and bins in CALENDAR:
        return bins
    number = -1 if isinstance(bins, bool | str) or not hasattr(bins, "__index__") else bins.__index__()
    if not 1 <= number <= MOST:
        words = ", ".join(map(repr, CALENDAR))
        raise InvalidArgument(f"bins={bins!r:.40}: give a number from 1 to {MOST:,}, or {words}")
    return int(number)


@dataclass(frozen=True, slots=True)
class Values:
    """The values of one field in some rows, as of one view."""

    field: str
    fieldid: int
    reader: Callable[[], Reader]
    tail: Tail
    found: BitMap
    matches: Callable[[Filter], BitMap]

    def first(self, start: bytes, *, descending: bool = False) -> bytes | None:
        """The first value key from a place on, where it is of the same kind."""
        walk = Walk(self.fieldid, self.reader(), self.tail, self.found, lambda rid: None)
        for group in walk.groups(Value(start), descending):
            key = None if group.value is None else group.value.key
            return key if key is not None and key[:1] == start[:1] else None
        return None

    def ends(self, least: Any, largest: Any) -> tuple[bytes, bytes] | None:
        """The value keys of the least and largest value within two; None where there is none."""
        low = self.first(valuekey.key_of(least))
        high = self.first(valuekey.key_of(largest), descending=True)
        if low is None or high is None or low > valuekey.key_of(largest):
            return None
        return low, high

    def count(self, where: Filter) -> int:
        """How many of the rows satisfy a filter."""
        return int(self.matches(where).intersection_cardinality(self.found))

    def nan(self) -> int:
        """How many of the rows have NaN."""
        walk = Walk(self.fieldid, self.reader(), self.tail, self.found, lambda rid: None)
        for group in walk.groups(Value(valuekey.NAN), False):
            alike = group.value is not None and group.value.key == valuekey.NAN
            return len(group.rows) if alike else 0
        return 0

    def between(self, edges: list[Any]) -> npt.NDArray[np.int64]:
        """How many rows lie in each bin (E2)."""
        counts = np.zeros(max(0, len(edges) - 1), np.int64)
        last = len(counts) - 1
        for at, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
            if low == high and at != last:
                continue
            counts[at] = self.count(Between(self.field, low, high))
            if at != last and counts[at]:
                counts[at] -= self.count(Compare(self.field, "==", high))
        return counts


def nothing(field: str, by: int | str, matches: int) -> Histogram:
    """The histogram of a field that no row has."""
    none: Any = [] if isinstance(by, str) else np.empty(0)
    word = by if isinstance(by, str) else None
    return Histogram(field, word, none, np.zeros(0, np.int64), matches=matches, nonfinite=0)


def histogram(values: Values, by: int | str) -> Histogram:
    """Count the values in bins."""
    matches = len(values.found)
    nonfinite = 0
    if not isinstance(by, str):
        nonfinite = values.nan() + values.count(Compare(values.field, "==", INFINITY))
        nonfinite += values.count(Compare(values.field, "==", -INFINITY))
        ends = values.ends(-LARGEST, LARGEST)
        if ends is not None or nonfinite:
            edges = np.empty(0) if ends is None else _of_numbers(*ends, by)
            counts = values.between(edges.tolist())
            return Histogram(values.field, None, edges, counts, matches=matches, nonfinite=nonfinite)
    times = values.ends(datetime.min.replace(tzinfo=UTC), _LAST)
    if times is None:
        return nothing(values.field, by, matches)
    first, last = (_moment(valuekey.microseconds_of(key)) for key in times)
    moments = _by_calendar(first, last, by) if isinstance(by, str) else _evenly(first, last, by)
    word = by if isinstance(by, str) else None
    return Histogram(
        values.field, word, moments, values.between(moments), matches=matches, nonfinite=0
    )


def _of_numbers(least: bytes, largest: bytes, bins: int) -> npt.NDArray[np.float64]:
    """Edges as numpy has them, the ends the doubles around the least and the largest value (E3)."""
    low, high = valuekey.doubles_around(least)[0], valuekey.doubles_around(largest)[1]
    if low == high:
        low = max(-LARGEST, min(low - 0.5, nextafter(low, -INFINITY)))
        high = min(LARGEST, max(high + 0.5, nextafter(high, INFINITY)))
    if high - low < LARGEST / 4:
        edges = np.linspace(low, high, bins + 1)
    else:
        share = np.arange(bins + 1) / bins
        edges = low * (1 - share) + high * share
    edges[0], edges[-1] = low, high
    return np.clip(np.maximum.accumulate(edges), low, high)


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND


def _evenly(first: datetime, last: datetime, bins: int) -> list[datetime]:
    """Edges of equally wide bins, to the microsecond."""
    low, high = ((each - _EPOCH) // _MICROSECOND for each in (first, last))
    if high - low < bins:
        high = min(low + bins, (_LAST - _EPOCH) // _MICROSECOND)
        low = min(low, high - bins)
    return [_moment(low + (high - low) * at // bins) for at in range(bins + 1)]


def _by_calendar(first: datetime, last: datetime, by: str) -> list[datetime]:
    """The beginnings of days, months or years, up to the first behind the last value."""
    edges = []
    for edge in _beginnings(first, by):
        edges.append(edge)
        if edge > last:
            return edges
        if len(edges) > MOST:
            raise InvalidArgument(
                f"bins={by!r}: from {first:%Y-%m-%d} to {last:%Y-%m-%d} there are more than {MOST:,} "
                "of them; use wider bins, or where= to look at fewer"
            )
    return [*edges, _LAST]  # Python's calendar ends here


def _beginnings(first: datetime, by: str) -> Iterator[datetime]:
    year, month = first.year, first.month
    edge = first.replace(hour=0, minute=0, second=0, microsecond=0)
    if by == "day":
        while True:
            yield edge
            try:
                edge += timedelta(days=1)
            except OverflowError:
                return
    month = 1 if by == "year" else month
    while year <= _LAST.year:
        yield datetime(year, month, 1, tzinfo=UTC)
        year, month = (year, month + 1) if by == "month" and month < 12 else (year + 1, 1)
