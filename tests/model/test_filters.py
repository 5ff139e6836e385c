"""One language in three notations: index, evaluation and reference agree on every row.

Filters are drawn at random over every operator (tests/notations.py), written as Python, as text
and as a dict, and asked of rows that hold every type, missing and mixed ones among them. Part of
the rows is folded into the image, part lies in the tail. The reference shares no code with the
engine. Counts and seeds are printed with `-s`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from pyroaring import BitMap

import vecdb
from tests import notations
from vecdb.errors import Corrupt
from vecdb.index import attributes, fold, leaf, select, valuekey
from vecdb.index.attributes import AttributeImage, RowChange
from vecdb.index.tail import Tail
from vecdb.query import F, as_filter, from_dict, from_json, parse
from vecdb.storage import codec


class Rows:
    """Rows by rid, two thirds of them folded, some of those changed since."""

    def __init__(self, env: Any, rng: random.Random, count: int) -> None:
        self.metadata: dict[int, dict[str, Any]] = {}
        self.names: dict[str, int] = {}
        self.image, self.tail = AttributeImage(3), Tail()
        rids = [at + (1 << 20) * (at % 2) for at in range(count)]
        self._write(rng, 1, rids[: 2 * count // 3])
        with env.begin(write=True, buffers=True) as txn:
            for fieldid in self.names.values():
                self.image.fold_field(txn, fieldid, self.tail)
        self.tail.trim(1)
        self._write(rng, 2, rids[count // 2 :])
        self.txn = env.begin(buffers=True)

    def _write(self, rng: random.Random, commit: int, rids: list[int]) -> None:
        changes = []
        for rid in rids:
            old, new = self.metadata.get(rid), codec.clean_metadata(notations.row(rng))
            before = None if old is None else attributes.state_of(old, self.names)
            changes.append(RowChange(rid, before, attributes.state_of(new, self.names)))
            self.metadata[rid] = new
        self.tail.advance(commit, changes)

    def select(self, where: Any) -> set[int]:
        found = attributes.evaluate(
            where, self.image, self.tail, self.txn, BitMap(self.metadata), self.names,
            self.metadata.__getitem__,
        )  # fmt: skip
        return set(found)


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Any]:
    env = lmdb.open(str(tmp_path / "x"), subdir=False, map_size=1 << 28, sync=False)
    yield env
    env.close()


def compare(env: Any, seed: int, rows: int, filters: int) -> Counter[str]:
    """Draw and compare; the number of filter x row cases, of those that hold, of each operator."""
    rng = random.Random(seed)
    world = Rows(env, rng, rows)
    counts: Counter[str] = Counter()
    for _ in range(filters):
        spec = notations.spec(rng)
        where = notations.as_f(spec)
        text = notations.as_text(spec, rng)
        assert as_filter(text) == where, text
        assert from_dict(notations.as_dict(spec)) == where
        assert parse(str(where)) == where, str(where)
        assert from_json(where.to_json()) == where
        wanted = {rid for rid, row in world.metadata.items() if notations.truth(spec, row)}
        says = {rid for rid, row in world.metadata.items() if where.matches(row)}
        assert says == wanted, (text, [world.metadata[rid] for rid in list(says ^ wanted)[:2]])
        found = world.select(parse(text))
        assert found == wanted, (text, [world.metadata[rid] for rid in list(found ^ wanted)[:2]])
        counts["cases"] += rows
        counts["hold"] += len(wanted)
        counts.update(operators(spec))
    world.txn.abort()
    return counts


def operators(spec: notations.Spec) -> Iterator[str]:
    yield spec[0]
    if spec[0] in ("and", "or", "not"):
        for part in spec[1] if isinstance(spec[1], list) else [spec[1]]:
            yield from operators(part)


EVERY = {
    "compare", "between", "in", "contains", "contains any", "contains all", "startswith", "like",
    "within", "exists", "null", "and", "or", "not", "true",
}  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_index_evaluation_and_reference_agree_in_every_notation(env: Any, seed: int) -> None:
    counts = compare(env, seed, rows=60, filters=100)
    print(f"seed {seed}: {dict(counts)}")
    assert 0 < counts["hold"] < counts["cases"]


def test_leaves_of_any_size_answer_alike(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaf, "MAX_BODY", 600)
    monkeypatch.setattr(leaf, "FILL", 350)
    monkeypatch.setattr(leaf, "INLINE", 2)
    monkeypatch.setattr(fold, "MAX_INSIDE", 30)
    monkeypatch.setattr(fold, "BACK_INSIDE", 4)
    monkeypatch.setattr(select, "_FEW", 0)
    counts = compare(env, 99, rows=80, filters=60)
    print(f"seed 99: {dict(counts)}")


@pytest.mark.slow
def test_a_hundred_thousand_cases_and_more(env: Any) -> None:
    counts = compare(env, 20_26, rows=120, filters=5_000)
    print(f"seed 2026: {dict(counts)}")
    assert counts["cases"] >= 100_000 and set(counts) >= EVERY


def test_a_reference_that_is_wrong_is_noticed(env: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: let the reference take True for 1, as Python does."""
    right = notations.comparable

    def wrong(one: Any) -> Any:
        return right(int(one)) if isinstance(one, bool) else right(one)

    monkeypatch.setattr(notations, "comparable", wrong)
    with pytest.raises(AssertionError):
        compare(env, 0, rows=60, filters=400)


def test_a_value_key_that_is_no_string_is_corrupt_and_named(env: Any) -> None:
    tail, image, bad = Tail(), AttributeImage(3), valuekey.STRING_TAG + b"a\xfe"
    tail.advance(1, [RowChange(1, None, ((0, bad),)), RowChange(2, None, ((0, b"\x20ab"),))])
    with env.begin(write=True, buffers=True) as txn:
        image.fold_field(txn, 0, tail)
        assert any(bad.hex() in detail for _, _, detail in image.problems(txn))
        ask = (image, Tail(1), txn, BitMap([1, 2]), {"s": 0}, dict)
        assert attributes.evaluate(F.s.startswith("a"), *ask) == BitMap([1, 2])
        with pytest.raises(Corrupt, match="value key"):
            attributes.evaluate(F.s.like("%b"), *ask)


def test_a_collection_takes_every_notation_everywhere() -> None:
    with vecdb.open() as db:
        c = db.create_collection("c", dim=2)
        c.add(
            [1, 2, 3, 4],
            [[1, 0], [0, 1], [1, 1], [2, 1]],
            metadata=[
                {"tags": ["a", "b"], "name": "Alpha", "at": [48.1, 11.5]},
                {"tags": ["b"], "name": "Beta", "at": [52.5, 13.4]},
                {"tags": [], "name": "Alphabet"},
                {"tags": "a"},
            ],
        )
        for text, ids in {
            "tags contains 'a'": [1],
            "tags contains any ('a', 'b')": [1, 2],
            "tags contains all ('a', 'b')": [1],
            "tags contains all ()": [1, 2, 3],
            "tags contains any ()": [],
            "name like 'Alpha%' and not name like '%bet'": [1],
            "name startswith 'Alpha'": [1, 3],
            "within(at, 48, 11, 100)": [1],
            "within(at, 48, 11, 1000)": [1, 2],
            "name is null": [4],
        }.items():
            where = parse(text)
            for form in (text, where, where.to_dict()):
                assert sorted(c.search([1, 0], k=4, where=form).ids) == ids, form
                assert c.count(form) == len(ids)
        assert c.update(where="name = 'Beta'", metadata={"seen": True}) == 1
        assert c.delete(where="seen = true or tags contains 'b'") == 2
        assert len(c) == 2
