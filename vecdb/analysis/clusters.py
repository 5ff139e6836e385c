"""Into which groups do the rows fall? k-means over a vector field; the answer to `papers.clusters`.

Up to TRAINED rows, or ROWS_A_CLUSTER for each cluster, are held in memory and trained on, drawn at
random where there are more; every row then gets the label of its nearest centroid, a batch at a time.
Under cosine centroids have length 1 and rows count by direction; bits and dot products are clustered
by Euclidean distance, as l2 is.

Invariants:
  L1  a row's label is that of the nearest of `.centroids`;
  L2  clusters are numbered by falling size, and none is empty;
  L3  the same rows in the same file, the same k and the same seed give the same answer.

Rejected: mini-batches (Sculley, 2010). With BLAS a whole step over a sample costs what a hundred of
theirs do, and it ends where k-means ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.analysis import kmeans
from vecdb.analysis.geometry import Move
from vecdb.analysis.taking import BATCH, Taking, in_order
from vecdb.shown import html_table, text_table
from vecdb.types import Id, shorten

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.analysis.geometry import Floats
    from vecdb.progress import Progress

TRAINED: Final = 1 << 16
ROWS_A_CLUSTER: Final = 64
WARMING: Final = 1 << 14
SHOWN: Final = 10
Stopped = Callable[[], bool]


class Clusters:
    """Rows in groups: `.labels` {id: int}, `.sizes`, `.medoids`, `.centroids`, `.k`, `.converged`.

    Clusters are numbered from 0 by falling size. `.labels` has every row that took part, in the
    order of ids; `.sizes` int64 (k,); `.medoids` the id of the row nearest to each centroid;
    `.centroids` float32 (k, d): under cosine of length 1, of bits the share of rows that have each.
    `.converged`: whether a further step of k-means would have changed next to nothing.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
    >>> _ = c.add([1, 2, 3, 4, 5], [[0, 0], [0, 2], [0, 1], [9, 9], [9, 8]])
    >>> found = c.clusters(2)
    >>> found.labels, found.sizes.tolist(), found.medoids[0], found.centroids.round(3)[1].tolist()
    ({1: 0, 2: 0, 3: 0, 4: 1, 5: 1}, [3, 2], 3, [9.0, 8.5])
    >>> found.members(1), found.k, len(found), found.converged
    ([4, 5], 2, 2, True)
    """

    __slots__ = ("centroids", "converged", "labels", "medoids", "sizes")

    def __init__(
        self,
        labels: dict[Id, int],
        sizes: npt.NDArray[np.int64],
        medoids: list[Id],
        centroids: Floats,
        converged: bool,
    ) -> None:
        self.labels = labels
        self.sizes = sizes
        self.medoids = medoids
        self.centroids = centroids
        self.converged = converged

    @property
    def k(self) -> int:
        """How many clusters there are."""
        return len(self.medoids)

    def __len__(self) -> int:
        return len(self.medoids)

    def members(self, label: int) -> list[Id]:
        """Return the ids of a cluster, in order.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> c.clusters(1).members(0)
        ['a', 'b']
        """
        return [id for id, each in self.labels.items() if each == label]

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with the columns id and label, in the order of ids.

        InvalidArgument where pandas (extra `pandas`) is not installed.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> c.clusters(1).to_pandas()["label"].tolist()
        [0, 0]
        """
        from vecdb.frames import frame

        return frame({"id": list(self.labels), "label": list(self.labels.values())})

    def __repr__(self) -> str:
        rows = [(f"{n}.", size, shorten(medoid, 60)) for n, size, medoid in self._rows(SHOWN)]
        more = [f"  ... {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []
        return "\n".join([self._title(), *(text_table(rows, numbers=2) if rows else []), *more])

    def _repr_html_(self) -> str:
        return html_table(("cluster", "rows", "medoid"), self._rows(100), caption=self._title())

    def _title(self) -> str:
        return f"Clusters({self.k} of {len(self.labels):,} rows): number, rows, medoid"

    def _rows(self, most: int) -> list[tuple[str, str, str]]:
        shown = zip(self.sizes[:most].tolist(), self.medoids[:most], strict=True)
        return [(str(n), f"{size:,}", repr(medoid)) for n, (size, medoid) in enumerate(shown)]


def clusters(
    taking: Taking, k: int | None, seed: int, report: Progress, stopped: Stopped
) -> Clusters:
    """The clusters of the rows that take part; stopped early, those of the centroids so far."""
    n, spherical = len(taking), taking.geometry.metric == "cosine"
    if not n:
        nothing = np.empty((0, taking.geometry.dim), np.float32)
        return Clusters({}, np.empty(0, np.int64), [], nothing, converged=True)
    draw = np.random.default_rng(seed)
    total = kmeans.STEPS + 2  # choosing, steps, labels
    rows, move = _sample(taking, k or kmeans.most_clusters(n), draw)
    if k is None:
        few = rows[draw.permutation(len(rows))[: kmeans.TRIAL_ROWS]]
        k = kmeans.best_k(few, kmeans.most_clusters(n), spherical, draw, stopped)
    begun = kmeans.seeds(rows, k, draw)
    if len(rows) > WARMING:  # most of the way at a quarter of the cost
        some = rows[draw.permutation(len(rows))[: len(rows) // 4]]
        begun, _ = kmeans.train(some, begun, spherical, step_done=lambda step: stopped())
    report(1, total)

    def step_done(step: int) -> bool:
        report(1 + step, total)
        return stopped()

    centroids, converged = kmeans.train(rows, begun, spherical, step_done=step_done)
    whole = rows if len(rows) == n else None
    labels, closest = _label(taking, whole, move, centroids, spherical)
    found = _numbered(taking, labels, closest, _as_given(centroids, move, taking), converged)
    report(total, total)
    return found


def _sample(taking: Taking, k: int, draw: np.random.Generator) -> tuple[Floats, Move]:
    """Rows to train on, all of them where they are few enough, and how they were moved."""
    slots, most = taking.slots, max(TRAINED, ROWS_A_CLUSTER * k)
    if len(slots) > most:
        slots = slots[np.sort(draw.choice(len(slots), most, replace=False))]
    rows, metric = taking.floats(slots), taking.geometry.metric
    move = Move.of(rows, "l2" if metric == "dot" else metric)
    return move(rows), move


def _label(
    taking: Taking, whole: Floats | None, move: Move, centroids: Floats, spherical: bool
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """The label of every row, and the position of the row that is nearest to each centroid."""
    n, k = len(taking), len(centroids)
    labels = np.empty(n, np.int32)
    closest, best = np.full(k, -1), np.full(k, -np.inf)
    for at in range(0, n, BATCH):
        if whole is not None:
            rows = whole[at : at + BATCH]
        else:
            rows = move(taking.floats(taking.slots[at : at + BATCH]))
        found, closeness = kmeans.nearest(rows, centroids, spherical)
        labels[at : at + BATCH] = found
        if not spherical:  # closeness leaves out |x|^2, which differs from row to row
            closeness = closeness - np.einsum("ij,ij->i", rows, rows) / 2
        order = np.lexsort((np.arange(len(found)), -closeness, found))
        known, first = np.unique(found[order], return_index=True)
        nearer = closeness[order[first]] > best[known]
        best[known[nearer]] = closeness[order[first]][nearer]
        closest[known[nearer]] = at + order[first][nearer]
    return labels, closest


def _as_given(centroids: Floats, move: Move, taking: Taking) -> Floats:
    """Centroids among the vectors as the user knows them."""
    if taking.geometry.metric == "hamming":
        return np.asarray((centroids + 1) / 2, np.float32)
    return move.back(centroids)


def _numbered(
    taking: Taking,
    labels: npt.NDArray[np.int32],
    closest: npt.NDArray[np.intp],
    centroids: Floats,
    converged: bool,
) -> Clusters:
    """Clusters by falling size (L2), rows by id."""
    counts = np.bincount(labels, minlength=len(centroids))
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    number = np.full(len(centroids), -1)
    number[order] = np.arange(len(order))
    ids = taking.ids(taking.slots)
    named = dict(zip(ids, number[labels].tolist(), strict=True))
    return Clusters(
        {id: named[id] for id in sorted(ids, key=in_order)},
        counts[order].astype(np.int64),
        [ids[at] for at in closest[order].tolist()],
        np.ascontiguousarray(centroids[order]),
        converged,
    )
