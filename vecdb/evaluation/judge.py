"""How does somebody make judgements in a terminal, by answering what tells most first?

A query is shown with one document at a time; the answer is a grade, one line each. Which documents, and in
what order, pooling.py says. How a document was found is not shown: it would lead the answer.

Invariants:
  J1  every answer until now is in what is returned, however it ends: quit, the end of the input, an
      interrupt, a terminal that is gone;
  J2  undo takes back one answer at a time, to the first one of this call;
  J3  what a text holds cannot speak to the terminal: control characters are shown as U+FFFD;
  J4  nothing waits for somebody who is not there: without a terminal and without `input` it is an error.

Rejected: single keys without Enter. A line can be piped, recorded and edited before it counts.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BufferedIOBase, RawIOBase
from typing import IO, TYPE_CHECKING, Any, Final

from vecdb.errors import InvalidArgument, VecdbError
from vecdb.evaluation.judgements import queries_of
from vecdb.evaluation.pooling import DEPTH, Pool, pooled, ways_of
from vecdb.reports.cells import clean, is_number
from vecdb.reports.scales import usable
from vecdb.types import Id

if TYPE_CHECKING:
    from vecdb.types import Hit

GRADES: Final = {0: "not relevant", 1: "touches it", 2: "relevant", 3: "just what was wanted"}
MOST_PER_QUERY: Final = 1_000
LINES: Final = 8  # of a document's text
WIDTH: Final = 88
FEWEST: Final = 5  # queries from which on the ways are compared
ASK: Final = "0-3, s skip, n next query, u undo, q quit, ? help: "
HELP: Final = """\
  0 not relevant    1 touches it    2 relevant    3 just what was wanted
  s  skip: leave this document unjudged     n  go on to the next query
  u  undo: take the last answer back        q  quit; what was answered is kept
  m  more of this document's text           ?  this help
"""

Qrels = dict[Any, dict[Id, int | float]]


def judge(
    collection: Any,
    queries: Any,
    *,
    per_query: int = 10,
    known: Any = None,
    using: str | None = None,
    searches: Any = None,
    input: IO[str] | None = None,
    output: IO[str] | None = None,
) -> Qrels:
    """Ask for grades; see `Collection.judge`."""
    collection._db._outside_transaction("judge")
    asked = checked_queries(queries)
    count = _count(per_query)
    qrels = checked_known(known)
    source, target = _streams(input, output)
    texts = any(isinstance(query, str) for query in asked.values())
    needed = _needs_ways(asked, using, searches)
    ways = ways_of(collection, using, searches, texts=texts) if needed else {}
    names = ", ".join(ways) or "themselves"
    with suppress(_Gone):
        _say(target, f"Ranking {len(asked):,} quer{'y' if len(asked) == 1 else 'ies'} by {names} ...\n")

    def wanted(qid: Any, order: list[Id]) -> list[Id]:
        return to_judge(order, qrels.get(qid, {}), count)

    pools = pooled(collection, asked, ways, max(DEPTH, 2 * count), wanted)
    sheet = Sheet(asked, pools, qrels, count)
    with suppress(_Gone):
        try:
            _Talk(sheet, source, target, str(collection.name)).run()
        except KeyboardInterrupt:  # J1
            pass
        _say(target, "\n" + summary(sheet))
    return sheet.qrels


class _Gone(Exception):
    """The terminal, or the stream that was given for one, is no longer there."""


class Sheet:
    """What is asked, in order, and what was answered: the judging without the talking.

    >>> from vecdb.evaluation.pooling import pool_of
    >>> sheet = Sheet({"q": "gpu"}, {"q": pool_of({"vectors": ["a", "b"]})}, {}, 10)
    >>> sheet.place, sheet.answer(2), sheet.place, sheet.undo(), sheet.qrels
    (('q', 'a'), None, ('q', 'b'), True, {})
    """

    def __init__(
        self, queries: Mapping[Any, Any], pools: Mapping[Any, Pool], qrels: Qrels, per_query: int
    ) -> None:
        self.queries, self.pools, self.qrels = queries, pools, qrels
        self.fresh = 0  # answers of this call
        self._turn = 0
        self._answered: list[tuple[int, bool]] = []  # turn, whether a grade was given
        self.turns: list[tuple[Any, Id]] = []
        for qid in pools:
            self.turns += [(qid, id) for id in to_judge(pools[qid].order, qrels.get(qid, {}), per_query)]

    @property
    def place(self) -> tuple[Any, Id] | None:
        """The query and the document that is asked for; None at the end."""
        return self.turns[self._turn] if self._turn < len(self.turns) else None

    def answer(self, grade: int | None) -> None:
        """Note a grade, None for a document that is skipped, and go on."""
        qid, id = self.turns[self._turn]
        if grade is not None:
            self.qrels.setdefault(qid, {})[id] = grade
            self.fresh += 1
        self._answered.append((self._turn, grade is not None))
        self._turn += 1

    def next_query(self) -> None:
        """Skip what is left of this query, as one answer."""
        here = self.turns[self._turn][0]
        self._answered.append((self._turn, False))
        while self._turn < len(self.turns) and self.turns[self._turn][0] == here:
            self._turn += 1

    def undo(self) -> bool:
        """Take the last answer of this call back; False where there is none (J2)."""
        if not self._answered:
            return False
        self._turn, graded = self._answered.pop()
        if graded:
            qid, id = self.turns[self._turn]
            del self.qrels[qid][id]
            self.fresh -= 1
            if not self.qrels[qid]:
                del self.qrels[qid]
        return True

    def standing(self) -> tuple[int, int, int, int]:
        """The query's number, of how many, the document's number in it, of how many."""
        order = list(dict.fromkeys(qid for qid, _ in self.turns))
        qid, _ = self.turns[self._turn]
        mine = [at for at, (each, _) in enumerate(self.turns) if each == qid]
        return order.index(qid) + 1, len(order), mine.index(self._turn) + 1, len(mine)


def to_judge(order: list[Id], judged: Mapping[Id, Any], per_query: int) -> list[Id]:
    """The documents to be asked for of one query: those first in order that are not judged yet."""
    unjudged = [id for id in order if id not in judged]
    return unjudged[: max(0, per_query - len(judged))]


class _Talk:
    """The talking: one question a line."""

    def __init__(self, sheet: Sheet, source: IO[str], target: IO[str], name: str) -> None:
        self.sheet, self.source, self.target, self.name = sheet, source, target, name
        self.lines = LINES

    def run(self) -> None:
        """Ask until there is nothing left, or somebody quits."""
        sheet = self.sheet
        if sheet.place is None:
            _say(self.target, f"Nothing in {self.name!r} is left to be judged.\n")
            return
        _say(self.target, HELP)
        shown: Any = None
        while sheet.place is not None:
            if sheet.place != shown:
                self.show(*sheet.place)
                shown = sheet.place
            _say(self.target, ASK)
            try:
                line = self.source.readline()
            except Exception:  # closed, no text, or a stream of somebody's own that failed (J1)
                raise _Gone from None
            if not isinstance(line, str) or not line:  # the end of the input
                return
            word = line.strip().lower()
            if word in ("q", "quit"):
                return
            if self.act(word):
                shown = None

    def act(self, word: str) -> bool:
        """Do what an answer says; whether the question is to be shown again."""
        sheet, place = self.sheet, self.sheet.place
        if word in ("0", "1", "2", "3"):
            sheet.answer(int(word))
        elif word in ("s", "skip"):
            sheet.answer(None)
        elif word in ("n", "next"):
            sheet.next_query()
        elif word in ("u", "undo"):
            if sheet.undo():
                return True
            _say(self.target, "  nothing to undo\n")
        elif word in ("m", "more"):
            assert place is not None
            self.show(*place, lines=10_000)
        else:
            _say(self.target, HELP)
        return False

    def show(self, qid: Any, id: Id, lines: int = LINES) -> None:
        """Show the query and one document."""
        number, queries, document, documents = self.sheet.standing()
        said = f"query {number:,} of {queries:,}, document {document:,} of {documents:,}"
        _say(self.target, f"\n[{said}; {self.sheet.fresh:,} answered]\n")
        _say(self.target, _block(f"{_asked(self.sheet.queries[qid])}", "? ", 4))
        hit = self.sheet.pools[qid].hits.get(id)
        _say(self.target, _block(_document(id, hit), "  ", lines))


def summary(sheet: Sheet) -> str:
    """What there is now, how the ways to search stand by it, and how many more queries would settle it."""
    judged = {qid: grades for qid, grades in sheet.qrels.items() if grades}
    pairs = sum(map(len, judged.values()))
    relevant = sum(grade > 0 for grades in judged.values() for grade in grades.values())
    lines = [
        f"{pairs:,} judgement{'' if pairs == 1 else 's'} ({sheet.fresh:,} new) of {len(judged):,} "
        f"quer{'y' if len(judged) == 1 else 'ies'}; {relevant:,} relevant."
    ]
    return "\n".join(lines + list(_standings(sheet))) + "\n"


def _standings(sheet: Sheet) -> Iterator[str]:
    """nDCG@10 of each way by these judgements, and what would settle which of the best two is better."""
    from vecdb.evaluation import metrics, significance

    metric = metrics.parse("ndcg@10")
    useful = [q for q, pool in sheet.pools.items() if any(g > 0 for g in sheet.qrels.get(q, {}).values())]
    values: dict[str, list[float]] = {}
    for qid in useful:
        for name, ranking in sheet.pools[qid].rankings.items():
            values.setdefault(name, []).append(metric.of(ranking, sheet.qrels[qid]))
    values = {name: each for name, each in values.items() if len(each) == len(useful)}
    if len(values) < 2 or len(useful) < FEWEST:
        return
    order = sorted(values, key=lambda name: -sum(values[name]))
    said = ", ".join(f"{name} {sum(values[name]) / len(useful):.3f}" for name in order)
    yield f"{metric.name} by these, over {len(useful):,} queries with a relevant document: {said}."
    first, second = order[:2]
    compared = significance.compare(values[first], values[second])
    if compared.p_value < 0.05:
        yield (
            f"{first} is better than {second} by {compared.difference:.3f} "
            f"[{compared.low:.3f}, {compared.high:.3f}], p = {compared.p_value:.3f}: that is settled."
        )
        return
    more = significance.more_needed(values[first], values[second])
    if more is None:
        yield f"No number of queries worth judging would settle {first} against {second}: they are too alike."
    else:
        yield f"About {more:,} more judged queries would settle {first} against {second}."


# --- what is given --------------------------------------------------------------------------------


def checked_queries(queries: Any) -> dict[Any, Any]:
    """{query id: text, vector or query object}; a list of texts is {text: text}."""
    if isinstance(queries, str):
        queries = [queries]
    if isinstance(queries, Mapping):
        found: dict[Any, Any] = queries_of(queries, texts=False)
    elif isinstance(queries, Sequence) and all(isinstance(each, str) for each in queries):
        found = {each: each for each in queries}
    else:
        raise InvalidArgument(
            f"queries is a {type(queries).__name__}; give {{query id: text}}, or a list of texts"
        )
    if not found:
        raise InvalidArgument("queries is empty: there is nothing to ask")
    for qid, query in found.items():
        if isinstance(query, str) and not query.strip():
            raise InvalidArgument(f"queries[{qid!r:.60}] is an empty text")
        if query is None or isinstance(query, bool | bytes | int | float):
            raise InvalidArgument(
                f"queries[{qid!r:.60}] is a {type(query).__name__}; give a text, a vector or a query object"
            )
    return found


def checked_known(known: Any) -> Qrels:
    """A copy of judgements {query id: {id: grade}}."""
    if known is None:
        return {}
    if not isinstance(known, Mapping):
        raise InvalidArgument(f"known is a {type(known).__name__}; give {{query id: {{id: grade}}}}")
    found: Qrels = {}
    for qid, grades in known.items():
        if not isinstance(grades, Mapping):
            raise InvalidArgument(f"known[{qid!r:.60}] is a {type(grades).__name__}; give {{id: grade}}")
        for id, grade in grades.items():
            if not is_number(grade) or not usable(grade):
                raise InvalidArgument(
                    f"known[{qid!r:.60}][{id!r:.60}] is {grade!r:.40}; a grade is a finite number"
                )
        found[qid] = dict(grades)
    return found


def _needs_ways(queries: Mapping[Any, Any], using: Any, searches: Any) -> bool:
    from vecdb.query.objects import Query

    given = all(isinstance(query, Query) for query in queries.values())
    return using is not None or searches is not None or not given


def _count(per_query: Any) -> int:
    if type(per_query) is not int or not 1 <= per_query <= MOST_PER_QUERY:
        raise InvalidArgument(f"per_query={per_query!r:.40}: give an int from 1 to {MOST_PER_QUERY:,}")
    return per_query


def _streams(source: Any, target: Any) -> tuple[Any, Any]:
    """Where answers come from and questions go to (J4)."""
    for name, stream, needed in (("input", source, "readline"), ("output", target, "write")):
        if stream is not None and (
            not hasattr(stream, needed) or isinstance(stream, RawIOBase | BufferedIOBase)
        ):
            raise InvalidArgument(f"{name} is a {type(stream).__name__}; give a text stream")
    if source is None:
        source = sys.stdin
        if source is None or not _is_terminal(source):
            raise InvalidArgument(
                "judge asks in a terminal, and there is none here: run it in one, or give input= (a text "
                "stream of answers, one a line) and output="
            )
    return source, sys.stdout if target is None else target


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


# --- what is shown --------------------------------------------------------------------------------


def _say(target: Any, text: str) -> None:
    """Write, with what the terminal cannot show as question marks."""
    encoding = getattr(target, "encoding", None) or "utf-8"
    try:
        safe = text.encode(encoding, "replace").decode(encoding)
    except (LookupError, TypeError):  # no encoding that Python knows
        safe = text
    try:
        target.write(safe)
        if hasattr(target, "flush"):
            target.flush()
    except Exception:  # as in reading
        raise _Gone from None


def _block(text: str, lead: str, lines: int) -> str:
    """A text in lines under a lead, cut (J3)."""
    found: list[str] = []
    limit = WIDTH * lines
    for part in clean(text, limit + WIDTH).splitlines():
        found += textwrap.wrap(part, WIDTH, expand_tabs=True) or [""]
    if len(found) > lines:
        found = [*found[: lines - 1], found[lines - 1][: WIDTH - 2] + " …"]
    return "".join(f"{lead}{line}\n" for line in found)


def _asked(query: Any) -> str:
    return query if isinstance(query, str) else f"{query!r:.300}"


def _document(id: Id, hit: Hit | None) -> str:
    """A document as somebody judges it: its title if it has one, its text, else its metadata."""
    if hit is None:
        return str(id)
    try:
        metadata, text = hit.metadata, hit.text
    except VecdbError as error:
        return f"{id}\n(cannot be read: {error})"
    title = metadata.get("title")
    said = [str(id)]
    if isinstance(title, str) and title.strip() and not (text or "").startswith(title):
        said.append(title.strip())
    if text and text.strip():
        said.append(text.strip())
    else:
        said += [f"{name}: {value!r:.200}" for name, value in metadata.items() if name != "title"]
    return "\n".join(said)
