"""How do the images on disk follow what commits change, at a cost in proportion?

A `Folding` is the part of a `Writing` (writing.py) that writes images: leaves of metadata fields, the
bitmap of live rows, chunks of links. Every commit takes a slice of that work, paced by what it logs;
`fold_for` and `fold_step` are the same work on its own, when idle and on `optimize`.

Invariants:
  B3  the log's tail is bounded: every commit folds in proportion to what it logs;
  B4  a field is folded by parts, in the order of its value keys, all up to the commit at which the
      first one was folded; the watermark moves there when the last one is done;
  B5  an image is written as of the previous commit, whose view is at hand; a transaction that is worth
      more than its log writes its own images instead, and leaves no log.

Rejected: upkeep in a background thread only. A process that commits and exits would never fold.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from pyroaring import BitMap

from vecdb.index import attributes
from vecdb.index.changes import RowChange
from vecdb.index.follow import Follower
from vecdb.index.loading import CHUNK_HEADER, LAYERS
from vecdb.index.view import Graphed, View
from vecdb.storage import keys, log, records
from vecdb.storage.state import State

DIRECT_LINKS: Final = 256 << 10  # a link log below this is never replaced by image chunks
FOLD_EVERY: Final = 4096  # touched rows after which every field has been folded once
LEAST_LEAVES: Final = 64  # that a round is expected to write
IDLE_CHUNKS: Final = 8  # of links, written in one slice of an idle thread
ROUND_PACE: Final = 3  # bytes of image rewritten per byte of link log


class Folding:
    """What a transaction has at hand when it writes images."""

    follower: Follower
    cid: int
    txn: Any
    commit: int
    base: View
    state: State
    names: dict[str, int]
    born: set[int]
    died: set[int]
    _fields: dict[int, Graphed]
    _writers: dict[int, Any]

    if TYPE_CHECKING:  # of a Writing

        def _change(self) -> None: ...
        def _repair_for(self, until: float) -> bool: ...
        def _fold_texts_for(self, until: float) -> bool: ...
        def _fold_all_texts(self) -> None: ...

    # --- metadata ------------------------------------------------------------------

    def _fold_everything(self, changes: list[RowChange]) -> None:
        """Fold what came before and this transaction's own changes."""
        tail = self.base.tail.copy()
        tail.advance(self.commit, changes)
        self.state.fields_to += [self.commit_before] * (len(self.names) - len(self.state.fields_to))
        for fieldid, at in enumerate(self.state.fields_to):
            self.follower.attributes.fold_field(self.txn, fieldid, tail, at)
        self._fold_live(self.born, self.died)
        self.state.fields_to = [self.commit] * len(self.names)
        self.state.live_to = self.commit
        self.state.fold_anew()
        self.state.rows_cut = log.drop(self.txn, self.cid, log.ROWS, self.state.rows_cut, self.commit)

    def _fold_slice(self, touched: int) -> None:
        """Fold the images in turn up to the previous commit, leaf by leaf, at the pace of the log.

        A round shall take FOLD_EVERY touched rows and is expected to write as many leaves as the last
        one, more the longer it takes: so every commit pays about the same.
        """
        now, images = self.state, len(self.base.names) + 1
        now.fields_to += [self.commit_before] * (len(self.names) - len(now.fields_to))
        now.fold_rows += touched
        late = max(1.0, now.fold_rows / FOLD_EVERY) ** 3
        now.fold_credit += int(touched * max(now.fold_last, LEAST_LEAVES) * late)
        due = share = now.fold_credit // FOLD_EVERY
        for _ in range(images):
            if due <= 0 or 2 * due < share:  # what is left is too little to begin another image with
                break
            due -= self._fold_some(now.fold_next % images, images - 1, due)
        else:
            due = 0  # it went round: there is nothing to save up for
        now.fold_credit -= (share - max(0, due)) * FOLD_EVERY

    def _fold_some(self, image: int, known: int, limit: int) -> int:
        """Fold some leaves of the image whose turn it is; its end moves its watermark (B4)."""
        now, wrote = self.state, 1
        if not now.fold_at:
            now.fold_from = self.commit_before
        if image == known:
            self._fold_image(image, known, self.commit_before)
        elif now.fields_to[image] < now.fold_from:
            wrote, now.fold_at = self.follower.attributes.fold_some(
                self.txn, image, self.base.tail, now.fields_to[image], now.fold_from,
                now.fold_at, limit,
            )  # fmt: skip
            if not now.fold_at:
                now.fields_to[image] = now.fold_from
        else:
            now.fold_at = b""  # an idle thread has folded the rest
        now.fold_wrote += wrote
        if not now.fold_at:
            now.fold_next = (image + 1) % (known + 1)
            if now.fold_next == 0:
                now.fold_last, now.fold_wrote, now.fold_rows = now.fold_wrote, 0, 0
        return wrote

    def _fold_image(self, image: int, known: int, upto: int) -> None:
        if image < known:
            if self.state.fields_to[image] < upto:
                at = self.state.fields_to[image]
                self.follower.attributes.fold_field(self.txn, image, self.base.tail, at)
                self.state.fields_to[image] = upto
        elif self.state.live_to < upto:
            self._fold_live((), ())
            self.state.live_to = upto

    def _fold_live(self, born: Any, died: Any) -> None:
        live = self.base.live.copy()
        live.update(BitMap(born))
        live.difference_update(BitMap(died))
        attributes.store_live(self.txn, self.cid, live)

    @property
    def commit_before(self) -> int:
        """The commit that this transaction started from."""
        return self.base.commit

    # --- links ------------------------------------------------------------------------

    def _store_links(self, number: int, record: bytes) -> None:
        mine, writer = self.state.vectors[number], self._writers[number]
        mine.scale = list(writer.scale or ()) or None
        image_bytes = sum(writer.n_chunks(layer) for layer in LAYERS) * self._chunk_bytes(number)
        part = keys.log_links(number)
        if len(record) >= DIRECT_LINKS and 2 * len(record) > image_bytes:
            self._write_image(number, writer, self.commit)
            mine.links_cut = log.drop(self.txn, self.cid, part, mine.links_cut, self.commit)
            return
        log.put(self.txn, self.cid, self.commit, part, record)
        mine.links_last = self.commit
        self._checkpoint_slice(number, len(record))

    def _chunk_bytes(self, number: int) -> int:
        declared, graph, _ = self._fields[number]
        return int(graph.chunk_rows) * 8 * declared.M

    def _write_image(self, number: int, source: Any, commit: int) -> None:
        """Write every chunk: the image then holds this commit, and no older log is needed."""
        for layer in LAYERS:
            for chunk in range(source.n_chunks(layer)):
                self._put_chunk(number, source, layer, chunk, commit)
        mine = self.state.vectors[number]
        mine.links_to = mine.round_from = commit
        mine.round_chunk = mine.round_credit = 0

    def _checkpoint_slice(self, number: int, logged: int) -> None:
        """Rewrite some chunks in turn, as of the previous commit, paced by the log's volume."""
        mine, graph = self.state.vectors[number], self._fields[number].graph
        mine.round_credit += ROUND_PACE * logged
        while mine.round_credit >= self._chunk_bytes(number) and graph.n_slots:
            mine.round_credit -= self._chunk_bytes(number)
            self._next_chunk(number)

    def _next_chunk(self, number: int) -> None:
        """Write the chunk whose turn it is; a finished round moves the watermark."""
        mine, graph = self.state.vectors[number], self._fields[number].graph
        if mine.round_chunk == 0:
            mine.round_from = self.base.commit
        total = [graph.n_chunks(layer) for layer in LAYERS]
        layer = 0 if mine.round_chunk < total[0] else 1
        chunk = mine.round_chunk - (total[0] if layer else 0)
        self._put_chunk(number, graph, layer, chunk, self.base.commit)
        mine.round_chunk += 1
        if mine.round_chunk >= sum(total):
            mine.links_to, mine.round_chunk = mine.round_from, 0

    def _put_chunk(self, number: int, source: Any, layer: int, chunk: int, commit: int) -> None:
        key = keys.links(self.cid, number, layer, chunk)
        head = commit.to_bytes(8, "little") + bytes((layer,)) + bytes(CHUNK_HEADER - 9)
        records.put(self.txn, key, head + source.chunk(layer, chunk))

    # --- on its own: optimize, and when idle -----------------------------------------

    def fold_for(self, seconds: float) -> None:
        """Fold what is unfolded for about so long, an image or some chunks at a time; then repair.

        What a slice replaces, the next but one can use: the file grows by two slices.
        """
        until = perf_counter() + seconds
        now, known = self.state, len(self.base.names)
        if not now.unfolded:
            if self._repair_for(until):
                self._change()
            return
        self._change()
        now.fields_to += [self.base.commit] * (known - len(now.fields_to))
        for image in range(known + 1):
            done = now.live_to if image == known else now.fields_to[image]
            if done < now.rows_last:
                self._fold_image(image, known, self.base.commit)
                return
        if self._fold_texts_for(until):
            return
        chunks = 0
        for number, mine in now.vectors.items():
            while mine.links_last > mine.links_to and chunks < IDLE_CHUNKS and perf_counter() < until:
                self._next_chunk(number)
                chunks += 1

    def fold_step(self, step: int) -> int:
        """Fold one image up to the previous commit (`optimize`); how many steps there are.

        The metadata, that is the fields and the bitmap of live rows, is one; each graph is another.
        """
        self._change()
        if step == 0:
            known = len(self.base.names)
            for image in range(known + 1):
                self._fold_image(image, known, self.base.commit)
            self._fold_all_texts()
        elif step <= len(self._fields):
            number, each = list(self._fields.items())[step - 1]
            if each.graph.n_slots:
                self._write_image(number, each.graph, self.base.commit)
        return 1 + len(self._fields)
