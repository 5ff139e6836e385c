"""The `hashing` encoder: vectors from spelling alone, with nothing to install or download.

A text is split into words. Each word counts as itself and as its character n-grams, so that
"indexes" and "indexing" stay near each other; every such feature is hashed to one dimension and
one sign (signed feature hashing, Weinberger et al., "Feature Hashing for Large Scale Multitask
Learning", ICML 2009; n-grams of words as in Bojanowski et al., "Enriching Word Vectors with
Subword Information", TACL 2017). It knows nothing of meaning: "car" and "automobile" are
unrelated. It is meant for tests, for near-duplicates and names, and as the floor that a trained
encoder has to beat.

Invariants (checked by tests/unit/test_encoders.py):
  1. The same text gives the same bytes in every process and on every processor: all sums are of
     integers below 2**53, and the square root and the division after them are IEEE operations.
     (Words are split by Python's Unicode tables, which grow with its version.)
  2. Every vector has length 1. A text without a word is encoded by its own characters, and an
     empty one as the empty word; where signs cancel to nothing, the empty word stands in.

Rejected: Python's `hash` (random for each process), a hash from another package (a dependency
for twenty lines), idf weights (they need a corpus, so a vector would depend on its neighbours).
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vecdb.encoders.base import Card, Vectors, check_texts, one_text
from vecdb.errors import InvalidArgument

__all__ = ["HashingEncoder"]

DEFAULT_DIM = 512
SMALLEST_DIM, LARGEST_DIM = 16, 65_536
NGRAMS = (3, 4, 5)  # nDCG@10 on Cranfield 0.393; (3, 4) 0.388, (4, 5) 0.398 but worse on CISI
WORD_WEIGHT, NGRAM_WEIGHT = 2, 1
REPEAT_UNIT = 64  # sqrt(count) is rounded to 1/64, so that weights stay integers
SCHEME = f"hashing 1, {NGRAMS}, {WORD_WEIGHT}:{NGRAM_WEIGHT}, sqrt/{REPEAT_UNIT}"

LONGEST_WORD = 64  # a longer run is cut, so that hashing stays a loop over few positions
_WORD = re.compile(rf"[^\W_]{{1,{LONGEST_WORD}}}")
_BATCH_CELLS = 1 << 18  # cells of the float64 sheet that one batch adds into: 2 MB

_MULTIPLY = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # splitmix64, Steele et al., OOPSLA 2014
_SHIFT = np.uint64(31)


class HashingEncoder:
    """Encode texts by hashed words and character n-grams into `dim` dimensions, length 1.

    Costs about 1 µs a character; raises InvalidArgument where a text is no str.

    >>> encoder = HashingEncoder(256)
    >>> a, b, c = encoder.encode_documents(["indexing files", "index the file", "blue whale"])
    >>> bool(a @ b > a @ c)
    True
    """

    metric = "cosine"
    card = Card(
        trained_on="nothing: it compares spelling, not meaning",
        languages="any that separates words; others by character n-grams",
        longest_input="unlimited",
        licence="Apache-2.0",
        similarity="the same words and the same beginnings, endings and middles of words",
        size_bytes=0,
        parameters=0,
    )
    max_tokens = None

    def __init__(self, dim: int = DEFAULT_DIM) -> None:
        if not SMALLEST_DIM <= dim <= LARGEST_DIM:
            raise InvalidArgument(
                f"hashing encoder: dim must be {SMALLEST_DIM} to {LARGEST_DIM}, not {dim}; "
                f"{DEFAULT_DIM} is the default"
            )
        self.dim = dim
        self.name = "hashing" if dim == DEFAULT_DIM else f"hashing:{dim}"
        self.fingerprint = hashlib.sha256(f"{SCHEME}, {dim}".encode()).hexdigest()[:32]

    def __repr__(self) -> str:
        return f"HashingEncoder({self.dim})"

    def encode_documents(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`."""
        listed = check_texts(texts, f"encoder {self.name!r}")
        vectors = np.empty((len(listed), self.dim), dtype=np.float32)
        size = max(1, _BATCH_CELLS // self.dim)
        for first in range(0, len(listed), size):
            batch = listed[first : first + size]
            vectors[first : first + len(batch)] = self._encode(batch)
        return vectors

    def encode_queries(self, texts: Sequence[str], /) -> Vectors:
        """Return the float32 vectors (n, dim) of `texts`: queries are treated as documents."""
        return self.encode_documents(texts)

    def tokens(self, text: str, /) -> list[str]:
        """Return the words that a text is split into; each counts with its n-grams."""
        return [word for word in _split(one_text(text, f"encoder {self.name!r}")) if word]

    def _encode(self, texts: list[str]) -> Vectors:
        """Add up the features of each text's words, then scale each text to length 1."""
        rows, words, weights, vocabulary = _count_words(texts)
        hashes, sizes, worth = _features(vocabulary)
        starts = np.cumsum(sizes) - sizes

        # one line for each feature of each word of each text: features[i] of pair[i]
        lengths = sizes[words]
        pair = np.repeat(np.arange(len(words)), lengths)
        within = np.arange(len(pair)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        feature = starts[words][pair] + within

        cell, sign = _place(hashes, self.dim)
        value = weights[pair] * worth[feature] * sign[feature]
        cells = rows[pair] * self.dim + cell[feature]
        sheet: NDArray[np.float64] = np.zeros(len(texts) * self.dim)
        sheet += np.bincount(cells, value, minlength=len(sheet))
        return self._unit(sheet.reshape(len(texts), self.dim))

    def _unit(self, sheet: NDArray[np.float64]) -> Vectors:
        squares = np.square(sheet).sum(axis=1)
        cancelled = squares == 0
        if cancelled.any():
            hashes, _, _ = _features([""])
            cell, sign = _place(hashes[:1], self.dim)
            sheet[cancelled, cell[0]] = sign[0]
            squares[cancelled] = 1
        unit: Vectors = (sheet / np.sqrt(squares)[:, None]).astype(np.float32)
        return unit


def _split(text: str) -> list[str]:
    """Return the words of a text in a form that ignores case and width; never an empty list."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(folded) or [folded.strip()[:LONGEST_WORD]]


def _count_words(
    texts: list[str],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], list[str]]:
    """Return, a line for each distinct word of each text, its text, word number and weight.

    The weight grows as the square root of the count: a word said nine times weighs three times
    one said once. Within a text, words stand in the order of their first use, so that a sum
    never depends on the other texts (invariant 2 of base.py).
    """
    numbers: dict[str, int] = {}
    rows: list[int] = []
    words: list[int] = []
    weights: list[float] = []
    for row, text in enumerate(texts):
        counts: dict[str, int] = {}
        for word in _split(text):
            counts[word] = counts.get(word, 0) + 1
        for word, count in counts.items():
            rows.append(row)
            words.append(numbers.setdefault(word, len(numbers)))
            weights.append(round(math.sqrt(count) * REPEAT_UNIT))
    return (
        np.array(rows, dtype=np.int64),
        np.array(words, dtype=np.int64),
        np.array(weights, dtype=np.float64),
        list(numbers),
    )


def _features(
    words: list[str],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the hashes of all features, how many each word has, and what each is worth.

    The features of one word stand together: the word itself, then its n-grams by length.
    """
    points, starts, lengths = _code_points(words)
    owner = [np.arange(len(words))]
    hashes = [_hash_spans(points, starts, lengths)]
    worth = [np.full(len(words), WORD_WEIGHT, dtype=np.float64)]
    for n in NGRAMS:
        begins, owners = _windows(starts, lengths, n)
        owner.append(owners)
        hashes.append(_hash_spans(points, begins, np.full(len(begins), n)))
        worth.append(np.full(len(begins), NGRAM_WEIGHT, dtype=np.float64))
    order = np.argsort(np.concatenate(owner), kind="stable")
    sizes = np.bincount(np.concatenate(owner), minlength=len(words))
    return np.concatenate(hashes)[order], sizes, np.concatenate(worth)[order]


def _code_points(
    words: list[str],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return all words as one row of code points, each between marks, with starts and lengths.

    The marks make "<in" differ from "in" inside a word; no word contains them.
    """
    marked = [f"\x02{word}\x03" for word in words]
    joined = "".join(marked).encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(joined, dtype="<u4").astype(np.uint64)
    lengths = np.fromiter(map(len, marked), dtype=np.int64, count=len(marked))
    return points, np.cumsum(lengths) - lengths, lengths


def _windows(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the starts of all windows of n points that lie in one word, and their words.

    A word that is no longer than n is left out: its n-gram would be the word itself.
    """
    counts = np.where(lengths > n, lengths - n + 1, 0)
    owners = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return starts[owners] + within, owners


def _hash_spans(
    points: NDArray[np.uint64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return one 64-bit hash for each span of points: multiply and add, then splitmix64.

    Works down all spans at once, position by position; a span that has ended keeps its value.
    """
    state = lengths.astype(np.uint64)
    for position in range(int(lengths.max(initial=0))):
        alive = np.flatnonzero(lengths > position)
        state[alive] = (state[alive] + points[starts[alive] + position]) * _MULTIPLY
        state[alive] ^= state[alive] >> _SHIFT
    state *= _MIX
    return state ^ (state >> _SHIFT)


def _place(
    hashes: NDArray[np.uint64], dim: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the dimension and the sign of each hash: its upper 32 bits, and its lowest bit."""
    cell = ((hashes >> np.uint64(32)) * np.uint64(dim)) >> np.uint64(32)
    sign = 1.0 - 2.0 * (hashes & np.uint64(1)).astype(np.float64)
    return cell.astype(np.int64), sign
