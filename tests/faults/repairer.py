"""A process that repairs files, and says what it saved: a line of JSON for each order on stdin."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict
from typing import Any

import vecdb
from vecdb import _core


def content(path: str) -> dict[str, list[Any]]:
    """Every row of every collection: id, metadata and text, vectors by field."""
    with vecdb.open(path, mode="r") as db:
        return {name: [seen(record) for record in db[name]] for name in db}


def seen(record: vecdb.Record) -> Any:
    vectors = {n: f"{v.dtype} {v.shape} {v.tobytes().hex()}" for n, v in record.vectors.items()}
    return [record.id, repr((sorted(record.metadata.items()), record.text)), vectors]


def repaired(src: str, dst: str) -> dict[str, Any]:
    """What a repair says and what is in the new file, or the error."""
    try:
        report = vecdb.repair(src, dst)
    except Exception as error:
        ours = isinstance(error, vecdb.VecdbError)
        return {"error": f"{type(error).__name__}: {error}", "ours": ours}
    with vecdb.open(dst) as db:
        problems = [str(problem) for problem in db.check()[:5]]
    said = {name: asdict(saved) for name, saved in report.collections.items()}
    lost = [asdict(one) for one in report.lost]
    return {"lost": lost, "said": said, "text": str(report), "rows": content(dst), "check": problems}


def main() -> None:
    """Repair until stdin ends."""
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))
    plain = _core.unseal
    for line in sys.stdin:
        src, dst, checksums = json.loads(line)
        _core.unseal = plain if checksums else lambda kind, key, record: memoryview(record)[12:]
        print(json.dumps(repaired(src, dst)), flush=True)


if __name__ == "__main__":
    main()
