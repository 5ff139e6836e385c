"""Builds the native tests: the core's own sources without Python, and the programs beside it.

1. Which sources and flags the core has is read from setup.py, so that there is one list.
2. What was built is kept in pytest's cache under a name made of all that it was built from.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORE = ROOT / "vecdb" / "_core"
QUICK = ("-O1",)
ASAN = (
    "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)  # fmt: skip
TSAN = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread")


def setup_lists() -> dict[str, Any]:
    """The literal lists of setup.py, by name."""
    found = {}
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # computed from the others
    return found


def units(machine: str) -> dict[Path, list[str]]:
    """Each source and the flags it needs."""
    lists = setup_lists()
    by_isa = (
        lists["X86_FLAGS"] if machine in ("x86_64", "amd64") else
        lists["ARM_FLAGS"] if machine in ("aarch64", "arm64") else {}
    )  # fmt: skip
    core = {CORE / f"{name}.cpp": by_isa.get(name, []) for name in [*lists["COMMON"], *by_isa]}
    return core | {path: ["-Wall", "-Wextra"] for path in sorted(HERE.glob("*.cpp"))}


def compiler() -> list[str]:
    """The C++ compiler, or a skip."""
    command = shlex.split(os.environ.get("CXX", "c++"))
    if shutil.which(command[0]) is None:
        pytest.skip(f"no C++ compiler: {command[0]} is not there")
    return command


def build(
    cache: Path, flags: tuple[str, ...], cxx: list[str] | None = None, machine: str | None = None
) -> Path:
    """The program built with these flags; the compiler's message when it does not compile."""
    cxx = cxx or compiler()
    sources = units((machine or platform.machine()).lower())
    always = ["-std=c++17", "-ffp-contract=off", *flags]
    made_of = hashlib.sha256(repr((cxx, always, sorted(sources.items()))).encode())
    for path in sorted([*CORE.glob("*.[hci]*"), *HERE.glob("*.[hc]*")]):
        if path.name != "_core.cpp":
            made_of.update(path.read_bytes())
    folder = cache / made_of.hexdigest()[:20]
    program = folder / "native"
    if program.exists():
        return program
    for old in sorted(cache.iterdir(), key=lambda path: path.stat().st_mtime)[:-8]:
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder))  # another run may be building the same

    def run(*command: str) -> None:
        done = subprocess.run([*cxx, *command], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"

    def compile_one(source: Path, own: list[str]) -> str:
        unit = str(scratch / f"{source.parent.name}-{source.stem}.o")
        run(*always, *own, f"-I{CORE}", "-c", str(source), "-o", unit)
        return unit

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        made = list(pool.map(lambda item: compile_one(*item), sources.items()))
    run(*always, "-pthread", *made, "-o", str(scratch / "native"))
    (scratch / "native").replace(program)
    shutil.rmtree(scratch)
    return program
