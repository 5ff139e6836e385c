"""Does a text match a pattern with `%` (any run of characters), `_` (one) and `\\` (escape)?

A pattern is cut at its runs into segments of fixed length. The first and the last are tried at
their places; those between are looked for from left to right, each as early as it can be,
which finds a match whenever there is one.

Invariants:
  L1  every text that matches starts with `literal`, and when `decided` is set, that is enough;
      it has each of `runs` in it, and when `inner` is set, to have that in it is enough;
  L2  time is at most the text's length times the pattern's: no pattern runs wild.

Rejected: one regular expression with `.*` for each run. Backtracking makes `%a%a%a%...` take
time of the text's length to the power of the runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_PATTERN: Final = 1_000

Piece = list[str | None]  # characters, None for any


class Pattern:
    """A pattern made ready; ValueError when its last character escapes nothing."""

    __slots__ = ("_first", "_last", "_middle", "decided", "exact", "inner", "literal", "runs")

    def __init__(self, pattern: str) -> None:
        pieces = list(_pieces(pattern))
        self._first = _Segment(pieces[0])
        self._last = _Segment(pieces[-1]) if len(pieces) > 1 else None
        self._middle = [_Segment(piece) for piece in pieces[1:-1] if piece]
        self.literal = _literal(pieces[0])  # what every match starts with
        whole = len(self.literal) == len(pieces[0])
        self.exact = whole and self._last is None  # matches `literal` and nothing else
        self.decided = whole and pieces[1:] == [[]]  # matches all that starts with `literal`
        self.runs = tuple(run for piece in pieces for run in _runs(piece))
        open_ends = len(pieces) > 1 and not pieces[0] and not pieces[-1]
        alone = len(self._middle) == 1 and len(self.runs) == 1
        bare = open_ends and alone and len(self.runs[0]) == self._middle[0].length
        self.inner = self.runs[0] if bare else None  # matches all that has it anywhere

    def matches(self, text: str) -> bool:
        """Return whether the whole text matches."""
        first, last = self._first, self._last
        if last is None:
            return len(text) == first.length and first.at(text, 0)
        at, end = first.length, len(text) - last.length
        if at > end or not first.at(text, 0) or not last.at(text, end):
            return False
        for segment in self._middle:
            found = segment.find(text, at, end)
            if found < 0:
                return False
            at = found + segment.length
        return True


class _Segment:
    """Characters of a known number, some of them any."""

    __slots__ = ("_expression", "_text", "length")

    def __init__(self, piece: Piece) -> None:
        self.length = len(piece)
        self._text = _literal(piece)
        self._expression: re.Pattern[str] | None = None
        if len(self._text) < self.length:
            written = "".join("." if one is None else re.escape(one) for one in piece)
            self._expression = re.compile(written, re.DOTALL)

    def at(self, text: str, start: int) -> bool:
        if self._expression is None:
            return text.startswith(self._text, start)
        return self._expression.match(text, start) is not None

    def find(self, text: str, start: int, end: int) -> int:
        if self._expression is None:
            return text.find(self._text, start, end)
        found = self._expression.search(text, start, end)
        return -1 if found is None else found.start()


def _pieces(pattern: str) -> Iterator[Piece]:
    piece: Piece = []
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            yield piece
            piece = []
        elif character == "_":
            piece.append(None)
        elif character == "\\":
            escaped = next(characters, "")
            if not escaped:
                raise ValueError("the last \\ escapes nothing; a backslash itself is \\\\")
            piece.append(escaped)
        else:
            piece.append(character)
    yield piece


def _runs(piece: Piece) -> Iterator[str]:
    """The longest runs of characters that are not any."""
    run = ""
    for one in piece:
        if one is not None:
            run += one
        elif run:
            yield run
            run = ""
    if run:
        yield run


def _literal(piece: Piece) -> str:
    """The characters before the first that may be any."""
    end = piece.index(None) if None in piece else len(piece)
    return "".join(one for one in piece[:end] if one is not None)
