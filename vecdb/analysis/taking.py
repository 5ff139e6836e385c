"""Which rows take part in an analysis, and where are their vectors and ids?

Those that a search with the same filter could find: live, matching, with a vector in the field. They
are known by their slots, ascending, and their vectors are read a batch at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.analysis.geometry import Geometry
from vecdb.execute import Context
from vecdb.index.view import slots_of
from vecdb.query.filter import Filter
from vecdb.storage import rows, vectors
from vecdb.types import Id

if TYPE_CHECKING:
    import numpy.typing as npt

    from vecdb.analysis.geometry import Floats

BATCH: Final = 4096  # rows that are read at once


@dataclass(frozen=True, slots=True)
class Taking:
    """The rows that take part, as of one view."""

    context: Context  # whose filter, if any, is answered once and for all
    where: Filter | None
    slots: npt.NDArray[np.uint32]

    @property
    def geometry(self) -> Geometry:
        """How their vectors are compared."""
        declared = self.context.field.declared
        return Geometry(declared.metric, declared.dtype, declared.dim)

    def __len__(self) -> int:
        return len(self.slots)

    def stored(self, slots: npt.NDArray[np.uint32]) -> npt.NDArray[Any]:
        """Vectors as they are stored: copies."""
        context = self.context
        return vectors.read(context.txn, context.cid, context.layout, slots)

    def floats(self, slots: npt.NDArray[np.uint32]) -> Floats:
        """Vectors as `Geometry.floats` gives them."""
        found = np.empty((len(slots), self.context.layout.dim), np.float32)
        for at in range(0, len(slots), BATCH):
            found[at : at + BATCH] = self.geometry.floats(self.stored(slots[at : at + BATCH]))
        return found

    def ids(self, slots: npt.NDArray[np.uint32]) -> list[Id]:
        """The ids of rows."""
        context, found = self.context, list[Id]()
        for at in range(0, len(slots), BATCH):
            some = slots[at : at + BATCH].tolist()
            found += rows.read_many(context.txn.get, context.cid, some)[0]
        return found


def taking(context: Context, where: Filter | None) -> Taking:
    """The rows of a context's view that take part."""
    view, held = context.view, context.held
    if where is None or context.matches is None:
        chosen = view.live if held is None else held.rids
    else:
        matching = context.matches(where)
        chosen = matching if held is None else matching & held.rids
        context = context._replace(matches=lambda _: matching)
    slots = np.array(slots_of(chosen, view.slots), np.uint32)
    return Taking(context, where, slots)


def in_order(id: Id) -> tuple[bool, int | bytes]:
    """What sorts as ids do: ints by value, then strings by their bytes."""
    return (True, id.encode()) if isinstance(id, str) else (False, id)
