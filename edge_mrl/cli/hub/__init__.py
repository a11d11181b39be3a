"""Commands that fetch bundles from a model hub, and publish them there."""

from __future__ import annotations

__all__: list[str] = []
