"""What a store can be pushed to besides a server of edge-mrl."""

from __future__ import annotations

__all__: list[str] = []
