"""Encoders from a folder with a BERT-family sentence encoder (extra `text`): no torch, no download.

The folder is one that sentence-transformers has saved (Reimers and Gurevych, "Sentence-BERT", 2019), or
a bare model with config.json, model.safetensors and tokenizer.json or vocab.txt. `transformer.py` runs
the network; here is what stands around it: which tokens count, how their states become one vector, and
which words are put before a query and before a document.

Invariants (checked by tests/unit/test_bert.py):
  1. The vectors are those of sentence-transformers on the same folder, within float32's rounding: its
     pooling, dense maps, normalisation, longest input and prompts.
  2. A text's vector does not depend on its batch, except for the last bits of a matrix product.
  3. Nothing is downloaded: a model that is not on this disk is an error.
  4. What would make other vectors than the package's (a module that is not known here) is refused.

Rejected: reading the folder's README for the settings, and running the ONNX file that some folders hold
(it needs a package of 20 MB, which chooses its own threads).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vecdb.encoders.base import Vectors, check_texts, one_text
from vecdb.encoders.cards import card_of_folder
from vecdb.encoders.places import cached, packaged
from vecdb.encoders.transformer import Dense, Transformer, read_dense
from vecdb.encoders.weights import Tensors, read_object, weight_files
from vecdb.encoders.wordpieces import WordPieces, lacks_tokenizers
from vecdb.errors import InvalidArgument

__all__ = ["BertEncoder", "bert", "find", "lacks_bert", "longest_input"]

WHO = "encoder 'bert'"
SHORTEST = 3  # tokens: one, and a special one on each side
BLOCK = 4096  # texts that are tokenized and sorted at once
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

lacks_bert = lacks_tokenizers


class _Recipe(NamedTuple):
    """What is done with the states of a text's tokens."""

    pooling: tuple[str, ...] = ("mean",)
    with_prompt: bool = True  # whether the prompt's tokens are pooled too
    after: tuple[Any, ...] = ()  # (Dense, name of its activation), or "normalize"


class BertEncoder:
    """What `bert` returns: texts by the pooled states of a transformer's last layer."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        found, name = find(os.fspath(folder), WHO)
        self.name = f"bert:{name}"
        network, modules = _layout(found)
        self._transformer = Transformer(network, WHO)
        self._tokens = WordPieces(_beside(network, found), WHO, self._transformer.vocabulary)
        self._longest, self._lower = longest_input(network, self._transformer, self._tokens, WHO)
        self._tokens.cut_at(self._longest)
        self._recipe, files, self.dim = _recipe(found, modules, self._transformer.dim)
        settings = found / "config_sentence_transformers.json"
        said = read_object(settings, WHO) if settings.is_file() else {}
        self.metric = METRICS.get(str(said.get("similarity_fn_name")), "cosine")
        prompts, default = said.get("prompts") or {}, said.get("default_prompt_name")
        self._document = _prompt(prompts, ("document", "passage", "corpus", default))
        self._query = _prompt(prompts, ("query", default))
        self.fingerprint = _digest(
            [*weight_files(network, WHO), network / "config.json", self._tokens.file, *files],
            [self._longest, self._lower, self._recipe.pooling, self._recipe.with_prompt,
             [each if isinstance(each, str) else each[1] for each in self._recipe.after],
             self._document, self._query],
        )  # fmt: skip
        special = self._tokens.special
        before = max(len(self._tokens.pieces(self._plain(each))) for each in (self._document, self._query))
        self.max_tokens = max(0, self._longest - special - before)
        weights = [*weight_files(network, WHO), *files]
        self.card = card_of_folder(
            [found, network],
            longest_input=f"{self._longest} tokens",
            max_tokens=self.max_tokens,
            size_bytes=sum(path.stat().st_size for path in weights),
            parameters=_cells(weights),
            similarity=self.metric,
        )

    def __repr__(self) -> str:
        return f"BertEncoder({self.name.partition(':')[2]!r})"

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`."""
        return self._encode(texts, self._document)

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts` looked for."""
        return self._encode(texts, self._query)

    def tokens(self, text: str, /) -> list[str]:
        """Return the word pieces of a whole text; `max_tokens` of them count."""
        return self._tokens.pieces(self._plain(one_text(text, f"encoder {self.name!r}")))

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        listed = check_texts(texts, f"encoder {self.name!r}")
        vectors = np.empty((len(listed), self.dim), dtype=np.float32)
        skip = 0
        if prompt and not self._recipe.with_prompt:  # its tokens, the first special one with them
            skip = len(self._tokens.encode([self._plain(prompt)])[0]) - 1
        for first in range(0, len(listed), BLOCK):
            block = [self._plain(prompt + text) for text in listed[first : first + BLOCK]]
            made = vectors[first : first + len(block)]
            for rows, states in self._transformer.run(self._tokens.encode(block)):
                made[rows] = self._vectors(states, skip)
        return vectors

    def _plain(self, text: str) -> str:
        text = text.strip()
        return text.lower() if self._lower else text

    def _vectors(self, states: Vectors, skip: int) -> Vectors:
        """(n, length, dim) to (n, dim of the encoder)."""
        kept = states[:, min(skip, states.shape[1] - 1) :]
        parts = [_pool(how, states, kept) for how in self._recipe.pooling]
        x = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        for step in self._recipe.after:
            if step == "normalize":
                length = np.sqrt(np.einsum("ij,ij->i", x, x))[:, None]
                x = x / np.maximum(length, np.float32(1e-12))
            else:
                dense, squash = step
                x = _SQUASHES[squash](dense(x))
        return x


def bert(folder: str | os.PathLike[str]) -> BertEncoder:
    """Make an encoder of a BERT-family model on this disk, run by numpy; it is never downloaded.

    `folder` holds what sentence-transformers saves, or config.json, model.safetensors and
    tokenizer.json or vocab.txt; or it is the name of a model in the local Hugging Face cache, or of an
    installed package that holds these files. BERT, DistilBERT, RoBERTa, XLM-R, MPNet and ELECTRA are
    known. Costs reading the files once. The encoder's name is "bert:<folder>", by which a collection
    finds it again. InvalidArgument names what is missing, unknown or does not fit.

    >>> bert("no/such/folder")
    Traceback (most recent call last):
        ...
    vecdb.errors.InvalidArgument: encoder 'bert'...
    """
    return BertEncoder(folder)


# --- where the files are ---------------------------------------------------------------------------


def find(given: str, who: str) -> tuple[Path, str]:
    """The folder of a model, and the name that finds it again."""
    folder = Path(given)
    if folder.is_dir():
        absolute = folder.resolve()
        if _is_model(absolute):
            return absolute, str(absolute)
        raise InvalidArgument(
            f"{who}: {given} holds neither modules.json nor config.json; give the folder that "
            "model.save or model.save_pretrained has written"
        )
    for found in (*cached(given), *packaged(given)):
        if _is_model(found):
            return found, given
    raise InvalidArgument(
        f"{who}: no folder {given!r:.200}, nor a model of that name in the local Hugging Face cache, "
        "nor an installed package that holds one; vecdb downloads nothing: save it there first"
    )


def _is_model(folder: Path) -> bool:
    return any((folder / each).is_file() for each in ("modules.json", "config.json"))


def _layout(folder: Path) -> tuple[Path, list[tuple[str, Path]] | None]:
    """The network's folder, and (kind, folder) of what comes after it; None where nothing is said."""
    path = folder / "modules.json"
    if not path.is_file():
        return folder, None
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        kinds = [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in listed]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InvalidArgument(f"{WHO}: {path} cannot be read: {error!r:.200}") from None
    if not kinds or kinds[0][0] != "Transformer":
        first = kinds[0][0] if kinds else "nothing"
        raise InvalidArgument(f"{WHO}: {path} begins with {first!r:.60}, not with a Transformer")
    inside = []
    for kind, where in kinds:
        if Path(where).is_absolute() or ".." in Path(where).parts:
            raise InvalidArgument(f"{WHO}: {path} leads out of the folder: {where!r:.100}")
        inside.append((kind, folder / where))
    return inside[0][1], inside[1:]


def _beside(network: Path, folder: Path) -> Path:
    """Where the tokenizer is: with the network, or with the whole."""
    has = any((network / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    return network if has else folder


# --- what is done with the states ------------------------------------------------------------------


def _recipe(
    folder: Path, modules: list[tuple[str, Path]] | None, dim: int
) -> tuple[_Recipe, list[Path], int]:
    """How states become a vector, the weight files for it, and its dimensions."""
    pooling: tuple[str, ...] = ("mean",)
    with_prompt, after, files = True, list[Any](), list[Path]()
    pooled = modules is None
    for kind, where in modules or []:
        if kind == "Pooling" and not pooled:
            pooling, with_prompt = _pooling(read_object(where / "config.json", WHO), where)
            dim, pooled = dim * len(pooling), True
        elif kind == "Normalize" and pooled:
            after.append("normalize")
        elif kind == "Dense" and pooled:
            weights = weight_files(where, WHO)
            dense, squash = _dense(read_object(where / "config.json", WHO), weights, where, dim)
            after.append((dense, squash))
            files += weights
            dim = dense.weight.shape[1]
        else:
            raise InvalidArgument(
                f"{WHO}: {folder / 'modules.json'} has {kind!r:.60} where vecdb knows Pooling, then "
                "Normalize and Dense; vecdb.encoders.sentence_transformers runs it (extra `st`)"
            )
    if not pooled:
        raise InvalidArgument(f"{WHO}: {folder / 'modules.json'} has no Pooling")
    return _Recipe(pooling, with_prompt, tuple(after)), files, dim


def _pooling(config: dict[str, Any], where: Path) -> tuple[tuple[str, ...], bool]:
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
            f"{WHO}: {where / 'config.json'}: pooling {unknown or 'none'}; known are "
            f"{', '.join(POOLINGS)}"
        )
    return tuple(how for how in POOLINGS if how in chosen), bool(config.get("include_prompt", True))


def _dense(
    config: dict[str, Any], weights: list[Path], where: Path, dim: int
) -> tuple[Dense, str]:
    squash = str(config.get("activation_function", "Identity")).rpartition(".")[2]
    if squash not in _SQUASHES:
        raise InvalidArgument(
            f"{WHO}: {where / 'config.json'}: activation {squash!r:.60}; known are "
            f"{', '.join(_SQUASHES)}"
        )
    tensors = Tensors(weights, WHO)
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


# --- settings --------------------------------------------------------------------------------------


def longest_input(
    network: Path, transformer: Transformer, tokens: WordPieces, who: str
) -> tuple[int, bool]:
    """How many tokens of a text count, and whether texts are put in lower case before."""
    path = network / "sentence_bert_config.json"
    said = read_object(path, who) if path.is_file() else {}
    wanted = said.get("max_seq_length")
    if wanted is not None and (type(wanted) is not int or wanted < SHORTEST):
        raise InvalidArgument(f"{who}: {path}: max_seq_length is {wanted!r:.60}; at least {SHORTEST}")
    limits = [transformer.longest, wanted or tokens.most or transformer.longest]
    if min(limits) < SHORTEST:
        raise InvalidArgument(f"{who}: {network}: a text of {min(limits)} tokens holds no word")
    return min(limits), bool(said.get("do_lower_case", False))


def _prompt(prompts: Any, names: tuple[Any, ...]) -> str:
    """The first prompt that there is of some names; "" where there is none."""
    if not isinstance(prompts, dict):
        raise InvalidArgument(f"{WHO}: config_sentence_transformers.json: prompts is no object")
    for name in names:
        if isinstance(name, str) and isinstance(prompts.get(name), str):
            found: str = prompts[name]
            return found
    return ""


def _cells(files: list[Path]) -> int:
    """The numbers in weight files, each of which may have tensors of the same names."""
    return sum(Tensors([path], WHO).cells for path in files)


def _digest(files: list[Path], settings: list[Any]) -> str:
    """Return a digest of the files and of what is done with them."""
    digest = hashlib.sha256(f"bert 1, {json.dumps(settings)}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
