"""Why was a row not among the hits? why_not.

The answers, the first that holds: there is no such row; it has no vector in the field; clauses of the
filter exclude it; it lies beyond the radius; it is returned; it stands before the offset, or after the
last hit; or the search missed it, and what would have found it.

Invariants:
  Y1  every answer is of one commit (or of this thread's transaction), and each number in it can be
      checked against `exact=True` there: ranks are ties by slot, as in every search;
  Y2  a row that the search returns is never explained away, whatever its exact rank.

Rejected: to guess from the metadata and a distance. The search itself is run, for what it returned is
what was asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from vecdb import execute
from vecdb.collection.absence import Absence
from vecdb.collection.composing import Composing, Run, Shape, as_queries, given_shape, is_composed
from vecdb.collection.handle import Where, record_of, refuse
from vecdb.collection.searching import Options, check_radius
from vecdb.execute import Context, Request
from vecdb.index.effort import WIDEST
from vecdb.ingest import given_ids
from vecdb.query.filter import Filter
from vecdb.query.nodes import And, leaves
from vecdb.query.source import flat
from vecdb.storage import rows
from vecdb.storage.schema import TEXT, Schema
from vecdb.types import Id, Record, shorten

_SHOWN: Final = 60  # characters of a value


class WhyVerbs(Composing):
    """The verb that explains an absence."""

    __slots__ = ()

    def why_not(
        self,
        query: Any,
        id: Id,
        k: int | None = 10,
        *,
        where: Where | None = None,
        using: str | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        radius: float | None = None,
        offset: int = 0,
        group_by: str | None = None,
        group_size: int = 1,
        diversity: float | None = None,
        boost: Any = None,
    ) -> str:
        """Return why `search` with these options does not return a row, or at which rank it does.

        `query`: one vector (d,), a text or a query object. Ranks every match: O(matches · d).

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 3]], metadata=[{"year": 1999}, {"year": 2001}])
        >>> c.why_not([1, 0], "a", where="year > 2000 and lang == 'en'")
        "'a' is excluded by the filter: year > 2000 (year is 1999); lang == 'en' (lang is missing)"
        >>> c.why_not([1, 0], "b", k=1)
        "'b' is ranked 2 of 2 matches, at distance 3.16228; the last of the 1 hits is at distance 0"
        >>> c.why_not([1, 0], "c")
        "there is no row 'c' in collection 'c'"
        """
        known, single = given_ids(id, self._cid)
        if not single:
            refuse("why_not takes one id")
        request = self._request(Options(k, self._chosen(where), recall, ef, exact, radius, offset))
        shape = given_shape(group_by, group_size, diversity, boost, k)
        if shape or is_composed(query) or self._crosses(self.schema, query, using):
            return self._why_not(query, known[0], request, shape, using)
        name, declared = self._searched(self.schema, using, query)
        check_radius(request, declared.metric)
        vector, one = self._query(query, declared)
        if not one:
            refuse("why_not takes one query: a vector (d,) or a str")
        shown, key = known[0]
        with self._reading() as (txn, view):
            rid = rows.rid_of(txn, key)
            if rid is None:
                return f"there is no row {shown!r} in collection {self.name!r}"
            context = self._context(txn, view, name, declared, request.where)
            row = rows.get(txn, self._cid, rid)
            excluded = _excluding(request.where, said_by(record_of(row), view.schema))
            if declared.member not in row.fields:
                field = "" if len(view.schema.vectors) == 1 else f" in field {name!r}"
                reasons = [f"{shown!r} has no vector{field}: only filters find it"]
                reasons += [f"the filter excludes it too: {excluded}"] if excluded else []
                return "; ".join(reasons)
            if excluded:
                return f"{shown!r} is excluded by the filter: {excluded}"
            return f"{shown!r} " + _Ranked(context, vector, request, rid).reason()


    def _why_not(
        self, query: Any, known: tuple[Id, bytes], request: Request, shape: Shape, using: str | None
    ) -> str:
        """The same of a query object."""
        queries, single = as_queries(query, using)
        if not single:
            refuse("why_not takes one query")
        shown, key = known
        with self._reading() as (txn, view):
            rid = rows.rid_of(txn, key)
            if rid is None:
                return f"there is no row {shown!r} in collection {self.name!r}"
            excluded = ""
            if request.where is not None and rid not in self._matches(txn, view)(request.where):
                said = said_by(record_of(rows.get(txn, self._cid, rid)), view.schema)
                excluded = _excluding(request.where, said) or str(request.where)
                return f"{shown!r} is excluded by the filter: {excluded}"
            place = self._place(txn, view, request, using)
            return f"{shown!r} " + Absence(Run(self, place, queries[0], shape), rid).reason()


# --- the filter ------------------------------------------------------------------------------


def said_by(record: Record, schema: Schema) -> Mapping[str, Any]:
    """What a filter sees of a row: its metadata, and its text where that is indexed by words."""
    if record.text is None or TEXT not in schema.fulltext:
        return record.metadata
    return {**record.metadata, TEXT: record.text}


def _excluding(where: Filter | None, metadata: Mapping[str, Any]) -> str:
    """The clauses that a row fails, each with the row's values; nothing where it passes."""
    if where is None:
        return ""
    fields = flat(metadata)
    parts = where.parts if isinstance(where, And) else (where,)
    return "; ".join(_failed(part, fields) for part in parts if not part.holds(fields))


def _failed(part: Filter, fields: Mapping[str, Any]) -> str:
    names = dict.fromkeys(clause.field for clause in leaves(part))
    values = ", ".join(f"{name} is {_value(name, fields)}" for name in names)
    return f"{part} ({values})" if values else str(part)


def _value(name: str, fields: Mapping[str, Any]) -> str:
    return shorten(repr(fields[name]), _SHOWN) if name in fields else "missing"


# --- the ranking -----------------------------------------------------------------------------


class _Ranked:
    """A row among the matches, by every distance, and what the search made of it."""

    def __init__(self, context: Context, query: Any, request: Request, rid: int) -> None:
        self._context, self._query, self._request, self._rid = context, query, request, rid
        slots, distances = execute.ranking(context, query, Request(None, request.where))
        self._matches = len(slots)
        self._distances = np.frombuffer(distances, np.float32)
        self._rank = slots.index(rid) + 1
        self._distance = float(self._distances[self._rank - 1])

    def reason(self) -> str:
        request, offset = self._request, self._request.offset
        found = self._found_at(request)
        if found is not None:
            return f"is returned: hit {found} of the search, {self._standing()}"
        if request.radius is not None and self._distance > request.radius:
            return f"lies beyond the radius {request.radius:.6g}: {self._standing()}"
        if self._rank <= offset:
            return f"is {self._standing()}: among the first {offset:,}, which offset leaves out"
        if request.k is not None and self._rank > offset + request.k:
            return f"is {self._standing()}; {self._last()}"
        return f"is missed by approximation: {self._standing()}, but {self._missed()}"

    def _standing(self) -> str:
        return f"ranked {self._rank:,} of {self._matches:,} matches, at distance {self._distance:.6g}"

    def _last(self) -> str:
        """Where the hits end, by exact ranks."""
        request = self._request
        assert request.k is not None
        last = float(self._distances[request.offset + request.k - 1])
        return f"the last of the {request.k:,} hits is at distance {last:.6g}"

    def _missed(self) -> str:
        """What the search did, and what would have found the row."""
        plan = execute.explain(self._context, self._request)
        before = self._found_at(self._request, whole=True)
        if before is not None:
            did = f"the search ranked it {before:,}, for it missed rows before it"
        elif plan.ef:
            did = f"the walk with ef={plan.ef} (estimated recall {plan.recall:.3f}) did not come to it"
        else:
            did = f"the {plan.strategy} took others for nearer"
        return f"{did}; exact=True{self._wider(plan.ef)} finds it"

    def _wider(self, ef: int) -> str:
        """The first width, doubling, that finds it, and what recall it stands for."""
        while 0 < ef < WIDEST:
            ef = min(2 * ef, WIDEST)
            wider = replace(self._request, ef=ef)
            if self._found_at(wider) is not None:
                expected = execute.explain(self._context, wider).recall
                return f" or a higher recall (ef={ef}: about {expected:.3f})"
        return ""

    def _found_at(self, request: Request, *, whole: bool = False) -> int | None:
        """The row's rank among the hits of a search."""
        slots, _ = execute.ranking(self._context, self._query, request, whole=whole)
        return slots.index(self._rid) + 1 if self._rid in slots else None
