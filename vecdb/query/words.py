"""Which words does the text notation have, and which one did a user mean?

Invariants:
  X1  a reserved word is never a field name without quotes; a soft word is one wherever a field
      belongs, so that a field called `datetime` needs none;
  X2  what `name` writes, the parser reads as the same field: parts that it could misread are
      quoted.

Words are taken in any case (`AND`), field names are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

RESERVED: Final = frozenset(
    "and or not in between is null like contains startswith exists true false".split()
)
SOFT: Final = frozenset("any all datetime within matches inf nan".split())

PART: Final = re.compile(r"[^\W\d]\w*")


def word(text: str) -> str | None:
    """Return the word of the language that this is, in small letters; None when it is none."""
    small = text.lower()
    return small if text.isascii() and (small in RESERVED or small in SOFT) else None


def name(field: str) -> str:
    """Return a field as text notation writes it: year, a.b or "any name"."""
    parts = field.split(".")
    if all(PART.fullmatch(part) and word(part) is None for part in parts):
        if parts[0] != "F" or len(parts) == 1:
            return field
    return quoted(field, '"')


def quoted(text: str, quote: str) -> str:
    """Return a text in quotes, in which the quote itself is doubled."""
    return quote + text.replace(quote, quote + quote) + quote


def meant(found: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the known word that a misspelt one resembles, else ""."""
    from difflib import get_close_matches  # here: for messages only

    bare = found.strip("$_ ").replace("_", "").lower()[:40]
    by_bare = {each.strip("$").replace("_", "").lower(): each for each in known}
    close = get_close_matches(bare, by_bare, 1, 0.6)
    return f"; did you mean {by_bare[close[0]]}?" if close else ""
