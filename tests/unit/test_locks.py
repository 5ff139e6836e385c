"""storage/locks.py: turns are fair, timeouts hold, holders are named, nothing is inherited."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import child, queueing
from tests.queueing import Forked
from vecdb.errors import Busy, Closed, InvalidArgument, ReadOnly
from vecdb.storage import locks
from vecdb.storage.env import Env
from vecdb.storage.locks import Sidecar, WriteQueue, remembered

HOLDER = """
import sys, time
from vecdb.storage.locks import Sidecar
side = Sidecar(sys.argv[1])
side.share(1)
side.lock_writer(1)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar that this process has open."""
    made = Sidecar(str(tmp_path / "x-writer"))
    yield made
    made.close()


def test_the_queue_is_first_come_first_served() -> None:
    queue = WriteQueue()
    assert queue.acquire(1)
    order: list[int] = []

    def wait(n: int) -> None:
        assert queue.acquire(10)
        order.append(n)
        queue.release()

    threads = []
    for n in range(8):
        thread = threading.Thread(target=wait, args=(n,))
        thread.start()
        threads.append(thread)
        while len(queue._waiting) <= n:
            time.sleep(0.001)
    queue.release()
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    assert queue.acquire(0)


def test_a_wait_that_times_out_leaves_the_queue() -> None:
    queue = WriteQueue()
    assert queue.acquire(1)
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(queue.acquire(0.05)))
    thread.start()
    thread.join()
    assert got == [False]
    queue.release()
    assert queue.acquire(0)  # nothing was handed to the one that left


def test_a_second_turn_on_one_thread_is_refused_at_once() -> None:
    queue = WriteQueue()
    assert queue.acquire(1)
    with pytest.raises(InvalidArgument, match="inside a write transaction"):
        queue.acquire(60)


def test_the_queue_excludes_under_load() -> None:
    queue, inside, worst, done = WriteQueue(), [0], [0], [0]

    def work() -> None:
        for _ in range(300):
            if not queue.acquire(0.002):
                continue
            inside[0] += 1
            worst[0] = max(worst[0], inside[0])
            inside[0] -= 1
            done[0] += 1
            queue.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert worst == [1] and done[0] > 0
    assert queue.acquire(1)


def test_busy_names_the_process_that_writes(tmp_path: Path) -> None:
    path = str(tmp_path / "x-writer")
    other = child.start(HOLDER, path)
    assert other.stdout and other.stdout.readline() == b"held\n"
    side = Sidecar(path)
    side.share(1)
    start = time.monotonic()
    with pytest.raises(Busy, match=f"process {other.pid}") as caught:
        side.lock_writer(0.2)
    assert 0.2 <= time.monotonic() - start < 2
    assert caught.value.owner_pid == other.pid
    with pytest.raises(Busy):
        side.alone(0)
    child.end(other)
    side.lock_writer(1)
    side.unlock_writer()
    side.alone(1)
    side.not_alone()
    side.close()


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "x-writer")
    other = child.start(HOLDER, path)
    assert other.stdout and other.stdout.readline() == b"held\n"
    other.kill()
    other.wait()
    side = Sidecar(path)
    start = time.monotonic()
    side.lock_writer(5)
    assert time.monotonic() - start < 1
    side.close()


def test_sidecars_exclude_each_other_within_a_process(tmp_path: Path) -> None:
    """The locks belong to the open file: closing another descriptor drops nothing."""
    path = str(tmp_path / "x-writer")
    side = Sidecar(path)
    side.lock_writer(0)
    with open(path, "rb") as file:
        file.read()
    second = Sidecar(path)
    with pytest.raises(Busy):
        second.lock_writer(0)
    second.close()
    third = Sidecar(path)
    with pytest.raises(Busy):
        third.lock_writer(0)
    third.close()
    side.close()


def test_a_child_keeps_no_lock_of_its_parent(tmp_path: Path) -> None:
    """A child that closed its inherited descriptor does not keep the lock alive."""
    path = str(tmp_path / "x-writer")
    side = Sidecar(path)
    side.lock_writer(0)
    go, went = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        side.abandon()
        os.write(went[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(went[0], 1)
    second = Sidecar(path)
    with pytest.raises(Busy):
        second.lock_writer(0)  # abandoning did not unlock the parent
    side.close()
    second.lock_writer(1)  # the child, still alive, does not hold it
    second.close()
    os.write(go[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (*go, *went):
        os.close(fd)


def test_a_waiting_process_gets_its_turn(tmp_path: Path) -> None:
    """One that writes all the time cannot keep another out."""
    path = str(tmp_path / "x-writer")
    busy = """
import sys, time
from vecdb.storage.locks import Sidecar
side = Sidecar(sys.argv[1])
print("on", flush=True)
end = time.monotonic() + 20
while time.monotonic() < end:
    side.lock_writer(5)
    time.sleep(0.002)
    side.unlock_writer()
"""
    other = child.start(busy, path)
    try:
        assert other.stdout and other.stdout.readline() == b"on\n"
        side = Sidecar(path)
        start = time.monotonic()
        for _ in range(20):
            side.lock_writer(5)
            side.unlock_writer()
        assert time.monotonic() - start < 4
        side.close()
    finally:
        other.kill()
        other.wait()


def test_identity_is_remembered(tmp_path: Path) -> None:
    path = str(tmp_path / "x-writer")
    assert remembered(path) == ""
    side = Sidecar(path)
    assert side.identity() == ""
    side.lock_writer(0)
    side.remember("abc 0123 -")
    assert side.identity() == remembered(path) == "abc 0123 -"
    assert side.owner_pid() == os.getpid()
    side.close()


def test_a_folder_that_cannot_hold_the_sidecar_says_so(tmp_path: Path) -> None:
    with pytest.raises(ReadOnly, match="immutable=True"):
        Sidecar(str(tmp_path / "missing" / "x-writer"))



# --- the queue of processes: places, counted in commits -------------------------------------------

# Children are forked here, and end without tidying up: a started Python costs half a second.


def between_place_and_turn(path: Path, kind: str, times: int, seed: int) -> list[int]:
    """How many commits of others each wait of six processes saw, all writing in tight loops."""
    Env.open(str(path)).close()
    writers = [
        Forked(lambda n=n: queueing.regular(str(path), kind, times, f"{seed}-{n}")) for n in range(6)
    ]
    waits = [int(word) for writer in writers for word in writer.end().split()]
    env = Env.open(str(path))
    assert queueing.last_commit(env) == 6 * times
    env.close()
    return waits


def test_nobody_commits_twice_while_another_process_waits(tmp_path: Path) -> None:
    waits = between_place_and_turn(tmp_path / "file", "places", 60, seed=11)
    print(f"6 processes in tight loops, {len(waits)} waits of 360: at most {max(waits)} commits first, seed 11")
    assert len(waits) > 100 and max(waits) <= 5


@pytest.mark.slow
def test_nobody_commits_twice_while_another_process_waits_for_long(tmp_path: Path) -> None:
    waits = between_place_and_turn(tmp_path / "file", "places", 2000, seed=12)
    print(f"6 processes in tight loops, {len(waits)} waits of 12,000: at most {max(waits)} commits first, seed 12")
    assert len(waits) > 3000 and max(waits) <= 5


def test_control_polling_without_places_lets_newcomers_overtake(tmp_path: Path) -> None:
    waits = between_place_and_turn(tmp_path / "file", "polling", 60, seed=11)
    print(f"control, polling: {len(waits)} waits, up to {max(waits)} commits first, seed 11")
    assert max(waits) > 5, "the harness does not notice who is overtaken"


def queue_up(side: Sidecar, names: str) -> dict[str, Forked]:
    """Processes that wait, each behind those before it."""
    waiting = {}

    def wait() -> None:
        side.abandon()
        queueing.visit(side.path, name, 0.2 if name == "t" else 60)

    for name in names:
        waiting[name] = Forked(wait)
        assert waiting[name].line() == "queued"
    return waiting


def served(side: Sidecar) -> str:
    return Path(side.path + ".served").read_text()


@pytest.mark.parametrize("kind", ["ofd", "posix"])  # posix: as on macOS
def test_processes_are_served_in_the_order_in_which_they_came(
    side: Sidecar, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed or gives up meanwhile delays nobody."""
    if kind == "posix":
        monkeypatch.setattr(locks, "_SETLK", fcntl.F_SETLK)
        monkeypatch.setattr(locks, "_GETLK", fcntl.F_GETLK)
    side.lock_writer(0)
    waiting = queue_up(side, "kabKct")
    waiting.pop("k").kill()
    waiting.pop("K").kill()
    late = waiting.pop("t")
    assert late.line() == f"busy with {os.getpid()}"
    waiting |= queue_up(side, "def")
    side.unlock_writer()
    for process in waiting.values():
        assert process.line() == "served"
    assert served(side) == "abcdef"
    assert side._waiting(locks.QUEUE) == 0, "a place is left"
    side.lock_writer(0)
    for process in (late, *waiting.values()):
        process.end()


def test_one_that_is_killed_while_its_forked_child_lives_leaves_no_place(side: Sidecar) -> None:
    def wait_and_fork() -> None:
        side.abandon()
        mine, look = Sidecar(side.path), Sidecar(side.path)
        threading.Thread(target=mine.lock_writer, args=(60,)).start()
        while not look._waiting(locks.QUEUE):
            time.sleep(0.001)
        if os.fork() == 0:
            mine.abandon()  # as Shared.forked does, inside fork()
            queueing.say(str(os.getpid()))
        time.sleep(60)

    side.lock_writer(0)
    other = Forked(wait_and_fork)
    grandchild = int(other.line())
    assert side._waiting(locks.QUEUE)
    try:
        other.kill()
        assert not side._waiting(locks.QUEUE), "the child keeps its parent's place"
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_process_that_is_stopped_while_it_waits_is_passed_over(side: Sidecar) -> None:
    side.lock_writer(0)
    waiting = queue_up(side, "abcd")
    waiting["a"].signal(signal.SIGSTOP)
    waiting["c"].signal(signal.SIGSTOP)
    side.unlock_writer()
    with pytest.raises(Busy):
        side.lock_writer(0)  # who does not wait passes nobody over
    assert waiting["b"].line() == waiting["d"].line() == "served"
    side.lock_writer(60)
    waiting["a"].signal(signal.SIGCONT)
    waiting["c"].signal(signal.SIGCONT)
    side.unlock_writer()
    for process in waiting.values():
        process.end()
    assert served(side) == "bdac"


def count_up(side: Sidecar, times: int, takes: list[str]) -> int:
    """What a number in a file is when processes have added to it side by side."""
    number = Path(side.path + ".number")
    number.write_bytes(b"%-20d" % 0)
    workers = [Forked(lambda take=take: queueing.increment(side.path, times, take)) for take in takes]
    for worker in workers:
        worker.end()
    return int(number.read_bytes())


def test_processes_of_before_and_of_now_exclude_each_other(side: Sidecar) -> None:
    assert count_up(side, 200, ["places", "polling"] * 2) == 800


def test_control_without_the_lock_increments_are_lost(side: Sidecar) -> None:
    assert count_up(side, 20_000, ["none", "none"]) < 40_000


def test_an_interrupted_process_keeps_neither_lock_nor_place(
    side: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Sidecar(side.path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(side, "_write", interrupted)  # the lock is in hand
        with pytest.raises(KeyboardInterrupt):
            side.lock_writer(1)
    other.lock_writer(0)
    with monkeypatch.context() as patch:
        patch.setattr(locks, "_nap", interrupted)  # the place is in hand
        with pytest.raises(KeyboardInterrupt):
            side.lock_writer(1)
    assert other._waiting(locks.QUEUE) == 0
    other.close()


def test_closing_beneath_a_thread_that_waits_ends_its_wait_by_name(side: Sidecar) -> None:
    holder = Sidecar(side.path)
    holder.lock_writer(0)
    found: list[BaseException] = []

    def wait() -> None:
        try:
            side.lock_writer(60)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not holder._waiting(locks.QUEUE):
        time.sleep(0.001)
    side.close()
    thread.join(60)
    assert [type(error) for error in found] == [Closed]
    assert not holder._waiting(locks.QUEUE)
    holder.close()
