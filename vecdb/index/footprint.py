"""How much of this process's memory does a collection take, and how much of its log is not folded?

What the graphs hold is worked out from their shape: a row of links and a code a slot, a row of the upper
layer for each 32 slots, a bit a link for the writer. Vectors are in the file's own pages, which the
system may take back; private are only those of the last block of slots. Codes of many vectors a row are
there once such a field was searched (ranking/tokens.py). What is cached (decoded leaves, filters, searches
made ready) is bounded and not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vecdb.index.parts import Damaged
from vecdb.index.view import View
from vecdb.storage import keys, log
from vecdb.storage.state import State

if TYPE_CHECKING:
    from vecdb.index.follow import Follower

SLOTS_OF_AN_ENTRY: Final = 32  # a row of the upper layer for so many slots
LINK: Final = 4
CODE_LINE: Final = 64  # codes begin on lines of so many bytes


def of_field(view: View, number: int) -> dict[str, int]:
    """Bytes of one vector field's graph in this process."""
    declared, graph, _ = view.vectors[number]
    if isinstance(graph, Damaged):
        return {}
    layout = view.schema.layout(declared)
    slots: int = graph.n_slots
    entries = -(-slots // SLOTS_OF_AN_ENTRY)
    links = (2 * slots + entries) * declared.M
    code = -(-(layout.stride if layout.dtype == "b1" else layout.dim) // CODE_LINE) * CODE_LINE
    private = len(getattr(graph, "private_blocks", list)())  # a writer's overlay tells of none
    return {
        "links": links * LINK + links // 8,
        "codes": slots * code,
        "private_vectors": private * layout.block_rows * layout.stride,
    }


def of_view(view: View) -> dict[str, int]:
    """Bytes of what a view holds beside the graphs; the tail is told in rows."""
    tail = view.tail
    return {
        "live_rows": len(view.live.serialize()) + len(view.mask or b""),
        "tail_rows": 0 if isinstance(tail, Damaged) else len(tail),
    }


def kept(follower: Follower) -> dict[str, int]:
    """Bytes of what rankers keep of a collection between searches."""
    stores = list(follower.kept.values())
    return {"of_rankers": sum(each.nbytes for each in stores)} if stores else {}


def unfolded(txn: Any, cid: int, state: State) -> int:
    """How many commits have left something in the log that an image still lacks."""
    folded = {log.ROWS: state.rows_to}
    folded |= {keys.log_links(number): each.links_to for number, each in state.vectors.items()}
    commits = set()
    cursor, end = txn.cursor(), keys.state(cid)
    found = cursor.set_range(keys.log(cid, min(folded.values()) + 1, 0))
    while found:
        key = bytes(cursor.key())
        if key >= end:
            break
        if keys.well_formed(key):
            commit, part = keys.log_position(key)
            if commit > folded.get(part, commit):
                commits.add(commit)
        found = cursor.next()
    return len(commits)
