"""The state machine over processes, threads, snapshots and transactions: a dict says what is right.

A driver tells the threads of several long-lived processes (tests/hand.py) what to do, one deed at a
time or many at once: transactions that commit and abort, every verb that writes and reads, in and out
of transactions and snapshots, by handles that are opened again with other options, by forked children,
collections that come, go and are renamed, processes that are killed at rest, inside of a transaction
and in the middle of a commit. Every answer is compared with the model's (tests/machine.py). Rows are plain or
rich: with full text, sparse and many vectors, whose fields come and go as well (tests/riches.py).

The harness is tested too: a process that drops a write, or answers from the past, must be noticed.
Steps by kind, recall and seed are printed with `-s`; a difference prints the last deeds.
VECDB_MACHINE_STEPS sets the length of the long run, VECDB_MACHINE_SEED repeats the choices.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.crew import Difference
from tests.machine import Machine

KINDS_OF_STEPS = (
    "read", "write", "write inside", "begin", "commit", "abort", "busy", "wait", "misuse", "optimize", "snapshot",
    "snapshot asked", "snapshot ended", "reopen", "kill", "kill in a commit", "fork", "rest", "in a volley",
    "everything compared", "check",
)  # fmt: skip


def drive(folder: Path, steps: int, way: str = "right", rich: bool = False) -> Machine:
    seed = int(os.environ.get("VECDB_MACHINE_SEED", time.time_ns() % 1_000_000))
    machine = Machine(str(folder / "m.vecdb"), seed, way, rich)
    try:
        machine.run(steps)
    finally:
        machine.close()
    return machine


def assert_sound(machine: Machine) -> None:
    print(machine)
    assert machine.found >= 0.95 * machine.asked


@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_processes_threads_snapshots_and_transactions_agree_with_a_dict(tmp_path: Path, rich: bool) -> None:
    assert_sound(drive(tmp_path, 600, rich=rich))


@pytest.mark.slow
@pytest.mark.timeout(9000)
@pytest.mark.parametrize("rich", [False, True], ids=["plain", "rich"])
def test_a_hundred_thousand_steps_agree_with_a_dict(tmp_path: Path, rich: bool) -> None:
    machine = drive(tmp_path, int(os.environ.get("VECDB_MACHINE_STEPS", "100000")), rich=rich)
    assert_sound(machine)
    missing = [kind for kind in KINDS_OF_STEPS if not machine.steps[kind]]
    assert machine.now < 20_000 or not missing, f"{missing} were never reached"


@pytest.mark.parametrize("way", ["drops", "stale"])
def test_control_a_process_that_lies_is_noticed(tmp_path: Path, way: str) -> None:
    with pytest.raises(Difference) as found:
        drive(tmp_path, 20_000, way)
    print(f"control, a process that {way!r}: {str(found.value)[:300]}")
