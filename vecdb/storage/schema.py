"""What was a collection declared to be? One catalog record per collection.

A collection has vector fields, each with a name, a number and a graph of its own (unless it holds a
variable number of vectors a row, or sparse ones). The rows' numbers are the slots of every field's graph.

Invariants (checked by vecdb/check/):
  C1  names are unique, and every collection number is below the meta record's next one;
  C2  a number is never used again, neither a collection's nor a vector field's, so that no record
      of a dropped one can be mistaken.

Rejected: a row of its own in the graph for each vector. A filter's rows would have to be mapped to
each field's slots, and every process would keep the map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as members
from functools import lru_cache
from typing import Any, Final, NoReturn

from vecdb import fields
from vecdb.errors import InvalidArgument
from vecdb.storage import codec, keys, records, rows
from vecdb.storage.vectors import DTYPES, SPARSE, Layout

METRICS: Final = ("cosine", "l2", "dot", "hamming")
QUANTIZATIONS: Final = ("auto", "sq8")
MAX_DIM: Final = 65_535
MAX_NAME_BYTES: Final = 255
MAX_VECTORS: Final = 32  # vector fields at one time
MAX_TEXTS: Final = 32  # fields with full text
TEXT: Final = "text"  # the name under which full text, filters and queries know the row's text
MAX_NUMBER: Final = 250  # vector fields ever, dropped ones included
DENSE: Final = "dense"
KINDS: Final = (DENSE, SPARSE)
ONLY: Final = "vector"  # the name of the one vector field of a collection that names none
NEXT: Final = "next"  # vectors that are being made beside a field's
PREVIOUS: Final = "previous"  # those that a field had before, kept for rollback
ROLES: Final = (NEXT, PREVIOUS)
_NOT_DECLARED: Final = ("number", "first", "fingerprint", "seat", "adapters", "dim", "given")


@dataclass(frozen=True, slots=True)
class VectorField:
    """One vector field: its declaration, its number, and the first slot that may have a vector."""

    number: int
    dim: int
    metric: str = "cosine"
    dtype: str = "f32"
    M: int = 16
    ef_construction: int = 200
    encoder: str | None = None
    fingerprint: str | None = None
    source: str | None = None  # the metadata field that the encoder reads; None: the row's text
    multi: bool = False  # a variable number of vectors a row: stored, without a graph
    quantization: str = "auto"
    first: int = 0  # rows below this slot have none: the field was added when they were there
    kind: str = DENSE  # or SPARSE: then dim, dtype, M and so on say nothing
    seat: int | None = None  # the number by which rows say that they have a vector in it; None: its own
    adapters: tuple[str, ...] = ()  # fingerprints of the maps that make its vectors of what is given, in turn
    given: int | None = None  # dimension of what is given to the first of them; None: dim

    @property
    def sparse(self) -> bool:
        """Whether rows have sparse vectors {token: weight} in it."""
        return self.kind == SPARSE

    @property
    def graphed(self) -> bool:
        """Whether it has a graph, and its rows slots: one dense vector a row."""
        return not self.multi and self.kind == DENSE

    @property
    def member(self) -> int:
        """The number by which rows say that they have a vector in it."""
        return self.number if self.seat is None else self.seat

    @property
    def given_dim(self) -> int:
        """Numbers of a vector as users and the encoder give it, before any adapter."""
        return self.dim if self.given is None else self.given

    @property
    def space(self) -> str | None:
        """What its vectors can be compared with: a digest of encoder and adapters; None: only given ones."""
        if not self.adapters:
            return self.fingerprint
        return "+".join((self.fingerprint or "given", *self.adapters))

    def as_given(self) -> VectorField:
        """The declaration that vectors fit as users and the encoder give them, before any adapter."""
        if not self.adapters:
            return self
        return replace(self, dim=self.given_dim, given=None, adapters=())

    def difference(self, other: VectorField) -> str | None:
        """The first respect in which two declarations differ, in words; None when they agree."""
        if self.encoder is not None and other.encoder is not None and self.fingerprint != other.fingerprint:
            return self._other_encoder(other)
        if self.given_dim != other.given_dim:
            return f"dim is {self.given_dim}, not {other.given_dim}"
        same = self.fingerprint is not None and self.fingerprint == other.fingerprint
        for each in members(self):
            if each.name in _NOT_DECLARED:
                continue
            if each.name == "encoder" and same:
                continue  # one encoder under two names, as a model that was moved
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if mine != theirs:
                return f"{each.name} is {mine!r}, not {theirs!r}"
        return None

    def _other_encoder(self, other: VectorField) -> str:
        mine, theirs = self.given_dim, other.given_dim
        dims = "" if mine == theirs else f" ({mine} dimensions, not {theirs})"
        if self.encoder == other.encoder:
            prints = f"{self.fingerprint}, not {other.fingerprint}"
            return f"encoder {self.encoder!r} has fingerprint {prints}{dims}"
        return f"encoder is {self.encoder!r}, not {other.encoder!r}{dims}"


@dataclass(frozen=True, slots=True)
class Hidden:
    """A vector field that stands behind one with a name: it takes its place, or stood there before."""

    role: str
    field: VectorField
    bridge: str | None = None  # fingerprint of the map from its queries to the vectors of the named field

    def is_image_of(self, named: VectorField) -> bool:
        """Whether its vectors are being made of those that the named field has, by an adapter."""
        return self.role == NEXT and len(self.field.adapters) > len(named.adapters)

    def encodes_beside(self, named: VectorField) -> bool:
        """Whether its vectors are made of rows' texts, whatever is given to the named field."""
        return not (self.is_image_of(named) or self.takes_given_of(named))

    def takes_given_of(self, named: VectorField) -> bool:
        """Whether it was the named field's before, and what is given to that can be stored in it too."""
        mine = self.field
        same = mine.fingerprint == named.fingerprint and mine.given_dim == named.given_dim
        return self.role == PREVIOUS and same


@dataclass(frozen=True, slots=True)
class TextField:
    """How a field's texts are made into terms, and by which analysis its postings were."""

    language: str | None = None
    stopwords: bool = False
    fingerprint: str = ""  # of the analysis (text/analysis.py)

    def difference(self, other: TextField) -> str | None:
        """The first respect in which two declarations differ, in words; None when they agree."""
        for name in ("language", "stopwords"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} is {mine!r}, not {theirs!r}"
        return None


@dataclass(frozen=True, slots=True)
class Schema:
    """The declaration of a collection: vector fields, metadata fields and full text, by name.

    `dim`, `metric`, `dtype`, `M`, `ef_construction`, `encoder` and `fingerprint` are those of the
    only vector field; InvalidArgument where there are several.
    """

    name: str
    vectors: Mapping[str, VectorField] = field(default_factory=dict)
    next_number: int = 1
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)  # vecdb/fields.py
    fulltext: Mapping[str, TextField] = field(default_factory=dict, hash=False)  # "text": the row's text
    tracked: tuple[int, ...] = ()  # commits: changes after these are found by commit, on and off in turn
    hidden: Mapping[str, Hidden] = field(default_factory=dict, hash=False)  # by the field in front

    @property
    def only(self) -> VectorField:
        """The only vector field."""
        if len(self.vectors) != 1:
            names = ", ".join(map(repr, self.vectors))
            _refuse(
                f"collection {self.name!r} has the vector fields {names}: say which, as in "
                f"schema.vectors[{next(iter(self.vectors))!r}]"
            )
        return next(iter(self.vectors.values()))

    @property
    def dim(self) -> int:
        """Numbers of a vector, or bits."""
        return self.only.dim

    @property
    def metric(self) -> str:
        """How vectors are compared."""
        return self.only.metric

    @property
    def dtype(self) -> str:
        """What a stored vector is made of."""
        return self.only.dtype

    @property
    def M(self) -> int:
        """Links of a node, as in HNSW."""
        return self.only.M

    @property
    def ef_construction(self) -> int:
        """Width of an insertion's walk, as in HNSW."""
        return self.only.ef_construction

    @property
    def encoder(self) -> str | None:
        """The name of the encoder that makes the vectors."""
        return self.only.encoder

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of that encoder."""
        return self.only.fingerprint

    @property
    def is_plain(self) -> bool:
        """Whether there is, and ever was, the one vector field that `dim=` declares."""
        return self.next_number == 1 and ONLY in self.vectors and self.vectors[ONLY].graphed

    @property
    def by_number(self) -> dict[int, VectorField]:
        """The vector fields by number, hidden ones too."""
        found = {each.number: each for each in self.vectors.values()}
        for hidden in self.hidden.values():
            found[hidden.field.number] = hidden.field
        return found

    def as_given(self) -> Schema:
        """The declaration that vectors fit as they are given, before any adapter."""
        if not any(each.adapters for each in self.vectors.values()):
            return self
        return replace(self, vectors={name: each.as_given() for name, each in self.vectors.items()})

    @property
    def by_member(self) -> dict[int, list[VectorField]]:
        """By the numbers that rows name: the fields, hidden ones too, in which such rows may have vectors."""
        found: dict[int, list[VectorField]] = {}
        for each in self.by_number.values():
            found.setdefault(each.member, []).append(each)
        return found

    def layout(self, declared: VectorField) -> Layout:
        """Where and how the vectors of one of its fields lie."""
        sole = self.next_number == 1
        return _layout(
            declared.number, declared.dim, declared.dtype, declared.first, sole, declared.sparse,
            declared.member, any(each.field is declared for each in self.hidden.values()),
        )  # fmt: skip

    def with_vector(self, name: str, declared: VectorField, first: int) -> Schema:
        """The schema with one more vector field, which rows below slot `first` lack."""
        if name in self.vectors:
            _refuse(f"collection {self.name!r} has a vector field {name!r} already")
        if self.next_number > MAX_NUMBER:
            _refuse(f"collection {self.name!r} had {MAX_NUMBER} vector fields; build a new one")
        added = replace(declared, number=self.next_number, first=first)
        return validate(
            replace(self, vectors={**self.vectors, name: added}, next_number=added.number + 1)
        )

    def without_vector(self, name: str) -> Schema:
        """The schema without one of its vector fields."""
        rest = {n: v for n, v in self.vectors.items() if n != name}
        hidden = {n: h for n, h in self.hidden.items() if n != name}
        return validate(replace(self, vectors=rest, hidden=hidden))

    # --- vectors that take the place of others (collection/migrating.py) --------------------------

    def with_hidden(self, name: str, role: str, declared: VectorField, bridge: str | None = None) -> Schema:
        """The schema with a new field behind a named one; it gets the next number and the same rows."""
        old = self.vectors[name]
        if self.next_number > MAX_NUMBER:
            _refuse(f"collection {self.name!r} had {MAX_NUMBER} vector fields; build a new one")
        made = replace(declared, number=self.next_number, first=old.first, seat=old.member)
        hidden = {**self.hidden, name: Hidden(role, made, bridge)}
        return validate(replace(self, hidden=hidden, next_number=made.number + 1))

    def swapped(self, name: str) -> Schema:
        """The schema in which a field and the one behind it have changed places."""
        hidden, old = self.hidden[name], self.vectors[name]
        after = {**self.hidden, name: Hidden(PREVIOUS, old)}
        return validate(replace(self, vectors={**self.vectors, name: hidden.field}, hidden=after))

    def without_hidden(self, name: str) -> Schema:
        """The schema without the field behind a named one."""
        hidden = {n: h for n, h in self.hidden.items() if n != name}
        return validate(replace(self, hidden=hidden))

    def difference(self, other: Schema) -> str | None:
        """The first respect in which two declarations differ, in words; None when they agree."""
        if set(self.vectors) != set(other.vectors):
            mine, theirs = sorted(self.vectors), sorted(other.vectors)
            return f"vector fields are {', '.join(mine)}, not {', '.join(theirs)}"
        for name, declared in self.vectors.items():
            found = declared.difference(other.vectors[name])
            if found is not None:
                return found if name == ONLY else f"vector field {name!r}: {found}"
        return fields.difference(self.fields, other.fields) or self._other_texts(other)

    def _other_texts(self, other: Schema) -> str | None:
        for name in {**self.fulltext, **other.fulltext}:
            mine, theirs = self.fulltext.get(name), other.fulltext.get(name)
            if mine is None or theirs is None:
                has, wants = ("undeclared" if each is None else "declared" for each in (mine, theirs))
                return f"fulltext[{name!r}] is {has}, not {wants}"
            found = mine.difference(theirs)
            if found is not None:
                return f"fulltext[{name!r}]: {found}"
        return None


# --- what may be declared --------------------------------------------------------------------


@lru_cache(maxsize=256)  # what a layout works out is the same in every commit
def _layout(*declared: Any) -> Layout:
    return Layout(*declared)


def validate(schema: Schema) -> Schema:
    """The same schema; InvalidArgument naming the first argument that cannot be."""
    check_name("name", schema.name)
    if not schema.vectors:
        _refuse(f"collection {schema.name!r} would have no vector field; it needs one at least")
    if len(schema.vectors) > MAX_VECTORS:
        _refuse(f"vectors: {len(schema.vectors)} fields; the limit is {MAX_VECTORS}")
    for name, declared in schema.vectors.items():
        check_name("vectors: a field's name", name)
        try:
            _validate_vector(declared)
        except InvalidArgument as error:
            if name == ONLY:
                raise
            _refuse(f"vector field {name!r}: {error}")
    for name, behind in schema.hidden.items():
        if name not in schema.vectors:
            _refuse(f"hidden vectors stand behind {name!r:.60}, which is no vector field")
        _one_of("role", behind.role, ROLES)
        _validate_vector(behind.field)
    fields.validated(schema.fields)
    _validate_texts(schema.fulltext)
    return schema


def _validate_texts(fulltext: Any) -> None:
    if not isinstance(fulltext, Mapping):
        _refuse(f"fulltext is a {type(fulltext).__name__}, not a dict")
    if len(fulltext) > MAX_TEXTS:
        _refuse(f"fulltext: {len(fulltext)} fields; the limit is {MAX_TEXTS}")
    for name, each in fulltext.items():
        check_name("fulltext: a field's name", name)
        if name.startswith("\0"):
            _refuse(f"fulltext: field {name!r:.60} begins with a NUL, as no metadata field may")
        if each.language is not None and not isinstance(each.language, str):
            _refuse(f"fulltext[{name!r:.60}]: language={each.language!r:.60}: give a name, or None")
        if type(each.stopwords) is not bool:
            _refuse(f"fulltext[{name!r:.60}]: stopwords={each.stopwords!r:.60}: give True or False")
        if not isinstance(each.fingerprint, str):
            _refuse(f"fulltext[{name!r:.60}]: its analysis is no text")


def _validate_vector(declared: VectorField) -> None:
    _one_of("kind", declared.kind, KINDS)
    if declared.sparse:
        if replace(declared, number=0, first=0) != VectorField(0, 0, "dot", kind=SPARSE):
            _refuse("a field of sparse vectors has metric 'dot', and no dimension, dtype or encoder")
        return
    _between("dim", declared.dim, 1, MAX_DIM)
    _one_of("metric", declared.metric, METRICS)
    _one_of("dtype", declared.dtype, tuple(DTYPES))
    if (declared.dtype == "b1") != (declared.metric == "hamming"):
        _refuse(
            f"metric={declared.metric!r} with dtype={declared.dtype!r}: 'hamming' is for 'b1' "
            "vectors, and for them alone"
        )
    _one_of("quantization", declared.quantization, QUANTIZATIONS)
    if declared.dtype == "b1" and declared.quantization != "auto":
        _refuse(f"quantization={declared.quantization!r}: 'b1' vectors are walked on as they are")
    _between("M", declared.M, 4, 64)
    _between("ef_construction", declared.ef_construction, 8, 2000)
    if type(declared.multi) is not bool:
        _refuse(f"multi={declared.multi!r:.60}: give True or False")
    if declared.multi and declared.encoder is not None:
        _refuse("multi=True with encoder=: an encoder makes one vector a text")
    if declared.encoder is not None and declared.dtype not in ("f32", "f16"):
        _refuse(f"dtype={declared.dtype!r} with encoder=: what encoders make is kept as f32 or f16")
    if not all(isinstance(each, str) for each in declared.adapters):
        _refuse("adapters are named by their fingerprints")
    if declared.given is not None:
        _between("given", declared.given, 1, MAX_DIM)
    if declared.source is not None:
        check_name("source", declared.source)
        if declared.encoder is None:
            _refuse(f"source={declared.source!r} without encoder=: there is nothing to encode it")


def check_name(what: str, name: object) -> None:
    """Refuse what is no name of a collection or a vector field."""
    if not isinstance(name, str) or not name:
        _refuse(f"{what}={name!r:.60}: give a non-empty str")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        _refuse(f"{what}={name!r:.60} is not valid Unicode text")
    if size > MAX_NAME_BYTES:
        _refuse(f"{what} has {size} UTF-8 bytes; the limit is {MAX_NAME_BYTES}")


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        _refuse(f"{name}={value!r:.60}: choose one of {', '.join(allowed)}")


def _between(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _refuse(f"{name}={value!r:.60}: give an int from {low} to {high}")


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)


# --- the record ------------------------------------------------------------------------------


def put(txn: Any, cid: int, schema: Schema) -> None:
    """Write a collection's catalog record."""
    key = keys.catalog(cid)
    vectors = {name: _packed(declared) for name, declared in schema.vectors.items()}
    packed: dict[str, Any] = {
        "name": schema.name, "vectors": vectors, "next_number": schema.next_number,
        "fields": dict(schema.fields),
    }  # fmt: skip
    if schema.tracked:
        packed["tracked"] = list(schema.tracked)
    if schema.hidden:
        packed["hidden"] = {
            name: [each.role, _packed(each.field), each.bridge] for name, each in schema.hidden.items()
        }
    if schema.fulltext:
        packed["fulltext"] = {name: asdict(declared) for name, declared in schema.fulltext.items()}
    records.put(txn, key, codec.pack(packed))


def _packed(declared: VectorField) -> dict[str, Any]:
    """A vector field's declaration; what is as usual and came with later versions is left out."""
    found = asdict(declared)
    for name, usual in (("kind", DENSE), ("seat", None), ("adapters", ()), ("given", None)):
        if found[name] == usual:
            del found[name]
    return found


def _unpacked(found: dict[str, Any]) -> VectorField:
    found["adapters"] = tuple(found.get("adapters", ()))
    return VectorField(**found)


def read_all(txn: Any) -> dict[str, tuple[int, Schema]]:
    """The whole catalog: name -> (cid, schema)."""
    found: dict[str, tuple[int, Schema]] = {}
    prefix = bytes((keys.CATALOG,))
    cursor = txn.cursor()
    more = cursor.set_range(prefix)
    while more:
        key = bytes(cursor.key())
        if not key.startswith(prefix):
            break
        schema = unpack(key, cursor.value())
        found[schema.name] = (int.from_bytes(key[1:5], "big"), schema)
        more = cursor.next()
    return found


def read(txn: Any, cid: int) -> Schema:
    """One collection's schema as of a transaction."""
    key = keys.catalog(cid)
    record = txn.get(key)
    if record is None:
        raise rows.damaged("C1", key, "the collection's declaration is missing")
    return unpack(key, record)


def unpack(key: bytes, record: Any) -> Schema:
    """The schema in a catalog record, or `Corrupt` naming its key."""
    declared = rows.unpack_record(keys.CATALOG, key, record, code="C1")
    try:
        if "vectors" not in declared:  # format 1: one vector field, its declaration not nested
            name = declared.pop("name")
            return validate(Schema(name, {ONLY: VectorField(number=0, **declared)}))
        vectors = {name: _unpacked(each) for name, each in declared.pop("vectors").items()}
        hidden = {
            name: Hidden(role, _unpacked(each), bridge)
            for name, (role, each, bridge) in declared.pop("hidden", {}).items()
        }
        tracked = tuple(declared.pop("tracked", ()))
        texts = {name: TextField(**each) for name, each in declared.pop("fulltext", {}).items()}
        schema = validate(
            Schema(vectors=vectors, tracked=tracked, fulltext=texts, hidden=hidden, **declared)
        )
        _check_numbers(schema)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise rows.damaged("C1", key, str(error)) from None
    return schema


def _check_numbers(schema: Schema) -> None:
    _between("next_number", schema.next_number, 1, MAX_NUMBER + 1)
    for each in schema.by_number.values():
        _between("number", each.number, 0, schema.next_number - 1)
        _between("first", each.first, 0, rows.PLAIN)
        _between("seat", each.member, 0, each.number)
    if len(schema.by_number) != len(schema.vectors) + len(schema.hidden):
        _refuse("two vector fields have one number")
    for before, turn in zip((-1, *schema.tracked), schema.tracked, strict=False):
        _between("tracked", turn, before + 1, (1 << 63) - 1)
