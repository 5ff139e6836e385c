"""How does a table come over the Arrow C interface, without any Arrow library here?

A producer (pyarrow, polars, duckdb, ...) hands over PyCapsules with C structures: a stream gives
one schema and then arrays. This module owns those structures: it takes them over, turns schemas
into `Field` trees and arrays into `Node` trees, and gives them back. What the bytes mean is
decode.py's business.

Invariants:
  A1  a release callback runs exactly once: a structure is moved out of its capsule (the source is
      marked released, as the interface demands) and its own mark is cleared after the call,
      whether the producer does so or not;
  A2  no view outlives its memory: every numpy view holds the `Held` that releases it;
  A3  what the structures say is checked before it is followed: counts, missing children and
      buffers, negative lengths, lengths of children. That a buffer is as long as the structure
      says cannot be checked: the interface carries no sizes, and a producer is code of this
      process, trusted as far as any C extension.

Rejected: pyarrow as a dependency (170 MB to read six kinds of buffers).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_CHILDREN: Final = 100_000
MAX_DEPTH: Final = 64

_RELEASE: Final = CFUNCTYPE(None, c_void_p)
_GET: Final = CFUNCTYPE(c_int, c_void_p, c_void_p)
_LAST_ERROR: Final = CFUNCTYPE(c_char_p, c_void_p)


class _Schema(Structure):
    pass


_Schema._fields_ = [
    ("format", c_char_p), ("name", c_char_p), ("metadata", c_void_p), ("flags", c_int64),
    ("n_children", c_int64), ("children", POINTER(POINTER(_Schema))),
    ("dictionary", POINTER(_Schema)), ("release", c_void_p), ("private_data", c_void_p),
]  # fmt: skip


class _Array(Structure):
    pass


_Array._fields_ = [
    ("length", c_int64), ("null_count", c_int64), ("offset", c_int64), ("n_buffers", c_int64),
    ("n_children", c_int64), ("buffers", POINTER(c_void_p)),
    ("children", POINTER(POINTER(_Array))), ("dictionary", POINTER(_Array)),
    ("release", c_void_p), ("private_data", c_void_p),
]  # fmt: skip


class _Stream(Structure):
    _fields_ = [
        ("get_schema", c_void_p), ("get_next", c_void_p), ("get_last_error", c_void_p),
        ("release", c_void_p), ("private_data", c_void_p),
    ]  # fmt: skip


# --- what a reader sees ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A column's declaration: its name, Arrow's format string, and what it is made of."""

    name: str
    format: str
    children: tuple[Field, ...] = ()
    dictionary: Field | None = None


class Node:
    """An array or a part of one: its field, its length and its buffers, while `held` lives."""

    __slots__ = ("_array", "children", "dictionary", "field", "held", "length", "offset", "values")

    def __init__(self, field: Field, array: Any, held: Held, path: str) -> None:
        self.field = field
        self.held = held
        self._array = array
        self.values: list[Any] | None = None  # a dictionary's, once decoded
        self.length: int = array.length
        self.offset: int = array.offset
        if self.length < 0 or self.offset < 0 or not 0 <= array.n_buffers <= MAX_CHILDREN:
            refuse(f"column {path!r}: an array of {self.length} rows from {self.offset}")
        if array.n_children != len(field.children):
            refuse(
                f"column {path!r}: {array.n_children} children where the schema has "
                f"{len(field.children)}"
            )
        self.children = tuple(
            Node(child, _follow(array.children, at, path), held, f"{path}.{child.name}")
            for at, child in enumerate(field.children)
        )
        self.dictionary: Node | None = None
        if field.dictionary is not None:
            if not array.dictionary:
                refuse(f"column {path!r}: its dictionary is missing")
            self.dictionary = Node(field.dictionary, array.dictionary.contents, held, path)

    @property
    def buffers(self) -> int:
        """How many buffers there are."""
        return int(self._array.n_buffers)

    @property
    def has_nulls(self) -> bool:
        """Whether a row may be null."""
        return bool(self._array.null_count) and self.address(0) is not None

    def address(self, number: int) -> int | None:
        """Where a buffer begins; None where the producer gave none."""
        if number >= self._array.n_buffers or not self._array.buffers:
            return None
        found: int | None = self._array.buffers[number]
        return found

    def view(
        self, number: int, dtype: npt.DTypeLike, first: int, count: int, path: str
    ) -> npt.NDArray[Any]:
        """`count` items of a buffer from item `first` on, as they lie in memory, read-only."""
        kind = np.dtype(dtype)
        if not count:
            return np.empty(0, kind)
        address = self.address(number)
        if address is None:
            refuse(f"column {path!r}: buffer {number} is missing")
        return np.asarray(_Memory(address + first * kind.itemsize, count, kind, self.held))


class _Memory:
    """What numpy needs to look at memory that another owns, and the owner."""

    __slots__ = ("__array_interface__", "held")

    def __init__(self, address: int, count: int, kind: np.dtype[Any], held: Held) -> None:
        self.held = held
        self.__array_interface__ = {
            "version": 3, "shape": (count,), "typestr": kind.str, "data": (address, True),
        }  # fmt: skip


class Held:
    """A C structure that is ours to release; `first`: where in the table an array's item 0 lies."""

    __slots__ = ("first", "struct")

    def __init__(self, struct: Any) -> None:
        self.struct = struct
        self.first = 0

    def release(self) -> None:
        """Give it back; the second call does nothing."""
        callback = self.struct.release
        if callback:
            try:
                _RELEASE(callback)(ctypes.addressof(self.struct))
            finally:
                self.struct.release = None

    def __del__(self) -> None:
        self.release()


# --- taking over -------------------------------------------------------------------------


class Stream:
    """A stream of arrays with one schema; `close` gives it back, and so does the end."""

    def __init__(self, table: Any) -> None:
        capsule = table.__arrow_c_stream__()
        self._held = _moved(capsule, b"arrow_array_stream", _Stream)
        try:
            schema = Held(_Schema())
            self._call("get_schema", schema)
            self.field = _field(schema.struct, 0)
            schema.release()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Node]:
        """The arrays of the stream, each alive as long as something looks at it."""
        rows = 0
        while True:
            held = Held(_Array())
            self._call("get_next", held)
            if not held.struct.release:
                self.close()
                return
            held.first = rows - held.struct.offset
            node = Node(self.field, held.struct, held, "")
            rows += node.length
            yield node

    def close(self) -> None:
        """Give the stream back to its producer; what was read stays usable."""
        self._held.release()

    def _call(self, name: str, into: Held) -> None:
        stream = self._held.struct
        callback = getattr(stream, name) if stream.release else None
        if not callback:
            refuse(f"the Arrow stream has no {name}; it was read already")
        place = ctypes.addressof(stream)
        code = _GET(callback)(place, ctypes.addressof(into.struct))
        if code:
            into.struct.release = None  # nothing was handed over
            said = stream.get_last_error and _LAST_ERROR(stream.get_last_error)(place)
            detail = said.decode("utf-8", "replace") if said else "it gives no reason"
            refuse(f"the Arrow stream failed in {name} with code {code}: {detail}")


def from_array(table: Any) -> Node:
    """The one array that an object with `__arrow_c_array__` hands over."""
    given = table.__arrow_c_array__()
    if not isinstance(given, tuple) or len(given) != 2:
        refuse(f"__arrow_c_array__ returned a {type(given).__name__}, not two capsules")
    schema = _moved(given[0], b"arrow_schema", _Schema)
    held = _moved(given[1], b"arrow_array", _Array)
    return Node(_field(schema.struct, 0), held.struct, held, "")


def _moved(capsule: Any, name: bytes, kind: type[Structure]) -> Held:
    """The structure in a capsule, moved out of it."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = c_void_p, (ctypes.py_object, c_char_p)
    try:
        address = pointer(capsule, name)
    except (ValueError, TypeError, ctypes.ArgumentError) as error:
        refuse(f"no Arrow capsule named {name.decode()!r}: {error}")
    source: Any = kind.from_address(address)
    if not source.release:
        refuse(f"the {name.decode()!r} capsule was used already; make it anew")
    moved: Any = kind()
    ctypes.pointer(moved)[0] = source
    source.release = None
    return Held(moved)


def _field(schema: Any, depth: int) -> Field:
    if depth > MAX_DEPTH:
        refuse(f"the Arrow schema is nested deeper than {MAX_DEPTH} levels; flatten it")
    try:
        name, spelled = (schema.name or b"").decode(), (schema.format or b"").decode()
    except UnicodeDecodeError as error:
        refuse(f"a name in the Arrow schema is no UTF-8: {error}")
    if not 0 <= schema.n_children <= MAX_CHILDREN:
        refuse(f"column {name!r} has {schema.n_children:,} children; limit {MAX_CHILDREN:,}")
    children = tuple(
        _field(_follow(schema.children, at, name), depth + 1) for at in range(schema.n_children)
    )
    dictionary = _field(schema.dictionary.contents, depth + 1) if schema.dictionary else None
    return Field(name, spelled, children, dictionary)


def _follow(pointers: Any, at: int, path: str) -> Any:
    if not pointers or not pointers[at]:
        refuse(f"column {path!r}: child {at} is missing")
    return pointers[at].contents


def refuse(message: str) -> NoReturn:
    """Raise InvalidArgument about the table."""
    raise InvalidArgument(f"table: {message}")
