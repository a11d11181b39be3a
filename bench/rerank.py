"""What ``rerank="auto"`` saves and costs: ``python -m bench.rerank --bundle DIR``.

For each question the local order by codes, and the order of the best 100 by full vectors (what a server
gives), both from the fp32 source's vectors and the bundle's head. The questions with the least doubt keep
their local order: how much nDCG@10 is left then, as a share of asking always.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import save
from bench.metrics import evaluate
from bench.retrieval import ROOT, SETS, DataSet, read_set, rerank, source_vectors
from edge_mrl.bundle import Manifest, read_manifest
from edge_mrl.codes import similarity
from edge_mrl.head import derive_codes, read_head
from edge_mrl.rerank import DEFAULT_MARGIN, NOISE, doubt

DEPTH = 100
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


def main() -> int:
    """Measure, print a table, write bench/results/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="source model folder (default: MiniLM's)")
    parser.add_argument("--data", type=Path, action="append", help="folder, repeatable")
    parser.add_argument("--name", default="rerank", help="file in bench/results (no suffix)")
    args = parser.parse_args()
    folders = args.data or [ROOT.parent / "shared" / "data" / name for name in SETS]
    folders = [folder for folder in folders if (folder / "qrels" / "test.tsv").exists()]
    if not folders:
        print("skipped, no data: give --data FOLDER in BEIR's layout", file=sys.stderr)
        return 2 if args.data else 0
    from edge_mrl_export.locate import installed_default

    model = args.model or installed_default()
    if model is None:
        print("no source model: give --model FOLDER", file=sys.stderr)
        return 2
    manifest = read_manifest(args.bundle)
    results = {f.name: measure(read_set(f), args.bundle, manifest, model) for f in folders}
    settings = {
        "model": manifest.source.model,
        "dim": manifest.dim,
        "head": manifest.head.kind,
        "depth": DEPTH,
        "noise": NOISE,
        "margin": DEFAULT_MARGIN,
    }
    save(args.name, settings, results)
    print(table(results))
    return 0


def measure(data: DataSet, bundle: Path, manifest: Manifest, model: Path) -> dict[str, Any]:
    """Quality by the share of questions that keep their local order, and at the default margin."""
    limit, head = manifest.max_tokens, read_head(bundle, manifest)
    fulls = [
        source_vectors(model, texts, kind, limit)
        for kind, texts in (("document", data.documents), ("query", data.queries))
    ]
    codes = [
        derive_codes(
            vectors,
            head,
            dim=manifest.dim,
            layer_norm=manifest.head.layer_norm,
            scale=manifest.code.scale,
        )
        for vectors in fulls
    ]
    coarse = similarity(codes[1], codes[0])
    full = np.asarray(fulls[1] @ fulls[0].T, np.float32)
    mine = evaluate(coarse, data.relevance).ndcg_at_10
    theirs = evaluate(rerank(coarse, full, DEPTH), data.relevance).ndcg_at_10
    best = -np.sort(-coarse, axis=1)[:, :DEPTH]
    doubts = np.array([doubt(scores) for scores in best])
    order = np.argsort(doubts, kind="stable")

    def kept(count: int) -> float:
        mixed = theirs.copy()
        mixed[order[:count]] = mine[order[:count]]
        return round(float(mixed.mean() / theirs.mean()), 4)

    sure = int((doubts <= DEFAULT_MARGIN).sum())
    return {
        "queries": len(data.queries),
        "ndcg_local": round(float(mine.mean()), 4),
        "ndcg_server": round(float(theirs.mean()), 4),
        "kept_by_calls_saved": {str(s): kept(int(s * len(order))) for s in SHARES},
        "at_margin": {"calls_saved": round(sure / len(order), 4), "kept": kept(sure)},
    }


def table(results: dict[str, Any]) -> str:
    """The results for people."""
    rows = [f"{'set':<12}{'local':>8}{'server':>8}{'saved':>8}{'kept':>8}"]
    for name, row in results.items():
        margin = row["at_margin"]
        rows.append(
            f"{name:<12}{row['ndcg_local']:>8.4f}{row['ndcg_server']:>8.4f}"
            f"{margin['calls_saved']:>8.1%}{margin['kept']:>8.2%}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
