"""Modules at their former places, ``edge_mrl.NAME``; they go with the next minor version."""

from __future__ import annotations

__all__: list[str] = []
