"""Random writes that two processes can agree on, and a dict that says what must be left of them.

Commit number `n` of a run is a pure function of (seed, n, the model before it): a handful of calls
inside one transaction, over two collections. Whoever knows the seed can apply the same calls to a
dict, so a reader, a parent of a killed child or a second writer needs nobody to tell it what is
right. Every row that commit `n` writes carries `token` n, and one row of the collection "log" is
named n: the file itself says how far it came, and a commit that is half there cannot look whole.
Where rows are `rich`, each also has the text, title, sparse and many vectors that follow from its
`share` (tests/riches.py).
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import vecdb
from tests import riches
from vecdb import F

DIM = 24
BUCKETS = 40
Id = str | int
Row = tuple[npt.NDArray[np.float32] | None, dict[str, Any]]  # vector, metadata
Model = dict[Id, Row]
SIZES = (1, 1, 1, 2, 5, 20, 20, 100, 400)


class Call(NamedTuple):
    """One write: the verb and what it is given."""

    verb: str
    ids: list[Id]
    vectors: npt.NDArray[np.float32] | None = None
    metadata: list[dict[str, Any]] | None = None
    bucket: int | None = None


def create(path: str, metric: str = "l2", dtype: str = "f32", rich: bool = False) -> None:
    """An empty database for a run."""
    with vecdb.open(path) as db:
        if rich:
            dense = vecdb.Vector(DIM, metric=metric, dtype=dtype)
            db.create_collection("rows", **riches.declared(dense, metric))
        else:
            db.create_collection("rows", dim=DIM, metric=metric, dtype=dtype)
        db.create_collection("log", dim=2)


# --- the calls of a commit -------------------------------------------------------------------


def calls(seed: int, n: int, model: Model, sizes: tuple[int, ...] = SIZES) -> list[Call]:
    """The calls of commit `n`; no row is touched twice."""
    rng = random.Random(f"{seed}-{n}")
    if rng.random() < 0.1:
        return [_by_filter(rng, n)]
    known: list[Id] = sorted(model, key=str)
    rng.shuffle(known)
    return [_by_ids(rng, seed, n, part, known, sizes) for part in range(rng.choice([1, 1, 2, 4]))]


def _by_filter(rng: random.Random, n: int) -> Call:
    return Call(rng.choice(["patch", "drop"]), [], None, [{"token": n}], rng.randrange(BUCKETS))


def _by_ids(
    rng: random.Random, seed: int, n: int, part: int, known: list[Id], sizes: tuple[int, ...]
) -> Call:
    size = rng.choice(sizes)
    verb = rng.choice(["add", "add", "upsert", "update", "delete"])
    if verb == "add" or not known:
        ids = [_new_id(n, part, i) for i in range(size)]
        return Call("add", ids, _vectors(seed, n, part, size), _metadata(rng, n, size))
    old = [known.pop() for _ in range(min(size, len(known)))]
    if verb == "delete":
        return Call("delete", old)
    if verb == "update":
        vectors = _vectors(seed, n, part, len(old)) if rng.random() < 0.3 else None
        return Call("update", old, vectors, _metadata(rng, n, len(old)))
    ids = old[: (size + 1) // 2] + [_new_id(n, part, i) for i in range(size // 2)]
    vectors = None if rng.random() < 0.1 else _vectors(seed, n, part, len(ids))
    return Call("upsert", ids, vectors, _metadata(rng, n, len(ids)))


def _new_id(n: int, part: int, i: int) -> Id:
    return n * 10_000 + part * 1_000 + i if n % 2 else f"row-{n}-{part}-{i}"


def _vectors(seed: int, n: int, part: int, size: int) -> npt.NDArray[np.float32]:
    """Whole numbers: exact in f16 too."""
    rng = np.random.default_rng([seed, n, part])
    found = rng.integers(-40, 41, (size, DIM)).astype(np.float32)
    found[:, 0] = 41  # no zero vector
    return found


def _metadata(rng: random.Random, n: int, size: int) -> list[dict[str, Any]]:
    return [
        {"token": n, "bucket": rng.randrange(BUCKETS), "share": rng.random(), "tag": rng.choice("abc")}
        for _ in range(size)
    ]


# --- what a call does to the dict, and to the database -----------------------------------------


def apply(call: Call, model: Model) -> None:
    """Do it to the dict."""
    rows = call.metadata or []
    if call.verb in ("add", "upsert"):
        for at, id in enumerate(call.ids):
            model[id] = (None if call.vectors is None else call.vectors[at], rows[at])
    elif call.verb == "update":
        for at, id in enumerate(call.ids):
            vector, old = model[id]
            new = vector if call.vectors is None else call.vectors[at]
            model[id] = (new, {**old, **rows[at]})
    elif call.verb == "delete":
        for id in call.ids:
            del model[id]
    else:
        for id in [i for i, (_, row) in model.items() if row["bucket"] == call.bucket]:
            if call.verb == "patch":
                model[id] = (model[id][0], {**model[id][1], **rows[0]})
            else:
                del model[id]


def perform(call: Call, c: vecdb.Collection, rich: bool = False) -> None:
    """Do it to the database."""
    vectors, rows, texts = call.vectors, call.metadata, None
    if rich and call.ids and rows is not None:
        keys = [key_of(row) for row in rows]
        vectors, rows, texts = riches.given(keys, rows, vectors, call.verb == "update")
    if call.verb == "add":
        assert c.add(call.ids, vectors, metadata=rows, texts=texts) == call.ids
    elif call.verb == "upsert":
        assert c.upsert(call.ids, vectors, metadata=rows, texts=texts) == call.ids
    elif call.verb == "update":
        assert c.update(call.ids, vectors=vectors, metadata=rows, texts=texts) == len(call.ids)
    elif call.verb == "delete":
        assert c.delete(call.ids) == len(call.ids)
    elif call.verb == "patch":
        c.update(where=F.bucket == call.bucket, metadata=(call.metadata or [{}])[0])
    else:
        c.delete(where=F.bucket == call.bucket)


def key_of(row: dict[str, Any]) -> str:
    """What the rest of a rich row follows from."""
    return repr(row["share"])


def world_of(model: Model, metric: str) -> riches.World:
    """A model's rows with all that they hold."""
    rows = {id: (vector, riches.extra_of(key_of(row))) for id, (vector, row) in model.items()}
    return riches.World(rows, metric, metric)


def metadata_of(row: dict[str, Any], rich: bool) -> dict[str, Any]:
    """What the database says of a row of the model."""
    return riches.with_title(row, riches.extra_of(key_of(row))) if rich else row


def commit(
    db: vecdb.Database, seed: int, n: int, model: Model, sizes: tuple[int, ...] = SIZES, rich: bool = False
) -> None:
    """Commit number `n`, done to both."""
    todo = calls(seed, n, model, sizes)
    with db.transaction():
        for call in todo:
            perform(call, db["rows"], rich)
        db["log"].add(n)
    for call in todo:
        apply(call, model)


# --- comparing -----------------------------------------------------------------------------------


def compare(rows: Any, model: Model, rich: bool = False) -> list[str]:
    """Row by row: how the file differs from what it should hold."""
    wrong = []
    left = dict(model)
    for record in rows:
        expected = left.pop(record.id, None)
        if expected is None:
            wrong.append(f"{record.id!r} should not be there")
            continue
        vector = record.vectors.get("vector") if rich else record.vector
        if record.metadata != metadata_of(expected[1], rich):
            wrong.append(f"{record.id!r} holds {record.metadata}, not {metadata_of(expected[1], rich)}")
        elif (vector is None) != (expected[0] is None) or (
            vector is not None and not np.array_equal(vector, expected[0])
        ):
            wrong.append(f"{record.id!r} has another vector")
    if rich:
        wrong += riches.differences(rows, {id: riches.extra_of(key_of(row)) for id, (_, row) in model.items()})
    return wrong + [f"{id!r} is missing" for id in left]


class Found(NamedTuple):
    """What a round of searches has shown."""

    asked: int
    found: int
    wrong: list[str]


def searched(rows: vecdb.Collection, model: Model, rng: random.Random, rich: bool = False) -> Found:
    """Counts, exact and default searches, filtered and not, against the dict; of rich rows other queries too."""
    wrong: list[str] = []
    asked = found = 0
    metric = rows.schema.vectors["vector"].metric
    token = max((row["token"] for _, row in model.values()), default=0)
    bucket = rng.randrange(BUCKETS)
    filters: list[tuple[Any, Any]] = [
        (None, lambda row: True),
        (F.token == token, lambda row: row["token"] == token),
        (F.bucket == bucket, lambda row: row["bucket"] == bucket),
        ((F.share < 0.3) & (F.tag != "a"), lambda row: row["share"] < 0.3 and row["tag"] != "a"),
    ]
    if len(rows) != len(model):
        wrong.append(f"len is {len(rows)}, not {len(model)}")
    for where, matches in filters:
        chosen = {i: vector for i, (vector, row) in model.items() if matches(row)}
        count = rows.count(where)
        if count != len(chosen):
            wrong.append(f"count({where!r}) is {count}, not {len(chosen)}")
        ids = [i for i, vector in chosen.items() if vector is not None]
        vectors = np.array([chosen[i] for i in ids], np.float32).reshape(-1, DIM)
        query = np.random.default_rng(rng.randrange(1 << 30)).normal(size=DIM).astype(np.float32)
        truth = np.sort(distances(metric, vectors, query))[:10]
        exact = rows.search(query, 10, where=where, exact=True, using="vector")
        default = rows.search(query, 10, where=where, using="vector")
        for name, hits in (("exact", exact), ("default", default)):
            if len(hits) != len(truth) or not set(hits.ids) <= set(ids):
                wrong.append(f"{name} search where {where!r}: {hits.ids} is not right")
            elif any(hit.metadata != metadata_of(model[hit.id][1], rich) for hit in hits):
                wrong.append(f"{name} search where {where!r}: a hit has another row's metadata")
        if not np.allclose(exact.distances, truth, rtol=1e-3, atol=1e-3):
            wrong.append(f"exact search where {where!r}: {exact.distances} instead of {truth}")
        asked += len(truth)
        found += len(set(exact.ids) & set(default.ids))
    if rich:
        more, true, problems = riches.looked(rows, world_of(model, metric), rng, DIM)
        return Found(asked + more, found + true, wrong + problems)
    return Found(asked, found, wrong)


def distances(metric: str, vectors: Any, query: Any) -> Any:
    """Brute force, in double precision."""
    vectors, query = np.asarray(vectors, float), np.asarray(query, float)
    if metric == "l2":
        return np.linalg.norm(vectors - query, axis=1)
    if metric == "dot":
        return -vectors @ query
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    return 1 - vectors @ query / lengths
