"""Writes the database that is kept for its format: `python -m tests.compat.make FILE`.

Run once per format version; the file is committed and never written again.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import numpy as np

import vecdb
from vecdb.adapting.adapter import Adapter


def rows(n: int = 1500, dim: int = 16) -> tuple[list[int | str], np.ndarray, list[dict[str, object]]]:
    """Ids, vectors and metadata of the kept file, the same on every run."""
    rng = np.random.default_rng(42)
    ids: list[int | str] = [i if i % 2 else f"row {i}" for i in range(n)]
    metadata: list[dict[str, object]] = [
        {
            "number": i % 37,
            "half": i / 2,
            "name": f"n{i % 11}",
            "flag": i % 3 == 0,
            "tags": [f"t{i % 5}", "all"],
            "when": datetime(2020, 1, 1 + i % 28, tzinfo=UTC),
            "nested": {"level": i % 4},
            **({"rare": None} if i % 100 == 0 else {}),
        }
        for i in range(n)
    ]
    return ids, rng.standard_normal((n, dim)).astype(np.float32), metadata


def write(path: str) -> None:
    """Format 1's: folded images, an unfolded tail, deleted and updated rows, rows without vectors."""
    ids, vectors, metadata = rows()
    with vecdb.open(upkeep=False) as db:
        c = db.create_collection("rows", dim=16, metric="l2")
        c.add(ids[:1200], vectors[:1200], metadata=metadata[:1200], texts=[f"text {i}" for i in ids[:1200]])
        c.optimize()
        for at in range(1200, 1500, 50):
            c.add(ids[at : at + 50], vectors[at : at + 50], metadata=metadata[at : at + 50])
        c.delete(ids[10:40])
        c.update(where={"number": 5}, metadata={"changed": True})
        c.add("plain", metadata={"number": 99})
        half = db.create_collection("half", dim=16, dtype="f16", encoder=None)
        half.add(ids[:70], vectors[:70])
        db.backup(path)  # compacted


def several(db: vecdb.Database, vectors: np.ndarray) -> None:
    """Since format 2: several vector fields, of every dtype, which rows lack; declared fields."""
    c = db.create_collection(
        "several",
        vectors={
            "wide": vecdb.Vector(400, metric="l2"),
            "bytes": vecdb.Vector(16, dtype="i8", metric="dot"),
            "bits": vecdb.Vector(16, dtype="b1"),
            "tokens": vecdb.Vector(16, multi=True),
        },
        fields={"n": int, "body": vecdb.Unindexed, "title": vecdb.Indexed(str, substring=True)},
    )
    for first in (0, 60, 120):
        at = range(first, first + 60)
        c.add(at, {name: [v if i % 3 else None for i, v in zip(at, of_field(name, vectors, at), strict=True)]
                   for name in ("wide", "bytes", "bits", "tokens")},
              metadata=[{"n": i, "body": f"b{i}", "title": f"title number {i}"} for i in at])  # fmt: skip
    c.delete([4, 5])
    c.add_vector("late", vecdb.Vector(16, dtype="f16"))
    c.update(range(10, 40), vectors={"late": vectors[10:40]})


def of_field(name: str, vectors: np.ndarray, at: range) -> list[np.ndarray]:
    """The vectors of some rows of "several" in one field."""
    chosen = vectors[at.start : at.stop]
    if name == "wide":
        return list(np.tile(chosen, (1, 25)))
    if name == "bytes":
        return list((chosen * 40).clip(-128, 127).astype(np.int8))
    if name == "bits":
        return list((chosen > 0).astype(np.uint8))
    return [np.stack([v] * (i % 3)) if i % 3 else v[:0].reshape(0, 16) for i, v in zip(at, chosen, strict=True)]


def churned(db: vecdb.Database, vectors: np.ndarray) -> None:
    """Since format 3: slots that were handed out again, that rest, and that are condemned."""
    c = db.create_collection("churned", dim=16, metric="l2")
    for step in range(CHURN):
        chosen, given = churn(step, vectors)
        c.upsert(chosen, given, metadata=[{"step": step}] * len(chosen))


def worded(db: vecdb.Database) -> None:
    """Since format 4: full text of rows and of metadata, a segment, a merge's worth of more, and a tail."""
    fulltext = {"text": vecdb.FullText(), "titles": vecdb.FullText()}  # of no language: any stemmer may be at hand
    c = db.create_collection("worded", dim=16, fulltext=fulltext)
    for first in range(0, WORDED, 350):
        at = range(first, first + 350)
        c.add(at, texts=[said(i) for i in at], metadata=[{"titles": [f"Title {i % 9}", "of many"]} for i in at])
        if first == 0:
            c.optimize()
    c.delete(range(0, 100, 7))
    c.update(range(200, 210), texts=[said(i + 1) for i in range(200, 210)])


WORDED = 700


def said(i: int) -> str:
    """The text of a row of "worded"."""
    return f"row {i} says{' fast' * (i % 4)} word{i % 13} and no more"


def moved(db: vecdb.Database, vectors: np.ndarray) -> None:
    """Since format 5: vectors that went through an adapter, with those before; texts that were encoded anew,
    and texts that are on their way, half of them done; rows that came, changed and went since."""
    c = db.create_collection("moved", dim=16, metric="l2")
    c.add(range(200), vectors[:200], metadata=[{"n": i} for i in range(200)])
    c.delete(range(0, 200, 25))
    c.apply_adapter(turning(), force=True)
    c.upsert(range(190, 210), vectors[500:520])
    anew = db.create_collection("anew", encoder="hashing:16")
    anew.add(range(60), texts=[said(i) for i in range(60)])
    anew.reembed("hashing:24", bridge=False)
    anew.drop_previous_vectors()
    anew.add(range(60, 70), texts=[said(i) for i in range(60, 70)])
    way = db.create_collection("on the way", encoder="hashing:16")
    way.add(range(400), texts=[said(i) for i in range(400)])
    looks = iter((False, True))
    way.reembed("hashing:24", bridge=False, cancel=lambda: next(looks))
    way.update(5, texts=said(1000))


def turning() -> Adapter:
    """The map of "moved": twelve of the numbers, turned around."""
    return Adapter(np.eye(16)[::-1, :12] * 2, metric="l2")


CHURN = 48  # the last commit is in the middle of a round


def churn(step: int, vectors: np.ndarray) -> tuple[list[int], np.ndarray]:
    """What is written in a step: ids and their vectors."""
    chosen = [(step * 37 + j * 7) % 300 for j in range(40)]
    return chosen, vectors[[(i + 11 * step) % len(vectors) for i in chosen]]


if __name__ == "__main__":
    with vecdb.open(upkeep=False) as made:
        moved(made, rows()[1])
        made.backup(sys.argv[1])  # compacted
