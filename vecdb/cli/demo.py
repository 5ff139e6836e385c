"""`vecdb demo`: the documentation of this very Python, searchable by meaning and by words, in one file.

Three steps, each shown as it goes: read the docstrings (stdlib_docs.py) and cut them into chunks, embed
these with the `wordllama` encoder, store them. Then a few questions in plain language, with and without
filters; one by meaning and words together, one for the best chunks within the best documents; and the
command to go on with.

A document is a docstring, a chunk a row: its text, and the id of its document in the field `document`. The
first chunk has the document's own id, those behind it `id#2`, `id#3`.

Invariants (checked by tests/unit/test_demo.py and tests/cli/test_demo.py):
  1. Everything is stored in one transaction: an interrupted build leaves no collection, and the
     next run builds anew; a file that has the collection is opened and never built again.
  2. The command printed at the end works as printed, in the folder where the demo ran and in
     the way in which it was started.

  3. Chunks are pieces of their docstring in order, and hold all of its words.

Rejected: resuming an interrupted build. A build takes seconds, and a half-built file would have
to be told from a whole one by whoever opens it.
"""

from __future__ import annotations

import json
import os
import re
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
from vecdb.query import Near, Text

if TYPE_CHECKING:
    from rich.console import Console

    from vecdb.encoders.base import Vectors

__all__ = ["COLLECTION", "ENCODER", "chunks_of", "next_command", "run_demo"]

COLLECTION = "python-docs"
ENCODER = "wordllama"
TEXTS = {"text": vecdb.FullText(language="english", stopwords=True)}
BATCH = 500  # rows between two steps of the progress bar
SHOWN = 3  # hits a question
CHUNK = 500  # characters that paragraphs behind the first are gathered to
LONGEST_CHUNK = 2_000  # characters: a longer paragraph is cut

# what is asked, and in what part of the documentation
QUESTIONS: list[tuple[str, dict[str, Any] | None]] = [
    ("how do I read a CSV file", None),
    ("run a command and capture its output", {"kind": "function"}),
    ("remove whitespace from both ends of a string", {"kind": "method", "module": "builtins"}),
    ("wait until several tasks are done", {"module": {"$in": ["asyncio", "threading"]}}),
    ("pick random elements from a list", {"kind": {"$ne": "module"}, "length": {"$lt": 400}}),
]
NAMED_QUESTION = "what a defaultdict does with a missing key"  # a name is for words to find
GROUPED_QUESTION = "read settings from a file with sections"
NEXT_QUESTION = "turn an object into JSON text"
NEXT_FILTER = {"kind": {"$in": ["function", "method"]}}


def run_demo(file: Path, out: Console) -> None:
    """Build or open the documentation in `file`, ask the questions, say how to go on."""
    encoder = vecdb.encoders.get(ENCODER)  # first of all: it may have to be installed
    with vecdb.open(file) as db:
        if COLLECTION not in db:
            _build(db, file, encoder, out)
        else:
            out.print(f"Opened {file}: {len(db[COLLECTION]):,} chunks.")
        docs = db[COLLECTION]
        for question, where in QUESTIONS:
            _ask(docs, question, question, out, where)
        hybrid = Near(NAMED_QUESTION) + Text(NAMED_QUESTION)
        _ask(docs, f"{NAMED_QUESTION}  (by meaning and by words)", hybrid, out)
        _ask_for_documents(docs, out)
    out.print("\nGo on with a question of your own:\n", style="bold")
    out.print(f"  {next_command(file)}")


def chunks_of(entry: Entry) -> list[tuple[str, str]]:
    """Return the chunks of an entry, as id and text: its name, and some paragraphs of the docstring.

    The first paragraph stands alone, for it says what the thing is; the others are gathered to some
    500 characters. The mean of a long text's words is near to everything: of 22 questions, 19 find what
    they look for among the first five by first paragraphs, 16 by whole docstrings.
    """
    paragraphs = [" ".join(each.split()) for each in re.split(r"\n\s*\n", entry["doc"])]
    pieces: list[str] = []
    for paragraph in filter(None, paragraphs):
        for piece in _cut(paragraph):
            if len(pieces) > 1 and len(pieces[-1]) + len(piece) < CHUNK:
                pieces[-1] += f" {piece}"
            else:
                pieces.append(piece)
    name = entry["id"]
    return [
        (name if number == 1 else f"{name}#{number}", f"{name}: {piece}")
        for number, piece in enumerate(pieces, 1)
    ]


def _cut(paragraph: str) -> Iterator[str]:
    """A paragraph in pieces, cut between words."""
    while len(paragraph) > LONGEST_CHUNK:
        at = paragraph.rfind(" ", 0, LONGEST_CHUNK)
        at = LONGEST_CHUNK if at <= 0 else at
        yield paragraph[:at]
        paragraph = paragraph[at:].lstrip()
    yield paragraph


def next_command(file: Path) -> str:
    """Return the `vecdb search` command line that continues the demo, quoted for a shell."""
    words = ["search", str(file), NEXT_QUESTION, "--hybrid", "--group-by", "document"]
    words += ["--where", json.dumps(NEXT_FILTER)]
    return shlex.join([*_invocation(), *words])


# --- building -------------------------------------------------------------------------------


def _build(db: vecdb.Database, file: Path, encoder: Any, out: Console) -> None:
    began = time.perf_counter()
    out.print(f"Reading the documentation of Python {sys.version.split()[0]} on this machine.")
    entries = _collect(out)
    rows = [(id, text, entry) for entry in entries for id, text in chunks_of(entry)]
    vectors = _embed([text for _, text, _ in rows], encoder, out)
    if not _store(db, rows, vectors, out):
        out.print("Another process has built it meanwhile.")
        return
    size, seconds = file.stat().st_size / 1e6, time.perf_counter() - began
    out.print(
        f"Stored {len(rows):,} chunks of {len(entries):,} documents in {file}: {size:.0f} MB, "
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
    db: vecdb.Database, rows: list[tuple[str, str, Entry]], vectors: Vectors, out: Console
) -> bool:
    """Store everything in one transaction; False where another process was faster."""
    with db.transaction() as tx, show.progress(out) as bar:
        if COLLECTION in tx:
            return False
        docs = tx.create_collection(COLLECTION, encoder=ENCODER, fulltext=TEXTS)
        task = bar.add_task("storing", total=len(rows))
        for part in _slices(len(rows)):
            ids, texts, entries = zip(*rows[part], strict=True)
            docs.add(ids, vectors[part], texts=texts, metadata=[_metadata(entry) for entry in entries])
            bar.update(task, completed=part.stop)
    return True


def _metadata(entry: Entry) -> dict[str, Any]:
    kept = {key: value for key, value in entry.items() if key not in ("id", "doc")}
    return {"document": entry["id"], **kept}


def _slices(n: int) -> Iterator[slice]:
    return (slice(first, min(first + BATCH, n)) for first in range(0, n, BATCH))


# --- asking ---------------------------------------------------------------------------------


def _ask(
    docs: vecdb.Collection, said: str, query: Any, out: Console, where: dict[str, Any] | None = None
) -> None:
    """The best documents, each by its best chunk."""
    began = time.perf_counter()
    hits = docs.search(query, SHOWN, where=where, group_by="document")
    took = (time.perf_counter() - began) * 1e3
    out.print(f"\n{said}?", style="bold", end="")
    out.print(f"   where {json.dumps(where)}" if where else "")
    show.hits_table(out, hits)
    out.print(f"{took:.1f} ms with encoding, {hits.plan.total_us / 1e3:.1f} ms without", style="dim")


def _ask_for_documents(docs: vecdb.Collection, out: Console) -> None:
    """The best chunks within the best documents, in one call."""
    query = Near(GROUPED_QUESTION) + Text(GROUPED_QUESTION)
    out.print(f"\n{GROUPED_QUESTION}?  (the best chunks within the best documents)", style="bold")
    show.groups_table(out, "document", docs.search(query, SHOWN, group_by="document", group_size=2))


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
