"""Does a page of the guide do what it says?

    python tests/guide.py docs/start.md

runs the ```python blocks of a page from top to bottom in one namespace and in a new folder. What a
statement gives is written behind it, or on the lines below it, and is checked:

    len(books)  # -> 3
    print(plan)
    # -> search 'books' for the best 10
    # -> ...
    books.add("a", [1])  # -> InvalidArgument: vectors ...

That is what it printed, or else its value as Python shows it, or the error that it raised; `...`
stands for anything, as in doctests. A block below `<!-- needs: module -->` is left out where that
module is not installed, which the last line of the output says.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib.util
import io
import os
import re
import sys
import tempfile
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LEFT_OUT = "left out for want of"
_BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>[\w, ]+) -->\n+)?^```python\n(?P<code>.*?)^```", re.M | re.S)
_checker = doctest.OutputChecker()


def run(page: Path) -> list[str]:
    """Run a page's blocks here; the modules for want of which some were left out."""
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "__main__", "__check__": check, "__printing__": printing}
    lacking: list[str] = []
    for found in _BLOCK.finditer(text):
        needed = re.split(r", *", found["needs"]) if found["needs"] else []
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            lacking += missing
            continue
        line = text.count("\n", 0, found.start("code"))
        tree = checked(found["code"], line)
        exec(compile(tree, str(page), "exec"), namespace)
    return sorted(set(lacking))


def checked(code: str, line: int) -> ast.Module:
    """A block with its expectations as calls; `line`: how many lines are above it."""
    wanted = expectations(code)
    tree = Checked(wanted).visit(ast.parse(code))
    if wanted:
        raise SyntaxError(f"line {line + min(wanted)[0]}: '# ->' behind no statement")
    ast.increment_lineno(ast.fix_missing_locations(tree), line)
    return tree


Place = tuple[int, int]  # line, and column: of a comment behind a statement -1


def expectations(code: str) -> dict[Place, str]:
    """What is expected, by the place where it begins; the lines below it that go on are its own."""
    found: dict[Place, str] = {}
    begun: Place = (0, 0)
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.COMMENT or not token.string.startswith("# ->"):
            continue
        (at, column), alone = token.start, not token.line[: token.start[1]].strip()
        expected = token.string.removeprefix("# ->").removeprefix(" ")
        if alone and last and at == last + 1:
            found[begun] += "\n" + expected
        else:
            begun = (at, column if alone else -1)
            found[begun] = expected
        last = at
    return found


class Checked(ast.NodeTransformer):
    """Statements that something is expected of, as checks."""

    def __init__(self, wanted: dict[Place, str]) -> None:
        self.wanted = wanted

    def visit(self, node: ast.AST) -> Any:
        node = self.generic_visit(node)
        if not isinstance(node, ast.stmt):
            return node
        end = node.end_lineno or 0
        expected = self.wanted.pop((end, -1), None)
        if expected is None:  # on the lines below, under the statement's first character
            expected = self.wanted.pop((end + 1, node.col_offset), None)
        if expected is None:
            return node
        where = ast.copy_location(ast.Constant(expected), node)
        if isinstance(node, ast.Expr):
            none = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
            call = ast.Call(ast.Name("__check__", ast.Load()), [ast.Lambda(none, node.value), where], [])
            return ast.copy_location(ast.Expr(call), node)
        opened = ast.Call(ast.Name("__printing__", ast.Load()), [where], [])
        return ast.copy_location(ast.With([ast.withitem(opened)], [node]), node)


def check(evaluate: Callable[[], Any], expected: str) -> None:
    """Compare what a statement printed, gave or raised with what is expected."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            value = evaluate()
        got = printed.getvalue().rstrip("\n") or repr(value)
    except Exception as error:
        if not expected.startswith(type(error).__name__):
            raise
        got = f"{type(error).__name__}: {error}"
    compare(got, expected)


@contextlib.contextmanager
def printing(expected: str) -> Iterator[None]:
    """Compare what a statement printed, as a loop does, with what is expected."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        yield
    compare(printed.getvalue().rstrip("\n"), expected)


def compare(got: str, expected: str) -> None:
    if not _checker.check_output(expected + "\n", got + "\n", doctest.ELLIPSIS):
        raise AssertionError(f"expected\n{expected}\ngot\n{got}")


if __name__ == "__main__":
    given = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        without = run(given)
    if without:
        print(LEFT_OUT, ", ".join(without))
