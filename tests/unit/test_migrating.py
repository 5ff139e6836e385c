"""The contract of apply_adapter, reembed, rollback_vectors and drop_previous_vectors, call by call.

Who is refused and that nothing changed then; what goes on where it was; what others may do between two steps
(`progress` is where they do it); which answers come before and after. Random lives are in
tests/model/test_migrating_machine.py, kills in tests/faults/test_migrating_kill.py.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests import child, damage
from tests.migrating import encoder, hurried
from vecdb.adapting.adapter import Adapter
from vecdb.errors import EncoderMismatch, InvalidArgument, NotFound, SchemaError, VecdbError
from vecdb.query import Context, Fuse, Like, Near
from vecdb.storage import keys, schema

DIM, ROWS = 8, 60
E1, E2 = encoder("one", DIM), encoder("two", DIM + 4)


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried(monkeypatch)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path / "m.vecdb", durability="none", upkeep=False) as made:
        yield made
        assert made.check() == []


def vectors(n: int, dim: int = DIM, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def adapter(dim_in: int = DIM, dim: int | None = None, *, seed: int = 2, metric: str = "cosine", of: str | None = None) -> Adapter:
    matrix = np.random.default_rng(seed).standard_normal((dim_in, dim or dim_in)) / np.sqrt(dim_in)
    return Adapter(matrix, metric=metric, encoder_fingerprint=of)


def plain(db: vecdb.Database, n: int = ROWS, **declared: Any) -> vecdb.Collection:
    c = db.create_collection("c", dim=DIM, **declared)
    if n:
        c.add(list(range(n)), vectors(n), metadata=[{"n": i} for i in range(n)])
    return c


def texts(n: int) -> list[str]:
    return [f"text number {i}" for i in range(n)]


def worded(db: vecdb.Database, n: int = ROWS) -> vecdb.Collection:
    c = db.create_collection("c", encoder=E1)
    if n:
        c.add(list(range(n)), texts=texts(n), metadata=[{"n": i} for i in range(n)])
    return c


def after(steps: int) -> Callable[[], bool]:
    """A `cancel` that stops after so many steps."""
    left = [steps]

    def stops() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stops


def content(c: Any) -> list[Any]:
    rows = [(r.id, r.text, r.metadata, {n: v.tobytes() for n, v in r.vectors.items()}) for r in c]
    return sorted(rows, key=repr)


def refused(c: vecdb.Collection, call: Callable[[], object], *words: str, kind: type[VecdbError] = InvalidArgument) -> None:
    """The call raises by name, and nothing is changed."""
    before, declared = content(c), c.schema
    with pytest.raises(kind) as found:
        call()
    for word in words:
        assert word in str(found.value), str(found.value)
    assert content(c) == before and c.schema == declared


def by_numpy(stored: Any, query: Any, k: int, metric: str = "cosine") -> list[int]:
    stored, query = np.asarray(stored, np.float64), np.asarray(query, np.float64)
    if metric == "l2":
        ranked = np.linalg.norm(stored - query, axis=1)
    elif metric == "dot":
        ranked = -stored @ query
    else:
        ranked = -stored @ query / np.linalg.norm(stored, axis=1)
    found: list[int] = np.argsort(ranked, kind="stable")[:k].tolist()
    return found


# --- apply_adapter -----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize("dim", [DIM, DIM - 3, DIM + 5])
def test_rows_and_queries_go_through_the_adapter(db: vecdb.Database, metric: str, dtype: str, dim: int) -> None:
    c, made = plain(db, metric=metric, dtype=dtype), adapter(dim=dim, metric=metric)
    stored = c.vectors(list(range(ROWS))).astype(np.float32)
    query = vectors(1, seed=9)[0]
    c.apply_adapter(made, force=True)
    images = made(stored)
    found = c.vectors(list(range(ROWS)))
    assert found.dtype == stored.dtype if dtype == "f32" else found.dtype == np.float16
    assert np.allclose(found, images, atol=2e-3 if dtype == "f16" else 1e-6) and c.schema.dim == dim
    for exact in (True, False):
        assert c.search(query, 5, exact=exact).ids == by_numpy(found, made(query), 5, metric)
    c.add("new", query)
    assert np.allclose(c.vectors("new")[0], made(query), atol=2e-3)
    assert "new" in c.search(query, 1 if metric != "dot" else 20).ids
    c.update(3, vectors=query * 2)
    assert np.allclose(c.vectors(3)[0], made(query * 2), atol=4e-3)
    c.rollback_vectors()
    back = c.vectors(["new", 3, *range(4, ROWS)])
    expected = np.stack([query, query * 2, *stored[4:]])
    assert np.allclose(back, expected, atol=4e-3 if dtype == "f16" else 0) and c.schema.dim == DIM
    assert c.schema.hidden == {} and c.schema.only.adapters == ()


def test_who_may_not_be_applied(db: vecdb.Database) -> None:
    c = plain(db)
    refused(c, lambda: c.apply_adapter("no adapter"), "apply_adapter", "str")  # type: ignore[arg-type]
    refused(c, lambda: c.apply_adapter(adapter()), "does not help", "force=True")
    refused(c, lambda: c.apply_adapter(adapter(5), force=True), "5 dimensions", "has 8")
    refused(c, lambda: c.apply_adapter(adapter(metric="l2"), force=True), "'l2'", "'cosine'")
    refused(c, lambda: c.apply_adapter(adapter(of="another"), force=True), "another", kind=EncoderMismatch)
    refused(c, lambda: c.apply_adapter(adapter(), using="nobody", force=True), "nobody")
    refused(c, lambda: c.apply_adapter(adapter(), force=True, cancel=5), "cancel")
    refused(c, lambda: c.apply_adapter(adapter(), force=True, progress=5), "progress")
    for dtype, metric in (("i8", "dot"), ("b1", "hamming")):
        of = db.create_collection(dtype, dim=DIM, dtype=dtype, metric=metric)
        refused(of, lambda of=of: of.apply_adapter(adapter(), force=True))
    many = db.create_collection("many", vectors={"m": vecdb.Vector(DIM, multi=True)})
    refused(many, lambda: many.apply_adapter(adapter(), force=True), "'m'")


def test_calls_that_have_nothing_to_undo_or_drop(db: vecdb.Database) -> None:
    c = plain(db)
    refused(c, c.rollback_vectors, "no previous vectors")
    refused(c, c.drop_previous_vectors, "no previous vectors")
    c.apply_adapter(adapter(), force=True, cancel=after(1))
    refused(c, c.drop_previous_vectors, "no previous vectors")  # those on their way are no previous ones
    c.rollback_vectors()
    refused(c, c.rollback_vectors, "no previous vectors")


def test_inside_a_transaction_and_read_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.vecdb"
    with vecdb.open(path) as db:
        c = worded(db)
        for call in (lambda: c.apply_adapter(adapter(of=E1.fingerprint), force=True), lambda: c.reembed(E2),
                     c.rollback_vectors, c.drop_previous_vectors):  # fmt: skip
            with pytest.raises(InvalidArgument, match="transaction"), db.transaction():
                call()
        c.reembed(E2)
    with vecdb.open(path, mode="r") as db:
        c = db["c"]
        before = content(c)
        with pytest.raises(vecdb.errors.ReadOnly):
            c.rollback_vectors()
        with pytest.raises(vecdb.errors.ReadOnly):
            c.drop_previous_vectors()
        assert content(c) == before


def test_a_second_adapter_waits_until_the_previous_vectors_are_dropped(db: vecdb.Database) -> None:
    c, one = plain(db), adapter(dim=6)
    stored, query = c.vectors(list(range(ROWS))), vectors(1, seed=9)[0]
    c.apply_adapter(one, force=True)
    c.apply_adapter(one)  # done already: neither again nor refused
    space = c.schema.only.space
    two = adapter(6, 9, seed=5, of=space)
    refused(c, lambda: c.apply_adapter(two, force=True), "drop_previous_vectors")
    c.drop_previous_vectors()
    refused(c, lambda: c.apply_adapter(adapter(6, of=None), force=True), "given vectors", kind=EncoderMismatch)
    c.apply_adapter(two, force=True)
    assert np.allclose(c.vectors(list(range(ROWS))), two(one(stored)), atol=1e-5)
    assert c.search(query, 5, exact=True).ids == by_numpy(two(one(stored)), two(one(query)), 5)
    c.add("new", query)
    assert np.allclose(c.vectors("new")[0], two(one(query)), atol=1e-6)
    c.rollback_vectors()
    assert np.allclose(c.vectors([*range(ROWS), "new"]), one(np.vstack([stored, query])), atol=1e-5)
    assert c.schema.only.adapters == (one.fingerprint,)


def test_a_vector_of_which_only_what_the_adapter_drops_changes_comes_back(db: vecdb.Database) -> None:
    c = plain(db)
    c.apply_adapter(Adapter(np.eye(DIM, 4), metric="cosine"), force=True)
    given = np.r_[np.ones(4), np.zeros(4)].astype(np.float32)
    c.upsert("u", given)
    c.add("a", given)
    for other in (given + np.eye(DIM)[6], given + np.eye(DIM)[7]):
        c.upsert("u", other.astype(np.float32))
        c.update("a", vectors=other.astype(np.float32))
    c.rollback_vectors()
    assert c.vectors(["u", "a"]).tolist() == [other.tolist()] * 2


def test_an_image_that_cannot_be_stored_is_named_and_nothing_is_lost(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=DIM, dtype="f16", metric="l2")
    c.add(list(range(ROWS)), vectors(ROWS))
    c.add("far", vectors(1)[0] * 1000)
    huge = Adapter(np.eye(DIM) * 1000, metric="l2")
    before = content(c)
    with pytest.raises(InvalidArgument, match="row 'far' can have no new vector: .*too large for float16"):
        c.apply_adapter(huge, force=True)
    assert content(c) == before and c.search(vectors(1)[0], 1).ids == [0]
    c.rollback_vectors()
    assert content(c) == before


def test_a_text_that_has_no_vector_by_the_new_encoder_is_named(db: vecdb.Database) -> None:
    deaf = vecdb.encoders.function(
        lambda texts: [[0, 0] if text == "?!" else [1, len(text)] for text in texts], name="deaf", dim=2
    )
    c = worded(db)
    c.add("mute", texts="?!")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="row 'mute' can have no new vector: encoder 'deaf' .*zero vector"):
            c.reembed(deaf)
    assert c.schema.encoder == "one" and c.search(E1.encode_queries(["?!"])[0], 1).ids == ["mute"]
    c.update("mute", texts="a word")
    c.reembed(deaf)
    assert c.schema.encoder == "deaf" and c.search("a word", 1).ids == ["mute"]


# --- stopped, resumed, abandoned ---------------------------------------------------------------------


def test_a_stopped_call_goes_on_where_it_was(db: vecdb.Database) -> None:
    c, made = plain(db), adapter()
    seen: list[tuple[int, Any]] = []
    c.apply_adapter(made, force=True, cancel=after(2), progress=lambda done, total: seen.append((done, total)))
    first = seen[-1][0]
    assert 0 < first < ROWS and c.schema.hidden["vector"].role == "next"
    assert c.vectors(0).tolist() == vectors(ROWS)[:1].tolist()
    assert c.stats()["vectors"]["vector"]["next"]["rows"] == first
    seen.clear()
    c.apply_adapter(made, progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] > first and seen[-1] == (ROWS, ROWS)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert np.allclose(c.vectors(list(range(ROWS))), made(vectors(ROWS)), atol=1e-6)


def test_another_migration_of_a_field_on_its_way_is_refused(db: vecdb.Database) -> None:
    c = worded(db)
    one = adapter(of=E1.fingerprint)
    c.apply_adapter(one, force=True, cancel=after(1))
    for call in (lambda: c.apply_adapter(adapter(seed=7, of=E1.fingerprint), force=True), lambda: c.reembed(E2),
                 lambda: c.reembed(E1)):  # fmt: skip
        refused(c, call, "on its way to", "rollback_vectors")
    c.rollback_vectors()
    c.reembed(E2, cancel=after(1))
    refused(c, lambda: c.apply_adapter(one, force=True), "on its way to two")
    refused(c, lambda: c.reembed(encoder("three", 5)), "on its way to")
    c.reembed(E2)
    assert c.schema.encoder == "two"


def test_another_encoder_of_the_same_name_is_told_apart(db: vecdb.Database) -> None:
    c = worded(db)
    c.reembed(encoder("same", DIM), cancel=after(1))
    refused(c, lambda: c.reembed(encoder("same", DIM + 1)), "on its way to another same (fingerprint ")


def test_an_unfinished_one_is_abandoned_without_a_trace(db: vecdb.Database) -> None:
    c = plain(db)
    c.add(list(range(1000, 1000 + 2000)), vectors(2000))
    before, kept = content(c), c.stats()["space"]["vectors"]
    c.apply_adapter(adapter(), force=True, cancel=after(3))
    c.add("late", vectors(1, seed=4))
    assert c.stats()["space"]["vectors"] > kept
    c.rollback_vectors()
    c.delete("late")
    assert content(c) == before and c.schema.hidden == {}
    assert c.stats()["space"].get("maps", 0) == 0 and c.stats()["space"]["vectors"] == kept


@pytest.mark.parametrize("verb", ["adapter", "reembed"])
def test_two_threads_that_do_the_same_do_it_once(db: vecdb.Database, verb: str) -> None:
    c = worded(db, 150)
    made = adapter(of=E1.fingerprint)
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            c.apply_adapter(made, force=True) if verb == "adapter" else c.reembed(E2)
        except BaseException as error:
            wrong.append(error)

    for _ in range(4):
        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in wrong:  # who begins at the same moment may be told to call again
            assert isinstance(error, InvalidArgument) and "call again" in str(error), error
        wrong.clear()
        declared = c.schema.only
        assert declared.adapters == (made.fingerprint,) if verb == "adapter" else declared.encoder == "two"
        assert c.schema.hidden["vector"].role == "previous" and db.check() == []
        c.rollback_vectors()
        assert c.schema.only.fingerprint == E1.fingerprint and c.schema.only.adapters == ()


# --- what others do between two steps ----------------------------------------------------------------


def between(db: vecdb.Database, c: vecdb.Collection, deed: Callable[[], object], *, at: int = 2) -> BaseException | None:
    """Another thread does something between two steps of an adapter; what becomes of the call."""
    calls = [0]

    def progress(done: int, total: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            thread = threading.Thread(target=deed)
            thread.start()
            thread.join()

    try:
        c.apply_adapter(adapter(), using=next(iter(c.schema.vectors)), force=True, progress=progress)
    except VecdbError as error:
        return error
    return None


def test_a_collection_that_is_renamed_meanwhile_goes_on(db: vecdb.Database) -> None:
    c = plain(db)
    assert between(db, c, lambda: db.rename_collection("c", "d")) is None
    assert db["d"].schema.only.adapters and db.collections() == ["d"]


def test_a_collection_that_is_dropped_meanwhile_is_named(db: vecdb.Database) -> None:
    c = plain(db)
    assert isinstance(between(db, c, lambda: db.drop_collection("c")), NotFound)
    assert db.collections() == [] and db.stats()["space"].get("maps", 0) == 0


def test_a_field_that_is_dropped_meanwhile_is_named(db: vecdb.Database) -> None:
    c = db.create_collection("c", vectors={"a": vecdb.Vector(DIM), "b": vecdb.Vector(DIM)})
    c.add(list(range(ROWS)), {"a": vectors(ROWS), "b": vectors(ROWS, seed=3)})
    error = between(db, c, lambda: c.drop_vector("a"))
    assert isinstance(error, InvalidArgument) and "meanwhile" in str(error), repr(error)
    assert c.schema.hidden == {} and c.search(vectors(1, seed=3)[0], 1).ids == [0]
    space = db.stats()["space"]
    assert space.get("maps", 0) == 0


def test_a_field_that_is_dropped_with_its_previous_vectors_leaves_nothing(db: vecdb.Database) -> None:
    c = db.create_collection("c", vectors={"a": vecdb.Vector(DIM), "b": vecdb.Vector(DIM)})
    c.add(list(range(ROWS)), {"a": vectors(ROWS), "b": vectors(ROWS, seed=3)})
    c.apply_adapter(adapter(), using="a", force=True)
    c.drop_vector("a")
    assert list(c.schema.vectors) == ["b"] and c.schema.hidden == {} and db.check() == []
    c.upsert(list(range(ROWS)), {"b": vectors(ROWS, seed=8)})
    assert c.search(vectors(1, seed=8)[0], 1).ids == [0]


def test_one_that_is_abandoned_or_begun_anew_meanwhile_is_named(db: vecdb.Database) -> None:
    c = plain(db)
    error = between(db, c, c.rollback_vectors)
    assert isinstance(error, InvalidArgument) and "call again" in str(error)
    assert c.schema.hidden == {}

    def anew() -> None:
        c.rollback_vectors()
        c.apply_adapter(adapter(seed=77), force=True, cancel=after(1))

    error = between(db, c, anew)
    assert isinstance(error, InvalidArgument)
    other = adapter(seed=77)
    c.apply_adapter(other)  # the other goes on, and none of its vectors is the first one's
    assert np.allclose(c.vectors(list(range(ROWS))), other(vectors(ROWS)), atol=1e-6)


def test_one_that_another_finishes_meanwhile_is_done(db: vecdb.Database) -> None:
    c, made = plain(db), adapter()
    assert between(db, c, lambda: c.apply_adapter(made, force=True)) is None
    assert c.schema.only.adapters == (made.fingerprint,) and c.schema.hidden["vector"].role == "previous"
    assert np.allclose(c.vectors(list(range(ROWS))), made(vectors(ROWS)), atol=1e-6)


def test_a_field_is_added_and_written_meanwhile(db: vecdb.Database) -> None:
    c = plain(db)

    def deed() -> None:
        c.add_vector("more", vecdb.Vector(3, metric="l2"))
        c.update([0, ROWS - 1], vectors={"more": [[1, 2, 3], [3, 2, 1]]})
        c.add("new", {"vector": vectors(1, seed=5), "more": [[0, 0, 1]]})

    assert between(db, c, deed) is None
    made = adapter()
    assert np.allclose(c.vectors([0, "new"], using="vector"), made(np.vstack([vectors(ROWS)[:1], vectors(1, seed=5)])), atol=1e-6)
    assert c.search([1, 2, 3], 3, using="more").ids[0] == 0
    c.rollback_vectors("vector")
    assert np.allclose(c.vectors([0, "new"], using="vector"), np.vstack([vectors(ROWS)[:1], vectors(1, seed=5)]))


def test_writes_before_at_and_after_the_switch_all_land(db: vecdb.Database) -> None:
    c, made = plain(db), adapter()
    model = dict(enumerate(vectors(ROWS)))
    rng = np.random.default_rng(3)

    def progress(done: int, total: Any) -> None:
        for id in rng.integers(0, 80, 3).tolist():
            model[id] = rng.standard_normal(DIM).astype(np.float32)
            c.upsert(id, model[id])
        gone = int(rng.integers(0, 80))
        c.delete(gone)
        model.pop(gone, None)
        query = rng.standard_normal(DIM).astype(np.float32)
        images = made(np.stack(list(model.values())))
        before = np.stack(list(model.values())) if not c.schema.only.adapters else images
        mapped = query if not c.schema.only.adapters else made(query)
        expected = [list(model)[i] for i in by_numpy(before, mapped, 5)]
        assert c.search(query, 5, exact=True).ids == expected and c.search(query, 5).ids == expected

    c.apply_adapter(made, force=True, progress=progress)
    assert sorted(model) == sorted(r.id for r in c)
    assert np.allclose(c.vectors(list(model)), made(np.stack(list(model.values()))), atol=1e-6)


# --- reembed -----------------------------------------------------------------------------------------


def test_rows_are_encoded_anew_and_searched_by_the_new_encoder(db: vecdb.Database) -> None:
    c = worded(db)
    fresh = db.create_collection("fresh", encoder=E2)
    fresh.add(list(range(ROWS)), texts=texts(ROWS), metadata=[{"n": i} for i in range(ROWS)])
    c.reembed(E2)
    assert c.schema.encoder == "two" and c.schema.dim == E2.dim and content(c) == content(fresh)
    for query in ("text number 7", "another"):
        assert c.search(query, 9).ids == fresh.search(query, 9).ids
    c.add("new", texts="text number 7")
    assert set(c.search("text number 7", 2).ids) == {7, "new"}
    c.reembed(E2)  # done already
    c.drop_previous_vectors()
    refused(c, lambda: c.reembed(E2), "already")


def test_rows_without_a_text_are_named_before_anything_begins(db: vecdb.Database) -> None:
    c = worded(db)
    c.add("given", vectors(1))
    c.add("neither", metadata={"n": 1})  # has no vector: it is no obstacle
    refused(c, lambda: c.reembed(E2), "'given'", "no text")
    assert c.schema.hidden == {}
    c.update("given", texts="a text after all")
    c.reembed(E2)
    assert c.get("neither").vector is None
    assert c.vectors("given")[0].tolist() == E2.encode_documents(["a text after all"])[0].tolist()


def test_a_row_without_a_text_that_comes_meanwhile_is_named_and_can_be_mended(db: vecdb.Database) -> None:
    c = worded(db)
    c.reembed(E2, cancel=after(2))
    c.add("given", vectors(1))
    refused(c, lambda: c.reembed(E2), "'given'", "no text")
    assert c.search("text number 3", 1).ids == [3]
    c.update("given", texts="mended")
    c.reembed(E2)
    assert c.schema.encoder == "two" and c.search("mended", 1).ids == ["given"]


def test_texts_in_metadata_are_encoded(db: vecdb.Database) -> None:
    c = db.create_collection("c", vectors={"v": vecdb.Vector(encoder=E1, source="about.title")})
    c.add(list(range(ROWS)), metadata=[{"about": {"title": t}} for t in texts(ROWS)])
    c.reembed(E2, cancel=after(2))
    c.update(0, metadata={"about": {"title": "changed"}})
    c.update(ROWS - 1, metadata={"about": {"title": "changed too"}})
    c.reembed(E2)
    expected = E2.encode_documents(["changed", *texts(ROWS)[1:-1], "changed too"])
    assert c.vectors(list(range(ROWS))).tolist() == expected.tolist()
    assert c.schema.vectors["v"].source == "about.title"
    c.rollback_vectors()
    assert c.vectors(0).tolist() == E1.encode_documents(["changed"]).tolist()


def test_a_rollback_encodes_what_was_written_since(db: vecdb.Database) -> None:
    c = worded(db)
    c.reembed(E2)
    c.add(["x", "y"], texts=["new x", "new y"])
    c.update(3, texts="three")
    c.delete(4)
    c.rollback_vectors()
    assert c.schema.encoder == "one" and c.schema.hidden == {}
    expected = E1.encode_documents(["new x", "new y", "three", "text number 5"])
    assert c.vectors(["x", "y", 3, 5]).tolist() == expected.tolist() and 4 not in c
    assert c.search("new x", 1).ids == ["x"]


def test_a_rollback_that_cannot_be_is_named_and_loses_nothing(db: vecdb.Database) -> None:
    c = worded(db)
    c.reembed(E2)
    c.add("given", vectors(1, E2.dim))
    refused(c, c.rollback_vectors, "'given'", "no text")
    assert c.search(vectors(1, E2.dim)[0], 1).ids == ["given"] and db.check() == []
    c.delete("given")
    c.rollback_vectors()
    assert c.schema.encoder == "one"


def test_a_rollback_without_the_encoder_names_it(tmp_path: Path) -> None:
    path = tmp_path / "m.vecdb"
    with vecdb.open(path) as db:
        c = worded(db)
        c.reembed(E2)
    with vecdb.open(path) as db:
        c = db.get_or_create_collection("c", encoder=E2)
        assert c.search("text number 5", 1).ids == [5]
        c.add("new", texts="text new")
        refused(c, c.rollback_vectors, "'one'", kind=EncoderMismatch)
        c.delete("new")
        c.rollback_vectors()  # nobody is to be encoded
        assert c.schema.encoder == "one"
        with pytest.raises(EncoderMismatch, match="one"):
            c.search("text number 5", 1)
        assert db.get_or_create_collection("c", encoder=E1).search("text number 5", 1).ids == [5]


def test_given_vectors_become_encoded_ones_and_come_back(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=DIM)
    c.add(list(range(ROWS)), vectors(ROWS), texts=texts(ROWS))
    c.reembed(E2)
    assert c.schema.encoder == "two" and c.search("text number 5", 1).ids == [5]
    c.add("new", texts="a new text")
    refused(c, c.rollback_vectors, "'new'", "given, not encoded")
    c.delete("new")
    c.update(3, metadata={"n": 1})  # keeps its place in both
    c.rollback_vectors()
    assert c.schema.encoder is None and c.vectors(list(range(ROWS))).tolist() == vectors(ROWS).tolist()


@pytest.mark.parametrize("dtype", ["i8", "b1"])
def test_vectors_of_other_dtypes_can_be_encoded_anew(db: vecdb.Database, dtype: str) -> None:
    c = db.create_collection("c", dim=DIM, dtype=dtype, metric="dot" if dtype == "i8" else "hamming")
    given = (vectors(ROWS) * 20).astype(np.int8) if dtype == "i8" else vectors(ROWS) > 0
    c.add(list(range(ROWS)), given, texts=texts(ROWS))
    before = content(c)
    c.reembed(E2)
    assert c.schema.dtype == "f32" and c.search("text number 5", 1, exact=True).ids
    c.rollback_vectors()
    assert content(c) == before and c.schema.dtype == dtype


def test_adapters_upon_encoders(db: vecdb.Database) -> None:
    c = worded(db)
    one = adapter(of=E1.fingerprint)
    c.apply_adapter(one, force=True)
    c.add("new", texts="text of a new one")
    encoded = E1.encode_documents([*texts(ROWS), "text of a new one"])
    assert np.allclose(c.vectors([*range(ROWS), "new"]), one(encoded), atol=1e-6)
    assert c.search("text of a new one", 1).ids == ["new"]
    query = E1.encode_queries(["text number 5"])[0]
    assert c.search(query, 3).ids == c.search("text number 5", 3).ids
    c.drop_previous_vectors()
    c.reembed(E2)
    assert c.schema.only.adapters == () and c.schema.dim == E2.dim
    c.rollback_vectors()
    assert c.schema.only.adapters == (one.fingerprint,)
    assert np.allclose(c.vectors([*range(ROWS), "new"]), one(encoded), atol=1e-6)
    c.reembed(E1)  # the same encoder without the adapter
    assert c.schema.only.adapters == () and np.allclose(c.vectors(5)[0], encoded[5], atol=1e-6)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_rows_that_are_written_as_they_are_keep_their_places(db: vecdb.Database, dtype: str) -> None:
    c = plain(db, dtype=dtype, metric="l2")
    c.apply_adapter(adapter(metric="l2"), force=True)
    said = db.create_collection("said", encoder=E1, dtype=dtype)
    said.add(list(range(ROWS)), texts=texts(ROWS))
    said.apply_adapter(adapter(of=E1.fingerprint), force=True)
    said.drop_previous_vectors()
    said.reembed(E2)
    said.upsert([0, 1], texts=["one of the new ones", "and another"])
    said.rollback_vectors()
    said.upsert(list(range(2, ROWS)), texts=texts(ROWS)[2:])
    before = c.stats()["slots"], said.stats()["slots"]
    c.upsert(list(range(ROWS)), vectors(ROWS), metadata=[{"n": i} for i in range(ROWS)])
    said.upsert([0, 1, *range(2, ROWS)], texts=["one of the new ones", "and another", *texts(ROWS)[2:]])
    assert (c.stats()["slots"], said.stats()["slots"]) == before


def test_a_bridge_goes_when_it_leads_nowhere(db: vecdb.Database) -> None:
    c = worded(db, 200)
    c.reembed(E2, cancel=after(2))
    assert c.stats()["space"]["maps"] > 0 and c.search("text number 3", 1).ids
    c.reembed(E2)
    assert c.stats()["space"].get("maps", 0) == 0 and db.check() == []
    c.rollback_vectors()
    c.reembed(E2, cancel=after(1))
    c.rollback_vectors()
    assert c.stats()["space"].get("maps", 0) == 0


def test_embeddings_are_cached_and_may_be_cleared_on_the_way(db: vecdb.Database) -> None:
    asked: list[str] = []

    def encode(given: list[str]) -> Any:
        asked.extend(given)
        return E2.encode_documents(given)

    counted = vecdb.encoders.function(encode, name="counted", dim=E2.dim)
    c = worded(db)
    c.reembed(counted, cancel=after(2))
    done = len(asked)
    assert 0 < done < ROWS
    c.reembed(counted, cancel=after(1))
    assert db.clear_embedding_cache() > 0
    c.reembed(counted)
    assert sorted(asked) == sorted(texts(ROWS))  # none twice: what is done is in the field
    c.rollback_vectors()
    c.reembed(counted)
    assert len(asked) < 2 * ROWS  # what was encoded since is cached still


# --- how the collection is declared ------------------------------------------------------------------


def test_the_declaration_before_an_adapter_fits_after_it(db: vecdb.Database) -> None:
    c = plain(db)
    c.apply_adapter(adapter(dim=5), force=True)
    assert db.get_or_create_collection("c", dim=DIM) == c
    with pytest.raises(SchemaError, match="dim"):
        db.get_or_create_collection("c", dim=5)
    refused(c, lambda: c.add("x", vectors(1, 5)), "8")
    refused(c, lambda: c.search(vectors(1, 5)[0]), "8")


def test_the_declaration_before_another_encoder_does_not(db: vecdb.Database) -> None:
    c = worded(db)
    c.reembed(E2, cancel=after(1))
    assert db.get_or_create_collection("c", encoder=E1) == c
    c.reembed(E2)
    assert db.get_or_create_collection("c", encoder=E2) == c
    with pytest.raises(SchemaError, match="12 dimensions, not 8|dim is 12, not 8"):
        db.get_or_create_collection("c", encoder=E1)


def test_a_file_that_is_opened_again_goes_on(tmp_path: Path) -> None:
    path, made = tmp_path / "m.vecdb", adapter(dim=6)
    with vecdb.open(path) as db:
        plain(db).apply_adapter(made, force=True, cancel=after(2))
    with vecdb.open(path) as db:
        c = db["c"]
        c.add("new", vectors(1, seed=6))
        c.apply_adapter(made, force=True)
    with vecdb.open(path) as db:
        c = db["c"]
        assert np.allclose(c.vectors([*range(ROWS), "new"]), made(np.vstack([vectors(ROWS), vectors(1, seed=6)])), atol=1e-6)
        assert c.search(vectors(1, seed=6)[0], 1).ids == ["new"]
        assert db.check() == []
    copy = tmp_path / "copy.vecdb"
    with vecdb.open(path) as db:
        db.backup(copy)
    with vecdb.open(copy) as db:
        db.compact()
        assert db["c"].search(vectors(1, seed=6)[0], 1).ids == ["new"]
        db["c"].rollback_vectors()
        assert db["c"].vectors("new").tolist() == vectors(1, seed=6).tolist() and db.check() == []


PROCESS = """
import sys, numpy as np, vecdb
with vecdb.open(sys.argv[1]) as db:
    c = db["c"]
    c.search(np.ones(8), 1)
    print("ready", flush=True)
    sys.stdin.readline()
    given = np.arange(1, 9, dtype=np.float32)
    c.upsert("theirs", given)
    print(c.search(given, 1).ids, len(c.schema.only.adapters), c.vectors("theirs").shape, flush=True)
"""


def test_another_process_writes_and_searches_by_the_new_vectors(tmp_path: Path) -> None:
    path, made = tmp_path / "m.vecdb", adapter(dim=6)
    given = np.arange(1, 9, dtype=np.float32)
    with vecdb.open(path) as db:
        c = plain(db)
        other = child.start(PROCESS, path)
        assert other.stdout is not None and other.stdout.readline() == b"ready\n"
        c.apply_adapter(made, force=True)
        out = child_says(other)
        assert out == "['theirs'] 1 (1, 6)"
        assert np.allclose(c.vectors("theirs")[0], made(given), atol=1e-6)
        c.rollback_vectors()
        assert c.vectors("theirs")[0].tolist() == given.tolist() and db.check() == []


def child_says(other: subprocess.Popen[bytes]) -> str:
    found, _ = other.communicate(b"go\n", timeout=60)
    assert other.returncode == 0
    return found.decode().strip()


# --- several fields, rows that lack one, rows that are gone ------------------------------------------


def test_one_field_migrates_while_another_is_updated(db: vecdb.Database) -> None:
    c = db.create_collection("c", vectors={"a": vecdb.Vector(DIM), "b": vecdb.Vector(4, metric="l2"),
                                           "m": vecdb.Vector(2, multi=True)})  # fmt: skip
    some = [None if i % 3 == 1 else v for i, v in enumerate(vectors(ROWS))]
    c.add(list(range(ROWS)), {"a": some, "b": vectors(ROWS, 4)})
    made, calls = adapter(dim=5), [0]

    def progress(done: int, total: Any) -> None:
        at = calls[0] % ROWS
        calls[0] += 1
        c.update(at, vectors={"b": [float(at)] * 4})
        c.update((at + 7) % ROWS, vectors={"m": [[1.0, float(at)]]})

    c.apply_adapter(made, using="a", force=True, progress=progress)
    for i in range(ROWS):
        record = c.get(i)
        assert ("a" in record.vectors) == (i % 3 != 1)
        if i % 3 != 1:
            assert np.allclose(record.vectors["a"], made(vectors(ROWS)[i]), atol=1e-6)
        assert record.vectors["b"].tolist() == ([float(i)] * 4 if i < calls[0] else vectors(ROWS, 4)[i].tolist())
    assert len(c.search(vectors(1)[0], ROWS, using="a")) == ROWS - ROWS // 3
    c.apply_adapter(Adapter(np.eye(4) * 2, metric="l2"), using="b", force=True)  # each field keeps its own
    c.rollback_vectors("a")
    assert np.allclose(c.vectors(0, using="a"), vectors(ROWS)[:1]) and "b" in c.schema.hidden
    c.rollback_vectors("b")
    assert c.vectors(ROWS - 1, using="b").tolist() == vectors(ROWS, 4)[-1:].tolist() or calls[0] >= ROWS


@pytest.mark.parametrize("rows", [0, ROWS])
def test_collections_without_rows(db: vecdb.Database, rows: int) -> None:
    """None that ever were, and none that are left."""
    c = worded(db, rows)
    c.delete(where={})
    one = adapter(of=E1.fingerprint)
    c.apply_adapter(one, force=True)
    assert c.search("text", 3).ids == [] and len(c) == 0
    c.add("a", texts="a text")
    assert np.allclose(c.vectors("a"), one(E1.encode_documents(["a text"])), atol=1e-6)
    c.drop_previous_vectors()
    c.reembed(E2)
    assert c.search("a text", 3).ids == ["a"]
    c.rollback_vectors()
    c.delete("a")
    c.reembed(E2)
    assert c.search("text", 3).ids == [] and c.schema.encoder == "two"


def test_rows_that_lack_the_field_lack_it_after(db: vecdb.Database) -> None:
    c = plain(db)
    c.add(["x", "y"], metadata=[{"n": 1}, {"n": 2}])
    c.apply_adapter(adapter(), force=True)
    assert c.get("x").vector is None and len(c.search(vectors(1)[0], 100)) == ROWS
    c.update("x", vectors=vectors(1, seed=6)[0])
    c.upsert(0, metadata={"n": 0})
    assert c.search(vectors(1, seed=6)[0], 1).ids == ["x"] and c.get(0).vector is None
    c.rollback_vectors()
    assert c.vectors("x").tolist() == vectors(1, seed=6).tolist() and c.get(0).vector is None and c.get("y").vector is None


# --- searches of every kind --------------------------------------------------------------------------


def test_snapshots_from_before_answer_as_before(db: vecdb.Database) -> None:
    c = worded(db)
    query = vectors(1, seed=9)[0]
    with db.snapshot() as snap:
        old = snap["c"]
        expected = [old.search(query, 7).ids, old.search("text number 4", 7).ids, old.vectors(3).tolist(), content(old)]

        def ask() -> list[Any]:
            return [old.search(query, 7).ids, old.search("text number 4", 7).ids, old.vectors(3).tolist(), content(old)]

        c.reembed(E2, progress=lambda done, total: c.upsert(done % ROWS, texts=f"other {done}"))
        assert ask() == expected
        with db.snapshot() as later:
            c.drop_previous_vectors()
            c.apply_adapter(adapter(E2.dim, of=E2.fingerprint), force=True)
            c.upsert(list(range(ROWS)), texts=texts(ROWS))
            assert ask() == expected
            assert later["c"].schema.encoder == "two" and later["c"].schema.only.adapters == ()
            assert len(later["c"].search("text number 4", 7)) == 7
            c.rollback_vectors()
            c.optimize(rebuild=True)
            assert ask() == expected


def test_a_snapshot_has_the_maps_of_its_commit(db: vecdb.Database) -> None:
    c, made, query = plain(db), adapter(dim=6), vectors(1, seed=9)[0]
    c.apply_adapter(made, force=True)
    with db.snapshot() as snap:
        c.rollback_vectors()  # the map goes with what it made
        db._maps.clear()
        assert snap["c"].search(query, 5).ids == by_numpy(made(vectors(ROWS)), made(query), 5)
        assert c.search(query, 5).ids == by_numpy(vectors(ROWS), query, 5)


def test_prepared_searches_go_on_through_a_switch(db: vecdb.Database) -> None:
    c, made, query = plain(db), adapter(dim=6), vectors(1, seed=9)[0]
    prepared, filtered = c.prepare(5), c.prepare(5, where="n < 30")
    stored = vectors(ROWS)
    for _ in range(2):
        assert prepared(query).ids == by_numpy(stored, query, 5)
    steps: list[list[int]] = []
    c.apply_adapter(made, force=True, progress=lambda *_: steps.append(prepared(query).ids))
    assert all(each == by_numpy(stored, query, 5) for each in steps[:-1])
    for _ in range(3):
        for given in (query, query.tolist(), query.astype(np.float64)):
            assert prepared(given).ids == c.search(given, 5).ids == by_numpy(made(stored), made(query), 5)
        assert filtered(query).ids == by_numpy(made(stored[:30]), made(query), 5)
    several = c.search(np.stack([query, -query]), 3)
    assert [each.ids for each in several] == [c.search(query, 3).ids, c.search(-query, 3).ids]
    c.rollback_vectors()
    for _ in range(3):
        assert prepared(query).ids == by_numpy(stored, query, 5)
    refused(c, lambda: prepared(vectors(1, 6)[0]), "8")


def test_query_objects_see_the_field_as_it_is(db: vecdb.Database) -> None:
    c, made = plain(db), adapter(dim=6)
    stored = vectors(ROWS)
    query = vectors(1, seed=9)[0]
    queries = [Near(query), Near(vecdb.ById(4)), Like(positive=[3, 4], negative=[9]), Like(positive=[query], strategy="best"),
               Context([(3, 9), (query, 8)]), Fuse(Near(query), Near(vecdb.ById(4)))]  # fmt: skip
    before = [c.search(each, 6).ids for each in queries]
    fresh = db.create_collection("fresh", dim=6)
    fresh.add(list(range(ROWS)), made(stored), metadata=[{"n": i} for i in range(ROWS)])
    given = [Near(made(query)), Near(vecdb.ById(4)), Like(positive=[3, 4], negative=[9]),
             Like(positive=[made(query)], strategy="best"), Context([(3, 9), (made(query), 8)]),
             Fuse(Near(made(query)), Near(vecdb.ById(4)))]  # fmt: skip
    asked: list[Any] = []
    c.apply_adapter(made, force=True, progress=lambda *_: asked.append([c.search(each, 6).ids for each in queries]))
    assert all(each == before for each in asked[:-1])
    assert [c.search(each, 6).ids for each in queries] == [fresh.search(each, 6).ids for each in given]
    assert c.search(query, 6, diversity=0.5).ids == fresh.search(made(query), 6, diversity=0.5).ids
    reasons = c.why_not(query, ROWS - 1, k=3)
    assert str(reasons)
    c.rollback_vectors()
    assert [c.search(each, 6).ids for each in queries] == before


def test_what_goes_out_is_what_is_stored(db: vecdb.Database) -> None:
    pytest.importorskip("pyarrow")
    c, made = plain(db), adapter(dim=6)
    c.apply_adapter(made, force=True)
    table = c.to_arrow()
    assert np.allclose(np.stack(table.column("vector").to_pylist()), made(vectors(ROWS)), atol=1e-6)
    assert table.column_names.count("vector") == 1
    figures = c.stats()
    assert set(figures["vectors"]) == {"vector"} and figures["space"]["maps"] > 0
    assert figures["vectors"]["vector"]["previous"]["rows"] == ROWS
    assert sum(db.stats()["space"].values()) == db.stats()["file_bytes"]


@pytest.mark.parametrize("state", ["next", "previous", "rolled back", "dropped", "chained"])
def test_everything_can_be_built_again_in_every_state(db: vecdb.Database, state: str) -> None:
    c, one = plain(db, 700), adapter(dim=6)
    query = vectors(1, seed=9)[0]
    c.delete(list(range(0, 300, 4)))
    c.apply_adapter(one, force=True, cancel=after(20) if state == "next" else None)
    if state == "rolled back":
        c.rollback_vectors()
    if state in ("dropped", "chained"):
        c.drop_previous_vectors()
    if state == "chained":
        c.apply_adapter(adapter(6, 7, of=c.schema.only.space), force=True)
    c.upsert(list(range(100)), vectors(100, seed=12))
    before, found = content(c), c.search(query, 20).ids
    c.optimize(rebuild=True)
    assert content(c) == before and c.search(query, 20, exact=True).ids == found and db.check() == []
    assert c.search(query, 20).ids == found
    if state == "next":
        c.apply_adapter(one)
    if c.schema.hidden:
        c.rollback_vectors()
    assert db.check() == []


def test_slots_that_rest_stay_noted_when_a_field_goes(db: vecdb.Database) -> None:
    """The last byte of such a record's key is any; it was taken for a part of the log."""
    c = plain(db)
    for number in range(1, 40):
        c.delete(number)
        c.add_vector("x", vecdb.Vector(2))
        c.drop_vector("x")
        assert db.check() == [], number


def test_many_migrations_leave_no_trace_and_their_limit_is_named(
    db: vecdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MAX_NUMBER", 16)
    c = plain(db)
    before, space = content(c), c.stats()["space"]
    for number in range(16):
        c.apply_adapter(adapter(seed=number), force=True)
        c.rollback_vectors()
    assert c.schema.only.number == 0 and content(c) == before
    after = c.stats()["space"]
    assert {each for each in after if after[each]} - set(space) <= {"effort"} and after.get("maps", 0) == 0
    refused(c, lambda: c.apply_adapter(adapter(), force=True), "16 vector fields")




# --- damage ------------------------------------------------------------------------------------------


def cut(raw: bytes) -> bytes:
    return raw[:-7]


def other(raw: bytes) -> bytes:
    """Another map of the same shape."""
    return adapter(seed=1234).to_bytes()


def flipped(raw: bytes) -> bytes:
    return raw[:200] + bytes((raw[200] ^ 1,)) + raw[201:]


@pytest.mark.parametrize("how", [None, cut, other, flipped, lambda raw: b"none"], ids=["gone", "cut", "other", "flipped", "none"])
def test_a_damaged_map_is_named_and_nobody_answers_wrongly(tmp_path: Path, how: Callable[[bytes], bytes] | None) -> None:
    path, made = tmp_path / "m.vecdb", adapter()
    with vecdb.open(path) as db:
        plain(db).apply_adapter(made, force=True)
    with damage.write(path) as txn:
        (key,) = damage.keys_of(txn, bytes((keys.MAPS,)))
        txn.delete(key) if how is None else damage.put(txn, key, how(damage.payload(txn, key)))
    with vecdb.open(path) as db:
        c, query = db["c"], vectors(1, seed=9)[0]
        before = content(c)
        prepared = c.prepare(3)
        for call in (lambda: c.search(query, 3), lambda: prepared(query), lambda: c.search(Near(query), 3),
                     lambda: c.add("new", query), lambda: c.update(3, vectors=query), lambda: c.upsert(3, query),
                     lambda: c.search(np.stack([query, query]), 3)):  # fmt: skip
            with pytest.raises(vecdb.errors.Corrupt) as found:
                call()
            assert found.value.code == "X1" and "maps/1/" in str(found.value) and "repair" in str(found.value)
        assert [problem.code for problem in db.check()] == ["X1"]
        assert content(c) == before and c.search(Near(vecdb.ById(3)), 3).ids and c.count("n < 10") == 10
        c.update(3, metadata={"n": 3})
        c.rollback_vectors()  # needs no map
        assert c.search(query, 5).ids == by_numpy(vectors(ROWS), query, 5) and db.check() == []


@pytest.mark.parametrize("what", ["held", "role", "field"])
def test_what_stands_behind_is_named_when_it_is_damaged(tmp_path: Path, what: str) -> None:
    path = tmp_path / "m.vecdb"
    with vecdb.open(path) as db:
        c = plain(db)
        c.apply_adapter(adapter(), force=True)

    def changed(found: dict[str, Any]) -> dict[str, Any]:
        if what == "held":
            return {**found, "vectors": {**found["vectors"], 0: [*found["vectors"][0][:-1], b"no bitmap"]}}
        role, field, bridge = found["hidden"]["vector"]
        entry = ["before", field, bridge] if what == "role" else [role, {**field, "dim": 0}, bridge]
        return {**found, "hidden": {"vector": entry}}

    with damage.write(path) as txn:
        damage.change(txn, keys.state(1) if what == "held" else keys.catalog(1), changed)
    code = "S1" if what == "held" else "C1"
    with pytest.raises(vecdb.errors.Corrupt) as found, vecdb.open(path) as db:
        db["c"].add("new", vectors(1))
    assert found.value.code == code
    if what != "held":
        return
    with vecdb.open(path) as db:  # the state follows from the rows
        assert [problem.code for problem in db.check()] == ["S1"]
        db["c"].optimize()
        assert db.check() == []
        db["c"].rollback_vectors()
        assert db["c"].vectors(list(range(ROWS))).tolist() == vectors(ROWS).tolist() and db.check() == []


def test_damaged_links_behind_a_field_keep_nobody_from_it(tmp_path: Path) -> None:
    path, query = tmp_path / "m.vecdb", vectors(1, seed=9)[0]
    with vecdb.open(path) as db:
        c = plain(db, 700)
        c.apply_adapter(adapter(dim=6), force=True)
        c.optimize()
        expected = c.search(query, 5).ids
    with damage.write(path) as txn:
        key = damage.keys_of(txn, keys.links(1, 0, 0, 0))[0]
        damage.put(txn, key, damage.payload(txn, key)[:-4])
    with vecdb.open(path) as db:
        c = db["c"]
        assert c.search(query, 5).ids == expected and {problem.code for problem in db.check()} == {"G1"}
        c.optimize()
        assert db.check() == []
        c.rollback_vectors()
        assert c.search(query, 5).ids == by_numpy(vectors(700), query, 5)
