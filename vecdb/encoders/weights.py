"""What do the weight files of a model hold? Tensors by name, as float32.

A safetensors file is eight bytes with the length of a header, the header as JSON ({name: dtype, shape
and place}), and the tensors' bytes (https://github.com/huggingface/safetensors, "Format"). A model is
one file, `model.safetensors`, or several that `model.safetensors.index.json` lists.

Invariants:
  1. A tensor is read when it is asked for, and nothing else of the file: a head that is not needed
     costs nothing.
  2. What does not fit (a header that lies, a place beyond the file, NaN or infinity) is an
     InvalidArgument that names file and tensor. No code in a file is ever run.

Rejected: the safetensors package for reading. numpy has no bfloat16, and it refuses such a tensor;
the format is small enough to be read here. And pickled `pytorch_model.bin`: loading one runs code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vecdb.encoders.base import Vectors
from vecdb.errors import InvalidArgument

__all__ = ["WHOLE", "Tensors", "read_object", "weight_files"]

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000  # the format's own limit
_OLDER = {"weight": "gamma", "bias": "beta"}
_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # what weights come as


class _Place(NamedTuple):
    path: Path
    kind: str
    shape: tuple[int, ...]
    first: int
    size: int


class Tensors:
    """The tensors of a model's weight files, by name without the prefix that the family has."""

    def __init__(self, files: list[Path], who: str) -> None:
        self._who = who
        self._places: dict[str, _Place] = {}
        for path in files:
            self._places.update(_header(path, who))
        self._prefix = ""

    def drop_prefix_of(self, ending: str) -> None:
        """Take what stands before `ending` in a name as the prefix of all names."""
        found = [name for name in self._places if name.endswith(ending)]
        if found:
            self._prefix = min(found, key=len)[: -len(ending)]

    def __contains__(self, name: str) -> bool:
        return self._place(name) is not None

    def get(self, name: str, *shape: int | None) -> Vectors:
        """Return a tensor as C-ordered float32; of the given shape, where None is any length."""
        place = self._place(name)
        if place is None:
            some = ", ".join(sorted(self._places)[:3])
            raise InvalidArgument(
                f"{self._who}: the weights hold no {self._prefix}{name} (they hold {some}, ...); "
                "config.json and the weights must be of one model"
            )
        fits = len(shape) == len(place.shape) and all(
            want is None or want == have for want, have in zip(shape, place.shape, strict=True)
        )
        if not fits:
            wanted = tuple("any" if each is None else each for each in shape)
            raise InvalidArgument(
                f"{self._who}: {place.path}: {name} has shape {place.shape}, config.json wants {wanted}"
            )
        return self._read(place, name)

    def rows(self, name: str) -> int:
        """The first length of a tensor that is there."""
        place = self._place(name)
        return place.shape[0] if place is not None and place.shape else 0

    @property
    def cells(self) -> int:
        """How many numbers all tensors hold."""
        return sum(int(np.prod(each.shape, dtype=object)) for each in self._places.values())

    def _place(self, name: str) -> _Place | None:
        for spelled in (self._prefix + name, name):
            for each in (spelled, _older(spelled)):
                if each in self._places:
                    return self._places[each]
        return None

    def _read(self, place: _Place, name: str) -> Vectors:
        try:
            kind = _KINDS[place.kind]
            with place.path.open("rb") as file:
                file.seek(place.first)
                raw = np.frombuffer(file.read(place.size), dtype=kind)
        except (OSError, KeyError, ValueError) as error:
            raise InvalidArgument(
                f"{self._who}: {place.path}: {name} ({place.kind}) cannot be read: {error}; "
                f"known are {', '.join(_KINDS)}"
            ) from None
        if place.kind == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
        with np.errstate(over="ignore"):
            found = np.array(raw.reshape(place.shape), dtype=np.float32, order="C")
        if not np.isfinite(found).all():
            raise InvalidArgument(f"{self._who}: {place.path}: {name} holds NaN or infinity")
        return found


def weight_files(folder: Path, who: str) -> list[Path]:
    """The safetensors files of a model's folder, or InvalidArgument saying what to do."""
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file():
        return [whole]
    if not index.is_file():
        raise InvalidArgument(
            f"{who}: {folder} holds no {WHOLE}; save the model again with "
            "model.save_pretrained(folder, safe_serialization=True)"
        )
    listed = read_object(index, who).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InvalidArgument(f"{who}: {index} lists no files")
    files = [folder / Path(str(name)).name for name in sorted(set(map(str, listed.values())))]
    for path in files:
        if not path.is_file():
            raise InvalidArgument(f"{who}: {index} names {path.name}, which is not there")
    return files


def read_object(path: Path, who: str) -> dict[str, Any]:
    """The JSON object in a file, or InvalidArgument naming it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{who}: {path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument(f"{who}: {path} holds no object")
    return found


def _header(path: Path, who: str) -> dict[str, _Place]:
    """Where each tensor of a file lies."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(LONGEST_HEADER, size - 8):
                raise ValueError(f"no safetensors file: its header would be {length} bytes long")
            header = json.loads(file.read(length))
        found = {}
        for name, facts in header.items():
            if name == "__metadata__":
                continue
            shape = tuple(int(each) for each in facts["shape"])
            first, end = (int(each) for each in facts["data_offsets"])
            kind = str(facts["dtype"])
            cells = int(np.prod(shape, dtype=object)) if shape else 1
            wide = kind in _KINDS and cells * np.dtype(_KINDS[kind]).itemsize != end - first
            if min(shape, default=0) < 0 or not 0 <= first <= end <= size - 8 - length or wide:
                raise ValueError(f"{name} does not fit: shape {shape}, bytes {first} to {end}")
            found[name] = _Place(path, kind, shape, 8 + length + first, end - first)
        return found
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidArgument(f"{who}: {path} cannot be read: {error!r:.300}") from None


def _older(name: str) -> str:
    """How TensorFlow's first checkpoints spelled the two tensors of a norm."""
    head, _, last = name.rpartition(".")
    if not head.endswith("LayerNorm"):
        return name
    return f"{head}.{_OLDER.get(last, last)}"
