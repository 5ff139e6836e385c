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
from vecdb.adapting.adapter import Adapter
from vecdb.index.effort import MIN_ROWS
from vecdb.storage import codec, keys

DIM = 64
BLOCK = 512  # rows of a block of vectors of that dimension, and of a chunk of links
ROWS = 1300  # two blocks and 276 inline vectors, three chunks of links
SMALL = 540  # one block and 28 inline vectors, two chunks of links
HALF_DIM = 16
SEVERAL_DIM = 1000  # blocks of 32 rows


def build(path: Path | str, rows: int = ROWS) -> None:
    """Write the file: images and unfolded logs, dead rows, every kind of record.

    "rows" (number 1) was folded at so many rows and has changed since: 24 slots and their links are
    in the log only. "halves" (2) was never folded; "one" (3) has one row, "empty" (4) none; "said"
    (6) has texts, whose embeddings are cached; "words" (7) has full text, a segment and a tail; "moved" (8) has
    vectors that went through an adapter. A file of SMALL rows lacks the measured effort alone.
    """
    rng = np.random.default_rng(5)
    with vecdb.open(path, durability="none", upkeep=False) as db:
        c = db.create_collection("rows", dim=DIM, metric="l2")
        halves = db.create_collection("halves", dim=HALF_DIM, dtype="f16")
        db.create_collection("one", dim=3).add("only", [1, 2, 3], metadata={"x": 1}, texts="one")
        db.create_collection("empty", dim=3)
        vectors, last = whole(rng, rows + 24, DIM), rows - 1
        c.add([*range(rows)], vectors[:rows], metadata=[metadata(i) for i in range(rows)])
        c.delete([3, 400, last])
        c.optimize()
        c.add([*range(rows, rows + 20)], vectors[rows:-4],
              metadata=[metadata(i) for i in range(rows, rows + 20)])  # fmt: skip
        c.upsert([5, 500, last - 9, rows + 1], vectors[-4:], metadata=[{"n": -i} for i in range(4)])
        c.delete([9, last - 1, rows])
        c.update([1, 300, last - 2], metadata=[{"n": 7, "late": 1}, {"tag": None}, {"tag": "a"}])
        c.add(["plain", "also plain"], metadata=[{"n": 1}, {"tag": "b"}], texts=["x", ""])
        for first in range(0, 60, 20):
            ids = [f"half-{i}" for i in range(first, first + 20)]
            shares = [{"share": i / 60} for i in range(20)]
            halves.add(ids, whole(rng, 20, HALF_DIM), metadata=shares)
        halves.delete("half-3")
        build_several(db, rng)
        said = db.create_collection("said", encoder="hashing:16")
        said.add(["first", "second", "third"], texts=["one", "two", None])
        build_words(db)
        build_moved(db, rng)
        build_kept(db, said)
    with read(path) as txn:
        kinds = {bytes(key)[0] for key, _ in txn.cursor()}
    missing = {keys.KIND_NAMES[kind] for kind in keys.KIND_NAMES.keys() - kinds}
    assert missing == ({"effort"} if rows < MIN_ROWS else set()), missing


def build_several(db: vecdb.Database, rng: Any) -> None:
    """A collection of several vector fields: blocks with holes, inline vectors, records of many."""
    wide, many = vecdb.Vector(SEVERAL_DIM, metric="l2"), vecdb.Vector(2, metric="dot", multi=True)
    c = db.create_collection("several", vectors={"wide": wide, "tokens": many})
    for first in range(0, 90, 30):
        ids = range(first, first + 30)
        given = {
            "wide": [None if i % 4 == 1 else whole(rng, 1, SEVERAL_DIM)[0] for i in ids],
            "tokens": [whole(rng, i % 3, 2) for i in ids],
        }
        c.add(ids, given, metadata=[{"n": i % 7} for i in ids])
    c.add_vector("late", vecdb.Vector(8, dtype="f16", metric="l2"))
    c.update(range(0, 90, 2), vectors={"late": whole(rng, 45, 8)})
    c.delete([4, 7])


def build_words(db: vecdb.Database) -> None:
    """A collection with full text of two fields: a segment on disk, and what came after it."""
    texts = {"text": vecdb.FullText(), "title": vecdb.FullText()}
    c = db.create_collection("words", dim=2, fulltext=texts)
    c.add(range(WORDS), metadata=[titled(i) for i in range(WORDS)], texts=[worded(i) for i in range(WORDS)])
    c.optimize()
    c.upsert(range(5), metadata=[titled(i + 1) for i in range(5)], texts=[worded(i + 1) for i in range(5)])
    c.delete([7, 8])
    c.add(["late"], texts=["the last kernel of all"])


def build_moved(db: vecdb.Database, rng: Any) -> None:
    """A collection whose vectors go through an adapter, with those before: blocks, inline vectors, a map."""
    c = db.create_collection("moved", dim=SEVERAL_DIM, metric="l2")
    c.add(range(MOVED), whole(rng, MOVED, SEVERAL_DIM), metadata=[{"n": i} for i in range(MOVED)])
    c.apply_adapter(turning(), force=True)
    c.delete([2, 35])
    c.upsert([3, 41], whole(rng, 2, SEVERAL_DIM), metadata=[{"n": 3}, {"n": 41}])


def turning() -> Adapter:
    """The map of "moved": whole numbers again."""
    one = np.zeros((SEVERAL_DIM, 1))
    one[:3, 0] = 1
    return Adapter(None, low_rank=(one, -one.T), metric="l2")


MOVED = 40  # a block and eight inline vectors in each of two fields
WORDS = 60


def worded(i: int) -> str:
    """A row's text in "words"."""
    return f"row {i} runs kernels{' on a fast gpu' * (i % 3)} word{i % 11}"


def titled(i: int) -> dict[str, Any]:
    """And its title, a list now and then."""
    return {"title": ["The first", f"title {i}"] if i % 5 == 0 else f"Title {i}", "n": i}


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


def build_kept(db: vecdb.Database, said: vecdb.Collection) -> None:
    """A saved search with a watcher, and a log with a choice."""
    db.searches.save("kept", said, "one", 2).watch("app")
    said.add("fourth", texts="one")
    db.search_log.start(said)
    hits = said.search("two", 2)
    said.feedback(hits, hits.ids[0])


@contextlib.contextmanager
def read(path: Path | str) -> Iterator[Any]:
    """A read transaction on a file that nobody has open."""
    with _transaction(path, write=False) as txn:
        yield txn


@contextlib.contextmanager
def write(path: Path | str) -> Iterator[Any]:
    """A write transaction on a file that nobody has open; the file is this one still.

    It ends as every commit of vecdb's does, with the meta record written: reading straight from the
    map knows a tree by the place of that record, and would go on reading the tree before.
    """
    with _transaction(path, write=True) as txn:
        yield txn
        record = txn.get(keys.META_KEY)
        if record is not None:
            txn.put(keys.META_KEY, bytes(record))


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
