"""How is a query object asked? From a query, options and a shape to hits.

A plain vector or text without a shape goes the short way (search.py); everything else comes here: query
objects, and any query with groups, diversity or boosts. One snapshot serves all parts.

Invariants:
  C1  what is cut (offset, k, groups) is cut from one ranking: boosts first, then diversity or groups;
  C2  hits keep what explains them, and neither transaction nor view;
  C3  a batch is answered at one commit, each query as if it were alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb.collection.handle import Moved, parse_record, refuse
from vecdb.collection.searching import Options, Searching, check_radius, is_text
from vecdb.execute import Request
from vecdb.index.view import Cut
from vecdb.query.boosts import MAX_BOOSTS, Boost
from vecdb.query.objects import Near, Query
from vecdb.ranking import boost, build, diverse, group
from vecdb.ranking.base import Place, Ranked, Ranker, nothing
from vecdb.ranking.bridged import crossing
from vecdb.ranking.near import NearRanker
from vecdb.ranking.told import Composed, sketched, told
from vecdb.ranking.vectors import VectorField, some
from vecdb.storage import rows, vectors
from vecdb.storage.schema import Schema
from vecdb.types import Hits, Plan

if TYPE_CHECKING:
    pass

MAX_GROUP: Final = 10_000  # hits of a group


class Shape(NamedTuple):
    """What is made of a ranking."""

    group_by: str | None = None
    group_size: int = 1
    diversity: float | None = None
    boosts: tuple[Boost, ...] = ()

    def __bool__(self) -> bool:
        return self.group_by is not None or bool(self.diversity) or bool(self.boosts)

    def __str__(self) -> str:
        parts = [f"boosts {', '.join(map(repr, self.boosts))}"] if self.boosts else []
        if self.diversity:
            parts.append(f"diversity {self.diversity:g}")
        if self.group_by is not None:
            parts.append(f"groups by {self.group_by}, {self.group_size} hits each")
        return "; ".join(parts)


NO_SHAPE: Final = Shape()


class Composing(Searching):
    """What answers query objects."""

    __slots__ = ()

    def _crosses(self, schema: Schema, query: Any, using: str | None) -> bool:
        """Whether a query is a text, or several, that is searched over a bridge (ranking/bridged.py)."""
        return bool(schema.hidden) and is_text(query) and crossing(self, schema, using) is not None

    def _ask(
        self, query: Any, request: Request, shape: Shape, using: str | None, matches: Any = None
    ) -> Any:
        """Hits of a query, or a list of hits for several."""
        if using is not None and not (isinstance(using, str) and using in self.schema.vectors):
            self._using(self.schema, using)  # says which there are
        queries, single = as_queries(query, using)
        try:
            with self._reading() as (txn, view):
                started = perf_counter_ns()
                place = self._place(txn, view, request, using, matches)
                times = started, perf_counter_ns()
                found = [Run(self, place, each, shape).hits(times) for each in queries]
        except Moved:
            return self._ask(query, request, shape, using, matches)
        if self._db._logged is not None:
            for each, hits in zip(queries, found, strict=True):
                self._log(each, (*request.as_asked(using), *shape), hits)
        return found[0] if single else found

    def _place(
        self, txn: Any, view: Any, request: Request, using: str | None, matches: Any = None
    ) -> Place:
        cid, get = self._cid, txn.get
        snapshot = self._db._env.snapshot(txn) if self._live() else None

        def read(rids: Any) -> tuple[list[Any], list[bytes]]:
            if snapshot is not None:
                found: tuple[list[Any], list[bytes]] | None = snapshot.tree.rows(
                    cid, np.ascontiguousarray(rids, np.uint32)
                )
                if found is not None:
                    return found
            return rows.read_many(get, cid, rids.tolist())

        allowed = None
        if request.where is not None:
            find = None if matches is None else matches(txn, view)
            allowed = (find or self._matches(txn, view))(request.where)
        return Place(
            self, txn, view, request, allowed, lambda rids: read(rids)[0], lambda rids: read(rids)[1], read,
            using, None if allowed is None else Cut(allowed, view.slots),
        )  # fmt: skip

    def _ranker(self, place: Place, query: Query) -> Ranker:
        """The ranker of a query, its radius seen to fit."""
        found = build.ranker(place, query, lambda ranked: _shown(place, ranked))
        radius = place.request.radius
        if radius is not None:
            leaves = [each for each in _leaves(found) if each.has_distances]
            if not leaves:
                refuse(f"radius={radius:g}: no part of the query has distances; leave it out")
            for each in leaves:
                field = getattr(each, "field", None)
                if field is not None:
                    check_radius(place.request, field.declared.metric)
        return found

    def _matched(
        self, txn: Any, view: Any, query: Any, where: Any, using: str | None, radius: Any
    ) -> BitMap:
        """The rows that a query matches."""
        queries, single = as_queries(query, using)
        if not single:
            refuse("facets takes one query")
        request = self._request(Options(None, where, exact=True, radius=radius))
        return self._ranker(self._place(txn, view, request, using), queries[0]).rows()

    def _explained(self, query: Any, request: Request, shape: Shape, using: str | None) -> Plan:
        """What `_ask` would do with one query, its matches counted."""
        queries, single = as_queries(query, using)
        if not single:
            refuse("explain takes one query")
        with self._reading() as (txn, view):
            place = self._place(txn, view, request, using)
            return sketched(place, self._ranker(place, queries[0]), shape, count=True)()


class Run:
    """One query while it is answered."""

    def __init__(self, verbs: Composing, place: Place, query: Query, shape: Shape) -> None:
        self.verbs, self.place, self.query, self.shape = verbs, place, query, shape
        self.ranker = verbs._ranker(place, query)
        self.gained: dict[int, float] = {}  # what boosts added, by row

    def hits(self, times: tuple[int, int]) -> Hits:
        """What it finds; `times`: when it began, and when the filter was done."""
        started, filtered = times
        searching = perf_counter_ns()
        ranked, sizes = self.ranked()
        ended = perf_counter_ns()
        place = self.place
        ids, payloads = place.read(ranked.rids) if len(ranked.rids) else ([], [])
        stored = self._stored(ranked) if place.request.with_vectors else None
        source = Composed(
            sketched(place, self.ranker, self.shape), told(self.ranker, self._all),
            ranked.rids, _single(ranked.scores), sizes, self.gained, self.ranker.highlighter(),
            self.verbs._parse, stored, place.request.offset,
        )  # fmt: skip
        distances = ranked.distances
        if distances is None:
            distances = np.full(len(ids), np.nan, np.float32)
        figures = (0, ended - searching, perf_counter_ns() - started, False, filtered - started)
        return Hits(ids, distances.tobytes(), payloads, figures, source)

    def ranked(self) -> tuple[Ranked, list[tuple[Any, int]] | None]:
        """The rows of the hits; under `group_by` the groups' values and sizes too."""
        return self._grouped() if self.shape.group_by is not None else (self._cut(), None)

    def rank(self, ranker: Ranker, reach: int) -> Ranked:
        """The best `reach` of a ranker, boosts added."""
        if reach <= 0:
            return nothing(distances=ranker.has_distances)
        if not self.shape.boosts:
            found = ranker.best(reach)
        else:
            found, gained = boost.boosted(ranker, self.shape.boosts, reach)
            self.gained.update(zip(found.rids.tolist(), gained.tolist(), strict=True))
        self._all = found
        return found

    _all: Ranked = nothing()

    def _cut(self) -> Ranked:
        request, diversity = self.place.request, self.shape.diversity
        if request.k is None:
            return self.rank(self.ranker, self.ranker.matching()).cut(request.offset, None)
        reach = request.k + request.offset
        if not diversity:
            return self.rank(self.ranker, reach).cut(request.offset, reach)
        found = self.rank(self.ranker, diverse.candidates(reach))
        field = self._field()
        assert field is not None
        alike = isinstance(self.ranker, NearRanker)
        at = diverse.chosen(found, field, diversity, reach, alike=alike)[request.offset :]
        distances = None if found.distances is None else found.distances[at]
        return Ranked(found.rids[at], found.scores[at], distances)

    def _grouped(self) -> tuple[Ranked, list[tuple[Any, int]]]:
        request, shape = self.place.request, self.shape
        assert shape.group_by is not None
        wanted = max(1, self.ranker.matching()) if request.k is None else request.k + request.offset
        found = group.grouped(
            self.ranker, shape.group_by, wanted, shape.group_size, self._within, self.rank
        )[request.offset :]
        lists = [each.ranked for each in found]
        if not lists:
            return nothing(distances=self.ranker.has_distances), []
        distances = None
        if all(each.distances is not None for each in lists):
            distances = np.concatenate([each.distances for each in lists])
        joined = Ranked(
            np.concatenate([each.rids for each in lists]), np.concatenate([each.scores for each in lists]),
            distances,
        )  # fmt: skip
        return joined, [(each.value, len(each.ranked.rids)) for each in found]

    def _within(self, chosen: Any) -> Ranker:
        """The same query among some rows."""
        where = some(self.place.request.where)
        request = replace(self.place.request, where=where)
        cut = Cut(chosen, self.place.view.slots)
        return self.verbs._ranker(self.place._replace(request=request, allowed=chosen, cut=cut), self.query)

    def _stored(self, ranked: Ranked) -> list[Any]:
        """The rows' vectors in the field that the query is about, with its name; None for those without."""
        for each in _leaves(self.ranker):
            if isinstance(getattr(each, "field", None), VectorField):
                break
            found = each.stored(ranked.rids)
            if found is not None:
                return found
        return _stored(self.place, self._field(), ranked)

    def _field(self) -> VectorField:
        """The vector field of the query, or the one that fits."""
        for each in _leaves(self.ranker):
            field = getattr(each, "field", None)
            if isinstance(field, VectorField):
                return field
        return VectorField(self.place, self.place.using, ())


def _leaves(ranker: Ranker) -> list[Ranker]:
    parts = ranker.parts
    return [leaf for part in parts for leaf in _leaves(part)] if parts else [ranker]


def _stored(place: Place, field: VectorField, ranked: Ranked) -> list[Any]:
    """The rows' vectors in a field, with its name; None for a row without."""
    held = field.rows()
    has = [rid in held or rid in field.without for rid in ranked.rids.tolist()]
    layout = place.view.schema.layout(field.declared)
    chosen = np.ascontiguousarray(ranked.rids[np.array(has, np.bool_)])
    made: Iterator[Any] = iter(())
    if len(chosen):
        found = vectors.read(place.txn, place.verbs._cid, layout, chosen)
        made = iter(vectors.shown(found, field.declared))
    return [(field.name, next(made)) if each else None for each in has]


def _single(scores: Any) -> Any:
    """Scores as hits have them: float32; what is too large there is infinite."""
    with np.errstate(over="ignore"):
        return scores.astype(np.float32)


def _shown(place: Place, ranked: Ranked) -> Hits:
    """Ranked rows as hits, for a callable that ranks them anew."""
    ids, payloads = place.read(ranked.rids)
    distances = ranked.distances
    if distances is None:
        distances = np.full(len(ids), np.nan, np.float32)
    plan = Plan(place.view.schema.name, "rerank", len(ids), len(ids), place.view.state.live)
    source = Composed(
        lambda: plan, None, ranked.rids, _single(ranked.scores), None, {}, None, parse_record, None, 0,
    )
    return Hits(ids, distances.tobytes(), payloads, (), source)


# --- what is given -----------------------------------------------------------------------------


def is_composed(query: Any) -> bool:
    """Whether this is a query object, or a list with one."""
    if isinstance(query, Query):
        return True
    return type(query) in (list, tuple) and any(isinstance(each, Query) for each in query)


def as_queries(query: Any, using: str | None) -> tuple[list[Query], bool]:
    """Queries, and whether one was given."""
    if isinstance(query, Query):
        return [query], True
    if isinstance(query, str):
        return [Near(query, using)], True
    if isinstance(query, list | tuple) and any(isinstance(each, Query | str) for each in query):
        return [each if isinstance(each, Query) else Near(each, using) for each in query], False
    array: Any = query if hasattr(query, "ndim") else np.asarray(query)
    if array.ndim == 2:
        return [Near(each, using) for each in array], False
    return [Near(query, using)], True


def given_shape(group_by: Any, group_size: Any, diversity: Any, boosts: Any, k: Any) -> Shape:
    """A shape, checked."""
    plain = group_by is None and diversity is None and boosts is None
    if plain and type(group_size) is int and group_size == 1:
        return NO_SHAPE
    if group_by is not None and (not isinstance(group_by, str) or not group_by):
        refuse(f"group_by={group_by!r:.60}: give the name of a metadata field")
    if isinstance(group_size, bool) or not isinstance(group_size, int | np.integer) or not (
        1 <= group_size <= MAX_GROUP
    ):
        refuse(f"group_size={group_size!r:.40}: give an int from 1 to {MAX_GROUP:,}")
    if group_by is None and group_size != 1:
        refuse(f"group_size={group_size}: without group_by there are no groups")
    if diversity is not None:
        if isinstance(diversity, bool) or not isinstance(diversity, int | float | np.integer | np.floating):
            refuse(f"diversity={diversity!r:.40}: give a number from 0 to 1")
        if not 0 <= diversity <= 1:
            refuse(f"diversity={diversity!r:.40}: give a number from 0 (relevance alone) to 1")
        if diversity and group_by is not None:
            refuse("diversity with group_by: groups are diverse by their field already; give one of the two")
        if diversity and k is None:
            refuse("diversity with k=None: every match is chosen anyway; give k")
    return Shape(
        group_by, int(group_size), None if diversity is None else float(diversity), _boosts(boosts)
    )


def _boosts(given: Any) -> tuple[Boost, ...]:
    if given is None:
        return ()
    listed = [given] if isinstance(given, Boost) else given
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        refuse(f"boost is a {type(given).__name__}; give a list of vecdb.query.Decay and Field")
    if len(listed) > MAX_BOOSTS:
        refuse(f"boost has {len(listed):,} boosts; the limit is {MAX_BOOSTS}: leave some out")
    for at, each in enumerate(listed):
        if not isinstance(each, Boost):
            refuse(f"boost: item {at} is a {type(each).__name__}; give vecdb.query.Decay or Field")
    return tuple(listed)
