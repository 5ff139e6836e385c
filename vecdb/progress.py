"""How does a long call say how far it is, and how is it stopped?

`progress=` is True for a bar on a terminal, or a callable `(done, total)`, total None when unknown;
`cancel=` a callable that says True, or a `threading.Event`, looked at between two steps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from vecdb.errors import InvalidArgument

Progress = Callable[[int, int | None], object]


def stopper(cancel: Any) -> Callable[[], bool]:
    """What tells whether the user wants a long call to stop: `cancel=`, looked at."""
    if cancel is None:
        return lambda: False
    asked = getattr(cancel, "is_set", cancel)
    if not callable(asked):
        _refuse(f"cancel is a callable or a threading.Event, not a {type(cancel).__name__}")
    return lambda: bool(asked())


@contextmanager
def reporter(progress: Any, label: str) -> Iterator[Progress]:
    """What is called after each batch: the user's callable, a bar on a terminal, or nothing."""
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool):
        _refuse(f"progress is True, False or a callable (done, total), not {progress!r:.60}")
    if not progress or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
    except ImportError:
        yield lambda done, total: None
        return
    shown = (TextColumn(label), BarColumn(), MofNCompleteColumn())
    with Bar(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
