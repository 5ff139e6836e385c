"""What the processes of test_fork.py share: a combination, rows along a line, and what is right to see."""

from __future__ import annotations

import faulthandler
import functools
import math
import random
import signal
from typing import Any, NamedTuple

import numpy as np

import vecdb
from tests import riches
from vecdb import F

LIMIT = 30  # seconds after which a process shows where it hangs, and ends
ROWS, DIM, K = 90, 4, 5
CHURN = [*range(5000, 5003)]  # rows that the fifty commits rewrite
Rows = dict[Any, int]  # a row's id, and its place along the line around which all vectors lie


class Case(NamedTuple):
    """One combination."""

    state: str  # of the parent, when the child is made
    way: str  # in which the child is made: "os.fork", "fork", "forkserver", "spawn"
    deed: str  # of the child
    leave: str  # how the child ends: "_exit", "sys.exit", "return" through the stack, "raise"
    fate: str  # of the parent: "goes on", "killed" or "exits" before the child acts
    broken: bool = False  # a control: the child ends what it has inherited
    rich: bool = False  # rows have full text, sparse and many vectors (tests/riches.py)


class Planned(Exception):
    """What a child raises that is to be unwound."""


@functools.cache
def vector(place: float) -> list[float]:
    """Somewhere near the place on a line: who are neighbours at 30 does not depend on rows at 900."""
    aside = [40 * math.sin(turn * place) for turn in (1.7, 2.3, 3.1)]
    return [float(np.float32(x)) for x in (place, *aside)]


def put(c: vecdb.Collection, rows: Rows) -> None:
    """Write rows at their places."""
    vectors: Any = [vector(place) for place in rows.values()]
    metadata, texts = [{"n": place} for place in rows.values()], None
    if is_rich(c):
        vectors, metadata, texts = riches.given([str(place) for place in rows.values()], metadata, vectors, False)
    c.upsert([*rows], vectors, metadata=metadata, texts=texts)


def is_rich(c: Any) -> bool:
    return len(c.schema.vectors) > 1


def rich_look(c: Any, expected: Rows) -> list[str]:
    """The same by words, sparse and many vectors."""
    rows = {id: (vector(place), riches.extra_of(str(place))) for id, place in expected.items()}
    rng = random.Random(len(expected))
    wrong = riches.differences(c, {id: extra for id, (_, extra) in rows.items()})
    return wrong + riches.looked(c, riches.World(rows, "l2", "l2"), rng, DIM, 4)[2]


def look(source: Any, expected: Rows) -> list[str]:
    """How a database, or a snapshot, differs from the rows that it should show."""
    c = source["c"]
    seen = {record.id: record for record in c.scan(with_vectors=True)}
    wrong = []
    if {id: record.metadata["n"] for id, record in seen.items()} != expected:
        more, less = {*seen} - {*expected}, {*expected} - {*seen}
        wrong.append(f"rows that should not be there: {more}, missing: {less}, or other values")
    wrong += [f"{id!r} has another vector" for id, record in seen.items()
              if record.vectors["vector"].tolist() != vector(record.metadata["n"])]  # fmt: skip
    if len(c) != len(expected) or c.count(F.n >= 60) != sum(n >= 60 for n in expected.values()):
        wrong.append(f"it counts {len(c)} and {c.count(F.n >= 60)} of {len(expected)} rows")
    for where, least in ((None, -1), (F.n >= 60, 60)):
        for place in (30.25, end_of(expected)):
            right = nearest({id: n for id, n in expected.items() if n >= least}, place)
            found = c.search(vector(place), K, where=where, exact=True).ids
            usual = c.search(vector(place), K, where=where).ids
            if found != right or not near(usual, right):
                wrong.append(f"search at {place} where {where!r}: {found}, {usual}, not {right}")
    return wrong + rich_look(c, expected) if is_rich(c) else wrong


def end_of(rows: Rows) -> float:
    """Near the last row of the line: a query far from all rows would be a question of codes."""
    return max(rows.values()) + 0.25


def nearest(rows: Rows, place: float) -> list[Any]:
    """The true neighbours."""
    here = vector(place)
    return sorted(rows, key=lambda id: math.dist(vector(rows[id]), here))[:K]


def near(found: list[Any], right: list[Any]) -> bool:
    """Whether an approximate answer is one: it may miss a little."""
    return len(found) == len(right) and len({*found} & {*right}) >= len(right) - 2


def watch() -> None:
    """Show where this process hangs, if it does, and end it; a child asks anew."""
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    signal.alarm(LIMIT)


def make(path: str, rows: Rows, timeout: float = 20.0, rich: bool = False) -> None:
    """A file with some history."""
    with vecdb.open(path, durability="relaxed", upkeep=False, timeout=timeout) as db:
        more: dict[str, Any] = {"dim": DIM, "metric": "l2"}
        if rich:
            more = riches.declared(vecdb.Vector(DIM, metric="l2"), "l2")
        c = db.create_collection("c", **more)
        put(c, rows)
        put(c, dict.fromkeys(CHURN, 0))
        c.delete(CHURN)
