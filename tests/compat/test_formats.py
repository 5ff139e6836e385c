"""A file of every format version opens and answers, or is refused by WrongFormat: nothing between."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.compat.make import CHURN, WORDED, churn, of_field, rows, said, turning
from vecdb import F
from vecdb.adapting.adapter import Adapter
from vecdb.query import Text

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("format-*.vecdb"))


def test_a_file_of_the_current_format_is_kept() -> None:
    assert HERE / f"format-{vecdb.FORMAT_VERSION}.vecdb" in FILES


@pytest.mark.parametrize("kept", FILES, ids=[f.stem for f in FILES])
def test_a_kept_file_opens_or_is_refused(kept: Path, tmp_path: Path) -> None:
    path = tmp_path / kept.name
    shutil.copy(kept, path)
    before = path.read_bytes()
    try:
        db = vecdb.open(path)
    except vecdb.errors.WrongFormat as error:
        assert error.found is not None and error.supported == vecdb.FORMAT_VERSION
        assert path.read_bytes() == before
        return
    with db:
        assert db.check() == []
        for name, check in (
            ("rows", check_rows), ("several", check_several), ("churned", check_churned), ("worded", check_worded),
            ("moved", check_moved), ("anew", check_anew), ("on the way", check_on_the_way),
        ):  # fmt: skip
            if name in db:
                check(db)
        migrate(db)
        assert db.check() == []


def migrate(db: vecdb.Database) -> None:
    """Collections that were made before vectors could become others."""
    for collection, name in (("rows", "vector"), ("several", "wide"), ("churned", "vector")):
        if collection not in db:
            continue
        c = db[collection]
        stored = {record.id: record.vectors[name] for record in c if name in record.vectors}
        dim, given = c.schema.vectors[name].dim, next(iter(stored.values())) + 1
        c.apply_adapter(Adapter(np.eye(dim, 10), metric="l2"), using=name, force=True)
        c.add("migrated", {name: given})
        assert c.search(given, 1, using=name).ids == ["migrated"] and c.schema.vectors[name].dim == 10
        found = {record.id: record.vectors[name] for record in c if name in record.vectors}
        assert set(found) == {*stored, "migrated"} and db.check() == []
        assert all(np.allclose(found[id], vector[:10]) for id, vector in stored.items())
        c.rollback_vectors(name)
        found = {record.id: record.vectors[name] for record in c if name in record.vectors}
        assert all(np.array_equal(found[id], vector) for id, vector in {**stored, "migrated": given}.items())


def check_moved(db: vecdb.Database) -> None:
    c, vectors = db["moved"], rows()[1]
    model = {i: vectors[i] for i in range(200) if i % 25} | {190 + i: vectors[500 + i] for i in range(20)}
    made = turning()
    assert c.schema.only.adapters == (made.fingerprint,) and c.schema.dim == 12
    assert {record.id for record in c} == set(model)
    assert all(np.allclose(record.vector, made(model[record.id])) for record in c)
    query = vectors[505] + 0.01
    truth = sorted(model, key=lambda i: float(np.linalg.norm(made(model[i]) - made(query))))[:10]
    assert c.search(query, exact=True).ids == truth and c.search(query).ids[0] == 195
    c.upsert(7, vectors[900])
    c.rollback_vectors()
    model[7] = vectors[900]
    assert all(np.array_equal(record.vector, model[record.id]) for record in c) and c.schema.dim == 16


def check_anew(db: vecdb.Database) -> None:
    c, encoder = db["anew"], vecdb.encoders.get("hashing:24")
    assert c.schema.encoder == "hashing:24" and len(c) == 70
    assert np.allclose(c.vectors(list(range(70))), encoder.encode_documents([said(i) for i in range(70)]))


def check_on_the_way(db: vecdb.Database) -> None:
    c = db["on the way"]
    texts = [said(1000 if i == 5 else i) for i in range(400)]
    figures = c.stats()["vectors"]["vector"]
    assert c.schema.encoder == "hashing:16" and 0 < figures["next"]["rows"] < 400
    old, new = vecdb.encoders.get("hashing:16"), vecdb.encoders.get("hashing:24")
    assert np.allclose(c.vectors(list(range(400))), old.encode_documents(texts))
    c.reembed("hashing:24", bridge=False)
    assert np.allclose(c.vectors(list(range(400))), new.encode_documents(texts))
    c.rollback_vectors()
    assert np.allclose(c.vectors(list(range(400))), old.encode_documents(texts))


def check_rows(db: vecdb.Database) -> None:
    ids, vectors, metadata = rows()
    c = db["rows"]
    gone = set(ids[10:40])
    assert len(c) == 1500 - 30 + 1 and len(db["half"]) == 70
    for at in (0, 9, 10, 45, 700, 1499):
        record = c.get(ids[at])
        if ids[at] in gone:
            assert record is None
            continue
        assert record is not None and record.vector is not None
        assert np.array_equal(record.vector, vectors[at])
        patch = {"changed": True} if metadata[at]["number"] == 5 else {}
        assert record.metadata == {**metadata[at], **patch}
    live = [i for i in range(1500) if ids[i] not in gone]
    assert c.count(F.number == 7) == sum(metadata[i]["number"] == 7 for i in live)
    assert c.count(F["nested.level"] >= 2) == sum(i % 4 >= 2 for i in live)
    assert c.count(F.tags.contains("t3")) == sum(i % 5 == 3 for i in live)
    assert c.count("tags contains all ('t3', 'all')") == sum(i % 5 == 3 for i in live)
    query = vectors[50] + 0.01
    truth = sorted(live, key=lambda i: float(np.linalg.norm(vectors[i] - query)))[:10]
    assert c.search(query, exact=True).ids == [ids[i] for i in truth]
    assert len(set(c.search(query).ids) & {ids[i] for i in truth}) >= 9
    c.add("new", vectors[0], metadata={"number": 1})
    assert db.check() == []


def check_several(db: vecdb.Database) -> None:
    c, vectors = db["several"], rows()[1]
    assert len(c) == 178 and list(c.schema.vectors) == ["wide", "bytes", "bits", "tokens", "late"]
    for name in ("wide", "bytes", "bits", "tokens"):
        given = of_field(name, vectors, range(180))
        for record in c:
            assert (name in record.vectors) == bool(record.id % 3)
            if record.id % 3:
                assert np.array_equal(record.vectors[name], given[record.id])
    late = [record.id for record in c if "late" in record.vectors]
    assert late == list(range(10, 40))
    query = of_field("bits", vectors, range(7, 8))[0]
    assert c.search(query, 1, using="bits").ids == [7] and c.search(vectors[11], 1, using="late").ids == [11]
    assert c.count("title like '%number 17%'") == 11 and c.count("body = 'b9'") == 1
    assert dict(c.schema.fields)["n"] == "int"


def check_churned(db: vecdb.Database) -> None:
    c, vectors = db["churned"], rows()[1]
    model = {}
    for step in range(CHURN):
        model.update((i, (v, step)) for i, v in zip(*churn(step, vectors), strict=True))
    assert {r.id: r.metadata["step"] for r in c} == {i: step for i, (_, step) in model.items()}
    assert all(np.array_equal(r.vector, model[r.id][0]) for r in c)
    query = vectors[5] + 0.01
    truth = sorted(model, key=lambda i: (float(np.linalg.norm(model[i][0] - query)), i))[:10]
    best = float(np.linalg.norm(model[truth[-1]][0] - query))
    for hits in (c.search(query), c.search(query, exact=True)):
        assert len(hits) == 10 and hits[-1].distance <= best * 1.01
    for step in range(CHURN, 2 * CHURN):
        chosen, given = churn(step, vectors)
        c.upsert(chosen, given)
    assert db.check() == []


def check_worded(db: vecdb.Database) -> None:
    c = db["worded"]
    model = {i: said(i) for i in range(WORDED) if i >= 100 or i % 7} | {i: said(i + 1) for i in range(200, 210)}
    assert {r.id: r.text for r in c} == model
    for word in ("fast", "word5", "nothing"):
        assert c.count(F.text.matches(word)) == sum(word in text.split() for text in model.values())
    assert c.count("matches(titles, '\"title 3\"')") == sum(i % 9 == 3 for i in model)
    best = c.search(Text("fast word5", fields=["text"])).ids
    assert len(best) == 10 and all({"fast", "word5"} <= set(model[i].split()) for i in best)
    for i in range(3 * 600):
        c.upsert(i % 600, texts=said(i))
    assert db.check() == []
    assert c.count(F.text.matches("word7")) == sum(
        "word7" in text.split() for text in (model | {i % 600: said(i) for i in range(1800)}).values()
    )
