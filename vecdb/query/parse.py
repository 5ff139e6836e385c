"""How does text become a filter?

    year >= 1999 and lang in ('en', 'fr') and not (tags contains 'draft' or title like '%old%')

    either  = both { "or" both }                both = one { "and" one }
    one     = { "not" } ( "(" either ")" | "true" | "false" | clause )
    clause  = field compare value               compare: == = != <> < <= > >=
            | field ["not"] "between" value "and" value
            | field ["not"] "in" list           list = "(" [ value { "," value } ] ")"
            | field ["not"] "contains" ( value | "any" list | "all" list )
            | field ["not"] ( "startswith" | "like" ) string
            | field "exists" | field "is" ["not"] "null"
            | "within" "(" field "," latitude "," longitude "," km ")"
            | "matches" "(" field "," string ")"
    field   = part { "." part }                 part: a word, or anything in "double quotes"
    value   = 'string' | number | inf | nan | true | false | datetime '2020-01-01T00:00Z'

Words of the language are taken in any case; a quote within quotes is doubled.

Invariants:
  R1  the result is the tree that `F` makes of the same expression, and parse(str(f)) == f;
  R2  whatever the text is, the outcome is a filter or a FilterError whose offset lies in it;
  R3  brackets, clauses and alternatives are counted as they come: no text makes a tree that is
      then refused, and none meets Python's limit of recursion.

Rejected: Python's own grammar (`ast`). It has `&` where people write `and`, no `between`, no
`like`, and chained comparisons that would have to be explained away.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar

from vecdb.errors import FilterError
from vecdb.query import operand, words
from vecdb.query.clauses import (
    Between,
    Compare,
    Contains,
    Exists,
    How,
    In,
    IsNull,
    Like,
    Matches,
    StartsWith,
    Within,
)
from vecdb.query.nodes import MAX_CLAUSES, MAX_DEPTH, And, Filter, all_of, any_of
from vecdb.query.operand import Scalar
from vecdb.query.tokens import Token, Tokens

T = TypeVar("T")

_COMPARES: Final = {"=": "==", "<>": "!=", **{sign: sign for sign in operand.OPERATORS}}
_INFIX: Final = ("in", "between", "contains", "startswith", "like")
_OPERATORS: Final = (*_INFIX, "exists", "is")
_FUNCTIONS: Final = "within(field, lat, lon, km), matches(field, 'words')"
_KNOWN: Final = f"{' '.join(operand.OPERATORS)} {', '.join(_OPERATORS)}"


def parse(text: str) -> Filter:
    """Return the filter that text notation describes; FilterError with the offset where not.

    >>> from vecdb.query import parse
    >>> parse("year >= 1999 and lang in ('en', 'fr')")
    (F.year >= 1999) & F.lang.isin(['en', 'fr'])
    """
    if not isinstance(text, str):
        raise FilterError(f"parse takes a str, not {operand.shown(text)}")
    return _Parser(Tokens(str.__str__(text))).whole()


class _Parser:
    """One text on its way to a filter."""

    __slots__ = ("_brackets", "_clauses", "_tokens")

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._brackets = 0
        self._clauses = 0

    def whole(self) -> Filter:
        if self._ended():
            self._refuse(self._now, "no filter; every row is written true, or {} as a dict")
        found = self._either()
        if not self._ended():
            self._refuse(self._now, self._astray())
        return found

    # --- combinations ---------------------------------------------------------------------

    def _either(self) -> Filter:
        start = self._now
        parts = [self._both()]
        while self._takes("word", "or"):
            parts.append(self._both())
        return self._checked(start, lambda: any_of(parts))

    def _both(self) -> Filter:
        start = self._now
        parts = [self._one()]
        while self._takes("word", "and"):
            parts.append(self._one())
        return self._checked(start, lambda: all_of(parts))

    def _one(self) -> Filter:
        start = self._now
        denied = False
        while self._takes("word", "not"):
            denied = not denied
        token = self._now
        if self._takes("sign", "("):
            self._brackets += 1
            if self._brackets > MAX_DEPTH:
                self._refuse(token, f"brackets are nested deeper than {MAX_DEPTH} levels")
            found = self._either()
            self._needs(")", f"the ( at character {token.at} is not closed")
            self._brackets -= 1
        elif token.kind == "word" and token.value in ("true", "false"):
            self._tokens.advance()
            found = And(()) if token.value == "true" else ~And(())
        else:
            found = self._clause()
        return self._checked(start, lambda: ~found) if denied else found

    # --- clauses --------------------------------------------------------------------------

    def _clause(self) -> Filter:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            self._refuse(
                self._now,
                f"more than {MAX_CLAUSES:,} clauses; alternatives of one field belong in "
                "in (...)",
            )
        field = self._field()
        called = self._tokens.before
        if called is not None and called.kind == "word" and self._takes("sign", "("):
            return self._call(called)
        token = self._now
        if token.kind == "sign" and token.value in _COMPARES:
            self._tokens.advance()
            symbol = _COMPARES[token.value]
            return Compare(field, symbol, self._value(field, symbol))
        if self._takes("word", "not"):
            return ~self._operator(field, _INFIX)
        return self._operator(field, _OPERATORS)

    def _operator(self, field: str, known: tuple[str, ...]) -> Filter:
        token = self._tokens.advance()
        name = token.value
        if token.kind != "word" or name not in known:
            self._refuse(token, self._no_operator(token, field, known))
        if name == "in":
            return In(field, self._list(field, "isin"))
        if name == "between":
            low = self._value(field, "between")
            if not self._takes("word", "and"):
                self._refuse(self._now, "between has the form: x between 1 and 2")
            return Between(field, low, self._value(field, "between"))
        if name == "contains":
            return self._contains(field)
        if name == "startswith":
            return StartsWith(field, self._operand(lambda v: operand.text(v, name, field)))
        if name == "like":
            return Like(field, self._operand(lambda v: operand.pattern(v, field)))
        if name == "exists":
            return Exists(field)
        return self._is(field)

    def _contains(self, field: str) -> Filter:
        for how in ("any", "all"):
            if self._takes("word", how):
                kind: How = "contains any" if how == "any" else "contains all"
                return Contains(field, kind, self._list(field, f"contains_{how}"))
        return Contains(field, "contains", (self._value(field, "contains"),))

    def _is(self, field: str) -> Filter:
        denied = self._takes("word", "not")
        if not self._takes("word", "null"):
            self._refuse(self._now, "is takes null or not null; values are compared with ==")
        return Exists(field) if denied else IsNull(field)

    def _call(self, called: Token) -> Filter:
        if called.value not in ("within", "matches"):
            self._refuse(called, f"{called.value} is no function; known: {_FUNCTIONS}")
        field = self._field()
        if called.value == "matches":
            self._needs(",", "matches takes a field and words in quotes: the words are missing")
            wanted = self._operand(lambda value: operand.wanted(value, field))
            self._needs(")", "matches takes a field and words in quotes, and no more")
            return Matches(field, wanted)
        numbers: list[Any] = []
        for name in ("latitude", "longitude", "km"):
            self._needs(
                ",", f"within takes a field, latitude, longitude, km: {name} is missing"
            )
            numbers.append(self._operand(lambda v: v))
        self._needs(")", "within takes a field, latitude, longitude and km, and no more")
        latitude, longitude, km = numbers
        place = self._checked(called, lambda: operand.place(latitude, longitude, km, field))
        return Within(field, *place)

    def _field(self) -> str:
        token = self._tokens.advance()
        if token.kind == "name" or (token.kind == "word" and token.value in words.SOFT):
            return str(token.value) if token.kind == "name" else self._tokens.written(token)
        written = self._tokens.written(token)
        if token.kind == "word":
            self._refuse(
                token,
                f"a field belongs here, and {written} is a word of the language; a field of "
                f'this name is written "{written}"',
            )
        if token.kind in ("string", "number"):
            self._refuse(
                token,
                f"a field belongs here, not the value {written}: the field comes first, as in "
                "year == 1999; names are bare or in double quotes",
            )
        self._refuse(token, f"a field belongs here, not {written}")

    # --- values ---------------------------------------------------------------------------

    def _value(self, field: str, symbol: str) -> Scalar:
        return self._operand(lambda value: operand.scalar(value, symbol, field))

    def _list(self, field: str, symbol: str) -> tuple[Scalar, ...]:
        self._needs("(", "a list belongs here, in brackets: in ('en', 'fr')")
        values: list[Scalar] = []
        if self._takes("sign", ")"):
            return ()
        while True:
            if len(values) == operand.MAX_ALTERNATIVES:
                self._refuse(
                    self._now,
                    f"more than {operand.MAX_ALTERNATIVES:,} values; store a field that groups "
                    "the rows, or ask in parts",
                )
            values.append(self._value(field, symbol))
            if not self._takes("sign", ","):
                self._needs(")", "a list has commas between its values and ends with )")
                return tuple(values)

    def _operand(self, check: Callable[[Any], T]) -> T:
        token = self._tokens.advance()
        value = self._literal(token)
        return self._checked(token, lambda: check(value))

    def _literal(self, token: Token) -> Any:
        if token.kind in ("string", "number"):
            return token.value
        if token.kind == "word":
            if token.value in ("true", "false"):
                return token.value == "true"
            if token.value in ("inf", "nan"):
                return float(token.value)
            if token.value == "null":
                self._refuse(
                    token, "null is not compared with; write x is null or x is not null"
                )
            if token.value == "datetime":
                return self._moment()
        written = self._tokens.written(token)
        if token.kind == "name":
            bare = token.value if len(token.value) <= 40 else "..."
            self._refuse(
                token,
                f"a value belongs here, and {written} is the name of a field; a string is "
                f"written {words.quoted(bare, chr(39))}",
            )
        self._refuse(token, f"a value belongs here, not {written}")

    def _moment(self) -> datetime:
        token = self._tokens.advance()
        if token.kind != "string":
            self._refuse(token, "a datetime is written datetime '2020-01-01T00:00Z'")
        try:
            return datetime.fromisoformat(token.value)
        except (ValueError, OverflowError) as error:
            self._refuse(token, f"this is no datetime: {error}; write '2020-01-01T00:00Z'")

    # --- tokens ---------------------------------------------------------------------------

    @property
    def _now(self) -> Token:
        return self._tokens.now

    def _ended(self) -> bool:
        return self._now.kind == "end"

    def _takes(self, kind: str, value: str) -> bool:
        if self._now.kind != kind or self._now.value != value:
            return False
        self._tokens.advance()
        return True

    def _needs(self, sign: str, otherwise: str) -> None:
        if not self._takes("sign", sign):
            self._refuse(self._now, otherwise)

    def _checked(self, token: Token, make: Callable[[], T]) -> T:
        """Make something; what is wrong with it has the offset of its token."""
        try:
            return make()
        except FilterError as error:
            if error.offset is not None:
                raise
            self._refuse(token, str(error))

    def _refuse(self, token: Token, why: str) -> NoReturn:
        self._tokens.refuse(token.at, why)

    def _astray(self) -> str:
        """What is wrong with a token after the end of an expression."""
        token, before = self._now, self._tokens.before
        written = self._tokens.written(token)
        if token.kind == "number" and before is not None and before.kind == "number":
            return (
                f"after a number {written} cannot follow; dates: datetime '2020-01-01T00:00Z'"
            )
        if token.kind == "sign" and token.value == ")":
            return "this ) closes nothing"
        if token.kind == "sign" and token.value in _COMPARES:
            return "comparisons are not chained; write x between 1 and 5, or x > 1 and x < 5"
        hint = ""
        if token.kind == "name":
            hint = words.meant(written, ("and", "or"))
        return f"and, or or the end belongs here, not {written}{hint}"

    def _no_operator(self, token: Token, field: str, known: tuple[str, ...]) -> str:
        """What is wrong with a token that should be an operator."""
        shown = field if len(field) <= 40 else field[:37] + "..."
        if token.kind == "end":
            return f"after the field {shown} an operator is missing: {_KNOWN}"
        written = self._tokens.written(token)
        if known is _INFIX:
            return f"after not belongs one of {', '.join(_INFIX)}, not {written}"
        hint = words.meant(written, (*_OPERATORS, "and", "or", "not"))
        if token.kind == "name" and not hint:
            hint = f'; a name of two words is quoted: "{shown} {written}"'
        if token.kind == "sign" and token.value == "(":
            hint = f"; known functions: {_FUNCTIONS}"
        return (
            f"after the field {shown} an operator belongs, not {written}{hint}; known: {_KNOWN}"
        )
