"""The command `search`: by vector, by words, by both, in groups, or as it was saved.

It is `Collection.search` in its words. What is asked, from the options (`Asked`), is kept apart from how
the answer looks (show.py): tables for people, JSON for programs.

Invariants (checked by tests/cli/test_commands.py):
  1. An option that would be without effect is refused by name: `--fields` without words, any option of a
     search beside `--saved`, whose search has its own.
  2. JSON has the same keys for every kind of search: `parts` and `highlights` are empty where there are none.

Rejected: a command of its own for saved searches. They are searches; `--saved` alone lists them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import typer

import vecdb
from vecdb.cli import show
from vecdb.cli.opening import (
    AsJson,
    CollectionName,
    File,
    Where,
    collection_of,
    filter_of,
    parsed,
    reading,
)
from vecdb.errors import InvalidArgument, NotFound
from vecdb.query import Near, Text


class Asked(NamedTuple):
    """One search: where, for what, how."""

    collection: Any
    query: Any
    k: int | None
    options: dict[str, Any]
    said: Any  # the query for JSON


def search(
    context: typer.Context,
    file: File,
    query: Annotated[
        str | None,
        typer.Argument(
            help="A text, or a vector as a JSON list; words with --text; a name with --saved.",
            metavar="QUERY", show_default=False,
        ),
    ] = None,
    collection: CollectionName = None,
    k: Annotated[int, typer.Option("--k", "-k", help="How many hits, or groups of them.")] = 10,
    where: Where = None,
    text: Annotated[
        bool, typer.Option("--text", help="By words (BM25): word, +must, -not, \"a phrase\", begin*.")
    ] = False,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="By the encoder's vector and by words, both ranks fused.")
    ] = False,
    fields: Annotated[
        str | None, typer.Option("--fields", help="The full-text fields, with commas between; else all.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="A metadata field: the best k of its values.")
    ] = None,
    group_size: Annotated[int, typer.Option("--group-size", help="Hits of each group.")] = 1,
    diversity: Annotated[
        float | None, typer.Option("--diversity", help="From 0 to 1: hits less like each other.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Rank every match.")] = False,
    using: Annotated[
        str | None, typer.Option("--using", help="The vector field, where there are several.")
    ] = None,
    radius: Annotated[
        float | None, typer.Option("--radius", help="The largest distance of a hit.")
    ] = None,
    offset: Annotated[
        int | None, typer.Option("--offset", help="How many of the best to leave out.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every match, instead of k.")] = False,
    saved: Annotated[
        bool, typer.Option("--saved", help="Run the saved search named QUERY; without QUERY, list them.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the plan, and what made each hit's score.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the rows most similar to QUERY, best first: by meaning, by words, or by both.

    \b
    Example:
      vecdb search python-docs.vecdb "sort a list" --where "kind = 'method'"
      vecdb search python-docs.vecdb "json indent" --hybrid --group-by document
    """
    if saved:
        _refuse_beside_saved(context)
    with reading(file) as db:
        if saved and query is None:
            _list_saved(db, as_json)
            return
        if query is None:
            raise typer.BadParameter("QUERY is missing: give a text, or a vector as a JSON list")
        if saved:
            asked = _saved(db, query)
        else:
            chosen = collection_of(db, file, collection)
            options = {
                "where": filter_of(where), "using": using, "exact": exact, "radius": radius,
                "offset": offset or 0, "group_by": group_by, "group_size": group_size,
                "diversity": diversity,
            }  # fmt: skip
            made = _query(chosen, query, text, hybrid, fields)
            asked = Asked(chosen, made, None if every else k, options, query)
        hits: vecdb.Hits = asked.collection.search(asked.query, asked.k, **asked.options)
        grouped = asked.options.get("group_by")
        if as_json:
            show.print_json(_for_programs(asked, hits, query if saved else None, explain))
        elif len(hits):
            _print_hits(hits, grouped, explain)
        else:
            print("no row matches", file=sys.stderr)
    raise typer.Exit(0 if len(hits) else 1)


# --- what is asked --------------------------------------------------------------------------


def _query(collection: Any, said: str, text: bool, hybrid: bool, fields: str | None) -> Any:
    """The vector, text or query object that the command line spells."""
    if text and hybrid:
        raise typer.BadParameter("--text is by words alone, --hybrid by words and vector: give one of them")
    if fields is not None and not (text or hybrid):
        raise typer.BadParameter("--fields goes with --text or --hybrid")
    if not (text or hybrid):
        vector = _vector(said)
        return said if vector is None else vector
    words = Text(said, None if fields is None else _fields(collection, fields))
    return Near(said) + words if hybrid else words


def _fields(collection: Any, fields: str) -> list[str]:
    """The names of full-text fields; one that has a comma in it is known as a whole."""
    if fields in collection.schema.fulltext:
        return [fields]
    return [name.strip() for name in fields.split(",")]


def _vector(query: str) -> list[float] | None:
    """The vector that a query spells as a JSON list of numbers; None for a text."""
    found = parsed(query) if query.lstrip().startswith("[") else None
    if isinstance(found, list) and found and all(type(x) in (int, float) for x in found):
        return found
    return None


# --- saved searches -------------------------------------------------------------------------


def _refuse_beside_saved(context: typer.Context) -> None:
    """A saved search has its own collection, filter and options."""
    allowed = {"file", "query", "saved", "explain", "as_json"}
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name != "DEFAULT":
            option = parameter.opts[0]
            raise typer.BadParameter(f"{option} beside --saved: a saved search has its own options")


def _saved(db: vecdb.Database, name: str) -> Asked:
    found = db.searches[name]
    said = json.loads(found.query.to_json())
    return Asked(found.collection, found.query, found.k, {"where": found.where, **found.options}, said)


def _list_saved(db: vecdb.Database, as_json: bool) -> None:
    listed = saved_searches(db)
    if as_json:
        show.print_json(listed)
    elif listed:
        columns = ("saved search", "collection", "k", "watchers", "query")
        rows = [
            (each["name"], each["collection"] or "(dropped)", each["k"] or "all",
             ", ".join(each["watchers"]), _in_words(each))
            for each in listed
        ]  # fmt: skip
        show.table(show.console(), columns, rows)
    else:
        print("no saved searches", file=sys.stderr)
    raise typer.Exit(0 if listed else 1)


def saved_searches(db: vecdb.Database) -> list[dict[str, Any]]:
    """The saved searches of a file, each with what it asks and who watches it, for JSON."""
    return [_saved_ready(db, name) for name in db.searches]


def _saved_ready(db: vecdb.Database, name: str) -> dict[str, Any]:
    """One of them; one that cannot be read, of a later version or damaged, says so in place of its query."""
    try:
        found = db.searches[name]
    except InvalidArgument as error:
        return {
            "name": name, "collection": None, "query": f"({error})", "k": None, "where": None, "options": {},
            "watchers": [],
        }  # fmt: skip
    try:
        collection = found.collection.name
    except NotFound:
        collection = None
    where = None if found.where is None else str(found.where)
    return {
        "name": name, "collection": collection, "query": repr(found.query), "k": found.k,
        "where": where, "options": dict(found.options), "watchers": found.watchers(),
    }  # fmt: skip


def _in_words(saved: dict[str, Any]) -> str:
    where = "" if saved["where"] is None else f" where {saved['where']}"
    options = ", ".join(f"{name}={value!r}" for name, value in saved["options"].items())
    return f"{saved['query']}{where}{', ' + options if options else ''}"


# --- what is shown --------------------------------------------------------------------------


def _print_hits(hits: vecdb.Hits, grouped: str | None, explain: bool) -> None:
    out = show.console()
    if grouped is None:
        show.hits_table(out, hits)
    else:
        show.groups_table(out, grouped, hits)
    if explain:
        for hit in hits:
            out.print(f"\n{show.clean(str(hit.id))}", style="bold")
            show.lines(out, str(hit.explain()), indent="  ")
    out.print()
    show.lines(out, str(hits.plan), style="dim")


def _for_programs(asked: Asked, hits: vecdb.Hits, saved: str | None, explain: bool) -> dict[str, Any]:
    found = [show.hit_ready(hit) for hit in hits]
    answer: dict[str, Any] = {"collection": asked.collection.name, "query": asked.said, "hits": found}
    if saved is not None:
        answer["saved"] = saved
    if asked.options.get("group_by") is not None:
        answer["groups"] = list(_groups(hits, found))
    if explain:
        answer["plan"] = str(hits.plan)
        for hit, ready in zip(hits, found, strict=True):
            ready["explanation"] = show.explanation_ready(hit.explain())
    return answer


def _groups(hits: vecdb.Hits, found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The groups, each with the positions of its hits in the list of hits."""
    at = 0
    for group in hits.groups:
        after = at + len(group.hits)
        yield {"value": group.value, "ids": [hit["id"] for hit in found[at:after]], "first": at}
        at = after
