"""What did the user give: queries, judgements, labels, a corpus; can it be looked at?

Everything is checked before anything is read or encoded; what is wrong is an InvalidArgument that names
the argument, the first entry that is wrong, and the remedy.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import numpy as np

from vecdb.errors import InvalidArgument

__all__ = ["Asked", "asked", "check_corpus", "check_count", "refuse"]

MOST_QUERIES: Final = 1000  # that are looked at; of more, so many are drawn


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries as they were given: by name a text or a vector, and grades above 0 by id."""

    queries: dict[Any, Any]
    qrels: dict[Any, dict[Any, float]]
    are_texts: bool


def asked(queries: Any, qrels: Any, rng: np.random.Generator) -> Asked | None:
    """Queries and judgements, checked; None where none were given."""
    if queries is None:
        if qrels is not None:
            refuse("qrels without queries: give queries={name: text} too, which qrels={name: {id: grade}} "
            "judge")
        return None
    if not isinstance(queries, Mapping) or not queries:
        refuse(f"queries is {_kind(queries)}; give a mapping {{name: text}} or {{name: vector}} with one "
        "query at least")
    texts = [isinstance(each, str) for each in queries.values()]
    if any(texts) and not all(texts):
        name = list(queries)[texts.index(False)]
        refuse(f"queries[{name!r:.60}] is {_kind(queries[name])} among texts; give texts alone or vectors "
        "alone")
    judged = _qrels(qrels, queries)
    chosen = [name for name in queries if name in judged] if judged else list(queries)
    if len(chosen) > MOST_QUERIES:
        kept = np.sort(rng.choice(len(chosen), MOST_QUERIES, replace=False))
        chosen = [chosen[at] for at in kept]
    names = set(chosen)
    return Asked(
        {name: queries[name] for name in chosen},
        {name: grades for name, grades in judged.items() if name in names},
        all(texts),
    )


def _qrels(qrels: Any, queries: Mapping[Any, Any]) -> dict[Any, dict[Any, float]]:
    if qrels is None:
        return {}
    if not isinstance(qrels, Mapping):
        refuse(f"qrels is {_kind(qrels)}; give a mapping {{query: {{id: grade}}}}")
    found: dict[Any, dict[Any, float]] = {}
    for name, judged in qrels.items():
        if name not in queries:
            continue  # judgements of queries that are not asked say nothing
        if isinstance(judged, str | bytes) or not isinstance(judged, Iterable):
            refuse(f"qrels[{name!r:.60}] is {_kind(judged)}; give {{id: grade}}, or a list of relevant ids")
        pairs = judged.items() if isinstance(judged, Mapping) else ((id, 1) for id in judged)
        found[name] = {}
        for id, grade in pairs:
            if not isinstance(id, Hashable):
                refuse(f"qrels[{name!r:.60}]: the id {id!r:.60} is {_kind(id)}; an id is a str or an int")
            if not _is_number(grade):
                refuse(f"qrels[{name!r:.60}][{id!r:.60}] is {grade!r:.40}; a grade is a finite number, "
                "above 0 for relevant")
            if grade > 0:
                found[name][_plain(id)] = float(grade)
    if not any(found.values()):
        refuse("qrels: no query of queries= has a relevant row (a grade above 0); do the names of both "
        "agree?")
    return found


def check_corpus(corpus: Any) -> dict[Any, str]:
    """A mapping of ids to texts, checked."""
    if not isinstance(corpus, Mapping) or not corpus:
        refuse(f"corpus is {_kind(corpus)}; give a mapping {{id: text}} with one text at least, or a "
        "collection")
    found: dict[Any, str] = {}
    for id, text in corpus.items():
        if isinstance(id, bool) or not isinstance(id, str | int | np.integer):
            refuse(f"corpus: the id {id!r:.60} is {_kind(id)}; an id is a str or an int")
        if text is not None and not isinstance(text, str):
            refuse(f"corpus[{id!r:.60}] is {_kind(text)}; give texts as str, None for a row without")
        found[_plain(id)] = text or ""
    return found


def check_count(name: str, value: Any, least: int) -> int:
    """An int that an option is."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        refuse(f"{name}={value!r:.40}: give an int from {least}")
    return int(value.__index__())


def vectors_of(queries: Mapping[Any, Any], dim: int) -> Any:
    """Query vectors as float32 (m, dim), checked."""
    found = np.empty((len(queries), dim), np.float32)
    for row, (name, vector) in enumerate(queries.items()):
        try:
            given = np.asarray(vector)
        except Exception:  # an object may raise what it likes when asked to be an array
            given = np.empty(0, object)
        if given.dtype.kind not in "fiub":
            refuse(f"queries[{name!r:.60}] is {_kind(vector)}; give a text, or a vector of {dim} numbers")
        with np.errstate(over="ignore"):
            array = given.astype(np.float32)
        if array.shape != (dim,):
            refuse(f"queries[{name!r:.60}] has shape {array.shape}; the vectors have ({dim},)")
        if not np.isfinite(array).all():
            refuse(f"queries[{name!r:.60}] has NaN or infinity; every number must be finite")
        found[row] = array
    return found


def label_of(value: Any) -> Any:
    """A label that can be counted: None for what is none (NaN, lists, dicts, arrays)."""
    if value is None or isinstance(value, tuple) or not isinstance(value, Hashable):
        return None
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _is_number(grade: Any) -> bool:
    """Whether a grade is a finite number."""
    try:
        return isinstance(grade, int | float | np.integer | np.floating) and math.isfinite(grade)
    except OverflowError:  # an int beyond what a float holds
        return False


def refuse(message: str) -> NoReturn:
    """Raise InvalidArgument."""
    raise InvalidArgument(f"diagnose: {message}")


def _plain(id: Any) -> Any:
    return int(id) if isinstance(id, np.integer) else str(id) if isinstance(id, np.str_) else id


def _kind(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple | set) and not len(value):
        return f"an empty {type(value).__name__}"
    return f"a {type(value).__name__}"
