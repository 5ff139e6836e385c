"""What do commands share? Arguments of one meaning, a database opened, a collection chosen.

Whatever a user typed wrongly ends in `typer.BadParameter`: one line, exit code 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import vecdb

File = Annotated[Path, typer.Argument(help="The database file.", metavar="FILE")]
CollectionName = Annotated[
    str | None,
    typer.Option("--collection", "-c", help="May be left out where the file has only one."),
]
Where = Annotated[
    str | None, typer.Option("--where", "-w", help="A filter: text, or a dict as JSON.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def reading(file: Path) -> Iterator[vecdb.Database]:
    """Open a database to read it; a file that is not there is a usage error."""
    must_exist(file)
    with vecdb.open(file, mode="r") as db:
        yield db


def must_exist(file: Path) -> None:
    """Refuse a file that is not there."""
    if not file.exists():
        raise typer.BadParameter(f"there is no file {str(file)!r}")


def collection_of(db: Any, file: Path, name: str | None) -> Any:
    """The collection of a database or a snapshot that is named, or the only one."""
    names = db.collections()
    if name is None and len(names) == 1:
        return db[names[0]]
    if name is None or name not in names:
        listed = ", ".join(repr(known) for known in names) or "none"
        problem = "say which with --collection" if name is None else f"not {name!r}"
        raise typer.BadParameter(f"collections in {str(file)!r}: {listed}; {problem}")
    return db[name]


def filter_of(where: str | None) -> dict[str, Any] | str | None:
    """Return what --where spells: a JSON object when it begins like one, else text notation."""
    if where is None or not where.lstrip().startswith("{"):
        return where
    found = parsed(where)
    if not isinstance(found, dict):
        like = '{"year": {"$gte": 1999}}'
        raise typer.BadParameter(f"--where {where!r} is no JSON object; write it like {like!r}")
    return found


def parsed(text: str) -> Any:
    """JSON, or None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
