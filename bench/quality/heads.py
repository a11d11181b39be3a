"""What heads keep of a model's retrieval: ``python -m bench.quality.heads``.

On folders in BEIR's layout, with the fp32 source's own vectors, and codes made from them as a graph
does (FORMAT.md, "Codes"). For each set and number of dimensions: plain truncation; PCA, rotation and
linear head fitted to the set's own documents and excerpts of them, as an export does; a rotation fitted
to the other sets' documents; and the rotation of bundles made without a corpus. No fit sees a query or
a judgement. Each row is the share of the full vectors' nDCG@10 that int8 codes keep alone, and with
full vectors reranking their best 50. "mixed" is one index of all sets. At the end: Spearman's
correlation of codes' cosines with people's scores of similar sentences (STS-B), by head.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.retrieval import ROOT, source_vectors
from bench.quality.sets import (
    MAX_TOKENS,
    RERANKED,
    JudgedSet,
    add_set_arguments,
    excerpts_of,
    model_name,
    read_sets,
    trial_of,
)
from bench.support.machine import RESULTS, save
from edge_mrl.bundle.head import derive_codes
from edge_mrl.cli.common.progress import Progress
from edge_mrl.codes.packing import normalize
from edge_mrl.heads.selection import Excerpts, HeadTrial, nested_sizes
from edge_mrl_export.pages.plots import Axis, Line, Panel, svg

Float = NDArray[np.float32]
Rows = NDArray[np.intp]
DIMS = (16, 32, 64, 128, 256, 384)
#: Passages taken of each of the other sets, so that none outweighs the rest.
OTHERS = 1200
EXCERPTS_OF_OTHERS = 1500
SIMILAR = ROOT.parent / "shared" / "data" / "stsb" / "en-test.jsonl"


def main() -> int:
    """Measure, print a table, write bench/results/heads.json and heads.svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add_set_arguments(parser)
    parser.add_argument("--dim", type=int, action="append", help=f"default: {DIMS}")
    args = parser.parse_args()
    model, sets = read_sets(args, "heads")
    dims = tuple(args.dim or DIMS)
    if len(sets) > 1:
        sets["mixed"] = mixed(list(sets.values()))
    results = measure(sets, shipped_trial(model, (1,)), model, dims)
    settings = {
        "model": model_name(model),
        "dims": list(dims),
        "reranked": RERANKED,
        "code": "int8",
    }
    path = save("heads", settings, results)
    print(table(results, dims))
    print(f"written to {path.relative_to(ROOT)}")
    if len(dims) > 1:
        picture = RESULTS / "heads.svg"
        picture.write_text(plot(results, dims), encoding="utf-8")
        print(f"written to {picture.relative_to(ROOT)}")
    return 0


def _kept(data: JudgedSet, matrix: Float | None, dim: int) -> dict[str, Any]:
    """Shares of the full vectors' nDCG@10 that int8 codes keep, alone and reranked."""
    codes = (derive_codes(v, matrix, dim=dim) for v in (data.queries, data.documents))
    left, right = (normalize(c.astype(np.float32)) for c in codes)
    return data.kept(left, right)


def mixed(sets: list[JudgedSet]) -> JudgedSet:
    """All sets in one index."""
    starts = np.cumsum([0, *(len(s.documents) for s in sets)])[:-1]
    relevance = [
        {row + int(start): gain for row, gain in gains.items()}
        for start, s in zip(starts, sets, strict=True)
        for gains in s.relevance
    ]
    documents = np.concatenate([s.documents for s in sets])
    queries = np.concatenate([s.queries for s in sets])
    return JudgedSet(documents, queries, relevance, _joined([s.excerpts for s in sets], starts))


def _joined(excerpts: list[Excerpts], starts: Rows) -> Excerpts:
    origins = [p.origins + start for p, start in zip(excerpts, starts, strict=True)]
    return Excerpts(np.concatenate([p.full for p in excerpts]), np.concatenate(origins))


def shipped_trial(model: Path, nested: tuple[int, ...]) -> HeadTrial:
    """What bundles made without text are fitted on."""
    from edge_mrl_export.codes.head import shipped_texts
    from edge_mrl_export.source.loading import load_source

    texts = shipped_texts(load_source(str(model)))
    vectors = source_vectors(model, texts, "document", MAX_TOKENS)
    return replace(trial_of(vectors, excerpts_of(texts, model)), nested=nested)


def measure(
    sets: dict[str, JudgedSet], shipped: HeadTrial, model: Path, dims: tuple[int, ...]
) -> dict[str, Any]:
    """By set, by head, by dimensions; how long the fits took; and what similarity keeps."""
    results: dict[str, Any] = {name: {} for name in sets}
    seconds: dict[str, list[float]] = {}
    own = {name: data.trial((1,)) for name, data in sets.items()}
    singles = [name for name in sets if name != "mixed"]
    others = {name: _others(sets, name) for name in singles if len(singles) > 1}
    similar = _Similar.of(model) if SIMILAR.exists() else None
    similarity: dict[str, dict[str, float]] = {}
    with Progress("heads", len(dims) * len(sets)) as bar:
        for dim in dims:
            nested = nested_sizes(dim)
            of_shipped = replace(shipped, nested=nested).fit("rotation")
            for name, data in sets.items():
                heads: dict[str, Float | None] = {"cut": None}
                for kind in ("pca", "rotation", "linear"):
                    start = time.perf_counter()
                    heads[f"{kind}, own text"] = replace(own[name], nested=nested).fit(kind)
                    took = seconds.setdefault(f"{name}, {kind}", [])
                    took.append(round(time.perf_counter() - start, 1))
                if name in others:
                    other = replace(others[name], nested=nested)
                    heads["rotation, other text"] = other.fit("rotation")
                heads["rotation, as shipped"] = of_shipped
                for head, matrix in heads.items():
                    results[name].setdefault(head, {})[str(dim)] = _kept(data, matrix, dim)
                bar.advance(1)
            if similar is not None:
                for head, matrix in {"cut": None, "rotation, as shipped": of_shipped}.items():
                    similarity.setdefault(head, {})[str(dim)] = similar.spearman(matrix, dim)
    counts = {
        name: {"documents": len(s.documents), "queries": len(s.queries)} for name, s in sets.items()
    }
    found = {"sets": counts, "kept": results, "fit_seconds": seconds}
    if similar is not None:
        similarity["full"] = {"": similar.spearman(None, similar.vectors.shape[1])}
        found["similarity"] = similarity
    return found


class _Similar:
    """Pairs of sentences with people's scores (STS-B)."""

    def __init__(self, vectors: Float, scores: Float) -> None:
        self.vectors, self.scores = vectors, scores

    @classmethod
    def of(cls, model: Path) -> _Similar:
        pairs = [json.loads(line) for line in SIMILAR.read_text("utf-8").splitlines()]
        texts = [pair[side] for side in ("s1", "s2") for pair in pairs]
        vectors = source_vectors(model, texts, "document", MAX_TOKENS)
        return cls(vectors, np.array([float(pair["score"]) for pair in pairs], np.float32))

    def spearman(self, matrix: Float | None, dim: int) -> float:
        """Of the int8 codes' cosines."""
        codes = normalize(derive_codes(self.vectors, matrix, dim=dim).astype(np.float32))
        left, right = np.split(codes, 2)
        return round(spearman((left * right).sum(axis=1), self.scores), 4)


def spearman(left: NDArray[Any], right: NDArray[Any]) -> float:
    """The correlation of ranks; equal values share the mean of theirs."""
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[places]
    return ranks


def _others(sets: dict[str, JudgedSet], name: str) -> HeadTrial:
    """Some documents of each of the other sets, with excerpts of them."""
    chance = np.random.default_rng(0)
    documents, excerpts, starts, start = [], [], [], 0
    for data in (s for other, s in sets.items() if other not in (name, "mixed")):
        rows = chance.permutation(len(data.documents))[:OTHERS]
        places = np.full(len(data.documents), -1)
        places[rows] = np.arange(len(rows))
        origins = places[data.excerpts.origins]
        kept = np.flatnonzero(origins >= 0)[:EXCERPTS_OF_OTHERS]
        documents.append(data.documents[rows])
        excerpts.append(Excerpts(data.excerpts.full[kept], origins[kept]))
        starts.append(start)
        start += len(rows)
    return trial_of(np.concatenate(documents), _joined(excerpts, np.array(starts)))


def _mean(results: dict[str, Any], head: str, dim: int, field: str = "kept") -> float | None:
    """Over the sets, without the mixed one."""
    single = [rows for name, rows in results["kept"].items() if name != "mixed"]
    if not all(head in rows for rows in single):
        return None
    return float(np.mean([rows[head][str(dim)][field]["ratio"] for rows in single]))


def table(results: dict[str, Any], dims: tuple[int, ...]) -> str:
    """Shares kept by set, head and dimensions."""
    kept = results["kept"]
    names = list(kept)
    lines = []
    for dim in dims:
        lines.append(
            f"{f'{dim} dimensions, int8':<30}"
            + "".join(f"{n:>12}" for n in names)
            + "   mean, reranked"
        )
        for head in kept[names[0]]:
            cells = [kept[n].get(head, {}).get(str(dim)) for n in names]
            shown = [f"{c['kept']['ratio']:.1%}" if c else "" for c in cells]
            means = [_mean(results, head, dim, f) for f in ("kept", "kept_reranked")]
            ends = [f"{m:.1%}" for m in means if m is not None]
            lines.append(
                f"{head:<30}" + "".join(f"{s:>12}" for s in shown) + "   " + ", ".join(ends)
            )
    for head, by_dim in results.get("similarity", {}).items():
        by_size = ", ".join(f"{dim} {rho:.4f}".strip() for dim, rho in by_dim.items())
        lines.append(f"{f'STS-B, Spearman: {head}':<40} {by_size}")
    return "\n".join(lines)


def plot(results: dict[str, Any], dims: tuple[int, ...]) -> str:
    """The share kept against dimensions: the sets' mean, and the mixed index."""
    kept = results["kept"]
    heads = list(next(iter(kept.values())))
    x = Axis("dimensions (bytes) of the int8 code", tuple(float(d) for d in dims))
    y = Axis(
        "nDCG@10 kept of the full fp32 vectors, %", (30, 40, 50, 60, 70, 80, 90, 100), log=False
    )
    means = [Line(h, [(float(d), 100 * (_mean(results, h, d) or 0)) for d in dims]) for h in heads]
    panels = [Panel("mean over the sets", x, y, means)]
    if "mixed" in kept:
        rows = kept["mixed"]
        lines = [
            Line(h, [(float(d), 100 * rows[h][str(d)]["kept"]["ratio"]) for d in dims])
            for h in heads
            if h in rows
        ]
        panels.append(Panel("all sets in one index", x, y, lines))
    return svg(panels)


if __name__ == "__main__":
    sys.exit(main())
