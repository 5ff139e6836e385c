"""Is it the data or the model, and what of it?

Causes: "data" (the texts, vectors, labels or judgements are at fault), "vocabulary" (the model does not know
the words: more data of the right kind, texts of the domain), "training" (it knows them and was trained for
another likeness: another training, pairs of the likeness that is wanted), "none" (nothing explains poor
results), "open" (not enough is known).

First whether the model is poor: words alone find more, surely and by much, or its scores hardly tell relevant
rows from others; with labels, whether the nearest rows tell them. Then each piece of evidence speaks for
vocabulary or for training, with a weight; all are measured on the texts and vectors, and listed.

    for vocabulary                                     for training
    2  words without a vector of their own             2  a linear map brings back what words find
    2  words broken up, or without a piece             2  neighbours follow the length of texts
    2  a language that the card does not name          2  blind for everyday words too
    1  a linear map brings back nothing                1  the domain's words are known
    1  words of one text are not near each other       1  neighbours share no words, though they are known
    1  queries with such words lose most

Rejected: one figure for how good vectors are. Two models that are equally poor need opposite remedies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from vecdb.diagnosis.finding import Finding, per_cent
from vecdb.diagnosis.words import words_of

if TYPE_CHECKING:
    from vecdb.diagnosis.judged import Judged
    from vecdb.diagnosis.labels import Told
    from vecdb.diagnosis.learning import Curve
    from vecdb.diagnosis.space import Shape
    from vecdb.diagnosis.subject import Subject
    from vecdb.diagnosis.vocabulary import Known

POOR_BY: Final = 0.03  # nDCG@10 that words find more, surely
POOR_AREA: Final = 0.70
POOR_LABELS: Final = 0.10
BROUGHT_BACK: Final = 0.15  # of what words find more, by a linear map
NOTHING: Final = 0.10
ROUNDS: Final = 1000
DATA: Final = (  # codes of faults that are the data's
    "vectors-differ", "encoders-swapped", "metric-differs", "judgements-doubtful", "unknown-judged",
    "label-noise", "empty-texts", "zero-vectors", "same-vectors", "without-vector", "query-language",
    "language-mix", "texts-cut", "near-duplicates", "same-texts", "dead-dimensions", "norm-outliers",
    "no-neighbourhoods",
)  # fmt: skip
OF_WORDS: Final = (
    "blind-terms", "broken-terms", "unknown-words", "pieces-per-word", "wrong-language", "terms-unrelated",
)  # fmt: skip
DECIDES: Final = (  # before anything can be said of a model
    "vectors-differ", "encoders-swapped", "no-neighbourhoods",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What it is: `.cause`, in words, why, and what to do."""

    cause: str
    says: str
    because: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(slots=True)
class Evidence:
    """What was seen, by all who looked."""

    subject: Subject
    findings: list[Finding]
    known: Known
    shape: Shape
    judged: Judged | None = None
    told: Told | None = None
    curve: Curve | None = None
    for_words: list[tuple[int, str]] = field(default_factory=list)  # (weight, why): vocabulary
    for_training: list[tuple[int, str]] = field(default_factory=list)

    def of(self, code: str) -> Finding | None:
        """The finding of a code."""
        return next((each for each in self.findings if each.code == code), None)

    def bad(self, code: str) -> bool:
        """Whether a code has a warning, or worse."""
        found = self.of(code)
        return found is not None and found.rank >= 2


def decide(seen: Evidence) -> Verdict:
    """The verdict on what was seen."""
    faults = [each for code in DATA if (each := seen.of(code)) is not None and each.rank >= 2]
    faults.sort(key=lambda each: -each.rank)
    first = [each for each in faults if each.code in DECIDES]
    poor, why = _poor(seen)
    if first:
        return _data(first + [each for each in faults if each not in first], "The vectors are not what the "
        "model makes")
    if poor and _judged_wrong(seen):
        return _data(faults, "The judgements do not fit the texts: neither the vectors nor words find what "
        "they name")
    if poor is False:
        if faults:
            return _data(faults, f"The model is sound ({why}); the data have faults")
        return Verdict("none", f"Nothing here explains poor results: {why}.", (), _further(seen))
    _weigh(seen)
    words, training = (sum(weight for weight, _ in each) for each in (seen.for_words, seen.for_training))
    least = 1 if poor else 2  # without judgements less is believed
    if max(words, training) >= least and words != training:
        return _model(seen, words > training, poor, why)
    if faults:
        return _data(faults, "The data have faults")
    if poor:
        both = [why for _, why in seen.for_words + seen.for_training]
        return Verdict(
            "open", f"The model is poor here ({why}), and what was seen does not say why.", tuple(both),
            "Judge more queries, or compare other encoders with vecdb.evaluate.",
        )  # fmt: skip
    return Verdict(
        "open", "Nothing is wrong that can be seen without judgements; whether it finds what it should is "
        "open.", (),
        "Give queries= and qrels= (papers.judge makes them), or labels=.",
    )  # fmt: skip


def _poor(seen: Evidence) -> tuple[bool | None, str]:
    """Whether the model is poor, None where nobody knows; and the figures."""
    judged, told = seen.judged, seen.told
    if judged is not None and judged.area is not None:
        if judged.behind is not None and judged.words is not None:
            mean, low, _ = judged.behind
            figures = f"nDCG@10 {judged.ndcg.mean():.3f}, words alone {judged.words.mean():.3f}"
            poor = (mean >= POOR_BY and low > 0) or judged.area < POOR_AREA
            return poor, figures
        return judged.area < POOR_AREA, f"relevant rows outscore {per_cent(judged.area)} of the others"
    if told is not None:
        figures = f"neighbours tell {per_cent(max(0.0, told.by_vectors))} of the labels beyond the commonest"
        if told.by_words is not None:
            figures += f", by words {per_cent(max(0.0, told.by_words))}"
        behind = told.by_words is not None and told.by_words - told.by_vectors > POOR_LABELS
        return told.by_vectors < POOR_LABELS or behind, figures
    return None, ""


def _judged_wrong(seen: Evidence) -> bool:
    """Whether judgements, or labels, are what is wrong: words find them as little as vectors do."""
    judged = seen.judged
    if judged is not None and judged.area is not None:
        as_chance = judged.words_area is not None and max(judged.area, judged.words_area) < 0.6
        return as_chance or judged.doubtful >= 0.5
    noise = seen.of("label-noise")
    told = seen.told
    words_fail = told is None or told.by_words is None or told.by_words < POOR_LABELS
    return noise is not None and noise.rank == 3 and words_fail


def _data(faults: list[Finding], says: str) -> Verdict:
    return Verdict(
        "data", f"It is the data. {says}.", tuple(f"{each.code}: {each.says}" for each in faults[:4]),
        faults[0].remedy if faults else "Look at queries and judgements side by side: papers.get of what "
        "is judged relevant.",
    )  # fmt: skip


def _model(seen: Evidence, words: bool, poor: bool | None, why: str) -> Verdict:
    sure = "It is" if poor else "It is probably"
    tail = f" ({why})" if why else ""
    if words:
        return Verdict(
            "vocabulary", f"{sure} the model, by its vocabulary: it does not know the words of these "
            f"texts{tail}. More data of the right kind, not more pairs.",
            tuple(each for _, each in seen.for_words),
            "Train on texts of the domain (vecdb.fine_tune), or take an encoder that was, or whose "
            "tokenizer has these words; meanwhile search with words too: Near(...) + Text(...).",
        )  # fmt: skip
    return Verdict(
        "training", f"{sure} the model, by its training: it compares texts by something else than is wanted"
        f"{tail}. Another training, not more texts.",
        tuple(each for _, each in seen.for_training),
        "Teach it the likeness that you want with pairs of it (fit_adapter, vecdb.fine_tune), or take an "
        "encoder that was trained for that.",
    )  # fmt: skip


def _further(seen: Evidence) -> str:
    curve = seen.curve
    if curve is not None and curve.state == "rising" and curve.gain[0] > 0:
        return f"fit_adapter with the judgements gains about {curve.gain[0]:+.3f} nDCG@10; more pairs, more."
    return "Compare other encoders with vecdb.evaluate, and hybrid search: Near(...) + Text(...)."


# --- the evidence ----------------------------------------------------------------------------------


def _weigh(seen: Evidence) -> None:
    """Collect what speaks for vocabulary, and what for training."""
    known, shape = seen.known, seen.shape
    words, training = seen.for_words, seen.for_training
    blind_for_all = min(known.everyday or 0.0, known.blind or 0.0) >= 0.6 and (known.function or 0.0) < 0.5
    is_known = known.blind is not None and known.blind < 0.05 and (known.broken or 0.0) < 0.15
    for code in OF_WORDS:
        found = seen.of(code)
        if found is None or found.rank == 0 or (code in ("blind-terms", "terms-unrelated") and blind_for_all):
            continue
        words.append((1 if found.rank == 1 or code == "terms-unrelated" else 2, found.says))
    if blind_for_all:
        training.append((2, (
            "It tells function words apart, and neither the domain's words nor everyday ones: it does not "
            "look at what texts are about"
        )))  # fmt: skip
    if shape.follows_length is not None and shape.follows_length <= 0.5:
        found = seen.of("follows-length")
        training.append((2, found.says if found else "Neighbours follow the length of texts"))
    if is_known:
        pieces = "" if known.broken is None else ", and its tokenizer does not break them up"
        training.append((1, f"It tells the domain's words apart{pieces}"))
    if is_known or blind_for_all:
        if shape.shares_words is not None and shape.shares_words <= 0.4:
            training.append((1, f"Neighbours share only {per_cent(max(0.0, shape.shares_words))} of the "
            "words that they could"))
    _brought_back(seen)
    _concentrated(seen)


def _brought_back(seen: Evidence) -> None:
    """What a linear map, fitted to half of the queries, brings back on the others."""
    curve, judged = seen.curve, seen.judged
    if curve is None:
        return
    gained, low, _ = curve.gain
    if judged is not None and judged.words is not None:
        gap = float(judged.words.mean()) - curve.frozen
        if gap < POOR_BY:
            return
        share = gained / gap
        if share >= BROUGHT_BACK and low > 0:
            seen.for_training.append((2, (
                f"A linear map fitted to some of the queries brings back {per_cent(share)} of what words "
                f"find more ({curve.frozen:.3f} to {curve.points[-1][1]:.3f}): what is wanted is in the "
                "vectors, weighted wrongly"
            )))  # fmt: skip
        elif share < NOTHING:
            seen.for_words.append((1, (
                f"No linear map brings back what words find ({curve.frozen:.3f} to "
                f"{curve.points[-1][1]:.3f}): it is not in the vectors"
            )))  # fmt: skip
    elif curve.frozen and gained / curve.frozen >= 0.3 and low > 0:
        seen.for_training.append((2, (
            f"A linear map brings nDCG@10 from {curve.frozen:.3f} to {curve.points[-1][1]:.3f} on others: "
            "what is wanted is in the vectors, weighted wrongly"
        )))  # fmt: skip


def _concentrated(seen: Evidence) -> None:
    """Whether queries with words that the model does not know lose most: by a permutation test."""
    subject, known, judged = seen.subject, seen.known, seen.judged
    if judged is None or judged.words is None or not known.weak.any() or subject.queries is None:
        return
    queries = subject.queries
    weak = {term for term, is_weak in zip(known.terms, known.weak, strict=True) if is_weak}
    shares = []
    for at in queries.judged:
        said = [word for word in words_of((queries.texts or [])[at]) if word in subject.words.numbers]
        worth = [float(subject.words.idf[subject.words.numbers[word]]) for word in said]
        lost = sum(each for word, each in zip(said, worth, strict=True) if word in weak)
        shares.append(lost / sum(worth) if sum(worth) else 0.0)
    share, gaps = np.array(shares), judged.words - judged.ndcg
    if len(share) < 20 or not share.std() or not gaps.std():
        return
    share, gaps = (share - share.mean()) / share.std(), (gaps - gaps.mean()) / gaps.std()
    r = float((share * gaps).mean())
    rng = subject.rng(8)
    by_chance = [float((rng.permutation(share) * gaps).mean()) for _ in range(ROUNDS)]
    if r > 0 and np.mean(np.array(by_chance) >= r) < 0.05:
        seen.for_words.append((1, f"Queries lose the more, the more of such words they have (correlation "
        f"{r:.2f})"))
