"""The engines, each behind the same four verbs: build, effort, search, load.

All have M=16 (32 links on the lowest layer) and ef_construction=200 where they have such knobs.
`search` takes one query and returns ids as Python ints, as a program would read them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from workloads.data import Data, K

M, EF_CONSTRUCTION = 16, 200
COMMIT = 1000  # rows a commit

Array = npt.NDArray[np.float32]


class Engine(Protocol):
    package: str
    durable: bool

    def build(self, data: Data, path: Path, threads: int) -> None: ...

    def load(self, data: Data, path: Path) -> None: ...

    def effort(self, ef: float) -> None: ...

    def search(self, query: Array) -> list[int]: ...


class Vecdb:
    """vecdb through its public API: rows with metadata, in commits of 1,000, from a file."""

    package = "vecdb-engine"
    durable = True

    def build(self, data: Data, path: Path, threads: int) -> None:
        import vecdb

        with vecdb.open(path, threads=threads) as db:
            rows = db.create_collection(
                "rows",
                len(data.base[0]),
                metric=data.metric,
                M=M,
                ef_construction=EF_CONSTRUCTION,
            )
            for first in range(0, len(data.base), COMMIT):
                part = slice(first, first + COMMIT)
                ids = list(range(first, min(first + COMMIT, len(data.base))))
                rows.add(ids, data.base[part], metadata=data.metadata[part] or None)

    def load(self, data: Data, path: Path) -> None:
        import vecdb

        self._db = vecdb.open(path, mode="r", threads=1)
        self._search: Callable[..., Any] = self._db["rows"].search
        self._how: dict[str, Any] = {}

    def effort(self, ef: float) -> None:
        """An ef; below 1 it is a wanted recall, and vecdb finds the ef."""
        self._how = {"recall": ef} if ef < 1 else {"ef": int(ef)}

    def search(self, query: Array) -> list[int]:
        ids: list[int] = self._search(query, K, **self._how).ids
        return ids


class Hnswlib:
    package = "hnswlib"
    durable = False

    def build(self, data: Data, path: Path, threads: int) -> None:
        index = self._new(data)
        index.init_index(len(data.base), ef_construction=EF_CONSTRUCTION, M=M)
        index.add_items(data.base, np.arange(len(data.base)), num_threads=threads)
        index.save_index(str(path))

    def load(self, data: Data, path: Path) -> None:
        self._index = self._new(data)
        self._index.load_index(str(path), max_elements=len(data.base))
        self._index.set_num_threads(1)

    def effort(self, ef: float) -> None:
        self._index.set_ef(int(ef))

    def search(self, query: Array) -> list[int]:
        labels, _ = self._index.knn_query(query, k=K, num_threads=1)
        ids: list[int] = labels[0].tolist()
        return ids

    @staticmethod
    def _new(data: Data) -> Any:
        import hnswlib

        return hnswlib.Index(space=data.metric, dim=len(data.base[0]))


class Faiss:
    package = "faiss-cpu"
    durable = False

    def build(self, data: Data, path: Path, threads: int) -> None:
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.IndexHNSWFlat(len(data.base[0]), M)  # normalised: l2 ranks as cosine does
        index.hnsw.efConstruction = EF_CONSTRUCTION
        index.add(data.base)
        faiss.write_index(index, str(path))

    def load(self, data: Data, path: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._index = faiss.read_index(str(path))

    def effort(self, ef: float) -> None:
        self._index.hnsw.efSearch = int(ef)

    def search(self, query: Array) -> list[int]:
        _, labels = self._index.search(query[None], K)
        ids: list[int] = labels[0].tolist()
        return ids


class Usearch:
    package = "usearch"
    durable = False

    def build(self, data: Data, path: Path, threads: int) -> None:
        index = self._new(data)
        index.add(np.arange(len(data.base)), data.base, threads=threads)
        index.save(str(path))

    def load(self, data: Data, path: Path) -> None:
        self._index = self._new(data)
        self._index.load(str(path))

    def effort(self, ef: float) -> None:
        self._index.expansion_search = int(ef)

    def search(self, query: Array) -> list[int]:
        ids: list[int] = self._index.search(query, K, threads=1).keys.tolist()
        return ids

    @staticmethod
    def _new(data: Data) -> Any:
        from usearch.index import Index

        metric = "cos" if data.metric == "cosine" else "l2sq"
        return Index(
            ndim=len(data.base[0]),
            metric=metric,
            dtype="bf16",
            connectivity=M,
            expansion_add=EF_CONSTRUCTION,
        )


ENGINES: dict[str, Callable[[], Engine]] = {
    "vecdb": Vecdb,
    "hnswlib": Hnswlib,
    "faiss": Faiss,
    "usearch": Usearch,
}
PACKAGES = {
    "vecdb": "vecdb-engine",
    "hnswlib": "hnswlib",
    "faiss": "faiss-cpu",
    "usearch": "usearch",
}


def installed() -> dict[str, str]:
    """Return the engines that can be measured here, with their versions."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if name == "vecdb":
                import vecdb

                found[name] = vecdb.__version__
    return found
