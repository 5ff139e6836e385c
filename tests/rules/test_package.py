"""The package as others receive it: version, types, and nothing of the machine it came from."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

import vecdb

ROOT = Path(__file__).parents[2]

# Folders of somebody's machine, and hosts of package registries; no pattern matches itself.
NOT_IN_A_REPOSITORY = re.compile(
    r"/wor[k]/|/hom[e]/|/roo[t]/|/User[s]/|/tm[p]/venv"
    r"|py[p]i\.org|pythonhoste[d]\.org|deb\.debia[n]\.org|registry\.np[m]js"
)
NEVER_SAY = re.compile("pip install " + r"['\"]?vecdb(?!-engine)\b")  # another project's name
LEFT_OPEN = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|NotImplemented" + r"Error)\b")


def tracked() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: there is no list of tracked files")
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path, content.decode("utf-8")))
    return found


def test_the_version_is_one() -> None:
    assert vecdb.__version__ == metadata.version("vecdb-engine")
    assert re.fullmatch(r"\d+\.\d+\.\d+", vecdb.__version__)
    assert f"## {vecdb.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_types_and_documents_are_installed() -> None:
    folder = Path(vecdb.__file__).parent
    for name in ("py.typed", "ARCHITECTURE.md", "FORMAT.md", "_core/_core.pyi", "_core/_text.pyi"):
        assert (folder / name).is_file(), name


def test_base_dependencies_are_the_four() -> None:
    required = [
        line for line in metadata.requires("vecdb-engine") or () if "extra ==" not in line
    ]
    names = {re.split(r"[ <>=!~;]", line)[0] for line in required}
    assert names == {"numpy", "lmdb", "msgpack", "pyroaring"}


def test_no_machine_path_nor_registry_host_is_in_the_repository() -> None:
    for path, text in texts():
        for line in text.splitlines():
            found = NOT_IN_A_REPOSITORY.search(line)
            assert not found, f"{path.relative_to(ROOT)}: {line.strip()[:120]}"


def test_nobody_is_told_to_install_the_other_project() -> None:
    for path, text in texts():
        assert not NEVER_SAY.search(text), path.relative_to(ROOT)


def test_nothing_is_left_open_in_the_source() -> None:
    for path, text in texts():
        if path.suffix in {".py", ".pyx", ".pxi", ".pyi", ".cpp", ".h", ".inl"}:
            assert not LEFT_OPEN.search(text), path.relative_to(ROOT)


def test_no_tracked_file_is_large() -> None:
    for path in tracked():
        assert path.stat().st_size <= 1 << 20, path.relative_to(ROOT)
