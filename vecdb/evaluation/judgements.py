"""What may be given as documents, queries and judgements, and which of the queries can be judged?

Invariants:
  E6  judgements that name a query or a document that is not there are an error, never left out in silence: a
      typing mistake in an id would lower every figure, and ids 1 and "1" are different;
  E7  a query without judgements takes no part, and is counted; one whose judgements are all 0 takes part with
      figures of 0, as in trec_eval, and is counted too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.types import Id, shorten

Qrels = dict[Id, dict[Id, int | float]]


@dataclass(frozen=True, slots=True)
class Documents:
    """What is searched: `.ids` and `.texts`, in one order; `.textless`: rows left out for want of a text."""

    ids: list[Id]
    texts: list[str]
    textless: frozenset[Id] = frozenset()


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries with judgements: `.queries` {id: what is asked}, `.grades` {id: {document id: grade}}.

    `.unjudged`: how many queries were left out for want of judgements; `.hopeless`: how many have no document
    with a grade above 0.
    """

    queries: dict[Id, Any]
    grades: Qrels
    unjudged: int = 0
    hopeless: int = 0


def documents_of(corpus: Any) -> Documents:
    """The documents of `corpus`: {id: text}, or a collection with texts; InvalidArgument."""
    if isinstance(corpus, Mapping):
        ids, texts = [], []
        for id, text in corpus.items():
            ids.append(_id("corpus", id))
            if not isinstance(text, str):
                refuse(f"corpus[{id!r:.60}] is a {type(text).__name__}: give the document's text, a str")
            texts.append(_sound(f"corpus[{id!r:.60}]", text))
        found = Documents(ids, texts)
    elif hasattr(corpus, "scan") and hasattr(corpus, "schema"):
        rows = [(record.id, record.text) for record in corpus.scan()]
        kept = [(id, text) for id, text in rows if text is not None]
        textless = frozenset(id for id, text in rows if text is None)
        found = Documents([id for id, _ in kept], [text for _, text in kept], textless)
        if rows and not kept:
            refuse(f"corpus: no row of collection {corpus.name!r} has a text; give {{id: text}}")
    else:
        refuse(f"corpus is {{id: text}} or a collection, not a {type(corpus).__name__}")
    if not found.ids:
        refuse("corpus is empty: there is nothing to find")
    return found


def queries_of(queries: Any, *, texts: bool) -> dict[Id, Any]:
    """The queries {id: what is asked}, where `texts`, texts; InvalidArgument."""
    if not isinstance(queries, Mapping):
        hint = "; number them: dict(enumerate(queries))" if isinstance(queries, list | tuple) else ""
        what = "text" if texts else "text, vector or query object"
        refuse(f"queries is {{id: {what}}}, not a {type(queries).__name__}{hint}")
    if not queries:
        refuse("queries is empty: there is nothing to ask")
    found: dict[Id, Any] = {}
    for id, asked in queries.items():
        if texts and not isinstance(asked, str):
            refuse(f"queries[{id!r:.60}] is a {type(asked).__name__}: give the query's text, a str")
        if texts:
            _sound(f"queries[{id!r:.60}]", asked)
        found[_id("queries", id)] = asked
    return found


def judged_of(
    queries: Mapping[Id, Any], qrels: Any, known: Any, where: str, *, lacking: tuple[Any, str] = ((), "")
) -> Judged:
    """The queries that have judgements, with these; `known`: a container of the documents' ids (E6, E7).

    `lacking`: a container of those that are there, too, but cannot be found for want of what it names.
    """
    grades = grades_of(qrels)
    if not grades.keys() & queries.keys():
        one, other = next(iter(queries)), next(iter(grades), None)
        has = "it is empty" if other is None else f"its first is for {other!r:.60}, {_near(other, queries)}"
        refuse(f"qrels has no judgement for any query: {has}; the first query is {one!r:.60}")
    for query, judged in grades.items():
        if query not in queries:
            count = len(grades.keys() - queries.keys())
            refuse(
                f"qrels: query {query!r:.60} is not among the queries ({_counted(count, 'such query')}), "
                f"{_near(query, queries)}; keep those that are: "
                "{q: qrels[q] for q in queries if q in qrels}"
            )
        for document in judged:
            if document not in known and document in lacking[0]:
                refuse(
                    f"qrels[{query!r:.60}]: document {document!r:.60} of {where} has no {lacking[1]}, and "
                    "cannot be found: leave its judgement out, or give it one"
                )
            if document not in known:
                count = sum(d not in known for each in grades.values() for d in each)
                refuse(
                    f"qrels[{query!r:.60}]: document {document!r:.60} is not in {where} "
                    f"({_counted(count, 'such judgement')}), {_near(document, known)}; leave out what cannot "
                    "be found, or add it"
                )
    asked = {id: query for id, query in queries.items() if grades.get(id)}
    hopeless = sum(all(grade <= 0 for grade in grades[id].values()) for id in asked)
    return Judged(asked, {id: grades[id] for id in asked}, len(queries) - len(asked), hopeless)


def grades_of(qrels: Any) -> Qrels:
    """Judgements {query id: {document id: grade}} with grades as numbers; InvalidArgument names the first
    bad."""
    like = "{query id: {document id: grade}}"
    if not isinstance(qrels, Mapping):
        refuse(f"qrels is {like}, not a {type(qrels).__name__}")
    found: Qrels = {}
    for query, judged in qrels.items():
        if not isinstance(judged, Mapping):
            hint = "; without grades give each a 1" if isinstance(judged, Iterable) else ""
            refuse(f"qrels[{query!r:.60}] is {{document id: grade}}, not a {type(judged).__name__}{hint}")
        found[_id("qrels", query)] = {
            _id(f"qrels[{query!r:.60}]", document): _grade(query, document, grade)
            for document, grade in judged.items()
        }
    return found


def check_label(where: str, label: Any) -> str:
    """Return what a system is called: some characters that a line can show; InvalidArgument."""
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        refuse(f"{where} is called {label!r:.60}: a name is a str of one line, without control characters")
    return str(label)


def _sound(where: str, text: str) -> str:
    """A text that every encoder can read."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            refuse(f"{where} has a lone surrogate at position {error.start}; it is no text")
    return text


def _grade(query: Any, document: Any, grade: Any) -> int | float:
    if isinstance(grade, np.generic):
        grade = grade.item()
    if not isinstance(grade, Real) or not isinstance(grade, int | float) or not _finite(grade):
        refuse(
            f"qrels[{query!r:.60}][{document!r:.60}]={shorten(repr(grade), 60)}: a grade is a finite number, "
            "0 for not relevant"
        )
    return grade


def _finite(grade: int | float) -> bool:
    try:
        return math.isfinite(grade)
    except OverflowError:  # an int beyond the floats
        return False


def _id(where: str, id: Any) -> Id:
    if isinstance(id, np.generic):
        id = id.item()
    if isinstance(id, bool) or not isinstance(id, str | int):
        refuse(f"{where}: {id!r:.60} is a {type(id).__name__}; an id is a str or an int")
    return id


def _near(id: Id, known: Any) -> str:
    """What may be wrong with an id that is not there."""
    other: Id | None = str(id) if isinstance(id, int) else None
    if isinstance(id, str) and id.lstrip("-").isascii() and id.lstrip("-").isdigit() and len(id) < 20:
        other = int(id)
    if other is not None and other in known:
        return f"though {other!r} is: an id is a str or an int, as it was given"
    return "nor is one that differs in its type alone"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what.replace('query', 'querie')}s"


def refuse(message: str) -> NoReturn:
    """Raise InvalidArgument."""
    raise InvalidArgument(message)
