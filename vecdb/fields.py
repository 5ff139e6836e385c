"""What was a metadata field declared to hold, and how shall it be found?

    {"year": int, "tags": list[str], "body": vecdb.Unindexed}      what users write
    {"year": "int", "tags": "list[str]", "body": "Unindexed"}      `plain`: what a schema keeps
    Declared                                                       `declared`: what verbs ask

A field without a declaration takes any value and is indexed, so that declaring is for those who
want values refused, dates read from strings, or an index that is not the usual one.

Invariants:
  D1  None and a missing field never contradict a declaration; a bool is no int, an int is good
      where a float is declared and stays an int, and None is no element of a list[T];
  D2  a declaration says nothing of other fields, but `Unindexed` covers everything inside it;
  D3  equal declarations have equal plain forms: Indexed(int) is int, Unindexed() is Unindexed.

Rejected: converting values to the declared type. "1990" would be stored as 1990 in one
collection and as it is in the next, and what was given could not be had back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn, get_args, get_origin

from vecdb.errors import InvalidArgument, SchemaError

MAX_DECLARED: Final = 1_000


# --- what users write --------------------------------------------------------------------


class Geo:
    """A place: a list of two numbers, latitude from -90 to 90 and longitude from -180 to 180.

    >>> import vecdb
    >>> from vecdb import F
    >>> c = vecdb.open().create_collection("c", dim=2, fields={"place": vecdb.Geo})
    >>> _ = c.add("munich", [1, 0], metadata={"place": (48.14, 11.58)})
    >>> c["munich"].metadata, c.count(F.place.within(48, 11.5, 100))
    ({'place': [48.14, 11.58]}, 1)
    """


@dataclass(frozen=True, slots=True)
class Indexed:
    """A field of one type; `substring=True`, for str: `like '%x%'` is found by its trigrams.

    The substring index serves every pattern with a run of at least three characters, and costs an
    entry for each different run of three characters of a row's string.

    >>> import vecdb
    >>> from vecdb import F
    >>> title = vecdb.Indexed(str, substring=True)
    >>> c = vecdb.open().create_collection("c", dim=2, fields={"title": title})
    >>> _ = c.add(["a", "b"], metadata=[{"title": "Blade Runner"}, {"title": "Alien"}])
    >>> c.count(F.title.like("%run%")), c.count(F.title.like("%Run%"))
    (0, 1)
    """

    type: Any
    substring: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Partition:
    """A field of one scalar type that most searches stay within: a tenant, a folder.

    >>> import vecdb
    >>> c = vecdb.open().create_collection("c", dim=2, fields={"studio": vecdb.Partition(str)})
    >>> c.schema.fields
    {'studio': 'Partition(str)'}
    """

    type: Any


@dataclass(frozen=True, slots=True)
class Unindexed:
    """A field that no index is kept for, nor for what is inside it; of one type where one is given.

    Filters on it are answered all the same, by reading the rows that their other clauses leave.

    >>> import vecdb
    >>> from vecdb import F
    >>> c = vecdb.open().create_collection("c", dim=2, fields={"body": vecdb.Unindexed})
    >>> _ = c.add("a", metadata={"body": "a long text", "year": 1999})
    >>> c.count((F.year == 1999) & F.body.like("%long%")), c.stats()["fields"]
    (1, ['year'])
    """

    type: Any = None


# --- types and what they hold ------------------------------------------------------------


def _is_str(value: Any) -> bool:
    return type(value) is str


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_float(value: Any) -> bool:
    return type(value) is float or type(value) is int


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _is_datetime(value: Any) -> bool:
    return isinstance(value, datetime)


def _is_dict(value: Any) -> bool:
    return type(value) is dict


def _is_list(value: Any) -> bool:
    return type(value) is list


def _is_place(value: Any) -> bool:
    if type(value) is not list or len(value) != 2 or not all(map(_is_float, value)):
        return False
    latitude, longitude = value
    return bool(-90 <= latitude <= 90 and -180 <= longitude <= 180)  # NaN is in no range


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is list and all(map(holds, value))


_SCALARS: Final[dict[type, tuple[str, Callable[[Any], bool]]]] = {
    str: ("str", _is_str),
    int: ("int", _is_int),
    float: ("float", _is_float),
    bool: ("bool", _is_bool),
    datetime: ("datetime", _is_datetime),
}
_HOLDS: Final[dict[str, Callable[[Any], bool]]] = {  # of cleaned metadata: exact types only
    **dict(_SCALARS.values()),
    **{f"list[{name}]": _list_of(holds) for name, holds in _SCALARS.values()},
    "dict": _is_dict,
    "list": _is_list,
    "Geo": _is_place,
}
_ELEMENTS: Final = {f"list[{name}]": holds for name, holds in _SCALARS.values()}
_REMEDY: Final = {
    "float": "give a float or an int",
    "datetime": "give a datetime with a time zone",
    "Geo": "give (latitude, longitude) in degrees, -90 to 90 and -180 to 180",
}
_MAY_STAND: Final = (
    "str, int, float, bool, datetime, dict, list, list[T] of one of the first five, vecdb.Geo, "
    "vecdb.Indexed(T), vecdb.Indexed(str, substring=True), vecdb.Partition(T) of one of the first "
    "five, vecdb.Unindexed or vecdb.Unindexed(T)"
)


class Rule(NamedTuple):
    """One declaration, understood."""

    type: str | None  # a name in _HOLDS; None: any value
    unindexed: bool = False
    substring: bool = False


_RULES: Final[dict[str, Rule]] = {  # every plain form that there is
    **{name: Rule(name) for name in _HOLDS},
    **{f"Partition({name})": Rule(name) for name, _ in _SCALARS.values()},
    **{f"Unindexed({name})": Rule(name, unindexed=True) for name in _HOLDS},
    "Unindexed": Rule(None, unindexed=True),
    "Indexed(str, substring=True)": Rule("str", substring=True),
}


# --- from what users write to what a schema keeps ----------------------------------------


def plain(fields: Any) -> dict[str, str]:
    """Return declarations as a schema keeps them; InvalidArgument naming the first bad one."""
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        _refuse(f"fields is a {type(fields).__name__}; give a dict of field names and types")
    found = {}
    for name, given in fields.items():
        if not isinstance(name, str):
            _refuse(f"fields: {name!r:.60} is a {type(name).__name__}; a field's name is a str")
        found[str(name)] = _form(str(name), given)
    return validated(found)


def validated(fields: Mapping[Any, Any]) -> dict[str, str]:
    """Return plain declarations unchanged; InvalidArgument when they cannot be together."""
    if not isinstance(fields, Mapping):
        _refuse(f"fields is a {type(fields).__name__}, not a dict")
    if len(fields) > MAX_DECLARED:
        _refuse(f"fields has {len(fields):,} declarations; the limit is {MAX_DECLARED:,}")
    for name, form in fields.items():
        if not isinstance(name, str) or not isinstance(form, str) or form not in _RULES:
            _refuse(f"fields: {name!r:.60}: {form!r:.60} is no declaration")
        try:
            name.encode()
        except UnicodeEncodeError:
            _refuse(f"fields: {name!r:.60} is not valid Unicode text")
    covers = tuple(f"{name}." for name, form in fields.items() if _RULES[form].unindexed)
    for name, form in fields.items():
        if not _RULES[form].unindexed and name.startswith(covers):
            outer = next(prefix[:-1] for prefix in covers if name.startswith(prefix))
            _refuse(
                f"fields: {name!r} lies inside {outer!r}, which is Unindexed with all that is in "
                f"it; declare {name!r} as vecdb.Unindexed({form}) or not at all"
            )
    return dict(fields)


def difference(mine: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """The first field that two schemas declare differently, in words; None when they agree."""
    for name in {**mine, **theirs}:
        has, wants = mine.get(name, "undeclared"), theirs.get(name, "undeclared")
        if has != wants:
            return f"fields[{name!r}] is {has}, not {wants}"
    return None


def _form(name: str, given: Any) -> str:
    """The plain form of one declaration."""
    form = None
    if given is Unindexed or (type(given) is Unindexed and given.type is None):
        form = "Unindexed"
    elif type(given) is Unindexed:
        form = f"Unindexed({_type_name(given.type)})"
    elif type(given) is Partition:
        form = f"Partition({_type_name(given.type)})"
    elif type(given) is Indexed and given.substring is True:
        if given.type is not str:
            _refuse(
                f"fields: {name!r}: substring=True serves `like`, which asks strings: "
                f"declare vecdb.Indexed(str, substring=True), not {given!r:.60}"
            )
        form = "Indexed(str, substring=True)"
    elif type(given) is Indexed and given.substring is False:
        form = _type_name(given.type)
    else:
        form = _type_name(given)
    if form not in _RULES:
        _refuse(f"fields: {name!r} is {given!r:.80}, which declares nothing; give {_MAY_STAND}")
    return form


def _type_name(given: Any) -> str:
    """The name of a type in _HOLDS; "" when it is none of them."""
    if isinstance(given, type) and given in _SCALARS:
        return _SCALARS[given][0]
    if given is dict or given is list or given is Geo:
        return str(given.__name__)
    inside = get_args(given)
    if get_origin(given) is list and len(inside) == 1:
        element = _type_name(inside[0])
        return f"list[{element}]" if f"list[{element}]" in _HOLDS else ""
    return ""


# --- what verbs ask ----------------------------------------------------------------------


class Declared:
    """A schema's declarations, made ready; the same object for the same declarations."""

    __slots__ = ("_deep", "_inside", "_outer", "_rules", "datetimes", "substring")

    def __init__(self, fields: Mapping[str, str]) -> None:
        rules = {name: _RULES[form] for name, form in fields.items()}
        unindexed = [name for name, rule in rules.items() if rule.unindexed]
        self._outer = frozenset(unindexed)
        self._inside = tuple(f"{name}." for name in unindexed)
        self._rules = [
            (name, rule.type, _HOLDS[rule.type]) for name, rule in rules.items() if rule.type
        ]
        self._deep = any("." in name for name, _, _ in self._rules)
        self.substring = frozenset(name for name, rule in rules.items() if rule.substring)
        self.datetimes = frozenset(  # where a string in a filter is read as a datetime
            name for name, rule in rules.items() if rule.type in ("datetime", "list[datetime]")
        )

    @property
    def skips_some(self) -> bool:
        """Whether any field is not indexed."""
        return bool(self._outer)

    def skips(self, name: str) -> bool:
        """Whether a field, by its flat name, is not indexed (D2)."""
        return name in self._outer or name.startswith(self._inside)

    def check(self, metadata: Mapping[str, Any], row: str) -> None:
        """Raise SchemaError when a row's cleaned metadata contradicts a declaration (D1)."""
        found = dict(_flat(metadata)) if self._deep else metadata
        for name, type_name, holds in self._rules:
            value = found.get(name)
            if value is not None and not holds(value):
                raise SchemaError(f"{row}: field {name!r} {_contradiction(value, type_name)}")

    def check_all(self, rows: list[dict[str, Any]]) -> None:
        """`check` for the rows of a call, by their position."""
        if self._rules:
            for at, metadata in enumerate(rows):
                if metadata:
                    self.check(metadata, f"metadata: row {at}")


def declared(fields: Mapping[str, str]) -> Declared:
    """What follows from a schema's fields; made once for each set of declarations."""
    return _declared(tuple(fields.items())) if fields else NOTHING


@lru_cache(maxsize=256)
def _declared(fields: tuple[tuple[str, str], ...]) -> Declared:
    return Declared(dict(fields))


NOTHING: Final = Declared({})


def _flat(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values by flat name; metadata is at most 16 levels deep (storage/codec.py)."""
    for key, value in metadata.items():
        yield prefix + key, value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")


def _contradiction(value: Any, type_name: str) -> str:
    """What is wrong with a value, and what would not be."""
    element = _ELEMENTS.get(type_name)
    if element is not None and type(value) is list:
        at, wrong = next((at, each) for at, each in enumerate(value) if not element(each))
        what = f"has at position {at} {_shown(wrong)}"
    else:
        what = f"is {_shown(value)}"
    remedy = _REMEDY.get(type_name, "give such a value")
    return f"{what}, and is declared {type_name}; {remedy}, None, or leave it out"


def _shown(value: Any) -> str:
    return "None" if value is None else f"the {type(value).__name__} {value!r:.60}"


def _refuse(message: str) -> NoReturn:
    raise InvalidArgument(message)
