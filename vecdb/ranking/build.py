"""Which ranker answers which query?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from vecdb.query.objects import Query
from vecdb.ranking.base import Place, Ranker
from vecdb.ranking.text import TextRanker

KINDS: Final[dict[str, Callable[[Place, Any], Ranker]]] = {  # by the query's type name
    "Text": TextRanker,
}


def ranker(place: Place, query: Query) -> Ranker:
    """The ranker of a query."""
    return KINDS[type(query).__name__](place, query)
