"""Encoders from a folder with an ONNX model, of texts, of images, or of both (extra `onnx`): no torch.

The folder is what `optimum-cli export onnx` or sentence-transformers' ONNX backend has saved: the graph,
`tokenizer.json` for texts, `preprocessor_config.json` for images, and the settings of sentence-transformers
where there are any. The graph is `model.onnx`; of a model of texts and images in one space, such as CLIP
(Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021), there are
`text_model.onnx` and `vision_model.onnx`. They may lie in a folder `onnx` inside.

    searched by text            db.create_collection("notes", encoder=vecdb.encoders.onnx(folder))
    images, searched by image   papers.add(ids, encoder.encode_documents(images))
    images, searched by text    the same, in a collection with encoder=, of a folder with both models

Invariants (checked by tests/unit/test_onnx.py):
  1. Texts are put before the graph as sentence-transformers puts them: prompts, longest input, special
     tokens; and what it gives becomes a vector by the folder's pooling, dense maps and normalisation. A
     graph that gives sentence vectors itself (`sentence_embedding`, `text_embeds`) has pooled them.
  2. Texts of one length are run together, so that none is padded: a text's vector does not depend on its
     batch, except for the last bits of a matrix product. A graph of fixed length is padded to it, and
     what is padded is masked.
  3. The fingerprint is made of the graph with its weights, the tokenizer and every setting that counts.
  4. Nothing is downloaded: a model that is not on this disk is an error.

Rejected: `pooler_output` of a text model (BERT's is trained for another task), and one graph that wants a
text and an image at once (each would be run for the other).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.encoders.base import NOT_STATED, Vectors, check_text, check_vectors, one_text
from vecdb.encoders.cards import card_of_folder
from vecdb.encoders.graph import PIXELS, Graph, lacks_runtime
from vecdb.encoders.graph_images import ImageGraph
from vecdb.encoders.graph_texts import TextGraph
from vecdb.encoders.images import CONFIG
from vecdb.encoders.places import cached, packaged, path_of
from vecdb.encoders.pooling import settings
from vecdb.encoders.wordpieces import lacks_tokenizers
from vecdb.errors import InvalidArgument

__all__ = ["OnnxEncoder", "OnnxTextEncoder", "lacks_onnx", "onnx"]

WHO = "encoder 'onnx'"
TEXT_GRAPHS = ("model.onnx", "text_model.onnx")
IMAGE_GRAPHS = ("vision_model.onnx", "image_model.onnx")
INSIDE = ("", "onnx")  # where in the folder they lie


class OnnxEncoder:
    """What `onnx` returns for a folder with an image model; `encode_documents` takes a list of images."""

    def __init__(self, folder: Path, name: str, graphs: dict[str, Graph], threads: int | None) -> None:
        self._threads = threads
        self.name = f"onnx:{name}"
        self.metric = settings(folder, WHO).metric
        parts = {kind: _PARTS[kind](folder, graph, WHO) for kind, graph in graphs.items()}
        self._parts: dict[str, Any] = parts
        dims = {kind: part.dim for kind, part in parts.items()}
        if len(set(dims.values())) != 1:
            raise InvalidArgument(
                f"{WHO}: {folder}: the model of texts gives {dims['texts']} dimensions, that of images "
                f"{dims['images']}; both must be of one space"
            )
        self.dim: int = next(iter(dims.values()))
        self.takes = " and ".join(parts)
        files = [each for part in parts.values() for each in part.weights]
        self.fingerprint = _digest(parts)
        text = parts.get("texts")
        self.card = card_of_folder(
            [folder, *(graph.path.parent for graph in graphs.values())],
            longest_input=NOT_STATED if text is None else f"{text.longest} tokens",
            max_tokens=None if text is None else text.max_tokens,
            size_bytes=sum(path.stat().st_size for path in files),
            similarity=f"{self.metric}, of {self.takes}",
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name.partition(':')[2]!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.name.partition(":")[2], self._threads)

    def encode_documents(self, items: Sequence[Any], /) -> Vectors:
        """Return the float32 vectors (n, dim) of texts or images (uint8 (h, w, 3), or Pillow's)."""
        return self._encode(items, "document")

    def encode_queries(self, items: Sequence[Any], /) -> Vectors:
        """Return the float32 vectors (n, dim) of texts or images looked for."""
        return self._encode(items, "query")

    def _encode(self, items: Sequence[Any], role: str) -> Vectors:
        who = f"encoder {self.name!r}"
        one = isinstance(items, np.ndarray) and items.ndim == 3 and items.shape[2] in (1, 3, 4)
        if isinstance(items, str) or hasattr(items, "getbands") or one:
            what = "one str; write [text]" if isinstance(items, str) else "one image; write [image]"
            raise InvalidArgument(f"{who} takes a list, not {what}")
        listed = list(items)
        made = np.empty((len(listed), self.dim), dtype=np.float32)
        rows: dict[str, list[int]] = {"texts": [], "images": []}
        for row, each in enumerate(listed):
            rows["texts" if isinstance(each, str) else "images"].append(row)
        for kind, at in rows.items():
            if at and kind not in self._parts:
                raise InvalidArgument(
                    f"{kind}[{at[0]}] given to {who} is {type(listed[at[0]]).__name__}, and the folder "
                    f"holds a model of {self.takes} only"
                )
            if at and kind == "texts":
                for row in at:
                    check_text(listed[row], f"texts[{row}] given to {who}")
            if at:
                vectors = self._parts[kind].encode([listed[row] for row in at], at, role, who)
                made[at] = check_vectors(vectors, len(at), self.dim, who)
        return made


class OnnxTextEncoder(OnnxEncoder):
    """What `onnx` returns for a folder with a text model, alone or beside one of images."""

    @property
    def max_tokens(self) -> int:
        """How many pieces of a text count at most."""
        return int(self._parts["texts"].max_tokens)

    def tokens(self, text: str, /) -> list[str]:
        """Return the pieces of a whole text; `max_tokens` of them count."""
        found: list[str] = self._parts["texts"].pieces(one_text(text, f"encoder {self.name!r}"))
        return found


def onnx(folder: str | os.PathLike[str], *, threads: int | None = None) -> OnnxEncoder:
    """Make an encoder of an ONNX model on this disk, of texts, images or both; it is never downloaded.

    `folder` holds model.onnx (or text_model.onnx, vision_model.onnx; also in a folder `onnx` inside) with
    tokenizer.json for texts and preprocessor_config.json for images; or it is the graph's own file, for one
    of several in a folder; or the name of a model in the local Hugging Face cache, or of an installed
    package that holds these files. `threads`: how many a run uses, default all processors. Images are
    numpy arrays of uint8 (height, width, 3) or Pillow images; add them as vectors:
    `papers.add(ids, encoder.encode_documents(images))`. Costs reading the files once. The encoder's name
    is "onnx:<folder>", by which a collection finds it again. InvalidArgument names what is missing,
    unknown or does not fit.

    >>> onnx("no/such/folder")
    Traceback (most recent call last):
        ...
    vecdb.errors.InvalidArgument: encoder 'onnx'...
    """
    if threads is not None and (type(threads) is not int or not 1 <= threads <= 1024):
        raise InvalidArgument(f"{WHO}: threads={threads!r:.40}: give an int from 1 to 1024, or None")
    found, paths, name = _find(path_of(folder, WHO))
    graphs = {kind: Graph(path, WHO, threads) for kind, path in paths.items()}
    if list(graphs) == ["texts"] and list(graphs["texts"].inputs) == [PIXELS]:
        graphs = {"images": graphs["texts"]}
    made = OnnxTextEncoder if "texts" in graphs else OnnxEncoder
    return made(found, name, graphs, threads)


def lacks_onnx() -> str | None:
    """Return the command that installs what this encoder lacks here, None if nothing."""
    return lacks_runtime() or lacks_tokenizers()


def _again(name: str, threads: int | None) -> OnnxEncoder:
    """The encoder of a name, as unpickling wants it."""
    return onnx(name, threads=threads)


# --- where the files are ---------------------------------------------------------------------------


def _find(given: str) -> tuple[Path, dict[str, Path], str]:
    """The folder of the settings, the graphs by what they read, and the name that finds them again."""
    path = Path(given)
    if path.is_file() and path.suffix == ".onnx":
        absolute = path.resolve()
        folder = absolute.parent
        if not any((folder / each).is_file() for each in ("tokenizer.json", "vocab.txt", CONFIG)):
            folder = folder.parent  # of <folder>/onnx/model.onnx
        return folder, {"texts": absolute}, str(absolute)
    if path.is_dir():
        absolute = path.resolve()
        graphs = _graphs(absolute)
        if graphs:
            return absolute, graphs, str(absolute)
        raise InvalidArgument(
            f"{WHO}: {given} holds none of {', '.join((*TEXT_GRAPHS, *IMAGE_GRAPHS))}, nor has a folder "
            "'onnx' with one; give the file of a graph that is called otherwise"
        )
    for folder in (*cached(given), *packaged(given)):
        graphs = _graphs(folder)
        if graphs:
            return folder, graphs, given
    raise InvalidArgument(
        f"{WHO}: no folder {given!r:.200}, nor a model of that name in the local Hugging Face cache, nor "
        "an installed package that holds one; vecdb downloads nothing: save it there first"
    )


def _graphs(folder: Path) -> dict[str, Path]:
    """The graphs of a folder; whether `model.onnx` reads texts or images, only itself can tell."""
    found: dict[str, Path] = {}
    for kind, names in (("texts", TEXT_GRAPHS), ("images", IMAGE_GRAPHS)):
        paths = (folder / inside / name for name in names for inside in INSIDE)
        first = next((path for path in paths if path.is_file()), None)
        if first is not None:
            found[kind] = first
    return found


# --- both kinds -------------------------------------------------------------------------------------


_PARTS: dict[str, Any] = {"texts": TextGraph, "images": ImageGraph}


def _digest(parts: dict[str, Any]) -> str:
    """Return a digest of the files and of what is done with them."""
    said = {kind: part.said for kind, part in parts.items()}
    digest = hashlib.sha256(f"onnx 1, {json.dumps(said)}".encode())
    for part in parts.values():
        for path in part.digested:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
