"""What does a model learn from, and what is kept from it? Pairs or triplets of texts, as queries and answers.

A query that is given several times is one query with several answers. Held out are whole queries; of those
that remain, some choose when to stop. Texts are all that were named, held-out answers and `corpus` included:
that they exist is no secret, which query they answer is.

Invariants (checked by tests/unit/test_fine_tune.py):
  E1  whatever is wrong with an item is an error that names it: `pairs[17]`, the first such;
  E2  every query is of one part alone: training, choosing, held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.adapting.sources import has_parts
from vecdb.errors import InvalidArgument
from vecdb.evaluation.metrics import parse

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.encoders.base import Encoder

    Floats = npt.NDArray[np.float32]

RANKED: Final = ("ndcg@10", "recall@1", "recall@10")  # the first decides
TRIPLETS: Final = "triplets in order"
DEPTH: Final = 10
LEAST: Final = 10  # queries
CHOOSING: Final = 0.2  # of the queries that are not held out
FEWEST_CHOOSING: Final = 5
_NUMBERS: Final = 1 << 24  # of a block of similarities


@dataclass(frozen=True)
class Examples:
    """Queries, texts, the answers of each query as rows of texts; of triplets the wrong ones too."""

    source: str
    count: int
    queries: list[str]
    texts: list[str]
    answers: list[list[int]]
    wrong: list[list[int]]
    training: list[int]
    choosing: list[int]
    held_out: list[int]

    @cached_property
    def itself(self) -> list[int]:
        """A query's own row among the texts, -1 for none: it is no answer."""
        rows = {text: at for at, text in enumerate(self.texts)}
        return [rows.get(query, -1) for query in self.queries]

    def figures(self, encoder: Encoder, rows: list[int] | None = None) -> dict[str, list[float]]:
        """What each metric says of each held-out query (or of `rows`) under an encoder."""
        asked = self.held_out if rows is None else rows
        queries = encoder.encode_queries([self.queries[row] for row in asked])
        return self.judged(queries, encoder.encode_documents(self.texts), asked)

    def judged(self, queries: Floats, documents: Floats, rows: list[int]) -> dict[str, list[float]]:
        """The same of vectors: of the queries `rows`, and of all texts; compared by cosine."""
        queries, documents = unit(queries), unit(documents)
        values: dict[str, list[float]] = {}
        if self.source == "triplets":
            values[TRIPLETS] = [
                self._in_order(query, documents, row) for query, row in zip(queries, rows, strict=True)
            ]
        kinds = [parse(name) for name in RANKED]
        values |= {kind.name: [] for kind in kinds}
        step = max(1, _NUMBERS // max(1, len(documents)))
        for first in range(0, len(rows), step):
            similar = queries[first : first + step] @ documents.T
            for scores, row in zip(similar, rows[first : first + step], strict=True):
                if self.itself[row] >= 0:
                    scores[self.itself[row]] = -np.inf
                ranking = best(scores, DEPTH)
                grades: dict[str | int, int | float] = dict.fromkeys(self.answers[row], 1)
                for kind in kinds:
                    values[kind.name].append(kind.of(ranking, grades))
        return values

    def _in_order(self, query: Floats, documents: Floats, row: int) -> float:
        """The share of a query's pairs of answer and wrong text that stand as they should."""
        right, wrong = documents[self.answers[row]] @ query, documents[self.wrong[row]] @ query
        return float((right[:, None] > wrong).mean())


def examples_in(given: Any, corpus: Any, share: float, seed: int) -> Examples:
    """What the user gave, checked and split."""
    listed = _listed(given)
    seats = len(listed[0]) if listed and isinstance(listed[0], tuple | list) else 2
    name = "triplets" if seats == 3 else "pairs"
    rows: dict[str, int] = {}
    answers: dict[str, dict[int, None]] = {}
    wrong: dict[str, dict[int, None]] = {}
    for at, item in enumerate(listed):
        query, *texts = _item(item, at, name, seats)
        found = [rows.setdefault(text, len(rows)) for text in texts]
        answers.setdefault(query, {})[found[0]] = None
        wrong.setdefault(query, {}).update(dict.fromkeys(found[1:]))
    for at, text in enumerate(_texts(corpus)):
        if not isinstance(text, str):
            _refuse(f"corpus[{at}] is {type(text).__name__}, not a str")
        rows.setdefault(text, len(rows))
    queries = list(answers)
    if len(queries) < LEAST:
        _refuse(f"{name}: {len(queries)} queries; at least {LEAST} are needed, to learn and to hold out")
    order = np.random.default_rng([seed, 0]).permutation(len(queries)).tolist()
    held = min(len(queries) - FEWEST_CHOOSING, max(1, round(len(queries) * share)))
    rest = order[held:]
    choosing = round(len(rest) * CHOOSING)
    choosing = choosing if choosing >= FEWEST_CHOOSING else 0
    return Examples(
        name, len(listed), queries, list(rows), [sorted(answers[each]) for each in queries],
        [sorted(wrong[each]) for each in queries], sorted(rest[choosing:]), sorted(rest[:choosing]),
        sorted(order[:held]),
    )  # fmt: skip


def unit(vectors: Floats) -> Floats:
    """Rows of length 1; a zero row stays."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    made: Floats = vectors / np.maximum(lengths, np.float32(1e-12))
    return made


def best(scores: Floats, k: int) -> list[int]:
    """The places of the `k` largest, largest first, ties by place."""
    if k < len(scores):
        limit = np.partition(scores, len(scores) - k)[len(scores) - k]
        some = np.flatnonzero(scores >= limit)
    else:
        some = np.arange(len(scores))
    found: list[int] = some[np.argsort(-scores[some], kind="stable")[:k]].tolist()
    return found


def _listed(given: Any) -> list[Any]:
    if isinstance(given, dict) or not has_parts(given):
        _refuse(f"pairs is a {type(given).__name__}: give a list of (query, text), or of (query, text, text)")
    return list(given)


def _texts(corpus: Any) -> list[Any]:
    if corpus is None:
        return []
    if isinstance(corpus, dict) or not has_parts(corpus):
        _refuse(f"corpus is a {type(corpus).__name__}: give a list of texts")
    return list(corpus)


def _item(item: Any, at: int, name: str, seats: int) -> list[str]:
    shape = "(query, text, text)" if seats == 3 else "(query, text)"
    if not isinstance(item, tuple | list) or len(item) != seats or seats not in (2, 3):
        _refuse(f"{name}[{at}] is {item!r:.80}: {shape} is wanted, and all of one kind")
    for text in item:
        if not isinstance(text, str):
            _refuse(f"{name}[{at}] holds a {type(text).__name__}: {shape}, all str, is wanted")
    return list(item)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
