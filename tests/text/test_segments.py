"""Segments: round trips, merges in any slices, masks, and bytes that are no segment's."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest

from vecdb._core import _text as core

from .models import PLAIN, Corpus, numbers


def everything(segment: Any, load: Any = None, dead: bytes | None = None) -> dict[tuple[int, bytes], Any]:
    found = {}
    for column, term, rids, values in segment.postings(load, dead):
        kind = np.uint32 if segment.kind(column) == "text" else np.float32
        assert (column, term) not in found
        found[column, term] = dict(zip(numbers(rids), np.frombuffer(values, kind).tolist(), strict=True))
    return {key: rows for key, rows in found.items() if rows}


def expected_of(corpus: Corpus) -> dict[tuple[int, bytes], Any]:
    found: dict[tuple[int, bytes], Any] = {}
    for column in range(len(corpus.kinds)):
        for rid, terms in corpus.counts(column).items():
            for term, value in terms.items():
                found.setdefault((column, term), {})[rid] = value
    return found


def test_a_segment_holds_its_rows_and_comes_back_from_its_bytes() -> None:
    for seed, kinds in enumerate((["text"], ["sparse"], ["text", "sparse", "text"])):
        corpus = Corpus(random.Random(seed), 1, 900, kinds)
        made = corpus.segments[0]
        assert everything(made) == expected_of(corpus)
        chunks, header = made.chunks(), made.header()
        assert all(len(chunk) <= core.MAX_CHUNK for chunk in chunks)
        assert sum(map(len, chunks)) == made.postings_bytes
        again = core.Segment.open(header)
        assert not again.holds_chunks and again.header() == header
        assert everything(again, lambda _, asked, chunks=chunks: [chunks[i] for i in asked]) == everything(made)
        assert numbers(again.rids()) == sorted(corpus.rows)
        assert core.Segment.open(header, chunks).chunks() == chunks
        assert again.nbytes < made.nbytes
        for column in range(len(kinds)):
            lengths = dict(zip(numbers(made.rids()), numbers(made.lengths(column)), strict=True))
            counts = corpus.counts(column)
            for rid, length in lengths.items():
                of = counts.get(rid, {})
                assert length == (sum(of.values()) if kinds[column] == "text" else len(of))
            assert made.totals(column) == (len(counts), sum(lengths.values()))
            assert made.first_key(0)[0] == 0


def test_rows_that_were_touched_later_are_dead() -> None:
    builder = core.SegmentBuilder([core.Analyzer()])
    builder.add_many(np.array([9, 3, PLAIN + 1], np.uint32), [["a b", "b", "c"]])
    builder.touch(5)
    builder.touch_many([7, 3])
    made = builder.finish()
    assert (numbers(made.rids()), numbers(made.gone())) == ([3, 9, PLAIN + 1], [5, 7])
    assert numbers(made.touched()) == [3, 5, 7, 9, PLAIN + 1]
    dead = made.bury([9, 11])
    assert (made.n_live(dead), made.totals(0, dead)) == (2, (2, 2))
    assert made.bury([4]) == b"" and made.bury([3], dead) == bytes([3])
    assert core.View([made], [dead]).df(0, b"b") == 1
    assert builder.n_docs == 0 and builder.finish().n_docs == 0
    assert dict(everything(made, None, dead)) == {(0, b"b"): {3: 1}, (0, b"c"): {PLAIN + 1: 1}}


def test_adding_is_all_or_nothing() -> None:
    stems: list[Any] = [ValueError("no stems today")]

    def stem(words: list[str]) -> list[str]:
        if stems[0]:
            raise stems[0]
        return words

    builder = core.SegmentBuilder([core.Analyzer(stem), None])
    good = [["fine words"], [{"a": 1}]]
    with pytest.raises(ValueError, match="today"):
        builder.add_many([1], good)
    stems[0] = None
    builder.add_many([1], good)
    for bad in ([[3], [None]], [["x"], [{1.5: 1}]], [["x"], [{"a": float("inf")}]], [["x"], [{"a": "b"}]],
                [["x"], [{2**63: 1}]], [["x"], [{"a" * 255: 1}]], [["x", "y"], [None]], [["x"]]):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            builder.add_many([2], bad)
    builder.add(3, ["more words", {"a": 0, -4: 2}])
    made = builder.finish()
    assert everything(made) == {
        (0, b"fine"): {1: 1}, (0, b"words"): {1: 1, 3: 1}, (0, b"more"): {3: 1},
        (1, core.token("a")): {1: 1.0}, (1, core.token(-4)): {3: 2.0},
    }  # fmt: skip
    builder.add_many([1, 1], [["a", "b"], None])
    with pytest.raises(ValueError, match="row 1 was added twice"):
        builder.finish()


def test_tokens_come_back() -> None:
    for token in ("", "a", "ä" * 127, 0, -1, 2**63 - 1, -(2**63)):
        assert core.untoken(core.token(token)) == token
    assert sorted(range(-3, 4), key=core.token) == list(range(-3, 4))
    assert core.token(np.int64(4)) == core.token(4) != core.token("4")


@pytest.mark.parametrize("seed", range(4))
def test_a_merge_in_slices_is_the_merge_in_one_go(seed: int) -> None:
    rng = random.Random(seed)
    corpus = Corpus(rng, 4, [30, 400, 2500, 60][seed], [["text"], ["text", "sparse"], ["text"], ["sparse"]][seed])
    whole = core.merge(corpus.segments, corpus.dead)
    assert everything(whole) == expected_of(corpus)
    assert numbers(whole.rids()) == sorted(corpus.rows)
    gone = set().union(*(numbers(one.touched()) for one in corpus.segments)) - set(corpus.rows)
    assert numbers(whole.gone()) == sorted(gone)
    assert core.merge(corpus.segments, corpus.dead, keep_gone=False).gone() == b""

    stored = [one.chunks() for one in corpus.segments]
    opened = [core.Segment.open(one.header()) for one in corpus.segments]
    for work in (1, 700, 20_000):
        made: list[bytes] = []
        progress, steps = None, 0
        merge = core.Merge(opened, corpus.dead)
        while True:
            if progress is not None and rng.random() < 0.7:
                merge = core.Merge(opened, corpus.dead, progress=progress)
            assert merge.n_chunks == len(made)
            made += merge.step(lambda segment, asked: [stored[segment][i] for i in asked], work)
            progress = merge.progress
            assert len(progress) < 300
            steps += 1
            if merge.done:
                break
        again = core.Merge(opened, corpus.dead, progress=progress)
        assert again.done and again.step() == []
        for one in (merge, again):
            assert one.header(lambda asked, made=made: [made[i] for i in asked]) == whole.header()
        assert made == whole.chunks()


def test_a_merge_of_rebuilt_rows_is_the_rebuilt_segment() -> None:
    corpus = Corpus(random.Random(11), 5, 300, ["text", "sparse"])
    rids = sorted(corpus.rows)
    builder = core.SegmentBuilder(corpus.columns)
    builder.add_many(np.array(rids, np.uint32), [[corpus.rows[r][c] for r in rids] for c in range(2)])
    merged = core.merge(corpus.segments, corpus.dead, keep_gone=False)
    rebuilt = builder.finish()
    assert (merged.header(), merged.chunks()) == (rebuilt.header(), rebuilt.chunks())


def test_all_dead_and_nothing_at_all() -> None:
    corpus = Corpus(random.Random(12), 2, 50, ["text"])
    masks = [one.bury(one.rids()) for one in corpus.segments]
    merge = core.Merge(corpus.segments, masks)
    for _ in range(500):
        assert merge.step(None, 1) == []
        if merge.done:
            break
        merge = core.Merge(corpus.segments, masks, progress=merge.progress)
    empty = core.Segment.open(merge.header())
    assert (empty.n_docs, empty.n_chunks, empty.totals(0)) == (0, 0, (0, 0))
    with pytest.raises(ValueError, match="alive in two"):
        core.Merge([corpus.segments[0]] * 2, [None] * 2)
    with pytest.raises(ValueError, match="another merge"):
        core.Merge(corpus.segments, [None, None][:1] + masks[1:], progress=merge.progress)
    with pytest.raises(ValueError):
        core.Merge([], [])


def damaged(rng: random.Random, good: bytes) -> bytes:
    bad = bytearray(good)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(bad))
        how = rng.randrange(5)
        if how == 0:
            bad[at] = rng.randrange(256)
        elif how == 1:
            bad[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            del bad[at : at + rng.randrange(1, 9)]
        elif how == 3:
            bad[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        else:
            bad = bad[: rng.randrange(len(bad) + 1)] or bytearray(b"\0")
    return bytes(bad)


def test_damaged_bytes_are_refused_or_read_but_never_followed() -> None:
    corpus = Corpus(random.Random(13), 1, 1200, ["text", "sparse"])
    made = corpus.segments[0]
    header, chunks = made.header(), made.chunks()
    clauses = [(0, [(0, 1.0, core.TERM, f"w{i}".encode())]) for i in range(8)]
    clauses += [(0, [(0, 1.0, core.PREFIX, b"w")]), (0, [(1, 1.0, core.TERM, core.token("t3"))])]
    rng = random.Random(14)
    outcomes: Counter[str] = Counter()
    for case in range(600):
        try:
            if case % 2:
                one = core.Segment.open(damaged(rng, header), chunks)
            else:
                bad = list(chunks)
                at = rng.randrange(len(bad))
                bad[at] = damaged(rng, bad[at])
                one = core.Segment.open(header, bad)
            for act in (lambda s: core.View([s], [None]).search(clauses, 5), lambda s: everything(s),
                        lambda s: core.merge([s], [bytes([3])])):  # fmt: skip
                try:
                    act(one)
                    outcomes["read"] += 1
                except ValueError:
                    outcomes["refused"] += 1
        except ValueError:
            outcomes["not opened"] += 1
    assert outcomes["refused"] > 50 and outcomes["not opened"] > 50, outcomes
    for bad in (b"", b"VXT1", bytes(100), b"\xff" * 5000):
        with pytest.raises(ValueError):
            core.Segment.open(bad)
        with pytest.raises(ValueError):
            core.Merge([made], [None], progress=bad)
