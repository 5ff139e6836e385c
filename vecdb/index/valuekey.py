"""How do metadata values become bytes whose order is the values' order?

A value key is a tag, then the value:

    0x01 0x00           None
    0x01 0x01..0x06     not values but kinds: every row whose field is a number, a string, a
                        datetime, a list, a dict, NaN (for the last three it is all there is)
    0x02 0x00 | 0x01    False, True
    0x10 f64 [rest]     number: the largest double that is not above it, as 8 bytes that sort,
                        and 2 bytes for what an int exceeds that double by, unless zero
    0x20 utf-8          string of at most 200 bytes
    0x20 utf-8[:200] 0xFF digest    longer string (0xFF occurs in no UTF-8)
    0x30 i64            datetime: microseconds since 1970 in UTC, sign flipped
    0x40 utf-8          three characters in a row of a string, where a substring index is declared
    0x80 | tag ...      a value, as an element of a list

Invariants:
  K1  within a kind, keys order as the values do, ints and floats in one exact order; the only
      exception is strings that share their first 200 bytes (callers ask the rows, select.py);
  K2  two values have one key exactly if a filter calls them equal: 5 and 5.0, 0.0 and -0.0, one
      instant in two zones; True and 1 differ. Long strings: up to a collision of 128 bits;
  K3  a key is at most MAX_KEY bytes and never starts with 0xFF;
  K4  rows whose field exists are those in [FIRST_KIND, AFTER_BOOLS): one short range.

Rejected: msgpack or JSON as keys (5 and 5.0 differ, no order); whole strings (LMDB keys end at
511 bytes); doubles alone (ints beyond 2**53 would collapse); trigrams as a field of their own (whatever
lists fields would have to know which of them are none).
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from math import nextafter
from struct import Struct
from typing import Any, Final

from vecdb.errors import InvalidArgument
from vecdb.storage.codec import instant_of

NULL: Final = b"\x01\x00"
NUMBERS: Final = b"\x01\x01"
STRINGS: Final = b"\x01\x02"
DATETIMES: Final = b"\x01\x03"
LIST: Final = b"\x01\x04"
DICT: Final = b"\x01\x05"
NAN: Final = b"\x01\x06"
FALSE: Final = b"\x02\x00"
TRUE: Final = b"\x02\x01"
FIRST_KIND: Final = NUMBERS
AFTER_BOOLS: Final = b"\x03"

NUMBER_TAG: Final = b"\x10"
STRING_TAG: Final = b"\x20"
DATETIME_TAG: Final = b"\x30"
TRIGRAM_TAG: Final = b"\x40"
KIND_OF_TAG: Final = {0x10: NUMBERS, 0x20: STRINGS, 0x30: DATETIMES}
ELEMENT: Final = 0x80

TRIGRAM: Final = 3  # characters
MAX_STRING: Final = 200  # UTF-8 bytes kept in a key
DIGEST: Final = 16
MAX_KEY: Final = 1 + MAX_STRING + 1 + DIGEST
_LONG: Final = b"\xff"

_DOUBLE: Final = Struct(">d")
_U64: Final = Struct(">Q")
_U16: Final = Struct(">H")
_SIGN: Final = 1 << 63
_ALL: Final = (1 << 64) - 1
_EXACT: Final = 1 << 53
_INFINITY: Final = float("inf")
_LARGEST: Final = 1.7976931348623157e308


def key_of(value: Any) -> bytes:
    """Return the key of a scalar that metadata or a filter can hold."""
    kind = type(value)
    if kind is str:
        return string_key(value)
    if kind is int:
        return number_key(value)
    if kind is float:
        return number_key(value) if value == value else NAN
    if kind is bool:
        return TRUE if value else FALSE
    if value is None:
        return NULL
    if isinstance(value, datetime):
        return DATETIME_TAG + _U64.pack(instant_of(value) + _SIGN)
    raise InvalidArgument(f"no index key for a {kind.__name__}")


def element_key(value: Any) -> bytes:
    """Return the key of a scalar as an element of a list."""
    key = key_of(value)
    return bytes((key[0] | ELEMENT,)) + key[1:]


def string_key(value: str) -> bytes:
    """Return the key of a string."""
    raw = _utf8(value)
    if len(raw) <= MAX_STRING:
        return STRING_TAG + raw
    from hashlib import blake2b  # here: rare, and it loads a TLS library

    digest = blake2b(raw, digest_size=DIGEST).digest()
    return STRING_TAG + raw[:MAX_STRING] + _LONG + digest


def trigrams(text: str) -> set[str]:
    """Return the different runs of three characters in a text, however long it is."""
    return {text[at : at + TRIGRAM] for at in range(len(text) - TRIGRAM + 1)}


def trigram_key(trigram: str) -> bytes:
    """Return the key of strings that have these three characters in them."""
    return TRIGRAM_TAG + _utf8(trigram)


@lru_cache(maxsize=1 << 14)  # equal numbers have equal keys, so that mixing 5 and 5.0 is sound
def number_key(value: int | float) -> bytes:
    """Return the key of a number that is not NaN; ints may be of any size."""
    floor = value if type(value) is float else _floor(int(value))
    (bits,) = _U64.unpack(_DOUBLE.pack(floor + 0.0))  # + 0.0: -0.0 becomes 0.0
    key = NUMBER_TAG + _U64.pack(bits ^ (_ALL if bits & _SIGN else _SIGN))
    if floor == value:
        return key
    excess = min(int(value) - int(floor), 0xFFFF) if -_INFINITY < floor else 0xFFFF
    return key + _U16.pack(excess)


def doubles_around(key: bytes) -> tuple[float, float]:
    """Return the largest double that is not above a number, and the least that is not below it."""
    (sortable,) = _U64.unpack(key[1:9])
    bits = sortable ^ _SIGN if sortable & _SIGN else sortable ^ _ALL
    low: float = _DOUBLE.unpack(_U64.pack(bits))[0]
    return low, low if len(key) == 9 else nextafter(low, _INFINITY)


def microseconds_of(key: bytes) -> int:
    """Return what a datetime's key says: microseconds since 1970 in UTC."""
    return int(_U64.unpack(key[1:9])[0]) - _SIGN


def is_long(key: bytes) -> bool:
    """Return whether this is the key of a string that it does not hold in full."""
    return len(key) == MAX_KEY and key.startswith(STRING_TAG)


def interval(symbol: str, key: bytes) -> tuple[bytes, bytes]:
    """Return [start, stop): the keys of one kind that are `<`, `<=`, `>` or `>=` than `key`.

    For a long string the keys that share its 200 bytes are left out: see `same_prefix`.
    """
    tag = key[:1]
    low, high = same_prefix(key) if is_long(key) else (key, key + b"\x00")
    if symbol == "<":
        return tag, low
    if symbol == "<=":
        return tag, low if is_long(key) else high
    end = bytes((tag[0] + 1,))
    if symbol == ">":
        return high, end
    return high if is_long(key) else low, end


def same_prefix(key: bytes) -> tuple[bytes, bytes]:
    """Return [start, stop): the keys of long strings that share a long string's 200 bytes."""
    prefix = key[: 1 + MAX_STRING] + _LONG
    return prefix, prefix + _LONG * (DIGEST + 1)


def starting_with(prefix: str) -> tuple[bytes, bytes]:
    """Return [start, stop): the keys of strings that start so, or with its first 200 bytes."""
    start = STRING_TAG + _utf8(prefix)[:MAX_STRING]
    return start, start + _LONG * (DIGEST + 2)


def string_of(key: bytes) -> str:
    """Return the string of a key that holds it in full; ValueError when it is no string's."""
    if not key.startswith(STRING_TAG):
        raise ValueError(f"the value key {key[:40].hex()} is no string's")
    return key[1:].decode()


def elements_between(low: float, high: float) -> tuple[bytes, bytes]:
    """Return [start, stop): the keys of list elements that are numbers in [low, high]."""
    return element_key(low), element_key(high) + b"\x00"


def _utf8(value: str) -> bytes:
    """UTF-8; lone surrogates, which no row holds, keep their order."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


def _floor(value: int) -> float:
    """The largest double that is not above an int."""
    if -_EXACT <= value <= _EXACT:
        return float(value)
    try:
        near = float(value)
    except OverflowError:
        return _LARGEST if value > 0 else -_INFINITY
    if near <= value:
        return near
    (bits,) = _U64.unpack(_DOUBLE.pack(near))
    below: float = _DOUBLE.unpack(_U64.pack(bits - 1 if near > 0 else bits + 1))[0]
    return below
