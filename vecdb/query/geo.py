"""How far apart are two places, and where can the places within a distance lie?

A place is a list of two numbers, latitude and longitude in degrees: [48.14, 11.58]. Anything
else, bools and numbers out of range included, is no place and within no distance.

Invariants:
  P1  `box` holds every place that `near` puts within the distance, rounding included: it may hold
      others, so that an index may narrow by it and ask `near` after that;
  P2  a place is within 0 km of itself, by whatever name: [0, 180] and [0, -180], [90, 0] and
      [90, 5].

The Earth is a sphere of the mean radius 6371.0088 km (IUGG); distances on the ellipsoid differ
by up to 0.6 %. Formula: haversine, R. W. Sinnott, "Virtues of the Haversine", 1984.
"""

from __future__ import annotations

from math import asin, cos, degrees, pi, radians, sin, sqrt
from typing import Any, Final, NamedTuple

EARTH_KM: Final = 6371.0088
_MARGIN: Final = 1e-7  # radians, 0.6 m: above what rounding does to the formula anywhere
_SAME_KM: Final = 1e-9  # what rounding puts between two names of one place
_Range = tuple[float, float]


class Box(NamedTuple):
    """Ranges of degrees, both ends included; longitudes in two pieces across the date line."""

    latitudes: _Range
    longitudes: tuple[_Range, ...]


def place_of(value: Any) -> _Range | None:
    """Return the (latitude, longitude) that a metadata value is; None when it is no place."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    latitude, longitude = value
    for number, most in ((latitude, 90), (longitude, 180)):
        if isinstance(number, bool) or not isinstance(number, int | float):
            return None
        if not -most <= number <= most:  # NaN too
            return None
    return float(latitude), float(longitude)


def distance_km(a: _Range, b: _Range) -> float:
    """Return the great-circle distance of two places in km."""
    south, north = radians(a[0]), radians(b[0])
    up, across = sin((north - south) / 2), sin(radians(b[1] - a[1]) / 2)
    return (
        2 * EARTH_KM * asin(min(1.0, sqrt(up * up + cos(south) * cos(north) * across * across)))
    )


def near(a: _Range, b: _Range, km: float) -> bool:
    """Return whether two places are within a distance of each other, a micrometre forgiven."""
    return distance_km(a, b) <= km + _SAME_KM


def box(latitude: float, longitude: float, km: float) -> Box:
    """Return ranges that hold every place within the distance (P1)."""
    angle = km / EARTH_KM + _MARGIN
    reach = degrees(min(angle, pi))
    latitudes = (latitude - reach, latitude + reach)
    if abs(radians(latitude)) + angle >= pi / 2:  # a pole is inside: every longitude is
        return Box(latitudes, ((-180.0, 180.0),))
    wide = degrees(asin(min(1.0, sin(angle) / cos(radians(latitude)))) + _MARGIN)
    west, east = longitude - wide, longitude + wide
    ranges = [(max(west, -180.0), min(east, 180.0))]
    if west < -180:
        ranges.append((west + 360, 180.0))
    if east > 180:
        ranges.append((-180.0, east - 360))
    return Box(latitudes, tuple(ranges))
