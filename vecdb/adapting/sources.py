"""What is to be learned, from what the user gave: pairs, triplets, labels, or the choices in the search log?

Everything becomes a `Task`: queries and documents as float32, which documents answer which query, and what
a query is itself among the documents. Texts are encoded as a search encodes them; rows are read in one pass
of the collection, as of one commit. A query that is given several times is one query with several answers.

Invariants (checked by tests/unit/test_fit_adapter.py):
  S1  whatever is wrong with an item is an error that names it: `pairs[17]`, the first such;
  S2  of a collection with more rows than MOST_NUMBERS allow, all rows that were named are read, and of the
      others an even sample that `seed` decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as made
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument, NotFound, VecdbError
from vecdb.facets import name_of
from vecdb.query import F
from vecdb.query.numbers import Numbers
from vecdb.query.objects import Near
from vecdb.query.source import flat
from vecdb.query.values import ById, given_id
from vecdb.types import Id

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.collection import Collection
    from vecdb.storage.schema import VectorField

    Floats = npt.NDArray[np.float32]
    Ints = npt.NDArray[np.intp]

MOST_NUMBERS: Final = 1 << 26  # of the documents that are read: 256 MB
LEAST_QUERIES: Final = 10
LEAST_ROWS: Final = 20  # with a label that another one has
_ENCODED: Final = 256  # texts at once


@dataclass(frozen=True, slots=True)
class Task:
    """Queries, documents, and which of these answer which of those.

    `queries` (q, d), `documents` (n, d), under cosine of length 1; `answers`: rows of documents by query,
    ascending; `itself` (q,): the query's own row, -1 for none. `wrong`: of triplets, the rows that must stay
    behind the answers. `labels` (q,): queries are the documents then, and equal numbers answer each other.
    """

    source: str
    field: VectorField
    name: str  # of the vector field
    queries: Floats
    documents: Floats
    itself: Ints
    ids: list[Id]  # of the documents
    answers: list[Ints] = made(default_factory=list)
    wrong: list[Ints] | None = None
    labels: Ints | None = None
    total: int = 0  # rows with a vector, read or not
    asked: list[Any] = made(default_factory=list)  # the queries as they were given
    notes: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What is held out."""
        return "queries" if self.labels is None else "rows"

    def __len__(self) -> int:
        return len(self.queries)


def of_pairs(papers: Collection, given: Any, using: Any, seed: int, *, name: str, seats: int) -> Task:
    """The task in pairs (query, id), or triplets (query, id, id) where `seats` is 3."""
    declared, field_name = field_of(papers, using)
    shape = "(query, id)" if seats == 2 else "(query, id, id)"
    if isinstance(given, Mapping) or not has_parts(given):
        _refuse(f"{name} is a {type(given).__name__}; give a list of {shape}")
    gathered = _Gathered(papers, declared, name)
    for at, item in enumerate(given):
        if not has_parts(item):
            _refuse(f"{name}[{at}] is a {type(item).__name__}; give {shape}")
        parts = list(item)
        if len(parts) != seats:
            _refuse(f"{name}[{at}] has {len(parts)} parts; give {shape}")
        gathered.add(f"{name}[{at}]", parts[0], parts[1], parts[2] if seats == 3 else None)
    return gathered.task(field_name, name, seed)


def of_feedback(papers: Collection, using: Any, seed: int) -> Task:
    """The task in the choices of the search log: whose searches were by one text, vector or row."""
    declared, field_name = field_of(papers, using)
    gathered = _Gathered(papers, declared, "feedback")
    others = 0
    for entry in papers._db.search_log.entries(papers):
        query = entry.query
        if not entry.chosen:
            continue
        if not isinstance(query, Near) or not _means(papers, query, field_name):
            others += 1
            continue
        asked = _example(query)
        for id in entry.chosen:
            if not (isinstance(asked, ById) and asked.id == id):
                gathered.add(f"feedback: search {entry.id}", asked, id, None)
    if others:
        gathered.notes.append(f"{others:,} searches with a choice were no plain search of {field_name!r}")
    return gathered.task(field_name, "feedback", seed, lenient=True)


def of_labels(papers: Collection, label: Any, using: Any, seed: int) -> Task:
    """The task in a metadata field: rows with one value answer each other."""
    declared, field_name = field_of(papers, using)
    if not isinstance(label, str) or not label:
        _refuse(f"labels={label!r:.60}: give the name of a metadata field")
    papers._need_values(label, "labels", "store it in a field of another name")
    rows = _Rows(declared, papers.count(F[label].exists()), set(), seed)
    values: dict[Any, int] = {}
    codes: list[int] = []
    for record in papers.scan(F[label].exists(), with_vectors=True):
        vector = _vector(record, field_name)
        value = flat(record.metadata).get(label)
        if vector is None or value is None or value != value:
            continue
        if isinstance(value, list | Mapping):
            _refuse(
                f"labels={label!r}: row {record.id!r} has {value!r:.60}; a label is one value: write it to a "
                "field of its own"
            )
        if rows.take(record.id, vector):
            codes.append(values.setdefault(name_of(value), len(values)))
    labels = np.array(codes, np.intp)
    counts = np.bincount(labels, minlength=1)
    usable = int(counts[counts > 1].sum())
    if len(values) < 2 and usable:
        _refuse(f"labels={label!r}: all {usable:,} rows have one value; there is nothing to tell apart")
    if usable < LEAST_ROWS:
        _refuse(
            f"labels={label!r}: {usable:,} rows with a vector have a value that another one has, of "
            f"{len(labels):,} with a value; the least is {LEAST_ROWS}: label more rows"
        )
    found = rows.done()
    itself = np.arange(len(found), dtype=np.intp)
    return Task(
        "labels", declared, field_name, found, found, itself, rows.ids, labels=labels, total=rows.seen,
        notes=rows.notes(),
    )  # fmt: skip


def field_of(papers: Collection, using: Any) -> tuple[VectorField, str]:
    """The vector field that an adapter is for; InvalidArgument for one that has none."""
    schema = papers.schema
    declared = papers._using(schema, using, graph=True)
    name = next(n for n, each in schema.vectors.items() if each is declared)
    kind = None
    if declared.multi:
        kind = "has many vectors a row (multi=True)"
    elif declared.sparse:
        kind = "holds sparse vectors"
    elif declared.dtype == "b1" or declared.metric == "hamming":
        kind = "stores bits (dtype='b1')"
    if kind:
        _refuse(
            f"using={name!r}: the vector field {kind}; an adapter maps one vector of real numbers a row: "
            "give a field of dtype 'f32', 'f16' or 'i8'"
        )
    return declared, name


class _Gathered:
    """Queries as they come in, each once, with the ids that answer it."""

    def __init__(self, papers: Collection, declared: VectorField, source: str) -> None:
        self._papers = papers
        self._declared = declared
        self._source = source
        self._places: dict[Any, int] = {}
        self._asked: list[tuple[str, Any]] = []  # where it was given, and what `_known` says
        self._answers: list[dict[Id, str]] = []  # id, and where it was given
        self._wrong: list[dict[Id, str]] = []
        self.notes: list[str] = []

    def add(self, where: str, query: Any, id: Any, wrong: Any) -> None:
        """One item: where it was given, its query, the id that answers it, and the one that does not."""
        key, asked = self._known(where, query)
        answer = given_id(where, id)
        if isinstance(asked, ById) and asked.id == answer:
            _refuse(f"{where}: row {answer!r:.60} is given as the answer to itself; name another one")
        at = self._places.setdefault(key, len(self._asked))
        if at == len(self._asked):
            self._asked.append((where, asked))
            self._answers.append({})
            self._wrong.append({})
        self._answers[at].setdefault(answer, where)
        if self._source == "triplets":
            other = given_id(where, wrong)
            if other == answer:
                _refuse(f"{where}: id {answer!r:.60} is both the answer and not; name two rows")
            self._wrong[at].setdefault(other, where)

    def _known(self, where: str, query: Any) -> tuple[Any, Any]:
        """What a query is known by, and the query: a text, a ById, or (as given, as the field has it)."""
        if isinstance(query, str):
            if self._declared.encoder is None:
                _refuse(
                    f"{where}: the query is a text, and the vector field has no encoder; give vectors, or "
                    "vecdb.query.ById(id)"
                )
            return ("text", query), query
        if isinstance(query, ById):
            return ("id", query.id), query
        try:
            found, single = self._papers._query(query, self._declared)
        except VecdbError as error:
            _refuse(f"{where}: {error}")
        if not single:
            _refuse(f"{where}: query has shape {found.shape}; give one vector ({self._declared.dim},)")
        return ("vector", found.tobytes()), (query, np.array(found))

    def task(self, field_name: str, source: str, seed: int, *, lenient: bool = False) -> Task:
        """All of them, read and encoded; `lenient`: rows that are no longer there are left out."""
        if not lenient:
            self._enough(source)
        wanted = {id for each in (*self._answers, *self._wrong) for id in each}
        wanted |= {asked.id for _, asked in self._asked if isinstance(asked, ById)}
        rows = _Rows(self._declared, len(self._papers), wanted, seed)
        for record in self._papers.scan(with_vectors=True):
            vector = _vector(record, field_name)
            if vector is not None:
                rows.take(record.id, vector)
        documents = rows.done()
        self._resolve(rows, lenient)
        if lenient:
            self._enough(source)
        place = rows.places
        itself = [place[asked.id] if isinstance(asked, ById) else -1 for _, asked in self._asked]
        return Task(
            source, self._declared, field_name, self._vectors(documents, place), documents,
            np.array(itself, np.intp), rows.ids, _sorted(self._answers, place),
            _sorted(self._wrong, place) if source == "triplets" else None, None, rows.seen,
            [one[0] if isinstance(one, tuple) else one for _, one in self._asked],
            (*self.notes, *rows.notes()),
        )  # fmt: skip

    def _enough(self, source: str) -> None:
        if len(self._asked) < LEAST_QUERIES:
            remedy = "let more choices be noted" if source == "feedback" else "judge more queries"
            _refuse(
                f"{source}: {len(self._asked)} different queries; the least to learn from and to measure "
                f"by is {LEAST_QUERIES}: {remedy}"
            )

    def _resolve(self, rows: _Rows, lenient: bool) -> None:
        """Every id must be a row with a vector; those that are not are named, or left out."""
        gone = 0
        keep = []
        for at, (where, asked) in enumerate(self._asked):
            mine = [(asked.id, where)] if isinstance(asked, ById) else []
            lost = [each for each in mine if each[0] not in rows.places]
            for known in (self._answers[at], self._wrong[at]):
                lost += [(id, place) for id, place in known.items() if id not in rows.places]
                if lenient:
                    for id in [id for id in known if id not in rows.places]:
                        del known[id]
            if lost and not lenient:
                self._name(*min(lost, key=lambda each: _number(each[1])))
            gone += len(lost)
            if self._answers[at] and not (mine and mine[0][0] not in rows.places):
                keep.append(at)
        for name in ("_asked", "_answers", "_wrong"):
            setattr(self, name, [getattr(self, name)[at] for at in keep])
        if gone:
            self.notes.append(f"{gone:,} rows that were chosen or asked for are gone, and left out")

    def _name(self, id: Id, where: str) -> NoReturn:
        if id in self._papers:
            _refuse(f"{where}: row {id!r:.60} has no vector in the field")
        raise NotFound(f"{where}: collection {self._papers.name!r} has no row {id!r:.60}")

    def _vectors(self, documents: Floats, place: Mapping[Id, int]) -> Floats:
        """The queries' vectors (q, d)."""
        found = np.empty((len(self._asked), self._declared.dim), np.float32)
        texts = [at for at, (_, asked) in enumerate(self._asked) if isinstance(asked, str)]
        for first in range(0, len(texts), _ENCODED):
            some = texts[first : first + _ENCODED]
            asked = [self._asked[at][1] for at in some]
            found[some] = unit(self._papers._query(asked, self._declared)[0], self._declared.metric)
        for at, (_, one) in enumerate(self._asked):
            if isinstance(one, ById):
                found[at] = documents[place[one.id]]
            elif not isinstance(one, str):
                found[at] = unit(one[1][None], self._declared.metric)[0]
        return found


class _Rows:
    """Vectors of rows as they are read: all that are wanted, and as many others as there is room for."""

    def __init__(self, declared: VectorField, coming: int, wanted: set[Id], seed: int) -> None:
        self._metric = declared.metric
        room = max(1, MOST_NUMBERS // declared.dim - len(wanted))
        self._share = min(1.0, room / max(1, coming - len(wanted)))
        self._wanted = wanted
        self._rng = np.random.default_rng(seed)
        self._found = np.empty((min(coming, room + len(wanted)) + 1, declared.dim), np.float32)
        self.ids: list[Id] = []
        self.seen = 0

    def take(self, id: Id, vector: npt.NDArray[Any]) -> bool:
        """Take a row in, or pass it over."""
        self.seen += 1
        if self._share < 1 and id not in self._wanted and self._rng.random() >= self._share:
            return False
        at = len(self.ids)
        if at == len(self._found):
            self._found = np.concatenate([self._found, np.empty_like(self._found)])
        self._found[at] = vector
        self.ids.append(id)
        return True

    def done(self) -> Floats:
        """The vectors that were taken in."""
        self.places = {id: at for at, id in enumerate(self.ids)}
        return unit(self._found[: len(self.ids)], self._metric)

    def notes(self) -> tuple[str, ...]:
        """What was not read."""
        if len(self.ids) == self.seen:
            return ()
        return (f"{len(self.ids):,} of {self.seen:,} rows stand for all, by an even sample",)


def unit(vectors: Floats, metric: str) -> Floats:
    """Vectors as their metric sees them: of length 1 under cosine."""
    if metric != "cosine" or not len(vectors):
        return np.asarray(vectors, np.float32)
    lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    return np.asarray(vectors / lengths, np.float32)


def _vector(record: Any, field_name: str) -> Any:
    return record.vectors.get(field_name)


def _sorted(known: list[dict[Id, str]], place: Mapping[Id, int]) -> list[Ints]:
    return [np.array(sorted(place[id] for id in each), np.intp) for each in known]


def _means(papers: Collection, query: Near, field_name: str) -> bool:
    """Whether a logged search was of this field."""
    if query.using is not None:
        return query.using == field_name
    try:
        return papers._using(papers.schema, None, encoder=isinstance(query.x, str), graph=True).number == (
            papers.schema.vectors[field_name].number
        )
    except VecdbError:
        return False


def _example(query: Near) -> Any:
    """What a logged search was of: a text, a ById, or an array."""
    if isinstance(query.x, Numbers):
        return np.frombuffer(query.x.data, query.x.dtype).reshape(query.x.shape)
    return query.x if isinstance(query.x, ById | str) else np.array(query.x)


def has_parts(given: Any) -> bool:
    """Whether something has parts; an array of no dimension calls itself iterable."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        return False
    return getattr(given, "ndim", 1) != 0


def _number(where: str) -> int:
    """The position in "pairs[17]"."""
    return int(where[where.rindex("[") + 1 : -1])


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
