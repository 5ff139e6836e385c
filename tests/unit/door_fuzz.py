"""The child of test_core: calls the core's door with random arguments, and counts what came of it.

Address space is bounded, so that absurd sizes end in MemoryError and not in a machine that swaps.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from typing import Any

import lmdb
import numpy as np

from vecdb import _core

DIM = 4
LAST = b"the last record of all"
INTEGERS = [
    0, 1, -1, 2, 3, 5, 31, 32, 33, 63, 64, 100, 511, 512, 513, 4096, 2**31 - 3, 2**31 - 2,
    2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64,
    -(2**63), -(2**63) - 1,
]  # fmt: skip
FLOATS = [0.0, -0.0, 1.5, -1.0, 0.02, 1e-40, 3e38, 1e300, float("nan"), float("inf"), -float("inf")]


def released() -> memoryview:
    view = memoryview(bytes(16))
    view.release()
    return view


class Fuzz:
    """Objects that are alive, and arguments for them."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.figures: Counter[str] = Counter()
        self.keep: list[Any] = []
        self.fresh()
        self.pages, self.last = tree_pages()

    def fresh(self) -> None:
        """A new graph, with a writer; nothing of the old one is used again."""
        r = self.r
        self.writer: Any = None
        self.dtype = r.choice(["f32", "f16", "i8", "b1"])
        self.metric = "hamming" if self.dtype == "b1" else r.choice(["l2", "cosine", "dot"])
        self.graph = _core.Graph(
            DIM, self.metric, self.dtype,
            M=r.choice([2, 4, 16]), block_rows=r.choice([1, 4, 64]),
            isa=r.choice([None, *_core.available_isas()]),
        )  # fmt: skip
        self.keep.clear()
        self.records: list[bytes] = [b""]
        self.writer = self.graph.begin()
        self.writer.insert(0, self.vectors(r.randrange(1, 80)))
        self.records.append(self.writer.changes())
        self.graph.apply(self.records[-1])
        self.writer = self.graph.begin()
        self.mutations = 0

    def vectors(self, n: int) -> bytes:
        rows = np.random.default_rng(self.r.randrange(1 << 30)).normal(size=(n, DIM))
        if self.dtype == "b1":
            return np.packbits(rows > 0, axis=1).tobytes()
        return rows.astype({"f32": "f4", "f16": "f2", "i8": "i1"}[self.dtype]).tobytes()

    # --- arguments: mostly right, else odd ---

    def odd(self) -> Any:
        r = self.r
        return r.choice([
            lambda: r.choice(INTEGERS), lambda: r.choice(FLOATS), lambda: None, lambda: "text",
            lambda: r.randbytes(r.randrange(80)), lambda: bytearray(r.randrange(40)), released,
            lambda: [1, 2], object, lambda: memoryview(bytes(32))[::2], lambda: True,
            lambda: np.zeros(r.randrange(9), r.choice(["f4", "f8", "u4", "i4", "u1", "S3", "O"])),
            lambda: np.zeros((2, DIM), "f4"), lambda: np.float32(1), lambda: np.zeros((), "u4"),
            lambda: np.zeros((3, 2 * DIM), "f4")[:, ::2], lambda: np.zeros(8, ">f4"),
        ])()  # fmt: skip

    def mixed(self, right: Callable[[], Any], share: float = 0.12) -> Any:
        return self.odd() if self.r.random() < share else right()

    def count(self) -> Any:
        return self.mixed(lambda: self.r.choice([*INTEGERS[:16], *INTEGERS] + [10] * 20))

    def signed(self) -> Any:
        return self.mixed(lambda: self.r.choice([-1, 0, 1, 20, 90, *INTEGERS]))

    def query(self) -> Any:
        r = self.r
        v = np.array([r.choice(FLOATS[:7] + FLOATS[8:]) if r.random() < 0.1 else r.uniform(-2, 2)
                      for _ in range(DIM)]).astype("f4")  # fmt: skip
        return self.mixed(lambda: v)

    def slots(self, n: int | None = None) -> Any:
        r = self.r
        n = r.randrange(6) if n is None else n
        huge = r.random() < 0.05
        pool = range(150) if not huge else [2**31 - 3, 2**31 - 2, 2**31, 2**32 - 1]
        return self.mixed(lambda: np.array([r.choice(pool) for _ in range(n)], "u4"))

    def mask(self) -> Any:
        return self.mixed(lambda: self.r.choice([None, self.r.randbytes(self.r.randrange(33))]))

    def bits(self) -> Any:
        return self.mixed(lambda: self.r.choice([0, 1, 64, 150, 1000, 2**64 - 1, 2**64 - 63]))

    def walk(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        some = {"mask": self.mask, **dict.fromkeys(["n_visible", "budget", "skip"], self.signed)}
        chosen = {name: make() for name, make in some.items() if self.r.random() < 0.4}
        return (self.query(), self.count(), self.count(), self.count()), chosen

    # --- calls ---

    def one(self) -> None:
        r = self.r
        name = r.choice([n for n in dir(self) if n.startswith("try_")])
        try:
            getattr(self, name)()
            self.figures["answered"] += 1
        except MemoryError:
            self.figures["out of memory"] += 1
            self.fresh()
        except Exception as e:
            self.figures["refused"] += 1
            self.figures[type(e).__name__] += 1
        if self.mutations > 12:
            self.fresh()

    def try_search(self) -> None:
        args, named = self.walk()
        target = self.r.choice([self.graph, self.writer])
        slots, distances, *_ = target.search(*args, **named)
        assert len(distances) == 4 * len(slots), "as many distances as slots"

    def try_search_many(self) -> None:
        args, named = self.walk()
        named.pop("skip", None)
        n = self.r.randrange(4)
        queries = self.mixed(lambda: np.zeros((n, DIM), "f4"))
        self.r.choice([self.graph, self.writer]).search_many(
            queries, *args[1:], threads=self.count(), **named
        )

    def try_scan(self) -> None:
        target = self.r.choice([self.graph, self.writer])
        target.scan(
            self.query(), self.count(), mask=self.mask(),
            slots=self.mixed(lambda: self.r.choice([None, self.slots()])),
            n_visible=self.signed(), exact=self.r.choice([True, False]),
            rr=self.count(), threads=self.count(),
        )  # fmt: skip

    def try_distances(self) -> None:
        self.graph.distances(self.query(), self.slots())

    def try_read(self) -> None:
        r = self.r
        target = r.choice([self.graph, self.writer])
        r.choice([target.vector, self.graph.has_vector, target.n_chunks])(self.count())
        target.chunk(self.mixed(lambda: r.randrange(3)), self.mixed(lambda: r.randrange(2)))

    def try_encode(self) -> None:
        self.graph.encode(self.count(), self.count(), self.count())

    def try_insert(self) -> None:
        r, n = self.r, self.r.randrange(5)
        rows = self.mixed(lambda: self.vectors(n))
        if r.random() < 0.5:
            first = self.mixed(lambda: r.choice([self.writer.n_slots, self.writer.n_slots + 3]))
            if isinstance(first, int) and first > 5000:
                first = r.choice([2**31 - 3, 2**31, 2**32 - 1])
            self.writer.insert(first, rows, self.count())
        else:
            self.writer.insert_at(self.slots(n), rows, self.count())

    def try_adopt(self) -> None:
        n = self.r.randrange(5)
        places = self.r.choice([2 * self.graph.M] * 5 + [3])
        links = np.array([self.r.choice([0, 1, n, 2**32 - 1]) for _ in range(n * places)], "u4")
        writer = self.writer
        if self.r.random() < 0.8:
            self.other = _core.Graph(DIM, self.metric, self.dtype, M=self.graph.M)
            writer = self.other.begin()
        rows = self.mixed(lambda: self.vectors(n))
        writer.adopt(rows, self.mixed(lambda: links.reshape(n, places)), self.count())
        assert not writer.changes() == b""

    def try_extend(self) -> None:
        n = self.mixed(lambda: self.writer.n_slots + self.r.randrange(40))
        if isinstance(n, int) and n > 5000:
            n = self.r.choice([2**31 - 3, 2**31, 2**32 - 1])
        self.writer.extend_to(n)

    def try_commit(self) -> None:
        r = self.r
        if r.random() < 0.6:
            self.records.append(self.writer.changes())
            self.graph.apply(self.records[-1])
        self.writer.rollback()
        self.writer = None
        self.writer = self.graph.begin()
        self.mutations += 1

    def try_apply(self) -> None:
        record = bytearray(self.r.choice(self.records))
        for _ in range(self.r.randrange(3)):
            if record:
                record[self.r.randrange(len(record))] = self.r.randrange(256)
        self.mutations += 1
        self.graph.apply(self.mixed(lambda: record))

    def try_put(self) -> None:
        n = self.r.randrange(4)
        self.mutations += 1
        self.graph.put_vectors(self.slots(n), self.mixed(lambda: self.vectors(n)))

    def try_attach(self) -> None:
        rows = self.mixed(lambda: self.vectors(80))
        self.keep.append(rows)
        held = np.frombuffer(rows, "u1") if isinstance(rows, bytes) else rows
        self.keep.append(held)
        block = self.mixed(lambda: self.r.choice([0, 1, 2, 2**31, 2**32 - 1]))
        if isinstance(block, int) and 5000 < block < 2**31:
            block = 7
        self.mutations += 1
        count = (self.graph.block_rows + 7) // 8
        self.graph.attach_block(
            block, held, self.mixed(lambda: self.r.choice([0, 1, 8])),
            self.mixed(lambda: self.r.choice([None, self.r.randbytes(count)])),
        )  # fmt: skip

    def try_detach(self) -> None:
        if self.r.random() < 0.1:
            self.graph.detach_all()

    def try_load(self) -> None:
        r = self.r
        chunk = np.frombuffer(self.graph.chunk(0, 0), "u4").copy()
        for _ in range(r.randrange(4)):
            link = r.choice([r.randrange(200), 2**32 - 1, 2**32 - 2, 2**31])
            chunk[r.randrange(len(chunk))] = link
        self.mutations += 1
        index = self.mixed(lambda: r.choice([0, 0, 0, 1, 2**22]))
        if isinstance(index, int) and 10 < index < 2**22:
            index = 3
        self.graph.load_chunk(self.mixed(lambda: r.randrange(3)), index, self.mixed(lambda: chunk))

    def try_state(self) -> None:
        n = self.mixed(lambda: self.graph.n_slots + self.r.randrange(3))
        if isinstance(n, int) and n > 5000:
            n = self.r.choice([2**31 - 2, 2**31 - 1, 2**63])
        self.mutations += 1
        self.graph.set_state(n, self.r.choice([*FLOATS, "x"]), self.r.choice([*FLOATS, None]))

    def try_audit(self) -> None:
        self.graph.check(), self.graph.unreachable(), self.graph.private_blocks(), self.graph.scale

    def try_graph(self) -> None:
        made = _core.Graph(
            self.mixed(lambda: self.r.choice([1, 4, 65535])), self.mixed(lambda: "l2"),
            self.mixed(lambda: "f32"), self.count(), self.count(), self.mixed(lambda: 64),
            self.mixed(lambda: None),
        )  # fmt: skip
        made.begin().changes()

    def try_masks(self) -> None:
        slots, bits = self.slots(), self.bits()
        mask = self.mixed(lambda: self.r.randbytes(self.r.randrange(40)))
        which = self.r.randrange(4)
        if which == 0:
            made = _core.mask_of(slots, bits)
            assert _core.mask_count(made) == len(set(slots.tolist())), "a bit for each slot"
        elif which == 1:
            _core.mask_update(mask, bits, slots, self.slots())
        elif which == 2:
            _core.mask_count(mask)
        else:
            listed = np.frombuffer(_core.mask_to_slots(mask, bits), "u4")
            assert len(listed) <= 8 * len(mask), "no more slots than bits"

    def try_frames(self) -> None:
        r = self.r
        key = self.mixed(lambda: r.randbytes(r.randrange(10)))
        kind = self.mixed(lambda: r.choice([0, 1, 0x30, 255]))
        sealed = _core.seal(kind, key, self.mixed(lambda: r.randbytes(r.randrange(60))))
        record = bytearray(sealed)
        damaged = r.random() < 0.5
        if damaged:
            record[r.randrange(len(record))] ^= 1 << r.randrange(8)
        try:
            _core.unseal(kind, key, record)
        except ValueError:
            assert damaged, "a sound record is refused"
            raise
        assert not damaged, "damage is not seen"

    def try_rows(self) -> None:
        r = self.r
        table: dict[bytes, Any] = {}
        for rid in range(4):
            key = b"\x30" + (1).to_bytes(4, "big") + rid.to_bytes(4, "big")
            table[key] = _core.seal(0x30, key, self.mixed(lambda: r.randbytes(r.randrange(60)), 0))
            if r.random() < 0.2:
                table[key] = self.odd()
        get = self.mixed(lambda: table.get)
        rids = self.mixed(lambda: [self.mixed(lambda: r.randrange(4)) for _ in range(3)])
        _core.read_rows(get, self.mixed(lambda: 1), rids)

    def try_tree(self) -> None:
        self.use(self.tree())

    def tree(self) -> _core.Tree:
        pages = self.pages.copy()
        self.keep_pages = pages
        first, size = self.last
        last = self.mixed(lambda: pages[first : first + size], 0.05)
        tree = _core.Tree(pages.ctypes.data, 4096, pages.nbytes, last)
        for _ in range(self.r.choice([0, 0, 1, 20])):  # damage comes after: the tree is in use
            page = self.r.randrange(len(pages) // 4096)
            pages[page * 4096 + self.r.randrange(self.r.choice([64, 4096]))] = self.r.randrange(256)
        return tree

    def use(self, tree: _core.Tree) -> None:
        for _ in range(20):
            tree.get(self.mixed(lambda: self.r.randrange(400).to_bytes(4, "big"), 0.02))
        tree.rows(self.count(), self.slots())

    def try_prepared(self) -> None:
        r = self.r
        tree = self.tree() if r.random() < 0.95 else _core.Tree.__new__(_core.Tree)
        meta = b"meta"
        txn = Transaction(self.mixed(lambda: r.choice([meta, b"", None])))
        env = Environment(self.mixed(lambda: lambda *a: txn))
        ready = _core.Prepared(
            self.graph, tree, env, env.begin, b"key", meta, self.mixed(lambda: 1),
            self.mixed(lambda: lambda *a: a), None, self.count(), self.mixed(lambda: 0),
            self.count(), self.count(), self.mask(), self.signed(), self.signed(),
            r.choice([True, False]),
            self.mixed(lambda: r.choice([None, self.slots()])), True, r.choice([True, False]),
            self.mixed(lambda: r.choice([0, 0, 1, 2**31 - 2])),
            self.mixed(lambda: r.choice(FLOATS), 0.05),
        )  # fmt: skip
        if r.random() < 0.1:
            env.begin = self.odd()
        for _ in range(4):
            ready.answer(self.query())
        assert ready.held_bytes >= 0

    def try_lookup(self) -> None:
        r = self.r
        env = Environment(self.mixed(lambda: lambda *a: None))
        lookup = _core.Lookup(
            self.graph, self.mixed(self.tree), env, env.begin, self.mixed(lambda: r.choice([LAST, b""])),
            self.mixed(lambda: 1), self.mixed(lambda: lambda *a: a), None, "f4",
        )  # fmt: skip
        if r.random() < 0.1:
            lookup = _core.Lookup.__new__(_core.Lookup)
        for _ in range(4):
            lookup.get(self.mixed(lambda: r.choice([1, -1, 2**63, "a", "\ud800", "x" * 480, "x" * 481])))
            lookup.ids(self.slots())
            lookup.by_key(self.mixed(lambda: r.randrange(400).to_bytes(4, "big"), 0.02))
            lookup.rows(self.mixed(lambda: [self.mixed(lambda: r.randrange(400), 0.02)]), r.random() < 0.5)

    def try_ids(self) -> None:
        r = self.r
        key = b"\x20\0\0\0\1" + r.randbytes(r.randrange(4))
        record = self.mixed(lambda: _core.seal(0x20, key, bytes(r.choice([4, 4, 4, 0, 5]))))
        entries = self.mixed(lambda: [self.mixed(lambda: (self.mixed(lambda: key), record))] * 3)
        chosen = self.mixed(lambda: r.choice([None, {0}, set()]))
        _core.read_ids(entries, self.mixed(lambda: key[:5]), chosen, self.mixed(lambda: 2))

    def try_threads(self) -> None:
        _core.set_threads(self.mixed(lambda: self.r.choice([0, 1, 2, 3])))
        _core.set_threads(2)
        _core.crc32c(self.odd(), self.odd())


class Transaction:
    """What `Prepared` uses of a transaction."""

    def __init__(self, record: Any) -> None:
        self.record = record

    def get(self, key: bytes) -> Any:
        return self.record

    def abort(self) -> None:
        pass


class Environment:
    def __init__(self, begin: Any) -> None:
        self.begin = begin


def tree_pages() -> tuple[np.ndarray, tuple[int, int]]:
    """A storage file's pages, and the place and size of its tree's last record."""
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/file"
        with lmdb.open(path, subdir=False, map_size=1 << 22) as env:
            with env.begin(write=True) as txn:
                for i in range(300):
                    size = 9000 if i % 50 == 0 else i * 7 % 300
                    txn.put(i.to_bytes(4, "big"), b"x" * size)
                txn.put(b"\xff" * 9, LAST)
        pages = np.fromfile(path, "u1")
    return pages[: len(pages) // 4096 * 4096], (pages.tobytes().rindex(LAST), len(LAST))


def main() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    seed, calls = int(sys.argv[1]), int(sys.argv[2])
    fuzz = Fuzz(seed)
    for i in range(calls):
        if len(sys.argv) > 3:
            print(i, file=sys.stderr)
        fuzz.one()
    if "AssertionError" in fuzz.figures:
        sys.exit("a wrong answer")
    print(json.dumps(fuzz.figures))
