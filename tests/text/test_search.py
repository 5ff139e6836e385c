"""Searching segments equals the formulas in plain Python, however rows are spread, pruned or not."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from vecdb._core import _text as core

from .models import PLAIN, Corpus, numbers


def corpora() -> list[tuple[int, int, int, list[str]]]:
    shapes = [(1, 40), (3, 60), (6, 25), (2, 700)]
    kinds = [["text"], ["text", "text"], ["sparse"], ["text", "sparse"]]
    return [(10 * i + j, *shape, kind) for i, shape in enumerate(shapes) for j, kind in enumerate(kinds)]


def a_filter(rng: random.Random, corpus: Corpus) -> tuple[bytes | None, np.ndarray | None, set[int]]:
    allowed = {rid for rid in corpus.rows if rng.random() < rng.choice([0.02, 0.5])}
    slots, plain = None, None
    if rng.random() < 0.7:
        bits = np.zeros(rng.randrange(1, 8) + max([r for r in allowed if r < PLAIN], default=0), bool)
        bits[[rid for rid in allowed if rid < PLAIN]] = True
        slots = np.packbits(bits, bitorder="little").tobytes()
    else:
        allowed |= {rid for rid in corpus.rows if rid < PLAIN}
    if rng.random() < 0.7:
        plain = np.array(sorted(rid for rid in allowed if rid >= PLAIN), np.uint32)
    else:
        allowed |= {rid for rid in corpus.rows if rid >= PLAIN}
    return slots, plain, allowed


@pytest.mark.parametrize("seed,n_segments,n_rows,kinds", corpora())
def test_search_is_the_formula(seed: int, n_segments: int, n_rows: int, kinds: list[str]) -> None:
    rng = random.Random(seed)
    corpus = Corpus(rng, n_segments, n_rows, kinds)
    view = core.View(corpus.segments, corpus.dead)
    assert view.n_live == len(corpus.rows)
    for _ in range(20):
        clauses = corpus.clauses()
        slots, plain, allowed = a_filter(rng, corpus)
        expected = corpus.search(clauses, allowed)
        found = view.search(clauses, None, slots=slots, plain=plain)
        rids, scores = numbers(found[0]), np.frombuffer(found[1])
        assert sorted(rids) == sorted(expected), clauses
        assert scores == pytest.approx([expected[rid] for rid in rids], rel=1e-9, abs=1e-9)
        assert [(-s, r) for s, r in zip(scores, rids, strict=True)] == sorted(
            (-s, r) for s, r in zip(scores, rids, strict=True)
        )
        assert numbers(view.match(clauses, slots=slots, plain=plain)) == sorted(expected)
        assert view.count(clauses, slots=slots, plain=plain) == len(expected)
        for k in (1, 3, 10, 100):
            best = view.search(clauses, k, slots=slots, plain=plain)
            assert best == view.search(clauses, k, slots=slots, plain=plain, exact=True)
            least = scores[min(k, len(scores)) - 1] if len(scores) else 0
            kept = int((scores >= least).sum())  # and all that tie with the k-th
            assert best == (found[0][: 4 * kept], found[1][: 8 * kept])


def test_scores_of_given_rows_are_those_of_the_search() -> None:
    rng = random.Random(5)
    corpus = Corpus(rng, 4, 80, ["text", "sparse"])
    view = core.View(corpus.segments, corpus.dead)
    for _ in range(60):
        clauses = corpus.clauses()
        found = view.search(clauses, None)
        score = dict(zip(numbers(found[0]), np.frombuffer(found[1]), strict=True))
        asked = rng.choices([*corpus.rows, 7_000_000, PLAIN + 7_000_000], k=50)
        given = np.frombuffer(view.score(np.array(asked, np.uint32), clauses))
        for rid, value in zip(asked, given, strict=True):
            assert math.isnan(value) if rid not in score else value == score[rid]


def test_results_do_not_depend_on_how_rows_are_spread() -> None:
    corpus = Corpus(random.Random(6), 6, 50, ["text", "text", "sparse"])
    spread = core.View(corpus.segments, corpus.dead)
    one = core.View([core.merge(corpus.segments, corpus.dead)], [None])
    for column in range(3):
        assert spread.totals(column) == one.totals(column)
    for _ in range(100):
        clauses = corpus.clauses()
        assert spread.search(clauses, 7) == one.search(clauses, 7)


def test_long_lists_over_many_chunks() -> None:
    rng = np.random.default_rng(7)
    n = 200_000
    analyzer = core.Analyzer()
    texts = [
        f"{'all ' * int(a)}{'half ' * int(h)}{'rare' if r else ''} x{i % 997}"
        for i, (a, h, r) in enumerate(
            zip(rng.integers(0, 5, n), rng.integers(0, 3, n), rng.random(n) < 0.001, strict=True)
        )
    ]  # fmt: skip
    builder = core.SegmentBuilder([analyzer])
    builder.add_many(np.arange(0, 3 * n, 3, dtype=np.uint32), [texts])
    made = builder.finish()
    assert sum(made.first_key(i)[1] == b"all" for i in range(made.n_chunks)) > 2
    asked: list[int] = []

    def load(segment: int, chunks: list[int]) -> list[bytes]:
        asked.extend(chunks)
        assert chunks == sorted(set(chunks))
        return [all_chunks[i] for i in chunks]

    all_chunks = made.chunks()
    opened = core.Segment.open(made.header())
    view, held = core.View([opened], [None]), core.View([made], [None])
    for words in (b"all", b"half rare", b"rare x5", b"all half rare x17", b"none"):
        clauses = [(core.SHOULD, [(0, 1.0, core.TERM, word)]) for word in words.split()]
        asked.clear()
        best = view.search(clauses, 10, load)
        assert len(asked) < made.n_chunks
        assert best == held.search(clauses, 10) == held.search(clauses, 10, exact=True)
        assert len(numbers(best[0])) >= (10 if words != b"none" else 0)
    rare = {3 * i for i, text in enumerate(texts) if "rare" in text}
    clauses = [(core.MUST, [(0, 1.0, core.TERM, b"rare")]), (core.SHOULD, [(0, 1.0, core.TERM, b"all")])]
    assert set(numbers(view.match(clauses, load))) == rare
    assert view.df(0, b"rare", load) == len(rare)
    assert view.prefix_terms(0, b"", 2, load) == [(b"all", sum("all" in t for t in texts)), (b"half", sum("half" in t for t in texts))]


def test_what_cannot_be_asked() -> None:
    corpus = Corpus(random.Random(8), 1, 10, ["text", "sparse"])
    view = core.View(corpus.segments, corpus.dead)
    word, token = (0, 1.0, core.TERM, b"w1"), (1, 1.0, core.TERM, core.token(3))
    for clauses, k in [
        ([(0, [word])], 0),
        ([(3, [word])], 1),
        ([(0, [(2, 1.0, core.TERM, b"w1")])], 1),
        ([(0, [(-1, 1.0, core.TERM, b"w1")])], 1),
        ([(0, [(0, math.nan, core.TERM, b"w1")])], 1),
        ([(0, [(0, -1.0, core.TERM, b"w1")])], 1),
        ([(0, [(0, 1.0, core.TERM, b"")])], 1),
        ([(0, [(1, 1.0, core.PREFIX, b"w")])], 1),
        ([(0, [(0, 1.0, core.LIST, (np.array([2, 1], np.uint32), np.array([1, 1], np.uint32)))])], 1),
        ([(0, [word] * 20_001)], 1),
    ]:
        with pytest.raises(ValueError):
            view.search(clauses, k)
    assert view.search([], 5) == (b"", b"")
    assert view.search([(core.NOT, [word])], 5) == (b"", b"")
    assert view.search([(core.MUST, []), (core.SHOULD, [word])], 5) == (b"", b"")
    assert view.search([(0, [(0, 1.0, core.TERM, b"y" * 4000)])], 5) == (b"", b"")
    assert numbers(view.search([(0, [token])], None)[0])
    assert core.View([], []).search([(0, [word])], 5) == (b"", b"")
    opened = core.Segment.open(corpus.segments[0].header())
    with pytest.raises(ValueError, match="pass load"):
        core.View([opened], [None]).search([(0, [word])], 5)
    with pytest.raises(ValueError, match="other columns"):
        other = core.SegmentBuilder([None]).finish()
        core.View([corpus.segments[0], other], [None, None])


def test_ties_are_all_returned() -> None:
    builder = core.SegmentBuilder([None])
    builder.add_many(np.arange(9000, dtype=np.uint32), [[{"a": 1.0 if i % 3 else 2.0} for i in range(9000)]])
    view = core.View([builder.finish()], [None])
    clauses = [(core.SHOULD, [(0, 1.0, core.TERM, core.token("a"))])]
    assert numbers(view.search(clauses, 10)[0]) == list(range(0, 9000, 3))
    assert len(numbers(view.search(clauses, 3001)[0])) == 9000
