"""Which arguments may vecdb.open() be given?

`check_open` turns what a user typed into an `OpenOptions` of exact types, or raises
InvalidArgument that names the argument, what it may be, and what it was. Nothing here touches
a file: whether the path exists and may be used is storage/place.py's question.

Rejected: accepting LMDB's own flags. Each combination of them is a promise to keep; three
words for durability are promises that are tested.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal, cast

from vecdb.errors import InvalidArgument

Mode = Literal["rw", "r", "x"]
Durability = Literal["full", "relaxed", "none"]
Verify = Literal["auto", "always", "never"]

MODES = ("rw", "r", "x")
DURABILITIES = ("full", "relaxed", "none")
VERIFY = ("auto", "always", "never")
MIN_SIZE = 1 << 20  # below a mebibyte an empty database and one commit hardly fit
MAX_THREADS = 1024


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """The arguments of vecdb.open(), checked; `path` None means a private one in memory."""

    path: str | None
    mode: Mode
    durability: Durability
    timeout: float
    verify: Verify
    immutable: bool
    threads: int | None
    max_size: int | None
    upkeep: bool


def check_open(
    path: str | os.PathLike[str] | None = None,
    *,
    mode: str = "rw",
    durability: str = "full",
    timeout: float = 30.0,
    verify: str = "auto",
    immutable: bool = False,
    threads: int | None = None,
    max_size: int | None = None,
    upkeep: bool = True,
) -> OpenOptions:
    """Return open()'s arguments as exact types; InvalidArgument names the first bad one."""
    where = check_path(path)
    _one_of("mode", mode, MODES)
    _one_of("durability", durability, DURABILITIES)
    _one_of("verify", verify, VERIFY)
    _flag("immutable", immutable)
    _flag("upkeep", upkeep)
    if immutable and mode != "r":
        raise InvalidArgument(
            f"immutable=True needs mode='r', not {mode!r}: nothing is locked, so nothing "
            "may be written"
        )
    if where is None and mode != "rw":
        raise InvalidArgument(
            f"mode={mode!r} needs a path: a database in memory starts empty and is written"
        )
    return OpenOptions(
        path=where,
        mode=cast(Mode, mode),
        durability=cast(Durability, durability),
        timeout=check_timeout(timeout),
        verify=cast(Verify, verify),
        immutable=immutable,
        threads=_threads(threads),
        max_size=_max_size(max_size),
        upkeep=upkeep,
    )


def check_timeout(timeout: float) -> float:
    """Return a timeout in seconds as a float: 0 to infinity, not NaN."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise InvalidArgument(f"timeout is a number of seconds, not {timeout!r}")
    if math.isnan(timeout) or timeout < 0:
        raise InvalidArgument(f"timeout is at least 0 seconds, not {timeout!r}")
    return float(timeout)


def check_path(path: str | os.PathLike[str] | None) -> str | None:
    """Return a path as text."""
    if path is None:
        return None
    try:
        text = os.fspath(path)
    except TypeError:
        raise InvalidArgument(
            f"path is a str or an os.PathLike, not {type(path).__name__}"
        ) from None
    if not isinstance(text, str):
        raise InvalidArgument("path is text, not bytes: decode it with os.fsdecode()")
    if not text:
        raise InvalidArgument("path is empty; leave it out for a database in memory")
    if "\0" in text:
        raise InvalidArgument(f"path {text!r} holds a NUL character")
    return text


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(map(repr, allowed))
        raise InvalidArgument(f"{name} is one of {choices}, not {value!r}")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name} is True or False, not {value!r}")


def _integer(name: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidArgument(f"{name} is an int or None, not {value!r}")
    return int(value.__index__())


def _threads(value: int | None) -> int | None:
    if value is None:
        return None
    threads = _integer("threads", value)
    if not 1 <= threads <= MAX_THREADS:
        raise InvalidArgument(f"threads is 1 to {MAX_THREADS}, not {threads}")
    return threads


def _max_size(value: int | None) -> int | None:
    if value is None:
        return None
    size = _integer("max_size", value)
    if size < MIN_SIZE:
        raise InvalidArgument(f"max_size is at least {MIN_SIZE} bytes (1 MiB), not {size}")
    return size
