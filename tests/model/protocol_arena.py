"""What is in a process's memory, in the model of the protocol, and in which stores does it change?

An `Arena` is the graph that the threads of a process share. It changes by one store at a time (`Op`),
and searches of other threads go on in between: what a list of stores has in it, and in which order, is
what `following` (another's commits), `filling` (a writer's own rows, before its commit) and `publishing`
(its links, after it) answer.

    ("attach",)              the block's addresses are those of its last writing
    ("code", slot, vector)   the vector, where it travels in its row's record (0: it is in the block);
                             the code is torn from here on
    ("coded", slot)          the code is whole, made from the stored vector
    ("link", row, out, into) one link of a row, over another or over none
    ("slots", n)             a walk that begins now goes to slots below n
    ("place",)               the position: a search of that commit need not wait

A vector is in the process's own memory, or at an address in the map. LMDB writes over a block's old
pages when no reader is left that is as old as the commit which rewrote it: so an address is read only
while the reader's own snapshot pins it (`vector`), whether or not the pages have been written over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, NamedTuple

from tests.model.protocol_store import (
    BLOCK,
    ENTRY,
    SLOTS,
    Broken,
    Links,
    LinksRecord,
    Rows,
    Version,
    bits,
    changed,
    live_rows,
    reach,
    rebuilt,
)

Op = tuple[Any, ...]
TORN = -1  # a code that is being made
OWN = -1  # a vector in the process's own memory


@dataclass(frozen=True, eq=False)
class Arena:
    """The graph in a process's memory. Equal ones are one object (`Arenas.kept`)."""

    position: int
    whole: int  # the commit up to which everything has been applied: what position claims
    slots: int
    codes: tuple[int, ...]  # by the row's version that each was made from; 0 none
    links: Links
    vectors: tuple[tuple[int, int], ...]  # which writing of the block, or OWN; the row's version
    block: int
    view: Rows  # live rows at the position


class Memory(NamedTuple):
    """What the threads of a process share. Whoever applies, up to `goal`, holds its lock."""

    arena: Arena | None = None
    todo: tuple[Op, ...] = ()
    goal: Version | None = None


class Arenas:
    """Makes the arenas of all processes."""

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self._kept: dict[Any, Arena] = {}

    def kept(self, arena: Arena) -> Arena:
        """The one object for all arenas that are equal."""
        return self._kept.setdefault(tuple(vars(arena).values()), arena)

    def load(self, version: Version) -> Arena:
        """An arena of its own, as images and log describe it."""
        live, _, links = rebuilt(version)
        whole_block = not version.inline & sum(1 << s for s in BLOCK)
        vectors = tuple(
            (version.block if whole_block and s in BLOCK else OWN, version.vector(s))
            for s in range(SLOTS)
        )
        codes = tuple(version.vector(s) for s in range(SLOTS))
        return self.kept(
            Arena(version.id, version.id, version.slots, codes, links, vectors, version.block, live)
        )

    # --- which stores, in which order ------------------------------------------------------------

    def following(self, arena: Arena, version: Version, log: tuple[LinksRecord, ...]) -> tuple[Op, ...]:
        """What takes an arena to a version: blocks, codes, links, position."""
        records = [record for record in log if arena.position < record.id <= version.id]
        attach: list[Op] = [("attach",)] if version.block != arena.block else []
        fresh = [s for s in range(arena.slots, version.slots) if version.rows[s] and arena.codes[s] <= 0]
        codes = _coding(fresh, version)
        links: list[Op] = []
        for record in records:
            again = _coding([s for s in record.reused if version.rows[s]], version)
            if self.broken == "links before codes":
                links += _linking(record.changes) + again
            else:
                links += again + _linking(record.changes)
            links.append(("slots", record.slots))
        del links[-1:]  # the last one comes with the position
        if self.broken == "the old address of a rewritten block":
            attach = []
        if self.broken == "vectors before the rewritten block":
            return (*codes, *links, *attach, ("place",))
        if self.broken == "position before links":
            return (("place",), *attach, *codes, *links)
        return (*attach, *codes, *links, ("place",))

    def filling(self, base: Version, pending: Version) -> tuple[Op, ...]:
        """What a writer stores before its commit: codes of new rows, links of new slots."""
        rows = _new_rows(base, pending)
        ops = _coding(rows, pending)
        ops += [("link", s, 0, pending.links[s]) for s in rows if s >= base.slots]
        if self.broken == "links are published before the commit" and rows:
            ops += _linking(pending.links_log[-1].changes)
        return tuple(ops)

    def publishing(self, arena: Arena, pending: Version) -> tuple[Op, ...]:
        """What it stores after it: all other links, and the position."""
        moved = pending.links_log[-1:]
        changes = moved[0].changes if moved and moved[0].id == pending.id else ()
        others = tuple(each for each in changes if each[0] == ENTRY or each[0] < arena.slots)
        return (*_linking(others), ("place",))

    def undone(self, arena: Arena, last: Version, pending: Version) -> Arena:
        """The arena after an abort."""
        if self.broken == "an abort leaves what was prepared":
            return arena
        codes, links, vectors = list(arena.codes), list(arena.links), list(arena.vectors)
        for s in _new_rows(last, pending):
            codes[s], vectors[s] = 0, (OWN, 0)
            if s >= last.slots:
                links[s] = 0
        return self.kept(replace(arena, codes=tuple(codes), links=tuple(links), vectors=tuple(vectors)))

    # --- one store ----------------------------------------------------------------------------------

    def applied(self, memory: Memory, reader: Version, rule: str) -> Memory:
        """The next store of those that lead to the goal; after the last one the arena is whole."""
        arena, goal = memory.arena, memory.goal
        assert arena is not None and goal is not None
        arena = self.stored(arena, memory.todo[0], goal, reader)
        if len(memory.todo) > 1:
            return Memory(arena, memory.todo[1:], goal)
        _expect(arena, goal, rule)
        return Memory(self.kept(replace(arena, whole=goal.id)))

    def stored(self, arena: Arena, op: Op, goal: Version, reader: Version) -> Arena:
        """The arena after one store."""
        name = op[0]
        vectors = list(arena.vectors)
        if name == "attach":
            for s in BLOCK:
                vectors[s] = (goal.block, goal.vector(s))
            made = replace(arena, vectors=tuple(vectors), block=goal.block)
        elif name == "code":
            if op[2] and op[1] in BLOCK:  # the block is copied: others' addresses stay
                for s in BLOCK:
                    vectors[s] = (OWN, vector(arena, s, reader))
            if op[2]:
                vectors[op[1]] = (OWN, op[2])
            made = replace(arena, vectors=tuple(vectors), codes=changed(arena.codes, op[1], TORN))
        elif name == "coded":
            made = replace(arena, codes=changed(arena.codes, op[1], vector(arena, op[1], reader)))
        elif name == "link":
            _, u, out, into = op
            made = replace(arena, links=changed(arena.links, u, arena.links[u] & ~out | into))
        elif name == "slots":
            made = replace(arena, slots=op[1])
        else:
            assert name == "place", name
            made = replace(arena, slots=goal.slots, position=goal.id, view=live_rows(goal.rows))
        return self.kept(made)


def vector(arena: Arena, slot: int, reader: Version) -> int:
    """The vector at a slot, read under a snapshot."""
    block, content = arena.vectors[slot]
    pinned = block >= reader.block or (block == reader.block - 1 and reader.block_id == reader.id)
    if block != OWN and not pinned:
        raise Broken("R1", f"slot {slot} is read at an address whose pages may be another's by now")
    return content


def require_unchanged(before: Arena, after: Arena, held: int) -> None:
    """Nothing that a search can reach, from the entry or from the slots it holds, is another now."""
    if before.links[ENTRY] != after.links[ENTRY]:
        raise Broken("R3", "the entry changes before the commit")
    for s in bits(reach(before.links, before.links[ENTRY] | held)):
        same = before.links[s] == after.links[s] and before.codes[s] == after.codes[s]
        if not same or before.vectors[s][1] != after.vectors[s][1]:
            raise Broken("R3", f"slot {s} changes before the commit, and a search can reach it")


def _expect(arena: Arena, goal: Version, rule: str) -> None:
    """The arena is the graph of its position, link for link, with the codes of a fresh open."""
    if arena.links != goal.links:
        raise Broken(rule, f"the arena's links are {arena.links}, those of {goal.id} are {goal.links}")
    for s in bits(goal.seated):
        if arena.codes[s] != goal.vector(s):
            raise Broken(rule, f"slot {s} has the code of row {arena.codes[s]} at commit {goal.id}")


def _new_rows(base: Version, pending: Version) -> list[int]:
    return [s for s in range(SLOTS) if pending.rows[s] > 0 and pending.rows[s] != base.vector(s)]


def _coding(slots: list[int], version: Version) -> list[Op]:
    ops: list[Op] = []
    for s in slots:
        ops += [("code", s, version.vector(s) if version.inline >> s & 1 else 0), ("coded", s)]
    return ops


def _linking(changes: tuple[tuple[int, int, int], ...]) -> list[Op]:
    """One store a link, rows ascending and the entry last."""
    ops: list[Op] = []
    for u, before, after in changes:
        for out, into in zip_longest(bits(before & ~after), bits(after & ~before)):
            ops.append(("link", u, 0 if out is None else 1 << out, 0 if into is None else 1 << into))
    return ops
