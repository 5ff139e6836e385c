"""The state of a collection: how far its rows, its log and its images have come.

One small record per collection, written by every commit that touches it, in the same leaf of the
tree as the newest log records. It is what a reader needs in order to follow or to open:

    slots, plain     the next slot and the next rid of a row without a vector
    live, ranked     live rows, and live rows with a vector
    links_to         every chunk of the graph's image contains every change up to this commit
    round_from, round_chunk, round_credit   the checkpoint round that is under way
    live_to, fields_to   the same watermark for the live bitmap and for each metadata field
    links_cut, rows_cut  log records up to here have been taken away
    scale            lo and step of the vectors' codes, None before the first vector
    graph            number of the graph; a rebuilt graph has another one
    links_last, rows_last  the last commits that logged each part

Invariants (checked by vecdb/check.py):
  S1  a log record of commit c is present, for each of its parts, while c is above that part's
      watermark, unless that commit did not touch the collection;
  S2  `live` and `ranked` are the counts of the rows that the live bitmap names.

Rejected: the state inside the meta record. Collections would rewrite each other's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from vecdb import _core
from vecdb.storage import codec, keys, rows


@dataclass(slots=True)
class State:
    """Mutable while a transaction builds the next one; a reader's copy is never changed."""

    slots: int = 0
    plain: int = 0
    live: int = 0
    ranked: int = 0
    links_to: int = 0
    round_from: int = 0
    round_chunk: int = 0
    round_credit: int = 0
    live_to: int = 0
    fields_to: list[int] = field(default_factory=list)
    fold_next: int = 0
    fold_credit: int = 0
    links_cut: int = 0
    rows_cut: int = 0
    scale: list[float] | None = None
    graph: int = 1
    links_last: int = 0
    rows_last: int = 0

    def copy(self) -> State:
        """An independent copy."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["fields_to"] = list(self.fields_to)
        return State(**values)

    def __post_init__(self) -> None:
        if not isinstance(self.fields_to, list) or not isinstance(self.scale, list | None):
            raise TypeError("fields_to and scale are lists")

    @property
    def unfolded(self) -> bool:
        """Whether any image lacks a logged change."""
        return self.links_last > self.links_to or self.rows_last > self.rows_to

    @property
    def rows_to(self) -> int:
        """The lowest watermark of the images that read the log's rows part."""
        return min([self.live_to, *self.fields_to])


_NUMBERS: Final = [f.name for f in fields(State) if f.type == "int"]


def read(txn: Any, cid: int) -> State:
    """The state of a collection as of a transaction."""
    key = keys.state(cid)
    record = txn.get(key)
    if record is None:
        raise rows.damaged("S1", key, "the collection's state is missing")
    found = rows.unpack_record(keys.LOG, key, record, code="S1")
    try:
        state = State(**found)
    except TypeError as error:
        raise rows.damaged("S1", key, str(error)) from None
    if not _plausible(state):
        raise rows.damaged("S1", key, "it holds what no state can hold")
    return state


def _plausible(state: State) -> bool:
    """Whether every value is of its kind and within its bounds."""
    numbers = (getattr(state, name) for name in _NUMBERS)
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*numbers, *state.fields_to)):
        return False
    if max(state.slots, state.plain) > rows.PLAIN:
        return False
    scale = state.scale
    return scale is None or (len(scale) == 2 and all(type(part) is float for part in scale))


def write(txn: Any, cid: int, state: State) -> None:
    """Store the state of a collection."""
    key = keys.state(cid)
    txn.put(key, _core.seal(keys.LOG, key, codec.pack(asdict(state))))
