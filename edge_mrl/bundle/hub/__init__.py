"""Bundles on a model hub: pulled by name, and pushed."""

from __future__ import annotations

__all__: list[str] = []
