"""why_not names the reason, and its figures are those of brute force: hundreds of random cases of each.

Vectors are of small ints, so that distances are exact and ties are frequent: what stands before what
is then no matter of rounding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F

N, DIM, CASES = 2500, 12, 500
RNG = np.random.default_rng(3)
DATA = RNG.integers(-5, 6, size=(N, DIM)).astype(np.float32)
VECTORLESS = np.arange(N) % 11 == 5
METADATA = [
    {"i": i, "group": f"g{i % 7}", **({"tags": ["x", f"t{i % 3}"]} if i % 2 else {})} for i in range(N)
]
WHERES = [
    None, F.i < 2300, F.i >= 40, (F.i < 1200) & (F.group != "g3"), F.tags.contains("x"),
    (F.i < 2000) & F.tags.contains("t1") & ~(F.group == "g1"), (F.group == "g2") | (F.i > 600),
]  # fmt: skip
HOLDS = [np.array([where is None or where.matches(m) for m in METADATA]) for where in WHERES]


@pytest.fixture(scope="module")
def c() -> Iterator[vecdb.Collection]:
    with vecdb.open() as db:
        made = db.create_collection("rows", DIM, metric="l2")
        vectors = [None if VECTORLESS[i] else DATA[i] for i in range(N)]
        made.add(range(N), vectors, metadata=METADATA)
        yield made


class Truth:
    """The exact ranking of the matches of a random question."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.query = rng.integers(-5, 6, size=DIM).astype(np.float32)
        which = int(rng.integers(len(WHERES)))
        self.where, holds = WHERES[which], HOLDS[which]
        matching = np.flatnonzero(holds & ~VECTORLESS)
        self.excluded = np.flatnonzero(~holds & ~VECTORLESS)
        distances = np.sqrt(((DATA[matching] - self.query) ** 2).sum(1, dtype=np.float32))
        order = np.argsort(distances, kind="stable")
        self.ranked = matching[order].tolist()
        self.distances = distances[order]

    def standing(self, id: int) -> str:
        at = self.ranked.index(id)
        return f"ranked {at + 1:,} of {len(self.ranked):,} matches, at distance {self.distances[at]:.6g}"


def questions(seed: int) -> Iterator[tuple[np.random.Generator, Truth]]:
    rng = np.random.default_rng(seed)
    for _ in range(CASES):
        yield rng, Truth(rng)


def pick(rng: np.random.Generator, some: Any) -> int:
    return int(some[int(rng.integers(len(some)))])


def test_a_row_that_is_not_there(c: vecdb.Collection) -> None:
    for rng, truth in questions(1):
        id = pick(rng, [N + 7, -1, 10**12])
        for absent in (id, str(id % N)):
            assert c.why_not(truth.query, absent, where=truth.where) == (
                f"there is no row {absent!r} in collection 'rows'"
            )


def test_a_row_without_a_vector(c: vecdb.Collection) -> None:
    for rng, truth in questions(2):
        id = pick(rng, np.flatnonzero(VECTORLESS))
        why = c.why_not(truth.query, id, where=truth.where)
        assert why.startswith(f"{id} has no vector: only filters find it")
        excluded = truth.where is not None and not truth.where.matches(METADATA[id])
        assert ("the filter excludes it too" in why) == excluded


def test_a_row_that_the_filter_excludes(c: vecdb.Collection) -> None:
    cases = 0
    for rng, truth in (each for seed in (3, 33) for each in questions(seed)):
        if truth.where is None:
            continue
        id = pick(rng, truth.excluded)
        why = c.why_not(truth.query, id, where=truth.where, k=pick(rng, [1, 10, 5000]))
        head, clauses = why.split(": ", 1)
        assert head == f"{id} is excluded by the filter"
        parts = getattr(truth.where, "parts", (truth.where,)) if " & " in repr(truth.where) else (truth.where,)
        failing = [part for part in parts if not part.matches(METADATA[id])]
        named = clauses.split("; ")
        assert len(named) == len(failing) > 0
        for part, text in zip(failing, named, strict=True):
            assert text.startswith(f"{part} (")
            for field in part.fields():
                value = repr(METADATA[id][field]) if field in METADATA[id] else "missing"
                assert f"{field} is {value}" in text
        cases += 1
    assert cases >= CASES


def test_a_row_that_is_returned(c: vecdb.Collection) -> None:
    for rng, truth in questions(4):
        how = {"k": pick(rng, [1, 10, 100]), "offset": pick(rng, [0, 0, 5]), "ef": pick(rng, [8, 64])}
        hits = c.search(truth.query, where=truth.where, **how)
        at = pick(rng, range(len(hits)))
        why = c.why_not(truth.query, hits.ids[at], where=truth.where, **how)
        assert why == f"{hits.ids[at]} is returned: hit {at + 1} of the search, {truth.standing(hits.ids[at])}"


def test_a_row_that_is_ranked_too_low(c: vecdb.Collection) -> None:
    for rng, truth in questions(5):
        k, offset = pick(rng, [1, 10, 100]), pick(rng, [0, 0, 20])
        id = pick(rng, truth.ranked[k + offset :])
        why = c.why_not(truth.query, id, k, where=truth.where, exact=True, offset=offset)
        last = truth.distances[offset + k - 1]
        assert why == f"{id} is {truth.standing(id)}; the last of the {k} hits is at distance {last:.6g}"
        assert id not in c.search(truth.query, k, where=truth.where, exact=True, offset=offset).ids


def test_a_row_that_the_offset_leaves_out(c: vecdb.Collection) -> None:
    for rng, truth in questions(6):
        offset = pick(rng, [1, 20, 300])
        id = pick(rng, truth.ranked[:offset])
        why = c.why_not(truth.query, id, where=truth.where, exact=True, offset=offset)
        assert why == f"{id} is {truth.standing(id)}: among the first {offset}, which offset leaves out"


def test_a_row_beyond_the_radius(c: vecdb.Collection) -> None:
    for rng, truth in questions(7):
        at = pick(rng, range(1, len(truth.ranked)))
        if truth.distances[at] == truth.distances[0]:
            continue
        radius = float(truth.distances[at] * np.float32(0.999))
        k = None if at % 2 else 10
        why = c.why_not(truth.query, truth.ranked[at], k, where=truth.where, radius=radius)
        assert why == f"{truth.ranked[at]} lies beyond the radius {radius:.6g}: {truth.standing(truth.ranked[at])}"


def test_a_row_that_the_walk_missed(c: vecdb.Collection) -> None:
    cases = elsewhere = 0
    for rng, truth in (each for seed in range(50) for each in questions(seed)):
        how: dict[str, Any] = {"k": 10, "ef": pick(rng, [1, 4, 10]), "offset": pick(rng, [0, 0, 0, 3])}
        hits = c.search(truth.query, where=truth.where, **how)
        missed = set(truth.ranked[how["offset"] : how["offset"] + 10]) - set(hits.ids)
        for id in sorted(missed):
            why = c.why_not(truth.query, id, where=truth.where, **how)
            assert why.startswith(f"{id} is missed by approximation: {truth.standing(id)}, but ")
            assert why.endswith(" finds it") and "; exact=True" in why
            assert id in c.search(truth.query, where=truth.where, **{**how, "exact": True}).ids
            wider = re.search(r" or a higher recall \(ef=(\d+): about [01]\.\d+\)", why)
            if wider is not None:
                ef = int(wider[1])
                assert id in c.search(truth.query, where=truth.where, **{**how, "ef": ef}).ids
            elsewhere += "missed rows before it" in why
            assert f"ef={how['ef']}" in why or "missed rows before it" in why
            cases += 1
        if cases >= CASES:
            break
    assert cases >= CASES and elsewhere > 0


def test_it_sees_what_a_transaction_sees(c: vecdb.Collection) -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", 2, metric="l2")
        c.add(["a"], [[1, 0]])
        with db.snapshot() as snapshot, db.transaction():
            c.upsert("a", [0, 4], metadata={"x": 1})
            c.add("b", [1, 0])
            assert c.why_not([1, 0], "a", 1).startswith("'a' is ranked 2 of 2 matches, at distance 4.12311")
            assert c.why_not([1, 0], "b", where=F.x == 1) == "'b' is excluded by the filter: x == 1 (x is missing)"
            assert snapshot["c"].why_not([1, 0], "b") == "there is no row 'b' in collection 'c'"
        c.upsert("b", metadata={"long": "y" * 500})
        assert "'b' has no vector" in c.why_not([1, 0], "b")
        assert len(c.why_not([1, 0], "b", where=F.long == "z")) < 250


def test_texts_are_queries_too() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", encoder="hashing")
        c.add(["cat", "dog"], texts=["a cat on a mat", "a dog in the fog"])
        assert "hit 1 of the search" in c.why_not("cat mat", "cat", 1)
        assert "'dog' is ranked 2 of 2" in c.why_not("cat mat", "dog", 1)
