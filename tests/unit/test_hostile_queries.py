"""A hostile query costs an error or an answer, little memory and little time; and nothing crashes.

Must show 11 of the issue. Memory is asserted (100 MB); of time, the processor's is asserted at five times the
aim of 200 ms, so that a loaded machine does not decide, and printed (`-s`). Over every query object, the grammar
of texts, and JSON: whole, cut off anywhere, and changed at random.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.costs import cost, outcome
from vecdb import ById, F
from vecdb.errors import VecdbError
from vecdb.query import Context, Decay, Field, Fuse, Late, Like, Near, Query, Rerank, Sparse, Text, from_json

MIB = 1 << 20
AIM_S = 0.2
MOST_BYTES = 100_000_000
SEED = time.time_ns() % 1_000_000
WORDS = [
    "gpu", "kernel", "the", "of", "naïve", "日本語", "東京", "한국어", "مرحبا", "cafe\u0301", "👩\u200d👩\u200d👧", "a",
    "e-mail", "don't", "\u202etxet", "ß", "İ", "x" * 300,
]  # fmt: skip
V = [1.0, 0.0, 0.0, 0.5]
ROWS = 120


@pytest.fixture(scope="module")
def c() -> vecdb.Collection:
    rng, numbers = random.Random(1), np.random.default_rng(1)
    found = vecdb.open().create_collection(
        "c",
        vectors={
            "v": vecdb.Vector(4), "w": vecdb.Vector(4, metric="l2"), "bits": vecdb.Vector(8, dtype="b1", metric="hamming"),
            "sp": vecdb.SparseVector(), "many": vecdb.Vector(4, multi=True),
        },
        fields={"when": datetime, "place": vecdb.Geo, "hidden": vecdb.Unindexed},
        fulltext={"text": vecdb.FullText(), "title": vecdb.FullText(language="english", stopwords=True), "tags": vecdb.FullText()},
    )  # fmt: skip
    found.add(
        [i if i % 2 else f"r{i}" for i in range(ROWS)],
        {
            "v": numbers.normal(size=(ROWS, 4)), "w": numbers.normal(size=(ROWS, 4)),
            "bits": numbers.integers(0, 2, (ROWS, 8)).astype(bool), "sp": [{"a": 1.0, i % 5: 0.5} for i in range(ROWS)],
            "many": [numbers.normal(size=(1 + i % 3, 4)) for i in range(ROWS)],
        },
        metadata=[
            {
                "n": i, "f": math.nan if i % 7 == 0 else i * 1e306, "g": i % 10, "tags": rng.choices(WORDS, k=2),
                "title": " ".join(rng.choices(WORDS, k=4)), "when": datetime(2020, 1, 1, tzinfo=UTC) + timedelta(i),
                "place": [i % 90, i], "doc": rng.choice(["x", 1, True, None, 1.5]), "hidden": "gpu",
            }
            for i in range(ROWS)
        ],
        texts=[" ".join(rng.choices(WORDS, k=8)) for _ in range(ROWS)],
    )  # fmt: skip
    return found


def nested(depth: int) -> Any:
    made: Any = [1.0]
    for _ in range(depth):
        made = [made]
    return made


def nested_query(depth: int) -> Query:
    made: Query = Text("gpu")
    for _ in range(depth):
        made = Fuse(made, made)
    return made


TEXTS = {
    "1 MB of one word": "x" * MIB,
    "more than 1 MB": "x" * (MIB + 1),
    "1 MB of words": "xy " * (MIB // 3),
    "1,300 words in three fields": " ".join(f"w{i}" for i in range(1_300)),
    "10,000 words": " ".join(f"w{i}" for i in range(10_000)),
    "10,001 words": " ".join(f"w{i}" for i in range(10_001)),
    "1,300 required words": " ".join(f"+w{i}" for i in range(1_300)),
    "1,300 excluded words": "gpu " + " ".join(f"-w{i}" for i in range(1_300)),
    "1,300 times one word": "gpu " * 1_300,
    "1,300 times one prefix": "a* " * 1_300,
    "1,300 prefixes": " ".join(f"{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}*" for i in range(1_300)),
    "1,300 phrases": " ".join(f'"gpu w{i}"' for i in range(1_300)),
    "1,100 phrases of words that are there": " ".join(f'"{WORDS[i % 6]} {WORDS[i // 6 % 6]}"' for i in range(1_100)),
    "a phrase of 8,000 words": '"' + "gpu kernel " * 4_000 + '"',
    "1 MB of quotes": '"' * MIB,
    "1 MB of signs": "+-" * (MIB // 2),
    "1 MB of stars": "*" * MIB,
    "1 MB of blanks": " " * MIB,
    "1 MB of zeros": "\0" * MIB,
    "1 MB of one ideograph": "日" * MIB,
    "3,000 ideographs": "日本" * 1_500,
    "1 MB of marks": "a" + "\u0301" * (MIB - 1),
    "1 MB of emoji": "👩\u200d" * (MIB // 2),
    "1 MB from right to left": "\u202eمرحبا" * (MIB // 6),
    "1 MB of hyphens": "a-" * (MIB // 2),
}
DEEP_JSON = '{"query": ' + '{"type": "Fuse", "queries": [' * 30_000 + "]}" * 30_000 + ', "version": 1}'
QUERIES: dict[str, Callable[[], Any]] = {
    "a NaN weight": lambda: Fuse(Near(V), weights=[math.nan]),
    "a huge weight": lambda: Fuse(Near(V, "v"), Text("gpu"), method="weighted", weights=[1e30, -1e30]),
    "255 parts": lambda: Fuse(*[Text("gpu kernel")] * 255),
    "256 parts and more": lambda: Fuse(*[Text("gpu")] * 100_000),
    "doubled 20 times": lambda: nested_query(20),
    "doubled 7 times": lambda: nested_query(7),
    "20,000 tokens": lambda: Sparse(dict.fromkeys(range(20000), 1.0)),
    "a million tokens": lambda: Sparse(dict.fromkeys(range(1000000), 1.0)),
    "a huge token": lambda: Sparse({"x" * MIB: 1.0, 2**70: 1.0}),
    "a deep list": lambda: Late(nested(100_000)),
    "1,000 examples": lambda: Like([V] * 1_000, [1] * 1_000, strategy="best", using="v"),
    "100,000 examples": lambda: Like([V] * 100_000, using="v"),
    "1,000 pairs": lambda: Context([(V, V)] * 1_000, using="v"),
    "1,024 vectors": lambda: Late(np.ones((1_024, 4))),
    "a million vectors": lambda: Late(np.ones((1_000_000, 4), np.float32)),
    "a vector of 16 million": lambda: Near(np.ones(1 << 24, np.int8), "v"),
    "reranked by what is not found": lambda: Rerank(Text("gpu"), by=Fuse(Text(""), Text("-gpu")), depth=100_000),
    "deep JSON": lambda: from_json(DEEP_JSON),
    "JSON of brackets": lambda: from_json('{"query":' + "[" * MIB),
    "JSON of a wide list": lambda: from_json('{"query": {"type": "Near", "x": [' + "1," * 500_000 + "1]}, \"version\": 1}"),
    "JSON with many members": lambda: from_json('{"query": {"type": "Near", ' + ",".join(f'"a{i}": 1' for i in range(99_999)) + "}}"),
    "JSON of digits": lambda: from_json('{"query": {"type": "Near", "x": [' + "9" * MIB + "]}}"),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TEXTS, *QUERIES])
def test_what_is_hostile_costs_little(c: vecdb.Collection, name: str) -> None:
    c.search(Text("gpu")), c.search(Late([V]))  # what a first search reads is not the query's

    def asks() -> Any:
        query = Text(TEXTS[name]) if name in TEXTS else QUERIES[name]()
        return c.search(query, 3).ids if isinstance(query, Query) else query

    seconds, held = cost(asks)
    print(f"{name}: {seconds * 1e3:.1f} ms, {held / 1e6:.1f} MB")
    assert held < MOST_BYTES and seconds < 5 * AIM_S


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_hostile_to_matches_costs_little(c: vecdb.Collection, name: str) -> None:
    seconds, held = cost(lambda: c.count(F.title.matches(TEXTS[name])))
    print(f"{name}: {seconds * 1e3:.1f} ms, {held / 1e6:.1f} MB")
    assert held < MOST_BYTES and seconds < 5 * AIM_S


def some_queries() -> list[Query]:
    near = Near(np.array(V, np.float32), using="v")
    return [
        near, Near(V, "w"), Near(ById("r2"), "v"), Near([1, 0] * 4, "bits"), Like([1, ById("r2"), V], [3], using="v"),
        Like([1], [V], strategy="best", using="w"), Context([(1, "r2"), (V, 3)], using="v"), Sparse({"a": 1, 3: -0.5}),
        Text('gpu +kernel -"the of" na* 東京', fields=["text", "tags"], weights={"tags": 2}), Late([V, V], using="many"),
        Fuse(near, Text("gpu"), method="relative", weights=[1, 0.5], depth=30), near + Text("gpu") + Sparse({"a": 1}),
        Rerank(near + Text("gpu"), by=Text("kernel"), depth=40), Rerank(Rerank(Text("gpu"), by=near), by=Late([V])),
    ]  # fmt: skip


def test_every_prefix_of_json_and_every_change_of_it(c: vecdb.Collection) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    pieces = [
        '"', "{", "}", "[", "]", ",", ":", "1e999", "-1", "NaN", "null", "true", "\\u0000", "\\ud800", "é", '"type"',
        '"Near"', '"query"', '"version"', '"x"', "2" * 30, '{"id": 1}', '{"numbers": "", "dtype": "bool", "shape": [0]}',
    ]  # fmt: skip
    for query in some_queries():
        text = query.to_json()
        assert from_json(text) == query
        for end in range(len(text)):
            assert isinstance(outcome(partial(from_json, text[:end])), VecdbError)
        for _ in range(60):
            at, to = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
            changed = text[:at] + rng.choice(pieces) + text[rng.choice((at, to)) :]
            found = outcome(partial(from_json, changed))
            if isinstance(found, Query):
                outcome(partial(c.search, found, 3))


def some_value(rng: random.Random, depth: int = 0) -> Any:
    simple: list[Any] = [
        None, True, 0, 1, -1, 3, 2**63, -(2**70), 0.5, -0.0, math.nan, math.inf, 1e308, "", "r2", "gpu", "\ud800", "\0",
        "v", "w", "sp", "many", "bits", "text", "title", "nope", "now", b"ab", bytearray(b"x"), object(), int, lambda *_: 1,
        {}, {"a": 1.0}, {1: 2}, {"title": 2.0}, {"a": None}, {True: 1}, set(), {1, 2}, range(3), iter([1]), 1j, [], (), [[]],
        np.float32(0.5), np.int64(1), np.bool_(True), np.str_("gpu"), np.array(3), np.array([]), np.zeros(4), np.ones(4, "f2"),
        np.ones(4, ">f8"), np.ones((2, 4)), np.ones((2, 2, 4)), np.array(["a"]), np.array([None]), np.full(4, np.nan),
        np.ones(8, bool), np.ones(1, np.uint8), ById("r2"), ById(1), ById("nope"), V, [V, V], [1, 2**64, 3, 4], ["r2", 1],
        datetime.now(UTC), datetime(2020, 1, 1), timedelta(1), datetime.max.replace(tzinfo=UTC), F.n == 1, ("a", 1), (1, 3),
        [(1, 3)], [("r2", V)], Text("gpu"), Near(V, "v"), Sparse({"a": 1}), Late([V]), Text(""), Field("n", 1),
    ]  # fmt: skip
    if depth < 2 and rng.random() < 0.15:
        return [some_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice(simple)


def written_and_read(query: Query) -> None:
    assert from_json(query.to_json()) == query


def some_call(rng: random.Random) -> Callable[[], Any]:
    kind = rng.choice([Near, Like, Context, Text, Sparse, Late, Fuse, Rerank, Decay, Field, ById])
    names = {
        Near: ("x", "using"), Like: ("positive", "negative", "strategy", "using"), Context: ("pairs", "using"),
        Text: ("text", "fields", "weights"), Sparse: ("weights", "using"), Late: ("matrix", "using"),
        Fuse: ("method", "weights", "depth"), Rerank: ("query", "by", "depth"), ById: ("id",),
        Decay: ("field", "origin", "scale", "weight"), Field: ("field", "weight", "transform"),
    }  # fmt: skip
    must = {"x", "pairs", "text", "weights", "matrix", "query", "by", "id", "field", "origin", "scale", "weight"}
    optional = {(Text, "weights"), (Fuse, "weights"), (Decay, "weight")}
    given = {
        name: some_value(rng)
        for name in names[kind]
        if (name in must and (kind, name) not in optional) or rng.random() < 0.3
    }
    if kind is Fuse:
        parts = [some_value(rng) if rng.random() < 0.1 else rng.choice(some_queries()) for _ in range(rng.randrange(4))]
        return lambda: Fuse(*parts, **given)
    return lambda: kind(**given)


def some_options(rng: random.Random) -> dict[str, Any]:
    fits: dict[str, list[Any]] = {
        "where": [F.n > 50, "g == 3", {"g": 1}, F.title.matches("gpu"), ~F.text.matches("-gpu"), F.n == 10**9, {}],
        "using": ["v", "w", "sp", "many"], "recall": [0.5, 1.0, np.float32(0.9)], "ef": [5, 4096], "exact": [True],
        "radius": [0, 0.5, 1e9, np.float64(1)], "offset": [0, 5, 500], "with_vectors": [True], "group_by": ["g", "doc", "tags", "f"],
        "group_size": [1, 2, 10_000], "diversity": [0, 0.5, 1], "boost": [[Field("f", 1e30)], [Decay("when", "now", 1)], []],
    }  # fmt: skip
    chosen = rng.sample(list(fits), rng.randrange(4))
    return {name: some_value(rng) if rng.random() < 0.25 else rng.choice(fits[name]) for name in chosen}


@pytest.mark.filterwarnings("error")
def test_any_arguments_give_a_query_or_an_error(c: vecdb.Collection) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    asked = 0
    for _ in range(700):
        query = outcome(some_call(rng))
        if isinstance(query, Query):
            outcome(partial(written_and_read, query))
            assert hash(query) == hash(query) and query == query and repr(query)
        else:
            query = rng.choice(some_queries())
        k = rng.choice([1, 3, 3, 3, 200, None, some_value(rng)])
        if callable(k) or isinstance(k, Query):
            continue
        hits = outcome(partial(c.search, query, k, **some_options(rng)))
        if isinstance(hits, vecdb.Hits):
            asked += 1
            assert not np.isnan(hits.scores).any() and len({*hits.ids}) <= ROWS
            for hit in hits[:3]:
                assert hit.explain() and isinstance(hit.highlights, list)
            assert str(hits.plan)
    assert asked > 90
    assert c._db.check() == []


def test_any_text_gives_an_answer(c: vecdb.Collection) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    signs = ['"', '"', "+", "-", "*", " ", "\t", "\n", "\u3000", "\0", "\\", "'", "-+", "+-", '+"', '-"', '"*', ":", "(", ")", "~", "^"]
    for _ in range(200):
        text = "".join(
            rng.choice(signs) if rng.random() < 0.5 else rng.choice([*WORDS, chr(rng.randrange(1, 0xD800)), "g", "ke"])
            for _ in range(rng.randrange(12))
        )
        hits = c.search(Text(text), None)
        assert not np.isnan(hits.scores).any()
        assert c.search(Text(text), 5, exact=True).ids == hits.ids[:5], text
        assert {*hits.ids} == {*c.search(Text(text), None, where=F.n >= 0).ids}
        some = {*hits.ids[:2], "r0", 1}
        for id in some:
            assert isinstance(c.why_not(Text(text), id, 3), str)
        for hit in hits[:2]:
            for each in hit.highlights:
                assert all(0 <= start < end <= len(each.text) for start, end in each.spans)
        try:
            words = {record.id for record in c.scan(F.text.matches(text))}
        except VecdbError:
            continue
        assert words <= {*c.search(Text(text, fields=["text"]), None).ids}, text


def test_json_of_another_kind_is_refused() -> None:
    for found in (1, "a", None, True, [], {}, [1], {"type": 1}, {"type": "Near", "x": {"id": [1]}}, {"type": "nope"}):
        for version in (1, 2, None, "1", True):
            text = json.dumps({"query": found, "version": version})
            assert isinstance(outcome(partial(from_json, text)), VecdbError)


def test_many_phrases_of_common_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.errors import InvalidArgument
    from vecdb.index import wording

    found = vecdb.open().create_collection("c", dim=2, fulltext=True)
    words = [f"w{i}" for i in range(12)]
    found.add(range(50), np.eye(2)[[i % 2 for i in range(50)]], texts=[" ".join(words)] * 50)
    pairs = [f'"{a} {b}"' for a in words for b in words]
    few, many = Text(" ".join(pairs[: wording.FREE_PHRASES])), Text(" ".join(pairs))
    assert len(found.search(many, None)) == 50
    monkeypatch.setattr(wording, "MOST_READ", 1_000)
    found.add(99, [1, 0], texts="w1")  # another commit: nothing is known of it
    assert len(found.search(few, None)) == 50
    with pytest.raises(InvalidArgument, match=r"more than 1,000 rows .* at most 16 phrases"):
        found.search(many)
