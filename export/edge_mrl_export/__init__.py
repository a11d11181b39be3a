"""The exporter: from a text-embedding model to a verified bundle. Start at ``build``."""

from __future__ import annotations

__all__: list[str] = []
