"""Which slots are free, which rest, which are condemned: do the records and the graphs agree?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pyroaring import BitMap

from vecdb.check.subject import Subject, some
from vecdb.errors import VecdbError
from vecdb.index.sweeping import absent_from, condemned_in
from vecdb.index.view import View
from vecdb.storage import keys, resting
from vecdb.types import Problem


def problems(of: Subject, view: View) -> Iterator[Problem]:
    """Every problem with slots of rows that are gone."""
    now = view.state
    dead = BitMap(range(now.slots)) - of.live
    vacant = absent_from(view.vectors.values(), dead)
    if len(vacant) != now.vacant:
        yield Problem("Q4", of.name, f"it counts {now.vacant} vacant slots; there are {len(vacant)}")
    yield from _resting(of, view)
    yield from _condemned(of, view)
    for number, each in view.vectors.items():
        layout = of.layouts[number]
        if not layout.sole:
            continue
        for slot in range(layout.inline_from(now.slots), now.slots):
            if slot in vacant or of.txn.get(keys.row(of.cid, slot)) is not None:
                continue
            if not each.graph.absent(np.array([slot], np.uint32))[0]:
                yield Problem("V3", of.at(f"row {slot}"), "the vector of this slot is missing")


def condemned(of: Subject, view: View) -> BitMap:
    """The slots that the round under way takes out, none where there is no round."""
    key = keys.condemned(of.cid)
    record = of.txn.get(key)
    if record is None or not view.state.condemned:
        return BitMap()
    try:
        return condemned_in(key, record)
    except VecdbError:
        return BitMap()


def _resting(of: Subject, view: View) -> Iterator[Problem]:
    seen, count = BitMap(), 0
    try:
        for entry in resting.read(of.txn, of.cid):
            slots = BitMap(entry.slots)
            where = of.at(keys.describe(entry.key))
            count += len(entry.slots)
            for what, which in (
                ("are live", slots & of.live),
                ("are named twice", slots & seen),
                ("were never handed out", slots - BitMap(range(view.slots))),
            ):
                if which:
                    yield Problem("Q1", where, f"of the slots that rest {some(which)} {what}")
            seen |= slots
    except VecdbError as error:
        yield of.problem(error, "Q1", of.name)
        return
    if count != view.state.resting:
        yield Problem("Q2", of.name, f"it counts {view.state.resting} resting slots; there are {count}")


def _condemned(of: Subject, view: View) -> Iterator[Problem]:
    key = keys.condemned(of.cid)
    record = of.txn.get(key)
    where = of.at(keys.describe(key))
    if (record is not None) != (view.state.condemned > 0):
        yield Problem("Q3", where, "there is a record without a round, or a round without a record")
        return
    if record is None:
        return
    try:
        alive = condemned_in(key, record) & of.live
    except VecdbError as error:
        yield of.problem(error, "Q3", where)
        return
    if alive:
        yield Problem("Q3", where, f"of the condemned slots {some(alive)} are live")
