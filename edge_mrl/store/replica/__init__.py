"""What makes a store one of several copies: enrollment, versions, queue, dead letters."""

from __future__ import annotations

__all__: list[str] = []
