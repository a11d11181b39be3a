"""The former ``edge_mrl.encoder``: its names are in ``edge_mrl.encode`` now."""

from __future__ import annotations

from edge_mrl.lazy import moved

__all__: list[str] = []

__getattr__ = moved(__name__, {"edge_mrl.encode": ("Encoder", "Encoding")})
