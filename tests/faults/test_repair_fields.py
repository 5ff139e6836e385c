"""What repair makes of single losses in collections of several vector fields, and of single misuses.

Each test damages one thing whose place is known, and says what must be saved and what must be named.
"""

from __future__ import annotations

import os
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child, damage
from tests.faults.repairer import content
from vecdb import _core
from vecdb.errors import AlreadyExists, Busy, InvalidArgument, VecdbError
from vecdb.storage import codec, keys, rows

PAGE = 4096
SEVERAL = 1  # the number of the collection
N, LATE = 120, 90  # rows; those from here on were there after "late" was added


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One collection: floats in blocks of 32 rows, bits, bytes, many; one field dropped, one late."""
    path = tmp_path_factory.mktemp("fields") / "sound.vecdb"
    rng = np.random.default_rng(3)
    with vecdb.open(path, durability="none", upkeep=False) as db:
        declared = {
            "wide": vecdb.Vector(1000, metric="l2"),
            "gone": vecdb.Vector(2),
            "bits": vecdb.Vector(9, dtype="b1"),
            "bytes": vecdb.Vector(5, dtype="i8", metric="dot"),
            "many": vecdb.Vector(3, metric="l2", multi=True),
        }
        c = db.create_collection("several", vectors=declared, fields={"n": int, "place": vecdb.Geo})
        c.add(range(LATE), given(rng, LATE, gone=damage.whole(rng, LATE, 2)), metadata=[{"n": i} for i in range(LATE)])
        c.drop_vector("gone")
        c.add_vector("late", vecdb.Vector(4, dtype="f16", metric="l2"))
        more = N - LATE
        c.add(range(LATE, N), given(rng, more, late=damage.whole(rng, more, 4)), texts=["text"] * more)
        c.update([0, 1], vectors={"late": damage.whole(rng, 2, 4)})
        c.delete([5, 100])
    return path


def given(rng: Any, n: int, **more: Any) -> dict[str, Any]:
    return {
        "wide": [None if i % 5 == 4 else damage.whole(rng, 1, 1000)[0] for i in range(n)],
        "bits": rng.integers(0, 2, (n, 9)),
        "bytes": rng.integers(-128, 128, (n, 5), dtype=np.int8),
        "many": [None if i % 3 == 2 else damage.whole(rng, i % 3, 3) for i in range(n)],
        **more,
    }


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(sound, tmp_path / "a"))


def spoil(txn: Any, key: bytes) -> None:
    record = bytearray(txn.get(key))
    record[-1] ^= 1
    txn.put(key, bytes(record))


def vectors_of(path: Path, name: str = "several") -> dict[Any, dict[str, str]]:
    return {row[0]: row[2] for row in content(str(path))[name]}


def rid_of(path: Path, id: Any) -> int:
    with damage.read(path) as txn:
        found = rows.rid_of(txn, keys.row_id(SEVERAL, id))
    assert found is not None
    return found


# --- fields ------------------------------------------------------------------------------------------


def test_every_field_of_every_row_is_saved(sound: Path, tmp_path: Path) -> None:
    report = vecdb.repair(sound, tmp_path / "b")
    assert report.ok and content(str(tmp_path / "b")) == content(str(sound))
    found = vectors_of(sound)
    counts = {name: sum(name in each for each in found.values()) for name in ("wide", "bits", "bytes", "many", "late")}
    saved = report.collections["several"]
    assert (saved.rows, saved.vectors, dict(saved.by_field)) == (N - 2, sum(counts.values()), counts)
    assert f"vectors: 'wide' {counts['wide']}, 'bits'" in str(report)
    with vecdb.open(sound, mode="r") as one, vecdb.open(tmp_path / "b") as two:
        assert two.check() == []
        assert one["several"].schema.difference(two["several"].schema) is None
        for using, query in (("wide", np.ones(1000)), ("bits", np.ones(9)), ("late", np.ones(4))):
            expected = one["several"].search(query, 200, using=using, exact=True)
            got = two["several"].search(query, 200, using=using, exact=True)
            assert sorted(expected.distances.tolist()) == sorted(got.distances.tolist()), using
            assert set(expected.ids) == set(got.ids), using


def test_the_saved_collection_goes_on(sound: Path, tmp_path: Path) -> None:
    vecdb.repair(sound, tmp_path / "b")
    with vecdb.open(tmp_path / "b", upkeep=False) as db:
        c = db["several"]
        c.add_vector("later", vecdb.Vector(2))
        rng = np.random.default_rng(1)
        c.add(range(1000, 1100), given(rng, 100, later=np.ones((100, 2))))
        c.update(3, vectors={"late": [1, 2, 3, 4], "later": [1, 1]})
        c.delete(range(40))
        c.drop_vector("wide")
        with pytest.raises(VecdbError):
            c.add("x", metadata={"n": "no int"})
        assert db.check() == []


@pytest.mark.parametrize("number, name, of_block", [(0, "wide", 32), (2, "bits", 1024), (5, "late", 1024)])
def test_a_lost_block_of_one_field_leaves_the_others(
    sound: Path, damaged: Path, tmp_path: Path, number: int, name: str, of_block: int
) -> None:
    """Where no block of the field is full yet, there is none to lose."""
    with damage.write(damaged) as txn:
        blocks = damage.keys_of(txn, keys.prefix(keys.VECTORS, SEVERAL) + bytes((number,)))
        assert len(blocks) == N // of_block
        for key in blocks[:1]:
            spoil(txn, key)
    report = vecdb.repair(damaged, tmp_path / "b")
    before, after = vectors_of(sound), vectors_of(tmp_path / "b")
    lost = {id for id, each in before.items() if name in each and rid_of(sound, id) < of_block and blocks}
    assert {one.id for one in report.lost} == lost and bool(lost) == bool(blocks)
    assert all((one.kind, one.vector_field) == ("vector", name) for one in report.lost)
    for id, vectors in before.items():
        rest = {n: v for n, v in vectors.items() if n != name or id not in lost}
        assert after[id] == rest, id
    if lost:
        assert "block 0 of vectors" in report.lost[0].reason
        assert report.lost[0].place == f"several/id {report.lost[0].id!r}/vector field 'wide'"


@pytest.mark.parametrize("how", ["spoiled", "deleted", "not whole"])
def test_a_lost_record_of_many_vectors_is_named(damaged: Path, tmp_path: Path, how: str) -> None:
    key = keys.many_vectors(SEVERAL, 4, rid_of(damaged, 7))
    with damage.write(damaged) as txn:
        if how == "spoiled":
            spoil(txn, key)
        elif how == "deleted":
            txn.delete(key)
        else:
            damage.put(txn, key, b"12345")
    report = vecdb.repair(damaged, tmp_path / "b")
    assert [(one.kind, one.id, one.vector_field) for one in report.lost] == [("vector", 7, "many")]
    assert set(vectors_of(tmp_path / "b")[7]) == {"wide", "bits", "bytes"}


def test_vectors_that_no_user_may_give_are_lost(damaged: Path, tmp_path: Path) -> None:
    """Sealed with a right checksum: not finite, with bits beyond the dimension, of another size."""

    def changed(id: Any, number: int, vector: bytes) -> None:
        rid = rid_of(damaged, id)
        with damage.write(damaged) as txn:
            key = keys.row(SEVERAL, rid)
            row = rows.decode(damage.payload(txn, key))
            damage.put(txn, key, rows.encode(row._replace(inline={**row.inline, number: vector})))

    changed(110, 5, struct.pack("<4e", 1, 2, float("nan"), 4))
    changed(111, 2, b"\xff\xff")
    changed(112, 3, b"\x01" * 6)
    report = vecdb.repair(damaged, tmp_path / "b")
    said = {(one.id, one.vector_field): one.reason for one in report.lost}
    assert said.keys() == {(110, "late"), (111, "bits"), (112, "bytes")}
    assert "finite" in said[110, "late"] and "beyond dim 9" in said[111, "bits"]
    assert "6 bytes" in said[112, "bytes"]
    with vecdb.open(tmp_path / "b") as db:
        assert db.check() == []


def test_a_row_that_speaks_of_a_field_that_never_was(damaged: Path, tmp_path: Path) -> None:
    rid = rid_of(damaged, 30)
    with damage.write(damaged) as txn:
        key = keys.row(SEVERAL, rid)
        row = rows.decode(damage.payload(txn, key))
        damage.put(txn, key, rows.encode(row._replace(fields=(*row.fields, 99, 99))))
    report = vecdb.repair(damaged, tmp_path / "b")
    assert [(one.kind, one.id, one.vector_field) for one in report.lost] == [("vector", 30, None)]
    assert "number 99" in report.lost[0].place


def test_a_block_that_denies_a_rows_vector(damaged: Path, tmp_path: Path) -> None:
    """The row says that it has a vector in the field; its block has a hole there."""
    with vecdb.open(damaged, mode="r") as db:
        lacking = next(record.id for record in db["several"] if "wide" not in record.vectors)
    rid = rid_of(damaged, lacking)
    assert rid < 96
    with damage.write(damaged) as txn:
        key = keys.row(SEVERAL, rid)
        row = rows.decode(damage.payload(txn, key))
        damage.put(txn, key, rows.encode(row._replace(fields=(0, *row.fields))))
    report = vecdb.repair(damaged, tmp_path / "b")
    assert [(one.kind, one.id, one.vector_field) for one in report.lost] == [("vector", lacking, "wide")]
    assert "none in the row's place" in report.lost[0].reason


# --- declarations ------------------------------------------------------------------------------------


def test_blocks_stand_in_for_a_lost_declaration(sound: Path, damaged: Path, tmp_path: Path) -> None:
    with damage.write(damaged) as txn:
        spoil(txn, keys.catalog(SEVERAL))
    report = vecdb.repair(damaged, tmp_path / "b")
    declaration = next(one for one in report.lost if one.kind == "declaration")
    assert declaration.place == "recovered-1" and "'vector' (1000 x f32, 'l2')" in declaration.reason
    before, after = vectors_of(sound), vectors_of(tmp_path / "b", "recovered-1")
    assert before.keys() == after.keys()
    for id, vectors in before.items():
        assert after[id].get("vector") == vectors.get("wide"), id
        unknown = [one for one in report.lost if one.kind == "vector" and one.id == id]
        assert len(unknown) + len(after[id]) >= len(vectors)


@pytest.mark.parametrize("content", [5, [], {}, {"name": "x"}, {"vectors": 3}, {"vectors": {"a": {"number": 0}}},
                                     {"name": "x", "vectors": {"a": {"number": "0", "dim": 2}}, "next_number": 1},
                                     {"name": "x", "vectors": {"a": {"number": 3, "dim": 2}}, "next_number": 1},
                                     {"name": "x", "vectors": {}, "next_number": 1}])  # fmt: skip
def test_declarations_that_say_nothing(damaged: Path, tmp_path: Path, content: Any) -> None:
    with damage.write(damaged) as txn:
        damage.put(txn, keys.catalog(SEVERAL), codec.pack(content))
    report = vecdb.repair(damaged, tmp_path / "b")
    assert [one.place for one in report.lost if one.kind == "declaration"] == ["recovered-1"]
    assert len(vectors_of(tmp_path / "b", "recovered-1")) == N - 2


def test_two_collections_of_one_long_name(damaged: Path, tmp_path: Path) -> None:
    name = "é" * 127
    with vecdb.open(damaged, upkeep=False) as db:
        for other in ("one", "two"):
            db.create_collection(other, dim=2).add("a", [1, 2])
    with damage.write(damaged) as txn:
        for key in damage.keys_of(txn, bytes((keys.CATALOG,)))[1:]:
            damage.change(txn, key, lambda found: found | {"name": name})
    report = vecdb.repair(damaged, tmp_path / "b")
    assert report.ok and len(report.collections) == 3
    with vecdb.open(tmp_path / "b") as db:
        names = [each for each in db if each != "several"]
        assert name in names and len(names) == 2 and all(len(each.encode()) <= 255 for each in names)
        assert db.check() == []


def test_metadata_against_its_declaration_is_saved_and_noted(damaged: Path, tmp_path: Path) -> None:
    with damage.write(damaged) as txn:
        damage.change(txn, keys.catalog(SEVERAL), lambda found: found | {"fields": {"n": "str"}})
    report = vecdb.repair(damaged, tmp_path / "b")
    assert report.ok and any("contradicts its declared fields" in note for note in report.notes)
    assert len(vectors_of(tmp_path / "b")) == N - 2


# --- misuse and neighbours -----------------------------------------------------------------------------


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for src in (tmp_path / "pipe", tmp_path, Path("/dev/null"), Path("/dev/zero")):
        with pytest.raises(InvalidArgument):
            vecdb.repair(src, tmp_path / "b")
    assert os.listdir(tmp_path) == ["pipe"]


def test_the_target_is_never_touched(damaged: Path, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.link(damaged, tmp_path / "linked")
    before = damaged.read_bytes()
    for dst in (damaged, tmp_path / "linked", tmp_path):
        with pytest.raises((AlreadyExists, InvalidArgument)):
            vecdb.repair(damaged, dst)
    assert damaged.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a", "dangling", "linked"]


WRITER = """
import sys, vecdb
db = vecdb.open(sys.argv[1], upkeep=False)
c = db["several"]
print("open", flush=True)
for line in sys.stdin:
    if line.strip() == "on":
        n = 0
        print("writing", flush=True)
        while n < int(sys.argv[2]):
            c.update(n % 4, metadata={"n": n}); n += 1
        print("done", flush=True)
db.close()
"""


@pytest.fixture
def writer(damaged: Path) -> Iterator[Any]:
    process = child.start(WRITER, damaged, 100_000)
    assert process.stdout is not None and process.stdout.readline() == b"open\n"
    yield process
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()


def test_beside_a_process_that_has_the_file_open(sound: Path, damaged: Path, tmp_path: Path, writer: Any) -> None:
    assert vecdb.repair(damaged, tmp_path / "b").ok
    assert content(str(tmp_path / "b")) == content(str(sound))


def test_beside_a_process_that_writes(damaged: Path, tmp_path: Path, writer: Any) -> None:
    writer.stdin.write(b"on\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == b"writing\n"
    with pytest.raises(Busy, match="written while it was read"):
        vecdb.repair(damaged, tmp_path / "b")
    assert not any(name.startswith("b") for name in os.listdir(tmp_path))


def test_swapped_pages_and_sealed_noise(sound: Path, tmp_path: Path) -> None:
    """A hundred small attacks, each ends in a report or an error of ours, and check() finds nothing."""
    raw = sound.read_bytes()
    for seed in range(100):
        rng = random.Random(seed)
        src, dst = tmp_path / f"{seed}", tmp_path / f"{seed}.saved"
        src.write_bytes(attacked(raw, rng))
        if seed % 4 == 3:
            src.write_bytes(raw)
            seal_noise(src, rng)
        try:
            report = vecdb.repair(src, dst)
        except VecdbError:
            assert not dst.exists()
            continue
        assert str(report)
        with vecdb.open(dst) as db:
            assert [one for one in db.check() if one.code != "R6"] == [], seed


def attacked(raw: bytes, rng: random.Random) -> bytes:
    """Pages of 4 KiB exchanged, the file cut short, or noise over half of it."""
    pages = [raw[at : at + PAGE] for at in range(0, len(raw), PAGE)]
    how = rng.randrange(3)
    if how == 0:
        for _ in range(rng.choice((1, 3, 10))):
            one, other = rng.randrange(len(pages)), rng.randrange(len(pages))
            pages[one], pages[other] = pages[other], pages[one]
    elif how == 1:
        return raw[: rng.randrange(len(raw))]
    else:
        for at in rng.sample(range(len(pages)), len(pages) // 2):
            pages[at] = rng.randbytes(PAGE)
    return b"".join(pages)


def seal_noise(path: Path, rng: random.Random) -> None:
    """Some records' contents changed beneath right checksums, whatever kind they are of."""
    with damage.write(path) as txn:
        every = [bytes(key) for key in txn.cursor().iternext(values=False)]
        for key in rng.sample(every, 10):
            content = bytearray(_core.unseal(key[0], key, txn.get(key)))
            for _ in range(rng.choice((1, 3))):
                if content:
                    content[rng.randrange(min(len(content), 60))] = rng.randrange(256)
            damage.put(txn, key, bytes(content[: rng.choice((len(content), rng.randrange(len(content) + 1)))]))
