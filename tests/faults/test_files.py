"""Files that are damaged, foreign or where they cannot be: errors, never a crash or a loss.

Everything here is about the file beneath a database, through storage/env.py. What could kill the
process (truncation, damaged pages) runs in a child, and each such test has a control that shows
the fault to be real: without the check, the same file kills or misleads.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from tests import child
from tests.faults.files import filled, get, in_child, mounted, moved, put, root_only
from vecdb.errors import (
    Corrupt,
    InvalidArgument,
    NotFound,
    ReadOnly,
    VecdbError,
    WrongFormat,
)
from vecdb.storage import engine, meta, opening
from vecdb.storage.env import Env
from vecdb.storage.keys import META_KEY


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.vecdb")


# --- truncated, damaged ------------------------------------------------------------------


def test_a_truncated_file_is_corrupt_before_it_kills(path: str) -> None:
    filled(path)
    whole = Path(path).read_bytes()
    right = in_child(path)[1]
    killed = 0
    rng = random.Random(3)
    lengths = [rng.randrange(1, len(whole)) for _ in range(12)]
    lengths += [100, 4096, 8192, len(whole) // 2, len(whole) - 4096]
    for n, length in enumerate(lengths):
        Path(path).write_bytes(whole[:length])
        status, said = in_child(path, mode=("rw", "r")[n % 2])
        if said == right and length > len(whole) * 3 // 4:
            continue  # free pages alone are gone
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
    for _ in range(30):
        bad = bytearray(whole)
        at = rng.randrange(2, len(whole) // 4096) * 4096
        bad[at : at + 4096] = bytes(4096)
        Path(path).write_bytes(bad)
        status, said = in_child(path, verify="always")
        assert status == 0, said  # no signal
        found += said.startswith("Corrupt")
        harmless += said.startswith("read")
    assert found + harmless == 30 and found >= 4


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
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith((tmp_path.name, "pytest-", "popen-")):
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
