"""What others do beside repair(), and what only looks like a database.

Commits that come between one step and the next, targets that appear, records whose content is wrong
under a right checksum.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

import vecdb
from tests import child, damage
from vecdb.errors import AlreadyExists, Busy, ReadOnly, WrongFormat
from vecdb.repair import rescue
from vecdb.storage import codec, keys, meta, rows, salvage

OTHER = """
import sys, vecdb
with vecdb.open(sys.stdin.readline().strip()) as db:
    print(len(db["c"]), flush=True)
    for line in sys.stdin:
        db["c"].add(line.strip(), [1, 1])
        print("done", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with vecdb.open(tmp_path / "a") as db:
        db.create_collection("c", dim=2).add(range(50), np.ones((50, 2)))
    return tmp_path / "a"


@pytest.fixture
def other(path: Path) -> Iterator[Any]:
    """Another process that has the file open, mode "rw"."""
    process = child.start(OTHER)
    assert process.stdin is not None and process.stdout is not None

    def ask(line: str) -> bytes:
        process.stdin.write(f"{line}\n".encode())
        process.stdin.flush()
        return process.stdout.readline()

    assert ask(str(path)) == b"50\n"
    yield ask
    child.end(process)


def test_another_programs_lmdb_file_is_refused(tmp_path: Path) -> None:
    """Some of its keys are spelled as ours are."""
    with lmdb.open(str(tmp_path / "a"), subdir=False, map_size=1 << 20) as env, env.begin(write=True) as txn:
        for n in range(200):
            txn.put(b"0%08d" % n, b"a value")
    with pytest.raises(WrongFormat, match="no sound record"):
        vecdb.repair(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_target_that_cannot_be_written_is_said_first(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for a user who is not root
    with pytest.raises(ReadOnly):
        vecdb.repair(path, tmp_path / "f" / "b")
    assert os.listdir(tmp_path / "f") == []


@pytest.mark.parametrize("when", ["while it is read", "while rows are saved"])
def test_commits_meanwhile_are_noticed(
    path: Path, tmp_path: Path, other: Any, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def first(module: Any, name: str) -> None:
        known = getattr(module, name)

        def after_a_commit(*given: Any, **named: Any) -> Any:
            monkeypatch.setattr(module, name, known)
            assert other("new") == b"done\n"
            return known(*given, **named)

        monkeypatch.setattr(module, name, after_a_commit)

    if when == "while it is read":
        first(salvage, "_take")
    else:
        first(rescue.Rescue, "_write")
    with pytest.raises(Busy, match="written while it was read"):
        vecdb.repair(path, tmp_path / "b")
    assert not [name for name in os.listdir(tmp_path) if name.startswith("b")]
    assert vecdb.repair(path, tmp_path / "b").collections["c"].rows == 51


def test_a_target_that_appears_meanwhile_is_left_alone(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = rescue.Rescue._write

    def write(self: Any, *given: Any) -> None:
        (tmp_path / "b").write_bytes(b"another's")
        known(self, *given)

    monkeypatch.setattr(rescue.Rescue, "_write", write)
    with pytest.raises(AlreadyExists):
        vecdb.repair(path, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"another's"
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith("b")) == ["b"]


def test_threads_that_save_into_one_target(path: Path, tmp_path: Path) -> None:
    """One of them makes it, the others are told that it exists."""

    def attempt(_: int) -> str:
        try:
            return str(vecdb.repair(path, tmp_path / "b").collections["c"].rows)
        except AlreadyExists:
            return "exists"

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(attempt, range(4))) == ["50", "exists", "exists", "exists"]
    with vecdb.open(tmp_path / "b") as db:
        assert len(db["c"]) == 50 and db.check() == []


# --- right checksums, wrong content --------------------------------------------------------------


def test_an_empty_collection_whose_declaration_is_lost_is_named(path: Path, tmp_path: Path) -> None:
    with vecdb.open(path) as db:
        db.create_collection("empty", dim=3)
    with damage.write(path) as txn:
        txn.delete(keys.catalog(2))
    report = vecdb.repair(path, tmp_path / "b")
    assert [(one.kind, one.place) for one in report.lost] == [("declaration", "recovered-2")]
    assert report.collections["recovered-2"].rows == 0 and report.collections["c"].rows == 50


@pytest.mark.parametrize("content", [b"", b"x" * 79, b"x" * 80, b"x" * 200])
def test_a_meta_record_that_says_nothing_is_no_loss(path: Path, tmp_path: Path, content: bytes) -> None:
    with damage.write(path) as txn:
        damage.put(txn, keys.META_KEY, content)
    report = vecdb.repair(path, tmp_path / "b")
    assert report.ok and report.collections["c"].rows == 50


def test_a_newer_format_is_refused(path: Path, tmp_path: Path) -> None:
    with damage.write(path) as txn:
        damage.patch(txn, keys.META_KEY, "<I", 8, meta.FORMAT_VERSION + 1)
    with pytest.raises(WrongFormat) as refused:
        vecdb.repair(path, tmp_path / "b")
    assert refused.value.found == meta.FORMAT_VERSION + 1


def test_metadata_with_names_of_ours_is_named_as_lost(path: Path, tmp_path: Path) -> None:
    """It would say of its row that it lacks a vector."""
    with damage.write(path) as txn:
        key = keys.row(1, int.from_bytes(damage.payload(txn, keys.row_id(1, 7)), "little"))
        row = rows.decode(damage.payload(txn, key))
        damage.put(txn, key, rows.encode(row._replace(metadata=codec.pack({"\0lacks:0": True}))))
    report = vecdb.repair(path, tmp_path / "b")
    assert [(one.kind, one.id) for one in report.lost] == [("row", 7)] and "NUL" in report.lost[0].reason
    with vecdb.open(tmp_path / "b") as db:
        assert len(db["c"]) == 49 and db.check() == []
