"""How do the slots of deleted rows leave the graphs, and how are they handed out again?

A row that dies leaves a node behind that walks still pass through. When a twelfth of the slots is dead,
a round begins: the dead slots that no reader can need any more are condemned, and every commit takes a
slice of the round in proportion to what it logs. Slices sweep the rows of each graph, so that nothing
links to condemned slots but what pins them, pin elsewhere what was pinned to them, and, when no reader
is older than that, vacate them (`_core/sweep.cpp`). When the last one has left the last graph, they are
entered among the resting slots, and new rows get them as soon as no reader is older than that. So
memory, file and speed stay level under endless change, without a pause and without a thread.

Invariants (isolation rule 5 of the design):
  G1  only slots that died in a commit that every reader sees are condemned, and only slots that were
      vacated by such a commit are handed out again (storage/resting.py);
  G2  the condemned slots of a round do not change: they are a record of their own until its end, and
      none of them is handed out before;
  G3  slots are handed out again block by block, from the blocks that have most to give, and a block is
      written anew once, when its free slots are used up. Until then, vectors that belong into it travel
      in their rows' records: there is one such block (or as many as share its slots) at a time;
  G4  the scale of the codes is looked at when a round begins, so that it follows data that drift;
  G5  the first slot of a graph and of its entry layer stay as long as they are the first when a round
      begins.

Rejected: repair in the commit that deletes. Each row of links would be rewritten for each of its dead
neighbours, and readers that are older would lose rows that they may still find.
Rejected: a thread that repairs. A process that commits and exits would never do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from pyroaring import BitMap

from vecdb import _core
from vecdb.errors import Corrupt
from vecdb.index.leaf import posting_of
from vecdb.index.view import NO_SLOTS, Graphed, View, mask_of, slots_of
from vecdb.storage import keys, records, resting, rows
from vecdb.storage.rows import PLAIN
from vecdb.storage.state import State
from vecdb.storage.vectors import Layout

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.index.follow import Follower
    from vecdb.storage.writing import WriteTxn

ROUND_AT: Final = 0.08  # share of the slots that is dead when a round begins
LEAST: Final = 64  # dead slots for which a round is worth while
BURIED_PACE: Final = 18  # rows swept for each row that dies in a commit: a round needs 1 / ROUND_AT
BORN_PACE: Final = 1  # and for each that comes
WORTH: Final = 12  # a block is written anew for at least this part of its slots
ENTRY_EVERY: Final = 32  # slots for each node of the entry layer
IDLE_STEP: Final = 256  # rows swept between looks at the clock
REHOMING, VACATING = 2, 3  # the phases of a round after those that sweep a layer each


class Sweeping:
    """The part of a `Writing` (writing.py) that takes dead slots out and hands free ones out."""

    follower: Follower
    cid: int
    txn: Any
    wt: WriteTxn
    commit: int
    base: View
    state: State
    live: BitMap
    born: set[int]
    buried: set[int]  # slots whose rows died in this transaction
    _fields: dict[int, Graphed]
    _writers: dict[int, Any]
    _layouts: dict[int, Layout]

    def _begin_slots(self) -> None:
        self.buried = set()
        self._vacant: BitMap | None = None  # once it was asked for
        self._resting: BitMap | None = None
        self._gone: dict[int, BitMap] = {}  # slots that it has let leave a field's graph
        self._left: list[int] = []  # slots that this transaction has let leave the last graph

    def _writer(self, number: int) -> Any:
        """The open writer of a field's graph: new links of it avoid dead slots."""
        writer = self._writers.get(number)
        if writer is None:
            writer = self._writers[number] = self._fields[number].graph.begin(self._linkable())
        return writer

    def _linkable(self) -> bytes | None:
        """The slots that are live by now, of the commit before; None: all of them.

        A row that this transaction replaces must not be what its new version hangs on: rows that move
        together again and again would drift away from all others.
        """
        base = self.base
        if not self.buried:
            return base.mask
        mask = base.mask
        if mask is None:
            mask = _core.mask_of(np.arange(base.slots, dtype=np.uint32), base.slots)
        died = np.array(sorted(s for s in self.buried if s < base.slots), np.uint32)
        return bytes(_core.mask_update(mask, base.slots, NO_SLOTS, died))

    # --- which slots are what ------------------------------------------------------------------

    def _vacancies(self) -> BitMap:
        """Slots that are neither live nor in a graph."""
        if self._vacant is None:
            known = self.follower.vacant
            if known is not None and known[0] == self.base.commit:
                self._vacant = known[1].copy()
            else:
                self._vacant = self._absent(self._not_live()) if self.state.vacant else BitMap()
        return self._vacant

    def _not_live(self) -> BitMap:
        return BitMap(range(self.base.slots)) - self.base.live

    def _absent(self, slots: BitMap) -> BitMap:
        """Those of the slots that are in no graph, as of the commit before."""
        return absent_from(self._fields.values(), slots)

    def _resting_now(self) -> BitMap:
        """Slots that a reader may still need; entries that are due are taken out first."""
        if self._resting is not None:
            return self._resting
        self._resting = BitMap()
        if not self.state.resting:
            return self._resting
        floor = self.wt.reader_floor()
        due = []
        waiting = False
        for entry in resting.read(self.txn, self.cid):
            waiting = waiting or not self.wt.due(entry.id, floor)
            if waiting:
                self._resting.update(BitMap(entry.slots))
            else:
                due.append(entry.key)
        for key in due:
            self.txn.delete(key)
        self.state.resting = len(self._resting)
        return self._resting

    def _condemned(self) -> BitMap:
        """The slots that the round under way takes out."""
        began = self.state.condemned
        if not began:
            return BitMap()
        known = self.follower.condemned
        if known is None or known[0] != began:
            key = keys.condemned(self.cid)
            record = self.txn.get(key)
            if record is None:
                raise rows.damaged("Q3", key, "the slots of the round under way are missing")
            known = self.follower.condemned = (began, condemned_in(key, record))
        return known[1]

    # --- handing out again ---------------------------------------------------------------------

    def _reuse(self, count: int) -> npt.NDArray[np.uint32]:
        """Up to `count` free slots, ascending, and what becomes of their blocks (G3)."""
        now = self.state
        self._settled: list[range] = []
        self._was_loose = now.loose
        if not now.vacant or not count:
            return np.empty(0, np.uint32)
        free = self._vacancies() - self._resting_now() - self._condemned() - BitMap(self.buried)
        first = max((each.declared.first for each in self._fields.values()), default=0)
        if first:  # below, a field that came later has no places
            free -= BitMap(range(first))
        if not free:
            return np.empty(0, np.uint32)
        taken = self._take(np.array(free, np.uint32), count)
        self._vacancies().difference_update(BitMap(taken))
        now.vacant -= len(taken)
        now.reused_last = self.commit
        return taken

    def _take(self, free: npt.NDArray[np.uint32], count: int) -> npt.NDArray[np.uint32]:
        now, was = self.state, self.state.loose
        size = max(self._layouts[number].block_rows for number in self._fields)
        groups, starts, counts = np.unique(free // size, return_index=True, return_counts=True)
        order = np.argsort(-counts, kind="stable").tolist()
        open_now = [at for at in order if int(groups[at]) * size in was]
        now.loose_from = now.loose_to = 0
        taken = []
        worth = [at for at in order if at not in open_now and counts[at] * WORTH >= size]
        for at in [*open_now, *worth]:
            group = range(int(groups[at]) * size, (int(groups[at]) + 1) * size)
            part = free[starts[at] : starts[at] + min(counts[at], count)]
            taken.append(part)
            count -= len(part)
            if len(part) == counts[at]:
                self._settled.append(group)
            else:
                now.loose_from, now.loose_to = group.start, group.stop
            if not count:
                break
        if was and was not in (now.loose, *self._settled):  # or blocks have another size by now
            self._settled.append(was)
        return np.sort(np.concatenate(taken)) if taken else np.empty(0, np.uint32)

    # --- a round -------------------------------------------------------------------------------

    def _upkeep_slots(self) -> None:
        """This commit's slice of a round, and what rests from it on."""
        now = self.state
        if not now.condemned and self.buried:
            self._begin_round()
        if now.condemned and (self.buried or self.born):
            behind = now.dead / (2 * ROUND_AT * now.slots)
            work = BURIED_PACE * len(self.buried) + BORN_PACE * len(self.born)
            self._advance_round(int(work * max(1.0, behind)))
        self._rest()

    def _rest(self) -> None:
        """Enter what died and what was vacated."""
        slots = np.array(sorted(self.buried.union(self._left)), np.uint32)
        if len(slots):
            resting.put(self.txn, self.cid, self.commit, self.wt.txn_id, slots)
            self.state.resting += len(slots)

    def _begin_round(self) -> bool:
        """Condemn the dead slots that no reader needs, if there are enough of them."""
        now = self.state
        if not is_due(now):
            return False
        dead = self._not_live() - self._vacancies() - self._resting_now()
        dead -= BitMap(self.buried) | BitMap(self.born) | self._first_ones()
        if len(dead) < max(LEAST, ROUND_AT / 2 * now.slots):
            return False
        key = keys.condemned(self.cid)
        records.put(self.txn, key, dead.serialize())
        self.follower.condemned = None  # a number that was aborted may come again
        now.condemned = self.commit
        self._go_to(min(now.vectors, default=0), 0)
        for number in now.vectors:
            self._writer(number).recalibrate(self.follower.threads)  # G4
        return True

    def _first_ones(self) -> BitMap:
        """The first slot of each graph, and of its entry layer: walks begin there (G5).

        Decided for the whole round: a slot that came to be no longer first within it would go although
        rows were swept that keep their links to it.
        """
        first = BitMap()
        for each in self._fields.values():
            slots = BitMap(range(each.graph.n_slots))
            inside = slots - absent_from([each], slots)
            entries = inside & BitMap(range(0, each.graph.n_slots, ENTRY_EVERY))
            first.update(some.min() for some in (inside, entries) if some)
        return first

    def _advance_round(self, units: int) -> None:
        """Go on with the round for about as much work as sweeping so many rows."""
        now = self.state
        condemned = self._condemned()
        number = min((n for n in now.vectors if n >= now.sweep_field), default=None)
        if number is None:
            self._end_round(condemned)
            return
        if number != now.sweep_field:
            self._go_to(number, 0)
        writer = self._writer(number)
        writer.condemn(mask_of(condemned, self.base.slots))
        while units > 0 and now.sweep_phase < REHOMING:
            units -= self._sweep(writer, number, units)
        if units > 0 and now.sweep_phase == REHOMING:
            self._rehome(writer, number, units)
        elif units > 0 and self._may_vacate():
            self._vacate(writer, number, units)

    def _go_to(self, number: int, phase: int) -> None:
        now = self.state
        now.sweep_field, now.sweep_phase, now.sweep_at = number, phase, 0

    def _may_vacate(self) -> bool:
        """Whether every reader sees the new pins."""
        now = self.state
        if now.sweep_after and self.wt.due(now.sweep_after, self.wt.reader_floor()):
            now.sweep_after = 0
        return not now.sweep_after

    def _rehome(self, writer: Any, number: int, most: int) -> None:
        now = self.state
        now.sweep_at = self._unless_damaged(number, lambda: writer.rehome(now.sweep_at, most))
        if now.sweep_at >= self._fields[number].graph.n_slots:
            self._go_to(number, VACATING)
            now.sweep_after = self.wt.txn_id

    def _unless_damaged(self, number: int, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except ValueError as error:
            raise rows.damaged("G2", keys.links(self.cid, number, 0, 0), str(error)) from None

    def _sweep(self, writer: Any, number: int, units: int) -> int:
        now = self.state
        slots = int(self._fields[number].graph.n_slots)
        total = slots if now.sweep_phase == 0 else -(-slots // ENTRY_EVERY)
        step = min(units, total - now.sweep_at)
        if step > 0:
            writer.sweep(now.sweep_phase, now.sweep_at, step, self.follower.threads)
            now.sweep_at += step
        if now.sweep_at >= total:
            self._go_to(number, now.sweep_phase + 1)
        return max(1, step)

    def _vacate(self, writer: Any, number: int, most: int) -> None:
        now = self.state
        slots, at = self._unless_damaged(number, lambda: writer.vacate(now.sweep_at, most))
        self._note_vacated(number, BitMap(slots))
        if at is None:
            self._go_to(number, REHOMING)
            return
        now.sweep_at = at
        if now.sweep_at >= self._fields[number].graph.n_slots:
            following = min((n for n in now.vectors if n > number), default=None)
            if following is None:
                self._end_round(self._condemned())
            else:
                self._go_to(following, 0)

    def _note_vacated(self, number: int, slots: BitMap) -> None:
        """Slots that left one graph are vacant where no other has them; their records go."""
        self._gone[number] = self._gone.get(number, BitMap()) | slots
        for other, each in self._fields.items():
            if other != number and slots:
                slots &= absent_from([each], slots) | self._gone.get(other, BitMap())
        self._vacancies().update(slots)
        self.state.vacant += len(slots)
        for slot in slots:
            if slot in self.state.loose or slot >= self._inline_from:
                self.txn.delete(keys.row(self.cid, slot))

    @property
    def _inline_from(self) -> int:
        return min(  # the first slot whose block is not written, in some field
            self._layouts[n].inline_from(self.state.slots) for n in self.state.vectors)

    def _end_round(self, condemned: BitMap) -> None:
        self._left = list(condemned & self._vacancies())
        self.txn.delete(keys.condemned(self.cid))
        self.state.condemned = 0

    def _repair_for(self, until: float) -> bool:
        """Work on a round until then, or begin one; whether there was something to do."""
        worked = False
        while perf_counter() < until or not worked:
            if not self.state.condemned and (worked or not self._begin_round()):
                break
            self._advance_round(IDLE_STEP)
            worked = True
        return worked


def is_due(now: State) -> bool:
    """Whether a round is under way, or enough slots are dead to begin one."""
    return now.condemned > 0 or now.dead >= max(LEAST, ROUND_AT * now.slots)


def absent_from(fields: Iterable[Graphed], slots: BitMap) -> BitMap:
    """Those of the slots that are in none of the graphs."""
    asked = np.ascontiguousarray(slots_of(slots, PLAIN))
    absent = np.ones(len(asked), np.bool_)
    for each in fields:
        absent &= np.frombuffer(each.graph.absent(asked), np.bool_)
    return BitMap(asked[absent])


def condemned_in(key: bytes, record: Any) -> BitMap:
    """The slots in the record of a round; Corrupt where it is none."""
    payload = rows.open_record(keys.LOG, key, record, code="Q3")
    try:
        return posting_of(bytes(payload))
    except Corrupt as error:
        raise rows.damaged("Q3", key, error.detail) from None
