"""docs/cli.md is whole and true: every command and option has its words, and every example runs."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import vecdb

for extra in ("typer", "rich"):
    pytest.importorskip(extra, reason="the extra `cli` is not installed")

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands() -> dict[str, list[list[str]]]:
    """Each command's options, each with all its spellings."""
    import typer

    from vecdb.cli.app import app

    group: Any = typer.main.get_command(app)
    return {
        name: [p.opts for p in command.params if p.param_type_name == "option"]
        for name, command in group.commands.items()
    }


def section(name: str) -> str:
    found = re.search(rf"^## vecdb {name}\b.*?(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return found[0] if found else ""


def undocumented(name: str, options: list[list[str]], text: str) -> list[str]:
    """What the section of a command does not mention."""
    missing = [] if text else [name]
    for spellings in options:
        missing += [s for s in spellings if f"`{s}`" not in text and f"`{s} " not in text]
    return missing


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_option_is_described(name: str) -> None:
    assert undocumented(name, commands()[name], section(name)) == []


def test_nothing_is_described_that_is_not_there() -> None:
    assert set(re.findall(r"^## vecdb (\w+)", PAGE, re.MULTILINE)) == set(commands())
    for name, options in commands().items():
        known = {s for spellings in options for s in spellings}
        described = set(re.findall(r"^- .*?:|^- `--.*", section(name), re.MULTILINE))
        for spelled in re.findall(r"`(--?[a-z-]+)[` ]", "".join(described)):
            assert spelled in known, f"{name}: {spelled}"


def test_the_rule_sees_what_is_missing() -> None:
    """The control: an option that nobody wrote about, a spelling left out, a command unknown."""
    assert undocumented("get", [["--new"]], section("get")) == ["--new"]
    assert undocumented("search", [["--k", "-q"]], section("search")) == ["-q"]
    assert undocumented("bench", [], section("bench")) == ["bench"]


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    from vecdb.cli import main

    monkeypatch.chdir(tmp_path)
    rows = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "papers.jsonl").write_text(rows, encoding="utf-8")
    for name, language in (("queries.jsonl", "jsonl"), ("qrels.tsv", "tsv")):
        text = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
        (tmp_path / name).write_text(text, encoding="utf-8")
    lines = re.findall(r"^\$ vecdb (.*)$", PAGE, re.MULTILINE)
    assert {shlex.split(line)[0] for line in lines} == set(commands()) - {"demo"}
    for line in lines:
        words = shlex.split(line)
        if words[0] in ("compact", "repair") and not _there(words[0]):
            continue
        assert main(words) == 0, line
        assert capfd.readouterr().out, line
    assert {"library.vecdb", "recent.csv", "monday.vecdb"} <= set(os.listdir(tmp_path))


def _there(verb: str) -> bool:
    return hasattr(vecdb.Database, verb) or hasattr(vecdb, verb)
