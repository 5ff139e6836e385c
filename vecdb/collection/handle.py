"""What do all verbs of a collection stand on?

A handle: the database and the collection's number. Here is what writing, reading and searching
share: rows as records, texts as vectors, filters as rows, and which vector field is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.embedding import check_probes, embed, way
from vecdb.errors import Corrupt, EncoderMismatch, FilterError, InvalidArgument
from vecdb.fields import Declared
from vecdb.fields import declared as declared_fields
from vecdb.index.changes import flat
from vecdb.index.columns import columns_of, need_words
from vecdb.index.follow import Follower
from vecdb.index.parts import Damaged
from vecdb.index.seats import RESERVED
from vecdb.index.texts import usable
from vecdb.index.wording import says
from vecdb.query.clauses import Matches
from vecdb.query.declared import bind, worded
from vecdb.query.filter import Filter, as_filter
from vecdb.storage import codec, keys, maps, rows, tree, vectors
from vecdb.storage.rows import PLAIN, Row
from vecdb.storage.schema import Schema, VectorField
from vecdb.types import Metadata, Record

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.database import Database
    from vecdb.encoders.base import Encoder

LOOKUP: Final = "lookup"  # the name under which a follower keeps it
LOOKED_UP: Final = ("f32", "f16")  # dtypes whose stored bytes are the array's
Where = Filter | Mapping[str, Any] | str


class Moved(InvalidArgument):
    """The vectors of a field became others while a call was under way: verbs begin again."""


class Handle:
    """A collection as its verbs see it."""

    __slots__ = ("_cid", "_db", "_quick")

    def __init__(self, db: Database, cid: int) -> None:
        self._db = db
        self._cid = cid
        self._quick: Callable[[], Any] = _nothing  # the lookup of the last commit, if it lives

    @property
    def name(self) -> str:
        """The collection's name."""
        return self.schema.name

    @property
    def schema(self) -> Schema:
        """The declaration: the vector fields by name (of the only one dim, metric and so on), and
        the metadata fields.

        >>> import vecdb
        >>> vecdb.open().create_collection("c", dim=2).schema.dim
        2
        """
        return self._db._schema(self._cid)

    @property
    def _declared(self) -> Declared:
        """What the metadata fields were declared to hold."""
        known = self._db._schemas.get(self._cid)  # whichever commit's: they do not change
        return declared_fields((known or self.schema).fields)

    def _filter(self, where: Where) -> Filter:
        """The filter that `where=` means here: strings are datetimes where fields hold those."""
        datetimes = self._declared.datetimes
        found = as_filter(where)
        for field in found.fields():
            if field.startswith(RESERVED):
                raise FilterError(f"field {field!r:.60} begins with a NUL, as no metadata field may")
        found = bind(found, datetimes) if datetimes else found
        return worded(found, self._worded)

    def _worded(self, clause: Matches) -> Matches:
        """A clause on full text that knows what a word is here."""
        schema = self.schema
        need_words(schema, clause.field)
        columns = columns_of(schema)
        usable(columns, schema.name)
        try:
            return replace(clause, bound=says(columns, clause.field, clause.wanted))
        except InvalidArgument as error:
            raise FilterError(f"matches on {clause.field!r:.60}: {error}") from None

    def _need_values(self, field: str, verb: str, remedy: str) -> None:
        """Refuse a field that has no index for a verb that goes by its values."""
        if field.startswith(RESERVED):
            refuse(f"{verb}: field {field!r:.60} begins with a NUL, as no metadata field may")
        if self._declared.skips(field):
            refuse(
                f"{verb}: field {field!r:.60} is declared Unindexed in collection {self.name!r}, so "
                f"that nothing knows its values but the rows: {remedy}, or declare it otherwise"
            )

    # --- texts ---------------------------------------------------------------------------

    def _encode(self, declared: VectorField, texts: list[str]) -> npt.NDArray[Any]:
        """The vectors of texts (n, dim); cached, a batch at a time (embedding.py)."""
        return embed(self._db, self._encoder(declared), texts, declared.metric)

    def _encoder(self, declared: VectorField) -> Encoder:
        """A vector field's encoder; EncoderMismatch when another one answers to its name."""
        found: Encoder = self._db._encoder(self._cid, declared)
        if found.fingerprint != declared.fingerprint:
            raise EncoderMismatch(
                f"collection {self.name!r} was made with encoder {declared.encoder!r} "
                f"(fingerprint {declared.fingerprint}), but the one at hand has fingerprint "
                f"{found.fingerprint}: vectors of two encoders cannot be compared. To go over to the one at "
                f"hand: {way(self.name)}, which keeps every row and the old vectors until the new "
                "are there; or install the original one, or give it to "
                f"get_or_create_collection({self.name!r}, encoder=). Vectors work without it"
            )
        check_probes(self._db, found, self.name)
        return found

    # --- adapters ------------------------------------------------------------------------

    def _images(self, declared: VectorField, vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What a field's adapters make of vectors as they are given, float32 (n, d); none: the same."""
        for fingerprint in declared.adapters:
            vectors = self._map(fingerprint)(vectors)
        return vectors

    def _map(self, fingerprint: str, kind: Any = None) -> Any:
        """A map that the file keeps, by its fingerprint; of the class `kind`, else an Adapter."""
        found = self._db._maps.get(fingerprint)
        if found is None:
            from vecdb.adapting.adapter import Adapter

            with self._reading() as (txn, view):
                if fingerprint not in dict(maps.named(view.schema)):
                    name = view.schema.name
                    raise Moved(f"collection {name!r} was given other vectors meanwhile: call again")
                raw = maps.get(txn, self._cid, fingerprint)
            key = maps.key_of(self._cid, fingerprint)
            try:
                found = (kind or Adapter).from_bytes(raw)
            except (InvalidArgument, Corrupt) as error:
                raise rows.damaged("X1", key, str(error)) from None
            if found.fingerprint != fingerprint:
                raise rows.damaged("X1", key, f"it is the map {found.fingerprint}, not {fingerprint}")
            self._db._maps[fingerprint] = found
        return found

    def _bridge(self, fingerprint: str) -> Any:
        """The map from the queries of an encoder that is on its way to the vectors of the one before."""
        from vecdb.adapting.bridge import Bridge

        return self._map(fingerprint, Bridge)

    # --- vector fields -------------------------------------------------------------------

    def _using(
        self, schema: Schema, using: Any, *, encoder: bool = False, graph: bool = False
    ) -> VectorField:
        """The vector field that a call means; left out, it must be the only one that fits.

        `encoder`: only fields with an encoder fit; `graph`: only those with one vector a row.
        """
        if using is not None:
            if not isinstance(using, str) or using not in schema.vectors:
                names = ", ".join(map(repr, schema.vectors))
                refuse(f"using={using!r:.60}: collection {schema.name!r} has the vector fields {names}")
            return schema.vectors[using]
        fitting = [
            name
            for name, each in schema.vectors.items()
            if (each.encoder is not None or not encoder) and (each.graphed or not graph)
        ] or ([] if encoder else list(schema.vectors))
        if len(fitting) != 1:
            self._refuse_using(schema, fitting)
        return schema.vectors[fitting[0]]

    def _refuse_using(self, schema: Schema, fitting: list[str]) -> NoReturn:
        if not fitting:
            refuse(
                f"collection {schema.name!r} has no encoder: give vectors, or create it with "
                "encoder="
            )
        names = ", ".join(map(repr, fitting))
        refuse(f"collection {schema.name!r} has several vector fields: give using=, one of {names}")

    # --- rows ----------------------------------------------------------------------------

    @staticmethod
    def _parse(payload: bytes) -> Record:
        """The record in a row's payload, without its vector."""
        return parse_record(payload)

    def _reading(self) -> Any:
        """`with` gives (transaction, view): of one commit, or of this thread's open transaction."""
        return self._db._reading(self._cid)

    def _matches(self, txn: Any, view: Any) -> Any:
        pending = self._db._pending(self._cid)
        if pending is not None:
            return pending.matches
        follower = self._follower()
        return lambda where: follower.matches(txn, view, where)

    def _holders(self, txn: Any, view: Any, declared: VectorField) -> Any:
        """The rows with a vector in a field; None when all with a slot have one."""
        return self._follower().holders(txn, view, declared)

    def _follower(self) -> Follower:
        """What knows this collection's graphs and postings."""
        return self._db._follower(self._cid)

    def _live(self) -> bool:
        """Whether it reads the last commit: then what is ready for that may answer."""
        return self._db._local.batch is None

    def _space(self) -> Any:
        """Where the file's space goes; None for handles that read another commit than the last."""
        self._db._usable()
        return self._db._env.space()

    def _ready(self, key: Any) -> Any:
        """What was made ready for the last commit under a key, and sees by itself whether it is
        still the last; None inside a transaction, and for handles that read another commit."""
        if not self._live():
            return None
        follower = self._db._followers.get(self._cid)
        return None if follower is None else follower.ready(key)

    def _lookup(self, txn: Any, view: Any) -> Any:
        """What reads this commit's rows straight from the map; None where that is not possible."""
        batch = self._db._local.batch
        if (batch is not None and batch.txn is txn) or not view.schema.is_plain:
            return None
        declared = view.schema.only
        snapshot = self._db._env.snapshot(txn)
        follower = self._db._followers.get(self._cid)
        graph = view.vectors[0].graph
        if snapshot is None or follower is None or declared.dtype not in LOOKED_UP:
            return None
        if isinstance(graph, Damaged):
            return None
        ready = follower.ready(LOOKUP)
        if ready is not None and ready.record == snapshot.record:
            return ready
        made = tree.lookup(
            snapshot, graph, self._cid, Record, codec.unpack_metadata,
            vectors.DTYPES[declared.dtype],
        )  # fmt: skip
        follower.keep_ready(LOOKUP, view, made, made.held_bytes)
        return made

    def _record(
        self, txn: Any, schema: Schema, rid: int | None, *, with_vector: bool = True
    ) -> Record | None:
        """A row with its vectors, None for no row."""
        if rid is None:
            return None
        row = rows.get(txn, self._cid, rid)
        record = record_of(row)
        record.place = self._cid
        record.several = len(schema.vectors) > 1
        if with_vector:
            record.vectors = {
                name: vectors.shown(self._stored(txn, schema, declared, rid, row), declared)
                for name, declared in schema.vectors.items()
                if declared.member in row.fields
            }
        return record

    def _stored(
        self, txn: Any, schema: Schema, declared: VectorField, rid: int, row: Row
    ) -> npt.NDArray[Any]:
        """A row's vector in a field that it has, as it is stored."""
        layout = schema.layout(declared)
        if not declared.graphed:
            return vectors.get_many(txn, self._cid, layout, rid)
        if declared.number in row.inline:
            found = vectors.inline_of(row, self._cid, layout, rid)
            assert found is not None
            return found
        if rid >= PLAIN:
            raise rows.damaged("R4", keys.row(self._cid, rid), "a vector without a slot")
        first: npt.NDArray[Any] = vectors.read(txn, self._cid, layout, np.array([rid], np.uint32))[0]
        return first


def _nothing() -> None:
    return None


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
            f"row {id!r}: its text cannot be decoded ({error}); restore a backup, or save what is "
            "sound with vecdb.repair(src, dst)",
            code="R5", where=f"row {id!r}", detail=str(error),
        ) from None  # fmt: skip
    return Record(id, row.metadata, text, None, codec.unpack_metadata)


def source_of(declared: VectorField, metadata: Metadata, text: str | None) -> str | None:
    """The text that a field's encoder reads of a row, None where there is none."""
    if declared.source is None:
        return text
    for name, value in flat(metadata):
        if name == declared.source:
            return value if isinstance(value, str) else None
    return None


def refuse(message: str) -> NoReturn:
    """Raise InvalidArgument."""
    raise InvalidArgument(message)
