"""Which documents answer a query: scan, ranking, and reranking by full vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.search.answers import Hit, answer
    from edge_mrl.search.funnel import DEFAULT_WIDTH, WORD_DIMS, Funnel, Stage, tune, tuned_funnel
    from edge_mrl.search.ranking import RESCORE_DEPTH, Mode, Options, Ranked, Vectors, rank
    from edge_mrl.search.rerank import DEFAULT_MARGIN, Answer, Reranker, Scorer, doubt, merge
    from edge_mrl.search.scan import EXACT_BELOW, nearest

__all__ = [
    "DEFAULT_MARGIN",
    "DEFAULT_WIDTH",
    "EXACT_BELOW",
    "RESCORE_DEPTH",
    "WORD_DIMS",
    "Answer",
    "Funnel",
    "Hit",
    "Mode",
    "Options",
    "Ranked",
    "Reranker",
    "Scorer",
    "Stage",
    "Vectors",
    "answer",
    "doubt",
    "merge",
    "nearest",
    "rank",
    "tune",
    "tuned_funnel",
]

__getattr__ = lazily(
    __name__,
    {
        "answers": ("Hit", "answer"),
        "funnel": ("DEFAULT_WIDTH", "WORD_DIMS", "Funnel", "Stage", "tune", "tuned_funnel"),
        "ranking": ("RESCORE_DEPTH", "Mode", "Options", "Ranked", "Vectors", "rank"),
        "rerank": ("DEFAULT_MARGIN", "Answer", "Reranker", "Scorer", "doubt", "merge"),
        "scan": ("EXACT_BELOW", "nearest"),
    },
)
