"""Every instruction set of this processor gives what the scalar kernels and numpy give.

The single kernels, for all lengths and special values, are compared in tests/native/kernels.cpp;
here they are run, and what Python sees of them is compared: distances, scans and walks.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native.build import QUICK, build

from vecdb import _core

ISAS = _core.available_isas()
LONGEST = 2 * 64 + 3  # twice the longest unrolled step, and three
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e18, -1e18, 3.4e38, -3.4e38]


def test_every_kernel_equals_the_scalar_one(request: pytest.FixtureRequest) -> None:
    assert request.config.cache is not None
    program = build(Path(request.config.cache.mkdir("native")), QUICK)
    done = subprocess.run([program, "kernels"], capture_output=True, text=True, timeout=250)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]


def test_scalar_is_always_there_and_best_is_first() -> None:
    assert ISAS[-1] == "scalar" and _core.isa() in ISAS


@pytest.mark.parametrize("isa", ["scalar", "no such set"])
def test_vecdb_isa_forces_one_or_is_refused_with_the_list(isa: str) -> None:
    code = "from vecdb import _core\nprint(_core.isa())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"VECDB_ISA": isa, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    if isa in ISAS:
        assert done.stdout.strip() == isa
    else:
        assert done.returncode and "VECDB_ISA" in done.stderr and "scalar" in done.stderr


def filled(isa: str, vectors: Any, metric: str, dtype: str) -> Any:
    graph = _core.Graph(vectors.shape[1], metric, dtype, isa=isa)
    graph.put_vectors(np.arange(len(vectors), dtype=np.uint32), np.ascontiguousarray(vectors))
    return graph


def reference(query: Any, rows: Any, metric: str) -> Any:
    """Distances of the API in double precision; NaN becomes infinity."""
    q, x = query.astype(np.float64), rows.astype(np.float64)
    with np.errstate(all="ignore"):
        if metric == "l2":
            d = np.sqrt(((x - q) ** 2).sum(1))
        elif metric == "dot":
            d = -(x @ q)
        else:
            norms = np.sqrt((x**2).sum(1)) * np.sqrt((q**2).sum())
            d = np.where(norms > 0, np.clip(1 - (x @ q) / norms, 0, 2), 1.0)
    return np.where(np.isnan(d), np.inf, d)


NUMPY = {"f32": np.float32, "f16": np.float16, "i8": np.int8}


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("isa", ISAS)
def test_distances_equal_numpy_for_all_dims(isa: str, metric: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    for dim in range(1, LONGEST + 1):
        size = 40 if dtype == "i8" else 1
        rows = (size * rng.normal(size=(5, dim))).astype(NUMPY[dtype])
        query = (size * rng.normal(size=dim)).astype(np.float32)
        graph = filled(isa, rows, metric, dtype)
        got = np.frombuffer(graph.distances(query, np.arange(5, dtype=np.uint32)), np.float32)
        np.testing.assert_allclose(got, reference(query, rows, metric), rtol=1e-4, atol=1e-5 * size**2)


@pytest.mark.parametrize("isa", ISAS)
def test_bits_that_differ_equal_numpy_for_all_dims(isa: str) -> None:
    rng = np.random.default_rng(4)
    for dim in [*range(1, LONGEST + 1), 511, 512, 513, 1024, 65535]:
        rows, query = rng.integers(0, 2, (5, dim)), rng.integers(0, 2, dim)
        graph = _core.Graph(dim, "hamming", "b1", isa=isa)
        assert graph.row_bytes == (dim + 7) // 8
        slots = np.arange(5, dtype=np.uint32)
        graph.put_vectors(slots, np.packbits(rows, axis=1))
        got = np.frombuffer(graph.distances(query.astype(np.float32), slots), np.float32)
        assert got.tolist() == (rows != query).sum(1).tolist()


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
@pytest.mark.parametrize("isa", ISAS)
def test_special_values_never_make_a_distance_nan(isa: str, metric: str) -> None:
    rng = np.random.default_rng(2)
    for dim in (1, 7, 16, 33, 67):
        rows = rng.normal(size=(len(SPECIAL), dim)).astype(np.float32)
        rows[np.arange(len(SPECIAL)), rng.integers(0, dim, len(SPECIAL))] = SPECIAL
        graph, plain = filled(isa, rows, metric, "f32"), filled("scalar", rows, metric, "f32")
        slots = np.arange(len(SPECIAL), dtype=np.uint32)
        for value in [1.0, *SPECIAL]:
            query = rng.normal(size=dim).astype(np.float32)
            query[rng.integers(0, dim)] = value
            got = np.frombuffer(graph.distances(query, slots), np.float32)
            expected = np.frombuffer(plain.distances(query, slots), np.float32)
            assert not np.isnan(got).any()
            assert (np.isinf(got) == np.isinf(expected)).all()
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "dot"])
def test_one_thread_builds_the_same_graph_on_every_instruction_set(metric: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(700, 48)).astype(np.float32)
    queries = rng.normal(size=(20, 48)).astype(np.float32)
    records, found = set(), set()
    for isa in ISAS:
        graph = _core.Graph(48, metric, isa=isa)
        writer = graph.begin()
        writer.insert(0, rows)
        record = writer.changes()
        graph.apply(record)
        records.add(record)
        found.add(tuple(tuple(graph.search(query, 10, 50, 20)[0]) for query in queries))
    assert len(records) == len(found) == 1
