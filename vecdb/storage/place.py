"""Where do the data file and its sidecars live, and may they be used?

A `Place` is a data file's real path with its sidecars' names: "<data>-lock" (LMDB's reader
table) and "<data>-writer" (locks.py). Looking here never creates a file, except `private`,
which makes the folder of a database in memory.

Invariants:
  P1  one place per file: links in the path are resolved, so that two names share one
      environment;
  P2  a refusal names the path and the remedy, and leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import tempfile
from dataclasses import dataclass

from vecdb.errors import AlreadyExists, Full, InvalidArgument, NotFound, ReadOnly, VecdbError

SHM = "/dev/shm"
SHM_FREE = 1 << 30  # below this (containers often have 64 MiB) a folder on disk serves better


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one database."""

    data: str
    private: bool = False  # in memory: unlinked once it is open

    @property
    def lock(self) -> str:
        return self.data + "-lock"

    @property
    def writer(self) -> str:
        return self.data + "-writer"


def find(path: str, mode: str) -> tuple[Place, bool]:
    """Return the place of `path` and whether its data file exists; refuse what cannot work."""
    place = Place(os.path.realpath(path))
    folder = os.path.dirname(place.data)
    try:
        found = os.stat(place.data)
    except (FileNotFoundError, NotADirectoryError):
        _need_folder(path, folder)
        if mode == "r":
            raise NotFound(
                f"{path} does not exist; mode='r' does not create it: check the path, or open "
                "it once with mode='rw'"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ReadOnly(
                f"{path} cannot be created: the folder {folder} is not writable; choose "
                "another folder or change its permissions"
            ) from None
        return place, False
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be used as a path: {error.strerror}") from None
    if stat.S_ISDIR(found.st_mode):
        raise InvalidArgument(
            f"{path} is a folder; a database is one file: give a file name inside it"
        )
    if not stat.S_ISREG(found.st_mode):
        raise InvalidArgument(f"{path} is no regular file; a database cannot live there")
    if mode == "x":
        raise AlreadyExists(f"{path} exists, and a new file is wanted: choose another name")
    if not os.access(place.data, os.R_OK):
        raise ReadOnly(f"{path} may not be read by this user; change its permissions")
    if mode == "rw" and not os.access(place.data, os.W_OK):
        raise ReadOnly(
            f"{path} may not be written by this user; open it with mode='r', or change its "
            "permissions"
        )
    return place, True


def private() -> Place:
    """Return a place in a new folder of this process, in memory where there is room."""
    parent = SHM if _roomy(SHM) else None
    try:
        folder = tempfile.mkdtemp(prefix="vecdb-", dir=parent)
    except OSError as error:
        raise failed("a folder for a database in memory cannot be made", error) from None
    return Place(os.path.join(folder, "data"), private=True)


def unlink(place: Place) -> None:
    """Take away a private place's names; what is open stays usable."""
    shutil.rmtree(os.path.dirname(place.data), ignore_errors=True)


def identity(data: str, generation: int, nonce: bytes | None = None) -> str:
    """Return what tells this data file from others: inode, generation, last clean nonce."""
    closed = nonce.hex() if nonce else "-"
    return f"{os.stat(data).st_ino:x} {generation:016x} {closed}"


def sync_folder(path: str) -> None:
    """Make a new name in the folder of `path` survive power loss."""
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(fd)
    except OSError:
        pass  # some file systems cannot sync folders
    finally:
        os.close(fd)


def failed(what: str, error: OSError) -> VecdbError:
    """Return the error of ours that a failed file operation stands for."""
    reason = error.strerror or str(error)
    if error.errno in FULL_ERRNOS:
        return Full(f"{what}: {reason}; free space on the disk and try again", kind="disk")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ReadOnly(f"{what}: {reason}; change the permissions or choose another folder")
    if error.errno == errno.ENOENT:
        return NotFound(f"{what}: {reason}; check the path")
    return VecdbError(f"{what}: {reason}")


def out_of_room(data: str) -> bool:
    """Has a write to `data` probably failed for want of room?

    LMDB calls a write that stops half way an input/output error, whatever stopped it.
    """
    try:
        space, size = os.statvfs(os.path.dirname(data) or "."), os.stat(data).st_size
    except OSError:
        return False
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return space.f_bavail * space.f_frsize < SPARE or 0 <= limit <= size + _BLOCK


SPARE = 1 << 20
_BLOCK = 65536
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _need_folder(path: str, folder: str) -> None:
    if os.path.isdir(folder):
        return
    if os.path.exists(folder):
        raise InvalidArgument(f"{path} cannot be a database: {folder} is a file, no folder")
    raise NotFound(f"the folder {folder} of {path} does not exist; create it first")


def _roomy(folder: str) -> bool:
    try:
        space = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK) and (
        space.f_bavail * space.f_frsize >= SHM_FREE
    )
