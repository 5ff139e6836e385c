"""Texts are encoded once: the cache in the file, batches, rows without a text, bad encoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import damage
from vecdb import encoders
from vecdb.embedding import BATCH
from vecdb.errors import AlreadyExists, EncoderMismatch, InvalidArgument, VecdbError
from vecdb.storage import embeddings, keys


class Counting:
    """An encoder's callable that remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.answer: Callable[[str], list[float]] = lambda text: [1 + len(text), 1 + sum(map(ord, text)) % 97]

    def __call__(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(list(texts))
        return [self.answer(text) for text in texts]

    @property
    def texts(self) -> list[str]:
        return [text for call in self.calls for text in call]

    def encoder(self, name: str = "counting", **options: Any) -> Any:
        return encoders.function(self, name=name, dim=2, **options)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "e.vecdb")


def cache(db: vecdb.Database) -> tuple[int, int]:
    found = db.stats()["embedding_cache"]
    return found["count"], found["bytes"]


def test_a_text_is_encoded_once_and_found_again_after_reopening(path: str) -> None:
    one, two = Counting(), Counting()
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=one.encoder())
        c.add(["a", "b", "c"], texts=["x", "yy", "x"])
        c.upsert(["a", "d"], texts=["yy", "zzz"])
        c.update("b", texts="zzz")
        assert one.texts == ["x", "yy", "zzz"]
        assert cache(db) == (3, 24)
        assert np.array_equal(c["a"].vector, [3, 1 + 242 % 97])
    with vecdb.open(path) as db:
        other = db.create_collection("other", encoder=two.encoder())
        other.add(texts=["zzz", "new", "x"])
        assert two.texts == ["new"]
        db.create_collection("third", encoder=two.encoder("another")).add(texts=["x"])
        assert two.texts == ["new", "x"], "another fingerprint is another vector"
        assert db.check() == []


def test_rows_and_embeddings_of_a_small_call_are_one_commit(path: str) -> None:
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", encoder=Counting().encoder())
        before = db.stats()["commit"]
        c.add(texts=[str(i) for i in range(BATCH)])
        assert db.stats()["commit"] == before + 1 and cache(db)[0] == BATCH


def test_a_long_call_commits_embeddings_batch_by_batch(path: str) -> None:
    made, seen = Counting(), []
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", encoder=made.encoder())
        plain = made.answer

        def watched(text: str) -> list[float]:
            if not text.endswith("0"):
                return plain(text)
            with_lock_free = embeddings.counts(db._env.begin_read())
            seen.append(with_lock_free.count)
            return plain(text)

        made.answer = watched
        n = 3 * BATCH + 7
        c.add(texts=[str(i) for i in range(n)] * 2)
        assert [len(call) for call in made.calls] == [BATCH, BATCH, BATCH, 7]
        assert seen[0] == 0 and seen[-1] == 3 * BATCH, "all but the batch before the last is committed"
        assert cache(db) == (n, 8 * n) and len(c) == 2 * n


def test_inside_a_transaction_embeddings_go_with_it(path: str) -> None:
    made = Counting()
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=made.encoder())
        with pytest.raises(ZeroDivisionError), db.transaction():
            c.add(texts=["x"])
            c.add(texts=["x", "y"])
            assert cache(db)[0] == 2 and made.texts == ["x", "y"]
            raise ZeroDivisionError
        assert cache(db) == (0, 0) and len(c) == 0
        with db.transaction():
            c.add(texts=["x"])
        assert cache(db)[0] == 1 and made.texts == ["x", "y", "x"]


def test_a_refused_call_leaves_its_embeddings_to_the_next_commit(path: str) -> None:
    made = Counting()
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=made.encoder())
        c.add("a", texts="x")
        before = db.stats()["commit"]
        with pytest.raises(AlreadyExists):
            c.add("a", texts="y")
        assert (cache(db)[0], db.stats()["commit"]) == (1, before)
        c.add("b", texts="y")
        assert made.texts == ["x", "y"] and cache(db)[0] == 2 and db.check() == []


def test_queries_are_not_cached(path: str) -> None:
    made = Counting()
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=made.encoder())
        c.add(texts=["x"])
        for _ in range(2):
            c.search("asked", 1)
        assert made.texts == ["x", "asked", "asked"] and cache(db)[0] == 1


def test_clearing_empties_the_cache_and_keeps_rows(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.embedding.CLEARED_AT_ONCE", 10)
    made = Counting()
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=made.encoder())
        c.add([*range(35)], texts=[str(i) for i in range(35)])
        with pytest.raises(ZeroDivisionError), db.transaction():
            assert db.clear_embedding_cache() == 35 and cache(db) == (0, 0)
            raise ZeroDivisionError
        assert cache(db)[0] == 35
        assert db.clear_embedding_cache() == 35 and cache(db) == (0, 0) and db.check() == []
        assert len(c) == 35 and c[3].vector is not None
        assert db.clear_embedding_cache() == 0
        c.upsert(3, texts="3")
        assert cache(db) == (1, 8) and len(made.texts) == 36


@pytest.mark.parametrize("how", ["bit", "sealed", "count"])
def test_a_damaged_embedding_is_a_miss_and_written_over(path: str, how: str) -> None:
    made = Counting()
    with vecdb.open(path) as db:
        db.create_collection("c", encoder=made.encoder()).add(texts=["x", "y"])
    key = embeddings.keys_of(made.encoder().fingerprint, ["x"])[0]
    with damage.write(path) as txn:
        if how == "bit":
            record = bytearray(txn.get(key))
            record[-1] ^= 1
            txn.put(key, bytes(record))
        elif how == "sealed":
            damage.put(txn, key, b"\xff" * 8)
        else:
            damage.put(txn, keys.CACHED_KEY, b"?")
    with vecdb.open(path) as db:
        assert db.check()
        c = db.get_or_create_collection("c", encoder=made.encoder())
        c.add("again", texts="x")
        assert made.texts == (["x", "y"] if how == "count" else ["x", "y", "x"])
        assert np.array_equal(c["again"].vector, [2, 1 + 120 % 97])
        c.add(texts=["z"])
        assert db.check() == [] and cache(db) == (3, 24)


# --- rows without a text -------------------------------------------------------------------------


def test_rows_without_a_text_get_no_vector() -> None:
    made, db = Counting(), vecdb.open()
    c = db.create_collection("c", encoder=made.encoder())
    c.add(["a", "b", "c"], texts=["x", None, "y"], metadata=[{"n": 1}, {"n": 2}, {"n": 3}])
    assert [c[i].text for i in "abc"] == ["x", None, "y"]
    assert [c[i].vector is None for i in "abc"] == [False, True, False]
    assert made.texts == ["x", "y"] and c.count("n >= 2") == 2
    c.upsert(["a", "b"], texts=[None, "x"])
    assert [c[i].vector is None for i in "ab"] == [True, False] and c["a"].text is None
    assert c.update(["b", "c"], texts=[None, "z"], metadata={"m": 1}) == 2
    assert (c["b"].text, c["c"].text) == ("x", "z") and np.array_equal(c["c"].vector, [2, 1 + 122 % 97])
    c.add(["d", "e"], texts=[None, None])
    assert c["d"].vector is None and c["d"].text is None
    c.add(["f", "g"], [[1, 2], [3, 4]], texts=["given", None])
    assert c["g"].vector is not None and "given" not in made.texts
    assert db.check() == [] and len(c.search("x", 10)) == 4


def test_texts_may_be_none_without_an_encoder_too() -> None:
    c = vecdb.open().create_collection("c", dim=2)
    c.add(["a", "b"], [[1, 0], [0, 1]], texts=["x", None])
    assert (c["a"].text, c["b"].text) == ("x", None)
    with pytest.raises(InvalidArgument, match="row 1: int"):
        c.add(["c", "d"], texts=["x", 3])


# --- encoders that fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [([0, 0], "zero vector"), ([1e30, 1e30], "overflows"), ([float("nan"), 1], "NaN"), ([1, 2, 3], "rectangular")],
)
def test_a_bad_vector_names_the_encoder_and_nothing_is_written(
    path: str, vector: list[float], complaint: str
) -> None:
    made = Counting()
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=made.encoder())
        before = db.stats()["commit"]
        plain = made.answer
        made.answer = lambda text: vector if text == "bad" else plain(text)
        with pytest.raises(InvalidArgument, match=complaint) as caught:
            c.add(["a", "b"], texts=["fine", "bad"])
        assert "'counting'" in str(caught.value)
        assert (len(c), cache(db)[0], db.stats()["commit"]) == (0, 0, before)


def test_a_zero_vector_is_fine_where_the_field_has_lengths() -> None:
    made = Counting()
    made.answer = lambda text: [0, 0]
    c = vecdb.open().create_collection("c", encoder=made.encoder(metric="l2"))
    c.add("a", texts="x")
    assert np.array_equal(c["a"].vector, [0, 0])


def test_a_callable_is_asked_for_by_name_until_it_is_given_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.encoders.registry._registered", {})
    made = Counting()
    with vecdb.open(path) as db:
        db.create_collection("c", encoder=made.encoder()).add("a", texts="x")
    with vecdb.open(path) as db:
        c = db["c"]
        for ask in (lambda: c.search("x"), lambda: c.add("b", texts="y"), lambda: c.update("a", texts="y")):
            with pytest.raises(EncoderMismatch, match="'counting'") as caught:
                ask()
            assert "get_or_create_collection" in str(caught.value) and "register" in str(caught.value)
        c.add("v", [1, 2])
        assert c.search([3, 24], 1).ids == ["a"] and len(c) == 2
        encoders.register("counting", made.encoder)
        assert c.search("x", 1).ids == ["a"]
    with vecdb.open(path) as db:
        wrong = encoders.function(made, name="counting", dim=2, fingerprint="another")
        encoders.register("counting", lambda: wrong)
        with pytest.raises(EncoderMismatch, match="another"):
            db["c"].search("x")
        given = db.get_or_create_collection("c", encoder=made.encoder())
        assert given.search("x", 1).ids == ["a"] and db["c"].search("x", 1).ids == ["a"]


def test_an_encoders_own_exception_passes_and_nothing_is_written() -> None:
    made, db = Counting(), vecdb.open()
    c = db.create_collection("c", encoder=made.encoder())

    def fails(text: str) -> list[float]:
        raise ConnectionError("no network")

    made.answer = fails
    with pytest.raises(ConnectionError):
        c.add("a", texts="x")
    assert len(c) == 0 and cache(db) == (0, 0)
    assert not issubclass(ConnectionError, VecdbError)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (np.ones((2, 3), np.float32), r"shape \(2, 3\) for 2 texts; it must be \(2, 2\)"),
        (np.ones((1, 2), np.float32), r"returned shape \(1, 2\) for 2 texts"),
        (np.ones(2, np.float32), r"returned shape \(2,\) for 2 texts"),
        (np.full((2, 2), np.nan), "returned NaN or infinity for text 0"),
        ([["a", "b"]] * 2, "not of real numbers"),
        ([[1.0], [1.0, 2.0]], "rectangular"),
    ],
)
def test_a_bad_vector_of_a_query_names_the_encoder(made: Any, said: str) -> None:
    class Bad:
        def __getattr__(self, name: str) -> Any:
            return getattr(good, name)

        def encode_queries(self, texts: Any, /) -> Any:
            return made

    good, bad = Counting().encoder(), Bad()
    c = vecdb.open().create_collection("c", encoder=bad)
    c.add(["a", "b"], texts=["x", "yy"])
    for call in (lambda: c.search(["x", "yy"]), lambda: c.prepare(k=1)(["x", "yy"])):
        with pytest.raises(InvalidArgument, match=f"encoder 'counting' .*{said}"):
            call()
