"""What does the documentation of this Python's standard library say? (input of `vecdb demo`)

`collect` returns an entry for each public module, class, function, method and property with a
docstring. A method without one that overrides another has the other's, as `help` shows it.
The modules are imported in a child process, which runs this very file: whatever importing
hundreds of modules does (print, warn, start threads, crash) stays there, and the caller's own
modules are left alone.

Invariants (checked by tests/unit/test_demo.py):
  1. Each qualified name occurs once; an object that several modules export is listed under the
     shortest of their names, so `asyncio.Queue` and not `asyncio.queues.Queue`.
  2. The order and the entries are the same on every run of the same Python; nothing of the
     caller's environment is in them.
  3. A module that cannot be imported, or that ends the child, costs its own entries only.

Rejected: importing in the caller (import of some modules has side effects, and a folder with a
`random.py` of one's own would shadow the library's), and reading the sources with `ast` (half
of the library is written in C).

Imports the standard library alone: the child runs isolated (`-I`) and finds no vecdb.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from types import ModuleType
from typing import Any, TextIO

__all__ = ["Entry", "collect"]

Entry = dict[str, Any]  # its keys: see _entry

# With effects on import, in need of a display, or not documentation: tests, demonstrations, ...
SKIPPED = frozenset(
    {"antigravity", "this", "test", "tests", "idlelib", "turtledemo", "idle_test"}
)
LONGEST_SIGNATURE = 300  # a default may be a whole table
WRITTEN_BY_THE_INTERPRETER = (type(int.__add__), type(int.__new__))  # slot wrappers, `__new__`
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of a default; another on every run
MOST_CRASHES = 20  # of the child, before the demo gives up


def collect(progress: Callable[[int, int], None] | None = None) -> list[Entry]:
    """Return the entries of the running Python's standard library, in a fixed order.

    Takes 2 to 5 s. `progress` is called with (modules done, modules in all). Raises
    RuntimeError if the child process does not even start.
    """
    crashed: list[str] = []
    while True:
        entries, at, code = _run_child(crashed, progress)
        if code == 0:
            return entries
        if at is None or len(crashed) >= MOST_CRASHES:
            raise RuntimeError(f"reading the documentation failed: exit status {code}")
        crashed.append(at)


def _run_child(
    crashed: list[str], progress: Callable[[int, int], None] | None
) -> tuple[list[Entry], str | None, int]:
    """Run this file without `crashed`; return entries, the last module begun, exit status."""
    entries: list[Entry] = []
    at: str | None = None
    with (
        tempfile.TemporaryDirectory(prefix="vecdb-demo-") as folder,
        subprocess.Popen(
            [sys.executable, "-I", "-B", "-X", "utf8", os.path.abspath(__file__), *crashed],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ) as child,
    ):
        assert child.stdout is not None
        try:
            for line in child.stdout:
                found = json.loads(line)
                if isinstance(found, list):
                    entries += found
                    continue
                at = found["module"]
                if progress is not None:
                    progress(found["done"], found["of"])
        except BaseException:
            child.kill()
            raise
    return entries, at, child.returncode


# --- what follows runs in the child -------------------------------------------------------


def main() -> None:
    """Print, for each module, a line that names it and a line with its entries."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # also silences what is printed from C
    os.environ.clear()  # which the default of an argument may show, as in cgi.parse
    warnings.simplefilter("ignore")
    _report(out, frozenset(sys.argv[1:]))
    out.flush()
    os._exit(0)  # no exit handlers of modules that nobody asked for


def _report(out: TextIO, crashed: frozenset[str]) -> None:
    names = sorted(_module_names(), key=_by_depth)
    seen: set[str] = set()
    homes: dict[
        int, object
    ] = {}  # by id; holding the objects keeps their ids from being reused
    for done, name in enumerate(names):
        print(
            json.dumps({"module": name, "done": done, "of": len(names)}), file=out, flush=True
        )
        module = None if name in crashed else _import(name)
        if module is not None:
            print(json.dumps(_new_ones(_entries(name, module, homes), seen)), file=out)


def _new_ones(entries: Iterator[Entry], seen: set[str]) -> list[Entry]:
    """Return the entries whose ids were not seen before, and note them as seen."""
    found = []
    for entry in entries:
        if entry["id"] not in seen:
            seen.add(entry["id"])
            found.append(entry)
    return found


def _module_names() -> set[str]:
    """Return the names of all public modules, those inside packages included."""
    names = {"os.path"}
    open_ends = [name for name in sys.stdlib_module_names if _is_wanted(name)]
    while open_ends:
        name = open_ends.pop()
        names.add(name)
        for path in _folders(name):
            for info in pkgutil.iter_modules([path]):
                if _is_wanted(info.name):
                    open_ends.append(f"{name}.{info.name}")
    return names


def _by_depth(name: str) -> tuple[bool, int, str]:
    """Order modules so that the name people use comes first, `os.path` before `posixpath`."""
    return (name != "os.path", name.count("."), name)


def _is_wanted(name: str) -> bool:
    return not name.startswith("_") and name not in SKIPPED


def _folders(name: str) -> list[str]:
    """Return where a package's modules lie, found without importing it; empty for a module."""
    folders = [
        os.path.join(root, *name.split("."))
        for root in sys.path
        if os.path.basename(root) not in {"site-packages", "dist-packages"}
    ]
    return [path for path in folders if os.path.isfile(os.path.join(path, "__init__.py"))]


def _import(name: str) -> ModuleType | None:
    """Import a module in silence; None where it cannot be, for whatever reason."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return importlib.import_module(name)
    except (Exception, SystemExit):
        return None


def _entries(name: str, module: ModuleType, homes: dict[int, object]) -> Iterator[Entry]:
    """Yield the entries of a module: itself, its functions, its classes with their members."""
    yield from _entry(name, "module", "", module, _own_doc(module))
    exported = frozenset(getattr(module, "__all__", ()))
    for attribute in sorted(exported | vars(module).keys()):
        value = None if attribute.startswith("_") else _get(module, attribute)
        if not inspect.isclass(value) and not inspect.isroutine(value):
            continue
        if attribute not in exported and getattr(value, "__module__", None) != name:
            continue  # imported by the module, not part of it
        if _is_listed(value, homes):
            continue
        if inspect.isclass(value):
            yield from _class(name, attribute, value, homes)
        else:
            yield from _entry(name, "function", attribute, value, _own_doc(value))


def _class(module: str, name: str, cls: type, homes: dict[int, object]) -> Iterator[Entry]:
    """Yield the entries of a class and of its members, classes inside it included."""
    yield from _entry(module, "class", name, cls, _own_doc(cls))
    for attribute in sorted(_members(cls)):
        value = _get(cls, attribute)
        qualified = f"{name}.{attribute}"
        if inspect.isclass(value):
            inside = value.__module__ == module and value.__qualname__ == qualified
            if inside and not _is_listed(value, homes):
                yield from _class(module, qualified, value, homes)
        elif inspect.isroutine(value):
            doc = _own_doc(value) if attribute.startswith("__") else _shown_doc(value)
            yield from _entry(module, "method", qualified, value, doc)
        elif inspect.isdatadescriptor(value):
            yield from _entry(module, "property", qualified, value, _own_doc(value))


def _members(cls: type) -> set[str]:
    """Return the public names that a class defines, or has from a base that is not public.

    Special methods count where somebody wrote them: not the slots, whose docstrings are the
    same in every class ("Return self+value.").
    """
    names: set[str] = set()
    for base in cls.__mro__:
        is_private = base.__name__.startswith("_") or base.__module__.startswith("_")
        if base is cls or is_private:
            names.update(name for name in vars(base) if not name.startswith("_"))
    for name, value in vars(cls).items():
        if name.startswith("__") and not isinstance(value, WRITTEN_BY_THE_INTERPRETER):
            names.add(name)
    return names


def _is_listed(value: object, homes: dict[int, object]) -> bool:
    """Tell whether an object was listed under another name, and note it as listed."""
    thing = getattr(value, "__func__", value)
    if id(thing) in homes:
        return True
    homes[id(thing)] = thing
    return False


def _get(owner: object, attribute: str) -> Any:
    try:
        return getattr(owner, attribute)
    except Exception:
        return None


def _own_doc(thing: object) -> str:
    """Return the docstring of the object itself; a class does not pass on its base's."""
    try:
        raw = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
        return inspect.cleandoc(raw) if isinstance(raw, str) else ""
    except Exception:
        return ""


def _shown_doc(method: object) -> str:
    """Return what `help` shows: for want of its own, the docstring of the method overridden."""
    try:
        return inspect.getdoc(method) or ""
    except Exception:
        return ""


def _entry(module: str, kind: str, name: str, thing: object, doc: str) -> Iterator[Entry]:
    """Yield the entry of one object, or nothing where there is no docstring."""
    if doc:
        yield {
            "id": f"{module}.{name}" if name else module,
            "module": module,
            "kind": kind,
            "name": name or module,
            "signature": "" if kind in ("module", "property") else _signature(thing),
            "length": len(doc),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "doc": doc,
        }


def _signature(thing: Any) -> str:
    try:
        shown = str(inspect.signature(thing))
    except Exception:  # many objects written in C have none
        return ""
    return ADDRESS.sub("", shown)[:LONGEST_SIGNATURE]


if __name__ == "__main__":
    main()
