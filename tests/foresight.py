"""What must come of a deed? A dict for each collection, and the answer that each verb gives of it.

`Foreseen` pairs a judge of the answer with what the deed does to the dict. Deeds are drawn at random
from what the dict holds, so that most of them hit something; some must fail, and by which error is
foreseen as well. Vectors are small whole numbers and squared distances under l2 are exact. Each write
leaves a token of its own in the rows that it touches: a row that is a moment old cannot look new.

Tables are plain or rich: then rows also have texts, titles, sparse and many vectors, which come, change and
go by themselves, and whose fields are dropped and added; tests/riches.py knows what searches of them must find.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from tests import riches
from tests.hand import Answer, Deed
from tests.riches import Extra, World

DIM = 6
IDS: list[Any] = [*range(130), *(f"s{number:03d}" for number in range(130))]
SIZES = (1, 1, 1, 2, 5, 20, 60)
NAMES = ("a", "b", "c")  # "a" is always there
K = 10

OPTIONAL = ("sparse", "many")  # vector fields that a rich table may have besides


class Row(NamedTuple):
    """One row; the title of a rich one lies in its metadata."""

    vector: Any  # or None
    metadata: dict[str, Any]
    extra: Extra = Extra()


@dataclass
class Table:
    """One collection."""

    metric: str
    rows: dict[Any, Row]
    itself: object = field(default_factory=object)  # the same in every copy, whatever its name is
    rich: bool = False
    fields: frozenset[str] = frozenset()  # those of OPTIONAL that it has
    era: int = 0  # how often fields came or went

    def world(self) -> World:
        """What tests/riches.py compares with."""
        rows = {
            id: (row.vector, row.extra._replace(title=row.metadata.get("title"))) for id, row in self.rows.items()
        }
        return World(rows, self.metric, self.metric)

    def chosen(self, where: Where) -> list[Any]:
        """The rows of a filter."""
        found = [id for id, row in self.rows.items() if where.holds(row.metadata)]
        if where.words is None:
            return found
        field, word, has = where.words
        matching = self.world().matching(field, word)
        return [id for id in found if (id in matching) == has]


State = dict[str, Table]


def made(metric: str, rich: bool) -> Table:
    """A table without rows."""
    return Table(metric, {}, rich=rich, fields=frozenset(OPTIONAL if rich else ()))


def copied(state: State) -> State:
    return {name: replace(table, rows=dict(table.rows)) for name, table in state.items()}


class Judged(NamedTuple):
    """What is wrong with an answer, "" when nothing; true hits wanted, and found of them."""

    wrong: str = ""
    asked: int = 0
    found: int = 0


class Foreseen(NamedTuple):
    """Of one deed against one state."""

    judge: Callable[[Answer], Judged]
    happen: Callable[[], None]  # does it to that state


def nothing() -> None:
    """What a deed that only reads, or must fail, does."""


def gives(expected: Any, happen: Callable[[], None] = nothing) -> Foreseen:
    """The deed returns this value."""
    return Foreseen(lambda answer: same(answer, ("ok", expected)), happen)


def fails(name: str) -> Foreseen:
    """The deed raises this error and changes nothing."""
    return Foreseen(lambda answer: same(answer[:2], ("error", name)), nothing)


def same(answer: Any, expected: Any) -> Judged:
    return Judged() if answer == expected else Judged(f"{answer!r:.600} instead of {expected!r:.600}")


# --- filters ------------------------------------------------------------------------------------------


class Where(NamedTuple):
    """A filter as text, and what it means."""

    text: str | None
    holds: Callable[[dict[str, Any]], bool]
    words: tuple[str, str, bool] | None = None  # a field, a word, and whether it must be there


EVERY = Where(None, lambda row: True)
_MEANT: dict[str | None, Where] = {None: EVERY}  # each filter that was drawn, by its text


def some_where(rng: random.Random, now: int, rich: bool = False) -> Where:
    if rich and rng.random() < 0.25:
        return _some_words(rng)
    p, tag = rng.randrange(8), rng.choice("abc")
    chosen = rng.choice([
        Where(f"p == {p}", lambda row: row.get("p") == p),
        Where(f"p != {p}", lambda row: row.get("p") is not None and row["p"] != p),
        Where(f"p < {p}", lambda row: row.get("p") is not None and row["p"] < p),
        Where(f"tag == '{tag}'", lambda row: row["tag"] == tag),
        Where(f"not (tag == '{tag}')", lambda row: row["tag"] != tag),
        Where(f"p >= {p} and tag != '{tag}'",
              lambda row: row.get("p") is not None and row["p"] >= p and row["tag"] != tag),
        Where(f"token > {now - 30}", lambda row: row["token"] > now - 30),
        Where("p is null", lambda row: row.get("p") is None),
        Where(f"patched exists or p == {p}", lambda row: "patched" in row or row.get("p") == p),
        Where(f"p in ({p}, {(p + 3) % 8})", lambda row: row.get("p") in (p, (p + 3) % 8)),
    ])  # fmt: skip
    return _MEANT.setdefault(chosen.text, chosen)


def _some_words(rng: random.Random) -> Where:
    name, word = riches.some_matches(rng)
    tag, has = rng.choice("abc"), rng.random() < 0.8
    text = f"matches({name}, '{word}')" if has else f"not matches({name}, '{word}')"
    chosen = rng.choice([
        Where(text, EVERY.holds, (name, word, has)),
        Where(f"{text} and tag == '{tag}'", lambda row: row["tag"] == tag, (name, word, has)),
    ])  # fmt: skip
    return _MEANT.setdefault(chosen.text, chosen)


# --- deeds that write ----------------------------------------------------------------------------------


def some_write(rng: random.Random, state: State, on: int, now: int) -> Deed:
    """One write, of which `now` is the token."""
    chance = rng.random()
    if chance < 0.012:
        return _catalog_deed(rng, state, on)
    name = rng.choice([*state, "a"])
    rows = state[name].rows
    size = rng.choice(SIZES)
    verb = rng.choice(["add", "upsert", "upsert", "update", "move", "delete", "update where", "delete where"])
    if len(rows) > 200:
        verb = "delete" if rng.random() < 0.5 else verb
    if verb == "add":
        ids = _some(rng, IDS, size) if rng.random() < 0.1 else _some(rng, [i for i in IDS if i not in rows], size)
    elif verb == "upsert":
        ids = _some(rng, IDS, size)
    elif verb in ("update", "move"):
        ids = _some(rng, list(rows), size) + ([rng.choice(IDS)] if rng.random() < 0.05 else [])
        ids = list(dict.fromkeys(ids))
    elif verb == "delete":
        ids = list(dict.fromkeys(_some(rng, list(rows), size) + _some(rng, IDS, 1)))
    else:
        where = some_where(rng, now, state[name].rich)
        rest = (where.text, {"patched": now}) if verb == "update where" else (where.text,)
        return (verb, on, name, *rest)
    if verb == "delete":
        return verb, on, name, ids
    ids = ids or [rng.choice(IDS)]
    metadata = [_metadata(rng, now) for _ in ids]
    without = rng.random() < 0.08 if verb == "upsert" else verb == "update"
    vectors: Any = None if without else [_vector(rng) for _ in ids]
    if not state[name].rich:
        return "update" if verb == "move" else verb, on, name, ids, vectors, metadata
    vectors, texts = _riches(rng, state[name], vectors, metadata)
    return "update" if verb == "move" else verb, on, name, ids, vectors, metadata, texts


def _riches(rng: random.Random, table: Table, vectors: Any, metadata: Any) -> tuple[Any, Any]:
    """Vectors of some of the fields, and texts or None; titles are put into the metadata."""
    given = {} if vectors is None else {"vector": [v if rng.random() < 0.95 else None for v in vectors]}
    for name, some in (
        ("sparse", lambda: riches.some_sparse(rng)), ("many", lambda: riches.some_many(rng, rng.randrange(4))),
    ):  # fmt: skip
        if rng.random() < 0.6 and (name in table.fields or rng.random() < 0.02):
            given[name] = [some() if rng.random() < 0.9 else None for _ in metadata]
    for row in metadata:
        if rng.random() < 0.6:
            row["title"] = riches.sentence(rng, 3)
    texts = [riches.sentence(rng, 8) if rng.random() < 0.9 else None for _ in metadata]
    return given or None, texts if rng.random() < 0.7 else None


def _catalog_deed(rng: random.Random, state: State, on: int) -> Deed:
    name, new = rng.sample(NAMES[1:], 2)
    rich = state["a"].rich
    if rich and rng.random() < 0.4:  # a field comes or goes
        name, which = rng.choice(list(state)), rng.choice(OPTIONAL)
        return "drop field" if which in state[name].fields else "add field", on, name, which, state[name].metric
    if name not in state:
        return "create", on, name, DIM, rng.choice(["l2", "cosine"]), rich
    if rng.random() < 0.5:
        return "rename", on, name, new
    return "drop", on, name


def _some(rng: random.Random, of: list[Any], size: int) -> list[Any]:
    return rng.sample(of, min(size, len(of)))


def _metadata(rng: random.Random, now: int) -> dict[str, Any]:
    row: dict[str, Any] = {"token": now, "tag": rng.choice("abc")}
    if rng.random() < 0.9:
        row["p"] = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, None])
    return row


def _vector(rng: random.Random) -> list[float]:
    return [20.0, *(float(rng.randrange(-20, 21)) for _ in range(DIM - 1))]


# --- deeds that read -------------------------------------------------------------------------------------


def some_read(rng: random.Random, state: State, on: Any, now: int) -> Deed:
    if rng.random() < 0.01:
        return ("collections", on)
    name = rng.choice([*state, "a", rng.choice(NAMES)] if rng.random() < 0.03 else [*state, "a"])
    rows = state[name].rows if name in state else {}
    rich = name in state and state[name].rich
    verb = rng.choice(["get", "get", "get", "len", "count", "scan", "facets", "search", "search", "search"])
    if rich and rng.random() < 0.45:
        verb = "ask"
    if verb == "get":
        ids = _some(rng, list(rows), rng.choice((1, 4, 15))) + _some(rng, IDS, 1)
        return verb, on, name, ids if rng.random() < 0.6 else ids[0]
    if verb == "len":
        return verb, on, name
    where = some_where(rng, now, rich).text if rng.random() < 0.6 else None
    if verb == "count":
        return verb, on, name, where
    if verb == "facets":
        return verb, on, name, rng.choice(["p", "tag"]), where
    if verb == "scan":
        by = rng.choice([None, "p", "token"])
        return verb, on, name, where, by, rng.random() < 0.3, rng.choice([None, 1, 8, 40])
    if verb == "ask":
        asked = {"exact": rng.random() < 0.4, "where": where if rng.random() < 0.6 else None}
        return verb, on, name, riches.some_spec(rng, DIM), rng.choice((1, K, K, None)), asked
    how: dict[str, Any] = rng.choice([{}, {}, {"exact": True}, {"ef": 24}])
    return verb, on, name, _vector(rng), rng.choice((1, K, K, 30)), {**how, "where": where}


# --- what comes of them ------------------------------------------------------------------------------------


def foresee(deed: Deed, state: State) -> Foreseen:
    """What must come of a deed at a state."""
    verb, _, *given = deed
    if verb == "collections":
        return gives(sorted(state))
    name = given[0]
    if verb == "create":
        return gives(name, lambda: state.update({name: made(given[2], given[3])}))
    if name not in state:
        return fails("NotFound")
    if verb in ("drop", "rename"):
        return _foresee_catalog(verb, state, *given)
    table = state[name]
    if verb in ("add field", "drop field"):
        return _foresee_field(verb, table, given[1])
    if verb in ("add", "upsert", "update", "delete"):
        return _foresee_ids(verb, table, *given[1:])
    if verb in ("update where", "delete where"):
        return _foresee_filter(verb, table, _MEANT[given[1]], *given[2:])
    if verb == "optimize":
        return gives(None)
    return Foreseen(_reading(verb, table, given[1:]), nothing)


def _foresee_catalog(verb: str, state: State, name: str, new: str = "") -> Foreseen:
    if verb == "drop":
        return gives(None, lambda: _pop(state, name))
    if new in state:
        return fails("AlreadyExists")
    return gives(None, lambda: state.update({new: state.pop(name)}))


def _pop(of: dict[Any, Any], *names: Any) -> None:
    for name in names:
        del of[name]


def _foresee_field(verb: str, table: Table, name: str) -> Foreseen:
    if (verb == "add field") == (name in table.fields):
        return fails("InvalidArgument" if verb == "add field" else "NotFound")

    def happen() -> None:
        table.fields ^= {name}
        table.era += 1
        for id, row in table.rows.items():
            table.rows[id] = row._replace(extra=row.extra._replace(**{name: None}))

    return gives(None, happen)


def _foresee_ids(
    verb: str, table: Table, ids: list[Any], vectors: Any = None, metadata: Any = None, texts: Any = None
) -> Foreseen:
    rows = table.rows
    known = [id for id in ids if id in rows]
    if verb == "delete":
        return gives(len(known), lambda: _pop(rows, *known))
    given = vectors if isinstance(vectors, dict) else {} if vectors is None else {"vector": vectors}
    if not {*given} <= {"vector", *table.fields}:
        return fails("InvalidArgument")
    if verb == "add" and known:
        return fails("AlreadyExists")
    if verb == "update" and len(known) < len(ids):
        return fails("NotFound")

    def happen() -> None:
        for at, id in enumerate(ids):
            old = rows[id] if verb == "update" else Row(None, {})
            extra = old.extra._replace(**{name: given[name][at] for name in given if name != "vector"})
            if texts is not None and texts[at] is not None:
                extra = extra._replace(text=texts[at])
            vector = given["vector"][at] if "vector" in given else old.vector
            rows[id] = Row(vector, {**old.metadata, **metadata[at]}, extra)

    return gives(len(ids) if verb == "update" else ids, happen)


def _foresee_filter(verb: str, table: Table, where: Where, patch: Any = None) -> Foreseen:
    rows, chosen = table.rows, table.chosen(where)

    def happen() -> None:
        for id in chosen:
            if verb == "delete where":
                del rows[id]
            else:
                rows[id] = rows[id]._replace(metadata={**rows[id].metadata, **patch})

    return gives(len(chosen), happen)


def _reading(verb: str, table: Table, given: Any) -> Callable[[Answer], Judged]:
    rows = table.rows
    if verb == "len":
        return gives(len(rows)).judge
    if verb == "get":
        ids = given[0] if isinstance(given[0], list) else [given[0]]
        return gives([shown(id, rows[id]) if id in rows else None for id in ids]).judge
    if verb == "search":
        query, k, how = given
        held = {id: rows[id] for id in table.chosen(_MEANT[how["where"]]) if rows[id].vector is not None}
        return lambda answer: hits(answer, table.metric, held, query, k, how.get("exact", False))
    if verb == "ask":
        return _asking(table, *given)
    chosen = table.chosen(_MEANT[given[1] if verb == "facets" else given[0]])
    if verb == "count":
        return gives(len(chosen)).judge
    if verb == "facets":
        counts = Counter(rows[id].metadata.get(given[0]) for id in chosen)
        del counts[None]
        return gives(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))).judge
    _, by, descending, limit = given
    ordered = in_order({id: rows[id].metadata for id in chosen}, by, descending)[:limit]
    return gives([shown(id, rows[id]) for id in ordered]).judge


def _asking(table: Table, spec: Any, k: int | None, how: dict[str, Any]) -> Callable[[Answer], Judged]:
    """A query object, by tests/riches.py."""
    if not riches.fields_of(spec) <= {"vector", *table.fields}:
        return fails("InvalidArgument").judge
    world, where = table.world(), _MEANT[how["where"]]
    allowed = None if where.text is None else {*table.chosen(where)}

    def judge(answer: Answer) -> Judged:
        if answer[0] != "ok":
            return Judged(f"{answer}")
        ids, scores, metadata = answer[1]
        judged = Judged(*world.judge(spec, k, how["exact"], ids, scores, allowed))
        if not judged.wrong and [table.rows[id].metadata for id in ids] != metadata:
            return Judged(f"metadata {metadata} of {ids}")
        return judged

    return judge


def shown(id: Any, row: Row) -> Any:
    return id, row.metadata, row.vector, row.extra.text, row.extra.sparse, row.extra.many


def in_order(rows: dict[Any, dict[str, Any]], by: str | None, descending: bool) -> list[Any]:
    ids = sorted(rows, key=lambda id: (isinstance(id, str), id))
    if by is None:
        return ids[::-1] if descending else ids
    valued = [id for id in ids if rows[id].get(by) is not None]
    valued.sort(key=lambda id: rows[id][by], reverse=descending)
    return valued + [id for id in ids if rows[id].get(by) is None]


def hits(answer: Answer, metric: str, held: dict[Any, Row], query: Any, k: int, exact: bool) -> Judged:
    """Hits against brute force: each row its own, ranked, none too few; exact ones the nearest."""
    if answer[0] != "ok":
        return Judged(f"{answer}")
    ids, distances, metadata = answer[1]
    wanted = min(k, len(held))
    if len(ids) != wanted or len(set(ids)) != wanted or not all(id in held for id in ids):
        return Judged(f"hits {ids}, wanted {wanted} of {len(held)} rows; others: {[i for i in ids if i not in held]}")
    if [held[id].metadata for id in ids] != metadata:
        return Judged(f"metadata {metadata} of {ids}")
    if not ids:
        return Judged()
    names = list(held)
    every = away(metric, np.array([held[id].vector for id in names]), np.array(query))
    own = dict(zip(names, every.tolist(), strict=True))
    found = np.array(distances)
    found, slack = (np.rint(found * found), 0.0) if metric == "l2" else (found, 2e-6)
    if (np.abs(found - [own[id] for id in ids]) > slack).any() or (np.diff(found) < 0).any():
        return Judged(f"distances {distances} of {ids}, which are at {[own[id] for id in ids]}")
    nearest = np.sort(every)[:wanted]
    if exact:
        return Judged("" if (np.abs(found - nearest) <= slack).all() else f"{found}, not {nearest}")
    return Judged("", wanted, int((found <= nearest[-1] + slack).sum()))


def away(metric: str, vectors: Any, query: Any) -> Any:
    if metric == "l2":
        return ((vectors - query) ** 2).sum(axis=1)
    return 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
