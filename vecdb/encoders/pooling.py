"""How do the states of a text's tokens become one vector, and which words stand before the text?

As the folder says that sentence-transformers has saved: `modules.json` lists what comes after the network
(Pooling, then Normalize and Dense), `config_sentence_transformers.json` the prompts and the similarity
(Reimers and Gurevych, "Sentence-BERT", 2019). The network may be run by numpy (bert.py) or be an ONNX graph
(onnx.py).

Invariants (checked by tests/unit/test_bert.py):
  1. The vectors are those of sentence-transformers on the same states, within float32's rounding.
  2. A module that is not known here is refused: it would make other vectors than the package's.

Rejected: reading the folder's README for the settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vecdb.encoders.base import Vectors
from vecdb.encoders.transformer import Dense, read_dense
from vecdb.encoders.weights import Tensors, read_object, weight_files
from vecdb.errors import InvalidArgument

__all__ = ["Recipe", "Settings", "layout", "recipe", "settings"]

SETTINGS = "config_sentence_transformers.json"
METRICS = {"cosine": "cosine", "dot": "dot", "dot_product": "dot", "euclidean": "l2"}
POOLINGS = ("cls", "max", "mean", "sqrt_len", "weighted", "last")  # the order in which they are joined
_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_lasttoken": "last",
}
_MODES = {"mean_sqrt_len_tokens": "sqrt_len", "weightedmean": "weighted", "lasttoken": "last"}
_SQUASHES: dict[str, Callable[[Vectors], Vectors]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, np.float32(0)),
}


class Recipe(NamedTuple):
    """What is done with the states of a text's tokens."""

    pooling: tuple[str, ...] = ("mean",)
    with_prompt: bool = True  # whether the prompt's tokens are pooled too
    after: tuple[Any, ...] = ()  # (Dense, name of its activation), or "normalize"

    @property
    def said(self) -> list[Any]:
        """What of it is no weights, for a fingerprint."""
        return [self.pooling, self.with_prompt,
                [each if isinstance(each, str) else each[1] for each in self.after]]  # fmt: skip

    def vectors(self, states: Vectors, skip: int = 0) -> Vectors:
        """(n, length, dim) to (n, dim of the encoder); the first `skip` tokens are not pooled."""
        kept = states[:, min(skip, states.shape[1] - 1) :]
        parts = [_pool(how, states, kept) for how in self.pooling]
        x = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        for step in self.after:
            if step == "normalize":
                x = normalized(x)
            else:
                dense, squash = step
                x = _SQUASHES[squash](dense(x))
        return x


class Settings(NamedTuple):
    """What stands before a document and a query, and how vectors are compared."""

    document: str
    query: str
    metric: str


def normalized(x: Vectors) -> Vectors:
    """Rows of length 1; a zero row stays."""
    length = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
    made: Vectors = x / np.maximum(length, np.float32(1e-12))
    return made


def settings(folder: Path, who: str) -> Settings:
    """The prompts and the metric of a folder; "" and cosine where it says nothing."""
    path = folder / SETTINGS
    said = read_object(path, who) if path.is_file() else {}
    prompts, default = said.get("prompts") or {}, said.get("default_prompt_name")
    return Settings(
        _prompt(prompts, ("document", "passage", "corpus", default), who),
        _prompt(prompts, ("query", default), who),
        METRICS.get(str(said.get("similarity_fn_name")), "cosine"),
    )


def _prompt(prompts: Any, names: tuple[Any, ...], who: str) -> str:
    """The first prompt that there is of some names; "" where there is none."""
    if not isinstance(prompts, dict):
        raise InvalidArgument(f"{who}: config_sentence_transformers.json: prompts is no object")
    for name in names:
        if isinstance(name, str) and isinstance(prompts.get(name), str):
            found: str = prompts[name]
            return found
    return ""


# --- what comes after the network ------------------------------------------------------------------


def layout(folder: Path, who: str) -> tuple[Path, list[tuple[str, Path]] | None]:
    """The network's folder, and (kind, folder) of what comes after it; None where nothing is said."""
    path = folder / "modules.json"
    if not path.is_file():
        return folder, None
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        kinds = [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in listed]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidArgument(f"{who}: {path} cannot be read: {error!r:.200}") from None
    if not kinds or kinds[0][0] != "Transformer":
        first = kinds[0][0] if kinds else "nothing"
        raise InvalidArgument(f"{who}: {path} begins with {first!r:.60}, not with a Transformer")
    inside = []
    for kind, where in kinds:
        if Path(where).is_absolute() or ".." in Path(where).parts:
            raise InvalidArgument(f"{who}: {path} leads out of the folder: {where!r:.100}")
        inside.append((kind, folder / where))
    return inside[0][1], inside[1:]


def recipe(
    folder: Path, modules: list[tuple[str, Path]] | None, dim: int, who: str
) -> tuple[Recipe, list[Path], int]:
    """How states become a vector, the weight files for it, and its dimensions."""
    pooling: tuple[str, ...] = ("mean",)
    with_prompt, after, files = True, list[Any](), list[Path]()
    pooled = modules is None
    for kind, where in modules or []:
        if kind == "Pooling" and not pooled:
            pooling, with_prompt = _pooling(read_object(where / "config.json", who), where, who)
            dim, pooled = dim * len(pooling), True
        elif kind == "Normalize" and pooled:
            after.append("normalize")
        elif kind == "Dense" and pooled:
            weights = weight_files(where, who)
            dense, squash = _dense(read_object(where / "config.json", who), weights, where, dim, who)
            after.append((dense, squash))
            files += weights
            dim = dense.weight.shape[1]
        else:
            raise InvalidArgument(
                f"{who}: {folder / 'modules.json'} has {kind!r:.60} where vecdb knows Pooling, then "
                "Normalize and Dense; vecdb.encoders.sentence_transformers runs it (extra `st`)"
            )
    if not pooled:
        raise InvalidArgument(f"{who}: {folder / 'modules.json'} has no Pooling")
    return Recipe(pooling, with_prompt, tuple(after)), files, dim


def _pooling(config: dict[str, Any], where: Path, who: str) -> tuple[tuple[str, ...], bool]:
    mode = config.get("pooling_mode")
    if mode is None:
        unknown = [k for k in config if k.startswith("pooling_mode_") and k not in _KEYS and config[k]]
        chosen = {how for key, how in _KEYS.items() if config.get(key)}
    else:  # later versions: one word, or several
        words = [mode] if isinstance(mode, str) else list(mode) if isinstance(mode, list) else []
        named = [_MODES.get(str(word), str(word)) for word in words]
        unknown, chosen = [each for each in named if each not in POOLINGS], set(named)
    if unknown or not chosen:
        raise InvalidArgument(
            f"{who}: {where / 'config.json'}: pooling {unknown or 'none'}; known are "
            f"{', '.join(POOLINGS)}"
        )
    return tuple(how for how in POOLINGS if how in chosen), bool(config.get("include_prompt", True))


def _dense(
    config: dict[str, Any], weights: list[Path], where: Path, dim: int, who: str
) -> tuple[Dense, str]:
    squash = str(config.get("activation_function", "Identity")).rpartition(".")[2]
    if squash not in _SQUASHES:
        raise InvalidArgument(
            f"{who}: {where / 'config.json'}: activation {squash!r:.60}; known are "
            f"{', '.join(_SQUASHES)}"
        )
    tensors = Tensors(weights, who)
    outer = tensors.rows("linear.weight")
    if "linear.bias" in tensors:
        return read_dense(tensors, "linear", dim, outer), squash
    weight = np.ascontiguousarray(tensors.get("linear.weight", outer, dim).T)
    return Dense(weight, np.zeros(outer, dtype=np.float32)), squash


def _pool(how: str, states: Vectors, kept: Vectors) -> Vectors:
    made: Vectors
    if how == "cls":
        return states[:, 0].copy()
    if how == "last":
        return states[:, -1].copy()
    if how == "max":
        made = kept.max(axis=1)
    elif how == "weighted":
        weights = np.arange(1, states.shape[1] + 1, dtype=np.float32)[-kept.shape[1] :]
        made = np.einsum("nld,l->nd", kept, weights / weights.sum(dtype=np.float32))
    else:
        made = kept.sum(axis=1)
        length = np.float32(kept.shape[1])
        made /= np.sqrt(length) if how == "sqrt_len" else length
    return made
