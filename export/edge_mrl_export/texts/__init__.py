"""Texts that an export and its measurements read: corpora, pairs, data sets, vocabularies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_export.texts.corpus import (
        FEWEST_TEXTS,
        calibration_texts,
        read_corpus,
        shipped_passages,
    )
    from edge_mrl_export.texts.datasets import Retrieval, Similarity, read_data, read_passages
    from edge_mrl_export.texts.pairs import read_pairs
    from edge_mrl_export.texts.vocabulary import Vocabulary, choose_vocabulary, whole_words

__all__ = [
    "FEWEST_TEXTS",
    "Retrieval",
    "Similarity",
    "Vocabulary",
    "calibration_texts",
    "choose_vocabulary",
    "read_corpus",
    "read_data",
    "read_pairs",
    "read_passages",
    "shipped_passages",
    "whole_words",
]

__getattr__ = lazily(
    __name__,
    {
        "corpus": ("FEWEST_TEXTS", "calibration_texts", "read_corpus", "shipped_passages"),
        "datasets": ("Retrieval", "Similarity", "read_data", "read_passages"),
        "pairs": ("read_pairs",),
        "vocabulary": ("Vocabulary", "choose_vocabulary", "whole_words"),
    },
)
