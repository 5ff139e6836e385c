"""A changed encoder, dimension or fingerprint is refused by name with the way to migrate; nothing is dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import encoders
from vecdb.encoders import registry
from vecdb.errors import EncoderMismatch, InvalidArgument, SchemaError

TEXTS = ["the red fox", "a silk trade", "whale hunt at sea", "cold water and ice"]


def letters(dim: int = 5, shift: int = 0, name: str = "letters", fingerprint: str | None = None) -> Any:
    def encode(texts: list[str]) -> list[list[float]]:
        return [[1 + text.count(chr(97 + (at + shift) % 26)) for at in range(dim)] for text in texts]

    return encoders.function(encode, name=name, dim=dim, fingerprint=fingerprint)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "_made", {})
    monkeypatch.setattr(registry, "_registered", {})
    with vecdb.open(tmp_path / "p.vecdb") as db:
        papers = db.create_collection("papers", encoder=letters(), fields={"n": int})
        papers.add(range(4), texts=TEXTS, metadata=[{"n": at} for at in range(4)])
    return tmp_path / "p.vecdb"


CHANGES: dict[str, tuple[Callable[[], Any], str]] = {
    "another encoder": (lambda: letters(name="others", shift=3), "encoder is 'letters', not 'others'"),
    "another fingerprint": (lambda: letters(fingerprint="f2", shift=3), "encoder 'letters' has fingerprint .*, not f2"),
    "another dimension": (lambda: letters(dim=7), r"encoder 'letters' has fingerprint .* \(5 dimensions, not 7\)"),
    "another encoder and dimension": (lambda: encoders.get("hashing:32"), r"encoder is 'letters', not 'hashing:32' \(5 dimensions, not 32\)"),
}


def intact(papers: vecdb.Collection) -> None:
    """Every row is there with its vector, text and metadata, and searches by vector work."""
    made = letters().encode_documents(TEXTS)
    assert len(papers) == 4 and [record.text for record in papers] == TEXTS
    assert np.array_equal(papers.vectors(range(4)), made)
    for at in range(4):
        assert papers.search(made[at], k=1).ids == [at]
    assert papers.search(made[0], k=4, where="n >= 2", exact=True).distances.shape == (2,)
    assert not papers._db.check()


@pytest.mark.parametrize("change", CHANGES)
def test_get_or_create_names_the_difference_and_the_way(path: Path, change: str) -> None:
    make, said = CHANGES[change]
    with vecdb.open(path) as db:
        with pytest.raises(SchemaError, match=said) as caught:
            db.get_or_create_collection("papers", encoder=make(), fields={"n": int})
        assert "papers = db['papers'], then papers.reembed(encoder)" in str(caught.value)
        intact(db["papers"])
        papers = db["papers"]
        papers.reembed(make())  # the way that was named
        assert len(papers) == 4 and papers.search(TEXTS[2], k=1).ids == [2]
        papers = db.get_or_create_collection("papers", encoder=make(), fields={"n": int})
        with pytest.raises(SchemaError, match=r"papers\.rollback_vectors\(\) goes back to it"):
            db.get_or_create_collection("papers", encoder=letters(), fields={"n": int})
        papers.rollback_vectors()
        intact(db["papers"])


@pytest.mark.parametrize("change", [c for c in CHANGES if "another encoder" not in c])
def test_an_encoder_that_only_answers_to_the_name_is_refused_and_vectors_work(path: Path, change: str) -> None:
    make, _ = CHANGES[change]
    encoders.register("letters", make)
    with vecdb.open(path) as db:
        papers = db["papers"]
        record = papers.schema.fingerprint
        for call in (lambda: papers.search("fox"), lambda: papers.add(9, texts="new"), lambda: papers.update(0, texts="new"),
                     lambda: papers.upsert(0, texts="new"), lambda: papers.add_table([{"id": 9, "text": "x"}], text="text"),
                     lambda: papers.prepare(3)("fox")):  # fmt: skip
            with pytest.raises(EncoderMismatch) as caught:
                call()
            message = str(caught.value)
            assert "'papers'" in message and "'letters'" in message and "papers.reembed(encoder)" in message
            assert str(record) in message and make().fingerprint in message
            intact(papers)
        papers.reembed("letters")
        assert papers.search(TEXTS[1], k=1).ids == [1] and len(papers) == 4


def test_a_field_of_several_is_named(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "f.vecdb") as db:
        def declared(encoder: str) -> Any:
            return {"plot": vecdb.Vector(encoder=encoder, source="plot"), "image": vecdb.Vector(3)}

        films = db.create_collection("my films", vectors=declared("hashing:32"))
        films.add(1, {"image": [[1, 0, 0]]}, metadata={"plot": "a whale"})
        with pytest.raises(SchemaError, match=r"vector field 'plot': encoder is 'hashing:32', not 'hashing:64'.*collection\.reembed\(encoder, using='plot'\)"):
            db.get_or_create_collection("my films", vectors=declared("hashing:64"))
        assert films.search("whale", using="plot", k=1).ids == [1] and films.search([1, 0, 0], using="image", k=1).ids == [1]


def test_another_dimension_of_plain_vectors_has_a_way_too() -> None:
    db = vecdb.open()
    c = db.create_collection("c", dim=3)
    c.add(1, [1, 2, 3])
    with pytest.raises(SchemaError, match=r"dim is 3, not 4; .*c\.add_vector\(name, vecdb\.Vector\(4\)\)"):
        db.get_or_create_collection("c", dim=4)
    for call in (lambda: c.add(2, [1, 2, 3, 4]), lambda: c.search([1, 2, 3, 4])):
        with pytest.raises(InvalidArgument, match=r"dim 3|\(n, 3\)|takes \(3,\)"):
            call()
    with pytest.raises(SchemaError, match=r"encoder is None, not 'hashing:32'|c\.reembed\(encoder\)"):
        db.get_or_create_collection("c", encoder="hashing:32")
    with pytest.raises(SchemaError) as caught:
        db.get_or_create_collection("c", dim=3, metric="l2")
    assert "reembed" not in str(caught.value) and "add_vector" not in str(caught.value)
    assert c.search([1, 2, 3], k=1).ids == [1] and np.array_equal(c.vectors([1]), [[1, 2, 3]])


def test_a_migration_under_way_is_named(path: Path) -> None:
    other = letters(name="others", shift=3)
    stop = [0]

    def cancel() -> bool:
        stop[0] += 1
        return stop[0] > 1

    with vecdb.open(path) as db:
        db["papers"].reembed(other, bridge=False, cancel=cancel)
        if db["papers"].schema.encoder == "letters":  # it stopped on the way
            with pytest.raises(SchemaError, match=r"on its way there: papers\.reembed\(encoder\) goes on"):
                db.get_or_create_collection("papers", encoder=other, fields={"n": int})
            intact(db["papers"])
            db["papers"].reembed(other, bridge=False)
        assert db["papers"].schema.encoder == "others"
