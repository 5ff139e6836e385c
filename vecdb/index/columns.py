"""Which texts does a row have, and how are they made into terms?

A collection's words have columns: a text column for each field of `schema.fulltext`, in that order, then
a column for each field of sparse vectors, by number. The text field "text" is the row's text, every other
one a metadata field, by its flat name, whose value is a str or a list of str. Sparse vectors are indexed
as they are, {token: weight}; the rows that have one are marked by index/seats.py.

Invariants:
  C1  what a row's columns hold follows from its record alone (rows are the log): whoever reads the record
      can index it, check it, and search it before it is indexed;
  C2  a row with anything in a column has the indexed state `MARK`, like a value of its metadata: so it is
      among the touched rows of every commit that changes or deletes it, and "rows with text" is a posting;
  C3  elements of a list are indexed with a line break between them, and phrases are looked for in each
      element alone: none runs across.

Rejected: terms in the redo log. A commit would cost what its texts cost; the rows are there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from vecdb.errors import FilterError, InvalidArgument, SchemaError
from vecdb.index import seats, valuekey
from vecdb.index.changes import Pair, flat
from vecdb.storage import codec, rows, sparse
from vecdb.storage.schema import TEXT, Schema, TextField
from vecdb.text import analysis

MARK: Final = "\0text"  # name under which rows with something to index are indexed; see seats.py
_TRUE: Final = valuekey.key_of(True)
_SIZES: Final = Struct("<QBBHII")  # the head of a row (storage/rows.py)
_HAS_TEXT: Final = 1
BREAK: Final = "\n"

Value = str | bytes | None


@dataclass(frozen=True, slots=True)
class Column:
    """One field of full text."""

    name: str
    declared: TextField
    analysis: Any  # analysis.Analysis, or Missing

    @property
    def is_text(self) -> bool:
        """Whether it is the row's text, and no metadata field."""
        return self.name == TEXT

    @property
    def outdated(self) -> bool:
        """Whether its postings were made by another analysis than the one at hand."""
        return bool(self.analysis.fingerprint != self.declared.fingerprint)


@dataclass(frozen=True, slots=True)
class Missing:
    """Stands for an analysis whose stemmer is not installed: the collection works, but for its words."""

    fingerprint: str
    analyzer: Any = None


def _analysis(declared: TextField) -> analysis.Analysis | Missing:
    try:
        return analysis.of(declared.language, declared.stopwords)
    except InvalidArgument as error:
        return Missing(f"none: {error}")


class Columns:
    """The columns of one declaration; the same object for the same declaration."""

    __slots__ = ("_metadata", "_where", "by_name", "listed", "marks", "missing", "outdated", "sparse")

    def __init__(
        self, fulltext: tuple[tuple[str, TextField], ...], sparse: tuple[int, ...] = ()
    ) -> None:
        self.sparse = sparse  # numbers of vector fields: the columns behind the texts'
        self.marks = tuple(([MARK] if fulltext else []) + [seats.sparse(number) for number in sparse])
        self.listed = tuple(Column(name, each, _analysis(each)) for name, each in fulltext)
        self.missing = tuple(each for each in self.listed if isinstance(each.analysis, Missing))
        self.by_name = {each.name: at for at, each in enumerate(self.listed)}
        self.outdated = tuple(each for each in self.listed if each.outdated)
        self._where = self.by_name.get(TEXT)
        self._metadata = [(at, each.name) for at, each in enumerate(self.listed) if at != self._where]

    @property
    def any(self) -> bool:
        """Whether there is anything to index."""
        return bool(self.listed or self.sparse)

    @property
    def names(self) -> list[str]:
        """What users call the columns."""
        return [each.name for each in self.listed] + [f"vector field {number}" for number in self.sparse]

    def column_of(self, number: int) -> int:
        """The column of a field of sparse vectors, by its number."""
        return len(self.listed) + self.sparse.index(number)

    @property
    def of_metadata(self) -> bool:
        """Whether metadata is needed to know what a row has."""
        return bool(self._metadata)

    @property
    def analyzers(self) -> list[Any]:
        """What a builder of segments takes."""
        return [each.analysis.analyzer for each in self.listed] + [None] * len(self.sparse)

    def mark(self, text: Any, metadata: Mapping[str, Any], names: dict[str, int]) -> tuple[Pair, ...]:
        """What the indexed state of a row says, in front of what its metadata says (C2)."""
        if (text is None or self._where is None) and not (self._metadata and self.has_any(text, metadata)):
            return ()
        number = names.get(MARK)
        return ((names.setdefault(MARK, len(names)) if number is None else number, _TRUE),)

    def has_any(self, text: Any, metadata: Mapping[str, Any]) -> bool:
        """Whether a row has a text in any column."""
        if text is not None and self._where is not None:
            return True
        if not self._metadata or not metadata:
            return False
        return any(value is not None for value in self._of_metadata(metadata))

    def of_row(self, text: Any, metadata: Mapping[str, Any]) -> list[Any]:
        """What a row has in each column: a text, None for none; lists are joined (C3)."""
        found: list[Any] = [None] * len(self.listed)
        if self._where is not None:
            found[self._where] = text
        if metadata:
            for (at, _), value in zip(self._metadata, self._of_metadata(metadata), strict=True):
                found[at] = BREAK.join(value) if isinstance(value, list) else value
        return found

    def elements(self, column: int, text: Any, metadata: Mapping[str, Any]) -> list[Any]:
        """The texts of a row in one column, elements of a list apart."""
        if column == self._where:
            return [] if text is None else [text]
        value = _value(metadata, self.listed[column].name)
        return value if isinstance(value, list) else [] if value is None else [value]

    def elements_of(self, txn: Any, cid: int, rid: int) -> list[list[Any]]:
        """The texts of a live row by column, elements of a list apart."""
        _, (payload,) = rows.read_many(txn.get, cid, [rid])
        text, metadata = text_in(payload), metadata_in(payload) if self._metadata else {}
        return [self.elements(at, text, metadata) for at in range(len(self.listed))]

    def read(self, txn: Any, cid: int, rids: Sequence[int]) -> list[list[Any] | None]:
        """What live rows have, column by column; None for a column that no row has anything in."""
        vectors: list[list[Any] | None] = [sparse.values(txn, cid, each, rids) for each in self.sparse]
        if not self.listed:
            return vectors
        _, payloads = rows.read_many(txn.get, cid, list(rids))
        found: list[list[Any] | None] = [[None] * len(payloads) for _ in self.listed]
        if self._where is not None:
            found[self._where] = [text_in(payload) for payload in payloads]
        if self._metadata:
            for at, payload in enumerate(payloads):
                metadata = metadata_in(payload)
                for column, value in enumerate(self.of_row(None, metadata)):
                    if column != self._where:
                        found[column][at] = value  # type: ignore[index]
        return found + vectors

    def check_all(self, metadata: Iterable[Mapping[str, Any]], row: str = "metadata: row {}") -> None:
        """Refuse a metadata key `text` where that is the row's text."""
        if self._where is None:
            return
        for at, each in enumerate(metadata):
            if TEXT in each:
                raise SchemaError(
                    f"{row.format(at)}: field 'text' is the row's text here, whose words are indexed: give "
                    "it as texts=, or call the field by another name"
                )

    def _of_metadata(self, metadata: Mapping[str, Any]) -> list[Any]:
        return [_value(metadata, name) for _, name in self._metadata]


def _value(metadata: Mapping[str, Any], name: str) -> Any:
    """A str or a list of str; None for anything else."""
    value = metadata.get(name)
    if value is None and "." in name:
        value = next((value for found, value in flat(metadata) if found == name), None)
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [each for each in value if isinstance(each, str)]
        return texts or None
    return None


def text_in(payload: bytes) -> bytes | None:
    """The text in a row's verified payload."""
    _, flags, _, id_size, text_size, _ = _SIZES.unpack_from(payload)
    if not flags & _HAS_TEXT:
        return None
    start = _SIZES.size + id_size
    return payload[start : start + text_size]


def metadata_in(payload: bytes) -> dict[str, Any]:
    """The metadata in a row's verified payload."""
    _, _, _, id_size, text_size, size = _SIZES.unpack_from(payload)
    start = _SIZES.size + id_size + text_size
    return codec.unpack_metadata(payload[start : start + size]) if size else {}


def need_words(schema: Schema, field: str) -> None:
    """Refuse a field whose words are not indexed, naming those that are."""
    if field in schema.fulltext:
        return
    known = ", ".join(map(repr, schema.fulltext))
    has = f"fields with full text: {known}" if known else "it has no full text at all"
    raise FilterError(
        f"matches: field {field!r:.60} of collection {schema.name!r} has no full text; {has}; create the "
        f"collection with fulltext=[{field!r:.60}]"
    )


NOTHING: Final = Columns(())


def columns_of(schema: Schema) -> Columns:
    """The columns of a collection."""
    numbers = [each.number for each in schema.vectors.values() if each.sparse]
    if not schema.fulltext and not numbers:
        return NOTHING
    return _columns(tuple(schema.fulltext.items()), tuple(sorted(numbers)))


def columns_of_texts(fulltext: tuple[tuple[str, TextField], ...]) -> Columns:
    """The columns of fields with full text, which are the first of their collection's."""
    return _columns(fulltext, ())


@lru_cache(maxsize=64)
def _columns(fulltext: tuple[tuple[str, TextField], ...], sparse: tuple[int, ...]) -> Columns:
    return Columns(fulltext, sparse)
