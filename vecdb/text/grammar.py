"""What does a text query say? Words, "quoted phrases", prefix*, +must, -not; anything else is a word.

    query   = { [ "+" | "-" ] ( '"' any characters but '"' '"' | word ) [ "*" ] }
    word    = characters without white space and '"'

A sign counts at the beginning of a word only, and "+" alone is a word. What punctuation joins is several
words, each of which counts ("command-line": "command", "line"; in quotes it is a phrase, and after "-" it
is one, too). A quote that is not closed quotes nothing: it is white space. "*" at the end of a word asks for
words that begin so; after a phrase it means nothing.

Invariants:
  1. No text is an error, but one that is too long (LIMIT_CHARS) or has too many parts (LIMIT_PARTS).
  2. A query is a value: immutable, comparable; equal texts give equal queries.
  3. What a part means is the analyzer's: a part that it makes several terms of (bigrams) is a phrase, one
     that it makes none of (stop words) does not count.

Rejected: AND, OR, NOT and parentheses. People type them as words, and "+" and "-" say as much.

>>> [(part.text, part.occur, part.prefix) for part in parse('gpu +"machine learning" kern* -cuda')]
[('gpu', 0, False), ('machine learning', 1, False), ('kern', 0, True), ('cuda', 2, False)]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple, NoReturn

from vecdb._core import _text
from vecdb.errors import InvalidArgument

__all__ = ["LIMIT_CHARS", "LIMIT_PARTS", "Asked", "Part", "TextQuery", "parse"]

LIMIT_CHARS: Final = 1 << 20
LIMIT_PARTS: Final = 4_096
SIGNS: Final = {"+": _text.MUST, "-": _text.NOT}

SIGNED: Final = re.compile(r'["*+-]')
JOINED: Final = re.compile(r"[!#$%&()*+,./:;<=>?@\[\\\]^_`{|}~-]+")  # ASCII punctuation but quotes
WORD: Final = re.compile(r"[^\W_]+")
BIGRAMS: Final = re.compile(  # every character that may be half of one
    r"[\u1100-\u11ff\u3005-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U0001aff0-\U0003ffff]+"
)

TERM, PREFIX, PHRASE = "term", "prefix", "phrase"


class Part(NamedTuple):
    """A part of a query: a word, a prefix (without its star) or what stood in quotes."""

    text: str
    occur: int  # _text.SHOULD, MUST, NOT
    prefix: bool
    quoted: bool
    shown: str  # as it was written, without its sign


class Asked(NamedTuple):
    """A part as an analyzer sees it: a term, a phrase of terms with gaps, or a prefix.

    A prefix's first term is what words begin with, its second, if any, the term that the word itself
    becomes: "libraries*" finds what was stemmed to "librari", too.
    """

    occur: int
    kind: str
    terms: tuple[bytes, ...]
    gaps: tuple[int, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class TextQuery:
    """What a text asks for; iterating gives its parts, in order."""

    parts: tuple[Part, ...]

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def matching_all(self) -> TextQuery:
        """The same query with every word required: what `matches` asks.

        >>> [part.occur for part in parse("a -b").matching_all()]
        [1, 2]
        """
        required = {_text.SHOULD: _text.MUST}
        return TextQuery(
            tuple(part._replace(occur=required.get(part.occur, part.occur)) for part in self.parts)
        )

    def asked(self, analyzer: _text.Analyzer) -> tuple[Asked, ...]:
        """The parts as terms; those that ask for nothing are left out.

        InvalidArgument: more than `LIMIT_PARTS` terms together.

        >>> from vecdb.text.analysis import analyzer
        >>> [one.terms for one in parse('"e-mail" web-Lists').asked(analyzer())]
        [(b'e', b'mail'), (b'web',), (b'lists',)]
        """
        found = tuple(one for part in self.parts if (one := asked(part, analyzer)) is not None)
        n = sum(len(one.terms) for one in found)
        if n > LIMIT_PARTS:
            raise InvalidArgument(
                f"text has {n:,} terms; the limit is {LIMIT_PARTS:,}: ask with fewer words"
            )
        return found


def asked(part: Part, analyzer: _text.Analyzer) -> Asked | None:
    """A part as an analyzer sees it; None where it asks for nothing."""
    found = analyzer.terms(part.text)
    if part.prefix:
        begins = analyzer.fold(part.text)
        if begins:
            also = (found[0][0],) if len(found) == 1 else ()
            return Asked(part.occur, PREFIX, (begins, *also), (), part.shown)
    if not found:
        return None
    terms = tuple(term for term, _ in found)
    gaps = tuple(found[i + 1][1] - found[i][1] for i in range(len(found) - 1))
    return Asked(part.occur, TERM if len(terms) == 1 else PHRASE, terms, gaps, part.shown)


def parse(text: str) -> TextQuery:
    """What a text asks for.

    Costs some 50 ns a character. InvalidArgument: `text` is no str, is longer than `LIMIT_CHARS` or
    has more than `LIMIT_PARTS` parts.

    >>> parse('"open quote').parts == parse("open quote").parts
    True
    """
    if not isinstance(text, str):
        raise InvalidArgument(f"text is a {type(text).__name__}; give a str")
    if len(text) > LIMIT_CHARS:
        raise InvalidArgument(
            f"text has {len(text):,} characters; the limit is {LIMIT_CHARS:,}: ask with fewer words"
        )
    if len(text) <= LIMIT_PARTS and not SIGNED.search(text):  # words alone: most of what people type
        words = JOINED.sub(" ", text).split()
        return TextQuery(tuple([Part(word, _text.SHOULD, False, False, word) for word in words]))
    _bound(text)
    parts: list[Part] = []
    for occur, word, quoted in _pieces(text):
        prefix = not quoted and len(word) > 1 and word.endswith("*")
        bare = word.rstrip("*") if prefix else word
        if not bare.strip():
            continue
        if not quoted and not prefix and occur != _text.NOT:
            parts += [Part(each, occur, False, False, each) for each in JOINED.sub(" ", bare).split()]
        else:
            parts.append(Part(bare, occur, prefix, quoted, f'"{word}"' if quoted else word))
        if len(parts) > LIMIT_PARTS:
            _refuse()
    return TextQuery(tuple(parts))


def _bound(text: str) -> None:
    """Refuse a text that would become too many terms before any is made."""
    if len(text) <= LIMIT_PARTS:
        return
    if text.count('"') > 2 * LIMIT_PARTS or len(BIGRAMS.sub("", text)) < len(text) - LIMIT_PARTS:
        _refuse()
    if sum(1 for _ in islice(WORD.finditer(text), LIMIT_PARTS + 1)) > LIMIT_PARTS:
        _refuse()


def _refuse() -> NoReturn:
    raise InvalidArgument(f"text has more than {LIMIT_PARTS:,} words and phrases: ask with fewer words")


def _pieces(text: str) -> Iterator[tuple[int, str, bool]]:
    """(occur, text, quoted) of each part: quotes first, words between them."""
    runs = text.split('"')
    if len(runs) % 2 == 0:  # the last quote is not closed
        runs[-2:] = [f"{runs[-2]} {runs[-1]}"]
    occur = _text.SHOULD
    for number, run in enumerate(runs):
        if number % 2:
            yield occur, run, True
            continue
        words = run.split()
        occur = _text.SHOULD
        if words and number + 1 < len(runs) and words[-1] in SIGNS and not run[-1].isspace():
            occur = SIGNS[words.pop()]  # a sign right before a quote
        for word in words:
            if len(word) > 1 and word[0] in SIGNS:
                yield SIGNS[word[0]], word[1:], False
            else:
                yield _text.SHOULD, word, False
