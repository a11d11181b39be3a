"""Retrieval quality of codes, measured on the user's data: for ``eval`` and ``advise``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_export.quality.advice import Advice, Question, advise
    from edge_mrl_export.quality.assessment import Assessment, assess, opened
    from edge_mrl_export.quality.cache import Cache
    from edge_mrl_export.quality.tuning import tune

__all__ = [
    "Advice",
    "Assessment",
    "Cache",
    "Question",
    "advise",
    "assess",
    "opened",
    "tune",
]

__getattr__ = lazily(
    __name__,
    {
        "advice": ("Advice", "Question", "advise"),
        "assessment": ("Assessment", "assess", "opened"),
        "tuning": ("tune",),
        "cache": ("Cache",),
    },
)
