"""Encoders from a folder that the model2vec package has saved (extra `text`): no torch, no download.

A model2vec model is a table of token embeddings distilled from a sentence transformer, a tokenizer
and two settings; a text is the mean of its tokens' rows (Tulkens and van Dongen, "Model2Vec: Fast
State-of-the-Art Static Embeddings", 2024). The folder holds `model.safetensors`, `tokenizer.json`
and `config.json`. It is named by its path, by the name of a model that lies in the local cache of
the Hugging Face hub ("minishlab/potion-base-8M"), or by an installed package that holds the files.

Invariants (checked by tests/unit/test_encoders_models.py):
  1. The vectors are those of `StaticModel.from_pretrained(folder).encode(texts)`, within float32
     (float16 for a table of that kind): unknown tokens are dropped, a text is cut at `max_length`
     tokens, and the mean has length 1 where the config says `normalize`.
  2. A text is pooled alone: its vector does not depend on its batch.
  3. No vector is zero: a text without a known token has the mean of the table. (The package gives
     zeros, which no cosine can compare; one empty text would refuse a whole table of rows.)
  4. Nothing is downloaded: a model that is not on this disk is an error.

Rejected: the model2vec package itself. It brings an HTTP client, and asks the network for a folder
that is not there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Vectors, check_tokenizable, one_text
from vecdb.encoders.cards import card_of_folder
from vecdb.encoders.places import cached, packaged, path_of
from vecdb.errors import InvalidArgument

__all__ = ["Model2VecEncoder", "lacks_model2vec", "model2vec"]

MODULES = ("tokenizers", "safetensors")  # of what the extra `text` brings
REMEDY = "pip install 'vecdb-engine[text]'"
FILES = ("model.safetensors", "tokenizer.json", "config.json")
MAX_LENGTH = 512  # tokens, where the config says nothing
_BATCH = 256
_TABLES = ("embeddings", "embedding.weight")  # what the table is called


class Model2VecEncoder:
    """What `model2vec` returns: texts by the mean of their tokens' embeddings."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if lacks_model2vec():
            raise InvalidArgument(
                f"encoder 'model2vec' needs {' and '.join(MODULES)}, not all installed here: {REMEDY}"
            )
        found, name = _find(path_of(folder, "encoder 'model2vec'"))
        self.files = files = [found / each for each in FILES]
        config = _read_config(files[2])
        self.name = f"model2vec:{name}"
        self.metric = "cosine"
        self.normalize, self._max_length = _settings(config, files[2])
        self.fingerprint = _digest(files[:2], self.normalize, self._max_length)
        self._table, self._weights, self._mapping = _read_tables(files[0])
        self._tokenizer, self._unknown, self._most_characters = _read_tokenizer(
            files[1], self._max_length
        )
        _check_fit(files[0], self._table, self._weights, self._mapping, self._tokenizer)
        self.dim = int(self._table.shape[1])
        self._nothing = _or_first_axis(self._table.mean(axis=0, dtype=np.float64).astype(np.float32))
        cut = "unlimited" if self._max_length is None else f"{self._max_length} tokens"
        self.max_tokens = self._max_length
        self.card = card_of_folder(
            [found],
            longest_input=cut,
            max_tokens=self.max_tokens,
            size_bytes=files[0].stat().st_size,
            parameters=self._table.size + (0 if self._weights is None else self._weights.size),
            similarity="cosine",
            origin="token embeddings of one model, without its network",
        )

    def __repr__(self) -> str:
        return f"Model2VecEncoder({self.name.partition(':')[2]!r})"

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`."""
        listed = check_tokenizable(texts, f"encoder {self.name!r}")
        vectors = np.empty((len(listed), self.dim), dtype=np.float32)
        for first in range(0, len(listed), _BATCH):
            for row, ids in enumerate(self._tokens(listed[first : first + _BATCH]), start=first):
                vectors[row] = self._pooled(ids)
        if self.normalize:
            vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
        return vectors

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`: queries are treated as documents."""
        return self.encode_documents(texts)

    def tokens(self, text: str, /) -> list[str]:
        """Return the pieces of a whole text, the unknown ones too, which its vector leaves out."""
        one = one_text(text, f"encoder {self.name!r}")
        coded = self._tokenizer.encode(one, add_special_tokens=False)
        return [*coded.tokens, *(piece for more in coded.overflowing for piece in more.tokens)]

    def _pooled(self, ids: list[int]) -> NDArray[Any]:
        if not ids:
            return self._nothing
        rows = self._table[ids if self._mapping is None else self._mapping[ids]]
        if self._weights is not None:
            rows = rows * self._weights[ids][:, None]
        mean: NDArray[Any] = rows.mean(axis=0)
        return mean if mean.any() else self._nothing

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """The known tokens of each text."""
        if self._most_characters is not None:
            texts = [text[: self._most_characters] for text in texts]
        if len(texts) == 1:  # a lone query stays off the tokenizer's thread pool
            coded = [self._tokenizer.encode(texts[0], add_special_tokens=False)]
        else:
            coded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [[id for id in one.ids if id != self._unknown] for one in coded]


def model2vec(folder: str | os.PathLike[str]) -> Model2VecEncoder:
    """Make an encoder of a model2vec model on this disk; it is never downloaded.

    `folder` holds model.safetensors, tokenizer.json and config.json, or is the name of a model in
    the local Hugging Face cache or of an installed package. Costs reading the files once. The
    encoder's name is "model2vec:<folder>", by which a collection finds it again. InvalidArgument
    names what is missing or does not fit.

    >>> model2vec("no/such/folder")
    Traceback (most recent call last):
        ...
    vecdb.errors.InvalidArgument: encoder 'model2vec'...
    """
    return Model2VecEncoder(folder)


def lacks_model2vec() -> str | None:
    """Return the command that installs what this encoder lacks here, None if nothing."""
    lacking = [name for name in MODULES if importlib.util.find_spec(name) is None]
    return REMEDY if lacking else None


# --- where the files are ---------------------------------------------------------------------------


def _find(given: str) -> tuple[Path, str]:
    """The folder, and the name that finds it again."""
    folder = Path(given)
    if folder.is_dir():
        absolute = folder.resolve()
        lacking = [each for each in FILES if not (absolute / each).is_file()]
        if lacking:
            raise InvalidArgument(
                f"encoder 'model2vec': {given} lacks {', '.join(lacking)}; give the folder that "
                "StaticModel.save_pretrained has written"
            )
        return absolute, str(absolute)
    for found in (*cached(given), *packaged(given)):
        if all((found / each).is_file() for each in FILES):
            return found, given
    raise InvalidArgument(
        f"encoder 'model2vec': no folder {given!r}, nor a model of that name in the local Hugging Face "
        "cache, nor an installed package that holds one; vecdb downloads nothing: save it there first"
    )


# --- what is in them -------------------------------------------------------------------------------


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"encoder 'model2vec': {path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InvalidArgument(f"encoder 'model2vec': {path} holds no object")
    return config


def _settings(config: dict[str, Any], path: Path) -> tuple[bool, int | None]:
    """Whether vectors get length 1, and the number of tokens that count."""
    longest = config.get("max_length", MAX_LENGTH)
    if longest is not None and (type(longest) is not int or longest < 1):
        raise InvalidArgument(f"encoder 'model2vec': {path}: max_length is {longest!r}")
    return bool(config.get("normalize", False)), longest


def _digest(files: list[Path], normalize: bool, longest: int | None) -> str:
    """Return a digest of the files and of what is done with them."""
    digest = hashlib.sha256(f"model2vec 1, mean of known tokens, {normalize}, {longest}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _read_tables(path: Path) -> tuple[Vectors, Vectors | None, NDArray[Any] | None]:
    """The table of embeddings; weights by token and rows by token, where there are any."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            table = next((file.get_tensor(name) for name in _TABLES if name in names), None)
            weights = file.get_tensor("weights") if "weights" in names else None
            mapping = file.get_tensor("mapping") if "mapping" in names else None
    except (OSError, TypeError, SafetensorError) as error:  # TypeError: a kind numpy has not
        raise InvalidArgument(f"encoder 'model2vec': {path} cannot be read: {error}") from None
    if table is None or table.ndim != 2 or not table.size or table.dtype.kind not in "fi":
        raise InvalidArgument(
            f"encoder 'model2vec': {path} holds no table of numbers named {' or '.join(_TABLES)}"
        )
    found = np.ascontiguousarray(table, dtype=np.float32)
    if not np.isfinite(found).all():
        raise InvalidArgument(f"encoder 'model2vec': {path}: the table holds NaN or infinity")
    return found, None if weights is None else weights.astype(np.float32), mapping


def _read_tokenizer(path: Path, longest: int | None) -> tuple[Any, int | None, int | None]:
    """The tokenizer, the unknown token's number, and the characters of a text that are looked at."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers package raises bare exceptions
        raise InvalidArgument(f"encoder 'model2vec': {path} cannot be read: {error}") from None
    tokenizer.no_padding()
    most = None
    if longest is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(longest)
        lengths = [len(token) for token in tokenizer.get_vocab()]
        most = longest * int(statistics.median(lengths)) if lengths else longest
    model = json.loads(tokenizer.to_str())["model"]
    unknown = model.get("unk_token")
    number = model.get("unk_id") if unknown is None else tokenizer.token_to_id(unknown)
    return tokenizer, number, most


def _check_fit(
    path: Path, table: Vectors, weights: Any, mapping: Any, tokenizer: Any
) -> None:
    """Refuse files that do not belong together: every token must lead to a row."""
    tokens = 1 + max(tokenizer.get_vocab().values(), default=-1)
    wrong = ""
    if mapping is None:
        if len(table) < tokens:
            wrong = f"{len(table)} rows for {tokens} tokens"
    elif mapping.ndim != 1 or mapping.dtype.kind not in "iu" or len(mapping) < tokens:
        wrong = f"its mapping does not cover {tokens} tokens"
    elif mapping.min() < 0 or mapping.max() >= len(table):
        wrong = f"its mapping leads beyond {len(table)} rows"
    if weights is not None and (weights.ndim != 1 or len(weights) < tokens):
        wrong = f"its weights do not cover {tokens} tokens"
    if wrong:
        raise InvalidArgument(f"encoder 'model2vec': {path} does not fit its tokenizer: {wrong}")


def _or_first_axis(vector: Vectors) -> Vectors:
    if not vector.any():
        vector[0] = 1
    return vector
