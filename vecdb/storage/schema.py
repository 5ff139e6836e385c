"""What was a collection declared to be? One catalog record per collection.

Invariants (checked by vecdb/check.py):
  C1  names are unique, and every collection number is below the meta record's next one;
  C2  a number is never used again, so that no record of a dropped collection can be mistaken.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from vecdb import _core
from vecdb.errors import InvalidArgument
from vecdb.storage import codec, keys, rows
from vecdb.storage.vectors import DTYPES

METRICS: Final = ("cosine", "l2", "dot")
MAX_DIM: Final = 65_535
MAX_NAME_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Schema:
    """The declaration of a collection with one vector field."""

    name: str
    dim: int
    metric: str = "cosine"
    dtype: str = "f32"
    M: int = 16
    ef_construction: int = 200
    encoder: str | None = None
    fingerprint: str | None = None

    def difference(self, other: Schema) -> str | None:
        """The first respect in which two declarations differ, in words; None when they agree."""
        same = self.fingerprint is not None and self.fingerprint == other.fingerprint
        for name in ("dim", "metric", "dtype", "M", "ef_construction", "encoder"):
            if name == "encoder" and same:
                continue  # one encoder under two names, as a model that was moved
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} is {mine!r}, not {theirs!r}"
        return None


def validate(schema: Schema) -> Schema:
    """The same schema; InvalidArgument naming the first argument that cannot be."""
    _validate_name(schema.name)
    _between("dim", schema.dim, 1, MAX_DIM)
    if schema.metric not in METRICS:
        raise InvalidArgument(f"metric={schema.metric!r}: choose one of {', '.join(METRICS)}")
    if schema.dtype not in DTYPES:
        raise InvalidArgument(f"dtype={schema.dtype!r}: choose one of {', '.join(DTYPES)}")
    _between("M", schema.M, 4, 64)
    _between("ef_construction", schema.ef_construction, 8, 2000)
    return schema


def _validate_name(name: object) -> None:
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"name={name!r:.60}: a collection's name is a non-empty str")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"name={name!r:.60} is not valid Unicode text") from None
    if size > MAX_NAME_BYTES:
        raise InvalidArgument(f"name has {size} UTF-8 bytes; the limit is {MAX_NAME_BYTES}")


def _between(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidArgument(f"{name}={value!r:.60}: give an int from {low} to {high}")


def put(txn: Any, cid: int, schema: Schema) -> None:
    """Write a collection's catalog record."""
    key = keys.catalog(cid)
    txn.put(key, _core.seal(keys.CATALOG, key, codec.pack(asdict(schema))))


def read_all(txn: Any) -> dict[str, tuple[int, Schema]]:
    """The whole catalog: name -> (cid, schema)."""
    found: dict[str, tuple[int, Schema]] = {}
    prefix = bytes((keys.CATALOG,))
    cursor = txn.cursor()
    more = cursor.set_range(prefix)
    while more:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            break
        declared = rows.unpack_record(keys.CATALOG, key, cursor.value(), code="C1")
        try:
            schema = validate(Schema(**declared))
        except (TypeError, InvalidArgument) as error:
            raise rows.damaged("C1", key, str(error)) from None
        found[schema.name] = (int.from_bytes(key[1:5], "big"), schema)
        more = cursor.next()
    return found
