"""Do the indexes say what the rows say? Bitmap, postings and graphs, loaded again from the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pyroaring import BitMap

from vecdb.check import slots
from vecdb.check.subject import Subject, some
from vecdb.errors import SchemaError, VecdbError
from vecdb.fields import declared as declared_fields
from vecdb.index import seats, tracking
from vecdb.index.attributes import END
from vecdb.index.changes import decode_changes, state_of
from vecdb.index.columns import columns_of
from vecdb.index.effort import MEASURED_K, Measured
from vecdb.index.follow import Follower
from vecdb.index.loading import CHUNK_HEADER
from vecdb.index.valuekey import KIND_OF_TAG
from vecdb.index.view import Graphed, View, mask_of
from vecdb.storage import codec, keys, log
from vecdb.storage.meta import FRAME
from vecdb.storage.rows import PLAIN
from vecdb.storage.state import State
from vecdb.types import Problem

KINDS = frozenset(KIND_OF_TAG.values())
EMPTY = 0xFFFFFFFF  # an entry that is no link
CODES = 4096  # compared at a time


def problems(of: Subject, view: View, mine: Follower | None) -> Iterator[Problem]:
    """W1, A1 and G of a collection whose rows have been looked at; `mine`: what this process keeps of it."""
    yield from _bitmap(of, view)
    yield from _attributes(of, view)
    yield from _effort(of, view)
    yield from _graph(of, view, mine)


def images(of: Subject, now: State) -> Iterator[Problem]:
    """The images in themselves, before they are compared with the rows."""
    yield from _leaves(of, now)
    for key, record in of.scan(keys.LINKS):
        mine = now.vectors.get(key[5])
        if mine is None or len(record) < FRAME + CHUNK_HEADER:
            continue
        where, commit = of.at(keys.describe(key)), int.from_bytes(record[FRAME : FRAME + 8], "little")
        if record[FRAME + 8] != key[6]:
            yield Problem("G5", where, f"it names layer {record[FRAME + 8]}")
        if commit < mine.links_to:
            detail = f"of commit {commit}, before the image's watermark {mine.links_to}"
            yield Problem("G5", where, detail)


def _leaves(of: Subject, now: State) -> Iterator[Problem]:
    try:
        moving = {now.fold_next: _moving(of, now)} if now.fold_at else {}
    except VecdbError as error:
        yield of.problem(error, "A3", of.name)
        return
    for code, where, detail in of.follower.attributes.problems(of.txn, moving):
        yield Problem(code, of.at(where), detail)


def _moving(of: Subject, now: State) -> BitMap:
    """The rows that the fold under way moves: its field's values may differ in how far they are."""
    found = BitMap()
    if now.fold_next >= len(now.fields_to):
        return found
    for at, part, payload in log.read(of.txn, of.cid, now.fields_to[now.fold_next], of.commit):
        if part == log.ROWS:
            changes = log.RowsPart.unpack(payload, of.cid, at).attributes
            if changes is not None:
                found |= decode_changes(changes, keys.log(of.cid, at, part)).touched
    return found


def _bitmap(of: Subject, view: View) -> Iterator[Problem]:
    if view.live != of.live:
        wrong = view.live ^ of.live
        yield Problem("W1", of.name, f"the bitmap of live rows is wrong for {some(wrong)}")


def _attributes(of: Subject, view: View) -> Iterator[Problem]:
    expected: dict[tuple[int, bytes], BitMap] = {}
    names = dict(view.names)
    declared, columns = declared_fields(of.schema.fields), columns_of(of.schema)
    for rid, row in of.found.items():
        metadata = codec.unpack_metadata(row.metadata) if row.metadata else {}
        try:
            declared.check(metadata, "its metadata")
        except SchemaError as error:
            yield Problem("R6", of.at(f"row {rid}"), str(error))
        try:
            entries = columns.mark(row.text, metadata, names) + state_of(metadata, names, declared)
            entries += seats.lacking(rid, row.fields, of.stated, names)
            entries += tracking.marks(of.schema.tracked, row.changed, names)
        except VecdbError as error:
            yield Problem("R5", of.at(f"row {rid}"), str(error))
            continue
        for entry in entries:
            expected.setdefault(entry, BitMap()).add(rid)
    for fieldid, name in enumerate(names):
        if fieldid >= len(view.names):
            yield Problem("A1", of.at(f"field {name!r}"), "the field is not registered")
    try:
        for entry, rids in _postings(of, view):
            if rids & of.live != expected.pop(entry, BitMap()):
                yield Problem(
                    "A1", _field(of, view, entry[0]), "a posting disagrees with the rows"
                )
    except VecdbError as error:
        yield of.problem(error, "A1", of.name)
        return
    for entry in expected:
        yield Problem("A1", _field(of, view, entry[0]), "a posting is missing")


def _postings(of: Subject, view: View) -> Iterator[tuple[tuple[int, bytes], BitMap]]:
    """Every value key with its rows, by the rule that filters use; kinds are derived."""
    reader = of.follower.attributes.reader(of.txn)
    for fieldid, name in enumerate(view.names):
        if seats.is_of_dropped(name, {each.member for each in of.stated}):
            continue
        image = dict(reader.range(fieldid, b"", END))
        tail = dict(view.tail.range(fieldid, b"", END))
        for key in sorted(image.keys() | tail.keys()):
            if key not in KINDS:
                rids = image.get(key, BitMap()) - view.tail.touched
                yield (fieldid, key), rids | tail.get(key, BitMap())


def _field(of: Subject, view: View, fieldid: int) -> str:
    names = list(view.names)
    return of.at(f"field {names[fieldid] if fieldid < len(names) else fieldid!r}")


def _effort(of: Subject, view: View) -> Iterator[Problem]:
    """Nobody finds more than there is, and each sample wanted ten neighbours at most."""
    for number, (_, _, effort) in view.vectors.items():
        where = of.at(keys.describe(keys.effort(of.cid, number)))
        for measured in () if effort is None else (effort.done, effort.pending, Measured(effort.before)):
            for sums in (measured.plain, *measured.bands):
                if max(sums.found) > sums.wanted or sums.wanted > MEASURED_K * sums.samples:
                    detail = f"{max(sums.found)} found of {sums.wanted} in {sums.samples} samples"
                    yield Problem("E1", where, detail)


def _graph(of: Subject, view: View, mine: Follower | None) -> Iterator[Problem]:
    mask = mask_of(slots.condemned(of, view), view.slots)
    for number, field in view.vectors.items():
        held = of.follower.holders(of.txn, view, field.declared)
        members = of.live & BitMap(range(view.slots)) if held is None else held.rids
        yield from _links(of, field, members, mask)
        if mine is not None:
            yield from _memory(of, view, number, mine)


def _links(of: Subject, field: Graphed, members: BitMap, mask: bytes) -> Iterator[Problem]:
    graph = field.graph
    name = of.name if of.layouts[field.declared.number].sole else of.at(
        f"vector field {field.declared.number}"
    )
    for detail in graph.check(mask):
        yield Problem("G2", name, detail)
    lost = BitMap(graph.unreachable()) & members
    if lost:
        yield Problem("G3", name, f"no walk reaches {some(lost)}")
    outside = _outside(of, field, members)
    if outside:
        yield Problem("G3", name, f"the graph has no links of {some(outside)}")


def _memory(of: Subject, view: View, number: int, mine: Follower) -> Iterator[Problem]:
    """G4 and G6, where this process's graph stands at the same commit.

    Its other threads, the idle one too, commit meanwhile, and their commits change the graph in its place. So
    what was seen counts when nothing was published until it was seen once more, with publishing held up.
    """
    known, graph = mine.newest(), view.vectors[number].graph
    other = None if known is None or known.commit != view.commit else known.vectors.get(number)
    if other is None or not any(_compared(of, graph, other.graph)):
        return
    with mine.lock:
        if mine.newest() is known:
            yield from _compared(of, graph, other.graph)


def _compared(of: Subject, graph: Any, mine: Any) -> Iterator[Problem]:
    """How a graph in memory differs from the file's."""
    if mine.n_slots != graph.n_slots:
        detail = f"memory has {mine.n_slots} slots, the file {graph.n_slots}"
        yield Problem("G4", of.at("links"), detail)
        return
    if mine.scale != graph.scale:
        yield Problem("G4", of.at("codes"), f"memory has the scale {mine.scale}, the file {graph.scale}")
    for slot in _private(mine):
        if graph.has_vector(slot) and mine.vector(slot) != graph.vector(slot):
            yield Problem("G4", of.at(f"row {slot}"), "its vector in memory differs")
    for layer in (0, 1):
        for chunk in range(graph.n_chunks(layer)):
            if graph.chunk(layer, chunk) != mine.chunk(layer, chunk):
                yield Problem("G4", of.at(f"links {layer}/{chunk}"), "it differs from memory")
    for first in range(0, graph.n_slots, CODES):
        count = min(CODES, graph.n_slots - first)
        if graph.codes(first, count) != mine.codes(first, count) and not _same_codes(
            graph, mine, first, count
        ):
            yield Problem("G6", of.at(f"codes {first}"), "a code in memory is not its vector's")


def _same_codes(graph: Any, mine: Any, first: int, count: int) -> bool:
    """Whether the codes of slots in the graph agree: those of vacant ones are nobody's."""
    slots = np.arange(first, first + count, dtype=np.uint32)
    inside = np.frombuffer(graph.absent(slots), np.uint8) == 0
    ours, theirs = (
        np.frombuffer(each.codes(first, count), np.uint8).reshape(count, -1) for each in (mine, graph)
    )
    return bool((ours[inside] == theirs[inside]).all())


def _private(graph: Any) -> Iterator[int]:
    """The slots whose vectors are copies in memory, and not the file's own pages."""
    for block in graph.private_blocks():
        first = block * graph.block_rows
        slots = np.arange(first, first + graph.block_rows, dtype=np.uint32)
        for slot, absent in zip(slots.tolist(), graph.absent(slots), strict=True):
            if not absent and graph.has_vector(slot):
                yield slot


def _outside(of: Subject, field: Graphed, members: BitMap) -> BitMap:
    """Slots that are not in the graph: the first place of their row is empty."""
    graph, width, outside = field.graph, 2 * field.declared.M, BitMap()
    for chunk in range(graph.n_chunks(0)):
        first_places = np.frombuffer(graph.chunk(0, chunk), "<u4")[::width]
        empty = np.flatnonzero(first_places == EMPTY) + chunk * graph.chunk_rows
        outside.update(empty.tolist())
    return (outside | BitMap(range(graph.n_slots, PLAIN))) & members
