"""The demo from its first run to the command that it prints, on a documentation of a few entries."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

import vecdb

for extra in ("typer", "rich", "wordllama"):
    pytest.importorskip(extra, reason="the extra `demo` is not installed")

from vecdb.cli import demo, main  # noqa: E402

DOCS = {
    "json.dumps": "Serialize obj to a JSON formatted str.\n\nIf skipkeys is true then dict keys are skipped.",
    "csv.reader": "Read a CSV file.",
    "configparser": "Configuration file parser.\n\n" + "\n\n".join(
        f"Read settings from a file with sections, {n}. " * 9 for n in range(8)
    ),
    "collections.defaultdict": "dict with default factory: what a missing key becomes.",
}  # fmt: skip
ENTRIES = [
    {"id": name, "module": name.split(".")[0], "kind": "function", "name": name, "length": len(doc), "doc": doc}
    for name, doc in DOCS.items()
]


@pytest.fixture(autouse=True)
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "collect", lambda progress=None: ENTRIES)


def test_it_builds_once_and_the_command_it_prints_works(capfd: Any) -> None:
    assert main(["demo"]) == 0
    out = capfd.readouterr().out
    rows = sum(len(demo.chunks_of(entry)) for entry in ENTRIES)
    assert f"Stored {rows} chunks of 4 documents in python-docs.vecdb" in out
    with vecdb.open("python-docs.vecdb", mode="r") as db:
        docs = db[demo.COLLECTION]
        assert len(docs) == rows and list(docs.schema.fulltext) == ["text"]
        assert {row.metadata["document"] for row in docs} == set(DOCS)
        assert docs["json.dumps"].text == "json.dumps: Serialize obj to a JSON formatted str."
        assert docs["json.dumps#2"].metadata["document"] == "json.dumps"
        commit = db.stats()["commit"]
    printed = shlex.split(out.rstrip().splitlines()[-1])
    assert main(printed[printed.index("search") :]) == 0
    found = capfd.readouterr().out
    assert "document" in found.splitlines()[0] and "json.dumps" in found.splitlines()[1]
    assert main(["demo"]) == 0
    assert capfd.readouterr().out.startswith(f"Opened python-docs.vecdb: {rows} chunks.")
    with vecdb.open("python-docs.vecdb", mode="r") as db:
        assert db.stats()["commit"] == commit


def test_the_best_chunks_stand_within_the_best_documents(capfd: Any) -> None:
    main(["demo"])
    asked, _, answer = capfd.readouterr().out.partition(demo.GROUPED_QUESTION)
    lines = answer.splitlines()
    assert "defaultdict" in asked and lines[1].split()[:2] == ["#", "document"]
    assert lines[2].split()[:2] == ["1", "configparser"]
    assert lines[3].split()[1].startswith("configparser")  # its second chunk, beside no rank


@pytest.mark.parametrize(
    "doc", [*DOCS.values(), "x" * 9_000, "a b " * 3_000 + "\n\nend", "one\n \n\t\n\n\ntwo"], ids=lambda d: d[:12]
)
def test_chunks_are_the_docstring_in_pieces(doc: str) -> None:
    found = demo.chunks_of({"id": "m.f", "doc": doc})
    assert [id for id, _ in found] == ["m.f", *(f"m.f#{n}" for n in range(2, len(found) + 1))]
    pieces = [text.removeprefix("m.f: ") for _, text in found]
    assert "".join("".join(pieces).split()) == "".join(doc.split())
    assert all(0 < len(piece) <= demo.LONGEST_CHUNK for piece in pieces)
