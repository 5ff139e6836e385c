"""What does an ONNX graph want to be given, and what does it give?

A thin door to onnxruntime: one file, on the processor, with nothing printed. ONNX is an open format for
networks (https://onnx.ai); onnxruntime runs it.

Invariants (checked by tests/unit/test_onnx.py):
  1. Whatever onnxruntime raises is an InvalidArgument that names the file.
  2. A forked child opens the file again, and keeps the parent's session for ever: onnxruntime's threads do
     not follow a fork, and whoever waits for them, a run or a session's end, never comes back. (A child that
     ends in the ordinary way hangs in onnxruntime's own exit even so, as after a mere import of it; those of
     multiprocessing end by os._exit.)
  3. A graph that quantizes its activations as it runs is given one text at a time: it takes their range
     over the whole batch, so that a text's vector would depend on its neighbours.

Rejected: the onnx package for looking into the file (9 MB more, and the runtime tells names and shapes).
"""

from __future__ import annotations

import importlib.util
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidArgument

__all__ = ["PIXELS", "REMEDY", "Graph", "Input", "chosen", "lacks_runtime", "with_data"]

PACKAGE = "onnxruntime"
REMEDY = "pip install 'vecdb-engine[onnx]'"
KINDS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32,
         "tensor(float16)": np.float16, "tensor(double)": np.float64}  # fmt: skip
PIXELS = "pixel_values"  # the input that tells a model of images
STATES = ("token_embeddings", "last_hidden_state")  # outputs of one state a token
_RANGES = (b"DynamicQuantize",)  # begins the names of the operators that look at a whole batch
_DATA = {"", ".data", ".onnx_data", ".bin", ".weights"}


class Input(NamedTuple):
    """One input: its kind of number, and its shape with None for what may vary."""

    dtype: Any
    shape: tuple[int | None, ...]


class Graph:
    """An ONNX file that can be run; `who` begins what its errors say."""

    def __init__(self, path: Path, who: str, threads: int | None = None) -> None:
        self.path = path
        self._who = who
        self._threads = threads
        self._process = 0
        self._session: Any = None
        self._left: list[Any] = []
        self.inputs = {each.name: self._input(each) for each in self._opened().get_inputs()}
        self.outputs = [str(each.name) for each in self._opened().get_outputs()]
        self.one_at_a_time = _mentions(path, _RANGES)

    def run(self, feeds: dict[str, NDArray[Any]], outputs: list[str] | None = None) -> list[NDArray[Any]]:
        """The outputs of these names, or all, for inputs by name."""
        try:
            return [np.asarray(each) for each in self._opened().run(outputs, feeds)]
        except Exception as error:  # onnxruntime has a class for every kind of failure
            raise InvalidArgument(f"{self._who}: {self.path} cannot be run: {error!s:.400}") from None

    def shapes(self, run: Callable[[str], NDArray[Any]]) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs that `run`, given a name, can make something of."""
        found: dict[str, tuple[int, ...]] = {}
        for name in self.outputs:
            try:
                found[name] = run(name).shape
            except InvalidArgument:
                if not found and name == self.outputs[-1]:
                    raise
        return found

    def _opened(self) -> Any:
        if self._process != os.getpid():
            self._left.append(self._session)  # its end would wait for threads that are the parent's
            self._session = self._open()
            self._process = os.getpid()
        return self._session

    def _open(self) -> Any:
        if lacks_runtime():
            raise InvalidArgument(f"{self._who} needs the package {PACKAGE}: {REMEDY}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is raised, and need not be printed too
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            return onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise InvalidArgument(f"{self._who}: {self.path} cannot be read: {error!s:.400}") from None

    def _input(self, told: Any) -> Input:
        kind = KINDS.get(told.type)
        if kind is None:
            raise InvalidArgument(
                f"{self._who}: {self.path}: input {told.name!r} is a {told.type}; known are "
                f"{', '.join(KINDS)}"
            )
        fixed = (each if isinstance(each, int) and each > 0 else None for each in told.shape or ())
        return Input(kind, tuple(fixed))


def lacks_runtime() -> str | None:
    """Return the command that installs what this lacks here, None if nothing."""
    try:
        return REMEDY if importlib.util.find_spec(PACKAGE) is None else None
    except ValueError:  # a module without a spec, put there by hand
        return None


def chosen(
    shapes: dict[str, tuple[int, ...]], vectors: tuple[str, ...], path: Path, who: str
) -> tuple[str, bool, int]:
    """By name and number of axes: a vector of the whole, else states to pool, else the only output."""
    for name in vectors:
        if len(shapes.get(name, ())) == 2:
            return name, True, shapes[name][1]
    deep = [name for name, shape in shapes.items() if len(shape) == 3]
    for name in (*STATES, *deep):
        if len(shapes.get(name, ())) == 3:
            return name, False, shapes[name][2]
    flat = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(flat) == 1:
        return flat[0], True, shapes[flat[0]][1]
    told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    raise InvalidArgument(
        f"{who}: {path}: none of its outputs ({told or 'none'}) is known to be a vector or states; "
        f"known are {', '.join((*vectors, *STATES))}"
    )


def with_data(path: Path) -> list[Path]:
    """A graph's file and the files beside it that hold its weights: those that it names."""
    beside = [
        each
        for each in sorted(path.parent.iterdir())
        if each != path and each.is_file() and _is_data(each, path) and _mentions(path, (each.name.encode(),))
    ]
    return [path, *beside]


def _is_data(file: Path, graph: Path) -> bool:
    return file.suffix in _DATA or file.name.startswith((f"{graph.name}_", f"{graph.name}."))


def _mentions(path: Path, words: tuple[bytes, ...]) -> bool:
    """Whether a file holds one of these bytes; it is mapped, not read."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as all_of_it:
            return any(all_of_it.find(word) >= 0 for word in words)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False
