"""What the sub-commands share: output, progress, and options of stores and vectors."""

from __future__ import annotations

__all__: list[str] = []
