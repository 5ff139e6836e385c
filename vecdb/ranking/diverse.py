"""How are hits chosen that are unlike each other? Maximal marginal relevance.

Carbonell and Goldstein, "The use of MMR" (1998): one after the other, the candidate is taken with the
largest λ · relevance - (1 - λ) · likeness to the most similar one taken before; λ = 1 - diversity.

Relevance is the score where one vector query ranked (it is of the same kind as the likeness of two rows);
other scores are scaled to 0 to 1 over the candidates. Rows without a vector in the field are like nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.ranking.base import Ranked
from vecdb.storage import vectors
from vecdb.types import score_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.ranking.vectors import VectorField

FIRST: Final = 5  # candidates a hit
LEAST: Final = 50


def candidates(reach: int) -> int:
    """From how many of the best so many are chosen."""
    return max(FIRST * reach, LEAST)


def chosen(
    found: Ranked, field: VectorField, diversity: float, reach: int, *, alike: bool
) -> npt.NDArray[np.intp]:
    """The positions in `found` of the rows chosen, in the order in which they were.

    `alike`: the scores are of the same kind as the likeness of two rows.
    """
    n = len(found.rids)
    relevance = found.scores if alike else _scaled(found.scores)
    stored, has = _vectors(field, found.rids)
    like = np.full(n, -np.inf)  # to the most similar one taken
    taken: list[int] = []
    left = np.ones(n, np.bool_)
    for _ in range(min(reach, n)):
        worth = (1 - diversity) * relevance
        if taken:
            worth = worth - diversity * np.where(np.isneginf(like), 0.0, like)
        worth = np.where(left, worth, -np.inf)
        at = int(np.argmax(worth))
        taken.append(at)
        left[at] = False
        if has[at]:
            mine = _likeness(field, stored, stored[at])
            like = np.where(has, np.maximum(like, mine), like)
    return np.array(taken, np.intp)


def _scaled(scores: Any) -> Any:
    if not len(scores):
        return scores
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return np.zeros(len(scores))
    low, high = float(finite.min()), float(finite.max())
    return np.ones(len(scores)) if high == low else np.maximum(0, (scores - low) / (high - low))


def _vectors(field: VectorField, rids: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The rows' vectors (n, d), zeros for rows without, and which have one."""
    place, declared = field.place, field.declared
    held = field.rows()
    has = np.fromiter((rid in held or rid in field.without for rid in rids.tolist()), np.bool_, len(rids))
    made = np.zeros((len(rids), declared.dim))
    if has.any():
        layout = place.view.schema.layout(declared)
        found = vectors.read(place.txn, place.verbs._cid, layout, np.ascontiguousarray(rids[has]))
        made[has] = [vectors.as_query(each.tobytes(), declared.dim, declared.dtype) for each in found]
    if declared.metric == "cosine":
        norms = np.linalg.norm(made, axis=1, keepdims=True)
        made = made / np.where(norms > 0, norms, 1)
    return made, has


def _likeness(field: VectorField, stored: Any, one: Any) -> Any:
    """The score of each row with one of them as the query."""
    metric, dim = field.declared.metric, field.declared.dim
    if metric in ("cosine", "dot"):
        return stored @ one
    if metric == "hamming":
        return score_of(metric, dim, np.abs(stored - one).sum(axis=1))
    return score_of(metric, dim, np.sqrt(((stored - one) ** 2).sum(axis=1)))
