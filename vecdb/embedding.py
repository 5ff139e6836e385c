"""How do texts become vectors without encoding any of them twice?

`embed` is what every verb that stores texts calls. It looks the texts up in the database's cache
(storage/embeddings.py), encodes the distinct ones that are not there a batch at a time, and keeps
what was made: in the open transaction when there is one, else in the commit of the rows. Before
another batch is encoded, the one before is committed by itself, so that a long call that is killed
has lost at most one batch of work.

Invariants (checked by tests/unit/test_embedding.py, tests/faults/test_ingest_kill.py):
  1. a text whose embedding was committed is not encoded again, by any collection or process;
  2. at most BATCH embeddings are made and not yet committed, per thread;
  3. a call whose misses fit one batch commits once: the rows and the embeddings together;
  4. nothing is cached that the collection could not store: an encoder's bad vector is an error
     that names the encoder and the text.

Queries are not cached: they seldom repeat, and a search would have to write.

Rejected: a commit for every text (a file sync each), and one for all of them at the end (an hour
of encoding lost to one kill).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.encoders.base import check_vectors
from vecdb.errors import EncoderFailed, EncoderMismatch, InvalidArgument, VecdbError
from vecdb.storage import embeddings

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.encoders.base import Encoder, Vectors

BATCH: Final = 512  # texts encoded at once, and embeddings that a kill may cost

SAME_MODEL: Final = 0.99  # cosine: another precision passes (fp16, int8 codes), another model does not

CLEARED_AT_ONCE: Final = 10_000  # embeddings taken away in one commit


def embed(db: Database, encoder: Encoder, texts: list[str], metric: str | None = None) -> Vectors:
    """Return the document vectors of `texts`: float32 (n, dim), cached in `db`.

    Costs a look-up of some microseconds for a known text. `metric`: the field's, where it differs
    from the encoder's. InvalidArgument names the encoder and the text whose vector is unusable.

    >>> import vecdb
    >>> db = vecdb.open()
    >>> embed(db, vecdb.encoders.get("hashing"), ["one", "two", "one"]).shape
    (3, 512)
    """
    found = embeddings.keys_of(encoder.fingerprint, texts)
    vectors = np.empty((len(texts), encoder.dim), np.float32)
    places: dict[bytes, list[int]] = {}
    for at, key in enumerate(found):
        places.setdefault(key, []).append(at)
    misses = _known(db, places, vectors)
    for first in range(0, len(misses), BATCH):
        batch = misses[first : first + BATCH]
        _make_room(db, len(batch))
        rows = [places[key][0] for key in batch]
        try:
            made = _encoded(encoder, [texts[row] for row in rows], rows, metric or encoder.metric)
        except EncoderFailed as error:
            _keep_done(db, error, batch, rows, encoder.dim)
            raise
        _keep(db, {key: made[at].tobytes() for at, key in enumerate(batch)})
        for at, key in enumerate(batch):
            vectors[places[key]] = made[at]
    return vectors


def check_probes(db: Database, encoder: Encoder, collection: str) -> None:
    """Refuse an encoder whose model was changed behind its name: EncoderMismatch names the way.

    An encoder with `probes`, texts by which its model is known, is asked for their vectors once for each
    open database, and these are compared with those in the file's cache; where there are none, they go with
    the thread's next commit. Costs one small request.
    """
    probes = getattr(encoder, "probes", None)
    if not probes or encoder.fingerprint in db._probed:
        return
    listed = [str(each) for each in probes]
    now = check_vectors(
        encoder.encode_documents(listed), len(listed), encoder.dim, f"encoder {encoder.name!r}"
    )
    found = embeddings.keys_of(encoder.fingerprint, listed)
    before = np.zeros_like(now)
    missing = set(_known(db, {key: [at] for at, key in enumerate(found)}, before))
    for at, key in enumerate(found):
        length = float(np.linalg.norm(now[at]) * np.linalg.norm(before[at]))
        if key not in missing and float(now[at] @ before[at]) < SAME_MODEL * length:
            raise EncoderMismatch(
                f"encoder {encoder.name!r} of collection {collection!r} gives other vectors than it did: of "
                f"a text by which its model is known, cosine {float(now[at] @ before[at]) / length:.3f} with "
                f"the vector in the file, less than {SAME_MODEL}. The model behind the name was changed: "
                "serve the former one, or give the new one another revision= and call "
                f"{way(collection)}. Vectors work without it"
            )
    if missing:
        _keep(db, {key: now[at].tobytes() for at, key in enumerate(found) if key in missing})
    db._probed.add(encoder.fingerprint)


def way(collection: str) -> str:
    """The call by which a collection goes over to another encoder."""
    return f"{collection if collection.isidentifier() else 'collection'}.reembed(encoder)"


def cached(db: Database) -> embeddings.Cached:
    """How much is cached, as this thread sees it."""
    batch = db._local.batch
    txn = db._env.begin_read() if batch is None else batch.txn
    try:
        return embeddings.counts(txn)
    finally:
        if batch is None:
            txn.abort()


def clear(db: Database) -> int:
    """Take every embedding out, some at a commit, and return how many there were."""
    removed = 0
    while True:
        with db._batch() as batch:
            db._local.made.clear()
            now = embeddings.clear(batch.txn, CLEARED_AT_ONCE)
            batch.changed = batch.changed or now > 0
        removed += now
        if now < CLEARED_AT_ONCE:
            return removed


def _known(db: Database, places: dict[bytes, list[int]], vectors: Vectors) -> list[bytes]:
    """Fill in what is cached or waits for this thread's commit; the keys that are neither."""
    waiting = db._local.made
    batch = db._local.batch
    txn: Any = db._env.begin_read() if batch is None else batch.txn
    try:
        misses = []
        for key, rows in places.items():
            raw = waiting.get(key)
            vector = np.frombuffer(raw, "<f4") if raw is not None else None
            if vector is None:
                vector = embeddings.get(txn, key, vectors.shape[1])
            if vector is None:
                misses.append(key)
            else:
                vectors[rows] = vector
        return misses
    finally:
        if batch is None:
            txn.abort()


def _make_room(db: Database, coming: int) -> None:
    """Commit what waits, where more would come to more than a batch."""
    waiting = db._local.made
    if waiting and db._local.batch is None and len(waiting) + coming > BATCH:
        with db._batch():
            pass  # a commit takes along what this thread has made


def _keep(db: Database, made: dict[bytes, bytes]) -> None:
    """Into the open transaction, or to wait for this thread's next commit."""
    batch = db._local.batch
    if batch is None:
        db._local.made.update(made)
    else:
        batch.keep(made)


def _keep_done(db: Database, error: EncoderFailed, batch: list[bytes], rows: list[int], dim: int) -> None:
    """Commit what an encoder made before it failed, which may have been paid for, and say which texts of the
    call those are that it failed at."""
    made = error.made
    if made is not None and made.ndim == 2 and made.shape[1] == dim and np.isfinite(made).all():
        _keep(db, {key: each.tobytes() for key, each in zip(batch, made, strict=False) if each.any()})
        if db._local.batch is None and db._local.made:
            with suppress(VecdbError), db._batch():  # what cannot be kept now waits for the next commit
                pass
    error.first = None if error.first is None else rows[error.first]
    error.last = None if error.last is None else rows[error.last]


def _encoded(encoder: Encoder, texts: list[str], rows: list[int], metric: str) -> Vectors:
    """What the encoder makes of one batch; InvalidArgument names the first bad text's row."""
    who = f"encoder {encoder.name!r}"
    made = check_vectors(encoder.encode_documents(texts), len(texts), encoder.dim, who)
    with np.errstate(over="ignore"):
        square = np.einsum("ij,ij->i", made, made, dtype=np.float32)
    for bad, what in (
        (~np.isfinite(square), "a vector whose squared length overflows float32"),
        ((square == 0) & (metric == "cosine"), "a zero vector, which has no direction under cosine"),
    ):
        if bad.any():
            raise InvalidArgument(f"{who} returned {what} for texts[{rows[int(np.argmax(bad))]}]")
    return made
