"""Semantic search that lives on the device: encode, store and search text offline."""

from __future__ import annotations

__version__ = "0.1.0"
