"""Images through an ONNX graph: how does a list of pictures become vectors?

images.py makes the numbers that the graph reads. onnx.py holds the promises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Vectors
from vecdb.encoders.graph import PIXELS, Graph, chosen, with_data
from vecdb.encoders.images import CONFIG, Preprocessor, as_picture
from vecdb.errors import InvalidArgument

__all__ = ["ImageGraph"]

VECTORS = ("image_embeds", "sentence_embedding", "embeddings", "embedding")  # outputs of a whole image
BATCH = 16  # images that are run together
SMALLEST = 32  # pixels of the picture that a graph of any size is tried with


class ImageGraph:
    """A graph that reads pixels, and what stands around it."""

    def __init__(self, folder: Path, graph: Graph, who: str) -> None:
        self._who = who
        self._graph, path = graph, graph.path
        if list(self._graph.inputs) != [PIXELS]:
            raise InvalidArgument(
                f"{self._who}: {path} wants {', '.join(self._graph.inputs)}; of images {PIXELS} is known"
            )
        config = next((each for each in (folder / CONFIG, path.parent / CONFIG) if each.is_file()), None)
        if config is None:
            raise InvalidArgument(f"{who}: {folder} holds no {CONFIG}, which says how images are scaled")
        self._preprocessor = Preprocessor.read(config, self._who)
        shape = self._graph.inputs[PIXELS].shape
        self._last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3  # channels last
        self._output, flat, self.dim = self._tried()
        self._pooled = flat
        self.weights = with_data(path)
        self.digested = self.weights
        self.said = [self._output, flat, list(self._preprocessor)]

    def encode(self, images: list[Any], rows: list[int], _role: str, who: str) -> Vectors:
        """The vectors of images, in their order; `rows`: which of the call's items they are."""
        pictures = [as_picture(each, row, who) for each, row in zip(images, rows, strict=True)]
        made = np.empty((len(pictures), self.dim), dtype=np.float32)
        fixed = self._graph.inputs[PIXELS].shape
        most = 1 if self._graph.one_at_a_time else fixed[0] if fixed and fixed[0] else BATCH
        alike: dict[tuple[int, ...], list[int]] = {}
        for at, picture in enumerate(pictures):
            size = (3,) if self._preprocessor.crop or self._preprocessor.size else picture.shape
            alike.setdefault(size, []).append(at)
        for group in alike.values():
            for first in range(0, len(group), most):
                part = group[first : first + most]
                numbers = [self._preprocessor.numbers(pictures[at]) for at in part]
                made[part] = self._run(numbers, self._output)
        return made

    def _run(self, numbers: list[Vectors], output: str, *, pooled: bool = True) -> NDArray[Any]:
        x = np.stack(numbers)
        told = self._graph.inputs[PIXELS]
        if told.shape and told.shape[0] and told.shape[0] > len(x):  # a batch of fixed size is filled up
            x = np.concatenate([x, np.repeat(x[:1], told.shape[0] - len(x), axis=0)])
        x = x.transpose(0, 2, 3, 1) if self._last else x
        made = self._graph.run({PIXELS: np.ascontiguousarray(x, dtype=told.dtype)}, [output])[0]
        if made.ndim not in (2, 3) or made.shape[0] != len(x):
            raise InvalidArgument(
                f"{self._who}: {self._graph.path}: output {output!r} has shape {made.shape} for "
                f"{len(x)} images"
            )
        made = made[: len(numbers)]
        return made[:, 0] if pooled and made.ndim == 3 else made  # the first state stands for the image

    def _tried(self) -> tuple[str, bool, int]:
        told = self._graph.inputs[PIXELS].shape
        high, wide = None, None
        if len(told) == 4:
            high, wide = told[1:3] if self._last else told[2:4]
        black = np.zeros((high or SMALLEST, wide or SMALLEST, 3), dtype=np.uint8)
        numbers = self._preprocessor.numbers(black)
        if (high or numbers.shape[1], wide or numbers.shape[2]) != numbers.shape[1:]:
            raise InvalidArgument(
                f"{self._who}: {self._graph.path} reads images of {high} x {wide}, {CONFIG} makes "
                f"{numbers.shape[1]} x {numbers.shape[2]}"
            )
        shapes = self._graph.shapes(lambda output: self._run([numbers], output, pooled=False))
        return chosen(shapes, VECTORS, self._graph.path, self._who)
