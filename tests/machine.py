"""What happens next? Steps at random over processes, threads, snapshots and transactions, each compared.

One model (tests/foresight.py) knows the last commit, what the open transaction sees, each snapshot's
state and who holds the writer lock. What is true of deeds that overlap:

  M1  a read beside a write or a commit is right before it or after it;
  M2  a write that waits for another's transaction happens right after it, or is refused by name where it
      gives vectors of fields that came or went meanwhile;
  M3  a write that does not wait is Busy, and names the process that holds the lock;
  M4  a commit that a kill cuts off is there whole or not at all, and somebody looks which;
  M5  a forked child sees the last commit and what it wrote itself; snapshots that it inherited are closed.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from typing import Any

import vecdb
from tests.crew import THREADS, Difference, Process, Thread
from tests.foresight import (
    DIM,
    OPTIONAL,
    Foreseen,
    Judged,
    State,
    copied,
    fails,
    foresee,
    gives,
    made,
    nothing,
    same,
    some_read,
    some_write,
)
from tests.hand import IMPATIENT, PATIENT, WRITE, Answer, Deed

PROCESSES = 3
SNAPSHOTS_EACH = 2
LAST_DEEDS = 40
CATALOG = ("create", "drop", "rename")
ONE_PAGE = 40  # rows that a scan reads at once, and some
BEFORE_ALL = 60  # steps, so that there are rows, before each kind of step comes once


class Machine:
    """The model, the processes, and a seed that chooses."""

    def __init__(self, path: str, seed: int, way: str = "right", rich: bool = False) -> None:
        self.path, self.seed = path, seed
        self.rng = random.Random(seed)
        with vecdb.open(path) as db:
            WRITE["create"](db, "a", DIM, "l2", rich)
        self.committed: State = {"a": made("l2", rich)}
        self.holder: Thread | None = None
        self.meant: object = None  # the collection that a waiting write found, whatever its name is now
        self.era = 0  # of its fields
        self.steps: Counter[str] = Counter()
        self.verbs: Counter[str] = Counter()
        self.asked = self.found = self.next_snapshot = self.made = self.landed = 0
        self.once = False  # each kind of step has come once
        self.last: deque[str] = deque(maxlen=LAST_DEEDS)
        usual = "hurried" if rich else "right"
        self.processes = [self.process(way if at == 0 else usual) for at in range(PROCESSES)]

    def process(self, way: str) -> Process:
        self.made += 1
        return Process(f"p{self.made}", self.path, way, self.some_options(reads_only=False))

    def some_options(self, reads_only: bool) -> dict[str, Any]:
        mode = "r" if reads_only else "rw"
        return {"mode": mode, "durability": "relaxed", "upkeep": self.rng.random() < 0.5}

    # --- running ---------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        ways, weights = zip(*WAYS.items(), strict=True)
        try:
            while self.steps.total() < steps:
                self.rng.choices(ways, weights)[0](self)
                if not self.once and self.steps.total() >= BEFORE_ALL:
                    self.once = True
                    for way in ways:
                        way(self)
            self.finish()
        except (Difference, EOFError, OSError) as error:
            told = "\n".join(self.last)
            raise Difference(
                f"seed {self.seed}, step {self.steps.total()}: {error}\nthe last deeds:\n{told}"
            ) from error

    def finish(self) -> None:
        if self.holder is not None:
            self.end_transaction()
        self.compare_everything()
        self.check()

    def close(self) -> None:
        for process in self.processes:
            if process.busy():
                process.kill()
            else:
                process.end()

    def __str__(self) -> str:
        return (
            f"machine of {PROCESSES} processes with {THREADS} threads: {self.steps.total():,} steps, "
            f"differences 0, seed {self.seed}\n  steps: {dict(self.steps.most_common())}\n"
            f"  deeds: {dict(self.verbs.most_common())}\n"
            f"  {self.made - PROCESSES} killed; of commits that a kill cut off {self.landed} landed; "
            f"recall@k of default search {self.found / max(1, self.asked):.4f} of {self.asked:,}"
        )

    # --- choosing --------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.steps.total()

    def threads(self) -> list[Thread]:
        """Those that can be told something."""
        return [t for process in self.processes for t in process.threads if t.waiting is None]

    def waiting(self) -> list[Thread]:
        return [t for process in self.processes for t in process.threads if t.waiting is not None]

    def some_thread(self, *, writes: bool = False, outside: bool = False) -> Thread | None:
        found = [
            thread
            for thread in self.threads()
            if not (writes and thread.process.reads_only) and not (outside and thread.inside is not None)
        ]
        return self.rng.choice(found) if found else None

    def seen_by(self, thread: Thread) -> State:
        return self.committed if thread.inside is None else thread.inside

    def handle(self, thread: Thread) -> int:
        """A transaction belongs to the handle that began it."""
        return PATIENT if thread.inside is not None else self.rng.choice((PATIENT, IMPATIENT))

    # --- telling and comparing ---------------------------------------------------------------------

    def note(self, thread: Thread, deed: Deed) -> None:
        self.verbs[deed[0]] += 1
        self.last.append(f"  {self.now} {thread} {deed!r:.300}")

    def tell(self, thread: Thread, deed: Deed) -> None:
        self.note(thread, deed)
        thread.process.tell(thread, deed)

    def compare(self, thread: Thread, deed: Deed, judged: Judged) -> None:
        self.asked += judged.asked
        self.found += judged.found
        if judged.wrong:
            raise Difference(f"{thread} {deed!r:.400}: {judged.wrong}")

    def do(self, thread: Thread, deed: Deed, foreseen: Foreseen) -> None:
        """Tell one deed, compare its answer, and let it happen to the model."""
        self.tell(thread, deed)
        self.compare(thread, deed, foreseen.judge(thread.process.answer(thread)))
        foreseen.happen()

    # --- steps: one deed ----------------------------------------------------------------------------

    def read(self) -> None:
        thread = self.some_thread()
        if thread is not None:
            self.steps["read"] += 1
            state = self.seen_by(thread)
            deed = some_read(self.rng, state, self.handle(thread), self.now)
            self.do(thread, deed, foresee(deed, state))

    def write(self) -> None:
        """By whoever may: the holder inside its transaction, or anybody where there is none."""
        thread = self.holder or self.some_thread(writes=True)
        if thread is not None:
            self.steps["write inside" if self.holder else "write"] += 1
            state = self.seen_by(thread)
            deed = some_write(self.rng, state, PATIENT, self.now)
            self.do(thread, deed, foresee(deed, state))

    def begin(self) -> None:
        thread = self.some_thread(writes=True)
        if self.holder is None and thread is not None:
            self.steps["begin"] += 1
            self.do(thread, ("begin", PATIENT), gives(None, lambda: self.hold(thread)))

    def hold(self, thread: Thread) -> None:
        self.holder, thread.inside = thread, copied(self.committed)

    def end_transaction(self) -> None:
        holder = self.holder
        if holder is not None:
            verb = "commit" if self.rng.random() < 0.7 else "abort"
            self.steps[verb] += 1
            self.do(holder, (verb, PATIENT), gives(None, lambda: self.let_go(verb == "commit")))
            self.let_waiting_write()

    def let_go(self, commits: bool) -> None:
        holder, self.holder = self.holder, None
        assert holder is not None and holder.inside is not None
        if commits:
            self.committed = holder.inside
        holder.inside = None

    def busy(self) -> None:
        """A write that does not wait, while another thread holds the lock."""
        thread, holder = self.some_thread(writes=True, outside=True), self.holder
        if holder is not None and thread is not None:
            self.steps["busy"] += 1
            deed = some_write(self.rng, self.committed, IMPATIENT, self.now)
            if deed[0] in (*CATALOG, "add field", "drop field"):  # some are refused before they wait
                return
            expected = [("error", "Busy", holder.process.pid)]
            if any(t.waiting is not None for t in thread.process.threads):  # it queues behind its own process
                expected.append(("error", "Busy", thread.process.pid))
            self.do(thread, deed, Foreseen(lambda answer: one_of(answer, expected), nothing))

    def wait(self) -> None:
        """A write that waits until the holder ends."""
        thread = self.some_thread(writes=True, outside=True)
        free = len({t for t in self.threads() if t is not self.holder})
        if self.holder is not None and thread is not None and free > THREADS * PROCESSES // 2:
            if not self.waiting():
                self.steps["wait"] += 1
                begins = self.rng.random() < 0.3
                thread.waiting = (
                    ("begin", PATIENT) if begins else some_write(self.rng, self.committed, PATIENT, self.now)
                )
                self.tell(thread, thread.waiting)
                named = self.committed.get(thread.waiting[2]) if not begins else None
                self.meant, self.era = (None, 0) if named is None else (named.itself, named.era)

    def let_waiting_write(self) -> None:
        """The holder has ended: the write that waited happens now."""
        for thread in self.waiting():
            deed, thread.waiting = thread.waiting, None
            assert deed is not None
            if deed[0] == "begin":
                foreseen = [gives(None, lambda thread=thread: self.hold(thread))]
            else:
                foreseen = [foresee(each, self.committed) for each in self.readings(deed)]
                now = next((t for t in self.committed.values() if t.itself is self.meant), None)
                if now is not None and now.era != self.era and gives_optional(deed):
                    foreseen.append(fails("SchemaError"))
            answer = thread.process.answer(thread)
            right = [each for each in foreseen if not each.judge(answer).wrong]
            found = (right or foreseen)[0]
            self.compare(thread, deed, found.judge(answer))
            found.happen()

    def readings(self, deed: Deed) -> list[Deed]:
        """What a write that waited may have meant: its handle's collection, which may have been renamed or
        dropped since, or the one that has the name now."""
        if deed[0] in CATALOG:
            return [deed]
        verb, on, name, *rest = deed
        now = next((n for n, table in self.committed.items() if table.itself is self.meant), "nobody's")
        return [(verb, on, now, *rest)] if now == name else [(verb, on, now, *rest), deed]

    def misuse(self) -> None:
        """What is refused by name and changes nothing."""
        thread = self.some_thread()
        if thread is None:
            return
        self.steps["misuse"] += 1
        if thread.inside is not None:
            deed: Deed = self.rng.choice([
                ("begin", PATIENT), ("snapshot", PATIENT, -1), ("optimize", PATIENT, "a"), ("check", PATIENT)
            ])  # fmt: skip
            self.do(thread, deed, fails("InvalidArgument"))
        elif thread.process.reads_only:
            deed = some_write(self.rng, {"a": self.committed["a"]}, PATIENT, self.now)
            if deed[0] not in CATALOG:
                self.do(thread, deed, fails("ReadOnly"))

    def optimize(self) -> None:
        thread = self.some_thread(writes=True)
        if self.holder is None and thread is not None:
            self.steps["optimize"] += 1
            self.do(thread, ("optimize", PATIENT, self.rng.choice(list(self.committed))), gives(None))

    # --- steps: snapshots ----------------------------------------------------------------------------

    def snapshot(self) -> None:
        thread = self.some_thread(outside=True)
        if thread is not None and len(thread.process.snapshots) < SNAPSHOTS_EACH:
            self.steps["snapshot"] += 1
            self.next_snapshot += 1
            number, process = self.next_snapshot, thread.process
            happen = lambda: process.snapshots.update({number: copied(self.committed)})  # noqa: E731
            self.do(thread, ("snapshot", self.handle(thread), number), gives(None, happen))

    def ask_snapshot(self) -> None:
        thread = self.some_thread()
        if thread is not None and thread.process.snapshots:
            self.steps["snapshot asked"] += 1
            number, state = self.rng.choice(list(thread.process.snapshots.items()))
            deed = some_read(self.rng, state, ("snapshot", number), self.now)
            self.do(thread, deed, foresee(deed, state))

    def end_snapshot(self) -> None:
        thread = self.some_thread()
        if thread is not None and thread.process.snapshots:
            self.steps["snapshot ended"] += 1
            number = self.rng.choice(list(thread.process.snapshots))
            self.do(thread, ("end_snapshot", PATIENT, number), gives(None))
            del thread.process.snapshots[number]

    # --- steps: processes ------------------------------------------------------------------------------

    def reopen(self) -> None:
        thread = self.some_thread(outside=True)
        if thread is None or thread.process.busy():
            return
        self.steps["reopen"] += 1
        process = thread.process
        reads_only = self.rng.random() < 0.25 and not any(p.reads_only for p in self.processes)
        options = self.some_options(reads_only)
        self.do(thread, ("reopen", PATIENT, options), gives(None))
        process.options = options
        for number in process.snapshots:  # they ended with their handles
            self.do(thread, ("len", ("snapshot", number), "a"), fails("Closed"))
        process.snapshots.clear()

    def kill(self) -> None:
        """At rest, inside of a transaction, or waiting for one."""
        at = self.rng.randrange(PROCESSES)
        process = self.processes[at]
        self.steps["kill"] += 1
        self.last.append(f"  {self.now} {process.name} is killed")
        process.kill()
        if self.holder in process.threads:
            self.holder = None
            for thread in process.threads:
                thread.waiting = None
            self.let_waiting_write()
        self.processes[at] = self.process(process.way)

    def kill_while_it_commits(self) -> None:
        """What it was writing is there whole or not at all; somebody looks which."""
        thread = self.holder or self.some_thread(writes=True)
        if thread is None or self.waiting():
            return
        self.steps["kill in a commit"] += 1
        before, after = self.committed, copied(self.seen_by(thread))
        deed: Deed = ("commit", PATIENT)
        if thread.inside is None:
            deed = some_write(self.rng, before, PATIENT, self.now)
            foresee(deed, after).happen()
        self.tell(thread, deed)
        time.sleep(self.rng.choice((0, 0.001, 0.003, 0.02)) * self.rng.random())
        self.last.append(f"  {self.now} {thread.process.name} is killed")
        thread.process.kill()
        self.holder = None
        self.processes[self.processes.index(thread.process)] = self.process(thread.process.way)
        self.settle(before, after)

    def settle(self, before: State, after: State) -> None:
        witness = next(t for p in self.processes for t in p.threads if not p.reads_only)
        for verb in ("begin", "commit"):  # a commit that was cut off before it was announced
            self.do(witness, (verb, PATIENT), gives(None))  # to readers is announced by the next writer
        self.committed = before
        wrong = self.differences(witness, before)
        if wrong:
            self.landed += 1
            self.committed = after
            still = self.differences(witness, after)
            if still:
                raise Difference(f"after a kill the file is neither as before ({wrong}) nor as after ({still})")

    def fork(self) -> None:
        """A child of one thread, with handles and snapshots that it inherited."""
        thread = self.some_thread()
        if thread is None:
            return
        self.steps["fork"] += 1
        after = copied(self.committed)
        deeds, foreseen = [], []
        for number in self.rng.sample(list(thread.process.snapshots), min(1, len(thread.process.snapshots))):
            deeds.append(("len", ("snapshot", number), "a"))
            foreseen.append(fails("Closed"))
        for _ in range(4):
            may = self.rng.random() < 0.4 and not thread.process.reads_only
            if may and self.holder is None:
                deed = some_write(self.rng, after, PATIENT, self.now)
            elif may and self.rng.random() < 0.3 and self.holder is not None:
                deeds.append(("delete", IMPATIENT, "a", [1]))
                busy = ("error", "Busy", self.holder.process.pid)
                foreseen.append(Foreseen(lambda answer, busy=busy: same(answer, busy), nothing))
                continue
            else:
                deed = some_read(self.rng, after, self.rng.choice((PATIENT, IMPATIENT)), self.now)
            fate = foresee(deed, copied(after))  # judged against the state of its turn
            foresee(deed, after).happen()
            deeds.append(deed)
            foreseen.append(fate)
        self.tell(thread, ("fork", PATIENT, deeds))
        kind, answers, *_ = thread.process.answer(thread)
        if kind != "ok" or len(answers) != len(deeds):
            raise Difference(f"a child of {thread} answered {kind, answers}")
        for deed, fate, answer in zip(deeds, foreseen, answers, strict=True):
            self.verbs[deed[0]] += 1
            self.compare(thread, ("in a child", *deed), fate.judge(answer))
        self.committed = after

    def rest(self) -> None:
        """Long enough for the idle thread of some handle to begin."""
        self.steps["rest"] += 1
        time.sleep(0.7)

    # --- steps: many at once -----------------------------------------------------------------------------

    def volley(self) -> None:
        """Every free thread reads at the same time, while one perhaps writes or commits."""
        free = self.threads()
        self.rng.shuffle(free)
        before = self.committed
        writer = self.holder if self.holder in free else None
        told: list[tuple[Thread, Deed, list[Foreseen]]] = []
        after = before
        may = writer is not None or self.holder is None
        if may and not self.waiting() and self.rng.random() < 0.6:
            writer = writer or self.some_thread(writes=True)
            after = self.volley_write(writer, told) if writer is not None else before
        for thread in free:
            if told and thread is told[0][0]:
                continue
            states = [thread.inside] if thread.inside is not None else [before, after]
            for _ in range(self.rng.choice((1, 2, 4))):
                deed = some_read(self.rng, states[0], self.handle(thread), self.now)
                if deed[0] == "scan" and thread.inside is None:
                    deed = (*deed[:-1], deed[-1] or ONE_PAGE)  # each page is of a commit of its own
                told.append((thread, deed, [foresee(deed, state) for state in states]))
        self.rng.shuffle(told)
        for thread, deed, _ in told:
            self.tell(thread, deed)
        for thread, deed, fates in told:
            answer = thread.process.answer(thread)
            verdicts = [fate.judge(answer) for fate in fates]
            right = next((verdict for verdict in verdicts if not verdict.wrong), verdicts[-1])
            self.compare(thread, deed, right)
            self.steps["in a volley"] += 1
        if after is not before:
            self.committed = after
            if writer is not None and writer is self.holder:
                self.let_go(True)

    def volley_write(self, writer: Thread, told: list[tuple[Thread, Deed, list[Foreseen]]]) -> State:
        """What one thread does beside the readers; the state after it."""
        if writer.inside is not None:
            told.append((writer, ("commit", PATIENT), [gives(None)]))
            return copied(writer.inside)
        after = copied(self.committed)
        deed = some_write(self.rng, after, PATIENT, self.now)
        told.append((writer, deed, [foresee(deed, copied(after))]))
        foresee(deed, after).happen()
        return after

    # --- looking at everything -------------------------------------------------------------------------------

    def compare_everything(self) -> None:
        """Every row, by a thread at random."""
        thread = self.some_thread(outside=True)
        if thread is not None:
            self.steps["everything compared"] += 1
            wrong = self.differences(thread, self.committed)
            if wrong:
                raise Difference(f"{thread}: {wrong}")

    def differences(self, thread: Thread, state: State) -> str:
        deeds: list[Deed] = [("collections", PATIENT)]
        deeds += [("scan", PATIENT, name, None, None, False, None) for name in state]
        wrong = []
        for deed in deeds:
            self.tell(thread, deed)
            wrong.append(foresee(deed, state).judge(thread.process.answer(thread)).wrong)
        return "; ".join(filter(None, wrong))

    def check(self) -> None:
        thread = self.some_thread(outside=True)
        if thread is not None:
            self.steps["check"] += 1
            self.do(thread, ("check", PATIENT), gives([]))


WAYS: dict[Any, float] = {
    Machine.read: 300, Machine.write: 220, Machine.begin: 25, Machine.end_transaction: 16,
    Machine.busy: 6, Machine.wait: 10, Machine.misuse: 5, Machine.optimize: 3,
    Machine.snapshot: 12, Machine.ask_snapshot: 70, Machine.end_snapshot: 8,
    Machine.reopen: 4, Machine.kill: 0.8, Machine.kill_while_it_commits: 1.2, Machine.fork: 3,
    Machine.rest: 0.12, Machine.volley: 45, Machine.compare_everything: 6, Machine.check: 0.5,
}  # fmt: skip


def gives_optional(deed: Deed) -> bool:
    """Whether a write has vectors of fields that come and go."""
    vectors = deed[4] if deed[0] in ("add", "upsert", "update") else None
    return isinstance(vectors, dict) and any(name in vectors for name in OPTIONAL)


def one_of(answer: Answer, expected: list[Answer]) -> Judged:
    return Judged() if answer in expected else same(answer, expected[0])
