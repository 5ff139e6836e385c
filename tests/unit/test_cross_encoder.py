"""encoders.cross_encoder: scores of pairs equal a plain float64 reference; hits in, scores out."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import berts
from vecdb import encoders
from vecdb.encoders import registry
from vecdb.errors import InvalidArgument
from vecdb.query import Near, Rerank

needs_text = pytest.mark.skipif(bool(registry.missing("bert")), reason="tokenizers (extra `text`) is not installed")
QUERY = "a whale hunt"
TEXTS = ["the captain hunts the whale", "silk trade", "", "ship " * 60, "the red fox runs home", "silk trade"]


@dataclass
class Hit:
    """What Rerank hands over, as far as it counts here."""

    text: str | None
    metadata: dict[str, Any] = field(default_factory=dict)


def head(kind: str, seed: int) -> dict[str, Any]:
    """The tensors of a family's head for one output."""
    rng = np.random.default_rng(seed)
    inner, outer = {"bert": ("pooler.dense", "classifier"), "distilbert": ("pre_classifier", "classifier")}.get(
        kind, ("classifier.dense", "classifier.out_proj")
    )
    return {
        f"{inner}.weight": rng.normal(size=(berts.DIM, berts.DIM)), f"{inner}.bias": rng.normal(size=berts.DIM),
        f"{outer}.weight": rng.normal(size=(1, berts.DIM)), f"{outer}.bias": rng.normal(size=1),
    }  # fmt: skip


def build(folder: Path, kind: str = "bert", seed: int = 0, **config: Any) -> dict[str, Any]:
    config.setdefault("id2label", {"0": "LABEL_0"})
    return berts.build(folder, kind, seed=seed, more=head(kind, seed + 100), config=config)


def reference(tensors: dict[str, Any], kind: str, query: str, text: str) -> float:
    a, b = (berts.pieces(kind, each, 1000) for each in (query, text))
    between = a[-1:] * (2 if berts.offset(kind) else 1)
    a, b = a[1:-1], b[1:-1]
    while len(a) + len(b) + 2 + len(between) > berts.POSITIONS:  # the longer one gives way
        (b if len(b) >= len(a) else a).pop()
    begin = berts.pieces(kind, "")[0]
    tokens = [begin, *a, *between, *b, between[0]]
    typed = kind in ("bert", "electra")
    types_ = [0] * (1 + len(a) + len(between)) + [int(typed)] * (len(b) + 1)
    first = berts.states(tensors, kind, tokens, types_)[0]
    inner, outer = [name[: -len(".weight")] for name in head(kind, 0) if name.endswith("weight")]
    x = tensors[f"{inner}.weight"] @ first + tensors[f"{inner}.bias"]
    x = {"distilbert": lambda: np.maximum(x, 0), "electra": lambda: np.array([berts.act("gelu", v) for v in x])}.get(kind, lambda: np.tanh(x))()
    return float((tensors[f"{outer}.weight"] @ x + tensors[f"{outer}.bias"])[0])


@needs_text
@pytest.mark.parametrize("kind", berts.KINDS)
def test_every_family_equals_the_reference(tmp_path: Path, kind: str) -> None:
    tensors = build(tmp_path / "m", kind)
    wanted = [reference(tensors, kind, QUERY, text) for text in TEXTS]
    model = encoders.cross_encoder(tmp_path / "m")
    made = model(QUERY, [Hit(text) for text in TEXTS])
    assert made.dtype == np.float32 and made.shape == (len(TEXTS),) and model.runs_by == "numpy"
    assert np.allclose(made, [1 / (1 + math.exp(-each)) for each in wanted], atol=2e-5)
    plain = {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5"}}
    build(tmp_path / "m", kind, **plain)
    made = encoders.cross_encoder(tmp_path / "m")(QUERY, [Hit(text) for text in TEXTS])
    assert np.allclose(made, wanted, atol=1e-4)
    build(tmp_path / "m", kind, sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    assert np.array_equal(encoders.cross_encoder(tmp_path / "m")(QUERY, [Hit(text) for text in TEXTS]), made)


@needs_text
def test_texts_come_from_the_hit_or_a_field_of_its_metadata(tmp_path: Path) -> None:
    build(tmp_path / "m")
    by_text = encoders.cross_encoder(tmp_path / "m")
    wanted = by_text(QUERY, [Hit("red fox"), Hit(""), Hit("silk 3")])
    assert np.array_equal(by_text(QUERY, [Hit("red fox"), Hit(None), Hit("silk 3")]), wanted)
    plot = encoders.cross_encoder(tmp_path / "m", field="film.plot")
    hits = [Hit(None, {"film": {"plot": "red fox"}}), Hit("silk", {"other": 1}), Hit(None, {"film.plot": ["silk", 3]})]
    assert np.allclose(plot(QUERY, hits), wanted, atol=1e-6)
    assert by_text(QUERY, []).shape == (0,)
    assert np.array_equal(by_text.score([(QUERY, "red fox")]), by_text(QUERY, [Hit("red fox")]))
    near, text = types.SimpleNamespace(x=QUERY), types.SimpleNamespace(text=QUERY)
    assert np.array_equal(by_text(near, hits), by_text(QUERY, hits)) and np.array_equal(by_text(text, hits), by_text(QUERY, hits))


@needs_text
def test_what_cannot_be_scored_is_named(tmp_path: Path) -> None:
    build(tmp_path / "m")
    model = encoders.cross_encoder(tmp_path / "m")
    for query in (np.zeros(3), None, 3):
        with pytest.raises(InvalidArgument, match="compares texts"):
            model(query, [Hit("fox")])
    for pairs in ([("a",)], [("a", 1)], ["ab"]):
        with pytest.raises(InvalidArgument, match=r"pairs\[0\]"):
            model.score(pairs)  # type: ignore[arg-type]
    for named in ("", 3):
        with pytest.raises(InvalidArgument, match="field"):
            encoders.cross_encoder(tmp_path / "m", field=named)  # type: ignore[arg-type]
    build(tmp_path / "m", id2label={"0": "no", "1": "yes"})
    with pytest.raises(InvalidArgument, match="2 outputs"):
        encoders.cross_encoder(tmp_path / "m")
    build(tmp_path / "m", sbert_ce_default_activation_function="a.Softmax")
    with pytest.raises(InvalidArgument, match="Softmax"):
        encoders.cross_encoder(tmp_path / "m")
    berts.build(tmp_path / "bare")
    with pytest.raises(InvalidArgument, match="classifier|pooler"):
        encoders.cross_encoder(tmp_path / "bare")
    with pytest.raises(InvalidArgument, match="downloads nothing"):
        encoders.cross_encoder("cross-encoder/nowhere")


def test_other_families_run_by_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    class Stub:
        def __init__(self, folder: str, **options: Any) -> None:
            told.update(folder=folder, **options)

        def predict(self, pairs: list[tuple[str, str]], **options: Any) -> Any:
            assert options == {"convert_to_numpy": True, "show_progress_bar": False}
            return np.array([len(text) if text != "bad" else math.nan for _, text in pairs])

    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "modernbert", "id2label": {"0": "a"}}))
    module = types.ModuleType("sentence_transformers")
    module.CrossEncoder = Stub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    model = encoders.cross_encoder(folder)
    assert told == {"folder": str(folder.resolve()), "local_files_only": True, "trust_remote_code": False}
    assert model(QUERY, [Hit("four"), Hit(None)]).tolist() == [4, 0] and model.runs_by == "sentence_transformers"
    with pytest.raises(InvalidArgument, match="not finite"):
        model(QUERY, [Hit("bad")])
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    if registry.missing("sentence_transformers"):
        with pytest.raises(InvalidArgument, match=r"pip install 'vecdb-engine\[st\]'"):
            encoders.cross_encoder(folder)


@needs_text
def test_rerank_takes_one(tmp_path: Path) -> None:
    """A search in the model's order: the best of the query, whatever their vectors say."""
    tensors = build(tmp_path / "m")
    texts = [text for text in TEXTS[:5] if text]
    with vecdb.open() as db:
        c = db.create_collection("c", encoder="hashing")
        c.add(list(range(len(texts))), texts=texts)
        hits = c.search(Rerank(Near(QUERY), by=encoders.cross_encoder(tmp_path / "m")), k=len(texts))
    wanted = [1 / (1 + math.exp(-reference(tensors, "bert", QUERY, text))) for text in texts]
    assert hits.ids == sorted(range(len(texts)), key=lambda at: -wanted[at])
    assert np.allclose(hits.scores, sorted(wanted, reverse=True), atol=2e-5)
