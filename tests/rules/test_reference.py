"""docs/reference.md is what docs/make_reference.py makes, and has every public name."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import vecdb
from vecdb import encoders, errors

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_docstrings_make(maker: ModuleType) -> None:
    stands = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert stands == maker.page(), "run: python docs/make_reference.py"


def test_no_public_name_is_left_out(maker: ModuleType) -> None:
    there = {name for _, _, entries in maker.sections() for name, _ in entries}
    assert set(vecdb.__all__) <= there | set(maker.CONSTANTS)
    assert {f"encoders.{name}" for name in encoders.__all__} <= there
    assert {f"errors.{name}" for name in errors.__all__} <= there


def test_a_changed_docstring_is_noticed(maker: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    monkeypatch.setattr(vecdb.Hit, "__doc__", "Another sentence.")
    assert (DOCS / "reference.md").read_text(encoding="utf-8") != maker.page()
