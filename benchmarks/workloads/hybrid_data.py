"""Which rows, queries and filters does the hybrid workload ask about, and what are the right vector answers?

Rows are Debian's packages (62,666 x 384, cosine) with their descriptions, section and size. A query is
one of the held-out packages: its vector, and the first words of its title; or one of the questions that
people wrote. Words are those with a meaning: what is left is letters and digits, so that no engine's
query language sees an operator in them, and all get the same ones.

Truth is exact: the best 100 rows of those that the filter leaves, by a full scan in float32.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from workloads.data import SHARED

K, DEPTH = 10, 100  # hits; rows of each part that count
MOST_WORDS = 5
TIE = 1e-5
SECTIONS = ("games", "graphics", "science")
STOP = frozenset(
    "a an and are as at based be by can for from has have how in into is it its my no not of on or that the "
    "their them this to used using via when which with without you your".split()
)

Array = npt.NDArray[np.float32]


class Where(NamedTuple):
    """A filter in no engine's language: a number below a limit, or a word among some."""

    field: str
    below: int | None = None
    among: tuple[str, ...] = ()


@dataclass
class Data:
    """Rows in insertion order, queries, filters."""

    base: Array  # normalised
    texts: list[str]
    metadata: list[dict[str, Any]]
    queries: Array
    words: list[str]
    filters: dict[str, Where | None]
    _best: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def matching(self, name: str) -> Any:
        """The rows that a filter leaves, ascending."""
        where = self.filters[name]
        if where is None:
            return np.arange(len(self.base))
        values = [row[where.field] for row in self.metadata]
        if where.below is not None:
            return np.flatnonzero(np.array(values) < where.below)
        return np.flatnonzero(np.isin(np.array(values), where.among))

    def best(self, name: str) -> tuple[Any, Any]:
        """The right rows of each query under a filter (n, 100), and the last one's likeness."""
        if name not in self._best:
            rows = self.matching(name)
            found = np.empty((len(self.queries), min(DEPTH, len(rows))), np.int64)
            last = np.empty(len(self.queries), np.float32)
            base = self.base[rows]
            for first in range(0, len(self.queries), 200):
                alike = self.queries[first : first + 200] @ base.T
                for at, one in enumerate(alike):
                    some = np.argpartition(-one, found.shape[1] - 1)[: found.shape[1]]
                    order = some[np.argsort(-one[some], kind="stable")]
                    found[first + at], last[first + at] = rows[order], one[order[-1]]
            self._best[name] = found, last
        return self._best[name]

    def recall(self, name: str, query: int, rows: list[int]) -> float:
        """The share of the right rows among those found."""
        best, last = self.best(name)
        assert len(set(rows)) == len(rows) <= DEPTH
        alike = self.base[rows] @ self.queries[query]
        return float((alike >= last[query] - TIE).sum()) / best.shape[1]


def load(n_queries: int, limit: int | None) -> Data:
    """The data set, shuffled alike every time."""
    folder = SHARED / "debian"
    with gzip.open(folder / "metadata.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    order = np.random.default_rng(7).permutation(len(rows))[:limit]
    base = np.load(folder / "vectors.f16.npy")[order].astype(np.float32)
    rows = [rows[at] for at in order]
    kept = ("section", "priority", "installed_size_kb", "depends_count")
    metadata = [{key: row[key] for key in kept} for row in rows]
    sizes = np.sort([row["installed_size_kb"] for row in metadata])
    filters = {
        "none": None,
        "half": Where("installed_size_kb", below=int(sizes[len(sizes) // 2])),
        "sections": Where("section", among=SECTIONS),
        "hundredth": Where("installed_size_kb", below=int(sizes[len(sizes) // 100])),
    }
    vectors, words = [], []
    for kind in ("nl_queries", "queries"):
        listed = (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()
        words += [asked(json.loads(line)["text"]) for line in listed]
        vectors.append(np.load(folder / f"{kind}.npy").astype(np.float32))
    queries = np.concatenate(vectors)[:n_queries]
    return Data(
        _unit(base), [row["text"] for row in rows], metadata, _unit(queries), words[:n_queries], filters
    )


def asked(text: str) -> str:
    """The first words with a meaning of a title, or of a question."""
    title = text.split(": ", 1)[-1].split(". ")[0]
    words = [word for word in re.findall("[A-Za-z0-9]+", title) if word.lower() not in STOP]
    return " ".join(words[:MOST_WORDS]) or title


def _unit(vectors: Array) -> Array:
    found: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found
