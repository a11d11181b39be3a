"""Readers of files that are no plain text: HTML, PDF and others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.sources.formats.registry import (
        ONLY_INCLUDED,
        Part,
        Reader,
        Unreadable,
        extra_reads,
        reader_of,
    )

__all__ = ["ONLY_INCLUDED", "Part", "Reader", "Unreadable", "extra_reads", "reader_of"]

__getattr__ = lazily(
    __name__,
    {
        "registry": (
            "ONLY_INCLUDED",
            "Part",
            "Reader",
            "Unreadable",
            "extra_reads",
            "reader_of",
        )
    },
)
