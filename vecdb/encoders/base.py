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

__all__ = [
    "NOT_STATED",
    "Card",
    "Encoder",
    "Tokenized",
    "Vectors",
    "card_of",
    "check_text",
    "check_texts",
    "check_tokenizable",
    "check_vectors",
    "one_text",
]

Vectors = NDArray[np.float32]


NOT_STATED = "not stated"


@dataclass(frozen=True, slots=True)
class Card:
    """What one should know about an encoder before trusting it with a question.

    What nobody says is "not stated", or None for a number. `longest_input` is what the model states,
    special tokens counted; `max_tokens` is how many pieces of a text itself count at most, None where all
    do or nobody knows. `similarity`: for what likeness it was trained. `size_bytes` and
    `parameters`: of its weights.

    >>> card = Card("nothing", "any", "unlimited", "Apache-2.0", similarity="spelling")
    >>> card.languages, card.max_tokens
    ('any', None)
    >>> print(card)
    trained on     nothing
    similarity     spelling
    languages      any
    longest input  unlimited
    licence        Apache-2.0
    size           not stated
    """

    trained_on: str
    languages: str
    longest_input: str
    licence: str
    similarity: str = NOT_STATED
    max_tokens: int | None = None
    size_bytes: int | None = None
    parameters: int | None = None

    def facts(self) -> dict[str, str]:
        """Return what it says by what it is about, in words, for people.

        >>> Card("a", "en", "8 tokens", "MIT", size_bytes=91_000_000, parameters=22_700_000).facts()["size"]
        '22.7 million parameters, 91.0 MB'
        """
        return {
            "trained on": self.trained_on,
            "similarity": self.similarity,
            "languages": self.languages,
            "longest input": self.longest_input,
            "licence": self.licence,
            "size": self._size(),
        }

    def __str__(self) -> str:
        return "\n".join(f"{about:<15}{said}" for about, said in self.facts().items())

    def _size(self) -> str:
        if self.parameters == 0:
            return "no parameters"
        parts = []
        if self.parameters is not None:
            millions = self.parameters / 1e6
            counted = f"{self.parameters:,}" if millions < 0.1 else f"{millions:.1f} million"
            parts.append(f"{counted} parameters")
        if self.size_bytes is not None:
            size = self.size_bytes
            parts.append(f"{size:,} bytes" if size < 100_000 else f"{size / 1e6:.1f} MB")
        return ", ".join(parts) or NOT_STATED


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
        """What it was trained on, for what similarity, languages, longest input, licence, size."""

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of texts that are to be found."""

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of texts that are looked for."""


def card_of(encoder: object) -> Card:
    """Return an encoder's card as a Card, whatever object another package made it of.

    What it lacks, or says by something that is no text, is "not stated".

    >>> card_of(object()).licence
    'not stated'
    """
    given = getattr(encoder, "card", None)
    if isinstance(given, Card):
        return given
    known: dict[str, Any] = {}
    for name in ("trained_on", "languages", "longest_input", "licence", "similarity"):
        said = getattr(given, name, None)
        known[name] = said if isinstance(said, str) and said else NOT_STATED
    for name in ("max_tokens", "size_bytes", "parameters"):
        said = getattr(given, name, None)
        known[name] = said if isinstance(said, int) and not isinstance(said, bool) else None
    return Card(**known)


@runtime_checkable
class Tokenized(Protocol):
    """An encoder that tells how it sees a text; those with a tokenizer do. No collection needs it."""

    @property
    def max_tokens(self) -> int | None:
        """How many pieces of a text count at most; None: all of them."""

    def tokens(self, text: str, /) -> list[str]:
        """Return the pieces of the whole text, without special ones and without what is put before it."""


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


def check_tokenizable(texts: Sequence[str], who: str) -> list[str]:
    """The same where a tokenizer reads them, which takes no lone surrogates."""
    listed = check_texts(texts, who)
    for row, text in enumerate(listed):
        check_text(text, f"texts[{row}] given to {who}")
    return listed


def one_text(text: object, who: str) -> str:
    """Return `text` as it is, or raise InvalidArgument where it is no str."""
    if not isinstance(text, str):
        raise InvalidArgument(f"{who}: tokens takes one text as a str, not {type(text).__name__}")
    check_text(text, f"{who}: the text")
    return text


def check_text(text: str, what: str) -> None:
    """Raise InvalidArgument where a str has a lone surrogate, which no tokenizer takes."""
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise InvalidArgument(f"{what} has a lone surrogate at position {at}; it is no text") from None


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
