"""The commands. Each is a thin call of the public API, in the words of the API.

Exit codes: 0 done; 1 no result, or problems found, or a database that cannot be read now; 2 the
command was used wrongly (an unknown collection, a filter on garbage, a file that is not there).
Errors are one line on standard error; a traceback means a defect in vecdb.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import vecdb
from vecdb.cli import show
from vecdb.errors import (
    AlreadyExists,
    EncoderMismatch,
    FilterError,
    InvalidArgument,
    NotFound,
    SchemaError,
    VecdbError,
)

__all__ = ["app", "run"]

MISUSE = (AlreadyExists, EncoderMismatch, FilterError, InvalidArgument, NotFound, SchemaError)

app = typer.Typer(
    name="vecdb",
    help="vecdb: an embedded vector database, one file, no server.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: examples keep their lines
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[Path, typer.Argument(help="The database file.", metavar="FILE")]
CollectionName = Annotated[
    str | None,
    typer.Option("--collection", "-c", help="May be left out where the file has only one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        app(arguments, prog_name="vecdb")
    except SystemExit as stop:  # how typer ends, with its own errors printed
        return stop.code if isinstance(stop.code, int) else 0
    except VecdbError as error:
        print(f"vecdb: {show.clean(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, MISUSE) else 1
    return 0


@app.command()
def demo(
    file: Annotated[
        Path, typer.Option("--file", help="Where to keep the documentation.")
    ] = Path("python-docs.vecdb"),
) -> None:
    """Search the documentation of this machine's Python by meaning.

    Builds one file from the standard library's own docstrings, or opens it when it is there,
    asks a few questions, and prints a command to go on with. Needs the extra `demo`.

    \b
    Example:
      vecdb demo
    """
    from vecdb.cli.demo import run_demo

    run_demo(file, show.console())


@app.command()
def search(
    file: File,
    query: Annotated[
        str, typer.Argument(help="A text, or a vector as a JSON list.", metavar="QUERY")
    ],
    collection: CollectionName = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many hits.")] = 10,
    where: Annotated[
        str | None, typer.Option("--where", "-w", help="A filter: text, or a dict as JSON.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every match.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the rows most similar to QUERY, best first.

    \b
    Example:
      vecdb search python-docs.vecdb "sort a list" --where "kind = 'method'"
    """
    with _reading(file) as db:
        chosen = _collection(db, file, collection)
        asked = _vector(query)
        hits = chosen.search(
            query if asked is None else asked, k, where=_filter(where), exact=exact
        )
        if as_json:
            found = [show.hit_ready(hit) for hit in hits]
            show.print_json({"collection": chosen.name, "query": query, "hits": found})
        elif len(hits):
            out = show.console()
            show.hits_table(out, hits)
            out.print(f"\n{hits.plan}", style="dim")
        else:
            print("no row matches", file=sys.stderr)
    raise typer.Exit(0 if len(hits) else 1)


@app.command()
def get(
    file: File,
    id: Annotated[str, typer.Argument(help="The row's id.", metavar="ID")],
    collection: CollectionName = None,
    integer: Annotated[
        bool, typer.Option("--int", help="ID is an integer, not a str.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print one row: its text and metadata.

    \b
    Example:
      vecdb get python-docs.vecdb json.dumps
    """
    with _reading(file) as db:
        chosen = _collection(db, file, collection)
        record = chosen.get(_integer(id) if integer else id)
        if record is None and as_json:
            show.print_json(None)
        elif record is None:
            hint = "; for an integer id add --int" if not integer and _looks_int(id) else ""
            print(f"no row {id!r} in collection {chosen.name!r}{hint}", file=sys.stderr)
        elif as_json:
            show.print_json(show.record_ready(record))
        else:
            rows = [("id", record.id), *record.metadata.items()]
            if record.text is not None:
                rows.append(("text", record.text))
            show.fields(show.console(), rows)
    raise typer.Exit(0 if record is not None else 1)


@app.command()
def info(file: File, as_json: AsJson = False) -> None:
    """Print what a database holds and how large it is.

    \b
    Example:
      vecdb info python-docs.vecdb
    """
    with _reading(file) as db:
        collections = [_facts(db[name]) for name in db.collections()]
        facts = {
            "file": str(file),
            "bytes": file.stat().st_size,
            "format": vecdb.FORMAT_VERSION,
            "vecdb": vecdb.__version__,
        }
    if as_json:
        show.print_json({**facts, "collections": collections})
        return
    out = show.console()
    show.fields(out, list(facts.items()))
    if collections:
        out.print()
        show.table(out, list(collections[0]), [list(one.values()) for one in collections])


@app.command()
def check(file: File, as_json: AsJson = False) -> None:
    """Read everything in a file and report every problem; exit code 1 if there is one.

    \b
    Example:
      vecdb check python-docs.vecdb
    """
    with _reading(file) as db:
        problems = db.check()
    if as_json:
        show.print_json(
            [{"code": p.code, "where": p.where, "detail": p.detail} for p in problems]
        )
    elif problems:
        rows = [(p.code, p.where, p.detail) for p in problems]
        show.table(show.console(), ("code", "where", "detail"), rows)
    else:
        print("no problems found")
    raise typer.Exit(1 if problems else 0)


@app.command()
def encoders(as_json: AsJson = False) -> None:
    """List what can turn texts into vectors here.

    \b
    Example:
      vecdb encoders
    """
    rows = []
    for name in vecdb.encoders.available():
        encoder = vecdb.encoders.get(name)
        card = encoder.card
        rows.append(
            {
                "name": name,
                "dim": encoder.dim,
                "metric": encoder.metric,
                "languages": card.languages,
                "licence": card.licence,
                "trained on": card.trained_on,
            }
        )
    if as_json:
        show.print_json(rows)
        return
    out = show.console()
    for row in rows:
        show.fields(out, list(row.items()))
        out.print()
    if "wordllama" not in vecdb.encoders.available():
        print("for wordllama: pip install 'vecdb-engine[text]'", file=sys.stderr)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    """Print the version, or leave the rest to the commands."""
    if version:
        print(f"vecdb {vecdb.__version__}")
        raise typer.Exit(0)


# --- what the commands share ----------------------------------------------------------------


@contextmanager
def _reading(file: Path) -> Iterator[vecdb.Database]:
    """Open a database to read it; a file that is not there is a usage error."""
    if not file.exists():
        raise typer.BadParameter(f"there is no file {str(file)!r}")
    with vecdb.open(file, mode="r") as db:
        yield db


def _collection(db: vecdb.Database, file: Path, name: str | None) -> vecdb.Collection:
    names = db.collections()
    if name is None and len(names) == 1:
        return db[names[0]]
    if name is None or name not in names:
        listed = ", ".join(repr(known) for known in names) or "none"
        problem = "say which with --collection" if name is None else f"not {name!r}"
        raise typer.BadParameter(f"collections in {str(file)!r}: {listed}; {problem}")
    return db[name]


def _facts(collection: vecdb.Collection) -> dict[str, Any]:
    schema = collection.schema
    return {
        "collection": collection.name,
        "rows": len(collection),
        "dim": schema.dim,
        "metric": schema.metric,
        "dtype": schema.dtype,
        "encoder": schema.encoder or "",
    }


def _filter(where: str | None) -> dict[str, Any] | str | None:
    """Return what --where spells: a JSON object when it begins like one, else text notation."""
    if where is None or not where.lstrip().startswith("{"):
        return where
    found = _json(where)
    if not isinstance(found, dict):
        like = '{"year": {"$gte": 1999}}'
        raise typer.BadParameter(f"--where {where!r} is no JSON object; write it like {like!r}")
    return found


def _vector(query: str) -> list[float] | None:
    """Return the vector that a query spells as a JSON list of numbers; None for a text."""
    found = _json(query) if query.lstrip().startswith("[") else None
    if isinstance(found, list) and found and all(type(x) in (int, float) for x in found):
        return found
    return None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _looks_int(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _integer(text: str) -> int:
    if not _looks_int(text):
        raise typer.BadParameter(f"--int: {text!r} is no integer")
    return int(text)
