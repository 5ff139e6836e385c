"""What would logged searches answer with another model's vectors?

The collection is copied into a private database, with one vector field's vectors made anew: by another
encoder from the texts (cached in the collection's file, where a later `reembed` finds them), or by an adapter
from the stored ones. Every logged search is then asked of the copy, exactly, and compared with what it
showed then.

Invariants:
  O1  whatever can be searched can be replayed: filters, full text, fusion, groups and boosts work in the copy
      as in the collection, and only the one field's vectors differ;
  O2  answers are exact: what differs is the model, not an approximation;
  O3  what another model cannot answer is told, with the reason, and never left out in silence: plain vectors
      under another encoder, and radii, which are distances of one model;
  O4  the collection is read as of one commit and stays as it is; but for the cache of embeddings.

Rejected: ranking by a matrix product and the filter's rows, without a copy. It is faster, and answers none of
the searches that are more than a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vecdb.collection.handle import source_of
from vecdb.declare import FullText, SparseVector, Vector, declare
from vecdb.errors import EncoderMismatch, InvalidArgument, VecdbError
from vecdb.progress import reporter, stopper
from vecdb.query.numbers import Numbers
from vecdb.query.objects import Context, Fuse, Like, Near, Query, Rerank
from vecdb.standing.queue import MAX_SHOWN
from vecdb.standing.replay import Replayed, ReplayReport

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.standing.log import LogEntry

    Floats = npt.NDArray[np.float32]

STEP: Final = 512  # rows that are copied at once
LEAST_M: Final = 4  # of a graph that no exact search walks
LEAST_WIDTH: Final = 8
APPROXIMATE: Final = ("recall", "ef", "exact", "with_vectors")  # options that an exact answer does not have


class Model(NamedTuple):
    """What another model makes of one field: of its texts, or of its stored vectors."""

    name: str
    field: str
    declared: Any  # the field as it is
    dim: int
    metric: str
    encoder: Any  # for texts that are searched; None where the field has none
    of_texts: Callable[[list[str]], Floats] | None  # None: made of the stored vectors
    of_stored: Callable[[Floats], Floats] | None
    of_queries: Callable[[Floats], Floats] | None  # None: a plain vector cannot be made anew
    others: dict[str, Callable[[Floats], Floats]] = {}  # the same of other fields, where they have adapters


def replayed(
    collection: Any,
    entries: Iterable[LogEntry],
    where: Any,
    *,
    encoder: Any,
    adapter: Any,
    using: str | None,
    progress: Any,
    cancel: Any,
) -> ReplayReport:
    """Run logged searches against another model; see `Collection.replay`."""
    chosen = None if where is None else collection._filter(where)
    stopped = stopper(cancel)
    model = _model(collection, encoder, adapter, using)
    model = model._replace(others=_adapted_others(collection, model.field))
    found: list[Replayed] = []
    failed: list[tuple[LogEntry, str]] = []
    with (
        reporter(progress, "replay") as report,
        _copied(collection, model, report, stopped) as (copy, left_out),
    ):
        for entry in entries:
            try:
                if stopped():
                    raise InvalidArgument("cancelled")
                options = _options(entry, chosen)
                hits = copy.search(_asked(entry, model), entry.k, **options)
            except VecdbError as error:
                failed.append((entry, str(error)))
            except MemoryError:
                raise
            except Exception as error:  # of the encoder or adapter
                failed.append((entry, f"{type(error).__name__}: {error}"))
            else:
                found.append(Replayed(entry, entry.shown, hits.ids[:MAX_SHOWN]))
    return ReplayReport(found, failed, model.name, left_out)


# --- the other model ------------------------------------------------------------------------------


def _model(collection: Any, encoder: Any, adapter: Any, using: str | None) -> Model:
    """What is asked for, checked against the field."""
    schema = collection.schema
    if using is None and adapter is not None and getattr(adapter, "using", None) in schema.vectors:
        using = adapter.using
    declared = _field_of(collection, schema, using, encoder)
    field = next(name for name, each in schema.vectors.items() if each is declared)
    if not declared.graphed:
        raise InvalidArgument(f"using={field!r}: another model is compared by one dense vector a row")
    if declared.dtype == "b1":
        raise InvalidArgument(f"using={field!r}: its vectors are bits, which no encoder or adapter makes")
    if adapter is not None:
        _check_adapter(adapter, encoder, declared, field)
    if encoder is None:
        return _adapted(collection, adapter, declared, field)
    from vecdb import encoders

    other = encoders.get(encoder)
    if adapter is None:
        return Model(
            f"encoder {other.name!r}", field, declared, other.dim, other.metric, other,
            lambda texts: _embedded(collection, other, texts), None, None,
        )  # fmt: skip
    made = _composed(
        f"{other.name:.150}, adapted", adapter, lambda texts: adapter(other.encode_documents(texts)),
        lambda texts: adapter(other.encode_queries(texts)),
    )  # fmt: skip
    return Model(
        f"encoder {other.name!r} and adapter {adapter.fingerprint[:8]}", field, declared, adapter.dim,
        adapter.metric, made, lambda texts: adapter(_embedded(collection, other, texts)), None, None,
    )  # fmt: skip


def _field_of(collection: Any, schema: Any, using: str | None, encoder: Any) -> Any:
    """The field that is meant: with an encoder the one that has one, where that says it."""
    if using is None and encoder is not None:
        encoded = [each for each in schema.vectors.values() if each.encoder is not None]
        if len(encoded) == 1:
            return encoded[0]
    return collection._using(schema, using, graph=True)


def _adapted(collection: Any, adapter: Any, declared: Any, field: str) -> Model:
    """The stored vectors, and queries, through an adapter."""
    made = None
    if declared.encoder is not None:
        made = _composed(
            f"{declared.encoder:.150}, adapted", adapter,
            lambda texts: _never(texts), lambda texts: adapter(collection._encode_queries(declared, texts))
        )  # fmt: skip
    return Model(
        f"adapter {adapter.fingerprint[:8]}", field, declared, adapter.dim, adapter.metric, made, None,
        adapter, lambda vectors: adapter(collection._query(vectors, declared)[0]),
    )  # fmt: skip


def _adapted_others(collection: Any, field: str) -> dict[str, Callable[[Floats], Floats]]:
    """What adapters make of queries of fields but one: the copy has their vectors as they are stored."""

    def images(declared: Any, vectors: Floats) -> Floats:
        found: Floats = collection._query(vectors, declared)[0]
        return found

    return {
        name: partial(images, each)
        for name, each in collection.schema.vectors.items()
        if each.adapters and name != field
    }


def _never(texts: list[str]) -> Floats:
    """Rows of the copy come with vectors."""
    raise InvalidArgument(f"{len(texts):,} texts have no vectors to be mapped")


def _composed(name: str, adapter: Any, documents: Any, queries: Any) -> Any:
    from vecdb import encoders

    return encoders.function(documents, queries=queries, name=name, dim=adapter.dim, metric=adapter.metric)


def _check_adapter(adapter: Any, encoder: Any, declared: Any, field: str) -> None:
    """Whether an adapter is one, and for such vectors."""
    needed = ("dim_in", "dim", "metric", "fingerprint")
    if not callable(adapter) or not all(hasattr(adapter, name) for name in needed):
        raise InvalidArgument(f"adapter is a {type(adapter).__name__}; give what vecdb.fit_adapter returned")
    dim, space, whose = declared.dim, declared.space, f"field {field!r}"
    metric = declared.metric
    if encoder is not None:
        from vecdb import encoders

        other = encoders.get(encoder)
        dim, space, metric, whose = other.dim, other.fingerprint, other.metric, f"encoder {other.name!r}"
    if adapter.dim_in != dim:
        raise InvalidArgument(f"the adapter takes {adapter.dim_in} dimensions; {whose} has {dim}")
    if adapter.metric != metric:
        raise InvalidArgument(f"the adapter is for metric {adapter.metric!r}; {whose} has {metric!r}")
    learned = getattr(adapter, "encoder_fingerprint", None)
    if learned is not None and learned != space:
        raise EncoderMismatch(
            f"the adapter learned on vectors with fingerprint {learned:.80}; those of {whose} have {space}: "
            "fit one on these vectors"
        )


def _embedded(collection: Any, encoder: Any, texts: list[str]) -> Floats:
    """Document vectors by way of the file's cache, where the file may be written."""
    from vecdb.embedding import embed
    from vecdb.encoders.base import check_vectors

    db = collection._db
    if db._options.mode == "r":
        who = f"encoder {encoder.name!r}"
        return check_vectors(encoder.encode_documents(texts), len(texts), encoder.dim, who)
    return embed(db, encoder, texts)


# --- the copy -------------------------------------------------------------------------------------


@contextmanager
def _copied(
    collection: Any, model: Model, report: Any, stopped: Callable[[], bool]
) -> Iterator[tuple[Any, int]]:
    """A private collection with the same rows and the other model's vectors; how many rows have none."""
    from vecdb.database import open

    schema = collection.schema
    texts = {name: FullText(each.language, each.stopwords) for name, each in schema.fulltext.items()}
    declared, encoders = declare(schema.name, dict(_fields(collection, model)), Vector(), None, texts)
    with open() as private, collection._db.snapshot() as snapshot:
        frozen = snapshot[collection.name]
        copy = private._create(replace(declared, fields=schema.fields), encoders)
        left_out, done, total = 0, 0, len(frozen)
        for ids in _in_order(frozen, model.field):
            if stopped():
                break
            try:
                left_out += _copy(frozen, copy, ids, model)
            except (VecdbError, MemoryError):
                raise
            except Exception as error:  # of the encoder or adapter
                raise InvalidArgument(
                    f"{model.name} failed on rows {done:,} to {done + len(ids) - 1:,} of {total:,}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            done += len(ids)
            report(done, total)
        yield copy, left_out
    if collection._db._local.made and collection._db._local.batch is None:
        with collection._db._batch():
            pass  # what is left of the cache's batch


def _fields(collection: Any, model: Model) -> Iterator[tuple[str, Any]]:
    """The vector fields of the copy."""
    for name, each in collection.schema.vectors.items():
        if each.sparse:
            yield name, SparseVector()
        elif name == model.field:
            yield name, Vector(
                None if model.encoder is not None else model.dim, metric=model.metric, encoder=model.encoder,
                source=each.source if model.encoder is not None else None, M=LEAST_M,
                ef_construction=LEAST_WIDTH,
            )  # fmt: skip
        else:
            yield name, Vector(
                each.dim, metric=each.metric, dtype=each.dtype, M=LEAST_M, ef_construction=LEAST_WIDTH,
                multi=each.multi, **_encoder_of(collection, each),
            )  # fmt: skip


def _encoder_of(collection: Any, declared: Any) -> dict[str, Any]:
    """Another field's encoder, where it is at hand."""
    if declared.encoder is None:
        return {}
    if declared.adapters:
        return {"encoder": _composed(
            f"{declared.encoder:.150}, adapted", declared, _never,
            lambda texts: collection._encode_queries(declared, texts),
        )}  # fmt: skip
    try:
        return {"encoder": collection._encoder(declared), "source": declared.source}
    except VecdbError:
        return {}


def _in_order(frozen: Any, field: str) -> Iterator[list[Any]]:
    """The ids of all rows, some at a time: in the order of their numbers, by which ties are broken."""
    with frozen._reading() as (txn, view):
        taking = frozen._taking(txn, view, field, None)
        ids = taking.ids(taking.slots)
    known = set(ids)
    ids += [record.id for record in frozen.scan() if record.id not in known]
    for at in range(0, len(ids), STEP):
        yield ids[at : at + STEP]


def _copy(frozen: Any, copy: Any, ids: list[Any], model: Model) -> int:
    """Copy some rows; how many of them have no vector of the other model."""
    records = frozen.get(ids)
    given: dict[str, list[Any]] = {name: [None] * len(ids) for name in copy.schema.vectors}
    for at, record in enumerate(records):
        for name, vector in record.vectors.items():
            if name != model.field:
                given[name][at] = vector
    for at, vector in _made(records, model):
        given[model.field][at] = vector
    texts, metadata = [record.text for record in records], [record.metadata for record in records]
    copy.add(ids, given, texts=texts, metadata=metadata)
    return sum(vector is None for vector in given[model.field])


def _made(records: list[Any], model: Model) -> Iterator[tuple[int, Any]]:
    """The other model's vectors of rows, with the rows' places; none for a row that it can make none of."""
    if model.of_texts is None:
        assert model.of_stored is not None
        there = [at for at, record in enumerate(records) if model.field in record.vectors]
        if there:
            stored = np.stack([records[at].vectors[model.field] for at in there])
            yield from zip(there, model.of_stored(np.asarray(stored, np.float32)), strict=True)
        return
    read = [source_of(model.declared, record.metadata, record.text) for record in records]
    texts = [(at, text) for at, text in enumerate(read) if text is not None]
    try:
        made = model.of_texts([text for _, text in texts]) if texts else ()
        yield from ((at, vector) for (at, _), vector in zip(texts, made, strict=True))
    except InvalidArgument:  # one text that it cannot encode, as an empty one: the others by themselves
        for at, text in texts:
            with suppress(InvalidArgument):
                yield at, model.of_texts([text])[0]


# --- the searches ---------------------------------------------------------------------------------


def _options(entry: LogEntry, chosen: Any) -> dict[str, Any]:
    """The options of a search of the copy (O2, O3)."""
    options = {name: value for name, value in entry.options.items() if name not in APPROXIMATE}
    if options.get("radius") is not None:
        raise InvalidArgument(
            f"radius={options['radius']:g}: a distance of the model that it was logged with"
        )
    options["where"] = entry.where if chosen is None else chosen
    options["exact"] = True
    return options


def _asked(entry: LogEntry, model: Model) -> Any:
    """A query for the copy: vectors for the field are mapped, texts are encoded there."""
    asked, using = entry.asked, entry.options.get("using")
    if isinstance(asked, Query):
        return _translated(asked, model, using)
    return asked if isinstance(asked, str) else _example(asked, model, using or model.field)


def _translated(query: Query, model: Model, using: str | None) -> Query:
    if isinstance(query, Fuse):
        parts = [_translated(each, model, using) for each in query.queries]
        return Fuse(*parts, method=query.method, weights=query.weights, depth=query.depth)
    if isinstance(query, Rerank):
        by = _translated(query.by, model, using) if isinstance(query.by, Query) else query.by
        return Rerank(_translated(query.query, model, using), by, query.depth)
    if not isinstance(query, Near | Like | Context):
        return query
    field = query.using or using or model.field
    if isinstance(query, Near):
        return Near(_example(query.x, model, field), query.using)
    if isinstance(query, Like):
        likes, dislikes = (
            [_example(x, model, field) for x in each] for each in (query.positive, query.negative)
        )
        return Like(likes, dislikes, strategy=query.strategy, using=query.using)
    return Context([tuple(_example(x, model, field) for x in pair) for pair in query.pairs], query.using)


def _example(x: Any, model: Model, field: str) -> Any:
    """A vector as the copy's field has it; ids and texts as they are."""
    made = model.of_queries if field == model.field else model.others.get(field)
    if isinstance(x, Numbers):
        found = np.frombuffer(x.data, x.dtype).reshape(x.shape)
    elif isinstance(x, tuple | np.ndarray):
        found = np.asarray(x)
    else:
        return x
    if made is not None:
        return made(np.asarray(found, np.float32))
    if field == model.field:
        raise InvalidArgument("a plain vector was searched for, which another encoder cannot make anew")
    return x
