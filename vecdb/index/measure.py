"""What does a sample of the effort measurement do?

A live row is the query, itself left out. Without a filter, and then with one that is drawn from
the metadata of another row, the best ten by a scan are compared with what walks of growing width
find. Widths up to 64 are always walked; wider ones until one finds everything.

Invariants:
  M1  nothing is drawn from outside of the collection, and the draw depends on the commit alone:
      the same writes give the same table;
  M2  of a few drawn filters the one whose band has the fewest samples is used.

Rejected: queries that users sent. They would be the better sample, and are not ours to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.index.effort import (
    ALWAYS,
    BANDS,
    MEASURED_K,
    WIDTHS,
    Measured,
    Sums,
    band_of,
    rerank,
)
from vecdb.index.view import slots_of
from vecdb.query.clauses import Compare
from vecdb.query.filter import Filter
from vecdb.query.source import flat

DRAWS: Final = 3
LEAST_MATCHES: Final = 512  # a filter with fewer is answered by a scan
SCAN_UP_TO: Final = 500_000  # above, the widest walk stands in for the scan
TRUTH_WIDTH: Final = 2048
LONGEST_OPERAND: Final = 64
SYMBOLS: Final = ("==", "!=", "<=", ">=")


class Sampled(NamedTuple):
    """The collection that is measured, as its writer sees it."""

    graph: Any
    live: BitMap
    ranked: int  # the first `ranked` of live are slots
    slots: int
    mask: bytes | None
    vector: Callable[[int], Any]  # slot -> float32 (d,)
    metadata: Callable[[int], Mapping[str, Any]]
    matches: Callable[[Filter], BitMap]
    unindexed: Callable[[str], bool]  # fields that filters are not drawn on: each row would be read


def take(these: Sampled, samples: int, known: Measured, seed: int) -> Measured:
    """Take samples; `known` are the sums so far. Each costs two scans and some twenty walks."""
    rng = np.random.default_rng(seed)
    more = Measured()
    for _ in range(samples):
        slot = _any_slot(these, rng)
        plain = _compare(these, slot, None, these.mask)
        more = more.plus(Measured(plain))
        drawn = _draw(these, rng, known.plus(more))
        if drawn is not None:
            band, matching = drawn
            mask = _core.mask_of(matching, these.slots)
            sums = [Sums()] * len(BANDS)
            sums[band] = _compare(these, _any_slot(these, rng), matching, mask)
            more = more.plus(Measured(bands=tuple(sums)))
    return more


def _any_slot(these: Sampled, rng: np.random.Generator) -> int:
    return int(these.live[int(rng.integers(these.ranked))])


def _compare(these: Sampled, slot: int, matching: Any, mask: bytes | None) -> Sums:
    """One query: what each width finds of what a scan finds."""
    query, graph = these.vector(slot), these.graph
    candidates = these.ranked if matching is None else len(matching)
    if candidates <= SCAN_UP_TO:
        near, _ = graph.scan(
            query, MEASURED_K + 1, matching, mask=None if matching is not None else mask,
            n_visible=these.slots, exact=False, rr=48,
        )  # fmt: skip
    else:
        near = graph.search(query, MEASURED_K, TRUTH_WIDTH, 48, mask, these.slots, 0, slot)[0]
    truth = set([s for s in near if s != slot][:MEASURED_K])
    found, distances = [0] * len(WIDTHS), [0] * ALWAYS
    for at, width in enumerate(WIDTHS):
        hits, _, computed, *_ = graph.search(
            query, MEASURED_K, width, rerank(MEASURED_K), mask, these.slots, 0, slot
        )
        found[at] = len(truth.intersection(hits))
        if at < ALWAYS:
            distances[at] = computed
        elif found[at] == len(truth):
            found[at:] = [len(truth)] * (len(WIDTHS) - at)
            break
    return Sums(1, len(truth), tuple(found), tuple(distances))


def _draw(these: Sampled, rng: np.random.Generator, known: Measured) -> tuple[int, Any] | None:
    """A filter's band and its matching slots; None when the rows have nothing to filter by."""
    best: tuple[int, Any] | None = None
    for _ in range(DRAWS):
        where = _filter(these, rng)
        if where is None:
            continue
        matching = np.ascontiguousarray(slots_of(these.matches(where), these.slots))
        if not LEAST_MATCHES <= len(matching) < these.ranked:
            continue
        band = band_of(len(matching) / these.ranked)
        if band is None:
            continue
        if best is None or known.bands[band].samples < known.bands[best[0]].samples:
            best = (band, matching)
    return best


def _filter(these: Sampled, rng: np.random.Generator) -> Filter | None:
    """One clause, or two combined, whose operands are values that rows have."""
    first, second = _clause(these, rng), _clause(these, rng)
    if first is None or second is None:
        return second if first is None else first
    return (first, first, first & second, first | second)[int(rng.integers(4))]


def _clause(these: Sampled, rng: np.random.Generator) -> Filter | None:
    fields = flat(these.metadata(_any_slot(these, rng)))
    usable = sorted(
        name
        for name, value in fields.items()
        if _is_operand(value) and not these.unindexed(name)
    )
    if not usable:
        return None
    name = usable[int(rng.integers(len(usable)))]
    return Compare(name, SYMBOLS[int(rng.integers(len(SYMBOLS)))], fields[name])


def _is_operand(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= LONGEST_OPERAND
    return isinstance(value, bool | int | float | datetime) and value == value
