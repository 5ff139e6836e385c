"""Which rows came to match a saved search since a watcher acknowledged the last ones?

A `Watch` goes through the rows that commits changed, in the order of the commits, a page at a time and
each page in a snapshot of its own. Its place is a commit and a row within it: what is behind it has been
given out. `ack` of a batch writes the place of that batch into the file, for the watcher's next start.

Invariants:
  W1  every matching row that a commit after the watcher's place inserted or changed is given out, as it
      stands when it is given out, once for each time that it is found changed; a row that is changed again
      before its turn comes in its new place;
  W2  places only go forward, in the file as well: two that watch under one name both see everything;
  W3  what cannot be told from the index of changes (index/tracking.py), because tracking was not on yet, is
      told from the rows' own records, read once;
  W4  no transaction is held while its user works on a batch, or while it waits.

Rejected: a thread that pushes. Who watches would have to lock what it touches, and a slow one would pile
up batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import numpy as np
from pyroaring import BitMap

from vecdb.collection import Collection, parse_record
from vecdb.collection.searching import Options
from vecdb.errors import Closed, InvalidArgument, NotFound
from vecdb.index import tracking
from vecdb.query.objects import Near, Text
from vecdb.standing.asking import asked, given
from vecdb.storage import keys, rows, searches
from vecdb.storage.rows import PLAIN
from vecdb.storage.schema import Schema, VectorField, check_name
from vecdb.storage.searches import WHOLE, Position
from vecdb.types import Explanation, Hits, Plan, Record, score_of

if TYPE_CHECKING:
    from vecdb.standing.saved import SavedSearch

BATCH_ROWS: Final = 1_000  # of a batch, at most, and looked at in one snapshot
NAP_S: Final = (0.002, 0.03)  # between two looks at the commit number: at first, and at most


class WatchBatch(Hits):
    """Rows that came to match a standing search, in the order of the commits that changed them.

    They are Hits; scores are those of the search's `Near` or `Text`, distances those of a `Near`; NaN where
    there are none.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> news = db.searches.save("all", c, [1, 0]).watch("me", block=False)
    >>> _ = c.add("a", [1, 0], metadata={"year": 1999})
    >>> batch = next(news)
    >>> batch.ids, batch[0].metadata, batch.scores.tolist()
    (['a'], {'year': 1999}, [1.0])
    >>> batch.ack()
    """

    __slots__ = ("_place", "_watch")

    _place: Position
    _watch: Watch

    def ack(self) -> None:
        """Note in the file that this batch and those before it are done with; durable on return.

        A watcher of this name then starts behind it. Inside a transaction it is part of that. NotFound
        when the saved search was deleted, ReadOnly.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> saved = db.searches.save("all", c, [1, 0])
        >>> news = saved.watch("me", block=False)
        >>> _ = c.add("a", [1, 0])
        >>> next(news).ack(); list(saved.watch("me", block=False))
        []
        """
        self._watch._note(self._place)


class _Backlog(NamedTuple):
    """Rows that were changed before tracking began, in the order of the commits (W3)."""

    commits: Any
    rids: Any


class _Standing:
    """Where the hits of a batch come from (types.Source)."""

    __slots__ = ("_live", "_name", "_where", "dim", "given_scores", "metric")

    metric: str
    dim: int
    given_scores: Any
    sizes = None  # it makes no groups

    def __init__(
        self, name: str, live: int, where: str | None, metric: str, dim: int, scores: Any
    ) -> None:
        self._name, self._live, self._where = name, live, where
        self.metric, self.dim, self.given_scores = metric, dim, scores

    def record(self, at: int, payload: bytes) -> Record:
        """The row of hit `at`."""
        return parse_record(payload)

    def highlights(self, at: int, record: Record) -> list[Any]:
        """None: rows come because they changed."""
        return []

    def explain(self, at: int, score: float, distance: float) -> Explanation:
        """Where hit `at` stands in the batch."""
        return Explanation("", at + 1, score, distance)

    def plan(self, matches: int = 0) -> Plan:
        """What ran."""
        return Plan(self._name, "changes", None, matches, self._live, filter=self._where)


class _Page(NamedTuple):
    """The next rows of a snapshot, and where they end."""

    rids: list[int]
    place: Position
    last: bool  # nothing comes behind them for now


class Watch:
    """An iterator of the batches of a standing search; made by `SavedSearch.watch`.

    With `block=False` it ends when there is no more for now; asked again it goes on.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> db.searches.save("all", c, [1, 0]).watch("me", block=False)
    Watch('all', watcher='me')
    """

    def __init__(
        self, saved: SavedSearch, watcher: str, min_score: float | None, block: bool,
        timeout: float | None, place: Position,
    ) -> None:  # fmt: skip
        self._db = saved._db
        self._saved = saved
        self._read = b""  # the saved search as it was read last
        self._watcher = watcher
        self._min_score = min_score
        self._block = block
        self._timeout = timeout
        self._place = place  # what is behind it was given out
        self._seen = -1  # the commit that was gone through to its end
        self._backlog: _Backlog | None = None
        self._encoded: tuple[Near, str, VectorField, Any] | None = None

    def __iter__(self) -> Iterator[WatchBatch]:
        return self

    def __next__(self) -> WatchBatch:
        if self._db._local.batch is not None:
            _refuse("a watch inside a transaction sees nothing new; leave the with block first")
        until = None if self._timeout is None else time.monotonic() + self._timeout
        nap = NAP_S[0]
        while True:
            try:
                if self._db._commit_number() > self._seen:
                    batch = self._batch()
                    if batch is not None:
                        return batch
                    continue
            except Closed:
                if self._db._closed:
                    raise StopIteration from None
                raise
            if not self._block or (until is not None and time.monotonic() >= until):
                raise StopIteration
            time.sleep(nap)
            nap = min(1.5 * nap, NAP_S[1])

    def __repr__(self) -> str:
        return f"Watch({self._saved.name!r}, watcher={self._watcher!r})"

    # --- a batch -------------------------------------------------------------------------

    def _batch(self) -> WatchBatch | None:
        """The matches among the next rows, None where there are none; moves on behind these rows."""
        collection = self._saved.collection
        query = self._vector(collection, collection.schema)
        with collection._reading() as (txn, view):
            query = self._vector(collection, view.schema)  # the same, but after a switch
            self._look_at_search(txn)
            matches = view.live
            if self._saved.where is not None:
                matches = collection._matches(txn, view)(self._saved.where)
            page = self._page(collection, txn, view, matches)
            declared, distances = _distances(collection, txn, view, self._saved, query, page.rids)
            scores = _scores(collection, txn, view, self._saved, page.rids, declared, distances)
            rids = page.rids
            if self._min_score is not None:
                kept = np.flatnonzero(scores >= np.float32(self._min_score))
                rids = [rids[at] for at in kept.tolist()]
                distances, scores = distances[kept], scores[kept]
            ids, payloads = rows.read_many(txn.get, collection._cid, rids)
        self._place = page.place
        if page.last:
            self._seen = view.commit
        if not rids:
            return None
        where = None if self._saved.where is None else str(self._saved.where)
        metric, dim = ("l2", 1) if declared is None else (declared.metric, declared.dim)
        source = _Standing(collection.name, view.state.live, where, metric, dim, scores)
        batch = WatchBatch(ids, distances.tobytes(), payloads, (len(rids),), source)
        batch._watch, batch._place = self, page.place
        return batch

    def _vector(self, collection: Collection, schema: Schema) -> Any:
        """The query's vector, a text encoded once for a field; None where no vector is asked about."""
        query = self._saved.query
        if not isinstance(query, Near):
            return None
        known = self._encoded
        if known is not None and known[0] is query and schema.vectors.get(known[1]) == known[2]:
            return known[3]
        found = given(collection, query, _using(self._saved))
        name, declared = collection._searched(schema, _using(self._saved), found)
        self._encoded = query, name, declared, asked(collection, query, found, declared)
        return self._encoded[3]

    def _look_at_search(self, txn: Any) -> None:
        """Go on under the search as it is saved now; NotFound where it or the watcher is gone."""
        name, number = self._saved.name, self._saved._number
        record = txn.get(keys.search(name))
        if record is not None and bytes(record) != self._read:
            stored = searches.unpack(keys.search(name), record)
            self._read = bytes(record)
            record = record if stored.number == number else None
            if record is not None and stored.cid == self._saved._cid:
                self._saved = type(self._saved)(self._db, name, stored)
                check_min_score(self._saved, self._min_score)
        if record is None or txn.get(keys.watcher(number, self._watcher)) is None:
            raise _deleted(name, self._watcher)

    # --- which rows ----------------------------------------------------------------------

    def _page(self, collection: Collection, txn: Any, view: Any, matches: BitMap) -> _Page:
        """The next changed rows that match, in the order of commits and rids."""
        since, place = tracking.since(view.schema.tracked), self._place
        if place[0] < since:
            page = self._of_backlog(collection, txn, matches, since)
            if page is not None:
                return page
            place = since, WHOLE
        reader = collection._follower().attributes.reader(txn)
        walk = tracking.changed_after(view, reader, matches, *place)
        rids = list(islice(walk, BATCH_ROWS))
        if len(rids) < BATCH_ROWS:
            return _Page(rids, (view.commit, WHOLE), True)
        return _Page(rids, (_changed(txn, collection._cid, rids[-1]), rids[-1]), False)

    def _of_backlog(
        self, collection: Collection, txn: Any, matches: BitMap, since: int
    ) -> _Page | None:
        """The next of the rows that were changed before tracking began (W3); None behind the last."""
        if self._backlog is None:
            found = tracking.written_between(txn, collection._cid, self._place, since)
            self._backlog = _Backlog(*found)
        commits, rids = (each[:BATCH_ROWS].tolist() for each in self._backlog)
        self._backlog = _Backlog(*(each[BATCH_ROWS:] for each in self._backlog))
        if not rids:
            return None
        kept = [
            rid  # one that was changed again comes later
            for commit, rid in zip(commits, rids, strict=True)
            if rid in matches and _changed(txn, collection._cid, rid) == commit
        ]
        return _Page(kept, (commits[-1], rids[-1]), False)

    # --- acknowledging -------------------------------------------------------------------

    def _note(self, place: Position) -> None:
        name, number = self._saved.name, self._saved._number
        with self._db._batch() as batch:
            known = searches.position(batch.txn, number, self._watcher)
            if known is None:
                raise _deleted(name, self._watcher)
            if place > known:
                searches.put_position(batch.txn, number, self._watcher, place)
                batch.changed = True


# --- beginning -----------------------------------------------------------------------------------


def begin(
    saved: SavedSearch, watcher: Any, min_score: Any, start: Any, block: Any, timeout: Any
) -> Watch:
    """A watch from where its watcher is, or, for a new one, where it is told to start."""
    check_name("watcher", watcher)
    if start not in ("now", "beginning"):
        _refuse(f"start={start!r:.40}: choose one of now, beginning")
    if type(block) is not bool:
        _refuse(f"block={block!r:.40}: give True or False")
    if timeout is not None and (not _is_number(timeout) or timeout < 0):
        _refuse(f"timeout={timeout!r:.40}: give seconds from 0, or None to wait for as long as it takes")
    check_min_score(saved, min_score)
    db, cid = saved._db, saved.collection._cid
    db._outside_transaction("watch")
    place = _known_place(saved, watcher)
    if place is None:
        with db._batch() as batch:
            schema = db._schema(cid)
            if not tracking.is_on(schema.tracked):
                turned = replace(schema, tracked=(*schema.tracked, batch.commit_number))
                batch.change_catalog(schema.name, (cid, turned))
            if batch.txn.get(keys.search(saved.name)) is None:
                raise _deleted(saved.name, watcher)
            place = searches.position(batch.txn, saved._number, watcher)
            if place is None:  # nobody was quicker
                place = (batch.commit_number if start == "now" else 0), WHOLE
                searches.put_position(batch.txn, saved._number, watcher, place)
                batch.changed = True
    return Watch(saved, watcher, min_score, block, timeout, place)


def check_min_score(saved: SavedSearch, min_score: Any) -> None:
    """Refuse a score that is none, or that no single vector query gives."""
    if min_score is None:
        return
    if not _is_number(min_score):
        _refuse(f"min_score={min_score!r:.40}: give a number, or None for every row that the filter takes")
    if not isinstance(saved.query, Near | Text):
        _refuse(
            f"min_score: saved search {saved.name!r} is a {type(saved.query).__name__}, whose scores mean "
            "something among the rows of one search only; watch with a filter alone, or save a Near or a Text"
        )


def _known_place(saved: SavedSearch, watcher: str) -> Position | None:
    """Where a watcher is; None where it is new, or its collection's changes are not tracked."""
    db = saved._db
    with db.searches._reading() as txn:
        place = searches.position(txn, saved._number, watcher)
    return place if tracking.is_on(db._schema(saved._cid).tracked) else None


# --- rows ----------------------------------------------------------------------------------------


def _distances(
    collection: Collection, txn: Any, view: Any, saved: SavedSearch, query: Any, rids: list[int]
) -> tuple[Any, Any]:
    """The vector field that a `Near` goes by, and the rows' distances (float32; NaN without a vector)."""
    found = np.full(len(rids), np.nan, np.float32)
    if query is None:
        return None, found
    name, declared = collection._searched(view.schema, _using(saved), query)
    context = collection._context(txn, view, name, declared, None)
    places = {rid: at for at, rid in enumerate(rids) if rid < PLAIN}
    slots = BitMap(places.keys())
    if context.held is not None:
        slots &= context.held.rids
    if slots:
        ranked, distances = context.field.graph.scan(
            query, len(slots), np.array(slots, np.uint32), mask=None, n_visible=view.slots, exact=True,
            rr=0, threads=1,
        )  # fmt: skip
        found[[places[slot] for slot in ranked]] = np.frombuffer(distances, np.float32)
    return declared, found


def _scores(
    collection: Collection, txn: Any, view: Any, saved: SavedSearch, rids: list[int], declared: Any,
    distances: Any,
) -> Any:  # fmt: skip
    """The rows' scores (float32): of a `Near` or a `Text`, NaN where a row has none."""
    if declared is not None:
        return score_of(declared.metric, declared.dim, distances)
    if not isinstance(saved.query, Text) or not rids:
        return np.full(len(rids), np.nan, np.float32)
    request = collection._request(Options(where=saved.where))
    ranker = collection._ranker(collection._place(txn, view, request, None), saved.query)
    return ranker.scores(np.array(rids, np.uint32)).astype(np.float32)


def _using(saved: SavedSearch) -> Any:
    assert isinstance(saved.query, Near)
    return saved.query.using or saved.options.get("using")


def _changed(txn: Any, cid: int, rid: int) -> int:
    """The commit that changed a row last."""
    return int.from_bytes(rows.payload(txn, cid, rid)[:8], "little")


def _deleted(name: str, watcher: str) -> NotFound:
    return NotFound(
        f"saved search {name!r:.60} was deleted, or its watcher {watcher!r:.60} with the collection that it "
        "watched; save it and watch again"
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(value == value)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
