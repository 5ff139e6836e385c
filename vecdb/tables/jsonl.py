"""How does a row become a line of JSON, and back? One object a line; nothing is lost.

`{"id": ..., "text": ..., "vector": [...], "year": 1999}`: id, text and vectors are there when the
row has them, then its metadata, values as marks.py says. Vectors of f32 and f16 have nine digits:
enough to tell any two float32 apart, also when read as float64 first.

Invariants:
  J1  a row reads back equal: ids and metadata type for type, vectors bit for bit;
  J2  reading holds one line in memory; an error names file and line.

Rejected: metadata under a key of its own. Files from elsewhere are flat.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.tables import marks

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_LINE: Final = 256 << 20  # characters; a row of every limit at once is below


def write(rows: Iterable[dict[str, Any]], out: IO[str]) -> None:
    """Write flat rows (see arrow.row_of), one a line."""
    for row in rows:
        cells = [
            f"{json.dumps(name, ensure_ascii=False)}: {cell(value)}" for name, value in row.items()
        ]
        out.write("{" + ", ".join(cells) + "}\n")


def cell(value: Any) -> str:
    """A value as JSON; an array as a list of numbers, or of such lists."""
    if isinstance(value, np.ndarray):
        if value.ndim == 2:
            return f"[{', '.join(map(_numbers, value))}]"
        return _numbers(value)
    return marks.dumps(value)


def _numbers(vector: npt.NDArray[Any]) -> str:
    """A vector as JSON; its zeros keep their signs."""
    if vector.dtype.kind != "f" or vector.dtype.itemsize > 4:
        return json.dumps(vector.tolist())
    listed = "%.9g," * len(vector) % tuple(vector.tolist())
    if "-0," in listed:
        listed = f",{listed}".replace(",-0,", ",-0.0,").replace(",-0,", ",-0.0,")[1:]
    return f"[{listed[:-1]}]"


def read(lines: IO[str], name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file; empty lines are passed over."""
    number = 0
    while True:
        number += 1
        try:
            line = lines.readline(MAX_LINE)
        except UnicodeDecodeError as error:
            _refuse(f"{name}: line {number} or soon after is no UTF-8: {error}")
        if not line:
            return
        if len(line) == MAX_LINE:
            _refuse(f"{name}: line {number} is longer than {MAX_LINE:,} characters")
        if line.isspace():
            continue
        try:
            row = marks.parsed(line)
        except ValueError as error:
            _refuse(f"{name}: line {number} is no JSON: {error}")
        if not isinstance(row, dict):
            _refuse(f"{name}: line {number} is a {type(row).__name__}, not an object")
        yield {key: _unmarked(value, key, name, number) for key, value in row.items()}


def _unmarked(value: Any, key: str, name: str, number: int) -> Any:
    if type(value) is not dict and type(value) is not list:
        return value
    try:
        return marks.unmarked(value)
    except ValueError as error:
        _refuse(f"{name}: line {number}: {key!r}: {error}")


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
