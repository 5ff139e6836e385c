"""What does a commit hold, in the model of the protocol, and what may the next one change?

A `Version` is what one LMDB commit shows: rows, queue of dead and vacated slots, the repair that is
under way, links, the two parts of the log, and four images (live rows, one metadata field, two chunks
of links). Everything here happens inside one write transaction, so a step of it is a whole commit;
`protocol.py` has what processes and threads do in between.

The life of a slot, an arrow a commit, with what the commit waits for (the floor is the least LMDB id
among the snapshots that any reader holds, else the last committed id):

    live -> dead (D) -> condemned; what only it led to is attached elsewhere (A), floor >= D
         -> unlinked: no row leads to it, its own links stay (S), floor >= A
         -> vacated: its row is emptied (U); it waits for nobody, and may be one commit with S
         -> reused (V), floor >= U

The wait for A is the model's finding: where what a dead slot led to is attached in the commit that
unlinks it, or just before, a search under way may have read the new parent's row before the one and the
way through the dead slot after the other, and miss a row that is live at its snapshot (controls "attach
and unlink in one commit", "unlink does not wait for attach"). With it nobody need be waited for between
unlinking and vacating. It contains the wait for D; both stand here as the design has it.

What it leaves out: a full row's links that are overwritten (pinned ones never are), the upper layer,
new scales of codes, memory that readers still hold when it is given back (`tests/native/races.cpp`).

Rows of the graph are sets of slots, six bits each; the row ENTRY is where a walk begins. A row in the
table is the number of its version: positive live, negative dead, 0 none.

`broken` names the one rule that is broken on purpose, `""` none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

SLOTS = 6
ENTRY = 6  # the row of links that a walk begins with
CHUNKS = ((0, 1, 2), (3, 4, 5, ENTRY))  # rows of links that make up an image's chunk
BLOCK = (0, 1, 2)  # slots whose vectors lie in one block
NUMBER_BEHIND = 1  # commit numbers are behind LMDB's ids: a mark of a clean close was committed


class Broken(Exception):
    """A rule does not hold: which one, and how that shows."""

    def __init__(self, rule: str, how: str) -> None:
        super().__init__(f"{rule}: {how}")
        self.rule = rule
        self.how = how


Rows = tuple[int, ...]
Links = tuple[int, ...]
RowsRecord = tuple[int, tuple[tuple[int, int], ...]]  # id, (slot, version or 0 where it died)


@dataclass(frozen=True)
class LinksRecord:
    """The links part of one commit's log."""

    id: int
    slots: int  # handed out after it
    reused: tuple[int, ...]
    changes: tuple[tuple[int, int, int], ...]  # row, links before and after


@dataclass(frozen=True, eq=False)
class Version:
    """What one commit shows. Equal ones are one object (`Store.kept`): compared by identity."""

    id: int = 1
    slots: int = 0
    rows: Rows = (0,) * SLOTS
    since: tuple[int, ...] = (0,) * SLOTS  # LMDB id of the commit that killed or vacated a slot
    condemned: int = 0
    stage: str = ""  # of the repair: "", "attached", "unlinked"
    stage_id: int = 0  # LMDB id of the commit that reached it
    links: Links = (0,) * (SLOTS + 1)
    rows_log: tuple[RowsRecord, ...] = ()
    links_log: tuple[LinksRecord, ...] = ()
    links_cut: int = 1  # records of links up to here are taken away
    live: tuple[int, Rows] = (1, (0,) * SLOTS)  # watermark and content of an image
    field: tuple[int, Rows] = (1, (0,) * SLOTS)
    chunks: tuple[tuple[int, Links], ...] = ((1, (0, 0, 0)), (1, (0, 0, 0, 0)))
    block: int = 0  # how often the block of vectors was rewritten
    block_id: int = 1  # LMDB id of the commit that rewrote it last
    inline: int = 0b111000  # slots whose vectors travel in their rows' records
    done: tuple[int, int] = (0, 0)  # operations of each writer that are in the file

    def vector(self, slot: int) -> int:
        """The stored vector of a slot, live or dead, named by its row's version; 0 for none."""
        return abs(self.rows[slot])

    @property
    def live_slots(self) -> int:
        return sum(1 << s for s in range(SLOTS) if self.rows[s] > 0)

    @property
    def seated(self) -> int:
        """The slots that are in the graph, live or dead."""
        return sum(1 << s for s in range(SLOTS) if self.rows[s])


def bits(mask: int) -> Iterator[int]:
    """The slots in a set, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def reach(links: Links, start: int, without: int = 0) -> int:
    """The slots that can be reached from those of `start` along links, never through `without`."""
    found = todo = start & ~without
    while todo:
        low = todo & -todo
        todo ^= low
        more = links[low.bit_length() - 1] & ~found & ~without
        found |= more
        todo |= more
    return found


def live_rows(rows: Rows) -> Rows:
    """What the images of rows hold: the versions of the live ones."""
    return tuple(max(row, 0) for row in rows)


def changed(links: Links, row: int, now: int) -> Links:
    return (*links[:row], now, *links[row + 1 :])


class Store:
    """Makes the versions that writers and upkeep commit."""

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self._kept: dict[Any, Version] = {}
        self.operate = cache(self._operate)
        self.repair = cache(self._repair)
        self.fold = cache(self._fold)
        self.rewrite = cache(self._rewrite)

    def __len__(self) -> int:
        return len(self._kept)

    def kept(self, version: Version) -> Version:
        """The one object for all versions that are equal."""
        return self._kept.setdefault(tuple(vars(version).values()), version)

    def commit(self, base: Version, **changes: Any) -> Version:
        """The version after `base`: its log record is made, and logs are cut below the watermarks."""
        new = replace(base, id=base.id + 1, **changes)
        before, after = live_rows(base.rows), live_rows(new.rows)
        rows = tuple((s, after[s]) for s in range(SLOTS) if before[s] != after[s])
        moved = tuple(
            (u, base.links[u], new.links[u]) for u in range(SLOTS + 1) if base.links[u] != new.links[u]
        )
        reused = tuple(s for s in range(base.slots) if new.rows[s] > 0 and new.rows[s] != base.vector(s))
        rows_log, links_log = new.rows_log, new.links_log
        if rows:
            rows_log = (*rows_log, (new.id, rows))
        if moved:
            links_log = (*links_log, LinksRecord(new.id, new.slots, reused, moved))
        lowest = max if self.broken == "cut above the lowest watermark" else min
        rows_to = lowest(new.live[0], new.field[0])
        links_to = min(age for age, _ in new.chunks)
        new = replace(
            new,
            rows_log=tuple(record for record in rows_log if record[0] > rows_to),
            links_log=tuple(record for record in links_log if record.id > links_to),
            links_cut=links_to,
        )
        return self.kept(new)

    def due(self, since: int, floor: int) -> bool:
        """Is no reader older than the commit `since`?"""
        if self.broken == "the queue holds commit numbers":
            since -= NUMBER_BEHIND
        return since <= floor

    # --- writers ---------------------------------------------------------------------------

    def _operate(self, base: Version, writer: int, operation: tuple[str, int], floor: int) -> Version:
        """A writer's commit of its next operation."""
        name, operand = operation
        done = list(base.done)
        done[writer] += 1
        counted = (done[0], done[1])
        if name == "insert":
            return self._insert(base, operand, 10 * (writer + 1) + base.done[writer], floor, counted)
        if name == "delete":
            return self._delete(base, operand, counted)
        if name == "touch":
            return self.commit(base, done=counted)  # metadata: no graph is touched
        assert name == "fold", name
        return self.fold_all(base, done=counted)

    def free_slot(self, base: Version, floor: int) -> int:
        """The slot that the next row gets: a vacated one that is due, else a new one."""
        for s in range(base.slots):
            waits = self.broken != "reuse does not wait"
            if not base.rows[s] and (not waits or self.due(base.since[s], floor)):
                return s
            if base.stage == "unlinked" and base.condemned >> s & 1:
                if self.broken == "reuse of a slot that is only unlinked, without waiting":
                    return s
                if self.broken == "reuse of a slot that is only unlinked" and base.stage_id <= floor:
                    return s
        return base.slots

    def _insert(self, base: Version, near: int, row: int, floor: int, done: tuple[int, int]) -> Version:
        slot = self.free_slot(base, floor)
        allowed = base.seated & ~base.condemned & ~(1 << slot)
        if self.broken == "new links to condemned slots":
            allowed = base.seated
        if not allowed >> near & 1:
            near = next(bits(allowed))
        links = changed(base.links, slot, 1 << near)
        links = changed(links, near, links[near] | 1 << slot)
        return self.commit(
            base,
            slots=max(base.slots, slot + 1),
            rows=changed(base.rows, slot, row),
            since=changed(base.since, slot, 0),
            condemned=base.condemned & ~(1 << slot),
            links=links,
            inline=base.inline | 1 << slot,
            done=done,
        )

    def _delete(self, base: Version, slot: int, done: tuple[int, int]) -> Version:
        if base.rows[slot] <= 0:
            return self.commit(base, done=done)
        return self.commit(
            base,
            rows=changed(base.rows, slot, -base.rows[slot]),
            since=changed(base.since, slot, base.id + 1),
            done=done,
        )

    def fold_all(self, base: Version, **more: Any) -> Version:
        """Every image as of the commit before, by a transaction that writes its images itself."""
        rows = live_rows(base.rows)
        chunks = tuple((base.id, tuple(base.links[u] for u in chunk)) for chunk in CHUNKS)
        return self.commit(base, live=(base.id, rows), field=(base.id, rows), chunks=chunks, **more)

    # --- upkeep: repair -----------------------------------------------------------------------

    def _repair(self, base: Version, seen: Version, floor: int) -> Version | None:
        """The next step of the repair, None when nothing is due. `seen`: the snapshot upkeep read."""
        if base.stage == "":
            dead = [s for s in range(SLOTS) if base.rows[s] < 0]
            if (
                self.broken == "the queue lies outside the transaction"
            ):  # then it is the queue that is believed
                dead = [s for s in range(SLOTS) if base.rows[s] and base.since[s]]
            early = self.broken == "unlink waits for nobody"
            due = sum(1 << s for s in dead if early or self.due(base.since[s], floor))
            return self._condemn(base, due) if due else None
        if base.stage == "attached":
            waits = self.broken not in ("unlink does not wait for attach", "unlink waits for nobody")
            if waits and not self.due(base.stage_id, floor):
                return None
            return self._unlink(base, seen)
        return self._vacate(base)

    def _condemn(self, base: Version, condemned: int) -> Version:
        """Name the slots to be unlinked; attach what would be unreachable without them."""
        links = self._attach(base.links, base.seated & ~condemned, condemned)
        if self.broken == "attach after unlink":
            links = base.links
        if self.broken == "attach and unlink in one commit":
            links = self._without(links, condemned)
            return self.commit(
                base, condemned=condemned, stage="unlinked", stage_id=base.id + 1, links=links
            )
        return self.commit(
            base, condemned=condemned, stage="attached", stage_id=base.id + 1, links=links
        )

    @staticmethod
    def _attach(links: Links, wanted: int, condemned: int) -> Links:
        if not links[ENTRY] & ~condemned and wanted:
            links = changed(links, ENTRY, links[ENTRY] | wanted & -wanted)
        while lost := wanted & ~(found := reach(links, links[ENTRY], condemned)):
            parent = next(bits(found))
            links = changed(links, parent, links[parent] | lost & -lost)
        return links

    @staticmethod
    def _without(links: Links, condemned: int) -> Links:
        """The sweep: no row leads to what is condemned but rows of what is condemned itself."""
        return tuple(
            row if u < SLOTS and condemned >> u & 1 else row & ~condemned for u, row in enumerate(links)
        )

    def _unlink(self, base: Version, seen: Version) -> Version:
        links = self._without(base.links, base.condemned)
        if self.broken == "upkeep installs rows that it read before":
            swept = self._without(seen.links, base.condemned)
            links = tuple(
                swept[u] if swept[u] != seen.links[u] else row for u, row in enumerate(base.links)
            )
        if self.broken == "unlink and vacate in one commit":
            return self._vacate(replace(base, links=links), before=base)
        return self.commit(base, stage="unlinked", stage_id=base.id + 1, links=links)

    def _vacate(self, unlinked: Version, before: Version | None = None) -> Version:
        base = before or unlinked
        gone = base.condemned
        empty = [s for s in range(SLOTS) if gone >> s & 1]
        links = tuple(0 if u in empty else row for u, row in enumerate(unlinked.links))
        return self.commit(
            base,
            rows=tuple(0 if s in empty else row for s, row in enumerate(base.rows)),
            since=tuple(base.id + 1 if s in empty else id for s, id in enumerate(base.since)),
            condemned=0,
            stage="",
            stage_id=0,
            links=links,
        )

    # --- upkeep: images -------------------------------------------------------------------------

    def folding(self, base: Version) -> Iterator[str]:
        """The images that lack a logged change."""
        for name, image in (("live", base.live), ("field", base.field)):
            if any(id > image[0] for id, _ in base.rows_log):
                yield name
        for number, (age, _) in enumerate(base.chunks):
            if any(record.id > age for record in base.links_log):
                yield f"chunk {number}"

    def _fold(self, base: Version, seen: Version, image: str) -> Version | None:
        """Install an image that was computed from the snapshot `seen`; None where it is older."""
        stale = self.broken == "upkeep installs an image without looking again"
        mark = base.id if self.broken == "upkeep moves a watermark by what it reads later" else seen.id
        if image.startswith("chunk"):
            number = int(image[-1])
            if base.chunks[number][0] >= seen.id and not stale:
                return None
            made = (mark, tuple(seen.links[u] for u in CHUNKS[number]))
            chunks = tuple(made if n == number else each for n, each in enumerate(base.chunks))
            return self.commit(base, chunks=chunks)
        if getattr(base, image)[0] >= seen.id and not stale:
            return None
        return self.commit(base, **{image: (mark, live_rows(seen.rows))})

    def _rewrite(self, base: Version) -> Version | None:
        """Rewrite the block of vectors that single records override."""
        own = base.inline & sum(1 << s for s in BLOCK)
        if not own:
            return None
        return self.commit(base, block=base.block + 1, block_id=base.id + 1, inline=base.inline & ~own)


# --- what holds of every commit ----------------------------------------------------------------


def rebuilt(version: Version) -> tuple[Rows, Rows, Links]:
    """Live rows by each image of rows, and the links: images and the log above their watermarks."""
    of_rows = []
    for mark, image in (version.live, version.field):
        rows = list(image)
        for id, changes in version.rows_log:
            if id > mark:
                for slot, row in changes:
                    rows[slot] = row
        of_rows.append(tuple(rows))
    links = [0] * (SLOTS + 1)
    for chunk, (_, content) in zip(CHUNKS, version.chunks, strict=True):
        for u, row in zip(chunk, content, strict=True):
            links[u] = row
    lowest = min(age for age, _ in version.chunks)
    for record in version.links_log:
        if record.id > lowest:  # onto chunks that contain it already, too: last event wins
            for u, _, now in record.changes:
                links[u] = now
    return of_rows[0], of_rows[1], tuple(links)


def check(version: Version, rule: str) -> None:
    """A committed version is whole (`rule`), and its graph leads to every live row and no free slot."""
    live, field, links = rebuilt(version)
    if live != live_rows(version.rows) or field != live_rows(version.rows):
        raise Broken(rule, f"live rows rebuilt {live} and {field}, committed {version.rows}")
    if links != version.links:
        raise Broken(rule, f"links rebuilt {links}, committed {version.links}")
    for u in range(SLOTS + 1):
        if version.links[u] & ~version.seated:
            raise Broken("R5", f"committed row {u} leads to a slot that is free")
    lost = version.live_slots & ~reach(version.links, version.links[ENTRY])
    if lost:
        raise Broken(
            "R5", f"live slots {list(bits(lost))} are reached by no link in commit {version.id}"
        )
