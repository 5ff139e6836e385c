"""What does the writer of a run do in step n, and what must be in the file after it?

Step n is a pure function of (seed, n, the world before it). Whoever knows the seed follows the recipe
by himself, in whichever process or thread: a reader that learns the number of a step knows every row
of it, and nobody has to tell him. Worlds are arrays over all rows that can ever be, so that a step
costs a copy and comparing costs numpy, not Python.

Rules that readers rest on:
  W1  each step is one transaction over both tables and rewrites the row "clock" of each: the file
      itself says which step it shows, and a step that is half there cannot look whole;
  W2  what a row holds is a function of its number, of the step that last wrote it (`version`), of the
      step that last patched it by a filter (`touched`), and of its vector; where a table is rich, its text,
      title, sparse and many vectors too (tests/riches.py);
  W3  vectors are whole numbers, so that squared distances are exact in float32 and can be compared
      for equality;
  W4  rows come back: there are half as many again as may live at once, so ids, slots and places in
      the graph are used over and over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import vecdb
from tests import riches
from vecdb import F

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
CLOCK = "clock"
TAGS = ("a", "b", "c")
BUCKETS = 40
CLUSTERS = 12
SIZES = (1, 1, 1, 2, 5, 20, 60, 200)
WHOLESALE = 0.006  # the share of deeds that put as many rows as may live in the place of all


@dataclass(frozen=True)
class Kind:
    """One of the two collections of a run."""

    name: str
    dim: int
    metric: str
    most: int  # rows that may live at once
    rich: bool = False  # they have full text, sparse and many vectors

    @property
    def all(self) -> int:
        return self.most * 3 // 2

    @cached_property
    def ids(self) -> list[Any]:
        """Row number to id: whole numbers and strings."""
        return [number if number % 2 == 0 else f"r{number:04d}" for number in range(self.all)]

    @cached_property
    def centres(self) -> Any:
        return np.random.default_rng(self.dim).integers(-25, 26, (CLUSTERS, self.dim))


KINDS = (Kind("near", 16, "l2", 1900), Kind("angle", 8, "cosine", 1000))
RICH_KINDS = (Kind("near", 16, "l2", 500, True), Kind("angle", 8, "cosine", 250, True))


def number_of(id: Any) -> int:
    """The number of a row from its id; that of no row where nobody could have given that id."""
    if isinstance(id, int):
        return id
    return int(id[1:]) if id[:1] == "r" else -1


class Deed(NamedTuple):
    """One write of a step."""

    verb: str
    kind: int
    numbers: Numbers
    vectors: Any = None
    value: int = 0  # the bucket or cluster of a write by filter


@dataclass
class Table:
    """One collection at one step. Nobody changes it afterwards."""

    kind: Kind
    step: int
    live: Mask
    seated: Mask  # has a vector
    vectors: npt.NDArray[np.float32]
    version: Numbers
    touched: Numbers  # 0: never since it was written
    kept: dict[Any, Any] = field(default_factory=dict)  # what readers work out about it

    def copy(self, step: int) -> Table:
        arrays = (self.live, self.seated, self.vectors, self.version, self.touched)
        return Table(self.kind, step, *(array.copy() for array in arrays))

    # --- what rows hold (W2) ---------------------------------------------------------------

    @cached_property
    def _mixed(self) -> Numbers:
        return mixed(np.arange(self.kind.all), self.version)

    @cached_property
    def bucket(self) -> Numbers:
        return (self._mixed >> 7) % BUCKETS

    @cached_property
    def tag(self) -> Numbers:
        return (self._mixed >> 13) % len(TAGS)

    @cached_property
    def share(self) -> Any:
        return (self._mixed >> 3) % 1000 / 1000

    @cached_property
    def cluster(self) -> Numbers:
        return np.arange(self.kind.all) % CLUSTERS

    @cached_property
    def ranked(self) -> Mask:
        """The rows that a search can find."""
        return self.live & self.seated

    def metadata(self, number: int) -> dict[str, Any]:
        """What a row that lives must hold."""
        found = metadata(number, int(self.version[number]), int(self.touched[number]))
        return riches.with_title(found, self.extra(number)) if self.kind.rich else found

    def extra(self, number: int) -> riches.Extra:
        """What else a row of a rich table holds."""
        return riches.extra_of(key_of(number, int(self.version[number])))

    def world(self) -> riches.World:
        """What searches of a rich table are compared with."""
        found: riches.World | None = self.kept.get("world")
        if found is None:
            rows = {
                self.kind.ids[at]: (self.vectors[at] if self.seated[at] else None, self.extra(at))
                for at in np.flatnonzero(self.live).tolist()
            }
            found = self.kept["world"] = riches.World(rows, self.kind.metric, self.kind.metric)
        return found

    # --- distances (W3) ------------------------------------------------------------------------

    @cached_property
    def _squares(self) -> Any:
        return np.einsum("ij,ij->i", self.vectors, self.vectors)

    def distances(self, query: Any) -> Any:
        """By brute force to every row: squared under l2, and then exact."""
        products = self.vectors @ query
        if self.kind.metric == "l2":
            return self._squares - 2 * products + query @ query
        lengths = np.sqrt(self._squares.astype(float) * float(query @ query))
        return 1 - products / np.where(lengths, lengths, 1)


def mixed(numbers: Any, versions: Any) -> Any:
    """Something like chance from a row's number and version."""
    return (numbers * 2654435761 + versions * 2246822519) & 0xFFFFFFFF


def metadata(number: int, version: int, touched: int = 0) -> dict[str, Any]:
    """What a row of that number and version holds."""
    at = mixed(number, version)
    found = {
        "n": version, "bucket": (at >> 7) % BUCKETS, "tag": TAGS[(at >> 13) % len(TAGS)],
        "share": (at >> 3) % 1000 / 1000, "cluster": number % CLUSTERS,
    }  # fmt: skip
    return {**found, "touched": touched} if touched else found


def key_of(number: int, version: int) -> str:
    """What the rest of a rich row follows from."""
    return f"{number} {version}"


World = tuple[Table, ...]


def empty(rich: bool = False) -> World:
    """Step 0: nothing but the clocks."""
    return tuple(
        Table(
            kind, 0, np.zeros(kind.all, bool), np.zeros(kind.all, bool),
            np.zeros((kind.all, kind.dim), np.float32),
            np.zeros(kind.all, np.int64), np.zeros(kind.all, np.int64),
        )
        for kind in (RICH_KINDS if rich else KINDS)
    )  # fmt: skip


def create(path: str, rich: bool = False) -> None:
    """The file of step 0."""
    with vecdb.open(path, durability="relaxed") as db:
        for kind in KINDS:
            more: dict[str, Any] = {"dim": kind.dim, "metric": kind.metric}
            if rich:
                more = riches.declared(vecdb.Vector(kind.dim, metric=kind.metric), kind.metric)
            c = db.create_collection(kind.name, **more)
            c.add(CLOCK, metadata={"clock": 0})


# --- the recipe -----------------------------------------------------------------------------------


def step(seed: int, world: World) -> tuple[list[Deed], World]:
    """What the next step does, and the world after it."""
    n = world[0].step + 1
    rng = np.random.default_rng([seed, n])
    after = tuple(table.copy(n) for table in world)
    deeds = []
    for at in [(0,), (0,), (1,), (0, 1)][rng.integers(4)]:
        for _ in range((1, 1, 2, 3)[rng.integers(4)]):
            for deed in _deeds(rng, at, after[at]):
                apply(deed, after[at])
                deeds.append(deed)
    return deeds, after


def _deeds(rng: np.random.Generator, at: int, table: Table) -> list[Deed]:
    lively = np.flatnonzero(table.live)
    most = table.kind.most
    if rng.random() < WHOLESALE:
        new = rng.permutation(table.kind.all)[: most - 100]
        return [Deed("delete", at, lively), _new("add", rng, at, table, new)]
    size = SIZES[rng.integers(len(SIZES))]
    free = np.flatnonzero(~table.live)
    if len(lively) < most * 5 // 8:
        return [_new("add", rng, at, table, rng.permutation(free)[: most // 4])]
    if len(lively) + size > most:
        return [Deed("delete", at, rng.permutation(lively)[: size + most // 8])]
    verb = ("add", "add", "upsert", "upsert", "update", "move", "delete", "delete", "patch", "drop", "raze")[
        rng.integers(11)
    ]
    if verb == "add":
        return [_new("add", rng, at, table, rng.permutation(free)[:size])]
    if verb == "upsert":
        old = rng.permutation(lively)[: (size + 1) // 2]
        return [_new("upsert", rng, at, table, np.concatenate([old, rng.permutation(free)[: size // 2]]))]
    if verb in ("update", "move", "delete"):
        old = rng.permutation(lively)[:size]
        vectors = _vectors(rng, table, old) if verb == "move" else None
        return [Deed(verb, at, old, vectors)]
    nobody = np.zeros(0, np.int64)
    if verb == "raze" and rng.random() < 0.3:
        return [Deed("raze", at, nobody, None, int(rng.integers(CLUSTERS)))]
    return [Deed("patch" if verb == "raze" else verb, at, nobody, None, int(rng.integers(BUCKETS)))]


def _new(verb: str, rng: np.random.Generator, at: int, table: Table, numbers: Numbers) -> Deed:
    without = verb == "upsert" and rng.random() < 0.1
    return Deed(verb, at, numbers, None if without else _vectors(rng, table, numbers))


def _vectors(rng: np.random.Generator, table: Table, numbers: Numbers) -> Any:
    """Near the centre of each row's cluster; none is zero."""
    kind = table.kind
    found = kind.centres[numbers % CLUSTERS] + rng.integers(-9, 10, (len(numbers), kind.dim))
    found[:, 0] = 40
    return found.astype(np.float32)


def apply(deed: Deed, table: Table) -> None:
    """Do it to a table that nobody else has seen yet."""
    numbers = deed.numbers
    if deed.verb in ("add", "upsert"):
        table.live[numbers] = True
        table.seated[numbers] = deed.vectors is not None
        table.touched[numbers] = 0
    if deed.verb in ("add", "upsert", "update", "move"):
        table.version[numbers] = table.step
    if deed.vectors is not None:
        table.vectors[numbers] = deed.vectors
        table.seated[numbers] = True
    if deed.verb == "delete":
        table.live[numbers] = False
    elif deed.verb == "patch":
        table.touched[chosen(table, deed)] = table.step
    elif deed.verb in ("drop", "raze"):
        table.live[chosen(table, deed)] = False


def chosen(table: Table, deed: Deed) -> Mask:
    """The rows of a write by filter; computed, not kept: the table still changes."""
    numbers = np.arange(table.kind.all)
    values = numbers % CLUSTERS if deed.verb == "raze" else (mixed(numbers, table.version) >> 7) % BUCKETS
    return table.live & (values == deed.value)


def perform(deed: Deed, n: int, c: vecdb.Collection, rich: bool = False) -> None:
    """Do it to the database."""
    ids = [KINDS[deed.kind].ids[number] for number in deed.numbers]
    rows = [metadata(number, n) for number in deed.numbers.tolist()]
    vectors, texts = deed.vectors, None
    if rich:
        keys = [key_of(number, n) for number in deed.numbers.tolist()]
        vectors, rows, texts = riches.given(keys, rows, vectors, deed.verb in ("update", "move"))
    if deed.verb == "add":
        assert c.add(ids, vectors, metadata=rows, texts=texts) == ids
    elif deed.verb == "upsert":
        assert c.upsert(ids, vectors, metadata=rows, texts=texts) == ids
    elif deed.verb in ("update", "move"):
        assert c.update(ids, vectors=vectors, metadata=rows, texts=texts) == len(ids)
    elif deed.verb == "delete":
        assert c.delete(ids) == len(ids)
    elif deed.verb == "patch":
        c.update(where=F.bucket == deed.value, metadata={"touched": n})
    else:
        c.delete(where=(F.cluster if deed.verb == "raze" else F.bucket) == deed.value)


# --- filters, with what they mean --------------------------------------------------------------------


class Chosen(NamedTuple):
    """A filter, and which rows of a table satisfy it; `clock`: whether the row "clock" does."""

    where: Any
    mask: Callable[[Table], Mask]
    clock: bool = False


def some_filter(rng: Any, n: int) -> Chosen:
    """A filter at random, for somebody who has seen step n."""
    bucket, cluster, share = rng.randrange(BUCKETS), rng.randrange(CLUSTERS), rng.randrange(1, 10) / 10
    tag = rng.randrange(len(TAGS))
    ways: list[Callable[[], Chosen]] = [
        lambda: Chosen(F.bucket == bucket, lambda t: t.bucket == bucket),
        lambda: Chosen(F.share < share, lambda t: t.share < share),
        lambda: Chosen(F.tag == TAGS[tag], lambda t: t.tag == tag),
        lambda: Chosen(~(F.tag == TAGS[tag]), lambda t: t.tag != tag, clock=True),
        lambda: Chosen((F.share < share) & (F.tag != TAGS[tag]), lambda t: (t.share < share) & (t.tag != tag)),
        lambda: Chosen(F.cluster == cluster, lambda t: t.cluster == cluster),
        lambda: Chosen(F.n > n - 3, lambda t: t.version > n - 3),
        lambda: Chosen(F.touched.exists(), lambda t: t.touched > 0),
        lambda: Chosen(F.clock.exists() | (F.bucket == bucket), lambda t: t.bucket == bucket, clock=True),
    ]  # fmt: skip
    return ways[rng.randrange(len(ways))]()
