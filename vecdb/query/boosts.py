"""What may be added to a score? Boosts, as values: by the distance of a field's value, or by a number.

How they are added is ranking/boost.py's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from vecdb.query.values import Value, given_name, given_number, given_weight, one_of, refuse

MAX_BOOSTS: Final = 64  # of one search
TRANSFORMS: Final = ("linear", "log1p")


class Boost(Value):
    """What is added to a score: `boost=[Decay(...), Field(...)]`."""

    __slots__ = ()


class Decay(Boost):
    """A boost that fades with a value's distance from `origin`: weight · 0.5 ** (distance / scale).

    For numbers; dates (`origin` a datetime with zone or "now", `scale` a timedelta or seconds); and Geo
    fields (`origin` (lat, lon), `scale` in km). A row without the field gets nothing.

    >>> from vecdb.query import Decay
    >>> Decay("year", 2026, 5, weight=0.2)
    Decay('year', 2026, 5.0, weight=0.2)
    """

    __slots__ = ("field", "origin", "scale", "weight")
    _names = ("field", "origin", "scale", "weight")
    _first = 3
    field: str
    origin: Any
    scale: float
    weight: float

    def __init__(self, field: str, origin: Any, scale: Any, weight: float = 1.0) -> None:
        if hasattr(scale, "total_seconds"):
            scale = scale.total_seconds()
        size = given_number("Decay: scale", scale)
        if size <= 0:
            refuse(f"Decay: scale={scale!r:.40}: give a number above 0")
        self._set(
            field=given_name("Decay: field", field, needed=True), origin=_origin(origin), scale=size,
            weight=given_weight("Decay: weight", weight),
        )  # fmt: skip

    def _usual(self) -> Mapping[str, Any]:
        return {"weight": 1.0}


class Field(Boost):
    """A boost by a number of the row: weight · value, or weight · log(1 + value) with `transform="log1p"`.

    A row without the field, or with no number there, gets nothing; log1p of what is below 0 is 0.

    >>> from vecdb.query import Field
    >>> Field("likes", 0.1, transform="log1p")
    Field('likes', 0.1, transform='log1p')
    """

    __slots__ = ("field", "transform", "weight")
    _names = ("field", "weight", "transform")
    _first = 2
    field: str
    weight: float
    transform: str

    def __init__(self, field: str, weight: float, transform: str = "linear") -> None:
        one_of("Field: transform", transform, TRANSFORMS)
        self._set(
            field=given_name("Field: field", field, needed=True),
            weight=given_weight("Field: weight", weight), transform=transform,
        )  # fmt: skip

    def _usual(self) -> Mapping[str, Any]:
        return {"transform": "linear"}


def _origin(origin: Any) -> Any:
    if isinstance(origin, str):
        if origin != "now":
            refuse(f"Decay: origin={origin!r:.40}: a str is 'now'; give a datetime for another time")
        return origin
    if isinstance(origin, datetime):
        if origin.tzinfo is None or origin.utcoffset() is None:
            refuse("Decay: origin is a datetime without a zone; give one, as datetime.now(timezone.utc)")
        return origin
    if isinstance(origin, list | tuple):
        if len(origin) != 2:
            refuse("Decay: origin: a place is (latitude, longitude)")
        lat, lon = (given_number("Decay: origin", each) for each in origin)
        if not (-90 <= lat <= 90 and -180 <= lon <= 180):
            refuse(f"Decay: origin=({lat:g}, {lon:g}): latitude is -90 to 90, longitude -180 to 180")
        return lat, lon
    if isinstance(origin, bool) or not isinstance(origin, int | float):
        refuse(f"Decay: origin is a {type(origin).__name__}; give a number, a datetime, 'now' or (lat, lon)")
    given_number("Decay: origin", origin)
    return origin
