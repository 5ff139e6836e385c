"""How does a user change rows? add, upsert, update, delete, optimize.

What users give is checked here, before anything is written; how rows are written is
index/writing.py's business.

Invariants:
  P1  a call that raises has changed nothing: everything is checked before the first write, and a
      write outside a transaction is one of its own;
  P2  a row whose vector stays the same keeps its place in the graph.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from vecdb.arrays import encoded, given_vectors, imaged, nothing
from vecdb.collection.handle import Handle, Moved, Where, refuse, source_of
from vecdb.declare import Vector
from vecdb.errors import AlreadyExists, NotFound, SchemaError
from vecdb.index.columns import columns_of
from vecdb.index.writing import Writing
from vecdb.ingest import given_ids, given_metadata, given_texts, new_ids, no_duplicates
from vecdb.progress import Progress, reporter, stopper
from vecdb.storage import codec, keys, rows
from vecdb.storage.rows import NewRow, Row
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.vectors import Given
from vecdb.types import REMOVE, Id, Metadata

MOST_MENDED: Final = 4  # times that `optimize` looks for damage: what was built lets it see the rest
UNCHANGED: Final = object()  # a vector that an update leaves as it is
UNSOURCED: Final = object()  # one whose text is not in the patch; the row may have it elsewhere


class WriteVerbs(Handle):
    """The verbs that change rows."""

    __slots__ = ()

    def add(
        self,
        ids: Any = None,
        vectors: Any = None,
        *,
        metadata: Any = None,
        texts: Any = None,
    ) -> list[Id]:
        """Insert new rows, all or none, and return their ids.

        `ids`: list of str or int, a single one for one row, or None for generated ids.
        `vectors`: (n, d) real numbers; `metadata`: a dict per row; `texts`: a str per row (None for
        a row without one, which then has no vector), encoded where the collection has an encoder and
        no vectors are given. Durable on return.
        Raises AlreadyExists if any id exists, InvalidArgument naming the first bad row.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.add(["a", 7], [[1, 0], [0, 1]], metadata=[{"year": 1999}, {"year": 2001}])
        ['a', 7]
        """
        return self._put(ids, vectors, metadata, texts, replace=False)

    def upsert(
        self, ids: Any, vectors: Any = None, *, metadata: Any = None, texts: Any = None
    ) -> list[Id]:
        """Insert rows or replace them whole, all or none, and return their ids.

        Arguments as in `add`. A row whose stored vector stays the same keeps its place in the
        graph; without vectors the old ones are removed. Durable on return.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.upsert("a", [1, 0]), c.upsert("a", [0, 1]), len(c)
        (['a'], ['a'], 1)
        """
        if ids is None:
            refuse("ids=None: upsert needs the ids of the rows to replace; use add for new rows")
        return self._put(ids, vectors, metadata, texts, replace=True)

    def update(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        vectors: Any = None,
        metadata: Any = None,
        texts: Any = None,
    ) -> int:
        """Patch rows and return how many: given top-level metadata keys are set, others stay.

        Takes exactly one of `ids` and `where`. `vecdb.REMOVE` as a value takes a key away. One
        dict applies to every row, a list pairs with `ids`; with `where` neither vectors nor texts.
        None in `texts` leaves that row's text and vector as they are.
        Raises NotFound, with nothing changed, when an id is unknown.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0], metadata={"year": 1999, "lang": "en"})
        >>> c.update("a", metadata={"year": 2000, "lang": vecdb.REMOVE}), c["a"].metadata
        (1, {'year': 2000})
        """
        self._exactly_one("update", ids, where)
        if where is not None:
            if vectors is not None or texts is not None:
                refuse("update(where=...) takes metadata only; name ids to change vectors or texts")
            if not isinstance(metadata, Mapping):
                refuse("update(where=...) takes one metadata dict for all matching rows")
            patch = _patch(metadata, "metadata")
            self._declared.check(_set_by(patch), "metadata: every row")
            columns_of(self.schema).check_all([_set_by(patch)], "metadata: every row")
            chosen = self._filter(where)
            while True:
                schema = self.schema
                try:
                    new = _of_row(self._encode_patches(schema, [patch], None, ()), 0)
                except Moved:
                    continue
                with self._db._writing(self._cid) as writing:
                    if self._fits(schema, writing, new):
                        rids = sorted(writing.matches(chosen))
                        found = ((rid, rows.get(writing.txn, self._cid, rid)) for rid in rids)
                        changes = (Change(rid, old, patch, None, new) for rid, old in found)
                        self._change_rows(writing, changes)
                        return len(rids)
        return self._update_ids(ids, vectors, metadata, texts)

    def delete(self, ids: Any = None, *, where: Where | None = None) -> int:
        """Delete rows by ids or by filter and return how many there were; durable on return.

        Takes exactly one of `ids` and `where`; unknown ids are not counted; all rows is
        `where={}`.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add(["a", "b"], [[1, 0], [0, 1]])
        >>> c.delete(["a", "zz"]), len(c)
        (1, 1)
        """
        self._exactly_one("delete", ids, where)
        cid = self._cid
        if where is not None:
            chosen = self._filter(where)
            with self._db._writing(cid) as writing:
                rids = sorted(writing.matches(chosen))
                for rid in rids:
                    row = rows.get(writing.txn, cid, rid)
                    writing.remove(keys.prefix(keys.IDS, cid) + row.idkey, rid, row)
            return len(rids)
        known, _ = given_ids(ids, cid)
        if not known:
            return 0
        deleted = 0
        with self._db._writing(cid) as writing:
            for key in {key: None for _, key in known}:
                found = rows.rid_of(writing.txn, key)
                if found is not None:
                    writing.remove(key, found, rows.get(writing.txn, cid, found))
                    deleted += 1
        return deleted

    def optimize(
        self, *, progress: Any = False, cancel: Any = None, rebuild: bool = False
    ) -> None:
        """Fold pending work now, and build damaged indexes again; never required for right results.

        Rewrites the metadata indexes and the graphs' images up to the last commit, so that the next
        open replays nothing: a commit for each of them. An index that cannot be read is built again
        from the rows first, in a commit of its own; `rebuild=True` does so with all of them, as after
        `check()` has found that one contradicts the rows. `progress` and `cancel` as in `add_table`.
        InvalidArgument inside a transaction; Corrupt when rows or vectors are damaged themselves.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.optimize()
        """
        self._db._outside_transaction("optimize")
        stopped, step = stopper(cancel), 0
        with reporter(progress, "optimize") as report:
            built = 0 if stopped() else self._mend(report, everything=rebuild)
            while not stopped():
                with self._db._writing(self._cid) as writing:
                    total = writing.fold_step(step)
                step += 1
                report(built + step, built + total)
                if step >= total:
                    return

    def add_vector(self, name: str, vector: Vector) -> None:
        """Add a vector field, which no row has until it is given one; durable on return.

        `vector`: a `vecdb.Vector`. Rows get their vectors by `update(ids, vectors={name: ...})`, or by
        the field's encoder when their texts are written again. Costs one small record.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> _ = c.add("a", [1, 0])
        >>> c.add_vector("poster", vecdb.Vector(3)); c.update("a", vectors={"poster": [1, 2, 3]})
        1
        >>> c["a"].vectors["poster"].tolist()
        [1.0, 2.0, 3.0]
        """
        self._db._add_vector(self._cid, name, vector)

    def drop_vector(self, name: str) -> None:
        """Take a vector field and its vectors away; the rows stay. Durable on return.

        InvalidArgument for the last vector field, NotFound for an unknown one.

        >>> import vecdb
        >>> db = vecdb.open()
        >>> c = db.create_collection("c", vectors={"a": vecdb.Vector(2), "b": vecdb.Vector(3)})
        >>> c.drop_vector("b"); list(c.schema.vectors)
        ['a']
        """
        self._db._drop_vector(self._cid, name)

    # --- behind the verbs ----------------------------------------------------------------

    def _mend(self, report: Progress, *, everything: bool) -> int:
        """Build indexes again until none is damaged; how many that were."""
        built = 0
        for _ in range(MOST_MENDED):
            with self._db._batch() as batch:
                more = batch.mend(self._cid, report, built, everything=everything)
            built, everything = built + more, False
            if not more:
                break
        return built

    def _put(
        self, ids: Any, given: Any, metadata: Any, texts: Any, *, replace: bool
    ) -> list[Id]:
        cid, schema = self._cid, self.schema
        single_text = isinstance(texts, str)
        known, single = ([], False) if ids is None else given_ids(ids, cid)
        n = len(known) if ids is not None else _count(given, metadata, texts, schema)
        single = single or single_text or isinstance(metadata, Mapping) or (ids is None and n == 1)
        stored_texts = given_texts(texts, n)
        plain = given_metadata(metadata, n)
        self._declared.check_all(plain)
        columns_of(schema).check_all(plain)
        if ids is None:
            known = new_ids(n, cid)
        arrays = self._vectors_of(schema, given, n, single, plain, stored_texts, known)
        if not known:
            return []
        packed = [codec.pack_metadata(m, f"row {i}") if m else b"" for i, m in enumerate(plain)]
        encoded_texts = [_utf8(text) for text in stored_texts or [None] * len(known)]
        while True:
            with self._db._writing(cid) as writing:
                if self._fits(schema, writing, arrays):
                    new = [
                        NewRow(key, encoded_texts[i], packed[i], writing.state_of(plain[i], encoded_texts[i]))
                        for i, (_, key) in enumerate(known)
                    ]
                    if replace:
                        self._replace(writing, known, new, arrays)
                    else:
                        self._refuse_existing(writing, known)
                        writing.insert(new, arrays)
                    return [id for id, _ in known]
            schema = self.schema
            arrays = self._vectors_of(schema, given, n, single, plain, stored_texts, known)

    def _vectors_of(
        self,
        schema: Schema,
        given: Any,
        n: int,
        single: bool,
        plain: list[Metadata],
        texts: list[str | None] | None,
        known: list[tuple[Id, bytes]],
    ) -> dict[int, Given]:
        """The vectors of new rows by field, as they are stored: given ones, and encoded ones."""
        asked = schema.as_given()
        arrays = given_vectors(given, n, asked, single=single)
        no_duplicates(known)
        if known:
            self._encode_missing(asked, arrays, plain, texts)
        try:
            return self._adapted(schema, arrays)
        except Moved:  # `_fits` tells the caller, who begins again too
            return self._vectors_of(self.schema, given, n, single, plain, texts, known)

    def _adapted(self, schema: Schema, arrays: dict[int, Given]) -> dict[int, Given]:
        """Vectors as they are given, by field, as they are stored: by the field, and by the one behind it."""
        found = dict(arrays)
        for name, declared in schema.vectors.items():
            part = arrays.get(declared.number)
            if part is None:
                continue
            behind = schema.hidden.get(name)
            if declared.adapters:
                found[declared.number] = self._image(part, declared)
            if behind is not None and behind.takes_given_of(declared):
                found[behind.field.number] = self._image(part, behind.field)
        return found

    def _image(self, part: Given, declared: VectorField) -> Given:
        if not len(part.rows):
            return Given(part.rows, nothing(declared))
        return imaged(self._images(declared, part.array), part.rows, declared)

    def _encode_missing(
        self,
        schema: Schema,
        arrays: dict[int, Given],
        plain: list[Metadata],
        texts: list[str | None] | None,
    ) -> None:
        """Add the vectors that encoders make of the rows' texts, where none were given."""
        for declared in schema.vectors.values():
            if declared.encoder is None or declared.number in arrays:
                continue
            found = [
                (at, source)
                for at, metadata in enumerate(plain)
                if (source := source_of(declared, metadata, None if texts is None else texts[at]))
                is not None
            ]
            if found:
                made = self._encode(declared, [source for _, source in found])
                at_rows = np.array([at for at, _ in found], np.intp)
                arrays[declared.number] = encoded(made, at_rows, declared)

    def _fits(self, schema: Schema, writing: Writing, arrays: dict[int, Any]) -> bool:
        """Whether what was checked and encoded fits the fields as they are now; False: begin again.

        `arrays`: by the fields that the call has vectors for. Fields that came or went beside them are no
        reason to refuse, unless a new one would have to be encoded; vectors that took the place of others
        meanwhile are one to begin again, which is not the user's business.
        """
        now = writing.schema
        if now is schema:
            return True
        stays = {each.number for each in now.by_number.values()}
        before = {each.number: each for each in schema.vectors.values()}
        after = {each.number: each for each in now.vectors.values()}
        if after != before:
            swapped = {
                name for name, each in schema.vectors.items()
                if name in now.vectors and now.vectors[name].member == each.member
                and now.vectors[name].number != each.number
            }  # fmt: skip
            if swapped:
                return False
            new = [each for number, each in after.items() if number not in before and each.encoder]
            named = [number for number in arrays if number in before]
            if new or any(after.get(number) != before[number] for number in named):
                raise SchemaError(
                    f"the vector fields of collection {schema.name!r} were changed meanwhile; nothing was "
                    "written: call again"
                )
        for number in [number for number in arrays if number not in stays]:
            del arrays[number]  # those behind others, dropped meanwhile
        return True

    def _refuse_existing(self, writing: Writing, known: list[tuple[Id, bytes]]) -> None:
        for at, (id, key) in enumerate(known):
            if writing.txn.get(key) is not None:
                raise AlreadyExists(
                    f"ids: row {at}: id {id!r} exists in collection {self.name!r}; use upsert to "
                    "replace rows; nothing was written"
                )

    def _replace(
        self,
        writing: Writing,
        known: list[tuple[Id, bytes]],
        new: list[NewRow],
        arrays: dict[int, Given],
    ) -> None:
        """Insert or replace; rows whose vectors stay the same only change their record."""
        fresh: list[int] = []
        for at, (_, key) in enumerate(known):
            rid = rows.rid_of(writing.txn, key)
            if rid is None:
                fresh.append(at)
                continue
            old = rows.get(writing.txn, self._cid, rid)
            given = {number: part.at(at) for number, part in arrays.items()}
            stale = _stale(writing, old, new[at].text, new[at].metadata)
            if not stale and self._same_vectors(writing, rid, old, given):
                writing.rewrite(rid, old, new[at].text, new[at].metadata, new[at].state)
            else:
                writing.remove(key, rid, old)
                fresh.append(at)
        if fresh:
            chosen = arrays
            if len(fresh) < len(new):
                chosen = {number: part.only(fresh) for number, part in arrays.items()}
            writing.insert([new[at] for at in fresh], chosen)

    def _same_vectors(
        self, writing: Writing, rid: int, old: Row, given: Mapping[int, Any]
    ) -> bool:
        """Whether a row has exactly these vectors, by field number; None: it has none there.

        Fields behind others count where one is given: two vectors may have one image.
        """
        schema = writing.schema
        for behind in schema.hidden.values():
            wanted = given.get(behind.field.number)
            if wanted is not None:
                if not writing.has(behind.field, rid, old):
                    return False
                stored = self._stored(writing.txn, schema, behind.field, rid, old)
                if stored.tobytes() != wanted.tobytes():
                    return False
        for declared in schema.vectors.values():
            wanted = given.get(declared.number)
            if (wanted is not None) != (declared.member in old.fields):
                return False
            if wanted is not None:
                stored = self._stored(writing.txn, schema, declared, rid, old)
                if stored.shape != wanted.shape or stored.tobytes() != wanted.tobytes():
                    return False
        return True

    def _update_ids(self, ids: Any, given: Any, metadata: Any, texts: Any) -> int:
        cid, schema = self._cid, self.schema
        known, single = given_ids(ids, cid)
        no_duplicates(known)
        n = len(known)
        if isinstance(metadata, Mapping):
            patches = [_patch(metadata, "metadata")] * n
        else:
            _same_length("metadata", metadata, n)
            patches = [_patch(m, f"metadata: row {i}") for i, m in enumerate(metadata or [{}] * n)]
        self._declared.check_all([_set_by(patch) for patch in patches])
        columns_of(schema).check_all([_set_by(patch) for patch in patches])
        stored_texts = given_texts(texts, n)
        while True:
            asked = schema.as_given()
            given_arrays = given_vectors(given, n, asked, single=single)
            if not n:
                return 0
            try:
                made = self._encode_patches(schema, patches, stored_texts, given_arrays)
                arrays = self._adapted(schema, given_arrays)
            except Moved:
                schema = self.schema
                continue
            with self._db._writing(cid) as writing:
                if self._fits(schema, writing, arrays) and self._fits(schema, writing, made):
                    self._change_named(writing, known, patches, stored_texts, arrays, made)
                    return n
            schema = self.schema

    def _change_named(
        self,
        writing: Writing,
        known: list[tuple[Id, bytes]],
        patches: list[Metadata],
        texts: list[str | None] | None,
        arrays: dict[int, Given],
        made: dict[int, list[Any]],
    ) -> None:
        rids = [rows.rid_of(writing.txn, key) for _, key in known]
        for at, rid in enumerate(rids):
            if rid is None:
                raise NotFound(
                    f"ids: row {at}: no id {known[at][0]!r} in collection {self.name!r}; "
                    "nothing was changed"
                )
        self._change_rows(
            writing,
            (
                Change(
                    rid, rows.get(writing.txn, self._cid, rid), patches[at],
                    None if texts is None else texts[at],
                    {number: part.at(at) for number, part in arrays.items()} | _of_row(made, at),
                )
                for at, rid in enumerate(rids) if rid is not None
            ),
        )  # fmt: skip

    def _change_rows(self, writing: Writing, changes: Iterable[Change]) -> None:
        """Patch rows: those whose vectors stay the same in place, the others under a new number."""
        schema = writing.schema
        moved: list[NewRow] = []
        moving: list[dict[int, Any]] = []
        for rid, old, patch, new_text, new_vectors in changes:
            before = codec.unpack_metadata(old.metadata) if old.metadata else {}
            metadata = _merged(before, patch)
            text = old.text if new_text is None else new_text.encode()
            new_vectors = _settled(schema, new_vectors, before, metadata)
            where = f"row {rows.id_from(old.idkey)!r}"
            packed = codec.pack_metadata(metadata, where) if metadata else b""
            state = writing.state_of(metadata, text)
            whole = None
            stale = _stale(writing, old, text, packed)
            if new_vectors or stale:
                whole = self._kept_vectors(writing, rid, old, stale.union(new_vectors)) | new_vectors
            if whole is None or (not stale and self._same_vectors(writing, rid, old, whole)):
                writing.rewrite(rid, old, text, packed, state)
                continue
            key = keys.prefix(keys.IDS, self._cid) + old.idkey
            writing.remove(key, rid, old)
            moved.append(NewRow(key, text, packed, state))
            moving.append({n: v for n, v in whole.items() if v is not None})
        if moved:
            fields = schema.by_number.values()
            writing.insert(moved, {each.number: _gathered(each, moving) for each in fields})

    def _encode_patches(
        self,
        schema: Schema,
        patches: list[Metadata],
        texts: list[str | None] | None,
        named: Container[int],
    ) -> dict[int, list[Any]]:
        """The vectors of fields whose source text the patches change, by field and patch.

        UNSOURCED: the text goes, and the vector with it, unless the row had none, or has it under a
        key that the patch leaves alone; UNCHANGED: it stays. A given vector wins.
        """
        found: dict[int, list[Any]] = {}
        for declared in schema.vectors.values():
            if declared.encoder is None or declared.number in named:
                continue
            made: list[Any] = [UNCHANGED] * len(patches)
            wanted: list[tuple[int, str]] = []
            for at, patch in enumerate(patches):
                text = None if texts is None else texts[at]
                if not _touches(declared.source, patch, text):
                    continue
                made[at] = UNSOURCED
                source = source_of(declared, _without_removed(patch), text)
                if source is not None:
                    wanted.append((at, source))
            if wanted:
                output = self._encode(declared, [source for _, source in wanted])
                at_rows = np.array([at for at, _ in wanted], np.intp)
                given = {declared.number: encoded(output, at_rows, declared.as_given())}
                for number, part in self._adapted(schema, given).items():
                    placed = made if number == declared.number else [UNCHANGED] * len(patches)
                    for at, vector in zip(at_rows, part.array, strict=True):
                        placed[at] = vector
                    found[number] = placed
            found[declared.number] = made
        return found

    def _kept_vectors(
        self, writing: Writing, rid: int, old: Row, changed: Container[int]
    ) -> dict[int, Any]:
        """The vectors that a row has and keeps: those behind a field go with that field's."""
        schema = writing.schema
        kept = list(schema.vectors.values())
        for name, behind in schema.hidden.items():
            if schema.vectors[name].number not in changed and behind.field.number not in changed:
                kept.append(behind.field)
        return {
            each.number: self._stored(writing.txn, schema, each, rid, old)
            for each in kept
            if writing.has(each, rid, old)
        }

    def _exactly_one(self, verb: str, ids: Any, where: Any) -> None:
        if (ids is None) == (where is None):
            refuse(f"{verb} takes exactly one of ids= and where=; all rows is where={{}}")


class Change(NamedTuple):
    """What `update` does to one row."""

    rid: int
    old: Row
    patch: Metadata
    text: str | None  # None: it stays
    vectors: dict[int, Any]  # by field number; None: the field's vector goes; or UNSOURCED


def _stale(writing: Writing, old: Row, text: bytes | None, metadata: bytes) -> set[int]:
    """The fields behind others whose vector of a row, made of its text, is not that of its new text."""
    found: set[int] = set()
    for name, behind in writing.schema.hidden.items():
        if behind.encodes_beside(writing.schema.vectors[name]):
            if _source(behind.field, old.text, old.metadata) != _source(behind.field, text, metadata):
                found.add(behind.field.number)
    return found


def _source(declared: VectorField, text: bytes | None, metadata: bytes | None) -> str | None:
    """The text that a field's encoder reads of a row as it is stored."""
    said = codec.unpack_metadata(metadata) if metadata and declared.source is not None else {}
    return source_of(declared, said, None if text is None else text.decode())


def _of_row(made: dict[int, list[Any]], at: int) -> dict[int, Any]:
    """One row's vectors of those that `_encode_patches` made."""
    return {number: each[at] for number, each in made.items() if each[at] is not UNCHANGED}


def _settled(
    schema: Schema, found: dict[int, Any], before: Metadata, after: Metadata
) -> dict[int, Any]:
    """A row's new vectors: where a patch touches the source, the vector goes only if a text does."""
    settled = {}
    for number, vector in found.items():
        if vector is not UNSOURCED:
            settled[number] = vector
            continue
        declared = schema.by_number[number]
        if source_of(declared, before, None) is not None and source_of(declared, after, None) is None:
            settled[number] = None
    return settled


def _touches(source: str | None, patch: Metadata, text: str | None) -> bool:
    """Whether the text that an encoder reads is given anew."""
    if source is None:
        return text is not None
    return any(key == source or source.startswith(key + ".") for key in patch)


def _without_removed(patch: Metadata) -> Metadata:
    return {key: value for key, value in patch.items() if value is not REMOVE}


def _gathered(declared: VectorField, rows_vectors: list[dict[int, Any]]) -> Given:
    """One field's vectors of rows that each have some."""
    wanted = ((at, each.get(declared.number)) for at, each in enumerate(rows_vectors))
    found = [(at, vector) for at, vector in wanted if vector is not None]
    at_rows = np.array([at for at, _ in found], np.intp)
    if not declared.graphed:
        return Given(at_rows, [vector for _, vector in found])
    if not found:
        return Given(at_rows, nothing(declared))
    return Given(at_rows, np.ascontiguousarray(np.stack([vector for _, vector in found])))


def _utf8(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _merged(before: Metadata, patch: Metadata) -> Metadata:
    merged = dict(before)
    for key, value in patch.items():
        if value is REMOVE:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _set_by(patch: Metadata) -> Metadata:
    """What a patch sets, without what it removes."""
    return {key: value for key, value in patch.items() if value is not REMOVE}


def _patch(metadata: Any, row: str) -> Metadata:
    """A cleaned patch; REMOVE stays what it is."""
    if not isinstance(metadata, Mapping):
        refuse(f"{row}: metadata is a dict, not {type(metadata).__name__}")
    kept = {k: v for k, v in metadata.items() if v is not REMOVE}
    cleaned: Metadata = codec.clean_metadata(kept, row)
    return {**cleaned, **{k: REMOVE for k, v in metadata.items() if v is REMOVE}}


def _count(given: Any, metadata: Any, texts: Any, schema: Schema) -> int:
    """How many rows a call without ids means."""
    if isinstance(texts, str) or isinstance(metadata, Mapping):
        return 1
    if isinstance(given, Mapping):
        named = [(n, v) for n, v in given.items() if v is not None and n in schema.vectors]
        if named:
            name, values = named[0]
            return _count_of(values, schema.vectors[name])
    elif given is not None:
        return _count_of(given, next(iter(schema.vectors.values())))
    for name, values in (("texts", texts), ("metadata", metadata)):
        if values is not None:
            if not hasattr(values, "__len__"):
                refuse(f"{name} is a {type(values).__name__}; give a list of one a row")
            return len(values)
    refuse("add needs vectors=, texts= or metadata=")


def _count_of(values: Any, declared: VectorField) -> int:
    """How many rows an array of a field's vectors is for."""
    if declared.sparse:
        return 1 if isinstance(values, Mapping) or not hasattr(values, "__len__") else len(values)
    if isinstance(values, list | tuple) and any(each is None for each in values):
        return len(values)
    try:
        shape = np.shape(values)
    except Exception:  # ragged, or no array at all: refused below, by name
        return len(values) if isinstance(values, list | tuple) else 1
    if not shape or (declared.multi and len(shape) == 2 and not isinstance(values, list)):
        return 1
    return 1 if len(shape) == 1 and shape[0] and not declared.multi else shape[0]


def _same_length(name: str, values: Any, n: int) -> None:
    if values is None:
        return
    if isinstance(values, str) or not hasattr(values, "__len__"):
        refuse(f"{name} is a {type(values).__name__}; give a dict, or a list of one a row")
    if len(values) != n:
        refuse(f"{name} has {len(values)} entries for {n} ids; give one for each")
