"""Where does a text say what was asked for? Snippets of it, with the places of the words.

A term is shown where the analyzer finds it, a prefix where a folded word begins with it, a phrase where
its terms follow each other. Windows of at most `chars` characters are chosen greedily: the one with the
most different parts of the query first, then the one with the most places, then the first; windows do
not overlap, and are handed out in the order of the text.

Invariants:
  1. A snippet is a piece of the text, cut at words' borders where there are any; its spans lie in it;
  2. a text in which nothing is found gives its beginning, without spans.

Cost: the text is analysed once, some 1 us a word.

>>> from vecdb.text import analysis, grammar
>>> a = analysis.analyzer()
>>> asked = grammar.parse("fast kern*").asked(a)
>>> found = snippets("A fast kernel for GPUs. Kernels are fast.", a, asked)
>>> found[0].marked("[", "]")
'A [fast] [kernel] for GPUs. [Kernels] are [fast].'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from vecdb._core import _text
from vecdb.errors import InvalidArgument
from vecdb.text.grammar import PHRASE, PREFIX, Asked

__all__ = ["Snippet", "places", "snippets"]

CHARS: Final = 200
BORDER: Final = 24  # characters that are given up to cut between words


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of a text: `text`, where it starts in the whole, and spans (start, end) in `text`."""

    text: str
    start: int
    spans: tuple[tuple[int, int], ...]

    def marked(self, before: str = "**", after: str = "**") -> str:
        """The text with each span between two marks."""
        out, at = [], 0
        for start, end in self.spans:
            out += [self.text[at:start], before, self.text[start:end], after]
            at = end
        return "".join([*out, self.text[at:]])


class Place(NamedTuple):
    """Characters of the text that say part number `part` of the query."""

    start: int
    end: int
    part: int


def places(text: str, analyzer: _text.Analyzer, asked: Sequence[Asked]) -> list[Place]:
    """Where the parts of a query are in a text, by start; excluded parts are not looked for."""
    wanted = [(number, one) for number, one in enumerate(asked) if one.occur != _text.NOT]
    terms: dict[bytes, list[int]] = {}
    prefixes: list[tuple[bytes, int]] = []
    phrases: dict[bytes, list[tuple[int, Asked]]] = {}
    for number, one in wanted:
        if one.kind == PHRASE:
            phrases.setdefault(one.terms[0], []).append((number, one))
        elif one.kind == PREFIX:
            prefixes.append((one.terms[0], number))
            for term in one.terms[1:]:
                terms.setdefault(term, []).append(number)
        else:
            terms.setdefault(one.terms[0], []).append(number)
    spans = analyzer.spans(text)
    found = {Place(start, end, n) for term, start, end, _ in spans for n in terms.get(term, ())}
    if prefixes:
        found |= {
            Place(start, end, number)
            for word, start, end, _ in analyzer.words(text)
            for begins, number in prefixes
            if word.startswith(begins)
        }
    if phrases:
        found |= set(_phrases(spans, phrases))
    return sorted(found)


def _phrases(
    spans: list[tuple[bytes, int, int, int]], phrases: dict[bytes, list[tuple[int, Asked]]]
) -> list[Place]:
    at = {position: (term, start, end) for term, start, end, position in spans}
    found = []
    for term, start, _, position in spans:
        for number, one in phrases.get(term, ()):
            here = position
            for following, gap in zip(one.terms[1:], one.gaps, strict=True):
                here += gap
                if at.get(here, (b"",))[0] != following:
                    break
            else:
                found.append(Place(start, at[here][2], number))
    return found


def snippets(
    text: str,
    analyzer: _text.Analyzer,
    asked: Sequence[Asked],
    *,
    most: int = 1,
    chars: int = CHARS,
) -> list[Snippet]:
    """At most `most` pieces of the text, each of at most `chars` characters, with spans.

    InvalidArgument: `most` or `chars` is below 1.
    """
    if most < 1 or chars < 1:
        raise InvalidArgument(f"most={most}, chars={chars}: both are 1 or more")
    found = places(text, analyzer, asked)
    left = found
    windows: list[tuple[int, int]] = []
    while left and len(windows) < most:
        first, last = _best(left, chars)
        start, end = _widened(text, left[first].start, left[last].end, chars, windows)
        windows.append((start, end))
        left = [one for one in left if one.end <= start or one.start >= end]
    if not windows:
        windows.append(_widened(text, 0, 0, chars, []))
    return [_snippet(text, start, end, found) for start, end in sorted(windows)]


def _best(found: list[Place], chars: int) -> tuple[int, int]:
    """The first and last place of the window with the most different parts, then the most places."""
    best, chosen = (0, 0), (0, 0)
    counts: dict[int, int] = {}
    last = -1
    for first, place in enumerate(found):
        while last + 1 < len(found) and (
            last < first or found[last + 1].end - place.start <= chars
        ):
            last += 1
            counts[found[last].part] = counts.get(found[last].part, 0) + 1
        worth = (len(counts), last - first + 1)
        if worth > best:
            best, chosen = worth, (first, last)
        counts[place.part] -= 1
        if not counts[place.part]:
            del counts[place.part]
    return chosen


def _widened(
    text: str, start: int, end: int, chars: int, taken: list[tuple[int, int]]
) -> tuple[int, int]:
    """The window with what fits around it, cut between words, clear of the windows before."""
    end = min(end, start + chars)
    low = max([0, *(b for _, b in taken if b <= start)])
    high = min([len(text), *(a for a, _ in taken if a >= end)])
    room = chars - (end - start)
    first = max(low, start - room // 2)
    last = min(high, end + room - (start - first))
    first = max(low, first - (room - (start - first) - (last - end)))
    if first > low and text[first - 1].isalnum():
        cut = next((i for i in range(first, min(first + BORDER, start)) if text[i].isspace()), None)
        first = first if cut is None else cut + 1
    if last < high and text[last].isalnum():
        cut = next((i for i in range(last, max(last - BORDER, end), -1) if text[i].isspace()), None)
        last = last if cut is None else cut
    while first < start and text[first].isspace():
        first += 1
    while last > end and text[last - 1].isspace():
        last -= 1
    return first, last


def _snippet(text: str, start: int, end: int, found: list[Place]) -> Snippet:
    spans: list[tuple[int, int]] = []
    for place in found:
        if place.start >= end or place.end <= start:
            continue
        first, last = max(place.start, start) - start, min(place.end, end) - start
        if spans and first < spans[-1][1]:  # bigrams overlap, and a phrase covers its words
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((first, last))
    return Snippet(text[start:end], start, tuple(spans))
