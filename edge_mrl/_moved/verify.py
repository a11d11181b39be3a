"""The former ``edge_mrl.verify``: its names are in ``edge_mrl.encode`` now."""

from __future__ import annotations

from edge_mrl.lazy import moved

__all__: list[str] = []

__getattr__ = moved(
    __name__, {"edge_mrl.encode": ("Verification", "cosines", "encode_vector", "verify")}
)
