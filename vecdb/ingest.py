"""What did the user give, and can it be stored? Ids, metadata and texts, checked whole.

Every function returns what will be stored or raises InvalidArgument that names the argument, the
first bad row, the limit and the remedy. Nothing is written before all of them have returned. Vectors:
arrays.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.storage import codec, keys
from vecdb.types import Id, Metadata

MAX_TEXT_BYTES: Final = 16 << 20
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # sorts as its digits do


def given_ids(ids: Any, cid: int) -> tuple[list[tuple[Id, bytes]], bool]:
    """Ids with their keys in the id map, and whether one scalar was given."""
    if isinstance(ids, str | int | np.integer | np.str_) and not isinstance(ids, bool):
        plain = _plain_id(ids, "ids")
        return [(plain, keys.row_id(cid, plain))], True
    if isinstance(ids, bool | float | np.bool_ | np.floating):
        _refuse(f"ids: {ids!r} is a {type(ids).__name__}; an id is a str or an int")
    if isinstance(ids, np.ndarray):
        if ids.ndim > 1 or ids.dtype.kind not in "iuUO":
            _refuse(
                f"ids is an array of shape {ids.shape} and dtype {ids.dtype}; an id is a str or an "
                "int: did you mean vectors=?"
            )
        ids = ids.tolist()
    if isinstance(ids, bytes | Mapping) or not hasattr(ids, "__iter__"):
        _refuse(f"ids is a {type(ids).__name__}; give a list of str or int")
    found = []
    for at, id in enumerate(ids):
        if type(id) is not str and type(id) is not int:
            id = _plain_id(id, f"ids: row {at}")
        try:
            found.append((id, keys.row_id(cid, id)))
        except InvalidArgument as error:
            _refuse(f"ids: row {at}: {error}")
    return found, False


def _plain_id(id: Any, where: str) -> Id:
    if isinstance(id, np.integer) or (isinstance(id, int) and not isinstance(id, bool)):
        return int(id)
    if isinstance(id, str):
        return str(id)
    if isinstance(id, list | tuple | np.ndarray):
        _refuse(f"{where}: a {type(id).__name__} where an id belongs; did you mean vectors=?")
    _refuse(f"{where}: {id!r:.60} is a {type(id).__name__}; an id is a str or an int")


def new_ids(n: int, cid: int) -> list[tuple[Id, bytes]]:
    """Sortable unique ids: 48 bits of milliseconds, 80 random bits, 26 characters (like ULID)."""
    stamp = time.time_ns() // 1_000_000
    start = int.from_bytes(os.urandom(10), "big") >> 1
    found: list[tuple[Id, bytes]] = []
    for at in range(n):
        number = (stamp << 80) + start + at
        id = "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
        found.append((id, keys.row_id(cid, id)))
    return found


def no_duplicates(known: list[tuple[Id, bytes]]) -> None:
    """Refuse an id that is there twice, by its second row."""
    if len({key for _, key in known}) == len(known):
        return
    seen: set[bytes] = set()
    for at, (id, key) in enumerate(known):
        if key in seen:
            _refuse(f"ids: row {at}: id {id!r} appears twice in this call; nothing was written")
        seen.add(key)


def given_metadata(metadata: Any, n: int) -> list[Metadata]:
    """One cleaned dict a row."""
    if metadata is None:
        return [{}] * n
    if isinstance(metadata, Mapping):
        if n != 1:
            _refuse(f"metadata is one dict for {n} rows; give a list of one dict a row")
        return [codec.clean_metadata(metadata, "metadata")]
    if isinstance(metadata, str) or not hasattr(metadata, "__len__"):
        _refuse(f"metadata is a {type(metadata).__name__}; give a dict, or a list of one a row")
    if len(metadata) != n:
        _refuse(f"metadata has {len(metadata)} entries for {n} rows; give one for each")
    return [
        {} if m is None else codec.clean_metadata(m, f"metadata: row {i}")
        for i, m in enumerate(metadata)
    ]


def given_texts(texts: Any, n: int) -> list[str | None] | None:
    """One str a row, None for a row without a text; None where no row has one."""
    if texts is None:
        return None
    if isinstance(texts, str):
        texts = [texts]
    if not hasattr(texts, "__len__"):
        _refuse(f"texts is a {type(texts).__name__}; give a list of str")
    if len(texts) != n:
        _refuse(f"texts has {len(texts)} entries for {n} rows; give one for each")
    found = [None if text is None else _text(text, at) for at, text in enumerate(texts)]
    return found if any(text is not None for text in found) else None


def _text(text: Any, at: int) -> str:
    if not isinstance(text, str):
        _refuse(f"texts: row {at}: {type(text).__name__} where a str belongs, or None")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        _refuse(f"texts: row {at}: a lone surrogate at position {error.start}; it is no text")
    if size > MAX_TEXT_BYTES:
        _refuse(
            f"texts: row {at}: {size:,} bytes; the limit is {MAX_TEXT_BYTES:,}: split it into chunks"
        )
    return str(text)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
