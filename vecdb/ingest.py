"""What did the user give, and can it be stored? Ids, vectors, metadata and texts, checked whole.

Every function returns what will be stored or raises InvalidArgument that names the argument, the
first bad row, the limit and the remedy. Nothing is written before all of them have returned.

Rejected: letting numpy convert whatever comes. It turns complex numbers, strings and ragged lists
into something, and the user learns about it from the results.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.storage import codec, keys
from vecdb.storage.schema import Schema
from vecdb.storage.vectors import DTYPES
from vecdb.types import Id, Metadata

if TYPE_CHECKING:
    import numpy.typing as npt

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


def given_vectors(
    given: Any, n: int, schema: Schema, *, single: bool, name: str = "vectors"
) -> npt.NDArray[Any] | None:
    """Vectors as (n, dim) of the stored dtype, contiguous; every row finite and usable."""
    if given is None:
        return None
    array = _array(name, given)
    if array.ndim == 1 and (single or n == 1) and array.size == schema.dim:
        array = array.reshape(1, -1)
    if array.ndim == 1 and not array.size and n == 0:
        array = array.reshape(0, schema.dim)
    if array.ndim != 2:
        _refuse(f"{name} has shape {array.shape}; give (n, {schema.dim})")
    if array.shape[1] != schema.dim and n:
        _refuse(f"{name} have dimension {array.shape[1]}; the collection has dim {schema.dim}")
    if len(array) != n:
        _refuse(f"{name} has {len(array)} rows for {n} ids; give one for each")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, DTYPES[schema.dtype])
    check_rows(name, stored, schema.metric, given=array)
    return stored


def real_array(name: str, values: Any) -> npt.NDArray[np.float32]:
    """Real numbers as float32."""
    with np.errstate(over="ignore"):
        found: npt.NDArray[np.float32] = np.asarray(_array(name, values), np.float32)
    return found


def _array(name: str, values: Any) -> npt.NDArray[Any]:
    if isinstance(values, str | bytes | Mapping):
        _refuse(f"{name} is a {type(values).__name__}; give an array of real numbers")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        _refuse(f"{name} is not an array of real numbers: {error}{_first_ragged(values)}")
    if array.dtype.kind not in "fiu" and array.size:
        _refuse(
            f"{name} has dtype {array.dtype}; give real numbers (float, int){_first_ragged(values)}"
        )
    return array


def _first_ragged(values: Any) -> str:
    """Names the first row whose length differs, where the rows have lengths."""
    try:
        sizes = [len(row) for row in values]
    except TypeError:
        return ""
    for at, size in enumerate(sizes):
        if size != sizes[0]:
            return f" (row {at} has {size} numbers, row 0 has {sizes[0]})"
    return ""


def check_rows(
    name: str, stored: npt.NDArray[Any], metric: str, given: npt.NDArray[Any] | None = None
) -> None:
    """Refuse NaN and infinity (also after rounding), zero under cosine, and overflow of |x|^2."""
    finite = np.isfinite(stored).all(axis=1)
    if not finite.all():
        at = int(np.argmin(finite))
        rounded = given is not None and bool(np.isfinite(given[at]).all())
        cause = f"too large for {stored.dtype}" if rounded else "NaN or infinity"
        _refuse(f"{name}: row {at}: {cause}; every number must be finite")
    square = np.einsum("ij,ij->i", stored, stored, dtype=np.float32)
    if not np.isfinite(square).all():
        at = int(np.argmin(np.isfinite(square)))
        _refuse(f"{name}: row {at}: its squared length overflows float32; scale the vectors down")
    if metric == "cosine" and not square.all():
        at = int(np.argmin(square > 0))
        _refuse(
            f"{name}: row {at}: a zero vector has no direction under metric='cosine'; leave it out "
            "or use metric='l2'"
        )


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
