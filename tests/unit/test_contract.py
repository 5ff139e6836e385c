"""Every public verb keeps three promises, a row of a table each.

    errors       what it cannot use is the named error, with the words that help, and changes nothing
                 (test_misuse.py has those of rows, ids, metadata and filters; here are the others)
    transaction  it joins this thread's transaction, or is refused inside one by name
    snapshot     it answers as of the snapshot's commit, or is `ReadOnly` there

A public method of a database or a collection without a row fails `test_every_public_verb_has_a_row`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import vecdb
from vecdb import F
from vecdb.errors import (
    AlreadyExists,
    FilterError,
    InvalidArgument,
    NotFound,
    ReadOnly,
    SchemaError,
)
from vecdb.snapshot import Snapshot, SnapshotCollection

Call = Callable[[Any, Any], Any]  # of a database, or what stands for it, and its collection "c"
SPECIAL = ("__getitem__", "__contains__", "__iter__", "__len__")
V = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]
PLOT = {"using": "plot"}


class Bad(NamedTuple):
    """A call that must fail, how, and what the message must say."""

    call: Call
    words: tuple[str, ...]
    error: type[Exception] = InvalidArgument


def bad(call: Call, *words: str, error: type[Exception] = InvalidArgument) -> Bad:
    return Bad(call, words, error)


class Verb(NamedTuple):
    """What a public method promises."""

    call: Call | None  # an ordinary call of it; None: it has a test of its own
    errors: tuple[Bad, ...] = ()
    writes: bool = False
    joins: bool = True  # a transaction; else it is refused inside
    needs: str = ""  # a package


def turned(dim: int, metric: str = "cosine") -> Any:
    """An adapter that turns the axes round."""
    from vecdb.adapting.adapter import Adapter

    return Adapter(np.eye(dim)[::-1], metric=metric)


# --- what is asked and answered ---------------------------------------------------------------


def hits(found: Any) -> Any:
    if isinstance(found, list):
        return [hits(each) for each in found]
    return found.ids, [round(float(d), 5) for d in found.distances]


def record(found: Any) -> Any:
    if found is None:
        return None
    vectors = {name: vector.tolist() for name, vector in found.vectors.items()}
    return found.id, found.metadata, found.text, vectors


def records(found: Any) -> Any:
    return [record(each) for each in found]


def graph(found: Any) -> Any:
    index, ids = found
    return ids, index.get_items(range(len(ids)))


def near(using: str = "plot") -> Any:
    return np.array([1.0, 0.1] if using == "plot" else [1] * 9, np.float32)


def refusals(verb: Callable[[Any, dict[str, Any]], Any]) -> tuple[Bad, ...]:
    """What every verb with the options of a search refuses."""
    options: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"k": 0}, ("k=0", "100,000")),
        ({"k": True}, ("k=True", "int")),
        ({"k": 100_001}, ("k=100001", "100,000")),
        ({"k": "3"}, ("k='3'", "int")),
        ({"offset": -1}, ("offset=-1", "0")),
        ({"offset": 1.5}, ("offset=1.5", "int")),
        ({"k": 60_000, "offset": 60_000}, ("60000", "100,000", "k=None")),
        ({"radius": -0.5}, ("radius=-0.5", "cosine", "0")),
        ({"radius": float("nan")}, ("radius=nan", "distance")),
        ({"radius": "near"}, ("radius='near'", "number")),
        ({"radius": True}, ("radius=True", "number")),
        ({"using": "nope"}, ("'nope'", "'plot'", "'bits'")),
        ({"using": 5}, ("using=5", "'plot'")),
        ({"using": ["plot"]}, ("['plot']", "'plot'")),
        ({"using": None}, ("using=", "'plot'", "'bits'")),
        ({"using": "many"}, ("'many'", "multi=True", "searched")),
        ({"ef": 0}, ("ef=0", "1")),
        ({"ef": 2.5}, ("ef=2.5", "int")),
        ({"recall": 0}, ("recall=0", "1")),
        ({"recall": 1.5}, ("recall=1.5",)),
        ({"recall": "all"}, ("recall='all'",)),
    ]  # fmt: skip
    made = [
        bad(lambda db, c, given=given: verb(c, {**PLOT, **given}), *words) for given, words in options
    ]
    return (
        *made,
        bad(lambda db, c: verb(c, {**PLOT, "where": 5}), "int", "F.", error=FilterError),
        bad(lambda db, c: verb(c, {**PLOT, "where": F["\0lacks:0"] == True}), "NUL", error=FilterError),  # noqa: E712
    )


def bad_queries(verb: Callable[[Any, Any, str], Any]) -> tuple[Bad, ...]:
    """What every verb that takes a query refuses."""
    queries: list[tuple[Any, str, tuple[str, ...]]] = [
        ([1, 2, 3], "plot", ("3", "2")),
        ([[]], "plot", ("(1, 0)", "(b, 2)")),
        ([0, 0], "plot", ("query", "zero", "cosine")),
        ([float("nan"), 1], "plot", ("query", "NaN")),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "plot", ("query", "masked")),
        (Refusing(), "plot", ("query", "not today")),
        (np.full(9, 0.5, np.float32), "bits", ("query", "0 or 1")),
        ([2] * 9, "bits", ("query", "0 or 1")),
        (np.array([1, 0xFF], np.uint8), "bits", ("query", "beyond dim 9")),
        ("hello", "plot", ("text", "no encoder", "give vectors")),
    ]
    return tuple(
        bad(lambda db, c, q=query, u=using: verb(c, q, u), *words) for query, using, words in queries
    )


class Refusing:
    """An object that raises what it likes when it is asked to be an array."""

    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("not today")


def encoder() -> Any:
    def encode(texts: list[str]) -> Any:
        return np.array([[len(text), 1.0, 2.0] for text in texts], np.float32)

    return vecdb.encoders.function(encode, name="told", dim=3)


def new(db: Any, name: str = "new", **given: Any) -> Any:
    return db.create_collection(name, **{"dim": 2, **given})


NO_COLLECTION = ([], 5, "nope")

# --- the table --------------------------------------------------------------------------------

DATABASE: dict[str, Verb] = {
    "searches": Verb(None),  # tests/unit/test_searches.py
    "search_log": Verb(None),  # tests/unit/test_search_log.py
    "collections": Verb(lambda db, c: db.collections()),
    "__iter__": Verb(lambda db, c: list(db)),
    "__contains__": Verb(lambda db, c: ["c" in db, "d" in db, 5 in db, [] in db]),
    "__getitem__": Verb(
        lambda db, c: len(db["c"]),
        tuple(bad(lambda db, c, n=n: db[n], repr(n), "'c'", error=NotFound) for n in NO_COLLECTION),
    ),
    "create_collection": Verb(
        lambda db, c: new(db), (
            bad(lambda db, c: new(db, vectors={}), "vectors"),
            bad(lambda db, c: new(db, dim=None, vectors={}), "vectors={}", "one"),
            bad(lambda db, c: new(db, dim=None, vectors={"a": 5}), "'a'", "int", "vecdb.Vector"),
            bad(lambda db, c: new(db, dim=None, vectors={5: vecdb.Vector(2)}), "5", "str"),
            bad(lambda db, c: new(db, fields=[int]), "fields", "dict"),
            bad(lambda db, c: new(db, dtype="b1", metric="l2"), "b1", "hamming"),
            bad(lambda db, c: new(db, metric="hamming"), "hamming", "b1"),
            bad(lambda db, c: new(db, quantization="sq5"), "quantization", "sq8"),
            bad(lambda db, c: new(db, encoder=encoder(), dtype="i8", dim=None), "i8", "f32"),
            bad(lambda db, c: new(db, encoder=encoder()), "dim=2", "'told'", "3"),
        ), writes=True,
    ),
    "get_or_create_collection": Verb(
        lambda db, c: db.get_or_create_collection("new", 2), (
            bad(lambda db, c: db.get_or_create_collection("c", 2), "'c'", "bits", error=SchemaError),
        ), writes=True,
    ),
    "drop_collection": Verb(
        lambda db, c: db.drop_collection("other"),
        tuple(bad(lambda db, c, n=n: db.drop_collection(n), repr(n), error=NotFound)
              for n in NO_COLLECTION), writes=True,
    ),
    "rename_collection": Verb(
        lambda db, c: db.rename_collection("other", "another"), (
            *(bad(lambda db, c, n=n: db.rename_collection(n, "x"), repr(n), error=NotFound)
              for n in NO_COLLECTION),
            bad(lambda db, c: db.rename_collection("c", []), "name", "str"),
            bad(lambda db, c: db.rename_collection("c", "other"), "'other'", error=AlreadyExists),
        ), writes=True,
    ),
    "stats": Verb(lambda db, c: {n: s["rows"] for n, s in db.stats()["collections"].items()}),
    "clear_embedding_cache": Verb(lambda db, c: db.clear_embedding_cache(), writes=True),
    "sync": Verb(lambda db, c: db.sync()),
    "check": Verb(lambda db, c: db.check(), joins=False),
    "transaction": Verb(lambda db, c: db.transaction().__enter__(), joins=False),
    "snapshot": Verb(lambda db, c: db.snapshot().close(), (
        bad(lambda db, c: db.snapshot()["nope"], "'nope'", "'c'", error=NotFound),
        bad(lambda db, c: db.snapshot()[[]], "[]", "'c'", error=NotFound),
    ), joins=False),
    "backup": Verb(lambda db, c: None, (
        bad(lambda db, c: db.backup(5), "path", "int"),
        bad(lambda db, c: db.backup(None), "path", "None"),
        bad(lambda db, c: db.backup("a\0b"), "path", "NUL"),
        bad(lambda db, c: db.backup(db._env.path), "exists", error=AlreadyExists),
    ), joins=False),
    "compact": Verb(lambda db, c: db.compact(), joins=False),
    "optimize": Verb(lambda db, c: db.optimize(), joins=False),
    "close": Verb(None),
}  # fmt: skip

COLLECTION: dict[str, Verb] = {
    "name": Verb(lambda db, c: c.name),
    "schema": Verb(lambda db, c: list(c.schema.vectors), (bad(lambda db, c: c.schema.dim, "'plot'"),)),
    "add": Verb(
        lambda db, c: c.add(["x", "y"], {"plot": V[:2]}, metadata=[{"n": 9}, {}]), (
            bad(lambda db, c: c.add(metadata=(each for each in [{}])), "metadata", "generator", "list"),
            bad(lambda db, c: c.add(texts=(each for each in ["t"])), "texts", "generator", "list"),
            bad(lambda db, c: c.add(["x"], (each for each in V)), "vectors", "'plot'", "{name"),
            bad(lambda db, c: c.add("x", V[0]), "vectors", "'plot'", "'bits'", "{name: array}"),
            bad(lambda db, c: c.add("x", {"nope": V[0]}), "'nope'", "'plot'"),
            bad(lambda db, c: c.add(["x", "y"], {"plot": [None, [1, 2, 3]]}), "'plot'", "3", "2"),
            bad(lambda db, c: c.add(["x", "y"], {"plot": [None, [0, 0]]}), "'plot'", "row 1", "zero"),
            bad(lambda db, c: c.add("x", {"plot": Refusing()}), "'plot'", "not today"),
            bad(lambda db, c: c.add("x", {"small": [1.5, 2, 3]}), "'small'", "float64", "int8"),
            bad(lambda db, c: c.add("x", {"small": np.array([1, 2, 3])}), "'small'", "int64", "int8"),
            bad(lambda db, c: c.add("x", {"small": [1, 2, 300]}), "'small'", "int8"),
            bad(lambda db, c: c.add("x", {"bits": [2] * 9}), "'bits'", "row 0", "0 or 1"),
            bad(lambda db, c: c.add("x", {"bits": [1, 255]}), "'bits'", "int64", "uint8"),
            bad(lambda db, c: c.add(["x", "y"], {"bits": [None, np.array([1, 255], np.uint8)]}),
                "'bits'", "row 1", "beyond dim 9"),
            bad(lambda db, c: c.add("x", {"many": [[1, 2], [1]]}), "'many'", "2"),
            bad(lambda db, c: c.add(vectors={"many": [[[1, 2], [1]]]}), "'many'", "row 0"),
            bad(lambda db, c: c.add(vectors={"many": (each for each in [V])}), "'many'", "generator"),
            bad(lambda db, c: c.add(vectors={"many": 5}), "'many'", "int", "list"),
            bad(lambda db, c: c.add(["x", "y"], {"many": [V, [[1, 2, 3]]]}), "'many'", "row 1", "3"),
        ), writes=True,
    ),
    "upsert": Verb(lambda db, c: c.upsert("a", {"plot": V[2]}), (
        bad(lambda db, c: c.upsert("a", {"plot": np.ma.masked_array(V[:1], [[0, 1]])}), "masked"),
    ), writes=True),
    "update": Verb(lambda db, c: c.update("a", vectors={"bits": [0] * 9}, metadata={"n": 4}), (
        bad(lambda db, c: c.update("a", vectors={"nope": V[0]}), "'nope'", "'plot'"),
        bad(lambda db, c: c.update(where=F["\0lacks:0"].exists(), metadata={}), "NUL", error=FilterError),
    ), writes=True),
    "delete": Verb(lambda db, c: c.delete(where=F.n >= 2), (
        bad(lambda db, c: c.delete(where=F["\0lacks:0"].exists()), "NUL", error=FilterError),
    ), writes=True),
    "add_table": Verb(
        lambda db, c: c.add_table([{"id": "t", "vector": None}]), (
            bad(lambda db, c: c.add_table(5), "table", "int", "Arrow"),
            bad(lambda db, c: c.add_table([5]), "table", "row 0", "int", "dict"),
            bad(lambda db, c: c.add_table([], on_conflict="x"), "on_conflict", "error, replace, skip"),
            bad(lambda db, c: c.add_table([], batch_size=0), "batch_size=0", "1"),
            bad(lambda db, c: c.add_table([], id=5), "id=5", "column"),
            bad(lambda db, c: c.add_table([], progress=5), "progress", "callable"),
            bad(lambda db, c: c.add_table([], cancel=5), "cancel", "callable"),
        ), writes=True, joins=False,
    ),
    "optimize": Verb(lambda db, c: c.optimize(), writes=True, joins=False),
    "add_vector": Verb(
        lambda db, c: c.add_vector("added", vecdb.Vector(2)), (
            bad(lambda db, c: c.add_vector("plot", vecdb.Vector(2)), "'plot'", "already"),
            bad(lambda db, c: c.add_vector("late", None), "'late'", "NoneType", "vecdb.Vector"),
            bad(lambda db, c: c.add_vector("", vecdb.Vector(2)), "name", "str"),
            bad(lambda db, c: c.add_vector([], vecdb.Vector(2)), "name", "str"),
            bad(lambda db, c: c.add_vector("late", vecdb.Vector()), "'late'", "dim"),
            bad(lambda db, c: c.add_vector("late", vecdb.Vector(10**9)), "'late'", "dim", "65535"),
            bad(lambda db, c: c.add_vector("late", vecdb.Vector(2, source="s")), "source", "encoder="),
            bad(lambda db, c: c.add_vector("late", vecdb.Vector(2, multi=1)), "multi=1", "True"),
        ), writes=True,
    ),
    "drop_vector": Verb(
        lambda db, c: c.drop_vector("plot"), (
            bad(lambda db, c: c.drop_vector("nope"), "'nope'", "'plot'", error=NotFound),
            bad(lambda db, c: c.drop_vector([]), "[]", "'plot'", error=NotFound),
            bad(lambda db, c: db["other"].drop_vector("vector"), "'other'", "one at least"),
        ), writes=True,
    ),
    "get": Verb(lambda db, c: [record(c.get("a")), records(c.get(["new", "b"])), c.get("zz")], (
        bad(lambda db, c: c.get(None), "ids", "NoneType"),
    )),
    "__getitem__": Verb(lambda db, c: record(c["a"])),
    "__contains__": Verb(lambda db, c: ["a" in c, "new" in c, 1.5 in c, [] in c]),
    "__len__": Verb(lambda db, c: len(c)),
    "__iter__": Verb(lambda db, c: records(c)),
    "count": Verb(lambda db, c: [c.count(), c.count(F.n > 1), c.count("n is null")]),
    "vectors": Verb(
        lambda db, c: [c.vectors(["b", "a"], "bits").tolist(), c.vectors([], "small").shape], (
            bad(lambda db, c: c.vectors(["a"]), "using=", "'plot'", "'bits'"),
            bad(lambda db, c: c.vectors(["a"], "nope"), "'nope'", "'plot'"),
            bad(lambda db, c: c.vectors(["a", "zz"], "plot"), "row 1", "'zz'", error=NotFound),
            bad(lambda db, c: c.vectors(["a", "bare"], "plot"), "row 1", "'bare'", "no vector"),
        ),
    ),
    "scan": Verb(
        lambda db, c: [records(c.scan(F.n >= 1)), records(c.scan(order_by="n", with_vectors=True))], (
            bad(lambda db, c: c.scan(5), "int", "F.", error=FilterError),
            bad(lambda db, c: c.scan(order_by=5), "order_by=5", "field"),
            bad(lambda db, c: c.scan(order_by="\0lacks:0"), "NUL"),
            bad(lambda db, c: c.scan(order_by="free"), "'free'", "Unindexed"),
            bad(lambda db, c: c.scan(limit=-1), "limit=-1", "0"),
            bad(lambda db, c: c.scan(limit=True), "limit=True"),
            bad(lambda db, c: c.scan(after=5), "after", "int", "cursor"),
            bad(lambda db, c: c.scan(after="xyz"), "after='xyz'", "cursor"),
            bad(lambda db, c: c.scan(descending=1), "descending", "True"),
        ),
    ),
    "histogram": Verb(lambda db, c: c.histogram("n", bins=2).counts.tolist(), (
        bad(lambda db, c: c.histogram(""), "field"),
        bad(lambda db, c: c.histogram("n", bins=0), "bins=0"),
        bad(lambda db, c: c.histogram("free"), "'free'", "Unindexed"),
        bad(lambda db, c: c.histogram("n", 5), "int", "F.", error=FilterError),
    )),
    "duplicates": Verb(lambda db, c: c.duplicates(0.5, **PLOT), (
        bad(lambda db, c: c.duplicates(-1, **PLOT), "max_distance"),
        bad(lambda db, c: c.duplicates(), "using=", "'plot'"),
        bad(lambda db, c: c.duplicates(using="many"), "'many'"),
    )),
    "clusters": Verb(lambda db, c: c.clusters(2, **PLOT).centroids.tolist(), (
        bad(lambda db, c: c.clusters(0, **PLOT), "k=0"),
        bad(lambda db, c: c.clusters(2), "using=", "'plot'"),
    )),
    "predict": Verb(lambda db, c: c.predict(near(), "n", 2, **PLOT).value, (
        bad(lambda db, c: c.predict(near(), "", **PLOT), "field"),
        bad(lambda db, c: c.predict(near(), "n", 0, **PLOT), "k=0"),
    )),
    "feedback": Verb(None),  # tests/unit/test_search_log.py
    "replay": Verb(None),
    "facets": Verb(lambda db, c: [list(c.facets("n").items()), list(c.facets("n", F.n > 1).items())], (
        bad(lambda db, c: c.facets(""), "field=''", "name"),
        bad(lambda db, c: c.facets([]), "field=[]", "name"),
        bad(lambda db, c: c.facets("\0lacks:0"), "NUL"),
        bad(lambda db, c: c.facets("free"), "'free'", "Unindexed"),
        bad(lambda db, c: c.facets("n", limit=0), "limit=0", "1"),
        bad(lambda db, c: c.facets("n", 5), "int", "F.", error=FilterError),
    )),
    "to_arrow": Verb(lambda db, c: c.to_arrow(F.n > 0).to_pydict(), (
        bad(lambda db, c: c.to_arrow(5), "int", "F.", error=FilterError),
    ), needs="pyarrow"),
    "to_hnswlib": Verb(lambda db, c: graph(c.to_hnswlib("plot")), (
        bad(lambda db, c: c.to_hnswlib(), "using=", "'plot'"),
        bad(lambda db, c: c.to_hnswlib("nope"), "'nope'", "'plot'"),
        bad(lambda db, c: c.to_hnswlib("many"), "'many'", "multi=True"),
        bad(lambda db, c: c.to_hnswlib("bits"), "hamming"),
    ), needs="hnswlib"),
    "stats": Verb(lambda db, c: [c.stats()["rows"], c.stats()["fields"], list(c.stats()["vectors"])]),
    "search": Verb(
        lambda db, c: [
            hits(c.search(near(), 9, **PLOT)), hits(c.search(near(), 9, where=F.n >= 1, **PLOT)),
            hits(c.search(near("bits"), None, using="bits")), hits(c.search(V, 3, exact=True, **PLOT)),
            hits(c.search(near(), 2, offset=1, radius=0.7, **PLOT)),
        ],
        (*refusals(lambda c, given: c.search(near(), **given)),
         *bad_queries(lambda c, q, using: c.search(q, using=using))),
    ),
    "explain": Verb(
        lambda db, c: [c.explain(**PLOT).matches, c.explain(where=F.n >= 1, using="bits").matches],
        (*refusals(lambda c, given: c.explain(**given)),
         *bad_queries(lambda c, q, using: c.explain(q, using=using))),
    ),
    "prepare": Verb(
        lambda db, c: [hits(c.prepare(9, where=F.n >= 1, **PLOT)(near())) for _ in range(2)],
        (*refusals(lambda c, given: c.prepare(**given)(near())),
         *bad_queries(lambda c, q, using: c.prepare(using=using)(q))),
    ),
    "why_not": Verb(
        lambda db, c: [c.why_not(near(), id, 1, where=F.n >= 1, **PLOT) for id in ("a", "new", "zz")], (
            *refusals(lambda c, given: c.why_not(near(), "a", **given)),
            *bad_queries(lambda c, q, using: c.why_not(q, "a", using=using)),
            bad(lambda db, c: c.why_not(V, "a", **PLOT), "one query"),
            bad(lambda db, c: c.why_not(V[0], ["a"], **PLOT), "one id"),
            bad(lambda db, c: c.why_not(V[0], 1.5, **PLOT), "1.5", "float"),
        ),
    ),
    "apply_adapter": Verb(
        lambda db, c: c.apply_adapter(turned(2), force=True, **PLOT), (
            bad(lambda db, c: c.apply_adapter("none", **PLOT), "str", "fit_adapter"),
            bad(lambda db, c: c.apply_adapter(turned(2), **PLOT), "does not help", "force"),
            bad(lambda db, c: c.apply_adapter(turned(3), force=True, **PLOT), "3", "'plot'", "2"),
            bad(lambda db, c: c.apply_adapter(turned(3, "l2"), force=True, using="small"), "'small'", "i8"),
            bad(lambda db, c: c.apply_adapter(turned(2), force=True, using="many"), "'many'", "one dense vector"),
            bad(lambda db, c: c.apply_adapter(turned(2), force=True), "using=", "'plot'"),
            bad(lambda db, c: c.apply_adapter(turned(2), force=True, cancel=5, **PLOT), "cancel", "int"),
            bad(lambda db, c: c.apply_adapter(turned(2), force=True, progress=5, **PLOT), "progress", "5"),
        ), writes=True, joins=False,
    ),
    "reembed": Verb(
        lambda db, c: c.reembed("hashing:64", **PLOT), (
            bad(lambda db, c: c.reembed("none", **PLOT), "'none'", "hashing"),
            bad(lambda db, c: c.reembed("hashing:64", **PLOT), "'d'", "'plot'", "no text"),
            bad(lambda db, c: c.reembed("hashing:64", using="many"), "'many'", "one dense vector"),
        ), writes=True, joins=False,
    ),
    "rollback_vectors": Verb(
        lambda db, c: c.rollback_vectors("plot"),
        (bad(lambda db, c: c.rollback_vectors("plot"), "no previous", "'plot'"),), writes=True, joins=False,
    ),
    "drop_previous_vectors": Verb(
        lambda db, c: c.drop_previous_vectors("plot"),
        (bad(lambda db, c: c.drop_previous_vectors("plot"), "no previous", "'plot'"),),
        writes=True, joins=False,
    ),
    "evaluate": Verb(None, (  # the others: tests/evaluation/test_running.py
        bad(lambda db, c: c.evaluate({"q": V[0]}, using="plot"), "qrels", "labels", "feedback"),
        bad(lambda db, c: c.evaluate({"q": V[0]}, {"q": {"zz": 1}}, using="plot"), "'zz'"),
    )),
    "judge": Verb(None, (  # the others: tests/evaluation/test_judge.py
        bad(lambda db, c: c.judge({}), "queries"),
        bad(lambda db, c: c.judge({"q": "text"}, per_query=0), "per_query", "0"),
    )),
}  # fmt: skip

MODULE: dict[str, Verb] = {
    "from_hnswlib": Verb(None, (
        bad(lambda db, c: vecdb.from_hnswlib(db, "new", 5, metric="l2"), "index", "int", "hnswlib"),
        bad(lambda db, c: vecdb.from_hnswlib(db, "new", "none", metric="l2", dim=2), "none", "read"),
        bad(lambda db, c: vecdb.from_hnswlib(db, "new", "none", metric="zz", dim=2), "metric", "l2"),
    )),
    "repair": Verb(None, (
        bad(lambda db, c: vecdb.repair("none", "new"), "none", error=NotFound),
        bad(lambda db, c: vecdb.repair(5, "new"), "src", "5"),  # type: ignore[arg-type]
        bad(lambda db, c: vecdb.repair(db._env.path, 5), "dst", "5"),  # type: ignore[arg-type]
        bad(lambda db, c: vecdb.repair(db._env.path, db._env.path), "exists", error=AlreadyExists),
    )),
}  # fmt: skip

VERBS = {
    f"{part}.{name}": verb
    for part, table in (("db", DATABASE), ("c", COLLECTION), ("vecdb", MODULE))
    for name, verb in table.items()
}
ASKED = {name: verb for name, verb in VERBS.items() if verb.call is not None}


def public(kind: type) -> set[str]:
    return {n for n in dir(kind) if not n.startswith("_") or n in SPECIAL}


def test_every_public_verb_has_a_row() -> None:
    assert public(vecdb.Database) - set(DATABASE) == set()
    assert public(vecdb.Collection) - set(COLLECTION) == set()
    assert public(SnapshotCollection) <= set(COLLECTION)
    assert public(Snapshot) <= {*DATABASE, "commit"}
    for table, kind in ((DATABASE, vecdb.Database), (COLLECTION, vecdb.Collection)):
        assert set(table) <= public(kind), "a row for nothing"


# --- a database to ask ------------------------------------------------------------------------


def filled(path: Path) -> vecdb.Database:
    db = vecdb.open(path, durability="none", upkeep=False)
    vectors = {
        "plot": vecdb.Vector(2),
        "bits": vecdb.Vector(9, dtype="b1"),
        "small": vecdb.Vector(3, dtype="i8", metric="l2"),
        "many": vecdb.Vector(2, multi=True),
    }
    c = db.create_collection("c", vectors=vectors, fields={"free": vecdb.Unindexed})
    c.add(
        ["a", "b", "d"],
        {"plot": V, "bits": np.eye(3, 9), "small": np.eye(3, dtype=np.int8), "many": [V, V[:1], []]},
        metadata=[{"n": i, "free": "x"} for i in range(3)], texts=["one", "two", None],
    )  # fmt: skip
    c.add("bare", metadata={"n": 7})
    db.create_collection("other", dim=2).add(1, V[0])
    return db


@pytest.fixture
def db(tmp_path: Path) -> Iterator[vecdb.Database]:
    with filled(tmp_path / "f.vecdb") as made:
        yield made


def state(db: vecdb.Database) -> Any:
    """All that a call could have changed, but for the commit's number."""
    return {
        name: (records(db[name].scan(with_vectors=True)), db[name].schema, len(db[name]))
        for name in db
    }


def change(db: vecdb.Database) -> None:
    """Changes that every answer shows: rows come, go and change, and so do fields and names."""
    c = db["c"]
    c.add("new", {"plot": [1, 0.1], "bits": [1] * 9}, metadata={"n": 1, "more": 1})
    c.add("newer", metadata={"n": 3})
    c.upsert("a", {"plot": [0, -1], "bits": [1] * 9}, metadata={"n": 5})
    c.delete("d")
    c.add_vector("late", vecdb.Vector(2))
    db.create_collection("d", dim=2)


# --- the promises -----------------------------------------------------------------------------

ERRORS = [
    pytest.param(verb, each, id=f"{name}-{at}")
    for name, verb in VERBS.items()
    for at, each in enumerate(verb.errors)
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vecdb.Database]:
    with filled(tmp_path_factory.mktemp("contract") / "f.vecdb") as made:
        yield made


@pytest.mark.parametrize(("verb", "case"), ERRORS)
def test_what_it_cannot_use_is_named_and_changes_nothing(
    shared: vecdb.Database, verb: Verb, case: Bad
) -> None:
    need(verb)
    before, commit = state(shared), shared.stats()["commit"]
    with pytest.raises(case.error) as caught:
        case.call(shared, shared["c"])
    assert isinstance(caught.value, vecdb.VecdbError)
    for word in case.words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    assert len(str(caught.value)) < 600
    assert state(shared) == before and shared.stats()["commit"] == commit


@pytest.mark.parametrize("name", ASKED)
def test_it_joins_a_transaction_or_is_refused_inside(db: vecdb.Database, name: str) -> None:
    verb = ASKED[name]
    need(verb)
    before = state(db)
    if not verb.joins:
        call = (lambda d, c: d.backup("nowhere")) if name == "db.backup" else verb.call
        with pytest.raises(InvalidArgument, match=rf"{name.partition('.')[2]}.*transaction"):
            with db.transaction() as tx:
                call(tx, tx["c"])  # type: ignore[misc]
        assert state(db) == before
        return
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:
        change(db)
        verb.call(tx, tx["c"])  # type: ignore[misc]
        raise ZeroDivisionError
    assert state(db) == before, "an abort leaves nothing of it"
    with db.transaction() as tx:
        change(db)
        inside = verb.call(tx, tx["c"])  # type: ignore[misc]
    if verb.writes:
        assert state(db) != before
    else:
        assert same(inside, verb.call(db, db["c"])), "inside, its own writes are there"  # type: ignore[misc]
    assert db.check() == []


@pytest.mark.parametrize("name", ASKED)
def test_a_snapshot_answers_as_of_its_commit(db: vecdb.Database, name: str) -> None:
    verb, attribute = ASKED[name], name.partition(".")[2]
    need(verb)
    with db.snapshot() as snap:
        if name.startswith("db.") and attribute not in public(Snapshot):
            assert not hasattr(snap, attribute)
            return
        if verb.writes:
            with pytest.raises(ReadOnly, match=attribute):
                verb.call(snap, snap["c"])  # type: ignore[misc]
            return
        then = verb.call(db, db["c"])  # type: ignore[misc]
        change(db)
        now = verb.call(db, db["c"])  # type: ignore[misc]
        assert same(verb.call(snap, snap["c"]), then)  # type: ignore[misc]
        assert name == "c.name" or not same(now, then), "the control: the change shows"
        db.drop_collection("c")
        assert same(verb.call(snap, snap["c"]), then), "of what was dropped too"  # type: ignore[misc]


def need(verb: Verb) -> None:
    if verb.needs and find_spec(verb.needs) is None:
        pytest.skip(f"needs {verb.needs}")


def same(one: Any, other: Any) -> bool:
    """Equality that goes into lists and arrays."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_using_may_be_left_out_where_one_field_fits(tmp_path: Path) -> None:
    """A field of many vectors a row is not searched, so it is no candidate either."""
    with vecdb.open() as db:
        c = db.create_collection(
            "c", vectors={"plot": vecdb.Vector(2), "many": vecdb.Vector(2, multi=True)}
        )
        c.add("a", {"plot": V[0], "many": V})
        assert c.search(V[0]).ids == c.prepare()(V[0]).ids == ["a"]
        assert c.explain().matches == 1 and "hit 1" in c.why_not(V[0], "a")
        with pytest.raises(InvalidArgument, match="'plot', 'many'"):
            c.vectors("a")
        c.add_vector("told", vecdb.Vector(encoder=encoder()))
        assert c.prepare()("text").ids == []
        with pytest.raises(InvalidArgument, match=r"using=, one of 'plot', 'told'"):
            c.search(V[0])
