"""Files of rows from elsewhere: what is understood, and which line is to blame when it is not."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import tables
from vecdb.errors import InvalidArgument, NotFound, VecdbError


def rows_of(path: Path, text: str | bytes, **options: Any) -> list[dict[str, Any]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(tables.read(path, **options))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,x\n", [{"a": 1, "b": "x"}]),
        ("\ufeffa,b\r\n1.50,x\r\n\r\n,\r\n", [{"a": 1.5, "b": "x"}, {}]),
        ('a\n"1"\n"""1"""\n007\n"1,5"\n+1\n1_000\n .5\nNaN\nTrue\ntrue\nnull\n""""""\n', [
            {"a": v} for v in (1, "1", "007", "1,5", "+1", "1_000", " .5", "NaN", "True", True, None, "")
        ]),
        ('a\n"[1, ""x""]"\n[1\n"{""$float"": ""inf""}"\n"{""x"": 1}"\n', [
            {"a": [1, "x"]}, {"a": "[1"}, {"a": float("inf")}, {"a": {"x": 1}},
        ]),
        ('a\n"two\nlines"\n', [{"a": "two\nlines"}]),
    ],
)  # fmt: skip
def test_csv_cells(tmp_path: Path, text: str, expected: list[Any]) -> None:
    assert rows_of(tmp_path / "a.csv", text) == expected


def test_csv_as_strings(tmp_path: Path) -> None:
    text = 'id,zip,vector,n\n007,12345,"[1, 2]",\n'
    found = rows_of(tmp_path / "a.csv", text, strings=True)
    assert found == [{"id": "007", "zip": "12345", "vector": [1, 2]}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b\n1,2\n1\n", "a.csv: line 3 has 1 cells, the header 2"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv: line 3 has 3 cells"),
        ("a.csv", "a,a\n", "a.csv: line 1: two columns are named 'a'"),
        ("a.csv", 'a\n"x\n', "a.csv: line 2"),
        ("a.csv", 'a\n"x"y\n', "a.csv: line 2"),
        ("a.csv", b"a\nx\n\xff\n", "a.csv: line .* no UTF-8"),
        ("a.csv", 'a,b\n1,2\n3,"{""$datetime"": 1}"\n', "a.csv: line 3: column 'b': .datetime is an ISO"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl: line 2 is no JSON"),
        ("a.jsonl", '{"a": 1}\n\n[1]\n', "a.jsonl: line 3 is a list, not an object"),
        ("a.jsonl", '{"a": 1, "a": 2}\n', "a.jsonl: line 1 .*'a' is there twice"),
        ("a.jsonl", '{"a": {"$float": "many"}}\n', "a.jsonl: line 1: 'a': .float is one of"),
        ("a.jsonl", '{"a": {"$literal": 1}}\n', "a.jsonl: line 1: 'a': .literal holds an object"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "a.jsonl: line .* no UTF-8"),
        ("a.jsonl", '{"a": ' + "[" * 100_000 + "\n", "a.jsonl: line 1"),
        ("a.parquet", "no parquet", "a.parquet cannot be read as Parquet"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(InvalidArgument, match=message):
        rows_of(tmp_path / name, text)


def test_marks_of_others_are_dicts(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "a.jsonl", '{"a": {"$date": 1}, "b": NaN, "c": {"$float": "nan", "d": 1}}\n')
    assert found[0]["a"] == {"$date": 1} and found[0]["b"] != found[0]["b"]
    assert found[0]["c"] == {"$float": "nan", "d": 1}


def test_columns_rows_and_dimension_are_known_beforehand(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with vecdb.open() as db:
        c = db.create_collection("c", dim=3)
        c.add(["a", "b"], [[1, 0, 0]] * 2, metadata=[{"x": 1}, {"y": "z"}])
        for suffix in ("jsonl", "csv", "parquet"):
            tables.write(c, tmp_path / f"c.{suffix}")
            file = tables.read(tmp_path / f"c.{suffix}")
            assert file.columns == ["id", "vector", "x", "y"]
            assert file.dim("vector") == 3 and file.dim("x") is None and file.dim("no") is None
            assert file.rows == (2 if suffix == "parquet" else None)


def test_names_and_formats_are_checked(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file"):
        tables.read(tmp_path / "a.csv")
    with pytest.raises(InvalidArgument, match=r"\.jsonl, .*format="):
        tables.read(tmp_path / "a.data")
    with pytest.raises(InvalidArgument, match="format='xml'"):
        tables.read(tmp_path / "a.data", format="xml")
    with vecdb.open() as db:
        c = db.create_collection("c", dim=3)
        with pytest.raises(NotFound, match="no folder"):
            tables.write(c, tmp_path / "nowhere" / "a.csv")
        with pytest.raises(InvalidArgument, match="one name"):
            tables.write(c, tmp_path / "a.csv", id="text")
        with pytest.raises(VecdbError):
            tables.write(c, "/dev/full/x.csv")


def test_only_matching_rows_and_no_vectors(tmp_path: Path) -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add(list(range(2000)), np.arange(1, 4001).reshape(2000, 2), metadata=[{"n": i % 2} for i in range(2000)])
        told: list[Any] = []
        done = tables.write(
            c, tmp_path / "a.csv", where="n == 1", vectors=False, progress=lambda *a: told.append(a)
        )
        assert done == 1000 and told[-1] == (1000, 1000)
        assert (tmp_path / "a.csv").read_text().splitlines()[:2] == ["id,n", "1,1"]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    """Peak of Python's memory while reading ten times as many rows: the same, within a half."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    peaks = []
    with vecdb.open() as db:
        for n in (1_000, 10_000):
            c = db.create_collection(f"c{n}", dim=8)
            c.add(list(range(n)), metadata=[{"n": i, "t": "x" * 100} for i in range(n)])
            tables.write(c, tmp_path / f"{n}.{suffix}")
            tracemalloc.start()
            for _ in tables.read(tmp_path / f"{n}.{suffix}"):
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 200_000
