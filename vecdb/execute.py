"""How is a search run? From a view and a query vector to hits.

One path for every caller: outside a transaction the view is the follower's and the transaction a
read transaction held from the filter to the last row; inside, both are the transaction's own.

Invariants:
  X1  a hit is a live row of the view that satisfies the filter, and has a vector in the field;
  X2  without a radius there are min(k, max(0, matches - offset)) hits, never fewer;
  X3  hits are ranked by the stored vectors, nearest first, ties by slot;
  X4  an offset and a radius are cuts of one ranking: what they leave is what stands there without.

A miss before a page moves the page, so a walk for rows 91 to 100 must find the first 90 as well: it aims
at `Request.aim`, not at the recall that was asked for.
Rejected: walks that stop at the radius. The codes that they walk on know distances only roughly, and
the best k within it are a beginning of the best k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb import _core, parallel
from vecdb.fields import declared
from vecdb.index.effort import WIDEST, rerank
from vecdb.index.parts import Damaged
from vecdb.index.view import Cut, Graphed, Held, View, slots_of
from vecdb.query.filter import Filter
from vecdb.query.plan import Choice, Question, choose
from vecdb.storage import rows, vectors
from vecdb.storage.keys import META_KEY
from vecdb.storage.tree import Snapshot
from vecdb.storage.vectors import Layout
from vecdb.types import Explanation, Hits, Id, Plan, Record

MAX_CHOICES: Final = 256  # plans that a view remembers
DEFAULT_WIDTH: Final = 64  # before anything was measured
ONE_THREAD: Final = 50_000  # rows that a scan of one query ranks on the caller's thread
WALKS: Final = ("graph", "filtered graph")
WORTH_THREADS_US: Final = 1_000  # scans that take longer together are spread over threads,
LONG_SCAN_US: Final = 50  # unless each is so short that threads would wait for the interpreter's lock
Found = tuple[list[int], bytes]
NOTHING: Final[Found] = ([], b"")


@dataclass(frozen=True, slots=True)
class Request:
    """A search's options, validated."""

    k: int | None  # None: every match
    where: Filter | None = None
    recall: float = 0.95
    ef: int | None = None
    exact: bool = False
    radius: float | None = None  # a float32
    offset: int = 0
    with_vectors: bool = False

    def as_asked(self, using: str | None) -> tuple[Any, ...]:
        """The options as the search log keeps them (standing/queue.py, NAMES)."""
        return (
            self.k, self.where, using, self.recall, self.ef, self.exact, self.radius, self.offset,
        )  # fmt: skip

    @property
    def complete(self) -> bool:
        """Whether nothing may be missed."""
        return self.exact or self.k is None or (self.ef is None and self.recall >= 1)

    @property
    def aim(self) -> float:
        """The recall among the best k + offset at which a page of k has the recall asked for."""
        if self.k is None:
            return 1.0
        return 1 - (1 - self.recall) * self.k / (self.k + self.offset)

    def reach(self, matching: int) -> int:
        """How many of the nearest matches must be ranked; 0: nothing is left of them."""
        if self.offset >= matching:
            return 0
        return matching if self.k is None else self.k + self.offset

    def expected(self, reached: float) -> float:
        """The recall of a page, given the recall among the best k + offset."""
        if self.k is None:
            return 1.0
        return max(0.0, 1 - (1 - reached) * (self.k + self.offset) / self.k)


class Context(NamedTuple):
    """Where a search runs."""

    name: str
    cid: int
    field_name: str
    txn: Any
    view: View
    layout: Layout
    field: Graphed
    held: Held | None  # the rows with a vector in the field; None: all that have a slot
    matches: Callable[[Filter], BitMap] | None  # None: the search has no filter
    parse: Callable[[bytes], Record]
    threads: int
    snapshot: Snapshot | None = None  # reads rows faster than the transaction, where there is one
    cut: Cut | None = None  # the rows of the filter, where somebody has found them already

    @property
    def ranked(self) -> int:
        """Live rows with a vector in the field."""
        return self.view.ranked(self.field.declared.number).ranked


class _Scope(NamedTuple):
    """The rows that a search may return."""

    matching: int
    mask: bytes | None
    slots: Any  # uint32 array of the matches under a filter, else None
    filter_ns: int


class Run(NamedTuple):
    """A request with everything decided."""

    request: Request
    scope: _Scope
    reach: int  # how many of the nearest are ranked, before the cuts
    width: int
    choice: Choice
    mask: bytes | None = None  # what a walk tests


def search(context: Context, query: Any, request: Request) -> tuple[Hits, Any]:
    """The best `k` rows of a view for a float32 vector, and the same search made ready for more.

    The second is a `_core.Prepared`, or None where the next search must come this way again.
    """
    started = perf_counter_ns()
    run = _masked(context, _plan_run(context, request))
    searching = perf_counter_ns()
    found, computed, fallback = _run(context, query, run)
    ended = perf_counter_ns()
    hits = _hits(context, run, found, computed, fallback, (started, searching, ended))
    return hits, _prepare(context, run)


def search_many(context: Context, queries: Any, request: Request) -> list[Hits]:
    """The same for every row of `queries` (b, d), on all threads."""
    started = perf_counter_ns()
    run = _masked(context, _plan_run(context, request))
    searching = perf_counter_ns()
    answers = _run_many(context, queries, run)
    ended = perf_counter_ns()
    share = (searching, searching + (ended - searching) // max(1, len(answers)))
    return [
        _hits(context, run, found, computed, fallback, (started, *share))
        for found, computed, fallback in answers
    ]


def ranking(context: Context, query: Any, request: Request, *, whole: bool = False) -> Found:
    """What `search` finds, as slots and distances; `whole`: with what its cuts take away."""
    run = _masked(context, _plan_run(context, request))
    if whole:
        run = run._replace(request=replace(request, radius=None, offset=0))  # planned already
    return _run(context, query, run)[0]


def told_ranking(context: Context, query: Any, request: Request) -> tuple[Found, Origin]:
    """What `search` finds, as slots and distances, and what tells how."""
    run = _masked(context, _plan_run(context, request))
    return _run(context, query, run)[0], Origin(context, run)


def rankings(context: Context, queries: Any, request: Request) -> list[Found]:
    """What `search_many` finds, as slots and distances: rows are not read."""
    run = _masked(context, _plan_run(context, request))
    return [found for found, _, _ in _run_many(context, queries, run)]


def explain(context: Context, request: Request) -> Plan:
    """What `search` would do, without doing it."""
    return origin(context, request).plan()


def origin(context: Context, request: Request) -> Origin:
    """The same as what tells it later."""
    return Origin(context, _plan_run(context, request))


# --- the steps -------------------------------------------------------------------------------


def _scope(context: Context, where: Filter | None) -> _Scope:
    view, held, ranked = context.view, context.held, context.ranked
    mask = view.mask if held is None else held.mask
    if where is None or context.matches is None:
        return _Scope(ranked, mask, None, 0)
    started = perf_counter_ns()
    if context.cut is not None and held is None:
        slots = context.cut.slots
    else:
        matching = context.matches(where)
        slots = slots_of(matching if held is None else matching & held.rids, view.slots)
    if len(slots) == ranked:
        return _Scope(len(slots), mask, None, perf_counter_ns() - started)
    return _Scope(len(slots), None, slots, perf_counter_ns() - started)


def _plan_run(context: Context, request: Request) -> Run:
    """Scope, width and plan; the latter two are remembered by the view, as counts decide them."""
    scope = _scope(context, request.where)
    known = context.view.choices
    number = context.field.declared.number
    reach = request.reach(scope.matching)
    key = (
        number, scope.matching, request.k, request.offset, request.recall, request.ef, request.exact,
    )  # fmt: skip
    found = known.get(key)
    if found is None:
        width = _width(context, request, scope, reach)
        found = (width, _choose(context, request, scope, reach, width))
        if len(known) >= MAX_CHOICES:
            known.clear()
        known[key] = found
    return Run(request, scope, reach, *found)


def _width(context: Context, request: Request, scope: _Scope, reach: int) -> int:
    effort, ranked = context.field.measured, context.ranked
    if request.ef is not None:
        return request.ef
    if effort is None:
        return max(DEFAULT_WIDTH, 2 * reach)
    return effort.width(request.aim, reach, ranked, _share(scope.matching, ranked))


def _share(count: int, ranked: int) -> float:
    return count / ranked if ranked else 1.0


def _choose(context: Context, request: Request, scope: _Scope, reach: int, width: int) -> Choice:
    effort, ranked = context.field.measured, context.ranked
    share = _share(scope.matching, ranked)
    wide_enough = effort is not None and (
        width < WIDEST or effort.expected(width, reach, share) >= request.aim
    )
    return choose(
        Question(
            reach,
            scope.matching,
            ranked,
            width,
            _code_bytes(context.layout),
            context.layout.stride,
            request.complete,
            request.ef is not None or wide_enough,
            effort.cost(width, share) if effort else None,
        )
    )


def _code_bytes(layout: Layout) -> int:
    """Bytes of a code: one a number, or the bits themselves."""
    numbers = layout.stride if layout.dtype == "b1" else layout.dim
    return -(-numbers // 64) * 64


def _run(context: Context, query: Any, run: Run) -> tuple[Found, int, bool]:
    """What one query finds, the distances that it took, and whether a walk came up short."""
    strategy, matching = run.choice.strategy, run.scope.matching
    if strategy == "nothing":
        return NOTHING, 0, False
    if strategy not in WALKS:
        return _scan(context, query, run, exact=strategy == "exact scan"), matching, False
    found, distances, computed, _, exhausted = context.field.graph.search(
        query, run.reach, run.width, rerank(run.reach), run.mask, context.view.slots,
        run.choice.budget,
    )  # fmt: skip
    if not exhausted and len(found) >= min(run.reach, matching):
        return _cut(run.request, found, distances), computed, False
    return _scan(context, query, run, exact=False), computed + matching, True


def _run_many(context: Context, queries: Any, run: Run) -> list[tuple[Found, int, bool]]:
    """The same for several queries."""
    strategy, matching = run.choice.strategy, run.scope.matching
    if strategy == "nothing":
        return [(NOTHING, 0, False)] * len(queries)
    if strategy not in WALKS:
        exact = strategy == "exact scan"
        return [(found, matching, False) for found in _scans(context, queries, run, exact=exact)]
    walked = context.field.graph.search_many(
        queries, run.reach, run.width, rerank(run.reach), run.mask, context.view.slots,
        run.choice.budget, context.threads,
    )  # fmt: skip
    least = min(run.reach, matching)
    short = [i for i, w in enumerate(walked) if w[4] or len(w[0]) < least]
    scanned = dict(zip(short, _scans(context, queries[short], run, exact=False), strict=True))
    return [
        (scanned[i], w[2] + matching, True)
        if i in scanned
        else (_cut(run.request, w[0], w[1]), w[2], False)
        for i, w in enumerate(walked)
    ]


def _masked(context: Context, run: Run) -> Run:
    """With the bit set of a walk: the matches, or the live slots where all of them match."""
    if run.choice.strategy not in WALKS:
        return run
    if run.scope.slots is None:
        return run._replace(mask=run.scope.mask)
    if context.cut is not None and run.scope.slots is context.cut.slots:
        return run._replace(mask=context.cut.mask)
    return run._replace(mask=_core.mask_of(run.scope.slots, context.view.slots))


def _scan(
    context: Context, query: Any, run: Run, *, exact: bool, threads: int | None = None
) -> Found:
    scope = run.scope
    if threads is None:
        threads = context.threads if scope.matching > ONE_THREAD else 1
    found, distances = context.field.graph.scan(
        query, run.reach, scope.slots, mask=scope.mask, n_visible=context.view.slots, exact=exact,
        rr=scan_rerank(run.reach), threads=threads,
    )  # fmt: skip
    return _cut(run.request, found, distances)


def _scans(context: Context, queries: Any, run: Run, *, exact: bool) -> list[Found]:
    """Scans for several queries: side by side, each on its share of the threads."""
    each_us = run.choice.scan_us
    worth = each_us >= LONG_SCAN_US and len(queries) * each_us >= WORTH_THREADS_US
    threads = context.threads if worth else 1
    share = max(1, threads // max(1, len(queries)))
    return parallel.mapped(
        lambda query: _scan(context, query, run, exact=exact, threads=share), queries, threads
    )


def _cut(request: Request, slots: list[int], distances: bytes) -> Found:
    """What the radius and the offset leave of a ranking (X4)."""
    start, end = request.offset, len(slots)
    if request.radius is not None:
        known = np.frombuffer(distances, np.float32)
        end = int(np.searchsorted(known, np.float32(request.radius), side="right"))
    if start == 0 and end == len(slots):
        return slots, distances
    return slots[start:end], distances[4 * start : 4 * max(start, end)]


def scan_rerank(k: int) -> int:
    """How many of a code scan's results are ranked by their stored vectors."""
    return 2 * k + 16


def _hits(
    context: Context,
    run: Run,
    found: Found,
    computed: int,
    fallback: bool,
    times: tuple[int, int, int],
) -> Hits:
    slots, distances = found
    ids, payloads = _rows(context, slots)
    stored = _vectors(context, slots) if run.request.with_vectors else None
    started, searching, ended = times
    figures = (
        computed, ended - searching, perf_counter_ns() - started, fallback, run.scope.filter_ns,
    )  # fmt: skip
    return Hits(ids, distances, payloads, figures, Origin(context, run, stored))


def _rows(context: Context, slots: list[int]) -> tuple[list[Id], list[bytes]]:
    """Ids and payloads, straight from the map where that is possible and finds nothing wrong."""
    if context.snapshot is not None:
        rids = np.array(slots, np.uint32)
        found: tuple[list[Id], list[bytes]] | None = context.snapshot.tree.rows(context.cid, rids)
        if found is not None:
            return found
    return rows.read_many(context.txn.get, context.cid, slots)


def _vectors(context: Context, slots: list[int]) -> Any:
    found = vectors.read(context.txn, context.cid, context.layout, np.array(slots, np.uint32))
    return vectors.shown(found, context.field.declared)


def _prepare(context: Context, run: Run) -> Any:
    """The search as one object that needs nothing but the query, for this commit."""
    snapshot, scope, request, view = context.snapshot, run.scope, run.request, context.view
    strategy = run.choice.strategy
    if snapshot is None or request.with_vectors or strategy == "nothing":
        return None
    if isinstance(context.field.graph, Damaged):
        return None
    scans = strategy not in WALKS
    if scans and scope.matching > ONE_THREAD:
        return None
    reach = run.reach
    return _core.Prepared(
        context.field.graph, snapshot.tree, snapshot.shared, snapshot.begin, META_KEY, snapshot.record,
        context.cid, Hits, Origin(context, run), reach,
        min(reach, scope.matching),
        ef=0 if scans else run.width,
        rr=scan_rerank(reach) if scans else rerank(reach),
        mask=scope.mask if scans else run.mask,
        n_visible=view.slots,
        budget=run.choice.budget,
        scans=scans,
        slots=scope.slots if scans else None,
        exact=strategy == "exact scan",
        no_zero=context.field.declared.metric == "cosine",
        bits=context.field.declared.dtype == "b1",
        offset=request.offset,
        radius=float("inf") if request.radius is None else request.radius,
    )  # fmt: skip


class Origin:
    """What hits know of their search: decodes their rows, describes the run (types.Source).

    Users keep hits for as long as they like: neither the transaction (an ended one still has its
    place in the reader table), nor view, graph, mask or matching slots are kept with them.
    """

    __slots__ = (
        "_effort", "_fields", "_live", "_name", "_parse", "_ranked", "_run", "_stored", "_using",
        "dim", "metric",
    )  # fmt: skip

    metric: str
    dim: int
    given_scores = None  # they follow from the distances
    sizes = None  # it makes no groups

    def __init__(self, context: Context, run: Run, stored: Any = None) -> None:
        view = context.view
        self._name = context.name
        self._parse = context.parse
        self._effort = context.field.measured
        self._live, self._ranked = view.state.live, context.ranked
        self._using = context.field_name
        self._run = run._replace(scope=run.scope._replace(mask=None, slots=None), mask=None)
        self._stored = stored
        self._fields = view.schema.fields
        self.metric, self.dim = context.field.declared.metric, context.field.declared.dim

    def record(self, at: int, payload: bytes) -> Record:
        """The row of hit `at`."""
        record = self._parse(payload)
        if self._stored is not None:
            record.vectors = {self._using: self._stored[at]}
        return record

    def highlights(self, at: int, record: Record) -> list[Any]:
        """A search by a vector matches no words."""
        return []

    def explain(self, at: int, score: float, distance: float) -> Explanation:
        """Where hit `at` stands."""
        return Explanation(self._using, self._run.request.offset + at + 1, score, distance)

    def plan(
        self,
        computed: int = 0,
        search_ns: int = 0,
        total_ns: int = 0,
        fallback: bool = False,
        filter_ns: int = 0,
    ) -> Plan:
        """What ran, or would."""
        request, scope, reach, width, choice, _ = self._run
        walks = choice.strategy in WALKS
        asked = request.where.fields() if request.where is not None else frozenset[str]()
        recall = 1.0
        if walks and not fallback:
            share, effort = _share(scope.matching, self._ranked), self._effort
            if effort is None:
                recall = request.recall
            else:
                recall = request.expected(effort.expected(width, reach, share))
        return Plan(
            collection=self._name,
            strategy=choice.strategy,
            k=request.k,
            matches=scope.matching,
            rows=self._live,
            ef=min(width, WIDEST) if walks else 0,
            recall=recall,
            filter=None if request.where is None else str(request.where),
            radius=request.radius,
            offset=request.offset,
            wanted=_wanted(request),
            distances=computed,
            fallback=bool(fallback),
            filter_us=filter_ns / 1000,
            search_us=search_ns / 1000,
            total_us=total_ns / 1000,
            rejected=choice.rejected,
            estimated_us=choice.estimated_us,
            evaluated=tuple(sorted(filter(declared(self._fields).skips, asked))),
        )


def _wanted(request: Request) -> str:
    """What decides how hard a search tries, as it was asked for."""
    if request.exact or request.k is None:
        return "exact"
    return f"recall {request.recall:g}" if request.ef is None else f"ef {request.ef}"
