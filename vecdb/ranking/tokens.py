"""Which codes of a multi-vector field are in memory, and which rows of a snapshot do they stand for?

A process keeps, for each field of many vectors a row that was searched, one byte a number and four a vector
(eight under l2; packed bits as they are). They are made from the file when first asked for, and go on from
commit to commit at the cost of the rows that came and went.

Invariants:
  T1  codes stand for the rows of one commit, the store's; `Tokens` never changes, the next commit has another
      that shares what stayed;
  T2  a row's vectors never change under its number; a number below PLAIN may be another row's once slots were
      handed out again: then the codes of other commits' slots are not used (`shared`);
  T3  nothing is made or followed inside a transaction: its own rows are read from it.

Rejected: codes in the file. They follow from the vectors, and would be written, logged and checked with them.
Rejected: codes of each row in an array of its own. A million arrays take more than they hold.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb._core import _late
from vecdb.storage import keys, log, vectors
from vecdb.storage.log import RowsPart
from vecdb.storage.meta import FRAME
from vecdb.storage.rows import PLAIN

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.index.view import View
    from vecdb.storage.schema import VectorField
    from vecdb.storage.vectors import Layout

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


class Tokens(NamedTuple):
    """The codes of every row of one commit that has vectors in the field."""

    commit: int
    reused_last: int  # the last commit that handed out a slot again
    live: BitMap  # all rows of that commit
    rids: BitMap  # those that have vectors
    chunks: tuple[Chunk, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(each.nbytes for each in self.chunks)

    def shared(self, view: View) -> BitMap:
        """The rows that have the same vectors in a view, older or newer (T2)."""
        if view.commit == self.commit:
            return self.rids
        found = self.rids & view.live
        if max(self.reused_last, view.state.reused_last) > min(self.commit, view.commit):
            found -= BitMap(range(PLAIN))
        return found


class TokenStore:
    """The codes of one field in this process."""

    def __init__(self, cid: int, layout: Layout, declared: VectorField) -> None:
        self._cid = cid
        self._layout = layout
        self._metric = declared.metric
        self._lock = threading.Lock()
        self.tokens: Tokens | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return 0 if self.tokens is None else self.tokens.nbytes

    def known(self, view: View) -> Tokens | None:
        """What is in memory, if it stands for a view as it is."""
        found = self.tokens
        return found if found is not None and found.commit == view.commit else None

    def at(self, txn: Any, view: View) -> Tokens:
        """The codes of a view, or of a later commit; made or brought up to it where that is needed."""
        found = self.tokens
        if found is not None and found.commit >= view.commit:
            return found
        with self._lock:
            found = self.tokens
            if found is None:
                found = self._build(txn, view)
            elif found.commit < view.commit:
                found = self._follow(txn, view, found)
            self.tokens = found
            return found

    def _build(self, txn: Any, view: View) -> Tokens:
        chunks = tuple(self._chunks(txn, self._records(txn)))
        rids = BitMap.union(BitMap(), *(each.alive for each in chunks))
        return Tokens(view.commit, view.state.reused_last, view.live, rids, chunks)

    def _follow(self, txn: Any, view: View, old: Tokens) -> Tokens:
        changed = _changed(txn, self._cid, view, old)
        if changed is None:
            return self._build(txn, view)
        born, gone = changed
        chunks = []
        for each in old.chunks:
            alive = each.alive - gone
            if 2 * len(alive) < len(each.rids):
                each = _only(each, alive)
            chunks.append(each._replace(alive=alive))
        new = ((rid, txn.get(keys.many_vectors(self._cid, self._layout.number, rid))) for rid in born)
        came = list(self._chunks(txn, ((rid, found) for rid, found in new if found is not None)))
        for each in came:
            chunks.append(each)
            while len(chunks) > 1 and _to_be_merged(chunks[-2], chunks[-1]):
                chunks[-2:] = [_merged(chunks[-2], chunks[-1])]
        kept = tuple(each for each in chunks if each.alive)
        rids = (old.rids - gone) | BitMap.union(BitMap(), *(each.alive for each in came))
        return Tokens(view.commit, view.state.reused_last, view.live, rids, kept)

    def _records(self, txn: Any) -> Iterator[tuple[int, Any]]:
        """Each row's number and record of vectors, in order."""
        prefix = keys.many_vectors(self._cid, self._layout.number, 0)[:-4]
        cursor = txn.cursor()
        if not cursor.set_range(prefix):
            return
        for key, record in cursor.iternext():
            if bytes(key[: len(prefix)]) != prefix:
                return
            yield int.from_bytes(key[len(prefix) :], "big"), record

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


# --- what commits changed ------------------------------------------------------------------------


def _changed(txn: Any, cid: int, view: View, old: Tokens) -> tuple[list[int], BitMap] | None:
    """The rows to read, ascending, and those to forget; None where nothing tells which."""
    if view.state.rows_cut > old.commit:
        if view.state.reused_last > old.commit:
            return None
        return list(view.live - old.live), old.live - view.live
    touched = BitMap()
    for at, _, payload in log.read(txn, cid, old.commit, view.commit, only=log.ROWS):
        part = RowsPart.unpack(payload, cid, at)
        touched.update(part.born)
        touched.update(part.died)
    return list(touched & view.live), touched


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


# --- which rows have vectors ---------------------------------------------------------------------


def holders(txn: Any, cid: int, number: int) -> BitMap:
    """The rows of a transaction with at least one vector in a field: a pass over the keys."""
    prefix = keys.many_vectors(cid, number, 0)[:-4]
    cursor = txn.cursor()
    found: list[int] = []
    if cursor.set_range(prefix):
        for key, record in cursor.iternext():
            if bytes(key[:-4]) != prefix:
                break
            if len(record) > FRAME:
                found.append(int.from_bytes(key[-4:], "big"))
    return BitMap(found)


def holding(txn: Any, cid: int, number: int, rids: Iterable[int]) -> BitMap:
    """Those of some rows."""
    found = []
    for rid in rids:
        record = txn.get(keys.many_vectors(cid, number, rid))
        if record is not None and len(record) > FRAME:
            found.append(rid)
    return BitMap(found)


