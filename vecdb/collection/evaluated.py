"""How does a user measure a collection as it runs? evaluate. What it does is vecdb/evaluation's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vecdb.collection.handle import Handle, Where
from vecdb.types import Id

if TYPE_CHECKING:
    from vecdb.evaluation.report import Evaluation


class EvaluatedVerbs(Handle):
    """The verb that measures searches."""

    __slots__ = ()

    def evaluate(
        self,
        queries: Mapping[Id, Any] | None = None,
        qrels: Mapping[Id, Mapping[Id, float]] | None = None,
        *,
        labels: str | None = None,
        feedback: bool = False,
        searches: Mapping[str, Callable[[Any], Any]] | None = None,
        where: Where | None = None,
        metrics: Any = ("ndcg@10", "recall@100", "mrr@10"),
        using: str | None = None,
        recall: float = 0.95,
        sample: int = 500,
        seed: int = 0,
    ) -> Evaluation:
        """Return how good this collection's searches are as they run, and what of the loss is the index's.

        `queries`: {id: text, vector or query object}. Judgements come from exactly one source: `qrels`
        {query id: {row id: grade}}; `labels`, a metadata field, rows with the same value being relevant to
        each other: then the queries are rows, `sample` of them where none are given, else {row id: query},
        and each is left out of its own answer; `feedback=True`: the search log's queries and choices.
        `searches`: {name: callable(query) -> what is searched for} compares ways of asking. `where`: all
        search within it, and only judgements of rows in it count. `using`, `recall`: as in `search`.

        Each search runs as it would, for as many hits as a metric looks at, and again with `exact=True`; the
        difference is the index's loss. Cost: both, for each rank k among the metrics, at one commit; they are
        not logged. InvalidArgument, also inside a transaction, names the first bad query, id or grade.

        >>> import vecdb
        >>> c = vecdb.open().create_collection("c", dim=2, metric="l2")
        >>> _ = c.add([1, 2, 3], [[0, 0], [0, 1], [5, 5]], metadata=[{"of": "a"}, {"of": "a"}, {"of": "b"}])
        >>> report = c.evaluate({"q": [0, 0.4]}, {"q": {2: 1}}, metrics=["mrr@10"])
        >>> report["search"]["mrr@10"].mean, report["search"].loss["mrr@10"].difference
        (0.5, 0.0)
        >>> found = c.evaluate(labels="of", metrics=["hit@1"])["search"]["hit@1"].per_query
        >>> sorted(found.items())
        [(1, 1.0), (2, 1.0), (3, 0.0)]
        """
        from vecdb.evaluation.running import evaluate_running

        return evaluate_running(
            self, queries, qrels, labels=labels, feedback=feedback, searches=searches, where=where,
            metrics=metrics, using=using, recall=recall, sample=sample, seed=seed,
        )  # fmt: skip
