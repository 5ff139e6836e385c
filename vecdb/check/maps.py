"""Are the maps that a collection's vectors go through as they should be (storage/maps.py)?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vecdb.check.subject import Subject
from vecdb.errors import Corrupt, InvalidArgument
from vecdb.storage import keys, maps
from vecdb.storage.schema import Hidden, VectorField
from vecdb.types import Problem


def problems(of: Subject) -> Iterator[Problem]:
    """X1: every map that is named is there and whole, maps what the field has, and no other is there."""
    named = {maps.key_of(of.cid, each): (each, is_bridge) for each, is_bridge in maps.named(of.schema)}
    for key, _ in of.scan(keys.MAPS):
        if key not in named:
            yield Problem("X1", of.at(keys.describe(key)), "no field goes through this map")
    found: dict[str, Any] = {}
    for key, (fingerprint, is_bridge) in named.items():
        where = of.at(keys.describe(key))
        try:
            made = _read(maps.get(of.txn, of.cid, fingerprint), is_bridge)
        except (Corrupt, InvalidArgument) as error:
            yield Problem("X1", where, getattr(error, "detail", "") or str(error))
            continue
        if made.fingerprint != fingerprint:
            yield Problem("X1", where, f"it is the map {made.fingerprint}, not {fingerprint}")
            continue
        found[fingerprint] = made
    for name, declared in _named(of):
        for detail in _chain(declared, found):
            yield Problem("X1", of.at(f"vector field {name!r}"), detail)


def _read(raw: bytes, is_bridge: bool) -> Any:
    if is_bridge:
        from vecdb.adapting.bridge import Bridge

        return Bridge.from_bytes(raw)
    from vecdb.adapting.adapter import Adapter

    return Adapter.from_bytes(raw)


def _named(of: Subject) -> Iterator[tuple[str, VectorField | Hidden]]:
    yield from of.schema.vectors.items()
    for name, hidden in of.schema.hidden.items():
        yield name, hidden.field
        if hidden.bridge is not None:
            yield name, hidden


def _chain(field: VectorField | Hidden, found: dict[str, Any]) -> Iterator[str]:
    """Whether maps take what is given to them and make what the field has; those that could be read."""
    if isinstance(field, Hidden):
        bridge = found.get(field.bridge or "")
        if bridge is not None and bridge.dim_in != field.field.dim:
            yield f"its bridge takes {bridge.dim_in} numbers; the vectors beside it have {field.field.dim}"
        return
    size = field.given_dim
    for each in field.adapters:
        made = found.get(each)
        if made is None:
            return
        if made.dim_in != size or made.metric != field.metric:
            yield f"map {each} takes {made.dim_in} numbers under {made.metric}; it is given {size}"
            return
        size = made.dim
    if size != field.dim:
        yield f"its maps make {size} numbers; it has {field.dim}"
