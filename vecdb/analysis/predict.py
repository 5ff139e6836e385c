"""Which value would a row have, as its nearest neighbours have theirs? The answer to `papers.predict`.

Each neighbour votes with its score (types.py, `score_of`), one whose score is below 0 not at all;
where that leaves no weight, all vote alike. So votes count what somebody sees in `hits.scores`, and
under dot products, which have no scale, shares of them.

Invariants:
  J1  values are told apart as facets tell them: True and 1 are two, 1 and 1.0 one, NaN equals NaN;
  J2  of values with equal weight the one wins whose nearest voter is nearest.

Rejected: weights of 1 / distance. A neighbour at distance 0 outvotes any number of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf, isfinite, nan, sqrt
from typing import Any, Final

from vecdb.errors import InvalidArgument
from vecdb.facets import name_of
from vecdb.query.source import flat
from vecdb.shown import html_table, text_table
from vecdb.types import Hits

METHODS: Final = ("auto", "vote", "mean")
Vote = tuple[Any, float]  # a value and its weight


class Votes(Mapping[Any, float]):
    """Values with the weight of their votes, the winner first; tells True from 1."""

    __slots__ = ("_values", "_weights")

    def __init__(self, votes: Iterable[Vote]) -> None:
        values: dict[Any, Any] = {}
        weights: dict[Any, float] = {}
        for value, weight in votes:  # the nearest first, whose spelling counts
            name = name_of(value)
            values.setdefault(name, value)
            weights[name] = weights.get(name, 0.0) + weight
        order = sorted(weights, key=lambda name: -weights[name])  # stable: ties by the nearest
        self._values = [values[name] for name in order]
        self._weights = {name: weights[name] for name in order}

    def __getitem__(self, value: Any) -> float:
        try:
            return self._weights[name_of(value)]
        except (KeyError, TypeError):  # TypeError: not hashable, so no value of a field
            raise KeyError(value) from None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{value!r}: {self[value]:.4g}" for value in self) + "}"


class Prediction:
    """What the neighbours say: `.value`, `.confidence`, `.votes`, `.spread`, `.hits`.

    By vote: `.confidence` is the winner's share of all weights, 0 to 1; with lists, of the weights
    of the rows that voted. As a mean: `.spread` is the weighted standard deviation, and `.confidence`
    NaN. `.value` is None, and `.confidence` 0, where no neighbour has a value. `.hits` are those who
    were asked.

    >>> import vecdb
    >>> db = vecdb.open(); c = db.create_collection("c", dim=2, metric="l2")
    >>> _ = c.add([1, 2, 3], [[0, 0], [0, 1], [0, 3]], metadata=[{"n": 1.0}, {"n": 4.0}, {"n": 2}])
    >>> c.predict([0, 0], "n", k=2)
    Prediction of 'n' by 2 neighbours: 2.0, spread 1.4142
      1.0000  1.0
      0.5000  4.0
    >>> c.predict([0, 0], "n", k=2, method="vote").value
    1.0
    """

    __slots__ = ("confidence", "field", "hits", "spread", "value", "votes")

    def __init__(
        self, field: str, hits: Hits, votes: Votes, value: Any, confidence: float, spread: float
    ) -> None:
        self.field = field
        self.hits = hits
        self.votes = votes
        self.value = value
        self.confidence = confidence
        self.spread = spread

    def __repr__(self) -> str:
        rows = self._rows()
        return "\n".join([self._title(), *(text_table(rows, numbers=1) if rows else [])])

    def _repr_html_(self) -> str:
        return html_table(("weight", self.field), self._rows(), caption=self._title())

    def _rows(self) -> list[tuple[str, str]]:
        return [(f"{self.votes[value]:.4f}", repr(value)) for value in self.votes]

    def _title(self) -> str:
        sure = self.confidence == self.confidence
        measure = f"confidence {self.confidence:.3f}" if sure else f"spread {self.spread:.5g}"
        return (
            f"Prediction of {self.field!r} by {len(self.hits)} neighbours: {self.value!r}, {measure}"
        )


def checked_method(method: Any) -> str:
    """`method=`, or InvalidArgument."""
    if not isinstance(method, str) or method not in METHODS:
        raise InvalidArgument(f"method={method!r:.40}: give one of {', '.join(map(repr, METHODS))}")
    return method


def predict(hits: Hits, field: str, method: str) -> Prediction:
    """What the rows of a search say about a field that each of them has."""
    voters = _voters(hits, field)
    whole = sum(weight for _, weight in voters)
    votes = Votes(
        (each, weight) for value, weight in voters for each in _different(value)
    )
    if not len(votes):
        return Prediction(field, hits, votes, None, 0.0, nan)
    numbers = [(value, weight) for value, weight in voters if _is_number(value)]
    if method == "mean" and len(numbers) < len(voters):
        value = next(value for value, _ in voters if not _is_number(value))
        raise InvalidArgument(
            f"method='mean': a neighbour's {field!r} is {value!r:.60}, which is no number; use "
            "method='vote', or where= to leave such rows out"
        )
    floats = any(isinstance(value, float) for value, _ in numbers)
    if method == "mean" or (method == "auto" and floats and len(numbers) == len(voters)):
        mean, spread = _mean(numbers)
        return Prediction(field, hits, votes, mean, nan, spread)
    value = next(iter(votes))
    return Prediction(field, hits, votes, value, votes[value] / whole, nan)


def _voters(hits: Hits, field: str) -> list[Vote]:
    """The values of the rows and their weights, the nearest first."""
    found = []
    for hit in hits:
        value = flat(hit.metadata).get(field)
        if value is None or isinstance(value, Mapping) or value == []:
            continue
        weight = hit.score if 0 < hit.score < inf else 0.0
        found.append((value, weight))
    if found and not any(weight for _, weight in found):
        return [(value, 1.0) for value, _ in found]
    return found


def _different(value: Any) -> list[Any]:
    """What a row votes for: its value, or each element of a list, once."""
    if not isinstance(value, list):
        return [value]
    scalars = (each for each in value if each is not None and not isinstance(each, list | Mapping))
    return list({name_of(each): each for each in scalars}.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(numbers: list[Vote]) -> tuple[float, float]:
    """Weighted mean and standard deviation of the finite numbers; NaN where there is none."""
    finite = [(float(value), weight) for value, weight in numbers if isfinite(value)]
    whole = sum(weight for _, weight in finite)
    if not whole:
        return nan, nan
    mean = sum(value * (weight / whole) for value, weight in finite)
    largest = max(abs(value - mean) for value, _ in finite)
    if largest in (0, inf):
        return mean, largest
    squares = (((value - mean) / largest) ** 2 * (weight / whole) for value, weight in finite)
    return mean, largest * sqrt(sum(squares))
