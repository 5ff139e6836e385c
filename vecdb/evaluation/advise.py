"""How few bytes a vector are enough? Which dimensions and which dtype keep the quality on your judgements.

Every way to shorten the vectors is tried on the stored ones: fewer dimensions (shorter.py), each as every
dtype that is not larger than what is stored. Each is ranked exactly, judged query by query, and compared with
the vectors as they are: the question is whether the mean of its figures less 99 % of theirs is above 0, and
its interval (paired, by the bootstrap) says how sure the answer is.

Invariants:
  A1  rankings are exact: what is lost is what the shorter vectors lose, not what an index misses;
  A2  `best` is the cheapest that keeps the share by the estimate; `sure` the cheapest whose whole interval
      does. Where they differ the verdict says so, and how many more judged queries would tell;
  A3  a way that would make a vector of zeros under cosine, or numbers too large for the dtype, is no option,
      and the report says which were left out and why;
  A4  the same collection, judgements and seed give the same advice.

What the graph's codes take in memory is not part of the question: a search ranks by stored vectors.

Rejected: the share of the true neighbours that is kept. It needs no judgements, and says nothing of quality:
dimensions of noise change neighbours and answer no query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.evaluation import significance
from vecdb.evaluation.advice import Advice, Option
from vecdb.evaluation.judgements import Judged, judged_of, queries_of
from vecdb.evaluation.metrics import Metric, deepest, parse
from vecdb.evaluation.ranks import best
from vecdb.evaluation.shorter import BITS, Shorter, components, scores, unit
from vecdb.evaluation.verdict import counted
from vecdb.progress import reporter
from vecdb.types import shorten

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.types import Id

    Floats = npt.NDArray[np.float32]

MOST_ROWS: Final = 100_000  # that are ranked; of more a sample, and all that were judged
LEARNED: Final = 20_000  # rows whose principal components are taken
WIDEST: Final = 4_096  # dimensions of which principal components are worked out
SHARES: Final = (3 / 4, 1 / 2, 3 / 8, 1 / 4, 3 / 16, 1 / 8, 1 / 16)
LEAST_DIM: Final = 8
CHUNK: Final = 1 << 24  # scores at a time


def advise(
    papers: Any,
    queries: Mapping[Any, Any],
    qrels: Mapping[Any, Mapping[Id, int | float]],
    *,
    using: str | None = None,
    metric: str = "ndcg@10",
    keep: float = 0.99,
    seed: int = 0,
    progress: Any = False,
) -> Advice:
    """Return which dimensions and which dtype of a collection's vectors keep 99 % of the quality.

    `papers`: a collection, `using` its vector field; `queries` {query id: text or vector}; `qrels` {query id:
    {id: grade}}, as `vecdb.evaluate` takes them. Tried are 3/4 to 1/16 of the dimensions, the
    first ones and the principal components of the vectors, each as f32, f16, i8 and b1 (bits), as far as that
    is no more than what is stored. `keep`: the share of `metric` that is to be kept.

    Ranks exactly, as of one commit: some 30 times queries · rows · dimensions multiplications (225 queries,
    384 dimensions: 1 s of a processor for 1,400 rows; 14 s, and 0.6 GB, for 62,666). `progress`: True for a
    bar, or a callable (done, total). Of more than 100,000 rows a sample of as many is ranked, drawn by
    `seed`, with all that were judged. InvalidArgument for a field without one dense vector a row, for
    judgements of what is not there, and where the vectors find nothing that is relevant.

    >>> import numpy as np, vecdb
    >>> rng = np.random.default_rng(0)
    >>> topics = np.repeat(np.eye(8), 20, axis=0) + rng.normal(size=(160, 8)) / 9
    >>> c = vecdb.open().create_collection("c", dim=64)
    >>> _ = c.add(range(160), np.hstack([topics, rng.normal(size=(160, 56)) / 99]).astype(np.float32))
    >>> queries = {t: np.eye(64)[t] for t in range(8)}
    >>> advice = vecdb.advise(c, queries, {t: {20 * t + i: 1 for i in range(20)} for t in range(8)})
    >>> advice.best.bytes, advice.base.bytes
    (1, 256)
    """
    wanted = parse(metric)
    share, seed = _share(keep), significance.check_seed(seed)
    given = queries_of(queries, texts=False)
    found = _read(papers, given, qrels, using, seed)
    judged, rows, declared = found.judged, found.rows, found.declared
    asked, asked_ids = found.asked, list(judged.queries)
    grades: list[Mapping[Id, Any]] = list(judged.grades.values())
    plain = Shorter(declared.dim, declared.dim, "as they are", declared.dtype, _metric_of(declared))
    before = _judge_ranking(plain, rows, rows.vectors, asked, grades, wanted)
    if not any(before):
        raise InvalidArgument(
            f"{wanted.name} of collection {papers.name!r} is 0 for {counted(len(grades), 'judged query')}: "
            "there is no quality to keep; see papers.evaluate and vecdb.diagnose"
        )
    base = _option(plain, before, before, asked_ids, share, seed)
    options, left_out = [base], dict[str, str]()
    with reporter(progress, "advise") as report:
        families = list(_families(plain, rows.vectors, seed))
        for done, floats in enumerate(families):
            report(done, len(families))
            fewer, fewer_asked = floats.fewer(rows.vectors), floats.fewer(asked)
            for each in _coded(floats, fewer, plain):
                try:
                    after = _figures(each, rows, fewer, fewer_asked, grades, wanted)
                except _Unusable as error:
                    left_out[each.name] = str(error)
                else:
                    options.append(_option(each, after, before, asked_ids, share, seed))
        report(len(families), len(families))
    notes = list(_notes(rows, judged, declared))
    several = found.name if len(papers.schema.vectors) > 1 else None
    return Advice(
        options, base, metric=wanted.name, keep=share, queries=len(grades), of=papers.name, using=several,
        encoder=None if declared.adapters else declared.encoder, notes=notes, left_out=left_out,
    )  # fmt: skip


# --- what is looked at ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """The rows that are ranked: their ids, and their vectors as float32, bits as 0 and 1."""

    ids: list[Id]
    vectors: Floats
    of: int  # how many there are in all


class _Read(NamedTuple):
    """What a collection and judgements give: rows, judged queries and their vectors, and the field."""

    rows: _Rows
    judged: Judged
    asked: Floats
    declared: Any
    name: str


def _read(papers: Any, given: dict[Id, Any], qrels: Any, using: str | None, seed: int) -> _Read:
    """Rows and queries as float32, and the field; as of one commit."""
    if not hasattr(papers, "_taking"):
        raise InvalidArgument(f"papers is a {type(papers).__name__}; give a collection, such as db['papers']")
    with papers._reading() as (txn, view):
        name, declared = papers._compared(view.schema, using)
        taking = papers._taking(txn, view, name, None)
        slots, ids = taking.slots, taking.ids(taking.slots)
        judged = judged_of(
            given, qrels, set(ids), f"collection {papers.name!r}", lacking=(papers, "vector")
        )
        asked = _asked(papers, declared, judged.queries)
        if len(slots) > MOST_ROWS:
            known = {id for grades in judged.grades.values() for id in grades}
            wanted = np.array([id in known for id in ids])
            wanted[np.random.default_rng(seed).choice(len(ids), MOST_ROWS, replace=False)] = True
            slots, ids = slots[wanted], [id for id, there in zip(ids, wanted, strict=True) if there]
        stored = taking.geometry.queries(taking.stored(slots))
        return _Read(_Rows(ids, stored, len(taking)), judged, asked, declared, name)


def _asked(papers: Any, declared: Any, given: Mapping[Any, Any]) -> Floats:
    """Queries as the field takes them: texts encoded at once."""
    found = np.empty((len(given), declared.dim), np.float32)
    texts = [(at, query) for at, query in enumerate(given.values()) if isinstance(query, str)]
    if texts:
        found[[at for at, _ in texts]] = papers._query([text for _, text in texts], declared)[0]
    for at, (qid, query) in enumerate(given.items()):
        if not isinstance(query, str):
            try:
                vector, single = papers._query(query, declared)
            except InvalidArgument as error:
                raise InvalidArgument(f"queries[{qid!r:.60}]: {error}") from None
            if not single:
                raise InvalidArgument(
                    f"queries[{qid!r:.60}]: give one text, or one vector ({declared.given_dim},)"
                )
            found[at] = vector
    return found


def _share(keep: Any) -> float:
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        given = shorten(repr(keep), 40)
        raise InvalidArgument(f"keep={given}: give the share to be kept, above 0 and at most 1, as 0.99")
    return float(keep)


def _metric_of(declared: Any) -> str:
    return "cosine" if declared.metric == "hamming" else str(declared.metric)


# --- what is tried --------------------------------------------------------------------------------


class _Unusable(Exception):
    """Why a way is no option."""


def _families(plain: Shorter, vectors: Floats, seed: int) -> Iterator[Shorter]:
    """Every way to fewer dimensions, as floats; first that to as many."""
    dims = sorted({int(plain.dim * share) for share in SHARES}, reverse=True)
    metric, full = plain.given_metric, plain.dim
    yield Shorter(full, full, "as they are", "f32", metric)
    matrix = mean = None
    if plain.dtype != "b1" and full <= WIDEST:
        some = vectors
        if len(vectors) > LEARNED:
            some = vectors[np.random.default_rng(seed).choice(len(vectors), LEARNED, replace=False)]
        matrix, mean = components(unit(some) if metric == "cosine" else some, metric)
    for dim in dims:
        if dim >= LEAST_DIM:
            yield Shorter(full, dim, "first dimensions", "f32", metric)
            if matrix is not None:
                yield Shorter(full, dim, "principal components", "f32", metric, matrix[:, :dim], mean)


def _coded(floats: Shorter, fewer: Floats, plain: Shorter) -> Iterator[Shorter]:
    """One way to fewer dimensions, as every dtype that is not larger than what is stored."""
    largest = float(np.abs(fewer).max(initial=0))
    factor = 127 / largest if largest and floats.given_metric != "cosine" else 1.0
    middle = None if plain.dtype == "b1" else fewer.mean(axis=0)
    for code in BITS:
        if BITS[code] <= BITS[plain.dtype] and (code, floats.dim) != (plain.dtype, plain.dim):
            yield replace(floats, dtype=code, factor=factor, middle=middle)


def _figures(
    shorter: Shorter, rows: _Rows, fewer: Floats, asked: Floats, grades: list[Mapping[Id, Any]],
    metric: Metric,
) -> list[float]:  # fmt: skip
    """The metric of each query, ranked by vectors and queries in fewer dimensions (A1, A3)."""
    if shorter.given_metric == "cosine" and shorter.dtype != "b1":
        for what, some in (("documents", fewer), ("queries", asked)):
            gone = len(some) - int(np.count_nonzero(some.any(axis=1)))
            if gone:
                raise _Unusable(f"{gone:,} of {len(some):,} {what} would be zero vectors")
    documents, queries = shorter.coded(fewer), shorter.asked(asked)
    for some in (documents, queries):
        if some.dtype.kind == "f" and not np.isfinite(some).all():
            raise _Unusable(f"numbers too large or too small for {shorter.dtype}")
    return _judge_ranking(shorter, rows, documents, queries, grades, metric)


def _judge_ranking(
    shorter: Shorter, rows: _Rows, documents: Any, queries: Any, grades: list[Mapping[Id, Any]],
    metric: Metric,
) -> list[float]:  # fmt: skip
    """The metric of each query, by vectors as they are stored and asked."""
    depth = deepest([metric]) or len(rows.ids)
    found: list[float] = []
    step = max(1, CHUNK // max(1, len(rows.ids)))
    for at in range(0, len(queries), step):
        near = scores(shorter, documents, queries[at : at + step])
        for row, judged in zip(near, grades[at : at + step], strict=True):
            found.append(metric.of([rows.ids[i] for i in best(row, depth)], judged))
    return found


def _option(
    shorter: Shorter, after: list[float], before: list[float], ids: list[Any], keep: float, seed: int
) -> Option:
    """What a way keeps: the paired interval of its figures less the share of those before."""
    figures = dict(zip(ids, after, strict=True))
    wanted = [keep * each for each in before]
    mean = sum(before) / len(before)
    if after == before:
        return Option(shorter, figures, 1.0, 1.0, 1.0, "surely", None, seed)
    compared = significance.compare(after, wanted, seed=seed)
    share = keep + compared.difference / mean
    low, high = (  # of one query there is no interval: NaN stays NaN
        each if math.isnan(each) else max(0.0, keep + each / mean) for each in (compared.low, compared.high)
    )
    words = (("surely", low), ("by the estimate", share), ("perhaps", high))
    unknown = "perhaps" if math.isnan(high) else "no"
    keeps = next((word for word, figure in words if figure >= keep), unknown)
    more = significance.more_needed(after, wanted, p_value=compared.p_value) if low < keep <= high else None
    return Option(shorter, figures, share, low, high, keeps, more, seed)


def _notes(rows: _Rows, judged: Judged, declared: Any) -> Iterator[str]:
    """What a reader must know."""
    count = len(judged.queries)
    if rows.of > len(rows.ids):
        yield (
            f"Ranked were {len(rows.ids):,} of {rows.of:,} rows, drawn at random, and all that are judged: "
            "figures are higher than over all, what is kept of them about the same."
        )
    if judged.unjudged:
        whole = count + judged.unjudged
        yield f"{judged.unjudged:,} of {whole:,} queries have no judgement, and take no part."
    if judged.hopeless:
        yield f"{judged.hopeless:,} of {count:,} judged queries have no document with a grade above 0."
    if count == 1:
        yield "One judged query says nothing of others: it has no interval."
    elif count < 30:
        yield f"{count:,} judged queries are few: intervals are wide, and what looks kept may not be."
    if declared.adapters:
        yield "The vectors went through an adapter: what is searched for must do so, too, before this."
    if declared.dtype == "b1":
        yield "The vectors are bits already: only fewer of them were tried."
