"""What is one thing that a diagnosis looked at, and how bad is it?

Every check gives a `Finding`, also where all is well (severity "fine"): a report that shows what was looked
at is believed where it is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vecdb.diagnosis.limits import LIMITS

SEVERITIES: Final = ("fine", "note", "warning", "serious")
EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    `.code`; `.severity`: "fine", "note", "warning" or "serious"; `.value` and the `.threshold` it was
    compared with, whose `.source` is a paper or a measurement; `.says` in plain words; `.remedy`;
    `.examples`: the first ids, words or queries; `.about`: "texts", "words", "vectors", "space", "labels",
    "judgements" or "learning".

    >>> Finding("hubs", "warning", 6.1, 5.0, "a paper", "A few rows are near all.", "Look at them.").severity
    'warning'
    """

    code: str
    severity: str
    value: float
    threshold: float
    source: str
    says: str
    remedy: str
    examples: tuple[Any, ...] = ()
    about: str = field(default="")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values.

        >>> sorted(Finding("a", "fine", 0.0, 1.0, "", "", "").to_dict())[:3]
        ['about', 'code', 'examples']
        """
        names = ("code", "severity", "value", "threshold", "source", "says", "remedy", "about")
        return {name: getattr(self, name) for name in names} | {"examples": list(self.examples)}

    @property
    def rank(self) -> int:
        """How severe it is: 0 for fine to 3.

        >>> Finding("a", "note", 0.0, 1.0, "", "", "").rank
        1
        """
        return SEVERITIES.index(self.severity)


def found(
    about: str,
    code: str,
    value: float,
    says: str,
    remedy: str,
    examples: Sequence[Any] = (),
    *,
    at_most: str = "serious",
) -> Finding:
    """A check's finding, its severity by the limits; `at_most`: what it can be for other reasons."""
    limit = LIMITS[code]
    severity = limit.severity(float(value))
    if severity is not None and SEVERITIES.index(severity) > SEVERITIES.index(at_most):
        severity = None if at_most == "fine" else at_most
    return Finding(
        code, severity or "fine", float(value), limit.passed(severity), limit.source, says, remedy,
        tuple(examples[:EXAMPLES]), about,
    )  # fmt: skip


def per_cent(share: float) -> str:
    """A share as people read it: "0.07 %", "12 %".

    >>> per_cent(0.0007), per_cent(0.123)
    ('0.07 %', '12 %')
    """
    value = 100 * share
    if value and abs(value) < 0.095:
        return f"{value:.2g} %"
    return f"{value:.1f} %" if 0 < abs(value) < 9.95 else f"{value:.0f} %"
