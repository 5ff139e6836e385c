"""What did the user declare a collection's vectors and its full text to be?

`Vector` is one declared vector field, `FullText` one field whose words are indexed; `declare` turns the
arguments of `create_collection` into a validated `Schema`, with the encoders that it names at hand.

The name "text" in `fulltext` always means the row's text, as in `matches(text, ...)`: then no row may have
a metadata key of that name. Rejected: to take it for a metadata field where `fulltext` is a dict. The same
filter would ask one thing in one collection and another in the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.fields import plain
from vecdb.storage.schema import (
    MAX_TEXTS,
    ONLY,
    TEXT,
    Schema,
    TextField,
    VectorField,
    check_name,
    validate,
)
from vecdb.storage.vectors import SPARSE
from vecdb.text import analysis


@dataclass(frozen=True, slots=True)
class Vector:
    """The declaration of a vector field, for `create_collection(vectors={name: Vector(...)})`.

    `dim`: length of the vectors in numbers, or bits; or `encoder`: a registered name or an encoder,
    which says it, reads the metadata field `source` (None: the row's text) and names the default of
    `metric` ("cosine", "l2", "dot"; "hamming" for bits). `dtype` of the stored vectors: "f32", "f16",
    "i8" (int8 arrays) or "b1" (bool or 0/1, or packed uint8). `quantization`: what the graph walks on;
    results are always ranked by the stored vectors. `M` and `ef_construction` as in HNSW.
    `multi=True` stores any number of vectors a row, which `vecdb.query.Late` searches by MaxSim.

    >>> import vecdb
    >>> db = vecdb.open()
    >>> films = db.create_collection(
    ...     "films", vectors={"plot": vecdb.Vector(3), "poster": vecdb.Vector(16, dtype="b1")}
    ... )
    >>> films.schema.vectors["poster"].metric
    'hamming'
    """

    dim: int | None = None
    _: KW_ONLY
    metric: str | None = None
    dtype: str = "f32"
    encoder: Any = None
    source: str | None = None
    quantization: str = "auto"
    M: int = 16
    ef_construction: int = 200
    multi: bool = False


@dataclass(frozen=True, slots=True)
class FullText:
    """How a field's words are indexed, for `create_collection(fulltext={name: FullText(...)})`.

    `language`: its Snowball stemmer (extra `text`) makes "kernels" and "kernel" one term, as in
    `FullText(language="english")`; None: words are found as they are written, in any case.
    `stopwords=True` leaves out the language's most common words. Words are Unicode's;
    Chinese, Japanese and Korean go by pairs of characters.

    >>> import vecdb
    >>> from vecdb import F
    >>> db = vecdb.open()
    >>> c = db.create_collection("c", dim=2, fulltext={"title": vecdb.FullText()})
    >>> _ = c.add("a", metadata={"title": "Fast kernels"})
    >>> c.count(F.title.matches("kernels")), c.count(F.title.matches("kern* -slow"))
    (1, 1)
    """

    language: str | None = None
    stopwords: bool = False


@dataclass(frozen=True, slots=True)
class SparseVector:
    """The declaration of a field of sparse vectors, for `create_collection(vectors={name: SparseVector()})`.

    Rows give `{token_or_int: weight}`: str tokens of 1 to 254 UTF-8 bytes or ints of 64 bits, weights finite
    as float32, those that are 0 left out, at most 100,000 entries. `vecdb.query.Sparse` searches by the dot
    product.

    >>> import vecdb
    >>> db = vecdb.open()
    >>> c = db.create_collection("c", vectors={"terms": vecdb.SparseVector()})
    >>> c.add(["a", "b"], [{"gpu": 1.5, 7: 0.25}, {"printer": 2}])
    ['a', 'b']
    >>> c["a"].vectors["terms"]
    {7: 0.25, 'gpu': 1.5}
    """


def declare(
    name: str, vectors: Any, only: Vector, metadata: Any, fulltext: Any = None
) -> tuple[Schema, dict[int, Any]]:
    """The validated schema of a new collection, and its encoders by field number.

    `only` carries the arguments of a collection that names no vector fields; `metadata` declares
    metadata fields, `fulltext` those whose words are indexed.
    """
    if vectors is None:
        if only.dim is None and only.encoder is None:
            _refuse("create_collection needs dim=, encoder= or vectors=")
        listed: Mapping[Any, Any] = {ONLY: only}
    else:
        listed = _listed(vectors, only)
    fields: dict[str, VectorField] = {}
    encoders: dict[int, Any] = {}
    for number, (field, declared) in enumerate(listed.items()):
        fields[field], encoder = field_of(field, declared, number)
        if encoder is not None:
            encoders[number] = encoder
    texts = {name: _analysed(name, each) for name, each in _texts(fulltext).items()}
    return validate(Schema(name, fields, len(fields), plain(metadata), texts)), encoders


def _texts(fulltext: Any) -> dict[str, FullText]:
    """The fields whose words are indexed, by name."""
    if fulltext is None or fulltext is False:
        return {}
    if fulltext is True:
        return {TEXT: FullText()}
    if isinstance(fulltext, str | bytes) or not isinstance(fulltext, Iterable):
        _refuse(
            f"fulltext={fulltext!r:.60}: give True for the row's text, a list of field names, or "
            "{name: vecdb.FullText(...)}"
        )
    listed = fulltext.items() if isinstance(fulltext, Mapping) else ((each, FullText()) for each in fulltext)
    found: dict[str, FullText] = {}
    for name, each in listed:
        if len(found) >= MAX_TEXTS:
            _refuse(f"fulltext has more than {MAX_TEXTS} fields")
        check_name("fulltext: a field's name", name)
        if each is FullText or each is True:
            each = FullText()
        if not isinstance(each, FullText):
            _refuse(f"fulltext[{name!r:.60}] is a {type(each).__name__}; give a vecdb.FullText(...)")
        if name in found:
            _refuse(f"fulltext: field {name!r:.60} is named twice")
        found[str(name)] = each
    return found


def _analysed(name: str, given: FullText) -> TextField:
    """A field's declaration as the file keeps it, with the analysis that is at hand."""
    if type(given.stopwords) is not bool:
        _refuse(f"fulltext[{name!r:.60}]: stopwords={given.stopwords!r:.60}: give True or False")
    try:
        found = analysis.of(given.language, given.stopwords)
    except InvalidArgument as error:
        _refuse(f"fulltext[{name!r:.60}]: {error}")
    return TextField(found.language, given.stopwords, found.fingerprint)


def _listed(vectors: Any, only: Vector) -> Mapping[Any, Any]:
    if not isinstance(vectors, Mapping):
        _refuse(
            f"vectors is a {type(vectors).__name__}; give {{name: vecdb.Vector(...)}}, or dim= for a "
            "collection with one vector field"
        )
    if only != Vector():
        _refuse("vectors= says all about the fields: leave out dim, metric, dtype, encoder, M and so on")
    if not vectors:
        _refuse("vectors={} names no field; a collection has one at least")
    return vectors


def field_of(name: object, declared: Any, number: int) -> tuple[VectorField, Any]:
    """A field's declaration as the file keeps it, and its encoder, None where it has none."""
    where = f"vector field {name!r:.60}"
    if isinstance(declared, SparseVector):
        return VectorField(number, 0, "dot", kind=SPARSE), None
    if not isinstance(declared, Vector):
        _refuse(f"{where}: {type(declared).__name__} where a vecdb.Vector or SparseVector belongs")
    dim, metric, encoder = declared.dim, declared.metric, None
    if declared.encoder is not None:
        from vecdb import encoders

        encoder = encoders.get(declared.encoder)
        if dim is not None and dim != encoder.dim:
            _refuse(f"dim={dim}: encoder {encoder.name!r} makes {encoder.dim}")
        dim, metric = encoder.dim, metric or encoder.metric
    if dim is None:
        _refuse(f"{where} needs dim or encoder=")
    default = "hamming" if declared.dtype == "b1" else "cosine"
    return VectorField(
        number, dim, metric or default, declared.dtype, declared.M, declared.ef_construction,
        None if encoder is None else encoder.name,
        None if encoder is None else encoder.fingerprint, declared.source,
        declared.multi, declared.quantization,
    ), encoder  # fmt: skip


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
