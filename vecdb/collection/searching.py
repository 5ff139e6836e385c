"""What does every verb that ranks rows stand on?

Options become a `Request`, a query becomes float32 vectors, and a view with one of its vector fields
becomes the `Context` in which execute.py runs a search.

Invariants:
  Q1  options are refused before anything is read, in words that name the option and what it may be;
  Q2  numpy's scalars are numbers like Python's, and bools of either are none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import numpy as np

from vecdb.arrays import checked, given_query
from vecdb.collection.handle import Handle, Where, parse_record, refuse
from vecdb.encoders.base import check_vectors
from vecdb.errors import EncoderMismatch, NotFound
from vecdb.execute import Context, Request
from vecdb.index.effort import WIDEST
from vecdb.index.view import Cut
from vecdb.query.filter import Filter
from vecdb.storage.schema import Schema, VectorField

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.types import Hits

MAX_K: Final = 100_000
FAR: Final = float(np.finfo(np.float32).max)


class Options(NamedTuple):
    """What a search was asked to do, as it was given."""

    k: Any = 10
    where: Any = None  # a Filter, or None
    recall: Any = 0.95
    ef: Any = None
    exact: Any = False
    radius: Any = None
    offset: Any = 0
    with_vectors: Any = False


class Searching(Handle):
    """What the verbs that rank rows share."""

    __slots__ = ()

    def _request(self, options: Options) -> Request:
        """The validated options, checked once each; Q1 (filters are equal only where they mean the same)."""
        if options.where is None or isinstance(options.where, Filter):
            try:
                return _plain_request(*options)
            except TypeError:  # unhashable: wrong anyway, and named below
                pass
        return _checked_request(options)

    def _searched(self, schema: Schema, using: Any, query: Any) -> tuple[str, VectorField]:
        """The vector field that a search walks, and its name."""
        declared = self._using(schema, using, encoder=is_text(query), graph=True)
        name = next(n for n, each in schema.vectors.items() if each is declared)
        if declared.multi:
            refuse(f"using={name!r}: a field with multi=True is searched by vecdb.query.Late(matrix)")
        if declared.sparse:
            refuse(f"using={name!r}: sparse vectors are searched by vecdb.query.Sparse({{token: weight}})")
        return name, declared

    def _query(self, query: Any, declared: VectorField) -> tuple[npt.NDArray[np.float32], bool]:
        """A query as float32: (d,) and True, or (b, d) and False."""
        if isinstance(query, str):
            return self._encode_queries(declared, [query])[0], True
        if is_text(query):
            return self._encode_queries(declared, query), False
        if isinstance(query, list | tuple) and any(isinstance(each, str) for each in query):
            _refuse_mixture(query)
        if not declared.adapters:
            return given_query(query, declared, self.name)
        found, single = given_query(query, declared.as_given(), self.name)
        return self._images(declared, found), single

    def _as_asked(self, query: Any, vectors: Any, declared: VectorField) -> Any:
        """What is logged of a query: texts, and vectors as they were given, before any adapter."""
        if is_text(query):
            return query
        return given_query(query, declared.as_given(), self.name)[0] if declared.adapters else vectors

    def _encode_queries(self, declared: VectorField, texts: list[str]) -> npt.NDArray[np.float32]:
        if declared.encoder is None:
            refuse(f"query is a text, but the vector field has no encoder; {self._with_encoders()}")
        return self._encoded_by(self._encoder(declared), declared, texts)

    def _encoded_by(self, encoder: Any, declared: VectorField, texts: list[str]) -> npt.NDArray[np.float32]:
        """Texts as queries (n, d) in a field."""
        made = encoder.encode_queries(texts)
        if len(texts) == 1 and getattr(made, "ndim", 2) == 1:
            made = made[None]  # of one text some give (d,)
        found = check_vectors(made, len(texts), declared.given_dim, f"encoder {encoder.name!r}")
        return self._images(declared, checked(found, declared.metric))

    def _at_hand(self, declared: VectorField) -> Any:
        """A field's encoder, None where it is not at hand."""
        try:
            return self._encoder(declared)
        except EncoderMismatch:
            return None

    def _made_ready(self, ready: Any, declared: VectorField) -> Any:
        """A search that was made ready, for queries as they are given."""
        if ready is None or not declared.adapters:
            return ready
        return Adapted(ready, partial(self._images, declared), declared.given_dim)

    def _with_encoders(self) -> str:
        names = [n for n, each in self.schema.vectors.items() if each.encoder is not None]
        if not names:
            return "give vectors, or create the collection with encoder="
        return f"fields with one: {', '.join(map(repr, names))}"

    def _log(self, query: Any, options: Any, hits: Hits) -> None:
        """Note a search in the search log, where this collection's are logged; see standing/queue.py."""
        db = self._db
        note = (db._logged or {}).get(self._cid)
        if note is not None and self._live():
            note(self._cid, query, options, hits)

    def _log_many(self, asked: Any, request: Request, using: Any, found: Any) -> None:
        """The same of a batch of queries, as `_as_asked` has them."""
        for each, hits in zip(asked, found, strict=True):
            self._log(each, request.as_asked(using), hits)

    def _chosen(self, where: Where | None) -> Filter | None:
        return None if where is None else self._filter(where)

    def _context(
        self, txn: Any, view: Any, name: str, declared: VectorField, where: Any, matches: Any = None,
        cut: Cut | None = None,
    ) -> Context:  # fmt: skip
        """Where a search runs; `matches` stands for the usual way from a filter to its rows, `cut`."""
        db = self._db
        field = view.vectors.get(declared.number)
        if field is None:
            raise NotFound(f"vector field {name!r} of collection {self.name!r} was dropped meanwhile")
        if where is not None and matches is None:
            matches = self._matches(txn, view)
        snapshot = db._env.snapshot(txn) if self._live() else None
        held = self._holders(txn, view, declared)
        return Context(
            view.schema.name, self._cid, name, txn, view, view.schema.layout(declared), field, held,
            matches, parse_record, db._threads, snapshot, cut,
        )  # fmt: skip


class Adapted:
    """A search made ready in a field with adapters: queries go through them first."""

    __slots__ = ("_dim", "_images", "plain")

    def __init__(self, ready: Any, images: Callable[[Any], Any], dim: int) -> None:
        self.plain = ready  # for queries that went through them before
        self._images = images
        self._dim = dim

    @property
    def held_bytes(self) -> int:
        """Bytes that it keeps."""
        return int(self.plain.held_bytes)

    def answer(self, query: Any) -> Hits | None:
        """The hits of a query (d,) of float32; None where the usual way must answer."""
        if type(query) is not np.ndarray or query.shape != (self._dim,) or query.dtype != np.float32:
            return None
        square = float(query.dot(query))
        if not 0 < square < np.inf:
            return None
        found: Hits | None = self.plain.answer(self._images(query))
        return found


def is_text(query: Any) -> bool:
    """Whether a query is a text or a list of them."""
    if isinstance(query, str):
        return True
    return isinstance(query, list) and bool(query) and all(isinstance(q, str) for q in query)


def _refuse_mixture(query: Any) -> NoReturn:
    texts = [isinstance(each, str) for each in query]
    if all(texts):
        refuse(f"query is a {type(query).__name__} of texts; give a list of str")
    text, other = texts.index(True), texts.index(False)
    refuse(
        f"query: item {text} is a text and item {other} a {type(query[other]).__name__}; give texts "
        "and vectors in searches of their own"
    )


# --- options -----------------------------------------------------------------------------


def may_be_ready(
    k: Any, where: Any, using: Any, recall: Any, ef: Any, exact: Any, radius: Any, offset: Any
) -> bool:
    """Whether these options can be a key that no invalid ones are equal to (True is not 1)."""
    return (
        (type(k) is int or k is None)
        and type(exact) is bool
        and type(recall) is float
        and type(offset) is int
        and (where is None or isinstance(where, Filter))
        and (ef is None or type(ef) is int)
        and (radius is None or type(radius) is float or type(radius) is int)
        and (using is None or type(using) is str)
    )


@lru_cache(maxsize=256, typed=True)  # typed: True is not 1
def _plain_request(*options: Any) -> Request:
    return _checked_request(Options(*options))


def _checked_request(options: Options) -> Request:
    k, where, recall, ef, exact, radius, offset, with_vectors = options
    if k is not None and (not _is_int(k) or not 1 <= k <= MAX_K):
        refuse(f"k={k!r:.40}: give an int from 1 to {MAX_K:,}, or None for every match")
    if not _is_int(offset) or not 0 <= offset <= MAX_K:
        refuse(f"offset={offset!r:.40}: give an int from 0 to {MAX_K:,}")
    if k is not None and k + offset > MAX_K:
        refuse(
            f"k={k} and offset={offset}: together at most {MAX_K:,}; k=None gives every match in "
            "order, of which a slice is any page"
        )
    if ef is not None and (not _is_int(ef) or not 1 <= ef <= WIDEST):
        refuse(f"ef={ef!r:.40}: give an int from 1 to {WIDEST:,}")
    if not _is_number(recall) or not 0 < recall <= 1:
        refuse(f"recall={recall!r:.40}: give a number above 0 and at most 1")
    if radius is not None and (not _is_number(radius) or not radius > -np.inf):
        refuse(f"radius={radius!r:.40}: give the largest distance, a number from 0; None: any")
    return Request(
        None if k is None else int(k),
        where,
        float(recall),
        None if ef is None else int(ef),
        _flag("exact", exact),
        None if radius is None else _as_float32(radius),
        int(offset),
        _flag("with_vectors", with_vectors),
    )


def check_radius(request: Request, metric: str) -> None:
    """Refuse a negative radius where no distance is negative: everywhere but under dot."""
    radius = request.radius
    if radius is not None and radius < 0 and metric != "dot":
        refuse(
            f"radius={radius:g}: distances under metric={metric!r} are from 0 on; give a number from 0"
        )


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _flag(name: str, value: Any) -> bool:
    """Whether a value is true; an array of several has no truth."""
    try:
        return bool(value)
    except ValueError:
        refuse(f"{name} is a {type(value).__name__} of several values; give True or False")


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(value == value)


def _as_float32(number: Any) -> float:
    """As distances are: compared with them, the number that was read from one includes it."""
    limited = max(-FAR, min(float(np.inf), _as_float(number)))
    with np.errstate(over="ignore"):
        return float(np.float32(limited))


def _as_float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:  # an int beyond every float
        return float(np.inf) if number > 0 else -FAR
