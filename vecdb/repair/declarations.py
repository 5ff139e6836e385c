"""Which collections does a damaged file speak of, and what were they declared to be?

Every collection that a sound record names is saved. Where its own declaration is lost, another stands
in for it: the blocks of vectors say dimension and dtype of their fields, and nothing says more.

Invariants (checked by tests/faults/test_repair.py):
  N1  a declaration that can be read is kept whole, declared metadata fields and encoders too;
  N2  the numbers of vector fields are those of the records while records are read; in the new file
      they count from 0, and every row may have a vector in every field.

Rejected: guessing dimension and dtype from the size of vectors that travel in their rows' records.
Four hundred bytes are a hundred floats, or two hundred half ones, or as many numbers in int8: what
would be read back as a vector may be noise.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from vecdb.errors import VecdbError
from vecdb.repair.report import Lost, Report
from vecdb.storage import keys, rows, schema, vectors
from vecdb.storage.salvage import Salvaged
from vecdb.storage.schema import MAX_NAME_BYTES, MAX_VECTORS, ONLY, Hidden, Schema, VectorField

_OF_A_COLLECTION: Final = (keys.CATALOG, keys.IDS, keys.ROWS)  # one record is enough;
_STATE: Final = keys.LOG  # of an empty one there may be no other
NOBODYS: Final = 255  # above every number of a vector field: no row has a vector in such a one


@dataclass(frozen=True, slots=True)
class Declared:
    """A collection of the damaged file; `schema` numbers the vector fields as its records do."""

    cid: int
    schema: Schema
    known: bool  # False: the declaration is lost, and this one stands in for it


def declarations(found: Salvaged, report: Report) -> Iterator[Declared]:
    """Every collection that records speak of, under names of their own; says which are stand-ins."""
    names: set[str] = set()
    for cid in _cids(found):
        declared, reason = _declaration(found, cid)
        known = declared is not None
        if declared is None:
            declared = _stand_in(found, cid)
            report.lost.append(_lost(declared, reason))
        declared = replace(declared, name=_free(declared.name, names))
        names.add(declared.name)
        yield Declared(cid, declared, known)


def renewed(schema: Schema, previous: Container[str] = ()) -> Schema:
    """The same declaration for a collection that is filled anew (N2).

    Vectors behind others are kept for the fields named in `previous`; those on their way are not.
    """
    kept = {n: each for n, each in schema.hidden.items() if n in previous}
    in_order = sorted([*schema.vectors.values(), *(each.field for each in kept.values())],
                      key=lambda each: each.number)  # fmt: skip
    numbers = {each.number: at for at, each in enumerate(in_order)}
    fresh = {
        name: replace(each, number=numbers[each.number], first=0, seat=_seat(kept, name, numbers, each))
        for name, each in schema.vectors.items()
    }
    behind = {
        name: Hidden(
            each.role,
            replace(each.field, number=numbers[each.field.number], first=0, seat=fresh[name].member),
        )
        for name, each in kept.items()
    }
    return replace(schema, vectors=fresh, next_number=len(in_order), tracked=(), hidden=behind)


def _seat(
    kept: Mapping[str, Hidden], name: str, numbers: Mapping[int, int], named: VectorField
) -> int | None:
    """The number by which rows name a field: the lower one of its own and that of the one behind it."""
    if name not in kept:
        return None
    behind = numbers[kept[name].field.number]
    return behind if behind < numbers[named.number] else None


def _cids(found: Salvaged) -> list[int]:
    kinds = _OF_A_COLLECTION if found.uncertain else (*_OF_A_COLLECTION, _STATE)
    named = [key for kind in kinds for key in found.keys_of(kind)]
    named += [key for key in found.bad if key[0] == keys.CATALOG]
    return sorted({int.from_bytes(key[1:5], "big") for key in named})


def _declaration(found: Salvaged, cid: int) -> tuple[Schema | None, str]:
    key = keys.catalog(cid)
    record = found.get(key)
    if record is None:
        return None, f"the declaration of collection number {cid} is lost"
    try:
        return schema.unpack(key, record), ""
    except VecdbError as error:
        return None, f"the declaration of collection number {cid} is damaged ({error})"


def _free(name: str, taken: Container[str]) -> str:
    """A name that no other collection has."""
    if name not in taken:
        return name
    for number in count(2):
        suffix = f" ({number})"
        room = MAX_NAME_BYTES - len(suffix)
        other = name.encode()[:room].decode(errors="ignore") + suffix
        if other not in taken:
            return other
    raise AssertionError("there is always another number")


# --- what stands in for a lost one -----------------------------------------------------------------


def _lost(stand_in: Schema, reason: str) -> Lost:
    told = ", ".join(
        f"{name!r} ({each.dim} x {each.dtype}, {each.metric!r})"
        for name, each in stand_in.vectors.items()
        if each.number != NOBODYS
    )
    saved = f"the vector fields that its blocks tell of, {told}" if told else "no vectors"
    detail = f"{reason}; it is saved under this name with {saved}, without encoders and declared fields"
    return Lost("declaration", stand_in.name, detail)


def _stand_in(found: Salvaged, cid: int) -> Schema:
    """A declaration of the vector fields that sound blocks tell of, or else of one that nobody has."""
    fields = {}
    for number in sorted({key[5] for key in found.keys_of(keys.VECTORS, cid)}):
        shape = _shape_of(found, cid, number)
        if shape is not None:
            dim, dtype = shape
            metric = "hamming" if dtype == "b1" else "l2"
            name = ONLY if number == 0 else f"{ONLY}-{number}"
            fields[name] = VectorField(number, dim, metric, dtype)
    most = dict(list(fields.items())[:MAX_VECTORS]) or {ONLY: VectorField(NOBODYS, 1, "l2")}
    return Schema(f"recovered-{cid}", most, keys.MAX_FIELD + 1)


def _shape_of(found: Salvaged, cid: int, number: int) -> tuple[int, str] | None:
    """Dimension and dtype by the first block of a field that names possible ones."""
    prefix = keys.prefix(keys.VECTORS, cid) + bytes((number,))
    for key in found.keys_of(keys.VECTORS, cid):
        if not key.startswith(prefix):
            continue
        shape = vectors.shape_in(rows.open_record(keys.VECTORS, key, found.get(key)))
        if shape is not None:
            return shape
    return None
