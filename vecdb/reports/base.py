"""What can every report do? Be printed, read by programs, and kept as a page.

    class Verdict(Report):
        title = "Which is better?"
        def sections(self) -> list[Section]: ...

A report says what it has once, as sections; the page and the JSON are made of them. Those that have a
better form for programs give their own `to_dict`.

Invariants (tests/unit/test_reports.py):
  R1  the JSON is strict (RFC 8259): NaN and infinities are null, and every key is a text;
  R2  a file is whole or not there: it is written beside its name, and takes the place of an older one.

Rejected: refusing to replace a file, as exports do. A report is made again, by intention.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Set
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

from vecdb.errors import Full, InvalidArgument
from vecdb.reports.cells import clean
from vecdb.reports.drawing import Plot
from vecdb.reports.page import Code, Prose, Section, Table, fragment, page

DEEPEST = 40  # of what is written as JSON


class Report:
    """What reports share: `.title`, `.subtitle`, `sections()`, `to_dict`, `to_json`, `to_html`.

    >>> class Two(Report):
    ...     title = "Two"
    ...     def sections(self) -> list[Section]:
    ...         return [Section("One", [Table(("n",), [(1,)])])]
    >>> Two().to_dict()["sections"][0]["body"][0]["rows"]
    [[1]]
    """

    title: str = "Report"
    subtitle: str = ""

    def sections(self) -> list[Section]:
        """Return the parts of the page, each under its title; none where a report adds none."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values.

        >>> sorted(Report.to_dict.__annotations__)
        ['return']
        """
        return {
            "title": self.title,
            "sections": [
                {"title": each.title, "body": [_as_dict(part) for part in each.body]}
                for each in self.sections()
            ],
        }

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return it as JSON, and write it to `path` when given, in place of a file that is there.

        NaN and infinities are null. InvalidArgument where the file cannot be written.

        >>> class Empty(Report):
        ...     title = "Empty"
        ...     def sections(self) -> list[Section]:
        ...         return []
        >>> Empty().to_json()
        '{"title": "Empty", "sections": []}'
        """
        text = json.dumps(plain(self.to_dict()), allow_nan=False)
        if path is not None:
            write(path, text + "\n")
        return text

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return it as one HTML page that needs nothing else, and write it to `path` when given.

        The page has no script and loads nothing; it is light or dark as the reader's system is, and prints.
        A file that is there is replaced. InvalidArgument where the file cannot be written.

        >>> class Empty(Report):
        ...     title = "Empty"
        ...     def sections(self) -> list[Section]:
        ...         return []
        >>> "<h1>Empty</h1>" in Empty().to_html()
        True
        """
        text = page(self.title, self.sections(), subtitle=self.subtitle)
        if path is not None:
            write(path, text)
        return text

    def _repr_html_(self) -> str:
        return fragment(self.title, self.sections(), subtitle=self.subtitle)


def plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON has it: dicts with text keys, lists, texts, finite numbers, bools, None (R1).

    >>> plain({1: (float("nan"), {2})})
    {'1': [None, [2]]}
    """
    if depth > DEEPEST:
        return "…"
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value]
    if isinstance(value, Set):
        return [plain(each, depth + 1) for each in sorted(value, key=repr)]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if hasattr(value, "tolist"):  # an array or a number of numpy
        return plain(value.tolist(), depth + 1)
    return str(value)


def write(path: str | os.PathLike[str], text: str) -> None:
    """Write a file, in place of one that is there (R2); InvalidArgument, Full."""
    try:
        target = Path(os.path.abspath(os.fsdecode(os.fspath(path))))
        part = target.with_name(f".{target.name[:80]}.{os.urandom(6).hex()}.part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise _refused(path, error) from None
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"path={path!r:.80}: give the path of a file to write: {error}") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n", errors="replace") as file:
            file.write(text)
        os.replace(part, target)
    except OSError as error:
        with suppress(OSError):
            os.unlink(part)
        raise _refused(path, error) from None


def _refused(path: Any, error: OSError) -> Exception:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(f"{os.fspath(path)!r}: no space is left for the report: {error.strerror}")
    return InvalidArgument(f"{os.fspath(path)!r} cannot be written: {error.strerror}")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool | int | float):
        return json.dumps(plain(key))
    return clean(str(key), 1_000)


def _as_dict(part: Prose | Table | Plot | Code) -> dict[str, Any]:
    if isinstance(part, Table):
        return {
            "table": part.caption,
            "columns": list(part.columns),
            "rows": [list(row) for row in part.rows],
        }
    if isinstance(part, Plot):
        return {
            "plot": part.title,
            "description": part.description,
            "note": part.note,
            "data": plain(part.data),
        }
    return {"code": part.text} if isinstance(part, Code) else {"text": part.text}
