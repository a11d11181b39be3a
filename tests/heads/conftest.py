"""Heads are fitted on short text here too."""

from __future__ import annotations

from tests.export.conftest import short_pool

__all__ = ["short_pool"]
