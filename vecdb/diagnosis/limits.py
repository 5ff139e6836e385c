"""From which value on is something wrong, and who says so?

Each check of a diagnosis has a limit: from `note` on it is told, from `warning` on something should be
done, from `serious` on nothing else is worth looking at before it is. The source is a paper or a
measurement; what "measured" means is in `MEASURED`, and `benchmarks/run.py diagnosis` measures it again.

Invariants (tests/unit/test_diagnosis.py):
  T1  every check that can be reported has its limit here, with a source;
  T2  on clean data nothing is above a note: a limit lies beyond what clean collections have.

Rejected: one limit for all metrics. Under l2 and hamming the origin means nothing, and under cosine the
length of a vector means nothing: checks know which metric they are asked about.
"""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

MEASURED: Final = (
    "measured on Cranfield and CISI under MiniLM, WordLlama and hashing, Debian's packages under MiniLM, "
    "Fashion-MNIST's pixels, and made sets, 2,000 rows drawn with seed 0"
)


class Limit(NamedTuple):
    """From which value a check is a note, a warning, serious; and where that comes from."""

    note: float
    warning: float
    serious: float
    source: str
    below: bool = False  # it is wrong to have less, not more

    def severity(self, value: float) -> str | None:
        """The severity of a value, None where it is fine; NaN is fine."""
        for name in ("serious", "warning", "note"):
            limit = getattr(self, name)
            if value <= limit if self.below else value >= limit:
                return name
        return None

    def passed(self, severity: str | None) -> float:
        """The limit that was passed, or the first that would be."""
        return float(getattr(self, severity or "note"))


_OURS: Final = "measured here: "
LIMITS: Final[dict[str, Limit]] = {
    # texts: shares of rows, unless said
    "empty-texts": Limit(1e-9, 0.01, 0.10, _OURS + "Cranfield has two texts of 1,400 that are empty"),
    "same-texts": Limit(0.002, 0.05, 0.30, _OURS + "at most 0.3 % in Cranfield and CISI, 4 % in Debian"),
    "texts-cut": Limit(
        0.01, 0.40, 0.80,
        _OURS + "MiniLM on Cranfield, whose texts begin with their titles: with 44 % of all tokens cut "
        "nothing sure is lost, with 71 % 0.02 nDCG@10, with 86 % 0.06",
    ),
    "lengths-differ": Limit(30.0, inf, inf, _OURS + "documents of 10 times a query's words are usual"),
    # words
    "pieces-per-word": Limit(
        1.5, 1.8, 2.5,
        "Rust et al., How Good is Your Tokenizer?, 2021: 1.1 to 1.4 where a tokenizer was made for the "
        "language; measured here: 1.05 to 1.25 for English, 2.6 for German under an English one",
    ),
    "broken-terms": Limit(
        0.15, 0.30, 0.60, _OURS + "at most 9 % of the weight of the domain's words in three pieces or more"
    ),
    "unknown-words": Limit(0.005, 0.03, 0.20, _OURS + "none in English text under MiniLM and WordLlama"),
    "blind-terms": Limit(0.02, 0.10, 0.40, _OURS + "none under MiniLM, WordLlama and hashing"),
    "blind-everyday": Limit(0.10, 0.60, 0.90, _OURS + "none under MiniLM, WordLlama and hashing"),
    "terms-unrelated": Limit(
        0.56, -inf, -inf,
        _OURS + "0.61 to 0.66 under trained models, 0.52 under hashing, which knows spelling "
        "alone", below=True,
    ),
    # languages
    "language-mix": Limit(0.01, 0.05, 0.30, _OURS + "below 0.5 % in Cranfield, CISI and Debian"),
    "wrong-language": Limit(0.02, 0.10, 0.50, "the encoder's card: languages that it does not name"),
    "query-language": Limit(0.05, 0.20, 0.50, _OURS + "no query of Cranfield and CISI"),
    # vectors: shares of rows, unless said
    "without-vector": Limit(1e-9, 0.05, 0.50, "a row without a vector is found by filters alone"),
    "zero-vectors": Limit(1e-9, 0.01, 0.10, "a zero vector is equally far from every direction"),
    "same-vectors": Limit(0.005, 0.02, 0.20, _OURS + "the commonest vector is at most 0.2 % of rows"),
    "dead-dimensions": Limit(1e-9, 0.05, 0.50, _OURS + "three of MiniLM's 384 never vary"),
    "norm-outliers": Limit(
        1e-9, 0.001, 0.05,
        "Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993: robust z, here from 6 on, and "
        "twice or half the median; none among Fashion-MNIST's",
    ),
    "near-duplicates": Limit(0.01, 0.05, 0.30, _OURS + "0.3 % of Cranfield's rows, 0.8 % of CISI's, 11 % "
    "of Debian's"),
    "vectors-differ": Limit(0.001, 0.01, 0.10, "the encoder's promise: the same text, the same vector"),
    "encoders-swapped": Limit(0.5, 0.5, 0.5, "the vectors themselves: nearer to what the other side makes"),
    "metric-differs": Limit(0.5, 0.5, inf, "the metric that the encoder was made for"),
    # space
    "anisotropy": Limit(
        0.45, 0.60, 0.90,
        "Ethayarajh, How Contextual are Contextualized Word Representations?, 2019: near 0 in an isotropic "
        "space; measured here: 0.18 to 0.37 under trained models",
    ),
    "few-directions": Limit(
        0.20, 0.40, 0.80,
        "Mu and Viswanath, All-but-the-Top, 2018; measured here: the first component has 4 to 9 % under "
        "trained models, 25 % in pixels",
    ),
    "hubs": Limit(
        2.5, 5.0, 12.0,
        "Radovanović et al., Hubs in Space, 2010: skewness of the 10-occurrence, 0 without hubs; measured "
        "here: 0.3 to 2.8 under trained models, 6 to 7 under hashing",
    ),
    "intrinsic-dimension": Limit(
        3.0, 1.5, -inf,
        "Facco et al., TwoNN, 2017, and Levina and Bickel, 2004; measured here: 7 to 25", below=True,
    ),
    "no-neighbourhoods": Limit(
        0.88, 0.93, inf,
        "Beyer et al., When Is Nearest Neighbor Meaningful?, 1999; measured here: the nearest row at 0.4 "
        "to 0.8 of the mean distance, 0.9 among random vectors",
    ),
    "follows-length": Limit(
        0.70, 0.50, 0.25, _OURS + "neighbours' lengths differ by 0.85 to 1.03 of what chance "
        "gives", below=True
    ),
    "ignores-words": Limit(
        0.40, 0.20, -inf,
        _OURS + "neighbours share 0.6 to 0.8 of the words that the nearest by words share; 0.1 under a "
        "model of style", below=True,
    ),
    # labels
    "labels-mixed": Limit(
        0.30, 0.10, -inf, _OURS + "neighbours tell 0.6 of Debian's sections and 0.8 of Fashion-MNIST's "
        "categories beyond the commonest", below=True,
    ),
    "label-noise": Limit(
        0.12, 0.15, 0.40,
        "after Northcutt et al., Confident Learning, 2021, and Zhu et al., Clusterability, 2021; measured "
        "here: 0.00 for Fashion-MNIST's categories, 0.08 for Debian's sections",
    ),
    # judgements
    "few-judgements": Limit(50.0, 10.0, -inf, "Buckley and Voorhees, 2000: 50 queries, at least "
    "25", below=True),
    "unknown-judged": Limit(1e-9, 0.02, 0.20, "a judgement of a row that is not there counts for nothing"),
    "scores-mixed": Limit(
        0.80, 0.70, 0.60, _OURS + "a relevant row outscores 0.94 of the others (Cranfield) or 0.85 (CISI) "
        "under MiniLM, 0.50 by chance", below=True,
    ),
    "judgements-doubtful": Limit(
        0.10, 0.20, 0.50, _OURS + "2 % of Cranfield's and 8 % of CISI's queries have relevant rows where "
        "chance puts them, by the model and by words",
    ),
    "unreachable": Limit(0.10, 0.15, 0.40, _OURS + "words find what MiniLM has beyond rank 100: 1 to 3 %"),
    "words-do-better": Limit(
        1e-9, 0.05, 0.15, "BM25 as the floor (Thakur et al., BEIR, 2021): how much nDCG@10 it is surely above"
    ),
    "prefers-length": Limit(
        1.5, 2.5, inf, _OURS + "the ten best have 0.9 to 1.1 times the words of relevant rows"
    ),
    # learning
    "more-pairs-help": Limit(0.005, inf, inf, "the gain of the last doubling, of splits of the queries"),
    "plateaued": Limit(0.5, inf, inf, "the gain of the last doubling, surely below 0.01"),
}  # fmt: skip
