"""Encoders from a folder with a sentence-transformers model (extra `st`), which is never downloaded.

The package runs the model, on the device that it chooses. Documents and queries are encoded by the
model's own prompts where it has any.

Invariants (checked by tests/unit/test_encoders_models.py):
  1. The folder must be there: the package is told to look at local files only.
  2. The fingerprint is made of the folder's files, so that another model in its place is refused.

A transformer pads the texts of a batch, so a vector may differ in its last bits from batch to
batch: invariant 2 of base.py holds within rounding here.

Rejected: names of models instead of folders. What is behind a name changes, and asking whether it
has is a network request.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.encoders.base import NOT_STATED, Vectors, check_tokenizable, check_vectors, one_text
from vecdb.encoders.cards import card_of_folder
from vecdb.encoders.places import path_of
from vecdb.errors import InvalidArgument

__all__ = ["SentenceTransformersEncoder", "lacks_sentence_transformers", "sentence_transformers"]

PACKAGE = "sentence_transformers"
REMEDY = "pip install 'vecdb-engine[st]'"
METRICS = {"cosine": "cosine", "dot": "dot", "dot_product": "dot", "euclidean": "l2"}
_SIGNS = ("modules.json", "config.json")  # one of them shows a model's folder
_CONTENT = {".json", ".txt", ".safetensors", ".bin", ".model", ".pt", ".py"}
_WEIGHTS = {".safetensors", ".bin", ".pt"}
_ELSEWHERE = {"onnx", "openvino", ".git", ".cache"}  # other forms of the same model


class SentenceTransformersEncoder:
    """What `sentence_transformers` returns."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        found = Path(path_of(folder, "encoder 'sentence_transformers'"))
        if not found.is_dir() or not any((found / each).is_file() for each in _SIGNS):
            raise InvalidArgument(
                f"encoder 'sentence_transformers': {str(found)!r} is no folder with a saved model "
                f"({' or '.join(_SIGNS)}); vecdb downloads nothing: save the model there first"
            )
        if lacks_sentence_transformers():
            raise InvalidArgument(
                f"encoder 'sentence_transformers' needs the package {PACKAGE}: {REMEDY}"
            )
        found = found.resolve()
        self.name = f"sentence_transformers:{found}"
        self.fingerprint = _digest(found)
        self._model = _load(found)
        width = getattr(self._model, "get_embedding_dimension", None)  # called otherwise before version 6
        self.dim = int((width or self._model.get_sentence_embedding_dimension)())
        self.metric = METRICS.get(str(getattr(self._model, "similarity_fn_name", None)), "cosine")
        self._documents = _way(self._model, "document")
        self._queries = _way(self._model, "query")
        longest = getattr(self._model, "max_seq_length", None)
        self._tokenizer = getattr(self._model, "tokenizer", None)
        special = _special(self._tokenizer)
        self.max_tokens = max(0, longest - special) if isinstance(longest, int) else None
        self.card = card_of_folder(
            [found],
            longest_input=NOT_STATED if longest is None else f"{longest} tokens",
            max_tokens=self.max_tokens,
            size_bytes=sum(path.stat().st_size for path in _contents(found) if path.suffix in _WEIGHTS),
            parameters=_parameters(self._model),
            similarity=self.metric,
        )

    def __repr__(self) -> str:
        return f"SentenceTransformersEncoder({self.name.partition(':')[2]!r})"

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`."""
        return self._encode(self._documents, texts)

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts` looked for."""
        return self._encode(self._queries, texts)

    def tokens(self, text: str, /) -> list[str]:
        """Return the pieces of a whole text; [] where the model has no tokenizer that tells."""
        return _pieces(self._tokenizer, one_text(text, f"encoder {self.name!r}"))

    def _encode(self, encode: Callable[[list[str]], Any], texts: Sequence[str]) -> Vectors:
        who = f"encoder {self.name!r}"
        listed = check_tokenizable(texts, who)
        if not listed:
            return np.empty((0, self.dim), dtype=np.float32)
        return check_vectors(encode(listed), len(listed), self.dim, who)


def sentence_transformers(folder: str | os.PathLike[str]) -> SentenceTransformersEncoder:
    """Make an encoder of a sentence-transformers model in a local folder; never downloaded.

    Costs loading the model. The encoder's name is "sentence_transformers:<folder>", by which a
    collection finds it again. InvalidArgument where the folder holds no model or the extra `st` is
    not installed.

    >>> sentence_transformers("no/such/folder")
    Traceback (most recent call last):
        ...
    vecdb.errors.InvalidArgument: encoder 'sentence_transformers'...
    """
    return SentenceTransformersEncoder(folder)


def lacks_sentence_transformers() -> str | None:
    """Return the command that installs what this encoder lacks here, None if nothing."""
    try:
        return REMEDY if importlib.util.find_spec(PACKAGE) is None else None
    except ValueError:  # a module without a spec, put there by hand
        return None


def _load(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever torch, transformers or the model's files say
        raise InvalidArgument(
            f"encoder 'sentence_transformers': {folder} cannot be loaded: {error}"
        ) from error


def _way(model: Any, kind: str) -> Callable[[list[str]], Any]:
    """How texts of a kind are encoded: by the method for it, or by its prompt, or plainly."""
    options: dict[str, Any] = {"convert_to_numpy": True, "show_progress_bar": False}
    special = getattr(model, f"encode_{kind}", None)
    if special is not None:
        return lambda texts: special(texts, **options)
    if kind in (getattr(model, "prompts", None) or {}):
        options["prompt_name"] = kind
    return lambda texts: model.encode(texts, **options)


def _special(tokenizer: Any) -> int:
    """How many special tokens stand around a text; 0 where nothing tells."""
    try:
        return int(tokenizer.num_special_tokens_to_add())
    except Exception:  # a tokenizer of another kind
        return 0


def _pieces(tokenizer: Any, text: str) -> list[str]:
    try:
        if hasattr(tokenizer, "tokenize"):
            return [str(each) for each in tokenizer.tokenize(text)]
        coded = tokenizer.encode(text, add_special_tokens=False)
        return [*coded.tokens, *(piece for more in coded.overflowing for piece in more.tokens)]
    except Exception:  # a tokenizer of another kind
        return []


def _parameters(model: Any) -> int | None:
    try:
        return sum(int(each.numel()) for each in model.parameters())
    except Exception:  # a model of another kind
        return None


def _contents(folder: Path) -> list[Path]:
    """Every file that the vectors may depend on."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix in _CONTENT
        and not _ELSEWHERE & set(path.relative_to(folder).parts)
        and path.is_file()
    ]


def _digest(folder: Path) -> str:
    """Return a digest of every file that the vectors depend on, by its path inside the folder."""
    digest = hashlib.sha256(b"sentence_transformers 1")
    for path in _contents(folder):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
