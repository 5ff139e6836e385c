"""A database behaves like a dict: every verb against a model, whatever happens in between.

Hypothesis drives adds, upserts, updates, deletes, transactions that commit and that abort, filtered
and exact searches, scans in every order, snapshots that are kept, a vector field that comes and goes,
reopening, a second process that writes, and a second process that is killed while it writes. After
every step the database, the model and brute force agree; `check()` is clean at the end. Counts are
printed with `-s`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import vecdb
from vecdb import F

DIM = 4
STEPS: Counter[str] = Counter()

ids = st.one_of(st.integers(0, 12), st.sampled_from(["a", "b", "c", "ä", "1"]))
values = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, -0.0, float("inf"), 2.0]),
    st.sampled_from(["x", "y", "1"]), st.lists(st.integers(0, 2), max_size=2),
)  # fmt: skip
metadata = st.dictionaries(st.sampled_from(["p", "q", "n.m"]), values, max_size=3)
vector = st.lists(st.integers(-4, 4), min_size=DIM, max_size=DIM).filter(any)
operands = st.one_of(
    st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 0.0, "x", "1", float("nan")])
)

CHILD = """
import sys, os, vecdb
db = vecdb.open(sys.argv[1])
c = db["c"]
todo = eval(sys.stdin.read())
for n, (ids, vectors, metadata) in enumerate(todo):
    c.upsert(ids, {"vector": vectors}, metadata=metadata)
    os.write(1, b".")
if sys.argv[2] == "hang":
    tx = db.transaction(); tx.__enter__(); c.upsert(ids, {"vector": vectors}, metadata=[{"p": "ghost"}] * len(ids))
    os.write(1, b"!")
    import time; time.sleep(60)
db.close()
"""


def clauses() -> st.SearchStrategy[Any]:
    field = st.sampled_from(["p", "q", "n.m"]).map(lambda name: F[name])
    plain = st.one_of(
        st.builds(lambda f, v: f == v, field, operands),
        st.builds(lambda f, v: f != v, field, operands),
        st.builds(lambda f, v: f >= v, field, st.sampled_from([-1, 0.5, "x"])),
        st.builds(lambda f, v: f < v, field, st.sampled_from([1, 2.0, "y"])),
        st.builds(lambda f, v: f.isin(v), field, st.lists(operands, max_size=3)),
        st.builds(lambda f: f.exists(), field),
        st.builds(lambda f: f.is_null(), field),
    )
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a: ~a, inner),
        ),
        max_leaves=4,
    )


class Machine(RuleBasedStateMachine):
    """The database under test and the dict that it must equal."""

    @initialize(metric=st.sampled_from(["l2", "cosine", "dot"]), dtype=st.sampled_from(["f32", "f16"]))
    def begin(self, metric: str, dtype: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name) / "m.vecdb")
        self.metric = metric
        self.db = vecdb.open(self.path, durability="relaxed")
        self.c = self.db.create_collection("c", dim=DIM, metric=metric, dtype=dtype)
        self.model: dict[Any, tuple[list[int] | None, dict[str, Any]]] = {}
        self.tx: Any = None
        self.saved: tuple[dict[Any, Any], dict[Any, Any] | None] | None = None
        self.extra: dict[Any, list[int]] | None = None  # the vectors of a second field, if it is there
        self.snapshots: list[tuple[Any, dict[Any, Any], dict[Any, Any] | None]] = []

    def teardown(self) -> None:
        if hasattr(self, "db"):
            if self.tx is not None:  # most are: the rule that ends one is one of many
                self.end_transaction(len(self.model) % 4 != 0)
                everything = {i: v for i, (v, _) in self.model.items()}
                self.same_rows()
                for how in ({}, {"exact": True}):
                    hits = self.c.search([1] * DIM, 20, using="vector", **how)
                    self.compare(hits, everything, [1] * DIM, 20)
            self.close_snapshots()
            assert self.db.check() == []
            self.db.close()
            self.folder.cleanup()

    @rule(rows=st.dictionaries(ids, st.tuples(vector, metadata), min_size=1, max_size=6))
    def add(self, rows: dict[Any, Any]) -> None:
        STEPS["add"] += 1
        names = list(rows)
        given = [rows[i][0] for i in names], [rows[i][1] for i in names]
        if any(i in self.model for i in names):
            try:
                self.c.add(names, {"vector": given[0]}, metadata=given[1])
            except vecdb.errors.AlreadyExists:
                return
            raise AssertionError("AlreadyExists expected")
        assert self.c.add(names, {"vector": given[0]}, metadata=given[1]) == names
        self.model.update({i: (rows[i][0], rows[i][1]) for i in names})

    @rule(rows=st.dictionaries(ids, st.tuples(vector, metadata), min_size=1, max_size=6))
    def upsert(self, rows: dict[Any, Any]) -> None:
        STEPS["upsert"] += 1
        names = list(rows)
        self.c.upsert(
            names, {"vector": [rows[i][0] for i in names]}, metadata=[rows[i][1] for i in names]
        )
        self.replaced({i: (rows[i][0], rows[i][1]) for i in names})

    def replaced(self, rows: dict[Any, Any]) -> None:
        """Whole rows take the place of others: what they had in the second field is gone."""
        self.model.update(rows)
        self.forget(rows)

    def forget(self, names: Any) -> None:
        if self.extra is not None:
            self.extra = {i: v for i, v in self.extra.items() if i not in names}

    @rule()
    def add_field(self) -> None:
        if self.extra is None and self.c.schema.next_number < 50:
            STEPS["add a field"] += 1
            self.c.add_vector("extra", vecdb.Vector(DIM, dtype="i8", metric=self.metric))
            self.extra = {}

    @rule()
    def drop_field(self) -> None:
        if self.extra is not None:
            STEPS["drop a field"] += 1
            self.c.drop_vector("extra")
            self.extra = None

    @rule(id=ids, new=st.one_of(st.none(), vector))
    def update_field(self, id: Any, new: Any) -> None:
        if self.extra is None or id not in self.model:
            return
        STEPS["vectors of a second field"] += 1
        self.c.update(id, vectors={"extra": None if new is None else new})
        self.forget([id])
        if new is not None:
            self.extra = {**self.extra, id: new}

    @rule(query=vector, where=st.one_of(st.none(), clauses()), exact=st.booleans())
    def search_field(self, query: list[int], where: Any, exact: bool) -> None:
        if self.extra is None:
            return
        STEPS["search of a second field"] += 1
        found = self.c.search(query, 8, using="extra", where=where, exact=exact)
        chosen = {
            i: v for i, v in self.extra.items() if where is None or where.matches(self.model[i][1])
        }
        self.compare(found, chosen, query, 8)

    @rule(where=st.one_of(st.none(), clauses()), by=st.sampled_from([None, "p", "q", "n.m"]),
          descending=st.booleans(), page=st.integers(1, 9))  # fmt: skip
    def scan(self, where: Any, by: str | None, descending: bool, page: int) -> None:
        STEPS["scan"] += 1
        found: list[Any] = []
        after = None
        while True:  # page by page, each from the last one's end
            rows = list(
                self.c.scan(where, order_by=by, descending=descending, after=after, limit=page)
            )
            found += rows
            if len(rows) < page:
                break
            after = rows[-1].cursor
        self.same_scan(found, self.model, where)
        whole = list(self.c.scan(where, order_by=by, descending=descending))
        assert [r.id for r in whole] == [r.id for r in found]
        if by is None:
            assert [r.id for r in found] == sorted(
                (r.id for r in found), key=id_order, reverse=descending
            )

    def same_scan(self, found: list[Any], model: dict[Any, Any], where: Any = None) -> None:
        chosen = {i for i, (_, m) in model.items() if where is None or where.matches(m)}
        assert len(found) == len(chosen) and {r.id for r in found} == chosen
        for record in found:
            assert repr(record.metadata) == repr(model[record.id][1])

    @rule()
    def take_snapshot(self) -> None:
        if self.tx is None and len(self.snapshots) < 3:
            STEPS["snapshot"] += 1
            self.snapshots.append((self.db.snapshot(), dict(self.model), self.extra))

    @rule(query=vector, where=st.one_of(st.none(), clauses()), exact=st.booleans())
    def ask_snapshots(self, query: list[int], where: Any, exact: bool) -> None:
        for snapshot, model, extra in self.snapshots:
            STEPS["snapshot asked"] += 1
            c = snapshot["c"]
            assert len(c) == len(model) and (extra is None) == ("extra" not in c.schema.vectors)
            self.same_scan(list(c.scan(where)), model, where)
            chosen = {i: v for i, (v, m) in model.items() if where is None or where.matches(m)}
            hits = c.search(query, 8, using="vector", where=where, exact=exact)
            self.compare(hits, chosen, query, 8)
            if extra is not None:
                held = {i: v for i, v in extra.items() if i in chosen}
                hits = c.search(query, 8, using="extra", where=where, exact=exact)
                self.compare(hits, held, query, 8)

    def close_snapshots(self) -> None:
        while self.snapshots:
            self.snapshots.pop()[0].close()

    @rule(id=ids, data=metadata)
    def upsert_without_vector(self, id: Any, data: dict[str, Any]) -> None:
        STEPS["upsert without vector"] += 1
        self.c.upsert(id, metadata=data)
        self.replaced({id: (None, data)})

    @rule(id=ids, patch=metadata, new=st.one_of(st.none(), vector))
    def update(self, id: Any, patch: dict[str, Any], new: Any) -> None:
        STEPS["update"] += 1
        if id not in self.model:
            try:
                self.c.update(id, metadata=patch, vectors=self.named(new))
            except vecdb.errors.NotFound:
                return
            raise AssertionError("NotFound expected")
        assert self.c.update(id, metadata=patch, vectors=self.named(new)) == 1
        old_vector, old = self.model[id]
        self.model[id] = (new if new is not None else old_vector, {**old, **patch})

    def named(self, new: Any) -> Any:
        return None if new is None else {"vector": new}

    @rule(where=clauses(), patch=metadata)
    def update_where(self, where: Any, patch: dict[str, Any]) -> None:
        STEPS["update where"] += 1
        chosen = [i for i, (_, m) in self.model.items() if where.matches(m)]
        assert self.c.update(where=where, metadata=patch) == len(chosen)
        for i in chosen:
            self.model[i] = (self.model[i][0], {**self.model[i][1], **patch})

    @rule(names=st.lists(ids, max_size=4))
    def delete(self, names: list[Any]) -> None:
        STEPS["delete"] += 1
        known = {i for i in names if i in self.model}
        assert self.c.delete(names) == len(known)
        for i in known:
            del self.model[i]
        self.forget(known)

    @rule(where=clauses())
    def delete_where(self, where: Any) -> None:
        STEPS["delete where"] += 1
        chosen = [i for i, (_, m) in self.model.items() if where.matches(m)]
        assert self.c.delete(where=where) == len(chosen)
        for i in chosen:
            del self.model[i]
        self.forget(chosen)

    @rule(where=clauses(), query=vector, k=st.integers(1, 8), exact=st.booleans())
    def search(self, where: Any, query: list[int], k: int, exact: bool) -> None:
        STEPS["filtered search"] += 1
        matching = {i: v for i, (v, m) in self.model.items() if where.matches(m)}
        assert self.c.count(where) == len(matching)
        self.compare(self.c.search(query, k, where=where, exact=exact, using="vector"), matching, query, k)

    @rule(query=vector, k=st.integers(1, 20), ef=st.one_of(st.none(), st.just(64)))
    def search_all(self, query: list[int], k: int, ef: int | None) -> None:
        STEPS["search"] += 1
        everything = {i: v for i, (v, _) in self.model.items()}
        self.compare(self.c.search(query, k, ef=ef, using="vector"), everything, query, k)

    @rule()
    def begin_transaction(self) -> None:
        if self.tx is None:
            STEPS["transaction"] += 1
            self.tx = self.db.transaction()
            self.tx.__enter__()
            self.saved = dict(self.model), self.extra

    @rule(commit=st.booleans())
    def end_transaction(self, commit: bool) -> None:
        if self.tx is None:
            return
        STEPS["commit" if commit else "abort"] += 1
        tx, self.tx = self.tx, None
        if commit:
            tx.__exit__(None, None, None)
        else:
            try:
                tx.__exit__(KeyError, KeyError("abort"), None)
            except KeyError:
                pass
            assert self.saved is not None
            self.model, self.extra = self.saved

    @rule()
    def optimize(self) -> None:
        if self.tx is None:
            STEPS["optimize"] += 1
            self.c.optimize()

    @rule()
    def reopen(self) -> None:
        if self.tx is None:
            STEPS["reopen"] += 1
            self.close_snapshots()
            self.db.close()
            self.db = vecdb.open(self.path, durability="relaxed")
            self.c = self.db["c"]

    @rule(rows=st.dictionaries(ids, st.tuples(vector, metadata), min_size=1, max_size=3), kill=st.booleans())
    def second_process(self, rows: dict[Any, Any], kill: bool) -> None:
        if self.tx is not None or STEPS["second process"] % 3 == 2:
            STEPS["second process"] += 1
            return
        STEPS["second process"] += 1
        STEPS["killed"] += kill
        names = list(rows)
        todo = [(names, [rows[i][0] for i in names], [rows[i][1] for i in names])]
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, self.path, "hang" if kill else "end"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ),
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(repr(todo).replace("inf", "float('inf')").encode())
        child.stdin.close()
        if kill:
            seen = child.stdout.read(2)
            child.send_signal(signal.SIGKILL)
            assert seen == b".!", seen
            child.wait()
        else:
            assert child.wait() == 0
        child.stdout.close()
        self.replaced({i: (rows[i][0], rows[i][1]) for i in names})

    @invariant()
    def same_rows(self) -> None:
        if not hasattr(self, "model"):
            return
        assert len(self.c) == len(self.model)
        for i in list(self.model)[:4]:
            record = self.c.get(i)
            assert record is not None and record.id == i and type(record.id) is type(i)
            assert repr(record.metadata) == repr(self.model[i][1])
            stored = self.model[i][0]
            held = {name: vector.tolist() for name, vector in record.vectors.items()}
            expected = {} if stored is None else {"vector": stored}
            if i in (self.extra or {}):
                expected["extra"] = self.extra[i]  # type: ignore[index]
            assert held == expected

    def compare(self, hits: Any, rows: dict[Any, Any], query: list[int], k: int) -> None:
        ranked = {i: np.array(v, float) for i, v in rows.items() if v is not None}
        q = np.array(query, float)
        truth = sorted(self.distance(q, v) for v in ranked.values())[:k]
        assert len(hits) == len(truth) == min(k, len(ranked))
        assert len(set(hits.ids)) == len(hits)
        for i, found, best in zip(hits.ids, hits.distances, truth, strict=True):
            assert i in ranked
            assert abs(found - self.distance(q, ranked[i])) < 1e-3
            assert abs(found - best) < 1e-3  # so few rows: a walk finds them all

    def distance(self, a: Any, b: Any) -> float:
        if self.metric == "l2":
            return float(np.linalg.norm(a - b))
        if self.metric == "dot":
            return float(-a @ b)
        return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def id_order(id: Any) -> Any:
    return (isinstance(id, str), id.encode() if isinstance(id, str) else id)


Machine.TestCase.settings = settings(
    max_examples=int(os.environ.get("VECDB_MACHINE_EXAMPLES", "60")),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestMachine = Machine.TestCase


def test_every_rule_was_reached() -> None:
    """The control: a machine that never kills or aborts proves nothing."""
    print("steps:", dict(STEPS))
    for name in ("add", "upsert", "update", "delete", "filtered search", "search", "commit", "abort", "reopen", "second process",
                 "scan", "snapshot", "add a field"):  # fmt: skip
        assert STEPS[name] > 0, f"{name} was never reached"
