"""The former ``edge_mrl.passages``; see ``edge_mrl.documents`` and ``edge_mrl.encode``."""

from __future__ import annotations

from edge_mrl.lazy import moved

__all__: list[str] = []

__getattr__ = moved(
    __name__, {"edge_mrl.documents": ("PassageRule",), "edge_mrl.encode": ("passage_rule",)}
)
