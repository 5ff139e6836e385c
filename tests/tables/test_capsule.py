"""Arrow's C interface without an Arrow library: every type, one release each, and no lie believed."""

from __future__ import annotations

import gc
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.tables.producer import Column, Producer, ids, table
from vecdb.errors import InvalidArgument
from vecdb.tables.sources import pieces


def read(source: Any) -> list[dict[str, Any]]:
    """All rows as dicts, null cells left out."""
    return [row for piece in pieces(source) for row in piece.metadata(piece.names, 0, piece.rows)]


def bits(*values: int) -> Any:
    return np.packbits(values, bitorder="little")


# --- one release each ----------------------------------------------------------------------------


@pytest.mark.parametrize("clears", [True, False])
def test_everything_is_released_once(clears: bool) -> None:
    """Also by a producer that forgets to mark what it released."""
    producer = Producer(table(2, ids(1, 2)), table(1, ids(3)), clears=clears)
    assert read(producer) == [{"id": 1}, {"id": 2}, {"id": 3}]
    gc.collect()
    assert producer.released == {"stream": 1, "schema": 1, "array": 2}


def test_a_stream_that_is_not_read_to_its_end_is_released() -> None:
    producer = Producer(table(1, ids(1)), table(1, ids(2)), table(1, ids(3)))
    parts = pieces(producer)
    next(parts)
    parts.close()  # type: ignore[attr-defined]
    del parts
    gc.collect()
    assert producer.released == {"stream": 1, "schema": 1, "array": 1} and producer.given["array"] == 1


def test_a_view_keeps_its_memory_and_gives_it_back() -> None:
    vectors = Column("v", "+w:2", 2, [None], [Column("", "f", 4, [None, np.arange(4, dtype="<f4")])])
    producer = Producer(table(2, vectors))
    (piece,) = pieces(producer)
    rows, present = piece.matrix("v", 0, 2, 0)
    assert producer.released["stream"] == 1
    del piece
    gc.collect()
    assert producer.released["array"] == 0 and rows.tolist() == [[0, 1], [2, 3]] and present is None
    assert not rows.flags.owndata and not rows.flags.writeable
    del rows
    gc.collect()
    assert producer.released["array"] == 1


def test_an_error_in_between_releases_what_was_given() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        producer = Producer(table(2, ids(1, 2)), table(1, ids(1)))
        with pytest.raises(vecdb.errors.AlreadyExists):
            c.add_table(producer, vector=None, batch_size=1)
    gc.collect()
    assert producer.released == {"stream": 1, "schema": 1, "array": 2}


def test_a_capsule_serves_once() -> None:
    producer = Producer(table(1, ids(1)))
    capsule = producer.__arrow_c_stream__()

    class Same:
        def __arrow_c_stream__(self) -> Any:
            return capsule

    assert read(Same()) == [{"id": 1}]
    with pytest.raises(InvalidArgument, match="used already"):
        read(Same())
    assert producer.released["stream"] == 1


# --- producers that fail or lie ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["get_schema", "get_next"])
def test_a_producer_that_fails_is_quoted(where: str) -> None:
    producer = Producer(table(1, ids(1)), fail=where, code=5)
    with pytest.raises(InvalidArgument, match=f"{where} with code 5: the disk is on fire"):
        read(producer)
    gc.collect()
    assert producer.released == {"stream": 1, **producer.given}


@pytest.mark.parametrize("missing", ["get_schema", "get_next", "get_last_error", "release"])
def test_a_stream_without_a_callback_is_refused(missing: str) -> None:
    def tamper(stream: Any) -> None:
        setattr(stream, missing, None)

    producer = Producer(table(1, ids(1)), tamper=tamper, fail="get_schema" if missing == "get_last_error" else "")
    with pytest.raises(InvalidArgument, match="no reason|used already|has no"):
        read(producer)


@pytest.mark.parametrize("given", [None, 3, object(), (1, 2)])
def test_what_is_no_capsule_is_refused(given: Any) -> None:
    class Liar:
        def __arrow_c_stream__(self, requested: Any = None) -> Any:
            return given

    class Other:
        def __arrow_c_array__(self, requested: Any = None) -> Any:
            return given

    for liar in (Liar(), Other()):
        with pytest.raises(InvalidArgument, match="capsule"):
            read(liar)


I4 = "<i4"
LIES = {
    "a negative length": Column("x", "l", -1, [None, np.zeros(1)]),
    "a negative offset": Column("x", "l", 1, [None, np.zeros(1)], offset=-1),
    "a column shorter than the table": Column("x", "l", 1, [None, np.zeros(1, "<i8")]),
    "no buffer": Column("x", "l", 2, []),
    "a null buffer": Column("x", "l", 2, [None, None]),
    "children that are not there": Column("x", "+s", 2, [None], [], n_children=3),
    "too many buffers": Column("x", "l", 2, [None] * 100_001),
    "an unknown format": Column("x", "?!", 2, [None, np.zeros(2)]),
    "an empty format": Column("x", "", 2, [None, np.zeros(2)]),
    "falling offsets": Column("x", "u", 2, [None, np.array([0, 3, 1], I4), np.zeros(9, "u1")]),
    "negative text offsets": Column("x", "u", 2, [None, np.array([-4, 0, 1], I4), np.zeros(9, "u1")]),
    "bytes that are no text": Column("x", "u", 2, [None, np.array([0, 1, 2], I4), np.full(9, 255, "u1")]),
    "a list beyond its contents": Column("x", "+l", 2, [None, np.array([0, 1, 9], I4)], [ids(1, 2)]),
    "a fixed list beyond its contents": Column("x", "+w:3", 2, [None], [ids(1, 2, 3)]),
    "a size that is none": Column("x", "+w:-3", 2, [None], [ids(1, 2, 3)]),
    "a huge size": Column("x", "+w:9223372036854775807", 2, [None], [ids(1, 2, 3)]),
    "a struct shorter than the table": Column("x", "+s", 2, [None], [ids(1)]),
    "an index beyond the dictionary": Column("x", "i", 2, [None, np.array([0, 7], I4)], dictionary=ids(1, 2)),
    "a negative index": Column("x", "i", 2, [None, np.array([0, -1], I4)], dictionary=ids(1, 2)),
    "float indices": Column("x", "f", 2, [None, np.zeros(2, "<f4")], dictionary=ids(1, 2)),
    "a view outside its buffers": Column("x", "vu", 2, [None, np.array([[99, 0, 0, 0], [99, 0, 7, 0]], I4), np.zeros(9, "u1"), np.array([9], "<i8")]),
    "a view of a negative length": Column("x", "vu", 2, [None, np.array([[-1, 0, 0, 0]] * 2, I4), np.array([], "<i8")]),
    "a view and no buffers": Column("x", "vu", 2, []),
    "a time outside the calendar": Column("x", "tss:UTC", 2, [None, np.array([0, 2**62], "<i8")]),
    "a zone that nobody knows": Column("x", "tss:Mars/North", 2, [None, np.zeros(2, "<i8")]),
    "a zone that is a path": Column("x", "tss:../../etc/passwd", 2, [None, np.zeros(2, "<i8")]),
    "an unknown unit": Column("x", "tsx:UTC", 2, [None, np.zeros(2, "<i8")]),
    "a column twice": ids(1, 2),
    "a name that is no text": Column("\udcff", "l", 2, [None, np.zeros(2, "<i8")]),
}  # fmt: skip


@pytest.mark.parametrize("lie", list(LIES))
def test_a_lie_is_refused_and_nothing_leaks(lie: str) -> None:
    producer = Producer(table(2, ids(1, 2), LIES[lie]))
    with pytest.raises(InvalidArgument, match="^table: "):
        read(producer)
    gc.collect()
    assert producer.released == {"stream": 1, **producer.given}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_lie_about_vectors_is_refused(lie: str) -> None:
    column = LIES[lie]
    if column.name != "x":
        return
    producer = Producer(table(2, ids(1, 2), column))
    with pytest.raises(InvalidArgument, match="table: |vector"):
        for piece in pieces(producer):
            piece.matrix("x", 0, piece.rows, 0)


def test_nesting_has_a_limit() -> None:
    column = ids(1)
    for _ in range(100):
        column = Column("x", "+s", 1, [None], [column])
    with pytest.raises(InvalidArgument, match="deeper"):
        read(Producer(table(1, column)))


def test_single_columns_are_no_table() -> None:
    with pytest.raises(InvalidArgument, match="give a table"):
        read(Producer(ids(1, 2)))
    with pytest.raises(InvalidArgument, match="row 1 is null as a whole"):
        read(Producer(Column("", "+s", 2, [bits(1, 0)], [ids(1, 2)], nulls=1)))


# --- types, as our own producer and as pyarrow write them ----------------------------------------


def test_offsets_and_nulls_of_every_level() -> None:
    """A table that is a slice, of columns that are slices, of lists that are."""
    texts = Column("s", "u", 3, [bits(1, 1, 0, 1), np.array([0, 1, 2, 2, 3], I4), np.frombuffer(b"abc", "u1")], offset=1, nulls=-1)
    numbers = Column("", "s", 5, [bits(0, 1, 1, 0, 1, 1), np.arange(6, dtype="<i2")], offset=1, nulls=2)
    lists = Column("l", "+l", 3, [None, np.array([0, 0, 2, 2, 4], I4)], [numbers], offset=1)
    sliced = Column("", "+s", 2, [None], [texts, lists], offset=1)
    assert read(Producer(sliced)) == [{"l": []}, {"s": "c", "l": [None, 4]}]


def test_every_type_that_a_row_can_hold() -> None:
    pa = pytest.importorskip("pyarrow")
    moment = datetime(2020, 1, 2, 3, 4, 5, 6, UTC)
    there = moment.astimezone(timezone(timedelta(hours=2)))
    columns = {
        **{f"i{i}": pa.array([1, None, 100], t) for i, t in enumerate([pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()])},
        **{f"f{i}": pa.array([0.5, None, float("inf")], t) for i, t in enumerate([pa.float16(), pa.float32(), pa.float64()])},
        "b": pa.array([True, None, False]),
        "n": pa.nulls(3),
        **{f"s{i}": pa.array(["é", None, "more than twelve bytes"], t) for i, t in enumerate([pa.string(), pa.large_string(), pa.string_view()])},
        "t0": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
        "t1": pa.array([moment, None, moment], pa.timestamp("ns", "+02:00")),
        "t2": pa.array([moment, None, moment], pa.timestamp("us", "Europe/Berlin")),
        "l0": pa.array([[1, None], None, []], pa.list_(pa.int64())),
        "l1": pa.array([["a"], None, []], pa.large_list(pa.string())),
        "l2": pa.array([[1.5, 2.5], None, [3.5, 4.5]], pa.list_(pa.float32(), 2)),
        "d": pa.array(["x", None, "x"]).dictionary_encode(),
        "o": pa.array([{"a": {"b": [1]}, "c": None}, None, {}], pa.struct([("a", pa.struct([("b", pa.list_(pa.int8()))])), ("c", pa.string())])),
    }  # fmt: skip
    whole = pa.table(columns)
    expected = [
        {key: value for key, value in row.items() if value is not None and key != "o"} for row in whole.to_pylist()
    ]
    for source in (whole, whole.slice(1), pa.concat_tables([whole.slice(2), whole.slice(0, 2)])):
        found = read(source)
        wanted = {3: expected, 2: expected[1:]}[len(found)]
        if source.num_rows == 3 and source is not whole:
            wanted = [expected[2], expected[0], expected[1]]
        inner = [row.pop("o", None) for row in found]
        assert found == wanted
        assert inner.count({"a": {"b": [1]}}) <= 1 and {} in inner
    assert read(whole)[0]["t1"].utcoffset() == there.utcoffset()


@pytest.mark.parametrize(
    ("name", "values", "spelled"),
    [
        ("date32", [date(2020, 1, 1)], "date32"),
        ("decimal", [Decimal("1.5")], "decimal128(3, 1)"),
        ("binary", [b"x"], "binary"),
        ("binary_view", [b"x"], "binary_view"),
        ("fixed_size_binary", [b"xx"], "fixed_size_binary[2]"),
        ("duration", [timedelta(1)], "duration[us]"),
        ("time of day", [None], "time64[us]"),
        ("map", [[("a", 1)]], "map"),
        ("without a time zone", [datetime(2020, 1, 1)], "timestamp[us]"),
        ("nanoseconds", [1], "timestamp[ns, UTC]"),
    ],
)
def test_other_types_are_refused_by_name(name: str, values: list[Any], spelled: str) -> None:
    pa = pytest.importorskip("pyarrow")
    types = {
        "date32": pa.date32(), "decimal": pa.decimal128(3, 1), "binary": pa.binary(), "duration": pa.duration("us"),
        "binary_view": pa.binary_view(), "fixed_size_binary": pa.binary(2), "time of day": pa.time64("us"),
        "map": pa.map_(pa.string(), pa.int64()), "without a time zone": pa.timestamp("us"),
        "nanoseconds": pa.timestamp("ns", "UTC"),
    }  # fmt: skip
    with pytest.raises(InvalidArgument, match=rf"column 'x'.*{name}"):
        read(pa.table({"id": [1], "x": pa.array(values, types[name])}))


def test_vectors_are_looked_at_where_they_lie() -> None:
    pa = pytest.importorskip("pyarrow")
    numbers = pa.array(np.arange(12, dtype=np.float32))
    fixed = pa.FixedSizeListArray.from_arrays(numbers, 3)
    spread = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32()))
    for column, size in ((fixed, 3), (fixed.slice(1), 3), (spread, 2)):
        (piece,) = pieces(pa.table({"v": column}))
        rows, present = piece.matrix("v", 0, piece.rows, 0)
        assert rows.tolist() == column.to_pylist() and rows.shape[1] == size
        assert present is None and not rows.flags.owndata


def test_vectors_with_gaps_and_odd_ones() -> None:
    pa = pytest.importorskip("pyarrow")
    for kind in (pa.list_(pa.float32(), 2), pa.list_(pa.float32())):
        column = pa.array([None, [1.0, 2.0], None, [3.0, 4.0]], kind)
        (piece,) = pieces(pa.table({"v": column}))
        rows, present = piece.matrix("v", 1, 4, 1)
        assert present is not None and present.tolist() == [True, False, True]
        assert rows[present].tolist() == [[1, 2], [3, 4]]
        (piece,) = pieces(pa.table({"v": pa.array([[1.0, 2.0], [None, 1.0]], kind)}))
        with pytest.raises(InvalidArgument, match="row 1 is no list of real numbers"):
            piece.matrix("v", 0, 2, 0)
    (piece,) = pieces(pa.table({"v": [[1.0], [1.0, 2.0]]}))
    with pytest.raises(InvalidArgument, match="row 8 has 2 numbers, row 7 has 1"):
        piece.matrix("v", 0, 2, 7)


def test_nothing_of_it_imports_an_arrow_library() -> None:
    code = """
import sys
from tests.tables.producer import Producer, Column, ids, table
import vecdb
with vecdb.open() as db:
    c = db.create_collection("c", dim=2)
    assert c.add_table(Producer(table(2, ids(1, 2))), vector=None) == 2
assert not {"pyarrow", "pandas", "polars"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
