"""How does a user search? search, explain.

Options and queries are searching.py's business, and how a search is run is execute.py's. A search of
a kind that was asked before at the same commit needs neither (`_core.Prepared`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, overload

from vecdb import execute
from vecdb.collection.composing import NO_SHAPE, given_shape, is_composed
from vecdb.collection.handle import Moved, Where
from vecdb.collection.prepared import PrepareVerbs
from vecdb.collection.searching import MAX_K, Adapted, Options, check_radius, may_be_ready
from vecdb.collection.why import WhyVerbs
from vecdb.query.objects import Query
from vecdb.types import Hits, Plan

__all__ = ["MAX_K", "SearchVerbs"]


class SearchVerbs(PrepareVerbs, WhyVerbs):
    """The verbs that rank rows."""

    __slots__ = ()

    @overload
    def search(
        self, query: str | Query, k: int | None = 10, *, where: Where | None = None, using: str | None = None,
        recall: float = 0.95, ef: int | None = None, exact: bool = False,
        radius: float | None = None, offset: int = 0, with_vectors: bool = False,
        group_by: str | None = None, group_size: int = 1, diversity: float | None = None,
        boost: Any = None,
    ) -> Hits: ...  # fmt: skip
    @overload
    def search(
        self, query: Any, k: int | None = 10, *, where: Where | None = None, using: str | None = None,
        recall: float = 0.95, ef: int | None = None, exact: bool = False,
        radius: float | None = None, offset: int = 0, with_vectors: bool = False,
        group_by: str | None = None, group_size: int = 1, diversity: float | None = None,
        boost: Any = None,
    ) -> Any: ...  # fmt: skip
    def search(
        self,
        query: Any,
        k: int | None = 10,
        *,
        where: Where | None = None,
        using: str | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        radius: float | None = None,
        offset: int = 0,
        with_vectors: bool = False,
        group_by: str | None = None,
        group_size: int = 1,
        diversity: float | None = None,
        boost: Any = None,
    ) -> Any:
        """Return the `k` rows that answer `query` best, best first.

        `query`: (d,) → Hits; (b, d) or a list of str → list[Hits], on all threads; a str is
        encoded; a query object of `vecdb.query`, or a list of them. `where` filters before ranking:
        fewer than `k` hits means fewer rows match. `using` names the vector field; it may be left out
        where one field fits.
        `k=None`: every match, in order. `offset`: how many of the best to leave out; `k + offset` is
        at most 100,000. `radius`: the largest distance, compared as float32 and included: from 0,
        under dot, where distances are negative, any number.
        `group_by`: the best `k` values of a metadata field, with the best `group_size` hits of each:
        `hits.groups`. `diversity` from 0 to 1: maximal marginal relevance with λ = 1 - diversity
        (Carbonell and Goldstein, 1998) over the best max(5k, 50). `boost`: a list of
        `vecdb.query.Decay` and `Field`, added to the score.
        `recall`: the share of the true top k wanted on average, of those within the radius; `ef` sets
        the walk's width instead; `exact=True` ranks every match, O(matches · d), and is the oracle.
        Pages that fit together are those of `exact=True`. The walk is HNSW's (Malkov and Yashunin,
        2016) on 7-bit codes. InvalidArgument names an option or a query that cannot be used.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        >>> c.search([1, 0], k=2).ids, c.search([1, 0], where=F.year > 2000).ids
        (['a', 'b'], ['b'])
        >>> c.search([1, 0], k=None, radius=0.5).ids, c.search([1, 0], k=1, offset=1).ids
        (['a'], ['b'])
        """
        if isinstance(query, Query) or group_by or diversity or boost is not None or is_composed(query):
            shape = given_shape(group_by, group_size, diversity, boost, k)
            options = Options(k, self._chosen(where), recall, ef, exact, radius, offset, with_vectors)
            return self._ask(query, self._request(options), shape, using)
        if group_by is not None or group_size != 1 or diversity is not None:
            given_shape(group_by, group_size, diversity, boost, k)
        key = ready = None
        if may_be_ready(k, where, using, recall, ef, exact, radius, offset):
            key = (k, where, using, recall, ef, exact, radius, offset)
            if not with_vectors:
                ready = self._ready(key)
                if ready is not None:
                    hits = ready.answer(query)
                    if hits is not None:
                        logged = self._db._logged
                        if logged is not None:
                            note = logged.get(self._cid)  # standing/queue.py
                            if note is not None:
                                note(self._cid, query, key, hits)
                        return hits
        chosen = self._chosen(where)
        request = self._request(
            Options(k, chosen, recall, ef, exact, radius, offset, with_vectors)
        )
        schema = self.schema
        if self._crosses(schema, query, using):
            return self._ask(query, request, NO_SHAPE, using)
        name, declared = self._searched(schema, using, query)
        check_radius(request, declared.metric)
        again = partial(
            self.search, query, k, where=where, using=using, recall=recall, ef=ef, exact=exact, radius=radius,
            offset=offset, with_vectors=with_vectors,
        )  # fmt: skip
        try:
            vector, single = self._query(query, declared)
        except Moved:
            return again()
        if ready is not None and single and vector is not query:  # a list, a str, another dtype
            hits = (ready.plain if type(ready) is Adapted else ready).answer(vector)
            if hits is not None:
                if self._db._logged is not None:
                    self._log(self._as_asked(query, vector, declared), key, hits)
                return hits
        with self._reading() as (txn, view):
            if view.schema is not schema and view.schema.vectors.get(name) != declared:
                return again()  # its vectors became others between the query and the snapshot
            context = self._context(txn, view, name, declared, where)
            if not single:
                many = execute.search_many(context, vector, request)
                if self._db._logged is not None:
                    asked = self._as_asked(query, vector, declared)
                    self._log_many(asked, request, using, many)
                return many
            hits, ready = execute.search(context, vector, request)
        ready = self._made_ready(ready, declared)
        follower = self._db._followers.get(self._cid)  # none: dropped or closed meanwhile
        if ready is not None and key is not None and follower is not None:
            follower.keep_ready(key, view, ready, ready.held_bytes)
        if self._db._logged is not None:
            self._log(self._as_asked(query, vector, declared), request.as_asked(using), hits)
        return hits

    def explain(
        self,
        query: Any = None,
        k: int | None = 10,
        *,
        where: Where | None = None,
        using: str | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        radius: float | None = None,
        offset: int = 0,
        with_vectors: bool = False,
        group_by: str | None = None,
        group_size: int = 1,
        diversity: float | None = None,
        boost: Any = None,
    ) -> Plan:
        """Return what `search` would do: strategy, matching rows, rejected alternatives.

        Counts the matches, of each part of a query object too; ranks nothing. `query` may
        be left out. `print` shows it.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0])
        >>> c.explain([1, 0]).strategy
        'exact scan'
        >>> print(c.explain([1, 0], 5, where="year > 2000", radius=0.5))
        search 'c' for the best 5, within distance 0.5, recall 0.95
          where year > 2000
          0 of 1 rows match
          nothing
        """
        request = self._request(
            Options(k, self._chosen(where), recall, ef, exact, radius, offset, with_vectors)
        )
        shape = given_shape(group_by, group_size, diversity, boost, k)
        if query is not None and (shape or is_composed(query) or self._crosses(self.schema, query, using)):
            return self._explained(query, request, shape, using)
        name, declared = self._searched(self.schema, using, query)
        check_radius(request, declared.metric)
        if query is not None:
            self._query(query, declared)
        with self._reading() as (txn, view):
            return execute.explain(self._context(txn, view, name, declared, where), request)
