"""The demo's input: what is collected from the standard library, and that it is left alone."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from vecdb.cli import stdlib_docs
from vecdb.cli.stdlib_docs import Entry, collect


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return collect()


def test_more_than_eight_thousand_entries_each_named_once(entries: list[Entry]) -> None:
    ids = [entry["id"] for entry in entries]
    print(f"entries={len(ids)} python={sys.version.split()[0]}")
    assert len(ids) > 8_000
    assert len(set(ids)) == len(ids)


def test_each_kind_is_there_and_facts_are_right(entries: list[Entry]) -> None:
    found = {entry["id"]: entry for entry in entries}
    kinds = {
        "json": "module",
        "xml.etree.ElementTree": "module",
        "json.dumps": "function",
        "os.path.join": "function",
        "json.JSONEncoder": "class",
        "asyncio.Queue": "class",
        "builtins.str.strip": "method",
        "collections.OrderedDict.move_to_end": "method",
        "pathlib.PurePath.suffix": "property",
    }
    for name, kind in kinds.items():
        entry = found[name]
        assert entry["kind"] == kind and entry["length"] == len(entry["doc"]) > 0
        assert entry["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
        assert name.startswith(entry["module"])
    assert found["json.dumps"]["signature"].startswith("(obj, *, skipkeys=False")
    assert found["json.dumps"]["name"] == "dumps" and found["json.dumps"]["module"] == "json"
    assert set(kinds.values()) == {entry["kind"] for entry in entries}


def test_what_must_be_skipped_is_skipped(entries: list[Entry]) -> None:
    for entry in entries:
        parts = entry["module"].split(".")
        assert not stdlib_docs.SKIPPED & set(parts), entry["id"]
        assert not any(part.startswith("_") for part in parts), entry["id"]
        assert parts[0] in sys.stdlib_module_names, entry["id"]


def test_the_result_is_the_same_again_and_says_nothing_of_the_environment(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: `cgi.parse` has os.environ as a default, which its signature shows."""
    monkeypatch.setenv("AAA_SECRET", "hunter2")
    again = collect()
    assert again == entries
    assert "hunter2" not in str(again)


def test_collecting_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither here nor in the folder; a module of one's own is not mistaken for theirs."""
    (tmp_path / "random.py").write_text("raise SystemExit('the wrong random')")
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules), list(sys.path), dict(os.environ), threading.active_count()
    seen: list[tuple[int, int]] = []
    found = {entry["id"] for entry in collect(lambda done, of: seen.append((done, of)))}
    after = set(sys.modules), list(sys.path), dict(os.environ), threading.active_count()
    assert before == after
    assert os.listdir(tmp_path) == ["random.py"]
    assert "random.shuffle" in found
    assert [done for done, _ in seen] == list(range(seen[0][1]))


@pytest.mark.parametrize(
    "deed", ["os._exit(3)", "raise SystemExit(4)", "raise ImportError", "os.abort()"]
)
def test_a_module_that_ends_the_child_costs_itself_only(
    deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[Entry]
) -> None:
    """A copy of the collector in whose child importing `calendar` does something dreadful."""
    source = Path(stdlib_docs.__file__).read_text(encoding="utf-8")
    broken = source.replace(
        "            return importlib.import_module(name)",
        f"            if name == 'calendar':\n                {deed}\n"
        "            return importlib.import_module(name)",
    )
    assert broken != source
    copy = tmp_path / "collector.py"
    copy.write_text(broken, encoding="utf-8")
    monkeypatch.setattr(stdlib_docs, "__file__", str(copy))
    found = {entry["id"] for entry in collect()}
    # what other modules export from it may move to them; all that is elsewhere stays
    elsewhere = {entry["id"] for entry in entries if entry["module"] != "calendar"}
    assert "calendar" not in found and elsewhere <= found
