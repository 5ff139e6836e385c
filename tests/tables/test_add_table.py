"""add_table: what becomes of a table's rows, columns and errors, whoever made it."""

from __future__ import annotations

import pickle
import threading
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.errors import AlreadyExists, InvalidArgument, ReadOnly, SchemaError, VecdbError


@pytest.fixture
def c() -> Any:
    with vecdb.open() as db:
        yield db.create_collection("c", dim=2)


def rows(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": i, "vector": [1.0, float(i)], "year": 1900 + i} for i in range(first, first + n)]


# --- rows ----------------------------------------------------------------------------------------


def test_rows_of_all_kinds_may_be_mixed(c: Any) -> None:
    table = [
        {"id": "both", "vector": [1, 0], "body": "a", "x": 1},
        {"id": "vector", "vector": np.array([0, 1], np.float32), "body": None},
        {"id": "text", "vector": None, "body": "b"},
        {"id": "neither", "x": None},
    ]
    assert c.add_table(table, text="body") == 4
    assert {r.id: (r.vector is not None, r.text, r.metadata) for r in c} == {
        "both": (True, "a", {"x": 1}), "vector": (True, None, {}), "text": (False, "b", {}),
        "neither": (False, None, {"x": None}),
    }  # fmt: skip


def test_a_text_without_a_vector_is_encoded_where_there_is_an_encoder() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", encoder="hashing")
        assert c.add_table([{"id": 1, "text": "whales"}, {"id": 2, "text": None}], text="text") == 2
        assert c[1].vector is not None and c[2].vector is None
        given = np.full(c.schema.dim, 0.5, np.float32)
        assert c.add_table([{"id": 3, "text": "whales", "vector": given}], text="text") == 1
        assert np.array_equal(c[3].vector, given)


def test_ids_are_made_up_on_request(c: Any) -> None:
    assert c.add_table(rows(3), id=None) == 3
    assert all(isinstance(r.id, str) and "id" in r.metadata for r in c)


def test_vectors_of_other_columns_and_none(c: Any) -> None:
    assert c.add_table([{"id": 1, "emb": [1, 2], "n": 1}], vector="emb") == 1
    assert c.add_table([{"id": 2, "emb": [1, 2]}], vector={"vector": "emb"}) == 1
    assert c.add_table([{"id": 3, "n": 1}], vector=None) == 1
    assert [r.vector is not None for r in c] == [True, True, False]


def test_a_dict_keeps_its_none_and_a_null_cell_is_left_out(c: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    c.add_table([{"id": 1, "a": None}], vector=None)
    c.add_table(pa.table({"id": [2], "a": pa.array([None], pa.int64())}), vector=None)
    assert [r.metadata for r in c] == [{"a": None}, {}]


# --- batches -------------------------------------------------------------------------------------


def test_each_batch_is_one_commit_and_progress_is_told(c: Any) -> None:
    told: list[Any] = []
    before = c.stats()["commit"]
    assert c.add_table(rows(25), batch_size=10, progress=lambda *a: told.append(a)) == 25
    assert told == [(10, 25), (20, 25), (25, 25)]
    assert c.stats()["commit"] - before == 3
    told.clear()
    c.add_table(iter(rows(5, 100)), progress=lambda *a: told.append(a))
    assert told == [(5, None)]


def test_batches_do_not_follow_the_pieces(c: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"id": list(range(100)), "vector": [[1.0, i] for i in range(100)]})
    before = c.stats()["commit"]
    assert c.add_table(table.to_batches(max_chunksize=7), batch_size=50) == 100
    assert c.stats()["commit"] - before == 2
    assert all(r.vector[1] == r.id for r in c)


def test_a_generator_without_end_is_read_batch_by_batch(c: Any) -> None:
    source = ({"id": i, "vector": [1.0, 1.0]} for i in count())
    assert c.add_table(source, cancel=lambda: len(c) >= 2000) == 2000 == len(c)
    assert next(source)["id"] == 3000  # the piece at hand, and no more


def test_cancel_by_an_event_keeps_what_was_committed(c: Any) -> None:
    stop = threading.Event()
    told = lambda done, total: stop.set() if done >= 20 else None  # noqa: E731
    assert c.add_table(rows(100), batch_size=10, progress=told, cancel=stop) == 20 == len(c)


# --- conflicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_id_that_exists_is_an_error_that_says_what_stays(c: Any, size: int) -> None:
    c.add(50, [1, 0])
    with pytest.raises(AlreadyExists, match=r"row 50: id 50 exists.*'skip'") as caught:
        c.add_table(rows(60), batch_size=size)
    stays = 50 // size * size
    assert caught.value.committed == stays and len(c) == stays + 1
    assert ("nothing was written" if not stays else f"{stays} rows of the table") in str(caught.value)
    assert c.add_table(rows(60), batch_size=size, on_conflict="skip") == 59 - stays


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_id_twice_in_the_table_is_the_same_error_in_any_batch(c: Any, size: int) -> None:
    with pytest.raises(AlreadyExists, match=r"row 60: id 3 "):
        c.add_table([*rows(60), *rows(1, 3)], batch_size=size)


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_replace_keeps_the_last_and_skip_the_first(c: Any, size: int) -> None:
    table = [{"id": i % 3, "vector": [1, i], "n": i} for i in range(9)]
    c.add_table(table, on_conflict="replace", batch_size=size)
    assert [r.metadata["n"] for r in c] == [6, 7, 8]
    assert c.add_table([{"id": i % 4, "vector": [1, i], "n": -i} for i in range(1, 9)], on_conflict="skip", batch_size=size) == 1
    assert [r.metadata["n"] for r in c] == [6, 7, 8, -3]


def test_skipped_texts_are_not_encoded() -> None:
    asked: list[str] = []

    def encode(texts: list[str]) -> Any:
        asked.extend(texts)
        return np.ones((len(texts), 2), np.float32)

    with vecdb.open() as db:
        c = db.create_collection("c", encoder=vecdb.encoders.function(encode, name="f", dim=2))
        c.add([1], texts=["old"])
        asked.clear()
        assert c.add_table([{"id": 1, "t": "a"}, {"id": 2, "t": "b"}], text="t", on_conflict="skip") == 1
        assert asked == ["b"] and c[1].text == "old"


def test_1_and_the_text_1_are_two_ids(c: Any) -> None:
    assert c.add_table([{"id": 1, "vector": [1, 0]}, {"id": "1", "vector": [1, 0]}]) == 2


# --- errors --------------------------------------------------------------------------------------

BAD_ROW = [
    ("row 12: .*NaN", {"vector": [float("nan"), 1]}),
    ("row 12: a zero vector", {"vector": [0, 0]}),
    ("row 12 has 3 numbers", {"vector": [1, 2, 3]}),
    ("row 12 holds a str", {"vector": "near"}),
    ("row 12 .*real numbers", {"vector": ["a", "b"]}),
    ("row 12 .*real numbers", {"vector": [None, 1.0]}),
    ("row 12 has no id in column 'id'", {"id": None}),
    ("row 12 has 1.5, a float", {"id": 1.5}),
    ("row 12 has True, a bool", {"id": True}),
    ("row 12: .*empty|row 12: .*480|row 12.*id", {"id": ""}),
    (r"row 12: field 'year' is a set", {"year": {1}}),
    (r"row 12: field 'year' is the datetime", {"year": datetime(2020, 1, 1)}),
    ("row 12: bytes where a str", {"body": b"x"}),
]


@pytest.mark.parametrize(("message", "change"), BAD_ROW)
@pytest.mark.parametrize("size", [5, 1000])
def test_a_bad_row_is_named_by_its_place_in_the_table(c: Any, message: str, change: dict[str, Any], size: int) -> None:
    """Also beside rows of other kinds, whose writes are calls of their own."""
    table = [{**row, "body": "t" if row["id"] % 2 else None} for row in rows(20)]
    table[7]["vector"] = table[3]["vector"] = None
    table[12] |= change
    with pytest.raises(InvalidArgument, match=message) as caught:
        c.add_table(table, text="body", batch_size=size)
    assert caught.value.committed == len(c) == 12 // size * size
    assert ("10 rows of the table were committed" in str(caught.value)) is (size == 5)
    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == str(caught.value)


@pytest.mark.parametrize("mode", ["error", "skip", "replace"])
def test_bad_ids_are_named_in_every_mode(c: Any, mode: str) -> None:
    table = rows(20)
    table[13]["id"] = "x" * 481
    with pytest.raises(InvalidArgument, match="row 13: ") as caught:
        c.add_table(table, batch_size=5, on_conflict=mode)
    assert caught.value.committed == len(c) == 10


def test_a_contradiction_of_a_declaration_is_named() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2, fields={"year": int})
        table = [*rows(12), {"id": 12, "vector": [1, 0], "year": "old"}]
        with pytest.raises(SchemaError, match="row 12: field 'year'.*10 rows of the table") as caught:
            c.add_table(table, batch_size=5)
        assert caught.value.committed == len(c) == 10


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("no id column 'key'; there are 'id', 'vector', 'year'; id=None", {"id": "key"}),
        ("no text column 'body'", {"text": "body"}),
        ("no vector column 'emb'", {"vector": "emb"}),
        ("fields 'vector'", {"vector": {"poster": "emb"}}),
        ("asked for twice", {"id": "year", "text": "year"}),
        ("on_conflict='ignore'", {"on_conflict": "ignore"}),
        ("batch_size=0", {"batch_size": 0}),
        ("batch_size=True", {"batch_size": True}),
        ("id=3", {"id": 3}),
        ("vector=3", {"vector": 3}),
        ("progress is", {"progress": 3}),
        ("cancel is", {"cancel": 3}),
    ],
)
def test_bad_arguments_are_named(c: Any, message: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=message):
        c.add_table(rows(3), **arguments)
    assert len(c) == 0


@pytest.mark.parametrize("table", [None, 3, "rows.csv", b"", {"id": [1]}, [1], [[1]], ["a"], [None]])
def test_what_is_no_table_is_refused(c: Any, table: Any) -> None:
    with pytest.raises(InvalidArgument, match="table"):
        c.add_table(table)


def test_errors_of_the_producer_pass_with_a_note(c: Any) -> None:
    def failing() -> Any:
        yield from rows(1500)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        c.add_table(failing())
    assert len(c) == 1000 and "1,000 rows of the table were committed" in caught.value.__notes__[0]


def test_not_inside_a_transaction_and_not_in_a_file_that_is_only_read(tmp_path: Any) -> None:
    with vecdb.open(tmp_path / "a.vecdb") as db:
        c = db.create_collection("c", dim=2)
        with pytest.raises(InvalidArgument, match="inside a transaction"), db.transaction():
            c.add_table(rows(1))
    with vecdb.open(tmp_path / "a.vecdb", mode="r") as db, pytest.raises(ReadOnly):
        db["c"].add_table(rows(1))


def test_committed_is_none_elsewhere() -> None:
    assert VecdbError("x").committed is None


# --- DataFrames ----------------------------------------------------------------------------------


def test_pandas_cells(c: Any) -> None:
    """NaN in a float column is a number; None, NA, NaT and a text's NaN are missing."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "vector": [[1.0, 2.0], np.array([3.0, 4.0]), None],
            "f": [1.5, float("nan"), 2.0],
            "i": pd.array([1, None, 3], dtype="Int64"),
            "s": ["a", None, float("nan")],
            "w": pd.to_datetime(["2020-01-01T00:00Z", None, "2021-01-01T00:00Z"]),
            "k": pd.Categorical(["x", "y", None]),
            "l": [np.array([1, 2]), ["a"], None],
        },
        index=pd.Index(["p", "q", "r"], name="id"),
    )
    assert c.add_table(frame) == 3
    p, q, r = (c[id].metadata for id in "pqr")
    assert p == {"f": 1.5, "i": 1, "s": "a", "w": datetime(2020, 1, 1, tzinfo=UTC), "k": "x", "l": [1, 2]}
    assert q.pop("f") != q.get("f") and q == {"k": "y", "l": ["a"]}
    assert r == {"f": 2.0, "i": 3, "w": datetime(2021, 1, 1, tzinfo=UTC)}
    assert c["r"].vector is None and c["q"].vector.tolist() == [3.0, 4.0]


def test_pandas_refusals_name_the_column(c: Any) -> None:
    pd = pytest.importorskip("pandas")
    naive = pd.DataFrame({"id": [1], "w": pd.to_datetime(["2020-01-01"])})
    with pytest.raises(InvalidArgument, match=r"'w'.*tz_localize"):
        c.add_table(naive, vector=None)
    fine = pd.DataFrame({"id": [1, 2], "w": pd.to_datetime([0, 1], utc=True, unit="ns")})
    with pytest.raises(InvalidArgument, match=r"'w': row 1 has nanoseconds"):
        c.add_table(fine, vector=None)
    with pytest.raises(InvalidArgument, match="named by a int"):
        c.add_table(pd.DataFrame({0: [1]}), vector=None)
    with pytest.raises(InvalidArgument, match="row 0: field 'd' is a"):
        c.add_table(pd.DataFrame({"id": [1], "d": [pd.Timedelta(1)]}), vector=None)


def test_polars_cells(c: Any) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(
        {
            "id": ["p", "q"], "vector": pl.Series([[1.0, 2.0], None], dtype=pl.Array(pl.Float32, 2)),
            "k": pl.Series(["x", None], dtype=pl.Categorical), "f": [float("nan"), None], "u": pl.Series([2**63 - 1, 0], dtype=pl.UInt64),
            "l": [["a long text that no view holds itself"], []], "s": [{"a": 1, "b": None}, None],
        }
    )  # fmt: skip
    assert c.add_table(frame) == 2
    f = c["p"].metadata.pop("f")
    assert f != f
    assert {k: v for k, v in c["p"].metadata.items() if k != "f"} == {
        "k": "x", "u": 2**63 - 1, "l": ["a long text that no view holds itself"], "s": {"a": 1},
    }  # fmt: skip
    assert c["q"].metadata == {"u": 0, "l": []} and c["q"].vector is None
