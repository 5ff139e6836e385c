"""Does full text say what the rows say? Segments in themselves, and against the rows analysed again.

What a word's postings say is folded into one number, row by row in any order, so that memory goes with the
number of different words and not with the number of postings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from vecdb._core import _text
from vecdb.check.subject import Subject
from vecdb.errors import VecdbError
from vecdb.index import segments
from vecdb.index.columns import Columns, columns_of
from vecdb.index.texts import add_rows
from vecdb.index.view import View
from vecdb.storage import keys
from vecdb.storage.state import State
from vecdb.types import Problem

AT_ONCE: Final = 1 << 15  # rows that are analysed at a time
LENGTHS: Final = b""  # stands for a word: how long the rows' texts are
Sums = dict[tuple[int, bytes], int]


def records(of: Subject, now: State) -> Iterator[Problem]:
    """T3: every record of a segment is one that the state names."""
    named: dict[int, tuple[int, int]] = {}
    if now.text is not None:
        named = {each.number: (each.parts, each.chunks) for each in now.text.segments}
        if now.text.merge is not None:
            named[now.text.merge.number] = (0, now.text.merge.chunks)
    for kind in (keys.SEGMENTS, keys.TERMS):
        for key, _ in of.scan(kind):
            number, at = keys.segment_of(key)
            if at >= named.get(number, (0, 0))[kind == keys.TERMS]:
                yield Problem("T3", of.at(keys.describe(key)), "no segment has this record")
    if (now.text is not None) != columns_of(of.schema).any:
        yield Problem("S1", of.name, "state and declaration disagree on full text")


def problems(of: Subject, view: View) -> Iterator[Problem]:
    """T1 and T2 of a collection whose rows have been looked at."""
    columns = columns_of(of.schema)
    if not columns.any or view.state.text is None:
        return
    if columns.outdated:
        detail = "it was indexed by another analysis than the one at hand: run optimize()"
        for each in columns.outdated:
            yield Problem("T4", of.at(f"full text of {each.name!r}"), detail)
        return
    yield from _merge(of, view)
    try:
        words = of.follower.texts.at(of.txn, view)
        found: Sums = {}
        for place, (segment, dead) in enumerate(zip(words.segments, words.dead, strict=True)):
            _add(found, segment, dead, _of_one(words.loader(of.txn), place))
        expected = _expected(of, columns)
    except VecdbError as error:
        yield of.problem(error, "T1", of.name)
        return
    except ValueError as error:
        yield Problem("T1", of.at("full text"), f"a segment cannot be read: {error}")
        return
    for column, term in sorted(found.keys() | expected.keys()):
        if found.get((column, term), 0) != expected.get((column, term), 0):
            what = "the lengths of texts disagree" if term == LENGTHS else f"word {term!r:.80} disagrees"
            where = of.at(f"full text of {columns.names[column]!r}")
            yield Problem("T2", where, f"{what} with the rows")


def _merge(of: Subject, view: View) -> Iterator[Problem]:
    """What a merge has written so far can be read."""
    assert view.state.text is not None
    merge = view.state.text.merge
    if merge is not None:
        try:
            segments.loader(of.txn, of.cid, [merge.number])(0, list(range(merge.chunks)))
        except VecdbError as error:
            yield of.problem(error, "T1", of.name)


def _of_one(load: segments.Load, place: int) -> segments.Load:
    """`postings` knows its segment as the first."""
    return lambda _, chunks: load(place, chunks)


def _expected(of: Subject, columns: Columns) -> Sums:
    """What the live rows say."""
    found: Sums = {}
    rids = list(of.live)
    for first in range(0, len(rids), AT_ONCE):
        builder = _text.SegmentBuilder(columns.analyzers)
        add_rows(builder, of.txn, of.cid, columns, rids[first : first + AT_ONCE])
        _add(found, builder.finish(), None, None)
    return found


def _add(found: Sums, segment: Any, dead: bytes | None, load: Any) -> None:
    """Add what a segment says of its live rows."""
    for column, term, rids, values in segment.postings(load, dead):
        if len(rids):
            key = column, bytes(term)
            found[key] = (found.get(key, 0) + _mixed(rids, values)) % (1 << 64)
    rows = np.frombuffer(segment.rids(), np.uint32)
    gone = np.unpackbits(np.frombuffer(dead or b"", np.uint8), bitorder="little")[: len(rows)]
    alive = np.flatnonzero(np.r_[gone, np.zeros(len(rows) - len(gone), np.uint8)] == 0)
    for column in range(segment.n_columns):
        lengths = np.frombuffer(segment.lengths(column), np.uint32)[alive]
        has = lengths > 0
        if has.any():
            key = column, LENGTHS
            mixed = _mixed(rows[alive][has].tobytes(), lengths[has].tobytes())
            found[key] = (found.get(key, 0) + mixed) % (1 << 64)


def _mixed(rids: bytes, values: bytes) -> int:
    """One number for pairs of a row and a value, the same in any order."""
    pairs = np.frombuffer(rids, np.uint32).astype(np.uint64) << np.uint64(32)
    pairs |= np.frombuffer(values, np.uint32).astype(np.uint64)
    pairs = (pairs ^ (pairs >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    pairs = (pairs ^ (pairs >> np.uint64(32))) * np.uint64(0x94D049BB133111EB)
    return int((pairs ^ (pairs >> np.uint64(29))).sum(dtype=np.uint64))
