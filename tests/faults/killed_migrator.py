"""The processes of test_migrating_kill.py: one gives rows other vectors until it is killed, one lives on.

`migrate` calls a verb and says how far it is. `use` writes, and after each commit looks at one snapshot:
every answer must be that of the vectors before, or of those after, as brute force has it over its own dict.
Two ways to do it wrong serve as controls: "early" switches before all rows are done, "skips" takes rows for
done that are not.
"""

from __future__ import annotations

import random
import select
import traceback
from contextlib import closing
from typing import Any

import numpy as np
from pyroaring import BitMap

import vecdb
from tests.migrating import FIELD, Recipe, Was, World, encoders
from tests.nursery import Line
from vecdb.adapting.adapter import Adapter
from vecdb.collection import steps
from vecdb.errors import InvalidArgument
from vecdb.index.writing import Writing

IDS = 500  # rows at most


def adapter(seed: int, dim: int, space: str | None) -> Adapter:
    """The map of a run; the same in every process."""
    matrix = np.random.default_rng(seed).standard_normal((dim, dim + 2)) / np.sqrt(dim)
    return Adapter(matrix, metric="cosine", encoder_fingerprint=space)


# --- who is killed -----------------------------------------------------------------------------------


def migrate(line: Line, path: str, verb: str, seed: int, dim: int, way: str, step: int) -> None:
    """Call a verb, telling of each step; "done" at its end."""
    steps.FIRST_STEP, steps.MOST_STEP, steps.LAST_ROWS = step, 2 * step, 2
    if way == "early":
        Writing.lacking = lambda *_: BitMap()  # type: ignore[method-assign]
        steps.Steps._lacking = lambda self, txn, view, *_: (BitMap(), 1)  # type: ignore[method-assign]
    elif way == "skips":
        plain = Writing.fill

        def skips(self: Writing, declared: Any, rids: Any, array: Any) -> None:
            if len(rids) > 1:
                plain(self, declared, rids[1:], array[1:])
            self._filled.setdefault(declared.number, BitMap()).add(int(rids[0]))

        Writing.fill = skips  # type: ignore[method-assign]
    known = encoders(dim)
    with vecdb.open(path, durability="relaxed") as db:
        c = db["c"]

        def tell(done: int, total: Any) -> None:
            line.put(("step", done, total))

        line.put(("ready",))
        if verb == "apply":
            declared = c.schema.vectors[FIELD]
            c.apply_adapter(adapter(seed, dim, declared.fingerprint), using=FIELD, force=True, progress=tell)
        elif verb == "reembed":
            c.reembed(known[1], using=FIELD, bridge=False, progress=tell)
        else:
            call = c.rollback_vectors if verb == "roll back" else c.drop_previous_vectors
            try:
                call(FIELD)
            except InvalidArgument as error:
                assert "are kept" in str(error), error  # the call that was killed had done it
        line.put(("done",))


# --- who lives on ------------------------------------------------------------------------------------


def use(line: Line, path: str, seed: int, texts: bool, dim: int) -> None:
    """Write and look until told to stop; answers with what was seen."""
    world = World(path, seed, texts=texts, dim=dim, ids=IDS, beside=False, simple=True)
    with closing(world):
        world.upsert(list(range(IDS)))
        User(line, world, seed).run()


class User:
    """Writes, and compares what a snapshot shows with its dict."""

    def __init__(self, line: Line, world: World, seed: int) -> None:
        self.line, self.world, self.rng = line, world, random.Random(seed)
        self.before = world.recipe
        self.adapter = seed
        self.seen = [0]  # 0: the vectors before, 1: those after; in the order in which they came
        self.commits = self.looks = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        self.line.put(("ready",))
        while True:
            try:
                order = self.line.get() if select.select([self.line.end], [], [], 0)[0] else None
            except EOFError:
                return
            if order is None:
                self.write()
                self.look()
                continue
            verb, *arguments = order
            if verb == "adapter":
                (self.adapter,) = arguments
            else:
                self.look(whole=True)
            self.line.put(("answer", self.seen, self.commits, self.looks, self.wrong))
            if verb == "stop":
                return

    def write(self) -> None:
        world, rng = self.world, self.rng
        try:
            deed = rng.random()
            if deed < 0.5:
                world.upsert(world.some_ids(rng, rng.choice([1, 5, 25])))
            elif deed < 0.8:
                world.update(rng.randrange(IDS), rng.choice(["text" if world.texts else "vector", "other", "n"]))
            elif len(world.rows) > IDS // 2:
                world.delete(world.some_ids(rng, 20))
            self.commits += 1
        except Exception as error:
            self.wrong.append(f"a write was refused: {error!r}")

    def look(self, whole: bool = False) -> None:
        self.looks += 1
        try:
            self.world.c.search(self.world.some_vector(), 5, using=FIELD)  # no vector of either length is refused
        except InvalidArgument as error:
            if f"{self.now().dim}" not in str(error):
                self.wrong.append(f"a search was refused: {error}")
        except Exception as error:
            self.wrong.append(f"a search was refused: {error!r}")
        try:
            with self.world.db.snapshot() as snapshot:
                c = snapshot["c"]
                recipe = self.of(c.schema.vectors[FIELD])
                was = Was(self.world.rows, recipe)
                if whole:
                    self.world.whole(c, was)
                else:
                    self.world.compare(c, was)
        except Exception as error:
            self.wrong.append(f"{self.seen}: {error!r:.300}, {traceback.extract_tb(error.__traceback__)[-1]}")

    def now(self) -> Recipe:
        return self.of(self.world.c.schema.vectors[FIELD])

    def of(self, declared: Any) -> Recipe:
        """What makes the vectors that a declaration tells of."""
        found = self.before
        if declared.adapters:
            made = adapter(self.adapter, self.before.dim, self.before.encoder and self.before.encoder.fingerprint)
            assert declared.adapters == (made.fingerprint,), "another adapter's vectors"
            found = Recipe(found.encoder, (made,), found.dim)
        elif self.world.texts and declared.encoder != self.before.encoder.name:
            found = Recipe(self.world.encoders[1], dim=self.world.encoders[1].dim)
            assert declared.encoder == found.encoder.name
        which = int(found is not self.before)
        if self.seen[-1] != which:
            self.seen.append(which)
        return found
