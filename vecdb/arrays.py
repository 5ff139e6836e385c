"""Which vectors did the user give, and can they be stored, or searched for?

    given_vectors   vectors of rows, by field number, in the dtype that is stored
    given_query     a query or several, as float32

Everything is checked before anything is written: InvalidArgument names the argument, the first bad
row, the limit and the remedy.

Rejected: letting numpy convert whatever comes. It turns complex numbers, strings and ragged lists
into something, and the user learns about it from the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.storage import sparse
from vecdb.storage.schema import ONLY, Schema, VectorField
from vecdb.storage.vectors import DTYPES, Given

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]


# --- vectors of rows -------------------------------------------------------------------------


def given_vectors(given: Any, n: int, schema: Schema, *, single: bool) -> dict[int, Given]:
    """The vectors of `n` rows by field number; a field that was not named is not there.

    `given`: an array for the only field, or {name: array}; `single`: one row was given as a scalar.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(schema.vectors) != 1:
            _refuse(f"vectors: {_choices(schema)}; give {{name: array}}")
        declared = next(iter(schema.vectors.values()))
        return {declared.number: _of_field("vectors", given, n, declared, single)}
    found = {}
    for name, values in given.items():
        if name not in schema.vectors:
            _refuse(f"vectors: no vector field {name!r:.60}; {_choices(schema)}")
        declared = schema.vectors[name]
        where = "vectors" if name == ONLY else f"vectors[{name!r}]"
        found[declared.number] = _of_field(where, values, n, declared, single)
    return found


def _choices(schema: Schema) -> str:
    names = ", ".join(map(repr, schema.vectors))
    return f"collection {schema.name!r} has the vector fields {names}"


def _of_field(where: str, values: Any, n: int, declared: VectorField, single: bool) -> Given:
    if values is None:
        return Given(np.empty(0, np.intp), nothing(declared) if declared.graphed else [])
    if declared.sparse:
        return _sparse(where, values, n, single)
    if declared.multi:
        return _many(where, values, n, declared, single)
    rows = np.arange(n)
    if isinstance(values, list | tuple) and any(each is None for each in values):
        _check_length(where, values, n)
        rows = np.array([i for i, each in enumerate(values) if each is not None], np.intp)
        values = [each for each in values if each is not None]
        if not values:
            return Given(rows, nothing(declared))
    return Given(rows, _stored(where, values, rows, declared, single))


def nothing(declared: VectorField) -> npt.NDArray[Any]:
    """No vectors, in the shape that a field stores."""
    width = -(-declared.dim // 8) if declared.dtype == "b1" else declared.dim
    return np.empty((0, width), DTYPES[declared.dtype])


def _stored(
    where: str, values: Any, rows: npt.NDArray[np.intp], declared: VectorField, single: bool
) -> npt.NDArray[Any]:
    """Vectors (n, numbers) of the stored dtype, contiguous; every row finite and usable."""
    n, dim = len(rows), declared.dim
    array = _array(where, values, declared)
    if array.ndim == 1 and (single or n == 1) and array.size in (dim, _packed_size(declared)):
        array = array.reshape(1, -1)
    if array.ndim == 1 and not array.size and n == 0:
        array = array.reshape(0, dim)
    if array.ndim != 2:
        _refuse(f"{where} has shape {array.shape}; give (n, {dim})")
    if array.shape[1] not in (dim, _packed_size(declared)) and n:
        _refuse(f"{where} have dimension {array.shape[1]}; the collection has dim {dim}")
    _check_length(where, array, n)
    return _in_dtype(where, values, array, rows, declared)


def _in_dtype(
    where: str,
    values: Any,
    array: npt.NDArray[Any],
    rows: npt.NDArray[np.intp],
    declared: VectorField,
) -> npt.NDArray[Any]:
    if declared.dtype == "b1":
        return _packed(where, array, rows, declared)
    if declared.dtype == "i8":
        _check_int8(where, values, array)
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, DTYPES[declared.dtype])
    check_rows(where, stored, declared.metric, given=array, rows=rows)
    return stored


def _check_int8(where: str, values: Any, array: npt.NDArray[Any]) -> None:
    """int8 arrays, and lists of Python ints that fit: another dtype was meant for something else."""
    if array.dtype == np.int8 or not array.size:
        return
    if isinstance(values, list | tuple) and array.dtype.kind == "i":
        low, high = int(array.min()), int(array.max())
        if -128 <= low and high <= 127:
            return
    _refuse(
        f"{where} has dtype {array.dtype}; the field stores 'i8': give an int8 array, scaled by you"
    )


def _packed_size(declared: VectorField) -> int:
    """Bytes of a vector of bits; for other dtypes their numbers."""
    return -(-declared.dim // 8) if declared.dtype == "b1" else declared.dim


def _packed(
    where: str, array: npt.NDArray[Any], rows: npt.NDArray[np.intp], declared: VectorField
) -> npt.NDArray[Any]:
    """Bits (n, d) of 0 and 1, or packed uint8 (n, d / 8), as packed uint8."""
    dim, size = declared.dim, _packed_size(declared)
    if array.shape[1] == dim:
        wrong = (array != 0) & (array != 1)
        if wrong.any():
            at = int(rows[int(np.argmax(wrong.any(axis=1)))])
            _refuse(f"{where}: row {at}: bits are 0 or 1; 'b1' stores nothing else")
        return np.packbits(array.astype(np.bool_), axis=1)
    if array.dtype != np.uint8 and array.size:
        _refuse(f"{where} has dtype {array.dtype}; packed bits are uint8, (n, {size})")
    packed = np.ascontiguousarray(array, np.uint8)
    _check_spare(where, packed, declared, rows)
    return packed


def _check_spare(
    where: str,
    packed: npt.NDArray[Any],
    declared: VectorField,
    rows: npt.NDArray[np.intp] | None = None,
) -> None:
    """Refuse packed bits that say more than `dim` bits."""
    spare = 8 * packed.shape[-1] - declared.dim
    beyond = np.atleast_1d(packed[..., -1] & ((1 << spare) - 1)) != 0
    if beyond.any():
        at = _number(int(np.argmax(beyond)), rows)
        _refuse(f"{where}: row {at}: the last byte has bits beyond dim {declared.dim}; leave them 0")


def _many(where: str, values: Any, n: int, declared: VectorField, single: bool) -> Given:
    """A list of one (m, d) array a row, or None for a row without."""
    if single and n == 1 and _levels(values) == 2:
        values = [values]
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        _refuse(f"{where} is a {type(values).__name__}; give a list of one (m, {declared.dim}) a row")
    _check_length(where, values, n)
    rows = [i for i, each in enumerate(values) if each is not None]
    made = []
    for at in rows:
        array = _array(f"{where}: row {at}", values[at], declared)
        if array.size == 0:
            array = array.reshape(0, declared.dim)
        if array.ndim != 2 or array.shape[1] not in (declared.dim, _packed_size(declared)):
            _refuse(f"{where}: row {at} has shape {array.shape}; give (m, {declared.dim})")
        whose = np.full(len(array), at)
        made.append(_in_dtype(where, values[at], array, whose, declared))
    return Given(np.array(rows, np.intp), made)


def _sparse(where: str, values: Any, n: int, single: bool) -> Given:
    """A list of one dict {token: weight} a row, or None for a row without."""
    if single and n == 1 and isinstance(values, Mapping):
        values = [values]
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__len__"):
        _refuse(f"{where} is a {type(values).__name__}; give a list of one {{token: weight}} a row")
    _check_length(where, values, n)
    rows = [i for i, each in enumerate(values) if each is not None]
    made = [sparse_row(f"{where}: row {at}", values[at]) for at in rows]
    return Given(np.array(rows, np.intp), made)


def sparse_row(where: str, given: Any) -> npt.NDArray[np.uint8]:
    """A sparse vector as it is stored; weights that are 0, also as float32, are left out."""
    if not isinstance(given, Mapping):
        _refuse(f"{where}: a {type(given).__name__}; give a dict {{token: weight}}")
    if len(given) > sparse.MAX_ENTRIES:
        _refuse(f"{where}: {len(given):,} entries; the limit is {sparse.MAX_ENTRIES:,}: keep the heaviest")
    plain = _plain_sparse(given)
    if plain is not None:
        return plain
    ints: list[tuple[int, float]] = []
    strs: list[tuple[bytes, float]] = []
    for token, weight in given.items():
        value = sparse_weight(where, token, weight)
        if isinstance(token, str):
            if value:
                strs.append((sparse_token(where, token), value))
            continue
        if isinstance(token, bool | np.bool_) or not isinstance(token, int | np.integer):
            _refuse(f"{where}: token {token!r:.60} is a {type(token).__name__}; give a str or an int")
        if not sparse.INT_MIN <= token <= sparse.INT_MAX:
            _refuse(f"{where}: token {token!r:.60} does not fit 64 bits; give it as a str")
        if value:
            ints.append((int(token), value))
    if len({token for token, _ in ints}) < len(ints):
        _refuse(f"{where}: an int token is there twice, as a numpy number and one of Python")
    return sparse.encode(ints, strs)


def _plain_sparse(given: Mapping[Any, Any]) -> npt.NDArray[np.uint8] | None:
    """The same of Python's strs and numbers, all at once; None where one by one says what is wrong."""
    if not (set(map(type, given)) <= {str, int} and set(map(type, given.values())) <= {float, int}):
        return None
    try:
        with np.errstate(over="ignore", under="ignore"):
            weights = np.fromiter(given.values(), np.float64, len(given)).astype(np.float32)
        entries = list(zip(given, weights.tolist(), strict=True))
        if not weights.all():
            entries = [entry for entry in entries if entry[1]]
        ints = [entry for entry in entries if type(entry[0]) is int]
        strs = [(token.encode(), weight) for token, weight in entries if type(token) is str]
    except (OverflowError, UnicodeEncodeError):
        return None
    fit = all(1 <= len(token) <= sparse.MAX_TOKEN_BYTES for token, _ in strs)
    fit = fit and all(sparse.INT_MIN <= token <= sparse.INT_MAX for token, _ in ints)
    return sparse.encode(ints, strs) if fit and np.isfinite(weights).all() else None


def sparse_token(where: str, token: str) -> bytes:
    """A str token as UTF-8."""
    try:
        raw = token.encode()
    except UnicodeEncodeError:
        _refuse(f"{where}: token {token!r:.60} is not valid Unicode text")
    if not 1 <= len(raw) <= sparse.MAX_TOKEN_BYTES:
        _refuse(
            f"{where}: token {token!r:.60} has {len(raw)} UTF-8 bytes; give 1 to {sparse.MAX_TOKEN_BYTES}"
        )
    return raw


def sparse_weight(where: str, token: Any, weight: Any) -> float:
    """A weight as float32."""
    if isinstance(weight, bool | np.bool_) or not isinstance(weight, int | float | np.integer | np.floating):
        _refuse(f"{where}: the weight of {token!r:.60} is a {type(weight).__name__}; give a number")
    try:
        with np.errstate(over="ignore", under="ignore"):
            found = float(np.float32(weight))
    except OverflowError:  # an int beyond every float
        found = float("inf")
    if not np.isfinite(found):
        _refuse(f"{where}: the weight of {token!r:.60} is {weight!r:.40}; every weight is finite in float32")
    return found


def _levels(values: Any) -> int:
    """How many levels of lists or axes there are; 0 where that cannot be said."""
    try:
        return np.ndim(values)
    except Exception:  # ragged, or no array at all: refused by name, row by row
        return 0


def _check_length(where: str, values: Any, n: int) -> None:
    if len(values) != n:
        _refuse(f"{where} has {len(values)} rows for {n} ids; give one for each")


def encoded(made: Any, rows: npt.NDArray[np.intp], declared: VectorField) -> Given:
    """What an encoder made of the texts of some rows."""
    where = f"output of encoder {declared.encoder!r}"
    array = np.asarray(made, np.float32)
    if array.shape != (len(rows), declared.dim):
        _refuse(f"{where} has shape {array.shape}, not ({len(rows)}, {declared.dim})")
    return Given(rows, _in_dtype(where, array, array, rows, declared))


def imaged(made: Any, rows: npt.NDArray[np.intp], declared: VectorField) -> Given:
    """What adapters, or a map, made of vectors of some rows, as a field stores them."""
    array = np.asarray(made, np.float32).reshape(len(rows), declared.dim)
    return Given(rows, _in_dtype("vectors after their adapter", array, array, rows, declared))


# --- queries ---------------------------------------------------------------------------------


def given_query(query: Any, declared: VectorField, name: str) -> tuple[Floats, bool]:
    """A query as float32: (d,) and True, or (b, d) and False."""
    dim, is_bits = declared.dim, declared.dtype == "b1"
    if type(query) is np.ndarray and query.dtype == np.float32 and query.ndim == 1 and not is_bits:
        if query.shape[0] == dim:
            return checked(query, declared.metric), True
        found = query
    else:
        found = _real(query, declared)
    if found.ndim not in (1, 2) or (found.shape[-1] != dim and len(found)):
        _refuse(f"query has shape {found.shape}; collection {name!r} takes ({dim},) or (b, {dim})")
    if found.ndim == 1 and found.shape[0] != dim:
        _refuse(f"query has {found.shape[0]} numbers; collection {name!r} has dim {dim}")
    return checked(found, declared.metric), found.ndim == 1


def _real(query: Any, declared: VectorField) -> Floats:
    array = _array("query", query, declared)
    if declared.dtype == "b1" and array.dtype == np.uint8 and array.ndim:
        if array.shape[-1] == _packed_size(declared) != declared.dim:
            _check_spare("query", array, declared)
            array = np.unpackbits(array, axis=-1, count=declared.dim)
    with np.errstate(over="ignore"):
        found: Floats = np.asarray(array, np.float32)
    if declared.dtype == "b1" and found.size and not np.isin(found, (0, 1)).all():
        _refuse("query: bits are 0 or 1")
    return found


def checked(query: Floats, metric: str) -> Floats:
    """Refuse NaN, infinity, and zero under cosine: one pass, the sum of squares tells."""
    if query.ndim == 1:
        with np.errstate(over="ignore"):
            square = float(query.dot(query))
        if square != square or square == np.inf or square == 0:
            check_rows("query", query.reshape(1, -1), metric)
    elif query.size:
        check_rows("query", query, metric)
    return query if query.flags.c_contiguous else np.ascontiguousarray(query)


# --- what both share -------------------------------------------------------------------------


def _array(name: str, values: Any, declared: VectorField) -> npt.NDArray[Any]:
    if isinstance(values, str | bytes | Mapping):
        _refuse(f"{name} is a {type(values).__name__}; give an array of real numbers")
    if hasattr(values, "mask") and np.ma.is_masked(values):
        _refuse(f"{name} is a masked array, and some of it is masked: fill that in, or leave rows out")
    try:
        array = np.asarray(values)
    except Exception as error:  # an object may raise what it likes when asked to be an array
        _refuse(f"{name} is not an array of real numbers: {error!s:.200}{_first_ragged(values)}")
    if array.dtype.kind not in ("fiub" if declared.dtype == "b1" else "fiu") and array.size:
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
    name: str,
    stored: npt.NDArray[Any],
    metric: str,
    given: npt.NDArray[Any] | None = None,
    rows: npt.NDArray[np.intp] | None = None,
) -> None:
    """Refuse NaN and infinity (also after rounding), zero under cosine, and overflow of |x|^2.

    `rows` are the numbers that the caller knows the vectors by.
    """
    square = np.einsum("ij,ij->i", stored, stored, dtype=np.float32)
    if np.isfinite(square).all() and (metric != "cosine" or square.all()):
        return
    finite = np.isfinite(stored).all(axis=1)
    if not finite.all():
        at = int(np.argmin(finite))
        rounded = given is not None and bool(np.isfinite(given[at]).all())
        cause = f"too large for {stored.dtype}" if rounded else "NaN or infinity"
        _refuse(f"{name}: row {_number(at, rows)}: {cause}; every number must be finite")
    if not np.isfinite(square).all():
        at = int(np.argmin(np.isfinite(square)))
        _refuse(
            f"{name}: row {_number(at, rows)}: its squared length overflows float32; scale the "
            "vectors down"
        )
    if metric == "cosine" and not square.all():
        at = int(np.argmin(square > 0))
        _refuse(
            f"{name}: row {_number(at, rows)}: a zero vector has no direction under "
            "metric='cosine'; leave it out or use metric='l2'"
        )


def _number(at: int, rows: npt.NDArray[np.intp] | None) -> int:
    return at if rows is None else int(rows[at])


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
