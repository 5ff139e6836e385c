"""Files that are damaged, foreign, full or shared with the dead: errors, never a crash or a loss.

Everything here is about the file beneath a database, through storage/env.py. What could kill the
process (truncation, damaged pages) runs in a child, and each such test has a control that shows
the fault to be real: without the check, the same file kills or misleads.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from tests import child
from vecdb.errors import (
    Busy,
    Corrupt,
    Full,
    InvalidArgument,
    NotFound,
    ReadOnly,
    TooManyReaders,
    VecdbError,
    WrongFormat,
)
from vecdb.storage import engine, meta, opening
from vecdb.storage.env import LMDB_ERRORS, Env
from vecdb.storage.keys import META_KEY

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount or to change user")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.vecdb")


def put(env: Env, value: bytes, key: bytes = b"\x30key") -> int:
    wt = env.begin_write()
    try:
        wt.txn.put(key, value)
    except LMDB_ERRORS as error:
        env.abort(wt)
        raise env.translated(error) from None
    return env.commit(wt)


def get(env: Env, key: bytes = b"\x30key") -> bytes | None:
    txn = env.begin_read()
    try:
        value = txn.get(key)
        return None if value is None else bytes(value)
    finally:
        txn.abort()


def filled(path: str, rows: int = 300) -> None:
    """A closed database with small and large values, some of them rewritten and deleted."""
    env = Env.open(path, durability="relaxed")
    rng = random.Random(1)
    for first in range(0, rows, 20):
        wt = env.begin_write()
        for n in range(first, first + 20):
            wt.txn.put(b"\x30%05d" % n, rng.randbytes(rng.choice((40, 300, 9000))))
        if first:
            wt.txn.delete(b"\x30%05d" % (first - 5))
        env.commit(wt)
    env.close()


def moved(path: str, to: Path) -> str:
    """A copy with no sidecars, as one that came from elsewhere."""
    shutil.copyfile(path, to)
    return str(to)


READ_ALL = """
import sys
from vecdb.storage.env import Env
from vecdb.errors import VecdbError
try:
    env = Env.open(sys.argv[1], mode=sys.argv[2], verify=sys.argv[3])
    txn = env.begin_read()
    n = sum(len(value) for key, value in txn.cursor())
    txn.abort()
    env.close()
    print("read", n)
except VecdbError as error:
    print(type(error).__name__, error)
"""


def in_child(path: str, mode: str = "rw", verify: str = "auto") -> tuple[int, str]:
    """Open and read everything in a process of its own; (exit status, what it said)."""
    other = child.start(READ_ALL, path, mode, verify, stderr=subprocess.DEVNULL)
    out, _ = other.communicate(timeout=60)
    return other.returncode, out.decode()


# --- truncated, damaged ------------------------------------------------------------------


def test_a_truncated_file_is_corrupt_before_it_kills(path: str) -> None:
    filled(path)
    whole = Path(path).read_bytes()
    killed = 0
    rng = random.Random(3)
    lengths = [rng.randrange(1, len(whole)) for _ in range(12)]
    lengths += [100, 4096, 8192, len(whole) // 2, len(whole) - 4096]
    for n, length in enumerate(lengths):
        Path(path).write_bytes(whole[:length])
        status, said = in_child(path, mode=("rw", "r")[n % 2])
        assert status == 0 and said.startswith("Corrupt"), (length, status, said)
        assert path in said and "repair" in said
        assert Path(path).read_bytes() == whole[:length]  # nothing was changed
        if length > 8192:
            killed += in_child(path, verify="never")[0] == -signal.SIGBUS
    assert killed > 0, "the control: unchecked, some of these kill the process"
    Path(path).write_bytes(whole)
    assert in_child(path)[1].startswith("read")


def test_zeroed_pages_are_found_when_the_file_is_checked(path: str) -> None:
    filled(path)
    whole = Path(path).read_bytes()
    found = harmless = 0
    rng = random.Random(4)
    for _ in range(12):
        bad = bytearray(whole)
        at = rng.randrange(2, len(whole) // 4096) * 4096
        bad[at : at + 4096] = bytes(4096)
        Path(path).write_bytes(bad)
        status, said = in_child(path, verify="always")
        assert status == 0, said  # no signal
        found += said.startswith("Corrupt")
        harmless += said.startswith("read")
    assert found + harmless == 12 and found >= 4


def test_a_restored_or_foreign_copy_is_checked_by_itself(path: str, tmp_path: Path) -> None:
    filled(path)
    bad = bytearray(Path(path).read_bytes())
    for page in range(4, len(bad) // 4096, 7):
        bad[page * 4096 : page * 4096 + 64] = os.urandom(64)
    elsewhere = tmp_path / "copy.vecdb"
    elsewhere.write_bytes(bad)
    with pytest.raises(Corrupt, match="copy.vecdb"):
        Env.open(str(elsewhere))
    with pytest.raises(Corrupt):
        Env.open(str(elsewhere), mode="r", immutable=True)
    good = moved(path, tmp_path / "good.vecdb")
    calls = counted_checks()
    with calls as count:
        Env.open(good).close()
        assert count[0] == 1  # never seen before
        Env.open(good).close()
        Env.open(good, mode="r").close()
        assert count[0] == 1  # remembered
        Env.open(good, verify="always").close()
        assert count[0] == 2
        os.unlink(good + "-writer")
        Env.open(good, verify="never").close()
        assert count[0] == 2
        shutil.copyfile(path, good)  # another file's content in the same place
        Env.open(good).close()
        assert count[0] == 3


@contextlib.contextmanager
def counted_checks() -> Iterator[list[int]]:
    count = [0]
    plain = engine.check_structure

    def counting(data: str) -> list[str]:
        count[0] += 1
        return plain(data)

    engine.check_structure = counting
    try:
        yield count
    finally:
        engine.check_structure = plain


def test_after_an_unclean_stop_the_file_is_checked_once(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = child.start(
        "import os, sys; from vecdb.storage.env import Env\n"
        "env = Env.open(sys.argv[1]); wt = env.begin_write(); wt.txn.put(b'0k', b'x')\n"
        "env.commit(wt); os._exit(0)",
        path,
    )
    child.end(killed)
    seen = opening.look(path)
    assert seen and seen.meta and not seen.meta.clean
    with counted_checks() as count:
        Env.open(path).close()
        assert count[0] == 0  # a killed process lost nothing
        monkeypatch.setattr(meta, "boot_id", lambda: b"another run of it")
        Env.open(path, mode="r").close()
        assert count[0] == 1
        env = Env.open(path)
        put(env, b"y")
        env.close()
        count[0] = 0
        Env.open(path).close()
        assert count[0] == 0  # closed cleanly


def test_a_file_with_freed_large_values_is_short_but_sound(path: str) -> None:
    """A short file is a suspicion: it is checked, and then read."""
    env = Env.open(path)
    wt = env.begin_write()
    wt.txn.put(b"\x30big", bytes(400_000))
    wt.txn.delete(b"\x30big")
    wt.txn.put(b"\x30small", b"x")
    env.commit(wt)
    env.close()
    seen = opening.look(path)
    if seen is None or not seen.header.short:
        pytest.skip("this engine wrote the freed pages")
    with counted_checks() as count:
        env = Env.open(path)
        assert get(env, b"\x30small") == b"x" and count[0] == 1
        env.close()


def test_random_damage_never_kills_and_is_never_silent_in_the_meta_record(path: str) -> None:
    """Looking at raw bytes raises nothing but errors of ours, whatever they are."""
    filled(path, rows=40)
    whole = Path(path).read_bytes()
    rng = random.Random(6)
    for _ in range(400):
        bad = bytearray(whole)
        for _ in range(rng.randint(1, 30)):
            bad[rng.choice((rng.randrange(300), 4096 + rng.randrange(300), rng.randrange(len(bad))))] = (
                rng.randrange(256)
            )
        Path(path).write_bytes(bad)
        with contextlib.suppress(VecdbError):
            opening.look(path)
    for n in range(0, 400):
        Path(path).write_bytes(rng.randbytes(n * 40))
        with contextlib.suppress(VecdbError):
            opening.look(path)


def test_a_damaged_meta_record_is_corrupt(path: str) -> None:
    filled(path, rows=20)
    env = lmdb.open(path, subdir=False, map_size=1 << 24, lib_version=0)
    with env.begin(write=True) as txn:
        record = bytearray(txn.get(META_KEY) or b"")
        record[-20] ^= 1
        txn.put(META_KEY, bytes(record))
    env.close()
    before = Path(path).read_bytes()
    for options in ({}, {"mode": "r"}, {"verify": "never"}, {"mode": "r", "immutable": True}):
        with pytest.raises(Corrupt) as caught:
            Env.open(path, **options)
        assert caught.value.code == "meta"
    assert Path(path).read_bytes() == before


# --- not ours ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"hello world\n", b"SQLite format 3\0" + bytes(9000), bytes(20_000)])
def test_what_is_no_database_is_refused_and_left_alone(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)
    for mode in ("rw", "r"):
        with pytest.raises(WrongFormat, match="nothing in it was changed") as caught:
            Env.open(path, mode=mode)
        assert caught.value.found is None and caught.value.supported == meta.FORMAT_VERSION
    assert Path(path).read_bytes() == content


def test_somebody_elses_lmdb_file_is_refused_and_left_alone(path: str) -> None:
    for options, keys in (({}, 1), ({}, 500), ({"max_dbs": 3}, 1)):
        for name in (path, path + "-lock", path + "-writer"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        env = lmdb.open(path, subdir=False, map_size=1 << 24, lib_version=0, **options)
        db = env.open_db(b"theirs") if options else None
        with env.begin(write=True, db=db) as txn:
            for n in range(keys):
                txn.put(b"key%05d" % n, b"value" * 20)
        env.close()
        before = Path(path).read_bytes()
        with pytest.raises(WrongFormat, match="no vecdb database"):
            Env.open(path)
        assert Path(path).read_bytes() == before


def test_a_file_of_lmdb_1_is_named(path: str) -> None:
    env = lmdb.open(path, subdir=False, map_size=1 << 24, lib_version=1)
    with env.begin(write=True) as txn:
        txn.put(b"k", b"v")
    env.close()
    with pytest.raises(WrongFormat, match=r"LMDB 1\.0"):
        Env.open(path)


def test_a_newer_format_is_refused_and_left_alone(path: str) -> None:
    filled(path, rows=20)
    env = lmdb.open(path, subdir=False, map_size=1 << 24, lib_version=0)
    with env.begin(write=True) as txn:
        record = bytearray(txn.get(META_KEY) or b"")
        struct.pack_into("<I", record, meta.FRAME + 8, 7)  # its checksum may be another's, too
        txn.put(META_KEY, bytes(record))
    env.close()
    before = Path(path).read_bytes()
    for options in ({}, {"mode": "r"}, {"mode": "r", "immutable": True}):
        with pytest.raises(WrongFormat, match="format 7") as caught:
            Env.open(path, **options)
        assert (caught.value.found, caught.value.supported) == (7, meta.FORMAT_VERSION)
    assert Path(path).read_bytes() == before


# --- places that cannot be ---------------------------------------------------------------


def test_impossible_paths_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is a folder"):
        Env.open(str(tmp_path))
    with pytest.raises(NotFound, match="create it first"):
        Env.open(str(tmp_path / "no" / "such" / "a.vecdb"))
    (tmp_path / "file").write_text("x")
    with pytest.raises((InvalidArgument, NotFound), match="file"):
        Env.open(str(tmp_path / "file" / "a.vecdb"))
    with pytest.raises(InvalidArgument, match="no regular file"):
        Env.open("/dev/null")
    with pytest.raises(InvalidArgument):
        Env.open(str(tmp_path / ("x" * 300)))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(VecdbError):
        Env.open(str(tmp_path / "loop"))
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


AS_NOBODY = """
import os, sys
from vecdb.storage.env import Env
from vecdb.errors import VecdbError
os.setgid(65534); os.setuid(65534)  # after the imports: it may not read this Python's modules
for options in eval(sys.argv[2]):
    try:
        env = Env.open(sys.argv[1], **options)
        txn = env.begin_read()
        print("read", bytes(txn.get(b"\\x30key")).decode())
        txn.abort(); env.close()
    except VecdbError as error:
        print(type(error).__name__, error)
"""


@root_only
def test_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    """As a user who may read the file and not write its folder."""
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    folder = tmp_path / "shelf"
    folder.mkdir()
    path = str(folder / "a.vecdb")
    env = Env.open(path)
    put(env, b"x")
    env.close()
    for name in ("-lock", "-writer"):
        os.unlink(path + name)
    ways = [{}, {"mode": "r"}, {"mode": "r", "immutable": True}]
    other = child.start(AS_NOBODY, path, repr(ways), stderr=subprocess.PIPE)
    out, problem = other.communicate(timeout=60)
    said = out.decode().splitlines()
    assert len(said) == 3, problem.decode()
    assert said[0].startswith("ReadOnly") and "mode='r'" in said[0]
    assert said[1].startswith("ReadOnly") and "immutable=True" in said[1]
    assert said[2] == "read x"
    assert os.listdir(folder) == ["a.vecdb"]
    other = child.start(AS_NOBODY, str(folder / "new.vecdb"), repr([{}, {"mode": "r"}]))
    said = child.end(other).decode().splitlines()
    assert said[0].startswith("ReadOnly") and said[1].startswith("NotFound")


@root_only
def test_read_only_media(tmp_path: Path) -> None:
    """A read-only mount: immutable=True reads it, everything else says so."""
    with mounted(tmp_path / "disc", "8m") as folder:
        path = str(folder / "a.vecdb")
        env = Env.open(path)
        put(env, b"x")
        env.close()
        for name in ("-lock", "-writer"):
            os.unlink(path + name)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(ReadOnly):
            Env.open(path)
        with pytest.raises(ReadOnly, match="immutable=True"):
            Env.open(path, mode="r")
        with pytest.raises(ReadOnly):
            Env.open(str(folder / "b.vecdb"))
        env = Env.open(path, mode="r", immutable=True)
        assert get(env) == b"x"
        with pytest.raises(ReadOnly):
            env.begin_write()
        env.close()


# --- full --------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)],
        capture_output=True,
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@root_only
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_full_disk_is_an_error_and_not_an_end(tmp_path: Path, durability: Any) -> None:
    with mounted(tmp_path / "disk", "2m") as folder:
        path = str(folder / "a.vecdb")
        env = Env.open(path, durability=durability)
        n = 0
        with pytest.raises(Full, match="free space") as caught:
            while True:
                put(env, os.urandom(3000), b"\x30%05d" % n)
                n += 1
        assert caught.value.kind == "disk" and n > 100
        for _ in range(5):
            with pytest.raises(Full):
                put(env, os.urandom(200_000), b"\x30more")
        txn = env.begin_read()
        assert env.commit_number(txn) == n and txn.get(b"\x30%05d" % n) is None
        assert all(len(txn.get(b"\x30%05d" % i) or b"") == 3000 for i in range(n))
        txn.abort()
        subprocess.run(["mount", "-o", "remount,size=3m", str(folder)], check=True)
        assert put(env, b"x") == n + 1  # room again
        env.close()
        assert not engine.check_structure(path)
        env = Env.open(path)
        assert get(env) == b"x"
        env.close()
        with pytest.raises(Full):  # no room for a copy, and no half of one left
            fresh = Env.open(path)
            try:
                fresh.backup(str(folder / "copy.vecdb"))
            finally:
                fresh.close()
        assert sorted(os.listdir(folder)) == ["a.vecdb", "a.vecdb-lock", "a.vecdb-writer"]


@root_only
def test_a_disk_too_full_to_begin(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "128k") as folder:
        (folder / "ballast").write_bytes(bytes(110_000))
        with pytest.raises(Full):
            Env.open(str(folder / "a.vecdb"))
        os.unlink(folder / "ballast")
        env = Env.open(str(folder / "a.vecdb"), max_size=1 << 20)
        assert put(env, b"x") == 1
        env.close()


LIMITED = """
import os, resource, signal, sys
from vecdb.storage.env import Env
from vecdb.errors import Full
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
env = Env.open(sys.argv[1])
wt = env.begin_write(); wt.txn.put(b"\\x30a", b"kept"); env.commit(wt)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
n = 0
try:
    while True:
        wt = env.begin_write(); wt.txn.put(b"\\x30%05d" % n, os.urandom(9000)); env.commit(wt)
        n += 1
except Full as error:
    assert error.kind == "disk", error
assert n > 20
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
txn = env.begin_read()
assert env.commit_number(txn) == n + 1
assert bytes(txn.get(b"\\x30a")) == b"kept" and txn.get(b"\\x30%05d" % n) is None
txn.abort()
wt = env.begin_write(); wt.txn.put(b"\\x30b", os.urandom(9000)); assert env.commit(wt) == n + 2
env.close()
print("ok")
"""


def test_a_limit_on_file_sizes_is_a_full_disk(path: str) -> None:
    """The same without root: the system refuses to let the file grow."""
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("file sizes are limited here already")
    assert child.end(child.start(LIMITED, path)) == b"ok\n"
    assert not engine.check_structure(path)


NARROW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from vecdb.storage.env import Env
env = Env.open(sys.argv[1])
wt = env.begin_write(); wt.txn.put(b"\\x30a", b"x"); env.commit(wt)
print(env.info()["map_bytes"])
env.close()
"""


def test_little_address_space_gives_a_smaller_map(path: str) -> None:
    size = int(child.end(child.start(NARROW, path)))
    assert 1 << 24 <= size < 3 << 30
    env = Env.open(path)
    assert get(env, b"\x30a") == b"x"
    env.close()


def test_a_map_too_small_for_what_others_wrote_is_renewed(path: str) -> None:
    """One process has a limit of 2 MiB, another writes 8: the first opens its map again."""
    env = Env.open(path, max_size=2 << 20)
    put(env, b"x")
    snapshot = env.begin_read()
    write = """
import os, sys
from vecdb.storage.env import Env
env = Env.open(sys.argv[1])
wt = env.begin_write()
for n in range(400): wt.txn.put(b"\\x30%03d" % n, os.urandom(20_000))
env.commit(wt); env.close()
"""
    child.end(child.start(write, path))
    assert bytes(snapshot.get(b"\x30key") or b"") == b"x"
    snapshot.abort()
    epoch = env.epoch
    assert len(get(env, b"\x30399") or b"") == 20_000
    assert env.epoch == epoch + 1
    with pytest.raises(Full):
        for n in range(400):
            put(env, os.urandom(20_000), b"\x31%03d" % n)
    env.close()


# --- the dead and the many ---------------------------------------------------------------


def test_a_killed_writer_leaves_no_lock_and_no_trace(path: str) -> None:
    env = Env.open(path)
    put(env, b"before")
    code = """
import sys, time
from vecdb.storage.env import Env
env = Env.open(sys.argv[1])
wt = env.begin_write(); wt.txn.put(b"\\x30key", b"lost")
print("writing", flush=True)
time.sleep(60)
"""
    other = child.start(code, path)
    assert other.stdout and other.stdout.readline() == b"writing\n"
    with pytest.raises(Busy, match=f"process {other.pid}") as caught:
        env.begin_write(0.1)
    assert caught.value.owner_pid == other.pid
    assert get(env) == b"before"
    other.kill()
    other.wait()
    assert put(env, b"after") == 2
    env.close()


def test_killed_readers_give_their_places_back(path: str) -> None:
    env = Env.open(path)
    put(env, b"x")
    code = f"""
import sys, time
from vecdb.storage.env import Env
env = Env.open(sys.argv[1])
held = [env.begin_read() for _ in range({engine.MAX_READERS})]
print("held", flush=True)
time.sleep(60)
"""
    other = child.start(code, path)
    assert other.stdout and other.stdout.readline() == b"held\n"
    with pytest.raises(TooManyReaders, match="living"):
        env.begin_read()
    wt = env.begin_write()
    assert wt.reader_floor() < wt.txn_id
    env.abort(wt)
    other.kill()
    other.wait()
    assert get(env) == b"x"
    put(env, b"y")
    wt = env.begin_write()
    assert wt.reader_floor() == wt.txn_id - 1  # the dead hold nothing back
    env.abort(wt)
    env.close()


def test_too_many_readers_is_an_error_of_ours_and_passes(path: str) -> None:
    env = Env.open(path)
    put(env, b"x")
    held = [env.begin_read() for _ in range(engine.MAX_READERS)]
    with pytest.raises(TooManyReaders):
        env.begin_read()
    put(env, b"y")  # writers need no place
    held.pop().abort()
    assert get(env) == b"y"
    for txn in held:
        txn.abort()
    env.close()


def test_two_processes_count_together(path: str) -> None:
    Env.open(path).close()
    code = """
import sys
from vecdb.storage.env import Env
env = Env.open(sys.argv[1], durability="relaxed")
for _ in range(150):
    wt = env.begin_write()
    wt.txn.put(b"\\x30key", b"%d" % (int(bytes(wt.txn.get(b"\\x30key") or b"0")) + 1))
    env.commit(wt)
env.close()
"""
    others = [child.start(code, path) for _ in range(3)]
    env = Env.open(path, mode="r")
    last = 0
    while any(other.poll() is None for other in others):
        txn = env.begin_read()
        commit, value = env.commit_number(txn), int(bytes(txn.get(b"\x30key") or b"0"))
        txn.abort()
        assert value == commit >= last
        last = commit
    for other in others:
        child.end(other)
    assert get(env) == b"450"
    env.close()


def test_processes_that_create_one_file_at_once_make_one_database(path: str) -> None:
    code = """
import sys
from vecdb.storage.env import Env
sys.stdin.read()
env = Env.open(sys.argv[1])
wt = env.begin_write()
wt.txn.put(b"\\x30" + sys.argv[2].encode(), b"x")
env.commit(wt); env.close()
"""
    others = [child.start(code, path, n) for n in range(4)]
    for other in others:
        assert other.stdin
        other.stdin.close()
        other.stdin = None
    for other in others:
        child.end(other)
    env = Env.open(path)
    txn = env.begin_read()
    assert env.commit_number(txn) == 4 and txn.stat()["entries"] == 5
    txn.abort()
    env.close()


# --- errors of the disk ------------------------------------------------------------------

FAILING = """
import os, sys, time
from vecdb.storage.env import Env
from vecdb.errors import VecdbError
env = Env.open(sys.argv[1], verify="never")
held = env.begin_read() if sys.argv[2] == "held" else None
acknowledged = failed = 0
base = None
os.write(1, b"go\\n")
for n in range(12):
    try:
        wt = env.begin_write()
    except VecdbError as error:
        failed += 1
        if held is not None:
            held.abort(); held = None  # the environment can be renewed now
        continue
    wt.txn.put(b"\\x30%02d" % n, os.urandom(6000))
    try:
        env.commit(wt)
        acknowledged |= 1 << n
    except VecdbError:
        failed += 1
txn = env.begin_read()
there = sum(1 << n for n in range(12) if txn.get(b"\\x30%02d" % n) is not None)
commit = env.commit_number(txn)
txn.abort()
env.close()
print(acknowledged, there, failed, commit)
"""


@pytest.mark.parametrize(
    ("call", "held", "whens"),
    [
        ("pwrite64", "held", (4, 7)),
        *(
            pytest.param(call, held, (2, 4, 5, 7, 8), marks=pytest.mark.slow)
            for call in ("pwrite64", "pwritev", "writev", "fdatasync")
            for held in ("held", "free")
        ),
    ],
)
def test_a_failing_write_is_settled_by_the_nonce(
    path: str, call: str, held: str, whens: tuple[int, ...]
) -> None:
    """Each write or sync fails once, by the system: an error means gone, success means there."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    seen = 0
    for when in whens:
        for name in (path, path + "-lock", path + "-writer"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        Env.open(path).close()
        # a file that needs no check, whose first writes are those of the child's commits
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                   f"inject={call}:error=EIO:when={when}", sys.executable, "-c", FAILING, path, held]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(child.ROOT), *filter(None, sys.path)])}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=120)
        if b"ptrace" in done.stderr or b"PTRACE" in done.stderr:
            pytest.skip("tracing is not allowed here")
        assert done.returncode == 0, done.stderr.decode()
        acknowledged, there, failed, commit = map(int, done.stdout.split(b"\n")[1].split())
        assert acknowledged == there, (call, when, bin(acknowledged), bin(there))
        assert commit == bin(there).count("1")
        seen += failed
        assert not engine.check_structure(path)
    if call in ("fdatasync", "pwrite64"):
        assert seen > 0, "the control: some of the faults must have been felt"
