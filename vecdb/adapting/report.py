"""What did an adapter gain, on data that it never saw?

The figures are of the held-out part alone; the rest says how the adapter came about. What is stored with
an adapter in a database file is this, as plain data (`to_stored`), so that its report can still be printed
years later; the values of single queries are not kept.

Invariants (checked by tests/unit/test_adapter.py):
  R1  from_stored(to_stored()) equals the report, and what is no report is a ValueError;
  R2  an adapter helps where one of the deciding metrics surely gains and none of them loses. Surely: the
      paired interval lies above 0, and the paired randomisation test, corrected for the number of deciding
      metrics (Holm), rejects that there is no difference. The interval alone is too narrow for a handful of
      queries, where the test is exact. nDCG@10 and the average precision of 100 decide together over
      rankings: a query has few answers among its first ten, so that the first tells little of some tens of
      queries, and the second much more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Final

from vecdb.errors import InvalidArgument
from vecdb.evaluation.significance import holm
from vecdb.reports.base import Report
from vecdb.reports.page import Prose, Section, Table
from vecdb.reports.plots import intervals
from vecdb.shown import text_table

# How often no gain at all may pass for one. Rows with labels are each other's neighbours, so that their
# figures are not independent, as the test takes them to be: they are asked for more.
LEVELS: Final = {"queries": 0.05, "rows": 0.01}


@dataclass(frozen=True, slots=True)
class Change:
    """One metric on held-out data: means before and after, their paired difference with its 95 % interval.

    `p_value` of the paired randomisation test.

    >>> Change("ndcg@10", 0.42, 0.46, 0.04, 0.02, 0.06, 0.001)
    ndcg@10: 0.4200 -> 0.4600, +0.0400 (0.0200 to 0.0600, p 0.001)
    """

    metric: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def is_gain(self) -> bool:
        """Whether the difference is surely above 0, at 5 %."""
        return self.low > 0 and self.p_value < LEVELS["queries"]

    def __repr__(self) -> str:
        return (
            f"{self.metric}: {self.before:.4f} -> {self.after:.4f}, {self.difference:+.4f} "
            f"({self.low:.4f} to {self.high:.4f}, p {self.p_value:.2g})"
        )


@dataclass(frozen=True, slots=True)
class AdapterReport(Report):
    """What an adapter gained on held-out data, and how it was chosen.

    `report["ndcg@10"]` is a `Change`. `unit` is what was split: "queries" or "rows", of which `trained`,
    `validated` and `held_out` say how many. `candidates`: (what was tried, its score on the validation
    part), the best first. The first `deciding` changes decide `helps`.

    >>> change = Change("ndcg@10", 0.42, 0.46, 0.04, 0.02, 0.06, 0.001)
    >>> report = AdapterReport((change,), "whitening", "pairs", "queries", 80, 20, 25, 1400, 0.8)
    >>> report["ndcg@10"].difference, report.helps
    (0.04, True)
    """

    changes: tuple[Change, ...]
    method: str
    source: str
    unit: str
    trained: int
    validated: int
    held_out: int
    documents: int
    seconds: float
    candidates: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    deciding: int = 1

    @property
    def helps(self) -> bool:
        """Whether a deciding metric surely gains, and none of them loses."""
        first = self.changes[: self.deciding]
        if self.method == "identity" or any(each.difference < 0 for each in first):
            return False
        sure = holm([each.p_value for each in first])
        level = LEVELS.get(self.unit, 0.05)
        return any(each.low > 0 and p < level for each, p in zip(first, sure, strict=True))

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if not self.changes:
            return "nothing was held out, so nothing is known of its gain"
        first = self.changes[0]
        if self.helps:
            first = min(self.changes[: self.deciding], key=lambda each: each.p_value)
        gain = (
            f"{first.metric} {first.before:.3f} -> {first.after:.3f} "
            f"on {self.held_out:,} held-out {self.unit}"
        )
        if self.helps:
            return f"it helps: {gain}"
        if self.method == "identity":
            return f"nothing that was tried beats the vectors as they are: {gain}"
        return (
            f"it does not surely help: {gain} (interval of the gain {first.low:+.3f} to {first.high:+.3f}); "
            f"more {self.unit} may tell"
        )

    def __getitem__(self, metric: str) -> Change:
        for change in self.changes:
            if change.metric == metric:
                return change
        known = ", ".join(repr(change.metric) for change in self.changes)
        raise InvalidArgument(f"the report has no metric {metric!r:.60}; it has {known or 'none'}")

    def __repr__(self) -> str:
        rows = [("", "before", "after", "gain", "interval", "p"), *self._rows()]
        tried = [f"  tried {name}: {score:.4f}" for name, score in self.candidates]
        split = (
            f"  {self.method}, from {self.source}: {self.trained:,} {self.unit} learned from, "
            f"{self.validated:,} chose, {self.held_out:,} held out; {self.documents:,} documents, "
            f"{self.seconds:.1f} s"
        )
        lines = [f"Adapter: {self.verdict}", *text_table(rows), split, *tried]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    @property
    def title(self) -> str:  # type: ignore[override]
        """The heading of its page."""
        return "What the adapter gains"

    def sections(self) -> list[Section]:
        """Return the parts of the page, each under its title."""
        first = [Prose(self.verdict[:1].upper() + self.verdict[1:] + ".", strong=True)]
        gains = [(each.metric, each.low, each.difference, each.high) for each in self.changes]
        rows = [
            (each.metric, each.before, each.after, each.difference, each.low, each.high, each.p_value)
            for each in self.changes
        ]
        names = ("metric", "before", "after", "gain", "from", "to", "p")
        made = [
            ("method", self.method), ("learned from", self.source),
            (f"{self.unit} learned from", self.trained), (f"{self.unit} that chose", self.validated),
            (f"{self.unit} held out", self.held_out), ("documents", self.documents),
            ("seconds", round(self.seconds, 1)), *(("note", note) for note in self.notes),
        ]  # fmt: skip
        found = [Section("Verdict", first)]
        if rows:
            plot = intervals(gains, title="Gain on held-out data", axis="gain", mark=("no gain", 0.0))
            found.append(Section("Before and after", [Table(names, rows), plot]))
        found.append(Section("How it was made", [Table(("what", "value"), made)]))
        if self.candidates:
            tried = Table(("map", "score"), list(self.candidates), caption="On the part that chose")
            found.append(Section("What was tried", [tried]))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values, `verdict` and `helps` included."""
        changes = [{each.name: getattr(one, each.name) for each in fields(Change)} for one in self.changes]
        return {**self.to_stored(), "changes": changes, "verdict": self.verdict, "helps": self.helps}

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame, a row a metric: metric, before, after, difference, low, high, p_value.

        InvalidArgument where pandas (extra `pandas`) is not installed.

        >>> change = Change("ndcg@10", 0.42, 0.46, 0.04, 0.02, 0.06, 0.001)
        >>> report = AdapterReport((change,), "whitening", "pairs", "queries", 80, 20, 25, 1400, 0.8)
        >>> report.to_pandas().after.tolist()
        [0.46]
        """
        try:
            import pandas
        except ImportError:
            raise InvalidArgument(
                "to_pandas needs pandas, which is not installed: pip install 'vecdb-engine[pandas]'"
            ) from None
        return pandas.DataFrame(self.to_dict()["changes"], columns=[each.name for each in fields(Change)])

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                each.metric, f"{each.before:.4f}", f"{each.after:.4f}", f"{each.difference:+.4f}",
                f"{each.low:+.4f} to {each.high:+.4f}", f"{each.p_value:.2g}",
            )
            for each in self.changes
        ]  # fmt: skip

    def to_stored(self) -> dict[str, Any]:
        """Plain data for JSON, small: what an adapter in a file carries."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found["changes"] = [
            [getattr(change, each.name) for each in fields(Change)] for change in self.changes
        ]
        return found

    @classmethod
    def from_stored(cls, stored: Any) -> AdapterReport:
        """The report in plain data; ValueError where it is none."""
        if not isinstance(stored, Mapping):
            raise ValueError("an adapter's report is no JSON object")
        known = {each.name for each in fields(cls)}
        try:
            given = {name: value for name, value in stored.items() if name in known}
            given["changes"] = tuple(_change(each) for each in given["changes"])
            given["candidates"] = tuple((str(name), float(score)) for name, score in given["candidates"])
            given["notes"] = tuple(map(str, given["notes"]))
            given["deciding"] = int(given["deciding"])
            return cls(**given)
        except (TypeError, KeyError) as error:
            raise ValueError(f"an adapter's report is not whole: {error}") from None


def _change(stored: Any) -> Change:
    name, *numbers = stored
    numbers = [float(each) for each in numbers]
    if not isinstance(name, str) or not all(map(isfinite, numbers)):
        raise ValueError("a figure in an adapter's report is none")
    return Change(name, *numbers)

