"""What may be read of a recipe's collection, and is an answer right at a given step?

A read is made first and judged later: each function here asks a collection, takes the answer apart
and returns what judges it, against any table that somebody thinks was shown. So the reader may find
out afterwards at which step it read, or try the few that come into question.

Searches are compared with brute force: under l2 distances are whole numbers squared and must be equal,
exact hits must have the least distances there are, ties in any order. Default hits must be rows that
live at that step, with their own metadata and distance, ranked, never too few; how many of the true
ones they are is counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tests import riches
from tests.recipe import BUCKETS, CLOCK, CLUSTERS, TAGS, Chosen, Mask, Table, number_of, some_filter
from vecdb import F, errors

K = 10


class Verdict(NamedTuple):
    """What is wrong, "" when nothing; true hits wanted, and found of them."""

    wrong: str = ""
    asked: int = 0
    found: int = 0


RIGHT = Verdict()
Judge = Callable[[Table], Verdict]
Ask = Callable[[random.Random, Any, Table], Judge]


def judged(right: bool, answer: Any) -> Verdict:
    return RIGHT if right else Verdict(f"{answer!r:.300}" if not isinstance(answer, str) else answer)


# --- rows -----------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """A record, taken apart while its collection still shows it."""

    id: Any
    metadata: dict[str, Any]
    vector: Any
    extra: riches.Extra | None = None  # of a rich row


def shown(record: Any) -> Shown:
    if record.several:
        return Shown(record.id, record.metadata, record.vectors.get("vector"), riches.held(record))
    return Shown(record.id, record.metadata, record.vector)


def row_is(row: Shown | None, number: int, table: Table, vector: bool = True) -> bool:
    """Whether a row is what the table has under that number."""
    if row is None or not table.live[number]:
        return row is None and not table.live[number]
    if row.id != table.kind.ids[number] or row.metadata != table.metadata(number):
        return False
    if vector and table.kind.rich and row.extra != table.extra(number):
        return False
    if not vector or not table.seated[number]:
        return row.vector is None
    return row.vector is not None and bool((row.vector == table.vectors[number]).all())


def clock_is(row: Shown | None, table: Table) -> bool:
    return row is not None and row[:2] == (CLOCK, {"clock": table.step}) and row.vector is None


def some_rows(rng: random.Random, table: Table, count: int) -> list[int]:
    """Numbers of rows, most of which live as far as the reader knows."""
    return [
        int(table_lively(table)[rng.randrange(table_size(table))])
        if rng.random() < 0.8 and table_size(table)
        else rng.randrange(table.kind.all)
        for _ in range(count)
    ]


def table_lively(table: Table) -> Any:
    found = table.kept.get("lively")
    if found is None:
        found = table.kept["lively"] = np.flatnonzero(table.live)
    return found


def table_size(table: Table) -> int:
    return len(table_lively(table))


def get(rng: random.Random, c: Any, table: Table) -> Judge:
    (number,) = some_rows(rng, table, 1)
    found = c.get(table.kind.ids[number])
    row = None if found is None else shown(found)
    return lambda t: judged(row_is(row, number, t), (number, row))


def get_many(rng: random.Random, c: Any, table: Table) -> Judge:
    """With the clock among them: one call, one step."""
    numbers = some_rows(rng, table, rng.choice((3, 8, 24)))
    found = c.get([*(table.kind.ids[number] for number in numbers), CLOCK])
    *rows, clock = [None if record is None else shown(record) for record in found]

    def judge(t: Table) -> Verdict:
        if not clock_is(clock, t):
            return Verdict(f"the clock of get([..]) is {clock}")
        wrong = [row for row, number in zip(rows, numbers, strict=True) if not row_is(row, number, t)]
        return judged(not wrong, wrong)

    return judge


def contains(rng: random.Random, c: Any, table: Table) -> Judge:
    (number,) = some_rows(rng, table, 1)
    found = table.kind.ids[number] in c
    return lambda t: judged(found == t.live[number], (number, found))


def vectors(rng: random.Random, c: Any, table: Table) -> Judge:
    """The stored vectors; of a row that has gone, or has none, an error that names it."""
    numbers = some_rows(rng, table, 4)
    try:
        found = c.vectors([table.kind.ids[number] for number in numbers], "vector")
    except (errors.NotFound, errors.InvalidArgument) as error:
        missing = str(error)
        return lambda t: judged(not t.ranked[numbers].all(), missing)
    return lambda t: judged(bool(t.ranked[numbers].all() and (found == t.vectors[numbers]).all()), found)


# --- counting and going through -----------------------------------------------------------------------


def size(rng: random.Random, c: Any, table: Table) -> Judge:
    found = len(c)
    return lambda t: judged(found == t.live.sum() + 1, ("len", found))


def count(rng: random.Random, c: Any, table: Table) -> Judge:
    chosen = some_filter(rng, table.step)
    found = c.count(chosen.where)
    return lambda t: judged(found == counted(chosen, t), ("count", chosen.where, found))


def counted(chosen: Chosen, table: Table) -> int:
    return int((table.live & chosen.mask(table)).sum()) + chosen.clock


def facets(rng: random.Random, c: Any, table: Table) -> Judge:
    """Falling counts, ties in the order of values."""
    name, many = rng.choice([("tag", len(TAGS)), ("bucket", BUCKETS), ("cluster", CLUSTERS)])
    chosen = some_filter(rng, table.step)
    found = list(c.facets(name, chosen.where, limit=None).items())

    def judge(t: Table) -> Verdict:
        values = getattr(t, name)[t.live & chosen.mask(t)]
        counts = np.bincount(values, minlength=many)
        order = sorted(np.flatnonzero(counts).tolist(), key=lambda at: (-counts[at], at))
        expected = [(TAGS[at] if name == "tag" else at, int(counts[at])) for at in order]
        return judged(found == expected, ("facets", name, chosen.where, found))

    return judge


def scan(rng: random.Random, c: Any, table: Table) -> Judge:
    """One page, which is read at one commit."""
    return _scan(rng, c, table, rng.choice((1, 7, 20, 50)))


def scan_all(rng: random.Random, c: Any, table: Table) -> Judge:
    """To the end: only where all pages show one commit."""
    return _scan(rng, c, table, None)


def _scan(rng: random.Random, c: Any, table: Table, limit: int | None) -> Judge:
    chosen = some_filter(rng, table.step) if rng.random() < 0.7 else EVERY
    by, descending, bare = rng.choice([None, "share", "n", "bucket"]), rng.random() < 0.3, rng.random() < 0.5
    how: Any = {"order_by": by, "descending": descending, "limit": limit, "with_vectors": not bare}
    rows = [shown(record) for record in c.scan(chosen.where, **how)]

    def judge(t: Table) -> Verdict:
        expected = in_order(t, chosen, by, descending)[: len(rows) + 1 if limit is None else limit]
        if [row.id for row in rows] != [CLOCK if at < 0 else t.kind.ids[at] for at in expected]:
            return Verdict(f"scan({chosen.where!r}, {how}): {[row.id for row in rows]!r:.200}")
        wrong = [
            row
            for row, at in zip(rows, expected, strict=True)
            if not (clock_is(row, t) if at < 0 else row_is(row, at, t, vector=not bare))
        ]
        return judged(not wrong, wrong)

    return judge


EVERY = Chosen(None, lambda t: t.live, clock=True)


def in_order(table: Table, chosen: Chosen, by: str | None, descending: bool) -> list[int]:
    """Row numbers as a scan shows them; -1 is the clock."""
    numbers = np.flatnonzero(table.live & chosen.mask(table))
    numbers = np.concatenate([numbers[numbers % 2 == 0], numbers[numbers % 2 == 1]])  # ints, strings
    if by is not None:
        values = (table.version if by == "n" else getattr(table, by))[numbers]
        numbers = numbers[np.argsort(-values if descending else values, kind="stable")]
        return [*numbers.tolist(), *[-1] * chosen.clock]  # it has no such value: last
    ints = int((numbers % 2 == 0).sum())
    found = [*numbers[:ints].tolist(), *[-1] * chosen.clock, *numbers[ints:].tolist()]
    return found[::-1] if descending else found


# --- searching -----------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """The hits of one search, taken apart."""

    numbers: list[int]
    distances: Any
    metadata: list[dict[str, Any]]


def taken(hits: Any) -> Answer:
    return Answer([number_of(id) for id in hits.ids], hits.distances, [hit.metadata for hit in hits])


def some_query(rng: random.Random, table: Table) -> Any:
    """Near a row that the reader knows, or somewhere."""
    kind = table.kind
    if rng.random() < 0.8:
        (number,) = some_rows(rng, table, 1)
        query = table.vectors[number] + np.array([rng.randrange(-4, 5) for _ in range(kind.dim)])
    else:
        query = np.array([rng.randrange(-30, 31) for _ in range(kind.dim)])
    query[0] = 40
    return query.astype(np.float32)


def exact(rng: random.Random, c: Any, table: Table) -> Judge:
    chosen = some_filter(rng, table.step) if rng.random() < 0.5 else EVERY
    query, k = some_query(rng, table), rng.choice((1, 10, 10, 25))
    found = taken(c.search(query, k, where=chosen.where, exact=True))
    return lambda t: hits_are(found, query, t, chosen.mask, k, complete=True)


def default(rng: random.Random, c: Any, table: Table) -> Judge:
    query, ef = some_query(rng, table), rng.choice((None, None, None, 32))
    found = taken(c.search(query, K, ef=ef))
    return lambda t: hits_are(found, query, t, EVERY.mask, K)


def filtered(rng: random.Random, c: Any, table: Table) -> Judge:
    query, chosen = some_query(rng, table), some_filter(rng, table.step)
    found = taken(c.search(query, K, where=chosen.where))
    return lambda t: hits_are(found, query, t, chosen.mask, K)


def later(rng: random.Random, c: Any, table: Table) -> Judge:
    """The second page of an exact ranking."""
    query = some_query(rng, table)
    found = taken(c.search(query, 5, exact=True, offset=5))
    return lambda t: hits_are(found, query, t, EVERY.mask, 5, complete=True, offset=5)


def within(rng: random.Random, c: Any, table: Table) -> Judge:
    """Every row within a distance."""
    query, squared = some_query(rng, table), rng.randrange(50, 600)
    radius = (squared + 0.5) ** 0.5 if table.kind.metric == "l2" else 0.01
    found = taken(c.search(query, None, exact=True, radius=radius))

    def judge(t: Table) -> Verdict:
        distances = t.distances(query)
        if t.kind.metric == "l2":
            most = int((t.ranked & (distances <= squared)).sum())
        else:  # rounding may decide about a row at the rim
            most = len(found.numbers)
            if int((t.ranked & (distances < radius - EPSILON)).sum()) > most:
                return Verdict(f"{most} rows within {radius}")
        return hits_are(found, query, t, EVERY.mask, most, complete=True)

    return judge


def batch(rng: random.Random, c: Any, table: Table) -> Judge:
    """Several queries in one call, all at one step."""
    queries = np.array([some_query(rng, table) for _ in range(3)])
    chosen = some_filter(rng, table.step) if rng.random() < 0.3 else EVERY
    answers = [taken(hits) for hits in c.search(queries, K, where=chosen.where)]

    def judge(t: Table) -> Verdict:
        verdicts = [
            hits_are(found, query, t, chosen.mask, K) for found, query in zip(answers, queries, strict=True)
        ]
        wrong = "; ".join(verdict.wrong for verdict in verdicts if verdict.wrong)
        return Verdict(wrong, sum(v.asked for v in verdicts), sum(v.found for v in verdicts))

    return judge


EPSILON = 2e-6  # of a cosine distance in float32


def hits_are(
    answer: Answer, query: Any, table: Table, mask: Callable[[Table], Mask], k: int,
    complete: bool = False, offset: int = 0,
) -> Verdict:  # fmt: skip
    """Whether these are hits of that step; `complete`: and the nearest there are."""
    numbers, found = answer.numbers, np.asarray(answer.distances, float)
    allowed = table.ranked & mask(table)
    matches = int(allowed.sum())
    wanted = min(k, max(0, matches - offset))
    if len(numbers) != wanted or len(set(numbers)) != wanted:
        return Verdict(f"{len(numbers)} hits ({len(set(numbers))} rows) instead of {wanted} of {matches}")
    if not wanted:
        return RIGHT
    if min(numbers) < 0 or max(numbers) >= table.kind.all or not allowed[numbers].all():
        gone = [at for at in numbers if not 0 <= at < table.kind.all or not allowed[at]]
        return Verdict(f"hits {gone} do not live, match and have a vector")
    distances = table.distances(query)
    own, slack = distances[numbers], EPSILON
    if table.kind.metric == "l2":
        found, slack = np.rint(found * found), 0
    if (np.abs(found - own) > slack).any() or (np.diff(found) < 0).any():
        return Verdict(f"distances {found} of {numbers}, which are at {own}")
    for number, row in zip(numbers, answer.metadata, strict=True):
        if row != table.metadata(number):
            return Verdict(f"hit {number} holds {row}, not {table.metadata(number)}")
    ranked = np.where(allowed, distances, np.inf)
    nearest = np.sort(np.partition(ranked, wanted + offset - 1)[: wanted + offset])[offset:]
    if complete:
        return judged(bool((np.abs(found - nearest) <= slack).all()), (found, "not", nearest))
    return Verdict("", wanted, int((found <= nearest[-1] + slack).sum()))


# --- of rich rows --------------------------------------------------------------------------------------


def ask(rng: random.Random, c: Any, table: Table) -> Judge:
    """A query by words, sparse or many vectors, or several as one."""
    return _asked(rng, c, table, None)


def _asked(rng: random.Random, c: Any, table: Table, ready: Any) -> Judge:
    spec = riches.some_spec(rng, table.kind.dim)
    k, exact = (K, False) if ready else (rng.choice((1, K, K, None)), rng.random() < 0.4)
    where, mask, words = None, None, None
    chance = 1.0 if ready else rng.random()
    if chance < 0.2:
        where, mask, _ = some_filter(rng, table.step)
    elif chance < 0.4:
        words = riches.some_matches(rng)
        where = F[words[0]].matches(words[1])
    query = riches.query_of(spec)
    hits = ready(query) if ready else c.search(query, k, where=where, exact=exact)
    ids, scores, metadata = hits.ids, hits.scores.tolist(), [hit.metadata for hit in hits]

    def judge(t: Table) -> Verdict:
        allowed = t.world().matching(*words) if words else None
        if mask is not None:
            allowed = {t.kind.ids[at] for at in np.flatnonzero(t.live & mask(t)).tolist()}
        wrong, asked, found = t.world().judge(spec, k, exact, ids, scores, allowed)
        if not wrong and any(t.metadata(number_of(id)) != row for id, row in zip(ids, metadata, strict=True)):
            wrong = f"metadata {metadata} of {ids}"
        return Verdict(f"k={k}, exact={exact}, where={where!r}: {wrong}" if wrong else "", asked, found)

    return judge


def worded(rng: random.Random, c: Any, table: Table) -> Judge:
    """How many rows have a word."""
    field, word = riches.some_matches(rng)
    found = c.count(F[field].matches(word))
    return lambda t: judged(found == len(t.world().matching(field, word)), ("count", field, word, found))


# --- which kinds there are ---------------------------------------------------------------------------------

WAYS: dict[str, tuple[Ask, int]] = {
    "get": (get, 26), "get many": (get_many, 8), "in": (contains, 4), "vectors": (vectors, 4),
    "len": (size, 4), "count": (count, 10), "facets": (facets, 3), "scan": (scan, 5),
    "exact": (exact, 10), "default": (default, 18), "filtered": (filtered, 8), "offset": (later, 2),
    "radius": (within, 2), "batch": (batch, 2),
}  # fmt: skip
RICH_WAYS: dict[str, tuple[Ask, int]] = {**WAYS, "ask": (ask, 70), "worded": (worded, 12)}


def some_way(rng: random.Random, rich: bool = False) -> tuple[str, Ask]:
    """A kind of read at random."""
    ways = RICH_WAYS if rich else WAYS
    name = rng.choices(list(ways), [weight for _, weight in ways.values()])[0]
    return name, ways[name][0]


def prepared(c: Any) -> dict[str, Ask]:
    """Searches that are made ready once and asked for ever."""
    half = Chosen(F.share < 0.5, lambda t: t.share < 0.5)

    def asks(of: Chosen) -> Ask:
        search = c.prepare(K, where=of.where)

        def ask(rng: random.Random, c: Any, table: Table) -> Judge:
            query = some_query(rng, table)
            found = taken(search(query))
            return lambda t: hits_are(found, query, t, of.mask, K)

        return ask

    found = {"prepared": asks(EVERY), "prepared filtered": asks(half)}
    if len(c.schema.vectors) > 1:
        ready = c.prepare(K)
        found["prepared ask"] = lambda rng, c, table: _asked(rng, c, table, ready)
    return found
