"""What `import vecdb` does to a process: nothing that a caller could notice."""

from __future__ import annotations

import json
import subprocess
import sys

LOADED = """
import json, socket, sys, threading
opened = []
make = socket.socket.__init__
socket.socket.__init__ = lambda self, *a, **k: (opened.append(a), make(self, *a, **k))[1]
import numpy
before = set(sys.modules)
import vecdb
import os
tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
print(json.dumps({
    "sockets": len(opened),
    "threads": threading.active_count(),
    "tasks_added": tasks - TASKS,
    "modules": sorted(set(sys.modules) - before),
}))
"""

TASKS = "import os, numpy; print(len(os.listdir('/proc/self/task')))"


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_import_starts_no_thread_opens_no_socket_loads_no_extra() -> None:
    tasks = run(TASKS).strip() if sys.platform == "linux" else "1"
    found = json.loads(run(LOADED.replace("TASKS", tasks)))
    assert found["sockets"] == 0
    assert found["threads"] == 1
    assert found["tasks_added"] == 0  # numpy's own BLAS threads are counted on both sides
    loaded = {name.split(".")[0] for name in found["modules"]}
    banned = {"typer", "rich", "tokenizers", "safetensors", "wordllama", "hnswlib", "requests"}
    assert not loaded & banned
    assert not loaded & {"asyncio", "multiprocessing", "http", "ssl", "urllib.request"}
