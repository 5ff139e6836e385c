"""Declared fields: what was declared changes how a filter is answered, never what it means.

A collection with unindexed fields, substring indexes and fields that hold datetimes lives through
commits, transactions, folds and reopening. Filters over every operator are drawn at random
(tests/notations.py), written as Python, text and dict, with strings where datetimes are declared,
and compared with a reference that knows nothing of declarations. Counts are printed with `-s`.
"""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests import notations
from vecdb.index import select
from vecdb.query import F, as_filter
from vecdb.query.declared import bind

SUBSTRING = vecdb.Indexed(str, substring=True)
FIELDS = {
    "n": vecdb.Unindexed,
    "mix": vecdb.Unindexed(),
    "in": vecdb.Unindexed,
    "b": bool,
    "s": SUBSTRING,
    "été": SUBSTRING,
    "d": datetime,
    "datetime": vecdb.Unindexed(datetime),
    "when": list[datetime],
    "tags": list,
    "at": vecdb.Geo,
    'q"q': vecdb.Unindexed(str),
    "or": vecdb.Partition(float),
}
DATETIMES = frozenset({"d", "datetime", "when"})
STRINGS = [
    *notations.STRINGS, "blade runner", "runner", "run%ner", "run_ner", "Größe", "大きな数", "大きな",
    "x" * 300 + "needle" + "y" * 10, "x" * 300 + "needles", "needle" + "x" * 300, "banana bandana",
]  # fmt: skip


def holds(name: str, value: Any) -> bool:
    """Whether a value may stand in a field, said a second time."""
    if value is None:
        return True
    if name in ("s", "été", 'q"q'):
        return isinstance(value, str)
    if name in ("d", "datetime"):
        return isinstance(value, datetime)
    if name == "tags":
        return isinstance(value, list)
    if name == "b":
        return isinstance(value, bool)
    if name == "or":
        return type(value) in (int, float)
    if name == "at":
        return notations.near(value, 0, 0, 1e6)
    return True


def row(rng: random.Random) -> dict[str, Any]:
    made = {k: v for k, v in notations.row(rng).items() if holds(k, v)}
    for name in ("s", "été", 'q"q'):
        if rng.random() < 0.6:
            made[name] = rng.choice(STRINGS)
    if rng.random() < 0.5:
        made["when"] = rng.choices(notations.MOMENTS, k=rng.randrange(4))
    return made


def adapted(s: notations.Spec, rng: random.Random) -> notations.Spec:
    """A filter like this one, in which no string stands where a datetime is declared."""
    if s[0] in ("and", "or"):
        return (s[0], [adapted(part, rng) for part in s[1]])
    if s[0] == "not":
        return ("not", adapted(s[1], rng))
    if s[0] == "true":
        return s
    kind, field, *args = s
    if rng.random() < 0.25:
        field = rng.choice(["when", "d", "datetime", "mix", "s", "in.n"])
    if kind == "like" and rng.random() < 0.8:
        return (kind, rng.choice(["s", "s", "été", 'q"q']), pattern(rng))
    if field in DATETIMES and kind == "compare":
        args = [args[0], _moments(args[1], rng)]
    elif field in DATETIMES and (kind in ("between", "in") or kind.startswith("contains")):
        args = [_moments(arg, rng) for arg in args]
    return (kind, field, *args)


def _moments(operand: Any, rng: random.Random) -> Any:
    if isinstance(operand, list):
        return [_moments(one, rng) for one in operand]
    if isinstance(operand, str) or rng.random() < 0.5:
        return rng.choice(notations.MOMENTS)
    return operand


def pattern(rng: random.Random) -> str:
    """Pieces of strings that rows have, with runs between them, some of them changed."""
    pieces = []
    text = rng.choice(STRINGS)
    for _ in range(rng.choice([1, 1, 2])):
        start = rng.randrange(len(text) + 1)
        piece = text[start : start + rng.choice([1, 2, 3, 3, 4, 6, 300])]
        piece = piece.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        if rng.random() < 0.2 and piece and "\\" not in piece:
            at = rng.randrange(len(piece))
            piece = piece[:at] + "_" + piece[at + 1 :]
        pieces.append(piece)
    ends = rng.choice([("%", "%"), ("%", "%"), ("%", "%"), ("", "%"), ("%", ""), ("%%", "_%")])
    return (ends[0] + "%".join(pieces) + ends[1])[:900]


def stringly(s: notations.Spec) -> notations.Spec:
    """The same filter with a string for each datetime, where fields hold those."""
    if s[0] in ("and", "or"):
        return (s[0], [stringly(part) for part in s[1]])
    if s[0] == "not":
        return ("not", stringly(s[1]))
    if s[0] == "true" or s[1] not in DATETIMES:
        return s
    return (s[0], s[1], *map(_written, s[2:]))


def _written(operand: Any) -> Any:
    if isinstance(operand, list):
        return [_written(one) for one in operand]
    return operand.isoformat() if isinstance(operand, datetime) else operand


class World:
    """A collection in a file, and a dict of what it should hold."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.path, self.rng = path, rng
        self.rows: dict[int, dict[str, Any]] = {}
        self.counts: Counter[str] = Counter()
        self.db = vecdb.open(path, durability="none", upkeep=False)
        self.c = self.db.create_collection("c", dim=2, metric="l2", fields=FIELDS)
        self.rows = {id: row(rng) for id in range(30)}
        self.c.add([*self.rows], [[0, id] for id in self.rows], metadata=[*self.rows.values()])

    def write(self) -> None:
        rng, c = self.rng, self.c
        kind = rng.randrange(5)
        some = rng.sample(sorted(self.rows), min(len(self.rows), rng.randrange(1, 6)))
        if kind < 2 or not some:
            new = [len(self.rows) + 1000 * rng.randrange(1, 1_000) for _ in range(rng.choice([1, 5, 20]))]
            new = [id for id in dict.fromkeys(new) if id not in self.rows]
            made = [row(rng) for _ in new]
            c.add(new, [[1, id] for id in new], metadata=made)
            self.rows.update(zip(new, made, strict=True))
        elif kind == 2:
            made = [row(rng) for _ in some]
            c.upsert(some, [[2, id] for id in some], metadata=made)
            self.rows.update(zip(some, made, strict=True))
        elif kind == 3:
            keys = rng.sample(["n", "mix", "s", "d", "when", "tags"], 2)
            patch = {k: v for k, v in row(rng).items() if k in keys}
            c.update(some, metadata=patch)
            for id in some:
                self.rows[id] = {**self.rows[id], **patch}
        else:
            assert c.delete(some[:2]) == len(some[:2])
            for id in some[:2]:
                del self.rows[id]

    def live(self) -> None:
        """A stretch of the collection's life."""
        kind = self.rng.randrange(6)
        if kind == 0:
            self.db.optimize()
        elif kind == 1:
            self.db.close()
            self.db = vecdb.open(self.path, durability="none", upkeep=False)
            self.c = self.db["c"]
        else:
            self.write()

    def compare(self, filters: int) -> None:
        for _ in range(filters):
            said = adapted(notations.spec(self.rng), self.rng)
            meant, written = notations.as_f(said), stringly(said)
            forms = [notations.as_f(written), notations.as_text(written, self.rng), notations.as_dict(written)]
            assert all(bind(as_filter(form), DATETIMES) == meant for form in forms), written
            wanted = {id for id, row in self.rows.items() if notations.truth(said, row)}
            form = self.rng.choice([*forms, meant])
            found = set(self.c.search([1, 0], max(1, len(self.rows)), where=form).ids)
            if found != wanted:
                wrong = {id: self.rows[id] for id in list(found ^ wanted)[:2]}
                raise AssertionError(f"{form}: differs for {wrong}")
            assert self.c.count(form) == len(wanted)
            self.counts["cases"] += len(self.rows)
            self.counts["hold"] += len(wanted)


def run(path: Path, seed: int, steps: int, filters: int) -> Counter[str]:
    rng = random.Random(seed)
    world = World(path, rng)
    for step in range(steps):
        if step % 7 == 6:
            before = dict(world.rows)
            with pytest.raises(ZeroDivisionError), world.db.transaction():
                world.write()
                world.write()
                world.compare(filters)
                raise ZeroDivisionError
            world.rows = before
        else:
            world.live()
        world.compare(filters)
    assert world.db.check() == []
    world.db.close()
    return world.counts


@pytest.mark.parametrize("seed", range(4))
def test_declared_fields_answer_as_the_reference_does(tmp_path: Path, seed: int) -> None:
    counts = run(tmp_path / "f.vecdb", seed, 30, 8)
    print(f"seed {seed}: {dict(counts)}")
    assert counts["cases"] > 5_000 and 0 < counts["hold"] < counts["cases"]


@pytest.mark.parametrize("few", [0, 1 << 20])
def test_whichever_way_is_the_cheaper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """With trigrams: rows, or values; both answer alike."""
    monkeypatch.setattr(select, "_FEW", few)
    monkeypatch.setattr(select, "_VALUES_A_ROW", 1 << 20)
    run(tmp_path / "f.vecdb", 50, 25, 8)


@pytest.mark.slow
def test_a_hundred_thousand_cases_and_more(tmp_path: Path) -> None:
    counts = run(tmp_path / "f.vecdb", 20_26, 150, 50)
    print(f"seed 2026: {dict(counts)}")
    assert counts["cases"] >= 100_000


def test_what_chance_found_once(tmp_path: Path) -> None:
    """A run whose trigrams are all one; an `or` that asks only the rows that its other part left."""
    with vecdb.open(tmp_path / "f.vecdb") as db:
        c = db.create_collection("c", dim=2, fields={"s": SUBSTRING, "u": vecdb.Unindexed})
        made = [{"s": "xxx", "n": 1}, {"s": "xxxxxx", "n": 2, "u": 1}, {"s": "banana", "n": 3, "u": 2}]
        c.add([1, 2, 3], [[1, 0]] * 3, metadata=made)
        for fold in (False, True):
            if fold:
                db.optimize()
            for where in (
                F.s.like("%xxxx%"), F.s.like("%xxx%"), F.s.like("%nana%"), F.s.like("%an_na%"),
                (F.n == 1) | ((F.n >= 1) & ~((F.u == 1) | (F.n == 1))),
                (F.n == 1) | (~((F.n == 1) & (F.u != 2)) & (F.n > 0)),
                (F.n == 2) | (F.u == 2) & (F.n != 3), ~((F.n == 2) | (F.u == 2)),
            ):  # fmt: skip
                wanted = [id for id, row in enumerate(made, 1) if where.matches(row)]
                assert sorted(c.search([1, 0], 3, where=where).ids) == wanted, where


def test_a_field_that_nobody_is_asked_for_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without asking rows, an unindexed field looks empty."""
    monkeypatch.setattr(select, "with_asking", lambda where, unindexed: where)
    with pytest.raises(AssertionError, match="differs"):
        run(tmp_path / "f.vecdb", 0, 30, 8)


def test_a_trigram_that_is_missing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: an index that leaves out a string's last trigram."""
    right = select.valuekey.trigrams
    monkeypatch.setattr("vecdb.index.changes.valuekey.trigrams", lambda text: right(text[:-1]))
    with vecdb.open(tmp_path / "f.vecdb") as db:
        c = db.create_collection("c", dim=2, fields=FIELDS)
        c.add("a", metadata={"s": "blade runner"})
        monkeypatch.undo()
        assert c.count(F.s.like("%blade%")) == 1
        assert c.count(F.s.like("%runner%")) == 0
        assert any(p.code == "A1" for p in db.check())
