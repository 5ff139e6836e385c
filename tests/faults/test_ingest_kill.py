"""An ingestion with an encoder that is killed goes on: no row is lost, and hardly a text is encoded twice.

A child brings texts into a collection through an encoder that appends every text it embeds to a
file before it returns. It is killed with SIGKILL at a random moment and started again, over and
over, until it ends. Between a kill and the next start the file says which embeddings were committed:

    no text whose embedding was committed is embedded again
    a kill costs at most one batch: texts that were noted and are not in the file
    in the end every row is there, with its vector, and `check()` is content

The control clears the cache at every start, and must be seen to embed again.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests import child
from tests.faults.killed_ingester import DIM, ROWS, text_of, vector_of
from vecdb import encoders
from vecdb.embedding import BATCH
from vecdb.storage import embeddings

INGESTER = "from tests.faults.killed_ingester import main; main()"
TEXTS = sorted({text_of(i) for i in range(ROWS)})
SEED = 9


@dataclass
class Tally:
    """What a run of kills has shown."""

    way: str
    kills: int = 0
    files: int = 0
    again: int = 0  # texts embedded again although their embedding was committed
    most_lost: int = 0  # embeddings that one kill cost
    embedded: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"ingest, {self.way}: {self.kills} kills in {self.files} files, {self.embedded} texts embedded for "
            f"{len(TEXTS) * self.files} distinct ones; at most {self.most_lost} lost by a kill (a batch is {BATCH}), "
            f"committed and embedded again {self.again}, wrong {len(self.wrong)}, seed {SEED}"
        )


def noted(notes: Path) -> list[str]:
    return notes.read_text().splitlines() if notes.exists() else []


def committed(path: str) -> set[str]:
    """The texts whose embeddings are in the file."""
    fingerprint = encoders.function(lambda texts: [], name="noted", dim=DIM).fingerprint
    try:
        with vecdb.open(path, mode="r") as db:
            txn = db._env.begin_read()
            try:
                keys = embeddings.keys_of(fingerprint, TEXTS)
                return {text for text, key in zip(TEXTS, keys, strict=True) if embeddings.get(txn, key, DIM) is not None}
            finally:
                txn.abort()
    except vecdb.errors.NotFound:
        return set()  # killed before there was a file


def killed(folder: Path, way: str, kills: int) -> Tally:
    """Ingest into one file after the other, killed so often."""
    tally, rng = Tally(way), random.Random(f"{SEED}-{way}")
    while tally.kills < kills:
        path, notes = str(folder / f"{tally.files}.vecdb"), folder / f"{tally.files}.notes"
        tally.files += 1
        known: set[str] = set()
        seen, ended = 0, False
        while not ended:
            ingester = child.start(INGESTER, path, notes, way)
            assert ingester.stdout is not None and ingester.stdout.readline() == b"ready\n"
            if tally.kills < kills:
                time.sleep(rng.choice((0.1, 0.4, 1.2)) * rng.random())
                ingester.send_signal(signal.SIGKILL)
                tally.kills += 1
            ended = ingester.stdout.read() == b"done\n"
            ingester.wait()
            now = noted(notes)
            twice = sum(text in known for text in now[seen:])
            twice += sum(count - 1 for count in Counter(now[seen:]).values())
            tally.again += twice
            before, known = known, committed(path)
            if before - known and way != "no cache":
                tally.wrong.append(f"{len(before - known)} embeddings are gone")
            lost = set(now[seen:]) - known
            tally.most_lost = max(tally.most_lost, len(lost))
            seen = len(now)
            if way == "no cache" and tally.again:
                return tally
        tally.embedded += seen
        tally.wrong += whole(path)
    return tally


def whole(path: str) -> list[str]:
    """What is not as it must be after the ingestion has ended."""
    with vecdb.open(path, mode="r") as db:
        found = [str(problem) for problem in db.check()[:5]]
        rows = {record.id: record for record in db["papers"]}
        for i in range(ROWS):
            row = rows.pop(i, None)
            if row is None or row.text != text_of(i) or row.metadata != {"n": i}:
                found.append(f"row {i} is {row}")
            elif not np.array_equal(row.vector, vector_of(text_of(i))):
                found.append(f"row {i} has another vector")
        if rows or db.stats()["embedding_cache"]["count"] != len(TEXTS):
            found.append(f"{len(rows)} rows too many, cache {db.stats()['embedding_cache']}")
        return found


def assert_good(tally: Tally) -> None:
    print(tally)
    assert not tally.wrong, tally.wrong[:10]
    assert tally.again == 0, "a committed embedding was made again"
    assert 0 < tally.most_lost <= BATCH, "a kill costs at most a batch, and some cost something"


@pytest.mark.parametrize("way", ["batches", "whole"])
def test_a_killed_ingestion_goes_on_where_it_was(tmp_path: Path, way: str) -> None:
    assert_good(killed(tmp_path, way, 5))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("way", ["batches", "whole"])
def test_fifty_kills(tmp_path: Path, way: str) -> None:
    assert_good(killed(tmp_path, way, 50))


def test_control_without_its_cache_texts_are_seen_to_be_embedded_again(tmp_path: Path) -> None:
    tally = killed(tmp_path, "no cache", 30)
    print("control:", tally)
    assert tally.again > 0, "the harness does not notice texts that are embedded again"
