"""Which rows have a vector in a field?

A row with a vector in any field has a slot, the same in the graph of each field; in the fields that it
lacks the slot is a hole. Mostly nobody lacks anything: then the live slots are the answer, and nothing
is kept. Where rows do lack a field, this is an indexed fact about them like those of their metadata,
under a name that no metadata can have: logged, folded and followed in the same way.

Invariants:
  H1  a live row with a slot lacks a field exactly if its slot is below the field's first (the field was
      added when the row was there), or else if its indexed state says so;
  H2  a row without a slot has no vector in a field with a graph, and its state says nothing of these;
  H3  a row with a sparse vector says so in its state, in every field that it has one in: so it is among the
      rows that a commit touched (tail.py) whenever it comes, changes or goes;
  H4  of a field that stands behind another (schema.Hidden) the rows are those of the other that are in its
      state's `held` too; rows that are dead may be in it, rows that are handed out again leave it.

Rejected: a bitmap of its own for each field. It would be a second machinery for the same purpose.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Any, Final

from pyroaring import BitMap

from vecdb.index import valuekey
from vecdb.index.changes import Pair
from vecdb.index.view import Held, View, mask_of
from vecdb.query.clauses import Compare
from vecdb.query.filter import Filter
from vecdb.storage.rows import PLAIN
from vecdb.storage.schema import Schema, VectorField
from vecdb.storage.state import FieldState

RESERVED: Final = "\0"  # field names that begin so are the engine's own
_LACKS: Final = RESERVED + "lacks:"
_SPARSE: Final = RESERVED + "sparse:"
_TRUE: Final = valuekey.key_of(True)


def lacks(number: int) -> str:
    """The name under which rows are indexed that lack a vector field."""
    return f"{_LACKS}{number}"


def sparse(number: int) -> str:
    """The name under which rows are indexed that have a sparse vector in a field."""
    return f"{_SPARSE}{number}"


def lacking(
    rid: int, has: Container[int], stated: Iterable[VectorField], names: dict[str, int]
) -> tuple[Pair, ...]:
    """What the indexed state of a row says of its vector fields: graphs that it lacks, sparse ones it has."""
    said = [_said(field, rid, field.member in has) for field in stated]
    return tuple((names.setdefault(name, len(names)), _TRUE) for name in said if name is not None)


def _said(field: VectorField, rid: int, has: bool) -> str | None:
    if field.sparse:
        return sparse(field.member) if has else None
    return lacks(field.member) if not has and field.first <= rid < PLAIN else None


def is_of_dropped(name: str, numbers: Container[int]) -> bool:
    """Whether a name is that of a vector field that is not there any more."""
    for prefix in (_LACKS, _SPARSE):
        if name.startswith(prefix):
            return int(name.removeprefix(prefix)) not in numbers
    return False


def holders(view: View, declared: VectorField, evaluate: Any) -> Held | None:
    """The live rows with a vector in a field; None when these are all that have a slot.

    `evaluate(filter)` gives the rows that satisfy it, as of the view.
    """
    number = declared.number
    mine = view.ranked(number)
    if mine.ranked == view.state.seated:
        return None
    found = view.held.get(number)
    if found is None:
        rids = view.live & BitMap(range(declared.first, view.slots))
        rids -= evaluate(_missing(declared.member))
        if mine.held is not None:
            rids &= held_in(mine.held)
        found = view.held[number] = Held(rids, mask_of(rids, view.slots))
    return found


def rows_of(view: View, held: Held | None) -> BitMap:
    """The live rows with a vector in a field, whose `holders` are given."""
    return view.live & BitMap(range(min(view.slots, PLAIN))) if held is None else held.rids


@lru_cache(maxsize=8)  # the same in every commit that does not touch it
def held_in(held: bytes) -> BitMap:
    """The rows of `FieldState.held`; not to be changed."""
    return BitMap.deserialize(held)


def has(declared: VectorField, mine: FieldState | None, rid: int, numbers: Container[int]) -> bool:
    """Whether a live row that names these numbers has a vector in a field; `mine`: the field's state."""
    if declared.member not in numbers:
        return False
    return mine is None or mine.held is None or rid in held_in(mine.held)


def stated(schema: Schema) -> list[VectorField]:
    """The fields of which rows' indexed states tell: one for each number that rows name."""
    by_member = {each.member: each for each in schema.by_number.values() if each.graphed or each.sparse}
    return list(by_member.values())


def sparse_holders(view: View, declared: VectorField, evaluate: Any) -> BitMap:
    """The live rows with a sparse vector in a field; kept with the view."""
    found = view.held.get(declared.number)
    if found is None:
        rids = evaluate(Compare(sparse(declared.member), "==", True))
        found = view.held[declared.number] = Held(rids, b"")
    return found.rids


def _missing(number: int) -> Filter:
    return Compare(lacks(number), "==", True)
