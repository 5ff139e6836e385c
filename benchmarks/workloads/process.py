"""The parent's end of a worker: start it, give it an order, read its answer, end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self


class Child:
    """A worker's process: orders and answers are lines of JSON; a context manager."""

    engine: str
    _child: subprocess.Popen[str]

    def order(self, do: str, **details: Any) -> dict[str, Any]:
        """Give an order and wait for its answer; RuntimeError if the worker has ended."""
        assert self._child.stdin is not None
        print(json.dumps({"do": do, **details}), file=self._child.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.engine} worker ended with {self._child.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


class Worker(Child):
    """One engine on one data set in a process of its own; a context manager."""

    def __init__(
        self, engine: str, data: str, path: Path, *, queries: int, limit: int, threads: int
    ) -> None:
        self.engine = engine
        folder = Path(__file__).resolve().parents[1]
        arguments = [engine, data, str(queries), str(limit), str(path), str(threads)]
        self._child = subprocess.Popen(
            [sys.executable, "-m", "workloads.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
        )
        self._answer()
