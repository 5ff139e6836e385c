"""What of one collection can be saved, and what of it is lost?

Its sound rows go into a collection of the new file, in the order of their numbers, each with those of
its vectors that are sound. Then what is missing is named: by the ids that lead to no sound row, and by
the count that the collection's state keeps.

Invariants (checked by tests/faults/test_repair.py and test_repair_fields.py):
  Z1  a row is saved once: of two with one id, which only an uncertain file has, the later;
  Z2  vectors of fields that were dropped are no loss; any other that a row says it has is saved or
      named, with its field;
  Z3  what is held in memory at once is bounded in rows and in bytes.

Rejected: leaving out rows whose metadata contradicts a declaration (no damage does that, and the row
is as it was written: a note says so, and `check` of the new file does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.database import Database
from vecdb.errors import SchemaError, VecdbError
from vecdb.fields import declared as declared_fields
from vecdb.repair.declarations import Declared, renewed
from vecdb.repair.report import Lost, Report, Saved
from vecdb.repair.stored import StoredVectors, VectorLost, said
from vecdb.storage import codec, keys, maps, rows, state
from vecdb.storage.rows import NewRow, Row
from vecdb.storage.salvage import Salvaged
from vecdb.storage.schema import NEXT, PREVIOUS, VectorField
from vecdb.storage.vectors import Given
from vecdb.types import Id

if TYPE_CHECKING:
    import numpy.typing as npt

ROWS_AT_ONCE: Final = 4096  # written in one transaction, or
BYTES_AT_ONCE: Final = 64 << 20  # so many of them as have so many bytes


@dataclass(slots=True)
class _Good:
    """A row that can be saved, with its vectors by the old numbers of their fields."""

    id: Id
    rid: int
    row: Row
    metadata: dict[str, Any]
    vectors: dict[int, npt.NDArray[Any]]

    @property
    def bytes(self) -> int:
        sizes = sum(each.nbytes for each in self.vectors.values())
        return sizes + len(self.row.text or b"") + len(self.row.metadata)


class Rescue:
    """One collection: its sound rows into the new database, and the others named."""

    def __init__(self, found: Salvaged, report: Report, db: Database, declared: Declared) -> None:
        self.found = found
        self.report = report
        self.db = db
        self.cid = declared.cid
        self.schema = declared.schema
        self.known = declared.known
        self.held = self._held_rows()
        self.members: dict[int, list[VectorField]] = {}
        self.kept_numbers: frozenset[int] = frozenset()
        self.names = {each.number: name for name, each in self.schema.vectors.items()}
        self.stored = StoredVectors(found, self.cid, self.schema)
        self.metadata = declared_fields(self.schema.fields)
        self.saved: set[Id] = set()
        self.named: set[Id] = set()
        self.vectors = Counter[int]()  # saved ones by field
        self.contradicting: list[Id] = []
        self.reasons: dict[int, str] = {}  # rid -> what is wrong with its record

    def run(self) -> int:
        """Save what can be saved, and return the new collection's number."""
        kept = self._maps()
        self.members = self.schema.by_member
        fresh = renewed(self.schema, {name for name in self.schema.hidden if self._keeps(name)})
        cid = self.db._create(fresh, {}, kept)._cid
        fields = {self.schema.vectors[name].number: each for name, each in fresh.vectors.items()}
        fields |= {self.schema.hidden[name].field.number: h.field for name, h in fresh.hidden.items()}
        self.kept_numbers = frozenset(fields)
        waiting: list[_Good] = []
        size = 0
        for good in self._sound_rows():
            waiting.append(good)
            size += good.bytes
            if len(waiting) >= ROWS_AT_ONCE or size >= BYTES_AT_ONCE:
                self._write(cid, fields, waiting)
                waiting, size = [], 0
        self._write(cid, fields, waiting)
        self._name_lost_rows()
        self._note_contradictions()
        by_field = {name: self.vectors[each.number] for name, each in self.schema.vectors.items()}
        total = sum(by_field.values())
        self.report.collections[self.schema.name] = Saved(len(self.saved), total, by_field)
        return cid

    # --- what is there -------------------------------------------------------------------------

    def _sound_rows(self) -> Iterator[_Good]:
        """Live rows in the order of their numbers; of two with one id the later, if any are."""
        newest = self._newest() if self.found.uncertain else None
        for key in self.found.keys_of(keys.ROWS, self.cid):
            rid, row = int.from_bytes(key[5:], "big"), self._decoded(key)
            if row is None or row.dead:
                continue
            id = rows.id_from(row.idkey)
            if id in self.saved or (newest is not None and newest[id][1] != rid):
                continue
            try:
                metadata = _cleaned(row.metadata)
                (row.text or b"").decode()
                keys.row_id(self.cid, id)
            except (UnicodeDecodeError, VecdbError) as error:
                self._lose(id, rid, f"its record cannot be read ({said(error)})")
                continue
            self.saved.add(id)
            self._check_declared(id, metadata)
            yield _Good(id, rid, row, metadata, self._vectors(id, rid, row))

    def _newest(self) -> dict[Id, tuple[int, int]]:
        """For every id the commit and the number of its latest row."""
        newest: dict[Id, tuple[int, int]] = {}
        for key in self.found.keys_of(keys.ROWS, self.cid):
            row = self._decoded(key)
            if row is not None and not row.dead:
                rid, id = int.from_bytes(key[5:], "big"), rows.id_from(row.idkey)
                newest[id] = max(newest.get(id, (-1, -1)), (row.changed, rid))
        return newest

    def _decoded(self, key: bytes) -> Row | None:
        try:
            return rows.decode(_core.unseal(keys.ROWS, key, self.found.get(key) or b""))
        except ValueError as error:
            self.reasons[int.from_bytes(key[5:], "big")] = f"its record is damaged ({error})"
            return None

    def _vectors(self, id: Id, rid: int, row: Row) -> dict[int, npt.NDArray[Any]]:
        """A row's sound vectors by field; those that are lost are named (Z2)."""
        found = {}
        for number in dict.fromkeys(row.fields):
            declared = [each for each in self.members.get(number, ()) if each.number in self.kept_numbers]
            if not declared and (not self.known or number >= self.schema.next_number):
                self._lose_vector(id, number, "nothing tells what its field was declared to be")
            for each in declared:
                if not self._held(each, rid):
                    continue
                try:
                    found[each.number] = self.stored.read(each, rid, row)
                except VectorLost as error:
                    self._lose_vector(id, each.number, str(error))
        for name, hidden in self.schema.hidden.items():  # none stands behind one that is lost
            if self.schema.vectors[name].number not in found:
                found.pop(hidden.field.number, None)
        return found

    # --- vectors behind others, and adapters (schema.Hidden, storage/maps.py) ---------------------

    def _held(self, declared: VectorField, rid: int) -> bool:
        """Whether a row that says so has a vector in a field."""
        if declared.number not in self.held:
            return True
        held = self.held[declared.number]
        return held is not None and rid in held

    def _keeps(self, name: str) -> bool:
        """Whether the vectors behind a field can be saved; a note says why not."""
        hidden = self.schema.hidden[name]
        if hidden.role == PREVIOUS and self.held[hidden.field.number] is not None:
            return True
        what = "are made anew by calling again" if hidden.role == NEXT else "are lost, and rollback with them"
        role = "new" if hidden.role == NEXT else "previous"
        self.report.notes.append(
            f"the {role} vectors behind field {name!r} of {self.schema.name!r} are not saved: they {what}"
        )
        return False

    def _held_rows(self) -> dict[int, BitMap | None]:
        """Which rows have a vector in each hidden field, by the state; None where that is lost."""
        numbers = [each.field.number for each in self.schema.hidden.values()]
        try:
            now = state.read(self.found, self.cid)
        except VecdbError:
            return dict.fromkeys(numbers)
        found: dict[int, BitMap | None] = {}
        for number in numbers:
            raw = now.vectors[number].held if number in now.vectors else None
            found[number] = None if raw is None else BitMap.deserialize(raw)
        return found

    def _maps(self) -> dict[str, bytes]:
        """The adapters that can be saved; a field that lost one is saved without, its vectors as they are."""
        kept: dict[str, bytes] = {}
        vectors_ = dict(self.schema.vectors)
        for name, declared in self.schema.vectors.items():
            try:
                kept |= {each: maps.get(self.found, self.cid, each) for each in declared.adapters}
            except VecdbError as error:
                vectors_[name] = replace(declared, adapters=(), given=None, encoder=None, fingerprint=None,
                                         source=None)  # fmt: skip
                self.report.lost.append(
                    Lost("adapter", f"{self.schema.name}/vector field {name!r}",
                         f"{said(error)}; its vectors are saved as they are, without adapter and encoder")
                )  # fmt: skip
        for hidden in self.schema.hidden.values():
            if hidden.role == PREVIOUS:
                for each in hidden.field.adapters:
                    try:
                        kept[each] = maps.get(self.found, self.cid, each)
                    except VecdbError:
                        self.held[hidden.field.number] = None
        self.schema = replace(self.schema, vectors=vectors_)
        return kept

    def _check_declared(self, id: Id, metadata: dict[str, Any]) -> None:
        try:
            self.metadata.check(metadata, "")
        except SchemaError:
            self.contradicting.append(id)

    # --- what is written ---------------------------------------------------------------------

    def _write(self, cid: int, fields: dict[int, VectorField], good: list[_Good]) -> None:
        """Insert rows into the new collection; `fields`: old number -> the new declaration."""
        new: list[NewRow] = []
        places: dict[int, list[int]] = {}
        arrays: dict[int, list[npt.NDArray[Any]]] = {}
        with self.db._writing(cid) as writing:
            for each in good:
                try:
                    indexed = writing.state_of(each.metadata, each.row.text)
                except VecdbError as error:
                    self.saved.discard(each.id)
                    self._lose(each.id, each.rid, f"its metadata cannot be stored ({error})")
                    continue
                for number, vector in each.vectors.items():
                    places.setdefault(number, []).append(len(new))
                    arrays.setdefault(number, []).append(vector)
                key = keys.row_id(cid, each.id)
                new.append(NewRow(key, each.row.text, each.row.metadata, indexed))
            if new:
                writing.insert(new, {
                    fields[number].number: _given(fields[number], places[number], arrays[number])
                    for number in arrays
                })  # fmt: skip
        self.vectors.update({number: len(each) for number, each in arrays.items()})

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
        try:
            rid = rows.rid_of(self.found, key)
        except VecdbError:
            return -1
        return -1 if rid is None else rid

    def _lose(self, id: Id, rid: int, reason: str) -> None:
        self.named.add(id)
        self.reasons.pop(rid, None)
        number = f"row {rid}: " if rid >= 0 else ""
        self.report.lost.append(Lost("row", f"{self.schema.name}/id {id!r}", number + reason, id))

    def _lose_vector(self, id: Id, number: int, reason: str) -> None:
        name = self.names.get(number)
        where = f"{self.schema.name}/id {id!r}"
        if name is None:
            where += f"/vector field number {number}"
        elif len(self.names) > 1:
            where += f"/vector field {name!r}"
        self.report.lost.append(Lost("vector", where, reason, id, vector_field=name))

    def _note_contradictions(self) -> None:
        if self.contradicting:
            first, count = self.contradicting[0], len(self.contradicting)
            self.report.notes.append(
                f"{count:,} rows of {self.schema.name!r} (the first: id {first!r}) hold metadata that "
                "contradicts its declared fields; they are saved as they were"
            )


def _cleaned(packed: bytes) -> dict[str, Any]:
    """A row's metadata, such as a user may give: names of ours in it would mislead the indexes."""
    return codec.clean_metadata(codec.unpack_metadata(packed)) if packed else {}


def _given(declared: VectorField, places: list[int], arrays: list[npt.NDArray[Any]]) -> Given:
    return Given(np.array(places, np.intp), np.stack(arrays) if declared.graphed else arrays)
