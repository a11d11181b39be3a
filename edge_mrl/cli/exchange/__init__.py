"""Commands that take documents out of a store, and put them into another one."""

from __future__ import annotations

__all__: list[str] = []
