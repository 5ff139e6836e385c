"""Does the model find what is relevant, and what do words alone find?

few-judgements, unknown-judged; scores-mixed (how often a relevant row outscores another), words-do-better
(BM25's nDCG@10 against the vectors'), unreachable (relevant rows that words find and the vectors do not),
judgements-doubtful (relevant rows where chance puts them, by the vectors and by words: the judgements are
wrong, not the model), prefers-length (the ten best are longer or shorter than what is relevant).

Ranked are all rows that lie here: the sample and every relevant row. Ties go to the first row drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis.finding import Finding, found, per_cent
from vecdb.diagnosis.vocabulary import above

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.diagnosis.subject import Subject

    Floats = npt.NDArray[np.float64]

ABOUT: Final = "judgements"
K: Final = 10
REACH: Final = 100  # ranks that somebody may look at
EASY: Final = 20  # a rank at which words find a row
ROUNDS: Final = 2000  # of a bootstrap
CHANCE: Final = 0.65  # an area under the curve up to which relevant rows lie as by chance


@dataclass(slots=True)
class Judged:
    """What was seen, for the verdict and the report."""

    ndcg: Floats = field(default_factory=lambda: np.zeros(0))  # of each judged query
    words: Floats | None = None  # BM25's
    behind: tuple[float, float, float] | None = None  # by how much words are better: mean, low, high
    area: float | None = None
    words_area: float | None = None
    doubtful: float = 0.0
    relevant: Floats = field(default_factory=lambda: np.zeros(0))  # scores
    others: Floats = field(default_factory=lambda: np.zeros(0))


def look(subject: Subject) -> tuple[list[Finding], Judged | None]:
    """What there is to say of the judgements, and what was seen."""
    queries = subject.queries
    if queries is None or not any(queries.grades) and not queries.judgements:
        if queries is None and not subject.left_out_of("judgements"):
            subject.skip("judgements", "give queries= and qrels= to see whether it finds what it should")
        return [], None
    findings = [_unknown(subject)]
    judged = queries.judged
    if not judged:
        return findings, None
    seen = Judged()
    findings.append(_few(len(judged)))
    scores, words = subject.query_scores, subject.word_scores
    grades = [queries.grades[at] for at in judged]
    seen.ndcg = np.array([ndcg(row, each) for row, each in zip(scores, grades, strict=True)])
    areas = _areas(scores, grades)
    seen.area = float(np.nanmean(areas)) if not np.isnan(areas).all() else None
    if seen.area is None:
        return findings, seen
    seen.relevant, seen.others = _some_scores(subject, scores, grades)
    findings.append(_separated(seen, areas, len(judged)))
    if words is not None:
        word_areas = _areas(words, grades)
        seen.words_area = float(np.nanmean(word_areas))
        seen.words = np.array([ndcg(row, each) for row, each in zip(words, grades, strict=True)])
        names = [queries.names[at] for at in judged]
        findings += [
            _behind(subject, seen, names),
            _unreachable(subject, scores, words, grades),
            _doubtful(seen, areas, word_areas, names),
            *_length(subject, scores, grades),
        ]
    else:
        subject.skip("words-do-better, unreachable, judgements-doubtful", "query texts and row texts are "
        "not both there")
    return findings, seen


def ndcg(scores: Any, grades: Mapping[int, float], k: int = K) -> float:
    """nDCG@k of one ranking by scores (Järvelin and Kekäläinen, 2002; gain the grade, ties by row)."""
    best = top(scores, k)
    gained = sum(grades.get(int(row), 0.0) / math.log2(rank + 2) for rank, row in enumerate(best))
    ideal = sum(
        grade / math.log2(rank + 2)
        for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:k])
    )
    return gained / ideal if ideal else 0.0


def top(scores: Any, k: int) -> Any:
    """The k best rows, ties by row."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= least)
    else:
        rows = np.arange(len(scores))
    return rows[np.argsort(-scores[rows], kind="stable")][:k]


def interval(values: Any, rng: np.random.Generator) -> tuple[float, float, float]:
    """The mean with its 95 % interval, by a percentile bootstrap of 2,000 rounds."""
    values = np.asarray(values, np.float64)
    means = values[rng.integers(0, len(values), (ROUNDS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def _areas(scores: Any, grades: list[dict[int, float]]) -> Floats:
    """How often a relevant row of each query outscores another; NaN where all rows are relevant."""
    found_ = np.full(len(grades), np.nan)
    for row, each in enumerate(grades):
        relevant = np.fromiter(each, np.int64, len(each))
        rest = np.ones(scores.shape[1], np.bool_)
        rest[relevant] = False
        if rest.any():
            found_[row] = above(scores[row][relevant], scores[row][rest])
    return found_


def _some_scores(subject: Subject, scores: Any, grades: list[dict[int, float]]) -> tuple[Any, Any]:
    """Scores of relevant pairs and of random ones, for the picture."""
    relevant = np.concatenate([scores[row][list(each)] for row, each in enumerate(grades)])
    rng = subject.rng(5)
    some = rng.integers(0, scores.shape[1], (scores.shape[0], max(1, 4000 // len(grades))))
    return relevant.astype(np.float64), np.take_along_axis(scores, some, axis=1).ravel().astype(np.float64)


# --- the findings ----------------------------------------------------------------------------------


def _unknown(subject: Subject) -> Finding:
    queries = subject.queries
    assert queries is not None
    share = queries.unknown / max(1, queries.judgements)
    return found(
        ABOUT, "unknown-judged", share,
        f"{queries.unknown:,} of {queries.judgements:,} relevant rows that are judged are not there, or "
        "have no vector"
        if queries.unknown else f"All {queries.judgements:,} relevant rows that are judged are there",
        "See whether ids agree, in kind too (1 and '1' are different ids).", queries.missing,
    )  # fmt: skip


def _few(count: int) -> Finding:
    return found(
        ABOUT, "few-judgements", count,
        f"{count:,} queries are judged" + (": too few to be sure of small "
        "differences" if count <= 50 else ""),
        "Judge more: papers.judge(queries).", at_most="note",
    )  # fmt: skip


def _separated(seen: Judged, areas: Floats, count: int) -> Finding:
    return found(
        ABOUT, "scores-mixed", seen.area or 0.0,
        f"A relevant row outscores {per_cent(seen.area or 0.0)} of the others (half by chance); mean nDCG@10 "
        f"{seen.ndcg.mean():.3f} over {count:,} queries",
        "The scores do not tell what is relevant: the verdict says whether words, training or judgements "
        "are why.",
    )  # fmt: skip


def _behind(subject: Subject, seen: Judged, names: list[Any]) -> Finding:
    assert seen.words is not None
    gaps = seen.words - seen.ndcg
    seen.behind = interval(gaps, subject.rng(6)) if len(gaps) > 1 else (float(gaps[0]), -1.0, 1.0)
    mean, low, high = seen.behind
    surely = max(0.0, low)
    value = mean if surely > 0 else 0.0
    worst = np.argsort(-gaps, kind="stable")
    return found(
        ABOUT, "words-do-better", value,
        f"BM25 has nDCG@10 {seen.words.mean():.3f}, the vectors {seen.ndcg.mean():.3f}: "
        + (f"words alone find more, by {mean:.3f} ({low:+.3f} to {high:+.3f})" if surely > 0 else
           f"no sure difference ({-high:+.3f} to {-low:+.3f})" if high > 0 else
           f"the vectors find more ({-high:+.3f} to {-low:+.3f})"),
        "Search with both: Near(...) + Text(...). What is wrong with the vectors the verdict says.",
        [names[at] for at in worst if gaps[at] > 0] if surely > 0 else [],
    )  # fmt: skip


def _unreachable(subject: Subject, scores: Any, words: Any, grades: list[dict[int, float]]) -> Finding:
    reach = min(REACH, scores.shape[1] // 4)
    lost, total = [], 0
    for row, each in enumerate(grades):
        relevant = np.fromiter(each, np.int64, len(each))
        total += len(relevant)
        mine = (scores[row][None] > scores[row][relevant][:, None]).sum(axis=1)
        theirs = (words[row][None] >= words[row][relevant][:, None]).sum(axis=1) - 1
        lost += relevant[(mine >= reach) & (theirs < min(EASY, reach // 2))].tolist()
    share = len(lost) / max(1, total)
    return found(
        ABOUT, "unreachable", share,
        f"{per_cent(share)} of the relevant rows are among the first {min(EASY, reach // 2)} by words and "
        f"beyond rank {reach:,} by the "
        "vectors" if lost else "No relevant row that words find is out of the vectors' reach",
        "Search with both words and vectors; see which words these rows share with their queries.",
        [subject.ids[row] for row in lost],
    )  # fmt: skip


def _doubtful(seen: Judged, areas: Floats, word_areas: Floats, names: list[Any]) -> Finding:
    both = np.fmax(areas, word_areas)
    at = np.flatnonzero(both <= CHANCE)
    seen.doubtful = len(at) / len(names)
    return found(
        ABOUT, "judgements-doubtful", seen.doubtful,
        f"For {per_cent(seen.doubtful)} of the queries the relevant rows lie as by chance, by the vectors "
        "and by words "
        "alike" if len(at) else "For every query the relevant rows have something of it, by the vectors or "
        "by words",
        "Look at these queries and their judgements: rows and queries may have been mixed up.",
        [names[row] for row in at[np.argsort(both[at], kind="stable")]],
    )  # fmt: skip


def _length(subject: Subject, scores: Any, grades: list[dict[int, float]]) -> list[Finding]:
    lengths = subject.words.lengths
    best = np.concatenate([top(row, K) for row in scores])
    relevant = np.concatenate([np.fromiter(each, np.int64, len(each)) for each in grades])
    shown, wanted = float(np.median(lengths[best])), float(np.median(lengths[relevant]))
    ratio = (max(shown, wanted) + 1) / (min(shown, wanted) + 1)
    return [
        found(
            ABOUT, "prefers-length", ratio,
            f"The ten best have {shown:.0f} words, the relevant rows {wanted:.0f} (medians)",
            "The encoder finds texts of a query's length: store chunks, or take one that was trained on "
            "questions and passages.",
        )
    ]  # fmt: skip
