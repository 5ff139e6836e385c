"""Damaged full text disturbs nothing that does without it, is told by name, and is built again from the rows.

A case damages a record of a segment in a file that has segments, a merge under way and a tail. Vectors,
filters and rows answer as before, words are refused with the remedy, or answered rightly by what is sound;
rows are written all the same; `optimize()` makes everything right again, in every process.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests import damage
from tests.damage import keys_of
from tests.planting import flip
from tests.wording import LANGUAGE, Reference, compare, sentence
from vecdb import F
from vecdb.errors import Corrupt, SchemaError
from vecdb.index import textfolding
from vecdb.query import Text
from vecdb.storage import codec, keys

CID = 1
ROWS = 160


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FOLD_ROWS": 10, "LEAST": 256, "FAN": 4, "WORTH": 1 << 40}.items():
        monkeypatch.setattr(textfolding, name, value)  # merges begin, and do not go on


@pytest.fixture
def made(small: None, tmp_path: Path) -> tuple[Path, Reference]:
    path, rng = tmp_path / "d.vecdb", random.Random(4)
    with vecdb.open(path, upkeep=False) as db:
        c = db.create_collection("c", dim=2, fulltext={"text": vecdb.FullText(language=LANGUAGE), "title": vecdb.FullText()})
        model = Reference(c.schema)
        for first in range(0, ROWS, 8):
            ids = range(first, first + 8)
            texts, said = [sentence(rng) for _ in ids], [{"title": sentence(rng, 3), "n": i} for i in ids]
            c.add(ids, [[1, i] for i in ids], texts=texts, metadata=said)
            model.rows.update(zip(ids, zip(texts, said, strict=True), strict=True))
        c.delete([3, 50])
        del model.rows[3], model.rows[50]
        with c._reading() as (_, view):
            state = view.state.text
            assert state is not None and len(state.segments) > 3 and state.merge is not None and state.pending
    return path, model


def first(kind: int) -> Callable[[Any], bytes]:
    return lambda txn: keys_of(txn, keys.prefix(kind, CID))[0]


DAMAGE: dict[str, Callable[[Any], Any]] = {
    "a head": lambda txn: flip(first(keys.SEGMENTS)(txn), 40)(txn),
    "a chunk": lambda txn: flip(first(keys.TERMS)(txn), 60)(txn),
    "a head is gone": lambda txn: txn.delete(first(keys.SEGMENTS)(txn)),
    "a chunk is gone": lambda txn: txn.delete(first(keys.TERMS)(txn)),
    "a head that is none": lambda txn: damage.put(txn, first(keys.SEGMENTS)(txn), b"nothing"),
    "a chunk that is none": lambda txn: damage.put(txn, first(keys.TERMS)(txn), b"nothing"),
    "all heads": lambda txn: [txn.delete(key) for key in keys_of(txn, keys.prefix(keys.SEGMENTS, CID))],
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_needs_no_words_goes_on_and_optimize_mends(made: tuple[Path, Reference], name: str) -> None:
    path, model = made
    with damage.write(path) as txn:
        DAMAGE[name](txn)
    with vecdb.open(path, upkeep=False) as db:
        c = db["c"]
        assert c.search([1, 5], 3).ids == c.search([1, 5], 3, exact=True).ids and len(c) == ROWS - 2
        assert c.count(F.n < 10) == 9 and c.search([1, 5], 3, where=F.n < 10).ids
        for ask in (lambda: c.search(Text("common kernel gpu fast")), lambda: c.count(F.text.matches("gpu"))):
            try:
                ask()
            except Corrupt as error:
                assert error.code == "T1" and "optimize()" in str(error), error
            else:
                assert name == "a chunk"  # of words that were not asked for
        assert {p.code for p in db.check()} & {"T1", "F1"}
        c.add(["new"], [[1, 1]], texts=["a new kernel"])
        model.rows["new"] = "a new kernel", {}
        c.delete([7])
        del model.rows[7]
        c.optimize()
        assert db.check() == []
        compare(c, model, random.Random(1), 12)
    with vecdb.open(path, mode="r") as db:
        compare(db["c"], model, random.Random(2), 6)


@pytest.mark.parametrize("name", ["a head", "a chunk that is none"])
def test_commits_go_on_while_a_merge_meets_damage(
    made: tuple[Path, Reference], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = made
    with damage.write(path) as txn:
        DAMAGE[name](txn)
    monkeypatch.setattr(textfolding, "WORTH", 0)
    with vecdb.open(path, upkeep=False) as db:
        c, rng = db["c"], random.Random(6)
        for at in range(30):
            text = sentence(rng)
            c.upsert([at], texts=[text])
            model.rows[at] = text, {}
        db._fold_idle(0.01)
        c.optimize()
        assert db.check() == []
        compare(c, model, rng, 8)


def test_a_lost_state_is_no_empty_full_text(made: tuple[Path, Reference]) -> None:
    path, model = made
    with damage.write(path) as txn:
        txn.delete(keys.state(CID))
    with vecdb.open(path, upkeep=False) as db:
        c = db["c"]
        assert len(c) == ROWS - 2
        with pytest.raises(Corrupt, match="optimize"):
            c.count(F.text.matches("gpu"))
        with pytest.raises(Corrupt, match="optimize"):
            c.search(Text("gpu"))
        c.optimize()
        assert db.check() == []
        compare(c, model, random.Random(1), 12)


def test_another_analysis_is_named_refused_and_renewed(made: tuple[Path, Reference]) -> None:
    path, model = made
    with damage.write(path) as txn:
        key = keys.catalog(CID)
        found = codec.unpack(damage.payload(txn, key))
        found["fulltext"]["text"]["fingerprint"] = "stemmer-0"
        damage.put(txn, key, codec.pack(found))
    with vecdb.open(path, upkeep=False) as db:
        c = db["c"]
        for ask in (
            lambda: c.search(Text("gpu")), lambda: c.count(F.text.matches("gpu")), lambda: c.add("x", texts="gpu"),
            lambda: c.update(1, texts=["gpu"]),
        ):  # fmt: skip
            with pytest.raises(SchemaError, match=r"stemmer-0.*optimize\(\)"):
                ask()
        assert c.search([1, 5], 3).ids and c.count(F.n < 10) == 9
        assert c.delete([9]) == 1
        del model.rows[9]
        assert [p.code for p in db.check()] == ["T4"]
        c.optimize()
        assert db.check() == [] and c.schema.fulltext["text"].fingerprint != "stemmer-0"
        compare(c, model, random.Random(1), 12)
        c.add("x", texts="gpu")


def test_repair_and_copies_keep_full_text(made: tuple[Path, Reference], tmp_path: Path) -> None:
    path, model = made
    with vecdb.open(path, upkeep=False) as db:
        db.backup(tmp_path / "copy.vecdb")
        db.compact()
        compare(db["c"], model, random.Random(1), 4)
        assert db.check() == []
    shutil.copy(path, tmp_path / "broken.vecdb")
    with damage.write(tmp_path / "broken.vecdb") as txn:
        DAMAGE["all heads"](txn)
    vecdb.repair(tmp_path / "broken.vecdb", tmp_path / "saved.vecdb")
    for name in ("copy", "saved"):
        with vecdb.open(tmp_path / f"{name}.vecdb", upkeep=False) as db:
            assert db.check() == [], name
            compare(db["c"], model, random.Random(2), 6)
    with vecdb.open(path, upkeep=False) as db:
        db.drop_collection("c")
        assert db.check() == []
    with damage.read(path) as txn:
        assert not keys_of(txn, bytes((keys.SEGMENTS,))) and not keys_of(txn, bytes((keys.TERMS,)))
