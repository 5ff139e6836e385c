"""The databases of the hybrid workload behind the same verbs: build, load, effort, near, text, hybrid.

Each is asked as its documentation shows: one call a query, ids read, vectors and text fused by
reciprocal ranks over the best 100 of each part, the filter on an indexed field. Words are lower-cased,
stemmed for English and without stop words where the engine can. M=16 and ef_construction=200 where
there are such knobs.

`near` and `text` are the parts alone; `effort` is what the engine's vector part tries harder by.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from workloads.hybrid_data import DEPTH, Array, Data, K, Where

M, EF_CONSTRUCTION = 16, 200
COMMIT = 1000
RANK_CONSTANT = 60
DIM = 384


class Engine(Protocol):
    package: str
    module: str
    efforts: Sequence[float]

    def build(self, data: Data, path: Path, threads: int) -> None: ...

    def load(self, path: Path, where: dict[str, Where | None]) -> None: ...

    def effort(self, effort: float) -> None: ...

    def near(self, query: Array, name: str) -> list[int]: ...

    def text(self, words: str, name: str) -> list[int]: ...

    def hybrid(self, query: Array, words: str, name: str) -> list[int]: ...


class Vecdb:
    """vecdb: rows in commits of 1,000, then `optimize`, as the others need it, too."""

    package = "vecdb"
    module = "vecdb"
    efforts: Sequence[float] = (100, 120, 150, 200, 300, 0.95)  # ef; below 1 a recall

    def build(self, data: Data, path: Path, threads: int) -> None:
        import vecdb

        analysis = vecdb.FullText(language="english", stopwords=True)
        with vecdb.open(path, threads=threads) as db:
            rows = db.create_collection(
                "rows", data.base.shape[1], M=M, ef_construction=EF_CONSTRUCTION, fulltext={"text": analysis}
            )
            for first in range(0, len(data.base), COMMIT):
                part = slice(first, first + COMMIT)
                ids = list(range(first, min(first + COMMIT, len(data.base))))
                rows.add(ids, data.base[part], texts=data.texts[part], metadata=data.metadata[part])
            rows.optimize()

    def load(self, path: Path, where: dict[str, Where | None]) -> None:
        import vecdb
        from vecdb.query import Near, Text

        self._near, self._text = Near, Text
        self._db = vecdb.open(path, mode="r", threads=1)
        self._search: Callable[..., Any] = self._db["rows"].search
        self._where = {name: self._filter(each) for name, each in where.items()}
        self._how: dict[str, Any] = {}

    @staticmethod
    def _filter(where: Where | None) -> Any:
        from vecdb import F

        if where is None:
            return None
        named = getattr(F, where.field)
        return named < where.below if where.below is not None else named.isin(list(where.among))

    def effort(self, effort: float) -> None:
        self._how = {"recall": effort} if effort < 1 else {"ef": int(effort)}

    def near(self, query: Array, name: str) -> list[int]:
        ids: list[int] = self._search(
            self._near(query), k=DEPTH, where=self._where[name], **self._how
        ).ids
        return ids

    def text(self, words: str, name: str) -> list[int]:
        ids: list[int] = self._search(self._text(words), k=DEPTH, where=self._where[name]).ids
        return ids

    def hybrid(self, query: Array, words: str, name: str) -> list[int]:
        ids: list[int] = self._search(
            self._near(query) + self._text(words), k=K, where=self._where[name], **self._how
        ).ids
        return ids


class VecdbDefault(Vecdb):
    """The same as a user gets it who says nothing of recall."""

    efforts: Sequence[float] = (0.95,)


class LanceDB:
    """LanceDB: IVF_HNSW_SQ of one partition, scalar and full-text indexes; threads as it likes."""

    package = "lancedb"
    module = "lancedb"
    efforts: Sequence[float] = (100, 150, 200, 300, 400, 600)

    def build(self, data: Data, path: Path, threads: int) -> None:
        import lancedb
        import pyarrow as pa
        from lancedb.index import FTS, Bitmap, BTree, HnswSq

        width = data.base.shape[1]
        columns: dict[str, Any] = {
            "id": pa.array(range(len(data.base)), pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(data.base.reshape(-1)), width),
            "text": pa.array(data.texts),
        }
        for key in data.metadata[0]:
            columns[key] = pa.array([row[key] for row in data.metadata])
        table = lancedb.connect(str(path)).create_table("rows", pa.table(columns))
        table.create_index(
            "vector",
            config=HnswSq(distance_type="cosine", num_partitions=1, m=M, ef_construction=EF_CONSTRUCTION),
        )
        table.create_index("text", config=FTS(language="English", stem=True, remove_stop_words=True))
        table.create_index("installed_size_kb", config=BTree())
        table.create_index("section", config=Bitmap())

    def load(self, path: Path, where: dict[str, Where | None]) -> None:
        for variable in ("LANCEDB_LOG", "LANCE_LOG", "RUST_LOG"):
            os.environ[variable] = "error"  # it warns with every query
        import lancedb
        from lancedb.rerankers import RRFReranker

        self._table = lancedb.connect(str(path)).open_table("rows")
        self._where = {name: _sql(each) for name, each in where.items()}
        self._fused = RRFReranker(K=RANK_CONSTANT)

    def effort(self, effort: float) -> None:
        self._ef = int(effort)

    def near(self, query: Array, name: str) -> list[int]:
        asked = self._table.search(query).distance_type("cosine").ef(self._ef).refine_factor(1)
        return self._ids(asked, name)

    def text(self, words: str, name: str) -> list[int]:
        return self._ids(self._table.search(words, query_type="fts"), name)

    def hybrid(self, query: Array, words: str, name: str) -> list[int]:
        asked = self._table.search(query_type="hybrid").vector(query).text(words)
        asked = asked.distance_type("cosine").ef(self._ef).refine_factor(1).rerank(self._fused)
        return self._ids(asked, name)[:K]

    def _ids(self, asked: Any, name: str) -> list[int]:
        if self._where[name] is not None:
            asked = asked.where(self._where[name], prefilter=True)
        ids: list[int] = asked.limit(DEPTH).select(["id"]).to_arrow()["id"].to_pylist()
        return ids


class Zvec:
    """zvec: HNSW over float32, FTS, inverted indexes, after `optimize`."""

    package = "zvec"
    module = "zvec"
    efforts: Sequence[float] = (100, 120, 150, 200, 300, 400, 600)

    def build(self, data: Data, path: Path, threads: int) -> None:
        import zvec

        zvec.init(optimize_threads=threads, query_threads=1)
        inverted = zvec.InvertIndexParam(enable_range_optimization=True)
        words = zvec.FtsIndexParam(tokenizer_name="standard", filters=["lowercase", "stemmer"])
        schema = zvec.CollectionSchema(
            name="rows",
            fields=[
                zvec.FieldSchema("text", zvec.DataType.STRING, index_param=words),
                zvec.FieldSchema("section", zvec.DataType.STRING, index_param=inverted),
                zvec.FieldSchema("priority", zvec.DataType.STRING),
                zvec.FieldSchema("installed_size_kb", zvec.DataType.INT64, index_param=inverted),
                zvec.FieldSchema("depends_count", zvec.DataType.INT64),
            ],
            vectors=zvec.VectorSchema(
                "vector", zvec.DataType.VECTOR_FP32, data.base.shape[1],
                index_param=zvec.HnswIndexParam(
                    metric_type=zvec.MetricType.COSINE, m=M, ef_construction=EF_CONSTRUCTION
                ),
            ),
        )  # fmt: skip
        made = zvec.create_and_open(str(path), schema)
        for first in range(0, len(data.base), COMMIT):
            made.insert([
                zvec.Doc(
                    id=str(at), vectors={"vector": data.base[at]},
                    fields={"text": data.texts[at], **data.metadata[at]},
                )
                for at in range(first, min(first + COMMIT, len(data.base)))
            ])  # fmt: skip
        made.optimize(zvec.OptimizeOption(concurrency=threads))
        made.flush()
        made.close()

    def load(self, path: Path, where: dict[str, Where | None]) -> None:
        import zvec
        from zvec._zvec import _MultiQuery
        from zvec._zvec.param import _SubQuery
        from zvec.executor.query_executor import QueryContext

        zvec.init(query_threads=1)
        self._zvec, self._multi, self._sub, self._context = zvec, _MultiQuery, _SubQuery, QueryContext
        self._made = zvec.open(str(path), zvec.CollectionOption(read_only=True))
        self._where = {name: _sql(each) for name, each in where.items()}

    def effort(self, effort: float) -> None:
        self._how = self._zvec.HnswQueryParam(ef=int(effort))

    def near(self, query: Array, name: str) -> list[int]:
        asked = self._zvec.Query("vector", vector=query, param=self._how)
        return self._ids(
            self._made.query(asked, topk=DEPTH, filter=self._where[name], output_fields=[])
        )

    def text(self, words: str, name: str) -> list[int]:
        asked = self._zvec.Query("text", fts=self._zvec.Fts(match_string=words))
        return self._ids(
            self._made.query(asked, topk=DEPTH, filter=self._where[name], output_fields=[])
        )

    def hybrid(self, query: Array, words: str, name: str) -> list[int]:
        """`query` takes as many candidates as hits: this is the same with 100, and ten hits read."""
        made, near = self._made, self._zvec.Query("vector", vector=query, param=self._how)
        text = self._zvec.Query("text", fts=self._zvec.Fts(match_string=words))
        context = self._context(K, self._where[name], False, [near, text], [])
        asked = self._multi()
        built = made._querier._build_queries(context, made._obj)
        asked.queries = [self._sub.from_search_query(each) for each in built]
        for each in asked.queries:
            each.num_candidates = DEPTH
        asked.topk = K
        if context.filter:
            asked.filter = context.filter
        asked.output_fields = []
        asked.set_rerank_rrf(RANK_CONSTANT)
        return [int(each[0]) for each in made._obj.Query(asked)]

    @staticmethod
    def _ids(found: Any) -> list[int]:
        return [int(each.id) for each in found]


class Edge:
    """Qdrant Edge: HNSW walked by int8 codes and rescored, BM25 as sparse vectors, payload indexes."""

    package = "qdrant-edge-py"
    module = "qdrant_edge"
    efforts: Sequence[float] = (100, 120, 150, 200, 300, 400, 600)
    quantised, sparse = True, True

    def build(self, data: Data, path: Path, threads: int) -> None:
        import qdrant_edge as q

        path.mkdir()
        shard = q.EdgeShard.create(str(path), self._config(q, threads))
        model = self._model(q, data)
        for first in range(0, len(data.base), COMMIT):
            points = [
                q.Point(
                    id=at, vector={"d": data.base[at].tolist(), "t": model.embed_document(data.texts[at])},
                    payload={**data.metadata[at], "text": data.texts[at]},
                )
                for at in range(first, min(first + COMMIT, len(data.base)))
            ]  # fmt: skip
            shard.update(q.UpdateOperation.upsert_points(points))
        for name, kind in (
            ("installed_size_kb", q.IntegerIndexParams(lookup=True, range=True)),
            ("section", q.KeywordIndexParams()),
            ("text", q.TextIndexParams(
                tokenizer=q.TokenizerType.Word, lowercase=True, scoring=True, stopwords=q.Language.English,
                stemmer=q.SnowballParams(q.SnowballLanguage.English),
            )),
        ):  # fmt: skip
            shard.update(q.UpdateOperation.create_field_index(name, kind))
        shard.optimize()
        shard.flush()
        shard.close()

    @staticmethod
    def _config(q: Any, threads: int) -> Any:
        return q.EdgeConfig(
            vectors={"d": q.EdgeVectorParams(size=DIM, distance=q.Distance.Cosine)},
            sparse_vectors={"t": q.EdgeSparseVectorParams(modifier=q.Modifier.Idf)},
            hnsw_config=q.HnswIndexConfig(
                m=M, ef_construct=EF_CONSTRUCTION, full_scan_threshold=10_000, max_indexing_threads=threads
            ),
            quantization_config=q.ScalarQuantizationConfig(type=q.ScalarType.Int8, always_ram=True),
            optimizers=q.EdgeOptimizersConfig(default_segment_number=1),
            max_search_threads=1,
        )  # fmt: skip

    @staticmethod
    def _model(q: Any, data: Data | None) -> Any:
        long = sum(len(text.split()) for text in data.texts) / len(data.texts) if data else 100.0
        return q.Bm25(q.Bm25Config(language="english", avg_len=long))

    def load(self, path: Path, where: dict[str, Where | None]) -> None:
        import qdrant_edge as q

        self._q = q
        self._shard = q.EdgeShard.load(str(path), self._config(q, 1))
        self._bm25 = self._model(q, None)
        self._where = {name: self._filter(each) for name, each in where.items()}

    def _filter(self, where: Where | None) -> Any:
        q = self._q
        if where is None:
            return None
        if where.below is not None:
            condition = q.FieldCondition(where.field, range=q.RangeFloat(lt=where.below))
        else:
            condition = q.FieldCondition(where.field, match=q.MatchAny(list(where.among)))
        return q.Filter(must=[condition])

    def effort(self, effort: float) -> None:
        q = self._q
        codes = q.QuantizationSearchParams(ignore=not self.quantised, rescore=True)
        self._how = q.SearchParams(hnsw_ef=int(effort), quantization=codes)

    def _words(self, words: str) -> Any:
        if self.sparse:
            return self._q.Query.Nearest(self._bm25.embed_query(words), using="t")
        return self._q.TextQuery("text", words)

    def near(self, query: Array, name: str) -> list[int]:
        q = self._q
        asked = q.QueryRequest(
            limit=DEPTH, query=q.Query.Nearest(query.tolist(), using="d"), filter=self._where[name],
            params=self._how, with_payload=False,
        )  # fmt: skip
        return [each.id for each in self._shard.query(asked)]

    def text(self, words: str, name: str) -> list[int]:
        asked = self._q.QueryRequest(
            limit=DEPTH, query=self._words(words), filter=self._where[name], with_payload=False
        )
        return [each.id for each in self._shard.query(asked)]

    def hybrid(self, query: Array, words: str, name: str) -> list[int]:
        q, where = self._q, self._where[name]
        parts = [
            q.Prefetch(
                DEPTH, q.Query.Nearest(query.tolist(), using="d"), params=self._how, filter=where
            ),
            q.Prefetch(DEPTH, self._words(words), filter=where),
        ]
        asked = q.QueryRequest(
            limit=K, prefetches=parts, query=q.Fusion.Rrf(RANK_CONSTANT + 1), with_payload=False
        )
        return [each.id for each in self._shard.query(asked)]


class EdgeFloat(Edge):
    """The same, walked by the float32 vectors."""

    quantised = False


class EdgeText(Edge):
    """The same, with BM25 over its text index."""

    sparse = False


ENGINES: dict[str, Callable[[], Engine]] = {
    "vecdb": Vecdb, "vecdb-default": VecdbDefault, "zvec": Zvec, "edge": Edge, "edge-float": EdgeFloat,
    "edge-text": EdgeText, "lancedb": LanceDB,
}  # fmt: skip
SAME_FILES = {"vecdb-default": "vecdb", "edge-float": "edge", "edge-text": "edge"}  # a copy of its files


def _sql(where: Where | None) -> str | None:
    if where is None:
        return None
    if where.below is not None:
        return f"{where.field} < {where.below}"
    return f"{where.field} in ({', '.join(repr(each) for each in where.among)})"


def fused(lists: Sequence[Sequence[int]]) -> dict[int, float]:
    """The reciprocal ranks of what several parts found."""
    found: dict[int, float] = {}
    for rank, row in itertools.chain.from_iterable(enumerate(each, 1) for each in lists):
        found[row] = found.get(row, 0.0) + 1 / (RANK_CONSTANT + rank)
    return found
