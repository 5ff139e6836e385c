"""Texts through an ONNX graph: which tokens does it read, and how do its states become one vector?

What sentence-transformers does around a network (pooling.py), around a graph. onnx.py holds the promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Vectors
from vecdb.encoders.graph import PIXELS, Graph, chosen, with_data
from vecdb.encoders.pooling import Recipe, layout, recipe, settings
from vecdb.encoders.weights import read_object
from vecdb.encoders.wordpieces import WordPieces
from vecdb.errors import InvalidArgument

__all__ = ["TextGraph"]

KNOWN = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
VECTORS = ("sentence_embedding", "text_embeds", "embeddings", "embedding")  # outputs of a whole text
LONGEST = 512  # tokens, where nothing is said
SHORTEST = 3  # tokens: one, and a special one on each side
NO_VOCABULARY = 1 << 31
BATCH_TOKENS = 4096
BLOCK = 4096  # texts that are tokenized and sorted at once
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "mpnet")  # positions begin behind the padding's


class TextGraph:
    """A graph that reads tokens, and what stands around it."""

    def __init__(self, folder: Path, graph: Graph, who: str) -> None:
        self._who = who
        self._graph, path = graph, graph.path
        self._check_inputs()
        settled, modules = layout(folder, self._who)
        config_path = next((each for each in (settled / "config.json", folder / "config.json")
                            if each.is_file()), None)  # fmt: skip
        config = read_object(config_path, self._who) if config_path is not None else {}
        texts = config.get("text_config") if isinstance(config.get("text_config"), dict) else {}
        config = {**config, **(texts or {})}
        where = settled if (settled / "tokenizer.json").is_file() else folder
        size = config.get("vocab_size")
        self._tokens = WordPieces(where, self._who, size if type(size) is int and size > 0 else NO_VOCABULARY)
        self.longest, self._lower = self._limits(settled, config)
        self._tokens.cut_at(self.longest)
        self._document, self._query, _ = settings(folder, self._who)
        pad = config.get("pad_token_id")
        self._pad = pad if type(pad) is int and pad >= 0 else 0
        special = self._tokens.special
        before = max(len(self.pieces(each)) for each in (self._document, self._query))
        self.max_tokens = max(0, self.longest - special - before)
        self._output, self._pooled, found = self._tried()
        if modules is None:  # only a pooling beside the graph, or nothing
            beside = folder / "1_Pooling"
            modules = [("Pooling", beside)] if (beside / "config.json").is_file() else None
        self._recipe, files, self.dim = Recipe(), list[Path](), found
        if self._pooled:  # the graph has done all of it; the length of 1 does no harm twice
            normal = any(kind == "Normalize" for kind, _ in modules or [])
            self._recipe = Recipe(("cls",), after=("normalize",) if normal else ())
        else:
            self._recipe, files, self.dim = recipe(folder, modules, found, self._who)
        self.weights = [*with_data(path), *files]
        self.digested = [*self.weights, self._tokens.file]
        self.said = [self.longest, self._lower, self._output, self._pooled, *self._recipe.said,
                     self._document, self._query, self._pad]  # fmt: skip

    def pieces(self, text: str) -> list[str]:
        return self._tokens.pieces(self._plain(text))

    def encode(self, texts: list[str], _rows: list[int], role: str, _who: str) -> Vectors:
        """The vectors of texts, in their order."""
        prompt = self._query if role == "query" else self._document
        skip = 0
        if prompt and not self._recipe.with_prompt:
            skip = len(self._tokens.encode([self._plain(prompt)])[0]) - 1
        made = np.empty((len(texts), self.dim), dtype=np.float32)
        for first in range(0, len(texts), BLOCK):
            block = [self._plain(prompt + text) for text in texts[first : first + BLOCK]]
            part = made[first : first + len(block)]
            coded = self._tokens.encode(block)
            for rows in self._batches([len(each) for each in coded]):
                states = self._run([coded[row] for row in rows], self._output)
                part[rows] = self._finished(states, skip)
        return made

    def _finished(self, states: NDArray[Any], skip: int) -> Vectors:
        x: Vectors = np.asarray(states, dtype=np.float32)
        return self._recipe.vectors(x[:, None] if self._pooled else x, skip)

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Rows of one length at a time, the longest first."""
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        fixed = self._graph.inputs["input_ids"].shape
        most = 1 if self._graph.one_at_a_time else fixed[0] if fixed and fixed[0] else None
        first = 0
        while first < len(order):
            length = lengths[order[first]]
            size = most or max(1, BATCH_TOKENS // max(1, length))
            rows = [row for row in order[first : first + size] if lengths[row] == length]
            yield rows
            first += len(rows)

    def _run(self, tokens: list[list[int]], output: str) -> NDArray[Any]:
        """What the graph gives for sequences of one length: (n, length, d), or (n, d)."""
        count, length = len(tokens), len(tokens[0])
        fixed = self._graph.inputs["input_ids"].shape
        rows = fixed[0] if fixed and fixed[0] else count
        columns = fixed[1] if len(fixed) > 1 and fixed[1] else length
        ids = np.full((rows, columns), self._pad, dtype=np.int64)
        mask = np.zeros((rows, columns), dtype=np.int64)
        ids[:count, :length] = tokens
        ids[count:, :length] = tokens[0]  # a batch of fixed size is filled up
        mask[:, :length] = 1
        places = np.broadcast_to(np.arange(columns), (rows, columns))
        every = dict(zip(KNOWN, (ids, mask, np.zeros_like(ids), places), strict=True))
        feeds = {name: np.ascontiguousarray(every[name], dtype=told.dtype)
                 for name, told in self._graph.inputs.items()}  # fmt: skip
        made = self._graph.run(feeds, [output])[0]
        if made.ndim not in (2, 3) or made.shape[0] != rows:
            raise InvalidArgument(
                f"{self._who}: {self._graph.path}: output {output!r} has shape {made.shape} for {rows} texts"
            )
        return made[:count] if made.ndim == 2 else made[:count, :length]

    def _plain(self, text: str) -> str:
        text = text.strip()
        return text.lower() if self._lower else text

    def _check_inputs(self) -> None:
        unknown = [name for name in self._graph.inputs if name not in KNOWN]
        if unknown or "input_ids" not in self._graph.inputs:
            what = f"wants {', '.join(unknown)}" if unknown else "has no input 'input_ids'"
            both = "; export the models of texts and of images apart" if PIXELS in unknown else ""
            raise InvalidArgument(
                f"{self._who}: {self._graph.path} {what}; of texts {', '.join(KNOWN)} are known{both}"
            )

    def _limits(self, network: Path, config: dict[str, Any]) -> tuple[int, bool]:
        """How many tokens of a text count, and whether texts are put in lower case before."""
        path = network / "sentence_bert_config.json"
        said = read_object(path, self._who) if path.is_file() else {}
        wanted = said.get("max_seq_length")
        if wanted is not None and (type(wanted) is not int or wanted < 3):
            raise InvalidArgument(f"{self._who}: {path}: max_seq_length is {wanted!r:.60}; at least 3")
        places = config.get("max_position_embeddings")
        first = int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _SHIFTED else 0
        most = places - first if type(places) is int and places > first else LONGEST
        fixed = self._graph.inputs["input_ids"].shape
        limits = [wanted or self._tokens.most or most, most]
        if len(fixed) > 1 and fixed[1]:
            limits.append(fixed[1])
        if min(limits) < 3:
            raise InvalidArgument(f"{self._who}: {network}: a text of {min(limits)} tokens holds no word")
        return min(limits), bool(said.get("do_lower_case", False))

    def _tried(self) -> tuple[str, bool, int]:
        """The output that counts, whether it is one vector a text, and its width: by a run."""
        probe = [self._tokens.encode(["a"])[0]]
        shapes = self._graph.shapes(lambda output: self._run(probe, output))
        return chosen(shapes, VECTORS, self._graph.path, self._who)
