"""Every misuse is the named error, says what is wrong and what to do, and changes nothing.

One row of a table per misuse: the call, the error, the words that its message must have (the
argument, the first bad row, the limit, the remedy). After each, the database must be what it was:
rows, counts, commit number, and a clean `check()`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.errors import (
    AlreadyExists,
    Closed,
    FilterError,
    InvalidArgument,
    NotFound,
    ReadOnly,
    SchemaError,
)

NAN, INF = float("nan"), float("inf")
V = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
Call = Callable[[vecdb.Database, vecdb.Collection], object]


class Misuse(NamedTuple):
    """A call that must fail, how, and what the message must say."""

    name: str
    call: Call
    error: type[Exception]
    words: tuple[str, ...]


def bad(name: str, call: Call, *words: str, error: type[Exception] = InvalidArgument) -> Misuse:
    return Misuse(name, call, error, words)


def halves(db: vecdb.Database) -> vecdb.Collection:
    return db["halves"]


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"x": 1}
    for _ in range(depth - 1):
        inner = {"d": inner}
    return inner


VECTORS = [
    bad("NaN", lambda db, c: c.add(["x", "y"], [V[0], [NAN, 0, 0]]), "vectors", "row 1", "NaN"),
    bad("inf", lambda db, c: c.upsert(["x", "y"], [V[0], [1, INF, 0]]), "vectors", "row 1", "infinity"),
    bad("-inf", lambda db, c: c.add("x", [1, -INF, 0]), "vectors", "row 0", "infinity"),
    bad("NaN in update", lambda db, c: c.update("a", vectors=[NAN, 1, 1]), "vectors", "row 0", "NaN"),
    bad("too large for f16", lambda db, c: halves(db).add(["x", "y"], [[1, 2, 3], [1, 7e4, 0]]),
        "vectors", "row 1", "float16", "too large"),
    bad("too large for f32", lambda db, c: c.add("x", [1e39, 0, 0]), "vectors", "row 0", "too large"),
    bad("its length overflows", lambda db, c: c.add("x", [3e38, 3e38, 0]), "vectors", "row 0", "scale"),
    bad("too short", lambda db, c: c.add(["x"], [[1, 0]]), "vectors", "dimension 2", "3"),
    bad("too long", lambda db, c: c.upsert("x", [1, 0, 0, 0]), "vectors", "4", "3"),
    bad("too short in update", lambda db, c: c.update("a", vectors=[1, 2]), "vectors", "2", "3"),
    bad("ragged", lambda db, c: c.add(["x", "y"], [[1, 0, 0], [1, 0]]), "vectors", "row 1"),
    bad("three levels", lambda db, c: c.add(["x"], [[[1, 0, 0]]]), "vectors", "(1, 1, 3)", "(n, 3)"),
    bad("a number", lambda db, c: c.add("x", 5.0), "vectors", "(n, 3)"),
    bad("complex", lambda db, c: c.add("x", np.array([1j, 0, 0])), "vectors", "complex", "real"),
    bad("objects", lambda db, c: c.add("x", np.array([1, 0, 0], object)), "vectors", "object", "real"),
    bad("bools", lambda db, c: c.add("x", np.array([True, False, True])), "vectors", "bool", "real"),
    bad("strings", lambda db, c: c.add("x", ["1", "0", "0"]), "vectors", "real"),
    bad("None inside", lambda db, c: c.add(["x", "y"], [V[0], [1, None, 0]]), "vectors"),
    bad("bytes", lambda db, c: c.add("x", b"123"), "vectors", "bytes", "real"),
    bad("a dict", lambda db, c: c.add("x", {"other": [1, 0, 0]}), "vectors", "'other'", "'vector'"),
    bad("dates", lambda db, c: c.add("x", np.array(["2020", "2021", "2022"], "M8[Y]")), "vectors", "real"),
    bad("zero under cosine", lambda db, c: c.add(["x", "y"], [V[0], [0, 0, 0]]),
        "vectors", "row 1", "zero", "cosine", "l2"),
    bad("zero after rounding", lambda db, c: c.add("x", [1e-60, 0, 0]), "vectors", "row 0", "cosine"),
    bad("fewer rows than ids", lambda db, c: c.add(["x", "y"], [V[0]]), "vectors", "1", "2", "ids"),
    bad("more rows than ids", lambda db, c: c.upsert("x", V), "vectors", "2", "1"),
    bad("vectors without ids, 3-d", lambda db, c: c.add(vectors=np.ones((2, 2, 3))), "vectors"),
]  # fmt: skip

IDS = [
    bad("twice", lambda db, c: c.add(["x", "y", "x"], [*V, V[0]]), "ids", "row 2", "'x'", "twice"),
    bad("twice in upsert", lambda db, c: c.upsert([5, np.int64(5)], V), "ids", "row 1", "5"),
    bad("twice in update", lambda db, c: c.update(["a", "a"], metadata={"x": 1}), "ids", "row 1", "'a'"),
    bad("bool", lambda db, c: c.add(["x", True], V), "ids", "row 1", "True", "str", "int"),
    bad("bool alone", lambda db, c: c.add(True, V[0]), "ids", "bool"),
    bad("float", lambda db, c: c.add([1.0, "x"], V), "ids", "row 0", "1.0", "float"),
    bad("float alone", lambda db, c: c.upsert(1.5, V[0]), "ids", "float"),
    bad("numpy bool", lambda db, c: c.add([np.True_, "x"], V), "ids", "row 0"),
    bad("None inside", lambda db, c: c.add(["x", None], V), "ids", "row 1", "NoneType"),
    bad("bytes", lambda db, c: c.add(b"x", V[0]), "ids", "bytes"),
    bad("bytes inside", lambda db, c: c.add([b"x"], [V[0]]), "ids", "row 0", "bytes"),
    bad("empty", lambda db, c: c.add(["x", ""], V), "ids", "row 1", "1", "480"),
    bad("481 bytes", lambda db, c: c.add(["x", "i" * 481], V), "ids", "row 1", "481", "480"),
    bad("481 bytes alone", lambda db, c: c.get("i" * 481), "481", "480"),
    bad("482 bytes in 241 characters", lambda db, c: c.add("é" * 241, V[0]), "482", "480"),
    bad("lone surrogate", lambda db, c: c.add(["x", "\ud800"], V), "ids", "row 1"),
    bad("2**63", lambda db, c: c.add([1, 2**63], V), "ids", "row 1", str(2**63), "64"),
    bad("-2**63 - 1", lambda db, c: c.delete([-(2**63) - 1]), "ids", "row 0", "64"),
    bad("tuple", lambda db, c: c.add([("x", 1)], [V[0]]), "ids", "row 0", "tuple"),
    bad("array of vectors", lambda db, c: c.add(np.ones((2, 3))), "ids", "vectors="),
    bad("array as one id", lambda db, c: c.add(np.ones(3)), "ids", "vectors="),
    bad("list of lists", lambda db, c: c.add(V), "ids", "row 0", "vectors="),
    bad("list of arrays", lambda db, c: c.upsert([np.ones(3)]), "ids", "row 0", "vectors="),
    bad("array to get", lambda db, c: c.get(np.ones((2, 3))), "ids", "vectors="),
    bad("array to delete", lambda db, c: c.delete(np.ones((2, 3))), "ids", "vectors="),
    bad("dict", lambda db, c: c.add({"x": 1}, [V[0]]), "ids", "dict"),
    bad("an object", lambda db, c: c.add(object(), V[0]), "ids", "object"),
    bad("list in brackets", lambda db, c: c[["a", "b"]], "one id", "get"),
    bad("None to upsert", lambda db, c: c.upsert(None, V), "ids", "add"),
    bad("nothing to add", lambda db, c: c.add(), "vectors=", "texts=", "metadata="),
    bad("an id that is there", lambda db, c: c.add(["x", "a"], V), "ids", "row 1", "'a'", "upsert",
        error=AlreadyExists),
    bad("an int id that is there", lambda db, c: c.add([1, "x"], V), "row 0", "1", "upsert",
        error=AlreadyExists),
    bad("unknown to update", lambda db, c: c.update(["a", "zz"], metadata={"year": 5}),
        "ids", "row 1", "'zz'", error=NotFound),
    bad("unknown to update, other kind", lambda db, c: c.update(["1"], vectors=[V[1]]), "'1'",
        error=KeyError),
    bad("unknown in brackets", lambda db, c: c["zz"], "'zz'", "c", error=KeyError),
]  # fmt: skip

METADATA = [
    bad("a str", lambda db, c: c.add("x", V[0], metadata="year"), "metadata", "str", "dict"),
    bad("a number", lambda db, c: c.add("x", V[0], metadata=5), "metadata", "int", "dict"),
    bad("one dict for two rows", lambda db, c: c.add(["x", "y"], V, metadata={"a": 1}), "metadata", "2"),
    bad("one for two", lambda db, c: c.add(["x", "y"], V, metadata=[{}]), "metadata", "1", "2"),
    bad("three for two", lambda db, c: c.upsert(["x", "y"], V, metadata=[{}] * 3), "metadata", "3", "2"),
    bad("not a dict inside", lambda db, c: c.add(["x", "y"], V, metadata=[{}, 5]), "metadata", "row 1", "dict"),
    bad("int key", lambda db, c: c.add(["x", "y"], V, metadata=[{}, {5: 1}]), "metadata", "row 1", "5", "str"),
    bad("bytes", lambda db, c: c.add("x", V[0], metadata={"raw": b"x"}), "'raw'", "bytes", "text"),
    bad("set", lambda db, c: c.add("x", V[0], metadata={"tags": {1}}), "'tags'", "set", "sorted"),
    bad("array", lambda db, c: c.add("x", V[0], metadata={"e": np.ones(3)}), "'e'", "tolist"),
    bad("object, deep", lambda db, c: c.add("x", V[0], metadata={"a": {"b": object()}}), "'a.b'", "object"),
    bad("list of lists", lambda db, c: c.add("x", V[0], metadata={"m": [[1]]}), "'m[0]'", "list"),
    bad("list of dicts", lambda db, c: c.add("x", V[0], metadata={"m": [1, {}]}), "'m[1]'", "list"),
    bad("naive datetime", lambda db, c: c.add("x", V[0], metadata={"at": datetime(2020, 1, 1)}),
        "'at'", "time zone", "tzinfo"),
    bad("2**63", lambda db, c: c.add("x", V[0], metadata={"n": 2**63}), "'n'", "64", "string"),
    bad("lone surrogate", lambda db, c: c.add("x", V[0], metadata={"s": "\udfff"}), "'s'", "surrogate"),
    bad("surrogate key", lambda db, c: c.add("x", V[0], metadata={"\udfff": 1}), "surrogate"),
    bad("17 levels", lambda db, c: c.add("x", V[0], metadata=nested(17)), "16", "flatten"),
    bad("65,537 elements", lambda db, c: c.add("x", V[0], metadata={"l": [0] * 65_536}), "65,536"),
    bad("1 MiB", lambda db, c: c.add(["x", "y"], V, metadata=[{}, {"s": "x" * (1 << 20)}]),
        "row 1", "1,048,576", "bytes"),
    bad("1 MiB by patching", lambda db, c: c.update(where={}, metadata={"more": "x" * 600_000}),
        "1,048,576", "bytes", "'big'"),
    bad("a.b beside a: {b}", lambda db, c: c.add("x", V[0], metadata={"a.b": 1, "a": {"b": 2}}),
        "a.b", error=SchemaError),
    bad("a.b beside a: {b} by patching", lambda db, c: c.update("b", metadata={"n": {"m": 2}}),
        "n.m", error=SchemaError),
    bad("REMOVE in add", lambda db, c: c.add("x", V[0], metadata={"a": vecdb.REMOVE}), "'a'", "REMOVE"),
    bad("REMOVE, deep", lambda db, c: c.update("a", metadata={"a": {"b": vecdb.REMOVE}}), "'a.b'", "REMOVE"),
    bad("patch that is no dict", lambda db, c: c.update("a", metadata=5), "metadata", "int"),
    bad("two patches for one row", lambda db, c: c.update("a", metadata=[{}, {}]), "metadata", "2", "1"),
    bad("naive datetime by where", lambda db, c: c.update(where={}, metadata={"at": datetime(2020, 1, 1)}),
        "'at'", "time zone"),
]  # fmt: skip

TEXTS = [
    bad("not a str", lambda db, c: c.add(["x", "y"], V, texts=["fine", 5]), "texts", "row 1", "int"),
    bad("one for two", lambda db, c: c.add(["x", "y"], V, texts=["fine"]), "texts", "1", "2"),
    bad("a str for two", lambda db, c: c.upsert(["x", "y"], V, texts="fine"), "texts", "1", "2"),
    bad("lone surrogate", lambda db, c: c.add("x", V[0], texts="\ud800"), "texts", "row 0", "surrogate"),
    bad("16 MiB", lambda db, c: c.add("x", V[0], texts="x" * ((16 << 20) + 1)), "texts", "row 0", "16,777,216"),
    bad("a number", lambda db, c: c.update("a", texts=5), "texts", "int"),
]  # fmt: skip

TARGETS = [
    bad("update neither", lambda db, c: c.update(metadata={"x": 1}), "ids=", "where=", "where={}"),
    bad("update both", lambda db, c: c.update("a", where={}, metadata={"x": 1}), "ids=", "where="),
    bad("update [] and where", lambda db, c: c.update([], where={}, metadata={"x": 1}), "ids=", "where="),
    bad("delete neither", lambda db, c: c.delete(), "ids=", "where=", "where={}"),
    bad("delete both", lambda db, c: c.delete("a", where=F.year == 1), "ids=", "where="),
    bad("where with vectors", lambda db, c: c.update(where={}, vectors=V, metadata={"x": 1}), "where", "vectors"),
    bad("where with texts", lambda db, c: c.update(where={}, texts="t", metadata={"x": 1}), "where", "texts"),
    bad("where with a list", lambda db, c: c.update(where={}, metadata=[{"x": 1}]), "where", "one metadata dict"),
    bad("where with nothing", lambda db, c: c.update(where={}), "where", "metadata"),
]  # fmt: skip

FILTERS = [
    bad(f"{name} ({verb})", call, *words, error=FilterError)
    for name, where, words in [
        ("text with a slip", "year == 1 & ok == true", ("character 10", "and")),
        ("text without a value", "year ==", ("character 7", "value")),
        ("a number", 5, ("int", "F.")),
        ("a list", [F.year == 1], ("list",)),
        ("a bool", True, ("bool",)),
        ("unknown operator", {"year": {"$gtt": 1}}, ("$gtt", "$gte")),
        ("unknown combination", {"$xor": []}, ("$xor", "$and")),
        ("no $", {"a": {"b": 1}}, ("'b'", "a.b")),
        ("empty operators", {"year": {}}, ("year", "$gte")),
        ("empty $or", {"$or": []}, ("$or",)),
        ("int key", {5: 1}, ("5", "str")),
        ("None", {"year": None}, ("year", "is_null")),
        ("a list as value", {"year": [1, 2]}, ("year", "contains_all")),
        ("ordering a bool", {"year": {"$gt": True}}, ("year", "bool")),
        ("naive datetime", {"at": {"$gt": datetime(2020, 1, 1)}}, ("at", "time zone")),
        ("$in a str", {"lang": {"$in": "en"}}, ("lang", "list")),
        ("$between of one", {"year": {"$between": [1]}}, ("$between", "low")),
        ("$exists of 1", {"year": {"$exists": 1}}, ("$exists", "true")),
        ("bytes", {"x": b"y"}, ("bytes",)),
        ("a set", {"x": {1}}, ("x",)),
        ("an object", {"x": object()}, ("object",)),
        ("a huge int", {"x": 10**5000}, ("bits",)),
        ("too many alternatives", {"x": {"$in": list(range(10_001))}}, ("10,000",)),
        ("array", {"x": np.ones(3)}, ("x",)),
    ]
    for verb, call in {
        "count": lambda db, c, where=where: c.count(where),
        "search": lambda db, c, where=where: c.search(V[0], where=where),
        "delete": lambda db, c, where=where: c.delete(where=where),
        "update": lambda db, c, where=where: c.update(where=where, metadata={"x": 1}),
        "explain": lambda db, c, where=where: c.explain(V[0], where=where),
    }.items()
]

EXPRESSIONS = [
    bad("bool of a filter", lambda db, c: bool(F.x == 1), "&", "|", error=FilterError),
    bad("and", lambda db, c: (F.x == 1) and (F.y == 2), "&", error=FilterError),
    bad("not", lambda db, c: not (F.x == 1), "~", error=FilterError),
    bad("chained", lambda db, c: 1 < F.x < 3, error=FilterError),
    bad("in", lambda db, c: 1 in F.x, "isin", error=FilterError),
    bad("bool of a field", lambda db, c: bool(F.x), "exists", error=FilterError),
    bad("== None", lambda db, c: F.x == None, "is_null", error=FilterError),  # noqa: E711
    bad("== list", lambda db, c: F.x == [1], "contains_all", error=FilterError),
    bad("two fields", lambda db, c: F.x == F.y, "field", error=FilterError),
    bad("missing brackets", lambda db, c: F.x == 1 & F.y == 2, error=FilterError),
    bad("unknown method", lambda db, c: F.x.startsby("a"), "isin", error=FilterError),
    bad("< True", lambda db, c: F.x < True, "bool", error=FilterError),
    bad("isin a str", lambda db, c: F.x.isin("abc"), "list", error=FilterError),
    bad("naive", lambda db, c: F.x > datetime(2020, 1, 1), "time zone", error=FilterError),
]  # fmt: skip

SEARCHES = [
    *[bad(f"k={k!r}", lambda db, c, k=k: c.search(V[0], k), "k=", "1", "int")
      for k in (0, -1, True, 1.5, "10", np.True_, [], 10**9)],
    *[bad(f"offset={o!r}", lambda db, c, o=o: c.search(V[0], offset=o), "offset=", "0", "100,000")
      for o in (-1, True, 1.5, "1", None, [], np.float32(1), 10**9)],
    bad("k and offset", lambda db, c: c.search(V[0], 60_000, offset=40_001), "k=", "offset=", "100,000"),
    *[bad(f"radius={r!r}", lambda db, c, r=r: c.search(V[0], radius=r), "radius=", "0")
      for r in (-0.1, -1, -1e300, -INF, NAN, True, np.bool_(False), np.float32("nan"), "1", [], V[0])],
    bad("radius of explain", lambda db, c: c.explain(V[0], radius=-1), "radius=", "cosine"),
    bad("radius of prepare", lambda db, c: c.prepare(radius=-1), "radius=", "cosine"),
    bad("radius of why_not", lambda db, c: c.why_not(V[0], "a", radius=-1), "radius=", "cosine"),
    bad("k of prepare", lambda db, c: c.prepare(0), "k=", "1"),
    bad("filter of prepare", lambda db, c: c.prepare(where="x ="), error=FilterError),
    bad("query of a prepared search", lambda db, c: c.prepare()([1, 0]), "query", "2", "3"),
    bad("batch for why_not", lambda db, c: c.why_not([V[0]], "a"), "one query"),
    bad("ids for why_not", lambda db, c: c.why_not(V[0], ["a"]), "one id"),
    bad("bool id for why_not", lambda db, c: c.why_not(V[0], True), "id"),
    bad("texts and vectors", lambda db, c: c.search(["a text", V[0]]), "query", "item 0", "item 1"),
    bad("a tuple of texts", lambda db, c: c.search(("a", "b")), "query", "list of str"),
    *[bad(f"ef={ef!r}", lambda db, c, ef=ef: c.search(V[0], ef=ef), "ef=", "1", "int")
      for ef in (0, -1, True, 2.5, "64", 10**9)],
    *[bad(f"recall={r!r}", lambda db, c, r=r: c.search(V[0], recall=r), "recall=", "0", "1")
      for r in (0, -0.5, 1.01, NAN, INF, True, "high", None, np.True_, np.float32("nan"))],
    bad("k of explain", lambda db, c: c.explain(V[0], 0), "k=", "1"),
    bad("NaN query", lambda db, c: c.search([NAN, 0, 0]), "query", "NaN"),
    bad("infinite query", lambda db, c: c.search([INF, 0, 0]), "query", "infinity"),
    bad("NaN in a batch", lambda db, c: c.search([V[0], [0, NAN, 0]]), "query", "row 1", "NaN"),
    bad("zero query under cosine", lambda db, c: c.search([0, 0, 0]), "query", "zero", "cosine"),
    bad("zero in a batch", lambda db, c: c.search([V[0], [0, 0, 0]]), "query", "row 1", "zero"),
    bad("short query", lambda db, c: c.search([1, 0]), "query", "2", "3"),
    bad("long batch", lambda db, c: c.search(np.ones((2, 4))), "query", "4", "3"),
    bad("three levels", lambda db, c: c.search(np.ones((1, 1, 3))), "query", "(1, 1, 3)"),
    bad("a number as query", lambda db, c: c.search(5.0), "query"),
    bad("None as query", lambda db, c: c.search(None), "query"),
    bad("complex query", lambda db, c: c.search(np.array([1j, 0, 0])), "query", "complex"),
    bad("bool query", lambda db, c: c.search(np.array([True, True, False])), "query", "bool"),
    bad("object query", lambda db, c: c.search(np.array([1, 0, None], object)), "query", "object"),
    bad("dict query", lambda db, c: c.search({"x": 1}), "query", "dict"),
    bad("text without an encoder", lambda db, c: c.search("hello"), "encoder", "'c'"),
    bad("texts without an encoder", lambda db, c: c.search(["hello", "you"]), "encoder", "'c'"),
    bad("ragged batch", lambda db, c: c.search([[1, 0, 0], [1, 0]]), "query", "row 1"),
    bad("huge query", lambda db, c: c.search([1e39, 0, 0]), "query"),
]  # fmt: skip

SCHEMAS = [
    *[bad(f"dim={dim!r}", lambda db, c, dim=dim: db.create_collection("new", dim), "dim", "1", "65535|65,535")
      for dim in (0, -3, 2.5, True, "3", 65_536)],
    bad("neither dim nor encoder", lambda db, c: db.create_collection("new"), "dim=", "encoder="),
    bad("metric", lambda db, c: db.create_collection("new", 3, metric="euclid"), "metric", "cosine", "l2", "dot"),
    bad("dtype", lambda db, c: db.create_collection("new", 3, dtype="f64"), "dtype", "f32", "f16"),
    bad("M", lambda db, c: db.create_collection("new", 3, M=2), "M=2", "4", "64"),
    bad("ef_construction", lambda db, c: db.create_collection("new", 3, ef_construction=1), "ef_construction=1", "8"),
    bad("no name", lambda db, c: db.create_collection("", 3), "name", "str"),
    bad("name 5", lambda db, c: db.create_collection(5, 3), "name", "5", "str"),  # type: ignore[arg-type]
    bad("name of 256 bytes", lambda db, c: db.create_collection("n" * 256, 3), "name", "256", "255"),
    bad("surrogate name", lambda db, c: db.create_collection("\ud800", 3), "name"),
    bad("unknown encoder", lambda db, c: db.create_collection("new", encoder="nope"), "nope", error=vecdb.VecdbError),
    bad("exists", lambda db, c: db.create_collection("c", 3), "'c'", "get_or_create_collection", error=AlreadyExists),
    bad("other dim", lambda db, c: db.get_or_create_collection("c", 4), "'c'", "dim", "3", "4", error=SchemaError),
    bad("other metric", lambda db, c: db.get_or_create_collection("c", 3, metric="l2"),
        "'c'", "metric", "cosine", "l2", error=SchemaError),
    bad("other dtype", lambda db, c: db.get_or_create_collection("c", 3, dtype="f16"),
        "'c'", "dtype", "f32", "f16", error=SchemaError),
    bad("other M", lambda db, c: db.get_or_create_collection("c", 3, M=8), "'c'", "M", "16", "8", error=SchemaError),
    bad("other ef_construction", lambda db, c: db.get_or_create_collection("c", 3, ef_construction=50),
        "'c'", "ef_construction", "200", "50", error=SchemaError),
    bad("bad metric for an existing one", lambda db, c: db.get_or_create_collection("c", 3, metric="euclid"), "metric"),
    bad("unknown collection", lambda db, c: db["nope"], "'nope'", "'c'", "'halves'", error=NotFound),
    bad("unknown collection is a KeyError", lambda db, c: db["nope"], error=KeyError),
    bad("drop unknown", lambda db, c: db.drop_collection("nope"), "'nope'", error=NotFound),
    bad("rename unknown", lambda db, c: db.rename_collection("nope", "x"), "'nope'", error=NotFound),
    bad("rename onto another", lambda db, c: db.rename_collection("c", "halves"), "'halves'", error=AlreadyExists),
    bad("rename to nothing", lambda db, c: db.rename_collection("c", ""), "name"),
]  # fmt: skip


def nesting(db: vecdb.Database, c: vecdb.Collection) -> None:
    with db.transaction():
        c.add("lost", V[0])
        with db.transaction():
            raise AssertionError("nested")


def inside(verb: Callable[[vecdb.Database, vecdb.Collection], object]) -> Call:
    def call(db: vecdb.Database, c: vecdb.Collection) -> None:
        with db.transaction():
            c.add("lost", V[0])
            verb(db, c)

    return call


def swallowed(db: vecdb.Database, c: vecdb.Collection) -> None:
    """A call that fails half way cannot be kept by catching its error and committing."""
    with db.transaction():
        c.add("lost", V[0])
        try:
            c.update(where={}, metadata={"more": "x" * 600_000})
        except InvalidArgument:
            pass


TRANSACTIONS = [
    bad("nested", nesting, "transaction"),
    bad("optimize inside", inside(lambda db, c: c.optimize()), "optimize", "transaction"),
    bad("backup inside", inside(lambda db, c: db.backup("x")), "backup", "transaction"),
    bad("close inside", inside(lambda db, c: db.close()), "close", "transaction"),
    bad("a bad row inside", inside(lambda db, c: c.add("x", [NAN, 0, 0])), "row 0", "NaN"),
    bad("half a write kept", swallowed, "transaction"),
]

TABLE = [
    (part, case)
    for part, cases in {
        "vectors": VECTORS, "ids": IDS, "metadata": METADATA, "texts": TEXTS, "targets": TARGETS,
        "filter": FILTERS, "expression": EXPRESSIONS, "search": SEARCHES, "schema": SCHEMAS,
        "transaction": TRANSACTIONS,
    }.items()
    for case in cases
]  # fmt: skip


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vecdb.Database]:
    path = tmp_path_factory.mktemp("misuse") / "m.vecdb"
    with vecdb.open(path, durability="none", upkeep=False) as db:  # nobody else commits
        c = db.create_collection("c", dim=3, metric="cosine")
        db.create_collection("halves", dim=3, metric="l2", dtype="f16").add("h", [1, 2, 3])
        c.add(["a", "b", 1], [*V, [1, 1, 1]], metadata=[{"year": 1}, {"n.m": 2}, {"l": [1]}],
              texts=["one", "two", "three"])  # fmt: skip
        c.add("big", metadata={"s": "x" * 600_000})
        yield db


def state(db: vecdb.Database) -> Any:
    """All that a misuse could have changed."""
    c = db["c"]
    records = [(r.id, r.metadata, r.text, None if r.vector is None else r.vector.tolist()) for r in c]
    return (
        db.collections(), records, len(c), c.count({}), c.count(F.x == 1), c.count(F.lang.exists()),
        c.search(V[0], 10).ids, len(db["halves"]), c.stats(), db["halves"].stats(),
    )  # fmt: skip


@pytest.mark.parametrize(("part", "case"), TABLE, ids=[f"{p}-{c.name}" for p, c in TABLE])
def test_misuse_is_the_named_error_and_changes_nothing(
    database: vecdb.Database, part: str, case: Misuse
) -> None:
    before = state(database)
    with pytest.raises(case.error) as caught:
        case.call(database, database["c"])
    assert isinstance(caught.value, vecdb.VecdbError), "nothing but vecdb's own errors escapes"
    message = str(caught.value)
    for word in case.words:
        assert any(option in message for option in word.split("|")), f"{word!r} is not in: {message}"
    assert len(message) < 600 and message == message.strip()
    assert state(database) == before
    assert database.check() == []


def test_the_table_is_whole() -> None:
    """The control: an error for every call would pass too, so near misses must succeed."""
    print(f"misuse: {len(TABLE)} calls refused")
    with vecdb.open() as db:
        c = db.create_collection("c", dim=3)
        half = db.create_collection("halves", dim=3, metric="l2", dtype="f16")
        half.add(["x", "zero"], [[65_504, 0, 0], [0, 0, 0]])
        c.add(["i" * 480, "é" * 240, 2**63 - 1, -(2**63), "\x00"], np.ones((5, 3), np.float64))
        c.add("deep", V[0], metadata=nested(16))
        c.add("long", V[0], metadata={"l": [0] * 65_535})
        c.add("large", V[0], metadata={"s": "x" * ((1 << 20) - 20)}, texts="x" * (16 << 20))
        c.add("int8", np.array([1, 2, 3], np.int8), metadata={"n": 2**63 - 1, "f": NAN})
        c.add(np.array([5, 6]), np.ones((2, 3), np.float16))
        c.add(np.array(["s", "t"]), np.ones((2, 3), np.uint8))
        assert len(c) == 13 and db.check() == []


# --- handles that are gone --------------------------------------------------------------------

DATABASE_VERBS: dict[str, Callable[[vecdb.Database], object]] = {
    "collections": lambda db: db.collections(),
    "iter": lambda db: list(db),
    "in": lambda db: "c" in db,
    "getitem": lambda db: db["c"],
    "create": lambda db: db.create_collection("d", dim=2),
    "get_or_create": lambda db: db.get_or_create_collection("c", dim=3),
    "drop": lambda db: db.drop_collection("c"),
    "rename": lambda db: db.rename_collection("c", "d"),
    "transaction": lambda db: db.transaction().__enter__(),
    "sync": lambda db: db.sync(),
    "backup": lambda db: db.backup("nowhere/at all"),
    "optimize": lambda db: db.optimize(),
    "check": lambda db: db.check(),
    "stats": lambda db: db.stats(),
}
READS: dict[str, Callable[[vecdb.Collection], object]] = {
    "get": lambda c: c.get("a"),
    "get list": lambda c: c.get(["a"]),
    "getitem": lambda c: c["a"],
    "in": lambda c: "a" in c,
    "len": len,
    "count": lambda c: c.count(),
    "count where": lambda c: c.count(F.year == 1),
    "iter": list,
    "search": lambda c: c.search(V[0]),
    "search where": lambda c: c.search(V[0], where=F.year == 1),
    "search many": lambda c: c.search(V),
    "explain": lambda c: c.explain(V[0]),
    "stats": lambda c: c.stats(),
}
WRITES: dict[str, Callable[[vecdb.Collection], object]] = {
    "add": lambda c: c.add("x", V[0]),
    "add metadata": lambda c: c.add(metadata=[{"x": 1}]),
    "upsert": lambda c: c.upsert("a", V[0]),
    "update": lambda c: c.update("a", metadata={"x": 1}),
    "update where": lambda c: c.update(where={}, metadata={"x": 1}),
    "delete": lambda c: c.delete("a"),
    "delete where": lambda c: c.delete(where={}),
    "optimize": lambda c: c.optimize(),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "f.vecdb"
    with vecdb.open(file) as db:
        db.create_collection("c", dim=3).add(["a", "b"], V, metadata=[{"year": 1}, {}])
    return file


@pytest.mark.parametrize("verb", DATABASE_VERBS)
def test_a_closed_database_says_so(path: Path, verb: str) -> None:
    db = vecdb.open(path)
    db.close()
    with pytest.raises(Closed, match=f"{re.escape(path.name)}.*open"):
        DATABASE_VERBS[verb](db)


@pytest.mark.parametrize("verb", [*READS, *WRITES])
def test_a_collection_of_a_closed_database_says_so(path: Path, verb: str) -> None:
    db = vecdb.open(path)
    c = db["c"]
    c.search(V[0])
    db.close()
    with pytest.raises(Closed, match=re.escape(path.name)):
        {**READS, **WRITES}[verb](c)


@pytest.mark.parametrize("verb", [*READS, *WRITES])
def test_a_handle_of_a_dropped_collection_says_so(path: Path, verb: str) -> None:
    with vecdb.open(path) as db:
        c = db["c"]
        c.search(V[0])
        db.drop_collection("c")
        with pytest.raises(NotFound, match="dropped"):
            {**READS, **WRITES}[verb](c)
        db.create_collection("c", dim=3)  # another one of that name is not meant
        with pytest.raises(NotFound, match="dropped"):
            {**READS, **WRITES}[verb](c)
        assert db.check() == []


@pytest.mark.parametrize("verb", WRITES)
def test_mode_r_refuses_every_write(path: Path, verb: str) -> None:
    before = path.read_bytes()
    with vecdb.open(path, mode="r") as db:
        with pytest.raises(ReadOnly, match=r"mode='r'.*mode='rw'"):
            WRITES[verb](db["c"])
        assert len(db["c"]) == 2 and db.check() == []
    assert path.read_bytes() == before


@pytest.mark.parametrize("verb", ["create", "drop", "rename", "transaction", "optimize"])
def test_mode_r_refuses_to_change_the_catalog(path: Path, verb: str) -> None:
    before = path.read_bytes()
    with vecdb.open(path, mode="r") as db:
        with pytest.raises(ReadOnly, match="mode"):
            DATABASE_VERBS[verb](db)
        assert db.get_or_create_collection("c", dim=3).get("a") is not None
        with pytest.raises(ReadOnly, match="mode"):
            db.get_or_create_collection("d", dim=3)
    assert path.read_bytes() == before


def test_a_generator_of_records_ends_with_its_database(path: Path) -> None:
    db = vecdb.open(path)
    rows = iter(db["c"])
    db.close()
    with pytest.raises(Closed):
        next(rows)


# --- opening ----------------------------------------------------------------------------------

OPENINGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "mode": ({"mode": "w"}, ("mode", "'rw'", "'r'", "'x'", "'w'")),
    "durability": ({"durability": "sync"}, ("durability", "'full'", "'relaxed'", "'none'")),
    "verify": ({"verify": True}, ("verify", "'auto'", "'always'", "'never'")),
    "timeout": ({"timeout": -1}, ("timeout", "0", "-1")),
    "timeout NaN": ({"timeout": NAN}, ("timeout",)),
    "timeout str": ({"timeout": "5"}, ("timeout", "seconds")),
    "threads 0": ({"threads": 0}, ("threads", "1", "0")),
    "threads 2.5": ({"threads": 2.5}, ("threads", "int")),
    "max_size": ({"max_size": 1000}, ("max_size", "1000", "bytes")),
    "immutable": ({"immutable": True}, ("immutable", "mode='r'")),
    "immutable 1": ({"immutable": 1, "mode": "r"}, ("immutable", "True")),
    "upkeep": ({"upkeep": None}, ("upkeep", "True")),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_open_names_the_argument_that_it_cannot_use(path: Path, name: str) -> None:
    given, words = OPENINGS[name]
    with pytest.raises(InvalidArgument) as caught:
        vecdb.open(path, **given)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("bad_path", [5, b"bytes", "", "a\0b", 1.5])
def test_open_refuses_what_is_no_path(bad_path: Any) -> None:
    with pytest.raises(InvalidArgument, match="path"):
        vecdb.open(bad_path)


def test_open_in_memory_is_for_writing_only() -> None:
    for mode in ("r", "x"):
        with pytest.raises(InvalidArgument, match="path"):
            vecdb.open(mode=mode)


def test_open_says_what_is_not_there_and_what_is(tmp_path: Path, path: Path) -> None:
    with pytest.raises(NotFound, match="none.vecdb"):
        vecdb.open(tmp_path / "none.vecdb", mode="r")
    with pytest.raises(AlreadyExists, match=path.name):
        vecdb.open(path, mode="x")
    with pytest.raises(vecdb.VecdbError, match="missing"):
        vecdb.open(tmp_path / "missing" / "x.vecdb")
    with pytest.raises(vecdb.VecdbError):
        vecdb.open(tmp_path)
    assert not (tmp_path / "none.vecdb").exists() and not (tmp_path / "missing").exists()


def test_another_durability_in_the_same_process_is_refused(path: Path) -> None:
    with vecdb.open(path), pytest.raises(InvalidArgument, match=r"durability.*full"):
        vecdb.open(path, durability="relaxed")
