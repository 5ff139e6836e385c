"""What may a user search for? Queries as values: made once, compared, kept, written down, nested.

    Near, Like, Context     by vectors, texts and examples
    Text, Sparse, Late      by words, by weights, by many vectors a row
    Fuse, Rerank            what others found, put together or put in another order

Invariants:
  O1  a query never changes, and equal queries have equal hashes and equal JSON (written.py);
  O2  what a query is made of is checked when it is made, in words that name the argument; whether it fits
      a collection is seen when it is asked;
  O3  no query is nested deeper than MAX_DEPTH or has more than MAX_PARTS parts in all: no input meets
      Python's own limits.

Rejected: builders (`search(...).where(...).limit(...)`). A half-built query is no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from vecdb.query.numbers import Vector, given_numbers
from vecdb.query.values import (
    MAX_EXAMPLES,
    MAX_TEXT_CHARS,
    MAX_WEIGHT,
    ById,
    Value,
    given_depth,
    given_example,
    given_examples,
    given_name,
    given_text,
    given_weight,
    given_weights,
    listed_of,
    one_of,
    refuse,
    scalar_of,
    shown_as,
)

MAX_DEPTH: Final = 16
MAX_PARTS: Final = 256
METHODS: Final = ("rrf", "weighted", "relative")
STRATEGIES: Final = ("average", "best")


class Query(Value):
    """A search as a value; `a + b` is Fuse(a, b) by reciprocal rank."""

    __slots__ = ()

    @property
    def parts(self) -> tuple[Query, ...]:
        """The queries inside."""
        return ()

    def to_json(self) -> str:
        """Return the query as JSON text, which `vecdb.query.from_json` reads.

        InvalidArgument where a callable is inside: its code cannot be written down.

        >>> from vecdb.query import Text, from_json
        >>> from_json(Text("gpu kernels").to_json())
        Text('gpu kernels')
        """
        from vecdb.query.written import to_json

        return to_json(self)

    def __add__(self, other: object) -> Fuse:
        if not isinstance(other, Query):
            return NotImplemented
        mine = self.queries if isinstance(self, Fuse) and self == Fuse(*self.queries) else (self,)
        return Fuse(*mine, other)


class Near(Query):
    """Rows whose vectors are near: `x` is a vector (d,), a text, or `vecdb.ById(id)`.

    `using` names the vector field; it may be left out where one fits.

    >>> import vecdb
    >>> from vecdb.query import Near
    >>> c = vecdb.open().create_collection("c", dim=2)
    >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
    >>> c.search(Near([1, 0.1]), k=1).ids
    ['a']
    """

    __slots__ = ("using", "x")
    _names = ("x", "using")
    x: Vector | str | ById
    using: str | None

    def __init__(self, x: Any, using: str | None = None) -> None:
        self._set(x=given_example("Near: x", x), using=given_name("Near: using", using))

    def _usual(self) -> Mapping[str, Any]:
        return {"using": None}


class Like(Query):
    """Rows like the positive examples and unlike the negative ones: ids, vectors or texts.

    A str is the id of a row where there is one, else a text for the encoder; `vecdb.ById` says which.
    `strategy="average"` searches near mean(positive) + mean(positive) - mean(negative), of vectors scaled
    to length 1 where the metric is cosine; `"best"` scores a row squash(score with its nearest positive
    example), or, where a negative one is nearer, minus squash(score with that); squash(x) = (x / (1 + |x|) +
    1) / 2. Examples are left out of the hits. (Both as Qdrant's recommend API has them.)

    >>> import vecdb
    >>> from vecdb.query import Like
    >>> c = vecdb.open().create_collection("c", dim=2)
    >>> _ = c.add(["a", "b", "c"], [[1, 0], [1, 0.2], [0.2, 1]])
    >>> c.search(Like(positive=["a"]), k=1).ids
    ['b']
    """

    __slots__ = ("negative", "positive", "strategy", "using")
    _names = ("positive", "negative", "strategy", "using")
    positive: tuple[Any, ...]
    negative: tuple[Any, ...]
    strategy: str
    using: str | None

    def __init__(
        self, positive: Any = (), negative: Any = (), *, strategy: str = "average",
        using: str | None = None,
    ) -> None:  # fmt: skip
        likes = given_examples("Like: positive", positive)
        dislikes = given_examples("Like: negative", negative)
        if not likes and not dislikes:
            refuse("Like needs an example: positive=[...], negative=[...] of ids, vectors or texts")
        one_of("Like: strategy", strategy, STRATEGIES)
        if not likes and strategy == "average":
            refuse("Like: positive is empty; only strategy='best' does without a positive example")
        self._set(
            positive=likes, negative=dislikes, strategy=strategy, using=given_name("Like: using", using)
        )

    def _usual(self) -> Mapping[str, Any]:
        return {"negative": (), "strategy": "average", "using": None}


class Context(Query):
    """Rows on the right side of pairs: nearer to each pair's positive example than to its negative one.

    A row's score is the sum over the pairs of min(0, squash(score with the positive) - squash(score with the
    negative)), squash(x) = (x / (1 + |x|) + 1) / 2: 0 where it is on the right side of all, as in Qdrant's
    context search. Ranks every match. Examples as in `Like`.

    >>> import vecdb
    >>> from vecdb.query import Context
    >>> c = vecdb.open().create_collection("c", dim=2)
    >>> _ = c.add(["a", "b", "c"], [[1, 0], [1, 0.2], [0.2, 1]])
    >>> c.search(Context(pairs=[([1, 0], [0, 1])]), k=2).ids
    ['a', 'b']
    """

    __slots__ = ("pairs", "using")
    _names = ("pairs", "using")
    pairs: tuple[tuple[Any, Any], ...]
    using: str | None

    def __init__(self, pairs: Any, using: str | None = None) -> None:
        pairs = scalar_of(pairs)
        if isinstance(pairs, str) or not isinstance(pairs, Iterable):
            refuse(f"Context: pairs is a {type(pairs).__name__}; give [(positive, negative), ...]")
        found = []
        for at, pair in enumerate(pairs):
            if at >= MAX_EXAMPLES:
                refuse(f"Context: more than {MAX_EXAMPLES:,} pairs")
            two = listed_of(pair)
            if two is None or len(two) != 2:
                refuse(f"Context: pair {at} is no pair (positive, negative)")
            found.append(tuple(given_example(f"Context: pair {at}", each, ids=True) for each in two))
        if not found:
            refuse("Context: pairs is empty; give [(positive, negative), ...]")
        self._set(pairs=tuple(found), using=given_name("Context: using", using))

    def _usual(self) -> Mapping[str, Any]:
        return {"using": None}


class Text(Query):
    """Rows with these words, by BM25 (k1 1.2, b 0.75; Robertson and Zaragoza, 2009), ties by id.

    Any word counts; "words in quotes" are a phrase, word* a prefix, +word is required, -word excluded.
    `fields` names the full-text fields, all of them where it is left out; `weights` {field: factor}.

    >>> import vecdb
    >>> from vecdb.query import Text
    >>> c = vecdb.open().create_collection("c", dim=2, fulltext=True)
    >>> _ = c.add(["a", "b"], texts=["a fast GPU kernel", "a slow printer"])
    >>> c.search(Text("gpu kernels")).ids
    ['a']
    """

    __slots__ = ("fields", "text", "weights")
    _names = ("text", "fields", "weights")
    text: str
    fields: tuple[str, ...] | None
    weights: tuple[tuple[str, float], ...]

    def __init__(self, text: str, fields: Any = None, weights: Any = None) -> None:
        if not isinstance(text, str):
            refuse(f"Text: text is a {type(text).__name__}; give a str")
        if len(text) > MAX_TEXT_CHARS:
            refuse(f"Text: text has {len(text):,} characters; the limit is {MAX_TEXT_CHARS:,}")
        given_text("Text: text", text)
        fields = scalar_of(fields)
        if isinstance(fields, str):
            fields = (fields,)
        if fields is not None:
            if not isinstance(fields, Iterable):
                refuse(f"Text: fields is a {type(fields).__name__}; give a list of full-text fields")
            fields = tuple(dict.fromkeys(given_name("Text: fields", each, needed=True) for each in fields))
            if not fields:
                refuse("Text: fields is empty; leave it out for all full-text fields")
        listed = given_weights("Text: weights", {} if weights is None else weights, str)
        for field, weight in listed:
            if not 0 <= weight <= MAX_WEIGHT:
                refuse(f"Text: weights: {field!r:.60}={weight:g}: give factors from 0 to {MAX_WEIGHT:g}")
        self._set(text=text, fields=fields, weights=listed)

    def _usual(self) -> Mapping[str, Any]:
        return {"fields": None, "weights": ()}


class Sparse(Query):
    """Rows by the dot product with a sparse vector {token or int: weight}, exact; distance: minus the score.

    Every row with a sparse vector in the field matches: one without a common token scores 0. Ties by row
    number.

    >>> import vecdb
    >>> from vecdb.query import Sparse
    >>> c = vecdb.open().create_collection("c", vectors={"terms": vecdb.SparseVector()})
    >>> _ = c.add(["a", "b"], [{"gpu": 1.5}, {"gpu": 0.5, "kernel": 2}])
    >>> c.search(Sparse({"gpu": 1.0, "kernel": 0.5})).ids
    ['a', 'b']
    """

    __slots__ = ("using", "weights")
    _names = ("weights", "using")
    weights: tuple[tuple[str | int, float], ...]
    using: str | None

    def __init__(self, weights: Any, using: str | None = None) -> None:
        listed = given_weights("Sparse: weights", weights, (str, int))
        if not listed:
            refuse("Sparse: weights is empty; give {token_or_int: weight}")
        self._set(weights=listed, using=given_name("Sparse: using", using))

    def _usual(self) -> Mapping[str, Any]:
        return {"using": None}


class Late(Query):
    """Rows of a field with `multi=True` by MaxSim: for each query vector its best match in the row, summed.

    `matrix`: (m, d), m up to 1,024. Score: the sum over its vectors of the best similarity in the row: the
    cosine, the dot product, minus the Euclidean distance, or 1 - bits / d; distance: the sum of the smallest
    distances (cosine: m - score). The best rows by 8-bit codes are ranked by their stored vectors; the
    first search of a field in a process reads it whole and keeps d + 4 bytes a vector. Late interaction as
    in ColBERT (Khattab and Zaharia, 2020).

    >>> import numpy as np
    >>> from vecdb.query import Late
    >>> Late(np.eye(2, dtype=np.float32), using="tokens")
    Late(<float32 (2, 2)>, using='tokens')
    """

    __slots__ = ("matrix", "using")
    _names = ("matrix", "using")
    matrix: Vector
    using: str | None

    def __init__(self, matrix: Any, using: str | None = None) -> None:
        found = given_numbers("Late: matrix", matrix, (2,))
        self._set(matrix=found, using=given_name("Late: using", using))

    def _usual(self) -> Mapping[str, Any]:
        return {"using": None}


class Fuse(Query):
    """What several queries find, put together: hybrid search.

    `method`: "rrf" sums weight / (60 + rank) (Cormack, Clarke and Büttcher, 2009); "weighted" sums weight ·
    score; "relative" sums weight · score, each part's scores scaled to 0 to 1 over what it found. `weights`:
    one a part, 1 where left out. `depth`: so many of each part's best count; max(5k, 100) where left out.
    A row that a part did not find gets nothing from it.

    >>> from vecdb.query import Fuse, Near, Text
    >>> Near("gpu") + Text("cuda") == Fuse(Near("gpu"), Text("cuda"), method="rrf")
    True
    """

    __slots__ = ("depth", "method", "queries", "weights")
    _names = ("queries", "method", "weights", "depth")
    _first = 0
    queries: tuple[Query, ...]
    method: str
    weights: tuple[float, ...] | None
    depth: int | None

    def __init__(
        self, *queries: Query, method: str = "rrf", weights: Any = None, depth: int | None = None
    ) -> None:
        if not queries:
            refuse("Fuse needs queries: Fuse(Near(...), Text(...))")
        for at, each in enumerate(queries):
            if not isinstance(each, Query):
                refuse(f"Fuse: part {at} is a {type(each).__name__}; give query objects, as Near(...)")
        one_of("Fuse: method", method, METHODS)
        if weights is not None:
            listed = listed_of(weights)
            if listed is None:
                refuse(f"Fuse: weights is a {type(weights).__name__}; give a list, one number a part")
            if len(listed) != len(queries):
                refuse(f"Fuse: {len(listed)} weights for {len(queries)} parts; give one for each")
            weights = tuple(given_weight(f"Fuse: weights: part {at}", w) for at, w in enumerate(listed))
        self._set(queries=queries, method=method, weights=weights, depth=given_depth("Fuse", depth))
        check_size(self)

    @property
    def parts(self) -> tuple[Query, ...]:
        """The queries inside."""
        return self.queries

    def _usual(self) -> Mapping[str, Any]:
        return {"method": "rrf", "weights": None, "depth": None}

    def __repr__(self) -> str:
        rest = [
            f"{name}={shown_as(getattr(self, name))}"
            for name, usual in self._usual().items()
            if getattr(self, name) != usual
        ]
        return f"Fuse({', '.join([*map(repr, self.queries), *rest])})"


class Rerank(Query):
    """The best `depth` of a query, put in another order.

    `by`: a query, whose scores of these rows count (rows that it does not match come last), or a callable
    `(query, hits) -> scores`, larger is better, such as `vecdb.encoders.cross_encoder(folder)`.

    >>> from vecdb.query import Near, Rerank, Text
    >>> Rerank(Text("gpu"), by=Near("gpu kernels"))
    Rerank(Text('gpu'), by=Near('gpu kernels'))
    """

    __slots__ = ("by", "depth", "query")
    _names = ("query", "by", "depth")
    query: Query
    by: Query | Callable[..., Any]
    depth: int

    def __init__(self, query: Query, by: Any, depth: int = 200) -> None:
        if not isinstance(query, Query):
            refuse(f"Rerank: query is a {type(query).__name__}; give a query object, as Text(...)")
        if not isinstance(by, Query) and not callable(by):
            refuse(f"Rerank: by is a {type(by).__name__}; give a query or a callable (query, hits) -> scores")
        if depth is None:
            refuse("Rerank: depth=None; give how many of the best are ranked anew")
        self._set(query=query, by=by, depth=given_depth("Rerank", depth))
        check_size(self)

    @property
    def parts(self) -> tuple[Query, ...]:
        """The queries inside."""
        return (self.query, self.by) if isinstance(self.by, Query) else (self.query,)

    def _usual(self) -> Mapping[str, Any]:
        return {"depth": 200}


def check_size(query: Query) -> None:
    """Refuse a query that is nested too deeply or has too many parts (O3)."""
    depth, parts, level = 0, 0, [query]
    while level:
        depth, parts = depth + 1, parts + len(level)
        if depth > MAX_DEPTH:
            refuse(f"the query is nested deeper than {MAX_DEPTH} levels; flatten it")
        if parts > MAX_PARTS:
            refuse(f"the query has more than {MAX_PARTS} parts")
        level = [part for each in level for part in each.parts]
