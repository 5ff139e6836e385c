"""How is a file copied while it is used, and how does it shrink?

Both are LMDB's compacting copy of one snapshot, written under another name in the target's
folder, given a new generation, brought to the disk, and only then given its name.

Invariants:
  C1  the target exists complete or not at all, also when the process is killed or the power
      fails;
  C2  an existing file is never overwritten, except by `compact`, which is alone with its own;
  C3  a file is never replaced under another process: `compact` holds sole presence meanwhile;
  C4  what a killed copy has left ("<data>.part-<pid>", a backup's with "-<thread>") is never read,
      and the next `compact` of the same file takes it away.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from vecdb.errors import AlreadyExists, Closed, ReadOnly
from vecdb.storage import engine, meta, place, times, veil
from vecdb.storage.counted import plain
from vecdb.storage.engine import LMDB_ERRORS, end
from vecdb.storage.keys import META_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vecdb.storage.locks import Sidecar
    from vecdb.storage.meta import Meta
    from vecdb.storage.shared import Shared


PATIENCE = 1.0  # seconds that compacting waits for searches of this process that are under way


def backup(shared: Shared, dst: str) -> None:
    """Write a compacted copy of the last commit to the new file `dst`."""
    target, _ = place.find(dst, "x")
    part = f"{target.data}.part-{os.getpid()}-{threading.get_ident()}"
    with _removed_if_left(part):
        _copy(shared, part)
        try:
            os.link(part, target.data)  # fails where a rename would overwrite
        except FileExistsError:
            raise AlreadyExists(f"{dst} exists; choose another name for the copy") from None
        except OSError:  # a file system without hard links
            os.rename(part, target.data)
        place.sync_folder(target.data)


def compact(shared: Shared, timeout: float) -> None:
    """Replace the file by a compacted copy of itself; Busy unless nobody else has it open."""
    if shared.place.private:
        return  # the memory of freed pages is reused; there is no file to shrink
    if not shared.writable:
        raise ReadOnly(f"{shared.name} may only be read; compacting replaces it")
    shared.take_turn(timeout)
    try:
        sidecar = shared.sidecar
        if sidecar is None:
            raise Closed(f"{shared.name} is closed")
        sidecar.alone(0.0)
        try:
            with shared.lock:
                _remove_strays(shared.place.data)
                _replace(shared, sidecar)
        finally:
            sidecar.not_alone()
    finally:
        shared.end_turn()


def _replace(shared: Shared, sidecar: Sidecar) -> None:
    """The write lock is held, and no other process has the file open."""
    data = shared.place.data
    part = f"{data}.part-{os.getpid()}"
    with _removed_if_left(part):
        made = _copy(shared, part)
        with shared.paused(PATIENCE):
            sidecar.remember("")  # until the new file is in place, any file is a foreign one
            os.replace(part, data)
            shared.replaced()
            place.sync_folder(data)
            sidecar.remember(place.identity(data, made.generation, made.nonce))


def _copy(shared: Shared, part: str) -> Meta:
    """Write a compacted copy with its own generation, and bring it to the disk."""
    txn = shared.begin_again(False)
    try:
        shared.lmdb.copy(part, compact=True, txn=plain(txn))
    except LMDB_ERRORS as error:
        raise shared.translated(error) from None
    finally:
        end(txn)
    return _adopt(shared, part)


def _adopt(shared: Shared, part: str) -> Meta:
    try:
        copy, _ = engine.open_engine(
            part, durability="full", writable=True, locked=False, max_size=None
        )
        try:
            with copy.begin(write=True) as txn:
                found = meta.as_copy(meta.decode(txn.get(META_KEY), part))
                txn.put(META_KEY, meta.encode(found))
                times.forget(txn)
            copy.sync(True)
        finally:
            copy.close()
        veil.carry(shared, part)
    except LMDB_ERRORS as error:
        raise shared.translated(error) from None
    return found


def _remove_strays(data: str) -> None:
    """Take away what killed copies of this file have left; nobody else has the file open."""
    folder, name = os.path.split(data)
    for found in os.listdir(folder or "."):
        base, _, numbers = found.rpartition(".part-")
        if base == name and numbers.replace("-", "").isdigit():
            with suppress(OSError):
                os.unlink(os.path.join(folder, found))


@contextmanager
def _removed_if_left(part: str) -> Iterator[None]:
    with suppress(FileNotFoundError):
        os.unlink(part)
    try:
        yield
    except OSError as error:
        raise place.failed(f"{part} cannot be written", error) from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
