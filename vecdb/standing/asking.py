"""What is a `Near` of? For who asks about single rows, and not for the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.collection import Collection
from vecdb.errors import InvalidArgument, NotFound
from vecdb.query.numbers import Numbers
from vecdb.query.objects import Near
from vecdb.query.values import ById


def given(collection: Collection, query: Near, using: str | None) -> Any:
    """The vector as an array, or the text."""
    x = query.x
    if isinstance(x, ById):
        record = collection.get(x.id)
        if record is None:
            raise NotFound(f"ById({x.id!r}): collection {collection.name!r} has no such row")
        found = record.vectors.get(using or next(iter(record.vectors), ""))
        if found is None:
            raise InvalidArgument(f"ById({x.id!r}): the row has no vector")
        return found
    if isinstance(x, Numbers):
        return np.frombuffer(x.data, x.dtype).reshape(x.shape)
    return x if isinstance(x, str) else np.array(x)
