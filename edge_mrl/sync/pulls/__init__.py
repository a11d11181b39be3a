"""The parts of pulling: documents as a store keeps them, and snapshots."""

from __future__ import annotations

__all__: list[str] = []
