"""May this file be handed to the engine?

The order is: a look at the raw bytes without any lock; when anything is in doubt, the
writer lock and a second look; then, if there is reason to, a structural check of the whole
file; only then the engine. Reasons for the check (verify="auto"):
    the machine stopped since the last commit, and nobody had closed the database before;
    the "-writer" sidecar does not remember this very file (one from elsewhere, a restored one);
    the file is shorter than its last page.

Invariants:
  O1  a damaged file is Corrupt, and one that is not ours is WrongFormat, before the engine
      could be killed by it; in both cases nothing in the file has changed;
  O2  the structural check runs under the writer lock: beside a writer it reports falsely;
  O3  a new file is made and its first record written under the writer lock, so nobody else sees
      a database without a meta record.

Rejected: checking every file at every open (0.5 s for 25 MB of small records, measured).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from vecdb.errors import AlreadyExists, Corrupt, NotFound, WrongFormat
from vecdb.options import Mode, Verify
from vecdb.storage import header, locks, meta, place
from vecdb.storage.header import Header, NotLmdb, Unreadable
from vecdb.storage.keys import META_KEY
from vecdb.storage.locks import Sidecar
from vecdb.storage.meta import Meta
from vecdb.storage.place import Place

Check = Callable[[str], list[str]]
TRIES = 4  # looks at the structure of a file while others commit
SHOWN = 3  # findings in a message; all of them are in `detail`


@dataclass(frozen=True, slots=True)
class Look:
    """What the raw bytes say; `meta` is None when the record could not be reached."""

    header: Header
    meta: Meta | None
    doubt: str = ""
    ours: bool = False  # the last record is vecdb's, but damaged

    @property
    def empty(self) -> bool:
        return self.header.unused


def look(data: str) -> Look | None:
    """Look at a data file; None when it is missing or empty, WrongFormat when not ours."""
    try:
        fd = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise place.failed(f"{data} cannot be read", error) from None
    try:
        return look_into(fd, data)
    finally:
        os.close(fd)


def look_into(fd: int, data: str) -> Look | None:
    """As `look`, of an open file."""
    if os.fstat(fd).st_size == 0:
        return None
    try:
        found = header.read_header(fd)
    except NotLmdb as error:
        _refuse(data, str(error))
    if found.unused:
        return Look(found, None)
    try:
        key, record = header.last_record(fd, found)
        if key != META_KEY:
            raise Unreadable("the last record is not vecdb's")
        return Look(found, meta.decode(record, data))
    except Unreadable as error:
        return Look(found, None, str(error))
    except Corrupt as error:
        return Look(found, None, error.detail, ours=True)
    except WrongFormat as error:
        if error.found is not None:
            raise
        return Look(found, None, str(error))


def settle(
    where: Place,
    sidecar: Sidecar,
    *,
    mode: Mode,
    verify: Verify,
    timeout: float,
    check: Check,
    create: Callable[[], Meta],
) -> None:
    """Return when the data file may be opened: looked at, checked where needed, or created."""
    seen = look(where.data)
    if (
        mode != "x"
        and seen
        and seen.meta
        and not _reason(seen, seen.meta, where, sidecar, verify)
    ):
        return
    sidecar.lock_writer(timeout)
    try:
        _settle_alone(where, sidecar, mode, verify, check, create)
    finally:
        sidecar.unlock_writer()


def settle_immutable(where: Place, verify: Verify, check: Check) -> None:
    """As `settle`, for a file that nobody writes: no locks, nothing created."""
    seen = look(where.data)
    if seen is None or seen.empty:
        meta.refuse_foreign(where.data, "is empty")
    if seen.meta is None or _reason(seen, seen.meta, where, None, verify):
        _check(where.data, check)
    if seen.ours:
        _corrupt(where.data, "meta", seen.doubt, seen.doubt)
    if seen.meta is None:
        meta.refuse_foreign(where.data, "is an LMDB file, but no vecdb database")


def _settle_alone(
    where: Place,
    sidecar: Sidecar,
    mode: Mode,
    verify: Verify,
    check: Check,
    create: Callable[[], Meta],
) -> None:
    seen = look(where.data)
    if seen is None or seen.empty:
        if mode == "r":
            raise NotFound(
                f"{where.data} holds no database yet; open it once with mode='rw', which "
                "makes one"
            )
        made = create()
        sidecar.remember(place.identity(where.data, made.generation))
        place.sync_folder(where.data)
        return
    if mode == "x":
        raise AlreadyExists(
            f"{where.data} exists; mode='x' makes a new one: choose another name"
        )
    if seen.meta is None:
        _check(where.data, check)
        if seen.ours or _ours(where):
            _corrupt(where.data, "meta", seen.doubt, seen.doubt)
        meta.refuse_foreign(where.data, "is an LMDB file, but no vecdb database")
    if _reason(seen, seen.meta, where, sidecar, verify):
        _check(where.data, check)
        closed = seen.meta.nonce if seen.meta.clean else None
        sidecar.remember(place.identity(where.data, seen.meta.generation, closed))


def _reason(
    seen: Look, found: Meta, where: Place, sidecar: Sidecar | None, verify: Verify
) -> bool:
    """Is there a reason for the structural check?"""
    if verify != "auto":
        return verify == "always"
    if seen.header.short or meta.stopped_uncleanly(found):
        return True
    known = sidecar.identity() if sidecar else locks.remembered(where.writer)
    closed = found.nonce if found.clean else None
    expected = place.identity(where.data, found.generation, closed)
    if closed is None:  # the sidecar may still name the clean close before this commit
        return known.split()[:2] != expected.split()[:2]
    return known != expected


def unsound(data: str, check: Check) -> list[str]:
    """What is wrong with the structure of a file that is in use; a writer is not waited for.

    A commit in between makes a sound file look broken (O2), so what is found counts only when none
    came; beside commits that never pause the answer is nothing.
    """
    for _ in range(TRIES):
        before = _txnid(data)
        findings = check(data) or _lost(data)
        if not findings or _txnid(data) == before:
            return findings
    return []


def _txnid(data: str) -> int:
    try:
        with open(data, "rb", buffering=0) as file:
            return header.read_header(file.fileno()).txnid
    except (NotLmdb, Unreadable):
        return -1


def _check(data: str, check: Check) -> None:
    findings = check(data) or _lost(data)
    if not findings:
        return
    shown = "; ".join(findings[:SHOWN])
    more = f" and {len(findings) - SHOWN} more" if len(findings) > SHOWN else ""
    _corrupt(data, "structure", f"{shown}{more}", "\n".join(findings))


def _lost(data: str) -> list[str]:
    """What of a sound tree lies beyond the end of the file."""
    with open(data, "rb", buffering=0) as file:
        found = header.read_header(file.fileno())
        return header.lost_values(file.fileno(), found) if found.short else []


def _ours(where: Place) -> bool:
    """Does the sidecar say that this very file was a vecdb database?"""
    known = locks.remembered(where.writer).split()
    try:
        return bool(known) and int(known[0], 16) == os.stat(where.data).st_ino
    except (OSError, ValueError):
        return False


def _refuse(data: str, what: str) -> NoReturn:
    where = Place(data)
    if _ours(where):
        _corrupt(data, "header", f"its first page {what}", what)
    meta.refuse_foreign(data, what)


def _corrupt(data: str, code: str, what: str, detail: str) -> NoReturn:
    raise Corrupt(
        f"{data} is damaged: {what}. Nothing was changed; save what is sound with "
        "vecdb.repair(src, dst), or restore a backup",
        code=code,
        where=data,
        detail=detail,
    )
