"""Which table do the hits of a search make? For Arrow and pandas, which are imported only here.

Columns: id, score, distance, text, then the metadata, in order of appearance. A metadata key that
has the name of one of the four is shown as `metadata.<key>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from vecdb.errors import InvalidArgument

if TYPE_CHECKING:
    from vecdb.types import Hit

FIRST: Final = ("id", "score", "distance", "text")


def rows_of(hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """One flat dict a hit."""
    return [
        {
            "id": hit.id,
            "score": hit.score,
            "distance": hit.distance,
            "text": hit.text,
            **{_column(key, hit.metadata): value for key, value in hit.metadata.items()},
        }
        for hit in hits
    ]


def to_arrow(hits: Iterable[Hit]) -> Any:
    """Hits as a pyarrow.Table."""
    from vecdb.tables.arrow import table_of

    return table_of(rows_of(hits))


def to_pandas(hits: Iterable[Hit]) -> Any:
    """Hits as a pandas.DataFrame; columns of mixed values stay Python's."""
    rows = rows_of(hits)
    names = list(dict.fromkeys([*FIRST, *(name for row in rows for name in row)]))
    return frame({name: [row.get(name) for row in rows] for name in names})


def frame(columns: Mapping[str, list[Any]]) -> Any:
    """Columns as a pandas.DataFrame."""
    try:
        import pandas
    except ImportError:
        raise InvalidArgument(
            "to_pandas needs pandas, which is not installed: pip install 'vecdb-engine[pandas]'"
        ) from None
    made = {name: _series(pandas, values) for name, values in columns.items()}
    return pandas.DataFrame(made, columns=list(columns))


def _series(pandas: Any, values: list[Any]) -> Any:
    """A column of the values' own type, in which no int has become a float."""
    kinds = {type(value) for value in values if value is not None}
    nullable = {int: "Int64", bool: "boolean"}.get(*kinds) if len(kinds) == 1 else None
    if nullable is not None and None in values:
        return pandas.Series(values, dtype=nullable)
    found = pandas.Series(values, dtype=object)
    return found.infer_objects() if len(kinds) == 1 else found


def _column(key: str, metadata: dict[str, Any]) -> str:
    name = key
    while name in FIRST or (name != key and name in metadata):
        name = "metadata." + name
    return name
