"""Which searches were made, what did they show, and what was chosen? The search log, as its users see it.

Nothing is logged until somebody starts it for a collection; from then on every handle of mode "rw", of any
process, logs that collection's searches, until it is stopped. What is logged is in the file, bounded in
size, and masked there so that it can be erased (storage/veil.py).

Invariants:
  J3  what is read is what was searched: entries in the order in which they were written, each with its
      choices so far; what waits in this handle is written first;
  J4  after `clear` nothing of what was logged before is in the file, neither in free pages.

What is not logged: searches of a snapshot or inside a transaction, which may show what others never saw,
`explain` and `why_not`, and replays.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.collection import Collection
from vecdb.errors import InvalidArgument, NotFound
from vecdb.query.filter import Filter, from_dict
from vecdb.query.objects import Near, Query
from vecdb.query.values import given_id
from vecdb.query.written import boost_of, plain, query_of
from vecdb.storage import codec, keys, searchlog
from vecdb.types import Hits, Id

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.standing.replay import ReplayReport

DEFAULT_BYTES: Final = 64 << 20
MOST_BYTES: Final = 1 << 40
MAX_CHOSEN: Final = 1_000  # ids of one call


class LogEntry:
    """A search as it was logged: `.id`, `.time`, `.collection`, `.query`, `.where`, `.k`, `.options`,
    `.shown`, `.chosen`.

    `time` is a datetime in UTC, `collection` a name, `query` a query object, `where` a Filter or None;
    `options` are the others that were given; `shown` the ids of the hits, best first, at most 1,000;
    `chosen` those that `feedback` named, in its order.

    >>> import vecdb
    >>> from vecdb import F
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
    >>> db.search_log.start(c)
    >>> c.feedback(c.search([1, 0], 5, where=F.n.is_null()), chosen="a")
    >>> entry = next(iter(db.search_log))
    >>> entry.collection, entry.query, entry.where, entry.k, entry.shown, entry.chosen
    ('c', Near([1.0, 0.0]), F.n.is_null(), 5, ['a'], ['a'])
    """

    __slots__ = ("_given", "_said", "chosen", "collection", "id", "shown", "time")

    id: int
    time: datetime
    collection: str
    shown: list[Id]
    chosen: list[Id]

    def __init__(self, collection: str, found: list[Any], chosen: list[Id]) -> None:
        self.id, at, self._given, self._said, self.shown = found
        self.time = datetime.fromtimestamp(at, UTC)
        self.collection = collection
        self.chosen = chosen

    @property
    def query(self) -> Query:
        """What was searched for."""
        if isinstance(self._given, bytes):
            return Near(tuple(np.frombuffer(self._given, np.float32).tolist()), self._said.get("using"))
        if isinstance(self._given, str):
            return Near(self._given, self._said.get("using"))
        return query_of(self._given)

    @property
    def asked(self) -> Any:
        """The same as it was given to `search`: an array (d,), a text or a query object."""
        if isinstance(self._given, bytes):
            return np.frombuffer(self._given, np.float32)
        return self._given if isinstance(self._given, str) else self.query

    @property
    def where(self) -> Filter | None:
        """The filter."""
        found = self._said.get("where")
        return None if found is None else from_dict(found)

    @property
    def k(self) -> int | None:
        """How many hits were wanted."""
        found: int | None = self._said["k"]
        return found

    @property
    def options(self) -> dict[str, Any]:
        """The other options of the search that were given."""
        found = {name: value for name, value in self._said.items() if name not in ("k", "where")}
        if "boost" in found:
            found["boost"] = [boost_of(each) for each in found["boost"]]
        return found

    def __repr__(self) -> str:
        where = "" if self.where is None else f", where={self.where!r}"
        chosen = f", chosen={self.chosen!r}" if self.chosen else ""
        moment = self.time.isoformat(sep=" ", timespec="milliseconds")
        return (
            f"LogEntry({moment}, {self.collection!r}, {self.query!r}, k={self.k}{where}, "
            f"{len(self.shown)} shown{chosen})"
        )


class SearchLog:
    """The log of searches of a database: `db.search_log`; iteration gives a LogEntry a search.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
    >>> db.search_log.start(c); _ = c.search([1, 0]); db.search_log.stop()
    >>> len(list(db.search_log)), db.search_log
    (1, SearchLog(logs nothing))
    """

    __slots__ = ("_db",)

    def __init__(self, db: Database) -> None:
        self._db = db

    def start(self, collection: Collection, max_bytes: int = DEFAULT_BYTES) -> None:
        """Log the searches of a collection, in every process that has the file open to write.

        `max_bytes`: of the file, for this collection's log; the oldest entries go when there are more.
        Started again it sets the limit. Each search notes its query, options and ids shown, without
        waiting (about 2 us); they are written a few times a second. InvalidArgument, ReadOnly.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> db.search_log.start(c, max_bytes=1 << 20); db.search_log
        SearchLog(logs 'c')
        """
        cid = self._cid(collection)
        least = searchlog.LEAST_BYTES
        if type(max_bytes) is not int or not least <= max_bytes <= MOST_BYTES:
            _refuse(f"max_bytes={max_bytes!r:.40}: give an int from {least:,} to {MOST_BYTES:,}")
        with self._db._batch() as batch:
            self._db._schema(cid)
            logging = searchlog.read(batch.txn)
            there = {each for each, _ in batch.catalog.values()}
            logging.collections = {c: k for c, k in logging.collections.items() if c in there}
            kept = logging.collections.setdefault(cid, searchlog.Kept(max_bytes))
            kept.max_bytes, kept.on = max_bytes, True
            searchlog.write(batch.txn, logging)
            batch.change_logging()

    def stop(self, collection: Collection | None = None) -> None:
        """Log no more searches, of one collection or of all; what is logged stays.

        >>> import vecdb
        >>> vecdb.open().search_log.stop()
        """
        cid = None if collection is None else self._cid(collection)
        self._write_waiting()
        with self._db._batch() as batch:
            logging = searchlog.read(batch.txn)
            stopped = [c for c, kept in logging.collections.items() if kept.on and cid in (None, c)]
            for each in stopped:
                logging.collections[each].on = False
            if stopped:
                searchlog.write(batch.txn, logging)
                batch.change_logging()

    def clear(self) -> None:
        """Erase everything that was logged, and go on logging what is logged.

        On return nothing of it is in the file any more, not even in pages that are free, and what other
        processes have not written yet of searches before now never comes there. Copies that were made of
        the file are not touched. InvalidArgument inside a transaction.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
        >>> db.search_log.start(c); _ = c.search([1, 0]); db.search_log.clear()
        >>> list(db.search_log)
        []
        """
        db = self._db
        db._outside_transaction("search_log.clear")
        with db._batch() as batch:
            db._queue.forget()
            logging = searchlog.read(batch.txn)
            there = {each for each, _ in batch.catalog.values()}
            logging.collections = {c: k for c, k in logging.collections.items() if c in there}
            for cid in logging.collections:
                searchlog.clear(batch.txn, logging, cid)
            logging.cleared = time.time()
            searchlog.write(batch.txn, logging)
            batch.changed = True
            if db._env.veil_key() is not None:
                db._env.renew_veil()

    def to_arrow(self) -> Any:
        """Return the log as a pyarrow.Table, a row a search, in the order of iteration.

        Columns: id, time, collection, query (JSON), where (text notation), k, options (JSON), shown and
        chosen (lists of ids: int64 where all are ints, else their JSON as text where they are mixed).
        InvalidArgument where pyarrow (extra `arrow`) is not installed.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
        >>> db.search_log.start(c); _ = c.search([1, 0])
        >>> db.search_log.to_arrow().column("shown").to_pylist()
        [['a']]
        """
        try:
            import pyarrow as pa
        except ImportError:
            raise InvalidArgument(
                "to_arrow needs pyarrow, which is not installed: pip install 'vecdb-engine[arrow]'"
            ) from None
        found = list(self)
        kinds = {type(id) for entry in found for id in (*entry.shown, *entry.chosen)}
        ids = pa.list_(pa.int64() if kinds == {int} else pa.string())

        def listed(values: list[Id]) -> list[Any]:
            return values if len(kinds) < 2 else [json.dumps(id, ensure_ascii=False) for id in values]

        columns = {
            "id": pa.array([each.id for each in found], pa.int64()),
            "time": pa.array([each.time for each in found], pa.timestamp("us", tz="UTC")),
            "collection": pa.array([each.collection for each in found], pa.string()),
            "query": pa.array([_json(plain(each.query)) for each in found], pa.string()),
            "where": pa.array(
                [None if each.where is None else str(each.where) for each in found], pa.string()
            ),
            "k": pa.array([each.k for each in found], pa.int64()),
            "options": pa.array([_json(_plain_options(each._said)) for each in found], pa.string()),
            "shown": pa.array([listed(each.shown) for each in found], ids),
            "chosen": pa.array([listed(each.chosen) for each in found], ids),
        }
        return pa.table(columns)

    def __iter__(self) -> Iterator[LogEntry]:
        return self.entries()

    def __repr__(self) -> str:
        with self._reading() as txn:
            logged = searchlog.read(txn).logged()
        names = [name for name, (cid, _) in self._db._current_catalog().items() if cid in logged]
        return f"SearchLog(logs {', '.join(map(repr, sorted(names))) or 'nothing'})"

    # --- reading -------------------------------------------------------------------------

    def entries(self, collection: Collection | None = None) -> Iterator[LogEntry]:
        """Return the entries, all or those of one collection, in the order in which they were written.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> list(db.search_log.entries(c))
        []
        """
        only = None if collection is None else self._cid(collection)
        self._write_waiting()
        return self._entries(only)

    def _entries(self, only: int | None) -> Iterator[LogEntry]:
        names = {cid: name for name, (cid, _) in self._db._current_catalog().items()}
        wanted = [cid for cid in names if only in (None, cid)]
        secret = self._db._env.veil_key()
        places: list[bytes] = []
        chosen: dict[int, list[Id]] = {}
        with self._reading() as txn:
            for cid in wanted:
                places += (key for key, _ in searchlog.stretches(txn, cid, searchlog.SEARCHES))
                for key, record in searchlog.stretches(txn, cid, searchlog.CHOICES):
                    for id, _, ids in searchlog.entries_in(key, record, secret):
                        mine = chosen.setdefault(id, [])
                        mine += (each for each in ids if each not in mine)
        for key in sorted(places, key=lambda each: keys.search_log_position(each)[1]):
            with self._reading() as txn:
                record = txn.get(key)  # None: trimmed or cleared meanwhile
                found = [] if record is None else searchlog.entries_in(key, record, secret)
            name = names[int.from_bytes(key[1:5], "big")]
            for each in found:
                yield LogEntry(name, each, chosen.get(each[0], []))

    def _write_waiting(self) -> None:
        """Bring what waits in this handle into the file, where it may be written (J3)."""
        db = self._db
        if len(db._queue) and db._local.batch is None:
            db._queue.flush(db._options.timeout)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        with self._db.searches._reading() as txn:
            yield txn

    def _stats(self) -> dict[str, Any]:
        """What is logged, for `db.stats()`."""
        with self._reading() as txn:
            kept = searchlog.read(txn).collections
        names = {cid: name for name, (cid, _) in self._db._current_catalog().items()}
        queue = self._db._queue
        return {
            "waiting": len(queue),
            "dropped": queue.dropped,
            "collections": {
                names[cid]: {"on": each.on, "bytes": each.bytes, "max_bytes": each.max_bytes}
                for cid, each in kept.items()
                if cid in names
            },
        }

    # --- choices -------------------------------------------------------------------------

    def _choose(self, collection: Any, hits: Any, chosen: Any) -> None:
        """See `Collection.feedback`."""
        if not isinstance(hits, Hits):
            _refuse(f"hits: give the Hits of a search, not a {type(hits).__name__}")
        ids = _chosen(chosen)
        shown = set(hits.ids)
        for id in ids:
            if id not in shown:
                _refuse(f"chosen: id {id!r:.60} is not among the hits")
        logged = getattr(hits, "_logged", None)
        if logged is None:
            _refuse(
                f"feedback: this search of {collection.name!r} was not logged, so that there is nothing to "
                "note it with; db.search_log.start(collection) logs those that follow (not of snapshots, or "
                "in transactions)"
            )
        db, cid = self._db, collection._cid
        if logged[0] != cid:
            _refuse(f"feedback: the hits are of another collection, not of {collection.name!r}: ask that one")
        with db._batch() as batch:
            db._schema(cid)
            db._queue.write(batch)
            logging = searchlog.read(batch.txn)
            if cid not in logging.collections:
                _refuse(f"feedback: {collection.name!r} is not logged: db.search_log.start(collection)")
            key = db._env.veil_key() or db._env.renew_veil()
            content = codec.pack([[logged[1], time.time(), ids]])
            searchlog.append(batch.txn, logging, cid, searchlog.CHOICES, content, key)
            searchlog.write(batch.txn, logging)
            batch.changed = True

    def _replay(self, collection: Any, entries: Any, where: Any, recall: Any) -> ReplayReport:
        """See `Collection.replay`."""
        from vecdb.standing.replay import replayed

        return replayed(collection, self._replayed(collection, entries), where, recall)

    def _replayed(self, collection: Any, entries: Any) -> list[LogEntry]:
        """The entries that `Collection.replay` means."""
        if entries is not None and not isinstance(entries, Iterable):
            _refuse(f"entries: give those of db.search_log, not a {type(entries).__name__}")
        try:
            chosen = list(self.entries(collection) if entries is None else entries)
        except TypeError:  # an array of no dimension calls itself iterable
            _refuse(f"entries: give those of db.search_log, not a {type(entries).__name__}")
        for each in chosen:
            if not isinstance(each, LogEntry):
                _refuse(f"entries: give those of db.search_log, not a {type(each).__name__}")
        return chosen

    def _cid(self, collection: Any) -> int:
        if not isinstance(collection, Collection) or collection._db is not self._db:
            _refuse("collection: give a collection of this database, such as db['papers']")
        try:
            self._db._schema(collection._cid)
        except NotFound:
            raise NotFound("collection: it was dropped") from None
        return collection._cid


def _chosen(chosen: Any) -> list[Id]:
    """The ids that were chosen."""
    several = isinstance(chosen, Iterable) and not isinstance(chosen, str)
    ids = [given_id("chosen", each) for each in (list(chosen) if several else [chosen])]
    if not 1 <= len(ids) <= MAX_CHOSEN:
        _refuse(f"chosen: {len(ids):,} ids; give from 1 to {MAX_CHOSEN:,}")
    return list(dict.fromkeys(ids))


def _plain_options(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in ("k", "where")}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
