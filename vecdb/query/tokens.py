"""Of which words, names, values and signs does a filter's text consist?

Tokens are cut one at a time, when the parser asks: a text that goes wrong early costs little.

Invariants:
  K1  every text ends: in a token "end", or in a FilterError whose offset lies in the text or at
      its end;
  K2  a token's value is exact: an int of any size that a filter may have, the float that Python
      reads, a string with doubled quotes undone, a field's whole dotted name.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple, NoReturn

from vecdb.errors import FilterError
from vecdb.query import operand, words

Kind = Literal["word", "name", "string", "number", "sign", "end"]

MAX_CHARS: Final = 1 << 20
MAX_DIGITS: Final = operand.MAX_INT_BITS * 3 // 10 + 10

MAX_PARTS: Final = 1_000  # of a field's name, with dots between them
_SPACE: Final = re.compile(r"\s*")
_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|(?:inf|nan)\b)", re.ASCII | re.IGNORECASE
)
_SIGN: Final = re.compile(r"==|!=|<>|<=|>=|[=<>(),]")
_FOREIGN: Final = {  # what other languages write, and what is written here
    "===": "==",
    "=>": ">=",
    "=<": "<=",
    "=~": "like",
    "&&": "and",
    "&": "and",
    "||": "or",
    "|": "or",
    "!": "not",
    "~": "not",
    "[": "( ), as in lang in ('en', 'fr')",
    "]": "( ), as in lang in ('en', 'fr')",
    "{": "( )",
    "}": "( )",
    ";": "and, or or",
    "`": "a name without quotes, or in double ones",
}
_FOREIGN_FIRST: Final = frozenset(each[0] for each in _FOREIGN)
_QUOTED: Final = {  # possessive: what was read is not looked at again
    quote: re.compile(f"{quote}(?:[^{quote}]+|{quote}{quote})*+{quote}") for quote in "'\""
}


class Token(NamedTuple):
    """A piece of text: what it is, what it means, where it begins and ends."""

    kind: Kind
    value: Any
    at: int
    end: int


class Tokens:
    """The tokens of one text; `now` is the one to be looked at."""

    __slots__ = ("before", "now", "text")

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARS:
            raise FilterError(
                f"the filter text has {len(text):,} characters; the limit is {MAX_CHARS:,}",
                offset=MAX_CHARS,
            )
        self.text = text
        self.before: Token | None = None
        self.now = self._cut(0)

    def advance(self) -> Token:
        """Return the current token and move to the next."""
        token = self.now
        if token.kind != "end":
            self.now = self._cut(token.end)
            self.before = token
        return token

    def written(self, token: Token) -> str:
        """Return a token as it stands in the text, shortened, for a message."""
        text = self.text[token.at : token.end]
        return (
            "the end" if token.kind == "end" else text if len(text) <= 40 else text[:37] + "..."
        )

    def refuse(self, at: int, why: str) -> NoReturn:
        """Raise the error of this place in the text."""
        near = self.text[max(at - 20, 0) : at + 20]
        raise FilterError(f"filter text, character {at}, near {near!r}: {why}", offset=at)

    # --- cutting --------------------------------------------------------------------------

    def _cut(self, start: int) -> Token:
        text = self.text
        space = _SPACE.match(text, start)
        at = start if space is None else space.end()
        if at == len(text):
            return Token("end", "", at, at)
        first = text[at]
        if first in "(),":
            return Token("sign", first, at, at + 1)
        if first == "'":
            value, end = self._quoted(at)
            return Token("string", value, at, end)
        if first == '"' or words.PART.match(text, at):
            return self._name(at)
        for foreign, ours in _FOREIGN.items() if first in _FOREIGN_FIRST else ():
            if text.startswith(foreign, at):
                if foreign != "!" or not text.startswith("!=", at):
                    self.refuse(at, f"{foreign} is not of this language; write {ours}")
        number = _NUMBER.match(text, at)
        if number is not None:
            return self._number(at, number.end())
        sign = _SIGN.match(text, at)
        if sign is None:
            self.refuse(at, f"the character {first!r} means nothing here")
        return Token("sign", sign.group(), at, sign.end())

    def _name(self, at: int) -> Token:
        """A word, or a field: parts with dots between them, each bare or in double quotes."""
        text, parts, start = self.text, [], at
        while True:
            bare = words.PART.match(text, at)
            if bare is not None:
                parts.append(bare.group())
                at = bare.end()
            elif text.startswith('"', at):
                part, at = self._quoted(at)
                parts.append(part)
            else:
                self.refuse(
                    at, "after the dot a name is missing; what is no word goes in double quotes"
                )
            if not text.startswith(".", at):
                break
            if len(parts) == MAX_PARTS:
                self.refuse(start, f"a field's name of more than {MAX_PARTS:,} parts")
            at += 1
        if len(parts) == 1 and text[start] != '"':
            word = words.word(parts[0])
            if word is not None:
                return Token("word", word, start, at)
        if len(parts) > 1 and parts[0] == "F" and text[start] == "F":
            self.refuse(
                start,
                f"in text a field goes without F: {'.'.join(parts[1:])}; one that is really "
                f"called so is written {words.quoted('.'.join(parts), chr(34))}",
            )
        return Token("name", ".".join(parts), start, at)

    def _quoted(self, at: int) -> tuple[str, int]:
        """What stands in quotes, and where it ends."""
        quote = self.text[at]
        found = _QUOTED[quote].match(self.text, at)
        if found is None:
            self.refuse(at, f"this {quote} is never closed; inside quotes it is doubled")
        return found.group()[1:-1].replace(quote * 2, quote), found.end()

    def _number(self, at: int, end: int) -> Token:
        written = self.text[at:end]
        after = words.PART.match(self.text, end)
        if after is not None or self.text.startswith(("_", "."), end):
            self.refuse(
                end,
                "a number goes on as no number can; strings are in 'single' quotes, "
                'names that begin with a digit in "double" ones',
            )
        if written.lstrip("+-").isdigit():
            if len(written) > MAX_DIGITS:
                self.refuse(
                    at, f"an int of {len(written):,} digits; the limit is {MAX_DIGITS:,}"
                )
            return Token("number", int(written), at, end)
        value = float(written)
        if value in (float("inf"), float("-inf")) and "n" not in written.lower():
            self.refuse(at, "larger than any float; the infinities are written inf and -inf")
        return Token("number", value, at, end)
