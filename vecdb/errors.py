"""What can go wrong, as one tree: every exception that vecdb raises is defined here.

Invariants (kept by tests/unit/test_errors.py):
  1. Nothing else leaves the package: LMDB's, msgpack's and the extension's own exceptions are
     translated where they arise.
  2. A message names the object, the limit and the remedy; the facts of it that a program may
     want are attributes as well.
  3. Every class can be pickled, so that an error crosses a process pool unharmed.

Misuse:       InvalidArgument (a ValueError), SchemaError, FilterError, NotFound (a KeyError),
              AlreadyExists, Closed, ReadOnly, EncoderMismatch
Environment:  Full, Busy, TooManyReaders, EncoderFailed
Damage:       Corrupt, WrongFormat

Rejected: error codes instead of classes (``except`` wants classes), and a class for each cause
(a caller acts on the kind; the message and the attributes carry the cause).
"""

from __future__ import annotations

from typing import Any, Literal

__all__ = [
    "AlreadyExists",
    "Busy",
    "Closed",
    "Corrupt",
    "EncoderFailed",
    "EncoderMismatch",
    "FilterError",
    "Full",
    "InvalidArgument",
    "NotFound",
    "ReadOnly",
    "SchemaError",
    "TooManyReaders",
    "VecdbError",
    "WrongFormat",
]


class VecdbError(Exception):
    """Base class of every error that vecdb raises.

    `committed`: from `add_table`, how many rows of the table were written before and stay.
    """

    committed: int | None = None


# --- misuse: the call is wrong, and the same call would fail again -----------------------


class InvalidArgument(VecdbError, ValueError):
    """An argument is not acceptable; the message names it (and the first bad row)."""


class SchemaError(VecdbError):
    """A value or a request contradicts what the collection declares."""


class FilterError(VecdbError):
    """A filter cannot be understood; `offset` is the character where its text went wrong."""

    def __init__(self, message: str = "", *, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class NotFound(VecdbError, KeyError):
    """Something that was asked for by name or id does not exist."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return Exception.__str__(self)


class AlreadyExists(VecdbError):
    """Something that should be new exists already."""


class Closed(VecdbError):
    """The database, snapshot or transaction was closed."""


class ReadOnly(VecdbError):
    """A write was asked of something that only reads."""


class EncoderMismatch(VecdbError):
    """The encoder at hand is not the one that made the stored vectors."""


# --- environment: the call is right, the surroundings do not allow it now ----------------


class Full(VecdbError):
    """No room for the write, and nothing of it is kept.

    `kind` is "disk" (the file system has no room) or "map" (the limit set by `max_size`, or
    the address space that could be had).
    """

    def __init__(self, message: str = "", *, kind: Literal["disk", "map"] = "disk") -> None:
        super().__init__(message)
        self.kind: Literal["disk", "map"] = kind


class Busy(VecdbError):
    """Another transaction holds what this call needs; `owner_pid` is its process, if known."""

    def __init__(self, message: str = "", *, owner_pid: int | None = None) -> None:
        super().__init__(message)
        self.owner_pid = owner_pid


class TooManyReaders(VecdbError):
    """The table of concurrent readers is full of living ones."""


class EncoderFailed(VecdbError):
    """An encoder's service gave no vectors now; what was written before stays, and nothing is half written.

    `first`, `last`: the numbers of the texts of the call that it was asked for; `made`: the float32 vectors
    of the texts before `first`, None where there are none.
    """

    def __init__(
        self, message: str = "", *, first: int | None = None, last: int | None = None, made: Any = None
    ) -> None:
        super().__init__(message)
        self.first = first
        self.last = last
        self.made = made


# --- damage: the file is not what it should be -------------------------------------------


class Corrupt(VecdbError):
    """Stored data is damaged: `code` says which rule is broken, `where` names the place."""

    def __init__(
        self, message: str = "", *, code: str = "", where: str = "", detail: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.where = where
        self.detail = detail


class WrongFormat(VecdbError):
    """The file is no vecdb database, or one of a format that this version cannot read.

    `found` is the file's format number (None when it is not a vecdb file), `supported` the
    newest number that this version reads.
    """

    def __init__(
        self, message: str = "", *, found: int | None = None, supported: int | None = None
    ) -> None:
        super().__init__(message)
        self.found = found
        self.supported = supported
