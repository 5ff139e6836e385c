"""What is a `Near` of? For who asks about single rows, and not for the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.arrays import given_query
from vecdb.collection import Collection
from vecdb.errors import InvalidArgument, NotFound
from vecdb.query.numbers import Numbers
from vecdb.query.objects import Near
from vecdb.query.values import ById
from vecdb.storage.schema import VectorField


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


def asked(collection: Collection, query: Near, found: Any, declared: VectorField) -> Any:
    """What `given` found as a field's float32 vector (d,): a row's own has been through the adapters."""
    if isinstance(query.x, ById):
        return given_query(found, declared, collection.name)[0]
    return collection._query(found, declared)[0]
