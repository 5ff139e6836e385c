"""Who may import whom: the layers of vecdb/ARCHITECTURE.md, read from the source with `ast`.

Imports under `if TYPE_CHECKING:` do not count: they do not happen.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each part of the package (a folder or a module beside __init__.py) and what it may import.
EVERYBODY = {"errors", "types", "fields", "lazy", "_version"}
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "lazy": set(),
    "fields": {"errors"},
    "cursor": set(),
    "shown": set(),
    "types": {"errors", "cursor", "frames", "shown"},
    "frames": {"tables"},
    "facets": {"shown"},
    "_version": set(),
    "_core": set(),
    "options": set(),
    "query": set(),
    "storage": {"_core", "options"},
    "index": {"storage", "_core", "query", "text"},
    "encoders": set(),
    "text": {"_core"},
    "ingest": {"storage"},
    "arrays": {"storage"},
    "declare": {"encoders", "storage", "text"},
    "execute": {"parallel", "query", "index", "storage", "_core"},
    "ranking": {"arrays", "parallel", "_core", "execute", "index", "query", "storage", "text"},
    "parallel": set(),
    "embedding": {"encoders", "storage"},
    "progress": set(),
    "reports": {"shown"},
    "diagnosis": {"adapting", "analysis", "collection", "encoders", "frames", "ingest", "progress", "reports", "shown", "storage", "text"},
    "tables": {"progress"},
    "interop": {"arrays", "ingest", "index", "storage"},
    "collection": {"adapting", "analysis", "arrays", "cursor", "declare", "embedding", "encoders", "evaluation", "execute", "facets", "index", "ingest", "interop", "progress", "query", "ranking", "storage", "tables"},
    "analysis": {"execute", "facets", "frames", "index", "progress", "query", "shown", "storage"},
    "adapting": {"collection", "encoders", "evaluation", "facets", "progress", "query", "reports", "shown"},
    "snapshot": {"collection", "index", "query", "storage"},
    "standing": {"arrays", "collection", "evaluation", "index", "query", "reports", "shown", "storage"},
    "evaluation": {"__init__", "collection", "database", "declare", "embedding", "encoders", "execute", "facets", "frames", "index", "progress", "query", "reports", "shown", "standing", "text"},
    "check": {"adapting", "index", "storage", "_core", "database", "collection"},
    "repair": {"database", "arrays", "storage", "_core"},
    "upkeep": set(),
    "batch": {"index", "storage"},
    "catalog": {"batch", "collection", "declare", "encoders", "index", "storage"},
    "database": {"batch", "catalog", "embedding", "snapshot", "standing", "declare", "collection", "check", "upkeep", "encoders", "index", "storage", "options", "query"},
    "__init__": {"adapting", "database", "diagnosis", "evaluation", "interop", "repair", "declare", "collection", "encoders", "query", "storage", "check"},
    "__main__": {"cli"},
}

# Names that the command line may use: what a user may.
PUBLIC = {"vecdb", "vecdb.query", "vecdb.errors", "vecdb.encoders", "vecdb.encoders.base", "vecdb.tables", "vecdb.cli"}

# Packages that one module alone may import, and the folder it lies in.
ONE_DOOR = {"lmdb": "vecdb.storage.", "msgpack": "vecdb.storage.codec"}

BASE = {"numpy", "lmdb", "msgpack", "pyroaring"}
EXTRAS = {"tokenizers", "safetensors", "wordllama", "typer", "rich", "hnswlib", "pandas", "pyarrow", "sentence_transformers", "Stemmer", "snowballstemmer", "onnxruntime", "torch"}
FILES_OF_AN_EXTRA = {f"vecdb.cli.{name}" for name in ("app", "evaluating", "opening", "reading", "searching", "writing")}  # imported by nothing but a function


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted((ROOT / "vecdb").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(parts), path))
    return found


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported module with whether that happens inside a function."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), inside=False)


def _imports(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, inside) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0 and child.module, "imports are absolute here"
            for alias in child.names:
                is_ours = (ROOT / child.module.replace(".", "/") / f"{alias.name}.py").exists()
                is_part = child.module == "vecdb"
                inner = is_ours or (is_part and (ROOT / "vecdb" / alias.name).is_dir())
                yield (f"{child.module}.{alias.name}" if inner else child.module), inside
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, inside or is_function)


def part_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_a_module_imports_only_what_lies_below_it(module: str, path: Path) -> None:
    part = part_of(module)
    for imported, _ in imports(path):
        if imported.split(".")[0] != "vecdb":
            continue
        if part == "cli":
            allowed = imported in PUBLIC or imported.startswith("vecdb.cli.")
        else:
            allowed = part_of(imported) in LAYERS[part] | EVERYBODY | {part}
        assert allowed, f"{module} imports {imported}"


def test_lmdb_and_msgpack_have_one_door_each() -> None:
    for package, place in ONE_DOOR.items():
        importers = [
            module
            for module, path in modules()
            if any(name.split(".")[0] == package for name, _ in imports(path))
        ]
        assert len(importers) == 1 and importers[0].startswith(place), (package, importers)


def test_extras_are_imported_inside_functions() -> None:
    for module, path in modules():
        for imported, inside in imports(path):
            package = imported.split(".")[0]
            if package in EXTRAS and module not in FILES_OF_AN_EXTRA:
                assert inside, f"{module} imports {package} at its top"


def test_nothing_else_is_imported() -> None:
    import sys

    known = BASE | EXTRAS | {"vecdb"} | set(sys.stdlib_module_names)
    for module, path in modules():
        for imported, _ in imports(path):
            assert imported.split(".")[0] in known, f"{module} imports {imported}"


def test_queries_are_pure() -> None:
    """vecdb/query knows neither numpy nor files: it can be read and tested alone."""
    banned = {"numpy", "pyroaring", "os", "io", "socket", "threading", "pathlib"}
    for module, path in modules():
        if part_of(module) == "query":
            assert not banned & {name.split(".")[0] for name, _ in imports(path)}, module


def test_the_rule_sees_what_it_should(tmp_path: Path) -> None:
    """The control: a forbidden import, however it is spelled, is found."""
    source = tmp_path / "m.py"
    source.write_text("from vecdb import storage\ndef f():\n    import lmdb\n")
    assert list(imports(source)) == [("vecdb.storage", False), ("lmdb", True)]
