"""Vector databases of others that a store can be pushed to."""

from __future__ import annotations

__all__: list[str] = []
