"""Which codes of a multi-vector field are in memory, and which rows do they stand for?

A process keeps, for each field of many vectors a row that was searched, one byte a number and four a vector
(eight under l2; packed bits as they are), in chunks of rows. How they are made and follow the commits is
followed.py's.

Invariants:
  K1  a chunk never changes but for which of its rows are alive; one that is half dead is made anew, and small
      ones are merged, so that a commit costs what it touched, a few times over.

Rejected: codes of each row in an array of its own. A million arrays take more than they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb._core import _late
from vecdb.ranking.followed import Kept, Stand, Store
from vecdb.storage import keys, vectors
from vecdb.storage.meta import FRAME

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.index.view import View

CHUNK_BYTES: Final = 32 << 20  # of stored vectors, coded at once
MERGED: Final = 4  # times smaller than the one before: then a chunk stays by itself


class Chunk(NamedTuple):
    """The codes of some rows; row i has the vectors starts[i] to starts[i + 1]."""

    rids: npt.NDArray[np.uint32]  # ascending
    starts: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint8]  # (vectors, stride)
    scales: npt.NDArray[np.float32]
    squares: npt.NDArray[np.float32]  # of each vector under l2, else empty
    alive: BitMap  # of its rows

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(each.nbytes for each in self[:5])


class Tokens(Kept):
    """The codes of every row of one commit that has vectors in the field."""

    def __init__(self, stand: Stand, chunks: tuple[Chunk, ...]) -> None:
        self.stand = stand
        self.chunks = chunks

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(each.nbytes for each in self.chunks)


class TokenStore(Store[Tokens]):
    """The codes of one field in this process."""

    def _made(
        self, txn: Any, view: View, old: Tokens | None, records: Iterable[tuple[int, Any]], gone: BitMap
    ) -> Tokens:
        chunks = []
        for each in () if old is None else old.chunks:
            alive = each.alive - gone
            if 2 * len(alive) < len(each.rids):
                each = _only(each, alive)
            chunks.append(each._replace(alive=alive))
        for each in self._chunks(txn, records):
            chunks.append(each)
            while len(chunks) > 1 and _to_be_merged(chunks[-2], chunks[-1]):
                chunks[-2:] = [_merged(chunks[-2], chunks[-1])]
        kept = tuple(each for each in chunks if each.alive)
        rids = BitMap.union(BitMap(), *(each.alive for each in kept))
        return Tokens(Stand(view.commit, view.state.reused_last, view.live, rids), kept)

    def _chunks(self, txn: Any, found: Iterable[tuple[int, Any]]) -> Iterator[Chunk]:
        """Records as chunks of bounded size; rows without any vector have no place in them."""
        rids: list[int] = []
        stored: list[Any] = []
        size = 0
        for rid, record in found:
            if len(record) <= FRAME:
                continue
            key = keys.many_vectors(self._cid, self._layout.number, rid)
            rids.append(rid)
            stored.append(vectors.verify_many(key, record, self._layout))
            size += stored[-1].nbytes
            if size >= CHUNK_BYTES:
                yield self._coded(rids, stored)
                rids, stored, size = [], [], 0
        if rids:
            yield self._coded(rids, stored)

    def _coded(self, rids: list[int], stored: list[npt.NDArray[Any]]) -> Chunk:
        counts = np.fromiter(map(len, stored), np.int64, len(stored))
        starts = np.zeros(len(stored) + 1, np.int64)
        np.cumsum(counts, out=starts[1:])
        whole = np.concatenate(stored)
        nothing = np.empty(0, np.float32)
        at, alive = np.array(rids, np.uint32), BitMap(rids)
        if self._metric == "hamming":
            return Chunk(at, starts, np.ascontiguousarray(whole), nothing, nothing, alive)
        numbers = np.ascontiguousarray(whole, np.float32)
        codes = np.empty((len(numbers), _late.stride(self._layout.dim)), np.uint8)
        scales = np.empty(len(numbers), np.float32)
        squares = np.empty(len(numbers), np.float32) if self._metric == "l2" else nothing
        _late.encode(numbers, self._metric, codes, scales, squares)
        return Chunk(at, starts, codes, scales, squares, alive)


# --- chunks -------------------------------------------------------------------------------------


def _to_be_merged(before: Chunk, after: Chunk) -> bool:
    return len(before.codes) < MERGED * len(after.codes) and (
        before.codes.nbytes + after.codes.nbytes <= CHUNK_BYTES
    )


def _merged(one: Chunk, other: Chunk) -> Chunk:
    """The living rows of both."""
    one, other = _only(one, one.alive), _only(other, other.alive)
    order = np.argsort(np.concatenate((one.rids, other.rids)), kind="stable")
    starts = np.concatenate((one.starts, other.starts[1:] + one.starts[-1]))
    both = Chunk(
        np.concatenate((one.rids, other.rids)), starts, np.concatenate((one.codes, other.codes)),
        np.concatenate((one.scales, other.scales)), np.concatenate((one.squares, other.squares)),
        one.alive | other.alive,
    )  # fmt: skip
    return _taken(both, order)


def _only(chunk: Chunk, alive: BitMap) -> Chunk:
    """A chunk without its dead rows."""
    if len(alive) == len(chunk.rids):
        return chunk
    wanted = np.frombuffer(alive.to_array(), np.uint32)
    return _taken(chunk._replace(alive=alive), np.searchsorted(chunk.rids, wanted))


def _taken(chunk: Chunk, order: npt.NDArray[np.intp]) -> Chunk:
    """Rows of a chunk in another order."""
    counts = np.diff(chunk.starts)[order]
    starts = np.zeros(len(order) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    at = np.repeat(chunk.starts[:-1][order] - starts[:-1], counts) + np.arange(int(starts[-1]))
    scales = chunk.scales[at] if len(chunk.scales) else chunk.scales
    squares = chunk.squares[at] if len(chunk.squares) else chunk.squares
    return Chunk(chunk.rids[order], starts, chunk.codes[at], scales, squares, chunk.alive)
