"""What does an advice on shorter vectors say? The options, the verdict, the page, the lines to run.

Worked out by advise.py. `best` and `sure` are its A2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from vecdb.evaluation.shorter import Shorter
from vecdb.evaluation.significance import Estimate, interval
from vecdb.evaluation.verdict import counted
from vecdb.reports.base import Report
from vecdb.reports.page import Code, Prose, Section, Table
from vecdb.reports.plots import curve, intervals
from vecdb.shown import text_table

SHOWN: Final = 14  # options in a printed advice
NEAR: Final = 0.25  # of the share below which an option is listed, but not shown


@dataclass(frozen=True, eq=False)
class Option:
    """One way to store the vectors, and what it keeps of the quality.

    `.shorter` maps vectors to it; `.name`, `.dim`, `.way`, `.dtype`, `.bytes` a vector; `.quality` an
    Estimate, `.mean` its mean; `.share` of the quality of the vectors as they are, with its interval `.low`
    to `.high`; `.keeps`: "surely", "by the estimate", "perhaps" or "no".
    """

    shorter: Shorter
    figures: dict[Any, float]  # by query
    share: float
    low: float
    high: float
    keeps: str
    more: int | None  # judged queries that would settle it
    seed: int

    @cached_property
    def quality(self) -> Estimate:
        """The quality by itself; its interval is worked out when it is asked for."""
        return interval(self.figures, seed=self.seed)

    @property
    def mean(self) -> float:
        """The mean of the figures."""
        return sum(self.figures.values()) / len(self.figures)

    @property
    def name(self) -> str:
        """How it is called in the report."""
        return self.shorter.name

    @property
    def dim(self) -> int:
        """Its dimensions."""
        return self.shorter.dim

    @property
    def way(self) -> str:
        """How it comes to fewer."""
        return self.shorter.way

    @property
    def dtype(self) -> str:
        """What it is stored as."""
        return self.shorter.dtype

    @property
    def bytes(self) -> int:
        """Bytes of a stored vector."""
        return self.shorter.bytes

    @property
    def says(self) -> str:
        """The same in a sentence."""
        words = {"first dimensions": f"the first {self.dim} dimensions", "principal components":
                 f"{self.dim} principal components"}.get(self.way, f"{self.dim} dimensions")  # fmt: skip
        return f"{words} as {self.dtype}"

    @property
    def documents(self) -> Any:
        """See `Shorter.documents`."""
        return self.shorter.documents

    @property
    def queries(self) -> Any:
        """See `Shorter.queries`."""
        return self.shorter.queries

    @property
    def encoder(self) -> Any:
        """See `Shorter.encoder`."""
        return self.shorter.encoder

    def __repr__(self) -> str:
        return (
            f"Option({self.name}, {counted(self.bytes, 'byte')}, keeps {self.share:.1%} "
            f"[{self.low:.1%}, {self.high:.1%}]: {self.keeps})"
        )


class Advice(Report):
    """Which shorter vectors keep the quality; made by `vecdb.advise`.

    `.base`: the vectors as they are; `.options`: every way, cheapest first; `.best`: the cheapest that keeps
    the share `.keep` by the estimate; `.sure`: the cheapest that surely does; `.verdict`, `.code`: in words,
    and as lines to run. `.metric`, `.queries` (judged ones), `.left_out` {name: why}.
    """

    def __init__(
        self, options: list[Option], base: Option, *, metric: str, keep: float, queries: int, of: str,
        using: str | None, encoder: str | None, notes: list[str], left_out: dict[str, str],
    ) -> None:  # fmt: skip
        self.options = sorted(options, key=lambda each: (each.bytes, -each.share))
        self.base, self.metric, self.keep, self.queries = base, metric, keep, queries
        self.collection, self.using, self.encoder_name = of, using, encoder
        self.notes, self.left_out = notes, left_out
        self.best = next(each for each in self.options if each.share >= keep)
        self.sure = next(each for each in self.options if each.keeps == "surely")
        self.title = f"How few bytes are enough for {of!r}?"
        self.subtitle = f"{base.dim} dimensions as {base.dtype}, {queries:,} judged queries, {metric}"

    @property
    def verdict(self) -> str:
        """The answer in words."""
        best, base = self.best, self.base
        whole = f"{100 * self.keep:.4g} %"
        if best is base:
            return (
                f"Nothing cheaper keeps {whole} of {self.metric}: stay with {base.dim} dimensions as "
                f"{base.dtype}, {counted(base.bytes, 'byte')} a vector."
            )
        said = (
            f"{best.says[0].upper()}{best.says[1:]} take {counted(best.bytes, 'byte')} a vector in place of "
            f"{base.bytes:,} ({100 * best.bytes / base.bytes:.1f} %) and keep {_interval(best)} of "
            f"{self.metric} {base.mean:.3f}"
        )
        if best.keeps == "surely":
            told = counted(self.queries, "query")
            return f"{said}. That they keep {whole} is sure, as far as {told} can tell."
        settled = (
            "more judged queries would" if math.isnan(best.low) else
            f"about {counted(best.more, 'more judged query')} would" if best.more is not None else
            "no number of judged queries worth making would"
        )  # fmt: skip
        surely = (
            "nothing cheaper than what there is" if self.sure is base else
            f"{self.sure.says}, {counted(self.sure.bytes, 'byte')}, keep {_interval(self.sure)}"
        )  # fmt: skip
        return (
            f"{said}. {counted(self.queries, 'judged query')} cannot tell whether that is {whole} or less: "
            f"{settled}. Surely at least {whole}: {surely}."
        )

    @property
    def code(self) -> str:
        """Lines that make a collection of the cheaper vectors, with `advice` and `papers` at hand."""
        return _code(self)

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame, a row an option, cheapest first.

        InvalidArgument where pandas (extra `pandas`) is not installed.
        """
        from vecdb.frames import frame

        rows = self._rows(self.options)
        return frame({name: [row[at] for row in rows] for at, name in enumerate(_COLUMNS)})

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values."""
        return {
            "title": self.title, "metric": self.metric, "keep": self.keep, "queries": self.queries,
            "verdict": self.verdict, "base": self.base.name, "best": self.best.name, "sure": self.sure.name,
            "options": [dict(zip(_COLUMNS, row, strict=True)) for row in self._rows(self.options)],
            "left_out": self.left_out, "notes": self.notes, "code": self.code,
        }  # fmt: skip

    def sections(self) -> list[Section]:
        """Return the parts of the page."""
        front = self.front()
        mark = (f"{100 * self.keep:.4g} %", 100 * self.keep)
        drawn = [
            (f"{each.name}, {counted(each.bytes, 'byte')}", 100 * each.low, 100 * each.share, 100 * each.high)
            for each in front
            if each.share > self.keep - NEAR
        ]
        notes = [Prose("\n\n".join(self.notes))] if self.notes else []
        left = [Table(("way", "why"), list(self.left_out.items()), "Left out")] if self.left_out else []
        return [
            Section("Verdict", [Prose(self.verdict, strong=True), *notes]),
            Section("What is kept", [
                intervals(
                    drawn, title="Ways for which nothing cheaper is better, with paired 95 % intervals",
                    axis=f"share of {self.metric} that is kept, %", mark=mark,
                ),
                curve(
                    self._curves(), title="Dimensions, by how they are chosen, with 95 % intervals",
                    x_axis="dimensions", y_axis=self.metric,
                ),
            ]),
            Section("To do it", [Code(self.code)]),
            Section("All that was tried", [
                Table(_COLUMNS[1:], [row[1:] for row in self._rows(self.options)]), *left,
            ]),
        ]  # fmt: skip

    def front(self) -> list[Option]:
        """Return the options than which nothing cheaper is as good, cheapest first; with best, sure, base."""
        found, most = [], -math.inf
        for each in self.options:
            if each.share > most or each in (self.best, self.sure, self.base):
                found.append(each)
            most = max(most, each.share)
        return found

    def __str__(self) -> str:
        front = self.front()
        cheap = [each for each in front if each.bytes <= self.base.bytes and each.share > self.keep - NEAR]
        at = cheap.index(self.best)
        shown = cheap[max(0, min(at - SHOWN // 2, len(cheap) - SHOWN)) :][:SHOWN]
        for each in (self.sure, self.base):
            if each not in shown:
                shown.append(each)
        rows = [
            (f"{each.bytes:,}", f"{each.mean:.3f}", f"{100 * each.share:.1f} %",
             "" if math.isnan(each.low) else f"{100 * each.low:.1f} to {100 * each.high:.1f}", each.name,
             each.keeps)
            for each in shown
        ]  # fmt: skip
        head = [("bytes", self.metric, "kept", "interval", "", f"keeps {100 * self.keep:.4g} %")]
        return "\n".join([self.verdict, *text_table(head + rows, numbers=4), *(f"  {n}" for n in self.notes)])

    __repr__ = __str__

    def _rows(self, options: list[Option]) -> list[tuple[Any, ...]]:
        return [
            (
                each.name, each.dim, each.way, each.dtype, each.bytes, each.mean, each.share,
                each.low, each.high, each.keeps,
            )
            for each in options
        ]  # fmt: skip

    def _curves(self) -> dict[str, list[tuple[Any, ...]]]:
        """Quality by dimensions of each way, as stored now."""
        whole = self.base.quality
        lines: dict[str, list[tuple[Any, ...]]] = {}
        for each in self.options:
            if each.dtype == self.base.dtype and each.way != "as they are":
                found = each.quality
                lines.setdefault(each.way, []).append((each.dim, found.mean, found.low, found.high))
        for line in lines.values():
            line.append((self.base.dim, whole.mean, whole.low, whole.high))
        return lines or {"as they are": [(self.base.dim, whole.mean, whole.low, whole.high)]}


_COLUMNS: Final = ("name", "dim", "way", "dtype", "bytes", "quality", "share", "low", "high", "keeps")


def _interval(option: Option) -> str:
    if math.isnan(option.low):
        return f"{100 * option.share:.1f} %"
    return f"{100 * option.share:.1f} % [{100 * option.low:.1f}, {100 * option.high:.1f}]"


def _code(advice: Advice) -> str:
    """Lines that make the cheaper collection."""
    best, papers, using = advice.best, advice.collection, advice.using
    if best is advice.base:
        return "# nothing to change"
    name = f"{papers}-cheaper"
    vectors = "papers.vectors(some)" if using is None else f"papers.vectors(some, using={using!r})"
    if advice.encoder_name is not None:
        lines = ["best = advice.best", f"encoder = vecdb.encoders.get({advice.encoder_name!r})"]
    else:
        lines = ["best = advice.best"]
    if advice.encoder_name is not None and best.dtype in ("f32", "f16"):
        lines += [
            f"cheaper = db.create_collection({name!r}, encoder=best.encoder(encoder), dtype={best.dtype!r})"
        ]
        search = 'cheaper.search("a text", k=10)'
    else:
        metric = best.shorter.metric
        declared = f"dim={best.dim}, dtype={best.dtype!r}, metric={metric!r}"
        lines += [f"cheaper = db.create_collection({name!r}, {declared})"]
        asked = "encoder.encode_queries([\"a text\"])[0]" if advice.encoder_name is not None else "query"
        search = f"cheaper.search(best.queries({asked}), k=10)"
    return "\n".join(
        [
            *lines,
            "ids = [record.id for record in papers]",
            "for at in range(0, len(ids), 10_000):",
            "    some = ids[at : at + 10_000]",
            "    rows = papers.get(some)",
            "    cheaper.add(",
            f"        some, best.documents({vectors}),",
            "        texts=[row.text for row in rows], metadata=[row.metadata for row in rows],",
            "    )",
            search,
        ]
    )
