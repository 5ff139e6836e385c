"""The ingester that gets killed: texts into a collection, each one that is embedded noted in a file.

`way`: "batches" writes by `upsert` of a few hundred rows, "whole" in one call of `add`, both as a
program would that is started again after it died. "no cache" clears the cache whenever it starts:
the control.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import vecdb
from vecdb import encoders

DIM = 32
ROWS = 4000
STEP = 300  # rows of one upsert
TEXT_S = 0.0002  # of work a text, so that kills fall while texts are embedded


def text_of(i: int) -> str:
    """Every fifth text is that of the row 501 before; the others are new."""
    return f"text {i - 501 if i % 5 == 0 and i >= 501 else i}"


def vector_of(text: str) -> list[float]:
    number = int(text.split()[1])
    return [1.0 + (number >> bit & 1) for bit in range(DIM)]


def ingest(path: str, notes: str, way: str) -> None:
    """Bring every row in, whatever is there already."""
    fd = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def encode(texts: list[str]) -> Any:
        time.sleep(TEXT_S * len(texts))
        os.write(fd, "".join(f"{text}\n" for text in texts).encode())
        return [vector_of(text) for text in texts]

    encoder = encoders.function(encode, name="noted", dim=DIM)
    with vecdb.open(path) as db:
        c = db.get_or_create_collection("papers", encoder=encoder)
        if way == "no cache":
            db.clear_embedding_cache()
        if way == "batches":
            for first in range(0, ROWS, STEP):
                ids = [*range(first, min(first + STEP, ROWS))]
                c.upsert(ids, texts=[text_of(i) for i in ids], metadata=[{"n": i} for i in ids])
        elif not len(c):
            c.add([*range(ROWS)], texts=[text_of(i) for i in range(ROWS)], metadata=[{"n": i} for i in range(ROWS)])
    print("done", flush=True)


def main() -> None:
    """Ingest until done or killed."""
    path, notes, way = sys.argv[1:]
    print("ready", flush=True)
    ingest(path, notes, way)


if __name__ == "__main__":
    main()
