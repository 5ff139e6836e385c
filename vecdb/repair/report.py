"""What did a repair save, and what not?

A `Report` counts what was saved and lists what was lost, each as a `Lost` that says what it is, where
it was and what is wrong with it. What is worth knowing and no loss is a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from vecdb.types import Id

SHOWN: Final = 20  # losses that str(report) lists; all of them are in `lost`


@dataclass(frozen=True, slots=True)
class Lost:
    """One thing that could not be saved.

    `kind`: "row", "rows" (several, whose ids are not known), "vector" (its row is saved without it),
    "declaration" (of a collection), "search" (a saved one), "pages" (that could not be used) or
    "commits" (the last ones).
    `place` names it, `reason` says what is wrong; `id` where one is known, `count` how many it is, and
    `vector_field` names the field of a lost vector where the field is known.
    """

    kind: str
    place: str
    reason: str
    id: Id | None = None
    count: int = 1
    vector_field: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Saved:
    """How much of a collection was saved.

    `vectors`: those of all vector fields; a row's vectors in a field of many count once. `by_field`:
    rows with a vector in each.
    """

    rows: int
    vectors: int
    by_field: Mapping[str, int] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        if len(self.by_field) < 2:
            return f"{self.rows:,} rows, {self.vectors:,} of them with a vector"
        each = ", ".join(f"{name!r} {count:,}" for name, count in self.by_field.items())
        return f"{self.rows:,} rows; vectors: {each}"


@dataclass(slots=True)
class Report:
    """What `repair` saved and lost; `print(report)` reads well, `report.ok`: nothing was lost."""

    source: str
    target: str
    collections: dict[str, Saved] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is worth knowing, and no loss

    @property
    def ok(self) -> bool:
        """Whether nothing was lost."""
        return not self.lost

    def __str__(self) -> str:
        lines = [f"{self.source} was saved to {self.target}"]
        lines += [f"  {name!r}: {saved}" for name, saved in sorted(self.collections.items())]
        counts = Counter[str]()
        for one in self.lost:
            counts[one.kind] += one.count
        total = ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items()))
        lines.append(f"lost: {total}" if total else "nothing was lost")
        lines += [f"  {one}" for one in self.lost[:SHOWN]]
        if len(self.lost) > SHOWN:
            lines.append(f"  and {len(self.lost) - SHOWN:,} more, in report.lost")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
