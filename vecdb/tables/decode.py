"""What do the bytes of an Arrow array mean? Rows from `first` to `last` as Python values.

A null is None. Vectors have a way of their own, `matrix`, that looks at the numbers where they lie.

Invariants:
  A4  every offset, view and index read from a buffer is checked against what it points into;
  A5  a type that metadata has no place for is refused by its Arrow name, with what to do; nothing
      is rounded: a timestamp with nanoseconds is refused too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from vecdb.tables.capsule import Field, Node, refuse

if TYPE_CHECKING:
    import numpy.typing as npt

NUMBERS: Final = {
    "c": "i1", "C": "u1", "s": "<i2", "S": "<u2", "i": "<i4", "I": "<u4", "l": "<i8", "L": "<u8",
    "e": "<f2", "f": "<f4", "g": "<f8",
}  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PER_SECOND: Final = {"s": 1, "m": 1_000, "u": 1_000_000, "n": 1_000_000_000}
_INLINE: Final = 12  # bytes that a string view holds itself

# The formats that metadata has no place for: what Arrow calls them, and what to do.
_FOREIGN: Final = {
    "tdD": ("date32", "cast it to a timestamp with a time zone, or to text"),
    "tdm": ("date64", "cast it to a timestamp with a time zone, or to text"),
    "tt": ("time of day", "cast it to text or to a number"),
    "tD": ("duration", "cast it to a number"),
    "ti": ("interval", "cast it to a number"),
    "d:": ("decimal", "cast it to float64 or to text"),
    "z": ("binary", "decode it to text, or keep it in files and store their paths"),
    "Z": ("large_binary", "decode it to text, or keep it in files and store their paths"),
    "vz": ("binary_view", "decode it to text, or keep it in files and store their paths"),
    "w:": ("fixed_size_binary", "decode it to text, or keep it in files"),
    "+m": ("map", "cast it to a struct"),
    "+u": ("union", "cast it to one type"),
    "+r": ("run_end_encoded", "decode it"),
    "+v": ("list_view", "cast it to list"),
}


def values(node: Node, first: int, last: int, path: str) -> list[Any]:
    """The rows from `first` up to `last` as Python values, None where null."""
    if last > node.length:
        refuse(f"column {path!r} has {node.length} rows where {last} were announced")
    if first >= last:
        return []
    if node.dictionary is not None:
        found = _from_dictionary(node, node.dictionary, first, last, path)
    else:
        found = _reader(node.field.format, path)(node, first, last, path)
    present = mask(node, first, last, path)
    if present is not None:
        for at in np.flatnonzero(~present).tolist():
            found[at] = None
    return found


def mask(node: Node, first: int, last: int, path: str) -> npt.NDArray[np.bool_] | None:
    """Which rows are there; None when all are."""
    if not node.has_nulls or first >= last:
        return None
    found = _bits(node, 0, first, last, path)
    return None if found.all() else found


def matrix(
    node: Node, first: int, last: int, path: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None] | None:
    """Rows of equally many numbers as (n, d), and which are there; None where it is no such column.

    A fixed_size_list is looked at where it lies, a list too when its rows are equally long.
    """
    kind = node.field.format
    if len(node.children) != 1 or node.children[0].field.format not in NUMBERS:
        return None
    if last > node.length:
        refuse(f"column {path!r} has {node.length} rows where {last} were announced")
    present = mask(node, first, last, path)
    if kind.startswith("+w:"):
        size = _size(kind, path)
        begin, end = (node.offset + first) * size, (node.offset + last) * size
    elif kind in ("+l", "+L"):
        offsets = _offsets(node, first, last, "<i4" if kind == "+l" else "<i8", path)
        lengths = np.diff(offsets)
        there = lengths if present is None else lengths[present]
        if present is not None and lengths[~present].any() or not len(there):
            return None  # rare: nulls over numbers, or nothing to look at
        size = int(there[0])
        if not size or (there != size).any():
            return None  # the slow way names the row
        begin, end = int(offsets[0]), int(offsets[-1])
    else:
        return None
    numbers = node.children[0]
    if end > numbers.length:
        refuse(f"column {path!r}: its numbers end at {numbers.length}, its rows at {end}")
    inner = mask(numbers, begin, end, path)
    flat = numbers.view(1, NUMBERS[numbers.field.format], numbers.offset + begin, end - begin, path)
    rows = flat.reshape(-1, size) if size else flat.reshape(last - first, 0)
    if kind in ("+l", "+L") and present is not None:
        spread = np.zeros((last - first, size), rows.dtype)
        spread[present] = rows
        rows = spread
    if inner is not None and _null_inside(inner.reshape(-1, size), present, kind):
        return None  # the slow way names the row
    return rows, present


def _null_inside(
    inner: npt.NDArray[np.bool_], present: npt.NDArray[np.bool_] | None, kind: str
) -> bool:
    """Whether a row that is there lacks a number."""
    if present is not None and kind.startswith("+w:"):
        inner = inner[present]
    return not inner.all()


# --- by kind -----------------------------------------------------------------------------

Reader = Callable[[Node, int, int, str], list[Any]]


def _reader(kind: str, path: str) -> Reader:
    if kind in NUMBERS:
        return _numbers
    known = _READERS.get(kind)
    if known is not None:
        return known
    if kind.startswith("+w:"):
        return _fixed_lists
    if kind.startswith("ts"):
        return _timestamps
    for start, (name, remedy) in _FOREIGN.items():
        if kind.startswith(start):
            refuse(f"column {path!r} is of type {name}, which a row cannot hold; {remedy}")
    refuse(f"column {path!r} has the unknown Arrow format {kind!r}")


def _numbers(node: Node, first: int, last: int, path: str) -> list[Any]:
    dtype = NUMBERS[node.field.format]
    return node.view(1, dtype, node.offset + first, last - first, path).tolist()  # type: ignore[no-any-return]


def _bools(node: Node, first: int, last: int, path: str) -> list[Any]:
    return _bits(node, 1, first, last, path).tolist()  # type: ignore[no-any-return]


def _bits(node: Node, number: int, first: int, last: int, path: str) -> npt.NDArray[np.bool_]:
    begin, end = node.offset + first, node.offset + last
    packed = node.view(number, "u1", begin // 8, (end + 7) // 8 - begin // 8, path)
    bits = np.unpackbits(packed, bitorder="little")[begin % 8 : begin % 8 + end - begin]
    return bits.astype(np.bool_)


def _nulls(node: Node, first: int, last: int, path: str) -> list[Any]:
    return [None] * (last - first)


def _strings(node: Node, first: int, last: int, path: str) -> list[Any]:
    width = "<i8" if node.field.format == "U" else "<i4"
    offsets = _offsets(node, first, last, width, path)
    start, end = int(offsets[0]), int(offsets[-1])
    data = node.view(2, "u1", start, end - start, path).tobytes()
    places = (offsets - start).tolist()
    try:
        return [data[a:b].decode() for a, b in zip(places, places[1:], strict=False)]
    except UnicodeDecodeError:
        return [
            _text(data[a:b], _place(node, row, path), path)
            for row, (a, b) in enumerate(zip(places, places[1:], strict=False), first)
        ]


def _text(data: bytes, place: str, path: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        refuse(f"column {path!r}: {place} is no UTF-8: {error}")


def _place(node: Node, row: int, path: str) -> str:
    """How to name a row: inside a list it is no row of the table."""
    return f"element {row} of its lists" if "[]" in path else f"row {node.held.first + row}"


def _string_views(node: Node, first: int, last: int, path: str) -> list[Any]:
    """16 bytes a row: a length, then the text itself or where it lies."""
    count = last - first
    views = node.view(1, "<i4", (node.offset + first) * 4, count * 4, path).reshape(-1, 4)
    raw = views.tobytes()
    pools = node.buffers - 3  # validity, views, and the lengths of the pools at the end
    sizes = node.view(node.buffers - 1, "<i8", 0, max(pools, 0), path).tolist()
    data: dict[int, bytes] = {}
    present = mask(node, first, last, path)
    found: list[Any] = []
    for row, (length, _, pool, offset) in enumerate(views.tolist()):
        place = _place(node, first + row, path)
        if present is not None and not present[row]:
            found.append(None)
        elif 0 <= length <= _INLINE:
            found.append(_text(raw[row * 16 + 4 : row * 16 + 4 + length], place, path))
        elif length > 0 and 0 <= pool < pools and 0 <= offset <= sizes[pool] - length:
            if pool not in data:
                data[pool] = node.view(2 + pool, "u1", 0, sizes[pool], path).tobytes()
            found.append(_text(data[pool][offset : offset + length], place, path))
        else:
            refuse(f"column {path!r}: the view of {place} points outside its buffers")
    return found


def _timestamps(node: Node, first: int, last: int, path: str) -> list[Any]:
    unit, _, zone_name = node.field.format[2:].partition(":")
    if not zone_name:
        refuse(
            f"column {path!r} is a timestamp without a time zone; say which one it is in, as "
            "pyarrow.compute.assume_timezone, polars' dt.replace_time_zone or pandas' "
            "dt.tz_localize do"
        )
    if unit not in _PER_SECOND:
        refuse(f"column {path!r} has the unknown Arrow format {node.field.format!r}")
    zone = _zone(zone_name, path)
    per_second = _PER_SECOND[unit]
    present = mask(node, first, last, path)
    found: list[Any] = []
    ticks = node.view(1, "<i8", node.offset + first, last - first, path).tolist()
    for row, tick in enumerate(ticks, first):
        if present is not None and not present[row - first]:
            found.append(None)
            continue
        microseconds, rest = divmod(tick * 1_000_000, per_second)
        if rest:
            refuse(
                f"column {path!r}: {_place(node, row, path)} has nanoseconds; rows keep "
                "microseconds: round the column first"
            )
        try:
            found.append((_EPOCH + timedelta(microseconds=microseconds)).astimezone(zone))
        except (OverflowError, ValueError):
            place = _place(node, row, path)
            refuse(f"column {path!r}: {place} is outside the years 1 to 9999")
    return found


def _zone(name: str, path: str) -> tzinfo:
    if name in ("UTC", "utc", "Z", "Etc/UTC"):
        return UTC
    if name[:1] in "+-" and len(name) == 6 and (name[1:3] + name[4:]).isdecimal():
        offset = timedelta(hours=int(name[1:3]), minutes=int(name[4:]))
        if offset < timedelta(days=1):
            return timezone(-offset if name[0] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        refuse(f"column {path!r}: unknown time zone {name!r}; convert it to UTC")


def _lists(node: Node, first: int, last: int, path: str) -> list[Any]:
    width = "<i8" if node.field.format == "+L" else "<i4"
    offsets = _offsets(node, first, last, width, path)
    start, end = int(offsets[0]), int(offsets[-1])
    inner = values(node.children[0], start, end, f"{path}[]")
    places = (offsets - start).tolist()
    return [inner[a:b] for a, b in zip(places, places[1:], strict=False)]


def _fixed_lists(node: Node, first: int, last: int, path: str) -> list[Any]:
    size = _size(node.field.format, path)
    begin, end = (node.offset + first) * size, (node.offset + last) * size
    inner = values(node.children[0], begin, end, f"{path}[]")
    return [inner[at * size : (at + 1) * size] for at in range(last - first)]


def _structs(node: Node, first: int, last: int, path: str) -> list[Any]:
    """Dicts; a child that is null is left out, as a null cell of the table is."""
    names = unique([child.field.name for child in node.children], path)
    begin, end = node.offset + first, node.offset + last
    columns = [
        values(child, begin, end, f"{path}.{name}")
        for child, name in zip(node.children, names, strict=True)
    ]
    return [
        {
            name: column[at]
            for name, column in zip(names, columns, strict=True)
            if column[at] is not None
        }
        for at in range(last - first)
    ]


def _from_dictionary(node: Node, dictionary: Node, first: int, last: int, path: str) -> list[Any]:
    if node.field.format not in NUMBERS or node.field.format in "efg":
        refuse(f"column {path!r}: a dictionary's indices have the format {node.field.format!r}")
    if dictionary.values is None:
        dictionary.values = values(dictionary, 0, dictionary.length, path)
    known = dictionary.values
    present = mask(node, first, last, path)
    found: list[Any] = []
    for row, index in enumerate(_numbers(node, first, last, path)):
        if present is not None and not present[row]:
            found.append(None)
        elif 0 <= index < len(known):
            found.append(known[index])
        else:
            refuse(f"column {path!r}: index {index} of a dictionary of {len(known)}")
    return found


_READERS: Final[dict[str, Reader]] = {
    "n": _nulls, "b": _bools, "u": _strings, "U": _strings, "vu": _string_views,
    "+l": _lists, "+L": _lists, "+s": _structs,
}  # fmt: skip


# --- what they share ---------------------------------------------------------------------


def _offsets(node: Node, first: int, last: int, width: str, path: str) -> npt.NDArray[np.int64]:
    """Where each row begins and the last one ends; rising, none negative."""
    found = node.view(1, width, node.offset + first, last - first + 1, path).astype(np.int64)
    if found[0] < 0 or (np.diff(found) < 0).any():
        refuse(f"column {path!r}: its offsets fall")
    if node.children and int(found[-1]) > node.children[0].length:
        refuse(
            f"column {path!r}: its rows end at {int(found[-1])}, their contents at "
            f"{node.children[0].length}"
        )
    return found


def _size(spelled: str, path: str) -> int:
    size = spelled[3:]
    if not size.isdecimal():
        refuse(f"column {path!r} has the unknown Arrow format {spelled!r}")
    return int(size)


def unique(names: list[str], path: str) -> list[str]:
    """The names, each there once."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            place = f" of column {path!r}" if path else ""
            refuse(f"two columns{place} are named {name!r}; rename one")
        seen.add(name)
    return names


def is_table(field: Field) -> bool:
    """Whether a stream's arrays are tables, not single columns."""
    return field.format == "+s"
