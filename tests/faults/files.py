"""What the tests of files share: small databases beneath the API, and readers that may be killed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import child
from vecdb.storage.env import LMDB_ERRORS, Env

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount or to change user")


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
