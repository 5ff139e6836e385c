"""The HTTP encoder loses and misplaces nothing, whatever the service does; and keeps its key to itself."""

from __future__ import annotations

import json
import logging
import pickle
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import planted
from vecdb import encoders
from vecdb.encoders import answers
from vecdb.encoders.base import Encoder
from vecdb.encoders.http import PROBES
from vecdb.encoders.service import Limits, Refused, Service, Spent
from vecdb.errors import EncoderFailed, EncoderMismatch, InvalidArgument, SchemaError

KEY = "sk-secret-key"
SLOW = ("timeout", "slow body", "drip")  # what a short time-out ends


class Clock:
    """Time that passes where somebody sleeps, and nowhere else."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.now += seconds

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def service() -> Iterator[planted.Service]:
    with planted.Service() as running:
        yield running


def made(service: planted.Service, clock: Clock | None = None, **options: Any) -> Any:
    encoder = encoders.http(service.url, "planted", **{"api_key": KEY, "timeout_s": 5.0, **options})
    clock = clock or Clock()
    encoder._service.sleep, encoder._service.clock = clock.sleep, clock
    return encoder


def expected(texts: list[str]) -> Any:
    return np.array([planted.vector(text or " ") for text in texts], np.float32).reshape(len(texts), planted.DIM)


def words(rng: random.Random, n: int) -> list[str]:
    return [" ".join(f"w{rng.randrange(50)}" for _ in range(rng.randint(0, 6))) for _ in range(n)]


def test_texts_go_out_in_batches_and_vectors_come_back_in_order(service: planted.Service) -> None:
    encoder = made(service, batch_size=7, batch_characters=60, document_prefix="", query_prefix="q: ")
    assert not service.requests
    texts = [*words(random.Random(1), 40), "x" * 100, "", "ü 😀"]
    assert np.array_equal(encoder.encode_documents(texts), expected(texts))
    assert service.texts == [text or " " for text in texts]
    assert all(len(each["input"]) <= 7 and (len(each["input"]) == 1 or sum(map(len, each["input"])) <= 60) for each in service.requests)
    assert max(len(each["input"]) for each in service.requests) > 2
    assert isinstance(encoder, Encoder) and encoder.dim == planted.DIM and service.paths[0] == "/v1/embeddings"
    assert service.headers[0]["authorization"] == f"Bearer {KEY}" and service.requests[0]["model"] == "planted"
    assert np.array_equal(encoder.encode_queries(["a"]), expected(["q: a"]))
    assert encoder.encode_documents([]).shape == (0, planted.DIM)


@pytest.mark.parametrize("action", planted.PASSING)
def test_what_passes_is_tried_again_and_what_does_not_pass_is_told(service: planted.Service, action: str) -> None:
    texts = ["one", "two", "three"]
    options: dict[str, Any] = {"timeout_s": 0.1} if action in SLOW else {}
    service.plan = lambda number, _: action if number < 2 else "shuffled"
    clock = Clock()
    encoder = made(service, clock, **options)
    assert np.array_equal(encoder.encode_documents(texts), expected(texts))
    assert len(service.requests) == 3 and len(clock.slept) == 2
    service.plan = lambda number, _: action
    asked = len(service.requests)
    clock.slept.clear()
    with pytest.raises(EncoderFailed) as caught:
        made(service, clock, max_retries=2, dim=planted.DIM, **options).encode_documents(texts)
    assert len(service.requests) - asked == 3 and len(clock.slept) == 2
    message = str(caught.value)
    assert "texts[0] to texts[2]" in message and "3 tries" in message and service.url in message
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.first, again.last) == (message, 0, 2)
    assert KEY not in message and (caught.value.first, caught.value.last, caught.value.made) == (0, 2, None)


def test_random_schedules_of_failures_lose_and_misplace_nothing(service: planted.Service) -> None:
    """Fifty seeds; every request fails with probability 0.5, up to the number of tries."""
    lost = misplaced = rows = 0
    for seed in range(50):
        rng = random.Random(seed)
        failures = Counter[str]()

        slow = seed % 5 == 0

        def plan(
            number: int, texts: list[str], rng: random.Random = rng, failures: Counter[str] = failures, slow: bool = slow
        ) -> str:
            key = "\0".join(texts)
            action = rng.choice(planted.GOOD)
            if failures[key] < 5 and rng.random() < 0.5:
                action = rng.choice(planted.PASSING if rng.random() < 0.9 else ("429 later", "timeout"))
            failures[key] += action not in planted.GOOD
            if action in SLOW and (rng.random() < 0.3 or not slow):
                action = "503"
            return action

        service.plan = plan
        encoder = made(service, batch_size=rng.randint(1, 9), max_retries=6, timeout_s=0.15 if slow else 5.0)
        texts = words(rng, rng.randint(1, 60))
        got, wanted = encoder.encode_documents(texts), expected(texts)
        rows += len(texts)
        lost += len(texts) - len(got)
        misplaced += int((got != wanted).any(axis=1).sum())
    bad = sum(n for action, n in service.done.items() if action not in planted.GOOD)
    print(f"HTTP schedules: 50, seeds 0 to 49: {rows} texts in {sum(service.done.values())} requests, {bad} failed of "
          f"{len(set(service.done) - set(planted.GOOD))} kinds; lost {lost}, misplaced {misplaced}")  # fmt: skip
    assert (lost, misplaced) == (0, 0) and bad > 300 and set(planted.PASSING) <= set(service.done)


def test_random_answers_are_vectors_or_bad_and_nothing_else() -> None:
    """Answers damaged at random, and random JSON in their place."""
    rng = random.Random(8)
    good = json.dumps({"data": [{"index": at, "embedding": [0.5, -1, 2.25]} for at in (1, 0, 2)]})
    odd = ["NaN", "1e999", "-0", "9" * 400, "9" * 5000, "true", "null", '"a"', "[]", "[[1]]", "{}", "[1, [2]]", '"AAAA"', '"AACAPw=="', "1" + "0" * 30]
    kept, bad = 0, 0
    for _ in range(20_000):
        text = good
        for _ in range(rng.randint(1, 3)):
            if rng.random() < 0.5:
                at = rng.randrange(len(text))
                text = text[:at] + rng.choice(['"', "{", "}", "[", "]", ",", ":", "1", "\x00", "é", ""]) + text[at + rng.randint(0, 2) :]
            else:
                text = re.sub(r"-?\d[\d.]*", lambda found: rng.choice(odd) if rng.random() < 0.15 else found[0], text)
        body = text.encode() if rng.random() < 0.9 else rng.randbytes(rng.randint(0, 40)) + text.encode()[: rng.randrange(60)]
        try:
            made = answers.vectors_in(body, "application/json", 3, rng.choice((None, 3)))
            assert made.shape[0] == 3 and made.dtype == np.float32 and np.isfinite(made).all()
            kept += 1
        except answers.BadAnswer as error:
            assert len(str(error)) < 500
            bad += 1
    for deep in ("[" * 100_000, '{"a":' * 100_000, '{"data": ' + "[" * 100_000):
        with pytest.raises(answers.BadAnswer):
            answers.vectors_in(deep.encode(), "", 1, None)
    print(f"damaged answers: 20,000, seed 8: bad {bad}, still vectors {kept}, other errors 0")
    assert bad > 10_000 and kept > 500


def test_threads_share_an_encoder(service: planted.Service) -> None:
    rng = random.Random(4)
    service.plan = lambda number, _: rng.choice(("ok", "shuffled", "503", "reset", "fewer"))
    encoder = made(service, batch_size=4, max_retries=30)
    wrong: list[int] = []

    def work(seed: int) -> None:
        texts = words(random.Random(seed), 40)
        wrong.append(int((encoder.encode_documents(texts) != expected(texts)).sum()))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == [0] * 6


# --- waiting ---------------------------------------------------------------------------------------


def test_waits_double_with_chance_and_follow_what_the_service_asks(service: planted.Service) -> None:
    clock = Clock()
    service.plan = lambda number, _: "503" if number < 8 else "ok"
    made(service, clock, max_retries=8).encode_documents(["a"])
    for attempt, slept in enumerate(clock.slept):
        longest = min(30.0, 0.5 * 2**attempt)
        assert longest / 2 <= slept <= longest
    assert len(clock.slept) == 8 and len({round(s / min(30.0, 0.5 * 2**at), 6) for at, s in enumerate(clock.slept)}) > 4
    clock.slept.clear()
    start = len(service.requests)
    service.plan = lambda number, _: "429 later" if number == start else "ok"
    made(service, clock).encode_documents(["a"])
    assert clock.slept == [7.0]
    service.plan = lambda number, _: "429 for ever"
    clock.slept.clear()
    with pytest.raises(EncoderFailed, match="asks to wait 86400 s"):
        made(service, clock).encode_documents(["a"])
    assert clock.slept == []


def test_requests_keep_the_distance_that_the_limits_want(service: planted.Service) -> None:
    clock = Clock()
    encoder = made(service, clock, batch_size=10, requests_per_minute=60, texts_per_minute=300)
    encoder.encode_documents([f"text {at}" for at in range(30)])
    assert clock.slept == pytest.approx([2.0, 2.0]) and len(service.requests) == 3
    clock.slept.clear()
    encoder.encode_queries(["one"])
    encoder.encode_queries(["two"])
    assert clock.slept == pytest.approx([2.0, 1.0])


# --- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["401", "403", "404", "405", "302", "501"])
def test_what_does_not_pass_is_asked_once(service: planted.Service, status: str) -> None:
    service.plan = lambda number, _: status
    clock = Clock()
    with pytest.raises(EncoderFailed, match=f"HTTP {status}: planted {status}") as caught:
        made(service, clock).encode_documents(["a", "b"])
    assert len(service.requests) == 1 and clock.slept == [] and KEY not in str(caught.value)
    assert service.paths == ["/v1/embeddings"]  # no redirect was followed


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_a_batch_that_is_refused_is_halved_until_the_text_is_found(service: planted.Service, status: str) -> None:
    texts = [f"text {at}" for at in range(40)]
    texts[29] = "poison"
    service.plan = lambda number, asked: status if "poison" in asked or (status == "413" and len(asked) > 8) else "ok"
    encoder = made(service, batch_size=16)
    with pytest.raises(EncoderFailed, match=r"asked for texts\[29\]\.") as caught:
        encoder.encode_documents(texts)
    assert caught.value.first == caught.value.last == 29
    assert np.array_equal(caught.value.made, expected(texts[:29]))
    del texts[29]
    assert np.array_equal(encoder.encode_documents(texts), expected(texts))


def test_dimensions_are_asked_for_and_held_to(service: planted.Service) -> None:
    encoder = made(service, dimensions=planted.DIM, encoding_format="base64")
    assert encoder.dim == planted.DIM and not service.requests
    encoder.encode_documents(["a"])
    assert service.requests[0]["dimensions"] == planted.DIM and service.requests[0]["encoding_format"] == "base64"
    with pytest.raises(EncoderFailed, match="6 dimensions, not 9"):
        made(service, dim=9, max_retries=1).encode_documents(["a"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "ftp://x"}, "base_url"), ({"base_url": "localhost:80"}, "base_url"), ({"base_url": 3}, "base_url"),
        ({"base_url": "http://user:pass@host/v1"}, "user or password"), ({"base_url": "http://host\n/v1"}, "base_url"),
        ({"base_url": "http://host:99999/"}, "base_url"), ({"base_url": "http:///v1"}, "base_url"), ({"base_url": "http://[::1/v1"}, "base_url"),
        ({"model": ""}, "model"), ({"model": None}, "model"), ({"api_key": "a\nb"}, "api_key"), ({"api_key": b"x"}, "api_key"), ({"api_key": ""}, "api_key"),
        ({"dim": 0}, "dim"), ({"dim": True}, "dim"), ({"dimensions": "3"}, "dimensions"), ({"dim": 3, "dimensions": 4}, "differ"),
        ({"metric": "hamming"}, "metric"), ({"batch_size": 0}, "batch_size"), ({"batch_characters": None}, "batch_characters"),
        ({"timeout_s": 0}, "timeout_s"), ({"timeout_s": None}, "timeout_s"), ({"timeout_s": float("nan")}, "timeout_s"), ({"timeout_s": 10**400}, "timeout_s"),
        ({"timeout_s": 1e300}, "0.001 to 1,000,000"), ({"requests_per_minute": 1e-320}, "requests_per_minute"), ({"max_retries": -1}, "max_retries"),
        ({"requests_per_minute": 0}, "requests_per_minute"), ({"texts_per_minute": float("inf")}, "texts_per_minute"),
        ({"encoding_format": "int8"}, "encoding_format"), ({"query_prefix": None}, "query_prefix"), ({"revision": 2}, "revision"), ({"card": "x"}, "card"),
        ({"headers": ["a"]}, "headers"), ({"headers": {"a b": "c"}}, "headers"), ({"headers": {"a": "x\r\ny"}}, "headers"), ({"headers": {"": "x"}}, "headers"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_are_named(options: dict[str, Any], said: str) -> None:
    given = {"base_url": "http://localhost:1/v1", "model": "m", **options}
    with pytest.raises(InvalidArgument, match=said):
        encoders.http(given.pop("base_url"), given.pop("model"), **given)


def test_texts_that_are_none_are_named(service: planted.Service) -> None:
    for bad, said in ((["a", 3], r"texts\[1\]"), ("a", "list of texts")):
        with pytest.raises(InvalidArgument, match=said):
            made(service).encode_documents(bad)
    assert not service.requests


# --- the key ---------------------------------------------------------------------------------------


def test_the_key_is_in_no_repr_error_pickle_fingerprint_file_or_log(
    service: planted.Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    other = {"X-Api-Key": "another-secret"}
    encoder = made(service, headers=other)
    said = [repr(encoder), str(encoder), encoder.name, encoder.fingerprint, encoder.address, str(encoder.card)]
    service.plan = lambda number, _: "401"
    with pytest.raises(EncoderFailed) as caught:
        encoder.encode_documents(["a"])
    assert "***" in str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        said += [str(chain), repr(chain)]
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    service.plan = lambda number, _: "ok"
    path = tmp_path / "k.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("c", encoder=encoder).add([1, 2], texts=["one", "two"])
        said += [str(db.stats()), repr(db["c"].schema)]
    raw = pickle.dumps(encoder) + b"".join(each.read_bytes() for each in tmp_path.iterdir())
    for secret in (KEY, "another-secret"):
        assert secret.encode() not in raw and not any(secret in each for each in said) and secret not in caplog.text
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.fingerprint == encoder.fingerprint == made(service, api_key="other").fingerprint
    assert np.array_equal(copy.encode_documents(["one"]), expected(["one"]))
    assert "authorization" not in service.headers[-1]
    with pytest.raises(InvalidArgument) as refused:
        encoders.http("http://h/v1", "m", api_key="bad\nsecret")
    assert "secret" not in str(refused.value)
    hidden = encoders.http("https://h/v1?key=hush", "m")
    assert "hush" not in repr(hidden) and hidden._service.url.endswith("/v1/embeddings?key=hush")


@pytest.mark.parametrize("status", [200, 401, 503])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_secret_that_is_cut_by_what_is_shown_of_an_answer_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, status: int, as_json: bool
) -> None:
    asked = Service("http://h/v1", Limits(1.0, 0, None, None), {"Authorization": f"Bearer {KEY}"})
    for before in range(answers.SHOWN + 2):
        said = "x" * before + KEY
        body = json.dumps({"error": {"message": said}}) if as_json else said
        monkeypatch.setattr(asked, "_post", lambda _, body=body: (status, {}, body.encode()))
        with pytest.raises((Refused, Spent)) as caught:
            asked.ask(b"", 1, lambda answer, kind: answers.vectors_in(answer, kind, 1, 3))
        assert KEY[:3] not in str(caught.value), before



# --- in a collection -------------------------------------------------------------------------------


def test_a_failure_in_the_middle_of_add_writes_no_row_and_loses_no_vector(service: planted.Service, tmp_path: Path) -> None:
    texts = [f"text number {at}" for at in range(1300)]
    path = tmp_path / "h.vecdb"
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=made(service, batch_size=50))
        c.add("before", texts="a first row")
        service.plan = lambda number, asked: "503" if "text number 825" in asked else "ok"
        with pytest.raises(EncoderFailed) as caught:
            c.add(range(1300), texts=texts)
        assert (caught.value.first, caught.value.last) == (812, 861)  # 512 of the call's texts are encoded at once
        assert len(c) == 1 and 0 not in c
    with vecdb.open(path) as db:  # what was made is in the file, not in memory only
        assert db.stats()["embedding_cache"]["count"] == 812 + 1 + len(PROBES)
        service.plan = lambda number, asked: "shuffled"
        before = len(service.texts)
        c = db.get_or_create_collection("c", encoder=made(service, batch_size=50))
        c.add(range(1300), texts=texts)
        asked = [text for text in service.texts[before:] if text not in PROBES]
        assert asked == texts[812:]
        assert len(c) == 1301 and np.array_equal(c.vectors(list(range(1300))), expected(texts))
        assert not db.check()


def test_random_schedules_in_a_collection_end_with_every_row_in_its_place(service: planted.Service) -> None:
    """Twenty seeds of calls that fail for good now and then and are repeated until they are through."""
    calls = failed = rows = 0
    for seed in range(20):
        rng = random.Random(1000 + seed)
        service.plan = lambda number, asked, rng=rng: rng.choice(("ok", "shuffled", "503", "fewer", "html", "reset"))  # type: ignore[misc]
        db = vecdb.open()
        c = db.create_collection("c", encoder=made(service, batch_size=rng.randint(1, 8), max_retries=2, dim=planted.DIM))
        texts = words(rng, 60)
        first = 0
        while first < len(texts):
            part = texts[first : first + rng.randint(1, 25)]
            ids = list(range(first, first + len(part)))
            while True:
                calls += 1
                try:
                    c.add(ids, texts=part)
                    break
                except EncoderFailed:
                    failed += 1
                    assert len(c) == first
            first += len(part)
        assert np.array_equal(c.vectors(list(range(60))), expected(texts)) and c.count() == 60
        rows += 60
    print(f"collections over HTTP: 20, seeds 1000 to 1019: {rows} rows by {calls} calls, {failed} of which failed for good; lost 0, misplaced 0")
    assert failed > 50


def test_add_table_names_the_rows_that_stay(service: planted.Service) -> None:
    db = vecdb.open()
    c = db.create_collection("c", encoder=made(service, batch_size=32, max_retries=1))
    service.plan = lambda number, asked: "500" if "text 250" in asked else "ok"
    table = [{"id": at, "text": f"text {at}"} for at in range(400)]
    with pytest.raises(EncoderFailed) as caught:
        c.add_table(table, text="text", batch_size=100)
    assert caught.value.committed == 200 and len(c) == 200
    service.plan = lambda number, asked: "ok"
    assert c.add_table(table, text="text", batch_size=100, on_conflict="skip") == 200 and len(c) == 400


def test_a_file_never_decides_where_texts_are_sent(service: planted.Service, tmp_path: Path) -> None:
    path = tmp_path / "h.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("c", encoder=made(service)).add(1, texts="one")
    assert str(service.url).encode() not in path.read_bytes()
    asked = len(service.requests)
    with vecdb.open(path) as db:
        c = db["c"]
        with pytest.raises(EncoderMismatch, match=r"given as an object, vecdb\.encoders\.http"):
            c.search("one")
        assert c.search(planted.vector("one"), k=1).ids == [1] and len(service.requests) == asked
        c = db.get_or_create_collection("c", encoder=made(service))
        assert c.search("one", k=1).ids == [1]
    with pytest.raises(InvalidArgument, match="given as an object"):
        encoders.get("http:planted")


def test_a_model_that_was_changed_behind_its_name_is_noticed(service: planted.Service, tmp_path: Path) -> None:
    path = tmp_path / "h.vecdb"
    with vecdb.open(path) as db:
        c = db.create_collection("papers", encoder=made(service))
        c.add([1, 2], texts=["one", "two"])
        asked = len(service.requests)
        c.search("one")
        assert len(service.requests) == asked + 1  # the model is looked at once for an open database
    service.salt = "another model"
    with vecdb.open(path) as db:
        c = db.get_or_create_collection("papers", encoder=made(service))
        for call in (lambda: c.search("one"), lambda: c.add(3, texts="three")):
            with pytest.raises(EncoderMismatch, match=r"cosine -?0\.\d+.*revision=.*papers\.reembed\(encoder\)"):
                call()
        assert len(c) == 2 and c.search(planted.vector("two"), k=1).ids == [2]
        with pytest.raises(SchemaError, match=r"papers\.reembed\(encoder\)"):
            db.get_or_create_collection("papers", encoder=made(service, revision="2"))
        c.reembed(made(service, revision="2"), bridge=False)
        assert c.search("one", k=1).ids == [1]
    with vecdb.open(path) as db:
        c = db.get_or_create_collection("papers", encoder=made(service, revision="2"))
        assert c.search("two", k=1).ids == [2] and np.array_equal(c.vectors([1])[0], planted.vector("one", salt="another model"))


def test_a_service_that_moved_is_the_same_encoder(service: planted.Service, tmp_path: Path) -> None:
    with planted.Service() as other:
        with vecdb.open(tmp_path / "h.vecdb") as db:
            db.create_collection("c", encoder=made(service)).add([1, 2], texts=["one", "two"])
        with vecdb.open(tmp_path / "h.vecdb") as db:
            c = db.get_or_create_collection("c", encoder=made(other))
            assert c.search("two", k=1).ids == [2] and other.requests
    distinct = {made(service, **options).fingerprint for options in
                ({}, {"dimensions": 6}, {"query_prefix": "a"}, {"document_prefix": "a"}, {"revision": "1"})}  # fmt: skip
    assert len(distinct) == 5 and made(service, batch_size=3, headers={"a": "b"}).fingerprint in distinct


def test_no_server_at_all_is_an_error_that_says_so() -> None:
    encoder = encoders.http("http://127.0.0.1:9/v1", "m", dim=3, max_retries=1)
    encoder._service.sleep = lambda seconds: None
    with pytest.raises(EncoderFailed, match=r"http://127\.0\.0\.1:9/v1/embeddings gave no vectors in 2 tries.*refused"):
        encoder.encode_documents(["a"])
    with pytest.raises(EncoderFailed):
        vecdb.open().create_collection("c", encoder=encoders.http("http://127.0.0.1:9/v1", "m", max_retries=0))
