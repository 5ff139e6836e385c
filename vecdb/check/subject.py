"""What is looked at: one collection at one snapshot, and how a place in it is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyroaring import BitMap

from vecdb.errors import VecdbError
from vecdb.index import seats
from vecdb.index.follow import Follower
from vecdb.storage import keys
from vecdb.storage.rows import Row
from vecdb.storage.schema import Schema
from vecdb.types import Problem


class Subject:
    """One collection at one snapshot; `live` and `found` are filled by the look at its rows."""

    def __init__(
        self, name: str, cid: int, schema: Schema, txn: Any, commit: int, threads: int
    ) -> None:
        self.name = name
        self.cid = cid
        self.schema = schema
        self.txn = txn
        self.commit = commit
        self.follower = Follower(cid, lambda: 0, threads)  # which remembers nothing yet
        self.fields = schema.by_number  # hidden ones too
        self.layouts = {number: schema.layout(each) for number, each in self.fields.items()}
        self.graphed = [each for each in self.fields.values() if each.graphed]
        self.stated = seats.stated(schema)
        self.live = BitMap()
        self.found: dict[int, Row] = {}

    def at(self, what: str) -> str:
        """A place inside the collection."""
        return f"{self.name}/{what}"

    def problem(self, error: VecdbError, code: str, where: str) -> Problem:
        """What an error says, at the place that it names; else the code and place given."""
        found = problem_of(error, code, where)
        place = getattr(error, "where", "")
        return Problem(found.code, self.at(place), found.detail) if place else found

    def scan(self, kind: int) -> Iterator[tuple[bytes, Any]]:
        """The collection's records of one kind whose keys are well spelled."""
        prefix = keys.prefix(kind, self.cid)
        cursor = self.txn.cursor()
        more = cursor.set_range(prefix)
        while more:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            if keys.well_formed(key):  # the others are reported already (F2)
                yield key, cursor.value()
            more = cursor.next()


def problem_of(error: VecdbError, code: str, where: str) -> Problem:
    """What an error says, under its own code where it has one."""
    detail = getattr(error, "detail", "") or str(error)
    return Problem(getattr(error, "code", "") or code, where, detail)


def some(rids: BitMap) -> str:
    """How many rows, and the first of them."""
    first = ", ".join(map(str, list(rids[:5])))
    return f"{len(rids)} rows ({first}{', ...' if len(rids) > 5 else ''})"
