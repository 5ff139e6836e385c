"""Encoders from a folder with a BERT-family sentence encoder (extra `text`): no torch, no download.

The folder is one that sentence-transformers has saved (Reimers and Gurevych, "Sentence-BERT", 2019), or
a bare model with config.json, model.safetensors and tokenizer.json or vocab.txt. `transformer.py` runs
the network, `pooling.py` says how the states of tokens become one vector; here is what stands around it:
where the files are, and which tokens count.

Invariants (checked by tests/unit/test_bert.py):
  1. The vectors are those of sentence-transformers on the same folder, within float32's rounding: its
     pooling, dense maps, normalisation, longest input and prompts.
  2. A text's vector does not depend on its batch, except for the last bits of a matrix product.
  3. Nothing is downloaded: a model that is not on this disk is an error.
  4. What would make other vectors than the package's (a module that is not known here) is refused.

Rejected: running the ONNX file that some folders hold (it needs a package of 28 MB; onnx.py does where that
is installed).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.encoders.base import Vectors, check_tokenizable, one_text
from vecdb.encoders.cards import card_of_folder
from vecdb.encoders.places import cached, packaged, path_of
from vecdb.encoders.pooling import layout, recipe, settings
from vecdb.encoders.transformer import Transformer
from vecdb.encoders.weights import Tensors, read_object, weight_files
from vecdb.encoders.wordpieces import WordPieces, lacks_tokenizers
from vecdb.errors import InvalidArgument

__all__ = ["BertEncoder", "bert", "find", "lacks_bert", "longest_input"]

WHO = "encoder 'bert'"
SHORTEST = 3  # tokens: one, and a special one on each side
BLOCK = 4096  # texts that are tokenized and sorted at once

lacks_bert = lacks_tokenizers


class BertEncoder:
    """What `bert` returns: texts by the pooled states of a transformer's last layer."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        found, name = find(path_of(folder, WHO), WHO)
        self.name = f"bert:{name}"
        network, modules = layout(found, WHO)
        self._transformer = Transformer(network, WHO)
        self._tokens = WordPieces(_beside(network, found), WHO, self._transformer.vocabulary)
        self._longest, self._lower = longest_input(network, self._transformer, self._tokens, WHO)
        self._tokens.cut_at(self._longest)
        self._recipe, files, self.dim = recipe(found, modules, self._transformer.dim, WHO)
        self._document, self._query, self.metric = settings(found, WHO)
        self.fingerprint = _digest(
            [*weight_files(network, WHO), network / "config.json", self._tokens.file, *files],
            [self._longest, self._lower, *self._recipe.said, self._document, self._query],
        )
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
        listed = check_tokenizable(texts, f"encoder {self.name!r}")
        vectors = np.empty((len(listed), self.dim), dtype=np.float32)
        skip = 0
        if prompt and not self._recipe.with_prompt:  # its tokens, the first special one with them
            skip = len(self._tokens.encode([self._plain(prompt)])[0]) - 1
        for first in range(0, len(listed), BLOCK):
            block = [self._plain(prompt + text) for text in listed[first : first + BLOCK]]
            made = vectors[first : first + len(block)]
            for rows, states in self._transformer.run(self._tokens.encode(block)):
                made[rows] = self._recipe.vectors(states, skip)
        return vectors

    def _plain(self, text: str) -> str:
        text = text.strip()
        return text.lower() if self._lower else text


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


def _beside(network: Path, folder: Path) -> Path:
    """Where the tokenizer is: with the network, or with the whole."""
    has = any((network / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    return network if has else folder


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
