"""How is what is sound in a damaged file saved into a new one?

    report = vecdb.repair("damaged.vecdb", "saved.vecdb")
    print(report)

The rows are the truth: a row's record carries its id, text and metadata, and says which vectors it
has; they lie there, in blocks or in records beside it. So every sound row of the last commit is
written to a new database, whose graphs and metadata indexes are built anew; ids, catalog and state of
the damaged file serve to say what is missing. The source is read by storage/salvage.py, byte by byte
and without LMDB; collection by collection, declarations.py says what was declared, stored.py which
vectors are sound, and rescue.py writes the rows and names what is lost.

Invariants (checked by tests/faults/test_repair.py and test_repair_fields.py):
  1. the source is only read, and no damage to it can end the process;
  2. every row whose record can be reached is saved; one that has lost a vector is saved without it,
     and with its others;
  3. whatever is lost is named: by its id where the id map still has it, else by how many they are;
  4. the target exists complete or not at all.

What is not a loss: indexes, graphs, measured effort and cached embeddings, which are made anew.

Rejected: saving earlier versions of lost rows (they were replaced or deleted; a value that nobody
can vouch for is worse than a loss that is named).
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress

from vecdb.database import Database, open
from vecdb.errors import AlreadyExists, Busy, Corrupt, InvalidArgument, WrongFormat
from vecdb.repair.declarations import declarations
from vecdb.repair.kept import save_kept
from vecdb.repair.report import Lost, Report, Saved
from vecdb.repair.rescue import ROWS_AT_ONCE, Rescue
from vecdb.storage import embeddings, keys, meta, place
from vecdb.storage.salvage import Salvaged, salvage

__all__ = ["Lost", "Report", "Saved", "repair"]

HEADS = 1 << 17  # both heads of the file lie below, whatever its page size


def repair(src: str | os.PathLike[str], dst: str | os.PathLike[str]) -> Report:
    """Save all that is sound in the file `src` into the new database `dst`, and say what is lost.

    `src` is only read, whatever its damage; nobody may write to it meanwhile. Costs a pass over it
    in Python (some 70,000 records a second), building the graphs anew, and twice the room of `dst`.
    Raises NotFound, AlreadyExists, WrongFormat where `src` is no vecdb file or of a newer format,
    Busy when it is being written, Full.

    >>> import vecdb
    >>> with vecdb.open("books.vecdb") as db:
    ...     _ = db.create_collection("books", dim=2).add(["a", "b"], [[1, 0], [0, 1]])
    >>> report = vecdb.repair("books.vecdb", "saved.vecdb")
    >>> report.ok, report.collections["books"]
    (True, Saved(rows=2, vectors=2))
    """
    source, target = _path("src", src), _path("dst", dst)
    try:  # O_NONBLOCK: opening a pipe would wait for somebody to write to it
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise place.failed(f"{source} cannot be read", error) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument(f"src: {source} is no regular file; a database is one")
        where, _ = place.find(target, "x")
        report = Report(source, target)
        before = _changes(fd)
        found = salvage(fd)
        _refuse_written(fd, before, source)
        _refuse_foreign(found, source)
        _build(found, report, where.data, before)
        return report
    finally:
        os.close(fd)


def _changes(fd: int) -> object:
    """What is another whenever somebody has written to the file: every commit writes a head."""
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns, os.pread(fd, HEADS, 0)


def _refuse_written(fd: int, before: object, source: str) -> None:
    if _changes(fd) != before:
        raise Busy(f"{source} was written while it was read; close it everywhere and try again")


def _path(name: str, given: object) -> str:
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        raise InvalidArgument(f"{name} is the path of a file, not {given!r:.60}")
    path = os.fspath(given)
    if not isinstance(path, str) or "\0" in path:
        raise InvalidArgument(f"{name} is a path as text without NUL, not {path!r:.60}")
    return path


def _refuse_foreign(found: Salvaged, source: str) -> None:
    if not found.places:  # keys alone say nothing: others' may be spelled like ours
        meta.refuse_foreign(source, "holds no sound record of a vecdb database")
    record = found.get(keys.META_KEY)
    if record is None:
        return
    try:
        meta.decode(record, source)
    except Corrupt:
        return  # this record says nothing; the others may
    except WrongFormat as error:
        if error.found is not None:  # of a newer format
            raise


# --- the new file ----------------------------------------------------------------------------------


def _build(found: Salvaged, report: Report, data: str, before: object) -> None:
    """Write a database beside the target and give it the target's name when it is complete."""
    part = f"{data}.repair-{os.getpid()}-{threading.get_ident()}"
    files = (part, f"{part}-lock", f"{part}-writer")
    for path in files:
        with suppress(OSError):
            os.unlink(path)
    try:
        with open(part, durability="none", upkeep=False) as db:
            _fill(found, report, db)
            _refuse_written(found.fd, before, report.source)
            db.backup(data)
    except AlreadyExists:
        raise AlreadyExists(f"{data} exists; choose another name for what is saved") from None
    finally:
        for path in files:
            with suppress(OSError):
                os.unlink(path)


def _fill(found: Salvaged, report: Report, db: Database) -> None:
    if found.behind:
        report.lost.append(
            Lost("commits", "the last ones", f"{found.behind} commits came after the one that could "
                 "be reached; what they changed is lost", count=found.behind)
        )  # fmt: skip
    if found.beheaded and found.holes and not found.behind:
        report.lost.append(
            Lost("commits", "the last one", "one of the file's two heads is broken, and other pages "
                 "too: the last commit may be lost with it")
        )  # fmt: skip
    elif found.beheaded and not found.behind:
        report.notes.append("one of the file's two heads is broken; the other one's tree is whole, "
                            "and no later commit was found")  # fmt: skip
    if found.unused:
        report.lost.append(
            Lost("pages", "the file", f"{found.unused} pages of records cannot be told from earlier "
                 "versions, as the list of free pages is damaged too; they were not used",
                 count=found.unused)
        )  # fmt: skip
    if found.uncertain:
        report.lost.append(
            Lost("commits", "uncertain", "most of the last commit's tree is lost: rows were taken from "
                 "wherever they lay, and some may be deleted ones or earlier versions")
        )  # fmt: skip
    if found.holes:
        report.notes.append(f"{found.holes} pages of the tree are broken")
    cids = {}
    for declared in list(declarations(found, report)):
        cids[declared.cid] = Rescue(found, report, db, declared).run()
    _embeddings(found, report, db)
    save_kept(found, report, db, cids)


def _embeddings(found: Salvaged, report: Report, db: Database) -> None:
    known = found.keys_of(keys.EMBEDDINGS)
    for first in range(0, len(known), ROWS_AT_ONCE):
        made = {}
        for key in known[first : first + ROWS_AT_ONCE]:
            with suppress(ValueError):
                made[key] = embeddings.vector_in(key, found.get(key)).tobytes()
        with db._batch() as batch:
            batch.keep(made)
    damaged = sum(key[0] == keys.EMBEDDINGS for key in found.bad)
    if damaged:
        report.notes.append(f"{damaged} cached embeddings are damaged; they are made anew when needed")
