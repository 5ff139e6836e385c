"""Filters over images and tail agree with the row-by-row reference, whatever happens to rows.

A small world keeps every row's metadata in a dict and does what a collection does with it: logs
encoded changes, follows them in a tail, folds fields at random points, each to its own
watermark, cuts the log below the lowest. Snapshots taken on the way must go on answering as
they did. Thresholds are made small, so that few rows already split leaves and move
postings out.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import lmdb
import pytest
from pyroaring import BitMap

from vecdb.index import attributes, fold, leaf, tail
from vecdb.index.attributes import AttributeImage, RowChange
from vecdb.index.tail import Tail
from vecdb.query import F, Filter, from_json, parse
from vecdb.storage import codec

CID = 7
LONG = "".join(chr(0x1F600 + i % 60) for i in range(50))  # 200 bytes of UTF-8
ZONES = [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))]
MOMENT = datetime(2020, 1, 1, tzinfo=UTC)

NUMBERS = [
    0, -0.0, 0.0, 1, 1.0, -1, 2, 1.5, -1.5, 7, 2**53, 2**53 + 1, float(2**53), 2**53 + 2,
    -(2**53), -(2**53) - 1, 2**62, 2**62 + 1, float(2**62), 2**63 - 1, 2**63 - 2,
    -(2**63), -(2**63) + 1, float(2**63), -float(2**63), 1e300, -1e300, 5e-324, -5e-324,
    float("inf"), float("-inf"), 0.1, 1e18, 10**18, 10**18 + 1,
]  # fmt: skip
STRINGS = [
    "", "a", "A", "aa", "ab", "b", "\x00", "a\x00", "a\x00b", "é", "z", "\uffff", "\U0001f600",
    "\U0010ffff", "\ue000", "1", "true", "x" * 199, "x" * 200, "x" * 201, "x" * 200 + "y",
    "x" * 200 + "yy", "x" * 200 + "z", "x" * 400, LONG, LONG + "a",
    LONG + "\U0001f600", LONG + "b",
    "x" * 199 + "é", "x" * 199 + "éa", "x" * 199 + "éb", "x" * 199 + "è", "x" * 199 + "èz",
]  # fmt: skip
MOMENTS = [
    *(MOMENT.astimezone(zone) for zone in ZONES),
    MOMENT + timedelta(microseconds=1),
    MOMENT - timedelta(days=20_000),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=ZONES[1]),
    datetime(9999, 12, 31, 23, 59, tzinfo=ZONES[2]),
]
FIELDS = [
    "n",
    "s",
    "b",
    "d",
    "mix",
    "tags",
    "in.a",
    "in.b.c",
    "rare",
    "in",
    "any name",
    "absent",
]


# --- making rows and filters ---------------------------------------------------------------


def scalar(rng: random.Random) -> Any:
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(STRINGS)
    if kind == 2:
        return rng.choice([True, False])
    if kind == 3:
        return rng.choice(MOMENTS)
    if kind == 4:
        return rng.choice([None, float("nan"), float("nan")])
    if kind == 5:
        return rng.randrange(-50, 50)
    return "".join(rng.choices(string.ascii_lowercase, k=rng.randrange(1, 4)))


def metadata(rng: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if rng.random() < 0.8:
        made["n"] = rng.choice(NUMBERS) if rng.random() < 0.4 else rng.randrange(1000)
    if rng.random() < 0.8:
        made["s"] = rng.choice(STRINGS)
    if rng.random() < 0.6:
        made["b"] = rng.choice([True, False, None, 1, 0])
    if rng.random() < 0.5:
        made["d"] = rng.choice(MOMENTS)
    if rng.random() < 0.9:
        made["mix"] = scalar(rng)
    if rng.random() < 0.4:
        made["tags"] = [scalar(rng) for _ in range(rng.randrange(4))]
        if rng.random() < 0.3:
            made["tags"] = [rng.randrange(-95, 95), rng.uniform(-185, 185)]
    if rng.random() < 0.3:
        made["in"] = {"a": scalar(rng), "b": {"c": scalar(rng)} if rng.random() < 0.5 else {}}
    elif rng.random() < 0.3:
        made["in.a"] = scalar(rng)
    if rng.random() < 0.05:
        made["rare"] = scalar(rng)
    if rng.random() < 0.2:
        made["any name"] = scalar(rng)
    return codec.clean_metadata(made)


def operand(rng: random.Random, *, ordered: bool = False) -> Any:
    while True:
        value = scalar(rng) if rng.random() < 0.9 else rng.choice([2**70, -(10**400), 1e19])
        if value is not None and not (ordered and isinstance(value, bool)):
            return value


def clause(rng: random.Random) -> Filter:
    ref = F[rng.choice(FIELDS)]
    kind = rng.randrange(16)
    if kind == 0:
        return ref.exists()
    if kind == 1:
        return ref.is_null()
    if kind == 2:
        return ref.isin([operand(rng) for _ in range(rng.randrange(5))])
    if kind == 3:
        low, high = operand(rng, ordered=True), operand(rng, ordered=True)
        return ref.between(low, high)
    if kind == 4:
        pool: list[Any] = rng.choice([NUMBERS, STRINGS, MOMENTS])
        return ref.between(rng.choice(pool), rng.choice(pool))
    if kind in (11, 12):
        listed = F[rng.choice(["tags", "tags", "mix"])]
        several = [operand(rng) for _ in range(rng.randrange(4))]
        ask = rng.choice([listed.contains_any, listed.contains_all])
        return rng.choice([listed.contains(operand(rng)), ask(several)])
    if kind in (13, 14):
        text = rng.choice(STRINGS)
        if kind == 13:
            return F.s.startswith(text[: rng.randrange(210)])
        wild = rng.choice(["%", "_"])
        return F[rng.choice(["s", "mix"])].like(text[: rng.randrange(210)] + wild + text[-2:-1])
    if kind == 15:
        return F.tags.within(rng.uniform(-90, 90), rng.uniform(-180, 180), rng.uniform(0, 20_100))
    if kind in (5, 6):
        made: Filter = (ref == operand(rng)) if kind == 5 else (ref != operand(rng))
        return made
    ref = F[rng.choice(["n", "s", "d", "mix", "in.a"])]
    pool = {"n": NUMBERS, "s": STRINGS, "d": MOMENTS}.get(repr(ref)[2:], STRINGS + NUMBERS)
    value = rng.choice(pool)
    return rng.choice([ref < value, ref <= value, ref > value, ref >= value])


def expression(rng: random.Random, depth: int = 0) -> Filter:
    if depth == 3 or rng.random() < 0.4:
        return clause(rng)
    kind = rng.randrange(3)
    if kind == 0:
        return ~expression(rng, depth + 1)
    left, right = expression(rng, depth + 1), expression(rng, depth + 1)
    return left & right if kind == 1 else left | right


# --- the world -----------------------------------------------------------------------------


@dataclass
class Snapshot:
    txn: Any
    tail: Tail
    live: BitMap
    rows: dict[int, dict[str, Any]]
    names: dict[str, int]


@dataclass
class World:
    env: Any
    rng: random.Random
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    image: AttributeImage = field(default_factory=lambda: AttributeImage(CID))
    tail: Tail = field(default_factory=Tail)
    commit: int = 0
    watermarks: dict[int, int] = field(default_factory=dict)
    live_to: int = 0

    def rid(self) -> int:
        """Rids over several chunks, and some that were used before."""
        chunk = self.rng.choice([0, 1, 5, 1 << 15])
        return chunk * 65_536 + self.rng.randrange(120)

    def write(self) -> None:
        """One transaction of inserts, updates and deletes, some rows changed several times."""
        changes: list[RowChange] = []
        rows = dict(self.rows)
        for _ in range(self.rng.choice([0, 1, 1, 2, 20])):
            rid = (
                self.rng.choice(list(rows)) if rows and self.rng.random() < 0.5 else self.rid()
            )
            before = rows.get(rid)
            after = None if before and self.rng.random() < 0.4 else metadata(self.rng)
            if before and after and self.rng.random() < 0.5:
                after = {**after, **{k: before[k] for k in list(before)[:3] if "in" not in k}}
                if "in" in after:
                    after.pop("in.a", None)
            changes.append(RowChange(rid, self.state(before), self.state(after)))
            if after is None:
                rows.pop(rid)
            else:
                rows[rid] = after
        self.commit += 1
        self.rows = rows
        encoded = attributes.encode_changes(changes)
        if encoded is not None:
            stored = codec.unpack(codec.pack(encoded))
            self.tail.advance(self.commit, attributes.decode_changes(stored))

    def state(self, row: dict[str, Any] | None) -> Any:
        return None if row is None else attributes.state_of(row, self.names)

    def fold(self) -> None:
        """Bring some fields up to date; cut what all have."""
        aborted = self.rng.random() < 0.2
        with self.env.begin(write=True, buffers=True) as txn:
            for fieldid in self.names.values():
                if self.rng.random() < 0.6:
                    after = self.watermarks.get(fieldid, 0) if self.rng.random() < 0.5 else 0
                    self.image.fold_field(txn, fieldid, self.tail, after)
                    if not aborted:
                        self.watermarks[fieldid] = self.commit
            if self.rng.random() < 0.5:
                attributes.store_live(txn, CID, self.tail.live(attributes.load_live(txn, CID)))
                self.live_to = self.live_to if aborted else self.commit
            if aborted:
                txn.abort()
                return
        self.commit += 1  # a fold is a commit as well
        low = min([self.live_to, *(self.watermarks.get(i, 0) for i in self.names.values())])
        self.tail.trim(low)

    def snapshot(self) -> Snapshot:
        txn = self.env.begin(buffers=True)
        live = BitMap(self.rows)
        assert self.tail.live(attributes.load_live(txn, CID)) == live
        return Snapshot(txn, self.tail.copy(), live, self.rows, dict(self.names))

    def check(self, snap: Snapshot, where: Filter) -> None:
        found = attributes.evaluate(
            where, self.image, snap.tail, snap.txn, snap.live, snap.names, snap.rows.__getitem__
        )
        wanted = BitMap([rid for rid, row in snap.rows.items() if where.matches(row)])
        if found != wanted:
            wrong = {rid: snap.rows[rid] for rid in list(found ^ wanted)[:3]}
            raise AssertionError(f"{where!r}: differs for {wrong}; touched {snap.tail.touched}")


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Any]:
    env = lmdb.open(
        str(tmp_path / "x"), subdir=False, map_size=1 << 28, sync=False, max_readers=64
    )
    yield env
    env.close()


@pytest.fixture(params=["small", "real"])
def thresholds(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "small":
        monkeypatch.setattr(leaf, "MAX_BODY", 600)
        monkeypatch.setattr(leaf, "FILL", 350)
        monkeypatch.setattr(leaf, "INLINE", 2)
        monkeypatch.setattr(fold, "MAX_INSIDE", 30)
        monkeypatch.setattr(fold, "BACK_INSIDE", 4)
        monkeypatch.setattr(fold, "SMALL", 150)
        monkeypatch.setattr(tail, "_MERGE", 3)
    return str(request.param)


@pytest.mark.parametrize("seed", range(12))
def test_filters_agree_with_the_reference(env: Any, thresholds: str, seed: int) -> None:
    rng = random.Random(seed)
    world = World(env, rng)
    snaps: list[Snapshot] = []
    for step in range(60):
        world.write()
        if rng.random() < 0.3:
            world.fold()
        if rng.random() < 0.15 and len(snaps) < 8:
            snaps.append(world.snapshot())
        if step % 3 == 0:
            now = world.snapshot()
            for _ in range(12):
                world.check(now, expression(rng))
            now.txn.abort()
        if snaps:
            old = rng.choice(snaps)
            for _ in range(4):
                world.check(old, expression(rng))
            if rng.random() < 0.1:
                snaps.remove(old)
                old.txn.abort()
    for snap in snaps:
        for _ in range(20):
            world.check(snap, expression(rng))
        snap.txn.abort()
    with env.begin(buffers=True) as txn:
        assert list(world.image.problems(txn)) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_transaction_sees_its_pending_changes(env: Any, seed: int) -> None:
    rng = random.Random(1000 + seed)
    world = World(env, rng)
    for _ in range(15):
        world.write()
        if rng.random() < 0.4:
            world.fold()
        now = world.snapshot()
        pending = now.tail.copy()
        rows = dict(now.rows)
        names = dict(now.names)
        changes = []
        for rid in [world.rid() for _ in range(5)] + list(rows)[:5]:
            before, after = rows.pop(rid, None), metadata(rng)
            old = None if before is None else attributes.state_of(before, names)
            changes.append(RowChange(rid, old, attributes.state_of(after, names)))
            rows[rid] = after
        pending.advance(world.commit + 1, changes)
        mine = Snapshot(now.txn, pending, BitMap(rows), rows, names)
        for _ in range(10):
            where = expression(rng)
            world.check(mine, where)
            world.check(now, where)
        now.txn.abort()


def test_folding_twice_writes_nothing(env: Any, thresholds: str) -> None:
    world = World(env, random.Random(5))
    for _ in range(20):
        world.write()
    with env.begin(write=True, buffers=True) as txn:
        for fieldid in world.names.values():
            world.image.fold_field(txn, fieldid, world.tail)
    before = dump(env)
    assert before
    with env.begin(write=True, buffers=True) as txn:
        for fieldid in world.names.values():
            world.image.fold_field(txn, fieldid, world.tail)
    assert dump(env) == before


def test_deleting_every_row_leaves_no_record(env: Any, thresholds: str) -> None:
    world = World(env, random.Random(6))
    for _ in range(25):
        world.write()
        world.fold()
    for rid, row in list(world.rows.items()):
        world.commit += 1
        world.tail.advance(world.commit, [RowChange(rid, world.state(row), None)])
        del world.rows[rid]
    with env.begin(write=True, buffers=True) as txn:
        for fieldid in world.names.values():
            world.image.fold_field(txn, fieldid, world.tail)
        attributes.store_live(txn, CID, BitMap())
    assert dump(env) == {}


def test_states_come_back(env: Any) -> None:
    world = World(env, random.Random(7))
    for _ in range(10):
        world.write()
    for rid in world.tail.touched:
        state = world.state(world.rows.get(rid))
        kinds = (0x01, 0x02, 0x03)
        found = world.tail.states(rid)
        assert (found is None) == (state is None)
        if found is not None and state is not None:
            bare = {p for p in found if not (p[1][0] == 1 and p[1][1] in kinds)}
            assert bare == set(state)


@pytest.mark.parametrize("seed", range(3))
def test_expressions_survive_json_and_repr(seed: int) -> None:
    rng = random.Random(seed)
    scope = {"F": F, "datetime": datetime, "float": float}
    for _ in range(200):
        where = expression(rng)
        assert from_json(where.to_json()) == where
        assert parse(str(where)) == where
        assert hash(from_json(where.to_json())) == hash(where)
        assert eval(repr(where), scope) == where


def dump(env: Any) -> dict[bytes, bytes]:
    with env.begin() as txn:
        return dict(txn.cursor())
