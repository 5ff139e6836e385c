"""Which vectors are in a service's answer, and are they those that were asked for?

The answer of an OpenAI-compatible service: {"data": [{"index": 0, "embedding": [...]}, ...]}, an embedding
being a list of numbers, or float32 in base64, little-endian.

Invariants (checked by tests/unit/test_http.py):
  1. A vector goes to the text whose number it carries, wherever it stands in the list.
  2. Either every text has one vector of finite numbers, or the answer is bad as a whole: nothing is filled
     in, cut or guessed.

Rejected: the order of the list where numbers are missing (some services answer as they finish).
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np

from vecdb.encoders.base import Vectors

__all__ = ["BadAnswer", "vectors_in"]

SHOWN = 120  # characters of an answer that an error shows


class BadAnswer(Exception):
    """An answer that is none; worth another try."""


def vectors_in(body: bytes, kind: str, count: int, dim: int | None) -> Vectors:
    """Return float32 (count, dim), in the order of the texts; BadAnswer says what is wrong."""
    rows = _rows(body, kind)
    if len(rows) != count:
        raise BadAnswer(f"{len(rows)} vectors for {count} texts")
    made: list[Vectors | None] = [None] * count
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadAnswer(f"data[{place}] is no object")
        index = row.get("index", 0 if count == 1 else None)
        if type(index) is not int or not 0 <= index < count:
            raise BadAnswer(f"data[{place}] has index {index!r:.40}, for {count} texts")
        if made[index] is not None:
            raise BadAnswer(f"index {index} comes twice")
        vector = _vector(row.get("embedding"), place)
        dim = len(vector) if dim is None else dim
        if len(vector) != dim:
            raise BadAnswer(f"data[{place}] has {len(vector)} dimensions, not {dim}")
        made[index] = vector
    return np.array(made, dtype=np.float32).reshape(count, dim or 0)


def told(body: bytes) -> str:
    """The beginning of an answer, for an error: its own message where it has one."""
    text = body[:4096].decode("utf-8", "replace")
    try:
        said = json.loads(body.decode("utf-8"))
        error = said.get("error", said.get("detail", said.get("message"))) if isinstance(said, dict) else said
        text = str(error.get("message", error) if isinstance(error, dict) else error if error else text)
    except (ValueError, RecursionError):
        pass
    return " ".join(text.split())[:SHOWN]


def _rows(body: bytes, kind: str) -> list[Any]:
    try:
        answer = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        what = kind.partition(";")[0] or "no kind"
        raise BadAnswer(f"no JSON ({what}: {told(body)!r}; {error!s:.80})") from None
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise BadAnswer(f"no list 'data' ({told(body)!r})")
    return rows


def _vector(given: Any, place: int) -> Vectors:
    try:
        if isinstance(given, str):
            array: Any = np.frombuffer(base64.b64decode(given, validate=True), "<f4")
        else:
            array = np.array(given if isinstance(given, list) else None)
    except (ValueError, binascii.Error, OverflowError):
        raise BadAnswer(f"data[{place}] holds no vector") from None
    if array.ndim != 1 or not array.size or array.dtype.kind not in "fiu":
        raise BadAnswer(f"data[{place}] holds no list of numbers")
    with np.errstate(over="ignore"):
        vector: Vectors = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise BadAnswer(f"data[{place}] holds NaN or infinity")
    return vector
