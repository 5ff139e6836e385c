"""Encoders: what turns texts into vectors, and what a database must know about it.

Invariants (checked by tests/unit/test_encoders.py):
  1. `encode_documents` and `encode_queries` return a C-ordered float32 array of shape
     (number of texts, dim), finite, in the order of the texts.
  2. A text's vector does not depend on the other texts of the call, nor on the process or the
     machine: the same fingerprint means the same vectors.
  3. The fingerprint changes when any vector would. It is what a collection records, so a
     renamed encoder still fits and a changed one is refused.

Rejected: one `encode` method (many models prepend other words to a query than to a document,
and a caller cannot know), and an abstract base class (an encoder of another package should not
have to import ours to fit).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidArgument

__all__ = ["Card", "Encoder", "Vectors", "check_texts", "check_vectors"]

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Card:
    """What one should know about an encoder before trusting it with a question.

    >>> Card("nothing", "any", "unlimited", "Apache-2.0").languages
    'any'
    """

    trained_on: str
    languages: str
    longest_input: str
    licence: str


@runtime_checkable
class Encoder(Protocol):
    """What a collection needs of an encoder; any object with these members is one."""

    @property
    def name(self) -> str:
        """The name under which `vecdb.encoders.get` finds it again."""

    @property
    def dim(self) -> int:
        """The number of dimensions of its vectors."""

    @property
    def metric(self) -> str:
        """The metric it was made for: "cosine", "l2" or "dot"."""

    @property
    def fingerprint(self) -> str:
        """A digest of everything that its vectors depend on."""

    @property
    def card(self) -> Card:
        """What it was trained on, languages, longest input, licence."""

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of texts that are to be found."""

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of texts that are looked for."""


def check_texts(texts: Sequence[str], who: str) -> list[str]:
    """Return `texts` as a list, or raise InvalidArgument naming the first that is no str."""
    if isinstance(texts, str):
        raise InvalidArgument(f"{who} takes a list of texts, not one str; write [text]")
    listed = list(texts)
    for row, text in enumerate(listed):
        if not isinstance(text, str):
            raise InvalidArgument(
                f"texts[{row}] given to {who} is {type(text).__name__}, not str; "
                "convert it first"
            )
    return listed


def check_vectors(made: Any, n: int, dim: int, who: str) -> Vectors:
    """Return what an encoder made as float32 (n, dim), or raise InvalidArgument saying why not.

    Costs one pass over the array. Meant for encoders that vecdb did not write.
    """
    try:
        array = np.asarray(made)
    except ValueError as exc:
        raise InvalidArgument(f"{who} did not return a rectangular array: {exc}") from None
    if array.dtype.kind not in "fiu":
        raise InvalidArgument(f"{who} returned an array of {array.dtype}, not of real numbers")
    if array.shape != (n, dim):
        raise InvalidArgument(
            f"{who} returned shape {array.shape} for {n} texts; it must be ({n}, {dim})"
        )
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(array, dtype=np.float32)
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise InvalidArgument(
            f"{who} returned NaN or infinity for text {int(np.argmax(bad))}; "
            "every component must be a finite float32"
        )
    return vectors
