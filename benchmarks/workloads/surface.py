"""What does one small call cost a user? Medians in microseconds, the least of several rounds.

    get      one row by its id, at random among all rows, with its vector
    search   ten nearest of 100 rows, the query a float32 array
    count    rows where a field equals a value: a filter object that is kept, and a new one each call
    page     a hundred rows of a scan, from a cursor on, by id and by a field's values

The least round stands for the machine when nobody else uses it; all rounds are kept.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workloads import data as datasets

FIELDS = {"debian": "section", "fashion": "label", "made": "parity"}
LIMITS_US = {"get": 5.0, "search of 100 rows": 15.0, "count, new filter": 60.0}
SMALL = 100
PAGE = 100
BATCH = 2_000


def measure(name: str, calls: int, rounds: int, limit: int | None) -> dict[str, Any]:
    """Build a collection of a data set, and time each call on it."""
    import vecdb

    data = datasets.load(name, 100, limit)
    field, n = FIELDS[name], len(data.base)
    metadata = data.metadata or [{field: i % 50} for i in range(n)]
    ids = [f"{name}-{at}" for at in range(n)]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, vecdb.open(
        Path(folder) / "file", durability="none", upkeep=False
    ) as db:
        dim = len(data.base[0])
        large = db.create_collection("large", dim, metric=data.metric)
        for at in range(0, n, BATCH):
            end = at + BATCH
            large.add(ids[at:end], data.base[at:end], metadata=metadata[at:end])
        small = db.create_collection("small", dim, metric=data.metric)
        small.add(ids[:SMALL], data.base[:SMALL], metadata=metadata[:SMALL])
        for _ in range(rounds):
            for what, call in _calls(large, small, ids, data.queries, field).items():
                found.setdefault(what, []).append(_median(call, calls))
    for what, times in found.items():
        most = LIMITS_US.get(what)
        print(f"{what:<24} {min(times):8.2f} us{f'   (at most {most:.0f})' if most else ''}")
    return {"rows": n, "us": {what: {"least": min(t), "rounds": t} for what, t in found.items()}}


def _calls(
    large: Any, small: Any, ids: list[str], queries: Any, field: str
) -> dict[str, Callable[[int], Any]]:
    from vecdb import F

    rng = random.Random(1)
    some = [rng.choice(ids) for _ in range(5_000)]
    values = list(large.facets(field, limit=50))
    kept = F[field] == values[0]
    by_id = [record.cursor for record in large.scan(limit=2_000)][::100]
    by_value = [record.cursor for record in large.scan(order_by=field, limit=2_000)][::100]
    return {
        "get": lambda i: large.get(some[i % len(some)]),
        "get of 100 rows": lambda i: small.get(ids[i % SMALL]),
        "search of 100 rows": lambda i: small.search(queries[i % len(queries)]),
        "count, kept filter": lambda i: large.count(kept),
        "count, new filter": lambda i: large.count(F[field] == values[i % len(values)]),
        "page by id": lambda i: list(large.scan(after=by_id[i % len(by_id)], limit=PAGE)),
        "page by value": lambda i: list(
            large.scan(order_by=field, after=by_value[i % len(by_value)], limit=PAGE)
        ),
    }


def _median(call: Callable[[int], Any], calls: int) -> float:
    """The median of single calls, in microseconds; slow ones are called for a second at most."""
    clock, times = time.perf_counter_ns, []
    until = clock() + 1_000_000_000
    for i in range(calls):
        start = clock()
        call(i)
        end = clock()
        times.append(end - start)
        if end > until:
            break
    return statistics.median(times) / 1000
