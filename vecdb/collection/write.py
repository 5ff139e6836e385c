"""How does a user change rows? add, upsert, update, delete, optimize.

What users give is checked here, before anything is written; how rows are written is
index/writing.py's business.

Invariants:
  P1  a call that raises has changed nothing: everything is checked before the first write, and a
      write outside a transaction is one of its own;
  P2  a row whose vector stays the same keeps its place in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vecdb.collection.handle import Handle, Where, refuse
from vecdb.errors import AlreadyExists, NotFound
from vecdb.index.writing import NewRow, Writing
from vecdb.ingest import given_ids, given_metadata, given_texts, given_vectors, new_ids
from vecdb.query.filter import as_filter
from vecdb.storage import codec, keys, rows
from vecdb.storage.rows import Row
from vecdb.types import REMOVE, Id, Metadata

if TYPE_CHECKING:
    import numpy.typing as npt


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
            chosen = as_filter(where)
            with self._db._writing(self._cid) as writing:
                rids = sorted(writing.matches(chosen))
                for rid in rids:
                    self._patch_row(writing, rid, rows.get(writing.txn, self._cid, rid), patch)
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
            chosen = as_filter(where)
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

    def optimize(self) -> None:
        """Fold pending work now; never required for right results.

        Rewrites the graph's image and the metadata indexes up to the last commit, so that the
        next open replays nothing. InvalidArgument inside a transaction.

        >>> import vecdb
        >>> db = vecdb.open(); c = db.create_collection("c", dim=2)
        >>> c.optimize()
        """
        self._db._outside_transaction("optimize")
        with self._db._writing(self._cid) as writing:
            writing.fold_now()

    # --- behind the verbs ----------------------------------------------------------------

    def _put(
        self, ids: Any, given: Any, metadata: Any, texts: Any, *, replace: bool
    ) -> list[Id]:
        cid, schema = self._cid, self.schema
        single_text = isinstance(texts, str)
        known, single = ([], False) if ids is None else given_ids(ids, cid)
        n = len(known) if ids is not None else _count(given, metadata, texts, schema.dim)
        single = single or single_text or isinstance(metadata, Mapping)
        stored_texts = given_texts(texts, n)
        plain = given_metadata(metadata, n)
        arrays = given_vectors(given, n, schema, single=single)
        if ids is None:
            known = new_ids(n, cid)
        _no_duplicates(known)
        if not known:
            return []
        arrays, places = self._with_encoded(arrays, stored_texts, n)
        packed = [codec.pack_metadata(m, f"row {i}") if m else b"" for i, m in enumerate(plain)]
        with self._db._writing(cid) as writing:
            new = [
                NewRow(
                    key,
                    None if stored_texts is None else _utf8(stored_texts[i]),
                    packed[i],
                    writing.state_of(plain[i]),
                )
                for i, (_, key) in enumerate(known)
            ]
            if replace:
                self._replace(writing, known, new, arrays, places)
            else:
                self._refuse_existing(writing, known)
                self._insert(writing, new, arrays, places)
        return [id for id, _ in known]

    def _with_encoded(
        self, arrays: npt.NDArray[Any] | None, texts: list[str | None] | None, n: int
    ) -> tuple[npt.NDArray[Any] | None, list[int]]:
        """The vectors, given or made of the texts, and each row's place among them: -1, none."""
        if arrays is not None:
            return arrays, list(range(n))
        if texts is None or self.schema.encoder is None:
            return None, [-1] * n
        chosen = [at for at, text in enumerate(texts) if text is not None]
        places = [-1] * n
        for place, at in enumerate(chosen):
            places[at] = place
        return self._encode([text for text in texts if text is not None]), places

    def _insert(
        self,
        writing: Writing,
        new: list[NewRow],
        arrays: npt.NDArray[Any] | None,
        places: list[int],
    ) -> None:
        """Insert rows; `places`: where each one's vector is in `arrays`, -1 for none."""
        ranked = [at for at, place in enumerate(places) if place >= 0]
        if ranked:
            assert arrays is not None
            chosen = np.ascontiguousarray(arrays[[places[at] for at in ranked]])
            writing.insert([new[at] for at in ranked], chosen)
        plain = [item for item, place in zip(new, places, strict=True) if place < 0]
        if plain:
            writing.insert(plain, None)

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
        arrays: npt.NDArray[Any] | None,
        places: list[int],
    ) -> None:
        """Insert or replace; rows whose vector stays the same only change their record."""
        fresh: list[int] = []
        for at, (_, key) in enumerate(known):
            rid = rows.rid_of(writing.txn, key)
            if rid is None:
                fresh.append(at)
                continue
            old = rows.get(writing.txn, self._cid, rid)
            given = None if arrays is None or places[at] < 0 else arrays[places[at]]
            if self._same_vector(writing, rid, old, given):
                writing.rewrite(rid, old, new[at].text, new[at].metadata, new[at].state)
            else:
                writing.remove(key, rid, old)
                fresh.append(at)
        self._insert(writing, [new[at] for at in fresh], arrays, [places[at] for at in fresh])

    def _same_vector(
        self, writing: Writing, rid: int, old: Row, given: npt.NDArray[Any] | None
    ) -> bool:
        if given is None or not old.has_vector:
            return given is None and not old.has_vector
        return self._stored(writing.txn, rid, old).tobytes() == given.tobytes()

    def _update_ids(self, ids: Any, given: Any, metadata: Any, texts: Any) -> int:
        cid, schema = self._cid, self.schema
        known, single = given_ids(ids, cid)
        _no_duplicates(known)
        n = len(known)
        if isinstance(metadata, Mapping):
            patches = [_patch(metadata, "metadata")] * n
        else:
            _same_length("metadata", metadata, n)
            patches = [_patch(m, f"metadata: row {i}") for i, m in enumerate(metadata or [{}] * n)]
        stored_texts = given_texts(texts, n)
        arrays = given_vectors(given, n, schema, single=single)
        if not n:
            return 0
        arrays, places = self._with_encoded(arrays, stored_texts, n)
        with self._db._writing(cid) as writing:
            rids = [rows.rid_of(writing.txn, key) for _, key in known]
            for at, rid in enumerate(rids):
                if rid is None:
                    raise NotFound(
                        f"ids: row {at}: no id {known[at][0]!r} in collection {self.name!r}; "
                        "nothing was changed"
                    )
            moved: list[NewRow] = []
            at_moved: list[int] = []
            for at, rid in enumerate(rids):
                assert rid is not None
                old = rows.get(writing.txn, cid, rid)
                given_text = None if stored_texts is None else stored_texts[at]
                text = old.text if given_text is None else given_text.encode()
                place = places[at]
                if place < 0 or self._same_vector(writing, rid, old, _row(arrays, place)):
                    self._patch_row(writing, rid, old._replace(text=text), patches[at])
                    continue
                merged = _merged(old, patches[at])
                packed = codec.pack_metadata(merged, f"row {at}") if merged else b""
                moved.append(NewRow(known[at][1], text, packed, writing.state_of(merged)))
                at_moved.append(place)
                writing.remove(known[at][1], rid, old)
            if moved:
                assert arrays is not None
                writing.insert(moved, np.ascontiguousarray(arrays[at_moved]))
        return n

    def _patch_row(self, writing: Writing, rid: int, old: Row, patch: Metadata) -> None:
        merged = _merged(old, patch)
        packed = codec.pack_metadata(merged, f"row {rows.id_from(old.idkey)!r}") if merged else b""
        writing.rewrite(rid, old, old.text, packed, writing.state_of(merged))

    def _exactly_one(self, verb: str, ids: Any, where: Any) -> None:
        if (ids is None) == (where is None):
            refuse(f"{verb} takes exactly one of ids= and where=; all rows is where={{}}")


def _utf8(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _row(arrays: npt.NDArray[Any] | None, at: int) -> npt.NDArray[Any]:
    assert arrays is not None
    found: npt.NDArray[Any] = arrays[at]
    return found


def _merged(old: Row, patch: Metadata) -> Metadata:
    merged = codec.unpack_metadata(old.metadata) if old.metadata else {}
    for key, value in patch.items():
        if value is REMOVE:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _patch(metadata: Any, row: str) -> Metadata:
    """A cleaned patch; REMOVE stays what it is."""
    if not isinstance(metadata, Mapping):
        refuse(f"{row}: metadata is a dict, not {type(metadata).__name__}")
    kept = {k: v for k, v in metadata.items() if v is not REMOVE}
    cleaned: Metadata = codec.clean_metadata(kept, row)
    return {**cleaned, **{k: REMOVE for k, v in metadata.items() if v is REMOVE}}


def _count(given: Any, metadata: Any, texts: Any, dim: int) -> int:
    """How many rows a call without ids means."""
    if isinstance(texts, str) or isinstance(metadata, Mapping):
        return 1
    if given is not None:
        shape = np.shape(given)
        return 1 if len(shape) == 1 and shape[0] == dim else (shape[0] if shape else 1)
    for values in (texts, metadata):
        if values is not None:
            return len(values)
    refuse("add needs vectors=, texts= or metadata=")


def _no_duplicates(known: list[tuple[Id, bytes]]) -> None:
    if len({key for _, key in known}) == len(known):
        return
    seen: set[bytes] = set()
    for at, (id, key) in enumerate(known):
        if key in seen:
            refuse(f"ids: row {at}: id {id!r} appears twice in this call; nothing was written")
        seen.add(key)


def _same_length(name: str, values: Any, n: int) -> None:
    if values is None:
        return
    if isinstance(values, str) or not hasattr(values, "__len__"):
        refuse(f"{name} is a {type(values).__name__}; give a dict, or a list of one a row")
    if len(values) != n:
        refuse(f"{name} has {len(values)} entries for {n} ids; give one for each")
