"""How do the new vectors of a field come into the file, some rows at a commit, and take its name?

What may begin is migrating.py's business. A step reads rows that lack their new vector, makes it without any
lock (by an adapter of the vector that the field has, or by an encoder of the row's text), and puts it into
the hidden field in a commit of its own, of rows that are still as they were. The last commit does what is
left of rows and gives the hidden field the name.

Invariants (with those of migrating.py; tests/unit/test_migrating.py, tests/model/test_migrating_machine.py):
  N1  a call holds to the number of its hidden field: it never fills or switches another's;
  N2  the writer lock is held for about STEP_S, whatever an encoder takes;
  N3  a rollback is one commit: what it undoes goes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import numpy as np
from pyroaring import BitMap

from vecdb.arrays import encoded, imaged
from vecdb.collection.handle import Handle, refuse, source_of
from vecdb.embedding import embed
from vecdb.errors import InvalidArgument
from vecdb.index.seats import rows_of
from vecdb.progress import Progress
from vecdb.storage import codec, maps, rows, vectors
from vecdb.storage.rows import Row
from vecdb.storage.schema import NEXT, PREVIOUS, Hidden, Schema, VectorField

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.batch import Batch

    Rids = npt.NDArray[np.int64]

FIRST_STEP: Final = 256  # rows of the first commit; the others follow from how long it took
MOST_STEP: Final = 8192
STEP_S: Final = 0.05  # how long a commit may keep the writer lock, about
LAST_ROWS: Final = 32  # that many may be left to the commit that switches


class Made(NamedTuple):
    """New vectors of rows, and what the rows were that they were made of."""

    rids: Rids
    array: npt.NDArray[Any]
    changed: list[int]  # the commit that changed each row last


class Steps(Handle):
    """What the verbs of migrating.py stand on."""

    __slots__ = ()

    def _begin(
        self, name: str, declared: VectorField, made: VectorField, kept: dict[str, bytes],
        bridge: str | None = None,
    ) -> int:  # fmt: skip
        """Put the hidden field and its maps into the file; its number."""
        with self._db._batch() as batch:
            schema = self._db._schema(self._cid)
            if schema.vectors.get(name) != declared or name in schema.hidden:
                self._refuse_changed(name)
            after = schema.with_hidden(name, NEXT, made, bridge)
            for fingerprint, raw in kept.items():
                maps.put(batch.txn, self._cid, fingerprint, raw)
            batch.writing(self._cid).add_hidden(after, after.hidden[name].field)
            batch.change_catalog(schema.name, (self._cid, after))
            return after.hidden[name].field.number

    def _go_on(self, name: str, number: int, stopped: Callable[[], bool], report: Progress) -> None:
        """Make the vectors that the hidden field with this number lacks, in steps, and switch.

        Another call may be at it too: whoever comes to the end first switches, and the others are done.
        """
        step, last = FIRST_STEP, LAST_ROWS
        while not stopped():
            made, left, total = self._made_of_some(name, number, step)
            if made is not None:
                held = self._put_made(name, number, made)
                left -= len(made.rids)
                report(total - left, total)
                step = int(min(MOST_STEP, max(FIRST_STEP, step * STEP_S / max(held, 1e-4))))
            if left <= 0:
                if self._switched(name, number, last):
                    report(total, total)
                    return
                last *= 2  # somebody writes faster than the rest can be made without the lock

    def _made_of_some(self, name: str, number: int, step: int) -> tuple[Made | None, int, int]:
        """New vectors of the next rows that lack one; how many lack one, and how many there are."""
        with self._reading() as (txn, view):
            schema = view.schema
            hidden = self._still(schema, name, number)
            if hidden is None:
                return None, 0, view.ranked(number).ranked
            lacking, total = self._lacking(txn, view, schema.vectors[name], hidden)
            chosen = np.array(lacking[:step], np.int64)
            if not len(chosen):
                return None, 0, total
            found = [rows.get(txn, self._cid, rid) for rid in chosen.tolist()]
            sources = self._sources(txn, schema, name, hidden, chosen, found)
        array = self._storable(hidden, sources, found)
        return Made(chosen, array, [row.changed for row in found]), len(lacking), total

    def _lacking(self, txn: Any, view: Any, beside: VectorField, hidden: Hidden) -> tuple[BitMap, int]:
        rids = rows_of(view, self._holders(txn, view, beside))
        mine = self._holders(txn, view, hidden.field)
        return (BitMap() if mine is None else rids - mine.rids), len(rids)

    def _sources(
        self, txn: Any, schema: Schema, name: str, hidden: Hidden, rids: Rids, found: list[Row]
    ) -> Any:
        """What new vectors are made of: texts, or the vectors that the field has."""
        beside = schema.vectors[name]
        if hidden.is_image_of(beside):
            stored = vectors.read(txn, self._cid, schema.layout(beside), rids.astype(np.uint32))
            return stored.astype(np.float32)
        texts = []
        for row in found:
            if hidden.field.encoder is None:
                self._refuse_unknown(name, row)
            text = text_of(hidden.field, row)
            if text is None:
                self._refuse_row(name, hidden.field, row)
            texts.append(text)
        return texts

    def _storable(self, hidden: Hidden, sources: Any, found: list[Row]) -> npt.NDArray[Any]:
        """New vectors of rows as the field stores them; InvalidArgument names the first that has none."""
        try:
            part = imaged(self._new_vectors(hidden, sources), np.arange(len(found)), hidden.field)
            array: npt.NDArray[Any] = part.array
            return array
        except InvalidArgument as error:
            if len(found) == 1:
                raise InvalidArgument(
                    f"row {rows.id_from(found[0].idkey)!r} can have no new vector: {error}; the vectors stay "
                    "as they are. Change or delete the row and call again, or rollback_vectors()"
                ) from None
            half = len(found) // 2
            self._storable(hidden, sources[:half], found[:half])
            self._storable(hidden, sources[half:], found[half:])
            raise  # each can alone

    def _new_vectors(self, hidden: Hidden, sources: Any) -> npt.NDArray[Any]:
        field = hidden.field
        if isinstance(sources, list):
            made = embed(self._db, self._encoder(field), sources, field.metric)
            given = encoded(made, np.arange(len(sources)), field.as_given())  # as a write of the text has it
            return self._images(field, given.array)
        found: npt.NDArray[Any] = self._map(field.adapters[-1])(sources)
        return found

    def _put_made(self, name: str, number: int, made: Made) -> float:
        """Put new vectors into the file, of rows that are as they were; seconds under the lock."""
        with self._db._writing(self._cid) as writing:
            began = perf_counter()
            schema = writing.schema
            hidden = self._still(schema, name, number)
            if hidden is not None:
                self._fill(writing, schema.vectors[name], hidden, made)
        return perf_counter() - began

    def _fill(self, writing: Any, beside: VectorField, hidden: Hidden, made: Made) -> None:
        lacking = writing.lacking(hidden.field, beside)
        chosen = [
            at
            for at, (rid, changed) in enumerate(zip(made.rids.tolist(), made.changed, strict=True))
            if rid in lacking and rows.get(writing.txn, self._cid, rid).changed == changed
        ]
        if chosen:
            writing.fill(hidden.field, made.rids[chosen], np.ascontiguousarray(made.array[chosen]))

    def _switched(self, name: str, number: int, most: int) -> bool:
        """Do what is left and switch, in one commit; False where more than `most` rows are left.

        What a rollback undoes is dropped in that commit: killed after it, a second call would undo itself.
        """
        with self._db._batch() as batch:
            schema = self._db._schema(self._cid)
            hidden, named = self._still(schema, name, number), schema.vectors[name]
            if hidden is None:
                return True  # another call was quicker
            writing = batch.writing(self._cid)
            rids = np.array(writing.lacking(hidden.field, named), np.int64)
            if len(rids) > most:
                return False
            if len(rids):
                found = [rows.get(batch.txn, self._cid, rid) for rid in rids.tolist()]
                sources = self._sources(batch.txn, schema, name, hidden, rids, found)
                writing.fill(hidden.field, rids, self._storable(hidden, sources, found))
            writing.swap(hidden.field, named)
            after = schema.swapped(name)
            batch.change_catalog(schema.name, (self._cid, after))
            if hidden.role == PREVIOUS:
                self._drop(batch, name, named.number, after)
            else:
                maps.sweep(batch.txn, self._cid, after)  # a bridge leads nowhere any more
            return True

    def _hidden(self, schema: Schema, name: str) -> Hidden:
        hidden = schema.hidden.get(name)
        if hidden is None:
            self._refuse_changed(name)
        return hidden

    def _still(self, schema: Schema, name: str, number: int) -> Hidden | None:
        """The hidden field with a number, None once it has the name."""
        named, hidden = schema.vectors.get(name), schema.hidden.get(name)
        if named is not None and named.number == number:
            return None
        if hidden is None or hidden.field.number != number:
            self._refuse_changed(name)
        return hidden

    def _refuse_changed(self, name: str) -> NoReturn:
        refuse(f"field {name!r} was changed by another call meanwhile: call again")

    def _drop_hidden(self, name: str, number: int) -> None:
        with self._db._batch() as batch:
            schema = self._db._schema(self._cid)
            if self._hidden(schema, name).field.number != number:
                self._refuse_changed(name)
            self._drop(batch, name, number, schema)

    def _drop(self, batch: Batch, name: str, number: int, schema: Schema) -> None:
        after = schema.without_hidden(name)
        self._db._drop_field(batch, self._cid, number, after)
        maps.sweep(batch.txn, self._cid, after)

    def _refuse_row(self, name: str, made: VectorField, row: Row) -> None:
        where = "text" if made.source is None else f"text in {made.source!r}"
        refuse(
            f"row {rows.id_from(row.idkey)!r} has a vector in field {name!r} but no {where} to encode: give "
            "it one, or take its vector away; the vectors stay as they are"
        )

    def _refuse_unknown(self, name: str, row: Row) -> NoReturn:
        refuse(
            f"row {rows.id_from(row.idkey)!r} was written since, and the previous vectors of field {name!r} "
            "were given, not encoded: nobody knows its own. Delete it or take its vector away, or keep the "
            "new ones with drop_previous_vectors(); the vectors stay as they are"
        )


def text_of(declared: VectorField, row: Row) -> str | None:
    """The text that a field's encoder reads of a stored row."""
    text = None if row.text is None else row.text.decode()
    return source_of(declared, codec.unpack_metadata(row.metadata) if row.metadata else {}, text)
