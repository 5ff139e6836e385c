"""How fast is hybrid search beside other databases, and what does fusing cost?

One question: the ten best of a vector and some words, fused by reciprocal ranks over the best 100 of
each, under a filter; see hybrid_data.py for rows, queries and filters, hybrid_engines.py for who is
asked and how. Each engine has its own process, started once and asked in turns: some queries, then the
next engine. For each filter every engine gets the least effort at which its vector part has recall@100
of at least .95; vecdb is measured with its default as well. Reported are medians over all queries, and
the median over turns of the ratios within a turn.

Other databases may live in another interpreter: `--peers /path/to/python` names one that has them.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from workloads.hybrid_engines import ENGINES, SAME_FILES
from workloads.process import Child

TARGET = 0.95
FILTERS = ("none", "half", "sections", "hundredth")
OURS = ("vecdb", "vecdb-default")
QUERIES_A_TURN = 100


class Worker(Child):
    """One engine in a process of its own; a context manager."""

    def __init__(
        self, engine: str, python: str, path: Path, queries: int, limit: int, threads: int
    ) -> None:
        folder = Path(__file__).resolve().parents[1]
        paths = [str(folder), *sys.path] if engine in OURS else [str(folder)]
        self.engine = engine
        arguments = [engine, str(queries), str(limit), str(path), str(threads)]
        self._child = subprocess.Popen(
            [python, "-m", "workloads.hybrid_worker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", cwd=path.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        self._answer()


def measure(
    rounds: int, queries: int, limit: int | None, threads: int, peers: str | None, kept: Path | None
) -> dict[str, Any]:
    """Build all, then measure them in turns; `kept`: a folder of files for this run and later ones."""
    engines = [name for name in ENGINES if name in OURS or _has(peers, ENGINES[name]().module)]
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = kept or Path(made)
        folder.mkdir(exist_ok=True)
        pythons = {name: sys.executable if name in OURS else peers or sys.executable for name in engines}
        found = {
            name: _built(name, pythons[name], folder, queries, limit, threads) for name in engines
        }
        workers = [
            stack.enter_context(
                Worker(name, pythons[name], folder / f"hybrid.{name}", queries, limit or 0, threads)
            )
            for name in engines
        ]
        for worker in workers:
            found[worker.engine] |= worker.order("load")
        for filter in FILTERS:
            _ask_all(workers, filter, rounds, queries, found)
    return {"engines": found, "ratios": _ratios(found)}


def _has(python: str | None, module: str) -> bool:
    code = f"import importlib.util as u; u.find_spec({module!r}) or exit(1)"
    return subprocess.run([python or sys.executable, "-c", code], check=False).returncode == 0


def _built(
    name: str, python: str, folder: Path, queries: int, limit: int | None, threads: int
) -> dict[str, Any]:
    path = folder / f"hybrid.{name}"
    if path.exists():
        return {}
    if name in SAME_FILES:  # most let one process in, not two
        other = folder / f"hybrid.{SAME_FILES[name]}"
        _ = shutil.copytree(other, path) if other.is_dir() else shutil.copyfile(other, path)
        return {}
    with Worker(name, python, path, queries, limit or 0, threads) as worker:
        built = worker.order("build")
    print(f"{name:<14} built in {built['seconds']:.0f} s, {built['megabytes']:.0f} MB", flush=True)
    return {"build": built}


def _ask_all(
    workers: list[Worker], filter: str, rounds: int, queries: int, found: dict[str, dict[str, Any]]
) -> None:
    """Choose efforts, check answers, then time all in turns."""
    for worker in workers:
        facts = {**worker.order("tune", filter=filter, target=TARGET), **worker.order("agree", filter=filter)}
        found[worker.engine].setdefault("filters", {})[filter] = {**facts, "turns": []}
    for turn in range(rounds):
        first = 4 * turn * QUERIES_A_TURN
        for worker in workers:
            times = worker.order("measure", filter=filter, first=first, count=min(QUERIES_A_TURN, queries))
            found[worker.engine]["filters"][filter]["turns"].append(times)
    for worker in workers:
        here = found[worker.engine]["filters"][filter]
        turns = here.pop("turns")
        for what in turns[0]:
            times = sorted(one for turn in turns for one in turn[what])
            here[f"{what}_p50_us"] = statistics.median(times)
            here[f"{what}_p95_us"] = times[len(times) * 95 // 100]
            here[f"{what}_turns_us"] = [statistics.median(turn[what]) for turn in turns]
        print(
            f"{filter:<10} {worker.engine:<14} effort {here['effort']:<5g} "
            f"recall@100 {here['recall']:.3f} overlap@10 {here['overlap']:.3f}   "
            f"hybrid {here['hybrid_p50_us']:7.0f} us, p95 {here['hybrid_p95_us']:7.0f}   "
            f"near {here['near_p50_us']:6.0f}   text {here['text_p50_us']:6.0f}",
            flush=True,
        )


def _ratios(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """How often as fast vecdb is as the best of the others, and what fusing costs over the parts."""
    result: dict[str, Any] = {}
    for filter in FILTERS:
        here = {name: facts["filters"][filter] for name, facts in found.items()}
        others = [name for name in here if name not in OURS and here[name]["recall"] >= TARGET - 0.005]
        result[filter] = {}
        for ours in OURS:
            mine, times = here[ours]["hybrid_turns_us"], result[filter].setdefault(ours, {})
            for name in others:
                theirs = here[name]["hybrid_turns_us"]
                times[name] = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
            parts = zip(mine, here[ours]["near_turns_us"], here[ours]["text_turns_us"], strict=True)
            times["fused_over_parts"] = statistics.median(a / (b + c) for a, b, c in parts)
            best = min((times[name] for name in others), default=None)
            shown = "" if best is None else f"{best:.2f} times as fast as the best of the others, "
            print(f"{filter:<10} {ours}: {shown}fused over its parts {times['fused_over_parts']:.3f}")
    return result
