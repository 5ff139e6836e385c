"""How do touched rows become segments of full text, and many segments few?

A `TextFolding` is the part of a `Writing` (writing.py) that writes segments. Two kinds of work, both inside
of the commit's own transaction:

    fold    the rows touched since the watermark, as of the commit before, become one new segment, once
            enough of them wait; a transaction that brings enough by itself folds its own rows as well
    merge   FAN segments of about one size, one after the other, become one, some chunks in each commit

Invariants:
  X1  what waits is bounded, in rows, in bytes and in log records: each commit looks whether it is enough;
  X2  a row that this transaction changes is only touched by the fold, for it belongs to what comes after;
  X3  a merge's inputs and masks are decided when it begins and follow from its inputs alone, so that any
      process can go on with it; segments that come meanwhile lie behind them;
  X4  nothing but the list in the state says which segments there are: until the merge is done its output
      is nobody's;
  X5  the gone rows of a merge are kept while any older segment is left in which they could be alive.

A posting is written once by the fold and once by each level of merges: log(n / FOLD_ROWS) / log(FAN).
Rejected: to merge in the fold that makes it due. One commit in FAN * FAN would take seconds.
Rejected: levels by number of segments alone. Folds of one row and of ten thousand would be one level.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb._core import _text
from vecdb.errors import Corrupt
from vecdb.index import segments, texts
from vecdb.index.columns import Columns
from vecdb.index.follow import Follower
from vecdb.index.view import View, array_of
from vecdb.query.clauses import Compare
from vecdb.storage import keys
from vecdb.storage.rows import damaged
from vecdb.storage.state import Merging, Segment, State, TextState

FOLD_ROWS: Final = 512  # rows with texts that wait
FOLD_BYTES: Final = 1 << 20  # or bytes of them
FOLD_LOGGED: Final = 4096  # or rows of any kind: the log cannot be cut while they wait
PIECE_ROWS: Final = 1 << 16  # that become one segment at a time
PIECE_BYTES: Final = 32 << 20
FAN: Final = 8  # segments that are merged
LEAST: Final = 1 << 16  # bytes of postings: smaller segments are all of the lowest level
MERGE_PACE: Final = 4  # bytes merged per byte folded: what the levels need, and some more
MOST_SEGMENTS: Final = 40  # beyond, merges hurry
SLICE: Final = 400_000  # of a merge's work in one commit: some 4 ms
WORTH: Final = 60_000  # credit below which it is not worth while to go on with a merge
DEAD_SHARE: Final = 2  # all is merged once the dead are more than one in so many


class TextFolding:
    """What a transaction has at hand when it writes segments."""

    follower: Follower
    cid: int
    txn: Any
    commit: int
    base: View
    state: State
    live: BitMap
    _columns: Columns
    _own: texts.Own
    touched: dict[int, list[Any]]

    if TYPE_CHECKING:  # of a Writing

        @property
        def commit_before(self) -> int: ...
        def _own_texts(self) -> BitMap: ...

    def _fold_texts(self, touched: int, size: int, *, directly: bool) -> None:
        """This commit's share: fold what waits, or what it did itself, and go on merging.

        `touched`: rows that it touched, of any kind; `size`: bytes of the texts that it wrote.
        """
        now = self.state.text
        if now is None or self._columns.outdated:  # then the log keeps what waits, until `optimize`
            return
        own = self._own_texts()
        if directly or len(own) >= FOLD_ROWS or size >= FOLD_BYTES:  # the next one shall not pay for it
            waiting, replaced = self._waiting()
            self._fold(now, waiting | own, replaced | (own & self.base.live), BitMap(), self.commit)
        else:
            if now.pending >= FOLD_ROWS or now.size >= FOLD_BYTES or now.rows >= FOLD_LOGGED:
                self._fold(now, *self._waiting(), own, self.commit_before)
            elif not now.pending and now.to < self.commit_before:
                now.to, now.rows = self.commit_before, 0
            now.rows += touched
            now.pending += len(own)
            now.size += size
        try:
            self._merge_slice(now)
        except Corrupt as error:  # a damaged index is no reason to refuse a write that does without it
            if error.code != segments.CODE:
                raise

    def _waiting(self) -> tuple[BitMap, BitMap]:
        """The rows touched since the watermark, as of the commit before; those that had a text there."""
        assert self.state.text is not None
        base, span = self.base, (self.state.text.to, self.commit_before)
        touched = texts.touched_in(base.tail, base.names, self._columns, *span)
        return touched, texts.replaced_in(base.tail, base.names, self._columns, *span)

    def _fold(
        self, now: TextState, touched: BitMap, replaced: BitMap, own: BitMap, upto: int
    ) -> None:
        """Make touched rows into segments, but those in `own` (X2); the watermark moves to `upto`.

        `replaced`: those of the rows that older segments have.
        """
        live = self.live if upto == self.commit else self.base.live
        living = (touched & live) - own
        alive, gone = array_of(living), touched - living
        if touched:
            before = len(replaced)
            for place, rids in enumerate(self._pieces(alive)):
                builder = _text.SegmentBuilder(self._columns.analyzers)
                texts.add_rows(builder, self.txn, self.cid, self._columns, rids.tolist())
                if place == 0:
                    builder.touch_many(array_of(gone))
                number = segments.number_of(self.commit, self._place())
                made = segments.write(self.txn, self.cid, number, builder.finish(), before)
                now.segments.append(made)
                now.credit += MERGE_PACE * made.size
                before = 0
        now.to = upto
        now.rows = now.pending = now.size = 0

    def _place(self) -> int:
        """The next number of a segment in this commit."""
        self._segments_made += 1
        return self._segments_made - 1

    _segments_made = 0

    def _pieces(self, alive: Any) -> list[Any]:
        """Rows cut into the pieces that become segments; one at least, for what is only touched."""
        count = max(1, -(-len(alive) // PIECE_ROWS))
        return list(np.array_split(alive, count))

    def _index_anew(self) -> None:
        """Make the segments again: the columns are others now."""
        texts.usable(self._columns, self.base.schema.name)
        now = self.state.text
        if now is not None:
            self._drop_merge(now)
            for each in now.segments:
                segments.delete(self.txn, self.cid, each)
        self.state.text = None
        if not self._columns.any:
            return
        now = self.state.text = TextState()
        base = self.base
        wanted = [mark for mark in self._columns.marks if mark in base.names]
        rows = [self.follower.evaluate(self.txn, base, Compare(mark, "==", True)) for mark in wanted]
        own = self._own_texts()
        self._fold(now, BitMap.union(BitMap(), *rows), BitMap(), own, self.commit_before)
        self._own = texts.Own(set(self.touched), now.segments)

    # --- merges ------------------------------------------------------------------------------

    def _merge_slice(self, now: TextState) -> None:
        """Go on with the merge under way, or begin one that is due, as far as the credit goes."""
        if now.merge is None and not self._begin_merge(now):
            now.credit = min(now.credit, SLICE)
            return
        work = now.credit
        if len(now.segments) > MOST_SEGMENTS:
            work = max(work, SLICE)
        if work < WORTH:
            return
        done = self._merge_some(now, min(work, SLICE))
        now.credit = max(0, now.credit - done)

    def _begin_merge(self, now: TextState) -> bool:
        """Begin the merge that is due; whether there is one."""
        found = due(now)
        if found is None:
            return False
        first, count = found
        number = segments.number_of(self.commit, self._place())
        now.merge = Merging(first, count, number, 0, 0, b"")
        return True

    def _merge_some(self, now: TextState, work: int) -> int:
        """Do about so much of the merge under way; how much was read and written."""
        merge = now.merge
        assert merge is not None
        inputs = now.segments[merge.first : merge.first + merge.count]
        load = segments.loader(self.txn, self.cid, [each.number for each in inputs])
        made = self._merger(merge, inputs)
        try:
            chunks = [bytes(each) for each in made.step(load, work)]
            segments.put_chunks(self.txn, self.cid, merge.number, merge.chunks, chunks)
            size = merge.size + sum(map(len, chunks))
            after = Merging(
                merge.first, merge.count, merge.number, made.n_chunks, size, bytes(made.progress)
            )
            now.merge = after
            self._at_hand = (after.number, made)
            if made.done:
                self._end_merge(now, after, inputs, made)
        except ValueError as error:
            key = keys.segment(self.cid, inputs[0].number, 0)
            raise damaged(segments.CODE, key, f"its segments cannot be merged: {error}") from None
        return work

    def _merger(self, merge: Merging, inputs: list[Any]) -> Any:
        """The merge at hand, or the same made again from what the state keeps of it."""
        index = self.follower.texts
        for known in (self._at_hand, index.merging):
            if known is not None and known[0] == merge.number and known[1].progress == merge.progress:
                return known[1]
        fresh = {each.number for each in self.base.state.text.segments} if self.base.state.text else set()
        opened = [index.segment(self.txn, each, remember=each.number in fresh) for each in inputs]
        masks = texts.masks_of(opened)
        try:
            return _text.Merge(opened, masks, keep_gone=merge.first > 0, progress=merge.progress or None)
        except ValueError as error:
            key = keys.segment(self.cid, inputs[0].number, 0)
            raise damaged(segments.CODE, key, f"its segments cannot be merged: {error}") from None

    _at_hand: tuple[int, Any] | None = None

    def _end_merge(self, now: TextState, merge: Merging, inputs: list[Any], made: Any) -> None:
        """Write the head, and put the output in the place of its inputs."""
        load = segments.loader(self.txn, self.cid, [merge.number])
        head = bytes(made.header(lambda numbers: load(0, numbers)))
        parts = segments.put_head(self.txn, self.cid, merge.number, head)
        opened = _text.Segment.open(head)
        said = Segment(
            merge.number, parts, opened.n_chunks, opened.postings_bytes, opened.n_docs,
            sum(each.dead for each in inputs) if merge.first else 0,
        )  # fmt: skip
        now.segments[merge.first : merge.first + merge.count] = [said]
        now.merge = self._at_hand = None
        for each in inputs:
            segments.delete(self.txn, self.cid, each)

    # --- on its own: optimize, and when idle ---------------------------------------------

    def _fold_texts_for(self, until: float) -> bool:
        """Fold what waits, or merge, for about so long; whether there was anything to do."""
        now = self.state.text
        if now is None or self._columns.outdated:
            return False
        if now.to < self.state.rows_last:
            self._fold(now, *self._waiting(), BitMap(), self.base.commit)
            return True
        worked = False
        while (now.merge is not None or self._begin_merge(now)) and (not worked or perf_counter() < until):
            self._merge_some(now, SLICE)
            worked = True
        return worked

    def _fold_all_texts(self) -> None:
        """Fold what waits and merge all segments into one."""
        now = self.state.text
        if now is None or self._columns.outdated:
            return
        if now.to < self.base.commit:
            self._fold(now, *self._waiting(), BitMap(), self.base.commit)
        self._drop_merge(now)
        if len(now.segments) > 1 or any(each.dead for each in now.segments):
            number = segments.number_of(self.commit, self._place())
            now.merge = Merging(0, len(now.segments), number, 0, 0, b"")
            while now.merge is not None:
                self._merge_some(now, 64 * SLICE)
        now.credit = 0

    def _drop_merge(self, now: TextState) -> None:
        """Give up the merge under way."""
        if now.merge is not None:
            segments.delete_chunks(self.txn, self.cid, now.merge.number, now.merge.chunks)
            now.merge = None


def due(now: TextState) -> tuple[int, int] | None:
    """(place of the first, how many) of the segments that are to be merged; None: none are."""
    listed, levels = now.segments, [level_of(each.size) for each in now.segments]
    rows, dead = sum(each.rows for each in listed), sum(each.dead for each in listed[1:])
    if len(listed) > 1 and dead * DEAD_SHARE > rows:
        return 0, len(listed)
    for level in sorted(set(levels)):
        found: list[int] = []  # places of this level with nothing higher between them
        for place, each in enumerate(levels):
            if each > level:
                found = []
            elif each == level:
                found.append(place)
            if len(found) >= FAN and (place + 1 == len(levels) or levels[place + 1] > level):
                return found[0], found[-1] - found[0] + 1
    return None


def level_of(size: int) -> int:
    """The level of a segment: each holds FAN times what the one below it does."""
    level = 0
    while size >= LEAST:
        size, level = size // FAN, level + 1
    return level
