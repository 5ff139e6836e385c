"""Which ranker answers which query?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from vecdb.query.objects import Query
from vecdb.ranking.base import Place, Ranker
from vecdb.ranking.late import LateRanker

KINDS: Final[dict[str, Callable[[Place, Query], Ranker]]] = {  # by the query's type name
    "Late": LateRanker,
}


def ranker(place: Place, query: Query) -> Ranker:
    """The ranker of a query."""
    return KINDS[type(query).__name__](place, query)
