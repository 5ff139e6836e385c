"""Which searches are saved in the file, and what were they saved as?

`db.searches` is a mapping of names to `SavedSearch`: a query, a filter and options as values, and the
collection by its number, so that a renamed one is the same.

Invariants:
  K1  what is saved can be run: it was explained, as by `collection.explain`, when it was saved;
  K2  what is read back equals what was saved; what this version does not know is an error naming it;
  K3  saved searches are part of a transaction, and what a thread sees of them is its transaction's.

Rejected: overwriting without being told to (a name that two programs chose would be lost in silence).
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.collection import Collection
from vecdb.errors import AlreadyExists, InvalidArgument, NotFound, VecdbError
from vecdb.index import tracking
from vecdb.query.boosts import Boost
from vecdb.query.filter import Filter, from_dict
from vecdb.query.objects import Near, Query
from vecdb.query.written import boost_of, plain, query_of
from vecdb.standing.watch import Watch, begin
from vecdb.storage import keys, searches
from vecdb.storage.env import LMDB_ERRORS
from vecdb.storage.schema import check_name
from vecdb.storage.searches import Stored
from vecdb.types import Plan

if TYPE_CHECKING:
    from vecdb.batch import Batch
    from vecdb.database import Database

_OWN: Final = ("self", "query", "k", "where")


class Searches:
    """The saved searches of a database, by name: `db.searches`.

    `db.searches[name]` is a SavedSearch, NotFound where there is none; `in`, `len` and iteration go by
    names. Inside a transaction they are the transaction's.

    >>> import vecdb
    >>> from vecdb.query import Near
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
    >>> db.searches.save("right", c, Near([1, 0]), k=1).run().ids
    ['a']
    >>> db.searches.names(), "right" in db.searches, len(db.searches), list(db.searches)
    (['right'], True, 1, ['right'])
    >>> db.searches["right"]
    SavedSearch('right', 'c', Near([1, 0]), k=1)
    """

    __slots__ = ("_db",)

    def __init__(self, db: Database) -> None:
        self._db = db

    def save(
        self,
        name: str,
        collection: Collection,
        query: Any,
        k: int | None = 10,
        *,
        where: Any = None,
        replace: bool = False,
        **options: Any,
    ) -> SavedSearch:
        """Keep a search in the file under a name, and return it.

        `query`: a query object, or a vector or text, which is kept as `Near`. `where`, `k` and `options`
        are those of `collection.search`, and checked as there. A name that is taken is AlreadyExists,
        unless `replace=True`: its watchers then go on where they are. InvalidArgument for what cannot be
        written down, as a callable, or cannot be run.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> db.searches.save("new ones", c, [1, 0], k=20, where=F.year >= 2025).where
        F.year >= 2025
        """
        check_name("name", name)
        if not isinstance(collection, Collection) or collection._db is not self._db:
            _refuse("collection: give a collection of this database, such as db['papers']")
        if type(replace) is not bool:
            _refuse(f"replace={replace!r:.40}: give True or False")
        asked = query if isinstance(query, Query) else Near(query)
        options = {key: _given_option(value) for key, value in options.items()}
        _check_options(options)
        chosen = None if where is None else collection._filter(where)
        collection.explain(asked, k, where=chosen, **options)  # K1
        with self._db._batch() as batch:
            self._db._schema(collection._cid)  # not dropped meanwhile
            known = searches.get(batch.txn, name) if not replace else _known(batch.txn, name)
            if known is not None and not replace:
                raise AlreadyExists(
                    f"a search {name!r:.60} is saved already; give replace=True to save this one instead"
                )
            number = int.from_bytes(os.urandom(8), "little") if known is None else known.number
            if known is not None and known.cid != collection._cid:
                _forget_watchers(batch.txn, known)  # their places are in another collection
            stored = Stored(
                number, collection._cid, plain(asked), None if k is None else int(k),
                None if chosen is None else chosen.to_dict(),
                {key: plain(_listed(value)) for key, value in sorted(options.items())},
            )  # fmt: skip
            searches.put(batch.txn, name, stored)
            batch.changed = True
        return SavedSearch(self._db, name, stored)

    def __getitem__(self, name: str) -> SavedSearch:
        with self._reading() as txn:
            stored = searches.get(txn, name) if _is_name(name) else None
            if stored is None:
                known = ", ".join(map(repr, searches.names(txn)[:10])) or "none"
                raise NotFound(f"no saved search {name!r:.60}; there are: {known}")
        return SavedSearch(self._db, name, stored)

    def names(self) -> list[str]:
        """Return the names of the saved searches, sorted.

        >>> import vecdb
        >>> vecdb.open().searches.names()
        []
        """
        with self._reading() as txn:
            return searches.names(txn)

    def delete(self, name: str) -> None:
        """Take a saved search out of the file, and its watchers with it; NotFound when there is none.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = db.searches.save("right", c, [1, 0])
        >>> db.searches.delete("right"); db.searches.names()
        []
        """
        with self._db._batch() as batch:
            if not _is_name(name) or batch.txn.get(keys.search(name)) is None:
                raise NotFound(f"no saved search {name!r:.60}")
            known = _known(batch.txn, name)
            if known is None:  # unreadable: then nothing tells whose watchers are its own
                batch.txn.delete(keys.search(name))
            else:
                searches.delete(batch.txn, name, known.number)
                _stop_tracking(self._db, batch, known.cid)
            batch.changed = True

    def __contains__(self, name: object) -> bool:
        with self._reading() as txn:
            return _is_name(name) and txn.get(keys.search(str(name))) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"Searches({', '.join(map(repr, self.names()))})"

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """The thread's transaction, or a snapshot (K3)."""
        db = self._db
        db._usable()
        batch = db._local.batch
        if batch is not None:
            yield batch.txn
            return
        txn = db._env.begin_read()
        try:
            yield txn
        except LMDB_ERRORS as error:
            raise db._env.translated(error) from error
        finally:
            txn.abort()


class SavedSearch:
    """A search that was saved: `.name`, `.collection`, `.query`, `.k`, `.where`, `.options`.

    It is what was read; `db.searches[name]` reads it again.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> _ = c.add("a", [1, 0])
    >>> saved = db.searches.save("right", c, [1, 0], k=5, exact=True)
    >>> saved.name, saved.collection.name, saved.query, saved.k, saved.where, saved.options
    ('right', 'c', Near([1, 0]), 5, None, {'exact': True})
    """

    __slots__ = ("_cid", "_db", "_number", "k", "name", "options", "query", "where")

    name: str
    query: Query
    k: int | None
    where: Filter | None
    options: Mapping[str, Any]

    def __init__(self, db: Database, name: str, stored: Stored) -> None:
        self._db = db
        self._cid = stored.cid
        self._number = stored.number
        self.name = name
        try:
            if not isinstance(stored.query, dict):
                _refuse(f"a {type(stored.query).__name__} where a query belongs")
            self.query = query_of(stored.query)
            if stored.where is not None and not isinstance(stored.where, dict):
                _refuse(f"its filter is a {type(stored.where).__name__}")
            self.where = None if stored.where is None else from_dict(stored.where)
            _check_options(stored.options)
            self.options = {key: _read_option(key, value) for key, value in stored.options.items()}
        except VecdbError as error:
            raise InvalidArgument(f"saved search {name!r} cannot be read: {error}") from None
        self.k = stored.k

    @property
    def collection(self) -> Collection:
        """The collection that it searches; NotFound where that was dropped."""
        try:
            self._db._schema(self._cid)
        except NotFound:
            raise NotFound(
                f"the collection of saved search {self.name!r} was dropped; delete the search, or save it "
                "anew with another collection and replace=True"
            ) from None
        return self._db._handle(self._cid)

    def run(self) -> Any:
        """Search, and return the hits: those of the last commit, or of this thread's transaction.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
        >>> db.searches.save("right", c, [1, 0]).run().ids
        ['a']
        """
        return self.collection.search(self.query, self.k, where=self.where, **self.options)

    def explain(self) -> Plan:
        """Return what `run` would do.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2); _ = c.add("a", [1, 0])
        >>> db.searches.save("right", c, [1, 0]).explain().strategy
        'exact scan'
        """
        return self.collection.explain(self.query, self.k, where=self.where, **self.options)

    def watchers(self) -> list[str]:
        """Return the names of those who watch this search, sorted: who has acknowledged, or begun.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> saved = db.searches.save("right", c, [1, 0])
        >>> _ = saved.watch("me", block=False)
        >>> saved.watchers()
        ['me']
        """
        with self._db.searches._reading() as txn:
            return sorted(searches.watched(key)[1] for key, _ in searches.watchers(txn, self._number))

    def watch(
        self,
        watcher: str,
        min_score: float | None = None,
        start: str = "now",
        block: bool = True,
        timeout: float | None = None,
    ) -> Watch:
        """Return an iterator of batches of the rows that come to match, by whatever process.

        `watcher` names who watches: a new one starts after the last commit (`start="now"`), or with every
        row (`"beginning"`); one that is known goes on behind what it has acknowledged. A batch is Hits of
        at most 1,000 rows that were inserted or changed since, as they stand now, in the order of the
        commits; `batch.ack()` notes in the file that it and those before it are done with. A row matches
        by the filter, and with `min_score` by its score, where the query is a `Near` or a `Text`; `k` plays
        no part.
        `block=False` ends when there is no more; `block=True` waits for commits, at most `timeout` seconds
        at a time, and ends when the database is closed. Costs what was changed, and what the filter costs;
        the first watcher of a collection makes each change be noted (some 30 bytes a row), and a start
        before that reads every row once. Raises InvalidArgument, NotFound; ReadOnly where a new watcher
        or an `ack` would have to write.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> saved = db.searches.save("right", c, [1, 0])
        >>> news = saved.watch("me", min_score=0.9, block=False)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> for batch in news:
        ...     print(batch.ids)
        ...     batch.ack()
        ['a']
        """
        return begin(self, watcher, min_score, start, block, timeout)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SavedSearch):
            return NotImplemented
        return self._db is other._db and self._fields() == other._fields()

    __hash__ = None  # type: ignore[assignment]

    def _fields(self) -> tuple[Any, ...]:
        return self.name, self._cid, self.query, self.k, self.where, self.options

    def __repr__(self) -> str:
        known = self._db._schemas.get(self._cid)
        parts = [repr(self.name), repr(known.name) if known else "(dropped)", repr(self.query)]
        parts.append(f"k={self.k}")
        if self.where is not None:
            parts.append(f"where={self.where!r}")
        parts += [f"{name}={value!r}" for name, value in self.options.items()]
        return f"SavedSearch({', '.join(parts)})"


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse what `collection.search` does not take."""
    known = [n for n in inspect.signature(Collection.search).parameters if n not in _OWN]
    for name, value in options.items():
        if name not in known:
            _refuse(f"unknown option {name!r:.60} of a search; known: {', '.join(known)}")
        if not _is_plain(value):
            _refuse(f"{name}={value!r:.60}: a {type(value).__name__} cannot be written down")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    if isinstance(value, float):
        return value - value == 0
    return value is None or isinstance(value, str | int | Boost)


def _given_option(value: Any) -> Any:
    """An option as it is kept: numpy's scalars as Python's, one boost as a list of one."""
    if isinstance(value, Boost):
        return [value]
    if isinstance(value, np.generic) and not isinstance(value, str | float):
        return value.item()
    return value


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _read_option(name: str, value: Any) -> Any:
    if name == "boost" and isinstance(value, list):
        return [boost_of(each) for each in value]
    return value


def _known(txn: Any, name: str) -> Stored | None:
    """A saved search that is to be replaced or deleted, though it may be unreadable."""
    try:
        return searches.get(txn, name)
    except VecdbError:
        return None


def _forget_watchers(txn: Any, known: Stored) -> None:
    for key, _ in list(searches.watchers(txn, known.number)):
        txn.delete(key)


def _stop_tracking(db: Database, batch: Batch, cid: int) -> None:
    """Let a collection's changes go unnoted where nobody watches it any more."""
    schema = next((each for number, each in batch.catalog.values() if number == cid), None)
    if schema is None or not tracking.is_on(schema.tracked) or len(schema.tracked) > tracking.MOST_TURNS:
        return
    watched = {searches.watched(key)[0] for key, _ in searches.watchers(batch.txn)}
    for key, record in searches.entries(batch.txn):
        with suppress(VecdbError):
            stored = searches.unpack(key, record)
            if stored.cid == cid and stored.number in watched:
                return
    turned = dataclasses.replace(schema, tracked=(*schema.tracked, batch.commit_number))
    batch.change_catalog(schema.name, (cid, turned))


def _is_name(name: object) -> bool:
    """Whether it can be the name of a saved search."""
    if not isinstance(name, str):
        return False
    try:
        return 0 < len(name.encode()) <= keys.MAX_NAME
    except UnicodeEncodeError:
        return False


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)

