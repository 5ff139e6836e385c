"""Encoders from any callable: a model that the caller already has in hand.

Only the name, the dimension and the metric are stored with a collection, never the code. So the
fingerprint is made of these, and whoever changes the model behind a name must change the name
(or pass `fingerprint=`): vecdb cannot see the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vecdb.encoders.base import NOT_STATED, Card, Vectors, check_texts, check_vectors
from vecdb.errors import InvalidArgument

__all__ = ["FunctionEncoder", "function"]

METRICS = ("cosine", "l2", "dot")
LARGEST_DIM = 65_536

_UNKNOWN = Card(NOT_STATED, NOT_STATED, NOT_STATED, NOT_STATED)


class FunctionEncoder:
    """What `function` returns: an encoder that calls `documents` and `queries`."""

    def __init__(
        self,
        documents: Callable[[list[str]], Any],
        queries: Callable[[list[str]], Any],
        name: str,
        dim: int,
        metric: str,
        fingerprint: str,
        card: Card,
    ) -> None:
        self.name = name
        self.dim = dim
        self.metric = metric
        self.fingerprint = fingerprint
        self.card = card
        self._documents = documents
        self._queries = queries

    def __repr__(self) -> str:
        return f"FunctionEncoder({self.name!r}, dim={self.dim})"

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`."""
        return self._call(self._documents, texts)

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts` looked for."""
        return self._call(self._queries, texts)

    def _call(self, function: Callable[[list[str]], Any], texts: Sequence[str]) -> Vectors:
        who = f"encoder {self.name!r}"
        listed = check_texts(texts, who)
        if not listed:
            return np.empty((0, self.dim), dtype=np.float32)
        return check_vectors(function(listed), len(listed), self.dim, who)


def function(
    encode: Callable[[list[str]], Any],
    /,
    *,
    name: str,
    dim: int,
    metric: str = "cosine",
    queries: Callable[[list[str]], Any] | None = None,
    fingerprint: str | None = None,
    card: Card = _UNKNOWN,
) -> FunctionEncoder:
    """Make an encoder of a callable that takes a list of n texts and returns an (n, dim) array.

    `queries` is called for queries where they are encoded otherwise than documents. Raises
    InvalidArgument for a name, dim or metric that no collection could record; an encoding
    raises it when the callable returns another shape, NaN or infinity.

    >>> encoder = function(lambda texts: [[len(t), 1] for t in texts], name="length", dim=2)
    >>> encoder.encode_documents(["four"]).tolist()
    [[4.0, 1.0]]
    """
    for label, code in (("the first argument", encode), ("queries", queries or encode)):
        if not callable(code):
            raise InvalidArgument(f"{label} must be callable, not {type(code).__name__}")
    if not isinstance(name, str) or not 1 <= len(name) <= 200:
        raise InvalidArgument("name must be a str of 1 to 200 characters")
    if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim <= LARGEST_DIM:
        raise InvalidArgument(f"dim must be an int from 1 to {LARGEST_DIM}, not {dim!r}")
    if metric not in METRICS:
        raise InvalidArgument(f"metric must be one of {METRICS}, not {metric!r}")
    if fingerprint is None:
        facts = f"function 1, {name}, {dim}, {metric}"
        fingerprint = hashlib.sha256(facts.encode()).hexdigest()[:32]
    return FunctionEncoder(encode, queries or encode, name, dim, metric, fingerprint, card)
