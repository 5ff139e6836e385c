"""What the documents say is true: examples run, commands are described, lines agree."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vecdb
from vecdb.snapshot import Snapshot, SnapshotCollection

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

needs_cli = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("typer", "rich")),
    reason="the extra `cli` is not installed",
)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def first_block_under(heading: str) -> list[str]:
    """The lines of the first code block under a heading, wherever the next heading is."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```\w*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0].splitlines()


def package_modules() -> list[str]:
    """Every module that a user may have reason to import, the command line's included."""
    names = ["vecdb"]
    for info in pkgutil.walk_packages(vecdb.__path__, "vecdb."):
        if not info.name.endswith("__main__"):
            names.append(info.name)
    return sorted(names)


@pytest.mark.parametrize("number", range(len(blocks(README, "python"))))
def test_readme_example_runs(number: int, tmp_path: Path) -> None:
    """Each Python block runs alone in an empty folder, twice, as a reader may run it."""
    script = tmp_path / "example.py"
    script.write_text(blocks(README, "python")[number], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(script)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_readme_shows_a_short_example_first() -> None:
    assert len(blocks(README, "python")[0].splitlines()) <= 15


@pytest.mark.parametrize("heading", ["Try it", "Test it"])
def test_readme_line_is_one_line(heading: str) -> None:
    assert len(first_block_under(heading)) == 1


def test_ci_runs_the_test_it_line() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [
        line
        for line in script.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert commands == first_block_under("Test it")


def test_readme_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


NEEDS = {"hnswlib": "hnswlib", "to_arrow": "pyarrow", "to_pandas": "pandas"}  # by word of an example


def lacking(test: doctest.DocTest) -> list[str]:
    """The modules that an example needs and that are not installed."""
    text = "".join(example.source for example in test.examples)
    needed = {module for word, module in NEEDS.items() if word in text}
    return [module for module in needed if importlib.util.find_spec(module) is None]


@pytest.mark.parametrize("name", package_modules())
def test_docstring_examples_run(name: str, tmp_path: Path) -> None:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if name.startswith("vecdb.cli") and (error.name or "") in ("typer", "rich"):
            pytest.skip("the extra `cli` is not installed")
        raise
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    before = os.getcwd()
    os.chdir(tmp_path)  # an example may leave a file
    left_out: list[str] = []
    try:
        for test in finder.find(module, name):
            missing = lacking(test)
            left_out += missing
            if not missing:
                runner.run(test)
    finally:
        os.chdir(before)
    assert runner.failures == 0
    if left_out:
        pytest.skip(f"all examples ran but those that need {', '.join(sorted(set(left_out)))}")


PUBLIC_CLASSES = [
    vecdb.Database,
    vecdb.Collection,
    vecdb.PreparedSearch,
    vecdb.Hits,
    vecdb.Hit,
    vecdb.Record,
    Snapshot,
    SnapshotCollection,
]
IN_USE = {  # what users write as signs: the class's example shows it so
    "__getitem__": r"\w\[",
    "__iter__": r"list\(|for \w+ in",
    "__contains__": r"\" in ",
    "__len__": r"len\(",
    "__call__": r"nearest\(",
}
WITHOUT_EXAMPLE = {  # why there is none
    "__init__": "no user calls it: verbs make these objects",
    "__enter__": "the `with` of open, transaction and snapshot, in their examples",
    "__exit__": "the same",
    "__repr__": "seen wherever an example shows the object",
    "__eq__": "equality as anywhere",
    "__hash__": "the same",
    "__reduce__": "pickling; docs/processes.md runs it",
    "__setattr__": "refuses",
    "__delattr__": "refuses",
    "__getattr__": "names the verbs that a snapshot has not",
}


def public_members(cls: type) -> dict[str, Any]:
    """Methods and properties that vecdb defines, inherited ones included; none that begin with _."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith("vecdb"):
            continue
        for name, member in vars(base).items():
            hidden = name.startswith("_") and not name.startswith("__")
            if not hidden and (inspect.isfunction(member) or isinstance(member, property)):
                found.setdefault(name, member)
    return found


def example_of(thing: Any) -> str:
    """The lines of a docstring that are run."""
    return "\n".join(re.findall(r"^(?:>>>|\.\.\.) .*", inspect.getdoc(thing) or "", re.MULTILINE))


@pytest.mark.parametrize("cls", PUBLIC_CLASSES, ids=lambda cls: cls.__name__)
def test_every_public_method_has_an_example(cls: type) -> None:
    """Its own, or the class's shows it; those without are in the list above, with the reason."""
    of_class = example_of(cls)
    assert of_class, f"{cls.__name__} has no example"
    for name, member in public_members(cls).items():
        where = f"{cls.__name__}.{name}"
        if name in WITHOUT_EXAMPLE:
            continue
        if name in IN_USE:
            assert re.search(IN_USE[name], of_class), where
            continue
        assert inspect.getdoc(member), f"{where} has no docstring"
        assert example_of(member) or re.search(rf"\.{name}\b", of_class), f"{where} has no example"


def test_no_reason_is_left_over() -> None:
    used = {name for cls in PUBLIC_CLASSES for name in public_members(cls)}
    assert set(WITHOUT_EXAMPLE) | set(IN_USE) <= used


def test_every_public_name_is_documented() -> None:
    for name in vecdb.__all__:
        thing = getattr(vecdb, name)
        if isinstance(thing, ModuleType) or inspect.isclass(thing) or callable(thing):
            assert inspect.getdoc(thing), name


def test_every_module_says_which_question_it_answers() -> None:
    for path in sorted((ROOT / "vecdb").rglob("*.py")):
        first = path.read_text(encoding="utf-8").lstrip()
        assert first.startswith('"""'), path.relative_to(ROOT)


@needs_cli
def test_every_command_has_help_and_an_example() -> None:
    from vecdb.cli.app import app

    assert app.registered_commands
    for command in app.registered_commands:
        assert command.callback is not None
        name, doc = command.name or command.callback.__name__, inspect.getdoc(command.callback) or ""
        assert doc.splitlines()[0].endswith("."), name
        assert f"Example:\n  vecdb {name}" in doc, f"{name} has no example"


@needs_cli
def test_readme_names_every_command() -> None:
    from vecdb.cli.app import app

    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert f"`vecdb {name}" in README, name
