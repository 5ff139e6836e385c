"""Which encoder finds best on these documents and queries? The answer to `vecdb.evaluate`.

Each encoder makes vectors of all documents and queries once, and every document is ranked by exact distances
(ranks.py): what is compared is models, not indexes. "bm25" ranks by words, "hybrid:<encoder>" fuses both,
in a private database that is gone afterwards, by the queries that a user would write: `Text(words)`, and
`Near(vector) + Text(words)` with all ranked exactly, for as many hits as the deepest of the metrics looks at:
by that goes how deeply they are fused.

Invariants:
  E10  an encoder that stands alone and in a hybrid encodes once;
  E11  every encoder has encoded one text before the first of many is encoded: what cannot run is known at
       once, and loading a model is no part of its speed.

A query's operators mean nothing here: words are asked as words (`wing*` as `wing`), the first 4,096 of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.encoders.base import check_vectors
from vecdb.encoders.registry import get
from vecdb.errors import InvalidArgument
from vecdb.evaluation import ranks
from vecdb.evaluation.judgements import (
    Documents,
    Judged,
    check_label,
    documents_of,
    judged_of,
    queries_of,
    refuse,
)
from vecdb.evaluation.metrics import Metric, deepest, parse_all
from vecdb.evaluation.report import Evaluation, System
from vecdb.evaluation.significance import check_seed, interval
from vecdb.progress import reporter
from vecdb.types import Id

if TYPE_CHECKING:
    from vecdb.declare import FullText
    from vecdb.encoders.base import Encoder

METRICS: Final = ("ndcg@10", "recall@100", "mrr@10")
METRICS_OF_VECTORS: Final = ("cosine", "l2", "dot")
MOST_DIM: Final = 65_536
BATCH: Final = 512  # texts encoded at once
MOST_WORDS: Final = 4_096
MOST_RANKED: Final = 100_000  # by words
BM25: Final = "bm25"
HYBRID: Final = "hybrid:"

Positions = Any  # of documents, best first


@dataclass(frozen=True, slots=True)
class Given:
    """One system to compare: an encoder, words, or both."""

    name: str
    encoder: Encoder | None
    words: bool

    @property
    def kind(self) -> str:
        """What it ranks by."""
        if self.encoder is None:
            return BM25
        return "hybrid" if self.words else "encoder"


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder made, and how long it took."""

    documents: Any
    queries: Any
    documents_s: float
    queries_s: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a system found for each query, and how long that took."""

    rankings: list[Positions]
    documents_s: float
    queries_s: float
    bytes_total: int


def evaluate(
    encoders: Any, corpus: Any, queries: Mapping[Id, str], qrels: Mapping[Id, Mapping[Id, float]], *,
    metrics: Any = METRICS, language: str | None = None, seed: int = 0, progress: Any = False,
) -> Evaluation:  # fmt: skip
    """Return how well encoders find what was judged relevant, with intervals, costs and a verdict.

    `encoders`: names or objects, or {label: either}; "bm25" ranks by words and "hybrid:<encoder or label>"
    by both. `corpus`: {id: text}, or a collection, whose rows' texts count. `queries`: {id: text}. `qrels`:
    {query id: {document id: grade}}, a grade above 0 being relevant; queries without judgements are left
    out and counted. `metrics`: see `vecdb.evaluation.metrics`; the first decides the verdict. `language`:
    of the words ("english": its stemmer, and its stop words where there is a list; extra `text`). `seed`:
    of intervals and tests. `progress`: True, or a callable (done, total) of texts.

    Cost: every text once an encoder, one matrix product, 0.1 s a system for intervals, and 50 ms a pair of
    systems when the verdict or `pairs` is first asked for. Memory: the vectors, 4 · d bytes a text.
    InvalidArgument names the first bad id, grade or encoder; an encoder that fails is named with the texts
    it failed on. Tests: Smucker, Allan and Carterette (CIKM 2007), Holm (1979).

    >>> import vecdb
    >>> corpus = {"a": "whales at sea", "b": "a silk road", "c": "hunting whales"}
    >>> report = vecdb.evaluate(
    ...     ["hashing", "bm25"], corpus, {1: "whales", 2: "silk"}, {1: {"a": 1, "c": 2}, 2: {"b": 1}},
    ...     metrics=["ndcg@10", "recall@1"],
    ... )
    >>> report["bm25"]["recall@1"].mean, report["hashing"].dim
    (0.75, 512)
    >>> report.compare("hashing", "bm25", "recall@1").p_value
    1.0
    """
    wanted, seed = parse_all(metrics), check_seed(seed)
    systems = systems_of(encoders)
    documents = documents_of(corpus)
    judged = judged_of(
        queries_of(queries, texts=True), qrels, set(documents.ids), _called(corpus),
        lacking=(documents.textless, "text"),
    )  # fmt: skip
    depth = deepest(wanted)
    words = _reading_words(systems, len(documents.ids), depth, language)
    made = _encode_all(systems, documents.texts, list(judged.queries.values()), progress)
    found = _by_vectors(systems, made, depth)
    if words is not None:
        found |= _by_words(systems, made, documents, judged, depth, words)
    return Evaluation(
        {
            each.name: _system(each, found[each.name], documents, judged, wanted, seed) for each in systems
        },
        [metric.name for metric in wanted],
        dict(judged.queries),
        len(documents.ids),
        unjudged=judged.unjudged, hopeless=judged.hopeless, textless=len(documents.textless), seed=seed,
    )  # fmt: skip


def systems_of(encoders: Any) -> list[Given]:
    """The systems of `encoders`, each under a name of its own; InvalidArgument."""
    if isinstance(encoders, Mapping):
        named = list(encoders.items())
        for label, _ in named:
            check_label("encoders: one", label)
    elif isinstance(encoders, str) or hasattr(encoders, "encode_documents"):
        named = [(None, encoders)]
    elif isinstance(encoders, list | tuple):
        named = [(None, each) for each in encoders]
    else:
        refuse(
            "encoders is a list of names and encoder objects, or {label: either}, "
            f"not a {type(encoders).__name__}"
        )
    if not named:
        refuse('encoders is empty: give names or objects, as ["wordllama", "bm25"]')
    ours = {each.name: each for _, each in named if not isinstance(each, str) and hasattr(each, "name")}
    ours |= {label: each for label, each in named if label}
    found: list[Given] = []
    for at, (label, each) in enumerate(named):
        given = _given(label, each, ours, at)
        if any(given.name == other.name for other in found):
            refuse(f"encoders: {given.name!r:.60} stands there twice; label one: {{label: encoder}}")
        found.append(given)
    return found


def _given(label: str | None, each: Any, ours: Mapping[str, Any], at: int) -> Given:
    if not isinstance(each, str):
        try:
            encoder = get(each)
        except InvalidArgument as error:
            raise InvalidArgument(f"encoders: item {at}: {error}") from None
        return Given(label or encoder.name, _ranked_by(encoder), False)
    if each == BM25:
        return Given(label or each, None, True)
    if not each.startswith(HYBRID):
        return Given(label or each, _ranked_by(get(each)), False)
    part: Any = each.removeprefix(HYBRID)
    part = ours.get(part, part)
    if isinstance(part, str) and (part in ("", BM25) or part.startswith(HYBRID)):
        refuse(f"encoders: {each!r:.60}: write hybrid:<encoder>, as in 'hybrid:wordllama'; words are BM25's")
    return Given(label or each, _ranked_by(get(part)), True)


def _ranked_by(encoder: Encoder) -> Encoder:
    """An encoder that says of itself what can be."""
    check_label("an encoder", encoder.name)
    dim = encoder.dim
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= MOST_DIM:
        refuse(f"encoder {encoder.name!r}: dim={dim!r:.40}: a number of dimensions is from 1 to {MOST_DIM:,}")
    if encoder.metric not in METRICS_OF_VECTORS:
        known = ", ".join(METRICS_OF_VECTORS)
        refuse(f"encoder {encoder.name!r}: metric={encoder.metric!r:.60} is not known; it is one of {known}")
    return encoder


# -- encoding ------------------------------------------------------------------------------------


def _encode_all(
    systems: list[Given], documents: list[str], queries: list[str], progress: Any
) -> dict[int, Encoded]:
    """What each encoder made, by the object's identity (E10, E11)."""
    encoders = {id(each.encoder): each.encoder for each in systems if each.encoder is not None}
    for each in encoders.values():
        _encoded(each, "encode_documents", documents[:1], "document", lambda count: None)
        _encoded(each, "encode_queries", queries[:1], "query", lambda count: None)
    total = len(encoders) * (len(documents) + len(queries))
    done = 0
    with reporter(progress, "texts encoded") as told:

        def add(count: int) -> None:
            nonlocal done
            done += count
            told(done, total)

        made = {}
        for key, each in encoders.items():
            started = time.perf_counter()
            found = _encoded(each, "encode_documents", documents, "document", add)
            between = time.perf_counter()
            asked = _encoded(each, "encode_queries", queries, "query", add)
            made[key] = Encoded(found, asked, between - started, time.perf_counter() - between)
    return made


def _encoded(encoder: Encoder, verb: str, texts: list[str], what: str, add: Callable[[int], None]) -> Any:
    vectors = np.empty((len(texts), encoder.dim), np.float32)
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        try:
            made = _sound(check_vectors(getattr(encoder, verb)(batch), len(batch), encoder.dim, verb))
        except MemoryError:
            raise
        except Exception as error:  # of any package
            last = start + len(batch) - 1
            raise InvalidArgument(
                f"encoder {encoder.name!r} failed on texts {start:,} to {last:,} of {len(texts):,}, each "
                f"given as a {what}: {type(error).__name__}: {error}"
            ) from error
        vectors[start : start + len(batch)] = made
        add(len(batch))
    return vectors


def _sound(vectors: Any) -> Any:
    """Vectors whose squared lengths are float32, as a collection asks it of them."""
    with np.errstate(over="ignore"):
        square = np.einsum("ij,ij->i", vectors, vectors)
    if not np.isfinite(square).all():
        at = int(np.argmin(np.isfinite(square)))
        refuse(f"text {at} of these has a vector whose squared length overflows float32")
    return vectors


# -- ranking -------------------------------------------------------------------------------------


def _by_vectors(systems: list[Given], made: dict[int, Encoded], depth: int | None) -> dict[str, Ranked]:
    found = {}
    for each in systems:
        if each.encoder is not None and not each.words:
            encoded = made[id(each.encoder)]
            found[each.name] = Ranked(
                [*ranks.nearest(encoded.queries, encoded.documents, each.encoder.metric, depth)],
                encoded.documents_s, encoded.queries_s, encoded.documents.nbytes,
            )  # fmt: skip
    return found


def _reading_words(
    systems: list[Given], count: int, depth: int | None, language: Any
) -> FullText | None:
    """How words are read, None where no system ranks by them: known to be possible before all is encoded."""
    from vecdb.declare import FullText
    from vecdb.text import analysis
    from vecdb.text.stopwords import LANGUAGES

    listed = isinstance(language, str) and language.lower() in LANGUAGES
    analysis.of(language, listed)
    if not any(each.words for each in systems):
        return None
    ranked = count if depth is None else min(depth, count)
    if ranked > MOST_RANKED:
        refuse(f"metrics: one looks at {ranked:,} documents; by words {MOST_RANKED:,} are ranked: add @k")
    return FullText(language=language, stopwords=listed)


def _by_words(
    systems: list[Given], made: dict[int, Encoded], documents: Documents, judged: Judged,
    depth: int | None, words: FullText,
) -> dict[str, Ranked]:  # fmt: skip
    """Rankings by words, and by words and vectors fused, as a private database gives them."""
    import vecdb

    count = len(documents.ids)
    k = count if depth is None else min(depth, count)
    plain = [_words(text) for text in judged.queries.values()]
    numbers = _in_order(documents.ids)
    found = {}
    with vecdb.open(upkeep=False) as db:
        started = time.perf_counter()
        rows = db.create_collection(BM25, dim=1, fulltext={"text": words})
        rows.add(numbers, texts=documents.texts)
        rows.optimize()
        took = time.perf_counter() - started
        size = int((rows.stats()["space"] or {}).get("fulltext", 0))
        for each in systems:
            if each.encoder is None:
                rankings, seconds = _asked(rows, [(None, text) for text in plain], k, numbers)
                found[each.name] = Ranked(rankings, took, seconds, size)
            elif each.words:
                encoded = made[id(each.encoder)]
                metric = each.encoder.metric
                both = db.create_collection(
                    HYBRID, each.encoder.dim, metric=metric, M=4, ef_construction=8, fulltext={"text": words}
                )
                vectors = _with_directions(encoded.documents, metric)
                both.add(numbers, vectors, texts=documents.texts)
                asked = list(zip(_with_directions(encoded.queries, metric), plain, strict=True))
                rankings, seconds = _asked(both, asked, k, numbers)
                found[each.name] = Ranked(
                    rankings, encoded.documents_s + took, encoded.queries_s + seconds,
                    encoded.documents.nbytes + size,
                )  # fmt: skip
                db.drop_collection(HYBRID)
    return found


def _asked(
    rows: Any, asked: list[tuple[Any, str]], k: int, numbers: list[int]
) -> tuple[list[Positions], float]:
    """Rankings of (vector, words), either of which may be missing; and the seconds they took."""
    from vecdb.query import Fuse, Near, Text
    from vecdb.query.objects import Query

    positions = {number: at for at, number in enumerate(numbers)}
    rankings: list[Positions] = []
    started = time.perf_counter()
    for vector, words in asked:
        parts: list[Query] = [] if vector is None else [Near(vector)]
        parts += [Text(words)] if words else []
        if not parts:
            rankings.append([])
            continue
        query = parts[0] if len(parts) == 1 else Fuse(*parts)
        rankings.append([positions[number] for number in rows.search(query, k, exact=True).ids])
    return rankings, time.perf_counter() - started


def _with_directions(vectors: Any, metric: str) -> list[Any]:
    """Vectors as rows take them: None for one that has no direction, where that is what counts."""
    if metric != "cosine":
        return list(vectors)
    return [vector if float(vector @ vector) > 0 else None for vector in vectors]


def _in_order(ids: list[Id]) -> list[int]:
    """A number for each id, in the order of ids: equal scores by words stand by id, whatever ids are."""
    ordered = sorted(range(len(ids)), key=lambda at: (isinstance(ids[at], str), ids[at]))
    numbers = [0] * len(ids)
    for number, at in enumerate(ordered):
        numbers[at] = number
    return numbers


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text)[:MOST_WORDS])


# -- figures -------------------------------------------------------------------------------------


def _system(
    given: Given, ranked: Ranked, documents: Documents, judged: Judged, metrics: list[Metric], seed: int
) -> System:
    rankings = {
        query: [documents.ids[at] for at in positions]
        for query, positions in zip(judged.queries, ranked.rankings, strict=True)
    }
    encoder = given.encoder
    return System(
        given.name, given.kind, estimates(rankings, judged.grades, metrics, seed), rankings,
        dim=None if encoder is None else encoder.dim,
        metric=None if encoder is None else encoder.metric,
        bytes_total=ranked.bytes_total,
        bytes_per_document=ranked.bytes_total / len(documents.ids),
        documents_per_second=len(documents.ids) / max(ranked.documents_s, 1e-9),
        queries_per_second=len(rankings) / max(ranked.queries_s, 1e-9),
        card=None if encoder is None else encoder.card,
        fingerprint=None if encoder is None else encoder.fingerprint,
    )  # fmt: skip


def estimates(
    rankings: Mapping[Id, Sequence[Id]], grades: Mapping[Id, Mapping[Id, Any]], metrics: Sequence[Metric],
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """{metric: its mean with interval} over the queries that were ranked."""
    return {
        metric.name: interval(
            {query: metric.of(ranking, grades[query]) for query, ranking in rankings.items()}, seed=seed
        )
        for metric in metrics
    }


def _called(corpus: Any) -> str:
    return "the corpus" if isinstance(corpus, Mapping) else f"collection {corpus.name!r}"
