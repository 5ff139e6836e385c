"""What may a user search for? Queries as values: made once, compared, kept, written down, nested.

    Near, Like, Context     by vectors, texts and examples
    Text, Sparse, Late      by words, by weights, by many vectors a row
    Fuse, Rerank            what others found, put together or put in another order
    Decay, Field            boosts: what is added to a score

Invariants:
  O1  a query never changes, and equal queries have equal hashes and equal JSON (written.py);
  O2  what a query is made of is checked when it is made, in words that name the argument; whether it fits
      a collection is seen when it is asked;
  O3  no query is nested deeper than MAX_DEPTH or has more than MAX_PARTS parts in all: no input meets
      Python's own limits.

Rejected: builders (`search(...).where(...).limit(...)`). A half-built query is no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Final, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.query.numbers import Numbers, Vector, given_numbers

MAX_DEPTH: Final = 16
MAX_PARTS: Final = 256
MAX_EXAMPLES: Final = 1_000
MAX_TEXT_CHARS: Final = 1 << 20
MAX_WEIGHTS: Final = 100_000
MAX_RANKED: Final = 100_000  # a depth, at most
MAX_WEIGHT: Final = 1e30  # of a part, a field or a boost: so that scores stay finite
MAX_BOOSTS: Final = 64  # of one search
METHODS: Final = ("rrf", "weighted", "relative")
STRATEGIES: Final = ("average", "best")
TRANSFORMS: Final = ("linear", "log1p")


class Value:
    """Something immutable that is what its fields are."""

    __slots__ = ("_hash",)
    _hash: int
    _names: ClassVar[tuple[str, ...]] = ()
    _first: ClassVar[int] = 1  # so many fields are shown without their names

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._names)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} never changes: make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} never changes: make another one")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self._fields(), other._fields()
        return mine == theirs and _kinds(mine) == _kinds(theirs)

    def __hash__(self) -> int:
        try:
            found = self._hash
        except AttributeError:
            found = hash((type(self).__name__, self._fields()))
            object.__setattr__(self, "_hash", found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), dict(zip(self._names, self._fields(), strict=True)))

    def __repr__(self) -> str:
        usual = self._usual()
        shown = []
        for at, (name, value) in enumerate(zip(self._names, self._fields(), strict=True)):
            if name in usual and value == usual[name]:
                continue
            written = _written(value)
            shown.append(written if at < self._first else f"{name}={written}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _usual(self) -> Mapping[str, Any]:
        return {}


def _remade(kind: type[Value], fields: dict[str, Any]) -> Value:
    made = kind.__new__(kind)
    made._set(**fields)
    return made


def _kinds(value: Any) -> Any:
    """Whether numbers are ints, floats or bools: 1, 1.0 and True are equal to Python, and no ids here."""
    if isinstance(value, tuple):
        return tuple(map(_kinds, value))
    return type(value).__name__ if isinstance(value, bool | int | float) else None


def _written(value: Any) -> str:
    if isinstance(value, tuple) and value and all(isinstance(each, Frozen) for each in value):
        return "{" + ", ".join(f"{each[0]!r}: {each[1]!r}" for each in value[:8]) + _more(value, 8) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_written, value[:8])) + _more(value, 8) + "]"
    if isinstance(value, str) and len(value) > 80:
        return repr(value[:79] + "…")
    if callable(value) and not isinstance(value, Value):
        return str(getattr(value, "__name__", type(value).__name__))
    return repr(value)


def _more(value: tuple[Any, ...], shown: int) -> str:
    return f", … {len(value) - shown:,} more" if len(value) > shown else ""


class Frozen(tuple[Any, Any]):
    """One entry of a mapping, as a value."""

    __slots__ = ()


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


class ById(Value):
    """The row with this id, as an example: "more like this". The row itself is left out of the hits.

    >>> import vecdb
    >>> from vecdb.query import Near
    >>> c = vecdb.open().create_collection("c", dim=2)
    >>> _ = c.add(["a", "b", "c"], [[1, 0], [1, 0.1], [0, 1]])
    >>> c.search(Near(vecdb.ById("a"))).ids
    ['b', 'c']
    """

    __slots__ = ("id",)
    _names = ("id",)
    id: str | int

    def __init__(self, id: Any) -> None:
        self._set(id=given_id("ById", id))


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
        pairs = _scalar(pairs)
        if isinstance(pairs, str) or not isinstance(pairs, Iterable):
            refuse(f"Context: pairs is a {type(pairs).__name__}; give [(positive, negative), ...]")
        found = []
        for at, pair in enumerate(pairs):
            if at >= MAX_EXAMPLES:
                refuse(f"Context: more than {MAX_EXAMPLES:,} pairs")
            two = _listed(pair)
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
        fields = _scalar(fields)
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
            listed = _listed(weights)
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
            f"{name}={_written(getattr(self, name))}"
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


# --- boosts --------------------------------------------------------------------------------------


class Boost(Value):
    """What is added to a score: `boost=[Decay(...), Field(...)]`."""

    __slots__ = ()


class Decay(Boost):
    """A boost that fades with a value's distance from `origin`: weight · 0.5 ** (distance / scale).

    For numbers; dates (`origin` a datetime with zone or "now", `scale` a timedelta or seconds); and Geo
    fields (`origin` (lat, lon), `scale` in km). A row without the field gets nothing.

    >>> from vecdb.query import Decay
    >>> Decay("year", 2026, 5, weight=0.2)
    Decay('year', 2026, 5.0, weight=0.2)
    """

    __slots__ = ("field", "origin", "scale", "weight")
    _names = ("field", "origin", "scale", "weight")
    _first = 3
    field: str
    origin: Any
    scale: float
    weight: float

    def __init__(self, field: str, origin: Any, scale: Any, weight: float = 1.0) -> None:
        if hasattr(scale, "total_seconds"):
            scale = scale.total_seconds()
        size = given_number("Decay: scale", scale)
        if size <= 0:
            refuse(f"Decay: scale={scale!r:.40}: give a number above 0")
        self._set(
            field=given_name("Decay: field", field, needed=True), origin=_origin(origin), scale=size,
            weight=given_weight("Decay: weight", weight),
        )  # fmt: skip

    def _usual(self) -> Mapping[str, Any]:
        return {"weight": 1.0}


class Field(Boost):
    """A boost by a number of the row: weight · value, or weight · log(1 + value) with `transform="log1p"`.

    A row without the field, or with no number there, gets nothing; log1p of what is below 0 is 0.

    >>> from vecdb.query import Field
    >>> Field("likes", 0.1, transform="log1p")
    Field('likes', 0.1, transform='log1p')
    """

    __slots__ = ("field", "transform", "weight")
    _names = ("field", "weight", "transform")
    _first = 2
    field: str
    weight: float
    transform: str

    def __init__(self, field: str, weight: float, transform: str = "linear") -> None:
        one_of("Field: transform", transform, TRANSFORMS)
        self._set(
            field=given_name("Field: field", field, needed=True),
            weight=given_weight("Field: weight", weight), transform=transform,
        )  # fmt: skip

    def _usual(self) -> Mapping[str, Any]:
        return {"transform": "linear"}


def _origin(origin: Any) -> Any:
    if isinstance(origin, str):
        if origin != "now":
            refuse(f"Decay: origin={origin!r:.40}: a str is 'now'; give a datetime for another time")
        return origin
    if isinstance(origin, datetime):
        if origin.tzinfo is None or origin.utcoffset() is None:
            refuse("Decay: origin is a datetime without a zone; give one, as datetime.now(timezone.utc)")
        return origin
    if isinstance(origin, list | tuple):
        if len(origin) != 2:
            refuse("Decay: origin: a place is (latitude, longitude)")
        lat, lon = (given_number("Decay: origin", each) for each in origin)
        if not (-90 <= lat <= 90 and -180 <= lon <= 180):
            refuse(f"Decay: origin=({lat:g}, {lon:g}): latitude is -90 to 90, longitude -180 to 180")
        return lat, lon
    if isinstance(origin, bool) or not isinstance(origin, int | float):
        refuse(f"Decay: origin is a {type(origin).__name__}; give a number, a datetime, 'now' or (lat, lon)")
    given_number("Decay: origin", origin)
    return origin


# --- what is given -------------------------------------------------------------------------------


def given_example(where: str, value: Any, *, ids: bool = False) -> Any:
    """A vector, a text or a ById; `ids`: an int is one, too."""
    if isinstance(value, ById):
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS:
            refuse(f"{where}: a text of {len(value):,} characters; the limit is {MAX_TEXT_CHARS:,}")
        return given_text(where, value)
    if isinstance(value, int) or (hasattr(value, "item") and not getattr(value, "shape", None)):
        if ids:
            return ById(value)
        refuse(f"{where}: {value!r:.40} is a number; give a vector, a text, or vecdb.ById({value!r:.40})")
    return given_numbers(where, value, (1,))


def given_examples(where: str, values: Any) -> tuple[Any, ...]:
    """A list of examples; a single one is a list of one."""
    values = _scalar(values)
    if isinstance(values, str | int | ById) or _is_vector(values):
        values = [values]
    if not hasattr(values, "__iter__") or isinstance(values, bytes | bytearray | memoryview | Mapping):
        refuse(f"{where} is a {type(values).__name__}; give a list of ids, vectors or texts")
    found = []
    for at, each in enumerate(values):
        if at >= MAX_EXAMPLES:
            refuse(f"{where} has more than {MAX_EXAMPLES:,} examples")
        found.append(given_example(f"{where}: item {at}", each, ids=True))
    return tuple(found)


def _listed(values: Any) -> list[Any] | None:
    """What stands in an order, as a list: None for texts, bytes, sets and mappings."""
    if isinstance(values, list | tuple):
        return list(values)
    return list(values) if len(getattr(values, "shape", ())) > 0 else None


def _is_vector(values: Any) -> bool:
    """An array (d,), or a list of floats: not a list of ids, which are ints."""
    if isinstance(values, Numbers):
        return True
    shape = getattr(values, "shape", None)
    if shape is not None:
        return len(shape) == 1
    return isinstance(values, list | tuple) and bool(values) and any(type(v) is float for v in values)


def _scalar(value: Any) -> Any:
    """A numpy scalar, or an array without dimensions, as Python has it; anything else as it is."""
    if isinstance(value, str | int | float) or not hasattr(value, "item") or getattr(value, "shape", None):
        return value
    return value.item()


def given_id(where: str, id: Any) -> str | int:
    """An id as Python has it."""
    id = _scalar(id)
    if isinstance(id, bool) or not isinstance(id, str | int):
        refuse(f"{where}: {id!r:.60} is a {type(id).__name__}; an id is a str or an int")
    return given_text(where, id) if isinstance(id, str) else int(id)


def given_text(where: str, text: str) -> str:
    """A text that can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        refuse(f"{where}: a lone surrogate at position {error.start}; it is no text")
    return str(text)


def given_name(where: str, name: Any, *, needed: bool = False) -> Any:
    """A name, or None where none is needed."""
    if name is None and not needed:
        return None
    if not isinstance(name, str) or not name:
        refuse(f"{where}={name!r:.60}: give a name")
    return given_text(where, name)


def given_number(where: str, value: Any) -> float:
    """A finite number."""
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{where}={value!r:.40}: give a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        refuse(f"{where}={value!r:.40}: give a finite number")
    return found


def given_weight(where: str, value: Any) -> float:
    """A number that scores can be multiplied by, and stay finite."""
    found = given_number(where, value)
    if abs(found) > MAX_WEIGHT:
        refuse(f"{where}={value!r:.40}: give a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
    return found


def given_weights(where: str, weights: Any, kinds: Any) -> tuple[Any, ...]:
    """A mapping as entries in a settled order."""
    if not isinstance(weights, Mapping):
        refuse(f"{where} is a {type(weights).__name__}; give a dict")
    if len(weights) > MAX_WEIGHTS:
        refuse(f"{where} has {len(weights):,} entries; the limit is {MAX_WEIGHTS:,}")
    found = []
    for key, weight in weights.items():
        key = _scalar(key)
        if isinstance(key, bool) or not isinstance(key, kinds):
            refuse(f"{where}: {key!r:.60} is a {type(key).__name__} where a name belongs")
        if isinstance(key, str):
            given_text(where, key)
        elif not -(1 << 63) <= key < 1 << 63:
            refuse(f"{where}: a token of more than 64 bits; give an int of 64 bits, or a str")
        found.append(Frozen((key, given_number(f"{where}: {key!r:.60}", weight))))
    return tuple(sorted(found, key=lambda entry: (isinstance(entry[0], str), entry[0])))


def given_depth(where: str, depth: Any) -> int | None:
    """How many of the best count."""
    if depth is None:
        return None
    depth = _scalar(depth)
    if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= MAX_RANKED:
        refuse(f"{where}: depth={depth!r:.40}: give an int from 1 to {MAX_RANKED:,}")
    return depth


def one_of(where: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse what is none of these."""
    if not isinstance(value, str) or value not in allowed:
        refuse(f"{where}={value!r:.40}: choose one of {', '.join(map(repr, allowed))}")


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


def refuse(message: str) -> NoReturn:
    """Raise InvalidArgument."""
    raise InvalidArgument(message)
