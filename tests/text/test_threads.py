"""One analyzer and one view may be used by many threads at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vecdb._core import _text as core

from .models import Corpus


def test_an_analyzer_is_shared() -> None:
    def stem(words: list[str]) -> list[str]:
        return [word.rstrip("s") for word in words]

    analyzer = core.Analyzer(stem, ["the"])

    def build(seed: int) -> tuple[bytes, list[bytes]]:
        rng = random.Random(seed % 4)
        texts = [" ".join(f"w{rng.randrange(40_000)}s the" for _ in range(40)) for _ in range(800)]
        builder = core.SegmentBuilder([analyzer])
        builder.add_many(np.arange(len(texts), dtype=np.uint32), [texts])
        analyzer.spans(texts[0])
        analyzer.phrase_counts(texts[:50], [b"w1", b"w2"], [1])
        made = builder.finish()
        return made.header(), made.chunks()

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(build, range(8)))
    assert made[:4] == made[4:] and len({header for header, _ in made}) == 4


def test_a_view_is_shared() -> None:
    corpus = Corpus(random.Random(3), 3, 400, ["text", "sparse"])
    queries = [corpus.clauses() for _ in range(60)]
    fresh = core.View(corpus.segments, corpus.dead)
    expected = [fresh.search(clauses, 5) for clauses in queries]
    shared = core.View(corpus.segments, corpus.dead)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: shared.search(queries[i % 60], 5), range(600)))
    assert found == expected * 10
