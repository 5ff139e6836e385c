"""What must full text, sparse and many vectors find? Rows that have all of them, and plain references.

The harnesses of live processes (deeds.py, foresight.py, recipe.py) know what each row holds. Here is what a row
holds besides: an `Extra` that follows from a key, the declaration of a collection for it, and a `World` that
says of each query what it must give: BM25 by wording.py, dot products and MaxSim by numpy, fusions from the
rankings of their parts. A query is a plain tuple (`Spec`), so that it travels between processes.

What is asked of an answer:
  L1  as many hits as match, at most k; each matches, none twice, ranked by falling score;
  L2  each hit of a `Text`, a `Sparse` or a `Late` has its own score of the reference;
  L3  the scores are the best there are, of `Late` with exact=True only: else how many are true is counted;
  L4  a fusion with exact=True gives scores that some order of ties allows, and no row left out must have more.
"""

from __future__ import annotations

import math
import random
from copy import copy
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

import vecdb
from tests.wording import LANGUAGE, VOCABULARY, Part, Reference, parts, sentence, written
from vecdb.query import Fuse, Late, Near, Query, Sparse, Text

MANY_DIM = 4
TOKENS: list[Any] = ["a", "b", "c", "dé", "e", 0, 1, 2, 30_000, -5]
FIELDS = ("text", "title")
EPSILON = 2e-5
RANK_CONSTANT = 60
Spec = tuple[Any, ...]


class Extra(NamedTuple):
    """What a row holds besides its dense vector and metadata; the title lies in the metadata."""

    text: str | None = None
    title: str | None = None
    sparse: dict[Any, float] | None = None
    many: list[list[float]] | None = None


@lru_cache(1 << 15)
def extra_of(key: str) -> Extra:
    """Something that follows from a key."""
    rng = random.Random(f"rich {key}")
    return Extra(
        sentence(rng, 8),  # a str: an update with None would leave the text as it was
        sentence(rng, 3) if rng.random() < 0.8 else None,
        some_sparse(rng) if rng.random() < 0.85 else None,
        some_many(rng, rng.randrange(5)) if rng.random() < 0.85 else None,
    )


def some_sparse(rng: random.Random) -> dict[Any, float]:
    return {token: rng.choice((0.25, 0.5, 1.0, 2.0, -1.0)) for token in rng.sample(TOKENS, rng.randrange(1, 5))}


def some_many(rng: random.Random, m: int) -> list[list[float]]:
    """Whole numbers: exact in every type; none is zero."""
    return [[3.0, *(float(rng.randrange(-4, 5)) for _ in range(MANY_DIM - 1))] for _ in range(m)]


def with_title(row: dict[str, Any], extra: Extra) -> dict[str, Any]:
    """A row's metadata, with its title."""
    return row if extra.title is None else {**row, "title": extra.title}


def given(keys: list[str], rows: list[dict[str, Any]], dense: Any, patches: bool) -> tuple[Any, Any, Any]:
    """Vectors, metadata and texts that make rows of the extras of some keys; `dense`: as without them."""
    extras = [extra_of(key) for key in keys]
    vectors = {} if dense is None else dict(dense) if isinstance(dense, dict) else {"vector": dense}
    vectors["sparse"] = [extra.sparse for extra in extras]
    vectors["many"] = [extra.many for extra in extras]
    titled = [with_title(row, extra) for row, extra in zip(rows, extras, strict=True)]
    if patches:  # what a row had before has to go
        titled = [{"title": vecdb.REMOVE, **row} for row in titled]
    return vectors, titled, [extra.text for extra in extras]


def declared(dense: vecdb.Vector, metric: str = "dot") -> dict[str, Any]:
    """The arguments of create_collection."""
    many = vecdb.Vector(MANY_DIM, metric=metric, multi=True)
    return {
        "vectors": {"vector": dense, "sparse": vecdb.SparseVector(), "many": many},
        "fulltext": {"text": vecdb.FullText(language=LANGUAGE), "title": vecdb.FullText()},
    }


def held(record: Any) -> Extra:
    """What a record shows of it."""
    many = record.vectors.get("many")
    sparse = record.vectors.get("sparse")
    return Extra(
        record.text, record.metadata.get("title"), None if sparse is None else dict(sparse),
        None if many is None else np.asarray(many).tolist(),
    )  # fmt: skip


# --- queries -------------------------------------------------------------------------------------


def some_spec(rng: random.Random, dim: int, fuses: bool = True) -> Spec:
    """A query of some kind; `dim`: of the dense field, which only fusions ask."""
    kind = rng.choice(("text", "text", "sparse", "late", "fuse") if fuses else ("text", "sparse", "late"))
    if kind == "text":
        fields = rng.choice((None, ["text"], ["title"], ["text", "title"]))
        weights = {field: rng.choice((0.5, 2.0)) for field in FIELDS if rng.random() < 0.3}
        return kind, parts(rng), fields, weights
    if kind == "sparse":
        return kind, some_sparse(rng)
    if kind == "late":
        return kind, some_many(rng, rng.randrange(1, 4))
    near: Spec = ("near", [20.0, *(float(rng.randrange(-20, 21)) for _ in range(dim - 1))])
    inside = [near] + [some_spec(rng, dim, fuses=False) for _ in range(rng.choice((1, 2, 3)))]
    inside = rng.sample(inside, len(inside))
    return kind, rng.choice(("rrf", "rrf", "weighted")), inside


def query_of(spec: Spec) -> Query:
    """The query object."""
    kind, *given = spec
    if kind == "text":
        return Text(written(given[0]), given[1], given[2] or None)
    if kind == "sparse":
        return Sparse(given[0], using="sparse")
    if kind == "late":
        return Late(given[0], using="many")
    if kind == "near":
        return Near(given[0], using="vector")
    return Fuse(*map(query_of, given[1]), method=given[0])


def fields_of(spec: Spec) -> set[str]:
    """The vector fields that a query asks."""
    if spec[0] == "fuse":
        return set().union(*map(fields_of, spec[2]))
    return {"sparse": {"sparse"}, "late": {"many"}, "near": {"vector"}}.get(spec[0], set())


def some_matches(rng: random.Random) -> tuple[str, str]:
    """A field and a word, for a filter."""
    return rng.choice(FIELDS), rng.choice(VOCABULARY[:10])


# --- the reference ---------------------------------------------------------------------------------


class Words(Reference):
    """The reference of full text, which counts in each text once."""

    def __init__(self) -> None:
        with vecdb.open() as db:
            super().__init__(db.create_collection("c", **declared(vecdb.Vector(2))).schema)
        self._count, self._size = lru_cache(1 << 18)(self._counted), lru_cache(1 << 16)(self._sized)

    def of(self, rows: dict[Any, tuple[Any, Extra]]) -> Words:
        """The same for these rows, with what was counted."""
        found = copy(self)
        found.rows = {
            id: (extra.text, {} if extra.title is None else {"title": extra.title})
            for id, (_, extra) in rows.items()
        }
        return found

    def count(self, texts: list[str], field: str, kind: str, word: str) -> int:
        return sum(self._count(text, field, kind, word) for text in texts)

    def size(self, texts: list[str], field: str) -> int:
        return sum(self._size(text, field) for text in texts)

    def _counted(self, text: str, field: str, kind: str, word: str) -> int:
        return super().count([text], field, kind, word)

    def _sized(self, text: str, field: str) -> int:
        return super().size([text], field)


@lru_cache(1)
def _words() -> Words:
    return Words()


Scores = dict[Any, float]


class World:
    """All rows of a collection at one commit."""

    def __init__(self, rows: dict[Any, tuple[Any, Extra]], metric: str, many_metric: str = "dot") -> None:
        self.rows, self.metric, self.many_metric = rows, metric, many_metric
        self._words: Words | None = None

    @property
    def words(self) -> Words:
        if self._words is None:
            self._words = _words().of(self.rows)
        return self._words

    def matching(self, field: str, word: str) -> set[Any]:
        """The rows of a `matches` filter."""
        return self.words.matches([("", "word", word)], field)

    def scores(self, spec: Spec, allowed: set[Any] | None) -> Scores:
        """Every row that matches, with its score."""
        kind, *given = spec
        if kind == "text":
            listed: list[Part] = given[0]
            found = self.words.scores(listed, given[1] or list(FIELDS), given[2])
            return {id: score for id, score in found.items() if allowed is None or id in allowed}
        some = {id: row for id, row in self.rows.items() if allowed is None or id in allowed}
        if kind == "sparse":
            return {id: _dot(given[0], extra.sparse) for id, (_, extra) in some.items() if extra.sparse is not None}
        if kind == "late":
            return self._late(given[0], {id: extra.many for id, (_, extra) in some.items() if extra.many})
        assert kind == "near", kind
        vectors = {id: vector for id, (vector, _) in some.items() if vector is not None}
        if not vectors:
            return {}
        return dict(zip(vectors, _alike(self.metric, np.array([*vectors.values()], float), given[0]), strict=True))

    def _late(self, query: Any, rows: dict[Any, Any]) -> Scores:
        if not rows:
            return {}
        whole = np.concatenate([np.array(many, float) for many in rows.values()])
        ends = np.cumsum([len(many) for many in rows.values()])
        total = np.zeros(len(rows))
        for each in query:
            alike = _alike(self.many_metric, whole, each, closeness=False)
            total += np.maximum.reduceat(alike, np.concatenate(([0], ends[:-1])))
        return dict(zip(rows, total.tolist(), strict=True))

    # --- judging -----------------------------------------------------------------------------

    def judge(
        self, spec: Spec, k: int | None, exact: bool, ids: list[Any], found: Any, allowed: set[Any] | None
    ) -> tuple[str, int, int]:
        """What is wrong with hits, "" when nothing; true hits wanted, and found of them."""
        if spec[0] == "fuse":
            return self._judge_fused(spec, k, exact, ids, found, allowed), 0, 0
        own = self.scores(spec, allowed)
        wrong = _shape(ids, found, own, k)
        if wrong:
            return f"{spec}: {wrong}", 0, 0
        for id, score in zip(ids, found, strict=True):
            if not _equal(score, own[id]):
                return f"{spec}: {id!r} has the score {score}, not {own[id]}", 0, 0
        best = sorted(own.values(), reverse=True)[: len(ids)]
        true = sum(score >= best[-1] - EPSILON * (1 + abs(score)) for score in found) if best else 0
        if spec[0] == "late" and not exact:
            return "", len(ids), true
        if true < len(ids):
            return f"{spec}: scores {list(found)} instead of {best}", 0, 0
        return "", 0, 0

    def _judge_fused(
        self, spec: Spec, k: int | None, exact: bool, ids: list[Any], found: Any, allowed: set[Any] | None
    ) -> str:
        _, method, inside = spec
        parts = [self.scores(each, allowed) for each in inside]
        union = set().union(*parts)
        wrong = _shape(ids, found, dict.fromkeys(union, 0.0), k)
        if wrong or not exact:
            return wrong and f"{spec}: {wrong}"
        depth = max(5 * (len(union) if k is None else k), 100)
        least, most = dict.fromkeys(union, 0.0), dict.fromkeys(union, 0.0)
        for each in parts:
            for id, (low, high) in _worth(each, method, depth).items():
                least[id] += low
                most[id] += high
        for id, score in zip(ids, found, strict=True):
            slack = EPSILON * (1 + abs(score))
            if not least[id] - slack <= score <= most[id] + slack:
                return f"{spec}: {id!r} has the score {score}, not {least[id]} to {most[id]}"
        if len(ids):
            last = found[-1] + EPSILON * (1 + abs(found[-1])) * (1e-2 if method == "rrf" else 1)
            left = [id for id in union - set(ids) if least[id] > last]
            if left:
                return f"{spec}: {left[:5]} were left out, with {[least[id] for id in left[:5]]} over {found[-1]}"
        return ""


def _shape(ids: list[Any], found: Any, matches: Scores, k: int | None) -> str:
    """L1."""
    wanted = len(matches) if k is None else min(k, len(matches))
    if len(ids) != wanted or len(set(ids)) != wanted or not all(id in matches for id in ids):
        others = [id for id in ids if id not in matches]
        return f"{len(ids)} hits ({len(set(ids))} rows), wanted {wanted} of {len(matches)}; others: {others[:9]}"
    if any(b > a for a, b in zip(found, found[1:], strict=False)):
        return f"scores {list(found)} do not fall"
    return ""


def _worth(scores: Scores, method: str, depth: int) -> dict[Any, tuple[float, float]]:
    """What each row of a part gets in a fusion, whichever way its ties were ranked (L4)."""
    values = np.array(sorted(scores.values(), reverse=True))
    slack = {id: EPSILON * (1 + abs(score)) for id, score in scores.items()}
    found = {}
    for id, score in scores.items():
        first = int(np.searchsorted(-values, -(score + slack[id]), side="left"))  # how many are surely better
        last = int(np.searchsorted(-values, -(score - slack[id]), side="right"))
        if first >= depth:
            continue
        worths = (score, score) if method == "weighted" else (1 / (RANK_CONSTANT + last), 1 / (RANK_CONSTANT + first + 1))
        if last > depth:  # perhaps it is not among them
            worths = (min(0.0, worths[0]), max(0.0, worths[1]))
        found[id] = worths
    return found


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=EPSILON, abs_tol=EPSILON)


def _dot(query: dict[Any, float], row: dict[Any, float]) -> float:
    return sum(weight * row[token] for token, weight in query.items() if token in row)


def _alike(metric: str, vectors: Any, query: Any, closeness: bool = True) -> Any:
    """Scores by a metric: of the dense field, and of the vectors of the other, where l2 is minus the distance."""
    query = np.asarray(query, np.float32).astype(float)
    if metric == "l2":
        away = np.linalg.norm(vectors - query, axis=1)
        return 1 / (1 + away) if closeness else -away
    products = vectors @ query
    return products if metric == "dot" else products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)


# --- looking at a collection -----------------------------------------------------------------------


def looked(c: Any, world: World, rng: random.Random, dim: int, times: int = 3) -> tuple[int, int, list[str]]:
    """Some queries of a collection that stands still: true hits wanted, found of them, what is wrong."""
    asked = found = 0
    wrong = []
    for _ in range(times):
        spec, k, exact = some_spec(rng, dim), rng.choice((1, 5, 10, 10, None)), rng.random() < 0.4
        where, allowed = None, None
        if rng.random() < 0.4:
            field, word = some_matches(rng)
            where, allowed = vecdb.F[field].matches(word), world.matching(field, word)
            if c.count(where) != len(allowed):
                wrong.append(f"count({where!r}) is {c.count(where)}, not {len(allowed)}")
        hits = c.search(query_of(spec), k, where=where, exact=exact)
        problem, more, true = world.judge(spec, k, exact, hits.ids, hits.scores.tolist(), allowed)
        if problem:
            wrong.append(f"k={k}, exact={exact}, where={where!r}: {problem}")
        asked, found = asked + more, found + true
    return asked, found, wrong


def differences(rows: Any, wanted: dict[Any, Extra]) -> list[str]:
    """Row by row: what the rows that are there hold besides their dense vectors."""
    return [
        f"{record.id!r} holds {held(record)}, not {wanted[record.id]}"
        for record in rows
        if record.id in wanted and held(record) != wanted[record.id]
    ]
