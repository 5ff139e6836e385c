"""How good is a ranking, as judged by grades? nDCG, recall, reciprocal rank, average precision, precision,
hit rate.

Definitions are those of trec_eval, whose figures people compare with:

  grade      a document that nobody judged has grade 0, and so has one judged below 0; above 0 is relevant;
  ndcg@k     the gain of a document is its grade, discounted by log2(rank + 1) (Järvelin and Kekäläinen, TOIS
             2002), over the same sum for the best order of all judged documents;
  recall@k   the share of all relevant documents that the first k hold;
  mrr@k      1 / rank of the first relevant document, 0 where none is among the first k;
  map@k      the precision at the rank of each relevant document among the first k, summed, over the number of
             all relevant documents;
  precision  the share of k, however many documents were ranked;
  hit_rate   1 where any relevant document is among the first k, else 0.

Without k the whole ranking counts; recall, precision and hit rate say nothing then, and need a k.

Invariants:
  E1  a figure is 0 to 1; it is 0 where no document is relevant, as in trec_eval;
  E2  the order judged is the order given. trec_eval orders by score and breaks ties by id, whatever order the
      results came in: give it scores that fall with the rank to compare the two.

Rejected: gains of 2^grade - 1 (Burges 2005). Both are called nDCG in print; trec_eval, BEIR and MTEB take the
grade. Rejected: average precision over min(k, relevant), as some packages have it: trec_eval divides by all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vecdb.errors import InvalidArgument
from vecdb.types import Id

MOST_K: Final = 1_000_000
_SHORT: Final = {"p": "precision", "hit": "hit_rate"}
_BARE: Final = ("ndcg", "mrr", "map")  # have a meaning without a k


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of rankings: `.name`, `.kind`, `.k` (None: the whole ranking), and `of(ranking, grades)`.

    >>> from vecdb.evaluation.metrics import parse
    >>> parse("P@5").name, parse("mrr").k
    ('precision@5', None)
    """

    kind: str
    k: int | None

    @property
    def name(self) -> str:
        """How it is written: "ndcg@10"."""
        return self.kind if self.k is None else f"{self.kind}@{self.k}"

    def of(self, ranking: Sequence[Id], grades: Mapping[Id, int | float]) -> float:
        """Return the figure of one query's ranking, best first, by the grades of its judged documents.

        Cost: the first k of the ranking, and a sort of the grades for nDCG. InvalidArgument where an id
        stands twice among the first k, which would be counted twice. The definitions are trec_eval's.

        >>> from vecdb.evaluation.metrics import parse
        >>> parse("ndcg@10").of(["b", "a", "x"], {"a": 2, "b": 1})
        0.8597186998521972
        >>> parse("recall@1").of(["b", "a", "x"], {"a": 2, "b": 1})
        0.5
        """
        seen = ranking if self.k is None else ranking[: self.k]
        if len(set(seen)) < len(seen):
            _refuse_twice(seen)
        gains = [grades.get(id, 0) for id in seen]
        return _FIGURES[self.kind](gains, grades, self.k)

    def __str__(self) -> str:
        return self.name


def parse(name: str | Metric) -> Metric:
    """Return the metric of a name: ndcg@k, recall@k, mrr@k, map@k, precision@k (p@k), hit_rate@k (hit@k).

    ndcg, mrr and map may stand without a k: the whole ranking. InvalidArgument names what is known.

    >>> from vecdb.evaluation.metrics import parse
    >>> parse("ndcg@10")
    Metric(kind='ndcg', k=10)
    """
    if isinstance(name, Metric):
        return name
    if not isinstance(name, str):
        _refuse(f"a metric is a name such as 'ndcg@10', not {type(name).__name__}")
    kind, at, cut = name.strip().lower().partition("@")
    kind = _SHORT.get(kind, kind).replace("hitrate", "hit_rate").replace("hit rate", "hit_rate")
    if kind not in _FIGURES:
        _refuse(
            f"metric {name!r:.60} is not known: give one of ndcg@k, recall@k, mrr@k, map@k, "
            "precision@k (p@k), hit_rate@k (hit@k), k a rank such as 10"
        )
    if not at:
        if kind not in _BARE:
            _refuse(f"metric {name!r:.60} needs a rank: {kind}@10 looks at the first 10")
        return Metric(kind, None)
    k = int(cut) if cut.isascii() and cut.isdigit() and len(cut) <= 7 else 0
    if not 1 <= k <= MOST_K:
        _refuse(f"metric {name!r:.60}: the rank after @ is an int from 1 to {MOST_K:,}, as in {kind}@10")
    return Metric(kind, k)


def parse_all(names: Any) -> list[Metric]:
    """Return the metrics of names, each once; InvalidArgument where there are none or one is given twice."""
    given = [names] if isinstance(names, str | Metric) else names
    try:
        found = [parse(each) for each in given]
    except TypeError:
        _refuse(f"metrics is a list of names such as 'ndcg@10', not {type(names).__name__}")
    if not found:
        _refuse("metrics is empty: give at least one, such as 'ndcg@10'")
    for at, metric in enumerate(found):
        if metric in found[:at]:
            _refuse(f"metrics holds {metric.name!r} twice: give each once")
    return found


def deepest(metrics: Sequence[Metric]) -> int | None:
    """How many ranks of a ranking the metrics look at; None: all."""
    cuts = [metric.k for metric in metrics]
    return None if None in cuts else max(cut for cut in cuts if cut is not None)


# -- the figures: gains of the ranks, all grades, k ----------------------------------------------

Gains = Sequence[int | float]
Grades = Mapping[Id, int | float]


def _ndcg(gains: Gains, grades: Grades, k: int | None) -> float:
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)
    if not best:
        return 0.0
    unit = best[0]  # grades of any size: what is summed is at most 1 each
    return _discounted(gains, unit) / _discounted(best if k is None else best[:k], unit)


def _discounted(gains: Gains, unit: int | float) -> float:
    return sum(gain / unit / math.log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain > 0)


def _recall(gains: Gains, grades: Grades, k: int | None) -> float:
    relevant = _relevant(grades.values())
    return _relevant(gains) / relevant if relevant else 0.0


def _reciprocal_rank(gains: Gains, grades: Grades, k: int | None) -> float:
    return next((1 / rank for rank, gain in enumerate(gains, 1) if gain > 0), 0.0)


def _average_precision(gains: Gains, grades: Grades, k: int | None) -> float:
    relevant = _relevant(grades.values())
    found, total = 0, 0.0
    for rank, gain in enumerate(gains, 1):
        if gain > 0:
            found += 1
            total += found / rank
    return total / relevant if relevant else 0.0


def _precision(gains: Gains, grades: Grades, k: int | None) -> float:
    assert k is not None
    return _relevant(gains) / k


def _hit_rate(gains: Gains, grades: Grades, k: int | None) -> float:
    return float(_relevant(gains) > 0)


def _relevant(grades: Any) -> int:
    return sum(grade > 0 for grade in grades)


_FIGURES: Final[dict[str, Callable[[Gains, Grades, int | None], float]]] = {
    "ndcg": _ndcg,
    "recall": _recall,
    "mrr": _reciprocal_rank,
    "map": _average_precision,
    "precision": _precision,
    "hit_rate": _hit_rate,
}


def _refuse_twice(ranking: Sequence[Id]) -> None:
    before: set[Id] = set()
    for rank, id in enumerate(ranking, 1):
        if id in before:
            _refuse(f"ranking: id {id!r:.60} stands a second time at rank {rank}: give each document once")
        before.add(id)


def _refuse(message: str) -> Any:
    raise InvalidArgument(message)
