"""How is what is sound in a damaged file saved into a new one?

    report = vecdb.repair("damaged.vecdb", "saved.vecdb")
    print(report)

The rows are the truth: a row's record carries its id, text and metadata, and its vector lies there
or in its block. So every sound row of the last commit is written to a new database, whose graph and
metadata indexes are built anew; ids, catalog and state of the damaged file serve to say what is
missing. The source is read by storage/salvage.py, byte by byte and without LMDB.

Invariants (checked by tests/faults/test_repair.py):
  1. the source is only read, and no damage to it can end the process;
  2. every row whose record can be reached is saved; one whose vector is lost is saved without it;
  3. whatever is lost is named: by its id where the id map still has it, else by how many they are;
  4. the target exists complete or not at all.

What is not a loss: indexes, the graph, measured effort and cached embeddings, which are made anew.

Rejected: saving earlier versions of lost rows (they were replaced or deleted; a value that nobody
can vouch for is worse than a loss that is named).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb import _core
from vecdb.arrays import check_rows
from vecdb.database import Database, open
from vecdb.errors import AlreadyExists, Busy, InvalidArgument, VecdbError
from vecdb.storage import codec, embeddings, header, keys, meta, place, rows, state, vectors
from vecdb.storage.rows import PLAIN, NewRow, Row
from vecdb.storage.salvage import Salvaged, salvage
from vecdb.storage.schema import Schema, validate
from vecdb.types import Id

if TYPE_CHECKING:
    import numpy.typing as npt

SHOWN: Final = 20  # losses that str(report) lists; all of them are in `lost`
ROWS_AT_ONCE: Final = 4096  # written in one transaction


@dataclass(frozen=True, slots=True)
class Lost:
    """One thing that could not be saved.

    `kind`: "row", "rows" (several, whose ids are not known), "vector" (its row is saved),
    "declaration" (of a collection), "pages" (that could not be used) or "commits" (the last ones).
    `place` names it, `reason` says what is wrong; `id` where one is known, `count` how many it is.
    """

    kind: str
    place: str
    reason: str
    id: Id | None = None
    count: int = 1

    def __str__(self) -> str:
        return f"{self.kind} {self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Saved:
    """How much of a collection was saved."""

    rows: int
    vectors: int


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
        for name, saved in sorted(self.collections.items()):
            lines.append(f"  {name!r}: {saved.rows:,} rows, {saved.vectors:,} of them with a vector")
        counts = Counter[str]()
        for one in self.lost:
            counts[one.kind] += one.count
        total = ", ".join(f"{kind} {count:,}" for kind, count in sorted(counts.items()))
        lines.append(f"lost: {total}" if total else "nothing was lost")
        lines += [f"  {one}" for one in self.lost[:SHOWN]]
        if len(self.lost) > SHOWN:
            lines.append(f"  and {len(self.lost) - SHOWN:,} more, in report.lost")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def repair(src: str | os.PathLike[str], dst: str | os.PathLike[str]) -> Report:
    """Save all that is sound in the file `src` into the new database `dst`, and say what is lost.

    `src` is only read, whatever its damage; nobody may write to it meanwhile. Costs a pass over it
    in Python (some 70,000 records a second), building the graph anew, and twice the room of `dst`.
    Raises NotFound, AlreadyExists, WrongFormat where `src` is no vecdb file or of a newer format,
    Busy when it is being written, Full.

    >>> import vecdb
    >>> with vecdb.open("books.vecdb") as db:
    ...     _ = db.create_collection("books", dim=2).add(["a", "b"], [[1, 0], [0, 1]])
    >>> report = vecdb.repair("books.vecdb", "saved.vecdb")
    >>> report.ok, report.collections["books"]
    (True, Saved(rows=2, vectors=2))
    """
    source, target = _path("src", src), _path("dst", dst)
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise place.failed(f"{source} cannot be read", error) from None
    try:
        if not os.path.isfile(source):
            raise InvalidArgument(f"src: {source} is no regular file; a database is one")
        where, _ = place.find(target, "x")
        report = Report(source, target)
        found = salvage(fd)
        before = header.read_headers(fd, found.page_size)
        _refuse_foreign(found, source)
        _build(found, report, where.data)
        if header.read_headers(fd, found.page_size) != before:
            with suppress(OSError):
                os.unlink(where.data)
            raise Busy(f"{source} was written while it was read; close it everywhere and try again")
        return report
    finally:
        os.close(fd)


def _path(name: str, given: object) -> str:
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise InvalidArgument(f"{name} is the path of a file, not {given!r:.60}")
    path = os.fspath(given)
    if not isinstance(path, str) or "\0" in path:
        raise InvalidArgument(f"{name} is a path as text without NUL, not {path!r:.60}")
    return path


def _refuse_foreign(found: Salvaged, source: str) -> None:
    record = found.get(keys.META_KEY)
    if record is not None:
        meta.decode(record, source)  # WrongFormat for a newer one
    elif not found.places and not found.bad:
        meta.refuse_foreign(source, "holds no sound record of a vecdb database")


# --- the new file ----------------------------------------------------------------------------------


def _build(found: Salvaged, report: Report, data: str) -> None:
    """Write a database beside the target and give it the target's name when it is complete."""
    part = f"{data}.repair-{os.getpid()}"
    files = (part, f"{part}-lock", f"{part}-writer")
    for path in files:
        with suppress(OSError):
            os.unlink(path)
    try:
        with open(part, durability="none", upkeep=False) as db:
            _fill(found, report, db)
            db.backup(data)
    except AlreadyExists:
        raise AlreadyExists(f"{data} exists; choose another name for what is saved") from None
    finally:
        for path in files:
            with suppress(OSError):
                os.unlink(path)


def _fill(found: Salvaged, report: Report, db: Database) -> None:
    if found.behind:
        report.lost.append(
            Lost("commits", "the last ones", f"{found.behind} commits came after the one that could "
                 "be reached; what they changed is lost", count=found.behind)
        )  # fmt: skip
    if found.beheaded and found.holes and not found.behind:
        report.lost.append(
            Lost("commits", "the last one", "one of the file's two heads is broken, and other pages "
                 "too: the last commit may be lost with it")
        )  # fmt: skip
    elif found.beheaded and not found.behind:
        report.notes.append("one of the file's two heads is broken; the other one's tree is whole, "
                            "and no later commit was found")  # fmt: skip
    if found.unused:
        report.lost.append(
            Lost("pages", "the file", f"{found.unused} pages of records cannot be told from earlier "
                 "versions, as the list of free pages is damaged too; they were not used",
                 count=found.unused)
        )  # fmt: skip
    if found.uncertain:
        report.lost.append(
            Lost("commits", "uncertain", "most of the last commit's tree is lost: rows were taken from "
                 "wherever they lay, and some may be deleted ones or earlier versions")
        )  # fmt: skip
    if found.holes:
        report.notes.append(f"{found.holes} pages of the tree are broken")
    declared = dict(_declarations(found, report))
    for cid, schema in declared.items():
        _Rescue(found, report, db, cid, schema).run()
    _embeddings(found, report, db)


def _embeddings(found: Salvaged, report: Report, db: Database) -> None:
    known = found.keys_of(keys.EMBEDDINGS)
    for first in range(0, len(known), ROWS_AT_ONCE):
        made = {}
        for key in known[first : first + ROWS_AT_ONCE]:
            with suppress(ValueError):
                made[key] = embeddings.vector_in(key, found.get(key)).tobytes()
        with db._batch() as batch:
            batch.keep(made)
    damaged = sum(key[0] == keys.EMBEDDINGS for key in found.bad)
    if damaged:
        report.notes.append(f"{damaged} cached embeddings are damaged; they are made anew when needed")


# --- collections -----------------------------------------------------------------------------------


def _declarations(found: Salvaged, report: Report) -> Iterator[tuple[int, Schema]]:
    """Every collection that records speak of, with its declaration or one that fits the records."""
    names: set[str] = set()
    cids = {int.from_bytes(key[1:5], "big") for kind in (keys.CATALOG, keys.ROWS, keys.IDS)
            for key in found.keys_of(kind)}  # fmt: skip
    cids |= {int.from_bytes(key[1:5], "big") for key in found.bad if key[0] == keys.CATALOG}
    for cid in sorted(cids):
        schema, reason = _declaration(found, cid)
        if schema is None:
            schema = _stand_in(found, cid)
            known = "dim and dtype are those of its blocks" if _block_of(found, cid) else "no vectors"
            report.lost.append(
                Lost("declaration", schema.name, f"{reason}; it is saved under this name with {known}, "
                     f"metric={schema.metric!r}, without its encoder")
            )  # fmt: skip
        while schema.name in names:
            schema = replace(schema, name=f"{schema.name} (another)")
        names.add(schema.name)
        yield cid, schema


def _declaration(found: Salvaged, cid: int) -> tuple[Schema | None, str]:
    key = keys.catalog(cid)
    record = found.get(key)
    if record is None:
        return None, f"the declaration of collection number {cid} is lost"
    try:
        return validate(Schema(**rows.unpack_record(keys.CATALOG, key, record, code="C1"))), ""
    except (TypeError, VecdbError) as error:
        return None, f"the declaration of collection number {cid} is damaged ({error})"


def _stand_in(found: Salvaged, cid: int) -> Schema:
    """A declaration that fits what is there: a sound block says dim and dtype."""
    dim, dtype = _block_of(found, cid) or (1, "f32")
    return Schema(f"recovered-{cid}", dim, metric="l2", dtype=dtype)


def _block_of(found: Salvaged, cid: int) -> tuple[int, str] | None:
    for key in found.keys_of(keys.VECTORS, cid):
        payload = rows.open_record(keys.VECTORS, key, found.get(key))
        if len(payload) < vectors.SUBHEADER.size:
            continue
        _, _, dim, code = vectors.SUBHEADER.unpack_from(payload)[:4]
        for dtype, number in vectors._DTYPE_CODES.items():
            if number == code and 1 <= dim <= 65_535:
                return dim, dtype
    return None


# --- rows ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Good:
    """A row that can be saved."""

    id: Id
    rid: int
    row: Row
    metadata: dict[str, Any]
    vector: npt.NDArray[Any] | None


class _Rescue:
    """One collection: its sound rows into the new database, and the others named."""

    def __init__(
        self, found: Salvaged, report: Report, db: Database, cid: int, schema: Schema
    ) -> None:
        self.found = found
        self.report = report
        self.db = db
        self.cid = cid
        self.schema = schema
        self.block_rows = vectors.block_rows(schema.dim, schema.dtype)
        self.saved: set[Id] = set()
        self.named: set[Id] = set()
        self.vectors = 0
        self.reasons: dict[int, str] = {}  # rid -> what is wrong with its record
        self._block: tuple[int, memoryview | str] = (-1, "")

    def run(self) -> None:
        """Save what can be saved."""
        collection = self.db._create(self.schema, None)
        waiting: list[_Good] = []
        for good in self._sound_rows():
            waiting.append(good)
            if len(waiting) >= ROWS_AT_ONCE:
                self._write(collection._cid, waiting)
                waiting = []
        self._write(collection._cid, waiting)
        self._name_lost_rows()
        self.report.collections[self.schema.name] = Saved(len(self.saved), self.vectors)

    # --- what is there -------------------------------------------------------------------------

    def _sound_rows(self) -> Iterator[_Good]:
        """Live rows in the order of their numbers; of two with one id the later, if any are."""
        newest: dict[Id, tuple[int, int]] = {}
        for key in self.found.keys_of(keys.ROWS, self.cid) if self.found.uncertain else ():
            row = self._decoded(key)
            if row is not None and not row.dead:
                rid = int.from_bytes(key[5:], "big")
                id = rows.id_from(row.idkey)
                newest[id] = max(newest.get(id, (-1, -1)), (row.changed, rid))
        for key in self.found.keys_of(keys.ROWS, self.cid):
            rid, row = int.from_bytes(key[5:], "big"), self._decoded(key)
            if row is None or row.dead:
                continue
            id = rows.id_from(row.idkey)
            if id in self.saved or (newest and newest[id][1] != rid):
                continue
            try:
                metadata = codec.unpack_metadata(row.metadata) if row.metadata else {}
                (row.text or b"").decode()
                keys.row_id(self.cid, id)
            except (UnicodeDecodeError, VecdbError) as error:
                self._lose(id, rid, f"its record cannot be read ({_said(error)})")
                continue
            self.saved.add(id)
            yield _Good(id, rid, row, metadata, self._vector(id, rid, row))

    def _decoded(self, key: bytes) -> Row | None:
        record = self.found.get(key)
        assert record is not None
        try:
            return rows.decode(_core.unseal(keys.ROWS, key, record))
        except ValueError as error:
            self.reasons[int.from_bytes(key[5:], "big")] = f"its record is damaged ({error})"
            return None

    def _vector(self, id: Id, rid: int, row: Row) -> npt.NDArray[Any] | None:
        """The row's stored vector; None where it has none, or where it is lost, which is named."""
        if not row.has_vector:
            return None
        vector, reason = self._stored(rid, row)
        if vector is not None:
            try:
                check_rows("vector", vector[None], self.schema.metric)
                return vector
            except InvalidArgument as error:
                reason = str(error)
        self._lose_vector(id, reason)
        return None

    def _stored(self, rid: int, row: Row) -> tuple[npt.NDArray[Any] | None, str]:
        dtype = vectors.DTYPES[self.schema.dtype]
        size = vectors.stride(self.schema.dim, self.schema.dtype)
        if row.inline is not None:
            if len(row.inline) != size:
                return None, f"it has {len(row.inline)} bytes; its collection's have {size}"
            return np.frombuffer(row.inline, dtype), ""
        if rid >= PLAIN:
            return None, "its row has no slot"
        block = self._block_at(rid // self.block_rows)
        if isinstance(block, str):
            return None, block
        start = vectors.DATA_OFFSET + rid % self.block_rows * size
        return np.frombuffer(block[start : start + size], dtype), ""

    def _block_at(self, number: int) -> memoryview | str:
        """A sound block, or what is wrong with it; the last one is kept."""
        if self._block[0] != number:
            schema, key = self.schema, keys.vector_block(self.cid, 0, number)
            got: memoryview | str
            try:
                known = vectors.get_block(
                    self.found, self.cid, number, self.block_rows, schema.dim, schema.dtype
                )
                missing = self.found.bad.get(key, "it is missing")
                got = f"block {number} of vectors: {missing}" if known is None else memoryview(known)
            except VecdbError as error:
                got = f"block {number} of vectors: {_said(error)}"
            self._block = (number, got)
        return self._block[1]

    # --- what is written ---------------------------------------------------------------------

    def _write(self, cid: int, good: list[_Good]) -> None:
        """Insert rows into the new collection, those with vectors first."""
        ranked = [each for each in good if each.vector is not None]
        plain = [each for each in good if each.vector is None]
        with self.db._writing(cid) as writing:
            for group in (ranked, plain):
                new, arrays = [], []
                for each in group:
                    try:
                        indexed = writing.state_of(each.metadata)
                    except VecdbError as error:
                        self.saved.discard(each.id)
                        self._lose(each.id, each.rid, f"its metadata cannot be stored ({error})")
                        continue
                    key = keys.row_id(cid, each.id)
                    new.append(NewRow(key, each.row.text, each.row.metadata, indexed))
                    if each.vector is not None:
                        arrays.append(each.vector)
                if new:
                    writing.insert(new, np.array(arrays) if arrays else None)
                    self.vectors += len(arrays)

    # --- what is lost --------------------------------------------------------------------------

    def _name_lost_rows(self) -> None:
        """Ids that lead to no sound row; then, as far as counts tell, rows without a known id."""
        for key in self.found.bad_keys(keys.ROWS, self.cid):
            rid = int.from_bytes(key[5:], "big")
            self.reasons.setdefault(rid, f"its record is damaged ({self.found.bad[key]})")
        for key in self.found.keys_of(keys.IDS, self.cid):
            id = keys.decode_id(key)
            if id not in self.saved and id not in self.named:
                rid = self._led_to(key)
                self._lose(id, rid, self.reasons.get(rid, "its record is missing"))
        missing = self._missing()
        if missing == 0:
            return
        for key in self.found.bad_keys(keys.IDS, self.cid):
            id = keys.decode_id(key)
            if missing != 0 and id not in self.saved and id not in self.named:
                self._lose(id, -1, f"its record and its id's entry are damaged ({self.found.bad[key]})")
                missing -= 1
        self._count_unnamed(missing)

    def _count_unnamed(self, missing: int) -> None:
        name, unled = self.schema.name, sorted(self.reasons)
        damaged = f"; damaged records: rows {', '.join(map(str, unled[:10]))}" if unled else ""
        if missing > 0:
            reason = f"{missing} rows are lost whose ids are not known{damaged}"
            self.report.lost.append(Lost("rows", name, reason, count=missing))
        elif missing < 0 and (unled or self.found.holes or self.found.uncertain):
            reason = f"how many rows it had is not known, and some of the file is lost{damaged}"
            self.report.lost.append(Lost("rows", name, reason, count=max(1, len(unled))))

    def _missing(self) -> int:
        """How many rows are neither saved nor named; negative where nothing tells."""
        try:
            live = state.read(self.found, self.cid).live
        except VecdbError:
            return -(1 << 62)
        return max(0, live - len(self.saved) - len(self.named))

    def _led_to(self, key: bytes) -> int:
        payload = rows.open_record(keys.IDS, key, self.found.get(key))
        return int.from_bytes(payload, "little") if len(payload) == 4 else -1

    def _lose(self, id: Id, rid: int, reason: str) -> None:
        self.named.add(id)
        self.reasons.pop(rid, None)
        number = f"row {rid}: " if rid >= 0 else ""
        self.report.lost.append(Lost("row", f"{self.schema.name}/id {id!r}", number + reason, id))

    def _lose_vector(self, id: Id, reason: str) -> None:
        self.report.lost.append(Lost("vector", f"{self.schema.name}/id {id!r}", reason, id))


def _said(error: BaseException) -> str:
    return getattr(error, "detail", "") or str(error)
