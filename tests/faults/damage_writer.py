"""A process that writes to a damaged file, and says what it did and what is to be read afterwards.

A line on stdin is JSON: path, the sound file that it was made of, how many rows that was built with,
verify. The answer is a line of JSON: the digests of the answers after the deeds, the errors (of deeds
too), what `check` found, and the answers of a sound file after those deeds that were acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

import vecdb
from tests import damage
from tests.faults.damage_reader import asked, problem_of
from vecdb import F


def vectors(n: int, dim: int = damage.DIM) -> Any:
    return damage.whole(np.random.default_rng(n), n, dim)


def both(db: vecdb.Database) -> None:
    """One transaction over two collections."""
    with db.transaction():
        db["rows"].add("w-both", vectors(1)[0], metadata={"n": 44, "tag": "a"})
        db["halves"].update("half-8", metadata={"share": 0.75})


DEEDS: dict[str, Callable[[vecdb.Database], object]] = {
    "add": lambda db: db["rows"].add(
        ["w-1", "w-2", "w-3"], vectors(3), metadata=[damage.metadata(i) for i in range(3)]
    ),
    "upsert": lambda db: db["rows"].upsert(
        [8, 20, 530], vectors(3), metadata=[{"n": i, "tag": "b"} for i in range(3)]
    ),
    "update": lambda db: db["rows"].update([30, 31], metadata=[{"tag": "z", "n": 5}, {"late": 2}]),
    "update where": lambda db: db["rows"].update(where=F.n < 40, metadata={"even": None}),
    "delete": lambda db: db["rows"].delete([50, 51, 541]),
    "delete where": lambda db: db["rows"].delete(where=F.tag == "b"),
    "halves": lambda db: db["halves"].upsert(
        ["half-1", "half-90"],
        vectors(2, damage.HALF_DIM),
        metadata=[{"share": 0.6}, {"share": 0.1}],
    ),
    "one": lambda db: db["one"].upsert("only", [3, 2, 1], metadata={"x": 2}),
    "both": both,
    "empty": lambda db: db["empty"].add("first", [1, 0, 0]),
    "several": lambda db: db["several"].update(
        [8, 10, 12], vectors={"wide": vectors(3, damage.SEVERAL_DIM), "late": None}
    ),
    "several more": lambda db: db["several"].add(
        [*range(200, 240)], {"wide": vectors(40, damage.SEVERAL_DIM), "tokens": [vectors(2, 2)] * 40}
    ),
    "optimize": lambda db: db.optimize(),
    "add after": lambda db: db["rows"].add("w-4", vectors(1)[0], metadata={"n": 1}),
}


def written(path: str, sound: str, rows: int, verify: str) -> dict[str, Any]:
    """What became of every deed, and of the file."""
    done, errors = deeds(path, verify, list(DEEDS))
    found = steady(asked(path, rows, "r", verify))
    found["answers"].update({f"deed: {name}": error for name, error in errors.items()})
    found["done"] = len(done)
    found["expected"] = expected(sound, rows, tuple(done))
    return found


def deeds(path: str, verify: str, names: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The deeds that were acknowledged, and the errors of the others."""
    done: list[str] = []
    errors: dict[str, Any] = {}
    try:
        with vecdb.open(path, durability="none", verify=verify, upkeep=False) as db:
            for name in names:
                try:
                    DEEDS[name](db)
                    done.append(name)
                except Exception as error:
                    errors[name] = problem_of(error)
    except Exception as error:
        errors["open"] = problem_of(error)
    return done, errors


@cache
def expected(sound: str, rows: int, names: tuple[str, ...]) -> dict[str, str]:
    """The answers of the sound file after some deeds."""
    copy = f"{sound}-{os.getpid()}"
    shutil.copyfile(sound, copy)
    done, errors = deeds(copy, "never", list(names))
    found = asked(copy, rows, "r", "never")
    assert tuple(done) == names and not errors and found["check"] == [], (errors, found["check"])
    for name in ("", "-lock", "-writer"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{copy}{name}")
    answers: dict[str, str] = steady(found)["answers"]
    return answers


def steady(found: dict[str, Any]) -> dict[str, Any]:
    """Without the answers that depend on how a graph was built."""
    walks = ("{}", "{'ef': 100}")
    answers = {name: a for name, a in found["answers"].items() if not name.endswith(walks)}
    return {**found, "answers": answers}


def main() -> None:
    """Answer until stdin ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    for line in sys.stdin:
        order = json.loads(line)
        told = (order[name] for name in ("path", "sound", "rows", "verify"))
        print(json.dumps(written(*told)), flush=True)


if __name__ == "__main__":
    main()
