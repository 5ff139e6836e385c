"""Is everything in the file as it should be? Every violated invariant, not only the first.

`check_database` reads one snapshot whole. It trusts nothing that a process remembers: the graph and
the metadata indexes are loaded again from images and log, and compared with the rows. The numbered
invariants are those of the modules that keep them; tests/unit/test_check.py plants a violation of
each.

    F1  every record is of a known kind, is framed, and its checksum covers its key
    F2  every key is spelled as its kind spells it
    F3  the file's pages form sound trees; where they do not, nothing else is looked at, because the
        engine would end the process on its way there
    M1  the meta record can be read, and no commit number in the file is above its own
    C1  collection names are unique, declarations possible, and collection numbers below the next
        one; no orphan records
    R1  ids and live rows lead to each other
    R2  the records that the graph is loaded from pass their checksums
    R3  a row's `changed` is at most the file's commit number
    R4  a row without a slot has no vector in a field with a graph, a row has vectors in declared or
        dropped fields only, and its number has been handed out
    R5  a row's record and its metadata can be decoded
    R6  a row's metadata contradicts no declaration of its collection's fields
    V1  every full block of vectors is written, and no other
    V2  a block names its place, shape and dtype
    V3  a row's vector is in its record exactly while its block is not written; then it is in its block
    V4  a row that has a field of many vectors has a record of them, and no other row has
    S1  the collection's state is readable, no watermark lies beyond the last commit, and the last
        log records that it names are there
    S2  the state's counts are those of the rows
    L2  log records can be read
    W1  the bitmap of live rows (image and log) names the live rows
    A1  postings and orders (image and tail) say of every row what its metadata says: nothing of
        fields declared Unindexed, each trigram of those with a substring index
    A2  every chunk of a long posting is the one that its leaf names, and no other is there
    A3  the log's attribute changes can be read
    E1  the measured effort can be read
    E2  a cached embedding is a float32 vector of finite numbers
    E3  the count of cached embeddings is that of the records
    G1  link images and link log can be loaded
    G2  links are in range, without loops, duplicates or gaps
    G3  every live slot is in the graph and can be reached
    G4  this process's graph is the file's, link for link

Where images and log cannot be loaded, what rests on them (W1, A1 against the rows, G2 to G4) is not
looked at: the damage that is reported comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.errors import SchemaError, VecdbError
from vecdb.fields import declared as declared_fields
from vecdb.index import seats
from vecdb.index.attributes import END
from vecdb.index.changes import decode_changes, state_of
from vecdb.index.follow import Follower
from vecdb.index.valuekey import KIND_OF_TAG
from vecdb.index.view import Graphed, View
from vecdb.storage import codec, embeddings, keys, log, rows, state, vectors
from vecdb.storage.env import LMDB_ERRORS
from vecdb.storage.meta import FRAME
from vecdb.storage.rows import PLAIN, Row
from vecdb.storage.schema import Schema, read_all
from vecdb.types import Problem

if TYPE_CHECKING:
    from vecdb.database import Database

KINDS = frozenset(KIND_OF_TAG.values())
EMPTY = 0xFFFFFFFF  # an entry that is no link
LIMIT = 1000  # problems reported of one collection; more of the same tell nothing new


def check_database(db: Database) -> list[Problem]:
    """Every violated invariant of a database."""
    txn = db._env.begin_read()
    try:
        unsound = db._env.unsound()
        if unsound:
            return [Problem("F3", "structure", finding) for finding in unsound[:LIMIT]]
        return list(_problems(db, txn))
    except LMDB_ERRORS as error:
        raise db._env.translated(error) from error
    finally:
        txn.abort()


def _problems(db: Database, txn: Any) -> Iterator[Problem]:
    framed = list(_check_frames(txn))
    yield from framed
    try:
        commit = db._env.commit_number(txn)
        next_cid = db._env.meta(txn).next_cid
    except VecdbError as error:
        yield Problem("M1", "meta", getattr(error, "detail", "") or str(error))
        return
    try:
        catalog = read_all(txn)
    except VecdbError as error:
        yield _problem(error, "C1", getattr(error, "where", "") or "the catalog")
        return
    yield from _check_catalog(txn, catalog, next_cid)
    yield from _check_embeddings(txn)
    for name, (cid, schema) in sorted(catalog.items()):
        follower = db._followers.get(cid)
        mine = None if follower is None else follower.newest()
        found = _Check(name, cid, schema, txn, commit, db._threads).run(mine)
        for number, problem in enumerate(found):
            if number == LIMIT:
                yield Problem("C1", name, f"more than {LIMIT} problems; the rest is left out")
                break
            yield problem


def _check_frames(txn: Any) -> Iterator[Problem]:
    cursor = txn.cursor()
    more = cursor.first()
    while more:
        key = bytes(cursor.key())
        if key[0] not in keys.KIND_NAMES:
            yield Problem("F1", key.hex(), "a record of an unknown kind")
        elif not keys.well_formed(key):
            yield Problem("F2", keys.describe(key), "no key of that kind is spelled like this")
        else:
            try:
                _core.unseal(key[0], key, cursor.value())
            except ValueError as error:
                yield Problem("F1", keys.describe(key), str(error))
        more = cursor.next()


def _check_catalog(
    txn: Any, catalog: dict[str, tuple[int, Schema]], next_cid: int
) -> Iterator[Problem]:
    known = {cid for cid, _ in catalog.values()}
    found: Counter[int] = Counter()
    cursor = txn.cursor()
    more = cursor.first()
    while more:
        key = bytes(cursor.key())
        if key[0] in keys.KIND_NAMES and key[0] not in keys.OF_THE_DATABASE and keys.well_formed(key):
            cid = int.from_bytes(key[1:5], "big")
            found[cid] += key[0] == keys.CATALOG
            if cid not in known:
                known.add(cid)
                yield Problem("C1", keys.describe(key), "records of a collection that is not there")
        more = cursor.next()
    for name, (cid, _) in catalog.items():
        if cid >= next_cid:
            yield Problem("C1", name, f"its number {cid} is not below the next one, {next_cid}")
    if sum(found.values()) > len(catalog):
        yield Problem("C1", "the catalog", "two collections have the same name")


def _check_embeddings(txn: Any) -> Iterator[Problem]:
    for key, record in embeddings.records(txn):
        try:
            embeddings.vector_in(key, record)
        except ValueError as error:
            yield Problem("E2", keys.describe(key), str(error))
    record = txn.get(keys.CACHED_KEY)
    try:
        said = embeddings.Cached(0, 0) if record is None else embeddings.counts_in(record)
    except ValueError as error:
        yield Problem("E3", keys.describe(keys.CACHED_KEY), str(error))
        return
    found = embeddings.count(txn)
    if said != found:
        detail = f"it says {said.count} of {said.bytes} bytes; there are {found.count} of {found.bytes}"
        yield Problem("E3", keys.describe(keys.CACHED_KEY), detail)


class _Check:
    """One collection at one snapshot."""

    def __init__(
        self, name: str, cid: int, schema: Schema, txn: Any, commit: int, threads: int
    ) -> None:
        self.name = name
        self.cid = cid
        self.schema = schema
        self.txn = txn
        self.commit = commit
        self.follower = Follower(cid, lambda: 0, threads)
        self.layouts = {each.number: schema.layout(each) for each in schema.vectors.values()}
        self.graphed = [each for each in schema.vectors.values() if not each.multi]

    def run(self, mine: View | None) -> Iterator[Problem]:
        """Every problem of the collection."""
        try:
            now = state.read(self.txn, self.cid)
        except VecdbError as error:
            yield self.problem(error, "S1", self.name)
            return
        yield from self._state(now)
        live = BitMap()
        found_rows: dict[int, Row] = {}
        yield from self._rows(now, live, found_rows)
        yield from self._ids(live, found_rows)
        yield from self._declared(now)
        yield from self._blocks(now, found_rows)
        yield from self._many(found_rows)
        yield from self._log()
        yield from self._counts(now, live, found_rows)
        yield from self._images(now)
        try:
            view = self.follower.at(self.txn, self.commit)
        except VecdbError as error:
            yield self.problem(error, "G1", self.name)
            return
        yield from self._bitmap(view, live)
        yield from self._attributes(view, live, found_rows)
        yield from self._graph(view, live, mine)

    def at(self, what: str) -> str:
        """A place inside the collection."""
        return f"{self.name}/{what}"

    def problem(self, error: VecdbError, code: str, where: str) -> Problem:
        """What an error says, at the place that it names; else the code and place given."""
        found = _problem(error, code, where)
        place = getattr(error, "where", "")
        return Problem(found.code, self.at(place), found.detail) if place else found

    def _state(self, now: state.State) -> Iterator[Problem]:
        fields = now.vectors.values()
        marks = [now.live_to, now.rows_cut, now.rows_last, *now.fields_to]
        for each in fields:
            marks += [each.links_to, each.round_from, each.links_cut, each.links_last]
        if max(marks) > self.commit:
            yield Problem("S1", self.name, "a watermark lies beyond the last commit")
        last = [(log.ROWS, now.rows_last, now.rows_to)]
        last += [(keys.log_links(n), f.links_last, f.links_to) for n, f in now.vectors.items()]
        for part, commit, folded in last:
            if commit > folded and self.txn.get(keys.log(self.cid, commit, part)) is None:
                where = self.at(keys.describe(keys.log(self.cid, commit, part)))
                yield Problem("S1", where, "the last log record, not yet folded, is missing")

    def _declared(self, now: state.State) -> Iterator[Problem]:
        """Declaration and records name the same vector fields."""
        numbers = {each.number for each in self.graphed}
        if numbers != set(now.vectors):
            detail = f"it tells of the vector fields {sorted(now.vectors)}, not {sorted(numbers)}"
            yield Problem("S1", self.name, detail)
        for kind in (keys.VECTORS, keys.MANY, keys.LINKS, keys.EFFORT):
            for key, _ in self._scan(kind):
                if key[5] not in self.layouts:
                    where = self.at(keys.describe(key))
                    yield Problem("C1", where, "a record of a vector field that is not there")

    def _rows(
        self, now: state.State, live: BitMap, found: dict[int, Row]
    ) -> Iterator[Problem]:
        inline_from = {n: layout.inline_from(now.slots) for n, layout in self.layouts.items()}
        for key, value in self._scan(keys.ROWS):
            rid = int.from_bytes(key[5:], "big")
            where = self.at(f"row {rid}")
            try:
                row = rows.decode(_core.unseal(keys.ROWS, key, value))
                codec.unpack_metadata(row.metadata) if row.metadata else None
                (row.text or b"").decode()
            except (ValueError, VecdbError) as error:
                yield Problem("R5", where, getattr(error, "detail", "") or str(error))
                continue
            if row.changed > self.commit:
                yield Problem("R3", where, f"changed by commit {row.changed}, after the last one")
            yield from self._row(now, rid, row, inline_from)
            if not row.dead:
                live.add(rid)
                found[rid] = row
        for number, layout in self.layouts.items():
            if layout.sole and number in now.vectors:
                for slot in range(inline_from[number], now.slots):
                    if self.txn.get(keys.row(self.cid, slot)) is None:
                        yield Problem("V3", self.at(f"row {slot}"), "the vector of this slot is missing")

    def _row(
        self, now: state.State, rid: int, row: Row, inline_from: dict[int, int]
    ) -> Iterator[Problem]:
        where = self.at(f"row {rid}")
        graphed = [number for number in row.fields if number in now.vectors]
        sole = any(layout.sole for layout in self.layouts.values())
        if graphed and rid >= PLAIN or not graphed and rid < PLAIN and sole:
            yield Problem("R4", where, "its number is a slot's exactly if it has no vector")
        if any(number >= self.schema.next_number for number in row.fields):
            yield Problem("R4", where, "it has a vector in a field that never was declared")
        if rid >= (now.slots if rid < PLAIN else PLAIN + now.plain):
            yield Problem("R4", where, "its number has not been handed out yet")
        for number in graphed:
            if rid < PLAIN and (number in row.inline) != (rid >= inline_from[number]):
                yield Problem("V3", where, "its vector is both or neither in its block and inline")
        for number, vector in row.inline.items():
            layout = self.layouts.get(number)
            if layout is not None and len(vector) != layout.stride:
                detail = f"its vector has {len(vector)} bytes, not {layout.stride}"
                yield Problem("V3", where, detail)

    def _ids(self, live: BitMap, found: dict[int, Row]) -> Iterator[Problem]:
        led_to = BitMap()
        for key, value in self._scan(keys.IDS):
            where = self.at(f"id {_id(key)!r}")
            try:
                payload = _core.unseal(keys.IDS, key, value)
            except ValueError as error:
                yield Problem("R1", where, str(error))
                continue
            rid = int.from_bytes(payload, "little")
            row = found.get(rid)
            if len(payload) != 4:
                yield Problem("R1", where, f"{len(payload)} bytes where a row's number belongs")
                continue
            if row is None:
                yield Problem("R1", where, f"it leads to row {rid}, which is not there")
            elif row.idkey != key[5:]:
                yield Problem("R1", where, f"it leads to row {rid}, which carries another id")
            led_to.add(rid)
        for rid in live - led_to:
            yield Problem("R1", self.at(f"row {rid}"), "no id leads to this row")

    def _blocks(self, now: state.State, found: dict[int, Row]) -> Iterator[Problem]:
        for declared in self.graphed:
            layout = self.layouts[declared.number]
            expected = layout.full_blocks(now.slots)
            blocks: dict[int, vectors.Block | None] = {}
            for key, value in self._scan(keys.VECTORS):
                if key[5] != declared.number:
                    continue
                block = int.from_bytes(key[6:], "big")
                where = self.at(_block(declared.number, block))
                blocks[block] = None
                try:
                    blocks[block] = vectors.verify_block(key, value, layout, block)
                except VecdbError as error:
                    yield Problem("V2", where, getattr(error, "detail", "") or str(error))
                if block not in expected:
                    yield Problem("V1", where, "this block is not full yet")
            for block in expected:
                if block not in blocks:
                    where = self.at(_block(declared.number, block))
                    yield Problem("V1", where, "the block of vectors is missing")
            yield from self._seats(declared.number, layout, blocks, found)

    def _seats(
        self,
        number: int,
        layout: vectors.Layout,
        blocks: dict[int, vectors.Block | None],
        found: dict[int, Row],
    ) -> Iterator[Problem]:
        """Blocks and rows agree on who has a vector."""
        for rid, row in found.items():
            block = blocks.get(rid // layout.block_rows) if rid < PLAIN else None
            if block is None or number in row.inline:
                continue
            if block.has(rid % layout.block_rows) != (number in row.fields):
                where = self.at(f"row {rid}")
                yield Problem("V3", where, f"it and its block disagree on its vector in field {number}")

    def _many(self, found: dict[int, Row]) -> Iterator[Problem]:
        """Records of fields of many vectors a row."""
        seen: dict[int, set[int]] = {each.number: set() for each in self.schema.vectors.values()}
        for key, _ in self._scan(keys.MANY):
            number, rid = key[5], int.from_bytes(key[6:], "big")
            layout, row = self.layouts.get(number), found.get(rid)
            if layout is None:
                continue
            seen[number].add(rid)
            if row is None or number not in row.fields:
                yield Problem("V4", self.at(keys.describe(key)), "no row has these vectors")
            try:
                vectors.get_many(self.txn, self.cid, layout, rid)
            except VecdbError as error:
                yield self.problem(error, "V4", self.name)
        for declared in self.schema.vectors.values():
            for rid, row in found.items():
                if declared.multi and declared.number in row.fields and rid not in seen[declared.number]:
                    where = self.at(f"row {rid}")
                    yield Problem("V4", where, f"its vectors in field {declared.number} are missing")

    def _log(self) -> Iterator[Problem]:
        for key, _ in self._scan(keys.LOG):
            if key != keys.state(self.cid) and keys.log_position(key)[0] > self.commit:
                yield Problem("M1", self.at(keys.describe(key)), "it lies beyond the last commit")
        for key, value in self._scan(keys.LINKS):
            commit = int.from_bytes(value[FRAME : FRAME + 8], "little")
            if commit > self.commit:
                detail = f"of commit {commit}, beyond the last one"
                yield Problem("M1", self.at(keys.describe(key)), detail)

    def _images(self, now: state.State) -> Iterator[Problem]:
        """The images in themselves, before they are compared with the rows."""
        try:
            moving = {now.fold_next: self._moving(now)} if now.fold_part else {}
        except VecdbError as error:
            yield self.problem(error, "A3", self.name)
            return
        for code, where, detail in self.follower.attributes.problems(self.txn, moving):
            yield Problem(code, self.at(where), detail)

    def _moving(self, now: state.State) -> BitMap:
        """The rows that the fold under way moves: its field's values may differ in how far they are."""
        if now.fold_next >= len(now.fields_to):
            return BitMap()
        found = BitMap()
        after = now.fields_to[now.fold_next]
        for at, part, payload in log.read(self.txn, self.cid, after, self.commit):
            if part == log.ROWS:
                changes = log.RowsPart.unpack(payload, self.cid, at).attributes
                if changes is not None:
                    found |= decode_changes(changes, keys.log(self.cid, at, part)).touched
        return found

    def _counts(self, now: state.State, live: BitMap, found: dict[int, Row]) -> Iterator[Problem]:
        seated = int(live.range_cardinality(0, PLAIN))
        if (now.live, now.seated) != (len(live), seated):
            detail = f"it counts {now.live} rows, {now.seated} with vectors; there are "
            yield Problem("S2", self.name, f"{detail}{len(live)} and {seated}")
        for number, mine in now.vectors.items():
            ranked = sum(number in row.fields for row in found.values())
            if mine.ranked != ranked:
                detail = f"it counts {mine.ranked} vectors in field {number}; there are {ranked}"
                yield Problem("S2", self.name, detail)

    def _bitmap(self, view: View, live: BitMap) -> Iterator[Problem]:
        if view.live != live:
            wrong = view.live ^ live
            yield Problem("W1", self.name, f"the bitmap of live rows is wrong for {_some(wrong)}")

    def _attributes(
        self, view: View, live: BitMap, found: dict[int, Row]
    ) -> Iterator[Problem]:
        expected: dict[tuple[int, bytes], BitMap] = {}
        names = dict(view.names)
        declared = declared_fields(self.schema.fields)
        for rid, row in found.items():
            metadata = codec.unpack_metadata(row.metadata) if row.metadata else {}
            try:
                declared.check(metadata, "its metadata")
            except SchemaError as error:
                yield Problem("R6", self.at(f"row {rid}"), str(error))
            try:
                entries = state_of(metadata, names, declared)
                entries += seats.lacking(rid, row.fields, self.graphed, names)
            except VecdbError as error:
                yield Problem("R5", self.at(f"row {rid}"), str(error))
                continue
            for entry in entries:
                expected.setdefault(entry, BitMap()).add(rid)
        for fieldid, name in enumerate(names):
            if fieldid >= len(view.names):
                yield Problem("A1", self.at(f"field {name!r}"), "the field is not registered")
        try:
            for entry, rids in self._postings(view):
                if rids & live != expected.pop(entry, BitMap()):
                    yield Problem(
                        "A1", self._field(view, entry[0]), "a posting disagrees with the rows"
                    )
        except VecdbError as error:
            yield self.problem(error, "A1", self.name)
            return
        for entry in expected:
            yield Problem("A1", self._field(view, entry[0]), "a posting is missing")

    def _postings(self, view: View) -> Iterator[tuple[tuple[int, bytes], BitMap]]:
        """Every value key with its rows, by the rule that filters use; kinds are derived."""
        reader = self.follower.attributes.reader(self.txn)
        for fieldid, name in enumerate(view.names):
            if seats.is_of_dropped(name, self.layouts):
                continue
            image = dict(reader.range(fieldid, b"", END))
            tail = dict(view.tail.range(fieldid, b"", END))
            for key in sorted(image.keys() | tail.keys()):
                if key not in KINDS:
                    rids = image.get(key, BitMap()) - view.tail.touched
                    yield (fieldid, key), rids | tail.get(key, BitMap())

    def _field(self, view: View, fieldid: int) -> str:
        names = list(view.names)
        return self.at(f"field {names[fieldid] if fieldid < len(names) else fieldid!r}")

    def _graph(self, view: View, live: BitMap, mine: View | None) -> Iterator[Problem]:
        for number, field in view.vectors.items():
            held = self.follower.holders(self.txn, view, field.declared)
            members = live & BitMap(range(view.slots)) if held is None else held.rids
            other = None if mine is None else mine.vectors.get(number)
            if mine is None or mine.commit != view.commit or other is None:
                yield from self._links(field, members, None)
            else:
                yield from self._links(field, members, other.graph)

    def _links(self, field: Graphed, members: BitMap, mine: Any) -> Iterator[Problem]:
        graph = field.graph
        name = self.name if self.layouts[field.declared.number].sole else self.at(
            f"vector field {field.declared.number}"
        )
        for detail in graph.check():
            yield Problem("G2", name, detail)
        lost = BitMap(graph.unreachable()) & members
        if lost:
            yield Problem("G3", name, f"no walk reaches {_some(lost)}")
        outside = self._outside(field, members)
        if outside:
            yield Problem("G3", name, f"the graph has no links of {_some(outside)}")
        if mine is None:
            return
        if mine.n_slots != graph.n_slots:
            detail = f"memory has {mine.n_slots} slots, the file {graph.n_slots}"
            yield Problem("G4", self.at("links"), detail)
            return
        for layer in (0, 1):
            for chunk in range(graph.n_chunks(layer)):
                if graph.chunk(layer, chunk) != mine.chunk(layer, chunk):
                    yield Problem("G4", self.at(f"links {layer}/{chunk}"), "it differs from memory")

    def _outside(self, field: Graphed, members: BitMap) -> BitMap:
        """Slots that are not in the graph: the first place of their row is empty."""
        graph, width, outside = field.graph, 2 * field.declared.M, BitMap()
        for chunk in range(graph.n_chunks(0)):
            first_places = np.frombuffer(graph.chunk(0, chunk), "<u4")[::width]
            empty = np.flatnonzero(first_places == EMPTY) + chunk * graph.chunk_rows
            outside.update(empty.tolist())
        return (outside | BitMap(range(graph.n_slots, PLAIN))) & members

    def _scan(self, kind: int) -> Iterator[tuple[bytes, Any]]:
        prefix = keys.prefix(kind, self.cid)
        cursor = self.txn.cursor()
        more = cursor.set_range(prefix)
        while more:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            if keys.well_formed(key):  # the others are reported already (F2)
                yield key, cursor.value()
            more = cursor.next()


def _problem(error: VecdbError, code: str, where: str) -> Problem:
    detail = getattr(error, "detail", "") or str(error)
    return Problem(getattr(error, "code", "") or code, where, detail)


def _block(number: int, block: int) -> str:
    return f"block {block}" if number == 0 else f"block {block} of vector field {number}"


def _some(rids: BitMap) -> str:
    first = ", ".join(map(str, list(rids[:5])))
    return f"{len(rids)} rows ({first}{', ...' if len(rids) > 5 else ''})"


def _id(key: bytes) -> Any:
    try:
        return keys.decode_id(key)
    except ValueError:
        return key.hex()
