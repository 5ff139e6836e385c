"""What must come of a deed? A dict for each collection, and the answer that each verb gives of it.

`Foreseen` pairs a judge of the answer with what the deed does to the dict. Deeds are drawn at random
from what the dict holds, so that most of them hit something; some must fail, and by which error is
foreseen as well. Vectors are small whole numbers and squared distances under l2 are exact. Each write
leaves a token of its own in the rows that it touches: a row that is a moment old cannot look new.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tests.hand import Answer, Deed

DIM = 6
IDS: list[Any] = [*range(130), *(f"s{number:03d}" for number in range(130))]
SIZES = (1, 1, 1, 2, 5, 20, 60)
NAMES = ("a", "b", "c")  # "a" is always there
K = 10

Row = tuple[Any, dict[str, Any]]  # vector or None, metadata


@dataclass
class Table:
    """One collection."""

    metric: str
    rows: dict[Any, Row]
    itself: object = field(default_factory=object)  # the same in every copy, whatever its name is


State = dict[str, Table]


def copied(state: State) -> State:
    return {name: Table(table.metric, dict(table.rows), table.itself) for name, table in state.items()}


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


EVERY = Where(None, lambda row: True)
_MEANT: dict[str | None, Where] = {None: EVERY}  # each filter that was drawn, by its text


def some_where(rng: random.Random, now: int) -> Where:
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
        where = some_where(rng, now)
        rest = (where.text, {"patched": now}) if verb == "update where" else (where.text,)
        return (verb, on, name, *rest)
    if verb == "delete":
        return verb, on, name, ids
    ids = ids or [rng.choice(IDS)]
    metadata = [_metadata(rng, now) for _ in ids]
    without = rng.random() < 0.08 if verb == "upsert" else verb == "update"
    vectors = None if without else [_vector(rng) for _ in ids]
    return "update" if verb == "move" else verb, on, name, ids, vectors, metadata


def _catalog_deed(rng: random.Random, state: State, on: int) -> Deed:
    name, new = rng.sample(NAMES[1:], 2)
    if name not in state:
        return "create", on, name, DIM, rng.choice(["l2", "cosine"])
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
    verb = rng.choice(["get", "get", "get", "len", "count", "scan", "facets", "search", "search", "search"])
    if verb == "get":
        ids = _some(rng, list(rows), rng.choice((1, 4, 15))) + _some(rng, IDS, 1)
        return verb, on, name, ids if rng.random() < 0.6 else ids[0]
    if verb == "len":
        return verb, on, name
    where = some_where(rng, now).text if rng.random() < 0.6 else None
    if verb == "count":
        return verb, on, name, where
    if verb == "facets":
        return verb, on, name, rng.choice(["p", "tag"]), where
    if verb == "scan":
        by = rng.choice([None, "p", "token"])
        return verb, on, name, where, by, rng.random() < 0.3, rng.choice([None, 1, 8, 40])
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
        return gives(name, lambda: state.update({name: Table(given[2], {})}))
    if name not in state:
        return fails("NotFound")
    if verb in ("drop", "rename"):
        return _foresee_catalog(verb, state, *given)
    table = state[name]
    if verb in ("add", "upsert", "update", "delete"):
        return _foresee_ids(verb, table.rows, *given[1:])
    if verb in ("update where", "delete where"):
        return _foresee_filter(verb, table.rows, _MEANT[given[1]], *given[2:])
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


def _foresee_ids(
    verb: str, rows: dict[Any, Row], ids: list[Any], vectors: Any = None, metadata: Any = None
) -> Foreseen:
    known = [id for id in ids if id in rows]
    if verb == "delete":
        return gives(len(known), lambda: _pop(rows, *known))
    if verb == "add" and known:
        return fails("AlreadyExists")
    if verb == "update" and len(known) < len(ids):
        return fails("NotFound")
    given = vectors or [None] * len(ids)

    def happen() -> None:
        for id, vector, row in zip(ids, given, metadata, strict=True):
            if verb == "update":
                before, old = rows[id]
                rows[id] = (before if vector is None else vector, {**old, **row})
            else:
                rows[id] = (vector, row)

    return gives(len(ids) if verb == "update" else ids, happen)


def _foresee_filter(verb: str, rows: dict[Any, Row], where: Where, patch: Any = None) -> Foreseen:
    chosen = [id for id, (_, row) in rows.items() if where.holds(row)]

    def happen() -> None:
        for id in chosen:
            if verb == "delete where":
                del rows[id]
            else:
                rows[id] = (rows[id][0], {**rows[id][1], **patch})

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
        where = _MEANT[how["where"]]
        held = {id: row for id, row in rows.items() if row[0] is not None and where.holds(row[1])}
        return lambda answer: hits(answer, table.metric, held, query, k, how.get("exact", False))
    where = _MEANT[given[1] if verb == "facets" else given[0]]
    chosen = [id for id, (_, row) in rows.items() if where.holds(row)]
    if verb == "count":
        return gives(len(chosen)).judge
    if verb == "facets":
        counts = Counter(rows[id][1].get(given[0]) for id in chosen)
        del counts[None]
        return gives(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))).judge
    _, by, descending, limit = given
    ordered = in_order({id: rows[id][1] for id in chosen}, by, descending)[:limit]
    return gives([shown(id, rows[id]) for id in ordered]).judge


def shown(id: Any, row: Row) -> Any:
    return id, row[1], row[0]


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
    if [held[id][1] for id in ids] != metadata:
        return Judged(f"metadata {metadata} of {ids}")
    if not ids:
        return Judged()
    names = list(held)
    every = away(metric, np.array([held[id][0] for id in names]), np.array(query))
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
