"""Encoders: the same text gives the same vector, everywhere and in any company."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from vecdb import encoders
from vecdb.encoders import registry
from vecdb.encoders.base import Card, Encoder
from vecdb.encoders.hashing import HashingEncoder
from vecdb.errors import InvalidArgument

TEXTS = [
    "Return a new sorted list from the items in iterable.",
    "read_csv reads a file of comma separated values",
    "",
    "   ",
    "!!! ???",
    "Straße STRASSE strasse",
    "索引 ベクトル データベース",
    "a" * 1000,
    "word " * 1000,
    "\x00\x02\x03 \ud800",
    "😀😀",
]

BUILT_IN = [
    "hashing",
    "hashing:64",
    pytest.param(
        "wordllama",
        marks=pytest.mark.skipif(
            bool(registry.missing("wordllama")), reason="the extra `text` is not installed"
        ),
    ),
]


@pytest.fixture(params=BUILT_IN)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return encoders.get(request.param)


def texts_for(encoder: Encoder) -> list[str]:
    """A lone surrogate is no text that a tokenizer of UTF-8 could take."""
    return [t for t in TEXTS if encoder.name.startswith("hashing") or "\ud800" not in t]


def test_vectors_have_the_promised_shape_and_length(encoder: Encoder) -> None:
    texts = texts_for(encoder)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        vectors = encode(texts)
        assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
        assert vectors.shape == (len(texts), encoder.dim)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.encode_documents([]).shape == (0, encoder.dim)
    assert encoder.metric == "cosine" and isinstance(encoder.card, Card)


def test_a_text_is_encoded_alike_alone_and_in_any_batch(encoder: Encoder) -> None:
    texts = texts_for(encoder)
    together = encoder.encode_documents(texts * 60)
    for row, text in enumerate(texts):
        alone = encoder.encode_documents([text])[0]
        for copy in range(0, len(together), len(texts)):
            assert alone.tobytes() == together[copy + row].tobytes()


def test_another_process_makes_the_same_bytes(encoder: Encoder) -> None:
    code = (
        "import sys, vecdb.encoders as e; "
        f"m = e.get({encoder.name!r}); texts = {texts_for(encoder)!r}; "
        "print(m.fingerprint, m.encode_documents(texts).tobytes().hex())"
    )
    seen = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout.strip())
    here = encoder.encode_documents(texts_for(encoder)).tobytes().hex()
    assert seen == {f"{encoder.fingerprint} {here}"}


def test_hashing_is_the_same_on_every_machine_forever() -> None:
    """Stored collections rest on it: another value here is another encoder, not a repair."""
    vector = HashingEncoder(16).encode_documents(["An embedded vector database"])[0]
    assert (vector * 1e6).round().astype(int).tolist() == HASHED
    assert HashingEncoder().fingerprint == FINGERPRINT


HASHED = [
    329293, 109764, 548821, 329293, -109764, 109764, 109764, -109764,
    109764, 329293, 109764, -109764, -109764, 329293, -219529, -329293,
]  # fmt: skip
FINGERPRINT = "eaf42e69f0754430f33868ad7b40eb6c"


def test_hashing_brings_spellings_of_one_word_together() -> None:
    vectors = HashingEncoder().encode_documents(
        ["indexes", "indexing", "whale", "WHALES", "Indexes!", "ｉｎｄｅｘｅｓ"]
    )
    near = [vectors[0] @ vectors[1], vectors[2] @ vectors[3]]
    far = [vectors[0] @ vectors[2], vectors[1] @ vectors[3]]
    assert min(near) > 0.3 > 0.15 > max(far)
    assert np.array_equal(vectors[0], vectors[4]) and np.array_equal(vectors[0], vectors[5])


def test_fingerprints_differ_where_vectors_do() -> None:
    names = ["hashing", "hashing:64", "hashing:128"]
    if not registry.missing("wordllama"):
        names += ["wordllama", "wordllama:64"]
    prints = {encoders.get(name).fingerprint for name in names}
    assert len(prints) == len(names)
    assert encoders.get("hashing:512").fingerprint == encoders.get("hashing").fingerprint


def test_wordllama_agrees_with_its_own_package() -> None:
    wordllama = pytest.importorskip("wordllama")
    from pathlib import Path

    folder = Path(wordllama.__file__).parent
    peer = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    texts = [t for t in texts_for(encoders.get("wordllama")) if t]
    expected = peer.embed(texts, norm=True)
    assert np.allclose(encoders.get("wordllama").encode_documents(texts), expected, atol=1e-5)
    short = encoders.get("wordllama:64").encode_documents(texts)
    cut = expected[:, :64] / np.linalg.norm(expected[:, :64], axis=1, keepdims=True)
    assert np.allclose(short, cut, atol=1e-5)


def test_wordllama_without_its_extra_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.encoders.wordllama.MODULES", ("no_such_module_here",))
    monkeypatch.setattr(registry, "_made", {})
    with pytest.raises(InvalidArgument, match=r"pip install 'vecdb-engine\[text\]'"):
        encoders.get("wordllama")
    assert "wordllama" not in encoders.available()


def test_wordllama_opens_no_socket_and_leaves_logging_alone() -> None:
    if registry.missing("wordllama"):
        pytest.skip("the extra `text` is not installed")
    code = (
        "import logging, socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.__init__ = refuse\n"
        "import vecdb.encoders as e\n"
        "e.get('wordllama').encode_queries(['one'])\n"
        "assert not logging.getLogger().handlers\n"
        "assert 'requests' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["hashing:8", "hashing:x", "hashing:99999999", "none", ""])
def test_unknown_names_and_parameters_are_named(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encoders.get(name)
    assert "encoder" in str(caught.value)


def test_a_text_that_is_no_str_is_named_by_row(encoder: Encoder) -> None:
    with pytest.raises(InvalidArgument, match=r"texts\[1\]"):
        encoder.encode_documents(["fine", 3])  # type: ignore[list-item]
    with pytest.raises(InvalidArgument, match="list of texts"):
        encoder.encode_documents("one str")
    for encode in (encoder.encode_documents, encoder.encode_queries):
        if encoder.name.startswith("hashing"):
            assert encode(["a \ud800"]).any()
            continue
        with pytest.raises(InvalidArgument, match=r"texts\[1\] .* lone surrogate at position 2; it is no text"):
            encode(["ü fine", "a \ud800"])


def test_function_makes_an_encoder_of_a_callable() -> None:
    made = encoders.function(lambda texts: [[len(t), 1] for t in texts], name="len", dim=2)
    assert isinstance(made, Encoder)
    assert made.encode_documents(["four", ""]).tolist() == [[4, 1], [0, 1]]
    assert made.encode_documents([]).shape == (0, 2)
    assert encoders.get(made) is made
    again = encoders.function(lambda texts: [], name="len", dim=2)
    assert again.fingerprint == made.fingerprint
    asked = encoders.function(
        lambda t: np.zeros((len(t), 2)),
        name="len",
        dim=2,
        queries=lambda t: np.ones((len(t), 2)),
    )
    assert asked.encode_queries(["a"]).tolist() == [[1, 1]]
    assert asked.encode_documents(["a"]).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        ([[1.0, 2.0, 3.0]], "shape"),
        ([[1.0, float("nan")]], "NaN"),
        ([[1e300, 1.0]], "infinity"),
        ([["a", "b"]], "real numbers"),
        ([[1.0], [1.0, 2.0]], "rectangular"),
    ],
)
def test_function_refuses_what_is_no_vector(returned: object, complaint: str) -> None:
    made = encoders.function(lambda texts: returned, name="bad", dim=2)
    with pytest.raises(InvalidArgument, match=complaint):
        made.encode_documents(["one"])


def test_register_adds_replaces_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_made", {})
    encoders.register("mine", lambda dim="32": HashingEncoder(int(dim)))
    assert "mine" in encoders.available()
    assert encoders.get("mine").dim == 32 and encoders.get("mine:64").dim == 64
    assert encoders.get("mine") is encoders.get("mine")
    encoders.register("mine", lambda: HashingEncoder(16))
    assert encoders.get("mine").dim == 16
    with pytest.raises(InvalidArgument, match="parameter"):
        encoders.get("mine:64")
    with pytest.raises(InvalidArgument, match="colon"):
        encoders.register("a:b", lambda: HashingEncoder())
    encoders.register("junk", lambda: object())  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidArgument, match="lacks"):
        encoders.get("junk")
    with pytest.raises(InvalidArgument, match="lacks"):
        encoders.get(len)  # type: ignore[arg-type]
