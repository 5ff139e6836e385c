"""Other processes for tests: a Python that finds vecdb and tests where this one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def start(code: str, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """A child that runs `code` with `arguments` as sys.argv[1:]; output comes through a pipe.

    `more`: variables of its environment.
    """
    environment = {**os.environ, **options.pop("more", {}), "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    options.setdefault("stdin", subprocess.PIPE)
    options.setdefault("stdout", subprocess.PIPE)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **options)


def end(child: subprocess.Popen[bytes], timeout: float = 60) -> bytes:
    """What the child still has to say; fails when it does not end well."""
    out, _ = child.communicate(timeout=timeout)
    assert child.returncode == 0, f"the child ended with {child.returncode}"
    return out
