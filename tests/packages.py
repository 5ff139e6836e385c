"""Random filters over Debian's packages, each with the rows that satisfy it by numpy alone.

The columns are read from the metadata here, and every kind of clause is evaluated here a second time,
by no code of the package under test: equality, order, prefixes and membership are numpy's and Python's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb import F
from vecdb.query import from_json, parse

Mask = npt.NDArray[np.bool_]
WORDS = ("section", "priority", "architecture", "source", "version", "homepage_host")
NUMBERS = ("installed_size_kb", "depends_count")
MOST_CLAUSES = 5


class Packages:
    """The columns, and clauses whose operands come from rows: from everything to one row."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.n = len(rows)
        self.numbers = {name: np.array([row[name] for row in rows]) for name in NUMBERS}
        self.words: dict[str, Any] = {}
        self.missing: dict[str, Mask] = {}
        for name in WORDS:
            self.missing[name] = np.array([row[name] is None for row in rows])
            self.words[name] = np.array([row[name] or "" for row in rows])
        self.tags = [row["tags"] for row in rows]
        self.tagged: dict[str, Mask] = defaultdict(lambda: np.zeros(self.n, bool))
        for at, tags in enumerate(self.tags):
            for tag in tags:
                self.tagged[tag][at] = True

    def random(self, rng: np.random.Generator) -> tuple[Any, Mask, int]:
        """A filter, the rows that satisfy it, and how many clauses it has."""
        clauses = int(rng.integers(1, MOST_CLAUSES + 1))
        where, mask = self._tree(rng, clauses)
        notation = int(rng.integers(3))
        if notation == 1:
            where = parse(str(where))
        elif notation == 2:
            where = from_json(where.to_json())
        return where, mask, clauses

    def _tree(self, rng: np.random.Generator, clauses: int) -> tuple[Any, Mask]:
        if clauses == 1:
            where, mask = self._clause(rng)
            return (~where, ~mask) if rng.random() < 0.15 else (where, mask)
        left = int(rng.integers(1, clauses))
        (a, here), (b, there) = self._tree(rng, left), self._tree(rng, clauses - left)
        how = rng.random()
        if how < 0.55:
            return a & b, here & there
        return (a | b, here | there) if how < 0.85 else (a & ~b, here & ~there)

    def _clause(self, rng: np.random.Generator) -> tuple[Any, Mask]:
        kind = rng.random()
        if kind < 0.35:
            return self._of_number(rng, str(rng.choice(NUMBERS)))
        if kind < 0.65:
            return self._of_tags(rng)
        return self._of_word(rng, str(rng.choice(WORDS)))

    def _of_number(self, rng: np.random.Generator, name: str) -> tuple[Any, Mask]:
        column, field = self.numbers[name], F[name]
        low, high = sorted(int(column[i]) for i in rng.integers(self.n, size=2))
        return [
            lambda: (field == low, column == low),
            lambda: (field != low, column != low),
            lambda: (field < low, column < low),
            lambda: (field <= low, column <= low),
            lambda: (field > high, column > high),
            lambda: (field >= high + 0.5, column >= high + 0.5),
            lambda: (field.between(low, high), (low <= column) & (column <= high)),
            lambda: (field.isin([low, high, -1]), (column == low) | (column == high)),
        ][int(rng.integers(8))]()

    def _of_tags(self, rng: np.random.Generator) -> tuple[Any, Mask]:
        known = [t for i in rng.integers(self.n, size=200) for t in self.tags[i]]
        a, b = (known[int(i)] for i in rng.integers(len(known), size=2))
        return [
            lambda: (F.tags.contains(a), self.tagged[a].copy()),
            lambda: (F.tags.contains_any([a, b]), self.tagged[a] | self.tagged[b]),
            lambda: (F.tags.contains_all([a, b]), self.tagged[a] & self.tagged[b]),
            lambda: (F.tags == a, np.zeros(self.n, bool)),  # a list equals no string
        ][int(rng.choice(4, p=[0.45, 0.25, 0.25, 0.05]))]()

    def _of_word(self, rng: np.random.Generator, name: str) -> tuple[Any, Mask]:
        column, there, field = self.words[name], ~self.missing[name], F[name]
        some = [str(column[i]) for i in rng.integers(self.n, size=4) if there[i]] or ["no such"]
        word, prefix = some[0], some[-1][: int(rng.integers(1, 5))]
        begins = np.char.startswith(column, prefix) & there
        return [
            lambda: (field == word, there & (column == word)),
            lambda: (field != word, there & (column != word)),
            lambda: (field.isin(some), there & np.isin(column, some)),
            lambda: (~field.isin(some), ~(there & np.isin(column, some))),
            lambda: (field.startswith(prefix), begins),
            lambda: (field < word, there & (column < word)),
            lambda: (field >= word, there & (column >= word)),
            lambda: (field.is_null(), ~there),
            lambda: (field.exists(), there),
        ][int(rng.choice(9, p=[0.2, 0.1, 0.15, 0.1, 0.25, 0.05, 0.05, 0.05, 0.05]))]()
