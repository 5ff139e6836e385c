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
from typing import TYPE_CHECKING, Any

from vecdb.collection.searching import Options
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.query.written import plain
from vecdb.reports.base import Report
from vecdb.reports.page import Prose, Section, Table
from vecdb.reports.plots import histogram
from vecdb.shown import text_table
from vecdb.standing.log import LogEntry
from vecdb.standing.queue import MAX_SHOWN
from vecdb.types import Id, shorten

if TYPE_CHECKING:
    from vecdb.evaluation.significance import Comparison

_SHOWN = 10  # searches in a printed report
_FEWEST = 5  # with a choice, from which on a change has an interval


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


@dataclass(frozen=True)
class ReplayReport(Report):
    """What became of logged searches; made by `collection.replay`.

    `.searches` is a list of Replayed, `.failed` of (entry, why it could not be run), `.metrics` a dict of
    (then, now) by name over the searches with a choice: "mrr", "hit rate", "ndcg". `.by`: the other model, if
    there was one, and `.left_out`: how many rows it could make no vector of. `to_html` and `to_json` as of
    every report.

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
    by: str = ""
    left_out: int = 0

    @property
    def title(self) -> str:  # type: ignore[override]
        """What the page is called."""
        return "Logged searches run again" + (f" by {self.by}" if self.by else "")

    @property
    def subtitle(self) -> str:  # type: ignore[override]
        """How many there are, in a line."""
        return f"{_searches(len(self.searches))} run again, {len(self.failed):,} could not be"

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
        return {name: (_mean(then), _mean(now)) for name, (then, now) in self._figures().items()}

    def changes(self) -> dict[str, Comparison]:
        """Return by how much each figure is higher now, with its interval and p-value, search by search.

        `.difference`, `.low`, `.high` and `.p_value` by name: the paired bootstrap and randomisation test of
        `vecdb.evaluate`. Empty where fewer than five searches have a choice. Costs 0.1 s.

        >>> import vecdb
        >>> c = vecdb.open().create_collection("c", dim=2)
        >>> c.replay().changes()
        {}
        """
        from vecdb.evaluation.significance import compare

        figures = self._figures()
        return {
            name: compare(now, then) for name, (then, now) in figures.items() if len(then) >= _FEWEST
        }

    def _figures(self) -> dict[str, tuple[list[float], list[float]]]:
        """Figures of each search with a choice, then and now."""
        judged = [each for each in self.searches if each.entry.chosen]
        if not judged:
            return {}
        return {
            name: (
                [figure(each.before, each.entry.chosen) for each in judged],
                [figure(each.after, each.entry.chosen) for each in judged],
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

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values; queries as their JSON."""
        changes = self.changes()
        return {
            "title": self.title, "by": self.by or None, "left_out": self.left_out, "overlap": self.overlap,
            "metrics": {
                name: {"then": a, "now": b, "change": _plain_change(changes.get(name))}
                for name, (a, b) in self.metrics.items()
            },
            "searches": [
                {
                    "id": each.entry.id, "query": plain(each.entry.query), "before": each.before,
                    "after": each.after, "overlap": each.overlap, "chosen": each.entry.chosen,
                }
                for each in self.searches
            ],
            "failed": [
                {"id": entry.id, "query": plain(entry.query), "why": why} for entry, why in self.failed
            ],
        }  # fmt: skip

    def sections(self) -> list[Section]:
        """Return the parts of the page: the summary, how much is shared, what moved most, what failed."""
        changes = self.changes()
        rows = [
            (name, a, b, _change(changes[name]) if name in changes else f"{b - a:+.3f}")
            for name, (a, b) in self.metrics.items()
        ]
        judged = sum(bool(each.entry.chosen) for each in self.searches)
        said = f"By the choices of {_searches(judged)}, which were made of what was shown then"
        figures = [Table(("figure", "then", "now", "change"), rows, said)] if rows else []
        shared = histogram(
            {"searches": [each.overlap for each in self.searches]},
            title="How much of both answers is the same",
            axis="share of the longer answer that both have", bins=20,
        )  # fmt: skip
        parts = [
            Section("Summary", [Prose("\n".join(self._summary()), strong=True), *figures]),
            Section("What is shared", [shared]),
            Section("What moved most", [Table(_MOVED, [_moved(each) for each in self._most()])]),
        ]
        if self.failed:
            why = [(shorten(repr(entry.query), 120), reason) for entry, reason in self.failed]
            parts.append(Section("What could not be run", [Table(("query", "why"), why)]))
        return parts

    def _most(self) -> list[Replayed]:
        """The searches that answer otherwise, those with the least in common first."""
        return sorted((each for each in self.searches if not each.same), key=lambda each: each.overlap)

    def _summary(self) -> list[str]:
        count = len(self.searches)
        lines = [self.subtitle + (f", by {self.by}" if self.by else "")]
        if self.left_out:
            lines.append(f"rows without a vector of it: {self.left_out:,}")
        if count:
            same = sum(each.same for each in self.searches)
            lines.append(f"as then {same:,} ({100 * same / count:.0f} %), mean overlap {self.overlap:.3f}")
        return lines

    def __str__(self) -> str:
        count = len(self.searches)
        lines = [self.subtitle]
        if self.by:
            lines[0] = f"{lines[0]}, by {self.by}"
        if self.left_out:
            without = f"{self.left_out:,} row{'' if self.left_out == 1 else 's'}"
            lines.append(f"  no vector of it: {without}, which it cannot find")
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
            changes = self.changes()
            for name, (a, b) in metrics.items():
                change = "" if name not in changes or a == b else f", change {_change(changes[name])}"
                lines.append(f"    {name:12} {a:.3f} then, {b:.3f} now{change}")
            if self.by:
                lines.append("      (they favour what showed it: lower now is not yet a worse model)")
        most = self._most()
        if most:
            rows = [(f"{a:.2f}", str(b), str(c), str(d), e) for a, b, c, d, e in map(_moved, most[:_SHOWN])]
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


_MOVED = ("overlap", "new", "lost", "moved", "query")


def _moved(each: Replayed) -> tuple[float, int, int, int, str]:
    query = shorten(repr(each.entry.query), 60)
    return each.overlap, len(each.new), len(each.lost), len(each.moved), query


def _plain_change(found: Comparison | None) -> dict[str, float] | None:
    if found is None:
        return None
    return {"difference": found.difference, "low": found.low, "high": found.high, "p_value": found.p_value}


def _change(found: Comparison) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


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
