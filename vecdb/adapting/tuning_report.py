"""What did a model gain by its training, on queries that it never saw?

As the report of an adapter (report.py): the same figures before and after, paired, with their interval and
the randomisation test, and the same word of whether it helps. Besides, how every step of the training did on
the queries that chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from vecdb.adapting.report import LEVELS, Change
from vecdb.encoders.base import Card
from vecdb.errors import InvalidArgument
from vecdb.evaluation.significance import compare
from vecdb.reports.base import Report
from vecdb.reports.page import Prose, Section, Table
from vecdb.reports.plots import curve
from vecdb.shown import text_table

if TYPE_CHECKING:
    import pandas

COLUMNS = ("metric", "before", "after", "gain", "low", "high", "p")


class Step(NamedTuple):
    """After how many epochs, the mean loss of the last of them, the score on the queries that choose."""

    epoch: float
    loss: float | None
    score: float | None


@dataclass(frozen=True)
class FineTuning(Report):
    """What `fine_tune` gained on held-out queries, and how.

    `report["ndcg@10"]` is a `Change`; the first of `changes` decides `helps`. `steps`: the course of the
    training; `chosen`: the one that was saved.
    """

    changes: tuple[Change, ...]
    encoder: str
    folder: str
    source: str
    trained: int
    validated: int
    held_out: int
    documents: int
    seconds: float
    steps: tuple[Step, ...]
    card: Card

    title = "Fine-tuning"

    @property
    def chosen(self) -> Step:
        """The step whose model was saved: the first of the best, the last where none could choose."""
        scored = [step for step in self.steps if step.score is not None]
        if not scored:
            return self.steps[-1]
        return max(scored, key=lambda step: (step.score or 0.0, -step.epoch))

    @property
    def helps(self) -> bool:
        """Whether the first metric surely gained: by its interval and by the randomisation test."""
        first = self.changes[0]
        return first.low > 0 and first.p_value < LEVELS["queries"]

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        first = self.changes[0]
        gain = f"{first.metric} {first.before:.3f} -> {first.after:.3f} on {self.held_out:,} held-out queries"
        if self.helps:
            return f"it helps: {gain}"
        if self.chosen.epoch == 0:
            return f"no training beat the model as it was, which was saved unchanged: {gain}"
        return f"it does not surely help: {gain} (interval {first.low:+.3f} to {first.high:+.3f})"

    def __getitem__(self, metric: str) -> Change:
        for change in self.changes:
            if change.metric == metric:
                return change
        known = ", ".join(repr(change.metric) for change in self.changes)
        raise InvalidArgument(f"the report has no metric {metric!r:.60}; it has {known}")

    def __repr__(self) -> str:
        rows = [("", "before", "after", "gain", "interval", "p")]
        rows += [
            (each.metric, f"{each.before:.4f}", f"{each.after:.4f}", f"{each.difference:+.4f}",
             f"{each.low:+.4f} to {each.high:+.4f}", f"{each.p_value:.2g}")
            for each in self.changes
        ]  # fmt: skip
        head = f"Fine-tuning of {self.encoder}: {self.verdict}"
        return "\n".join([head, *text_table(rows), f"  {self._how()}"])

    __str__ = __repr__

    def _how(self) -> str:
        return (
            f"from {self.source}: {self.trained:,} queries learned from, {self.validated:,} chose epoch "
            f"{self.chosen.epoch:g}, {self.held_out:,} held out; {self.documents:,} texts, "
            f"{self.seconds:.1f} s"
        )

    def sections(self) -> list[Section]:
        """Return the parts of the page: the verdict, the figures, the course, the model's card."""
        course = [(step.epoch, step.score, None, None) for step in self.steps if step.score is not None]
        plot = curve({"queries that choose": course}, title="Course of the training", x_axis="epochs",
                     y_axis=self.changes[0].metric)  # fmt: skip
        return [
            Section("Does it help?", [Prose(self.verdict, strong=True), Prose(self._how())]),
            Section("On held-out queries", [Table(COLUMNS, self._rows(), caption="Before and after")]),
            *([Section("Training", [plot])] if course else []),
            Section("The model", [Table(("", ""), list(self.card.facts().items()), caption=self.encoder)]),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values, the course of the training included."""
        return {
            "title": self.title, "encoder": self.encoder, "folder": self.folder, "source": self.source,
            "verdict": self.verdict, "helps": self.helps,
            "trained": self.trained, "validated": self.validated, "held_out": self.held_out,
            "documents": self.documents, "seconds": self.seconds,
            "changes": [dict(zip(COLUMNS, row, strict=True)) for row in self._rows()],
            "steps": [step._asdict() for step in self.steps], "chosen": self.chosen._asdict(),
            "card": self.card.facts(),
        }  # fmt: skip

    def to_pandas(self) -> pandas.DataFrame:
        """Return the figures as a data frame, a row for each metric (extra `pandas`)."""
        import pandas

        return pandas.DataFrame(self._rows(), columns=list(COLUMNS))

    def _rows(self) -> list[tuple[Any, ...]]:
        return [
            (each.metric, each.before, each.after, each.difference, each.low, each.high, each.p_value)
            for each in self.changes
        ]


def change(name: str, before: list[float], after: list[float], seed: int) -> Change:
    """What a metric gained, paired by query."""
    found = compare(after, before, seed=seed)
    return Change(name, fmean(before), fmean(after), found.difference, found.low, found.high, found.p_value)
