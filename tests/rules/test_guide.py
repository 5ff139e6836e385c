"""The guide is true: every example of every page runs and gives what the page says it gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import guide
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(p for p in DOCS.glob("*.md") if p.name not in ("cli.md", "reference.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run_and_give_what_is_written(page: Path) -> None:
    done = subprocess.run(
        [sys.executable, guide.__file__, str(page)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{page.name}\n{done.stderr}"
    last = done.stdout.splitlines()[-1:]
    if last and last[0].startswith(guide.LEFT_OUT):
        pytest.skip(f"{page.name}: all examples ran but some, {last[0]}")


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        other = page.parent / path if path else page
        assert other.exists(), target
        if anchor:
            assert anchor in anchors(other.read_text(encoding="utf-8")), target


def test_readers_find_every_page() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    start = (DOCS / "start.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f"](docs/{page.name})" in readme, page.name
        assert page.name in ("start.md", "cli.md") or f"]({page.name})" in start, page.name


def anchors(text: str) -> set[str]:
    """The names that headings have as the targets of links."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


WRONG = [
    ("len([1])  # -> 2\n", "expected\n2\ngot\n1"),
    ("print(1)\n# -> 1\n# -> 2\n", "expected\n1\n2\ngot\n1"),
    ("for i in range(2):\n    print(i)\n# -> 0\n", "expected\n0\ngot\n0\n1"),
    ("1 / 0  # -> KeyError: x\n", "ZeroDivisionError"),
    ("with open('x', 'w') as f:\n    f.name  # -> 'y'\n", "got\n'x'"),
    ("\n# -> 1\n", "behind no statement"),
]


@pytest.mark.parametrize("code, said", WRONG)
def test_the_rule_sees_what_is_wrong(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what a page must not get away with."""
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n```python\n{code}```\n", encoding="utf-8")
    with pytest.raises(BaseException) as caught:
        guide.run(page)
    assert said in f"{type(caught.value).__name__}: {caught.value}"


def test_what_is_right_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nn = 1\nn  # -> 1\nint('x')  # -> ValueError: invalid literal ...\n```\n"
        "<!-- needs: no_such_module -->\n```python\nimport no_such_module\n```\n"
        "```python\nfor i in range(3):\n    print(n + i)\n# -> 1\n# -> ...\n# -> 3\n```\n"
    )
    assert guide.run(page) == ["no_such_module"]
