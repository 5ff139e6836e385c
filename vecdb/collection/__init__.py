"""A collection: rows with ids, metadata, text and one vector each; written, read and searched.

    handle.py   what all verbs stand on
    write.py    add, upsert, update, delete, optimize
    read.py     get, count, len, in, stats
    scan.py     scan, iteration
    facets.py   facets
    search.py   search, explain; prepared.py: prepare, why.py: why_not, on what searching.py gives
    tables.py   add_table, to_arrow
    logged.py   feedback, replay
    evaluated.py  evaluate
    judged.py   judge
    migrating.py  apply_adapter, reembed, rollback_vectors, drop_previous_vectors
    analysis.py histogram, duplicates, clusters, predict
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vecdb.collection.analysis import AnalysisVerbs
from vecdb.collection.evaluated import EvaluatedVerbs
from vecdb.collection.facets import FacetVerbs
from vecdb.collection.handle import parse_record
from vecdb.collection.judged import JudgeVerbs
from vecdb.collection.logged import LoggedVerbs
from vecdb.collection.migrating import MigratingVerbs
from vecdb.collection.read import ReadVerbs
from vecdb.collection.tables import ArrowVerbs, TableVerbs
from vecdb.collection.write import WriteVerbs
from vecdb.errors import NotFound
from vecdb.storage.schema import ONLY, VectorField

if TYPE_CHECKING:
    from vecdb.database import Database

__all__ = ["Collection", "parse_record"]


class Collection(
    WriteVerbs, TableVerbs, ReadVerbs, ArrowVerbs, FacetVerbs, AnalysisVerbs, LoggedVerbs,
    EvaluatedVerbs, JudgeVerbs, MigratingVerbs,
):  # fmt: skip
    """A named set of rows in a database; made by `create_collection`, found by `db[name]`.

    Writing: add, upsert, update, delete, optimize. Reading: get, count, len, in, scan,
    iteration, facets, vectors. Searching: search, prepare, explain, why_not. As a whole: histogram,
    duplicates, clusters, predict. Whole tables: add_table, to_arrow, to_hnswlib. Vector fields:
    add_vector, drop_vector; apply_adapter, reembed, rollback_vectors, drop_previous_vectors. Of the search
    log: feedback, replay. Judgements: judge, evaluate. About itself: name, schema, stats.

    >>> import vecdb
    >>> with vecdb.open() as db:
    ...     c = db.create_collection("c", dim=2)
    ...     _ = c.add(["a", "b"], [[1, 0], [0, 1]])
    ...     c.search([1, 0.1], k=1).ids
    ...     c.name, len(c), "a" in c, c["a"].id, [record.id for record in c]
    ['a']
    ('c', 2, True, 'a', ['a', 'b'])
    """

    __slots__ = ()

    def __repr__(self) -> str:
        schema = self.schema
        fields = "; ".join(_shown(name, each) for name, each in schema.vectors.items())
        return f"Collection({schema.name!r}, {fields}, {len(self):,} rows)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Collection):
            return NotImplemented
        return self._db is other._db and self._cid == other._cid

    def __hash__(self) -> int:
        return hash((id(self._db), self._cid))

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_pickle, (self._db, self._cid, self.name)


def _shown(name: str, declared: VectorField) -> str:
    encoder = f", encoder={declared.encoder!r}" if declared.encoder else ""
    named = "" if name == ONLY else f"{name}: "
    return f"{named}dim={declared.dim}, metric={declared.metric!r}{encoder}"


def _from_pickle(db: Database, cid: int, name: str) -> Collection:
    """By its number: renamed it is the same collection, and another one of that name is not."""
    found = Collection(db, cid)
    try:
        db._schema(cid)
    except NotFound:
        raise NotFound(f"collection {name!r} was dropped after this handle was pickled") from None
    return found
