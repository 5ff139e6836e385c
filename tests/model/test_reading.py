"""scan and facets equal sorting and counting in Python, whatever the rows hold.

Rows of mixed types are written, changed and folded at random, in and out of transactions; the
reference reads nothing but a dict of id -> metadata. Thresholds are made small in half of the
examples, so that few rows already walk value keys, split groups and pages.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vecdb
from vecdb import F
from vecdb.collection import scan
from vecdb.query import Filter

EAST = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2020, 1, 1, tzinfo=UTC)
LONG = "x" * 198 + "é"  # 200 bytes

SCALARS = st.sampled_from(
    [
        None, True, False, 0, 1, 1.0, -0.0, 2, -3, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, 0.5,
        float("nan"), float("inf"), float("-inf"), "", "a", "b", "ab", "\x00", "é", "\U0001f600", "\uffff",
        LONG, LONG + "a", LONG + "aa", LONG + "b", LONG + "é", "x" * 199 + "é", "x" * 300, "x" * 300 + "y",
        MOMENT, MOMENT.astimezone(EAST), MOMENT + timedelta(microseconds=1), MOMENT - timedelta(days=9999),
    ]
)  # fmt: skip
VALUES = st.one_of(
    SCALARS, SCALARS, SCALARS, st.integers(0, 3), st.lists(SCALARS, max_size=3), st.just({"inner": 1})
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "a": VALUES,
        "n": st.integers(0, 4),
        "deep": st.fixed_dictionaries({}, optional={"b": VALUES}),
    },
)
IDS = st.one_of(
    st.integers(-3, 6),
    st.sampled_from(["", "0", "a", "b", "é", "\U0001f600", "\uffff"]).map(lambda s: s + "-"),
)
FIELDS = ("a", "n", "deep.b", "deep", "absent")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.lists(st.tuples(IDS, METADATA), min_size=1, max_size=8)),
        st.tuples(st.just("update"), IDS, METADATA),
        st.tuples(st.just("delete"), IDS),
        st.tuples(st.just("optimize")),
    ),
    min_size=1,
    max_size=8,
)
WHERE = st.sampled_from([None, F.n >= 1, F.n == 2, F.a.exists(), ~(F.a == 1), F.absent == 1])


def value_of(metadata: dict[str, Any], field: str) -> Any:
    if field == "deep.b":
        return metadata.get("deep", {}).get("b")
    return metadata.get(field)


def rank(value: Any) -> tuple[Any, ...] | None:
    """What sorts as values do; None for those that do not compare."""
    if value is None or isinstance(value, list | dict):
        return None
    if isinstance(value, bool):
        return 0, value
    if isinstance(value, int | float):
        return (2,) if value != value else (1, value)
    return (3, value) if isinstance(value, str) else (4, value)


def id_rank(id: Any) -> tuple[bool, Any]:
    return isinstance(id, str), id.encode() if isinstance(id, str) else id


def in_order(rows: dict[Any, Any], field: str | None, descending: bool) -> list[Any]:
    ids = sorted(rows, key=id_rank)
    if field is None:
        return ids[::-1] if descending else ids
    ranks = {id: rank(value_of(rows[id], field)) for id in ids}
    valued = [id for id in ids if ranks[id] is not None]
    valued.sort(key=lambda id: ranks[id], reverse=descending)  # type: ignore[arg-type, return-value]
    return valued + [id for id in ids if ranks[id] is None]


def counted(rows: dict[Any, Any], field: str) -> tuple[list[tuple[Any, int]], int]:
    """(rank of each value with its count, in order), and the rows without any."""
    found: Counter[Any] = Counter()
    missing = 0
    for metadata in rows.values():
        value = value_of(metadata, field)
        if isinstance(value, list):
            ranks = {rank(each) or (5,) for each in value}
        else:
            ranks = set() if rank(value) is None else {rank(value)}  # type: ignore[assignment]
        found.update(ranks)
        missing += not ranks
    return sorted(found.items(), key=lambda pair: (-pair[1], pair[0])), missing


def look(c: vecdb.Collection, rows: dict[Any, Any], where: Filter | None) -> None:
    chosen = {id: m for id, m in rows.items() if where is None or where.matches(m)}
    for field in (None, *FIELDS):
        for descending in (False, True):
            how: dict[str, Any] = {"order_by": field, "descending": descending}
            expected = in_order(chosen, field, descending)
            found = list(c.scan(where, **how))
            assert [record.id for record in found] == expected, how
            assert [same(record.metadata) for record in found] == [same(chosen[id]) for id in expected]
            if found:
                middle = found[len(found) // 2]
                rest = expected[len(found) // 2 + 1 :]
                assert [r.id for r in c.scan(where, after=middle.cursor, limit=2, **how)] == rest[:2]
                assert [r.id for r in c.scan(where, after=c[middle.id], **how)] == rest
    for field in FIELDS:
        expected_counts, missing = counted(chosen, field)
        facets = c.facets(field, where, limit=None)
        pairs = [((5,) if value is None else rank(value), count) for value, count in facets.items()]
        assert pairs == expected_counts
        assert (facets.matches, facets.missing, facets.distinct) == (len(chosen), missing, len(pairs))
        assert list(c.facets(field, where, limit=2).values()) == [count for _, count in pairs[:2]]


def same(metadata: Any) -> str:
    return repr(metadata)  # tells 1 from 1.0, and NaN equals itself


def run(c: vecdb.Collection, rows: dict[Any, Any], steps: list[Any]) -> None:
    for name, *details in steps:
        if name == "upsert":
            new = dict(details[0])
            c.upsert(list(new), metadata=list(new.values()))
            rows.update(new)
        elif name == "update" and details[0] in rows:
            c.update(details[0], metadata=details[1])
            rows[details[0]] = {**rows[details[0]], **details[1]}
        elif name == "delete":
            c.delete(details[0])
            rows.pop(details[0], None)
        elif name == "optimize":
            c.optimize()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=STEPS, second=STEPS, where=WHERE, small=st.booleans())
def test_scan_and_facets_are_sorting_and_counting(
    first: list[Any], second: list[Any], where: Filter | None, small: bool
) -> None:
    sizes = {"FEW": 0, "FIRST_PAGE": 1, "PAGE_ROWS": 3} if small else {"FEW": 256}
    with vecdb.open() as db, patch.multiple(scan, **sizes):
        c = db.create_collection("c", dim=2)
        rows: dict[Any, Any] = {}
        run(c, rows, first)
        look(c, rows, where)
        with db.transaction():
            inside = dict(rows)
            run(c, inside, [step for step in second if step[0] != "optimize"])
            look(c, inside, where)
        look(c, inside, where)
        assert db.check() == []


@pytest.mark.parametrize("few", [0, 256])
def test_many_rows_in_long_groups(few: int) -> None:
    """Groups longer than a page, by the id map and by sorting; image and tail."""
    with vecdb.open() as db, patch.object(scan, "FEW", few):
        c = db.create_collection("c", dim=2)
        rows = {id: {"a": id * 7 % 3, "n": id % 1000} for id in range(3000)}
        c.add(list(rows), metadata=list(rows.values()))
        for again in range(2):
            look(c, rows, None)
            look(c, rows, F.n < 20)
            c.update(list(range(0, 3000, 7)), metadata={"a": f"changed {again}"})
            for id in range(0, 3000, 7):
                rows[id]["a"] = f"changed {again}"
