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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.evaluation import significance
from vecdb.evaluation.advice import Advice, Option
from vecdb.evaluation.metrics import Metric, deepest, parse
from vecdb.evaluation.shorter import BITS, WAYS, Shorter, components, scores, unit

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
) -> Advice:
    """Return which dimensions and which dtype of a collection's vectors keep 99 % of the quality.

    `papers`: a collection, `using` its vector field; `queries` {query id: text or vector}; `qrels` {query id:
    {id: grade}}, of which those with a grade above 0 count. Tried are 3/4 to 1/16 of the dimensions, the
    first ones and the principal components of the vectors, each as f32, f16, i8 and b1 (bits), as far as that
    is no more than what is stored. `keep`: the share of `metric` that is to be kept.

    Ranks exactly, as of one commit: about 50 times queries · rows · dimensions multiplications (2 s for 225
    queries and 1,400 rows of 384). Of more than 100,000 rows a sample of as many is ranked, drawn by `seed`,
    with all that were judged. InvalidArgument for a field without one dense vector a row, where nothing that
    is relevant is in the collection, and where its vectors find none of it.

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
    share = _share(keep)
    given = _judged(queries, qrels)
    rows, asked, declared, name = _read(papers, given, qrels, using, seed)
    asked_ids = list(given)
    grades = [qrels[qid] for qid in asked_ids]
    plain = Shorter(declared.dim, declared.dim, "as they are", declared.dtype, _metric_of(declared))
    _need_judged(rows.ids, grades, papers.name)
    before = _judge_ranking(plain, rows, rows.vectors, asked, grades, wanted)
    if not any(before):
        raise InvalidArgument(
            f"{wanted.name} of collection {papers.name!r} is 0 for all {len(grades):,} judged queries: there "
            "is no quality to keep; see papers.evaluate and vecdb.diagnose"
        )
    left_out: dict[str, str] = {}
    options: list[Option] = []
    for each in _ways(plain, rows.vectors, seed):
        try:
            after = before if each is plain else _figures(each, rows, asked, grades, wanted)
        except _Unusable as error:
            left_out[each.name] = str(error)
            continue
        options.append(_option(each, after, before, asked_ids, share, seed))
    base = next(option for option in options if option.shorter is plain)
    notes = list(_notes(rows, asked_ids, queries, declared, before))
    several = name if len(papers.schema.vectors) > 1 else None
    return Advice(
        options, base, metric=wanted.name, keep=share, queries=len(grades), of=papers.name, using=several,
        encoder=declared.encoder, notes=notes, left_out=left_out,
    )  # fmt: skip


# --- what is looked at ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """The rows that are ranked: their ids, and their vectors as float32, bits as 0 and 1."""

    ids: list[Id]
    vectors: Floats
    of: int  # how many there are in all


def _read(
    papers: Any, given: Mapping[Any, Any], qrels: Any, using: str | None, seed: int
) -> tuple[_Rows, Floats, Any, str]:
    """Rows and queries as float32, the field's declaration and its name; as of one commit."""
    if not hasattr(papers, "_taking"):
        raise InvalidArgument(f"papers is a {type(papers).__name__}; give a collection, such as db['papers']")
    with papers._reading() as (txn, view):
        name, declared = papers._compared(view.schema, using)
        taking = papers._taking(txn, view, name, None)
        asked = _asked(papers, declared, given)
        slots, ids = taking.slots, taking.ids(taking.slots)
        if len(slots) > MOST_ROWS:
            judged = {id for qid in given for id in qrels[qid]}
            wanted = np.array([id in judged for id in ids])
            wanted[np.random.default_rng(seed).choice(len(ids), MOST_ROWS, replace=False)] = True
            slots, ids = slots[wanted], [id for id, there in zip(ids, wanted, strict=True) if there]
        stored = taking.geometry.queries(taking.stored(slots))
        return _Rows(ids, stored, len(taking)), asked, declared, name


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
                raise InvalidArgument(f"queries[{qid!r:.60}]: give one text, or one vector ({declared.dim},)")
            found[at] = vector
    return found


def _judged(queries: Any, qrels: Any) -> dict[Any, Any]:
    """The queries of which something relevant is known."""
    for name, value, like in (("queries", queries, "text"), ("qrels", qrels, "{id: grade}")):
        if not isinstance(value, Mapping):
            raise InvalidArgument(f"{name} is a {type(value).__name__}; give {{query id: {like}}}")
    found = {}
    for qid, grades in qrels.items():
        if not isinstance(grades, Mapping):
            raise InvalidArgument(f"qrels[{qid!r:.60}] is a {type(grades).__name__}; give {{id: grade}}")
        for id, grade in grades.items():
            number = isinstance(grade, int | float | np.integer | np.floating) and not isinstance(grade, bool)
            if not number or not math.isfinite(float(grade)):
                raise InvalidArgument(
                    f"qrels[{qid!r:.60}][{id!r:.60}] is {grade!r:.40}; a grade is a finite number"
                )
        if qid in queries and any(grade > 0 for grade in grades.values()):
            found[qid] = queries[qid]
    if not found:
        raise InvalidArgument(
            "no query has a judgement above 0: give queries {query id: text} and qrels {query id: {id: "
            "grade}} with the same query ids; papers.judge makes judgements"
        )
    return found


def _need_judged(ids: list[Id], grades: list[Mapping[Id, Any]], name: str) -> None:
    there = set(ids)
    if not any(id in there for each in grades for id, grade in each.items() if grade > 0):
        example = next(iter(grades[0]))
        raise InvalidArgument(
            f"no document that is judged relevant is in collection {name!r}, such as {example!r:.60}: are "
            "the ids of qrels those of the rows (an int is no str)?"
        )


def _share(keep: Any) -> float:
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise InvalidArgument(f"keep={keep!r:.40}: give the share to be kept, above 0 and at most 1, as 0.99")
    return float(keep)


def _metric_of(declared: Any) -> str:
    return "cosine" if declared.metric == "hamming" else str(declared.metric)


# --- what is tried --------------------------------------------------------------------------------


class _Unusable(Exception):
    """Why a way is no option."""


def _ways(plain: Shorter, vectors: Floats, seed: int) -> Iterator[Shorter]:
    """Every way that takes no more bytes than the vectors as they are, those first."""
    yield plain
    codes = [code for code in BITS if BITS[code] <= BITS[plain.dtype]]
    dims = sorted({int(plain.dim * share) for share in SHARES}, reverse=True)
    dims = [dim for dim in dims if dim >= LEAST_DIM]
    metric = plain.given_metric
    matrix = mean = None
    if plain.dtype != "b1" and plain.dim <= WIDEST:
        some = vectors
        if len(vectors) > LEARNED:
            some = vectors[np.random.default_rng(seed).choice(len(vectors), LEARNED, replace=False)]
        matrix, mean = components(unit(some) if metric == "cosine" else some, metric)
    for dim in [plain.dim, *dims]:
        for way in (WAYS[:1] if dim == plain.dim else WAYS[1:]):
            turned, moved = None, None
            if way == "principal components":
                if matrix is None:
                    continue
                turned, moved = matrix[:, :dim], mean
            floats = Shorter(plain.dim, dim, way, "f32", metric, turned, moved)
            fewer = floats.fewer(vectors)
            largest = float(np.abs(fewer).max(initial=0))
            factor = 127 / largest if largest and metric != "cosine" else 1.0
            middle = None if plain.dtype == "b1" else fewer.mean(axis=0)
            for code in codes:
                if code != plain.dtype or dim != plain.dim:
                    yield Shorter(plain.dim, dim, way, code, metric, turned, moved, factor, middle)


def _figures(
    shorter: Shorter, rows: _Rows, asked: Floats, grades: list[Mapping[Id, Any]], metric: Metric
) -> list[float]:
    """The metric of each query, ranked by shorter vectors (A1)."""
    documents = shorter.coded(_checked(shorter, shorter.fewer(rows.vectors), "documents"))
    queries = shorter.asked(_checked(shorter, shorter.fewer(asked), "queries"))
    if documents.dtype == np.float16 and not np.isfinite(documents).all():
        raise _Unusable("numbers too large for f16")
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
            found.append(metric.of([rows.ids[i] for i in _top(row, depth)], judged))
    return found


def _checked(shorter: Shorter, fewer: Floats, what: str) -> Floats:
    """Refuse vectors that vanish under cosine, which no field takes (A3)."""
    if shorter.given_metric == "cosine" and shorter.dtype != "b1":
        gone = int(np.count_nonzero(~fewer.any(axis=1)))
        if gone:
            raise _Unusable(f"{gone:,} of {len(fewer):,} {what} would be zero vectors")
    return fewer


def _top(near: Floats, depth: int) -> npt.NDArray[np.intp]:
    """The places of the best, ties in the order of the rows."""
    if depth < len(near):
        least = np.partition(near, len(near) - depth)[len(near) - depth]
        some = np.flatnonzero(near >= least)
        return some[np.argsort(-near[some], kind="stable")][:depth]
    return np.argsort(-near, kind="stable")


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
    low, high = (keep + each / mean for each in (compared.low, compared.high))
    words = (("surely", low), ("by the estimate", share), ("perhaps", high))
    keeps = next((word for word, figure in words if figure >= keep), "no")
    more = significance.more_needed(after, wanted, p_value=compared.p_value) if low < keep <= high else None
    return Option(shorter, figures, share, low, high, keeps, more, seed)


def _notes(
    rows: _Rows, ids: list[Any], queries: Mapping[Any, Any], declared: Any, before: list[float]
) -> Iterator[str]:
    """What a reader must know."""
    if rows.of > len(rows.ids):
        yield (
            f"Ranked were {len(rows.ids):,} of {rows.of:,} rows, drawn at random, and all that are judged: "
            "figures are higher than over all, what is kept of them about the same."
        )
    if len(ids) < len(queries):
        yield f"{len(queries) - len(ids):,} of {len(queries):,} queries have no document judged relevant."
    if len(before) < 30:
        yield f"{len(before):,} judged queries are few: intervals are wide, and what looks kept may not be."
    if declared.dtype == "b1":
        yield "The vectors are bits already: only fewer of them were tried."
