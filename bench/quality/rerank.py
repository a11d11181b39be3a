"""What ``rerank="auto"`` saves and costs: ``python -m bench.quality.rerank``.

For each question: the local order by int8 codes, and the order of the best 100 by full vectors (what a
server answers), both from the fp32 source's vectors. The questions with the least doubt keep their
local order. The figure is the nDCG@10 then, as a share of the nDCG@10 when the server is always asked:
for plain truncation, for the head of bundles made without a corpus, and for a linear head fitted to the
set's own documents.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.heads import shipped_trial
from bench.quality.metrics import evaluate
from bench.quality.retrieval import rerank
from bench.quality.sets import JudgedSet, add_set_arguments, model_name, read_sets
from bench.support.machine import save
from edge_mrl.bundle.head import derive_codes
from edge_mrl.cli.common.progress import Progress
from edge_mrl.codes.packing import similarity
from edge_mrl.heads.selection import nested_sizes
from edge_mrl.search.rerank import DEFAULT_MARGIN, NOISE, doubt

Float = NDArray[np.float32]
DIM, DEPTH = 128, 100
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


def main() -> int:
    """Measure, print a table, write bench/results/rerank.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_set_arguments(parser)
    args = parser.parse_args()
    model, sets = read_sets(args, "rerank")
    shipped = shipped_trial(model, nested_sizes(DIM)).fit("rotation")
    results: dict[str, Any] = {}
    with Progress("rerank", len(sets)) as bar:
        for name, data in sets.items():
            heads = {
                "cut": None,
                "as shipped": shipped,
                "linear, own text": data.trial(nested_sizes(DIM)).fit("linear"),
            }
            results[name] = {head: measure(data, matrix) for head, matrix in heads.items()}
            bar.advance()
    settings = {"model": model_name(model), "dim": DIM, "depth": DEPTH, "noise": NOISE}
    save("rerank", {**settings, "margin": DEFAULT_MARGIN}, results)
    print(table(results))
    return 0


def measure(data: JudgedSet, matrix: Float | None) -> dict[str, Any]:
    """Quality by the share of questions that keep their local order, and at the default margin."""
    codes = [derive_codes(vectors, matrix, dim=DIM) for vectors in (data.documents, data.queries)]
    coarse = similarity(codes[1], codes[0])
    full = np.asarray(data.queries @ data.documents.T, np.float32)
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
    lines = [f"{'set, head':<32}{'local':>8}{'server':>8}{'saved':>8}{'kept':>8}{'half saved':>12}"]
    for name, heads in results.items():
        for head, row in heads.items():
            margin, half = row["at_margin"], row["kept_by_calls_saved"]["0.5"]
            lines.append(
                f"{f'{name}, {head}':<32}{row['ndcg_local']:>8.4f}{row['ndcg_server']:>8.4f}"
                f"{margin['calls_saved']:>8.1%}{margin['kept']:>8.2%}{half:>12.2%}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
