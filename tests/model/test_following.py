"""A follower's graph is the writer's, link for link, and its codes those of a fresh open.

A process writes; this one follows after each deed, also after rows that came and went between two of
its searches. Three graphs are compared: the writer's own, the follower's, and that of a handle that
opens the file anew. Counts are printed with `-s`.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child
from tests.data import debian, needs_data
from vecdb.index.loading import LAYERS, Loading

SEED = 11
ROWS = 1_000
DEEDS = ("insert", "fleeting", "upsert", "delete", "fleeting", "insert", "metadata")

WRITER = """
import sys, numpy as np, vecdb
from tests.model.test_following import digest, do
path, seed, vectors = sys.argv[1], int(sys.argv[2]), np.load(sys.argv[3])
db = vecdb.open(path, upkeep=False, durability="none"); c = db["rows"]
rng = np.random.default_rng(seed)
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    do(c, line.strip(), number, rng, vectors)
    with c._reading() as (txn, view):
        print(digest(view), flush=True)
"""


def do(c: Any, deed: str, number: int, rng: np.random.Generator, vectors: Any) -> None:
    """One of DEEDS on a thousand rows."""
    known = [record.id for record in c.scan()]
    some = [known[at] for at in rng.choice(len(known), min(ROWS, len(known) // 2), replace=False)]
    new = [f"{number}-{at}" for at in range(ROWS)]
    given = vectors[rng.integers(0, len(vectors), ROWS)] + rng.normal(0, 0.01, (ROWS, vectors.shape[1]))
    metadata = [{"n": at % 7, "deed": number} for at in range(ROWS)]
    if deed in ("insert", "fleeting"):
        c.add(new, given, metadata=metadata)
    if deed == "fleeting":
        c.delete(new)
    elif deed == "upsert":
        c.upsert(some, given[: len(some)], metadata=metadata[: len(some)])
    elif deed == "delete":
        c.delete(some)
    elif deed == "metadata":
        c.update(some, metadata={"n": 99})


def digest(view: Any) -> str:
    """The name of every link, code, scale and vector of a view's graph."""
    found = hashlib.blake2b(digest_size=16)
    graph = view.vectors[0].graph
    for layer in LAYERS:
        for chunk in range(graph.n_chunks(layer)):
            found.update(graph.chunk(layer, chunk))
    found.update(repr((graph.n_slots, graph.scale)).encode())
    if hasattr(graph, "codes"):
        found.update(graph.codes(0, graph.n_slots))
    for slot in range(graph.n_slots):
        if graph.has_vector(slot):
            found.update(graph.vector(slot))
    return found.hexdigest()


def fill(path: Path, vectors: Any, rows: int) -> None:
    with vecdb.open(path) as db:
        c = db.create_collection("rows", vectors.shape[1])
        for first in range(0, rows, 1000):
            end = min(first + 1000, rows)
            metadata = [{"n": at % 7, "deed": -1} for at in range(first, end)]
            c.add([f"first-{at}" for at in range(first, end)], vectors[first:end], metadata=metadata)


def followed(path: Path, vectors: Any, deeds: list[str], tmp_path: Path) -> tuple[int, list[str]]:
    """What is compared, and what differs."""
    np.save(tmp_path / "vectors.npy", vectors)
    writer = child.start(WRITER, path, SEED, tmp_path / "vectors.npy")
    wrong: list[str] = []
    with vecdb.open(path, mode="r") as db:
        c = db["rows"]
        c.search(vectors[0])
        assert said(writer) == "ready"
        for number, deed in enumerate(deeds):
            theirs = ask(writer, deed)
            c.search(vectors[number])
            c.count({"n": 3})
            with c._reading() as (_, view), vecdb.open(path, mode="r") as fresh:
                with fresh["rows"]._reading() as (_, anew):
                    if digest(view) != theirs:
                        wrong.append(f"{number} {deed}: the follower's graph is not the writer's")
                    if digest(view) != digest(anew):
                        wrong.append(f"{number} {deed}: nor that of a fresh open")
                for n in (3, 99):
                    if c.count({"n": n}) != fresh["rows"].count({"n": n}):
                        wrong.append(f"{number} {deed}: a filter answers otherwise than a fresh open")
    child.end(writer)
    return len(deeds), wrong


def ask(process: subprocess.Popen[bytes], line: str) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()
    return said(process)


def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def made() -> Any:
    rng = np.random.default_rng(SEED)
    centres = rng.normal(size=(50, 24))
    return (centres[rng.integers(0, 50, 3_000)] + 0.5 * rng.normal(size=(3_000, 24))).astype("f4")


def test_a_follower_has_the_writers_graph(tmp_path: Path) -> None:
    path, vectors = tmp_path / "f.vecdb", made()
    fill(path, vectors, 1_500)
    looks, wrong = followed(path, vectors, list(DEEDS), tmp_path)
    print(f"\n{looks} commits followed, seed {SEED}: differences {len(wrong)}")
    assert not wrong


def test_control_a_follower_that_leaves_out_a_record_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, vectors = tmp_path / "f.vecdb", made()
    fill(path, vectors, 1_500)
    applied, apply = [], Loading.apply

    def late(self: Loading, graph: Any, commit: int, record: Any) -> None:
        applied.append(commit)
        if graph.n_slots < 2_000:
            apply(self, graph, commit, record)

    monkeypatch.setattr(Loading, "apply", late)
    try:
        _, wrong = followed(path, vectors, ["insert", "insert"], tmp_path)
    except Exception as error:  # a search on a graph that was left behind
        wrong = [str(error)]
    assert applied and wrong


@needs_data()
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_follower_of_debian_has_the_writers_graph(tmp_path: Path) -> None:
    vectors = debian()[0]
    path = tmp_path / "f.vecdb"
    fill(path, vectors, len(vectors))
    rng = random.Random(SEED)
    deeds = [rng.choice(DEEDS) for _ in range(20)]
    looks, wrong = followed(path, vectors, deeds, tmp_path)
    print(f"\n{looks} commits followed, seed {SEED}: differences {len(wrong)}")
    assert not wrong
