"""How is a query object asked of a collection?"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.collection import Collection
from vecdb.errors import InvalidArgument, NotFound
from vecdb.query.numbers import Numbers
from vecdb.query.objects import ById, Near, Query


def search_for(collection: Any, verb: str, query: Query, k: Any, **options: Any) -> Any:
    """What `search` or `explain` of a collection answers to a query object."""
    if isinstance(query, Near):
        if query.using is not None:
            if options.get("using", query.using) != query.using:
                raise InvalidArgument(f"using={options['using']!r:.60}, and Near says {query.using!r:.60}")
            options["using"] = query.using
        return getattr(collection, verb)(given(collection, query), k, **options)
    raise InvalidArgument(f"query: a {type(query).__name__} cannot be searched for yet; give a Near")


def given(collection: Collection, query: Near) -> Any:
    """What a `Near` is of: a vector as an array, or a text."""
    x = query.x
    if isinstance(x, ById):
        record = collection.get(x.id)
        if record is None:
            raise NotFound(f"ById({x.id!r}): collection {collection.name!r} has no such row")
        found = record.vectors.get(query.using or next(iter(record.vectors), ""))
        if found is None:
            raise InvalidArgument(f"ById({x.id!r}): the row has no vector")
        return found
    if isinstance(x, Numbers):
        return np.frombuffer(x.data, x.dtype).reshape(x.shape)
    return x if isinstance(x, str) else np.array(x)
