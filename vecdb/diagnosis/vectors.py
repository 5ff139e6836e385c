"""Are the vectors there, different, of a sound length, and those that the encoder makes?

without-vector, zero-vectors, same-vectors, dead-dimensions, norm-outliers, near-duplicates, and of a
collection with an encoder: vectors-differ, encoders-swapped, metric-differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis.finding import Finding, found, per_cent
from vecdb.diagnosis.subject import unit
from vecdb.encoders.base import check_vectors

if TYPE_CHECKING:
    from vecdb.diagnosis.subject import Subject

ABOUT: Final = "vectors"
NEAR: Final = 0.02  # of a cosine distance; elsewhere the same share of the distance of two random rows
ROBUST_Z: Final = 6.0
TWICE: Final = 2.0
ENCODED_AGAIN: Final = 24  # texts that are encoded again, to compare
SAME: Final = 0.995  # cosine from which two vectors are of one text: f16 and i8 round
SWAPPED: Final = 0.999
FEWEST: Final = 50  # different rows, without which nothing is said of dimensions
SOME: Final = 3  # rows that are alike, from which on it is more than a note


def look(subject: Subject, stopped: Callable[[], bool]) -> list[Finding]:
    """What there is to say of the vectors."""
    some = subject.vectors[: subject.drawn]
    findings = []
    if subject.collection is not None:
        findings.append(_without(subject))
    findings += [_zero(subject, some), _same(subject, some), _dead(subject, some)]
    if subject.dtype != "b1":
        findings.append(_norms(subject, some))
    if not stopped() and len(some) > 1:
        findings.append(_near(subject, stopped))
    if not stopped():
        findings += _made_by(subject)
    return findings


def _without(subject: Subject) -> Finding:
    every = subject.total + subject.without_vector
    share = subject.without_vector / max(1, every)
    return found(
        ABOUT, "without-vector", share,
        f"{subject.without_vector:,} of {every:,} rows have no vector here: no search by vector finds them"
        if subject.without_vector else "Every row has a vector",
        "Give them vectors or texts with update().",
    )  # fmt: skip


def _zero(subject: Subject, some: Any) -> Finding:
    at = np.flatnonzero(~some.any(axis=1))
    share = len(at) / len(some)
    return found(
        ABOUT, "zero-vectors", share,
        f"{len(at):,} of {len(some):,} vectors are zero" if len(at) else "No vector is zero",
        "Find out what failed when they were made, and delete or encode these rows again.",
        [subject.ids[row] for row in at],
    )  # fmt: skip


def _same(subject: Subject, some: Any) -> Finding:
    _, first, counts = np.unique(some, axis=0, return_index=True, return_counts=True)
    most = int(np.argmax(counts))
    count = int(counts[most])
    share = count / len(some) if count > 1 else 0.0
    rows = np.flatnonzero((some == some[first[most]]).all(axis=1))
    return found(
        ABOUT, "same-vectors", share,
        f"{count:,} of {len(some):,} rows have one and the same vector" if count > 1 else
        "No two rows have the same vector",
        "See what these rows have in common: empty texts, texts of words that the encoder does not know, "
        "or an encoder that failed.", [subject.ids[row] for row in rows] if count > 1 else [],
        at_most="note" if count < SOME else "serious",
    )  # fmt: skip


def _dead(subject: Subject, some: Any) -> Finding:
    spread = some.std(axis=0, dtype=np.float64)
    dead = np.flatnonzero(spread <= 1e-6 * float(spread.max()))
    different = len(subject.shape_rows)
    share = len(dead) / subject.dim if different >= FEWEST else 0.0  # few rows leave many dimensions alone
    return found(
        ABOUT, "dead-dimensions", share,
        f"{len(dead):,} of {subject.dim:,} dimensions have the same value in all rows: they cost space and "
        "say nothing" if share else "Every dimension varies",
        "See whether vectors of another length were padded, or a layer of the encoder is broken; otherwise "
        "store the others alone.", dead.tolist() if share else [],
        at_most="serious" if different > subject.dim else "note",
    )  # fmt: skip


def _norms(subject: Subject, some: Any) -> Finding:
    norms = np.sqrt(np.square(some, dtype=np.float64).sum(axis=1))
    kept = np.flatnonzero(norms > 0)
    logs = np.log(norms[kept]) if len(kept) else np.zeros(1)
    middle = float(np.median(logs))
    mad = 1.4826 * float(np.median(np.abs(logs - middle)))
    away = np.abs(logs - middle)
    outside = np.flatnonzero((away > ROBUST_Z * mad) & (away > np.log(TWICE)))
    share = len(outside) / len(some)
    worst = kept[outside[np.argsort(-away[outside], kind="stable")]] if len(kept) else kept
    matters = subject.metric in ("dot", "l2")
    what = {
        "dot": "Under dot a long vector is near everything and a short one near nothing",
        "l2": "Under l2 they are far from all others",
    }.get(subject.metric, "Under cosine that changes no ranking")
    return found(
        ABOUT, "norm-outliers", share,
        f"{len(outside):,} of {len(some):,} vectors are much longer or shorter than the others (median "
        f"length {np.exp(middle):.3g}). {what}" if len(outside) else
        f"Lengths are alike (median {np.exp(middle):.3g})",
        "See how these rows were made; scale vectors to length 1 before they are stored, or use cosine.",
        [subject.ids[row] for row in worst], at_most="serious" if matters else "note",
    )  # fmt: skip


# --- near-duplicates -------------------------------------------------------------------------------


def _near(subject: Subject, stopped: Callable[[], bool]) -> Finding:
    """Rows that are nearly another: of a collection all, by its own analysis; else of the sample."""
    limit = _limit(subject)
    if subject.collection is not None and subject.metric != "dot":
        groups = subject.collection.duplicates(limit, using=subject.using, cancel=stopped)
        rows = subject.total
        examples = [id for group in groups[:5] for id in group[:2]]
    else:
        places = _groups(subject, limit)
        groups = [[subject.ids[row] for row in group] for group in places]
        rows = subject.drawn
        examples = [id for group in groups[:5] for id in group[:2]]
    share = sum(len(group) - 1 for group in groups) / max(1, rows)
    unit_ = {"hamming": f"{limit:.0f} bits", "l2": f"{limit:.3g}"}.get(subject.metric, f"{limit:.2g} of "
    "cosine")
    return found(
        ABOUT, "near-duplicates", share,
        f"{per_cent(share)} of the rows are nearly another row (within {unit_}): {len(groups):,} groups, the "
        f"largest of {len(groups[0]):,}" if groups else f"No two rows are nearly the same (within {unit_})",
        "Keep one of each: papers.delete([id for group in papers.duplicates(0.02) for id in group[1:]]); or "
        "search with diversity=.", examples, at_most="note" if sum(map(len, groups)) < SOME else "serious",
    )  # fmt: skip


def _limit(subject: Subject) -> float:
    """The largest distance of near-duplicates: of two random rows' distance the same share everywhere."""
    if subject.metric in ("cosine", "dot"):
        return NEAR
    rows = subject.shape_rows
    if len(rows) < 2:
        return 0.0
    rng = subject.rng(1)
    i, j = rng.integers(0, len(rows), (2, 4000))
    some = subject.vectors[rows]
    differences = some[i[i != j]].astype(np.float64) - some[j[i != j]]
    if subject.metric == "hamming":
        return float(np.floor(NEAR * np.median((differences != 0).sum(axis=1))))
    return float(np.sqrt(NEAR) * np.median(np.sqrt(np.square(differences).sum(axis=1))) / np.sqrt(2))


def _groups(subject: Subject, limit: float) -> list[Any]:
    """Groups of drawn rows that hang together, by each with each; zero vectors take no part."""
    from vecdb.analysis.components import Components
    from vecdb.analysis.geometry import Geometry, Near

    metric = "cosine" if subject.metric == "dot" else subject.metric
    rows = np.flatnonzero(subject.vectors[: subject.drawn].any(axis=1))
    some = subject.units[rows] if metric == "cosine" else subject.vectors[rows]
    near = Near(Geometry(metric, "f32", subject.dim), some, limit)
    components = Components(len(rows))
    for at in range(0, len(rows), 512):
        i, j, _ = near.pairs(some[at : at + 512], at)
        components.join(i + at, j)
    return sorted((rows[group] for group in components.groups()), key=lambda group: (-len(group), group[0]))


# --- what made them --------------------------------------------------------------------------------


def _made_by(subject: Subject) -> list[Finding]:
    """Whether a collection's vectors are those that its encoder makes of the texts now."""
    if subject.collection is None or not subject.has_texts:
        return []
    if subject.changed is not None:
        return [
            found(
                ABOUT, "vectors-differ", 1.0,
                f"The encoder at hand is not the one that made the vectors: {subject.changed}",
                "Install or give the encoder that made them, or make the vectors again with reembed().",
            )
        ]  # fmt: skip
    encoder: Any = subject.encoder
    if encoder is None:
        return []
    rows = [row for row in range(subject.drawn) if (subject.texts or [])[row]][:ENCODED_AGAIN]
    if not rows:
        return []
    texts = [subject.plain_texts[row] for row in rows]
    stored = subject.vectors[rows]
    count, who = len(texts), f"encoder {encoder.name!r}"
    documents = check_vectors(encoder.encode_documents(texts), count, subject.dim, who)
    queries = check_vectors(encoder.encode_queries(texts), count, subject.dim, who)
    as_documents, as_queries = _cosines(stored, documents), _cosines(stored, queries)
    swapped = float(np.mean((as_queries > SWAPPED) & (as_documents < SWAPPED)))
    differ = (as_documents < SAME) & (as_queries < SAME)
    share = float(differ.mean())
    return [
        found(
            ABOUT, "encoders-swapped", swapped,
            "The rows' vectors are those that the encoder makes of queries, not of "
            "documents" if swapped >= 0.5 else
            "The rows' vectors were made as documents",
            "Encode the texts again with encode_documents: reembed(), or upsert texts without vectors.",
            [subject.ids[row] for row in rows] if swapped >= 0.5 else [],
        ),
        found(
            ABOUT, "vectors-differ", share,
            f"Of {len(rows)} texts that were encoded again, {int(differ.sum())} gave another vector than "
            "is stored"
            if share else f"{len(rows)} texts, encoded again, gave the vectors that are stored",
            "See whether texts were changed without their vectors, or vectors came from another model; "
            "encode them again: reembed(), or upsert texts without vectors.",
            [subject.ids[row] for row, other in zip(rows, differ, strict=True) if other],
        ),
        found(
            ABOUT, "metric-differs", float(subject.metric != encoder.metric and _lengths_differ(subject)),
            f"The field compares by {subject.metric}, the encoder was made for {encoder.metric}"
            + ("" if _lengths_differ(subject) else "; vectors of one length rank alike under both")
            if subject.metric != encoder.metric else f"The field compares by {subject.metric}, as the "
            "encoder was made",
            f"Make the collection with metric={encoder.metric!r}.",
        ),
    ]  # fmt: skip


def _cosines(some: Any, others: Any) -> Any:
    return np.einsum("ij,ij->i", unit(some), unit(others))


def _lengths_differ(subject: Subject) -> bool:
    norms = np.sqrt(np.square(subject.vectors, dtype=np.float64).sum(axis=1))
    return bool(norms.std() > 0.01 * norms.mean())
