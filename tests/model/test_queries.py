"""Every query object equals a plain numpy reference: Near, Like, Context, Fuse, Rerank, groups, MMR, boosts.

The reference knows nothing of vecdb's search: distances, scores and choices are written out here again from
the formulas of the docstrings. Rows with nearly equal scores may change places, so that rankings are
compared by their scores; where ranks decide (reciprocal rank fusion) cases with a near tie are left out
and counted. States: fresh, 30 % deleted, log unfolded, log folded, inside a transaction, in a snapshot.
"""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import ById, F
from vecdb.query import Context, Decay, Field, Fuse, Like, Near, Rerank

SEED = int(os.environ.get("VECDB_SEED", "0")) or int.from_bytes(os.urandom(3), "big")
ROWS, DIM = 400, 12
METRICS = ("cosine", "l2", "dot")
CLOSE = 3e-5
T0 = datetime(2024, 1, 1, tzinfo=UTC)


class World:
    """A collection, and the same rows as a dict."""

    def __init__(self, rng: np.random.Generator, metric: str) -> None:
        self.rng, self.metric = rng, metric
        self.db = vecdb.open()
        self.c = self.db.create_collection("c", dim=DIM, metric=metric)
        self.rows: dict[Any, tuple[np.ndarray | None, dict[str, Any]]] = {}
        self.add(ROWS)
        self.c.optimize()

    def add(self, n: int) -> None:
        rng = self.rng
        start = len(self.rows) * 7 + int(rng.integers(1000)) * 10_000
        ids = [start + i if rng.random() < 0.5 else f"row {start + i}" for i in range(n)]
        array = rng.normal(size=(n, DIM)).astype(np.float32)
        has = rng.random(n) < 0.9
        metadata = [self.metadata() for _ in range(n)]
        self.c.upsert(ids, [v if h else None for v, h in zip(array, has, strict=True)], metadata=metadata)
        for id, vector, h, meta in zip(ids, array, has, metadata, strict=True):
            self.rows[id] = (vector.astype(np.float64) if h else None, meta)

    def metadata(self) -> dict[str, Any]:
        rng = self.rng
        found: dict[str, Any] = {"a": int(rng.integers(10)), "doc": f"d{int(rng.zipf(1.6)) % 40}"}
        if rng.random() < 0.8:
            found["n"] = float(rng.normal()) if rng.random() < 0.5 else int(rng.integers(-5, 20))
        if rng.random() < 0.7:
            found["t"] = T0 + timedelta(days=float(rng.uniform(0, 100)))
        if rng.random() < 0.6:
            found["tags"] = [str(x) for x in rng.choice(6, size=int(rng.integers(0, 4)), replace=False)]
        if rng.random() < 0.6:
            found["place"] = [float(rng.uniform(-80, 80)), float(rng.uniform(-170, 170))]
        return found

    def churn(self) -> None:
        """Delete 30 % of the rows, put some new ones, change some."""
        gone = self.rng.permutation(len(self.rows))[: len(self.rows) * 3 // 10]
        ids = list(self.rows)
        self.c.delete([ids[i] for i in gone])
        for i in gone:
            del self.rows[ids[i]]
        self.add(80)
        for i in self.rng.permutation(len(self.rows))[:30]:
            id = list(self.rows)[i]
            vector, meta = self.rows[id]
            self.c.update(id, metadata={"a": 99})
            self.rows[id] = (vector, {**meta, "a": 99})

    # --- the reference ---------------------------------------------------------------------

    def allowed(self, where: Any) -> list[Any]:
        return [id for id, (_, meta) in self.rows.items() if where is None or where.matches(meta)]

    def distance(self, q: np.ndarray, v: np.ndarray) -> float:
        if self.metric == "cosine":
            return 1 - float(q @ v / (np.linalg.norm(q) * np.linalg.norm(v)))
        return float(np.linalg.norm(q - v)) if self.metric == "l2" else -float(q @ v)

    def score(self, q: np.ndarray, v: np.ndarray) -> float:
        d = self.distance(q, v)
        return {"cosine": 1 - d, "l2": 1 / (1 + d), "dot": -d}[self.metric]

    def vector(self, x: Any) -> np.ndarray:
        if isinstance(x, ById):
            return self.rows[x.id][0]  # type: ignore[return-value]
        if not isinstance(x, np.ndarray):
            return self.rows[x][0]  # type: ignore[return-value]
        return x.astype(np.float64)

    def scores(self, spec: tuple[Any, ...], where: Any, k: int, reach: int | None = None) -> dict[Any, float]:
        """The reference: matches and their scores, for a search for `k` in which `reach` are wanted of it."""
        reach = reach or k
        kind = spec[0]
        ids = [id for id in self.allowed(where) if self.rows[id][0] is not None]
        if kind == "near":
            x = spec[1]
            q = self.vector(x)
            return {i: self.score(q, self.vector(i)) for i in ids if not (isinstance(x, ById) and i == x.id)}
        if kind == "like":
            return self._like(spec[1], spec[2], spec[3], ids)
        if kind == "context":
            out = _ids_in([e for pair in spec[1] for e in pair])
            return {
                i: sum(
                    min(0.0, squash(self.score(self.vector(p), self.vector(i)))
                        - squash(self.score(self.vector(n), self.vector(i))))
                    for p, n in spec[1]
                )
                for i in ids if i not in out
            }  # fmt: skip
        if kind == "fuse":
            return self._fuse(spec, where, k, reach)
        assert kind == "rerank"
        depth = max(spec[3], reach)
        first = ranked(self.scores(spec[1], where, k, depth))[:depth]
        near_tie(first)
        by = self.scores(spec[2], where, k)
        return {i: by.get(i, -math.inf) for i, _ in first}

    def _like(self, pos: list[Any], neg: list[Any], strategy: str, ids: list[Any]) -> dict[Any, float]:
        out = _ids_in([*pos, *neg])
        if strategy == "average":
            p, n = ([self.unit(self.vector(e)) for e in each] for each in (pos, neg))
            q = np.mean(p, axis=0)
            if n:
                q = 2 * q - np.mean(n, axis=0)
            return {i: self.score(q, self.vector(i)) for i in ids if i not in out}
        found = {}
        for i in ids:
            if i in out:
                continue
            liked = max((self.score(self.vector(e), self.vector(i)) for e in pos), default=-math.inf)
            hated = max((self.score(self.vector(e), self.vector(i)) for e in neg), default=-math.inf)
            found[i] = squash(liked) if liked > hated else -squash(hated)
        return found

    def unit(self, v: np.ndarray) -> np.ndarray:
        return v / np.linalg.norm(v) if self.metric == "cosine" else v

    def _fuse(self, spec: tuple[Any, ...], where: Any, k: int, reach: int) -> dict[Any, float]:
        _, parts, method, weights, depth = spec
        depth = max(depth or max(5 * k, 100), reach)
        total: dict[Any, float] = {}
        for at, part in enumerate(parts):
            full = ranked(self.scores(part, where, k, depth))
            near_tie(full[: depth + 1])
            found = full[:depth]
            w = 1.0 if weights is None else weights[at]
            low = min((s for _, s in found), default=0.0)
            high = max((s for _, s in found), default=0.0)
            for rank, (i, s) in enumerate(found, 1):
                if method == "rrf":
                    worth = 1 / (60 + rank)
                elif method == "weighted":
                    worth = s
                else:
                    worth = 1.0 if high == low else (s - low) / (high - low)
                total[i] = total.get(i, 0.0) + w * worth
        return total


class NearTie(Exception):
    """Two rows whose order float32 may see otherwise."""


def near_tie(found: list[tuple[Any, float]]) -> None:
    for (_, one), (_, other) in zip(found, found[1:], strict=False):
        if one != other and abs(one - other) < 1e-6 * abs(one) + 3e-7:
            raise NearTie
        if one == other and not math.isinf(one):
            raise NearTie


def squash(x: float) -> float:
    return 0.0 if x == -math.inf else (x / (1 + abs(x)) + 1) / 2


def ranked(scores: dict[Any, float]) -> list[tuple[Any, float]]:
    return sorted(scores.items(), key=lambda item: -item[1])


def _ids_in(examples: list[Any]) -> set[Any]:
    return {e.id if isinstance(e, ById) else e for e in examples if not isinstance(e, np.ndarray)}


# --- random queries ------------------------------------------------------------------------


def example(world: World, *, ids: bool = True) -> Any:
    rng = world.rng
    if ids and rng.random() < 0.5:
        having = [id for id, (v, _) in world.rows.items() if v is not None]
        return ById(having[int(rng.integers(len(having)))])
    return rng.normal(size=DIM).astype(np.float32)


def random_spec(world: World, depth: int = 0, kinds: tuple[str, ...] | None = None) -> tuple[Any, ...]:
    rng = world.rng
    kinds = kinds or (("near", "like", "context", "fuse", "rerank") if depth < 2 else ("near", "like"))
    kind = str(rng.choice(kinds))
    if kind == "near":
        return ("near", example(world))
    if kind == "like":
        strategy = "average" if rng.random() < 0.5 else "best"
        pos = [example(world) for _ in range(int(rng.integers(1 if strategy == "average" else 0, 4)))]
        neg = [example(world) for _ in range(int(rng.integers(0 if pos else 1, 3)))]
        return ("like", pos, neg, strategy)
    if kind == "context":
        return ("context", [(example(world), example(world)) for _ in range(int(rng.integers(1, 4)))])
    inner = ("near", "like", "fuse") if depth < 1 else ("near", "like")
    if kind == "fuse":
        parts = [random_spec(world, depth + 1, inner) for _ in range(int(rng.integers(1, 4)))]
        method = str(rng.choice(["rrf", "weighted", "relative"]))
        weights = [float(w) for w in rng.uniform(0.1, 2, len(parts))] if rng.random() < 0.5 else None
        return ("fuse", parts, method, weights, int(rng.integers(1, 150)) if rng.random() < 0.3 else None)
    return (
        "rerank", random_spec(world, depth + 1, ("near", "like")), random_spec(world, depth + 1, ("near", "like")),
        int(rng.integers(5, 300)),
    )  # fmt: skip


def query_of(spec: tuple[Any, ...]) -> Any:
    kind = spec[0]
    if kind == "near":
        return Near(spec[1])
    if kind == "like":
        return Like(spec[1], spec[2], strategy=spec[3])
    if kind == "context":
        return Context(spec[1])
    if kind == "fuse":
        return Fuse(*map(query_of, spec[1]), method=spec[2], weights=spec[3], depth=spec[4])
    return Rerank(query_of(spec[1]), by=query_of(spec[2]), depth=spec[3])


def random_filter(world: World) -> Any:
    rng = world.rng
    made = [
        None, F.a == int(rng.integers(10)), F.a < int(rng.integers(1, 10)), F.n > float(rng.normal()),
        F.tags.contains(str(int(rng.integers(6)))), ~(F.a == 3), (F.a > 2) & F.n.exists(), F.doc == "d1",
        F.a == 1234,
    ]  # fmt: skip
    return made[int(rng.integers(len(made)))]


def check_ranking(hits: Any, reference: dict[Any, float], k: int | None, offset: int) -> None:
    """Hits match, are never short, and have the reference's scores in its order."""
    wanted = [score for _, score in ranked(reference)][offset : None if k is None else offset + k]
    assert len(hits) == len(wanted)
    assert len(set(hits.ids)) == len(hits)
    for id, score, best in zip(hits.ids, hits.scores.tolist(), wanted, strict=True):
        assert id in reference
        if math.isinf(best):
            assert score == best == reference[id]
            continue
        assert abs(score - reference[id]) <= CLOSE * max(1, abs(score)), (id, score, reference[id])
        assert abs(score - best) <= CLOSE * max(1, abs(score)), (id, score, best)


STATES = ("fresh", "deleted", "folded", "transaction", "snapshot")


def in_state(world: World, state: str, ask: Any) -> Any:
    """What `ask(collection)` answers in that state."""
    if state == "transaction":
        with world.db.transaction():
            return ask(world.c)
    if state == "snapshot":
        with world.db.snapshot() as snap:
            return ask(snap["c"])
    return ask(world.c)


@pytest.fixture(scope="module", params=METRICS)
def worlds(request: pytest.FixtureRequest) -> list[tuple[str, World]]:
    rng = np.random.default_rng([SEED, METRICS.index(request.param)])
    fresh, old = World(rng, request.param), World(rng, request.param)
    folded = World(rng, request.param)
    old.churn()
    folded.churn()
    folded.c.optimize()
    return [("fresh", fresh), ("deleted", old), ("folded", folded), ("transaction", old), ("snapshot", old)]


def run(worlds: list[tuple[str, World]], cases: int, one: Any) -> None:
    near_ties = 0
    for case in range(cases):
        state, world = worlds[case % len(worlds)]
        try:
            in_state(world, state, lambda c, world=world: one(world, c))
        except NearTie:
            near_ties += 1
    print(f"seed {SEED}: {cases} cases, {near_ties} left out for near ties")
    assert near_ties < cases * 0.5


@pytest.mark.parametrize("kind", ["near", "like", "context", "fuse", "rerank"])
def test_a_query_equals_the_reference(worlds: list[tuple[str, World]], kind: str, cases: int) -> None:
    def one(world: World, c: Any) -> None:
        rng = world.rng
        spec, where = random_spec(world, 0, (kind,)), random_filter(world)
        k = None if rng.random() < 0.1 else int(rng.integers(1, 30))
        offset = 0 if rng.random() < 0.7 else int(rng.integers(0, 20))
        if k is None and kind in ("fuse", "rerank"):
            k = 10
        if kind in ("fuse", "rerank"):
            offset = 0
        reference = world.scores(spec, where, ROWS * 2 if k is None else k + offset)
        hits = c.search(query_of(spec), k, where=where, offset=offset, exact=True)
        check_ranking(hits, reference, k, offset)

    run(worlds, cases, one)


def test_a_search_that_is_not_exact_is_never_short_and_recalls(worlds: list[tuple[str, World]], cases: int) -> None:
    shares: list[float] = []

    def one(world: World, c: Any) -> None:
        spec, where = random_spec(world), random_filter(world)
        reference = world.scores(spec, where, 10)
        hits = c.search(query_of(spec), 10, where=where)
        best = [s for _, s in ranked(reference)[:10]]
        assert len(hits) == len(best) and set(hits.ids) <= set(reference)
        if best:
            shares.append(np.mean([s >= best[-1] - 1e-5 for s in (reference[i] for i in hits.ids)]))

    run(worlds, cases, one)
    print(f"recall@10 {np.mean(shares):.4f}")
    assert np.mean(shares) >= 0.95


def test_groups_are_exact(worlds: list[tuple[str, World]], cases: int) -> None:
    def one(world: World, c: Any) -> None:
        rng = world.rng
        spec, where = random_spec(world, 1, ("near", "like", "context")), random_filter(world)
        field = str(rng.choice(["doc", "tags", "a"]))
        k, size = int(rng.integers(1, 12)), int(rng.integers(1, 5))
        reference = world.scores(spec, where, k)
        groups: dict[Any, list[tuple[Any, float]]] = {}
        for id, score in ranked(reference):
            value = world.rows[id][1].get(field)
            for each in dict.fromkeys(value if isinstance(value, list) else [] if value is None else [value]):
                groups.setdefault(each, []).append((id, score))
        hits = c.search(query_of(spec), k, where=where, group_by=field, group_size=size, exact=True)
        best = [found[0][1] for found in groups.values()]
        assert len(hits.groups) == min(k, len(groups))
        for group, wanted in zip(hits.groups, best, strict=False):
            mine = groups[group.value]
            assert abs(mine[0][1] - wanted) <= CLOSE * max(1, abs(wanted))
            assert len(group.hits) == min(size, len(mine))
            for hit, (_, score) in zip(group.hits, mine, strict=False):
                assert hit.id in {i for i, _ in mine} and abs(hit.score - score) <= CLOSE * max(1, abs(score))

    run(worlds, cases, one)


def test_diversity_is_mmr(worlds: list[tuple[str, World]], cases: int) -> None:
    def one(world: World, c: Any) -> None:
        rng = world.rng
        spec, where = random_spec(world, 1, ("near", "fuse")), random_filter(world)
        k, diversity = int(rng.integers(1, 15)), float(rng.uniform(0.05, 1))
        first = max(5 * k, 50)
        reference = ranked(world.scores(spec, where, k, first))
        near_tie(reference[: first + 1])
        candidates = dict(reference[:first])
        hits = c.search(query_of(spec), k, where=where, diversity=diversity, exact=True)
        if spec[0] == "near":
            relevance = candidates
        else:
            low, high = min(candidates.values(), default=0), max(candidates.values(), default=0)
            relevance = {i: 1.0 if high == low else (s - low) / (high - low) for i, s in candidates.items()}
        assert len(hits) == min(k, len(candidates)) and len(set(hits.ids)) == len(hits)
        taken: list[Any] = []
        for id in hits.ids:
            worth = {
                i: (1 - diversity) * relevance[i] - diversity * max(
                    (world.score(world.vector(t), world.vector(i)) for t in taken), default=0.0
                )
                for i in candidates if i not in taken
            }  # fmt: skip
            assert worth[id] >= max(worth.values()) - CLOSE * 10
            taken.append(id)

    def usual_depth(world: World, c: Any) -> None:
        one(world, c)

    run(worlds, cases // 4, usual_depth)


def test_boosts_are_added(worlds: list[tuple[str, World]], cases: int) -> None:
    def gain(meta: dict[str, Any], boost: Any) -> float:
        value = meta.get(boost.field)
        if isinstance(boost, Field):
            if not isinstance(value, int | float) or isinstance(value, bool):
                return 0.0
            return boost.weight * (math.log1p(max(0.0, value)) if boost.transform == "log1p" else value)
        if value is None:
            return 0.0
        if boost.field == "t":
            far = abs((value - boost.origin).total_seconds())
        elif boost.field == "place":
            far = haversine(value, boost.origin)
        else:
            far = abs(value - boost.origin)
        return boost.weight * 0.5 ** (far / boost.scale)

    def one(world: World, c: Any) -> None:
        rng = world.rng
        spec, where = random_spec(world, 1, ("near", "like", "context")), random_filter(world)
        listed = [
            Decay("n", float(rng.normal()), float(rng.uniform(0.5, 5)), weight=float(rng.uniform(-1, 1))),
            Decay("t", T0 + timedelta(days=50), timedelta(days=20), weight=0.3),
            Decay("place", (10.0, 20.0), 2000), Field("n", 0.05), Field("a", 0.1, transform="log1p"),
        ]  # fmt: skip
        boosts = [listed[i] for i in rng.permutation(len(listed))[: int(rng.integers(1, 4))]]
        reference = world.scores(spec, where, 10)
        reference = {i: s + sum(gain(world.rows[i][1], b) for b in boosts) for i, s in reference.items()}
        hits = c.search(query_of(spec), 10, where=where, boost=boosts, exact=bool(rng.random() < 0.5))
        check_ranking(hits, reference, 10, 0)

    run(worlds, cases, one)


def haversine(a: Any, b: Any) -> float:
    (lat1, lon1), (lat2, lon2) = ([math.radians(x) for x in p] for p in (a, b))
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * 6371.0088 * math.asin(math.sqrt(min(1, h)))


@pytest.fixture(scope="module")
def cases() -> int:
    return int(os.environ.get("VECDB_CASES", "60"))
