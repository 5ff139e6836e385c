"""The commands that read: get, info, check, encoders. None of them changes a file, nor does searching.py."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

import vecdb
from vecdb.cli import show
from vecdb.cli.opening import (
    AsJson,
    CollectionName,
    File,
    collection_of,
    reading,
)
from vecdb.cli.searching import saved_searches


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
    with reading(file) as db:
        chosen = collection_of(db, file, collection)
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


def info(file: File, as_json: AsJson = False) -> None:
    """Print what a database holds, where its space goes, and who keeps old pages.

    \b
    Example:
      vecdb info python-docs.vecdb
    """
    with reading(file) as db:
        stats = db.stats()
        collections = [_facts(db[name], stats["collections"][name]) for name in db.collections()]
        searches = saved_searches(db)
        facts = {
            "file": str(file),
            "bytes": file.stat().st_size,
            "format": vecdb.FORMAT_VERSION,
            "vecdb": vecdb.__version__,
            "commit": stats["commit"],
        }
    if as_json:
        kept = {name: stats[name] for name in ("space", "readers", "oldest_reader")}
        kept |= {"saved_searches": searches, "search_log": stats["search_log"]["collections"]}
        show.print_json({**facts, **kept, "collections": collections})
        return
    out = show.console()
    show.fields(out, [*facts.items(), ("readers", _readers(stats))])
    if collections:
        out.print()
        rows = [
            (one["collection"], one["rows"], name, *field.values())
            for one in collections
            for name, field in one["vectors"].items()
        ]
        columns = ("collection", "rows", "vectors", "dim", "metric", "dtype", "encoder")
        show.table(out, columns, rows)
        out.print()
        show.table(out, ("collection", *COUNTED), [_counted(one) for one in collections])
    _kept(out, collections, searches, stats["search_log"]["collections"])
    if stats["space"] is not None:
        out.print()
        spent = [(size, SPENT_ON.get(name, name)) for name, size in stats["space"].items() if size]
        show.table(out, ("bytes", "what they hold"), sorted(spent, reverse=True))


def check(file: File, as_json: AsJson = False) -> None:
    """Read everything in a file and report every problem; exit code 1 if there is one.

    \b
    Example:
      vecdb check python-docs.vecdb
    """
    with reading(file) as db:
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


def encoders(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Only these, as name or name:parameter.", metavar="[NAME]..."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what can turn texts into vectors here, with what each was trained on and for.

    \b
    Example:
      vecdb encoders
      vecdb encoders hashing bert:models/minilm
    """
    rows = []
    for name in names or vecdb.encoders.available():
        try:
            rows.append(_card(name))
        except vecdb.errors.InvalidArgument as error:
            if names:
                raise
            rows.append({"name": name, "error": str(error)})  # another package's: the rest still works
    if as_json:
        show.print_json(rows)
        return
    out = show.console()
    for row in rows:
        hidden = () if "error" in row else ("max_tokens", "size_bytes", "parameters")
        show.fields(out, [(key, value) for key, value in row.items() if key not in hidden])
        out.print()
    if not names and "wordllama" not in vecdb.encoders.available():
        print("for wordllama: pip install 'vecdb-engine[text]'", file=sys.stderr)


# --- behind the commands --------------------------------------------------------------------


def _card(name: str) -> dict[str, Any]:
    """An encoder and its card as one row: words for people, numbers for programs."""
    encoder = vecdb.encoders.get(name)
    card = vecdb.encoders.card_of(encoder)
    return {
        "name": name,
        "dim": encoder.dim,
        "metric": encoder.metric,
        **card.facts(),
        "max_tokens": card.max_tokens,
        "size_bytes": card.size_bytes,
        "parameters": card.parameters,
    }


SPENT_ON = {
    "rows": "rows: ids, texts, metadata, vectors of blocks that are not full yet",
    "ids": "from ids to rows",
    "vectors": "blocks of vectors",
    "links": "links of the graphs",
    "effort": "measured effort of searches",
    "attributes": "metadata indexes",
    "postings": "long postings of metadata indexes",
    "fulltext": "segments of full text",
    "live": "which rows are live",
    "log": "changes that are not folded into the indexes yet, or not cleared away",
    "embeddings": "cached embeddings",
    "catalog": "declarations",
    "searches": "saved searches, and how far their watchers have come",
    "search_log": "the log of searches",
    "meta": "the state of the file",
    "tree": "inner pages of the tree",
    "engine": "the engine's own pages",
    "free": "free pages: used again by later writes, given back by vecdb compact",
    "rest": "pages that nothing names: given back by vecdb compact",
}
COUNTED = ("slots", "dead slots", "unfolded commits", "bytes in the file", "bytes in memory when open")


def _readers(stats: dict[str, Any]) -> str:
    """How many read, and what the oldest of them keeps, in words."""
    oldest = stats["oldest_reader"]
    if oldest is None:
        return "none"
    least, most = oldest["at_least_seconds"], oldest["at_most_seconds"]
    age = f"for {least:,.0f} s or more" if most is None else f"for {least:,.0f} to {most:,.0f} s"
    said = f"{stats['readers']}; the oldest, process {oldest['pid']}, sees the file as it was "
    said += f"{oldest['commits']:,} commits ago, {age}"
    if oldest["pinned_bytes"]:
        said += f", and keeps {oldest['pinned_bytes']:,} free bytes from being used again"
    return said


def _kept(
    out: Any, collections: list[dict[str, Any]], searches: list[dict[str, Any]], logged: dict[str, Any]
) -> None:
    """Full-text fields, saved searches with their watchers, and what is logged; what there is of them."""
    texts = [
        (one["collection"], name, field["language"] or "none", "yes" if field["stopwords"] else "no")
        for one in collections
        for name, field in one["fulltext"].items()
    ]
    saved = [
        (each["name"], each["collection"] or "(dropped)", ", ".join(each["watchers"]) or "none")
        for each in searches
    ]
    logs = [
        (name, "on" if log["on"] else "off", log["bytes"], log["max_bytes"]) for name, log in logged.items()
    ]
    for columns, rows in (
        (("collection", "full text", "stemmer", "stop words left out"), texts),
        (("saved search", "collection", "watchers"), saved),
        (("search log of", "is", "bytes", "at most"), logs),
    ):
        if rows:
            out.print()
            show.table(out, columns, rows)


def _counted(one: dict[str, Any]) -> tuple[Any, ...]:
    graphs = sum(sum(field["memory"].values()) for field in one["stats"]["vectors"].values())
    stats = one["stats"]
    return (
        one["collection"], stats["slots"], stats["dead_slots"], stats["unfolded_commits"],
        sum((stats["space"] or {}).values()), graphs + stats["memory"]["live_rows"],
    )  # fmt: skip


def _facts(collection: vecdb.Collection, stats: dict[str, Any]) -> dict[str, Any]:
    fields = {
        name: {
            "dim": field.dim,
            "metric": field.metric,
            "dtype": field.dtype,
            "encoder": field.encoder or "",
        }
        for name, field in collection.schema.vectors.items()
    }
    texts = {
        name: {"language": field.language, "stopwords": field.stopwords}
        for name, field in collection.schema.fulltext.items()
    }
    return {
        "collection": collection.name, "rows": len(collection), "vectors": fields, "fulltext": texts,
        "stats": stats,
    }  # fmt: skip


def _looks_int(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def _integer(text: str) -> int:
    if not _looks_int(text):
        raise typer.BadParameter(f"--int: {text!r} is no integer")
    return int(text)
