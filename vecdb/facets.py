"""What values does a field have, and how often? The answer to `papers.facets`.

Plain data, counted by index/counts.py. A dict would not do: to Python `True` and `1` are one key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from vecdb.shown import html_table, text_table

Value = bool | int | float | str | datetime | None


class Facets(Mapping[Any, int]):
    """Values of a field with how many rows have each, most frequent first.

    A read-only mapping; `facets[True]` and `facets[1]` differ, and `.items()` lists both. Equal
    numbers are one value. `.field`; `.matches`: rows counted over; `.missing`: those of them that
    contribute no value (no such field, None, a dict, an empty list); `.distinct`: how many values
    there are, more than are listed when `limit` cut the list.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> _ = c.add([1, 2, 3], metadata=[{"lang": "en"}, {"lang": "fr"}, {"lang": "en"}])
    >>> c.facets("lang")
    Facets of 'lang': 2 values in 3 rows, 0 without
      2  'en'
      1  'fr'
    """

    __slots__ = ("_counts", "_values", "distinct", "field", "matches", "missing")

    def __init__(
        self,
        field: str,
        counted: Iterable[tuple[Value, int]],
        *,
        matches: int,
        missing: int,
        distinct: int,
    ) -> None:
        self.field = field
        self.matches = matches
        self.missing = missing
        self.distinct = distinct
        pairs = list(counted)
        self._values = [value for value, _ in pairs]
        self._counts = {name_of(value): count for value, count in pairs}

    def __getitem__(self, value: Any) -> int:
        try:
            return self._counts[name_of(value)]
        except (KeyError, TypeError):  # TypeError: not hashable, so no value of a field
            raise KeyError(value) from None

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = {name_of(value): count for value, count in other.items()}
        return self._counts == theirs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        rows = [(f"{self[value]:,}", repr(value)) for value in self._values]
        return "\n".join([self._title(), *text_table(rows, numbers=1)])

    def _repr_html_(self) -> str:
        rows = [(f"{self[value]:,}", str(value)) for value in self._values]
        return html_table(("rows", self.field), rows, caption=self._title())

    def _title(self) -> str:
        left = self.distinct - len(self)
        shown = f", the first {len(self):,} of them" if left else ""
        values = f"{self.distinct:,} value{'' if self.distinct == 1 else 's'}{shown}"
        return f"Facets of {self.field!r}: {values} in {self.matches:,} rows, {self.missing:,} without"


def name_of(value: Any) -> tuple[str, Any]:
    """What tells values apart: bools from numbers, and NaN, which equals nothing, from all."""
    if value != value:
        return "nan", None
    return ("bool" if isinstance(value, bool) else "value"), value
