"""vecdb: an embedded vector database engine.

One file, in your process, no server: vectors and metadata in LMDB, an HNSW graph in C++, filters
with exact counts. Start with `vecdb.open`; vecdb/ARCHITECTURE.md says which file answers what.
"""

from vecdb import encoders, errors
from vecdb._version import __version__
from vecdb.collection import Collection
from vecdb.database import Database, open
from vecdb.errors import VecdbError
from vecdb.query import F
from vecdb.storage.meta import FORMAT_VERSION
from vecdb.types import REMOVE, Hit, Hits, Plan, Problem, Record

__all__ = [
    "FORMAT_VERSION",
    "REMOVE",
    "Collection",
    "Database",
    "F",
    "Hit",
    "Hits",
    "Plan",
    "Problem",
    "Record",
    "VecdbError",
    "__version__",
    "encoders",
    "errors",
    "open",
]
