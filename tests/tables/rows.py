"""Rows with everything that metadata can hold, for what must come back equal from every format."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np

import vecdb

DIM = 5
TEXTS = ["", "a", "é" * 30, "with \"quotes\", commas\nand lines\r\n", "1999", "true", "null", "[1]", '{"a": 1}',
         '"quoted"', "-0", "1e5", "007", " spaces ", "\u2028\x00\x1f", "😀", "NaN", "[a", "'"]  # fmt: skip
FLOATS = [0.0, -0.0, 0.1, 1e300, 5e-324, -1.5, float("inf"), float("-inf"), float("nan"), 3.0]
INTS = [0, -1, 1999, 2**63 - 1, -(2**63), 2**53 + 1]


def even(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Metadata with one type a field, as a column must have it; no None but inside lists."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        row = {
            "int": rng.choice(INTS),
            "float": rng.choice(FLOATS),
            "bool": rng.random() < 0.5,
            "str": rng.choice(TEXTS),
            "when": datetime(2020, 1, 1, tzinfo=UTC) + timedelta(microseconds=rng.randrange(10**17)),
            "there": datetime(1955, 5, 5, 1, 2, 3, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
            "ints": [rng.choice(INTS) for _ in range(i % 4)],
            "strs": [rng.choice([*TEXTS, None]) for _ in range(i % 3)],
            "floats": [rng.choice(FLOATS) for _ in range(i % 2)],
            "moments": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)],
            "deep": {"a": {"b": i, "c": ["x"]}, "s": rng.choice(TEXTS)},
            "ordinal": i,
        }
        rows.append({key: value for key, value in row.items() if key == "ordinal" or rng.random() < 0.8})
    return rows


def uneven(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Metadata whose fields are of any type in any row, with None, and with dicts that look like marks."""
    rng = random.Random(seed)
    odd = [
        None, True, {"$datetime": "2020"}, {"$float": "nan"}, {"$literal": {"$float": "nan"}}, {"$date": 1}, {},
        {"$float": {"$float": float("nan")}}, [None, 1, "1", True, 1.0], [], {"a": None},
        datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ]  # fmt: skip
    pool = [*odd, *TEXTS, *FLOATS, *INTS]
    return [{f"k{k}": rng.choice(pool) for k in range(6) if rng.random() < 0.8} | {"": i} for i in range(n)]


def fill(db: vecdb.Database, name: str, metadata: list[dict[str, Any]], ids: list[Any], dtype: str = "f32") -> vecdb.Collection:
    """A collection of these rows: every seventh without a vector, every third without a text."""
    made = db.create_collection(name, dim=DIM, dtype=dtype)
    rng = np.random.default_rng(len(ids))
    vectors = (rng.normal(size=(len(ids), DIM)) * 10.0 ** rng.integers(-4, 4, (len(ids), 1))).astype(np.float32)
    vectors[:, 0] = np.where(rng.random(len(ids)) < 0.2, -0.0, vectors[:, 0])
    for has_vector in (True, False):
        for has_text in (True, False):
            at = [i for i in range(len(ids)) if (i % 7 != 6, i % 3 != 2) == (has_vector, has_text)]
            made.add(
                [ids[i] for i in at],
                vectors[at] if has_vector else None,
                texts=[TEXTS[i % len(TEXTS)] for i in at] if has_text else None,
                metadata=[metadata[i] for i in at],
            )
    return made


def differences(a: vecdb.Collection, b: vecdb.Collection, *, exact: bool = True) -> list[str]:
    """How two collections differ; `exact`: to the type of every value and the bit of every vector."""
    wrong = []
    left = {(type(r.id), r.id): r for r in b}
    for row in a:
        other = left.pop((type(row.id), row.id), None)
        if other is None:
            wrong.append(f"{row.id!r} is missing")
            continue
        if row.text != other.text:
            wrong.append(f"{row.id!r}: text {other.text!r}, not {row.text!r}")
        mine, theirs = (None if r.vector is None else r.vector.tobytes() for r in (row, other))
        if mine != theirs:
            wrong.append(f"{row.id!r}: vector {other.vector}, not {row.vector}")
        if not same(row.metadata, other.metadata, exact):
            wrong.append(f"{row.id!r}: metadata {other.metadata}, not {row.metadata}")
    return wrong + [f"{id!r} should not be there" for _, id in left]


def same(a: Any, b: Any, exact: bool) -> bool:
    """Whether two values are equal, NaN to NaN, type by type."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], exact) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y, exact) for x, y in zip(a, b, strict=True))
    if isinstance(a, datetime):
        return a == b and (not exact or a.utcoffset() == b.utcoffset())
    if isinstance(a, float):
        return repr(a) == repr(b)
    return bool(a == b)
