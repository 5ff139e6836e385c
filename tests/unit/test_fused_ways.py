"""The short ways of fused search say what the plain ones say: ties, filters, words, widths of walks."""

from __future__ import annotations

import numpy as np
import pytest
from pyroaring import BitMap

import vecdb
from vecdb import _core
from vecdb.index.effort import Effort, Measured, Sums, rerank
from vecdb.index.view import Cut
from vecdb.query.objects import Fuse, Near
from vecdb.ranking.fuse import best_by_id
from vecdb.ranking.text import by_id
from vecdb.storage import keys
from vecdb.storage.rows import PLAIN
from vecdb.text import grammar


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["int", "str", "both"])
def test_ties_are_in_the_order_of_ids(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    rids = rng.permutation(1000)[:n].astype(np.uint32)
    names = {
        int(rid): int(rng.integers(-(2**63), 2**63)) if kind == "int" or (kind == "both" and rid % 2)
        else "".join(rng.choice(list("aé\U0001f600\uffee~"), 4)) + str(rid)
        for rid in rids
    }  # fmt: skip
    scores = np.sort(rng.integers(0, 8, n).astype(float))[::-1]

    def ids(some: np.ndarray) -> list[int | str]:
        return [names[int(rid)] for rid in some]

    right = sorted(range(n), key=lambda at: (-scores[at], keys.id_order(names[int(rids[at])])))
    assert by_id(rids, scores, ids).tolist() == rids[right].tolist()
    for reach in (1, n // 2 + 1, n + 5):
        worth = dict(zip(rids.tolist(), scores.tolist(), strict=True))
        found = best_by_id(worth, reach, ids)
        assert found.rids.tolist() == rids[right][:reach].tolist()
        assert found.scores.tolist() == scores[:reach].tolist()


@pytest.mark.parametrize("seed", range(20))
def test_a_cut_is_the_rows_of_a_filter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    limit = int(rng.integers(1, 300))
    rids = BitMap(rng.integers(0, 400, int(rng.integers(0, 200))).tolist())
    if seed % 2:
        rids |= BitMap((PLAIN + rng.integers(0, 50, 20)).tolist())
    cut = Cut(rids, limit)
    slots = np.array([rid for rid in rids if rid < limit], np.uint32)
    assert cut.plain.tolist() == [rid for rid in rids if rid >= PLAIN]
    assert cut.slots.tolist() == slots.tolist()
    assert cut.mask == _core.mask_of(slots, limit)


def test_words_alone_are_read_as_all_texts_are() -> None:
    for text in ("", " ", "gpu", "fast  GPU\tkernels \n", "naïve 日本 it's"):
        alone = grammar.parse(text).parts
        assert alone == grammar.parse(f'{text} ""').parts  # a quote takes the long way, and asks nothing
        assert [part.text for part in alone] == text.split()


def test_many_hits_need_a_width_that_grows_with_their_root() -> None:
    found = (500, 700, 800, 850, 900, 940, 960, 970, 980, 985, 990, 995, 999)
    effort = Effort(10_000, Measured(Sums(100, 1000, found, (100,) * 7)))
    ten = effort.width(0.95, 10, 10_000)
    widths = [effort.width(0.95, k, 10_000) for k in (10, 11, 40, 160, 1000, 2000)]
    assert widths == sorted(widths)
    assert abs(widths[2] - 2 * ten) <= 2 and abs(widths[3] - 4 * ten) <= 4
    assert all(effort.width(0.95, k, 10_000) >= rerank(k) for k in (11, 100, 1000, 3000))
    assert abs(effort.expected(widths[2], 40) - effort.expected(ten, 10)) < 0.01


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_a_hundred_hits_have_the_recall_that_was_asked_for(share: float) -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(60, 32))
    base = (centres[rng.integers(0, 60, 6000)] + 0.6 * rng.normal(size=(6000, 32))).astype(np.float32)
    queries = (centres[rng.integers(0, 60, 40)] + 0.6 * rng.normal(size=(40, 32))).astype(np.float32)
    kept = rng.random(6000)
    with vecdb.open() as db:
        rows = db.create_collection("rows", dim=32, metric="l2")
        rows.add(list(range(6000)), base, metadata=[{"x": float(x)} for x in kept])
        where = None if share == 1 else vecdb.F.x < share
        hits = []
        for query in queries:
            right = set(rows.search(query, 100, where=where, exact=True).ids)
            assert rows.search(Fuse(Near(query)), 100, where=where).ids[:5]
            hits.append(len(right & set(rows.search(Near(query), 100, where=where).ids)) / 100)
        assert np.mean(hits) >= 0.95
