"""Hits as people and tables see them: repr, HTML, pandas, Arrow."""

from __future__ import annotations

import copy
import pickle
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.errors import InvalidArgument

MOMENT = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def hits() -> Any:
    c = vecdb.open().create_collection("c", dim=2, metric="l2")
    c.add(["<i>", 2], [[1, 0], [0, 1]], texts=["<script>alert(1)</script>", "two\nlines"])
    c.update("<i>", metadata={"n": 1, "tags": ["x"], "at": MOMENT, "deep": {"a": 1}})
    c.add([3], [[5, 5]], metadata=[{"score": 7, "n": 2**60 + 1}])
    return c.search([1, 0], k=3)


def test_the_repr_shows_rank_score_id_and_text(hits: Any) -> None:
    assert repr(hits).splitlines() == [
        "Hits(3, exact scan)",
        "  1.  1.0000  '<i>'  <script>alert(1)</script>",
        "  2.  0.4142  2      two lines",
        "  3.  0.1351  3      {'score': 7, 'n': 1152921504606846977}",
    ]


def test_the_repr_of_many_and_of_none() -> None:
    c = vecdb.open().create_collection("c", dim=2)
    assert repr(c.search([1, 0])).startswith("Hits(0, ")
    c.add([*range(30)], [[1, 0]] * 30)
    assert repr(c.search([1, 0], k=25)).splitlines()[-1] == "  ... 15 more"
    assert c.search([1, 0], k=25)._repr_html_().count("<tr>") == 26


def test_html_shows_stored_text_and_never_runs_it(hits: Any) -> None:
    html = hits._repr_html_()
    assert "<script" not in html and "<i>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "two lines" in html


@pytest.mark.skipif(find_spec("pandas") is None, reason="pandas is not installed")
def test_pandas_has_a_column_for_each_field_with_the_values_as_they_are(hits: Any) -> None:
    frame = hits.to_pandas()
    columns = ["id", "score", "distance", "text", "n", "tags", "at", "deep", "metadata.score"]
    assert list(frame.columns) == columns
    assert frame["id"].tolist() == ["<i>", 2, 3] and frame["distance"].tolist() == hits.distances.tolist()
    assert frame["n"].dtype == "Int64" and frame["n"][0] == 1 and frame["n"][2] == 2**60 + 1
    assert frame["tags"][0] == ["x"] and frame["at"][0] == MOMENT and frame["metadata.score"][2] == 7
    empty = vecdb.open().create_collection("c", dim=2).search([1, 0]).to_pandas()
    assert list(empty.columns) == ["id", "score", "distance", "text"] and len(empty) == 0


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_arrow_has_the_same_columns() -> None:
    pytest.importorskip("vecdb.tables.arrow")
    c = vecdb.open().create_collection("c", dim=2)
    c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999, "in": {"x": 1.5}}, {"year": 2**53 + 1}])
    found = c.search([1, 0.1])
    table = found.to_arrow()
    assert table.column_names[:3] == ["id", "score", "distance"]
    assert table.column("year").to_pylist() == [1999, 2**53 + 1]
    assert table.column("in").to_pylist() == [{"x": 1.5}, None]
    assert np.allclose(table.column("score").to_pylist(), found.scores)


def test_without_pandas_the_error_says_what_to_install(hits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InvalidArgument, match=r"vecdb-engine\[pandas\]"):
        hits.to_pandas()


def test_hits_of_every_query_object_travel_to_other_processes() -> None:
    from vecdb.query import Context, Decay, Fuse, Late, Like, Near, Rerank, Sparse, Text

    vectors = {"v": vecdb.Vector(2), "sp": vecdb.SparseVector(), "many": vecdb.Vector(2, multi=True)}
    c = vecdb.open().create_collection("c", vectors=vectors, fulltext=["text", "title"])
    given = {"v": [[1, i] for i in range(9)], "sp": [{"a": 1.0 + i} for i in range(9)]}
    c.add(
        range(9), {**given, "many": [[[1, i]] for i in range(9)]}, texts=["kernel gpu"] * 9,
        metadata=[{"title": "a gpu", "g": i % 2} for i in range(9)],
    )  # fmt: skip
    near = Near([1, 0], using="v")
    queries = [
        near, Text("gpu"), near + Text("gpu") + Text("kernel"), Rerank(Text("gpu"), by=near), Sparse({"a": 1}),
        Rerank(near, by=lambda query, hits: [h.distance for h in hits]), Like([1], using="v"), Late([[1, 0]]),
        Context([(1, 2)], using="v"), Fuse(Text("gpu"), near, method="relative"),
    ]  # fmt: skip
    some: list[dict[str, Any]] = [{}, {"group_by": "g"}, {"boost": [Decay("g", 0, 1)]}, {"with_vectors": True}]
    for query in queries:
        for options in some:
            if "with_vectors" in options and query is not near:
                continue
            hits = c.search(query, 3, **options)
            there = pickle.loads(pickle.dumps(hits))
            assert there.ids == hits.ids and np.array_equal(there.scores, hits.scores)
            assert [h.highlights for h in there] == [h.highlights for h in hits]
            assert [repr(h.explain()) for h in there] == [repr(h.explain()) for h in hits]
            assert str(there.plan) == str(hits.plan)
            if "group_by" in options:
                assert repr(there.groups) == repr(hits.groups)
            assert [h.id for h in pickle.loads(pickle.dumps(list(hits)))] == hits.ids
            assert copy.deepcopy(hits).ids == hits.ids
