"""Where does a model that is named without a path lie on this disk?

    cached("owner/name")      snapshots in the local cache of the Hugging Face hub
    packaged("module")        the folder of an installed package, and the folders in it
    path_of(folder, who)      a path as a str

Nothing here asks a network: what is not on the disk is not found.

Rejected: importing the package to ask it for its folder. Importing runs its code, and where it lies
is known without.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from vecdb.errors import InvalidArgument

__all__ = ["cached", "packaged", "path_of"]


def path_of(folder: str | os.PathLike[str], who: str) -> str:
    """What was given for a folder as a str, or InvalidArgument."""
    found = os.fspath(folder) if isinstance(folder, str | os.PathLike) else None
    if not isinstance(found, str):
        raise InvalidArgument(f"{who}: folder={folder!r:.80}: give a path as a str or a pathlib.Path")
    return found


def cached(name: str) -> list[Path]:
    """Snapshots of a model in the local cache of the Hugging Face hub, the newest first."""
    if name.count("/") != 1:
        return []
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    snapshots = hub / f"models--{name.replace('/', '--')}" / "snapshots"
    try:
        return sorted(snapshots.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
    except OSError:
        return []


def packaged(name: str) -> list[Path]:
    """The folder of an installed package, then the folders directly in it, by name."""
    if not name.isidentifier():
        return []
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec, put there by hand
        return []
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent
    try:
        return [folder, *sorted(each for each in folder.iterdir() if each.is_dir())]
    except OSError:  # built-in modules have no folder
        return []
