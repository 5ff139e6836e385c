"""The compiled core's door refuses what it is not made for, with an error, and never crashes.

Directed cases name what each call refuses. Behind them a child process calls everything with
arguments drawn at random, among them the odd ones: it must end of its own accord, with sound bit
sets and an answer or an exception for each call. Its control is a child that reads address 0.

Two arguments are taken on trust and stay valid here: `Tree`'s base, which is an address, and the
memory that `attach_block` serves from. Figures and seed are printed with `-s`; VECDB_FUZZ_SEED
repeats a run's choices.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable

import numpy as np
import pytest

from tests import child
from vecdb import _core

NONE = np.zeros(0, np.uint32)


def filled(n: int = 50) -> _core.Graph:
    graph = _core.Graph(4, "l2", M=4)
    with_rows = graph.begin()
    with_rows.insert(0, np.random.default_rng(1).random((n, 4), np.float32))
    graph.apply(with_rows.changes())
    return graph


def u32(*slots: int) -> np.ndarray:
    return np.array(slots, np.uint32)


def empty() -> _core.Writer:
    return _core.Graph(4, "l2", M=4).begin()


def links(n: int, places: int) -> np.ndarray:
    return np.zeros((n, places), np.uint32)


Q = np.zeros(4, np.float32)
REFUSED: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("dim 0", lambda: _core.Graph(0, "l2"), ValueError, "dim=0"),
    ("dim 65,536", lambda: _core.Graph(65536, "l2"), ValueError, "65,535"),
    ("dim beyond int", lambda: _core.Graph(1 << 40, "l2"), OverflowError, ""),
    ("M 1", lambda: _core.Graph(4, "l2", M=1), ValueError, "M=1"),
    ("M 257", lambda: _core.Graph(4, "l2", M=257), ValueError, "256"),
    ("ef_construction 0", lambda: _core.Graph(4, "l2", ef_construction=0), ValueError, "ef_con"),
    ("block_rows 3", lambda: _core.Graph(4, "l2", block_rows=3), ValueError, "power of two"),
    ("metric", lambda: _core.Graph(4, "manhattan"), KeyError, "manhattan"),
    ("hamming f32", lambda: _core.Graph(4, "hamming"), ValueError, "'b1'"),
    ("l2 b1", lambda: _core.Graph(4, "l2", "b1"), ValueError, "'hamming'"),
    ("dtype", lambda: _core.Graph(4, "l2", "f64"), KeyError, "f64"),
    ("isa", lambda: _core.Graph(4, "l2", isa="abacus"), ValueError, "abacus"),
    ("query of 3", lambda: filled().search(Q[:3], 1, 1, 1), ValueError, "3 numbers, not 4"),
    ("query of float64", lambda: filled().search(np.zeros(4), 1, 1, 1), ValueError, "mismatch"),
    ("query of bytes", lambda: filled().search(bytes(16), 1, 1, 1), ValueError, "mismatch"),
    ("query None", lambda: filled().search(None, 1, 1, 1), TypeError, "query"),
    ("strided query", lambda: filled().search(np.zeros(8, "f4")[::2], 1, 1, 1), ValueError, ""),
    ("k -1", lambda: filled().search(Q, -1, 1, 1), ValueError, "k=-1"),
    ("k 2**31", lambda: filled().search(Q, 1 << 31, 1, 1), ValueError, "out of range"),
    ("k NaN", lambda: filled().search(Q, float("nan"), 1, 1), ValueError, "k=nan"),
    ("ef text", lambda: filled().search(Q, 1, "9", 1), TypeError, ""),
    ("budget -1", lambda: filled().search(Q, 1, 1, 1, budget=-1), OverflowError, ""),
    ("n_visible 2**63", lambda: filled().search(Q, 1, 1, 1, n_visible=1 << 63), OverflowError, ""),
    ("mask bytearray", lambda: filled().search(Q, 1, 1, 1, mask=bytearray(8)), TypeError, "bytes"),
    ("queries of 3", lambda: filled().search_many(np.zeros((2, 3), "f4"), 1, 1, 1), ValueError, ""),
    ("queries 1-d", lambda: filled().search_many(Q, 1, 1, 1), ValueError, "dimensions"),
    ("scan int64", lambda: filled().scan(Q, 1, slots=np.zeros(2, "i8")), ValueError, "mismatch"),
    ("rows of 15 bytes", lambda: filled().begin().insert(50, bytes(15)), ValueError, "15 bytes"),
    ("a slot in use", lambda: filled().begin().insert(3, bytes(16)), ValueError, "in use"),
    ("3 links a row", lambda: empty().adopt(bytes(16), links(1, 3)), ValueError, "2 * M = 8"),
    ("a link too far", lambda: empty().adopt(bytes(32), links(2, 8) + 2), ValueError, "row 0"),
    ("1 vector for 2", lambda: empty().adopt(bytes(16), links(2, 8)), ValueError, "16 bytes"),
    ("over rows", lambda: filled().begin().adopt(bytes(16), links(1, 8)), ValueError, "already"),
    ("int64 links", lambda: empty().adopt(bytes(16), np.zeros((1, 8), "i8")), ValueError, "match"),
    ("links of None", lambda: empty().adopt(bytes(16), None), TypeError, "links"),
    ("-1 slots", lambda: filled().begin().extend_to(-1), ValueError, "n_slots=-1"),
    ("2**31 slots", lambda: filled().begin().extend_to(2**31), ValueError, "out of range"),
    ("slots of None", lambda: filled().begin().insert_at(None, b""), TypeError, "slots"),
    ("one twice", lambda: filled().begin().insert_at(u32(99, 99), bytes(32)), ValueError, "twice"),
    ("a slot of 32 bits", lambda: filled().put_vectors(u32(2**32 - 1), bytes(16)), ValueError, ""),
    ("vectors of None", lambda: filled().put_vectors(None, b""), TypeError, "slots"),
    ("2 vectors for 1", lambda: filled().put_vectors(u32(1), bytes(32)), ValueError, "32 bytes"),
    ("no such vector", lambda: filled().vector(50), KeyError, "50"),
    ("a short block", lambda: filled().attach_block(0, bytes(1023), 0), ValueError, "1024 needed"),
    ("offset -1", lambda: filled().attach_block(0, bytes(1024), -1), ValueError, ""),
    ("too few bits", lambda: filled().attach_block(0, bytes(1024), 0, b"1"), ValueError, "8 needed"),
    ("bits of None", lambda: filled().attach_block(0, bytes(1024), 0, "bits"), TypeError, "bytes"),
    ("block 2**32 - 1", lambda: filled().attach_block(2**32 - 1, bytes(1024), 0), ValueError, ""),
    ("layer 2", lambda: filled().load_chunk(2, 0, bytes(32)), ValueError, ""),
    ("half a row", lambda: filled().load_chunk(0, 0, bytes(31)), ValueError, "whole rows"),
    ("no such chunk", lambda: filled().chunk(0, 1), ValueError, "no such chunk"),
    ("a chunk of layer 2", lambda: filled().chunk(2, 0), ValueError, "no such chunk"),
    ("a writer's of layer 2", lambda: filled().begin().chunk(2, 0), ValueError, "no such chunk"),
    ("fewer slots", lambda: filled().set_state(49, 0, 1), ValueError, "shrink"),
    ("scale NaN", lambda: filled().set_state(50, float("nan"), 1), ValueError, "scale"),
    ("step infinite", lambda: filled().set_state(50, 0, float("inf")), ValueError, "scale"),
    ("an empty record", lambda: filled().apply(b""), ValueError, "redo record"),
    ("a record of text", lambda: filled().apply("text"), TypeError, "bytes-like"),
    ("mask of None", lambda: _core.mask_of(None, 9), TypeError, "slots"),
    ("slot 9 of 9", lambda: _core.mask_of(u32(9), 9), ValueError, "slot 9"),
    ("2**64 - 1 bits", lambda: _core.mask_of(u32(1 << 30), 2**64 - 1), ValueError, "n_bits"),
    ("-1 bits", lambda: _core.mask_of(u32(), -1), OverflowError, ""),
    ("update of None", lambda: _core.mask_update(None, 9, NONE, NONE), TypeError, "mask"),
    ("clear slot 64", lambda: _core.mask_update(b"", 64, NONE, u32(64)), ValueError, "slot 64"),
    ("count of None", lambda: _core.mask_count(None), TypeError, "mask"),
    ("slots of no mask", lambda: _core.mask_to_slots(None, 1), TypeError, "mask"),
    ("seal by None", lambda: _core.seal(1, None, b""), TypeError, "key"),
    ("seal text", lambda: _core.seal(1, b"", "text"), TypeError, "bytes-like"),
    ("kind 256", lambda: _core.seal(256, b"", b""), ValueError, "kind=256"),
    ("unseal by None", lambda: _core.unseal(1, None, b""), TypeError, "key"),
    ("unseal 11 bytes", lambda: _core.unseal(1, b"", bytes(11)), ValueError, "too few"),
    ("rows of None", lambda: _core.read_rows({}.get, 1, None), TypeError, "rids"),
    ("a row that is not there", lambda: _core.read_rows({}.get, 1, [1]), ValueError, "missing"),
    ("ids of None", lambda: _core.read_ids([], None, None, 1), TypeError, "prefix"),
    ("half an id entry", lambda: _core.read_ids([(b"ab", b"")], b"a", None, 1), ValueError, "too few"),
    ("a lookup not made", lambda: _core.Lookup.__new__(_core.Lookup).rows([1], True), ValueError, "made"),
    ("a writer of nothing", lambda: _core.Writer(None), TypeError, "graph"),
    ("a key of None", lambda: _core.Tree.__new__(_core.Tree).get(None), TypeError, "key"),
]


@pytest.mark.parametrize(
    "call, error, words", [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_what_the_door_refuses_is_an_error_that_says_why(
    call: Callable[[], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_a_refused_call_leaves_the_graph_as_it_was() -> None:
    graph = filled()
    before = [graph.chunk(layer, 0) for layer in (0, 1)], graph.scale, graph.n_slots
    writer = graph.begin()
    for vectors in (bytes(15), bytes(17), "text", None):
        with pytest.raises((ValueError, TypeError)):
            writer.insert(50, vectors)
    with pytest.raises(ValueError):
        graph.set_state(60, float("nan"), 1)
    assert before == ([graph.chunk(layer, 0) for layer in (0, 1)], graph.scale, graph.n_slots)
    assert not graph.check() and not graph.unreachable()


def test_one_writer_at_a_time_and_none_after_its_end() -> None:
    graph = filled()
    writer = graph.begin()
    with pytest.raises(ValueError, match="another writer"):
        graph.begin()
    writer.rollback()
    uses = (writer.changes, lambda: writer.insert(50, bytes(16)), lambda: writer.search(Q, 1, 1, 1))
    for use in uses:
        with pytest.raises(ValueError, match="ended"):
            use()
    graph.begin()


def test_holes_are_never_found_and_are_there_after_a_commit_without_a_vector() -> None:
    rows = np.random.default_rng(4).random((5, 4), np.float32)
    graph, follower = _core.Graph(4, "l2", M=4), _core.Graph(4, "l2", M=4)
    for slots in ([], [70, 71, 99], [3, 150]):
        writer = graph.begin()
        writer.insert_at(u32(*slots), rows[: len(slots)])
        writer.extend_to(max(slots, default=9) + 50)
        follower.put_vectors(u32(*slots), rows[: len(slots)])
        record = writer.changes()
        graph.apply(record), follower.apply(record)
    assert graph.n_slots == follower.n_slots == 200
    assert not graph.check() and not graph.unreachable()
    for one in (graph, follower):
        assert sorted(one.search(Q, 200, 200, 200)[0]) == [3, 70, 71, 99, 150]
        assert sorted(one.scan(Q, 200)[0]) == [3, 70, 71, 99, 150]
        far = np.frombuffer(one.distances(Q, u32(0, 3, 199, 5000)), np.float32)
        assert np.isnan(far).tolist() == [True, False, True, True]
    block = np.zeros((64, 4), np.float32)
    follower.attach_block(2, block, 0, (1 << 5 | 1 << 63).to_bytes(8, "little"))
    assert [s for s in range(128, 192) if follower.has_vector(s)] == [133, 191]


def test_links_made_elsewhere_can_be_read_out_as_they_were_taken_over() -> None:
    rng = np.random.default_rng(5)
    rows = rng.random((600, 4), np.float32)
    given = rng.integers(0, 600, (600, 8)).astype(np.uint32)
    given[rng.random((600, 8)) < 0.3] = 0xFFFFFFFF
    graph = _core.Graph(4, "l2", M=4)
    writer = graph.begin()
    writer.adopt(rows, given, 2)
    graph.apply(writer.changes())
    assert not graph.check() and not graph.unreachable() and graph.n_slots == 600
    out = [np.frombuffer(graph.chunk(0, i), np.uint32) for i in range(graph.n_chunks(0))]
    held = np.concatenate(out).reshape(600, 8)
    for slot in range(600):
        now = {int(e) & 0x7FFFFFFF for e in held[slot] if e < 0xFFFFFFFE}
        before = {int(e) for e in given[slot] if e != 0xFFFFFFFF} - {slot}
        assert before <= now or len(now) == 8, "only a full row gives one up"


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 63, 64, 1000, 5000])
def test_a_sealed_record_opens_and_any_changed_byte_or_length_is_seen(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    sealed = _core.seal(0x41, b"key", payload)
    assert bytes(_core.unseal(0x41, b"key", sealed)) == payload
    others = [(0x42, b"key", sealed), (0x41, b"kez", sealed), (0x41, b"", sealed)]
    others += [(0x41, b"key", sealed + b"\0"), (0x41, b"key", sealed[:-1])]
    for kind, key, record in others:
        with pytest.raises(ValueError):
            _core.unseal(kind, key, record)
    places = range(len(sealed)) if size < 100 else random.Random(1).sample(range(len(sealed)), 100)
    for place in places:
        bad = bytearray(sealed)
        bad[place] ^= 1 << place % 8
        with pytest.raises(ValueError):
            _core.unseal(0x41, b"key", bad)


def test_bit_sets_agree_with_sets_of_numbers() -> None:
    r = random.Random(3)
    for n_bits in (0, 1, 7, 8, 63, 64, 65, 127, 128, 1000):
        some, more, less = ({s for s in range(n_bits) if r.random() < 0.3} for _ in range(3))
        mask = _core.mask_of(u32(*some), n_bits)
        assert len(mask) == (n_bits + 63) // 64 * 8 and _core.mask_count(mask) == len(some)
        for longer in (n_bits, n_bits + 100):
            new = _core.mask_update(mask, longer, u32(*more), u32(*less))
            listed = np.frombuffer(_core.mask_to_slots(new, longer), np.uint32)
            assert listed.tolist() == sorted((some | more) - less)
            assert _core.mask_count(new) == len(listed)


def fuzz(calls: int) -> dict[str, int]:
    seed = int(os.environ.get("VECDB_FUZZ_SEED", random.randrange(1 << 32)))
    code = "from tests.unit.door_fuzz import main; main()"
    out = child.end(child.start(code, seed, calls), timeout=600)
    figures: dict[str, int] = json.loads(out.splitlines()[-1])
    print(f"\n{calls} calls, seed {seed}: {figures}")
    return figures


def test_random_arguments_are_answered_or_refused_and_never_crash() -> None:
    figures = fuzz(20_000)
    assert figures["answered"] > 2_000 and figures["refused"] > 2_000


@pytest.mark.slow
def test_a_million_calls_with_random_arguments() -> None:
    figures = fuzz(1_000_000)
    assert figures["answered"] > 100_000 and figures["refused"] > 100_000


def test_a_crash_of_the_child_would_be_seen() -> None:
    crashing = child.start("import ctypes; ctypes.string_at(0)")
    crashing.communicate(timeout=60)
    assert crashing.returncode not in (0, 1)


CYCLES = """
import gc, numpy as np
from vecdb import _core
class Ring: pass
gc.disable()
for turn in range(50):
    writer = _core.Graph(8, "l2").begin()
    writer.insert(0, np.random.default_rng(turn).random((50, 8), np.float32))
    ring = Ring()
    ring.itself, ring.writer = ring, writer
    del writer, ring
    gc.collect()
print("collected")
"""


def test_a_writer_in_a_ring_is_collected_before_its_graph() -> None:
    """An error's traceback makes such rings: of a transaction that was dropped, in a file closed since. What
    ends the writer locks its graph, which hung the process when the collector had freed that first."""
    process = child.start(CYCLES, more={"MALLOC_PERTURB_": "165"})
    try:
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert said == b"collected\n" and process.returncode == 0
