"""storage/codec.py and storage/keys.py: what goes in comes out, and what may not is refused."""

from __future__ import annotations

import enum
import math
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.errors import Corrupt, InvalidArgument
from vecdb.storage import codec, keys

zones = st.integers(-23 * 60, 23 * 60).map(lambda m: timezone(timedelta(minutes=m)))
moments = st.datetimes(
    min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=zones
)
scalars = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers(keys.INT_MIN, keys.INT_MAX)
    | st.floats()
    | st.booleans()
    | st.none()
    | moments
)
names = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name[:1] != "\0")
metadata = st.dictionaries(
    names,
    st.recursive(
        scalars | st.lists(scalars), lambda inner: st.dictionaries(names, inner), max_leaves=10
    ),
)


def same(a: Any, b: Any) -> bool:
    """Equal in type and value; NaN is itself, -0.0 is not 0.0, a datetime keeps its offset."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (
            math.isnan(a)
            and math.isnan(b)
            or (a == b and math.copysign(1, a) == math.copysign(1, b))
        )
    if isinstance(a, datetime):
        return a == b and a.utcoffset() == b.utcoffset()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(metadata)
def test_metadata_survives(row: dict[str, Any]) -> None:
    cleaned = codec.clean_metadata(row)
    assert same(cleaned, row)
    assert same(codec.unpack_metadata(codec.pack_metadata(cleaned)), row)


def test_numpy_scalars_and_subclasses_become_pythons_own() -> None:
    class Colour(str, enum.Enum):  # noqa: UP042
        RED = "red"

    class Level(enum.IntEnum):
        HIGH = 3

    row = {
        "i": np.int64(-5), "u": np.uint8(5), "f": np.float32(0.5), "d": np.float64(0.25),
        "b": np.bool_(True), "s": np.str_("é"), "e": Colour.RED, "l": Level.HIGH,
        "t": ("a", np.int32(1)), "z": np.array(7),
    }  # fmt: skip
    cleaned = codec.clean_metadata(row)
    assert cleaned == {
        "i": -5, "u": 5, "f": 0.5, "d": 0.25, "b": True, "s": "é", "e": "red", "l": 3,
        "t": ["a", 1], "z": 7,
    }  # fmt: skip
    for value in [*cleaned.values(), *cleaned["t"]]:
        assert type(value) in (int, float, bool, str, list)
    assert codec.unpack_metadata(codec.pack_metadata(cleaned)) == cleaned


def test_a_datetime_keeps_instant_and_offset_at_the_ends_of_time() -> None:
    for moment in (
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone(timedelta(hours=-12))),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ):
        row = codec.clean_metadata({"at": moment})
        back = codec.unpack_metadata(codec.pack_metadata(row))["at"]
        assert (back.replace(tzinfo=None), back.utcoffset()) == (
            moment.replace(tzinfo=None), moment.utcoffset(),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "path", "what"),
    [
        ({"a": {"b": datetime(2020, 1, 1)}}, "'a.b'", "time zone"),
        ({"a": [1, b"x"]}, r"'a\[1\]'", "bytes"),
        ({"a": [[1]]}, r"'a\[0\]'", "scalars only"),
        ({"a": [{"b": 1}]}, r"'a\[0\]'", "scalars only"),
        ({"a": {1: 2}}, "'a'", "key"),
        ({2: 2}, "metadata", "key"),
        ({"a": 1 << 63}, "'a'", "64 bits"),
        ({"a": np.uint64((1 << 64) - 1)}, "'a'", "64 bits"),
        ({"a": -(1 << 63) - 1}, "'a'", "64 bits"),
        ({"a": "\ud800"}, "'a'", "surrogate"),
        ({"\ud800": 1}, "metadata", "surrogate"),
        ({"a": np.zeros(3)}, "'a'", "tolist"),
        ({"a": np.datetime64("2020-01-01")}, "'a'", "datetime64"),
        ({"a": {1, 2}}, "'a'", "sorted"),
        ({"a": 1j}, "'a'", "complex"),
        ({"a": object()}, "'a'", "object"),
        ({"a": np.longdouble(1)}, "'a'", "numpy"),
    ],
)
def test_a_refusal_names_row_and_field(row: Any, path: str, what: str) -> None:
    with pytest.raises(InvalidArgument, match=what) as caught:
        codec.clean_metadata(row, "row 'x'")
    assert caught.match("row 'x'") and caught.match(path)


def test_metadata_that_is_no_dict_is_refused() -> None:
    for wrong in (None, [("a", 1)], "a", 3):
        with pytest.raises(InvalidArgument, match="metadata is a dict"):
            codec.clean_metadata(wrong)


def nested(levels: int) -> dict[str, Any]:
    row: dict[str, Any] = {"x": 1}
    for _ in range(levels - 1):
        row = {"x": row}
    return row


def test_the_limits_are_where_they_are_said_to_be() -> None:
    codec.clean_metadata(nested(16))
    with pytest.raises(InvalidArgument, match="16 levels"):
        codec.clean_metadata(nested(17))
    codec.clean_metadata({"a": [0] * 65_535})
    with pytest.raises(InvalidArgument, match="65,536"):
        codec.clean_metadata({"a": [0] * 65_536})
    overhead = len(codec.pack_metadata({"a": "x" * 70_000})) - 70_000
    codec.pack_metadata({"a": "x" * ((1 << 20) - overhead)})
    with pytest.raises(InvalidArgument, match="1,048,576"):
        codec.pack_metadata({"a": "x" * ((1 << 20) - overhead + 1)})


def test_a_cycle_is_refused() -> None:
    row: dict[str, Any] = {}
    row["self"] = row
    with pytest.raises(InvalidArgument, match="16 levels"):
        codec.clean_metadata(row)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xc1", b"\x80\x80", b"\x90", b"\xc0", b"\x81\x01\x01", b"\x81\xa1\xff\x01",
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
        b"\x81\xa1a" * 3000, b"\x91" * 5000,
        b"\x81\xa1a\xc7\x0a\x01" + b"\x7f" * 10,
        b"\x81\xa1a\xc7\x0a\x02" + b"\x00" * 10,
        b"\x81\xa1a\xd4\x01\x00", b"\x81\xa1a\xc4\x01x",
    ],
)  # fmt: skip
def test_damage_is_corrupt_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        codec.unpack_metadata(payload, "rows/1/0x00000007")
    assert caught.value.where == "rows/1/0x00000007"


def test_random_damage_is_corrupt_or_readable() -> None:
    rng = random.Random(5)
    good = codec.pack_metadata(
        {"a": [1, 2.5, "x"], "b": {"c": datetime(2020, 1, 1, tzinfo=UTC)}, "d": None}
    )
    for _ in range(20_000):
        bad = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        for unpack in (codec.unpack_metadata, codec.unpack):
            try:
                unpack(bytes(bad))
            except Corrupt:
                pass


def test_a_small_record_cannot_claim_much_memory() -> None:
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(Corrupt):
        codec.unpack(b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_engine_records_take_int_keys_and_bytes() -> None:
    value = {"name": "x", 3: [b"raw", None, {"y": -1}]}
    assert codec.unpack(codec.pack(value)) == value
    assert codec.unpack(memoryview(codec.pack(value))) == value
    assert msgpack.unpackb(codec.pack([1])) == [1]


# --- keys --------------------------------------------------------------------------------

ids = st.integers(keys.INT_MIN, keys.INT_MAX) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120
)


@given(st.lists(ids))
def test_ids_survive_and_order(found: list[str | int]) -> None:
    made = [keys.row_id(7, id) for id in found]
    assert [keys.decode_id(key) for key in made] == found

    def place(id: str | int) -> tuple[int, int, bytes]:
        return (0, id, b"") if isinstance(id, int) else (1, 0, id.encode())

    assert sorted(made) == [keys.row_id(7, id) for id in sorted(found, key=place)]


@pytest.mark.parametrize("wrong", [True, 1.0, b"x", None, "", "x" * 481, "\ud800", 1 << 63])
def test_what_is_no_id_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument):
        keys.row_id(1, wrong)


def test_keys_stay_within_lmdbs_limit() -> None:
    assert len(keys.row_id(1, "x" * 480)) <= keys.MAX_KEY


def test_the_meta_record_is_last_and_the_state_next_to_its_log() -> None:
    logs = [keys.log(3, commit, part) for commit in (1, 2, (1 << 64) - 2) for part in (0, 1)]
    assert sorted([*logs, keys.state(3)]) == [*logs, keys.state(3)]
    assert keys.log_position(logs[2]) == (2, 0)
    everything = [
        *logs,
        keys.state(0xFFFFFFFF),
        keys.row(0xFFFFFFFF, 0xFFFFFFFF),
        keys.META_KEY,
    ]
    assert max(everything) == keys.META_KEY


def test_after_is_the_end_of_a_prefix() -> None:
    assert keys.after(keys.prefix(keys.ROWS, 1)) == keys.prefix(keys.ROWS, 2)
    assert keys.after(b"\x30\xff\xff") == b"\x31"
    assert keys.after(b"\xff") == b""


def test_keys_read_well() -> None:
    assert keys.describe(keys.row(2, 7)) == "rows/2/0x00000007"
    assert keys.describe(keys.META_KEY) == "meta"
    assert keys.describe(keys.catalog(2)) == "catalog/2"
    assert "unknown" in keys.describe(b"\x01")
    assert keys.describe(b"") == "empty"
