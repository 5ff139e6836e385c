"""What does a filter look at: one row's fields, or sets of rows?

`flat` gives one row's fields by name; `Source` answers for many rows at once, implemented over
postings by index/select.py. Filters know neither files nor bitmaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self, TypeVar

from vecdb.query.operand import Scalar

Range = tuple[float, float]  # both ends included


class Rows(Protocol):
    """A set of rows: what a Source hands out, combined here by set algebra."""

    def __and__(self, other: Any, /) -> Self: ...
    def __or__(self, other: Any, /) -> Self: ...
    def __sub__(self, other: Any, /) -> Self: ...
    def __len__(self) -> int: ...


class Inside(Protocol):
    """Runs of characters that a string must have, and whether to have `inner` is enough."""

    @property
    def runs(self) -> tuple[str, ...]: ...
    @property
    def inner(self) -> str | None: ...


S = TypeVar("S", bound=Rows)
S_co = TypeVar("S_co", bound=Rows, covariant=True)


class Source(Protocol[S_co]):
    """Whoever knows, for one clause, the rows that satisfy it."""

    def everything(self) -> S_co: ...
    def present(self, field: str) -> S_co: ...
    def equal(self, field: str, value: Scalar) -> S_co: ...
    def unequal(self, field: str, value: Scalar) -> S_co: ...
    def ordered(self, field: str, symbol: str, value: Scalar) -> S_co: ...
    def between(self, field: str, low: Scalar, high: Scalar) -> S_co: ...
    def among(self, field: str, values: tuple[Scalar, ...]) -> S_co: ...
    def lists(self, field: str) -> S_co: ...
    def listing(self, field: str, values: tuple[Scalar, ...]) -> S_co:
        """Rows whose list has any of these."""
        ...

    def strings(
        self,
        field: str,
        prefix: str,
        holds: Callable[[str], bool] | None,
        inside: Inside | None = None,
    ) -> S_co:
        """Rows whose string starts with this and, where it is asked for, passes `holds`, which
        no string does that lacks one of the runs `inside`."""
        ...

    def pairs(
        self,
        field: str,
        first: Range,
        second: tuple[Range, ...],
        holds: Callable[[Any], bool],
    ) -> S_co:
        """Rows whose value passes `holds`, which no value does but a list of two numbers: one in
        the range `first`, the other in a range of `second`."""
        ...

    def asked(self, holds: Callable[[Mapping[str, Any]], bool]) -> S_co:
        """Rows whose metadata passes `holds`: each row is read."""
        ...

    def worded(self, field: str, wanted: str) -> S_co:
        """Rows whose field has these words, by its full text."""
        ...

    def limited(self, rows: Any, /) -> Source[S_co]:
        """The same source for whoever cares for these rows only, and takes no notice of others:
        what a filter selects from it is right among these rows, and may be wrong elsewhere."""
        ...


def flat(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata by flat name: `{"a": {"b": 1}}` and `{"a.b": 1}` are both `a.b`.

    A dict has an entry of its own as well: `a` exists, and compares with nothing.
    """
    fields: dict[str, Any] = {}
    pending = [("", metadata)]
    while pending:
        prefix, mapping = pending.pop()
        for key, value in mapping.items():
            name = prefix + key
            fields[name] = value
            if isinstance(value, Mapping):
                pending.append((name + ".", value))
    return fields
