"""Ways to damage the records of a whole file (tests/damage.py), for tests of `check`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tests import damage
from tests.damage import change, keys_of, patch, payload, put
from vecdb.index.leaf import STAMP, stamp_of
from vecdb.storage import codec, keys, rows, state

Plant = Callable[[Any], object]
CID = 1  # "rows"
MOVED = 8  # "moved"


def row(txn: Any, rid: int, how: Callable[[rows.Row], rows.Row]) -> None:
    key = keys.row(CID, rid)
    put(txn, key, rows.encode(how(rows.decode(payload(txn, key)))))


def now(txn: Any, **changes: Any) -> None:
    """Write other values into the state of "rows"."""
    key = keys.state(CID)
    change(txn, key, lambda found: {**found, **changes})


def now_field(txn: Any, **changes: Any) -> None:
    """Write other values into the state of the vector field of "rows"."""
    names = state._FIELD_NAMES

    def changed(found: dict[str, Any]) -> dict[str, Any]:
        values = {**dict(zip(names, found["vectors"][0], strict=True)), **changes}
        return {**found, "vectors": {0: [values[name] for name in names]}}

    change(txn, keys.state(CID), changed)


def declared(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A declaration with other values of its vector field."""
    return {**found, "vectors": {n: {**v, **changes} for n, v in found["vectors"].items()}}


def many(txn: Any) -> bytes:
    """The key of the first record of many vectors."""
    return keys_of(txn, keys.prefix(keys.MANY, 5))[0]


def disagree(txn: Any, cid: int, rid: int) -> None:
    """Take a vector field from a row whose block says that it has it."""
    key = keys.row(cid, rid)
    put(txn, key, rows.encode(rows.decode(payload(txn, key))._replace(fields=(1,))))


def map_of(txn: Any) -> bytes:
    """The key of the map of "moved"."""
    (found,) = keys_of(txn, keys.prefix(keys.MAPS, MOVED))
    return found


def hide(txn: Any, how: Callable[[list[Any]], list[Any]]) -> None:
    """Change what the declaration of "moved" says of the field behind: [role, declaration, bridge]."""
    change(txn, keys.catalog(MOVED), lambda d: {**d, "hidden": {n: how(h) for n, h in d["hidden"].items()}})


def held(txn: Any, how: Callable[[Any], Any]) -> None:
    """Change which rows of "moved" have a vector in the field behind."""
    at = state._FIELD_NAMES.index("held")

    def changed(found: dict[str, Any]) -> dict[str, Any]:
        values = list(found["vectors"][0])
        values[at] = how(values[at])
        return {**found, "vectors": {**found["vectors"], 0: values}}

    change(txn, keys.state(MOVED), changed)


def several(row: bytes) -> bytes:
    """A row's payload that says that a list of vectors follows, which does not."""
    return row[:8] + bytes((row[8] | 16,)) + row[9:] + b"\xff"


def delete(key: bytes) -> Plant:
    def do(txn: Any) -> None:
        assert txn.delete(key)

    return do


def move(txn: Any, key: bytes, to: bytes) -> None:
    """The same content, soundly framed, under another key."""
    content = payload(txn, key)
    txn.delete(key)
    put(txn, to, content)


def flip(key: bytes, at: int) -> Plant:
    """One bit of a record, its checksum left as it is."""

    def do(txn: Any) -> None:
        record = bytearray(txn.get(key))
        record[at] ^= 4
        txn.put(key, bytes(record))

    return do


def leaf(txn: Any, how: Callable[[list[Any]], list[Any]], field: int = 0, *, stamp: bool = True) -> None:
    """Change the first leaf of a field: [value keys, counts, rids, others]."""
    key = keys_of(txn, keys.attribute(CID, field))[0]
    content = payload(txn, key)
    body = codec.pack(how(codec.unpack(content[STAMP:])))
    put(txn, key, (stamp_of(body) if stamp else content[:STAMP]) + body)


def chunk_of_posting(txn: Any) -> bytes:
    return keys_of(txn, keys.prefix(keys.POSTINGS, CID))[0]


def link(txn: Any, layer: int, slot: int, place: int, value: int) -> None:
    """Overwrite one link in the image."""
    width = (32, 16)[layer]
    key = keys.links(CID, 0, layer, slot // damage.BLOCK)
    patch(txn, key, "<I", 36 + 4 * (slot % damage.BLOCK * width + place), value)


def links(txn: Any, layer: int, slot: int) -> list[int]:
    width = (32, 16)[layer]
    content = payload(txn, keys.links(CID, 0, layer, slot // damage.BLOCK))
    return list(struct.unpack_from(f"<{width}I", content, 36 + 4 * width * (slot % damage.BLOCK)))


def unlink(txn: Any, slot: int) -> None:
    """Take a slot out of every row of layer 0 that leads to it."""
    for key in keys_of(txn, keys.prefix(keys.LINKS, CID) + b"\0\0"):
        content = bytearray(payload(txn, key))
        table = np.frombuffer(content, "<u4", offset=36).reshape(-1, 32)
        for one in table:
            kept = [entry for entry in one if entry >= 0xFFFFFFFE or entry & 0x7FFFFFFF != slot]
            one[:] = [*kept, *[0xFFFFFFFF] * (32 - len(kept))]
        put(txn, key, bytes(content))


def rows_log(txn: Any, how: Callable[[list[Any]], list[Any]]) -> None:
    """Change the newest rows part of the log."""
    key = max(k for k in keys_of(txn, keys.prefix(keys.LOG, CID)) if k[13] == 1)
    change(txn, key, how)
