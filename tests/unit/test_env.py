"""storage/env.py: commits, snapshots, handles, closing, copies; what is refused, and how fast."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import child
from vecdb.errors import (
    AlreadyExists,
    Busy,
    Closed,
    Full,
    InvalidArgument,
    NotFound,
    ReadOnly,
    VecdbError,
)
from vecdb.storage import meta, opening
from vecdb.storage.env import LMDB_ERRORS, Env

KEY = b"\x30key"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.vecdb")


@pytest.fixture
def env(path: str) -> Iterator[Env]:
    env = Env.open(path, timeout=5.0)
    yield env
    env.close()


def put(env: Env, value: bytes, key: bytes = KEY) -> int:
    wt = env.begin_write()
    wt.txn.put(key, value)
    return env.commit(wt)


def get(env: Env, key: bytes = KEY) -> bytes | None:
    txn = env.begin_read()
    try:
        value = txn.get(key)
        return None if value is None else bytes(value)
    finally:
        txn.abort()


def commit_of(env: Env) -> int:
    txn = env.begin_read()
    try:
        return env.commit_number(txn)
    finally:
        txn.abort()


# --- commits and snapshots ---------------------------------------------------------------


def test_commits_are_numbered_and_aborts_leave_no_trace(env: Env) -> None:
    assert commit_of(env) == 0
    assert [put(env, b"%d" % n) for n in range(1, 4)] == [1, 2, 3]
    wt = env.begin_write()
    assert (wt.last, wt.commit_number) == (3, 4)
    wt.txn.put(KEY, b"lost")
    env.abort(wt)
    env.abort(wt)  # harmless
    assert (get(env), commit_of(env)) == (b"3", 3)
    assert put(env, b"4") == 4


def test_a_snapshot_does_not_move(env: Env) -> None:
    put(env, b"old")
    txn = env.begin_read()
    for n in range(20):
        put(env, b"new%d" % n)
    assert bytes(txn.get(KEY) or b"") == b"old"
    assert env.commit_number(txn) == 1
    assert commit_of(env) == 21
    assert env.commit_number(txn) == 1
    txn.abort()


def test_meta_changes_are_part_of_the_commit(env: Env) -> None:
    wt = env.begin_write()
    wt.meta_changes["next_cid"] = 5
    wt.meta_changes["catalog_version"] = 2
    assert env.meta(wt.txn).next_cid == 1
    env.commit(wt)
    txn = env.begin_read()
    seen = env.meta(txn)
    txn.abort()
    assert (seen.commit, seen.next_cid, seen.catalog_version, seen.format) == (1, 5, 2, meta.FORMAT_VERSION)
    wt = env.begin_write()
    wt.meta_changes["generation_x"] = 5
    with pytest.raises(TypeError):
        env.commit(wt)
    assert put(env, b"x") == 2  # a failed commit leaves no lock


def test_every_commit_has_another_nonce(env: Env) -> None:
    seen = set()
    for _ in range(5):
        put(env, b"x")
        txn = env.begin_read()
        seen.add(env.meta(txn).nonce)
        txn.abort()
    assert len(seen) == 5


def test_a_transaction_ends_on_its_own_thread(env: Env) -> None:
    wt = env.begin_write()
    caught: list[BaseException] = []

    def elsewhere() -> None:
        for end in (env.commit, env.abort):
            try:
                end(wt)
            except InvalidArgument as error:
                caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(caught) == 2
    assert env.commit(wt) == 1
    with pytest.raises(Closed):
        env.commit(wt)


def test_threads_wait_for_their_turn_to_write(env: Env) -> None:
    def count(times: int) -> None:
        for _ in range(times):
            wt = env.begin_write()
            n = int(bytes(wt.txn.get(KEY) or b"0"))
            wt.txn.put(KEY, b"%d" % (n + 1))
            env.commit(wt)

    threads = [threading.Thread(target=count, args=(25,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (get(env), commit_of(env)) == (b"100", 100)


def test_busy_names_this_process(env: Env) -> None:
    wt = env.begin_write()
    caught: list[Busy] = []

    def elsewhere() -> None:
        try:
            env.begin_write(0.05)
        except Busy as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    env.abort(wt)
    assert caught[0].owner_pid == os.getpid()
    with pytest.raises(InvalidArgument, match="inside a write transaction"):
        first = env.begin_write()
        try:
            env.begin_write(30)
        finally:
            env.abort(first)


def test_the_reader_floor(env: Env) -> None:
    put(env, b"1")
    wt = env.begin_write()
    first = wt.txn_id
    assert wt.reader_floor() == first - 1
    env.commit(wt)
    txn = env.begin_read()  # sees `first`
    for _ in range(3):
        put(env, b"x")
    wt = env.begin_write()
    floor = wt.reader_floor()
    assert floor == first
    assert wt.due(first, floor) and not wt.due(first + 1, floor)
    assert wt.due(wt.txn_id + 100, floor)  # from before the file was copied
    assert not wt.due(first, 0)
    txn.abort()
    assert wt.reader_floor() == wt.txn_id - 1
    env.abort(wt)


# --- handles -----------------------------------------------------------------------------


def test_two_handles_share_one_environment(env: Env, path: str) -> None:
    second = Env.open(path)
    put(second, b"x")
    assert get(env) == b"x"
    second.close()
    second.close()
    assert second.closed and not env.closed
    assert get(env) == b"x"
    with pytest.raises(Closed):
        second.begin_read()
    with pytest.raises(Closed):
        second.begin_write()
    with pytest.raises(Closed):
        second.sync()


def test_names_of_one_file_are_one_file(env: Env, path: str, tmp_path: Path) -> None:
    link = tmp_path / "link.vecdb"
    link.symlink_to(path)
    second = Env.open(str(link))
    put(second, b"x")
    assert get(env) == b"x" and second.path == env.path
    second.close()
    hard = tmp_path / "hard.vecdb"
    os.link(path, hard)
    with pytest.raises(VecdbError):
        Env.open(str(hard))


def test_a_second_handle_must_agree(env: Env, path: str) -> None:
    with pytest.raises(InvalidArgument, match="durability='full'"):
        Env.open(path, durability="none")
    with pytest.raises(InvalidArgument, match="max_size"):
        Env.open(path, max_size=1 << 22)
    with pytest.raises(InvalidArgument, match="immutable"):
        Env.open(path, mode="r", immutable=True)
    with pytest.raises((InvalidArgument, AlreadyExists)):
        Env.open(path, mode="x")


def test_mode_r_reads_and_refuses_to_write(env: Env, path: str) -> None:
    put(env, b"x")
    reader = Env.open(path, mode="r")
    assert get(reader) == b"x"
    with pytest.raises(ReadOnly, match="mode='r'"):
        reader.begin_write()
    with pytest.raises(ReadOnly):
        reader.compact()
    env.close()
    assert get(reader) == b"x"  # the environment is still there
    writer = Env.open(path)
    put(writer, b"y")
    assert get(reader) == b"y"
    writer.close()
    reader.close()


def test_mode_r_alone_changes_no_byte(path: str) -> None:
    env = Env.open(path)
    put(env, b"x")
    env.close()
    before = Path(path).read_bytes()
    reader = Env.open(path, mode="r")
    assert get(reader) == b"x"
    reader.close()
    assert Path(path).read_bytes() == before


def test_a_deleted_file_is_not_taken_for_the_open_one(env: Env, path: str) -> None:
    os.rename(path, path + ".gone")
    Path(path).write_bytes(b"")
    with pytest.raises(Busy, match="replaced"):
        Env.open(path)
    os.rename(path + ".gone", path)
    Env.open(path).close()


# --- closing -----------------------------------------------------------------------------


def test_closing_marks_the_file_and_no_commit_is_counted(path: str) -> None:
    env = Env.open(path)
    put(env, b"x")
    env.close()
    seen = opening.look(path)
    assert seen and seen.meta and seen.meta.clean and seen.meta.commit == 1
    env = Env.open(path)
    assert commit_of(env) == 1
    assert put(env, b"y") == 2
    seen = opening.look(path)
    assert seen and seen.meta and not seen.meta.clean
    env.close()


def test_closing_without_having_written_leaves_the_bytes(path: str) -> None:
    Env.open(path).close()
    before = Path(path).read_bytes()
    env = Env.open(path)
    get(env)
    env.close()
    assert Path(path).read_bytes() == before


def test_closing_waits_for_readers(path: str) -> None:
    env = Env.open(path)
    put(env, b"x")
    txn = env.begin_read()
    timer = threading.Timer(0.2, txn.abort)
    timer.start()
    start = time.monotonic()
    env.close()
    assert 0.15 < time.monotonic() - start < 3


def test_a_forgotten_reader_keeps_the_map_until_the_path_is_opened_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.storage.env.PATIENCE", 0.05)
    env = Env.open(path)
    put(env, b"x")
    txn = env.begin_read()
    view = txn.get(KEY)
    assert view is not None
    env.close()
    assert bytes(view) == b"x"  # still mapped
    with pytest.raises(Closed):
        env.begin_read()
    env = Env.open(path)
    assert get(env) == b"x"
    txn.abort()
    put(env, b"y")
    env.close()


def test_readers_that_begin_while_it_closes_get_closed_or_a_value(path: str) -> None:
    for _ in range(30):
        env = Env.open(path)
        put(env, b"x" * 50)
        go = threading.Barrier(4)
        odd: list[Any] = []

        def read(env: Env = env, go: threading.Barrier = go, odd: list[Any] = odd) -> None:
            go.wait()
            try:
                while True:
                    if get(env) != b"x" * 50:
                        odd.append("value")
            except Closed:
                return
            except BaseException as error:
                odd.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        go.wait()
        env.close()
        for thread in threads:
            thread.join()
        assert not odd


# --- in memory ---------------------------------------------------------------------------


def test_in_memory_leaves_nothing_behind() -> None:
    env = Env.open()
    put(env, b"x")
    assert get(env) == b"x"
    assert env.path == ":memory:"
    folder = os.path.dirname(env._was.place.data)
    assert not os.path.exists(folder)
    second = Env.open()
    assert get(second) is None  # each is its own
    second.close()
    env.compact()
    env.close()


# --- the file ----------------------------------------------------------------------------


def test_opening_modes(path: str) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        Env.open(path, mode="r")
    assert os.listdir(os.path.dirname(path)) == []
    Env.open(path, mode="x").close()
    with pytest.raises(AlreadyExists):
        Env.open(path, mode="x")
    Env.open(path, mode="r").close()


def test_an_empty_file_becomes_a_database(path: str) -> None:
    """What tempfile makes."""
    Path(path).write_bytes(b"")
    with pytest.raises(NotFound, match="no database yet"):
        Env.open(path, mode="r")
    env = Env.open(path)
    assert put(env, b"x") == 1
    env.close()


@pytest.mark.parametrize("durability", ["full", "relaxed", "none"])
def test_every_durability_reads_back(path: str, durability: Any) -> None:
    env = Env.open(path, durability=durability)
    for n in range(10):
        put(env, b"%d" % n)
    env.sync()
    put(env, b"last")
    env.close()
    env = Env.open(path)
    assert (get(env), commit_of(env)) == (b"last", 11)
    env.close()


def test_an_unsynced_file_is_not_marked_as_complete(path: str) -> None:
    env = Env.open(path, durability="none")
    put(env, b"x")
    env.close()
    seen = opening.look(path)
    assert seen and seen.meta and not seen.meta.clean
    env = Env.open(path, durability="none")
    put(env, b"x")
    env.sync()
    env.close()
    seen = opening.look(path)
    assert seen and seen.meta and seen.meta.clean


def test_a_backup_is_a_snapshot_with_its_own_identity(env: Env, tmp_path: Path) -> None:
    for n in range(50):
        put(env, os.urandom(5000), b"\x30%d" % n)
    put(env, b"kept")
    copy = str(tmp_path / "copy.vecdb")
    env.backup(copy)
    put(env, b"later")
    with pytest.raises(AlreadyExists):
        env.backup(copy)
    with pytest.raises(NotFound):
        env.backup(str(tmp_path / "missing" / "copy.vecdb"))
    other = Env.open(copy)
    assert (get(other), commit_of(other)) == (b"kept", 51)
    one, two = env.begin_read(), other.begin_read()
    assert env.meta(one).generation != other.meta(two).generation
    one.abort()
    two.abort()
    assert put(other, b"z") == 52
    other.close()
    assert sorted(os.listdir(tmp_path)) == [
        "a.vecdb", "a.vecdb-lock", "a.vecdb-writer",
        "copy.vecdb", "copy.vecdb-lock", "copy.vecdb-writer",
    ]  # fmt: skip


def test_compact_shrinks_the_file_and_keeps_what_is_in_it(env: Env, path: str) -> None:
    for n in range(100):
        put(env, os.urandom(20_000), b"\x30%d" % n)
    for n in range(95):
        wt = env.begin_write()
        wt.txn.delete(b"\x30%d" % n)
        env.commit(wt)
    kept = get(env, b"\x3099")
    before, epoch = os.path.getsize(path), env.epoch
    env.compact()
    assert os.path.getsize(path) < before / 5
    assert env.epoch != epoch
    assert (get(env, b"\x3099"), commit_of(env)) == (kept, 195)
    assert put(env, b"x") == 196
    assert [name for name in os.listdir(os.path.dirname(path)) if "part" in name] == []


def test_compact_needs_to_be_alone(env: Env, path: str) -> None:
    put(env, b"x")
    txn = env.begin_read()
    with pytest.raises(Busy, match="snapshots"):
        env.compact()
    assert bytes(txn.get(KEY) or b"") == b"x"
    txn.abort()
    code = """
import sys
from vecdb.storage.env import Env
env = Env.open(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
env.close()
"""
    other = child.start(code, path)
    assert other.stdout and other.stdout.readline() == b"open\n"
    with pytest.raises(Busy, match="another process"):
        env.compact()
    child.end(other)
    env.compact()
    assert get(env) == b"x"


def test_max_size_is_a_limit_and_not_an_end(path: str) -> None:
    limit = 2 << 20
    env = Env.open(path, max_size=limit)
    n = 0
    with pytest.raises(Full, match="max_size=2,097,152") as caught:
        while True:
            wt = env.begin_write()
            try:
                wt.txn.put(b"\x30%04d" % n, os.urandom(30_000))
                env.commit(wt)
            except LMDB_ERRORS as error:
                env.abort(wt)
                raise env.translated(error) from None
            n += 1
    assert caught.value.kind == "map"
    assert n > 30 and os.path.getsize(path) <= limit
    assert commit_of(env) == n and get(env, b"\x30%04d" % n) is None
    assert all(len(get(env, b"\x30%04d" % i) or b"") == 30_000 for i in range(n))
    for i in range(10):
        wt = env.begin_write()
        wt.txn.delete(b"\x30%04d" % i)
        env.commit(wt)
    put(env, os.urandom(30_000))  # there is room again
    env.close()
    env = Env.open(path)  # and without the limit it grows
    for i in range(100):
        put(env, os.urandom(30_000), b"\x31%d" % i)
    env.close()
    env = Env.open(path, max_size=limit)  # a file beyond its limit can be read
    assert len(get(env, b"\x3199") or b"") == 30_000
    env.close()


def test_info_says_what_there_is(env: Env, path: str) -> None:
    put(env, b"x")
    info = env.info()
    assert info["file_bytes"] == os.path.getsize(path)
    assert info["commit"] == 1 and info["records"] == 3 and info["readers"] == 0
    assert info["used_bytes"] <= info["file_bytes"]


# --- the error tree and the meta record --------------------------------------------------


def test_lmdb_errors_are_translated(env: Env) -> None:
    txn = env.begin_read()
    txn.abort()
    with pytest.raises(LMDB_ERRORS) as caught:
        txn.get(KEY)
    error = env.translated(caught.value)
    assert isinstance(error, VecdbError) and env.path in str(error)
    wt = env.begin_write()
    with pytest.raises(LMDB_ERRORS):
        wt.txn.put(b"x" * 600, b"")
    env.abort(wt)


def test_a_meta_record_survives_and_says_what_is_wrong_with_it() -> None:
    found = meta.first_meta()
    record = meta.encode(found)
    assert meta.decode(record, "x") == found
    assert meta.decode(memoryview(record), "x") == found
    for at in range(len(record)):
        bad = bytearray(record)
        bad[at] ^= 0x10
        with pytest.raises(VecdbError):
            meta.decode(bytes(bad), "x")
    for n in range(len(record)):
        with pytest.raises(VecdbError):
            meta.decode(record[:n], "x")


# --- cost --------------------------------------------------------------------------------


def test_a_snapshot_costs_little(env: Env) -> None:
    """Measured at 0.45 us; the bound only catches a lock or a context manager in the way."""
    put(env, b"x")
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(2000):
            txn = env.begin_read()
            env.commit_number(txn)
            txn.abort()
        best = min(best, (time.perf_counter() - start) / 2000)
    assert best < 20e-6
