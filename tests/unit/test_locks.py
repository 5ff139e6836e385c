"""storage/locks.py: turns are fair, timeouts hold, holders are named, nothing is inherited."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from tests import child
from vecdb.errors import Busy, InvalidArgument, ReadOnly
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
