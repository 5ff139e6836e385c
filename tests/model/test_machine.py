"""A database behaves like a dict: every verb against a model, whatever happens in between.

Hypothesis drives adds, upserts, updates, deletes, transactions that commit and that abort, filtered
and exact searches, reopening, a second process that writes, and a second process that is killed
while it writes. After every step the database, the model and brute force agree; `check()` is clean
at the end. Counts are printed with `-s`.
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
    c.upsert(ids, vectors, metadata=metadata)
    os.write(1, b".")
if sys.argv[2] == "hang":
    tx = db.transaction(); tx.__enter__(); c.upsert(ids, vectors, metadata=[{"p": "ghost"}] * len(ids))
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
        self.saved: dict[Any, Any] | None = None

    def teardown(self) -> None:
        if hasattr(self, "db"):
            if self.tx is not None:  # most are: the rule that ends one is one of many
                self.end_transaction(len(self.model) % 4 != 0)
                everything = {i: v for i, (v, _) in self.model.items()}
                self.same_rows()
                self.compare(self.c.search([1] * DIM, 20), everything, [1] * DIM, 20)
                self.compare(self.c.search([1] * DIM, 20, exact=True), everything, [1] * DIM, 20)
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
                self.c.add(names, given[0], metadata=given[1])
            except vecdb.errors.AlreadyExists:
                return
            raise AssertionError("AlreadyExists expected")
        assert self.c.add(names, given[0], metadata=given[1]) == names
        self.model.update({i: (rows[i][0], rows[i][1]) for i in names})

    @rule(rows=st.dictionaries(ids, st.tuples(vector, metadata), min_size=1, max_size=6))
    def upsert(self, rows: dict[Any, Any]) -> None:
        STEPS["upsert"] += 1
        names = list(rows)
        self.c.upsert(names, [rows[i][0] for i in names], metadata=[rows[i][1] for i in names])
        self.model.update({i: (rows[i][0], rows[i][1]) for i in names})

    @rule(id=ids, data=metadata)
    def upsert_without_vector(self, id: Any, data: dict[str, Any]) -> None:
        STEPS["upsert without vector"] += 1
        self.c.upsert(id, metadata=data)
        self.model[id] = (None, data)

    @rule(id=ids, patch=metadata, new=st.one_of(st.none(), vector))
    def update(self, id: Any, patch: dict[str, Any], new: Any) -> None:
        STEPS["update"] += 1
        if id not in self.model:
            try:
                self.c.update(id, metadata=patch, vectors=new)
            except vecdb.errors.NotFound:
                return
            raise AssertionError("NotFound expected")
        assert self.c.update(id, metadata=patch, vectors=new) == 1
        old_vector, old = self.model[id]
        self.model[id] = (new if new is not None else old_vector, {**old, **patch})

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

    @rule(where=clauses())
    def delete_where(self, where: Any) -> None:
        STEPS["delete where"] += 1
        chosen = [i for i, (_, m) in self.model.items() if where.matches(m)]
        assert self.c.delete(where=where) == len(chosen)
        for i in chosen:
            del self.model[i]

    @rule(where=clauses(), query=vector, k=st.integers(1, 8), exact=st.booleans())
    def search(self, where: Any, query: list[int], k: int, exact: bool) -> None:
        STEPS["filtered search"] += 1
        matching = {i: v for i, (v, m) in self.model.items() if where.matches(m)}
        assert self.c.count(where) == len(matching)
        self.compare(self.c.search(query, k, where=where, exact=exact), matching, query, k)

    @rule(query=vector, k=st.integers(1, 20), ef=st.one_of(st.none(), st.just(64)))
    def search_all(self, query: list[int], k: int, ef: int | None) -> None:
        STEPS["search"] += 1
        everything = {i: v for i, (v, _) in self.model.items()}
        self.compare(self.c.search(query, k, ef=ef), everything, query, k)

    @rule()
    def begin_transaction(self) -> None:
        if self.tx is None:
            STEPS["transaction"] += 1
            self.tx = self.db.transaction()
            self.tx.__enter__()
            self.saved = dict(self.model)

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
            self.model = self.saved

    @rule()
    def optimize(self) -> None:
        if self.tx is None:
            STEPS["optimize"] += 1
            self.c.optimize()

    @rule()
    def reopen(self) -> None:
        if self.tx is None:
            STEPS["reopen"] += 1
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
        self.model.update({i: (rows[i][0], rows[i][1]) for i in names})

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
            assert (record.vector is None) == (stored is None)
            if stored is not None:
                assert record.vector is not None and record.vector.tolist() == stored

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
    for name in ("add", "upsert", "update", "delete", "filtered search", "search", "commit", "abort", "reopen", "second process"):
        assert STEPS[name] > 0, f"{name} was never reached"
