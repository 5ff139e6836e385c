"""Which rows are nearly the same?

Two rows are linked when their distance is at most the limit, and a group is what links hold together.
Few rows are compared each with each (geometry.py). Many look for their nearest in the collection's
own graph, all threads side by side: near rows are what a graph finds best, and a link has two ends to
be found from.

A list of nearest rows that ends beyond the limit shows all links of its row. One that is full of
links may hide some, but a hidden link has a full list at both of its ends, and only one that joins two
groups matters. So of the rows with full lists all but those of the largest group look again: each
compared with all rows with full lists, or, where that costs more, with longer lists.

Invariants:
  D1  a pair counts as a link by `Geometry.exact`, whichever way it was found: searches and products
      round, so that pairs near the limit are looked at again;
  D2  no link is missed where all are compared, and elsewhere none but by the walk: a list that is
      full is never taken for the whole;
  D3  rows in a group are in the order of ids, groups by falling size, then by their first.

Rejected: a pair of lists of equal vectors found by hashing first. Equal vectors are a group like any
other here. Rejected: linking each row's best match only. A group of ten falls into five pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb import execute
from vecdb.analysis.components import Components
from vecdb.analysis.geometry import Near, squares
from vecdb.analysis.taking import Taking, in_order
from vecdb.types import Id

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.analysis.components import Ints
    from vecdb.progress import Progress

LIST: Final = 16  # nearest rows that each row looks for at first, itself among them
WIDER: Final = 4
LONGEST: Final = 4096
RECALL: Final = 0.97  # of a list; a link is in two of them, and near the head of both
QUERIES: Final = 1024  # rows that look side by side: after them progress is told
BLOCK: Final = 1 << 22  # distances that are worked out at once
PAIRS: Final = 1 << 14  # that are compared in float64 at once
MULTIPLY_NS: Final = 0.02  # a number of a product, on one thread
COMPARE_NS: Final = 0.8  # a distance with the limit
Stopped = Callable[[], bool]


def duplicates(
    taking: Taking, limit: float, report: Progress, stopped: Stopped
) -> list[list[Id]]:
    """The groups of rows that are linked; those found so far when it is stopped."""
    finder = _Finder(taking, limit, report, stopped)
    if finder.cost_of_products(len(taking), len(taking)) / 2 <= finder.cost_of_lists(LIST) * len(taking):
        finder.compare_all()
    else:
        finder.look()
    return _named(taking, finder.components.groups())


def _named(taking: Taking, groups: list[Ints]) -> list[list[Id]]:
    """Groups as ids (D3)."""
    if not groups:
        return []
    ids = taking.ids(taking.slots[np.concatenate(groups)])
    ends = np.cumsum([len(group) for group in groups]).tolist()
    named = [ids[end - len(group) : end] for group, end in zip(groups, ends, strict=True)]
    for group in named:
        group.sort(key=in_order)
    return sorted(named, key=lambda group: (-len(group), in_order(group[0])))


class _Finder:
    """The search for links; rows are known by their positions among those that take part."""

    def __init__(self, taking: Taking, limit: float, report: Progress, stopped: Stopped) -> None:
        self._taking = taking
        self._geometry = taking.geometry
        self._limit = limit
        self._report = report
        self._stopped = stopped
        self._done, self._total = 0, len(taking)
        self.components = Components(len(taking))
        self._full = np.zeros(len(taking), np.bool_)  # rows whose list may hide links

    # --- what it costs, in ns --------------------------------------------------------------

    def cost_of_products(self, some: int, others: int) -> float:
        """Of comparing so many rows with so many."""
        each = self._geometry.dim * MULTIPLY_NS + COMPARE_NS
        return some * others * each / self._taking.context.threads

    def cost_of_lists(self, length: int) -> float:
        """Of a row's list."""
        plan = execute.explain(self._taking.context, self._request(length))
        return plan.estimated_us * 1000 / self._taking.context.threads

    def _request(self, length: int) -> execute.Request:
        return execute.Request(length, self._taking.where, RECALL)

    # --- each with each --------------------------------------------------------------------

    def compare_all(self) -> None:
        """Compare all rows with each other."""
        everyone = np.arange(len(self._taking))
        self._compare(everyone, everyone)

    def _compare(self, some: Ints, others: Ints) -> None:
        """Find all links from some rows to others, which have them among themselves."""
        slots = self._taking.slots
        near = Near(self._geometry, self._taking.floats(slots[others]), self._limit)
        mirrored = some is others  # then half of it is enough
        step = max(1, BLOCK // max(1, len(others)))
        for at in range(0, len(some), step):
            if self._stopped():
                return
            part = some[at : at + step]
            first = at if mirrored else 0
            i, j, sure = near.pairs(self._taking.floats(slots[part]), first)
            self._link(part[i], others[j], sure)
            self._tell(len(part))

    # --- by lists of nearest rows -----------------------------------------------------------

    def look(self) -> None:
        """Every row looks for its nearest, and again while its list may hide a link that matters."""
        length = LIST
        self._look_for(np.arange(len(self._taking)), length)
        while not self._stopped():
            full = np.flatnonzero(self._full)
            again = self._outside_largest(full)
            if not len(again):
                return
            length = min(length * WIDER, LONGEST)
            self._total += len(again)
            lists = len(again) * self.cost_of_lists(length)
            if length == LONGEST or self.cost_of_products(len(again), len(full)) <= lists:
                self._compare(again, full)
                return
            self._look_for(again, length)

    def _outside_largest(self, full: Ints) -> Ints:
        """Those of the rows that are not in the group which has the most of them."""
        labels = self.components.labels[full]
        known, counts = np.unique(labels, return_counts=True)
        return full[labels != known[np.argmax(counts)]] if len(known) > 1 else full[:0]

    def _look_for(self, these: Ints, length: int) -> None:
        taking, request = self._taking, self._request(length)
        length = min(length, len(taking))
        for at in range(0, len(these), QUERIES):
            if self._stopped():
                return
            part = these[at : at + QUERIES]
            queries = self._geometry.queries(taking.stored(taking.slots[part]))
            found = execute.rankings(taking.context, queries, request)
            self._take_in(part, queries, found, length)
            self._tell(len(part))

    def _take_in(self, part: Ints, queries: Any, found: list[execute.Found], length: int) -> None:
        """Links that lists show, and which of these may hide some."""
        lengths = np.array([len(slots) for slots, _ in found])
        flat = chain.from_iterable(slots for slots, _ in found)
        slots = np.fromiter(flat, np.uint32, int(lengths.sum()))
        distances = np.frombuffer(b"".join(each for _, each in found), np.float32)
        whose = np.repeat(np.arange(len(part)), lengths)
        doubtful = self._geometry.doubtful(distances, squares(queries)[whose], self._limit)
        within = distances <= self._limit + doubtful
        counts = np.bincount(whose[within], minlength=len(part))
        self._full[part] = (counts >= length) & (length < len(self._taking))
        i = part[whose[within]]
        j = np.searchsorted(self._taking.slots, slots[within])
        sure = distances[within] <= self._limit - doubtful[within]
        if self._geometry.metric == "hamming":  # whole numbers: nothing is in doubt
            sure = np.ones(len(i), np.bool_)
        self._link(i, j, sure)

    # --- links -----------------------------------------------------------------------------

    def _link(self, i: Ints, j: Ints, sure: npt.NDArray[np.bool_]) -> None:
        """Join pairs: those that are sure, and of the others those that are links (D1)."""
        components = self.components
        components.join(i[sure], j[sure])
        i, j = i[~sure], j[~sure]
        for at in range(0, len(i), PAIRS):
            one, other = i[at : at + PAIRS], j[at : at + PAIRS]
            open_ = components.apart(one, other)
            one, other = one[open_], other[open_]
            if len(one):
                slots, stored = self._taking.slots, self._taking.stored
                within = self._geometry.within(
                    stored(slots[one]), stored(slots[other]), self._limit
                )
                components.join(one[within], other[within])

    def _tell(self, rows: int) -> None:
        self._done += rows
        self._report(self._done, self._total)
