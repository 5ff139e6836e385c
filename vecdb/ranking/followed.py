"""How does what a process keeps of a field's rows follow the commits?

What a ranker needs of a field without a graph (codes of many vectors) may follow from the rows. A process
makes it when first asked, from all of them, and goes on from commit to commit at the cost of the rows that
came and went.

Invariants:
  T1  what is kept stands for the rows of one commit, its own; it never changes: the next commit has another
      that shares what stayed;
  T2  a row's vectors never change under its number; a number below PLAIN may be another row's once slots were
      handed out again: then what is kept of slots is of no use to other commits (`shared`);
  T3  nothing is made or followed inside a transaction: its own rows are read from it.

Rejected: all of it in the file, as graphs are, for codes: they follow from the vectors, and would be written,
logged and checked with them.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pyroaring import BitMap

from vecdb.storage import keys, log
from vecdb.storage.log import RowsPart
from vecdb.storage.meta import FRAME
from vecdb.storage.rows import PLAIN

if TYPE_CHECKING:
    from vecdb.index.view import View
    from vecdb.storage.schema import VectorField
    from vecdb.storage.vectors import Layout


class Stand(NamedTuple):
    """The rows of one commit."""

    commit: int
    reused_last: int  # the last commit that handed out a slot again
    live: BitMap
    rids: BitMap  # those that have something in the field

    def shared(self, view: View) -> BitMap:
        """The rows that have the same in a view, older or newer (T2)."""
        if view.commit == self.commit:
            return self.rids
        found = self.rids & view.live
        if max(self.reused_last, view.state.reused_last) > min(self.commit, view.commit):
            found -= BitMap(range(PLAIN))
        return found


class Changed(NamedTuple):
    """What commits did: the rows to read, ascending, and those to forget."""

    born: list[int]
    gone: BitMap


class Kept(ABC):
    """What is kept for one commit."""

    stand: Stand

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory."""


What = TypeVar("What", bound=Kept)


class Store(ABC, Generic[What]):
    """What is kept of one field in this process."""

    def __init__(self, cid: int, layout: Layout, declared: VectorField) -> None:
        self._cid = cid
        self._layout = layout
        self._metric = declared.metric
        self._lock = threading.Lock()
        self.newest: What | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return 0 if self.newest is None else self.newest.nbytes

    def known(self, view: View) -> What | None:
        """What is in memory, if it stands for a view as it is."""
        found = self.newest
        return found if found is not None and found.stand.commit == view.commit else None

    def at(self, txn: Any, view: View) -> What:
        """What is kept for a view, or for a later commit; made or brought up to it where needed."""
        found = self.newest
        if found is not None and found.stand.commit >= view.commit:
            return found
        with self._lock:
            found = self.newest
            if found is not None and found.stand.commit >= view.commit:
                return found
            changed = None if found is None else _changed(txn, self._cid, view, found.stand)
            if found is None or changed is None:
                made = self._made(txn, view, None, self._records(txn), BitMap())
            else:
                made = self._made(txn, view, found, self._some(txn, changed.born), changed.gone)
            self.newest = made
            return made

    @abstractmethod
    def _made(
        self, txn: Any, view: View, old: What | None, records: Iterable[tuple[int, Any]], gone: BitMap
    ) -> What:
        """What is kept for a view: the old without the rows `gone`, and records of rows, ascending."""

    def _records(self, txn: Any) -> Iterator[tuple[int, Any]]:
        """Each row's number and record in the field, in order."""
        prefix = keys.many_vectors(self._cid, self._layout.number, 0)[:-4]
        cursor = txn.cursor()
        if not cursor.set_range(prefix):
            return
        for key, record in cursor.iternext():
            if bytes(key[: len(prefix)]) != prefix:
                return
            yield int.from_bytes(key[len(prefix) :], "big"), record

    def _some(self, txn: Any, rids: list[int]) -> Iterator[tuple[int, Any]]:
        """The same of some rows, those that have none left out."""
        for rid in rids:
            record = txn.get(keys.many_vectors(self._cid, self._layout.number, rid))
            if record is not None:
                yield rid, record


def _changed(txn: Any, cid: int, view: View, old: Stand) -> Changed | None:
    """What happened since; None where nothing tells."""
    if view.state.rows_cut > old.commit:
        if view.state.reused_last > old.commit:
            return None
        return Changed(list(view.live - old.live), old.live - view.live)
    touched = BitMap()
    for at, _, payload in log.read(txn, cid, old.commit, view.commit, only=log.ROWS):
        part = RowsPart.unpack(payload, cid, at)
        touched.update(part.born)
        touched.update(part.died)
    return Changed(list(touched & view.live), touched)


# --- which rows have vectors ---------------------------------------------------------------------


def holders(txn: Any, cid: int, number: int) -> BitMap:
    """The rows of a transaction with at least one vector in a field: a pass over the keys."""
    prefix = keys.many_vectors(cid, number, 0)[:-4]
    cursor = txn.cursor()
    found: list[int] = []
    if cursor.set_range(prefix):
        for key, record in cursor.iternext():
            if bytes(key[:-4]) != prefix:
                break
            if len(record) > FRAME:
                found.append(int.from_bytes(key[-4:], "big"))
    return BitMap(found)


def holding(txn: Any, cid: int, number: int, rids: Iterable[int]) -> BitMap:
    """Those of some rows."""
    found = []
    for rid in rids:
        record = txn.get(keys.many_vectors(cid, number, rid))
        if record is not None and len(record) > FRAME:
            found.append(rid)
    return BitMap(found)
