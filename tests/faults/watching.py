"""The processes of test_watch_kill.py: two that write, and one that watches and gets killed.

Every version of a row that is written carries a number of its own, so that what the watcher was given can
be told apart. Each process says what it did on its output, a line at a time.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any

import vecdb

IDS = 200
FAR = 0.5  # scores of rows that match are above


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def version(rng: random.Random, stamp: int) -> tuple[dict[str, Any], list[float]]:
    """Metadata and vector of a new version; whether it matches is plain from both."""
    near = rng.random() < 0.7
    return {"v": stamp, "m": int(rng.random() < 0.7), "near": near}, [1.0, 0.0] if near else [-1.0, 0.0]


def matches(metadata: dict[str, Any]) -> bool:
    return metadata["m"] == 1 and metadata["near"]


def write() -> None:
    """Commit so many times at random, and say which versions each commit made."""
    path, seed, number, count = sys.argv[1], *map(int, sys.argv[2:])
    rng = random.Random(f"{seed}-{number}")
    db = vecdb.open(path)
    rows = db["rows"]
    stamp = number  # of two writers: odd and even
    for _ in range(count):
        made = []
        with db.transaction():
            for _ in range(rng.choice((1, 1, 2, 10))):
                ids = rng.sample(range(IDS), rng.choice((1, 1, 3, 20)))
                if rng.random() < 0.2:
                    rows.delete(ids)
                    continue
                for id in ids:
                    stamp += 2
                    metadata, vector = version(rng, stamp)
                    if rng.random() < 0.5 and id in rows:
                        rows.update(id, vectors=vector, metadata=metadata)
                    elif rng.random() < 0.5 and id in rows:
                        metadata["near"] = rows[id].metadata["near"]  # another row, the same vector
                        rows.update(id, metadata=metadata)
                    else:
                        rows.upsert(id, vector, metadata=metadata)
                    made.append((id, stamp, int(matches(metadata))))
        for each in made:
            say(*each)
        if rng.random() < 0.05:
            rows.optimize()
        time.sleep(0.25 * rng.random())
    db.close()


def watch() -> None:
    """Say what each batch holds, acknowledge most of them, and say so."""
    path, seed, way = sys.argv[1:]
    rng = random.Random(seed)
    db = vecdb.open(path)
    saved = db.searches["news"]
    say("ready")
    for batch in saved.watch("app", min_score=FAR, block=way != "drain"):
        if way == "early":
            batch.ack()  # the control: acknowledged before it was given out
            time.sleep(0.01)
        for hit in batch:
            say("got", hit.id, hit.metadata["v"])
        if way == "forgetful" or rng.random() < 0.1:
            continue
        batch.ack()
        say("ack")
    say("end")
    db.close()
