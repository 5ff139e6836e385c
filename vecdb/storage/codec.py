"""How do values become bytes, and which values are refused?

Two uses of msgpack, the only ones in the package:
  * `pack` / `unpack`: the engine's own records (schemas, logs, leaves). Sound by construction,
    and by their frame's checksum when read.
  * `clean_metadata` / `pack_metadata` / `unpack_metadata`: what users store with a row. Cleaned
    first: every refusal names the row and the field's path, so packing itself cannot fail.

Invariants:
  M1  clean_metadata's result holds only exact str, int, float, bool, None, datetime, list and
      dict: what is packed equals what is read back, type for type;
  M2  a datetime keeps its instant to the microsecond and its offset to the minute;
  M3  unpacking is bounded by the length of its input and by MAX_ELEMENTS; a damaged record is
      Corrupt, never a msgpack error.

Rejected: msgpack's own timestamp extension (drops the offset), pickle (executes what it reads),
JSON (no 64-bit ints, no dates, twice the bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from struct import Struct
from typing import Any, NoReturn

import msgpack  # type: ignore[import-untyped]

from vecdb.errors import Corrupt, InvalidArgument

MAX_METADATA_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_ELEMENTS = 65_536
MAX_RECORD_BYTES = 1 << 30

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1

_DATETIME = 1  # extension type: UTC microseconds i64, offset in minutes i16
_DATETIME_BYTES = Struct(">qh")
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


# --- the engine's own records ------------------------------------------------------------


def pack(value: object) -> bytes:
    """Return a record's payload; datetimes need a zone."""
    packed: bytes = msgpack.packb(value, default=_extension)
    return packed


def unpack(payload: bytes | memoryview, where: str = "record") -> Any:
    """Return what `pack` was given (tuples as lists); Corrupt names `where` when it cannot."""
    try:
        return msgpack.unpackb(
            payload,
            strict_map_key=False,
            ext_hook=_from_extension,
            max_str_len=MAX_RECORD_BYTES,
            max_bin_len=MAX_RECORD_BYTES,
            max_array_len=len(payload),
            max_map_len=len(payload),
            max_ext_len=_DATETIME_BYTES.size,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        _corrupt(where, error)


# --- a row's metadata --------------------------------------------------------------------


def clean_metadata(metadata: object, row: str = "metadata") -> dict[str, Any]:
    """Return a private copy of a row's metadata in exact Python types.

    numpy scalars become Python's and tuples lists. InvalidArgument, naming `row` and the path
    of the field, for anything that is not a str, 64-bit int, float, bool, None, datetime with
    a zone, list of those, or nested dict, and for more than 16 levels or 65,536 elements.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidArgument(f"{row}: metadata is a dict, not {type(metadata).__name__}")
    cleaner = _Cleaner(row)
    return cleaner.mapping(metadata, "", 1)


def pack_metadata(cleaned: dict[str, Any], row: str = "metadata") -> bytes:
    """Return cleaned metadata as bytes; InvalidArgument beyond 1 MiB."""
    packed: bytes = msgpack.packb(cleaned, default=_extension)
    if len(packed) > MAX_METADATA_BYTES:
        raise InvalidArgument(
            f"{row}: metadata takes {len(packed):,} bytes encoded; the limit is "
            f"{MAX_METADATA_BYTES:,}: keep large content in files and store their paths"
        )
    return packed


def unpack_metadata(payload: bytes | memoryview, where: str = "row") -> dict[str, Any]:
    """Return the dict that `pack_metadata` was given; Corrupt names `where` when it cannot."""
    try:
        found = msgpack.unpackb(
            payload,
            strict_map_key=True,
            ext_hook=_from_extension,
            max_str_len=MAX_METADATA_BYTES,
            max_bin_len=0,
            max_array_len=MAX_ELEMENTS,
            max_map_len=MAX_ELEMENTS,
            max_ext_len=_DATETIME_BYTES.size,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        _corrupt(where, error)
    if not isinstance(found, dict):
        _corrupt(where, ValueError(f"metadata is a {type(found).__name__}, not a dict"))
    return found


class _Cleaner:
    """Walks one row's metadata; counts elements so that the limit covers the whole row."""

    __slots__ = ("elements", "row")

    def __init__(self, row: str) -> None:
        self.row = row
        self.elements = 0

    def mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            self.refuse(path, f"is nested deeper than {MAX_DEPTH} levels; flatten it")
        cleaned: dict[str, Any] = {}
        for key, item in value.items():
            name = self.key(key, path)
            inner = f"{path}.{name}" if path else name
            cleaned[name] = self.value(item, inner, depth)
        return cleaned

    def key(self, key: object, path: str) -> str:
        if not isinstance(key, str):
            place = f"in {path!r}" if path else "of the metadata"
            self.refuse("", f"a key {place} is a {type(key).__name__}, not a str: {key!r:.60}")
        if key[:1] == "\0" and not path:
            self.refuse("", f"the key {key!r:.60} begins with a NUL, which names of ours do; rename it")
        return self.text(key, path or "metadata")

    def value(self, value: object, path: str, depth: int) -> Any:
        self.elements += 1
        if self.elements > MAX_ELEMENTS:
            self.refuse(path, f"is beyond {MAX_ELEMENTS:,} elements in one row; split the row")
        kind = type(value)
        if kind is str:
            return self.text(value, path)
        if kind is bool or value is None or kind is float:
            return value
        if kind is int:
            return self.integer(value, path)
        if kind is list or kind is tuple:
            return self.sequence(value, path, depth)
        if isinstance(value, Mapping):
            return self.mapping(value, path, depth + 1)
        return self.unusual(value, path, depth)

    def sequence(self, value: Any, path: str, depth: int) -> list[Any]:
        cleaned = []
        for position, item in enumerate(value):
            inner = f"{path}[{position}]"
            if isinstance(item, list | tuple | Mapping):
                self.refuse(inner, "is a list or dict inside a list; lists hold scalars only")
            cleaned.append(self.value(item, inner, depth))
        return cleaned

    def text(self, value: Any, path: str) -> str:
        if value.isascii():
            return str.__str__(value)
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            self.refuse(path, f"has a lone surrogate at position {error.start}; it is no text")
        return str.__str__(value)

    def integer(self, value: Any, path: str) -> int:
        if INT_MIN <= value <= INT_MAX:
            return int(value)
        self.refuse(path, f"is {value!r:.40}, which does not fit 64 bits; store it as a string")

    def unusual(self, value: Any, path: str, depth: int) -> Any:
        """Subclasses of the plain types, datetimes, numpy scalars; refuses the rest."""
        if isinstance(value, datetime):
            return self.moment(value, path)
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, int):
            return self.integer(int.__int__(value), path)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, list | tuple):
            return self.sequence(value, path, depth)
        if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
            return self.from_numpy(value, path, depth)
        self.refuse(path, f"is a {type(value).__name__.lstrip('_')}; {_remedy(value)}")

    def from_numpy(self, value: Any, path: str, depth: int) -> Any:
        plain = value.item()
        if type(plain) not in (bool, int, float, str, datetime):
            self.refuse(path, f"is a numpy {type(value).__name__}; {_remedy(value)}")
        self.elements -= 1
        return self.value(plain, path, depth)

    def moment(self, value: datetime, path: str) -> datetime:
        offset = value.utcoffset()
        if offset is None:
            self.refuse(
                path,
                f"is the datetime {value!s} without a time zone; "
                "say which one it is in: value.replace(tzinfo=timezone.utc)",
            )
        return _moment(*_instant(value, offset))

    def refuse(self, path: str, what: str) -> NoReturn:
        place = f" field {path!r}" if path else ""
        raise InvalidArgument(f"{self.row}:{place} {what}")


def _remedy(value: object) -> str:
    if repr(value) == "vecdb.REMOVE":
        return "REMOVE takes a key away in update(), at the top level only: leave the key out"
    if hasattr(value, "tolist") and getattr(value, "ndim", None) != 0:
        return "metadata takes lists: use .tolist()"
    if isinstance(value, bytes | bytearray | memoryview):
        return "metadata takes text: decode it, or keep binary content in a file"
    if isinstance(value, set | frozenset):
        return "metadata takes lists: use sorted(...)"
    return (
        "metadata takes str, int, float, bool, None, datetime with a time zone, "
        "lists of those and dicts"
    )


# --- datetimes ---------------------------------------------------------------------------


def instant_of(moment: datetime) -> int:
    """Return a datetime's microseconds since 1970 in UTC; InvalidArgument without a zone."""
    offset = moment.utcoffset()
    if offset is None:
        raise InvalidArgument(f"the datetime {moment!s} has no time zone")
    return _instant(moment, offset)[0]


def _instant(moment: datetime, offset: timedelta) -> tuple[int, int]:
    local = (moment.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    return local - offset // _MICROSECOND, round(offset.total_seconds() / 60)


def _moment(microseconds: int, minutes: int) -> datetime:
    """Raise OverflowError or ValueError when this is no datetime that Python can hold."""
    offset = timedelta(minutes=minutes)
    zone = timezone(offset) if minutes else UTC
    return (_EPOCH + (timedelta(microseconds=microseconds) + offset)).replace(tzinfo=zone)


def _extension(value: object) -> msgpack.ExtType:
    if isinstance(value, datetime):
        offset = value.utcoffset()
        if offset is not None:
            return msgpack.ExtType(_DATETIME, _DATETIME_BYTES.pack(*_instant(value, offset)))
    raise TypeError(f"cannot pack {type(value).__name__}")


def _from_extension(code: int, data: bytes) -> datetime:
    if code != _DATETIME or len(data) != _DATETIME_BYTES.size:
        raise ValueError(f"unknown extension type {code} of {len(data)} bytes")
    return _moment(*_DATETIME_BYTES.unpack(data))


def _corrupt(where: str, error: Exception) -> NoReturn:
    detail = f"{type(error).__name__}: {error}"
    raise Corrupt(
        f"{where} cannot be decoded ({detail}); run db.check(), then vecdb.repair() into a new "
        "file or restore a backup",
        code="payload",
        where=where,
        detail=detail,
    ) from None
