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
from html import escape
from typing import Any, Final

import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.reports.cells import decimals_of, label, width_of, written
from vecdb.reports.drawing import (
    GAP,
    LETTER,
    MOST_POINTS,
    MOST_ROWS,
    MOST_SERIES,
    WIDTH,
    Plot,
    axis_below,
    axis_left,
    dash,
    ends,
    finite,
    further,
    left_of,
    legend,
    legend_depth,
    n_of,
    note_of,
    nothing,
    odd,
    rule,
    shape,
    text,
    without,
)
from vecdb.reports.scales import LARGEST, Scale, scale, usable

__all__ = ["MOST_POINTS", "Plot", "curve", "histogram", "intervals", "points"]


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
    left = max([width_of(name) for name in names], default=0) * LETTER + GAP
    right = max([width_of(words) for words in figures], default=0) * LETTER + GAP
    reach = [float(v) for row in there for v in row[1:] if usable(v)]
    reach += [mark[1]] if mark and usable(mark[1]) else []
    left, right = max(left, 40.0), max(right, 40.0)
    over = scale(reach, left, WIDTH - right, most=int((WIDTH - right - left) / 70))
    top, line = (22.0 if mark else 8.0), 26.0
    bottom = top + line * max(1, len(shown))
    parts = [axis_below(over, bottom, top, axis)]
    if mark and usable(mark[1]):
        at = over.at(mark[1])
        side = "end" if at > (over.start + over.end) / 2 else "start"
        parts.append(rule("mark", at, at, top - 6, bottom))
        parts.append(text(at, top - 10, label(mark[0]), anchor=side, kind="marked"))
    for at, (row, name, words) in enumerate(zip(shown, names, figures, strict=True)):
        y = top + line * (at + 0.5)
        parts.append(text(left - GAP, y + 4, name, anchor="end"))
        parts.append(text(WIDTH, y + 4, words, anchor="end", kind="figure"))
        if usable(row[2]):
            parts.append(_whisker(over, y, row))
    if not there:
        parts.append(nothing((over.start + over.end) / 2, (top + bottom) / 2))
    note = note_of(
        (len(given) - len(shown), f"{len(given) - len(shown):,} further rows are not drawn"),
        (len(shown) - len(there), without(len(shown) - len(there), "value")),
        (bare, without(bare, "interval")),
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
        ends = "".join(f"M{n_of(x)} {n_of(y - 5)}v10" for x in (a, b))
        drawn = f'<path class="whisker" d="M{n_of(a)} {n_of(y)}H{n_of(b)}{ends}"/>'
    return f'{drawn}<circle class="mean" cx="{n_of(over.at(float(mean)))}" cy="{n_of(y)}" r="4.5"/>'


# --- histograms -----------------------------------------------------------------------------------


def histogram(series: Mapping[Any, Any], *, title: str, axis: str, bins: int = 40) -> Plot:
    """Draw how the values of each series are spread, over each other, as shares of the series.

    `series`: {label: values (n,)}, at most 8 are drawn. Costs time in proportion to the values.

    >>> histogram({"a": [1, 2, float("nan")]}, title="t", axis="x").note
    '1 value that is no finite number is left out'
    """
    names, columns, gone = [], [], 0
    for name, values in list(series.items())[:MOST_SERIES]:
        found, lost = finite(values)
        names.append(label(name))
        columns.append(found)
        gone += lost
    together = np.concatenate(columns) if columns else np.empty(0)
    span = scale(ends(together), 0.0, 1.0)
    edges = np.linspace(span.low, span.high, max(1, min(int(bins), 400)) + 1)
    counts = [np.histogram(each, edges)[0] for each in columns]
    shares = [each / max(1, int(each.sum())) for each in counts]
    top, bottom = 30.0 if len(names) > 1 else 12.0, 250.0
    most = max((float(each.max()) for each in shares), default=0.0)
    upward = scale([0.0, most or 1.0], bottom, top, most=4)
    across = Scale(span.low, span.high, left_of(upward), WIDTH - 28, span.step)
    parts = [axis_below(across, bottom, top, axis), axis_left(upward, across, "share of values")]
    for at, share in enumerate(shares):
        if len(columns[at]):
            parts.append(_steps(across, upward, edges, share, at))
    if not len(together):
        parts.append(nothing((across.start + across.end) / 2, (top + bottom) / 2))
    if len(names) > 1:
        parts.append(legend([(name, at) for at, name in enumerate(names)], across.start, 14, "line"))
    told = [_spread(name, each) for name, each in zip(names, columns, strict=True)]
    note = note_of(further(len(series) - len(names)), (gone, odd(gone)))
    data = {"edges": edges, "counts": dict(zip(map(str, series), counts, strict=False))}
    words = f"{axis}. {'; '.join(told) or 'No values.'}"
    return Plot(title, words, WIDTH, bottom + 42, "".join(parts), note, data)


def _steps(across: Scale, upward: Scale, edges: Any, share: Any, at: int) -> str:
    xs = [n_of(across.at(float(x))) for x in edges]
    ys = [n_of(upward.at(float(y))) for y in share]
    floor = n_of(upward.at(0.0))
    steps = "".join(f"V{y}H{x}" for y, x in zip(ys, xs[1:], strict=True))
    return f'<path class="area s{at + 1}"{dash(at)} d="M{xs[0]} {floor}{steps}V{floor}"/>'


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
    across = scale(xs, left_of(upward), WIDTH - 28, tight=len(set(xs)) > 1)
    parts = [axis_below(across, bottom, top, x_axis), axis_left(upward, across, y_axis)]
    for at, line in enumerate(lines):
        parts.append(_band(across, upward, line, at))
    for at, line in enumerate(lines):
        parts.append(_line(across, upward, line, at))
    if not flat:
        parts.append(nothing((across.start + across.end) / 2, (top + bottom) / 2))
    if len(names) > 1:
        parts.append(legend([(name, at) for at, name in enumerate(names)], across.start, 14, "line"))
    told = [_from_to(name, line) for name, line in zip(names, lines, strict=True)]
    words = f"{y_axis} by {x_axis}. {'; '.join(told) or 'No values.'}"
    note = note_of(further(len(series) - len(names)), (gone, odd(gone)))
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
    above = "L".join(f"{n_of(across.at(p[0]))} {n_of(upward.at(p[3]))}" for p in inner)
    below = "L".join(f"{n_of(across.at(p[0]))} {n_of(upward.at(p[2]))}" for p in reversed(inner))
    return f'<path class="band s{at + 1}" d="M{above}L{below}Z"/>'


def _line(across: Scale, upward: Scale, line: Sequence[Any], at: int) -> str:
    places = [(across.at(p[0]), upward.at(p[1])) for p in line]
    drawn = "L".join(f"{n_of(x)} {n_of(y)}" for x, y in places)
    path = f'<path class="line s{at + 1}"{dash(at)} d="M{drawn}"/>' if len(places) > 1 else ""
    return path + ("".join(shape(x, y, at, 3.5) for x, y in places) if len(places) <= 60 else "")


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
    deep = legend_depth(keys, 8.0)
    across, upward = _one_unit(places[drawn], 8.0, deep + 10)
    parts = [
        f'<rect class="frame" x="8" y="{n_of(deep + 10)}" width="{n_of(WIDTH - 16)}" height="{n_of(_MAP)}"/>',
        *(legend(keys, 8.0, 14, "point") if keys else ""),
    ]
    series = [0 if names is None else colours.get(names[i], -1) for i in drawn]
    for at, i in sorted(zip(series, drawn, strict=True), key=lambda each: each[0] >= 0):
        told = "" if labels is None else f"<title>{escape(label(labels[i], 80))}</title>"
        parts.append(shape(across.at(places[i, 0]), upward.at(places[i, 1]), at, 2.8, told))
    if not len(drawn):
        parts.append(nothing(WIDTH / 2, deep + 10 + _MAP / 2))
    some = (len(kept) - len(drawn), f"{len(drawn):,} of {len(kept):,} points are drawn")
    note = note_of(some, (gone, odd(gone, "point")))
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
