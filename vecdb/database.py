"""A database: one file, its collections, and the transactions that write to them.

`Database` joins the pieces: the environment (storage/env.py), one `Follower` per collection that
this process has touched, and at most one open `Batch` per thread. Handles are cheap and shared
freely between threads.

Invariants (the isolation rules of the design):
  D1  a search sees exactly one commit: the transaction it began;
  D2  a write holds the writer lock from its first look to its commit, and is published to this
      process before another thread of it can follow past that commit;
  D3  a thread with an open transaction reads and writes through it, whichever handle it uses;
  D4  after a fork nothing inherited is used: the child opens for itself.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, NoReturn

from vecdb import embedding
from vecdb.batch import Batch, Catalog, PerThread, Reading
from vecdb.collection import Collection
from vecdb.declare import Vector, declare, field_of
from vecdb.errors import (
    AlreadyExists,
    Busy,
    Closed,
    EncoderMismatch,
    InvalidArgument,
    NotFound,
    ReadOnly,
    SchemaError,
)
from vecdb.index.follow import Follower
from vecdb.index.writing import Writing
from vecdb.options import Mode, OpenOptions, check_open
from vecdb.snapshot import Snapshot
from vecdb.storage import keys, state
from vecdb.storage.env import LMDB_ERRORS, Env
from vecdb.storage.schema import Schema, VectorField, check_name, put, read_all, validate
from vecdb.types import Problem
from vecdb.upkeep import Upkeep

_OPEN: weakref.WeakSet[Database] = weakref.WeakSet()


def open(
    path: str | os.PathLike[str] | None = None,
    *,
    mode: str = "rw",
    durability: str = "full",
    timeout: float = 30.0,
    verify: str = "auto",
    immutable: bool = False,
    threads: int | None = None,
    max_size: int | None = None,
    upkeep: bool = True,
) -> Database:
    """Open a database file, or a private one in memory when no path is given.

    `mode`: "rw" creates, "r" never writes, "x" must not exist. `durability`: "full" survives power
    loss, "relaxed" a process kill, "none" only `sync()`. `timeout`: seconds that a write waits for
    another's. `verify`: "auto", "always" or "never" check the file's structure first; with "never"
    LMDB may end the process over broken pages. `immutable`: read-only media. `threads`: for batches
    and bulk inserts, default all cores. `max_size`: bytes the file may reach. `upkeep=False` leaves
    folding to commits alone.
    Raises InvalidArgument, NotFound, AlreadyExists, ReadOnly, Busy, WrongFormat, Corrupt.

    >>> import vecdb
    >>> with vecdb.open() as db:
    ...     db.collections()
    []
    """
    options = check_open(
        path, mode=mode, durability=durability, timeout=timeout, verify=verify,
        immutable=immutable, threads=threads, max_size=max_size, upkeep=upkeep,
    )  # fmt: skip
    return Database(options)


class Database:
    """An open database; made by `vecdb.open`, a context manager, shared between threads."""

    def __init__(self, options: OpenOptions) -> None:
        self._options = options
        self._threads = options.threads or os.cpu_count() or 1
        self._env = Env.open(
            options.path, mode=options.mode, durability=options.durability,
            timeout=options.timeout, verify=options.verify, immutable=options.immutable,
            max_size=options.max_size,
        )  # fmt: skip
        self._closed = False
        self._encoders: dict[tuple[int, int], Any] = {}  # by collection and vector field
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
        """What must be made anew after a fork."""
        self._lock = threading.RLock()
        self._local = PerThread()
        self._followers: dict[int, Follower] = {}
        self._catalog: Catalog = {}
        self._schemas: dict[int, Schema] = {}
        self._catalog_version = -1
        self._seen_commit = -1
        self._pid = os.getpid()
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        options = self._options
        keep = options.upkeep and options.mode != "r" and options.path is not None
        self._upkeep = Upkeep(self) if keep else None

    # --- collections ---------------------------------------------------------------------

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
    ) -> Collection:
        """Make a new collection and return it; durable on return.

        With one vector field, called "vector", its declaration is given by `dim` and the arguments up
        to `ef_construction`, as in `vecdb.Vector`; with several by `vectors`, {name: Vector}.
        `fields`: what metadata fields hold, by name ("a.b" is the field `b` inside `a`): str, int,
        float, bool, datetime, dict, list, list[str], vecdb.Geo, vecdb.Indexed, vecdb.Partition,
        vecdb.Unindexed. Raises AlreadyExists, InvalidArgument.

        >>> import vecdb
        >>> papers = vecdb.open().create_collection("papers", dim=384, fields={"year": int})
        >>> papers.schema.metric, papers.schema.fields
        ('cosine', {'year': 'int'})
        """
        only = Vector(
            dim, metric=metric, dtype=dtype, encoder=encoder, quantization=quantization, M=M,
            ef_construction=ef_construction,
        )  # fmt: skip
        schema, encoders = declare(name, vectors, only, fields)
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
        schema, encoders = declare(name, vectors, only, fields)
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
            raise SchemaError(f"collection {name!r} exists with another declaration: {difference}")
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
            raise NotFound(f"no collection {name!r} in {self._env.path}; there are: {known}")
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
            if new in batch.catalog:
                raise AlreadyExists(f"collection {new!r} exists; choose another name")
            renamed = validate(replace(schema, name=new))
            put(batch.txn, cid, renamed)
            batch.change_catalog(old, None)
            batch.change_catalog(new, (cid, renamed))

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
            if name not in schema.vectors:
                known = ", ".join(map(repr, schema.vectors))
                raise NotFound(f"no vector field {name!r:.60} in {schema.name!r}; there are: {known}")
            number, after = schema.vectors[name].number, schema.without_vector(name)
            batch.writing(cid).drop_field(after, number)
            for kind in (keys.VECTORS, keys.MANY, keys.LINKS, keys.EFFORT):
                _delete_range(batch.txn, keys.prefix(kind, cid) + bytes((number,)))
            _delete_log(batch.txn, cid, keys.log_links(number))
            batch.change_catalog(schema.name, (cid, after))
            self._encoders.pop((cid, number), None)

    # --- transactions --------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """Make all writes of the `with` block visible and durable together, or not at all.

        It belongs to its thread: every handle of this database used there joins it, and reads
        there see its writes. An exception aborts. InvalidArgument when nested.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> with db.transaction() as tx:
        ...     _ = tx["c"].add("a", [1, 0]); _ = c.add("b", [0, 1])
        >>> len(c)
        2
        """
        self._outside_transaction("transaction")
        with self._batch():
            yield self

    def snapshot(self) -> Snapshot:
        """Return what answers everything as of the last commit, whatever is written meanwhile.

        A context manager, with the collections by name: they read and search, and do not write. While
        it is open, the file keeps the pages that it shows. InvalidArgument inside a transaction.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> with db.snapshot() as snap:
        ...     _ = c.add("a", [1, 0])
        ...     len(snap["c"]), len(c)
        (0, 1)
        """
        self._outside_transaction("snapshot")
        made = Snapshot(self)
        self._snapshots.add(made)
        return made

    def sync(self) -> None:
        """Make every commit so far survive power loss, whatever the durability.

        >>> import vecdb
        >>> vecdb.open().sync()
        """
        self._usable()
        self._env.sync()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write a compacted, consistent copy to a new file while others go on writing.

        AlreadyExists when the file exists; InvalidArgument inside a transaction.

        >>> import tempfile, os, vecdb
        >>> db = vecdb.open(); _ = db.create_collection("c", dim=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     db.backup(os.path.join(folder, "copy.vecdb"))
        ...     with vecdb.open(os.path.join(folder, "copy.vecdb")) as copy:
        ...         copy.collections()
        ['c']
        """
        self._outside_transaction("backup")
        self._usable()
        self._env.backup(os.fspath(path))

    def compact(self) -> None:
        """Rewrite the file without its free pages, so that it shrinks; everything stays as it is.

        Costs a copy of what is in use, beside the file, and a rename: a kill leaves the old file or
        the new one. In memory nothing happens. Busy, naming who, when another process has the file
        open or a snapshot is open here; InvalidArgument inside a transaction, ReadOnly, Full.

        >>> import vecdb
        >>> db = vecdb.open(); db.compact()
        """
        self._outside_transaction("compact")
        self._env.compact()

    def optimize(self) -> None:
        """Fold pending work of every collection now; never required for right results.

        >>> import vecdb
        >>> vecdb.open().optimize()
        """
        for name in self.collections():
            self[name].optimize()

    def check(self) -> list[Problem]:
        """Read everything and return every violated invariant; an empty list means sound.

        Costs a pass over the file's pages and a decoding of every row, all in Python; others may
        write meanwhile.

        >>> import vecdb
        >>> vecdb.open().check()
        []
        """
        from vecdb.check import check_database

        self._outside_transaction("check")
        return check_database(self)

    def stats(self) -> dict[str, Any]:
        """Return sizes, commit number, readers, cached embeddings and every collection's stats.

        >>> import vecdb
        >>> vecdb.open().stats()["collections"]
        {}
        """
        self._usable()
        return {
            **self._env.info(),
            "threads": self._threads,
            "embedding_cache": asdict(embedding.cached(self)),
            "collections": {name: self[name].stats() for name in self.collections()},
        }

    def clear_embedding_cache(self) -> int:
        """Take every cached embedding out of the file and return how many there were.

        Works in commits of 10,000 records, or inside the open transaction. ReadOnly, Busy.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", encoder="hashing")
        >>> _ = c.add(texts=["one", "two", "one"])
        >>> db.stats()["embedding_cache"]["count"], db.clear_embedding_cache()
        (2, 2)
        """
        return embedding.clear(self)

    def close(self) -> None:
        """Close this handle; other handles on the same file stay open. Closing twice is fine.

        >>> import vecdb
        >>> db = vecdb.open(); db.close(); db.close()
        """
        if self._closed or self._pid != os.getpid():
            self._closed = True
            return
        if self._local.batch is not None:
            _refuse("close() inside a transaction; leave the with block first")
        if self._upkeep is not None:
            self._upkeep.stop()
        self._closed = True
        for snapshot in list(self._snapshots):
            snapshot.close()
        for follower in self._followers.values():
            follower.forget()
        self._followers.clear()
        self._env.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"mode {self._options.mode!r}"
        return f"Database({self._options.path or 'in memory'!r}, {state})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._options.path is None:
            _refuse("a database in memory cannot be pickled; use a file for other processes")
        self._usable()
        mode: Mode = "r" if self._options.mode == "r" else "rw"  # "x" was for making it
        return _unpickled, (replace(self._options, path=self._env.path, mode=mode),)

    # --- behind the verbs ----------------------------------------------------------------

    def _usable(self) -> None:
        if self._closed:
            raise Closed(f"database {self._options.path or 'in memory'} is closed; open it again")

    def _outside_transaction(self, verb: str) -> None:
        self._usable()
        if self._local.batch is not None:
            _refuse(f"{verb} inside a transaction is not possible; leave the with block first")

    def _schema(self, cid: int) -> Schema:
        """A collection's declaration as of the last commit, or of this thread's transaction."""
        for found, schema in self._current_catalog().values():
            if found == cid:
                return schema
        raise NotFound("the collection of this handle was dropped")

    def _follower(self, cid: int) -> Follower:
        found = self._followers.get(cid)
        if found is None:
            with self._lock:
                found = self._followers.get(cid)
                if found is None:
                    self._schema(cid)
                    found = Follower(cid, lambda: self._env.epoch, self._threads)
                    self._followers[cid] = found
        return found

    def _pending(self, cid: int) -> Writing | None:
        batch = self._local.batch
        return None if batch is None else batch.writing(cid)

    def _encoder(self, cid: int, declared: VectorField) -> Any:
        """The encoder given for a vector field, or found by its name; EncoderMismatch names it."""
        given = self._encoders.get((cid, declared.number))
        if given is not None and given.fingerprint == declared.fingerprint:
            return given
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

    def _reading(self, cid: int) -> Reading:
        return Reading(self, cid)

    def _fold_idle(self, seconds: float) -> bool:
        """Fold for about so long if nobody writes; whether anything was done."""
        for cid, follower in list(self._followers.items()):
            view = follower.newest()
            if view is None or not view.state.unfolded:
                continue
            try:
                with self._batch(timeout=0) as batch:
                    batch.writing(cid).fold_for(seconds)
            except Busy:
                pass
            return True
        return False

    @contextmanager
    def _writing(self, cid: int) -> Iterator[Writing]:
        with self._batch() as batch:
            self._schema(cid)
            writing = batch.writing(cid)
            before = writing.changes_made
            try:
                yield writing
            except BaseException:
                batch.broken = batch.broken or writing.changes_made != before
                raise

    @contextmanager
    def _batch(self, timeout: float | None = None) -> Iterator[Batch]:
        """The thread's open transaction, or one of its own around a single call."""
        self._usable()
        batch = self._local.batch
        if batch is not None:
            yield batch
            return
        if self._options.mode == "r":
            raise ReadOnly(f"{self._env.path} is open with mode='r'; open it with mode='rw' to write")
        batch = Batch(self, self._options.timeout if timeout is None else timeout)
        self._local.batch = batch
        try:
            yield batch
            batch.commit()
            if self._upkeep is not None and timeout is None:
                self._upkeep.note_commit()
        except BaseException as error:
            batch.abort()
            if isinstance(error, LMDB_ERRORS):
                raise self._env.translated(error) from error
            raise
        finally:
            self._local.batch = None

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
        """Read the catalog again when a commit has changed it."""
        if commit == self._seen_commit:
            return
        with self._lock:
            version = self._env.meta(txn).catalog_version
            if version != self._catalog_version:
                self._catalog = read_all(txn)
                self._schemas = dict(self._catalog.values())
                self._catalog_version = version
                for cid in [c for c in self._followers if c not in self._schemas]:
                    del self._followers[cid]
            self._seen_commit = commit

    def _find(self, name: str) -> tuple[int, Schema] | None:
        return self._current_catalog().get(name)

    def _existing(self, batch: Batch, name: str) -> tuple[int, Schema]:
        found = batch.catalog.get(name)
        if found is None:
            raise NotFound(f"no collection {name!r} in {self._env.path}")
        return found

    def _create(self, schema: Schema, encoders: dict[int, Any]) -> Collection:
        with self._batch() as batch:
            if schema.name in batch.catalog:
                raise AlreadyExists(
                    f"collection {schema.name!r} exists; use get_or_create_collection, or drop it"
                )
            cid = batch.next_cid()
            put(batch.txn, cid, schema)
            last = batch.commit_number - 1  # its own commit may log rows already
            graphed = [each.number for each in schema.vectors.values() if not each.multi]
            state.write(batch.txn, cid, state.new(last, graphed))
            batch.change_catalog(schema.name, (cid, schema))
            made = self._handle(cid)
        self._know_encoders(cid, schema, schema, encoders)
        return made

    def _handle(self, cid: int) -> Collection:
        """A handle on a collection; inside a transaction it dies with what an abort undoes."""
        made = Collection(self, cid)
        batch = self._local.batch
        if batch is not None:
            batch.handles.append(made)
        return made


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
        if key >= keys.state(cid):
            return
        found = cursor.delete() if keys.log_position(key)[1] == part else cursor.next()


def _unpickled(options: OpenOptions) -> Database:
    """A handle of its own on the file of a pickled one, which must be there: nothing is made."""
    assert options.path is not None
    if not os.path.exists(options.path):
        raise NotFound(f"{options.path} is not there: a handle was pickled that had it open")
    return Database(options)


def _after_fork() -> None:
    for db in list(_OPEN):
        db._reset()


os.register_at_fork(after_in_child=_after_fork)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
