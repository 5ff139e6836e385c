"""Which rows have these words, and which say most about them? BM25 over the columns of full text.

Any word counts; a row matches if it has one of them, all that are required, and none that is excluded.
Where several fields are asked, a word counts in each with the field's weight, and a row has a required
word if any of the fields has it. Scores do not depend on the filter: rows are counted over all that are
live, so that a page under a filter is a part of the ranking without it.

Invariants (base.py): R1 and R3 by `_text.View`, which scores the same to the bit with pruning and without;
ties are settled by id here: it returns every row that scores as high as the last.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009); pruning as in
Ding and Suel, Faster Top-k Document Retrieval Using Block-Max Indexes (2011).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from pyroaring import BitMap

from vecdb.errors import InvalidArgument
from vecdb.index import wording
from vecdb.index.columns import columns_of_texts
from vecdb.index.view import Cut, View, bitmap_of
from vecdb.query.objects import Text
from vecdb.ranking.base import Place, Ranked, Ranker, nothing
from vecdb.storage import keys
from vecdb.storage.schema import TEXT, Schema, TextField
from vecdb.text import grammar, highlight
from vecdb.types import Record

if TYPE_CHECKING:
    from vecdb.ranking.base import Rids, Scores

MOST_SNIPPETS: Final = 2  # of one text
SHOWN: Final = 8  # of a query's words, in a reason


@dataclass(frozen=True, slots=True)
class Highlight(highlight.Snippet):
    """A piece of a row's text that says what was asked for: `text`, `spans` of (start, end) in it, `field`.

    `start` is where it begins in the whole; `marked("<b>", "</b>")` puts marks around the words.
    """

    field: str = TEXT


class Allowed(NamedTuple):
    """The rows of a filter as `_text.View` takes them; None: all."""

    slots: bytes | None
    plain: Any

    @staticmethod
    def of(rids: BitMap | None, view: View) -> Allowed:
        """These rows of a view."""
        return Allowed.cut(None if rids is None else Cut(rids, view.slots))

    @staticmethod
    def cut(cut: Cut | None) -> Allowed:
        """The same of rows whose forms are at hand."""
        return Allowed(None, None) if cut is None else Allowed(cut.mask, cut.plain)


class TextRanker(Ranker):
    """A `Text`, ready to rank."""

    query: Text

    def __init__(self, place: Place, query: Text) -> None:
        super().__init__(place, query)
        schema = place.view.schema
        self._chosen, self._weights = fields_of(schema, query)
        self._words = place.verbs._follower().texts.at(place.txn, place.view)
        self._asked = wording.asked(self._words.columns, self._chosen, query.text, every=False)
        self._ranks = any(part.occur != wording.NOT for part in self._asked)
        self._load = self._words.loader(place.txn)
        self._clauses = wording.clauses(self._words, place.txn, self._asked, self._weights)
        self._allowed = Allowed.cut(place.cut)
        self._rows: BitMap | None = None

    def matching(self) -> int:
        """How many rows match."""
        if not self._ranks:
            return 0
        if self._rows is not None:
            return len(self._rows)
        return int(self._words.ask("count", self._clauses, self._load, *self._allowed))

    def rows(self) -> BitMap:
        """The rows that match; not to be changed."""
        if self._rows is None:
            self._rows = BitMap()
            if self._ranks:
                found = self._words.ask("match", self._clauses, self._load, *self._allowed)
                self._rows = bitmap_of(found)
        return self._rows

    def best(self, reach: int) -> Ranked:
        """The best `reach` of them, ties by id."""
        if not self._ranks or reach < 1:
            return nothing()
        found, scored = self._words.ask(
            "search", self._clauses, reach, self._load, *self._allowed, exact=self.place.request.exact
        )
        rids, scores = np.frombuffer(found, np.uint32), np.frombuffer(scored, np.float64)
        return settled(rids, scores, reach, self.place.ids)

    def scores(self, rids: Rids) -> Scores:
        """The exact scores of rows, NaN where a row does not match."""
        if not self._ranks:
            return np.full(len(rids), np.nan)
        wanted = np.ascontiguousarray(rids, np.uint32)
        found = np.frombuffer(self._words.ask("score", wanted, self._clauses, self._load), np.float64).copy()
        if self.place.allowed is not None:
            found[[rid not in self.place.allowed for rid in wanted.tolist()]] = np.nan
        return found

    def lacks(self, rid: int) -> str | None:
        """Why a live row of the filter does not match, after "it"; None where it does."""
        if rid in self.rows():
            return None
        names = [self._words.columns.listed[at].name for at in self._chosen]
        where = f"field {names[0]!r}" if len(names) == 1 else f"the fields {', '.join(map(repr, names))}"
        if not self._ranks:
            return f"has none of the words: the query names none that {where} could have"
        has = [self._has(part, rid) for part in self._asked]
        for part, here in zip(self._asked, has, strict=True):
            if part.occur == wording.NOT and here:
                return f"has the excluded {named(part)}"
        for part, here in zip(self._asked, has, strict=True):
            if part.occur == wording.MUST and not here:
                return f"lacks the required {named(part)} in {where}"
        if not self.texts(rid):
            return f"has no text in {where}"
        shown = [part.shown for part in self._asked if part.occur != wording.NOT]
        more = ", ..." if len(shown) > SHOWN else ""
        return f"has none of the words in {where}: {', '.join(map(repr, shown[:SHOWN]))}{more}"

    def _has(self, part: wording.Part, rid: int) -> bool:
        """Whether a row has what one part asks."""
        legs = [wording.core_leg(self._words, self.place.txn, leg, 1.0) for leg in part.legs]
        found = self._words.ask("score", np.array([rid], np.uint32), [(wording.MUST, legs)], self._load)
        return not np.isnan(np.frombuffer(found, np.float64)[0])

    def highlighter(self) -> Callable[[Record], list[Highlight]]:
        """What shows where a record says the words: by field, elements of lists apart."""
        fulltext = tuple(self.place.view.schema.fulltext.items())
        return partial(highlights, fulltext, self._chosen, self.query.text)

    def texts(self, rid: int) -> dict[str, list[Any]]:
        """The texts of a row in the fields that are asked, by name."""
        columns = self._words.columns
        found = columns.elements_of(self.place.txn, self._words.cid, rid)
        return {columns.listed[at].name: found[at] for at in self._chosen if found[at]}


def highlights(
    fulltext: tuple[tuple[str, TextField], ...], chosen: tuple[int, ...], text: str, record: Record
) -> list[Highlight]:
    """Where a record says the words of a text, in the chosen ones of a collection's fields with full text."""
    columns = columns_of_texts(fulltext)
    asked, found = grammar.parse(text), []
    for at in chosen:
        column = columns.listed[at]
        analyzer = column.analysis.analyzer
        wanted = asked.asked(analyzer)
        for element in columns.elements(at, record.text, record.metadata):
            for each in highlight.snippets(element, analyzer, wanted, most=MOST_SNIPPETS):
                if each.spans:
                    found.append(Highlight(each.text, each.start, each.spans, column.name))
    return found


def fields_of(schema: Schema, query: Text) -> tuple[tuple[int, ...], list[float]]:
    """The columns that a query asks, and a weight for every column."""
    known = list(schema.fulltext)
    if not known:
        raise InvalidArgument(
            f"Text: collection {schema.name!r} has no full text; create it with fulltext=True for the rows' "
            "texts, or fulltext=[...] for metadata fields"
        )
    for what, names in (("fields", query.fields or ()), ("weights", [name for name, _ in query.weights])):
        for name in names:
            if name not in schema.fulltext:
                raise InvalidArgument(
                    f"Text: {what}: {name!r:.60} is no field with full text of collection {schema.name!r}; "
                    f"there are: {', '.join(map(repr, known))}"
                )
    chosen = tuple(known.index(name) for name in (query.fields or known))
    given = dict(query.weights)
    return chosen, [given.get(name, 1.0) for name in known]


def settled(rids: Any, scores: Any, reach: int, ids: Any) -> Ranked:
    """The best `reach` of rows by falling score, ties by id; `rids` has every row that ties with the last."""
    return Ranked(by_id(rids, scores, ids)[:reach], scores[:reach])


def by_id(rids: Any, scores: Any, ids: Any) -> Any:
    """Rows by falling score, each run of equal ones put in the order of its ids: all are read at once."""
    listed = scores.tolist()
    tied = [at for at in range(1, len(listed)) if listed[at] == listed[at - 1]]
    if not tied:
        return rids
    at = sorted({*tied, *[each - 1 for each in tied]})
    there = rids[at]
    known = ids(there)
    if len({*map(type, known)}) > 1:  # else they order among themselves as keys do: str by code points
        known = [*map(keys.id_order, known)]
    falling = [-listed[each] for each in at]
    order = sorted(zip(falling, known, there.tolist(), strict=True))
    rids = rids.copy()
    rids[at] = [rid for _, _, rid in order]
    return rids


def named(part: wording.Part) -> str:
    """A part of the query in words."""
    kind = part.legs[0].kind
    word = {wording.TERM: "word", wording.PREFIX: "prefix", wording.PHRASE: "phrase"}[kind]
    return f"{word} {part.shown!r}"
