"""The command line as a whole. Each command is a thin call of the public API, in its words.

reading.py, searching.py, evaluating.py and writing.py hold the commands, opening.py what they share.

Exit codes: 0 done; 1 no result, or problems found, or a database that cannot be read now; 2 the
command was used wrongly (an unknown collection, a filter on garbage, a file that is not there).
Errors are one line on standard error; a traceback means a defect in vecdb.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import vecdb
from vecdb.cli import show
from vecdb.cli.evaluating import evaluate
from vecdb.cli.reading import check, encoders, get, info
from vecdb.cli.searching import search
from vecdb.cli.writing import backup, compact, export, ingest, repair
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


for command in (
    demo, info, ingest, search, get, export, check, repair, compact, backup, encoders,
):  # fmt: skip
    app.command()(command)
app.command("eval")(evaluate)
