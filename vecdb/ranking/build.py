"""Which ranker answers which query?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from vecdb.query.objects import Fuse, Query, Rerank
from vecdb.ranking import bridged, near
from vecdb.ranking.base import Place, Ranked, Ranker
from vecdb.ranking.fuse import FuseRanker
from vecdb.ranking.late import LateRanker
from vecdb.ranking.rerank import RerankRanker
from vecdb.ranking.sparse import SparseRanker
from vecdb.ranking.text import TextRanker

Shown = Callable[[Ranked], Any]

KINDS: Final[dict[str, Callable[[Place, Any], Ranker]]] = {  # by the query's type name
    "Near": bridged.near,
    "Like": near.like,
    "Context": near.ContextRanker,
    "Late": LateRanker,
    "Sparse": SparseRanker,
    "Text": TextRanker,
}


def ranker(place: Place, query: Query, shown: Shown) -> Ranker:
    """The ranker of a query; `shown` makes hits of ranked rows, for those who rerank them."""
    if isinstance(query, Fuse):
        return FuseRanker(place, query, [ranker(place, each, shown) for each in query.queries])
    if isinstance(query, Rerank):
        by = ranker(place, query.by, shown) if isinstance(query.by, Query) else None
        return RerankRanker(place, cast("Query", query), ranker(place, query.query, shown), by, shown)
    return KINDS[type(query).__name__](place, query)
