"""Tiny static models in a folder, as the model2vec package saves them, for tests of encoders.

The numbers in the table are a fixed function of the token, so that EXPECTED, what the package itself
(model2vec 0.10.0) made of these folders, can stand here; the package is not needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["[UNK]", "[PAD]", "the", "red", "fox", "runs", "home", "to", "##ing", "sea", "run", "a"]
DIM = 4
TEXTS = ["the red fox runs home", "a fox", "running to the sea", "unknown words only, fox", "the " * 30, "THE", "fox fox red"]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normalized": {"normalize": True},
    "short": {"max_length": 3, "normalize": True},
    "unlimited": {"max_length": None},
    "quantized": {"mapped": True, "normalize": True},
    "f16": {"dtype": "float16"},
    "i8": {"dtype": "int8"},
    "unigram": {"unigram": True, "normalize": True},
}

# ten-thousandths, as StaticModel.from_pretrained(folder).encode(TEXTS) gave them
EXPECTED: dict[str, list[list[int]]] = {
    "plain": [[20000, 6000, 8000, 4000], [-10000, 20000, 0, -15000], [13333, 6667, 23333, 26667], [20000, 50000, 30000, -40000], [-10000, 20000, 0, 40000], [-10000, 20000, 0, 40000], [33333, 26667, 6667, -26667]],
    "normalized": [[8805, 2641, 3522, 1761], [-3714, 7428, 0, -5571], [3468, 1734, 6070, 6937], [2722, 6804, 4082, -5443], [-2182, 4364, 0, 8729], [-2182, 4364, 0, 8729], [6565, 5252, 1313, -5252]],
    "short": [[6623, 0, -5298, 5298], [-3714, 7428, 0, -5571], [0, 0, 0, 0], [0, 0, 0, 0], [-2182, 4364, 0, 8729], [-2182, 4364, 0, 8729], [2722, 6804, 4082, -5443]],
    "unlimited": [[20000, 6000, 8000, 4000], [-10000, 20000, 0, -15000], [13333, 6667, 23333, 26667], [20000, 50000, 30000, -40000], [-10000, 20000, 0, 40000], [-10000, 20000, 0, 40000], [33333, 26667, 6667, -26667]],
    "quantized": [[3920, 8431, 1385, -3410], [3379, 7110, 4622, -4083], [1206, 9144, 3852, 310], [2722, 6804, 4082, -5443], [-2182, 4364, 0, 8729], [-2182, 4364, 0, 8729], [5873, 5702, 1942, -5407]],
    "f16": [[20000, 6001, 7998, 3999], [-10000, 20000, 0, -15000], [13330, 6665, 23340, 26660], [20000, 50000, 30000, -40000], [-10000, 20000, 0, 40000], [-10000, 20000, 0, 40000], [33340, 26660, 6665, -26660]],
    "i8": [[20000, 6000, 8000, 4000], [-10000, 20000, 0, -15000], [13333, 6667, 23333, 26667], [20000, 50000, 30000, -40000], [-10000, 20000, 0, 40000], [-10000, 20000, 0, 40000], [33333, 26667, 6667, -26667]],
    "unigram": [[8805, 2641, 3522, 1761], [-3714, 7428, 0, -5571], [2416, 3021, 4833, 7854], [2722, 6804, 4082, -5443], [-2182, 4364, 0, 8729], [0, 0, 0, 0], [6565, 5252, 1313, -5252]],
}


def build(folder: Path, *, normalize: bool | None = None, max_length: Any = "unset", mapped: bool = False,
          dtype: str = "float32", unigram: bool = False) -> Path:  # fmt: skip
    """Write model.safetensors, tokenizer.json and config.json."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    folder.mkdir(exist_ok=True)
    if unigram:
        tokenizer = Tokenizer(models.Unigram([(word, -1.0 - at) for at, word in enumerate(WORDS)], unk_id=0))
    else:
        vocabulary = {word: at for at, word in enumerate(WORDS)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(pad_id=1, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.array([[(7 * at + 3 * axis * axis) % 11 - 4 for axis in range(DIM)] for at in range(len(WORDS))])
    tensors: dict[str, Any] = {"embeddings": table.astype(dtype)}
    if mapped:
        tensors["embeddings"] = table[:5].astype(dtype)
        tensors["mapping"] = np.arange(len(WORDS), dtype=np.int64) % 5
        tensors["weights"] = np.linspace(0.1, 2, len(WORDS)).astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    config: dict[str, Any] = {"model_type": "model2vec", "hidden_dim": DIM}
    if normalize is not None:
        config["normalize"] = normalize
    if max_length != "unset":
        config["max_length"] = max_length
    (folder / "config.json").write_text(json.dumps(config))
    return folder
