"""What does a text that somebody searches for ask of a collection's columns?

`asked` reads the text (text/grammar.py) and makes of each of its parts what the part asks of each column:
a term, a prefix, or a phrase; `clauses` turns that into what `_text.View` takes, at one commit. The same
words are asked by `Text` queries, where any word counts, and by `matches` filters, where every word must.

A column's own analysis says what a word is: where a stemmer is at work "kernels" asks for "kernel", a stop
word asks nothing, and a word that the analysis cuts in several (bigrams) is a phrase.

Invariants:
  Q1  a part that asks nothing of any column (a stop word, a sign) is as if it were not there; a text of
      such parts alone matches nothing;
  Q2  phrases are decided by the texts themselves: candidates have all of the phrase's terms, and what
      they say is analysed again, element by element of lists. No positions are kept;
  Q3  how often a phrase is in a row, and in how many rows it is, does not depend on a filter.

Costs of a phrase: its candidates' texts are read and analysed, some 10 us each; the last ones are kept.
Rejected: positions in the postings. They double them, for the few queries that have quotes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb._core import _text
from vecdb.errors import InvalidArgument
from vecdb.index.columns import Columns, metadata_in, text_in
from vecdb.index.texts import Words
from vecdb.index.view import bitmap_of
from vecdb.storage import rows
from vecdb.text import grammar

AT_ONCE: Final = 1024  # candidates of a phrase that are read at a time
REMEMBERED: Final = 1000  # characters of a text that is read once
MAX_ASKED: Final = 4_096  # words of a query, each counted for each of its fields
MANY: Final = 1_000  # tokens of a sparse query
MOST_PHRASES: Final = 64  # kept at a commit
FREE_PHRASES: Final = 16  # of a text, however common their words are
MOST_READ: Final = 200_000  # rows, for the others of a text: a second's work

TERM, PREFIX, PHRASE = grammar.TERM, grammar.PREFIX, grammar.PHRASE
SHOULD, MUST, NOT = _text.SHOULD, _text.MUST, _text.NOT


class Leg(NamedTuple):
    """What a part asks of one column."""

    column: int
    kind: str
    terms: tuple[bytes, ...]  # a prefix: it, and the term that counts besides
    gaps: tuple[int, ...] = ()  # of a phrase


class Part(NamedTuple):
    """One word, phrase or prefix of the text."""

    shown: str
    occur: int
    legs: tuple[Leg, ...]


def asked(columns: Columns, chosen: tuple[int, ...], text: str, *, every: bool) -> tuple[Part, ...]:
    """The parts of a text that ask something of the chosen columns; `every`: all of them must be there."""
    return (_asked_lately if len(text) <= REMEMBERED else _asked)(columns, chosen, text, every)


def _asked(columns: Columns, chosen: tuple[int, ...], text: str, every: bool) -> tuple[Part, ...]:
    found = []
    for item in grammar.parse(text).parts:
        legs = tuple(leg for at in chosen if (leg := _leg(columns, at, item)) is not None)
        if legs:
            occur = item.occur
            if every and occur == SHOULD:
                occur = MUST
            found.append(Part(item.shown, occur, legs))
    if sum(len(part.legs) for part in found) > MAX_ASKED:
        raise InvalidArgument(
            f"the text asks for {len(found):,} words of {len(chosen)} fields; the limit is {MAX_ASKED:,} in "
            "all: ask for those that matter"
        )
    return tuple(found)


_asked_lately = lru_cache(maxsize=256)(_asked)


def _leg(columns: Columns, at: int, item: grammar.Part) -> Leg | None:
    """What a part asks of a column; None for nothing."""
    found = grammar.asked(item, columns.listed[at].analysis.analyzer)
    return None if found is None else Leg(at, found.kind, found.terms, found.gaps)


# --- at a commit --------------------------------------------------------------------------


def clauses(words: Words, txn: Any, parts: Sequence[Part], weights: Sequence[float]) -> list[Any]:
    """The parts as `_text.View` takes them; `weights`: one a column. What is asked twice is read once."""
    known: dict[Leg, Any] = {}
    read = 0  # rows, for all phrases but the first few

    def made(leg: Leg) -> Any:
        nonlocal read
        if leg.kind != PHRASE:
            return core_leg(words, txn, leg, weights[leg.column])
        found = known.get(leg)
        if found is None:
            if len(known) >= FREE_PHRASES and leg not in words.phrases:
                read += len(_candidates(words, txn, leg))
                if read > MOST_READ:
                    raise InvalidArgument(
                        f"the text has so many phrases of common words that more than {MOST_READ:,} rows "
                        f"had to be read for them: ask for at most {FREE_PHRASES} phrases, or for rarer ones"
                    )
            found = known[leg] = core_leg(words, txn, leg, weights[leg.column])
        return found

    return [(part.occur, [made(leg) for leg in part.legs]) for part in parts]


def core_leg(words: Words, txn: Any, leg: Leg, weight: float) -> tuple[int, float, int, Any]:
    """One leg as `_text.View` takes it."""
    if leg.kind == TERM:
        return leg.column, weight, _text.TERM, leg.terms[0]
    if leg.kind == PREFIX:
        payload: Any = leg.terms[0] if len(leg.terms) == 1 else leg.terms
        return leg.column, weight, _text.PREFIX, payload
    return leg.column, weight, _text.LIST, phrase(words, txn, leg)


def sparse(
    words: Words, txn: Any, number: int, weights: Sequence[tuple[str | int, float]]
) -> list[Any]:
    """The tokens of a sparse query in the order of its weights; those that no row can have are left out.

    Of very many also those that no row has: there are fewer to be asked then.
    """
    column, load, many = words.columns.column_of(number), words.loader(txn), len(weights) > MANY
    found: list[Any] = []
    for token, weight in weights:
        try:
            term = _text.token(token)
        except ValueError:
            continue
        if many and not words.ask("df", column, term, load):
            continue
        found.append((SHOULD, [(column, weight, _text.TERM, term)]))
    return found


def phrase(words: Words, txn: Any, leg: Leg) -> tuple[Any, Any]:
    """The rows that have a phrase in a column, ascending, and how often (Q2)."""
    known = words.phrases.get(leg)
    if known is not None:
        return known
    found = _candidates(words, txn, leg)
    counts = np.zeros(len(found), np.uint32)
    for first in range(0, len(found), AT_ONCE):
        some = found[first : first + AT_ONCE]
        counts[first : first + AT_ONCE] = _counted(words, txn, leg, some.tolist())
    made = found[counts > 0], counts[counts > 0]
    if len(words.phrases) >= MOST_PHRASES:
        words.phrases.clear()
    words.phrases[leg] = made
    return made


def _candidates(words: Words, txn: Any, leg: Leg) -> Any:
    """The rows that have all of a phrase's terms in a column, ascending."""
    wanted = [(MUST, [(leg.column, 1.0, _text.TERM, term)]) for term in dict.fromkeys(leg.terms)]
    return np.frombuffer(words.ask("match", wanted, words.loader(txn)), np.uint32)


def _counted(words: Words, txn: Any, leg: Leg, rids: list[int]) -> Any:
    """How often each row has a phrase, elements of lists apart."""
    columns, analyzer = words.columns, words.columns.listed[leg.column].analysis.analyzer
    _, payloads = rows.read_many(txn.get, words.cid, rids)
    texts: list[Any] = []
    owners: list[int] = []
    for at, payload in enumerate(payloads):
        if columns.listed[leg.column].is_text:
            elements = columns.elements(leg.column, text_in(payload), {})
        else:
            elements = columns.elements(leg.column, None, metadata_in(payload))
        texts += elements
        owners += [at] * len(elements)
    found = np.frombuffer(analyzer.phrase_counts(texts, leg.terms, leg.gaps), np.uint32)
    return np.bincount(owners, found, len(rids)).astype(np.uint32)


def matching(words: Words, txn: Any, field: str, wanted: str) -> BitMap:
    """The rows whose field has all the words that a filter wants."""
    at = words.columns.by_name[field]
    parts = asked(words.columns, (at,), wanted, every=True)
    if not any(part.occur == MUST for part in parts):
        return BitMap()
    asks = clauses(words, txn, parts, [1.0] * len(words.columns.listed))
    return bitmap_of(words.ask("match", asks, words.loader(txn)))


def says(columns: Columns, field: str, wanted: str) -> Callable[[Any], bool]:
    """Whether a value of the field has all the words, by the value alone: what `matching` says of rows."""
    at = columns.by_name[field]
    parts = asked(columns, (at,), wanted, every=True)

    def holds(value: Any) -> bool:
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        texts = [each for each in texts if isinstance(each, str)]
        here = [(part.occur, _has(columns, part.legs[0], texts)) for part in parts]
        if not any(occur == MUST for occur, _ in here):
            return False
        return all(has == (occur != NOT) for occur, has in here)

    return holds


def _has(columns: Columns, leg: Leg, texts: list[str]) -> bool:
    """Whether any of a value's texts has what a part asks."""
    analyzer = columns.listed[leg.column].analysis.analyzer
    if leg.kind == PHRASE:
        return any(analyzer.phrase_count(text, leg.terms, leg.gaps) for text in texts)
    terms = {term for text in texts for term, _ in analyzer.terms(text)}
    if leg.kind == TERM:
        return leg.terms[0] in terms
    return leg.terms[-1] in terms or any(term.startswith(leg.terms[0]) for term in terms)
