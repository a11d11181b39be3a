"""The former ``edge_mrl.head``: its names are in ``edge_mrl.bundle`` now."""

from __future__ import annotations

from edge_mrl.lazy import moved

__all__: list[str] = []

__getattr__ = moved(
    __name__, {"edge_mrl.bundle": ("derive_codes", "head_id", "head_inputs", "read_head")}
)
