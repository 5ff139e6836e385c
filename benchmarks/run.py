"""Measure vecdb beside its peers: `python benchmarks/run.py ingest | search | open | follow | surface |
interchange | live | durable | pinned | churn | quality | analysis | fulltext |
texts | hybrid | diagnosis | migrate`.

Each engine runs in its own process. Searches are one query a call on one thread, with the ids
read; they are swept over `ef`, so that speeds are compared at equal recall. Engines take turns
within each round, and what is reported is the median over rounds of the ratios within a round:
on a shared machine absolute speeds drift. Results are JSON in benchmarks/results, with revision
and processor; benchmarks/compare.py sets two side by side.

    python benchmarks/run.py search --data debian fashion --rounds 5
    python benchmarks/run.py ingest --data debian --engines vecdb
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from workloads import data as datasets
from workloads.curve import at_recall
from workloads.engines import ENGINES, installed
from workloads.machine import facts
from workloads.process import Worker
from workloads.surface import measure as measure_surface

RESULTS = Path(__file__).resolve().parent / "results"
EFS = [4, 6, 8, 10, 12, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800]
ENOUGH = 0.994  # a sweep ends at the first effort that reaches this recall
TARGETS = (0.95, 0.99)
JUDGED = ("cranfield", "cisi")  # test collections, of `quality` alone
BASELINE = "hnswlib"
FOLLOWED = 2_500  # rows that are added while a reader looks on
FOLLOWED_COMMIT = 100


def main() -> None:
    """Parse the command line, run a workload on each data set, write the results."""
    options = _options()
    result: dict[str, Any] = {
        "workload": options.workload,
        **facts(),
        "settings": {
            key: getattr(options, key) for key in ("rounds", "queries", "limit", "threads")
        },
        "data": {},
    }
    workloads = {
        "ingest": ingest, "search": search, "open": open_, "follow": follow, "surface": surface,
        "interchange": interchange, "live": live, "durable": durable, "pinned": pinned, "churn": churn,
        "quality": quality, "analysis": analysis, "fulltext": fulltext, "texts": texts,
        "hybrid": hybrid, "diagnosis": diagnosis, "migrate": migrate,
    }  # fmt: skip
    measure = workloads[options.workload]
    for name in options.data:
        print(f"== {options.workload}, {name}")
        result["data"][name] = measure(name, options)
    path = options.out or RESULTS / _file_name(result)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_rounded(result), indent=1) + "\n", encoding="utf-8")
    print(f"written to {path.name}")


def ingest(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from arrays to a saved index; for vecdb with metadata, in durable commits."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for engine in options.engines:
            with _worker(engine, name, Path(folder), options) as worker:
                built = worker.order("build")
            found[engine] = built
            print(
                f"{engine:<10} {built['seconds']:7.2f} s  {built['bytes'] / 1e6:7.1f} MB stored"
            )
    return {"engines": found}


def open_(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds to load what was saved and to answer the first query, in a new process."""
    found: dict[str, Any] = {engine: {"rounds": []} for engine in options.engines}
    with tempfile.TemporaryDirectory() as folder:
        _build_all(name, Path(folder), options)
        for _ in range(options.rounds):
            for engine in options.engines:
                with _worker(engine, name, Path(folder), options) as worker:
                    found[engine]["rounds"].append(worker.order("load"))
    for engine, facts_ in found.items():
        rounds = facts_["rounds"]
        for key in rounds[0]:
            facts_[key] = statistics.median(one[key] for one in rounds)
        print(
            f"{engine:<10} load {facts_['load_s'] * 1e3:7.1f} ms  "
            f"first search {facts_['first_s'] * 1e3:6.1f} ms  "
            f"import {facts_['import_s'] * 1e3:6.1f} ms"
        )
    return {"engines": found}


def follow(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds that a reader's first search after a commit of another process takes.

    vecdb alone: no peer has such a thing. Beside it what opening and a first search cost.
    """
    import vecdb

    data = datasets.load(name, options.queries, options.limit or None)
    first = len(data.base) - FOLLOWED
    looks: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / f"vecdb.{name}"
        db = stack.enter_context(vecdb.open(path, threads=options.threads))
        rows = db.create_collection("rows", len(data.base[0]), metric=data.metric)

        def add(start: int, end: int) -> None:
            metadata = data.metadata[start:end] or None
            rows.add(list(range(start, end)), data.base[start:end], metadata=metadata)

        for start in range(0, first, 1000):
            add(start, min(start + 1000, first))
        opened = []
        for _ in range(options.rounds):
            with _worker("vecdb", name, Path(folder), options) as worker:
                opened.append(worker.order("load"))
        with _worker("vecdb", name, Path(folder), options) as worker:
            worker.order("load")
            for start in range(first, len(data.base), FOLLOWED_COMMIT):
                add(start, start + FOLLOWED_COMMIT)
                looks.append(worker.order("look"))
    open_s = statistics.median(one["load_s"] + one["first_s"] for one in opened)
    follow_s = statistics.median(one["first_s"] - one["again_s"] for one in looks)
    print(
        f"open and first search {open_s * 1e3:.1f} ms; following a commit of {FOLLOWED_COMMIT} "
        f"{follow_s * 1e3:.2f} ms, {100 * follow_s / open_s:.1f} %"
    )
    return {"open_s": open_s, "follow_s": follow_s, "looks": looks, "opened": opened}


def surface(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of one small call: get, search of 100 rows, count, a page of a scan."""
    return measure_surface(name, options.queries, options.rounds, options.limit or None)


def interchange(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to take over an hnswlib index, beside bare commits and a rebuild; recall on both sides."""
    from workloads.interchange import measure as measure_interchange

    return measure_interchange(name, options.queries, options.rounds, options.limit or None)


def live(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of following, of searches beside a writer and of its commits."""
    from workloads.live import measure as measure_live

    return measure_live(name, options.rounds, options.limit or None, options.threads)


def durable(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of single durable commits beside bare ones of the same bytes, by kind."""
    from workloads.durable import measure as measure_durable

    return measure_durable(name, options.rounds, options.limit or None, options.threads)


def pinned(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Pages that the file grows by while a stopped reader holds a snapshot, and afterwards."""
    from workloads.pinned import measure as measure_pinned

    return measure_pinned(name, options.limit or None, options.threads)


def churn(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Recall, time, memory and file while rows come and go, beside a fresh build of what is left."""
    from workloads.churn import measure as measure_churn

    return measure_churn(name, options.limit or None, options.threads)


def quality(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """nDCG@10 of MiniLM, BM25 and hybrid search on a test collection, with intervals."""
    from workloads.hybrid_quality import measure as measure_quality

    return measure_quality(name)


def diagnosis(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The values of all checks of a diagnosis, on data that are in order."""
    from workloads.diagnosis import measure as measure_diagnosis

    return measure_diagnosis(name, options.rounds)


def texts(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What full text costs while it is written to a file and searched, beside SQLite's FTS5."""
    from workloads.fulltext_file import measure as measure_texts

    return measure_texts(name, options.rounds, options.limit or None)


def analysis(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of duplicates, clusters and predictions, and what share of them is right."""
    from workloads.analysis import measure as measure_analysis

    limit = options.limit or None
    return measure_analysis(name, options.queries, options.rounds, limit, options.threads)


def migrate(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to apply an adapter to all rows and to roll it back; searches and writes meanwhile."""
    from workloads.migrate import measure as measure_migrate

    return measure_migrate(name, options.queries, options.limit or None, options.threads)


def fulltext(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to index and milliseconds to search texts in memory, beside SQLite FTS5; agreement."""
    from workloads.fulltext import measure as measure_fulltext

    return measure_fulltext(name, options.rounds, options.queries, options.limit or None)


def hybrid(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of hybrid search, filtered and not, beside other databases; what fusing costs."""
    from workloads.hybrid import measure as measure_hybrid

    return measure_hybrid(
        options.rounds, options.queries, options.limit or None, options.threads, options.peers, options.kept
    )


def search(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Queries a second at a recall, one thread, one query a call, ids read."""
    found: dict[str, Any] = {engine: {"sweeps": [], "at": {}} for engine in options.engines}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        builds = _build_all(name, Path(folder), options)
        workers = [
            stack.enter_context(_worker(engine, name, Path(folder), options))
            for engine in options.engines
        ]
        for worker in workers:
            found[worker.engine]["build"] = builds[worker.engine]
            found[worker.engine]["load"] = worker.order("load")
        for _ in range(options.rounds):
            for worker in workers:
                found[worker.engine]["sweeps"].append(_sweep(worker))
    _summarise(found, options)
    return {"engines": found}


def _sweep(worker: Worker) -> list[dict[str, Any]]:
    points = []
    for ef in EFS:
        point = worker.order("measure", effort=ef)
        points.append({"effort": ef, **point})
        if point["recall"] >= ENOUGH:
            break
    if worker.engine == "vecdb":  # and what a user gets who names a recall and no ef
        points += [
            {"effort": wanted, **worker.order("measure", effort=wanted)} for wanted in TARGETS
        ]
    return points


def _summarise(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Add to each engine its speed at each recall, and the ratio to the baseline's."""
    for target in TARGETS:
        speeds = {
            engine: [_speed(sweep, target) for sweep in facts_["sweeps"]]
            for engine, facts_ in found.items()
        }
        for engine, rounds in speeds.items():
            reached = [speed for speed in rounds if speed is not None]
            ratios = [
                mine / theirs
                for mine, theirs in zip(rounds, speeds.get(BASELINE, []), strict=False)
                if mine is not None and theirs is not None
            ]
            found[engine]["at"][str(target)] = {
                "qps": statistics.median(reached) if reached else None,
                f"times_{BASELINE}": statistics.median(ratios) if ratios else None,
            }
    for engine, facts_ in found.items():
        words = [
            f"{target}: {_shown(at['qps'], ',.0f'):>8} q/s "
            f"{_shown(at[f'times_{BASELINE}'], '.2f'):>5} x"
            for target, at in facts_["at"].items()
        ]
        print(f"{engine:<10} {'   '.join(words)}   build {facts_['build']['seconds']:.1f} s")


def _speed(sweep: list[dict[str, Any]], target: float) -> float | None:
    points = [(one["recall"], one["qps"]) for one in sweep if one["effort"] >= 1]
    return at_recall(points, target)


def _build_all(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    built = {}
    for engine in options.engines:
        with _worker(engine, name, folder, options) as worker:
            built[engine] = worker.order("build")
    return built


def _worker(engine: str, name: str, folder: Path, options: argparse.Namespace) -> Worker:
    return Worker(
        engine,
        name,
        folder / f"{engine}.{name}",
        queries=options.queries,
        limit=options.limit,
        threads=options.threads,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    workloads = [
        "ingest", "search", "open", "follow", "surface", "interchange", "live", "durable", "pinned",
        "churn", "quality", "analysis", "fulltext", "texts", "hybrid", "diagnosis", "migrate",
    ]  # fmt: skip
    parser.add_argument("workload", choices=workloads)
    choices = ["debian", "fashion", "made", *JUDGED]
    parser.add_argument("--data", nargs="+", choices=choices)
    parser.add_argument(
        "--engines", nargs="+", choices=list(ENGINES), default=list(installed())
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument(
        "--limit", type=int, default=0, help="use the first so many rows; 0: all"
    )
    parser.add_argument("--threads", type=int, default=2, help="of a build; searches have one")
    parser.add_argument("--peers", help="hybrid: a Python with the other databases; else this one")
    parser.add_argument("--kept", type=Path, help="hybrid: a folder where what is built stays")
    parser.add_argument("--out", type=Path, help="where to write the result")
    options = parser.parse_args()
    if options.data is None:
        options.data = {
            "quality": list(JUDGED), "hybrid": ["debian"], "migrate": ["debian"],
            "diagnosis": [*JUDGED, "debian", "fashion"],
        }.get(  # fmt: skip
            options.workload, datasets.names()
        )
    return options


def _file_name(result: dict[str, Any]) -> str:
    names = "-".join(result["data"])
    return f"{result['workload']}-{names}-{result['date'][:10]}-{result['revision'][:7]}.json"


def _rounded(value: Any) -> Any:
    """Five significant digits: the rest is noise."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main()
