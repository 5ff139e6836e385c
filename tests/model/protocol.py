"""Is the protocol right in every order of its steps: commits, arenas, searches, repair, upkeep, kills?

An explicit model and its exploration, breadth first, every state once. The actors:

    writer 1    in process A, whose arena searcher 0 walks: it follows, fills slots that nothing leads
                to, commits, publishes link by link; it may abort, and be killed at any step
    writer 2    in a process that nobody searches: all that others see of it is its commits
    searcher 0  in process A
    searchers 1 and 2   two threads of process B, a follower: they share its arena
    upkeep      reads a snapshot, computes, then installs under the writer lock

What is one step: a commit; the begin of a snapshot; each half of making a code; each link stored; the
position; the load of an arena; a walk's reading of one row; its reading of the codes of what it found
there; ranking by stored vectors with the end of the snapshot; an abort; a kill.

The rules of DESIGN.md, "Isolation", and where they are asked:

    R1  `_rank`, `vector`   a hit is live at the searcher's snapshot and has that snapshot's vector; an
            address in the map is read only while the reader's own snapshot pins it
    R2  `_enter`, `_expect`   no search walks an arena behind its snapshot; an arena that has followed is
            the graph of its position, link for link, with the codes of a fresh open
    R3  `require_unchanged`   before the commit nothing changes that a search of this process can reach
    R4  `_codes`   every slot that a row leads to has a whole code; none is being made under a search
    R5  `_codes`, `_rank`, `check`   a slot that is live at a snapshot has its own row's code, and a walk
            of that snapshot finds it, whatever was unlinked, vacated and reused meanwhile; no
            committed row leads to a free slot, and each live row is reached
    R6  `check`   images, and the log above their watermarks, rebuild each committed version
    R7  `check` after `_kills`   so they do after a kill at any step; what was acknowledged is there

Walks are exhaustive and go to the least or to the greatest slot first: what a walk can reach is asked,
not how near it is. What keeps the space small, and why nothing is lost by it:

  - Writer 2 and upkeep take the lock, look at the floor and commit in one step. Nothing of theirs is seen
    in between, and a reader that begins meanwhile begins at the last commit, which is never too old.
  - Searchers 1 and 2 are alike: states that differ by exchanging them are one.
  - A searcher never stops searching, so that no count of searches is part of a state; it begins no more
    when nothing can be committed any more and its arena stands at the end: nothing can happen to it.
  - All searchers of one exploration go to the least slot first, or all to the greatest: what another one
    holds and applies does not depend on its way.
  - Ample sets (`reduced=True`): where every thread of a process is at a step that touches that process's
    memory alone, only that process goes on. Such steps commute with all of other processes, and with
    commits; they are no cycle; a kill makes them all as if they had not been. So every state of each
    process's memory, with each floor, is still met. `reduced=False` takes no such short cut.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.model.protocol_arena import Arena, Arenas, Memory, Op, require_unchanged, vector
from tests.model.protocol_store import ENTRY, SLOTS, Broken, Store, Version, bits, changed, check


class Searcher(NamedTuple):
    """Where a search is."""

    version: Version | None = None  # its snapshot
    phase: str = "idle"  # then need, apply, walk
    limit: int = 0  # the slots that it goes to
    seen: int = 0
    coded: int = 0
    expanded: int = 0  # rows that it has read, ENTRY among them
    old: Arena | None = None  # a replaced arena that it still walks

    @property
    def walking(self) -> bool:
        """Is its next step a read of the arena?"""
        if self.phase != "walk":
            return False
        return not self.expanded >> ENTRY & 1 or bool(self.seen & ~self.expanded)


class Writer(NamedTuple):
    """Where writer 1 is; it holds the writer lock but for idle and publish."""

    phase: str = "idle"  # then follow, fill, publish
    pending: Version | None = None
    todo: tuple[Op, ...] = ()


class Upkeep(NamedTuple):
    """What upkeep computes, and from which snapshot."""

    seen: Version | None = None
    task: str = ""


class State(NamedTuple):
    """All that the next steps depend on."""

    last: Version
    hidden: Version | None  # what readers see until the next writer, after a kill inside a commit
    writer: Writer
    upkeep: Upkeep
    a: Memory
    s0: Searcher
    b: Memory
    s1: Searcher
    s2: Searcher


@dataclass(frozen=True)
class Config:
    """Where an exploration begins, and what its actors do."""

    name: str
    start: Version
    first: tuple[tuple[str, int], ...]  # operations of writer 1
    second: tuple[tuple[str, int], ...]
    repairs: bool = False
    rewrites: bool = False
    folds: tuple[str, ...] = ()  # images that upkeep folds
    kills: bool = True
    aborts: bool = True
    greatest_first: bool = False


class Move(NamedTuple):
    """A searcher's step in its process's memory."""

    what: str
    memory: Memory
    searcher: Searcher
    replaced: bool = False  # the arena is another one now: walks under way stay with the old one


Step = tuple[str, str, State]  # who, what, and then
IDLE = Searcher()


class Model:
    """The steps from each state. A step that breaks a rule raises `Broken`; `who` and `what` name it."""

    def __init__(self, config: Config, broken: str = "", *, reduced: bool = True) -> None:
        self.config = config
        self.broken = broken
        self.reduced = reduced
        self.store = Store(broken)
        self.arenas = Arenas(broken)
        self.who = self.what = ""
        self._moves: dict[tuple[Memory, Searcher], tuple[Move, ...]] = {}
        self._tasks: dict[Version, tuple[str, ...]] = {}
        self._sound: set[tuple[Version, str]] = set()
        self._numbers: dict[Searcher, int] = {}

    def start(self) -> State:
        """Everybody is idle, and both arenas stand at the start."""
        version = self.store.kept(self.config.start)
        self._check(version, "R6")
        memory = Memory(self.arenas.load(version))
        return State(version, None, Writer(), Upkeep(), memory, IDLE, memory, IDLE, IDLE)

    def steps(self, state: State) -> list[Step]:
        """Everything that can happen next."""
        of_b = self._of_b(state)
        if self.reduced and of_b and _inside(state.s1) and _inside(state.s2):
            return of_b
        of_a = self._of_a(state)
        if self.reduced and of_a and _inside(state.s0) and self._writer_inside(state):
            return of_a
        of_others = [*self._second_commits(state), *self._upkeep_steps(state), *self._kills(state)]
        return of_b + of_a + of_others

    def _writer_inside(self, state: State) -> bool:
        """Does writer 1's next step, if there is any, touch process A's memory alone?"""
        writer = state.writer
        if writer.phase == "idle":
            return state.last.done[0] == len(self.config.first)
        return writer.phase != "half" and bool(writer.phase != "fill" or writer.todo)

    # --- searches ----------------------------------------------------------------------------

    def _of_a(self, state: State) -> list[Step]:
        steps = list(self._first_steps(state))
        for move in self._search("searcher 0", state, state.a, state.s0):
            steps.append(("searcher 0", move.what, state._replace(a=move.memory, s0=move.searcher)))
        return steps

    def _of_b(self, state: State) -> list[Step]:
        steps = []
        last, hidden, writer, upkeep, a, s0, b, s1, s2 = state
        for who, own, other in (("searcher 1", s1, s2), ("searcher 2", s2, s1)):
            for move in self._search(who, state, b, own):
                one, two = move.searcher, other
                if move.replaced and two.phase == "walk" and two.old is None:
                    two = two._replace(old=b.arena)
                if self._number(two) < self._number(one):
                    one, two = two, one
                new = State(last, hidden, writer, upkeep, a, s0, move.memory, one, two)
                steps.append((who, move.what, new))
            if s1 == s2:
                break
        return steps

    def _number(self, searcher: Searcher) -> int:
        return self._numbers.setdefault(searcher, len(self._numbers))

    def _search(self, who: str, state: State, memory: Memory, searcher: Searcher) -> tuple[Move, ...]:
        self.who = who
        if searcher.phase == "idle":
            return self._begin(state, memory)
        found = self._moves.get((memory, searcher))
        if found is None:
            found = self._next(state, memory, searcher)
            if self.broken != "the log is read in another transaction":
                self._moves[memory, searcher] = found
        return found

    def _begin(self, state: State, memory: Memory) -> tuple[Move, ...]:
        sees = state.hidden or state.last
        at = memory.arena.position if memory.arena else None
        if at in (None, sees.id) and self._quiet(state):
            return ()
        phase = "walk" if at == sees.id else "need"
        return (Move(f"begins at {sees.id}", memory, Searcher(sees, phase)),)

    def _next(self, state: State, memory: Memory, searcher: Searcher) -> tuple[Move, ...]:
        version = searcher.version
        assert version is not None
        if searcher.phase == "need":
            return self._arrive(state, memory, searcher, version)
        if searcher.phase == "apply":
            self.what = f"applies {memory.todo[0]}"
            memory = self.arenas.applied(memory, version, "R2")
            done = searcher._replace(phase="apply" if memory.goal else "walk")
            return (Move(self.what, memory, done),)
        arena = searcher.old or memory.arena
        assert arena is not None
        return (Move(*self._walk(arena, memory, searcher, version)),)

    def _arrive(
        self, state: State, memory: Memory, searcher: Searcher, version: Version
    ) -> tuple[Move, ...]:
        """It needs the arena at its snapshot: one thread applies, the others wait."""
        arena, walk = memory.arena, searcher._replace(phase="walk")
        if self.broken == "a search does not wait for the arena" and arena is not None:
            return (Move("walks without waiting", memory, walk),)
        if memory.goal is not None:
            return ()
        if arena is None or arena.position < version.links_cut:
            self.what = f"loads the arena at {version.id}"
            loaded = Memory(self.arenas.load(version))
            return (Move(self.what, loaded, walk, arena is not None),)
        if arena.position >= version.id:
            return (Move("takes the arena, which is beyond", memory, walk),)
        log = state.last if self.broken == "the log is read in another transaction" else version
        todo = self.arenas.following(arena, version, log.links_log)
        self.what = f"applies {todo[0]}"
        memory = self.arenas.applied(Memory(arena, todo, version), version, "R2")
        return (Move(self.what, memory, searcher._replace(phase="apply") if memory.goal else walk),)

    def _walk(
        self, arena: Arena, memory: Memory, searcher: Searcher, version: Version
    ) -> tuple[str, Memory, Searcher]:
        found = searcher.seen & ~searcher.coded
        ahead = searcher.coded & ~searcher.expanded
        if not searcher.expanded >> ENTRY & 1:
            self.what = "enters"
            if arena.whole < version.id:
                raise Broken("R2", f"the arena has come to {arena.whole}, the search is at {version.id}")
            new = _row(arena, ENTRY, searcher._replace(limit=(1 << arena.slots) - 1))
        elif found:
            self.what = f"reads the codes of {list(bits(found))}"
            _codes(arena, found, version)
            new = searcher._replace(coded=searcher.seen)
        elif ahead:
            u = (ahead if self.config.greatest_first else ahead & -ahead).bit_length() - 1
            self.what = f"reads row {u}, which leads to {list(bits(arena.links[u]))}"
            new = _row(arena, u, searcher)
        else:
            self.what = "ranks, and ends its snapshot"
            self._rank(arena, searcher.coded, version)
            new = IDLE
        return self.what, memory, new

    def _rank(self, arena: Arena, coded: int, version: Version) -> None:
        live = mask = version.live_slots
        if self.broken == "rows are seen by the newest view":
            mask = sum(1 << s for s in range(SLOTS) if arena.view[s])
        for s in bits(coded & mask):
            if not live >> s & 1:
                raise Broken("R1", f"slot {s} is a hit, and not live at {version.id}")
            if vector(arena, s, version) != version.rows[s]:
                raise Broken("R1", f"slot {s} is ranked by the vector of another row")
        if missed := coded & live & ~mask:
            raise Broken("R1", f"slots {list(bits(missed))}, live at {version.id}, are no hits")
        if lost := live & ~coded:
            raise Broken("R5", f"slots {list(bits(lost))}, live at {version.id}, were not found")

    # --- writer 1 ------------------------------------------------------------------------------

    def _first_steps(self, state: State) -> Iterator[Step]:
        writer, self.who = state.writer, "writer 1"
        if writer.phase == "idle":
            if state.last.done[0] < len(self.config.first) and state.a.goal is None:
                yield self._lock(state)
        elif writer.phase == "fill":
            if writer.todo:
                yield self._fill(state, writer.todo[0])
            else:
                yield from self._end(state)
        elif writer.phase == "half":
            yield from self._commit(state)
        else:
            self.what = f"applies {state.a.todo[0]}"
            reader = state.last if writer.phase == "follow" else writer.pending
            assert reader is not None
            memory = self.arenas.applied(state.a, reader, "R3")
            if memory.goal is None:
                writer = writer._replace(phase="fill") if writer.phase == "follow" else Writer()
            yield self.who, self.what, state._replace(writer=writer, a=memory)

    def _lock(self, state: State) -> Step:
        """The writer lock and the latest commit; what will be committed is settled here."""
        last, arena = state.last, state.a.arena
        self.what = f"takes the lock at {last.id}"
        pending = self.store.operate(last, 0, self.config.first[last.done[0]], self._floor(state, "a"))
        writer = Writer("fill", pending, self.arenas.filling(last, pending))
        memory, s0 = state.a, state.s0
        if arena is None or arena.position < last.links_cut:
            memory = Memory(self.arenas.load(last))
            if s0.phase == "walk" and s0.old is None:
                s0 = s0._replace(old=arena)
        elif arena.position < last.id and self.broken != "a writer does not follow first":
            memory = Memory(arena, self.arenas.following(arena, last, last.links_log), last)
            writer = writer._replace(phase="follow")
        return self.who, self.what, state._replace(writer=writer, hidden=None, a=memory, s0=s0)

    def _fill(self, state: State, op: Op) -> Step:
        writer, arena = state.writer, state.a.arena
        assert arena is not None and writer.pending is not None
        self.what = f"prepares {op}"
        made = self.arenas.stored(arena, op, writer.pending, state.last)
        require_unchanged(arena, made, _held(state.s0))
        writer = writer._replace(todo=writer.todo[1:])
        return self.who, self.what, state._replace(writer=writer, a=state.a._replace(arena=made))

    def _end(self, state: State) -> Iterator[Step]:
        pending, arena = state.writer.pending, state.a.arena
        assert pending is not None and arena is not None
        if self.config.aborts:
            self.what = "aborts"
            undone = self.arenas.undone(arena, state.last, pending)
            require_unchanged(arena, undone, _held(state.s0))
            yield self.who, self.what, state._replace(writer=Writer(), a=state.a._replace(arena=undone))
        yield from self._commit(state)

    def _commit(self, state: State) -> Iterator[Step]:
        """The writer lock is free from here on, the memory's is not until all is published."""
        pending, arena, last = state.writer.pending, state.a.arena, state.last
        assert pending is not None and arena is not None
        if state.a.goal is not None:
            return
        self.what = f"commits {pending.id}"
        if self.broken == "rows and log in two commits" and state.writer.phase == "fill":
            half = replace(
                last, id=pending.id, slots=pending.slots, rows=pending.rows, done=pending.done
            )
            writer = state.writer._replace(phase="half")
            yield self.who, self.what, state._replace(last=self.store.kept(half), writer=writer)
            return
        self._check(pending, "R6")
        memory = Memory(arena, self.arenas.publishing(arena, pending), pending)
        writer = Writer("publish", pending)
        yield self.who, self.what, state._replace(last=pending, writer=writer, a=memory)

    def _kills(self, state: State) -> Iterator[Step]:
        """kill -9 of process A. Inside a commit it may have landed; the next writer then announces it."""
        writer, pending = state.writer, state.writer.pending
        if not self.config.kills or (state.a.arena is None and state.s0.phase == "idle"):
            return
        self.who, self.what = "kill -9", "of writer 1 and searcher 0"
        self._check(state.last, "R7")
        ready = writer.phase == "fill" and not writer.todo and state.a.goal is None
        if ready and self.broken == "acknowledged before the commit":
            raise Broken("R7", "what was acknowledged is not in the file")
        dead = state._replace(writer=Writer(), a=Memory(), s0=IDLE)
        yield self.who, self.what, dead
        if ready and pending is not None:
            self.what = f"inside commit {pending.id}, which landed"
            self._check(pending, "R7")
            yield self.who, self.what, dead._replace(last=pending, hidden=state.last)

    # --- the others: whole commits ---------------------------------------------------------------

    def _floor(self, state: State, process: str) -> int:
        """The oldest LMDB id that any reader, of any process, may still see."""
        floor = state.last.id
        if state.upkeep.seen is not None:
            floor = min(floor, state.upkeep.seen.id)
        for searcher in (state.s0, state.s1, state.s2):
            if searcher.version is None:
                continue
            if self.broken == "the snapshot ends before the ranking" and searcher.phase == "walk":
                continue
            if self.broken == "the floor is that of one process" and process != "a":
                continue
            floor = min(floor, searcher.version.id)
        return floor

    def _check(self, version: Version, rule: str) -> None:
        if (version, rule) not in self._sound:
            check(version, rule)
            self._sound.add((version, rule))

    def _committed(self, state: State, version: Version, who: str, what: str) -> Step:
        self.who, self.what = who, f"commits {version.id}: {what}"
        self._check(version, "R6")
        return who, self.what, state._replace(last=version, hidden=None)

    def _second_commits(self, state: State) -> Iterator[Step]:
        last = state.last
        if last.done[1] == len(self.config.second) or not _unlocked(state):
            return
        name, operand = self.config.second[last.done[1]]
        version = self.store.operate(last, 1, (name, operand), self._floor(state, "c"))
        yield self._committed(state, version, "writer 2", f"{name} {operand}")
        if self.broken == "the queue lies outside the transaction" and name == "delete":
            left = replace(last, since=changed(last.since, operand, last.id + 1))
            new = state._replace(last=self.store.kept(left), hidden=None)
            yield "writer 2", f"aborts {name} {operand}", new

    def _upkeep_steps(self, state: State) -> Iterator[Step]:
        upkeep = state.upkeep
        if upkeep.seen is not None:
            if _unlocked(state):
                yield from self._install(state._replace(upkeep=Upkeep()), upkeep.task, upkeep.seen)
            return
        for task in self._may_do(state.last):
            if task in ("repair", "rewrite"):  # no more to compute than to write
                if _unlocked(state):
                    yield from self._install(state, task, state.last)
            else:
                sees = state.hidden or state.last
                yield "upkeep", f"reads {sees.id}: {task}", state._replace(upkeep=Upkeep(sees, task))

    def _may_do(self, last: Version) -> tuple[str, ...]:
        """What upkeep finds to do when no reader is in its way."""
        found = self._tasks.get(last)
        if found is None:
            tasks = [task for task in self.store.folding(last) if task in self.config.folds]
            if self.config.repairs and self.store.repair(last, last, last.id) is not None:
                tasks.append("sweep" if last.stage == "attached" else "repair")
            if self.config.rewrites and self.store.rewrite(last) is not None:
                tasks.append("rewrite")
            found = self._tasks[last] = tuple(tasks)
        return found

    def _install(self, state: State, task: str, seen: Version) -> Iterator[Step]:
        last = state.last
        if task in ("repair", "sweep"):
            version = self.store.repair(last, seen, self._floor(state, "c"))
            task = (version.stage or "vacated") if version is not None else task
        elif task == "rewrite":
            version = self.store.rewrite(last)
        else:
            version = self.store.fold(last, seen, task)
        if version is not None:
            yield self._committed(state, version, "upkeep", task)
        elif seen is not last or task == "sweep":
            yield "upkeep", f"lets {task} be", state

    def _quiet(self, state: State) -> bool:
        """Can nothing be committed any more?"""
        return (
            state.last.done == (len(self.config.first), len(self.config.second))
            and state.writer.phase == "idle"
            and state.upkeep.seen is None
            and state.hidden is None
            and not self._may_do(state.last)
        )


def _unlocked(state: State) -> bool:
    return state.writer.phase in ("idle", "publish")


def _inside(searcher: Searcher) -> bool:
    """Does its next step touch its process's memory alone?"""
    return searcher.phase in ("need", "apply") or searcher.walking


def _held(searcher: Searcher) -> int:
    """Slots that a walk will yet go to, whatever leads to them now."""
    walks = searcher.phase == "walk" and searcher.old is None
    return searcher.seen & ~(searcher.coded & searcher.expanded) if walks else 0


def _row(arena: Arena, u: int, searcher: Searcher) -> Searcher:
    seen = searcher.seen | arena.links[u] & searcher.limit
    return searcher._replace(seen=seen, expanded=searcher.expanded | 1 << u)


def _codes(arena: Arena, found: int, version: Version) -> None:
    for s in bits(found):
        if arena.codes[s] <= 0:
            raise Broken("R4", f"a row leads to slot {s}, whose code is not there")
        if version.rows[s] > 0 and arena.codes[s] != version.rows[s]:
            raise Broken("R5", f"slot {s} has the code of row {arena.codes[s]}, not its own")


# --- exploration -------------------------------------------------------------------------------------


@dataclass
class Explored:
    """What an exploration has met."""

    config: str
    broken: str
    states: int = 0
    transitions: int = 0
    commits: int = 0
    complete: bool = False
    found: Broken | None = None
    trace: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = (
            f"{self.states:,} states, {self.transitions:,} transitions, "
            f"{self.commits:,} different commits"
        )
        if self.found is not None:
            return f"{self.broken or 'THE PROTOCOL'}: {self.found} ({len(self.trace)} steps; {counts})"
        return f"{self.config}: {counts}{'' if self.complete else ', NOT ALL'}"


def explore(
    config: Config, broken: str = "", *, reduced: bool = True, most: int | None = None
) -> Explored:
    """Every state that can be reached, breadth first, up to the first step that breaks a rule."""
    collects = gc.isenabled()
    gc.disable()  # states are millions of tuples, none of them in a cycle
    try:
        return _explore(Model(config, broken, reduced=reduced), most)
    finally:
        if collects:
            gc.enable()


def _explore(model: Model, most: int | None) -> Explored:
    report = Explored(model.config.name, model.broken)
    start = model.start()
    came: dict[State, State | None] = {start: None}
    level = [start]
    while level and report.found is None and (most is None or len(came) < most):
        following: list[State] = []
        for state in level:
            try:
                steps = model.steps(state)
            except Broken as found:
                report.found, report.trace = found, _trace(model, came, state)
                break
            report.transitions += len(steps)
            for _, _, new in steps:
                if new not in came:
                    came[new] = state
                    following.append(new)
        level = following
    report.states, report.commits = len(came), len(model.store)
    report.complete = not level and report.found is None
    return report


def _trace(model: Model, came: dict[State, State | None], state: State) -> list[str]:
    """The steps that led to a state, and the one that went wrong there."""
    last = (model.who, model.what)
    path = [state]
    while (before := came[path[-1]]) is not None:
        path.append(before)
    path.reverse()
    trace, names = [], ["searcher 1", "searcher 2"]  # who is in the places of s1 and s2
    for here, there in zip(path, path[1:], strict=False):
        who, what, _ = next(step for step in model.steps(here) if step[2] == there)
        trace.append(f"{_named(who, names)} {what}")
        if who.startswith("searcher") and who != "searcher 0":
            other, place = (here.s2, there.s2) if who == "searcher 1" else (here.s1, there.s1)
            if other._replace(old=None) != place._replace(old=None):
                names.reverse()
    return [*trace, f"{_named(last[0], names)} {last[1]}"]


def _named(who: str, names: list[str]) -> str:
    return names[int(who[-1]) - 1] if who in ("searcher 1", "searcher 2") else who
