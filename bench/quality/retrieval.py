"""Retrieval quality of a bundle against its source: ``python -m bench.quality.retrieval --bundle DIR``.

On folders in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/test.tsv). Every ranking is exact, over
all documents. Rows: the fp32 source run by its own library (full, and truncated to the bundle's dim),
the bundle's full vectors, its codes as a store keeps them, its 1-bit codes, and full vectors reranking
the codes' top 20, 50 and 100.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.metrics import bootstrap_ratio, evaluate
from bench.support.machine import save
from edge_mrl.cli.common.progress import Progress
from edge_mrl.codes.packing import Packing, normalize, similarity
from edge_mrl.encode.encoder import Encoder, Encoding

ROOT = Path(__file__).parent.parent.parent
SETS = ("scifact", "cranfield", "nl2bash", "squad2-dev")
CACHE = ROOT / "build" / "bench"
WIDTHS = (20, 50, 100)
#: Texts that the source encodes between two steps of the progress bar.
STEP = 512


@dataclass(frozen=True, slots=True)
class DataSet:
    """Texts with judgements: for each query, the gain of each relevant document's row."""

    name: str
    documents: list[str]
    queries: list[str]
    relevance: list[dict[int, float]]


def main() -> int:
    """Measure, print a table, write bench/results/NAME.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--model", type=Path, help="source model folder (default: the installed MiniLM)"
    )
    parser.add_argument("--data", type=Path, action="append", help="folder, repeatable")
    parser.add_argument("--name", default="retrieval", help="file in bench/results (no suffix)")
    args = parser.parse_args()
    folders = args.data or [ROOT.parent / "shared" / "data" / name for name in SETS]
    folders = [folder for folder in folders if (folder / "qrels" / "test.tsv").exists()]
    if not folders:
        print("retrieval skipped, no data: give --data FOLDER in BEIR's layout", file=sys.stderr)
        return 2 if args.data else 0
    from edge_mrl_export.source.location import installed_default

    model = args.model or installed_default()
    if model is None:
        print("no source model: give --model FOLDER", file=sys.stderr)
        return 2
    with Encoder.open(args.bundle) as encoder:
        results = {folder.name: measure(read_set(folder), encoder, model) for folder in folders}
        manifest = encoder.manifest
    settings = {
        "model": manifest.source.model,
        "dim": manifest.dim,
        "code": manifest.code.stored,
        "head": manifest.head.kind,
        "precision": manifest.precision.weights,
        "fidelity_cosine_mean": manifest.quality["cosine_mean"],
        "bundle_bytes": manifest.size_bytes,
    }
    path = save(args.name, settings, results)
    print(table(results))
    print(f"written to {path.relative_to(ROOT)}")
    return 0


def read_set(folder: Path) -> DataSet:
    """Read a folder in BEIR's layout; a document is its title, a space, and its text."""
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = {e["_id"]: e["text"] for e in map(json.loads, (folder / "queries.jsonl").open("rb"))}
    rows = {entry["_id"]: row for row, entry in enumerate(corpus)}
    judged: dict[str, dict[int, float]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, gain = line.split("\t")
        if float(gain) > 0 and document in rows:
            judged.setdefault(query, {})[rows[document]] = float(gain)
    documents = [f"{entry.get('title') or ''} {entry['text']}".strip() for entry in corpus]
    return DataSet(
        folder.name, documents, [texts[query] for query in judged], list(judged.values())
    )


def measure(data: DataSet, encoder: Encoder, model: Path) -> dict[str, Any]:
    """All rows for one set."""
    limit = encoder.manifest.max_tokens
    source_documents = source_vectors(model, data.documents, "document", limit)
    source_queries = source_vectors(model, data.queries, "query", limit)
    start = time.perf_counter()
    documents = encode(encoder, data.documents, "document")
    seconds = time.perf_counter() - start
    queries = encode(encoder, data.queries, "query")
    packing = encoder.manifest.code.packing
    rankings = score_all(packing, documents, queries, source_documents, source_queries)
    found = {name: evaluate(scores, data.relevance) for name, scores in rankings.items()}
    base = found["fp32 source, full"].ndcg_at_10
    rows = {
        name: {**metrics.means(), "retention": bootstrap_ratio(metrics.ndcg_at_10, base)}
        for name, metrics in found.items()
    }
    return {
        "documents": len(data.documents),
        "queries": len(data.queries),
        "encode_seconds": round(seconds, 1),
        "rows": rows,
    }


def encode(encoder: Encoder, texts: Sequence[str], kind: str) -> Encoding:
    """Encode with the bundle, showing how far it is."""
    chunks = []
    with Progress(f"{kind} vectors", len(texts)) as bar:
        for chunk in encoder.stream(texts, kind=kind):
            chunks.append(chunk)
            bar.advance(len(chunk))
    full = np.concatenate([chunk.full for chunk in chunks if chunk.full is not None])
    return Encoding(np.concatenate([chunk.coarse for chunk in chunks]), full)


def source_vectors(
    model: Path, texts: Sequence[str], kind: str, max_tokens: int
) -> NDArray[np.float32]:
    """float32[n, D] of the fp32 source, run by its own library; kept in build/bench."""
    from edge_mrl_export.source.loading import load_source

    source = load_source(str(model))
    settings = [source.space_id(), source.prompts[kind], str(max_tokens)]
    digest = hashlib.sha256("\0".join([*settings, *texts]).encode())
    path = CACHE / f"{digest.hexdigest()[:24]}.npy"
    if not path.exists():
        parts = [texts[i : i + STEP] for i in range(0, len(texts), STEP)]
        chunks = []
        with Progress(f"source's {kind} vectors", len(texts)) as bar:
            for part in parts:
                chunks.append(source.encode(part, kind=kind, max_tokens=max_tokens))
                bar.advance(len(part))
        vectors = np.concatenate(chunks)
        CACHE.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
    loaded_vectors: NDArray[np.float32] = np.load(path)
    return loaded_vectors


def score_all(
    packing: Packing,
    documents: Encoding,
    queries: Encoding,
    source_documents: NDArray[np.float32],
    source_queries: NDArray[np.float32],
) -> dict[str, NDArray[np.float32]]:
    """float32[queries, documents] by row of the table."""
    assert documents.full is not None
    assert queries.full is not None
    dim = documents.coarse.shape[1]
    coarse = similarity(queries.coarse, packing.unpack(packing.pack(documents.coarse), dim))
    full = queries.full @ documents.full.T
    cut = [normalize(vectors[:, :dim]) for vectors in (source_queries, source_documents)]
    rows = {
        "fp32 source, full": source_queries @ source_documents.T,
        f"fp32 source, cut to {dim}": cut[0] @ cut[1].T,
        "bundle, full": full,
        f"bundle, coarse {packing.kind} {dim}": coarse,
        f"bundle, 1-bit {dim}": _bit_scores(packing, queries.coarse, documents.coarse),
    }
    for width in WIDTHS:
        rows[f"bundle, coarse then full over {width}"] = rerank(coarse, full, width)
    return rows


def _bit_scores(
    packing: Packing, queries: NDArray[np.int8], documents: NDArray[np.int8]
) -> NDArray[np.float32]:
    left = np.unpackbits(packing.bits(queries), axis=1)[:, : queries.shape[1]]
    right = np.unpackbits(packing.bits(documents), axis=1)[:, : documents.shape[1]]
    # Agreements minus differences orders as the Hamming distance does.
    return (left * np.float32(2) - 1) @ (right * np.float32(2) - 1).T


def rerank(
    coarse: NDArray[np.float32], full: NDArray[np.float32], width: int
) -> NDArray[np.float32]:
    """Scores by which the best ``width`` of the coarse order are ordered by full, the rest as before."""
    scores = coarse - 4  # below every cosine
    rows = np.arange(len(coarse))[:, None]
    top = np.argsort(-coarse, axis=1, kind="stable")[:, :width]
    scores[rows, top] = full[rows, top]
    return scores


def table(results: dict[str, Any]) -> str:
    """nDCG@10 by set, with the share kept of the fp32 source's."""
    names = list(results)
    lines = [f"{'nDCG@10 (kept)':<36}" + "".join(f"{name:>18}" for name in names)]
    for row in next(iter(results.values()))["rows"]:
        cells = [results[name]["rows"][row] for name in names]
        shown = [f"{c['ndcg_at_10']:.4f} ({c['retention']['ratio']:.1%})" for c in cells]
        lines.append(f"{row:<36}" + "".join(f"{cell:>18}" for cell in shown))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
