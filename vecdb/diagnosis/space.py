"""Which shape has the cloud of vectors, and do neighbours mean anything in it?

    anisotropy           mean cosine of random pairs                         Ethayarajh, 2019
    few-directions       share of the variance in the first component        Mu and Viswanath, 2018
    hubs                 skewness of how often a row is among others' ten    Radovanović et al., 2010
    intrinsic-dimension  TwoNN; Levina and Bickel's estimate beside it       Facco et al., 2017; 2004
    no-neighbourhoods    nearest distance against the mean one               Beyer et al., 1999
    follows-length       neighbours by the lengths of their texts
    ignores-words        words that neighbours share, against those that the nearest by words share

Of at most 2,000 rows, equal vectors once: hubs and dimensions depend on how many rows there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis.finding import Finding, found, per_cent
from vecdb.diagnosis.subject import nearest
from vecdb.diagnosis.words import words_of

if TYPE_CHECKING:
    from vecdb.diagnosis.subject import Subject

ABOUT: Final = "space"
K: Final = 10
FEWEST: Final = 50  # rows without which nothing is said
PAIRS: Final = 20_000
WHITEN: Final = "Centre and whiten them: fit_adapter does that where it helps; or take another encoder."


@dataclass(slots=True)
class Shape:
    """What was seen, for the verdict and the report."""

    follows_length: float | None = None
    shares_words: float | None = None
    levina_bickel: float | None = None
    hub_ids: tuple[Any, ...] = ()


def look(subject: Subject) -> tuple[list[Finding], Shape]:
    """What there is to say of the shape, and what was seen."""
    shape = Shape()
    if len(subject.shape_rows) < FEWEST:
        subject.skip("the space's shape", f"{len(subject.shape_rows)} different vectors; {FEWEST} at least "
        "say something")
        return [], shape
    findings = [_anisotropy(subject)] if subject.angular else []
    findings += [_directions(subject), *_hubs(subject, shape), _dimension(subject, shape), _contrast(subject)]
    if subject.has_texts:
        findings += _follows(subject, shape)
    return findings, shape


def _anisotropy(subject: Subject) -> Finding:
    units = subject.units[subject.shape_rows].astype(np.float64)
    i, j = subject.rng(2).integers(0, len(units), (2, PAIRS))
    cosines = np.einsum("ij,ij->i", units[i], units[j])[i != j]
    mean, deviation = float(cosines.mean()), float(cosines.std())
    return found(
        ABOUT, "anisotropy", mean,
        f"Two random rows have a cosine of {mean:.2f} ± {deviation:.2f}"
        + (": all vectors point the same way, and scores lie close together" if mean >= 0.45 else ""),
        "Rankings may be sound, limits on scores are not: " + WHITEN[0].lower() + WHITEN[1:],
    )  # fmt: skip


def _directions(subject: Subject) -> Finding:
    cloud = subject.cloud - subject.cloud.mean(axis=0)
    square = cloud.T @ cloud if cloud.shape[1] <= len(cloud) else cloud @ cloud.T
    values = np.linalg.eigvalsh(square)[::-1].clip(0)
    share = values / max(float(values.sum()), 1e-300)
    first = float(share[0]) if subject.dim > 4 else 0.0  # of few dimensions one has much
    effective = 1 / max(float(np.square(share).sum()), 1e-300)
    return found(
        ABOUT, "few-directions", first,
        f"The first component has {per_cent(first)} of the variance, the first three "
        f"{per_cent(float(share[:3].sum()))}; the cloud is as wide as {effective:.0f} even dimensions",
        "One direction decides who is near whom. See what it is (papers' two ends of it); "
        "" + WHITEN[0].lower() + WHITEN[1:],
    )  # fmt: skip


def _hubs(subject: Subject, shape: Shape) -> list[Finding]:
    near = nearest(subject.spread if subject.metric != "dot" else _dot_distances(subject), K)
    counts = np.bincount(near.ravel(), minlength=len(near)).astype(np.float64)
    deviation = counts.std()
    skew = float(((counts - counts.mean()) ** 3).mean() / deviation**3) if deviation else 0.0
    order = np.argsort(-counts, kind="stable")
    some = max(1, len(counts) // 100)
    held = float(counts[order[:some]].sum() / counts.sum())
    lonely = float((counts == 0).mean())
    shape.hub_ids = tuple(subject.ids[subject.shape_rows[row]] for row in order[:5])
    return [
        found(
            ABOUT, "hubs", skew,
            f"One row in a hundred takes {per_cent(held)} of all places among others' ten nearest, the "
            f"first of them {counts[order[0]]:.0f} times; {per_cent(lonely)} of the rows are nobody's "
            "neighbour",
            "Look at these rows: texts without content, wrong lengths. " + WHITEN, shape.hub_ids,
        )
    ]  # fmt: skip


def _dot_distances(subject: Subject) -> Any:
    products = subject.cloud @ subject.cloud.T
    distances = -products
    np.fill_diagonal(distances, np.inf)
    return distances


def _dimension(subject: Subject, shape: Shape) -> Finding:
    k = min(20, len(subject.spread) - 1)
    distances = np.sqrt(np.sort(np.partition(subject.spread, k - 1, axis=1)[:, :k], axis=1))
    usable = distances[:, 0] > 1e-4 * float(np.median(distances[:, k - 1]))  # nearly equal rows say nothing
    distances = distances[usable] if usable.any() else np.ones((1, k))
    ratios = np.log(np.maximum(distances[:, 1] / distances[:, 0], 1 + 1e-12))
    two = len(ratios) / float(ratios.sum()) if ratios.sum() else float("nan")
    ratios = np.log(distances[:, -1:] / distances[:, :-1])
    shape.levina_bickel = float(1 / ratios.mean()) if ratios.size and ratios.mean() > 0 else None
    few = subject.dim < 8 or subject.metric == "hamming"
    beside = "" if shape.levina_bickel is None else f", {shape.levina_bickel:.0f} by Levina and Bickel"
    return found(
        ABOUT, "intrinsic-dimension", two,
        f"The cloud has about {two:.1f} dimensions of its own (TwoNN{beside}) of {subject.dim:,}",
        "So few say little of texts or pictures: see whether the encoder has collapsed, or rows are copies "
        "with noise.", at_most="note" if few else "serious",
    )  # fmt: skip


def _contrast(subject: Subject) -> Finding:
    first = np.sqrt(subject.spread.min(axis=1))
    rng = subject.rng(3)
    i, j = rng.integers(0, len(first), (2, PAIRS))
    mean = float(np.sqrt(subject.spread[i, j][i != j]).mean())
    ratio = float(np.median(first)) / max(mean, 1e-300)
    return found(
        ABOUT, "no-neighbourhoods", ratio,
        f"A row's nearest is at {ratio:.2f} of the distance of two random rows"
        + (": neighbours are hardly nearer than anything else, as among random "
        "vectors" if ratio >= 0.88 else ""),
        "See whether the vectors are what the encoder makes of these rows; random ones look like this.",
    )  # fmt: skip


# --- what neighbours have in common ----------------------------------------------------------------


def _follows(subject: Subject, shape: Shape) -> list[Finding]:
    rows = np.array([row for row in subject.shape_rows if subject.plain_texts[row].strip()])
    if len(rows) < FEWEST:
        return []
    place = {row: at for at, row in enumerate(subject.shape_rows.tolist())}
    at = [place[row] for row in rows.tolist()]
    distances = subject.spread if subject.metric != "dot" else _dot_distances(subject)
    near = nearest(distances[np.ix_(at, at)], K)
    lengths = np.log1p([len(words_of(subject.plain_texts[row])) for row in rows])
    findings = []
    by_chance = float(np.abs(lengths[:, None] - lengths[None]).mean())
    if by_chance > 0.1:  # texts of one length say nothing
        ratio = float(np.abs(lengths[near] - lengths[:, None]).mean()) / by_chance
        shape.follows_length = ratio
        findings.append(
            found(
                ABOUT, "follows-length", ratio,
                f"Neighbours' texts differ in length by {ratio:.2f} of what random rows' do"
                + (": texts lie together because they are equally long" if ratio <= 0.7 else ""),
                "The encoder was trained for another likeness, or its vectors carry length: fit_adapter "
                "with pairs of the likeness you want, or take another encoder.",
            )
        )  # fmt: skip
    profiles = subject.words.profiles(rows)
    alike = (profiles @ profiles.T).astype(np.float64)
    chance = float((alike.sum() - np.trace(alike)) / (len(rows) * (len(rows) - 1)))
    np.fill_diagonal(alike, -1)
    k = near.shape[1]
    best = float(np.partition(alike, -k, axis=1)[:, -k:].mean())
    if best - chance > 0.02:
        share = float(np.take_along_axis(alike, near, axis=1).mean() - chance) / (best - chance)
        shape.shares_words = share
        findings.append(
            found(
                ABOUT, "ignores-words", share,
                f"Neighbours share {per_cent(max(0.0, share))} of the words that the nearest by words "
                "alone share",
                "Texts that lie together have few words in common. Where that is not what you want, the "
                "encoder was trained for another likeness: fit_adapter with pairs of the likeness you want, "
                "or take another.",
            )
        )  # fmt: skip
    return findings
