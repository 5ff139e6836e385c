"""What do all verbs of a collection stand on?

A handle: the database, the collection's number, its encoder once it was needed. Here is what
writing, reading and searching share: rows as records, texts as vectors, filters as rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from vecdb.errors import Corrupt, EncoderMismatch, InvalidArgument
from vecdb.fields import Declared, declared
from vecdb.ingest import given_vectors
from vecdb.query.declared import bind
from vecdb.query.filter import Filter, as_filter
from vecdb.storage import codec, keys, rows, vectors
from vecdb.storage.rows import PLAIN, Row
from vecdb.storage.schema import Schema
from vecdb.types import Record

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.database import Database
    from vecdb.encoders.base import Encoder

Where = Filter | Mapping[str, Any] | str


class Handle:
    """A collection as its verbs see it."""

    __slots__ = ("_cid", "_db", "_encoder")

    def __init__(self, db: Database, cid: int, encoder: Encoder | None = None) -> None:
        self._db = db
        self._cid = cid
        self._encoder = encoder

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.schema.name

    @property
    def schema(self) -> Schema:
        """The declaration: dim, metric, dtype, M, ef_construction, encoder, fields."""
        return self._db._schema(self._cid)

    @property
    def _declared(self) -> Declared:
        """What the metadata fields were declared to hold."""
        follower = self._db._followers.get(self._cid)
        return declared(self.schema.fields) if follower is None else follower.declared

    def _filter(self, where: Where) -> Filter:
        """The filter that `where=` means here: strings are datetimes where fields hold those."""
        datetimes = self._declared.datetimes
        return bind(as_filter(where), datetimes) if datetimes else as_filter(where)

    # --- texts ---------------------------------------------------------------------------

    def _encode(self, texts: list[str]) -> npt.NDArray[Any]:
        encoder = self._encoder_now()
        made = np.asarray(encoder.encode_documents(texts), np.float32)
        found = given_vectors(made, len(texts), self.schema, single=False, name="encoder output")
        assert found is not None
        return found

    def _encoder_now(self) -> Encoder:
        """The collection's encoder; EncoderMismatch when another one answers to its name."""
        schema = self.schema
        if schema.encoder is None:
            refuse(
                f"collection {schema.name!r} has no encoder: give vectors, or create it with "
                "encoder="
            )
        if self._encoder is None:
            self._encoder = self._db._encoder(self._cid)
        if self._encoder.fingerprint != schema.fingerprint:
            raise EncoderMismatch(
                f"collection {schema.name!r} was made with encoder {schema.encoder!r} "
                f"(fingerprint {schema.fingerprint}), but the one at hand has fingerprint "
                f"{self._encoder.fingerprint}: vectors of two encoders cannot be compared; "
                "install the original one or build a new collection"
            )
        return self._encoder

    # --- rows ----------------------------------------------------------------------------

    def _reading(self) -> Any:
        """`with` gives (transaction, view): of one commit, or of this thread's open transaction."""
        return self._db._reading(self._cid)

    def _matches(self, txn: Any, view: Any) -> Any:
        pending = self._db._pending(self._cid)
        if pending is not None:
            return pending.matches
        follower = self._db._follower(self._cid)
        return lambda where: follower.matches(txn, view, where)

    def _record(self, txn: Any, rid: int | None) -> Record | None:
        if rid is None:
            return None
        row = rows.get(txn, self._cid, rid)
        record = record_of(row)
        if row.has_vector:
            record.vector = self._stored(txn, rid, row)
        return record

    def _stored(self, txn: Any, rid: int, row: Row) -> npt.NDArray[Any]:
        schema = self.schema
        if row.inline is not None:
            if len(row.inline) != vectors.stride(schema.dim, schema.dtype):
                raise rows.damaged("V3", keys.row(self._cid, rid), "its vector has another length")
            return np.frombuffer(row.inline, vectors.DTYPES[schema.dtype])
        if rid >= PLAIN:
            raise rows.damaged("R4", keys.row(self._cid, rid), "a vector without a slot")
        slots = np.array([rid], np.uint32)
        found: npt.NDArray[Any] = vectors.read(txn, self._cid, slots, schema.dim, schema.dtype)[0]
        return found


def parse_record(payload: bytes) -> Record:
    """The record in a row's payload, without its vector."""
    return record_of(rows.decode(payload))


def record_of(row: Row) -> Record:
    """The record of a row, without its vector."""
    id = rows.id_from(row.idkey)
    try:
        text = None if row.text is None else row.text.decode()
    except UnicodeDecodeError as error:
        raise Corrupt(
            f"row {id!r}: its text cannot be decoded ({error}); restore a backup",
            code="R5", where=f"row {id!r}", detail=str(error),
        ) from None  # fmt: skip
    return Record(id, row.metadata, text, None, codec.unpack_metadata)


def refuse(message: str) -> NoReturn:
    """Raise InvalidArgument."""
    raise InvalidArgument(message)
