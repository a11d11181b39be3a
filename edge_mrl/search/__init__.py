"""Which documents answer a query: scan, ranking, and reranking by full vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.search.answers import Hit, Results, answer
    from edge_mrl.search.funnel import DEFAULT_WIDTH, WORD_DIMS, Funnel, Stage, tune, tuned_funnel
    from edge_mrl.search.options import Mode, SearchKeywords, SearchOptions, check_rerank
    from edge_mrl.search.ranking import RESCORE_DEPTH, QueryVectors
    from edge_mrl.search.rerank import (
        DEFAULT_MARGIN,
        Margin,
        Scorer,
        calibrate_margin,
    )
    from edge_mrl.search.scan import EXACT_BELOW, nearest
    from edge_mrl.search.shortlist import exact_scores, reorder
    from edge_mrl.search.snippets import (
        Words,
        sentence_by_model,
        sentence_by_words,
        sentences,
    )

__all__ = [
    "DEFAULT_MARGIN",
    "DEFAULT_WIDTH",
    "EXACT_BELOW",
    "RESCORE_DEPTH",
    "WORD_DIMS",
    "Funnel",
    "Hit",
    "Margin",
    "Mode",
    "QueryVectors",
    "Results",
    "Scorer",
    "SearchKeywords",
    "SearchOptions",
    "Stage",
    "Words",
    "answer",
    "calibrate_margin",
    "check_rerank",
    "exact_scores",
    "nearest",
    "reorder",
    "sentence_by_model",
    "sentence_by_words",
    "sentences",
    "tune",
    "tuned_funnel",
]

__getattr__ = lazily(
    __name__,
    {
        "answers": ("Hit", "Results", "answer"),
        "funnel": ("DEFAULT_WIDTH", "WORD_DIMS", "Funnel", "Stage", "tune", "tuned_funnel"),
        "options": ("Mode", "SearchKeywords", "SearchOptions", "check_rerank"),
        "ranking": ("RESCORE_DEPTH", "QueryVectors"),
        "rerank": ("DEFAULT_MARGIN", "Margin", "Scorer", "calibrate_margin"),
        "scan": ("EXACT_BELOW", "nearest"),
        "shortlist": ("exact_scores", "reorder"),
        "snippets": ("Words", "sentence_by_model", "sentence_by_words", "sentences"),
    },
    renamed={"Answer": "Results"},
)
