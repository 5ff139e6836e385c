"""What becomes of logged searches when they are run again, another way?

Each search is compared with what it showed then: how many of its ids are still there, which are new, which
are lost, and which stand elsewhere. Where it is known what was chosen, both answers are judged by it:
reciprocal rank of the first choice, whether any choice is there, and nDCG (Järvelin and Kekäläinen, 2002)
with a gain of 1 for each choice.

Choices were made of what was shown then, so that they favour it: what another way finds that nobody saw
counts for nothing. The report says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vecdb.collection.searching import Options
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.shown import text_table
from vecdb.standing.log import LogEntry
from vecdb.standing.queue import MAX_SHOWN
from vecdb.types import Id, shorten

_SHOWN = 10  # searches in a printed report


@dataclass(frozen=True, slots=True)
class Replayed:
    """One logged search, then and now."""

    entry: LogEntry
    before: list[Id]  # as it was logged
    after: list[Id]

    @property
    def overlap(self) -> float:
        """The share of the longer answer that both have; 1 where both are empty."""
        most = max(len(self.before), len(self.after))
        return len(set(self.before) & set(self.after)) / most if most else 1.0

    @property
    def new(self) -> list[Id]:
        """Ids that were not shown then."""
        return [id for id in self.after if id not in set(self.before)]

    @property
    def lost(self) -> list[Id]:
        """Ids that were shown then, and are no longer."""
        return [id for id in self.before if id not in set(self.after)]

    @property
    def moved(self) -> dict[Id, tuple[int, int]]:
        """Ids in both that stand elsewhere: the rank then and now, from 1."""
        ranks = {id: rank for rank, id in enumerate(self.after, 1)}
        return {
            id: (rank, ranks[id])
            for rank, id in enumerate(self.before, 1)
            if id in ranks and ranks[id] != rank
        }

    @property
    def same(self) -> bool:
        """Whether it answers what it answered then."""
        return self.before == self.after


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What became of logged searches; made by `collection.replay`.

    `.searches` is a list of Replayed, `.failed` of (entry, why it could not be run), `.metrics` a dict of
    (then, now) by name over the searches with a choice: "mrr", "hit rate", "ndcg".

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
    >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
    >>> db.search_log.start(c)
    >>> c.feedback(c.search([1, 0], 1), chosen="a")
    >>> _ = c.add("new", [1, 0.1])
    >>> print(c.replay(where="n is null"))
    1 search run again, 0 could not be
      as then        1 (100 %)
      mean overlap   1.000
      judged by the choices of 1 search, which were made of what was shown then:
        mrr          1.000 then, 1.000 now
        hit rate     1.000 then, 1.000 now
        ndcg         1.000 then, 1.000 now
    """

    searches: list[Replayed]
    failed: list[tuple[LogEntry, str]] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether every search could be run, and answers what it answered then."""
        return not self.failed and all(each.same for each in self.searches)

    @property
    def overlap(self) -> float:
        """The mean overlap of the searches; NaN where there are none."""
        return _mean([each.overlap for each in self.searches])

    @property
    def metrics(self) -> dict[str, tuple[float, float]]:
        """Figures by the choices, then and now; empty where no choice is known."""
        judged = [each for each in self.searches if each.entry.chosen]
        if not judged:
            return {}
        return {
            name: (
                _mean([figure(each.before, each.entry.chosen) for each in judged]),
                _mean([figure(each.after, each.entry.chosen) for each in judged]),
            )
            for name, figure in (("mrr", _reciprocal), ("hit rate", _hit), ("ndcg", _ndcg))
        }

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame, a row a search: id, query, overlap, same, new, lost, moved, chosen.

        InvalidArgument where pandas (extra `pandas`) is not installed.

        >>> import vecdb
        >>> c = vecdb.open().create_collection("c", dim=2)
        >>> len(c.replay().to_pandas())
        0
        """
        try:
            import pandas
        except ImportError:
            raise InvalidArgument(
                "to_pandas needs pandas, which is not installed: pip install 'vecdb-engine[pandas]'"
            ) from None
        names = ("id", "query", "overlap", "same", "new", "lost", "moved", "chosen")
        rows = [
            (
                each.entry.id, each.entry.query, each.overlap, each.same, each.new, each.lost, each.moved,
                each.entry.chosen,
            )
            for each in self.searches
        ]  # fmt: skip
        return pandas.DataFrame(rows, columns=list(names))

    def __str__(self) -> str:
        count = len(self.searches)
        lines = [f"{_searches(count)} run again, {len(self.failed):,} could not be"]
        if count:
            same = sum(each.same for each in self.searches)
            lines.append(f"  as then        {same:,} ({same / count:.0%})".replace("%)", " %)"))
            lines.append(f"  mean overlap   {self.overlap:.3f}")
        metrics = self.metrics
        if metrics:
            judged = sum(bool(each.entry.chosen) for each in self.searches)
            lines.append(
                f"  judged by the choices of {_searches(judged)}, which were made of what was shown then:"
            )
            lines += [f"    {name:12} {a:.3f} then, {b:.3f} now" for name, (a, b) in metrics.items()]
        most = sorted((each for each in self.searches if not each.same), key=lambda each: each.overlap)
        if most:
            rows = [
                (
                    f"{each.overlap:.2f}", str(len(each.new)), str(len(each.lost)), str(len(each.moved)),
                    shorten(repr(each.entry.query), 60),
                )
                for each in most[:_SHOWN]
            ]  # fmt: skip
            lines.append("  what moved most: overlap, new, lost, moved, query")
            lines += text_table(rows, numbers=4)
        lines += [f"  could not be run: {shorten(why, 90)}" for _, why in self.failed[:_SHOWN]]
        return "\n".join(lines)

    __repr__ = __str__


def replayed(
    collection: Any, entries: Iterable[LogEntry], where: Any, recall: float | None
) -> ReplayReport:
    """Run the searches of a collection's log again."""
    chosen = None if where is None else collection._filter(where)
    if recall is not None:
        collection._request(Options(recall=recall))
    found: list[Replayed] = []
    failed: list[tuple[LogEntry, str]] = []
    db = collection._db
    before, db._local.quiet = db._local.quiet, True
    with db._lock:
        db._queue.replays += 1
    try:
        for entry in entries:
            options = entry.options
            options["where"] = entry.where if chosen is None else chosen
            if recall is not None:
                options["recall"] = recall
            try:
                hits = collection.search(entry.asked, entry.k, **options)
            except VecdbError as error:
                failed.append((entry, str(error)))
            else:
                found.append(Replayed(entry, entry.shown, hits.ids[:MAX_SHOWN]))
    finally:
        with db._lock:
            db._queue.replays -= 1
        db._local.quiet = before
    return ReplayReport(found, failed)


def _searches(count: int) -> str:
    return f"{count:,} search" + ("" if count == 1 else "es")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _reciprocal(ids: list[Id], chosen: list[Id]) -> float:
    return next((1 / rank for rank, id in enumerate(ids, 1) if id in chosen), 0.0)


def _hit(ids: list[Id], chosen: list[Id]) -> float:
    return float(any(id in chosen for id in ids))


def _ndcg(ids: list[Id], chosen: list[Id]) -> float:
    gained = sum(1 / math.log2(rank + 1) for rank, id in enumerate(ids, 1) if id in chosen)
    return gained / sum(1 / math.log2(rank + 1) for rank in range(1, len(chosen) + 1))
