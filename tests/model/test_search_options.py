"""Random options over random rows, against a ranking by numpy: at a commit, in a transaction, prepared.

Vectors are of small ints, so that equal distances are frequent and rank by slot: by the order in which
rows came. What is approximate is held to what it promises: how many, which rows, how far.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from tests.deeds import distances
from vecdb import F

DIM = 3
number = st.integers(-4, 4)
vector = st.lists(number, min_size=DIM, max_size=DIM).filter(any)
row = st.tuples(st.integers(0, 60), st.none() | vector, st.fixed_dictionaries({"a": number, "b": number}))
writes = st.lists(st.tuples(st.sampled_from(["upsert", "upsert", "delete"]), st.lists(row, max_size=40)), max_size=4)
clause = st.sampled_from([F.a < 0, F.a == 2, F.b >= 1, F.b.isin([0, 3]), F.c.exists(), F.a.exists()])
wheres = st.none() | clause | st.builds(lambda x, y: x & ~y, clause, clause) | st.builds(lambda x, y: x | y, clause, clause)
options = st.fixed_dictionaries(
    {"k": st.none() | st.integers(1, 40), "offset": st.sampled_from([0, 0, 1, 5, 30, 1000]), "where": wheres},
    optional={
        "radius": st.one_of(st.integers(0, 9), st.floats(0, 12), st.just(float("inf"))),
        "ef": st.integers(1, 50),
        "recall": st.sampled_from([0.5, 0.95, np.float32(0.9), 1.0]),
        "with_vectors": st.booleans(),
    },
)  # fmt: skip


class Model:
    """The rows, in the order of their slots: a row that gets another vector comes last."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[Any, dict[str, Any]]] = {}

    def apply(self, c: vecdb.Collection, verb: str, given: list[Any]) -> None:
        unique = {id: (vector, metadata) for id, vector, metadata in given}
        if verb == "delete":
            c.delete(list(unique))
        elif unique:
            c.upsert(
                list(unique), [v for v, _ in unique.values()], metadata=[m for _, m in unique.values()]
            )
        for id, new in unique.items():
            if verb == "delete" or id in self.rows and self.rows[id][0] != new[0]:
                self.rows.pop(id, None)
            if verb == "upsert":
                self.rows[id] = new

    def ranked(self, metric: str, query: Any, how: dict[str, Any]) -> tuple[list[int], Any, int]:
        """Ids and distances that a complete search returns, and how many rows match."""
        where, k, offset = how["where"], how["k"], how["offset"]
        ids = [
            id for id, (v, m) in self.rows.items() if v is not None and (where is None or where.matches(m))
        ]
        if not ids:
            return [], np.empty(0), 0
        stored = np.array([self.rows[id][0] for id in ids], np.float32)
        all_distances = distances(metric, stored, np.array(query, np.float32)).astype(np.float32)
        order = np.argsort(all_distances, kind="stable")
        radius = how.get("radius")
        if radius is not None:
            order = order[all_distances[order] <= np.float32(radius)]
        page = order[offset : None if k is None else offset + k]
        return [ids[i] for i in page], all_distances[page], len(ids)


def check(c: vecdb.Collection, model: Model, metric: str, query: Any, how: dict[str, Any]) -> None:
    ids, expected, matches = model.ranked(metric, query, how)
    for ask in (c.search, lambda q, **how: c.prepare(**how)(q), lambda q, **how: c.search([q], **how)[0]):
        exact = ask(query, **how, exact=True)
        if metric == "cosine":  # rounding decides between near ties, and at the radius
            if "radius" not in how:
                np.testing.assert_allclose(exact.distances, expected, atol=2e-6)
        else:
            assert exact.ids == ids and np.allclose(exact.distances, expected, rtol=1e-6)
        hits = ask(query, **how)
        left = max(0, matches - how["offset"])
        if "radius" not in how:
            assert len(hits) == (left if how["k"] is None else min(how["k"], left))
        elif len(hits):
            assert hits.distances[-1] <= np.float32(how["radius"])
        assert len(set(hits.ids)) == len(hits) and hits.plan.matches == matches
        if how["k"] is None or how.get("recall") == 1.0 and "ef" not in how:
            assert hits.ids == exact.ids and hits.distances.tolist() == exact.distances.tolist()
        for hit in hits:
            stored, metadata = model.rows[hit.id]  # type: ignore[index]
            assert stored is not None and hit.metadata == metadata
            assert how["where"] is None or how["where"].matches(metadata)
            assert (hit.vector is not None) == how.get("with_vectors", False)


@settings(max_examples=120, deadline=None)
@given(
    metric=st.sampled_from(["l2", "dot", "cosine"]),
    before=writes, inside=writes, asked=st.lists(st.tuples(vector, options), min_size=1, max_size=4),
    keep=st.booleans(),
)  # fmt: skip
def test_options_cut_the_ranking_that_numpy_makes(
    metric: str, before: Any, inside: Any, asked: Any, keep: bool
) -> None:
    class Back(Exception):
        """Leaves the transaction without a trace."""

    with vecdb.open() as db:
        c, model = db.create_collection("c", DIM, metric=metric), Model()
        for verb, given in before:
            model.apply(c, verb, given)
        after = Model()
        after.rows = dict(model.rows)
        for query, how in asked:
            check(c, model, metric, query, how)
        with nullcontext() if keep else _expected(Back), db.transaction():
            for verb, given in inside:
                after.apply(c, verb, given)
                for query, how in asked[:2]:
                    check(c, after, metric, query, how)
            if not keep:
                raise Back
        for query, how in asked:
            check(c, after if keep else model, metric, query, how)


def _expected(error: type[Exception]) -> Any:
    import pytest

    return pytest.raises(error)
