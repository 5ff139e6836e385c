"""Where does what is looked at come from: a collection's rows, or an encoder's vectors of a corpus?

Of a collection rows are read as of one commit: a sample, drawn by the seed, and the rows that judgements
name. Of an encoder and a corpus as many texts are drawn and encoded.

Rejected: reading everything. Shapes and shares are as well known from some thousand rows, and a laptop
encodes thirty texts a second with a small transformer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from vecdb.diagnosis.given import Asked, check_corpus, label_of, refuse, vectors_of
from vecdb.diagnosis.subject import Queries, Subject, draw
from vecdb.errors import EncoderMismatch, InvalidArgument, NotFound

if TYPE_CHECKING:
    from vecdb.encoders.base import Encoder

ROWS: Final = 5000  # of a collection
TEXTS: Final = 2000  # that must be encoded first
RELEVANT: Final = 5000  # rows that are added because a judgement names them
BATCH: Final = 256  # texts that are encoded at once
Told = Callable[[int, int | None], object]


def of_collection(
    papers: Any, asked: Asked | None, labels: Any, using: str | None, sample: int | None, seed: int,
    told: Told, stopped: Callable[[], bool],
) -> Subject:  # fmt: skip
    """What there is to look at of a collection's rows."""
    from vecdb.analysis.taking import taking
    from vecdb.collection.handle import parse_record
    from vecdb.storage import rows as stored_rows

    name, declared = papers._compared(papers.schema, using)
    if labels is not None and not isinstance(labels, str | Mapping):
        refuse(f"labels is a {type(labels).__name__}; give the name of a metadata field, or {{id: label}}")
    wanted = {id for grades in asked.qrels.values() for id in grades} if asked else set()
    with papers._reading() as (txn, view):
        there = taking(papers._context(txn, view, name, declared, None), None)
        total = len(there)
        if not total:
            refuse(f"collection {papers.name!r} has no row with a vector in {name!r}; add some first")
        rng = np.random.default_rng([seed, 0])
        chosen = there.slots[draw(total, sample or ROWS, rng)]
        drawn = len(chosen)
        extra = _slots_of(papers, txn, there.slots, sorted(wanted, key=repr)[:RELEVANT], set(chosen.tolist()))
        slots = np.concatenate([chosen, extra])
        vectors = _dense(there, slots)
        ids, payloads = stored_rows.read_many(txn.get, papers._cid, slots.tolist())
        without = int(view.state.live) - total
    records = [parse_record(payload) for payload in payloads]
    texts = [_text(record, declared.source) for record in records]
    subject = Subject(
        name=f"collection {papers.name!r}, {total:,} rows" + (f", field {name!r}" if using else ""),
        ids=ids, vectors=vectors, texts=texts if any(each is not None for each in texts) else None,
        total=total, drawn=drawn, metric=declared.metric, dtype=declared.dtype, without_vector=without,
        collection=papers, using=name, seed=seed,
        metadata=[record.metadata for record in records[:drawn]],
    )  # fmt: skip
    _encoder_of(papers, declared, subject)
    if declared.adapters:
        asked = _go_through(papers, declared, subject, asked)
    if isinstance(labels, str):
        subject.label_field = labels
        subject.labels = [label_of(_flat(record.metadata, labels)) for record in records[:drawn]]
    elif labels is not None:
        subject.labels = [label_of(labels.get(id)) for id in ids[:drawn]]
    _ask(subject, asked, papers, set(sorted(wanted, key=repr)[RELEVANT:]), told, stopped)
    return subject


def of_encoder(
    encoder: Encoder, corpus: Any, asked: Asked | None, labels: Any, sample: int | None, seed: int,
    told: Told, stopped: Callable[[], bool],
) -> Subject:  # fmt: skip
    """What there is to look at of an encoder's vectors of a corpus."""
    by_name = isinstance(labels, str) and hasattr(corpus, "scan")
    if labels is not None and not (by_name or isinstance(labels, Mapping)):
        refuse(f"labels is a {type(labels).__name__}; give {{id: label}} beside a corpus")
    if asked is not None and not asked.are_texts:
        refuse("queries are vectors; with an encoder give texts, which it encodes")
    by_field: dict[Any, Any] = {}
    if hasattr(corpus, "scan"):
        records = list(corpus.scan())
        if isinstance(labels, str):
            by_field = {each.id: _flat(each.metadata, labels) for each in records}
        texts = {each.id: each.text or "" for each in records}
        if not any(texts.values()):
            refuse(f"corpus: collection {corpus.name!r} has no texts; give {{id: text}}")
    else:
        texts = check_corpus(corpus)
    listed = list(texts)
    rng = np.random.default_rng([seed, 0])
    chosen = [listed[at] for at in draw(len(listed), sample or TEXTS, rng)]
    have = set(chosen)
    wanted = {id for grades in asked.qrels.values() for id in grades} if asked else set()
    extra = [id for id in sorted(wanted, key=repr) if id in texts and id not in have][:RELEVANT]
    ids = [*chosen, *extra]
    made = encoded(encoder.encode_documents, [texts[id] for id in ids], told, stopped, encoder.dim)
    ids = ids[: len(made)]  # fewer where it was cancelled
    subject = Subject(
        name=f"encoder {encoder.name!r} on {len(texts):,} texts", ids=ids, vectors=made,
        texts=[texts[id] for id in ids], total=len(texts), drawn=min(len(chosen), len(ids)),
        metric=encoder.metric, encoder=encoder, card=encoder.card, seed=seed,
    )  # fmt: skip
    if labels is not None:
        given = by_field if isinstance(labels, str) else labels
        subject.label_field = labels if isinstance(labels, str) else None
        subject.labels = [label_of(given.get(id)) for id in ids[: subject.drawn]]
    cut = {id for id in wanted if id in texts} - set(ids)
    _ask(subject, asked, None, cut, told, stopped)
    return subject


def encoded(
    encode: Callable[[Sequence[str]], Any], texts: Sequence[str], told: Told, stopped: Callable[[], bool],
    dim: int,
) -> Any:  # fmt: skip
    """The vectors of texts, a batch at a time; those so far when it is stopped."""
    from vecdb.encoders.base import check_vectors

    parts = [np.empty((0, dim), np.float32)]
    for at in range(0, len(texts), BATCH):
        if stopped():
            break
        some = list(texts[at : at + BATCH])
        parts.append(check_vectors(encode(some), len(some), dim, "the encoder"))
        told(min(at + BATCH, len(texts)), len(texts))
    return np.concatenate(parts)


# --- rows ------------------------------------------------------------------------------------------


def _slots_of(papers: Any, txn: Any, slots: Any, wanted: list[Any], have: set[int]) -> Any:
    """The slots of rows that judgements name, have a vector and were not drawn."""
    from vecdb.ingest import given_ids
    from vecdb.storage import rows as stored_rows

    found = []
    for id in wanted:
        try:
            (_, key), *_ = given_ids(id, papers._cid)[0]
        except InvalidArgument as error:
            refuse(f"qrels: {error}")
        rid = stored_rows.rid_of(txn, key)
        if rid is not None and rid not in have:
            found.append(rid)
    some = np.array(sorted(found), slots.dtype)
    return some[np.isin(some, slots)]


def _dense(there: Any, slots: Any) -> Any:
    """Stored vectors as float32, bits as -1 and 1; their lengths as they are."""
    parts = []
    for at in range(0, len(slots), 4096):
        stored = there.stored(slots[at : at + 4096])
        given = there.geometry.queries(stored)
        parts.append(given * 2 - 1 if there.geometry.metric == "hamming" else given)
    return np.concatenate(parts)


def _text(record: Any, source: str | None) -> str | None:
    if source is None:
        text: str | None = record.text
        return text
    value = _flat(record.metadata, source)
    return value if isinstance(value, str) else None


def _flat(metadata: Mapping[str, Any], name: str) -> Any:
    """A value by its flat name: the key, or the key inside what its first part names."""
    if name in metadata:
        return metadata[name]
    for at, sign in enumerate(name):
        inner = metadata.get(name[:at]) if sign == "." else None
        if isinstance(inner, Mapping):
            return _flat(inner, name[at + 1 :])
    return None


# --- the encoder and the queries -------------------------------------------------------------------


def _encoder_of(papers: Any, declared: Any, subject: Subject) -> None:
    """The encoder of the field, where there is one at hand; why not, where it is another."""
    if declared.encoder is None:
        return
    try:
        subject.encoder = papers._encoder(declared)
        subject.card = subject.encoder.card
    except (EncoderMismatch, InvalidArgument, NotFound) as error:
        subject.changed = str(error)
        from vecdb import encoders

        try:
            subject.card = encoders.get(declared.encoder).card
        except Exception:  # not at hand: nothing is known of it
            return


class _Adapted:
    """An encoder whose vectors go through a field's adapters, as those of its rows did; else as it is."""

    def __init__(self, encoder: Any, images: Callable[[Any], Any], dim: int) -> None:
        self._encoder, self._images, self.dim = encoder, images, dim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_documents(self, texts: Sequence[str], /) -> Any:
        return self._images(self._encoder.encode_documents(texts))

    def encode_queries(self, texts: Sequence[str], /) -> Any:
        return self._images(self._encoder.encode_queries(texts))


def _go_through(papers: Any, declared: Any, subject: Subject, asked: Asked | None) -> Asked | None:
    """Let what is encoded and asked go through the field's adapters, as its rows did; zeros stay zeros."""

    def images(given: Any) -> Any:
        made = np.zeros((len(given), declared.dim), np.float32)
        rows = np.asarray(given, np.float32)
        kept = rows.any(axis=1) if declared.metric == "cosine" else np.ones(len(rows), np.bool_)
        made[kept] = papers._images(declared, rows[kept])
        return made

    if subject.encoder is not None:
        subject.encoder = cast("Encoder", _Adapted(subject.encoder, images, declared.dim))
    if asked is None or asked.are_texts:
        return asked
    found = images(vectors_of(asked.queries, declared.given_dim))
    return replace(asked, queries=dict(zip(asked.queries, found, strict=True)))


def _ask(
    subject: Subject, asked: Asked | None, papers: Any, cut: set[Any], told: Told, stopped: Callable[[], bool]
) -> None:
    """Encode the queries, and find the rows that judgements name; `cut`: rows there, and not here."""
    if asked is None:
        return
    names = list(asked.queries)
    if not asked.are_texts:
        vectors = vectors_of(asked.queries, subject.dim)
    elif subject.encoder is None:
        why = subject.changed or "the field has no encoder"
        if papers is not None and subject.changed is None:
            refuse(
                f"queries are texts, and the vectors of collection {papers.name!r} were given, not "
                "encoded; give {name: vector}, made by what made the rows' vectors"
            )
        subject.skip("judgements", f"query texts cannot be encoded: {why}")
        return
    else:
        encoder = subject.encoder
        texts = list(asked.queries.values())
        vectors = encoded(encoder.encode_queries, texts, told, stopped, encoder.dim)
        names = names[: len(vectors)]
    if not names:
        return
    where = {id: row for row, id in enumerate(subject.ids)}
    grades: list[dict[int, float]] = []
    unknown = count = 0
    missing: list[Any] = []
    for name in names:
        judged = asked.qrels.get(name, {})
        grades.append({where[id]: grade for id, grade in judged.items() if id in where})
        absent = [id for id in judged if id not in where and id not in cut]
        unknown, count = unknown + len(absent), count + len(judged)
        missing += absent[:5]
    texts_or_none = [asked.queries[name] for name in names] if asked.are_texts else None
    subject.queries = Queries(names, texts_or_none, vectors, grades, unknown, count, missing[:5])
