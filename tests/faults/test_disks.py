"""Disks that are full or fail, and processes that die or are many: errors, never a crash or a loss.

Everything here is about the file beneath a database, through storage/env.py. Each fault has a
control that shows it to be real.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import child
from tests.faults.files import get, mounted, put, root_only
from vecdb.errors import (
    Busy,
    Full,
    TooManyReaders,
)
from vecdb.storage import engine
from vecdb.storage.env import Env


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.vecdb")


# --- full --------------------------------------------------------------------------------


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
    assert env.commit_number(txn) == 4 and txn.stat()["entries"] == 6  # four, the meta record, the times of commits
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
