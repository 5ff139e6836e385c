"""An adapter is a value: its map, its bytes, its report."""

from __future__ import annotations

import pickle
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.adapting.adapter import _HEADER, Adapter
from vecdb.adapting.report import AdapterReport, Change
from vecdb.errors import Corrupt, InvalidArgument

FLOATS = st.floats(-1e3, 1e3, width=32)
TEXTS = st.none() | st.text(max_size=20)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    numbers = [draw(st.floats(-1, 1)) for _ in range(6)]
    return Change(draw(st.sampled_from(["ndcg@10", "recall@1", "precision@10"])), *numbers)


@st.composite
def reports(draw: st.DrawFn) -> AdapterReport:
    counts = [draw(st.integers(0, 10**6)) for _ in range(4)]
    return AdapterReport(
        tuple(draw(st.lists(changes(), max_size=3))), draw(st.text(max_size=20)), "pairs", "queries", *counts,
        draw(st.floats(0, 1e4)), tuple(draw(st.lists(st.tuples(st.text(max_size=9), st.floats(0, 1)), max_size=3))),
        tuple(draw(st.lists(st.text(max_size=9), max_size=2))), draw(st.integers(1, 3)),
    )  # fmt: skip


@st.composite
def adapters(draw: st.DrawFn) -> Adapter:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    metric = draw(st.sampled_from(["cosine", "l2", "dot"]))
    d, dim = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    mean = rng.normal(size=d) if draw(st.booleans()) else None
    said = {
        "metric": metric, "mean": mean, "scale": draw(st.floats(0.125, 100, width=32)),
        "dtype": draw(st.sampled_from(["f32", "f16", "i8"])), "encoder_fingerprint": draw(TEXTS),
        "collection": draw(TEXTS), "using": draw(TEXTS), "report": draw(st.none() | reports()),
    }  # fmt: skip
    if draw(st.booleans()):
        rank = draw(st.integers(1, 5))
        return Adapter(None, low_rank=(rng.normal(size=(d, rank)), rng.normal(size=(rank, d))), **said)
    return Adapter(rng.normal(size=(d, dim)), **said)


@settings(max_examples=150, deadline=None)
@given(adapters(), st.integers(0, 2**32))
def test_bytes_bring_back_the_same_adapter(adapter: Adapter, seed: int) -> None:
    raw = adapter.to_bytes()
    for again in (Adapter.from_bytes(raw), Adapter.from_bytes(memoryview(raw)), pickle.loads(pickle.dumps(adapter))):
        assert again.to_bytes() == raw and again == adapter and hash(again) == hash(adapter)
        assert again.fingerprint == adapter.fingerprint and again.helps == adapter.helps
        assert again.report == adapter.report
        for name in ("metric", "dtype", "dim", "dim_in", "encoder_fingerprint", "collection", "using"):
            assert getattr(again, name) == getattr(adapter, name)
        rows = np.random.default_rng(seed).normal(size=(5, adapter.dim_in)).astype(np.float32)
        assert np.array_equal(again(rows), adapter(rows))


@settings(max_examples=150, deadline=None)
@given(adapters(), st.data())
def test_damaged_bytes_are_refused(adapter: Adapter, data: st.DataObject) -> None:
    raw = bytearray(adapter.to_bytes())
    way = data.draw(st.sampled_from(["bit", "cut", "more", "any"]))
    at = data.draw(st.integers(0, len(raw) - 1))
    if way == "bit":
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    elif way == "cut":
        del raw[at:]
    elif way == "more":
        raw += data.draw(st.binary(min_size=1, max_size=9))
    else:
        raw = bytearray(data.draw(st.binary(max_size=99)))
    with pytest.raises((Corrupt, InvalidArgument)):
        Adapter.from_bytes(bytes(raw))


def test_what_is_no_adapter_is_named() -> None:
    with pytest.raises(InvalidArgument, match="takes bytes, not str"):
        Adapter.from_bytes("x")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="no adapter"):
        Adapter.from_bytes(b"")


def test_deeply_nested_descriptions_are_damage() -> None:
    sound = Adapter([[1.0]], metric="l2").to_bytes()
    head, deep = list(_HEADER.unpack_from(sound)), b"[" * 100_000
    head[-2] = len(deep)
    whole = _HEADER.pack(*head) + deep + sound[-20:-16]
    with pytest.raises(Corrupt, match="damaged"):
        Adapter.from_bytes(whole + blake2b(whole, digest_size=16).digest())


@settings(max_examples=100, deadline=None)
@given(adapters(), st.integers(0, 2**32), st.integers(1, 50))
def test_a_row_is_mapped_as_the_formula_says_and_alone_as_among_others(adapter: Adapter, seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, adapter.dim_in)).astype(np.float32)
    found = adapter(rows)
    assert found.dtype == np.float32 and found.shape == (n, adapter.dim)
    for at in rng.integers(0, n, 3):
        assert np.array_equal(adapter(rows[at]), found[at])
        assert np.array_equal(adapter(rows[at:])[0], found[at])
    assert np.array_equal(adapter(np.asfortranarray(rows)), found)
    wide = rows.astype(np.float64)
    if adapter.metric == "cosine":
        wide /= np.sqrt((wide**2).sum(axis=1, keepdims=True))
    if adapter._mean is not None:
        wide -= adapter._mean
    factors = [each.astype(np.float64) for each in adapter._factors]
    image = wide @ factors[0] if len(factors) == 1 else wide + wide @ factors[0] @ factors[1]
    size = np.abs(wide).sum(axis=1, keepdims=True) * sum(np.abs(each).max() for each in (*factors, 1)) ** 2
    if adapter.metric == "cosine":
        lengths = np.sqrt((image**2).sum(axis=1, keepdims=True))
        image, size = image / lengths, size / lengths
    scale = float(adapter._scale)
    assert (np.abs(found - image * scale) <= 1e-5 * scale * (1 + size)).all()


def test_a_row_has_one_image_at_the_sizes_of_real_models() -> None:
    rng = np.random.default_rng(5)
    for d in (256, 384, 784):
        adapter = Adapter(np.eye(d) + rng.normal(size=(d, d)) * 0.05, metric="cosine")
        rows = rng.normal(size=(83, d)).astype(np.float32)
        found = adapter(rows)
        for at in range(len(rows)):
            assert np.array_equal(adapter(rows[at]), found[at])
        order = rng.permutation(len(rows))
        assert np.array_equal(adapter(rows[order]), found[order])


def test_no_image_is_zero_under_cosine() -> None:
    flat = Adapter([[0, 0], [0, 1]], metric="cosine")
    assert flat([[5, 0], [0, -2]]).tolist() == [[1, 0], [0, -1]]
    mean = np.array([0.6, 0.8], np.float32)
    centred = Adapter(np.eye(2), mean=mean, metric="cosine", scale=100.0)
    found = centred([mean, -mean, mean * 1e-30])
    assert np.allclose(np.linalg.norm(found, axis=1), 100)
    tiny = Adapter(np.eye(3) * 1e-30, metric="cosine")
    assert np.allclose(tiny([[1e-38, 0, 0], [0, 3e38, 0]]), [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1, np.nan]], "row 0: NaN"),
        ([[1, 2], [0, 0]], "row 1: a zero vector"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        (["a", "b"], "dtype"),
        ([[1j, 2]], "dtype"),
        ([[1], [1, 2]], "not an array|dtype"),
        (1.0, r"shape \(\)"),
        ([1e300, 0], "too large"),
    ],
)
def test_bad_vectors_are_named(vectors: object, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Adapter(np.eye(2), metric="cosine")(vectors)


def test_an_overflow_is_named() -> None:
    with pytest.raises(InvalidArgument, match="row 1: its image overflows"):
        Adapter([[2.0]], metric="dot")([[1.0], [3e38]])


def test_no_rows_have_no_images() -> None:
    adapter = Adapter(np.ones((3, 2)), metric="l2")
    assert adapter(np.empty((0, 3))).shape == (0, 2) and adapter([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"matrix": np.eye(2), "metric": "hamming"}, "metric='hamming'"),
        ({"matrix": np.eye(2), "metric": "l2", "dtype": "b1"}, "dtype='b1'"),
        ({"matrix": None, "metric": "l2"}, "one of the two"),
        ({"matrix": np.ones(2), "metric": "l2"}, "axes"),
        ({"matrix": [[np.inf]], "metric": "l2"}, "finite"),
        ({"matrix": np.eye(2), "metric": "l2", "mean": [1]}, "mean has 1"),
        ({"matrix": np.eye(2), "metric": "l2", "scale": 0}, "scale=0"),
        ({"matrix": None, "low_rank": (np.ones((2, 1)), np.ones((2, 2))), "metric": "l2"}, "low_rank has shapes"),
        ({"matrix": np.eye(2), "metric": "l2", "scale": "big"}, "scale='big'"),
        ({"matrix": np.eye(2), "metric": "l2", "scale": [1.0]}, "scale="),
        ({"matrix": [[10**400]], "metric": "l2"}, "matrix is not an array"),
        ({"matrix": None, "low_rank": 3, "metric": "l2"}, "low_rank is a int"),
        ({"matrix": np.eye(2), "metric": "l2", "collection": 3}, "collection is a int"),
        ({"matrix": np.empty((0, 0)), "metric": "l2"}, "0 to 0|dimensions"),
    ],
)
def test_what_makes_no_adapter_is_named(given: dict, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Adapter(**given)


def test_the_fingerprint_is_of_the_map_alone() -> None:
    eye = np.eye(2)
    plain = Adapter(eye, metric="l2")
    assert Adapter(eye, metric="l2", collection="c", encoder_fingerprint="f").fingerprint == plain.fingerprint
    others = [
        Adapter(eye, metric="dot"), Adapter(eye, metric="l2", scale=2), Adapter(eye, metric="l2", mean=[0, 0]),
        Adapter(eye * 2, metric="l2"), Adapter(eye, metric="l2", dtype="f16"),
        Adapter(None, low_rank=(np.ones((2, 1)), np.ones((1, 2))), metric="l2"),
    ]  # fmt: skip
    assert len({each.fingerprint for each in (plain, *others)}) == 1 + len(others)


def test_helps_needs_a_sure_gain_and_no_loss() -> None:
    gain, none = ("a", 0.4, 0.5, 0.1, 0.02, 0.2, 0.02), ("b", 0.4, 0.41, 0.01, -0.02, 0.04, 0.6)
    loss = ("c", 0.4, 0.39, -0.01, -0.03, 0.01, 0.6)
    for rows, deciding, helps in (
        ([gain, loss], 1, True), ([gain, loss], 2, False), ([none, gain], 2, True), ([none, none], 2, False),
        ([none, (*gain[:6], 0.03)], 2, False), ([none, gain], 1, False), ([], 1, False),
    ):  # fmt: skip
        changes = tuple(Change(*each) for each in rows)
        report = AdapterReport(changes, "linear", "pairs", "queries", 1, 1, 1, 1, 0.0, deciding=deciding)
        assert report.helps is helps, (rows, deciding)
    assert AdapterReport((Change(*gain),), "identity", "pairs", "queries", 1, 1, 1, 1, 0.0).helps is False


def test_helps_needs_the_interval_and_the_test() -> None:
    for low, p_value, helps in ((0.01, 0.001, True), (0.01, 0.2, False), (0.0, 0.001, False)):
        change = Change("ndcg@10", 0.4, 0.5, 0.1, low, 0.2, p_value)
        report = AdapterReport((change,), "linear", "pairs", "queries", 1, 1, 1, 1, 0.0)
        assert Adapter([[1.0]], metric="l2", report=report).helps is helps
    assert Adapter([[1.0]], metric="l2").helps is False
