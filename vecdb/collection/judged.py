"""How does a user make judgements? judge. What it does is vecdb/evaluation/judge.py's business."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from vecdb.collection.handle import Handle

if TYPE_CHECKING:
    from vecdb.query.objects import Query
    from vecdb.types import Id


class JudgeVerbs(Handle):
    """The verb that asks somebody."""

    __slots__ = ()

    def judge(
        self,
        queries: Mapping[Any, Any] | Sequence[str],
        *,
        per_query: int = 10,
        known: Mapping[Any, Mapping[Id, int | float]] | None = None,
        using: str | None = None,
        searches: Mapping[str, Callable[[Any], Query]] | None = None,
        input: IO[str] | None = None,
        output: IO[str] | None = None,
    ) -> dict[Any, dict[Id, int | float]]:
        """Ask in the terminal which documents answer the queries, and return {query id: {id: grade}}.

        `queries`: {query id: text, vector or query object}, or a list of texts, each its own id. For each
        query the best of several ways to search (its vectors, its words, both; or `searches` {name:
        callable(query) -> query object}) are put together, and up to `per_query` of them asked for, first
        those whose judgement is expected to change the ways' nDCG and their differences most. Grades are 0 to
        3; skip, undo, more and quit are answers too. `known`: earlier judgements, which are kept and not
        asked for again; they count toward `per_query`. `input` and `output`: text streams, where there is no
        terminal; the end of the input quits, as Ctrl-C does, and what was answered is returned.

        Costs an exact search by each way for each query, as of one commit; none is logged. InvalidArgument
        where there is no terminal and no `input`. Sources: pooling (Spärck Jones and van Rijsbergen, 1975),
        minimal test collections (Carterette, Allan and Sitaraman, SIGIR 2006).

        >>> import io, vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", encoder="hashing")
        >>> _ = c.add(["a", "b"], texts=["gpu kernels", "soup"])
        >>> c.judge({"q": "gpu"}, input=io.StringIO("3\\n0\\n"), output=io.StringIO())
        {'q': {'a': 3, 'b': 0}}
        """
        from vecdb.evaluation.judge import judge

        return judge(
            self, queries, per_query=per_query, known=known, using=using, searches=searches, input=input,
            output=output,
        )  # fmt: skip
