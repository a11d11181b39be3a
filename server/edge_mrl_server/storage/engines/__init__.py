"""The databases that storage runs on."""

from __future__ import annotations

__all__: list[str] = []
