"""A hostile filter costs an error or an answer, little memory and little time.

Memory is asserted; the processor's time, which a loaded machine stretches, is printed (`-s`): at
most 100 ms each is the aim.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import reduce
from typing import Any

import pytest

from tests.costs import cost, outcome
from vecdb import F
from vecdb.errors import FilterError
from vecdb.query.filter import as_filter

MIB = 1 << 20
MOST_BYTES = 50_000_000

DEEP: dict[str, Any] = reduce(lambda inner, _: {"$not": inner}, range(100_000), {"x": 1})
WIDE = {f"x{i}": i for i in range(200_000)}
HOSTILE: dict[str, Callable[[], Any]] = {
    "a string of 1 MB": lambda: as_filter("x == '" + "a" * (MIB - 10) + "'"),
    "more than 1 MB": lambda: as_filter("x == '" + "a" * MIB + "'"),
    "1 MB of clauses": lambda: as_filter(" and ".join(["x == 1"] * 80_000)),
    "1 MB of spaces": lambda: as_filter(" " * MIB),
    "1 MB of one word": lambda: as_filter("a" * MIB),
    "1 MB of parentheses": lambda: as_filter("(" * MIB),
    "10,000 parentheses": lambda: as_filter("(" * 10_000 + "x == 1" + ")" * 10_000),
    "10,000 nots": lambda: as_filter("not " * 10_000 + "x == 1"),
    "1 MB of list elements": lambda: as_filter(f"x in ({','.join(['1'] * 500_000)})"),
    "a million list elements": lambda: as_filter({"x": {"$in": list(range(1_000_000))}}),
    "a million alternatives": lambda: F.x.isin(range(1_000_000)),
    "a deep dict": lambda: as_filter(DEEP),
    "a wide dict": lambda: as_filter(WIDE),
    "1 MB of quotes": lambda: as_filter("'" * MIB),
    "1 MB of double quotes": lambda: as_filter('"' * MIB),
    "1 MB of dots": lambda: as_filter("a" + ".a" * 500_000),
    "1 MB of digits": lambda: as_filter("x == " + "9" * (MIB - 10)),
    "1 MB of signs": lambda: as_filter("=" * MIB),
    "a pattern of runs": lambda: as_filter("x like '" + "%a" * 400 + "'").matches({"x": "a" * 3_000}),
    "a pattern of blanks": lambda: as_filter("x like '" + "%_" * 400 + "'").matches({"x": "b" * 3_000}),
}
TEXTS = [
    "year > 1999 and tags contains any ('a','b') or not (x between 1 and 2)",
    "\"odd name\" == 'it''s' and within(place, 1, 2, 3)",
    "a.b like 'x%\\_y' and d >= datetime '2020-01-01T00:00Z' or z is not null",
    "x in (1, 2.5, -3e4, true, 'x') and y not in ('z') and name startswith 'a' or w exists",
]
PIECES = ["(", ")", "'", '"', ",", "not ", "%", "\0", "é", "99999", " ", "and", "datetime ", "\\", "."]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_costs_little(name: str) -> None:
    seconds, held = cost(HOSTILE[name], FilterError)
    print(f"{name}: {seconds * 1e3:.1f} ms, {held / 1e6:.1f} MB")
    assert held < MOST_BYTES


def test_every_prefix_and_mutation_of_a_filter_is_an_error_or_a_filter() -> None:
    rng = random.Random(5)
    texts = [text[:end] for text in TEXTS for end in range(len(text) + 1)]
    for _ in range(10_000):
        changed = list(rng.choice(TEXTS))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(2)] = rng.choice(PIECES)
        texts.append("".join(changed))
    slowest, filters = 0.0, 0
    for text in texts:
        started = time.process_time()
        found = outcome(lambda text=text: as_filter(text), FilterError)
        slowest = max(slowest, time.process_time() - started)
        filters += not isinstance(found, FilterError)
        if isinstance(found, FilterError):
            assert found.offset is None or 0 <= found.offset <= len(text)
    print(f"{len(texts):,} texts, {filters:,} of them filters, the slowest {slowest * 1e3:.2f} ms, seed 5")
