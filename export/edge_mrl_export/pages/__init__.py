"""HTML pages and SVG charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_export.pages.page import Page
    from edge_mrl_export.pages.plots import Axis, Line, Panel, svg

__all__ = [
    "Axis",
    "Line",
    "Page",
    "Panel",
    "svg",
]

__getattr__ = lazily(
    __name__,
    {
        "page": ("Page",),
        "plots": ("Axis", "Line", "Panel", "svg"),
    },
)
