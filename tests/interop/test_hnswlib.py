"""hnswlib's indexes become collections, and collections hnswlib's indexes, without a rebuild."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.errors import AlreadyExists, InvalidArgument, SchemaError

hnswlib = pytest.importorskip("hnswlib", reason="the extra hnswlib is not installed")
N, DIM = 3000, 24
SPACES = {"l2": "l2", "cosine": "cosine", "dot": "ip"}


def vectors(n: int = N, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def index_of(given: Any, space: str = "l2", M: int = 8, labels: Any = None) -> Any:
    index = hnswlib.Index(space, given.shape[1])
    index.init_index(len(given) + 10, M=M, ef_construction=100, random_seed=5)
    index.add_items(given, np.arange(len(given)) if labels is None else labels, num_threads=1)
    return index


def recall(found: list[list[Any]], truth: list[list[Any]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)]))


@pytest.mark.parametrize("metric", SPACES)
@pytest.mark.parametrize("how", ["object", "file"])
def test_the_graph_is_taken_over(tmp_path: Path, metric: str, how: str) -> None:
    given, queries = vectors(), vectors(200, 2)
    index = index_of(given, SPACES[metric])
    index.save_index(str(tmp_path / "i.bin"))
    source = index if how == "object" else tmp_path / "i.bin"
    path = tmp_path / "v.vecdb"
    with vecdb.open(path, durability="none") as db:
        c = vecdb.from_hnswlib(db, "c", source, metric=metric, dim=DIM, metadata=[{"n": i % 7} for i in range(N)])
        assert len(c) == N and c.schema.M == 8 and c.count(F.n == 3) == len(range(3, N, 7))
        expected = given / np.linalg.norm(given, axis=1, keepdims=True) if metric == "cosine" else given
        assert np.allclose(c.vectors([0, 17, N - 1]), expected[[0, 17, N - 1]], atol=1e-6)
        truth = [hits.ids for hits in c.search(queries, 10, exact=True)]
        for ef in (16, 40, 100):
            index.set_ef(ef)
            theirs = recall(index.knn_query(queries, 10)[0].tolist(), truth)
            mine = recall([hits.ids for hits in c.search(queries, 10, ef=ef)], truth)
            assert mine >= theirs - (0.05 if metric == "dot" else 0.02), (ef, mine, theirs)
        assert db.check() == []
        before = [hits.ids for hits in c.search(queries, 10)]
        c.add("new", queries[0])
        assert c.search(queries[0], 1).ids == ["new"] or metric == "dot"
        c.delete(["new", 5])
    with vecdb.open(path) as db:
        assert db.check() == []
        after = [hits.ids for hits in db["c"].search(queries, 10)]
        assert recall(after, before) > 0.95


@pytest.mark.parametrize("n", [0, 1, 2, 40, 700])
def test_small_ones_and_back(n: int) -> None:
    given = vectors(max(n, 1))[:n]
    with vecdb.open() as db:
        index = hnswlib.Index("l2", DIM)
        index.init_index(10 + n, M=8)
        if n:
            index.add_items(given, num_threads=1)
        c = vecdb.from_hnswlib(db, "c", index, metric="l2")
        assert len(c) == n and db.check() == []
        back, ids = c.to_hnswlib()
        assert back.get_current_count() == n and ids == list(range(n))
        if n:
            back.set_ef(100)
            labels, _ = back.knn_query(given, 1)
            assert [ids[i] for i in labels[:, 0]] == list(range(n))


def test_labels_ids_and_deleted_elements() -> None:
    given = vectors(1500)
    labels = np.random.default_rng(3).permutation(5000)[:1500]
    index = index_of(given, labels=labels)
    gone = labels[::3]
    for label in gone:
        index.mark_deleted(label)
    names = [f"name-{i}" for i in range(5000)]
    with vecdb.open() as db:
        c = vecdb.from_hnswlib(db, "c", index, metric="l2", ids=names, metadata=[{"at": i} for i in range(5000)])
        assert len(c) == 1000 and f"name-{gone[0]}" not in c
        at = int(np.flatnonzero(~np.isin(labels, gone))[7])
        found = c[names[labels[at]]]
        assert np.array_equal(found.vector, given[at]) and found.metadata == {"at": labels[at]}
        truth = c.search(given[:100], 10, exact=True)
        walked = c.search(given[:100], 10, ef=200)
        assert recall([h.ids for h in walked], [h.ids for h in truth]) > 0.97
        assert db.check() == []
        c.delete(where=F["at"] < 2000)
        back, ids = c.to_hnswlib()
        assert sorted(ids) == sorted(record.id for record in c)
        back.set_ef(200)
        labels_back = back.knn_query(given[:100], 10)[0]
        truth = c.search(given[:100], 10, exact=True)
        assert recall([[ids[i] for i in row] for row in labels_back], [h.ids for h in truth]) > 0.95


def test_an_index_made_of_a_collection_grows_and_is_saved(tmp_path: Path) -> None:
    given = vectors(2000)
    with vecdb.open() as db:
        c = db.create_collection("c", vectors={"a": vecdb.Vector(DIM, metric="l2"), "b": vecdb.Vector(2)})
        c.add(range(2000), {"a": [v if i % 2 else None for i, v in enumerate(given)], "b": np.ones((2000, 2))})
        with pytest.raises(InvalidArgument, match="using"):
            c.to_hnswlib()
        index, ids = c.to_hnswlib(using="a")
        assert ids == list(range(1, 2000, 2))
        with db.snapshot() as snap:
            c.delete([1])
            assert snap["c"].to_hnswlib(using="a")[1] == ids
    index.save_index(str(tmp_path / "i.bin"))
    again = hnswlib.Index("l2", DIM)
    again.load_index(str(tmp_path / "i.bin"), max_elements=3000)
    again.add_items(given[::2][:500], np.arange(1000, 1500))
    again.set_ef(100)
    assert (again.knn_query(given[1::2], 1)[0][:, 0] == np.arange(1000)).mean() > 0.99


def test_inside_a_transaction(tmp_path: Path) -> None:
    index = index_of(vectors(300))
    with vecdb.open(tmp_path / "v.vecdb") as db:
        with pytest.raises(ZeroDivisionError), db.transaction():
            c = vecdb.from_hnswlib(db, "c", index, metric="l2")
            assert len(c) == 300 and c.search(vectors(1)[0], 1).ids == [0]
            raise ZeroDivisionError
        assert db.collections() == []
        with db.transaction():
            c = vecdb.from_hnswlib(db, "c", index, metric="l2")
            c.add("more", vectors(1)[0])
        assert len(c) == 301 and db.check() == []


# --- what is refused -------------------------------------------------------------------------------


def refused(match: str, index: Any, **options: Any) -> None:
    options = {"metric": "l2", "dim": DIM, **options}
    with vecdb.open() as db:
        with pytest.raises(InvalidArgument, match=match):
            vecdb.from_hnswlib(db, "c", index, **options)
        assert db.collections() == [] and db.check() == []


def test_wrong_calls_are_refused_by_name(tmp_path: Path) -> None:
    index = index_of(vectors(50))
    index.save_index(str(tmp_path / "i.bin"))
    path = tmp_path / "i.bin"
    refused("metric", index, metric="hamming")
    refused("space 'l2'", index, metric="dot")
    refused("dim=7", index, dim=7)
    refused("dim", path, dim=None)
    refused("dim", path, dim=True)
    refused("is dim right", path, dim=DIM + 1)
    refused("list", [1, 2, 3])
    refused("no such|No such|cannot be read", tmp_path / "nothing.bin")
    refused("ids has 3 entries", index, ids=["a", "b", "c"])
    refused("metadata has 3 entries", index, metadata=[{}] * 3)
    refused("appears twice", index, ids=["a"] * 50)
    refused("initialised", hnswlib.Index("l2", DIM))
    small = hnswlib.Index("l2", DIM)
    small.init_index(10, M=2)
    refused("M=2", small)
    with vecdb.open() as db:
        db.create_collection("c", dim=2)
        with pytest.raises(AlreadyExists):
            vecdb.from_hnswlib(db, "c", index, metric="l2")
        with pytest.raises((InvalidArgument, SchemaError)):
            vecdb.from_hnswlib(db, "d", index, metric="l2", metadata=[{"a": object()}] * 50)
        bits = db.create_collection("bits", dim=8, dtype="b1")
        with pytest.raises(InvalidArgument, match="hamming"):
            bits.to_hnswlib()
        many = db.create_collection("many", vectors={"t": vecdb.Vector(2, multi=True)})
        with pytest.raises(InvalidArgument, match="multi"):
            many.to_hnswlib()


def test_a_damaged_file_is_refused_or_whole(tmp_path: Path) -> None:
    """Cut short, longer, and 400 changed bytes: InvalidArgument, or a sound collection; never a crash."""
    index_of(vectors(400)).save_index(str(tmp_path / "i.bin"))
    whole = (tmp_path / "i.bin").read_bytes()
    rng = random.Random(4)
    path = tmp_path / "d.bin"
    cases = [b"", whole[:50], whole[:-1], whole[: len(whole) // 2], whole + b"x", bytes(len(whole)), b"\xff" * 5000]
    for _ in range(400):
        damaged = bytearray(whole)
        at = rng.choice([rng.randrange(96), rng.randrange(len(whole)), 96 + rng.randrange(400) * 164 + rng.randrange(68)])
        damaged[at] ^= rng.randrange(1, 256)
        cases.append(bytes(damaged))
    refusals = 0
    for at, case in enumerate(cases):
        path.write_bytes(case)
        with vecdb.open() as db:
            try:
                c = vecdb.from_hnswlib(db, "c", path, metric="l2", dim=DIM)
            except InvalidArgument as error:
                assert "d.bin" in str(error) or "label" in str(error) or "ids" in str(error), error
                refusals += 1
                assert db.collections() == []
            else:
                assert at > 6, at
                c.search(vectors(5, 9), 5)
                assert db.check() == []
    print(len(cases), "files,", refusals, "refused")
    assert refusals > 60


def test_links_and_labels_of_garbage(tmp_path: Path) -> None:
    index_of(vectors(60)).save_index(str(tmp_path / "i.bin"))
    whole = bytearray((tmp_path / "i.bin").read_bytes())
    size = struct.unpack_from("<Q", whole, 24)[0]
    twice, far, many = bytearray(whole), bytearray(whole), bytearray(whole)
    twice[96 + 2 * size - 8 : 96 + 2 * size] = twice[96 + size - 8 : 96 + size]
    far[96 + 4 : 96 + 8] = struct.pack("<I", 60)
    many[96:98] = struct.pack("<H", 17)
    for name, content, match in (("t", twice, "one label"), ("f", far, "element 0 has a link to no"), ("m", many, "17 links of 16")):
        (tmp_path / name).write_bytes(content)
        refused(match, tmp_path / name)
    nan = bytearray(whole)
    nan[96 + 68 : 96 + 72] = struct.pack("<f", float("nan"))
    (tmp_path / "n").write_bytes(nan)
    refused("row 0.*NaN", tmp_path / "n")
