"""A collection: rows with ids, metadata, text and one vector each; written, read and searched.

This module checks what users give and says what is wrong with it; how rows are written is
index/writing.py's business, how a search is run is execute.py's.

Invariants:
  P1  a call that raises has changed nothing: everything is checked before the first write, and a
      write outside a transaction is one of its own;
  P2  a read outside a transaction sees one commit, a read inside sees the transaction's writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn, overload

import numpy as np

from vecdb import execute
from vecdb.errors import AlreadyExists, EncoderMismatch, InvalidArgument, NotFound
from vecdb.execute import Context, Request
from vecdb.index.effort import WIDEST
from vecdb.index.writing import NewRow, Writing
from vecdb.ingest import given_ids, given_metadata, given_texts, given_vectors, new_ids
from vecdb.query.filter import Filter, as_filter
from vecdb.storage import codec, keys, rows, vectors
from vecdb.storage.rows import PLAIN, Row
from vecdb.storage.schema import Schema
from vecdb.types import REMOVE, Hits, Id, Metadata, Plan, Record

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.database import Database
    from vecdb.encoders.base import Encoder

MAX_K: Final = 100_000
PAGE_ROWS: Final = 512  # rows that iteration reads in one transaction
Where = Filter | Mapping[str, Any]


class Collection:
    """A named set of rows in a database; made by `create_collection`, found by `db[name]`.

    Writing: add, upsert, update, delete, optimize. Reading: get, count, len, in, iteration.
    Searching: search, explain. About itself: name, schema, stats.

    >>> import vecdb
    >>> with vecdb.open() as db:
    ...     c = db.create_collection("c", dim=2)
    ...     _ = c.add(["a", "b"], [[1, 0], [0, 1]])
    ...     c.search([1, 0.1], k=1).ids
    ['a']
    """

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
        """The declaration: dim, metric, dtype, M, ef_construction, encoder."""
        return self._db._schema(self._cid)

    def __repr__(self) -> str:
        schema = self.schema
        encoder = f", encoder={schema.encoder!r}" if schema.encoder else ""
        return (
            f"Collection({schema.name!r}, dim={schema.dim}, metric={schema.metric!r}{encoder}, "
            f"{len(self):,} rows)"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Collection):
            return NotImplemented
        return self._db is other._db and self._cid == other._cid

    def __hash__(self) -> int:
        return hash((id(self._db), self._cid))

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_pickle, (self._db, self.name)

    # --- writing -------------------------------------------------------------------------

    def add(
        self,
        ids: Any = None,
        vectors: Any = None,
        *,
        metadata: Any = None,
        texts: Any = None,
    ) -> list[Id]:
        """Insert new rows, all or none, and return their ids.

        `ids`: list of str or int, a single one for one row, or None for generated ids.
        `vectors`: (n, d) real numbers; `metadata`: a dict per row; `texts`: a str per row, encoded
        where the collection has an encoder and no vectors are given. Durable on return.
        Raises AlreadyExists if any id exists, InvalidArgument naming the first bad row.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.add(["a", 7], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        ['a', 7]
        """
        return self._put(ids, vectors, metadata, texts, replace=False)

    def upsert(
        self, ids: Any, vectors: Any = None, *, metadata: Any = None, texts: Any = None
    ) -> list[Id]:
        """Insert rows or replace them whole, all or none, and return their ids.

        Arguments as in `add`. A row whose stored vector stays the same keeps its place in the
        graph; without vectors the old ones are removed. Durable on return.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.upsert("a", [1, 0]), c.upsert("a", [0, 1]), len(c)
        (['a'], ['a'], 1)
        """
        if ids is None:
            _refuse("ids=None: upsert needs the ids of the rows to replace; use add for new rows")
        return self._put(ids, vectors, metadata, texts, replace=True)

    def update(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        vectors: Any = None,
        metadata: Any = None,
        texts: Any = None,
    ) -> int:
        """Patch rows and return how many: given top-level metadata keys are set, others stay.

        Takes exactly one of `ids` and `where`. `vecdb.REMOVE` as a value takes a key away. One
        dict applies to every row, a list pairs with `ids`; with `where` neither vectors nor texts.
        Raises NotFound, with nothing changed, when an id is unknown.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0], metadata={"year": 1999, "lang": "en"})
        >>> c.update("a", metadata={"year": 2000, "lang": vecdb.REMOVE}), c["a"].metadata
        (1, {'year': 2000})
        """
        self._exactly_one("update", ids, where)
        if where is not None:
            if vectors is not None or texts is not None:
                _refuse("update(where=...) takes metadata only; name ids to change vectors or texts")
            if not isinstance(metadata, Mapping):
                _refuse("update(where=...) takes one metadata dict for all matching rows")
            patch = _patch(metadata, "metadata")
            chosen = as_filter(where)
            with self._db._writing(self._cid) as writing:
                rids = sorted(writing.matches(chosen))
                for rid in rids:
                    self._patch_row(writing, rid, rows.get(writing.txn, self._cid, rid), patch)
            return len(rids)
        return self._update_ids(ids, vectors, metadata, texts)

    def delete(self, ids: Any = None, *, where: Where | None = None) -> int:
        """Delete rows by ids or by filter and return how many there were; durable on return.

        Takes exactly one of `ids` and `where`; unknown ids are not counted; all rows is
        `where={}`.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> c.delete(["a", "zz"]), len(c)
        (1, 1)
        """
        self._exactly_one("delete", ids, where)
        cid = self._cid
        if where is not None:
            chosen = as_filter(where)
            with self._db._writing(cid) as writing:
                rids = sorted(writing.matches(chosen))
                for rid in rids:
                    row = rows.get(writing.txn, cid, rid)
                    writing.remove(keys.prefix(keys.IDS, cid) + row.idkey, rid, row)
            return len(rids)
        known, _ = given_ids(ids, cid)
        if not known:
            return 0
        deleted = 0
        with self._db._writing(cid) as writing:
            for key in {key: None for _, key in known}:
                found = rows.rid_of(writing.txn, key)
                if found is not None:
                    writing.remove(key, found, rows.get(writing.txn, cid, found))
                    deleted += 1
        return deleted

    def optimize(self) -> None:
        """Fold pending work now; never required for right results.

        Rewrites the graph's image and the metadata indexes up to the last commit, so that the
        next open replays nothing. InvalidArgument inside a transaction.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.optimize()
        """
        self._db._outside_transaction("optimize")
        with self._db._writing(self._cid) as writing:
            writing.fold_now()

    # --- reading -------------------------------------------------------------------------

    @overload  # a str is a Sequence[str] to the type checker
    def get(self, ids: Id) -> Record | None: ...  # type: ignore[overload-overlap]
    @overload
    def get(self, ids: Sequence[Id]) -> list[Record | None]: ...
    def get(self, ids: Any) -> Record | None | list[Record | None]:
        """Return the row of an id, or a list for a list of ids; None where there is no such row.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0])
        >>> c.get(["a", "b"])[1] is None
        True
        """
        known, single = given_ids(ids, self._cid)
        with self._db._reading(self._cid) as (txn, _):
            found = [self._record(txn, rows.rid_of(txn, key)) for _, key in known]
        return found[0] if single else found

    def __getitem__(self, id: Id) -> Record:
        known, single = given_ids(id, self._cid)
        if not single:
            _refuse("collection[id] takes one id; use get for a list")
        found = self.get(known[0][0])
        if found is None:
            raise NotFound(f"no row {known[0][0]!r} in collection {self.name!r}")
        return found

    def __contains__(self, id: object) -> bool:
        try:
            known, single = given_ids(id, self._cid)
        except InvalidArgument:
            return False
        if not single:
            return False
        with self._db._reading(self._cid) as (txn, _):
            return rows.rid_of(txn, known[0][1]) is not None

    def __len__(self) -> int:
        with self._db._reading(self._cid) as (_, view):
            return view.state.live

    def count(self, where: Where | None = None) -> int:
        """Return how many rows there are, or how many satisfy a filter; exact.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        >>> c.count(F.year > 2000)
        1
        """
        if where is None:
            return len(self)
        chosen = as_filter(where)
        with self._db._reading(self._cid) as (txn, view):
            return len(self._matches(txn, view)(chosen))

    def __iter__(self) -> Iterator[Record]:
        """Every row in id order (ints, then strings), read a page at a time."""
        start = prefix = keys.prefix(keys.IDS, self._cid)
        while True:
            page, start = self._page(prefix, start)
            yield from page
            if not start:
                return

    def stats(self) -> dict[str, Any]:
        """Return counts and watermarks: rows, slots, dead slots, unfolded commits, effort.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.stats()["rows"]
        0
        """
        with self._db._reading(self._cid) as (_, view):
            state = view.state
            return {
                "name": self.name,
                "rows": state.live,
                "vectors": state.ranked,
                "slots": state.slots,
                "dead_slots": state.slots - state.ranked,
                "fields": [n for n in view.names if not _is_outer(n, view.names)],
                "commit": view.commit,
                "links_folded_to": state.links_to,
                "metadata_folded_to": state.rows_to,
                "code_scale": state.scale,
                "effort": dict(view.effort.table) if view.effort else {},
            }

    # --- searching -----------------------------------------------------------------------

    @overload
    def search(
        self, query: str, k: int = 10, *, where: Where | None = None, recall: float = 0.95,
        ef: int | None = None, exact: bool = False, with_vectors: bool = False,
    ) -> Hits: ...  # fmt: skip
    @overload
    def search(
        self, query: Any, k: int = 10, *, where: Where | None = None, recall: float = 0.95,
        ef: int | None = None, exact: bool = False, with_vectors: bool = False,
    ) -> Any: ...  # fmt: skip
    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        where: Where | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> Any:
        """Return the `k` rows most similar to `query`, best first.

        `query`: (d,) → Hits; (b, d) or a list of str → list[Hits], on all threads; a str is
        encoded. `where` filters before ranking: fewer than `k` hits means fewer rows match.
        `recall`: the share of the true top k wanted on average; `ef` sets the walk's width
        instead; `exact=True` ranks every match, O(matches · d), and is the oracle.
        The walk is HNSW's (Malkov and Yashunin, 2016) on 7-bit codes.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        >>> c.search([1, 0], k=2).ids, c.search([1, 0], where=F.year > 2000).ids
        (['a', 'b'], ['b'])
        """
        key = (k, where, recall, ef, exact) if _may_be_ready(k, where, recall, ef) else None
        if key is not None and not with_vectors and self._db._local.batch is None:
            follower = self._db._followers.get(self._cid)
            ready = None if follower is None else follower.ready(key)
            if ready is not None:
                hits = ready.answer(query)
                if hits is not None:
                    return hits
        request = _request(k, where, recall, ef, exact, with_vectors)
        schema = self.schema
        vector, single = self._query(query, schema)
        with self._db._reading(self._cid) as (txn, view):
            context = self._context(txn, view, schema, where)
            if not single:
                return execute.search_many(context, vector, request)
            hits, ready = execute.search(context, vector, request)
        if ready is not None and key is not None:
            self._db._follower(self._cid).keep_ready(key, view, ready, ready.held_bytes)
        return hits

    def explain(
        self,
        query: Any = None,
        k: int = 10,
        *,
        where: Where | None = None,
        recall: float = 0.95,
        ef: int | None = None,
        exact: bool = False,
        with_vectors: bool = False,
    ) -> Plan:
        """Return what `search` would do: strategy, matching rows, rejected alternatives.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0])
        >>> c.explain([1, 0]).strategy
        'exact scan'
        """
        request = _request(k, where, recall, ef, exact, with_vectors)
        schema = self.schema
        if query is not None:
            self._query(query, schema)
        with self._db._reading(self._cid) as (txn, view):
            return execute.explain(self._context(txn, view, schema, where), request)

    # --- behind the verbs ----------------------------------------------------------------

    def _put(
        self, ids: Any, given: Any, metadata: Any, texts: Any, *, replace: bool
    ) -> list[Id]:
        cid, schema = self._cid, self.schema
        single_text = isinstance(texts, str)
        known, single = ([], False) if ids is None else given_ids(ids, cid)
        n = len(known) if ids is not None else _count(given, metadata, texts, schema.dim)
        single = single or single_text or isinstance(metadata, Mapping)
        stored_texts = given_texts(texts, n)
        plain = given_metadata(metadata, n)
        arrays = given_vectors(given, n, schema, single=single)
        if ids is None:
            known = new_ids(n, cid)
        _no_duplicates(known)
        if not known:
            return []
        if arrays is None and stored_texts is not None and schema.encoder is not None:
            arrays = self._encode(stored_texts)
        packed = [codec.pack_metadata(m, f"row {i}") if m else b"" for i, m in enumerate(plain)]
        with self._db._writing(cid) as writing:
            new = [
                NewRow(
                    key,
                    None if stored_texts is None else stored_texts[i].encode(),
                    packed[i],
                    writing.state_of(plain[i]),
                )
                for i, (_, key) in enumerate(known)
            ]
            if replace:
                self._replace(writing, known, new, arrays)
            else:
                self._refuse_existing(writing, known)
                writing.insert(new, arrays)
        return [id for id, _ in known]

    def _refuse_existing(self, writing: Writing, known: list[tuple[Id, bytes]]) -> None:
        for at, (id, key) in enumerate(known):
            if writing.txn.get(key) is not None:
                raise AlreadyExists(
                    f"ids: row {at}: id {id!r} exists in collection {self.name!r}; use upsert to "
                    "replace rows; nothing was written"
                )

    def _replace(
        self,
        writing: Writing,
        known: list[tuple[Id, bytes]],
        new: list[NewRow],
        arrays: npt.NDArray[Any] | None,
    ) -> None:
        """Insert or replace; rows whose vector stays the same only change their record."""
        fresh: list[int] = []
        for at, (_, key) in enumerate(known):
            rid = rows.rid_of(writing.txn, key)
            if rid is None:
                fresh.append(at)
                continue
            old = rows.get(writing.txn, self._cid, rid)
            if self._same_vector(writing, rid, old, None if arrays is None else arrays[at]):
                writing.rewrite(rid, old, new[at].text, new[at].metadata, new[at].state)
            else:
                writing.remove(key, rid, old)
                fresh.append(at)
        if fresh:
            chosen = None if arrays is None else np.ascontiguousarray(arrays[fresh])
            writing.insert([new[at] for at in fresh], chosen)

    def _same_vector(
        self, writing: Writing, rid: int, old: Row, given: npt.NDArray[Any] | None
    ) -> bool:
        if given is None or not old.has_vector:
            return given is None and not old.has_vector
        return self._stored(writing.txn, rid, old).tobytes() == given.tobytes()

    def _update_ids(self, ids: Any, given: Any, metadata: Any, texts: Any) -> int:
        cid, schema = self._cid, self.schema
        known, single = given_ids(ids, cid)
        _no_duplicates(known)
        n = len(known)
        if isinstance(metadata, Mapping):
            patches = [_patch(metadata, "metadata")] * n
        else:
            _same_length("metadata", metadata, n)
            patches = [_patch(m, f"metadata: row {i}") for i, m in enumerate(metadata or [{}] * n)]
        stored_texts = given_texts(texts, n)
        arrays = given_vectors(given, n, schema, single=single)
        if n and arrays is None and stored_texts is not None and schema.encoder is not None:
            arrays = self._encode(stored_texts)
        if not n:
            return 0
        with self._db._writing(cid) as writing:
            rids = [rows.rid_of(writing.txn, key) for _, key in known]
            for at, rid in enumerate(rids):
                if rid is None:
                    raise NotFound(
                        f"ids: row {at}: no id {known[at][0]!r} in collection {self.name!r}; "
                        "nothing was changed"
                    )
            moved: list[NewRow] = []
            at_moved: list[int] = []
            for at, rid in enumerate(rids):
                assert rid is not None
                old = rows.get(writing.txn, cid, rid)
                text = old.text if stored_texts is None else stored_texts[at].encode()
                if arrays is None or self._same_vector(writing, rid, old, arrays[at]):
                    self._patch_row(writing, rid, old._replace(text=text), patches[at])
                    continue
                merged = _merged(old, patches[at])
                packed = codec.pack_metadata(merged, f"row {at}") if merged else b""
                moved.append(NewRow(known[at][1], text, packed, writing.state_of(merged)))
                at_moved.append(at)
                writing.remove(known[at][1], rid, old)
            if moved:
                assert arrays is not None
                writing.insert(moved, np.ascontiguousarray(arrays[at_moved]))
        return n

    def _patch_row(self, writing: Writing, rid: int, old: Row, patch: Metadata) -> None:
        merged = _merged(old, patch)
        packed = codec.pack_metadata(merged, f"row {rows.id_from(old.idkey)!r}") if merged else b""
        writing.rewrite(rid, old, old.text, packed, writing.state_of(merged))

    def _exactly_one(self, verb: str, ids: Any, where: Any) -> None:
        if (ids is None) == (where is None):
            _refuse(f"{verb} takes exactly one of ids= and where=; all rows is where={{}}")

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
            _refuse(
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

    def _query(self, query: Any, schema: Schema) -> tuple[npt.NDArray[np.float32], bool]:
        """A query as float32: (d,) and True, or (b, d) and False."""
        dim = schema.dim
        if isinstance(query, str):
            return self._encode_queries([query])[0], True
        if isinstance(query, list) and query and all(isinstance(q, str) for q in query):
            return self._encode_queries(query), False
        if type(query) is np.ndarray and query.dtype == np.float32 and query.ndim == 1:
            if query.shape[0] == dim:
                return self._checked(query, schema.metric), True
            found = query
        else:
            found = _real_array("query", query)
        if found.ndim not in (1, 2) or (found.shape[-1] != dim and found.size):
            _refuse(
                f"query has shape {found.shape}; collection {self.name!r} takes ({dim},) or (b, {dim})"
            )
        if found.ndim == 1 and found.shape[0] != dim:
            _refuse(f"query has {found.shape[0]} numbers; collection {self.name!r} has dim {dim}")
        return self._checked(found, schema.metric), found.ndim == 1

    def _checked(self, query: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float32]:
        """Refuse NaN, infinity, and zero under cosine: one pass, the sum of squares tells."""
        if query.ndim == 1:
            square = float(query.dot(query))
            if square != square or square == np.inf or square == 0:
                _check_rows("query", query.reshape(1, -1), metric)
        elif query.size:
            _check_rows("query", query, metric)
        return query if query.flags.c_contiguous else np.ascontiguousarray(query)

    def _encode_queries(self, texts: list[str]) -> npt.NDArray[np.float32]:
        found = np.asarray(self._encoder_now().encode_queries(texts), np.float32)
        return self._checked(np.atleast_2d(found), self.schema.metric)

    def _context(self, txn: Any, view: Any, schema: Schema, where: Any) -> Context:
        db = self._db
        matches = None if where is None else self._matches(txn, view)
        snapshot = db._env.snapshot(txn) if db._local.batch is None else None
        return Context(
            schema.name, self._cid, schema, txn, view, matches, parse_record, db._threads, snapshot
        )

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
        record = _record_of(row)
        if row.has_vector:
            record.vector = self._stored(txn, rid, row)
        return record

    def _stored(self, txn: Any, rid: int, row: Row) -> npt.NDArray[Any]:
        schema = self.schema
        if row.inline is not None:
            return np.frombuffer(row.inline, vectors.DTYPES[schema.dtype])
        if rid >= PLAIN:
            raise rows.damaged("R4", keys.row(self._cid, rid), "a vector without a slot")
        slots = np.array([rid], np.uint32)
        found: npt.NDArray[Any] = vectors.read(txn, self._cid, slots, schema.dim, schema.dtype)[0]
        return found

    def _page(self, prefix: bytes, start: bytes) -> tuple[list[Record], bytes]:
        """Up to PAGE_ROWS records from a key of the id map on, and where to go on (b"": the end)."""
        page: list[Record] = []
        with self._db._reading(self._cid) as (txn, _):
            found: list[bytes] = []
            cursor = txn.cursor()
            more = cursor.set_range(start)
            while more and len(found) < PAGE_ROWS:
                key = bytes(cursor.key())
                if not key.startswith(prefix):
                    more = False
                    break
                found.append(key)
                more = cursor.next()
            for key in found:
                record = self._record(txn, rows.rid_of(txn, key))
                if record is not None:
                    page.append(record)
        return page, found[-1] + b"\0" if more and found else b""


# --- plain functions -------------------------------------------------------------------------


def parse_record(payload: bytes) -> Record:
    """The record in a row's payload, without its vector."""
    return _record_of(rows.decode(payload))


def _record_of(row: Row) -> Record:
    text = None if row.text is None else row.text.decode()
    return Record(rows.id_from(row.idkey), row.metadata, text, None, codec.unpack_metadata)


def _may_be_ready(k: Any, where: Any, recall: Any, ef: Any) -> bool:
    """Whether these options can be a key that no invalid ones are equal to (True is not 1)."""
    return (
        type(k) is int
        and type(recall) is float
        and (where is None or isinstance(where, Filter))
        and (ef is None or type(ef) is int)
    )


def _request(
    k: Any, where: Any, recall: Any, ef: Any, exact: bool, with_vectors: bool
) -> Request:
    """The validated options of a search; those without a filter are checked once each."""
    if where is None:
        try:
            return _plain_request(k, recall, ef, exact, with_vectors)
        except TypeError:  # unhashable: wrong anyway, and named below
            pass
    chosen = None if where is None else as_filter(where)
    return _checked_request(k, chosen, recall, ef, exact, with_vectors)


@lru_cache(maxsize=256, typed=True)  # typed: True is not 1
def _plain_request(k: Any, recall: Any, ef: Any, exact: bool, with_vectors: bool) -> Request:
    return _checked_request(k, None, recall, ef, exact, with_vectors)


def _checked_request(
    k: Any, where: Filter | None, recall: Any, ef: Any, exact: bool, with_vectors: bool
) -> Request:
    if not isinstance(k, int | np.integer) or isinstance(k, bool) or not 1 <= k <= MAX_K:
        _refuse(f"k={k!r:.40}: give an int from 1 to {MAX_K:,}")
    if ef is not None and (
        not isinstance(ef, int | np.integer) or isinstance(ef, bool) or not 1 <= ef <= WIDEST
    ):
        _refuse(f"ef={ef!r:.40}: give an int from 1 to {WIDEST:,}")
    if isinstance(recall, bool) or not isinstance(recall, int | float) or not 0 < recall <= 1:
        _refuse(f"recall={recall!r:.40}: give a number above 0 and at most 1")
    return Request(
        int(k), where, float(recall), None if ef is None else int(ef), bool(exact),
        bool(with_vectors),
    )  # fmt: skip


def _merged(old: Row, patch: Metadata) -> Metadata:
    merged = codec.unpack_metadata(old.metadata) if old.metadata else {}
    for key, value in patch.items():
        if value is REMOVE:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _patch(metadata: Any, row: str) -> Metadata:
    """A cleaned patch; REMOVE stays what it is."""
    if not isinstance(metadata, Mapping):
        _refuse(f"{row}: metadata is a dict, not {type(metadata).__name__}")
    kept = {k: v for k, v in metadata.items() if v is not REMOVE}
    cleaned: Metadata = codec.clean_metadata(kept, row)
    return {**cleaned, **{k: REMOVE for k, v in metadata.items() if v is REMOVE}}


def _count(given: Any, metadata: Any, texts: Any, dim: int) -> int:
    """How many rows a call without ids means."""
    if isinstance(texts, str) or isinstance(metadata, Mapping):
        return 1
    if given is not None:
        shape = np.shape(given)
        return 1 if len(shape) == 1 and shape[0] == dim else (shape[0] if shape else 1)
    for values in (texts, metadata):
        if values is not None:
            return len(values)
    _refuse("add needs vectors=, texts= or metadata=")


def _is_outer(name: str, names: Any) -> bool:
    """Whether a field only holds other fields."""
    return any(other.startswith(name + ".") for other in names)


def _no_duplicates(known: list[tuple[Id, bytes]]) -> None:
    if len({key for _, key in known}) == len(known):
        return
    seen: set[bytes] = set()
    for at, (id, key) in enumerate(known):
        if key in seen:
            _refuse(f"ids: row {at}: id {id!r} appears twice in this call; nothing was written")
        seen.add(key)


def _same_length(name: str, values: Any, n: int) -> None:
    if values is None:
        return
    if isinstance(values, str) or not hasattr(values, "__len__"):
        _refuse(f"{name} is a {type(values).__name__}; give a dict, or a list of one a row")
    if len(values) != n:
        _refuse(f"{name} has {len(values)} entries for {n} ids; give one for each")


def _real_array(name: str, values: Any) -> npt.NDArray[np.float32]:
    from vecdb.ingest import real_array

    return real_array(name, values)


def _check_rows(name: str, values: npt.NDArray[Any], metric: str) -> None:
    from vecdb.ingest import check_rows

    check_rows(name, values, metric)


def _from_pickle(db: Database, name: str) -> Collection:
    return db[name]


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
