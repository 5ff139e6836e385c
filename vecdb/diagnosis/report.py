"""What does a diagnosis look like: printed, as a table, as JSON, as a page?

What was the model trained on comes first, then the verdict with its reasons, then what was found, the worst
first; all that was looked at, and what was left out and why, stand at the end.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vecdb.diagnosis.finding import Finding
from vecdb.errors import NotFound
from vecdb.frames import frame
from vecdb.reports import Prose, Report, Section, Table, plots

if TYPE_CHECKING:
    from vecdb.diagnosis.verdict import Evidence, Verdict
    from vecdb.encoders.base import Card

WIDTH: Final = 100
MAPPED: Final = 2000


class Diagnosis(Report):
    """What `vecdb.diagnose` returns.

    `.verdict` in words, with its `.cause` ("data", "vocabulary", "training", "none" or "open"), `.because`
    and `.remedy`; `.findings`: a list of Finding, those that are notes or worse, the worst first;
    `.checks`: all; `.left_out`: (what, why) of what could not be looked at; `.card` of the encoder.
    `report[code]` is the check of a code, `code in report` whether it was found. Prints, and `to_pandas()`,
    `to_json()`, `to_html()`.

    >>> import vecdb, numpy as np
    >>> c = vecdb.open().create_collection("c", dim=8)
    >>> _ = c.add(list(range(100)), np.random.default_rng(0).normal(size=(100, 8)))
    >>> report = vecdb.diagnose(c)
    >>> report.cause, report["zero-vectors"].severity, "hubs" in report
    ('open', 'fine', False)
    """

    def __init__(self, seen: Evidence, verdict: Verdict) -> None:
        self._seen = seen
        self.title = f"Diagnosis of {seen.subject.name}"
        self.checks: list[Finding] = list(seen.findings)
        self.findings: list[Finding] = sorted(
            (each for each in self.checks if each.rank), key=lambda each: -each.rank
        )
        self.verdict, self.cause = verdict.says, verdict.cause
        self.because, self.remedy = list(verdict.because), verdict.remedy
        self.left_out: list[tuple[str, str]] = list(seen.subject.left_out)
        self.card: Card | None = seen.subject.card
        self.subtitle = self._looked_at()

    def __getitem__(self, code: str) -> Finding:
        for each in self.checks:
            if each.code == code:
                return each
        raise NotFound(f"diagnosis: no check {code!r:.60} was made; made were "
        f"{', '.join(e.code for e in self.checks)}")

    def __contains__(self, code: object) -> bool:
        return any(each.code == code for each in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def ok(self) -> bool:
        """Whether nothing is worse than a note.

        >>> import vecdb
        >>> vecdb.diagnose("hashing", {"a": "wings of planes", "b": "leaves of trees"}).ok
        True
        """
        return all(each.rank < 2 for each in self.findings)

    # --- printed ---------------------------------------------------------------------------------

    def __str__(self) -> str:
        lines = [self.title, f"  {self.subtitle}", ""]
        if self.card is not None:
            for about, said in facts(self.card).items():
                lines += textwrap.wrap(
                    f"{about:<15}{said}", WIDTH, initial_indent="  ", subsequent_indent=" " * 17
                )
            lines.append("")
        lines += _wrapped(self.verdict, "")
        lines += [line for each in self.because for line in _wrapped(each, "  - ")]
        lines += _wrapped(self.remedy, "  → ") if self.remedy else []
        lines.append("")
        for each in self.findings:
            lines += _wrapped(f"{each.severity}: {each.code}. {each.says}.", "")
            if each.examples:
                lines += _wrapped(f"as {_listed(each.examples)}", "    ")
            if each.rank >= 2:
                lines += _wrapped(each.remedy, "  → ")
        fine = [each.code for each in self.checks if not each.rank]
        lines += _wrapped(f"fine: {', '.join(fine)}", "") if fine else []
        lines += [line for what, why in self.left_out for line in _wrapped(f"left out: {what}: {why}", "")]
        return "\n".join(lines)

    __repr__ = __str__

    def _looked_at(self) -> str:
        subject = self._seen.subject
        rows = f"{subject.drawn:,} rows were looked at, drawn with seed {subject.seed}"
        if subject.drawn >= subject.total:
            rows = f"all {subject.total:,} rows were looked at"
        extra = len(subject.ids) - subject.drawn
        more = f", and {extra:,} that are judged relevant" if extra else ""
        return f"{rows}{more}; {subject.dim:,} dimensions, {subject.metric}"

    # --- for programs ----------------------------------------------------------------------------

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame, a row a check: its code, severity, value, threshold, words and source.

        InvalidArgument where pandas (extra `pandas`) is not installed.

        >>> import vecdb
        >>> c = vecdb.open().create_collection("c", dim=2); _ = c.add([1, 2], [[1, 0], [0, 1]])
        >>> vecdb.diagnose(c).to_pandas().columns[0]
        'code'
        """
        names = ("code", "severity", "value", "threshold", "about", "says", "remedy", "source")
        return frame({name: [getattr(each, name) for each in self.checks] for name in names})

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values.

        >>> import vecdb
        >>> c = vecdb.open().create_collection("c", dim=2); _ = c.add([1, 2], [[1, 0], [0, 1]])
        >>> vecdb.diagnose(c).to_dict()["cause"]
        'open'
        """
        curve = self._seen.curve
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "card": None if self.card is None else facts(self.card),
            "verdict": self.verdict,
            "cause": self.cause,
            "because": self.because,
            "remedy": self.remedy,
            "checks": [each.to_dict() for each in self.checks],
            "left_out": [{"what": what, "why": why} for what, why in self.left_out],
            "learning_curve": None if curve is None else {
                "of": curve.of, "state": curve.state, "frozen": curve.frozen, "gain": list(curve.gain),
                "points": [list(each) for each in curve.points],
                "last_doubling": list(curve.last), "next_doubling": curve.next,
            },
        }  # fmt: skip

    # --- as a page -------------------------------------------------------------------------------

    def sections(self) -> list[Section]:
        """Return the parts of the page: the card, the verdict, findings, pictures, all checks.

        >>> import vecdb
        >>> c = vecdb.open().create_collection("c", dim=2); _ = c.add([1, 2], [[1, 0], [0, 1]])
        >>> [each.title for each in vecdb.diagnose(c).sections()][0]
        'Verdict'
        """
        parts = []
        if self.card is not None:
            parts.append(Section("What was the encoder trained "
            "on?", [Table(("about", "says"), list(facts(self.card).items()))]))
        reasons = [(each,) for each in self.because]
        body: list[Any] = [Prose(self.verdict, strong=True)]
        body += [Table(("because",), reasons)] if reasons else []
        body += [Prose(self.remedy)] if self.remedy else []
        parts.append(Section("Verdict", body))
        parts.append(Section("Findings", [self._table()]))
        parts += self._pictures()
        names = ("check", "severity", "value", "limit", "says", "source of the limit")
        keys = ("code", "severity", "value", "threshold", "says", "source")
        rows = [tuple(getattr(each, key) for key in keys) for each in self.checks]
        parts.append(Section("All that was looked at", [Table(names, rows)]))
        if self.left_out:
            parts.append(Section("Left out", [Table(("what", "why"), self.left_out)]))
        return parts

    def _table(self) -> Any:
        if not self.findings:
            return Prose("Nothing.")
        rows = [
            (each.severity, each.code, each.says, each.remedy, _listed(each.examples))
            for each in self.findings
        ]
        return Table(("severity", "code", "says", "remedy", "as"), rows)

    def _pictures(self) -> list[Section]:
        judged, curve, subject = self._seen.judged, self._seen.curve, self._seen.subject
        found = []
        if judged is not None and len(judged.relevant):
            plot = plots.histogram(
                {"relevant": judged.relevant, "random": judged.others}, title="Scores of relevant and of "
                "random pairs",
                axis="score" if subject.angular else "minus distance",
            )  # fmt: skip
            found.append(Section("Do scores tell what is relevant?", [plot]))
        if curve is not None:
            plot = plots.curve(
                {"with a map": curve.points, "as they "
                "are": [(x, curve.frozen, None, None) for x, *_ in curve.points]},
                title="nDCG@10 on held-out queries", x_axis=f"{curve.of} learned from", y_axis="nDCG@10",
            )  # fmt: skip
            found.append(Section("Would more pairs help?", [plot]))
        if len(subject.shape_rows) > 2:
            found.append(Section("A map of the vectors", [self._map()]))
        return found

    def _map(self) -> Any:
        """The first two principal components."""
        subject = self._seen.subject
        rows = subject.shape_rows[:MAPPED]
        cloud = subject.cloud[: len(rows)]
        centred = cloud - cloud.mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        places = centred @ axes[:, -2:][:, ::-1]
        if places.shape[1] < 2:
            places = np.concatenate([places, np.zeros((len(places), 1))], axis=1)
        labels = subject.labels
        groups = None if labels is None else ["none" if labels[row] is None else labels[row] for row in rows]
        return plots.points(
            places, groups, [str(subject.ids[row]) for row in rows], title="First two principal components"
        )


def facts(card: Any) -> dict[str, str]:
    """What a card says, also one of another package's encoder."""
    if callable(getattr(card, "facts", None)):
        found: dict[str, str] = card.facts()
        return found
    names = ("trained_on", "languages", "longest_input", "licence")
    return {name.replace("_", " "): str(getattr(card, name, "not stated")) for name in names}


def _listed(examples: Any) -> str:
    return ", ".join(each if isinstance(each, str) and " " in each else repr(each) for each in examples)


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * max(2, len(first)))
