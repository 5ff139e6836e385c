"""A search made ready answers as the long way does, from rows in a storage file of its own.

What a database does with it (other commits, damage, closing) is tested through the API; here are
the parts that a caller chooses: how many, how far, after how many, and when there are too few.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from tests.unit.door_fuzz import Environment, Transaction
from vecdb import _core

ROWS, DIM, CID = 60, 4, 1


def row_record(rid: int) -> tuple[bytes, bytes]:
    """Key and record of row `rid`, whose id is 1000 + rid."""
    key = b"\x30" + CID.to_bytes(4, "big") + rid.to_bytes(4, "big")
    row = bytearray(20) + b"\x01" + (1000 + rid + (1 << 63)).to_bytes(8, "big")
    row[10] = 9
    return key, _core.seal(0x30, key, row)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[_core.Tree]:
    """A storage file with a record for each row; the pages stay alive as long as the test."""
    with lmdb.open(str(tmp_path / "file"), subdir=False, map_size=1 << 22) as env:
        with env.begin(write=True) as txn:
            for rid in range(ROWS):
                txn.put(*row_record(rid))
            txn.put(b"\xff" * 9, b"the last record")
    pages = np.fromfile(tmp_path / "file", "u1")
    pages = pages[: len(pages) // 4096 * 4096].copy()
    last = pages.tobytes().rindex(b"the last record")
    yield _core.Tree(pages.ctypes.data, 4096, pages.nbytes, pages[last : last + 15])


@pytest.fixture
def graph() -> _core.Graph:
    made = _core.Graph(DIM, "l2", M=4)
    writer = made.begin()
    writer.insert(0, np.random.default_rng(1).random((ROWS, DIM), np.float32))
    made.apply(writer.changes())
    return made


def prepared(graph: _core.Graph, tree: _core.Tree, **how: Any) -> _core.Prepared:
    txn = Transaction(b"meta")
    env = Environment(lambda *a: txn)
    how = {"k": 20, "least": 0, "ef": 100, "rr": 60, **how}
    return _core.Prepared(
        graph, tree, env, env.begin, b"key", b"meta", CID, lambda *answer: answer, None, **how
    )


Q = np.full(DIM, 0.5, np.float32)


@pytest.mark.parametrize("scans", [False, True])
def test_offset_and_radius_cut_what_was_found(graph: _core.Graph, tree: _core.Tree, scans: bool) -> None:
    slots, found = graph.scan(Q, ROWS)
    distances = np.frombuffer(found, np.float32)
    for k in (1, 20, ROWS, 200):
        for offset in (0, 1, 19, 20, 59, 60, 2**31 - 2):
            for radius in (float("inf"), -1.0, 0.0, float(distances[10]), 0.3, 1e300):
                ready = prepared(graph, tree, k=k, scans=scans, offset=offset, radius=radius)
                ids, got, payloads, figures, _ = ready.answer(Q)
                within = int((distances[:k] <= np.float32(min(radius, 3e38))).sum())
                assert ids == [1000 + s for s in slots[offset:within]]
                assert np.frombuffer(got, np.float32).tolist() == distances[offset:within].tolist()
                assert len(payloads) == len(ids) and figures[0] > 0


def test_a_distance_equal_to_the_radius_is_within_it(graph: _core.Graph, tree: _core.Tree) -> None:
    distances = np.frombuffer(graph.scan(Q, ROWS)[1], np.float32)
    for at in range(0, 20, 3):
        ids = prepared(graph, tree, radius=float(distances[at])).answer(Q)[0]
        assert len(ids) == at + 1


def test_too_few_are_counted_before_the_cuts(graph: _core.Graph, tree: _core.Tree) -> None:
    cut = {"offset": 15, "radius": 0.2}
    assert prepared(graph, tree, k=20, least=20, **cut).answer(Q) is not None
    assert prepared(graph, tree, k=20, least=21, **cut).answer(Q) is None
    assert prepared(graph, tree, k=20, least=20, budget=1, **cut).answer(Q) is None


@pytest.mark.parametrize(
    "how, error, words",
    [
        ({"offset": -1}, ValueError, "offset=-1"),
        ({"offset": 2**31}, ValueError, "out of range"),
        ({"offset": "1"}, TypeError, ""),
        ({"radius": float("nan")}, ValueError, "radius=nan"),
        ({"radius": None}, TypeError, ""),
    ],
)
def test_an_odd_offset_or_radius_is_refused(
    graph: _core.Graph, tree: _core.Tree, how: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        prepared(graph, tree, **how)
    assert words in str(caught.value)
