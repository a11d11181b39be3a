"""Projection heads that are fitted to your own text, and bundles made with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.heads.adaptation import Adaptation, adapt
    from edge_mrl.heads.excerpts import count_excerpts, take_excerpts
    from edge_mrl.heads.fixed_rotation import random_rotation
    from edge_mrl.heads.rotation import ROTATION_STEPS, centred_packing, rotate_for_bits
    from edge_mrl.heads.selection import (
        MOST_PASSAGES,
        TOP,
        Excerpts,
        HeadTrial,
        Pairs,
        agreement,
        best_kind,
        nested_sizes,
        split_held_out,
        spread,
    )

__all__ = [
    "MOST_PASSAGES",
    "ROTATION_STEPS",
    "TOP",
    "Adaptation",
    "Excerpts",
    "HeadTrial",
    "Pairs",
    "adapt",
    "agreement",
    "best_kind",
    "centred_packing",
    "count_excerpts",
    "nested_sizes",
    "random_rotation",
    "rotate_for_bits",
    "split_held_out",
    "spread",
    "take_excerpts",
]

__getattr__ = lazily(
    __name__,
    {
        "adaptation": ("Adaptation", "adapt"),
        "excerpts": ("count_excerpts", "take_excerpts"),
        "fixed_rotation": ("random_rotation",),
        "rotation": ("ROTATION_STEPS", "centred_packing", "rotate_for_bits"),
        "selection": (
            "MOST_PASSAGES",
            "TOP",
            "Excerpts",
            "HeadTrial",
            "Pairs",
            "agreement",
            "best_kind",
            "nested_sizes",
            "split_held_out",
            "spread",
        ),
    },
)
