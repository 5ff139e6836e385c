"""`vecdb demo`: the documentation of this very Python, searchable by meaning, in one file.

Three steps, each shown as it goes: read the docstrings (stdlib_docs.py), embed them with the
`wordllama` encoder, store them. Then a few questions in plain language, with and without
filters, and the command to go on with.

Invariants (checked by tests/unit/test_demo.py and tests/cli/test_demo.py):
  1. Everything is stored in one transaction: an interrupted build leaves no collection, and the
     next run builds anew; a file that has the collection is opened and never built again.
  2. The command printed at the end works as printed, in the folder where the demo ran and in
     the way in which it was started.

Rejected: resuming an interrupted build. A build takes seconds, and a half-built file would have
to be told from a whole one by whoever opens it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import vecdb
from vecdb.cli import show
from vecdb.cli.stdlib_docs import Entry, collect

if TYPE_CHECKING:
    from rich.console import Console

    from vecdb.encoders.base import Vectors

__all__ = ["COLLECTION", "ENCODER", "next_command", "run_demo", "text_of"]

COLLECTION = "python-docs"
ENCODER = "wordllama"
BATCH = 500  # rows between two steps of the progress bar
SHOWN = 3  # hits a question

# what is asked, and in what part of the documentation
QUESTIONS: list[tuple[str, dict[str, Any] | None]] = [
    ("how do I read a CSV file", None),
    ("run a command and capture its output", {"kind": "function"}),
    ("remove whitespace from both ends of a string", {"kind": "method", "module": "builtins"}),
    ("wait until several tasks are done", {"module": {"$in": ["asyncio", "threading"]}}),
    ("pick random elements from a list", {"kind": {"$ne": "module"}, "length": {"$lt": 400}}),
]
NEXT_QUESTION = "turn an object into JSON text"
NEXT_FILTER = {"kind": {"$in": ["function", "method"]}}


def run_demo(file: Path, out: Console) -> None:
    """Build or open the documentation in `file`, ask the questions, say how to go on."""
    encoder = vecdb.encoders.get(ENCODER)  # first of all: it may have to be installed
    with vecdb.open(file) as db:
        if COLLECTION not in db:
            _build(db, file, encoder, out)
        else:
            out.print(f"Opened {file}: {len(db[COLLECTION]):,} entries.")
        for question, where in QUESTIONS:
            _ask(db[COLLECTION], question, where, out)
    out.print("\nGo on with a question of your own:\n", style="bold")
    out.print(f"  {next_command(file)}")


def text_of(entry: Entry) -> str:
    """Return what is embedded and shown of an entry: its name and its first paragraph.

    The mean of a long text's words is near to everything: of 22 questions, 19 find what they
    look for among the first five by first paragraphs, 16 by whole docstrings.
    """
    paragraph = " ".join(entry["doc"].split("\n\n", 1)[0].split())
    return f"{entry['id']}: {paragraph}"


def next_command(file: Path) -> str:
    """Return the `vecdb search` command line that continues the demo, quoted for a shell."""
    words = ["search", str(file), NEXT_QUESTION, "--where", json.dumps(NEXT_FILTER)]
    return shlex.join([*_invocation(), *words])


# --- building -------------------------------------------------------------------------------


def _build(db: vecdb.Database, file: Path, encoder: Any, out: Console) -> None:
    began = time.perf_counter()
    out.print(f"Reading the documentation of Python {sys.version.split()[0]} on this machine.")
    entries = _collect(out)
    texts = [text_of(entry) for entry in entries]
    vectors = _embed(texts, encoder, out)
    if not _store(db, entries, texts, vectors, out):
        out.print("Another process has built it meanwhile.")
        return
    seconds = time.perf_counter() - began
    out.print(
        f"Stored {len(entries):,} entries in {file}: {file.stat().st_size / 1e6:.0f} MB, "
        f"{seconds:.1f} s in all."
    )


def _collect(out: Console) -> list[Entry]:
    with show.progress(out) as bar:
        task = bar.add_task("reading modules", total=None)
        return collect(lambda done, of: bar.update(task, completed=done, total=of))


def _embed(texts: list[str], encoder: Any, out: Console) -> Vectors:
    made = np.empty((len(texts), encoder.dim), dtype=np.float32)
    with show.progress(out) as bar:
        task = bar.add_task(f"embedding with {encoder.name}", total=len(texts))
        for part in _slices(len(texts)):
            made[part] = encoder.encode_documents(texts[part])
            bar.update(task, completed=part.stop)
    return made


def _store(
    db: vecdb.Database, entries: list[Entry], texts: list[str], vectors: Vectors, out: Console
) -> bool:
    """Store everything in one transaction; False where another process was faster."""
    with db.transaction() as tx, show.progress(out) as bar:
        if COLLECTION in tx:
            return False
        docs = tx.create_collection(COLLECTION, encoder=ENCODER)
        task = bar.add_task("storing", total=len(entries))
        for part in _slices(len(entries)):
            rows = entries[part]
            docs.add(
                [entry["id"] for entry in rows],
                vectors[part],
                texts=texts[part],
                metadata=[_metadata(entry) for entry in rows],
            )
            bar.update(task, completed=part.stop)
    return True


def _metadata(entry: Entry) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("id", "doc")}


def _slices(n: int) -> Iterator[slice]:
    return (slice(first, min(first + BATCH, n)) for first in range(0, n, BATCH))


# --- asking ---------------------------------------------------------------------------------


def _ask(
    docs: vecdb.Collection, question: str, where: dict[str, Any] | None, out: Console
) -> None:
    began = time.perf_counter()
    hits = docs.search(question, SHOWN, where=where)
    took = (time.perf_counter() - began) * 1e3
    out.print(f"\n{question}?", style="bold", end="")
    out.print(f"   where {json.dumps(where)}" if where else "")
    show.hits_table(out, hits)
    plan = hits.plan
    out.print(
        f"{plan.strategy}, {plan.matches:,} of {plan.rows:,} rows match; "
        f"{took:.1f} ms with encoding, {plan.total_us / 1e3:.2f} ms without",
        style="dim",
    )


# --- going on -------------------------------------------------------------------------------


def _invocation() -> list[str]:
    """Return the words that start vecdb again in the way it was started.

    The script `vecdb` where PATH or a relative path finds it, else `python -m vecdb`.
    """
    started = Path(sys.argv[0])
    if started.name == "vecdb" and started.is_file():
        return [_shortest(started, "vecdb")]
    python = Path(sys.executable)
    return [_shortest(python, python.name), "-m", "vecdb"]


def _shortest(program: Path, name: str) -> str:
    """Return the bare name where PATH leads to this program, else its path from here."""
    program = Path(os.path.abspath(program))
    found = shutil.which(name)
    if found is not None and os.path.abspath(found) == str(program):
        return name
    here = Path.cwd()
    if not program.is_relative_to(here):
        return str(program)
    relative = str(program.relative_to(here))
    return relative if os.sep in relative else os.path.join(os.curdir, relative)
