"""How does `F` turn Python expressions into filters?

    F.year >= 1990        F["any name"] == "x"        F.a.b.exists()        F.lang.isin(["en"])

Invariants:
  B1  every way to write a filter ends in the same checks (operand.py): nothing unchecked can
      reach the tree;
  B2  what Python would quietly misread raises FilterError: `and`, `in`, chained comparisons,
      `&` without brackets, calling a method that does not exist.

Rejected: lambdas whose source or bytecode is read. They break under every decorator.
"""

from __future__ import annotations

from typing import Any, NoReturn

from vecdb.errors import FilterError
from vecdb.query import operand, show, words
from vecdb.query.clauses import (
    Between,
    Compare,
    Contains,
    Exists,
    In,
    IsNull,
    Like,
    Matches,
    StartsWith,
    Within,
)
from vecdb.query.nodes import Filter


class Field:
    """A metadata field inside a filter expression: `F.year`, `F["any name"]`, `F.a.b`.

    Comparisons and the methods below make filters. Names of methods, and names that start with
    two underscores, are reached with brackets: `F["exists"]`.
    """

    __slots__ = ("_name",)
    _name: str
    __array_ufunc__ = None  # numpy scalars on the left side leave the comparison to us

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def exists(self) -> Filter:
        """Return a filter: the field is there and not None."""
        return Exists(self._name)

    def is_null(self) -> Filter:
        """Return a filter: the field is missing or None."""
        return IsNull(self._name)

    def isin(self, values: Any) -> Filter:
        """Return a filter: the value equals one of these; none match an empty list."""
        return In(self._name, operand.alternatives(values, "isin", self._name))

    def between(self, low: Any, high: Any) -> Filter:
        """Return a filter: `low <= value <= high`."""
        return Between(
            self._name,
            operand.scalar(low, "between", self._name),
            operand.scalar(high, "between", self._name),
        )

    def contains(self, value: Any) -> Filter:
        """Return a filter: the field is a list that has this value."""
        return Contains(
            self._name, "contains", (operand.scalar(value, "contains", self._name),)
        )

    def contains_any(self, values: Any) -> Filter:
        """Return a filter: the field is a list that has at least one of these."""
        wanted = operand.alternatives(values, "contains_any", self._name)
        return Contains(self._name, "contains any", wanted)

    def contains_all(self, values: Any) -> Filter:
        """Return a filter: the field is a list that has all of these (of none: any list)."""
        wanted = operand.alternatives(values, "contains_all", self._name)
        return Contains(self._name, "contains all", wanted)

    def startswith(self, prefix: str) -> Filter:
        """Return a filter: the string begins with this, case-sensitive."""
        return StartsWith(self._name, operand.text(prefix, "startswith", self._name))

    def like(self, pattern: str) -> Filter:
        """Return a filter: the whole string matches, where `%` is any run of characters, `_` is
        one, and a backslash makes the next character mean itself; case-sensitive."""
        return Like(self._name, operand.pattern(pattern, self._name))

    def within(self, lat: float, lon: float, km: float) -> Filter:
        """Return a filter: the field is a place, a list [lat, lon] in degrees, at most so far
        away along the great circle."""
        return Within(self._name, *operand.place(lat, lon, km, self._name))

    def matches(self, words: str) -> Filter:
        """Return a filter: the field, declared with full text, has every one of these words; "words
        in quotes" are a phrase, word* a prefix, -word is excluded."""
        return Matches(self._name, operand.wanted(words, self._name))

    def __eq__(self, other: object) -> Filter:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: object) -> Filter:  # type: ignore[override]
        return self._compare("!=", other)

    def __lt__(self, other: object) -> Filter:
        return self._compare("<", other)

    def __le__(self, other: object) -> Filter:
        return self._compare("<=", other)

    def __gt__(self, other: object) -> Filter:
        return self._compare(">", other)

    def __ge__(self, other: object) -> Filter:
        return self._compare(">=", other)

    def __getattr__(self, name: str) -> Field:
        return Field(f"{self._name}.{_attribute(name)}")

    def __getitem__(self, name: str) -> Field:
        return Field(f"{self._name}.{_text(name)}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FilterError(f"{self!r} is a field in a filter; to compare, write {self!r} == ...")

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        known = ", ".join(f".{name}()" for name in show.METHODS)
        hint = words.meant(self._name.rpartition(".")[2], show.METHODS)
        raise FilterError(
            f"{self!r} cannot be called{hint}; a field has {known} and comparisons"
        )

    def __bool__(self) -> NoReturn:
        raise FilterError(
            f"{self!r} has no truth value; compare it, or write {self!r}.exists(), and combine "
            "filters with &, | and ~"
        )

    def __contains__(self, value: object) -> NoReturn:
        raise FilterError(
            f"Python's in cannot make a filter; for alternatives: {self!r}.isin([...]), for "
            f"elements of a list: {self!r}.contains(...)"
        )

    def __iter__(self) -> NoReturn:
        raise FilterError(f"{self!r} is a field in a filter, not a list")

    def __and__(self, other: object) -> NoReturn:
        raise FilterError(
            f"& and | combine filters, and {self!r} is a field; they bind tighter than "
            "comparisons: write (F.a == 1) & (F.b == 2)"
        )

    __rand__ = __or__ = __ror__ = __and__

    def __invert__(self) -> NoReturn:
        raise FilterError(f"~ is the opposite of a filter, and {self!r} is a field: compare it")

    def __hash__(self) -> NoReturn:
        raise FilterError(
            f"{self!r} cannot be a dict key; in dict notation: {{{self._name!r}: ...}}"
        )

    def __repr__(self) -> str:
        return show.field(self._name)

    def __reduce__(self) -> tuple[type[Field], tuple[str]]:
        return Field, (self._name,)

    def _compare(self, symbol: str, other: object) -> Filter:
        if isinstance(other, Field | Filter):
            raise FilterError(
                f"{self!r} is compared with {other!r}; a field is compared with a value, not "
                "with another field or filter"
            )
        return Compare(self._name, symbol, operand.scalar(other, symbol, self._name))


class Fields:
    """The type of `F`: gives out fields by attribute or by name in brackets."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Field:
        return Field(_attribute(name))

    def __getitem__(self, name: str) -> Field:
        return Field(_text(name))

    def __iter__(self) -> NoReturn:
        raise FilterError(
            "F gives fields by name, F.year or F['any name'], and has no list of them"
        )

    def __contains__(self, name: object) -> NoReturn:
        self.__iter__()

    def __repr__(self) -> str:
        return "F"


F = Fields()


def _attribute(name: str) -> str:
    """Refuse names that Python and its tools look up on every object."""
    if name.startswith(("__", "_repr_", "_ipython_")):
        raise AttributeError(f"{name}: for a field of this name write F[{name!r}]")
    return name


def _text(name: object) -> str:
    if isinstance(name, str):
        return str.__str__(name)
    raise FilterError(f"a field is named by a str, not by {operand.shown(name)}")
