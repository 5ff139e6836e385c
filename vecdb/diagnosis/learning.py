"""Would more pairs help, or has this model given what it has?

The judged queries are split into halves, several times. A map is fitted to growing shares of the one half
(probe.py) and measured on the other. The gain of the last doubling says whether the curve still rises; a
curve a - b n^-c through the points (Cortes et al., Learning Curves, 1993), drawn on, says what twice as
many would give. Intervals are over splits and queries: by a bootstrap of the queries' mean gains.

Without queries, rows with labels stand for them: each is a query, relevant are the rows with its label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis import probe
from vecdb.diagnosis.finding import Finding, found
from vecdb.diagnosis.judged import interval
from vecdb.diagnosis.probe import Space

if TYPE_CHECKING:
    from vecdb.diagnosis.subject import Subject

ABOUT: Final = "learning"
FEWEST: Final = 24  # queries
FEWEST_ROWS: Final = 50
SPLITS: Final = 3
SHARES: Final = (0.25, 0.5, 1.0)  # of the half that is learned from
LABELLED: Final = 200  # rows that stand for queries
AMONG: Final = 600
WORTH: Final = 0.01  # nDCG@10 that a doubling must give to be worth judging for


@dataclass(slots=True)
class Curve:
    """What was measured: points (queries learned from, mean nDCG@10, low, high), and what they say."""

    points: list[tuple[float, float, float, float]] = field(default_factory=list)
    frozen: float = 0.0  # without a map, on the same held-out queries
    gain: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the map with all pairs: mean, low, high
    last: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the last doubling
    next: float | None = None  # what twice as many would give, by the curve
    of: str = "queries"
    choices: list[probe.Choice] = field(default_factory=list)

    @property
    def state(self) -> str:
        """"rising", "plateaued", or "unsure"."""
        if self.last[1] > 0 or (self.last[0] >= WORTH and self.gain[1] > 0 and (self.next or 0) >= WORTH):
            return "rising"
        return "plateaued" if self.last[2] < WORTH else "unsure"


def look(subject: Subject, stopped: Callable[[], bool]) -> tuple[list[Finding], Curve | None]:
    """What there is to say of learning, and what was measured."""
    space, of = _space(subject)
    if space is None:
        return [], None
    if len(space.rows) < FEWEST_ROWS:
        subject.skip("learning curve", f"{len(space.rows)} rows; {FEWEST_ROWS} at least say something")
        return [], None
    curve = measure(space, subject.rng(7), stopped)
    if curve is None:
        return [], None
    curve.of = of
    gained, low, high = curve.gain
    last, least, most = curve.last
    says = (
        f"A map fitted to {curve.points[-1][0]:.0f} {of} brings nDCG@10 on others from {curve.frozen:.3f} to "
        f"{curve.points[-1][1]:.3f} ({gained:+.3f}, {low:+.3f} to {high:+.3f}); the last doubling gave "
        f"{last:+.3f} ({least:+.3f} to {most:+.3f})"
    )
    drawn_on = "" if curve.next is None else f"; twice as many would give about {curve.next:+.3f}"
    rising, flat = curve.state == "rising", curve.state == "plateaued"
    return [
        found(
            ABOUT, "more-pairs-help", last if rising else 0.0, says + (drawn_on if rising else ""),
            f"fit_adapter with what is judged, and judge more {of}.", at_most="note",
        ),
        found(
            ABOUT, "plateaued", float(flat),
            f"More pairs will not move this model: the last doubling gave at most {most:+.3f}" if flat else
            ("The curve still rises" if rising else "Too few to tell whether the curve still rises"),
            "If that is not good enough, take another encoder rather than more pairs.", at_most="note",
        ),
    ], curve  # fmt: skip


def measure(space: Space, rng: np.random.Generator, stopped: Callable[[], bool]) -> Curve | None:
    """The learning curve of a space; None when it is stopped."""
    space = probe.narrowed(space)
    spaces = {power: probe.stretched(space, power) for power in probe.POWERS}
    count = len(space.grades)
    frozen = np.full((SPLITS, count), np.nan)
    after = np.full((len(SHARES), SPLITS, count), np.nan)
    curve = Curve()
    sizes: list[int] = []
    for split in range(SPLITS):
        order = rng.permutation(count)
        train, test = order[: count // 2].tolist(), order[count // 2 :].tolist()
        choice = probe.choose(spaces, train, rng)
        curve.choices.append(choice)
        frozen[split, test] = probe.quality(spaces[0.0], None, test)
        sizes = [max(2, round(share * len(train))) for share in SHARES]
        for at, size in enumerate(sizes):
            if stopped():
                return None
            after[at, split, test] = probe.fitted(spaces, choice, train[:size], test, rng)
    measured = ~np.isnan(frozen).all(axis=0)
    means = [np.nanmean(each[:, measured], axis=0) for each in after]
    before = np.nanmean(frozen[:, measured], axis=0)
    curve.frozen = float(before.mean())
    curve.points = [(float(n), *interval(each, rng)) for n, each in zip(sizes, means, strict=True)]
    curve.gain = interval(means[-1] - before, rng)
    curve.last = interval(means[-1] - means[-2], rng)
    curve.next = _drawn_on(sizes, [float(each.mean()) for each in means])
    return curve


def _drawn_on(sizes: Sequence[int], means: Sequence[float]) -> float | None:
    """What twice as many would give, by a - b n^-c through three points; None where it does not rise."""
    first, second = means[1] - means[0], means[2] - means[1]
    if len(sizes) != 3 or second <= 0:
        return None
    ratio = min(1.0, second / first) if first > 0 else 1.0  # of one doubling's gain to the one before
    return second * ratio


def _space(subject: Subject) -> tuple[Space | None, str]:
    queries = subject.queries
    if queries is not None and len(queries.judged) >= FEWEST:
        if subject.metric not in ("cosine", "dot", "l2"):
            subject.skip("learning curve", "a map of bits is not of bits")
            return None, ""
        at = queries.judged
        centre = subject.vectors.mean(axis=0) if subject.metric == "l2" else np.float32(0)
        return Space(
            queries.vectors[at] - centre, subject.vectors - centre, [queries.grades[each] for each in at]
        ), "queries"
    if queries is not None and queries.judged:
        subject.skip("learning curve", f"{len(queries.judged)} judged queries; {FEWEST} at least say "
        "something")
    if subject.labels is not None and subject.metric != "hamming":
        return _of_labels(subject), "labelled rows"
    return None, ""


def _of_labels(subject: Subject) -> Space | None:
    """Some labelled rows as queries, others as what is found; relevant is the same label."""
    labels = subject.labels or []
    nonzero: Any = subject.vectors[: subject.drawn].any(axis=1)
    rows = [row for row, label in enumerate(labels) if label is not None and nonzero[row]]
    asking, among = rows[:LABELLED], rows[LABELLED : LABELLED + AMONG]
    by: dict[Any, dict[int, float]] = {}
    for at, row in enumerate(among):
        by.setdefault((type(labels[row]), labels[row]), {})[at] = 1.0
    kept = [row for row in asking if by.get((type(labels[row]), labels[row]))]
    if len(kept) < FEWEST or len(by) < 2:
        subject.skip("learning curve", f"{len(kept)} labelled rows have others of their label; {FEWEST} at "
        "least")
        return None
    centre = subject.vectors.mean(axis=0) if subject.metric == "l2" else np.float32(0)
    return Space(
        subject.vectors[kept] - centre, subject.vectors[among] - centre,
        [by[type(labels[row]), labels[row]] for row in kept], any_answer=True,
    )  # fmt: skip
