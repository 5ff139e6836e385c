"""How good are a collection's searches as they run, and what of the loss is the index's? `papers.evaluate`.

Every query is searched twice at one commit: as searches run, with approximation, filters and fusion, and with
`exact=True`. The figures of the first are the quality that users see; what the second has more is lost by the
index; what is missing then is the model's, or the words'.

Judgements come from one of three sources:

  qrels      made by people: {query id: {row id: grade}};
  labels     a metadata field: rows with the same value are relevant to each other, for a list with an element
             in common. The queries are rows, each left out of its own answer;
  feedback   the search log: what was chosen is relevant, the queries, filters and options are those logged.
             Choices were made of what was shown then, so that they favour it.

Invariants:
  E14  both ways of searching, all queries and all ways of asking see the same commit, whatever is written;
  E15  nothing of it is logged;
  E16  with a filter, judgements of rows that it excludes do not count: nobody could find them;
  E17  a metric is of searches for as many hits as it looks at: the first 10 of a search for 100 are better
       than a search for 10, which looks less far, and fuses less deeply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from vecdb.errors import InvalidArgument, NotFound, VecdbError
from vecdb.evaluation.evaluate import MOST_RANKED
from vecdb.evaluation.judgements import Qrels, check_label, judged_of, queries_of, refuse
from vecdb.evaluation.metrics import Metric, deepest, parse_all
from vecdb.evaluation.report import Evaluation, System
from vecdb.evaluation.significance import Estimate, check_seed, compare, interval
from vecdb.facets import name_of
from vecdb.query import ById
from vecdb.query.objects import Near
from vecdb.query.source import flat
from vecdb.types import Hits, Id, shorten

PLAIN: Final = "search"
_CHOSEN: Final = (
    "Judged by what was chosen of what was shown then: what another search finds that nobody saw counts for "
    "nothing."
)

_KEPT: Final = (  # of a logged search's options: all by which it ranks
    "using", "ef", "recall", "exact", "radius", "diversity", "boost", "group_by", "group_size",
)  # fmt: skip

Grades = Mapping[Id, int | float]


@dataclass(slots=True)
class Asked:
    """What is asked, and what is relevant: {query id: ...} each.

    `own`: rows that are left out of their own answer. `options`: of a single query's search.
    """

    queries: dict[Id, Any]
    grades: Callable[[Id], Grades]
    own: frozenset[Id] = frozenset()
    options: dict[Id, dict[str, Any]] = field(default_factory=dict)
    unjudged: int = 0
    hopeless: int = 0
    notes: tuple[str, ...] = ()


def evaluate_running(
    collection: Any, queries: Any, qrels: Any, *, labels: Any, feedback: Any, searches: Any, where: Any,
    metrics: Any, using: Any, recall: float, sample: int, seed: int,
) -> Evaluation:  # fmt: skip
    """See `Collection.evaluate`."""
    wanted, seed = parse_all(metrics), check_seed(seed)
    most = MOST_RANKED - (labels is not None)  # a row asks for itself, too
    if (deepest(wanted) or 0) > most:
        refuse(f"metrics: a search gives at most {most:,} hits to judge: write a smaller rank behind @")
    ways = _ways(searches)
    _one_source(qrels, labels, feedback)
    db = collection._db
    db._outside_transaction("evaluate")
    options = {"where": where, "using": using, "recall": recall}
    entries = _choices(collection, queries) if feedback else []
    with db.snapshot() as snap:
        rows = snap[collection.name]
        matching = None if where is None else {record.id for record in rows.scan(where)}
        if feedback:
            asked = _by_choices(rows, entries, matching)
        elif labels is not None:
            asked = _by_labels(rows, labels, queries, matching, using, sample, seed)
        else:
            asked = _by_qrels(rows, queries, qrels, matching)
        systems = {
            name: _system(name, way, rows, asked, wanted, options, seed) for name, way in ways.items()
        }
        count = len(rows) if matching is None else len(matching)
    report = Evaluation(
        systems, [metric.name for metric in wanted], dict(asked.queries), count,
        unjudged=asked.unjudged, hopeless=asked.hopeless, seed=seed, notes=asked.notes,
    )  # fmt: skip
    report.title = f"Collection {collection.name!r} as it runs"
    return report


def _ways(searches: Any) -> dict[str, Callable[[Any], Any]]:
    if searches is None:
        return {PLAIN: lambda asked: asked}
    if not isinstance(searches, Mapping) or not searches:
        refuse("searches is {name: callable(query) -> what is searched for}, as {'words': vecdb.query.Text}")
    for name, way in searches.items():
        check_label("searches: one", name)
        if not callable(way):
            refuse(
                f"searches[{name!r:.60}] is a {type(way).__name__}: give a callable that takes the query and "
                "returns what is searched for"
            )
    return dict(searches)


def _one_source(qrels: Any, labels: Any, feedback: Any) -> None:
    if not isinstance(feedback, bool | np.bool_):
        refuse(f"feedback is True or False, not {feedback!r:.60}")
    given = [qrels is not None, labels is not None, bool(feedback)]
    if sum(given) != 1:
        refuse(
            f"{'no' if not any(given) else 'more than one'} source of judgements: give exactly one of "
            "qrels={query id: {row id: grade}}, labels='a metadata field', feedback=True"
        )


# -- sources of judgements -----------------------------------------------------------------------


def _by_qrels(rows: Any, queries: Any, qrels: Any, matching: set[Id] | None) -> Asked:
    judged = judged_of(queries_of(queries, texts=False), qrels, rows, f"collection {rows.name!r}")
    grades = judged.grades
    notes: tuple[str, ...] = ()
    unjudged, hopeless = judged.unjudged, judged.hopeless
    if matching is not None:
        within: Qrels = {
            query: {id: grade for id, grade in found.items() if id in matching}
            for query, found in grades.items()
        }
        kept = {query: found for query, found in within.items() if found}
        if not kept:
            refuse("where: no judged row satisfies it, so that there is nothing to measure")
        unjudged += len(grades) - len(kept)
        hopeless = sum(all(grade <= 0 for grade in found.values()) for found in kept.values())
        grades = kept
        notes = ("Only judgements of rows that satisfy the filter count.",)
    asked = {query: judged.queries[query] for query in grades}
    return Asked(asked, grades.__getitem__, unjudged=unjudged, hopeless=hopeless, notes=notes)


def _by_labels(
    rows: Any, labels: Any, queries: Any, matching: set[Id] | None, using: Any, sample: int, seed: int
) -> Asked:
    """Rows as queries: a sample, or those that are the keys of `queries`."""
    if not isinstance(labels, str) or not labels:
        refuse(f"labels={labels!r:.60}: give the name of a metadata field")
    found = _labelled(rows, labels, matching)
    if not found:
        which = "" if matching is None else " that satisfies where"
        refuse(f"labels={labels!r:.60}: no row of collection {rows.name!r}{which} has a value there")
    groups: dict[Any, list[Id]] = {}
    for id, values in found.items():
        for value in values:
            groups.setdefault(value, []).append(id)

    def grades(query: Id) -> Grades:
        same = {id: 1 for value in found[query] for id in groups[value]}
        del same[query]
        return same

    if queries is None:
        asked, skipped = _sampled(rows, found, using, sample, seed), 0
    else:
        asked, skipped = _given_rows(rows, queries, found)
    hopeless = sum(all(len(groups[value]) == 1 for value in found[query]) for query in asked)
    note = f"Rows with the same value of {labels!r} count as relevant to each other"
    note += f"; {len(asked):,} of {len(found):,} are asked for." if queries is None else "."
    return Asked(asked, grades, frozenset(asked), unjudged=skipped, hopeless=hopeless, notes=(note,))


def _labelled(rows: Any, labels: str, matching: set[Id] | None) -> dict[Id, list[Any]]:
    """{row id: its values of the field}, those that have one."""
    found = {}
    for record in rows.scan():
        if matching is None or record.id in matching:
            given = flat(record.metadata).get(labels)
            listed = given if isinstance(given, list) else [] if isinstance(given, dict) else [given]
            values = list(dict.fromkeys(name_of(value) for value in listed if value is not None))
            if values:
                found[record.id] = values
    return found


def _sampled(
    rows: Any, found: dict[Id, list[Any]], using: Any, sample: int, seed: int
) -> dict[Id, Any]:
    """Rows with a vector as queries, drawn by the seed."""
    if isinstance(sample, bool) or not isinstance(sample, int | np.integer) or sample < 1:
        refuse(f"sample={sample!r:.40}: give how many rows are asked for, from 1")
    ids = list(found)
    order = np.random.default_rng(seed).permutation(len(ids))
    asked: dict[Id, Any] = {}
    for at in order.tolist():
        query = Near(ById(ids[at]), using)
        try:
            rows.search(query, 1)
        except InvalidArgument as error:
            if "has no vector" not in str(error):
                raise
            continue
        asked[ids[at]] = query
        if len(asked) == sample:
            break
    if not asked:
        refuse(f"labels: no row of collection {rows.name!r} with a value has a vector to be asked by")
    return asked


def _given_rows(rows: Any, queries: Any, found: dict[Id, list[Any]]) -> tuple[dict[Id, Any], int]:
    given = queries_of(queries, texts=False)
    for id in given:
        if id not in rows:
            refuse(
                f"queries: {id!r:.60} is no row of collection {rows.name!r}: with labels= a query's id is "
                "that of the row whose label it has"
            )
    asked = {id: query for id, query in given.items() if id in found}
    if not asked:
        refuse("queries: none of these rows has a label (that satisfies where)")
    return asked, len(given) - len(asked)


def _choices(collection: Any, queries: Any) -> list[Any]:
    """What was logged with a choice."""
    if queries is not None:
        refuse("queries: with feedback=True they are those of the search log; leave them out")
    entries = list(collection._db.search_log.entries(collection))
    chosen = [entry for entry in entries if entry.chosen]
    if not chosen:
        refuse(
            f"feedback: {len(entries):,} searches of collection {collection.name!r} are logged, none with a "
            "choice: db.search_log.start(collection), then collection.feedback(hits, chosen=id)"
        )
    return chosen


def _by_choices(rows: Any, entries: list[Any], matching: set[Id] | None) -> Asked:
    asked, options = {}, {}
    grades: dict[Id, Grades] = {}
    for entry in entries:
        there = {id: 1 for id in entry.chosen if (id in rows if matching is None else id in matching)}
        if there:
            asked[entry.id] = entry.asked
            options[entry.id] = {name: value for name, value in entry.options.items() if name in _KEPT}
            if matching is None:
                options[entry.id]["where"] = entry.where
            grades[entry.id] = there
    if not asked:
        refuse("feedback: none of the chosen rows is there any more (and satisfies where)")
    return Asked(
        asked, grades.__getitem__, options=options, unjudged=len(entries) - len(asked), notes=(_CHOSEN,)
    )


# -- searching -----------------------------------------------------------------------------------


def _system(
    name: str, way: Callable[[Any], Any], rows: Any, asked: Asked, metrics: list[Metric],
    options: dict[str, Any], seed: int,
) -> System:  # fmt: skip
    made = {query: _made(name, way, query, each) for query, each in asked.queries.items()}
    running: dict[int | None, dict[Id, list[Id]]] = {}
    exactly: dict[int | None, dict[Id, list[Id]]] = {}
    seconds = {}
    for k in dict.fromkeys(metric.k for metric in metrics):
        started = time.perf_counter()
        running[k] = dict(_rankings(name, rows, made, asked, k, options))
        seconds[k] = time.perf_counter() - started
        exactly[k] = dict(_rankings(name, rows, made, asked, k, {**options, "exact": True}))
    values, best = _figures(running, asked, metrics), _figures(exactly, asked, metrics)
    return System(
        name, PLAIN, _estimates(values, seed), running[deepest(metrics)],
        queries_per_second=len(made) / max(seconds[metrics[0].k], 1e-9),
        exact=_estimates(best, seed),
        loss={
            metric.name: compare(
                list(best[metric.name].values()), list(values[metric.name].values()), seed=seed
            )
            for metric in metrics
        },
    )  # fmt: skip


def _made(name: str, way: Callable[[Any], Any], query: Id, asked: Any) -> Any:
    """What one way of asking makes of a query."""
    try:
        made = way(asked)
    except Exception as error:  # of the user's own code
        raise InvalidArgument(
            f"searches[{name!r:.60}] failed on query {query!r:.60}: {type(error).__name__}: {error}"
        ) from error
    if made is None or isinstance(made, Hits):
        where = f"queries[{query!r:.60}] is"
        if name != PLAIN:
            where = f"{_named(name)}query {query!r:.60}: it made"
        refuse(f"{where} a {type(made).__name__}: give a text, a vector or a query object to search for")
    return made


def _rankings(
    name: str, rows: Any, made: Mapping[Id, Any], asked: Asked, depth: int | None, options: dict[str, Any]
) -> Iterator[tuple[Id, list[Id]]]:
    for query, given in made.items():
        own = query in asked.own
        k = depth + 1 if own and depth is not None else depth
        chosen = {**options, **asked.options.get(query, {})}
        if options.get("exact"):
            chosen["exact"] = True
        try:
            hits = rows.search(given, k, **chosen)
        except (InvalidArgument, NotFound) as error:
            raise InvalidArgument(f"{_named(name)}query {query!r:.60}: {error}") from error
        except VecdbError:
            raise
        except Exception as error:  # of the user's own code, as a Rerank calls it
            said = f"{type(error).__name__}: {error}"
            raise InvalidArgument(f"{_named(name)}query {query!r:.60} failed: {said}") from error
        if isinstance(hits, list):
            several = shorten(repr(given), 60)
            refuse(f"{_named(name)}query {query!r:.60}: {several} is several queries, not one")
        ids = [id for id in hits.ids if not (own and id == query and type(id) is type(query))]
        yield query, ids if depth is None else ids[:depth]


def _named(name: str) -> str:
    return "" if name == PLAIN else f"searches[{name!r:.60}], "


def _figures(
    rankings: Mapping[int | None, Mapping[Id, list[Id]]], asked: Asked, metrics: list[Metric]
) -> dict[str, dict[Id, float]]:
    """Of each metric the figures by query, from the searches for as many hits as it looks at (E17)."""
    found: dict[str, dict[Id, float]] = {metric.name: {} for metric in metrics}
    for query in asked.queries:
        grades = asked.grades(query)
        for metric in metrics:
            found[metric.name][query] = metric.of(rankings[metric.k][query], grades)
    return found


def _estimates(values: Mapping[str, Mapping[Id, float]], seed: int) -> dict[str, Estimate]:
    return {metric: interval(each, seed=seed) for metric, each in values.items()}
