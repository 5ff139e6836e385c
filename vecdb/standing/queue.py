"""How is a search logged without being slowed down?

A search appends one entry to its handle's queue and returns. What waits is written in commits of many: by a
thread that lives while searches are logged, by the handle's own commits, when the log is read, and at
`close()`. A process that is killed loses what waits, half a second's worth.

Invariants:
  Q1  a search waits for no lock and no disk; what it notes is a copy that nobody changes;
  Q2  the queue is bounded; what does not fit is dropped and counted;
  Q3  an entry is written once: it is taken out by whoever holds the writer lock, and put back when
      the commit does not happen;
  Q4  the thread keeps no database alive, and ends with `close()`, or when nothing is logged any more;
  Q5  an entry that cannot be written down is dropped and counted, alone: it takes no commit with it.

Rejected: writing in the thread of the search, which would wait for the disk once in a while.
"""

from __future__ import annotations

import secrets
import threading
import time
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.errors import VecdbError
from vecdb.query.numbers import Numbers
from vecdb.query.objects import Query
from vecdb.query.values import Value, given_example
from vecdb.query.written import plain
from vecdb.storage import codec, searchlog

if TYPE_CHECKING:
    from vecdb.batch import Batch
    from vecdb.database import Database
    from vecdb.types import Hits

EVERY_S: Final = 0.5  # between two commits of the thread
MOST_BYTES: Final = 32 << 20  # of memory that entries take which wait, roughly
OWN: Final = 512  # of it, an entry's own
DUE: Final = 256  # entries that the next commit of the handle takes along, or older ones
STRETCH: Final = 1 << 17  # bytes of packed entries in a record, about
MAX_SHOWN: Final = 1_000  # ids of a search that are kept
_IDLE_S: Final = 10.0  # without anything to log, before the thread ends

_ARRAY: Final = np.ndarray
_now: Final = time.time

HOLDS: Final = (str, tuple, Value, Numbers)  # what may be large inside of a query

# id, unix time, collection, query, options, ids shown
Entry = tuple[int, float, int, Any, Any, tuple[Any, ...]]
NAMES: Final = (  # options, the last four where there is a shape (collection/composing.py)
    "k", "where", "using", "recall", "ef", "exact", "radius", "offset", "group_by", "group_size",
    "diversity", "boost",
)  # fmt: skip
USUAL: Final = (10, None, None, 0.95, None, False, None, 0, None, 1, None, ())


class Queue:
    """What waits to be logged by one handle."""

    def __init__(self, db: Database, thread: bool) -> None:
        self._db = weakref.ref(db)
        self._waiting: deque[Entry] = deque()
        self._ids = count(secrets.randbits(62))
        self._bytes = 0
        self._threaded = thread
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.dropped = 0
        self.replays = 0  # under way: the searches of their threads are not logged

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, cid: int, query: Any, options: Any, hits: Hits) -> None:
        """Remember a search; `options`: the values of NAMES as `search` was given them.

        `query`: a float32 array, or what numpy makes one of, a text or a query object. On the way of every
        search (0.8 us): so nothing is called here that need not be.
        """
        if self.replays and self._is_replay():
            return
        if self._bytes > MOST_BYTES:
            self.dropped += 1
            return
        if type(query) is _ARRAY:
            query = query.tobytes()
        elif not isinstance(query, str | Query):
            query = np.asarray(query, np.float32).tobytes()
        shown = tuple(hits._ids)
        id = next(self._ids)
        hits._logged = cid, id
        self._waiting.append((id, _now(), cid, query, options, shown))
        self._bytes += OWN + (len(query) if type(query) is bytes else _length(query)) + 16 * len(shown)
        if self._thread is None and self._threaded:
            self._start()

    def _is_replay(self) -> bool:
        """Whether this thread runs logged searches again."""
        db = self._db()
        return db is not None and db._local.quiet

    def is_due(self) -> bool:
        """Whether a commit of the handle should take along what waits."""
        waiting = self._waiting
        if not waiting:
            return False
        return len(waiting) >= DUE or time.time() - waiting[0][1] > EVERY_S

    def write(self, batch: Batch) -> None:
        """Put what waits into a write transaction (Q3)."""
        taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._bytes = 0
        db = self._db()
        logging = searchlog.read(batch.txn)
        logged = logging.logged() & {cid for cid, _ in batch.catalog.values()}
        found = [entry for entry in taken if entry[2] in logged and entry[1] > logging.cleared]
        batch.logged += found
        if db is None or not found:
            return
        key = db._env.veil_key() or db._env.renew_veil()
        by_collection: defaultdict[int, list[Entry]] = defaultdict(list)
        for entry in found:
            by_collection[entry[2]].append(entry)
        for cid, entries in by_collection.items():
            limit = min(STRETCH, logging.collections[cid].max_bytes // 8)
            for content in self._stretches(entries, limit):
                searchlog.append(batch.txn, logging, cid, searchlog.SEARCHES, content, key)
        searchlog.write(batch.txn, logging)
        batch.changed = True

    def _stretches(self, entries: list[Entry], limit: int) -> Iterator[bytes]:
        """Packed entries, in records of about `limit` bytes."""
        places: dict[Any, int] = {}
        options: list[Any] = []
        some: list[Any] = []
        size = 0
        for id, at, _, query, asked, shown in entries:
            try:
                place = places.get(asked)
                if place is None:
                    made = _written(asked)
                    size += len(codec.pack(made))
                    options.append(made)
                    place = places[asked] = len(options) - 1
                written = plain(query) if isinstance(query, Query) else query
                if type(written) is str:
                    given_example("query", written)  # what no query object could be is none in the log
                size += len(written) if type(written) is bytes else len(codec.pack(written))
            except (VecdbError, TypeError, ValueError, OverflowError):  # it cannot be written down
                self.dropped += 1
                continue
            shown = shown[:MAX_SHOWN]
            some.append((id, at, written, place, shown))
            size += 64 + 4 * len(shown)
            if size >= limit:
                yield searchlog.packed(some, options)
                places, options, some, size = {}, [], [], 0
        if some:
            yield searchlog.packed(some, options)

    def give_back(self, taken: list[Entry]) -> None:
        """Let entries wait again whose commit did not happen."""
        if taken:
            self._waiting.extendleft(reversed(taken))
            self._bytes += sum(map(_size, taken))
            taken.clear()

    def forget(self) -> None:
        """Drop what waits: it is erased."""
        self._waiting.clear()
        self._bytes = 0

    def flush(self, timeout: float) -> None:
        """Write what waits in a commit of its own; an error leaves it waiting."""
        db = self._db()
        if db is None or not self._waiting:
            return
        with suppress(VecdbError), db._batch(timeout) as batch:
            self.write(batch)

    def close(self) -> None:
        """End the thread, and write what waits if the writer's turn comes within a second."""
        with self._lock:
            self._stopped = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self.flush(1.0)
        self.dropped += len(self._waiting)
        self._waiting.clear()

    # --- the thread ----------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="vecdb search log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stopped:
            self._wake.wait(EVERY_S)
            if self._waiting:
                last = time.monotonic()
                self.flush(1.0)
            elif time.monotonic() - last > _IDLE_S or self._db() is None:
                break
        with self._lock:
            self._thread = None


def _size(entry: Entry) -> int:
    return OWN + _length(entry[3]) + 16 * len(entry[5])


def _length(query: Any) -> int:
    """The bytes that a query takes in memory, roughly."""
    if isinstance(query, bytes | str):
        return len(query)
    if isinstance(query, Numbers):
        return OWN + len(query.data)
    if isinstance(query, Value):
        return OWN + sum(map(_length, query._fields()))
    if isinstance(query, tuple):
        return OWN + 40 * len(query) + sum(_length(each) for each in query if isinstance(each, HOLDS))
    return 0


def _written(options: Any) -> dict[str, Any]:
    """Options that are not as they are without being given, as plain data."""
    found: dict[str, Any] = {}
    for name, value, usual in zip(NAMES, options, USUAL, strict=False):  # without a shape it ends early
        if name == "boost":
            if value:
                found[name] = plain(value)
        elif name == "where":
            if value is not None:
                found[name] = value.to_dict()
        elif value != usual or name == "k":
            found[name] = value
    return found
