"""Values that cross the public API: what a row, a hit, a plan and a problem look like.

Everything here is plain data: no storage, no index, no I/O. Two rules keep results honest:

  T1  payload bytes are those of the snapshot that answered; they are decoded when touched,
      so a search that only reads ids never pays for metadata;
  T2  `distance` is smaller-is-closer and `score` larger-is-closer, never mixed.

Rejected: decoding every hit at once. For ten hits it costs as much as the walk through the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, overload

from vecdb.cursor import Place
from vecdb.errors import InvalidArgument
from vecdb.shown import html_table, text_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Id = str | int
Metadata = dict[str, Any]


class _Remove:
    """The one value that takes a metadata key away in `update`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "vecdb.REMOVE"

    def __reduce__(self) -> str:
        return "REMOVE"


REMOVE: Final = _Remove()


class Record:
    """One stored row: `.id`, `.metadata`, `.text`, `.vector`, `.vectors`, `.cursor`.

    Metadata and vector are decoded when first touched.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
    >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {}])
    >>> record = c.get("a")
    >>> record.id, record.metadata, record.text, record.vector.tolist(), list(record.vectors)
    ('a', {'year': 1999}, None, [1.0, 0.0], ['vector'])
    >>> next(c.scan(after=record.cursor)).id
    'b'
    """

    __slots__ = (
        "_decode", "_metadata", "_packed", "_vector", "_vectors", "id", "place", "several", "text",
    )  # fmt: skip

    def __init__(
        self,
        id: Id,
        packed: bytes,
        text: str | None,
        vector: tuple[bytes, Any] | None,
        decode: Callable[[bytes], Metadata],
        place: Place | int | None = None,
    ) -> None:
        self.id = id
        self.text = text
        self.place = place  # in a scan; the collection's number alone: in id order
        self.several = False  # whether the collection has several vector fields
        self._vector = vector  # the only one, as stored bytes with their dtype
        self._vectors: dict[str, Any] | None = None
        self._packed = packed
        self._decode = decode
        self._metadata: Metadata | None = None

    @property
    def metadata(self) -> Metadata:
        """The row's metadata, a dict of its own that may be changed freely."""
        if self._metadata is None:
            self._metadata = self._decode(self._packed) if self._packed else {}
        return self._metadata

    @property
    def vectors(self) -> dict[str, Any]:
        """The stored vectors that were read, by vector field: (d,); (m, d) in a field of many, a dict
        {token: weight} in a sparse one."""
        if self._vectors is None:
            self._vectors = {}
            if self._vector is not None:
                import numpy as np

                self._vectors = {"vector": np.frombuffer(*self._vector).copy()}
        return self._vectors

    @vectors.setter
    def vectors(self, vectors: dict[str, Any]) -> None:
        self._vectors = vectors

    @property
    def vector(self) -> npt.NDArray[Any] | None:
        """The stored vector, (d,) of the field's dtype; None where there is none or none was asked.

        InvalidArgument in a collection with several vector fields: there, ask `.vectors`.
        """
        if self.several:
            raise InvalidArgument(
                "record.vector: the collection has several vector fields; use record.vectors[name]"
            )
        return next(iter(self.vectors.values()), None)

    @property
    def cursor(self) -> str | None:
        """Where `scan(after=...)` goes on behind this row, as text; None for a hit of a search."""
        if self.place is None:
            return None
        place = Place(self.place, self.id) if isinstance(self.place, int) else self.place
        return place.to_text()

    def __repr__(self) -> str:
        parts = [f"id={self.id!r}", f"metadata={self.metadata!r}"]
        if self.text is not None:
            parts.append(f"text={shorten(self.text, 60)!r}")
        return f"Record({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (
            (self.id, self.text, self.metadata) == (other.id, other.text, other.metadata)
            and self.vectors.keys() == other.vectors.keys()
            and all(_same(each, other.vectors[name]) for name, each in self.vectors.items())
        )

    __hash__ = None  # type: ignore[assignment]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) or isinstance(b, dict):  # sparse vectors
        return bool(a is b or (isinstance(a, dict) and isinstance(b, dict) and a == b))
    return a.shape == b.shape and bool((a == b).all())


class Hit:
    """One result: `.id`, `.score`, `.distance`, `.metadata`, `.text`, `.vector`.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
    >>> _ = c.add("a", [3, 4], metadata={"year": 1999}, texts="a text")
    >>> hit = c.search([0, 0], with_vectors=True)[0]
    >>> hit.id, hit.distance, hit.metadata, hit.text, hit.vector.tolist()
    ('a', 5.0, {'year': 1999}, 'a text', [3.0, 4.0])
    """

    __slots__ = ("_at", "_record", "_source", "distance", "score")

    def __init__(
        self, record: Record, distance: float, score: float, source: Source | None = None, at: int = 0
    ) -> None:
        self._record = record
        self.distance = distance
        self.score = score
        self._source = source
        self._at = at

    @property
    def id(self) -> Id:
        """The row's id."""
        return self._record.id

    @property
    def metadata(self) -> Metadata:
        """The row's metadata as of the search's snapshot."""
        return self._record.metadata

    @property
    def text(self) -> str | None:
        """The row's text, None where it has none."""
        return self._record.text

    @property
    def vector(self) -> npt.NDArray[Any] | None:
        """The stored vector of the field that was searched, with `with_vectors=True`; else None."""
        return self._record.vector

    @property
    def highlights(self) -> list[Any]:
        """The snippets of the row's texts with the words that a Text query matched, and their spans.

        Empty where no Text was asked.

        >>> import vecdb
        >>> from vecdb.query import Text
        >>> c = vecdb.open().create_collection("c", dim=2, fulltext=True)
        >>> _ = c.add("a", texts="a fast GPU kernel")
        >>> len(c.search(Text("gpu"))[0].highlights)
        1
        """
        return [] if self._source is None else self._source.highlights(self._at, self._record)

    def explain(self) -> Explanation:
        """Return what made the hit's score: rank and score in each part of the query, and boosts.

        >>> import vecdb
        >>> from vecdb.query import Fuse, Near
        >>> c = vecdb.open().create_collection("c", dim=2, metric="l2")
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 3]])
        >>> print(c.search(Fuse(Near([1, 0]), Near([0, 1])))[0].explain())
        rank 1, score 0.0327869: Fuse(Near([1, 0]), Near([0, 1]))
          rank 1, score 1, distance 0: Near([1, 0])
          rank 1, score 0.414214, distance 1.41421: Near([0, 1])
        """
        if self._source is None:
            return Explanation("", self._at + 1, self.score, self.distance)
        return self._source.explain(self._at, self.score, self.distance)

    def __repr__(self) -> str:
        return f"Hit(id={self.id!r}, score={self.score:.4f}, distance={self.distance:.4f})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What made a hit's score: printed it reads as a tree.

    `rank` and `score` in the query, `distance` where one vector query ranked (else NaN); `boost`: what
    boosts added to the score; `parts`: the same for each query inside, `rank` None in one that did not
    find the row.
    """

    query: str
    rank: int | None
    score: float
    distance: float = float("nan")
    boost: float = 0.0
    parts: tuple[Explanation, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self._lines(""))

    def _lines(self, indent: str) -> Iterator[str]:
        named = f": {self.query}" if self.query else ""
        if self.rank is None:
            yield f"{indent}not found{named}"
        else:
            boost = f" of which boosts {self.boost:.6g}" if self.boost else ""
            far = f", distance {self.distance:.6g}" if self.distance == self.distance else ""
            yield f"{indent}rank {self.rank:,}, score {self.score:.6g}{boost}{far}{named}"
        for part in self.parts:
            yield from part._lines(indent + "  ")


@dataclass(frozen=True, slots=True)
class Group:
    """One group of a search with `group_by`: the value, and its hits, best first."""

    value: Any
    hits: list[Hit]

    def __repr__(self) -> str:
        return f"Group({self.value!r}, {len(self.hits)} hits, best {self.hits[0]!r})"


class Source(Protocol):
    """Where hits come from: what decodes their rows and tells how they were found."""

    metric: str
    dim: int

    @property
    def given_scores(self) -> Any: ...  # (k,) where they are not those of the distances, else None
    @property
    def sizes(self) -> list[tuple[Any, int]] | None: ...  # of the groups, with their values
    def record(self, at: int, payload: bytes) -> Record: ...
    def highlights(self, at: int, record: Record) -> list[Any]: ...
    def explain(self, at: int, score: float, distance: float) -> Explanation: ...
    @property
    def plan(self) -> Callable[..., Plan]: ...  # takes the hits' figures


class Hits(Sequence[Hit]):
    """The results of one search, best first: a sequence of `Hit`.

    `.ids` (list), `.distances` and `.scores` (float32 arrays of shape (k,)), `.plan` (what ran).
    Rows are decoded when touched; ids, distances and scores need no decoding of metadata.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
    >>> _ = c.add(["a", "b"], [[1, 0], [0, 3]])
    >>> hits = c.search([0, 0])
    >>> hits.ids, hits.distances.tolist(), hits.scores.tolist(), hits.plan.strategy
    (['a', 'b'], [1.0, 3.0], [0.5, 0.25], 'exact scan')
    >>> len(hits), hits[0].id, [hit.id for hit in hits]
    (2, 'a', ['a', 'b'])
    """

    __slots__ = (
        "_distances", "_figures", "_hits", "_ids", "_logged", "_payloads", "_plan", "_source",
    )  # fmt: skip
    _logged: tuple[int, int]  # of a search that is logged: its collection's number, and its own in the log

    def __init__(
        self,
        ids: list[Id],
        distances: bytes,
        payloads: list[bytes],
        figures: tuple[int, ...],
        source: Source,
    ) -> None:
        self._ids = ids
        self._distances: bytes | npt.NDArray[np.float32] = distances
        self._payloads = payloads
        self._figures = figures
        self._source = source
        self._plan: Plan | None = None
        self._hits: dict[int, Hit] | None = None

    @property
    def ids(self) -> list[Id]:
        """Ids, best first."""
        return self._ids

    @property
    def distances(self) -> npt.NDArray[np.float32]:
        """Distances, ascending: float32 of shape (k,); NaN unless one vector query ranked."""
        found = self._distances
        if isinstance(found, bytes):
            import numpy as np

            found = self._distances = np.frombuffer(found, np.float32)
        return found

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores, descending (but in a search with `diversity` or `group_by`): float32 of shape (k,)."""
        given = self._source.given_scores
        if given is not None:
            return cast("npt.NDArray[np.float32]", given)
        return score_of(self._source.metric, self._source.dim, self.distances)

    @property
    def groups(self) -> list[Group]:
        """The groups of a search with `group_by`, best first; InvalidArgument without it.

        >>> import vecdb
        >>> c = vecdb.open().create_collection("chunks", dim=2)
        >>> _ = c.add([1, 2, 3], [[1, 0], [1, 0.1], [0, 1]], metadata=[{"doc": d} for d in "aab"])
        >>> [(group.value, [hit.id for hit in group.hits])
        ...  for group in c.search([1, 0], k=2, group_by="doc", group_size=2).groups]
        [('a', [1, 2]), ('b', [3])]
        """
        sizes = self._source.sizes
        if sizes is None:
            raise InvalidArgument("hits.groups: the search was made without group_by=")
        found, start = [], 0
        for value, size in sizes:
            found.append(Group(value, self[start : start + size]))
            start += size
        return found

    @property
    def plan(self) -> Plan:
        """What ran: strategy, counts, times, estimated recall."""
        if self._plan is None:
            self._plan = self._source.plan(*self._figures)
        return self._plan

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"hit {index} of {len(self)}")
        if self._hits is None:
            self._hits = {}
        hit = self._hits.get(at)
        if hit is None:
            record = self._source.record(at, self._payloads[at])
            hit = Hit(record, float(self.distances[at]), float(self.scores[at]), self._source, at)
            self._hits[at] = hit
        return hit

    def __iter__(self) -> Iterator[Hit]:
        return (self[i] for i in range(len(self)))

    def to_arrow(self) -> Any:
        """Return the hits as a pyarrow.Table: id, score, distance, text and the metadata.

        InvalidArgument, naming the column, where rows hold values of two types in it, and where
        pyarrow (extra `arrow`) is not installed.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a"], [[1, 0]], metadata=[{"year": 1999}])
        >>> c.search([1, 0]).to_arrow().column("year").to_pylist()
        [1999]
        """
        from vecdb.frames import to_arrow

        return to_arrow(self)

    def to_pandas(self) -> Any:
        """Return the hits as a pandas.DataFrame: id, score, distance, text and the metadata.

        InvalidArgument where pandas (extra `pandas`) is not installed.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a"], [[1, 0]], metadata=[{"year": 1999}])
        >>> c.search([1, 0]).to_pandas()["year"].tolist()
        [1999]
        """
        from vecdb.frames import to_pandas

        return to_pandas(self)

    def __repr__(self) -> str:
        return "\n".join([self._title(), *text_table(self._shown(60, 10), numbers=2), *self._more(10)])

    def _repr_html_(self) -> str:
        headers = ("", "score", "id", "text")
        caption = "".join([self._title(), *self._more(100)])
        return html_table(headers, self._shown(200, 100), caption=caption)

    def _title(self) -> str:
        return f"Hits({len(self)}, {self.plan.strategy})"

    def _shown(self, width: int, most: int) -> list[tuple[str, str, str, str]]:
        """Rank, score, id, and the text or else the metadata, of the first hits."""
        return [
            (
                f"{rank}.",
                f"{hit.score:.4f}",
                shorten(repr(hit.id), width),
                shorten(str(hit.metadata or "") if hit.text is None else hit.text, width),
            )
            for rank, hit in enumerate(self[:most], 1)
        ]

    def _more(self, shown: int) -> list[str]:
        return [f"  ... {len(self) - shown:,} more"] if len(self) > shown else []


def score_of(
    metric: str, dim: int, distances: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Scores (larger is closer) of distances (smaller is closer) under a metric."""
    if metric == "cosine":
        return 1 - distances
    if metric == "dot":
        return -distances
    if metric == "hamming":
        return cast("npt.NDArray[np.float32]", 1 - distances / dim)
    return cast("npt.NDArray[np.float32]", 1 / (1 + distances))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search did, or would do: printed by `explain`, kept in `hits.plan`."""

    collection: str
    strategy: str  # "graph", "filtered graph", "exact scan", "code scan", "nothing"
    k: int | None  # None: every match
    matches: int | None  # rows that satisfy filter and query: counted, not estimated; None: not counted
    rows: int
    ef: int = 0
    recall: float = 1.0  # estimated
    filter: str | None = None  # in text notation
    distances: int = 0  # distance computations done
    fallback: bool = False  # the walk came up short and a scan finished it
    filter_us: float = 0.0
    search_us: float = 0.0
    total_us: float = 0.0
    rejected: tuple[tuple[str, float], ...] = field(default=())  # (strategy, estimated cost in us)
    estimated_us: float = 0.0
    evaluated: tuple[str, ...] = ()  # fields of the filter without an index: rows were read for them
    radius: float | None = None
    offset: int = 0
    wanted: str = ""  # "recall 0.95", "ef 64" or "exact"
    query: str = ""  # the query object that was asked
    shape: str = ""  # groups, diversity and boosts, in words
    parts: tuple[Plan, ...] = ()  # of the queries inside

    def __str__(self) -> str:
        lines = [f"search {self.collection!r} for {self._asked()}"]
        if self.query:
            lines.append(f"  {shorten(self.query, 100)}")
        if self.filter is not None:
            lines.append(f"  where {self.filter}")
        if self.matches is not None:
            lines.append(f"  {self.matches:,} of {self.rows:,} rows match")
        if self.evaluated:
            lines.append(f"  row by row, for want of an index: {', '.join(self.evaluated)}")
        lines.append(f"  {self.strategy}{self._effort()}")
        if self.fallback:
            lines.append("  the walk came up short; a scan of all matches answered")
        for part in self.parts:
            lines += ["  " + line for line in part._as_part()]
        if self.shape:
            lines.append(f"  {self.shape}")
        if self.rejected:
            others = "; ".join(f"{name} {cost:,.0f} us" for name, cost in self.rejected)
            lines.append(f"  rejected: {others}")
        if self.total_us:
            lines.append(
                f"  took {self.total_us:,.0f} us (filter {self.filter_us:,.0f}, "
                f"search {self.search_us:,.0f}), {self.distances:,} distances"
            )
        return "\n".join(lines)

    def _as_part(self) -> Iterator[str]:
        counted = "" if self.matches is None else f", {self.matches:,} match"
        yield f"{self.strategy}{self._effort()}{counted}: {shorten(self.query, 80)}"
        for part in self.parts:
            yield from ("  " + line for line in part._as_part())

    def _asked(self) -> str:
        parts = ["every match" if self.k is None else f"the best {self.k:,}"]
        if self.offset:
            parts.append(f"after the first {self.offset:,}")
        if self.radius is not None:
            parts.append(f"within distance {self.radius:.6g}")
        if self.wanted:
            parts.append(self.wanted)
        return ", ".join(parts)

    def _effort(self) -> str:
        parts = [f"estimated {self.estimated_us:,.0f} us"] if self.estimated_us else []
        if self.ef:
            parts += [f"ef {self.ef}", f"estimated recall {self.recall:.3f}"]
        return f": {', '.join(parts)}" if parts else ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One violated invariant that `check()` found: a code, where, and what is wrong there."""

    code: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code} at {self.where}: {self.detail}"


def shorten(text: str, limit: int) -> str:
    """The text on one line, cut to at most `limit` characters."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
