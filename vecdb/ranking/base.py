"""What does every kind of query give, so that any can stand inside any other?

A `Ranker` is one query at one commit of one collection, under one filter. It knows the rows that match,
gives the best of them, and scores any rows exactly. Fusing, reranking, grouping, boosts, explanations and
`why_not` ask nothing else.

    matching    live rows that satisfy the filter and that the query says something about
    best        the best `reach` of those, best first
    scores      the exact scores of given rows, NaN where a row does not match

Invariants:
  R1  `best(reach)` gives min(reach, matching) rows, never fewer, each matching, none twice, by falling
      score; the scores are exact, whatever was approximate on the way;
  R2  a score is larger for better; where one vector query ranked, the distances are given beside;
  R3  with `place.request.exact` what `best` gives is right by construction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb.execute import Request
from vecdb.index.view import Cut, View
from vecdb.query.filter import Filter
from vecdb.query.objects import Query
from vecdb.types import Id, Plan

if TYPE_CHECKING:
    import numpy.typing as npt

    Rids = npt.NDArray[np.uint32]
    Scores = npt.NDArray[np.float64]
    Distances = npt.NDArray[np.float32]


class Place(NamedTuple):
    """Where and how a query is asked."""

    verbs: Any  # the collection's: collection/searching.py `Searching`
    txn: Any
    view: View
    request: Request
    allowed: BitMap | None  # the live rows that satisfy the filter; None: there is none
    ids: Callable[[Rids], list[Id]]  # of rows, as of the transaction
    payloads: Callable[[Rids], list[bytes]]  # the records of rows, as hits decode them
    read: Callable[[Rids], tuple[list[Id], list[bytes]]]  # both at once
    using: str | None = None  # the vector field of queries that name none
    cut: Cut | None = None  # `allowed` as the parts of a query take it, made once for all of them

    @property
    def where(self) -> Filter | None:
        """The filter."""
        return self.request.where

    @property
    def live(self) -> BitMap:
        """The rows that the filter leaves."""
        return self.view.live if self.allowed is None else self.allowed


class Ranked(NamedTuple):
    """Rows, best first."""

    rids: Rids
    scores: Scores
    distances: Distances | None = None

    def cut(self, start: int, end: int | None) -> Ranked:
        """Some of them."""
        part = slice(start, end)
        return Ranked(
            self.rids[part], self.scores[part], None if self.distances is None else self.distances[part]
        )


    def scores_of(self, rids: Rids) -> Scores:
        """The scores of rows among them (n,); NaN for a row that is not."""
        known = dict(zip(self.rids.tolist(), self.scores.tolist(), strict=True))
        return np.array([known.get(rid, np.nan) for rid in rids.tolist()], np.float64)


def nothing(*, distances: bool = False) -> Ranked:
    """No rows."""
    return Ranked(
        np.empty(0, np.uint32), np.empty(0, np.float64), np.empty(0, np.float32) if distances else None
    )


class Ranker(ABC):
    """One query, ready to rank."""

    has_distances = False  # whether `best` gives distances: then a radius cuts it
    independent = True  # whether a row's score is the same whatever other rows are ranked

    def __init__(self, place: Place, query: Query) -> None:
        self.place = place
        self.query = query

    @property
    def parts(self) -> list[Ranker]:
        """The rankers of the queries inside."""
        return []

    def matching(self) -> int:
        """How many rows match."""
        return len(self.rows())

    @abstractmethod
    def rows(self) -> BitMap:
        """The rows that match; not to be changed."""

    def counted(self) -> int | None:
        """How many rows match, where that is known without looking for them."""
        return None

    @abstractmethod
    def best(self, reach: int) -> Ranked:
        """The best `reach` of them (R1)."""

    @abstractmethod
    def scores(self, rids: Rids) -> Scores:
        """The exact scores of rows (n,), float64; NaN where a row does not match."""

    def stored(self, rids: Rids) -> list[tuple[str, Any] | None] | None:
        """The rows' vectors as users read them, with the field's name; None: the dense field's are meant."""
        return None

    def lacks(self, rid: int) -> str | None:
        """Why a live row of the filter does not match, after "it"; None where it does."""
        return None if rid in self.rows() else "is not among the rows that the query ranks"

    def highlighter(self) -> Callable[[Any], list[Any]] | None:
        """What shows the matching words of a record, without place or transaction; None without words.

        Of a query made of others: what any of them shows, each snippet once.
        """
        made = [each for each in (part.highlighter() for part in self.parts) if each is not None]
        if len(made) < 2:
            return made[0] if made else None
        return partial(_shown, made)

    def strategy(self) -> str:
        """What `best` did, or would do, in a word or two for plans."""
        return type(self.query).__name__.lower()

    def sketch(self, *, count: bool = False) -> Callable[[], Plan]:
        """What makes the plan when somebody looks at it: without place, view or transaction.

        `count`: how many rows match is looked for where it is not known.
        """
        name, strategy, query = self.place.view.schema.name, self.strategy(), self.query
        matches = self.matching() if count else self.counted()
        parts = [each.sketch(count=count) for each in self.parts]
        return lambda: Plan(
            name, strategy, None, matches, 0, query=repr(query), parts=tuple(part() for part in parts)
        )


def _shown(made: list[Callable[[Any], list[Any]]], record: Any) -> list[Any]:
    """What any of several highlighters shows, each snippet once."""
    return list(dict.fromkeys(each for shows in made for each in shows(record)))
