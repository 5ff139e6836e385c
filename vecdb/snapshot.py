"""What does somebody see who wants all answers as of one commit, whatever is written meanwhile?

A `Snapshot` holds a read transaction from its first look to its end, and the view of each collection
that it was asked about. Its collections read and search like others and cannot write.

Invariants:
  S1  every answer of a snapshot is of the commit at which it was made, also of collections that were
      renamed or dropped since;
  S2  one thread at a time uses its transaction: searches of several threads take turns;
  S3  after its end, or the database's, or in a forked child, it answers nothing: `Closed`. In a child
      its end touches nothing.

Rejected: to end it after some time. Somebody's long export would fail half way; `db.stats()` tells how
many readers there are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from pyroaring import BitMap

from vecdb.collection.analysis import AnalysisVerbs
from vecdb.collection.facets import FacetVerbs
from vecdb.collection.read import ReadVerbs
from vecdb.collection.tables import ArrowVerbs
from vecdb.errors import Closed, Corrupt, NotFound, ReadOnly
from vecdb.index import parts
from vecdb.index.follow import Follower
from vecdb.index.view import View
from vecdb.query.filter import Filter
from vecdb.storage.env import LMDB_ERRORS
from vecdb.storage.process import keep_forever
from vecdb.storage.schema import Schema, read_all

if TYPE_CHECKING:
    from vecdb.database import Database

KEPT_FILTERS = 64
WRITING = frozenset(
    "add upsert update delete add_table optimize add_vector drop_vector apply_adapter reembed "
    "rollback_vectors drop_previous_vectors".split()
)


class Snapshot:
    """One commit of a database; made by `db.snapshot()`, a context manager.

    `snapshot[name]` is a collection as it was: get, scan, count, facets, search and so on.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> snap = db.snapshot()
    >>> _ = c.add("a", [1, 0])
    >>> snap.collections(), list(snap), "c" in snap, len(snap["c"]), len(c)
    (['c'], ['c'], True, 0, 1)
    >>> db.stats()["commit"] - snap.commit
    1
    >>> snap.close()
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.RLock()
        self._txn: Any = db._env.begin_read()
        self._epoch = db._env.epoch  # only now: the first use in a forked child opens the file anew
        try:
            self._commit = db._env.commit_number(self._txn)
            self._catalog = read_all(self._txn)
        except BaseException:
            self._txn.abort()
            raise
        self._views: dict[int, View] = {}
        self._followers: dict[int, Follower] = {}
        self._filters: dict[tuple[int, Filter], BitMap] = {}

    @property
    def commit(self) -> int:
        """The number of the commit that it shows."""
        return self._commit

    def collections(self) -> list[str]:
        """The names of the collections, sorted."""
        return sorted(self._catalog)

    def __iter__(self) -> Iterator[str]:
        return iter(self.collections())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._catalog

    def __getitem__(self, name: str) -> SnapshotCollection:
        found = self._catalog.get(name) if isinstance(name, str) else None
        if found is None:
            known = ", ".join(map(repr, self.collections()[:10])) or "none"
            raise NotFound(f"no collection {name!r:.60} in this snapshot; there are: {known}")
        return SnapshotCollection(self, found[0], found[1])

    def close(self) -> None:
        """End it; ending twice is fine."""
        with self._lock:
            txn, self._txn = self._txn, None
            if txn is not None and self._epoch == self._db._env.epoch:
                txn.abort()
            self._views.clear()
            self._filters.clear()

    def _forked(self) -> None:
        """In a child, inside fork(): give up what is the parent's; another thread may have the lock."""
        keep_forever((self._txn, self._views))
        self._lock = threading.RLock()
        self._txn, self._views = None, {}

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._txn is None else f"commit {self._commit}"
        return f"Snapshot({state} of {self._db!r})"

    def __reduce__(self) -> NoReturn:
        raise Closed("a snapshot belongs to its process: make one where you need it")

    # --- behind its collections ------------------------------------------------------------

    @contextmanager
    def _reading(self, cid: int) -> Iterator[tuple[Any, View]]:
        """The transaction, and the view of a collection, for one thread at a time (S2)."""
        with self._lock:
            self._usable()
            try:
                view = self._views.get(cid)
                if view is None:
                    view = self._views[cid] = self._view(cid)
                yield self._txn, view
            except LMDB_ERRORS as error:
                raise self._db._env.translated(error) from error

    def _view(self, cid: int) -> View:
        follower = self._follower(cid)
        try:
            return follower.at(self._txn, self._commit)
        except Corrupt as error:
            return parts.view(follower, self._txn, self._commit, error)

    def _follower(self, cid: int) -> Follower:
        """The database's, or one of its own for a collection that was dropped (S1)."""
        found = self._db._followers.get(cid) or self._followers.get(cid)
        if found is None:
            epoch = self._epoch
            found = self._followers[cid] = Follower(cid, lambda: epoch, self._db._threads)
        return found

    def _matches(self, cid: int, view: View, where: Filter) -> BitMap:
        found = self._filters.get((cid, where))
        if found is None:
            found = self._follower(cid).evaluate(self._txn, view, where)
            if len(self._filters) >= KEPT_FILTERS:
                self._filters.clear()
            self._filters[cid, where] = found
        return found

    def _usable(self) -> None:
        self._db._usable()
        if self._txn is None or self._epoch != self._db._env.epoch:
            raise Closed("the snapshot has ended, or belongs to the parent process; make another")


class SnapshotCollection(ReadVerbs, ArrowVerbs, FacetVerbs, AnalysisVerbs):
    """A collection as a snapshot shows it: every verb that reads or searches, none that writes.

    >>> import vecdb
    >>> db = vecdb.open(); _ = db.create_collection("c", dim=2).add(["a", "b"], [[1, 0], [0, 1]])
    >>> with db.snapshot() as snap:
    ...     _ = db["c"].delete("a")
    ...     old = snap["c"]
    ...     old.name, old.schema.dim, old.search([1, 0]).ids
    ...     len(old), "a" in old, old["a"].id, [record.id for record in old]
    ('c', 2, ['a', 'b'])
    (2, True, 'a', ['a', 'b'])
    """

    __slots__ = ("_schema", "_snapshot")

    def __init__(self, snapshot: Snapshot, cid: int, schema: Schema) -> None:
        super().__init__(snapshot._db, cid)
        self._snapshot = snapshot
        self._schema = schema

    @property
    def schema(self) -> Schema:
        """The declaration as it was."""
        return self._schema

    def __getattr__(self, verb: str) -> NoReturn:
        if verb in WRITING:
            raise ReadOnly(f"{verb}: a snapshot only reads; write to db[{self.name!r}]")
        raise AttributeError(f"a collection of a snapshot has no {verb!r}")

    def __repr__(self) -> str:
        return f"SnapshotCollection({self.name!r}, commit {self._snapshot.commit}, {len(self):,} rows)"

    def __reduce__(self) -> Any:
        return self._snapshot.__reduce__()

    # --- what its verbs stand on -------------------------------------------------------------

    def _reading(self) -> Any:
        return self._snapshot._reading(self._cid)

    def _matches(self, txn: Any, view: Any) -> Any:
        return lambda where: self._snapshot._matches(self._cid, view, where)

    def _follower(self) -> Follower:
        return self._snapshot._follower(self._cid)

    def _space(self) -> None:
        return None

    def _live(self) -> bool:
        return False
