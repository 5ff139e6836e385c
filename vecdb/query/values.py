"""What are queries and boosts made of? Values, and what may be given for one.

A `Value` is what its fields are: immutable, hashable, comparable, shown as it is written. The functions
check what a user gave for a field, in words that name the argument, and return it as a value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final, NoReturn

from vecdb.errors import InvalidArgument
from vecdb.query.numbers import Numbers, given_numbers

MAX_EXAMPLES: Final = 1_000
MAX_TEXT_CHARS: Final = 1 << 20
MAX_WEIGHTS: Final = 20_000
MAX_RANKED: Final = 100_000  # a depth, at most
MAX_WEIGHT: Final = 1e30  # of a part, a field or a boost: so that scores stay finite


class Value:
    """Something immutable that is what its fields are."""

    __slots__ = ("_hash",)
    _hash: int
    _names: ClassVar[tuple[str, ...]] = ()
    _first: ClassVar[int] = 1  # so many fields are shown without their names

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._names)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a {type(self).__name__} never changes: make another one")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} never changes: make another one")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self._fields(), other._fields()
        return mine == theirs and _kinds(mine) == _kinds(theirs)

    def __hash__(self) -> int:
        try:
            found = self._hash
        except AttributeError:
            found = hash((type(self).__name__, self._fields()))
            object.__setattr__(self, "_hash", found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), dict(zip(self._names, self._fields(), strict=True)))

    def __repr__(self) -> str:
        usual = self._usual()
        shown = []
        for at, (name, value) in enumerate(zip(self._names, self._fields(), strict=True)):
            if name in usual and value == usual[name]:
                continue
            written = shown_as(value)
            shown.append(written if at < self._first else f"{name}={written}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def _usual(self) -> Mapping[str, Any]:
        return {}


def _remade(kind: type[Value], fields: dict[str, Any]) -> Value:
    made = kind.__new__(kind)
    made._set(**fields)
    return made


def _kinds(value: Any) -> Any:
    """Whether numbers are ints, floats or bools: 1, 1.0 and True are equal to Python, and no ids here."""
    if isinstance(value, tuple):
        return tuple(map(_kinds, value))
    return type(value).__name__ if isinstance(value, bool | int | float) else None


def shown_as(value: Any) -> str:
    if isinstance(value, tuple) and value and all(isinstance(each, Frozen) for each in value):
        return "{" + ", ".join(f"{each[0]!r}: {each[1]!r}" for each in value[:8]) + _more(value, 8) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(shown_as, value[:8])) + _more(value, 8) + "]"
    if isinstance(value, str) and len(value) > 80:
        return repr(value[:79] + "…")
    if callable(value) and not isinstance(value, Value):
        return str(getattr(value, "__name__", type(value).__name__))
    return repr(value)


def _more(value: tuple[Any, ...], shown: int) -> str:
    return f", … {len(value) - shown:,} more" if len(value) > shown else ""


class Frozen(tuple[Any, Any]):
    """One entry of a mapping, as a value."""

    __slots__ = ()


class ById(Value):
    """The row with this id, as an example: "more like this". The row itself is left out of the hits.

    >>> import vecdb
    >>> from vecdb.query import Near
    >>> c = vecdb.open().create_collection("c", dim=2)
    >>> _ = c.add(["a", "b", "c"], [[1, 0], [1, 0.1], [0, 1]])
    >>> c.search(Near(vecdb.ById("a"))).ids
    ['b', 'c']
    """

    __slots__ = ("id",)
    _names = ("id",)
    id: str | int

    def __init__(self, id: Any) -> None:
        self._set(id=given_id("ById", id))


# --- what is given -------------------------------------------------------------------------------


def given_example(where: str, value: Any, *, ids: bool = False) -> Any:
    """A vector, a text or a ById; `ids`: an int is one, too."""
    if isinstance(value, ById):
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS:
            refuse(f"{where}: a text of {len(value):,} characters; the limit is {MAX_TEXT_CHARS:,}")
        return given_text(where, value)
    if isinstance(value, int) or (hasattr(value, "item") and not getattr(value, "shape", None)):
        if ids:
            return ById(value)
        refuse(f"{where}: {value!r:.40} is a number; give a vector, a text, or vecdb.ById({value!r:.40})")
    return given_numbers(where, value, (1,))


def given_examples(where: str, values: Any) -> tuple[Any, ...]:
    """A list of examples; a single one is a list of one."""
    values = scalar_of(values)
    if isinstance(values, str | int | ById) or _is_vector(values):
        values = [values]
    if not hasattr(values, "__iter__") or isinstance(values, bytes | bytearray | memoryview | Mapping):
        refuse(f"{where} is a {type(values).__name__}; give a list of ids, vectors or texts")
    found = []
    for at, each in enumerate(values):
        if at >= MAX_EXAMPLES:
            refuse(f"{where} has more than {MAX_EXAMPLES:,} examples")
        found.append(given_example(f"{where}: item {at}", each, ids=True))
    return tuple(found)


def listed_of(values: Any) -> list[Any] | None:
    """What stands in an order, as a list: None for texts, bytes, sets and mappings."""
    if isinstance(values, list | tuple):
        return list(values)
    return list(values) if len(getattr(values, "shape", ())) > 0 else None


def _is_vector(values: Any) -> bool:
    """An array (d,), or a list of floats: not a list of ids, which are ints."""
    if isinstance(values, Numbers):
        return True
    shape = getattr(values, "shape", None)
    if shape is not None:
        return len(shape) == 1
    return isinstance(values, list | tuple) and bool(values) and any(type(v) is float for v in values)


def scalar_of(value: Any) -> Any:
    """A numpy scalar, or an array without dimensions, as Python has it; anything else as it is."""
    if isinstance(value, str | int | float) or not hasattr(value, "item") or getattr(value, "shape", None):
        return value
    return value.item()


def given_id(where: str, id: Any) -> str | int:
    """An id as Python has it."""
    id = scalar_of(id)
    if isinstance(id, bool) or not isinstance(id, str | int):
        refuse(f"{where}: {id!r:.60} is a {type(id).__name__}; an id is a str or an int")
    return given_text(where, id) if isinstance(id, str) else int(id)


def given_text(where: str, text: str) -> str:
    """A text that can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        refuse(f"{where}: a lone surrogate at position {error.start}; it is no text")
    return str(text)


def given_name(where: str, name: Any, *, needed: bool = False) -> Any:
    """A name, or None where none is needed."""
    if name is None and not needed:
        return None
    if not isinstance(name, str) or not name:
        refuse(f"{where}={name!r:.60}: give a name")
    return given_text(where, name)


def given_number(where: str, value: Any) -> float:
    """A finite number."""
    value = scalar_of(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{where}={value!r:.40}: give a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        refuse(f"{where}={value!r:.40}: give a finite number")
    return found


def given_weight(where: str, value: Any) -> float:
    """A number that scores can be multiplied by, and stay finite."""
    found = given_number(where, value)
    if abs(found) > MAX_WEIGHT:
        refuse(f"{where}={value!r:.40}: give a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
    return found


def given_weights(where: str, weights: Any, kinds: Any) -> tuple[Any, ...]:
    """A mapping as entries in a settled order."""
    if not isinstance(weights, Mapping):
        refuse(f"{where} is a {type(weights).__name__}; give a dict")
    if len(weights) > MAX_WEIGHTS:
        refuse(f"{where} has {len(weights):,} entries; the limit is {MAX_WEIGHTS:,}")
    found = []
    for key, weight in weights.items():
        key = scalar_of(key)
        if isinstance(key, bool) or not isinstance(key, kinds):
            refuse(f"{where}: {key!r:.60} is a {type(key).__name__} where a name belongs")
        if isinstance(key, str):
            given_text(where, key)
        elif not -(1 << 63) <= key < 1 << 63:
            refuse(f"{where}: a token of more than 64 bits; give an int of 64 bits, or a str")
        found.append(Frozen((key, given_number(f"{where}: {key!r:.60}", weight))))
    return tuple(sorted(found, key=lambda entry: (isinstance(entry[0], str), entry[0])))


def given_depth(where: str, depth: Any) -> int | None:
    """How many of the best count."""
    if depth is None:
        return None
    depth = scalar_of(depth)
    if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= MAX_RANKED:
        refuse(f"{where}: depth={depth!r:.40}: give an int from 1 to {MAX_RANKED:,}")
    return depth


def one_of(where: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Refuse what is none of these."""
    if not isinstance(value, str) or value not in allowed:
        refuse(f"{where}={value!r:.40}: choose one of {', '.join(map(repr, allowed))}")


def refuse(message: str) -> NoReturn:
    """Raise InvalidArgument."""
    raise InvalidArgument(message)
