"""A process that asks a damaged file everything, and says what it answered.

A line on stdin is JSON: path, how many rows it was built with, mode, verify, and whether checksums
are looked at. The answer is a line of JSON: for each question the digest of its answer, or the
error; and what `check` found.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np

import vecdb
from vecdb import F, _core

FILTERS = {
    "rows": [F.n < 400, (F.tag == "a") & F.even.exists(), F["in.deep"] >= 100, F.tag.is_null()],
    "halves": [F.share > 0.5],
    "one": [F.x == 1],
    "empty": [],
    "several": [F.n == 3],
}
Question = tuple[str, Callable[[], Any]]


def questions(db: vecdb.Database, rows: int) -> Iterator[Question]:
    """Everything that one may ask."""
    ids: dict[str, list[Any]] = {
        "rows": [*range(rows + 20), "plain", "also plain", "nobody"],
        "halves": [f"half-{i}" for i in range(60)],
        "one": ["only"],
        "empty": ["nobody"],
        "several": range(90),
    }
    yield "collections", db.collections
    for name, filters in FILTERS.items():

        def c(name: str = name) -> vecdb.Collection:
            return db[name]

        yield f"{name}: all rows", lambda c=c: [seen(r) for r in c()]  # type: ignore[misc]
        yield f"{name}: get", lambda c=c, n=name: [r and seen(r) for r in c().get(ids[n])]  # type: ignore[misc]
        yield f"{name}: len", lambda c=c: len(c())  # type: ignore[misc]
        for where in [None, *filters]:
            for how in ({"exact": True}, {"ef": 100}, {}):
                yield f"{name}: {where} {how}", lambda c=c, w=where, h=how: found(c(), w, h)  # type: ignore[misc]


def seen(record: Any) -> Any:
    vectors = sorted((name, vector.tobytes().hex()) for name, vector in record.vectors.items())
    return record.id, record.text, sorted(record.metadata.items()), vectors


def found(c: vecdb.Collection, where: Any, how: dict[str, Any]) -> Any:
    """Counts and hits; three times, for what is found ready is answered another way."""
    answers = []
    for using, declared in sorted(c.schema.vectors.items()):
        if declared.multi:
            continue
        query = np.random.default_rng(1).normal(size=declared.dim).astype(np.float32)
        for _ in range(3):
            hits = c.search(query, 10, where=where, using=using, **how)
            rows = [(hit.id, hit.text, sorted(hit.metadata.items())) for hit in hits]
            answers.append((c.count(where), rows, [float(d) for d in hits.distances]))
    return answers


def asked(path: str, rows: int, mode: str, verify: str) -> dict[str, Any]:
    """Digests of the answers, errors, and what `check` found."""
    answers: dict[str, Any] = {}
    problems: Any = []
    try:
        with vecdb.open(path, mode=mode, verify=verify, upkeep=False) as db:
            for name, question in questions(db, rows):
                answers[name] = answer(question)
            try:
                problems = [str(problem) for problem in db.check()][:5]
            except Exception as error:
                problems = problem_of(error)
    except Exception as error:
        answers["open"] = problem_of(error)
    return {"answers": answers, "check": problems}


def answer(question: Callable[[], Any]) -> Any:
    try:
        return blake2b(repr(question()).encode(), digest_size=8).hexdigest()
    except Exception as error:
        return problem_of(error)


def problem_of(error: Exception) -> dict[str, Any]:
    """An error: whether it is one of vecdb's, and what it says."""
    return {
        "class": type(error).__name__,
        "ours": isinstance(error, vecdb.VecdbError),
        "where": getattr(error, "where", ""),
        "message": str(error),
    }


def main() -> None:
    """Answer until stdin ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    plain = _core.unseal
    for line in sys.stdin:
        order = json.loads(line)
        _core.unseal = plain if order["checksums"] else lambda kind, key, record: memoryview(record)[12:]
        told = (order[name] for name in ("path", "rows", "mode", "verify"))
        print(json.dumps(asked(*told)), flush=True)


if __name__ == "__main__":
    main()
