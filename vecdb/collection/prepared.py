"""What does a search need that is asked many times? prepare.

A `PreparedSearch` has its options checked and its filter parsed once. What it learns at the last commit
it keeps until the data change: the rows that its filter selects, and the whole search made ready
(`_core.Prepared`).

Invariants:
  K1  it answers as `search` does with its options, wherever it is called: at the last commit, inside
      this thread's transaction, in a snapshot;
  K2  what is kept says itself whether it still holds: a search made ready knows its commit, the rows
      of a filter know the live rows and the changes that they were taken from;
  K3  it never changes as its user sees it; threads share it.

Rejected: keeping it in the collection only, as searches of a kind are. Other searches push it out there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pyroaring import BitMap

from vecdb import execute
from vecdb.collection.composing import NO_SHAPE, Composing, Shape, given_shape, is_composed
from vecdb.collection.handle import Moved, Where
from vecdb.collection.searching import Adapted, Options, check_radius
from vecdb.execute import Request
from vecdb.query.filter import Filter
from vecdb.types import Plan


class PrepareVerbs(Composing):
    """The verb that makes a search ready."""

    __slots__ = ()

    def prepare(
        self,
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
    ) -> PreparedSearch:
        """Return a search that is checked and parsed once, to be called with many queries.

        The options are those of `search`. Where several vector fields fit a query, `using` is needed, here
        or in the query object.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        >>> recent = c.prepare(k=1, where=F.year > 2000)
        >>> recent
        PreparedSearch('c', k=1, where=F.year > 2000)
        >>> recent([1, 0]).ids, [hits.ids for hits in recent([[1, 0], [0, 1]])]
        (['b'], [['b'], ['b']])
        """
        options = Options(
            k, self._chosen(where), recall, ef, exact, radius, offset, with_vectors
        )
        request = self._request(options)
        shape = given_shape(group_by, group_size, diversity, boost, k)
        schema = self.schema
        if using is not None and not self._using(schema, using).graphed:
            return PreparedSearch(self, request, None, using, shape)  # query objects alone fit such a field
        graphed = sum(each.graphed for each in schema.vectors.values())
        several = graphed > 1
        texts = (  # what a text would fit then decides
            using is None and several and any(each.encoder for each in schema.vectors.values())
        )
        if using is None and (not graphed or (several and not texts)):  # a query object may say which
            return PreparedSearch(self, request, None, None, shape)
        name, declared = self._searched(schema, using, "" if texts else None)
        check_radius(request, declared.metric)
        return PreparedSearch(self, request, name, using, shape)


class _Rows(NamedTuple):
    """The rows that a filter selects, and what they were taken from (K2)."""

    live: BitMap
    tail: Any
    found: BitMap


class _Kept:
    """What a prepared search learned; each is set at once, so that threads see one or another."""

    __slots__ = ("ready", "rows")

    def __init__(self) -> None:
        self.ready: Any = None
        self.rows: _Rows | None = None


class PreparedSearch:
    """A search with its options settled; made by `collection.prepare`, called with queries.

    `prepared(query)` is `collection.search(query, ...)`: (d,) or a str → Hits; (b, d) or a list of
    str → list[Hits]. At least as fast as `search` with the same filter object.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
    >>> nearest = c.prepare(k=1)
    >>> nearest([1, 0.1]).ids, [hits.ids for hits in nearest([[1, 0], [0, 1]])]
    (['a'], [['a'], ['b']])
    """

    __slots__ = ("_kept", "_request", "_shape", "_using", "_verbs", "_written")

    def __init__(
        self, verbs: Composing, request: Request, name: str | None, written: str | None,
        shape: Shape = NO_SHAPE,
    ) -> None:  # fmt: skip
        put = object.__setattr__  # its own refuses (K3)
        put(self, "_verbs", verbs)
        put(self, "_request", request)
        put(self, "_using", name)
        put(self, "_written", written)  # using= as it was given
        put(self, "_shape", shape)
        put(self, "_kept", _Kept())

    _verbs: Composing
    _request: Request
    _shape: Shape
    _using: str | None
    _written: str | None
    _kept: _Kept

    def __call__(self, query: Any) -> Any:
        """Return the hits of a query, or a list of hits for several."""
        verbs, kept = self._verbs, self._kept
        if self._shape or is_composed(query):
            return verbs._ask(query, self._request, self._shape, self._written, self._matches)
        ready = kept.ready if verbs._live() else None
        if ready is not None:
            hits = ready.answer(query)
            if hits is not None:
                if verbs._db._logged is not None:
                    verbs._log(query, self._request.as_asked(self._written), hits)
                return hits
        schema, using = verbs.schema, self._using or self._written
        if verbs._crosses(schema, query, using):
            return verbs._ask(query, self._request, self._shape, self._written, self._matches)
        name, declared = verbs._searched(schema, using, query)
        check_radius(self._request, declared.metric)
        try:
            vector, single = verbs._query(query, declared)
        except Moved:
            return self(query)
        if ready is not None and single and vector is not query:
            hits = (ready.plain if type(ready) is Adapted else ready).answer(vector)
            if hits is not None:
                self._note(query, vector, declared, hits)
                return hits
        with verbs._reading() as (txn, view):
            if view.schema is not schema and view.schema.vectors.get(name) != declared:
                return self(query)  # its vectors became others between the query and the snapshot
            context = verbs._context(
                txn, view, name, declared, self._request.where, self._matches(txn, view)
            )
            if not single:
                many = execute.search_many(context, vector, self._request)
                if verbs._db._logged is not None:
                    asked = verbs._as_asked(query, vector, declared)
                    verbs._log_many(asked, self._request, self._written, many)
                return many
            hits, ready = execute.search(context, vector, self._request)
        if verbs._live():
            kept.ready = verbs._made_ready(ready, declared)
        self._note(query, vector, declared, hits)
        return hits

    def _note(self, query: Any, vector: Any, declared: Any, hits: Any) -> None:
        if self._verbs._db._logged is not None:
            asked = self._verbs._as_asked(query, vector, declared)
            self._verbs._log(asked, self._request.as_asked(self._written), hits)

    def explain(self) -> Plan:
        """Return what a call would do: strategy, matching rows, rejected alternatives.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.prepare(k=3).explain().strategy
        'nothing'
        """
        verbs = self._verbs
        name, declared = verbs._searched(verbs.schema, self._using or self._written, None)
        with verbs._reading() as (txn, view):
            context = verbs._context(
                txn, view, name, declared, self._request.where, self._matches(txn, view)
            )
            return execute.explain(context, self._request)

    def _matches(self, txn: Any, view: Any) -> Any:
        """From the filter to its rows, by way of those that are kept; None: the usual way."""
        if self._request.where is None or not self._verbs._live():
            return None
        usual = self._verbs._matches(txn, view)

        def matches(where: Filter) -> BitMap:
            rows = self._kept.rows
            if rows is None or rows.live is not view.live or rows.tail is not view.tail:
                rows = self._kept.rows = _Rows(view.live, view.tail, usual(where))
            return rows.found

        return matches

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a prepared search never changes: prepare another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a prepared search never changes")

    def __repr__(self) -> str:
        return f"PreparedSearch({', '.join([repr(self._verbs.name), *self._options()])})"

    def _options(self) -> list[str]:
        """The options that are not as they are without being given, as they are written."""
        request = self._request
        shown = [f"k={request.k}"]
        if request.where is not None:
            shown.append(f"where={request.where!r}")
        if self._written is not None:
            shown.append(f"using={self._written!r}")
        usual = Request(request.k)
        for name in ("recall", "ef", "exact", "radius", "offset", "with_vectors"):
            value = getattr(request, name)
            if value != getattr(usual, name):
                shown.append(f"{name}={value!r}" if name != "radius" else f"radius={value:.6g}")
        shape = self._shape
        if shape.group_by is not None:
            shown += [f"group_by={shape.group_by!r}", f"group_size={shape.group_size}"]
        if shape.diversity is not None:
            shown.append(f"diversity={shape.diversity!r}")
        return shown + ([f"boost={list(shape.boosts)!r}"] if shape.boosts else [])

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedSearch, (self._verbs, self._request, self._using, self._written, self._shape)
