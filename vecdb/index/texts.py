"""What do the words of a collection's rows say at one commit? Segments, and what came after them.

The rows are the log: a commit writes no postings, it touches rows, and the redo log says which. From time to
time the rows that were touched since are made into one more segment on disk (textfolding.py). A reader at
commit t answers from

    the segments of its own transaction, without the rows that the log has touched since
  | those touched rows that are live, read from its own transaction, as small segments in memory

A row that was touched later is dead in older segments: `masks` follow from what each segment says it
touched. They are kept by the numbers of the segments, which never change.

Invariants:
  T1  a live row is alive in one segment at most; a row without a text in none;
  T2  caches hold what committed transactions show, and nothing that a fold has not committed yet: a
      transaction's own rows are in segments of its own (`Own`);
  T3  pieces in memory follow each other without a gap, and cover everything from the watermark of the
      newest segment to their commit: a piece is left out once the segments on disk contain all of it;
  T4  what was analysed in another way (another stemmer) is never searched: `usable` says what to do.

Costs: following a commit of n rows reads and analyses those n; the first search in a process opens the
heads of the segments (4 bytes a row and column).
Rejected: a mutable index in memory, to which rows are added. Readers at different commits share it with
writers, and every posting would carry the commits between which it is true.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb._core import _text
from vecdb.errors import SchemaError
from vecdb.index import segments
from vecdb.index.changes import FieldBatch
from vecdb.index.columns import Columns, columns_of
from vecdb.index.tail import Tail
from vecdb.index.view import View, array_of
from vecdb.storage import keys
from vecdb.storage.rows import damaged
from vecdb.storage.state import Segment

if TYPE_CHECKING:
    from vecdb.storage.state import TextState

MOST_PIECES: Final = 12  # in memory; then they become one
MOST_MASKS: Final = 96  # kept
AT_ONCE: Final = 4096  # rows that are read and given to a builder at a time
_NONE: Final = BitMap()


class Piece(NamedTuple):
    """Rows that were touched by the commits in (after, upto], as a segment in memory."""

    after: int
    upto: int
    touched: BitMap
    segment: Any


@dataclass(frozen=True, slots=True)
class Recent:
    """Pieces one after the other (T3), of one declaration."""

    columns: Columns
    upto: int
    pieces: tuple[Piece, ...]


class Words:
    """Full text at one commit: a `_text.View`, and where its segments lie."""

    __slots__ = ("cid", "columns", "core", "dead", "numbers", "phrases", "segments")

    def __init__(
        self, cid: int, columns: Columns, made: list[Any], dead: list[Any], numbers: list[int]
    ) -> None:
        self.cid = cid
        self.columns = columns
        self.segments, self.dead = made, dead
        self.core = _text.View(made, dead)
        self.numbers = numbers  # of the segments on disk, the first of the view's
        self.phrases: dict[Any, tuple[Any, Any]] = {}  # wording.py: those that were looked for

    def ask(self, verb: str, *what: Any, **how: Any) -> Any:
        """What `core` answers; Corrupt where a segment cannot be read."""
        try:
            return getattr(self.core, verb)(*what, **how)
        except ValueError as error:  # what is asked was checked before
            key = keys.segment(self.cid, self.numbers[0] if self.numbers else 0, 0)
            raise damaged(segments.CODE, key, f"a segment cannot be read: {error}") from None

    def loader(self, txn: Any) -> segments.Load:
        """What fetches postings through a transaction of that commit."""
        return segments.loader(txn, self.cid, self.numbers)


class Own:
    """What a transaction has changed so far: pieces of its own behind those of the commit before."""

    __slots__ = ("anew", "changed", "pieces")

    def __init__(self, changed: set[int] | None = None, anew: list[Segment] | None = None) -> None:
        self.changed = changed or set()  # rows that changed since the last piece was made
        self.anew = None if anew is None else list(anew)  # segments that it wrote instead of all others
        self.pieces: list[Piece] = []

    def note(self, rid: int) -> None:
        """Remember that a row changed."""
        self.changed.add(rid)


class TextIndex:
    """The full text of one collection in this process; shared by threads, holds no transaction."""

    def __init__(self, cid: int) -> None:
        self.cid = cid
        self._lock = threading.Lock()
        self._segments: dict[int, Any] = {}
        self._masks: OrderedDict[tuple[int, ...], bytes | None] = OrderedDict()
        self._recent: Recent | None = None
        self._last: tuple[tuple[Any, ...], Words] | None = None  # it counts what it was asked for
        self.merging: tuple[int, Any] | None = None  # textfolding.py: a merge at hand

    def forget(self) -> None:
        """Drop what is in memory."""
        with self._lock:
            self._segments, self._masks = {}, OrderedDict()
            self._recent = self._last = self.merging = None

    # --- at a commit -----------------------------------------------------------------------

    def at(self, txn: Any, view: View) -> Words:
        """The full text of a view; SchemaError where its analysis is not at hand (T4)."""
        found: Words | None = view.words.get("words")
        if found is None:
            usable(columns_of(view.schema), view.schema.name)
            with self._lock:
                found = view.words.get("words")
                if found is None:
                    found = view.words["words"] = self._made(txn, view)
        return found

    def _made(self, txn: Any, view: View) -> Words:
        columns, now, own = columns_of(view.schema), view.state.text, view.words.get("own")
        if now is None:
            raise damaged("S1", keys.state(self.cid), "it does not tell of the full text that is declared")
        if own is not None and own.anew is not None:
            return self._made_anew(txn, view, columns, own, own.anew)
        base: View = view if own is None else view.words["base"]
        said = base.state.text.segments if base.state.text is not None else []
        recent = self._recent_at(txn, base, columns, remember=own is None, also=_changed(own))
        pieces = list(recent.pieces)
        if own is not None:
            pieces += self._own_pieces(txn, view, columns, own)
        numbers = [each.number for each in said]
        key = (columns, *(each.segment for each in pieces))
        if self._last is not None and self._last[1].numbers == numbers and _same(key, self._last[0]):
            return self._last[1]
        opened = [self.segment(txn, each) for each in said]
        masks = self.masks(said, opened)
        touched = array_of(BitMap.union(_NONE, *(each.touched for each in pieces)))
        dead = [each.bury(touched, mask) for each, mask in zip(opened, masks, strict=True)]
        every = [*opened, *(each.segment for each in pieces)]
        made = Words(self.cid, columns, every, [*dead, *_buried(pieces)], numbers)
        if own is None:
            self._last = (key, made)
        return made

    def _made_anew(
        self, txn: Any, view: View, columns: Columns, own: Own, said: list[Segment]
    ) -> Words:
        """The same in a transaction that has indexed everything anew: nothing of it is kept (T2)."""
        pieces = self._own_pieces(txn, view, columns, own)
        opened = [self.segment(txn, each, remember=False) for each in said]
        touched = array_of(BitMap.union(_NONE, *(each.touched for each in pieces)))
        dead = [each.bury(touched, mask) for each, mask in zip(opened, masks_of(opened), strict=True)]
        every = [*opened, *(each.segment for each in pieces)]
        return Words(self.cid, columns, every, [*dead, *_buried(pieces)], [each.number for each in said])

    def _recent_at(
        self, txn: Any, view: View, columns: Columns, *, remember: bool, also: BitMap
    ) -> Recent:
        """The pieces that a view needs; `also`: rows that a transaction has changed since."""
        assert view.state.text is not None
        start, known = view.state.text.to, self._recent
        if (
            known is None or known.columns is not columns or known.upto > view.commit
            or (known.pieces and known.pieces[0].after > start)
        ):  # fmt: skip
            known = Recent(columns, start, ())
        pieces = [each for each in known.pieces if each.upto > start]
        after = max(known.upto, start)
        if after < view.commit:
            touched = touched_in(view.tail, view.names, columns, after, view.commit)
            if touched:
                left_out = touched & also  # their records are the transaction's already
                piece = _piece(txn, self.cid, columns, touched, (touched & view.live) - left_out)
                pieces.append(Piece(after, view.commit, touched, piece))
                remember = remember and not left_out
            elif pieces:
                pieces[-1] = pieces[-1]._replace(upto=view.commit)
        if len(pieces) > MOST_PIECES:
            pieces = [_joined(pieces)]
        made = Recent(columns, max(after, view.commit), tuple(pieces))
        if remember and (self._recent is None or made.upto >= self._recent.upto):
            self._recent = made
        return made

    def _own_pieces(self, txn: Any, view: View, columns: Columns, own: Own) -> list[Piece]:
        """A transaction's own rows, those changed since the last time added."""
        if own.changed:
            touched = BitMap(own.changed)
            piece = _piece(txn, self.cid, columns, touched, touched & view.live)
            own.pieces.append(Piece(view.commit, view.commit, touched, piece))
            own.changed = set()
            if len(own.pieces) > MOST_PIECES:
                own.pieces = [_joined(own.pieces)]
        return own.pieces

    # --- segments and masks ------------------------------------------------------------------

    def segment(self, txn: Any, said: Segment, *, remember: bool = True) -> Any:
        """The opened head of a segment on disk; kept, unless it may not be committed yet (T2)."""
        found = self._segments.get(said.number)
        if found is None:
            found = segments.open_head(txn, self.cid, said)
            if remember:
                self._segments[said.number] = found
        return found

    def masks(self, said: Sequence[Segment], opened: Sequence[Any]) -> list[bytes | None]:
        """What is dead in each segment, because a newer one touched it."""
        numbers = [each.number for each in said]
        return [self._mask(tuple(numbers[at:]), opened[at:]) for at in range(len(numbers))]

    def _mask(self, numbers: tuple[int, ...], opened: Sequence[Any]) -> bytes | None:
        """The same of the first of some segments; a newer one only adds to what was known."""
        at = len(numbers)
        while at > 1 and numbers[:at] not in self._masks:
            at -= 1
        mask = self._masks.get(numbers[:at])
        for newer in range(at, len(numbers)):
            mask = opened[0].bury(opened[newer].touched(), mask)
        self._masks[numbers] = mask
        self._masks.move_to_end(numbers)
        while len(self._masks) > MOST_MASKS:
            self._masks.popitem(last=False)
        return mask

    def keep(self, said: Iterable[Segment]) -> None:
        """Forget the heads of segments that the newest commit does not have any more."""
        kept = {each.number for each in said}
        self._segments = {number: each for number, each in self._segments.items() if number in kept}

    def figures(self, now: TextState) -> dict[str, Any]:
        """What `stats` tells."""
        return {
            "segments": len(now.segments),
            "rows": sum(each.rows for each in now.segments),
            "postings_bytes": sum(each.size for each in now.segments),
            "folded_to": now.to,
            "unfolded_rows": now.pending,
            "memory_bytes": sum(each.nbytes for each in list(self._segments.values())),
        }


def usable(columns: Columns, name: str) -> None:
    """Refuse where postings were made by another analysis than the one at hand (T4)."""
    for each in columns.missing:
        raise SchemaError(
            f"collection {name!r}: the words of field {each.name!r} are indexed with a stemmer that this "
            f"process has not ({each.analysis.fingerprint}): vectors and filters work without it"
        )
    if columns.outdated:
        each = columns.outdated[0]
        raise SchemaError(
            f"collection {name!r}: the words of field {each.name!r} were indexed by the analysis "
            f"{each.declared.fingerprint!r}, and this process has {each.analysis.fingerprint!r}: the two do "
            "not make the same terms. Run optimize() on the collection to index it again with the one at "
            "hand, or install what it was indexed with"
        )


# --- rows -----------------------------------------------------------------------------------


def touched_in(tail: Tail, names: dict[str, int], columns: Columns, after: int, upto: int) -> BitMap:
    """The rows with something to index, now or before, that the commits in (after, upto] touched."""
    found: list[BitMap] = []
    for one in _marked(tail, names, columns, after, upto):
        found += [*one.came.values(), *one.kept.values(), *one.gone.values()]
    return BitMap.union(_NONE, *found)


def replaced_in(tail: Tail, names: dict[str, int], columns: Columns, after: int, upto: int) -> BitMap:
    """Those of them that had it when the first of these commits came."""
    new, found = BitMap(), BitMap()
    for one in _marked(tail, names, columns, after, upto):
        found |= BitMap.union(_NONE, *one.kept.values(), *one.gone.values()) - new
        new |= BitMap.union(_NONE, *one.came.values())
    return found


def _marked(
    tail: Tail, names: dict[str, int], columns: Columns, after: int, upto: int
) -> Iterator[FieldBatch]:
    """What these commits did to the marks of rows (columns.py, C2)."""
    fields = [names[mark] for mark in columns.marks if mark in names]
    for batch in tail.batches(after, upto) if fields else ():
        for fieldid in fields:
            one = batch.field(fieldid)
            if one is not None:
                yield one


def add_rows(builder: Any, txn: Any, cid: int, columns: Columns, alive: Sequence[int]) -> None:
    """Read rows and give what they have to a builder."""
    for first in range(0, len(alive), AT_ONCE):
        some = alive[first : first + AT_ONCE]
        builder.add_many(np.array(some, np.uint32), columns.read(txn, cid, some))


def _piece(txn: Any, cid: int, columns: Columns, touched: BitMap, alive: BitMap) -> Any:
    builder = _text.SegmentBuilder(columns.analyzers)
    add_rows(builder, txn, cid, columns, list(alive))
    builder.touch_many(array_of(touched - alive))
    return builder.finish()


def _buried(pieces: Sequence[Piece]) -> list[bytes | None]:
    """What is dead in each piece, because a later one touched it."""
    masks: list[bytes | None] = []
    later = BitMap()
    for each in reversed(pieces):
        masks.append(each.segment.bury(array_of(later)) if later else None)
        later |= each.touched
    return masks[::-1]


def masks_of(opened: Sequence[Any]) -> list[bytes | None]:
    """What is dead in each of some segments, because a later one touched it."""
    masks: list[bytes | None] = []
    for at, each in enumerate(opened):
        mask = None
        for newer in opened[at + 1 :]:
            mask = each.bury(newer.touched(), mask)
        masks.append(mask)
    return masks


def _joined(pieces: Sequence[Piece]) -> Piece:
    made = _text.merge([each.segment for each in pieces], _buried(pieces))
    touched = BitMap.union(_NONE, *(each.touched for each in pieces))
    return Piece(pieces[0].after, pieces[-1].upto, touched, made)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))


def _changed(own: Own | None) -> BitMap:
    if own is None:
        return _NONE
    return BitMap.union(BitMap(own.changed), *(each.touched for each in own.pieces))
