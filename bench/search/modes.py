"""Quality of what a store answers, by mode: ``python -m bench.search.modes --bundle DIR``.

On the sets of bench/quality/retrieval.py, through a real store, one passage a document: by vector, by
vector with full vectors kept on disk, by keyword, and hybrid. nDCG@10, and milliseconds a
query, its embedding not included.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.metrics import evaluate
from bench.quality.retrieval import ROOT, SETS, DataSet, encode, read_set
from bench.support.machine import save
from edge_mrl.documents import Document, PassageRule
from edge_mrl.encode.encoder import Encoder, Encoding
from edge_mrl.search.options import Mode, SearchOptions
from edge_mrl.search.ranking import QueryVectors, rank
from edge_mrl.store import Binding, Entry, Store

DEPTH = 100
BATCH = 1000
#: Name, mode, and what the store keeps of full vectors.
ROWS: tuple[tuple[str, Mode, str | None], ...] = (
    ("vector", "vector", None),
    ("vector, full vectors kept as int8", "vector", "int8"),
    ("vector, full vectors kept as fp16", "vector", "fp16"),
    ("keyword", "keyword", None),
    ("hybrid", "hybrid", None),
    ("hybrid, full vectors kept as fp16", "hybrid", "fp16"),
)


def main() -> int:
    """Measure, print a table, write bench/results/modes.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, action="append", help="folder, repeatable")
    args = parser.parse_args()
    folders = args.data or [ROOT.parent / "shared" / "data" / name for name in SETS]
    folders = [folder for folder in folders if (folder / "qrels" / "test.tsv").exists()]
    if not folders:
        print("modes skipped, no data: give --data FOLDER in BEIR's layout", file=sys.stderr)
        return 2 if args.data else 0
    with Encoder.open(args.bundle) as encoder:
        results = {folder.name: measure(read_set(folder), encoder) for folder in folders}
        dim = encoder.manifest.dim
    path = save("modes", {"dim": dim, "depth": DEPTH}, results)
    print(table(results))
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def measure(data: DataSet, encoder: Encoder) -> dict[str, Any]:
    """All rows for one set."""
    documents = encode(encoder, data.documents, "document")
    queries = encode(encoder, data.queries, "query")
    full = evaluate(_dots(queries, documents), data.relevance).means()
    rows: dict[str, Any] = {"full vectors alone": full}
    with tempfile.TemporaryDirectory() as scratch:
        stores = {
            keep: build(Path(scratch) / f"{keep}.db", data, documents, keep)
            for keep in (None, "int8", "fp16")
        }
        for name, mode, keep in ROWS:
            rows[name] = ask(stores[keep], data, queries, mode)
        for store in stores.values():
            store.close()
    return {"documents": len(data.documents), "queries": len(data.queries), "rows": rows}


def build(path: Path, data: DataSet, documents: Encoding, keep: str | None) -> Store:
    """A store of the set, with keys 1, 2, ... in the set's order."""
    assert documents.full is not None
    dim, full_dim = documents.coarse.shape[1], documents.full.shape[1]
    binding = Binding("bench", "bench", dim, 1.0, "bench", full_dim)
    store = Store.create(path, binding, PassageRule(256, 0), keep_full=keep)
    for first in range(0, len(data.documents), BATCH):
        store.put(
            [
                Entry(
                    Document(str(row), data.documents[row]),
                    [(0, len(data.documents[row]))],
                    documents.coarse[row : row + 1],
                    documents.full[row : row + 1],
                )
                for row in range(first, min(first + BATCH, len(data.documents)))
            ]
        )
    return store


def ask(store: Store, data: DataSet, queries: Encoding, mode: Mode) -> dict[str, Any]:
    """nDCG@10, recall@100, MRR@10 and the median time of a query."""
    assert queries.full is not None
    scores = np.full((len(data.queries), len(data.documents)), -np.inf, np.float32)
    times = []
    with store.reading() as view:
        for row, query in enumerate(data.queries):
            vectors = QueryVectors(queries.coarse[row], queries.full[row])
            started = time.perf_counter()
            ranking = rank(view, query, vectors, SearchOptions(k=DEPTH, mode=mode))
            times.append(time.perf_counter() - started)
            for place, found in enumerate(ranking):
                scores[row, found.key - 1] = -place
    means = evaluate(scores, data.relevance).means()
    return {**means, "median_ms": round(float(np.median(times)) * 1000, 2)}


def _dots(queries: Encoding, documents: Encoding) -> Any:
    assert queries.full is not None
    assert documents.full is not None
    return queries.full @ documents.full.T


def table(results: dict[str, Any]) -> str:
    """nDCG@10 by set, with the median time of a query."""
    lines = [f"{'nDCG@10 (ms a query)':<36}" + "".join(f"{name:>18}" for name in results)]
    for row in next(iter(results.values()))["rows"]:
        cells = [result["rows"][row] for result in results.values()]
        shown = [
            f"{cell['ndcg_at_10']:.4f}"
            + (f" ({cell['median_ms']:.1f})" if "median_ms" in cell else "")
            for cell in cells
        ]
        lines.append(f"{row:<36}" + "".join(f"{text:>18}" for text in shown))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
