"""What does a thread see and change between the begin and the end of a transaction?

`Batch` is the one write transaction of a process: pending changes by collection, and how they are
committed and published. `Reading` gives a snapshot and the view of it, or the open batch's own.

Invariants (database.py, D1 to D3, say what they serve):
  T1  nothing is published before the commit has succeeded, and everything is before it returns;
  T2  an abort undoes what was begun in reverse: overlays, followers and handles of collections
      that were never made, then the transaction.
  T3  in a forked child an inherited transaction is not touched: neither LMDB's, nor the overlays,
      whose locks another thread of the parent may have had. Its commit is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vecdb.errors import Closed, Corrupt, InvalidArgument, NotFound, VecdbError
from vecdb.index import parts
from vecdb.index.columns import columns_of
from vecdb.index.texts import usable
from vecdb.index.view import View
from vecdb.index.writing import Writing
from vecdb.storage import embeddings, keys
from vecdb.storage.env import LMDB_ERRORS
from vecdb.storage.process import keep_forever
from vecdb.storage.rows import is_of_index
from vecdb.storage.schema import Schema, put

if TYPE_CHECKING:
    from vecdb.collection import Collection
    from vecdb.database import Database
    from vecdb.progress import Progress

Catalog = dict[str, tuple[int, Schema]]
NO_COLLECTION = 0  # a number that no collection has


class PerThread(threading.local):
    """Each thread's open transaction, and what waits for its next one."""

    batch: Batch | None = None
    quiet = False  # whether its searches are left out of the search log

    def __init__(self) -> None:
        self.made: dict[bytes, bytes] = {}  # embeddings that go with the thread's next commit


class Batch:
    """One write transaction: what is pending in which collection, and how it is committed."""

    def __init__(self, db: Database, timeout: float) -> None:
        self._db = db
        self._wt = db._env.begin_write(timeout)
        self.txn = self._wt.txn
        self.commit_number = self._wt.commit_number
        self.broken = False
        self._open = True
        self._writings: dict[int, Writing] = {}
        self._catalog_changed = False
        self.changed = False  # beside collections: the cache of embeddings, saved searches
        self.logged: list[Any] = []  # entries of the search log that go with this commit
        self.handles: list[Collection] = []
        try:
            db._refresh(self.txn, self._wt.last)
        except BaseException:
            db._env.abort(self._wt)
            raise
        self.catalog: Catalog = dict(db._catalog)

    def writing(self, cid: int) -> Writing:
        """The pending changes to one collection."""
        found = self._writings.get(cid)
        if found is None:
            follower = self._db._follower(cid)
            found = Writing(follower, self._wt)
            self._writings[cid] = found
        return found

    def mend(self, cid: int, report: Progress, done: int, *, everything: bool) -> int:
        """Build a collection's damaged indexes again from its rows, or all of them; how many."""
        from vecdb.index import rebuild

        follower, last = self._db._follower(cid), self._wt.last
        error = None
        try:
            self.writing(cid)
        except Corrupt as problem:
            if not (everything or is_of_index(problem)):
                raise
            error = problem
        if everything:
            schema = self._db._schema(cid)
            graphed = [each for each in schema.by_number.values() if each.graphed]
            wanted = rebuild.everything(
                (each.number for each in graphed), texts=columns_of(schema).any
            )
        else:
            wanted = rebuild.damaged(self.txn, follower, last, error)
        if wanted:
            self.forget(cid)
            if wanted.texts:
                self._renew_analysis(cid)
            made = rebuild.Rebuilding(follower, self._wt, wanted)
            self._writings[cid] = made
            made.run(report, done)
        elif error is not None:
            follower.forget()  # the file is whole: it is what this process had that did not fit
        return wanted.steps

    def _renew_analysis(self, cid: int) -> None:
        """Note in the declaration that full text is made by the analysis that is at hand."""
        schema = self._db._schema(cid)
        columns = columns_of(schema)
        if columns.missing:
            usable(columns, schema.name)
        if columns.outdated:
            texts = {
                each.name: replace(each.declared, fingerprint=each.analysis.fingerprint)
                for each in columns.listed
            }
            self.change_catalog(schema.name, (cid, replace(schema, fulltext=texts)))

    def forget(self, cid: int) -> None:
        """Drop what is pending in a collection that is going away."""
        writing = self._writings.pop(cid, None)
        if writing is not None:
            writing.rollback()

    def next_cid(self) -> int:
        """A collection number that was never used."""
        changes = self._wt.meta_changes
        cid = int(changes.get("next_cid", self._db._env.meta(self.txn).next_cid))
        changes["next_cid"] = cid + 1
        return cid

    def change_catalog(self, name: str, entry: tuple[int, Schema] | None) -> None:
        """Note a collection that is new, renamed or gone (entry None)."""
        if entry is None:
            cid, _ = self.catalog.pop(name)
            if name not in self.catalog and cid not in {c for c, _ in self.catalog.values()}:
                self.txn.delete(keys.catalog(cid))
        else:
            self.catalog[name] = entry
            put(self.txn, *entry)
            if entry[0] in self._writings:
                self._writings[entry[0]].declare(entry[1])
        self._catalog_changed = True

    def change_logging(self) -> None:
        """Let every process read anew what is logged."""
        self._catalog_changed = True

    def keep(self, made: Mapping[bytes, bytes]) -> None:
        """Write embeddings into the transaction."""
        embeddings.put(self.txn, made)
        self.changed = True

    def commit(self) -> None:
        """Write logs and states, commit, and publish to this process."""
        if self._wt.inherited:
            raise Closed(
                f"{self._db._env.path}: this transaction belongs to the parent process, which alone "
                "can commit it; begin one of your own"
            )
        if self.broken:
            raise InvalidArgument(
                "a write inside this transaction failed half way: it cannot be committed"
            )
        made = self._db._local.made
        if made:
            self.keep(made)
        changed = {c: w for c, w in self._writings.items() if w.changed}
        if not changed and not self._catalog_changed and not self.changed:
            self.abort()
            return
        if self._catalog_changed:
            version = self._db._env.meta(self.txn).catalog_version
            self._wt.meta_changes["catalog_version"] = version + 1
        if self._db._queue.is_due():
            self._db._queue.write(self)
        for writing in changed.values():
            writing.finish()
        for cid, writing in self._writings.items():
            if cid not in changed:
                writing.rollback()
        with ExitStack() as locks:
            for cid in sorted(changed):
                locks.enter_context(changed[cid].follower.lock)
            self._db._env.commit(self._wt)
            self._open = False
            made.clear()
            for writing in changed.values():
                writing.publish()

    def abort(self) -> None:
        """Leave no trace."""
        if not self._open:
            return
        self._open = False
        if self._wt.inherited:
            keep_forever(self)
            return
        self._db._queue.give_back(self.logged)
        for cid, writing in self._writings.items():
            writing.rollback()
            if cid not in self._db._schemas:  # created here: its number will be another's
                self._db._followers.pop(cid, None)
        for key in [k for k in self._db._encoders if k[0] not in self._db._schemas]:
            del self._db._encoders[key]
        for handle in self.handles:
            if handle._cid not in self._db._schemas:
                handle._cid = NO_COLLECTION
        self._db._env.abort(self._wt)


class Reading:
    """`with` gives (transaction, view) of one collection at one commit."""

    __slots__ = ("_cid", "_db", "_epoch", "_own")

    def __init__(self, db: Database, cid: int) -> None:
        self._db = db
        self._cid = cid
        self._own: Any = None

    def __enter__(self) -> tuple[Any, View]:
        db, cid = self._db, self._cid
        if db._closed:
            db._usable()
        batch = db._local.batch
        if batch is not None:
            db._schema(cid)
            writing = batch.writing(cid)
            return batch.txn, writing.view()
        env = db._env
        txn = self._own = env.begin_read()
        self._epoch = env.epoch
        try:
            commit = env.commit_number(txn)
            if commit > db._seen_commit:
                db._refresh(txn, commit)
            if cid not in db._schemas:
                raise NotFound("the collection of this handle was dropped")
            follower = db._followers.get(cid) or db._follower(cid)
            if follower.newest() is None:
                partial = parts.known(follower, commit)
                if partial is not None:
                    return txn, partial
            try:
                return txn, follower.at(txn, commit)
            except Corrupt as error:
                return txn, parts.view(follower, txn, commit, error)
        except BaseException as error:
            txn.abort()
            if isinstance(error, LMDB_ERRORS):
                raise env.translated(error) from error
            raise

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._own is not None and self._epoch == self._db._env.epoch:  # else a forked child's (D4)
            self._own.abort()
        if error is not None and not isinstance(error, VecdbError):
            env = self._db._env
            if isinstance(error, LMDB_ERRORS):
                raise env.translated(error) from error
