"""The engines that bench/search/compare.py compares, each behind the same four methods.

A class runs in its peer's environment: numpy and the peer are all it may import, and the peer only in
``load``, which is not timed as insert or open. Every engine is told to use one thread.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["ENGINES", "Engine"]

#: Rows in one durable insert.
BATCH = 4096
#: Candidates that graph indexes keep while they search: hnswlib's and Chroma's usual, all engines'.
EF_SEARCH = 100
EF_BUILD = 200

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]


class Engine:
    """An engine under test.

    Attributes:
        environment: Where it runs (bench/support/environments.py).
        codes: What is scanned: "float32", "int8", "1-bit", or "1-bit, int8" for a funnel.
        exact: Whether every row is looked at.
    """

    environment: ClassVar[str]
    codes: ClassVar[str]
    exact: ClassVar[bool] = True

    def load(self) -> None:
        """Import the peer."""
        raise NotImplementedError

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        """Write every row into files in an empty folder; what returns is on the disk.

        Args:
            path: The folder.
            vectors: float32[n, d], unit length. Row i has the id i.
            codes: int8[n, d] of the same rows.
        """
        raise NotImplementedError

    def open(self, path: Path) -> None:
        """Open what ``build`` wrote, in a process of its own."""
        raise NotImplementedError

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        """Ids of the k nearest rows, from the best.

        Args:
            vector: float32[d].
            code: int8[d] of the same query.
            k: Most ids.
        """
        raise NotImplementedError


class SqliteVec(Engine):
    """sqlite-vec; through apsw, as many Pythons are built without extension loading."""

    environment = "sqlite-vec"
    column: ClassVar[str]
    value: ClassVar[str] = "?"

    def load(self) -> None:
        self._apsw: Any = importlib.import_module("apsw")
        self._extension: str = importlib.import_module("sqlite_vec").loadable_path()

    def _connect(self, path: Path) -> None:
        self._connection: Any = self._apsw.Connection(str(path / "vectors.db"))
        self._connection.enable_load_extension(True)  # noqa: FBT003 - apsw's signature
        self._connection.load_extension(self._extension)

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        self._connect(path)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute(f"create virtual table v using vec0(embedding {self.column})")
        statement = f"insert into v (rowid, embedding) values (?, {self.value})"
        for rows in _batches(len(vectors), BATCH):
            blobs = self.blobs(vectors[rows], codes[rows])
            values = zip(range(rows.start, rows.stop), blobs, strict=True)
            with self._connection:
                self._connection.executemany(statement, values)
        self._connection.close()

    def open(self, path: Path) -> None:
        self._connect(path)
        self._statement = (
            f"select rowid from v where embedding match {self.value} and k = ? order by distance"
        )

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        blob = next(self.blobs(vector[None], code[None]))
        return [row for (row,) in self._connection.execute(self._statement, (blob, k))]

    def blobs(self, vectors: Floats, codes: Codes) -> Iterator[bytes]:
        """What is stored, a value for each row."""
        raise NotImplementedError


class SqliteVecFloat(SqliteVec):
    """By L2 distance, which orders unit vectors as the cosine does and is faster there."""

    codes = "float32"
    column = "float[128]"

    def blobs(self, vectors: Floats, codes: Codes) -> Iterator[bytes]:
        del codes
        return (row.tobytes() for row in vectors)


class SqliteVecInt8(SqliteVec):
    """By L2 distance; the codes' lengths differ by little, and the cosine takes twice as long."""

    codes = "int8"
    column = "int8[128]"
    value = "vec_int8(?)"

    def blobs(self, vectors: Floats, codes: Codes) -> Iterator[bytes]:
        del vectors
        return (row.tobytes() for row in codes)


class SqliteVecBit(SqliteVec):
    """By Hamming distance."""

    codes = "1-bit"
    column = "bit[128]"
    value = "vec_bit(?)"

    def blobs(self, vectors: Floats, codes: Codes) -> Iterator[bytes]:
        del vectors
        return (row.tobytes() for row in _bits(codes))


class Faiss(Engine):
    """A faiss index, written to a file once it is full: faiss has no durable insert."""

    environment = "faiss"

    def load(self) -> None:
        self._faiss: Any = importlib.import_module("faiss")
        self._faiss.omp_set_num_threads(1)

    def empty(self) -> Any:
        """A new index."""
        raise NotImplementedError

    def rows(self, vectors: Floats, codes: Codes) -> NDArray[np.generic]:
        """What the index takes for these rows."""
        del codes
        return vectors

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        index = self.empty()
        if not index.is_trained:
            index.train(np.ascontiguousarray(vectors[:100_000]))
        for rows in _batches(len(vectors), BATCH):
            index.add(np.ascontiguousarray(self.rows(vectors[rows], codes[rows])))
        self._faiss.write_index(index, str(path / "index"))
        _sync(path / "index")

    def open(self, path: Path) -> None:
        self._index: Any = self._faiss.read_index(str(path / "index"))

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        _, ids = self._index.search(self.rows(vector[None], code[None]), k)
        return [int(i) for i in ids[0]]


class FaissFlat(Faiss):
    """IndexFlatIP."""

    codes = "float32"

    def empty(self) -> Any:
        return self._faiss.IndexFlatIP(128)


class FaissScalar(Faiss):
    """IndexScalarQuantizer, 8 bits with a range learnt for each dimension."""

    codes = "int8"

    def empty(self) -> Any:
        kind = self._faiss.ScalarQuantizer.QT_8bit
        return self._faiss.IndexScalarQuantizer(128, kind, self._faiss.METRIC_INNER_PRODUCT)


class FaissDirect(Faiss):
    """IndexScalarQuantizer over our codes, taken as they are."""

    codes = "int8"

    def empty(self) -> Any:
        kind = self._faiss.ScalarQuantizer.QT_8bit_direct_signed
        return self._faiss.IndexScalarQuantizer(128, kind, self._faiss.METRIC_INNER_PRODUCT)

    def rows(self, vectors: Floats, codes: Codes) -> NDArray[np.generic]:
        del vectors
        return codes.astype(np.float32)


class FaissBinary(Faiss):
    """IndexBinaryFlat."""

    codes = "1-bit"

    def empty(self) -> Any:
        return self._faiss.IndexBinaryFlat(128)

    def rows(self, vectors: Floats, codes: Codes) -> NDArray[np.generic]:
        del vectors
        return _bits(codes)

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        index = self.empty()
        for rows in _batches(len(vectors), BATCH):
            index.add(self.rows(vectors[rows], codes[rows]))
        self._faiss.write_index_binary(index, str(path / "index"))
        _sync(path / "index")

    def open(self, path: Path) -> None:
        self._index = self._faiss.read_index_binary(str(path / "index"))


class FaissFunnel(FaissBinary):
    """A funnel made by hand: IndexBinaryFlat's best 1,000 ordered by numpy over mapped int8 codes."""

    codes = "1-bit, int8"
    exact = False
    shortlist: ClassVar[int] = 1000

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        super().build(path, vectors, codes)
        np.save(path / "codes.npy", codes)
        _sync(path / "codes.npy")

    def open(self, path: Path) -> None:
        super().open(path)
        self._codes: Codes = np.load(path / "codes.npy", mmap_mode="r")

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        del vector
        width = min(self.shortlist, len(self._codes))
        _, found = self._index.search(_bits(code[None]), width)
        some = self._codes[found[0]].astype(np.float32)
        scores = some @ code.astype(np.float32) / np.linalg.norm(some, axis=1)
        return [int(i) for i in found[0][np.argsort(-scores, kind="stable")[:k]]]


class Usearch(Engine):
    """usearch's int8 index, viewed from its file; saved once it is full."""

    environment = "usearch"
    codes = "int8"
    settings: ClassVar[dict[str, int]]

    def load(self) -> None:
        self._usearch: Any = importlib.import_module("usearch.index")

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        del vectors
        index = self._usearch.Index(ndim=128, metric="cos", dtype="i8", **self.settings)
        for rows in _batches(len(codes), BATCH):
            keys = np.arange(rows.start, rows.stop, dtype=np.uint64)
            index.add(keys, np.ascontiguousarray(codes[rows]), threads=1)
        index.save(str(path / "index"))
        _sync(path / "index")

    def open(self, path: Path) -> None:
        self._index: Any = self._usearch.Index.restore(str(path / "index"), view=True)
        self._index.expansion_search = EF_SEARCH

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        del vector
        found = self._index.search(code, k, threads=1, exact=self.exact)
        return [int(key) for key in found.keys]


class UsearchExact(Usearch):
    """Every row. The index's scan is several times faster than usearch's own function for arrays.

    The graph, which the scan does not use, is the smallest that can be built.
    """

    settings: ClassVar[dict[str, int]] = {"connectivity": 2, "expansion_add": 1}


class UsearchGraph(Usearch):
    """HNSW, with the other graph indexes' settings."""

    exact = False
    settings: ClassVar[dict[str, int]] = {"connectivity": 16, "expansion_add": EF_BUILD}


class Hnswlib(Engine):
    """hnswlib, saved to a file once it is full."""

    environment = "hnswlib"
    codes = "float32"
    exact = False

    def load(self) -> None:
        self._hnswlib: Any = importlib.import_module("hnswlib")

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        del codes
        index = self._hnswlib.Index(space="ip", dim=128)
        index.init_index(max_elements=len(vectors), M=16, ef_construction=EF_BUILD)
        for rows in _batches(len(vectors), BATCH):
            index.add_items(vectors[rows], np.arange(rows.start, rows.stop), num_threads=1)
        index.save_index(str(path / "index"))
        _sync(path / "index")

    def open(self, path: Path) -> None:
        self._index: Any = self._hnswlib.Index(space="ip", dim=128)
        self._index.load_index(str(path / "index"))
        self._index.set_ef(EF_SEARCH)

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        del code
        ids, _ = self._index.knn_query(vector, k=k, num_threads=1)
        return [int(i) for i in ids[0]]


class Zvec(Engine):
    """zvec's flat index with its int8 quantisation."""

    environment = "zvec"
    codes = "int8"
    batch: ClassVar[int] = 1024  # the most that it takes at once

    def load(self) -> None:
        self._zvec: Any = importlib.import_module("zvec")
        level = self._zvec.LogLevel.ERROR
        log = self._zvec.LogType.CONSOLE
        self._zvec.init(log_type=log, log_level=level, query_threads=1, optimize_threads=1)

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        del codes
        z = self._zvec
        index = z.FlatIndexParam(metric_type=z.MetricType.IP, quantize_type=z.QuantizeType.INT8)
        schema = z.VectorSchema("vector", z.DataType.VECTOR_FP32, 128, index)
        collection = z.create_and_open(
            str(path / "bench"), z.CollectionSchema(name="bench", vectors=schema)
        )
        for rows in _batches(len(vectors), self.batch):
            some = zip(range(rows.start, rows.stop), vectors[rows].tolist(), strict=True)
            states = collection.insert([z.Doc(str(i), vectors={"vector": v}) for i, v in some])
            if not all(state.ok() for state in states):
                raise RuntimeError("zvec refused a row")
        collection.flush()
        collection.optimize()
        collection.flush()
        collection.close()

    def open(self, path: Path) -> None:
        self._collection: Any = self._zvec.open(str(path / "bench"))

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        del code
        query = self._zvec.Query("vector", vector=vector)
        return [int(found.id) for found in self._collection.query(query, topk=k)]


class QdrantEdge(Engine):
    """Qdrant Edge's scan of int8 codes: no graph (m = 0), no rescoring by the floats."""

    environment = "qdrant-edge"
    codes = "int8"

    def load(self) -> None:
        self._qdrant: Any = importlib.import_module("qdrant_edge")

    def _config(self) -> Any:
        q = self._qdrant
        return q.EdgeConfig(
            vectors={"": q.EdgeVectorParams(size=128, distance=q.Distance.Dot)},
            hnsw_config=q.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10),
            quantization_config=q.ScalarQuantizationConfig(q.ScalarType.Int8, always_ram=True),
            # Segments are coded only when they are indexed, so all are.
            optimizers=q.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
            max_search_threads=1,
        )

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        del codes
        q = self._qdrant
        shard = q.EdgeShard.create(str(path), self._config())
        for rows in _batches(len(vectors), BATCH):
            some = zip(range(rows.start, rows.stop), vectors[rows].tolist(), strict=True)
            shard.update(q.UpdateOperation.upsert_points([q.Point(i, v) for i, v in some]))
        while shard.optimize():
            pass
        shard.flush()
        shard.close()

    def open(self, path: Path) -> None:
        q = self._qdrant
        self._shard: Any = q.EdgeShard.load(str(path))
        scan = q.QuantizationSearchParams(rescore=False)
        self._params: Any = q.SearchParams(quantization=scan)

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        del code
        q = self._qdrant
        request = q.SearchRequest(q.Query.Nearest(vector.tolist()), k, params=self._params)
        return [int(found.id) for found in self._shard.search(request)]


class LanceFloat(Engine):
    """LanceDB without an index: a scan of the table."""

    environment = "lancedb"
    codes = "float32"
    metric: ClassVar[str] = "dot"

    def load(self) -> None:
        # More than one of its pools limited to one thread (LANCE_IO_THREADS,
        # TOKIO_WORKER_THREADS) and 0.40 stops for good at an insert.
        os.environ["LANCE_CPU_THREADS"] = "1"
        os.environ["LANCE_LOG"] = "error"
        self._lance: Any = importlib.import_module("lancedb")
        self._arrow: Any = importlib.import_module("pyarrow")

    def rows(self, vectors: Floats, codes: Codes) -> NDArray[np.generic]:
        """What is stored for these rows, [n, width]."""
        del codes
        return vectors

    def _table(self, rows: slice, values: NDArray[np.generic]) -> Any:
        flat = self._arrow.array(np.ascontiguousarray(values).ravel())
        column = self._arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
        ids = self._arrow.array(np.arange(rows.start, rows.stop))
        return self._arrow.table({"id": ids, "vector": column})

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        database, table = self._lance.connect(str(path)), None
        for rows in _batches(len(vectors), BATCH):
            data = self._table(rows, self.rows(vectors[rows], codes[rows]))
            if table is None:
                table = database.create_table("bench", data)
            else:
                table.add(data)
        assert table is not None
        table.optimize(cleanup_older_than=timedelta(0))  # the files before they were merged

    def open(self, path: Path) -> None:
        self._opened: Any = self._lance.connect(str(path)).open_table("bench")

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        values = self.rows(vector[None], code[None])[0]
        search = self._opened.search(values, vector_column_name="vector")
        found = search.distance_type(self.metric).limit(k).select(["id", "_distance"]).to_arrow()
        ids: list[int] = found["id"].to_pylist()
        return ids


class LanceBit(LanceFloat):
    """1-bit codes by Hamming distance."""

    codes = "1-bit"
    metric = "hamming"

    def rows(self, vectors: Floats, codes: Codes) -> NDArray[np.generic]:
        del vectors
        return _bits(codes)


class Chroma(Engine):
    """Chroma: HNSW over floats, beside SQLite."""

    environment = "chromadb"
    codes = "float32"
    exact = False

    def load(self) -> None:
        self._chroma: Any = importlib.import_module("chromadb")

    def _client(self, path: Path) -> Any:
        settings = self._chroma.config.Settings(anonymized_telemetry=False)
        return self._chroma.PersistentClient(str(path), settings)

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        del codes
        graph = {
            "space": "ip",
            "num_threads": 1,
            "ef_construction": EF_BUILD,
            "ef_search": EF_SEARCH,
        }
        collection = self._client(path).create_collection(
            "bench", embedding_function=None, configuration={"hnsw": graph}
        )
        for rows in _batches(len(vectors), BATCH):
            ids = [str(i) for i in range(rows.start, rows.stop)]
            collection.add(ids=ids, embeddings=vectors[rows])

    def open(self, path: Path) -> None:
        client = self._client(path)
        self._collection: Any = client.get_collection("bench", embedding_function=None)

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        del code
        found = self._collection.query(query_embeddings=vector[None], n_results=k, include=[])
        return [int(i) for i in found["ids"][0]]


class EdgeMrl(Engine):
    """This project's store: a document for each row, with one passage and no text.

    Its ids are looked up in the store, as a caller would; the others' are what they search by.
    """

    environment = "edge-mrl"
    codes = "1-bit, int8"
    exact = False

    def load(self) -> None:
        self._store: Any = importlib.import_module("edge_mrl.store")
        self._documents: Any = importlib.import_module("edge_mrl.documents")
        self._search: Any = importlib.import_module("edge_mrl.search.scan")

    def _open(self, path: Path) -> Any:
        binding = self._store.Binding("s" * 64, "c" * 64, 128, 1.0, "bench")
        rule = self._documents.PassageRule(200, 0)
        return self._store.Store.create(path / "bench.store", binding, rule)

    def build(self, path: Path, vectors: Floats, codes: Codes) -> None:
        del vectors
        store = self._open(path)
        document, entry = self._documents.Document, self._store.Entry
        for rows in _batches(len(codes), BATCH):
            some = np.asarray(codes[rows])
            store.put(
                [
                    entry(document(str(row), ""), spans=[(0, 0)], codes=some[i : i + 1])
                    for i, row in enumerate(range(rows.start, rows.stop))
                ]
            )
        store.close()

    def open(self, path: Path) -> None:
        self._opened: Any = self._open(path)

    def query(self, vector: Floats, code: Codes, k: int) -> Sequence[int]:
        del vector
        with self._opened.reading() as view:
            found = self._search.nearest(code[None], view.codes, k=k, exact=self.exact)[0]
            documents = view.documents([match.key for match in found])
            return [int(documents[match.key].id) for match in found]


class EdgeMrlExact(EdgeMrl):
    """Every int8 code."""

    codes = "int8"
    exact = True


def _batches(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _bits(codes: Codes) -> NDArray[np.uint8]:
    """uint8[n, d / 8]: bit = code > 0, as in FORMAT.md."""
    return np.packbits(codes > 0, axis=1)


def _sync(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


ENGINES: dict[str, type[Engine]] = {
    "edge-mrl funnel": EdgeMrl,
    "edge-mrl exact": EdgeMrlExact,
    "sqlite-vec float": SqliteVecFloat,
    "sqlite-vec int8": SqliteVecInt8,
    "sqlite-vec bit": SqliteVecBit,
    "faiss flat": FaissFlat,
    "faiss SQ8": FaissScalar,
    "faiss SQ8 direct": FaissDirect,
    "faiss binary": FaissBinary,
    "faiss binary + int8": FaissFunnel,
    "usearch exact": UsearchExact,
    "usearch HNSW": UsearchGraph,
    "hnswlib": Hnswlib,
    "zvec flat": Zvec,
    "qdrant-edge flat": QdrantEdge,
    "lancedb flat": LanceFloat,
    "lancedb bit": LanceBit,
    "chromadb HNSW": Chroma,
}
