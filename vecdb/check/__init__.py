"""Is everything in the file as it should be? Every violated invariant, not only the first.

`check_database` reads one snapshot whole. It trusts nothing that a process remembers: the graph and
the metadata indexes are loaded again from images and log, and compared with the rows. The numbered
invariants are those of the modules that keep them; tests/unit/test_check.py plants a violation of
each.

    F1  every record is of a known kind, is framed, and its checksum covers its key
    F2  every key is spelled as its kind spells it
    F3  the file's pages form sound trees; where they do not, nothing else is looked at, because the
        engine would end the process on its way there
    M1  the meta record can be read, and no commit number in the file is above its own
    M2  the record of commits' times can be read, and its entries ascend
    C1  collection names are unique, declarations possible, and collection numbers below the next
        one; no orphan records
    R1  ids and live rows lead to each other
    R2  the records that the graph is loaded from pass their checksums
    R3  a row's `changed` is at most the file's commit number
    R4  a row without a slot has no vector in a field with a graph, a row has vectors in declared or
        dropped fields only, and its number has been handed out
    R5  a row's record and its metadata can be decoded
    R6  a row's metadata contradicts no declaration of its collection's fields
    V1  every full block of vectors is written, and no other
    V2  a block names its place, shape and dtype
    V3  a row's vector is in its record while its block is not written, then in its block; where a slot
        was handed out again it may be in the record until the block is written anew
    V4  a row that has a field of many vectors has a record of them, and no other row has
    V5  a record of a sparse vector is spelled as the one of an equal vector would be
    S1  the collection's state is readable, no watermark lies beyond the last commit, and the last
        log records that it names are there; no log is cut beyond a watermark
    S2  the state's counts are those of the rows
    L2  log records can be read
    W1  the bitmap of live rows (image and log) names the live rows
    A1  postings and orders (image and tail) say of every row what its metadata says: nothing of
        fields declared Unindexed, each trigram of those with a substring index
    A2  every chunk of a long posting is the one that its leaf names, and no other is there
    A3  the log's attribute changes can be read
    D1  a saved search can be read, and no two have one number
    D2  a watcher's record can be read, its search is there, and its commit is not beyond the last one
    T1  the segments of full text that the state names can be read to their end, the output of a merge
        under way as far as it has come
    T2  segments and tail say of every live row what its texts say: each word, how often, and the lengths
    T3  no other record of a segment is there
    T4  full text was indexed by the analysis that is at hand
    E1  the measured effort can be read, and found no more than there was
    E2  a cached embedding is a float32 vector of finite numbers
    E3  the count of cached embeddings is that of the records
    G1  link images and link log can be loaded
    G2  links are in range, without loops, duplicates or gaps
    G3  every live slot is in the graph and can be reached
    G4  this process's graph is the file's, link for link, in the same scale of codes, and its
        private copies of vectors are those stored
    G5  a chunk of links names its layer, and a commit that is not before the image's watermark
    G6  the codes in this process's memory are those of the stored vectors
    J1  the search log can be read, what was erased apart
    J2  it takes at most the bytes that it may, and they are counted rightly
    X1  every map that vectors go through is there, is the one that is named, and maps what the field has
        to what it has; no other is there
    Q1  slots that rest since their rows died, or since they left the graphs, can be read, were handed
        out, are not live, and are named once
    Q2  the state counts them
    Q3  there are condemned slots exactly while a round of upkeep is under way, and none is live
    Q4  the state counts the vacant slots: neither live nor in a graph

Where images and log cannot be loaded, what rests on them (W1, A1 against the rows, G2 to G4) is not
looked at: the damage that is reported comes first. What is of the whole file is in whole.py, S, R and V
are in rows.py, W, A and G in indexes.py, T in texts.py, X in maps.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vecdb.check import indexes, kept, maps, rows, slots, texts, whole
from vecdb.check.subject import Subject, problem_of
from vecdb.errors import VecdbError
from vecdb.storage import state
from vecdb.storage.env import LMDB_ERRORS
from vecdb.storage.schema import read_all
from vecdb.types import Problem

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.index.follow import Follower

LIMIT = 1000  # problems reported of one collection; more of the same tell nothing new


def check_database(db: Database) -> list[Problem]:
    """Every violated invariant of a database."""
    txn = db._env.begin_read()
    try:
        unsound = db._env.unsound()
        if unsound:
            return [Problem("F3", "structure", finding) for finding in unsound[:LIMIT]]
        return list(_problems(db, txn))
    except LMDB_ERRORS as error:
        raise db._env.translated(error) from error
    finally:
        txn.abort()


def _problems(db: Database, txn: Any) -> Iterator[Problem]:
    yield from whole.frames(txn)
    try:
        commit = db._env.commit_number(txn)
        next_cid = db._env.meta(txn).next_cid
    except VecdbError as error:
        yield Problem("M1", "meta", getattr(error, "detail", "") or str(error))
        return
    try:
        catalog = read_all(txn)
    except VecdbError as error:
        yield problem_of(error, "C1", getattr(error, "where", "") or "the catalog")
        return
    yield from whole.collections(txn, catalog, next_cid)
    yield from whole.noted(txn)
    yield from whole.cached(txn)
    yield from kept.searches(txn, commit)
    yield from kept.log(txn, db._env.veil_key(), {cid for cid, _ in catalog.values()})
    for name, (cid, schema) in sorted(catalog.items()):
        mine = db._followers.get(cid)
        subject = Subject(name, cid, schema, txn, commit, db._threads)
        for number, problem in enumerate(_of_collection(subject, mine)):
            if number == LIMIT:
                yield Problem("C1", name, f"more than {LIMIT} problems; the rest is left out")
                break
            yield problem


def _of_collection(of: Subject, mine: Follower | None) -> Iterator[Problem]:
    yield from maps.problems(of)
    try:
        now = state.read(of.txn, of.cid)
    except VecdbError as error:
        yield of.problem(error, "S1", of.name)
        return
    yield from rows.problems(of, now)
    yield from indexes.images(of, now)
    yield from texts.records(of, now)
    try:
        view = of.follower.at(of.txn, of.commit)
    except VecdbError as error:
        yield of.problem(error, "G1", of.name)
        return
    yield from slots.problems(of, view)
    yield from indexes.problems(of, view, mine)
    yield from texts.problems(of, view)
