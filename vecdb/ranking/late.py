"""How are rows of many vectors ranked? Late: MaxSim, as in ColBERT (Khattab and Zaharia, 2020).

    score     the sum over the query's vectors of the best similarity in the row: under cosine of vectors at
              length 1, under dot the dot product, under l2 minus the Euclidean distance, under hamming
              1 - bits / d
    distance  the sum of the smallest distances: under cosine m - score, for m vectors

Rows are scored by 8-bit codes in memory first (tokens.py), then the best of them by their stored vectors.

Invariants:
  L1  a score is that of the stored vectors, in double, number by number: the same in whatever company;
  L2  the codes say where to look, and how far: as long as a row that was left out might be among the best,
      by twice the largest error that the codes have shown on the rows ranked so far, twice as many are
      ranked;
  L3  rows that the codes do not stand for (of an own transaction, of an old snapshot) are scored exactly.

Rejected: BLAS over vectors rebuilt from the codes. It moves four times the bytes, and came out seven times
slower or more than whole products of the codes (500,000 vectors of 128 numbers, a query of 32).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from pyroaring import BitMap

from vecdb import parallel
from vecdb._core import _late
from vecdb.arrays import given_query
from vecdb.errors import InvalidArgument
from vecdb.index.view import Held
from vecdb.query.objects import Late, Query
from vecdb.ranking import followed
from vecdb.ranking.base import Place, Ranked
from vecdb.ranking.scored import ScoredRanker, border, named
from vecdb.ranking.tokens import Chunk, Tokens, TokenStore
from vecdb.ranking.vectors import array_of
from vecdb.storage import vectors

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.ranking.base import Rids, Scores

MAX_QUERY: Final = 1_024  # vectors of a query
MAX_QUERY_NUMBERS: Final = 1 << 20
FEW: Final = 1_024  # rows of a filter that are looked at one by one
FIRST_DEPTH: Final = 4  # times what is wanted: rows that are ranked exactly
LEAST_DEPTH: Final = 64
MOST_DEPTH: Final = 64  # times what is wanted; and
SURE_DEPTH: Final = 4_096  # so many in any case
SAFETY: Final = 2  # times the largest error seen
READ_BYTES: Final = 16 << 20  # stored vectors that are held at once
PIECES: Final = 4  # for each thread
WORTH_THREADS: Final = 1 << 24  # products of numbers


class LateRanker(ScoredRanker):
    """Rows by many vectors."""

    what = "vectors"

    def __init__(self, place: Place, query: Query) -> None:
        late = cast("Late", query)
        name = named(
            place.view.schema, late.using or place.using, "Late", "with multi=True",
            "vectors={name: vecdb.Vector(dim, multi=True)}", sparse=False,
        )  # fmt: skip
        super().__init__(place, query, name)
        packed = _given(late.matrix, self.declared, place.verbs.name)
        self.m = len(packed)
        self.vectors = _late.Query(packed, self.declared.metric)
        self._ran = ""

    # --- what matches --------------------------------------------------------------------------

    def _holding(self) -> BitMap:
        """The rows of the filter that have vectors."""
        place = self.place
        if place.allowed is not None and len(place.allowed) <= FEW:
            return followed.holding(place.txn, self._cid, self.declared.number, place.allowed)
        found = self._holders()
        return found if place.allowed is None else found & place.allowed

    def _holders(self) -> BitMap:
        """All rows that have vectors."""
        place, number = self.place, self.declared.number
        pending = self._pending()
        store = self._store()
        if pending is not None:
            known = store.known(pending.base)
            if known is not None:
                own = pending.born & set(place.view.live)
                mine = followed.holding(place.txn, self._cid, number, sorted(own))
                return (known.stand.rids - BitMap(pending.born | pending.died)) | mine
        else:
            known = store.known(place.view)
            if known is not None:
                return known.stand.rids
        held = place.view.held.get(number)
        if held is None:
            rids = followed.holders(place.txn, self._cid, number)
            held = place.view.held[number] = Held(rids, b"")
        return held.rids

    # --- the best ------------------------------------------------------------------------------

    def _ranked(self, found: BitMap, reach: int) -> Ranked:
        depth = max(FIRST_DEPTH * reach, LEAST_DEPTH)
        request = self.place.request
        if request.exact or request.recall >= 1 or depth >= len(found):
            return self._all(found, reach)
        known = self._codes()
        if known is None:
            return self._all(found, reach)
        self._ran = "code scan"
        return self._two_stages(known, found, reach, depth)

    def _all(self, found: BitMap, reach: int) -> Ranked:
        self._ran = "exact scan"
        return super()._ranked(found, reach)

    def _two_stages(self, known: tuple[Tokens, BitMap], found: BitMap, reach: int, depth: int) -> Ranked:
        coded, shared = known
        by_code = found & shared
        rids, rough = self._rough(coded, by_code)
        rest = np.frombuffer((found - by_code).to_array(), np.uint32)
        if self.declared.metric == "hamming":  # the codes are the bits
            all_rids = np.concatenate((rids, rest))
            return self._top(all_rids, np.concatenate((rough, self._exact(rest))), reach)
        order = np.argsort(-rough, kind="stable")
        rids, rough = rids[order], rough[order]
        ranked, scores = rest, self._exact(rest)
        done, most = 0, max(MOST_DEPTH * reach, SURE_DEPTH)
        error = 0.0
        while True:
            more = rids[done : depth]
            exact = self._exact(more)
            if len(more):
                error = max(error, float(np.abs(exact - rough[done : depth]).max()))
            ranked, scores = np.concatenate((ranked, more)), np.concatenate((scores, exact))
            done = min(depth, len(rids))
            if done == len(rids) or done >= most:
                break
            if rough[done] + SAFETY * error < border(scores, reach):
                break
            depth = 2 * depth
        return self._top(ranked, scores, reach)

    def _distances(self, scores: Scores) -> npt.NDArray[np.float32]:
        metric = self.declared.metric
        if metric == "cosine":
            found = np.maximum(self.m - scores, 0)
        elif metric == "hamming":
            found = (self.m - scores) * self.declared.dim
        else:
            found = -scores
        return found.astype(np.float32)

    def strategy(self) -> str:
        if self._ran:
            return self._ran
        request = self.place.request
        reach = request.k or self.matching()
        few = max(FIRST_DEPTH * reach, LEAST_DEPTH) >= self.matching()
        return "exact scan" if request.exact or request.recall >= 1 or few else "code scan"

    # --- scores --------------------------------------------------------------------------------

    def _exact(self, rids: Rids) -> Scores:
        """Scores of rows that have vectors, by those (L1)."""
        out = np.empty(len(rids))
        txn, cid, layout = self.place.txn, self._cid, self.layout
        at = 0
        while at < len(rids):
            stored: list[npt.NDArray[Any]] = []
            size = 0
            for rid in rids[at:].tolist():
                stored.append(vectors.get_many(txn, cid, layout, rid))
                size += stored[-1].nbytes
                if size >= READ_BYTES:
                    break
            self._scored(stored, out[at : at + len(stored)])
            at += len(stored)
        if self.declared.metric == "hamming":
            return self.m - out / self.declared.dim
        return out

    def _scored(self, stored: list[npt.NDArray[Any]], out: Scores) -> None:
        starts = np.zeros(len(stored) + 1, np.int64)
        np.cumsum([len(each) for each in stored], out=starts[1:])
        whole = np.concatenate(stored)
        if self.declared.metric != "hamming":
            whole = np.ascontiguousarray(whole, np.float32)
        every = np.arange(len(stored), dtype=np.int64)
        self._shared_out(
            starts, every, lambda part: self.vectors.exact(whole, starts, every[part], out[part])
        )

    def _rough(self, coded: Tokens, chosen: BitMap) -> tuple[Rids, Scores]:
        """Scores of rows by their codes, in the order of the chunks."""
        rids: list[Rids] = []
        scores: list[Scores] = []
        for chunk in coded.chunks:
            mine = np.frombuffer((chosen & chunk.alive).to_array(), np.uint32)
            if len(mine):
                rids.append(mine)
                scores.append(self._by_codes(chunk, np.searchsorted(chunk.rids, mine).astype(np.int64)))
        if not rids:
            return np.empty(0, np.uint32), np.empty(0)
        return np.concatenate(rids), np.concatenate(scores)

    def _by_codes(self, chunk: Chunk, at: npt.NDArray[np.int64]) -> Scores:
        out = np.empty(len(at))
        if self.declared.metric == "hamming":
            self._shared_out(
                chunk.starts, at,
                lambda part: self.vectors.exact(chunk.codes, chunk.starts, at[part], out[part]),
            )  # fmt: skip
            return self.m - out / self.declared.dim
        self._shared_out(
            chunk.starts, at,
            lambda part: self.vectors.by_codes(
                chunk.codes, chunk.scales, chunk.squares, chunk.starts, at[part], out[part]
            ),
        )  # fmt: skip
        return out

    def _shared_out(self, starts: npt.NDArray[np.int64], at: npt.NDArray[np.int64], work: Any) -> None:
        """Rows in pieces, on all threads where there is enough to do."""
        threads: int = self.place.verbs._db._threads
        products = int((starts[at + 1] - starts[at]).sum()) * self.layout.dim * self.m
        if threads <= 1 or products < WORTH_THREADS:
            work(slice(0, len(at)))
            return
        size = max(1, -(-len(at) // (PIECES * threads)))
        parallel.mapped(work, [slice(i, i + size) for i in range(0, len(at), size)], threads)

    # --- what is in memory ---------------------------------------------------------------------

    def _store(self) -> TokenStore:
        kept = self.place.verbs._follower().kept
        found: TokenStore | None = kept.get(self.declared.number)
        if found is None:
            made = TokenStore(self._cid, self.layout, self.declared)
            found = kept.setdefault(self.declared.number, made)
        return found

    def _codes(self) -> tuple[Tokens, BitMap] | None:
        """The codes in memory, and the rows of this place that they stand for."""
        pending, store = self._pending(), self._store()
        if pending is None:
            found = store.at(self.place.txn, self.place.view)
            return found, found.stand.shared(self.place.view)
        known = store.newest
        if known is None:
            return None
        return known, known.stand.shared(pending.base) - BitMap(pending.born | pending.died)


def _given(matrix: Any, declared: Any, name: str) -> npt.NDArray[Any]:
    """The query's vectors as the core takes them: float32 (m, d), or packed bits."""
    try:
        array = array_of(matrix)
    except ValueError as error:
        raise InvalidArgument(f"Late: matrix is no (m, d) array: {error!s:.200}") from None
    if array.ndim != 2 or array.shape[0] == 0:
        raise InvalidArgument(f"Late: matrix has shape {array.shape}; give (m, {declared.dim}), m from 1")
    if len(array) > MAX_QUERY or array.size > MAX_QUERY_NUMBERS:
        raise InvalidArgument(
            f"Late: matrix has {len(array):,} vectors, {array.size:,} numbers; the limit is {MAX_QUERY:,} "
            f"vectors and {MAX_QUERY_NUMBERS:,} numbers: leave some out, or average them"
        )
    try:
        found, _ = given_query(array, declared, name)
    except InvalidArgument as error:
        raise InvalidArgument(f"Late: matrix: {error}") from None
    if declared.dtype == "b1":
        return np.packbits(found.astype(np.bool_), axis=1)
    return np.ascontiguousarray(found, np.float32)
