"""repair(): a file of known content, damaged anywhere: what is sound is saved, what is lost is named.

A case damages the file by a seed and lets a process of its own repair it (repairer.py). Then, row by
row against the sound file's content:

    no crash, nothing but a Report; the source has not changed; the new file passes `check()`
    every row that was saved is the sound file's row; a vector that is missing is named
    every row that is missing is named by its id, or counted where no id is left
    a row whose page of the file is whole is saved (while the list of free pages is whole)

The controls: with checksums off it must be seen to save wrong rows, and a report that keeps silent
must be seen to.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child, damage
from tests.faults.repairer import content
from tests.faults.test_damaged_records import damage_records
from vecdb.errors import AlreadyExists, InvalidArgument, NotFound, WrongFormat
from vecdb.storage import header, keys, rows, salvage

SEED, PAGE, PATIENCE_S = 31, 4096, 120
KEPT = Path(__file__).parents[1] / "compat"
CIDS = {1: "rows", 2: "halves", 3: "one", 4: "empty", 5: "several", 6: "said", 7: "words", 8: "moved", 9: "kinds"}
REPAIRER = "from tests.faults.repairer import main; main()"


@dataclass
class Sound:
    """The whole file, what it holds, and where."""

    path: Path
    rows: dict[str, list[Any]]
    leaf_of: dict[bytes, int]  # key -> page
    places: dict[bytes, tuple[int, int]]
    free: set[int]  # the pages of the list of free pages


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    path = tmp_path_factory.mktemp("repair") / "sound.vecdb"
    damage.build(path, damage.SMALL)
    churn(path)
    fd = os.open(path, os.O_RDONLY)
    try:
        found, pages = salvage.salvage(fd), salvage._Pages(fd, PAGE)
        newest = header.read_header(fd)
        leaf_of = {}
        for leaf in salvage._walk(pages, newest.root)[0]:
            for entry in pages.nodes(leaf, pages.read(leaf, header.LEAF) or b""):
                leaf_of[entry.key] = leaf
        free = salvage._walk(pages, newest.free_root)[0]
        return Sound(path, content(str(path)), leaf_of, found.places, free)
    finally:
        os.close(fd)


def churn(path: Path) -> None:
    """Many small commits, so that free pages are full of rows as they were before."""
    rng = random.Random(SEED)
    with vecdb.open(path, durability="none", upkeep=False) as db:
        rows, halves = db["rows"], db["halves"]
        for n in range(40):
            some = rng.sample(range(20, damage.SMALL - 20), 8)
            rows.update([i for i in some if i in rows], metadata={"churned": n})
            rows.upsert(some[:2], damage.whole(np.random.default_rng(n), 2, damage.DIM), texts=["x" * 3000, "y"])
            rows.delete(some[2:4])
            halves.update([f"half-{n + 4}"], metadata={"churned": n}, texts=[f"text {n}"])
            several = [i for i in rng.sample(range(90), 6) if i in db["several"]]
            one = np.random.default_rng(n)
            db["several"].update(several[:2], vectors={"late": damage.whole(one, 2, 8)})
            db["several"].update(several[2:3], vectors={"tokens": [damage.whole(one, 2, 2)]})
            if n % 10 == 0:
                db["several"].update(several[3:4], vectors={"wide": damage.whole(one, 1, damage.SEVERAL_DIM)})
            db["several"].delete(several[4:] if n % 4 == 0 else [])
        kinds(db, rng)


def kinds(db: vecdb.Database, rng: random.Random) -> None:
    """Vectors of every dtype, a field that was dropped and one that came late, declared metadata."""
    random_numbers = np.random.default_rng(SEED)
    bits, bytes = vecdb.Vector(500, dtype="b1"), vecdb.Vector(300, dtype="i8", metric="l2")
    old, packs = vecdb.Vector(2), vecdb.Vector(12, dtype="b1", multi=True)
    c = db.create_collection("kinds", vectors={"bytes": bytes, "old": old, "bits": bits, "packs": packs},
                             fields={"n": int, "tags": list[str], "body": vecdb.Unindexed})  # fmt: skip

    def given(n: int, **more: vecdb.Vector) -> dict[str, Any]:
        found: dict[str, Any] = {
            "bytes": [random_numbers.integers(-128, 128, 300, dtype=np.int8) if rng.random() < 0.9 else None for _ in range(n)],
            "bits": [random_numbers.integers(0, 2, 500) if rng.random() < 0.9 else None for _ in range(n)],
            "packs": [random_numbers.integers(0, 2, (rng.randrange(4), 12)) if rng.random() < 0.5 else None for _ in range(n)],
        }
        return found | {name: damage.whole(random_numbers, n, v.dim or 0) for name, v in more.items()}

    metadata = [{"n": i, "tags": ["a", str(i)], "body": "b" * i} for i in range(600)]
    c.add(range(450), given(450, old=old), metadata=metadata[:450])
    c.drop_vector("old")
    late = vecdb.Vector(6, dtype="f16", metric="l2")
    c.add_vector("late", late)
    for first in range(450, 600, 50):
        c.add(range(first, first + 50), given(50, late=late), metadata=metadata[first : first + 50])
    c.update(range(0, 60, 3), vectors={"late": damage.whole(random_numbers, 20, 6)})
    c.delete(range(100, 110))


# --- damage ----------------------------------------------------------------------------------------


def pages(path: Path, rng: random.Random) -> str:
    """One to eight pages of the file: noise, zeros, another page, a part of it, some bits."""
    raw = bytearray(path.read_bytes())
    last, done = len(raw) // PAGE, []
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(2, last)
        how = rng.choice(("noise", "zeros", "another", "part", "bits", "head"))
        done.append(f"{how} {at}")
        start, page = at * PAGE, slice(at * PAGE, (at + 1) * PAGE)
        if how == "noise":
            raw[page] = rng.randbytes(PAGE)
        elif how == "zeros":
            raw[page] = bytes(PAGE)
        elif how == "another":
            other = rng.randrange(last)
            raw[page] = raw[other * PAGE : (other + 1) * PAGE]
        elif how == "part":
            cut = rng.randrange(PAGE - 16)
            raw[start + cut : start + cut + 16] = rng.randbytes(16)
        else:
            for _ in range(5):
                raw[start + rng.randrange(PAGE if how == "bits" else 64)] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    return ", ".join(done)


def branches(path: Path, rng: random.Random) -> str:
    """A page that leads to others, the root perhaps."""
    raw = bytearray(path.read_bytes())
    found = [n for n in range(2, len(raw) // PAGE) if struct.unpack_from("<QHH", raw, n * PAGE)[::2] == (n, 1)]
    at = rng.choice(found)
    raw[at * PAGE : (at + 1) * PAGE] = rng.choice((bytes(PAGE), rng.randbytes(PAGE)))
    path.write_bytes(raw)
    return f"branch {at}"


def truncated(path: Path, rng: random.Random) -> str:
    size = path.stat().st_size
    keep = rng.randrange(2 * PAGE, size)
    os.truncate(path, keep)
    return f"{keep} of {size} bytes"


def heads(path: Path, rng: random.Random) -> str:
    """The first two pages: one or both, whole or some bits, and a page besides."""
    raw = bytearray(path.read_bytes())
    chosen = rng.choice(((0,), (1,), (0, 1)))
    for at in chosen:
        if rng.random() < 0.5:
            raw[at * PAGE : (at + 1) * PAGE] = rng.randbytes(PAGE)
        else:
            raw[at * PAGE + rng.randrange(16, 160)] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)
    return f"heads {chosen}" + (f", {pages(path, rng)}" if rng.random() < 0.3 else "")


def ruined(path: Path, rng: random.Random) -> str:
    """A third of all pages, the first two perhaps."""
    raw = bytearray(path.read_bytes())
    count = len(raw) // PAGE
    for at in rng.sample(range(rng.choice((0, 2)), count), count // 3):
        raw[at * PAGE : (at + 1) * PAGE] = rng.choice((bytes(PAGE), rng.randbytes(PAGE)))
    path.write_bytes(raw)
    return f"{count // 3} of {count} pages"


DAMAGE: list[Callable[[Path, random.Random], str]] = [pages, pages, damage_records, branches, truncated, heads, ruined]


# --- a case ------------------------------------------------------------------------------------------


class Repairer:
    """The process that repairs; started anew when it ends."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, src: Path, dst: Path, checksums: bool = True) -> dict[str, Any]:
        if self.process is None:
            self.process = child.start(REPAIRER)
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([str(src), str(dst), checksums]).encode() + b"\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            process.kill()
            self.process = None
            return {"error": f"the process ended with {process.wait()}, or hung", "ours": False}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self.process is not None:
            child.end(self.process)


@pytest.fixture
def repairer() -> Iterator[Repairer]:
    made = Repairer()
    yield made
    made.close()


@dataclass
class Tally:
    """What a run has shown."""

    cases: int = 0
    rows: int = 0
    saved: int = 0
    named: int = 0
    counted: int = 0
    vectors: int = 0  # of the rows that were saved
    vectors_named: int = 0
    uncertain: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"repair: {self.cases} damaged files {dict(self.kinds)}, {self.rows} rows: {self.saved} saved, "
            f"{self.named} named, {self.counted} counted without ids; of {self.vectors} vectors of saved rows {self.vectors_named} named "
            f"as lost; "
            f"{self.uncertain} reports of lost commits, wrong {len(self.wrong)}, seed {SEED}"
        )


def run(sound: Sound, folder: Path, repairer: Repairer, cases: range, *, checksums: bool = True,
        edit: Callable[[dict[str, Any]], None] = lambda answer: None) -> Tally:  # fmt: skip
    tally = Tally()
    for case in cases:
        rng = random.Random(f"{SEED}-{case}")
        how = DAMAGE[case % len(DAMAGE)]
        src, dst = folder / f"{case}.vecdb", folder / f"{case}.saved"
        shutil.copyfile(sound.path, src)
        done = f"case {case}, {how.__name__}: {how(src, rng)}"
        before = src.read_bytes()
        answer = repairer.ask(src, dst, checksums)
        tally.cases += 1
        tally.kinds[how.__name__] += 1
        if src.read_bytes() != before or any(n.startswith(src.name + "-") and how is not damage_records
                                             for n in os.listdir(folder)):  # fmt: skip
            tally.wrong.append(f"{done}: the source was touched")
        if "error" in answer:
            tally.wrong.append(f"{done}: {answer['error']}")
        else:
            edit(answer)
            tally.wrong += [f"{done}: {what}" for what in judged(sound, src, before, how, answer, tally)]
        for name in os.listdir(folder):
            if name.startswith(f"{case}."):
                os.unlink(folder / name)
    return tally


def judged(
    sound: Sound, src: Path, raw: bytes, how: Any, answer: dict[str, Any], tally: Tally
) -> Iterator[str]:
    yield from answer["check"]
    lost = answer["lost"]
    uncertain = any(one["kind"] == "commits" for one in lost)
    tally.uncertain += uncertain
    strict = strictly(sound, src, raw, how)
    for cid, name in CIDS.items():
        recovered = f"recovered-{cid}"
        got = answer["rows"].get(name, answer["rows"].get(recovered))
        mine = [one for one in lost if one["place"].split("/")[0] in (name, recovered)]
        said = answer["said"].get(name, answer["said"].get(recovered))
        declared = any(one["kind"] == "declaration" for one in mine)
        if got is None:
            if sound.rows[name] and not any(one["kind"] in ("rows", "pages", "commits") for one in lost):
                yield f"collection {name!r} is gone and nothing says so"
            continue
        if (said["rows"], said["vectors"]) != (len(got), sum(len(row[2]) for row in got)):
            yield f"the report says {said} of {name!r}; there are {len(got)} rows"
        yield from rows_judged(sound, cid, name, got, mine, uncertain, declared, strict, tally)


def rows_judged(sound: Sound, cid: int, name: str, got: list[Any], mine: list[Any], uncertain: bool,
                declared: bool, strict: Callable[[bytes], bool], tally: Tally) -> Iterator[str]:  # fmt: skip
    named = {(type(one["id"]), one["id"]) for one in mine if one["kind"] == "row"}
    without = Counter((type(one["id"]), one["id"], one["vector_field"]) for one in mine if one["kind"] == "vector")
    unknown = sum(one["count"] for one in mine if one["kind"] == "rows")
    open_ended = any("not known, and some" in one["reason"] for one in mine)
    expected = {(type(row[0]), row[0]): row for row in sound.rows[name]}
    left = dict(expected)
    for row in got:
        key = (type(row[0]), row[0])
        model = left.pop(key, None)
        if model is None:
            if not uncertain:
                yield f"{row[0]!r} was not in {name!r}"
        elif model[1] != row[1] and not uncertain:
            yield f"{row[0]!r} of {name!r} holds {row[1]}, not {model[1]}"
        if model is not None and not uncertain:
            for what in vectors_judged(model, row, without, declared, tally):
                yield f"{row[0]!r} of {name!r} {what}"
    tally.rows += len(expected)
    tally.saved += len(expected) - len(left)
    missing = [key for key in left if key not in named]
    tally.named += len(left) - len(missing)
    tally.counted += len(missing)
    if len(missing) > unknown and not (open_ended or uncertain):
        yield f"{len(missing)} rows of {name!r} are missing unnamed, {unknown} are counted: {missing[:5]}"
    for _, id in left:
        key = row_key(sound, cid, id)
        if strict(key):
            yield f"{id!r} of {name!r} is whole in the file and was not saved"


def vectors_judged(model: list[Any], row: list[Any], without: Counter[Any], stand_in: bool,
                   tally: Tally) -> Iterator[str]:  # fmt: skip
    """A saved row's vectors; under a declaration that stands in, fields have other names."""
    expected, got = model[2], row[2]
    key = (type(row[0]), row[0])
    tally.vectors += len(expected)
    tally.vectors_named += len(expected) - len(got)
    if stand_in:
        if len(got) + sum(n for one, n in without.items() if one[:2] == key) < len(expected):
            yield "has lost a vector and nothing says so"
        if not set(got.values()) <= set(expected.values()):
            yield "has another vector"
        return
    for name, vector in expected.items():
        if name not in got and (*key, name) not in without:
            yield f"has lost its vector {name!r} and nothing says so"
        elif got.get(name, vector) != vector:
            yield f"has another vector {name!r}"
    if got.keys() - expected.keys():
        yield "has vectors that it had not"


def row_key(sound: Sound, cid: int, id: Any) -> bytes:
    with damage.read(sound.path) as txn:
        rid = int.from_bytes(damage.payload(txn, keys.row_id(cid, id)), "little")
    return keys.row(cid, rid)


def strictly(sound: Sound, src: Path, raw: bytes, how: Any) -> Callable[[bytes], bool]:
    """Whether a row must have been saved: its page, or its record, is as it was."""
    before = sound.path.read_bytes()

    def same(page: int) -> bool:
        return raw[page * PAGE : (page + 1) * PAGE] == before[page * PAGE : (page + 1) * PAGE]

    if how is damage_records:  # the pages are sound
        with damage.read(src) as txn:
            there = {bytes(key): bytes(value) for key, value in txn.cursor() if bytes(key)[:1] == b"\x30"}

        def record_is_there(key: bytes) -> bool:
            offset, size = sound.places[key]
            return there.get(key) == before[offset : offset + size]

        return record_is_there
    whole = all(same(page) for page in (0, 1, *sound.free))

    def pages_are_whole(key: bytes) -> bool:
        offset, size = sound.places[key]
        value = range(offset // PAGE, (offset + size - 1) // PAGE + 1)
        return whole and same(sound.leaf_of[key]) and all(map(same, value))

    return pages_are_whole


# --- the runs ----------------------------------------------------------------------------------------


def assert_good(tally: Tally) -> None:
    print(tally)
    assert not tally.wrong, "\n".join(tally.wrong[:10])


def test_damaged_files_are_repaired_and_losses_named(sound: Sound, tmp_path: Path, repairer: Repairer) -> None:
    assert_good(run(sound, tmp_path, repairer, range(21)))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_hundreds_of_damaged_files(sound: Sound, tmp_path: Path, repairer: Repairer) -> None:
    tally = run(sound, tmp_path, repairer, range(300))
    assert_good(tally)
    assert tally.named > 0 and tally.counted > 0 and tally.vectors_named > 0


def test_control_without_checksums_wrong_rows_are_seen(sound: Sound, tmp_path: Path, repairer: Repairer) -> None:
    wrong: list[str] = []
    for first in range(0, 140, 7):
        wrong += run(sound, tmp_path, repairer, range(first, first + 7), checksums=False).wrong
        if wrong:
            break
    assert wrong, "the harness does not notice rows that are not the file's"


def test_control_a_report_that_keeps_silent_is_seen(sound: Sound, tmp_path: Path, repairer: Repairer) -> None:
    wrong: list[str] = []
    for first in range(0, 140, 7):
        wrong += run(sound, tmp_path, repairer, range(first, first + 7), edit=lambda answer: answer["lost"].clear()).wrong
        if wrong:
            break
    assert any("nothing says so" in one or "unnamed" in one for one in wrong), wrong


# --- one by one --------------------------------------------------------------------------------------


def test_a_sound_file_is_saved_whole(sound: Sound, tmp_path: Path) -> None:
    report = vecdb.repair(sound.path, tmp_path / "saved.vecdb")
    assert report.ok and "nothing was lost" in str(report)
    assert os.listdir(tmp_path) == ["saved.vecdb"]
    assert content(str(tmp_path / "saved.vecdb")) == sound.rows
    with vecdb.open(sound.path, mode="r") as one, vecdb.open(tmp_path / "saved.vecdb") as two:
        assert [one[n].schema.difference(two[n].schema) for n in one] == [None] * len(CIDS)
        assert two["kinds"].schema.fields == {"n": "int", "tags": "list[str]", "body": "Unindexed"}
        assert one.stats()["embedding_cache"] == two.stats()["embedding_cache"]
        assert two["said"].search("one", 1).ids == ["first"]
        query = np.ones(damage.DIM)
        assert two["rows"].search(query, 5, exact=True).ids == one["rows"].search(query, 5, exact=True).ids
        assert two.check() == []


@pytest.mark.parametrize("gone", [(0,), (1,), (0, 1)])
def test_without_its_first_pages_nothing_is_lost(sound: Sound, tmp_path: Path, gone: tuple[int, ...]) -> None:
    raw = bytearray(sound.path.read_bytes())
    for page in gone:
        raw[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    (tmp_path / "a").write_bytes(raw)
    report = vecdb.repair(tmp_path / "a", tmp_path / "b")
    assert report.ok, str(report)
    assert content(str(tmp_path / "b")) == sound.rows


def test_without_its_root_nothing_is_lost(sound: Sound, tmp_path: Path) -> None:
    raw = bytearray(sound.path.read_bytes())
    fd = os.open(sound.path, os.O_RDONLY)
    root = header.read_header(fd).root
    os.close(fd)
    raw[root * PAGE : (root + 1) * PAGE] = bytes(PAGE)
    (tmp_path / "a").write_bytes(raw)
    report = vecdb.repair(tmp_path / "a", tmp_path / "b")
    assert report.ok and report.notes, str(report)
    assert content(str(tmp_path / "b")) == sound.rows


def test_a_lost_declaration_is_stood_in_for(sound: Sound, tmp_path: Path) -> None:
    shutil.copyfile(sound.path, tmp_path / "a")
    with damage.write(tmp_path / "a") as txn:
        for cid in (1, 2):
            txn.delete(keys.catalog(cid))
        txn.delete(keys.META_KEY)
    with damage.write(tmp_path / "a") as txn:
        txn.delete(keys.META_KEY)
    report = vecdb.repair(tmp_path / "a", tmp_path / "b")
    declarations = [one.place for one in report.lost if one.kind == "declaration"]
    assert declarations == ["recovered-1", "recovered-2"] and "declaration 2" in str(report)
    saved = content(str(tmp_path / "b"))
    assert saved["recovered-1"] == sound.rows["rows"], "a block of vectors says dim and dtype"
    assert [row[:2] for row in saved["recovered-2"]] == [row[:2] for row in sound.rows["halves"]]
    assert not any(row[2] for row in saved["recovered-2"])
    assert sum(one.kind == "vector" for one in report.lost) == sum(len(row[2]) for row in sound.rows["halves"])


def test_a_damaged_row_and_a_damaged_block_are_named(sound: Sound, tmp_path: Path) -> None:
    shutil.copyfile(sound.path, tmp_path / "a")
    with damage.write(tmp_path / "a") as txn:
        for key in (keys.row(1, 8), keys.vector_block(1, 0, 0)):
            record = bytearray(txn.get(key))
            record[100] ^= 1
            txn.put(key, bytes(record))
    report = vecdb.repair(tmp_path / "a", tmp_path / "b")
    row = [one for one in report.lost if one.kind == "row"]
    assert [(one.id, one.place) for one in row] == [(8, "rows/id 8")] and "row 8" in row[0].reason
    vectors = {one.id for one in report.lost if one.kind == "vector"}
    with vecdb.open(sound.path, mode="r") as db, db["rows"]._reading() as (txn, view):
        slots = {r[0]: rows.rid_of(txn, keys.row_id(1, r[0])) for r in sound.rows["rows"]}
        travelling = {id for id, slot in slots.items() if rows.get(txn, 1, slot).inline}
    expected = {id for id, slot in slots.items() if slot < damage.BLOCK} - {8} - travelling
    assert vectors == expected and len(expected) > 300
    assert not report.ok and "block 0" in str(report)
    with vecdb.open(tmp_path / "b") as db:
        assert db["rows"].get(8) is None and db["rows"][7].vector is None and db["rows"][7].metadata["n"] == 7


@pytest.mark.parametrize("raw", [b"", b"x", b"text " * 5000, bytes(1 << 16), os.urandom(1 << 16)])
def test_what_is_no_database_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(WrongFormat):
        vecdb.repair(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path) == ["a"]


def test_source_and_target_are_checked_first(sound: Sound, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        vecdb.repair(tmp_path / "missing", tmp_path / "b")
    (tmp_path / "b").write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        vecdb.repair(sound.path, tmp_path / "b")
    with pytest.raises(AlreadyExists):
        vecdb.repair(sound.path, sound.path)
    with pytest.raises(NotFound):
        vecdb.repair(sound.path, tmp_path / "no folder" / "b")
    for bad in (5, b"x", "", None, "a\0b"):
        with pytest.raises(InvalidArgument):
            vecdb.repair(bad, tmp_path / "c")  # type: ignore[arg-type]
    assert (tmp_path / "b").read_bytes() == b"mine"


@pytest.mark.parametrize("kept", sorted(KEPT.glob("format-*.vecdb")), ids=lambda kept: str(kept.stem))
def test_a_kept_file_of_every_format_is_repaired(kept: Path, tmp_path: Path) -> None:
    report = vecdb.repair(kept, tmp_path / "b")
    assert report.ok, str(report)
    with vecdb.open(tmp_path / "b") as db:
        assert db.check() == []
    shutil.copyfile(kept, tmp_path / "a")
    expected = content(str(tmp_path / "a"))
    assert content(str(tmp_path / "b")) == expected and any(expected.values())


def test_beside_this_process_with_the_source_open(sound: Sound, tmp_path: Path) -> None:
    shutil.copyfile(sound.path, tmp_path / "a")
    with vecdb.open(tmp_path / "a", upkeep=False) as db:
        assert vecdb.repair(tmp_path / "a", tmp_path / "b").ok
        db["one"].update("only", metadata={"x": 2})
        assert db["one"]["only"].metadata == {"x": 2} and db.check() == []
    assert content(str(tmp_path / "b")) == sound.rows
