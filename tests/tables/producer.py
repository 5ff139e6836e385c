"""A producer of Arrow streams that counts its releases, and lies on request. No Arrow library.

It builds the C structures of the Arrow C data and stream interfaces by ctypes from Python values.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p, py_object
from typing import Any

import numpy as np


class Schema(Structure):
    pass


Schema._fields_ = [
    ("format", c_char_p), ("name", c_char_p), ("metadata", c_void_p), ("flags", c_int64),
    ("n_children", c_int64), ("children", POINTER(POINTER(Schema))), ("dictionary", POINTER(Schema)),
    ("release", c_void_p), ("private_data", c_void_p),
]  # fmt: skip


class Array(Structure):
    pass


Array._fields_ = [
    ("length", c_int64), ("null_count", c_int64), ("offset", c_int64), ("n_buffers", c_int64),
    ("n_children", c_int64), ("buffers", POINTER(c_void_p)), ("children", POINTER(POINTER(Array))),
    ("dictionary", POINTER(Array)), ("release", c_void_p), ("private_data", c_void_p),
]  # fmt: skip


class Stream(Structure):
    _fields_ = [
        ("get_schema", c_void_p), ("get_next", c_void_p), ("get_last_error", c_void_p),
        ("release", c_void_p), ("private_data", c_void_p),
    ]  # fmt: skip


RELEASE = CFUNCTYPE(None, c_void_p)
GET = CFUNCTYPE(c_int, c_void_p, c_void_p)
LAST_ERROR = CFUNCTYPE(c_void_p, c_void_p)
SAID = ctypes.create_string_buffer(b"the disk is on fire")


class Column:
    """A column as its parts: format, buffers, children, dictionary; any of them may be a lie."""

    def __init__(
        self, name: str, format: str, length: int, buffers: list[Any] = (), children: list[Column] = (),  # type: ignore[assignment]
        dictionary: Column | None = None, offset: int = 0, nulls: int = 0, n_children: int | None = None,
    ) -> None:  # fmt: skip
        self.name, self.format, self.length = name, format, length
        self.buffers = [None if b is None else np.ascontiguousarray(b) for b in buffers]
        self.children, self.dictionary = list(children), dictionary
        self.offset, self.nulls, self.n_children = offset, nulls, n_children


def table(length: int, *columns: Column) -> Column:
    return Column("", "+s", length, [None], list(columns))


def ids(*values: int) -> Column:
    return Column("id", "l", len(values), [None, np.array(values, "<i8")])


class Producer:
    """Offers `__arrow_c_stream__`; `released` counts calls by what was released."""

    def __init__(self, *arrays: Column, fail: str = "", code: int = 5, tamper: Callable[[Any], None] | None = None, clears: bool = True) -> None:
        self._arrays = list(arrays)
        self._fail, self._code, self._tamper, self._clears = fail, code, tamper, clears
        self.released = {"stream": 0, "schema": 0, "array": 0}
        self.given = {"schema": 0, "array": 0}
        self._keep: list[Any] = []

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        stream = Stream()
        stream.get_schema = self._callback(GET, self._get_schema)
        stream.get_next = self._callback(GET, self._get_next)
        stream.get_last_error = self._callback(LAST_ERROR, lambda _: ctypes.addressof(SAID))
        stream.release = self._releaser("stream", Stream)
        if self._tamper is not None:
            self._tamper(stream)
        self._keep.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = py_object, (c_void_p, c_char_p, c_void_p)
        return new(ctypes.addressof(stream), b"arrow_array_stream", None)

    def _callback(self, kind: Any, function: Any) -> int:
        made = kind(function)
        self._keep.append(made)
        return ctypes.cast(made, c_void_p).value or 0

    def _releaser(self, what: str, kind: Any) -> int:
        def release(address: int) -> None:
            self.released[what] += 1
            if self._clears:
                kind.from_address(address).release = None

        return self._callback(RELEASE, release)

    def _get_schema(self, _: int, out: int) -> int:
        if self._fail == "get_schema":
            return self._code
        self._schema(self._arrays[0], Schema.from_address(out))
        self.given["schema"] += 1
        return 0

    def _get_next(self, _: int, out: int) -> int:
        target = Array.from_address(out)
        if not self._arrays:
            if self._fail == "get_next":
                return self._code
            target.release = None
            return 0
        self._array(self._arrays.pop(0), target)
        self.given["array"] += 1
        return 0

    def _schema(self, column: Column, into: Any) -> None:
        self._keep += [column.format.encode(), column.name.encode("utf-8", "surrogateescape")]
        into.format, into.name = self._keep[-2:]
        into.n_children = len(column.children)
        into.children = self._pointers(Schema, column.children, self._schema)
        if column.dictionary is not None:
            into.dictionary = self._pointers(Schema, [column.dictionary], self._schema)[0]
        into.release = self._releaser("schema", Schema)

    def _array(self, column: Column, into: Any) -> None:
        into.length, into.null_count, into.offset = column.length, column.nulls, column.offset
        into.n_buffers = len(column.buffers)
        addresses = (c_void_p * max(1, len(column.buffers)))(*[None if b is None else b.ctypes.data for b in column.buffers])
        self._keep += [addresses, column]
        into.buffers = ctypes.cast(addresses, POINTER(c_void_p))
        into.n_children = len(column.children) if column.n_children is None else column.n_children
        into.children = self._pointers(Array, column.children, self._array)
        if column.dictionary is not None:
            into.dictionary = self._pointers(Array, [column.dictionary], self._array)[0]
        into.release = self._releaser("array", Array)

    def _pointers(self, kind: Any, columns: list[Column], fill: Any) -> Any:
        made = [kind() for _ in columns]
        for one, column in zip(made, columns, strict=True):
            fill(column, one)
            one.release = None  # released with its parent
        pointers = (POINTER(kind) * max(1, len(made)))(*[ctypes.pointer(one) for one in made])
        self._keep += [made, pointers]
        return ctypes.cast(pointers, POINTER(POINTER(kind)))
