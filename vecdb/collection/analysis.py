"""How does a user look at a collection as a whole? histogram, duplicates, clusters, predict.

How it is done is vecdb/analysis' business, which is imported when first needed.

Invariants:
  N1  an answer is of one commit, or of this thread's open transaction, however long it takes;
  N2  what is wrong with the arguments is said before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, overload

import numpy as np

from vecdb.collection.handle import Where, refuse
from vecdb.collection.search import SearchVerbs
from vecdb.collection.write import WriteVerbs
from vecdb.errors import NotFound, ReadOnly
from vecdb.progress import reporter, stopper

if TYPE_CHECKING:
    import threading

    from vecdb.analysis.clusters import Clusters
    from vecdb.analysis.histogram import Histogram
    from vecdb.analysis.predict import Prediction
    from vecdb.analysis.taking import Taking
    from vecdb.query.filter import Filter
    from vecdb.storage.schema import Schema, VectorField
    from vecdb.types import Id

Progress = bool | Callable[[int, int | None], object]
STORED: Final = 2000  # labels that one commit writes
FURTHEST: Final = 1e39  # beyond every distance of float32 vectors


class AnalysisVerbs(SearchVerbs):
    """The verbs that look at all rows, or at what the neighbours have."""

    __slots__ = ()

    def histogram(
        self, field: str, where: Where | None = None, bins: int | str = 20
    ) -> Histogram:
        """Return how the numbers, or the datetimes, of a metadata field are spread over bins.

        `bins`: a number of equally wide ones, from 1 to 10,000, from the least value to the largest;
        or "day", "month" or "year" in UTC, for datetimes. A bin has its lower edge and what lies
        below its upper one; the last has both. A field that holds numbers and datetimes is counted by
        its numbers, or with a word by its datetimes. Rows with NaN or infinity are `.nonfinite`, those
        with another value or none `.missing`. Counted from the index, at the cost of one range filter a
        bin; reads no row. InvalidArgument, FilterError.

        >>> import vecdb
        >>> from datetime import UTC, datetime
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> days = [datetime(2020, 1, 31, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC)]
        >>> _ = c.add([1, 2, 3], metadata=[{"n": 1, "t": days[0]}, {"n": 2.5, "t": days[1]}, {"n": 9}])
        >>> c.histogram("n", bins=2).counts.tolist(), c.histogram("n", bins=2).edges.tolist()
        ([2, 1], [1.0, 5.0, 9.0])
        >>> c.histogram("t", bins="month")
        Histogram of 't' by month: 2 rows in 3 bins, 1 without
          2020-01  1  ########################################
          2020-02  0
          2020-03  1  ########################################
        """
        from vecdb.analysis import histogram

        if not isinstance(field, str) or not field:
            refuse(f"field={field!r:.60}: give the name of a metadata field")
        by = histogram.checked_bins(bins)
        self._need_values(field, "histogram", "go through the rows with scan() and count")
        chosen = self._chosen(where)
        with self._reading() as (txn, view):
            matches = self._matches(txn, view)
            found = view.live if chosen is None else matches(chosen)
            fieldid = view.names.get(field)
            if fieldid is None:
                return histogram.nothing(field, by, len(found))
            reader = self._follower().attributes.reader
            values = histogram.Values(
                field, fieldid, lambda: reader(txn), view.tail, found, matches
            )
            return histogram.histogram(values, by)

    def duplicates(
        self,
        max_distance: float = 0.05,
        *,
        using: str | None = None,
        where: Where | None = None,
        progress: Progress = False,
        cancel: Callable[[], bool] | threading.Event | None = None,
    ) -> list[list[Id]]:
        """Return the groups of rows that are nearly the same, as lists of ids.

        Rows at most `max_distance` apart are in one group, and so is what hangs together by such
        pairs. Rows of a group in the order of ids, the largest group first, ties by the first id. The
        distance is the metric's (under dot, where distances are negative, choose it accordingly), of
        stored vectors in float64. `using`: the vector field, where there are several.

        Exact where it costs less to compare each row with each (some ten thousand rows); else each row
        looks for its nearest in the graph, on all threads, and again where more rows than it saw may be
        as near: 62,666 rows of 384 dimensions take seconds, and nearly all pairs are found. Reads as of
        one commit. Memory: the vectors that are compared, as float32. `progress` and `cancel` as in
        `add_table`; cancelled, it returns the groups found so far. InvalidArgument, FilterError.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b", "c", "d"], [[1, 0], [0, 1], [1, 0.01], [1, 1]])
        >>> c.duplicates()
        [['a', 'c']]
        >>> c.duplicates(0.3)
        [['a', 'b', 'c', 'd']]
        """
        from vecdb.analysis.duplicates import duplicates

        limit = self._limit(max_distance, using)
        stopped, chosen = stopper(cancel), self._chosen(where)
        with reporter(progress, "duplicates") as report, self._reading() as (txn, view):
            return duplicates(self._taking(txn, view, using, chosen), limit, report, stopped)

    def clusters(
        self,
        k: int | None = None,
        *,
        using: str | None = None,
        where: Where | None = None,
        store: str | None = None,
        seed: int = 0,
        progress: Progress = False,
        cancel: Callable[[], bool] | threading.Event | None = None,
    ) -> Clusters:
        """Return the rows in `k` groups of similar vectors: labels, sizes, medoids and centroids.

        k-means, by direction under cosine, else by Euclidean distance; seeded by k-means++ from
        `seed`, so that the same file gives the same answer. Where rows have fewer than `k` different
        vectors there are fewer clusters. `k=None`: of 2 to √n the k with the best mean silhouette
        (simplified: by distances to the nearest two centroids) among 2,048 rows that centroids of
        2,048 other rows were not trained on. Trained on at most 65,536 rows, or 64 a cluster, drawn at
        random; all rows are labelled. `using`: the vector field, where there are several.

        `store`: a metadata field that the labels are written to, 2,000 rows a commit, or all in this
        thread's open transaction; rows that are gone by then are left out, and rows that took no part
        keep what they have. ReadOnly in a snapshot. Memory: the rows trained on, as float32.
        `progress` and `cancel` as in `add_table`; cancelled, it labels rows by the centroids so far and
        stores nothing more. InvalidArgument, FilterError, SchemaError where `store` is declared to hold
        something else than ints.

        >>> import vecdb
        >>> from vecdb import F
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b", "c"], [[1, 0], [9, 1], [0, 1]])
        >>> c.clusters(2, store="topic")
        Clusters(2 of 3 rows): number, rows, medoid
          0.  2  'a'
          1.  1  'c'
        >>> c.count(F.topic == 0), c["c"].metadata
        (2, {'topic': 1})
        """
        from vecdb.analysis.clusters import clusters

        k = None if k is None else _whole("k", k, "from 1, or None", 1)
        seed = _whole("seed", seed, "from 0", 0)
        if store is not None:
            self._check_store(store)
        self._compared(self.schema, using)
        stopped, chosen = stopper(cancel), self._chosen(where)
        with reporter(progress, "clusters") as report:
            with self._reading() as (txn, view):
                taking = self._taking(txn, view, using, chosen)
                if k is not None and k > max(1, len(taking)):
                    refuse(
                        f"k={k}: {len(taking):,} rows take part; give at most as many, or None for a "
                        "number that suits them"
                    )
                found = clusters(taking, k, seed, report, stopped)
            if store is not None:
                self._store(store, found.labels, stopped)
        return found

    @overload
    def predict(
        self, query: str, field: str, k: int = 10, *, where: Where | None = None,
        using: str | None = None, recall: float = 0.95, exact: bool = False, method: str = "auto",
    ) -> Prediction: ...  # fmt: skip
    @overload
    def predict(
        self, query: Any, field: str, k: int = 10, *, where: Where | None = None,
        using: str | None = None, recall: float = 0.95, exact: bool = False, method: str = "auto",
    ) -> Any: ...  # fmt: skip
    def predict(
        self,
        query: Any,
        field: str,
        k: int = 10,
        *,
        where: Where | None = None,
        using: str | None = None,
        recall: float = 0.95,
        exact: bool = False,
        method: str = "auto",
    ) -> Any:
        """Return what a query's value of a metadata field would be, as the `k` nearest rows have theirs.

        `query` as in `search`: one → Prediction, several → list[Prediction]. Each neighbour votes with
        its score as weight, a negative one with 0 (all alike where every weight is 0). `.value` is the
        value with the most votes, ties by the nearest; `.confidence` its share of them; `.votes` {value:
        weight}, falling. Each element of a list has the row's whole vote; dicts have none. `method`:
        "vote"; "mean": the weighted mean of the numbers, with their weighted standard deviation as
        `.spread`; "auto": mean where the neighbours' values are numbers and at least one is a float.
        Only rows that have the field are asked. `where`, `using`, `recall` and `exact` as in `search`,
        which it costs. InvalidArgument, FilterError.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add([1, 2, 3], [[1, 0], [1, 0.1], [0, 1]], metadata=[{"s": "x", "n": 1.5}, {"s": "x"},
        ...           {"s": "y", "n": 2.5}])
        >>> found = c.predict([1, 0], "s", k=2)
        >>> found.value, found.confidence, list(found.votes), found.hits.ids
        ('x', 1.0, ['x'], [1, 2])
        >>> [each.value for each in c.predict([[1, 0], [1, 1]], "n")]
        [1.5, 2.0]
        """
        from vecdb.analysis.predict import checked_method, predict
        from vecdb.query import F

        if not isinstance(field, str) or not field:
            refuse(f"field={field!r:.60}: give the name of a metadata field")
        way = checked_method(method)
        if k is None:
            refuse("k=None: give how many neighbours vote, a number from 1")
        has_one = F[field].exists()
        chosen = has_one if where is None else self._filter(where) & has_one
        found = self.search(query, k, where=chosen, using=using, recall=recall, exact=exact)
        if isinstance(found, list):
            return [predict(hits, field, way) for hits in found]
        return predict(found, field, way)

    # --- behind the verbs ----------------------------------------------------------------

    def _taking(self, txn: Any, view: Any, using: Any, chosen: Filter | None) -> Taking:
        """The rows that take part, in a view."""
        from vecdb.analysis.taking import taking

        name, declared = self._compared(view.schema, using)
        return taking(self._context(txn, view, name, declared, chosen), chosen)

    def _compared(self, schema: Schema, using: Any) -> tuple[str, VectorField]:
        """The vector field that rows are compared by, and its name."""
        declared = self._using(schema, using, graph=True)
        name = next(n for n, each in schema.vectors.items() if each is declared)
        if declared.multi or declared.sparse:
            refuse(
                f"using={name!r}: rows are compared by one dense vector each; this field has "
                f"{'many a row' if declared.multi else 'sparse ones'}"
            )
        return name, declared

    def _limit(self, max_distance: Any, using: Any) -> float:
        """A largest distance that can be one under the field's metric."""
        _, declared = self._compared(self.schema, using)
        is_number = isinstance(max_distance, int | float | np.integer | np.floating)
        if not is_number or isinstance(max_distance, bool) or max_distance != max_distance:
            refuse(f"max_distance={max_distance!r:.40}: give the largest distance, a number")
        if max_distance < 0 and declared.metric != "dot":
            refuse(
                f"max_distance={max_distance!r:.40}: distances under metric={declared.metric!r} are "
                "from 0 on; give a number from 0"
            )
        return float(max(-FURTHEST, min(FURTHEST, max_distance)))

    def _check_store(self, field: Any) -> None:
        """Refuse a field that labels cannot be written to, before they are worked out."""
        if not isinstance(field, str) or not field:
            refuse(f"store={field!r:.60}: give the name of a metadata field, or None")
        if not isinstance(self, WriteVerbs):
            raise ReadOnly(
                f"store={field!r:.60}: a snapshot only reads; cluster db[{self.name!r}], or write "
                "`.labels` there"
            )
        self._declared.check({field: 0}, f"store={field!r:.60}")
        self._db._needs_writing()

    def _store(self, field: str, labels: dict[Id, int], stopped: Callable[[], bool]) -> None:
        """Write labels as metadata, a batch of rows a commit, or into the open transaction."""
        rows: Any = self  # a collection that writes, as _check_store has made sure
        ids = list(labels)
        for at in range(0, len(ids), STORED):
            if stopped():
                return
            part = ids[at : at + STORED]
            while part:
                try:
                    rows.update(part, metadata=[{field: labels[id]} for id in part])
                    break
                except NotFound:  # deleted since, by somebody else
                    part = [id for id in part if id in rows]


def _whole(name: str, value: Any, what: str, least: int) -> int:
    """An int that an option is."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        refuse(f"{name}={value!r:.40}: give an int {what}")
    return int(value.__index__())
