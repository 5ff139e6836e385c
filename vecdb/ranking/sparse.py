"""How are rows with sparse vectors ranked? Sparse: by the dot product, exactly.

    score     the sum over the query's tokens, in the query's order, of weight * stored weight, in double
    distance  -score

Every row of the filter that has a sparse vector matches; one that shares no token with the query scores 0.
The postings in memory (postings.py) give the best of the rows that they stand for; the others, of an own
transaction or an old snapshot, are scored by what is stored, as all are with `exact=True`.

Invariants:
  S1  scores are the same to the bit however they were found: one order of addition (R1 of base.py);
  S2  a search is never short: rows without a common token stand among those that score 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from pyroaring import BitMap

from vecdb._core import _text
from vecdb.errors import InvalidArgument
from vecdb.index import seats
from vecdb.index.view import mask_of
from vecdb.query.objects import Query, Sparse
from vecdb.ranking.base import Place, Ranked
from vecdb.ranking.postings import COLUMN, Postings, PostingStore
from vecdb.ranking.scored import ScoredRanker, border, named
from vecdb.storage import sparse
from vecdb.storage.rows import PLAIN

if TYPE_CHECKING:
    from vecdb.ranking.base import Rids, Scores

FEW: Final = 64  # rows that are scored by what is stored
MOST_CLAUSES: Final = 20_000  # that the engine takes
FAR: Final = float(np.finfo(np.float32).max)


class SparseRanker(ScoredRanker):
    """Rows by a sparse vector."""

    what = "sparse vector"

    def __init__(self, place: Place, query: Query) -> None:
        given = cast("Sparse", query)
        name = named(
            place.view.schema, given.using or place.using, "Sparse", "of sparse vectors",
            "vectors={name: vecdb.SparseVector()}", sparse=True,
        )  # fmt: skip
        super().__init__(place, query, name)
        self.weights: list[tuple[str | int, float]] = [(token, weight) for token, weight in given.weights]
        token, weight = max(self.weights, key=_size)
        if abs(weight) > FAR:
            raise InvalidArgument(
                f"Sparse: the weight of {token!r:.60} is {weight!r:.40}; it must be finite in float32"
            )

    def _holding(self) -> BitMap:
        place = self.place
        matches = place.verbs._matches(place.txn, place.view)
        found = seats.sparse_holders(place.view, self.declared, matches)
        return found if place.allowed is None else found & place.allowed

    def _exact(self, rids: Rids) -> Scores:
        """Scores of rows that have a sparse vector, by what is stored."""
        if not len(rids):
            return np.empty(0)
        txn, cid, number = self.place.txn, self._cid, self.declared.number
        wanted = _Wanted(self.weights)
        out = np.zeros(len(rids))
        for at, rid in enumerate(rids.tolist()):
            found = sparse.read(txn, cid, number, rid)
            if found is not None:
                out[at] = wanted.score(found)
        return out

    def _ranked(self, found: BitMap, reach: int) -> Ranked:
        known = None if self.place.request.exact or len(found) <= FEW else self._postings()
        clauses = [] if known is None else self._clauses(known[0])
        if known is None or len(clauses) > MOST_CLAUSES:
            return super()._ranked(found, reach)
        postings, shared = known
        inside = found & shared
        rest = np.frombuffer((found - inside).to_array(), np.uint32)
        rids, scores = self._by_postings(postings, clauses, inside, reach)
        return self._top(
            np.concatenate((rids, rest)), np.concatenate((scores, self._exact(rest))), reach
        )

    def _by_postings(
        self, postings: Postings, clauses: list[Any], inside: BitMap, reach: int
    ) -> tuple[Rids, Scores]:
        """The best `reach` of rows, those that tie with the last, and perhaps more, with their scores."""
        if inside == postings.stand.rids:
            slots = plain = None
        else:
            slots = mask_of(inside, self.place.view.slots)
            listed = np.frombuffer(inside.to_array(), np.uint32)
            plain = np.ascontiguousarray(listed[listed >= PLAIN])
        raw, scored = postings.core.search(clauses, reach, None, slots, plain) if clauses else (b"", b"")
        rids, scores = np.frombuffer(raw, np.uint32), np.frombuffer(scored, np.float64)
        if len(rids) >= reach and (reach == 0 or border(scores, reach) > 0):
            return rids, scores
        every = np.frombuffer(inside.to_array(), np.uint32)  # rows that score 0 are among the best
        found = np.zeros(len(every))
        if clauses:
            raw, scored = postings.core.search(clauses, None, None, slots, plain)
            found[np.searchsorted(every, np.frombuffer(raw, np.uint32))] = np.frombuffer(scored, np.float64)
        return every, found

    def _clauses(self, postings: Postings) -> list[Any]:
        """What the engine takes of the query: tokens that some row has, in the query's order (S1)."""
        made, spelled, df = [], _text.token, postings.core.df
        for token, weight in self.weights:
            try:
                term = spelled(token)
            except ValueError:
                continue  # such as no row can have
            if df(COLUMN, term):
                made.append((_text.SHOULD, [(COLUMN, weight, _text.TERM, term)]))
        return made

    def _postings(self) -> tuple[Postings, BitMap] | None:
        """The postings in memory, and the rows of this place that they stand for."""
        pending, kept = self._pending(), self.place.verbs._follower().kept
        store: PostingStore | None = kept.get(self.declared.number)
        if store is None:
            made = PostingStore(self._cid, self.layout, self.declared)
            store = kept.setdefault(self.declared.number, made)
        if pending is None:
            found = store.at(self.place.txn, self.place.view)
            return found, found.stand.shared(self.place.view)
        known = store.newest
        if known is None:
            return None
        return known, known.stand.shared(pending.base) - BitMap(pending.born | pending.died)

    def strategy(self) -> str:
        return "exact scan" if self.place.request.exact or self.matching() <= FEW else "postings"


def _size(entry: tuple[str | int, float]) -> float:
    return abs(entry[1])


class _Wanted:
    """The query's tokens, in its order: ints ascending, then strs."""

    def __init__(self, weights: list[tuple[str | int, float]]) -> None:
        ints = [
            (token, weight)
            for token, weight in weights
            if isinstance(token, int) and sparse.INT_MIN <= token <= sparse.INT_MAX
        ]
        self.ints = np.array([token for token, _ in ints], np.int64)
        self.int_weights = np.array([weight for _, weight in ints])
        self.strs = {
            token.encode(): weight for token, weight in weights if isinstance(token, str)
        }

    def score(self, row: Any) -> float:
        total = 0.0
        held, n_ints = row.ints, len(row.ints)
        if n_ints and len(self.ints):
            at = np.searchsorted(held, self.ints)
            at[at == n_ints] = 0
            there = held[at] == self.ints
            for one in (self.int_weights[there] * row.weights[at[there]].astype(np.float64)).tolist():
                total += one
        if self.strs and len(row.sizes):
            mine = dict(zip(row.strs(), row.weights[n_ints:].tolist(), strict=True))
            for token, weight in self.strs.items():
                stored = mine.get(token)
                if stored is not None:
                    total += weight * stored
        return total
