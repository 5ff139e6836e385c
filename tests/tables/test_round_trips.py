"""What goes out comes in equal, through every format that can hold it; the others refuse by name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.tables.rows import differences, even, fill, uneven
from vecdb import tables
from vecdb.errors import AlreadyExists, InvalidArgument

pytest.importorskip("pyarrow")

ROWS = 600


def through(way: str, source: vecdb.Collection, folder: Path) -> Any:
    """The rows of a collection as `way` holds them."""
    if way in ("jsonl", "csv", "parquet"):
        path = folder / f"rows.{way}"
        assert tables.write(source, path) == len(source)
        return tables.read(path)
    arrow = source.to_arrow()
    if way == "arrow":
        return arrow
    if way == "batches":
        return arrow.to_batches(max_chunksize=77)
    if way == "reader":
        return arrow.to_reader(max_chunksize=1)
    if way == "polars":
        return pytest.importorskip("polars").from_arrow(arrow)
    pandas = pytest.importorskip("pandas")
    if way == "pandas":  # as numpy holds it: ints with gaps become floats, so nullable types
        return arrow.to_pandas(types_mapper={**_nullable(pandas)}.get)
    return arrow.to_pandas(types_mapper=pandas.ArrowDtype)


def _nullable(pandas: Any) -> dict[Any, Any]:
    import pyarrow as pa

    return {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype(), pa.string(): pandas.StringDtype()}


WAYS = ["jsonl", "csv", "parquet", "arrow", "batches", "reader", "polars", "pandas", "pandas-arrow"]


# pandas' own types: a list of moments becomes an array without their zone, a missing float NaN
NOT_HELD = {"pandas": ["moments", "float"]}


def round_trip(way: str, n: int, folder: Path, dtype: str = "f32") -> list[str]:
    with vecdb.open() as db:
        rows = [{k: v for k, v in row.items() if k not in NOT_HELD.get(way, [])} for row in even(n)]
        source = fill(db, "source", rows, [f"row-{i}" for i in range(n)], dtype)
        back = db.create_collection("back", dim=source.schema.dim, dtype=dtype)
        assert back.add_table(through(way, source, folder), text="text") == n
        return differences(source, back, exact=way in ("jsonl", "csv"))


@pytest.mark.parametrize("way", WAYS)
def test_every_type_of_metadata_comes_back_equal(way: str, tmp_path: Path) -> None:
    assert round_trip(way, ROWS, tmp_path) == []


@pytest.mark.parametrize("way", WAYS)
def test_half_precision_comes_back_bit_for_bit(way: str, tmp_path: Path) -> None:
    assert round_trip(way, 60, tmp_path, "f16") == []


@pytest.mark.parametrize("way", list(NOT_HELD))
def test_what_a_format_has_lost_is_refused_by_name(way: str, tmp_path: Path) -> None:
    with vecdb.open() as db:
        source = fill(db, "source", even(9), list(range(9)))
        back = db.create_collection("back", dim=source.schema.dim)
        with pytest.raises(InvalidArgument, match=r"row \d: field 'moments\[0\]'.*without a time zone"):
            back.add_table(through(way, source, tmp_path), text="text")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_ten_thousand_rows_come_back_equal(way: str, tmp_path: Path) -> None:
    assert round_trip(way, 10_000, tmp_path) == []


@pytest.mark.parametrize("way", ["jsonl", "csv"])
def test_text_formats_hold_any_mixture(way: str, tmp_path: Path) -> None:
    """Fields of all types at once, None beside missing, ids of both kinds, dicts that look like marks."""
    ids: list[Any] = [i if i % 2 else str(i - 1) for i in range(ROWS)]
    with vecdb.open() as db:
        source = fill(db, "source", uneven(ROWS), ids)
        back = db.create_collection("back", dim=source.schema.dim)
        back.add_table(through(way, source, tmp_path), text="text")
        assert differences(source, back) == []


def can_store(field: vecdb.Vector) -> bool:
    """Whether this version has a graph over vectors of this dtype."""
    with vecdb.open() as db:
        try:
            made = db.create_collection("c", vectors={"v": field})
            made.add(["a"], {"v": [np.ones((1, field.dim) if field.multi else field.dim, np.int8)]})
        except (KeyError, InvalidArgument):
            return False
    return True


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_vector_field_comes_back(way: str, tmp_path: Path) -> None:
    """Several fields, each dtype, gaps in each, and many vectors a row; no column is named."""
    fields = {
        "plot": vecdb.Vector(3), "poster": vecdb.Vector(2, metric="l2", dtype="f16"),
        "code": vecdb.Vector(4, metric="dot", dtype="i8"), "bits": vecdb.Vector(12, metric="hamming", dtype="b1"),
        "tokens": vecdb.Vector(2, multi=True),
    }  # fmt: skip
    fields = {name: field for name, field in fields.items() if can_store(field)}
    rng = np.random.default_rng(0)
    n = 40
    given: dict[str, list[Any]] = {
        "plot": list(rng.normal(size=(n, 3))), "poster": list(rng.normal(size=(n, 2))),
        "code": list(rng.integers(-128, 128, (n, 4), np.int8)), "bits": list(rng.integers(0, 2, (n, 12))),
        "tokens": [rng.normal(size=(i % 4 + 1, 2)) for i in range(n)],
    }  # fmt: skip
    given = {name: given[name] for name in fields}
    for number, name in enumerate(given):
        given[name] = [None if i % 5 == number else each for i, each in enumerate(given[name])]
    with vecdb.open() as db:
        source = db.create_collection("source", vectors=fields)
        source.add(list(range(n)), given, metadata=[{"n": i} for i in range(n)])
        back = db.create_collection("back", vectors=fields)
        assert back.add_table(through(way, source, tmp_path), batch_size=7) == n
        assert list(source) == list(back)
        for row, other in zip(source, back, strict=True):
            assert [v.dtype for v in row.vectors.values()] == [v.dtype for v in other.vectors.values()]


def test_fields_take_their_columns_from_a_mapping() -> None:
    with vecdb.open() as db:
        fields = {"a": vecdb.Vector(2), "b": vecdb.Vector(3)}
        c = db.create_collection("c", vectors=fields)
        row = {"id": 1, "x": [1, 0], "y": [1, 0, 0], "a": "kept"}
        c.add_table([row], vector={"a": "x", "b": "y"})
        assert set(c[1].vectors) == {"a", "b"} and c[1].metadata == {"a": "kept"}
        with pytest.raises(InvalidArgument, match="'a', 'b'.*{field: column}"):
            c.add_table([row], vector="x")
        with pytest.raises(InvalidArgument, match="metadata key 'a' has the name"):
            c.to_arrow()


def test_a_column_of_two_types_is_refused_by_name(tmp_path: Path) -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add(["a", "b", "d"], [[1, 0]] * 3, metadata=[{"year": 1999}, {}, {"year": "old"}])
        with pytest.raises(InvalidArgument, match=r"'year': row 2 has a str, row 0 an int"):
            c.to_arrow()
        with pytest.raises(InvalidArgument, match=r"'year': row 2 has a str, row 0 an int"):
            tables.write(c, tmp_path / "c.parquet")
        assert list(tmp_path.iterdir()) == []
        assert c.to_arrow("year is null or year == 1999").num_rows == 2


@pytest.mark.parametrize(
    ("first", "second", "column"),
    [
        ({"x": [1]}, {"x": ["a"]}, r"x\[\]"),
        ({"x": {"y": 1}}, {"x": {"y": True}}, r"x\.y"),
        ({"x": {"y": 1}}, {"x": 1}, "x"),
        ({"x": datetime(2020, 1, 1, tzinfo=UTC)}, {"x": 1.5}, "x"),
        ({"x": 2**53 + 1}, {"x": 0.5}, "x"),
        ({"x": 0.5}, {"x": [2**53 + 1]}, "x"),
    ],
)
def test_what_is_refused_names_the_place(first: Any, second: Any, column: str) -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add(["a", "b"], metadata=[first, second])
        with pytest.raises(InvalidArgument, match=f"'{column}'"):
            c.to_arrow()


def test_ints_among_floats_become_floats_where_exact() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add(["a", "b"], metadata=[{"x": 2**53}, {"x": 0.5}])
        assert c.to_arrow()["x"].to_pylist() == [2.0**53, 0.5]


def test_a_key_with_the_name_of_another_column_is_refused(tmp_path: Path) -> None:
    with vecdb.open() as db:
        for key in ("id", "text", "vector"):
            c = db.create_collection(key, dim=2)
            c.add(["a"], [[1, 0]], texts=["t"], metadata=[{key: 1}])
            with pytest.raises(InvalidArgument, match=f"metadata key '{key}'"):
                c.to_arrow()
            for suffix in ("jsonl", "csv", "parquet"):
                with pytest.raises(InvalidArgument, match=f"metadata key '{key}'"):
                    tables.write(c, tmp_path / f"{key}.{suffix}")
        assert tables.write(db["text"], tmp_path / "other.csv", text="body") == 1
        back = db.create_collection("back", dim=2)
        back.add_table(tables.read(tmp_path / "other.csv"), text="body")
        assert differences(db["text"], back) == []


def test_empty_dicts_are_more_than_parquet_holds(tmp_path: Path) -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add(["a"], metadata=[{"x": {"y": {}}}])
        assert c.to_arrow()["x"].to_pylist() == [{"y": {}}]
        with pytest.raises(InvalidArgument, match=r"'x\.y'.*Parquet"):
            tables.write(c, tmp_path / "c.parquet")


def test_a_collection_without_rows_makes_a_table_without_rows(tmp_path: Path) -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        assert c.to_arrow().num_rows == 0
        for suffix in ("jsonl", "csv", "parquet"):
            assert tables.write(c, tmp_path / f"c.{suffix}") == 0
            assert c.add_table(tables.read(tmp_path / f"c.{suffix}")) == 0


def test_a_file_that_exists_is_not_replaced_and_half_a_file_is_none(tmp_path: Path) -> None:
    there = tmp_path / "c.jsonl"
    there.write_text("mine")
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add(["a", "b"], [[1, 0]] * 2, metadata=[{}, {"id": 1}])
        with pytest.raises(AlreadyExists, match="exists"):
            tables.write(c, there)
        with pytest.raises(InvalidArgument):
            tables.write(c, tmp_path / "d.jsonl")
    assert there.read_text() == "mine" and list(tmp_path.iterdir()) == [there]
