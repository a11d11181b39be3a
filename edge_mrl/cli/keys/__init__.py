"""Commands on the key of a store."""

from __future__ import annotations

__all__: list[str] = []
