"""The former place of policies, now in ``edge_mrl.sync``; it goes with the next minor version."""

from __future__ import annotations

from edge_mrl.lazy import moved

__all__: list[str] = []

__getattr__ = moved(__name__, {"edge_mrl.sync": ("Conditions", "Policy")})
