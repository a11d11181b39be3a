"""Commands that open a store or a bundle to other programs."""

from __future__ import annotations

__all__: list[str] = []
