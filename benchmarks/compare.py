"""Set two results of benchmarks/run.py side by side: `python benchmarks/compare.py OLD NEW`.

Every figure that both files hold is listed with the ratio new / old; --all lists the equal ones
too. Only ratios within one file (`times_hnswlib`) mean much where the machines differ.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONDITIONS = ("workload", "date", "revision", "processor", "isa", "python")
SKIPPED = {"sweeps", "rounds", "settings"}


def main() -> None:
    """Print conditions that differ, then figures that do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--all", action="store_true", help="list figures within 2 %% too")
    options = parser.parse_args()
    old, new = (
        json.loads(path.read_text(encoding="utf-8")) for path in (options.old, options.new)
    )
    for key in CONDITIONS:
        if old.get(key) != new.get(key):
            print(f"{key:<12} {old.get(key)}  ->  {new.get(key)}")
    theirs = dict(figures(new["data"]))
    for name, before in figures(old["data"]):
        after = theirs.get(name)
        if after is None or not before:
            continue
        ratio = after / before
        if options.all or abs(ratio - 1) > 0.02:
            print(f"{name:<50} {before:>12,.5g} {after:>12,.5g} {ratio:>7.2f} x")


def figures(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number under its dotted name, but not the single rounds.

    >>> list(figures({"a": {"qps": 2.0, "rounds": [1]}}))
    [('a.qps', 2.0)]
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in SKIPPED and key != "engines":
                yield from figures(inner, f"{name}.{key}" if name else key)
            elif key == "engines":
                yield from figures(inner, name)
    elif isinstance(value, int | float):
        yield name, float(value)


if __name__ == "__main__":
    main()
