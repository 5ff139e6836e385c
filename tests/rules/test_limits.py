"""docs/limits.md says the limits that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from vecdb import fields, ingest, options
from vecdb.collection import searching
from vecdb.evaluation import advise, judge
from vecdb.index import changes, effort, wording
from vecdb.interop import hnswlib
from vecdb.query import boosts, like, nodes, operand, tokens, values
from vecdb.query import filter as filters
from vecdb.ranking import late
from vecdb.reports import plots
from vecdb.reports.page import MOST_ROWS
from vecdb.storage import codec, engine, keys, rows, schema, sparse
from vecdb.tables import capsule, delimited, jsonl, load

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")

LIMITS = {
    "dimensions of a vector field": schema.MAX_DIM,
    "vector fields of a collection, at one time": schema.MAX_VECTORS,
    "vector fields of a collection, dropped ones included": schema.MAX_NUMBER,
    "entries of a row's sparse vector": sparse.MAX_ENTRIES,
    "tokens of a `Sparse` query": values.MAX_WEIGHTS,
    "bytes of a sparse vector's str token, UTF-8": sparse.MAX_TOKEN_BYTES,
    "vectors of a `Late` query": late.MAX_QUERY,
    "numbers of a `Late` query": late.MAX_QUERY_NUMBERS,
    "rows of a collection with a vector, deleted and replaced ones included": (1 << 31) - 2,
    "`M`, from 4": 64,
    "`ef_construction`, from 8": 2000,
    "bytes of a collection's or a vector field's name, UTF-8": schema.MAX_NAME_BYTES,
    "bytes of a str id, UTF-8": keys.MAX_ID_BYTES,
    "bytes of an int id or a metadata int": 8,
    "bytes of a row's text, UTF-8": ingest.MAX_TEXT_BYTES,
    "bytes of a row's metadata, encoded": codec.MAX_METADATA_BYTES,
    "levels of a row's metadata": codec.MAX_DEPTH,
    "values and list elements of a row's metadata": codec.MAX_ELEMENTS,
    "names of metadata fields in a collection": changes.MAX_FIELDS,
    "declared metadata fields of a collection": fields.MAX_DECLARED,
    "`k` and `offset` together; `k=None` has none": searching.MAX_K,
    "`ef`": effort.WIDEST,
    "clauses of a filter": nodes.MAX_CLAUSES,
    "levels of a filter": nodes.MAX_DEPTH,
    "alternatives in a list of a filter": operand.MAX_ALTERNATIVES,
    "characters of a filter as text or JSON": tokens.MAX_CHARS,
    "characters of a pattern": like.MAX_PATTERN,
    "fields with full text of a collection": schema.MAX_TEXTS,
    "characters of the words of `matches`": operand.MAX_WANTED,
    "characters of a `Text` query": values.MAX_TEXT_CHARS,
    "words of a `Text` query or of `matches`, each counted in each field": wording.MAX_ASKED,
    "boosts of a search": boosts.MAX_BOOSTS,
    f"rows read for the phrases of a text beyond its first {wording.FREE_PHRASES}": wording.MOST_READ,
    "bits of an int in a filter": operand.MAX_INT_BITS,
    "kilometres of `within`": int(operand.MAX_KM),
    "documents of one query that `judge` asks for": judge.MOST_PER_QUERY,
    "rows that `advise` ranks; of more, as many drawn at random and all that are judged": advise.MOST_ROWS,
    "rows of a table on a report's page": MOST_ROWS,
    "points of a map on a report's page, drawn at random of more": plots.MOST_POINTS,
    "rows of a batch of `add_table`": load.MAX_BATCH,
    "columns of an Arrow table, or fields of a struct": capsule.MAX_CHILDREN,
    "levels of an Arrow column": capsule.MAX_DEPTH,
    "characters of a line of JSON lines": jsonl.MAX_LINE,
    "characters of a CSV cell": delimited.LONGEST_CELL,
    "elements of an hnswlib index": hnswlib.MOST,
    "searches, reads and snapshots under way at once, all processes together": engine.MAX_READERS,
    "`threads` of a handle": options.MAX_THREADS,
    "bytes of a file, unless `max_size` says less": engine.MAP_SIZE,
}


def test_the_table_has_the_constants_of_the_code() -> None:
    stands = dict(re.findall(r"^\| (.+?) \| ([\d,]+) \|$", PAGE, re.M))
    assert stands == {what: f"{limit:,}" for what, limit in LIMITS.items()}


def test_limits_that_have_no_constant_in_python() -> None:
    header = (Path(__file__).parents[2] / "vecdb" / "_core" / "abi.h").read_text(encoding="utf-8")
    assert "MAX_SLOTS = 0x7FFFFFFEu;" in header and 0x7FFFFFFE == (1 << 31) - 2
    assert rows.PLAIN == 1 << 31  # numbers of rows without a vector begin here
    assert tokens.MAX_CHARS == filters.MAX_JSON_CHARS
    source = Path(schema.__file__).read_text(encoding="utf-8")
    assert '_between("M", declared.M, 4, 64)' in source
    assert '_between("ef_construction", declared.ef_construction, 8, 2000)' in source
