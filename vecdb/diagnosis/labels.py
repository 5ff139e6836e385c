"""Do the labels fit the vectors, and which of them look wrong?

labels-mixed: whether the ten nearest tell a row's label better than always saying the commonest, and how rows
lie among their own (Rousseeuw's silhouette, 1987, by mean cosines).

label-noise: the share of labels that are as if drawn at random. Classes overlap, so a row whose neighbours
have another label need not be wrong. But some pairs of classes are far apart, and in a clean collection
rows of the one have no neighbours of the other. Wrong labels put some there, in proportion to how frequent
classes are: with a share e of labels at random, far pairs meet (1 - (1 - e)²) times as often as by chance.
Which pairs are far is read from one half of the rows, how often they meet from the other (after Northcutt
et al., Confident Learning, 2021, and Zhu, Song and Liu, Clusterability as an Alternative to Anchor Points,
2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis.finding import Finding, found, per_cent
from vecdb.diagnosis.subject import nearest, squared_distances

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.diagnosis.subject import Subject

    Ints = npt.NDArray[np.int64]

ABOUT: Final = "labels"
K: Final = 10
MOST: Final = 4000  # rows that are looked at
FEWEST: Final = 50
CLASSES_FOR_NOISE: Final = 4  # fewer have no pairs that are far apart
SURE: Final = 0.8  # of the votes for another label: the examples that are shown


@dataclass(slots=True)
class Told:
    """What was seen, for the verdict: shares of labels that the nearest rows tell, beyond the commonest."""

    by_vectors: float
    by_words: float | None = None


def look(subject: Subject) -> tuple[list[Finding], Told | None]:
    """What there is to say of the labels, and what was seen."""
    if subject.labels is None:
        return [], None
    nonzero: Any = subject.vectors[: subject.drawn].any(axis=1)
    kept = [row for row, label in enumerate(subject.labels) if label is not None and nonzero[row]]
    rows: Ints = np.array(kept[:MOST], np.int64)
    named = f" {subject.label_field!r}" if subject.label_field else ""
    if len(rows) < FEWEST:
        subject.skip(f"labels{named}", f"{len(rows)} of the rows looked at have one; {FEWEST} at least say "
        "something")
        return [], None
    numbers = {each: at for at, each in enumerate(dict.fromkeys(_key(subject.labels[row]) for row in rows))}
    classes = np.array([numbers[_key(subject.labels[row])] for row in rows])
    if len(numbers) < 2:
        subject.skip(f"labels{named}", "all rows have the same")
        return [], None
    if len(numbers) > len(rows) / 4:
        subject.skip(f"labels{named}", f"{len(numbers):,} different among {len(rows):,} rows: too few rows "
        "a label")
        return [], None
    some = subject.units[rows] if subject.metric in ("cosine", "dot") else subject.vectors[rows]
    some = some.astype(np.float64)
    near = nearest(squared_distances(some), K)
    votes = _votes(classes, near)
    told, ways = Told(_beyond(classes, votes)), [near]
    findings = [_mixed(told.by_vectors, classes, votes, some)]
    if subject.has_texts:
        profiles = subject.words.profiles(rows)
        by_words = nearest(squared_distances(np.asarray(profiles, np.float64)), K)
        told.by_words = _beyond(classes, _votes(classes, by_words))
        ways.append(by_words)
    if len(numbers) >= CLASSES_FOR_NOISE:
        findings.append(_noise(subject, rows, classes, ways))
    else:
        subject.skip("label-noise", f"{len(numbers)} labels: wrong ones look like neighbours there")
    return findings, told


def _votes(classes: Ints, near: Ints) -> Any:
    """Which share of each row's neighbours has each label."""
    votes = np.zeros((len(classes), int(classes.max()) + 1))
    np.add.at(votes, (np.arange(len(classes))[:, None], classes[near]), 1 / near.shape[1])
    return votes


def _beyond(classes: Ints, votes: Any) -> float:
    """Which share of the labels the neighbours tell, of those that are not the commonest."""
    told = float((votes.argmax(axis=1) == classes).mean())
    commonest = float(np.bincount(classes).max() / len(classes))
    return (told - commonest) / max(1e-9, 1 - commonest)


def _key(label: Any) -> tuple[type, Any]:
    return type(label), label  # 1, 1.0 and True are different labels


def _mixed(beyond: float, classes: Ints, votes: Any, some: Any) -> Finding:
    told = float((votes.argmax(axis=1) == classes).mean())
    commonest = float(np.bincount(classes).max() / len(classes))
    return found(
        ABOUT, "labels-mixed", beyond,
        f"The {K} nearest tell {per_cent(told)} of the labels; always saying the commonest tells "
        f"{per_cent(commonest)}. Mean silhouette {_silhouette(classes, some):+.2f}",
        "The vectors do not keep these labels apart: fit_adapter(labels=) where the label is the likeness "
        "you want; another encoder, if that does not help; or the labels are wrong.",
    )  # fmt: skip


def _silhouette(classes: Ints, some: Any) -> float:
    """The mean of (b - a) / max(a, b), a the mean squared distance to one's own, b to the nearest others."""
    k = int(classes.max()) + 1
    counts = np.bincount(classes, minlength=k).astype(np.float64)
    sums = np.zeros((k, some.shape[1]))
    np.add.at(sums, classes, some)
    squares = np.square(some).sum(axis=1)
    inner = np.bincount(classes, squares, minlength=k)
    all_ = squares[:, None] * counts + inner[None] - 2 * (some @ sums.T)  # to all of each class
    own = np.take_along_axis(all_, classes[:, None], axis=1)[:, 0] / np.maximum(counts[classes] - 1, 1)
    others = all_ / counts
    others[np.arange(len(classes)), classes] = np.inf
    nearest_ = others.min(axis=1)
    each = (nearest_ - own) / np.maximum(np.maximum(nearest_, own), 1e-300)
    several = counts[classes] > 1
    return float(each[several].mean()) if several.any() else 0.0


def _noise(subject: Subject, rows: Ints, classes: Ints, ways: list[Ints]) -> Finding:
    """By the neighbours that fit the labels better: the vectors', or those by words.

    A model that puts rows together by something else makes right labels look drawn at random.
    """
    shares = [noise_of(classes, near, subject.rng(4)) for near in ways]
    best = int(np.argmin(shares))
    share, votes = shares[best], _votes(classes, ways[best])
    own = votes[np.arange(len(rows)), classes]
    doubtful = np.flatnonzero((own == 0) & (votes.max(axis=1) >= SURE))
    doubtful = doubtful[np.argsort(-votes[doubtful].max(axis=1), kind="stable")]
    return found(
        ABOUT, "label-noise", share,
        f"About {per_cent(share)} of the labels are as if given at random; {len(doubtful):,} rows have "
        "neighbours that nearly all say another",
        "Look at these rows and correct their labels; papers.predict(vector, field) says what the neighbours "
        "have.",
        [subject.ids[rows[at]] for at in doubtful],
    )  # fmt: skip


def noise_of(classes: Ints, near: Ints, rng: np.random.Generator) -> float:
    """The share of labels that are as if drawn at random."""
    k = int(classes.max()) + 1
    share = np.bincount(classes, minlength=k) / len(classes)
    half = rng.permutation(len(classes)) < len(classes) // 2
    off = ~np.eye(k, dtype=bool)
    found_ = []
    for chosen, other in ((half, ~half), (~half, half)):
        seen, expected = _meetings(classes, near, chosen, share)
        ratio = ((seen + 1) / (expected + 1))[off]
        order = np.argsort(ratio, kind="stable")
        weight = np.cumsum(expected[off][order])
        far = order[: int(np.searchsorted(weight, weight[-1] / 3)) + 1]
        seen, expected = _meetings(classes, near, other, share)
        found_.append(float(seen[off][far].sum() / max(1e-9, expected[off][far].sum())))
    return float(1 - np.sqrt(1 - min(1.0, float(np.mean(found_)))))


def _meetings(classes: Ints, near: Ints, chosen: Any, share: Any) -> tuple[Any, Any]:
    """How often rows of each class have neighbours of each, and how often they would by chance."""
    k, rows = len(share), np.flatnonzero(chosen)
    seen = np.zeros((k, k))
    np.add.at(seen, (np.repeat(classes[rows], near.shape[1]), classes[near[rows]].ravel()), 1)
    return seen, np.outer(np.bincount(classes[rows], minlength=k) * near.shape[1], share)
