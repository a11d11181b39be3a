"""What heads keep of a model's retrieval: ``python -m bench.heads``.

On folders in BEIR's layout, with the fp32 source's own vectors, and codes made from them as a graph does
(FORMAT.md, "Codes"). For each set and each number of dimensions: cut, PCA, rotation and linear map
fitted on the set's own documents, a rotation fitted on the other sets' documents, and one fitted on text
that comes with this repository. No fit sees a query or a judgement. Each row is the share of the full
vectors' nDCG@10 that int8 codes keep by themselves, and with full vectors reranking their best 50.
"mixed" is one index of all sets.
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

from bench.machine import RESULTS, save
from bench.metrics import bootstrap_ratio, evaluate
from bench.retrieval import ROOT, SETS, DataSet, read_set, source_vectors
from edge_mrl.codes import normalize
from edge_mrl.head import derive_codes
from edge_mrl.progress import Progress
from edge_mrl_export.plots import Axis, Line, Panel, svg

Float = NDArray[np.float32]
Rows = NDArray[np.intp]
DIMS = (16, 32, 64, 128, 256, 384)
RERANKED = 50
MAX_TOKENS = 256
#: Passages taken of each of the other sets, so that none outweighs the rest.
OTHERS = 1200
SHIPPED = ROOT / "demo" / "corpus.jsonl"
SHORTEST = 8


def main() -> int:
    """Measure, print a table, write bench/results/heads.json and heads.svg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--model", type=Path, help="source model folder (default: the installed MiniLM)"
    )
    parser.add_argument("--data", type=Path, action="append", help="folder, repeatable")
    parser.add_argument("--dim", type=int, action="append", help=f"default: {DIMS}")
    args = parser.parse_args()
    folders = args.data or [ROOT.parent / "shared" / "data" / name for name in SETS]
    folders = [folder for folder in folders if (folder / "qrels" / "test.tsv").exists()]
    if not folders:
        print("heads skipped, no data: give --data FOLDER in BEIR's layout", file=sys.stderr)
        return 2 if args.data else 0
    from edge_mrl_export.locate import installed_default

    model = args.model or installed_default()
    if model is None:
        print("no source model: give --model FOLDER", file=sys.stderr)
        return 2
    dims = tuple(args.dim or DIMS)
    sets = {folder.name: _Set.of(read_set(folder), model) for folder in folders}
    if len(sets) > 1:
        sets["mixed"] = _mixed(list(sets.values()))
    results = measure(sets, _shipped(model), dims)
    settings = {"model": model.name, "dims": list(dims), "reranked": RERANKED, "code": "int8"}
    path = save("heads", settings, results)
    print(table(results, dims))
    print(f"written to {path.relative_to(ROOT)}")
    if len(dims) > 1:
        picture = RESULTS / "heads.svg"
        picture.write_text(plot(results, dims), encoding="utf-8")
        print(f"written to {picture.relative_to(ROOT)}")
    return 0


class _Set:
    """A set as vectors of the source.

    Attributes:
        documents: float32[n, D].
        queries: float32[q, D].
        relevance: For each query, the gain of each relevant document's row.
    """

    def __init__(self, documents: Float, queries: Float, relevance: list[dict[int, float]]) -> None:
        self.documents, self.queries, self.relevance = documents, queries, relevance
        self.base = self._ndcg(_best(queries, documents))

    @classmethod
    def of(cls, data: DataSet, model: Path) -> _Set:
        """Encode a set, or read its vectors from build/bench."""
        vectors = [
            source_vectors(model, texts, kind, MAX_TOKENS)
            for texts, kind in ((data.documents, "document"), (data.queries, "query"))
        ]
        return cls(vectors[0], vectors[1], data.relevance)

    def kept(self, matrix: Float | None, dim: int) -> dict[str, Any]:
        """Shares of the full vectors' nDCG@10 that int8 codes keep, alone and reranked."""
        codes = (derive_codes(v, matrix, dim=dim) for v in (self.queries, self.documents))
        left, right = (normalize(c.astype(np.float32)) for c in codes)
        found = _best(left, right)
        alone = self._ndcg(found)
        again = self._ndcg(self._reranked(found))
        return {
            "ndcg_at_10": round(float(alone.mean()), 4),
            "kept": bootstrap_ratio(alone, self.base),
            "kept_reranked": bootstrap_ratio(again, self.base),
        }

    def _reranked(self, found: Rows) -> Rows:
        """The same rows in the order of the full vectors."""
        ordered = np.empty_like(found)
        for query, rows in enumerate(found):
            exact = self.documents[rows] @ self.queries[query]
            ordered[query] = rows[np.argsort(-exact, kind="stable")]
        return ordered

    def _ndcg(self, found: Rows) -> NDArray[np.float64]:
        """nDCG@10 of each query, from the rows that were found, best first."""
        places = []
        for rows, gains in zip(found.tolist(), self.relevance, strict=True):
            at = {row: place for place, row in enumerate(rows)}
            places.append(
                {at.get(row, len(rows) + n): gain for n, (row, gain) in enumerate(gains.items())}
            )
        falling = -np.arange(found.shape[1], dtype=np.float32)
        return evaluate(np.tile(falling, (len(found), 1)), places).ndcg_at_10


def _best(queries: Float, documents: Float) -> Rows:
    """intp[q, 50]: the rows with the largest cosines, best first."""
    found = []
    for start in range(0, len(queries), 512):
        scores = queries[start : start + 512] @ documents.T
        rows = np.argpartition(-scores, RERANKED - 1, axis=1)[:, :RERANKED]
        rows.sort(axis=1)
        order = np.argsort(-np.take_along_axis(scores, rows, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(rows, order, axis=1))
    return np.concatenate(found)


def _mixed(sets: list[_Set]) -> _Set:
    """All sets in one index."""
    starts = np.cumsum([0, *(len(s.documents) for s in sets)])
    relevance = [
        {row + int(start): gain for row, gain in gains.items()}
        for start, s in zip(starts, sets, strict=False)
        for gains in s.relevance
    ]
    documents = np.concatenate([s.documents for s in sets])
    return _Set(documents, np.concatenate([s.queries for s in sets]), relevance)


def _shipped(model: Path) -> Float:
    """float32[n, D] of the text that comes with this repository."""
    texts = [json.loads(line)["text"] for line in SHIPPED.read_text("utf-8").splitlines()]
    return source_vectors(model, texts, "document", MAX_TOKENS)


def measure(sets: dict[str, _Set], shipped: Float, dims: tuple[int, ...]) -> dict[str, Any]:
    """By set, by head, by dimensions; and how long the fits took."""
    from edge_mrl.trial import Trial

    results: dict[str, Any] = {name: {} for name in sets}
    seconds: dict[str, list[float]] = {}
    own = {name: Trial.of(data.documents, (1,)) for name, data in sets.items()}
    others = {
        name: Trial.of(_others(sets, name), (1,))
        for name in sets
        if name != "mixed" and len(sets) > 1
    }
    demo = Trial.of(shipped, (1,))
    with Progress("heads", len(dims) * len(sets)) as bar:
        for dim in dims:
            nested = _halves(dim)
            of_demo = replace(demo, nested=nested).fit("rotation")
            for name, data in sets.items():
                rows = results[name]
                trial = replace(own[name], nested=nested)
                heads: dict[str, Float | None] = {"cut": None}
                for kind in ("pca", "rotation", "linear"):
                    start = time.perf_counter()
                    heads[f"{kind}, own text"] = trial.fit(kind)
                    took = seconds.setdefault(f"{name}, {kind}", [])
                    took.append(round(time.perf_counter() - start, 1))
                if name in others:
                    other = replace(others[name], nested=nested)
                    heads["rotation, other text"] = other.fit("rotation")
                heads["rotation, demo's text"] = of_demo
                for head, matrix in heads.items():
                    row = data.kept(matrix, dim)
                    rows.setdefault(head, {})[str(dim)] = row | {
                        "held_out": round(trial.score(matrix), 4)
                    }
                bar.advance(1)
    counts = {
        name: {"documents": len(s.documents), "queries": len(s.queries)} for name, s in sets.items()
    }
    return {"sets": counts, "kept": results, "fit_seconds": seconds}


def _others(sets: dict[str, _Set], name: str) -> Float:
    """Some documents of each of the other sets."""
    chance = np.random.default_rng(0)
    documents = [s.documents for other, s in sets.items() if other not in (name, "mixed")]
    return np.concatenate([v[chance.permutation(len(v))[:OTHERS]] for v in documents])


def _halves(dim: int) -> tuple[int, ...]:
    sizes = [dim]
    while sizes[0] % 2 == 0 and sizes[0] // 2 >= SHORTEST:
        sizes.insert(0, sizes[0] // 2)
    return tuple(sizes)


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
    return "\n".join(lines)


def plot(results: dict[str, Any], dims: tuple[int, ...]) -> str:
    """The share kept against dimensions: the sets' mean, and the mixed index."""
    kept = results["kept"]
    heads = list(next(iter(kept.values())))[:5]
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
