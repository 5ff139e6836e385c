"""Advice on cheaper vectors: what it says of them is what a collection of them does."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import data
import numpy as np
import pytest

import vecdb
from vecdb.errors import InvalidArgument
from vecdb.evaluation import advise as advising
from vecdb.evaluation.advise import advise
from vecdb.evaluation.metrics import parse
from vecdb.evaluation.shorter import Shorter

SEED = 11
DIM = 48


def world(metric: str = "cosine", dtype: str = "f32", n: int = 240, spread: float = 0.5, noise: float = 0.02) -> tuple[Any, Any, Any]:
    """Topics in eight hidden directions, turned at random, with noise in the others."""
    rng = np.random.default_rng(SEED)
    turn = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    kinds = np.arange(n) % 8
    rows = np.zeros((n, DIM))
    rows[np.arange(n), kinds] = 1
    rows[:, :8] += rng.normal(size=(n, 8)) * spread
    rows[:, 8:] += rng.normal(size=(n, DIM - 8)) * noise
    rows = rows @ turn
    asked = (np.eye(8, DIM) + rng.normal(size=(8, DIM)) * 0.02) @ turn
    if dtype == "b1":
        rows, asked = rows > 0, asked > 0
    elif dtype == "i8":
        rows = np.clip(np.rint(rows * 40), -127, 127).astype(np.int8)
        asked = asked * 40
    c = vecdb.open().create_collection("papers", dim=DIM, metric=metric, dtype=dtype)
    c.add(list(range(n)), rows if dtype in ("b1", "i8") else rows.astype(np.float32))
    queries = {f"q{t}-{i}": np.asarray(asked[t], np.float32) for t in range(8) for i in range(4)}
    qrels = {qid: {int(i): 1 for i in np.flatnonzero(kinds == int(qid[1]))} for qid in queries}
    return c, queries, qrels


@pytest.mark.parametrize(
    "metric, dtype", [("cosine", "f32"), ("l2", "f32"), ("dot", "f32"), ("cosine", "f16"), ("l2", "i8"), ("hamming", "b1")]
)
def test_a_collection_of_such_vectors_ranks_as_the_advice_says(metric: str, dtype: str) -> None:
    """Every option made real: the engine's exact search, judged again, against the advice's figures."""
    c, queries, qrels = world(metric, dtype)
    advice = advise(c, queries, qrels)
    measure = parse("ndcg@10")
    ids = [record.id for record in c]
    stored = c.vectors(ids)
    bits = {"f32": 32, "f16": 16, "i8": 8, "b1": 1}
    assert {each.dtype for each in advice.options} == {code for code in bits if bits[code] <= bits[dtype]}
    for each in advice.options:
        if each is advice.base:
            real, asked = c, list(queries.values())
        else:
            made = vecdb.open().create_collection("x", dim=each.dim, metric=each.shorter.metric, dtype=each.dtype)
            made.add(ids, each.documents(stored))
            real, asked = made, [each.queries(query) for query in queries.values()]
        found = [
            measure.of(real.search(query, 10, exact=True).ids, qrels[qid]) for qid, query in zip(queries, asked, strict=True)
        ]
        assert abs(np.mean(found) - each.mean) < 0.004, each  # ties and the last bit of float32 apart
        assert each.bytes == -(-each.dim * bits[each.dtype] // 8)
    assert advice.base.share == 1 and advice.base.dim == DIM and advice.base.dtype == dtype


def test_principal_components_find_what_is_hidden() -> None:
    """Eight directions, turned: as many components keep all, as many first dimensions do not."""
    c, queries, qrels = world(spread=0.3, noise=0.15)
    advice = advise(c, queries, qrels)
    by_name = {each.name: each for each in advice.options}
    assert by_name["components 9 f32"].keeps == "surely"
    assert by_name["first 9 f32"].share < 0.97
    assert advice.best.bytes <= 12 and advice.best.way != "first dimensions"
    assert advice.best.share >= 0.99 and advice.sure.low >= 0.99
    cheaper = [each for each in advice.options if each.bytes < advice.best.bytes]
    assert all(each.share < 0.99 for each in cheaper)
    assert all(each.low < 0.99 for each in advice.options if each.bytes < advice.sure.bytes)


def test_the_words_follow_from_the_figures() -> None:
    c, queries, qrels = world()
    advice = advise(c, queries, qrels)
    for each in advice.options:
        word = "surely" if each.low >= 0.99 else "by the estimate" if each.share >= 0.99 else "perhaps" if each.high >= 0.99 else "no"
        assert each.keeps == word and each.low <= each.share <= each.high, each
    assert str(advice.best.bytes) in advice.verdict and "32 judged queries" in advice.verdict
    assert ("cannot tell" in advice.verdict) == (advice.best.keeps != "surely")
    again = advise(c, queries, qrels)
    assert again.to_json() == advice.to_json(), "the same question, the same answer"
    said = json.loads(advice.to_json())
    assert said["best"] == advice.best.name and len(said["options"]) == len(advice.options)
    copy = pickle.loads(pickle.dumps(advice))
    assert copy.to_json() == advice.to_json()
    some = c.vectors([1, 2])
    assert (copy.best.documents(some) == advice.best.documents(some)).all()
    html = advice.to_html()
    assert html.count("<svg") == 2 and advice.best.name in html and "99 %" in html
    assert str(advice).startswith(advice.verdict) and repr(advice) == str(advice)


def test_nothing_cheaper_is_said_so() -> None:
    """Bits in which every dimension counts: fewer of them lose."""
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 2, (400, 32)).astype(bool)
    c = vecdb.open().create_collection("bits", dim=32, dtype="b1")
    c.add(range(400), rows)
    advice = advise(c, {i: rows[i] for i in range(60)}, {i: {i: 1} for i in range(60)}, metric="mrr@10", keep=1.0)
    assert advice.best.share >= 1
    if advice.best is advice.base:
        assert "Nothing cheaper keeps 100 %" in advice.verdict and advice.code == "# nothing to change"
    assert any("bits already" in note for note in advice.notes)


def test_the_lines_of_code_run() -> None:
    db = vecdb.open()
    papers = db.create_collection("papers", encoder="hashing")
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(40)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(120)]
    papers.add([f"d{i}" for i in range(120)], texts=texts, metadata=[{"n": i} for i in range(120)])
    queries = {i: " ".join(texts[i].split()[:8]) for i in range(40)}
    advice = vecdb.advise(papers, queries, {i: {f"d{i}": 1} for i in queries}, metric="mrr@10", keep=0.5)
    for best in [advice.best, *(each for each in advice.options if each.way != "as they are")][:40:3]:
        advice.best = best
        names: dict[str, Any] = {"advice": advice, "papers": papers, "db": vecdb.open(), "vecdb": vecdb}
        exec(advice.code.replace("a text", texts[0]), names)
        made = names["cheaper"]
        assert len(made) == 120 and made["d5"].text == texts[5] and made["d5"].metadata == {"n": 5}
        assert made.schema.dim == best.dim and made.schema.dtype == best.dtype
    named = db.create_collection("n'amed", vectors={"a": vecdb.Vector(DIM), "b": vecdb.Vector(2)})
    c, asked, qrels = world()
    ids = [record.id for record in c]
    named.add(ids, {"a": c.vectors(ids), "b": np.ones((len(ids), 2))})
    advice = advise(named, asked, qrels, using="a")
    names = {"advice": advice, "papers": named, "db": db, "vecdb": vecdb, "query": next(iter(asked.values()))}
    exec(advice.code, names)
    assert len(names["cheaper"]) == len(named)


def test_vectors_that_went_through_an_adapter_are_advised_on_as_they_are() -> None:
    from vecdb.adapting.adapter import Adapter

    papers = vecdb.open().create_collection("papers", encoder="hashing:64")
    papers.add(list(range(60)), texts=[f"word{i % 20} word{i % 7} word{i % 3}" for i in range(60)])
    papers.apply_adapter(
        Adapter(np.random.default_rng(0).normal(size=(64, 48)), metric="cosine", encoder_fingerprint=papers.schema.fingerprint),
        force=True,
    )
    queries = {i: f"word{i % 20} word{i % 7}" for i in range(20)}
    advice = advise(papers, queries, {i: {i: 1} for i in queries}, metric="mrr@10", keep=0.5)
    real = [parse("mrr@10").of(papers.search(text, 10, exact=True).ids, {i: 1}) for i, text in queries.items()]
    assert advice.base.dim == 48 and abs(advice.base.mean - np.mean(real)) < 1e-9
    assert any("went through an adapter" in note for note in advice.notes) and "encoders.get" not in advice.code
    names: dict[str, Any] = {"advice": advice, "papers": papers, "db": vecdb.open(), "query": papers.vectors(3)}
    exec(advice.code, names)
    assert len(names["cheaper"]) == 60


@pytest.mark.parametrize("vectors", ["x", [[1, 2], [3]], None, [[np.nan] * 4], np.ones((1, 2, 4)), [1, 2]], ids=repr)
def test_only_vectors_of_its_dimension_are_shortened(vectors: Any) -> None:
    shorter = Shorter(4, 2, "first dimensions", "b1", "cosine")
    for way in (shorter.documents, shorter.queries):
        with pytest.raises(InvalidArgument, match="vectors"):
            way(vectors)
    with pytest.raises(InvalidArgument, match="encoder"):
        Shorter(4, 2, "first dimensions", "f32", "cosine").encoder(5)


def test_shorter_encoders_have_fingerprints_of_their_own() -> None:
    base = vecdb.encoders.get("hashing")
    shorts = [
        advising.Shorter(512, 64, "first dimensions", "f32", "cosine"), advising.Shorter(512, 32, "first dimensions", "f32", "cosine"),
        advising.Shorter(512, 64, "principal components", "f16", "cosine", np.eye(512, 64, dtype=np.float32)),
    ]  # fmt: skip
    made = [each.encoder(base) for each in shorts]
    assert len({each.fingerprint for each in made} | {base.fingerprint}) == 4
    assert np.allclose(made[0].encode_documents(["a b"]), made[2].encode_documents(["a b"]))
    with pytest.raises(InvalidArgument, match="an encoder makes floats"):
        advising.Shorter(512, 64, "first dimensions", "i8", "cosine").encoder(base)
    with pytest.raises(InvalidArgument, match="makes 512 numbers, not 8"):
        advising.Shorter(8, 4, "first dimensions", "f32", "cosine").encoder(base)
    with pytest.raises(InvalidArgument, match=r"vectors has shape \(1, 3\)"):
        shorts[0].documents([1.0, 2, 3])


def test_what_cannot_be_stored_is_left_out_by_name() -> None:
    rng = np.random.default_rng(0)
    rows = np.hstack([rng.normal(size=(50, 32)), np.zeros((50, 32))]).astype(np.float32)
    rows[7, :32] = 0
    rows[7, 63] = 1
    c = vecdb.open().create_collection("c", dim=64)
    c.add(range(50), rows)
    some = [i for i in range(20) if i != 7]
    advice = advise(c, {i: rows[i] for i in some}, {i: {i: 1} for i in some}, metric="mrr@5")
    assert advice.left_out["first 32 f32"] == "1 of 50 documents would be zero vectors"
    c = vecdb.open().create_collection("c", dim=64, metric="l2")
    c.add(range(50), rows * 1e6)
    advice = advise(c, {i: rows[i] * 1e6 for i in range(20)}, {i: {i: 1} for i in range(20)}, metric="mrr@5")
    assert advice.left_out["64 f16"] == "numbers too large or too small for f16" and "64 i8" not in advice.left_out


def test_it_can_be_watched_and_small_things_are_no_special_case() -> None:
    seen: list[Any] = []
    c, queries, qrels = world()
    advise(c, queries, qrels, progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1] == len(seen) - 1
    for metric in ("cosine", "l2", "dot"):
        one = vecdb.open().create_collection("one", dim=1, metric=metric)
        one.add("a", [0.5])
        advice = advise(one, {"q": [1.0]}, {"q": {"a": 1}})
        assert len(advice.options) + len(advice.left_out) == 4 and advice.base.mean == 1 and advice.to_html()
        same = vecdb.open().create_collection("same", dim=16, metric=metric)
        same.add(range(30), np.full((30, 16), 1e-39 if metric != "cosine" else 1, np.float32))
        advice = advise(same, {"q": np.ones(16)}, {"q": {3: 1}}, metric="recall@30")
        assert advice.best.share == 1 and str(advice)


def test_of_many_rows_a_sample_with_all_that_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advising, "MOST_ROWS", 60)
    monkeypatch.setattr(advising, "LEARNED", 40)
    monkeypatch.setattr(advising, "CHUNK", 100)
    c, queries, qrels = world()
    qrels = {qid: dict(list(grades.items())[:5]) for qid, grades in qrels.items()}
    advice = advise(c, queries, qrels)
    assert "rows, drawn at random" in advice.notes[0] and advice.to_json() == advise(c, queries, qrels).to_json()


def test_a_snapshot_and_a_transaction_are_asked_as_they_are() -> None:
    c, queries, qrels = world()
    db = c._db
    whole = advise(c, queries, qrels).to_json()
    snap_rows = c.vectors(list(range(200)))
    with db.snapshot() as snap:
        c.delete(list(range(200)))
        assert advise(snap["papers"], queries, qrels).to_json() == whole
    with db.transaction():
        c.add(list(range(200)), -snap_rows)
        assert advise(c, queries, qrels).to_json() != whole


MISUSES: list[tuple[dict[str, Any], str]] = [
    ({"papers": 5}, "papers is a int"),
    ({"queries": ["a"]}, "queries is {id: text, vector or query object}, not a list"),
    ({"qrels": [1]}, "qrels is {query id: {document id: grade}}, not a list"),
    ({"qrels": {"q0-0": [1]}}, "qrels\\['q0-0'\\] is {document id: grade}, not a list"),
    ({"qrels": {"q0-0": {1: "x"}}}, "qrels\\['q0-0'\\]\\[1\\]='x': a grade is a finite number"),
    ({"qrels": {"q0-0": {1: math.nan}}}, "a grade is a finite number"),
    ({"qrels": {"q0-0": {1: 0}}}, "ndcg@10 of collection 'papers' is 0 for 1 judged query:"),
    ({"qrels": {"other": {1: 1}}}, "qrels has no judgement for any query"),
    ({"qrels": {}}, "qrels has no judgement for any query"),
    ({"qrels": {"q0-0": {"1": 1}}}, "document '1' is not in collection 'papers'.*though 1 is"),
    ({"queries": {"q0-0": "text"}, "qrels": {"q0-0": {1: 1}}}, "query is a text, but the vector field has no encoder"),
    ({"queries": {"q0-0": [1, 2]}, "qrels": {"q0-0": {1: 1}}}, "queries\\['q0-0'\\]: query has shape \\(2,\\)"),
    ({"queries": {"q0-0": np.ones((2, DIM))}, "qrels": {"q0-0": {1: 1}}}, "queries\\['q0-0'\\]: give one text, or one vector"),
    ({"metric": "ndcg@0"}, "ndcg@0"),
    ({"metric": "speed"}, "speed"),
    ({"keep": 0}, "keep=0: give the share"),
    ({"keep": 1.5}, "keep=1.5"),
    ({"using": "x"}, "using='x'"),
    ({"seed": "x"}, "seed='x': give an int from 0"),
    ({"seed": -1}, "seed=-1"),
    ({"progress": 5}, "progress"),
]


@pytest.mark.parametrize("changed, words", MISUSES, ids=[words[:30] for _, words in MISUSES])
def test_misuse(changed: dict[str, Any], words: str) -> None:
    c, queries, qrels = world(n=40)
    given = {"papers": c, "queries": queries, "qrels": qrels, **changed}
    options = {name: given[name] for name in ("metric", "keep", "using", "seed", "progress") if name in given}
    with pytest.raises(InvalidArgument, match=words):
        advise(given["papers"], given["queries"], given["qrels"], **options)


def test_one_query_decides_nothing_and_a_row_without_a_vector_is_told() -> None:
    c, queries, qrels = world(n=120)
    qid = next(iter(queries))
    some = dict.fromkeys([*list(qrels[qid])[:3], *range(100, 110)], 1)
    advice = advise(c, {qid: queries[qid]}, {qid: some}, metric="ndcg@100")
    changed = [each for each in advice.options if each.figures != advice.base.figures]
    assert changed and all(math.isnan(each.low) and math.isnan(each.high) and each.keeps != "no" for each in changed)
    assert "nan" not in str(advice) and "One judged query says nothing of others" in str(advice)
    json.loads(advice.to_json())
    advice.to_html()
    c.add("bare")
    with pytest.raises(InvalidArgument, match="document 'bare' of collection 'papers' has no vector"):
        advise(c, queries, {qid: {"bare": 1}})


def test_vectors_that_find_nothing_have_no_quality_to_keep() -> None:
    c, queries, qrels = world(n=400)
    far = {qid: {int(np.argmax(c.vectors(list(range(400))) @ -queries[qid])): 1} for qid in queries}
    with pytest.raises(InvalidArgument, match="is 0 for 32 judged queries"):
        advise(c, queries, far)
    several = vecdb.open().create_collection("m", vectors={"t": vecdb.Vector(2, multi=True)})
    with pytest.raises(InvalidArgument, match="one dense vector"):
        advise(several, {"q": [1, 0]}, {"q": {"a": 1}})


@data.needs_data()
def test_on_cranfield() -> None:
    docs, queries, qrels = data.judged("cranfield")
    c = vecdb.open().create_collection("papers", encoder="hashing")
    c.add(list(docs), texts=[text or "empty" for text in docs.values()])
    some = {qid: queries[qid] for qid in list(qrels)[::3]}
    advice = advise(c, some, {qid: qrels[qid] for qid in some})
    print(advice)
    by_name = {each.name: each for each in advice.options}
    assert by_name["512 i8"].keeps == "surely" and by_name["512 f16"].keeps == "surely"
    assert by_name["components 256 f32"].share > by_name["first 256 f32"].share
    assert by_name["512 b1"].keeps == "no" and advice.best.bytes <= 512
