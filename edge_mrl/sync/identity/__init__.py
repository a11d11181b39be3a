"""Who a device is to its server: the copy of its store, and what to do where that is refused."""

from __future__ import annotations

__all__: list[str] = []
