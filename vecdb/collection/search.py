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
from vecdb.arrays import checked, given_query
from vecdb.collection.handle import Handle, Where, parse_record, refuse
from vecdb.errors import NotFound
from vecdb.execute import Context, Request
from vecdb.index.effort import WIDEST
from vecdb.query.filter import Filter
from vecdb.storage.schema import Schema, VectorField
from vecdb.types import Hits, Plan

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_K: Final = 100_000


class SearchVerbs(Handle):
    """The verbs that rank rows."""

    __slots__ = ()

    @overload
    def search(
        self, query: str, k: int = 10, *, where: Where | None = None, using: str | None = None,
        recall: float = 0.95,
        ef: int | None = None, exact: bool = False, with_vectors: bool = False,
    ) -> Hits: ...  # fmt: skip
    @overload
    def search(
        self, query: Any, k: int = 10, *, where: Where | None = None, using: str | None = None,
        recall: float = 0.95,
        ef: int | None = None, exact: bool = False, with_vectors: bool = False,
    ) -> Any: ...  # fmt: skip
    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        where: Where | None = None,
        using: str | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> Any:
        """Return the `k` rows most similar to `query`, best first.

        `query`: (d,) → Hits; (b, d) or a list of str → list[Hits], on all threads; a str is
        encoded. `where` filters before ranking: fewer than `k` hits means fewer rows match. `using`
        names the vector field; it may be left out where one field fits.
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
        key = None
        if _may_be_ready(k, where, using, recall, ef, exact):
            key = (k, where, using, recall, ef, exact)
        ready = None
        if key is not None and not with_vectors and self._live():
            follower = self._db._followers.get(self._cid)
            ready = None if follower is None else follower.ready(key)
            if ready is not None:
                hits = ready.answer(query)
                if hits is not None:
                    return hits
        chosen = None if where is None else self._filter(where)
        request = _request(k, chosen, recall, ef, exact, with_vectors)
        schema = self.schema
        name, declared = self._searched(schema, using, query)
        vector, single = self._query(query, declared)
        if ready is not None and single and vector is not query:  # a list, a str, another dtype
            hits = ready.answer(vector)
            if hits is not None:
                return hits
        with self._reading() as (txn, view):
            context = self._context(txn, view, name, declared, where)
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
        using: str | None = None,
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
        name, declared = self._searched(self.schema, using, query)
        if query is not None:
            self._query(query, declared)
        with self._reading() as (txn, view):
            return execute.explain(self._context(txn, view, name, declared, where), request)

    # --- behind the verbs ----------------------------------------------------------------

    def _searched(self, schema: Schema, using: Any, query: Any) -> tuple[str, VectorField]:
        """The vector field that a search walks, and its name."""
        declared = self._using(schema, using, encoder=_is_text(query))
        name = next(n for n, each in schema.vectors.items() if each is declared)
        if declared.multi:
            refuse(
                f"using={name!r}: a field with multi=True is stored and read back; it cannot be searched"
            )
        return name, declared

    def _query(self, query: Any, declared: VectorField) -> tuple[npt.NDArray[np.float32], bool]:
        """A query as float32: (d,) and True, or (b, d) and False."""
        if isinstance(query, str):
            return self._encode_queries(declared, [query])[0], True
        if _is_text(query):
            return self._encode_queries(declared, query), False
        return given_query(query, declared, self.name)

    def _encode_queries(self, declared: VectorField, texts: list[str]) -> npt.NDArray[np.float32]:
        if declared.encoder is None:
            refuse(f"query is a text, but the vector field has no encoder; {self._with_encoders()}")
        found = np.asarray(self._encoder(declared).encode_queries(texts), np.float32)
        return checked(np.atleast_2d(found), declared.metric)

    def _with_encoders(self) -> str:
        names = [n for n, each in self.schema.vectors.items() if each.encoder is not None]
        if not names:
            return "give vectors, or create the collection with encoder="
        return f"fields with one: {', '.join(map(repr, names))}"

    def _context(
        self, txn: Any, view: Any, name: str, declared: VectorField, where: Any
    ) -> Context:
        db = self._db
        field = view.vectors.get(declared.number)
        if field is None:
            raise NotFound(f"vector field {name!r} of collection {self.name!r} was dropped meanwhile")
        matches = None if where is None else self._matches(txn, view)
        snapshot = db._env.snapshot(txn) if self._live() else None
        held = self._holders(txn, view, declared)
        return Context(
            view.schema.name, self._cid, name, txn, view, view.schema.layout(declared), field, held,
            matches, parse_record, db._threads, snapshot,
        )  # fmt: skip


def _is_text(query: Any) -> bool:
    """Whether a query is a text or a list of them."""
    if isinstance(query, str):
        return True
    return isinstance(query, list) and bool(query) and all(isinstance(q, str) for q in query)


def _may_be_ready(k: Any, where: Any, using: Any, recall: Any, ef: Any, exact: Any) -> bool:
    """Whether these options can be a key that no invalid ones are equal to (True is not 1)."""
    return (
        type(k) is int
        and type(exact) is bool
        and type(recall) is float
        and (where is None or isinstance(where, Filter))
        and (ef is None or type(ef) is int)
        and (using is None or type(using) is str)
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
