"""Writes the database that is kept for its format: `python -m tests.compat.make FILE`.

Run once per format version; the file is committed and never written again.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import numpy as np

import vecdb


def rows(n: int = 1500, dim: int = 16) -> tuple[list[int | str], np.ndarray, list[dict[str, object]]]:
    """Ids, vectors and metadata of the kept file, the same on every run."""
    rng = np.random.default_rng(42)
    ids: list[int | str] = [i if i % 2 else f"row {i}" for i in range(n)]
    metadata: list[dict[str, object]] = [
        {
            "number": i % 37,
            "half": i / 2,
            "name": f"n{i % 11}",
            "flag": i % 3 == 0,
            "tags": [f"t{i % 5}", "all"],
            "when": datetime(2020, 1, 1 + i % 28, tzinfo=UTC),
            "nested": {"level": i % 4},
            **({"rare": None} if i % 100 == 0 else {}),
        }
        for i in range(n)
    ]
    return ids, rng.standard_normal((n, dim)).astype(np.float32), metadata


def write(path: str) -> None:
    """The file: folded images, an unfolded tail, deleted and updated rows, rows without vectors."""
    ids, vectors, metadata = rows()
    with vecdb.open(upkeep=False) as db:
        c = db.create_collection("rows", dim=16, metric="l2")
        c.add(ids[:1200], vectors[:1200], metadata=metadata[:1200], texts=[f"text {i}" for i in ids[:1200]])
        c.optimize()
        for at in range(1200, 1500, 50):
            c.add(ids[at : at + 50], vectors[at : at + 50], metadata=metadata[at : at + 50])
        c.delete(ids[10:40])
        c.update(where={"number": 5}, metadata={"changed": True})
        c.add("plain", metadata={"number": 99})
        half = db.create_collection("half", dim=16, dtype="f16", encoder=None)
        half.add(ids[:70], vectors[:70])
        db.backup(path)  # compacted


if __name__ == "__main__":
    write(sys.argv[1])
