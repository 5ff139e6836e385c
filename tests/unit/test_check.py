"""Every invariant that `check` knows, violated once: it says which, of what, and where.

Damage is planted in a whole file (tests/damage.py) beneath vecdb, with right checksums, so that it
is the invariant itself that speaks; F1 is about checksums. A row of PLANTS is

    code, name, what is done to the file, where check must place it, a word of what it must say

`test_every_code_has_a_planted_violation` reads the codes out of the sources: a new one without a
row here fails.
"""

from __future__ import annotations

import ast
import re
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyroaring import BitMap

import vecdb
from tests import child, damage, deeds
from tests.damage import change, keys_of, patch, payload, put
from tests.planting import (
    CID,
    MOVED,
    Plant,
    chunk_of_posting,
    declared,
    delete,
    disagree,
    flip,
    held,
    hide,
    leaf,
    link,
    links,
    many,
    map_of,
    move,
    now,
    now_field,
    row,
    rows_log,
    several,
    unlink,
)  # fmt: skip
from vecdb import F, check
from vecdb.adapting.adapter import Adapter
from vecdb.index.leaf import STAMP, stamp_of
from vecdb.index.valuekey import NUMBERS, key_of
from vecdb.storage import codec, embeddings, keys, rows, state
from vecdb.storage.rows import PLAIN
from vecdb.types import Problem

PACKAGE = Path(vecdb.__file__).parent


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole file, as it should be."""
    path = tmp_path_factory.mktemp("check") / "sound.vecdb"
    damage.build(path)
    return path


@pytest.fixture
def path(sound: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "c.vecdb"
    shutil.copyfile(sound, copy)
    return copy


def checked(path: Path) -> list[Problem]:
    with vecdb.open(path, mode="r", verify="never") as db:
        return db.check()


LOG_KEY = keys.log(CID, 14, 1)
ONE = embeddings.keys_of(vecdb.encoders.get("hashing:16").fingerprint, ["one"])[0]
UNKNOWN = b"\x77\x00\x00\x00\x01"


def watcher(txn: Any) -> bytes:
    return keys_of(txn, bytes((keys.WATCHERS,)))[0]


def stretch(txn: Any) -> bytes:
    return keys_of(txn, bytes((keys.SEARCH_LOG,)))[0]


# --- the table -------------------------------------------------------------------------------------

PLANTS: list[tuple[str, str, Plant, str, str]] = [
    # frames and keys
    ("F1", "a flipped bit in a row", flip(keys.row(CID, 8), 40), "rows/1/0x00000008", "checksum"),
    ("F1", "a flipped bit in a block", flip(keys.vector_block(CID, 0, 1), 5000),
     "vectors/1/0x0000000001", "checksum"),
    ("F1", "a flipped length", flip(keys.row(CID, 8), 5), "rows/1/0x00000008", "length"),
    ("F1", "another kind", flip(keys.row(CID, 8), 0), "rows/1/0x00000008", "kind"),
    ("F1", "a record under another's key",
     lambda t: t.put(keys.row(CID, 8), bytes(t.get(keys.row(CID, 7)))), "rows/1/0x00000008", "checksum"),
    ("F1", "an empty record", lambda t: t.put(keys.row(CID, 8), b""), "rows/1/0x00000008", "few"),
    ("F1", "an unknown kind", lambda t: put(t, UNKNOWN, b"x"), UNKNOWN.hex(), "unknown"),
    ("F2", "a row's key too long", lambda t: put(t, keys.row(CID, 8) + b"x", b""), "rows/1/0x0000000878", "spelled"),
    ("F2", "an id of no kind", lambda t: put(t, keys.prefix(keys.IDS, CID) + b"\x03abc", b"\1\0\0\0"),
     "ids/1/0x03616263", "spelled"),
    ("F2", "an id that is not UTF-8", lambda t: put(t, keys.prefix(keys.IDS, CID) + b"\x02\xff", b"\1\0\0\0"),
     "ids/1/0x02ff", "spelled"),
    ("F2", "a vector field too many", lambda t: put(t, keys.vector_block(CID, 251, 0), b""),
     "vectors/1/0xfb00000000", "spelled"),
    ("F2", "a third layer", lambda t: put(t, keys.links(CID, 0, 2, 0), b""), "links/1/0x000200000000", "spelled"),
    ("F2", "a part of a log too many", lambda t: put(t, keys.log(CID, 9, 252), b""), "log/1/0x0000000000000009fc", "spelled"),
    ("F2", "a short key", lambda t: put(t, b"\x30\x00", b""), "rows/00", "spelled"),
    # commits
    ("M1", "a log record of the future", lambda t: put(t, keys.log(CID, 999, 1), payload(t, LOG_KEY)),
     "rows/log/1/0x00000000000003e701", "beyond"),
    ("M1", "links of the future", lambda t: patch(t, keys.links(CID, 0, 0, 1), "<Q", 0, 999),
     "rows/links/1/0x000000000001", "999"),
    ("M2", "times that are none", lambda t: put(t, keys.TIMES_KEY, b"123"), "times", "3 bytes"),
    ("M2", "times that go back", lambda t: put(t, keys.TIMES_KEY, struct.pack("<QIQI", 7, 90, 8, 80)), "times", "ascend"),
    # catalog
    ("C1", "two of a name", lambda t: change(t, keys.catalog(3), lambda d: {**d, "name": "empty"}),
     "the catalog", "same name"),
    ("C1", "a number beyond the next", lambda t: move(t, keys.catalog(4), keys.catalog(77)), "empty", "77"),
    ("C1", "records of nobody", lambda t: put(t, keys.row(99, 1), b""), "rows/99/0x00000001", "not there"),
    ("C1", "the declaration is gone", delete(keys.catalog(2)), "ids/2/", "not there"),
    ("C1", "an impossible declaration", lambda t: change(t, keys.catalog(2), lambda d: declared(d, dim=0)),
     "catalog/2", "dim=0"),
    ("C1", "an unknown part of a declaration", lambda t: change(t, keys.catalog(2), lambda d: {**d, "x": 0}),
     "catalog/2", "x"),
    ("C1", "a block of a field that is not there", lambda t: put(t, keys.vector_block(CID, 7, 0), b""),
     "rows/vectors/1/0x0700000000", "not there"),
    ("C1", "two fields of a number", lambda t: change(t, keys.catalog(2), lambda d: {**d, "vectors": dict.fromkeys("ab", d["vectors"]["vector"])}),
     "catalog/2", "number"),
    ("C1", "a field declared to be nothing", lambda t: declare(t, {"n": "bytes"}), "catalog/1", "declaration"),
    ("C1", "no declaration", lambda t: put(t, keys.catalog(2), b"\xc1"), "catalog/2", ""),
    # rows and ids
    ("R1", "an id to nowhere", lambda t: put(t, keys.row_id(CID, 8), rows._RID.pack(999_999)),
     "rows/id 8", "row 999999"),
    ("R1", "an id to another's row", lambda t: put(t, keys.row_id(CID, 8), rows._RID.pack(7)),
     "rows/id 8", "another id"),
    ("R1", "an id without a number", lambda t: put(t, keys.row_id(CID, 8), b""), "rows/id 8", "0 bytes"),
    ("R1", "an id with too long a number", lambda t: put(t, keys.row_id(CID, 8), bytes(2000)), "rows/id 8", "2000 bytes"),
    ("R1", "an id to a dead row", lambda t: put(t, keys.row_id(CID, 8), rows._RID.pack(1298)),
     "rows/id 8", "not there"),
    ("R1", "a row that nobody leads to", delete(keys.row_id(CID, 8)), "rows/row 8", "no id"),
    ("R1", "a row is gone", delete(keys.row(CID, 8)), "rows/id 8", "not there"),
    ("R2", "a flipped bit in an inline vector", flip(keys.row(CID, 1297), 120), "rows/rows/1/0x00000511", "checksum"),
    ("R3", "a row of the future", lambda t: row(t, 8, lambda r: r._replace(changed=999)), "rows/row 8", "999"),
    ("R4", "a row beyond the next number", lambda t: put(t, keys.row(CID, 5000), payload(t, keys.row(CID, 1299))),
     "rows/row 5000", "handed out"),
    ("R4", "a plain row beyond the next number",
     lambda t: put(t, keys.row(CID, PLAIN + 50), payload(t, keys.row(CID, PLAIN))),
     f"rows/row {PLAIN + 50}", "handed out"),
    ("R4", "a slot without a vector", lambda t: row(t, 8, lambda r: r._replace(fields=())),
     "rows/row 8", "slot"),
    ("R4", "a vector without a slot", lambda t: row(t, PLAIN, lambda r: r._replace(fields=(0,))),
     f"rows/row {PLAIN}", "slot"),
    ("R4", "a vector of a field that never was", lambda t: row(t, 8, lambda r: r._replace(fields=(0, 9))),
     "rows/row 8", "declared"),
    ("R5", "vectors that do not fit", lambda t: put(t, keys.row(CID, 8), several(payload(t, keys.row(CID, 8)))),
     "rows/row 8", "fit"),
    ("R5", "metadata that is none", lambda t: row(t, 8, lambda r: r._replace(metadata=b"\xc1")), "rows/row 8", ""),
    ("R5", "metadata that is a list", lambda t: row(t, 8, lambda r: r._replace(metadata=b"\x90")),
     "rows/row 8", "list"),
    ("R5", "a field twice", lambda t: row(t, 8, lambda r: r._replace(metadata=codec.pack({"a": {"b": 1}, "a.b": 2}))),
     "rows/row 8", "twice"),
    ("R5", "a row too short", lambda t: put(t, keys.row(CID, 8), b"123"), "rows/row 8", "few"),
    ("R5", "a row without an id", lambda t: row(t, 8, lambda r: r._replace(idkey=b"")), "rows/row 8", "no id"),
    ("R5", "an id that is not UTF-8", lambda t: row(t, 8, lambda r: r._replace(idkey=b"\x02\xff")), "rows/row 8", "no id"),
    ("R5", "an id of no kind", lambda t: row(t, 8, lambda r: r._replace(idkey=b"\x07abc")), "rows/row 8", "no id"),
    ("R5", "parts that do not fit", lambda t: patch(t, keys.row(CID, 8), "<I", 12, 1 << 30), "rows/row 8", "fit"),
    ("R5", "text that is not UTF-8", lambda t: row(t, 8, lambda r: r._replace(text=b"\xff")), "rows/row 8", "utf"),
    ("R6", "a value that was declared otherwise", lambda t: declare(t, {"n": "str"}), "rows/row 8", "'n' is the int 8"),
    # vectors
    ("V1", "a block is gone", delete(keys.vector_block(CID, 0, 1)), "rows/block 1", "missing"),
    ("V1", "a block too early", lambda t: put(t, keys.vector_block(CID, 0, 2), payload(t, keys.vector_block(CID, 0, 1))),
     "rows/block 2", "not full"),
    ("V2", "another block's place", lambda t: patch(t, keys.vector_block(CID, 0, 1), "<I", 0, 0),
     "rows/block 1", "another block"),
    ("V2", "another dtype", lambda t: patch(t, keys.vector_block(CID, 0, 1), "<H", 12, 2), "rows/block 1", "shape"),
    ("V2", "a block too short", lambda t: put(t, keys.vector_block(CID, 0, 1), payload(t, keys.vector_block(CID, 0, 1))[:-4]),
     "rows/block 1", "bytes"),
    ("V3", "a vector in neither place", lambda t: row(t, 1297, lambda r: r._replace(inline={})),
     "rows/row 1297", "neither"),
    ("V3", "a vector in both places", lambda t: row(t, 8, lambda r: r._replace(inline={0: bytes(256)})),
     "rows/row 8", "both"),
    ("V3", "a vector too short", lambda t: row(t, 1297, lambda r: r._replace(inline={0: bytes(252)})),
     "rows/row 1297", "252 bytes"),
    ("V3", "a dead slot's vector is gone", delete(keys.row(CID, 1298)), "rows/row 1298", "missing"),
    ("V3", "a row and its block disagree", lambda t: disagree(t, 5, 8), "several/row 8", "disagree"),
    ("V4", "a row's many vectors are gone", lambda t: t.delete(many(t)), "several/row", "missing"),
    ("V4", "many vectors of nobody", lambda t: put(t, keys.many_vectors(5, 1, 77_777), b""), "several/many/5/0x0100012fd1", "no row"),
    ("V4", "many vectors cut short", lambda t: put(t, many(t), b"123"), "several/many/5/", "3 bytes"),
    # state
    ("S1", "the state is gone", delete(keys.state(CID)), "rows/log/1/0xffffffffffffffffff", "missing"),
    ("S1", "a state that is none", lambda t: put(t, keys.state(CID), b"\x91\x01"), "rows/log/1/0xffffffffffffffffff", ""),
    ("S1", "a state of another kind", lambda t: now(t, slots="many"), "rows/log/1/0xffffffffffffffffff", "hold"),
    ("S1", "an unknown entry", lambda t: now(t, sorts=1), "rows/log/1/0xffffffffffffffffff", "sorts"),
    ("S1", "a watermark of the future", lambda t: now_field(t, links_to=999), "rows", "watermark"),
    ("S1", "a field's watermark of the future", lambda t: now(t, fields_to=[999] * 8), "rows", "watermark"),
    ("S1", "the last links are gone", delete(keys.log(CID, 11, 0)), "rows/log/1/0x000000000000000b00", "missing"),
    ("S1", "the last rows are gone", delete(LOG_KEY), "rows/log/1/0x000000000000000e01", "missing"),
    ("S1", "a log of rows cut too far", lambda t: now(t, rows_cut=14), "rows", "cut beyond"),
    ("S1", "a log of links cut too far", lambda t: now_field(t, links_cut=14), "rows", "cut beyond"),
    ("S1", "an impossible scale", lambda t: now_field(t, scale=[0.5, float("nan")]), "rows/log/1/0xffffffffffffffffff", "hold"),
    ("S1", "a scale that falls", lambda t: now_field(t, scale=[0.5, -1.0]), "rows/log/1/0xffffffffffffffffff", "hold"),
    ("S2", "a wrong count", lambda t: now(t, live=1317), "rows", "1317"),
    ("S2", "a wrong count of vectors", lambda t: now_field(t, ranked=1), "rows", "1 vectors in field 0"),
    ("S2", "a wrong count of slots in use", lambda t: now(t, seated=1), "rows", "1 with vectors"),
    ("S1", "the state of a field that is not there", lambda t: change(t, keys.state(CID), lambda s: {**s, "vectors": {0: s["vectors"][0], 5: s["vectors"][0]}}),
     "rows", "vector fields [0, 5]"),
    # log
    ("L2", "a log record that is none", lambda t: put(t, LOG_KEY, b"\xc1"), "rows/log/1/0x000000000000000e01", ""),
    ("L2", "a log's key too long", lambda t: move(t, LOG_KEY, LOG_KEY + b"x"), "rows/log/1/0x000000000000000e0178", "spelled"),
    ("L2", "numbers cut short", lambda t: rows_log(t, lambda p: [b"123", *p[1:]]),
     "rows/log/1/0x000000000000000e01", "buffer"),
    ("L2", "names that are numbers", lambda t: rows_log(t, lambda p: [*p[:2], [5], p[3]]),
     "rows/log/1/0x000000000000000e01", "name"),
    ("A3", "changes that are none", lambda t: rows_log(t, lambda p: [*p[:3], [1, 2, 3]]),
     "rows/log/1/0x000000000000000e01", ""),
    # live rows
    ("W1", "a row that is not there is live", lambda t: live(t, lambda b: b | BitMap([3])), "rows", "1 rows (3)"),
    ("W1", "a row is not live", lambda t: live(t, lambda b: b - BitMap([8, 11])), "rows", "2 rows (8, 11)"),
    ("W1", "a chunk of it is gone", delete(keys.live(CID, 0)), "rows", "rows"),
    # attributes
    ("A1", "a leaf is gone", lambda t: t.delete(keys_of(t, keys.attribute(CID, 0))[0]), "rows/field 'n'", "missing"),
    ("A1", "a row in a posting that is not its", lambda t: leaf(t, swap_rids), "rows/field 'n'", "disagrees"),
    ("A1", "a stamp of something else", lambda t: leaf(t, lambda b: b, stamp=False) or leaf(t, swap_rids, stamp=False),
     "rows/attributes/1/0x0000", "stamp"),
    ("A1", "value keys out of order", lambda t: leaf(t, lambda b: [b[0][::-1], *b[1:]]),
     "rows/attributes/1/0x0000", "order"),
    ("A1", "a leaf that is none", lambda t: leaf(t, lambda b: [b[0], 5, b[2], b[3]]), "rows/attributes/1/0x0000", "kinds"),
    ("A1", "counts that do not fit", lambda t: leaf(t, lambda b: [b[0], b[1], b[2][4:], b[3]]),
     "rows/attributes/1/0x0000", "counts"),
    ("A1", "a posting that is no bitmap", lambda t: leaf(t, no_bitmap, 4), "rows/attributes/1/0x0004", "bitmap"),
    ("A1", "a kind's posting is not the union", lambda t: leaf(t, fewer_numbers), "rows/attributes/1/0x0000", "kind"),
    ("A1", "names are gone", delete(keys.fields(CID)), "rows/field 'n'", "not registered"),
    ("A1", "names that are none", lambda t: put(t, keys.fields(CID), codec.pack([1, 2])), "rows/fields/1", "names"),
    ("A1", "postings of an unindexed field", lambda t: declare(t, {"tag": "Unindexed"}), "rows/field 'tag'", "disagrees"),
    ("A1", "no trigrams", lambda t: three_letters(t) or declare(t, {"tag": "Indexed(str, substring=True)"}),
     "rows/field 'tag'", "missing"),
    ("A2", "a chunk is gone", lambda t: t.delete(chunk_of_posting(t)), "rows/postings/1/0x0000", "missing"),
    ("A2", "another chunk", lambda t: put(t, chunk_of_posting(t), b"x" * 16 + BitMap([1]).serialize()),
     "rows/postings/1/0x0000", "not the chunk"),
    ("A2", "a chunk that is no bitmap", lambda t: put(t, chunk_of_posting(t), payload(t, chunk_of_posting(t))[:16]),
     "rows/postings/1/0x0000", ""),
    ("A2", "a chunk that nobody names", lambda t: put(t, keys.posting(CID, 0, NUMBERS, 7), payload(t, chunk_of_posting(t))),
     "rows/postings/1/0x00000101000007", "no leaf"),
    # full text
    ("T1", "a head is gone", lambda t: t.delete(segment(t)), "words/segments/7/0x", "missing"),
    ("T1", "a head that is none", lambda t: put(t, segment(t), b"none"), "words/segments/7/0x", "head"),
    ("T1", "a chunk is gone", lambda t: t.delete(chunk_of_terms(t)), "words/terms/7/0x", "missing"),
    ("T1", "a flipped bit in a chunk", lambda t: flip(chunk_of_terms(t), 40)(t), "words/terms/7/0x", "checksum"),
    ("T1", "a chunk that is none", lambda t: put(t, chunk_of_terms(t), b"none"), "words/full text", "segment"),
    ("T1", "another count of rows", lambda t: change(t, keys.state(WORDS), fewer_rows), "words/segments/7/0x", "rows, not"),
    ("T2", "a word that is not the row's", lambda t: say(t, b"kernels run on and on"), "words/full text of 'text'", "disagree"),
    ("T3", "a chunk that nobody names", lambda t: put(t, chunk_of_terms(t)[:-1] + b"\x63", b"x"), "words/terms/7/0x", "no segment"),
    ("T4", "another analysis", lambda t: change(t, keys.catalog(WORDS), other_analysis), "words/full text of 'text'", "analysis"),
    ("S1", "full text that was never declared", lambda t: change(t, keys.catalog(WORDS), lambda d: {n: v for n, v in d.items() if n != "fulltext"}),
     "words", "full text"),
    # vectors behind others, and the maps that lead from one to the other
    ("X1", "a map is gone", lambda t: t.delete(map_of(t)), "moved/maps/8/0x", "missing"),
    ("X1", "a map that is none", lambda t: put(t, map_of(t), b"none"), "moved/maps/8/0x", "no adapter"),
    ("X1", "a map cut short", lambda t: put(t, map_of(t), payload(t, map_of(t))[:-7]), "moved/maps/8/0x", "digest"),
    ("X1", "another map", lambda t: put(t, map_of(t), Adapter([[1.0]], metric="l2").to_bytes()), "moved/maps/8/0x", "it is the map"),
    ("X1", "a map that nobody goes through", lambda t: put(t, keys.map_of(CID, bytes(16)), b"x"), "rows/maps/1/0x", "no field"),
    ("X1", "a map that takes something else", lambda t: change(t, keys.catalog(MOVED), lambda d: declared(d, given=999)), "moved/vector field 'vector'", "given 999"),
    ("C1", "a role that is none", lambda t: hide(t, lambda h: ["next to", *h[1:]]), "catalog/8", "role"),
    ("C1", "hidden vectors of nobody", lambda t: change(t, keys.catalog(MOVED), lambda d: {**d, "hidden": {"x": d["hidden"]["vector"]}}), "catalog/8", "no vector field"),
    ("C1", "hidden vectors of a number that is taken", lambda t: hide(t, lambda h: [h[0], {**h[1], "number": 2}, h[2]]), "catalog/8", "number"),
    ("C1", "hidden vectors that are none", lambda t: hide(t, lambda h: [h[0], {**h[1], "dim": 0}, h[2]]), "catalog/8", "dim=0"),
    ("C1", "a seat of nobody", lambda t: change(t, keys.catalog(MOVED), lambda d: declared(d, seat=9)), "catalog/8", "seat"),
    ("S1", "who has a hidden vector is no bitmap", lambda t: held(t, lambda h: b"x"), "moved/log/8/0xffffffffffffffffff", "hold"),
    ("S1", "who has a hidden vector is a number", lambda t: held(t, lambda h: 7), "moved/log/8/0xffffffffffffffffff", "hold"),
    ("S2", "a row too many has a hidden vector", lambda t: held(t, lambda h: None) or change(t, keys.state(MOVED), one_fewer), "moved", "vectors in field 0"),
    ("V3", "a row too few has a hidden vector", lambda t: held(t, lambda h: (BitMap.deserialize(h) - BitMap([5])).serialize()), "moved/row 5", "disagree"),
    # effort
    ("Q1", "a resting slot that is live", lambda t: put(t, keys.resting(CID, 1), bytes(8) + (1310).to_bytes(4, "little")), "rows/log/1/0xfe", "are live"),
    ("Q1", "no slots that rest", lambda t: put(t, keys.resting(CID, 1), b"abc"), "rows/log/1/0xfe", "no id and slots"),
    ("Q2", "a wrong count of resting slots", lambda t: change(t, keys.state(CID), lambda s: {**s, "resting": s["resting"] + 1}), "rows", "resting slots"),
    ("Q3", "condemned slots without a round", lambda t: put(t, keys.condemned(CID), BitMap([3]).serialize()), "rows/log/1/0xfd", "without a round"),
    ("Q3", "a round without condemned slots", lambda t: change(t, keys.state(CID), lambda s: {**s, "condemned": 1}), "rows/log/1/0xfd", "without a record"),
    ("Q4", "a wrong count of vacant slots", lambda t: change(t, keys.state(CID), lambda s: {**s, "vacant": s["vacant"] + 1}), "rows", "vacant slots"),
    ("E1", "no effort", lambda t: put(t, keys.effort(CID, 0), b"\x90"), "rows/effort/1/0x00", ""),
    ("E1", "an impossible effort", lambda t: change(t, keys.effort(CID, 0), lambda e: [0, *e[1:]]),
     "rows/effort/1/0x00", "measurement"),
    ("E1", "sums of another shape", lambda t: change(t, keys.effort(CID, 0), lambda e: [e[0], e[1], e[2][:2]]),
     "rows/effort/1/0x00", "measurement"),
    ("E1", "more found than there is", lambda t: change(t, keys.effort(CID, 0), more_found), "rows/effort/1/0x00", "found of"),
    ("E1", "samples that wanted too much", lambda t: change(t, keys.effort(CID, 0), no_samples), "rows/effort/1/0x00", "in 0 samples"),
    # cached embeddings
    ("F1", "a flipped bit in an embedding", lambda t: flip(ONE, 30)(t), keys.describe(ONE), "checksum"),
    ("F2", "an embedding's key too short", lambda t: put(t, b"\x70ab", b"1234"), "embeddings/6162", "spelled"),
    ("E2", "an embedding that is no vector", lambda t: put(t, ONE, b"123"), keys.describe(ONE), "3 bytes"),
    ("E2", "an embedding that is not finite", lambda t: put(t, ONE, b"\xff" * 64), keys.describe(ONE), "finite"),
    ("E3", "an embedding is gone", delete(ONE), "cached", "2 of 128"),
    ("E3", "the count is gone", delete(keys.CACHED_KEY), "cached", "2 of 128"),
    ("E3", "a count that is none", lambda t: put(t, keys.CACHED_KEY, b"x"), "cached", "1 bytes"),
    # searches that are kept
    ("D1", "a saved search that is none", lambda t: put(t, keys.search("kept"), b"[]"), "searches/6b657074", "no JSON object"),
    ("D1", "two of one number", lambda t: put(t, keys.search("other"), payload(t, keys.search("kept"))), "searches/6f74686572", "number of"),
    ("D2", "a watcher that is nowhere", lambda t: put(t, watcher(t), b"abc"), "watchers/", "3 bytes"),
    ("D2", "a watcher beyond the last commit", lambda t: patch(t, watcher(t), "<Q", 0, 1 << 40), "watchers/", "beyond"),
    ("D2", "a watcher without its search", lambda t: put(t, keys.watcher(7, "app"), bytes(12)), "watchers/", "not there"),
    ("J1", "no log of searches", lambda t: put(t, keys.LOGGING_KEY, b"\xc1"), "logging", ""),
    ("J2", "a stretch of the log is gone", lambda t: t.delete(stretch(t)), "search log/", "there are"),
    # graph
    ("G1", "a chunk of links cut short", lambda t: put(t, keys.links(CID, 0, 0, 1), payload(t, keys.links(CID, 0, 0, 1))[:-4]),
     "rows/links/1/0x000000000001", "length"),
    ("G1", "links to beyond the slots", lambda t: link(t, 0, 8, 0, 5000), "rows/links/1/0x000000000000", "beyond"),
    ("G1", "links of slots that are not there", lambda t: put(t, keys.links(CID, 0, 0, 9), payload(t, keys.links(CID, 0, 0, 0))),
     "rows/links/1/0x000000000009", "handed out"),
    ("G1", "a link log that is none", lambda t: put(t, keys.log(CID, 11, 0), b"\x09"),
     "rows/log/1/0x000000000000000b00", "version"),
    ("G5", "a chunk of another layer", lambda t: patch(t, keys.links(CID, 0, 0, 1), "B", 8, 1), "rows/links/1/0x000000000001", "layer 1"),
    ("G5", "a chunk before the watermark", lambda t: patch(t, keys.links(CID, 0, 0, 1), "<Q", 0, 1), "rows/links/1/0x000000000001", "watermark"),
    ("G2", "a link to itself", lambda t: link(t, 0, 8, 0, 8), "rows", "row 8: a link to itself"),
    ("G2", "a link twice", lambda t: link(t, 0, 8, 0, links(t, 0, 8)[1]), "rows", "row 8: a link twice"),
    ("G2", "a gap", lambda t: link(t, 0, 8, 0, 0xFFFFFFFF), "rows", "row 8: a link after an empty place"),
    ("G2", "an entry node without its slot", lambda t: [link(t, 0, 32, j, 0xFFFFFFFF) for j in range(32)],
     "rows", "row 1: present although"),
    ("G2", "two pins", lambda t: link(t, 0, 8, 0, links(t, 0, 8)[0] ^ (1 << 31)), "rows", "pinned"),
    ("G2", "a chunk of links is gone", delete(keys.links(CID, 0, 0, 1)), "rows", "not in the graph"),
    ("G3", "a slot that no link leads to", lambda t: unlink(t, 1100), "rows", "no walk reaches 1 rows (1100)"),
    ("G3", "a slot without links", lambda t: delete_links(t), "rows", "no links of"),
]  # fmt: skip


def live(txn: Any, how: Callable[[BitMap], BitMap]) -> None:
    """Change the folded bitmap of live rows."""
    key = keys.live(CID, 0)
    body = how(BitMap.deserialize(payload(txn, key)[STAMP:])).serialize()
    put(txn, key, stamp_of(body) + body)


def one_fewer(state: dict[str, Any]) -> dict[str, Any]:
    """A state that counts one vector less in field 0."""
    first, *rest = state["vectors"][0]
    return {**state, "vectors": {**state["vectors"], 0: [first - 1, *rest]}}


def declare(txn: Any, fields: dict[str, str]) -> None:
    """Declare fields of "rows" after the fact."""
    change(txn, keys.catalog(CID), lambda found: {**found, "fields": fields})


def three_letters(txn: Any) -> None:
    row(txn, 8, lambda r: r._replace(metadata=codec.pack({"tag": "abc"})))


WORDS = 7  # the number of the collection with full text


def segment(txn: Any) -> bytes:
    """The head of its segment."""
    return keys_of(txn, keys.prefix(keys.SEGMENTS, WORDS))[0]


def chunk_of_terms(txn: Any) -> bytes:
    return keys_of(txn, keys.prefix(keys.TERMS, WORDS))[0]


def fewer_rows(state: dict[str, Any]) -> dict[str, Any]:
    text = state["text"]
    first, *rest = text[5]
    return {**state, "text": [*text[:5], [[*first[:4], first[4] - 1, first[5]], *rest], text[6]]}


def other_analysis(declared: dict[str, Any]) -> dict[str, Any]:
    texts = {name: {**each, "fingerprint": "another"} for name, each in declared["fulltext"].items()}
    return {**declared, "fulltext": texts}


def say(txn: Any, text: bytes) -> None:
    """Another text in a row's record, which nothing else tells of."""
    key = keys.row(WORDS, PLAIN + 20)
    put(txn, key, rows.encode(rows.decode(payload(txn, key))._replace(text=text)))


def swap_rids(body: list[Any]) -> list[Any]:
    """Rows 0 and 1 in each other's postings."""
    swap = {0: 1, 1: 0}
    rids = np.frombuffer(body[2], "<u4")
    return [body[0], body[1], np.array([swap.get(r, r) for r in rids.tolist()], "<u4").tobytes(), body[3]]


def no_bitmap(body: list[Any]) -> list[Any]:
    others = [b"none" if type(other) is bytes else other for other in body[3]]
    assert others != body[3], "no posting is inside this leaf"
    return [*body[:3], others]


def fewer_numbers(body: list[Any]) -> list[Any]:
    """One number less than the kind's posting says."""
    at = body[0].index(key_of(8))
    before = sum(body[1][:at])
    rids = body[2][: 4 * before] + body[2][4 * (before + body[1][at]) :]
    return [body[0][:at] + body[0][at + 1 :], body[1][:at] + body[1][at + 1 :], rids, body[3]]


def more_found(effort: list[Any]) -> list[Any]:
    samples, wanted, found, distances = effort[1][0]
    return [effort[0], [[samples, wanted, [wanted + 1, *found[1:]], distances], *effort[1][1:]], effort[2]]


def no_samples(effort: list[Any]) -> list[Any]:
    return [effort[0], [[0, 5, *effort[1][0][2:]], *effort[1][1:]], effort[2]]


def delete_links(txn: Any) -> None:
    """Everything that the graph of "rows" has, image and log."""
    for key in keys_of(txn, keys.prefix(keys.LINKS, CID)):
        txn.delete(key)
    for key in keys_of(txn, keys.prefix(keys.LOG, CID)):
        if key[13] == 0:
            txn.delete(key)


@pytest.mark.parametrize(
    ("code", "plant", "where", "word"),
    [(code, plant, where, word) for code, _, plant, where, word in PLANTS],
    ids=[f"{code}-{name}".replace(" ", "-") for code, name, *_ in PLANTS],
)
def test_a_planted_violation_is_named_and_placed(
    path: Path, code: str, plant: Plant, where: str, word: str
) -> None:
    with damage.write(path) as txn:
        plant(txn)
    problems = checked(path)
    places = [p for p in problems if p.code == code and p.where.startswith(where)]
    shown = "\n".join(map(str, problems[:20])) or "nothing"
    assert places, f"{code} at {where} was planted; check found:\n{shown}"
    assert any(word in p.detail for p in places), shown
    assert all(p.detail and len(p.detail) < 400 and str(p).startswith(p.code) for p in problems)


def test_a_meta_record_that_is_damaged_under_an_open_database_is_named(path: Path) -> None:
    """Before it is opened such a file is refused: tests/faults/test_files.py."""
    code = """
import sys
from pathlib import Path
from tests import child, damage, deeds
with damage.write(sys.argv[1]) as txn:
    record = bytearray(txn.get(b"\\xf0"))
    record[40] ^= 1
    txn.put(b"\\xf0", bytes(record))
"""
    with vecdb.open(path) as db:
        assert db.check() == []
        child.end(child.start(code, path))
        assert ("M1", "meta") in [(p.code, p.where) for p in db.check()]


@pytest.mark.parametrize("mode", ["r", "rw"])
def test_broken_pages_beneath_an_open_database_are_named_and_end_nobody(path: Path, mode: str) -> None:
    """Pages written over by others, in place for another, in place: the engine itself would abort."""
    code = """
import os, random, sys
import vecdb
path, mode = sys.argv[1:]
rng, found = random.Random(20), 0
with vecdb.open(path, mode=mode) as db:
    assert db.check() == []
    fd = os.open(path, os.O_RDWR)
    pages = os.fstat(fd).st_size // 4096
    for _ in range(25):
        at, other = rng.sample(range(2, pages), 2)
        before = os.pread(fd, 4096, at * 4096)
        os.pwrite(fd, os.pread(fd, 4096, other * 4096), at * 4096)
        problems = db.check()
        assert all(p.code in ("F1", "F3") and p.detail for p in problems[:1]), problems[:3]
        found += [p.where for p in problems if p.code == "F3"][:1] == ["structure"]
        os.pwrite(fd, before, at * 4096)
    assert db.check() == []
print(found)
"""
    found = int(child.end(child.start(code, path, mode)))
    assert found >= 5, f"{found} of 25 exchanged pages were part of the tree and noticed"


def test_a_graph_in_memory_that_is_not_the_files_is_named(path: Path) -> None:
    with vecdb.open(path, upkeep=False) as db:
        db["rows"].search(np.zeros(damage.DIM), 5)
        graph = db._followers[CID].newest().vectors[0].graph  # type: ignore[union-attr]
        whole = graph.chunk(0, 1)
        table = np.frombuffer(whole, "<u4").reshape(-1, 32).copy()
        at = np.flatnonzero(table[:, 1] < 0xFFFFFFFE)[0]
        table[at, [0, 1]] = table[at, [1, 0]]
        graph.load_chunk(0, 1, table.tobytes())
        found = [(p.code, p.where) for p in db.check()]
        assert found == [("G4", "rows/links 0/1")]
        graph.load_chunk(0, 1, whole)
        assert db.check() == []
        slots, vector = np.array([1310], np.uint32), np.frombuffer(graph.vector(1310), np.float32)[None]
        graph.put_vectors(slots, vector + 1)
        found = [(p.code, p.where) for p in db.check()]
        assert found == [("G4", "rows/row 1310"), ("G6", "rows/codes 0")]
        graph.put_vectors(slots, vector)
        assert db.check() == []


# --- the table is whole ------------------------------------------------------------------------------

CODE = re.compile(r"[A-Z][0-9]")
ELSEWHERE = {"F3", "G4", "G6", "V5"}  # planted in the file's pages and in memory, above; V5: test_sparse.py


def codes_in(source: str) -> set[str]:
    """Codes that a module gives to Problem, damaged and their like, or yields as a finding."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        values: list[Any] = []
        if isinstance(node, ast.Call):
            values = [*node.args, *(k.value for k in node.keywords if k.arg == "code")]
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            values = [*node.value.elts]
        found |= {v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)}
    return {code for code in found if CODE.fullmatch(code)}


def test_every_code_has_a_planted_violation() -> None:
    listed = {line.split()[0] for line in (check.__doc__ or "").splitlines() if re.match(r" {4}[A-Z][0-9]  ", line)}
    sources = [each for folder in ("check", "index", "storage") for each in sorted((PACKAGE / folder).glob("*.py"))]
    used = set().union(*(codes_in(source.read_text()) for source in sources)) | {"R2"}
    planted = {code for code, *_ in PLANTS} | ELSEWHERE
    assert used <= planted, f"no violation of {sorted(used - planted)} is planted here"
    assert listed == planted, f"the list in check/__init__.py differs: {sorted(listed ^ planted)}"
    print(f"check: {len(PLANTS)} violations of {len(planted)} invariants planted, all named and placed")


def test_the_list_of_codes_notices_a_new_one() -> None:
    """The control of the test above."""
    assert codes_in('Problem("Z9", "x", "y")') == {"Z9"} == codes_in('yield "Z9", "x", "y"')
    assert codes_in('damaged("Z9", key, "y")') == {"Z9"} == codes_in('open_record(1, key, r, code="Z9")')


# --- what is sound is clean ----------------------------------------------------------------------------


def test_an_undamaged_file_is_clean_and_stays_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    assert checked(path) == []
    assert path.read_bytes() == before


def shapes() -> Iterator[tuple[str, Callable[[vecdb.Database], object]]]:
    rng = np.random.default_rng(2)

    def rows_of(n: int, dim: int = 8) -> Any:
        return damage.whole(rng, n, dim)

    def whole(db: vecdb.Database) -> vecdb.Collection:
        c = db.create_collection("c", dim=8, metric="l2")
        c.add([*range(700)], rows_of(700), metadata=[damage.metadata(i) for i in range(700)])
        return c

    yield "empty", lambda db: None
    yield "no rows", lambda db: db.create_collection("c", dim=3)
    yield "one row", lambda db: db.create_collection("c", dim=3).add("a", [1, 2, 3])
    yield "one row without a vector", lambda db: db.create_collection("c", dim=3).add("a", metadata=[{"x": 1}])
    yield "all rows deleted", lambda db: whole(db).delete(where={})
    yield "a third deleted", lambda db: whole(db).delete([*range(0, 700, 3)])
    yield "metadata updated", lambda db: whole(db).update(where=F.n < 300, metadata={"tag": None, "n": 0})
    yield "vectors updated", lambda db: whole(db).update([*range(50)], vectors=rows_of(50))
    yield "folded", lambda db: (whole(db), db.optimize())
    yield "replaced often", lambda db: [c.upsert([1, 2, 3], rows_of(3)) for c in [whole(db)] for _ in range(40)]
    yield "renamed", lambda db: (whole(db), db.rename_collection("c", "d"))
    yield "dropped and made again", lambda db: (whole(db), db.drop_collection("c"), whole(db))
    yield "aborted", aborted
    for dtype in ("f16", "f32"):
        for metric in ("cosine", "dot", "l2"):
            yield f"{metric} {dtype}", lambda db, m=metric, d=dtype: db.create_collection(  # type: ignore[misc]
                "c", dim=300, metric=m, dtype=d
            ).add([*range(400)], rows_of(400, 300))
    yield "blocks of one row", lambda db: db.create_collection("c", dim=20_000).add([1, 2, 3], rows_of(3, 20_000))
    yield "few links", lambda db: db.create_collection("c", dim=2, metric="l2", M=4, ef_construction=8).add([*range(600)], rows_of(600, 2))
    yield "all alike", lambda db: db.create_collection("c", dim=2, metric="l2").add([*range(600)], np.ones((600, 2)))


def aborted(db: vecdb.Database) -> None:
    c = db.create_collection("c", dim=2)
    c.add("a", [1, 0])
    with pytest.raises(ZeroDivisionError), db.transaction():
        c.delete("a")
        c.add(["b", "c"], [[1, 1], [1, 2]])
        raise ZeroDivisionError


@pytest.mark.parametrize(("name", "make"), [*shapes()], ids=[name for name, _ in shapes()])
def test_a_sound_file_is_clean(
    tmp_path: Path, name: str, make: Callable[[vecdb.Database], object]
) -> None:
    path = tmp_path / "s.vecdb"
    with vecdb.open(path, durability="none", upkeep=False) as db:
        make(db)
        assert db.check() == []
    for mode in ("r", "rw"):
        with vecdb.open(path, mode=mode) as db:
            assert db.check() == []
            for each in db:
                db[each].search(np.ones(db[each].schema.dim), 3)
            assert db.check() == [], "with the graph in memory"


def test_a_file_is_clean_after_every_commit(tmp_path: Path) -> None:
    """In the middle of unfolded logs, of a round of checkpoints, of a cut log."""
    states = set()
    with vecdb.open(tmp_path / "s.vecdb", durability="none", upkeep=False) as db:
        create_into(db)
        model: deeds.Model = {}
        for n in range(1, 61):
            deeds.commit(db, 3, n, model, (1, 2, 20, 100))
            assert db.check() == [], f"after commit {n}"
            with db._reading(CID) as (txn, _):
                at = state.read(txn, CID)
            states |= {
                name
                for name, is_so in {
                    "unfolded": at.unfolded,
                    "links cut": at.vectors[0].links_cut > 1,
                    "rows cut": at.rows_cut > 1,
                    "in a round": at.vectors[0].round_chunk > 0,
                    "fields apart": len(set(at.fields_to)) > 1,
                }.items()
                if is_so
            }
    assert states == {"unfolded", "links cut", "rows cut", "in a round", "fields apart"}, states


def create_into(db: vecdb.Database) -> None:
    db.create_collection("rows", dim=deeds.DIM, metric="l2")
    db.create_collection("log", dim=2)


def test_a_commit_of_another_thread_meanwhile_is_no_violation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph in memory goes on while `check` compares it with the commit that it looks at: an idle thread
    that repairs is enough."""
    rng = np.random.default_rng(3)
    with vecdb.open(tmp_path / "c.vecdb", durability="none", upkeep=False) as db:
        c = db.create_collection("c", dim=8, metric="l2")
        c.add(range(600), rng.normal(size=(600, 8)))
        c.search(rng.normal(size=8))
        commits = []

        def commit() -> None:
            c.upsert(range(300), rng.normal(size=(300, 8)))
            commits.append(1)

        before = check.indexes._private

        def while_comparing(graph: Any) -> Iterator[int]:
            if not commits:
                thread = threading.Thread(target=commit)
                thread.start()
                thread.join()
            yield from before(graph)

        monkeypatch.setattr(check.indexes, "_private", while_comparing)
        assert db.check() == [] and len(commits) == 1
        assert db.check() == []
