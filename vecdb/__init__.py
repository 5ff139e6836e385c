"""vecdb: an embedded vector database engine.

One file, in your process, no server: vectors and metadata in LMDB, an HNSW graph in C++, filters
with exact counts. Start with `vecdb.open`; vecdb/ARCHITECTURE.md says which file answers what.
"""

from typing import TYPE_CHECKING, Any

from vecdb import errors
from vecdb._version import __version__
from vecdb.collection import Collection
from vecdb.collection.prepared import PreparedSearch
from vecdb.database import Database, open
from vecdb.declare import FullText, SparseVector, Vector
from vecdb.errors import VecdbError
from vecdb.fields import Geo, Indexed, Partition, Unindexed
from vecdb.query import ById, F
from vecdb.repair import repair
from vecdb.storage.meta import FORMAT_VERSION
from vecdb.types import REMOVE, Explanation, Group, Hit, Hits, Plan, Problem, Record

if TYPE_CHECKING:
    from vecdb import encoders
    from vecdb.adapting.fine_tune import fine_tune
    from vecdb.adapting.fit import fit_adapter
    from vecdb.diagnosis.diagnose import diagnose
    from vecdb.evaluation.advise import advise
    from vecdb.evaluation.evaluate import evaluate
    from vecdb.interop.hnswlib import from_hnswlib

_LATER = {  # by the module that has it
    "advise": "vecdb.evaluation.advise",
    "diagnose": "vecdb.diagnosis.diagnose",
    "evaluate": "vecdb.evaluation.evaluate",
    "fit_adapter": "vecdb.adapting.fit",
    "fine_tune": "vecdb.adapting.fine_tune",
    "from_hnswlib": "vecdb.interop.hnswlib",
}


def __getattr__(name: str) -> Any:
    """What most programs never ask for is imported when it first is."""
    import importlib

    if name == "encoders":
        return importlib.import_module("vecdb.encoders")
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'vecdb' has no attribute {name!r}")


__all__ = [
    "FORMAT_VERSION",
    "REMOVE",
    "ById",
    "Collection",
    "Database",
    "Explanation",
    "F",
    "FullText",
    "Geo",
    "Group",
    "Hit",
    "Hits",
    "Indexed",
    "Partition",
    "Plan",
    "PreparedSearch",
    "Problem",
    "Record",
    "Unindexed",
    "VecdbError",
    "SparseVector",
    "Vector",
    "__version__",
    "advise",
    "diagnose",
    "encoders",
    "errors",
    "evaluate",
    "fit_adapter",
    "fine_tune",
    "from_hnswlib",
    "open",
    "repair",
]
