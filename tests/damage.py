"""A file with everything in it, and ways to damage what it holds: for tests of `check` and errors.

Damage goes in beneath vecdb, through LMDB itself. `put` seals a record with a right checksum over
wrong content: what a bug would write, and what no checksum can find.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

import vecdb
from vecdb import _core
from vecdb.storage import codec, keys

DIM = 64
BLOCK = 512  # rows of a block of vectors of that dimension, and of a chunk of links
ROWS = 1300  # two blocks and 276 inline vectors, three chunks of links
HALF_DIM = 16
EVERY_KIND = frozenset(keys.KIND_NAMES)


def build(path: Path | str) -> None:
    """Write the file: images and unfolded logs, dead rows, every kind of record.

    "rows" (number 1) was folded at 1,300 rows and changed since, in 24 slots and without new links
    in its image; "halves" (2) was never folded; "one" (3) has one row, "empty" (4) none.
    """
    rng = np.random.default_rng(5)
    with vecdb.open(path, durability="none", upkeep=False) as db:
        rows = db.create_collection("rows", dim=DIM, metric="l2")
        halves = db.create_collection("halves", dim=HALF_DIM, dtype="f16")
        db.create_collection("one", dim=3).add("only", [1, 2, 3], metadata={"x": 1}, texts="one")
        db.create_collection("empty", dim=3)
        vectors = whole(rng, ROWS + 24, DIM)
        rows.add([*range(ROWS)], vectors[:ROWS], metadata=[metadata(i) for i in range(ROWS)])
        rows.delete([3, 700, 1299])
        rows.optimize()
        rows.add([*range(ROWS, ROWS + 20)], vectors[ROWS:-4],
                 metadata=[metadata(i) for i in range(ROWS, ROWS + 20)])  # fmt: skip
        rows.upsert([5, 1000, 1290, 1301], vectors[-4:], metadata=[{"n": -i} for i in range(4)])
        rows.delete([9, 1298, 1300])
        rows.update([1, 600, 1297], metadata=[{"n": 7, "late": 1}, {"tag": None}, {"tag": "a"}])
        rows.add(["plain", "also plain"], metadata=[{"n": 1}, {"tag": "b"}], texts=["x", ""])
        for first in range(0, 60, 20):
            ids = [f"half-{i}" for i in range(first, first + 20)]
            shares = [{"share": i / 60} for i in range(20)]
            halves.add(ids, whole(rng, 20, HALF_DIM), metadata=shares)
        halves.delete("half-3")
    with read(path) as txn:
        kinds = {bytes(key)[0] for key, _ in txn.cursor()}
    assert kinds == EVERY_KIND, f"no record of kinds {EVERY_KIND - kinds}"


def whole(rng: Any, n: int, dim: int) -> Any:
    """Vectors of whole numbers: distances come out the same however they are computed."""
    return rng.integers(-40, 41, (n, dim)).astype(np.float32)


def metadata(i: int) -> dict[str, Any]:
    """A row's metadata: a value for each kind of posting, long ones too."""
    return {
        "n": i,
        "even": i % 2 == 0,
        "tag": "abc"[i % 3],
        "list": [i % 5, "x"],
        "when": datetime(2020, 1, 1 + i % 28, tzinfo=UTC),
        "in": {"deep": i / 7},
    }


# --- beneath vecdb -------------------------------------------------------------------------------


@contextlib.contextmanager
def read(path: Path | str) -> Iterator[Any]:
    """A read transaction on a file that nobody has open."""
    with _transaction(path, write=False) as txn:
        yield txn


@contextlib.contextmanager
def write(path: Path | str) -> Iterator[Any]:
    """A write transaction on a file that nobody has open; the file is this one still."""
    with _transaction(path, write=True) as txn:
        yield txn


@contextlib.contextmanager
def _transaction(path: Path | str, *, write: bool) -> Iterator[Any]:
    env = lmdb.open(str(path), subdir=False, map_size=1 << 28, lib_version=0, sync=False)
    try:
        with env.begin(write=write) as txn:
            yield txn
    finally:
        env.close()


def payload(txn: Any, key: bytes) -> bytes:
    """What a record says."""
    return bytes(_core.unseal(key[0], key, txn.get(key)))


def put(txn: Any, key: bytes, content: bytes) -> None:
    """Write a record whose frame and checksum are right, whatever it says."""
    txn.put(key, _core.seal(key[0], key, content))


def change(txn: Any, key: bytes, how: Callable[[Any], Any]) -> None:
    """Replace what a msgpack record says."""
    put(txn, key, codec.pack(how(codec.unpack(payload(txn, key)))))


def patch(txn: Any, key: bytes, layout: str, offset: int, *values: Any) -> None:
    """Overwrite numbers inside a record."""
    content = bytearray(payload(txn, key))
    struct.pack_into(layout, content, offset, *values)
    put(txn, key, bytes(content))


def keys_of(txn: Any, prefix: bytes) -> list[bytes]:
    """The keys that begin with a prefix, in order."""
    cursor = txn.cursor()
    if not cursor.set_range(prefix):
        return []
    found = []
    for key in cursor.iternext(values=False):
        if not bytes(key).startswith(prefix):
            break
        found.append(bytes(key))
    return found
