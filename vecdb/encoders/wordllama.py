"""The `wordllama` encoder: a small trained text encoder that works offline (extra `text`).

WordLlama is a table of 32,000 token embeddings, taken from a large language model and trained
for similarity; a text is the mean of its tokens' rows. The table and the tokenizer lie inside
the wordllama wheel, so nothing is ever downloaded. Loading takes about 0.2 s, encoding some
10,000 short texts a second.

Invariants (checked by tests/unit/test_encoders.py):
  1. The vectors are those of `WordLlama.load(...).embed(texts, norm=True)`, within float32.
  2. A text is pooled alone, token after token: its vector does not depend on its batch.
  3. No vector is zero: a text without a token is encoded as one space.

Rejected: calling the wordllama package itself. Importing it configures the root logger and
brings an HTTP client, and its pooling pads every text of a batch to the longest, which takes a
gigabyte for one long text. Its two files are read from its folder, which it documents as cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Card, Vectors, check_tokenizable, one_text
from vecdb.errors import InvalidArgument

__all__ = ["WordLlamaEncoder", "files", "missing"]

MODULES = ("wordllama", "tokenizers", "safetensors")  # what the extra `text` brings
REMEDY = "pip install 'vecdb-engine[text]'"

DIMS = (256, 128, 64)  # it was trained so that the first 64 or 128 dimensions stand alone
_CONFIG = "l2_supercat"
_BATCH = 256
_BLANK = "\u2581"  # how the tokenizer writes a space


class WordLlamaEncoder:
    """Encode texts by the mean of WordLlama's token embeddings: cosine, length 1.

    Raises InvalidArgument where the extra `text` is not installed, and for a `dim` other than
    256, 128 or 64. Source: Miller, "WordLlama: Recycled Token Embeddings from Large Language
    Models", 2024.
    """

    metric = "cosine"
    max_tokens = None

    def __init__(self, dim: int = DIMS[0]) -> None:
        if dim not in DIMS:
            raise InvalidArgument(f"wordllama encoder: dim must be one of {DIMS}, not {dim}")
        weights, tokenizer = files()
        self.dim = dim
        self.name = "wordllama" if dim == DIMS[0] else f"wordllama:{dim}"
        self.fingerprint = _digest(weights, tokenizer, dim)
        self._table = _read_table(weights, dim)
        self._tokenizer = _read_tokenizer(tokenizer)
        self.card = Card(
            trained_on="token embeddings of Llama 2 models, then sentence pairs (l2_supercat)",
            languages="English above all",
            longest_input="unlimited; the mean blurs beyond a few hundred words",
            licence="MIT (wordllama); Llama 2 Community License (origin of the embeddings)",
            similarity="cosine; general likeness of sentences: clustering, ranking, near-duplicates",
            size_bytes=weights.stat().st_size,
            parameters=self._table.size,
        )

    def __repr__(self) -> str:
        return f"WordLlamaEncoder({self.dim})"

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`."""
        listed = check_tokenizable(texts, f"encoder {self.name!r}")
        vectors = np.empty((len(listed), self.dim), dtype=np.float32)
        for first in range(0, len(listed), _BATCH):
            tokens = self._tokens(listed[first : first + _BATCH])
            for row, ids in enumerate(tokens, start=first):
                vectors[row] = self._table[ids].mean(axis=0)
        vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
        return vectors

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`: queries are treated as documents."""
        return self.encode_documents(texts)

    def tokens(self, text: str, /) -> list[str]:
        """Return the pieces of a text, a space written as a low line."""
        one = one_text(text, f"encoder {self.name!r}")
        return list(self._tokenizer.encode(one, add_special_tokens=False).tokens)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Return the token numbers of each text, at least one."""
        if len(texts) == 1:  # a lone query stays off the tokenizer's thread pool
            coded = [self._tokenizer.encode(texts[0], add_special_tokens=False)]
        else:
            coded = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [one.ids or [self._tokenizer.token_to_id(_BLANK)] for one in coded]


def missing() -> str | None:
    """Return the command that installs what this encoder lacks here, None if nothing."""
    lacking = [name for name in MODULES if importlib.util.find_spec(name) is None]
    return REMEDY if lacking else None


def files() -> tuple[Path, Path]:
    """Return the paths of the weights and of the tokenizer inside the wordllama package."""
    spec = importlib.util.find_spec("wordllama")
    if missing() or spec is None or spec.origin is None:
        raise InvalidArgument(
            f"encoder 'wordllama' needs {', '.join(MODULES)}, not all installed here: {REMEDY}"
        )
    folder = Path(spec.origin).parent
    weights = folder / "weights" / f"{_CONFIG}_{DIMS[0]}.safetensors"
    tokenizer = folder / "tokenizers" / f"{_CONFIG}_tokenizer_config.json"
    for path in (weights, tokenizer):
        if not path.is_file():
            raise InvalidArgument(
                f"encoder 'wordllama': {path} is missing; this version of wordllama is laid "
                f"out otherwise: {REMEDY}"
            )
    return weights, tokenizer


def _digest(weights: Path, tokenizer: Path, dim: int) -> str:
    """Return a digest of both files and of what is done with them."""
    digest = hashlib.sha256(f"wordllama 1, mean of tokens, unit length, {dim}".encode())
    for path in (weights, tokenizer):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def _read_table(path: Path, dim: int) -> Vectors:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        table: NDArray[Any] = file.get_tensor("embedding.weight")
    return np.ascontiguousarray(table[:, :dim], dtype=np.float32)


def _read_tokenizer(path: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
