"""Declarations one by one: what may stand in `fields`, what values they take, what filters say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import damage
from vecdb import REMOVE, F, Geo, Indexed, Partition, Unindexed
from vecdb.errors import FilterError, InvalidArgument, SchemaError
from vecdb.fields import MAX_DECLARED
from vecdb.index import measure
from vecdb.query import Filter
from vecdb.query.declared import bind
from vecdb.storage import keys

DAY = datetime(2020, 1, 1, tzinfo=UTC)
SUBSTRING = Indexed(str, substring=True)


def collection(fields: Any, rows: list[dict[str, Any]] | None = None) -> vecdb.Collection:
    c = vecdb.open().create_collection("c", dim=2, metric="l2", fields=fields)
    if rows:
        c.add([*range(len(rows))], [[1, i] for i in range(len(rows))], metadata=rows)
    return c


# --- what may stand in fields ------------------------------------------------------------

FORMS: list[tuple[Any, str]] = [
    (str, "str"), (int, "int"), (float, "float"), (bool, "bool"), (datetime, "datetime"),
    (dict, "dict"), (list, "list"), (list[str], "list[str]"), (list[int], "list[int]"),
    (list[float], "list[float]"), (list[bool], "list[bool]"), (list[datetime], "list[datetime]"),
    (Geo, "Geo"), (Indexed(int), "int"), (Indexed(Geo), "Geo"), (Indexed(list[str]), "list[str]"),
    (SUBSTRING, "Indexed(str, substring=True)"), (Partition(str), "Partition(str)"),
    (Partition(int), "Partition(int)"), (Unindexed, "Unindexed"), (Unindexed(), "Unindexed"),
    (Unindexed(str), "Unindexed(str)"), (Unindexed(list[datetime]), "Unindexed(list[datetime])"),
    (Unindexed(Geo), "Unindexed(Geo)"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "form"), FORMS, ids=[form for _, form in FORMS])
def test_a_declaration_is_kept_and_reads_well(tmp_path: Path, given: Any, form: str) -> None:
    path = tmp_path / "f.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("c", dim=2, fields={"x": given, "in.y": int})
        db.rename_collection("c", "d")
    with vecdb.open(path) as db:
        assert db["d"].schema.fields == {"x": form, "in.y": "int"}
        same = db.get_or_create_collection("d", dim=2, fields={"in.y": int, "x": given})
        assert same == db["d"] and db.check() == []


@pytest.mark.parametrize("given", [
    None, 5, "str", bytes, object, complex, tuple, set, list[bytes], list[Geo], list[list[str]], dict[str, int],
    str | None, list[str | int], Geo(), Indexed, Partition, Indexed(bytes), Indexed(int, substring=True),
    Indexed(list[str], substring=True), Indexed(str, substring=1), Partition(list[str]), Partition(Geo),  # type: ignore[arg-type]
    Unindexed(Indexed(str)), Unindexed(5), np.int64, [str],
])  # fmt: skip
def test_anything_else_is_refused_by_name(given: Any) -> None:
    with vecdb.open() as db:
        with pytest.raises(InvalidArgument, match="'odd'") as error:
            db.create_collection("c", dim=2, fields={"fine": int, "odd": given})
        assert "Indexed(str, substring=True)" in str(error.value)
        assert db.collections() == []


@pytest.mark.parametrize(("fields", "word"), [
    ([("a", int)], "dict"), ("year", "dict"), ({1: int}, "str"), ({"\ud800": int}, "Unicode"),
    ({f"f{i}": int for i in range(MAX_DECLARED + 1)}, "limit"),
    ({"a": Unindexed, "a.b": int}, "inside 'a'"), ({"a.b.c": SUBSTRING, "a": Unindexed(dict)}, "inside 'a'"),
])  # fmt: skip
def test_fields_that_cannot_be(fields: Any, word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        collection(fields)


def test_fields_that_can_be() -> None:
    assert collection({"a": Unindexed, "a.b": Unindexed(int), "ab": int}).schema.fields["ab"] == "int"
    assert collection({}).schema.fields == collection(None).schema.fields == {}


@pytest.mark.parametrize(("other", "says"), [
    ({"year": str, "lang": str}, "fields['year'] is int, not str"),
    ({"year": int}, "fields['lang'] is str, not undeclared"),
    ({"year": int, "lang": str, "x": Geo}, "fields['x'] is undeclared, not Geo"),
    (None, "fields['year'] is int, not undeclared"),
    ({"year": int, "lang": SUBSTRING}, "not Indexed(str, substring=True)"),
])  # fmt: skip
def test_a_difference_is_named(other: Any, says: str) -> None:
    with vecdb.open() as db:
        db.create_collection("c", dim=2, fields={"year": int, "lang": str})
        with pytest.raises(SchemaError) as error:
            db.get_or_create_collection("c", dim=2, fields=other)
        assert says in str(error.value)


def test_a_schema_without_fields_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "old.vecdb"
    with vecdb.open(path) as db:
        db.create_collection("c", dim=2).add("a", metadata={"year": 1999})
    with damage.write(path) as txn:
        damage.change(txn, keys.catalog(1), lambda d: {k: v for k, v in d.items() if k != "fields"})
    with vecdb.open(path) as db:
        assert db["c"].schema.fields == {} and db["c"].count("year == 1999") == 1
        assert db.check() == []


# --- values --------------------------------------------------------------------------------

FINE: dict[Any, list[Any]] = {
    str: ["", "a"], int: [0, -5, 2**63 - 1, np.int32(4)], float: [1.5, float("nan"), 3, np.float32(2)],
    bool: [True, False, np.bool_(True)], datetime: [DAY, DAY.astimezone(timezone(timedelta(hours=5)))],
    dict: [{}, {"a": 1}], list: [[], [1, "a", None]], list[str]: [[], ["a"], ("a", "b")],
    list[int]: [[1, 2]], list[float]: [[1, 2.5]], list[bool]: [[True]], list[datetime]: [[DAY]],
    Geo: [[48.1, 11.5], (-90, 180), [0, 0]], Unindexed: [1, "a", [1], {"b": 2}], Unindexed(int): [1],
    Partition(str): ["a"], SUBSTRING: ["abc"],
}  # fmt: skip
WRONG: dict[Any, list[Any]] = {
    str: [1, True, ["a"], DAY], int: [1.0, "1", True, [1]], float: ["1", True], bool: [0, 1, "true"],
    datetime: ["2020-01-01T00:00Z", 5], dict: [[1], "a"], list: ["a", {}], list[str]: ["a", ["a", 1], [None]],
    list[int]: [[1, True], [1.0]], list[float]: [["1"], [False]], list[bool]: [[1]], list[datetime]: [["x"], DAY],
    Geo: [[91, 0], [0, 181], [1], [1, 2, 3], [True, 1], ["1", 2], [float("nan"), 0], "0,0", {"lat": 1, "lon": 2}],
    Unindexed(int): ["a", True], Partition(str): [1], SUBSTRING: [5, ["abc"]],
}  # fmt: skip


@pytest.mark.parametrize("kind", FINE, ids=str)
def test_a_value_of_the_declared_type_is_stored_as_given(kind: Any) -> None:
    c = collection({"x": kind, "in.x": kind})
    for value in [*FINE[kind], None]:
        c.upsert("a", [1, 0], metadata={"x": value, "in": {"x": value}})
        stored = c["a"].metadata["x"]
        given = list(value) if isinstance(value, tuple) else value
        assert stored == given or stored != stored
        assert type(stored) is type(getattr(given, "item", lambda v=given: v)())
    c.upsert("a", [1, 0], metadata={})
    assert c["a"].metadata == {}


@pytest.mark.parametrize("kind", WRONG, ids=str)
def test_a_value_that_contradicts_is_refused_and_changes_nothing(kind: Any) -> None:
    c = collection({"x": kind, "in.x": kind}, [{"y": 1}])
    for value in WRONG[kind]:
        for name, row in (("x", {"x": value}), ("in.x", {"in": {"x": value}}), ("in.x", {"in.x": value})):
            calls = [
                (lambda row=row: c.add([7, 8], [[1, 1]] * 2, metadata=[{}, row]), "row 1"),
                (lambda row=row: c.add(7, metadata=row), "row 0"),
                (lambda row=row: c.upsert([0, 8], [[1, 1]] * 2, metadata=[{}, row]), "row 1"),
                (lambda row=row: c.update(0, metadata=row), "row 0"),
                (lambda row=row: c.update([0], metadata=[row]), "row 0"),
                (lambda row=row: c.update(where={}, metadata=row), "every row"),
                (lambda row=row: c.update(where="y == 5", metadata=row), "every row"),
            ]
            for call, place in calls:
                with pytest.raises(SchemaError) as error:
                    call()  # type: ignore[no-untyped-call]
                said = str(error.value)
                assert place in said and repr(name) in said and "declared" in said and len(said) < 300
    assert len(c) == 1 and c[0].metadata == {"y": 1} and c.schema.fields
    assert c._db.check() == []


def test_a_patch_removes_what_was_declared() -> None:
    c = collection({"x": int, "in.y": int}, [{"x": 1, "in": {"y": 2}}])
    assert c.update(0, metadata={"x": REMOVE, "in": REMOVE}) == 1
    assert c[0].metadata == {}


# --- datetimes in filters ------------------------------------------------------------------

NOTATIONS: list[tuple[Any, Filter]] = [
    (F.at == "2020-01-01T00:00Z", F.at == DAY),
    ("at = '2020-01-01T05:30+05:30'", F.at == DAY),
    ({"at": "2020-01-01T00:00Z"}, F.at == DAY),
    ({"at": {"$gte": "2020-01-01T00:00Z", "$lt": DAY}}, (F.at >= DAY) & (F.at < DAY)),
    ("at between '2020-01-01T00:00Z' and datetime '2020-01-01T00:00Z'", F.at.between(DAY, DAY)),
    (F.at.isin(["2020-01-01T00:00Z", 5]), F.at.isin([DAY, 5])),
    ("at not in ('2020-01-01T00:00Z')", ~F.at.isin([DAY])),
    ("days contains '2020-01-01T00:00Z'", F.days.contains(DAY)),
    ({"days": {"$containsAny": ["2020-01-01T00:00Z"]}}, F.days.contains_any([DAY])),
    (F.days.contains_all(["2020-01-01T00:00Z"]), F.days.contains_all([DAY])),
    ("not (in.at != '2020-01-01T00:00Z' or year == 5)", ~((F["in.at"] != DAY) | (F.year == 5))),
    ("other == '2020-01-01T00:00Z'", F.other == "2020-01-01T00:00Z"),
    ("at startswith '2020' or at like '2020%'", F.at.startswith("2020") | F.at.like("2020%")),
    (F.at == 5, F.at == 5),
]  # fmt: skip


@pytest.mark.parametrize(("given", "means"), NOTATIONS, ids=[str(given) for given, _ in NOTATIONS])
def test_a_string_is_a_datetime_where_that_is_declared(given: Any, means: Filter) -> None:
    fields = {"at": datetime, "days": list[datetime], "in.at": Unindexed(datetime), "year": int}
    row = {"at": DAY, "days": [DAY], "in": {"at": DAY}, "other": "2020-01-01T00:00Z"}
    c = collection(fields, [row, {"at": DAY + timedelta(1), "days": []}, {}])
    assert c._filter(given) == means
    wanted = [at for at in range(3) if means.matches(c[at].metadata)]
    assert sorted(c.search([1, 0], where=given).ids) == wanted
    assert sorted(c.search([[1, 0]], where=given)[0].ids) == wanted
    assert c.count(given) == c.explain([1, 0], where=given).matches == len(wanted)
    assert c.update(where=given, metadata={"seen": True}) == len(wanted) == c.count("seen = true")
    assert c.delete(where=given) == len(wanted)


@pytest.mark.parametrize("text", ["2020-01-01", "2020-01-01T00:00", "2020", "", "yesterday", "\ud800", "x" * 10_000])
def test_a_string_that_is_no_datetime_with_a_zone_is_an_error(text: str) -> None:
    c = collection({"at": datetime}, [{"at": DAY}])
    for ask in (lambda: c.count(F.at >= text), lambda: c.search([1, 0], where={"at": {"$in": [text]}}),
                lambda: c.delete(where=F.at.between(DAY, text)), lambda: c.count(~(F.x == 1) & (F.at != text))):  # fmt: skip
        with pytest.raises(FilterError, match="'at'"):
            ask()
    assert len(c) == 1


def test_without_such_a_declaration_a_filter_is_left_alone() -> None:
    where = (F.a == "2020-01-01T00:00Z") & F.b.exists()
    assert bind(where, frozenset()) is where and bind(where, frozenset({"c"})) is where
    assert collection({"a": str})._filter(where) is where


# --- fields without an index, and with one of substrings -------------------------------------


def test_an_unindexed_field_leaves_no_postings_and_is_named_in_the_plan() -> None:
    rows = [{"body": {"deep": {"n": i}}, "body.flat": i, "notes": "x" * i, "n": i % 10} for i in range(300)]
    c = collection({"body": Unindexed, "notes": Unindexed(str)}, rows)
    assert c.stats()["fields"] == ["n"]
    plan = c.explain([1, 0], where=(F["body.deep.n"] < 50) & (F.n == 3) & F.notes.exists())
    assert plan.matches == 5 and plan.evaluated == ("body.deep.n", "notes")
    assert "row by row" in str(plan) and "body.deep.n, notes" in str(plan)
    assert c.search([1, 0], where=F.notes == "x").plan.evaluated == ("notes",)
    plain = c.explain([1, 0], where=F.n == 3)
    assert plain.evaluated == () and "row by row" not in str(plain)
    with pytest.raises(SchemaError, match="twice"):
        c.add("twice", metadata={"body": {"a": 1}, "body.a": 2})


@pytest.mark.parametrize(("where", "most"), [
    ((F.u == 1) & (F.n == 3), 30), ((F.n == 3) & (F.u == 1) & ~(F.v == 2), 30), (~(F.u == 1) & (F.n == 3), 30),
    ((F.u == 1) | (F.n != 3), 30), ((F.n == 3) & ((F.u == 1) | (F.m == 0)), 15), (F.u == 1, 300),
    ((F.n == 99) & (F.u == 1), 0), (~((F.n == 3) & (F.u == 1)), 30), (((F.u == 1) | (F.v == 1)) & (F.n == 3), 30),
], ids=str)  # fmt: skip
def test_as_few_rows_are_read_as_the_other_clauses_leave(
    monkeypatch: pytest.MonkeyPatch, where: Filter, most: int
) -> None:
    rows = [{"u": i % 3, "v": i % 4, "n": i % 10, "m": i // 10 % 2} for i in range(300)]
    c = collection({"u": Unindexed, "v": Unindexed}, rows)
    read = []
    right = vecdb.index.follow.codec.unpack_metadata  # type: ignore[attr-defined]

    def counted(*given: Any) -> Any:
        read.append(1)
        return right(*given)

    monkeypatch.setattr("vecdb.index.follow.codec.unpack_metadata", counted)
    found = c.count(where)
    monkeypatch.undo()
    assert found == sum(where.matches(row) for row in rows)
    assert len(read) <= most


def test_effort_is_not_measured_with_filters_on_unindexed_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    right = measure._clause
    monkeypatch.setattr(measure, "_clause", lambda *given: drawn.append(right(*given)) or drawn[-1])
    c = vecdb.open().create_collection("c", dim=4, fields={"u": Unindexed, "in": Unindexed})
    vectors = np.random.default_rng(0).standard_normal((4096, 4))
    c.add([*range(4096)], vectors, metadata=[{"u": i % 2, "in": {"x": i % 3}, "n": i % 2} for i in range(4096)])
    assert drawn and {where.field for where in drawn} == {"n"}


def test_substrings_of_every_length_and_kind() -> None:
    texts = ["blade runner", "x" * 300 + "needle", "needle" + "y" * 300, "Größe", "大きな数", "a%b_c\\d", "", "ab"]
    c = collection({"s": SUBSTRING}, [{"s": text} for text in texts] + [{"s": None}, {}])
    for fold in (False, True):
        if fold:
            c.optimize()
        for pattern, wanted in {
            "%needle%": [1, 2], "%xneedle": [1], "needley%": [2], "%run%": [0], "%ade%nn%": [0], "%ade_run%": [0],
            "%röß%": [3], "%きな%": [4], "%きな数": [4], "%\\%b\\_c%": [5], "%\\\\d%": [5], "%ab%": [7], "%b%": [0, 5, 7],
            "%nothing%": [], "%": [0, 1, 2, 3, 4, 5, 6, 7], "": [6], "%\ud800abc%": [],
        }.items():  # fmt: skip
            assert sorted(c.search([1, 0], 20, where=F.s.like(pattern)).ids) == wanted, pattern
    c.update(0, metadata={"s": "alien"})
    c.delete(1)
    assert (c.count("s like '%run%'"), c.count("s like '%lie%'"), c.count("s like '%needle%'")) == (0, 1, 1)
    assert c.stats()["fields"] == ["s"] and c._db.check() == []
    assert c.update(where="s like '%lie%'", metadata={"s": REMOVE}) == 1
    assert c.count(F.s.exists()) == 6 and c.count("s like '%lie%'") == 0
