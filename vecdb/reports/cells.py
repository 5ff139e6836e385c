"""How is a value written in a report? Text that may hold anything, and numbers that people compare.

Invariants (tests/unit/test_reports.py):
  C1  what `clean` returns can be written as UTF-8 and read as XML: no control character, no half of a
      surrogate pair, no mark that turns the direction of what follows;
  C2  a value is cut to its limit before anything else looks at it: a label of a million characters costs
      what a short one does;
  C3  the numbers of one column have as many decimals each.

Rejected: scientific notation wherever `%g` would choose it. A column of 0.012 and 1e-05 is hard to compare.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

LABEL: Final = 34  # characters beside a plot
CELL: Final = 200  # characters of a cell
NONE: Final = "–"
_UNWRITABLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\U0001fffe\U0001ffff]"
)
_TURNING: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_FIGURE: Final = re.compile(
    r"[<>≥≤≈~]?\s?[+\-−]?\d[\d,._]*(\s?[±×(\[–].*|\s?(%|[KMGT]?i?B|[mµun]?s|points?))?"
)


def clean(text: str, limit: int = CELL) -> str:
    """`text` cut to `limit` characters, with what cannot be written made visible as U+FFFD.

    >>> clean("a\\x00b\\ud800 and more", 9)
    'a�b� and…'
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return _TURNING.sub("", _UNWRITABLE.sub("\ufffd", text))


def label(value: Any, limit: int = LABEL) -> str:
    """A value as a short name on one line.

    >>> label("two\\nlines"), label(None), label("x" * 99, 5)
    ('two lines', '–', 'xxxx…')
    """
    if value is None:
        return NONE
    found = value if isinstance(value, str) else written(value)
    line = clean(" ".join(found[: 4 * limit].split()), limit)
    while width_of(line) > limit:
        line = line[: -2 if line.endswith("…") else -1] + "…"
    return line or "(empty)"


def width_of(text: str) -> float:
    """About how wide a text is, in letters: wide characters count two, marks on others nothing.

    >>> width_of("abc"), width_of("日本")
    (3.0, 4.0)
    """
    total = 0.0
    for each in text:
        if not unicodedata.combining(each):
            total += 2.0 if unicodedata.east_asian_width(each) in "WF" else 1.0
    return total


def is_number(value: Any) -> bool:
    """Whether it is an int or a float, of Python or numpy; a bool is none.

    >>> is_number(1), is_number(True), is_number("1")
    (True, False, False)
    """
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind is not None:
        return kind in "iuf" and getattr(value, "ndim", 1) == 0
    return isinstance(value, int | float) and not isinstance(value, bool)


def written(value: Any, decimals: int | None = None) -> str:
    """A value as people read it: thousands apart, floats with `decimals` places, None as a dash.

    >>> written(1234567), written(0.5), written(None), written(float("nan")), written(True)
    ('1,234,567', '0.500', '–', '–', 'yes')
    """
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b":
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    if is_number(value):
        return _number(value, decimals)
    try:
        return str(value)
    except Exception as error:  # an object of the user's: the report says what it can
        return f"<{type(value).__name__}: {type(error).__name__}>"


def decimals_of(values: Sequence[Any]) -> int:
    """How many decimals show the floats among `values` well beside each other (C3).

    >>> decimals_of([0.25, 0.5]), decimals_of([1234.5]), decimals_of([0.00021])
    (3, 0, 6)
    """
    sizes = [abs(float(v)) for v in values if is_number(v) and not _is_int(v) and math.isfinite(float(v))]
    largest = max(sizes, default=0.0)
    if largest == 0:
        return 3
    power = math.floor(math.log10(largest))
    return max(0, 3 - max(0, power)) if power >= -2 else min(12, 2 - power)


def column(values: Sequence[Any]) -> tuple[list[str], bool]:
    """The cells of a column as text, and whether they are numbers, to be set to the right.

    >>> column([1, None, 0.25]), column(["0.50 ± 0.01", "a"])
    ((['1', '–', '0.250'], True), (['0.50 ± 0.01', 'a'], False))
    """
    places = decimals_of(values)
    cells = [clean(written(value, places)) for value in values]
    there = [cell for cell in cells if cell not in (NONE, "")]
    return cells, bool(there) and all(_FIGURE.fullmatch(cell) or cell in ("∞", "−∞") for cell in there)


def _number(value: Any, decimals: int | None) -> str:
    if _is_int(value):
        whole = int(value)
        return f"{whole:,}" if abs(whole) < 10**15 else str(whole) if abs(whole) < 10**40 else "∞"
    number = float(value)
    if math.isnan(number):
        return NONE
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    if abs(number) >= 1e15:
        return f"{number:.3g}"
    places = decimals_of([number]) if decimals is None else decimals
    found = f"{number:,.{places}f}"
    if found.startswith("-"):
        return found[1:] if not found.strip("-0.,") else "−" + found[1:]
    return found


def _is_int(value: Any) -> bool:
    return isinstance(value, int) or getattr(getattr(value, "dtype", None), "kind", "-") in "iu"
