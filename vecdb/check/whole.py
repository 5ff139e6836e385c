"""What holds for the file as a whole: frames and keys, the catalog, cached embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from vecdb import _core
from vecdb.storage import embeddings, keys, times
from vecdb.storage.schema import Schema
from vecdb.types import Problem


def frames(txn: Any) -> Iterator[Problem]:
    """F1 and F2."""
    cursor = txn.cursor()
    more = cursor.first()
    while more:
        key = bytes(cursor.key())
        if key[0] not in keys.KIND_NAMES:
            yield Problem("F1", key.hex(), "a record of an unknown kind")
        elif not keys.well_formed(key):
            yield Problem("F2", keys.describe(key), "no key of that kind is spelled like this")
        else:
            try:
                _core.unseal(key[0], key, cursor.value())
            except ValueError as error:
                yield Problem("F1", keys.describe(key), str(error))
        more = cursor.next()


def collections(
    txn: Any, catalog: dict[str, tuple[int, Schema]], next_cid: int
) -> Iterator[Problem]:
    """C1: declarations and the records that belong to them."""
    known = {cid for cid, _ in catalog.values()}
    found: Counter[int] = Counter()
    cursor = txn.cursor()
    more = cursor.first()
    while more:
        key = bytes(cursor.key())
        if key[0] in keys.KIND_NAMES and key[0] not in keys.OF_THE_DATABASE and keys.well_formed(key):
            cid = int.from_bytes(key[1:5], "big")
            found[cid] += key[0] == keys.CATALOG
            if cid not in known:
                known.add(cid)
                yield Problem("C1", keys.describe(key), "records of a collection that is not there")
        more = cursor.next()
    for name, (cid, _) in catalog.items():
        if cid >= next_cid:
            yield Problem("C1", name, f"its number {cid} is not below the next one, {next_cid}")
    if sum(found.values()) > len(catalog):
        yield Problem("C1", "the catalog", "two collections have the same name")


def noted(txn: Any) -> Iterator[Problem]:
    """M2: the times of commits."""
    record = txn.get(keys.TIMES_KEY)
    where = keys.describe(keys.TIMES_KEY)
    try:
        found = [] if record is None else times.unpack(record)
    except ValueError as error:
        yield Problem("M2", where, str(error))
        return
    if any(one[0] >= two[0] or one[1] > two[1] for one, two in pairwise(found)):
        yield Problem("M2", where, "numbers and times do not ascend")


def cached(txn: Any) -> Iterator[Problem]:
    """E2 and E3."""
    for key, record in embeddings.entries(txn):
        try:
            embeddings.vector_in(key, record)
        except ValueError as error:
            yield Problem("E2", keys.describe(key), str(error))
    record = txn.get(keys.CACHED_KEY)
    try:
        said = embeddings.Cached(0, 0) if record is None else embeddings.counts_in(record)
    except ValueError as error:
        yield Problem("E3", keys.describe(keys.CACHED_KEY), str(error))
        return
    found = embeddings.count(txn)
    if said != found:
        detail = f"it says {said.count} of {said.bytes} bytes; there are {found.count} of {found.bytes}"
        yield Problem("E3", keys.describe(keys.CACHED_KEY), detail)
