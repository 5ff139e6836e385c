"""What do searches cost beside a process that writes, and what does its writing cost?

Following: a handle of mode "r" looks after every commit of 1,000 inserts of another process; how long
`Follower.at` takes, what a search then takes beyond the next one, and the same with a filter, for
which the tail of the log is read. With eight metadata fields and with none; then after rows that came
and went between two looks.

Beside a writer: searches back to back, in turns alone and beside commits of 100 upserts every 100 ms,
and the search right after each commit. Then commits as fast as they come, each followed by a bare
LMDB commit of the same bytes into a file beside.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from workloads import filled
from workloads.data import Data
from workloads.filled import FILTERED, Other, verdict

FOLLOWED = 1_000  # rows of a commit that is followed
LOOKS = 30
ROWS, EVERY_S = 100, 0.1  # of the writer that is searched beside
TURN_S = 3.0
COMMITS = 1_000
FOLLOW_MS, AFTER_MS, COMMIT_MS, BEYOND_BARE_MS, SLOWER = 5.0, 2.0, 50.0, 50.0, 2.0


def measure(name: str, rounds: int, limit: int | None, threads: int) -> dict[str, Any]:
    """All of it on one data set."""
    data = filled.load(name, 200, limit)
    filled.set_aside()
    found: dict[str, Any] = {"rows": len(data.base)}
    with tempfile.TemporaryDirectory() as folder:
        for metadata in (False, True):
            path = Path(folder) / f"{name}-{metadata}"
            filled.fill(path, data, threads, metadata=metadata)
            what = "eight fields" if metadata else "no metadata"
            found[f"following, {what}"] = _following(path, name, data, limit, metadata=metadata)
        found["beside a writer"] = _beside(path, name, data, rounds, limit)
        found["commits"] = _commits(path, name, limit, Path(folder) / "bare")
    return found


# --- following -----------------------------------------------------------------------------


def _following(
    path: Path, name: str, data: Data, limit: int | None, *, metadata: bool
) -> dict[str, Any]:
    import vecdb
    from vecdb import F

    value = data.metadata[0][FILTERED[name]]
    searches = {"plain": None, "filtered": F[FILTERED[name]] == value} if metadata else {"plain": None}
    times: dict[str, list[float]] = {}
    options = {"durability": "none", "metadata": metadata, "limit": limit}
    with vecdb.open(path, mode="r") as db, Other(path, name, **options) as other:
        rows = db["rows"]
        for where in searches.values():
            rows.search(data.queries[0], where=where)
        for look in range(LOOKS):
            for deed in ("add", "fleeting") if look % 10 == 9 else ("add",):
                other.order(deed, rows=FOLLOWED)
                times.setdefault(f"follow after {deed}", []).append(_follow(db, rows))
                for what, where in searches.items():
                    search = partial(rows.search, data.queries[look % len(data.queries)], where=where)
                    first, again = _timed(search), _timed(search)
                    times.setdefault(f"first {what} search after", []).append(first - again)
    figures = {what: _summary(each) for what, each in times.items()}
    kind = "eight fields" if metadata else "no metadata"
    for what, each in figures.items():
        text = f"{what}, {kind}: median (max {each['max']:.2f})"
        verdict(text, each["median"], FOLLOW_MS, " ms")
    return figures


def _follow(db: Any, rows: Any) -> float:
    """Milliseconds of the follower's way to the last commit."""
    follower = db._follower(rows._cid)
    txn = db._env.begin_read()
    try:
        commit = db._env.commit_number(txn)
        db._refresh(txn, commit)
        return _timed(lambda: follower.at(txn, commit))
    finally:
        txn.abort()


# --- searches beside a writer ----------------------------------------------------------------


def _beside(path: Path, name: str, data: Data, rounds: int, limit: int | None) -> dict[str, Any]:
    import vecdb
    from vecdb import F

    where = F[FILTERED[name]] == data.metadata[0][FILTERED[name]]
    found: dict[str, Any] = {}
    with vecdb.open(path, mode="r") as db, Other(path, name, limit=limit) as other:
        for what, chosen in (("plain", None), ("filtered", where)):
            turns = [_turn(db["rows"], data, chosen, other) for _ in range(rounds)]
            found[what] = _beside_summary(what, turns)
    return found


def _turn(rows: Any, data: Data, where: Any, other: Other) -> dict[str, Any]:
    """Searches alone, then beside commits: their times, and of those right after a commit."""
    alone = _searches(rows, data, where, TURN_S)
    other.begin("pace", rows=ROWS, every_s=EVERY_S, commits=int(TURN_S / EVERY_S))
    beside = _searches(rows, data, where, TURN_S)
    commits = other.answer()
    starts, ends = beside[:, 0], beside[:, 1]
    at = np.searchsorted(starts, commits["ended"])
    at = at[at < len(starts)]
    return {
        "alone": _quantiles(alone[:, 1] - alone[:, 0]),
        "beside": _quantiles(ends - starts),
        "after": ((ends - starts)[at] * 1e3).tolist(),
        "commit_ms": ((np.array(commits["ended"]) - commits["begun"]) * 1e3).tolist(),
    }


def _searches(rows: Any, data: Data, where: Any, seconds: float) -> Any:
    """(begin, end) of searches back to back."""
    times, queries = [], data.queries
    until = perf_counter() + seconds
    now = 0.0
    while now < until:
        began = perf_counter()
        _ = rows.search(queries[len(times) % len(queries)], where=where).ids
        now = perf_counter()
        times.append((began, now))
    return np.array(times)


def _beside_summary(what: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    ratio = {
        q: statistics.median(turn["beside"][q] / turn["alone"][q] for turn in turns)
        for q in ("p50", "p99")
    }
    after = np.concatenate([turn["after"] for turn in turns])
    more = statistics.median(float(np.median(turn["after"])) - turn["alone"]["p50"] for turn in turns)
    commit = np.concatenate([turn["commit_ms"] for turn in turns])
    verdict(f"{what} search beside a writer: p99 as a multiple of alone", ratio["p99"], SLOWER)
    verdict(f"{what} search right after a commit of {ROWS}: more, median", more, AFTER_MS, " ms")
    verdict(f"commits of {ROWS} meanwhile: p99", float(np.percentile(commit, 99)), COMMIT_MS, " ms")
    return {
        "times_alone": ratio, "after_more_ms": more, "after_p99_ms": float(np.percentile(after, 99)),
        "alone_ms": {q: statistics.median(t["alone"][q] for t in turns) for q in ("p50", "p99")},
        "beside_ms": {q: statistics.median(t["beside"][q] for t in turns) for q in ("p50", "p99")},
        "commit_ms": _tail_of(commit), "turns": turns,
    }  # fmt: skip


# --- commits ---------------------------------------------------------------------------------


def _commits(path: Path, name: str, limit: int | None, bare: Path) -> dict[str, Any]:
    """Commits of 100 upserts as fast as they come, bare ones of the same bytes between them."""
    with Other(path, name, limit=limit, bare=str(bare)) as other:
        times = other.order("pace", rows=ROWS, every_s=0, commits=COMMITS)
    ours = (np.array(times["ended"]) - times["begun"]) * 1e3
    theirs = np.array(times["bare_s"]) * 1e3
    mine, floor = _tail_of(ours), _tail_of(theirs)
    verdict(f"commits of {ROWS}: p99 (median {mine['p50']:.1f})", mine["p99"], COMMIT_MS, " ms")
    verdict(
        f"p99.9 beyond a bare commit's of {floor['p99.9']:.1f} ms",
        mine["p99.9"] - floor["p99.9"], BEYOND_BARE_MS, " ms",
    )  # fmt: skip
    return {"vecdb_ms": mine, "bare_ms": floor}


# --- figures ---------------------------------------------------------------------------------


def _timed(do: Any) -> float:
    began = perf_counter()
    do()
    return (perf_counter() - began) * 1e3


def _summary(times: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(times), "max": max(times), "rounds": times}


def _quantiles(seconds: Any) -> dict[str, float]:
    p50, p99 = np.percentile(seconds * 1e3, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "n": len(seconds)}


def _tail_of(ms: Any) -> dict[str, float]:
    marks = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
    return {mark: float(np.percentile(ms, at)) for mark, at in marks.items()}
