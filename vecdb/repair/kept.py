"""Which of the kept searches can be saved: saved ones, their watchers, the search log?

Commits are numbered anew in the new file, so that a watcher's place means nothing there: it begins anew,
and is given every row that matches, which `watch` allows (at least once).

Invariants (checked by tests/faults/test_repair_searches.py):
  K1  a sound saved search is saved under its name, of the same collection; any other is named as lost;
  K2  what was erased of the log stays so: only stretches under the file's present key are saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vecdb.database import Database
from vecdb.errors import Corrupt, InvalidArgument
from vecdb.repair.report import Lost, Report
from vecdb.repair.stored import said
from vecdb.storage import keys, searches, searchlog, veil
from vecdb.storage.salvage import Salvaged

OF_KEPT: Final = (keys.SEARCHES, keys.WATCHERS, keys.SEARCH_LOG, keys.LOGGING)


def save_kept(found: Salvaged, report: Report, db: Database, cids: Mapping[int, int]) -> None:
    """Write kept searches to the new file; `cids`: old numbers of collections -> new ones."""
    _searches(found, report, db, cids)
    _log(found, report, db, cids)


def _searches(found: Salvaged, report: Report, db: Database, cids: Mapping[int, int]) -> None:
    anew = 0
    with db._batch() as batch:
        for key in found.keys_of(keys.SEARCHES):
            name = key[1:].decode()
            try:
                stored = searches.unpack(key, found.get(key))
            except (Corrupt, InvalidArgument) as error:
                report.lost.append(Lost("search", repr(name), said(error)))
                continue
            if stored.cid not in cids:
                report.notes.append(f"saved search {name!r} was left out: its collection is not there")
                continue
            searches.put(batch.txn, name, stored._replace(cid=cids[stored.cid]))
            batch.changed = True
            for watcher in found.keys_of(keys.WATCHERS):
                number, who = searches.watched(watcher)
                if number == stored.number:
                    searches.put_position(batch.txn, number, who, (0, searches.WHOLE))
                    anew += 1
    for key in sorted(key for key in found.bad if key[0] == keys.SEARCHES):
        reason = f"its record is damaged ({found.bad[key]})"
        report.lost.append(Lost("search", repr(key[1:].decode()), reason))
    if anew:
        report.notes.append(f"{anew} watchers of saved searches begin anew: they get every row that matches")


def _log(found: Salvaged, report: Report, db: Database, cids: Mapping[int, int]) -> None:
    damaged = sum(key[0] in (keys.SEARCH_LOG, keys.LOGGING) for key in found.bad)
    if damaged:
        report.notes.append(f"{damaged} records of the search log are damaged")
    secret = veil.key_in(found.fd)
    before = _logging(found)
    with db._batch() as batch:
        logging = searchlog.Logging(cleared=before.cleared)
        for old, kept in before.collections.items():
            if old in cids:
                logging.collections[cids[old]] = searchlog.Kept(kept.max_bytes, 0, kept.on)
        if not logging.collections:
            return
        key = db._env.renew_veil()
        stretches = [each for each in found.keys_of(keys.SEARCH_LOG) if _cid(each) in cids]
        for place in sorted(stretches, key=lambda each: keys.search_log_position(each)[1]):
            cid = cids[_cid(place)]
            content = _content(place, found.get(place), secret)
            if content is None or cid not in logging.collections:
                continue
            searchlog.append(batch.txn, logging, cid, place[5], content, key)
        searchlog.write(batch.txn, logging)
        batch.change_logging()


def _logging(found: Salvaged) -> searchlog.Logging:
    try:
        return searchlog.read(found)
    except Corrupt:
        return searchlog.Logging()


def _content(place: bytes, record: Any, secret: bytes | None) -> bytes | None:
    """What a stretch holds, where it is of the present key and can be read (K2)."""
    if secret is None or record is None:
        return None
    try:
        if not searchlog.entries_in(place, record, secret):
            return None
        return veil.unmask(secret, searchlog.open_stretch(place, record))
    except Corrupt:
        return None


def _cid(key: bytes) -> int:
    return int.from_bytes(key[1:5], "big")
