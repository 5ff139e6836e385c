"""How are rows with sparse vectors ranked? Sparse: by the dot product, exactly.

    score     the sum over the query's tokens, in the query's order, of weight * stored weight, in double
    distance  -score

Every row of the filter that has a sparse vector matches; one that shares no token with the query scores 0.

Invariants:
  S1  scores are the same to the bit however they were found: one order of addition (R1 of base.py);
  S2  a search is never short: rows without a common token stand among those that score 0.

Postings (index/texts.py) give the rows that share tokens, the best first; the rows' own records are read
where a query has more tokens than they are asked at once, and with `exact=True`, the oracle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from vecdb.errors import InvalidArgument, SchemaError
from vecdb.index import seats, wording
from vecdb.lazy import lazy
from vecdb.query.objects import Query, Sparse
from vecdb.ranking.base import Place
from vecdb.ranking.scored import ScoredRanker, named
from vecdb.ranking.text import Allowed
from vecdb.storage import sparse

if TYPE_CHECKING:
    from pyroaring import BitMap

    from vecdb.index.texts import Words
    from vecdb.ranking.base import Ranked, Rids, Scores

MAX_ASKED: Final = 10_000  # tokens that postings are asked at once
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
        token, weight = max(self.weights, key=lambda entry: abs(entry[1]))
        if abs(weight) > FAR:
            raise InvalidArgument(
                f"Sparse: the weight of {token!r:.60} is {weight!r:.40}; it must be finite in float32"
            )

    def _holding(self) -> BitMap:
        place = self.place
        matches = place.verbs._matches(place.txn, place.view)
        found = seats.sparse_holders(place.view, self.declared, matches)
        return found if place.allowed is None else found & place.allowed

    @lazy
    def _indexed(self) -> tuple[Words, list[Any]] | None:
        """The postings and what is asked of them; None where rows are read one by one."""
        place = self.place
        if place.request.exact:  # the oracle asks nothing but the rows
            return None
        try:
            words = place.verbs._follower().texts.at(place.txn, place.view)
        except SchemaError:  # the words beside them are of another analysis
            return None
        asks = wording.sparse(words, place.txn, self.declared.number, self.weights)
        return (words, asks) if len(asks) <= MAX_ASKED else None

    def _ranked(self, found: BitMap, reach: int) -> Ranked:
        """The best by the postings, where enough rows score above 0; else all of them are scored (S2)."""
        if self._indexed is not None and self._indexed[1]:
            words, asks = self._indexed
            held = Allowed.of(found, self.place.view)
            best, scored = words.ask("search", asks, reach, words.loader(self.place.txn), *held)
            scores = np.frombuffer(scored, np.float64)
            if len(scores) >= reach and scores[reach - 1] > 0:
                return self._top(np.frombuffer(best, np.uint32), scores, reach)
        return super()._ranked(found, reach)

    def _exact(self, rids: Rids) -> Scores:
        """Scores of rows that have a sparse vector, 0 where they share no token with the query."""
        if self._indexed is None:
            return self._read(rids)
        words, asks = self._indexed
        if not asks:
            return np.zeros(len(rids))
        wanted = np.ascontiguousarray(rids, np.uint32)
        found = np.frombuffer(words.ask("score", wanted, asks, words.loader(self.place.txn)), np.float64)
        return np.nan_to_num(found, nan=0.0)

    def _read(self, rids: Rids) -> Scores:
        """The same by what is stored, row by row."""
        txn, cid, number = self.place.txn, self._cid, self.declared.number
        wanted = _Wanted(self.weights)
        out = np.zeros(len(rids))
        for at, rid in enumerate(rids.tolist()):
            found = sparse.read(txn, cid, number, rid)
            if found is not None:
                out[at] = wanted.score(found)
        return out

    def strategy(self) -> str:
        return "exact scan" if self._indexed is None else "postings"


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
            for token, stored in mine.items():  # in the order of their bytes, as the query's
                weight = self.strs.get(token)
                if weight is not None:
                    total += weight * stored
        return total
