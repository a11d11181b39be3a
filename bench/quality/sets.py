"""Sets with judgements as vectors of the fp32 source, for benchmarks of heads and of codes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bench.quality.metrics import bootstrap_ratio
from bench.quality.retrieval import ROOT, SETS, DataSet, read_set, source_vectors
from edge_mrl.heads.excerpts import count_excerpts, take_excerpts
from edge_mrl.heads.selection import MOST_PASSAGES, Excerpts, HeadTrial, nested_sizes, spread

__all__ = [
    "MAX_TOKENS",
    "RERANKED",
    "JudgedSet",
    "add_set_arguments",
    "excerpts_of",
    "model_name",
    "read_sets",
    "trial_of",
]

Float = NDArray[np.float32]
Rows = NDArray[np.intp]
RERANKED = 50
#: Of the ranks from 1 to 10, as in trec_eval.
DISCOUNTS = 1 / np.log2(np.arange(2, 12))
MAX_TOKENS = 256


def add_set_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe which model and which sets."""
    parser.add_argument(
        "--model", type=Path, help="source model folder (default: the installed MiniLM)"
    )
    parser.add_argument("--data", type=Path, action="append", help="folder, repeatable")


def read_sets(args: argparse.Namespace, name: str) -> tuple[Path, dict[str, JudgedSet]]:
    """The model's folder, and the sets by name.

    Args:
        args: As ``add_set_arguments`` has them.
        name: Of the benchmark, for people.

    Raises:
        SystemExit: There are no sets (0 if none was asked for), or no model (2); the reason is printed.
    """
    from edge_mrl_export.source.location import installed_default

    folders = args.data or [ROOT.parent / "shared" / "data" / name for name in SETS]
    folders = [folder for folder in folders if (folder / "qrels" / "test.tsv").exists()]
    if not folders:
        print(f"{name} skipped, no data: give --data FOLDER in BEIR's layout", file=sys.stderr)
        sys.exit(2 if args.data else 0)
    model = args.model or installed_default()
    if model is None:
        print("no source model: give --model FOLDER", file=sys.stderr)
        sys.exit(2)
    return model, {folder.name: JudgedSet.of(read_set(folder), model) for folder in folders}


def model_name(model: Path) -> str:
    """What results call a model: the default by its name, another by its folder's."""
    from edge_mrl_export.source.location import DEFAULT_MODEL, installed_default

    return DEFAULT_MODEL if model == installed_default() else model.name


class JudgedSet:
    """A set as vectors of the source.

    Attributes:
        documents: float32[n, D].
        queries: float32[q, D].
        relevance: For each query, the gain of each relevant document's row.
        excerpts: Of the documents.
        ideal: float64[q], the DCG@10 of a perfect ranking.
        base: float64[q], the full vectors' nDCG@10.
    """

    def __init__(
        self,
        documents: Float,
        queries: Float,
        relevance: list[dict[int, float]],
        excerpts: Excerpts,
    ) -> None:
        self.documents, self.queries = documents, queries
        self.relevance, self.excerpts = relevance, excerpts
        self.ideal = np.array([_ideal(gains) for gains in relevance])
        self.base = self.ndcg(best(queries, documents))

    @classmethod
    def of(cls, data: DataSet, model: Path) -> Self:
        """Encode a set, or read its vectors from build/bench."""
        vectors = [
            source_vectors(model, texts, kind, MAX_TOKENS)
            for texts, kind in ((data.documents, "document"), (data.queries, "query"))
        ]
        return cls(vectors[0], vectors[1], data.relevance, excerpts_of(data.documents, model))

    def kept(self, queries: Float, documents: Float) -> dict[str, Any]:
        """nDCG@10, and the share of the full vectors' that it is, alone and reranked by full vectors.

        Args:
            queries: float32[q, d], unit length.
            documents: float32[n, d], unit length.
        """
        found = best(queries, documents)
        alone = self.ndcg(found)
        return {
            "ndcg_at_10": round(float(alone.mean()), 4),
            "kept": bootstrap_ratio(alone, self.base),
            "kept_reranked": bootstrap_ratio(self.ndcg(self._reranked(found)), self.base),
        }

    def trial(self, nested: tuple[int, ...]) -> HeadTrial:
        """All that an export with these documents would fit on."""
        return replace(trial_of(self.documents, self.excerpts), nested=nested)

    def _reranked(self, found: Rows) -> Rows:
        """The same rows in the order of the full vectors."""
        ordered = np.empty_like(found)
        for query, rows in enumerate(found):
            exact = self.documents[rows] @ self.queries[query]
            ordered[query] = rows[np.argsort(-exact, kind="stable")]
        return ordered

    def ndcg(self, found: Rows) -> NDArray[np.float64]:
        """nDCG@10 of each query, from the rows that were found, best first."""
        gains = [
            [gains.get(row, 0.0) for row in rows]
            for rows, gains in zip(found[:, :10].tolist(), self.relevance, strict=True)
        ]
        scores: NDArray[np.float64] = np.array(gains) @ DISCOUNTS / self.ideal
        return scores


def _ideal(gains: dict[int, float]) -> float:
    most = sorted(gains.values(), reverse=True)[:10]
    return float(np.array(most) @ DISCOUNTS[: len(most)])


def best(queries: Float, documents: Float) -> Rows:
    """intp[q, 50]: the rows with the largest cosines, best first."""
    found = []
    for start in range(0, len(queries), 512):
        scores = queries[start : start + 512] @ documents.T
        rows = np.argpartition(-scores, RERANKED - 1, axis=1)[:, :RERANKED]
        rows.sort(axis=1)
        order = np.argsort(-np.take_along_axis(scores, rows, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(rows, order, axis=1))
    return np.concatenate(found)


def excerpts_of(texts: list[str], model: Path) -> Excerpts:
    """Excerpts of passages, as an export takes them."""
    excerpts = take_excerpts(texts, count_excerpts(len(texts)))
    vectors = source_vectors(model, [excerpt for _, excerpt in excerpts], "query", MAX_TOKENS)
    return Excerpts(vectors, np.array([row for row, _ in excerpts], dtype=np.intp))


def trial_of(documents: Float, excerpts: Excerpts) -> HeadTrial:
    """All that is fitted on; at most as many passages and excerpts as an export takes."""
    rows = np.array(spread(range(len(documents)), MOST_PASSAGES))
    places = np.full(len(documents), -1)
    places[rows] = np.arange(len(rows))
    origins = places[excerpts.origins]
    known = np.flatnonzero(origins >= 0)
    known = np.array(spread(known.tolist(), count_excerpts(len(rows))), dtype=np.intp)
    some = Excerpts(excerpts.full[known], origins[known])
    return HeadTrial.of(documents[rows], nested_sizes(documents.shape[1]), excerpts=some).on_all()
