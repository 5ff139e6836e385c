"""Cross-encoders: a model that reads a query and a text together and says how well they fit.

`cross_encoder(folder)` gives a callable `(query, hits) -> scores`, as `vecdb.query.Rerank` takes one. A
BERT-family model with one output is run by numpy (extra `text`): the pair as one sequence, the state of
its first token through the head that the family has. Any other by sentence-transformers (extra `st`).

Invariants (checked by tests/unit/test_cross_encoder.py):
  1. Scores are those of sentence_transformers.CrossEncoder.predict on the same folder, within float32's
     rounding: its pairs, its cut, its activation (a sigmoid unless the config says another).
  2. One finite score a hit, in the order of the hits; a hit's score does not depend on the others.
  3. A hit without a text is scored as an empty one: a row that lacks it does not spoil a search.

Rejected: models with several outputs (which of them would rank?), and the name of a model instead of a
folder (vecdb downloads nothing).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.encoders.base import Vectors
from vecdb.encoders.bert import find, longest_input
from vecdb.encoders.layers import Scratch, gelu
from vecdb.encoders.places import path_of
from vecdb.encoders.transformer import FAMILIES, Transformer
from vecdb.encoders.weights import read_object
from vecdb.encoders.wordpieces import WordPieces, lacks_tokenizers
from vecdb.errors import InvalidArgument

__all__ = ["CrossEncoder", "cross_encoder"]

WHO = "cross_encoder"
PACKAGE = "sentence_transformers"
REMEDY = "pip install 'vecdb-engine[st]'"
BLOCK = 1024  # pairs that are tokenized and sorted at once

Score = Callable[[list[tuple[str, str]]], Any]


class CrossEncoder:
    """What `cross_encoder` returns: call it with a query and hits for a score of each."""

    def __init__(self, name: str, field: str | None, runs_by: str, score: Score) -> None:
        self.name = name
        self.field = field
        self.runs_by = runs_by
        self._score = score

    def __repr__(self) -> str:
        field = "" if self.field is None else f", field={self.field!r}"
        return f"cross_encoder({self.name!r}{field})"

    def __call__(self, query: Any, hits: Sequence[Any], /) -> Vectors:
        """Return float32 scores (len(hits),), larger for the better match.

        `query` is a str, or a query object that has one; hits have `.text` and `.metadata`. Costs a run
        of the network over every pair. InvalidArgument for a query without a text.
        """
        asked = _text_of_query(query)
        return self.score([(asked, _text_of(hit, self.field)) for hit in hits])

    def score(self, pairs: Sequence[tuple[str, str]], /) -> Vectors:
        """Return float32 scores of pairs (query, text)."""
        listed: list[tuple[str, str]] = []
        for row, pair in enumerate(pairs):
            both = () if isinstance(pair, str) else tuple(pair)
            if len(both) != 2 or not all(isinstance(each, str) for each in both):
                raise InvalidArgument(f"{WHO}: pairs[{row}] must be two str, a query and a text")
            listed.append((both[0], both[1]))
        if not listed:
            return np.empty(0, dtype=np.float32)
        made: Vectors = np.asarray(self._score(listed), dtype=np.float32)
        if made.shape != (len(listed),) or not np.isfinite(made).all():
            raise InvalidArgument(
                f"{WHO}: {self.name} gave scores of shape {made.shape} for {len(listed)} pairs, or some "
                "that are not finite; a model with one output is wanted"
            )
        return made


def cross_encoder(folder: str | os.PathLike[str], *, field: str | None = None) -> CrossEncoder:
    """Make a callable `(query, hits) -> scores` of a cross-encoder on this disk; never downloaded.

    `folder` is a folder, the name of a model in the local Hugging Face cache, or an installed package
    that holds one. Scores the hits' texts, or the metadata field `field` ("a.b" is `b` inside `a`).
    Costs reading the files once, and then a run of the network for every hit: some milliseconds each.
    BERT, DistilBERT, RoBERTa, XLM-R, MPNet and ELECTRA run by numpy, others need the extra `st`.
    InvalidArgument names what is missing or unknown. Source: Nogueira and Cho, "Passage Re-ranking
    with BERT", 2019.

    >>> cross_encoder("no/such/folder")
    Traceback (most recent call last):
        ...
    vecdb.errors.InvalidArgument: cross_encoder: no folder...
    """
    if field is not None and (not isinstance(field, str) or not field):
        raise InvalidArgument(f"{WHO}: field must be the name of a metadata field, not {field!r:.60}")
    found, name = find(path_of(folder, WHO), WHO)
    config = read_object(found / "config.json", WHO)
    _one_output(config, found)
    if config.get("model_type") in FAMILIES and not lacks_tokenizers():
        return CrossEncoder(name, field, "numpy", _by_numpy(found))
    return CrossEncoder(name, field, PACKAGE, _by_package(found, str(config.get("model_type"))))


# --- query and hits to pairs -----------------------------------------------------------------------


def _text_of_query(query: Any) -> str:
    """The text of a query: itself, or of a query object that looks for one."""
    for found in (query, getattr(query, "text", None), getattr(query, "x", None)):
        if isinstance(found, str):
            return found
    raise InvalidArgument(
        f"{WHO} compares texts, and the query is {type(query).__name__} without one; search by a str"
    )


def _text_of(hit: Any, field: str | None) -> str:
    found = hit.text if field is None else _value(hit.metadata, field)
    if found is None:
        return ""
    if isinstance(found, list):
        return " ".join(map(str, found))
    return str(found)


def _value(metadata: Any, field: str) -> Any:
    """The value of a field: of that name, or inside another by the parts of the name."""
    found = metadata
    if not isinstance(found, Mapping):
        return None
    if field in found:
        return found[field]
    head, dot, rest = field.partition(".")
    while dot:
        inner = _value(found.get(head), rest)
        if inner is not None:
            return inner
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


# --- by numpy --------------------------------------------------------------------------------------


def _by_numpy(folder: Path) -> Score:
    transformer = Transformer(folder, WHO)
    head = _head(transformer)
    tokens = WordPieces(folder, WHO, transformer.vocabulary)
    longest, lower = longest_input(folder, transformer, tokens, WHO)
    if longest < 4:
        raise InvalidArgument(f"{WHO}: {folder}: a pair of {longest} tokens holds no word of each")
    tokens.cut_at(longest)
    squash = _activation(transformer.config, folder)

    def score(pairs: list[tuple[str, str]]) -> Vectors:
        made = np.empty(len(pairs), dtype=np.float32)
        for first in range(0, len(pairs), BLOCK):
            block = [(_plain(a, lower), _plain(b, lower)) for a, b in pairs[first : first + BLOCK]]
            here = made[first : first + len(block)]
            for rows, states in transformer.run(*tokens.encode_pairs(block)):
                here[rows] = head(states[:, 0])[:, 0]
        return squash(made)

    return score


def _plain(text: str, lower: bool) -> str:
    text = text.strip()
    return text.lower() if lower else text


def _head(transformer: Transformer) -> Callable[[Vectors], Vectors]:
    """What makes one number of the first token's state: two dense maps and something between."""
    names: dict[str, tuple[str, str, Callable[[Vectors], Vectors]]] = {
        "bert": ("pooler.dense", "classifier", _tanh),
        "distilbert": ("pre_classifier", "classifier", _relu),
        "electra": ("classifier.dense", "classifier.out_proj", _gelu),
    }
    other = ("classifier.dense", "classifier.out_proj", _tanh)
    inner, outer, between = names.get(transformer.kind, other)
    dim = transformer.dim
    first, last = transformer.dense(inner, dim, dim), transformer.dense(outer, dim, 1)
    return lambda states: last(between(first(states)))


def _tanh(x: Vectors) -> Vectors:
    return np.tanh(x)


def _relu(x: Vectors) -> Vectors:
    return np.maximum(x, np.float32(0))


def _gelu(x: Vectors) -> Vectors:
    gelu(x, np.zeros(x.shape[1], dtype=np.float32), Scratch())
    return x


def _sigmoid(x: Vectors) -> Vectors:
    one = np.float32(1)
    return one / (one + np.exp(-np.clip(x, np.float32(-80), np.float32(80))))


def _one_output(config: dict[str, Any], folder: Path) -> None:
    """Refuse a model that gives several numbers for a pair, or that has no head for one."""
    labels = config.get("id2label")
    outputs = len(labels) if isinstance(labels, dict) and labels else config.get("num_labels", 1)
    if outputs != 1:
        raise InvalidArgument(
            f"{WHO}: {folder / 'config.json'}: the model has {outputs!r:.60} outputs; one is wanted, "
            "which says how well a text fits"
        )


def _activation(config: dict[str, Any], folder: Path) -> Callable[[Vectors], Vectors]:
    said = config.get("sentence_transformers")
    named = said.get("activation_fn") if isinstance(said, dict) else None
    named = named or config.get("sbert_ce_default_activation_function") or "Sigmoid"
    last = str(named).rpartition(".")[2]
    known: dict[str, Callable[[Vectors], Vectors]] = {
        "Sigmoid": _sigmoid,
        "Identity": lambda x: x,
    }
    if last not in known:
        raise InvalidArgument(
            f"{WHO}: {folder / 'config.json'}: activation {last!r:.60}; known are {', '.join(known)}"
        )
    return known[last]


# --- by sentence-transformers ----------------------------------------------------------------------


def _by_package(folder: Path, kind: str) -> Score:
    try:
        there = importlib.util.find_spec(PACKAGE) is not None
    except ValueError:  # a module without a spec, put there by hand
        there = True
    if not there:
        by_numpy = lacks_tokenizers() if kind in FAMILIES else None
        raise InvalidArgument(
            f"{WHO}: {folder} holds a model of type {kind!r:.60}; to run it {by_numpy or REMEDY}"
        )
    from sentence_transformers import CrossEncoder as Theirs

    try:
        model = Theirs(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever torch, transformers or the model's files say
        raise InvalidArgument(f"{WHO}: {folder} cannot be loaded: {error}") from error
    return lambda pairs: model.predict(pairs, convert_to_numpy=True, show_progress_bar=False)


