"""Projection heads that fit your own text, and bundles made with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.heads.adaptation import adapt
    from edge_mrl.heads.balance import TURNS, balanced, centre_of
    from edge_mrl.heads.pieces import count_pieces, cut_pieces
    from edge_mrl.heads.trial import (
        MOST_PASSAGES,
        TOP,
        Pairs,
        Short,
        Trial,
        agreement,
        best_kind,
        nested_sizes,
        split,
        spread,
    )

__all__ = [
    "MOST_PASSAGES",
    "TOP",
    "TURNS",
    "Pairs",
    "Short",
    "Trial",
    "adapt",
    "agreement",
    "balanced",
    "best_kind",
    "centre_of",
    "count_pieces",
    "cut_pieces",
    "nested_sizes",
    "split",
    "spread",
]

__getattr__ = lazily(
    __name__,
    {
        "adaptation": ("adapt",),
        "balance": ("TURNS", "balanced", "centre_of"),
        "pieces": ("count_pieces", "cut_pieces"),
        "trial": (
            "MOST_PASSAGES",
            "TOP",
            "Pairs",
            "Short",
            "Trial",
            "agreement",
            "best_kind",
            "nested_sizes",
            "split",
            "spread",
        ),
    },
)
