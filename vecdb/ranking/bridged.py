"""How is a text searched while its field is being encoded anew? Over the rows of both encoders.

Rows that have the new vectors already are ranked by the new query against those; the others by the same
query, mapped into the old vectors' space (adapting/bridge.py), with the old encoder's query beside where that
is at hand; their scores are taken to what they are expected to be in the new space. Both lists make one
ranking.

Invariants:
  Y1  a row is in one of the two lists: whether it has its new vector is asked of the search's own snapshot;
  Y2  every row with an old vector is found, so that no search is short meanwhile.

Rejected: the old encoder for everything until the switch. It may not be at hand any more, which is why
many change; where the new one is not at hand either (collection/searching.py), or its service fails, the old
one answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pyroaring import BitMap

from vecdb.errors import EncoderFailed, InvalidArgument
from vecdb.index.view import Cut
from vecdb.query.objects import Near, Query
from vecdb.ranking.base import Place, Ranked, Ranker
from vecdb.ranking.near import NearRanker
from vecdb.ranking.vectors import VectorField
from vecdb.storage.schema import Hidden
from vecdb.types import Plan

if TYPE_CHECKING:
    from vecdb.ranking.base import Rids, Scores

def near(place: Place, query: Query) -> Ranker:
    """The ranker of a Near: over the bridge where its field is on its way to another encoder."""
    found = cast("Near", query)
    if isinstance(found.x, str) and place.view.schema.hidden and place.request.radius is None:
        using = found.using or place.using
        bridging = crossing(place.verbs, place.view.schema, using)
        if bridging is not None:
            try:
                return BridgedRanker(place, query, *bridging)
            except EncoderFailed:  # its service does not answer now
                if place.verbs._at_hand(place.view.schema.vectors[bridging[0]]) is None:
                    raise
    return NearRanker(place, query)


def crossing(verbs: Any, schema: Any, using: str | None) -> tuple[str, Hidden, Any, Any] | None:
    """A field's name, what is on its way to take its place, the bridge, and the encoder; None without one."""
    try:
        name, declared = verbs._searched(schema, using, "")
    except InvalidArgument:
        return None  # said by who asks for the field
    hidden = schema.hidden.get(name)
    if hidden is None or hidden.bridge is None:
        return None
    encoder = verbs._at_hand(hidden.field)
    return None if encoder is None else (name, hidden, verbs._bridge(hidden.bridge), encoder)


class _Behind(VectorField):
    """A field that stands behind a named one, at a place."""

    def __init__(self, place: Place, name: str, hidden: Hidden) -> None:
        self.place, self.name, self.declared = place, name, hidden.field
        self.without = BitMap()
        self._context = self._origin = None


class BridgedRanker(Ranker):
    """Rows near a text by the new encoder, whichever encoder they have their vectors of."""

    has_distances = True

    def __init__(
        self, place: Place, query: Query, name: str, hidden: Hidden, bridge: Any, encoder: Any
    ) -> None:
        super().__init__(place, query)
        text = cast("str", cast("Near", query).x)
        self.bridge = bridge
        self.new_vector = place.verbs._encoded_by(encoder, hidden.field, [text])[0]
        self.field = VectorField(place, name, [""])
        former = place.verbs._at_hand(self.field.declared)
        beside = None if former is None else place.verbs._encoded_by(former, self.field.declared, [text])[0]
        self.mixed = beside is not None
        self.old_vector = bridge(self.new_vector, beside)
        self.all = self.field.rows()
        self.done = self.all & _Behind(place, name, hidden).rows()
        self.rest = self.all - self.done
        self._new = self._among(_Behind(place, name, hidden), self.done)
        self._old = self._among(VectorField(place, name, [""]), self.rest)

    def _among(self, field: VectorField, rows: BitMap) -> VectorField:
        """The same field among some rows."""
        field.place = field.place._replace(allowed=rows, cut=Cut(rows, field.place.view.slots))
        return field

    def rows(self) -> BitMap:
        return self.all

    def matching(self) -> int:
        return len(self.all)

    def counted(self) -> int | None:
        return len(self.all)

    def best(self, reach: int) -> Ranked:
        lists = []
        if self.done:
            lists.append(self._new.nearest(self.new_vector, min(reach, len(self.done))))
        if self.rest:
            found = self._old.nearest(self.old_vector, min(reach, len(self.rest)))
            lists.append(found._replace(scores=self._expected(found.scores)))
        rids = np.concatenate([np.empty(0, np.uint32), *(each.rids for each in lists)])
        scores = np.concatenate([np.empty(0), *(each.scores for each in lists)])
        order = np.lexsort((rids, -scores))[:reach]
        return Ranked(rids[order], scores[order], self._distances(scores[order]))

    def scores(self, rids: Rids) -> Scores:
        found = np.full(len(rids), np.nan)
        for field, vector, mine in (
            (self._new, self.new_vector, self.done),
            (self._old, self.old_vector, self.rest),
        ):
            at = np.flatnonzero(np.fromiter((rid in mine for rid in rids.tolist()), np.bool_, len(rids)))
            if len(at):
                chosen = np.ascontiguousarray(rids[at])
                scored = field.scored(field.distances(vector, chosen))
                found[at] = scored if field is self._new else self._expected(scored)
        return found

    def _expected(self, scores: Scores) -> Scores:
        made: Scores = self.bridge.expected(scores, mixed=self.mixed).astype(np.float64)
        return made

    def _distances(self, scores: Scores) -> Any:
        """Distances that stand for scores: those of rows with old vectors are expected ones."""
        metric = self.field.declared.metric
        made = -scores if metric == "dot" else 1 - scores if metric == "cosine" else 1 / scores - 1
        return np.asarray(made, np.float32)

    def lacks(self, rid: int) -> str | None:
        return self.field.lacks(rid)

    def strategy(self) -> str:
        return "over the bridge"

    def sketch(self, *, count: bool = False) -> Callable[[], Plan]:
        name, matches, query = self.place.view.schema.name, len(self.all), self.query
        strategy = f"over the bridge ({len(self.done):,} of {matches:,} rows encoded anew)"
        live = self.place.view.state.live
        return lambda: Plan(name, strategy, None, matches, live, query=repr(query))
