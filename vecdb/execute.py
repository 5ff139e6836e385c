"""How is a search run? From a view and a query vector to hits.

One path for every caller: outside a transaction the view is the follower's and the transaction a
read transaction held from the filter to the last row; inside, both are the transaction's own.

Invariants:
  X1  a hit is a live row of the view that satisfies the filter, and carries a vector;
  X2  there are min(k, matches) hits, never fewer;
  X3  hits are ranked by the stored vectors, nearest first, ties by slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.index.effort import WIDEST, rerank
from vecdb.index.view import View, slots_of
from vecdb.query.filter import Filter
from vecdb.query.plan import Choice, Question, choose
from vecdb.storage import rows
from vecdb.storage.schema import Schema
from vecdb.storage.vectors import stride
from vecdb.types import Hits, Plan, Record

MAX_CHOICES: Final = 256  # plans that a view remembers
DEFAULT_WIDTH: Final = 64  # before anything was measured
Found = tuple[list[int], bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """A search's options, validated."""

    k: int
    where: Filter | None = None
    recall: float = 0.95
    ef: int | None = None
    exact: bool = False
    with_vectors: bool = False


class Context(NamedTuple):
    """Where a search runs."""

    name: str
    cid: int
    schema: Schema
    txn: Any
    view: View
    matches: Callable[[Filter], BitMap] | None  # None: the search has no filter
    parse: Callable[[bytes], Record]
    threads: int


class _Scope(NamedTuple):
    """The rows that a search may return."""

    count: int
    mask: bytes | None
    slots: Any  # uint32 array of the matches under a filter, else None
    filter_ns: int


def search(context: Context, query: Any, request: Request) -> Hits:
    """The best `k` rows of a view for a float32 vector."""
    started = perf_counter_ns()
    scope = _scope(context, request.where)
    width, choice = _chosen(context, request, scope)
    searching = perf_counter_ns()
    found, distances, fallback = _run(context, query, request, scope, width, choice)
    ended = perf_counter_ns()
    return _hits(
        context, request, scope, width, choice, found, distances, fallback,
        (started, searching, ended),
    )  # fmt: skip


def search_many(context: Context, queries: Any, request: Request) -> list[Hits]:
    """The same for every row of `queries` (b, d), the walks on all threads."""
    started = perf_counter_ns()
    scope = _scope(context, request.where)
    width, choice = _chosen(context, request, scope)
    searching = perf_counter_ns()
    answers: list[tuple[Found, int, bool]]
    if choice.strategy in ("graph", "filtered graph"):
        view, k = context.view, request.k
        walked = view.graph.search_many(
            queries, k, width, rerank(k), _walk_mask(scope, view), view.slots, choice.budget,
            context.threads,
        )  # fmt: skip
        answers = [
            _settle(context, query, request, scope, choice, result)
            for query, result in zip(queries, walked, strict=True)
        ]
    else:
        answers = [_run(context, q, request, scope, width, choice) for q in queries]
    ended = perf_counter_ns()
    share = (searching, searching + (ended - searching) // max(1, len(answers)))
    return [
        _hits(
            context, request, scope, width, choice, found, distances, fallback,
            (started, *share),
        )  # fmt: skip
        for found, distances, fallback in answers
    ]


def explain(context: Context, request: Request) -> Plan:
    """What `search` would do, without doing it."""
    scope = _scope(context, request.where)
    width, choice = _chosen(context, request, scope)
    return _plan(context, request, scope, width, choice)


# --- the steps -------------------------------------------------------------------------------


def _scope(context: Context, where: Filter | None) -> _Scope:
    view = context.view
    if where is None or context.matches is None:
        return _Scope(view.state.ranked, view.mask, None, 0)
    started = perf_counter_ns()
    slots = slots_of(context.matches(where), view.slots)
    if len(slots) == view.state.ranked:
        return _Scope(len(slots), view.mask, None, perf_counter_ns() - started)
    return _Scope(len(slots), None, slots, perf_counter_ns() - started)


def _chosen(context: Context, request: Request, scope: _Scope) -> tuple[int, Choice]:
    """Width and plan, remembered by the view: they depend on counts alone."""
    known = context.view.choices
    key = (scope.count, request.k, request.recall, request.ef, request.exact)
    found = known.get(key)
    if found is None:
        width = _width(context.view, request, scope)
        found = (width, _choose(context, request, scope, width))
        if len(known) >= MAX_CHOICES:
            known.clear()
        known[key] = found
    return found


def _width(view: View, request: Request, scope: _Scope) -> int:
    if request.ef is not None:
        return request.ef
    if view.effort is None:
        return max(DEFAULT_WIDTH, 2 * request.k)
    ranked = view.state.ranked
    return view.effort.width(request.recall, request.k, ranked, _share(scope.count, ranked))


def _share(count: int, ranked: int) -> float:
    return count / ranked if ranked else 1.0


def _choose(context: Context, request: Request, scope: _Scope, width: int) -> Choice:
    schema, effort, ranked = context.schema, context.view.effort, context.view.state.ranked
    return choose(
        Question(
            request.k,
            scope.count,
            ranked,
            width,
            -(-schema.dim // 64) * 64,
            stride(schema.dim, schema.dtype),
            request.exact or (request.ef is None and request.recall >= 1),
            request.ef is not None or effort is not None,
            effort.cost(width, _share(scope.count, ranked)) if effort else None,
        )
    )


def _run(
    context: Context, query: Any, request: Request, scope: _Scope, width: int, choice: Choice
) -> tuple[Found, int, bool]:
    view, k = context.view, request.k
    if choice.strategy == "nothing":
        return ([], b""), 0, False
    if choice.strategy not in ("graph", "filtered graph"):
        return _scan(context, query, k, scope, choice.strategy == "exact scan"), scope.count, False
    mask = _walk_mask(scope, view)
    result = view.graph.search(query, k, width, rerank(k), mask, view.slots, choice.budget)
    return _settle(context, query, request, scope, choice, result)


def _walk_mask(scope: _Scope, view: View) -> bytes | None:
    """The bit set that a walk tests: the matches, or the live slots where all of them match."""
    if scope.slots is None:
        return scope.mask
    mask: bytes = _core.mask_of(np.ascontiguousarray(scope.slots), view.slots)
    return mask


def _settle(
    context: Context, query: Any, request: Request, scope: _Scope, choice: Choice, result: Any
) -> tuple[Found, int, bool]:
    """A walk's result, or a scan where the walk came up short."""
    found, distances, computed, _, exhausted = result
    if not exhausted and len(found) >= min(request.k, scope.count):
        return (found, distances), computed, False
    return _scan(context, query, request.k, scope, exact=False), computed + scope.count, True


def _scan(context: Context, query: Any, k: int, scope: _Scope, exact: bool) -> Found:
    view = context.view
    slots = None if scope.slots is None else np.ascontiguousarray(scope.slots)
    threads = context.threads if scope.count > 50_000 else 1
    found: Found = view.graph.scan(
        query, k, slots, mask=scope.mask, n_visible=view.slots, exact=exact, rr=2 * k + 16,
        threads=threads,
    )  # fmt: skip
    return found


def _hits(
    context: Context,
    request: Request,
    scope: _Scope,
    width: int,
    choice: Choice,
    found: Found,
    computed: int,
    fallback: bool,
    times: tuple[int, int, int],
) -> Hits:
    slots, distances = found
    ids, payloads = rows.read_many(context.txn.get, context.cid, slots)
    started, searching, ended = times
    finished = perf_counter_ns()

    def plan() -> Plan:
        return _plan(
            context, request, scope, width, choice, computed, fallback,
            (ended - searching, finished - started),
        )  # fmt: skip

    parse = context.parse
    if request.with_vectors:
        parse = _with_vectors(context, slots, payloads)
    return Hits(ids, distances, context.schema.metric, payloads, parse, plan)


def _with_vectors(context: Context, slots: list[int], payloads: list[bytes]) -> Any:
    from vecdb.storage import vectors

    schema = context.schema
    stored = vectors.read(
        context.txn, context.cid, np.array(slots, np.uint32), schema.dim, schema.dtype
    )
    by_payload = {id(payload): vector for payload, vector in zip(payloads, stored, strict=True)}

    def parse(payload: bytes) -> Record:
        record = context.parse(payload)
        record.vector = by_payload[id(payload)]
        return record

    return parse


def _plan(
    context: Context,
    request: Request,
    scope: _Scope,
    width: int,
    choice: Choice,
    computed: int = 0,
    fallback: bool = False,
    times: tuple[int, int] = (0, 0),
) -> Plan:
    walks = choice.strategy in ("graph", "filtered graph")
    effort = context.view.effort
    recall = 1.0
    if walks and not fallback:
        share = _share(scope.count, context.view.state.ranked)
        recall = effort.expected(width, request.k, share) if effort else request.recall
    return Plan(
        collection=context.name,
        strategy=choice.strategy,
        k=request.k,
        matches=scope.count,
        rows=context.view.state.live,
        ef=min(width, WIDEST) if walks else 0,
        recall=recall,
        filter=None if request.where is None else repr(request.where),
        distances=computed,
        fallback=fallback,
        filter_us=scope.filter_ns / 1000,
        search_us=times[0] / 1000,
        total_us=times[1] / 1000,
        rejected=choice.rejected,
        estimated_us=choice.estimated_us,
    )
