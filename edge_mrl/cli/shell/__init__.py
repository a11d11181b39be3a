"""Commands for the shell that edge-mrl is used in."""

from __future__ import annotations

__all__: list[str] = []
