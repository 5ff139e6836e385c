"""What does a set of numbers look like? Inline SVG: intervals, histograms, curves and maps of points.

Colours are the page's (`var(--c1)`), so that one picture reads in light, in dark and on paper. What differs
by colour differs by shape or dash too, and every picture says in words (`<desc>`) what it shows.

Invariants (tests/unit/test_reports.py):
  P1  a picture is well-formed XML with role=img, a title and a description, whatever its labels hold;
  P2  what cannot be drawn (NaN, infinities, None) is left out and counted in the note below the picture;
  P3  no more than MOST_POINTS points and MOST_ROWS rows are drawn, and the note says of how many;
  P4  the same numbers make the same picture.

Rejected: matplotlib, a hundred megabytes for four kinds of picture; pictures that need a script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.reports.cells import clean, decimals_of, label, width_of, written
from vecdb.reports.scales import LARGEST, Scale, scale, usable

WIDTH: Final = 680.0
MOST_POINTS: Final = 2_000
MOST_ROWS: Final = 100
MOST_SERIES: Final = 8  # as many colours; further groups are drawn as one
_LETTER: Final = 7.0  # pixels, of the labels' font at 12
_GAP: Final = 10.0
_DASHES: Final = ("", "7 3", "2 3", "9 3 2 3")
_CORNERS: Final = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture: `.title`, `.description` in words, `.note` on what is not drawn, `.data`, what is drawn.

    >>> from vecdb.reports import plots
    >>> plot = plots.histogram({"scores": [0.1, 0.2, 0.2]}, title="Scores", axis="score")
    >>> plot.svg()[:42]
    '<svg class="plot" role="img" viewBox="0 0 '
    """

    title: str
    description: str
    width: float
    height: float
    inside: str
    note: str = ""
    data: Any = field(default=None, compare=False)

    def svg(self, name: str = "plot") -> str:
        """Return the picture as an SVG element; `name` begins the ids in it, one for each on a page."""
        return (
            f'<svg class="plot" role="img" viewBox="0 0 {_n(self.width)} {_n(self.height)}" '
            f'xmlns="http://www.w3.org/2000/svg" aria-labelledby="{name}-t {name}-d">'
            f'<title id="{name}-t">{escape(clean(self.title))}</title>'
            f'<desc id="{name}-d">{escape(clean(self.description, 2_000))}</desc>{self.inside}</svg>'
        )


# --- intervals ------------------------------------------------------------------------------------


def intervals(
    rows: Iterable[tuple[Any, Any, Any, Any]],
    *,
    title: str,
    axis: str,
    mark: tuple[str, float] | None = None,
) -> Plot:
    """Draw (label, low, mean, high) as points with whiskers on one axis, in the order given.

    `mark`: a (label, value) drawn as a line across, as a threshold is. Costs time in proportion to the
    rows drawn, at most 100.

    >>> intervals([("a", 0.4, 0.5, 0.6), ("b", 0.5, 0.6, 0.7)], title="Quality", axis="nDCG@10").note
    ''
    """
    given = [tuple(row) for row in rows]
    shown = given[:MOST_ROWS]
    there = [row for row in shown if usable(row[2])]
    bare = sum(not (usable(low) and usable(high)) for _, low, mean, high in there)
    names = [label(row[0]) for row in shown]
    places = decimals_of([v for row in shown for v in row[1:] if usable(v)])
    figures = [_figures(row, places) for row in shown]
    left = max([width_of(name) for name in names], default=0) * _LETTER + _GAP
    right = max([width_of(words) for words in figures], default=0) * _LETTER + _GAP
    reach = [float(v) for row in there for v in row[1:] if usable(v)]
    reach += [mark[1]] if mark and usable(mark[1]) else []
    left, right = max(left, 40.0), max(right, 40.0)
    over = scale(reach, left, WIDTH - right, most=int((WIDTH - right - left) / 70))
    top, line = (22.0 if mark else 8.0), 26.0
    bottom = top + line * max(1, len(shown))
    parts = [_axis_below(over, bottom, top, axis)]
    if mark and usable(mark[1]):
        at = over.at(mark[1])
        side = "end" if at > (over.start + over.end) / 2 else "start"
        parts.append(_rule("mark", at, at, top - 6, bottom))
        parts.append(_text(at, top - 10, label(mark[0]), anchor=side, kind="marked"))
    for at, (row, name, words) in enumerate(zip(shown, names, figures, strict=True)):
        y = top + line * (at + 0.5)
        parts.append(_text(left - _GAP, y + 4, name, anchor="end"))
        parts.append(_text(WIDTH, y + 4, words, anchor="end", kind="figure"))
        if usable(row[2]):
            parts.append(_whisker(over, y, row))
    if not there:
        parts.append(_nothing((over.start + over.end) / 2, (top + bottom) / 2))
    note = _note(
        (len(given) - len(shown), f"{len(given) - len(shown):,} further rows are not drawn"),
        (len(shown) - len(there), _without(len(shown) - len(there), "value")),
        (bare, _without(bare, "interval")),
    )
    told = "; ".join(f"{name}: {words}" for name, words in zip(names, figures, strict=True))
    data = [dict(zip(("label", "low", "mean", "high"), row, strict=True)) for row in given]
    return Plot(title, f"{axis}. {told or 'No values.'}", WIDTH, bottom + 42, "".join(parts), note, data)


def _figures(row: Sequence[Any], places: int) -> str:
    _, low, mean, high = row
    if not usable(mean):
        return "–"
    if not (usable(low) and usable(high)):
        return written(float(mean), places)
    return f"{written(float(mean), places)} [{written(float(low), places)}, {written(float(high), places)}]"


def _whisker(over: Scale, y: float, row: Sequence[Any]) -> str:
    _, low, mean, high = row
    drawn = ""
    if usable(low) and usable(high):
        a, b = over.at(float(low)), over.at(float(high))
        ends = "".join(f"M{_n(x)} {_n(y - 5)}v10" for x in (a, b))
        drawn = f'<path class="whisker" d="M{_n(a)} {_n(y)}H{_n(b)}{ends}"/>'
    return f'{drawn}<circle class="mean" cx="{_n(over.at(float(mean)))}" cy="{_n(y)}" r="4.5"/>'


# --- histograms -----------------------------------------------------------------------------------


def histogram(series: Mapping[Any, Any], *, title: str, axis: str, bins: int = 40) -> Plot:
    """Draw how the values of each series are spread, over each other, as shares of the series.

    `series`: {label: values (n,)}, at most 8 are drawn. Costs time in proportion to the values.

    >>> histogram({"a": [1, 2, float("nan")]}, title="t", axis="x").note
    '1 value that is no finite number is left out'
    """
    names, columns, gone = [], [], 0
    for name, values in list(series.items())[:MOST_SERIES]:
        found, lost = _finite(values)
        names.append(label(name))
        columns.append(found)
        gone += lost
    together = np.concatenate(columns) if columns else np.empty(0)
    span = scale(_ends(together), 0.0, 1.0)
    edges = np.linspace(span.low, span.high, max(1, min(int(bins), 400)) + 1)
    counts = [np.histogram(each, edges)[0] for each in columns]
    shares = [each / max(1, int(each.sum())) for each in counts]
    top, bottom = 30.0 if len(names) > 1 else 12.0, 250.0
    most = max((float(each.max()) for each in shares), default=0.0)
    upward = scale([0.0, most or 1.0], bottom, top, most=4)
    across = Scale(span.low, span.high, _left_of(upward), WIDTH - 28, span.step)
    parts = [_axis_below(across, bottom, top, axis), _axis_left(upward, across, "share of values")]
    for at, share in enumerate(shares):
        if len(columns[at]):
            parts.append(_steps(across, upward, edges, share, at))
    if not len(together):
        parts.append(_nothing((across.start + across.end) / 2, (top + bottom) / 2))
    if len(names) > 1:
        parts.append(_legend([(name, at) for at, name in enumerate(names)], across.start, 14, "line"))
    told = [_spread(name, each) for name, each in zip(names, columns, strict=True)]
    note = _note(_further(len(series) - len(names)), (gone, _odd(gone)))
    data = {"edges": edges, "counts": dict(zip(map(str, series), counts, strict=False))}
    words = f"{axis}. {'; '.join(told) or 'No values.'}"
    return Plot(title, words, WIDTH, bottom + 42, "".join(parts), note, data)


def _steps(across: Scale, upward: Scale, edges: Any, share: Any, at: int) -> str:
    xs = [_n(across.at(float(x))) for x in edges]
    ys = [_n(upward.at(float(y))) for y in share]
    floor = _n(upward.at(0.0))
    steps = "".join(f"V{y}H{x}" for y, x in zip(ys, xs[1:], strict=True))
    return f'<path class="area s{at + 1}"{_dash(at)} d="M{xs[0]} {floor}{steps}V{floor}"/>'


def _spread(name: str, values: Any) -> str:
    if not len(values):
        return f"{name}: no values"
    low, middle, high = (written(float(v)) for v in np.quantile(values, (0, 0.5, 1)))
    return f"{name}: {len(values):,} values from {low} to {high}, median {middle}"


# --- curves ---------------------------------------------------------------------------------------


def curve(
    series: Mapping[Any, Iterable[Sequence[Any]]], *, title: str, x_axis: str, y_axis: str
) -> Plot:
    """Draw lines through (x, y, low, high), with a band from low to high where both are numbers.

    `series`: {label: points in any order}, at most 8 are drawn; low and high may be None.

    >>> curve({"a": [(1, 0.2, 0.1, 0.3), (2, 0.4, None, None)]}, title="t", x_axis="x", y_axis="y").note
    ''
    """
    names, lines, gone = [], [], 0
    for name, points in list(series.items())[:MOST_SERIES]:
        every = [tuple(point) + (None, None) for point in points]
        there = [p[:4] for p in every if usable(p[0]) and usable(p[1])]
        floats = [tuple(float(v) if usable(v) else None for v in p) for p in there]
        found: list[Any] = sorted(floats, key=lambda p: p[:2])
        names.append(label(name))
        lines.append(found)
        gone += len(every) - len(found)
    flat: list[Any] = [point for line in lines for point in line]
    top, bottom = 30.0 if len(names) > 1 else 12.0, 270.0
    upward = scale([v for point in flat for v in point[1:] if v is not None], bottom, top, most=5)
    xs = [point[0] for point in flat]
    across = scale(xs, _left_of(upward), WIDTH - 28, tight=len(set(xs)) > 1)
    parts = [_axis_below(across, bottom, top, x_axis), _axis_left(upward, across, y_axis)]
    for at, line in enumerate(lines):
        parts.append(_band(across, upward, line, at))
    for at, line in enumerate(lines):
        parts.append(_line(across, upward, line, at))
    if not flat:
        parts.append(_nothing((across.start + across.end) / 2, (top + bottom) / 2))
    if len(names) > 1:
        parts.append(_legend([(name, at) for at, name in enumerate(names)], across.start, 14, "line"))
    told = [_from_to(name, line) for name, line in zip(names, lines, strict=True)]
    words = f"{y_axis} by {x_axis}. {'; '.join(told) or 'No values.'}"
    note = _note(_further(len(series) - len(names)), (gone, _odd(gone)))
    data = {
        str(name): [dict(zip(("x", "y", "low", "high"), point, strict=False)) for point in points]
        for name, points in series.items()
    }
    return Plot(title, words, WIDTH, bottom + 42, "".join(parts), note, data)


def _from_to(name: str, line: Sequence[Any]) -> str:
    if not line:
        return f"{name}: no values"
    (x, y), (last_x, last_y) = line[0][:2], line[-1][:2]
    return f"{name}: from {written(y)} at {written(x)} to {written(last_y)} at {written(last_x)}"


def _band(across: Scale, upward: Scale, line: Sequence[Any], at: int) -> str:
    inner = [p for p in line if p[2] is not None and p[3] is not None]
    if len(inner) < 2:
        return ""
    above = "L".join(f"{_n(across.at(p[0]))} {_n(upward.at(p[3]))}" for p in inner)
    below = "L".join(f"{_n(across.at(p[0]))} {_n(upward.at(p[2]))}" for p in reversed(inner))
    return f'<path class="band s{at + 1}" d="M{above}L{below}Z"/>'


def _line(across: Scale, upward: Scale, line: Sequence[Any], at: int) -> str:
    places = [(across.at(p[0]), upward.at(p[1])) for p in line]
    drawn = "L".join(f"{_n(x)} {_n(y)}" for x, y in places)
    path = f'<path class="line s{at + 1}"{_dash(at)} d="M{drawn}"/>' if len(places) > 1 else ""
    return path + ("".join(_shape(x, y, at, 3.5) for x, y in places) if len(places) <= 60 else "")


# --- maps -----------------------------------------------------------------------------------------


def points(xy: Any, groups: Any = None, labels: Any = None, *, title: str) -> Plot:
    """Draw points (n, 2) as a map, coloured by `groups`, at most 2,000 of them, drawn at random by seed 0.

    `groups` (n,): values; the eight most frequent have a colour each, the others share one. `labels` (n,):
    what a point is called when it is pointed at. Both axes have one unit. Costs time in proportion to n.

    >>> points([[0, 0], [1, 1]], ["a", "b"], title="Two").description
    '2 points. Groups: a (1), b (1).'
    """
    places = np.asarray(xy, np.float64) if len(xy) else np.empty((0, 2))
    if places.ndim != 2 or places.shape[1] != 2:
        raise InvalidArgument(f"xy: an array of shape {places.shape}; a map needs (n, 2)")
    for name, given in (("groups", groups), ("labels", labels)):
        if given is not None and len(given) != len(places):
            raise InvalidArgument(f"{name}: {len(given):,} for {len(places):,} points; give one a point")
    kept = np.flatnonzero((np.abs(places) <= LARGEST).all(axis=1))
    gone = len(places) - len(kept)
    drawn = kept
    if len(kept) > MOST_POINTS:
        drawn = np.sort(np.random.default_rng(0).choice(kept, MOST_POINTS, replace=False))
    names = None if groups is None else [label(each, 28) for each in groups]
    counts = Counter() if names is None else Counter(names[i] for i in kept)
    listed = [name for name, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))]
    colours = {name: at for at, name in enumerate(listed[:MOST_SERIES])}
    keys = [(f"{name} ({counts[name]:,})", at) for name, at in colours.items()]
    if len(listed) > MOST_SERIES:
        rest = sum(counts[name] for name in listed[MOST_SERIES:])
        keys.append((f"{len(listed) - MOST_SERIES:,} other groups ({rest:,})", -1))
    deep = _legend_depth(keys, 8.0)
    across, upward = _one_unit(places[drawn], 8.0, deep + 10)
    parts = [
        f'<rect class="frame" x="8" y="{_n(deep + 10)}" width="{_n(WIDTH - 16)}" height="{_n(_MAP)}"/>',
        *(_legend(keys, 8.0, 14, "point") if keys else ""),
    ]
    series = [0 if names is None else colours.get(names[i], -1) for i in drawn]
    for at, i in sorted(zip(series, drawn, strict=True), key=lambda each: each[0] >= 0):
        told = "" if labels is None else f"<title>{escape(label(labels[i], 80))}</title>"
        parts.append(_shape(across.at(places[i, 0]), upward.at(places[i, 1]), at, 2.8, told))
    if not len(drawn):
        parts.append(_nothing(WIDTH / 2, deep + 10 + _MAP / 2))
    some = (len(kept) - len(drawn), f"{len(drawn):,} of {len(kept):,} points are drawn")
    note = _note(some, (gone, _odd(gone, "point")))
    told_groups = f" Groups: {', '.join(name for name, _ in keys)}." if keys else ""
    words = f"{len(drawn):,} point{'' if len(drawn) == 1 else 's'}.{told_groups}"
    data = {
        "xy": places[drawn],
        "groups": None if groups is None else [groups[i] for i in drawn],
        "labels": None if labels is None else [labels[i] for i in drawn],
    }
    return Plot(title, words, WIDTH, deep + 10 + _MAP + 8, "".join(parts), note, data)


_MAP: Final = 420.0  # pixels of height


def _one_unit(places: Any, left: float, top: float) -> tuple[Scale, Scale]:
    """Axes on which a step to the right is as long as one upward."""
    wide, high = WIDTH - 16 - 24, _MAP - 24
    if not len(places):
        places = np.zeros((1, 2))
    low, most = places.min(axis=0), places.max(axis=0)
    unit = max((most[0] - low[0]) / wide, (most[1] - low[1]) / high)
    unit = max(unit, 1e-9 * float(np.abs(places).max()))
    if unit < 1e-290:
        unit = 1.0
    middle = low / 2 + most / 2
    x, y = unit * wide / 2, unit * high / 2
    across = Scale(middle[0] - x, middle[0] + x, left + 12, left + 12 + wide, 1.0)
    return across, Scale(middle[1] - y, middle[1] + y, top + 12 + high, top + 12, 1.0)


# --- what they share ------------------------------------------------------------------------------


def _finite(values: Any) -> tuple[Any, int]:
    """The values that can be drawn, float64, and how many cannot."""
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind and kind in "iufb":
        flat = np.asarray(values, np.float64).ravel()
        found = flat[np.abs(flat) <= LARGEST]
        return found, len(flat) - len(found)
    listed = list(values)
    kept = [float(value) for value in listed if usable(value)]
    return np.array(kept, np.float64), len(listed) - len(kept)


def _ends(values: Any) -> list[float]:
    return [float(values.min()), float(values.max())] if len(values) else []


def _axis_below(over: Scale, bottom: float, top: float, words: str) -> str:
    parts = [_rule("axis", over.start, over.end, bottom, bottom)]
    for x, name in over.ticks:
        parts.append(_rule("grid", x, x, top, bottom))
        parts.append(_text(x, bottom + 16, name, anchor="middle", kind="tick"))
    middle = (over.start + over.end) / 2
    room = int(2 * min(middle, WIDTH - middle) / _LETTER)
    parts.append(_text(middle, bottom + 34, label(words, room), anchor="middle", kind="name"))
    return "".join(parts)


def _axis_left(upward: Scale, across: Scale, words: str) -> str:
    parts = []
    for y, name in upward.ticks:
        parts.append(_rule("grid", across.start, across.end, y, y))
        parts.append(_text(across.start - 6, y + 4, name, anchor="end", kind="tick"))
    middle = (upward.start + upward.end) / 2
    turned = f'transform="rotate(-90 10 {_n(middle)})" '
    parts.append(_text(10, middle + 4, label(words, 40), anchor="middle", kind="name", more=turned))
    return "".join(parts)


def _left_of(upward: Scale) -> float:
    """Where the plot begins behind the labels of its left axis."""
    return 30 + _LETTER * max(width_of(name) for _, name in upward.ticks)


def _legend_depth(keys: Sequence[tuple[str, int]], start: float) -> float:
    """How far down a legend reaches."""
    y = 14.0 if keys else 0.0
    x = start
    for name, _ in keys:
        wide = 38 + width_of(name) * _LETTER
        if x > start and x + wide > WIDTH:
            x, y = start, y + 18
        x += wide
    return y


def _legend(keys: Sequence[tuple[str, int]], start: float, y: float, kind: str) -> str:
    parts, x = [], start
    for name, at in keys:
        wide = 38 + width_of(name) * _LETTER
        if x > start and x + wide > WIDTH:
            x, y = start, y + 18
        if kind == "line":
            parts.append(f'<path class="line s{at + 1}"{_dash(at)} d="M{_n(x)} {_n(y - 4)}h18"/>')
        else:
            parts.append(_shape(x + 6, y - 4, at, 4.0))
        parts.append(_text(x + (22 if kind == "line" else 14), y, name, kind="key"))
        x += wide
    return "".join(parts)


def _shape(x: float, y: float, at: int, size: float, inside: str = "") -> str:
    """A point of series `at`; -1: of those that share a colour."""
    kind = _CORNERS[at % len(_CORNERS)] if at >= 0 else "circle"
    tag = f'class="dot s{at + 1}"'
    if kind == "circle":
        return f'<circle {tag} cx="{_n(x)}" cy="{_n(y)}" r="{_n(size)}">{inside}</circle>'
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "triangle": ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
        "diamond": ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    }[kind]
    path = "L".join(f"{_n(x + dx * size)} {_n(y + dy * size)}" for dx, dy in corners)
    return f'<path {tag} d="M{path}Z">{inside}</path>'


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", kind: str = "label", more: str = ""
) -> str:
    place = f'{more}x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def _rule(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{_n(x1)}" x2="{_n(x2)}" y1="{_n(y1)}" y2="{_n(y2)}"/>'


def _nothing(x: float, y: float) -> str:
    return _text(x, y + 4, "no values", anchor="middle", kind="nothing")


def _dash(at: int) -> str:
    dashes = _DASHES[at % len(_DASHES)] if at >= 0 else ""
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _note(*said: tuple[int, str]) -> str:
    return "; ".join(words for count, words in said if count)


def _further(count: int) -> tuple[int, str]:
    return count, f"{count:,} further series are not drawn"


def _odd(count: int, what: str = "value") -> str:
    return f"1 {what} that is no finite number is left out" if count == 1 else (
        f"{count:,} {what}s that are no finite numbers are left out"
    )  # fmt: skip


def _without(count: int, what: str) -> str:
    return f"{count:,} row{' has' if count == 1 else 's have'} no {what}"


def _n(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    found = f"{float(value):.1f}"
    return found.removesuffix(".0") if found != "-0.0" else "0"
