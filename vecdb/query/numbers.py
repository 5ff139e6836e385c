"""How is a vector kept inside a query, so that the query is a value?

`Numbers` is an array's bytes with their dtype and shape: immutable, hashable, comparable to the bit, and
written to JSON without loss. Lists of numbers become tuples.

Rejected: numpy arrays as they are. They can be changed, have no hash, and `==` gives an array.
"""

from __future__ import annotations

import base64
import binascii
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from vecdb.errors import InvalidArgument

MAX_NUMBERS: Final = 1 << 24  # in one query
DTYPES: Final = {
    "float16": 2, "float32": 4, "float64": 8, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1,
    "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Numbers:
    """An array of numbers as a value; `dtype` is numpy's name of it, `data` little-endian, C order."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"<{self.dtype} {self.shape}>"

    def to_plain(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "numbers": base64.b64encode(self.data).decode("ascii"), "dtype": self.dtype,
            "shape": list(self.shape),
        }  # fmt: skip


Vector = Numbers | tuple[Any, ...]


def given_numbers(where: str, value: Any, dims: tuple[int, ...]) -> Vector:
    """A vector (or matrix, by `dims`) as a value; InvalidArgument for anything else."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(value, "tobytes"):
        return _of_array(where, value, str(getattr(dtype, "name", dtype)), dims)
    if isinstance(value, Numbers):
        if len(value.shape) not in dims:
            _refuse(f"{where} has shape {value.shape}; give {_wanted(dims)}")
        return value
    if isinstance(value, list | tuple):
        return _of_list(where, value, dims)
    _refuse(f"{where}: a {type(value).__name__} where a vector belongs: give an array or a list of numbers")


def _of_array(where: str, value: Any, dtype: str, dims: tuple[int, ...]) -> Numbers:
    if dtype not in DTYPES:
        _refuse(f"{where}: an array of dtype {dtype}; give real numbers")
    shape = tuple(int(n) for n in value.shape)
    if len(shape) not in dims:
        _refuse(f"{where} has shape {shape}; give {_wanted(dims)}")
    if math.prod(shape) > MAX_NUMBERS:
        _refuse(f"{where} has {math.prod(shape):,} numbers; the limit is {MAX_NUMBERS:,}")
    if value.dtype.byteorder == ">" or (sys.byteorder == "big" and value.dtype.byteorder == "="):
        value = value.astype(value.dtype.newbyteorder("<"))
    return Numbers(value.tobytes(), dtype, shape)


def _of_list(where: str, value: Sequence[Any], dims: tuple[int, ...]) -> tuple[Any, ...]:
    if len(value) > MAX_NUMBERS:
        _refuse(f"{where} has {len(value):,} numbers; the limit is {MAX_NUMBERS:,}")
    nested = bool(value) and all(isinstance(each, list | tuple) or _is_array(each) for each in value)
    if nested:
        if 2 not in dims:
            _refuse(f"{where}: a list of lists; give {_wanted(dims)}")
        if any(_is_array(each) for each in value):
            value = [each.tolist() if _is_array(each) else each for each in value]
        return tuple(_of_list(where, row, (1,)) for row in value)
    if 1 not in dims:
        _refuse(f"{where}: give {_wanted(dims)}")
    if _is_plain(value):
        return tuple(value)
    return tuple(_number(where, at, each) for at, each in enumerate(value))


def _is_plain(value: Sequence[Any]) -> bool:
    """Whether all are Python's numbers, finite and of 64 bits: seen at once, as of most lists."""
    if not set(map(type, value)) <= {int, float}:
        return False
    try:
        finite = all(map(math.isfinite, value))
    except OverflowError:
        return False
    return finite and (not value or -(1 << 63) <= min(value) <= max(value) < 1 << 63)


def _is_array(value: Any) -> bool:
    return hasattr(value, "tolist") and bool(getattr(value, "shape", ()))


def _number(where: str, at: int, value: Any) -> int | float | bool:
    if hasattr(value, "item") and not isinstance(value, int | float) and not getattr(value, "shape", None):
        value = value.item()  # a numpy scalar
    if not isinstance(value, int | float):
        _refuse(f"{where}: item {at} is a {type(value).__name__}, not a number")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(f"{where}: item {at} is {value}; every number must be finite")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        _refuse(f"{where}: item {at} is an int of more than 64 bits; give it as a float")
    return value


def _wanted(dims: tuple[int, ...]) -> str:
    return " or ".join({1: "one vector (d,)", 2: "a matrix (m, d)"}[each] for each in dims)


def from_plain(where: str, found: Any, dims: tuple[int, ...]) -> Vector:
    """Read what `to_plain` made, or a list of numbers."""
    if isinstance(found, list):
        return _of_list(where, found, dims)
    if not isinstance(found, dict) or found.keys() != {"numbers", "dtype", "shape"}:
        _refuse(f"{where}: no vector is written so")
    data, dtype, shape = found["numbers"], found["dtype"], found["shape"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        _refuse(f"{where}: unknown dtype {dtype!r:.40}")
    if (
        not isinstance(shape, list) or len(shape) not in dims
        or not all(type(n) is int and 0 <= n <= MAX_NUMBERS for n in shape)
    ):  # fmt: skip
        _refuse(f"{where}: shape {shape!r:.40} is none of {_wanted(dims)}")
    try:
        raw = base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except (binascii.Error, ValueError):
        raw = None
    if raw is None or len(raw) != math.prod(shape) * DTYPES[dtype]:
        _refuse(f"{where}: the numbers do not fit shape {shape} of {dtype}")
    return Numbers(raw, dtype, tuple(shape))


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
