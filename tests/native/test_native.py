"""The core without Python: graphs, storage pages, records, races; plain, and under each sanitizer.

The programs beside this file are the tests; here they are built and run. The controls are calls
that break a rule on purpose: the sanitizer meant for them must end the program with its report.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from native.build import ASAN, QUICK, TSAN, build

GROUPS = ["graph", "holes", "adopt", "pages", "records", "races"]  # kernels: unit/test_kernels.py
CORE_ISAS = ["scalar", ""]  # the reference, and the best


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return Path(request.config.cache.mkdir("native"))


def run(
    command: list[str | Path], isa: str = "", timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VECDB_ISA": isa, "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(
        [str(word) for word in command],
        env=environment, capture_output=True, text=True, timeout=timeout, errors="replace",
    )  # fmt: skip


def passes(command: list[str | Path], isa: str = "", timeout: float = 280) -> None:
    done = run(command, isa, timeout)
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


def sanitized(cache: Path, flags: tuple[str, ...]) -> list[str | Path]:
    """The program, and what starts it where addresses must not be random."""
    try:
        program = build(cache, flags)
    except AssertionError as error:
        if "cannot find -l" in str(error) or "unsupported option" in str(error):
            pytest.skip(f"this compiler has no {flags[-1]}")
        raise
    plain = shutil.which("setarch")
    return [plain, "-R", program] if plain and flags is TSAN else [program]


@pytest.mark.parametrize("group", GROUPS)
def test_the_core_keeps_its_promises_without_python(cache: Path, group: str) -> None:
    passes([build(cache, QUICK), group])


@pytest.mark.parametrize("group", ["graph", "holes", "adopt", "records"])
def test_the_scalar_core_keeps_them_too(cache: Path, group: str) -> None:
    passes([build(cache, QUICK), group], "scalar")


def test_a_wrong_kernel_is_caught(cache: Path) -> None:
    done = run([build(cache, QUICK), "planted-kernel"])
    assert done.returncode == 1 and "planted.cpp" in done.stdout


def test_a_read_beyond_a_vector_is_caught_on_every_instruction_set(cache: Path) -> None:
    for isa in CORE_ISAS:
        assert run([build(cache, QUICK), "planted-guard"], isa).returncode < 0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("isa", CORE_ISAS)
def test_the_core_is_clean_under_address_and_undefined_sanitizers(cache: Path, isa: str) -> None:
    passes([*sanitized(cache, ASAN)], isa, 800)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("isa", CORE_ISAS)
@pytest.mark.parametrize("group", ["graph", "holes", "adopt", "races"])
def test_the_core_is_clean_under_the_thread_sanitizer(cache: Path, group: str, isa: str) -> None:
    passes([*sanitized(cache, TSAN), group], isa, 1000)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "flags, fault, report",
    [
        (ASAN, "planted-heap", "AddressSanitizer: heap-buffer-overflow"),
        (ASAN, "planted-undefined", "runtime error: signed integer overflow"),
        (TSAN, "planted-race", "ThreadSanitizer: data race"),
    ],
)
def test_each_sanitizer_catches_a_planted_fault(
    cache: Path, flags: tuple[str, ...], fault: str, report: str
) -> None:
    done = run([*sanitized(cache, flags), fault])
    assert done.returncode != 0
    assert report in done.stderr and "_core/" in done.stderr
    plain = run([build(cache, QUICK), fault])
    assert plain.returncode == 0, "the fault is one that only the sanitizer sees"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("processor", ["cortex-a72", "cortex-a76"])  # without and with dot product
@pytest.mark.parametrize("group", ["kernels", "graph", "holes", "adopt", "pages", "records"])
def test_the_core_keeps_its_promises_on_64_bit_arm(cache: Path, group: str, processor: str) -> None:
    cxx, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
    if cxx is None or emulator is None:
        pytest.skip("no cross compiler for 64-bit ARM, or no qemu-aarch64")
    program = build(cache, ("-O2", "-static"), [cxx], "aarch64")
    passes([emulator, "-cpu", processor, program, group], timeout=1000)
