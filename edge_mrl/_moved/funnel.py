"""The former ``edge_mrl.funnel``: its names are in ``edge_mrl.search`` now."""

from __future__ import annotations

from edge_mrl.lazy import moved

__all__: list[str] = []

__getattr__ = moved(
    __name__, {"edge_mrl.search": ("DEFAULT_WIDTH", "WORD_DIMS", "Funnel", "Stage")}
)
