"""A transformer encoder of the BERT family, run by numpy: token numbers in, hidden states out.

BERT (Devlin et al., 2019), RoBERTa (Liu et al., 2019) with XLM-R and CamemBERT, ELECTRA (Clark et al.,
2020), DistilBERT (Sanh et al., 2019) and MPNet (Song et al., 2020) are one network: token and position
embeddings, then layers of attention and of two dense maps, a layer norm after each. They differ in the
names of their tensors, in where positions begin to count, and MPNet adds a bias by distance to scores.

Invariants (checked by tests/unit/test_bert.py):
  1. Hidden states are those of the reference (float64) within float32's rounding.
  2. There is no padding: sequences are sorted by length, the dense maps run over the tokens of a batch
     end to end, and attention over the sequences of one length at a time. So a sequence's states do
     not depend on its neighbours, except for the last bits of a matrix product.
  3. A call keeps its memory to itself: threads may use one Transformer at once.

Rejected: padding within a batch and a mask (every padded token is worked on through all layers), and
keeping half-precision weights as they are (numpy has no half-precision BLAS).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Vectors
from vecdb.encoders.layers import ACTIVATIONS, Norm, Scratch, add_norm, attend
from vecdb.encoders.weights import Tensors, read_object, weight_files
from vecdb.errors import InvalidArgument

__all__ = ["FAMILIES", "Dense", "Transformer", "read_dense"]

BATCH_TOKENS = 2048  # of a batch at least: enough for the matrix products to run at full speed
BUCKETS, FARTHEST = 32, 128  # MPNet's distances

Rows = NDArray[np.int64]


class Family(NamedTuple):
    """What a family's tensors are called, below the prefix of its layer."""

    layer: str  # with {} for the layer's number
    query: str
    key: str
    value: str
    out: str
    norm: str
    up: str
    down: str
    norm_after: str
    offset: bool = False  # positions begin behind the padding token's number
    typed: bool = True


_BERT = Family(
    "encoder.layer.{}.", "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense",
    "output.LayerNorm",
)  # fmt: skip
_ROBERTA = _BERT._replace(offset=True)
FAMILIES = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _ROBERTA._replace(
        query="attention.attn.q", key="attention.attn.k", value="attention.attn.v",
        out="attention.attn.o", norm="attention.LayerNorm", typed=False,
    ),
    "distilbert": Family(
        "transformer.layer.{}.", "attention.q_lin", "attention.k_lin", "attention.v_lin",
        "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm", typed=False,
    ),
}  # fmt: skip


class Dense(NamedTuple):
    """A dense map: x @ weight + bias; weight (in, out)."""

    weight: Vectors
    bias: Vectors

    def __call__(self, x: Vectors) -> Vectors:
        made: Vectors = x @ self.weight + self.bias
        return made


class _Layer(NamedTuple):
    qkv: Dense  # with the bias of queries alone, and these scaled by 1 / sqrt(size of a head)
    out: Dense
    norm: Norm
    up: Dense
    down: Dense
    norm_after: Norm


class Transformer:
    """The network in a folder with config.json and safetensors weights.

    Costs reading the weights once; keeps them as float32. Raises InvalidArgument, beginning with `who`,
    for a family it does not know and for files that do not fit together.
    """

    def __init__(self, folder: Path, who: str) -> None:
        config = read_object(folder / "config.json", who)
        self.config = config
        self.kind = str(config.get("model_type"))
        if self.kind not in FAMILIES:
            raise InvalidArgument(
                f"{who}: {folder} holds a model of type {self.kind!r:.60}; known are "
                f"{', '.join(FAMILIES)}; others run by vecdb.encoders.sentence_transformers (extra `st`)"
            )
        self.family = FAMILIES[self.kind]
        self.tensors = Tensors(weight_files(folder, who), who)
        self.tensors.drop_prefix_of("embeddings.word_embeddings.weight")
        self._read_settings(config, who)
        self._read_embeddings()
        self.layers = [self._read_layer(number) for number in range(self._depth)]

    def _read_settings(self, config: dict[str, Any], who: str) -> None:
        def size(*names: str) -> int:
            found = next((config[name] for name in names if name in config), None)
            if type(found) is not int or found < 1:
                raise InvalidArgument(f"{who}: config.json: {names[0]} is {found!r:.60}, not a size")
            return found

        self.dim = size("hidden_size", "dim")
        self._heads = size("num_attention_heads", "n_heads")
        self._depth = size("num_hidden_layers", "n_layers")
        self._wide = size("intermediate_size", "hidden_dim")
        if self.dim % self._heads:
            raise InvalidArgument(
                f"{who}: config.json: hidden_size {self.dim} is no multiple of {self._heads} heads"
            )
        act = config.get("hidden_act", config.get("activation", "gelu"))
        if not isinstance(act, str) or act not in ACTIVATIONS:
            raise InvalidArgument(
                f"{who}: config.json: activation {act!r:.60}; known are {', '.join(ACTIVATIONS)}"
            )
        self._activate = ACTIVATIONS[act]
        places = config.get("position_embedding_type") or "absolute"
        if places != "absolute":
            raise InvalidArgument(
                f"{who}: config.json: position_embedding_type {places!r:.60}; known is 'absolute'"
            )
        epsilon = config.get("layer_norm_eps", 1e-12)
        if type(epsilon) not in (int, float) or not 0 <= epsilon < 1:
            raise InvalidArgument(f"{who}: config.json: layer_norm_eps is {epsilon!r:.60}")
        self._epsilon = float(epsilon)
        padding = config.get("pad_token_id", 1)
        if self.family.offset and (type(padding) is not int or padding < 0):
            raise InvalidArgument(f"{who}: config.json: pad_token_id is {padding!r:.60}")
        self._first = padding + 1 if self.family.offset else 0
        self._who = who

    def _read_embeddings(self) -> None:
        get = self.tensors.get
        self._words = get("embeddings.word_embeddings.weight", None, None)
        narrow = self._words.shape[1]
        self._places = get("embeddings.position_embeddings.weight", None, narrow)[self._first :]
        self.longest = len(self._places)
        if not self.longest:
            raise InvalidArgument(f"{self._who}: the table of positions ends at the padding token's")
        self._types: Vectors | None = None
        if self.family.typed and "embeddings.token_type_embeddings.weight" in self.tensors:
            self._types = get("embeddings.token_type_embeddings.weight", None, narrow)
        self._norm = self._read_norm("embeddings.LayerNorm", narrow)
        self._project: Dense | None = None
        if narrow != self.dim:  # ELECTRA's small models
            self._project = self.dense("embeddings_project", narrow, self.dim)
        self._near: Vectors | None = None
        if self.kind == "mpnet":
            self._near = get("encoder.relative_attention_bias.weight", BUCKETS, self._heads)

    def _read_layer(self, number: int) -> _Layer:
        names, d = self.family, self.dim
        at = names.layer.format(number)
        parts = [self.dense(at + name, d, d) for name in (names.query, names.key, names.value)]
        scale = np.float32(1 / math.sqrt(d // self._heads))
        weight = np.concatenate([parts[0].weight * scale, parts[1].weight, parts[2].weight], axis=1)
        # A key's bias adds the same to every score of a query, which softmax ignores; a value's bias
        # is in every mean once, so that it can be added behind the next map.
        out = self.dense(at + names.out, d, d)
        return _Layer(
            Dense(np.ascontiguousarray(weight), parts[0].bias * scale),
            Dense(out.weight, out.bias + parts[2].bias @ out.weight),
            self._read_norm(at + names.norm, d),
            self.dense(at + names.up, d, self._wide),
            self.dense(at + names.down, self._wide, d),
            self._read_norm(at + names.norm_after, d),
        )

    def dense(self, name: str, inner: int, outer: int) -> Dense:
        """The dense map of a name, `inner` numbers to `outer`."""
        return read_dense(self.tensors, name, inner, outer)

    def _read_norm(self, name: str, width: int) -> Norm:
        get = self.tensors.get
        return Norm(get(f"{name}.weight", width), get(f"{name}.bias", width), self._epsilon)

    @property
    def vocabulary(self) -> int:
        """How many tokens have an embedding."""
        return len(self._words)

    # --- running -----------------------------------------------------------------------------------

    def run(
        self, tokens: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None
    ) -> Iterator[tuple[Rows, Vectors]]:
        """Yield (rows, hidden states (len(rows), length, dim)) for sequences of one length at a time.

        Every row of `tokens` comes once, the longest first. Sequences have 1 to `longest` tokens. The
        states are valid until the next are asked for.
        """
        lengths = np.array([len(each) for each in tokens], dtype=np.int64)
        order = np.argsort(-lengths, kind="stable")
        scratch, first = Scratch(), 0
        while first < len(order):
            last, count = first, 0
            while last < len(order) and (not count or count + lengths[order[last]] <= BATCH_TOKENS):
                count += int(lengths[order[last]])
                last += 1
            rows = order[first:last]
            batch = self._batch(
                [tokens[row] for row in rows],
                None if types is None else [types[row] for row in rows],
                scratch,
            )
            at = 0
            for length, number in _runs(lengths[rows]):
                end = at + number * length
                yield rows[:number], batch[at:end].reshape(number, length, self.dim)
                rows, at = rows[number:], end
            first = last

    def _batch(
        self, tokens: list[Sequence[int]], types: list[Sequence[int]] | None, scratch: Scratch
    ) -> Vectors:
        """The hidden states of sequences, end to end: (tokens, dim)."""
        lengths = [len(each) for each in tokens]
        total = sum(lengths)
        runs = _runs(np.array(lengths))
        x = self._embed(tokens, types, total, scratch)
        biases = {length: self._bias(length) for length, _ in runs}
        qkv = scratch.take("qkv", total, 3 * self.dim)
        mixed = scratch.take("mixed", total, self.dim)
        queries = qkv[:, : self.dim]
        wide = scratch.take("wide", total, self._wide)
        size = self.dim // self._heads
        for layer in self.layers:
            np.matmul(x, layer.qkv.weight, out=qkv)
            queries += layer.qkv.bias
            at = 0
            for length, number in runs:
                end = at + number * length
                attend(
                    qkv[at:end].reshape(number, length, 3, self._heads, size),
                    mixed[at:end].reshape(number, length, self._heads, size),
                    biases[length],
                    scratch,
                )
                at = end
            added = np.matmul(mixed, layer.out.weight, out=scratch.take("added", total, self.dim))
            add_norm(x, added, layer.out.bias, layer.norm)
            np.matmul(x, layer.up.weight, out=wide)
            self._activate(wide, layer.up.bias, scratch)
            np.matmul(wide, layer.down.weight, out=added)
            add_norm(x, added, layer.down.bias, layer.norm_after)
        return x

    def _embed(
        self,
        tokens: list[Sequence[int]],
        types: list[Sequence[int]] | None,
        total: int,
        scratch: Scratch,
    ) -> Vectors:
        narrow = self._words.shape[1]
        ids = np.fromiter(chain.from_iterable(tokens), dtype=np.int64, count=total)
        x: Vectors = scratch.take("x" if self._project is None else "narrow", total, narrow)
        np.take(self._words, ids, axis=0, out=x)
        at = 0
        for each in tokens:
            x[at : at + len(each)] += self._places[: len(each)]
            at += len(each)
        if self._types is not None and types is not None:
            kinds = np.fromiter(chain.from_iterable(types), dtype=np.int64, count=total)
            x += self._types[np.minimum(kinds, len(self._types) - 1)]
        elif self._types is not None:
            x += self._types[0]
        add_norm(x, None, None, self._norm)
        if self._project is None:
            return x
        wide = np.matmul(x, self._project.weight, out=scratch.take("x", total, self.dim))
        np.add(wide, self._project.bias, out=wide)
        return wide

    def _bias(self, length: int) -> Vectors | None:
        """What MPNet adds to the scores of a sequence, (heads, length, length), by distance."""
        if self._near is None:
            return None
        distance = np.arange(length)[:, None] - np.arange(length)[None, :]
        half = BUCKETS // 2
        exact = half // 2
        away = np.abs(distance)
        steps = np.log(np.maximum(away, 1) / exact) / math.log(FARTHEST / exact) * (half - exact)
        far = np.minimum(exact + steps.astype(np.int64), half - 1)
        bucket = np.where(distance < 0, half, 0) + np.where(away < exact, away, far)
        return np.ascontiguousarray(self._near[bucket].transpose(2, 0, 1))


def read_dense(tensors: Tensors, name: str, inner: int, outer: int) -> Dense:
    """A dense map as PyTorch stores one: weight (out, in) and bias (out,)."""
    weight = tensors.get(f"{name}.weight", outer, inner)
    return Dense(np.ascontiguousarray(weight.T), tensors.get(f"{name}.bias", outer))


def _runs(lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    """(length, how many) of neighbours of one length."""
    found: list[tuple[int, int]] = []
    for length in lengths.tolist():
        if found and found[-1][0] == length:
            found[-1] = (length, found[-1][1] + 1)
        else:
            found.append((length, 1))
    return found
