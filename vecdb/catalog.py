"""Which collections are there, how were they declared, and what encodes their texts?

`Catalogued` is the part of a `Database` that makes, finds, renames and drops collections and their
vector fields. The catalog is read again only when a commit has changed it (`_refresh`).

Invariants:
  C3  a handle names its collection by number: renamed it is the same, and another of its name is not;
  C4  a declaration is that of the last commit, or of this thread's transaction, never an older one;
  C5  an encoder is used only where its fingerprint is the one that the field records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from vecdb.batch import Batch, Catalog, PerThread
from vecdb.collection import Collection
from vecdb.declare import Vector, declare, field_of
from vecdb.errors import AlreadyExists, EncoderMismatch, InvalidArgument, NotFound, SchemaError
from vecdb.index.columns import columns_of
from vecdb.storage import keys, maps, searchlog, state
from vecdb.storage.schema import PREVIOUS, Schema, VectorField, check_name, read_all, validate

if TYPE_CHECKING:
    import threading

    from vecdb.database import Database
    from vecdb.index.follow import Follower
    from vecdb.storage.env import Env


class Catalogued:
    """A database as far as its collections go."""

    _env: Env
    _lock: threading.RLock
    _local: PerThread
    _followers: dict[int, Follower]
    _encoders: dict[tuple[int, int], Any]
    _catalog: Catalog
    _schemas: dict[int, Schema]
    _catalog_version: int
    _seen_commit: int
    _logged: dict[int, Callable[..., None]] | None  # what notes the searches of collections, if any

    if TYPE_CHECKING:  # of a Database

        def _usable(self) -> None: ...
        def _batch(self, timeout: float | None = None) -> AbstractContextManager[Batch]: ...
        def _notes(self, cids: Iterable[int]) -> dict[int, Callable[..., None]] | None: ...

    def create_collection(
        self,
        name: str,
        dim: int | None = None,
        *,
        metric: str | None = None,
        dtype: str = "f32",
        encoder: Any = None,
        quantization: str = "auto",
        M: int = 16,
        ef_construction: int = 200,
        vectors: Mapping[str, Vector] | None = None,
        fields: Mapping[str, Any] | None = None,
        fulltext: Any = None,
    ) -> Collection:
        """Make a new collection and return it; durable on return.

        With one vector field, called "vector", its declaration is given by `dim` and the arguments up
        to `ef_construction`, as in `vecdb.Vector`; with several by `vectors`, {name: Vector}.
        `fields`: what metadata fields hold, by name ("a.b" is the field `b` inside `a`): str, int,
        float, bool, datetime, dict, list, list[str], vecdb.Geo, vecdb.Indexed, vecdb.Partition,
        vecdb.Unindexed. `fulltext`: whose words are indexed, for `Text` queries and `matches` filters: True
        for the row's text, a list of field names, or {name: vecdb.FullText(...)}; the name "text" is the
        row's text. Raises AlreadyExists, InvalidArgument.

        >>> import vecdb
        >>> papers = vecdb.open().create_collection("papers", dim=384, fields={"year": int})
        >>> papers.schema.metric, papers.schema.fields
        ('cosine', {'year': 'int'})
        """
        only = Vector(
            dim, metric=metric, dtype=dtype, encoder=encoder, quantization=quantization, M=M,
            ef_construction=ef_construction,
        )  # fmt: skip
        schema, encoders = declare(name, vectors, only, fields, fulltext)
        return self._create(schema, encoders)

    def get_or_create_collection(
        self,
        name: str,
        dim: int | None = None,
        *,
        metric: str | None = None,
        dtype: str = "f32",
        encoder: Any = None,
        quantization: str = "auto",
        M: int = 16,
        ef_construction: int = 200,
        vectors: Mapping[str, Vector] | None = None,
        fields: Mapping[str, Any] | None = None,
        fulltext: Any = None,
    ) -> Collection:
        """Return the collection, made if need be; SchemaError names a differing declaration.

        >>> import vecdb
        >>> db = vecdb.open()
        >>> db.get_or_create_collection("c", dim=2) == db.get_or_create_collection("c", dim=2)
        True
        """
        only = Vector(
            dim, metric=metric, dtype=dtype, encoder=encoder, quantization=quantization, M=M,
            ef_construction=ef_construction,
        )  # fmt: skip
        schema, encoders = declare(name, vectors, only, fields, fulltext)
        found = self._find(name)
        if found is None:
            try:
                return self._create(schema, encoders)
            except AlreadyExists:  # another process was quicker
                found = self._find(name)
        if found is None:
            raise NotFound(f"collection {name!r} was dropped by another process meanwhile")
        cid, existing = found
        difference = existing.difference(schema)
        if difference is not None:
            raise SchemaError(
                f"collection {name!r} exists with another declaration: {difference}"
                + _way_over(existing, schema)
            )
        self._know_encoders(cid, existing, schema, encoders)
        return self._handle(cid)

    def collections(self) -> list[str]:
        """Return the names of the collections, sorted.

        >>> import vecdb
        >>> db = vecdb.open(); _ = db.create_collection("c", dim=2)
        >>> db.collections()
        ['c']
        """
        return sorted(self._current_catalog())

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __getitem__(self, name: str) -> Collection:
        found = self._find(name)
        if found is None:
            known = ", ".join(map(repr, self.collections()[:10])) or "none"
            raise NotFound(f"no collection {name!r:.60} in {self._env.path}; there are: {known}")
        return self._handle(found[0])

    def drop_collection(self, name: str) -> None:
        """Delete a collection and everything in it; NotFound when there is none.

        >>> import vecdb
        >>> db = vecdb.open(); _ = db.create_collection("c", dim=2)
        >>> db.drop_collection("c"); db.collections()
        []
        """
        with self._batch() as batch:
            cid, _ = self._existing(batch, name)
            for kind in keys.COLLECTION_KINDS:
                _delete_range(batch.txn, keys.prefix(kind, cid))
            batch.forget(cid)
            batch.change_catalog(name, None)

    def rename_collection(self, old: str, new: str) -> None:
        """Give a collection another name; NotFound, AlreadyExists.

        >>> import vecdb
        >>> db = vecdb.open(); _ = db.create_collection("c", dim=2)
        >>> db.rename_collection("c", "d"); db.collections()
        ['d']
        """
        with self._batch() as batch:
            cid, schema = self._existing(batch, old)
            check_name("name", new)
            if new in batch.catalog:
                raise AlreadyExists(f"collection {new!r} exists; choose another name")
            renamed = validate(replace(schema, name=new))
            batch.change_catalog(new, (cid, renamed))
            batch.change_catalog(old, None)

    def _add_vector(self, cid: int, name: str, vector: Any) -> None:
        """See `Collection.add_vector`."""
        with self._batch() as batch:
            schema = self._schema(cid)
            check_name("name", name)
            declared, encoder = field_of(name, vector, schema.next_number)
            writing = batch.writing(cid)
            after = schema.with_vector(name, declared, writing.next_slot)
            writing.add_field(after, after.vectors[name])
            batch.change_catalog(schema.name, (cid, after))
        if encoder is not None:
            self._encoders[cid, declared.number] = encoder

    def _drop_vector(self, cid: int, name: str) -> None:
        """See `Collection.drop_vector`."""
        with self._batch() as batch:
            schema = self._schema(cid)
            if not isinstance(name, str) or name not in schema.vectors:
                known = ", ".join(map(repr, schema.vectors))
                raise NotFound(f"no vector field {name!r:.60} in {schema.name!r}; there are: {known}")
            number, after = schema.vectors[name].number, schema.without_vector(name)
            if name in schema.hidden:
                self._drop_field(batch, cid, schema.hidden[name].field.number, schema.without_hidden(name))
            self._drop_field(batch, cid, number, after)
            maps.sweep(batch.txn, cid, after)

    def _drop_field(self, batch: Batch, cid: int, number: int, after: Schema) -> None:
        """Take a vector field's records away, and go on under the declaration without it."""
        batch.writing(cid).drop_field(number)
        for kind in (keys.VECTORS, keys.MANY, keys.LINKS, keys.EFFORT):
            _delete_range(batch.txn, keys.prefix(kind, cid) + bytes((number,)))
        _delete_log(batch.txn, cid, keys.log_links(number))
        batch.change_catalog(after.name, (cid, after))

    # --- behind the verbs ----------------------------------------------------------------

    def _schema(self, cid: int) -> Schema:
        """A collection's declaration as of the last commit, or of this thread's transaction."""
        batch = self._local.batch
        if batch is None:
            self._current_catalog()
            found = self._schemas.get(cid)
        else:
            self._usable()
            found = next((each for c, each in batch.catalog.values() if c == cid), None)
        if found is None:
            raise NotFound("the collection of this handle was dropped")
        return found

    def _encoder(self, cid: int, declared: VectorField) -> Any:
        """The encoder given for a vector field, or found by its name; EncoderMismatch names it."""
        given = self._encoders.get((cid, declared.number))
        if given is not None and given.fingerprint == declared.fingerprint:
            return given
        for (other, _), each in list(self._encoders.items()):  # of a field that took the place of another
            if other == cid and each.fingerprint == declared.fingerprint:
                self._encoders[cid, declared.number] = each
                return each
        from vecdb import encoders

        assert declared.encoder is not None
        try:
            found = encoders.get(declared.encoder)
        except InvalidArgument as error:
            name = self._schema(cid).name
            raise EncoderMismatch(
                f"collection {name!r} was made with encoder {declared.encoder!r}, which is not at "
                f"hand ({error}); give it to get_or_create_collection({name!r}, encoder=), or "
                "vecdb.encoders.register(name, factory). Vectors work without it"
            ) from None
        if found.fingerprint != declared.fingerprint:
            return given or found
        self._encoders[cid, declared.number] = found
        return found

    def _know_encoders(
        self, cid: int, existing: Schema, schema: Schema, encoders: dict[int, Any]
    ) -> None:
        """Keep given encoders under the numbers that the existing collection's fields have."""
        for name, declared in schema.vectors.items():
            if declared.number in encoders:
                number = existing.vectors[name].number
                self._encoders[cid, number] = encoders[declared.number]

    def _current_catalog(self) -> Catalog:
        self._usable()
        batch = self._local.batch
        if batch is not None:
            return dict(batch.catalog)
        txn = self._env.begin_read()
        try:
            self._refresh(txn, self._env.commit_number(txn))
            return self._catalog
        finally:
            txn.abort()

    def _refresh(self, txn: Any, commit: int) -> None:
        """Read the catalog again when a commit has changed it; an older transaction changes nothing."""
        if commit <= self._seen_commit:
            return
        with self._lock:
            if commit <= self._seen_commit:
                return
            version = self._env.meta(txn).catalog_version
            if version != self._catalog_version:
                self._catalog = read_all(txn)
                self._schemas = dict(self._catalog.values())
                self._logged = self._notes(searchlog.logged(txn))
                self._catalog_version = version
                for cid in [c for c in self._followers if c not in self._schemas]:
                    del self._followers[cid]
            self._seen_commit = commit

    def _find(self, name: object) -> tuple[int, Schema] | None:
        known = self._current_catalog()
        return known.get(name) if isinstance(name, str) else None  # a list cannot be looked up

    def _existing(self, batch: Batch, name: str) -> tuple[int, Schema]:
        found = batch.catalog.get(name) if isinstance(name, str) else None
        if found is None:
            raise NotFound(f"no collection {name!r:.60} in {self._env.path}")
        return found

    def _create(
        self, schema: Schema, encoders: dict[int, Any], kept: Mapping[str, bytes] = MappingProxyType({})
    ) -> Collection:  # fmt: skip
        """`kept`: the maps that the declaration names (storage/maps.py)."""
        with self._batch() as batch:
            if schema.name in batch.catalog:
                raise AlreadyExists(
                    f"collection {schema.name!r} exists; use get_or_create_collection, or drop it"
                )
            cid = batch.next_cid()
            last = batch.commit_number - 1  # its own commit may log rows already
            graphed = [number for number, each in schema.by_number.items() if each.graphed]
            first = state.new(last, graphed, text=columns_of(schema).any)
            for hidden in schema.hidden.values():
                first.vectors[hidden.field.number].held = state.NOBODY
            state.write(batch.txn, cid, first)
            for fingerprint, raw in kept.items():
                maps.put(batch.txn, cid, fingerprint, raw)
            batch.change_catalog(schema.name, (cid, schema))
            made = self._handle(cid)
        self._know_encoders(cid, schema, schema, encoders)
        return made

    def _handle(self, cid: int) -> Collection:
        """A handle on a collection; inside a transaction it dies with what an abort undoes."""
        made = Collection(cast("Database", self), cid)
        batch = self._local.batch
        if batch is not None:
            batch.handles.append(made)
        return made


def _way_over(existing: Schema, wanted: Schema) -> str:
    """How vectors come to be what is wanted now; "" where the difference is another. Nothing is dropped."""
    for name, declared in existing.vectors.items():
        other = wanted.vectors.get(name)
        same = other is not None and other.fingerprint == declared.fingerprint
        if other is None or (same and other.given_dim == declared.given_dim):
            continue
        at = existing.name if existing.name.isidentifier() else "collection"
        using = "" if len(existing.vectors) == 1 else f", using={name!r}"
        behind = existing.hidden.get(name)
        if other.encoder is not None and behind is not None and behind.field.fingerprint == other.fingerprint:
            if behind.role == PREVIOUS:
                back = f"{at}.rollback_vectors({using[2:]})"
                return f"; {back} goes back to it, on {at} = db[{existing.name!r}]"
            return f"; it is on its way there: {at}.reembed(encoder{using}) goes on"
        if other.encoder is not None:
            return (
                f"; to go over to it: {at} = db[{existing.name!r}], then {at}.reembed(encoder{using}), which "
                "keeps every row and searches meanwhile, and the old vectors until they are dropped"
            )
        if declared.encoder is None:
            return (
                f"; vectors of another dimension get a field of their own: {at}.add_vector(name, "
                f"vecdb.Vector({other.given_dim})), on {at} = db[{existing.name!r}]"
            )
    return ""


def _delete_range(txn: Any, prefix: bytes) -> None:
    cursor = txn.cursor()
    found = cursor.set_range(prefix)
    while found and bytes(cursor.key()).startswith(prefix):
        found = cursor.delete()


def _delete_log(txn: Any, cid: int, part: int) -> None:
    """Take one part of a collection's log away."""
    cursor = txn.cursor()
    found = cursor.set_range(keys.log(cid, 0, 0))
    while found:
        key = bytes(cursor.key())
        if key >= keys.condemned(cid):  # and resting slots, the last byte of whose keys may be any
            return
        found = cursor.delete() if keys.log_position(key)[1] == part else cursor.next()
