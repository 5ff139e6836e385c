"""The command line: `vecdb COMMAND ...`, or `python -m vecdb COMMAND ...` (extra `cli`).

app.py joins the commands of reading.py and writing.py, opening.py is what they share; show.py
prints results; demo.py and stdlib_docs.py are the main job on real input. Everything here uses the
public API and nothing below it.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 no result or problems, 2 usage.

    >>> main(["search", "nowhere.vecdb", "a question"])
    2
    """
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The vecdb command needs {' and '.join(missing)}, not installed here: "
            "pip install 'vecdb-engine[cli]'",
            file=sys.stderr,
        )
        return 2
    from vecdb.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)
