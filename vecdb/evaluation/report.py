"""What did an evaluation find? Figures with intervals, differences with tests, costs, cards, and a verdict.

Invariants:
  E12  systems are compared on the same queries: every estimate of a report has the same keys in `per_query`;
  E13  what is printed fits 100 columns, whatever systems are called, where a metric's name does.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from vecdb.errors import InvalidArgument, NotFound
from vecdb.evaluation.metrics import parse
from vecdb.evaluation.significance import Comparison, Estimate, compare
from vecdb.evaluation.verdict import Pair, counted, pairs_of, ranked, said, said_difference, verdict_of
from vecdb.reports.base import Report
from vecdb.reports.page import Prose, Section, Table
from vecdb.reports.plots import histogram, intervals
from vecdb.shown import text_table
from vecdb.types import Id, shorten

WIDTH: Final = 100  # columns of a terminal
NAME: Final = 28  # of a system's name in a table


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """What one system achieved, and what it costs: `system["ndcg@10"]` is an Estimate.

    `kind`: "encoder", "bm25", "hybrid" or "search". `rankings` {query id: document ids, best first}, as deep
    as the metrics look. `bytes_per_document` and `bytes_total`: of float32 vectors and, by words, of the
    full-text index. `documents_per_second`, `queries_per_second`: encoded, by words indexed and searched; of
    a collection as it runs, searched for as many hits as the first metric looks at. What does not apply is
    None. `card`: what the encoder was trained on. `exact` and `loss`: of a collection as it runs, the same
    metrics with everything ranked exactly, and what approximation loses of them.
    """

    name: str
    kind: str
    metrics: Mapping[str, Estimate]
    rankings: Mapping[Id, list[Id]]
    dim: int | None = None
    metric: str | None = None
    bytes_total: int | None = None
    bytes_per_document: float | None = None
    documents_per_second: float | None = None
    queries_per_second: float | None = None
    card: Any = None
    fingerprint: str | None = None
    exact: Mapping[str, Estimate] | None = None
    loss: Mapping[str, Comparison] | None = None

    def __getitem__(self, metric: str) -> Estimate:
        """Return the estimate of a metric; NotFound lists those there are.

        >>> from vecdb.evaluation.significance import interval
        >>> System("a", "encoder", {"mrr": interval({1: 0.5, 2: 1.0})}, {})["MRR"].mean
        0.75
        """
        name = metric if isinstance(metric, str) and metric in self.metrics else parse(metric).name
        if name not in self.metrics:
            raise NotFound(f"metric {name!r} was not measured; there are {', '.join(self.metrics)}")
        return self.metrics[name]

    def __repr__(self) -> str:
        listed = ", ".join(f"{name}={each!r}" for name, each in self.metrics.items())
        return f"System({self.name!r}, {listed})"


class Evaluation(Report):
    """How good systems are: `report[name][metric]`, `.compare`, `.verdict`, `.cards`, made by
    `vecdb.evaluate`.

    `.systems` {name: System}; `.metrics` names, the first decides the verdict; `.queries` {id: what was
    asked}, those with judgements; `.documents` how many were ranked; `.unjudged` how many queries were left
    out for want of judgements, `.hopeless` how many have no relevant document; `.pairs` all pairs by the
    first metric.

    >>> import vecdb
    >>> corpus = {"a": "whales at sea", "b": "a silk road", "c": "hunting whales"}
    >>> report = vecdb.evaluate(
    ...     ["hashing", "bm25"], corpus, {1: "whales", 2: "road", 3: "a"}, {1: {"c": 1}, 2: {"b": 1}},
    ...     metrics=["mrr@2"],
    ... )
    >>> list(report), report.queries, report.unjudged
    (['hashing', 'bm25'], {1: 'whales', 2: 'road'}, 1)
    >>> report["hashing"]["mrr@2"].per_query
    {1: 0.5, 2: 1.0}
    """

    def __init__(
        self, systems: Mapping[str, System], metrics: list[str], queries: dict[Id, Any], documents: int, *,
        unjudged: int = 0, hopeless: int = 0, textless: int = 0, seed: int = 0, notes: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.systems = dict(systems)
        self.metrics = metrics
        self.queries = queries
        self.documents = documents
        self.unjudged = unjudged
        self.hopeless = hopeless
        self.textless = textless
        self.seed = seed
        self._notes = notes
        self._pairs: dict[str, list[Pair]] = {}
        self.title = f"Evaluation of {counted(len(systems), 'system')}"
        self.subtitle = (
            f"{counted(len(queries), 'judged query')} over {counted(documents, 'document')}, 95 % intervals"
        )

    # -- for programs

    def __getitem__(self, name: str) -> System:
        """Return a system by its name; NotFound lists those there are."""
        try:
            return self.systems[name]
        except (KeyError, TypeError):
            listed = ", ".join(map(repr, self.systems))
            raise NotFound(f"system {name!r:.60} was not evaluated; there are {listed}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.systems)

    def __len__(self) -> int:
        return len(self.systems)

    def __contains__(self, name: object) -> bool:
        return name in self.systems

    def compare(self, a: str, b: str, metric: str | None = None) -> Comparison:
        """Return by how much system `a` exceeds `b`, with interval and p-value, on the same queries.

        The p-value is of this pair alone: of several pairs take `pairs`, or correct them by `holm`. Costs
        50 ms. NotFound. Source: paired randomisation (Smucker, Allan and Carterette, CIKM 2007).

        >>> import vecdb
        >>> corpus = {1: "a b", 2: "c"}
        >>> report = vecdb.evaluate(["hashing", "bm25"], corpus, {1: "a"}, {1: {1: 1}}, metrics="mrr")
        >>> report.compare("bm25", "hashing").difference
        0.0
        """
        metric = metric or self.metrics[0]
        one, other = self[a][metric].per_query, self[b][metric].per_query
        return compare([one[q] for q in one], [other[q] for q in one], seed=self.seed)

    def disagreements(
        self, a: str, b: str, metric: str | None = None, n: int = 10
    ) -> list[tuple[Id, Any, float, float]]:
        """Return the `n` queries on which two systems differ most: (id, what was asked, a's figure, b's).

        >>> import vecdb
        >>> corpus = {1: "a b", 2: "c"}
        >>> report = vecdb.evaluate(["hashing", "bm25"], corpus, {1: "a"}, {1: {1: 1}}, metrics="mrr")
        >>> report.disagreements("bm25", "hashing")
        []
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InvalidArgument(f"n={n!r:.40}: give how many queries are returned, an int from 0 on")
        metric = metric or self.metrics[0]
        one, other = self[a][metric].per_query, self[b][metric].per_query
        order = sorted((q for q in one if one[q] != other[q]), key=lambda q: -abs(one[q] - other[q]))
        return [(q, self.queries[q], one[q], other[q]) for q in order[:n]]

    @property
    def pairs(self) -> list[Pair]:
        """All pairs of systems by the first metric, with p-values corrected for their number."""
        return self.pairs_by(self.metrics[0])

    def pairs_by(self, metric: str) -> list[Pair]:
        """Return all pairs of systems by a metric, with p-values corrected for their number (Holm 1979).

        >>> import vecdb
        >>> corpus = {1: "a b", 2: "c"}
        >>> report = vecdb.evaluate(["hashing", "bm25"], corpus, {1: "a"}, {1: {1: 1}}, metrics="mrr")
        >>> report.pairs_by("mrr")[0].decided
        False
        """
        estimates = {name: each[metric] for name, each in self.systems.items()}
        name = parse(metric).name
        if name not in self._pairs:
            self._pairs[name] = pairs_of(estimates, self.seed)
        return self._pairs[name]

    @property
    def best(self) -> str:
        """The system with the highest mean of the first metric."""
        return ranked(self._firsts())[0]

    @property
    def verdict(self) -> str:
        """Which system is best, which beats which, and what would settle the rest: a sentence a line."""
        lines = [verdict_of(self.metrics[0], self._firsts(), self.pairs)]
        lines += _losses(self.systems, self.metrics[0])
        return "\n".join(lines)

    @property
    def cards(self) -> dict[str, Any]:
        """{system: its encoder's card}, of those that have one."""
        return {name: each.card for name, each in self.systems.items() if each.card is not None}

    @property
    def notes(self) -> list[str]:
        """What was left out, and what else should be known of the figures."""
        found = list(self._notes)
        if self.unjudged:
            found.append(f"{counted(self.unjudged, 'query')} without judgements left out.")
        if self.hopeless:
            told = counted(self.hopeless, "query")
            found.append(f"{told} without a relevant document: 0 for every system.")
        if self.textless:
            found.append(f"{counted(self.textless, 'row')} without a text left out.")
        if len(self.queries) < 25:
            found.append("Fewer than 25 judged queries: intervals are rough, and small differences not seen.")
        return found

    def to_pandas(self, *, per_query: bool = False) -> Any:
        """Return a pandas.DataFrame: a row a system, or with `per_query` a row a query.

        A system has a column a metric, with "… low" and "… high" beside it, and its costs; a query a column
        (system, metric). InvalidArgument where pandas (extra `pandas`) is not installed.

        >>> import vecdb
        >>> corpus = {1: "a b", 2: "c"}
        >>> report = vecdb.evaluate(["hashing", "bm25"], corpus, {1: "a"}, {1: {1: 1}}, metrics="mrr")
        >>> report.to_pandas().loc["bm25", "mrr"].item(), report.to_pandas(per_query=True).shape
        (1.0, (1, 2))
        """
        try:
            import pandas
        except ImportError:
            raise InvalidArgument(
                "to_pandas needs pandas, which is not installed: pip install 'vecdb-engine[pandas]'"
            ) from None
        if per_query:
            columns = {
                (name, metric): each[metric].per_query
                for name, each in self.systems.items()
                for metric in self.metrics
            }
            found = pandas.DataFrame(columns)
            found.index.name = "query"
            return found.reindex(list(self.queries))
        rows = []
        for each in self.systems.values():
            row: dict[str, Any] = {"system": each.name, "kind": each.kind}
            for metric in self.metrics:
                estimate = each[metric]
                row |= {metric: estimate.mean, f"{metric} low": estimate.low, f"{metric} high": estimate.high}
                if each.loss is not None:
                    row[f"{metric} lost by the index"] = each.loss[metric].difference
            rows.append(row | {name: getattr(each, name) for name in _COSTS})
        return pandas.DataFrame(rows).set_index("system")

    def to_dict(self) -> dict[str, Any]:
        """Return everything but rankings as plain Python values: systems, pairs, verdict, notes.

        >>> import vecdb
        >>> corpus = {1: "a b", 2: "c"}
        >>> report = vecdb.evaluate(["hashing", "bm25"], corpus, {1: "a"}, {1: {1: 1}}, metrics="mrr")
        >>> sorted(report.to_dict())
        ['documents', 'metrics', 'notes', 'pairs', 'queries', 'systems', 'title', 'verdict']
        """
        return {
            "title": self.title,
            "verdict": self.verdict,
            "metrics": list(self.metrics),
            "queries": len(self.queries),
            "documents": self.documents,
            "systems": [_system_ready(each) for each in self.systems.values()],
            "pairs": [_pair_ready(each) for each in self.pairs],
            "notes": self.notes,
        }

    # -- for people

    def sections(self) -> list[Section]:
        """Return the parts of the page: verdict, quality, differences, costs, cards."""
        first = self.metrics[0]
        verdict = [Prose(line, strong=not at) for at, line in enumerate(self.verdict.splitlines())]
        found = [Section("Verdict", [*verdict, *map(Prose, self.notes)])]
        order = ranked(self._firsts())
        plots = [
            intervals(
                [(n, e.low, e.mean, e.high) for n in order for e in [self[n][metric]]],
                title=metric, axis=metric,
            )
            for metric in self.metrics
        ]  # fmt: skip
        table = Table(
            ["system", *self.metrics],
            [[name, *[said(self[name][metric]) for metric in self.metrics]] for name in order],
            caption="Means over the queries, with the ends of their intervals",
        )
        spread = histogram(
            {n: list(self[n][first].per_query.values()) for n in order[:4]},
            title=f"{first} of each query", axis=first, bins=20,
        )  # fmt: skip
        found.append(Section("Quality", [*plots, table, spread]))
        if self.pairs:
            found.append(Section("Differences", [_pairs_table(first, self.pairs)]))
        if any(each.loss for each in self.systems.values()):
            found.append(Section("Model and index", [_loss_table(self.systems, self.metrics)]))
        every = self.systems.values()
        there = [name for name in _COSTS if any(getattr(each, name) is not None for each in every)]
        costs = [[each.name, *[getattr(each, name) for name in there]] for each in every]
        found.append(Section("Cost", [Table(["system", *map(_spoken, there)], costs)]))
        facts = {name: card_facts(card) for name, card in self._different_cards().items()}
        if facts:
            heads = list(dict.fromkeys(fact for each in facts.values() for fact in each))
            rows = [[name, *[each.get(head, "") for head in heads]] for name, each in facts.items()]
            found.append(Section("What they were made of", [Table(["system", *heads], rows)]))
        return found

    def __str__(self) -> str:
        order = ranked(self._firsts())
        lines = [f"{self.title}: {self.subtitle}", ""]
        names = _short_names(order)
        cells = [[said(self[n][m]) for m in self.metrics] for n in order]
        room = WIDTH - 4 - max(map(len, names))
        for start, stop in _blocks([max(20, len(m)) + 2 for m in self.metrics], room):
            head = ["system", *self.metrics[start:stop]]
            lines += text_table([head, *[[n, *row[start:stop]] for n, row in zip(names, cells, strict=True)]])
            lines.append("")
        lines += _loss_lines(self.systems, self.metrics)
        costs = [_cost_cells(self[name]) for name in order]
        there = [at for at in range(len(_COST_HEADS)) if any(row[at] for row in costs)]
        if there:
            rows = [[name, *[row[at] for at in there]] for name, row in zip(names, costs, strict=True)]
            lines += text_table([["system", *[_COST_HEADS[at] for at in there]], *rows])
            lines.append("")
        cards = self._different_cards()
        for name, card in cards.items():
            told = "; ".join(f"{head} {said}" for head, said in card_facts(card).items())
            lines += _wrapped(f"{shorten(name, NAME)}: {told}")
        if cards:
            lines.append("")
        for line in [*self.verdict.splitlines(), *self.notes]:
            lines += _wrapped(line)
        return "\n".join(lines)

    __repr__ = __str__

    def _different_cards(self) -> dict[str, Any]:
        """The cards, each once: a hybrid's encoder may stand there alone, too."""
        found: dict[Any, tuple[str, Any]] = {}
        for each in sorted(self.systems.values(), key=lambda each: each.kind == "hybrid"):
            if each.card is not None:
                found.setdefault(each.fingerprint, (each.name, each.card))
        return dict(found.values())

    def _firsts(self) -> dict[str, Estimate]:
        return {name: each[self.metrics[0]] for name, each in self.systems.items()}


_COSTS: Final = ("dim", "bytes_per_document", "bytes_total", "documents_per_second", "queries_per_second")
_COST_HEADS: Final = ("dim", "bytes/document", "in all", "documents/s", "queries/s")


def card_facts(card: Any) -> dict[str, str]:
    """What a card says, by what it is about."""
    if hasattr(card, "facts"):
        found: dict[str, str] = card.facts()
        return found
    if is_dataclass(card):
        values = {each.name: getattr(card, each.name) for each in fields(card)}
        return {name.replace("_", " "): str(value) for name, value in values.items()}
    return {"trained on": str(getattr(card, "trained_on", card))}


def size(count: float | None) -> str:
    """Bytes in a unit that is easily read."""
    if count is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 100 else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError


def _cost_cells(system: System) -> list[str]:
    cells = [
        "" if system.dim is None else f"{system.dim:,}",
        "" if system.bytes_per_document is None else f"{system.bytes_per_document:,.0f}",
        size(system.bytes_total),
    ]
    for speed in (system.documents_per_second, system.queries_per_second):
        cells.append("" if speed is None else f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}")
    return cells


def _short_names(names: list[str]) -> list[str]:
    """Names of systems cut for a table, from the left where the ends tell more; all different."""
    cut = [name if len(name) <= NAME else f"{name[:8]}…{name[-(NAME - 9):]}" for name in names]
    cut = [" ".join(name.split()) for name in cut]
    return cut if len(set(cut)) == len(cut) else [f"{at}. {name}" for at, name in enumerate(cut, 1)]


def _blocks(widths: list[int], room: int) -> list[tuple[int, int]]:
    """Columns in runs that fit."""
    found, start, used = [], 0, 0
    for at, width in enumerate(widths):
        if at > start and used + width > room:
            found.append((start, at))
            start, used = at, 0
        used += width
    return [*found, (start, len(widths))]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) or [""]


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _losses(systems: Mapping[str, System], metric: str) -> list[str]:
    """What the index loses in each way of searching, in words."""
    lines, whole = [], []
    for name, each in systems.items():
        if each.loss is None or each.exact is None:
            continue
        compared = each.loss[metric]
        if not any(lost.differing for lost in each.loss.values()):
            whole.append(name)
            continue
        told = f"{name}: the index loses {said_difference(compared)} of {metric}"
        if compared.difference < 0:  # what approximation put elsewhere was not relevant
            told = told.replace("loses -", "gains ", 1)
        if not compared.differing:
            told = f"{name}: the index loses nothing of {metric}"
        elif compared.p_value > 0.05:
            told += ", which may be chance"
        exactly = said(each.exact[metric])
        lines.append(f"{told}. Ranked exactly it is {exactly}; what is missing then is the model's.")
    if whole:
        where = "" if len(systems) == 1 else f" ({', '.join(whole)})"
        lines.append(
            f"The index loses nothing{where}: ranked exactly, every figure is the same. "
            "What is missing is the model's."
        )
    return lines


def _loss_lines(systems: Mapping[str, System], metrics: list[str]) -> list[str]:
    rows = [["search", "metric", "as it runs", "exactly", "lost by the index"]]
    for name, each in zip(_short_names(list(systems)), systems.values(), strict=True):
        if each.loss is not None and each.exact is not None:
            for metric in metrics:
                if not each.loss[metric].differing:
                    continue
                cells = [said(each[metric]), said(each.exact[metric]), said_difference(each.loss[metric])]
                rows.append([name, metric, *cells])
    return [*text_table(rows), ""] if len(rows) > 1 else []


def _loss_table(systems: Mapping[str, System], metrics: list[str]) -> Table:
    rows = [
        [each.name, m, each[m].mean, each.exact[m].mean, lost.difference, lost.low, lost.high, lost.p_value]
        for each in systems.values()
        if each.loss is not None and each.exact is not None
        for m in metrics
        for lost in [each.loss[m]]
    ]
    heads = ["search", "metric", "as it runs", "exactly", "lost by the index", "low", "high", "p"]
    return Table(heads, rows, caption="What approximation loses; what is missing beyond is the model's")


def _pairs_table(metric: str, pairs: list[Pair]) -> Table:
    rows = [
        [
            each.better, each.worse, each.compared.difference, each.compared.low, each.compared.high,
            each.p_adjusted, "yes" if each.decided else "no", each.more,
        ]
        for each in pairs
    ]  # fmt: skip
    heads = ["better", "worse", "difference", "low", "high", "p (Holm)", "decided", "queries to settle it"]
    return Table(heads, rows, caption=f"All pairs by {metric}")


def _system_ready(system: System) -> dict[str, Any]:
    found: dict[str, Any] = {"name": system.name, "kind": system.kind}
    found["metrics"] = {name: _estimate_ready(each) for name, each in system.metrics.items()}
    found |= {name: getattr(system, name) for name in (*_COSTS, "metric", "fingerprint")}
    found["card"] = None if system.card is None else card_facts(system.card)
    if system.exact is not None and system.loss is not None:
        found["exact"] = {name: _estimate_ready(each) for name, each in system.exact.items()}
        found["lost_by_the_index"] = {name: _compared_ready(each) for name, each in system.loss.items()}
    return found


def _estimate_ready(each: Estimate) -> dict[str, Any]:
    per_query = [[query, value] for query, value in each.per_query.items()]  # ids keep their types
    return {"mean": each.mean, "low": each.low, "high": each.high, "per_query": per_query}


def _compared_ready(each: Comparison) -> dict[str, Any]:
    return {
        "difference": each.difference, "low": each.low, "high": each.high, "p": each.p_value,
        "queries": each.queries, "differing": each.differing,
    }  # fmt: skip


def _pair_ready(each: Pair) -> dict[str, Any]:
    return {
        "better": each.better, "worse": each.worse, **_compared_ready(each.compared),
        "p_adjusted": each.p_adjusted, "decided": each.decided, "more_judged_queries": each.more,
    }  # fmt: skip
