"""Tiny random models of the BERT family in a folder, and what they must give, by plain float64 loops.

`build` writes config.json, model.safetensors (by hand: the format is a header and bytes) and a tokenizer;
`states` runs the network as its papers describe it, one text, one head, one token after another, with
math.erf, and nothing of the package under test.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

WORDS = "the red fox runs home to sea ##ing ##s a whale hunt captain silk trade desert ship water ice cold".split()
TEXTS = ["the red fox runs home", "a fox", "running to the sea, the cold sea", "", "zebra", "FOX fox Fox",
         "a captain hunts the whale", "ship " * 40, "silk trade", "the red fox runs home"]  # fmt: skip
SPECIAL = {"bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "roberta": ["<s>", "<pad>", "</s>", "<unk>"]}
KINDS = ("bert", "electra", "roberta", "xlm-roberta", "distilbert", "mpnet")
LAYERS, HEADS, DIM, WIDE, POSITIONS = 2, 3, 12, 20, 24

NAMES = {
    "bert": ("encoder.layer.{}.", "attention.self.query attention.self.key attention.self.value attention.output.dense "
             "attention.output.LayerNorm intermediate.dense output.dense output.LayerNorm"),
    "mpnet": ("encoder.layer.{}.", "attention.attn.q attention.attn.k attention.attn.v attention.attn.o "
              "attention.LayerNorm intermediate.dense output.dense output.LayerNorm"),
    "distilbert": ("transformer.layer.{}.", "attention.q_lin attention.k_lin attention.v_lin attention.out_lin "
                   "sa_layer_norm ffn.lin1 ffn.lin2 output_layer_norm"),
}  # fmt: skip
PARTS = ("q", "k", "v", "o", "n1", "up", "down", "n2")


def build(folder: Path, kind: str = "bert", *, seed: int = 0, act: str = "gelu", prefix: str = "", scale: float = 0.6,
          dtype: str = "F32", vocab_only: bool = False, files: dict[str, Any] | None = None,
          more: dict[str, Array] | None = None, config: dict[str, Any] | None = None) -> dict[str, Array]:  # fmt: skip
    """Write a model; return its tensors as they are stored, in float64, by their names without prefix."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = tokenizer(folder, kind, vocab_only)
    narrow = 8 if kind == "electra" else DIM
    tensors: dict[str, Array] = {}

    def dense(name: str, inner: int, outer: int) -> None:
        tensors[f"{name}.weight"] = scale * rng.normal(size=(outer, inner))
        tensors[f"{name}.bias"] = scale * rng.normal(size=outer)

    def norm(name: str, width: int) -> None:
        tensors[f"{name}.weight"] = 1 + 0.2 * rng.normal(size=width)
        tensors[f"{name}.bias"] = 0.2 * rng.normal(size=width)

    tensors["embeddings.word_embeddings.weight"] = rng.normal(size=(vocabulary, narrow))
    tensors["embeddings.position_embeddings.weight"] = rng.normal(size=(POSITIONS + offset(kind), narrow))
    if kind not in ("distilbert", "mpnet"):
        tensors["embeddings.token_type_embeddings.weight"] = rng.normal(size=(1 if offset(kind) else 2, narrow))
    norm("embeddings.LayerNorm", narrow)
    if narrow != DIM:
        dense("embeddings_project", narrow, DIM)
    if kind == "mpnet":
        tensors["encoder.relative_attention_bias.weight"] = rng.normal(size=(32, HEADS))
    for layer in range(LAYERS):
        name = names(kind, layer)
        for part, inner, outer in (("q", DIM, DIM), ("k", DIM, DIM), ("v", DIM, DIM), ("o", DIM, DIM), ("up", DIM, WIDE), ("down", WIDE, DIM)):
            dense(name[part], inner, outer)
        norm(name["n1"], DIM)
        norm(name["n2"], DIM)
    tensors |= more or {}
    settings: dict[str, Any] = {"model_type": kind, "layer_norm_eps": 1e-5, "pad_token_id": 0 if not offset(kind) else 1}
    if kind == "distilbert":
        settings |= {"dim": DIM, "n_heads": HEADS, "n_layers": LAYERS, "hidden_dim": WIDE, "activation": act}
        del settings["layer_norm_eps"]
    else:
        settings |= {"hidden_size": DIM, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
                     "intermediate_size": WIDE, "hidden_act": act}  # fmt: skip
    write(folder, {"config.json": settings | (config or {}), **(files or {})})
    prefixed = {(name if "classifier" in name else prefix + name): value for name, value in tensors.items()}
    stored = save(folder / "model.safetensors", prefixed, dtype)
    return {name.removeprefix(prefix): value for name, value in stored.items()}


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def save(path: Path, tensors: dict[str, Array], dtype: str = "F32") -> dict[str, Array]:
    """Write a safetensors file; return what its numbers are after rounding to their kind."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, at, stored = [], 0, {}
    for name, value in tensors.items():
        if dtype == "BF16":
            kept = (value.astype("<f4").view("<u4") >> 16).astype("<u2")
            stored[name] = (kept.astype("<u4") << 16).view("<f4").astype(np.float64)
        else:
            kept = value.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype])
            stored[name] = kept.astype(np.float32).astype(np.float64)
        raw = kept.tobytes()
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at + len(raw)]}
        parts.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return stored


def tokenizer(folder: Path, kind: str, vocab_only: bool) -> int:
    """Write tokenizer.json, or vocab.txt alone; the number of tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = SPECIAL["roberta" if offset(kind) else "bert"]
    words = special + WORDS
    if vocab_only:
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        return len(words)
    unknown = special[3] if offset(kind) else special[1]
    begin, end = (special[0], special[2]) if offset(kind) else (special[2], special[3])
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token=unknown))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    between = f"{end}:0 {end}:0" if offset(kind) else f"{end}:0"
    second = 0 if offset(kind) else 1
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin}:0 $A:0 {end}:0", pair=f"{begin}:0 $A:0 {between} $B:{second} {end}:{second}",
        special_tokens=[(begin, words.index(begin)), (end, words.index(end))],
    )  # fmt: skip
    made.enable_truncation(8)
    made.enable_padding(length=16)  # both are settings that must not count
    made.save(str(folder / "tokenizer.json"))
    return len(words)


def offset(kind: str) -> int:
    """Where positions begin."""
    return 2 if kind in ("roberta", "xlm-roberta", "mpnet") else 0


def names(kind: str, layer: int) -> dict[str, str]:
    at, listed = NAMES.get(kind, NAMES["bert"])
    return {part: at.format(layer) + name for part, name in zip(PARTS, listed.split(), strict=True)}


def pieces(kind: str, text: str, longest: int = POSITIONS) -> list[int]:
    """The tokens of a text: whole words, else the first known beginning and ##ends, else unknown."""
    special = SPECIAL["roberta" if offset(kind) else "bert"]
    words = special + WORDS
    begin, end, unknown = (0, 2, 3) if offset(kind) else (2, 3, 1)
    found: list[int] = []
    for word in "".join(f" {c} " if c == "," else c for c in text.lower()).split():
        parts, rest = [], word
        while rest:
            fits = [w for n in range(len(rest), 0, -1) if (w := ("##" if parts else "") + rest[:n]) in words[4:]]
            if not fits:
                parts = [unknown]
                break
            parts.append(words.index(fits[0]))
            rest = rest[len(fits[0].removeprefix("##")) :]
        found += parts
    return [begin, *found[: longest - 2], end]


# --- the network -----------------------------------------------------------------------------------


def act(name: str, x: float) -> float:
    if name == "relu":
        return max(x, 0.0)
    if name == "gelu":
        return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def linear(tensors: dict[str, Array], name: str, x: Array) -> Array:
    made: Array = np.array([tensors[f"{name}.weight"] @ row + tensors[f"{name}.bias"] for row in x])
    return made


def normed(tensors: dict[str, Array], name: str, x: Array, epsilon: float) -> Array:
    rows = [(row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean() + epsilon) for row in x]
    return np.array(rows) * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def bucket(relative: int) -> int:
    """T5's bucket of a distance as MPNet has it: key's place less query's."""
    n, base = abs(relative), 16 if relative > 0 else 0
    if n < 8:
        return base + n
    return base + min(15, 8 + int(math.log(n / 8) / math.log(128 / 8) * 8))


def states(tensors: dict[str, Array], kind: str, tokens: list[int], types: list[int] | None = None, how: str = "gelu") -> Array:
    """The last layer's states of one sequence, (len(tokens), DIM)."""
    epsilon = 1e-12 if kind == "distilbert" else 1e-5
    rows = []
    for place, token in enumerate(tokens):
        row = tensors["embeddings.word_embeddings.weight"][token] + tensors["embeddings.position_embeddings.weight"][place + offset(kind)]
        if "embeddings.token_type_embeddings.weight" in tensors:
            row = row + tensors["embeddings.token_type_embeddings.weight"][types[place] if types else 0]
        rows.append(row)
    x = normed(tensors, "embeddings.LayerNorm", np.array(rows), epsilon)
    if "embeddings_project.weight" in tensors:
        x = linear(tensors, "embeddings_project", x)
    for layer in range(LAYERS):
        name = names(kind, layer)
        q, k, v = (linear(tensors, name[part], x) for part in "qkv")
        mixed, size = np.zeros_like(x), DIM // HEADS
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(x)):
                scores = [q[i, part] @ k[j, part] / math.sqrt(size) for j in range(len(x))]
                if kind == "mpnet":
                    near = tensors["encoder.relative_attention_bias.weight"]
                    scores = [s + near[bucket(j - i), head] for j, s in enumerate(scores)]
                weights = np.exp(np.array(scores) - max(scores))
                mixed[i, part] = (weights / weights.sum()) @ v[:, part]
        x = normed(tensors, name["n1"], x + linear(tensors, name["o"], mixed), epsilon)
        wide = np.vectorize(lambda value: act(how, value))(linear(tensors, name["up"], x))
        x = normed(tensors, name["n2"], x + linear(tensors, name["down"], wide), epsilon)
    return x
