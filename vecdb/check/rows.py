"""Do state, rows, ids and vectors agree? What no index can be asked about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyroaring import BitMap

from vecdb import _core
from vecdb.check.subject import Subject
from vecdb.errors import VecdbError
from vecdb.index import seats
from vecdb.storage import codec, keys, log, rows, state, vectors
from vecdb.storage.meta import FRAME
from vecdb.storage.rows import PLAIN, Row
from vecdb.storage.schema import VectorField
from vecdb.types import Problem


def problems(of: Subject, now: state.State) -> Iterator[Problem]:
    """S, R and V of a collection; fills the subject's `live` and `found`."""
    yield from _state(of, now)
    yield from _rows(of, now)
    yield from _ids(of)
    yield from _declared(of, now)
    yield from _blocks(of, now)
    yield from _many(of)
    yield from _log(of)
    yield from _counts(of, now)


def _state(of: Subject, now: state.State) -> Iterator[Problem]:
    fields = now.vectors.values()
    marks = [now.live_to, now.rows_cut, now.rows_last, *now.fields_to]
    if now.text is not None:
        marks.append(now.text.to)
    for each in fields:
        marks += [each.links_to, each.round_from, each.links_cut, each.links_last]
    if max(marks) > of.commit:
        yield Problem("S1", of.name, "a watermark lies beyond the last commit")
    if now.rows_cut > now.rows_to or any(each.links_cut > each.links_to for each in fields):
        yield Problem("S1", of.name, "its log was cut beyond what an image contains")
    last = [(log.ROWS, now.rows_last, now.rows_to)]
    last += [(keys.log_links(n), f.links_last, f.links_to) for n, f in now.vectors.items()]
    for part, commit, folded in last:
        if commit > folded and of.txn.get(keys.log(of.cid, commit, part)) is None:
            where = of.at(keys.describe(keys.log(of.cid, commit, part)))
            yield Problem("S1", where, "the last log record, not yet folded, is missing")


def _declared(of: Subject, now: state.State) -> Iterator[Problem]:
    """Declaration and records name the same vector fields."""
    numbers = {each.number for each in of.graphed}
    if numbers != set(now.vectors):
        detail = f"it tells of the vector fields {sorted(now.vectors)}, not {sorted(numbers)}"
        yield Problem("S1", of.name, detail)
    for kind in (keys.VECTORS, keys.MANY, keys.LINKS, keys.EFFORT):
        for key, _ in of.scan(kind):
            if key[5] not in of.layouts:
                where = of.at(keys.describe(key))
                yield Problem("C1", where, "a record of a vector field that is not there")


def _rows(of: Subject, now: state.State) -> Iterator[Problem]:
    """Every record of a row; notes the live ones."""
    inline_from = {n: layout.inline_from(now.slots) for n, layout in of.layouts.items()}
    for key, value in of.scan(keys.ROWS):
        rid = int.from_bytes(key[5:], "big")
        where = of.at(f"row {rid}")
        try:
            row = rows.decode(_core.unseal(keys.ROWS, key, value))
            codec.unpack_metadata(row.metadata) if row.metadata else None
            (row.text or b"").decode()
        except (ValueError, VecdbError) as error:
            yield Problem("R5", where, getattr(error, "detail", "") or str(error))
            continue
        if row.changed > of.commit:
            yield Problem("R3", where, f"changed by commit {row.changed}, after the last one")
        yield from _row(of, now, rid, row, inline_from)
        if not row.dead:
            of.live.add(rid)
            of.found[rid] = row


def _row(
    of: Subject, now: state.State, rid: int, row: Row, inline_from: dict[int, int]
) -> Iterator[Problem]:
    where = of.at(f"row {rid}")
    graphed = [number for number in row.inline if number in now.vectors]  # a dead row names no others
    if not row.dead:
        fields = ((each, now.vectors.get(each.number)) for each in of.graphed)
        graphed = [each.number for each, mine in fields if seats.has(each, mine, rid, row.fields)]
    sole = any(layout.sole for layout in of.layouts.values())
    if graphed and rid >= PLAIN or not graphed and rid < PLAIN and sole:
        yield Problem("R4", where, "its number is a slot's exactly if it has no vector")
    if any(number >= of.schema.next_number for number in row.fields):
        yield Problem("R4", where, "it has a vector in a field that never was declared")
    if rid >= (now.slots if rid < PLAIN else PLAIN + now.plain):
        yield Problem("R4", where, "its number has not been handed out yet")
    for number in graphed:
        written, travels = rid < inline_from[number], number in row.inline
        if rid < PLAIN and travels == written and not (travels and rid in now.loose):
            yield Problem("V3", where, "its vector is both or neither in its block and inline")
    for number, vector in row.inline.items():
        layout = of.layouts.get(number)
        if layout is not None and len(vector) != layout.stride:
            detail = f"its vector has {len(vector)} bytes, not {layout.stride}"
            yield Problem("V3", where, detail)


def _ids(of: Subject) -> Iterator[Problem]:
    led_to = BitMap()
    for key, value in of.scan(keys.IDS):
        where = of.at(f"id {_id(key)!r}")
        try:
            payload = _core.unseal(keys.IDS, key, value)
        except ValueError as error:
            yield Problem("R1", where, str(error))
            continue
        rid = int.from_bytes(payload, "little")
        row = of.found.get(rid)
        if len(payload) != 4:
            yield Problem("R1", where, f"{len(payload)} bytes where a row's number belongs")
            continue
        if row is None:
            yield Problem("R1", where, f"it leads to row {rid}, which is not there")
        elif row.idkey != key[5:]:
            yield Problem("R1", where, f"it leads to row {rid}, which carries another id")
        led_to.add(rid)
    for rid in of.live - led_to:
        yield Problem("R1", of.at(f"row {rid}"), "no id leads to this row")


def _blocks(of: Subject, now: state.State) -> Iterator[Problem]:
    for declared in of.graphed:
        layout = of.layouts[declared.number]
        expected = layout.full_blocks(now.slots)
        blocks: dict[int, vectors.Block | None] = {}
        for key, value in of.scan(keys.VECTORS):
            if key[5] != declared.number:
                continue
            block = int.from_bytes(key[6:], "big")
            where = of.at(_block(declared.number, block))
            blocks[block] = None
            try:
                blocks[block] = vectors.verify_block(key, value, layout, block)
            except VecdbError as error:
                yield Problem("V2", where, getattr(error, "detail", "") or str(error))
            if block not in expected:
                yield Problem("V1", where, "this block is not full yet")
        for block in expected:
            if block not in blocks:
                where = of.at(_block(declared.number, block))
                yield Problem("V1", where, "the block of vectors is missing")
        yield from _seats(of, now, declared, layout, blocks)


def _seats(
    of: Subject,
    now: state.State,
    declared: VectorField,
    layout: vectors.Layout,
    blocks: dict[int, vectors.Block | None],
) -> Iterator[Problem]:
    """Blocks and rows agree on who has a vector."""
    number, mine = declared.number, now.vectors.get(declared.number)
    for rid, row in of.found.items():
        block = blocks.get(rid // layout.block_rows) if rid < PLAIN else None
        if block is None or number in row.inline:
            continue
        has = seats.has(declared, mine, rid, row.fields)
        if rid in now.loose and not has:
            continue  # what its block has is of the row that had the slot before
        if block.has(rid % layout.block_rows) != has:
            where = of.at(f"row {rid}")
            yield Problem("V3", where, f"it and its block disagree on its vector in field {number}")


def _many(of: Subject) -> Iterator[Problem]:
    """Records of fields of many vectors a row."""
    seen: dict[int, set[int]] = {number: set() for number in of.fields}
    for key, _ in of.scan(keys.MANY):
        number, rid = key[5], int.from_bytes(key[6:], "big")
        layout, row = of.layouts.get(number), of.found.get(rid)
        if layout is None:
            continue
        seen[number].add(rid)
        if row is None or number not in row.fields:
            yield Problem("V4", of.at(keys.describe(key)), "no row has these vectors")
        try:
            vectors.get_many(of.txn, of.cid, layout, rid)
        except VecdbError as error:
            yield of.problem(error, "V4", of.name)
    for declared in of.schema.vectors.values():
        for rid, row in of.found.items():
            if declared.graphed or declared.number not in row.fields:
                continue
            if rid not in seen[declared.number]:
                where = of.at(f"row {rid}")
                yield Problem("V4", where, f"its vectors in field {declared.number} are missing")


def _log(of: Subject) -> Iterator[Problem]:
    for key, _ in of.scan(keys.LOG):
        if key >= keys.condemned(of.cid):
            continue  # slots.py
        if keys.log_position(key)[0] > of.commit:
            yield Problem("M1", of.at(keys.describe(key)), "it lies beyond the last commit")
    for key, value in of.scan(keys.LINKS):
        commit = int.from_bytes(value[FRAME : FRAME + 8], "little")
        if commit > of.commit:
            detail = f"of commit {commit}, beyond the last one"
            yield Problem("M1", of.at(keys.describe(key)), detail)


def _counts(of: Subject, now: state.State) -> Iterator[Problem]:
    seated = int(of.live.range_cardinality(0, PLAIN))
    if (now.live, now.seated) != (len(of.live), seated):
        detail = f"it counts {now.live} rows, {now.seated} with vectors; there are "
        yield Problem("S2", of.name, f"{detail}{len(of.live)} and {seated}")
    for number, mine in now.vectors.items():
        declared = of.fields.get(number)
        if declared is None:
            continue
        ranked = sum(seats.has(declared, mine, rid, row.fields) for rid, row in of.found.items())
        if mine.ranked != ranked:
            detail = f"it counts {mine.ranked} vectors in field {number}; there are {ranked}"
            yield Problem("S2", of.name, detail)


def _block(number: int, block: int) -> str:
    return f"block {block}" if number == 0 else f"block {block} of vector field {number}"


def _id(key: bytes) -> Any:
    try:
        return keys.decode_id(key)
    except ValueError:
        return key.hex()
