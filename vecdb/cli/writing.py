"""The commands that make or change a file: ingest, export, compact, repair, backup.

What `ingest` wrote before an error stays, batch by batch, and the error says how many rows that
is: correct the source and go on with `--on-conflict skip`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import vecdb
from vecdb import tables
from vecdb.cli import show
from vecdb.cli.opening import (
    AsJson,
    CollectionName,
    File,
    Where,
    collection_of,
    filter_of,
    must_exist,
    reading,
)
from vecdb.errors import VecdbError

Format = Annotated[
    str | None,
    typer.Option("--format", help="jsonl, csv or parquet; by the suffix where left out."),
]


def ingest(
    file: File,
    sources: Annotated[
        list[Path], typer.Argument(help="Files of rows: .jsonl, .csv, .parquet.", metavar="SOURCE...")
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="Where to; else the only one, or the first source's name."
        ),
    ] = None,
    id: Annotated[str, typer.Option("--id", help="The column of ids.")] = "id",
    vector: Annotated[str, typer.Option("--vector", help="The column of vectors.")] = "vector",
    text: Annotated[
        str | None, typer.Option("--text", help="The column of texts; else `text` if it is there.")
    ] = None,
    new_ids: Annotated[bool, typer.Option("--new-ids", help="Make ids up.")] = False,
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="Take no vectors from the sources.")
    ] = False,
    dim: Annotated[
        int | None, typer.Option("--dim", help="Of a new collection; else the first vector's.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Of a new collection: cosine, l2 or dot.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Of a new collection: makes vectors of texts.")
    ] = None,
    fulltext: Annotated[
        list[str] | None,
        typer.Option(
            "--fulltext", metavar="FIELD[:LANGUAGE]",
            help="Of a new collection: a field to search by words, `text` the text; may be repeated.",
        ),
    ] = None,
    on_conflict: Annotated[
        str, typer.Option("--on-conflict", help="For ids that exist: error, replace or skip.")
    ] = "error",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Rows a commit.")] = 1000,
    format: Format = None,
    strings: Annotated[
        bool, typer.Option("--strings", help="CSV: keep every cell as text.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add the rows of files to a collection, which is made if need be.

    \b
    Example:
      vecdb ingest library.vecdb papers.jsonl --encoder hashing --fulltext text:english
    """
    read = [
        tables.read(source, format=format, strings=strings, vectors=(vector,))
        for source in sources
    ]
    given = {"dim": dim, "metric": metric, "encoder": encoder}
    declared: dict[str, Any] = {option: value for option, value in given.items() if value is not None}
    if fulltext:
        declared["fulltext"] = _texts(fulltext)
    has = None if no_vectors else vector
    if not file.exists():
        with vecdb.open() as scratch:  # refused before there is an empty database
            scratch.create_collection("new", **_declared(declared, read[0], has))
    with vecdb.open(file) as db:
        name = collection or _only(db) or sources[0].stem
        into = _existing(db, name, declared)
        if into is None:
            into = db.create_collection(name, **_declared(declared, read[0], has))
        written = 0
        for source in read:
            texts = text or ("text" if "text" in source.columns else None)
            with _bar(source.path, source.rows) as progress, _named(source.path):
                written += into.add_table(
                    source, id=None if new_ids else id, vector=has, text=texts,
                    on_conflict=on_conflict, batch_size=batch_size, progress=progress,
                )  # fmt: skip
        rows = len(into)
    if as_json:
        show.print_json({"collection": name, "written": written, "rows": rows})
    else:
        print(f"{written:,} rows written to collection {name!r}, which has {rows:,} now")


def export(
    file: File,
    to: Annotated[str, typer.Argument(help="A new file, or - for standard output.", metavar="DEST")],
    collection: CollectionName = None,
    where: Where = None,
    format: Format = None,
    no_vectors: Annotated[
        bool, typer.Option("--no-vectors", help="Leave the vectors out.")
    ] = False,
    id: Annotated[str, typer.Option("--id", help="What to call the column of ids.")] = "id",
    text: Annotated[
        str, typer.Option("--text", help="What to call the column of texts.")
    ] = "text",
    as_json: AsJson = False,
) -> None:
    """Write a collection's rows to a file: JSON lines, CSV or Parquet.

    \b
    Example:
      vecdb export library.vecdb recent.csv --where "year >= 2020"
    """
    to_stdout = to == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("--json and the rows cannot both go to standard output")
    with reading(file) as db, db.snapshot() as snapshot, _bar(to) as progress:
        written = tables.write(
            collection_of(snapshot, file, collection),
            sys.stdout.buffer if to_stdout else to,
            where=filter_of(where),
            format=format or ("jsonl" if to_stdout else None),
            vectors=not no_vectors,
            id=id,
            text=text,
            progress=progress,
        )
    if as_json:
        show.print_json({"file": to, "written": written})
    elif not to_stdout:
        print(f"{written:,} rows written to {to}")
    if where is not None and not written:
        print("no row matches", file=sys.stderr)
        raise typer.Exit(1)


def compact(file: File, as_json: AsJson = False) -> None:
    """Rewrite a file without its free pages, so that it shrinks; nobody else may have it open.

    \b
    Example:
      vecdb compact library.vecdb
    """
    must_exist(file)
    before = file.stat().st_size
    database: Any = vecdb.open(file)
    with database as db:
        db.compact()
    after = file.stat().st_size
    if as_json:
        show.print_json({"file": str(file), "bytes_before": before, "bytes": after})
    else:
        print(f"{file}: {before:,} bytes before, {after:,} now")


def repair(
    source: Annotated[Path, typer.Argument(help="The damaged file; it is only read.", metavar="SRC")],
    to: Annotated[Path, typer.Argument(help="The new file.", metavar="DST")],
    as_json: AsJson = False,
) -> None:
    """Save all that is sound in a damaged file into a new one; exit code 1 if something is lost.

    \b
    Example:
      vecdb repair library.vecdb saved.vecdb
    """
    report = vecdb.repair(source, to)
    if as_json:
        show.print_json({"ok": report.ok, **asdict(report)})
    else:
        print("\n".join(show.clean(line) for line in str(report).splitlines()))
    raise typer.Exit(0 if report.ok else 1)


def backup(
    file: File,
    to: Annotated[Path, typer.Argument(help="The new file.", metavar="DST")],
    as_json: AsJson = False,
) -> None:
    """Write a compacted, consistent copy of a file while others go on writing.

    \b
    Example:
      vecdb backup library.vecdb monday.vecdb
    """
    with reading(file) as db:
        db.backup(to)
    size = to.stat().st_size
    if as_json:
        show.print_json({"file": str(to), "bytes": size})
    else:
        print(f"{size:,} bytes written to {to}")


# --- behind the commands --------------------------------------------------------------------


def _only(db: vecdb.Database) -> str | None:
    names = db.collections()
    return names[0] if len(names) == 1 else None


def _existing(
    db: vecdb.Database, name: str, declared: dict[str, Any]
) -> vecdb.Collection | None:
    """The collection if it is there, and is what the options say."""
    if name not in db:
        return None
    for option, value in declared.items():
        has = getattr(db[name].schema, option)
        if option == "fulltext":
            has = {field: vecdb.FullText(each.language, each.stopwords) for field, each in has.items()}
            has, value = _spelled(has), _spelled(value)
        if has != value:
            raise typer.BadParameter(f"collection {name!r} has --{option} {has}, not {value}")
    return db[name]


def _texts(given: list[str]) -> dict[str, vecdb.FullText]:
    """What --fulltext declares: fields, each with the language of its stemmer behind the last colon."""
    found: dict[str, vecdb.FullText] = {}
    for each in given:
        field, colon, language = each.rpartition(":")
        name = field if colon else each
        if name in found:
            raise typer.BadParameter(f"--fulltext {each}: field {name!r} is named twice")
        found[name] = vecdb.FullText(language=language or None) if colon else vecdb.FullText()
    return found


def _spelled(declared: dict[str, vecdb.FullText]) -> str:
    """Full-text fields as --fulltext takes them, sorted."""
    listed = sorted(
        f"{field}:{each.language}" if each.language else field for field, each in declared.items()
    )
    return " ".join(listed) or "(none)"


def _declared(
    declared: dict[str, Any], source: tables.TableFile, vector: str | None
) -> dict[str, Any]:
    """What a new collection is made with: the options, or else the length of the first vector."""
    if "dim" in declared or "encoder" in declared:
        return declared
    found = None if vector is None else source.dim(vector)
    if found is None:
        raise typer.BadParameter(
            f"the collection is new, and {source.path!r} begins without vectors"
            f"{'' if vector is None else f' in the column {vector!r}'}: give --encoder or --dim"
        )
    return {**declared, "dim": found}


@contextmanager
def _named(path: str) -> Iterator[None]:
    """An error inside says which file it is about."""
    try:
        yield
    except VecdbError as error:
        if path not in str(error):
            error.args = (f"{path}: {error}", *error.args[1:])
        raise


@contextmanager
def _bar(what: str, rows: int | None = None) -> Iterator[Callable[[int, int | None], object]]:
    """A progress bar on standard error; nothing where that is no terminal."""
    with show.progress(show.console(stderr=True)) as bar:
        task = bar.add_task(show.clean(what), total=rows)
        yield lambda done, total: bar.update(
            task, completed=done, total=rows if total is None else total
        )
