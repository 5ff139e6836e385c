"""Which words do texts consist of, which of them make a domain, and what do words alone find?

The reference that needs no model: BM25 (Robertson and Zaragoza, 2009; k1 1.2, b 0.75) and cosines of
tf-idf, of the texts that were drawn. A model that finds less than words alone has something wrong with
it; words that stand in many texts of a collection and say much about them are its domain's.

Invariants (tests/unit/test_diagnosis_parts.py):
  W1  scores are those of the formula in float64, within float32's rounding; ties are the caller's.

Rejected: a private collection with full text. It finds the best texts, and what is asked here is the
score of given ones, and of all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.text import analysis

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.int64]

K1, B = 1.2, 0.75
SHORTEST: Final = 3  # characters of a domain's word
COMMONEST: Final = 0.25  # the share of texts in which a domain's word stands at most
RAREST: Final = 3  # texts in which it stands at least


def words_of(text: str) -> list[str]:
    """The words of a text, folded, in order; CJK as bigrams."""
    return [term.decode("utf-8", "replace") for term, _ in analysis.analyzer().terms(text)]


class Words:
    """The words of n texts: `terms`, `df` (texts that have each), and counts by text.

    Costs one pass over the texts (about 15 ms a megabyte) and keeps 20 bytes a different word of a text.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        numbers: dict[str, int] = {}
        rows: list[int] = []
        cols: list[int] = []
        counts: list[int] = []
        for row, text in enumerate(texts):
            for word, count in Counter(words_of(text)).items():
                rows.append(row)
                cols.append(numbers.setdefault(word, len(numbers)))
                counts.append(count)
        self.numbers = numbers
        self.terms = list(numbers)
        self.n = len(texts)
        self.rows: Ints = np.array(rows, np.int64)
        self.cols: Ints = np.array(cols, np.int64)
        self.counts = np.array(counts, np.float64)
        self.df: Ints = np.bincount(self.cols, minlength=len(numbers)).astype(np.int64)
        self.cf = np.bincount(self.cols, self.counts, minlength=len(numbers))
        self.lengths = np.bincount(self.rows, self.counts, minlength=self.n)

    @cached_property
    def idf(self) -> npt.NDArray[np.float64]:
        """What each term says: the logarithm of its rarity, never negative."""
        return np.asarray(np.log(1 + (self.n - self.df + 0.5) / (self.df + 0.5)))

    @cached_property
    def _by_term(self) -> tuple[Ints, Ints]:
        """Entries in the order of terms, and where each term's begin."""
        order = np.argsort(self.cols, kind="stable")
        return order, np.concatenate([[0], np.cumsum(self.df)])

    @cached_property
    def _weights(self) -> npt.NDArray[np.float64]:
        """BM25's weight of each entry."""
        mean = max(1e-9, float(self.lengths.mean())) if self.n else 1.0
        norm = K1 * (1 - B + B * self.lengths[self.rows] / mean)
        return np.asarray(self.idf[self.cols] * self.counts * (K1 + 1) / (self.counts + norm))

    def scores(self, query: str) -> Floats:
        """BM25 scores of all texts: (n,) float32."""
        order, starts = self._by_term
        found = np.zeros(self.n, np.float64)
        for word, count in Counter(words_of(query)).items():
            at = self.numbers.get(word)
            if at is not None:
                entries = order[starts[at] : starts[at + 1]]
                found[self.rows[entries]] += count * self._weights[entries]
        return found.astype(np.float32)

    def profiles(self, rows: Ints, most: int = 2048) -> Floats:
        """tf-idf vectors of length 1 of some texts, over the `most` terms that say most: (m, most)."""
        gain = self.idf * np.sqrt(self.df) * (self.df > 1)
        kept = np.argsort(-gain, kind="stable")[:most]
        column = np.full(len(self.terms), -1, np.int64)
        column[kept] = np.arange(len(kept))
        place = np.full(self.n, -1, np.int64)
        place[rows] = np.arange(len(rows))
        some = (place[self.rows] >= 0) & (column[self.cols] >= 0)
        made = np.zeros((len(rows), max(1, len(kept))), np.float32)
        weights = (1 + np.log(self.counts[some])) * self.idf[self.cols[some]]
        made[place[self.rows[some]], column[self.cols[some]]] = weights
        lengths = np.sqrt(np.square(made).sum(axis=1))
        return np.asarray(made / np.maximum(lengths, 1e-12)[:, None], np.float32)

    def domain(self, most: int, common: frozenset[str] = frozenset()) -> list[int]:
        """The terms that make the domain, those that say most first.

        Words, not numbers, of `SHORTEST` characters on, in `RAREST` texts to `COMMONEST` of all, by the
        sum of what they say; function words (`common`) are none.
        """
        worth = self.cf * self.idf
        fits = (self.df >= RAREST) & (self.df <= max(RAREST, COMMONEST * self.n))
        found: list[int] = []
        for at in np.argsort(-worth, kind="stable").tolist():
            if len(found) >= most:
                break
            term = self.terms[at]
            if fits[at] and len(term) >= SHORTEST and term.isalpha() and term not in common:
                found.append(at)
        return found

    def worth(self, terms: Sequence[int]) -> npt.NDArray[np.float64]:
        """How much each term weighs in all texts together: its count times what it says."""
        some = np.asarray(terms, np.int64)
        return np.asarray(self.cf[some] * self.idf[some])

    def together(self, terms: Sequence[int]) -> npt.NDArray[np.float64]:
        """How much more often pairs of terms stand in one text than by chance: (m, m), PPMI.

        Church and Hanks, 1990; by texts, with negative values as 0.
        """
        m = len(terms)
        column = np.full(len(self.terms), -1, np.int64)
        column[np.asarray(terms, np.int64)] = np.arange(m)
        some = column[self.cols] >= 0
        has: npt.NDArray[Any] = np.zeros((self.n, m), np.float32)
        has[self.rows[some], column[self.cols[some]]] = 1
        both = (has.T @ has).astype(np.float64)
        df = np.maximum(np.diag(both), 1)
        with np.errstate(divide="ignore"):
            pmi = np.log(both * max(1, self.n) / np.outer(df, df))
        return np.asarray(np.maximum(np.nan_to_num(pmi, neginf=0.0), 0.0))
