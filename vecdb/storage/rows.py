"""Rows: here is my id or my rid, give me the row.

A user's id leads to a `rid`, which names one immutable version of the row's vector: changing the
vector gives a new rid, changing metadata keeps it. A rid below `PLAIN` is also the row's slot in
the graph; rows without a vector are numbered from `PLAIN` upwards, so that the graph has no holes.

A row record (the framing and its checksum are `_core.seal`'s) holds

    changed   u64   number of the commit that last changed the row
    flags     u8    TEXT, VECTOR (it has one in field 0), INLINE (it travels here), DEAD, SEVERAL
    (zero)    u8
    id_size   u16   text_size u32   metadata_size u32
    id key, text, metadata (msgpack), vector (stored dtype, only when INLINE)

and with SEVERAL, instead of the vector: u8 count, for each vector field that the row has its number
u8 and the size u32 of the vector that travels here (FFFFFFFF: none does), then those vectors.

Invariants (checked by vecdb/check/):
  R1  every id leads to one live row that carries that id, and every live row is led to;
  R2  a checksum covers the key too: a record moved to another key is caught;
  R3  `changed` is at most the file's commit number;
  R4  a vector is in its block or in its row's record (storage/vectors.py, V3). A dead row keeps
      the vectors in its record, because its slot stays routable.

Rejected: the vector always in its own record. A durable insert would dirty one page more.
Rejected: the user's id as the row's key. Every posting would carry up to 480 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vecdb import _core
from vecdb.errors import Corrupt
from vecdb.storage import codec, keys, records
from vecdb.types import Id

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PLAIN: Final = 1 << 31  # rids from here on have no slot in the graphs

INDEX_CODES: Final = frozenset({"S1", "L2", "W1", "A1", "A2", "A3", "E1", "G1", "Q1", "Q3", "T1"})
_OF_INDEX: Final = (
    "this is an index, and the rows that it follows from are apart from it: run optimize() on the "
    "collection to build it again from them, or restore a backup"
)
_OF_ROWS: Final = "restore a backup, or save what is sound with vecdb.repair(src, dst)"

_HEADER: Final = struct.Struct("<QBBHII")
_PART: Final = struct.Struct("<BI")
_RID: Final = struct.Struct("<I")
_INT_ID: Final = bytes((keys.INT_ID,))
_STR_ID: Final = bytes((keys.STR_ID,))
_TEXT, _VECTOR, _INLINE, _DEAD, _SEVERAL = 1, 2, 4, 8, 16
_ELSEWHERE: Final = 0xFFFFFFFF
_NOTHING: Final[Mapping[int, bytes]] = MappingProxyType({})


@dataclass(slots=True)
class NewRow:
    """A row to insert; `key` is keys.row_id(cid, id), `metadata` is packed."""

    key: bytes
    text: bytes | None
    metadata: bytes
    state: Any  # its indexed state


class Row(NamedTuple):
    """A decoded row record; `metadata` is still packed."""

    changed: int
    idkey: bytes
    text: bytes | None
    metadata: bytes
    fields: tuple[int, ...]  # numbers of the vector fields that it has
    inline: Mapping[int, bytes]  # those of its vectors that travel in this record
    dead: bool


def encode(row: Row) -> bytes:
    """The payload of a row record."""
    flags = (_TEXT if row.text is not None else 0) | (_DEAD if row.dead else 0)
    parts: tuple[bytes, ...]
    if row.fields in ((), (0,)):
        vector = row.inline.get(0)
        flags |= (_VECTOR if row.fields else 0) | (_INLINE if vector is not None else 0)
        parts = (vector or b"",)
    else:
        flags |= _SEVERAL
        parts = _several(row)
    text = row.text or b""
    head = _HEADER.pack(row.changed, flags, 0, len(row.idkey), len(text), len(row.metadata))
    return b"".join((head, row.idkey, text, row.metadata, *parts))


def _several(row: Row) -> tuple[bytes, ...]:
    """Which vector fields the row has, and the vectors that travel with it."""
    found = [(number, row.inline.get(number)) for number in row.fields]
    sizes = (_PART.pack(n, _ELSEWHERE if v is None else len(v)) for n, v in found)
    return bytes((len(found),)), *sizes, *(v for _, v in found if v is not None)


def decode(payload: bytes | memoryview) -> Row:
    """The row in a payload whose checksum has been verified; ValueError when it is none."""
    if len(payload) < _HEADER.size:
        raise ValueError(f"{len(payload)} bytes are too few for a row")
    changed, flags, _, id_size, text_size, metadata_size = _HEADER.unpack_from(payload)
    at = _HEADER.size
    if at + id_size + text_size + metadata_size > len(payload):
        raise ValueError("its parts do not fit")
    idkey = bytes(payload[at : at + id_size])
    at += id_size
    text = bytes(payload[at : at + text_size]) if flags & _TEXT else None
    at += text_size
    metadata = bytes(payload[at : at + metadata_size])
    at += metadata_size
    fields: tuple[int, ...] = (0,) if flags & _VECTOR else ()
    inline: Mapping[int, bytes] = {0: bytes(payload[at:])} if flags & _INLINE else _NOTHING
    if flags & _SEVERAL:
        fields, inline = _decode_several(payload, at)
    if not flags & _DEAD and not _spells_id(idkey):
        raise ValueError("it carries no id")
    return Row(changed, idkey, text, metadata, fields, inline, bool(flags & _DEAD))


def _decode_several(payload: bytes | memoryview, at: int) -> tuple[tuple[int, ...], dict[int, bytes]]:
    if at >= len(payload) or at + 1 + payload[at] * _PART.size > len(payload):
        raise ValueError("its list of vectors does not fit")
    listed = [_PART.unpack_from(payload, at + 1 + i * _PART.size) for i in range(payload[at])]
    at += 1 + len(listed) * _PART.size
    inline: dict[int, bytes] = {}
    for number, size in listed:
        if size != _ELSEWHERE:
            inline[number] = bytes(payload[at : at + size])
            at += size
    if at != len(payload):
        raise ValueError("its vectors do not fit")
    return tuple(number for number, _ in listed), inline


def _spells_id(idkey: bytes) -> bool:
    """Whether `id_from` can read it."""
    if idkey[:1] == _INT_ID:
        return len(idkey) == 9
    try:
        return idkey[:1] == _STR_ID and idkey[1:].decode() != ""
    except UnicodeDecodeError:
        return False


def open_record(kind: int, key: bytes, record: Any, *, code: str = "R2") -> memoryview:
    """The payload of a framed record, or `Corrupt` naming its key."""
    try:
        return _core.unseal(kind, key, record)
    except ValueError as error:
        raise damaged(code, key, str(error)) from None


def unpack_record(kind: int, key: bytes, record: Any, *, code: str) -> Any:
    """What a framed msgpack record holds, or `Corrupt` naming its key."""
    payload = open_record(kind, key, record, code=code)
    try:
        return codec.unpack(payload)
    except Corrupt as error:
        raise damaged(code, key, error.detail) from None


def damaged(code: str, key: bytes, detail: str) -> Corrupt:
    """The error for a record that cannot be trusted."""
    where = keys.describe(key)
    remedy = _OF_INDEX if code in INDEX_CODES else _OF_ROWS
    return Corrupt(
        f"{where} is damaged ({code}: {detail}); {remedy}",
        code=code,
        where=where,
        detail=detail,
    )


def is_of_index(error: Corrupt) -> bool:
    """Whether what is damaged follows from the rows, so that `optimize` can build it again."""
    return error.code in INDEX_CODES


def rid_of(txn: Any, key: bytes) -> int | None:
    """The rid that an id's key (keys.row_id) leads to, None where there is no such row."""
    record = txn.get(key)
    if record is None:
        return None
    payload = open_record(keys.IDS, key, record)
    if len(payload) != 4:
        raise damaged("R2", key, "an id entry must hold four bytes")
    return int(_RID.unpack(payload)[0])


def rids_in(entries: Any, cid: int, chosen: Any, count: int) -> list[int]:
    """The first `count` rids of `chosen` (None: of all) among entries of the id map, in order."""
    try:
        return _core.read_ids(entries, keys.prefix(keys.IDS, cid), chosen, count)
    except ValueError as error:
        raise damaged("R2", *error.args) from None


def put_rid(txn: Any, key: bytes, rid: int) -> None:
    """Lead an id's key to a rid."""
    records.put(txn, key, _RID.pack(rid))


def put_new(
    txn: Any,
    cid: int,
    commit: int,
    rids: npt.NDArray[np.int64],
    new: Sequence[NewRow],
    has: npt.NDArray[np.uint8],
    inline: list[bytes | None],
) -> None:
    """Write many new rows at once, ids and records, with at most the vector of field 0.

    `has`: 1 where a row has it; `inline`: its bytes where it travels in the record.
    """
    named = [each.key for each in new]
    texts, metadata = [each.text for each in new], [each.metadata for each in new]
    cursor = txn.cursor()
    cursor.putmulti(sorted(_core.id_records(named, rids)))
    cursor.putmulti(_core.row_records(cid, commit, rids, named, texts, metadata, has, inline))


def get(txn: Any, cid: int, rid: int) -> Row:
    """The row record of a rid that is known to exist."""
    found = find(txn, cid, rid)
    if found is None:
        raise damaged("R1", keys.row(cid, rid), "the row's record is missing")
    return found


def find(txn: Any, cid: int, rid: int) -> Row | None:
    """The row record of a rid, None where there is none."""
    key = keys.row(cid, rid)
    record = txn.get(key)
    if record is None:
        return None
    payload = open_record(keys.ROWS, key, record)
    try:
        return decode(payload)
    except ValueError as error:
        raise damaged("R2", key, str(error)) from None


def payload(txn: Any, cid: int, rid: int) -> bytes:
    """The verified bytes of a row record, a copy that outlives the transaction."""
    key = keys.row(cid, rid)
    record = txn.get(key)
    if record is None:
        raise damaged("R1", key, "the row's record is missing")
    return bytes(open_record(keys.ROWS, key, record))


def read_many(get: Any, cid: int, rids: list[int]) -> tuple[list[Id], list[bytes]]:
    """Ids and verified payloads of rows, in order, through a transaction's `get`."""
    try:
        found: tuple[list[Id], list[bytes]] = _core.read_rows(get, cid, rids)
    except ValueError as error:
        key, detail = error.args
        raise damaged("R1" if "missing" in detail else "R2", key, detail) from None
    return found


def id_from(idkey: bytes) -> Id:
    """The id that an id key (without its prefix) spells."""
    if idkey[0] == keys.STR_ID:
        return idkey[1:].decode()
    return int.from_bytes(idkey[1:], "big") - (1 << 63)


def put(txn: Any, cid: int, rid: int, row: Row) -> None:
    """Write a row record."""
    key = keys.row(cid, rid)
    records.put(txn, key, encode(row))


def repack(txn: Any, cid: int, first: int, stop: int) -> None:
    """Write the records of a run of rids anew, one after the other, so that their pages are full.

    LMDB leaves the pages of records that have become shorter as empty as they are. Costs a delete and a
    put of each.
    """
    found: list[tuple[bytes, bytes]] = []
    cursor, end = txn.cursor(), keys.row(cid, stop)
    more = cursor.set_range(keys.row(cid, first))
    while more and bytes(cursor.key()) < end:
        key, record = cursor.item()
        found.append((bytes(key), bytes(record)))
        more = cursor.next()
    for key, _ in found:
        txn.delete(key)
    txn.cursor().putmulti(found)


def delete(txn: Any, cid: int, rid: int) -> None:
    """Take a row record away."""
    txn.delete(keys.row(cid, rid))
