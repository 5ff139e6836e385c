"""Encoders from folders: model2vec's vectors are the package's own; nothing is ever downloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import models
from vecdb import encoders
from vecdb.encoders import registry
from vecdb.encoders.base import Encoder
from vecdb.errors import EncoderMismatch, InvalidArgument

needs_text = pytest.mark.skipif(
    bool(registry.missing("model2vec")), reason="tokenizers and safetensors (extra `text`) are not installed"
)


@needs_text
@pytest.mark.parametrize("variant", models.VARIANTS)
def test_model2vec_agrees_with_its_own_package(tmp_path: Path, variant: str) -> None:
    """The expected numbers are the package's; where it gives zeros we give the mean of the table."""
    encoder = encoders.model2vec(models.build(tmp_path / "m", **models.VARIANTS[variant]))
    expected = np.array(models.EXPECTED[variant]) / 1e4
    made = encoder.encode_documents(models.TEXTS)
    assert isinstance(encoder, Encoder) and made.dtype == np.float32 and encoder.dim == models.DIM
    known = expected.any(axis=1)
    assert known.sum() >= 4
    assert np.allclose(made[known], expected[known], atol=2e-3 if variant == "f16" else 1e-4)
    assert made.any(axis=1).all()
    for row, text in enumerate(models.TEXTS):
        assert made[row].tobytes() == encoder.encode_queries([text])[0].tobytes()


@needs_text
def test_model2vec_agrees_with_the_package_where_it_is_installed(tmp_path: Path) -> None:
    peer = pytest.importorskip("model2vec", reason="the model2vec package is not installed")
    for variant, options in models.VARIANTS.items():
        folder = models.build(tmp_path / variant, **options)
        theirs = peer.StaticModel.from_pretrained(folder).encode(models.TEXTS).astype(np.float32)
        known = theirs.any(axis=1)
        assert np.allclose(encoders.model2vec(folder).encode_documents(models.TEXTS)[known], theirs[known], atol=2e-3)


@needs_text
def test_a_text_without_a_known_token_has_the_tables_mean(tmp_path: Path) -> None:
    encoder = encoders.model2vec(models.build(tmp_path / "m", normalize=True))
    made = encoder.encode_documents(["", "zzz", "fox"])
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert encoder.encode_documents([]).shape == (0, models.DIM)
    with pytest.raises(InvalidArgument, match=r"texts\[1\]"):
        encoder.encode_documents(["fox", 3])  # type: ignore[list-item]


@needs_text
def test_a_collection_finds_its_model_again_and_notices_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_made", {})
    folder, path = models.build(tmp_path / "m"), tmp_path / "c.vecdb"
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=f"model2vec:{folder}")
        c.add(["fox", "sea"], texts=["the red fox", "the sea"])
        assert c.schema.encoder == f"model2vec:{folder.resolve()}"
    monkeypatch.chdir(tmp_path)
    registry._made.clear()
    with vecdb.open(path) as db:
        assert db["c"].search("a fox", 1).ids == ["fox"]
        assert db.get_or_create_collection("c", encoder=encoders.model2vec("m")).search("sea", 1).ids == ["sea"]
    folder.rename(tmp_path / "moved")
    registry._made.clear()
    with vecdb.open(path) as db:
        with pytest.raises(EncoderMismatch, match="not at hand"):
            db["c"].search("fox")
        moved = db.get_or_create_collection("c", encoder=encoders.model2vec(tmp_path / "moved"))
        assert moved.search("fox", 1).ids == ["fox"] and db["c"].search("fox", 1).ids == ["fox"]
    models.build(folder, normalize=True)
    registry._made.clear()
    with vecdb.open(path) as db, pytest.raises(EncoderMismatch, match="fingerprint"):
        db["c"].search("fox")


@needs_text
def test_models_in_the_local_cache_and_in_packages_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--somebody--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    models.build(snapshot)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = encoders.model2vec("somebody/tiny")
    assert found.name == "model2vec:somebody/tiny"
    package = tmp_path / "site" / "tiny_model_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    models.build(package)
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert encoders.model2vec("tiny_model_package").fingerprint == found.fingerprint


def damaged(folder: Path, how: str) -> None:
    from safetensors.numpy import save_file

    if how in ("model.safetensors", "tokenizer.json", "config.json"):
        (folder / how).unlink()
    elif how.startswith("bad "):
        (folder / how[4:]).write_bytes(b"{ no")
    elif how == "few rows":
        save_file({"embeddings": np.ones((3, 4), np.float32)}, folder / "model.safetensors")
    elif how == "no table":
        save_file({"other": np.ones((12, 4), np.float32)}, folder / "model.safetensors")
    elif how == "nan":
        save_file({"embeddings": np.full((12, 4), np.nan, np.float32)}, folder / "model.safetensors")
    elif how == "mapping":
        tensors = {"embeddings": np.ones((5, 4), np.float32), "mapping": np.arange(12)}
        save_file(tensors, folder / "model.safetensors")
    else:
        (folder / "config.json").write_text(json.dumps({"max_length": 0} if how == "length" else []))


@needs_text
@pytest.mark.parametrize(
    "how",
    ["model.safetensors", "tokenizer.json", "config.json", "bad model.safetensors", "bad tokenizer.json",
     "bad config.json", "few rows", "no table", "nan", "mapping", "length", "list"],
)  # fmt: skip
def test_a_folder_that_is_no_model_is_refused_by_name(tmp_path: Path, how: str) -> None:
    folder = models.build(tmp_path / "m")
    damaged(folder, how)
    with pytest.raises(InvalidArgument, match="encoder 'model2vec'") as caught:
        encoders.model2vec(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["model2vec", "sentence_transformers", "bert", "onnx"])
def test_a_folder_must_be_named_and_be_there(name: str) -> None:
    with pytest.raises(InvalidArgument, match="needs a folder"):
        encoders.get(name)
    with pytest.raises(InvalidArgument, match="no/such|package"):
        encoders.get(f"{name}:no/such")
    assert name not in encoders.available()
    for folder in (3, None, b"x"):
        with pytest.raises(InvalidArgument, match=f"encoder '{name}': folder=.*: give a path"):
            getattr(encoders, name)(folder)


@needs_text
def test_model2vec_opens_no_socket(tmp_path: Path) -> None:
    folder = models.build(tmp_path / "m")
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.__init__ = refuse\n"
        "import vecdb.encoders as e\n"
        "e.get('model2vec:' + sys.argv[1]).encode_queries(['one'])\n"
        "try: e.get('model2vec:somebody/nothing')\n"
        "except e.base.InvalidArgument: pass\n"
        "assert not {'torch', 'requests', 'httpx'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)


# --- sentence-transformers ---------------------------------------------------------------------------


class Stub:
    """A model as the package loads one: what it is told is kept."""

    told: dict[str, Any] = {}
    similarity_fn_name = "dot"
    max_seq_length = 128
    prompts = {"query": "query: "}

    def __init__(self, folder: str, **options: Any) -> None:
        Stub.told = {"folder": folder, **options}

    def get_sentence_embedding_dimension(self) -> int:
        return 2

    def encode(self, texts: list[str], prompt_name: str | None = None, **options: Any) -> Any:
        assert options == {"convert_to_numpy": True, "show_progress_bar": False}
        return np.array([[len(text), 7 if prompt_name else 1] for text in texts], np.float64)


class Newer(Stub):
    """A later version: a method for each kind of text."""

    similarity_fn_name = "euclidean"

    def encode_query(self, texts: list[str], **options: Any) -> Any:
        return np.array([[len(text), 9] for text in texts])

    def encode_document(self, texts: list[str], **options: Any) -> Any:
        return np.array([[len(text), 8] for text in texts])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "st"
    found.mkdir()
    (found / "modules.json").write_text("[]")
    (found / "model.safetensors").write_bytes(b"weights")
    return found


def stubbed(monkeypatch: pytest.MonkeyPatch, model: type) -> None:
    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(registry, "_made", {})


def test_sentence_transformers_looks_at_the_folder_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubbed(monkeypatch, Stub)
    encoder = encoders.get(f"sentence_transformers:{folder}")
    assert Stub.told == {"folder": str(folder.resolve()), "local_files_only": True, "trust_remote_code": False}
    assert isinstance(encoder, Encoder) and (encoder.dim, encoder.metric) == (2, "dot")
    assert encoder.encode_documents(["four"]).tolist() == [[4, 1]]
    assert encoder.encode_queries(["four"]).tolist() == [[4, 7]], "its own prompt for queries"
    assert encoder.encode_documents([]).shape == (0, 2)
    stubbed(monkeypatch, Newer)
    newer = encoders.sentence_transformers(folder)
    assert newer.metric == "l2" and newer.fingerprint == encoder.fingerprint
    assert (newer.encode_documents(["a"])[0, 1], newer.encode_queries(["a"])[0, 1]) == (8, 9)
    (folder / "model.safetensors").write_bytes(b"others")
    assert encoders.sentence_transformers(folder).fingerprint != encoder.fingerprint


def test_sentence_transformers_names_what_is_wrong(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(Stub):
        def __init__(self, folder: str, **options: Any) -> None:
            raise OSError("no weights")

    stubbed(monkeypatch, Fails)
    with pytest.raises(InvalidArgument, match="no weights"):
        encoders.sentence_transformers(folder)
    with pytest.raises(InvalidArgument, match="downloads nothing"):
        encoders.sentence_transformers("sentence-transformers/all-MiniLM-L6-v2")


def test_sentence_transformers_without_its_package_names_the_extra(folder: Path) -> None:
    if not registry.missing("sentence_transformers"):
        pytest.skip("sentence-transformers is installed here")
    with pytest.raises(InvalidArgument, match=r"pip install 'vecdb-engine\[st\]'"):
        encoders.sentence_transformers(folder)


def test_sentence_transformers_with_its_package(tmp_path: Path) -> None:
    package = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    static = pytest.importorskip("sentence_transformers.models")
    from tokenizers import Tokenizer

    made = models.build(tmp_path / "m")
    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    package.SentenceTransformer(modules=[static.StaticEmbedding(tokenizer, embedding_dim=8)]).save(str(tmp_path / "st"))
    encoder = encoders.sentence_transformers(tmp_path / "st")
    assert encoder.encode_documents(["the red fox"]).shape == (1, 8) and encoder.dim == 8
