"""What a small commit does not do: touch a graph for metadata, fold a whole field, measure at length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.index import effort, fold, folding, leaf, measure
from vecdb.index.attributes import AttributeImage
from vecdb.index.loading import LAYERS
from vecdb.index.tail import Tail
from vecdb.storage import keys, log, rows

DIM = 8


@pytest.fixture
def c(tmp_path: Path) -> Iterator[vecdb.Collection]:
    with vecdb.open(tmp_path / "s.vecdb", durability="none", upkeep=False) as db:
        yield db.create_collection("c", dim=DIM)


def vectors(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype("f4")


# --- metadata and the graph ------------------------------------------------------------------


def logged(c: vecdb.Collection, after: int) -> set[int]:
    """The parts of the log that commits beyond `after` have."""
    with c._reading() as (txn, view):
        return {part for _, part, _ in log.read(txn, c._cid, after, view.commit)}


def links(c: vecdb.Collection) -> list[bytes]:
    with c._reading() as (_, view):
        graph = view.vectors[0].graph
        return [graph.chunk(layer, at) for layer in LAYERS for at in range(graph.n_chunks(layer))]


def test_metadata_alone_writes_no_links_and_touches_no_graph(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    c.add(list(range(2_000)), vectors(2_000), metadata=[{"n": n, "s": "x"} for n in range(2_000)])
    measured: list[int] = []
    monkeypatch.setattr(measure, "take", lambda these, n, *rest: measured.append(n))
    with c._reading() as (txn, view):
        before, commit, state = links(c), view.commit, view.ranked(0).values()
        images = [txn.get(keys.links(c._cid, 0, layer, 0)) is None for layer in LAYERS]
    c.update(7, metadata={"n": -1})
    c.update(list(range(100)), metadata={"s": "y"})
    c.update(where={"n": 500}, metadata={"n": vecdb.REMOVE})
    c.upsert(9, c.get(9).vector, metadata={"s": "z"})  # the same vector
    with c._db.transaction():
        c.update(11, metadata={"n": -2})
        batch = c._db._local.batch
        assert batch is not None and not batch.writing(c._cid)._writers
    assert logged(c, commit) == {log.ROWS}
    assert links(c) == before and not measured
    with c._reading() as (txn, view):
        assert view.ranked(0).values() == state
        assert images == [txn.get(keys.links(c._cid, 0, layer, 0)) is None for layer in LAYERS]
    assert (c.count({"n": -1}), c.count({"s": "y"}), c.count({"s": "z"})) == (1, 99, 1)


def test_control_another_vector_does(c: vecdb.Collection) -> None:
    c.add(list(range(100)), vectors(100))
    before = links(c)
    with c._reading() as (_, view):
        commit = view.commit
    c.upsert(7, vectors(1, 5)[0])
    assert logged(c, commit) == {log.ROWS, keys.log_links(0)} and links(c) != before


# --- folding ---------------------------------------------------------------------------------


def folded_leaves(c: vecdb.Collection, commits: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many leaves each commit of one changed row folds."""
    found: list[int] = []
    plain = fold._Fold.apply

    def counted(self: Any, *args: Any) -> tuple[int, bytes]:
        leaves, following = plain(self, *args)
        found[-1] += leaves
        return leaves, following

    monkeypatch.setattr(fold._Fold, "apply", counted)
    for turn in range(commits):
        found.append(0)
        c.update(turn % 500, metadata={"a": turn, "b": f"text {turn}"})
    return found


def test_no_small_commit_folds_a_whole_field(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same filters at every state of a round; then all of it again from the file."""
    monkeypatch.setattr(folding, "FOLD_EVERY", 160)
    monkeypatch.setattr(folding, "LEAST_LEAVES", 1)
    monkeypatch.setattr(leaf, "MAX_BODY", 400)
    monkeypatch.setattr(leaf, "FILL", 300)
    c.add(list(range(500)), vectors(500), metadata=[{"a": n, "b": "t"} for n in range(500)])
    per_commit = folded_leaves(c, 800, monkeypatch)
    known = {turn % 500: turn for turn in range(800)}
    for low in range(0, 800, 97):
        expected = {id for id, turn in known.items() if low <= turn < low + 50}
        assert {record.id for record in c.scan(where=f"a >= {low} and a < {low + 50}")} == expected
        assert c.count({"b": f"text {low}"}) == (low >= 300)
    with c._reading() as (_, view):
        state = view.state
        assert state.rows_to > 700 - 3 * 160  # watermarks move
    print(f"\nleaves folded in a commit: at most {max(per_commit)}, in all {sum(per_commit)}")
    assert 0 < max(per_commit) <= 4 < sum(per_commit)
    assert c._db.check() == []


def test_control_without_its_limit_one_does(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "FOLD_EVERY", 160)
    monkeypatch.setattr(folding, "LEAST_LEAVES", 1)
    some = AttributeImage.fold_some

    def unlimited(self: Any, *args: Any) -> Any:
        return some(self, *args[:-1], 1_000)

    monkeypatch.setattr(AttributeImage, "fold_some", unlimited)
    monkeypatch.setattr(leaf, "MAX_BODY", 400)
    monkeypatch.setattr(leaf, "FILL", 300)
    c.add(list(range(500)), vectors(500), metadata=[{"a": n, "b": "t"} for n in range(500)])
    assert max(folded_leaves(c, 800, monkeypatch)) > 10


def test_a_round_goes_on_where_another_process_left_it(tmp_path: Path) -> None:
    path = tmp_path / "r.vecdb"
    for turn in range(40):  # each handle folds a part or two, and forgets all but the file
        with vecdb.open(path, durability="none", upkeep=False) as db:
            c = db.get_or_create_collection("c", dim=DIM)
            ids = list(range(turn * 50, turn * 50 + 100))
            c.upsert(ids, vectors(100, turn), metadata=[{"a": n * turn, f"f{turn % 3}": n} for n in ids])
            assert db.check() == []
    with vecdb.open(path) as db:
        with db["c"]._reading() as (_, view):
            assert view.state.rows_to > 0
        assert [r.id for r in db["c"].scan(where={"a": 38 * 1_900})] == [1_900]


# --- measuring -------------------------------------------------------------------------------


def samples(c: vecdb.Collection, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each commit takes."""
    found: list[int] = []
    plain = measure.take

    def counted(these: Any, n: int, *rest: Any) -> Any:
        found[-1] += n
        return plain(these, n, *rest)

    monkeypatch.setattr(measure, "take", counted)
    at = 0
    for size in sizes:
        found.append(0)
        c.add(
            list(range(at, at + size)), vectors(size, at), metadata=[{"n": n % 9} for n in range(size)]
        )
        at += size
    return found


def test_a_small_commit_takes_few_samples(c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = samples(c, [100] * 50, monkeypatch)
    assert max(taken) == 100 // effort.ROWS_A_SAMPLE
    assert sum(taken) == effort.SAMPLES
    assert c.stats()["vectors"]["vector"]["effort"]


def test_a_large_one_measures_at_once(c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert samples(c, [effort.SAMPLES * effort.ROWS_A_SAMPLE], monkeypatch) == [effort.SAMPLES]
    assert c.stats()["vectors"]["vector"]["effort"]


def test_a_measurement_under_way_counts_as_none(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = samples(c, [1_000, 100], monkeypatch)
    assert taken == [0, 100 // effort.ROWS_A_SAMPLE]
    with c._reading() as (_, view):
        field = view.vectors[0]
        assert field.effort is not None and field.measured is None
    assert c.stats()["vectors"]["vector"]["effort"] == {}
    assert len(c.search(vectors(1)[0], 5, where={"n": 3}).ids) == 5
    assert c._db.check() == []


def test_control_an_image_that_is_left_behind_is_noticed(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fold that drops half of its changes and moves the watermark."""
    monkeypatch.setattr(folding, "FOLD_EVERY", 160)
    plain = Tail.field_changes

    def skipping(self: Any, fieldid: int, after: int = 0, upto: int | None = None) -> Any:
        return plain(self, fieldid, (after + self.commit) // 2, upto)

    monkeypatch.setattr(Tail, "field_changes", skipping)
    monkeypatch.setattr(folding, "LEAST_LEAVES", 16)
    c.add(list(range(200)), vectors(200), metadata=[{"a": n} for n in range(200)])
    for turn in range(600):
        c.update(turn % 200, metadata={"a": -turn})
    assert c._db.check() != []


# --- space -------------------------------------------------------------------------------------


def bytes_of_rows(c: vecdb.Collection, size: int) -> int:
    """What the rows of a collection filled by commits of `size` rows take."""
    dim, count = 128, 800
    given = np.random.default_rng(3).normal(size=(count, dim)).astype("f4")
    wide = c._db.create_collection(f"wide {size}", dim)
    for at in range(0, count, size):
        ids = list(range(at, at + size))
        wide.add(ids, given[at : at + size], metadata=[{"n": n, "t": f"text {n}"} for n in ids])
    return int(wide.stats()["space"]["rows"])


def test_rows_that_came_singly_take_no_more_space(c: vecdb.Collection) -> None:
    singly, at_once = bytes_of_rows(c, 1), bytes_of_rows(c, 800)
    print(f"\nbytes of 800 rows: added singly {singly:,}, at once {at_once:,}")
    assert singly < 1.2 * at_once


def test_control_unless_they_are_packed_they_do(
    c: vecdb.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "repack", lambda *_: None)
    assert bytes_of_rows(c, 1) > 2 * bytes_of_rows(c, 800)
