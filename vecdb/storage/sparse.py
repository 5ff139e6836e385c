"""How does a sparse vector become bytes, and back? {token or int: weight}, a record a row.

    count of int tokens u32, count of str tokens u32, int tokens i64, weights f32, sizes of str tokens u8,
    their UTF-8 bytes one after the other

Int tokens ascend, then str tokens by their UTF-8 bytes; weights stand in that order, all finite, none 0.

Invariants (checked by vecdb/check/):
  V5  a record of a sparse vector is spelled exactly so: equal vectors have equal bytes.

Rejected: msgpack maps. A scan decodes rows by the million, and numpy reads these arrays where they lie.
Rejected: numbering the tokens of a collection. The words would have to be kept, followed and forgotten; the
postings have them already.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vecdb.storage import keys, rows

if TYPE_CHECKING:
    import numpy.typing as npt


MAX_ENTRIES: Final = 100_000  # of a row
MAX_TOKEN_BYTES: Final = 254  # of UTF-8
INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1
_HEAD: Final = struct.Struct("<II")

Token = str | int


class Entries(NamedTuple):
    """A sparse vector where it lies: int tokens, str tokens as UTF-8, weights of both in that order."""

    ints: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.uint8]
    text: memoryview

    def strs(self) -> list[bytes]:
        """The str tokens."""
        ends = np.cumsum(self.sizes, dtype=np.int64).tolist()
        raw = bytes(self.text)
        return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def encode(ints: list[tuple[int, float]], strs: list[tuple[bytes, float]]) -> npt.NDArray[np.uint8]:
    """The bytes (n,) of a sparse vector; entries in any order, tokens unique, weights float32 already."""
    ints.sort()
    strs.sort()
    weights = [weight for _, weight in ints] + [weight for _, weight in strs]
    parts = (
        _HEAD.pack(len(ints), len(strs)),
        np.array([token for token, _ in ints], "<i8").tobytes(),
        np.array(weights, "<f4").tobytes(),
        bytes(len(token) for token, _ in strs),
        *(token for token, _ in strs),
    )
    return np.frombuffer(b"".join(parts), np.uint8)


def entries(payload: Any) -> Entries:
    """What is in the bytes of a sparse vector; ValueError where they are none (V5)."""
    view = memoryview(payload).cast("B")
    if len(view) < _HEAD.size:
        raise ValueError(f"{len(view)} bytes are no sparse vector")
    n_ints, n_strs = _HEAD.unpack_from(view)
    count = n_ints + n_strs
    fixed = _HEAD.size + 8 * n_ints + 4 * count + n_strs
    if count > MAX_ENTRIES or fixed > len(view):
        raise ValueError(f"{count:,} entries do not fit {len(view)} bytes")
    at = _HEAD.size
    ints = np.frombuffer(view[at : at + 8 * n_ints], "<i8")
    at += 8 * n_ints
    weights = np.frombuffer(view[at : at + 4 * count], "<f4")
    at += 4 * count
    sizes = np.frombuffer(view[at : at + n_strs], np.uint8)
    if int(sizes.sum(dtype=np.int64)) != len(view) - fixed:
        raise ValueError("its tokens do not fit")
    return Entries(ints, weights, sizes, view[fixed:])


def verify(payload: Any) -> None:
    """ValueError unless these are the bytes that `encode` makes."""
    found = entries(payload)
    if not np.isfinite(found.weights).all() or not found.weights.all():
        raise ValueError("a weight is 0 or not finite")
    if len(found.ints) > 1 and not (found.ints[1:] > found.ints[:-1]).all():
        raise ValueError("its int tokens do not ascend")
    strs = found.strs()
    if any(one >= other for one, other in zip(strs, strs[1:], strict=False)) or b"" in strs:
        raise ValueError("its str tokens do not ascend")
    for token in strs:
        if len(token) > MAX_TOKEN_BYTES:
            raise ValueError("a token is too long")
        token.decode()  # a UnicodeDecodeError is a ValueError


def decode(payload: Any) -> dict[Token, float]:
    """The sparse vector in bytes that were verified."""
    found = entries(payload)
    tokens: list[Token] = [*found.ints.tolist(), *(token.decode() for token in found.strs())]
    return dict(zip(tokens, found.weights.tolist(), strict=True))


def read(txn: Any, cid: int, number: int, rid: int) -> Entries | None:
    """A row's sparse vector, None where it has none; Corrupt where its record is damaged."""
    key = keys.many_vectors(cid, number, rid)
    record = txn.get(key)
    if record is None:
        return None
    try:
        return entries(bytes(rows.open_record(keys.MANY, key, record, code="V4")))
    except ValueError as error:
        raise rows.damaged("V5", key, str(error)) from None


def values(
    txn: Any, cid: int, number: int, rids: Iterable[int]
) -> list[dict[Token, float] | None]:
    """The sparse vectors of rows as of a transaction, in order; None for a row without one."""
    found: list[dict[Token, float] | None] = []
    for rid in rids:
        entries_ = read(txn, cid, number, rid)
        if entries_ is None:
            found.append(None)
            continue
        tokens: list[Token] = [*entries_.ints.tolist(), *(t.decode() for t in entries_.strs())]
        found.append(dict(zip(tokens, entries_.weights.tolist(), strict=True)))
    return found
