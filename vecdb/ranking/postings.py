"""Which rows have a token, and how much of it? The postings of a sparse field in memory.

Segments of the engine of full text (`_core._text`), with one sparse column: exact top-k with pruning by block
maxima. A process makes them from the rows when it first searches the field, and goes on from commit to commit
(followed.py).

Invariants:
  K1  a segment never changes; what is dead in it is a mask, and a row is alive in one segment at most;
  K2  what is kept is of the rows that the records say: damage in a record is found by whoever makes it.

Rejected: to number the tokens and keep a matrix. It would have to grow in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb._core import _text
from vecdb.ranking.followed import Kept, Stand, Store
from vecdb.storage import keys, rows, sparse

if TYPE_CHECKING:
    from vecdb.index.view import View

PIECE_ROWS: Final = 1 << 15  # of a segment as it is made
MERGED: Final = 4  # times smaller than the one before: then a segment stays by itself
COLUMN: Final = 0


class Part:
    """A segment, its living rows, and the mask of the others."""

    __slots__ = ("alive", "dead", "segment")

    def __init__(self, segment: Any, alive: BitMap, dead: bytes | None) -> None:
        self.segment, self.alive, self.dead = segment, alive, dead


class Postings(Kept):
    """The postings of every row of one commit that has a sparse vector in the field."""

    def __init__(self, stand: Stand, parts: list[Part]) -> None:
        self.stand = stand
        self.parts = parts
        self.core = _text.View([each.segment for each in parts], [each.dead for each in parts])

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(each.segment.nbytes + len(each.dead or b"") for each in self.parts)


class PostingStore(Store[Postings]):
    """The postings of one field in this process."""

    def _made(
        self, txn: Any, view: View, old: Postings | None, records: Iterable[tuple[int, Any]], gone: BitMap
    ) -> Postings:
        parts = []
        for each in () if old is None else old.parts:
            died = each.alive & gone
            dead = each.segment.bury(np.array(died, np.uint32), each.dead) if died else each.dead
            parts.append(Part(each.segment, each.alive - died, dead))
        parts = [each for each in parts if each.alive]
        for rids, values in self._pieces(records):
            builder = _text.SegmentBuilder([None])
            builder.add_many(np.array(rids, np.uint32), [values])
            parts.append(Part(builder.finish(), BitMap(rids), None))
            while len(parts) > 1 and len(parts[-2].alive) < MERGED * len(parts[-1].alive):
                parts[-2:] = [_merged(parts[-2:])]
        parts = [_merged([each]) if 2 * len(each.alive) < each.segment.n_docs else each for each in parts]
        found = BitMap.union(BitMap(), *(each.alive for each in parts))
        return Postings(Stand(view.commit, view.state.reused_last, view.live, found), parts)

    def _pieces(self, records: Iterable[tuple[int, Any]]) -> Iterator[tuple[list[int], list[Any]]]:
        """Rows and their sparse vectors, some at a time."""
        rids: list[int] = []
        values: list[Any] = []
        for rid, record in records:
            key = keys.many_vectors(self._cid, self._layout.number, rid)
            try:
                found = sparse.decode(rows.open_record(keys.MANY, key, record, code="V4"))
            except ValueError as error:
                raise rows.damaged("V5", key, str(error)) from None
            rids.append(rid)
            values.append(found)
            if len(rids) == PIECE_ROWS:
                yield rids, values
                rids, values = [], []
        if rids:
            yield rids, values


def _merged(parts: list[Part]) -> Part:
    """The living rows of some segments as one."""
    made = _text.merge([each.segment for each in parts], [each.dead for each in parts], keep_gone=False)
    return Part(made, BitMap.union(*(each.alive for each in parts)), None)
