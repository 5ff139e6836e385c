"""How does a user search? search, explain.

Here a query becomes a vector and options become a `Request`; how a search is run is execute.py's
business. A search of a kind that was asked before at the same commit needs neither
(`_core.Prepared`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from vecdb import execute
from vecdb.collection.handle import Handle, Where, parse_record, refuse
from vecdb.execute import Context, Request
from vecdb.index.effort import WIDEST
from vecdb.ingest import check_rows, real_array
from vecdb.query.filter import Filter
from vecdb.storage.schema import Schema
from vecdb.types import Hits, Plan

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_K: Final = 100_000


class SearchVerbs(Handle):
    """The verbs that rank rows."""

    __slots__ = ()

    @overload
    def search(
        self, query: str, k: int = 10, *, where: Where | None = None, recall: float = 0.95,
        ef: int | None = None, exact: bool = False, with_vectors: bool = False,
    ) -> Hits: ...  # fmt: skip
    @overload
    def search(
        self, query: Any, k: int = 10, *, where: Where | None = None, recall: float = 0.95,
        ef: int | None = None, exact: bool = False, with_vectors: bool = False,
    ) -> Any: ...  # fmt: skip
    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        where: Where | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> Any:
        """Return the `k` rows most similar to `query`, best first.

        `query`: (d,) → Hits; (b, d) or a list of str → list[Hits], on all threads; a str is
        encoded. `where` filters before ranking: fewer than `k` hits means fewer rows match.
        `recall`: the share of the true top k wanted on average; `ef` sets the walk's width
        instead; `exact=True` ranks every match, O(matches · d), and is the oracle.
        The walk is HNSW's (Malkov and Yashunin, 2016) on 7-bit codes.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        >>> c.search([1, 0], k=2).ids, c.search([1, 0], where=F.year > 2000).ids
        (['a', 'b'], ['b'])
        """
        key = (k, where, recall, ef, exact) if _may_be_ready(k, where, recall, ef, exact) else None
        ready = None
        if key is not None and not with_vectors and self._db._local.batch is None:
            follower = self._db._followers.get(self._cid)
            ready = None if follower is None else follower.ready(key)
            if ready is not None:
                hits = ready.answer(query)
                if hits is not None:
                    return hits
        chosen = None if where is None else self._filter(where)
        request = _request(k, chosen, recall, ef, exact, with_vectors)
        schema = self.schema
        vector, single = self._query(query, schema)
        if ready is not None and single and vector is not query:  # a list, a str, another dtype
            hits = ready.answer(vector)
            if hits is not None:
                return hits
        with self._reading() as (txn, view):
            context = self._context(txn, view, schema, where)
            if not single:
                return execute.search_many(context, vector, request)
            hits, ready = execute.search(context, vector, request)
        follower = self._db._followers.get(self._cid)  # none: dropped or closed meanwhile
        if ready is not None and key is not None and follower is not None:
            follower.keep_ready(key, view, ready, ready.held_bytes)
        return hits

    def explain(
        self,
        query: Any = None,
        k: int = 10,
        *,
        where: Where | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> Plan:
        """Return what `search` would do: strategy, matching rows, rejected alternatives.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0])
        >>> c.explain([1, 0]).strategy
        'exact scan'
        """
        chosen = None if where is None else self._filter(where)
        request = _request(k, chosen, recall, ef, exact, with_vectors)
        schema = self.schema
        if query is not None:
            self._query(query, schema)
        with self._reading() as (txn, view):
            return execute.explain(self._context(txn, view, schema, where), request)

    # --- behind the verbs ----------------------------------------------------------------

    def _query(self, query: Any, schema: Schema) -> tuple[npt.NDArray[np.float32], bool]:
        """A query as float32: (d,) and True, or (b, d) and False."""
        dim = schema.dim
        if isinstance(query, str):
            return self._encode_queries([query])[0], True
        if isinstance(query, list) and query and all(isinstance(q, str) for q in query):
            return self._encode_queries(query), False
        if type(query) is np.ndarray and query.dtype == np.float32 and query.ndim == 1:
            if query.shape[0] == dim:
                return self._checked(query, schema.metric), True
            found = query
        else:
            found = real_array("query", query)
        if found.ndim not in (1, 2) or (found.shape[-1] != dim and found.size):
            refuse(
                f"query has shape {found.shape}; collection {self.name!r} takes ({dim},) or (b, {dim})"
            )
        if found.ndim == 1 and found.shape[0] != dim:
            refuse(f"query has {found.shape[0]} numbers; collection {self.name!r} has dim {dim}")
        return self._checked(found, schema.metric), found.ndim == 1

    def _checked(self, query: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float32]:
        """Refuse NaN, infinity, and zero under cosine: one pass, the sum of squares tells."""
        if query.ndim == 1:
            with np.errstate(over="ignore"):
                square = float(query.dot(query))
            if square != square or square == np.inf or square == 0:
                check_rows("query", query.reshape(1, -1), metric)
        elif query.size:
            check_rows("query", query, metric)
        return query if query.flags.c_contiguous else np.ascontiguousarray(query)

    def _encode_queries(self, texts: list[str]) -> npt.NDArray[np.float32]:
        found = np.asarray(self._encoder_now().encode_queries(texts), np.float32)
        return self._checked(np.atleast_2d(found), self.schema.metric)

    def _context(self, txn: Any, view: Any, schema: Schema, where: Any) -> Context:
        db = self._db
        matches = None if where is None else self._matches(txn, view)
        snapshot = db._env.snapshot(txn) if db._local.batch is None else None
        return Context(
            schema.name, self._cid, schema, txn, view, matches, parse_record, db._threads, snapshot
        )


def _may_be_ready(k: Any, where: Any, recall: Any, ef: Any, exact: Any) -> bool:
    """Whether these options can be a key that no invalid ones are equal to (True is not 1)."""
    return (
        type(k) is int
        and type(exact) is bool
        and type(recall) is float
        and (where is None or isinstance(where, Filter))
        and (ef is None or type(ef) is int)
    )


def _request(
    k: Any, where: Filter | None, recall: Any, ef: Any, exact: bool, with_vectors: bool
) -> Request:
    """The validated options of a search; those without a filter are checked once each."""
    if where is None:
        try:
            return _plain_request(k, recall, ef, exact, with_vectors)
        except TypeError:  # unhashable: wrong anyway, and named below
            pass
    return _checked_request(k, where, recall, ef, exact, with_vectors)


@lru_cache(maxsize=256, typed=True)  # typed: True is not 1
def _plain_request(k: Any, recall: Any, ef: Any, exact: bool, with_vectors: bool) -> Request:
    return _checked_request(k, None, recall, ef, exact, with_vectors)


def _checked_request(
    k: Any, where: Filter | None, recall: Any, ef: Any, exact: bool, with_vectors: bool
) -> Request:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or not 1 <= k <= MAX_K:
        refuse(f"k={k!r:.40}: give an int from 1 to {MAX_K:,}")
    if ef is not None and (
        not isinstance(ef, int | np.integer) or isinstance(ef, bool) or not 1 <= ef <= WIDEST
    ):
        refuse(f"ef={ef!r:.40}: give an int from 1 to {WIDEST:,}")
    if isinstance(recall, bool) or not isinstance(recall, int | float) or not 0 < recall <= 1:
        refuse(f"recall={recall!r:.40}: give a number above 0 and at most 1")
    return Request(
        int(k), where, float(recall), None if ef is None else int(ef), bool(exact),
        bool(with_vectors),
    )  # fmt: skip
