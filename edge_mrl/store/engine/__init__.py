"""What lies between a store and SQLite: drivers, file modes, a store's first moment, keys."""

from __future__ import annotations

__all__: list[str] = []
