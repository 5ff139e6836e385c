"""Hundreds of processes that live for a moment share a file, and none leaves anything but its commits.

Each opens the file, compares every row and some searches with brute force at the commit that it
sees (of rich rows by words, sparse and many vectors too, tests/riches.py), and writes one to three rows in each of up to three commits; many are killed with SIGKILL before,
inside or after a transaction, many end without closing. They are forked from a process that imported
vecdb, or started as a Python of their own, or are commands of `python -m vecdb`. At the end what was
acknowledged is there, what was not is there whole or not at all, `check()` finds nothing, and no slot
in the reader table and no lock is held.

Before that, the oldest promise of all: read-modify-write in a transaction loses no update.
Counts and seeds are printed with `-s`; VECDB_SHORT_LIVED and VECDB_SHORT_LIVED_SEED set the number of
processes and repeat a run's choices.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests import child
from tests.queueing import Forked
from tests.visiting import Entry, create, differences, entries, metadata, model_at, ranked, vector

SERVER = "from tests.visiting import serve; serve()"
VISITOR = "from tests.visiting import visit; visit()"
AT_ONCE = 7
STAGES = ("open", "looked", "before", "inside", "ack", "leaves")  # after which a process is killed


# --- read-modify-write ------------------------------------------------------------------------


def add_up(path: str, times: int, careful: bool) -> int:
    """Updates lost when four processes count in one row; not careful: they read too early."""
    with vecdb.open(path) as db:
        db.create_collection("c", dim=2).add("counter", [1, 0], metadata={"value": 0})

    def work() -> None:
        with vecdb.open(path, durability="relaxed", timeout=120) as db:
            c = db["c"]
            for _ in range(times):
                if careful:
                    with db.transaction():
                        c.update("counter", metadata={"value": c["counter"].metadata["value"] + 1})
                else:
                    value = c["counter"].metadata["value"]
                    with db.transaction():
                        c.update("counter", metadata={"value": value + 1})

    for process in [Forked(work) for _ in range(4)]:
        process.end()
    with vecdb.open(path) as db:
        assert db.check() == []
        return 4 * times - int(db["c"]["counter"].metadata["value"])


def test_four_processes_that_read_and_write_back_lose_no_update(tmp_path: Path) -> None:
    lost = add_up(str(tmp_path / "file"), 100, careful=True)
    print(f"read-modify-write: 4 processes, 400 updates, lost {lost}")
    assert lost == 0


@pytest.mark.slow
def test_four_processes_that_read_and_write_back_for_long(tmp_path: Path) -> None:
    lost = add_up(str(tmp_path / "file"), 2500, careful=True)
    print(f"read-modify-write: 4 processes, 10,000 updates, lost {lost}")
    assert lost == 0


def test_control_reading_outside_the_transaction_loses_updates(tmp_path: Path) -> None:
    lost = add_up(str(tmp_path / "file"), 100, careful=False)
    print(f"control, read outside the transaction: 400 updates, lost {lost}")
    assert lost > 0, "the harness does not notice lost updates"


# --- a crowd of processes ------------------------------------------------------------------------


@dataclass
class Tally:
    """What a crowd has shown."""

    seed: int
    kinds: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)  # by what they had said last
    acks: int = 0
    commits: int = 0
    looks: int = 0
    asked: int = 0
    found: int = 0
    most_alive: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"short lives: {self.kinds.total()} processes {dict(self.kinds)}, at most {self.most_alive} at once, "
            f"killed {self.killed.total()} (after {dict(self.killed)}), {self.acks} acknowledged of "
            f"{self.commits} commits, lost {len(self.lost)}, {self.looks} looks, differences {len(self.wrong)}, "
            f"recall@10 {self.found / max(1, self.asked):.4f}, seed {self.seed}"
        )


@dataclass
class Visit:
    """One process: how it was made, when it is to die, what it has said."""

    name: str
    process: subprocess.Popen[bytes] | None  # None: forked by the server
    fate: str = ""  # the stage after which it is killed
    delay: float = 0.0
    dies: float | None = None
    last: str = "starting"
    text: bytes = b""
    command: str = ""
    since: int = 0  # acknowledged commits when it began
    rows: list[Any] = field(default_factory=list)


class Crowd:
    """Processes on one file, several at once, until all have ended."""

    def __init__(self, path: str, way: str = "right", rich: bool = False) -> None:
        self.path, self.way = path, way
        self.tally = Tally(int(os.environ.get("VECDB_SHORT_LIVED_SEED", time.time_ns() % 1_000_000)))
        self.rng = random.Random(self.tally.seed)
        self.alive: dict[str, Visit] = {}
        self.acked: dict[tuple[str, int], int] = {}  # (who, which of its commits): commit number
        self.answers: list[tuple[Visit, int, Any]] = []  # searches of the command line
        self.lines: list[tuple[list[str], bool]] = []  # rows ingested by it, whether it said so
        self.selector = selectors.DefaultSelector()
        self.server = child.start(SERVER)
        assert self.server.stdout is not None
        self.selector.register(self.server.stdout, selectors.EVENT_READ, None)
        self.said = b""
        create(path, rich)

    def run(self, kinds: list[str]) -> Tally:
        """Let one process of each kind live, in any order."""
        self.rng.shuffle(kinds)
        while kinds or self.alive:
            while kinds and len(self.alive) < AT_ONCE:
                self.begin(kinds.pop(), len(kinds))
            self.tally.most_alive = max(self.tally.most_alive, len(self.alive))
            for key, _ in self.selector.select(self.until_next_death()):
                self.read(key.fileobj, key.data)
            self.kill_who_must_die()
        self.server.communicate()
        self.selector.close()
        return self.tally

    def begin(self, kind: str, number: int) -> None:
        rng = self.rng
        name = f"v{number}"
        self.tally.kinds[kind] += 1
        visit = Visit(name, None, since=max(self.acked.values(), default=0))
        if rng.random() < 0.35:
            visit.fate = rng.choice(STAGES)
            visit.delay = rng.choice([0, 0.001, 0.01, 0.05]) * rng.random()
        orders = [self.path, name, str(self.tally.seed), self.way]
        if kind == "forked":
            self.order(json.dumps(orders))
        elif kind == "started":
            visit.process = child.start(VISITOR, *orders, stdin=subprocess.DEVNULL)
        else:
            self.command(kind, visit)
        if visit.process is not None:
            assert visit.process.stdout is not None
            self.selector.register(visit.process.stdout, selectors.EVENT_READ, visit)
        self.alive[name] = visit

    def command(self, kind: str, visit: Visit) -> None:
        """`python -m vecdb ingest` or `search`, a Python of its own."""
        visit.command = kind
        if kind == "ingest":
            visit.rows = [f"{visit.name}-{at}" for at in range(self.rng.choice([1, 2, 3]))]
            source = Path(f"{self.path}-{visit.name}.jsonl")
            rows = [{"id": id, "vector": [int(x) for x in vector(id, 0)], **metadata(id, 0)} for id in visit.rows]
            source.write_text("".join(json.dumps(row) + "\n" for row in rows))
            arguments = ["ingest", self.path, str(source), "--collection", "lines"]
        else:
            visit.rows = [self.rng.randrange(-128, 128) for _ in range(8)]
            arguments = ["search", self.path, json.dumps(visit.rows), "-c", "rows", "--exact", "-k", "5", "--json"]
        code = f"import sys; sys.argv = ['vecdb'] + {arguments!r}; import runpy; runpy.run_module('vecdb', run_name='__main__')"
        visit.process = child.start(code, stdin=subprocess.DEVNULL)
        if visit.fate:
            visit.dies = time.monotonic() + self.rng.choice([0.5, 1.5]) * self.rng.random()

    def order(self, line: str) -> None:
        assert self.server.stdin is not None
        self.server.stdin.write(line.encode() + b"\n")
        self.server.stdin.flush()

    def until_next_death(self) -> float:
        deaths = [visit.dies for visit in self.alive.values() if visit.dies is not None]
        return max(0.0, min([*deaths, time.monotonic() + 60]) - time.monotonic())

    def kill_who_must_die(self) -> None:
        for visit in self.alive.values():
            if visit.dies is not None and visit.dies <= time.monotonic():
                visit.dies = None
                if visit.process is None:
                    self.order(f"kill {visit.name}")
                else:
                    visit.process.kill()

    # --- what they say ---------------------------------------------------------------------

    def read(self, pipe: Any, visit: Visit | None) -> None:
        got = os.read(pipe.fileno(), 65536)
        if visit is None:
            assert got, "the server of forks has ended"
            *lines, self.said = (self.said + got).split(b"\n")
            for line in lines:
                self.hear(line.decode())
            return
        visit.text += got
        if not visit.command:
            *lines, visit.text = visit.text.split(b"\n")
            for line in lines:
                self.hear(line.decode())
        if not got:
            assert visit.process is not None
            self.selector.unregister(pipe)
            pipe.close()
            self.ended(visit, visit.process.wait())

    def hear(self, line: str) -> None:
        name, word, *rest = line.split(" ")
        visit = self.alive[name]
        if word == "ended":
            self.ended(visit, int(rest[0]))
            return
        visit.last = word
        if word == visit.fate:
            visit.fate, visit.dies = "", time.monotonic() + visit.delay
        if word == "ack":
            self.acked[name, int(rest[1])] = int(rest[0])
            self.tally.acks += 1
        elif word == "looked":
            self.tally.looks += 1
            self.tally.asked += int(rest[0])
            self.tally.found += int(rest[1])
        elif word == "wrong":
            self.tally.wrong.append(line)

    def ended(self, visit: Visit, status: int) -> None:
        del self.alive[visit.name]
        if status == -signal.SIGKILL:
            self.tally.killed[visit.command or visit.last] += 1
        elif visit.command == "search":
            hits = json.loads(visit.text)["hits"] if status == 0 else []  # 1: no row matches
            self.answers.append((visit, max(self.acked.values(), default=0), hits))
        elif status:
            self.tally.wrong.append(f"{visit.name} {visit.command} ended with {status}")
        if visit.command == "ingest":
            self.lines.append((visit.rows, status == 0))

    # --- what is left ----------------------------------------------------------------------

    def judge(self) -> Tally:
        """Compare the file with what was said, and see that nobody has left anything."""
        tally = self.tally
        with vecdb.open(self.path, timeout=0, upkeep=False) as db:
            with db.transaction():
                pass  # the writer lock can be had at once
            log = entries(db["log"])
            tally.commits = len(log)
            there = {(entry["by"], entry["nth"]): n for n, entry in enumerate(log, 1)}
            tally.lost += [f"{who} {n}" for who, n in self.acked.items() if there.get(who) != n]
            tally.wrong += differences(db["rows"], model_at(log, len(log)))
            tally.wrong += self.wrong_answers(log) + self.wrong_lines(db["lines"])
            tally.wrong += [str(problem) for problem in db.check()]
            db._env._shared.lmdb.reader_check()
            readers = db.stats()["readers"]
            if readers:
                tally.wrong.append(f"{readers} slots of the reader table are left")
            db.compact()  # nobody else is there
            tally.wrong += differences(db["rows"], model_at(log, len(log)))
        return tally

    def wrong_answers(self, log: list[Entry]) -> list[str]:
        """Exact searches of the command line: each is right at a commit of its lifetime."""
        wrong = []
        for visit, until, hits in self.answers:
            got = [(hit["id"], hit["metadata"]["n"]) for hit in hits]
            for n in range(visit.since, min(until + AT_ONCE * 3, len(log)) + 1):
                model = model_at(log, n)
                if got == [(id, model[id]) for _, id in ranked(model, visit.rows)[:5]]:
                    break
            else:
                wrong.append(f"search from commit {visit.since} to {until}: {got}")
        return wrong

    def wrong_lines(self, lines: Any) -> list[str]:
        """Rows of ingestions: all of one that was reported, all or none of one that was not."""
        expected: dict[str, int] = {}
        for ids, reported in self.lines:
            if reported or any(id in lines for id in ids):
                expected.update(dict.fromkeys(ids, 0))
        return differences(lines, expected)


def mixture(count: int) -> list[str]:
    """Kinds of `count` processes: a sixteenth are commands, another start a Python of their own."""
    commands, started = max(2, count // 16), max(2, count // 16)
    kinds = ["ingest", "search"] * (commands // 2) + ["started"] * started
    return kinds + ["forked"] * (count - len(kinds))


def assert_sound(tally: Tally) -> None:
    print(tally)
    assert not tally.wrong, tally.wrong[:10]
    assert not tally.lost, tally.lost[:10]
    assert tally.found >= 0.95 * tally.asked, tally
    assert tally.acks and tally.killed and tally.most_alive > 1, "nothing was shown"


def live(path: Path, count: int, rich: bool) -> None:
    crowd = Crowd(str(path), rich=rich)
    crowd.run(mixture(count))
    assert_sound(crowd.judge())


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_short_lived_processes_leave_their_commits_and_nothing_else(tmp_path: Path, rich: bool) -> None:
    live(tmp_path / "file", 24, rich)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_five_hundred_short_lived_processes(tmp_path: Path, rich: bool) -> None:
    live(tmp_path / "file", int(os.environ.get("VECDB_SHORT_LIVED", 500)), rich)


# --- the harness itself ------------------------------------------------------------------------


def test_control_processes_that_acknowledge_early_are_seen_to_lose_commits(tmp_path: Path) -> None:
    crowd = Crowd(str(tmp_path / "file"), "early")
    crowd.run(["forked"] * 40)
    print("control, acknowledged early:", crowd.judge())
    assert crowd.tally.lost, "the harness does not notice lost commits"


def test_control_processes_that_commit_in_parts_are_seen_to_differ(tmp_path: Path) -> None:
    for turn in range(5):  # somebody must look, or be killed, between the parts
        crowd = Crowd(str(tmp_path / f"file-{turn}"), "split")
        try:
            crowd.run(["forked"] * 40)
            crowd.judge()
        except (AssertionError, vecdb.errors.VecdbError):
            crowd.tally.wrong.append("it could not even be read")
        print("control, committed in parts:", crowd.tally)
        if crowd.tally.wrong:
            break
    assert crowd.tally.wrong, "the harness does not notice torn commits"


@pytest.mark.parametrize("who", ["reader", "writer"])
def test_control_one_that_stays_is_seen_by_its_slot_or_its_lock(tmp_path: Path, who: str) -> None:
    path = str(tmp_path / "file")
    crowd = Crowd(path)
    crowd.run(["forked"])
    stays = child.start(VISITOR, path, who, "1", "stay")
    assert stays.stdout is not None
    try:
        while stays.stdout.readline() != f"{who} stays\n".encode():
            assert stays.poll() is None
        with pytest.raises(vecdb.errors.Busy) as caught:
            crowd.judge()
        assert caught.value.owner_pid == stays.pid
        if who == "reader":
            assert any("slots of the reader table" in problem for problem in crowd.tally.wrong)
    finally:
        stays.kill()
        stays.communicate()
    crowd.tally.wrong.clear()
    crowd.lines.clear()
    assert not crowd.judge().wrong, "it was killed, and leaves nothing"
