"""What are pictures made of? Axes, legends, points and texts in SVG, and the picture as a value.

Coordinates are pixels to a tenth; colours and widths are the page's, by class (style.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

import numpy as np

from vecdb.reports.cells import clean, label, width_of
from vecdb.reports.scales import LARGEST, Scale, usable

WIDTH: Final = 680.0
MOST_POINTS: Final = 2_000
MOST_ROWS: Final = 100
MOST_SERIES: Final = 8  # as many colours; further groups are drawn as one
LETTER: Final = 7.0  # pixels, of the labels' font at 12
GAP: Final = 10.0
DASHES: Final = ("", "7 3", "2 3", "9 3 2 3")
CORNERS: Final = ("circle", "square", "triangle", "diamond")


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
            f'<svg class="plot" role="img" viewBox="0 0 {n_of(self.width)} {n_of(self.height)}" '
            f'xmlns="http://www.w3.org/2000/svg" aria-labelledby="{name}-t {name}-d">'
            f'<title id="{name}-t">{escape(clean(self.title))}</title>'
            f'<desc id="{name}-d">{escape(clean(self.description, 2_000))}</desc>{self.inside}</svg>'
        )


def finite(values: Any) -> tuple[Any, int]:
    """The values that can be drawn, float64, and how many cannot."""
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind and kind in "iufb":
        flat = np.asarray(values, np.float64).ravel()
        found = flat[np.abs(flat) <= LARGEST]
        return found, len(flat) - len(found)
    listed = list(values)
    kept = [float(value) for value in listed if usable(value)]
    return np.array(kept, np.float64), len(listed) - len(kept)


def ends(values: Any) -> list[float]:
    """The least and the largest value, where there are any."""
    return [float(values.min()), float(values.max())] if len(values) else []


def axis_below(over: Scale, bottom: float, top: float, words: str) -> str:
    """An axis below a plot: its line, ticks, grid and name."""
    parts = [rule("axis", over.start, over.end, bottom, bottom)]
    for x, name in over.ticks:
        parts.append(rule("grid", x, x, top, bottom))
        parts.append(text(x, bottom + 16, name, anchor="middle", kind="tick"))
    middle = (over.start + over.end) / 2
    room = int(2 * min(middle, WIDTH - middle) / LETTER)
    parts.append(text(middle, bottom + 34, label(words, room), anchor="middle", kind="name"))
    return "".join(parts)


def axis_left(upward: Scale, across: Scale, words: str) -> str:
    """Ticks, grid and name to the left of a plot."""
    parts = []
    for y, name in upward.ticks:
        parts.append(rule("grid", across.start, across.end, y, y))
        parts.append(text(across.start - 6, y + 4, name, anchor="end", kind="tick"))
    middle = (upward.start + upward.end) / 2
    turned = f'transform="rotate(-90 10 {n_of(middle)})" '
    parts.append(text(10, middle + 4, label(words, 40), anchor="middle", kind="name", more=turned))
    return "".join(parts)


def left_of(upward: Scale) -> float:
    """Where the plot begins behind the labels of its left axis."""
    return 30 + LETTER * max(width_of(name) for _, name in upward.ticks)


def legend_depth(keys: Sequence[tuple[str, int]], start: float) -> float:
    """How far down a legend reaches."""
    y = 14.0 if keys else 0.0
    x = start
    for name, _ in keys:
        wide = 38 + width_of(name) * LETTER
        if x > start and x + wide > WIDTH:
            x, y = start, y + 18
        x += wide
    return y


def legend(keys: Sequence[tuple[str, int]], start: float, y: float, kind: str) -> str:
    """What each series is called, in as many lines as it takes."""
    parts, x = [], start
    for name, at in keys:
        wide = 38 + width_of(name) * LETTER
        if x > start and x + wide > WIDTH:
            x, y = start, y + 18
        if kind == "line":
            parts.append(f'<path class="line s{at + 1}"{dash(at)} d="M{n_of(x)} {n_of(y - 4)}h18"/>')
        else:
            parts.append(shape(x + 6, y - 4, at, 4.0))
        parts.append(text(x + (22 if kind == "line" else 14), y, name, kind="key"))
        x += wide
    return "".join(parts)


def shape(x: float, y: float, at: int, size: float, inside: str = "") -> str:
    """A point of series `at`; -1: of those that share a colour."""
    kind = CORNERS[at % len(CORNERS)] if at >= 0 else "circle"
    tag = f'class="dot s{at + 1}"'
    if kind == "circle":
        return f'<circle {tag} cx="{n_of(x)}" cy="{n_of(y)}" r="{n_of(size)}">{inside}</circle>'
    corners = {
        "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "triangle": ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)),
        "diamond": ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    }[kind]
    path = "L".join(f"{n_of(x + dx * size)} {n_of(y + dy * size)}" for dx, dy in corners)
    return f'<path {tag} d="M{path}Z">{inside}</path>'


def text(
    x: float, y: float, words: str, *, anchor: str = "start", kind: str = "label", more: str = ""
) -> str:
    """A text at a place."""
    place = f'{more}x="{n_of(x)}" y="{n_of(y)}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def rule(kind: str, x1: float, x2: float, y1: float, y2: float) -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{n_of(x1)}" x2="{n_of(x2)}" y1="{n_of(y1)}" y2="{n_of(y2)}"/>'


def nothing(x: float, y: float) -> str:
    """That there is nothing to draw."""
    return text(x, y + 4, "no values", anchor="middle", kind="nothing")


def dash(at: int) -> str:
    """The dashes of a series' line."""
    dashes = DASHES[at % len(DASHES)] if at >= 0 else ""
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def note_of(*said: tuple[int, str]) -> str:
    """What was said of counts that are not 0."""
    return "; ".join(words for count, words in said if count)


def further(count: int) -> tuple[int, str]:
    """How many series are not drawn, and the words for it."""
    return count, f"{count:,} further series are not drawn"


def odd(count: int, what: str = "value") -> str:
    """The words for numbers that are left out."""
    return f"1 {what} that is no finite number is left out" if count == 1 else (
        f"{count:,} {what}s that are no finite numbers are left out"
    )  # fmt: skip


def without(count: int, what: str) -> str:
    """The words for rows that lack something."""
    return f"{count:,} row{' has' if count == 1 else 's have'} no {what}"


def n_of(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    found = f"{float(value):.1f}"
    return found.removesuffix(".0") if found != "-0.0" else "0"
